//! `knockgate revoke`.

use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::allow::parse_network;
use crate::{
    config::count,
    datapath::{Datapath, NothingUp, PinRoot},
};

const USAGE: &str = "knockgate revoke [OPTIONS] <SOURCE[/LEN]>
       knockgate revoke [OPTIONS] --all";

/// End grants, and the sessions that began under them
///
/// Ends every grant and session whose source is within SOURCE.
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
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    // First, so that the tables are not taken down between being opened and being changed.
    let Some(_lock) = root.lock_existing()? else {
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
    Ok(())
}
