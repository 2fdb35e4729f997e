//! Every combination of TCP's flags.

use knockgate_tests::{lab::Family, scenario::Attach};
use netlab::packet::{ACK, FIN, RST, SYN};

use crate::target::Target;

#[test]
fn native() {
    no_flags_are_answered(Attach::Native);
}

#[test]
fn generic() {
    no_flags_are_answered(Attach::Generic);
}

#[test]
fn tcx() {
    if Attach::Tcx.is_there() {
        no_flags_are_answered(Attach::Tcx);
    }
}

/// Includes the scans called NULL, FIN, XMAS, Maimon and SYN-FIN.
fn no_flags_are_answered(attach: Attach) {
    let Some(target) = Target::build() else {
        return;
    };
    expect(&target, "without a gate", a_listener_answers);
    target.up(attach);
    expect(&target, "past the gate", |_| false);
}

/// Returns whether a listener answers: not to a segment with neither SYN nor ACK (RFC 9293, section 3.10.7.2), nor, on
/// Linux, to a SYN with FIN.
fn a_listener_answers(flags: u8) -> bool {
    flags & RST == 0 && (flags & ACK != 0 || flags & (SYN | FIN) == SYN)
}

#[track_caller]
fn expect(target: &Target, when: &str, answered: fn(u8) -> bool) {
    for family in [Family::V4, Family::V6] {
        let wrong: Vec<u8> = (0..=u8::MAX)
            .filter(|&flags| target.answers(family, flags) != answered(flags))
            .collect();
        assert!(
            wrong.is_empty(),
            "{family:?}, {when}: otherwise than expected for the flags {wrong:02x?}"
        );
    }
}
