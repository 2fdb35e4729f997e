//! What one packet costs, by `BPF_PROG_TEST_RUN`: the programs alone, with nothing of a network around.

use anyhow::{Result, ensure};
use aya::programs::Xdp;

use crate::{
    Plan,
    cast::Cast,
    figures::{Against, Part, Row, over, times},
    frame::{self, ACK, SYN, Transport},
    gate::{FOREIGN, GRANTED, Gate, KNOCKS, OPEN, PROTECTED, knock_frame, knocks},
    programs::{Floor, Programs, Traffic, run, slope},
};

const DROP: &str = "bare XDP_DROP";
const PASS: &str = "bare XDP_PASS";
const PARSE: &str = "parse only";
const VARIED: &str = "bare XDP_DROP, varied";

/// A source that nobody knows.
const STRANGER: u32 = 0xac10_0001;
/// A source on the allow list of [`Cast::allowing`].
const FRIEND: u32 = 0xc612_0007;
/// Where sources begin that knock for the first time.
const NEWCOMERS: u32 = 0x1400_0000;
/// How many sources forge packets.
const FORGED: u32 = 65_536;

/// One row to be measured.
struct Case<'c> {
    name: String,
    program: &'c Xdp,
    work: Work,
    /// Whose counters must show that every packet was judged for this reason.
    expected: Option<(&'c Gate, &'static str)>,
    against: Vec<Against>,
    rounds: Vec<f64>,
}

/// What a program is run on.
enum Work {
    /// The same frame again and again.
    Hot(Vec<u8>),
    /// A frame, and how each one differs from that before.
    Varied(Vec<u8>, Traffic),
    /// One knock of each of ever new sources, which have knocked on the first so many ports of the
    /// sequence in a run before that is not measured.
    Knock(usize, Traffic),
}

/// The table of all verdicts.
pub fn verdicts(programs: &mut Programs, cast: &Cast, plan: &Plan) -> Result<Part> {
    let floors = [Floor::Drop, Floor::Pass, Floor::Parse];
    let [drop, pass, parse] = floors.map(|floor| programs.floor(floor));
    let (drop, pass, parse) = (drop?, pass?, parse?);
    let open = || frame::ipv4(Transport::Udp, STRANGER, 40000, OPEN);
    let bare = |name: &str, program, work| Case::new(name, program, work, Vec::new());
    let mut cases = vec![
        bare(DROP, &drop, Work::Hot(open())),
        bare(PASS, &pass, Work::Hot(open())),
        bare(PARSE, &parse, Work::Hot(open())),
        bare(VARIED, &drop, scattered(denied_frame(), STRANGER, FORGED)),
    ];
    cases.extend(unguarded(&cast.one));
    cases.extend(closed(cast));
    cases.extend(granted(cast));
    cases.extend(knocking(&cast.knocked));
    Ok(Part {
        title: "Per packet, BPF_PROG_TEST_RUN",
        unit: "ns of CPU, median (min–max)",
        notes: vec![
            "hot: the same frame again and again, so all that it touches is in the cache",
            "varied: the next source's frame is written, then judged by tail call; its floor does the same",
        ],
        rows: measure(programs, cases, plan)?,
    })
}

/// The same verdicts with one sequence and with ten thousand.
pub fn sequences(programs: &mut Programs, cast: &Cast, plan: &Plan) -> Result<Part> {
    const NAMES: [(&str, &str); 6] = [
        ("open port, 1 sequence", "open port, 10,000"),
        ("foreign port, 1 sequence", "foreign port, 10,000"),
        ("denied, 1 sequence", "denied, 10,000"),
        ("granted, 1 sequence", "granted, 10,000"),
        ("first knock, 1 sequence", "first knock, 10,000"),
        ("whole knock, 1 sequence", "whole knock, 10,000"),
    ];
    let works = || {
        [
            (
                Work::Hot(frame::ipv4(Transport::Udp, STRANGER, 40000, OPEN)),
                "unguarded",
            ),
            (
                Work::Hot(frame::ipv4(Transport::Udp, STRANGER, 40000, FOREIGN)),
                "unguarded",
            ),
            (scattered(denied_frame(), STRANGER, FORGED), "no_grant"),
            (Work::Hot(granted_frame()), "grant"),
            (Work::Varied(knock_frame(), new_sources(1)), "knock"),
            (Work::Varied(knock_frame(), one_knocker()), "knock"),
        ]
    };
    let mut cases = Vec::new();
    for ((single, crowd), ((one, reason), (many, _))) in
        NAMES.into_iter().zip(works().into_iter().zip(works()))
    {
        cases.push(Case::judged(single, &cast.lone, reason, one, Vec::new()));
        let ratio = vec![times(single).at_most(1.1)];
        cases.push(Case::judged(crowd, &cast.crowd, reason, many, ratio));
    }
    Ok(Part {
        title: "The same with 10,000 sequences of 1,000 users at 10 gates",
        unit: "ns of CPU, median (min–max)",
        notes: vec![
            "denied and knocks are varied, see above: their ns hold the writing of the frame",
        ],
        rows: measure(programs, cases, plan)?,
    })
}

