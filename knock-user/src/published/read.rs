//! Asks the programs that know the firewall's rules.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{Family, Found, iptables, nft};
use crate::sys::nftables::{NatChain, nat_chains};

/// How long all programs together may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer of one, in bytes: some 100,000 rules.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Where the programs are, whatever the caller's `PATH` says.
const FOLDERS: [&str; 6] = [
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
];

/// Those of iptables, each with the family of its rules. With the legacy variants, another set of rules may be in force beside.
const IPTABLES: [(&str, Family); 4] = [
    ("iptables-save", Family::V4),
    ("ip6tables-save", Family::V6),
    ("iptables-legacy-save", Family::V4),
    ("ip6tables-legacy-save", Family::V6),
];

/// The rules that were read.
#[derive(Debug, Default)]
pub struct Rules {
    pub found: Found,
    /// No program is there, or one has answered.
    pub answered: bool,
    /// What kept a program from answering.
    pub failed: Option<String>,
}

/// Reads the rules that change destinations in this network namespace. Where a program is missing, there are no rules of its kind.
pub fn read() -> Rules {
    let end = Instant::now() + LIMIT;
    let mut rules = Rules::default();
    let (mut of_iptables, mut of_nft) = (0, false);
    if let Some(text) = rules.ask("nft", &["-j", "list", "ruleset"], end) {
        match nft::read(&text) {
            Ok(ruleset) => {
                rules.found = ruleset.found;
                of_iptables = ruleset.of_iptables;
                of_nft = true;
            }
            Err(error) => rules.fail(format!("cannot read what nft prints: {error}")),
        }
    }
    let mut saved = false;
    let mut saved_of_nftables = Vec::new();
    for (name, ip) in IPTABLES {
        let family = match ip {
            Family::V4 => NatChain::IPV4,
            Family::V6 => NatChain::IPV6,
        };
        if let Some(text) = rules.ask(name, &[], end) {
            let text = String::from_utf8_lossy(&text);
            let Found {
                published,
                not_understood,
            } = iptables::read(&text, ip);
            saved = true;
            if iptables::is_of_nftables(&text) {
                saved_of_nftables.push(family);
            }
            rules.found.published.extend(published);
            rules.found.not_understood += not_understood;
        }
    }
    if !saved {
        rules.found.not_understood += of_iptables;
    }
    if find("nft").is_none() {
        match nat_chains() {
            Ok(chains) => {
                if let Some(chain) = unsaved(&chains, &saved_of_nftables) {
                    rules.fail(format!(
                        "nft is not installed, and nftables has such rules in table {}",
                        chain.table
                    ));
                }
            }
            Err(error) => rules.fail(format!(
                "nft is not installed, and nftables cannot be asked: {error}"
            )),
        }
    }
    rules.answered = rules.failed.is_none() || saved || of_nft;
    // The legacy programs may be the same as the others.
    rules.found.published.sort();
    rules.found.published.dedup();
    rules
}

/// Returns a chain whose rules the programs of iptables have not printed. `saved`: the families whose rules in nftables they have.
fn unsaved<'c>(chains: &'c [NatChain], saved: &[u8]) -> Option<&'c NatChain> {
    let is_saved = |chain: &NatChain| chain.table == "nat" && saved.contains(&chain.family);
    chains.iter().find(|chain| !is_saved(chain))
}

impl Rules {
    /// Returns what a program prints; `None`: it is missing or has failed.
    fn ask(&mut self, name: &str, arguments: &[&str], end: Instant) -> Option<Vec<u8>> {
        let program = find(name)?;
        match output(&program, arguments, end) {
            Ok(text) => Some(text),
            Err(error) => {
                self.fail(format!("{}: {error}", program.display()));
                None
            }
        }
    }

    /// Keeps the first failure.
    fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists())
}

/// Returns what a program prints. It is killed where it has not ended by `end`.
fn output(program: &Path, arguments: &[&str], end: Instant) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let printed = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    // Ends with the program, which closes the pipe, or with what it has started.
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = printed.take(LARGEST).read_to_end(&mut text);
        let _ = sender.send(read.map(|_| text));
    });
    let answer = receiver.recv_timeout(end.saturating_duration_since(Instant::now()));
    if answer.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    match answer {
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer within the time limit",
        )),
        Ok(_) if !status.success() => Err(io::Error::other(status.to_string())),
        Ok(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> io::Result<Vec<u8>> {
        output(
            Path::new("/bin/sh"),
            &["-c", script],
            Instant::now() + limit,
        )
    }

    #[test]
    fn rules_of_nftables_that_no_program_has_printed_are_missed() {
        let chain = |family, table: &str| NatChain {
            family,
            table: table.to_owned(),
        };
        let (v4, v6) = (NatChain::IPV4, NatChain::IPV6);
        let chains = [chain(v4, "nat"), chain(v6, "nat")];
        assert_eq!(unsaved(&[], &[]), None);
        assert_eq!(unsaved(&chains, &[v4, v6]), None);
        assert_eq!(unsaved(&chains, &[v4]), Some(&chains[1]));
        let native = [chain(v4, "nat"), chain(v4, "containers")];
        assert_eq!(unsaved(&native, &[v4, v6]), Some(&native[1]));
    }

    #[test]
    fn a_program_answers_fails_or_is_too_slow() {
        let long = Duration::from_hours(1);
        assert_eq!(shell("echo yes", long).expect("it answers"), b"yes\n");
        assert!(shell("echo yes; exit 1", long).is_err());
        let slow = shell("exec sleep 3600", Duration::ZERO).expect_err("it is killed");
        assert_eq!(slow.kind(), io::ErrorKind::TimedOut);
    }
}
