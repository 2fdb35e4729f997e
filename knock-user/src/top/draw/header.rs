//! The head: what is guarded and how, how much passes, how full the tables are.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::Sparkline,
};

use super::rows;
use crate::{
    commands::host::output::duration,
    top::{
        rates::Rate,
        state::{InterfaceRow, State},
        theme::Theme,
    },
};

/// Interfaces that have a line of their own.
const MOST_INTERFACES: usize = 4;
/// Columns in front of the bars.
const LABEL: u16 = 17;

/// Returns the lines above the rates.
pub fn lines(state: &State, theme: Theme, width: u16) -> Vec<Line<'static>> {
    let mut lines = vec![title(state, theme)];
    if let Some(fault) = &state.fault {
        lines.push(Line::styled(
            format!("cannot read the tables: {fault}"),
            theme.warning(),
        ));
    }
    let Some(instance) = &state.instance else {
        lines.push(Line::styled(
            " NOTHING IS UP: every port is open; `knockgate up` closes them ",
            theme.alarm(),
        ));
        return lines;
    };
    // Those that are not guarded first: they must not be hidden by the others.
    let mut interfaces: Vec<&InterfaceRow> = instance.interfaces.iter().collect();
    interfaces.sort_by_key(|row| row.attach.is_ok());
    let hidden = interfaces.len().saturating_sub(MOST_INTERFACES);
    for row in interfaces.iter().take(MOST_INTERFACES) {
        lines.push(interface(row, theme));
    }
    if hidden != 0 {
        lines.push(Line::raw(format!("and {hidden} more interfaces")));
    }
    lines.push(tables(state, theme));
    lines.push(gates(state, theme, width));
    lines
}

fn title(state: &State, theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::styled("knockgate", theme.title())];
    if let Some(instance) = &state.instance {
        let served = match instance.is_served {
            Some(true) => "  served by `run`",
            Some(false) => "  no service",
            None => "",
        };
        spans.push(Span::raw(format!("  up {}{served}", long(instance.up_for))));
    }
    if let Some(left) = state.try_left() {
        spans.push(Span::raw("  "));
        let text = format!(" TRIAL: lapses in {} ", long(left));
        spans.push(Span::styled(text, theme.alarm()));
    }
    if state.paused {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(" PAUSED ", theme.selected()));
    }
    if !state.filter.is_empty() {
        spans.push(Span::raw("  filter: "));
        spans.push(Span::styled(state.filter.clone(), theme.warning()));
    }
    Line::from(spans)
}

fn interface(row: &InterfaceRow, theme: Theme) -> Line<'static> {
    match &row.attach {
        Ok(attach) => {
            let mode = match row.mode {
                "enforce" => theme.good(),
                _ => theme.warning(),
            };
            Line::from(vec![
                Span::styled(format!("{:<10}", row.name), theme.title()),
                Span::raw(format!("  {attach}  ")),
                Span::styled(row.mode, mode),
            ])
        }
        Err(lack) => Line::styled(
            format!(" {} is NOT GUARDED: {lack} ", row.name),
            theme.alarm(),
        ),
    }
}

fn tables(state: &State, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    for table in &state.tables {
        let share = table.used * 100 / u64::from(table.capacity.max(1));
        let text = format!("{} {}/{} {share}%", table.name, table.used, table.capacity);
        // The table of sources is meant to fill: it forgets the oldest.
        let style = if share >= 90 && table.name != "sources" {
            theme.warning()
        } else {
            Style::new()
        };
        spans.push(Span::styled(text, style));
        spans.push(Span::raw("   "));
    }
    Line::from(spans)
}

fn gates(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let mut spans = Vec::new();
    let mut left = usize::from(width);
    let gates = state.instance.iter().flat_map(|instance| &instance.gates);
    for gate in gates {
        let rest = format!(" {}: {}   ", gate.protect, gate.grants);
        let length = gate.name.len() + rest.len();
        if length + 1 > left {
            spans.push(Span::raw(theme.ellipsis()));
            break;
        }
        left -= length;
        let style = if gate.grants == 0 {
            theme.title()
        } else {
            theme.good()
        };
        spans.push(Span::styled(gate.name.clone(), style));
        spans.push(Span::raw(rest));
    }
    Line::from(spans)
}

/// Draws the rates, each with its bars.
pub fn draw_rates(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let areas: [Rect; 3] = Layout::vertical([Constraint::Fill(1); 3]).areas(area);
    let rates = [
        ("passed", &state.rates.passed, theme.good()),
        ("denied", &state.rates.denied, theme.bad()),
        ("knocks", &state.rates.knocks, Style::new()),
    ];
    for ((name, rate, style), area) in rates.into_iter().zip(areas) {
        draw_rate(frame, area, name, rate, (theme, style));
    }
}

fn draw_rate(
    frame: &mut Frame<'_>,
    area: Rect,
    name: &str,
    rate: &Rate,
    (theme, style): (Theme, Style),
) {
    let [label, bars] =
        Layout::horizontal([Constraint::Length(LABEL), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Line::raw(format!("{name} {:>7}/s", rate.now())), label);
    let data = rate.latest(bars.width.into());
    // The latest at the right edge, as on paper.
    let indent = bars.width - u16::try_from(data.len()).unwrap_or(bars.width);
    let drawn = Rect {
        x: bars.x + indent,
        width: bars.width - indent,
        ..bars
    };
    let sparkline = Sparkline::default()
        .data(data)
        .bar_set(theme.bars())
        .style(style);
    frame.render_widget(sparkline, drawn);
}

/// Draws what matters most on a terminal with no room for more.
pub fn draw_small(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let mut lines = lines(state, theme, area.width);
    // Of the head all but tables and gates.
    if state.instance.is_some() {
        lines.truncate(lines.len() - 2);
    }
    for (name, rate) in [
        ("passed", &state.rates.passed),
        ("denied", &state.rates.denied),
    ] {
        lines.push(Line::raw(format!("{name} {}/s", rate.now())));
    }
    lines.push(Line::raw("q quits; the lists need 40x14"));
    for (line, row) in lines.into_iter().zip(rows(area)) {
        frame.render_widget(line, row);
    }
}

/// Writes a duration as other commands do.
pub fn long(time: Duration) -> String {
    duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
