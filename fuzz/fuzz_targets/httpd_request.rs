//! `fuzz_targets::httpd_request` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz_targets::httpd_request(input));
