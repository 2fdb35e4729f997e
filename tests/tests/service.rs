//! `knockgate run`: what the service adds to the datapath, and what remains after it has ended or was killed.

use std::{
    fmt::Display,
    fs::{self, File},
    net::IpAddr,
    thread,
    time::Duration,
};

use knock_user::datapath::{Datapath, PinRoot};
use knockgate_tests::{
    attempt::Outcome,
    gate_config::{ALICE, Gate},
    lab::{
        CLIENT_MAC, Family, HOST_MAC,
        Source::{A, B},
        WAN,
    },
    manager::Manager,
    network::{add_address, ip},
    observe::events_of,
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
    service::Services,
    wire::Wire,
};
use netlab::packet::{Packet, SYN};
use serde_json::Value;

fn ssh() -> Gate {
    Gate::ssh().open_for("1m").within("1m")
}

#[test]
fn the_instance_outlives_the_service() {
    in_generic_mode(|scenario| {
        let service = start(scenario, &[]);
        scenario.closed(A, "22/tcp");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        scenario.closed(A, "22/tcp");
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
        scenario.knockgate("status").exits(0);
    });
}

#[test]
fn the_instance_outlives_a_killed_service_and_the_next_takes_it_over() {
    in_generic_mode(|scenario| {
        let service = start(scenario, &[]);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
        let service = start(scenario, &[]);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

#[test]
fn down_on_exit_takes_the_instance_down() {
    in_generic_mode(|scenario| {
        let service = start(scenario, &["--down-on-exit"]);
        scenario.closed(A, "22/tcp");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        scenario.open(A, "22/tcp");
        scenario.lab.assert_untouched();
    });
}

/// As it does where the signal comes before it serves: here it still waits for another command to end.
#[test]
fn down_on_exit_takes_down_what_a_signal_found_half_way() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let holder = scenario.hold_lock();
            let mut service = scenario.lab.knockgate_command(&["run", "--down-on-exit"]);
            let service = Running::start(&mut service, scenario.lab.folder());
            wait_until("it keeps the signal", || service.catches(signal));
            service.signal(signal);
            drop(holder);
            assert_eq!(service.ends(), Some(0));
            scenario.open(A, "22/tcp");
            scenario.lab.assert_untouched();
            scenario.configure(ssh());
            scenario.knockgate("up").exits(0);
        }
    });
}

/// Each of several readers gets every event, including earlier ones.
#[test]
fn readers_of_events_take_nothing_from_each_other() {
    in_generic_mode(|scenario| {
        let _service = start_with(scenario, ssh().open_for("1s"), &[]);
        let readers = [scenario.lab.follow_events(), scenario.lab.follow_events()];
        scenario.knock(A, ALICE);
        for reader in &readers {
            wait_until("every event has been read", || {
                let events = events_of(reader);
                ["knock.step", "gate.opened", "gate.closed"]
                    .iter()
                    .all(|name| events.iter().any(|event| event["event"] == *name))
            });
        }
        let events = scenario.lab.events();
        let closed = events
            .iter()
            .find(|event| event["event"] == "gate.closed")
            .unwrap_or_else(|| panic!("no gate.closed in {events:?}"));
        assert_eq!(closed["gate"], "ssh");
        assert_eq!(closed["user"], "alice");
        assert_eq!(closed["reason"], "expired");
        assert_eq!(closed["source"], scenario.family.address(A).to_string());
    });
}

/// So that knocks find free slots. The ends are reported first, also those of grants that ended while no service ran.
#[test]
fn the_slots_of_grants_that_have_ended_are_freed() {
    in_generic_mode(|scenario| {
        let pins = PinRoot::new(scenario.lab.pin_root());
        let taken = || {
            let datapath = Datapath::look(&pins).expect("the tables are there");
            let live = datapath.grants().expect("they can be read").len();
            let ended = datapath.ended_grants(0).expect("they can be read").len();
            (live, ended)
        };
        let closings = || {
            let events = scenario.lab.events();
            let closed = |event: &&Value| event["event"] == "gate.closed";
            events.iter().filter(closed).count()
        };
        let service = start(scenario, &[]);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        scenario.knock(A, ALICE);
        scenario.ends(A);
        wait_until("the slot is free", || taken() == (1, 0));
        assert_eq!(closings(), 1);
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
        assert_eq!(taken(), (2, 0));

        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        scenario.ends(A);
        assert_eq!(taken(), (1, 1), "nobody frees it");
        let _service = start(scenario, &[]);
        wait_until("the slot is free", || taken() == (1, 0));
        assert_eq!(closings(), 1);
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
        scenario.open(B, "22/tcp");
    });
}

