//! `fuzz_targets::maglev_frame` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::maglev_frame(input));
