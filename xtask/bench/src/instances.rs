//! The instances that are measured without traffic on a wire: all are up at the same time, so that each round measures
//! all of them.

use std::{path::Path, thread, time::Duration};

use anyhow::Result;

use crate::{
    frame::{self, Transport},
    host::{Host, Wire},
    instance::{Instance, PROTECTED, Setup, Slots},
    judge::{GRANTED, Judge as _},
    keys::Key,
    programs::{Floor, Programs, run},
};

pub struct Instances {
    /// One grant, one sequence.
    pub one: Instance,
    pub thousand: Instance,
    pub hundred_thousand: Instance,
    pub million: Instance,
    /// A hundred thousand grants, each with a flow that is remembered.
    pub flows: Instance,
    /// A hundred thousand grants at a gate that remembers no flows.
    pub cutting: Instance,
    /// Every table as full as the default limits allow.
    pub full: Instance,
    /// A hundred networks on the allow list.
    pub allowing: Instance,
    /// With a flow that has outlived its grant.
    pub kept: Instance,
    /// With room for the grants of measured knocks.
    pub knocked: Instance,
    /// With as many grants as there can be, all of which have ended.
    pub ended: Instance,
    /// One grant and one sequence, for comparison with [`Instances::crowd`], which has ten thousand sequences.
    pub lone: Instance,
    pub crowd: Instance,
    /// As [`Instances::lone`], with a program that follows, which passes everything: the floor [`Floor::Pass`].
    pub followed: Instance,
    /// As [`Instances::lone`], called by [`Programs::root`].
    pub called: Instance,
    /// As [`Instances::lone`], with a port for authenticated knocks and a key.
    pub keyed: Instance,
    /// The same, with room for the grants of measured knocks; and its key.
    pub keyed_knocked: Instance,
    pub key: Key,
    /// With a gate that rejects; or why there is none.
    pub rejecting: Result<Instance, String>,
    /// Dropped after the instances that guard them.
    _wires: Vec<Wire>,
}

/// Room for more grants than are given while knocks are measured.
pub const ROOM: u32 = 1 << 20;
/// Places of grants that have ended, more than there are grants within the second for which one lasts.
const ENDED: u32 = 1 << 19;
/// The most grants of an instance.
const MILLION: u32 = 1_000_000;

impl Instances {
    pub fn assemble(host: &Host, programs: &mut Programs, binary: &Path) -> Result<Self> {
        let mut wires = Vec::new();
        let follows = programs.floor_pin(Floor::Pass);
        let array = programs.called_pin();
        let mut up = |name: &str, grants: u32, setup: &Setup| {
            let wire = host.wire(name)?;
            let mut come_up = || {
                let instance = Instance::up(host, binary, &wire, setup)?;
                instance.grant(programs, grants)?;
                anyhow::Ok(instance)
            };
            let instance = match come_up() {
                // Fewer than one key in a million finds no room (`knock_common::set`). Another instance has other hashes.
                Err(error) if grants == MILLION => {
                    eprintln!("{error:#}; once more, with other hashes");
                    come_up()
                }
                tried => tried,
            }?;
            wires.push(wire);
            anyhow::Ok(instance)
        };
        let plain = Setup::default();
        let with_grants = |grants| Setup {
            grants,
            ..Setup::default()
        };
        let crowded = Setup {
            gates: 10,
            users: 1_000,
            ..Setup::default()
        };
        let brief = Setup {
            open_for: "2s",
            ..Setup::default()
        };
        let one = up("one", 1, &plain)?;
        let thousand = up("thousand", 1_000, &plain)?;
        let hundred_thousand = up("many", 100_000, &with_grants(100_000))?;
        let million = up("million", MILLION, &with_grants(MILLION))?;
        let flows = up("flows", 100_000, &with_grants(100_000))?;
        let cutting = Setup {
            established: "cut",
            ..with_grants(100_000)
        };
        let cutting = up("cutting", 100_000, &cutting)?;
        let full = up("full", plain.grants, &plain)?;
        let allowing = up(
            "allowing",
            1,
            &Setup {
                allow: 100,
                ..plain.clone()
            },
        )?;
        let knocked = up("knocked", 1, &with_grants(ROOM))?;
        let ended = up(
            "ended",
            ENDED,
            &Setup {
                open_for: "1s",
                ..with_grants(ENDED)
            },
        )?;
        let lone = up("lone", 1, &plain)?;
        let followed = Setup {
            next: Some(follows),
            ..plain.clone()
        };
        let followed = up("followed", 1, &followed)?;
        let called = Setup {
            into: Some(array),
            ..plain.clone()
        };
        let called = up("called", 1, &called)?;
        let crowd = up("crowd", 1, &crowded)?;
        let kept = up("kept", 1, &brief)?;
        // At once, before its grant ends.
        let datagram = frame::ipv4(Transport::Udp, GRANTED, 40000, PROTECTED);
        run(kept.program(), &datagram, 1)?;
        let with_keys = |name: &str, setup: Setup| Setup {
            keys: Some(Slots {
                folder: host.folder.join(format!("{name}.keys")),
                most: 256,
            }),
            ..setup
        };
        let keyed = up("keyed", 1, &with_keys("keyed", plain.clone()))?;
        keyed.key("alice")?;
        let keyed_knocked = up("knocking", 1, &with_keys("knocking", with_grants(ROOM)))?;
        let key = keyed_knocked.key("alice")?;
        let rejects = Setup {
            deny: "reject",
            ..Setup::default()
        };
        let rejecting = match rejects.refused(host, binary)? {
            None => Ok(up("rejecting", 1, &rejects)?),
            Some(why) => Err(why),
        };
        flows.begin_flows(programs, 100_000)?;
        full.fill(programs, &plain)?;
        // Lets the grant end whose flow goes on.
        thread::sleep(Duration::from_millis(2_100));
        Ok(Self {
            one,
            thousand,
            hundred_thousand,
            million,
            flows,
            cutting,
            full,
            allowing,
            kept,
            knocked,
            ended,
            lone,
            crowd,
            followed,
            called,
            keyed,
            keyed_knocked,
            key,
            rejecting,
            _wires: wires,
        })
    }

    /// Returns instances with increasing numbers of grants.
    pub fn by_grants(&self) -> [(u32, &Instance); 4] {
        [
            (1, &self.one),
            (1_000, &self.thousand),
            (100_000, &self.hundred_thousand),
            (MILLION, &self.million),
        ]
    }
}
