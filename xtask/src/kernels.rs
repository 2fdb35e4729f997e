//! `cargo xtask kernels`: tries the program on the oldest and the newest kernel of Debian 12.
//!
//! qemu boots each kernel without hardware virtualization, so that this works on every machine, with a system in memory
//! that contains `knockgate` and some rows of the [`suites`]. [`debian`] gets the kernel, [`image`] packs the system,
//! [`guest`] boots it and reads its console, and [`figures`] stores the verifiers' figures. Nothing is installed, and
//! nothing is attached to an interface of this machine.

mod debian;
mod figures;
mod guest;
mod image;
mod suites;

use std::thread;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use knockgate_progress::Progress;

use self::{
    debian::{Emulator, Kernel},
    guest::Guest,
    suites::Suites,
};
use crate::{
    build::{self, Built},
    setup::{self, Purpose},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Also run the checks that take minutes in a guest, as before a release
    #[arg(long)]
    pub(crate) all: bool,
    /// Run this suite alone, and the verifier; also one that takes minutes
    #[arg(long, value_name = "SUITE", conflicts_with = "all")]
    pub(crate) only: Option<String>,
    /// Write the verifiers' figures into docs/development/verifier.md, however much they have grown
    #[arg(long)]
    pub(crate) update: bool,
}

/// Sets up, builds, and tries the program on this machine's kernel and on others.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { all, only, update } = options;
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels are for x86-64, and so is what runs in them: run this on such a machine"
    );
    let toolchain = setup::ready(Purpose::Kernels)?;
    println!("Building the kernel program, the binary and the suites");
    let Built { program, knockgate } = build::release(&toolchain)?;
    let suites = Suites::build(&program, *all, only.as_deref())?;
    let emulator = Emulator::fetch()?;
    let guests = debian::PACKAGES
        .iter()
        .map(|package| Guest::prepare(Kernel::fetch(package)?, &knockgate, &suites))
        .collect::<Result<Vec<_>>>()?;

    let checks: usize = guests.iter().map(Guest::checks_to_run).sum();
    let progress = Progress::new(1 + checks);
    progress.begin("verifier, on this machine's kernel");
    let mut results = vec![suites.measure_here(*update)];
    progress.done();
    // At the same time, since each uses one processor.
    thread::scope(|scope| {
        let guests: Vec<_> = guests
            .iter()
            .map(|guest| scope.spawn(|| guest.run(&emulator, *update, &progress)))
            .collect();
        for guest in guests {
            let result = guest.join();
            results.push(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });

    drop(progress);
    let tried = results.len();
    let (mut passed, mut figures) = (0, Vec::new());
    for result in results {
        match result {
            Ok(of_kernel) => {
                passed += 1;
                figures.extend(of_kernel);
            }
            Err(error) => eprintln!("\n{error:#}"),
        }
    }
    figures::sort(&mut figures);
    println!("\n{}", figures::table(&figures));
    ensure!(
        passed == tried,
        "{} of {tried} kernels did not pass every check; the lines above say which and why",
        tried - passed
    );
    if *update {
        figures::write(&figures).context("cannot update the figures")?;
    }
    println!("Every check passed on each of {tried} kernels.");
    Ok(())
}
