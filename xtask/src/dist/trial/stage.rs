//! The life of a package: installed, used, upgraded while it guards, removed and purged.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::system::System;
use crate::{
    demo::greeting::{LONG, Outcome, SHORT, Service},
    dist::documents,
    lan::{Host, INTERFACE, Lan},
    process,
};

const PORT: &str = "2222";
/// A second interface of the server.
const SECOND: &str = "second";
const CONFIGURATION: &str = "/etc/knockgate/knockgate.toml";
const KEYS: &str = "/etc/knockgate/keys";
const TEXTFILE: &str = "/var/lib/prometheus/node-exporter/knockgate.prom";
/// What another instance keeps for its next service.
const OTHER_STATE: &str = "/var/lib/knockgate/%sys%fs%bpf%other.json";
const DOCUMENTS: &str = "/usr/share/doc/knockgate";

/// The part of the trial that runs inside its own namespaces.
#[derive(Args)]
pub(crate) struct Stage {
    /// A Debian
    #[arg(long)]
    archive: PathBuf,
    /// The package, and one with a higher version
    #[arg(long, num_args = 2, required = true)]
    packages: Vec<PathBuf>,
    /// The client's binary
    #[arg(long)]
    knockgate: PathBuf,
    /// The namespaces that the trial was started from, and must have left
    #[arg(long, num_args = 2, required = true)]
    outside: Vec<String>,
}

impl Stage {
    pub(crate) fn run(self) -> Result<()> {
        let Self {
            archive,
            packages,
            knockgate,
            outside,
        } = self;
        let lan = Lan::create(&outside)?;
        let system = System::unpack(&archive, &lan.server)?;
        let names = ["/root/older.deb", "/root/newer.deb"];
        for (package, name) in packages.iter().zip(names) {
            fs::copy(package, system.path(name))
                .with_context(|| format!("cannot copy {}", package.display()))?;
        }
        let address = format!("{}:{PORT}", lan.server.address);
        let mut service = Service::start(&lan.server, &address)?;
        let trial = Trial {
            lan: &lan,
            system: &system,
            knockgate: &knockgate,
            address,
        };
        let done = trial.live(names);
        end(&mut service)?;
        done
    }
}

fn end(service: &mut Child) -> Result<()> {
    let ended = service.kill().and_then(|()| service.wait());
    ended.context("cannot end the service behind the gate")?;
    Ok(())
}

struct Trial<'t> {
    lan: &'t Lan,
    system: &'t System<'t>,
    knockgate: &'t Path,
    /// Of the service that the package is to guard.
    address: String,
}

