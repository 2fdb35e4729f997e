//! `knockgate status`.

use anyhow::Result;
use serde::Serialize;

use super::output;
use crate::{
    datapath::{
        Attachment, CalledBy, Datapath, Interface, Next, NotFollowed, NotGuarded, PinRoot,
        Snapshot, Status, describe, program_name,
    },
    service::{FleetLink, fleet_link},
};

/// Show interfaces, gates, how full the tables are, and totals
///
/// Exit status 7: a configured interface is not guarded.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
pub struct Document<'a> {
    #[serde(flatten)]
    pub status: &'a Status,
    pub fleet: Option<Fleet>,
}

/// The fleet of the configuration in force, as the service sees it.
#[derive(Serialize)]
pub struct Fleet {
    pub name: String,
    /// `None`: no service says so.
    pub connected: Option<bool>,
    pub isolated_for_ms: Option<u64>,
    pub why: Option<String>,
}

impl Fleet {
    fn of(datapath: &Datapath, root: &PinRoot) -> Option<Self> {
        let fleet = datapath.config().fleet.as_ref()?;
        let link = fleet_link(root);
        let connected = link.as_ref().map(|link| link.isolated_for_ms.is_none());
        let FleetLink {
            isolated_for_ms,
            why,
        } = link.unwrap_or(FleetLink {
            isolated_for_ms: None,
            why: None,
        });
        Some(Self {
            name: fleet.name.clone(),
            connected,
            isolated_for_ms,
            why,
        })
    }

    /// Returns one line for people.
    fn line(&self) -> String {
        let name = &self.name;
        match (self.connected, self.isolated_for_ms) {
            (None, _) => {
                format!(
                    "fleet {name}: no service takes part (`knockgate run`), or it does not answer"
                )
            }
            (_, None) => format!("fleet {name}: joined"),
            (_, Some(lasts)) => format!(
                "fleet {name}: ISOLATED for {}: {}",
                output::duration(lasts.saturating_mul(1_000_000)),
                self.why.as_deref().unwrap_or_default()
            ),
        }
    }
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let datapath = Datapath::look(root)?;
    let fleet = Fleet::of(&datapath, root);
    let (status, printed) = if args.json {
        let status = datapath.status()?;
        let printed = output::json(&Document {
            status: &status,
            fleet,
        });
        (status, printed)
    } else {
        let snapshot = datapath.snapshot()?;
        let printed = print(&snapshot, fleet.as_ref());
        (snapshot.status, printed)
    };
    // That an interface is not guarded counts also where nobody reads on.
    if let Some(not_guarded) = NotGuarded::among(&status.attachments) {
        return Err(not_guarded.into());
    }
    let unfollowed = status.unfollowed().into_iter();
    let unfollowed = unfollowed.map(|(name, next)| (name.to_owned(), next.pin.clone()));
    match NotFollowed::of(unfollowed.collect()) {
        None => printed,
        Some(not_followed) => Err(not_followed.into()),
    }
}

fn print(snapshot: &Snapshot, fleet: Option<&Fleet>) -> Result<()> {
    let Snapshot {
        status, counters, ..
    } = snapshot;
    let interfaces = status.interfaces.iter().zip(&status.attachments);
    let interfaces: Vec<_> = interfaces
        .map(|(interface, attachment)| row(attachment, interface.mode))
        .collect();
    output::table(["INTERFACE", "ATTACH", "MODE"], &interfaces, "")?;
    output::line("")?;
    let chain: Vec<_> = status.interfaces.iter().filter_map(chain).collect();
    if !chain.is_empty() {
        output::table(["INTERFACE", "CALLED BY", "NEXT"], &chain, "")?;
        output::line("")?;
    }
    let gates: Vec<_> = status
        .gates
        .iter()
        .map(|gate| {
            let protects = output::protects(&gate.protect, &gate.protect_at);
            [gate.name.clone(), protects, gate.grants.to_string()]
        })
        .collect();
    output::table(["GATE", "PROTECTS", "GRANTS>"], &gates, "no gates")?;
    output::line("")?;
    if status.guarded.destinations != "every" {
        let addresses = status.guarded.addresses.iter();
        let addresses: Vec<_> = addresses
            .map(|row| [row.address.to_string(), row.kind.into()])
            .collect();
        output::table(["ADDRESS", "KIND"], &addresses, "no addresses")?;
        output::line("")?;
    }
    let tables: Vec<_> = status
        .tables
        .iter()
        .map(|table| {
            [
                table.name.into(),
                table.used.to_string(),
                table.capacity.to_string(),
            ]
        })
        .collect();
    output::table(["TABLE", "USED>", "CAPACITY>"], &tables, "")?;
    output::line("")?;
    let (passed, denied) = counters.totals();
    let up_for = u64::try_from(status.up_for.as_nanos()).unwrap_or(u64::MAX);
    let up_for = output::duration(up_for);
    output::line(&format!(
        "packets: {passed} passed, {denied} denied; up for {up_for}"
    ))?;
    for why in &status.warnings {
        output::line(why)?;
    }
    fleet.map_or(Ok(()), |fleet| output::line(&fleet.line()))
}

/// What comes before and after our program, where one of them is another's program.
fn chain(interface: &Interface) -> Option<[String; 3]> {
    let Interface {
        name, into, next, ..
    } = interface;
    if into.is_none() && next.is_none() {
        return None;
    }
    let before = match into {
        None => "the kernel".to_owned(),
        Some(CalledBy { pin, slot, .. }) => format!("{pin}[{slot}]"),
    };
    let after = match next {
        None => "the host".to_owned(),
        Some(Next {
            pin, program: None, ..
        }) => format!("the host: NOTHING TO GO ON TO at {pin}"),
        Some(Next {
            pin,
            program: Some(program),
            pinned,
        }) => {
            let note = match pinned {
                Some(pinned) if pinned == program => "",
                Some(_) => "; another one is pinned there now: `knockgate reload` puts it in place",
                None => "; it is not pinned there any more, or this user may not look",
            };
            format!("{pin} ({}{note})", program_name(*program))
        }
    };
    Some([name.clone(), before, after])
}

fn row(attachment: &Attachment, mode: &str) -> [String; 3] {
    let name = match attachment.renamed_from() {
        Some(before) => format!("{} (was {before})", attachment.name),
        None => attachment.name.clone(),
    };
    match &attachment.state {
        Ok(attached) => [name, attached.name().into(), mode.into()],
        Err(lack) => {
            let other = attachment
                .other
                .map(|xdp| format!("; it carries {}", describe(xdp)));
            let why = format!("NOT GUARDED: {lack}{}", other.unwrap_or_default());
            [name, why, String::new()]
        }
    }
}