fn unguarded(gate: &Gate) -> Vec<Case<'_>> {
    let udp = Transport::Udp;
    let v4 = |transport, port| frame::ipv4(transport, STRANGER, 40000, port);
    let v6 = |extensions| frame::ipv6(udp, extensions, 40000, OPEN);
    let near_parse = || vec![over(PASS), over(PARSE).at_most(8.0)];
    let rows = [
        (
            "unguarded, UDP to an open port",
            v4(udp, OPEN),
            near_parse(),
        ),
        (
            "unguarded, TCP to an open port",
            v4(Transport::Tcp(ACK), OPEN),
            near_parse(),
        ),
        (
            "unguarded, TCP data to a foreign port",
            v4(Transport::Tcp(ACK), FOREIGN),
            near_parse(),
        ),
        (
            "probe, TCP SYN to a foreign port",
            v4(Transport::Tcp(SYN), FOREIGN),
            vec![over(PARSE)],
        ),
        (
            "probe, UDP to a foreign port",
            v4(udp, FOREIGN),
            vec![over(PARSE)],
        ),
        (
            "unguarded, UDP behind a VLAN tag",
            frame::tagged(v4(udp, OPEN)),
            near_parse(),
        ),
        ("unguarded, UDP over IPv6", v6(0), near_parse()),
        (
            "unguarded, UDP over IPv6, 2 extensions",
            v6(2),
            near_parse(),
        ),
    ];
    rows.map(|(name, frame, against)| {
        Case::judged(name, gate, "unguarded", Work::Hot(frame), against)
    })
    .into()
}

fn closed(cast: &Cast) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for (grants, gate) in cast.by_grants() {
        cases.push(Case::judged(
            format!("denied SYN, {grants} grants, hot"),
            gate,
            "no_grant",
            Work::Hot(denied_frame()),
            vec![over(DROP)],
        ));
        cases.push(Case::judged(
            format!("denied SYN, {grants} grants, 65,536 sources"),
            gate,
            "no_grant",
            scattered(denied_frame(), STRANGER, FORGED),
            vec![over(VARIED)],
        ));
    }
    let friend = frame::ipv4(Transport::Tcp(SYN), FRIEND, 40000, PROTECTED);
    for (name, reason, frame) in [
        ("allow list of 100, hit", "allow_list", friend),
        (
            "allow list of 100, missed: denied",
            "no_grant",
            denied_frame(),
        ),
    ] {
        let work = Work::Hot(frame);
        cases.push(Case::judged(
            name,
            &cast.allowing,
            reason,
            work,
            vec![over(DROP)],
        ));
    }
    cases
}

fn granted(cast: &Cast) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for (grants, gate) in cast.by_grants() {
        cases.push(Case::judged(
            format!("granted TCP data, no session, {grants} grants, hot"),
            gate,
            "grant",
            Work::Hot(granted_frame()),
            vec![over(PASS)],
        ));
        cases.push(Case::judged(
            format!("granted TCP data, no session, {grants} grants, each source"),
            gate,
            "grant",
            scattered(granted_frame(), GRANTED, grants),
            vec![over(VARIED)],
        ));
    }
    let datagram = || Work::Hot(frame::ipv4(Transport::Udp, GRANTED, 40000, PROTECTED));
    let against = || vec![over(PASS)];
    cases.push(Case::judged(
        "granted UDP, in a session",
        &cast.one,
        "grant",
        datagram(),
        against(),
    ));
    cases.push(Case::judged(
        "kept session, grant ended",
        &cast.kept,
        "session",
        datagram(),
        against(),
    ));
    cases
}

fn knocking(gate: &Gate) -> Vec<Case<'_>> {
    // A source port that stays makes a packet seen before a duplicate; one that changes, a new knock.
    let known = Traffic {
        sources: 32_768,
        hold: 15,
        ..new_sources(1)
    };
    let names = ["first", "second", "last, grant given,"];
    let mut cases = vec![
        Case::judged(
            "a knock's duplicate, hot",
            gate,
            "knock",
            Work::Hot(frame::ipv4(Transport::Udp, 0x0909_0909, 40000, KNOCKS[0])),
            vec![over(PASS)],
        ),
        Case::judged(
            "first knock again, 32,768 known sources",
            gate,
            "knock",
            Work::Varied(knock_frame(), known),
            vec![over(VARIED)],
        ),
    ];
    for (place, name) in names.iter().enumerate() {
        let traffic = Traffic {
            first: NEWCOMERS + 0x0200_0000 * u32::try_from(place).expect("there are three"),
            ..new_sources(1)
        };
        cases.push(Case::judged(
            format!("{name} knock of ever new sources"),
            gate,
            "knock",
            Work::Knock(place, traffic),
            vec![over(VARIED)],
        ));
    }
    cases.push(Case::judged(
        "each of three knocks, one source, renewals",
        gate,
        "knock",
        Work::Varied(knock_frame(), one_knocker()),
        vec![over(VARIED)],
    ));
    cases
}

