//! A kernel at work in qemu, and what it says on its console.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use knockgate_progress::Progress;

use super::{
    debian::{Emulator, Kernel},
    figures::Figures,
    image,
    suites::{self, Check, Suites, VERIFIER},
};
use crate::workspace;

/// From switching on to the last check. It takes a tenth of it or less on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_mins(30);

/// The kernel's tables at the sizes that the checks give them, the suites, and room.
const MEMORY: &str = "1024M";

/// A machine that can be switched on.
pub(super) struct Guest {
    kernel: Kernel,
    /// The system that it runs.
    image: PathBuf,
    checks: Vec<&'static Check>,
}

impl Guest {
    /// Packs what the kernel is to run.
    pub(super) fn prepare(kernel: Kernel, knockgate: &Path, suites: &Suites) -> Result<Self> {
        let archive = image::pack(&kernel, knockgate, suites)?;
        let image = workspace::target().join(format!("kernels/{}.cpio", kernel.release));
        fs::write(&image, archive).with_context(|| format!("cannot write {}", image.display()))?;
        Ok(Self {
            kernel,
            image,
            checks: suites.checks.clone(),
        })
    }

    /// Runs all checks, says of each when it has passed, and returns the figures. `update`: those may have
    /// grown.
    pub(super) fn run(
        &self,
        emulator: &Emulator,
        update: bool,
        progress: &Progress,
    ) -> Result<Vec<Figures>> {
        let release = &self.kernel.release;
        let mut console = Console::open(self, emulator)?;
        self.checks(&mut console, update, progress)
            .with_context(|| {
                let log = console.log.display();
                format!("Linux {release}, whose console is kept in {log}")
            })
    }

    fn checks(
        &self,
        console: &mut Console,
        update: bool,
        progress: &Progress,
    ) -> Result<Vec<Figures>> {
        let mut figures = None;
        for check in &self.checks {
            let Check { suite, rows, .. } = check;
            let release = &self.kernel.release;
            progress.begin(&format!("{suite}, on {release}"));
            console.until(&format!("== {suite} begins"))?;
            let begun = Instant::now();
            let said = console.until(&format!("== {suite} ends"))?;
            let took = begun.elapsed().as_secs();
            if *suite == VERIFIER.suite {
                figures = Some(suites::measured(&said, update)?);
            } else {
                check.judge(&said)?;
            }
            progress.done();
            progress.result(&format!(
                "{release}: {suite} passed (rows: {}) in {took} s",
                rows.len()
            ));
        }
        figures.context("no check has measured the verifier")
    }
}

/// The lines of a running machine, which is switched off when this goes.
struct Console {
    machine: Child,
    lines: mpsc::Receiver<String>,
    /// Where they are kept too.
    log: PathBuf,
    deadline: Instant,
}

impl Console {
    /// Switches a guest on.
    fn open(guest: &Guest, emulator: &Emulator) -> Result<Self> {
        let Guest { kernel, image, .. } = guest;
        let path = image.with_extension("log");
        let log =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        // The machine ends with this process, whatever ends it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        emulator.add_to(&mut command);
        let mut machine = command
            .args(["-accel", "tcg"])
            .args(["-m", MEMORY, "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `setpriv`, which is to start qemu")?;
        let said = machine.stdout.take().context("qemu has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || copy_lines(said, log, &sender));
        Ok(Self {
            machine,
            lines,
            log: path,
            deadline: Instant::now() + PATIENCE,
        })
    }

    /// What is said before a line, which is waited for.
    fn until(&mut self, last: &str) -> Result<String> {
        let mut said = String::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line == last => return Ok(said),
                Ok(line) => {
                    said.push_str(&line);
                    said.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("no line `{last}` within {PATIENCE:?}; instead of it:\n{said}")
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the machine stopped before it said `{last}`; instead of it:\n{said}")
                }
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It may have switched itself off by now.
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}

/// Hands lines on until there are no more, or nobody who wants them.
fn copy_lines(from: impl Read, mut log: File, to: &mpsc::Sender<String>) {
    for line in BufReader::new(from).split(b'\n') {
        let Ok(line) = line else {
            return;
        };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        // Without its file the console is still read.
        let _ = writeln!(log, "{line}");
        if to.send(line.to_owned()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_read_line_by_line_to_its_end() {
        let log = File::create("/dev/null").expect("there is one");
        let (sender, lines) = mpsc::channel();
        copy_lines(&b"booting\r\n== gate begins\r\n\xff\n"[..], log, &sender);
        drop(sender);
        let lines: Vec<_> = lines.iter().collect();
        assert_eq!(lines, ["booting", "== gate begins", "\u{fffd}"]);
    }
}
