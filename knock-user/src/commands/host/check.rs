//! `knockgate check`: reports errors and weaknesses of a configuration.

use std::{
    io::{self, Write},
    mem,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

#[cfg(feature = "fleet")]
use crate::{config::Fleet, fleet::etcd::Connection, runtime::runtime};
use crate::{
    config::{Addresses, Config, Finding, Invalid, Level, count},
    datapath::{Destinations, PinRoot, native_warnings, next_fault, taken_warnings},
    published::Published,
};

/// Report errors and weaknesses of a configuration; change nothing
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// File to check, in place of that of --config
    file: Option<PathBuf>,

    /// Print one JSON document: whether the file is valid, the findings, what would be guarded, and the published ports
    #[arg(long)]
    json: bool,

    /// Also connect to the etcd members of [fleet]
    #[cfg(feature = "fleet")]
    #[arg(long)]
    connect: bool,
}

/// Checks `args.file`, or else `config`, and prints every finding. `root`: where what is up is pinned.
///
/// Fails with [`Invalid`] if an error is among them; its findings are then marked as shown. For a file that cannot be
/// read, nothing is printed, and the error has the reason.
pub fn run(args: &Args, config: &Path, root: &PinRoot) -> anyhow::Result<()> {
    check(args, config, root, &mut anstream::stdout().lock())
}

fn check(args: &Args, config: &Path, root: &PinRoot, out: &mut impl Write) -> anyhow::Result<()> {
    let file = args.file.as_deref().unwrap_or(config);
    let mut outcome = Config::load(file);
    if let Ok((config, findings)) = &mut outcome {
        let name = file.display().to_string();
        let of_interface =
            |message| Finding::about_file(Level::Warning, "no-native-xdp", &name, message);
        findings.extend(native_warnings(config).into_iter().map(of_interface));
        let of_taken =
            |message| Finding::about_file(Level::Warning, "interface-taken", &name, message);
        findings.extend(taken_warnings(config, root).into_iter().map(of_taken));
        #[cfg(feature = "fleet")]
        if let Some(fleet) = config.fleet.as_ref().filter(|_| args.connect) {
            let of_member = |message| {
                Finding::about_file(Level::Warning, "unreachable-endpoint", &name, message)
            };
            let unreachable = runtime()?.block_on(unreachable(fleet));
            findings.extend(unreachable.into_iter().map(of_member));
        }
        let of_next = |fault| {
            let message = format!("`up` will refuse what is to follow: {fault}");
            Finding::about_file(Level::Warning, "unfit-next", &name, message)
        };
        findings.extend(next_fault(config, root).map(of_next));
    }
    // About its keys, where the file itself is valid.
    if let Ok((_, findings)) = &mut outcome
        && findings.iter().any(|finding| finding.level == Level::Error)
    {
        let name = file.display().to_string();
        outcome = Err(Invalid::new(&name, mem::take(findings)));
    }
    let mut report = Report::default();
    if let Ok((config, findings)) = &mut outcome {
        let guarded = Destinations::of(config).context("cannot read this host's addresses")?;
        let published = Published::by(config, &guarded);
        let name = file.display().to_string();
        findings.extend(published.open().map(|row| {
            let message = row.to_string();
            Finding::about_file(Level::Warning, "published-port-open", &name, message)
        }));
        report = Report {
            guarded: Some(guarded),
            published: Some(published),
        };
    }
    let printed = if args.json {
        serde_json::to_writer_pretty(&mut *out, &Document::of(&outcome, report))
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(out, &outcome, &report)
    };
    // An error of the file counts also where nobody reads on.
    match outcome {
        Ok(_) => Ok(printed?),
        Err(invalid) if invalid.is_unread() => Err(invalid.into()),
        Err(invalid) => Err(invalid.already_shown().into()),
    }
}

/// Returns why members cannot be reached, or do not let this host read and write what its fleet has.
#[cfg(feature = "fleet")]
async fn unreachable(fleet: &Fleet) -> Vec<String> {
    let mut found = Vec::new();
    for endpoint in &fleet.endpoints {
        let reach = async {
            let mut connection = Connection::open(fleet, endpoint).await?;
            connection.revision().await?;
            let written = connection.try_writing().await;
            written.context("it takes no writes")
        };
        if let Err(error) = Box::pin(reach).await {
            found.push(format!(
                "the etcd member {endpoint} cannot be used: {error:#}"
            ));
        }
    }
    found
}

