//! One sequence at a time: clients of this machine that knock at one address wait for each other.
//!
//! A gate follows one run of knocks for each source address, so two sequences that are sent at the same time
//! break each other. Clients in one network namespace need not find that out by failing.

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::linux::claim;

/// Who holds a turn for longer than this is not waited for: the name can be taken by any program.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// How often a client that waits looks whether its turn has come.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The right to knock at one address; given up when dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub(super) struct Turn {
    _name: Option<UnixDatagram>,
    /// Whether another client was knocking before.
    pub(super) waited: bool,
}

impl Turn {
    /// Waits for the clients that knock at `to` now.
    pub(super) async fn take(to: IpAddr) -> Self {
        let mut waited = false;
        let begun = Instant::now();
        loop {
            match claim(to) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && begun.elapsed() < LONGEST_WAIT =>
                {
                    waited = true;
                    sleep(LOOK_AGAIN).await;
                }
                // Without Unix sockets nobody can be waited for.
                claimed => {
                    return Self {
                        _name: claimed.ok(),
                        waited,
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// An address from the range for documentation, which no other test knocks at.
    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for() {
        let first = Turn::take(address(1)).await;
        assert!(!first.waited);
        let elsewhere = Turn::take(address(2)).await;
        assert!(!elsewhere.waited, "another address is another matter");
        let begun = Instant::now();
        let (second, ()) = tokio::join!(Turn::take(address(1)), async {
            sleep(Duration::from_millis(100)).await;
            drop(first);
        });
        assert!(second.waited);
        let taken = begun.elapsed();
        assert!(
            taken >= Duration::from_millis(100) && taken < LONGEST_WAIT,
            "{taken:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_never_ends_is_not_waited_for_forever() {
        let _held = Turn::take(address(3)).await;
        let begun = Instant::now();
        let second = Turn::take(address(3)).await;
        assert!(second.waited);
        assert!(begun.elapsed() >= LONGEST_WAIT);
    }
}
