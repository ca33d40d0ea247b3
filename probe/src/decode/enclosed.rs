//! The common shape behind a tag or in tunnels, in one go: behind one VLAN tag, the tenant's or that of an
//! RSPAN mirror; in VXLAN; in GRE, NVGRE or ERSPAN; and in VXLAN that such a mirror copied.
//!
//! In: the outermost headers of a frame, which are of the common shape. Out: the innermost, with their
//! tap, their segment and what the mirror says; or nothing where the walk has to look.
//! Cost: a check of the length and a few compares for each layer; a scan of the configured taps where some
//! match the port's tags or tunnels.
//! Invariants: what it finds the walk finds (a property test compares them); all that is wrong, cut, rare
//! or in other tunnels is left to it.
//! Source: as in `vlan`, `vxlan`, `gre` and `erspan`.

use super::decoder::Decoder;
use super::ethernet::ether_type;
use super::plain::{Inside, MirrorNote, Plain};
use super::tap::{MirrorTunnel, PortTaps};
use super::{Marks, erspan, gre, protocol};
use crate::index::TapIndex;
use crate::inventory::{Segment, SegmentKind};

/// The innermost frame, which is of the common shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Enclosed<'a> {
    pub(super) plain: Plain<'a>,
    pub(super) tap: TapIndex,
    pub(super) segment: Segment,
    pub(super) mirror: MirrorNote,
    /// Octets of the whole frame before it.
    pub(super) before: usize,
}

/// How far the look has come.
#[derive(Clone, Copy, Debug)]
struct Layer<'a> {
    plain: Plain<'a>,
    before: usize,
    tap: TapIndex,
    mirror: MirrorNote,
    /// Kind and id of the overlay tunnel around, [`SegmentKind::None`] outside of all.
    overlay: (SegmentKind, u32),
    /// Tunnels that may still be taken off.
    depth_left: u8,
}

impl<'a> Layer<'a> {
    /// Goes into a tunnel.
    #[inline]
    fn enter(&mut self, inside: &Inside<'a>) -> Option<()> {
        self.depth_left = self.depth_left.checked_sub(1)?;
        self.before += inside.before;
        self.plain = Plain::of(inside.bytes, inside.limit)?;
        Some(())
    }

    /// The same where it is a mirror, claimed by a tap or not.
    #[inline]
    fn enter_mirror(
        &mut self,
        inside: &Inside<'a>,
        claimed_by: Option<TapIndex>,
        (marks, sequence): (Marks, Option<u32>),
    ) -> Option<()> {
        self.tap = claimed_by.unwrap_or(self.tap);
        self.mirror.marks.set(marks);
        if let Some(sequence) = sequence {
            self.mirror.marks.set(Marks::MIRROR_SEQUENCE);
            self.mirror.sequence = sequence;
        }
        self.enter(inside)
    }
}

