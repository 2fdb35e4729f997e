//! The first steps of a user: from no configuration to a port that opens, by the file and the advice of `init`.

use std::{fs, os::unix::fs::PermissionsExt};

use knockgate_tests::{
    lab::{
        Family,
        Source::{A, B},
        WAN,
    },
    need,
    scenario::{Attach, Scenario},
};

#[test]
fn from_init_to_an_open_port() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        let lab = &scenario.lab;
        let init = lab.knockgate(&["init", "-i", WAN, "--gate", "mail=25/tcp"]);
        init.exits(0);
        let mode = lab
            .config()
            .metadata()
            .expect("it was written")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "sequences are passwords");
        lab.knockgate(&["check"]).exits(0);
        lab.knockgate(&["up"]).exits(0);
        scenario.closed(A, "25/tcp");

        // The command for the client that `init` prints.
        let line = init
            .stdout
            .lines()
            .find(|line| line.contains("knockgate knock "))
            .unwrap_or_else(|| panic!("no `knockgate knock` line in {init:#?}"));
        let steps: Vec<&str> = line
            .split_whitespace()
            .filter(|word| word.ends_with("/tcp") || word.ends_with("/udp"))
            .take_while(|step| *step != "25/tcp")
            .collect();
        assert!(steps.len() >= 2, "no sequence in {line:?}");
        let host = scenario.family.host().to_string();
        let arguments = [&["knock", host.as_str()], steps.as_slice()].concat();
        lab.client(need::knockgate(), &arguments).exits(0);
        scenario.open(A, "25/tcp");
        scenario.closed(B, "25/tcp");
        scenario.open(B, "22/tcp");
    });
}

#[test]
fn two_fresh_configurations_share_no_sequence() {
    let sequence = |text: &str| {
        text.lines()
            .find(|line| line.trim_start().starts_with("sequence"))
            .unwrap_or_else(|| panic!("no sequence in {text}"))
            .to_owned()
    };
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        let sequences = [(); 2].map(|()| {
            scenario.lab.knockgate(&["init", "-i", WAN]).exits(0);
            let text = fs::read_to_string(scenario.lab.config()).expect("it was written");
            fs::remove_file(scenario.lab.config()).expect("it was written");
            sequence(&text)
        });
        assert_ne!(sequences[0], sequences[1]);
    });
}

#[test]
fn help_completions_and_manual_pages() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        let lab = &scenario.lab;
        let help = lab.knockgate(&["--help"]);
        let commands = "init check up down run status grants sources sessions stats events allow revoke \
                        knock completions man";
        for command in commands.split_whitespace() {
            assert!(
                help.exits(0).stdout.contains(command),
                "no {command} in {help:#?}"
            );
            lab.knockgate(&[command, "--help"]).exits(0);
        }
        for shell in ["bash", "zsh", "fish"] {
            let script = lab.knockgate(&["completions", shell]);
            assert!(script.exits(0).stdout.contains("sessions"), "{script:#?}");
        }
        let pages = lab.folder().join("man");
        let folder = pages.to_str().expect("a temporary folder has a plain name");
        lab.knockgate(&["man", folder]).exits(0);
        let page = fs::read_to_string(pages.join("knockgate.1")).expect("there is a page");
        assert!(page.contains("knockgate"), "{page}");
        lab.assert_untouched();
    });
}
