//! The terminal: taken over, drawn on, and given back however the program ends.

use std::{
    io::{self, IsTerminal as _, Stdout, stdin, stdout},
    panic,
    sync::Once,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{self, Event},
        execute,
        terminal::{
            Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
            enable_raw_mode,
        },
    },
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{draw::draw, state::State, theme::Theme};
use crate::sys::job_control;

/// The whole terminal. Gives it back when dropped.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
}

impl Screen {
    /// Takes the terminal over. Fails where there is none.
    pub fn enter() -> Result<Self> {
        ensure!(
            stdin().is_terminal() && stdout().is_terminal(),
            "`top` needs a terminal as its standard input and output; for scripts there are `status`, `grants`, `sources` \
             and `stats` with --json, and `metrics`"
        );
        restore_on_panic();
        let mut screen = Self {
            terminal: blank()?,
            theme: Theme::of_environment(),
        };
        screen.take_over()?;
        Ok(screen)
    }

    /// Takes the terminal over, again: another program may have used it meanwhile.
    pub fn take_over(&mut self) -> Result<()> {
        // What was stopped by SIGSTOP has not given it back, and does not know that the shell has: it would set nothing.
        disable_raw_mode().context("cannot use the terminal")?;
        enable_raw_mode().context("cannot use the terminal")?;
        execute!(stdout(), EnterAlternateScreen, Hide, Clear(ClearType::All))?;
        self.terminal = blank()?;
        Ok(())
    }

    /// Gives the terminal back and stops, as Ctrl-Z has it; goes on when the shell says so.
    pub fn suspend(&mut self) -> Result<()> {
        give_back()?;
        job_control::stop()?;
        self.take_over()
    }

    pub fn draw(&mut self, state: &mut State) -> Result<()> {
        let theme = self.theme;
        self.terminal
            .draw(|frame| draw(frame, state, theme))
            .context("cannot draw on the terminal")?;
        Ok(())
    }

    /// Returns what the user does. Ends with an error where the terminal is gone.
    #[expect(clippy::unused_self, reason = "what is read is this terminal's")]
    pub fn inputs(&self) -> UnboundedReceiver<io::Result<Event>> {
        let (sender, receiver) = unbounded_channel();
        // It waits in a system call, which nothing else must wait for; the process ends without it.
        thread::spawn(move || {
            loop {
                let input = event::read();
                let is_over = input.is_err();
                if sender.send(input).is_err() || is_over {
                    return;
                }
            }
        });
        receiver
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone takes nothing back.
        let _ = give_back();
    }
}

/// Returns what draws on a terminal on which nothing is drawn. (`Terminal::clear` would ask the terminal where its cursor
/// is, and the thread that reads keys would take the answer.)
fn blank() -> Result<Terminal<CrosstermBackend<Stdout>>> {
    Terminal::new(CrosstermBackend::new(stdout())).context("cannot use the terminal")
}

fn give_back() -> io::Result<()> {
    // Both, whatever the other does.
    let drawn = execute!(stdout(), LeaveAlternateScreen, Show);
    disable_raw_mode()?;
    drawn
}

/// Has a panic's message appear on the terminal as it was, and not on the one that is about to vanish.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let _ = give_back();
            before(info);
        }));
    });
}
