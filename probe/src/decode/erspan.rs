//! ERSPAN types I, II and III.
//!
//! In: the payload of GRE. Out: the mirrored frame; the session names the tap.
//! Cost: one length check, two with a platform subheader.
//! Invariants: always a mirror, never an overlay; what it carries may be cut short, and then
//! counts in full by its own headers.
//! Source: draft-foschiano-erspan-03 section 4.

use super::decoder::Rules;
use super::tap::MirrorTunnel;
use super::walk::{Next, Step, Walk};
use super::{Headers, Marks, gre};
use crate::counters::DropCause;
use crate::index::TapIndex;

/// GRE protocol type of types I and II.
pub const PROTOCOL_TYPE_I_II: u16 = 0x88be;
/// GRE protocol type of type III.
pub const PROTOCOL_TYPE_III: u16 = 0x22eb;

pub(super) const VERSION_II: u8 = 1;
const VERSION_III: u8 = 2;

/// The mirror took the VLAN tag off the frame and put it here (field En).
pub(super) const TAG_IN_HEADER: u8 = 2;

/// Frame types of type III: the copy begins with its Ethernet or its IP header.
const FRAME_ETHERNET: u8 = 0;
const FRAME_IP: u8 = 2;

const TYPE_II_OCTETS: u32 = 8;
const TYPE_III_OCTETS: u32 = 12;
const SUBHEADER_OCTETS: u32 = 8;

/// The four octets that types II and III begin with.
#[derive(Clone, Copy, Debug)]
pub struct Erspan<'a>(pub &'a [u8; 4]);

impl Erspan<'_> {
    /// Version: 1 for type II, 2 for type III.
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// VLAN of the mirrored port.
    pub const fn vlan(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]]) & 0xfff
    }

    /// Type II: what became of the frame's tag; 2: it was taken off, 3: it is in the frame.
    pub const fn encapsulation(self) -> u8 {
        (self.0[2] >> 3) & 3
    }

    /// Whether the mirror cut the frame.
    pub const fn truncated(self) -> bool {
        self.0[2] & 4 != 0
    }

    /// Session id, 10 bits.
    pub const fn session(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]]) & 0x3ff
    }
}

/// What a type III header has behind the first four octets.
#[derive(Clone, Copy, Debug)]
pub struct ErspanIii<'a>(pub &'a [u8; 8]);

impl ErspanIii<'_> {
    /// The mirror's clock, 32 bits, in units of [`ErspanIii::granularity`].
    pub const fn timestamp(self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// Frame type: 0 Ethernet, 2 IP.
    pub const fn frame_type(self) -> u8 {
        (self.0[6] >> 2) & 0x1f
    }

    /// Whether the packet left the mirrored port.
    pub const fn egress(self) -> bool {
        self.0[7] & 8 != 0
    }

    /// Unit of the timestamp: 0 is 100 µs, 1 is 100 ns, 2 is IEEE 1588 ns.
    pub const fn granularity(self) -> u8 {
        (self.0[7] >> 1) & 3
    }

    /// Whether a platform subheader of eight octets follows.
    pub const fn has_subheader(self) -> bool {
        self.0[7] & 1 != 0
    }
}

/// What a header before an Ethernet frame says, in one go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// Session id; type I has none.
    pub(super) session: Option<u16>,
    /// VLAN of a tag that was taken off the frame; 0 without.
    pub(super) vlan: u16,
    /// Of [`Marks::MIRROR`], but for the sequence number.
    pub(super) marks: Marks,
    /// Length of the header.
    pub(super) octets: u32,
}

impl Parts {
    /// `None` for a protocol type, version or frame type of something else, and where it is not all
    /// there.
    #[inline]
    pub(super) fn of(gre: &gre::Parts, behind: &[u8]) -> Option<Self> {
        let mut parts = Self { session: None, vlan: 0, marks: Marks::MIRROR_TUNNEL, octets: 0 };
        match gre.protocol_type {
            PROTOCOL_TYPE_I_II if gre.sequence.is_none() => return Some(parts),
            PROTOCOL_TYPE_I_II | PROTOCOL_TYPE_III => {}
            _ => return None,
        }
        let header = Erspan(behind.first_chunk()?);
        parts.session = Some(header.session());
        if header.truncated() {
            parts.marks.set(Marks::MIRROR_TRUNCATED);
        }
        match header.version() {
            VERSION_II => {
                parts.octets = TYPE_II_OCTETS;
                if header.encapsulation() == TAG_IN_HEADER {
                    parts.vlan = header.vlan();
                }
            }
            VERSION_III => {
                let rest = ErspanIii(behind.get(4..)?.first_chunk()?);
                if rest.frame_type() != FRAME_ETHERNET {
                    return None;
                }
                if rest.egress() {
                    parts.marks.set(Marks::MIRROR_EGRESS);
                }
                let subheader_octets = if rest.has_subheader() { SUBHEADER_OCTETS } else { 0 };
                parts.octets = TYPE_III_OCTETS + subheader_octets;
            }
            _ => return None,
        }
        Some(parts)
    }
}

