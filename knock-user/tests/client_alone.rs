//! The client without the host: what it is made of.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn it_needs_no_crate_of_the_host() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = |features: &[&str]| {
        let output = Command::new(&cargo)
            .args(["tree", "--offline", "--locked", "--package", "knock-user"])
            .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
            .args(features)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let names = text.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let host = tree(&[]);
    let client = tree(&["--no-default-features", "--features", "client"]);
    for name in [
        "aya",
        "caps",
        "hyper",
        "knock-common",
        "ratatui",
        "rtnetlink",
    ] {
        assert!(host.iter().any(|krate| krate == name), "no {name} at all");
        assert!(!client.iter().any(|krate| krate == name), "{name}");
    }
    assert!(client.iter().any(|krate| krate == "siphasher"));
}

/// All that only Linux has is in `client/linux.rs`; `client/not_linux.rs` is in its place elsewhere.
#[test]
fn it_is_for_any_unix() {
    const LINUX: [&str; 6] = [
        "os::linux",
        "/proc/",
        "adjtimex",
        "TIOCOUTQ",
        "SO_BINDTODEVICE",
        "epoll",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for part in ["client", "commands/knock", "keys", "values"] {
        files_in(&src.join(part), &mut files);
    }
    for part in [
        "commands/knock.rs",
        "commands/completions.rs",
        "commands/man.rs",
        "cli/mod.rs",
        "logging/mod.rs",
        "logging/lines.rs",
        "runtime.rs",
    ] {
        files.push(src.join(part));
    }
    assert!(files.len() > 30, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("its source");
        let linux: Vec<_> = LINUX.iter().filter(|word| text.contains(**word)).collect();
        let may = file.ends_with("client/linux.rs")
            || file.components().any(|part| part.as_os_str() == "tests");
        assert!(may || linux.is_empty(), "{linux:?} in {}", file.display());
    }
}

fn files_in(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files_in(&path, files);
        } else {
            files.push(path);
        }
    }
}
