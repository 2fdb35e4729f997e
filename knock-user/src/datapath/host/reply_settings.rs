//! The settings of the network namespace by which a closed port replies.

use std::fs;

use knock_common::reject::{LEAST_OPTIONS, ReplySettings, SIGNATURE_LENGTH, labels};

use crate::sys::{clock, kernel_version, tcp_authentication};

/// Type 3 of ICMP and 1 of `ICMPv6`, both "destination unreachable" (RFC 792, RFC 4443).
const UNREACHABLE4: u32 = 3;
const UNREACHABLE6: u32 = 1;

/// Reads the settings; where one cannot be read, its default of Linux is taken. `secret` makes flow labels
/// unpredictable.
pub fn read(secret: u64) -> ReplySettings {
    let milliseconds = |name: &str| {
        setting::<u64>(name)
            .unwrap_or(1000)
            .saturating_mul(1_000_000)
    };
    let number = |name: &str, default| setting::<u32>(name).unwrap_or(default);
    let auto = number("ipv6/auto_flowlabels", 1);
    let mut label_bits = 0;
    // Linux's IP6_AUTO_FLOW_LABEL_OPTOUT and _FORCED.
    if auto == 1 || auto == 3 {
        label_bits |= labels::AUTO;
    }
    if number("ipv6/flowlabel_state_ranges", 0) != 0 {
        label_bits |= labels::STATELESS;
    }
    // FLOWLABEL_REFLECT_TCP_RESET.
    if number("ipv6/flowlabel_reflect", 0) & 2 != 0 {
        label_bits |= labels::REFLECT;
    }
    let mask4 = number("ipv4/icmp_ratemask", 6168);
    let mask6 = text("ipv6/icmp/ratemask").unwrap_or_else(|| "0-1,3-127".to_owned());
    let limited = u8::from(mask4 >> UNREACHABLE4 & 1 != 0)
        | u8::from(is_in_ranges(&mask6, UNREACHABLE6)) << 1;
    let checks_codes = tcp_authentication::is_built_in();
    ReplySettings {
        interval4: milliseconds("ipv4/icmp_ratelimit"),
        interval6: milliseconds("ipv6/icmp/ratelimit"),
        per_second: number("ipv4/icmp_msgs_per_sec", 1000),
        burst: number("ipv4/icmp_msgs_burst", 50),
        tick: clock::tick(),
        secret,
        ttl: setting("ipv4/ip_default_ttl").unwrap_or(64),
        labels: label_bits,
        limited,
        known: 1,
        strict: u8::from(checks_codes || kernel_version::is_at_least((6, 7))),
        least_options: if checks_codes {
            LEAST_OPTIONS
        } else {
            SIGNATURE_LENGTH
        },
        zero: [0; 2],
    }
}

/// Returns the hop limit of packets sent by a device.
pub fn hop_limit(device: &str) -> u8 {
    setting(&format!("ipv6/conf/{device}/hop_limit")).unwrap_or(64)
}

fn text(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?;
    Some(text.trim().to_owned())
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    text(name)?.parse().ok()
}

/// Returns whether `number` is in ranges such as `0-1,3-127`.
fn is_in_ranges(ranges: &str, number: u32) -> bool {
    ranges.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.trim().parse::<u32>(), last.trim().parse::<u32>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        assert!(is_in_ranges("0-1,3-127", 1));
        assert!(!is_in_ranges("0-1,3-127", 2));
        assert!(is_in_ranges("2", 2));
        assert!(!is_in_ranges("", 1));
    }
}
