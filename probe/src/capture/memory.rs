//! Packets held in memory, for measurements that no file read may disturb.
//!
//! In: any source, read to its end. Out: [`Packets`], and a [`MemorySource`] that gives them
//! several times.
//! Cost: a poll copies nothing; a frame costs one load of its record and none of its octets.
//! Invariants: the octets of all packets stand in one buffer, in order, each on a multiple of 64
//! bytes in it; stamps of a later pass lie behind all stamps of the pass before, by the same
//! distance in every part of one capture.

use crate::capture::{Burst, Frame, LinkType, STAMP_MAX, Source, SourceState, StrippedVlan};
use crate::index::{PortIndex, WorkerIndex};
use crate::memory;
use crate::time::Timestamp;

/// Each frame begins on a multiple of this, so that equal frames touch equally many cache lines.
const ALIGN_BYTES: usize = 64;

/// Why packets cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// They need more memory than was allowed.
    #[error("the packets need more than {bytes_max} bytes of memory")]
    TooLarge {
        /// What was allowed.
        bytes_max: usize,
    },
}

/// All packets of a capture, or the part that one worker gets.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    octets: Vec<u8>,
    records: Vec<Record>,
    /// Of each packet, the largest stamp up to it.
    clocks: Vec<Timestamp>,
    /// Distance of two passes in nanoseconds.
    pass_ns: u64,
    /// Later passes are no further from the first, so that no stamp is too large.
    shift_ns_max: u64,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    timestamp: Timestamp,
    begin: usize,
    frame_octets: u32,
    wire_octets: u32,
    link: LinkType,
    port: PortIndex,
    stripped_vlan: Option<StrippedVlan>,
}

impl Packets {
    /// Reads `source` to its end. It stays with the caller, for its ports and errors.
    ///
    /// # Errors
    /// [`MemoryError::TooLarge`] as soon as more than `bytes_max` are needed.
    pub fn load<S: Source>(source: &mut S, bytes_max: usize) -> Result<Self, MemoryError> {
        let mut packets = Self::default();
        loop {
            let (burst, state) = source.poll();
            for place in 0..burst.len() {
                packets.push(&burst.frame(place));
                if packets.bytes() > bytes_max {
                    return Err(MemoryError::TooLarge { bytes_max });
                }
            }
            if state == SourceState::Ended {
                packets.pass_ns = packets.distance_ns();
                let last = packets.clocks.last().copied().unwrap_or_default();
                packets.shift_ns_max = STAMP_MAX.since_ns(last);
                return Ok(packets);
            }
        }
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Sum of the original lengths in octets, of one pass.
    pub fn octets(&self) -> u64 {
        self.records.iter().map(|record| u64::from(record.wire_octets)).sum()
    }

    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        let records_bytes = self.records.len() * size_of::<Record>();
        self.octets.len() + records_bytes + size_of_val(&*self.clocks)
    }

