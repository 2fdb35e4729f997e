//! What the screen shows, and what keys do to it. The screens are in `snapshots/`; `INSTA_UPDATE=always cargo test -p
//! knock-user --lib top` writes them anew, to be looked at.

use std::{
    future::{pending, ready},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use insta::assert_snapshot;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Modifier,
};

use super::{
    draw::draw,
    finish,
    rates::Totals,
    state::{Dialog, GateRow, GrantRow, Instance, InterfaceRow, Message, Panel, SourceRow, State},
    theme::Theme,
    update::{Action, update},
};
use crate::{datapath::TableFill, service::Record};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 100_000 * SECOND;

fn instance() -> Instance {
    Instance {
        interfaces: vec![InterfaceRow {
            name: "eth0".to_owned(),
            attach: Ok("native"),
            mode: "enforce",
            try_left: None,
        }],
        gates: vec![
            GateRow {
                name: "ssh".to_owned(),
                protect: "22/tcp".to_owned(),
                grants: 0,
            },
            GateRow {
                name: "vpn".to_owned(),
                protect: "51820/udp 1194/udp".to_owned(),
                grants: 0,
            },
        ],
        up_for: Duration::from_mins(192),
        is_served: Some(true),
    }
}

fn tables(used: [u64; 3]) -> Vec<TableFill> {
    let rows = [
        ("sources", 262_144),
        ("grants", 65_536),
        ("sessions", 262_144),
    ];
    let rows = rows.into_iter().zip(used);
    rows.map(|((name, capacity), used)| TableFill {
        name,
        used,
        capacity,
    })
    .collect()
}

/// An instance that has just come up.
fn empty() -> State {
    let mut state = State {
        instance: Some(instance()),
        tables: tables([0; 3]),
        now: NOW,
        ..State::default()
    };
    state.rates.add(Totals::default(), Duration::ZERO);
    state.rates.add(Totals::default(), Duration::from_secs(1));
    state
}

fn grants(count: u64) -> Vec<GrantRow> {
    let (ssh, vpn): (Rc<str>, Rc<str>) = ("ssh".into(), "vpn".into());
    let users: [Rc<str>; 3] = ["alice".into(), "bob".into(), "backup-host.example".into()];
    let row = |number: u64| {
        let low = u8::try_from(number % 250).unwrap_or_default();
        let source: IpAddr = if number.is_multiple_of(5) {
            format!("2001:db8:85a3:8d3:1319:8a2e:370:{number:x}")
                .parse()
                .expect("an address")
        } else {
            IpAddr::from([198, 51, 100, low])
        };
        let user = users.get(usize::try_from(number % 4).unwrap_or_default());
        GrantRow {
            gate_id: u16::from(number % 3 == 1),
            gate: Rc::clone(if number % 3 == 1 { &vpn } else { &ssh }),
            user: user.map(Rc::clone),
            source: source.into(),
            until: NOW + (number + 1) * 37 * SECOND / 4,
            connections: u32::try_from(number).unwrap_or_default(),
        }
    };
    (0..count).map(row).collect()
}

/// A gate with much going on.
fn full() -> State {
    let mut state = empty();
    for step in 0..400_u64 {
        let wave = step % 40;
        let totals = Totals {
            passed: 20_000 * step + 300 * wave * wave,
            denied: 1_000_000 * step / 3 + if wave == 7 { 3_000_000 } else { 0 },
            knocks: 3 * step,
        };
        state.rates.add(totals, Duration::from_secs(1));
    }
    state.tables = tables([262_144, 60_000, 1_234]);
    state.grants.set(grants(60), "");
    let gates = state.instance.as_mut().expect("it is up");
    gates.gates[0].grants = 40;
    gates.gates[1].grants = 20;
    let source = |number: u8| SourceRow {
        source: IpAddr::from([203, 0, 113, number]),
        step: number % 3 + 1,
        of: 4,
        gates: "ssh vpn".into(),
        latest: NOW - u64::from(number) * SECOND / 3,
    };
    state.sources.set((0..30).map(source).collect(), "");
    for number in 0..200_u8 {
        let record = Record {
            source: Some(format!("192.0.2.{}", number % 13)),
            gate: Some("ssh".to_owned()),
            port: Some("22/tcp".parse().expect("a port")),
            reason: Some("no_grant".to_owned()),
            ..Record::now("packet.denied")
        };
        // Its time is that of the clock on the wall: the same second, however slow this machine is.
        state.denied.add(&record, NOW + 20 * SECOND);
    }
    let lost = Record {
        lost: Some(1234),
        ..Record::now("events.lost")
    };
    state.denied.add(&lost, NOW + 20 * SECOND);
    let mut rows = state.denied.rows(NOW + 20 * SECOND);
    for row in &mut rows {
        row.latest = NOW - 400_000_000;
    }
    state.denied_rows.set(rows, "");
    state
}

