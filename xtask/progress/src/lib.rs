//! What long work shows: on a terminal a bar with what is being done, how far it is and how long yet; elsewhere plain
//! lines.

use std::{
    fmt::Write,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// How often the times of the bar move on.
const TICK: Duration = Duration::from_secs(1);

/// Work of so many steps. Its bar goes when this value goes; the lines stay.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Whether standard error is a terminal.
    terminal: bool,
}

impl Progress {
    /// Begins work of `steps` steps, on standard error.
    pub fn new(steps: usize) -> Self {
        let terminal = io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new(steps as u64)
        } else {
            ProgressBar::hidden()
        };
        bar.set_length(steps as u64);
        bar.set_style(style());
        if terminal {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, terminal }
    }

    /// Says what is being done now. Elsewhere than on a terminal, a line with how far the work is.
    pub fn begin(&self, what: &str) {
        if self.terminal {
            self.bar.set_message(what.to_owned());
        } else {
            let length = self.bar.length().unwrap_or_default();
            let nth = (self.bar.position() + 1).min(length);
            eprintln!("[{nth}/{length}] {what}");
        }
    }

    /// Counts a step as done.
    pub fn done(&self) {
        self.bar.inc(1);
    }

    /// Prints a result to standard output, above the bar.
    pub fn result(&self, line: &str) {
        self.above(|| println!("{line}"));
    }

    /// Has something print above the bar.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const TEMPLATE: &str = "{bar:24} {pos}/{len}, {elapsed} so far{left}: {wide_msg}";

fn style() -> ProgressStyle {
    let left = |state: &ProgressState, to: &mut dyn Write| {
        if let Some(left) = left(state.pos(), state.len().unwrap_or(0), state.elapsed()) {
            // A bar without it is better than none.
            let _ = write!(to, ", about {:#} to go", HumanDuration(left));
        }
    };
    ProgressStyle::with_template(TEMPLATE)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("left", left)
}

/// Returns how long the rest takes if its steps take as long as those that are done; `None` before the first is. Not indicatif's
/// own estimate, which goes by the time since the last step: within a step of a minute it rises to hours.
fn left(done: u64, all: u64, elapsed: Duration) -> Option<Duration> {
    let (done, all) = (u32::try_from(done).ok()?, u32::try_from(all).ok()?);
    elapsed
        .checked_div(done)?
        .checked_mul(all.saturating_sub(done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_is_done() {
        let elapsed = Duration::from_secs(20);
        assert_eq!(left(0, 3, elapsed), None);
        assert_eq!(left(1, 3, elapsed), Some(Duration::from_secs(40)));
        assert_eq!(left(3, 3, elapsed), Some(Duration::ZERO));
    }

    #[test]
    fn the_template_is_valid_and_steps_are_counted() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let progress = Progress::new(2);
        progress.begin("the first");
        progress.done();
        assert_eq!(progress.bar.position(), 1);
        assert_eq!(progress.bar.length(), Some(2));
    }
}
