//! Keys for authenticated knocks in the kernel's tables.

mod apply;
mod newest;
mod rows;
pub(super) mod tables;

pub use apply::{Holders, Who, load, put_into_force, reset, user_of};
pub use newest::{Kept, Newest};
pub use rows::KeyRows;
pub use tables::KeyTables;
