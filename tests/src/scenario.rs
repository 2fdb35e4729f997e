//! The methods with which the rows of the suites are written: one behaviour, in one attach mode, over one family.

use std::{
    fmt::Display,
    iter,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use ipnet::IpNet;
use serde_json::Value;

use crate::{
    attempt::{self, Outcome},
    lab::{Family, Lab, Source, WAN},
    need,
    run::{Run, Running, run, wait_until},
    service::Services,
};

/// How long a test waits before it takes silence for no answer: less than the second after which a SYN is sent again,
/// so that one SYN decides.
const SILENCE: Duration = Duration::from_millis(300);
/// How long an answer may take on a busy machine.
const ANSWER: Duration = Duration::from_mins(1);

/// How many times in a row an open port may answer late.
const LATE_ANSWERS: usize = 5;

/// The services that run on the host of every scenario.
const TCP_SERVICES: [u16; 3] = [22, 25, 80];
const UDP_SERVICES: [u16; 2] = [53, 51820];

/// How the kernel program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Native,
    Generic,
    Tcx,
}

impl Attach {
    /// Those of XDP.
    pub const BOTH: [Self; 2] = [Self::Generic, Self::Native];
    pub const ALL: [Self; 3] = [Self::Generic, Self::Native, Self::Tcx];

    /// Returns its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
        }
    }

    /// Returns whether the kernel has it. Prints to standard error that it has not.
    pub fn is_there(self) -> bool {
        self != Self::Tcx || need::tcx()
    }
}

/// A lab with services, and the methods by which a row acts and expects.
#[derive(Debug)]
pub struct Scenario {
    pub attach: Attach,
    pub family: Family,
    // Before the lab, so that the services end before their namespace does.
    services: Arc<Services>,
    pub lab: Arc<Lab>,
    /// The group of the sources A, B and C.
    group: u8,
    /// Whether [`Scenario::up`] reuses an instance of the same configuration.
    takes_over: bool,
    next_source_port: AtomicU16,
}

impl Scenario {
    /// Runs `row` in a new lab. Skips it, with a message, if this machine cannot build one, or has no such attach mode.
    pub fn run(attach: Attach, family: Family, tools: &[&str], row: impl FnOnce(&Self)) {
        if !attach.is_there() {
            return;
        }
        if let Some(lab) = Lab::build(tools) {
            row(&Self::new(attach, family, lab));
        }
    }

    pub fn new(attach: Attach, family: Family, lab: Lab) -> Self {
        let services = Services::start(&lab.host, &TCP_SERVICES, &UDP_SERVICES);
        Self {
            attach,
            family,
            services: Arc::new(services),
            lab: Arc::new(lab),
            group: 0,
            takes_over: false,
            next_source_port: AtomicU16::new(20_000),
        }
    }

    /// Runs `row` over IPv4 and then over IPv6 in the same lab: the state of one family's addresses has no effect on
    /// the other's. If the row brings up the same configuration for both, the instance is emptied and reused, since
    /// verifying the program takes longer than most rows.
    pub fn run_over_both(attach: Attach, tools: &[&str], row: impl Fn(&Self)) {
        Self::run(attach, Family::V4, tools, |v4| {
            row(v4);
            row(&Self {
                takes_over: true,
                ..v4.over(Family::V6)
            });
        });
    }

    /// Returns a scenario of the same instance over another family.
    #[must_use]
    pub fn over(&self, family: Family) -> Self {
        Self {
            attach: self.attach,
            family,
            services: Arc::clone(&self.services),
            lab: Arc::clone(&self.lab),
            group: self.group,
            takes_over: self.takes_over,
            next_source_port: AtomicU16::new(20_000),
        }
    }

    /// Returns a scenario of the same instance with new addresses for A, B and C.
    #[must_use]
    pub fn with_sources_of_its_own(&self, group: u8) -> Self {
        self.lab.add_sources(group);
        Self {
            group,
            ..self.over(self.family)
        }
    }

    /// Returns the address of a source of this scenario.
    pub fn address(&self, who: Source) -> IpAddr {
        self.family.address_in(self.group, who)
    }

    /// Writes the configuration and runs `up`. In it, `{host}`, `{A}`, `{B}`, `{C}` and `{network}` stand for the
    /// addresses of this scenario and the network of A and B.
    pub fn up(&self, config: impl Display) {
        let text = self.text(&config);
        if self.takes_over && !self.lab.pins().is_empty() {
            if self.lab.configured().as_ref() == Some(&text) {
                self.empty();
                return;
            }
            self.lab.knockgate(&["down", "--all"]).exits(0);
        }
        self.lab.configure(&text);
        self.lab.knockgate(&["up"]).exits(0);
    }

    /// Writes the configuration.
    pub fn configure(&self, config: impl Display) {
        self.lab.configure(&self.text(&config));
    }

