//! The verdicts that are measured, with which frames, and compared with what.

use anyhow::{Result, ensure};
use netlab::packet::{ACK, SYN};

use super::{Case, UNIT, Work, measure};
use crate::{
    Plan,
    figures::{Part, Row, over, times, times_what},
    frame::{self, Transport},
    instance::{FOREIGN, Instance, KNOCKS, OPEN, PROTECTED, Setup, counted, knock_frame, knocks},
    instances::{Instances, ROOM},
    judge::GRANTED,
    minimal::{Minimal, Room},
    programs::{Floor, Programs, Traffic},
};

const DROP: &str = "bare XDP_DROP";
const PASS: &str = "bare XDP_PASS";
const PARSE: &str = "parse only";
const VARIED: &str = "bare XDP_DROP, varied";

const SINGLE: &str = "bare XDP_DROP, a call each";
const REJECTED: &str = "rejected SYN, a call each";

const MINIMAL: &str = "minimal gate, denied, 100,000 grants, hot";
const MINIMAL_VARIED: &str = "minimal gate, denied, 100,000 grants, 65,536 sources";
const MINIMAL_GRANTED: &str = "minimal gate, granted, 100,000 grants, hot";
const MINIMAL_GRANTED_EACH: &str = "minimal gate, granted, 100,000 grants, each source";

/// A source without grant.
pub const STRANGER: u32 = 0xac10_0001;
/// A source on the allow list of [`Instances::allowing`].
const FRIEND: u32 = 0xc612_0007;
/// The first address of sources that have not knocked yet.
pub const NEWCOMERS: u32 = 0x1400_0000;
/// Number of forged sources.
pub const FORGED: u32 = 65_536;

/// Measures all verdicts.
pub fn verdicts(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    let floors = [Floor::Drop, Floor::Pass, Floor::Parse];
    let [drop, pass, parse] = floors.map(|floor| programs.floor(floor));
    let (drop, pass, parse) = (drop?, pass?, parse?);
    // Tables as large as those of the instances they are compared with; a second gate for knocks, as there.
    let room = |admitted| Room {
        ended: false,
        candidates: Setup::default().sources,
        admitted,
    };
    let minimal = Minimal::load(programs, room(100_000), 100_000)?;
    let minimal_knocked = Minimal::load(programs, room(ROOM), 0)?;
    let open = || frame::ipv4(Transport::Udp, STRANGER, 40000, OPEN);
    let bare = |name: &str, program, work| Case::new(name, program, work, Vec::new());
    let mut absent = Vec::new();
    let mut cases = vec![
        bare(DROP, &drop, Work::Hot(open())),
        bare(PASS, &pass, Work::Hot(open())),
        bare(PARSE, &parse, Work::Hot(open())),
        bare(VARIED, &drop, scattered(denied_frame(), STRANGER, FORGED)),
    ];
    cases.extend(beside(&minimal, &minimal_knocked));
    cases.extend(unguarded(&instances.one));
    cases.extend(closed(instances));
    match &instances.rejecting {
        Ok(instance) => {
            cases.push(bare(SINGLE, &drop, Work::Single(denied_frame())));
            let work = Work::Single(denied_frame());
            cases.push(Case::judged(
                REJECTED,
                instance,
                "no_grant",
                work,
                vec![over(SINGLE)],
            ));
        }
        Err(why) => absent.push(Row::absent(REJECTED, why)),
    }
    cases.extend(granted(instances));
    cases.extend(knocking(instances));
    let mut rows = measure(programs, cases, plan)?;
    rows.append(&mut absent);
    // In a full table, a search for a place fails, which is not what the row measures.
    for instance in [&instances.knocked, &instances.ended] {
        let refused = instance.knocks("table_full")?;
        ensure!(
            refused == 0,
            "{refused} grants were refused for want of room"
        );
    }
    let amiss = minimal_knocked.amiss()?;
    ensure!(
        amiss == 0,
        "{amiss} knocks at the minimal gate were in vain"
    );
    Ok(Part {
        id: "packet",
        title: "Per packet, BPF_PROG_TEST_RUN",
        unit: UNIT,
        notes: vec![
            "hot: the same frame repeatedly, so that all its data is in the cache",
            "minimal gate: a gate for one sequence that reads no tags, options or IPv6, and looks each source up once",
            "a call each: each frame is a system call of its own, as an answer is written over its frame",
            "varied: the next source's frame is written, then judged by tail call; its floor does the same",
        ],
        rows,
    })
}

