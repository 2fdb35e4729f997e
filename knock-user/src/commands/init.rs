//! `knockgate init`: a commented starter configuration with fresh random sequences.

mod draw;
mod route;

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    str::FromStr,
};

use anyhow::{Context, bail};

use self::draw::Draw;
use crate::{
    config::{
        Config, DEFAULT_PATH, Gate, Port, Protocol, ephemeral_ports, listening_ports,
        parse_interface, parse_name,
    },
    datapath::{self, native_warnings},
};

/// Write a commented starter configuration with fresh random sequences
///
/// The file is written to the --config path with mode 0600. An existing file is never overwritten.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Interface to guard; may be given several times [default: the default route's]
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,

    /// Gate to write; may be given several times, also to give one gate several ports
    #[arg(
        long = "gate",
        value_name = "NAME=PORT/PROTO",
        default_value = "ssh=22/tcp"
    )]
    gates: Vec<GateArg>,
}

/// One `--gate NAME=PORT/PROTO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateArg {
    name: String,
    port: Port,
}

impl FromStr for GateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, port) = text.split_once('=').ok_or_else(|| {
            "write a name, an equals sign and a port, such as ssh=22/tcp".to_owned()
        })?;
        Ok(Self {
            name: parse_name(name)?,
            port: port.parse()?,
        })
    }
}

/// Writes the file to `path` and prints what it holds and what to do next.
pub fn run(args: &Args, path: &Path) -> anyhow::Result<()> {
    let message = init(args, path)?;
    io::stdout()
        .write_all(message.as_bytes())
        .context("the file is written, but standard output is closed")
}

fn init(args: &Args, path: &Path) -> anyhow::Result<String> {
    refuse_existing(path)?;
    let interfaces = match args.interfaces.as_slice() {
        [] => vec![route::default_interface()?],
        given => given.to_vec(),
    };
    for name in &interfaces {
        // One that is yet to come may be of any kind.
        if let Ok(index) = datapath::index_of(name) {
            datapath::framing(name, index)?;
        }
    }
    let mut draw = Draw::new(ephemeral_ports(), &listening_ports().unwrap_or_default());
    let text = starter(&interfaces, &args.gates, &user_name(), &mut draw)?;
    let (config, _) = Config::parse(&text, "the new file")?;
    create(path, &text)?;
    let mut message = next_steps(&config, path);
    for warning in native_warnings(&config) {
        let _ = write!(message, "\nNote: {warning}\n");
    }
    Ok(message)
}

/// The text of a starter file: one user with a fresh sequence for each gate.
fn starter(
    interfaces: &[String],
    gates: &[GateArg],
    user: &str,
    draw: &mut Draw,
) -> anyhow::Result<String> {
    let mut named: Vec<(&str, Vec<Port>)> = Vec::new();
    for GateArg { name, port } in gates {
        match named.iter_mut().find(|(known, _)| known == name) {
            Some((_, ports)) => ports.push(*port),
            None => named.push((name, vec![*port])),
        }
    }
    draw.avoid(gates.iter().map(|gate| gate.port.number));
    let mut text = HEAD.replace("@INTERFACES@", &quoted(interfaces));
    for (name, ports) in named {
        let sequence = draw.sequence().context("drawing a random sequence")?;
        text.push_str(
            &GATE
                .replace("@NAME@", name)
                .replace("@PROTECT@", &format!("{:<15}", quoted(&ports)))
                .replace("@USER@", user)
                .replace("@SEQUENCE@", &quoted(&sequence)),
        );
    }
    Ok(text)
}

const HEAD: &str = r#"# knockgate: a port-knocking gate, decided in the kernel.
# The sequences below are passwords: keep this file readable by its owner alone.
# `knockgate check` says what is wrong or weak here; `knockgate up` puts it in force.

# Interfaces to guard; `-i IFACE` on the command line does the same.
interfaces = @INTERFACES@

# How the program is attached: "auto" (native, else generic with a warning), "native" or "generic".
attach = "auto"

# "enforce", or "monitor": count and log what would be denied, deny nothing.
mode = "enforce"

