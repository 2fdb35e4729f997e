//! Measures what a packet costs on one CPU while the others judge packets, too: what several CPUs write makes them wait for
//! each other.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use aya::programs::Xdp;
use netlab::host::{cpus, keep_to};

use crate::{
    Plan,
    clock::{ThreadClock, number},
    figures::{Part, Row, Slice, times},
    frame::{self, Transport},
    instance::{KNOCKS, OPEN, knock_frame},
    instances::Instances,
    judge::Judge as _,
    per_packet::{FORGED, NEWCOMERS, STRANGER, denied_frame, granted_frame},
    programs::{Floor, Programs, Traffic, run},
};

/// One row: a program and its packets.
struct Case<'c> {
    name: &'static str,
    program: &'c Xdp,
    frame: Vec<u8>,
    /// By the number of the CPU.
    traffic: Box<dyn Fn(u32) -> Traffic + Send + Sync>,
    /// How many packets have been made of it, so that new sources stay new.
    made: u32,
}

/// How many times as much a packet may cost: two CPUs then judge 1.9 times as many as one.
const MOST: f64 = 1.05;
/// The share of its time that a CPU must have been busy with packets while another was measured.
const BUSY: f64 = 0.9;
/// How often a slice is tried in which the other CPUs were busy with something else.
const TRIES: usize = 20;

/// Measures every row on one CPU, and on one while all others do the same.
pub fn measure(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    let drop = programs.floor(Floor::Drop)?;
    let mut cases = cases(&drop, instances);
    let mut alone: Vec<Vec<Slice>> = cases.iter().map(|_| Vec::new()).collect();
    let mut together = alone.clone();
    let allowed = cpus()?;
    let (&first, others) = allowed
        .split_first()
        .ok_or_else(|| anyhow!("this process may use no CPU"))?;
    // On a thread of its own, since CPU time is measured by thread and CPU.
    let measured: Result<()> = thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            keep_to(&[first])?;
            for _ in 0..plan.slices {
                for (place, case) in cases.iter_mut().enumerate() {
                    alone[place].push(case.slice(programs, plan.slice)?);
                    if !others.is_empty() {
                        together[place].push(case.among(programs, others, plan.slice)?);
                    }
                }
            }
            Ok(())
        });
        measuring
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let mut rows = Vec::new();
    for (case, (alone, together)) in cases.iter().zip(alone.into_iter().zip(together)) {
        let one = format!("{}, one CPU", case.name);
        let all = format!("{}, all {} CPUs", case.name, allowed.len());
        rows.push(match &measured {
            Ok(()) if others.is_empty() => Row::absent(&all, "this machine has one CPU"),
            Ok(()) => Row::sliced(&all, together, vec![times(&one).at_most(MOST)]),
            Err(why) => Row::absent(&all, format!("{why:#}")),
        });
        rows.insert(rows.len() - 1, Row::sliced(one, alone, Vec::new()));
    }
    Ok(Part {
        id: "cores",
        title: "On one CPU, and on all at once, BPF_PROG_TEST_RUN",
        unit: "ns of one CPU's time (95 % interval)",
        notes: vec![
            "all: while the others judge the same kind of packets without a pause; each has sources of its own",
            "at most 1.05 times the cost is 1.9 times as many packets on two CPUs; bare XDP_DROP shows what the machine allows",
        ],
        rows,
    })
}

fn cases<'c>(drop: &'c Xdp, instances: &'c Instances) -> Vec<Case<'c>> {
    let crowd = |port| {
        move |cpu: u32| Traffic {
            first: STRANGER + cpu * 2 * FORGED,
            sources: FORGED,
            steps: 1,
            ports: [port; 4],
            hold: 31,
            ..Traffic::default()
        }
    };
    let case = |name, program, frame, traffic| Case {
        name,
        program,
        frame,
        traffic,
        made: 0,
    };
    let protected = crate::instance::PROTECTED;
    vec![
        case(
            "bare XDP_DROP, varied",
            drop,
            denied_frame(),
            Box::new(crowd(protected)),
        ),
        case(
            "open port",
            instances.one.program(),
            frame::ipv4(Transport::Udp, STRANGER, 40000, OPEN),
            Box::new(crowd(OPEN)),
        ),
        case(
            "denied SYN, 65,536 sources",
            instances.thousand.program(),
            denied_frame(),
            Box::new(crowd(protected)),
        ),
        case(
            "granted TCP data, one source",
            instances.thousand.program(),
            granted_frame(),
            Box::new(move |cpu| Traffic {
                first: crate::judge::GRANTED + cpu,
                sources: 1,
                ..crowd(protected)(cpu)
            }),
        ),
        case(
            "first knock of ever new sources",
            instances.one.program(),
            knock_frame(),
            Box::new(|cpu| Traffic {
                first: NEWCOMERS + 0x0c00_0000 + cpu * 0x0200_0000,
                steps: 1,
                ports: [KNOCKS[0]; 4],
                hold: 31,
                ..Traffic::default()
            }),
        ),
    ]
}

