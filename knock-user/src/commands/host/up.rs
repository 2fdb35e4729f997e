//! `knockgate up`.

use std::path::Path;

use std::time::Duration;

use anyhow::Result;

use super::{check::own_addresses, output};
use crate::{
    config::{Addresses, Config, Level, Mode, SshSession, parse_interface, parse_pin},
    datapath::{
        self, Absent, Attachment, Before, Destinations, IntoArgument, Lack, PinRoot, Request, Up,
    },
    published::Published,
    values::{HumanDuration, parse_duration},
};

/// Load, attach and pin the kernel program, then exit: the kernel enforces from then on
///
/// Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. If anything fails, nothing is changed. Where it is up already, replaces
/// program and configuration in place: no packet is let through or lost meanwhile, and grants, sessions and progress that
/// still apply live on.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Interface to guard, in place of the configuration's; may be repeated
    #[arg(short, long = "interface", value_name = "IFACE", value_parser = parse_interface)]
    interfaces: Vec<String>,

    /// Put the program into a slot of another's array of programs instead of attaching it; without a slot, into the first free
    /// one
    #[arg(long, value_name = "PIN[SLOT]", value_parser = parse_into)]
    into: Option<IntoArgument>,

    /// Let it lapse after this long, unless `knockgate confirm` is given: then what was up before is in force again, or
    /// every packet passes
    #[arg(long = "try", value_name = "DURATION", value_parser = parse_trial)]
    trial: Option<Duration>,

    /// Go on even if this cuts off the SSH session that gives the command
    #[arg(long)]
    anyway: bool,
}

/// The bounds of a trial.
fn parse_trial(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(24);
    let duration = parse_duration(text)?;
    if duration < Duration::from_secs(1) || duration > LONGEST {
        return Err("a trial takes a second at least and a day at most".into());
    }
    Ok(duration)
}

/// Reads `/sys/fs/bpf/array` or `/sys/fs/bpf/array[2]`.
pub fn parse_into(text: &str) -> Result<IntoArgument, String> {
    let (pin, slot) = match text
        .strip_suffix(']')
        .and_then(|text| text.rsplit_once('['))
    {
        None => (text, None),
        Some((pin, slot)) => {
            let slot = slot.parse().map_err(|_| {
                format!("{slot:?} is no slot: write its number, such as \"{pin}[2]\"")
            });
            (pin, Some(slot?))
        }
    };
    let pin = parse_pin(pin, "array")?;
    Ok(IntoArgument { pin, slot })
}

/// Brings up what the file at `config` says, and says on standard error what is up.
pub fn run(args: &Args, config: &Path, root: &PinRoot) -> Result<()> {
    let Args {
        interfaces,
        into,
        trial,
        anyway,
    } = args;
    let config = load(config, interfaces)?;
    let request = Request {
        named_interfaces: !interfaces.is_empty(),
        trial: *trial,
        into: into.clone(),
        session: session(*anyway || trial.is_some()),
        ..Request::new(Absent::Refuse)
    };
    let up = datapath::up(&config, root, &request)?;
    report(&config, &up);
    report_published(&config);
    if config.has_fwknop() {
        tracing::warn!("clients of fwknop are let in only while `knockgate run` serves");
    }
    if config.holds_knocks() {
        tracing::warn!(
            "authenticated knocks open gates only while `knockgate run` serves, since [fleet] has replay = \"strict\""
        );
    }
    if let Some(trial) = trial {
        tracing::warn!(
            "this is on trial: it lapses in {} unless you give `knockgate confirm`, best from a new session",
            HumanDuration(*trial)
        );
    }
    all_guarded(up.failed)
}

/// Fails with the first of these interfaces that could not be guarded, and logs the others.
pub fn all_guarded(failed: Vec<(String, anyhow::Error)>) -> Result<()> {
    let mut errors = failed
        .into_iter()
        .map(|(name, error)| error.context(format!("{name} is NOT GUARDED")));
    let Some(first) = errors.next() else {
        return Ok(());
    };
    for error in errors {
        tracing::error!("{error:#}");
    }
    Err(first)
}

/// Returns the SSH session that gives the command, unless it may be cut off.
pub fn session(may_be_cut_off: bool) -> Option<SshSession> {
    if may_be_cut_off {
        None
    } else {
        SshSession::of_this_process()
    }
}

/// The configuration, with its warnings logged, for the interfaces that were asked for. What is wrong with the keys is said
/// when they are to come into force.
pub fn load(path: &Path, interfaces: &[String]) -> Result<Config> {
    let (mut config, findings) = Config::load(path)?;
    for warning in findings.iter().filter(|of| of.level == Level::Warning) {
        tracing::warn!("{}", warning.headline());
    }
    if !interfaces.is_empty() {
        config.guard_only(interfaces);
    }
    config.interfaces.sort();
    config.interfaces.dedup();
    Ok(config)
}

