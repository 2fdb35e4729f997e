//! Any bytes as the choices behind a configuration and a stream: both are judged as the model judges them.
#![no_main]

use knockgate_tests::oracle::guided;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|choices: &[u8]| {
    if let Some(found) = guided::decide(choices) {
        panic!("{found}");
    }
});
