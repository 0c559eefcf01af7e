//! `fuzz_targets::netstack_frames` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::netstack_frames(input));
