//! Programs that run beside the bench, and their memory and CPU time.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::clock::number;

/// A running program. Dropping it kills it.
pub struct Service {
    name: &'static str,
    child: Child,
}

impl Service {
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        Self::attached(name, command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// As [`Service::start`], for a command that has a terminal.
    pub fn attached(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        Ok(Self { name, child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns its resident memory, MiB.
    pub fn memory(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    /// Returns the most resident memory that it has had, MiB.
    pub fn most_memory(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> Result<f64> {
        let text = self.read("status")?;
        let kib: u64 = text
            .lines()
            .find_map(|line| {
                line.strip_prefix(key)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .with_context(|| format!("the status of `{}` has no {key}", self.name))?;
        Ok(number(kib) / 1024.0)
    }

    /// Returns the CPU time of all its threads so far, ms.
    pub fn cpu(&self) -> Result<f64> {
        let tasks = format!("/proc/{}/task", self.id());
        let mut spent = 0;
        for task in fs::read_dir(&tasks).with_context(|| self.ended())? {
            let path = task.with_context(|| self.ended())?.path();
            // A thread that ends meanwhile is not counted; the threads of services do not end.
            let Ok(text) = fs::read_to_string(path.join("schedstat")) else {
                continue;
            };
            let time = text
                .split_whitespace()
                .next()
                .and_then(|word| word.parse::<u64>().ok());
            spent += time.with_context(|| format!("{} holds no time", path.display()))?;
        }
        Ok(number(spent) / 1e6)
    }

    /// Ends it by SIGTERM, as systemd does.
    pub fn end(&mut self) -> Result<()> {
        let pid = self.id().cast_signed();
        // SAFETY: takes no pointers; the child has not been waited for, so the number is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let status = self
            .child
            .wait()
            .with_context(|| format!("lost `{}`", self.name))?;
        ensure!(
            status.success(),
            "`{}` ended badly at SIGTERM ({status}, signal {:?})",
            self.name,
            status.signal()
        );
        Ok(())
    }

    /// Checks that it is still running.
    pub fn lives(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} ({ended:?})", self.ended());
        Ok(())
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.id())).with_context(|| self.ended())
    }

    fn ended(&self) -> String {
        format!("`{}` ended by itself", self.name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
