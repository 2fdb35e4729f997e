//! Where pins lie, and what is not knockgate's there.

use std::{fs, path::Path};

use knockgate_tests::{
    foreign,
    lab::{WAN, Who::A},
    run::Run,
};
use netlab::host::BPFFS;

use crate::{SSH, serve, trial};

#[test]
fn down_removes_no_files() {
    trial(|trial| {
        let folder = trial.lab.folder().join("precious");
        fs::create_dir_all(folder.join(WAN)).expect("the temporary folder is writable");
        for name in ["link", "program", "meta", "diary"] {
            fs::write(folder.join(WAN).join(name), name).expect("writable");
        }
        let run = at(trial, folder.to_str().expect("made of ASCII"), "down");
        run.exits(1).says(&["precious", "nothing was removed"]);
        for name in ["link", "program", "meta", "diary"] {
            assert!(folder.join(WAN).join(name).exists(), "{name} is gone");
        }
    });
}

#[test]
fn down_removes_no_pins_of_others() {
    trial(|trial| {
        let root = trial.lab.pin_root();
        let other = root.join("other");
        fs::create_dir_all(&other).expect("bpffs has folders");
        foreign::pin_map(&other.join("theirs"));
        // Under the name of one of knockgate's tables, too.
        foreign::pin_map(&other.join("grant4"));
        trial
            .knockgate("down")
            .exits(1)
            .says(&["other", "nothing was removed"]);
        // Where nothing else is, too: it bears no mark of knockgate's.
        let alone = root.join("alone");
        fs::create_dir(&alone).expect("bpffs has folders");
        foreign::pin_map(&alone.join("role"));
        trial
            .knockgate("down")
            .exits(1)
            .says(&["nothing was removed"]);
        fs::create_dir(root.join("empty")).expect("bpffs has folders");
        trial.up(SSH);
        trial.closed(A, "22/tcp");
        trial.knockgate("status").exits(0);
        trial.knockgate("down").exits(0);
        assert_eq!(
            trial.lab.pins(),
            [
                Path::new("alone/role"),
                Path::new("other/grant4"),
                Path::new("other/theirs")
            ]
        );
        fs::remove_dir_all(root).expect("it is the test's own");
        trial.lab.assert_untouched();
    });
}

#[test]
fn a_pin_beside_knockgates_own_stays() {
    trial(|trial| {
        trial.up(SSH);
        let theirs = trial.lab.pin_root().join(WAN).join("theirs");
        foreign::pin_map(&theirs);
        trial.knockgate("down").exits(0).says(&["theirs"]);
        assert_eq!(trial.lab.pins(), [Path::new(WAN).join("theirs")]);
        trial
            .knockgate("up")
            .exits(1)
            .says(&[WAN, "not knockgate's"]);
        fs::remove_dir_all(trial.lab.pin_root()).expect("it is the test's own");
        trial.up(SSH);
    });
}

#[test]
fn however_it_is_spelled_a_root_is_one() {
    trial(|trial| {
        trial.up(SSH);
        let root = trial.lab.pin_root().to_str().expect("made of ASCII");
        let name = trial
            .lab
            .pin_root()
            .file_name()
            .and_then(|name| name.to_str());
        let link = trial.lab.folder().join("link");
        std::os::unix::fs::symlink(root, &link).expect("the temporary folder is writable");
        let spellings = [
            format!("{root}/"),
            format!("{root}//."),
            format!("{root}/{WAN}/.."),
            format!("{BPFFS}/./{}", name.expect("made of ASCII")),
            link.to_str().expect("made of ASCII").to_owned(),
        ];
        for spelling in &spellings {
            at(trial, spelling, "status").exits(0);
            at(trial, spelling, "up").exits(1).says(&["up already"]);
        }
        // One service, whatever it was told.
        let _service = serve_at_first(trial);
        for spelling in &spellings {
            at(trial, spelling, "run")
                .exits(1)
                .says(&["another `knockgate run`"]);
        }
    });
}

fn serve_at_first(trial: &knockgate_tests::trial::Trial) -> knockgate_tests::run::Running {
    trial.knockgate("down").exits(0);
    serve(trial)
}

#[test]
fn a_dot_in_the_name_of_a_root_is_what_is_wrong() {
    trial(|trial| {
        trial.configure(SSH);
        let root = format!("{}.d", trial.lab.pin_root().display());
        for command in ["up", "run", "status", "down", "revoke --all"] {
            let run = at(trial, &root, command);
            run.exits(1).says(&["dot", ".d"]).prints_nothing();
            assert!(!run.stderr.contains("sudo"), "{run:?}");
        }
    });
}

#[test]
fn a_file_system_that_is_read_only_is_named() {
    trial(|trial| {
        trial.configure(SSH);
        let script = format!("mount -o remount,bind,ro {BPFFS} && exec \"$0\" \"$@\"");
        let run = trial
            .lab
            .knockgate_under(&["unshare", "-m", "sh", "-c", &script], &["up"]);
        run.exits(1).says(&["read-only"]).prints_nothing();
        trial.lab.assert_untouched();
    });
}

/// The pins go with the mount namespace, and the gate with the pins.
#[test]
fn a_mount_of_its_own_is_warned_of() {
    trial(|trial| {
        trial.configure(SSH);
        let script = format!("umount -l {BPFFS} && exec \"$0\" \"$@\"");
        let run = trial
            .lab
            .knockgate_under(&["unshare", "-m", "sh", "-c", &script], &["up"]);
        run.exits(0).says(&["mount namespace", "mount -t bpf"]);
        trial.lab.assert_untouched();
        trial.knockgate("up").exits(0);
    });
}

fn at(trial: &knockgate_tests::trial::Trial, root: &str, command: &str) -> Run {
    let mut arguments = vec!["--pin-root", root];
    arguments.extend(command.split_whitespace());
    knockgate_tests::run::run(&mut command_at(trial, &arguments))
}

/// Without the lab's own pin root.
fn command_at(trial: &knockgate_tests::trial::Trial, arguments: &[&str]) -> std::process::Command {
    let mut command = trial.lab.gate.command(knockgate_tests::need::knockgate());
    command
        .arg("--config")
        .arg(trial.lab.config())
        .args(arguments)
        .env("HOME", trial.lab.folder())
        .env_remove("SSH_CONNECTION")
        .env_remove("RUST_LOG");
    command
}
