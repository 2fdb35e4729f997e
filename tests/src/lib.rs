//! What the end-to-end suites stand on: throw-away networks with a gate and its clients in them.
//!
//! The order a reader wants: [`scenario`] is the language that a row of a suite is written in, [`lab`]
//! builds the network under it and runs `knockgate` there, [`run`] keeps what a command said, and
//! [`netns`] makes the namespaces. [`attempt`] tries ports as any client would, [`service`] is what the
//! gate guards, [`packet`] and [`raw`] make and send frames that no honest client would, [`flood`] as
//! many as it can, [`tap`] sees what arrives, [`tun`] is a device without a link header, [`path`] makes
//! frames late, [`offload`] decides how much of a stream one frame holds,
//! [`foreign`] puts other people's BPF objects in the way, and [`sshd`] runs a real server.
//! [`need`] decides whether this machine can run any of it.
//!
//! Beside them stands the oracle: [`model`] says slowly what a gate must do, [`subject`] is a gate that
//! packets are put through one by one, [`oracle`] compares the two on [`stream`]s of
//! [`datagram`]s. [`fixtures`] says of each behaviour by itself what must come of it, and [`interpreter`]
//! counts the instructions that it takes.

pub mod attempt;
pub mod datagram;
pub mod fixtures;
pub mod flood;
pub mod foreign;
pub mod gate_config;
pub mod interpreter;
pub mod killed;
pub mod lab;
pub mod model;
pub mod need;
pub mod network;
pub mod oracle;
pub mod path;

pub mod run;
pub mod scenario;
pub mod service;
pub mod sshd;
pub mod stream;
pub mod subject;
pub mod tap;
pub mod tun;
pub mod wire;
