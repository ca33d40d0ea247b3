//! What is kept of the segments that one endpoint of a flow sent.
//!
//! In: segments, through [`super::TcpFlow`]. Out: numbers for the next one, round-trip times.
//! Cost: 64 bytes, one cache line; both endpoints of a flow take two.
//! Invariants: a time is only valid under its mark; times of a stamp that goes back give no sample.
//! Source: round-trip times and the timeout, RFC 6298; timestamps, RFC 7323 section 4.

use crate::index::TapIndex;
use crate::time::Timestamp;

use super::options::Timestamps;
use super::sequence::distance;

/// Facts in [`Half::marks`].
pub(super) mod mark {
    /// A segment was seen: `next` is valid.
    pub(crate) const SEEN: u16 = 1;
    /// It has acknowledged something: `acked` is valid.
    pub(crate) const ACKED: u16 = 1 << 1;
    /// `timed_end` waits for its acknowledgement since `timed_at`.
    pub(crate) const TIMED: u16 = 1 << 2;
    /// `stamp` waits for its echo since `stamp_at`.
    pub(crate) const STAMPED: u16 = 1 << 3;
    /// `stamp_last` is valid.
    pub(crate) const STAMP_SEEN: u16 = 1 << 4;
    /// The last payload was this endpoint's, whole, and waits for an answer since `next_at`.
    pub(crate) const ASKED: u16 = 1 << 5;
    /// `window` is that of a SYN, which is never scaled.
    pub(crate) const WINDOW_PLAIN: u16 = 1 << 6;
    /// It sent a SYN.
    pub(crate) const SYN: u16 = 1 << 7;
    /// It sent its SYN again.
    pub(crate) const SYN_AGAIN: u16 = 1 << 8;
    /// Its SYN acknowledged the other's: the responder.
    pub(crate) const RESPONDER: u16 = 1 << 9;
    /// It sent FIN.
    pub(crate) const FIN: u16 = 1 << 10;
    /// It sent RST.
    pub(crate) const RESET: u16 = 1 << 11;
    /// Its last window was 0.
    pub(crate) const CLOSED_WINDOW: u16 = 1 << 12;
    /// What it sent, or its window, has a [`Trouble`](super::super::trouble::Trouble).
    pub(crate) const TROUBLE: u16 = 1 << 13;
    /// Its last segment was a keep-alive or a window probe.
    pub(crate) const PROBED: u16 = 1 << 14;
    /// `next` was moved over octets that were never seen: what begins there is behind a gap.
    pub(crate) const UNSEEN: u16 = 1 << 15;
}

/// Bits of [`Half::scale_acks`] that are the scale of its windows.
const SCALE: u8 = (1 << ACKS_SHIFT) - 1;

/// The bits above them count acknowledgements.
const ACKS_SHIFT: u32 = 5;
const ACKS_MAX: u8 = u8::MAX >> ACKS_SHIFT;

/// The scale of a window is not known: no SYN was seen.
const SCALE_UNKNOWN: u8 = SCALE;

/// No window of the connection is scaled: a SYN lacked the option.
pub(super) const SCALE_REFUSED: u8 = SCALE - 1;

/// Bit of [`Half::leader`]: a segment had more payload than [`FRAME_PAYLOAD_OCTETS_MAX`].
const CUTTABLE: u8 = 1 << 7;

/// Payload of TCP that a frame of 1,500 octets of IP holds at most (RFC 9293 section 3.7.1). More is what
/// network cards cut or merge, or a frame of another size, which may be cut on the way.
pub(super) const FRAME_PAYLOAD_OCTETS_MAX: u32 = 1_460;

/// Segment size where neither the SYN nor the segments tell (RFC 9293 section 3.7.1).
const SEGMENT_OCTETS_DEFAULT: u32 = 536;

/// One endpoint's part of a flow.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Half {
    /// When `next` moved last.
    pub(super) next_at: Timestamp,
    /// When the octets below `timed_end` were sent.
    pub(super) timed_at: Timestamp,
    /// When `stamp` was seen first.
    pub(super) stamp_at: Timestamp,
    /// The sequence number behind the highest seen.
    pub(super) next: u32,
    /// The highest acknowledgement that it sent.
    pub(super) acked: u32,
    pub(super) timed_end: u32,
    /// TSval that waits for its echo.
    pub(super) stamp: u32,
    /// Highest TSval seen.
    pub(super) stamp_last: u32,
    /// Shortest time from here to this endpoint and back; 0: none yet.
    pub(super) rtt_least_us: u32,
    rtt_smoothed_us: u32,
    rtt_variation_us: u32,
    /// As in its last header.
    pub(super) window: u16,
    /// Largest segment that it may be sent, or sent.
    pub(super) segment_octets_max: u16,
    pub(super) marks: u16,
    /// Scale of its windows, and above it the acknowledgements repeated since the last new one.
    scale_acks: u8,
    /// Low bits of the tap that moved `next` last, which showed what it sent before all others; and
    /// [`CUTTABLE`].
    leader: u8,
}

const _: () = assert!(size_of::<Half>() == 64, "one cache line an endpoint");

