//! Mistakes of users: each test checks the message and the exit status, and that nothing was changed.

use std::{fs, os::unix::fs::PermissionsExt};

use knockgate_tests::{
    foreign::{self, ForeignProgram, PROGRAM_NAME},
    lab::{Lab, WAN},
    run::Run,
};

/// A valid configuration; a mistake is one edit of it.
const GOOD: &str = r#"interfaces = ["wan0"]
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "30s"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
within = "10s"
"#;

/// One edit of [`GOOD`], the line to which the message must point, and what the message must contain.
struct Mistake {
    replace: &'static str,
    by: &'static str,
    line: u32,
    says: &'static [&'static str],
}

macro_rules! mistakes {
    ($($name:ident: $replace:literal => $by:literal, line $line:literal, says $says:expr;)*) => {$(
        #[test]
        fn $name() {
            Mistake { replace: $replace, by: $by, line: $line, says: &$says }.check();
        }
    )*};
}

mistakes! {
    no_toml: "[[gate]]" => "[[gate", line 2, says [];
    unknown_key_of_a_gate: "open_for" => "open_fro", line 5, says ["open_fro", "open_for"];
    unknown_key_of_a_knock: "within" => "witin", line 9, says ["witin", "within"];
    unknown_key_at_the_top: "interfaces" => "interface", line 1, says ["interface", "interfaces"];
    wrong_type: r#""30s""# => "30", line 5, says ["open_for", r#""30s""#];
    wrong_type_of_a_list: r#"["22/tcp"]"# => r#""22/tcp""#, line 4, says ["protect", "22/tcp"];
    unknown_value: "[[gate]]" => "mode = \"enforc\"\n[[gate]]", line 2, says ["enforc", "enforce", "monitor"];
    duplicate_gate: "[[gate]]" => "[[gate]]\nname = \"ssh\"\nprotect = [\"25/tcp\"]\n[[gate]]",
        line 6, says ["ssh", "3"];
    a_port_in_two_gates: "[[gate]]" => "[[gate]]\nname = \"mail\"\nprotect = [\"22/tcp\"]\n[[gate]]",
        line 7, says ["22/tcp", "mail", "line 4"];
    a_knock_on_a_protected_port: "8443/tcp" => "22/tcp", line 8, says ["22/tcp", "ssh"];
    sequence_too_short: r#"["7000/udp", "8443/tcp", "9301/udp"]"# => r#"["7000/udp"]"#,
        line 8, says ["sequence", "2", "12"];
    sequence_too_long: r#""7000/udp""# => r#""1/udp", "2/udp", "3/udp", "4/udp", "5/udp", "6/udp", "7/udp",
        "8/udp", "9/udp", "10/udp", "11/udp""#, line 8, says ["sequence", "2", "12"];
    bad_duration: r#""30s""# => r#""30 parsecs""#, line 5, says ["30 parsecs", "30s"];
    bad_port: "22/tcp" => "22/tpc", line 4, says ["22/tpc", "\"tcp\""];
    port_out_of_range: "22/tcp" => "70000/tcp", line 4, says ["70000/tcp", "65535"];
    bad_network: "[[gate]]" => "allow = [\"192.0.2.0/33\"]\n[[gate]]", line 2, says ["192.0.2.0/33"];
    network_with_host_bits: "[[gate]]" => "allow = [\"192.0.2.7/24\"]\n[[gate]]",
        line 2, says ["192.0.2.7/24", "192.0.2.0/24"];
    the_same_sequence_twice: "[[gate.knock]]" => "[[gate.knock]]\nuser = \"bob\"\n\
        sequence = [\"7000/udp\", \"8443/tcp\", \"9301/udp\"]\nwithin = \"10s\"\n[[gate.knock]]",
        line 12, says ["bob", "line 8"];
    a_sequence_that_ends_with_another: "[[gate.knock]]" => "[[gate.knock]]\nuser = \"bob\"\n\
        sequence = [\"8443/tcp\", \"9301/udp\"]\nwithin = \"10s\"\n[[gate.knock]]",
        line 12, says ["bob", "line 8"];
    an_open_port_that_is_protected: "[[gate]]" => "open_ports = [\"22/tcp\"]\n[[gate]]",
        line 2, says ["22/tcp", "open_ports"];
    too_small_a_table: "[[gate]]" => "limits = { sources = 100 }\n[[gate]]", line 2, says ["100", "16384"];
    a_table_of_nothing: "[[gate]]" => "limits = { grants = 0 }\n[[gate]]", line 2, says ["grants", "0"];
}