/// Returns rows of the minimal gate, with which knockgate's rows are compared.
fn beside<'c>(minimal: &'c Minimal, knocked: &'c Minimal) -> Vec<Case<'c>> {
    let rows = [
        (MINIMAL, "no_grant", Work::Hot(denied_frame()), DROP),
        (
            MINIMAL_VARIED,
            "no_grant",
            scattered(denied_frame(), STRANGER, FORGED),
            VARIED,
        ),
        (MINIMAL_GRANTED, "grant", Work::Hot(granted_frame()), PASS),
        (
            MINIMAL_GRANTED_EACH,
            "grant",
            scattered(granted_frame(), GRANTED, 100_000),
            VARIED,
        ),
    ];
    let mut cases: Vec<_> = rows
        .map(|(name, reason, work, floor)| {
            Case::judged(name, minimal, reason, work, vec![over(floor)])
        })
        .into();
    for (name, work) in newcomers() {
        cases.push(Case::judged(
            format!("minimal gate, {name}"),
            knocked,
            "knock",
            work,
            vec![over(VARIED)],
        ));
    }
    cases
}

fn unguarded(instance: &Instance) -> Vec<Case<'_>> {
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
            frame::tagged(udp, STRANGER, 40000, OPEN),
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
        Case::judged(name, instance, "unguarded", Work::Hot(frame), against)
    })
    .into()
}

fn closed(instances: &Instances) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for (grants, instance) in instances.by_grants() {
        cases.push(Case::judged(
            format!("denied SYN, {}, hot", counted(grants)),
            instance,
            "no_grant",
            Work::Hot(denied_frame()),
            vec![over(DROP), times_what(MINIMAL, DROP)],
        ));
        let mut against = vec![over(VARIED), times_what(MINIMAL_VARIED, VARIED)];
        if grants == 1_000_000 {
            against.push(times("denied SYN, 1,000 grants, 65,536 sources").at_most(1.8));
        }
        cases.push(Case::judged(
            format!("denied SYN, {}, 65,536 sources", counted(grants)),
            instance,
            "no_grant",
            scattered(denied_frame(), STRANGER, FORGED),
            against,
        ));
    }
    // The set of the flow holds pairs of other flows, which the look-up passes over.
    cases.push(Case::judged(
        "denied TCP data, full tables, 65,536 sources",
        &instances.full,
        "no_grant",
        scattered(data_frame(STRANGER), STRANGER, FORGED),
        vec![over(VARIED)],
    ));
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
            &instances.allowing,
            reason,
            work,
            vec![over(DROP)],
        ));
    }
    cases
}

fn granted(instances: &Instances) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    let datagram = || frame::ipv4(Transport::Udp, GRANTED, 40000, PROTECTED);
    for (name, instance, frame) in [
        ("granted UDP, in a session", &instances.flows, datagram()),
        (
            "granted TCP data, a gate without sessions",
            &instances.cutting,
            granted_frame(),
        ),
    ] {
        cases.push(Case::judged(
            format!("{name}, 100,000 grants, hot"),
            instance,
            "grant",
            Work::Hot(frame.clone()),
            vec![over(PASS), times_what(MINIMAL_GRANTED, PASS)],
        ));
        cases.push(Case::judged(
            format!("{name}, 100,000 grants, each source"),
            instance,
            "grant",
            scattered(frame, GRANTED, 100_000),
            vec![over(VARIED), times_what(MINIMAL_GRANTED_EACH, VARIED)],
        ));
    }
    for (grants, instance) in instances.by_grants() {
        cases.push(Case::judged(
            format!("granted TCP data, no session, {}, hot", counted(grants)),
            instance,
            "grant",
            Work::Hot(granted_frame()),
            vec![over(PASS), times_what(MINIMAL_GRANTED, PASS)],
        ));
        cases.push(Case::judged(
            format!(
                "granted TCP data, no session, {}, each source",
                counted(grants)
            ),
            instance,
            "grant",
            scattered(granted_frame(), GRANTED, grants),
            vec![over(VARIED)],
        ));
    }
    let most = Setup::default().grants;
    cases.push(Case::judged(
        "granted TCP data, no session, full tables, each source",
        &instances.full,
        "grant",
        scattered(granted_frame(), GRANTED, most),
        vec![over(VARIED)],
    ));
    cases.push(Case::judged(
        "granted UDP, in a session, full tables, each source",
        &instances.full,
        "grant",
        scattered(datagram(), GRANTED, most),
        vec![over(VARIED)],
    ));
    cases.push(Case::judged(
        "kept session, grant ended",
        &instances.kept,
        "session",
        Work::Hot(datagram()),
        vec![over(PASS)],
    ));
    cases
}

