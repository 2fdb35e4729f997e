//! What is old opens nothing, and no clock of another host decides when a grant ends.

use super::{
    interleavings::{restart, restart_as, restart_with},
    *,
};

/// Two hosts that have said that they are there. The clock of the first one is ahead by so many seconds.
fn ahead_by(seconds: i64) -> Fleet {
    let mut fleet = Fleet::new(2);
    fleet.nodes[0].skew = seconds * 1_000_000;
    fleet.settle();
    fleet.now += 6 * SECOND;
    fleet.settle();
    fleet
}

/// Knocks at the first host, and asserts that the second one opens too.
#[track_caller]
fn opens_at_the_other(fleet: &mut Fleet) {
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.nodes[1].refused, []);
    assert_eq!(fleet.open(1).len(), 1);
}

#[test]
fn a_grant_that_is_heard_again_opens_no_longer_than_this_hosts_own_time() {
    let mut fleet = joined(2);
    fleet.nodes[1].rules.open_for = 5 * SECOND;
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
    fleet.now += 10 * SECOND;
    assert!(fleet.open(1).is_empty());
    // Read again, by this service and by the next one.
    reconnect(&mut fleet, 1);
    fleet.settle();
    assert!(fleet.open(1).is_empty());
    restart(&mut fleet, 1);
    fleet.settle();
    assert!(fleet.open(1).is_empty());
    // Written again as it was, and published again.
    let grants = fleet.store.copies(grants());
    for (key, value) in grants {
        fleet.write(key, value);
    }
    fleet.settle();
    assert!(fleet.open(1).is_empty());
    lose_everything(&mut fleet);
    fleet.settle();
    assert_eq!(fleet.nodes[0].state.published, 2);
    assert!(fleet.open(1).is_empty());
    // Another knock is another grant.
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
}

#[test]
fn a_record_that_is_written_again_opens_no_longer_than_it_did() {
    let mut fleet = joined(1);
    let first = fleet.grant("alice", 10_000);
    fleet.write_grant("ssh", place(0, 1).1, &first);
    fleet.settle();
    let ends = fleet.nodes[0].tables[&place(0, 1)].until;
    fleet.now += 4 * SECOND;
    fleet.nodes[0].tables.clear();
    fleet.write_grant("ssh", place(0, 1).1, &first);
    fleet.settle();
    let again = fleet.nodes[0].tables[&place(0, 1)].until;
    // By as much as its clock may be slower.
    assert!(again <= ends + SECOND / 20, "{}", again - ends);
    fleet.now += 7 * SECOND;
    fleet.nodes[0].tables.clear();
    fleet.write_grant("ssh", place(0, 1).1, &first);
    fleet.settle();
    assert!(fleet.open(0).is_empty());
    assert_eq!(fleet.nodes[0].refused, [Refusal::Stale]);
}

#[test]
fn what_an_absent_host_has_given_is_not_new_to_the_next_service() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    let old = fleet.store.copies(grants());
    fleet.now += 40 * SECOND;
    fleet.settle();
    // It is taken away for good, with its records.
    fleet.nodes.remove(0);
    fleet
        .store
        .sweep(|key| key.starts_with("host/") || key.starts_with("grant/"));
    restart_as(&mut fleet, 0, 1);
    // This host's clock says nothing against it.
    fleet.nodes[0].skew = -3_600_000_000;
    fleet.settle();
    for (key, value) in old {
        fleet.write(key, value);
    }
    fleet.settle();
    assert!(fleet.open(0).is_empty());
    assert_eq!(fleet.nodes[0].refused, [Refusal::Stale]);
}

#[test]
fn clocks_that_are_wrong_change_nothing() {
    for skew in [3_600_000_000, -3_600_000_000] {
        let mut fleet = Fleet::new(2);
        fleet.nodes[1].skew = skew;
        fleet.settle();
        // Each has said that it is there since the other has come.
        fleet.now += 6 * SECOND;
        fleet.settle();
        fleet.knock(0, place(0, 1));
        fleet.knock(1, place(0, 2));
        fleet.settle();
        assert!((0..2).all(|nth| fleet.open(nth).len() == 2), "{skew}");
        // After it was cut off, too.
        fleet.nodes[1].link.cut();
        fleet.knock(0, place(1, 3));
        fleet.now += 20 * SECOND;
        fleet.nodes[1].link.is_cut = false;
        let ends = fleet.nodes[0].tables[&place(1, 3)].until;
        fleet.settle();
        let here = fleet.nodes[1].tables[&place(1, 3)].until;
        assert!(here <= ends && here + SECOND > ends, "{skew}");
    }
}

