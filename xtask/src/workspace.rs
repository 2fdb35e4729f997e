//! Where things are in this checkout.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run` too, so a checkout that was moved is found where it is now.
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map(Path::to_path_buf).unwrap_or(xtask)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |target| root().join(target))
}

/// Where [`crate::setup`] installs tools with cargo: `KNOCKGATE_TOOLS`, else a folder that goes with
/// `cargo clean`.
pub(crate) fn tools() -> PathBuf {
    env::var_os("KNOCKGATE_TOOLS")
        .map_or_else(|| target().join("tools"), |tools| root().join(tools))
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
