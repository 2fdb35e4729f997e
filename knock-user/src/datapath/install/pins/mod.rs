//! Where an instance is pinned: `ROOT/INTERFACE/{link,program,program_ip}` and one pin for each table.
//!
//! All interfaces of an instance share its tables, so each directory holds pins of the same ones. A directory is
//! filled under another name, and renamed once everything but the link is in it: one that has an interface's
//! name has all tables. Where a process is killed meanwhile, the next one recognises and removes what it left.

pub mod access;
pub mod change;
pub mod directory;
pub mod lock;
pub mod root;
