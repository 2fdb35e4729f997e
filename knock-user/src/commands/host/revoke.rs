//! `knockgate revoke`.

use std::fmt;

use anyhow::Result;
#[cfg(feature = "fleet")]
use anyhow::{Context as _, anyhow};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::allow::parse_network;
use crate::{
    config::{Fleet, count},
    datapath::{Datapath, Lock, NothingUp, PinRoot, Scope},
    runtime::runtime,
};
#[cfg(feature = "fleet")]
use crate::{fleet::once, service::fleet::done_here::DoneHere};

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
    let revoked = here(root.lock_existing()?, root, networks, gate, !args.here)?;
    tracing::info!("ended {revoked}");
    for (network, gate) in &revoked.wider {
        tracing::warn!(
            "{network} has a grant at gate {gate} and goes on to pass: `knockgate revoke {network} --gate {gate}` ends it"
        );
    }
    if let Some(untold) = revoked.untold {
        runtime()?.block_on(everywhere(&untold, gate, args.source))?;
        tracing::info!("revoked in the fleet {}", untold.fleet.name);
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
    pub untold: Option<Untold>,
}

/// A fleet that is to be told of a revocation.
pub struct Untold {
    pub fleet: Fleet,
    /// By which this host's service knows that it has been carried out here.
    #[cfg(feature = "fleet")]
    nonce: u64,
}

impl Untold {
    /// Notes a revocation that has been carried out here; also one of which the fleet is not told, for an `allow` that is at
    /// work.
    #[cfg(feature = "fleet")]
    fn noted(fleet: Fleet, root: &PinRoot) -> Result<Self> {
        let nonce = getrandom::u64()
            .map_err(|error| anyhow!("the system's random source failed: {error}"))?;
        if let Err(error) = DoneHere::of(root).add(nonce) {
            tracing::warn!(
                "cannot write down what was revoked: {error}; what is given at this host before its service hears of it may end \
                 again, and an `allow --fleet` that is at work, or a knock that waits for etcd (`replay = \"strict\"`), may give \
                 again what was revoked"
            );
        }
        Ok(Self { fleet, nonce })
    }

    #[cfg(not(feature = "fleet"))]
    #[expect(clippy::unnecessary_wraps, reason = "with a fleet, it may fail")]
    fn noted(fleet: Fleet, _: &PinRoot) -> Result<Self> {
        Ok(Self { fleet })
    }
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

/// Revokes at this host. `lock`: on `root`; `None`: there is no such root. `is_for_all`: the fleet, if there is one, is told
/// then.
pub fn here(
    lock: Option<Lock>,
    root: &PinRoot,
    networks: &[IpNet],
    gate: Option<&str>,
    is_for_all: bool,
) -> Result<Revoked> {
    // First, so that the tables are not taken down between being opened and being changed. The fleet is asked without
    // keeping anything from others here.
    let Some(_lock) = lock else {
        return Err(NothingUp.into());
    };
    let mut datapath = Datapath::open(root)?;
    let gate = gate.map(|name| datapath.require_gate(name)).transpose()?;
    let scopes: Vec<_> = networks
        .iter()
        .map(|network| Scope::of(*network, gate))
        .collect();
    let ended = datapath.revoke(&scopes)?;
    let fleet = datapath.config().fleet.clone();
    let noted = fleet.map(|fleet| Untold::noted(fleet, root)).transpose()?;
    let name = |gate| datapath.applied.gate_name(gate).unwrap_or_default();
    let wider = ended.wider.iter();
    Ok(Revoked {
        grants: ended.grants,
        sessions: ended.sessions,
        wider: wider
            .map(|(network, gate)| (*network, name(*gate).to_owned()))
            .collect(),
        untold: noted.filter(|_| is_for_all),
    })
}

/// Revokes at every host of the fleet. `network`: `None` for every source.
#[cfg(feature = "fleet")]
pub async fn everywhere(untold: &Untold, gate: Option<&str>, network: Option<IpNet>) -> Result<()> {
    let Untold { fleet, nonce } = untold;
    let revoked = once::revoke(fleet, *nonce, gate, network);
    Box::pin(revoked).await.with_context(|| {
        format!(
            "this is revoked at this host, and not in the fleet {}: give the command again once that is repaired",
            fleet.name
        )
    })
}

#[cfg(not(feature = "fleet"))]
#[expect(clippy::unused_async, reason = "with a fleet, it is")]
pub async fn everywhere(_: &Untold, _: Option<&str>, _: Option<IpNet>) -> Result<()> {
    anyhow::bail!(
        "this knockgate was built without the feature `fleet`: it is revoked at this host alone"
    )
}
