//! What lives on when a configuration is replaced, and what ends.

use knockgate_tests::{
    gate_config::{ALICE, BOB, Gate},
    killed::{Call, count},
    lab::Source::{A, B, C},
    run::wait_until,
    service::{echoes, is_silent},
};

use crate::{in_all_modes, in_native_mode, reload, serve, ssh, with_limits};

#[test]
fn grants_and_sessions_go_on() {
    in_all_modes(|scenario| {
        scenario.up(ssh());
        let mut flow = {
            scenario.knock(A, ALICE);
            scenario.connected(A, 22)
        };
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        // Another gate in front of the first, and other rules for that.
        reload(
            scenario,
            format!("{}{}", Gate::mail(), ssh().open_for("20m")),
        );
        scenario.open(A, "22/tcp");
        scenario.open(B, "22/tcp");
        scenario.closed(C, "22/tcp");
        scenario.closed(A, "25/tcp");
        assert!(echoes(&mut flow, b"after the reload"));
        let before = scenario.lab.stats().all_packets();
        // And back.
        reload(scenario, ssh());
        scenario.open(A, "22/tcp");
        scenario.open(A, "25/tcp");
        assert!(echoes(&mut flow, b"after another reload"));
        assert!(scenario.lab.stats().all_packets() >= before);
    });
}

/// Tables of another size are other tables.
#[test]
fn grants_sessions_and_progress_move_to_tables_of_another_size() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let mut flow = scenario.connected(B, 22);
        let (first, rest) = ALICE.split_at(ALICE.rfind(' ').expect("three knocks"));
        for limits in [
            "sources = 65536, grants = 5000, sessions = 5000",
            "sources = 16384, grants = 10, sessions = 10",
        ] {
            scenario.knock(A, first);
            with_limits(scenario, limits);
            let packets = scenario.lab.stats().all_packets();
            scenario.knockgate("reload").exits(0);
            assert!(scenario.lab.stats().all_packets() >= packets);
            scenario.open(B, "22/tcp");
            assert!(echoes(&mut flow, b"in other tables"));
            assert!(scenario.lab.session_count() >= 1);
            scenario.closed(A, "22/tcp");
            scenario.knock(A, rest);
            scenario.open(A, "22/tcp");
            scenario.knockgate("revoke {A}").exits(0);
            scenario.closed(A, "22/tcp");
        }
    });
}

/// Tables are read and written in batches: the calls do not become more with the sequences.
#[test]
fn many_sequences_take_no_more_system_calls_than_few() {
    in_native_mode(|scenario| {
        let ports = 10_000..12_000_u32;
        let gate = ports
            .clone()
            .zip(ports.rev())
            .fold(ssh(), |gate, (one, other)| {
                let knocks = format!("{one}/udp {other}/tcp {}/udp", one / 2);
                gate.user(&format!("user{one}"), &knocks)
            });
        scenario.up(ssh());
        scenario.configure(ssh().open_for("20m"));
        let few = count(
            scenario.lab.knockgate_command(&["reload"]),
            Call::is_about_one_entry,
        );
        scenario.configure(gate);
        let many = count(
            scenario.lab.knockgate_command(&["reload"]),
            Call::is_about_one_entry,
        );
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
        scenario.knock(B, "10001/udp 11998/tcp 5000/udp");
        scenario.open(B, "22/tcp");
        assert!(many < few + 100, "{many} calls in place of {few}");
    });
}

#[test]
fn a_limit_below_the_live_grants_is_refused() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        for source in ["{A}", "{B}"] {
            scenario
                .knockgate(&format!("allow {source} --gate ssh --for 1h"))
                .exits(0);
        }
        with_limits(scenario, "sources = 16384, grants = 1, sessions = 1024");
        scenario
            .knockgate("reload")
            .exits(1)
            .says(&["2 grants are live", "limits.grants = 1"]);
        scenario.open(A, "22/tcp");
        scenario.closed(C, "22/tcp");
        scenario.knockgate("status").exits(0);
    });
}

