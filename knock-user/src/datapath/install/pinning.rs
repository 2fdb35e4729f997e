//! Pins a program that has been loaded, with its tables.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Ebpf;

use super::attach::pin_programs;
use crate::datapath::tables::{self, Definition};

/// Pins the programs and all tables; the table that identifies the instance goes last.
pub(super) fn pin(ebpf: &Ebpf, directory: &Path) -> Result<()> {
    let identity = &tables::META.definition;
    for table in tables::ALL {
        if table.name != identity.name {
            pin_table(ebpf, table, directory)?;
        }
    }
    pin_programs(ebpf, directory)?;
    pin_table(ebpf, identity, directory)
}

fn pin_table(ebpf: &Ebpf, table: &Definition, directory: &Path) -> Result<()> {
    let name = table.name;
    let map = ebpf
        .map(name)
        .with_context(|| format!("the object has no table {name}"))?;
    map.pin(directory.join(table.pin_name()))
        .with_context(|| format!("cannot pin the table {name} in {}", directory.display()))
}