#[test]
fn a_host_whose_clock_is_set_back_goes_on() {
    let mut fleet = joined(2);
    fleet.now += 6 * SECOND;
    fleet.settle();
    fleet.nodes[0].skew = -3_600_000_000;
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 1);
    // Also when its service is started again.
    restart(&mut fleet, 0);
    fleet.settle();
    fleet.knock(0, place(0, 2));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 2);
    // And where the engine does not know any more what it has said.
    lose_everything(&mut fleet);
    for nth in 0..2 {
        restart(&mut fleet, nth);
    }
    fleet.settle();
    fleet.knock(0, place(0, 3));
    fleet.settle();
    assert_eq!(fleet.open(1).len(), 3);
    assert!(fleet.nodes[1].refused.is_empty());
}

#[test]
fn the_time_of_a_host_whose_clock_was_set_back_goes_on_while_it_is_away() {
    for is_suspended in [false, true] {
        let mut fleet = ahead_by(600);
        fleet.nodes[0].skew = 0;
        fleet.nodes[0].link.cut();
        if is_suspended {
            fleet.nodes[0].suspended += 120 * SECOND;
            fleet.now += 120 * SECOND;
        } else {
            // What it has left is as old as that.
            let memory = fleet.nodes[0].state.memory(fleet.moment(0));
            fleet.now += 120 * SECOND;
            restart_with(&mut fleet, 0, memory);
        }
        fleet.nodes[0].link.is_cut = false;
        fleet.settle();
        opens_at_the_other(&mut fleet);
    }
}

/// Its clock was ahead once, so its time is still.
#[test]
fn a_host_that_was_off_for_days_opens_at_the_others() {
    let mut fleet = ahead_by(600);
    fleet.nodes[0].skew = 0;
    let memory = fleet.nodes[0].state.memory(fleet.moment(0));
    fleet.now += 2 * 24 * 3600 * SECOND;
    fleet.boot = "second".to_owned();
    restart_with(&mut fleet, 0, memory);
    fleet.settle();
    opens_at_the_other(&mut fleet);
}

/// By its own clock, less time has gone by than that.
#[test]
fn a_host_whose_clock_is_behind_after_a_boot_opens_at_the_others() {
    // Ahead, and then right; ahead, and then behind until it is set right; right, and then behind.
    for (before, then) in [(3_600, 0), (600, -1_200), (0, -600)] {
        let mut fleet = ahead_by(before);
        if before != 3_600 {
            fleet.nodes[0].skew = 0;
        }
        let memory = fleet.nodes[0].state.memory(fleet.moment(0));
        fleet.now += 1_200 * SECOND;
        fleet.boot = "second".to_owned();
        fleet.nodes[0].skew = then * 1_000_000;
        restart_with(&mut fleet, 0, memory);
        fleet.nodes[0].skew = 0;
        fleet.settle();
        opens_at_the_other(&mut fleet);
    }
}

/// Of a host that is gone, a newcomer knows the time by its own clock alone.
#[test]
fn what_a_host_gave_whose_clock_was_behind_after_a_boot_ends_in_time() {
    for (away, is_over) in [(10, false), (40, true)] {
        let mut fleet = joined(2);
        fleet.now += 6 * SECOND;
        fleet.settle();
        let memory = fleet.nodes[0].state.memory(fleet.moment(0));
        fleet.now += 60 * SECOND;
        fleet.boot = "second".to_owned();
        fleet.nodes[0].skew = -7 * 3_600_000_000;
        restart_with(&mut fleet, 0, memory);
        fleet.settle();
        fleet.nodes[0].skew = 0;
        fleet.now += 6 * SECOND;
        fleet.settle();
        let ahead = fleet.nodes[0].state.memory(fleet.moment(0)).serial - fleet.wall();
        assert!(ahead <= HOUR, "{ahead}");
        fleet.knock(0, place(0, 1));
        fleet.settle();
        let ends = fleet.nodes[0].tables[&place(0, 1)].until;
        fleet.nodes[0].link.cut();
        fleet.now += away * SECOND;
        restart_with(&mut fleet, 1, Memory::default());
        fleet.nodes[1].tables.clear();
        fleet.settle();
        assert_eq!(fleet.open(1).is_empty(), is_over, "{away} s");
        if !is_over {
            let here = fleet.nodes[1].tables[&place(0, 1)].until;
            assert!(here <= ends + SECOND, "{}", here - ends);
        }
    }
}

