//! Grants: whom they admit, for how long, and how they end.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use knockgate_tests::{
    attempt::Outcome,
    gate_config::{ALICE, Gate},
    lab::Source::{A, B, C},
    run::{given_time, wait_until},
    scenario::Scenario,
    service::echoes,
};

use crate::behaviours;

behaviours! {
    ends_in_time_with_no_process_running;
    knocking_again_renews;
    a_session_outlives_its_grant_and_new_connections_do_not;
    one_connection_for_each_grant;
    the_whole_prefix_may_pass;
    given_by_hand;
    given_by_hand_to_a_network;
    revoked_with_its_sessions;
    revoked_all_at_once;
    two_hundred_times_a_connection_right_behind_the_last_knock;
}

/// How far the program's clock may be behind: two timer ticks, of 10 ms at the most.
const TICKS: Duration = Duration::from_millis(20);

/// Returns the usual gate with grants of this length and further keys.
pub fn short(open_for: &str, keys: &str) -> Gate {
    Gate::ssh().open_for(open_for).key(keys)
}

fn ends_in_time_with_no_process_running(scenario: &Scenario) {
    given_time(Duration::from_secs(2), |open_for| {
        scenario.up(short(&format!("{}s", open_for.as_secs()), ""));
        let before = Instant::now();
        scenario.knock(A, ALICE);
        let after = Instant::now();
        let outcome = scenario.attempt(A, "22/tcp", Outcome::Open);
        if before.elapsed() >= open_for {
            scenario.knockgate("down").exits(0);
            return false;
        }
        assert!(
            matches!(outcome, Outcome::Open | Outcome::OpenLate),
            "{outcome:?} before the grant has ended"
        );
        assert_eq!(
            scenario.lab.host.processes(),
            [0; 0],
            "something runs on the host"
        );
        scenario.closes(A, "22/tcp");
        let (lasted, ago) = (before.elapsed(), after.elapsed());
        assert!(lasted >= open_for, "closed too early, after {lasted:?}");
        // Checks without a race that it does not close late: after its end and two ticks of the program's clock, it is
        // closed.
        thread::sleep((open_for + TICKS).saturating_sub(ago));
        scenario.closed(A, "22/tcp");
        assert_eq!(
            scenario.lab.host.processes(),
            [0; 0],
            "something runs on the host"
        );
        true
    });
}

fn knocking_again_renews(scenario: &Scenario) {
    scenario.up(short("1h", ""));
    let left = || {
        let grants = scenario.lab.list("grants");
        grants.first()?["expires_in_ms"].as_u64()
    };
    scenario.knock(A, ALICE);
    wait_until("some of the grant's time is over", || {
        left().is_some_and(|left| left < 3_600_000 - 500)
    });
    let before = left();
    // Time passes between a knock and a look, so another knock may be needed.
    wait_until("the grant lasts longer than it did", || {
        scenario.knock(A, ALICE);
        left() > before
    });
    scenario.open(A, "22/tcp");
    scenario.ends(A);
}

fn a_session_outlives_its_grant_and_new_connections_do_not(scenario: &Scenario) {
    scenario.up(short("1h", "established = \"keep\""));
    scenario.knock(A, ALICE);
    let mut kept = scenario.connected(A, 22);
    assert_echo(&mut kept, b"under the grant");
    scenario.ends(A);
    assert_echo(&mut kept, b"after it");
    scenario.closed(A, "22/tcp");
    assert_echo(&mut kept, b"and still");
}

fn one_connection_for_each_grant(scenario: &Scenario) {
    scenario.up(short("10m", "connections = 1"));
    scenario.knock(A, ALICE);
    let mut only = scenario.connected(A, 22);
    scenario.closed(A, "22/tcp");
    assert_echo(&mut only, b"the one that was admitted");
    scenario.knock(A, ALICE);
    drop(scenario.connected(A, 22));
    scenario.closed(A, "22/tcp");
}

fn the_whole_prefix_may_pass(scenario: &Scenario) {
    scenario.up(short("10m", "grant_to = \"prefix\""));
    scenario.knock(A, ALICE);
    scenario.open(A, "22/tcp");
    scenario.open(B, "22/tcp");
    scenario.closed(C, "22/tcp");
}

fn given_by_hand(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
    scenario.open(A, "22/tcp");
    scenario.closed(B, "22/tcp");
    scenario.ends(A);
    // Without a duration it lasts as long as a grant by knocking.
    scenario.knockgate("allow {A} --gate ssh").exits(0);
    scenario.open(A, "22/tcp");
}

fn given_by_hand_to_a_network(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    scenario
        .knockgate("allow {network} --gate ssh --for 1m")
        .exits(0);
    scenario.open(A, "22/tcp");
    scenario.open(B, "22/tcp");
    scenario.closed(C, "22/tcp");
    // Its address alone has no grant.
    let revoked = scenario.knockgate("revoke {A}");
    revoked
        .exits(0)
        .says(&["has a grant at gate ssh", "goes on to pass"]);
    scenario.open(A, "22/tcp");
    scenario.knockgate("revoke {network}").exits(0);
    scenario.closed(A, "22/tcp");
    scenario.closed(B, "22/tcp");
}

fn revoked_with_its_sessions(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    scenario.knock(A, ALICE);
    scenario.knock(B, ALICE);
    // A flow that both sides have closed is still in the table, but there is nothing left to end.
    drop(scenario.connected(A, 22));
    wait_until("no session is listed", || scenario.lab.session_count() == 0);
    let mut session = scenario.connected(A, 22);
    assert_echo(&mut session, b"while it lasts");
    let revoked = scenario.knockgate("revoke {A} --gate ssh");
    revoked.exits(0).says(&["ended 1 grant and 1 session"]);
    scenario.closed(A, "22/tcp");
    assert_cut(&mut session);
    scenario.open(B, "22/tcp");
    // A source whose grant was revoked can knock again.
    scenario.knock(A, ALICE);
    scenario.open(A, "22/tcp");
}

fn revoked_all_at_once(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    scenario.knock(A, ALICE);
    scenario.knock(C, ALICE);
    scenario.open(A, "22/tcp");
    scenario.open(C, "22/tcp");
    scenario.knockgate("revoke --all").exits(0);
    scenario.closed(A, "22/tcp");
    scenario.closed(C, "22/tcp");
}

/// The first SYN must pass. If it is sent again, the counters say whether it was denied, or only its answer was late, because
/// the machine stood still.
fn two_hundred_times_a_connection_right_behind_the_last_knock(scenario: &Scenario) {
    scenario.up(short("10m", "connections = 1"));
    let denied = || scenario.lab.stats().all_denied();
    let before = denied();
    for round in 1..=200 {
        let outcome = scenario.knock_and_connect(A, ALICE, 22);
        assert!(
            matches!(outcome, Outcome::Open | Outcome::OpenLate),
            "round {round}: {outcome:?}"
        );
    }
    assert_eq!(denied(), before, "SYNs were denied");
    // Each connection has used up its grant, so no round used the grant of an earlier one.
    scenario.closed(A, "22/tcp");
}

#[track_caller]
pub fn assert_echo(stream: &mut TcpStream, text: &[u8]) {
    assert!(echoes(stream, text), "the connection brings nothing back");
}

/// Asserts that the service no longer answers.
#[track_caller]
pub fn assert_cut(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a live socket takes a timeout");
    // The local stack accepts the bytes, whatever happens to them later.
    let _ = stream.write_all(b"anyone?");
    let answer = stream.read(&mut [0; 16]);
    assert!(answer.is_err(), "the session still answers: {answer:?}");
}
