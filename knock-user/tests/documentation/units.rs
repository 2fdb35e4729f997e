//! What the pages and the units say to systemd leaves no port open after the next boot.

use std::{fs, path::PathBuf};

use crate::links::{files, root};

/// Returns the pages for users and the packaged units, each by its name.
fn texts() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    paths.extend(files(&root().join("docs"), ".md"));
    paths.extend(files(&root().join("packaging"), ".service"));
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("readable");
        (path.display().to_string(), text)
    };
    paths.into_iter().map(text).collect()
}

/// systemd starts no service one of whose directories is missing, unless a `-` stands before it.
#[test]
fn a_directory_that_is_missing_keeps_no_service_from_starting() {
    for (name, text) in texts() {
        for named in text.split("ReadWritePaths=").skip(1) {
            assert!(
                !named.starts_with('/'),
                "{name}: ReadWritePaths={named:.40}"
            );
        }
    }
}

/// A reload is a command of its own.
#[test]
fn what_starts_the_service_with_options_reloads_it_with_them() {
    for (name, text) in texts() {
        for block in text.split("```ini\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            let options = |key: &str, command: &str| {
                let begin = format!("{key}=/usr/bin/knockgate {command}");
                block.lines().find_map(|line| line.strip_prefix(&begin))
            };
            let (start, reload) = (options("ExecStart", "run"), options("ExecReload", "reload"));
            assert_eq!(start, reload, "{name}: {block}");
        }
    }
}
