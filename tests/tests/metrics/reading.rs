//! `knockgate metrics`.

use std::{fs, os::unix::fs::PermissionsExt as _};

use knockgate_tests::{gate_config::ALICE, lab::Source::A, run::wait_until};

use super::{gates, in_generic_mode, value};

#[test]
fn metrics_say_what_the_other_commands_say() {
    in_generic_mode(&[], |scenario| {
        scenario.up(gates(""));
        scenario.closed(A, "25/tcp");
        scenario.knock(A, ALICE);
        let _session = scenario.connected(A, 22);
        let text = scenario.knockgate("metrics").exits(0).stdout.clone();
        for (sample, expected) in [
            ("knockgate_up{interface=\"wan0\",mode=\"enforce\"}", 1.0),
            ("knockgate_service_running", 0.0),
            ("knockgate_grants{gate=\"ssh\"}", 1.0),
            ("knockgate_grants{gate=\"mail\"}", 0.0),
            ("knockgate_knocks_total{gate=\"ssh\",result=\"step\"}", 2.0),
            (
                "knockgate_knocks_total{gate=\"ssh\",result=\"opened\"}",
                1.0,
            ),
            (
                "knockgate_knocks_total{gate=\"mail\",result=\"opened\"}",
                0.0,
            ),
            ("knockgate_table_entries{table=\"grants\"}", 1.0),
            ("knockgate_table_entries{table=\"sessions\"}", 1.0),
            ("knockgate_table_capacity{table=\"grants\"}", 1024.0),
            // A counter is there before it counts.
            (
                "knockgate_packets_total{verdict=\"deny\",reason=\"used_up\",gate=\"ssh\"}",
                0.0,
            ),
        ] {
            assert_eq!(value(&text, sample), Some(expected), "{sample} in {text}");
        }
        let attached =
            "knockgate_interface_info{interface=\"wan0\",attach=\"generic\",present_name=\"wan0\"}";
        assert_eq!(value(&text, attached), Some(1.0), "{text}");
        // Nobody sends to these gates in between.
        let stats = scenario.knockgate("stats --json").exits(0).json();
        let rows = stats["packets"].as_array().expect("a list");
        let mut compared = 0;
        for row in rows.iter().filter(|row| row["gate"].is_string()) {
            let [verdict, reason, gate] =
                ["verdict", "reason", "gate"].map(|key| row[key].as_str().unwrap_or(""));
            let labels = format!("{{verdict=\"{verdict}\",reason=\"{reason}\",gate=\"{gate}\"}}");
            for (name, key) in [("packets", "packets"), ("bytes", "bytes")] {
                let sample = format!("knockgate_{name}_total{labels}");
                assert_eq!(
                    value(&text, &sample),
                    row[key].as_f64(),
                    "{sample} in {text}"
                );
            }
            compared += 1;
        }
        assert!(compared >= 2, "{stats}");
    });
}

#[test]
fn an_interface_that_is_not_guarded_is_a_zero() {
    in_generic_mode(&[], |scenario| {
        scenario.up(gates(""));
        scenario.lab.make_again();
        let text = scenario.knockgate("metrics").exits(0).stdout.clone();
        let sample = "knockgate_up{interface=\"wan0\",mode=\"enforce\"}";
        assert_eq!(value(&text, sample), Some(0.0), "{text}");
        assert!(!text.contains("knockgate_interface_info"), "{text}");
    });
}

#[test]
fn a_renamed_interface_keeps_its_series() {
    in_generic_mode(&[], |scenario| {
        scenario.up(gates(""));
        scenario.lab.rename("wan0", "wan9");
        let text = scenario.knockgate("metrics").exits(0).stdout.clone();
        let info =
            "knockgate_interface_info{interface=\"wan0\",attach=\"generic\",present_name=\"wan9\"}";
        assert_eq!(value(&text, info), Some(1.0), "{text}");
        let sample = "knockgate_up{interface=\"wan0\",mode=\"enforce\"}";
        assert_eq!(value(&text, sample), Some(1.0), "{text}");
    });
}

#[test]
fn a_trial_counts_down_until_it_is_confirmed() {
    in_generic_mode(&[], |scenario| {
        scenario.configure(gates(""));
        scenario.knockgate("up --try 1h").exits(0);
        let left = || {
            let text = scenario.knockgate("metrics").exits(0).stdout.clone();
            value(&text, "knockgate_try_left_seconds{interface=\"wan0\"}")
        };
        let first = left().expect("a trial runs");
        assert!(first > 0.0 && first <= 3600.0, "{first}");
        wait_until("it counts", || left().is_some_and(|left| left < first));
        scenario.knockgate("confirm").exits(0);
        assert_eq!(left(), None);
    });
}

#[test]
fn a_textfile_is_replaced_also_where_nothing_is_up_any_more() {
    in_generic_mode(&[], |scenario| {
        scenario.up(gates(""));
        let file = scenario.lab.folder().join("knockgate.prom");
        let write = format!("metrics --textfile {}", file.display());
        scenario.knockgate(&write).exits(0).prints_nothing();
        let mode = fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        let text = || fs::read_to_string(&file).expect("readable");
        assert_eq!(value(&text(), "knockgate_grants{gate=\"ssh\"}"), Some(0.0));
        scenario.knockgate("down").exits(0);
        scenario.knockgate("metrics").exits(5).prints_nothing();
        scenario.knockgate(&write).exits(5).prints_nothing();
        assert_eq!(value(&text(), "knockgate_up"), Some(0.0));
        assert!(!text().contains("knockgate_grants"), "{}", text());
    });
}
