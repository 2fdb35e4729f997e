//! The pages that are packed, and what they lead to.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::Result;

use super::{read, tarball::copy, write};
use crate::workspace;

/// What is packed, relative to the checkout.
const PACKED: [&str; 4] = [
    "README.md",
    "docs",
    "packaging/grafana",
    "packaging/prometheus",
];

/// Copies the pages of the checkout into a folder, with what they lead to.
pub(super) fn make(folder: &Path) -> Result<()> {
    for packed in PACKED {
        copy(&workspace::root().join(packed), &folder.join(packed))?;
    }
    for page in pages(folder)? {
        let text = read(&page)?;
        let is_there = |link: &str| leads_somewhere(&page, link);
        write(&page, linked(&text, is_there).as_bytes())?;
    }
    Ok(())
}

/// Returns the links of the pages in a folder that lead to no file, each with its page.
pub(super) fn dead_links(folder: &Path) -> Result<Vec<String>> {
    let mut dead = Vec::new();
    for page in pages(folder)? {
        let text = read(&page)?;
        for (_, link) in links(&text) {
            if !leads_somewhere(&page, link) {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    Ok(dead)
}

/// Returns the pages below a folder.
fn pages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pages(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns whether a link of a page leads to another site, to the page itself or to a file.
fn leads_somewhere(page: &Path, link: &str) -> bool {
    let file = link.split('#').next().unwrap_or_default();
    if link.contains("://") || file.is_empty() {
        return true;
    }
    // By its spelling: a folder of the checkout may not be there to go up from.
    let mut target = page.parent().map(Path::to_owned).unwrap_or_default();
    for component in Path::new(file).components() {
        match component {
            Component::ParentDir => _ = target.pop(),
            other => target.push(other),
        }
    }
    target.exists()
}

/// Returns each link of a page, with where its text begins.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("](").filter_map(|(middle, _)| {
        let begin = text[..middle].rfind('[')?;
        let link = &text[middle + 2..];
        Some((begin, &link[..link.find(')')?]))
    })
}

/// Returns a page in which links that lead nowhere are their text alone.
fn linked(text: &str, is_there: impl Fn(&str) -> bool) -> String {
    let (mut page, mut rest) = (String::new(), 0);
    for (begin, link) in links(text) {
        if !is_there(link) {
            let named = text[begin + 1..].split("](").next().unwrap_or_default();
            page += &text[rest..begin];
            page += named;
            rest = begin + named.len() + link.len() + "[]()".len();
        }
    }
    page + &text[rest..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_its_text() {
        let text = "See [one](a.md#b), [two\nlines](../c.rs) and [three](d/), [no link].";
        assert_eq!(
            linked(text, |link| link.starts_with("a.md")),
            "See [one](a.md#b), two\nlines and three, [no link]."
        );
        assert_eq!(linked(text, |_| true), text);
    }

    #[test]
    fn no_page_that_is_packed_has_a_dead_link() {
        let folder = workspace::target().join("test-documents");
        super::super::emptied(&folder).unwrap();
        make(&folder).unwrap();
        for packed in [
            "docs/development/bench.md",
            "packaging/prometheus/knockgate.rules.yml",
        ] {
            assert!(folder.join(packed).exists(), "{packed}");
        }
        assert_eq!(dead_links(&folder).unwrap(), Vec::<String>::new());
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Else it would be packed as text.
    #[test]
    fn every_link_of_the_checkout_leads_somewhere() {
        for packed in PACKED {
            let from = workspace::root().join(packed);
            let all = if from.is_dir() {
                pages(&from).unwrap()
            } else {
                vec![from]
            };
            for page in all {
                let text = fs::read_to_string(&page).unwrap();
                for (_, link) in links(&text) {
                    assert!(leads_somewhere(&page, link), "{}: {link}", page.display());
                }
            }
        }
    }
}
