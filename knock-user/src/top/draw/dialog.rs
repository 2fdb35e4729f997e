//! What stands in front of the lists: help, and a question.

use ratatui::{
    Frame,
    layout::Rect,
    text::Line,
    widgets::{Block, Clear, Padding, Paragraph},
};

use crate::top::theme::Theme;

const HELP: &str = "\
q  Ctrl-C      quit
Tab  1 2 3     go to another list
Up Down j k    select a row; also Page Up, Page Down, Home, End
s              sort by the next column
/              show only rows that contain a text; Esc shows all
p  Space       pause: nothing is read, nothing counts down
r              end the selected grant and its sessions, after a question
Ctrl-Z         stop; `fg` goes on
?              this help

passed, denied, knocks: a second, over all interfaces and gates.
DENIED: a source's first denied packet is reported, then at most one a
second, and a limited number of all sources together. So this shows who
is denied again and again, not how many packets each sends.";

pub fn draw_help(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let lines: Vec<Line<'_>> = HELP.lines().map(Line::raw).collect();
    draw(frame, area, " Keys (any key leads back) ", lines, theme);
}

pub fn draw_revoke(frame: &mut Frame<'_>, area: Rect, source: &str, gate: &str, theme: Theme) {
    let lines = vec![
        Line::raw(format!("End the grant of {source}")),
        Line::raw(format!("at gate {gate}, and its sessions?")),
        Line::raw(""),
        Line::styled("y ends them    n does nothing", theme.title()),
    ];
    draw(frame, area, " Revoke ", lines, theme);
}

fn draw(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>, theme: Theme) {
    let width = lines.iter().map(Line::width).max().unwrap_or_default() + 4;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let block = Block::bordered()
        .border_set(theme.border())
        .title(title.to_owned())
        .title_style(theme.title())
        .padding(Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
