//! The three lists: grants, sources part-way through a sequence, and denied sources.

use ipnet::IpNet;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Row as TableRow, Table},
};

use super::{WIDE, header::long};
use crate::{
    commands::host::output::duration,
    top::{
        list::{List, Row},
        state::{Panel, State},
        theme::Theme,
    },
};

/// A list, ready to be drawn.
struct Drawn {
    title: Line<'static>,
    headings: Vec<&'static str>,
    widths: Vec<Constraint>,
    rows: Vec<Vec<String>>,
    /// Place of the cursor among `rows`.
    cursor: Option<usize>,
    /// What to say in place of the rows, where there is none.
    none: Option<&'static str>,
}

pub fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let areas = areas(area, state.panel);
    for (panel, area) in Panel::ALL.into_iter().zip(areas) {
        let height = usize::from(area.height.saturating_sub(2));
        let drawn = match panel {
            Panel::Grants => grants(state, height, theme),
            Panel::Sources => sources(state, height, theme),
            Panel::Denied => denied(state, height, theme),
        };
        draw_one(frame, area, drawn, theme);
    }
}

/// Returns where each list goes. On a narrow terminal the one that keys go to has more room.
fn areas(area: Rect, active: Panel) -> [Rect; 3] {
    if area.width >= WIDE {
        let [left, right] = Layout::horizontal([Constraint::Fill(1); 2])
            .spacing(2)
            .areas(area);
        let [above, below] = Layout::vertical([Constraint::Fill(1); 2]).areas(right);
        return [left, above, below];
    }
    let share = |panel| Constraint::Fill(if panel == active { 2 } else { 1 });
    Layout::vertical(Panel::ALL.map(share)).areas(area)
}

fn draw_one(frame: &mut Frame<'_>, area: Rect, drawn: Drawn, theme: Theme) {
    let Drawn {
        title,
        headings,
        widths,
        rows,
        cursor,
        none,
    } = drawn;
    let [top, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(title, top);
    if let Some(none) = none {
        frame.render_widget(Line::raw(none), body);
        return;
    }
    let style = |index| {
        if Some(index) == cursor {
            theme.selected()
        } else {
            Style::new()
        }
    };
    let rows = rows.into_iter().enumerate();
    let rows = rows.map(|(index, cells)| TableRow::new(cells).style(style(index)));
    let header = TableRow::new(headings).style(theme.heading());
    frame.render_widget(Table::new(rows, widths).header(header), body);
}

/// Returns the rows of a list that have room, and where the cursor is among them.
fn page<R: Row>(
    list: &List<R>,
    height: usize,
    is_active: bool,
    cells: impl Fn(&R) -> Vec<String>,
) -> (Vec<Vec<String>>, Option<usize>) {
    if height == 0 {
        return (Vec::new(), None);
    }
    let first = (list.cursor + 1).saturating_sub(height);
    let rows = list.shown().skip(first).take(height);
    (
        rows.map(cells).collect(),
        is_active.then_some(list.cursor - first),
    )
}

fn title<R: Row>(
    state: &State,
    (panel, number, name): (Panel, char, &str),
    list: &List<R>,
    more: &str,
    theme: Theme,
) -> Line<'static> {
    let style = if state.panel == panel {
        theme.active()
    } else {
        theme.title()
    };
    let shown = list.shown().len();
    let count = if shown == list.len() {
        shown.to_string()
    } else {
        format!("{shown} of {}", list.len())
    };
    Line::from(vec![
        Span::styled(format!("{number} {name}"), style),
        Span::raw(format!("  {count}  sort: {}{more}", list.sort_name())),
    ])
}

/// Returns a note on rows that are older than the rest of the screen.
fn age(state: &State) -> String {
    let note = |age| format!("  (up to {} old)", long(age));
    state.stale.map(note).unwrap_or_default()
}

fn grants(state: &State, height: usize, theme: Theme) -> Drawn {
    let list = &state.grants;
    let (rows, cursor) = page(list, height, state.panel == Panel::Grants, |row| {
        let user = row.user.as_deref().unwrap_or("(by hand)");
        vec![
            shown(row.source),
            row.gate.to_string(),
            user.to_owned(),
            format!("{:>8}", duration(row.until.saturating_sub(state.now))),
            format!("{:>4}", row.connections),
        ]
    });
    Drawn {
        title: title(
            state,
            (Panel::Grants, '1', "GRANTS"),
            list,
            &age(state),
            theme,
        ),
        headings: vec!["SOURCE", "GATE", "USER", " ENDS IN", "CONN"],
        widths: vec![
            source_width(&rows),
            Constraint::Fill(1),
            Constraint::Fill(1),
            Constraint::Length(8),
            Constraint::Length(5),
        ],
        rows,
        cursor,
        none: none(state, list, "no grants"),
    }
}

fn sources(state: &State, height: usize, theme: Theme) -> Drawn {
    let list = &state.sources;
    let (rows, cursor) = page(list, height, state.panel == Panel::Sources, |row| {
        vec![
            row.source.to_string(),
            format!("{} of {}", row.step, row.of),
            row.gates.to_string(),
            format!("{:>8}", duration(state.now.saturating_sub(row.latest))),
        ]
    });
    Drawn {
        title: title(
            state,
            (Panel::Sources, '2', "KNOCKING"),
            list,
            &age(state),
            theme,
        ),
        headings: vec!["SOURCE", "STEP", "GATES", "     AGE"],
        widths: vec![
            source_width(&rows),
            Constraint::Length(8),
            Constraint::Fill(1),
            Constraint::Length(8),
        ],
        rows,
        cursor,
        none: none(state, list, "no source is part-way through a sequence"),
    }
}

fn denied(state: &State, height: usize, theme: Theme) -> Drawn {
    let list = &state.denied_rows;
    let (rows, cursor) = page(list, height, state.panel == Panel::Denied, |row| {
        vec![
            row.source.to_string(),
            format!("{:>7}", row.reports),
            row.gate.clone(),
            row.port.clone(),
            row.reason.clone(),
            format!("{:>8}", duration(state.now.saturating_sub(row.latest))),
        ]
    });
    let more = match state.denied.lost() {
        0 => "  (last minute, sampled)".to_owned(),
        left_out => format!("  (last minute, sampled, {left_out} left out)"),
    };
    Drawn {
        title: title(state, (Panel::Denied, '3', "DENIED"), list, &more, theme),
        headings: vec!["SOURCE", "REPORTS", "GATE", "PORT", "REASON", "     AGE"],
        widths: vec![
            source_width(&rows),
            Constraint::Length(7),
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(8),
        ],
        rows,
        cursor,
        none: none(state, list, "no source has been denied in the last minute"),
    }
}

/// Returns the width of the column of sources, so that none of these is cut where others have room to give.
fn source_width(rows: &[Vec<String>]) -> Constraint {
    let lengths = rows.iter().map(|cells| cells[0].len());
    let longest = lengths.max().unwrap_or_default();
    Constraint::Length(u16::try_from(longest).unwrap_or(u16::MAX).max(15))
}

/// Writes a whole address without its prefix length.
fn shown(source: IpNet) -> String {
    if source.prefix_len() == source.max_prefix_len() {
        source.addr().to_string()
    } else {
        source.to_string()
    }
}

fn none<R: Row>(state: &State, list: &List<R>, why: &'static str) -> Option<&'static str> {
    if list.is_empty() && state.instance.is_none() {
        Some("nothing is up")
    } else if list.is_empty() {
        Some(why)
    } else if list.shown().len() == 0 {
        Some("the filter leaves out every row")
    } else {
        None
    }
}
