//! A program of ours whose pin somebody has removed is known by the tables that it uses.

use std::path::Path;

use anyhow::Result;

use super::{
    pins::directory::{Directory, Holds},
    xdp,
};
use crate::datapath::tables;

/// Returns whether a program uses the tables that are pinned in `directory`. `false` as well where this process may not ask the kernel.
pub fn is_of(program: u32, directory: &Path) -> Result<bool> {
    // Each entry looks up in it, and each configuration has its own.
    let pin = directory.join(tables::ROLE.definition.pin_name());
    let Some(table) = tables::pinned(&pin)? else {
        return Ok(false);
    };
    Ok(xdp::uses(program, table.info()?.id()))
}

/// As [`is_of`], of the instance or of a replacement that is going on.
pub(super) fn is_of_any(program: u32, directories: &[Directory]) -> Result<bool> {
    for Directory { path, holds, .. } in directories {
        if matches!(holds, Holds::Instance | Holds::Unfinished) && is_of(program, path)? {
            return Ok(true);
        }
    }
    Ok(false)
}