    /// Starts a process that has the lock, in place of a command that changes what is pinned.
    pub fn hold_lock(&self) -> Running {
        let root = self.lab.pin_root().to_str().expect("made of ASCII");
        let mut holder = self.lab.host.command("flock");
        holder.args(["--close", root, "sleep", "600"]);
        let holder = Running::start(&mut holder, self.lab.folder());
        wait_until("the lock is held", || {
            let mut taken = self.lab.host.command("flock");
            let taken = taken.args(["-n", root, "true"]).status();
            taken.is_ok_and(|status| !status.success())
        });
        holder
    }

    fn text(&self, config: &dyn Display) -> String {
        let attach = self.attach.name();
        // Small tables: a run of the suites brings up dozens of instances.
        let common = format!(
            "interfaces = [\"{WAN}\"]\nattach = \"{attach}\"\n\
             limits = {{ sources = 16384, grants = 1024, sessions = 1024 }}\n"
        );
        common + &self.filled(&config.to_string())
    }

    /// Removes every grant and session.
    fn empty(&self) {
        self.knockgate("revoke --all").exits(0);
        for what in ["grants", "sessions"] {
            let left = self.lab.list(what);
            assert!(left.is_empty(), "{what} after `revoke --all`: {left:?}");
        }
    }

    /// Runs `knockgate` on the host, with addresses filled in as in [`Scenario::up`].
    pub fn knockgate(&self, arguments: &str) -> Run {
        let arguments = self.filled(arguments);
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        self.lab.knockgate(&arguments)
    }

    /// Runs `knockgate` on the host in an SSH session over `flow`.
    pub fn in_session(&self, flow: &TcpStream, arguments: &[&str]) -> Run {
        let client = flow.local_addr().expect("it is connected");
        let server = flow.peer_addr().expect("it is connected");
        let mut command = self.lab.knockgate_command(arguments);
        command.env(
            "SSH_CONNECTION",
            format!(
                "{} {} {} {}",
                client.ip(),
                client.port(),
                server.ip(),
                server.port()
            ),
        );
        run(&mut command)
    }

    /// Knocks. `steps`, separated by blanks, are `PORT/PROTOCOL`, `PORT/PROTOCOL@SOURCE_PORT` or a pause such as
    /// `500ms`.
    pub fn knock(&self, who: Source, steps: &str) {
        self.lab.client.run(|| self.send_knocks(who, steps));
    }

    /// Knocks, and connects to a TCP port immediately after the last knock.
    pub fn knock_and_connect(&self, who: Source, steps: &str, port: u16) -> Outcome {
        let from = self.source(who);
        let to = (self.family.host(), port).into();
        let connection = self.lab.client.run(|| {
            self.send_knocks(who, steps);
            attempt::connect(from, to, ANSWER)
        });
        Outcome::of(&connection)
    }

    /// Tries a port of the host, such as `22/tcp`. Waits long only if `expected` is an answer.
    pub fn attempt(&self, who: Source, port: &str, expected: Outcome) -> Outcome {
        let wait = match expected {
            Outcome::Silent => SILENCE,
            Outcome::Open | Outcome::OpenLate | Outcome::Refused => ANSWER,
        };
        let (number, transport) = parsed(port);
        let host = self.family.host();
        match transport {
            Transport::Tcp => Outcome::of(&self.connect(who, host, number, wait)),
            Transport::Udp => {
                let from = self.source(who);
                let to = (host, number).into();
                self.lab.client.run(|| attempt::ask(from, to, wait))
            }
        }
    }

    /// As [`Scenario::attempt`]. On a busy machine, an answer may come after the SYN has been sent again; then the port is
    /// tried again, with another connection.
    fn attempt_until_in_time(&self, who: Source, port: &str, expected: Outcome) -> Outcome {
        let attempt = || self.attempt(who, port, expected);
        let mut outcomes = iter::repeat_with(attempt).take(LATE_ANSWERS);
        outcomes
            .find(|outcome| *outcome != Outcome::OpenLate)
            .unwrap_or(Outcome::OpenLate)
    }

    /// Asserts that a port answers. Makes several connections if answers are late: where only one is admitted, use
    /// [`Scenario::connected`]. To test that the first SYN after a knock passes, use [`Scenario::knock_and_connect`] and the
    /// counters.
    #[track_caller]
    pub fn open(&self, who: Source, port: &str) {
        let outcome = self.attempt_until_in_time(who, port, Outcome::Open);
        self.assert_outcome(who, port, outcome, Outcome::Open);
    }

    /// Asserts that a port does not answer at all.
    #[track_caller]
    pub fn closed(&self, who: Source, port: &str) {
        self.expect(who, port, Outcome::Silent);
    }

    /// Asserts that the host answers that nothing listens on the port.
    #[track_caller]
    pub fn refused(&self, who: Source, port: &str) {
        self.expect(who, port, Outcome::Refused);
    }

