//! The log on standard error, or in systemd's journal.

#[cfg(feature = "host")]
mod json;
mod lines;
#[cfg(feature = "host")]
pub mod service;

use std::io;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::layer, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use self::lines::Text;

/// Begins to log for a person who waits for the command: lines of text, without a time.
pub fn for_people() {
    begin(text(false));
}

/// Returns what writes lines of text to standard error.
fn text(has_time: bool) -> impl Layer<Registry> + Send + Sync {
    layer()
        .with_writer(io::stderr)
        .with_ansi(anstream::stderr().current_choice() != anstream::ColorChoice::Never)
        // Where standard error is full or closed, there is nowhere to say so.
        .log_internal_errors(false)
        .event_format(Text { has_time })
}

/// Begins to log by `layer`, at the levels that `RUST_LOG` names.
fn begin(layer: impl Layer<Registry> + Send + Sync) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .init();
}
