//! Why a driver refuses a program in native mode, and which command helps. For a BPF link the kernel returns an error
//! number alone; only a program that is attached by netlink gets the driver's explanation.

use std::io;

use crate::{
    config::{Attach, Config},
    datapath::compile::rejects,
    sys::{
        ethtool::{self, Channels},
        links, page,
        xdp_features::{self, feature},
    },
};

/// The properties of an interface that decide whether it takes a program in native mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    /// As `ethtool -i` names it; empty where it cannot be read.
    pub driver: String,
    pub mtu: u32,
    /// A veth's other end, where it is in this network namespace.
    pub peer: Option<Peer>,
    /// LRO is on: segments are merged before the program would see them.
    pub lro: bool,
    /// `rx-gro-hw` is on, to the same effect.
    pub gro_hw: bool,
    /// Bits of [`feature`]; unknown before Linux 6.3.
    pub features: Option<u64>,
    pub channels: Channels,
    /// Bytes of a page of memory.
    pub page_size: usize,
}

/// The other end of a veth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    pub mtu: u32,
    pub channels: Channels,
}

impl Facts {
    /// Reads the properties; those that cannot be read are left unknown.
    pub fn read(name: &str) -> Self {
        let links = links::all().unwrap_or_default();
        let own = links.iter().find(|link| link.name == name);
        let driver = ethtool::driver(name).unwrap_or_default();
        let active = ethtool::active_features(name).unwrap_or_default();
        let is_on = |offload: &str| active.iter().any(|name| name == offload);
        let peer = own
            .filter(|own| driver == VETH && !own.lower_elsewhere)
            .and_then(|own| links.iter().find(|link| Some(link.index) == own.lower))
            .map(|peer| Peer {
                name: peer.name.clone(),
                mtu: peer.mtu,
                channels: ethtool::channels(&peer.name).unwrap_or_default(),
            });
        Self {
            name: name.to_owned(),
            driver,
            mtu: own.map_or(0, |own| own.mtu),
            peer,
            lro: is_on("rx-lro"),
            gro_hw: is_on("rx-gro-hw"),
            features: own.and_then(|own| xdp_features::xdp_features(own.index).ok().flatten()),
            channels: ethtool::channels(name).unwrap_or_default(),
            page_size: page::size(),
        }
    }

    /// Returns whether native mode takes a program for frames in several buffers.
    pub fn needs_frags(&self) -> bool {
        self.beyond_one_buffer().is_some()
    }

    /// Returns the MTU that decides it and the largest at which a frame fits one buffer, where native mode takes frames in
    /// several and the MTU is beyond.
    pub fn beyond_one_buffer(&self) -> Option<(u32, u32)> {
        let can = self
            .features
            .is_none_or(|features| features & feature::RX_SG != 0);
        let (largest, mtu) = largest(self);
        (can && mtu > largest).then_some((mtu, largest))
    }
}

const VETH: &str = "veth";

/// Largest MTU at which a frame fits one buffer, with 4 KiB pages. Beside the frame, a page holds 256 bytes of headroom,
/// 320 of the end of the socket buffer, and 14 to 22 of the link header.
const LARGEST: [(&str, u32); 14] = [
    (VETH, 3506),
    ("virtio_net", 3506),
    ("hv_netvsc", 3506),
    ("ena", 3498),
    ("mlx5_core", 3498),
    ("bnxt_en", 3498),
    // Buffers of 3072 bytes.
    ("i40e", 3046),
    ("iavf", 3046),
    ("ice", 3046),
    ("igb", 3046),
    ("ixgbe", 3046),
    ("ixgbevf", 3046),
    ("gve", 2032),
    ("igc", 1500),
];
/// The same for any driver that holds a frame in a page.
const USUAL: u32 = 3498;
/// The same for every driver.
const ETHERNET: u32 = 1500;

/// Drivers that refuse a program while LRO is on; others switch it off.
const NO_LRO: [&str; 2] = ["mlx5_core", "hv_netvsc"];

