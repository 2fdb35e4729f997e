//! Colours and characters, as far as the terminal has them.
//!
//! Text has the terminal's own colour, and others are red, green and magenta only. Where the terminal has 256 colours, they
//! are of a brightness that can be read on a dark and on a light background: nobody asks which one it is. The green of the
//! first eight colours is too bright for white in xterm and others.

use ratatui::{
    style::{Color, Modifier, Style},
    symbols::{bar, border},
};

/// How things look.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colours: Colours,
    /// The locale is UTF-8.
    has_symbols: bool,
}

/// How many colours there are to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    None,
    Eight,
    /// Those of xterm: from the 17th on, what they look like is known.
    Many,
}

/// `#008700`, `#ff0000` and `#d700d7`.
const GREEN: u8 = 28;
const RED: u8 = 196;
const MAGENTA: u8 = 164;

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
        let has = |name, part: &str| {
            variable(name).is_some_and(|value| value.to_string_lossy().contains(part))
        };
        let has_many = has("TERM", "256color") || variable("COLORTERM").is_some();
        Self {
            colours: match variable("NO_COLOR") {
                Some(_) => Colours::None,
                None if has_many => Colours::Many,
                None => Colours::Eight,
            },
            has_symbols: is_utf8,
        }
    }

    #[cfg(test)]
    pub const FULL: Self = Self {
        colours: Colours::Many,
        has_symbols: true,
    };

    #[cfg(test)]
    pub const PLAIN: Self = Self {
        colours: Colours::None,
        has_symbols: false,
    };

    pub fn good(self) -> Style {
        self.coloured(Color::Green, GREEN)
    }

    pub fn bad(self) -> Style {
        self.coloured(Color::Red, RED)
    }

    pub fn warning(self) -> Style {
        self.coloured(Color::Magenta, MAGENTA)
            .add_modifier(Modifier::BOLD)
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

    fn coloured(self, of_eight: Color, of_many: u8) -> Style {
        match self.colours {
            Colours::None => Style::new(),
            Colours::Eight => Style::new().fg(of_eight),
            Colours::Many => Style::new().fg(Color::Indexed(of_many)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, as WCAG 2.1 has it.
    fn luminance(colour: [u8; 3]) -> f64 {
        let linear = colour.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    /// Returns what xterm shows for a colour of its cube.
    fn shown(index: u8) -> [u8; 3] {
        let part = |weight: u8| match (index - 16) / weight % 6 {
            0 => 0,
            step => 55 + 40 * step,
        };
        [part(36), part(6), part(1)]
    }

    #[test]
    fn colours_can_be_read_on_dark_and_on_light() {
        assert_eq!(shown(GREEN), [0, 0x87, 0]);
        assert_eq!(shown(MAGENTA), [0xd7, 0, 0xd7]);
        let backgrounds = [[0; 3], [0x1e; 3], [0xff; 3]].map(luminance);
        for colour in [GREEN, RED, MAGENTA] {
            let own = luminance(shown(colour));
            for ground in backgrounds {
                let contrast = (own.max(ground) + 0.05) / (own.min(ground) + 0.05);
                assert!(contrast >= 3.5, "{colour}: {contrast:.2} on {ground:.2}");
            }
        }
    }
}
