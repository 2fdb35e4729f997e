//! Changes of a namespace's network by a test. A change that fails panics.

use netlab::Netns;

use crate::run::{run, wait_until};

/// Runs `ip` commands in a namespace, one a line.
#[track_caller]
pub fn ip(netns: &Netns, commands: &str) {
    netns.ip(commands).unwrap_or_else(|error| panic!("{error}"));
}

/// Adds an address with its prefix length to an interface. An IPv6 address can be used at once.
#[track_caller]
pub fn add_address(netns: &Netns, interface: &str, address: &str) {
    ip(netns, &address_command(interface, address));
    wait_for_addresses(netns, interface);
}

/// Waits until an interface that is up has its IPv6 addresses in use: the kernel begins a moment later, and on a busy machine
/// much later.
#[track_caller]
pub fn wait_for_addresses(netns: &Netns, interface: &str) {
    wait_until("the addresses of an interface are in use", || {
        let command = ["-6", "address", "show", "dev", interface, "up", "tentative"];
        let shown = run(netns.command("ip").args(command));
        shown.exits(0).stdout.trim().is_empty()
    });
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
