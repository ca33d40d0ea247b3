//! CAPWAP data: wireless frames between an access point and its controller.
//!
//! In: a UDP payload with the controller's data port at either end. Out: the LLC header of the 802.11
//! frame inside, or the 802.3 frame.
//! Cost: two length checks; only CAPWAP comes here.
//! Invariants: names no segment; keep-alives, encrypted (DTLS) and later fragments, and frames
//! without a packet that can be read are UDP flows like any other.
//! Source: RFC 5415 section 4.1 and 4.3; 802.11 inside, RFC 5416 section 3.

use super::walk::{CutBy, Next, Walk};
use super::{ethernet, llc, wlan};
use crate::counters::DropCause;

/// Version 0, type 0: not DTLS.
const CLEAR: u8 = 0;
const BINDING_802_11: u8 = 1;
const FLAG_NATIVE: u16 = 1 << 8;
const FLAG_FRAGMENT: u16 = 1 << 7;
const FLAG_KEEP_ALIVE: u16 = 1 << 3;

/// Preamble and header without the optional parts.
#[derive(Clone, Copy, Debug)]
pub struct Capwap<'a>(pub &'a [u8; 8]);

impl Capwap<'_> {
    /// Octets of preamble and header with the optional parts.
    pub const fn header_octets(self) -> u32 {
        ((self.0[1] >> 3) as u32) * 4
    }

    /// What wireless technology the frame is of; 1 is 802.11.
    pub const fn binding(self) -> u8 {
        (self.0[2] >> 1) & 0x1f
    }

    /// Offset of a fragment in octets.
    pub const fn fragment_offset(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]]) & 0xfff8
    }

    const fn flags(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]]) & 0x1ff
    }

    const fn may_carry_packet(self, limit: u32) -> bool {
        self.0[0] == CLEAR
            && self.header_octets() >= 8
            && self.header_octets() < limit
            && self.flags() & FLAG_KEEP_ALIVE == 0
            && (self.flags() & FLAG_FRAGMENT == 0 || self.fragment_offset() == 0)
    }
}

/// Takes the header; `None` where this is no frame that can be read.
pub(super) fn step(walk: &mut Walk<'_>) -> Result<Option<Next>, DropCause> {
    let Some(header) = walk.peek(0)?.map(Capwap) else { return Ok(None) };
    if !header.may_carry_packet(walk.limit) {
        return Ok(None);
    }
    let begin = header.header_octets();
    if header.flags() & FLAG_NATIVE == 0 {
        let is_frame = ethernet::plausible_at(walk, begin, walk.limit - begin)?;
        return if is_frame { enter(walk, header, begin).map(Some) } else { Ok(None) };
    }
    if header.binding() != BINDING_802_11 {
        return Ok(None);
    }
    let Some(control) = walk.peek(begin)? else { return Ok(None) };
    let Some(wlan_octets) = wlan::header_octets(*control) else { return Ok(None) };
    let Some(llc) = walk.peek(begin + wlan_octets)? else { return Ok(None) };
    let Some(ether_type) = llc::ether_type(*llc) else { return Ok(None) };
    enter(walk, header, begin + wlan_octets + llc::SNAP_OCTETS)?;
    Ok(Some(Next::EtherType(ether_type)))
}

