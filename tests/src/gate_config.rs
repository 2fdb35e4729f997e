//! The gate of most suites, and variations of it, as the text of a configuration.

use std::fmt;

/// The sequence of alice, in the notation of [`Scenario::knock`](crate::scenario::Scenario::knock) and of
/// `knockgate knock`.
pub const ALICE: &str = "7000/udp 8443/tcp 9301/udp";
pub const ALICE_STEPS: [&str; 3] = ["7000/udp", "8443/tcp", "9301/udp"];
/// The sequence of bob.
pub const BOB: &str = "7100/tcp 8543/udp 9401/tcp";

/// A `[[gate]]` section of a configuration.
#[derive(Clone, Debug)]
pub struct Gate {
    name: String,
    protect: String,
    open_for: String,
    within: String,
    keys: Vec<String>,
    /// Names and knocks.
    users: Vec<(String, String)>,
}

impl Gate {
    /// Returns a gate for 22/tcp, which alice opens for ten minutes by knocks within ten seconds.
    pub fn ssh() -> Self {
        Self::new("ssh", "22/tcp").user("alice", ALICE)
    }

    /// Returns a gate for 25/tcp, which bob opens.
    pub fn mail() -> Self {
        Self::new("mail", "25/tcp").user("bob", BOB)
    }

    /// Returns a gate without users. Ports are separated by blanks.
    pub fn new(name: &str, protect: &str) -> Self {
        Self {
            name: name.to_owned(),
            protect: protect.to_owned(),
            open_for: "10m".to_owned(),
            within: "10s".to_owned(),
            keys: Vec::new(),
            users: Vec::new(),
        }
    }

    /// Protects these ports instead.
    #[must_use]
    pub fn protect(mut self, ports: &str) -> Self {
        ports.clone_into(&mut self.protect);
        self
    }

    #[must_use]
    pub fn open_for(mut self, time: impl fmt::Display) -> Self {
        self.open_for = time.to_string();
        self
    }

    /// Sets the time within which each user must make all knocks.
    #[must_use]
    pub fn within(mut self, time: &str) -> Self {
        time.clone_into(&mut self.within);
        self
    }

    /// Adds a line, such as `deny = "reject"`.
    #[must_use]
    pub fn key(mut self, line: impl fmt::Display) -> Self {
        self.keys.push(line.to_string());
        self
    }

    /// Adds a user, whose knocks are separated by blanks.
    #[must_use]
    pub fn user(mut self, name: &str, knocks: &str) -> Self {
        self.users.push((name.to_owned(), knocks.to_owned()));
        self
    }

    /// Makes alice the only user, with this sequence.
    #[must_use]
    pub fn knocks(self, knocks: &str) -> Self {
        let none = Self {
            users: Vec::new(),
            ..self
        };
        none.user("alice", knocks)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            protect,
            open_for,
            within,
            keys,
            users,
        } = self;
        let list =
            |ports: &str| -> Vec<String> { ports.split_whitespace().map(Into::into).collect() };
        writeln!(f, "[[gate]]\nname = {name:?}")?;
        writeln!(f, "protect = {:?}", list(protect))?;
        writeln!(f, "open_for = {open_for:?}")?;
        for key in keys {
            writeln!(f, "{key}")?;
        }
        for (user, knocks) in users {
            writeln!(f, "[[gate.knock]]\nuser = {user:?}")?;
            writeln!(f, "sequence = {:?}\nwithin = {within:?}", list(knocks))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_written_as_the_configuration_has_it() {
        let gate = Gate::ssh().open_for("1m").key("connections = 1");
        assert_eq!(
            gate.to_string(),
            "[[gate]]\nname = \"ssh\"\nprotect = [\"22/tcp\"]\nopen_for = \"1m\"\nconnections = 1\n\
             [[gate.knock]]\nuser = \"alice\"\nsequence = [\"7000/udp\", \"8443/tcp\", \"9301/udp\"]\n\
             within = \"10s\"\n"
        );
    }
}
