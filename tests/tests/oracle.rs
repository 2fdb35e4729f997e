//! Compares the program with the model, packet by packet.
//!
//! `KNOCKGATE_FUZZ_MINUTES` sets how long one test continues; `KNOCKGATE_FUZZ_SEED` repeats a run.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use knock_common::{
    Reason,
    knock::{Outcome, authenticated::outcome::Outcome as Authenticated},
};
use knock_user::{config::Config, datapath::Framing};
use knockgate_tests::{
    is_thorough,
    oracle::{Look, difference, generate, random::Random, shrink},
    stream::{self, Step},
    system::{Hosted, Program, SystemUnderTest, Tally},
};

/// An arbitrary seed; fixed, so that every change of the program is tried on the same packets.
const SEED: u64 = 1979;
const PACKETS: usize = 100_000;
/// Packets before a release.
const PACKETS_FOR_RELEASE: usize = 1_000_000;
/// Packets in a stream; each stream begins with empty tables.
const STREAM: usize = 400;
/// How often each reason and outcome was counted, by its name.
type Moved = BTreeMap<String, u64>;
/// How often a run must reach each reason and outcome.
const SELDOM: u64 = 25;
/// Streams for each configuration: loading a program takes as long as a few thousand packets.
const STREAMS: usize = 25;

#[test]
fn program_agrees_with_the_model_on_a_fixed_seed() {
    let moved = run(SEED, Program::load, |_| true);
    if !moved.is_empty() {
        everything_is_reached(&moved);
    }
}

#[test]
fn program_agrees_with_the_model_on_a_fresh_seed() {
    run(fresh_seed(), Program::load, |_| true);
}

/// The first buffer contains only the Ethernet header.
#[test]
fn program_agrees_with_the_model_for_frames_in_several_buffers() {
    let scattered = |config: &Config| Program::load_scattered(config, 14);
    run(SEED, scattered, |_| true);
}

#[test]
fn program_without_link_headers_agrees_with_the_model() {
    let load = |config: &Config| Program::load_for(config, Framing::BareIp);
    let moved = run(SEED, load, |_| true);
    if !moved.is_empty() {
        everything_is_reached(&moved);
    }
}

#[test]
fn program_at_tcx_agrees_with_the_model() {
    for framing in [Framing::Ethernet, Framing::BareIp] {
        let load = |config: &Config| Program::load_at_tcx(config, framing);
        let moved = run(SEED, load, |_| true);
        if !moved.is_empty() {
            everything_is_reached(&moved);
        }
    }
}

/// The same code without a kernel, where time is exact. Leaves out grants by hand, which the test itself would give
/// there.
#[test]
fn host_functions_agree_with_the_model() {
    let hosted = |config: &Config| Some(Hosted::new(config));
    let by_itself = |step: &Step| !matches!(step, Step::Allow { .. } | Step::Revoke { .. });
    everything_is_reached(&run(SEED, hosted, by_itself));
    // More than of the loaded program: it takes a fraction of the time.
    for _ in 0..3 {
        run(fresh_seed(), hosted, by_itself);
    }
    let bare = |config: &Config| Some(Hosted::on(config, Framing::BareIp));
    everything_is_reached(&run(SEED, bare, by_itself));
    run(fresh_seed(), bare, by_itself);
}

/// Does nothing in a normal run; `cargo xtask fuzz` sets the time.
#[test]
fn program_agrees_with_the_model_for_as_long_as_asked() {
    let Ok(minutes) = env::var("KNOCKGATE_FUZZ_MINUTES") else {
        return;
    };
    let minutes: u64 = minutes
        .parse()
        .expect("KNOCKGATE_FUZZ_MINUTES is a number of minutes");
    let end = Instant::now() + Duration::from_mins(minutes);
    let mut tried = 0;
    while Instant::now() < end {
        run(fresh_seed(), Program::load, |_| true);
        tried += packets();
        eprintln!("{tried} packets, no difference");
    }
}

