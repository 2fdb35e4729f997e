//! Authenticated knocks: by the loaded program, and between network namespaces.

mod changes;
mod gates;
mod kept;
mod program;
mod unusable;
