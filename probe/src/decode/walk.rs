//! The walk from the outside of a frame to its innermost IP packet.
//!
//! In: a [`Frame`]. Out: [`Walk`], which each protocol's `step` advances, and [`Next`], which
//! says what stands at the new place.
//! Cost: a slice and a few integers on the stack.
//! Invariants: `rest` never holds more octets than `limit`; a step takes octets or descends into
//! a tunnel, and both are bounded, so every walk ends.
//! Source: lengths, RFC 791 section 3.1 and RFC 8200 section 3; a capture that ends early is no
//! fault of the packet.

use super::{Headers, Marks, PAYLOAD_HEAD_OCTETS};
use crate::capture::Frame;
use crate::counters::DropCause;
use crate::decode::tap::PortTaps;
use crate::index::TapIndex;
use crate::inventory::SegmentKind;

/// What a step leaves for the next one.
pub(super) type Step = Result<Next, DropCause>;

/// What stands at the present place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An Ethernet header.
    Ethernet,
    /// What this EtherType says.
    EtherType(u16),
    /// An MPLS label stack.
    Mpls,
    /// An NSH header.
    Nsh,
    /// An IPv4 header.
    Ipv4,
    /// An IPv6 header.
    Ipv6,
    /// What this IP protocol number says.
    Protocol(u8),
    /// Nothing more: the flow is known.
    Flow,
}

/// Why a header may end before its format says, without being malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutBy {
    /// Nothing that the packet shows.
    Nothing,
    /// A mirror copies only the beginning.
    Mirror,
    /// The packet around it is a first fragment.
    Fragment,
}

/// VLAN tags since the last tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vlans {
    /// The second innermost VLAN id; 0 where there is none.
    pub(super) outer: u16,
    /// The innermost VLAN id; 0 where there is none.
    pub(super) inner: u16,
    /// Tags read since the last Ethernet header, priority tags included.
    pub(super) tags: u8,
}

impl Vlans {
    /// Adds an inner tag. Id 0 is a priority tag (IEEE 802.1Q section 9.6) and names nothing.
    #[inline]
    pub(super) fn push(&mut self, id: u16) {
        if id != 0 {
            self.outer = self.inner;
            self.inner = id;
        }
    }
}

/// Where the decoder stands in a frame, and what it has seen on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk<'a> {
    /// Captured octets from here on, at most `limit`.
    pub(super) rest: &'a [u8],
    /// Octets from here on by the enclosing lengths, captured or not.
    pub(super) limit: u32,
    /// Whether `limit` may be less than what the packet had.
    pub(super) cut_by: CutBy,
    /// Tunnels that may still be taken off.
    pub(super) depth_left: u8,
    /// IPv6 extension and authentication headers that may still be skipped.
    pub(super) extensions_left: u8,
    /// No tunnel and no VLAN tag has been seen: the next tag may name the tap.
    pub(super) outermost: bool,
    /// Kind of the innermost overlay tunnel, [`SegmentKind::None`] outside of all.
    pub(super) overlay: SegmentKind,
    /// VNI, VSID, key or label of the overlay tunnel.
    pub(super) overlay_id: u32,
    /// VLAN tags inside it.
    pub(super) vlans: Vlans,
    /// The innermost Ethernet header inside it.
    pub(super) ethernet: Option<&'a [u8; 14]>,
    /// The outermost VLAN id of the frame.
    pub(super) outermost_vlan: Option<u16>,
    /// What is configured for the port.
    pub(super) port: PortTaps,
    /// The tap, as far as known.
    pub(super) tap: TapIndex,
    /// Marks that outlast a tunnel.
    pub(super) marks: Marks,
    /// Marks of the present IP packet.
    pub(super) ip_marks: Marks,
    /// Options of the outermost GENEVE tunnel.
    pub(super) tap_options: &'a [u8],
    frame: &'a [u8],
}

impl<'a> Walk<'a> {
    /// Begins at the first octet of `frame`.
    #[inline]
    pub(super) fn new(frame: &Frame<'a>, port: PortTaps, depth_max: u8) -> Self {
        Self {
            rest: frame.bytes,
            limit: frame.wire_octets.max(octets(frame.bytes.len())),
            cut_by: CutBy::Nothing,
            depth_left: depth_max,
            extensions_left: super::ipv6::EXTENSIONS_MAX,
            outermost: true,
            overlay: SegmentKind::None,
            overlay_id: 0,
            vlans: Vlans::default(),
            ethernet: None,
            outermost_vlan: None,
            port,
            tap: port.tap,
            marks: Marks::default(),
            ip_marks: Marks::default(),
            tap_options: &[],
            frame: frame.bytes,
        }
    }