impl Mistake {
    fn check(&self) {
        let Some(lab) = Lab::build(&[]) else {
            return;
        };
        assert!(GOOD.contains(self.replace), "a mistake edits something");
        lab.configure(&GOOD.replacen(self.replace, self.by, 1));
        let place = format!("knockgate.toml:{}:", self.line);
        for command in ["up", "check"] {
            let run = lab.knockgate(&[command]);
            run.exits(3).says(&["error"]);
            let said = format!("{}{}", run.stdout, run.stderr);
            for text in self.says.iter().copied().chain([place.as_str()]) {
                assert!(said.contains(text), "no {text:?} in what {run:#?} says");
            }
        }
        lab.knockgate(&["up"]).prints_nothing();
        lab.assert_untouched();
    }
}

#[test]
fn a_mistake_leaves_the_instance_that_is_up_in_force() {
    let Some(lab) = good_lab(&[]) else { return };
    lab.knockgate(&["up"]).exits(0);
    let (pins, before) = (lab.pins(), lab.interface());
    lab.configure(&GOOD.replace("open_for", "open_fro"));
    lab.knockgate(&["up"]).exits(3);
    assert_eq!(lab.pins(), pins);
    assert_eq!(lab.interface(), before);
    lab.knockgate(&["status"]).exits(0);
}

#[test]
fn missing_configuration() {
    let Some(lab) = Lab::build(&[]) else { return };
    for command in ["up", "check"] {
        let run = lab.knockgate(&[command]);
        run.exits(3).says(&["knockgate.toml", "knockgate init"]);
    }
    lab.assert_untouched();
}

#[test]
fn no_such_interface() {
    let Some(lab) = good_lab(&[]) else { return };
    lab.knockgate(&["up", "-i", "wan7"])
        .exits(1)
        .says(&["wan7", "ip link"])
        .prints_nothing();
    lab.configure(&GOOD.replace(WAN, "wan7"));
    lab.knockgate(&["up"]).exits(1).says(&["wan7", "ip link"]);
    lab.assert_untouched();
}

#[test]
fn an_interface_with_someone_elses_program_on_a_link() {
    let Some(lab) = good_lab(&[]) else { return };
    let program = ForeignProgram::linked(&lab);
    assert_names(&lab, &program);
}

#[test]
fn an_interface_with_someone_elses_program_over_netlink() {
    let Some(lab) = good_lab(&[]) else { return };
    let program = ForeignProgram::over_netlink(&lab);
    assert_names(&lab, &program);
}

/// Asserts that, where XDP is asked for, the message names the program, and that the program stays attached.
fn assert_names(lab: &Lab, program: &ForeignProgram) {
    let before = lab.interface();
    let id = program.id.to_string();
    assert!(
        before.contains(&format!("id {id}")),
        "not attached: {before}"
    );
    for attach in ["native", "generic"] {
        lab.configure(&format!("attach = \"{attach}\"\n{GOOD}"));
        lab.knockgate(&["up"])
            .exits(1)
            .says(&[WAN, PROGRAM_NAME, &id])
            .prints_nothing();
        assert_eq!(lab.interface(), before);
    }
    assert!(!lab.pin_root().exists(), "pinned: {:?}", lab.pins());
    // It is not knockgate's to take down either.
    lab.knockgate(&["down", "--all"]).exits(0);
    assert_eq!(lab.interface(), before);
}