fn buffer(state: &mut State, width: u16, height: u16, theme: Theme) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
    terminal
        .draw(|frame| draw(frame, state, theme))
        .expect("drawn");
    terminal
}

fn screen(state: &mut State, width: u16, height: u16) -> String {
    buffer(state, width, height, Theme::FULL)
        .backend()
        .to_string()
}

fn key(state: &mut State, code: KeyCode) -> Action {
    update(state, KeyEvent::new(code, KeyModifiers::NONE))
}

fn keys(state: &mut State, text: &str) {
    for c in text.chars() {
        assert_eq!(key(state, KeyCode::Char(c)), Action::None, "{c}");
    }
}

/// The text at which the cells have a modifier, all of them together.
fn marked(buffer: &Buffer, modifier: Modifier) -> String {
    let cells = buffer.content().iter();
    let marked = cells.filter(|cell| cell.modifier.contains(modifier));
    marked.map(ratatui::buffer::Cell::symbol).collect()
}

#[test]
fn an_empty_gate() {
    assert_snapshot!("empty_80x24", screen(&mut empty(), 80, 24));
    assert_snapshot!("empty_140x40", screen(&mut empty(), 140, 40));
}

#[test]
fn a_full_gate() {
    assert_snapshot!("full_80x24", screen(&mut full(), 80, 24));
    assert_snapshot!("full_140x40", screen(&mut full(), 140, 40));
}

#[test]
fn an_interface_that_is_not_guarded_is_first_and_stands_out() {
    let mut state = full();
    let instance = state.instance.as_mut().expect("it is up");
    instance.interfaces.push(InterfaceRow {
        name: "eth1".to_owned(),
        attach: Err("the program was detached, or the interface was made again".to_owned()),
        mode: "enforce",
        try_left: None,
    });
    assert_snapshot!("not_guarded_80x24", screen(&mut state, 80, 24));
    // Without colours, too.
    for theme in [Theme::FULL, Theme::PLAIN] {
        let terminal = buffer(&mut state, 80, 24, theme);
        let marked = marked(terminal.backend().buffer(), Modifier::REVERSED);
        assert!(marked.contains("eth1 is NOT GUARDED"), "{marked}");
    }
}

#[test]
fn a_trial_counts_down_and_monitor_mode_is_named() {
    let mut state = empty();
    let instance = state.instance.as_mut().expect("it is up");
    instance.interfaces[0].try_left = Some(Duration::from_secs(92));
    instance.interfaces[0].mode = "monitor";
    let screen = screen(&mut state, 80, 24);
    assert!(screen.contains("TRIAL: lapses in 1m 32s"), "{screen}");
    assert!(screen.contains("eth0        native  monitor"), "{screen}");
}

#[test]
fn nothing_up_any_more() {
    let mut state = full();
    state.instance = None;
    state.rates.add_nothing();
    state.tables.clear();
    state.grants.set(Vec::new(), "");
    state.sources.set(Vec::new(), "");
    assert_snapshot!("nothing_up_80x24", screen(&mut state, 80, 24));
}

#[test]
fn without_colours_and_symbols_everything_is_ascii() {
    let mut state = full();
    key(&mut state, KeyCode::Char('?'));
    let terminal = buffer(&mut state, 80, 24, Theme::PLAIN);
    let buffer = terminal.backend().buffer();
    let colours = buffer.content().iter().map(|cell| (cell.fg, cell.bg));
    let reset = ratatui::style::Color::Reset;
    assert!(colours.into_iter().all(|cell| cell == (reset, reset)));
    assert!(buffer.content().iter().all(|cell| cell.symbol().is_ascii()));
}

#[test]
fn every_size_is_drawn() {
    for dialog in [None, Some(Dialog::Help)] {
        let mut state = full();
        state.dialog = dialog;
        for width in [1, 2, 10, 39, 40, 41, 79, 120, 300] {
            for height in [1, 2, 3, 13, 14, 15, 33, 34, 100] {
                screen(&mut state, width, height);
            }
        }
    }
    assert_snapshot!("small_30x8", screen(&mut full(), 30, 8));
}

#[test]
fn dialogs() {
    let mut state = full();
    keys(&mut state, "?");
    assert_snapshot!("help_80x24", screen(&mut state, 80, 24));
    keys(&mut state, "xr");
    assert_snapshot!("revoke_80x24", screen(&mut state, 80, 24));
}

