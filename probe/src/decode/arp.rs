//! ARP for IPv4 over Ethernet.
//!
//! In: what follows EtherType 0x0806. Out: a view of who has which address; the decoder counts
//! ARP as [`crate::counters::DropCause::NotIpArp`] and leaves the place in
//! [`super::Headers::payload_offset`], for learning addresses.
//! Cost: one length check.
//! Invariants: a view holds Ethernet and IPv4 addresses only.
//! Source: RFC 826; numbers, RFC 5494.

use std::net::Ipv4Addr;

use super::Mac;

/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug)]
pub struct Arp<'a>(&'a [u8; 28]);

impl<'a> Arp<'a> {
    /// Reads the packet; `None` if it is short or of other address types.
    pub fn new(octets: &'a [u8]) -> Option<Self> {
        let packet = octets.first_chunk()?;
        packet.starts_with(&ETHERNET_IPV4).then_some(Self(packet))
    }

    /// Operation: 1 request, 2 reply.
    pub const fn operation(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Who speaks.
    pub const fn sender_mac(self) -> Mac {
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// The address that the sender says is its own; 0.0.0.0 in a probe (RFC 5227).
    pub const fn sender_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[14], self.0[15], self.0[16], self.0[17])
    }

    /// Who is spoken to; zero in a request.
    pub const fn target_mac(self) -> Mac {
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// The address that is asked for or answered to.
    pub const fn target_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[24], self.0[25], self.0[26], self.0[27])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Plan;
    use crate::counters::DropCause;
    use crate::decode::Headers;
    use crate::decode::testing::{decoder_of, frame_of, segment_text, tagged, with_ether_type};
    use crate::time::Timestamp;

    const REPLY: [u8; 28] =
        [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2];

    #[test]
    fn fields_are_read() {
        let arp = Arp::new(&REPLY).expect("a reply");
        assert_eq!(arp.operation(), 2);
        assert_eq!((arp.sender_mac(), arp.target_mac()), (mac(1), mac(2)));
        assert_eq!(arp.sender_ip(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(arp.target_ip(), Ipv4Addr::new(10, 0, 0, 2));
    }

    #[test]
    fn short_or_other_packets_are_none() {
        for length in 0..REPLY.len() {
            assert!(Arp::new(REPLY.get(..length).expect("shorter")).is_none());
        }
        let mut token_ring = REPLY;
        token_ring[1] = 6;
        assert!(Arp::new(&token_ring).is_none());
    }

    #[test]
    fn the_decoder_leaves_where_it_is_and_whose_segment() {
        let bytes = tagged(&with_ether_type(0x0806, &REPLY), &[(0x8100, 42)]);
        let mut out = Headers::default();
        let result =
            decoder_of(&Plan::default()).decode(&frame_of(&bytes), Timestamp::ZERO, &mut out);
        assert_eq!(result, Err(DropCause::NotIpArp));
        assert_eq!(segment_text(&out), "default/vlan/42");
        let arp = bytes.get(out.payload_offset as usize..).and_then(Arp::new).expect("there");
        assert_eq!(arp.operation(), 2);
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }
}
