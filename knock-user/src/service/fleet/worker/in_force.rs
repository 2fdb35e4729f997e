//! The configuration and the keys that are in force, which commands replace.

use anyhow::Result;

use super::{Rules, Worker, held::Ring, moment, most};
use crate::{
    datapath::{Busy, Datapath},
    fleet::{configuration_hash, engine::Engine},
};

impl<E: Engine> Worker<E> {
    /// Reads again which configuration and which keys are in force.
    pub(super) fn read_rules(&mut self) -> Result<()> {
        if let Some(reopened) = self.reopened()? {
            return self.take_over(reopened);
        }
        self.has_other_rules |= self.rules.read_keys(&self.datapath)?;
        Ok(())
    }

    /// Returns the tables of the configuration that has replaced this one; as long as a command is at work, none.
    fn reopened(&self) -> Result<Option<Datapath>> {
        match self.root.try_lock() {
            Ok(Some(_lock)) => self.datapath.reopened(),
            Ok(None) => Ok(None),
            Err(error) if error.is::<Busy>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes on with the tables of the configuration that is in force now.
    pub(super) fn take_over(&mut self, reopened: Datapath) -> Result<()> {
        self.datapath = reopened;
        self.rules = Rules::of(&self.datapath)?;
        self.state
            .describe(configuration_hash(self.datapath.config()));
        self.most = most(&self.datapath);
        // What came while this host waited for the lock can be asked about as well.
        let mut left = self.ring.left();
        let (ring, more) = Ring::of(&self.datapath)?;
        self.ring = ring;
        left.extend(more);
        for knock in left {
            self.hold(knock)?;
        }
        self.newest.forget();
        self.has_other_rules = true;
        Ok(())
    }

    /// Hears again what other rules did not allow, or what is about keys that they did not have.
    pub(super) async fn hear_by_other_rules(&mut self) -> Result<()> {
        let acts = self.state.hear_unfit(moment(), &self.rules);
        self.act(acts).await?;
        for (key, time) in self.state.newest() {
            self.raise_newest(&key, time)?;
        }
        Ok(())
    }
}
