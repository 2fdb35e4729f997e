//! Colours and characters, as far as the terminal has them.
//!
//! Text has the terminal's own colour, and others are red, green and magenta only: these can be read on a dark and on a
//! light background.

use ratatui::{
    style::{Color, Modifier, Style},
    symbols::{bar, border},
};

/// How things look.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    has_colours: bool,
    /// The locale is UTF-8.
    has_symbols: bool,
}

impl Theme {
    /// Returns that of this terminal: `NO_COLOR` takes the colours away, another locale than UTF-8 the symbols.
    pub fn of_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // As the C library does: the first of these that is set.
        let mut locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(variable);
        let is_utf8 = locale.next().is_some_and(|locale| {
            let locale = locale.to_string_lossy().to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self {
            has_colours: variable("NO_COLOR").is_none(),
            has_symbols: is_utf8,
        }
    }

    #[cfg(test)]
    pub const FULL: Self = Self {
        has_colours: true,
        has_symbols: true,
    };

    #[cfg(test)]
    pub const PLAIN: Self = Self {
        has_colours: false,
        has_symbols: false,
    };

    pub fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    pub fn bad(self) -> Style {
        self.coloured(Color::Red)
    }

    pub fn warning(self) -> Style {
        self.coloured(Color::Magenta).add_modifier(Modifier::BOLD)
    }

    /// What must not be overlooked.
    pub fn alarm(self) -> Style {
        self.bad().add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    #[expect(
        clippy::unused_self,
        reason = "a style of the theme, as the others are"
    )]
    pub fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The title of the list that keys go to.
    pub fn active(self) -> Style {
        self.title().add_modifier(Modifier::REVERSED)
    }

    #[expect(
        clippy::unused_self,
        reason = "a style of the theme, as the others are"
    )]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::UNDERLINED)
    }

    #[expect(
        clippy::unused_self,
        reason = "a style of the theme, as the others are"
    )]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub fn bars(self) -> bar::Set<'static> {
        if self.has_symbols {
            bar::NINE_LEVELS
        } else {
            bar::Set {
                full: "#",
                seven_eighths: "#",
                three_quarters: "*",
                five_eighths: "*",
                half: "+",
                three_eighths: "-",
                one_quarter: "-",
                one_eighth: ".",
                empty: " ",
            }
        }
    }

    pub fn border(self) -> border::Set<'static> {
        if self.has_symbols {
            border::PLAIN
        } else {
            border::Set {
                top_left: "+",
                top_right: "+",
                bottom_left: "+",
                bottom_right: "+",
                vertical_left: "|",
                vertical_right: "|",
                horizontal_top: "-",
                horizontal_bottom: "-",
            }
        }
    }

    pub fn ellipsis(self) -> &'static str {
        if self.has_symbols { "…" } else { "~" }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}
