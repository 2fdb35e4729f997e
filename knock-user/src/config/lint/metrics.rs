//! Warnings about who can read the metrics.

use std::net::SocketAddr;

use crate::config::{draft::Draft, host::HostFacts, listen::Listen, source::Findings};

/// Warns of an address that other hosts may reach, and of a port on which the service may not listen.
pub(super) fn lint(findings: &mut Findings<'_>, draft: &Draft, host: &HostFacts) {
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
    if let (Listen::Tcp(address), Some(first)) = (&listen.value, host.first_unprivileged_port)
        && address.port() < first
    {
        let message = format!(
            "the service has no privilege to listen on port {}, since it is below {first}; listen on \"{}\"",
            address.port(),
            SocketAddr::new(address.ip(), 9464)
        );
        findings.warning("privileged-metrics-port", listen.span, message);
    }
}
