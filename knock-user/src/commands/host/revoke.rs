//! `knockgate revoke`.

use std::fmt;

#[cfg(feature = "fleet")]
use anyhow::Context as _;
use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::allow::parse_network;
#[cfg(feature = "fleet")]
use crate::fleet::once;
use crate::{
    config::{Fleet, count},
    datapath::{Datapath, Lock, NothingUp, PinRoot},
    runtime::runtime,
};

const USAGE: &str = "knockgate revoke [OPTIONS] <SOURCE[/LEN]>
       knockgate revoke [OPTIONS] --all";

/// End grants, and the sessions that began under them
///
/// Ends every grant and session whose source is within SOURCE: at this host, and then at every host of its fleet.
#[derive(Debug, Clone, clap::Args)]
#[command(override_usage = USAGE)]
pub struct Args {
    /// Address, or network in CIDR notation
    #[arg(value_name = "SOURCE[/LEN]", value_parser = parse_network, required_unless_present = "all")]
    source: Option<IpNet>,

    /// Only at this gate
    #[arg(long)]
    gate: Option<String>,

    /// Every grant of every source
    #[arg(long, conflicts_with = "source")]
    all: bool,

    /// Only at this host, and not at the others of its fleet
    #[arg(long)]
    here: bool,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let everyone = [Ipv4Net::default().into(), Ipv6Net::default().into()];
    let networks = match &args.source {
        Some(network) => std::slice::from_ref(network),
        None => &everyone,
    };
    let gate = args.gate.as_deref();
    let revoked = here(root.lock_existing()?, root, networks, gate)?;
    tracing::info!("ended {revoked}");
    for (network, gate) in &revoked.wider {
        tracing::warn!(
            "{network} has a grant at gate {gate} and goes on to pass: `knockgate revoke {network} --gate {gate}` ends it"
        );
    }
    if let Some(fleet) = revoked.fleet.filter(|_| !args.here) {
        runtime()?.block_on(everywhere(&fleet, gate, args.source))?;
        tracing::info!("revoked in the fleet {}", fleet.name);
    }
    Ok(())
}

/// What was ended at this host.
pub struct Revoked {
    grants: usize,
    sessions: usize,
    /// Grants of wider networks, with their gates, by which what was revoked may still pass.
    wider: Vec<(IpNet, String)>,
    /// The fleet that is to be told, if there is one.
    pub fleet: Option<Fleet>,
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} and {}",
            count(self.grants, "grant"),
            count(self.sessions, "session")
        )
    }
}

/// Revokes at this host. `lock`: on `root`; `None`: there is no such root.
pub fn here(
    lock: Option<Lock>,
    root: &PinRoot,
    networks: &[IpNet],
    gate: Option<&str>,
) -> Result<Revoked> {
    // First, so that the tables are not taken down between being opened and being changed. The fleet is asked without
    // keeping anything from others here.
    let Some(_lock) = lock else {
        return Err(NothingUp.into());
    };
    let mut datapath = Datapath::open(root)?;
    let gate = gate.map(|name| datapath.require_gate(name)).transpose()?;
    let networks: Vec<_> = networks.iter().map(|network| (*network, gate)).collect();
    let ended = datapath.revoke(&networks)?;
    let name = |gate| datapath.applied.gate_name(gate).unwrap_or_default();
    let wider = ended.wider.iter();
    Ok(Revoked {
        grants: ended.grants,
        sessions: ended.sessions,
        wider: wider
            .map(|(network, gate)| (*network, name(*gate).to_owned()))
            .collect(),
        fleet: datapath.config().fleet.clone(),
    })
}

/// Revokes at every host of the fleet. `network`: `None` for every source.
#[cfg(feature = "fleet")]
pub async fn everywhere(fleet: &Fleet, gate: Option<&str>, network: Option<IpNet>) -> Result<()> {
    let revoked = once::revoke(fleet, gate, network);
    Box::pin(revoked).await.with_context(|| {
        format!(
            "this is revoked at this host, and not in the fleet {}: try again when etcd answers",
            fleet.name
        )
    })
}

#[cfg(not(feature = "fleet"))]
#[expect(clippy::unused_async, reason = "with a fleet, it is")]
pub async fn everywhere(_: &Fleet, _: Option<&str>, _: Option<IpNet>) -> Result<()> {
    anyhow::bail!(
        "this knockgate was built without the feature `fleet`: it is revoked at this host alone"
    )
}