type Outcome = Result<(Config, Vec<Finding>), Invalid>;

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'f> {
    valid: bool,
    findings: &'f [Finding],
    #[serde(flatten)]
    report: Report,
}

/// What a valid file means on this host.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Which destinations would be guarded.
    #[serde(flatten)]
    guarded: Option<Destinations>,
    #[serde(flatten)]
    published: Option<Published>,
}

impl<'f> Document<'f> {
    fn of(outcome: &'f Outcome, report: Report) -> Self {
        match outcome {
            Ok((_, findings)) => Self {
                valid: true,
                findings,
                report,
            },
            Err(invalid) => Self {
                valid: false,
                findings: invalid.findings(),
                report,
            },
        }
    }
}

fn print(out: &mut impl Write, outcome: &Outcome, report: &Report) -> io::Result<()> {
    if outcome.as_ref().is_err_and(Invalid::is_unread) {
        return Ok(());
    }
    for finding in Document::of(outcome, Report::default()).findings {
        writeln!(out, "{}\n", finding.coloured())?;
    }
    let is_host = |guarded: &&Destinations| guarded.destinations == Addresses::HOST;
    if let Some(guarded) = report.guarded.as_ref().filter(is_host) {
        writeln!(out, "{}\n", own_addresses(guarded))?;
    }
    if let Some(published) = &report.published {
        for row in published.guarded() {
            writeln!(out, "{row}\n")?;
        }
        if let Some(unread) = &published.unread {
            writeln!(out, "{unread}\n")?;
        }
    }
    match outcome {
        Ok((config, warnings)) => writeln!(out, "{}", summary(config, warnings.len())),
        Err(_) => Ok(()),
    }
}

/// `guards packets to this host's own addresses, now 192.0.2.1, fe80::1`.
pub fn own_addresses(guarded: &Destinations) -> String {
    let own = guarded.addresses.iter().filter(|row| row.kind == "own");
    let own: Vec<String> = own.map(|row| row.address.to_string()).collect();
    match own.as_slice() {
        [] => "guards packets to this host's own addresses, of which there are none now".to_owned(),
        own => format!(
            "guards packets to this host's own addresses, now {}",
            own.join(", ")
        ),
    }
}

