//! `knockgate allow`.

use std::time::Duration;
#[cfg(feature = "fleet")]
use std::{thread::sleep, time::Instant};

use anyhow::Result;
#[cfg(feature = "fleet")]
use anyhow::{Context as _, bail};
use ipnet::IpNet;

#[cfg(feature = "fleet")]
use crate::{
    config::Fleet,
    fleet::{once, record::Mark},
    runtime::runtime,
    service::fleet::{applied, done_here::DoneHere},
};
use crate::{
    config::{LONGEST_GRANT, mapped_fault, zone_fault},
    datapath::{Datapath, NothingUp, PinRoot},
    sys::clock::monotonic_now,
    values::{HumanDuration, parse_duration},
};

/// How long this host may take to hear what was revoked in its fleet.
#[cfg(feature = "fleet")]
const MOMENT: Duration = Duration::from_secs(2);
/// Between two looks at whether it has.
#[cfg(feature = "fleet")]
const PAUSE: Duration = Duration::from_millis(20);

/// Give a grant by hand: let a source or network through a gate for a time
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address, or network in CIDR notation
    #[arg(value_name = "SOURCE[/LEN]", value_parser = parse_grantee)]
    source: IpNet,

    /// Name of the gate
    #[arg(long)]
    gate: String,

    /// How long the grant lasts [default: the gate's `open_for`]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_grant_duration)]
    duration: Option<Duration>,

    /// At every host of the fleet; at the others within their own `sources`, and for their own
    /// `open_for` at the most
    #[cfg(feature = "fleet")]
    #[arg(long)]
    fleet: bool,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    // First, so that the tables are not taken down between being opened and being changed.
    let Some(lock) = root.lock_existing()? else {
        return Err(NothingUp.into());
    };
    let mut datapath = Datapath::open(root)?;
    let id = datapath.require_gate(&args.gate)?;
    let open_for = datapath.applied.gate(id).map(|gate| gate.open_for);
    let duration = args.duration.or(open_for).unwrap_or_default();
    let now = monotonic_now();
    let until = now.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    datapath.allow(args.source.addr(), args.source.prefix_len(), id, until, now)?;
    tracing::info!(
        "{} may pass gate {} for {}",
        args.source,
        args.gate,
        HumanDuration(duration)
    );
    #[cfg(feature = "fleet")]
    if args.fleet {
        let fleet = datapath.config().fleet.clone();
        let fleet = fleet
            .context("the configuration in force has no [fleet]: this host alone has the grant")?;
        let given = Given::now(root, &fleet, until);
        // The fleet is asked without keeping anything from others here.
        drop((datapath, lock));
        return everywhere(args, root, &fleet, duration, &given);
    }
    drop(lock);
    Ok(())
}

/// A grant at this host, and what had been revoked by then.
#[cfg(feature = "fleet")]
struct Given {
    /// ns of `CLOCK_MONOTONIC`.
    until: u64,
    /// The last revocation that this host's service had carried out, and the last one that a command had.
    applied: Mark,
    by_command: Option<u64>,
}

#[cfg(feature = "fleet")]
impl Given {
    /// Who asks holds the lock of the root.
    fn now(root: &PinRoot, fleet: &Fleet, until: u64) -> Self {
        Self {
            until,
            applied: applied(root, &fleet.name).unwrap_or_default(),
            by_command: DoneHere::of(root).last(),
        }
    }
}

/// Tells the other hosts of the fleet.
#[cfg(feature = "fleet")]
fn everywhere(
    args: &Args,
    root: &PinRoot,
    fleet: &Fleet,
    lasts: Duration,
    given: &Given,
) -> Result<()> {
    let told = runtime()?.block_on(once::allow(fleet, &args.gate, args.source, lasts));
    let revoked = told.with_context(|| {
        format!(
            "the grant is given at this host, and not in the fleet {}: give the command again once that is repaired",
            fleet.name
        )
    })?;
    tracing::info!("told the fleet {}", fleet.name);
    let begun = Instant::now();
    while !stays(args, root, fleet, revoked, given)? {
        if begun.elapsed() > MOMENT {
            tracing::warn!(
                "this host has not heard yet what was revoked in the fleet {} before: when it does, the grant may end here; \
                 see `knockgate grants` then",
                fleet.name
            );
            break;
        }
        sleep(PAUSE);
    }
    Ok(())
}

