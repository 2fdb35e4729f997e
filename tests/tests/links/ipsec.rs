//! `IPsec` in tunnel mode. What the kernel has decrypted comes by its interface once more. Generic XDP and TCX see it then,
//! native XDP sees what is encrypted alone. (In transport mode it does not come again: see the suite `protocols`.)

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    ipsec::{Mode, Protocol, agree},
    lab::{
        CLIENT_INTERFACE, Lab,
        Source::{A, B},
    },
    scenario::{Attach, Scenario},
    service::echoes,
    tap::Tap,
};

use crate::each_mode;

#[test]
fn what_is_decrypted_is_judged_and_not_replied_to() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if !agree(&lab, A, Protocol::Esp, Mode::Tunnel) {
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