/// Logs what has been brought up or repaired, what is not guarded, and which keys are not in force.
pub fn report(config: &Config, up: &Up) {
    if let Some(error) = &up.unused_keys {
        tracing::error!("{error:#}");
    }
    for guarded in &up.guarded {
        let again = match up.before {
            Before::Same => " again, with the grants that there were",
            Before::Nothing | Before::Another => "",
        };
        let name = &guarded.interface;
        match (guarded.attached, &up.into) {
            (attached, None) => {
                tracing::info!("{name} is guarded{again} ({} mode)", attached.name());
            }
            (_, Some(into)) => tracing::info!("{name} is guarded{again} (in {into})"),
        }
    }
    match up.into.as_ref().map(|into| into.in_the_way(config)) {
        None => {}
        Some(Ok(found)) => found.iter().for_each(|why| tracing::warn!("{why}")),
        Some(Err(error)) => tracing::warn!("{error:#}"),
    }
    for name in &up.renewed {
        tracing::info!("what passes on {name} goes on to the program that is pinned now");
    }
    for Attachment { name, state, .. } in &up.attachments {
        if let Err(lack @ Lack::Uncalled(_)) = state {
            tracing::warn!("{name} is NOT GUARDED: {lack}");
        }
    }
    for attachment in &up.attachments {
        if let (Some(before), Ok(_)) = (attachment.renamed_from(), &attachment.state) {
            tracing::warn!(
                "{before} is called {} now; the program has stayed on it",
                attachment.name
            );
        }
    }
    match up.before {
        Before::Nothing => {}
        Before::Same => {
            if up.guarded.is_empty() && up.failed.is_empty() && up.renewed.is_empty() {
                let read_again = match config.addresses {
                    Addresses::Host => "; this host's addresses have been read again",
                    Addresses::Every | Addresses::Listed(_) => "",
                };
                tracing::info!(
                    "up already{}, with this configuration: nothing to change{read_again}",
                    on(&up.attachments)
                );
            }
            return;
        }
        Before::Another => tracing::info!(
            "replaced in place{}; grants and sessions that still apply go on",
            on(&up.attachments)
        ),
    }
    match &config.addresses {
        Addresses::Every => {}
        Addresses::Host => match Destinations::of(config) {
            Ok(guarded) => tracing::info!("{}", own_addresses(&guarded)),
            Err(error) => tracing::warn!("cannot read this host's addresses: {error}"),
        },
        Addresses::Listed(listed) => {
            let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
            tracing::info!("guards packets to {} alone", listed.join(", "));
        }
    }
    for gate in &config.gates {
        let protects = output::protects(&gate.protect, &gate.protect_at);
        let state = match config.mode {
            Mode::Enforce => "closed to all but those who knock",
            Mode::Monitor => "open to all: monitor mode counts what would be denied",
        };
        tracing::info!("gate {}: {protects} {state}", gate.name);
    }
}

/// Logs the published ports that the gates concern.
fn report_published(config: &Config) {
    // What cannot be read has been reported with what is up, or is `check`'s to say.
    let Ok(destinations) = Destinations::of(config) else {
        return;
    };
    let published = Published::by(config, &destinations);
    for row in published.guarded() {
        tracing::info!("{row}");
    }
    for row in published.open() {
        tracing::warn!("{row}");
    }
}

/// Returns on which interfaces it is, for a message.
fn on(attachments: &[Attachment]) -> String {
    match names(attachments) {
        names if names.is_empty() => names,
        names => format!(" on {names}"),
    }
}

/// The interfaces that are guarded, by their present names.
pub fn names(attachments: &[Attachment]) -> String {
    let guarded = attachments.iter().filter(|row| row.is_guarded());
    let names: Vec<&str> = guarded.map(|row| row.name.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_follows_the_pin_in_brackets() {
        let parsed = |text| parse_into(text).map(|IntoArgument { pin, slot }| (pin, slot));
        assert_eq!(parsed("/b/array"), Ok(("/b/array".into(), None)));
        assert_eq!(parsed("/b/array[0]"), Ok(("/b/array".into(), Some(0))));
        assert_eq!(parsed("/b/a[1][17]"), Ok(("/b/a[1]".into(), Some(17))));
        for wrong in [
            "array",
            "array[2]",
            "/b/array[]",
            "/b/array[-1]",
            "/b/array[x]",
            "/",
        ] {
            assert!(parse_into(wrong).is_err(), "{wrong}");
        }
    }
}
