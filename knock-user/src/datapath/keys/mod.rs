//! Keys for authenticated knocks in the kernel's tables.

mod apply;
mod held;
mod newest;
mod rows;
pub(super) mod tables;

pub use apply::{Holders, Who, load, user_of};
pub use held::Held;
pub use newest::{Kept, Newest};
pub use rows::KeyRows;
pub use tables::KeyTables;
