//! Links and names of tests in the documentation lead somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the files below a folder whose names end with this, build output aside.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// Returns the anchors that GitHub makes of a page's headings.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_to_a_file_and_heading() {
    for page in files(&root(), ".md") {
        let text = fs::read_to_string(&page).expect("readable");
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a file is in a folder").join(file)
            };
            let shown = page.display();
            assert!(target.exists(), "{shown}: no file {link}");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).expect("readable");
                assert!(
                    anchors(&text).iter().any(|known| known == anchor),
                    "{shown}: no heading {link}"
                );
            }
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let page = root().join("docs/attackers.md");
    let page = fs::read_to_string(page).expect("readable");
    let mut sources = String::new();
    for folder in ["tests", "knock-common", "knock-user"] {
        for file in files(&root().join(folder), ".rs") {
            // A suite of several files is a folder.
            let folder = file.parent().and_then(Path::file_name);
            for name in [file.file_stem(), folder] {
                let name = name.and_then(|name| name.to_str());
                sources.extend(["mod ", name.unwrap_or_default(), "\n"]);
            }
            sources += &fs::read_to_string(file).expect("readable");
        }
    }
    // In brackets behind the suite: a function, or what its name begins with.
    for group in page.split("(`").skip(1) {
        let group = group.split(')').next().unwrap_or_default();
        for name in group.split('`').filter(|name| name.contains('_')) {
            let name = name.rsplit("::").next().unwrap_or(name);
            let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let is_there = ["fn ", "mod "]
                .iter()
                .any(|kind| sources.contains(&format!("{kind}{name}")));
            assert!(!is_name || is_there, "no test {name}");
        }
    }
}
