//! What happens between the copy of the tables and the exchange of the program, while `reload` stands still there.

use knockgate_tests::{
    gate_config::{ALICE, BOB},
    keys,
    killed::{Call, interrupted},
    lab::Source::{A, B, C},
    run::wait_until,
    scenario::Scenario,
    service::{echoes, is_silent},
};

use crate::{in_native_mode, serve, ssh, with_limits};

/// Reloads into tables of another size, and calls `act` when all is copied and the old program still judges.
#[track_caller]
fn reload_into_other_tables(scenario: &Scenario, limits: &str, act: impl FnOnce()) {
    with_limits(scenario, limits);
    let reload = scenario.lab.knockgate_command(&["reload"]);
    let code = interrupted(reload, Call::changes_a_link, act);
    assert_eq!(code, Some(0), "the configuration is in force");
}

/// Neither reported as a failure, nor does it keep the rest from being done: a user is gone, and keys follow.
#[test]
fn a_grant_that_finds_no_room_meanwhile_leaves_nothing_undone() {
    in_native_mode(|scenario| {
        keys::configure(scenario, "", &ssh().user("bob", BOB));
        scenario.knockgate("up").exits(0);
        let key = keys::new_key(scenario, "carol --gate ssh");
        let mut service = serve(scenario);
        scenario.knock(A, ALICE);
        scenario.knock(B, BOB);
        let mut flow = scenario.connected(B, 22);
        keys::configure(scenario, "", &ssh());
        // The tables of keys are others, too.
        let limits = "sources = 16384, grants = 2, sessions = 1024, keys = 64";
        reload_into_other_tables(scenario, limits, || scenario.knock(C, ALICE));
        scenario.open(A, "22/tcp");
        scenario.closed(B, "22/tcp");
        assert!(is_silent(&mut flow, b"from nobody"));
        keys::knock(scenario, &key, "--then 22/tcp").exits(0);
        let said = |what: &str| {
            let events = scenario.lab.events();
            events.iter().any(|event| event["event"] == what)
        };
        wait_until("the service has seen it", || said("config.applied"));
        assert!(!said("config.rejected"));
        assert!(service.goes_on());
    });
}

#[test]
fn a_connection_that_is_used_up_meanwhile_stays_used_up() {
    in_native_mode(|scenario| {
        scenario.up(ssh().key("connections = 1"));
        scenario.knock(A, ALICE);
        let limits = "sources = 16384, grants = 500, sessions = 1024";
        let mut flow = None;
        reload_into_other_tables(scenario, limits, || {
            flow = Some(scenario.connected(A, 22));
        });
        assert!(flow.is_some_and(|mut flow| echoes(&mut flow, b"it goes on")));
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn a_grant_that_its_user_closes_meanwhile_stays_closed() {
    in_native_mode(|scenario| {
        keys::configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = keys::new_key(scenario, "carol --gate ssh");
        keys::knock(scenario, &key, "--then 22/tcp").exits(0);
        let limits = "sources = 16384, grants = 500, sessions = 1024";
        reload_into_other_tables(scenario, limits, || {
            keys::knock(scenario, &key, "--close").exits(0);
            scenario.closes(A, "22/tcp");
        });
        scenario.closed(A, "22/tcp");
        assert!(scenario.lab.list("grants").is_empty());
    });
}

#[test]
fn a_session_that_ends_meanwhile_is_not_listed() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.knock(A, ALICE);
        let flow = scenario.connected(A, 22);
        scenario.ends(A);
        let limits = "sources = 16384, grants = 1024, sessions = 500";
        reload_into_other_tables(scenario, limits, || {
            assert_eq!(scenario.lab.list("sessions").len(), 1);
            drop(flow);
            wait_until("both sides have closed", || {
                scenario.lab.list("sessions").is_empty()
            });
        });
        assert!(scenario.lab.list("sessions").is_empty());
    });
}