/// Takes the header. Type I has none, and no GRE sequence number tells it from type II.
pub(super) fn step(
    walk: &mut Walk<'_>,
    out: &mut Headers,
    rules: &Rules,
    protocol_type: u16,
    sequence: Option<u32>,
) -> Step {
    if sequence.is_none() && protocol_type == PROTOCOL_TYPE_I_II {
        return type_i(walk, out, rules);
    }
    let Some((header, _)) = walk.rest.split_first_chunk() else {
        return Err(walk.short(4, DropCause::MalformedErspan));
    };
    let header = Erspan(header);
    let tap = rules.claim(walk, out, MirrorTunnel::Erspan(Some(header.session())));
    gre::mirror_sequence(walk, out, sequence);
    match header.version() {
        VERSION_II => type_ii(walk, header, tap),
        VERSION_III => type_iii(walk, header, tap),
        _ => Err(DropCause::MalformedErspan),
    }
}

fn type_i(walk: &mut Walk<'_>, out: &Headers, rules: &Rules) -> Step {
    let tap = rules.claim(walk, out, MirrorTunnel::Erspan(None));
    walk.enter_mirror(tap)?;
    Ok(Next::Ethernet)
}

fn type_ii(walk: &mut Walk<'_>, header: Erspan<'_>, tap: Option<TapIndex>) -> Step {
    walk.take::<8>(DropCause::MalformedErspan)?;
    walk.enter_mirror(tap)?;
    if header.truncated() {
        walk.marks.set(Marks::MIRROR_TRUNCATED);
    }
    if header.encapsulation() == TAG_IN_HEADER {
        walk.vlans.push(header.vlan());
    }
    Ok(Next::Ethernet)
}

