//! `knockgate key rotate-host`.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    IN_FORCE_LATER, NOT_PRINTED, Store,
    make::{after, now},
    period::parse_period,
};
use crate::keys::{Host, Secret};

/// Draw another secret of this host, which everyone with a key needs
///
/// The secret hides what packets say. Whoever has it, as everyone with a key does, can unmask the packets of others, but not
/// make them. Prints it once; in each person's file it takes the place of `host_secret`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How long clients may go on with the secret that there was
    #[arg(long, value_name = "PERIOD", default_value = "30d", value_parser = parse_period)]
    overlap: Duration,

    /// Go on although clients that have not got the last new secret are locked out
    #[arg(long)]
    anyway: bool,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'h> {
    host_id: String,
    host_secret: &'h str,
    previous_until: Timestamp,
}

pub(super) fn run(args: &Args, store: &Store<'_>, out: &mut impl Write) -> Result<()> {
    let mut change = store.change()?;
    change.held.require_fit(&change.set)?;
    let now = now();
    let Some(host) = change.set.host.take() else {
        bail!("there are no keys yet, and so no secret; `knockgate key new USER` makes both");
    };
    if let Some((_, until)) = &host.previous
        && *until > now
        && !args.anyway
    {
        bail!(
            "clients may use the secret of before until {until:.0}, and only one is kept beside the new one: wait until \
             then, or lock those out that still use it with --anyway"
        );
    }
    let previous_until = after(now, args.overlap);
    let host = Host {
        id: host.id,
        secret: Secret::random()?,
        previous: Some((host.secret, previous_until)),
    };
    print(&host, previous_until, args.json, out)?;
    let host = change.set.host.insert(host);
    let kept = change.lock.save_host(host);
    kept.context("the secret was not kept: what was printed is void")?;
    change.put_into_force(&[]).context(IN_FORCE_LATER)?;
    if !args.json {
        tracing::info!("clients may use the secret of before until {previous_until:.0}");
    }
    Ok(())
}

fn print(host: &Host, previous_until: Timestamp, json: bool, out: &mut impl Write) -> Result<()> {
    let secret = host.secret.to_hex();
    let mut write = || -> io::Result<()> {
        if json {
            let document = Document {
                host_id: base16ct::lower::encode_string(&host.id),
                host_secret: &secret,
                previous_until,
            };
            serde_json::to_writer_pretty(&mut *out, &document)?;
            writeln!(out)?;
        } else {
            writeln!(out, "host_secret = \"{}\"", secret.as_str())?;
        }
        out.flush()
    };
    write().context(NOT_PRINTED)
}
