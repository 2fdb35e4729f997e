//! Grants of other hosts, put into the tables by what is in force when that is done.

use anyhow::Result;
use jiff::Timestamp;
use knock_common::{event::Kind, report::class};

use super::{Worker, moment};
use crate::{
    datapath::{
        Admitted, Ends, GrantsFull, TooManyLengths,
        origin::{Holder, SHARED},
    },
    fleet::{
        engine::Engine,
        record::Refusal,
        state::{Give, Policy as _, Refused},
    },
    service::record::{Record, network_text, wall_clock},
    sys::clock::monotonic_now,
};

impl<E: Engine> Worker<E> {
    /// Gives a grant, or says why not. The lock is held, and the rules are those in force.
    pub(super) fn give(&mut self, give: Give) -> Result<()> {
        let source = give.source;
        let admitted = self.rules.gate(&give.gate).ok_or(Refusal::Gate);
        let admitted = admitted.and_then(|gate| {
            let user = self
                .rules
                .admits(gate, &source, give.grant.by(), moment())?;
            Ok((gate, user))
        });
        let (gate, user) = match admitted {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.refuse_grant(give, reason);
                return Ok(());
            }
        };
        let holder = Holder {
            user,
            host: self.number_of(&give.grant.origin),
        };
        let now = monotonic_now();
        let until = now.saturating_add(self.rules.open_for(gate));
        let until = until.min(give.until);
        let before = self.datapath.grant_of(source, gate)?;
        let before = before.filter(|row| row.until > now);
        // One for one port is none that another host has given.
        if give.renews_only && before.as_ref().is_none_or(|row| row.port != 0) {
            return Ok(());
        }
        let renews = before.is_some();
        // It was heard in time, and has ended while a command kept the tables locked.
        if until <= now {
            self.refuse_grant(give, Refusal::Stale);
            return Ok(());
        }
        if !renews && self.live >= self.most {
            self.refuse_grant(give, Refusal::TableFull);
            return Ok(());
        }
        let ends = Ends {
            until,
            doubt: give.doubt,
        };
        // Before it is in the tables: its end comes after that.
        let time = Timestamp::now();
        let given = self
            .datapath
            .admit_remote(source, gate, holder.number(), ends, now);
        match given {
            Ok(Admitted::Given) => {
                self.live += u32::from(!renews);
                self.say_opened(give, until, time);
            }
            Ok(Admitted::Lasts) => {}
            Ok(Admitted::InDoubt) => self.state.doubt(give),
            Err(error) if is_full(&error) => self.refuse_grant(give, Refusal::TableFull),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns the number of the host with this name. Where it cannot be written down, the host has none of its own.
    fn number_of(&mut self, origin: &str) -> u32 {
        match self.origins.number(origin) {
            Ok(number) => {
                self.unnumbered.settle();
                number
            }
            Err(error) => {
                if let Some(why) = self.unnumbered.about(&error) {
                    tracing::warn!("{why}; what {origin} gives is shown as given by another host");
                }
                SHARED
            }
        }
    }

    fn refuse_grant(&mut self, give: Give, reason: Refusal) {
        self.refuse(Refused {
            reason,
            origin: Some(give.grant.origin.clone()),
            gate: Some(give.gate.clone()),
            user: give.grant.user.clone(),
            source: Some(give.source),
            key: String::new(),
        });
        self.state.not_given(give, reason, moment());
    }

    fn say_opened(&mut self, give: Give, until: u64, time: Timestamp) {
        let record = Record {
            time,
            gate: Some(give.gate),
            user: give.grant.user,
            key: give.grant.key,
            source: Some(network_text(give.source)),
            until: Some(wall_clock(until)),
            origin: Some(give.grant.origin),
            ..Record::now(Kind::Opened.name())
        };
        self.say(Some(class::OPENINGS), record);
    }
}

/// Returns whether a grant was not given because there is no room for it: nothing that another host says may end more than
/// that.
pub(super) fn is_full(error: &anyhow::Error) -> bool {
    error.is::<GrantsFull>() || error.is::<TooManyLengths>()
}
