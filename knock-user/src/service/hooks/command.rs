//! The command line and environment of a hook.

use crate::{
    config::{Piece, pieces},
    service::record::Record,
};

/// Where a hook's program looks for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns the program and its arguments with the values of `record` in place of placeholders. A key that does not apply
/// is empty.
pub fn argv(run: &[String], record: &Record) -> Vec<String> {
    let fields = record.fields();
    let value = |name: &str| {
        let field = fields.iter().find(|(key, _)| *key == name);
        field.map_or("", |(_, value)| value.as_str())
    };
    let filled = |argument: &String| {
        let pieces = pieces(argument).into_iter();
        let texts = pieces.map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Placeholder(name) => value(name),
        });
        texts.collect::<String>()
    };
    run.iter().map(filled).collect()
}

/// Returns the whole environment: the keys that apply, as `KNOCKGATE_EVENT` and the like, and what programs cannot do
/// without.
pub fn environment(record: &Record) -> Vec<(String, String)> {
    let fixed = [("PATH", PATH), ("LANG", "C.UTF-8")];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let fields = record.fields().into_iter();
    let fields = fields.map(|(key, value)| (format!("KNOCKGATE_{}", key.to_uppercase()), value));
    fixed.into_iter().chain(fields).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Record {
        Record {
            gate: Some("ssh".into()),
            source: Some("2001:db8::7".into()),
            ..Record::now("gate.opened")
        }
    }

    #[test]
    fn placeholders_become_values_and_what_is_absent_becomes_empty() {
        let run = [
            "/bin/x",
            "{event}",
            "{user}",
            r#"{"from": "{source}"}"#,
            "a b;c",
        ];
        let argv = argv(&run.map(ToOwned::to_owned), &opened());
        assert_eq!(
            argv,
            [
                "/bin/x",
                "gate.opened",
                "",
                r#"{"from": "2001:db8::7"}"#,
                "a b;c"
            ]
        );
    }

    #[test]
    fn values_are_not_read_again() {
        let record = Record {
            user: Some("{source}".into()),
            ..opened()
        };
        assert_eq!(argv(&["{user}".to_owned()], &record), ["{source}"]);
    }

    #[test]
    fn the_environment_has_the_keys_that_apply() {
        let environment = environment(&opened());
        let value = |name: &str| {
            let found = environment.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("KNOCKGATE_EVENT"), Some("gate.opened"));
        assert_eq!(value("KNOCKGATE_SOURCE"), Some("2001:db8::7"));
        assert_eq!(value("KNOCKGATE_USER"), None);
        assert!(value("PATH").is_some());
        // Nothing of this process.
        assert_eq!(value("HOME"), None);
    }
}
