//! Capabilities of this process.

use std::fs;

/// Bits of `linux/capability.h`.
const CAP_NET_ADMIN: u64 = 1 << 12;
/// Includes the other three.
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// Returns whether this process may load and attach XDP programs; `true` where its capabilities cannot be read, since
/// the kernel then decides.
pub fn may_load_programs() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_none_or(suffices)
}

fn effective(status: &str) -> Option<u64> {
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn suffices(held: u64) -> bool {
    let all = CAP_BPF | CAP_NET_ADMIN | CAP_PERFMON;
    held & all == all || held & CAP_SYS_ADMIN != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_three_is_needed() {
        let all = CAP_BPF | CAP_NET_ADMIN | CAP_PERFMON;
        assert!(suffices(all));
        assert!(suffices(CAP_SYS_ADMIN));
        for one in [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON] {
            assert!(!suffices(all & !one));
        }
    }

    #[test]
    fn effective_capabilities_are_read() {
        let status = "Name:\tknockgate\nCapPrm:\t000001ffffffffff\nCapEff:\t0000008000000000\n";
        assert_eq!(effective(status), Some(CAP_BPF));
        assert_eq!(effective("Name:\tknockgate\n"), None);
    }
}
