//! Puts the kernel programs into the binary.
//!
//! `cargo xtask build` compiles them and says where the XDP program is in `KNOCKGATE_KERNEL_PROGRAM`; the TCX program is
//! beside it. Without that,
//! as in `cargo check` on a machine that has no BPF toolchain, a binary is built that does everything
//! but `up` and `run`, and says so when asked for these.

use std::{env, error::Error, fs, path::Path};

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

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
        let object = without_debug_information(&from).unwrap_or_else(|error| {
            panic!("KNOCKGATE_KERNEL_PROGRAM: {}: {error}", from.display())
        });
        fs::write(Path::new(&out).join(to), object).expect("cargo makes OUT_DIR");
    }
    println!("cargo::rustc-cfg=kernel_program");
}

/// Reads an object without its DWARF sections: four fifths of it, and the kernel reads none of them. The linker has made BTF of
/// them, which stays.
fn without_debug_information(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let object = fs::read(path)?;
    let mut builder = Builder::read(&*object)?;
    for section in &mut builder.sections {
        let of = section.name.strip_prefix(b".rel".as_slice());
        section.delete = of.unwrap_or(&section.name).starts_with(b".debug_");
    }
    builder.delete_orphans();
    // The linker keeps the names of sections with those of symbols. This library writes them into a section of their own.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut rest = Vec::new();
    builder.write(&mut rest)?;
    Ok(rest)
}
