//! Lines of shell, as far as they are plain commands.

/// A command of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// At least one.
    pub(super) words: Vec<String>,
    /// It runs only if the one before it succeeds.
    pub(super) on_success: bool,
}

/// The commands of a line, in their order.
///
/// # Errors
/// What needs a shell: a word on it, for a message.
pub(super) fn commands(line: &str) -> Result<Vec<Command>, String> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut on_success = false;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a quote that is not closed".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => match rest.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a quote that is not closed".to_owned()),
                        },
                        Some(c @ ('$' | '`')) => return Err(format!("`{c}`")),
                        Some(c) => word.push(c),
                        None => return Err("a quote that is not closed".to_owned()),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(rest.next()),
            ';' | '\n' => {
                words.extend(word.take());
                end(&mut commands, &mut words, &mut on_success, false);
            }
            '&' if rest.next_if_eq(&'&').is_some() => {
                words.extend(word.take());
                end(&mut commands, &mut words, &mut on_success, true);
            }
            // In the background: hooks are not waited for anyway.
            '&' if rest.peek().is_none_or(|c| *c != '>') => {
                words.extend(word.take());
                end(&mut commands, &mut words, &mut on_success, false);
            }
            '#' if word.is_none() => break,
            '|' | '&' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' => {
                return Err(format!("`{c}`"));
            }
            '~' if word.is_none() => return Err("`~`".to_owned()),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    end(&mut commands, &mut words, &mut on_success, false);
    if let Some(variable) = commands
        .iter()
        .find_map(|command: &Command| assignment(&command.words[0]))
    {
        return Err(format!("`{variable}`"));
    }
    Ok(commands)
}

/// Adds a command, if it has words. `next`: whether the next one runs only if it succeeds.
fn end(commands: &mut Vec<Command>, words: &mut Vec<String>, on_success: &mut bool, next: bool) {
    if !words.is_empty() {
        commands.push(Command {
            words: std::mem::take(words),
            on_success: std::mem::replace(on_success, next),
        });
    }
}

/// Returns the name of a variable that a command begins with, and its equals sign.
fn assignment(word: &str) -> Option<&str> {
    let equals = word.find('=')?;
    let name = &word[..equals];
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
    is_name.then_some(&word[..=equals])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        let commands = commands(line).unwrap_or_else(|why| panic!("{line}: {why}"));
        commands.into_iter().map(|command| command.words).collect()
    }

    #[test]
    fn what_runs_only_on_success_is_known() {
        let commands = commands("a && b; c & d &&\ne").expect("plain commands");
        let on_success: Vec<_> = commands.iter().map(|command| command.on_success).collect();
        assert_eq!(on_success, [false, true, false, false, true]);
    }

    #[test]
    fn commands_and_their_words_are_told_apart() {
        assert_eq!(
            words("/sbin/iptables -A 'IN PUT' && logger \"a \\\"b\\\"\" c\\ d; true &"),
            [
                vec!["/sbin/iptables", "-A", "IN PUT"],
                vec!["logger", "a \"b\"", "c d"],
                vec!["true"],
            ]
        );
        assert_eq!(words("echo '' x # a comment"), [vec!["echo", "", "x"]]);
        assert_eq!(words(" ; "), Vec::<Vec<String>>::new());
    }

    #[test]
    fn what_needs_a_shell_is_named() {
        for (line, what) in [
            ("echo x | mail root", "`|`"),
            ("echo x > /tmp/file", "`>`"),
            ("echo x 2>&1", "`>`"),
            ("echo x &>/dev/null", "`&`"),
            ("a || b", "`|`"),
            ("echo $HOME", "`$`"),
            ("echo \"`date`\"", "`` ` ``"),
            ("PATH=/bin ls", "`PATH=`"),
            ("ls /tmp/*", "`*`"),
            ("echo 'x", "a quote that is not closed"),
        ] {
            let why = commands(line).expect_err(line);
            // A backtick is shown as it is.
            assert_eq!(why, what.replace("`` ` ``", "```"), "{line}");
        }
    }
}