/// Returns the largest MTU at which every frame that arrives is in one buffer, and the MTU to compare it with.
fn largest(facts: &Facts) -> (u32, u32) {
    let known = LARGEST.iter().find(|(driver, _)| *driver == facts.driver);
    let largest = match known {
        Some((_, largest)) if facts.page_size == page::USUAL_SIZE => *largest,
        None if facts.page_size == page::USUAL_SIZE => USUAL,
        // What fits a larger page is not known.
        _ => ETHERNET,
    };
    // The frames that arrive at a veth are as large as its other end may send.
    (
        largest,
        facts.peer.as_ref().map_or(facts.mtu, |peer| peer.mtu),
    )
}

/// Returns what keeps a program from native mode, with the command that helps, as one clause. `frags`: the program takes
/// frames in several buffers. `error`: the number with which the kernel has refused it; without one, only a certain
/// hindrance is returned.
pub fn hindrance(facts: &Facts, frags: bool, error: Option<i32>) -> Option<String> {
    let Facts { name, .. } = facts;
    let refused = error.is_some();
    // A driver that cannot run programs at present does not announce the feature.
    let unable = facts
        .features
        .is_some_and(|features| features & feature::BASIC == 0);
    if facts.lro && (refused || unable || NO_LRO.contains(&facts.driver.as_str())) {
        return Some(format!(
            "{} runs no XDP program while LRO is on (`ethtool -K {name} lro off`)",
            whose(facts)
        ));
    }
    // Of a driver with native XDP, which may be the MTU's fault.
    let is_known = LARGEST.iter().any(|(driver, _)| *driver == facts.driver);
    if (!unable || is_known)
        && let Some(mtu) = mtu(facts, frags, error)
    {
        return Some(mtu);
    }
    if facts.gro_hw && refused {
        return Some(format!(
            "{} runs no XDP program while the card merges packets (`ethtool -K {name} rx-gro-hw off`; \
             where that is fixed, the virtual machine's host has to switch it off)",
            whose(facts)
        ));
    }
    if let Some(queues) = queues(facts, unable, error) {
        return Some(queues);
    }
    if unable || error == Some(libc::EOPNOTSUPP) {
        return Some(format!(
            "{} has no native XDP (`attach = \"tcx\"`, on Linux 6.6 and newer, or \"generic\" does without it)",
            whose(facts)
        ));
    }
    None
}

/// Names the driver at the beginning of a clause.
fn whose(facts: &Facts) -> String {
    let Facts { name, driver, .. } = facts;
    if driver.is_empty() {
        format!("the driver of {name}")
    } else {
        format!("the driver of {name}, {driver},")
    }
}

fn mtu(facts: &Facts, frags: bool, error: Option<i32>) -> Option<String> {
    let is_veth = facts.driver == VETH;
    let known = facts.page_size == page::USUAL_SIZE
        && LARGEST.iter().any(|(driver, _)| *driver == facts.driver);
    // A driver that takes such programs has no limit for them, so it has refused this one for another reason.
    let has_frags = facts
        .features
        .map(|features| features & feature::RX_SG != 0);
    if frags && has_frags == Some(true) && error != Some(libc::ERANGE) {
        return None;
    }
    let suspected = match error {
        None => known && (!frags || has_frags == Some(false)),
        Some(error) => [libc::ERANGE, libc::EINVAL, libc::EOPNOTSUPP].contains(&error),
    };
    let (largest, mtu) = largest(facts);
    let name = match &facts.peer {
        Some(peer) => Some(peer.name.as_str()),
        None if is_veth => None,
        None => Some(facts.name.as_str()),
    };
    // A veth returns this number for no other reason.
    let certain = is_veth && error == Some(libc::ERANGE);
    if !suspected || (mtu <= largest && !certain) {
        return None;
    }
    let limit = format!(
        "{} runs this XDP program up to an MTU of {largest} only",
        whose(facts)
    );
    Some(match name {
        Some(name) if is_veth => format!(
            "{limit}, and its other end's is {mtu} (`ip link set dev {name} mtu {largest}`)"
        ),
        Some(name) => {
            format!("{limit}, and its MTU is {mtu} (`ip link set dev {name} mtu {largest}`)")
        }
        None => format!(
            "{limit}, and its other end's is larger (`ip link set dev PEER mtu {largest}` in the network \
             namespace of that end)"
        ),
    })
}