impl Default for Half {
    fn default() -> Self {
        Self {
            next_at: Timestamp::ZERO,
            timed_at: Timestamp::ZERO,
            stamp_at: Timestamp::ZERO,
            next: 0,
            acked: 0,
            timed_end: 0,
            stamp: 0,
            stamp_last: 0,
            rtt_least_us: 0,
            rtt_smoothed_us: 0,
            rtt_variation_us: 0,
            window: 0,
            segment_octets_max: 0,
            marks: 0,
            scale_acks: SCALE_UNKNOWN,
            leader: 0,
        }
    }
}

impl Half {
    #[inline]
    pub(super) const fn has(&self, marks: u16) -> bool {
        self.marks & marks == marks
    }

    /// What follows the highest octet seen was seen at `tap`, up to `next`, in a segment with so much
    /// payload.
    #[inline]
    pub(super) const fn moves_to(
        &mut self,
        next: u32,
        (at, tap): (Timestamp, TapIndex),
        payload_octets: u32,
    ) {
        self.next = next;
        self.next_at = at;
        let is_large = payload_octets > FRAME_PAYLOAD_OCTETS_MAX;
        self.leader = low(tap) | self.leader & CUTTABLE | if is_large { CUTTABLE } else { 0 };
    }

    /// Whether another tap than `tap` moved `next` last, as far as its low bits tell.
    #[inline]
    pub(super) const fn is_led_by_another(&self, tap: TapIndex) -> bool {
        self.leader & !CUTTABLE != low(tap)
    }

    /// Whether a segment was larger than a frame of 1,500 octets holds, so that it may be shown in
    /// pieces elsewhere.
    pub(super) const fn is_cuttable(&self) -> bool {
        self.leader & CUTTABLE != 0
    }

    /// Acknowledgements repeated since the last new one; no more than [`ACKS_MAX`] are counted.
    #[inline]
    pub(super) const fn duplicate_acks(&self) -> u8 {
        self.scale_acks >> ACKS_SHIFT
    }

    pub(super) const fn repeats_ack(&mut self) {
        if self.duplicate_acks() < ACKS_MAX {
            self.scale_acks += 1 << ACKS_SHIFT;
        }
    }

    /// It acknowledged something new.
    #[inline]
    pub(super) const fn ends_repeated_acks(&mut self) {
        self.scale_acks &= SCALE;
    }

    pub(super) const fn window_scale(&self) -> u8 {
        self.scale_acks & SCALE
    }

    pub(super) const fn set_window_scale(&mut self, scale: u8) {
        self.scale_acks = self.scale_acks & !SCALE | scale & SCALE;
    }

    /// The sequence number behind the last that this endpoint allows the other to send; `None`
    /// where the scale is not known.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a part of `TcpFlow::take_plain`")]
    pub(super) const fn window_edge(&self) -> Option<u32> {
        let scale = self.window_scale();
        if scale == SCALE_UNKNOWN || !self.has(mark::ACKED) {
            return None;
        }
        let is_scaled = scale != SCALE_REFUSED && !self.has(mark::WINDOW_PLAIN);
        let shift = if is_scaled { scale & 15 } else { 0 };
        Some(self.acked.wrapping_add((self.window as u32) << shift))
    }

    /// Begins to wait for the acknowledgement of what was just sent, unless it waits already.
    #[inline]
    pub(super) const fn time(&mut self, at: Timestamp) {
        if self.marks & (mark::TIMED | mark::TROUBLE) == 0 {
            self.timed_end = self.next;
            self.timed_at = at;
            self.marks |= mark::TIMED;
        }
    }

    /// The acknowledgement came for what was timed: how long that took in ns.
    #[inline]
    pub(super) fn timed(&mut self, acknowledgement: u32, at: Timestamp) -> Option<u64> {
        if !self.has(mark::TIMED) || distance(self.timed_end, acknowledgement) < 0 {
            return None;
        }
        self.marks &= !mark::TIMED;
        at.as_ns().checked_sub(self.timed_at.as_ns())
    }

    /// Notes the clock value of a segment; one that asks for an answer (`asks`) and whose value
    /// is new begins to wait for its echo.
    #[inline]
    pub(super) const fn stamp(&mut self, times: Timestamps, asks: bool, at: Timestamp) {
        let is_new = !self.has(mark::STAMP_SEEN) || distance(self.stamp_last, times.value) > 0;
        if !is_new {
            return;
        }
        self.stamp_last = times.value;
        self.marks |= mark::STAMP_SEEN;
        if asks && !self.has(mark::STAMPED) {
            self.stamp = times.value;
            self.stamp_at = at;
            self.marks |= mark::STAMPED;
        }
    }

    /// The other side echoed `echo`: how long that took in ns, if it is the one waited for. A
    /// later one says that the echo waited for was never sent, or not seen.
    #[inline]
    pub(super) fn echoed(&mut self, echo: u32, at: Timestamp) -> Option<u64> {
        if !self.has(mark::STAMPED) || distance(self.stamp, echo) < 0 {
            return None;
        }
        self.marks &= !mark::STAMPED;
        if echo != self.stamp {
            return None;
        }
        at.as_ns().checked_sub(self.stamp_at.as_ns())
    }

