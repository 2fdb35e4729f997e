//! Writes rows into tables, of a program that is about to be loaded or of one that runs.
//!
//! Afterwards a table holds these rows and no others. In a table of a running program, a row that was there before and stays
//! is never missing meanwhile, and one that is the same is not written, so its packets are not disturbed.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{self, Array, MapData, lpm_trie::Key},
};
use knock_common::{
    keys::ScopedAddress,
    layout::CONFIG_CHUNK,
    reject::{Link, LinkKey, ReplySettings},
};

use super::{
    compile::{Contents, Prefix, automaton::Automaton},
    host::{HostState, bonds},
    tables::{self, Source, absent_as_none, data},
};
use crate::{
    sys::{bpf::batch, links},
    values::Port,
};

impl Contents {
    /// Fills the tables that follow from the configuration, which are new. `open`: ports on which a packet is no probe.
    pub fn fill(&self, to: &impl Source, open: &BTreeSet<Port>) -> Result<()> {
        let Self {
            applied: _,
            automaton,
            gates,
            allow,
            knockers,
            places,
            guarded_addresses,
            // Part of a table that grants by hand change too.
            grant_lengths: _,
            config,
            // Constants of the program.
            settings: _,
            ..
        } = self;
        let Automaton {
            sequences,
            states,
            transitions,
            ..
        } = automaton;
        batch::write(data(&tables::GATE.open(to)?), indexed(gates))?;
        batch::write(data(&tables::SEQUENCE.open(to)?), indexed(sequences))?;
        batch::write(data(&tables::STATE.open(to)?), indexed(states))?;
        let transitions = transitions.iter().map(|(from, next)| (*from, *next));
        batch::write(data(&tables::TRANSITION.open(to)?), transitions)?;
        batch::write(data(&tables::ROLE.open(to)?), self.roles(open))?;
        batch::write(data(&tables::ALLOW.open(to)?), networks(allow))?;
        batch::write(data(&tables::KNOCKER.open(to)?), networks(knockers))?;
        batch::write(data(&tables::PLACE.open(to)?), networks(places))?;
        let guarded = guarded_addresses.iter().map(|address| (*address, 1_u32));
        batch::write(data(&tables::GUARDED_ADDRESS.open(to)?), guarded)?;
        batch::write(
            data(&tables::CONFIG.open(to)?),
            chunks::<CONFIG_CHUNK>(config),
        )
    }
}

/// The tables that follow from this host.
pub struct HostTables {
    reply_settings: Array<MapData, ReplySettings>,
    links: maps::HashMap<MapData, LinkKey, Link>,
    addresses: maps::HashMap<MapData, ScopedAddress, u32>,
    bonds: maps::HashMap<MapData, u32, u32>,
}

impl HostTables {
    pub fn open(source: &impl Source) -> Result<Self> {
        Ok(Self {
            reply_settings: tables::REPLY_SETTINGS.open(source)?,
            links: tables::REPLY_LINK.open(source)?,
            addresses: tables::LOCAL_ADDRESS.open(source)?,
            bonds: tables::BOND.open(source)?,
        })
    }

    /// Returns the number that makes flow labels unpredictable; 0 where no gate rejects.
    pub fn secret(&self) -> Result<u64> {
        Ok(self.reply_settings.get(&0, 0)?.secret)
    }

    /// Reads the addresses that the program knows, each with its [`address_kind`](knock_common::reject::address_kind).
    pub fn known_addresses(&self) -> Result<Vec<(IpAddr, u32)>> {
        let mut known = Vec::new();
        batch::for_each(data(&self.addresses), |key: &ScopedAddress, kind: &u32| {
            known.extend(key.address().map(|address| (address, *kind)));
        })?;
        Ok(known)
    }

    /// Writes the state of the host.
    pub fn write(&mut self, state: &HostState) -> Result<()> {
        if let Some(settings) = state.reply_settings {
            array(&mut self.reply_settings, [(0, settings)])?;
        }
        hash(&mut self.bonds, state.bond_rows())?;
        hash(&mut self.links, state.link_rows())?;
        hash(&mut self.addresses, state.address_rows())
    }
}

/// Adds the interfaces in a bond, if the interface with this index is one. To be done before its first packet.
pub fn add_bond(to: &impl Source, index: u32) -> Result<()> {
    let links = links::all().context("cannot ask the kernel about interfaces")?;
    let bonds = bonds(&[index], &links);
    if bonds.is_empty() {
        return Ok(());
    }
    batch::write(data(&tables::BOND.open(to)?), bonds)
}

fn indexed<V: Copy>(values: &[V]) -> impl Iterator<Item = (u32, V)> {
    (0..).zip(values.iter().copied())
}

fn chunks<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = (u32, [u8; SIZE])> {
    (0..).zip(bytes.chunks(SIZE).map(|part| {
        let mut chunk = [0; SIZE];
        chunk[..part.len()].copy_from_slice(part);
        chunk
    }))
}

fn networks(prefixes: &[Prefix]) -> impl Iterator<Item = (Key<ScopedAddress>, u32)> {
    let prefixes = prefixes.iter();
    prefixes.map(|prefix| (Key::new(prefix.length, prefix.network), 1))
}

/// Makes an array hold these rows, and zeros elsewhere.
pub fn array<V>(
    table: &mut Array<MapData, V>,
    rows: impl IntoIterator<Item = (u32, V)>,
) -> Result<()>
where
    V: Pod + bytemuck::Pod,
{
    let rows: HashMap<u32, V> = rows.into_iter().collect();
    let mut wrong = Vec::new();
    batch::for_each(data(table), |index: &u32, value: &V| {
        let wanted = rows.get(index).copied().unwrap_or_else(V::zeroed);
        if bytemuck::bytes_of(value) != bytemuck::bytes_of(&wanted) {
            wrong.push((*index, wanted));
        }
    })?;
    batch::write(data(table), wrong)
}

/// Makes a hash table hold these rows and no others.
pub fn hash<K, V>(
    table: &mut maps::HashMap<MapData, K, V>,
    rows: impl IntoIterator<Item = (K, V)>,
) -> Result<()>
where
    K: Pod + bytemuck::Pod + Eq + std::hash::Hash,
    V: Pod + bytemuck::Pod,
{
    let mut rows: HashMap<K, V> = rows.into_iter().collect();
    let mut superfluous = Vec::new();
    batch::for_each(data(table), |key: &K, value: &V| match rows.get(key) {
        None => superfluous.push(*key),
        Some(wanted) if bytemuck::bytes_of(wanted) == bytemuck::bytes_of(value) => {
            rows.remove(key);
        }
        Some(_) => {}
    })?;
    // First, to make room.
    for key in superfluous {
        absent_as_none(table.remove(&key))?;
    }
    batch::write(data(table), rows)
}
