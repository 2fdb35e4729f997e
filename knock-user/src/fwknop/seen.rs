//! Packets that were accepted, remembered for as long as another copy of one could be: in memory, and in a file for
//! the next service.
//!
//! A packet is known by the end of its text, which is the end of its code; and by a hash of all of it, so that one with the
//! same end is no copy.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// How far from this host's clock the time of a packet may be, in seconds.
pub const TOLERANCE: u64 = 120;
/// How long a packet is remembered, in seconds.
pub const KEPT: u64 = 2 * TOLERANCE;
/// More packets than this in that time are refused.
const MOST: usize = 65_536;
/// The share of that room that packets of other hosts leave to this one's: an eighth.
const RESERVED: usize = MOST / 8;
/// The shortest code, in characters: the end of every packet.
pub const END: usize = 22;
/// Lines that are added to the file before it is written anew, as long as it has twice what is remembered.
const FEWEST_LINES: usize = 1024;
/// What the file begins with.
const TITLE: &str = "knockgate: packets of fwknop's that were accepted, 1";

/// A packet that was accepted, as another host of a fleet is told of it: enough to know a copy by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint {
    /// Of the whole packet.
    pub hash: [u8; 32],
    /// Its last characters.
    pub end: [u8; END],
    /// When it was made, Unix time.
    pub time: u64,
}

/// The packets of the latest time.
#[derive(Default)]
pub struct Seen {
    packets: HashMap<[u8; END], Packet>,
    /// No packet is accepted that was made at or before this time. Only grows: the clock may be set back after packets have
    /// been forgotten.
    floor: u64,
    looked: u64,
    path: PathBuf,
    /// Lines in the file; `None`: it has to be written anew.
    lines: Option<usize>,
    has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    hash: [u8; 32],
    /// When it was made, Unix time.
    time: u64,
    until: u64,
}

