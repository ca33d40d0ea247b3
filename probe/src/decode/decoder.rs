//! One worker's decoder: from a frame to its innermost IP packet.
//!
//! In: a [`Frame`], the snapshot of segments. Out: [`Headers`] in the caller's place, or the
//! cause of rejection.
//! Cost: one pass; the common shape is read in brief (`brief`) or in one go (`plain`; behind tags and in
//! tunnels `enclosed`), the rest step by step.
//! Invariants: each turn of the loop takes octets or goes one tunnel deeper, so it ends; nothing
//! is allocated after `new`.
//! Source: ARCHITECTURE.md, "decode"; what is a stream in each tunnel follows tshark, except that
//! a port's tunnel must look like one (see `vxlan`, `geneve`).

use std::sync::Arc;

use super::brief::{Brief, FramePlace, Tunnel, Tunnelled};
use super::enclosed::Enclosed;
use super::plain::{Around, MirrorNote, Plain};
use super::tap::{MirrorTunnel, PortTaps, TapTable};
use super::udp::TunnelPorts;
use super::walk::{Next, Step, Walk, octets};
use super::{
    Headers, Mac, Marks, TapOptions, ethernet, ipv4, ipv6, loopback, mpls, nsh, sll, transport,
    vlan,
};
use crate::capture::{Frame, LinkType};
use crate::config::Plan;
use crate::counters::DropCause;
use crate::index::{PortIndex, TapIndex};
use crate::inventory::{Segment, SegmentKind, SegmentMap};
use crate::time::Timestamp;

/// Marks of what comes in ERSPAN with a sequence number.
const ERSPAN_MARKS: Marks = Marks(Marks::MIRROR_TUNNEL.0 | Marks::MIRROR_SEQUENCE.0);

/// What all decoders of a probe are made from.
#[derive(Clone, Debug, Default)]
pub struct DecodeContext {
    rules: Rules,
    map: Arc<SegmentMap>,
}

impl DecodeContext {
    /// From the configuration, and the names of the ports in order of their index.
    pub fn new<N: AsRef<str>>(plan: &Plan, ports: impl IntoIterator<Item = N>) -> Self {
        let mut map = SegmentMap::default();
        for space in &plan.spaces {
            for segment in &space.segments {
                map.join(*segment, space.space);
            }
        }
        Self { rules: Rules::new(plan, ports), map: Arc::new(map) }
    }

    /// With another map of segments.
    #[must_use]
    pub fn with_map(mut self, map: Arc<SegmentMap>) -> Self {
        self.map = map;
        self
    }

    /// The map of joined segments, to add the places of stations to.
    pub const fn map(&self) -> &Arc<SegmentMap> {
        &self.map
    }
}

/// What the configuration says of decoding.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) taps: TapTable,
    pub(super) tunnels: TunnelPorts,
    pub(super) nvgre: bool,
    pub(super) mpls_segments: bool,
    pub(super) gtp_segments: bool,
    pub(super) depth_max: u8,
}

impl Rules {
    fn new<N: AsRef<str>>(plan: &Plan, ports: impl IntoIterator<Item = N>) -> Self {
        Self {
            taps: TapTable::new(&plan.taps, ports),
            tunnels: if plan.inventory.learned.wants_dhcp() {
                TunnelPorts::new(&plan.decode).with_dhcp()
            } else {
                TunnelPorts::new(&plan.decode)
            },
            nvgre: plan.decode.nvgre,
            mpls_segments: plan.decode.mpls_segments,
            gtp_segments: plan.decode.gtp_segments,
            depth_max: plan.decode.depth_max,
        }
    }

    /// The tap that claims the tunnel at the present place as its mirror.
    #[inline]
    pub(super) fn claim(
        &self,
        walk: &Walk<'_>,
        out: &Headers,
        tunnel: MirrorTunnel,
    ) -> Option<TapIndex> {
        if !walk.port.by_tunnel || !walk.may_be_mirror() {
            return None;
        }
        let outer_source = out.source.to_ip(out.ip_version);
        self.taps.of_tunnel(walk.port.port, walk.outermost_vlan, tunnel, outer_source)
    }
}

