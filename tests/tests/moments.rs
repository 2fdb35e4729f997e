//! The exact moments at which windows, grants and flows end. Only on the host can a test set the clock exactly, so this
//! suite alone tests these moments; fixtures and oracle avoid them.

use std::time::Duration;

use knock_user::config::Config;
use knockgate_tests::{
    stream::{self, Step},
    system::{Hosted, SystemUnderTest as _},
};

const CONFIG: &str = r#"
    interfaces = ["eth0"]
    open_ports = []
    [[gate]]
    name = "ssh"
    protect = ["22/tcp", "22/udp"]
    open_for = "10s"
    session_idle = "30s"
    [[gate.knock]]
    user = "alice"
    sequence = ["7000/udp", "8000/udp"]
    within = "5s"
"#;

const FIRST: &str = "udp 198.51.100.10:4000 > 192.0.2.1:7000";
const SECOND: &str = "udp 198.51.100.10:4001 > 192.0.2.1:8000";
const DATAGRAM: &str = "udp 198.51.100.10:5000 > 192.0.2.1:22";
const NANOSECOND: Duration = Duration::from_nanos(1);
/// The unit of times of knocks: 2^20 ns. A window is rounded up to whole units.
const UNIT: Duration = Duration::from_nanos(1 << 20);

/// A system whose clock begins at a given offset in a unit.
struct Moment {
    hosted: Hosted,
}

impl Moment {
    fn new(into: u32) -> Self {
        let (config, _) = Config::parse(CONFIG, "moments").expect("a valid configuration");
        let mut hosted = Hosted::new(&config);
        let unit = u64::try_from(UNIT.as_nanos()).expect("a short time");
        let past = hosted.now() % unit;
        hosted.wait(Duration::from_nanos(unit - past) + NANOSECOND * into);
        Self { hosted }
    }

    fn wait(&mut self, time: Duration) -> &mut Self {
        self.hosted.wait(time);
        self
    }

    fn send(&mut self, packet: &str) -> String {
        let before = self.hosted.tally();
        for (step, _) in stream::read(packet) {
            let Step::Packet(datagram) = step else {
                panic!("{packet} is no packet");
            };
            self.hosted.judge(&datagram.frame());
        }
        self.hosted.tally().since(&before)
    }
}

/// Wherever in a unit the first knock arrives, a client that takes `within` is in time, and one that takes two units
/// longer is late.
#[test]
fn a_window_ends_with_the_unit_that_it_reaches_into() {
    let within = Duration::from_secs(5);
    for into in [0, 1, 1 << 19, (1 << 20) - 1] {
        let knock = |taken: Duration| {
            let mut moment = Moment::new(into);
            assert_eq!(moment.send(FIRST), "knock step@ssh");
            moment.wait(taken).send(SECOND)
        };
        assert_eq!(knock(within), "knock opened@ssh", "{into} ns into a unit");
        let late = knock(within + 2 * UNIT);
        assert_eq!(late, "knock late@ssh", "{into} ns into a unit");
    }
    // From the beginning of a unit, the window is the configured one, rounded up to whole units.
    let units = u32::try_from(within.as_nanos().div_ceil(UNIT.as_nanos())).expect("few");
    let knock = |units: u32| {
        let mut moment = Moment::new(0);
        moment.send(FIRST);
        moment.wait(UNIT * units).send(SECOND)
    };
    assert_eq!(knock(units), "knock opened@ssh");
    assert_eq!(knock(units + 1), "knock late@ssh");
}

#[test]
fn a_grant_ends_at_its_end() {
    let end = Duration::from_secs(10);
    let tried = |after: Duration| {
        let mut moment = Moment::new(0);
        moment.send(FIRST);
        assert_eq!(moment.send(SECOND), "knock opened@ssh");
        moment.wait(after).send(DATAGRAM)
    };
    assert_eq!(tried(end.saturating_sub(NANOSECOND)), "grant@ssh");
    assert_eq!(tried(end), "no_grant@ssh");
}

#[test]
fn a_flow_ends_once_it_has_been_idle_for_that_long() {
    let idle = Duration::from_secs(30);
    let tried = |after: Duration| {
        let mut moment = Moment::new(0);
        moment.send(FIRST);
        moment.send(SECOND);
        assert_eq!(moment.send(DATAGRAM), "grant@ssh");
        moment.wait(after).send(DATAGRAM)
    };
    assert_eq!(tried(idle.saturating_sub(NANOSECOND)), "session@ssh");
    assert_eq!(tried(idle), "no_grant@ssh");
}
