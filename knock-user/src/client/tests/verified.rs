//! What the client sends, by what the program in the kernel makes of it: from the key that a person gets to the grant.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use knock_common::{
    address::V4,
    frame::link::Ethernet,
    grant::find,
    judge::judge,
    knock::authenticated::{
        key::{Key, state},
        outcome::Outcome,
    },
    rules::{GateRules, PortRole, Role},
    testing::TestEnv,
};

use crate::{
    client::packet::Request,
    config::Config,
    datapath::{
        compile::{
            applied::{Applied, Circumstances},
            ids::Ids,
        },
        keys::KeyRows,
    },
    keys::{Host, HostKey, KeySet, KeyState, PersonKey, Secret, derive},
};

const SECOND: u64 = 1_000_000_000;
const ALICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const EVE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// A host with the gates `ssh` and `web`, and a person whose key opens both.
struct Pair {
    host: TestEnv,
    person: PersonKey,
}

impl Pair {
    fn new(bound: bool) -> Self {
        let person = PersonKey {
            name: "alice/laptop".parse().expect("a name"),
            host: None,
            root: Secret::random().expect("randomness"),
            host_id: *b"0123456789abcdef",
            host_secret: Secret::random().expect("randomness"),
            slot: 3,
            port: 41_641,
            gates: vec!["ssh".to_owned(), "web".to_owned()],
        };
        let key = HostKey {
            name: person.name.clone(),
            slot: person.slot,
            state: KeyState::Valid,
            secret: derive(&person.root, &person.host_id),
            created: Timestamp::UNIX_EPOCH,
            expires: None,
            bound,
            gates: person.gates.clone(),
            replaced: false,
        };
        let set = KeySet {
            host: Some(Host {
                id: person.host_id,
                secret: person.host_secret.clone(),
                previous: None,
            }),
            keys: vec![key],
        };
        let text = "[knock]\nports = ['41641/udp']\n[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n\
            [[gate]]\nname = 'web'\nprotect = ['443/tcp']\n[[gate]]\nname = 'other'\nprotect = ['993/tcp']\n";
        let (config, _) = Config::parse(text, "k.toml").expect("valid");
        let ids = Ids::assign(&config, None);
        let applied = Applied::new(config, ids, Circumstances::default());
        let rows = KeyRows::compile(&set, &applied).expect("they fit");

        let mut host = TestEnv::new(8, 8);
        host.authenticated = true;
        let port = Role::index(true, person.port) as usize;
        host.roles[port] = PortRole::of(Role::Open).and_authenticated().packed();
        let rules = GateRules {
            open_for: 30 * SECOND,
            session_idle: 60 * SECOND,
            ..bytemuck::Zeroable::zeroed()
        };
        host.gates = vec![rules; 3];
        host.key_slots = 8;
        host.host_secrets = rows.secrets;
        for (gate, id) in &rows.gates {
            let id = u16::try_from(*id).expect("few gates");
            host.key_gates.insert((gate.slot, gate.gate), id);
        }
        let slot = u32::from(person.slot);
        let row = &rows.keys[&slot];
        *knock_common::Env::knock_key(&host, slot).expect("its slot") = Key {
            secret: row.secret,
            state: state::VALID,
            bound: u8::from(row.bound),
            ..bytemuck::Zeroable::zeroed()
        };
        Self { host, person }
    }

    /// A packet for the address from which the host sees it come, made now.
    fn request(&self) -> Request<'static> {
        Request {
            time: self.host.wall.get(),
            slot: self.person.slot,
            gate: None,
            close: false,
            seconds: 0,
            v4: None,
            v6: None,
            observed: true,
            source_port: None,
        }
    }

    /// Sends it from `source`, and returns what became of it.
    fn send(&self, source: Ipv4Addr, request: &Request<'_>) -> Outcome {
        let payload = request
            .datagram(&self.person.key(), &self.person.host_secret)
            .expect("randomness");
        self.host.authenticated_outcomes.borrow_mut().clear();
        judge::<Ethernet, _, _>(&self.host, &*frame(source, self.person.port, &payload));
        let outcomes = self.host.authenticated_outcomes.borrow();
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        *outcomes.keys().next().expect("it is counted")
    }

    /// Returns how long the source may pass the gate, s.
    fn opens_for(&self, source: Ipv4Addr, gate: u16, port: u16) -> Option<u64> {
        let grant = find::live(&self.host, &V4::from(source), gate, port)?;
        Some((grant.until - self.host.now.get()) / SECOND)
    }
}