    /// Deals the packets out to `workers` parts, each in order and in a buffer of its own. A worker
    /// that `worker_of` names beyond the last counts as the last.
    #[must_use]
    pub fn split(
        &self,
        workers: u16,
        mut worker_of: impl FnMut(&Frame<'_>) -> WorkerIndex,
    ) -> Vec<Self> {
        let Self { pass_ns, shift_ns_max, .. } = *self;
        let empty = Self { pass_ns, shift_ns_max, ..Self::default() };
        let mut parts = vec![empty; usize::from(workers.max(1))];
        let last = parts.len() - 1;
        for record in &self.records {
            let frame = record.frame(&self.octets, 0);
            parts[last.min(usize::from(worker_of(&frame).0))].push(&frame);
        }
        parts
    }

    /// Gives the packets `passes` times, at most `burst_packets` (at least 1) a poll.
    pub fn source(self, burst_packets: usize, passes: u32) -> MemorySource {
        MemorySource {
            packets: self,
            burst_packets: burst_packets.max(1),
            passes,
            pass: 0,
            place: 0,
            clock: Timestamp::ZERO,
        }
    }

    fn push(&mut self, frame: &Frame<'_>) {
        let begin = self.octets.len().next_multiple_of(ALIGN_BYTES);
        self.octets.resize(begin, 0);
        self.octets.extend_from_slice(frame.bytes);
        let timestamp = frame.timestamp.min(STAMP_MAX);
        self.clocks.push(self.clocks.last().map_or(timestamp, |clock| timestamp.max(*clock)));
        self.records.push(Record {
            timestamp,
            begin,
            // A frame in memory is shorter than 4 GiB: its length on the wire has 32 bits.
            frame_octets: u32::try_from(frame.bytes.len()).unwrap_or(frame.wire_octets),
            wire_octets: frame.wire_octets,
            link: frame.link,
            port: frame.port,
            stripped_vlan: frame.stripped_vlan,
        });
    }

    /// From the first to the last stamp, and once more the mean gap, at least 1 ns.
    fn distance_ns(&self) -> u64 {
        let stamps = || self.records.iter().map(|record| record.timestamp);
        let (Some(first), Some(last)) = (stamps().min(), stamps().max()) else { return 1 };
        let gaps = (self.records.len() as u64).saturating_sub(1).max(1);
        let span_ns = last.since_ns(first);
        span_ns.saturating_add((span_ns / gaps).max(1))
    }
}

impl Record {
    /// The packet, in a pass that comes so much later than the first.
    #[inline]
    fn frame<'a>(&self, octets: &'a [u8], shift_ns: u64) -> Frame<'a> {
        Frame {
            bytes: &octets[self.begin..][..self.frame_octets as usize],
            wire_octets: self.wire_octets,
            timestamp: Timestamp(self.timestamp.0 + shift_ns),
            link: self.link,
            port: self.port,
            stripped_vlan: self.stripped_vlan,
        }
    }
}

/// Gives packets from memory, pass after pass.
#[derive(Debug)]
pub struct MemorySource {
    packets: Packets,
    burst_packets: usize,
    passes: u32,
    pass: u32,
    place: usize,
    clock: Timestamp,
}

impl Source for MemorySource {
    type Burst<'a> = MemoryBurst<'a>;

    fn is_live(&self) -> bool {
        false
    }

    /// The end is told with an empty burst; no burst spans two passes.
    #[inline]
    fn poll(&mut self) -> (MemoryBurst<'_>, SourceState) {
        if self.place == self.packets.len() {
            self.place = 0;
            self.pass = self.pass.saturating_add(1);
        }
        let Packets { octets, records, clocks, pass_ns, shift_ns_max } = &self.packets;
        if self.pass >= self.passes || records.is_empty() {
            self.pass = self.passes;
            return (MemoryBurst { records: &[], octets, shift_ns: 0 }, SourceState::Ended);
        }
        let end = records.len().min(self.place + self.burst_packets);
        let shift_ns = pass_ns.saturating_mul(u64::from(self.pass)).min(*shift_ns_max);
        let records = records.get(self.place..end).unwrap_or(&[]);
        self.place = end;
        // Those of the next burst, which a NIC's driver would have fetched by then.
        let next = end..end.saturating_add(records.len());
        for record in self.packets.records.get(next).unwrap_or_default() {
            memory::fetch(&record.begin);
        }
        let clock = clocks.get(end - 1).map_or(Timestamp::ZERO, |clock| *clock + shift_ns);
        self.clock = self.clock.max(clock);
        (MemoryBurst { records, octets, shift_ns }, SourceState::Open(self.clock))
    }
}

impl MemorySource {
    /// The packets back, for another source.
    pub fn into_packets(self) -> Packets {
        self.packets
    }
}

/// Packets in memory.
#[derive(Debug)]
pub struct MemoryBurst<'a> {
    records: &'a [Record],
    octets: &'a [u8],
    shift_ns: u64,
}

