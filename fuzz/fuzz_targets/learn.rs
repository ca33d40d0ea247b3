//! Any octets as packets that show who has which address.
#![no_main]

#[path = "../exercise/learn.rs"]
mod learn;

libfuzzer_sys::fuzz_target!(|input: &[u8]| learn::exercise(input));