    /// Tries a port from each of these sources at the same time. Waits long only if an answer is expected.
    pub fn attempt_each(
        &self,
        port: &str,
        expected: &[(Source, Outcome)],
    ) -> Vec<(Source, Outcome)> {
        thread::scope(|scope| {
            let attempts: Vec<_> = expected
                .iter()
                .map(|&(who, expected)| {
                    let attempt = move || self.attempt_until_in_time(who, port, expected);
                    (who, scope.spawn(attempt))
                })
                .collect();
            attempts
                .into_iter()
                .map(|(who, attempt)| (who, attempt.join().expect("an attempt can be made")))
                .collect()
        })
    }

    /// Waits until no grant covers `who` and the TCP port does not answer. Reads the grants too, since a missing answer
    /// may only be late.
    #[track_caller]
    pub fn closes(&self, who: Source, port: &str) {
        let address = self.address(who);
        let covers = |grant: &Value| {
            let source = grant["source"].as_str().map(str::parse::<IpNet>);
            source.is_some_and(|source| source.is_ok_and(|source| source.contains(&address)))
        };
        wait_until("the port is closed", || {
            !self.lab.list("grants").iter().any(covers)
                && self.attempt(who, port, Outcome::Silent) == Outcome::Silent
        });
    }

    /// Ends the grant of `who` at the gate `ssh`, by giving one that lasts a millisecond, so that a test decides when a
    /// grant ends.
    #[track_caller]
    pub fn ends(&self, who: Source) {
        let address = self.address(who);
        self.knockgate(&format!("allow {address} --gate ssh --for 1ms"))
            .exits(0);
        self.closes(who, "22/tcp");
    }

    /// Connects to a TCP port of `host`. Returns the outcome if there is no connection.
    pub fn connect(
        &self,
        who: Source,
        host: IpAddr,
        port: u16,
        wait: Duration,
    ) -> Result<TcpStream, Outcome> {
        let from = self.source(who);
        self.lab
            .client
            .run(|| attempt::connect(from, (host, port).into(), wait))
    }

    /// Connects to a TCP port of the host. Panics if there is no connection.
    #[track_caller]
    pub fn connected(&self, who: Source, port: u16) -> TcpStream {
        self.connect(who, self.family.host(), port, ANSWER)
            .unwrap_or_else(|outcome| {
                panic!("{who:?} expected a connection to port {port}: {outcome:?}")
            })
    }

    /// Returns the address of `who` with a source port that this scenario has not used yet.
    pub fn source(&self, who: Source) -> SocketAddr {
        (self.address(who), self.source_port()).into()
    }

    /// Returns a new source port, below the range from which the kernel chooses, so that it is free.
    fn source_port(&self) -> u16 {
        self.next_source_port.fetch_add(1, Ordering::Relaxed)
    }

    fn send_knocks(&self, who: Source, steps: &str) {
        for step in steps.split_whitespace() {
            if let Some(pause) = step.strip_suffix("ms") {
                let pause = pause.parse().expect("a pause is a number of milliseconds");
                thread::sleep(Duration::from_millis(pause));
                continue;
            }
            let (port, source) = match step.split_once('@') {
                Some((port, source)) => (port, source.parse().expect("a source port")),
                None => (step, self.source_port()),
            };
            let (number, transport) = parsed(port);
            let from = (self.address(who), source).into();
            let to = (self.family.host(), number).into();
            match transport {
                Transport::Tcp => attempt::syn(from, to),
                Transport::Udp => attempt::datagram(from, to),
            }
        }
    }

    #[track_caller]
    fn expect(&self, who: Source, port: &str, expected: Outcome) {
        let outcome = self.attempt(who, port, expected);
        self.assert_outcome(who, port, outcome, expected);
    }

    #[track_caller]
    fn assert_outcome(&self, who: Source, port: &str, outcome: Outcome, expected: Outcome) {
        assert_eq!(
            outcome, expected,
            "{port} tried by {who:?} ({:?}, {:?})",
            self.attach, self.family
        );
    }

    fn filled(&self, text: &str) -> String {
        let family = self.family;
        let values: [(&str, &dyn Display); 5] = [
            ("{host}", &family.host()),
            ("{A}", &self.address(Source::A)),
            ("{B}", &self.address(Source::B)),
            ("{C}", &self.address(Source::C)),
            ("{network}", &family.network()),
        ];
        values.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(name, &value.to_string())
        })
    }
}

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
}

fn parsed(port: &str) -> (u16, Transport) {
    let (number, protocol) = port.split_once('/').expect("a port is NUMBER/PROTOCOL");
    let number = number.parse().expect("a port has a number");
    match protocol {
        "tcp" => (number, Transport::Tcp),
        "udp" => (number, Transport::Udp),
        other => panic!("no protocol {other:?} here"),
    }
}
