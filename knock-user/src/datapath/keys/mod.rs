//! Keys for authenticated knocks in the kernel's tables.

mod apply;
mod held;
mod newest;
mod rows;
pub(super) mod tables;
mod usable;

pub use apply::{Holders, Who, load, user_of};
pub use held::Held;
pub use newest::{Kept, Newest, latest};
pub use rows::{KeyRows, beyond_limit};
pub use tables::{KeyTables, Print};
pub use usable::{Compiled, Keys};
