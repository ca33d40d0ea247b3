//! Cisco FabricPath: an Ethernet frame in a hierarchical outer one.
//!
//! In: what follows EtherType 0x8903. Out: the Ethernet frame inside.
//! Cost: one length check; only FabricPath comes here.
//! Invariants: the tag says which tree and how many hops are left, and names no segment; the frame
//! inside has its VLAN tag.
//! Source: Cisco, "FabricPath packet header" (outer addresses, EtherType 0x8903, 10 bits of tree,
//! 6 bits of time to live).

use super::walk::{Next, Step, Vlans, Walk};
use crate::counters::DropCause;

/// Takes the tag.
pub(super) fn step(walk: &mut Walk<'_>) -> Step {
    walk.take::<2>(DropCause::MalformedLink)?;
    walk.descend()?;
    walk.vlans = Vlans::default();
    walk.ethernet = None;
    Ok(Next::Ethernet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, segment_text, tagged, udp,
        with_ether_type,
    };

    #[test]
    fn the_frame_inside_is_read() {
        let inner = tagged(&ethernet(&ipv4(17, &udp(1, 2, b"payload"))), &[(0x8100, 42)]);
        let frame = with_ether_type(0x8903, &[&[0, 0x60][..], &inner].concat());
        let headers = decode(&frame).expect("inner");
        assert_eq!((headers.destination_port, headers.layer2_octets), (2, 49));
        assert_eq!(segment_text(&headers), "default/vlan/42");
        every_shorter_length(&frame, |at, outcome| match outcome {
            Outcome::WireShort(result) if (14..30).contains(&at) => {
                assert_eq!(result.err(), Some(DropCause::MalformedLink), "{at}");
            }
            Outcome::Snapped(result) if at < 58 => {
                assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
            }
            Outcome::Snapped(_) | Outcome::WireShort(_) => {}
        });
    }
}
