//! What a gate does, seen from outside: one row a behaviour, each tried with native and with generic
//! attach, over IPv4 and over IPv6.
//!
//! [`knocks`] says which knocks open a gate, [`grants`] what it gives then and until when, [`sessions`] how
//! flows end, [`scope`] what it leaves alone; [`clients`] are real ones, [`frames`] are such as none would send;
//! [`native`] is about what drivers refuse.

mod clients;
mod frames;
mod grants;
mod knocks;
mod native;
mod scope;
mod sessions;

/// One gate, one user; what most rows need.
const SSH: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
within = "10s"
"#;

/// The knocks that open [`SSH`], for [`Trial::knock`](knockgate_tests::trial::Trial::knock).
const ALICE: &str = "7000/udp 8443/tcp 9301/udp";

/// Makes four tests of each row: a function of the same name, given a trial. `needs` names a tool that the
/// row runs.
macro_rules! behaviours {
    ($($row:ident $(needs $tool:literal)*;)*) => {$(
        mod $row {
            use knockgate_tests::{lab::Family, trial::{Attach, Trial}};

            const TOOLS: &[&str] = &[$($tool),*];

            #[test]
            fn native_v4() {
                Trial::run(Attach::Native, Family::V4, TOOLS, super::$row);
            }

            #[test]
            fn native_v6() {
                Trial::run(Attach::Native, Family::V6, TOOLS, super::$row);
            }

            #[test]
            fn generic_v4() {
                Trial::run(Attach::Generic, Family::V4, TOOLS, super::$row);
            }

            #[test]
            fn generic_v6() {
                Trial::run(Attach::Generic, Family::V6, TOOLS, super::$row);
            }
        }
    )*};
}
use behaviours;
