//! The licences of what is linked into the binary and its kernel program, in Debian's machine-readable form.
//!
//! Written here and not by cargo-about, which knows neither that form nor Rust's standard library.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

use super::read;
use crate::{architecture::Architecture, process, workspace};

/// Packages that are linked into the binary or into the kernel program that it carries.
const ROOTS: [&str; 2] = ["knock-user", "knock-ebpf"];

/// Licences that are taken where a crate gives a choice, the preferred first. `deny.toml` allows no other.
const LICENCES: [&str; 6] = [
    "MIT",
    "Apache-2.0",
    "Zlib",
    "Unicode-3.0",
    "ISC",
    "BSD-3-Clause",
];

const HEAD: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: knockgate
Comment: The binary is linked with the crates below, each under the licence named here.

Files: *
Copyright: 2026 The knockgate contributors
License: Expat or Apache-2.0

Files: rust-standard-library/*
Copyright: The Rust Project contributors
License: Expat or Apache-2.0
";

/// A crate that is linked.
struct Linked {
    name: String,
    version: String,
    /// What has to be met, such as `MIT`.
    licences: Vec<&'static str>,
    folder: PathBuf,
    authors: Vec<String>,
}

/// Returns the file.
pub(super) fn of_binary(architecture: Architecture) -> Result<String> {
    let mut text = HEAD.to_owned();
    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    texts.insert("MIT", expat()?);
    texts.insert("Apache-2.0", APACHE.to_owned());
    let all = linked(architecture)?;
    for linked in &all {
        let Linked {
            name,
            version,
            licences,
            folder: _,
            authors: _,
        } = linked;
        let short: Vec<_> = licences.iter().map(|licence| short(licence)).collect();
        let holders = linked.holders()?.into_iter().collect::<Vec<_>>();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\nFiles: {name}-{version}/*\nCopyright: {}\nLicense: {}\n",
            holders.join("\n           "),
            short.join(" and ")
        );
        for licence in licences {
            if !texts.contains_key(licence) {
                // Of a crate under this licence alone, whose file has nothing else.
                let alone = all.iter().find(|other| other.licences == [*licence]);
                texts.insert(licence, alone.unwrap_or(linked).licence_text(licence)?);
            }
        }
    }
    for (licence, body) in texts {
        let _ = write!(text, "\nLicense: {}\n", short(licence));
        for line in body.lines() {
            let line = line.trim_end();
            let _ = writeln!(text, " {}", if line.is_empty() { "." } else { line });
        }
    }
    Ok(text)
}

const APACHE: &str = "\
Licensed under the Apache License, Version 2.0; you may not use these files except in
compliance with it. On Debian systems it is in /usr/share/common-licenses/Apache-2.0.";

/// Returns the text of the MIT licence, without the holders of a copyright.
fn expat() -> Result<String> {
    let own = read(&workspace::root().join("LICENSE-MIT"))?;
    let start = own.find("Permission is hereby granted");
    let start = start.context("LICENSE-MIT has not the text of that licence")?;
    Ok(own[start..].to_owned())
}

/// Returns what Debian calls a licence.
fn short(licence: &str) -> &str {
    match licence {
        "MIT" => "Expat",
        "BSD-3-Clause" => "BSD-3-clause",
        other => other,
    }
}

impl Linked {
    /// Returns those who hold the copyright, as the crate says.
    fn holders(&self) -> Result<BTreeSet<String>> {
        let mut holders = BTreeSet::new();
        for path in self.licence_files()? {
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            holders.extend(text.lines().filter_map(holder).map(str::to_owned));
        }
        if holders.is_empty() {
            holders.extend(self.authors.iter().cloned());
        }
        if holders.is_empty() {
            holders.insert(format!("The {} contributors", self.name));
        }
        Ok(holders)
    }

    fn licence_text(&self, licence: &str) -> Result<String> {
        // A crate under a single licence, as it is for all but the first two, has one file.
        match self.licence_files()?.first() {
            Some(path) => read(path),
            None => bail!(
                "{} is under {licence}, and has no file with its text",
                self.name
            ),
        }
    }

    fn licence_files(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().to_ascii_uppercase();
            let named = ["LICENSE", "LICENCE", "COPYRIGHT"];
            if entry.path().is_file() && named.iter().any(|start| name.starts_with(start)) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Returns the years and the name of a line such as `Copyright (c) 2021 A. Author`. A form that is to be filled in
/// names nobody.
fn holder(line: &str) -> Option<&str> {
    let line = line.trim().strip_prefix("Copyright ")?;
    let line = line.trim_start_matches("(c) ").trim_start_matches("(C) ");
    let line = line.trim_start_matches("© ").trim();
    let blank = line.is_empty() || line.contains(['[', '{', '<']) && !line.contains('@');
    (!blank).then_some(line)
}

/// Returns every crate that is linked, by name. The workspace's own are left out.
fn linked(architecture: Architecture) -> Result<Vec<Linked>> {
    let said = process::stdout(
        Command::new(workspace::cargo())
            .current_dir(workspace::root())
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--filter-platform",
            ])
            .arg(architecture.target()),
    )?;
    let metadata: Value = serde_json::from_str(&said).context("`cargo metadata` is no JSON")?;
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);

    let roots = packages.iter().filter(|(_, package)| {
        let name = package["name"].as_str();
        name.is_some_and(|name| ROOTS.contains(&name))
    });
    let mut waiting: Vec<&str> = roots.map(|(id, _)| *id).collect();
    let mut seen = BTreeSet::new();
    let mut linked = Vec::new();
    while let Some(id) = waiting.pop() {
        let package = packages[id];
        // A macro runs in the compiler; what it needs is not linked either.
        if !seen.insert(id) || is_macro(package) {
            continue;
        }
        for dependency in elements(&nodes[id]["deps"]) {
            let normal = elements(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
            waiting.extend(dependency["pkg"].as_str().filter(|_| normal));
        }
        if !package["source"].is_null() {
            linked.push(read_package(package)?);
        }
    }
    linked.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(linked)
}

fn read_package(package: &Value) -> Result<Linked> {
    let text = |key: &str| {
        let value = package[key].as_str();
        value.with_context(|| format!("{} has no {key}", package["name"]))
    };
    let manifest = Path::new(text("manifest_path")?);
    Ok(Linked {
        name: text("name")?.to_owned(),
        version: text("version")?.to_owned(),
        licences: chosen(text("license")?)
            .with_context(|| format!("cannot choose a licence of {}", package["name"]))?,
        folder: manifest.parent().unwrap_or(manifest).to_owned(),
        authors: elements(&package["authors"])
            .filter_map(|author| Some(author.as_str()?.to_owned()))
            .collect(),
    })
}

/// Returns the licences to be met of an expression such as `MIT OR Apache-2.0`.
fn chosen(expression: &str) -> Result<Vec<&'static str>> {
    let expression = Expression::parse_mode(expression, ParseMode::LAX)?;
    let accepted = LICENCES.map(Licensee::parse);
    let accepted = accepted.into_iter().collect::<Result<Vec<_>, _>>()?;
    let needed = expression.minimized_requirements(&accepted)?;
    let needed = needed.iter().map(|requirement| {
        let name = requirement.license.to_string();
        let licence = LICENCES.into_iter().find(|licence| *licence == name);
        licence.with_context(|| format!("{name} is not among the licences that are accepted"))
    });
    needed.collect()
}

fn is_macro(package: &Value) -> bool {
    elements(&package["targets"])
        .flat_map(|target| elements(&target["kind"]))
        .any(|kind| kind == "proc-macro")
}

fn by_id(list: &Value) -> BTreeMap<&str, &Value> {
    let entries = elements(list).filter_map(|entry| Some((entry["id"].as_str()?, entry)));
    entries.collect()
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_choice_the_preferred_licence_is_taken() {
        for (expression, licences) in [
            ("MIT/Apache-2.0", vec!["MIT"]),
            (
                "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
                vec!["Apache-2.0"],
            ),
            ("Unlicense OR MIT", vec!["MIT"]),
            (
                "(MIT OR Apache-2.0) AND Unicode-3.0",
                vec!["MIT", "Unicode-3.0"],
            ),
            ("Zlib", vec!["Zlib"]),
        ] {
            assert_eq!(chosen(expression).unwrap(), licences, "{expression}");
        }
        assert!(chosen("GPL-2.0-only").is_err());
    }

    #[test]
    fn who_holds_a_copyright_is_told_from_a_form() {
        for (line, name) in [
            ("Copyright (c) 2018 A. Author", Some("2018 A. Author")),
            ("   Copyright 2021 B. Author", Some("2021 B. Author")),
            ("Copyright [yyyy] [name of copyright owner]", None),
            ("copyright notice that is included in", None),
        ] {
            assert_eq!(holder(line), name, "{line}");
        }
    }

    #[test]
    fn every_crate_that_is_linked_has_a_licence_and_a_holder() {
        let text = of_binary(Architecture::Amd64).unwrap();
        for name in ["aya-", "tokio-", "aya-ebpf-"] {
            assert!(text.contains(&format!("\nFiles: {name}")), "{name}");
        }
        assert!(!text.contains("\nFiles: knock-"), "{text}");
        // A macro of clap's, which runs in the compiler.
        assert!(!text.contains("\nFiles: clap_derive-"), "{text}");
    }
}
