//! Any text as configuration and inventory.
#![no_main]

#[path = "../exercise/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|text: &str| config::exercise(text));
