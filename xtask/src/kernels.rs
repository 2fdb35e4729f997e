//! `cargo xtask kernels`: tries the program on kernels of Debian, and on arm64.
//!
//! qemu boots each kernel without hardware virtualization, so that this works on every machine, with a system in memory
//! that contains `knockgate` and some rows of the [`suites`]. [`debian`] lists and gets the kernels, [`userland`] the programs
//! beside them, [`image`] packs the system, [`guest`] boots it and reads its console, and [`figures`] stores the verifiers'
//! figures. Nothing is installed but a cross compiler for arm64, and nothing is attached to an interface of this machine.

mod debian;
mod figures;
mod guest;
mod image;
mod suites;
mod userland;

use std::thread;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use knockgate_progress::Progress;

use self::{
    debian::{Emulator, Kernel, Wanted},
    guest::Guest,
    suites::{Selection, Suites, When},
    userland::Userland,
};
use crate::{
    architecture::Architecture,
    build::{self, Built},
    setup::{self, Purpose},
};

/// Machines that run at the same time.
const AT_ONCE: usize = 2;

#[derive(Args)]
pub(crate) struct Options {
    /// The processor of the machines that are booted, if not this one's; arm64 takes half an hour on an idle machine, and
    /// runs every row of the suite of gates
    #[arg(long, value_enum)]
    pub(crate) arch: Option<Architecture>,
    /// Also run the checks that take minutes in a guest, and boot Debian's newest kernel and one that is too old, as
    /// before a release
    #[arg(long)]
    pub(crate) all: bool,
    /// Boot this kernel alone: 5.10, 6.1, 6.12, newest; for arm64 6.1, 6.12-16k, newest
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// Run this suite alone, and the verifier; also one that takes minutes
    #[arg(long, value_name = "SUITE", conflicts_with = "all")]
    pub(crate) only: Option<String>,
    /// Write the verifiers' figures, also of Debian's newest kernel, into docs/development/verifier.md, however much they
    /// have grown
    #[arg(long, conflicts_with_all = ["arch", "kernel"])]
    pub(crate) update: bool,
}

impl Options {
    /// Returns the kernels to try.
    fn kernels(&self, architecture: Architecture) -> Result<Vec<&'static Wanted>> {
        let all = debian::kernels(architecture).iter();
        let wanted: Vec<_> = match &self.kernel {
            Some(name) => all.filter(|kernel| kernel.name == name).collect(),
            None => all
                .filter(|kernel| {
                    self.all
                        || kernel.when == When::EveryChange
                        || self.update && !kernel.is_refused
                })
                .collect(),
        };
        ensure!(
            !wanted.is_empty(),
            "no kernel for {} has this name",
            architecture.debian()
        );
        Ok(wanted)
    }
}

/// Sets up, builds, and tries the program on this machine's kernel and on others.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options {
        arch,
        all,
        kernel,
        only,
        update,
    } = options;
    let architecture = Architecture::or_here(*arch)?;
    let kernels = options.kernels(architecture)?;
    let toolchain = setup::ready(Purpose::Kernels)?;
    let cross = setup::cross(architecture)?;
    let cross = cross.as_ref();
    println!("Building the kernel program, the binary and the suites");
    let Built { program, knockgate } = build::release_for(&toolchain, cross)?;
    let selection = Selection {
        architecture,
        all: *all,
        only: only.as_deref(),
        is_refused: kernels.iter().any(|kernel| kernel.is_refused),
    };
    let suites = Suites::build(&program, &selection, cross)?;
    let emulator = Emulator::fetch(architecture)?;
    let userland = Userland::fetch(architecture, cross)?;
    let guests = kernels
        .into_iter()
        .map(|wanted| {
            let kernel = Kernel::fetch(wanted, architecture)?;
            Guest::prepare(kernel, &knockgate, &suites, &userland)
        })
        .collect::<Result<Vec<_>>>()?;
    if *all && kernel.is_none() {
        for check in &suites.checks {
            ensure!(
                guests.iter().any(|guest| guest.runs(check)),
                "no kernel has the module that some rows of the suite `{}` need",
                check.suite
            );
        }
    }

    let checks: usize = guests.iter().map(Guest::checks_to_run).sum();
    let progress = Progress::new(checks + usize::from(cross.is_none()));
    let mut results = Vec::new();
    if cross.is_none() {
        progress.begin("verifier, on this machine's kernel");
        results.push(suites.measure_here(*update));
        progress.done();
    }
    let mut waiting = guests.iter();
    thread::scope(|scope| {
        loop {
            let now: Vec<_> = waiting
                .by_ref()
                .take(AT_ONCE)
                .map(|guest| scope.spawn(|| guest.run(&emulator, *update, &progress)))
                .collect();
            if now.is_empty() {
                break;
            }
            for guest in now {
                let result = guest.join();
                results.push(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
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
