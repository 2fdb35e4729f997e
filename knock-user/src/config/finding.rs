//! Errors and warnings about a configuration, and how they are shown: file, line, column, the line itself.

use std::{
    error::Error,
    fmt::{self, Write as _},
    ops::Range,
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// An error or warning about a configuration.
///
/// `Display` shows it in full, with the line and a caret under the place; [`Finding::headline`] is the first line
/// alone, for logs. Serialised, it is an element of `findings` in the output of `check --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// A stable name for this kind of finding, in kebab-case.
    pub code: &'static str,
    /// What was wrong, what was expected, what to write instead.
    pub message: String,
    /// Counted from 1; `None` for a finding about the whole file.
    pub line: Option<usize>,
    /// Counted in characters from 1.
    pub column: Option<usize>,
    #[serde(skip)]
    pub(super) file: String,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// Whether a finding is an error or a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The configuration is refused.
    Error,
    /// The configuration works, but is weaker or riskier than it could be.
    Warning,
}

/// A configuration that is refused: at least one finding is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    file: String,
    findings: Vec<Finding>,
    not_permitted: bool,
    shown: bool,
}

impl Finding {
    /// Makes a finding about a whole file.
    pub(crate) fn about_file(
        level: Level,
        code: &'static str,
        file: &str,
        message: String,
    ) -> Self {
        Self {
            level,
            code,
            message,
            line: None,
            column: None,
            file: file.to_owned(),
            excerpt: None,
        }
    }

    /// Makes a finding about some `characters` of a line, whose whole text is `content`.
    pub(super) fn about_line(
        level: Level,
        code: &'static str,
        file: &str,
        message: String,
        line: usize,
        content: &str,
        characters: Range<usize>,
    ) -> Self {
        Self {
            line: Some(line),
            column: Some(characters.start + 1),
            excerpt: Some(Excerpt::new(content, characters)),
            ..Self::about_file(level, code, file, message)
        }
    }

    /// Returns `file:line:column: message`, for a log, which shows the level by itself.
    pub fn headline(&self) -> impl fmt::Display {
        format!("{}: {}", self.place(), self.message)
    }

    /// Shows it like `Display`, with terminal colours; print it through `anstream`.
    pub fn coloured(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.write(f, &Palette::coloured(self.level)))
    }

    fn place(&self) -> String {
        let mut place = printable(&self.file);
        for number in [self.line, self.column].into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = write!(place, ":{number}");
        }
        place
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, palette: &Palette) -> fmt::Result {
        let Self { level, message, .. } = self;
        let Palette {
            strong,
            level: tint,
            dim,
        } = palette;
        write!(
            f,
            "{strong}{}:{strong:#} {tint}{level}:{tint:#} {strong}{message}{strong:#}",
            self.place()
        )?;
        let (Some(excerpt), Some(line)) = (&self.excerpt, self.line) else {
            return Ok(());
        };
        let number = line.to_string();
        let gutter = number.len();
        let before = excerpt.caret.start;
        let carets = excerpt.caret.len();
        write!(f, "\n{dim}{:gutter$} |{dim:#}", "")?;
        write!(f, "\n{dim}{number} |{dim:#} {}", excerpt.line)?;
        write!(
            f,
            "\n{dim}{:gutter$} |{dim:#} {:before$}{tint}{:^<carets$}{tint:#}",
            "", "", ""
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &Palette::default())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// The code of the only finding about a file whose text cannot be read.
const UNREADABLE: &str = "unreadable";

impl Invalid {
    pub(crate) fn new(file: &str, findings: Vec<Finding>) -> Self {
        Self {
            file: file.to_owned(),
            findings,
            not_permitted: false,
            shown: false,
        }
    }

    /// Makes the error for a file that could not be read.
    pub(super) fn unreadable(file: &str, message: String, not_permitted: bool) -> Self {
        let finding = Finding::about_file(Level::Error, UNREADABLE, file, message);
        Self {
            not_permitted,
            ..Self::new(file, vec![finding])
        }
    }

    /// Returns all findings, in the order of the file.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether the file is missing or its text cannot be read.
    pub fn is_unread(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.code == UNREADABLE)
    }

    /// Whether this user is not permitted to read the file.
    pub fn not_permitted(&self) -> bool {
        self.not_permitted
    }

    /// Makes `Display` one line that counts the findings, for a caller that has printed them.
    #[must_use]
    pub fn already_shown(self) -> Self {
        Self {
            shown: true,
            ..self
        }
    }

    /// Shows it like `Display`, with terminal colours; print it through `anstream`.
    pub fn coloured(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.write(f, true))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, coloured: bool) -> fmt::Result {
        let show = |f: &mut fmt::Formatter<'_>, finding: &Finding| {
            let palette = if coloured {
                Palette::coloured(finding.level)
            } else {
                Palette::default()
            };
            finding.write(f, &palette)
        };
        match self.findings.as_slice() {
            _ if self.shown => {}
            [only] => return show(f, only),
            findings => {
                for finding in findings {
                    show(f, finding)?;
                    f.write_str("\n\n")?;
                }
            }
        }
        let errors = self.findings.iter();
        let errors = errors.filter(|finding| finding.level == Level::Error);
        let errors = count(errors.count(), "error");
        write!(
            f,
            "{}: {errors}; nothing was applied",
            printable(&self.file)
        )
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl Error for Invalid {}

/// Returns `1 error`, `2 errors`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The line of a finding, and the characters to mark.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    line: String,
    caret: Range<usize>,
}

impl Excerpt {
    /// Longer lines are cut to this many characters around the caret.
    const WIDTH: usize = 120;

    fn new(content: &str, caret: Range<usize>) -> Self {
        let cut = if caret.end < Self::WIDTH {
            0
        } else {
            caret.start.saturating_sub(Self::WIDTH / 2)
        };
        let line = content
            .chars()
            .skip(cut)
            .take(Self::WIDTH)
            .collect::<String>();
        let end = (caret.end - cut)
            .min(Self::WIDTH)
            .max(caret.start - cut + 1);
        Self {
            line: printable(&line),
            caret: caret.start - cut..end,
        }
    }
}

/// Replaces control characters, one for one: the text of a file must not control the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[derive(Default)]
struct Palette {
    strong: Style,
    level: Style,
    dim: Style,
}

impl Palette {
    fn coloured(level: Level) -> Self {
        let colour = match level {
            Level::Error => AnsiColor::Red,
            Level::Warning => AnsiColor::Yellow,
        };
        Self {
            strong: Style::new().bold(),
            level: colour.on_default().bold(),
            dim: AnsiColor::Blue.on_default(),
        }
    }
}