    /// Takes a round-trip time from here to this endpoint in (RFC 6298 section 2).
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a part of `TcpFlow::take_plain`")]
    pub(super) fn round_trip(&mut self, ns: u64) {
        let us = (ns / 1000).clamp(1, u64::from(u32::MAX / 16));
        let us = u32::try_from(us).unwrap_or(u32::MAX / 16);
        if self.rtt_least_us == 0 {
            self.rtt_least_us = us;
            self.rtt_smoothed_us = us;
            self.rtt_variation_us = us / 2;
            return;
        }
        self.rtt_least_us = self.rtt_least_us.min(us);
        let off = self.rtt_smoothed_us.abs_diff(us);
        self.rtt_variation_us = (3 * self.rtt_variation_us + off) / 4;
        self.rtt_smoothed_us = (7 * self.rtt_smoothed_us + us) / 8;
    }

    /// Notes how large a segment of it was, where no SYN said how large they may be.
    #[inline]
    pub(super) fn takes_segment_octets(&mut self, payload_octets: u32) {
        let seen = u16::try_from(payload_octets).unwrap_or(u16::MAX);
        self.segment_octets_max = self.segment_octets_max.max(seen);
    }

    /// Octets of one full segment from this endpoint: what the other allowed, else what was seen.
    pub(super) fn segment_octets(&self) -> u32 {
        match self.segment_octets_max {
            0 => SEGMENT_OCTETS_DEFAULT,
            octets => u32::from(octets),
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is kept")]
const fn low(tap: TapIndex) -> u8 {
    tap.0 as u8 & !CUTTABLE
}

/// The whole way from one endpoint to the other and back, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTrip {
    /// Shortest in ns; `None` unless both parts are known.
    pub(super) least_ns: Option<u64>,
    /// When the sender's timer runs out after its last segment, at the earliest, in ns.
    pub(super) timeout_ns: u64,
}

/// Shortest timeout that a common stack uses: Linux `TCP_RTO_MIN` (RFC 6298 says 1 s).
const TIMEOUT_NS_MIN: u64 = 200_000_000;

impl RoundTrip {
    /// Both parts: from here to each endpoint.
    pub(super) fn of(one: &Half, other: &Half) -> Self {
        let parts = [one, other];
        let known = parts.iter().all(|half| half.rtt_least_us != 0);
        let least: u32 = parts.iter().map(|half| half.rtt_least_us).sum();
        let smoothed: u32 = parts.iter().map(|half| half.rtt_smoothed_us).sum();
        let variation: u32 = parts.iter().map(|half| half.rtt_variation_us).sum();
        let timeout_ns = 1000 * (u64::from(smoothed) + 4 * u64::from(variation));
        Self {
            least_ns: known.then_some(1000 * u64::from(least)),
            timeout_ns: timeout_ns.max(TIMEOUT_NS_MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_rfc_6298() {
        let (mut one, mut other) = (Half::default(), Half::default());
        assert_eq!(RoundTrip::of(&one, &other).least_ns, None);
        one.round_trip(100_000_000);
        other.round_trip(20_000_000);
        // 120 ms, variation 60 ms.
        let trip = RoundTrip::of(&one, &other);
        assert_eq!((trip.least_ns, trip.timeout_ns), (Some(120_000_000), 360_000_000));
        one.round_trip(180_000_000);
        // Variation 3/4 · 50 + 1/4 · 80 = 57.5, smoothed 7/8 · 100 + 1/8 · 180 = 110.
        assert_eq!((one.rtt_variation_us, one.rtt_smoothed_us), (57_500, 110_000));
        assert_eq!(RoundTrip::of(&one, &other).least_ns, Some(120_000_000));
    }

    #[test]
    fn hostile_times_do_not_overflow() {
        let mut half = Half::default();
        for ns in [u64::MAX, 0, u64::MAX, u64::MAX, 1] {
            half.round_trip(ns);
        }
        assert_eq!(half.rtt_least_us, 1);
        assert!(RoundTrip::of(&half, &half).timeout_ns >= TIMEOUT_NS_MIN);
    }

    #[test]
    fn an_echo_belongs_to_the_first_segment_with_its_value() {
        let times = |value| Timestamps { value, echo: 0 };
        let mut half = Half::default();
        half.stamp(times(10), true, Timestamp(100));
        half.stamp(times(11), true, Timestamp(110));
        assert_eq!(half.echoed(9, Timestamp(120)), None);
        assert_eq!(half.echoed(10, Timestamp(130)), Some(30));
        // 11 was seen first at 110, when another was waited for: no sample from a later segment.
        half.stamp(times(11), true, Timestamp(140));
        assert_eq!(half.echoed(11, Timestamp(150)), None);
        half.stamp(times(12), true, Timestamp(160));
        assert_eq!(half.echoed(13, Timestamp(170)), None, "the echo of 12 was not seen");
        half.stamp(times(14), false, Timestamp(180));
        assert_eq!(half.echoed(14, Timestamp(190)), None, "nothing asks for its answer");
    }
}
