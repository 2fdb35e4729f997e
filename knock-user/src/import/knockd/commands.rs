//! The commands that a door runs: ports, hooks, and what is neither.

use std::collections::BTreeSet;

use crate::{
    config::{Piece, pieces},
    import::{
        Fate, Report,
        firewall::{self, Effect, SOURCE},
        gates::Hook,
        shell,
    },
    values::Port,
};

/// What the commands of a door come to.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) ports: BTreeSet<Port>,
    pub(super) hooks: Vec<Hook>,
    /// Whether one of them lets someone in under a condition that would be lost.
    pub(super) conditional: bool,
    /// Whether one of them takes a rule back.
    pub(super) closes: bool,
}

impl Commands {
    /// Adds the commands of a line, which run at this event.
    pub(super) fn add(
        &mut self,
        (line, key): (usize, &str),
        on: &'static str,
        text: &str,
        report: &mut Report,
    ) {
        let commands = match inner(text) {
            Ok(commands) => commands,
            Err(what) => {
                let text = format!(
                    "{what} needs a shell, and a hook has none; to run one, write it as [[gate.hook]] on = \"{on}\", \
                     run = [\"/bin/sh\", \"-c\", \"...\"], with $KNOCKGATE_SOURCE in place of %IP%"
                );
                return report.add(line, key, Fate::NotCarried, text);
            }
        };
        for words in commands {
            let program = words[0].clone();
            let (fate, text) = match firewall::effect(&words) {
                Effect::Opens(ports) => {
                    let listed: Vec<_> = ports.iter().map(Port::to_string).collect();
                    self.ports.extend(ports);
                    (
                        Fate::Carried,
                        format!("as protect = {listed:?}, and dropped"),
                    )
                }
                Effect::Closes => {
                    self.closes = true;
                    (
                        Fate::NotCarried,
                        "a grant ends by itself after open_for; `knockgate revoke` ends it sooner"
                            .to_owned(),
                    )
                }
                Effect::OnCondition(why) => {
                    self.conditional = true;
                    (Fate::Weaker, why)
                }
                Effect::Unknown(why) => (Fate::NotCarried, format!("{program}: {why}")),
                Effect::Other => self.hook(on, words),
            };
            report.add(line, key, fate, text);
        }
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
        self.hooks.push(Hook {
            on,
            run: run.collect(),
        });
        (Fate::Carried, format!("as a hook on {on:?}: {program}"))
    }
}

/// The commands of a line, also where it hands one line to another shell.
fn inner(text: &str) -> Result<Vec<Vec<String>>, String> {
    let commands = shell::commands(text)?;
    match commands.as_slice() {
        [words] => match words.as_slice() {
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
