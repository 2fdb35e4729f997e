//! The log on standard error, or in systemd's journal.
//!
//! An event of the service is logged with its keys as fields; text shows the message alone, JSON and the journal have the
//! fields.

mod lines;

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::layer, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use self::lines::{Json, Text};

/// The form of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The journal where standard error is connected to it, else text
    #[default]
    Auto,
    /// Lines of text, with their time
    Text,
    /// One JSON object a line
    Json,
    /// The journal of systemd, with the keys of events as fields
    Journal,
}

/// Begins to log. `service`: the form of the service's log; `None` for commands that a person waits for, whose messages
/// need no time. `quiet`: nothing is logged, since a log would spoil what is drawn on the terminal.
pub fn init(service: Option<Form>, quiet: bool) -> Result<()> {
    let is_journal = is_journal();
    let form = match service {
        Some(Form::Auto) if is_journal => Form::Journal,
        Some(Form::Auto) | None => Form::Text,
        Some(form) => form,
    };
    let has_time = service.is_some() && !is_journal;
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match form {
        Form::Journal => {
            let journal = tracing_journald::layer().context(
                "cannot write to systemd's journal (/run/systemd/journal/socket); use --log text or --log json",
            )?;
            let journal = journal.with_field_prefix(Some("KNOCKGATE".to_owned()));
            Box::new(journal.with_syslog_identifier("knockgate".to_owned()))
        }
        Form::Json => Box::new(
            layer()
                .with_writer(io::stderr)
                .log_internal_errors(false)
                .event_format(Json),
        ),
        Form::Auto | Form::Text => Box::new(
            layer()
                .with_writer(io::stderr)
                .with_ansi(has_colours())
                // Where standard error is full or closed, there is nowhere to say so.
                .log_internal_errors(false)
                .event_format(Text { has_time }),
        ),
    };
    let filter = if quiet {
        EnvFilter::new("off")
    } else {
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"))
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .init();
    Ok(())
}

fn has_colours() -> bool {
    anstream::stderr().current_choice() != anstream::ColorChoice::Never
}

/// Whether standard error is connected to systemd's journal: `JOURNAL_STREAM` has its device and inode then, also in a
/// process whose standard error is another one.
fn is_journal() -> bool {
    let given = env::var("JOURNAL_STREAM").ok();
    // `/dev/stderr` of a socket cannot be opened, but looked at.
    let is = fs::metadata("/proc/self/fd/2").ok();
    let is = is.map(|file| format!("{}:{}", file.dev(), file.ino()));
    given.is_some() && given == is && !io::stderr().is_terminal()
}
