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

/// Makes two tests of each row: a function of the same name, given a scenario over IPv4 and then one over IPv6 in
/// the same lab. `needs` names a tool that the row runs.
macro_rules! behaviours {
    ($($row:ident $(needs $tool:literal)*;)*) => {$(
        mod $row {
            use knockgate_tests::scenario::{Attach, Scenario};

            const TOOLS: &[&str] = &[$($tool),*];

            #[test]
            fn native() {
                Scenario::run_over_both(Attach::Native, TOOLS, super::$row);
            }

            #[test]
            fn generic() {
                Scenario::run_over_both(Attach::Generic, TOOLS, super::$row);
            }
        }
    )*};
}
use behaviours;
