//! Connections that are open when an instance comes up, and the session of who brings it up.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::DirBuilderExt as _,
};

use knockgate_tests::{
    foreign::{self, ForeignProgram},
    gate_config::{ALICE, BOB},
    keys,
    lab::{
        Source::{A, B},
        WAN,
    },
    network::ip,
    service::{echoes, is_silent},
};

use crate::{in_all_modes, in_native_mode, reload, ssh};

#[test]
fn an_open_connection_is_kept() {
    in_all_modes(|scenario| {
        let mut flow = scenario.connected(A, 22);
        assert!(echoes(&mut flow, b"before"));
        scenario.up(ssh());
        assert!(echoes(&mut flow, b"after"));
        assert_eq!(scenario.lab.session_count(), 1);
        scenario.closed(A, "22/tcp");
        // And one through a port that a reload begins to protect.
        let mut mail = scenario.connected(B, 25);
        reload(scenario, ssh().protect("22/tcp 25/tcp"));
        assert!(echoes(&mut mail, b"after"));
        assert!(echoes(&mut flow, b"still"));
        scenario.closed(B, "25/tcp");
        // What was taken away does not come back.
        scenario.knockgate("revoke --all").exits(0);
        reload(scenario, ssh().protect("22/tcp 25/tcp 80/tcp"));
        assert!(is_silent(&mut flow, b"revoked"));
    });
}

/// A connection that began while its interface was not guarded has neither grant nor session.
#[test]
fn a_repair_does_not_cut_off_the_session_that_gives_the_command() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        foreign::detach(&scenario.lab.pin_root().join(WAN).join("link"));
        scenario.open(A, "22/tcp");
        let mut flow = scenario.connected(A, 22);
        let refused = scenario.in_session(&flow, &["up"]);
        refused.exits(1).says(&["would cut off", "--anyway"]);
        assert!(echoes(&mut flow, b"kept"));
        scenario.configure(ssh().protect("22/tcp 25/tcp"));
        let refused = scenario.in_session(&flow, &["reload"]);
        refused.exits(1).says(&["would cut off"]);
        assert!(echoes(&mut flow, b"kept"));
        scenario.in_session(&flow, &["up", "--anyway"]).exits(0);
        scenario.closed(A, "22/tcp");
    });
}

/// From which somebody has removed a pin: it guards until there is something to take its place.
#[test]
fn what_is_damaged_stays_where_it_cannot_be_replaced() {
    in_native_mode(|scenario| {
        let cut = || ssh().key("established = \"cut\"");
        scenario.up(format!("allow = [\"{{A}}/32\"]\n{}", cut()));
        let mut flow = scenario.connected(A, 22);
        fs::remove_file(scenario.lab.pin_root().join(WAN).join("cursor")).expect("it is pinned");
        scenario.configure(cut());
        let refused = scenario.knockgate("reload");
        refused.exits(1).says(&["has not all pins"]);
        scenario.closed(B, "22/tcp");
        let refused = scenario.in_session(&flow, &["up"]);
        refused.exits(1).says(&["would cut off"]);
        assert!(echoes(&mut flow, b"kept"));
        scenario.closed(B, "22/tcp");
        scenario.in_session(&flow, &["up", "--anyway"]).exits(0);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("status").exits(0);
    });
}