fn knocking(instances: &Instances) -> Vec<Case<'_>> {
    let instance = &instances.knocked;
    // A repeated source port makes a packet a duplicate, a new one makes it a new knock.
    let known = Traffic {
        sources: 32_768,
        hold: 15,
        ..new_sources(1)
    };
    let mut cases = vec![
        Case::judged(
            "a knock's duplicate, hot",
            instance,
            "knock",
            Work::Hot(frame::ipv4(Transport::Udp, 0x0909_0909, 40000, KNOCKS[0])),
            vec![over(PASS)],
        ),
        Case::judged(
            "first knock again, 32,768 known sources",
            instance,
            "knock",
            Work::Varied(knock_frame(), known),
            vec![over(VARIED)],
        ),
    ];
    for (name, work) in newcomers() {
        let minimal = times_what(format!("minimal gate, {name}"), VARIED);
        let against = vec![over(VARIED), minimal];
        cases.push(Case::judged(name, instance, "knock", work, against));
    }
    let [.., (last, work)] = newcomers();
    cases.push(Case::judged(
        "the same, for the place of a grant that has ended",
        &instances.ended,
        "knock",
        work,
        vec![over(VARIED), over(last)],
    ));
    cases.push(Case::judged(
        "each of three knocks, one source, renewals",
        instance,
        "knock",
        Work::Varied(knock_frame(), one_knocker()),
        vec![over(VARIED)],
    ));
    cases
}

pub fn denied_frame() -> Vec<u8> {
    frame::ipv4(Transport::Tcp(SYN), STRANGER, 40000, PROTECTED)
}

pub fn granted_frame() -> Vec<u8> {
    data_frame(GRANTED)
}

fn data_frame(source: u32) -> Vec<u8> {
    frame::ipv4(Transport::Tcp(ACK), source, 40000, PROTECTED)
}

/// Returns a frame from this many sources, in a scattered order.
pub(super) fn scattered<'w>(frame: Vec<u8>, first: u32, sources: u32) -> Work<'w> {
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

/// Returns each knock of a sequence, from constantly new sources.
fn newcomers<'w>() -> [(&'static str, Work<'w>); 3] {
    let names = [
        (0_u8, "first knock of ever new sources"),
        (1, "second knock of ever new sources"),
        (2, "last, grant given, knock of ever new sources"),
    ];
    names.map(|(place, name)| {
        let traffic = Traffic {
            first: NEWCOMERS + 0x0200_0000 * u32::from(place),
            ..new_sources(1)
        };
        (name, Work::Knock(usize::from(place), traffic))
    })
}

/// Returns traffic with this many knocks from each of constantly new sources.
pub(super) fn new_sources(steps: u32) -> Traffic {
    Traffic {
        first: NEWCOMERS + 0x0800_0000,
        steps,
        ports: knocks(),
        hold: 31,
        ..Traffic::default()
    }
}

/// Returns the whole sequence repeatedly, from one source with changing source ports.
pub(super) fn one_knocker() -> Traffic {
    Traffic {
        sources: 1,
        hold: 0,
        ..new_sources(3)
    }
}
