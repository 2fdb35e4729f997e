//! `knockgate knock`: the client.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::time::sleep;

use self::output::Output;
use self::plan::{By, Goal, Plan};
use crate::client::profile::{self, EXAMPLE, Profile};
use crate::client::{
    Address, AddressRule, BrokenOff, Client, Means, Opened, Progress, Target, parse_seconds,
    parse_tcp_port, parse_timeout, relay,
};
use crate::{
    values::parse_name,
    values::{Port, parse_duration},
};

mod output;
mod plan;

const USAGE: &str = "knockgate knock [OPTIONS] <HOST> <STEP>...
       knockgate knock [OPTIONS] [HOST] --key <FILE>
       knockgate knock [OPTIONS] --profile <NAME>... [HOST [STEP]...]";

/// How long `--connect` waits for more input once the peer has closed its direction.
const GRACE: Duration = Duration::from_secs(5);

/// Knock: send a sequence or an authenticated knock, and check or use the port that it opens
///
/// Needs no privileges. Prints nothing when all goes well.
#[derive(Debug, Clone, Args)]
#[command(override_usage = USAGE, after_long_help = after_help())]
pub struct KnockArgs {
    /// Name or address of the host; overrides the profile's and the key's
    ///
    /// An IPv6 link-local address needs its interface: `fe80::1%eth0`. Where a name has several addresses, the
    /// next one is tried when one does not answer; without --then or --connect, each of them is knocked at.
    #[arg(required_unless_present_any = ["profile", "key"], value_parser = parse_host)]
    host: Option<String>,

    /// The knocks in order, such as 7000/udp 8443/tcp; override the profile's
    #[arg(value_name = "STEP", required_unless_present_any = ["profile", "key"])]
    steps: Vec<Port>,

    #[command(flatten)]
    by_key: KeyArgs,

    /// Profile that says what is not given here; may be repeated
    ///
    /// Several profiles are knocked one after the other. HOST, STEP, --then, --connect and what is said with a key are for the
    /// last one, and `connect` in the others only checks the port.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,

    /// Then check that this TCP port answers; exit status 6 if it does not
    #[arg(long, value_name = "PORT/tcp", value_parser = parse_tcp_port, conflicts_with = "connect")]
    then: Option<u16>,

    /// Then connect this TCP port to standard input and output, for ssh's `ProxyCommand`
    ///
    /// The end of standard input closes the sending direction only. When the peer closes its direction,
    /// standard output is closed; standard input is still sent until it ends or is silent for 5 seconds. Exit
    /// status 6 if the port did not open, 1 if the connection was reset.
    #[arg(long, value_name = "PORT/tcp", value_parser = parse_tcp_port)]
    connect: Option<u16>,

    /// Pause between two knocks; each retry pauses 2.5 times as long [default: 20ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,

    /// With --then or --connect: how often to send the sequence again while the port is closed [default: 3]
    ///
    /// A random pause precedes each retry, so that clients that began together do not collide again.
    #[arg(long, value_name = "N")]
    retries: Option<u32>,

    /// With --then or --connect: how long the port may take to answer; each retry waits this much longer
    /// [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    timeout: Option<Duration>,

    /// Use only IPv4 addresses of the host
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,

    /// Use only IPv6 addresses of the host
    #[arg(short = '6', long)]
    ipv6: bool,

    /// Show the address and each knock on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// What a key can say, and a sequence cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct KeyArgs {
    /// File of a key, in place of a sequence: sends one packet that proves who sent it, and opens only once
    ///
    /// It is what `knockgate key new` printed at the host, with mode 0600. Both clocks must be right.
    #[arg(long, value_name = "FILE", conflicts_with = "steps")]
    key: Option<PathBuf>,

    /// With a key: the gate to open [default: the first of the key]
    #[arg(long, value_name = "NAME", value_parser = parse_name, conflicts_with = "steps")]
    gate: Option<String>,

    /// With a key: how long the grant is to last, if that is shorter than the gate says
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_seconds, conflicts_with = "steps")]
    seconds: Option<u16>,

    /// With a key: the address to open for: auto, observed or an address
    ///
    /// auto: this machine's own, which nobody can replace on the way; behind NAT the one that the host sees, as with
    /// observed. [default: auto]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "steps")]
    address: Option<AddressRule>,

    /// With a key: open for this machine's own addresses of both families
    #[arg(long, conflicts_with = "steps")]
    both: bool,

    /// With a key: end the grant of an earlier knock
    #[arg(long, conflicts_with_all = ["steps", "then", "connect", "exact", "seconds"])]
    close: bool,

    /// With a key, and --then or --connect: open for the source port of the connection alone
    ///
    /// Nobody else behind the same NAT gets in. The NAT must keep source ports.
    #[arg(long, conflicts_with = "steps")]
    exact: bool,
}

