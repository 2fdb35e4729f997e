//! The steps of the demo of a fleet, and their checks.

use std::{path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};

use super::{FOLDER, Fleet, Host, PORT, SEQUENCE, cut};
use crate::{
    demo::greeting::{LONG, Outcome, SHORT, Service},
    process,
};

/// Builds the fleet and runs the steps. Fails at the first whose result is not as described.
pub(crate) fn tell(outside: &[String], knockgate: &Path) -> Result<()> {
    println!(
        "knockgate demo of a fleet: three hosts, three etcd members and a client, in namespaces that"
    );
    println!("end with this program. Your own network, firewall and files stay as they are.\n");
    println!("  etcd1 etcd2 etcd3 ── edge-1 edge-2 edge-3 ── client 10.78.0.9");
    let mut fleet = Fleet::create(outside, knockgate)?;
    for host in &mut fleet.hosts {
        let service = Service::start_in(&host.netns, &format!("{}:{PORT}", host.address))?;
        host.running.push(service);
        host.serve()?;
    }
    let told = Story {
        fleet: &mut fleet,
        knockgate,
    }
    .steps();
    for host in &mut fleet.hosts {
        for running in &mut host.running {
            running
                .kill()
                .and_then(|()| running.wait())
                .context("cannot end a service")?;
        }
    }
    told?;
    println!("\nEvery step was checked. The hosts, the members and their data are gone again.");
    Ok(())
}

struct Story<'f> {
    fleet: &'f mut Fleet,
    knockgate: &'f Path,
}

impl Story<'_> {
    fn steps(&mut self) -> Result<()> {
        println!("\n1. The gates are up, and the hosts have found each other. Nobody gets in.");
        self.expect([false; 3])?;

        println!(
            "\n2. The client knocks at edge-1. The gate opens there at once, and on the others."
        );
        let begun = Instant::now();
        self.knock(0)?;
        for host in &self.fleet.hosts {
            host.wait_for_grant(true)?;
        }
        println!(
            "   all three have the grant within {} ms of the first knock",
            begun.elapsed().as_millis()
        );
        self.expect([true; 3])?;
        let grant = self.host(1).grant()?.context("it was there")?;
        ensure!(grant["origin"] == "edge-1", "the origin is wrong: {grant}");
        self.show(1, &["grants"])?;

        println!(
            "\n3. edge-3 is cut off from the members, silently. It notices, and goes on alone."
        );
        // It may have been isolated before, while the members found their leader.
        let before = self.times_said(2, "fleet.isolated")?;
        cut(&self.host(2).netns, true)?;
        let begun = Instant::now();
        self.says_again(2, "fleet.isolated", before)?;
        println!(
            "   edge-3 knows after {:.1} s",
            begun.elapsed().as_secs_f32()
        );
        println!("   Meanwhile the grant is revoked, in the whole fleet.");
        self.show(0, &["revoke", "10.78.0.9"])?;
        self.host(1).wait_for_grant(false)?;
        self.expect([false, false, true])?;

        println!("\n4. edge-3 is back, and hears of the revocation.");
        cut(&self.host(2).netns, false)?;
        self.host(2).wait_for_grant(false)?;
        self.expect([false; 3])?;

        let leader = self.fleet.members.leader()?;
        println!(
            "\n5. {leader} leads the members, and is killed. The client knocks at edge-2 meanwhile."
        );
        self.fleet.members.kill(&leader)?;
        let begun = Instant::now();
        self.knock(1)?;
        self.host(1).wait_for_grant(true)?;
        println!(
            "   edge-2 has the grant at once ({} ms)",
            begun.elapsed().as_millis()
        );
        for host in &self.fleet.hosts {
            host.wait_for_grant(true)?;
        }
        println!(
            "   the others once there is another leader ({:.1} s); it is {}",
            begun.elapsed().as_secs_f32(),
            self.fleet.members.leader()?
        );
        self.expect([true; 3])
    }

    fn host(&self, nth: usize) -> &Host {
        &self.fleet.hosts[nth]
    }

    fn knock(&self, nth: usize) -> Result<()> {
        let address = self.host(nth).address.clone();
        let mut arguments = vec!["knock", &address];
        arguments.extend(SEQUENCE);
        println!("   client$ knockgate {}", arguments.join(" "));
        let mut command: Command = self.fleet.client.command(self.knockgate);
        process::stdout(command.current_dir(FOLDER).args(arguments))?;
        Ok(())
    }

    /// Runs `knockgate` on a host, and shows the command and its output.
    fn show(&self, nth: usize, arguments: &[&str]) -> Result<()> {
        let host = self.host(nth);
        println!("   {}$ knockgate {}", host.name(), arguments.join(" "));
        for line in host.knockgate(arguments)?.lines() {
            println!("   │ {line}");
        }
        Ok(())
    }

    /// Returns how often a host has reported this.
    fn times_said(&self, nth: usize, event: &str) -> Result<usize> {
        let events = self.host(nth).knockgate(&["events"])?;
        Ok(events.matches(event).count())
    }

    /// Waits until a host has reported this more than `before` times.
    fn says_again(&self, nth: usize, event: &str, before: usize) -> Result<()> {
        let host = self.host(nth);
        host.wait_for(event, || Ok(self.times_said(nth, event)? > before))
    }

    /// Has the client visit the service of every host, and shows the outcomes.
    fn expect(&self, open: [bool; 3]) -> Result<()> {
        for (host, is_open) in self.fleet.hosts.iter().zip(open) {
            let service = format!("{}:{PORT}", host.address);
            let patience = if is_open { LONG } else { SHORT };
            let met = Outcome::of_visit_from(&self.fleet.client, &service, patience)?;
            println!("   client visits {} → {met}", host.name());
            let expected = if is_open {
                Outcome::Greeted("Hello, 10.78.0.9!".to_owned())
            } else {
                Outcome::NoAnswer
            };
            ensure!(met == expected, "expected: {expected}");
        }
        Ok(())
    }
}
