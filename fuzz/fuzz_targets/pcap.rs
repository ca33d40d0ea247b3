//! Capture files: whatever the bytes are, reading ends, without a panic, and every frame keeps
//! its promises.
#![no_main]

libfuzzer_sys::fuzz_target!(|capture: &[u8]| {
    vmprobe::capture::file::exercise(capture);
});
