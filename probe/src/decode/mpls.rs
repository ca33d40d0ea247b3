//! MPLS label stacks, and Ethernet pseudowires in them.
//!
//! In: what follows the EtherType. Out: the IP packet or Ethernet frame below the stack.
//! Cost: one length check a label; only MPLS comes here.
//! Invariants: at most [`LABELS_MAX`] labels; labels name a segment only where the configuration
//! says so, because they differ by direction.
//! Source: RFC 3032 section 2.1; in UDP, RFC 7510 section 3; pseudowires, RFC 4448 section 4.6 and RFC 4385 section 3.

use super::ethernet::{self, ether_type};
use super::walk::{Next, Step, Walk};
use super::{ipv4, ipv6};
use crate::counters::DropCause;
use crate::decode::decoder::Rules;
use crate::inventory::SegmentKind;

/// Labels in a stack at most.
pub const LABELS_MAX: usize = 16;

/// Reserved labels (RFC 3032 section 2.1, RFC 5586 section 4).
const EXPLICIT_NULL_IPV4: u32 = 0;
const EXPLICIT_NULL_IPV6: u32 = 2;
const GENERIC_ASSOCIATED_CHANNEL: u32 = 13;

/// One entry of a label stack.
#[derive(Clone, Copy, Debug)]
pub struct MplsLabel<'a>(pub &'a [u8; 4]);

impl MplsLabel<'_> {
    /// Label, 20 bits.
    pub const fn label(self) -> u32 {
        u32::from_be_bytes(*self.0) >> 12
    }

    /// Whether no further label follows.
    pub const fn is_bottom(self) -> bool {
        self.0[2] & 1 == 1
    }
}

/// Whether `ether_type` is MPLS.
pub(super) const fn is_ether_type(ether_type: u16) -> bool {
    matches!(ether_type, ether_type::MPLS | ether_type::MPLS_UPSTREAM)
}

/// Takes the whole stack.
pub(super) fn step(walk: &mut Walk<'_>, rules: &Rules) -> Step {
    for _ in 0..LABELS_MAX {
        let entry = MplsLabel(walk.take(DropCause::MalformedMpls)?);
        if entry.is_bottom() {
            return below(walk, rules, entry.label());
        }
    }
    Err(DropCause::MalformedMpls)
}

/// Whether a UDP payload is a stack with a packet below it; then the stack comes next. Stricter
/// than below an EtherType: a port alone says little.
pub(super) fn step_in_udp(walk: &mut Walk<'_>) -> Result<Option<Next>, DropCause> {
    for place in 0..LABELS_MAX {
        let at = 4 * super::walk::octets(place);
        let Some(entry) = walk.peek(at)?.map(MplsLabel) else { return Ok(None) };
        if entry.is_bottom() {
            return packet_in_udp(walk, entry.label(), at + 4);
        }
    }
    Ok(None)
}

fn packet_in_udp(walk: &mut Walk<'_>, label: u32, begin: u32) -> Result<Option<Next>, DropCause> {
    let Some(_) = walk.peek::<6>(begin)? else { return Ok(None) };
    let limit = walk.limit - begin;
    let rest = walk.rest.get(begin as usize..).unwrap_or(&[]);
    let is_packet = match Carried::of(label, rest, limit) {
        Carried::Ipv4 => ipv4::fits(rest, limit),
        Carried::Ipv6 => ipv6::fits(rest, limit),
        Carried::Ethernet | Carried::ControlledEthernet => true,
        Carried::Other => false,
    };
    if !is_packet {
        return Ok(None);
    }
    walk.descend()?;
    Ok(Some(Next::Mpls))
}