/// Replays every difference that was ever found, in its minimal form.
#[test]
fn differences_once_found_stay_away() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut streams = 0;
    for entry in fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("the corpus can be listed").path();
        let text = fs::read_to_string(&path).expect("a stream is text");
        let (toml, steps) = text
            .split_once("---\n")
            .expect("a stream stands behind ---");
        let shown = path.display().to_string();
        let (config, _) = Config::parse(toml, &shown).unwrap_or_else(|error| panic!("{error}"));
        let steps: Vec<Step> = stream::read(steps)
            .into_iter()
            .map(|(step, _)| step)
            .collect();
        let mut systems: Vec<Box<dyn SystemUnderTest>> = vec![Box::new(Hosted::new(&config))];
        if let Some(program) = Program::load(&config) {
            systems.push(Box::new(program));
        }
        for mut system in systems {
            let found = difference(&config, system.as_mut(), &steps, Look::Close);
            assert_eq!(found, None, "{shown}");
        }
        streams += 1;
    }
    assert!(streams > 0, "the corpus has streams");
}

/// Tries random streams on systems with random configurations. Panics with the smallest stream that shows a difference.
/// `load` returns `None`, with a message, if this machine cannot load the program; nothing is counted then. `keep`
/// selects the steps of a stream to try.
fn run<S: SystemUnderTest>(
    seed: u64,
    load: impl Fn(&Config) -> Option<S>,
    keep: impl Fn(&Step) -> bool,
) -> Moved {
    eprintln!("seed {seed}: repeat with KNOCKGATE_FUZZ_SEED={seed}");
    let mut random = Random::seeded(seed);
    let mut left = packets();
    let mut moved = Moved::new();
    for nth in 0.. {
        if left == 0 {
            break;
        }
        let (toml, config) = generate::config(&mut random, nth);
        let Some(mut system) = load(&config) else {
            return moved;
        };
        for _ in 0..STREAMS {
            let mut steps = generate::stream(&mut random, &config, STREAM);
            steps.retain(&keep);
            if let Some(found) = difference(&config, &mut system, &steps, Look::Quick) {
                let minimal = shrink::minimal(&toml, &config, &mut system, &steps);
                panic!(
                    "seed {seed}: {}\nThe smallest stream that shows it; it belongs into tests/corpus:\n\n{}",
                    found.what,
                    minimal.unwrap_or("(a closer look shows no difference)".to_owned())
                );
            }
            add(&mut moved, &system.tally());
            left = left.saturating_sub(STREAM);
        }
    }
    moved
}

/// Returns how many packets a run tries.
fn packets() -> usize {
    if is_thorough() {
        PACKETS_FOR_RELEASE
    } else {
        PACKETS
    }
}

/// Asserts that every reason and outcome is reached: what is not reached is not compared.
fn everything_is_reached(moved: &Moved) {
    let reasons = Reason::ALL
        .iter()
        .filter(|&&reason| reason != Reason::Lapsed);
    let reasons = reasons.map(|reason| reason.name().to_owned());
    let knocks = Outcome::ALL.map(|outcome| outcome.name().to_owned());
    // No configuration here has a fleet, whose knocks wait: the suite `fleet` has them.
    let authenticated = Authenticated::ALL
        .into_iter()
        .filter(|outcome| *outcome != Authenticated::Held)
        .map(authenticated);
    for name in reasons.chain(knocks).chain(authenticated) {
        let times = moved.get(&name).copied().unwrap_or(0);
        assert!(times >= SELDOM, "only {times} times {name}; all: {moved:?}");
    }
}

fn authenticated(outcome: Authenticated) -> String {
    format!("authenticated {}", outcome.name())
}

/// Adds a tally, over all gates.
fn add(moved: &mut Moved, tally: &Tally) {
    for (index, (packets, _)) in tally.packets.iter().enumerate() {
        *moved
            .entry(Reason::ALL[index % Reason::COUNT].name().to_owned())
            .or_default() += packets;
    }
    for (index, knocks) in tally.knocks.iter().enumerate() {
        *moved
            .entry(Outcome::ALL[index % Outcome::ALL.len()].name().to_owned())
            .or_default() += knocks;
    }
    for (outcome, datagrams) in Authenticated::ALL.into_iter().zip(&tally.authenticated) {
        *moved.entry(authenticated(outcome)).or_default() += datagrams;
    }
}

fn fresh_seed() -> u64 {
    env::var("KNOCKGATE_FUZZ_SEED").map_or_else(
        |_| Random::fresh_seed(),
        |seed| seed.parse().expect("KNOCKGATE_FUZZ_SEED is a number"),
    )
}
