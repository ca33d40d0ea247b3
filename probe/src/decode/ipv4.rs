//! IPv4 headers.
//!
//! In: an IPv4 packet, perhaps with padding behind it. Out: addresses, lengths, fragment fields,
//! and the protocol inside.
//! Cost: one length check without options.
//! Invariants: the octets counted are the header's total length; checksums are not verified,
//! because virtual NICs leave them to hardware that is not there.
//! Source: RFC 791 section 3.1; ECN and DSCP, RFC 3168 and RFC 2474.

use super::walk::{Next, Step, Walk};
use super::{Address, Headers, Marks};
use crate::counters::DropCause;

const HEADER_OCTETS: u32 = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// An IPv4 header without its options.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a>(pub &'a [u8; 20]);

impl Ipv4<'_> {
    /// Version; 4.
    #[inline]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// Length of the header in octets, with options: 0–60, valid from 20.
    #[inline]
    pub const fn header_octets(self) -> u32 {
        ((self.0[0] & 0xf) as u32) * 4
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(self) -> u8 {
        self.0[1]
    }

    /// Octets of header and payload; 0 where the sender left segmentation to its NIC.
    #[inline]
    pub const fn total_octets(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Identification of the datagram.
    #[inline]
    pub const fn identification(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Flags (3 bits) and fragment offset in units of eight octets (13 bits).
    #[inline]
    pub const fn flags_offset(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Time to live.
    #[inline]
    pub const fn ttl(self) -> u8 {
        self.0[8]
    }

    /// Protocol number (IANA).
    #[inline]
    pub const fn protocol(self) -> u8 {
        self.0[9]
    }

    /// Source address.
    #[inline]
    pub const fn source(self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Destination address.
    #[inline]
    pub const fn destination(self) -> [u8; 4] {
        [self.0[16], self.0[17], self.0[18], self.0[19]]
    }
}

/// Whether an IPv4 packet that fits in `limit` octets may begin here. Used where a format does not
/// say what it carries.
pub(super) fn fits(octets: &[u8], limit: u32) -> bool {
    octets.first_chunk().is_some_and(|[first, _, high, low]: &[u8; 4]| {
        let total = u32::from(u16::from_be_bytes([*high, *low]));
        first >> 4 == 4 && first & 0xf >= 5 && (HEADER_OCTETS..=limit).contains(&total)
    })
}

/// Takes the header and leaves out what stands behind the packet.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    let available = walk.limit;
    let header = Ipv4(walk.take(DropCause::MalformedIpv4)?);
    let header_octets = header.header_octets();
    if header.version() != 4 || header_octets < HEADER_OCTETS {
        return Err(DropCause::MalformedIpv4);
    }
    if header_octets > HEADER_OCTETS {
        walk.skip(header_octets - HEADER_OCTETS, DropCause::MalformedIpv4)?;
    }
    // Total length 0: captured at the sender before its NIC cut the packet into segments.
    let total = match header.total_octets() {
        0 => available,
        total => u32::from(total),
    };
    let Some(payload) = total.checked_sub(header_octets) else {
        return Err(DropCause::MalformedIpv4);
    };
    walk.enter_ip(payload);
    out.ip_version = 4;
    out.source = Address::v4(header.source());
    out.destination = Address::v4(header.destination());
    out.octets = total;
    out.ttl = header.ttl();
    out.traffic_class = header.traffic_class();
    out.ip_identification = u32::from(header.identification());
    out.fragment_offset = 0;
    let flags_offset = header.flags_offset();
    if flags_offset & DONT_FRAGMENT != 0 {
        walk.ip_marks.set(Marks::DONT_FRAGMENT);
    }
    if flags_offset & (MORE_FRAGMENTS | OFFSET_MASK) != 0 {
        return Ok(fragment(walk, out, header));
    }
    Ok(Next::Protocol(header.protocol()))
}

#[cold]
fn fragment(walk: &mut Walk<'_>, out: &mut Headers, header: Ipv4<'_>) -> Next {
    walk.ip_marks.set(Marks::FRAGMENT);
    if header.flags_offset() & MORE_FRAGMENTS != 0 {
        walk.ip_marks.set(Marks::MORE_FRAGMENTS);
    }
    out.fragment_offset = (header.flags_offset() & OFFSET_MASK) * 8;
    if out.fragment_offset != 0 {
        walk.ip_marks.set(Marks::LATER_FRAGMENT);
    }
    Next::Protocol(header.protocol())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, set_u16, udp,
    };

    /// Places in an Ethernet frame.
    const TOTAL: usize = 16;
    const FLAGS: usize = 20;

    fn frame() -> Vec<u8> {
        ethernet(&ipv4(17, &udp(1000, 53, b"0123456789abcdefgh")))
    }

    #[test]
    fn fields_are_read() {
        let mut bytes = frame();
        set_u16(&mut bytes, FLAGS, DONT_FRAGMENT);
        let headers = decode(&bytes).expect("whole");
        assert_eq!(headers.source.to_ip(4).to_string(), "10.0.0.1");
        assert_eq!(headers.destination.to_ip(4).to_string(), "10.0.0.2");
        assert_eq!((headers.ip_version, headers.protocol, headers.ttl), (4, 17, 64));
        assert_eq!((headers.octets, headers.layer2_octets), (46, 60));
        assert_eq!(headers.ip_identification, 0x1234);
        assert!(headers.marks.has(Marks::DONT_FRAGMENT) && headers.marks.has(Marks::ETHERNET));
        assert_eq!((headers.payload_octets, headers.payload_captured_octets), (18, 18));
        assert_eq!(headers.payload_offset, 42);
        assert_eq!(&headers.payload_head, b"0123456789abcdef");
    }

    #[test]
    fn padding_does_not_count() {
        let mut bytes = frame();
        bytes.extend([0xee; 30]);
        let headers = decode(&bytes).expect("padded");
        assert_eq!((headers.octets, headers.payload_captured_octets), (46, 18));
    }

    #[test]
    fn a_total_length_of_zero_takes_the_frames() {
        let mut bytes = frame();
        set_u16(&mut bytes, TOTAL, 0);
        assert_eq!(decode(&bytes).expect("offloaded").octets, 46);
    }

    #[test]
    fn a_packet_before_segmentation_is_one_packet_in_a_tunnel_too() {
        // Larger than any MTU, and longer than 16 bits of length can say.
        for octets in [7_000, 70_000] {
            let segment = crate::decode::testing::tcp(0x18, &[], &[7; 6_960]);
            let mut inner = ethernet(&ipv4(6, &segment));
            inner.resize(14 + octets, 7);
            set_u16(&mut inner, TOTAL, 0);
            let mut outer = crate::decode::testing::vxlan(9, inner.get(..7_014).expect("shorter"));
            outer.extend(inner.get(7_014..).expect("the rest"));
            // The outer lengths of such a packet are 0 too, in IP and in UDP.
            set_u16(&mut outer, TOTAL, 0);
            set_u16(&mut outer, 38, 0);
            for frame in [inner, outer] {
                let headers = decode(&frame).expect("one packet");
                assert_eq!(headers.octets as usize, octets);
                assert_eq!(headers.payload_octets as usize, octets - 40);
                assert!(!headers.marks.has(Marks::SNAPPED));
            }
        }
    }

    #[test]
    fn wrong_versions_and_lengths_are_malformed() {
        for (place, value) in [(14, 0x6500), (14, 0x4400), (14, 0x4f00), (TOTAL, 19), (TOTAL, 1)] {
            let mut bytes = frame();
            set_u16(&mut bytes, place, value);
            if place == 14 && value == 0x4f00 {
                // Options that end behind the packet.
                set_u16(&mut bytes, TOTAL, 59);
            }
            assert_eq!(decode(&bytes).err(), Some(DropCause::MalformedIpv4), "{value:04x}");
        }
    }

    #[test]
    fn options_are_skipped() {
        let mut bytes = frame();
        bytes.splice(34..34, [7, 4, 4, 0, 0, 0, 0, 0]);
        set_u16(&mut bytes, 14, 0x4700);
        set_u16(&mut bytes, TOTAL, 54);
        let headers = decode(&bytes).expect("with options");
        assert_eq!((headers.source_port, headers.octets, headers.payload_octets), (1000, 54, 18));
        every_shorter_length(&bytes, |_, _| ());
    }

    #[test]
    fn first_fragments_have_ports_and_later_ones_none() {
        let mut bytes = frame();
        set_u16(&mut bytes, FLAGS, MORE_FRAGMENTS);
        let headers = decode(&bytes).expect("first");
        assert_eq!((headers.source_port, headers.destination_port), (1000, 53));
        assert!(headers.marks.has(Marks::FRAGMENT) && headers.marks.has(Marks::MORE_FRAGMENTS));
        assert!(!headers.marks.has(Marks::LATER_FRAGMENT));
        set_u16(&mut bytes, FLAGS, 0x00b9);
        let headers = decode(&bytes).expect("last");
        assert_eq!((headers.source_port, headers.destination_port), (0, 0));
        assert_eq!((headers.fragment_offset, headers.protocol), (1480, 17));
        assert!(headers.marks.has(Marks::LATER_FRAGMENT));
        assert!(!headers.marks.has(Marks::MORE_FRAGMENTS));
        assert_eq!(headers.payload_octets, 26);
    }

    #[test]
    fn a_packet_longer_than_its_frame_counts_in_full() {
        for total in [47, 1500, 0xffff] {
            let mut bytes = frame();
            set_u16(&mut bytes, TOTAL, total);
            let headers = decode(&bytes).expect("cut by a mirror");
            assert!(
                headers.marks.has(Marks::MIRROR_TRUNCATED) && headers.marks.has(Marks::SNAPPED)
            );
            assert_eq!((headers.octets, headers.payload_captured_octets), (u32::from(total), 18));
        }
    }

    #[test]
    fn a_snapped_packet_counts_in_full() {
        every_shorter_length(&frame(), |length, outcome| {
            if let (46.., Outcome::Snapped(result)) = (length, outcome) {
                let headers = result.expect("ports are there");
                assert!(headers.marks.has(Marks::SNAPPED));
                assert!(!headers.marks.has(Marks::MIRROR_TRUNCATED));
                assert_eq!((headers.octets, headers.payload_octets), (46, 18));
                assert_eq!(headers.payload_captured_octets as usize, length.saturating_sub(42));
            }
        });
    }
}