/// `ok: 1 gate, 3 sequences, no warnings`.
fn summary(config: &Config, warnings: usize) -> String {
    let gates = count(config.gates.len(), "gate");
    let sequences = count(
        config.gates.iter().map(|gate| gate.knocks.len()).sum(),
        "sequence",
    );
    let keys = match config.gates.iter().map(|gate| gate.keys.len()).sum() {
        0 => String::new(),
        keys => format!(", {}", count(keys, "key")),
    };
    let fwknop = match config.gates.iter().map(|gate| gate.fwknop.len()).sum() {
        0 => String::new(),
        clients => {
            let clients = count(clients, "client");
            format!(", {clients} of fwknop (let in while `knockgate run` serves)")
        }
    };
    let warnings = if warnings == 0 {
        "no warnings".to_owned()
    } else {
        count(warnings, "warning")
    };
    format!("ok: {gates}, {sequences}{keys}{fwknop}, {warnings}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const GOOD: &str = "allow = ['192.0.2.0/24']\n[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n\
        [[gate.knock]]\nuser = 'alice'\nsequence = ['7431/udp', '2214/tcp', '9120/udp']\n";

    /// With nothing up.
    fn root() -> PinRoot {
        PinRoot::new("/nonexistent")
    }

    fn printed(text: &str) -> String {
        let mut out = Vec::new();
        print(&mut out, &Config::parse(text, "k.toml"), &Report::default())
            .expect("a Vec takes everything");
        anstream::adapter::strip_bytes(&out)
            .into_vec()
            .try_into()
            .expect("UTF-8")
    }

    #[test]
    fn a_good_file_ends_in_one_line() {
        assert_eq!(printed(GOOD), "ok: 1 gate, 1 sequence, no warnings\n");
    }

    #[test]
    fn warnings_come_before_the_last_line() {
        let text = GOOD.replace("'7431/udp', ", "");
        assert_eq!(
            printed(&text),
            "k.toml:7:12: warning: two knocks are soon guessed: use three or more\n\
             \x20 |\n\
             7 | sequence = ['2214/tcp', '9120/udp']\n\
             \x20 |            ^^^^^^^^^^^^^^^^^^^^^^^^\n\n\
             ok: 1 gate, 1 sequence, 1 warning\n"
        );
    }

    #[test]
    fn the_document_has_the_documented_keys() {
        let outcome = Config::parse("interfaces = 1", "k.toml");
        let document =
            serde_json::to_value(Document::of(&outcome, Report::default())).expect("serialisable");
        assert_eq!(document["valid"], false);
        assert_eq!(
            document["findings"][1],
            serde_json::json!({
                "level": "error",
                "code": "wrong-type",
                "message": "`interfaces` must be a list, each element an interface name such as \"eth0\", \
                            not the number 1",
                "line": 1,
                "column": 14,
            })
        );
        let outcome = Config::parse(GOOD, "k.toml");
        let (config, _) = outcome.as_ref().expect("it is good");
        let guarded = Destinations::of(config).expect("every destination");
        let report = Report {
            guarded: Some(guarded),
            published: Some(Published {
                rows: Some(Vec::new()),
                unexamined_rules: 0,
                unread: None,
            }),
        };
        let document = Document::of(&outcome, report);
        assert_eq!(
            serde_json::to_value(document).expect("serialisable"),
            serde_json::json!({
                "valid": true,
                "findings": [],
                "destinations": "every",
                "addresses": [],
                "published": [],
                "unexamined_rules": 0,
            })
        );
    }

    #[test]
    fn an_invalid_file_fails_after_its_findings_were_printed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("k.toml");
        std::fs::write(&file, "nonsense = 1\nmode = 2\n").expect("writable");
        let args = Args {
            file: Some(file.clone()),
            json: true,
            #[cfg(feature = "fleet")]
            connect: false,
        };
        let mut out = Vec::new();
        let error = check(&args, Path::new("/nonexistent"), &root(), &mut out)
            .expect_err("the file is invalid");
        assert!(error.is::<Invalid>());
        assert_eq!(
            error.to_string(),
            format!("{}: 2 errors; nothing was applied", file.display())
        );
        let document: serde_json::Value = serde_json::from_slice(&out).expect("one JSON document");
        assert_eq!(document["findings"].as_array().map(Vec::len), Some(2));
        // It fails also where nobody reads on.
        let (reader, mut closed) = io::pipe().expect("a pipe");
        drop(reader);
        let error = check(&args, Path::new("/nonexistent"), &root(), &mut closed)
            .expect_err("the file is invalid");
        assert!(error.is::<Invalid>(), "{error}");
    }

    /// The file itself is valid.
    #[test]
    fn keys_that_cannot_be_used_are_a_failure() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keys = folder.path().join("keys");
        std::fs::write(&keys, "").expect("writable");
        let file = folder.path().join("k.toml");
        let knock = format!("[knock]\nports = [\"4164/udp\"]\nkeys = {keys:?}\n");
        std::fs::write(&file, format!("{GOOD}{knock}")).expect("writable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("ours");
        let args = Args {
            file: Some(file),
            json: false,
            #[cfg(feature = "fleet")]
            connect: false,
        };
        let mut out = Vec::new();
        let error = check(&args, Path::new("/nonexistent"), &root(), &mut out)
            .expect_err("there is no folder of keys");
        assert!(error.to_string().contains(": 1 error;"), "{error}");
        let out = String::from_utf8(anstream::adapter::strip_bytes(&out).into_vec());
        let out = out.expect("UTF-8");
        assert!(out.contains("error: the keys cannot be used"), "{out}");
        assert!(!out.contains("ok: "), "{out}");
    }

    #[test]
    fn a_missing_file_is_a_failure_and_no_result() {
        let args = Args {
            file: None,
            json: false,
            #[cfg(feature = "fleet")]
            connect: false,
        };
        let mut out = Vec::new();
        let error =
            check(&args, Path::new("/nonexistent/k.toml"), &root(), &mut out).expect_err("missing");
        assert_eq!(out, b"");
        assert!(error.to_string().contains("`knockgate init"), "{error}");
    }
}
