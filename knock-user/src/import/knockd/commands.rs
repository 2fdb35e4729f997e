//! The commands that a door runs: ports, hooks, and what is neither.

use std::collections::BTreeSet;

use crate::{
    config::{Piece, pieces},
    import::{
        Fate, Report,
        firewall::{self, Effect, Families, Opening, SOURCE},
        gates::Hook,
        shell::{self, Command},
    },
    values::Port,
};

/// What the commands of a door come to.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// What a knock over IPv4 opens.
    pub(super) v4: BTreeSet<Port>,
    /// What a knock over IPv6 opens.
    pub(super) v6: BTreeSet<Port>,
    /// After how many seconds one of them takes its rule back itself.
    pub(super) lasts: Option<u64>,
    pub(super) hooks: Vec<Hook>,
    /// Whether one of them lets someone in under a condition that would be lost.
    pub(super) conditional: bool,
    /// Whether one of them takes a rule back.
    pub(super) closes: bool,
}

/// When a line of commands runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// When the sequence is complete, for sources of these families.
    Opened(Families),
    /// When the time is up.
    Closed,
}

impl When {
    /// Returns the event of a hook.
    fn event(self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Closed => "closed",
        }
    }

    fn families(self) -> Families {
        match self {
            Self::Opened(families) => families,
            Self::Closed => Families::BOTH,
        }
    }
}

/// What has run of a line.
struct Before {
    /// For which sources the last command has succeeded; `None`: that cannot be told.
    succeeded: Option<Families>,
    /// How long the line has waited since it opened a port, in seconds; `None`: it has opened none.
    waited: Option<u64>,
}

impl Commands {
    /// Adds the commands of a line.
    pub(super) fn add(
        &mut self,
        (line, key): (usize, &str),
        when: When,
        text: &str,
        report: &mut Report,
    ) {
        let commands = match inner(text) {
            Ok(commands) => commands,
            Err(what) => {
                let on = when.event();
                let text = format!(
                    "{what} needs a shell, and a hook has none; to run one, write it as [[gate.hook]] on = \"{on}\", \
                     run = [\"/bin/sh\", \"-c\", \"...\"], with $KNOCKGATE_SOURCE in place of %IP%"
                );
                return report.add(line, key, Fate::NotCarried, text);
            }
        };
        let mut before = Before {
            succeeded: None,
            waited: None,
        };
        for Command { words, on_success } in commands {
            if !on_success {
                before.succeeded = Some(when.families());
            }
            let (fate, text) = self.command(words, when, &mut before);
            report.add(line, key, fate, text);
        }
    }

    fn command(&mut self, words: Vec<String>, when: When, before: &mut Before) -> (Fate, String) {
        let program = words[0].clone();
        if program.rsplit('/').next() == Some("sleep") {
            if let Some(waited) = &mut before.waited {
                let times = words[1..].iter().filter_map(|time| firewall::seconds(time));
                *waited = times.fold(*waited, u64::saturating_add);
            }
            let text = "a grant ends by itself after open_for".to_owned();
            return (Fate::NotCarried, text);
        }
        let runs = before.succeeded.take();
        match (firewall::effect(&words), when) {
            (Effect::Opens(_), When::Closed) => {
                let text = format!("{program}: it opens when the time is up, which no gate does");
                (Fate::NotCarried, text)
            }
            (Effect::Opens(opening), When::Opened(_)) => {
                let Some(runs) = runs else {
                    self.conditional = true;
                    let text = "that it runs only if the command before it succeeds would be lost";
                    return (Fate::Weaker, text.to_owned());
                };
                before.succeeded = Some(runs.and(opening.families));
                before.waited.get_or_insert(0);
                self.open(opening, runs)
            }
            (Effect::Closes, _) => {
                self.closes = true;
                match before.waited {
                    None => {
                        let text = "a grant ends by itself after open_for; `knockgate revoke` ends it sooner";
                        (Fate::NotCarried, text.to_owned())
                    }
                    Some(0) => {
                        self.conditional = true;
                        let text =
                            "after what time it takes back what the line has opened is not known";
                        (Fate::Weaker, text.to_owned())
                    }
                    Some(seconds) => {
                        self.last(seconds);
                        (Fate::Carried, format!("as open_for = \"{seconds}s\""))
                    }
                }
            }
            (Effect::OnCondition(why), _) => {
                self.conditional = true;
                (Fate::Weaker, why)
            }
            (Effect::Unknown(why), _) => (Fate::NotCarried, format!("{program}: {why}")),
            (Effect::Other, _) => self.hook(when.event(), words),
        }
    }

    /// Adds what a rule opens. `runs`: for which sources its command runs.
    fn open(&mut self, opening: Opening, runs: Families) -> (Fate, String) {
        let Opening {
            ports,
            families,
            lasts,
        } = opening;
        let opens = families.and(runs);
        if opens.is_empty() {
            let text = format!("it runs for {runs}, and its rule is for {families}");
            return (Fate::NotCarried, text);
        }
        let listed: Vec<_> = ports.iter().map(Port::to_string).collect();
        if opens.v4 {
            self.v4.extend(&ports);
        }
        if opens.v6 {
            self.v6.extend(&ports);
        }
        let ends = lasts.map_or_else(String::new, |seconds| {
            self.last(seconds);
            format!(" and open_for = \"{seconds}s\"")
        });
        let text = format!("as protect = {listed:?}{ends}, and dropped");
        (Fate::Carried, text)
    }

    /// A rule is taken back after so many seconds.
    fn last(&mut self, seconds: u64) {
        self.lasts = Some(self.lasts.map_or(seconds, |lasts| lasts.min(seconds)));
    }

    fn hook(&mut self, on: &'static str, words: Vec<String>) -> (Fate, String) {
        let program = words[0].clone();
        if !program.starts_with('/') {
            return (
                Fate::NotCarried,
                format!("a hook needs the whole path of its program; {program:?} has none"),
            );
        }
        let is_placeholder = |piece: &Piece<'_>| matches!(piece, Piece::Placeholder(_));
        if words
            .iter()
            .any(|word| pieces(word).iter().any(is_placeholder))
        {
            return (
                Fate::NotCarried,
                "a hook would take its braces for a placeholder: write it into a script".to_owned(),
            );
        }
        let run = words
            .into_iter()
            .map(|word| word.replace(SOURCE, "{source}"));
        let hook = Hook {
            on,
            run: run.collect(),
        };
        // Both families may have the same.
        if !self.hooks.contains(&hook) {
            self.hooks.push(hook);
        }
        (Fate::Carried, format!("as a hook on {on:?}: {program}"))
    }
}

/// The commands of a line, also where it hands one line to another shell.
fn inner(text: &str) -> Result<Vec<Command>, String> {
    let commands = shell::commands(text)?;
    match commands.as_slice() {
        [Command { words, .. }] => match words.as_slice() {
            [shell, option, line]
                if option == "-c"
                    && ["sh", "bash", "dash"]
                        .contains(&shell.rsplit('/').next().unwrap_or(shell)) =>
            {
                shell::commands(line)
            }
            _ => Ok(commands),
        },
        _ => Ok(commands),
    }
}
