//! Runs a kernel in qemu, and reads its console.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    ptr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use knockgate_progress::Progress;

use super::{
    debian::{Emulator, Kernel, Machine},
    figures::Figures,
    image,
    suites::{self, AFTER_CRASH, Check, REFUSED, Suites, VERIFIER},
    userland::Userland,
};
use crate::workspace;

/// A machine that is ready to boot.
pub(super) struct Guest {
    kernel: Kernel,
    /// The system to boot.
    image: PathBuf,
    checks: Vec<&'static Check>,
}

impl Guest {
    /// Packs the system for a kernel.
    pub(super) fn prepare(
        kernel: Kernel,
        knockgate: &Path,
        suites: &Suites,
        userland: &Userland,
    ) -> Result<Self> {
        let checks = if kernel.is_refused {
            vec![&REFUSED]
        } else {
            let fits = |check: &&Check| check.fits(|module| kernel.has(module));
            suites.checks.iter().copied().filter(fits).collect()
        };
        let archive = image::pack(&kernel, knockgate, suites, &checks, userland)?;
        let image = workspace::target().join(format!("kernels/{}.cpio", kernel.release));
        fs::write(&image, archive).with_context(|| format!("cannot write {}", image.display()))?;
        Ok(Self {
            kernel,
            image,
            checks,
        })
    }

    /// Returns whether [`Guest::run`] runs this check.
    pub(super) fn runs(&self, check: &'static Check) -> bool {
        self.checks.iter().any(|own| ptr::eq(*own, check))
    }

    /// Returns how many checks [`Guest::run`] runs.
    pub(super) fn checks_to_run(&self) -> usize {
        let again = self
            .checks
            .iter()
            .any(|check| check.suite == AFTER_CRASH.suite);
        self.checks.len() + usize::from(again)
    }

    /// Runs all checks, and prints each that has passed. Returns the figures, which may have grown with `update`.
    pub(super) fn run(
        &self,
        emulator: &Emulator,
        update: bool,
        progress: &Progress,
    ) -> Result<Vec<Figures>> {
        let mut console = Console::open(&self.kernel, &self.image, emulator)?;
        let checked = self.checks(&mut console, update, progress);
        let (figures, left) = checked.with_context(|| self.and_log(&console))?;
        drop(console);
        if let Some(left) = left {
            let mut archive = fs::read(&self.image)?;
            archive.extend(image::pack_after_crash(&left));
            let image = self.image.with_extension("again.cpio");
            fs::write(&image, archive)
                .with_context(|| format!("cannot write {}", image.display()))?;
            let mut console = Console::open(&self.kernel, &image, emulator)?;
            self.check(&AFTER_CRASH, &mut console, progress, false)
                .with_context(|| self.and_log(&console))?;
        }
        Ok(figures)
    }

    fn and_log(&self, console: &Console) -> String {
        let (release, log) = (&self.kernel.release, console.log.display());
        format!("Linux {release}, whose console is kept in {log}")
    }

    /// Returns the figures, which a kernel that refuses the program has not, and what is left for [`AFTER_CRASH`].
    fn checks(
        &self,
        console: &mut Console,
        update: bool,
        progress: &Progress,
    ) -> Result<(Vec<Figures>, Option<String>)> {
        let (mut figures, mut left) = (Vec::new(), None);
        for check in &self.checks {
            let is_verifier = check.suite == VERIFIER.suite;
            let said = self.check(check, console, progress, update && is_verifier)?;
            if is_verifier {
                figures = suites::measured(&said, update)?;
            }
            left = Check::left(&said).map(str::to_owned).or(left);
        }
        Ok((figures, left))
    }

    /// Waits until a check has ended. Returns its output. Fails if the check has, unless that is `allowed`.
    fn check(
        &self,
        check: &Check,
        console: &mut Console,
        progress: &Progress,
        allowed: bool,
    ) -> Result<String> {
        let Check { suite, .. } = check;
        let release = &self.kernel.release;
        progress.begin(&format!("{suite}, on {release}"));
        console.until(&format!("== {suite} begins"))?;
        let begun = Instant::now();
        let said = console.until(&format!("== {suite} ends"))?;
        let took = begun.elapsed().as_secs();
        let result = match check.judge(&said) {
            Ok(rows) => format!("{release}: {suite} passed (rows: {rows}) in {took} s"),
            Err(_) if allowed => format!("{release}: {suite} did not pass, in {took} s"),
            Err(error) => return Err(error),
        };
        progress.done();
        progress.result(&result);
        Ok(said)
    }
}

/// The console of a running machine. Dropping it switches the machine off.
struct Console {
    machine: Child,
    lines: mpsc::Receiver<String>,
    /// The file to which the lines are also written.
    log: PathBuf,
    /// The longest time from power-on to the last check, and when it ends.
    patience: Duration,
    deadline: Instant,
}

impl Console {
    /// Boots a kernel with this system.
    fn open(kernel: &Kernel, image: &Path, emulator: &Emulator) -> Result<Self> {
        let &Machine {
            console,
            memory,
            patience,
            ..
        } = emulator.machine;
        let path = image.with_extension("log");
        let log =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        // The kernel kills qemu when this process ends, for whatever reason.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        emulator.add_to(&mut command);
        let mut machine = command
            .args(["-accel", "tcg"])
            .args(kernel.processor)
            .args(["-m", memory, "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args(["-append", &format!("console={console} panic=-1 quiet")])
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
            patience,
            deadline: Instant::now() + patience,
        })
    }

    /// Waits for a line. Returns the lines before it.
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
                    let patience = self.patience;
                    bail!("no line `{last}` within {patience:?}; the console said:\n{said}")
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the machine stopped before it said `{last}`; the console said:\n{said}")
                }
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It may have switched itself off already.
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}

/// Passes lines on until there are no more, or no receiver.
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
