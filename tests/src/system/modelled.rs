//! The model by itself, so that what it believes is tried by the fixtures too.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;
use knock_user::{config::Config, datapath::Framing};

use super::{Flow, GrantSeen, SystemUnderTest, Tally, Verdict};
use crate::model::{Model, Start};

/// The model, with a clock.
pub struct Modelled<'c> {
    config: &'c Config,
    framing: Framing,
    model: Model<'c>,
    now: u64,
}

impl<'c> Modelled<'c> {
    /// Returns a system on Ethernet.
    pub fn new(config: &'c Config) -> Self {
        Self::on(config, Framing::Ethernet)
    }

    /// Returns a system for links of this kind.
    pub fn on(config: &'c Config, framing: Framing) -> Self {
        Self {
            config,
            framing,
            model: Model::new(config, framing, Start::default()),
            now: 0,
        }
    }
}

impl SystemUnderTest for Modelled<'_> {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn grain(&self) -> Duration {
        Duration::ZERO
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn wait(&mut self, time: Duration) {
        self.now += u64::try_from(time.as_nanos()).expect("less than 500 years");
    }

    fn judge(&mut self, frame: &[u8]) -> bool {
        self.model.packet(frame, self.now).reason.passes()
    }

    fn allow(&mut self, source: IpNet, gate: u16, length: Duration) -> bool {
        let length = u64::try_from(length.as_nanos()).expect("less than 500 years");
        self.model.allow(source, gate, self.now + length, self.now)
    }

    fn revoke(&mut self, source: IpNet, gate: u16) {
        self.model.revoke(source, gate);
    }

    fn connect(&mut self, own: SocketAddr, peer: SocketAddr) {
        self.model.connect(own, peer);
    }

    fn counted(&self, verdict: Verdict) -> (u64, u64) {
        self.model.tally().packets[verdict.index()]
    }

    fn tally(&self) -> Tally {
        self.model.tally().clone()
    }

    fn grants(&self) -> Vec<GrantSeen> {
        self.model.grants(self.now)
    }

    fn flows(&self) -> Vec<Flow> {
        self.model.flows(self.now)
    }

    fn forget(&mut self) {
        let start = Start {
            begun: self.now,
            ..Start::default()
        };
        self.model = Model::new(self.config, self.framing, start);
    }
}
