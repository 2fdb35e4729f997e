//! `knockgate init`: writes a commented configuration with new random sequences.

pub(super) mod draw;
mod route;
mod starter;

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    str::FromStr,
};

use anyhow::Context as _;

use self::{draw::Draw, starter::starter};
use super::new_file;
use crate::{
    config::{Config, DEFAULT_PATH, Gate, ephemeral_ports, listening_ports, parse_interface},
    datapath::{self, native_warnings},
    values::parse_name,
    values::{Port, Protocol},
};

/// Write a commented configuration with new random sequences
///
/// Writes it to the --config path with mode 0600; never overwrites a file. Every key that may be left out is there too,
/// commented out, with its default.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Interface to guard; may be repeated [default: that of the default route]
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,

    /// Gate to write; may be repeated, also to give one gate several ports
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

/// Writes the file to `path`, and prints what it contains and what to do next.
pub fn run(args: &Args, path: &Path) -> anyhow::Result<()> {
    let message = init(args, path)?;
    io::stdout()
        .write_all(message.as_bytes())
        .context("the file is written, but standard output is closed")
}

fn init(args: &Args, path: &Path) -> anyhow::Result<String> {
    new_file::refuse_existing(path)?;
    let interfaces = match args.interfaces.as_slice() {
        [] => vec![route::default_interface()?],
        given => given.to_vec(),
    };
    for name in &interfaces {
        // An interface that does not exist yet may be of any kind.
        if let Ok(index) = datapath::index_of(name) {
            datapath::framing(name, index)?;
        }
    }
    let mut draw = Draw::new(ephemeral_ports(), &listening_ports().unwrap_or_default());
    let text = starter(&interfaces, &args.gates, &user_name(), &mut draw)?;
    let (config, _) = Config::parse(&text, "the new file")?;
    new_file::create(path, &text)?;
    let mut message = next_steps(&config, path);
    for warning in native_warnings(&config) {
        let _ = write!(message, "\nNote: {warning}\n");
    }
    Ok(message)
}

/// Returns the first user of the new file: the one who runs the command, by sudo or not.
fn user_name() -> String {
    ["SUDO_USER", "USER"]
        .into_iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .find_map(|name| parse_name(&name).ok())
        .unwrap_or_else(|| "admin".to_owned())
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
         \x20 knockgate{option} up       # as root: from then on the ports are closed\n\
         \x20 knockgate{option} key new USER   # a key, which is safer than a sequence: one packet opens, and only once\n\
         \nThen, at the client (HOST is this host's name or address):\n"
    );
    for Gate {
        protect, knocks, ..
    } in &config.gates
    {
        // The client can check TCP ports only.
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
