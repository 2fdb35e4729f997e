//! `knockgate top`.

use std::time::Duration;

use anyhow::Result;

use crate::{datapath::PinRoot, top, values::parse_duration};

/// Watch gates, grants, knocks and denied sources on the whole terminal
///
/// `?` lists the keys. Denied sources are taken from events, which are sampled: a source's first denied packet, then at most
/// one a second. Without a service (`knockgate run`) they are read from the kernel's ring buffer, which empties it.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How often the counters are read
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
}

/// The least interval: reading is work.
const SHORTEST: Duration = Duration::from_millis(100);

pub async fn run(args: &Args, root: &PinRoot) -> Result<()> {
    top::run(root, args.interval.max(SHORTEST)).await
}