/// A source that has begun one sequence goes on with it where another configuration still has it.
#[test]
fn progress_lives_on_with_other_sequences() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        let (first, rest) = ALICE.split_at(ALICE.rfind(' ').expect("three knocks"));
        scenario.knock(A, first);
        reload(
            scenario,
            ssh().user("another", "1111/udp 7000/udp 2222/udp"),
        );
        scenario.closed(A, "22/tcp");
        scenario.knock(A, rest);
        scenario.open(A, "22/tcp");
        // A sequence that is gone has no progress.
        scenario.knock(B, first);
        reload(scenario, Gate::new("ssh", "22/tcp").user("bob", BOB));
        scenario.knock(B, rest);
        scenario.closed(B, "22/tcp");
    });
}

#[test]
fn what_no_longer_applies_ends() {
    in_all_modes(|scenario| {
        let two = || ssh().user("bob", BOB);
        scenario.up(two());
        scenario.knock(A, ALICE);
        scenario.knock(B, BOB);
        let mut flow = scenario.connected(B, 22);
        // A user is gone, with the flows under the grant.
        reload(scenario, ssh());
        scenario.open(A, "22/tcp");
        scenario.closed(B, "22/tcp");
        assert!(is_silent(&mut flow, b"from nobody"));
        // A source may not knock any more, but a grant by hand is for any source.
        scenario.knockgate("allow {C} --gate ssh --for 1h").exits(0);
        reload(scenario, ssh().key("sources = [\"203.0.113.0/24\"]"));
        scenario.closed(A, "22/tcp");
        scenario.open(C, "22/tcp");
        // A gate is gone; one that takes its port is another gate.
        reload(scenario, Gate::new("other", "22/tcp").user("alice", ALICE));
        scenario.closed(C, "22/tcp");
        assert!(scenario.lab.list("grants").is_empty());
    });
}

/// The grant is for more than the address that may knock.
#[test]
fn a_grant_to_a_prefix_goes_on_where_a_part_of_it_may_knock() {
    in_all_modes(|scenario| {
        let keys = "grant_to = \"prefix\"\nsources = [\"{A}/32\"]";
        scenario.up(ssh().key(keys));
        scenario.knock(A, ALICE);
        let mut flow = scenario.connected(A, 22);
        scenario.knockgate("reload").exits(0);
        reload(scenario, ssh().key(keys).key("session_idle = \"2h\""));
        assert!(echoes(&mut flow, b"from a part"));
        scenario.open(A, "22/tcp");
    });
}

/// Who knocks from behind the same address does not take it over: it would end with that user.
#[test]
fn a_grant_by_hand_stays_one_though_its_source_knocks() {
    in_all_modes(|scenario| {
        scenario.up(ssh().user("bob", BOB));
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        scenario.knock(B, BOB);
        let mut flow = scenario.connected(B, 22);
        reload(scenario, ssh());
        assert!(echoes(&mut flow, b"from somebody"));
        scenario.open(B, "22/tcp");
    });
}

#[test]
fn what_does_not_pass_the_check_is_refused() {
    in_native_mode(|scenario| {
        scenario.knockgate("reload").exits(5);
        scenario.up(ssh());
        scenario.configure(ssh().key("nonsense = 1"));
        scenario.knockgate("reload").exits(3).says(&["nonsense"]);
        scenario.closed(A, "22/tcp");
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
    });
}

#[test]
fn the_service_applies_the_file_on_sighup() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        let mut service = serve(scenario);
        scenario.configure(ssh().protect("22/tcp 25/tcp"));
        service.signal(libc::SIGHUP);
        let applied = || {
            let events = scenario.lab.events();
            events
                .iter()
                .filter(|event| event["event"] == "config.applied")
                .count()
        };
        wait_until("it is applied", || applied() == 1);
        scenario.closed(A, "25/tcp");
        // One that is invalid is refused, and the service goes on.
        scenario.configure(ssh().key("nonsense = 1"));
        service.signal(libc::SIGHUP);
        wait_until("it is rejected", || {
            let events = scenario.lab.events();
            events
                .iter()
                .any(|event| event["event"] == "config.rejected")
        });
        scenario.closed(A, "25/tcp");
        // What `reload` applies is served as well.
        reload(scenario, ssh());
        wait_until("it is noticed", || applied() == 2);
        scenario.open(A, "25/tcp");
        assert!(service.goes_on());
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}