impl Trial<'_> {
    fn live(&self, [older, newer]: [&str; 2]) -> Result<()> {
        let before = self.system.files()?;
        self.install(older)?;
        self.guard()?;
        self.upgrade(newer)?;
        self.upgrade_on_trial(newer)?;
        self.remove()?;
        self.purge(&before)
    }

    fn install(&self, package: &str) -> Result<()> {
        let system = self.system;
        system.run(&format!("apt-get install --yes {package}"))?;
        system.run("dpkg --verify knockgate")?;
        let version = system.run("knockgate --version")?;
        let expected = concat!("knockgate ", env!("CARGO_PKG_VERSION"), "\n");
        ensure!(
            version == expected,
            "`knockgate --version` printed {version}"
        );

        let page = system.run("man --pager=cat knockgate-up")?;
        ensure!(page.contains("knockgate-up"), "the manual page is: {page}");
        system.run(
            "bash -c '. /usr/share/bash-completion/completions/knockgate; complete -p knockgate'",
        )?;
        for file in [
            "/usr/share/zsh/vendor-completions/_knockgate",
            "/usr/share/fish/vendor_completions.d/knockgate.fish",
            "/usr/lib/systemd/system/knockgate.service",
            "/usr/lib/systemd/system/knockgate-metrics.service",
            "/usr/lib/systemd/system/knockgate-metrics.timer",
            "/usr/share/doc/knockgate/copyright",
            "/usr/share/doc/knockgate/changelog.Debian.gz",
        ] {
            let length = fs::metadata(system.path(file)).map(|metadata| metadata.len());
            ensure!(length.is_ok_and(|length| length > 0), "there is no {file}");
        }

        let dead = documents::dead_links(&system.path(DOCUMENTS))?;
        ensure!(dead.is_empty(), "links lead nowhere: {dead:?}");

        // The configuration is the administrator's: an upgrade with a newer one would ask which to keep, or fail.
        let conffiles = system.run("dpkg-query --show --showformat='${Conffiles}' knockgate")?;
        ensure!(conffiles.trim().is_empty(), "dpkg keeps {conffiles}");
        // Nothing is guarded before it is configured, now or at the next boot, though a service that could not start has made
        // the directory of the pins.
        system.exits("knockgate check", 3)?;
        system.exits("knockgate status", 5)?;
        let wants = system.path("/etc/systemd/system/multi-user.target.wants/knockgate.service");
        ensure!(
            wants.symlink_metadata().is_err(),
            "the service is enabled, and has nothing to guard"
        );
        self.expect(&self.lan.stranger, &greeting(&self.lan.stranger))?;
        println!("  installed: command, manual pages, completions; nothing is guarded");
        Ok(())
    }

    fn guard(&self) -> Result<()> {
        let system = self.system;
        let said = system.run(&format!(
            "knockgate init --interface {INTERFACE} --gate greeting={PORT}/tcp"
        ))?;
        let file = system.path(CONFIGURATION);
        ensure_private(&file)?;
        system.exits("knockgate init", 1)?;
        // However long an upgrade takes on this machine.
        let text = fs::read_to_string(&file)?;
        let longer = text.replace("#open_for = \"30s\"", "open_for = \"1h\"");
        ensure!(longer != text, "`init` wrote no open_for");
        fs::write(&file, longer)?;

        // For those who knock with one packet; a file of the host's own.
        system.run("knockgate key new alice --gate greeting >/dev/null")?;
        process::run(
            self.lan
                .server
                .command("ip")
                .args(["link", "add", SECOND, "type", "veth"]),
        )?;
        system.run(&format!(
            "knockgate check && knockgate up --interface {INTERFACE} --interface {SECOND}"
        ))?;
        // Not applied, and not to be by an upgrade.
        let edited = format!("mode = \"monitor\"\n{}", fs::read_to_string(&file)?);
        fs::write(&file, edited)?;
        self.expect(&self.lan.client, &Outcome::NoAnswer)?;
        let sequence = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("knockgate knock HOST "))
            .with_context(|| format!("`init` named no command to knock: {said}"))?;
        process::stdout(
            self.lan
                .client
                .command(self.knockgate)
                .args(["knock", self.lan.server.address])
                .args(sequence.split_whitespace()),
        )?;
        self.expect(&self.lan.client, &greeting(&self.lan.client))?;
        println!("  guards: a client that knocks gets in");
        Ok(())
    }

    fn upgrade(&self, package: &str) -> Result<()> {
        let system = self.system;
        let before = self.grant()?;
        let (done, stranger) = (AtomicBool::new(false), &self.lan.stranger);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.expect(stranger, &Outcome::NoAnswer)?;
                }
                Ok(())
            });
            let upgraded = system.run(&format!("apt-get install --yes {package}"));
            done.store(true, Ordering::Relaxed);
            let watched: Result<()> = watch.join().unwrap_or_else(|_| bail!("the watch died"));
            upgraded?;
            watched.context("a stranger tried to get in while the package was upgraded")
        })?;
        let newer = system.run(&format!("dpkg-deb --field {package} Version"))?;
        let installed = system.run("dpkg-query --show --showformat='${Version}\\n' knockgate")?;
        ensure!(
            newer == installed,
            "{installed} is installed, and not {newer}"
        );
        system.exits("knockgate status", 0)?;
        let after = self.grant()?;
        ensure!(
            0 < after && after < before,
            "the grant had {before} ms left, and has {after} ms after the upgrade"
        );
        self.expect(&self.lan.client, &greeting(&self.lan.client))?;
        self.expect(&self.lan.stranger, &Outcome::NoAnswer)?;
        let status = system.run("knockgate status --json")?;
        let status: Value = serde_json::from_str(&status)?;
        let interfaces = status["interfaces"].as_array().context("no interfaces")?;
        for name in [INTERFACE, SECOND] {
            let is_guarded = |row: &Value| {
                row["name"] == name && row["guarded"] == true && row["mode"] == "enforce"
            };
            ensure!(interfaces.iter().any(is_guarded), "{name}: {status}");
        }
        println!("  upgraded: no port was open meanwhile, and what was in force lives on");
        Ok(())
    }

    /// A trial that an upgrade makes permanent would take away the way back.
    fn upgrade_on_trial(&self, package: &str) -> Result<()> {
        let system = self.system;
        system.run("knockgate up --try 1h")?;
        let said = system.run(&format!("apt-get install --yes --reinstall {package} 2>&1"))?;
        ensure!(said.contains("a trial is under way"), "{said}");
        let status = system.run("knockgate status --json")?;
        let status: Value = serde_json::from_str(&status)?;
        ensure!(status["interfaces"][0]["mode"] == "try", "{status}");
        println!("  upgraded during a trial: it goes on");

        // There is nothing before it to return to.
        system.run("knockgate down --all && knockgate up --try 1s && sleep 2")?;
        let said = system.run(&format!("apt-get install --yes --reinstall {package} 2>&1"))?;
        ensure!(said.contains("every packet passes"), "{said}");
        system.run("knockgate up")?;
        println!("  upgraded after a trial: said that every packet passes");
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        let system = self.system;
        for file in [TEXTFILE, OTHER_STATE] {
            system.run(&format!("mkdir -p $(dirname {file}) && echo >{file}"))?;
        }
        system.run("apt-get remove --yes knockgate")?;
        ensure!(
            !system.path(TEXTFILE).exists(),
            "its metrics still say that it guards"
        );
        let link = process::stdout(
            self.lan
                .server
                .command("ip")
                .args(["-details", "link", "show", INTERFACE]),
        )?;
        ensure!(!link.contains("xdp"), "a program was left behind: {link}");
        let left = fs::read_dir(system.path("/sys/fs/bpf"))?.flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name())
            .filter(|name| !name.to_string_lossy().ends_with(".debug"))
            .collect();
        ensure!(left.is_empty(), "pins were left behind: {left:?}");
        self.expect(&self.lan.stranger, &greeting(&self.lan.stranger))?;
        ensure_private(&system.path(CONFIGURATION))?;
        let keys = fs::read_dir(system.path(KEYS))?.count();
        ensure!(keys > 0, "the keys were removed");
        println!("  removed: no program is left, and configuration and keys are kept");
        Ok(())
    }

    fn purge(&self, before: &BTreeSet<PathBuf>) -> Result<()> {
        self.system.run("apt-get purge --yes knockgate")?;
        self.system
            .run(&format!("rm {OTHER_STATE} && rmdir /var/lib/knockgate"))
            .context("another instance has lost what is its own")?;
        self.system.run("rm -r /var/lib/prometheus")?;
        let after = self.system.files()?;
        let left: Vec<_> = after.difference(before).collect();
        ensure!(left.is_empty(), "a purged package has left {left:?}");
        println!("  purged: nothing is left");
        Ok(())
    }

    /// Returns how long the client's grant still lasts, in milliseconds.
    fn grant(&self) -> Result<u64> {
        let said = self.system.run("knockgate grants --json")?;
        let document: Value = serde_json::from_str(&said)?;
        let left = document["grants"][0]["expires_in_ms"].as_u64();
        left.with_context(|| format!("there is no grant: {said}"))
    }

    fn expect(&self, visitor: &Host, expected: &Outcome) -> Result<()> {
        let patience = match expected {
            Outcome::NoAnswer => SHORT,
            Outcome::Greeted(_) | Outcome::Refused => LONG,
        };
        let met = Outcome::of_visit(visitor, &self.address, patience)?;
        ensure!(
            met == *expected,
            "{} met {met} at {}, and should have met {expected}",
            visitor.name(),
            self.address
        );
        Ok(())
    }
}

fn greeting(visitor: &Host) -> Outcome {
    Outcome::Greeted(format!("Hello, {}!", visitor.address))
}

/// Makes sure that only its owner can read a file.
fn ensure_private(file: &Path) -> Result<()> {
    let mode = fs::metadata(file)
        .with_context(|| format!("there is no {}", file.display()))?
        .permissions()
        .mode();
    ensure!(
        mode & 0o777 == 0o600,
        "{} has mode {:o}, and holds secrets",
        file.display(),
        mode & 0o777
    );
    Ok(())
}
