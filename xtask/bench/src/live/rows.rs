//! The contestants, each on its own wire, and the packets that are sent to them.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::Xdp;
use netlab::{host::find_program, packet::SYN};

use super::{
    Case, Contestant, Expected, Kind, LineUp, Mode, OwnHost, sinks,
    targets::{Allowed, DENIED_FEW, DENIED_MANY, GRANTED_FEW, UNGUARDED_MOST},
    traffic::{CROWD, Newcomers, STRANGERS, datagram, newcomers, steady},
};
use crate::{
    figures::{Against, Row, over, times_what},
    frame::{self, Transport},
    host::{Host, Wire},
    instance::{Instance, KNOCKS, OPEN, PROTECTED, Setup, counted, knock_frame},
    judge::GRANTED,
    minimal::{Minimal, Room},
    programs::{Floor, FloorAtTcx, Programs, Traffic},
    recipe::{Hook, Recipe},
};

/// Room for the grants of all whole knocks of a run, for knockgate and for the minimal gate.
const EARNED: u32 = 1 << 21;
/// Room for sources that have begun to knock, in the minimal gate: as in the gate in C that [`Allowed::minimal`] is
/// about.
const CANDIDATES: u32 = 65_536;

/// The floors of rows: a drop, and packets that pass, whose cost includes delivery.
const DROP: &str = "bare drop";
const PASS: &str = "bare pass, UDP to 443";
const PARSED: &str = "parse only, UDP to 443";
const OTHERS: &str = "no program, UDP to 443";
const ADMITTED: &str = "no program, UDP to 22";
const ADMITTED_ONE: &str = "no program, UDP to 22, one source";
const KNOCKING: &str = "no program, UDP to 7101";

/// Puts each contestant on a wire of its own, attached in this mode. `cpu`: the CPU on which packets are judged.
pub fn line_up(
    host: &Host,
    programs: &mut Programs,
    binary: &Path,
    cpu: usize,
    mode: Mode,
) -> Result<LineUp> {
    let mut rows = Rows {
        mode,
        contestants: Vec::new(),
        cases: Vec::new(),
        absent: Vec::new(),
    };
    rows.nobody(host)?;
    if rows.compares() {
        rows.floor(host, programs, "drop", Floor::Drop)?;
        rows.denied(DROP, vec![]);
        rows.floor(host, programs, "parse", Floor::Parse)?;
        rows.denied("parse only, SYN to 22", vec![over(DROP)]);
        rows.unguarded(PARSED, vec![over(OTHERS)]);
        for grants in [1, 1_000, 100_000] {
            rows.minimal(host, programs, grants)?;
        }
        rows.minimal_knocking(host, programs)?;
    } else {
        rows.floor_at_tcx(host, programs, "drop", FloorAtTcx::Drop)?;
        rows.denied(DROP, vec![]);
        rows.floor_at_tcx(host, programs, "pass", FloorAtTcx::Pass)?;
        rows.unguarded(PASS, vec![over(OTHERS)]);
    }
    for grants in [1, 1_000, 100_000] {
        rows.instance(host, programs, binary, grants)?;
    }
    rows.knocking(host, programs, binary)?;
    rows.knocking_again(host, programs, binary, cpu)?;
    if mode == Mode::Native {
        for hook in Hook::ALL {
            rows.recipe(hook)?;
        }
    }
    let Rows {
        mode: _,
        contestants,
        cases,
        absent,
    } = rows;
    Ok((contestants, cases, absent))
}

struct Rows {
    mode: Mode,
    contestants: Vec<Contestant>,
    /// A case is about the latest contestant when it is added.
    cases: Vec<Case>,
    absent: Vec<Row>,
}

impl Rows {
    fn nobody(&mut self, host: &Host) -> Result<()> {
        self.contestants.push(Contestant {
            wire: host.wire("nobody")?,
            kind: Kind::Nobody,
            own_host: None,
        });
        self.unguarded(OTHERS, vec![]);
        self.granted(ADMITTED, 1_000, vec![]);
        self.granted(ADMITTED_ONE, 1, vec![]);
        let knock = steady(STRANGERS, CROWD, KNOCKS[0]);
        self.knocks(KNOCKING, knock, vec![]);
        Ok(())
    }

