//! One page over HTTP. Clients are bounded in number and in time, since any user of the host may connect.

use std::{
    cell::RefCell, collections::VecDeque, convert::Infallible, future::ready, rc::Rc,
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    task::{AbortHandle, LocalSet, spawn_local},
    time::{Instant, sleep, timeout},
};

use super::listener::{Accepting, Listener, Stream};
use crate::{
    datapath::PinRoot,
    metrics::{self, Reading},
    service::{failures::HookFailures, fleet::Counts, serving::Stopped},
};

/// The path of the page.
pub const PATH: &str = "/metrics";
/// Clients at a time. The oldest gives way to a new one, so that clients which connect and say nothing keep nobody out.
const MOST_CLIENTS: usize = 64;
/// How long a client has for its request, and for everything.
const REQUEST: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of a request, at most: the least that hyper takes.
const REQUEST_BYTES: usize = 8192;
/// For so long the page is handed out again as it was: reading a full table takes milliseconds, and whoever asks in a loop
/// must not cost a processor.
const FRESH: Duration = Duration::from_secs(1);
/// Where there are no descriptors left, the next client is waited for after this pause.
const PAUSE: Duration = Duration::from_millis(100);

/// What the page is made of.
pub struct Source {
    pub root: PinRoot,
    pub hook_failures: HookFailures,
    pub fleet: Counts,
}

/// Serves until `stopped`.
pub async fn serve(listener: Listener, source: Source, mut stopped: Stopped) {
    let accepting = match listener.register() {
        Ok(accepting) => accepting,
        Err(error) => {
            tracing::error!("cannot serve metrics: {error}");
            return;
        }
    };
    let page = Rc::new(Page {
        source,
        latest: RefCell::default(),
    });
    let clients = LocalSet::new();
    let accept = clients.run_until(accept(accepting, page));
    tokio::select! {
        () = accept => {}
        () = stopped.wait() => {}
    }
}

async fn accept(accepting: Accepting, page: Rc<Page>) {
    let mut clients: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match accepting.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!("cannot accept a client of the metrics: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        clients.retain(|client| !client.is_finished());
        if clients.len() == MOST_CLIENTS
            && let Some(oldest) = clients.pop_front()
        {
            oldest.abort();
        }
        let client = spawn_local(answer(stream, Rc::clone(&page)));
        clients.push_back(client.abort_handle());
    }
}

/// Answers one request, then closes the connection.
async fn answer(stream: Box<dyn Stream>, page: Rc<Page>) {
    let service = service_fn(|request| ready(Ok::<_, Infallible>(respond(&request, &page))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(WHOLE, connection).await {
        tracing::debug!("a client of the metrics: {error}");
    }
}

fn respond<B>(request: &Request<B>, page: &Page) -> Response<String> {
    if request.uri().path() != PATH {
        let text = format!("The metrics of knockgate are at {PATH}\n");
        return plain(StatusCode::NOT_FOUND, text);
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned());
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match page.text() {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn plain(status: StatusCode, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The page, as it was last read.
struct Page {
    source: Source,
    latest: RefCell<Option<(Instant, Result<String, String>)>>,
}

impl Page {
    /// Returns the text, or why it cannot be read.
    fn text(&self) -> Result<String, String> {
        let mut latest = self.latest.borrow_mut();
        match &*latest {
            Some((read, text)) if read.elapsed() < FRESH => text.clone(),
            before => {
                let Source {
                    root,
                    hook_failures,
                    fleet,
                } = &self.source;
                let text = Reading::take(root)
                    .map(|reading| reading.of_service(hook_failures.by_reason(), fleet.read()))
                    .and_then(|reading| Ok(reading.into_text()?))
                    .map_err(|error| format!("cannot read the metrics: {error:#}"));
                if let Err(error) = &text
                    && before.as_ref().is_none_or(|(_, before)| before.is_ok())
                {
                    tracing::error!("{error}");
                }
                *latest = Some((Instant::now(), text.clone()));
                text
            }
        }
    }
}
