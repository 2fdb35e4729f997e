//! knockgate in user space: configuration, the loader, the service, the client.
//!
//! The order a reader wants: [`cli`] says what can be asked, [`commands`] has one file for each
//! answer, [`config`] turns a file into checked values, [`datapath`] puts them into the kernel and reads
//! the kernel's tables back, [`metrics`] writes these for Prometheus, [`top`] shows them live, [`mod@import`] reads other
//! programs' configurations, [`mod@fwknop`] the packets of one of them, [`service`] is what `run` does in addition, [`client`]
//! knocks, with [`keys`] or sequences.

pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod datapath;
pub mod fwknop;
pub mod import;
pub mod keys;
pub mod logging;
pub mod metrics;
mod names;
mod runtime;
pub mod service;
mod sys;
pub mod top;
