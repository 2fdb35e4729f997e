//! What knockgate says on a kernel that lacks what it needs: Debian 11's, which `cargo xtask kernels --kernel 5.10`
//! boots.

use std::fs;

use knockgate_tests::{
    gate_config::Gate,
    lab::Family,
    scenario::{Attach, Scenario},
};

/// Major and minor number of the first kernel with everything.
const FIRST: (u32, u32) = (5, 17);

#[test]
fn a_kernel_that_is_too_old_is_refused() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has it");
    let release = release.trim();
    let mut numbers = release.split('.').map_while(|number| number.parse().ok());
    let version = numbers.next().zip(numbers.next());
    if version.is_none_or(|version| version >= FIRST) {
        eprintln!(
            "skipped; missing here: a kernel before 5.17; `cargo xtask kernels --kernel 5.10` boots one"
        );
        return;
    }
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        scenario.configure(Gate::ssh());
        for command in ["up", "run"] {
            scenario
                .knockgate(command)
                .exits(1)
                .prints_nothing()
                .says(&[
                    &format!("this kernel ({release}) is too old"),
                    "directories of the BPF file system that change places",
                    "came with Linux 5.17",
                ]);
        }
        scenario.lab.assert_untouched();
    });
}
