//! The log of the service.
//!
//! An event of the service is logged with its keys as fields; text shows the message alone, JSON and the journal have the
//! fields.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tracing_subscriber::{Layer as _, fmt::layer};

use super::json::Json;

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

/// Begins to log in this form.
pub fn begin(form: Form) -> Result<()> {
    let is_journal = is_journal();
    let layer = match form {
        Form::Auto if is_journal => journal()?.boxed(),
        Form::Journal => journal()?.boxed(),
        Form::Json => layer()
            .with_writer(io::stderr)
            .log_internal_errors(false)
            .event_format(Json)
            .boxed(),
        // The journal knows the time.
        Form::Auto | Form::Text => super::text(!is_journal).boxed(),
    };
    super::begin(layer);
    Ok(())
}

fn journal() -> Result<tracing_journald::Layer> {
    let journal = tracing_journald::layer().context(
        "cannot write to systemd's journal (/run/systemd/journal/socket); use --log text or --log json",
    )?;
    let journal = journal.with_field_prefix(Some("KNOCKGATE".to_owned()));
    Ok(journal.with_syslog_identifier("knockgate".to_owned()))
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
