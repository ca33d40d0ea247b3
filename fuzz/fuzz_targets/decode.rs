//! The decoder on any octets.
#![no_main]

#[path = "../exercise/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode::exercise(input));
