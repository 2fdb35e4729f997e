use super::*;

fn card(driver: &str, mtu: u32) -> Facts {
    Facts {
        name: "eth0".to_owned(),
        driver: driver.to_owned(),
        mtu,
        features: Some(feature::BASIC),
        page_size: 4096,
        ..Facts::default()
    }
}

fn pair(peer_mtu: u32) -> Facts {
    Facts {
        peer: Some(Peer {
            name: "peer0".to_owned(),
            mtu: peer_mtu,
            ..Peer::default()
        }),
        features: Some(feature::BASIC | feature::RX_SG),
        ..card(VETH, 1500)
    }
}

fn said(facts: &Facts, frags: bool, error: Option<i32>) -> String {
    hindrance(facts, frags, error).unwrap_or_default()
}

#[test]
fn a_card_that_takes_the_program_gives_no_warning() {
    for driver in ["ena", "mlx5_core", "virtio_net", "igc", "unheard_of"] {
        assert_eq!(said(&card(driver, 1500), false, None), "", "{driver}");
    }
    assert_eq!(said(&pair(3506), false, None), "");
    assert_eq!(said(&Facts::default(), false, None), "");
    assert_eq!(said(&card("unheard_of", 9000), false, None), "");
}

#[test]
fn an_mtu_above_a_page_is_named_with_the_command() {
    assert_eq!(
        said(&card("ena", 9001), false, None),
        "the driver of eth0, ena, runs this XDP program up to an MTU of 3498 only, and its MTU is 9001 \
         (`ip link set dev eth0 mtu 3498`)"
    );
    for (driver, command) in [
        ("ice", "`ip link set dev eth0 mtu 3046`"),
        ("igc", "`ip link set dev eth0 mtu 1500`"),
        ("unheard_of", "`ip link set dev eth0 mtu 3498`"),
    ] {
        let said = said(&card(driver, 9000), false, Some(libc::EINVAL));
        assert!(said.contains(command), "{driver}: {said}");
    }
    // Where pages are larger, what fits is not known.
    let large = Facts {
        page_size: 65536,
        ..card("ena", 9001)
    };
    assert_eq!(said(&large, false, None), "");
    assert!(said(&large, false, Some(libc::EINVAL)).contains("mtu 1500`"));
}

#[test]
fn a_veths_limit_is_its_other_ends() {
    assert_eq!(
        said(&pair(9000), false, Some(libc::ERANGE)),
        "the driver of eth0, veth, runs this XDP program up to an MTU of 3506 only, and its other end's \
         is 9000 (`ip link set dev peer0 mtu 3506`)"
    );
    assert!(said(&pair(3507), false, None).contains("is 3507"));
    let elsewhere = Facts {
        peer: None,
        ..pair(0)
    };
    let said = said(&elsewhere, false, Some(libc::ERANGE));
    assert!(said.contains("`ip link set dev PEER mtu 3506`"), "{said}");
}

#[test]
fn a_program_that_reads_several_buffers_has_no_such_limit() {
    assert_eq!(said(&pair(9000), true, None), "");
    let reads = Facts {
        features: Some(feature::BASIC | feature::RX_SG),
        ..card("ena", 9001)
    };
    assert_eq!(said(&reads, true, None), "");
    // But only where the driver says so.
    assert!(said(&card("ena", 9001), true, None).contains("mtu 3498`"));
    let old = Facts {
        features: None,
        ..card("ena", 9001)
    };
    assert_eq!(said(&old, true, None), "");
    assert!(said(&old, true, Some(libc::EINVAL)).contains("mtu 3498`"));
}

#[test]
fn several_buffers_are_asked_for_where_one_does_not_hold_a_frame() {
    let reads = |driver, mtu| Facts {
        features: Some(feature::BASIC | feature::RX_SG),
        ..card(driver, mtu)
    };
    assert!(!reads("ena", 1500).needs_frags());
    assert!(reads("ena", 9001).needs_frags());
    assert!(reads("unheard_of", 9000).needs_frags());
    assert!(pair(9000).needs_frags());
    assert!(!pair(1500).needs_frags());
    assert!(!card("ena", 9001).needs_frags(), "it cannot");
}

#[test]
fn merged_segments_are_named_with_the_command() {
    let lro = Facts {
        lro: true,
        ..card("mlx5_core", 9000)
    };
    assert_eq!(
        said(&lro, false, None),
        "the driver of eth0, mlx5_core, runs no XDP program while LRO is on (`ethtool -K eth0 lro off`)"
    );
    // Other drivers switch it off by themselves.
    let other = Facts {
        lro: true,
        ..card("bnxt_en", 1500)
    };
    assert_eq!(said(&other, false, None), "");
    assert!(said(&other, false, Some(libc::EOPNOTSUPP)).contains("lro off"));
    let gro = Facts {
        gro_hw: true,
        ..card("virtio_net", 1500)
    };
    assert_eq!(said(&gro, false, None), "");
    assert!(said(&gro, false, Some(libc::EOPNOTSUPP)).contains("`ethtool -K eth0 rx-gro-hw off`"));
}

#[test]
fn too_few_queues_are_named_with_the_command() {
    let mut veth = pair(1500);
    veth.features = Some(0);
    veth.channels = Channels {
        receive: 1,
        most_receive: 4,
        ..Channels::default()
    };
    veth.peer.as_mut().expect("a pair").channels.send = 4;
    assert!(said(&veth, true, None).contains("`ethtool -L eth0 rx 4`"));
    veth.channels.most_receive = 1;
    assert!(said(&veth, true, Some(libc::ENOSPC)).contains("`ethtool -L peer0 tx 1`"));
    let ena = Facts {
        channels: Channels {
            combined: 8,
            most_combined: 8,
            ..Channels::default()
        },
        ..card("ena", 1500)
    };
    assert!(said(&ena, true, Some(libc::EINVAL)).contains("`ethtool -L eth0 combined 4`"));
}

#[test]
fn a_driver_without_native_mode_is_named() {
    let bridge = Facts {
        features: Some(0),
        ..card("bridge", 9000)
    };
    // Not its MTU, which `up` would name once it is refused.
    for error in [None, Some(libc::EOPNOTSUPP)] {
        assert_eq!(
            said(&bridge, true, error),
            "the driver of eth0, bridge, has no native XDP (`attach = \"tcx\"`, on Linux 6.6 and newer, or \"generic\" does \
             without it)"
        );
    }
    let old = Facts {
        features: None,
        driver: String::new(),
        ..card("", 1500)
    };
    assert_eq!(said(&old, false, None), "");
    assert!(
        said(&old, false, Some(libc::EOPNOTSUPP)).starts_with("the driver of eth0 has no native")
    );
}

#[test]
fn the_page_has_the_limit_of_every_driver() {
    const PAGE: &str = include_str!("../../../../../docs/placement.md");
    let row = |driver: &str, limit: u32| {
        PAGE.lines().any(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            cells.next() == Some(driver) && cells.nth(1) == Some(&limit.to_string())
        })
    };
    for (driver, limit) in LARGEST {
        assert!(row(&format!("`{driver}`"), limit), "{driver} {limit}");
    }
    assert!(row("any other", USUAL));
    for driver in NO_LRO {
        let line = PAGE
            .lines()
            .find(|line| line.contains(&format!("| `{driver}`")));
        assert!(
            line.is_some_and(|line| line.contains("`lro` off")),
            "{driver}"
        );
    }
}