/// Finds out what the stack carries: nothing in it says so (RFC 4928 section 3).
fn below(walk: &mut Walk<'_>, rules: &Rules, label: u32) -> Step {
    let carried = Carried::of(label, walk.rest, walk.limit);
    if carried == Carried::Other {
        let empty = walk.rest.is_empty() && walk.limit > 0;
        return Err(if empty { DropCause::SnappedHeader } else { DropCause::NotIpMpls });
    }
    if rules.mpls_segments {
        walk.enter_overlay(SegmentKind::Mpls, label)?;
    }
    match carried {
        Carried::Ipv4 => Ok(Next::Ipv4),
        Carried::Ipv6 => Ok(Next::Ipv6),
        Carried::ControlledEthernet => {
            walk.take::<4>(DropCause::MalformedMpls)?;
            pseudowire(walk, rules)
        }
        Carried::Ethernet | Carried::Other => pseudowire(walk, rules),
    }
}

/// The tags around a pseudowire are those of the network that carries it.
fn pseudowire(walk: &mut Walk<'_>, rules: &Rules) -> Step {
    if !rules.mpls_segments {
        walk.descend()?;
        walk.vlans = super::walk::Vlans::default();
        walk.ethernet = None;
    }
    Ok(Next::Ethernet)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    Ipv4,
    Ipv6,
    Ethernet,
    /// Behind a control word of four octets.
    ControlledEthernet,
    Other,
}

impl Carried {
    fn of(label: u32, rest: &[u8], limit: u32) -> Self {
        match label {
            EXPLICIT_NULL_IPV4 => Self::Ipv4,
            EXPLICIT_NULL_IPV6 => Self::Ipv6,
            GENERIC_ASSOCIATED_CHANNEL => Self::Other,
            _ => Self::guess(rest, limit),
        }
    }

