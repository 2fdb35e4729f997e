//! Paths in this checkout.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Returns the folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // Cargo also sets the variable for `cargo run`, so that a checkout can be moved.
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map(Path::to_path_buf).unwrap_or(xtask)
}

/// Returns cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |target| root().join(target))
}

/// Returns the folder into which [`crate::setup`] installs tools: `KNOCKGATE_TOOLS`, else one below the target folder.
pub(crate) fn tools() -> PathBuf {
    env::var_os("KNOCKGATE_TOOLS")
        .map_or_else(|| target().join("tools"), |tools| root().join(tools))
}

/// Returns the cargo that runs this program.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
