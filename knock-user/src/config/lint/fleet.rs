//! Warnings about the files of `[fleet]`. They are no errors: a host whose certificate has ended guards its gates as before.

use jiff::Timestamp;

use crate::{
    config::{draft::Draft, source::Findings},
    fleet::files::{Fault, Named, faults},
};

/// Warns of certificates and keys that are missing, end soon, do not fit together or can be read by others.
pub(super) fn lint(findings: &mut Findings<'_>, draft: &Draft) {
    let Some(written) = &draft.fleet else {
        return;
    };
    let fleet = written.clone().into_fleet();
    if let Err(error) = fleet.host_name() {
        findings.warning("unnamed-host", written.header, format!("{error:#}"));
    }
    for Fault {
        file,
        code,
        message,
    } in faults(&fleet, Timestamp::now())
    {
        let span = match file {
            Named::Ca => written.ca.span,
            Named::Cert => written.cert.span,
            Named::Key => written.key.span,
            Named::FleetKey(nth) => written.keys.get(nth).map_or(written.header, |key| key.span),
        };
        findings.warning(code, span, message);
    }
}