# Networks that no gate ever closes on: your way back in when a knock is lost or forgotten.
# List at least one that you can always come from.
#allow = ["192.0.2.0/24"]

# Guard only packets to these addresses of this host; empty: every address.
addresses = []

# Ports on which packets are no knocks: "auto" (the ports this host listens on),
# or a list such as ["443/tcp", "443/udp"].
open_ports = "auto"

# Sizes of the kernel's tables, fixed when the gate is brought up.
[limits]
sources  = 262144              # sources whose knocking is remembered; the least recently used goes first
grants   = 65536               # open permissions; when all are taken, new ones are refused and reported
sessions = 262144              # flows that began under a grant
"#;

const GATE: &str = r#"
[[gate]]
name         = "@NAME@"
protect      = @PROTECT@ # closed to everyone without a grant
open_for     = "30s"           # how long a grant lasts; knocking again renews it
deny         = "drop"          # "drop", or "reject": answer as a closed port of this host would
session_idle = "3h"            # flows outlive the grant, and end after this long without a packet
connections  = 0               # new connections that one grant admits; 0: any number
grant_to     = "address"       # "address", or "prefix": the source's /24 (IPv4) or /64 (IPv6)
sources      = []              # networks that may knock, such as ["198.51.100.0/24"]; empty: every network

# One [[gate.knock]] for each person or system that may open this gate. Each needs a user name of
# its own and a sequence of its own: 2 to 12 ports, knocked on in this order.
[[gate.knock]]
user     = "@USER@"
sequence = @SEQUENCE@
within   = "10s"               # the longest time from the first knock to the last
"#;

/// A TOML list of strings.
fn quoted<T: ToString>(items: &[T]) -> String {
    let items = items
        .iter()
        .map(|item| toml::Value::from(item.to_string()).to_string());
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// The first user of the new file: whoever asked for it.
fn user_name() -> String {
    ["SUDO_USER", "USER"]
        .into_iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .find_map(|name| parse_name(&name).ok())
        .unwrap_or_else(|| "admin".to_owned())
}

fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.with_context(|| format!("the directory {} can't be made", parent.display()))?;
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return refuse_existing(path),
        opened => opened.with_context(|| format!("{shown} can't be written"))?,
    };
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a configuration would only stand in the way of the next attempt.
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("{shown} could not be written whole and was removed again"))
}

/// `create_new` decides; this says it before anything else is asked for.
fn refuse_existing(path: &Path) -> anyhow::Result<()> {
    if path.symlink_metadata().is_ok() {
        bail!(
            "{} exists and is never overwritten: move it away, or name another file with --config",
            path.display()
        );
    }
    Ok(())
}

fn next_steps(config: &Config, path: &Path) -> String {
    let option = match path.to_str() {
        Some(DEFAULT_PATH) => String::new(),
        _ => format!(" --config {}", shell_word(&path.to_string_lossy())),
    };
    let interfaces = config.interfaces.join(", ");
    let mut text = format!("wrote {} (mode 0600) for {interfaces}\n", path.display());
    for Gate { name, protect, .. } in &config.gates {
        let _ = writeln!(text, "  gate {name} guards {}", spaced(protect));
    }
    let _ = write!(
        text,
        "\nNext, here:\n\
         \x20 knockgate{option} check    # first list a network of yours under `allow` in the file\n\
         \x20 knockgate{option} up       # as root: from then on the gate is closed\n\
         \nThen, from where you come (HOST is this host's name or address):\n"
    );
    for Gate {
        protect, knocks, ..
    } in &config.gates
    {
        // Only TCP answers, so only a TCP port can be seen to open.
        let then = protect.iter().find(|port| port.protocol == Protocol::Tcp);
        let then = then.map_or_else(String::new, |port| format!(" --then {port}"));
        for knock in knocks {
            let _ = writeln!(
                text,
                "  knockgate knock HOST {}{then}",
                spaced(&knock.sequence)
            );
        }
    }
    text
}

fn spaced(ports: &[Port]) -> String {
    ports
        .iter()
        .map(Port::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
