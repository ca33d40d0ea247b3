//! Any octets as what other systems say to the inventory.
#![no_main]

#[path = "../exercise/sources.rs"]
mod sources;

libfuzzer_sys::fuzz_target!(|input: &[u8]| sources::exercise(input));