    /// Takes a header of `N` octets. Too few: [`DropCause::SnappedHeader`] where the capture
    /// ended before the packet did, else `malformed`.
    #[inline]
    pub(super) fn take<const N: usize>(
        &mut self,
        malformed: DropCause,
    ) -> Result<&'a [u8; N], DropCause> {
        let Some((header, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.short(octets(N), malformed));
        };
        self.rest = rest;
        self.limit = self.limit.saturating_sub(octets(N));
        Ok(header)
    }

    /// Takes a part whose length the packet says.
    #[inline]
    pub(super) fn skip(&mut self, count: u32, malformed: DropCause) -> Result<&'a [u8], DropCause> {
        let Some((part, rest)) = self.rest.split_at_checked(count as usize) else {
            return Err(self.short(count, malformed));
        };
        self.rest = rest;
        self.limit = self.limit.saturating_sub(count);
        Ok(part)
    }

    /// Looks at `N` octets that stand `at` octets from here, and takes nothing. `None` where the
    /// packet ends before them, [`DropCause::SnappedHeader`] where only the capture does.
    #[inline]
    pub(super) fn peek<const N: usize>(&self, at: u32) -> Result<Option<&'a [u8; N]>, DropCause> {
        if let Some(part) = self.rest.get(at as usize..).and_then(<[u8]>::first_chunk) {
            return Ok(Some(part));
        }
        let wanted = at.saturating_add(octets(N));
        if self.limit >= wanted { Err(DropCause::SnappedHeader) } else { Ok(None) }
    }

    /// Which cause it is that `wanted` octets are not there.
    #[cold]
    pub(super) fn short(&self, wanted: u32, malformed: DropCause) -> DropCause {
        if self.limit >= wanted || self.cut_by != CutBy::Nothing {
            DropCause::SnappedHeader
        } else {
            malformed
        }
    }

    /// Leaves out what stands behind `limit` octets (padding, trailers).
    #[inline]
    pub(super) fn narrow(&mut self, limit: u32) {
        self.limit = limit;
        self.rest = self.rest.get(..limit as usize).unwrap_or(self.rest);
    }

    /// Narrows to the payload of an IP header that has been taken. From here on the length is
    /// the IP header's own: what is missing was cut, and what is inside must fit.
    ///
    /// A packet longer than its frame is no fault of the sender's: switches mirror the first
    /// octets only, and the frame that arrives does not say so.
    #[inline]
    pub(super) fn enter_ip(&mut self, payload: u32) {
        if payload > self.limit && self.cut_by != CutBy::Fragment {
            self.ip_marks.set(Marks::MIRROR_TRUNCATED);
        }
        self.cut_by = CutBy::Nothing;
        self.narrow(payload);
        if self.rest.len() < payload as usize {
            self.ip_marks.set(Marks::SNAPPED);
        }
    }

    /// Goes into a tunnel that names no segment: what is around it stays.
    #[inline]
    pub(super) fn descend(&mut self) -> Result<(), DropCause> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(DropCause::TooDeep)?;
        if self.ip_marks.has(Marks::FRAGMENT) {
            self.cut_by = CutBy::Fragment;
        }
        self.ip_marks = Marks::default();
        self.outermost = false;
        Ok(())
    }

    /// Goes into an overlay tunnel: it names the segment, and what is around it is underlay.
    #[inline]
    pub(super) fn enter_overlay(&mut self, kind: SegmentKind, id: u32) -> Result<(), DropCause> {
        self.descend()?;
        self.overlay = kind;
        self.overlay_id = id;
        self.vlans = Vlans::default();
        self.ethernet = None;
        Ok(())
    }

    /// Goes into a mirror tunnel: it names the tap, if `tap` is known, and no segment.
    pub(super) fn enter_mirror(&mut self, tap: Option<TapIndex>) -> Result<(), DropCause> {
        self.descend()?;
        self.tap = tap.unwrap_or(self.tap);
        self.marks.set(Marks::MIRROR_TUNNEL);
        self.cut_by = CutBy::Mirror;
        self.vlans = Vlans::default();
        self.ethernet = None;
        Ok(())
    }

    /// Whether a tap may still claim a tunnel. Inside an overlay it is the tenant's own, and a
    /// tenant must not be able to name a tap.
    #[inline]
    pub(super) fn may_be_mirror(&self) -> bool {
        self.overlay as u8 == SegmentKind::None as u8
    }

    /// Octets of the frame before the present place.
    #[inline]
    pub(super) fn octets_before(&self) -> usize {
        self.rest.as_ptr().addr().wrapping_sub(self.frame.as_ptr().addr())
    }

    /// Writes where the payload is: all that is left.
    #[inline]
    pub(super) fn write_payload(&self, out: &mut Headers) {
        out.payload_octets = self.limit;
        out.payload_captured_octets = octets(self.rest.len());
        out.payload_offset = octets(self.octets_before());
        if let Some(head) = self.rest.first_chunk::<PAYLOAD_HEAD_OCTETS>() {
            out.payload_head = *head;
        } else {
            for (to, from) in out.payload_head.iter_mut().zip(self.rest) {
                *to = *from;
            }
        }
    }
}

