//! What DPDK prints while it starts or opens a device.
//!
//! In: a call into DPDK. Out: its result, and the text it wrote.
//! Invariants: nothing of it reaches standard output, where programs read JSON; both streams are
//! as before afterwards. Text is bounded; the rest is cut.

use std::fs::File;
use std::io::{Read, Seek};

use rustix::fs::MemfdFlags;
use rustix::io::dup;
use rustix::stdio;

/// Text kept of one call.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// Runs `call` with standard output and standard error caught. Where they cannot be caught, the
/// text is empty and DPDK prints to them.
pub(super) fn listen<T>(call: impl FnOnce() -> T) -> (T, String) {
    let Ok(catch) = Catch::begin() else { return (call(), String::new()) };
    let result = call();
    (result, catch.end())
}

/// The last lines that say something, without repetition, in one line.
pub(super) fn summary(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines().map(|line| line.trim().trim_start_matches("EAL: ")) {
        // What follows this word is DPDK's page of arguments.
        if line.starts_with("Usage:") {
            break;
        }
        let known = line.trim_start_matches("FATAL: ");
        if !line.is_empty() && !lines.iter().any(|seen| seen.trim_start_matches("FATAL: ") == known)
        {
            lines.push(line);
        }
    }
    let skipped = lines.len().saturating_sub(8);
    if lines.is_empty() { "nothing".to_owned() } else { lines.split_off(skipped).join("; ") }
}

/// The two streams, put aside.
struct Catch {
    file: File,
    output: rustix::fd::OwnedFd,
    error: rustix::fd::OwnedFd,
}

impl Catch {
    fn begin() -> rustix::io::Result<Self> {
        let file = rustix::fs::memfd_create("dpdk-console", MemfdFlags::CLOEXEC)?;
        flush();
        let catch =
            Self { output: dup(stdio::stdout())?, error: dup(stdio::stderr())?, file: file.into() };
        stdio::dup2_stdout(&catch.file)?;
        if let Err(error) = stdio::dup2_stderr(&catch.file) {
            stdio::dup2_stdout(&catch.output)?;
            return Err(error);
        }
        Ok(catch)
    }

    fn end(mut self) -> String {
        flush();
        // The descriptors were valid a moment ago; if this fails nobody could be told anyway.
        let _ = stdio::dup2_stdout(&self.output);
        let _ = stdio::dup2_stderr(&self.error);
        let mut text = Vec::new();
        if self.file.rewind().is_ok() {
            let _ = (&self.file).take(TEXT_BYTES_MAX).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// C's streams hold text back; it must not come out later, on the wrong side.
fn flush() {
    // SAFETY: takes no argument and flushes C's own streams, which have locks of their own.
    unsafe { dpdk_sys::vmprobe_flush() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_short_and_without_repetition() {
        let text = "EAL: FATAL: Cannot init config\nEAL: Cannot init config\n\nUsage: x\n -c\n";
        assert_eq!(summary(text), "FATAL: Cannot init config");
        assert_eq!(summary(" \n"), "nothing");
        let many = (0..20).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
        assert!(summary(&many).starts_with("line 12; ") && summary(&many).ends_with("line 19"));
    }
}