fn type_iii(walk: &mut Walk<'_>, header: Erspan<'_>, tap: Option<TapIndex>) -> Step {
    walk.take::<4>(DropCause::MalformedErspan)?;
    let rest = ErspanIii(walk.take(DropCause::MalformedErspan)?);
    if rest.has_subheader() {
        walk.take::<8>(DropCause::MalformedErspan)?;
    }
    walk.enter_mirror(tap)?;
    if header.truncated() {
        walk.marks.set(Marks::MIRROR_TRUNCATED);
    }
    if rest.egress() {
        walk.marks.set(Marks::MIRROR_EGRESS);
    }
    match (rest.frame_type(), walk.rest.first().map(|first| first >> 4)) {
        (FRAME_ETHERNET, _) => Ok(Next::Ethernet),
        (FRAME_IP, Some(6)) => Ok(Next::Ipv6),
        (FRAME_IP, _) => Ok(Next::Ipv4),
        _ => Err(DropCause::UnsupportedTunnel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Plan, TapMatch, TapPlan};
    use crate::decode::testing::{
        Outcome, decode, decode_with, decoder_of, erspan_ii, ethernet, every_shorter_length,
        frame_of, gre, ipv4, segment_text, tagged, udp, vxlan,
    };

    const SEQUENCE: u16 = 0x1000;

    fn inner() -> Vec<u8> {
        ethernet(&ipv4(17, &udp(1, 2, b"payload")))
    }

    fn type_i(inner: &[u8]) -> Vec<u8> {
        gre(0, PROTOCOL_TYPE_I_II, 0, inner)
    }

    fn type_iii(third: u8, last: [u8; 2], subheader: &[u8], inner: &[u8]) -> Vec<u8> {
        let [sixth, seventh] = last;
        let header = [0x20, 100, third, 5, 0, 0, 0, 9, 0, 0, sixth, seventh];
        gre(SEQUENCE, PROTOCOL_TYPE_III, 0, &[&header[..], subheader, inner].concat())
    }

    #[test]
    fn all_three_types_are_taken_off() {
        let ip = ipv4(17, &udp(1, 2, b"payload"));
        for (frame, sequence, egress, cut) in [
            (type_i(&inner()), false, false, false),
            (erspan_ii(0, &inner()), true, false, false),
            (erspan_ii(4, &inner()), true, false, true),
            (type_iii(0, [0, 0], &[], &inner()), true, false, false),
            (type_iii(4, [0, 0x0d], &[0; 8], &inner()), true, true, true),
            (type_iii(0, [FRAME_IP << 2, 0], &[], &ip), true, false, false),
        ] {
            let headers = decode(&tagged(&frame, &[(0x8100, 7)])).expect("inner");
            assert_eq!(segment_text(&headers), "default/none", "a mirror names no segment");
            assert_eq!((headers.destination_port, headers.octets), (2, 35));
            assert!(headers.marks.has(Marks::MIRROR_TUNNEL));
            assert_eq!(headers.marks.has(Marks::MIRROR_SEQUENCE), sequence);
            assert_eq!(headers.mirror_sequence, if sequence { 0xabcd } else { 0 });
            assert_eq!(headers.marks.has(Marks::MIRROR_EGRESS), egress);
            assert_eq!(headers.marks.has(Marks::MIRROR_TRUNCATED), cut);
        }
    }

    #[test]
    fn tags_in_the_frame_or_in_the_header_name_the_segment() {
        let tag = tagged(&inner(), &[(0x8100, 42)]);
        for (frame, segment) in [
            (erspan_ii(3 << 3, &tag), "default/vlan/42"),
            (erspan_ii(TAG_IN_HEADER << 3, &inner()), "default/vlan/100"),
            (erspan_ii(0, &inner()), "default/none"),
            (erspan_ii(0, &vxlan(9, &inner())), "default/vxlan/9"),
        ] {
            assert_eq!(segment_text(&decode(&frame).expect("inner")), segment);
        }
    }

    #[test]
    fn the_session_names_the_tap() {
        let matches = TapMatch { erspan_session: Some(5), ..TapMatch::default() };
        let taps = vec![
            TapPlan::default(),
            TapPlan { matches: matches.clone(), ..TapPlan::default() },
            TapPlan {
                matches: TapMatch { outer_source: "10.0.0.9".parse().ok(), ..matches },
                ..TapPlan::default()
            },
        ];
        let decoder = decoder_of(&Plan { taps, ..Plan::default() });
        let tap = |frame: &[u8]| decode_with(&decoder, &frame_of(frame)).expect("inner").tap;
        assert_eq!(tap(&erspan_ii(0, &inner())), TapIndex(1));
        assert_eq!(tap(&type_iii(0, [0, 0], &[], &inner())), TapIndex(1));
        assert_eq!(tap(&type_i(&inner())), TapIndex(0));
        let mut other_source = erspan_ii(0, &inner());
        if let Some(last) = other_source.get_mut(29) {
            *last = 9;
        }
        assert_eq!(tap(&other_source), TapIndex(2));
        let in_overlay = vxlan(3, &erspan_ii(0, &inner()));
        assert_eq!(tap(&in_overlay), TapIndex(0), "a tenant names no tap");
    }

    #[test]
    fn what_the_mirror_cut_counts_in_full() {
        for length in 38..inner().len() {
            let part = inner();
            let headers = decode(&erspan_ii(0, part.get(..length).expect("shorter")));
            let headers = headers.expect("ports are there");
            assert_eq!((headers.octets, headers.payload_octets), (35, 7));
            assert_eq!(headers.payload_captured_octets as usize, length.saturating_sub(42));
            assert!(headers.marks.has(Marks::SNAPPED));
            assert!(headers.marks.has(Marks::MIRROR_TRUNCATED));
        }
        for length in 0..38 {
            let part = inner();
            let result = decode(&erspan_ii(0, part.get(..length).expect("shorter")));
            assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{length}");
        }
    }

    #[test]
    fn short_headers_and_other_versions_are_malformed() {
        for (version, length) in [(0x10, 0), (0x10, 3), (0x10, 7), (0x20, 4), (0x20, 11)] {
            let payload = [&[version, 0, 0, 5][..], &[0; 8]].concat();
            let frame =
                gre(SEQUENCE, PROTOCOL_TYPE_I_II, 0, payload.get(..length).expect("shorter"));
            assert_eq!(decode(&frame).err(), Some(DropCause::MalformedErspan), "{length}");
        }
        let unknown = type_iii(0, [7 << 2, 0], &[], &inner());
        assert_eq!(decode(&unknown).err(), Some(DropCause::UnsupportedTunnel));
        let other = gre(SEQUENCE, PROTOCOL_TYPE_III, 0, &[0x70; 20]);
        assert_eq!(decode(&other).err(), Some(DropCause::MalformedErspan));
        every_shorter_length(&type_iii(0, [0, 1], &[0; 8], &inner()), |at, outcome| {
            let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
            assert_eq!(result.is_ok(), at >= 34 + 8 + 20 + 38, "{at}");
        });
    }
}