#[test]
fn a_grant_is_revoked_only_by_a_plain_yes() {
    let mut state = full();
    key(&mut state, KeyCode::Down);
    let selected = state.grants.selected().expect("a row").clone();
    for answer in ['n', 'q'] {
        keys(&mut state, "r");
        assert_eq!(key(&mut state, KeyCode::Char(answer)), Action::None);
        assert_eq!(state.dialog, None);
    }
    keys(&mut state, "rxs");
    assert!(matches!(state.dialog, Some(Dialog::Revoke { .. })));
    // Rows that have come in between do not change what is answered.
    state.grants.set(grants(3), "");
    let expected = Action::Revoke {
        source: selected.source,
        gate: selected.gate,
    };
    assert_eq!(key(&mut state, KeyCode::Char('y')), expected);
    // There is nothing to revoke in other lists, or where there is no row.
    state.panel = Panel::Denied;
    keys(&mut state, "r");
    assert_eq!(state.dialog, None);
    state.panel = Panel::Grants;
    state.grants.set(Vec::new(), "");
    keys(&mut state, "r");
    assert_eq!(state.dialog, None);
}

#[test]
fn a_filter_is_typed_kept_and_taken_back() {
    let mut state = full();
    let all = state.grants.shown().len();
    keys(&mut state, "/bob");
    let some = state.grants.shown().len();
    assert!(0 < some && some < all, "{some} of {all}");
    assert!(screen(&mut state, 80, 24).contains("filter: bob"));
    // Esc while it is typed: as before.
    key(&mut state, KeyCode::Esc);
    assert_eq!(
        (state.filter.as_str(), state.grants.shown().len()),
        ("", all)
    );
    keys(&mut state, "/bobq");
    key(&mut state, KeyCode::Backspace);
    key(&mut state, KeyCode::Enter);
    assert_eq!(
        (state.filter.as_str(), state.dialog.as_ref()),
        ("bob", None)
    );
    // New rows are filtered, too.
    state.grants.set(grants(40), &state.filter.clone());
    assert!(
        state
            .grants
            .shown()
            .all(|row| row.user.as_deref() == Some("bob"))
    );
    key(&mut state, KeyCode::Esc);
    assert_eq!(state.grants.shown().len(), 40);
}

#[test]
fn the_cursor_stays_on_its_row() {
    let mut state = full();
    for _ in 0..5 {
        key(&mut state, KeyCode::Down);
    }
    let selected = |state: &State| state.grants.selected().map(|row| row.source);
    let row = selected(&state);
    // The first grants have ended.
    state.grants.set(grants(60).split_off(3), "");
    assert_eq!(selected(&state), row);
    keys(&mut state, "s");
    assert_eq!(state.grants.sort_name(), "ends last");
    assert_eq!(state.grants.cursor, 0);
    key(&mut state, KeyCode::End);
    assert_eq!(state.grants.cursor, 56);
    key(&mut state, KeyCode::Home);
    assert_eq!(state.grants.cursor, 0);
    key(&mut state, KeyCode::Up);
    assert_eq!(state.grants.cursor, 0);
}

#[test]
fn control_keys_quit_and_suspend_from_anywhere() {
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    for dialog in [
        None,
        Some(Dialog::Help),
        Some(Dialog::Filter(String::new())),
    ] {
        let mut state = full();
        state.dialog = dialog.clone();
        assert_eq!(update(&mut state, control('z')), Action::Suspend);
        assert_eq!(state.dialog, dialog);
        assert_eq!(update(&mut state, control('c')), Action::Quit);
    }
    assert_eq!(key(&mut full(), KeyCode::Char('q')), Action::Quit);
}

/// What the fleet is being told when the user quits.
fn telling(answers: &[(u64, bool)]) -> tokio::task::JoinSet<Message> {
    let answers = answers.iter().copied();
    answers
        .map(|(seconds, is_error)| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Message {
                text: format!("the answer after {seconds} s"),
                is_error,
            }
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_fleet_is_told() {
    let begun = tokio::time::Instant::now();
    finish(telling(&[(3, false), (20, false)]), pending())
        .await
        .expect("all were told");
    assert_eq!(begun.elapsed().as_secs(), 20);
    let error = finish(telling(&[(20, true), (30, false)]), pending())
        .await
        .expect_err("one was not told");
    assert_eq!(error.to_string(), "the answer after 20 s");
    assert_eq!(begun.elapsed().as_secs(), 50);
    let error = finish(telling(&[(20, false)]), ready(()))
        .await
        .expect_err("it was told to end");
    assert!(error.to_string().contains("at this host alone"), "{error}");
    // Nothing to tell.
    finish(telling(&[]), ready(()))
        .await
        .expect("nothing is due");
    assert_eq!(begun.elapsed().as_secs(), 50);
}
