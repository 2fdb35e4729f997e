//! Has links and slot carry the programs of new directories in place of those before, and gives these directories their names.
//!
//! Each packet is judged by the one or the other: the kernel changes the program of a link between two packets. Whatever fails before
//! the first directory has changed places is undone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{
    attach::{Guarded, guard_in},
    attachment::Attachment,
    complete::succeeds,
    framing::framing,
    pins::{directory::Holds, root::PinRoot},
    request::Absent,
    settle::{self, change_programs, change_slot, forget, link_ids, share_links, take_place},
};
use crate::{
    config::Config,
    datapath::{
        chain::next,
        keys::{KeyRows, Newest},
        open::Datapath,
        tables::{Access, PinDirectory},
        write,
    },
};

type Attachments = (Vec<Guarded>, Vec<(String, anyhow::Error)>);

/// What comes into force.
pub(super) struct Exchange<'a> {
    /// Opened from the new directories.
    pub new: &'a mut Datapath,
    pub root: &'a PinRoot,
    /// Those for which there are new directories.
    pub interfaces: &'a [String],
    /// How what was there before is attached.
    pub attachments: &'a [Attachment],
    pub absent: Absent,
}

impl Exchange<'_> {
    /// Brings it into force, and attaches it where nothing was attached before. `undo`: has filled the new directories. `keys`: those
    /// that go into tables which the program before uses too. Returns what has been attached, and what could not be.
    pub fn run(self, mut undo: Undo<'_>, keys: Option<(&KeyRows, &Newest)>) -> Result<Attachments> {
        let Self {
            new,
            root,
            interfaces,
            attachments,
            absent,
        } = self;
        prepare_interfaces(root, new.config(), attachments)?;
        let (before, next) = (instance(root)?, undo.directories());
        change_programs(&before, &before, &next)?;
        change_slot(&before, &next)?;
        let attached = attach_missing(new, root, interfaces, absent, attachments)?;
        keep_links(root, new.config(), attachments)?;
        let mut kept = Vec::new();
        for directory in &next {
            kept.extend(link_ids(directory)?);
        }
        if let Some((rows, begin)) = keys {
            undo.has_keys = true;
            new.put_keys(rows, begin)?;
        }
        let (first, others) = interfaces.split_first().context("no interface to guard")?;
        // From now on, what is half done is finished and no longer undone.
        take_place(root, first, &kept)?;
        undo.interfaces.clear();
        for name in others {
            succeeds(take_place(root, name, &kept));
        }
        Ok(attached)
    }
}

/// Returns the directories of what is up.
pub(super) fn instance(root: &PinRoot) -> Result<Vec<PathBuf>> {
    let mut directories = root.directories()?;
    directories.retain(|of| of.holds == Holds::Instance);
    Ok(directories.into_iter().map(|of| of.path).collect())
}

/// Puts the guarded bonds, and what follows on the guarded interfaces, into the new tables.
fn prepare_interfaces(root: &PinRoot, config: &Config, attachments: &[Attachment]) -> Result<()> {
    for row in attachments.iter().filter(|row| row.is_attached()) {
        // By its name now, if the configuration has that.
        let mut names = [&row.name, &row.configured].into_iter();
        let name = names.find(|name| config.interfaces.contains(name));
        if let (Some(name), Some(index)) = (name, row.index) {
            let tables = PinDirectory {
                path: root.unnamed(name),
                access: Access::Change,
            };
            write::add_bond(&tables, index)?;
            // No reason to leave the configuration before in force. What a person can mend has been refused before.
            let prepared = framing(&row.name, index)
                .and_then(|framing| next::prepare(&tables, config, name, index, framing));
            if let Err(error) = prepared {
                tracing::warn!("{error:#}");
            }
        }
    }
    Ok(())
}

/// Pins the links of interfaces that have been renamed, and that the configuration names as they are called now, in the directories
/// for these names. In those for their earlier names they would be detached with these.
fn keep_links(root: &PinRoot, config: &Config, attachments: &[Attachment]) -> Result<()> {
    for row in attachments.iter().filter(|row| row.is_attached()) {
        if row.renamed_from().is_some() && config.interfaces.contains(&row.name) {
            let (from, to) = (root.of(&row.configured), root.unnamed(&row.name));
            share_links(&from, &to, |_, index| Some(index) == row.index)?;
        }
    }
    Ok(())
}

/// Attaches the program to those of these interfaces that lack it.
fn attach_missing(
    new: &Datapath,
    root: &PinRoot,
    interfaces: &[String],
    absent: Absent,
    before: &[Attachment],
) -> Result<Attachments> {
    let (mut guarded, mut failed) = (Vec::new(), Vec::new());
    for name in interfaces {
        // Under its name now: an interface that was renamed keeps its link, and another one may have its name.
        if before
            .iter()
            .any(|row| row.name == *name && row.is_attached())
        {
            continue;
        }
        let follows = before
            .iter()
            .any(|row| row.configured == *name && row.is_attached());
        match guard_in(root, &root.unnamed(name), name, &new.applied) {
            Ok(attached) => guarded.extend(attached.map(|attached| Guarded {
                interface: name.clone(),
                attached,
            })),
            Err(_) if follows && crate::sys::links::index_of(name).is_none() => {}
            Err(error) if absent == Absent::Refuse => return Err(error),
            Err(error) => failed.push((name.clone(), error)),
        }
    }
    Ok((guarded, failed))
}

/// Undoes what was done for these interfaces when the value is dropped.
pub(super) struct Undo<'r> {
    root: &'r PinRoot,
    interfaces: Vec<String>,
    /// The new keys may be in the tables that the program before uses too.
    has_keys: bool,
}

impl<'r> Undo<'r> {
    pub fn new(root: &'r PinRoot) -> Self {
        Self {
            root,
            interfaces: Vec::new(),
            has_keys: false,
        }
    }

    /// Fills a directory beside that of each interface by `pin`.
    pub fn fill(&mut self, interfaces: &[String], pin: impl Fn(&Path) -> Result<()>) -> Result<()> {
        for name in interfaces {
            self.interfaces.push(name.clone());
            self.root.fill_beside(name, &pin)?;
        }
        Ok(())
    }

    /// Returns the directories that have been filled.
    fn directories(&self) -> Vec<PathBuf> {
        let names = self.interfaces.iter();
        names.map(|name| self.root.unnamed(name)).collect()
    }

    fn run(&self) -> Result<()> {
        let next = self.directories();
        settle::undo(&next, &instance(self.root)?)?;
        if self.has_keys {
            // While the directories are there, whoever comes next does it.
            settle::put_back_keys(self.root, next.iter().map(PathBuf::as_path))?;
        }
        for directory in next.iter().filter(|directory| directory.exists()) {
            forget(self.root, directory)?;
        }
        Ok(())
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.interfaces.is_empty()
            && let Err(error) = self.run()
        {
            tracing::warn!("{error:#}");
        }
    }
}
