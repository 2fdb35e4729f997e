//! The steps of the demo, and their checks.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Child,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::greeting::{LONG, Outcome, SHORT, Service};
use crate::{
    lan::{FOLDER, Host, INTERFACE, Lan},
    process,
};

const PORT: &str = "2222";
const SEQUENCE: [&str; 3] = ["7000/udp", "4100/tcp", "9301/udp"];
/// How long a grant lasts.
const OPEN_FOR: Duration = Duration::from_secs(10);
/// Time between two readings of the grants.
const PAUSE: Duration = Duration::from_secs(2);
/// How far the clock by which the program ends grants may be behind the one by which `knockgate grants` lists them: two timer ticks,
/// of 10 ms at the most.
const TICKS: Duration = Duration::from_millis(20);
const CONFIGURATION: &str = "demo.toml";

/// The demo's steps on its hosts.
pub(super) struct Story<'lan> {
    lan: &'lan Lan,
    knockgate: &'lan Path,
    /// Dies with this process.
    service: Child,
}

impl<'lan> Story<'lan> {
    /// Starts the service on the server and writes the configuration.
    pub(super) fn new(lan: &'lan Lan, knockgate: &'lan Path) -> Result<Self> {
        write_configuration().context("cannot write the demo's configuration")?;
        let service = Service::start(&lan.server, &format!("{}:{PORT}", lan.server.address))?;
        Ok(Self {
            lan,
            knockgate,
            service,
        })
    }

    /// Runs the steps. Fails at the first whose result is not as described.
    pub(super) fn tell(mut self) -> Result<()> {
        self.introduce();
        let told = self.steps();
        // It would end with this process; this ends it even before an error is printed.
        self.service
            .kill()
            .and_then(|()| self.service.wait())
            .context("cannot end the demo's service")?;
        told?;
        println!(
            "\nEvery step was checked. The three hosts, the instance and the service are gone again."
        );
        Ok(())
    }

    fn introduce(&self) {
        let Lan {
            server,
            client,
            stranger,
        } = self.lan;
        println!(
            "knockgate demo: three hosts on a network of their own, made of namespaces that end"
        );
        println!("with this program. Your own network, firewall and files stay as they are.\n");
        println!("  client   {} ──┐", client.address);
        println!(
            "  stranger {} ──┴── server {}, a service on port {PORT}/tcp",
            stranger.address, server.address
        );
    }

    fn steps(&self) -> Result<()> {
        let Lan {
            server: _,
            client,
            stranger,
        } = self.lan;

        println!("\n1. No gate yet: anyone reaches the service.");
        self.expect_greeting(client)?;
        self.expect_greeting(stranger)?;

        let (seconds, sequence) = (OPEN_FOR.as_secs(), SEQUENCE.join(", "));
        println!(
            "\n2. An instance goes up: port {PORT} is closed to everyone. A client that knocks"
        );
        println!("   {sequence} is let in for {seconds} s. The command ends;");
        println!("   from now on the kernel works alone.");
        self.up()?;
        self.expect_no_answer(client)?;
        self.expect_no_answer(stranger)?;

        println!(
            "\n3. The client knocks and is let in at once. The stranger, who has not knocked, is not."
        );
        self.knock()?;
        self.expect_greeting(client)?;
        self.expect_no_answer(stranger)?;

        println!("\n4. The grant counts down in the kernel.");
        let first = self.show_grant()?;
        thread::sleep(PAUSE);
        let second = self.show_grant()?;
        ensure!(
            second + PAUSE / 2 < first,
            "the grant did not count down: {first:?} left, and {second:?} left {PAUSE:?} later"
        );

        println!("\n5. The grant has ended: the port is closed again, without any process.");
        thread::sleep(second + TICKS);
        self.expect_no_answer(client)?;
        let left = self.grants()?;
        ensure!(
            left.is_empty(),
            "the grant has ended, and `knockgate grants` still lists {left:?}"
        );
        Ok(())
    }

