//! Warnings about keys for authenticated knocks, and about what opens gates; errors about keys that cannot be used.

use std::io;

use jiff::{SignedDuration, Timestamp};

use crate::{
    config::{
        draft::{Draft, DraftGate},
        host::HostFacts,
        source::{Findings, Located, Span},
    },
    datapath::keys::beyond_limit,
    keys::{Folder, HostKey, KeySet, KeyState},
};

/// The code of errors about keys that cannot come into force.
const UNUSABLE: &str = "unusable-keys";

/// A key that ends sooner than this is warned of.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Warns of gates that nothing opens or that a sequence opens beside a key, of keys that are missing or end soon, and of a
/// clock that nothing keeps right; refuses keys that cannot be used.
pub(super) fn lint(findings: &mut Findings<'_>, draft: &Draft, host: &HostFacts) {
    let Some(first) = draft.knock.ports.first() else {
        for gate in &draft.gates {
            openers(findings, gate, Some(false));
        }
        return;
    };
    let set = host.has_keys.then(|| load(findings, draft, first.span));
    let set = set.flatten();
    for gate in &draft.gates {
        let by_its_file = |key: &HostKey| key.gates.contains(&gate.name.value);
        let from_files = set.as_ref().map(|set| set.keys.iter().any(by_its_file));
        openers(findings, gate, from_files);
    }
    if let Some(set) = &set {
        files(findings, draft, set, first.span);
    }
    if host.clock_is_free {
        let message = "nothing keeps this host's clock right, and an authenticated knock is refused where it is off by \
                       more than `max_age` or `max_ahead`: run a time synchronisation (chrony, systemd-timesyncd, ntpd)";
        findings.warning("clock-not-synchronised", first.span, message.to_owned());
    }
}

/// Reads the keys. `place` is that of the ports that take them.
fn load(findings: &mut Findings<'_>, draft: &Draft, place: Span) -> Option<KeySet> {
    let denied = |error: &anyhow::Error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied)
    };
    match Folder::open(&draft.knock.rest.keys).load() {
        Ok(set) => Some(set),
        // Who checks a file need not be permitted to read the keys.
        Err(error) if denied(&error) => None,
        // What only `up` says otherwise, when it refuses them.
        Err(error) => {
            let message = format!("the keys cannot be used: {error:#}");
            findings.error(UNUSABLE, place, message);
            None
        }
    }
}

/// Warns of a gate that nothing opens, and of one that its weakest way in makes as weak. `from_files`: a key's own file
/// names it; `None` where that is not known.
fn openers(findings: &mut Findings<'_>, gate: &DraftGate, from_files: Option<bool>) {
    if gate.knocks.is_empty() && gate.fwknop.is_empty() && from_files == Some(false) {
        let message = format!(
            "{} has no [[gate.knock]], and no key names it: only the allow list and grants by `knockgate allow` open it",
            gate.label()
        );
        findings.warning("gate-without-knocks", gate.header, message);
    }
    let has_key = gate.keys().next().is_some() || from_files == Some(true);
    if let Some(sequence) = gate.sequences().next().filter(|_| has_key) {
        let message = format!(
            "{} opens to a key and to this sequence, which is a password in clear, and the weaker of the two: give {} a \
             key, or guard something else with the sequence",
            gate.label(),
            sequence.label()
        );
        findings.warning("sequence-beside-key", sequence.sequence.span, message);
    }
}

/// Refuses keys that the tables have no room for; warns of the keys that the configuration names, and of those that it does
/// not.
fn files(findings: &mut Findings<'_>, draft: &Draft, set: &KeySet, place: Span) {
    let slots = draft.rest.limits.keys;
    for key in set.keys.iter().filter(|key| u32::from(key.slot) >= slots) {
        let error = beyond_limit(&key.name, key.slot.into(), slots);
        findings.error(UNUSABLE, place, error.to_string());
    }
    let now = Timestamp::now();
    for Located { value: name, span } in draft.gates.iter().flat_map(DraftGate::keys) {
        let Some(key) = set.get(name) else {
            let message = format!(
                "there is no key {name}, so it opens nothing: `knockgate key new {name}` makes it"
            );
            findings.warning("missing-key-file", *span, message);
            continue;
        };
        if let Some(what) = fate(key, now) {
            findings.warning("ending-key", *span, what);
        }
    }
    let is_named = |key: &HostKey| {
        let mut names = draft.gates.iter().flat_map(DraftGate::keys);
        names.any(|name| name.value == key.name)
    };
    for key in set.keys.iter().filter(|key| !key.replaced) {
        // What has ended under nobody's eyes is of no interest.
        if !is_named(key)
            && key.ended(now).is_none()
            && let Some(what) = fate(key, now)
        {
            findings.warning("ending-key", place, what);
        }
        let gates = || draft.gates.iter().map(|gate| gate.name.value.as_str());
        for unknown in key
            .gates
            .iter()
            .filter(|name| gates().all(|gate| gate != *name))
        {
            let message = format!(
                "the file of key {} names a gate {unknown:?}, which this configuration does not have: it opens nothing there",
                key.name
            );
            findings.warning("key-for-unknown-gate", place, message);
        }
    }
}

/// Says that a key has ended, or ends soon.
fn fate(key: &HostKey, now: Timestamp) -> Option<String> {
    let name = &key.name;
    match (key.state, key.expires) {
        (KeyState::Revoked { since }, _) => Some(format!(
            "key {name} was revoked at {since:.0}, and opens nothing: `knockgate key new {name}` makes another one"
        )),
        (_, Some(end)) if end <= now => Some(format!(
            "key {name} expired at {end:.0}, and opens nothing: `knockgate key rotate {name}` makes another one"
        )),
        (_, Some(end)) if end <= now + SOON => Some(format!(
            "key {name} expires at {end:.0}: `knockgate key rotate {name}` makes another one in time"
        )),
        _ => None,
    }
}
