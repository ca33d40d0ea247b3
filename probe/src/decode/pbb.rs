//! Provider backbone bridges: a customer's frame in a provider's.
//!
//! In: what follows EtherType 0x88e7. Out: the customer's Ethernet frame; the service instance names
//! the segment.
//! Cost: one length check; only PBB comes here.
//! Invariants: the service instance (I-SID) is the same in both directions; tags around it are the
//! backbone's.
//! Source: IEEE 802.1Q-2022 section 9.7 (I-TAG, of IEEE 802.1ah).

use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;
use crate::inventory::SegmentKind;

/// Service instance tag: priority (3 bits), drop eligible, use customer addresses, reserved (3),
/// service instance identifier (24).
#[derive(Clone, Copy, Debug)]
pub struct ServiceTag<'a>(pub &'a [u8; 4]);

impl ServiceTag<'_> {
    /// Service instance identifier.
    pub const fn service(self) -> u32 {
        u32::from_be_bytes([0, self.0[1], self.0[2], self.0[3]])
    }
}

/// Takes the tag. The customer's addresses behind it begin an Ethernet header.
pub(super) fn step(walk: &mut Walk<'_>) -> Step {
    let tag = ServiceTag(walk.take(DropCause::MalformedVlan)?);
    walk.enter_overlay(SegmentKind::Pbb, tag.service())?;
    Ok(Next::Ethernet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, segment_text, tagged, udp,
        with_ether_type,
    };

    fn pbb(inner: &[u8]) -> Vec<u8> {
        let frame = with_ether_type(0x88e7, &[&[0, 0, 0x4e, 0x20][..], inner].concat());
        tagged(&frame, &[(0x88a8, 4051)])
    }

    #[test]
    fn the_service_names_the_segment() {
        let customer = ethernet(&ipv4(17, &udp(1, 2, b"payload")));
        for (inner, segment) in [
            (customer.clone(), "default/pbb/20000"),
            (tagged(&customer, &[(0x8100, 7)]), "default/pbb/20000.7"),
            (tagged(&customer, &[(0x88a8, 7), (0x8100, 8)]), "default/pbb/20000.7.8"),
        ] {
            let frame = pbb(&inner);
            let headers = decode(&frame).expect("inner");
            assert_eq!(segment_text(&headers), segment);
            assert_eq!((headers.octets, headers.layer2_octets), (35, 49));
            every_shorter_length(&frame, |at, outcome| match outcome {
                Outcome::WireShort(result) if (18..22).contains(&at) => {
                    assert_eq!(result.err(), Some(DropCause::MalformedVlan), "{at}");
                }
                Outcome::WireShort(result) if (22..36).contains(&at) => {
                    assert_eq!(result.err(), Some(DropCause::MalformedLink), "{at}");
                }
                Outcome::Snapped(result) if at < frame.len() - 7 - 4 => {
                    assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
                }
                Outcome::Snapped(_) | Outcome::WireShort(_) => {}
            });
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut frame = ethernet(&ipv4(17, &udp(1, 2, b"x")));
        for _ in 0..5 {
            frame = with_ether_type(0x88e7, &[&[0, 0, 0, 1][..], &frame].concat());
        }
        assert_eq!(decode(&frame).err(), Some(DropCause::TooDeep));
    }
}