/// Returns whether what was revoked before the grant, up to `revoked`, has been ended at this host. A grant that was ended with
/// it is given again, and no other: whoever has revoked since has meant this grant too.
#[cfg(feature = "fleet")]
fn stays(args: &Args, root: &PinRoot, fleet: &Fleet, revoked: Mark, given: &Given) -> Result<bool> {
    let Some(_lock) = root.lock_existing()? else {
        return Err(NothingUp.into());
    };
    let after = Given::now(root, fleet, given.until);
    if after.applied.number < revoked.number {
        return Ok(false);
    }
    let mut datapath = Datapath::open(root)?;
    let id = datapath.require_gate(&args.gate)?;
    let (now, until) = (monotonic_now(), given.until);
    let grant = datapath.grant_of(args.source, id)?;
    if until <= now || grant.is_some_and(|grant| grant.until > now) {
        return Ok(true);
    }
    let by_service = given.applied != revoked && after.applied == revoked;
    if by_service && after.by_command == given.by_command {
        datapath.allow(args.source.addr(), args.source.prefix_len(), id, until, now)?;
        return Ok(true);
    }
    // By whom is not known: it was revoked, here or by another host, or its user has closed it.
    bail!(
        "the grant has ended at this host meanwhile: give the command again if it is to be open here"
    )
}

/// An address or a network. Host bits are an error, since they are most often a slip.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    if let Some(fault) = mapped_fault(text, None) {
        return Err(fault);
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        zone_fault(text, None).unwrap_or_else(|| {
            "write an address such as 198.51.100.7, or a network such as 198.51.100.0/24".to_owned()
        })
    })?;
    if network == network.trunc() {
        Ok(network)
    } else {
        Err(format!(
            "bits behind the prefix are set; did you mean {}?",
            network.trunc()
        ))
    }
}

/// As [`parse_network`], for a grant: the kernel program has no length for everyone.
fn parse_grantee(text: &str) -> Result<IpNet, String> {
    let network = parse_network(text)?;
    if network.prefix_len() == 0 {
        return Err("a grant to everyone is no gate; `knockgate down` opens it".into());
    }
    Ok(network)
}

/// The bounds of `open_for`.
fn parse_grant_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() {
        Err("a grant of no length is none; `knockgate revoke` takes grants away".into())
    } else if duration > LONGEST_GRANT {
        Err("a grant lasts at most 366 days; put lasting ones on the allow list".into())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_for_somebody() {
        assert_eq!(
            parse_grantee("198.51.100.7").unwrap().to_string(),
            "198.51.100.7/32"
        );
        assert_eq!(
            parse_grantee("2001:db8::/32").unwrap().to_string(),
            "2001:db8::/32"
        );
        for everyone in ["0.0.0.0/0", "::/0"] {
            assert!(parse_network(everyone).is_ok());
            assert!(parse_grantee(everyone).unwrap_err().contains("everyone"));
        }
        for (unfit, instead) in [
            ("fe80::1%eth0", "write fe80::1, "),
            ("fe80::1%eth0/64", "write fe80::/64, "),
            ("::ffff:198.51.100.7", "write 198.51.100.7"),
            ("::ffff:198.51.100.0/120", "write 198.51.100.0/24"),
        ] {
            let error = parse_grantee(unfit).unwrap_err();
            assert!(error.contains(instead), "{error}");
        }
        assert!(
            parse_grantee("198.51.100.7/24")
                .unwrap_err()
                .contains("198.51.100.0/24")
        );
    }
}
