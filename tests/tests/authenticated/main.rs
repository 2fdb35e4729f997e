//! Authenticated knocks: by the loaded program, and between network namespaces.

mod gates;
mod program;
