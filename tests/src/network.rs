//! Changes of a namespace's network by a test. A change that fails panics.

use netlab::Netns;

/// Runs `ip` commands in a namespace, one a line.
#[track_caller]
pub fn ip(netns: &Netns, commands: &str) {
    netns.ip(commands).unwrap_or_else(|error| panic!("{error}"));
}

/// Adds an address with its prefix length to an interface. An IPv6 address can be used at once.
#[track_caller]
pub fn add_address(netns: &Netns, interface: &str, address: &str) {
    ip(netns, &address_command(interface, address));
}

/// Sets values below `/proc/sys/net`.
#[track_caller]
pub fn set(netns: &Netns, settings: &[&str], value: &str) {
    for setting in settings {
        netns
            .set(setting, value)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Returns the `ip` command of [`add_address`].
pub(crate) fn address_command(interface: &str, address: &str) -> String {
    let at_once = if address.contains(':') { "nodad" } else { "" };
    format!("address add {address} dev {interface} {at_once}")
}
