//! Draws the state.

mod dialog;
mod header;
mod lists;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::{
    state::{Dialog, State},
    theme::Theme,
};

/// Smaller terminals show the head alone.
const NARROWEST: u16 = 40;
const LOWEST: u16 = 14;
/// From here on, lists stand side by side.
const WIDE: u16 = 120;
/// From here on, there is room for bars of several lines.
const HIGH: u16 = 34;

pub fn draw(frame: &mut Frame<'_>, state: &mut State, theme: Theme) {
    let area = frame.area();
    if area.width < NARROWEST || area.height < LOWEST {
        header::draw_small(frame, area, state, theme);
        return;
    }
    let head = header::lines(state, theme, area.width);
    let bars = if area.height >= HIGH { 3 } else { 1 };
    let [top, rates, body, bottom] = Layout::vertical([
        Constraint::Length(u16::try_from(head.len()).unwrap_or(u16::MAX)),
        Constraint::Length(3 * bars),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    for (line, row) in head.into_iter().zip(rows(top)) {
        frame.render_widget(line, row);
    }
    header::draw_rates(frame, rates, state, theme);
    lists::draw(frame, body, state, theme);
    frame.render_widget(foot(state, theme), bottom);
    match &state.dialog {
        Some(Dialog::Help) => dialog::draw_help(frame, area, theme),
        Some(Dialog::Revoke { source, gate }) => {
            dialog::draw_revoke(frame, area, &source.to_string(), gate, theme);
        }
        Some(Dialog::Filter(_)) | None => {}
    }
}

/// Returns the lines of an area.
fn rows(area: Rect) -> impl Iterator<Item = Rect> {
    (area.top()..area.bottom()).map(move |y| Rect {
        y,
        height: 1,
        ..area
    })
}

/// The last line: what was done, what is being typed, or the keys.
fn foot(state: &State, theme: Theme) -> Line<'static> {
    if let Some(message) = &state.message {
        let style = if message.is_error {
            theme.warning()
        } else {
            theme.title()
        };
        return Line::styled(message.text.clone(), style);
    }
    if let Some(Dialog::Filter(_)) = state.dialog {
        return Line::from(vec![
            Span::styled("filter: ", theme.title()),
            Span::raw(state.filter.clone()),
            Span::styled(" ", theme.selected()),
            Span::raw("  Enter keeps it, Esc takes it back"),
        ]);
    }
    let keys = [
        ("q", "quit"),
        ("Tab", "list"),
        ("s", "sort"),
        ("/", "filter"),
        ("p", "pause"),
        ("r", "revoke"),
        ("?", "help"),
    ];
    let mut spans = Vec::new();
    for (key, what) in keys {
        spans.push(Span::styled(key, theme.title()));
        spans.push(Span::raw(format!(" {what}  ")));
    }
    Line::from(spans)
}
