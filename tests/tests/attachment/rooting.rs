//! The pin root, and files and pins in it that are not knockgate's.

use std::{fs, path::Path};

use knockgate_tests::{
    foreign,
    lab::{Source::A, WAN},
    run::{Run, wait_until},
};
use netlab::host::BPFFS;

use crate::{in_generic_mode, serve, ssh};

#[test]
fn down_removes_no_files() {
    in_generic_mode(|scenario| {
        let folder = scenario.lab.folder().join("precious");
        fs::create_dir_all(folder.join(WAN)).expect("the temporary folder is writable");
        for name in ["link", "program", "meta", "diary"] {
            fs::write(folder.join(WAN).join(name), name).expect("writable");
        }
        let run = at(scenario, folder.to_str().expect("made of ASCII"), "down");
        run.exits(1).says(&["precious", "nothing was removed"]);
        for name in ["link", "program", "meta", "diary"] {
            assert!(folder.join(WAN).join(name).exists(), "{name} is gone");
        }
    });
}

#[test]
fn down_removes_no_pins_of_others() {
    in_generic_mode(|scenario| {
        let root = scenario.lab.pin_root();
        let other = root.join("other");
        fs::create_dir_all(&other).expect("bpffs has folders");
        foreign::pin_map(&other.join("theirs"));
        // Also under the name of one of knockgate's tables.
        foreign::pin_map(&other.join("grant"));
        scenario
            .knockgate("down")
            .exits(1)
            .says(&["other", "nothing was removed"]);
        // Also in a directory that contains nothing else.
        let alone = root.join("alone");
        fs::create_dir(&alone).expect("bpffs has folders");
        foreign::pin_map(&alone.join("role"));
        scenario
            .knockgate("down")
            .exits(1)
            .says(&["nothing was removed"]);
        fs::create_dir(root.join("empty")).expect("bpffs has folders");
        scenario.up(ssh());
        scenario.closed(A, "22/tcp");
        scenario.knockgate("status").exits(0);
        scenario.knockgate("down").exits(0);
        assert_eq!(
            scenario.lab.pins(),
            [
                Path::new("alone/role"),
                Path::new("other/grant"),
                Path::new("other/theirs")
            ]
        );
        fs::remove_dir_all(root).expect("it is the test's own");
        scenario.lab.assert_untouched();
    });
}

#[test]
fn a_pin_beside_knockgates_own_stays() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let theirs = scenario.lab.pin_root().join(WAN).join("theirs");
        foreign::pin_map(&theirs);
        scenario.knockgate("down").exits(0).says(&["theirs"]);
        assert_eq!(scenario.lab.pins(), [Path::new(WAN).join("theirs")]);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&[WAN, "not knockgate's"]);
        fs::remove_dir_all(scenario.lab.pin_root()).expect("it is the test's own");
        scenario.up(ssh());
    });
}

#[test]
fn however_it_is_spelled_a_root_is_one() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let root = scenario.lab.pin_root().to_str().expect("made of ASCII");
        let name = scenario
            .lab
            .pin_root()
            .file_name()
            .and_then(|name| name.to_str());
        let link = scenario.lab.folder().join("link");
        std::os::unix::fs::symlink(root, &link).expect("the temporary folder is writable");
        let spellings = [
            format!("{root}/"),
            format!("{root}//."),
            format!("{root}/{WAN}/.."),
            format!("{BPFFS}/./{}", name.expect("made of ASCII")),
            link.to_str().expect("made of ASCII").to_owned(),
        ];
        for spelling in &spellings {
            at(scenario, spelling, "status").exits(0);
            at(scenario, spelling, "up").exits(0).says(&["up already"]);
        }
        // A second service is refused, however the pin root is spelled.
        let _service = serve_at_first(scenario);
        for spelling in &spellings {
            at(scenario, spelling, "run")
                .exits(1)
                .says(&["another `knockgate run`"]);
        }
    });
}

fn serve_at_first(scenario: &knockgate_tests::scenario::Scenario) -> knockgate_tests::run::Running {
    scenario.knockgate("down").exits(0);
    serve(scenario)
}

#[test]
fn a_dot_in_the_name_of_a_root_is_what_is_wrong() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let root = format!("{}.d", scenario.lab.pin_root().display());
        for command in ["up", "run", "status", "down", "revoke --all"] {
            let run = at(scenario, &root, command);
            run.exits(1).says(&["dot", ".d"]).prints_nothing();
            assert!(!run.stderr.contains("sudo"), "{run:?}");
        }
    });
}

#[test]
fn a_file_system_that_is_read_only_is_named() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let script = format!("mount -o remount,bind,ro {BPFFS} && exec \"$0\" \"$@\"");
        let run = scenario
            .lab
            .knockgate_under(&["unshare", "-m", "sh", "-c", &script], &["up"]);
        run.exits(1).says(&["read-only"]).prints_nothing();
        scenario.lab.assert_untouched();
    });
}

/// The pins disappear with the mount namespace, and the program is detached with them.
#[test]
fn a_mount_of_its_own_is_warned_of() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let script = format!("umount -l {BPFFS} && exec \"$0\" \"$@\"");
        let run = scenario
            .lab
            .knockgate_under(&["unshare", "-m", "sh", "-c", &script], &["up"]);
        run.exits(0).says(&["mount namespace", "mount -t bpf"]);
        // The kernel gives up the mount, and with it the link, a moment later.
        wait_until("nothing is attached", || {
            !scenario.lab.interface().contains("xdp")
        });
        scenario.lab.assert_untouched();
        scenario.knockgate("up").exits(0);
    });
}

fn at(scenario: &knockgate_tests::scenario::Scenario, root: &str, command: &str) -> Run {
    let mut arguments = vec!["--pin-root", root];
    arguments.extend(command.split_whitespace());
    knockgate_tests::run::run(&mut command_at(scenario, &arguments))
}

/// Returns a `knockgate` command with another pin root than the lab's.
fn command_at(
    scenario: &knockgate_tests::scenario::Scenario,
    arguments: &[&str],
) -> std::process::Command {
    let mut command = scenario
        .lab
        .host
        .command(knockgate_tests::need::knockgate());
    command
        .arg("--config")
        .arg(scenario.lab.config())
        .args(arguments)
        .env("HOME", scenario.lab.folder())
        .env_remove("SSH_CONNECTION")
        .env_remove("RUST_LOG");
    command
}
