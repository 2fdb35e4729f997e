//! Packets of fwknop's clients. The kernel program copies what looks like one to a ring of its own, and passes it on
//! unchanged; the service verifies it.
//!
//! Such a packet is a datagram of base64 text without its first characters, which are always the same. Of those that are
//! left, the first is one of four, since it holds four known bits; a packet that is made with GPG has two others.

use bytemuck::{Pod, Zeroable};

use crate::address::Padded;

/// The shortest and the longest text that is taken for a packet, in bytes.
pub const SHORTEST: u32 = 140;
pub const LONGEST: u32 = 1500;
/// The room in a short record: most packets are shorter than this.
pub const SHORT: usize = 488;
/// From this length on, text may have been made with GPG.
pub const SHORTEST_GPG: u32 = 400;

/// A datagram without its payload, as the program hands it up; its payload follows.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Head {
    pub source: Padded,
    pub source_port: u16,
    pub destination_port: u16,
    /// Bytes of the payload, which may be followed by others of no meaning.
    pub length: u16,
    /// 4 or 6.
    pub family: u8,
    pub zero: u8,
}

records!(Head: 24 { source: 0, source_port: 16, destination_port: 18, length: 20, family: 22, zero: 23 });

/// A record of the ring, with room for so many bytes of payload.
#[repr(C)]
pub struct Datagram<const ROOM: usize> {
    pub head: Head,
    pub payload: [u8; ROOM],
}

/// Returns whether a datagram may be a packet of fwknop's, by the length of its payload and its first byte.
#[inline(always)]
#[must_use]
pub const fn looks_right(length: u32, first: u8) -> bool {
    match first {
        b'8' | b'9' | b'+' | b'/' => SHORTEST <= length && length <= LONGEST,
        b'E' | b'I' => SHORTEST_GPG <= length && length <= LONGEST,
        _ => false,
    }
}

named! {
    /// What became of a datagram that looked like a packet of fwknop's. Each is counted once.
    pub enum Outcome: "The packet" {
        Opened = 0, "opened", "is right, and every gate that it asks for was opened or its grant renewed";
        Malformed = 1, "malformed", "is not what fwknop's client sends: its length, or a character that is not base64's";
        Source = 2, "source", "comes from a source that no key admits, or is for one that a gate does not";
        Replay = 3, "replay", "has been seen before";
        Forged = 4, "forged", "was made with none of the keys that its source may use";
        NoHmac = 5, "no_hmac", "was made with a key of the cipher, but has no HMAC";
        Legacy = 6, "legacy", "was made in the client's legacy mode, which has no HMAC";
        Gpg = 7, "gpg", "looks as if it was made with GnuPG";
        Unreadable = 8, "unreadable", "has a right HMAC, but cannot be decrypted: another key, or a mode other than CBC";
        Digest = 9, "digest", "has a right HMAC, but its inner digest is wrong";
        Message = 10, "message", "has a right HMAC, but its message cannot be read";
        Stale = 11, "stale", "was made more than 120 seconds ago or ahead, by this host's clock";
        Command = 12, "command", "asks for a command to be run";
        Nat = 13, "nat", "asks for packets to be forwarded to another host";
        LocalNat = 14, "local_nat", "asks for a port to be forwarded to another port of this host";
        Address = 15, "address", "names no address, and its key requires one";
        Gate = 16, "gate", "asks for a port of no gate that its key may open";
        TableFull = 17, "table_full", "is right, but there is no room for another grant";
        Failed = 18, "failed", "is right, but its grant could not be given; the log says why";
        Limit = 19, "limit", "was dropped unread: too many wrong ones in this second";
        Overrun = 20, "overrun", "was dropped unread: they came faster than the service reads";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Address as _,
        address::V4,
        frame::{PortPair, Segment, TCP, UDP, flag},
        judge,
        rules::Role,
        testing::TestEnv,
        verdict::Reason,
    };

    #[test]
    fn a_datagram_to_its_port_is_handed_up_and_passes() {
        const PORT: u16 = 62_201;
        let mut env = TestEnv::new(1, 1);
        env.roles[Role::index(true, PORT) as usize] = Role::Fwknop.pack();
        let host = V4::from_word(0x0100_4d0a);
        let packet = |protocol, destination_port| Segment {
            source: V4::from_word(0x0201_4d0a),
            destination: host,
            ports: PortPair::new(4000, destination_port),
            protocol,
            transport: 34,
        };
        let passes = |env: &TestEnv, protocol, port| {
            let verdict = judge::segment(env, &[0_u8; 0][..], &packet(protocol, port), || {
                (flag::SYN, 0)
            });
            assert_eq!(verdict.reason, Reason::Unguarded);
            env.handed_up.borrow().len()
        };
        assert_eq!(passes(&env, UDP, PORT), 1);
        let source = packet(UDP, PORT).source.padded();
        assert_eq!(env.handed_up.borrow()[0], (4, source, PORT));
        assert_eq!(passes(&env, TCP, PORT), 1);
        assert_eq!(passes(&env, UDP, PORT + 1), 1);
        // To an address that is not guarded.
        env.guarded = crate::guarded::which::LISTED;
        env.addresses.insert((4, V4::from_word(1).padded()));
        assert_eq!(passes(&env, UDP, PORT), 1);
        env.addresses.insert((4, host.padded()));
        assert_eq!(passes(&env, UDP, PORT), 2);
    }

    #[test]
    fn length_and_first_character_decide() {
        for (length, first, right) in [
            (139, b'8', false),
            (140, b'8', true),
            (140, b'9', true),
            (140, b'+', true),
            (140, b'/', true),
            (1500, b'/', true),
            (1501, b'/', false),
            (204, b'7', false),
            (204, b'U', false),
            (204, 0, false),
            (399, b'E', false),
            (400, b'E', true),
            (400, b'I', true),
            (1501, b'I', false),
        ] {
            assert_eq!(looks_right(length, first), right, "{length} {first}");
        }
    }

    #[test]
    fn the_first_character_holds_four_bits_of_a_constant() {
        // The text before it stands for 7.5 bytes of "Salted__", so that it begins with the last half of '_'.
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for salt in 0..=u8::MAX {
            let first = (b'_' & 0x0f) << 2 | salt >> 6;
            assert!(looks_right(204, ALPHABET[usize::from(first)]), "{salt}");
        }
    }
}