impl Decoder {
    /// Finds the innermost frame inside of `outer`, which came by `port`; `outer` itself where it has a tag.
    #[inline]
    pub(super) fn enclosed<'a>(&self, port: PortTaps, outer: Plain<'a>) -> Option<Enclosed<'a>> {
        let rules = self.rules();
        let mut layer = Layer {
            plain: outer,
            before: 0,
            tap: port.tap,
            mirror: MirrorNote::default(),
            overlay: (SegmentKind::None, 0),
            depth_left: rules.depth_max,
        };
        if port.by_vlan && outer.is_tagged() {
            self.take_mirror_tag(port, &mut layer);
        }
        if outer.protocol() == protocol::GRE {
            self.take_gre(port, &outer, &mut layer)?;
        }
        if layer.overlay.0 as u8 == SegmentKind::None as u8
            && let Some((vni, inside)) = layer.plain.inside_vxlan(&rules.tunnels)
        {
            let claimed_by = self.claim(port, &outer, &layer, MirrorTunnel::Vxlan(vni));
            if claimed_by.is_some() {
                layer.enter_mirror(&inside, claimed_by, (Marks::MIRROR_TUNNEL, None))?;
            } else {
                layer.overlay = (SegmentKind::Vxlan, vni);
                layer.enter(&inside)?;
            }
        }
        // Such a frame is for `brief` and `plain`.
        if layer.depth_left == rules.depth_max && !outer.is_tagged() {
            return None;
        }
        let Layer { plain, tap, mirror, before, .. } = layer;
        let segment = self.segment_of_layer(&layer)?;
        Some(Enclosed { plain, tap, segment, mirror, before })
    }

    /// Takes the tag off where it is a mirror's.
    fn take_mirror_tag(&self, port: PortTaps, layer: &mut Layer<'_>) {
        if let Some(tap) = self.taps().of_vlan(port.port, layer.plain.vlan) {
            layer.tap = tap;
            layer.mirror.marks.set(Marks::MIRROR_TUNNEL);
            layer.plain.vlan = 0;
        }
    }

    /// Takes GRE off, and ERSPAN behind it.
    #[inline]
    fn take_gre<'a>(&self, port: PortTaps, outer: &Plain<'a>, layer: &mut Layer<'a>) -> Option<()> {
        let header = gre::Parts::of(outer.payload())?;
        if header.protocol_type == ether_type::TRANSPARENT_ETHERNET {
            return self.take_bridged(port, outer, &header, layer);
        }
        let behind = outer.payload().get(header.octets as usize..)?;
        let mirror = erspan::Parts::of(&header, behind)?;
        let inside = outer.inside(header.octets + mirror.octets)?;
        let claimed_by = self.claim(port, outer, layer, MirrorTunnel::Erspan(mirror.session));
        layer.enter_mirror(&inside, claimed_by, (mirror.marks, header.sequence))?;
        match (mirror.vlan, layer.plain.vlan) {
            (0, _) => {}
            (vlan, 0) => layer.plain.vlan = vlan,
            // Two tags name a segment of another kind.
            _ => return None,
        }
        Some(())
    }

    /// Takes GRE off an Ethernet frame: an overlay, or the mirror of a tap that claims it.
    fn take_bridged<'a>(
        &self,
        port: PortTaps,
        outer: &Plain<'a>,
        header: &gre::Parts,
        layer: &mut Layer<'a>,
    ) -> Option<()> {
        let inside = outer.inside(header.octets)?;
        let claimed_by = self.claim(port, outer, layer, MirrorTunnel::Gre(header.key));
        if claimed_by.is_some() {
            let note = (Marks::MIRROR_TUNNEL, header.sequence);
            return layer.enter_mirror(&inside, claimed_by, note);
        }
        let key = header.key.unwrap_or(0);
        layer.overlay = if self.rules().nvgre {
            (SegmentKind::Nvgre, key >> 8)
        } else {
            (SegmentKind::Gre, key)
        };
        layer.enter(&inside)
    }

    /// The tap that claims a tunnel around which no overlay is; see `Rules::claim`.
    #[inline]
    fn claim(
        &self,
        port: PortTaps,
        outer: &Plain<'_>,
        layer: &Layer<'_>,
        tunnel: MirrorTunnel,
    ) -> Option<TapIndex> {
        if !port.by_tunnel {
            return None;
        }
        let outermost_vlan = outer.is_tagged().then_some(outer.vlan);
        self.taps().of_tunnel(port.port, outermost_vlan, tunnel, layer.plain.source())
    }

    /// The segment of the innermost frame; `None` where its stations name it, or no segment has such an
    /// id.
    #[inline]
    fn segment_of_layer(&self, layer: &Layer<'_>) -> Option<Segment> {
        let (kind, id) = layer.overlay;
        let vlan = layer.plain.vlan;
        if kind as u8 != SegmentKind::None as u8 {
            let domain = self.taps().segment(layer.tap).domain;
            return Segment::new(domain, kind, id).with_inner_vlans(0, vlan);
        }
        let is_named_by_stations = vlan == 0 && self.map().names_stations_of(layer.tap);
        (!is_named_by_stations).then(|| self.segment_of_plain(layer.tap, vlan))
    }
}
