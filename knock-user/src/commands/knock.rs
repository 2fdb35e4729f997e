//! `knockgate knock`: the client.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;

use crate::client::profile::{EXAMPLE, Invalid, Profile};
use crate::client::{
    Client, DEFAULT_DELAY, DEFAULT_RETRIES, DEFAULT_TIMEOUT, Family, Progress, Target,
    parse_tcp_port, parse_timeout, relay,
};
use crate::config::{Port, parse_duration};

const USAGE: &str = "knockgate knock [OPTIONS] <HOST> <STEP>...
       knockgate knock [OPTIONS] --profile <NAME> [HOST [STEP]...]";

/// Knock at a gate: send a sequence, and check or use the port behind it
///
/// Needs no privileges. Silent when all went well.
#[derive(Debug, Clone, Args)]
#[command(override_usage = USAGE, after_long_help = after_help())]
pub struct KnockArgs {
    /// The host, a name or an address; overrides the profile's
    ///
    /// The first address that it resolves to takes all knocks and the connection.
    #[arg(required_unless_present = "profile", value_parser = parse_host)]
    host: Option<String>,

    /// The knocks in order, such as 7000/udp 8443/tcp; override the profile's
    #[arg(value_name = "STEP", required_unless_present = "profile")]
    steps: Vec<Port>,

    /// Take what is not given here from this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,

    /// Then check that this TCP port answers; exit status 6 when it doesn't
    #[arg(long, value_name = "PORT/tcp", value_parser = parse_tcp_port, conflicts_with = "connect")]
    then: Option<u16>,

    /// Then connect this TCP port to standard input and output, as ssh's `ProxyCommand` wants it
    ///
    /// The end of standard input closes the sending direction only; the command ends when the peer closes.
    /// Exit status 6 when the port did not open.
    #[arg(long, value_name = "PORT/tcp", value_parser = parse_tcp_port)]
    connect: Option<u16>,

    /// Pause between two knocks, and before the sequence is sent again [default: 20ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<Duration>,

    /// With --then or --connect: how often to send the sequence again while the port is closed [default: 3]
    #[arg(long, value_name = "N")]
    retries: Option<u32>,

    /// With --then or --connect: how long the port may take to answer each time [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    timeout: Option<Duration>,

    /// Use the host's IPv4 address
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,

    /// Use the host's IPv6 address
    #[arg(short = '6', long)]
    ipv6: bool,

    /// Show the address and each knock on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// Knocks as asked.
///
/// # Errors
/// [`Invalid`] for a profile that can't be used, [`NotOpen`](crate::client::NotOpen) for a port that stayed
/// closed, others for what kept the knocks or the connection from working.
pub async fn run(args: KnockArgs) -> anyhow::Result<()> {
    let verbose = args.verbose;
    let profile = args.profile.as_deref().map(Profile::load).transpose()?;
    let Plan {
        host,
        family,
        sequence,
        delay,
        retries,
        timeout,
        goal,
    } = Plan::new(args, profile)?;

    let target = Target::resolve(&host, family).await?;
    let mut observe = |progress: &Progress<'_>| {
        if verbose {
            // Knocking goes on when nobody reads standard error any more.
            let _ = writeln!(io::stderr(), "{target}: {progress}");
        }
    };
    let mut client = Client::new(&target, &sequence, delay, &mut observe);
    match goal {
        Goal::Send => client.send().await,
        Goal::Check(port) => client.open(port, retries, timeout).await.map(drop),
        Goal::Connect(port) => {
            let stream = client.open(port, retries, timeout).await?;
            relay(stream, io::stdin(), tokio::io::stdout()).await
        }
    }
}

/// What to do, from the command line, the profile and the defaults, in this order.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    host: String,
    family: Family,
    sequence: Vec<Port>,
    delay: Duration,
    retries: u32,
    timeout: Duration,
    goal: Goal,
}

#[derive(Debug, PartialEq, Eq)]
enum Goal {
    Send,
    Check(u16),
    Connect(u16),
}

impl Plan {
    fn new(args: KnockArgs, profile: Option<Profile>) -> Result<Self, Invalid> {
        let KnockArgs {
            host,
            steps,
            profile: name,
            then,
            connect,
            delay,
            retries,
            timeout,
            ipv4,
            ipv6,
            verbose: _,
        } = args;
        let profile = profile.unwrap_or_default();
        let incomplete = |key: &str, example: &str, instead: &str| {
            let name = name.as_deref().unwrap_or_default();
            Invalid::new(format!(
                "[profile.{name}] has no `{key}`, and the command line gives none; add {key} = {example} to \
                 it, or give {instead}"
            ))
        };
        let sequence = if steps.is_empty() {
            profile.sequence
        } else {
            Some(steps)
        };
        Ok(Self {
            host: host
                .or(profile.host)
                .ok_or_else(|| incomplete("host", "\"host.example\"", "the host as an argument"))?,
            family: match (ipv4, ipv6) {
                (true, _) => Family::V4,
                (false, true) => Family::V6,
                (false, false) => Family::Any,
            },
            sequence: sequence.ok_or_else(|| {
                incomplete(
                    "sequence",
                    "[\"7000/udp\", \"8443/tcp\"]",
                    "the steps after the host",
                )
            })?,
            delay: delay.or(profile.delay).unwrap_or(DEFAULT_DELAY),
            retries: retries.or(profile.retries).unwrap_or(DEFAULT_RETRIES),
            timeout: timeout.or(profile.timeout).unwrap_or(DEFAULT_TIMEOUT),
            // A goal on the command line replaces the profile's, whichever that is.
            goal: match (then, connect) {
                (None, None) => goal(profile.then, profile.connect),
                (then, connect) => goal(then, connect),
            },
        })
    }
}

fn goal(then: Option<u16>, connect: Option<u16>) -> Goal {
    match (then, connect) {
        (_, Some(port)) => Goal::Connect(port),
        (Some(port), None) => Goal::Check(port),
        (None, None) => Goal::Send,
    }
}

/// What `--help` says below the options.
fn after_help() -> String {
    let example = EXAMPLE.trim_end().replace('\n', "\n    ");
    format!(
        "\
Without --then or --connect the sequence is sent once, and nothing tells whether it opened anything: a gate \
never answers a knock. Only the port behind it does, and only for TCP; an open UDP port need not answer.

The connection that --then makes counts where a gate limits how many one grant admits; --connect makes one \
connection and uses it.

Other users of this machine can see a sequence on the command line, but not one in a profile. Profiles are kept \
in ~/.config/knockgate/client.toml (XDG_CONFIG_HOME is honoured), with mode 0600:

    {example}

Examples:
    knockgate knock host.example 7000/udp 8443/tcp 9301/udp --then 22/tcp
    knockgate knock --profile home

ssh that knocks by itself, in ~/.ssh/config:
    Host host.example
        ProxyCommand knockgate knock --profile home --connect %p/tcp %h

Exit status:
    0  the sequence was sent; with --then or --connect: the port opened
    1  the sequence could not be sent, or the connection broke off
    2  wrong usage
    3  the profile can't be used
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
