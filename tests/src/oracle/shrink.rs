//! Reduces a stream that shows a difference to the shortest and plainest one that still does.

use knock_user::config::Config;

use super::{Difference, Look, difference, told};
use crate::{datagram::Datagram, sealed::Sealed, stream::Step, system::SystemUnderTest};

/// Returns the smallest stream found that shows a difference, as a file of the corpus; `None` if [`Look::Close`] shows
/// no difference.
pub fn minimal(
    toml: &str,
    config: &Config,
    system: &mut dyn SystemUnderTest,
    steps: &[Step],
) -> Option<String> {
    let mut shrink = Shrink { config, system };
    let mut found = shrink.shows(steps)?;
    let mut steps = steps[..=found.at].to_vec();
    loop {
        let before = steps.clone();
        shrink.drop_steps(&mut steps);
        shrink.simplify(&mut steps);
        if steps == before {
            break;
        }
    }
    if let Some(last) = shrink.shows(&steps) {
        found = last;
    }
    let told = told(config, shrink.system, &steps);
    let lines: Vec<String> = steps
        .iter()
        .zip(told)
        .map(|(step, told)| format!("{step}    # model: {told}"))
        .collect();
    let lines = lines.join("\n");
    Some(format!("# {}\n{toml}---\n{lines}\n", found.what))
}

struct Shrink<'a> {
    config: &'a Config,
    system: &'a mut dyn SystemUnderTest,
}

impl Shrink<'_> {
    fn shows(&mut self, steps: &[Step]) -> Option<Difference> {
        difference(self.config, self.system, steps, Look::Close)
    }

    /// Removes runs of steps, long ones first, while the rest still shows a difference (Zeller and Hildebrandt, IEEE
    /// Transactions on Software Engineering 28(2), 2002).
    fn drop_steps(&mut self, steps: &mut Vec<Step>) {
        let mut size = steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < steps.len() {
                let end = (at + size).min(steps.len());
                let rest = [&steps[..at], &steps[end..]].concat();
                if let Some(found) = self.shows(&rest) {
                    *steps = rest;
                    steps.truncate(found.at + 1);
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn simplify(&mut self, steps: &mut [Step]) {
        for at in 0..steps.len() {
            let Step::Packet(datagram) = steps[at].clone() else {
                continue;
            };
            let mut kept = datagram;
            for simpler in SIMPLER {
                let mut candidate = kept.clone();
                simpler(&mut candidate);
                steps[at] = Step::Packet(candidate.clone());
                if candidate != kept && self.shows(steps).is_some() {
                    kept = candidate;
                }
            }
            steps[at] = Step::Packet(kept);
        }
    }
}

fn knock(datagram: &mut Datagram, simpler: impl FnOnce(&mut Sealed)) {
    if let Some(knock) = &mut datagram.knock {
        simpler(knock);
    }
}

/// Each removes one deviation from a plain packet.
const SIMPLER: &[fn(&mut Datagram)] = &[
    |datagram| datagram.tags.clear(),
    |datagram| datagram.set.clear(),
    |datagram| datagram.cut = None,
    |datagram| datagram.fragment = None,
    |datagram| datagram.extensions.clear(),
    |datagram| {
        datagram.extensions.pop();
    },
    |datagram| {
        datagram.set.pop();
    },
    |datagram| {
        datagram.tags.pop();
    },
    |datagram| datagram.options = 0,
    |datagram| datagram.knock = None,
    |datagram| knock(datagram, |knock| knock.flip.clear()),
    |datagram| {
        knock(datagram, |knock| {
            *knock = Sealed {
                gate: knock.gate.clone(),
                ..Sealed::new(&knock.key, knock.time)
            };
        });
    },
    |datagram| knock(datagram, |knock| knock.gate.clear()),
    |datagram| knock(datagram, |knock| knock.slot = None),
    |datagram| knock(datagram, |knock| knock.seconds = 0),
    |datagram| knock(datagram, |knock| knock.flags &= !8),
    |datagram| knock(datagram, |knock| knock.port = 0),
    |datagram| knock(datagram, |knock| knock.flags = 4),
    |datagram| datagram.payload = 0,
    |datagram| datagram.sequence = 0,
    |datagram| datagram.flags &= 0x02,
    |datagram| datagram.flags &= 0x3f,
];
