//! What did not run, so that nobody takes it for passed.
//!
//! In: what is skipped and why. Out: a line on standard error, and one in the file that
//! `VMPROBE_SKIPS` names, which `scripts/test` prints at its end.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Names the file of skips.
const FILE: &str = "VMPROBE_SKIPS";

/// Says that a test, or a part of one, did not run, and why.
///
/// # Panics
/// If the file of skips cannot be written: a skip that nobody sees is a failure.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED {what}: {why}");
    if let Some(file) = std::env::var_os(FILE) {
        note(Path::new(&file), what, why);
    }
}

/// Says that a test did not run because `scripts/test` has not installed `tools`, which come with
/// the Debian `package`. Where it should have, it takes this for a failure.
///
/// # Panics
/// As [`skipped`].
pub fn missing(what: &str, tools: &[&str], package: &str) {
    skipped(what, &format!("not installed: {} (apt install {package})", tools.join(", ")));
}

/// Whether only quick tests are wanted (`VMPROBE_FAST=1`, from `scripts/test --fast`); then `what`
/// is skipped.
///
/// # Panics
/// As [`skipped`].
pub fn too_long(what: &str) -> bool {
    let fast = std::env::var_os("VMPROBE_FAST").is_some_and(|value| value == "1");
    if fast {
        skipped(what, "--fast leaves it out");
    }
    fast
}

/// Appends one line in one write, so that lines of several processes do not mix.
fn note(file: &Path, what: &str, why: &str) {
    let line = format!("{what}: {why}").replace('\n', " ") + "\n";
    let file = OpenOptions::new().create(true).append(true).open(file);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.expect("the file of skips takes lines");
}
