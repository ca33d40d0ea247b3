//! A selected packet while it is followed.
//!
//! In: headers of its sightings. Out: a [`Trajectory`].
//! Cost: two cache lines; a look-up touches the first only.
//! Invariants: at most [`SIGHTS_MAX`] taps; sightings are within [`SPAN_NS`] of the first.

use crate::decode::{Address, Headers, Marks, protocol, tcp_flag};
use crate::index::{Sender, TapIndex, WindowNumber};
use crate::inventory::{AddressSpace, SegmentKind};
use crate::time::Timestamp;

use super::{Ends, Evidence, SIGHTS_MAX, Sight, Trajectory};

/// Times of one packet lie within this of each other: what 31 bits of nanoseconds hold.
pub(super) const SPAN_NS: u64 = i32::MAX as u64;

/// Stands for no slot, and for no tap.
pub(super) const NONE: u32 = u32::MAX;
const NO_TAP: u16 = u16::MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Free,
    /// More sightings, or evidence, may come.
    Open,
    /// It was given out; remembered until the place is needed.
    Over,
}

/// What a look-up reads.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) digest: u64,
    /// Clock up to which sightings and evidence count.
    pub(super) deadline: Timestamp,
    first: Timestamp,
    after_ns: [i32; SIGHTS_MAX - 1],
    taps: [u16; SIGHTS_MAX],
    ttls: [u8; SIGHTS_MAX],
    count: u8,
    pub(super) state: State,
    pub(super) evidence: Evidence,
    pub(super) sender: Sender,
    /// Neighbours among the packets of its flow that wait for evidence, from the oldest on.
    pub(super) next: u32,
    pub(super) previous: u32,
}

/// What else is known of it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Facts {
    source: Address,
    destination: Address,
    space: AddressSpace,
    /// Its range of sequence numbers; empty without payload, SYN and FIN.
    pub(super) range: Range,
    /// Octets of the range that other taps showed in frames cut otherwise; saturates.
    pub(super) recut_octets: u32,
    /// Place of its flow among the watched ones; [`NONE`]: not watched.
    pub(super) watch: u32,
    /// IP octets; longer ones do not exist but for jumbograms, which saturate.
    octets: u16,
    recut_tap: u16,
    protocol: u8,
    ip_version: u8,
    /// Whether some of its range was sent before.
    pub(super) repeats: bool,
    /// Sightings without a segment, as bits by their place.
    untagged: u8,
}

const _: () = assert!(size_of::<Entry>() == 64 && size_of::<Facts>() == 64, "a line each");

/// Sequence numbers, which go round at 2³².
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) begin: u32,
    pub(super) end: u32,
}

impl Range {
    /// Of a TCP segment; empty for all else and for fragments, whose octets are not all there.
    #[inline]
    pub(super) const fn of(headers: &Headers) -> Self {
        let begin = headers.tcp_sequence;
        if headers.protocol != protocol::TCP || headers.marks.has(Marks::FRAGMENT) {
            return Self { begin, end: begin };
        }
        let flags = headers.tcp_flags;
        let controls = (flags & tcp_flag::SYN != 0) as u32 + (flags & tcp_flag::FIN != 0) as u32;
        Self { begin, end: begin.wrapping_add(headers.payload_octets).wrapping_add(controls) }
    }

    pub(super) const fn octets(self) -> u32 {
        self.end.wrapping_sub(self.begin)
    }

    /// Octets of it that are in another as well.
    pub(super) fn shared(self, other: Self) -> u32 {
        let ahead = other.begin.wrapping_sub(self.begin).cast_signed();
        let (begin, room) = if ahead >= 0 {
            (ahead.unsigned_abs(), other.octets())
        } else {
            (0, other.octets().saturating_sub(ahead.unsigned_abs()))
        };
        self.octets().saturating_sub(begin).min(room)
    }
}

/// Whether the sequence number `number` is at `limit` or behind it.
#[inline]
pub(super) const fn reaches(number: u32, limit: u32) -> bool {
    number.wrapping_sub(limit).cast_signed() >= 0
}

impl Entry {
    pub(super) const fn begin(headers: &Headers, digest: u64, deadline: Timestamp) -> Self {
        let mut taps = [NO_TAP; SIGHTS_MAX];
        taps[0] = headers.tap.0;
        let mut ttls = [0; SIGHTS_MAX];
        ttls[0] = headers.ttl;
        Self {
            digest,
            deadline,
            first: headers.timestamp,
            after_ns: [0; SIGHTS_MAX - 1],
            taps,
            ttls,
            count: 1,
            state: State::Open,
            evidence: Evidence::None,
            sender: headers.sender,
            next: NONE,
            previous: NONE,
        }
    }

