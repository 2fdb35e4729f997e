//! One run of a hook's program: its time limit, and how it ended.

use std::{
    fmt, io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{io::unix::AsyncFd, net::unix::pipe, time::timeout};

use super::{command, output};
use crate::{
    service::{names, record::Record},
    sys::process::Group,
};

/// How long a program may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until its process group is asked to end (SIGTERM).
    pub run: Duration,
    /// From then until it is killed (SIGKILL).
    pub end: Duration,
}

pub const LIMITS: Limits = Limits {
    run: Duration::from_secs(10),
    end: Duration::from_secs(2),
};

/// Why a program is said to have failed.
#[derive(Debug)]
pub enum Failure {
    NotStarted(io::Error),
    ExitStatus(i32),
    Signal(i32),
    TimeLimit(Duration),
}

impl Failure {
    /// Returns the reason, as events have it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotStarted(_) => names::NOT_STARTED,
            Self::ExitStatus(_) => names::EXIT_STATUS,
            Self::Signal(_) => names::SIGNAL,
            Self::TimeLimit(_) => names::TIME_LIMIT,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "cannot be run: {error}"),
            Self::ExitStatus(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimeLimit(limit) => {
                write!(f, "took longer than {} s and was ended", limit.as_secs())
            }
        }
    }
}

/// Runs a program for an event and waits until it has exited and its output is closed. At the time limit its whole process
/// group is ended. Returns what it has printed.
pub async fn run(
    run: &[String],
    record: &Record,
    limits: Limits,
) -> (Vec<String>, Option<Failure>) {
    let (group, exited, printed) = match start(run, record) {
        Ok(started) => started,
        Err(error) => return (Vec::new(), Some(Failure::NotStarted(error))),
    };
    let over = async { tokio::join!(exited.readable(), output::read(printed)).1 };
    tokio::pin!(over);
    let mut in_time = timeout(limits.run, &mut over).await;
    let is_in_time = in_time.is_ok();
    if !is_in_time {
        group.signal(libc::SIGTERM);
        in_time = timeout(limits.end, &mut over).await;
        // Also what the program has left behind in its group.
        group.signal(libc::SIGKILL);
    }
    // Processes that have left the group may keep the output open: what was read of it by then is not known.
    let (kept, more) = in_time.map(Result::unwrap_or_default).unwrap_or_default();
    let lines = output::lines(&kept, more);
    if !is_in_time {
        return (lines, Some(Failure::TimeLimit(limits.run)));
    }
    let failure = match group.end() {
        Ok(Some(status)) if status.success() => None,
        Ok(Some(status)) => Some(match (status.code(), status.signal()) {
            (Some(code), _) => Failure::ExitStatus(code),
            (None, signal) => Failure::Signal(signal.unwrap_or_default()),
        }),
        Ok(None) => Some(Failure::TimeLimit(limits.run)),
        Err(error) => Some(Failure::NotStarted(error)),
    };
    (lines, failure)
}

/// Starts the program with nothing of this process: no environment, no descriptor but its output.
fn start(run: &[String], record: &Record) -> io::Result<(Group, AsyncFd<OwnedFd>, pipe::Receiver)> {
    let mut argv = command::argv(run, record).into_iter();
    let program = argv.next().ok_or(io::ErrorKind::InvalidInput)?;
    let (printed, standard_output) = io::pipe()?;
    let standard_error = standard_output.try_clone()?;
    let mut command = Command::new(program);
    command
        .args(argv)
        .env_clear()
        .envs(command::environment(record))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(standard_output)
        .stderr(standard_error);
    let printed = pipe::Receiver::from_owned_fd(printed.into())?;
    let (group, exited) = Group::start(&mut command)?;
    // SAFETY: the descriptor is owned by this value until it is dropped; nothing replaces it.
    let exited = unsafe { AsyncFd::register(exited) }?;
    // The command, dropped here, has this process's copies of the writing end.
    Ok((group, exited, printed))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Longer than any test takes.
    pub const PATIENT: Limits = Limits {
        run: Duration::from_hours(1),
        end: Duration::from_hours(1),
    };

    async fn shell(script: &str, limits: Limits) -> (Vec<String>, Option<Failure>) {
        let argv = ["/bin/sh", "-c", script].map(ToOwned::to_owned);
        run(&argv, &Record::now("gate.opened"), limits).await
    }

    #[tokio::test]
    async fn what_it_prints_and_how_it_ends_is_known() {
        let (lines, failure) = shell("echo one; echo two >&2", PATIENT).await;
        assert_eq!(lines, ["one", "two"]);
        assert!(failure.is_none(), "{failure:?}");
        let (_, failure) = shell("exit 3", PATIENT).await;
        assert!(
            matches!(failure, Some(Failure::ExitStatus(3))),
            "{failure:?}"
        );
        let (_, failure) = shell("kill -9 $$", PATIENT).await;
        assert!(matches!(failure, Some(Failure::Signal(9))), "{failure:?}");
        let missing = ["/nonexistent/program".to_owned()];
        let (_, failure) = run(&missing, &Record::now("alert"), PATIENT).await;
        assert!(
            matches!(failure, Some(Failure::NotStarted(_))),
            "{failure:?}"
        );
    }

    #[tokio::test]
    async fn it_inherits_nothing() {
        let inherited = std::fs::File::open("/dev/null").expect("it exists");
        // `ls` by itself: a pipeline's pipes may still be open in the shell when it looks.
        let script = "env | cut -d= -f1 | sort | tr '\n' ' '; echo; ls /proc/$$/fd; pwd; \
                      readlink /proc/$$/fd/0; test $$ = $(cut -d' ' -f5 /proc/$$/stat) && echo leads";
        let (lines, failure) = shell(script, PATIENT).await;
        drop(inherited);
        assert!(failure.is_none(), "{failure:?} {lines:?}");
        // PWD, SHLVL and _ are the shell's own.
        let variables: Vec<&str> = lines[0].split_whitespace().collect();
        let own = ["PWD", "OLDPWD", "SHLVL", "_"];
        let given: Vec<&str> = variables
            .into_iter()
            .filter(|name| !own.contains(name))
            .collect();
        assert_eq!(given, ["KNOCKGATE_EVENT", "KNOCKGATE_TIME", "LANG", "PATH"]);
        assert_eq!(lines[1..], ["0", "1", "2", "/", "/dev/null", "leads"]);
    }

    /// The clock goes on by itself whenever nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn at_the_time_limit_the_whole_group_ends() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pid = folder.path().join("pid");
        let script = format!(
            "trap '' TERM; sleep 1000 & echo $! >{0}.new; mv {0}.new {0}; wait",
            pid.display()
        );
        let begun = tokio::time::Instant::now();
        let (_, failure) = shell(&script, LIMITS).await;
        assert!(
            matches!(failure, Some(Failure::TimeLimit(_))),
            "{failure:?}"
        );
        assert!(begun.elapsed() <= LIMITS.run + LIMITS.end);
        // Where the shell got that far, its child is gone with it.
        if let Ok(pid) = std::fs::read_to_string(&pid) {
            let is_alive = || {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
                stat.is_ok_and(|stat| !stat.contains(") Z "))
            };
            while is_alive() {
                std::thread::yield_now();
            }
        }
    }
}