/// Measures every case once a round, in an order that changes from round to round.
fn measure(programs: &mut Programs, mut cases: Vec<Case<'_>>, plan: &Plan) -> Result<Vec<Row>> {
    for case in &mut cases {
        case.check(programs)?;
    }
    for round in 0..plan.rounds {
        let count = cases.len();
        for turn in 0..count {
            // Another beginning each time, and there and back by turns.
            let turn = if round % 2 == 0 {
                turn
            } else {
                count - 1 - turn
            };
            let case = &mut cases[(turn + 7 * round) % count];
            let value = case.once(programs, plan.repeat)?;
            case.rounds.push(value);
        }
    }
    Ok(cases.into_iter().map(Case::into_row).collect())
}

impl<'c> Case<'c> {
    fn new(name: impl Into<String>, program: &'c Xdp, work: Work, against: Vec<Against>) -> Self {
        Self {
            name: name.into(),
            program,
            work,
            expected: None,
            against,
            rounds: Vec::new(),
        }
    }

    fn judged(
        name: impl Into<String>,
        gate: &'c Gate,
        reason: &'static str,
        work: Work,
        against: Vec<Against>,
    ) -> Self {
        Self {
            expected: Some((gate, reason)),
            ..Self::new(name, &gate.program, work, against)
        }
    }

    /// Makes sure that the row is about what its name says. Warms up, too.
    fn check(&mut self, programs: &mut Programs) -> Result<()> {
        const PACKETS: u32 = 4096;
        let Some((gate, reason)) = self.expected else {
            return Ok(());
        };
        let before = gate.packets(Some(reason))?;
        let all_before = gate.packets(None)?;
        self.run(programs, PACKETS)?;
        let judged = gate.packets(Some(reason))? - before;
        let all = gate.packets(None)? - all_before;
        ensure!(
            judged == all && all >= u64::from(PACKETS),
            "`{}`: {all} packets were judged, {judged} of them as `{reason}`; all of them should be",
            self.name
        );
        Ok(())
    }

    fn once(&mut self, programs: &mut Programs, repeat: u32) -> Result<f64> {
        // What a new source leaves behind must find room in the tables for all rounds.
        let repeat = if matches!(self.work, Work::Knock(..)) {
            repeat.min(40_000)
        } else {
            repeat
        };
        slope(repeat, |count| self.run(programs, count))
    }

    fn run(&mut self, programs: &mut Programs, count: u32) -> Result<u64> {
        match &mut self.work {
            Work::Hot(frame) => run(self.program, frame, count),
            Work::Varied(frame, traffic) => programs.vary(self.program, frame, traffic, count),
            Work::Knock(place, traffic) => {
                let begun = *traffic;
                let mut spent = 0;
                for port in &KNOCKS[..=*place] {
                    *traffic = Traffic {
                        ports: [*port; 4],
                        packet: traffic.packet,
                        ..begun
                    };
                    spent = programs.vary(self.program, &knock_frame(), traffic, count)?;
                }
                Ok(spent)
            }
        }
    }

    fn into_row(self) -> Row {
        let Self {
            name,
            rounds,
            against,
            program: _,
            work: _,
            expected: _,
        } = self;
        Row {
            name,
            rounds,
            against,
        }
    }
}

fn denied_frame() -> Vec<u8> {
    frame::ipv4(Transport::Tcp(SYN), STRANGER, 40000, PROTECTED)
}

fn granted_frame() -> Vec<u8> {
    frame::ipv4(Transport::Tcp(ACK), GRANTED, 40000, PROTECTED)
}

/// The frame from so many sources, one after the other in a scattered order.
fn scattered(frame: Vec<u8>, first: u32, sources: u32) -> Work {
    let traffic = Traffic {
        first,
        sources,
        steps: 1,
        ports: [PROTECTED; 4],
        hold: 31,
        ..Traffic::default()
    };
    Work::Varied(frame, traffic)
}

/// So many knocks of each of ever new sources.
fn new_sources(steps: u32) -> Traffic {
    Traffic {
        first: NEWCOMERS + 0x0800_0000,
        steps,
        ports: knocks(),
        hold: 31,
        ..Traffic::default()
    }
}

/// The whole sequence again and again, by one source with ever new source ports.
fn one_knocker() -> Traffic {
    Traffic {
        sources: 1,
        hold: 0,
        ..new_sources(3)
    }
}
