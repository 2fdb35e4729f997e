//! Puts the kernel program into the binary.
//!
//! `cargo xtask build` compiles it and says where it is in `KNOCKGATE_KERNEL_PROGRAM`. Without that,
//! as in `cargo check` on a machine that has no BPF toolchain, a binary is built that does everything
//! but `up` and `run`, and says so when asked for these.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(kernel_program)");
    println!("cargo::rerun-if-env-changed=KNOCKGATE_KERNEL_PROGRAM");
    let Ok(object) = env::var("KNOCKGATE_KERNEL_PROGRAM") else {
        return;
    };
    println!("cargo::rerun-if-changed={object}");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    if let Err(error) = fs::copy(&object, Path::new(&out).join("kernel_program")) {
        panic!("KNOCKGATE_KERNEL_PROGRAM={object}: {error}");
    }
    println!("cargo::rustc-cfg=kernel_program");
}
