//! Puts the kernel programs into the binary.
//!
//! `cargo xtask build` compiles them and says where the XDP program is in `KNOCKGATE_KERNEL_PROGRAM`; the TCX program is
//! beside it. Without that,
//! as in `cargo check` on a machine that has no BPF toolchain, a binary is built that does everything
//! but `up` and `run`, and says so when asked for these.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(kernel_program)");
    println!("cargo::rerun-if-env-changed=KNOCKGATE_KERNEL_PROGRAM");
    let Ok(object) = env::var("KNOCKGATE_KERNEL_PROGRAM") else {
        return;
    };
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let object = Path::new(&object);
    for (from, to) in [
        (object.to_owned(), "kernel_program"),
        (object.with_file_name("knock-tcx"), "tcx_program"),
    ] {
        println!("cargo::rerun-if-changed={}", from.display());
        if let Err(error) = fs::copy(&from, Path::new(&out).join(to)) {
            panic!("KNOCKGATE_KERNEL_PROGRAM: {}: {error}", from.display());
        }
    }
    println!("cargo::rustc-cfg=kernel_program");
}
