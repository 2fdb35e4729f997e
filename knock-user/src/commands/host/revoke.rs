//! `knockgate revoke`.

#[cfg(feature = "fleet")]
use anyhow::Context as _;
use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::allow::parse_network;
use crate::{
    config::{Fleet, count},
    datapath::{Datapath, NothingUp, PinRoot},
};
#[cfg(feature = "fleet")]
use crate::{fleet::once::Once, runtime::runtime};

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
    // First, so that the tables are not taken down between being opened and being changed.
    let Some(lock) = root.lock_existing()? else {
        return Err(NothingUp.into());
    };
    let mut datapath = Datapath::open(root)?;
    let gate = args
        .gate
        .as_deref()
        .map(|name| datapath.require_gate(name))
        .transpose()?;
    let everyone = [Ipv4Net::default().into(), Ipv6Net::default().into()];
    let networks = match &args.source {
        Some(network) => std::slice::from_ref(network),
        None => &everyone,
    };
    let (mut grants, mut sessions) = (0, 0);
    for network in networks {
        let ended = datapath.revoke(*network, gate)?;
        grants += ended.0;
        sessions += ended.1;
    }
    tracing::info!(
        "ended {} and {}",
        count(grants, "grant"),
        count(sessions, "session")
    );
    let fleet = datapath.config().fleet.clone().filter(|_| !args.here);
    // The fleet is asked without keeping anything from others here.
    drop((datapath, lock));
    fleet.map_or(Ok(()), |fleet| everywhere(args, &fleet))
}

/// Revokes at every host of the fleet.
#[cfg(feature = "fleet")]
fn everywhere(args: &Args, fleet: &Fleet) -> Result<()> {
    let revoked = runtime()?.block_on(async {
        let mut once = Once::connect(fleet).await?;
        once.revoke(args.gate.as_deref(), args.source).await
    });
    revoked.with_context(|| {
        format!(
            "this is revoked at this host, and not in the fleet {}: give the command again when etcd answers",
            fleet.name
        )
    })?;
    tracing::info!("revoked in the fleet {}", fleet.name);
    Ok(())
}

#[cfg(not(feature = "fleet"))]
fn everywhere(_args: &Args, _fleet: &Fleet) -> Result<()> {
    anyhow::bail!(
        "this knockgate was built without the feature `fleet`: it is revoked at this host alone"
    )
}
