//! The faults, one row each: a description, and a small change of the sources that causes it.

mod attaching;
mod authenticated;
mod client;
mod deciding;
mod host;
mod knocking;
mod outside;
mod reading;
mod remembering;

/// One way to break the program.
#[derive(Debug)]
pub(super) struct Fault {
    /// What the broken program does.
    pub(super) what: &'static str,
    /// Path in the workspace.
    pub(super) file: &'static str,
    /// Text that is in the file exactly once ...
    pub(super) find: &'static str,
    /// ... and its replacement.
    pub(super) replace: &'static str,
}

/// Returns all faults, in the order of a packet's path.
pub(super) fn all() -> impl Iterator<Item = &'static Fault> {
    let tables = [
        reading::FAULTS,
        deciding::FAULTS,
        remembering::FAULTS,
        knocking::FAULTS,
        authenticated::FAULTS,
        outside::FAULTS,
        attaching::FAULTS,
        host::FAULTS,
        client::FAULTS,
    ];
    tables.into_iter().flatten()
}

impl Fault {
    /// Returns the file's text with this fault; `None` if the text to replace is not there exactly once.
    pub(super) fn put_into(&self, text: &str) -> Option<String> {
        let Self {
            what: _,
            file: _,
            find,
            replace,
        } = self;
        let (before, after) = text.split_once(find)?;
        (!after.contains(find)).then(|| [before, replace, after].concat())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::workspace;

    /// A change of the program may remove the text that a fault replaces; then the fault has to be adapted.
    #[test]
    fn every_fault_still_fits_the_sources() {
        let misfits: Vec<&Fault> = all()
            .filter(|fault| {
                let path = workspace::root().join(fault.file);
                let text = fs::read_to_string(path).unwrap_or_default();
                fault.put_into(&text).is_none_or(|changed| changed == text)
            })
            .collect();
        assert!(
            misfits.is_empty(),
            "texts that are not exactly once in their files; adapt xtask/src/mutants/faults: {misfits:#?}"
        );
    }

    #[test]
    fn faults_are_told_apart_by_what_they_do() {
        let names: BTreeSet<&str> = all().map(|fault| fault.what).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.iter().all(|name| !name.contains('|')));
    }

    #[test]
    fn a_text_that_is_missing_or_there_twice_fits_nothing() {
        let fault = Fault {
            what: "",
            file: "",
            find: "b",
            replace: "x",
        };
        assert_eq!(fault.put_into("abc"), Some("axc".to_owned()));
        assert_eq!(fault.put_into("ac"), None);
        assert_eq!(fault.put_into("abcb"), None);
    }
}