    fn up(&self) -> Result<()> {
        let host = &self.lan.server;
        self.show(host, &["--config", CONFIGURATION, "up"])
    }

    fn knock(&self) -> Result<()> {
        let Lan {
            server,
            client,
            stranger: _,
        } = self.lan;
        let mut arguments = vec!["knock", server.address];
        arguments.extend(SEQUENCE);
        self.show(client, &arguments)
    }

    /// Shows the grants as text. Returns how long the client's grant still lasts.
    fn show_grant(&self) -> Result<Duration> {
        self.show(&self.lan.server, &["grants"])?;
        let grants = self.grants()?;
        let source = format!("{}/32", self.lan.client.address);
        match grants.as_slice() {
            [grant] if grant["source"] == source.as_str() => {
                let left = grant["expires_in_ms"].as_u64().map(Duration::from_millis);
                let left =
                    left.with_context(|| format!("no `expires_in_ms` in the grant {grant}"))?;
                ensure!(
                    left <= OPEN_FOR,
                    "the grant still lasts {left:?}, but it was given for {OPEN_FOR:?}"
                );
                Ok(left)
            }
            _ => bail!(
                "`knockgate grants --json` should list one grant, for {source}; it lists {grants:?}"
            ),
        }
    }

    fn grants(&self) -> Result<Vec<Value>> {
        let said = process::stdout(
            self.lan
                .server
                .command(self.knockgate)
                .args(["grants", "--json"]),
        )?;
        let document: Value = serde_json::from_str(&said).with_context(|| {
            format!("`knockgate grants --json` printed no JSON document: {said}")
        })?;
        let grants = document["grants"].as_array();
        Ok(grants
            .with_context(|| format!("no `grants` in {document}"))?
            .clone())
    }

    /// Runs `knockgate` on a host, and shows the command and its output.
    fn show(&self, host: &Host, arguments: &[&str]) -> Result<()> {
        println!("   {}$ knockgate {}", host.name(), arguments.join(" "));
        let output = process::output(host.command(self.knockgate).args(arguments))?;
        for stream in [&output.stdout, &output.stderr] {
            for line in String::from_utf8_lossy(stream).lines() {
                println!("   │ {line}");
            }
        }
        ensure!(
            output.status.success(),
            "`knockgate` failed ({})",
            output.status
        );
        Ok(())
    }

    fn expect_greeting(&self, host: &Host) -> Result<()> {
        self.expect(host, &Outcome::Greeted(format!("Hello, {}!", host.address)))
    }

    fn expect_no_answer(&self, host: &Host) -> Result<()> {
        self.expect(host, &Outcome::NoAnswer)
    }

    /// Visits the service from a host, and shows the outcome.
    fn expect(&self, host: &Host, expected: &Outcome) -> Result<()> {
        let service = format!("{}:{PORT}", self.lan.server.address);
        let patience = match expected {
            Outcome::NoAnswer => SHORT,
            Outcome::Greeted(_) | Outcome::Refused => LONG,
        };
        let met = Outcome::of_visit(host, &service, patience)?;
        println!("   {:<9} visits {service} → {met}", host.name());
        ensure!(met == *expected, "expected: {expected}");
        Ok(())
    }
}

/// Writes the configuration with permissions for its owner only, since sequences are passwords.
fn write_configuration() -> io::Result<()> {
    let path = Path::new(FOLDER).join(CONFIGURATION);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(configuration().as_bytes())
}

/// Returns the configuration. It has an allow list, as every configuration should, but no host of this network is on
/// it.
fn configuration() -> String {
    let sequence = SEQUENCE.map(|knock| format!("\"{knock}\"")).join(", ");
    format!(
        "interfaces = [\"{INTERFACE}\"]
allow = [\"192.0.2.0/24\"]

[[gate]]
name = \"greeting\"
protect = [\"{PORT}/tcp\"]
open_for = \"{seconds}s\"

[[gate.knock]]
user = \"alice\"
sequence = [{sequence}]
within = \"10s\"
",
        seconds = OPEN_FOR.as_secs()
    )
}
