//! What the end-to-end suites share.
//!
//! A suite's row is written as a [`scenario`]: a [`lab`] (two network namespaces with `knockgate` in one and its clients
//! in the other), the services behind the gate, and what to do and expect there. [`gate_config`] writes the gate's
//! configuration, [`attempt`] tries ports as any client would, [`service`] is what the gate guards, [`run`] keeps what a
//! command printed, and [`killed`] kills one half-way. Below the IP stack, [`wire`] sends frames that no honest client
//! would, [`flood`] as many as it can, [`tap`] sees what arrives, [`tun`] is a device without a link header, and [`path`]
//! delays and reorders frames. [`foreign`] attaches and pins other programs' BPF objects, [`sshd`] runs a real server,
//! [`http`] asks one, [`pty`] is a terminal, [`network`] changes a namespace, and [`need`] says whether this machine can run any of it. The
//! namespaces and frames themselves come from the crate `netlab`, which the bench and the demo use too.
//!
//! The second half tries the program packet by packet: [`fixtures`] says of each behaviour by itself what must come of
//! it, [`model`] states slowly what a gate must do, and [`oracle`] compares it with each [`system`] (the program in the
//! kernel, and the same decisions on the host) on [`stream`]s of [`datagram`]s. [`interpreter`] counts the instructions
//! that a packet takes.

pub mod attempt;
pub mod datagram;
pub mod fixtures;
pub mod flood;
pub mod foreign;
pub mod gate_config;
pub mod http;
pub mod interpreter;
pub mod killed;
pub mod lab;
pub mod model;
pub mod need;
pub mod network;
pub mod oracle;
pub mod path;

pub mod pty;
pub mod run;
pub mod scenario;
pub mod service;
pub mod sshd;
pub mod stream;
pub mod system;
pub mod tap;
pub mod tun;
pub mod wire;
