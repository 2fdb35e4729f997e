//! docs/reference.md describes every metric, and the alert rules and the dashboard name no other.

use std::collections::BTreeSet;

use knock_user::metrics::METRICS;

use super::{rows, section};

const PAGE: &str = include_str!("../../../docs/reference.md");
const RULES: &str = include_str!("../../../packaging/prometheus/knockgate.rules.yml");
const DASHBOARD: &str = include_str!("../../../packaging/grafana/knockgate.json");

#[test]
fn every_metric_is_described_with_its_type_and_labels() {
    let stated: Vec<Vec<String>> = rows(section(PAGE, "## Metrics"))
        .into_iter()
        .map(|cells| cells.into_iter().map(ToOwned::to_owned).collect())
        .collect();
    let expected: Vec<Vec<String>> = METRICS
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| format!("`{label}`"));
            vec![
                format!("`{}`", metric.name),
                metric.kind.as_str().to_owned(),
                labels.collect::<Vec<_>>().join(", "),
                metric.help.to_owned(),
            ]
        })
        .collect();
    assert_eq!(stated, expected);
}

#[test]
fn a_counter_ends_with_total_and_nothing_else_does() {
    for metric in METRICS {
        let is_counter = metric.kind.as_str() == "counter";
        assert_eq!(
            metric.name.ends_with("_total"),
            is_counter,
            "{}",
            metric.name
        );
    }
}

#[test]
fn rules_and_dashboard_use_metrics_that_exist() {
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for (name, text) in [("the rules", RULES), ("the dashboard", DASHBOARD)] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: BTreeSet<&str> = words
            .filter(|word| word.starts_with("knockgate_"))
            .collect();
        assert!(!used.is_empty());
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
}

/// Where there are no metrics, no other alert says that a host was restarted and guards nothing.
#[test]
fn missing_metrics_are_not_said_to_leave_the_ports_closed() {
    let (_, rule) = RULES
        .split_once("alert: KnockgateMetricsMissing")
        .expect("it is there");
    let rule = rule.split("- alert:").next().unwrap_or(rule);
    assert!(rule.contains("severity: critical"), "{rule}");
    assert!(rule.contains("unless the host"), "{rule}");
}
