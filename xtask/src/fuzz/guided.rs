//! Runs the fuzz targets of `knock-common/fuzz`. Each has a corpus: the inputs that reach code that no other does, as
//! lines of hexadecimal digits. A suite replays them in every test run.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{process, setup, workspace};

const FOLDER: &str = "knock-common/fuzz";
const TARGETS: [&str; 3] = ["read", "decide", "knock"];

/// Longest input, bytes: a frame with nine extension headers, or a stream of some hundred steps.
const LONGEST: &str = "-max_len=512";

/// Runs each target for this time, beginning with its corpus.
pub(super) fn run(minutes: u32, update: bool) -> Result<()> {
    let cargo_fuzz = setup::cargo_fuzz()?;
    for (nth, target) in (1..).zip(TARGETS) {
        let of = TARGETS.len();
        eprintln!("[{nth}/{of}] {target}, for {minutes} minutes");
        let corpus = workspace::root()
            .join(FOLDER)
            .join("corpus")
            .join(target)
            .with_extension("txt");
        let work = workspace::target().join("fuzz/corpus").join(target);
        unpack(&corpus, &work)?;
        let fuzz = |folders: &[&Path], options: &[&str]| {
            let mut command = Command::new(&cargo_fuzz);
            command
                .current_dir(workspace::root())
                // Without sanitizers, any compiler will do; the code under test is safe Rust except for its tables.
                .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir", FOLDER])
                .arg("--target-dir")
                .arg(workspace::target().join("fuzz"))
                .arg(target)
                .args(folders)
                .arg("--")
                .args([LONGEST, "-close_fd_mask=1"])
                .args(options);
            process::run(&mut command)
        };
        let seconds = format!("-max_total_time={}", minutes * 60);
        fuzz(&[&work], &[&seconds, "-print_final_stats=1"])
            .with_context(|| format!("`{target}` has found a difference, or could not run"))?;
        if update {
            let least = work.with_extension("least");
            emptied(&least)?;
            fuzz(&[&least, &work], &["-set_cover_merge=1", "-use_counters=0"])?;
            pack(&least, &corpus)?;
        }
    }
    Ok(())
}

fn emptied(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Writes the corpus as files into a folder of inputs, which the fuzzer reads.
fn unpack(corpus: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let text =
        fs::read_to_string(corpus).with_context(|| format!("cannot read {}", corpus.display()))?;
    for (nth, line) in lines(&text).enumerate() {
        let input = bytes(line).with_context(|| format!("not hexadecimal: {line}"))?;
        fs::write(folder.join(format!("kept-{nth}")), input)?;
    }
    Ok(())
}

/// Writes a folder of inputs as the corpus, shortest first.
fn pack(folder: &Path, corpus: &Path) -> Result<()> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder)? {
        inputs.push(fs::read(entry?.path())?);
    }
    inputs.retain(|input| !input.is_empty());
    ensure!(
        !inputs.is_empty(),
        "no input is left in {}",
        folder.display()
    );
    inputs.sort_by_key(|input| (input.len(), input.clone()));
    let mut text = String::from("# Written by `cargo xtask fuzz --guided --update`.\n");
    for input in &inputs {
        for byte in input {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    fs::write(corpus, text)?;
    println!("{} inputs kept in {}", inputs.len(), corpus.display());
    Ok(())
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

fn bytes(line: &str) -> Option<Vec<u8>> {
    let pairs = (0..line.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(line.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn a_corpus_survives_packing() {
        let folder = env::temp_dir().join(format!("knockgate-corpus-{}", process::id()));
        let (inputs, corpus) = (folder.join("inputs"), folder.join("corpus.txt"));
        fs::create_dir_all(&inputs).unwrap();
        fs::write(inputs.join("a"), [0x00, 0xff, 0x10]).unwrap();
        fs::write(inputs.join("b"), [0x7f]).unwrap();
        pack(&inputs, &corpus).unwrap();
        let text = fs::read_to_string(&corpus).unwrap();
        assert_eq!(lines(&text).collect::<Vec<_>>(), ["7f", "00ff10"]);

        let again = folder.join("again");
        unpack(&corpus, &again).unwrap();
        assert_eq!(fs::read(again.join("kept-1")).unwrap(), [0x00, 0xff, 0x10]);
        assert_eq!(bytes("0g"), None);
        assert_eq!(bytes("012"), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