fn enter(walk: &mut Walk<'_>, header: Capwap<'_>, octets: u32) -> Result<Next, DropCause> {
    walk.skip(octets, DropCause::UnsupportedTunnel)?;
    walk.descend()?;
    walk.ethernet = None;
    if header.flags() & FLAG_FRAGMENT != 0 {
        walk.cut_by = CutBy::Fragment;
    }
    Ok(Next::Ethernet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Marks;
    use crate::decode::testing::{
        Outcome, decode, ethernet as in_ethernet, every_shorter_length, ipv4, segment_text,
        set_u16, tagged, udp,
    };

    /// Header of 16 octets with wireless information, 802.11 inside.
    const NATIVE: [u8; 16] = [0, 0x20, 3, 0x20, 0, 0, 0, 0, 4, 0xbf, 0x23, 0, 0, 0, 0, 0];
    const BRIDGED: [u8; 8] = [0, 0x10, 2, 0, 0, 0, 0, 0];
    const SNAP: [u8; 8] = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];

    fn inner() -> Vec<u8> {
        ipv4(17, &udp(1, 2, b"payload"))
    }

    fn wlan(control: [u8; 2], octets: usize, inner: &[u8]) -> Vec<u8> {
        [&control[..], &vec![0; octets - 2], &SNAP, inner].concat()
    }

    fn capwap(ports: (u16, u16), header: &[u8], frame: &[u8]) -> Vec<u8> {
        let payload = [header, frame].concat();
        tagged(&in_ethernet(&ipv4(17, &udp(ports.0, ports.1, &payload))), &[(0x8100, 42)])
    }

    #[test]
    fn frames_are_read_in_both_directions() {
        for (ports, header, frame, layer2) in [
            ((9, 5247), &NATIVE[..], wlan([8, 1], 24, &inner()), 35),
            ((5247, 9), &NATIVE, wlan([2, 8], 24, &inner()), 35),
            ((5247, 9), &NATIVE, wlan([0x88, 2], 26, &inner()), 35),
            ((9, 5247), &BRIDGED, in_ethernet(&inner()), 49),
        ] {
            let frame = capwap(ports, header, &frame);
            let headers = decode(&frame).expect("inner");
            assert_eq!((headers.source_port, headers.destination_port), (1, 2));
            assert_eq!(headers.layer2_octets, layer2);
            assert_eq!(segment_text(&headers), "default/vlan/42");
            every_shorter_length(&frame, |at, outcome| {
                let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
                assert!(at >= 38 || result.is_err(), "{at}");
            });
        }
    }

    #[test]
    fn a_bridged_frame_that_the_capture_cut_is_snapped_and_no_flow_of_the_port() {
        let frame = capwap((9, 5247), &BRIDGED, &in_ethernet(&inner()));
        let (tunnel, begin) = (46, 54);
        every_shorter_length(&frame, |at, outcome| match outcome {
            Outcome::Snapped(result) if (tunnel..begin + 15).contains(&at) => {
                assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
            }
            Outcome::Snapped(_) | Outcome::WireShort(_) => {}
        });
    }

    #[test]
    fn every_shorter_message_is_a_flow_of_its_port() {
        let whole = [&NATIVE[..], &wlan([8, 1], 24, &inner())].concat();
        for length in 0..48 {
            let part = whole.get(..length).expect("shorter");
            let headers = decode(&capwap((9, 5247), part, &[])).expect("a flow");
            assert_eq!((headers.source_port, headers.destination_port), (9, 5247), "{length}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_flow_of_its_port() {
        let frame = wlan([8, 1], 24, &inner());
        let change = |place: usize, value: u8| {
            let mut header = NATIVE;
            *header.get_mut(place).expect("inside") = value;
            capwap((9, 5247), &header, &frame)
        };
        for frame in [
            change(0, 1),
            change(0, 0x10),
            change(1, 8),
            change(2, 5),
            change(3, 0x28),
            capwap((9, 5247), &NATIVE, &wlan([0x80, 0], 24, &inner())),
            capwap((9, 5247), &NATIVE, &wlan([8, 0x41], 24, &inner())),
            capwap((9, 5247), &BRIDGED, &[0xff; 40]),
        ] {
            assert_eq!(decode(&frame).expect("a flow").destination_port, 5247);
        }
    }

    #[test]
    fn a_first_fragment_shows_its_packet_and_a_later_one_is_a_flow() {
        let mut header = NATIVE;
        set_u16(&mut header, 2, 0x0320 | FLAG_FRAGMENT);
        let whole = wlan([8, 1], 24, &inner());
        let part = whole.get(..whole.len() - 3).expect("shorter");
        let headers = decode(&capwap((9, 5247), &header, part)).expect("inner");
        assert_eq!((headers.destination_port, headers.octets), (2, 35));
        assert!(headers.marks.has(Marks::SNAPPED) && !headers.marks.has(Marks::MIRROR_TRUNCATED));
        set_u16(&mut header, 6, 64);
        let headers = decode(&capwap((9, 5247), &header, part)).expect("a flow");
        assert_eq!(headers.destination_port, 5247);
    }
}
