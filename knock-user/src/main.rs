//! The `knockgate` command: parses the command line, and turns errors into exit statuses.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use knock_user::{
    cli::Cli,
    client::{NotOpen, profile},
    commands,
    config::Invalid,
    datapath::{NotGuarded, NotPermitted, NothingUp},
    logging,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = logging::init(cli.log(), cli.owns_terminal()).and_then(|()| commands::run(cli));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let status = status_of(&error);
            // Where standard error is closed, the exit status still tells.
            let _ = match error.downcast_ref::<Invalid>() {
                Some(invalid) => writeln!(anstream::stderr(), "{invalid}"),
                None => writeln!(
                    anstream::stderr(),
                    "knockgate: {error:#}{}",
                    remedy(&error).unwrap_or_default()
                ),
            };
            ExitCode::from(status)
        }
    }
}

/// Returns the exit status for an error, as docs/reference.md lists them. Clap exits with 2 for wrong usage.
fn status_of(error: &anyhow::Error) -> u8 {
    if let Some(invalid) = error.downcast_ref::<Invalid>() {
        if invalid.not_permitted() { 4 } else { 3 }
    } else if error.is::<profile::Invalid>() {
        3
    } else if error.is::<NotPermitted>() {
        4
    } else if error.is::<NothingUp>() {
        5
    } else if error.is::<NotOpen>() {
        6
    } else if error.is::<NotGuarded>() {
        7
    } else {
        1
    }
}

/// Whether the reader of standard output has closed it, as in `knockgate grants | head`. That is no failure.
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
