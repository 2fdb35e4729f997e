//! What our program passes goes on to another one, once; what it denies does not.

use knockgate_tests::{
    lab::{
        Source::{A, B},
        WAN,
    },
    neighbour::{Neighbour, pinned_id},
    network::{add_address, ip},
    run::wait_until,
    scenario::Attach,
};

use crate::{
    OTHER, PROTECTED, Udp, configure, followed_by, gate, in_both_modes, in_its_unit, in_mode,
    section, status,
};

#[test]
fn what_passes_goes_on_once_and_what_is_denied_does_not() {
    in_both_modes(|scenario, pins| {
        let neighbour = Neighbour::new();
        neighbour.pin(&pins.at("next"));
        configure(scenario, followed_by(&pins.at("next")), gate());
        let (other, protected) = (Udp::bind(scenario, OTHER), Udp::bind(scenario, PROTECTED));
        scenario.knockgate("up").exits(0);
        other.send(scenario, A, 7);
        other.receives(7);
        assert_eq!(neighbour.count(OTHER), 7);
        protected.send(scenario, A, 9);
        scenario.knockgate("allow {B} --gate ssh").exits(0);
        protected.send(scenario, B, 5);
        protected.receives(5);
        assert_eq!(
            neighbour.count(PROTECTED),
            5,
            "those that have a grant, and no others"
        );
        assert_eq!(scenario.lab.stats().denied("no_grant"), 9);
        // Knocks are packets that pass.
        scenario.knock(A, "7000/udp 8443/tcp 9301/udp");
        scenario.open(A, "22/tcp");
        for port in [7000, 8443, 9301] {
            assert_eq!(neighbour.count(port), 1, "port {port}");
        }

        let row = status(scenario, 0);
        assert_eq!(row["next"]["pin"], pins.at("next").display().to_string());
        assert_eq!(row["next"]["program"], neighbour.id);
        assert_eq!(row["next"]["pinned"], neighbour.id);
        assert!(row["into"].is_null(), "{row}");
        let text = scenario.knockgate("status");
        let named = format!("program `neighbour`, id {}", neighbour.id);
        assert!(text.exits(0).stdout.contains(&named), "{text:?}");

        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
        assert_eq!(
            pinned_id(&pins.at("next")),
            neighbour.id,
            "it is pinned as before"
        );
        let before = neighbour.count(OTHER);
        other.send(scenario, A, 3);
        other.receives(3);
        assert_eq!(neighbour.count(OTHER), before, "nothing calls it any more");
    });
}

/// A reply is sent by our program itself.
#[test]
fn what_is_replied_to_does_not_go_on() {
    in_mode(Attach::Generic, |scenario, pins| {
        let neighbour = Neighbour::new();
        neighbour.pin(&pins.at("next"));
        configure(
            scenario,
            followed_by(&pins.at("next")),
            gate().key("deny = \"reject\""),
        );
        scenario.knockgate("up").exits(0);
        scenario.refused(A, "22/tcp");
        scenario.refused(A, "2200/udp");
        assert_eq!((neighbour.count(22), neighbour.count(PROTECTED)), (0, 0));
        scenario.knockgate("allow {A} --gate ssh").exits(0);
        scenario.open(A, "22/tcp");
        assert!(neighbour.count(22) > 0);
    });
}

#[test]
fn everything_goes_on_in_monitor_mode_and_after_a_trial() {
    in_both_modes(|scenario, pins| {
        let neighbour = Neighbour::new();
        neighbour.pin(&pins.at("next"));
        let protected = Udp::bind(scenario, PROTECTED);
        let monitor = format!("mode = \"monitor\"\n{}", followed_by(&pins.at("next")));
        configure(scenario, monitor, gate());
        scenario.knockgate("up").exits(0);
        protected.send(scenario, A, 6);
        protected.receives(6);
        assert_eq!(neighbour.count(PROTECTED), 6);
        scenario.knockgate("down").exits(0);

        configure(scenario, followed_by(&pins.at("next")), gate());
        scenario.knockgate("up --try 1s").exits(0);
        wait_until("the trial lapses", || {
            status(scenario, 0)["mode"] == "lapsed"
        });
        // The program's clock is coarse, so the first ones may still be denied.
        wait_until("the program passes everything", || {
            protected.send(scenario, A, 1);
            neighbour.count(PROTECTED) > 6
        });
        let before = neighbour.count(PROTECTED);
        protected.send(scenario, A, 4);
        protected.receives(before - 6 + 4);
        assert_eq!(neighbour.count(PROTECTED), before + 4);
    });
}

