//! The fixture table, by every driver: each row is one behaviour, in every family that it speaks of.

use std::collections::HashMap;

use knockgate_tests::{
    fixtures::{self, Family},
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
    // Rows share configurations, families too where none is named, and loading takes longest.
    let mut loaded: HashMap<(&str, Option<Family>), Program> = HashMap::new();
    for row in fixtures::all() {
        for &family in row.families {
            let names_a_family = row.config.contains("\"{");
            let key = (row.config, names_a_family.then_some(family));
            let program = match loaded.remove(&key) {
                Some(program) => Some(program),
                None => Program::load(&row.config(family)),
            };
            let Some(mut program) = program else {
                return;
            };
            row.run(family, &mut program);
            loaded.insert(key, program);
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
