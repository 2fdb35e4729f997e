//! Configurations of knockd and fwknop, as Debian ships them and as people write them.
//!
//! Beside each is what the import says and writes. `UPDATE=1 cargo test -p knock-user --test import` writes these
//! files anew; look at every difference.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use knock_user::{
    config::Config,
    import::{Imported, fwknop, knockd},
    values::Port,
};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/import")
        .join(folder);
    let entries = fs::read_dir(folder).expect("the files are part of the checkout");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    files.sort();
    files
}

/// Compares what came of a file with what was kept, and makes sure that `check` accepts it.
fn compare(path: &Path, imported: &Imported) {
    let mut text = String::new();
    for remark in &imported.report.remarks {
        let (line, key, fate) = (remark.line, &remark.key, remark.fate);
        writeln!(text, "# {line}: {key}: {fate}: {}", remark.text).expect("a string takes all");
    }
    let status = i32::from(imported.report.is_weaker() || imported.configuration.is_none());
    writeln!(text, "# Exit status {status}\n").expect("a string takes all");
    if let Some(configuration) = &imported.configuration {
        if let Err(invalid) = Config::parse(configuration, "imported") {
            panic!("{}: {invalid}", path.display());
        }
        text.push_str(configuration);
    }
    let kept = path.with_extension("toml");
    if env::var_os("UPDATE").is_some() {
        fs::write(&kept, &text).expect("a writable checkout");
    }
    let expected = fs::read_to_string(&kept).unwrap_or_default();
    assert_eq!(text, expected, "{}", path.display());
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a readable file")
}

#[test]
fn knockd_becomes_what_was_kept() {
    let files = files("knockd");
    assert!(files.len() >= 10, "{files:?}");
    for path in files {
        compare(&path, &knockd::import(&read(&path)));
    }
}

#[test]
fn fwknop_becomes_what_was_kept() {
    let files = files("fwknop");
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        let drawn: [Port; 3] =
            ["7431/udp", "2214/tcp", "9120/udp"].map(|port| port.parse().expect("a port"));
        let imported = fwknop::import(&read(&path), || Ok(drawn.to_vec()));
        compare(&path, &imported.expect("the sequence was given"));
    }
}

/// As in `knockgate import ... 2>&1 | head -1`.
#[test]
fn a_report_that_nobody_reads_changes_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (file, status) in [("two-admins", 0), ("odd", 1)] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let written = folder.path().join(file);
        let done = Command::new(env!("CARGO_BIN_EXE_knockgate"))
            .args(["import", "knockd"])
            .arg(format!("tests/import/knockd/{file}.conf"))
            .arg("--write")
            .arg(&written)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(writer)
            .status()
            .expect("it starts");
        assert_eq!(done.code(), Some(status), "{file}");
        assert!(written.exists(), "{file}");
    }
}
