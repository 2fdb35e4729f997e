//! Packets on several CPUs at once, judged by the loaded program: sources must not get each other's progress, and all CPUs
//! must have the same time. The races are a few instructions long, so each test repeats until there have been many chances for
//! one.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use ipnet::IpNet;
use knock_common::knock::progress::Pair;
use knock_user::{
    config::Config,
    datapath::{Scope, padded_address},
};
use knockgate_tests::{
    stream::{self, Step},
    system::{Program, SystemUnderTest as _, XDP_PASS, clock, tick},
};

/// The smallest table of sources, so that places are reused often.
const CONFIG: &str = r#"
    interfaces = ["eth0"]
    open_ports = []
    limits = { sources = 16384, grants = 65536, sessions = 64 }
    [[gate]]
    name = "ssh"
    protect = ["22/tcp"]
    [[gate.knock]]
    user = "alice"
    sequence = ["7000/udp", "8000/udp", "9000/udp"]
    within = "60s"
"#;
const THREADS: u16 = 3;

fn load() -> Option<Program> {
    let (config, _) = Config::parse(CONFIG, "concurrency").expect("a valid configuration");
    Program::load(&config)
}

/// Returns a knock, whose source [`from`] fills in.
fn knock(port: u16, source_port: u16) -> Vec<u8> {
    frame(&format!(
        "udp 198.51.100.10:{source_port} > 192.0.2.1:{port}"
    ))
}

fn frame(packet: &str) -> Vec<u8> {
    let Some((Step::Packet(datagram), _)) = stream::read(packet).into_iter().next() else {
        panic!("{packet} is no packet");
    };
    datagram.frame()
}

/// Changes the source of a frame. Its checksums are not checked.
fn from(frame: &mut [u8], source: u32) {
    frame[26..30].copy_from_slice(&source.to_be_bytes());
}

/// Runs the program on a frame, on the current CPU.
fn judge(program: &Xdp, frame: &[u8]) {
    assert!(passes(program, frame), "a knock passes");
}

/// As [`judge`]. Returns whether the frame passes.
fn passes(program: &Xdp, frame: &[u8]) -> bool {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).expect("the kernel takes it");
    result.return_value == XDP_PASS
}

fn address(source: u32) -> IpAddr {
    Ipv4Addr::from_bits(source).into()
}

/// All CPUs see the same new sources at the same time.
#[test]
fn no_source_is_there_twice() {
    const ROUNDS: u32 = 20;
    const SOURCES: u32 = 500;
    let Some(program) = load() else {
        return;
    };
    let together = Barrier::new(THREADS.into());
    let source = |round: u32, number: u32| 0x0a00_0000 + round * SOURCES + number;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (program, together) = (program.xdp(), &together);
            scope.spawn(move || {
                let mut frame = knock(7000, 4000 + thread);
                for round in 0..ROUNDS {
                    together.wait();
                    for number in 0..SOURCES {
                        from(&mut frame, source(round, number));
                        judge(program, &frame);
                    }
                }
            });
        }
    });
    let table = program
        .datapath()
        .progress
        .map()
        .expect("the tables are there");
    for (number, set) in table.sets.iter().enumerate() {
        let pairs: Vec<u64> = set.pairs.into_iter().filter(|pair| *pair != 0).collect();
        let fingerprints: BTreeSet<u32> =
            pairs.iter().map(|pair| Pair(*pair).fingerprint()).collect();
        assert_eq!(
            pairs.len(),
            fingerprints.len(),
            "set {number} has a source twice: {pairs:x?}"
        );
    }
    let mut known: HashMap<IpAddr, u32> = HashMap::new();
    for row in table.rows() {
        let source = padded_address(row.address, row.family() == 4);
        *known.entry(source).or_default() += 1;
    }
    // Of two knocks at the same time, one may be lost, but the other counts. One source in a thousand shares its set
    // with eight others.
    let all = (ROUNDS * SOURCES) as usize;
    assert!(known.len() * 100 >= all * 99, "{} of {all}", known.len());
    for round in 0..ROUNDS {
        for number in 0..SOURCES {
            let count = known.get(&address(source(round, number)));
            assert!(count.is_none_or(|count| *count == 1));
        }
    }
}