/// Its steady clock stands still meanwhile, and its wall clock is set right after it.
#[test]
fn a_host_whose_machine_was_paused_opens_at_the_others() {
    let mut fleet = ahead_by(60);
    fleet.nodes[0].skew = 0;
    fleet.now += 6 * SECOND;
    fleet.settle();
    fleet.nodes[0].paused = 3600 * SECOND;
    fleet.now += 3600 * SECOND;
    fleet.settle();
    opens_at_the_other(&mut fleet);
}

/// As where a machine's clock is set right by the network soon after each start.
#[test]
fn a_host_whose_clock_is_ahead_whenever_it_starts_opens_at_the_others() {
    const AHEAD: i64 = 600_000_000;
    for is_booted in [false, true] {
        let mut fleet = joined(2);
        for life in 1..=4 {
            let memory = fleet.nodes[0].state.memory(fleet.moment(0));
            fleet.now += 60 * SECOND;
            if is_booted {
                fleet.boot = format!("boot {life}");
            }
            fleet.nodes[0].skew = AHEAD;
            restart_with(&mut fleet, 0, memory);
            fleet.nodes[0].skew = 0;
            fleet.settle();
            fleet.knock(0, place(0, life));
            fleet.settle();
            assert!(fleet.open(1).contains(&place(0, life)), "{is_booted}");
        }
        assert_eq!(fleet.nodes[1].refused, [], "{is_booted}");
        // In one boot, what has gone by is known without that clock.
        let ahead = fleet.nodes[0].state.memory(fleet.moment(0)).serial - fleet.wall();
        let most = AHEAD.unsigned_abs() * if is_booted { 4 } else { 1 };
        assert!(ahead <= most + 1_000_000, "{is_booted}: {ahead}");
    }
}

/// As where a machine has no clock that goes on while it is off, and its service is killed before it has written anything else down.
#[test]
fn a_host_whose_clock_was_years_back_is_not_years_ahead_later() {
    const YEARS: i64 = 6 * 365 * 24 * 3_600_000_000;
    for is_booted in [false, true] {
        let mut fleet = joined(2);
        fleet.nodes[0].skew = -YEARS;
        restart(&mut fleet, 0);
        let memory = fleet.nodes[0].state.memory(fleet.moment(0));
        fleet.nodes[0].skew = 0;
        fleet.now += 60 * SECOND;
        if is_booted {
            fleet.boot = "second".to_owned();
        }
        restart_with(&mut fleet, 0, memory);
        fleet.settle();
        fleet.knock(0, place(0, 1));
        fleet.settle();
        assert_eq!(fleet.open(1).len(), 1, "{is_booted}");
        assert_eq!(fleet.nodes[1].refused, [], "{is_booted}");
        let ahead = fleet.nodes[0].state.memory(fleet.moment(0)).serial - fleet.wall();
        let most = if is_booted { DAY } else { 0 };
        assert!(ahead <= most + 1_000_000, "{is_booted}: {ahead}");
    }
}

#[test]
fn a_service_that_is_started_again_prolongs_nothing_of_a_host_that_is_cut_off() {
    let mut fleet = joined(2);
    fleet.now += 6 * SECOND;
    fleet.settle();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet.nodes[0].link.cut();
    let ends = fleet.nodes[1].tables[&place(0, 1)].until;
    fleet.now += 20 * SECOND;
    fleet.nodes[1].skew = -3_600_000_000;
    restart(&mut fleet, 1);
    fleet.settle();
    let here = fleet.nodes[1].tables[&place(0, 1)].until;
    // By as much as its clock may be slower.
    assert!(here <= ends + SECOND / 20, "{}", here - ends);
}

/// Its wall clock, by which a grant that is heard again ends at the latest, is behind.
#[test]
fn a_service_that_was_away_prolongs_nothing_and_gives_nothing_that_has_ended() {
    for (away, is_over) in [(20, false), (40, true)] {
        let mut fleet = Fleet::new(2);
        fleet.settle();
        fleet.now += 6 * SECOND;
        fleet.settle();
        fleet.knock(0, place(0, 1));
        fleet.settle();
        fleet.nodes[0].link.cut();
        let ends = fleet.nodes[1].tables[&place(0, 1)].until;
        let memory = fleet.nodes[1].state.memory(fleet.moment(1));
        fleet.now += away * SECOND;
        fleet.nodes[1].skew = -3_600_000_000;
        restart_with(&mut fleet, 1, memory);
        fleet.settle();
        let here = fleet.nodes[1].tables[&place(0, 1)].until;
        assert!(here <= ends + SECOND / 20, "{away} s: {}", here - ends);
        assert_eq!(fleet.open(1).is_empty(), is_over, "{away} s");
    }
}