impl Seen {
    /// Begins with what the last service has left at `path`. `now`: Unix time.
    pub fn load(path: PathBuf, now: u64) -> Self {
        let mut seen = Self {
            packets: HashMap::new(),
            floor: 0,
            looked: now,
            path,
            lines: None,
            has_failed: false,
        };
        match fs::read_to_string(&seen.path) {
            Ok(text) if seen.read(&text).is_some() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                let why = other.err().map_or_else(
                    || "it is not of this version".to_owned(),
                    |error| error.to_string(),
                );
                tracing::warn!(
                    "cannot use {}: {why}; packets of fwknop's clients that were made before now are refused",
                    seen.path.display()
                );
                seen.packets.clear();
                seen.floor = now;
            }
        }
        seen
    }

    /// Returns whether this very packet has been accepted before.
    pub fn has(&self, payload: &[u8]) -> bool {
        let Some(end) = end(payload) else {
            return false;
        };
        let known = self.packets.get(&end);
        known.is_some_and(|known| known.hash == hash(payload))
    }

    /// Returns what other hosts are to know of a packet that has been accepted.
    pub fn fingerprint(&self, payload: &[u8]) -> Option<Fingerprint> {
        let end = end(payload)?;
        let Packet { hash, time, .. } = *self.packets.get(&end)?;
        Some(Fingerprint { hash, end, time })
    }

    /// Returns those of which a copy could be accepted.
    pub fn fingerprints(&self, now: u64) -> impl Iterator<Item = Fingerprint> {
        let live = self.packets.iter();
        let live = live.filter(move |(_, packet)| packet.time.saturating_add(KEPT) >= now);
        live.map(|(end, packet)| Fingerprint {
            hash: packet.hash,
            end: *end,
            time: packet.time,
        })
    }

    /// Remembers a packet that another host has accepted, if a copy of it could be accepted here.
    pub fn hear(&mut self, packet: Fingerprint, now: u64) {
        self.forget(now);
        let Fingerprint { hash, end, time } = packet;
        let could_be_accepted = time.abs_diff(now) <= KEPT;
        if could_be_accepted
            && !self.packets.contains_key(&end)
            && self.packets.len() < MOST - RESERVED
        {
            // The engine tells of it again where a power failure loses it.
            self.remember(end, hash, time, now, false);
        }
    }

    /// Returns whether a packet of this time may be one that has been forgotten.
    pub fn may_have_forgotten(&self, time: u64) -> bool {
        time <= self.floor
    }

    /// Remembers a packet, made at `time`. Returns `false` where there is no room for it.
    pub fn add(&mut self, payload: &[u8], time: u64, now: u64) -> bool {
        self.forget(now);
        let Some(end) = end(payload) else {
            return false;
        };
        if self.packets.len() >= MOST {
            return false;
        }
        self.remember(end, hash(payload), time, now, true);
        true
    }

    /// `synced`: it is on the disk before this returns.
    fn remember(&mut self, end: [u8; END], hash: [u8; 32], time: u64, now: u64, synced: bool) {
        let packet = Packet {
            hash,
            time,
            until: time.max(now) + KEPT,
        };
        self.packets.insert(end, packet);
        let saved = self.save(end, packet, synced);
        if let Err(error) = &saved
            && !self.has_failed
        {
            tracing::warn!(
                "cannot write {}: {error}; when this service is started again, it will not know which packets of \
                 fwknop's it has accepted",
                self.path.display()
            );
        }
        self.has_failed = saved.is_err();
    }

    /// Forgets what is too old, once a second.
    fn forget(&mut self, now: u64) {
        if now == self.looked {
            return;
        }
        self.looked = now;
        let before = self.floor;
        let floor = &mut self.floor;
        self.packets.retain(|_, packet| {
            let stays = packet.until >= now;
            if !stays {
                *floor = packet.time.max(*floor);
            }
            stays
        });
        if self.floor != before {
            // The next service has to know it, too.
            self.lines = None;
        }
    }

    fn save(&mut self, end: [u8; END], packet: Packet, synced: bool) -> io::Result<()> {
        let lines = self.lines.take();
        match lines {
            Some(lines) if lines < FEWEST_LINES.max(2 * self.packets.len()) => {
                let mut file = File::options().append(true).open(&self.path)?;
                file.write_all(line(end, packet).as_bytes())?;
                if synced {
                    file.sync_data()?;
                }
                self.lines = Some(lines + 1);
            }
            _ => {
                let mut text = format!("{TITLE}\nfloor {}\n", self.floor);
                for (end, packet) in &self.packets {
                    text.push_str(&line(*end, *packet));
                }
                replace(&self.path, &text)?;
                self.lines = Some(self.packets.len());
            }
        }
        Ok(())
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let mut lines = text.lines();
        let title = lines.next()?;
        let floor = lines.next()?.strip_prefix("floor ")?;
        if title != TITLE {
            return None;
        }
        self.floor = floor.parse().ok()?;
        for line in lines {
            // The last one may have been cut off.
            let Some((end, packet)) = parse(line) else {
                continue;
            };
            self.packets.insert(end, packet);
        }
        Some(())
    }
}

fn end(payload: &[u8]) -> Option<[u8; END]> {
    payload.last_chunk().copied()
}

fn hash(payload: &[u8]) -> [u8; 32] {
    Sha256::digest(payload).into()
}

fn line(end: [u8; END], packet: Packet) -> String {
    let Packet { hash, time, until } = packet;
    let mut line = String::from_utf8_lossy(&end).into_owned();
    line.push(' ');
    for byte in hash {
        // Writing to a string does not fail.
        let _ = write!(line, "{byte:02x}");
    }
    let _ = writeln!(line, " {time} {until}");
    line
}

fn parse(line: &str) -> Option<([u8; END], Packet)> {
    let mut words = line.split(' ');
    let end = words.next()?.as_bytes().try_into().ok()?;
    let hex = words.next()?;
    let mut hash = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    let time = words.next()?.parse().ok()?;
    let until = words.next()?.parse().ok()?;
    Some((end, Packet { hash, time, until }))
}

