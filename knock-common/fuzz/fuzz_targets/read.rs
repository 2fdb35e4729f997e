//! Any bytes as a frame: what is read of it is what the model reads.
#![no_main]

use knockgate_tests::oracle::guided;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    if let Some(found) = guided::read(frame) {
        panic!("{found}");
    }
});
