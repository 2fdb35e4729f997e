//! The fixture table, by every driver: each row is one behaviour, in every family that it speaks of.

use std::collections::HashMap;

use knock_user::config::Config;
use knockgate_tests::{
    fixtures::{self, Family, Fixture},
    subject::{Hosted, Modelled, Program},
};

#[test]
fn rows_hold_on_the_host() {
    for row in fixtures::all() {
        for &family in row.families {
            row.run(family, &mut Hosted::new(&row.config(family)));
        }
    }
}

#[test]
fn rows_hold_in_the_kernel() {
    rows_hold(Program::load);
}

/// Wherever a frame is cut, from one of which nothing but the Ethernet header is in the first buffer to one in one piece.
#[test]
fn rows_hold_in_the_kernel_for_frames_in_several_buffers() {
    for first in [14, 36, 4000] {
        rows_hold(|config| Program::load_scattered(config, first));
    }
}

fn rows_hold(load: impl Fn(&Config) -> Option<Program>) {
    // Rows share configurations, families too where none is named, and loading takes longest. One program at
    // a time, since each has as many descriptors as tables.
    let mut rows_of: HashMap<_, Vec<(&Fixture, Family)>> = HashMap::new();
    for row in fixtures::all() {
        for &family in row.families {
            let names_a_family = row.config.contains("\"{");
            let key = (row.config, names_a_family.then_some(family));
            rows_of.entry(key).or_default().push((row, family));
        }
    }
    for rows in rows_of.values() {
        let (first, family) = rows[0];
        let Some(mut program) = load(&first.config(family)) else {
            return;
        };
        for &(row, family) in rows {
            row.run(family, &mut program);
        }
    }
}

/// What the oracle believes is what the table says.
#[test]
fn rows_hold_in_the_model() {
    for row in fixtures::all() {
        for &family in row.families {
            let config = row.config(family);
            row.run(family, &mut Modelled::new(&config));
        }
    }
}
