//! Real knocks: each from a source of its own, step by step, followed by SYNs until the port answers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use netlab::{
    packet::SYN,
    socket::{IPV4, PacketSocket},
};

use super::send;
use crate::{
    frame::{self, Transport},
    host::Wire,
    instance::PROTECTED,
};

/// The frames that one source sends, and its progress.
pub struct Attempt {
    frames: Vec<Vec<u8>>,
    syn: Vec<u8>,
    /// When the last step was sent, and when to try the port next.
    knocked: Option<(Instant, Instant)>,
    /// SYNs that were not answered.
    in_vain: u32,
    opened: Option<Duration>,
    given_up: bool,
}

/// The times of a knock.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time from one step of a knock to the next.
    pub step: Duration,
    /// Time from one source's first step to the next source's.
    pub every: Duration,
    /// How long a source tries the port.
    pub patience: Duration,
}

/// The result of all attempts.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Sources that were let in, per cent.
    pub opened: f64,
    /// Time from the last step to the answer, µs, of those that were let in.
    pub delays: Vec<f64>,
    /// SYNs after the last step that were not answered, of those that were let in.
    pub in_vain: Vec<f64>,
}

/// Time from one SYN to the next.
const AGAIN: Duration = Duration::from_millis(5);

impl Attempt {
    pub fn new(source: u32, frames: Vec<Vec<u8>>) -> Self {
        Self {
            frames,
            syn: frame::ipv4(Transport::Tcp(SYN), source, 41000, PROTECTED),
            knocked: None,
            in_vain: 0,
            opened: None,
            given_up: false,
        }
    }

    fn settled(&self) -> bool {
        self.opened.is_some() || self.given_up
    }
}

/// Sends the knocks of every source in turn, and observes which sources are let in.
///
/// Every source also tries the port before it knocks. Fails if that is answered, since then the port is not protected.
pub fn knock(wire: &Wire, attempts: HashMap<u32, Attempt>, pace: Pace) -> Result<Outcome> {
    let socket = PacketSocket::receiving(wire.sender, IPV4)?;
    let mut attempts = attempts;
    let begun = Instant::now();
    let mut due = schedule(&attempts, pace);
    due.reverse();
    let mut room = [0; 128];
    while !attempts.values().all(Attempt::settled) {
        let now = begun.elapsed();
        while let Some((_, source, step)) = due.pop_if(|(when, ..)| *when <= now) {
            let attempt = attempts.get_mut(&source).expect("every source is there");
            attempt.step(&socket, step)?;
        }
        for attempt in attempts.values_mut() {
            attempt.try_again(&socket, pace.patience)?;
        }
        while let Some((frame, _)) = socket.receive(&mut room)? {
            let answered = frame::answered(frame, PROTECTED);
            if let Some(attempt) = answered.and_then(|source| attempts.get_mut(&source)) {
                attempt.answered()?;
            }
        }
        socket.wait(Duration::from_micros(200))?;
    }
    Ok(Outcome::of(attempts.values()))
}

/// Returns all steps in the order of their time, counted from the beginning.
fn schedule(attempts: &HashMap<u32, Attempt>, pace: Pace) -> Vec<(Duration, u32, usize)> {
    let mut sources: Vec<_> = attempts.iter().collect();
    sources.sort_by_key(|(source, _)| **source);
    let mut due = Vec::new();
    let mut first = Duration::ZERO;
    for (source, attempt) in sources {
        let mut when = first;
        for step in 0..attempt.frames.len().max(1) {
            due.push((when, *source, step));
            when += pace.step;
        }
        first += pace.every;
    }
    due.sort();
    due
}

impl Attempt {
    fn step(&mut self, socket: &PacketSocket, step: usize) -> Result<()> {
        if step == 0 && !self.frames.is_empty() {
            send(socket, &self.syn)?;
        }
        if let Some(frame) = self.frames.get(step) {
            send(socket, frame)?;
        }
        if step + 1 >= self.frames.len() {
            // Immediately after the last step.
            let now = Instant::now();
            self.knocked = Some((now, now + AGAIN));
            send(socket, &self.syn)?;
        }
        Ok(())
    }

    fn try_again(&mut self, socket: &PacketSocket, patience: Duration) -> Result<()> {
        let now = Instant::now();
        let Some((knocked, next)) = &mut self.knocked else {
            return Ok(());
        };
        if self.opened.is_some() || self.given_up || *next > now {
            return Ok(());
        }
        self.in_vain += 1;
        *next = now + AGAIN;
        self.given_up = now.duration_since(*knocked) > patience;
        send(socket, &self.syn)?;
        Ok(())
    }

    fn answered(&mut self) -> Result<()> {
        let Some((knocked, _)) = self.knocked else {
            bail!("the port answered a source that had not knocked yet");
        };
        if !self.settled() {
            self.opened = Some(knocked.elapsed());
        }
        Ok(())
    }
}

impl Outcome {
    fn of<'a>(attempts: impl Iterator<Item = &'a Attempt>) -> Self {
        let (mut all, mut opened) = (0_u32, 0_u32);
        let (mut delays, mut in_vain) = (Vec::new(), Vec::new());
        for attempt in attempts {
            all += 1;
            if let Some(delay) = attempt.opened {
                opened += 1;
                delays.push(delay.as_secs_f64() * 1e6);
                in_vain.push(f64::from(attempt.in_vain));
            }
        }
        Self {
            opened: 100.0 * f64::from(opened) / f64::from(all.max(1)),
            delays,
            in_vain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_several_sources_interleave() {
        let attempts = [7, 3].map(|source| (source, Attempt::new(source, vec![vec![]; 2])));
        let ms = Duration::from_millis;
        let pace = Pace {
            step: ms(20),
            every: ms(5),
            patience: ms(1),
        };
        assert_eq!(
            schedule(&HashMap::from(attempts), pace),
            [(ms(0), 3, 0), (ms(5), 7, 0), (ms(20), 3, 1), (ms(25), 7, 1)]
        );
    }

    #[test]
    fn an_outcome_counts_who_was_let_in() {
        let mut attempts = [1, 2, 3, 4].map(|source| Attempt::new(source, Vec::new()));
        attempts[2].opened = Some(Duration::from_millis(3));
        attempts[2].in_vain = 2;
        attempts[3].given_up = true;
        let outcome = Outcome::of(attempts.iter());
        assert!((outcome.opened - 25.0).abs() < 1e-9);
        assert_eq!(outcome.delays, [3_000.0]);
        assert_eq!(outcome.in_vain, [2.0]);
    }

    #[test]
    fn an_answer_before_the_knock_is_an_error() {
        assert!(Attempt::new(1, Vec::new()).answered().is_err());
    }
}
