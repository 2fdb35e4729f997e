//! What a key does.

use std::rc::Rc;

use ipnet::IpNet;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{Dialog, Panel, State};

/// Rows that a page is taken for.
const PAGE: isize = 10;
/// Characters of a filter, at most.
const LONGEST_FILTER: usize = 64;

/// What the caller is to do about a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the state has changed, or not.
    None,
    Quit,
    /// Give the terminal back and stop.
    Suspend,
    Revoke {
        source: IpNet,
        gate: Rc<str>,
    },
}

/// Changes the state by a key.
pub fn update(state: &mut State, key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Action::Quit,
            KeyCode::Char('z') => Action::Suspend,
            _ => Action::None,
        };
    }
    state.message = None;
    match state.dialog.take() {
        None => at_lists(state, key.code),
        // Any key leads back.
        Some(Dialog::Help) => Action::None,
        Some(Dialog::Filter(before)) => {
            at_filter(state, key.code, before);
            Action::None
        }
        Some(Dialog::Revoke { source, gate }) => match key.code {
            KeyCode::Char('y' | 'Y') => Action::Revoke { source, gate },
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => Action::None,
            _ => {
                // A key pressed by mistake answers no question.
                state.dialog = Some(Dialog::Revoke { source, gate });
                Action::None
            }
        },
    }
}

fn at_lists(state: &mut State, key: KeyCode) -> Action {
    match key {
        KeyCode::Char('q') => return Action::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => state.dialog = Some(Dialog::Help),
        KeyCode::Char('p' | ' ') => state.paused = !state.paused,
        KeyCode::Char('/') => state.dialog = Some(Dialog::Filter(state.filter.clone())),
        KeyCode::Esc => {
            state.filter.clear();
            state.arrange();
        }
        KeyCode::Tab => state.panel = state.panel.next(),
        KeyCode::BackTab => state.panel = state.panel.previous(),
        KeyCode::Char('1') => state.panel = Panel::Grants,
        KeyCode::Char('2') => state.panel = Panel::Sources,
        KeyCode::Char('3') => state.panel = Panel::Denied,
        KeyCode::Char('s') => match state.panel {
            Panel::Grants => state.grants.sort_next(&state.filter),
            Panel::Sources => state.sources.sort_next(&state.filter),
            Panel::Denied => state.denied_rows.sort_next(&state.filter),
        },
        KeyCode::Down | KeyCode::Char('j') => step(state, 1),
        KeyCode::Up | KeyCode::Char('k') => step(state, -1),
        KeyCode::PageDown => step(state, PAGE),
        KeyCode::PageUp => step(state, -PAGE),
        KeyCode::Home => step(state, isize::MIN),
        KeyCode::End => step(state, isize::MAX),
        KeyCode::Char('r') if state.panel == Panel::Grants => {
            let selected = state.grants.selected();
            state.dialog = selected.map(|row| Dialog::Revoke {
                source: row.source,
                gate: Rc::clone(&row.gate),
            });
        }
        _ => {}
    }
    Action::None
}

fn at_filter(state: &mut State, key: KeyCode, before: String) {
    match key {
        KeyCode::Enter => return,
        KeyCode::Esc => {
            state.filter = before;
            state.arrange();
            return;
        }
        KeyCode::Backspace => {
            state.filter.pop();
        }
        KeyCode::Char(c) if state.filter.len() < LONGEST_FILTER => state.filter.push(c),
        _ => {}
    }
    state.dialog = Some(Dialog::Filter(before));
    state.arrange();
}

fn step(state: &mut State, by: isize) {
    match state.panel {
        Panel::Grants => state.grants.step(by),
        Panel::Sources => state.sources.step(by),
        Panel::Denied => state.denied_rows.step(by),
    }
}