/// Knocks as asked.
///
/// # Errors
/// [`Invalid`](profile::Invalid) for a profile that cannot be used, [`NotOpen`](crate::client::NotOpen) for a port that stayed
/// closed, others for what kept the knocks or the connection from working.
pub async fn run(args: KnockArgs) -> anyhow::Result<()> {
    let verbose = args.verbose;
    let mut profiles = Vec::new();
    for name in &args.profile {
        profiles.push((name.clone(), Profile::load(name)?));
    }
    if !profiles.is_empty() {
        warn_of_others(&profile::default_path()?);
    }
    let plans = Plan::all(args, profiles)?;
    let several = plans.len() > 1;
    for (index, plan) in plans.into_iter().enumerate() {
        if index > 0 {
            // The knocks of one sequence must not overtake those of another.
            sleep(plan.pace.delay).await;
        }
        let name = plan.profile.clone();
        let done = carry_out(plan, verbose).await;
        match name {
            Some(name) if several => done.with_context(|| format!("[profile.{name}]"))?,
            _ => done?,
        }
    }
    Ok(())
}

fn warn_of_others(path: &Path) {
    let mode = path
        .metadata()
        .map(|metadata| metadata.permissions().mode());
    if let Some(warning) = mode.ok().and_then(|mode| profile::exposed(path, mode)) {
        tracing::warn!("{warning}");
    }
}

async fn carry_out(plan: Plan, verbose: bool) -> anyhow::Result<()> {
    let Plan {
        profile: _,
        host,
        family,
        by,
        pace,
        goal,
    } = plan;
    let target = Target::resolve(&host, family).await?;
    let mut observe = |address: &Address<'_>, progress: &Progress<'_>| {
        if verbose {
            // Knocking goes on when nobody reads standard error any more.
            let _ = writeln!(io::stderr(), "{address}: {progress}");
        }
    };
    let means = match &by {
        By::Sequence(sequence) => Means::from(sequence),
        By::Key(key) => Means::Key(key),
    };
    let mut client = Client::new(&target, means, pace, &mut observe);
    match goal {
        Goal::Send => client.send().await,
        Goal::Check(port) => client.open(port).await.map(drop),
        Goal::Connect(port) => match client.open(port).await? {
            Opened::Stream(stream) => {
                let input = io::stdin();
                // Who types sees that the peer has gone.
                let grace = if input.is_terminal() {
                    Duration::ZERO
                } else {
                    GRACE
                };
                relay(stream, input, Output::new(), grace).await
            }
            Opened::Reset => Err(BrokenOff::at_once().into()),
        },
    }
}

/// What `--help` says below the options.
fn after_help() -> String {
    let example = EXAMPLE.trim_end().replace('\n', "\n    ");
    format!(
        "\
Without --then or --connect the sequence or packet is sent once, and nothing shows whether it opened a port: a knock is never \
answered. Only the port itself shows it, and only a TCP port; an open UDP port need not answer.

Each retry pauses longer between its knocks, waits longer for the port, and begins at a random time. This helps \
against knocks that arrive out of order, a slow path, and another client that knocks from the same address at the \
same time. Clients of one machine wait for each other.

The connection that --then makes counts as one of the gate's `connections`; --connect makes one connection and uses \
it.

A sequence is a password in clear, which anyone on the way can use again; a knock by a key is not. Other users of this \
machine can see a sequence on the command line, but not one in a profile. Profiles are kept \
in ~/.config/knockgate/client.toml (XDG_CONFIG_HOME is honoured), with mode 0600:

    {example}

Examples:
    knockgate knock host.example 7000/udp 8443/tcp 9301/udp --then 22/tcp
    knockgate knock host.example --key alice.key --gate ssh --then 22/tcp
    knockgate knock --profile home
    knockgate knock --profile mail --profile home

To have ssh knock by itself, in ~/.ssh/config:
    Host host.example
        ProxyCommand knockgate knock --profile home --connect %p/tcp %h

Exit status:
    0  the sequence or packet was sent; with --then or --connect: the port opened
    1  it could not be sent, or the connection broke off
    2  wrong usage
    3  the profile or the file of the key cannot be used
    6  the port did not open"
    )
}

/// Refuses a step where the host belongs: names and addresses hold no slash.
fn parse_host(text: &str) -> Result<String, String> {
    if text.contains('/') {
        return Err(
            "this is a step; the host comes first, before the steps, with --profile too".to_owned(),
        );
    }
    if text.is_empty() {
        return Err("the host is empty; give a name or an address".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