/// A worker's decoder.
#[derive(Clone, Debug)]
pub struct Decoder {
    rules: Rules,
    map: Arc<SegmentMap>,
    /// By port: where untagged frames belong, if that is the same for all.
    places: Vec<Option<FramePlace>>,
}

impl Decoder {
    /// A decoder of its own for one worker.
    pub fn new(context: &DecodeContext) -> Self {
        let (rules, map) = (context.rules.clone(), Arc::clone(&context.map));
        let mut decoder = Self { rules, map, places: Vec::new() };
        decoder.find_places();
        decoder
    }

    fn find_places(&mut self) {
        self.places.clear();
        self.find_new_places();
    }

    fn find_new_places(&mut self) {
        let taps = &self.rules.taps;
        for port in &taps.ports()[self.places.len()..] {
            let segment = taps.segment(port.tap).of_untagged();
            let place = FramePlace { tap: port.tap, segment, space: self.map.space_of(segment) };
            self.places.push((!self.map.names_stations_of(port.tap)).then_some(place));
        }
    }

    /// Adds the next port, found while reading files.
    pub fn add_port(&mut self, name: &str) {
        self.rules.taps.add_port(name);
        self.find_new_places();
    }

    /// Exchanges the snapshot of segments; to be called between bursts.
    pub fn set_map(&mut self, map: Arc<SegmentMap>) {
        self.map = map;
        self.find_places();
    }

    /// Where untagged frames of a port belong, if that is the same for all.
    #[inline]
    pub fn place_of_untagged(&self, port: PortIndex) -> Option<&FramePlace> {
        self.places.get(usize::from(port.0))?.as_ref()
    }