/// During a flood that takes over places, some sources knock correctly and others leave out a step.
#[test]
fn nobody_is_taken_for_as_far_as_another() {
    const KNOCKERS: u32 = 15_000;
    let Some(program) = load() else {
        return;
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (shared, over) = (program.xdp(), &over);
        scope.spawn(move || {
            let mut frame = knock(7000, 4000);
            for source in 0x3000_0000.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                from(&mut frame, source);
                judge(shared, &frame);
            }
        });
        let knockers: Vec<_> = [[7000, 8000, 9000], [7000, 9000, 9000], [8000, 8000, 9000]]
            .into_iter()
            .zip(0_u32..)
            .map(|(ports, kind)| {
                scope.spawn(move || {
                    let mut frames = ports.map(|port| knock(port, 5000));
                    for number in 0..KNOCKERS {
                        for frame in &mut frames {
                            from(frame, 0x0a00_0000 + (number << 2) + kind);
                            judge(shared, frame);
                        }
                    }
                })
            })
            .collect();
        for knocker in knockers {
            knocker.join().expect("it only sends");
        }
        over.store(true, Ordering::Relaxed);
    });
    let granted: Vec<IpAddr> = program
        .grants()
        .into_iter()
        .map(|grant| grant.source.addr())
        .collect();
    let right: BTreeSet<IpAddr> = (0..KNOCKERS)
        .map(|number| address(0x0a00_0000 + (number << 2)))
        .collect();
    for source in &granted {
        assert!(right.contains(source), "{source} did not knock and is in");
    }
    assert!(
        granted.len() * 100 >= right.len() * 98,
        "{} of {} who knocked are in",
        granted.len(),
        right.len()
    );
}

/// Each CPU learns the time from the first packet of a timer tick, of whichever CPU that is.
#[test]
fn every_cpu_has_the_time_of_the_kernel() {
    const ROUNDS: usize = 200;
    /// Timer ticks that the program may be late by.
    const LATE: u64 = 2;
    let Some(program) = load() else {
        return;
    };
    // Between which times a source made its last knock, and the end of the grant that this has renewed.
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let knocked = thread::scope(|scope| {
            let knockers = (0..THREADS).map(|thread| {
                let program = program.xdp();
                scope.spawn(move || {
                    let source = 0x0a00_0000 + u32::from(thread);
                    let before = clock();
                    for port in [7000, 8000, 9000] {
                        let mut frame = knock(port, 4000);
                        from(&mut frame, source);
                        judge(program, &frame);
                    }
                    (address(source), before, clock())
                })
            });
            let knockers: Vec<_> = knockers.collect();
            let knocked = knockers.into_iter().map(thread::ScopedJoinHandle::join);
            knocked.collect::<Result<Vec<_>, _>>()
        });
        let rows = program.datapath().grants().expect("the tables are there");
        for (source, before, after) in knocked.expect("they only send") {
            let row = rows.iter().find(|row| row.source.addr() == source);
            seen.push((before, after, row.expect("it has a grant").until));
        }
        thread::sleep(Duration::from_millis(1));
    }
    // How long a grant lasts is the same for all, and is not known here.
    let most = seen.iter().map(|(before, _, until)| until - before).min();
    let least = seen.iter().map(|(_, after, until)| until - after).max();
    let (Some(least), Some(most)) = (least, most) else {
        panic!("nobody has knocked");
    };
    assert!(
        least <= most + LATE * tick(),
        "grants last from {least} to {most} ns"
    );
}

/// Packets of a flow arrive on all CPUs without a pause. Each CPU remembers for a timer tick that they pass.
#[test]
fn when_a_revocation_is_done_no_packet_passes() {
    const ROUNDS: u32 = 20;
    /// Packets of each CPU behind the revocation.
    const BEHIND: usize = 500;
    let Some(mut program) = load() else {
        return;
    };
    for (from, host) in [
        ("198.51.100.10", "192.0.2.1"),
        ("[2001:db8::10]", "[2001:db8::1]"),
    ] {
        let packet = |flags| frame(&format!("tcp {from}:4000 > {host}:22 flags={flags}"));
        let (syn, data) = (packet("S"), packet("A"));
        let address: IpAddr = from.trim_matches(['[', ']']).parse().expect("an address");
        let source = IpNet::from(address);
        for _ in 0..ROUNDS {
            assert!(program.allow(source, 0, Duration::from_mins(10)));
            let (xdp, datapath) = program.apart();
            assert!(passes(xdp, &syn));
            let is_revoked = AtomicBool::new(false);
            let passed = thread::scope(|scope| {
                let senders = (0..THREADS).map(|_| {
                    scope.spawn(|| {
                        while !is_revoked.load(Ordering::SeqCst) {
                            passes(xdp, &data);
                        }
                        let behind = (0..BEHIND).filter(|_| passes(xdp, &data));
                        behind.count()
                    })
                });
                let senders: Vec<_> = senders.collect();
                thread::sleep(Duration::from_millis(20));
                let ended = datapath.revoke(&[Scope::of(source, None)]);
                is_revoked.store(true, Ordering::SeqCst);
                assert_eq!(ended.expect("the tables are there").sessions, 1);
                let passed = senders.into_iter().map(thread::ScopedJoinHandle::join);
                passed.collect::<Result<Vec<_>, _>>()
            });
            let passed = passed.expect("they only send");
            assert!(passed.iter().all(|passed| *passed == 0), "{passed:?}");
        }
    }
}