/// Replaces the file, so that a service that is killed meanwhile, or a power failure, leaves the old one or the new one. When
/// this returns, the new one is on the disk.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let new = path.with_extension("fwknop-new");
    let write = || {
        let mut file = File::options();
        let file = file.write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, path)?;
        // Its name, too.
        File::open(directory)?.sync_all()
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn packet(number: usize) -> Vec<u8> {
        format!("{:100}{number:022}", "a packet").into_bytes()
    }

    #[test]
    fn a_packet_is_remembered_over_restarts_until_it_is_too_old_for_anyone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("new/seen.fwknop");
        let mut seen = Seen::load(path.clone(), 1000);
        assert!(!seen.has(&packet(1)));
        assert!(seen.add(&packet(1), 1000, 1000));
        assert!(seen.add(&packet(2), 1100, 1000));
        for now in [1000, 1240] {
            let mut seen = Seen::load(path.clone(), now);
            assert!(seen.has(&packet(1)) && seen.has(&packet(2)), "{now}");
            assert!(!seen.has(&packet(3)) && !seen.may_have_forgotten(1000));
            seen.forget(now + 1);
            assert_eq!(seen.has(&packet(1)), now == 1000);
        }
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_has_been_forgotten_is_refused_by_its_time_if_the_clock_is_set_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("seen.fwknop");
        let mut seen = Seen::load(path.clone(), 1000);
        assert!(seen.add(&packet(1), 1000, 1000));
        assert!(seen.add(&packet(2), 9000, 9000));
        assert!(!seen.has(&packet(1)));
        assert!(seen.may_have_forgotten(1000) && !seen.may_have_forgotten(1001));
        // Also the next service, once the file has been written anew.
        for number in 10..10 + 3 * FEWEST_LINES {
            assert!(seen.add(&packet(number), 9000, 9000));
        }
        let seen = Seen::load(path, 900);
        assert!(seen.may_have_forgotten(1000) && !seen.may_have_forgotten(1001));
    }

    #[test]
    fn the_same_end_is_no_copy() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut seen = Seen::load(folder.path().join("seen.fwknop"), 0);
        assert!(seen.add(&packet(1), 1, 1));
        let mut other = packet(1);
        other[0] ^= 1;
        assert!(seen.has(&packet(1)) && !seen.has(&other) && !seen.has(b"short"));
    }

    #[test]
    fn the_file_stays_small_and_a_cut_line_harms_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("seen.fwknop");
        let mut seen = Seen::load(path.clone(), 0);
        for number in 0..4 * FEWEST_LINES {
            let time = number as u64 * 10;
            assert!(seen.add(&packet(number), time, time));
        }
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.lines().count() <= FEWEST_LINES + 32, "{}", text.len());
        let known = |seen: &Seen| {
            let numbers = 0..4 * FEWEST_LINES;
            numbers.filter(|number| seen.has(&packet(*number))).count()
        };
        let before = known(&seen);
        assert!(before > 1, "{before}");
        fs::write(&path, &text[..text.len() - 40]).expect("writable");
        let seen = Seen::load(path, 4 * FEWEST_LINES as u64 * 10);
        assert_eq!(known(&seen), before - 1);
    }

    #[test]
    fn without_a_usable_file_what_was_made_before_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("seen.fwknop");
        fs::write(&path, "something else\n").expect("writable");
        let seen = Seen::load(path, 1000);
        assert!(seen.may_have_forgotten(1000) && !seen.may_have_forgotten(1001));
    }

    #[test]
    fn it_takes_bounded_memory() {
        let mut seen = Seen::load(PathBuf::from("/proc/nonexistent/seen.fwknop"), 0);
        seen.has_failed = true;
        for number in 0..MOST {
            let Some(end) = end(&packet(number)) else {
                panic!("long enough");
            };
            let packet = Packet {
                hash: [0; 32],
                time: 1,
                until: 1,
            };
            seen.packets.insert(end, packet);
        }
        assert!(!seen.add(&packet(MOST), 1, 1));
        assert!(seen.add(&packet(MOST), 2, 2));
        assert_eq!(seen.packets.len(), 1);
    }
}
