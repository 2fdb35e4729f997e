//! `knockgate import`: another program's configuration as knockgate's.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{init::draw::Draw, new_file};
use crate::{
    config::{ephemeral_ports, listening_ports},
    import::{Fate, Imported, Remark, fwknop, knockd},
};

/// Turn another program's configuration into knockgate's
///
/// Prints the configuration, and on standard error what became of each line. What would be weaker than the original
/// is left out, and the exit status is then 1. Changes nothing of the other program.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The program that the file belongs to
    #[arg(value_enum)]
    program: Program,

    /// Its file, such as /etc/knockd.conf or /etc/fwknop/access.conf
    file: PathBuf,

    /// Write the configuration to this file, with mode 0600; never overwrites one [default: print it]
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Program {
    /// knockd's knockd.conf
    Knockd,
    /// fwknop's access.conf
    Fwknop,
}

pub fn run(args: &Args) -> Result<()> {
    let Args {
        program,
        file,
        write,
    } = args;
    if let Some(path) = write {
        new_file::refuse_existing(path)?;
    }
    let shown = file.display();
    let bytes = fs::read(file).with_context(|| format!("{shown} cannot be read"))?;
    // Comments may be in any encoding.
    let text = String::from_utf8_lossy(&bytes);
    let (name, imported) = match program {
        Program::Knockd => ("knockd", knockd::import(&text)),
        Program::Fwknop => {
            let mut draw = Draw::new(ephemeral_ports(), &listening_ports().unwrap_or_default());
            let imported = fwknop::import(&text, || Ok(draw.sequence()?.to_vec()));
            ("fwknop", imported.context("drawing a random sequence")?)
        }
    };
    let Imported {
        configuration,
        report,
    } = imported;
    let head = format!(
        "# Made by `knockgate import {name}` from {shown}. Its sequences and keys are secrets: keep this file readable\n\
         # by its owner alone. `knockgate check` reports errors and weaknesses.\n\n"
    );
    let text = configuration.map(|configuration| head + &configuration);
    let created = match (write, &text) {
        (Some(path), Some(text)) => new_file::create(path, text),
        _ => Ok(()),
    };
    let mut errors = anstream::stderr().lock();
    for remark in &report.remarks {
        // What became of the file does not depend on whether anybody reads this.
        let _ = writeln!(errors, "{}", shown_remark(file, remark));
    }
    drop(errors);
    created?;
    let Some(text) = text else {
        bail!("nothing of {shown} can be written as a gate; the lines above say why");
    };
    let printed = match write {
        Some(_) => Ok(()),
        None => io::stdout().write_all(text.as_bytes()),
    };
    if report.is_weaker() {
        bail!(
            "parts of {shown} were left out, since they would be weaker than they were or could not be read"
        );
    }
    Ok(printed?)
}

fn shown_remark(file: &Path, remark: &Remark) -> String {
    let Remark {
        line,
        key,
        fate,
        text,
    } = remark;
    let place = match line {
        0 => file.display().to_string(),
        line => format!("{}:{line}", file.display()),
    };
    let style = match fate {
        Fate::Carried => anstyle::AnsiColor::Green,
        Fate::NotCarried => anstyle::AnsiColor::Yellow,
        Fate::Weaker | Fate::Invalid => anstyle::AnsiColor::Red,
    }
    .on_default();
    // A carried line is "carried over as ...".
    let colon = if *fate == Fate::Carried { "" } else { ":" };
    format!("{place}: {key}: {style}{fate}{style:#}{colon} {text}")
}
