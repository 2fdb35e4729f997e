//! What each interface's packets meet: by the kernel's link and by what the interface itself says it carries.
//! That something is pinned says nothing of that.

use std::fmt;

use anyhow::{Context as _, Result};

use super::{
    PinRoot,
    interface::{self, Attached, Xdp},
    pins::{self, Contents},
};
use crate::sys::{
    bpf::{self, XdpLink},
    netlink::{self, Card},
};

/// An interface that a gate is to guard, or one that it guards by following a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What it was called when the gate was put on it; what the configuration calls it.
    pub configured: String,
    /// What it is called now.
    pub name: String,
    /// Its index, where there is such an interface.
    pub index: Option<u32>,
    /// How the gate's program is attached, or why it isn't.
    pub state: Result<Attached, Lack>,
    /// An XDP program that is not this gate's, where the gate is not on it.
    pub other: Option<Xdp>,
}

/// Why a configured interface is not guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// It has no pins: `down -i` has removed them.
    Down,
    /// No interface is called that.
    Absent,
    /// The gate was on its card, which is in another network namespace now.
    Moved,
    /// The link is on no interface any more.
    Detached,
    /// There is no link.
    Unlinked,
    /// The card that the gate was put on is called this now.
    Renamed(String),
}

impl Attachment {
    pub fn is_guarded(&self) -> bool {
        self.state.is_ok()
    }

    pub fn renamed_from(&self) -> Option<&str> {
        (self.configured != self.name).then_some(self.configured.as_str())
    }
}

impl Lack {
    /// In a word, for events.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Absent => "gone",
            Self::Moved => "moved",
            Self::Detached | Self::Unlinked => "detached",
            Self::Renamed(_) => "renamed",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => write!(f, "the gate was taken down on it"),
            Self::Absent => write!(f, "there is no such interface"),
            Self::Moved => write!(f, "it was moved to another network namespace"),
            Self::Detached => write!(
                f,
                "the gate's program was detached, or the interface was made again"
            ),
            Self::Unlinked => write!(f, "the gate's program is not attached to it"),
            Self::Renamed(now) => write!(
                f,
                "it is another interface than the one that the gate was put on, which is called {now} now"
            ),
        }
    }
}

/// The links pinned under `root`, with the interface in whose directory each is.
pub(super) fn held(root: &PinRoot) -> Result<Vec<(String, XdpLink)>> {
    let mut held = Vec::new();
    for directory in root.directories()? {
        if directory.contents != Contents::Gate {
            continue;
        }
        for path in pins::links(&directory.path)? {
            let link = bpf::xdp_link(&path)
                .with_context(|| format!("cannot look at {}", path.display()))?;
            held.extend(link.map(|link| (directory.interface.clone(), link)));
        }
    }
    Ok(held)
}

/// How the gate pinned under `root` is attached, for each of the interfaces in `configured` and each card that it
/// has followed.
pub(super) fn attachments(root: &PinRoot, configured: &[String]) -> Result<Vec<Attachment>> {
    let directories: Vec<String> = root
        .directories()?
        .into_iter()
        .filter(|directory| directory.contents == Contents::Gate)
        .map(|directory| directory.interface)
        .collect();
    let held = held(root)?;
    let mut cards = Vec::new();
    let indices = held
        .iter()
        .filter_map(|(_, link)| Some(link.interface?.get()))
        .chain(configured.iter().filter_map(|name| interface::find(name)));
    for index in indices {
        if cards.iter().any(|card: &Card| card.index == index) {
            continue;
        }
        cards.extend(netlink::card(index).context("cannot ask the kernel about an interface")?);
    }
    Ok(judge(configured, &directories, &held, &cards))
}

