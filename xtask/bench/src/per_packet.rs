//! Measures the cost of a packet by `BPF_PROG_TEST_RUN`: the programs alone, without a network.

mod authenticated;
mod known;
mod pairs;
mod rows;

use anyhow::{Result, ensure};
use aya::programs::Xdp;

pub use self::{
    authenticated::authenticated,
    known::known,
    pairs::{knock_ports, neighbours, sequences},
    rows::{FORGED, NEWCOMERS, STRANGER, denied_frame, granted_frame, verdicts},
};
use crate::{
    Plan,
    figures::{Against, Row, Slice},
    instance::{KNOCKS, knock_frame},
    judge::Judge,
    keys::Message,
    programs::{MOST_MESSAGES, Programs, Traffic, run},
};

/// One row to be measured.
struct Case<'c> {
    name: String,
    program: &'c Xdp,
    work: Work<'c>,
    /// The program whose counters must show every packet under this reason.
    expected: Option<(&'c dyn Judge, &'static str)>,
    against: Vec<Against>,
    slices: Vec<Slice>,
}

/// The input of a program.
enum Work<'w> {
    /// The same frame repeatedly.
    Hot(Vec<u8>),
    /// The same frame, by one system call each: for a program that turns the frame into a reply.
    Single(Vec<u8>),
    /// A frame, and how each one differs from the one before.
    Varied(Vec<u8>, Traffic),
    /// One knock from each of constantly new sources, which have made this many knocks before, in a run that is not
    /// measured.
    Knock(usize, Traffic),
    /// A datagram, how each one differs from the one before, and the messages for a run of this many, which take turns.
    Messages {
        frame: Vec<u8>,
        traffic: Traffic,
        make: Box<dyn Fn(u32) -> Result<Vec<Message>> + 'w>,
    },
}

/// What the units of rows say that are measured in slices.
const UNIT: &str = "ns of CPU (95 % interval)";

/// Returns a plan for differences of a few nanoseconds, which show only in many slices.
fn finer(plan: &Plan) -> Plan {
    Plan {
        slices: 3 * plan.slices,
        ..*plan
    }
}

/// Measures one slice of every case in each round, in an order that changes from round to round.
fn measure(programs: &mut Programs, mut cases: Vec<Case<'_>>, plan: &Plan) -> Result<Vec<Row>> {
    for case in &mut cases {
        case.check(programs)?;
    }
    for round in 0..plan.slices {
        let count = cases.len();
        for turn in 0..count {
            // Each round begins with another case, and the direction alternates.
            let turn = if round % 2 == 0 {
                turn
            } else {
                count - 1 - turn
            };
            let case = &mut cases[(turn + 7 * round) % count];
            let slice = case.once(programs, plan.slice)?;
            case.slices.push(slice);
        }
    }
    Ok(cases.into_iter().map(Case::into_row).collect())
}

impl<'c> Case<'c> {
    fn new(
        name: impl Into<String>,
        program: &'c Xdp,
        work: Work<'c>,
        against: Vec<Against>,
    ) -> Self {
        Self {
            name: name.into(),
            program,
            work,
            expected: None,
            against,
            slices: Vec::new(),
        }
    }

    fn judged(
        name: impl Into<String>,
        judge: &'c dyn Judge,
        reason: &'static str,
        work: Work<'c>,
        against: Vec<Against>,
    ) -> Self {
        Self {
            expected: Some((judge, reason)),
            ..Self::new(name, judge.program(), work, against)
        }
    }

    /// Checks that every packet has the row's verdict. Also warms up.
    fn check(&mut self, programs: &mut Programs) -> Result<()> {
        const PACKETS: u32 = 4096;
        /// Packets of the kernel's own neighbour discovery, which may arrive meanwhile; and random bytes that look like the
        /// head of a knock, of which there is one in 4,096.
        const STRAYS: u64 = 16;
        let Some((judge, reason)) = self.expected else {
            return Ok(());
        };
        let before = judge.packets(Some(reason))?;
        let all_before = judge.packets(None)?;
        self.run(programs, PACKETS)?;
        let judged = judge.packets(Some(reason))? - before;
        let all = judge.packets(None)? - all_before;
        ensure!(
            judged + STRAYS >= u64::from(PACKETS) && all - judged <= STRAYS,
            "`{}`: {all} packets were judged, {judged} of them as `{reason}`; all of them should be",
            self.name
        );
        Ok(())
    }

    fn once(&mut self, programs: &mut Programs, repeat: u32) -> Result<Slice> {
        let repeat = match self.work {
            // The tables must have room for the new sources of all rounds. Of those that knock, each makes several packets.
            Work::Knock(..) | Work::Messages { .. } => (repeat / 4).min(MOST_MESSAGES),
            // A system call takes as long as several packets.
            Work::Single(_) => repeat / 4,
            Work::Hot(_) | Work::Varied(..) => repeat,
        };
        Slice::of(repeat, |count| self.run(programs, count))
    }

    fn run(&mut self, programs: &mut Programs, count: u32) -> Result<u64> {
        match &mut self.work {
            Work::Hot(frame) => run(self.program, frame, count),
            Work::Single(frame) => (0..count).map(|_| run(self.program, frame, 1)).sum(),
            Work::Varied(frame, traffic) => programs.vary(self.program, frame, traffic, count),
            Work::Messages {
                frame,
                traffic,
                make,
            } => {
                let messages = make(count)?;
                traffic.packet = 0;
                traffic.messages = u32::try_from(messages.len())?;
                programs.set_messages(messages)?;
                programs.vary(self.program, frame, traffic, count)
            }
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
            slices,
            against,
            program: _,
            work: _,
            expected,
        } = self;
        let is_ours = expected.is_some_and(|(judge, _)| judge.is_ours());
        Row::sliced(name, slices, against).of_knockgate(is_ours)
    }
}