/// A length in memory as octets on the wire; a frame is never longer than 4 GiB.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the branch before it saturates")]
pub(super) const fn octets(count: usize) -> u32 {
    if count > u32::MAX as usize { u32::MAX } else { count as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::frame_of;

    #[test]
    fn short_headers_are_snapped_within_the_length_and_malformed_beyond() {
        let bytes = [0; 10];
        let mut frame = frame_of(&bytes);
        let cause = DropCause::MalformedUdp;
        assert_eq!(walk(&frame).take::<12>(cause).err(), Some(cause));
        frame.wire_octets = 12;
        assert_eq!(walk(&frame).take::<12>(cause).err(), Some(DropCause::SnappedHeader));
        assert_eq!(walk(&frame).skip(13, cause).err(), Some(cause));
    }

    #[test]
    fn a_look_ahead_takes_nothing() {
        let bytes = [1, 2, 3, 4];
        let mut frame = frame_of(&bytes);
        frame.wire_octets = 6;
        let walk = walk(&frame);
        assert_eq!(walk.peek(2), Ok(Some(&[3, 4])));
        assert_eq!(walk.peek::<2>(3), Err(DropCause::SnappedHeader));
        assert_eq!(walk.peek::<2>(4), Err(DropCause::SnappedHeader));
        assert_eq!(walk.peek::<2>(5), Ok(None));
        assert_eq!(walk.peek::<2>(u32::MAX), Ok(None));
        assert_eq!((walk.rest.len(), walk.limit), (4, 6));
    }

    #[test]
    fn padding_is_left_out_and_missing_octets_are_marked() {
        let bytes = [0; 10];
        let mut frame = frame_of(&bytes);
        frame.wire_octets = 20;
        let mut padded = walk(&frame);
        padded.enter_ip(4);
        assert_eq!((padded.rest.len(), padded.limit), (4, 4));
        assert!(!padded.ip_marks.has(Marks::SNAPPED));
        let mut cut = walk(&frame);
        cut.enter_ip(15);
        assert!(cut.ip_marks.has(Marks::SNAPPED));
        assert!(!cut.ip_marks.has(Marks::MIRROR_TRUNCATED));
    }

    #[test]
    fn a_packet_longer_than_its_frame_was_cut_on_the_way() {
        let bytes = [0; 10];
        let frame = frame_of(&bytes);
        let mut mirrored = walk(&frame);
        mirrored.enter_ip(11);
        assert!(mirrored.ip_marks.has(Marks::MIRROR_TRUNCATED));
        assert!(mirrored.ip_marks.has(Marks::SNAPPED));
        assert_eq!((mirrored.limit, mirrored.rest.len()), (11, 10));
        let mut fragment = walk(&frame);
        fragment.cut_by = CutBy::Fragment;
        fragment.enter_ip(11);
        assert!(!fragment.ip_marks.has(Marks::MIRROR_TRUNCATED));
        assert!(fragment.ip_marks.has(Marks::SNAPPED));
    }

    #[test]
    fn a_header_that_ends_in_a_mirror_was_cut() {
        let bytes = [0; 10];
        let frame = frame_of(&bytes);
        let mut mirrored = walk(&frame);
        mirrored.enter_mirror(None).expect("depth");
        let cause = DropCause::MalformedLink;
        assert_eq!(mirrored.take::<14>(cause).err(), Some(DropCause::SnappedHeader));
        mirrored.enter_ip(10);
        assert_eq!(mirrored.take::<14>(cause).err(), Some(cause));
    }

    #[test]
    fn the_depth_is_bounded() {
        let bytes = [0; 10];
        let frame = frame_of(&bytes);
        let mut walk = walk(&frame);
        assert_eq!(walk.descend(), Ok(()));
        assert_eq!(walk.enter_overlay(SegmentKind::Vxlan, 1), Ok(()));
        assert_eq!(walk.enter_mirror(None), Err(DropCause::TooDeep));
    }

    fn walk<'a>(frame: &Frame<'a>) -> Walk<'a> {
        Walk::new(frame, PortTaps::default(), 2)
    }
}
