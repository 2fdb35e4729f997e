//! The gates that were found so far, each combination of them a valid configuration, and its text.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use ipnet::IpNet;

use crate::{
    config::{Config, Level},
    values::Port,
};

/// What one section of the other program's file comes to.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// What the section is called, and where it begins.
    pub(super) origin: String,
    /// Name of the gate, if the entry does not join another, and of the user.
    pub(super) name: String,
    pub(super) protect: BTreeSet<Port>,
    /// `None`: knockgate's default.
    pub(super) open_for: Option<u64>,
    pub(super) sources: Vec<IpNet>,
    /// `None`: only `allow` opens it.
    pub(super) knock: Option<Knock>,
    pub(super) hooks: Vec<Hook>,
    /// A client of fwknop.
    pub(super) client: Option<Client>,
    /// Lines that are written behind the gate, as comments.
    pub(super) comment: String,
}

#[derive(Debug, Clone)]
pub(super) struct Knock {
    pub(super) user: String,
    pub(super) sequence: Vec<Port>,
    /// In seconds.
    pub(super) within: u64,
}

/// A client of fwknop, with its keys as they are written: the name of the key in the file, and its value.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) user: String,
    pub(super) source: Vec<IpNet>,
    pub(super) key: (&'static str, String),
    pub(super) hmac_key: (&'static str, String),
    pub(super) hmac_digest_type: String,
    pub(super) require_source_address: bool,
}

/// Without the keys, which are secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.user)
    }
}

/// A command, and the event at which it runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hook {
    pub(super) on: &'static str,
    pub(super) run: Vec<String>,
}

/// Why an entry cannot be written.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It would open more, or for longer, or to others.
    Weaker(String),
    Impossible(String),
}

/// How an entry was written.
#[derive(Debug)]
pub(super) struct Added {
    /// Name of its gate.
    pub(super) gate: String,
    /// Its user there; empty where it has neither sequence nor key.
    pub(super) user: String,
    /// Whether other entries open the gate, too.
    pub(super) joined: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Gates {
    pub(super) interfaces: Vec<String>,
    gates: Vec<Gate>,
}

#[derive(Debug, Clone)]
struct Gate {
    entry: Entry,
    knocks: Vec<Knock>,
    clients: Vec<Client>,
}

impl Gates {
    /// Adds an entry, by itself or to the gate that it shares its ports or its sequence with.
    pub(super) fn add(&mut self, entry: Entry) -> Result<Added, Refusal> {
        let mut with = self.clone();
        let added = with.put(entry)?;
        if let Err(invalid) = Config::parse(&with.text(), "the new configuration") {
            let mut errors = invalid.findings().iter();
            let error = errors.find(|finding| finding.level == Level::Error);
            let why = error.map_or_else(String::new, |finding| finding.message.clone());
            return Err(Refusal::Impossible(why));
        }
        *self = with;
        Ok(added)
    }

    fn put(&mut self, mut entry: Entry) -> Result<Added, Refusal> {
        entry.name = self.free_name(&entry.name);
        if let Some(knock) = &mut entry.knock {
            knock.user.clone_from(&entry.name);
        }
        if let Some(gate) = self.same_sequence(&entry) {
            return gate.widen(entry);
        }
        if let Some(gate) = self.gates.iter_mut().find(|gate| gate.shares_ports(&entry)) {
            return gate.join(entry);
        }
        let added = Added {
            gate: entry.name.clone(),
            user: entry.user(),
            joined: false,
        };
        self.gates.push(Gate {
            knocks: entry.knock.clone().into_iter().collect(),
            clients: entry.client.clone().into_iter().collect(),
            entry,
        });
        Ok(added)
    }

    fn same_sequence(&mut self, entry: &Entry) -> Option<&mut Gate> {
        let sequence = &entry.knock.as_ref()?.sequence;
        let has = |gate: &Gate| gate.knocks.iter().any(|knock| knock.sequence == *sequence);
        self.gates.iter_mut().find(|gate| has(gate))
    }

    /// Returns the name, with a number if it is taken.
    fn free_name(&self, name: &str) -> String {
        let taken = |name: &str| {
            let mut gates = self.gates.iter();
            gates.any(|Gate { entry, knocks, .. }| {
                entry.name == name || knocks.iter().any(|knock| knock.user == name)
            })
        };
        let numbered = (2..).map(|number| {
            let number = format!("-{number}");
            let length = name.len().min(64 - number.len());
            name[..length].to_owned() + &number
        });
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names
            .find(|name| !taken(name))
            .unwrap_or_else(|| name.to_owned())
    }

    /// Returns who may knock at a gate; empty: everyone.
    pub(super) fn sources(&self, gate: &str) -> &[IpNet] {
        let mut gates = self.gates.iter();
        let gate = gates.find(|known| known.entry.name == gate);
        gate.map_or(&[], |gate| &gate.entry.sources)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }

    /// Returns the file, without what stands above the first key.
    pub(super) fn text(&self) -> String {
        let mut text = format!("interfaces = {}\n", quoted(&self.interfaces));
        // Whoever imports has to think of the way back in.
        text.push_str("allow      = []    # list a network from which you can always connect\n");
        if self.gates.iter().any(|gate| !gate.clients.is_empty()) {
            text.push_str("\n[fwknop]\nports = [\"62201/udp\"]\n");
        }
        for Gate {
            entry,
            knocks,
            clients,
        } in &self.gates
        {
            let Entry {
                origin,
                name,
                protect,
                open_for,
                sources,
                knock: _,
                hooks: commands,
                client: _,
                comment,
            } = entry;
            // Writing to a string does not fail.
            let _ = write!(text, "\n# {origin}\n[[gate]]\nname     = {}\n", word(name));
            let _ = writeln!(text, "protect  = {}", quoted(protect));
            if let Some(seconds) = open_for {
                let _ = writeln!(text, "open_for = \"{seconds}s\"");
            }
            if !sources.is_empty() {
                let _ = writeln!(text, "sources  = {}", quoted(sources));
            }
            for Knock {
                user,
                sequence,
                within,
            } in knocks
            {
                let _ = write!(
                    text,
                    "\n[[gate.knock]]\nuser     = {}\nsequence = {}\nwithin   = \"{within}s\"\n",
                    word(user),
                    quoted(sequence)
                );
            }
            for client in clients {
                client.write(&mut text);
            }
            for Hook { on, run } in commands {
                let run = quoted(run);
                let _ = write!(text, "\n[[gate.hook]]\non  = \"{on}\"\nrun = {run}\n");
            }
            if !comment.is_empty() {
                text.push('\n');
                text.extend(comment.lines().map(|line| format!("# {line}\n")));
            }
        }
        text
    }
}

impl Client {
    fn write(&self, text: &mut String) {
        let Self {
            user,
            source,
            key: (key, key_value),
            hmac_key: (hmac_key, hmac_value),
            hmac_digest_type,
            require_source_address,
        } = self;
        let _ = write!(text, "\n[[gate.fwknop]]\nuser = {}\n", word(user));
        if !source.is_empty() {
            let _ = writeln!(text, "source = {}", quoted(source));
        }
        let _ = writeln!(text, "{key} = {}", word(key_value));
        let _ = writeln!(text, "{hmac_key} = {}", word(hmac_value));
        let _ = writeln!(text, "hmac_digest_type = {}", word(hmac_digest_type));
        if *require_source_address {
            text.push_str("require_source_address = true\n");
        }
    }
}

impl Gate {
    fn shares_ports(&self, entry: &Entry) -> bool {
        !self.entry.protect.is_disjoint(&entry.protect)
    }

    /// Adds another user of the same ports.
    fn join(&mut self, mut other: Entry) -> Result<Added, Refusal> {
        let own = &mut self.entry;
        if own.protect != other.protect {
            return Err(Refusal::Weaker(format!(
                "a port belongs to one gate, and {} opens some of these ports and others",
                own.origin
            )));
        }
        if own.sources != other.sources || own.hooks != other.hooks {
            return Err(Refusal::Weaker(format!(
                "it shares its ports with {}, and sources and commands of the two differ: a gate has the same \
                 for all its users",
                own.origin
            )));
        }
        own.open_for = shorter(own.open_for, other.open_for);
        own.origin = format!("{}; {}", own.origin, other.origin);
        if let Some(client) = &mut other.client {
            let names = std::iter::once(client.user.clone())
                .chain((2..).map(|number| format!("{}-{number}", client.user)));
            let is_free = |name: &String| self.clients.iter().all(|known| known.user != *name);
            client.user = names.into_iter().find(is_free).unwrap_or_default();
        }
        let added = Added {
            gate: own.name.clone(),
            user: other.user(),
            joined: true,
        };
        self.knocks.extend(other.knock);
        self.clients.extend(other.client);
        if !self.clients.is_empty() {
            own.comment.clear();
        }
        Ok(added)
    }

    /// Adds other ports for the same sequence.
    fn widen(&mut self, mut other: Entry) -> Result<Added, Refusal> {
        let own = &mut self.entry;
        if own.protect == other.protect && are_both_families(&own.sources, &other.sources) {
            // Everyone, as without the key.
            own.sources.clear();
            other.sources.clear();
        }
        if self.knocks.len() > 1 || own.sources != other.sources {
            return Err(Refusal::Weaker(format!(
                "it has the sequence of {}, and these ports would open to others, too",
                own.origin
            )));
        }
        own.protect.extend(other.protect);
        own.open_for = shorter(own.open_for, other.open_for);
        own.origin = format!("{}; {}", own.origin, other.origin);
        for hook in other.hooks {
            if !own.hooks.contains(&hook) {
                own.hooks.push(hook);
            }
        }
        for (knock, other) in self.knocks.iter_mut().zip(other.knock) {
            knock.within = knock.within.min(other.within);
        }
        Ok(Added {
            gate: own.name.clone(),
            user: self
                .knocks
                .first()
                .map_or_else(String::new, |knock| knock.user.clone()),
            joined: true,
        })
    }
}

/// Returns whether these are all addresses of one family, and all of the other.
fn are_both_families(one: &[IpNet], other: &[IpNet]) -> bool {
    match (one, other) {
        ([one], [other]) => one.prefix_len() == 0 && other.prefix_len() == 0 && one != other,
        _ => false,
    }
}

impl Entry {
    /// Returns the user of its sequence or key; empty where it has neither.
    fn user(&self) -> String {
        let of_knock = self.knock.as_ref().map(|knock| &knock.user);
        let user = of_knock.or(self.client.as_ref().map(|client| &client.user));
        user.cloned().unwrap_or_default()
    }
}

/// How long a grant lasts without `open_for`, in seconds. A test compares it with the schema.
const OPEN_FOR: u64 = 30;

fn shorter(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(OPEN_FOR).min(other.unwrap_or(OPEN_FOR))),
    }
}

/// Returns a TOML list of strings.
fn quoted<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items = items.into_iter().map(|item| word(&item.to_string()));
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn word(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_schemas() {
        let text = "[[gate]]\nname = 'a'\nprotect = ['1/tcp']\n";
        let (config, _) = Config::parse(text, "k.toml").expect("valid");
        assert_eq!(config.gates[0].open_for.as_secs(), OPEN_FOR);
    }
}
