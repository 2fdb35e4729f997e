//! Connections that are open when an instance comes up, and the session of who brings it up.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
};

use knockgate_tests::{
    foreign::{self, ForeignProgram},
    gate_config::{ALICE, BOB},
    lab::{
        Source::{A, B},
        WAN,
    },
    network::ip,
    run::{Run, run},
    scenario::Scenario,
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
        let refused = in_session(scenario, &flow, &["up"]);
        refused.exits(1).says(&["would cut off", "--anyway"]);
        assert!(echoes(&mut flow, b"kept"));
        scenario.configure(ssh().protect("22/tcp 25/tcp"));
        let refused = in_session(scenario, &flow, &["reload"]);
        refused.exits(1).says(&["would cut off"]);
        assert!(echoes(&mut flow, b"kept"));
        in_session(scenario, &flow, &["up", "--anyway"]).exits(0);
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
        let refused = in_session(scenario, &flow, &["up"]);
        refused.exits(1).says(&["would cut off"]);
        assert!(echoes(&mut flow, b"kept"));
        scenario.closed(B, "22/tcp");
        in_session(scenario, &flow, &["up", "--anyway"]).exits(0);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("status").exits(0);
    });
}

#[test]
fn a_session_with_a_grant_goes_on_under_the_same_gate() {
    in_native_mode(|scenario| {
        let cut = || ssh().key("established = \"cut\"");
        scenario.up(cut());
        scenario.knock(A, ALICE);
        let mut flow = scenario.connected(A, 22);
        scenario.configure(cut().open_for("2h"));
        in_session(scenario, &flow, &["reload"]).exits(0);
        assert!(echoes(&mut flow, b"granted"));
        // With another user, nothing is taken away.
        scenario.configure(cut().user("bob", BOB));
        in_session(scenario, &flow, &["reload"]).exits(0);
        assert!(echoes(&mut flow, b"granted"));
        // Its grant ends where the source may not knock any more.
        scenario.configure(cut().key("sources = [\"{B}/32\"]"));
        let refused = in_session(scenario, &flow, &["reload"]);
        refused.exits(1).says(&["would cut off"]);
        assert!(echoes(&mut flow, b"granted"));
        // One that was kept without a grant is cut off.
        reload(scenario, ssh());
        scenario.configure(cut());
        let refused = in_session(scenario, &flow, &["reload"]);
        refused.exits(1).says(&["would cut off"]);
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
        in_session(scenario, &flow, &["reload", "--program"]).exits(0);
        assert!(echoes(&mut flow, b"not guarded"));
        in_session(scenario, &flow, &["up", "-i", WAN, "-i", "wan1"])
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
        in_session(scenario, &flow, &["up", "-i", WAN, "-i", "wan1"])
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

/// Runs `knockgate` in an SSH session over `flow`.
fn in_session(scenario: &Scenario, flow: &TcpStream, arguments: &[&str]) -> Run {
    let client = flow.local_addr().expect("it is connected");
    let server = flow.peer_addr().expect("it is connected");
    let mut command = scenario.lab.knockgate_command(arguments);
    command.env(
        "SSH_CONNECTION",
        format!(
            "{} {} {} {}",
            client.ip(),
            client.port(),
            server.ip(),
            server.port()
        ),
    );
    run(&mut command)
}

#[test]
fn the_session_that_gives_the_command_is_not_cut_off() {
    in_native_mode(|scenario| {
        scenario.open(A, "22/tcp");
        let mut flow = scenario.connected(A, 22);
        let cut = || ssh().key("established = \"cut\"");
        scenario.configure(cut());
        let refused = in_session(scenario, &flow, &["up"]);
        refused.exits(1).says(&[
            "would cut off your SSH session",
            "--try",
            "allow",
            "--anyway",
        ]);
        scenario.lab.assert_untouched();
        in_session(scenario, &flow, &["run"])
            .exits(1)
            .says(&["would cut off"]);
        in_session(scenario, &flow, &["up", "--try", "2s"]).exits(0);
        scenario.knockgate("down").exits(0);
        in_session(scenario, &flow, &["up", "--anyway"]).exits(0);
        assert!(is_silent(&mut flow, b"cut"));
        scenario.knockgate("down").exits(0);
        // A gate that keeps it does not cut it off, nor does an entry of the allow list. (A veth may lose a packet when
        // its program goes.)
        scenario.open(A, "22/tcp");
        let mut flow = scenario.connected(A, 22);
        scenario.configure(ssh());
        in_session(scenario, &flow, &["up"]).exits(0);
        assert!(echoes(&mut flow, b"kept"));
        scenario.configure(cut());
        in_session(scenario, &flow, &["reload"])
            .exits(1)
            .says(&["would cut off"]);
        assert!(echoes(&mut flow, b"kept"));
        scenario.configure(format!("allow = [\"{{A}}/32\"]\n{}", cut()));
        in_session(scenario, &flow, &["reload"]).exits(0);
        assert!(echoes(&mut flow, b"allowed"));
        // A session to another host is none of this one's connections.
        scenario.knockgate("down").exits(0);
        scenario.configure(cut());
        let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = elsewhere.local_addr().expect("it is bound");
        let other = TcpStream::connect(to).expect("it listens");
        in_session(scenario, &other, &["up"]).exits(0);
    });
}