    fn floor(&mut self, host: &Host, programs: &Programs, name: &str, floor: Floor) -> Result<()> {
        let wire = host.wire(name)?;
        let mut program = programs.floor(floor)?;
        self.attach(host, &wire, &mut program)?;
        self.contestants.push(Contestant {
            wire,
            kind: Kind::Floor(program),
            own_host: None,
        });
        Ok(())
    }

    fn floor_at_tcx(
        &mut self,
        host: &Host,
        programs: &Programs,
        name: &str,
        floor: FloorAtTcx,
    ) -> Result<()> {
        let wire = host.wire(name)?;
        let program = programs.floor_at_tcx(host, &wire.name, floor)?;
        self.contestants.push(Contestant {
            wire,
            kind: Kind::FloorAtTcx(program),
            own_host: None,
        });
        Ok(())
    }

    /// Returns whether others are measured beside knockgate.
    fn compares(&self) -> bool {
        self.mode.of_xdp().is_some()
    }

    /// Adds a minimal gate with this number of grants.
    fn minimal(&mut self, host: &Host, programs: &Programs, grants: u32) -> Result<()> {
        let room = Room {
            candidates: CANDIDATES,
            // As large as knockgate's table, since the cost of a failed look-up depends on the number of buckets.
            admitted: grants.max(Setup::default().grants),
            ended: false,
        };
        self.minimal_gate(host, programs, &grants.to_string(), room, grants)?;
        let name = |what| format!("minimal gate, {what}, {}", counted(grants));
        self.denied(&name("denied"), vec![over(DROP)]);
        self.unguarded(&name("unguarded"), vec![over(OTHERS)]);
        self.granted(&name("granted"), grants, vec![over(admitted(grants))]);
        Ok(())
    }

    /// Adds minimal gates for knocks, one for each row, as for knockgate.
    fn minimal_knocking(&mut self, host: &Host, programs: &Programs) -> Result<()> {
        let room = Room {
            candidates: CANDIDATES,
            admitted: EARNED,
            ended: false,
        };
        for newcomers in newcomers() {
            self.minimal_gate(host, programs, newcomers.wire, room, 0)?;
            let name = format!("minimal gate, {}", newcomers.name);
            self.knocks(&name, newcomers.traffic, vec![over(KNOCKING)]);
        }
        Ok(())
    }

    fn minimal_gate(
        &mut self,
        host: &Host,
        programs: &Programs,
        name: &str,
        room: Room,
        granted: u32,
    ) -> Result<()> {
        let wire = host.wire(&format!("least{name}"))?;
        let mut minimal = Minimal::load(programs, room, granted)?;
        self.attach(host, &wire, &mut minimal.program)?;
        self.contestants.push(Contestant {
            wire,
            kind: Kind::Minimal(minimal),
            own_host: None,
        });
        Ok(())
    }

    fn attach(&self, host: &Host, wire: &Wire, program: &mut Xdp) -> Result<()> {
        let mode = self.mode.of_xdp().context("no mode of XDP")?;
        host.inside(|| {
            program
                .attach_to_if_index(wire.host, mode)
                .with_context(|| format!("cannot attach the program of {}", wire.name))
        })?;
        Ok(())
    }

