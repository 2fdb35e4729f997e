//! Whether what the configuration says of keys is in force.

use anyhow::{Result, bail};

use super::gates_of;
use crate::{
    config::Config,
    datapath::{Datapath, TrialState, reminder},
    keys::KeyName,
    values::Port,
};

/// Refuses to change keys in a folder that is not the one in force: the change would be without effect, and what is in force
/// would get the keys of another folder.
pub(super) fn require_folder(config: &Config, datapath: &Datapath) -> Result<()> {
    refuse_other_folder(config, datapath.config())?;
    if let Some(previous) = datapath.returns_to()? {
        let trial = match datapath.trial()? {
            TrialState::Left(left) => reminder(left),
            TrialState::None | TrialState::Lapsed => "on a trial that has ended".to_owned(),
        };
        refuse_other_folder_than_before(config, previous, &trial)?;
    }
    Ok(())
}

fn refuse_other_folder(config: &Config, in_force: &Config) -> Result<()> {
    if has_other_folder(config, in_force) {
        bail!(
            "the keys in force are those in {}, and this configuration has its keys in {}: put it into force with \
             `knockgate reload`, and give this command again",
            in_force.knock.keys.display(),
            config.knock.keys.display()
        );
    }
    Ok(())
}

fn refuse_other_folder_than_before(config: &Config, previous: &Config, trial: &str) -> Result<()> {
    if has_other_folder(config, previous) {
        bail!(
            "what is up is {trial}. It would return to the keys in {} without this change, which would be made in {}",
            previous.knock.keys.display(),
            config.knock.keys.display()
        );
    }
    Ok(())
}

/// One that takes no knocks has no keys in force.
fn has_other_folder(config: &Config, in_force: &Config) -> bool {
    !in_force.knock.ports.is_empty() && in_force.knock.keys != config.knock.keys
}

/// Refuses to make a key whose owner would send to a port that does not take knocks yet.
pub(super) fn require_port(port: Port, in_force: &Config) -> Result<()> {
    if !in_force.knock.ports.contains(&port) {
        bail!(
            "the key would name port {port} of this configuration, where what is up takes no authenticated knocks: put the \
             configuration into force with `knockgate reload`, and give this command again"
        );
    }
    Ok(())
}

/// Refuses to make a key for gates that it would not open yet. `own`: those of its own file.
pub(super) fn require_gates(
    config: &Config,
    in_force: &Config,
    name: &KeyName,
    own: &[String],
) -> Result<()> {
    let opens = gates_of(in_force, name, own);
    let is_there = |gate: &String| in_force.gates.iter().any(|there| there.name == *gate);
    let mut all = gates_of(config, name, own).into_iter();
    if let Some(gate) = all.find(|gate| !opens.contains(gate) || !is_there(gate)) {
        bail!(
            "key {name} is to open gate {gate}, which what is up does not let it open: put the configuration into force with \
             `knockgate reload`, and give this command again"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(knock: &str, gates: &str) -> Config {
        let text = format!("[knock]\n{knock}\n{gates}");
        Config::parse(&text, "k.toml").expect("valid").0
    }

    const PORT: &str = "ports = ['41641/udp']";
    const SSH: &str = "[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n";
    const WEB: &str = "[[gate]]\nname = 'web'\nprotect = ['443/tcp']\n";
    const ALICE: &str = "[[gate.knock]]\nuser = 'alice'\nkey = 'alice'\n";

    #[test]
    fn keys_are_changed_in_the_folder_in_force_alone() {
        let folder =
            |ports: &str, folder: &str| config(&format!("{ports}\nkeys = '{folder}'"), SSH);
        let new = folder(PORT, "/new");
        refuse_other_folder(&new, &folder("ports = ['1/udp']", "/new")).expect("the same");
        refuse_other_folder(&new, &folder("ports = []", "/old")).expect("there are none");
        let old = folder(PORT, "/old");
        let error = refuse_other_folder(&new, &old).expect_err("another");
        for says in [
            "are those in /old",
            "its keys in /new",
            "`knockgate reload`",
        ] {
            assert!(error.to_string().contains(says), "{error}");
        }
        // Also where the file takes no knocks any more: those in force are.
        refuse_other_folder(&folder("ports = []", "/new"), &old).expect_err("another");
        let error = refuse_other_folder_than_before(&new, &old, "on trial");
        let error = error.expect_err("another").to_string();
        assert!(error.contains("what is up is on trial. "), "{error}");
    }

    #[test]
    fn a_key_is_made_for_a_port_and_gates_that_are_in_force() {
        let name: KeyName = "alice".parse().expect("a name");
        let port: Port = "41641/udp".parse().expect("a port");
        let in_force = config(PORT, SSH);
        require_port(port, &in_force).expect("in force");
        let error = require_port(port, &config("ports = ['1/udp']", SSH));
        let error = error.expect_err("another one is").to_string();
        assert!(error.contains("port 41641/udp"), "{error}");

        let [ssh, web] = ["ssh", "web"].map(ToOwned::to_owned);
        let both = config(PORT, &format!("{SSH}{WEB}"));
        let named = config(PORT, &format!("{SSH}{ALICE}{WEB}"));
        for (file, in_force, own, refused) in [
            (&both, &in_force, &[] as &[_], None),
            (&both, &in_force, std::slice::from_ref(&ssh), None),
            (&both, &in_force, &[ssh.clone(), web.clone()], Some("web")),
            (&named, &both, std::slice::from_ref(&web), Some("ssh")),
            (&named, &both, &[ssh.clone(), web.clone()], None),
            (&both, &named, std::slice::from_ref(&web), None),
        ] {
            match (require_gates(file, in_force, &name, own), refused) {
                (Ok(()), None) => {}
                (Err(error), Some(gate)) => {
                    let says = format!("is to open gate {gate}");
                    assert!(error.to_string().contains(&says), "{error}");
                }
                (result, _) => panic!("{own:?}: {result:?}, not {refused:?}"),
            }
        }
    }
}