#[test]
fn a_session_with_a_grant_goes_on_under_the_same_gate() {
    for established in ["cut", "keep"] {
        in_native_mode(|scenario| {
            let gate = || ssh().key(format!("established = \"{established}\""));
            scenario.up(gate());
            scenario.knock(A, ALICE);
            let mut flow = scenario.connected(A, 22);
            scenario.configure(gate().open_for("2h"));
            scenario.in_session(&flow, &["reload"]).exits(0);
            assert!(echoes(&mut flow, b"granted"));
            // With another user, nothing is taken away.
            scenario.configure(gate().user("bob", BOB));
            scenario.in_session(&flow, &["reload"]).exits(0);
            assert!(echoes(&mut flow, b"granted"));
            let is_refused = |config: String| {
                scenario.configure(config);
                let refused = scenario.in_session(&flow, &["reload"]);
                refused.exits(1).says(&["would cut off"]);
                echoes(&mut flow.try_clone().expect("a socket"), b"granted")
            };
            // Its grant ends where the source may not knock any more, and with its user.
            let elsewhere = || gate().key("sources = [\"{B}/32\"]").to_string();
            assert!(is_refused(elsewhere()));
            let named = gate().user("bob", BOB).to_string();
            assert!(is_refused(named.replace("alice", "alicia")));
            if established == "keep" {
                // A session ends where its source may not knock, though it has outlived its grant.
                scenario.ends(A);
                assert!(is_refused(elsewhere()));
                scenario.configure(named.replace("alice", "alicia"));
                scenario.in_session(&flow, &["reload"]).exits(0);
                assert!(echoes(&mut flow, b"kept"));
            }
            // One that was kept without a grant is cut off.
            reload(scenario, ssh());
            scenario.configure(ssh().key("established = \"cut\""));
            let refused = scenario.in_session(&flow, &["reload"]);
            refused.exits(1).says(&["would cut off"]);
        });
    }
}

/// A gate opened by a key ends what the key has opened where its folder is another one, or no port takes knocks.
#[test]
fn a_session_with_a_grant_by_a_key_goes_on_with_the_key() {
    for established in ["cut", "keep"] {
        in_native_mode(|scenario| {
            let gate = ssh().key(format!("established = \"{established}\""));
            keys::configure(scenario, "", &gate);
            scenario.knockgate("up").exits(0);
            let key = keys::new_key(scenario, "carol --gate ssh");
            keys::knock(scenario, &key, "--then 22/tcp").exits(0);
            let mut flow = scenario.connected(A, 22);
            let folder = scenario.lab.folder().join("other");
            let made = fs::DirBuilder::new().mode(0o700).create(&folder);
            made.expect("the temporary folder is writable");
            scenario.configure(format!(
                "[knock]\nports = [\"{}/udp\"]\nkeys = {folder:?}\n{gate}",
                keys::PORT
            ));
            let refused = scenario.in_session(&flow, &["reload"]);
            refused.exits(1).says(&["would cut off"]);
            scenario.configure(&gate);
            let refused = scenario.in_session(&flow, &["reload"]);
            refused.exits(1).says(&["would cut off"]);
            assert!(echoes(&mut flow, b"granted"));
            keys::configure(scenario, "", &gate.clone().open_for("2h"));
            scenario.in_session(&flow, &["reload"]).exits(0);
            assert!(echoes(&mut flow, b"granted"));
        });
    }
}

/// What has passed a gate that cuts has no session until the gate keeps what is established.
#[test]
fn what_has_a_grant_when_its_gate_begins_to_keep_it_outlives_the_grant() {
    in_native_mode(|scenario| {
        scenario.up(ssh().key("established = \"cut\""));
        scenario.knock(A, ALICE);
        let mut flow = scenario.connected(A, 22);
        reload(scenario, ssh());
        scenario.ends(A);
        assert!(echoes(&mut flow, b"kept"));
        scenario.closed(A, "22/tcp");
    });
}

/// What has come by an interface that was taken down on purpose, and stays so.
#[test]
fn a_session_by_an_interface_that_stays_down_goes_on() {
    in_native_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        scenario.configure(ssh());
        let up = format!("up -i {WAN} -i wan1");
        scenario.knockgate(&up).exits(0);
        scenario.knockgate(&format!("down -i {WAN}")).exits(0);
        let mut flow = scenario.connected(A, 22);
        scenario
            .in_session(&flow, &["reload", "--program"])
            .exits(0);
        assert!(echoes(&mut flow, b"not guarded"));
        scenario
            .in_session(&flow, &["up", "-i", WAN, "-i", "wan1"])
            .exits(1)
            .says(&["would cut off"]);
    });
}

