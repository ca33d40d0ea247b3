//! Any octets as what applications say.
#![no_main]

#[path = "../exercise/apps.rs"]
mod apps;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    apps::exercise(input);
});
