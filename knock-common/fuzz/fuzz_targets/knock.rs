//! Any bytes as the choices behind a stream of authenticated knocks, which are sealed with keys: all are judged as the model
//! judges them.
#![no_main]

use knockgate_tests::oracle::guided;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|choices: &[u8]| {
    if let Some(found) = guided::knock(choices) {
        panic!("{found}");
    }
});
