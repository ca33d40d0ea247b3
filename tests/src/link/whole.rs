//! A tap that shows whole what leaves in pieces: above the segmentation of a network card (TSO).
//!
//! In: the capture of side A and the truth of a link without merging, duplicates and reordering. Out:
//! the capture as a tap above the segmentation has it.
//! Cost: the capture in memory.
//! Invariants: the truth's frames are the pieces, each of which the link treats by itself; what is shown
//! whole has the time of its first piece; a mirror loses it whole.
//! Source: Linux `skb_segment` and `tcp_gso_segment`: the pieces have the same options and
//! acknowledgement, and identifications that go on from the first one's.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;

use super::impairments::{Direction, Merge, Mirror, Side};
use super::merge::{Leaving, Merger, Part};
use super::offline::ETHERNET;
use super::packet::parse;
use super::relay::each_frame;
use super::truth::Truth;

/// Before the IP packet; the frames have no tags.
const ETHERNET_OCTETS: u64 = 14;

/// What the tap above the segmentation shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// The capture.
    pub capture: PathBuf,
    /// Frames of side A that are shown.
    pub frames: u64,
    /// IP octets of these.
    pub ip_octets: u64,
    /// Those of side A that its mirror lost.
    pub lost: u64,
    /// The longest one that is shown.
    pub frame_octets_max: usize,
}

/// Writes what a tap at side A shows of segments that are cut below it, into `folder`, and sets in the
/// truth which pieces it shows. `mirror` says which of the whole frames it loses.
///
/// # Errors
/// What the file system says, and `InvalidData` for a link that did more than delay and lose, or whose
/// tap did not show all.
pub fn shown_whole(
    capture: &Path,
    truth: &mut Truth,
    rule: Merge,
    mirror: &Mirror,
    folder: &Path,
) -> io::Result<Whole> {
    let total = truth.total();
    let did_more = total.merged + total.duplicates + total.reordered + total.mirror_lost_entry;
    if did_more > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the link did more than that"));
    }
    let [mut pieces, mut shown] = [Vec::new(), Vec::new()];
    each_frame(&[capture], |at, frame| {
        let of_a = parse(frame).is_some_and(|headers| is_at_a(truth, headers.source));
        if of_a { &mut pieces } else { &mut shown }.push((at, frame.to_vec()));
        Ok(())
    })?;
    let mut found = Whole { capture: folder.join("tap-a.pcap"), ..Whole::default() };
    for (number, leaving) in joined(truth, pieces, rule)?.into_iter().enumerate() {
        let is_lost = mirror.copies(truth.seed, Side::A, false, number as u64) == 0;
        for part in &leaving.parts {
            truth.frames[part.frame].shown.entry = u8::from(!is_lost);
        }
        if is_lost {
            found.lost += 1;
            continue;
        }
        found.frames += 1;
        found.ip_octets += leaving.octets.len() as u64 - ETHERNET_OCTETS;
        found.frame_octets_max = found.frame_octets_max.max(leaving.octets.len());
        let first_ns = truth.frames[leaving.parts[0].frame].entered_ns;
        shown.push((Timestamp(first_ns), leaving.octets));
    }
    shown.sort_by_key(|(at, _)| *at);
    let mut out = PcapWriter::create(&found.capture, ETHERNET, true)?;
    for (at, octets) in &shown {
        out.write(*at, u32::try_from(octets.len()).map_err(io::Error::other)?, octets)?;
    }
    out.finish()?;
    Ok(found)
}

/// Pieces that follow one another as one frame each, in the order of their first ones.
fn joined(
    truth: &Truth,
    pieces: Vec<(Timestamp, Vec<u8>)>,
    rule: Merge,
) -> io::Result<Vec<Leaving>> {
    let mut merger = Merger::new(rule);
    let mut whole = Vec::new();
    let frames = truth.frames.iter().enumerate();
    let mut sent = frames.filter(|(_, frame)| frame.direction == Direction::AToB);
    for (at, octets) in pieces {
        while let Some(leaving) = merger.overdue(at.as_ns()) {
            whole.push(leaving);
        }
        // Each was shown once, in the order in which they came.
        let (frame, _) = sent.next().ok_or(io::ErrorKind::InvalidData)?;
        let wire_octets = u32::try_from(octets.len()).map_err(io::Error::other)?;
        let parts = vec![Part { frame, is_second: false }];
        whole.extend(merger.offer(at.as_ns(), Leaving { octets, wire_octets, parts }));
    }
    while let Some(leaving) = merger.overdue(u64::MAX) {
        whole.push(leaving);
    }
    whole.sort_unstable_by_key(|leaving| leaving.parts[0].frame);
    Ok(whole)
}

/// Whether an address stands at side A.
fn is_at_a(truth: &Truth, address: IpAddr) -> bool {
    let first = truth.frames.iter().find(|frame| frame.source == Some(address));
    first.is_some_and(|frame| frame.direction == Direction::AToB)
}
