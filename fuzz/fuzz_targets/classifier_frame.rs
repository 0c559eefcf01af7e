//! `fuzz_targets::classifier_frame` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::classifier_frame(input));
