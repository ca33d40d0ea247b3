//! The link on captures: time is the stamps, so that nothing but the link makes a delay.
//!
//! In: a capture of frames as they enter the link, from both sides; a seed; impairments. Out: the
//! captures of the two taps, and the truth.
//! Cost: what is under way and the log; captures are read and written a frame at a time.
//! Invariants: stamps in the captures never go back, and are whole nanoseconds. Nobody answers to
//! what the link does: a segment that is lost here is not sent again unless the capture has it
//! again. Where the answer matters, take [`super::transfer`] or captures of a live link.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use vmprobe::capture::LinkType;
use vmprobe::capture::file::{FileSource, PcapWriter};
use vmprobe::time::Timestamp;

use super::engine::{FRAMES_MAX, Link, Outlet};
use super::impairments::{Direction, Impairments, Side};
use super::packet::parse;
use super::relay::{bad, each_frame_of};
use super::truth::Truth;

/// `LINKTYPE_ETHERNET`.
pub(super) const ETHERNET: u16 = 1;

/// The captures of both taps, being written.
#[derive(Debug)]
pub struct Captures {
    taps: [PcapWriter; 2],
    paths: [PathBuf; 2],
    failed: Option<io::Error>,
}

impl Captures {
    /// Makes `tap-a.pcap` and `tap-b.pcap` in a folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let [a, b] = ["tap-a.pcap", "tap-b.pcap"].map(|name| folder.join(name));
        let create = |path: &Path| PcapWriter::create(path, ETHERNET, true);
        Ok(Self { taps: [create(&a)?, create(&b)?], paths: [a, b], failed: None })
    }

    /// Writes what a tap shows. The first failure is kept for [`Captures::finish`].
    pub fn show(&mut self, tap: Side, at_ns: u64, frame: &[u8], wire_octets: u32) {
        let written = self.taps[tap.place()].write(Timestamp(at_ns), wire_octets, frame);
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }

    /// Ends both files; the answer is where they are.
    ///
    /// # Errors
    /// What the file system said first.
    pub fn finish(self) -> io::Result<[PathBuf; 2]> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        for tap in self.taps {
            tap.finish()?;
        }
        Ok(self.paths)
    }
}

impl Outlet for Captures {
    fn show(&mut self, tap: Side, at_ns: u64, frame: &[u8], wire_octets: u32) {
        Self::show(self, tap, at_ns, frame, wire_octets);
    }

    fn deliver(&mut self, _: Side, _: u64, _: Vec<u8>) {}
}

/// Sends the frames of a capture over a link. Whoever sends first of two addresses stands at side A;
/// what is no IP goes from A to B. Writes `tap-a.pcap`, `tap-b.pcap` and the truth into `folder`.
///
/// # Errors
/// What the file system says, and `InvalidData` for a capture that is torn, is not Ethernet, or has
/// more than [`FRAMES_MAX`] frames.
pub fn impair_capture(
    capture: &Path,
    seed: u64,
    impairments: Impairments,
    folder: &Path,
) -> io::Result<([PathBuf; 2], Truth)> {
    let mut source = FileSource::open(&[capture], 32).map_err(|error| bad(&error.to_string()))?;
    let mut out = Captures::create(folder)?;
    let mut link = Link::new(seed, impairments);
    let mut sides = Sides::default();
    // Frames may be a little out of order in a capture; they enter in the order of the file.
    let mut clock_ns = 0;
    each_frame_of(&mut source, |frame| {
        if frame.link != LinkType::Ethernet || link.frames() == FRAMES_MAX {
            return Err(bad("not Ethernet, or too long"));
        }
        clock_ns = frame.timestamp.as_ns().max(clock_ns);
        let direction = sides.direction(frame.bytes);
        link.enter(direction, clock_ns, frame.bytes.to_vec(), frame.wire_octets, &mut out);
        Ok(())
    })?;
    let truth = link.end(&mut out);
    let paths = out.finish()?;
    truth.write(folder)?;
    Ok((paths, truth))
}

/// Who stands where.
#[derive(Debug, Default)]
struct Sides(HashMap<(IpAddr, IpAddr), IpAddr>);

impl Sides {
    fn direction(&mut self, frame: &[u8]) -> Direction {
        let Some(headers) = parse(frame) else { return Direction::AToB };
        let (source, destination) = (headers.source, headers.destination);
        let pair = (source.min(destination), source.max(destination));
        let at_a = *self.0.entry(pair).or_insert(source);
        if at_a == source { Direction::AToB } else { Direction::BToA }
    }
}