/// No event of the kernel tells of it.
#[test]
fn a_grant_by_hand_that_ends_before_it_was_seen_is_reported() {
    in_generic_mode(|scenario| {
        let service = start(scenario, &[]);
        service.signal(libc::SIGSTOP);
        scenario
            .knockgate("allow {B} --gate ssh --for 1ms")
            .exits(0);
        service.signal(libc::SIGCONT);
        let source = scenario.family.address(B).to_string();
        let said = || {
            let events = scenario.lab.events().into_iter();
            let its = events.filter(|event| event["source"] == *source);
            its.map(|event| event["event"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        wait_until("its end is reported", || {
            said().iter().any(|event| event == "gate.closed")
        });
        assert_eq!(said(), ["gate.opened", "gate.closed"]);
    });
}

#[test]
fn the_hosts_addresses_are_followed_as_they_change() {
    in_generic_mode(|scenario| {
        let config = format!("addresses = \"host\"\n{}", ssh());
        let _service = start_with(scenario, config, &[]);
        let knows = |address: &str| {
            let status = scenario.knockgate("status --json").exits(0).json();
            assert_eq!(status["destinations"], "host");
            let known = status["addresses"].as_array().expect("a list");
            known.contains(&serde_json::json!({ "address": address, "kind": "own" }))
        };
        let host = scenario.family.host().to_string();
        assert!(knows(&host));
        assert!(!knows("10.77.0.17"));
        add_address(&scenario.lab.host, WAN, "10.77.0.17/16");
        wait_until("the new address is known", || knows("10.77.0.17"));
        let gone = format!("address delete 10.77.0.17/16 dev {WAN}");
        ip(&scenario.lab.host, &gone);
        wait_until("it is forgotten", || !knows("10.77.0.17"));
        assert!(knows(&host));
        let shown = scenario.knockgate("status").exits(0).stdout.clone();
        assert!(shown.contains("ADDRESS"), "{shown}");
        let said = scenario.knockgate("check").exits(0).stdout.clone();
        assert!(said.contains("own addresses, now 10.77.0.1,"), "{said}");
    });
}

/// While the service is stopped, more events happen than it reads at once.
#[test]
fn what_happened_while_it_was_kept_from_working_does_not_keep_it_from_reading_on() {
    in_generic_mode(|scenario| {
        let service = start(scenario, &[]);
        service.signal(libc::SIGSTOP);
        let wire = Wire::open(&scenario.lab);
        for number in 0..1500_u16 {
            let [high, low] = number.to_be_bytes();
            let from = (IpAddr::from([10, 99, high, low]), 40_000);
            let host = scenario.family.host();
            let knocks = [
                Packet::udp(from, (host, 7000), b""),
                Packet::tcp(from, (host, 8443), SYN),
                Packet::udp(from, (host, 9301), b""),
            ];
            let knocks = knocks.map(|knock| knock.frame(CLIENT_MAC, HOST_MAC));
            wire.send(&scenario.lab, &knocks);
        }
        service.signal(libc::SIGCONT);
        wait_until("new events are read", || {
            scenario.knock(A, ALICE);
            let source = scenario.family.address(A).to_string();
            let events = scenario.lab.events();
            events.iter().any(|event| event["source"] == source)
        });
    });
}

/// With `open_ports = "auto"`, a packet to a port is no probe any more once something listens on it.
#[test]
fn ports_that_come_to_be_listened_on_become_open_ports() {
    in_generic_mode(|scenario| {
        let _service = start(scenario, &[]);
        let around = "7000/udp 8080/tcp 8443/tcp 9301/udp";
        scenario.knock(A, around);
        scenario.closed(A, "22/tcp");
        let _listener = Services::start(&scenario.lab.host, &[8080], &[]);
        wait_until("the new port counts as open", || {
            scenario.knock(A, around);
            scenario.attempt(A, "22/tcp", Outcome::Silent) == Outcome::Open
        });
    });
}

/// The open ports of an earlier service are still in the kernel's table, and may have changed since.
#[test]
fn a_service_that_takes_over_knows_which_ports_were_open() {
    in_generic_mode(|scenario| {
        let around = "7000/udp 8080/tcp 8443/tcp 9301/udp";
        let opens = || {
            scenario.knockgate("revoke --all").exits(0);
            scenario.knock(A, around);
            !scenario.lab.list("grants").is_empty()
        };
        let listener = Services::start(&scenario.lab.host, &[8080], &[]);
        let service = start(scenario, &[]);
        assert!(opens(), "8080/tcp is open");
        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        drop(listener);
        let service = start(scenario, &[]);
        wait_until("8080/tcp is a probe as any other", || !opens());
        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        let _listener = Services::start(&scenario.lab.host, &[8080], &[]);
        let _service = start(scenario, &[]);
        wait_until("8080/tcp is open again", opens);
    });
}

/// As when other processes of the host have taken too many.
#[test]
fn want_of_descriptors_for_a_while_does_not_end_it() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let said = scenario.lab.folder().join("service.log");
        let mut service = scenario.lab.knockgate_command(&["run"]);
        service.stderr(File::create(&said).expect("the temporary folder is writable"));
        let mut service = Running::start(&mut service, scenario.lab.folder());
        wait_until("it serves", || scenario.lab.is_served());
        let says = |text: &str| {
            let said = fs::read_to_string(&said).expect("it was created above");
            said.matches(text).count()
        };
        let enough = service.limit_descriptors(0);
        wait_until("it lacks them", || {
            let text = fs::read_to_string(&said).unwrap_or_default();
            assert!(service.goes_on(), "it has ended: {text}");
            says("the service will try again") != 0
        });
        scenario.configure(ssh().open_for("2m"));
        scenario.knockgate("reload").exits(0);
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
        assert!(service.goes_on(), "{said:?}");
        service.limit_descriptors(enough);
        wait_until("it follows", || says("config.applied") != 0);
        let events = scenario.lab.events();
        for expected in ["config.applied", "gate.opened"] {
            assert!(
                events.iter().any(|event| event["event"] == expected),
                "no {expected} in {events:?}"
            );
        }
    });
}

