//! Port knocking by sets of nftables, as in its documentation: a set for each step, with entries that expire.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::{Context as _, Result};
use netlab::host::output;

use crate::{
    host::{Host, Wire},
    instance::{KNOCKS, PROTECTED, Setup},
};

/// The hook of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Ingress,
    Raw,
    Input,
}

/// A table of rules.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    hook: Hook,
    knocks: bool,
}

impl Hook {
    pub const ALL: [Self; 3] = [Self::Ingress, Self::Raw, Self::Input];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Raw => "raw",
            Self::Input => "input",
        }
    }

    fn family(self) -> &'static str {
        match self {
            Self::Ingress => "netdev",
            Self::Raw | Self::Input => "inet",
        }
    }
}

impl Recipe {
    pub fn knocking(hook: Hook) -> Self {
        Self { hook, knocks: true }
    }

    /// Returns rules for admitted sources only, without knocks.
    pub fn admitting() -> Self {
        Self {
            hook: Hook::Input,
            knocks: false,
        }
    }

    /// Loads the rules on a host.
    pub fn load(self, host: &Host, wire: &Wire) -> Result<()> {
        apply(host, &wire.name, &self.text(&wire.name))
    }

    /// Admits `count` sources from `first` on.
    pub fn admit(self, host: &Host, wire: &Wire, first: u32, count: u32) -> Result<()> {
        let mut text = format!("add element {} bench admitted {{ ", self.hook.family());
        for source in first..first + count {
            let [a, b, c, d] = source.to_be_bytes();
            let _ = write!(text, "{a}.{b}.{c}.{d}, ");
        }
        text.push_str("}\n");
        apply(host, &wire.name, &text)
    }

    /// Returns the rules. Sets have the sizes and timeouts of knockgate's tables.
    fn text(self, interface: &str) -> String {
        let Self { hook, knocks } = self;
        let place = match hook {
            Hook::Ingress => format!("filter hook ingress device {interface} priority 0"),
            Hook::Raw => "filter hook prerouting priority -300".into(),
            Hook::Input => "filter hook input priority 0".into(),
        };
        let size = Setup::default().sources;
        let mut text = format!(
            "table {} bench {{\n\
             \tset admitted {{ type ipv4_addr; flags dynamic,timeout; timeout 2h; size {size}; }}\n",
            hook.family()
        );
        let mut rules = String::new();
        if knocks {
            for step in 1..KNOCKS.len() {
                let _ = writeln!(
                    text,
                    "\tset step{step} {{ type ipv4_addr; flags dynamic,timeout; timeout 10s; \
                     size {size}; }}"
                );
            }
            for (step, port) in KNOCKS.iter().enumerate() {
                let _ = write!(rules, "\t\tudp dport {port} ");
                if step > 0 {
                    let _ = write!(rules, "ip saddr @step{step} ");
                }
                let next = if step + 1 == KNOCKS.len() {
                    "admitted".to_owned()
                } else {
                    format!("step{}", step + 1)
                };
                let _ = writeln!(rules, "update @{next} {{ ip saddr }} accept");
            }
        }
        let _ = write!(
            text,
            "\tchain gate {{\n\t\ttype {place}; policy accept;\n{rules}\
             \t\tmeta l4proto {{ tcp, udp }} th dport {PROTECTED} ip saddr @admitted accept\n\
             \t\tmeta l4proto {{ tcp, udp }} th dport {PROTECTED} drop\n\t}}\n}}\n"
        );
        text
    }
}

fn apply(host: &Host, name: &str, text: &str) -> Result<()> {
    let path = host.folder.join(format!("{name}.nft"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let nft: &mut Command = &mut host.command("nft");
    output(nft.arg("-f").arg(&path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_leads_to_the_next_and_the_last_one_in() {
        let text = Recipe::knocking(Hook::Ingress).text("wire");
        let [a, b, c] = KNOCKS;
        assert!(
            text.contains("hook ingress device wire priority 0"),
            "{text}"
        );
        assert!(
            text.contains(&format!("dport {a} update @step1 {{")),
            "{text}"
        );
        assert!(text.contains(&format!("dport {b} ip saddr @step1 update @step2 {{")));
        assert!(text.contains(&format!("dport {c} ip saddr @step2 update @admitted {{")));
        assert!(!text.contains("step3"), "{text}");
    }

    #[test]
    fn one_that_only_admits_has_no_steps() {
        let text = Recipe::admitting().text("wire");
        assert!(text.starts_with("table inet bench {"), "{text}");
        assert!(
            !text.contains("step") && text.contains("@admitted accept"),
            "{text}"
        );
    }
}
