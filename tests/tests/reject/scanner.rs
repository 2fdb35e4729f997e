//! nmap's results for a protected port, a knock port and a closed port.

use std::collections::BTreeMap;

use knockgate_tests::{
    lab::{Family, Lab},
    scenario::Attach,
};
use netlab::host::find_program;

use crate::testbed::{CLOSED, GUARDED, Testbed};

const KNOCKS: [u16; 2] = [8000, 7000];

#[test]
fn nmap_sees_no_difference() {
    let Some(lab) = Lab::build(&["nmap"]) else {
        return;
    };
    let testbed = Testbed::new(lab, Attach::Native);
    testbed.without_limits();
    testbed.up();
    for family in [Family::V4, Family::V6] {
        for scan in ["-sS", "-sA", "-sF", "-sX", "-sN", "-sM", "-sW", "-sU"] {
            let knock = KNOCKS[usize::from(scan == "-sU")];
            let ports = [GUARDED, knock, CLOSED];
            let list = ports.map(|port| port.to_string()).join(",");
            let said = nmap(
                &testbed,
                family,
                &[scan, "--reason", "-p", &list, "-oX", "-"],
            );
            let seen = states(&said);
            assert_eq!(seen.len(), 3, "{scan} {family:?}: {said}");
            let closed = &seen[&CLOSED];
            // Otherwise the comparison would show nothing.
            assert!(
                closed.contains("reason=\"reset\"") || closed.contains("reason=\"port-unreach\""),
                "{scan} {family:?}: {closed}"
            );
            for port in [GUARDED, knock] {
                assert_eq!(&seen[&port], closed, "{scan} {family:?}: port {port}");
            }
        }
    }
    let prints = [(GUARDED, GUARDED), (KNOCKS[0], KNOCKS[1]), (CLOSED, CLOSED)];
    let [guarded, knock, closed] = prints.map(|(tcp, udp)| fingerprint(&testbed, tcp, udp));
    assert_eq!(guarded, closed);
    assert_eq!(knock, closed);
}

/// Returns the results of nmap's tests of a closed port, by name: three for TCP, one for UDP.
fn fingerprint(testbed: &Testbed, tcp: u16, udp: u16) -> Vec<(String, String)> {
    let ports = format!("T:{tcp},U:{udp}");
    let said = nmap(
        testbed,
        Family::V4,
        &["-sS", "-sU", "-O", "-d2", "-p", &ports],
    );
    let tests = ["T5", "T6", "T7", "U1"].map(|name| {
        let begin = format!("\n{name}(");
        let found = said.split_once(&begin);
        let found = found.and_then(|(_, rest)| rest.split_once(')'));
        let (found, _) = found.unwrap_or_else(|| panic!("no {name} in {said}"));
        (name.to_owned(), found.to_owned())
    });
    for (name, found) in &tests {
        assert!(found.starts_with("R=Y"), "nobody answered {name}: {found}");
    }
    tests.to_vec()
}

/// Returns the `state` elements of an XML report, by port.
fn states(report: &str) -> BTreeMap<u16, String> {
    let port = |part: &str| {
        let (number, rest) = part.split_once('"')?;
        let (_, state) = rest.split_once("<state ")?;
        let (state, _) = state.split_once("/>")?;
        Some((number.parse().ok()?, state.to_owned()))
    };
    report.split("portid=\"").skip(1).filter_map(port).collect()
}

fn nmap(testbed: &Testbed, family: Family, arguments: &[&str]) -> String {
    let host = family.host().to_string();
    let program = find_program("nmap").expect("it was there when the lab was built");
    let mut all = vec!["-n", "-Pn", "--disable-arp-ping", "--max-retries", "3"];
    // On a busy machine, an answer may take much longer than those before it.
    all.extend(["--min-rtt-timeout", "2s"]);
    if family == Family::V6 {
        all.push("-6");
    }
    all.extend(arguments);
    all.push(&host);
    testbed.lab.client(program, &all).exits(0).stdout.clone()
}