/// systemd takes a reload whose time it is not told in the same message for none.
#[test]
fn the_service_manager_is_told_when_a_reload_begins_and_that_it_is_over() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let manager = Manager::listen(scenario.lab.folder());
        let mut service = scenario.lab.knockgate_command(&["run"]);
        manager.watches(&mut service, Duration::from_hours(1));
        let service = Running::start(&mut service, scenario.lab.folder());
        manager.is_told_of_readiness();
        service.signal(libc::SIGHUP);
        let reloading = manager.is_told("RELOADING=1").expect("it reloads");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        manager.is_told_of_readiness();
    });
}

/// They are counted since the instance came up.
#[test]
fn lost_events_are_reported_by_one_service() {
    in_generic_mode(|scenario| {
        let service = start(scenario, &[]);
        let wire = Wire::open(&scenario.lab);
        let lost = || -> u64 {
            let events = scenario.lab.events();
            let of = events
                .iter()
                .filter(|event| event["event"] == "events.lost");
            of.filter_map(|event| event["lost"].as_u64()).sum()
        };
        wait_until("events are lost", || {
            let host = scenario.family.host();
            let knocks: Vec<_> = (0..2000_u16)
                .map(|number| {
                    let [high, low] = number.to_be_bytes();
                    let from = (IpAddr::from([10, 99, high, low]), 40_000);
                    Packet::udp(from, (host, 7000), b"").frame(CLIENT_MAC, HOST_MAC)
                })
                .collect();
            wire.send(&scenario.lab, &knocks);
            lost() != 0
        });
        let state = || {
            let files = fs::read_dir(scenario.lab.state()).expect("the service has made it");
            let mut paths = files.map(|file| file.expect("readable").path());
            let path = paths.find(|path| path.extension().is_some_and(|of| of == "json"));
            let text = path.map(|path| fs::read_to_string(path).unwrap_or_default());
            serde_json::from_str::<Value>(&text.unwrap_or_default()).unwrap_or_default()
        };
        wait_until("all are counted and written down", || {
            let counted = lost();
            thread::sleep(Duration::from_secs(3));
            lost() == counted && state()["lost"]["events"] == counted
        });
        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        let _service = scenario.lab.serve(&[]);
        scenario.knock(A, ALICE);
        wait_until("it reads events", || {
            let mut events = scenario.lab.events().into_iter();
            events.any(|event| event["event"] == "gate.opened")
        });
        assert_eq!(lost(), 0, "{:?}", scenario.lab.events());
    });
}