impl Burst for MemoryBurst<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.records.len()
    }

    #[inline]
    fn frame(&self, place: usize) -> Frame<'_> {
        self.records[place].frame(self.octets, self.shift_ns)
    }

    #[inline]
    fn fetch(&self, frames: usize) {
        for record in &self.records[..frames] {
            // Where a frame is shorter, the next one begins there.
            memory::fetch_at(self.octets, record.begin);
            memory::fetch_at(self.octets, record.begin + ALIGN_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::capture::file::{FileSource, PcapWriter};

    fn packets(stamps: &[u64]) -> Packets {
        let mut bytes = Vec::new();
        let mut writer = PcapWriter::new(&mut bytes, 1, true).expect("a vector takes all");
        for (number, stamp) in (0_u8..).zip(stamps) {
            writer.write(Timestamp(*stamp), 100, &[number; 70]).expect("a vector takes all");
        }
        writer.finish().expect("a vector takes all");
        let inputs = vec![("a".into(), Box::new(Cursor::new(bytes)) as Box<_>)];
        let mut source = FileSource::from_readers(inputs, 2).expect("memory can be read");
        Packets::load(&mut source, 1 << 20).expect("small")
    }

    fn given(mut source: MemorySource) -> Vec<(u64, u8)> {
        let mut seen = Vec::new();
        let mut clock = Timestamp::ZERO;
        loop {
            let (burst, state) = source.poll();
            for place in 0..burst.len() {
                let frame = burst.frame(place);
                assert_eq!((frame.bytes.len(), frame.wire_octets), (70, 100));
                clock = clock.max(frame.timestamp);
                seen.push((frame.timestamp.as_ns(), frame.bytes[0]));
            }
            match state {
                SourceState::Open(largest) => assert_eq!(largest, clock),
                SourceState::Quiet => unreachable!("files end"),
                SourceState::Ended => {
                    assert_eq!(source.poll().1, SourceState::Ended);
                    return seen;
                }
            }
        }
    }

    #[test]
    fn passes_follow_one_another_in_time() {
        let seen = given(packets(&[10, 12, 11, 16]).source(3, 3));
        let stamps: Vec<u64> = seen.iter().map(|(stamp, _)| *stamp).collect();
        // The span is 6, the mean gap 2.
        assert_eq!(stamps, [10, 12, 11, 16, 18, 20, 19, 24, 26, 28, 27, 32]);
        assert_eq!(seen[4..8].iter().map(|(_, first)| *first).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_single_packet_and_none_at_all() {
        assert_eq!(given(packets(&[5]).source(8, 2)), [(5, 0), (6, 0)]);
        assert_eq!(given(packets(&[]).source(8, 2)), []);
        assert_eq!(given(packets(&[5]).source(8, 0)), []);
    }

    #[test]
    fn parts_hold_everything_once_and_shift_alike() {
        let whole = packets(&[10, 20, 30, 40]);
        let parts = whole.split(3, |frame| WorkerIndex(u16::from(frame.bytes[0] % 2) * 9));
        assert_eq!(parts.iter().map(Packets::len).collect::<Vec<_>>(), [2, 0, 2]);
        assert_eq!(parts.iter().map(Packets::octets).sum::<u64>(), whole.octets());
        let mut parts = parts.into_iter();
        let first = parts.next().expect("three parts").source(8, 2);
        assert_eq!(given(first), [(10, 0), (30, 2), (50, 0), (70, 2)]);
        let last = parts.next_back().expect("three parts").source(8, 2);
        assert_eq!(given(last), [(20, 1), (40, 3), (60, 1), (80, 3)]);
    }

    #[test]
    fn memory_is_bounded() {
        let whole = packets(&[1, 2, 3]);
        let bytes_max = whole.bytes() - 1;
        let loaded = Packets::load(&mut whole.source(8, 1), bytes_max);
        assert_eq!(loaded.map(|packets| packets.len()), Err(MemoryError::TooLarge { bytes_max }));
    }

    #[test]
    fn frames_begin_on_cache_lines_of_the_buffer() {
        let whole = packets(&[1, 2, 3]);
        assert_eq!(
            whole.records.iter().map(|record| record.begin).collect::<Vec<_>>(),
            [0, 128, 256]
        );
    }
}
