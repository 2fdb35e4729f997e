//! knockgate in user space: configuration, the loader, the service, the client.
//!
//! The order a reader wants: [`cli`] says what can be asked, [`commands`] has one file for each
//! answer, [`config`] turns a file into checked [`values`], [`datapath`] puts them into the kernel and reads
//! the kernel's tables back, [`metrics`] writes these for Prometheus, [`top`] shows them live, [`mod@import`] reads other
//! programs' configurations, [`mod@fwknop`] the packets of one of them, [`published`] looks at what
//! the firewall sends on to containers, `fleet` joins hosts, [`service`] is what `run` does in addition, [`client`]
//! knocks, with [`keys`] or sequences.
//!
//! The feature `client` alone leaves out what needs the kernel program, for machines that only knock.

#[cfg(not(feature = "client"))]
compile_error!("choose the feature `client`, or `client` and `host`");

pub mod cli;
pub mod client;
pub mod commands;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod datapath;
#[cfg(feature = "fleet")]
pub mod fleet;
#[cfg(feature = "host")]
pub mod fwknop;
#[cfg(feature = "host")]
pub mod import;
pub mod keys;
pub mod logging;
#[cfg(feature = "host")]
pub mod metrics;
#[cfg(feature = "host")]
pub mod published;
mod runtime;
#[cfg(feature = "host")]
pub mod service;
#[cfg(feature = "host")]
mod sys;
#[cfg(feature = "host")]
pub mod top;
pub mod values;