/// Hooks have their time, and what was seen is written down, whatever ends it.
#[test]
fn a_service_that_fails_comes_to_its_end_as_any_other() {
    in_generic_mode(|scenario| {
        let file = |name| scenario.lab.folder().join(name);
        let [begun, go, noted] = ["begun", "go", "noted"].map(file);
        let script = format!(
            "touch {}; until test -e {}; do sleep 0.1; done; touch {}",
            begun.display(),
            go.display(),
            noted.display()
        );
        let run = ["/bin/sh", "-c", &script];
        let hook = format!("[[gate.hook]]\non = \"opened\"\nrun = {run:?}\n");
        let service = start_with(scenario, format!("{}{hook}", ssh()), &[]);
        scenario.knock(A, ALICE);
        wait_until("the hook runs", || begun.exists());
        // Another instance in place of the one that it serves.
        service.signal(libc::SIGSTOP);
        scenario.knockgate("down").exits(0);
        scenario.knockgate("up").exits(0);
        service.signal(libc::SIGCONT);
        // It looks every two seconds, and gives a hook five.
        thread::sleep(Duration::from_millis(2200));
        fs::write(go, "").expect("the folder is ours");
        assert_eq!(service.ends(), Some(1));
        assert!(noted.exists(), "the hook was ended");
    });
}

#[test]
fn a_second_service_is_refused() {
    in_generic_mode(|scenario| {
        let _service = start(scenario, &[]);
        scenario.knockgate("run").exits(1).prints_nothing();
        // Whatever becomes of its socket.
        let named = scenario.lab.pin_root().display().to_string();
        let socket = format!("/run/knockgate/{}.sock", named.replace('/', "%"));
        fs::remove_file(socket).expect("the service has made it");
        scenario
            .knockgate("run")
            .exits(1)
            .says(&["another `knockgate run`"]);
        scenario.closed(A, "22/tcp");
    });
}

fn in_generic_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], row);
}

/// Starts the service and waits until the interface is guarded.
fn start(scenario: &Scenario, options: &[&str]) -> Running {
    start_with(scenario, ssh(), options)
}

fn start_with(scenario: &Scenario, config: impl Display, options: &[&str]) -> Running {
    scenario.configure(config);
    scenario.lab.serve(options)
}

/// The verifier gives up when a signal comes, as one does when a hook ends or when somebody stops a command and has it go on.
#[test]
fn signals_do_not_keep_the_program_from_being_loaded() {
    in_generic_mode(|scenario| {
        let mut command = scenario.lab.knockgate_command(&["up"]);
        scenario.configure(Gate::ssh());
        let mut up = Running::start(&mut command, scenario.lab.folder());
        // From here on it makes tables and loads the program.
        wait_until("it has begun", || scenario.lab.pin_root().exists());
        for _ in 0..100 {
            if !up.goes_on() {
                break;
            }
            up.signal(libc::SIGSTOP);
            up.signal(libc::SIGCONT);
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(up.ends(), Some(0));
    });
}
