//! The `knockgate` command: parses the command line, and turns errors into exit statuses.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use knock_user::{
    cli::Cli,
    client::{NotOpen, profile},
    commands,
};
#[cfg(feature = "host")]
use knock_user::{
    config::Invalid,
    datapath::{NotFollowed, NotGuarded, NotPermitted, NothingUp},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let only_prints = cli.only_prints();
    let result = cli.begin_log().and_then(|()| commands::run(cli));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if only_prints && is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed, the exit status still tells.
            let _ = writeln!(anstream::stderr(), "{}", message(&error));
            ExitCode::from(status_of(&error))
        }
    }
}

/// Returns what to say of an error.
fn message(error: &anyhow::Error) -> String {
    #[cfg(feature = "host")]
    if let Some(invalid) = error.downcast_ref::<Invalid>() {
        return invalid.to_string();
    }
    format!("knockgate: {error:#}{}", remedy(error).unwrap_or_default())
}

/// Returns the exit status for an error, as docs/reference.md lists them. Clap exits with 2 for wrong usage.
fn status_of(error: &anyhow::Error) -> u8 {
    #[cfg(feature = "host")]
    if let Some(status) = host_status(error) {
        return status;
    }
    if error.is::<profile::Invalid>() {
        3
    } else if error.is::<NotOpen>() {
        6
    } else {
        1
    }
}

#[cfg(feature = "host")]
fn host_status(error: &anyhow::Error) -> Option<u8> {
    if let Some(invalid) = error.downcast_ref::<Invalid>() {
        Some(if invalid.not_permitted() { 4 } else { 3 })
    } else if error.is::<NotPermitted>() {
        Some(4)
    } else if error.is::<NothingUp>() {
        Some(5)
    } else if error.is::<NotGuarded>() || error.is::<NotFollowed>() {
        Some(7)
    } else {
        None
    }
}

/// Whether the reader of standard output has closed it, as in `knockgate grants | head`. That is no failure of a command that
/// does nothing else than print.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Returns advice for errors that any command may meet.
fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    let number = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())?;
    match number {
        libc::EMFILE => Some(
            "\nthis process may open no more files; raise its limit with `ulimit -n 1024` (in a systemd unit: \
             LimitNOFILE=) and try again",
        ),
        libc::ENFILE => Some(
            "\nthis machine may open no more files; close some, or raise the sysctl fs.file-max, and try again",
        ),
        _ => None,
    }
}