    /// Writes what a settled flow needs of an untagged frame, which belongs to `place`, if it has the
    /// shape for that; `clock` is the largest receive time so far.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `Brief::write`")]
    pub fn brief(
        &self,
        (frame, clock): (&Frame<'_>, Timestamp),
        place: &FramePlace,
        out: &mut Brief,
    ) -> Option<()> {
        Brief::write(frame, clock, place, &self.rules.tunnels, out)
    }

    /// The same behind a VLAN tag, or in a tunnel.
    #[inline]
    pub fn brief_of_enclosed(
        &self,
        frame: &Frame<'_>,
        clock: Timestamp,
        out: &mut Brief,
    ) -> Option<()> {
        if !matches!(frame.link, LinkType::Ethernet) || frame.stripped_vlan.is_some() {
            return None;
        }
        if self.brief_of_tunnelled((frame, clock), out).is_some() {
            return Some(());
        }
        self.brief_of_layers((frame, clock), out)
    }

    /// The same of a frame in the tunnel headers that nearly all have.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `Brief::write`")]
    fn brief_of_tunnelled(
        &self,
        (frame, clock): (&Frame<'_>, Timestamp),
        out: &mut Brief,
    ) -> Option<()> {
        let found =
            Tunnelled::of(frame, &self.rules.tunnels).filter(|_| self.rules.depth_max > 0)?;
        let (place, mirror) = self.place_of_tunnelled(self.rules.taps.port(frame.port), &found)?;
        let packet = (found.stations, found.head, Tunnelled::IP_AT);
        Brief::write_packet((frame, clock), &place, &self.rules.tunnels, packet, out)?;
        out.set_mirror(mirror);
        Some(())
    }

    /// Where such a frame belongs, and what its mirror says; `None` where its stations name the segment.
    #[inline]
    fn place_of_tunnelled(
        &self,
        port: PortTaps,
        found: &Tunnelled<'_>,
    ) -> Option<(FramePlace, MirrorNote)> {
        let claimed_by = if port.by_tunnel { self.claimed_by(port, found) } else { None };
        let tap = claimed_by.unwrap_or(port.tap);
        let of_tap = self.rules.taps.segment(tap);
        let (segment, mirror) = match found.tunnel {
            Tunnel::Vxlan(vni) if claimed_by.is_none() => {
                (Segment::new(of_tap.domain, SegmentKind::Vxlan, vni), MirrorNote::default())
            }
            _ if self.map.names_stations_of(tap) => return None,
            Tunnel::Vxlan(_) => {
                (of_tap.of_untagged(), MirrorNote { marks: Marks::MIRROR_TUNNEL, sequence: 0 })
            }
            Tunnel::Erspan { sequence, .. } => {
                (of_tap.of_untagged(), MirrorNote { marks: ERSPAN_MARKS, sequence })
            }
        };
        Some((FramePlace { tap, segment, space: self.map.space_of(segment) }, mirror))
    }

    /// The tap that claims its tunnel as a mirror. Apart, for it goes through all taps.
    #[inline(never)]
    fn claimed_by(&self, port: PortTaps, found: &Tunnelled<'_>) -> Option<TapIndex> {
        let tunnel = match found.tunnel {
            Tunnel::Vxlan(vni) => MirrorTunnel::Vxlan(vni),
            Tunnel::Erspan { session, .. } => MirrorTunnel::Erspan(Some(session)),
        };
        self.rules.taps.of_tunnel(port.port, None, tunnel, found.outer_source.into())
    }

    /// The brief of a frame behind a tag or in any tunnel, one layer after the other.
    #[inline(never)]
    fn brief_of_layers(
        &self,
        (frame, clock): (&Frame<'_>, Timestamp),
        out: &mut Brief,
    ) -> Option<()> {
        let limit = frame.wire_octets.max(octets(frame.bytes.len()));
        let outer = Plain::of(frame.bytes, limit)?;
        let Enclosed { plain, tap, segment, mirror, before } =
            self.enclosed(self.rules.taps.port(frame.port), outer)?;
        let (head, at) = plain.whole()?;
        let place = FramePlace { tap, segment, space: self.map.space_of(segment) };
        let packet = (plain.ethernet.first_chunk()?, head, u16::try_from(before + at).ok()?);
        Brief::write_packet((frame, clock), &place, &self.rules.tunnels, packet, out)?;
        out.set_mirror(mirror);
        Some(())
    }

    /// The segment of a frame of a tap, outside of overlays and with at most one tag, whose id is `vlan`.
    #[inline]
    pub(super) fn segment_of_plain(&self, tap: TapIndex, vlan: u16) -> Segment {
        let tap = self.rules.taps.segment(tap);
        match vlan {
            0 => tap.of_untagged(),
            id => Segment::new(tap.domain, SegmentKind::Vlan, u32::from(id)),
        }
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn map(&self) -> &SegmentMap {
        &self.map
    }

    /// The taps as this decoder knows them.
    pub const fn taps(&self) -> &TapTable {
        &self.rules.taps
    }

    /// Reads `frame` into `out`; `clock` is the largest receive time so far.
    ///
    /// # Errors
    /// The one cause for which the packet is rejected. What `out` then holds is as far as the
    /// decoder came: tap, segment, MAC addresses and the place of what it did not read are
    /// valid, the IP fields are not.
    #[inline]
    pub fn decode(
        &self,
        frame: &Frame<'_>,
        clock: Timestamp,
        out: &mut Headers,
    ) -> Result<(), DropCause> {
        let port = self.rules.taps.port(frame.port);
        if self.plain(frame, clock, port, out) {
            return Ok(());
        }
        *out = Headers { timestamp: frame.timestamp, clock, ..Headers::default() };
        self.step_by_step::<true>(frame, port, out)
    }

    /// What [`Decoder::decode`] must agree with: nothing is read in one go.
    #[cfg(test)]
    pub(super) fn decode_step_by_step(
        &self,
        frame: &Frame<'_>,
        clock: Timestamp,
        out: &mut Headers,
    ) -> Result<(), DropCause> {
        *out = Headers { timestamp: frame.timestamp, clock, ..Headers::default() };
        self.step_by_step::<false>(frame, self.rules.taps.port(frame.port), out)
    }

    /// The walk, for any shape; `INSIDE`: a common shape inside a tunnel is read in one go. Apart
    /// from the common shape, so that this one keeps the registers.
    #[inline(never)]
    fn step_by_step<const INSIDE: bool>(
        &self,
        frame: &Frame<'_>,
        port: PortTaps,
        out: &mut Headers,
    ) -> Result<(), DropCause> {
        let mut walk = Walk::new(frame, port, self.rules.depth_max);
        match self.walk::<INSIDE>(frame, &mut walk, out) {
            Ok(()) => self.finish(&walk, out),
            Err(cause) => Err(self.reject(&walk, out, cause)),
        }
    }

    /// Decodes a frame of the common shape; `false`, with nothing written, for any other.
    #[inline]
    fn plain(
        &self,
        frame: &Frame<'_>,
        clock: Timestamp,
        port: PortTaps,
        out: &mut Headers,
    ) -> bool {
        if !matches!(frame.link, LinkType::Ethernet) || frame.stripped_vlan.is_some() {
            return false;
        }
        let limit = frame.wire_octets.max(octets(frame.bytes.len()));
        let Some(plain) = Plain::of(frame.bytes, limit) else { return false };
        let is_placed =
            !(self.map.names_stations_of(port.tap) || plain.is_tagged() && port.by_vlan);
        if is_placed && let Some(transport) = plain.transport(&self.rules.tunnels) {
            let segment = self.segment_of_plain(port.tap, plain.vlan);
            let around = self.around(frame, clock, (port.tap, segment), MirrorNote::default(), 0);
            plain.write(&transport, &around, out);
            return true;
        }
        self.plain_enclosed(frame, clock, &plain, out)
    }

    /// The same for a frame of the common shape behind a tag or in a tunnel. Apart, so that the way of
    /// untunnelled frames keeps the registers.
    #[inline(never)]
    fn plain_enclosed(
        &self,
        frame: &Frame<'_>,
        clock: Timestamp,
        outer: &Plain<'_>,
        out: &mut Headers,
    ) -> bool {
        let port = self.rules.taps.port(frame.port);
        let Some(Enclosed { plain, tap, segment, mirror, before }) = self.enclosed(port, *outer)
        else {
            return false;
        };
        let Some(transport) = plain.transport(&self.rules.tunnels) else { return false };
        let around = self.around(frame, clock, (tap, segment), mirror, before);
        plain.write(&transport, &around, out);
        true
    }

    #[inline]
    fn around(
        &self,
        frame: &Frame<'_>,
        clock: Timestamp,
        (tap, segment): (TapIndex, Segment),
        mirror: MirrorNote,
        before: usize,
    ) -> Around {
        Around {
            timestamp: frame.timestamp,
            clock,
            tap,
            segment,
            space: self.map.space_of(segment),
            mirror,
            before,
        }
    }

    /// The same for a frame inside a tunnel.
    #[inline]
    fn plain_inside(&self, walk: &mut Walk<'_>, out: &mut Headers) -> bool {
        if walk.outermost {
            return false;
        }
        let Some(plain) = Plain::of(walk.rest, walk.limit) else { return false };
        let Some(transport) = plain.transport(&self.rules.tunnels) else { return false };
        // Tap, segment and space are written when the walk is over.
        let around = Around {
            timestamp: out.timestamp,
            clock: out.clock,
            tap: walk.tap,
            segment: Segment::NONE,
            space: out.space,
            // What the walk has seen of a mirror it notes itself.
            mirror: MirrorNote { sequence: out.mirror_sequence, ..MirrorNote::default() },
            before: walk.octets_before(),
        };
        plain.write(&transport, &around, out);
        walk.ip_marks = out.marks;
        walk.ethernet = Some(plain.ethernet);
        walk.vlans.push(plain.vlan);
        true
    }

    #[inline]
    fn walk<'a, const INSIDE: bool>(
        &self,
        frame: &Frame<'a>,
        walk: &mut Walk<'a>,
        out: &mut Headers,
    ) -> Result<(), DropCause> {
        let rules = &self.rules;
        let mut next = self.begin(frame, walk)?;
        loop {
            next = match next {
                Next::Ethernet if INSIDE && self.plain_inside(walk, out) => return Ok(()),
                Next::Ethernet => ethernet::step(walk)?,
                Next::EtherType(ether_type) => ethernet::dispatch(walk, rules, ether_type)?,
                Next::Ipv4 => ipv4::step(walk, out)?,
                Next::Ipv6 => ipv6::step(walk, out)?,
                Next::Protocol(number) => transport::step(walk, out, rules, number)?,
                Next::Mpls => mpls::step(walk, rules)?,
                Next::Nsh => nsh::step(walk)?,
                Next::Flow => return Ok(()),
            }
        }
    }

    #[inline]
    fn begin<'a>(&self, frame: &Frame<'a>, walk: &mut Walk<'a>) -> Step {
        if let Some(stripped) = frame.stripped_vlan {
            vlan::tagged(walk, &self.rules, stripped.outer_tci);
            if let Some(inner) = stripped.inner_tci {
                vlan::tagged(walk, &self.rules, inner);
            }
        }
        match frame.link {
            LinkType::Ethernet => Ok(Next::Ethernet),
            LinkType::RawIp => loopback::step_raw(walk),
            LinkType::LinuxSll => sll::step_v1(walk),
            LinkType::LinuxSll2 => sll::step_v2(walk),
            LinkType::Loopback => loopback::step(walk),
            LinkType::Unsupported(_) => Err(DropCause::UnsupportedLinkType),
        }
    }

    /// Names segment and address space, and writes what only the whole walk knows.
    #[inline]
    fn finish(&self, walk: &Walk<'_>, out: &mut Headers) -> Result<(), DropCause> {
        out.tap = walk.tap;
        out.marks = Marks(walk.marks.0 | walk.ip_marks.0);
        out.layer2_octets = out.octets;
        if let Some(header) = walk.ethernet {
            write_ethernet(header, out);
        }
        if let Some(options) = TapOptions::of(walk.tap_options) {
            out.set_tap_options(options);
        }
        out.segment = self.segment(walk, out)?;
        out.space = self.map.space_of(out.segment);
        Ok(())
    }

    #[inline]
    fn segment(&self, walk: &Walk<'_>, out: &mut Headers) -> Result<Segment, DropCause> {
        let tap = self.rules.taps.segment(walk.tap);
        let (outer, inner) = (walk.vlans.outer, walk.vlans.inner);
        if walk.overlay as u8 != SegmentKind::None as u8 {
            let tunnel = Segment::new(tap.domain, walk.overlay, walk.overlay_id);
            return tunnel.with_inner_vlans(outer, inner).ok_or(DropCause::UnsupportedTunnel);
        }
        if outer != 0 {
            return Ok(Segment::qinq(tap.domain, outer, inner));
        }
        if inner != 0 {
            return Ok(Segment::new(tap.domain, SegmentKind::Vlan, u32::from(inner)));
        }
        let untagged = Segment::new(tap.domain, SegmentKind::None, 0);
        if self.map.names_stations_of(walk.tap) {
            return Ok(self.segment_of_station(walk, out, tap.untagged.unwrap_or(untagged)));
        }
        Ok(tap.untagged.unwrap_or(untagged))
    }

    /// The mirror replaced the tenant's tag: who sent the frame, or who it is for, knows better.
    #[cold]
    fn segment_of_station(&self, walk: &Walk<'_>, out: &mut Headers, wire: Segment) -> Segment {
        let Mac(source) = out.source_mac;
        let Mac(destination) = out.destination_mac;
        let known = self.map.station(walk.tap, source);
        known.or_else(|| self.map.station(walk.tap, destination)).unwrap_or_else(|| {
            out.marks.set(Marks::SEGMENT_UNMAPPED);
            wire
        })
    }

    /// Leaves what is known of a rejected frame, for learning and for the ledger's detail.
    #[cold]
    fn reject(&self, walk: &Walk<'_>, out: &mut Headers, cause: DropCause) -> DropCause {
        walk.write_payload(out);
        match self.finish(walk, out) {
            Ok(()) | Err(_) => cause,
        }
    }
}

#[inline]
fn write_ethernet(header: &[u8; 14], out: &mut Headers) {
    let header = ethernet::Ethernet(header);
    out.source_mac = header.source();
    out.destination_mac = header.destination();
    out.layer2_octets = out.octets.saturating_add(14);
    out.marks.set(Marks::ETHERNET);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SpacePlan, TapMatch, TapPlan};
    use crate::decode::testing::{
        decode_with, decoder_of, ethernet, frame_of, ipv4, segment_text, tagged, tcp, udp, vxlan,
    };
    use crate::inventory::AddressSpace;

    fn inner() -> Vec<u8> {
        ethernet(&ipv4(6, &tcp(0x10, &[], b"payload")))
    }

    #[test]
    fn the_same_packet_in_six_segments_has_six_address_spaces() {
        let decoder = decoder_of(&Plan::default());
        let mut seen = std::collections::HashSet::new();
        for (frame, segment) in [
            (inner(), "default/none"),
            (vxlan(4242, &inner()), "default/vxlan/4242"),
            (vxlan(4711, &inner()), "default/vxlan/4711"),
            (tagged(&inner(), &[(0x8100, 42)]), "default/vlan/42"),
            (tagged(&inner(), &[(0x88a8, 10), (0x8100, 20)]), "default/qinq/10.20"),
            (tagged(&inner(), &[(0x88a8, 20), (0x8100, 10)]), "default/qinq/20.10"),
        ] {
            let headers = decode_with(&decoder, &frame_of(&frame)).expect("inner");
            assert_eq!(segment_text(&headers), segment);
            assert_eq!(headers.space, AddressSpace::of_segment(headers.segment));
            assert_eq!((headers.source_port, headers.octets), (40000, 47));
            assert!(seen.insert(headers.space.bits()));
        }
    }

    #[test]
    fn joined_segments_share_their_space_and_keep_their_name() {
        let segment = |text: &str| Segment::parse(text, &[]).expect("a segment");
        let spaces = vec![SpacePlan {
            name: "east".to_owned(),
            space: AddressSpace::named(0),
            segments: vec![segment("default/vxlan/1"), segment("default/vxlan/2")],
        }];
        let decoder = decoder_of(&Plan { spaces, ..Plan::default() });
        for (vni, joined) in [(1, true), (2, true), (3, false)] {
            let frame = vxlan(vni, &inner());
            let headers = decode_with(&decoder, &frame_of(&frame)).expect("inner");
            assert_eq!(headers.segment, Segment::new(0, SegmentKind::Vxlan, vni));
            assert_eq!(headers.space == AddressSpace::named(0), joined);
        }
    }

    #[test]
    fn stations_name_the_segment_that_a_mirror_replaced() {
        let matches = TapMatch { vlan: Some(100), ..TapMatch::default() };
        let tap = TapPlan {
            matches,
            segment: Segment::parse("default/vlan/1", &[]),
            ..TapPlan::default()
        };
        let context = DecodeContext::new(&Plan { taps: vec![tap], ..Plan::default() }, ["p"]);
        let mut decoder = Decoder::new(&context);
        let tenant = Segment::new(0, SegmentKind::Vlan, 7);
        let mirrored = tagged(&inner(), &[(0x8100, 100)]);
        for (mac, segment, unmapped) in [
            ([2, 0, 0, 0, 0, 1], tenant, false),
            ([2, 0, 0, 0, 0, 2], tenant, false),
            ([2, 0, 0, 0, 0, 3], Segment::new(0, SegmentKind::Vlan, 1), true),
        ] {
            let mut map = (**context.map()).clone();
            assert!(map.place(TapIndex(0), mac, tenant));
            decoder.set_map(Arc::new(map));
            let headers = decode_with(&decoder, &frame_of(&mirrored)).expect("inner");
            assert_eq!(headers.segment, segment, "{mac:?}");
            assert_eq!(headers.marks.has(Marks::SEGMENT_UNMAPPED), unmapped);
            let own = tagged(&inner(), &[(0x8100, 100), (0x8100, 9)]);
            let headers = decode_with(&decoder, &frame_of(&own)).expect("inner");
            assert_eq!(segment_text(&headers), "default/vlan/9", "the packet's own tag counts");
        }
    }

    #[test]
    fn times_and_unknown_ports_are_passed_on() {
        let decoder = decoder_of(&Plan::default());
        let bytes = ethernet(&ipv4(17, &udp(1, 2, &[])));
        let mut frame = frame_of(&bytes);
        frame.timestamp = Timestamp(7);
        frame.port = crate::index::PortIndex(9);
        let mut out = Headers { hash: 99, ..Headers::default() };
        assert_eq!(decoder.decode(&frame, Timestamp(8), &mut out), Ok(()));
        assert_eq!((out.timestamp, out.clock, out.hash), (Timestamp(7), Timestamp(8), 0));
        assert_eq!(out.tap, TapIndex(9));
    }
}
