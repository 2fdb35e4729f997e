//! Who stands on the wires, and what is sent to them.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Case, Contestant, Expected, Host, Kind, LineUp, Mode, sinks};
use crate::{
    figures::{Against, Row, over, times_what},
    frame::{self, SYN, Transport},
    gate::{GRANTED, Gate, KNOCKS, OPEN, PROTECTED, Setup, counted, knock_frame, knocks},
    knocking::is_program,
    programs::{Floor, Programs, Traffic},
    recipe::{Hook, Recipe},
    stage::Stage,
};

/// Where sources begin that are granted nothing.
const STRANGERS: u32 = 0x0b00_0000;
/// Where sources begin that knock.
const NEWCOMERS: u32 = 0x3000_0000;
/// How many sources there are of what is denied or unguarded.
const CROWD: u32 = 65_536;

/// Puts everyone on a wire of their own, attached in this mode.
pub fn line_up(
    stage: &Stage,
    programs: &mut Programs,
    binary: &Path,
    mode: Mode,
) -> Result<LineUp> {
    let mut rows = Rows {
        mode,
        contestants: Vec::new(),
        cases: Vec::new(),
        absent: Vec::new(),
    };
    rows.nobody(stage)?;
    rows.floor(stage, programs, "drop", Floor::Drop)?;
    rows.denied("bare drop", vec![]);
    rows.floor(stage, programs, "parse", Floor::Parse)?;
    rows.denied("parse only, SYN to 22", vec![over("bare drop")]);
    rows.unguarded(
        "parse only, UDP to 443",
        vec![over("no program, UDP to 443")],
    );
    for grants in [1_000, 100_000] {
        rows.lookup(stage, programs, grants)?;
    }
    for grants in [1, 1_000, 100_000] {
        rows.gate(stage, programs, binary, grants)?;
    }
    rows.knocking(stage, programs, binary)?;
    if mode == Mode::Native {
        for hook in Hook::ALL {
            rows.recipe(stage, hook)?;
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
    /// Each is about the latest contestant at the time.
    cases: Vec<Case>,
    absent: Vec<Row>,
}

impl Rows {
    fn nobody(&mut self, stage: &Stage) -> Result<()> {
        self.contestants.push(Contestant {
            wire: stage.wire("nobody")?,
            kind: Kind::Nobody,
            host: None,
        });
        self.unguarded("no program, UDP to 443", vec![]);
        self.granted("no program, UDP to 22", 1_000, vec![]);
        let knock = steady(STRANGERS, CROWD, KNOCKS[0]);
        self.add(
            "no program, UDP to 7101",
            knock_frame(),
            knock,
            "knock",
            true,
            vec![],
        );
        Ok(())
    }

    fn floor(
        &mut self,
        stage: &Stage,
        programs: &Programs,
        name: &str,
        floor: Floor,
    ) -> Result<()> {
        let wire = stage.wire(name)?;
        let mut program = programs.floor(floor)?;
        let mode = self.mode.of_aya();
        stage.inside(|| {
            program
                .attach_to_if_index(wire.host, mode)
                .with_context(|| format!("can't attach the program of {name}"))
        })?;
        self.contestants.push(Contestant {
            wire,
            kind: Kind::Floor(program),
            host: None,
        });
        Ok(())
    }

    fn lookup(&mut self, stage: &Stage, programs: &Programs, grants: u32) -> Result<()> {
        let name = format!("lookup{grants}");
        self.floor(stage, programs, &name, Floor::Lookup(grants))?;
        self.denied(
            &format!("one look-up, denied, {}", counted(grants)),
            vec![over("bare drop")],
        );
        self.unguarded(
            &format!("one look-up, unguarded, {}", counted(grants)),
            vec![over("no program, UDP to 443")],
        );
        self.granted(
            &format!("one look-up, granted, {}", counted(grants)),
            grants,
            vec![over("no program, UDP to 22")],
        );
        Ok(())
    }

    fn gate(
        &mut self,
        stage: &Stage,
        programs: &mut Programs,
        binary: &Path,
        grants: u32,
    ) -> Result<()> {
        let few = grants <= 1_000;
        let alike = if few { 1_000 } else { grants };
        let setup = Setup {
            grants: Setup::default().grants.max(grants),
            ..self.setup()
        };
        self.bring_up(
            stage,
            programs,
            binary,
            &format!("gate{grants}"),
            &setup,
            grants,
        )?;
        let most = if few { 30.0 } else { 50.0 };
        self.denied(
            &format!("denied, {}", counted(grants)),
            vec![
                self.target(most, over("bare drop")),
                times_what(
                    format!("one look-up, denied, {}", counted(alike)),
                    "bare drop",
                ),
            ],
        );
        self.unguarded(
            &format!("unguarded, {}", counted(grants)),
            vec![
                self.target(25.0, over("no program, UDP to 443")),
                over("parse only, UDP to 443"),
            ],
        );
        let floor = over("no program, UDP to 22");
        self.granted(
            &format!("granted, {}", counted(grants)),
            grants,
            vec![
                if few { self.target(35.0, floor) } else { floor },
                over(format!("one look-up, granted, {}", counted(alike))),
            ],
        );
        Ok(())
    }

    /// Knocks, which the host takes delivery of as of any packet: compared with the same without a program.
    fn knocking(&mut self, stage: &Stage, programs: &mut Programs, binary: &Path) -> Result<()> {
        /// What the targets count besides: the bare drop's price.
        const DROP: f64 = 64.0;
        let targets = [("few", 120.0), ("many", 300.0), ("whole", 280.0)];
        for ((name, traffic), (wire, most)) in newcomers().into_iter().zip(targets) {
            // A gate each: what one row leaves in the table of sources is not the next one's business.
            let setup = Setup {
                // Room for the grants that whole knocks earn, and an end to them before there is none.
                grants: 1 << 20,
                open_for: "1s",
                ..self.setup()
            };
            self.bring_up(stage, programs, binary, wire, &setup, 1)?;
            let against = vec![self.target(most - DROP, over("no program, UDP to 7101"))];
            self.add(name, knock_frame(), traffic, "knock", true, against);
        }
        Ok(())
    }

    /// nftables, on a host of its own: its rules see every packet of a host.
    fn recipe(&mut self, stage: &Stage, hook: Hook) -> Result<()> {
        /// Whom it knows.
        const ADMITTED: u32 = 1_000;
        let name = format!("nftables, {}", hook.name());
        if !is_program("nft") {
            let lack = "no nft here; `cargo xtask setup --for bench` installs it";
            self.absent.push(Row::absent(name, lack));
            return Ok(());
        }
        let host = stage.beside(hook.name())?;
        let wire = host.wire(&format!("nft-{}", hook.name()))?;
        let recipe = Recipe::knocking(hook);
        recipe.load(&host, &wire)?;
        recipe.admit(&host, &wire, GRANTED, ADMITTED)?;
        self.contestants.push(Contestant {
            wire,
            kind: Kind::Rules,
            host: Some(Host {
                _sinks: sinks(&host)?,
                stage: host,
            }),
        });
        let known = counted(ADMITTED);
        self.denied(&format!("{name}, denied, {known}"), vec![over("bare drop")]);
        self.unguarded(
            &format!("{name}, unguarded, {known}"),
            vec![over("no program, UDP to 443")],
        );
        self.granted(
            &format!("{name}, granted, {known}"),
            ADMITTED,
            vec![over("no program, UDP to 22")],
        );
        // Denied before the host's transport layers count it, as at the other hooks; knocks cost there
        // what they cost here.
        if hook == Hook::Ingress {
            for (what, traffic) in newcomers() {
                self.add(
                    &format!("{name}, {what}"),
                    knock_frame(),
                    traffic,
                    "knock",
                    true,
                    vec![over("no program, UDP to 7101")],
                );
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

    fn bring_up(
        &mut self,
        stage: &Stage,
        programs: &mut Programs,
        binary: &Path,
        name: &str,
        setup: &Setup,
        grants: u32,
    ) -> Result<()> {
        let wire = stage.wire(name)?;
        let gate = Gate::up(stage, binary, &wire, setup)?;
        gate.grant(programs, grants)?;
        self.contestants.push(Contestant {
            wire,
            kind: Kind::Gate(gate),
            host: None,
        });
        Ok(())
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

    /// A row about the latest contestant: a gate counts its frames as `reason`, and whether they are
    /// `delivered` is the same for everyone.
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
            rounds: Vec::new(),
        });
    }

    /// Targets are for native mode.
    fn target(&self, most: f64, against: Against) -> Against {
        if self.mode == Mode::Native {
            against.at_most(most)
        } else {
            against
        }
    }
}

/// Those who knock: how often, and how far.
fn newcomers() -> [(&'static str, Traffic); 3] {
    let newcomers = |first, sources, steps| Traffic {
        first: NEWCOMERS + first,
        sources,
        steps,
        ports: knocks(),
        // A source's next first knock comes from another port: it is no duplicate.
        hold: 15,
        ..Traffic::default()
    };
    [
        ("first knock, 32,768 sources", newcomers(0, 32_768, 1)),
        (
            "first knock, 1,048,576 sources",
            newcomers(0x0100_0000, 1 << 20, 1),
        ),
        (
            "whole knocks, ever new sources",
            newcomers(0x0200_0000, 0, 3),
        ),
    ]
}

fn datagram(port: u16) -> Vec<u8> {
    frame::ipv4(Transport::Udp, STRANGERS, 40000, port)
}

/// To one port, from one source port of each source.
fn steady(first: u32, sources: u32, port: u16) -> Traffic {
    Traffic {
        first,
        sources,
        steps: 1,
        ports: [port; 4],
        hold: 31,
        ..Traffic::default()
    }
}
