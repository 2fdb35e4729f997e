//! Gates on links of other kinds than the veth pairs of the other suites, as they are set up on hosts. Not every kernel has
//! them; `cargo xtask kernels` boots one that does. [`ipsec`]: packets that the kernel decrypts.

mod ipsec;

use knockgate_tests::{
    foreign::ForeignProgram,
    gate_config::{ALICE, Gate},
    lab::{BELOW, CLIENT_INTERFACE, Family, Lab, Source::A, WAN},
    links::{self, BRIDGE, IPVLAN, Kind, MACVLAN, SECOND, VLAN, VRF},
    need::kernel_has,
    network::{ip, set},
    run::run,
    scenario::{Attach, Scenario},
    service::echoes,
};

/// Modes of devices without a driver for XDP.
const WITHOUT_NATIVE: [Attach; 2] = [Attach::Generic, Attach::Tcx];

#[test]
fn a_vlan_device_is_guarded_by_itself() {
    is_guarded(&VLAN, &WITHOUT_NATIVE);
}

#[test]
fn a_bridge_is_guarded_by_itself() {
    is_guarded(&BRIDGE, &WITHOUT_NATIVE);
}

#[test]
fn a_macvlan_is_guarded_by_itself() {
    is_guarded(&MACVLAN, &WITHOUT_NATIVE);
}

#[test]
fn an_ipvlan_is_guarded_by_itself() {
    is_guarded(&IPVLAN, &WITHOUT_NATIVE);
}

/// The kernel shows the packets of such devices to no program on them.
#[test]
fn a_vrf_and_an_ipvlan_in_mode_l3s_are_refused() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    for (what, device, advice) in [
        (
            "VRFs",
            "type vrf table 10",
            "`ip link show master past` lists",
        ),
        ("ipvlans", "link wan type ipvlan mode l3s", "guard that one"),
    ] {
        let add = format!(
            "link add past {}\nlink set past up",
            device.replace("wan", WAN)
        );
        if !kernel_has(what, &lab.host, &add) {
            return;
        }
        for attach in WITHOUT_NATIVE.iter().filter(|attach| attach.is_there()) {
            let top = format!("interfaces = [\"past\"]\nattach = {:?}\n", attach.name());
            lab.configure(&format!("{top}{}", Gate::ssh()));
            let check = lab.knockgate(&["check"]);
            let said = &check.exits(0).stdout;
            assert!(said.contains(advice), "{said}");
            let up = lab.knockgate(&["up"]);
            assert_eq!(up.code, Some(1), "{what}, {attach:?}: {}", up.stderr);
            assert!(up.stderr.contains(advice), "{}", up.stderr);
            lab.assert_untouched();
        }
        ip(&lab.host, "link del past");
    }
}

#[test]
fn an_interface_of_a_vrf_is_guarded() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    // Services of the whole host.
    if links::make(&lab, &VRF) {
        set(&lab.host, &["ipv4/tcp_l3mdev_accept"], "1");
        each_mode(lab, &Attach::ALL, opens_and_closes);
    }
}

#[test]
fn a_bond_is_guarded_on_each_of_its_interfaces() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if !links::bond(&lab) {
        return;
    }
    each_mode(lab, &Attach::ALL, |scenario| {
        opens_and_closes(scenario);
        let lab = &scenario.lab;
        scenario.up(Gate::ssh().within("10m").key("deny = \"reject\""));
        for (from, to) in [(BELOW, SECOND), (SECOND, BELOW)] {
            links::fail_over(lab, from, to);
            scenario.refused(A, "22/tcp");
            scenario.knock(A, ALICE);
            scenario.open(A, "22/tcp");
            scenario.knockgate("revoke --all").exits(0);
        }
        ip(&lab.host, &format!("link set {SECOND} up"));
        lab.knockgate(&["down", "--all"]).exits(0);
        for interface in [BELOW, SECOND] {
            let shown = run(lab
                .host
                .command("ip")
                .args(["link", "show", "dev", interface]));
            let shown = &shown.exits(0).stdout;
            assert!(!shown.contains("xdp"), "left on {interface}: {shown}");
        }
    });
}

#[test]
fn a_ppp_device_of_pppoe_is_guarded_by_itself() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if let Some(_session) = lab.put_pppoe_on_top() {
        each_mode(lab, &WITHOUT_NATIVE, opens_and_closes);
    }
}

fn is_guarded(kind: &Kind, modes: &[Attach]) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if links::make(&lab, kind) {
        each_mode(lab, modes, opens_and_closes);
    }
}

/// Tries a row with the interface guarded in each of these modes, over both families.
fn each_mode(lab: Lab, modes: &[Attach], row: impl Fn(&Scenario)) {
    // A veth takes the replies of a driver only if it has a program itself.
    let _peer = modes
        .contains(&Attach::Native)
        .then(|| ForeignProgram::on(&lab.client, CLIENT_INTERFACE));
    let v4 = Scenario::new(Attach::Generic, Family::V4, lab);
    let v6 = v4.over(Family::V6);
    let mut scenarios = [v4, v6];
    for &attach in modes.iter().filter(|attach| attach.is_there()) {
        for scenario in &mut scenarios {
            scenario.attach = attach;
            row(scenario);
        }
    }
}

/// A gate opens to knocks, a connection goes on after its grant, a gate that rejects answers, and `down` leaves nothing.
fn opens_and_closes(scenario: &Scenario) {
    let lab = &scenario.lab;
    scenario.open(A, "22/tcp");
    scenario.up(Gate::ssh().within("10m"));
    let status = lab.knockgate(&["status", "--json"]).exits(0).json();
    assert_eq!(status["interfaces"][0]["name"], WAN);
    assert_eq!(status["interfaces"][0]["attach"], scenario.attach.name());
    scenario.closed(A, "22/tcp");
    scenario.open(A, "80/tcp");
    scenario.knock(A, ALICE);
    let mut stream = scenario.connected(A, 22);
    assert!(echoes(&mut stream, b"under the grant"));
    scenario.ends(A);
    assert!(echoes(&mut stream, b"after it"));
    lab.knockgate(&["down", "--all"]).exits(0);
    scenario.up(Gate::ssh().within("10m").key("deny = \"reject\""));
    scenario.refused(A, "22/tcp");
    scenario.knock(A, ALICE);
    scenario.open(A, "22/tcp");
    lab.knockgate(&["down", "--all"]).exits(0);
    scenario.open(A, "22/tcp");
    lab.assert_untouched();
}