    pub(super) fn is_seen_at(&self, tap: TapIndex) -> bool {
        self.taps.contains(&tap.0)
    }

    /// Whether it can be looked for at further taps.
    pub(super) const fn has_room(&self) -> bool {
        (self.count as usize) < SIGHTS_MAX
    }

    /// Whether a sighting at this time can be of the same packet.
    pub(super) const fn is_near(&self, at: Timestamp) -> bool {
        at.0.abs_diff(self.first.0) <= SPAN_NS
    }

    /// Seen at another tap; there is room, and it is near.
    pub(super) fn add(&mut self, headers: &Headers) {
        let after_ns = headers.timestamp.0.cast_signed().wrapping_sub(self.first.0.cast_signed());
        let place = usize::from(self.count);
        if let (Some(after), Some(tap), Some(ttl)) =
            (self.after_ns.get_mut(place - 1), self.taps.get_mut(place), self.ttls.get_mut(place))
        {
            *after = i32::try_from(after_ns).unwrap_or(0);
            (*tap, *ttl) = (headers.tap.0, headers.ttl);
            self.count += 1;
        }
    }

    /// How it went.
    pub(super) fn trajectory(&self, facts: &Facts) -> Trajectory {
        let mut sights = [Sight::default(); SIGHTS_MAX];
        for (place, sight) in sights.iter_mut().enumerate().take(usize::from(self.count)) {
            let after_ns = place.checked_sub(1).map_or(0, |place| self.after_ns[place]);
            *sight = Sight {
                tap: TapIndex(self.taps[place]),
                at: Timestamp(self.first.0.saturating_add_signed(after_ns.into())),
                ttl: self.ttls[place],
                is_untagged: facts.untagged & (1 << place) != 0,
            };
        }
        Trajectory {
            ends: Ends {
                space: facts.space,
                source: facts.source,
                destination: facts.destination,
                protocol: facts.protocol,
                ip_version: facts.ip_version,
            },
            digest: self.digest,
            window: WindowNumber::default(),
            octets: facts.octets.into(),
            evidence: self.evidence,
            recut: (facts.recut_tap != NO_TAP).then_some(TapIndex(facts.recut_tap)),
            sights,
            count: self.count,
        }
    }
}

impl Facts {
    pub(super) fn of(headers: &Headers) -> Self {
        Self {
            source: headers.source,
            destination: headers.destination,
            space: headers.space,
            range: Range::of(headers),
            recut_octets: 0,
            octets: if headers.octets > 0xffff { u16::MAX } else { low(headers.octets) },
            watch: NONE,
            recut_tap: NO_TAP,
            protocol: headers.protocol,
            ip_version: headers.ip_version,
            repeats: false,
            untagged: u8::from(untagged(headers)),
        }
    }

    /// Notes what the sighting that is about to be added to `entry` shows.
    pub(super) fn add(&mut self, headers: &Headers, entry: &Entry) {
        self.untagged |= u8::from(untagged(headers)) << entry.count;
    }

    /// The range was shown at a tap in frames cut otherwise.
    pub(super) const fn is_recut_at(&mut self, tap: TapIndex) {
        self.recut_tap = tap.0;
    }
}

fn untagged(headers: &Headers) -> bool {
    headers.segment.kind() == SegmentKind::None
}

#[expect(clippy::cast_possible_truncation, reason = "it is small enough")]
const fn low(octets: u32) -> u16 {
    octets as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_go_round() {
        let range = |begin: u32, octets: u32| Range { begin, end: begin.wrapping_add(octets) };
        for (one, other, shared) in [
            (range(10, 10), range(10, 10), 10),
            (range(10, 10), range(15, 10), 5),
            (range(10, 10), range(5, 10), 5),
            (range(10, 10), range(0, 100), 10),
            (range(10, 10), range(12, 3), 3),
            (range(10, 10), range(20, 5), 0),
            (range(10, 10), range(0, 10), 0),
            (range(u32::MAX - 4, 10), range(0, 100), 5),
            (range(0, 10), range(u32::MAX, 3), 2),
        ] {
            assert_eq!(one.shared(other), shared, "{one:?} {other:?}");
        }
        assert!(reaches(3, u32::MAX) && !reaches(u32::MAX, 3) && reaches(7, 7));
    }
}