fn queues(facts: &Facts, unable: bool, error: Option<i32>) -> Option<String> {
    let Facts { name, channels, .. } = facts;
    if facts.driver == VETH {
        if !unable && error != Some(libc::ENOSPC) {
            return None;
        }
        let needs = format!(
            "{} needs as many receiving queues as its other end has sending ones",
            whose(facts)
        );
        return Some(match &facts.peer {
            Some(peer) if peer.channels.send <= channels.most_receive => {
                format!("{needs} (`ethtool -L {name} rx {}`)", peer.channels.send)
            }
            Some(peer) => format!(
                "{needs} (`ethtool -L {} tx {}`)",
                peer.name, channels.receive
            ),
            None => format!(
                "{needs} (`ethtool -L PEER tx {}` there)",
                channels.receive.max(1)
            ),
        });
    }
    // Frames that XDP programs send leave by queues of their own.
    let half = channels.most_combined / 2;
    (error.is_some() && half > 0 && channels.combined > half).then(|| {
        format!(
            "{} keeps half of its {} queues for what XDP programs send (`ethtool -L {name} combined {half}`)",
            whose(facts),
            channels.most_combined
        )
    })
}

/// Returns, where a gate rejects, that replies may get lost in native mode. A veth sends them back only where its peer takes XDP
/// frames, which cannot be seen from here; at TCX and in generic mode every interface sends them.
pub fn lost_replies(config: &Config, name: &str, driver: &str) -> Option<String> {
    if !rejects(config) || driver != VETH {
        return None;
    }
    Some(if config.attach == Attach::Native {
        format!(
            "{name} is a veth: with `attach = \"native\"`, the replies of `deny = \"reject\"` get lost unless the other end \
             carries an XDP program; \"tcx\" and \"generic\" do not need one"
        )
    } else {
        format!(
            "{name} is a veth, which may lose the replies of `deny = \"reject\"` in native mode"
        )
    })
}

/// Returns, for each interface of a configuration that is sure to refuse native mode, or may lose replies in it, the consequence
/// and the reason. `frags`: the program may take frames in several buffers. `has_tcx`: whether an interface takes it at TCX.
pub fn warnings(config: &Config, frags: bool, has_tcx: &dyn Fn(&str) -> bool) -> Vec<String> {
    if matches!(config.attach, Attach::Generic | Attach::Tcx) {
        return Vec::new();
    }
    let warning = |name: &String| {
        let facts = Facts::read(name);
        let refused = hindrance(&facts, frags, None);
        let is_refused = refused.is_some();
        let why = refused.or_else(|| lost_replies(config, name, &facts.driver))?;
        Some(match config.attach {
            Attach::Native if is_refused => {
                format!("`up` will not attach to {name} in native mode: {why}")
            }
            Attach::Native => why,
            _ if has_tcx(name) => format!("`up` will attach to {name} at TCX: {why}"),
            _ => format!(
                "`up` will attach to {name} in generic mode, which costs more for each packet: {why}"
            ),
        })
    };
    config.interfaces.iter().filter_map(warning).collect()
}

/// Returns why the kernel has refused a program in native mode: the [`hindrance`] if one is found, else the kernel's error.
pub fn refusal(name: &str, frags: bool, error: &io::Error) -> String {
    let facts = Facts::read(name);
    hindrance(&facts, frags, error.raw_os_error())
        .unwrap_or_else(|| format!("{} refuses it: {error}", whose(&facts)))
}

#[cfg(test)]
mod tests;
