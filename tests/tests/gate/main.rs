//! The behaviour of a gate, seen from outside: one row for each behaviour, tried with native and generic attach and
//! at TCX, over IPv4 and IPv6.
//!
//! [`knocks`]: which knocks open a gate. [`grants`]: whom a grant admits, and how it ends. [`sessions`]: how flows end.
//! [`scope`]: traffic that a gate does not affect. [`clients`]: existing clients. [`frames`]: unusual frames.
//! [`native`]: limits of drivers.

mod behind;
mod clients;
mod frames;
mod grants;
mod knocks;
mod native;
mod scope;
mod sessions;

/// Makes three tests of each row, one for each attach mode. A row is a function of the same name, which is called with a
/// scenario over IPv4, then with one over IPv6 in the same lab. `needs` names a program that the row runs.
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

            #[test]
            fn tcx() {
                Scenario::run_over_both(Attach::Tcx, TOOLS, super::$row);
            }
        }
    )*};
}
use behaviours;
