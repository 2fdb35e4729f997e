//! `IPsec` in tunnel mode. What the kernel has decrypted comes by its interface once more. Generic XDP and TCX see it then,
//! native XDP sees what is encrypted alone. (In transport mode it does not come again: see the suite `protocols`.)

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    lab::{
        CLIENT_INTERFACE, Family, Lab,
        Source::{A, B},
    },
    need::kernel_has,
    network::ip,
    scenario::{Attach, Scenario},
    service::echoes,
    tap::Tap,
};

use crate::each_mode;

/// AES in CBC mode, and HMAC with SHA-256.
const ALGORITHMS: &str = "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth hmac(sha256) \
                          0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

#[test]
fn what_is_decrypted_is_judged_and_not_replied_to() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if !agree(&lab) {
        return;
    }
    each_mode(lab, &Attach::ALL, |scenario| {
        scenario.open(A, "22/tcp");
        scenario.up(Gate::ssh().within("10m"));
        if scenario.attach == Attach::Native {
            scenario.open(A, "22/tcp");
            // From a source without IPsec.
            scenario.closed(B, "22/tcp");
        } else {
            scenario.closed(A, "22/tcp");
            scenario.knock(A, ALICE);
            let mut stream = scenario.connected(A, 22);
            scenario.ends(A);
            assert!(echoes(&mut stream, b"after the grant"));
        }
        scenario.lab.knockgate(&["down", "--all"]).exits(0);
        if scenario.attach == Attach::Tcx {
            no_reply_in_clear_text(scenario);
        }
    });
}

fn no_reply_in_clear_text(scenario: &Scenario) {
    scenario.up(Gate::ssh().key("deny = \"reject\""));
    let tap = Tap::open(&scenario.lab.client, CLIENT_INTERFACE);
    scenario.closed(A, "22/tcp");
    scenario.refused(B, "22/tcp");
    let seen = tap.until(|frame| is_reset(frame, scenario, B));
    assert!(
        !seen.iter().any(|frame| is_reset(frame, scenario, A)),
        "{:?}: a reply to {A:?}",
        scenario.family
    );
    scenario.lab.knockgate(&["down", "--all"]).exits(0);
}

/// Returns whether a frame is a RST of port 22 to this source.
fn is_reset(frame: &[u8], scenario: &Scenario, to: knockgate_tests::lab::Source) -> bool {
    const ETHERNET: usize = 14;
    let packet = frame.get(ETHERNET..).unwrap_or_default();
    let address = scenario.address(to);
    let (destination, transport): (Vec<u8>, _) = match address {
        std::net::IpAddr::V4(address) => (address.octets().into(), 20),
        std::net::IpAddr::V6(address) => (address.octets().into(), 40),
    };
    packet.len() >= transport + 20
        && packet[..transport].ends_with(&destination)
        && packet[transport..][..2] == 22_u16.to_be_bytes()
        && packet[transport + 13] & netlab::packet::RST != 0
}

/// Adds security associations and policies: packets between [`A`] and the host are encrypted, in tunnel mode. Returns
/// whether the kernel has them.
fn agree(lab: &Lab) -> bool {
    [Family::V4, Family::V6].into_iter().all(|family| {
        let (client, host) = (family.address(A), family.host());
        let ways = [
            (client, host, [&lab.client, &lab.host]),
            (host, client, [&lab.host, &lab.client]),
        ];
        ways.into_iter().all(|(from, to, [sender, receiver])| {
            let ends = format!("src {from} dst {to}");
            let state =
                format!("xfrm state add {ends} proto esp spi 0x400 mode tunnel {ALGORITHMS}");
            let agreed = [sender, receiver]
                .into_iter()
                .all(|netns| kernel_has("IPsec", netns, &state));
            if agreed {
                for (netns, way) in [(sender, "out"), (receiver, "in")] {
                    let policy = format!("xfrm policy add {ends} dir {way}");
                    ip(
                        netns,
                        &format!("{policy} tmpl {ends} proto esp mode tunnel"),
                    );
                }
            }
            agreed
        })
    })
}
