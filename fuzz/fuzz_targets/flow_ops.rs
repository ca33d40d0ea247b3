//! Any operations on the flow stage.
#![no_main]

#[path = "../exercise/flow_ops.rs"]
mod flow_ops;

libfuzzer_sys::fuzz_target!(|input: &[u8]| flow_ops::exercise(input));