/// What has come by an interface that was not guarded has no grant, whatever the gate says.
#[test]
fn a_session_by_an_interface_that_is_to_be_guarded_is_not_cut_off() {
    in_native_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        let [host, client] = [[198, 18, 7, 1], [198, 18, 7, 2]].map(IpAddr::from);
        ip(&scenario.lab.host, &format!("addr add {host}/24 dev wan1"));
        ip(
            &scenario.lab.client,
            &format!("addr add {client}/24 dev wan1-peer"),
        );
        scenario.configure(ssh().key("established = \"cut\""));
        scenario.knockgate(&format!("up -i {WAN}")).exits(0);
        let connected = scenario
            .lab
            .client
            .run(|| TcpStream::connect(SocketAddr::from((host, 22))));
        let mut flow = connected.expect("wan1 is not guarded");
        scenario
            .in_session(&flow, &["up", "-i", WAN, "-i", "wan1"])
            .exits(1)
            .says(&["would cut off"]);
        assert!(echoes(&mut flow, b"kept"));
    });
}

/// An interface was made again, and another's program had it for a while: nothing has judged what came by it.
#[test]
fn what_began_while_nothing_was_attached_is_not_kept() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.closed(A, "22/tcp");
        scenario.lab.make_again();
        let other = ForeignProgram::linked(&scenario.lab);
        scenario.knockgate("up").exits(1).says(&["already carries"]);
        drop(other);
        let mut flow = scenario.connected(A, 22);
        assert!(echoes(&mut flow, b"not guarded"));
        scenario.knockgate("up").exits(0);
        assert!(is_silent(&mut flow, b"no grant"));
    });
}

#[test]
fn the_session_that_gives_the_command_is_not_cut_off() {
    in_native_mode(|scenario| {
        scenario.open(A, "22/tcp");
        let mut flow = scenario.connected(A, 22);
        let cut = || ssh().key("established = \"cut\"");
        scenario.configure(cut());
        let refused = scenario.in_session(&flow, &["up"]);
        refused.exits(1).says(&[
            "would cut off your SSH session",
            "--try",
            "allow",
            "--anyway",
        ]);
        scenario.lab.assert_untouched();
        scenario
            .in_session(&flow, &["run"])
            .exits(1)
            .says(&["would cut off"]);
        scenario.in_session(&flow, &["up", "--try", "2s"]).exits(0);
        scenario.knockgate("down").exits(0);
        scenario.in_session(&flow, &["up", "--anyway"]).exits(0);
        assert!(is_silent(&mut flow, b"cut"));
        scenario.knockgate("down").exits(0);
        // A gate that keeps it does not cut it off, nor does an entry of the allow list. (A veth may lose a packet when
        // its program goes.)
        scenario.open(A, "22/tcp");
        let mut flow = scenario.connected(A, 22);
        scenario.configure(ssh());
        scenario.in_session(&flow, &["up"]).exits(0);
        assert!(echoes(&mut flow, b"kept"));
        scenario.configure(cut());
        scenario
            .in_session(&flow, &["reload"])
            .exits(1)
            .says(&["would cut off"]);
        assert!(echoes(&mut flow, b"kept"));
        scenario.configure(format!("allow = [\"{{A}}/32\"]\n{}", cut()));
        scenario.in_session(&flow, &["reload"]).exits(0);
        assert!(echoes(&mut flow, b"allowed"));
        // A session to another host is none of this one's connections.
        scenario.knockgate("down").exits(0);
        scenario.configure(cut());
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = elsewhere.local_addr().expect("it is bound");
        let other = TcpStream::connect(to).expect("it listens");
        scenario.in_session(&other, &["up"]).exits(0);
    });
}
