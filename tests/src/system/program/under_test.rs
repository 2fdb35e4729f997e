//! A loaded program as a system under test.

use std::{net::SocketAddr, ops::Range, time::Duration};

use aya::maps::PerCpuArray;
use ipnet::IpNet;
use knock_common::{
    grant::{FREE, HELD, table},
    knock::progress::{Progress, ProgressSet},
    memory::{GrantMemory as _, SessionMemory as _},
    session::{GRANTED_SHIFT, MORE, state, table as session_table},
    time::TICK_SHIFT,
    verdict::Counter,
};
use knock_user::datapath::{Framing, Scope};

use super::{
    Program, XDP_DROP, XDP_PASS, XDP_TX,
    time::{SLOWED, clock},
};
use crate::{
    nanoseconds,
    system::{Flow, GrantSeen, SystemUnderTest, Tally, Verdict, sockets::Sockets},
};

/// Where the ethertype is, at the end of an Ethernet header.
const ETHERTYPE: Range<usize> = 12..14;

impl SystemUnderTest for Program {
    fn framing(&self) -> Framing {
        self.framing
    }

    /// The program's clock advances in ticks of up to 10 ms, and a busy machine may pause between two readings: up to
    /// half a minute of the kernel's time.
    fn grain(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn now(&self) -> u64 {
        self.shown(clock())
    }

    fn slowed(&self) -> u32 {
        SLOWED
    }

    fn wait(&mut self, time: Duration) {
        // Whole units of a session's grant, and so of a knock's time, so that nothing is rounded.
        let granted_by = nanoseconds(time * SLOWED).div_ceil(1 << GRANTED_SHIFT);
        let by = granted_by << GRANTED_SHIFT;
        let granted_by = u32::try_from(granted_by).expect("tests wait for less than 9 years");
        let grants = self.datapath.grant_table().expect("the tables are there");
        for grant in grants.indices().filter_map(|slot| grants.grant(slot)) {
            if grant.until > HELD {
                // An end before the boot is the same as one at the boot.
                grant.until = grant.until.saturating_sub(by).max(HELD + 1);
            }
        }
        let sessions = self.datapath.session_table().expect("the tables are there");
        for session in sessions.indices().filter_map(|slot| sessions.session(slot)) {
            session.last = session.last.wrapping_sub(by);
            // Twice, since the lowest bit is for something else.
            let left = (session.granted & !MORE).saturating_sub(2 * granted_by);
            session.granted = left | session.granted & MORE;
        }
        let ticks = u32::try_from(by >> TICK_SHIFT).expect("tests wait for less than 52 days");
        let progress = self.datapath.progress.map().expect("the tables are there");
        for index in progress.used() {
            let mut row = progress.places.get(index);
            row.era = Progress::era_of(row.last().wrapping_sub(by));
            for step in &mut row.steps {
                step.time = step.time.wrapping_sub(ticks);
            }
            progress.places.set(index, row);
        }
        self.forget_recent();
        self.ahead += by;
    }

    /// For a program at TCX, a test run makes no packet of a frame that ends before its network header does
    /// (`bpf_prog_test_run_skb` of `net/bpf/test_run.c`); what is at the place of the ethertype decides which that is.
    fn takes(&self, frame: &[u8]) -> bool {
        let behind = match frame.get(ETHERTYPE) {
            Some([0x08, 0x00]) => 20,
            Some([0x86, 0xdd]) => 40,
            _ => 1,
        };
        self.tcx().is_none() || frame.len() >= ETHERTYPE.end + behind
    }

    fn judge(&mut self, frame: &[u8]) -> bool {
        self.set_wall();
        // A reply may be longer than the packet.
        let mut out = vec![0; frame.len() + 64];
        let mut test = || self.test(frame, Some(&mut out));
        // The packet arrives on the loopback interface of the caller's namespace.
        let result = match &self.sockets {
            Some(sockets) => sockets.beside(&mut test),
            None => test(),
        }
        .expect("the kernel takes any frame of at least 14 bytes");
        out.truncate(result.data_size_out as usize);
        match result.return_value {
            XDP_TX if self.rejects() => {
                self.answer = Some(out);
                return false;
            }
            XDP_PASS | XDP_DROP => {}
            other => panic!("the program answered {other}"),
        }
        assert_eq!(out, frame, "the program changed the packet");
        self.answer = None;
        result.return_value == XDP_PASS
    }

    fn allow(&mut self, source: IpNet, gate: u16, length: Duration) -> bool {
        let now = clock();
        let until = now + nanoseconds(length * SLOWED);
        self.datapath
            .allow(source.addr(), source.prefix_len(), gate, until, now)
            .is_ok()
    }

    fn revoke(&mut self, source: IpNet, gate: u16) {
        self.datapath
            .revoke(&[Scope::of(source, Some(gate))])
            .expect("the tables are there");
    }

    fn connect(&mut self, own: SocketAddr, peer: SocketAddr) {
        let sockets = self.sockets.get_or_insert_with(Sockets::none);
        sockets.connect(own, peer);
    }

    fn counted(&self, verdict: Verdict) -> (u64, u64) {
        let map = self.ebpf.map("PACKETS").expect("a table of the program");
        let counters: PerCpuArray<_, Counter> = map.try_into().expect("counters");
        let index = verdict.index().try_into().expect("few counters");
        let counters = counters.get(&index, 0).expect("within the table");
        counters.iter().fold((0, 0), |(packets, bytes), counter| {
            (packets + counter.packets, bytes + counter.bytes)
        })
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::of(self.datapath.config());
        for row in self.datapath.packets().expect("the tables are there") {
            let verdict = Verdict {
                reason: row.reason,
                gate: row.gate,
            };
            tally.packets[verdict.index()] = (row.packets, row.bytes);
        }
        let rows = self.datapath.knocks().expect("the tables are there");
        tally.knocks = rows.into_iter().map(|row| row.count).collect();
        let rows = self.datapath.authenticated().expect("the table is there");
        tally.authenticated = rows.into_iter().map(|(_, count)| count).collect();
        tally
    }

    fn grants(&self) -> Vec<GrantSeen> {
        let rows = self.datapath.grants().expect("the tables are there");
        let mut seen: Vec<GrantSeen> = rows
            .into_iter()
            .map(|row| GrantSeen {
                gate: row.gate,
                source: row.source,
                until: self.shown(row.until),
                connections: row.connections,
                user: row.user,
            })
            .collect();
        seen.sort();
        seen
    }

    fn flows(&self) -> Vec<Flow> {
        let rows = self.datapath.sessions().expect("the tables are there");
        let mut flows: Vec<Flow> = rows
            .into_iter()
            .map(|row| Flow {
                gate: row.gate,
                protocol: row.protocol,
                source: row.source,
                destination: row.destination,
            })
            .collect();
        flows.sort();
        flows
    }

    fn forget(&mut self) {
        if let Some(sockets) = &mut self.sockets {
            sockets.close();
        }
        let grants = self.datapath.grant_table().expect("the tables are there");
        for slot in grants.indices() {
            if grants.grant(slot).is_some_and(|grant| grant.until != FREE) {
                assert!(table::take(grants, slot, u64::MAX), "nobody holds it");
                table::free(grants, slot);
            }
        }
        assert!(
            grants.is_clear(),
            "a grant that has gone was still counted, or still led to its slot"
        );
        let sessions = self.datapath.session_table().expect("the tables are there");
        for slot in sessions.indices() {
            let tenancy = sessions.session(slot).expect("it is one of them").tenancy;
            if tenancy.state() != state::UNUSED {
                assert!(
                    session_table::take(sessions, slot, tenancy),
                    "nobody holds it"
                );
                session_table::free(sessions, slot);
            }
        }
        assert!(
            sessions.is_clear(),
            "a session that has gone was still counted, or still led to its slot"
        );
        self.forget_recent();
        let progress = self.datapath.progress.map().expect("the tables are there");
        for (number, set) in progress.sets.iter().enumerate() {
            if set != ProgressSet::default() {
                progress.sets.set(number, ProgressSet::default());
            }
        }
        self.zero::<Counter>("PACKETS");
        self.zero::<u64>("KNOCKS");
        self.zero::<u64>("AUTHENTICATED");
        self.begun = clock() + self.ahead;
        self.begin_keys();
    }
}