/// `setarch --uname-2.6` makes the kernel report version 2.6 to the program.
#[test]
fn a_kernel_too_old() {
    let Some(lab) = good_lab(&["setarch"]) else {
        return;
    };
    let run = lab.knockgate_under(&["setarch", "--uname-2.6"], &["up"]);
    run.exits(1).says(&["2.6"]).prints_nothing();
    let names_a_newer_one = ["Linux 5.", "Linux 6."]
        .iter()
        .any(|version| run.stderr.contains(version));
    assert!(names_a_newer_one, "no version that would do in {run:#?}");
    lab.assert_untouched();
}

#[test]
fn no_privileges_to_bring_it_up() {
    let Some(lab) = good_lab(&["setpriv"]) else {
        return;
    };
    assert_names_capability(&as_nobody(&lab, &["up"]));
    lab.assert_untouched();
}

#[test]
fn no_privileges_for_the_instance_that_is_up() {
    let Some(lab) = good_lab(&["setpriv"]) else {
        return;
    };
    lab.knockgate(&["up"]).exits(0);
    let before = lab.interface();
    for arguments in [
        ["status"].as_slice(),
        &["grants"],
        &["allow", "10.77.1.2", "--gate", "ssh"],
        &["revoke", "--all"],
        &["down"],
    ] {
        assert_names_capability(&as_nobody(&lab, arguments));
    }
    assert_eq!(lab.interface(), before);
    let grants = lab.knockgate(&["grants", "--json"]).exits(0).json();
    assert_eq!(grants["grants"], serde_json::json!([]));
}

fn as_nobody(lab: &Lab, arguments: &[&str]) -> Run {
    // Its own, since a configuration that others can read is refused.
    fs::set_permissions(lab.config(), fs::Permissions::from_mode(0o600))
        .and_then(|()| std::os::unix::fs::chown(lab.config(), Some(65534), Some(65534)))
        .expect("root may change it");
    let wrapper = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all \
                   --bounding-set=-all --no-new-privs";
    let wrapper: Vec<&str> = wrapper.split_whitespace().collect();
    lab.knockgate_under(&wrapper, arguments)
}

fn assert_names_capability(run: &Run) {
    run.exits(4).prints_nothing();
    let named = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        .iter()
        .any(|capability| run.stderr.contains(capability));
    assert!(named, "no capability in {run:#?}");
}

/// A foreign pin at each path where this version pins something.
#[test]
fn pins_of_others_in_the_place_of_ours() {
    let Some(lab) = good_lab(&[]) else { return };
    lab.knockgate(&["up"]).exits(0);
    let names = lab.pins();
    assert!(
        !names.is_empty(),
        "nothing is pinned under {:?}",
        lab.pin_root()
    );
    lab.knockgate(&["down"]).exits(0);
    for name in names {
        let place = lab.pin_root().join(&name);
        fs::create_dir_all(place.parent().expect("below the root")).expect("bpffs has folders");
        foreign::pin_map(&place);
        let folder = lab.pin_root().join(WAN);
        let shown = folder.to_str().expect("made of ASCII");
        lab.knockgate(&["up"])
            .exits(1)
            .says(&[shown, "not knockgate's"])
            .prints_nothing();
        lab.knockgate(&["down", "--all"])
            .exits(1)
            .says(&[shown, "nothing was removed"]);
        assert_eq!(lab.pins(), [name], "more or less than was there");
        let interface = lab.interface();
        assert!(!interface.contains("xdp"), "attached: {interface}");
        fs::remove_dir_all(lab.pin_root()).expect("it is the test's own");
        lab.assert_untouched();
    }
}