/// What ends later is another grant: one that is used up would admit connections again.
#[test]
fn a_service_that_is_started_again_renews_no_grant_that_was_not_renewed() {
    let mut fleet = Fleet::new(2);
    fleet.nodes[1].skew = -3_000_000;
    fleet.settle();
    fleet.now += 6 * SECOND;
    fleet.settle();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    let ends = fleet.nodes[1].tables[&place(0, 1)].until;
    fleet.now += 4 * SECOND;
    restart(&mut fleet, 1);
    fleet.settle();
    assert_eq!(fleet.nodes[1].tables[&place(0, 1)].until, ends);
    // One that was renewed meanwhile is, once it is known what time it is there.
    restart(&mut fleet, 1);
    fleet.nodes[1].link.cut();
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet.nodes[1].link.is_cut = false;
    fleet.settle();
    fleet.now += 6 * SECOND;
    fleet.settle();
    let here = fleet.nodes[1].tables[&place(0, 1)].until;
    let there = fleet.nodes[0].tables[&place(0, 1)].until;
    assert!(here > ends && here <= there && here + SECOND > there);
}

#[test]
fn what_a_host_gave_before_it_was_suspended_is_not_given_again_after() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    fleet.now += 40 * SECOND;
    fleet.nodes[0].suspended += 35 * SECOND;
    // Its own kernel does not count the time that the machine was suspended.
    let now = fleet.moment(0).monotonic;
    assert!(fleet.nodes[0].tables[&place(0, 1)].until > now);
    assert!(fleet.open(1).is_empty());
    lose_everything(&mut fleet);
    fleet.settle();
    assert!(fleet.nodes[0].state.published > 1);
    assert!(fleet.open(1).is_empty());
}

#[test]
fn time_goes_on_for_others_while_a_host_is_suspended() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    let old = fleet.store.copies(grants());
    fleet.nodes[1].tables.clear();
    fleet.now += 31 * SECOND;
    fleet.nodes[1].suspended = 31 * SECOND;
    // As what was on its way is heard first.
    for (key, value) in old {
        fleet.write(key, value);
    }
    while fleet.step(1, 0, true) {}
    assert!(fleet.nodes[1].tables.is_empty());
    assert_eq!(fleet.nodes[1].refused, [Refusal::Stale]);
}

#[test]
fn how_long_a_record_takes_is_not_measured_by_one_that_is_written_again() {
    let mut fleet = joined(2);
    fleet.knock(0, place(0, 1));
    fleet.settle();
    assert_eq!(fleet.nodes[0].lags.len(), 1);
    let old = fleet.store.copies(grants());
    reconnect(&mut fleet, 0);
    fleet.settle();
    for (key, value) in old {
        fleet.write(key, value);
    }
    fleet.settle();
    assert_eq!(fleet.nodes[0].lags.len(), 1, "{:?}", fleet.nodes[0].lags);
}

/// As by `revoke --here`, or as its user has closed it.
#[test]
fn what_was_ended_here_is_not_given_again_once_the_time_of_its_host_is_known() {
    for restarted in [false, true] {
        for skew in [0, 15_000_000] {
            let mut fleet = joined(2);
            fleet.nodes[1].skew = skew;
            fleet.now += 6 * SECOND;
            fleet.settle();
            fleet.knock(0, place(0, 1));
            fleet.settle();
            let there = fleet.nodes[1].tables.get_mut(&place(0, 1));
            there.expect("it was given").until -= SECOND / 10;
            fleet.nodes[0].link.cut();
            if restarted {
                restart(&mut fleet, 1);
            } else {
                reconnect(&mut fleet, 1);
            }
            fleet.settle();
            assert_eq!(fleet.open(1).len(), 1);
            fleet.nodes[1].tables.clear();
            fleet.nodes[0].link.is_cut = false;
            fleet.now += 6 * SECOND;
            fleet.settle();
            assert!(fleet.open(1).is_empty(), "{restarted}, {skew}");
        }
    }
}