    fn instance(
        &mut self,
        host: &Host,
        programs: &mut Programs,
        binary: &Path,
        grants: u32,
    ) -> Result<()> {
        let few = grants <= 1_000;
        let floor = admitted(grants);
        let setup = Setup {
            grants: Setup::default().grants.max(grants),
            ..self.setup()
        };
        let wire = format!("ours{grants}");
        self.enter(self.come_up(host, programs, binary, &wire, &setup, grants)?);
        let name = |what| format!("{what}, {}", counted(grants));
        let minimal = |what| format!("minimal gate, {what}, {}", counted(grants));
        let allowed = if few { DENIED_FEW } else { DENIED_MANY };
        self.denied(
            &name("denied"),
            self.allowed(allowed, DROP, &minimal("denied")),
        );
        let mut against = vec![self.target(UNGUARDED_MOST, over(OTHERS))];
        against.push(over(if self.compares() { PARSED } else { PASS }));
        self.unguarded(&name("unguarded"), against);
        let against = if few {
            self.allowed(GRANTED_FEW, floor, &minimal("granted"))
        } else if self.compares() {
            vec![over(floor), times_what(minimal("granted"), floor)]
        } else {
            vec![over(floor)]
        };
        self.granted(&name("granted"), grants, against);
        Ok(())
    }

    /// Adds knocks, which are delivered to the host, and so are compared with the same packets without a program.
    fn knocking(&mut self, host: &Host, programs: &mut Programs, binary: &Path) -> Result<()> {
        for newcomers in newcomers() {
            let Newcomers {
                wire,
                name,
                traffic,
                allowed,
            } = newcomers;
            // An instance for each, so that one row's sources do not affect the next row.
            let setup = Setup {
                grants: EARNED,
                ..self.setup()
            };
            self.enter(self.come_up(host, programs, binary, wire, &setup, 1)?);
            let against = self.allowed(allowed, KNOCKING, &format!("minimal gate, {name}"));
            self.knocks(name, traffic, against);
        }
        Ok(())
    }

    /// Adds knocks for the places of grants that have ended: once as the service leaves them, compared with the minimal gate whose
    /// places were never used; and once without a service, compared with a minimal gate whose places have all been used.
    fn knocking_again(
        &mut self,
        host: &Host,
        programs: &mut Programs,
        binary: &Path,
        cpu: usize,
    ) -> Result<()> {
        /// As many grants as there can be; they end before the measurement.
        const ENDED: u32 = 1 << 19;
        let [.., whole] = newcomers();
        let used = "minimal gate, whole knocks, for places of ended grants";
        if self.compares() {
            let room = Room {
                candidates: CANDIDATES,
                admitted: ENDED,
                ended: true,
            };
            self.minimal_gate(host, programs, "ended", room, 0)?;
            self.knocks(used, whole.traffic, vec![over(KNOCKING)]);
        }
        let setup = Setup {
            grants: ENDED,
            open_for: "1s",
            ..self.setup()
        };
        let (wire, mut instance) = self.come_up(host, programs, binary, "freed", &setup, ENDED)?;
        instance.serve(host, cpu)?;
        self.enter((wire, instance));
        let minimal = format!("minimal gate, {}", whole.name);
        let against = self.allowed(whole.allowed, KNOCKING, &minimal);
        self.knocks(
            "whole knocks, for places that the service has freed",
            whole.traffic,
            against,
        );
        self.enter(self.come_up(host, programs, binary, "ended", &setup, ENDED)?);
        self.knocks(
            "whole knocks, for places of ended grants, no service",
            whole.traffic,
            if self.compares() {
                vec![over(KNOCKING), times_what(used, KNOCKING), over(whole.name)]
            } else {
                vec![over(KNOCKING), over(whole.name)]
            },
        );
        Ok(())
    }

    /// Adds nftables, on a host of its own, since its rules see every packet of a host.
    fn recipe(&mut self, hook: Hook) -> Result<()> {
        /// Sources that it admits.
        const KNOWN: u32 = 1_000;
        let name = format!("nftables, {}", hook.name());
        if find_program("nft").is_none() {
            let lack = "no nft here; `cargo xtask setup --for bench` installs it";
            self.absent.push(Row::absent(name, lack));
            return Ok(());
        }
        let host = Host::another(hook.name())?;
        let wire = host.wire(&format!("nft-{}", hook.name()))?;
        let recipe = Recipe::knocking(hook);
        recipe.load(&host, &wire)?;
        recipe.admit(&host, &wire, GRANTED, KNOWN)?;
        self.contestants.push(Contestant {
            wire,
            kind: Kind::Rules,
            own_host: Some(OwnHost {
                _sinks: sinks(&host)?,
                host,
            }),
        });
        let known = counted(KNOWN);
        self.denied(&format!("{name}, denied, {known}"), vec![over(DROP)]);
        self.unguarded(&format!("{name}, unguarded, {known}"), vec![over(OTHERS)]);
        self.granted(
            &format!("{name}, granted, {known}"),
            KNOWN,
            vec![over(ADMITTED)],
        );
        // At one hook only: knocks cost the same at the others.
        if hook == Hook::Ingress {
            for newcomers in newcomers() {
                let name = format!("{name}, {}", newcomers.name);
                self.knocks(&name, newcomers.traffic, vec![over(KNOCKING)]);
            }
        }
        Ok(())
    }

