//! All that TCP's flags can say.

use knockgate_tests::{lab::Family, trial::Attach};
use netlab::packet::{ACK, FIN, RST, SYN};

use crate::range::Range;

#[test]
fn native() {
    no_flags_are_answered(Attach::Native);
}

#[test]
fn generic() {
    no_flags_are_answered(Attach::Generic);
}

/// NULL, FIN, XMAS, Maimon, SYN-FIN, ECN and everything else there is.
fn no_flags_are_answered(attach: Attach) {
    let Some(range) = Range::build() else {
        return;
    };
    expect(&range, "without a gate", a_listener_answers);
    range.up(attach);
    expect(&range, "past the gate", |_| false);
}

/// To what is neither a SYN nor acknowledges anything a listener stays silent (RFC 9293, section 3.10.7.2);
/// Linux also drops a SYN with FIN.
fn a_listener_answers(flags: u8) -> bool {
    flags & RST == 0 && (flags & ACK != 0 || flags & (SYN | FIN) == SYN)
}

#[track_caller]
fn expect(range: &Range, when: &str, answered: fn(u8) -> bool) {
    for family in [Family::V4, Family::V6] {
        let wrong: Vec<u8> = (0..=u8::MAX)
            .filter(|&flags| range.answers(family, flags) != answered(flags))
            .collect();
        assert!(
            wrong.is_empty(),
            "{family:?}, {when}: otherwise than expected for the flags {wrong:02x?}"
        );
    }
}
