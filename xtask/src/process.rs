//! Runs other programs, and reports their failures.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use netlab::host::{find_program, is_root};

/// Runs a command to its end, with this process's standard streams. Fails if the command does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!(
            "`{}` failed ({status}); its own lines above say why",
            line(command)
        );
    }
    Ok(())
}

/// Runs a command to its end. Returns its output, whether it succeeds or not. It is in English, whatever this machine's language.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .env("LC_ALL", "C.UTF-8")
        .env_remove("LANGUAGE")
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))
}

/// Runs a command to its end. Returns its standard output. If it fails, the error contains its standard error.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            line(command),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns a command that runs as root: directly if this process is root, else by sudo, which may ask for a password.
///
/// `why` completes "root is needed to ...". Fails if this process is not root and there is no sudo.
pub(crate) fn as_root(program: &str, why: &str) -> Result<Command> {
    if is_root() {
        Ok(Command::new(program))
    } else if let Some(sudo) = find_program("sudo") {
        eprintln!("root is needed to {why}; sudo may ask for your password");
        let mut command = Command::new(sudo);
        command.arg(program);
        Ok(command)
    } else {
        bail!(
            "root is needed to {why}, and there is no sudo here: run `cargo xtask` again as root"
        );
    }
}

/// Returns a command as typed in a shell.
fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = stdout(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains("sh -c"), "{message}");
        assert!(message.contains("exit status: 3): broken"), "{message}");
    }

    #[test]
    fn what_is_read_is_in_english() {
        let mut command = Command::new("sh");
        command.env("LC_ALL", "de_DE.UTF-8").env("LANGUAGE", "de");
        let said = stdout(command.args(["-c", "echo $LC_ALL $LANGUAGE"])).unwrap();
        assert_eq!(said, "C.UTF-8\n");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot start `/nonexistent/program`"));
    }
}
