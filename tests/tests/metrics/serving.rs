//! How the service hands out metrics, and to whom.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
};

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    http::{self, Answer},
    lab::Source::A,
    run::{Running, wait_until},
    scenario::Scenario,
};

use super::{LISTEN, gates_with_metrics, in_generic_mode, serve, value};

/// Clients that the service answers at a time.
const MOST_CLIENTS: usize = 64;

fn address() -> SocketAddr {
    LISTEN.parse().expect("an address")
}

fn page(scenario: &Scenario) -> Option<Answer> {
    http::get(&scenario.lab.host, address(), "/metrics")
}

fn served(scenario: &Scenario) -> Answer {
    let mut answer = None;
    wait_until("the metrics are served", || {
        answer = page(scenario);
        answer.is_some()
    });
    answer.expect("it was waited for")
}

#[test]
fn the_service_answers_at_one_path() {
    in_generic_mode(&[], |scenario| {
        scenario.configure(gates_with_metrics(LISTEN));
        let _service = serve(scenario);
        let answer = served(scenario);
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .head
                .contains("content-type: text/plain; version=0.0.4"),
            "{answer:?}"
        );
        assert_eq!(value(&answer.body, "knockgate_service_running"), Some(1.0));
        let ask = |method: &str, path: &str| {
            let connect = || scenario.lab.host.run(|| TcpStream::connect(address()));
            let mut answer = None;
            // It waits for five seconds for a request.
            wait_until("it answers", || {
                answer = http::ask(connect().expect("it listens"), method, path);
                answer.is_some()
            });
            answer.expect("it was waited for")
        };
        let elsewhere = ask("GET", "/");
        assert_eq!(elsewhere.status, 404);
        assert!(elsewhere.body.contains("/metrics"));
        let posted = ask("POST", "/metrics");
        assert_eq!(posted.status, 405);
        let head = ask("HEAD", "/metrics");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        // What has happened since is there after a second.
        scenario.knock(A, ALICE);
        wait_until("the grant is counted", || {
            let text = served(scenario).body;
            value(&text, "knockgate_grants{gate=\"ssh\"}") == Some(1.0)
        });
    });
}

#[test]
fn hooks_that_fail_are_counted() {
    in_generic_mode(&[], |scenario| {
        let missing = "[[gate.hook]]\non = \"opened\"\nrun = [\"/nonexistent/notify\"]\n";
        let ssh = Gate::ssh().within("1m");
        scenario.configure(format!(
            "metrics = {{ listen = \"{LISTEN}\" }}\n{ssh}{missing}"
        ));
        let _service = serve(scenario);
        let counted = |reason: &str| {
            let sample = format!("knockgate_hooks_failed_total{{reason=\"{reason}\"}}");
            value(&served(scenario).body, &sample)
        };
        assert_eq!(counted("not_started"), Some(0.0));
        scenario.knock(A, ALICE);
        // The page may be a second old.
        wait_until("it is counted", || counted("not_started") == Some(1.0));
        assert_eq!(counted("exit_status"), Some(0.0));
        // Without the service nobody knows.
        let text = scenario.knockgate("metrics").exits(0).stdout.clone();
        assert!(!text.contains("knockgate_hooks_failed"), "{text}");
    });
}

#[test]
fn nobody_keeps_others_out() {
    in_generic_mode(&[], |scenario| {
        scenario.configure(gates_with_metrics(LISTEN));
        let _service = serve(scenario);
        served(scenario);
        let connect = || {
            scenario
                .lab
                .host
                .run(|| TcpStream::connect(address()))
                .expect("it listens")
        };
        // Those who say nothing, who stop half-way, who send without end, and who never read the answer.
        let mut clients: Vec<TcpStream> = (0..3 * MOST_CLIENTS).map(|_| connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let text = match number % 4 {
                0 => String::new(),
                1 => "GET /metrics HTTP/1.1\r\nHost: ".to_owned(),
                2 => format!("GET /metrics HTTP/1.1\r\n{}", "X: y\r\n".repeat(5000)),
                _ => "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            };
            // The service may have closed it, or may close it meanwhile.
            let _ = client.write_all(text.as_bytes());
        }
        assert_eq!(served(scenario).status, 200);
        // Its other work goes on.
        scenario.knock(A, ALICE);
        wait_until("the knocks are reported", || {
            let events = scenario.knockgate("events").exits(0).stdout.clone();
            events.contains("gate.opened")
        });
        // The oldest had to give way, so that the number of clients is bounded.
        let mut rest = [0; 64];
        wait_until("the oldest is closed", || {
            matches!(clients[0].read(&mut rest), Ok(0) | Err(_))
        });
    });
}

#[test]
fn a_taken_port_is_reported_and_tried_again() {
    in_generic_mode(&[], |scenario| {
        scenario.configure(gates_with_metrics(LISTEN));
        let taken = scenario
            .lab
            .host
            .run(|| TcpListener::bind(address()))
            .expect("free");
        let log = scenario.lab.folder().join("log");
        let mut command = scenario.lab.knockgate_command(&["run"]);
        command.stderr(fs::File::create(&log).expect("writable"));
        let _service = Running::start(&mut command, scenario.lab.folder());
        let said = || fs::read_to_string(&log).expect("readable");
        let fault = "cannot serve metrics on 127.0.0.1:9464: another program listens on port 9464";
        wait_until("the service serves", || said().contains("serving;"));
        assert_eq!(said().matches(fault).count(), 1, "{}", said());
        drop(taken);
        let answer = served(scenario);
        assert_eq!(answer.status, 200);
        assert_eq!(said().matches(fault).count(), 1, "{}", said());
    });
}

#[test]
fn a_unix_socket_is_its_groups_and_goes_with_the_service() {
    in_generic_mode(&[], |scenario| {
        let socket = scenario.lab.folder().join("metrics.sock");
        scenario.configure(gates_with_metrics(&format!("unix:{}", socket.display())));
        let service = serve(scenario);
        wait_until("the metrics are served", || {
            let answer = http::get_unix(&socket, "/metrics");
            answer.is_some_and(|answer| answer.status == 200)
        });
        let mode = fs::metadata(&socket)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        assert!(socket.exists(), "nobody has removed it");
        let service = serve(scenario);
        wait_until("the next service takes the socket over", || {
            http::get_unix(&socket, "/metrics").is_some()
        });
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        assert!(!socket.exists());
    });
}
