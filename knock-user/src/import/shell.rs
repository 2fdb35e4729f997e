//! Lines of shell, as far as they are plain commands.

/// The commands of a line, each with its words, in their order.
///
/// # Errors
/// What needs a shell: a word on it, for a message.
pub(super) fn commands(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
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
                commands.push(std::mem::take(&mut words));
            }
            '&' if rest.next_if_eq(&'&').is_some() => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            // In the background: hooks are not waited for anyway.
            '&' if rest.peek().is_none_or(|c| *c != '>') => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
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
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    if let Some(variable) = commands.iter().find_map(|words| assignment(&words[0])) {
        return Err(format!("`{variable}`"));
    }
    Ok(commands)
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
        commands(line).unwrap_or_else(|why| panic!("{line}: {why}"))
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
