//! Captures made of others: merged by their stamps, each frame changed or left out.
//!
//! In: captures. Out: one.
//! Cost: a frame at a time.
//! Invariants: stamps stay.

use std::io;
use std::path::{Path, PathBuf};

use vmprobe::capture::file::{FileSource, PcapWriter};
use vmprobe::capture::{Burst as _, Frame, Source as _, SourceState};
use vmprobe::time::Timestamp;

use super::offline::ETHERNET;

/// Writes what `change` makes of the whole frames of all captures; `None` leaves a frame out.
///
/// # Errors
/// What the file system says.
pub fn relay(
    from: &[PathBuf],
    to: &Path,
    mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> io::Result<()> {
    let mut out = PcapWriter::create(to, ETHERNET, true)?;
    each_frame(from, |at, frame| {
        let Some(changed) = change(frame) else { return Ok(()) };
        out.write(at, u32::try_from(changed.len()).unwrap_or(u32::MAX), &changed)
    })?;
    out.finish()
}

/// Gives the frames of all captures, in the order of their stamps.
///
/// # Errors
/// What the file system says, and what `take` does.
pub(super) fn each_frame<P: AsRef<Path>>(
    from: &[P],
    mut take: impl FnMut(Timestamp, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut source = FileSource::open(from, 32).map_err(|error| bad(&error.to_string()))?;
    each_frame_of(&mut source, |frame| take(frame.timestamp, frame.bytes))
}

/// The same of captures that are open, with all that is known of a frame.
///
/// # Errors
/// What the file system says, and what `take` does.
pub fn each_frame_of(
    source: &mut FileSource,
    mut take: impl FnMut(&Frame<'_>) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let (burst, state) = source.poll();
        if state == SourceState::Ended {
            break;
        }
        for place in 0..burst.len() {
            take(&burst.frame(place))?;
        }
    }
    source.errors().first().map_or(Ok(()), |error| Err(bad(&error.to_string())))
}

/// An error of what a file holds.
pub(super) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