/// Pins of another version: with another number of the layout, or with a table that identifies it in another form. Nothing
/// is read from them or changed, and `down` removes them.
#[test]
fn pins_left_by_another_layout() {
    for change in [foreign::change_layout, foreign::lengthen_meta] {
        let Some(lab) = good_lab(&[]) else { return };
        lab.knockgate(&["up"]).exits(0);
        let folder = lab.pin_root().join(WAN);
        change(&folder.join("meta"));
        let (shown, pins) = (folder.to_str().expect("made of ASCII"), lab.pins());
        for arguments in [
            ["up"].as_slice(),
            &["up", "--try", "1m"],
            &["run"],
            &["reload"],
            &["confirm"],
            &["status"],
            &["status", "--json"],
            &["grants"],
            &["sources"],
            &["sessions"],
            &["stats"],
            &["metrics"],
            &["events"],
            &["allow", "10.77.1.2", "--gate", "ssh"],
            &["revoke", "--all"],
        ] {
            let refused = lab.knockgate(arguments);
            refused
                .exits(1)
                .says(&[shown, "not made by this version", "knockgate down"])
                .prints_nothing();
            let sentences = refused.stderr.matches("not made by this version").count();
            assert_eq!(sentences, 1, "{refused:?}");
        }
        assert_eq!(lab.pins(), pins);
        assert!(lab.interface().contains("xdp"), "what is up stays in force");
        // The command that the message recommends.
        lab.knockgate(&["down", "--all"]).exits(0);
        lab.assert_untouched();
        lab.knockgate(&["up"]).exits(0);
        lab.knockgate(&["down"]).exits(0);
    }
}

#[test]
fn nothing_is_up() {
    let Some(lab) = good_lab(&[]) else { return };
    for arguments in [
        ["status"].as_slice(),
        &["grants"],
        &["sources"],
        &["sessions"],
        &["stats"],
        &["events"],
        &["status", "--json"],
        &["allow", "10.77.1.2", "--gate", "ssh"],
        &["revoke", "10.77.1.2"],
        &["revoke", "--all"],
    ] {
        lab.knockgate(arguments)
            .exits(5)
            .says(&["knockgate up"])
            .prints_nothing();
    }
    lab.assert_untouched();
}

#[test]
fn down_works_with_nothing_up_and_a_broken_or_missing_configuration() {
    let Some(lab) = good_lab(&[]) else { return };
    lab.knockgate(&["down"]).exits(0);
    lab.knockgate(&["up"]).exits(0);
    lab.configure("[[gate");
    lab.knockgate(&["down"]).exits(0);
    lab.assert_untouched();
    fs::remove_file(lab.config()).expect("it was written above");
    lab.knockgate(&["down"]).exits(0);
    lab.knockgate(&["down", "--all"]).exits(0);
    lab.assert_untouched();
}

#[test]
fn wrong_usage() {
    let Some(lab) = good_lab(&[]) else { return };
    for arguments in [
        ["upp"].as_slice(),
        &["up", "--nonsense"],
        &["allow", "10.77.1.2"],
        &["allow", "10.77.1", "--gate", "ssh"],
        &["allow", "10.77.1.2", "--gate", "ssh", "--for", "soon"],
        &["revoke"],
        &["knock", "10.77.0.1"],
        &["knock", "10.77.0.1", "7000"],
    ] {
        lab.knockgate(arguments)
            .exits(2)
            .says(&["--help"])
            .prints_nothing();
    }
    lab.assert_untouched();
}

#[test]
fn a_grant_for_a_gate_that_is_not_there() {
    let Some(lab) = good_lab(&[]) else { return };
    lab.knockgate(&["up"]).exits(0);
    for arguments in [
        ["allow", "10.77.1.2", "--gate", "shh"],
        ["revoke", "10.77.1.2", "--gate", "shh"],
    ] {
        lab.knockgate(&arguments)
            .exits(1)
            .says(&["shh", "ssh"])
            .prints_nothing();
    }
}

#[test]
fn init_overwrites_nothing() {
    let Some(lab) = good_lab(&[]) else { return };
    lab.knockgate(&["init", "-i", WAN])
        .exits(1)
        .says(&["knockgate.toml", "exists"])
        .prints_nothing();
    let text = fs::read_to_string(lab.config()).expect("it is still there");
    assert_eq!(text, GOOD);
}

/// Returns a lab with the valid configuration, so that a failure has another cause.
fn good_lab(tools: &[&str]) -> Option<Lab> {
    let lab = Lab::build(tools)?;
    lab.configure(GOOD);
    Some(lab)
}