/// One program on several interfaces: a slot for each.
#[test]
fn each_interface_has_a_next_of_its_own_or_none() {
    in_both_modes(|scenario, pins| {
        let neighbours = [Neighbour::new(), Neighbour::new()];
        for (neighbour, name) in neighbours.iter().zip(["first", "second"]) {
            neighbour.pin(&pins.at(name));
        }
        let (host, client) = (&scenario.lab.host, &scenario.lab.client);
        for (name, network) in [("wan1", 81), ("wan2", 82)] {
            scenario.lab.add_interface(name);
            add_address(host, name, &format!("10.{network}.0.1/24"));
            add_address(
                client,
                &format!("{name}-peer"),
                &format!("10.{network}.0.2/24"),
            );
        }
        let sections = format!(
            "interfaces = [\"wan1\"]\n{}{}",
            section(WAN, &pins.at("first")),
            section("wan2", &pins.at("second"))
        );
        configure(scenario, sections, gate());
        scenario.knockgate("up").exits(0);
        let services = ["10.81.0.1", "10.82.0.1"].map(|host_address| {
            let bound = host.run(|| std::net::UdpSocket::bind((host_address, OTHER)));
            let bound = bound.expect("a free port");
            bound.set_nonblocking(true).expect("a socket");
            let sender = client.run(|| std::net::UdpSocket::bind(("0.0.0.0", 0)));
            (bound, sender.expect("a free port"), host_address)
        });
        for (bound, sender, address) in &services {
            sender
                .send_to(b"datagram", (*address, OTHER))
                .expect("sent");
            wait_until("it arrives", || bound.recv(&mut [0; 64]).is_ok());
        }
        assert_eq!(neighbours[0].count(OTHER), 0);
        assert_eq!(
            neighbours[1].count(OTHER),
            1,
            "wan2 has the second, and wan1 none"
        );
        let other = Udp::bind(scenario, OTHER);
        other.send(scenario, A, 3);
        other.receives(3);
        assert_eq!(
            (neighbours[0].count(OTHER), neighbours[1].count(OTHER)),
            (3, 1)
        );

        // An interface that is made again has another index.
        ip(host, "link delete wan2");
        scenario.lab.add_interface("wan2");
        add_address(host, "wan2", "10.82.0.1/24");
        add_address(client, "wan2-peer", "10.82.0.2/24");
        scenario.knockgate("up").exits(0);
        let (bound, sender, address) = &services[1];
        sender
            .send_to(b"datagram", (*address, OTHER))
            .expect("sent");
        wait_until("it arrives", || bound.recv(&mut [0; 64]).is_ok());
        assert_eq!(
            (neighbours[0].count(OTHER), neighbours[1].count(OTHER)),
            (3, 2)
        );
    });
}

/// What is pinned is put in place of what was pinned before: by `up`, by `reload`, and by the service.
#[test]
fn another_program_at_the_pin_takes_the_place() {
    in_both_modes(|scenario, pins| {
        let pin = pins.at("next");
        let neighbours: Vec<_> = (0..4).map(|_| Neighbour::new()).collect();
        neighbours[0].pin(&pin);
        configure(scenario, followed_by(&pin), gate());
        let other = Udp::bind(scenario, OTHER);
        scenario.knockgate("up").exits(0);
        neighbours[1].pin(&pin);
        let row = status(scenario, 0);
        assert_eq!(
            row["next"]["program"], neighbours[0].id,
            "until it is read again"
        );
        assert_eq!(row["next"]["pinned"], neighbours[1].id);
        scenario.knockgate("reload").exits(0);
        assert_eq!(status(scenario, 0)["next"]["program"], neighbours[1].id);
        neighbours[2].pin(&pin);
        scenario.knockgate("up").exits(0);
        assert_eq!(status(scenario, 0)["next"]["program"], neighbours[2].id);
        let service = scenario.lab.serve(&[]);
        neighbours[3].pin(&pin);
        wait_until("the service reads the pin", || {
            status(scenario, 0)["next"]["program"] == neighbours[3].id
        });
        // A pin that is gone takes nothing away.
        std::fs::remove_file(&pin).expect("it is pinned");
        other.send(scenario, A, 5);
        other.receives(5);
        assert_eq!(neighbours[3].count(OTHER), 5);
        let row = status(scenario, 0);
        assert_eq!(row["next"]["program"], neighbours[3].id);
        assert!(row["next"]["pinned"].is_null(), "{row}");
        drop(service);
    });
}

/// The unit gives the service no pins but its own to write.
#[test]
fn the_service_in_its_unit_follows_the_pin_of_another() {
    in_mode(Attach::Generic, |scenario, pins| {
        let pin = pins.at("next");
        let neighbours = [Neighbour::new(), Neighbour::new()];
        neighbours[0].pin(&pin);
        configure(scenario, followed_by(&pin), gate());
        let _service = in_its_unit(scenario, &["run"]);
        let follows = |neighbour: &Neighbour| {
            let run = scenario.knockgate("status --json");
            run.code == Some(0) && run.json()["interfaces"][0]["next"]["program"] == neighbour.id
        };
        wait_until("the first follows", || follows(&neighbours[0]));
        neighbours[1].pin(&pin);
        wait_until("the second follows", || follows(&neighbours[1]));
    });
}

/// The service comes up where the other program is not there yet, and says so until it is.
#[test]
fn the_service_waits_for_what_is_to_follow() {
    in_mode(Attach::Generic, |scenario, pins| {
        let pin = pins.at("next");
        configure(scenario, followed_by(&pin), gate());
        // Status is 7 before the interface is guarded, too.
        let _service = scenario
            .lab
            .serve_until(&[], "the interface is guarded", || {
                let run = scenario.knockgate("status --json");
                run.code == Some(7) && run.json()["interfaces"][0]["guarded"] == true
            });
        scenario.closed(A, "22/tcp");
        let row = status(scenario, 7);
        assert!(row["next"]["program"].is_null(), "{row}");
        scenario
            .knockgate("status")
            .exits(7)
            .says(&["DOES NOT GO ON to", "knockgate reload"]);
        let neighbour = Neighbour::new();
        neighbour.pin(&pin);
        wait_until("it follows", || {
            scenario.knockgate("status").code == Some(0)
        });
        assert_eq!(status(scenario, 0)["next"]["program"], neighbour.id);
    });
}