impl Case<'_> {
    /// Prepares `packets` on each CPU.
    fn prepare(&mut self, programs: &mut Programs, packets: u32) -> Result<()> {
        programs.judge_by(self.program)?;
        programs.set_traffic(|cpu| Traffic {
            turn: self.made,
            ..(self.traffic)(cpu)
        })?;
        self.made = self.made.wrapping_add(packets);
        Ok(())
    }

    fn slice(&mut self, programs: &mut Programs, packets: u32) -> Result<Slice> {
        self.prepare(programs, 3 * packets)?;
        self.measure(&programs.varying()?, packets)
    }

    /// Measures a slice, after a run that brings what the packets need into the caches: alone and among others alike.
    fn measure(&self, vary: &Xdp, packets: u32) -> Result<Slice> {
        run(vary, &self.frame, packets)?;
        Slice::of(packets, |count| run(vary, &self.frame, count))
    }

    /// Measures a slice while other CPUs judge packets all the time.
    fn among(&mut self, programs: &mut Programs, others: &[usize], packets: u32) -> Result<Slice> {
        // Longer than three runs of a slice, and the pause of the kernel before each.
        let mut length = 40 * packets;
        for _ in 0..TRIES {
            self.prepare(programs, length)?;
            let (slice, outlasted, busy) = self.try_among(programs, others, packets, length)?;
            if !outlasted {
                length = length.saturating_mul(2).min(1 << 28);
            } else if busy >= BUSY {
                return Ok(slice);
            }
        }
        bail!("other work kept the other CPUs busy");
    }

    /// Returns a slice, whether the others were still at it when it ended, and the least share of its time that one of them was
    /// busy with packets.
    fn try_among(
        &self,
        programs: &Programs,
        others: &[usize],
        packets: u32,
        length: u32,
    ) -> Result<(Slice, bool, f64)> {
        let vary = programs.varying()?;
        let ended = AtomicBool::new(false);
        let clocks: Vec<OnceLock<ThreadClock>> = others.iter().map(|_| OnceLock::new()).collect();
        thread::scope(|scope| {
            let mut running = Vec::new();
            for (&cpu, clock) in others.iter().zip(&clocks) {
                let ended = &ended;
                let vary = programs.varying()?;
                running.push(scope.spawn(move || -> Result<()> {
                    let begun = keep_to(&[cpu])
                        .map_err(Into::into)
                        .and_then(|()| ThreadClock::of_this_thread());
                    let result = begun.and_then(|own| {
                        clock.get_or_init(|| own);
                        run(&vary, &self.frame, length)
                    });
                    ended.store(true, Relaxed);
                    result.map(drop)
                }));
            }
            // The kernel waits before a run of more than one packet.
            thread::sleep(Duration::from_millis(60));
            let spent = || -> Vec<u64> {
                let alive = clocks.iter().filter_map(OnceLock::get);
                alive.map(|clock| clock.spent()).collect()
            };
            let (before, begun) = (spent(), Instant::now());
            let slice = self.measure(&vary, packets);
            let lasted = begun.elapsed();
            let outlasted = !ended.load(Relaxed);
            let busy = before.iter().zip(spent()).map(|(before, after)| {
                number(after.saturating_sub(*before)) / (1e9 * lasted.as_secs_f64())
            });
            let busy = busy.fold(f64::INFINITY, f64::min);
            for thread in running {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            let all_began = before.len() == others.len();
            Ok((slice?, outlasted && all_began, busy))
        })
    }
}
