//! Warnings about who can read the metrics.

use crate::config::{draft::Draft, source::Findings};

/// Warns of an address that other hosts may reach.
pub(super) fn lint(findings: &mut Findings<'_>, draft: &Draft) {
    let Some(listen) = &draft.metrics.listen else {
        return;
    };
    if listen.value.is_exposed() {
        let message = format!(
            "other hosts may read the metrics at {}, which has neither a password nor encryption; listen on \
             \"127.0.0.1:9464\" or a Unix socket, or let only the Prometheus server reach the port",
            listen.value
        );
        findings.warning("exposed-metrics", listen.span, message);
    }
}
