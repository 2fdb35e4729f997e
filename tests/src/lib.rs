//! What the end-to-end suites stand on: throw-away networks with a gate and its clients in them.
//!
//! The order a reader wants: [`trial`] is the language that a row of a suite is written in, [`lab`]
//! builds the network under it and runs `knockgate` there, [`run`] keeps what a command said, and
//! [`netns`] makes the namespaces. [`attempt`] tries ports as any client would, [`service`] is what the
//! gate guards, [`packet`] and [`raw`] make and send frames that no honest client would, [`foreign`] puts
//! other people's BPF objects in the way, and [`sshd`] runs a real server. [`need`] decides whether this
//! machine can run any of it.

pub mod attempt;
pub mod foreign;
pub mod lab;
pub mod need;
pub mod netns;
pub mod packet;
pub mod raw;
pub mod run;
pub mod service;
pub mod sshd;
pub mod trial;