    fn setup(&self) -> Setup {
        Setup {
            attach: self.mode.of_knockgate(),
            ..Setup::default()
        }
    }

    /// Brings an instance up on a wire of its own, and gives this number of grants.
    fn come_up(
        &self,
        host: &Host,
        programs: &mut Programs,
        binary: &Path,
        name: &str,
        setup: &Setup,
        grants: u32,
    ) -> Result<(Wire, Instance)> {
        let wire = host.wire(name)?;
        let instance = Instance::up(host, binary, &wire, setup)?;
        if self.compares() {
            instance.grant(programs, grants)?;
        } else {
            instance.grant_by_wire(programs, &wire, grants)?;
        }
        Ok((wire, instance))
    }

    fn enter(&mut self, (wire, instance): (Wire, Instance)) {
        self.contestants.push(Contestant {
            wire,
            kind: Kind::Instance(instance),
            own_host: None,
        });
    }

    fn denied(&mut self, name: &str, against: Vec<Against>) {
        let frame = frame::ipv4(Transport::Tcp(SYN), STRANGERS, 40000, PROTECTED);
        let flood = steady(STRANGERS, CROWD, PROTECTED);
        self.add(name, frame, flood, "no_grant", false, against);
    }

    fn unguarded(&mut self, name: &str, against: Vec<Against>) {
        let passing = steady(STRANGERS, CROWD, OPEN);
        self.add(name, datagram(OPEN), passing, "unguarded", true, against);
    }

    fn granted(&mut self, name: &str, sources: u32, against: Vec<Against>) {
        let granted = steady(GRANTED, sources, PROTECTED);
        self.add(name, datagram(PROTECTED), granted, "grant", true, against);
    }

    fn knocks(&mut self, name: &str, traffic: Traffic, against: Vec<Against>) {
        self.add(name, knock_frame(), traffic, "knock", true, against);
    }

    /// Adds a row about the latest contestant. `reason`: under which instances count its frames. `delivered`: whether they
    /// must reach the host, whatever the contestant.
    fn add(
        &mut self,
        name: &str,
        frame: Vec<u8>,
        traffic: Traffic,
        reason: &'static str,
        delivered: bool,
        against: Vec<Against>,
    ) {
        self.cases.push(Case {
            name: name.to_owned(),
            who: self.contestants.len() - 1,
            frame,
            traffic,
            expected: Expected { reason, delivered },
            against,
            slices: Vec::new(),
        });
    }

    /// Returns two comparisons: what a row adds to its floor, and the ratio of that to what the minimal gate's row
    /// adds.
    fn allowed(&self, allowed: Allowed, floor: &str, minimal: &str) -> Vec<Against> {
        let mut against = vec![self.target(allowed.most, over(floor))];
        if self.compares() {
            against.push(self.target(allowed.times(), times_what(minimal, floor)));
        }
        against
    }

    /// Adds a target, in native mode only.
    fn target(&self, most: f64, against: Against) -> Against {
        if self.mode == Mode::Native {
            against.at_most(most)
        } else {
            against
        }
    }
}

/// Returns the floor of packets under this number of grants.
const fn admitted(grants: u32) -> &'static str {
    if grants == 1 { ADMITTED_ONE } else { ADMITTED }
}
