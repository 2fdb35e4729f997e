//! Security associations between a source of a lab and its host, with keys that both ends know.

use crate::{
    lab::{Family, Lab, Source},
    need::kernel_has,
    network::ip,
};

/// AES in CBC mode, and HMAC with SHA-256.
const ENCRYPTION: &str = "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f";
const AUTHENTICATION: &str =
    "auth hmac(sha256) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// What becomes of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// They are encrypted and authenticated.
    Esp,
    /// They are authenticated.
    Ah,
}

/// What of a packet is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What follows its IP header.
    Transport,
    /// The whole packet, which gets a header of its own. Both ends refuse packets that are not.
    Tunnel,
}

/// Adds associations and policies for all packets between a source and the host, of both families. Returns whether the kernel
/// has them.
pub fn agree(lab: &Lab, source: Source, protocol: Protocol, mode: Mode) -> bool {
    let (protocol, algorithms) = match protocol {
        Protocol::Esp => ("esp", format!("{ENCRYPTION} {AUTHENTICATION}")),
        Protocol::Ah => ("ah", AUTHENTICATION.to_owned()),
    };
    let (mode_name, directions) = match mode {
        Mode::Transport => ("transport", &["out"][..]),
        Mode::Tunnel => ("tunnel", &["out", "in"][..]),
    };
    [Family::V4, Family::V6].into_iter().all(|family| {
        let (client, host) = (family.address(source), family.host());
        let ways = [
            (client, host, [&lab.client, &lab.host]),
            (host, client, [&lab.host, &lab.client]),
        ];
        ways.into_iter()
            .all(|(from, to, ends @ [sender, receiver])| {
                let way = format!("src {from} dst {to}");
                let state = format!(
                    "xfrm state add {way} proto {protocol} spi 0x300 mode {mode_name} {algorithms}"
                );
                let agreed = ends
                    .into_iter()
                    .all(|netns| kernel_has("IPsec", netns, &state));
                if agreed {
                    for &direction in directions {
                        let netns = if direction == "out" { sender } else { receiver };
                        let template = format!("tmpl {way} proto {protocol} mode {mode_name}");
                        ip(
                            netns,
                            &format!("xfrm policy add {way} dir {direction} {template}"),
                        );
                    }
                }
                agreed
            })
    })
}