/// The same from what was read: `directories` and `held` of the pins, `cards` of this network namespace.
fn judge(
    configured: &[String],
    directories: &[String],
    held: &[(String, XdpLink)],
    cards: &[Card],
) -> Vec<Attachment> {
    let mut found: Vec<Attachment> = Vec::new();
    // A link in another namespace may name an index that a guarded card of this one has, too. Of two, the one
    // whose card still has its name is believed.
    let card_of = |pinned: &str, link: &XdpLink| {
        let card = cards
            .iter()
            .find(|card| Some(card.index) == link.interface.map(std::num::NonZeroU32::get))?;
        let attached = mode(card, link.program)?;
        let claimed = held.iter().any(|(other, rival)| {
            other != pinned && rival.interface == link.interface && *other == card.name
        });
        (card.name == pinned || !claimed).then_some((card, attached))
    };
    for (pinned, link) in held {
        let Some((card, attached)) = card_of(pinned, link) else {
            continue;
        };
        if found.iter().all(|known| known.index != Some(card.index)) {
            found.push(Attachment {
                configured: pinned.clone(),
                name: card.name.clone(),
                index: Some(card.index),
                state: Ok(attached),
                other: None,
            });
        }
    }
    for name in configured {
        let card = cards.iter().find(|card| card.name == *name);
        let follows = found.iter().find(|known| known.configured == *name);
        let is_guarded = found.iter().any(|known| known.name == *name);
        if is_guarded || (card.is_none() && follows.is_some()) {
            continue;
        }
        let own: Vec<&XdpLink> = held
            .iter()
            .filter(|(pinned, _)| pinned == name)
            .map(|(_, link)| link)
            .collect();
        let lack = if !directories.contains(name) {
            Lack::Down
        } else if let Some(follows) = follows {
            Lack::Renamed(follows.name.clone())
        } else if own.iter().any(|link| link.interface.is_some()) {
            Lack::Moved
        } else if card.is_none() {
            Lack::Absent
        } else if own.is_empty() {
            Lack::Unlinked
        } else {
            Lack::Detached
        };
        found.push(Attachment {
            configured: name.clone(),
            name: name.clone(),
            index: card.map(|card| card.index),
            state: Err(lack),
            other: card.and_then(interface::carries),
        });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// How a card carries a program, if it does.
fn mode(card: &Card, program: u32) -> Option<Attached> {
    if card.native == Some(program) {
        Some(Attached::Native)
    } else if card.generic == Some(program) {
        Some(Attached::Generic)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const PROGRAM: u32 = 40;

    fn link(pinned: &str, interface: u32) -> (String, XdpLink) {
        let link = XdpLink {
            program: PROGRAM,
            interface: NonZeroU32::new(interface),
        };
        (pinned.to_owned(), link)
    }

    fn card(index: u32, name: &str, native: Option<u32>) -> Card {
        Card {
            index,
            name: name.to_owned(),
            native,
            generic: None,
        }
    }

    type Row = (String, Option<u32>, Option<String>, Result<(), Lack>);

    /// Every row: its name, its index, its former name, and whether it is guarded or why not.
    fn rows(configured: &[&str], held: &[(String, XdpLink)], cards: &[Card]) -> Vec<Row> {
        let configured: Vec<String> = configured.iter().map(ToString::to_string).collect();
        judge(&configured, &configured, held, cards)
            .into_iter()
            .map(|row| {
                let renamed = row.renamed_from().map(ToOwned::to_owned);
                (row.name, row.index, renamed, row.state.map(drop))
            })
            .collect()
    }

    fn row(name: &str, index: Option<u32>, renamed: Option<&str>, state: Result<(), Lack>) -> Row {
        (
            name.to_owned(),
            index,
            renamed.map(ToOwned::to_owned),
            state,
        )
    }

    #[test]
    fn a_card_that_carries_the_program_is_guarded() {
        assert_eq!(
            rows(
                &["wan0"],
                &[link("wan0", 2)],
                &[card(2, "wan0", Some(PROGRAM))]
            ),
            [row("wan0", Some(2), None, Ok(()))]
        );
    }

    #[test]
    fn pins_guard_nothing() {
        let cards = [card(2, "wan0", None)];
        assert_eq!(
            rows(&["wan0"], &[link("wan0", 0)], &cards),
            [row("wan0", Some(2), None, Err(Lack::Detached))]
        );
        assert_eq!(
            rows(&["wan0"], &[], &cards),
            [row("wan0", Some(2), None, Err(Lack::Unlinked))]
        );
        assert_eq!(
            rows(&["wan0"], &[link("wan0", 0)], &[]),
            [row("wan0", None, None, Err(Lack::Absent))]
        );
        let configured = ["wan0".to_owned()];
        let down = judge(&configured, &[], &[], &cards);
        assert_eq!(down[0].state, Err(Lack::Down));
    }

    #[test]
    fn a_renamed_card_is_followed() {
        assert_eq!(
            rows(
                &["wan0"],
                &[link("wan0", 2)],
                &[card(2, "ext0", Some(PROGRAM))]
            ),
            [row("ext0", Some(2), Some("wan0"), Ok(()))]
        );
    }

    #[test]
    fn another_card_under_the_name_is_not_guarded() {
        let cards = [card(2, "ext0", Some(PROGRAM)), card(3, "wan0", None)];
        assert_eq!(
            rows(&["wan0"], &[link("wan0", 2)], &cards),
            [
                row("ext0", Some(2), Some("wan0"), Ok(())),
                row("wan0", Some(3), None, Err(Lack::Renamed("ext0".into()))),
            ]
        );
        // Until the gate is on both.
        let cards = [
            card(2, "ext0", Some(PROGRAM)),
            card(3, "wan0", Some(PROGRAM)),
        ];
        assert_eq!(
            rows(&["wan0"], &[link("wan0", 2), link("wan0", 3)], &cards),
            [
                row("ext0", Some(2), Some("wan0"), Ok(())),
                row("wan0", Some(3), None, Ok(())),
            ]
        );
    }

    #[test]
    fn two_that_have_swapped_names_are_guarded() {
        let cards = [
            card(2, "lan0", Some(PROGRAM)),
            card(3, "wan0", Some(PROGRAM)),
        ];
        assert_eq!(
            rows(
                &["lan0", "wan0"],
                &[link("lan0", 3), link("wan0", 2)],
                &cards
            ),
            [
                row("lan0", Some(2), Some("wan0"), Ok(())),
                row("wan0", Some(3), Some("lan0"), Ok(())),
            ]
        );
    }

    #[test]
    fn a_card_in_another_namespace_guards_nothing_here() {
        assert_eq!(
            rows(&["wan0"], &[link("wan0", 2)], &[]),
            [row("wan0", None, None, Err(Lack::Moved))]
        );
        // Its index is another card's here.
        let other = [card(2, "lan0", Some(77))];
        assert_eq!(
            rows(&["wan0"], &[link("wan0", 2)], &other),
            [row("wan0", None, None, Err(Lack::Moved))]
        );
        // And that card is guarded, too, whichever link is looked at first.
        assert_eq!(
            rows(
                &["aux0", "lan0"],
                &[link("aux0", 2), link("lan0", 2)],
                &[card(2, "lan0", Some(PROGRAM))]
            ),
            [
                row("aux0", None, None, Err(Lack::Moved)),
                row("lan0", Some(2), None, Ok(())),
            ]
        );
        assert_eq!(
            rows(
                &["lan0", "wan0"],
                &[link("lan0", 2), link("wan0", 2)],
                &[card(2, "lan0", Some(PROGRAM))]
            ),
            [
                row("lan0", Some(2), None, Ok(())),
                row("wan0", None, None, Err(Lack::Moved)),
            ]
        );
    }
}