    /// The first nibble is 4 or 6 for IP and 0 for a control word, unless the packet is an
    /// Ethernet frame without control word whose first address begins so.
    fn guess(rest: &[u8], limit: u32) -> Self {
        let bare = ethernet::plausible(rest);
        match rest.first().map_or(0xff, |first| first >> 4) {
            4 if !bare || ipv4::fits(rest, limit) => Self::Ipv4,
            6 if !bare || ipv6::fits(rest, limit) => Self::Ipv6,
            _ if bare => Self::Ethernet,
            0 if rest.get(4..).is_some_and(ethernet::plausible) => Self::ControlledEthernet,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ether_type;
    use crate::config::{DecodePlan, Plan};
    use crate::counters::DropCause;
    use crate::decode::testing::{
        Outcome, decode, decode_with, decoder_of, ethernet, every_shorter_length, frame_of, ipv4,
        segment_text, tagged, udp, with_ether_type,
    };

    fn packet() -> Vec<u8> {
        ipv4(17, &udp(1, 2, b"payload"))
    }

    fn labels(labels: &[u32], inner: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (place, label) in labels.iter().enumerate() {
            let bottom = u32::from(place + 1 == labels.len());
            bytes.extend(((label << 12) | (bottom << 8) | 64).to_be_bytes());
        }
        bytes.extend(inner);
        bytes
    }

    fn mpls(stack: &[u32], inner: &[u8]) -> Vec<u8> {
        with_ether_type(ether_type::MPLS, &labels(stack, inner))
    }

    #[test]
    fn in_udp_it_is_a_stack_or_a_flow_of_the_port() {
        let in_udp = |payload: &[u8]| ethernet(&ipv4(17, &udp(9, 6635, payload)));
        for (stack, inner) in [
            (&[20, 30][..], packet()),
            (&[0], packet()),
            (&[40], ethernet(&packet())),
            (&[40], [&[0; 4][..], &ethernet(&packet())].concat()),
        ] {
            let whole = labels(stack, &inner);
            let frame = tagged(&in_udp(&whole), &[(0x8100, 42)]);
            let headers = decode(&frame).expect("inner");
            assert_eq!((headers.source_port, headers.octets), (1, 35));
            let inner_at = frame.len() - packet().len();
            every_shorter_length(&frame, |at, outcome| match outcome {
                Outcome::Snapped(Ok(headers)) if (46..inner_at).contains(&at) => {
                    // What was captured of a frame below does not look like one yet.
                    assert_eq!(headers.destination_port, 6635, "{at}");
                }
                Outcome::Snapped(Err(cause)) => assert_eq!(cause, DropCause::SnappedHeader),
                Outcome::Snapped(_) | Outcome::WireShort(_) => {}
            });
            for length in 0..whole.len() - 20 {
                let part = whole.get(..length).expect("shorter");
                let headers = decode(&in_udp(part));
                assert!(headers.is_err() || headers.is_ok_and(|h| h.source_port == 9), "{length}");
            }
        }
        for payload in [
            labels(&[20], b"no packet at all"),
            labels(&[13], &packet()),
            labels(&[20], packet().get(..20).expect("shorter")),
            vec![0; 100],
        ] {
            let headers = decode(&in_udp(&payload)).expect("a flow");
            assert_eq!((headers.source_port, headers.destination_port), (9, 6635));
        }
    }

    #[test]
    fn ip_below_labels_keeps_the_segment_around() {
        let headers = decode(&mpls(&[100, 200], &packet())).expect("IP");
        assert_eq!((headers.source_port, headers.layer2_octets), (1, 49));
        assert_eq!(segment_text(&headers), "default/none");
        let headers = decode(&tagged(&mpls(&[100], &packet()), &[(0x8100, 5)])).expect("IP");
        assert_eq!(segment_text(&headers), "default/vlan/5");
    }

    #[test]
    fn pseudowires_are_found_with_and_without_control_word() {
        let inner = tagged(&ethernet(&packet()), &[(0x8100, 42)]);
        let controlled = [&[0, 0, 0, 1][..], &inner].concat();
        let mut address_of_4 = inner.clone();
        if let Some(first) = address_of_4.first_mut() {
            *first = 0x44;
        }
        for carried in [&inner, &controlled, &address_of_4] {
            let frame = tagged(&mpls(&[100, 17], carried), &[(0x8100, 7)]);
            let headers = decode(&frame).expect("Ethernet");
            assert_eq!(segment_text(&headers), "default/vlan/42", "the outer tag is underlay");
        }
    }

    #[test]
    fn labels_name_a_segment_where_configured() {
        let decode_plan = DecodePlan { mpls_segments: true, ..DecodePlan::default() };
        let decoder = decoder_of(&Plan { decode: decode_plan, ..Plan::default() });
        let bytes = mpls(&[100, 200], &packet());
        let headers = decode_with(&decoder, &frame_of(&bytes)).expect("IP");
        assert_eq!(segment_text(&headers), "default/mpls/200");
        let bytes = mpls(&[100, 200], &tagged(&ethernet(&packet()), &[(0x8100, 42)]));
        let headers = decode_with(&decoder, &frame_of(&bytes)).expect("Ethernet");
        assert_eq!(segment_text(&headers), "default/mpls/200.42");
    }

    #[test]
    fn what_is_neither_ip_nor_ethernet_is_counted() {
        for inner in [&[0x10, 0, 0, 7, 1, 2][..], &[0xff; 30], &[]] {
            assert_eq!(decode(&mpls(&[100], inner)).err(), Some(DropCause::NotIpMpls));
        }
        assert_eq!(decode(&mpls(&[13], &packet())).err(), Some(DropCause::NotIpMpls));
    }

    #[test]
    fn a_stack_without_bottom_is_malformed() {
        let endless = with_ether_type(ether_type::MPLS, &[0; 200]);
        assert_eq!(decode(&endless).err(), Some(DropCause::MalformedMpls));
    }

    #[test]
    fn every_shorter_frame_is_a_cause() {
        every_shorter_length(&mpls(&[100, 200], &packet()), |length, outcome| {
            if let (14..22, Outcome::WireShort(result)) = (length, outcome) {
                assert_eq!(result.err(), Some(DropCause::MalformedMpls), "{length}");
            }
        });
    }
}
