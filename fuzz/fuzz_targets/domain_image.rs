//! `fuzz_targets::domain_image` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::domain_image(input));
