//! Any interleaving of what three hosts do, are told and are kept from being told ends with the same answer everywhere.

use proptest::prelude::*;

use super::*;

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    Knock(usize, Place),
    Revoke(usize, Option<u16>, Option<u8>),
    Cut(usize),
    Heal(usize),
    /// Which of the writes on their way arrives, and whether an answer overtakes a change.
    Step(usize, usize, bool),
    /// ms.
    Wait(u64),
    Compact,
    Restart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0..3_usize;
    let anywhere = (0..2_u16, 1..4_u8).prop_map(|(gate, last)| place(gate, last));
    prop_oneof![
        4 => (host.clone(), anywhere).prop_map(|(host, place)| Event::Knock(host, place)),
        1 => (host.clone(), proptest::option::of(0..2_u16), proptest::option::of(1..4_u8))
            .prop_map(|(host, gate, last)| Event::Revoke(host, gate, last)),
        1 => host.clone().prop_map(Event::Cut),
        1 => host.clone().prop_map(Event::Heal),
        12 => (host.clone(), 0..8_usize, any::<bool>())
            .prop_map(|(host, nth, answer)| Event::Step(host, nth, answer)),
        1 => (1..1500_u64).prop_map(Event::Wait),
        1 => Just(Event::Compact),
        1 => host.prop_map(Event::Restart),
    ]
}

/// A grant that a knock gave, and the last revocation that its host had put into its tables before.
struct Given {
    place: Place,
    until: u64,
    applied: u64,
}

/// What has happened.
#[derive(Default)]
struct Truth {
    given: Vec<Given>,
    /// By number, from 1 on.
    revocations: Vec<Revocation>,
}

impl Truth {
    /// Returns what is open everywhere once every host knows everything.
    fn open(&self, now: u64) -> BTreeSet<Place> {
        let lives = |given: &&Given| {
            let later = &self.revocations[usize::try_from(given.applied).expect("few")..];
            let (gate, source) = &given.place;
            let covers = |it: &Revocation| it.covers(GATES[usize::from(*gate)], source);
            given.until > now && !later.iter().any(covers)
        };
        let live = self.given.iter().filter(lives);
        live.map(|given| given.place).collect()
    }
}

fn run(events: &[Event]) -> (Fleet, Truth) {
    let mut fleet = Fleet::new(3);
    let mut truth = Truth::default();
    // Clocks that nobody keeps.
    fleet.nodes[1].skew = 3_600_000_000;
    fleet.nodes[2].skew = -3_600_000_000;
    fleet.settle();
    for event in events {
        match event {
            Event::Knock(nth, place) => {
                truth.given.push(Given {
                    place: *place,
                    until: fleet.now + OPEN_FOR,
                    applied: fleet.nodes[*nth]
                        .state
                        .applied()
                        .expect("it has joined")
                        .number,
                });
                fleet.knock(*nth, *place);
            }
            Event::Revoke(nth, gate, last) => {
                let gate = gate.map(|gate| GATES[usize::from(gate)]);
                let network = last.map(|last| place(0, last).1);
                let number = fleet.revoke(*nth, gate, network);
                truth.revocations.push(Revocation {
                    gate: gate.map(ToOwned::to_owned),
                    network,
                    host: String::new(),
                    nonce: 0,
                    after: 0,
                });
                assert_eq!(number, truth.revocations.len() as u64);
            }
            Event::Cut(nth) => fleet.nodes[*nth].link.cut(),
            Event::Heal(nth) => fleet.nodes[*nth].link.is_cut = false,
            Event::Step(nth, carried, answer) => {
                fleet.step(*nth, *carried, *answer);
            }
            Event::Wait(milliseconds) => fleet.now += milliseconds * 1_000_000,
            Event::Compact => fleet.store.compact(),
            Event::Restart(nth) => restart(&mut fleet, *nth),
        }
    }
    (fleet, truth)
}

/// The service of a host is started again. The tables stay, and what it has left for the next one.
pub fn restart(fleet: &mut Fleet, nth: usize) {
    restart_as(fleet, nth, nth);
}

/// The same, of a host with this number in its name.
pub fn restart_as(fleet: &mut Fleet, nth: usize, number: usize) {
    let memory = fleet.nodes[nth].state.memory(fleet.moment(nth));
    start(fleet, nth, number, memory);
}

/// The same as [`restart`], where this is what it has left.
pub fn restart_with(fleet: &mut Fleet, nth: usize, memory: Memory) {
    start(fleet, nth, nth, memory);
}

fn start(fleet: &mut Fleet, nth: usize, number: usize, memory: Memory) {
    fleet.add_skewed(number, memory, fleet.nodes[nth].skew);
    let mut new = fleet.nodes.pop().expect("it was added");
    let before = &mut fleet.nodes[nth];
    new.tables = std::mem::take(&mut before.tables);
    new.rules.open_for = before.rules.open_for;
    new.link.is_cut = before.link.is_cut;
    *before = new;
    fleet.learn(nth);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_hosts_end_with_the_same_answer(events in proptest::collection::vec(event(), 1..120)) {
        let (mut fleet, truth) = run(&events);
        for node in &mut fleet.nodes {
            node.link.is_cut = false;
        }
        fleet.settle();
        // Until each host has said that it is there: a service that began meanwhile knows its time then.
        fleet.now += 6 * SECOND;
        fleet.settle();
        let open = truth.open(fleet.now);
        for nth in 0..3 {
            let here = fleet.open(nth);
            prop_assert!(here.is_subset(&open), "host {nth}: {here:?}, not {open:?}");
            // What is told of late may end a little early.
            let lasting = truth.open(fleet.now + 2 * SECOND);
            prop_assert!(lasting.is_subset(&here), "host {nth}: {here:?} lacks some of {lasting:?}");
        }
    }
}
