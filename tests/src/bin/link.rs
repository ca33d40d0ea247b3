//! Runs a link with known truth between two network interfaces.
//!
//! In: a file of options, as its only argument. Out: see `vmprobe_tests::link::live`; exit code 0 only
//! if the truth is written and true.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [options] = arguments.as_slice() else {
        eprintln!("usage: vmprobe-link OPTIONS.json");
        return ExitCode::from(2);
    };
    match vmprobe_tests::link::live::run_with(Path::new(options)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmprobe-link: {error}");
            ExitCode::FAILURE
        }
    }
}
