use bytemuck::Zeroable as _;

use super::{
    send::{send, wants},
    *,
};
use crate::{event::NOBODY, testing::TestEnv};

const OUTCOMES: [(Kind, Cause, u32); 8] = [
    (Kind::Opened, Cause::None, class::OPENINGS),
    (Kind::Refused, Cause::TableFull, class::REFUSALS),
    (Kind::Closed, Cause::Used, class::CLOSINGS),
    (Kind::Failed, Cause::Late, class::FAILURES),
    (Kind::Failed, Cause::Source, class::FAILURES),
    (Kind::Failed, Cause::Wrong, class::STEPS),
    (Kind::Failed, Cause::Stale, class::REJECTED),
    (Kind::Captured, Cause::Replay, class::CAPTURES),
];

fn env() -> TestEnv {
    TestEnv::new(1, 1)
}

/// Reports an event at its time.
fn report(env: &TestEnv, event: Event) {
    env.now.set(event.time);
    let class = class_of_event(&event);
    if wants(env, class) {
        send(env, class, &event);
    }
}

fn class_of_event(event: &Event) -> u32 {
    let kind = Kind::from_number(event.kind).unwrap();
    class_of(kind, Cause::from_number(event.cause).unwrap())
}

fn sent(env: &TestEnv) -> Vec<Event> {
    env.events.borrow().clone()
}

fn lost(env: &TestEnv) -> u64 {
    let budgets = env.report_budgets.rows().into_iter();
    budgets.map(|(_, budget)| budget.lost).sum()
}

fn event((kind, cause): (Kind, Cause), user: u32, time: u64) -> Event {
    Event {
        kind: kind as u8,
        cause: cause as u8,
        user,
        // Each from a source of its own.
        source: V6::from_words(time, user.into()),
        family: 4,
        time,
        ..Event::zeroed()
    }
}

#[test]
fn every_class_is_bounded_and_what_is_left_out_is_counted() {
    for (kind, cause, class) in OUTCOMES {
        assert_eq!(class_of(kind, cause), class);
        let env = env();
        let all = 100_000;
        // Of as many users as there may be, over one second.
        for number in 0..all {
            let time = u64::from(number) * 1_000_000_000 / u64::from(all);
            report(&env, event((kind, cause), number, time));
        }
        let sent = sent(&env).len();
        assert_eq!(sent, Limits::of(class).sent as usize, "{kind:?} {cause:?}");
        assert_eq!(lost(&env) + sent as u64, u64::from(all));
        // The next second begins anew.
        report(&env, event((kind, cause), NOBODY, 1_000_000_000));
        assert_eq!(env.events.borrow().len(), sent + 1);
    }
}

#[test]
fn no_class_takes_anothers_room() {
    let env = env();
    for (kind, cause, _) in OUTCOMES {
        for user in 0..1000 {
            report(&env, event((kind, cause), user, 5));
        }
    }
    for class in [
        class::OPENINGS,
        class::REFUSALS,
        class::CLOSINGS,
        class::FAILURES,
    ] {
        let of_class = sent(&env)
            .into_iter()
            .filter(|event| class_of_event(event) == class);
        assert_eq!(of_class.count(), 64, "{class}");
    }
}

/// One sequence is knocked as fast as packets come.
#[test]
fn other_users_openings_are_reported() {
    const FLOOD: u32 = 1;
    let env = env();
    let opened = (Kind::Opened, Cause::None);
    for time in (0..3_000_000_000_u64).step_by(10_000) {
        report(&env, event(opened, FLOOD, time));
        if time % 100_000_000 == 50_000_000 {
            report(&env, event(opened, 2, time + 1));
        }
    }
    let sent = sent(&env);
    let of = |user| sent.iter().filter(|event| event.user == user).count();
    assert_eq!(of(2), 30, "one every tenth of a second");
    assert!((40..=3 * 40).contains(&of(FLOOD)), "{}", of(FLOOD));
}

#[test]
fn few_outcomes_are_all_reported() {
    let env = env();
    for _ in 0..16 {
        report(&env, event((Kind::Opened, Cause::None), 1, 7));
    }
    assert_eq!((sent(&env).len(), lost(&env)), (16, 0));
}

#[test]
fn a_denial_stands_for_all_of_its_source() {
    let env = env();
    let denied = event((Kind::Denied, Cause::NoGrant), NOBODY, 7);
    for _ in 0..100 {
        report(&env, denied);
    }
    assert_eq!((sent(&env).len(), lost(&env)), (1, 0));
}