/// An Ethernet frame with a UDP datagram.
fn frame(source: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = u16::try_from(8 + payload.len()).expect("short");
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0, 0x45, 0]);
    frame.extend((20 + udp).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source.octets());
    frame.extend([192, 0, 2, 1]);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

#[test]
fn a_knock_opens_the_gate_that_it_names_once() {
    let pair = Pair::new(false);
    let first = pair.request();
    assert_eq!(pair.send(ALICE, &first), Outcome::Opened);
    assert_eq!(pair.opens_for(ALICE, 0, 1), Some(30));
    assert_eq!(pair.opens_for(ALICE, 1, 1), None);
    // The padding is another one; what counts is the same.
    assert_eq!(pair.send(EVE, &first), Outcome::Replay);
    assert_eq!(pair.opens_for(EVE, 0, 1), None);
    let web = Request {
        time: first.time + 1,
        gate: Some("web"),
        seconds: 5,
        ..first.clone()
    };
    assert_eq!(pair.send(ALICE, &web), Outcome::Opened);
    assert_eq!(pair.opens_for(ALICE, 1, 1), Some(5));
    for gate in ["other", "nowhere"] {
        let request = Request {
            time: first.time + 2,
            gate: Some(gate),
            ..first.clone()
        };
        let pair = Pair::new(false);
        assert_eq!(pair.send(ALICE, &request), Outcome::Gate, "{gate}");
    }
}

#[test]
fn an_earlier_knock_is_taken_back() {
    let pair = Pair::new(false);
    let open = pair.request();
    assert_eq!(pair.send(ALICE, &open), Outcome::Opened);
    let close = Request {
        time: open.time + 1,
        close: true,
        ..open
    };
    assert_eq!(pair.send(ALICE, &close), Outcome::Closed);
    assert_eq!(pair.opens_for(ALICE, 0, 1), None);
}

#[test]
fn a_listed_address_opens_from_there_alone() {
    let pair = Pair::new(true);
    let observed = pair.request();
    assert_eq!(
        pair.send(ALICE, &observed),
        Outcome::Address,
        "the key is bound"
    );
    let listed = Request {
        time: observed.time + 1,
        v4: Some(ALICE),
        observed: false,
        ..observed
    };
    // Whoever captured it and holds the original back gains nothing.
    assert_eq!(pair.send(EVE, &listed), Outcome::Address);
    let again = Request {
        time: listed.time + 1,
        ..listed
    };
    assert_eq!(pair.send(ALICE, &again), Outcome::Opened);
    assert_eq!(pair.opens_for(ALICE, 0, 1), Some(30));
    assert_eq!(pair.opens_for(EVE, 0, 1), None);
}

#[test]
fn a_listed_source_port_opens_for_it_alone() {
    let pair = Pair::new(false);
    let exact = Request {
        source_port: Some(40_112),
        ..pair.request()
    };
    assert_eq!(pair.send(ALICE, &exact), Outcome::Opened);
    assert_eq!(pair.opens_for(ALICE, 0, 40_112), Some(30));
    assert_eq!(pair.opens_for(ALICE, 0, 40_113), None);
}

#[test]
fn what_was_made_for_another_host_or_at_another_time_opens_nothing() {
    let pair = Pair::new(false);
    let now = pair.request();
    let elsewhere = Pair::new(false);
    let mut mixed = Pair::new(false);
    mixed.person.host_secret = pair.person.host_secret.clone();
    // Another host's secret hides everything; with this host's, the tag is wrong.
    let payload = |person: &PersonKey| {
        now.datagram(&person.key(), &person.host_secret)
            .expect("randomness")
    };
    for (person, outcome) in [
        (&elsewhere.person, Outcome::Other),
        (&mixed.person, Outcome::Forged),
    ] {
        pair.host.authenticated_outcomes.borrow_mut().clear();
        let frame = frame(ALICE, pair.person.port, &payload(person));
        judge::<Ethernet, _, _>(&pair.host, &*frame);
        let outcomes = pair.host.authenticated_outcomes.borrow();
        // One in 4,096 packets of another host looks as if it were for this one, and ends at the next look.
        let seen: Vec<_> = outcomes.keys().copied().collect();
        let is_rare = outcome == Outcome::Other && seen != [Outcome::Opened];
        assert!(seen == [outcome] || is_rare, "{seen:?}");
    }
    for time in [now.time - 91 * SECOND, now.time + 16 * SECOND] {
        let late = Request {
            time,
            ..now.clone()
        };
        assert_eq!(pair.send(ALICE, &late), Outcome::Stale);
    }
    assert_eq!(pair.opens_for(ALICE, 0, 1), None);
}
