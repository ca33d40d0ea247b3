//! PPP protocol numbers, as PPPoE and PPTP carry them.
//!
//! In: a PPP frame without flags and FCS. Out: how long its header is, and what IP follows it.
//! Cost: one length check for each part; only PPP comes here.
//! Invariants: what is compressed, encrypted or no IP has no packet that can be read.
//! Source: RFC 1661 section 2, field compression section 6.5 and 6.6; address and control,
//! RFC 1662 section 3.1; MPLS, RFC 3032 section 4.3.

use super::walk::{Next, Walk};
use crate::counters::DropCause;

const ALL_STATIONS: [u8; 2] = [0xff, 3];
const IPV4: u16 = 0x0021;
const IPV6: u16 = 0x0057;
const MPLS: u16 = 0x0281;

/// Takes the header: address and control where they stand, and the protocol number of one or two
/// octets. `None`, with nothing taken, where the number names no IP.
pub(super) fn step(walk: &mut Walk<'_>, short: DropCause) -> Result<Option<Next>, DropCause> {
    let begin = match walk.peek::<2>(0)? {
        Some(&ALL_STATIONS) => 2,
        _ => 0,
    };
    let Some(&[first]) = walk.peek::<1>(begin)? else { return Err(short) };
    // An odd octet ends a number (RFC 1661 section 2); a compressed one has no other.
    let (number, octets) = if first & 1 == 1 {
        (u16::from(first), 1)
    } else {
        let Some(number) = walk.peek::<2>(begin)? else { return Err(short) };
        (u16::from_be_bytes(*number), 2)
    };
    let next = match number {
        IPV4 => Next::Ipv4,
        IPV6 => Next::Ipv6,
        MPLS => Next::Mpls,
        _ => return Ok(None),
    };
    walk.skip(begin + octets, short)?;
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tap::PortTaps;
    use crate::decode::testing::frame_of;

    fn read(bytes: &[u8], wire_octets: u32) -> (Result<Option<Next>, DropCause>, usize) {
        let mut frame = frame_of(bytes);
        frame.wire_octets = wire_octets;
        let mut walk = Walk::new(&frame, PortTaps::default(), 1);
        (step(&mut walk, DropCause::NotIpPppoe), bytes.len() - walk.rest.len())
    }

    #[test]
    fn headers_of_one_to_four_octets_are_read() {
        for (header, next) in [
            (&[0xff, 3, 0, 0x21][..], Some(Next::Ipv4)),
            (&[0xff, 3, 0x21], Some(Next::Ipv4)),
            (&[0, 0x57], Some(Next::Ipv6)),
            (&[0x57], Some(Next::Ipv6)),
            (&[2, 0x81], Some(Next::Mpls)),
            (&[0xff, 3, 0xc0, 0x21], None),
            (&[0, 0xfd], None),
        ] {
            let taken = if next.is_some() { header.len() } else { 0 };
            let wire_octets = u32::try_from(header.len()).expect("short");
            assert_eq!(read(header, wire_octets), (Ok(next), taken), "{header:x?}");
        }
    }

    #[test]
    fn every_shorter_length_is_a_cause() {
        let header = [0xff, 3, 0, 0x21];
        for length in 0..header.len() {
            let part = header.get(..length).expect("shorter");
            assert_eq!(read(part, 4).0, Err(DropCause::SnappedHeader), "{length}");
            let whole = u32::try_from(length).expect("short");
            // 0xff alone is a compressed number.
            let short = if length == 1 { Ok(None) } else { Err(DropCause::NotIpPppoe) };
            assert_eq!(read(part, whole).0, short, "{length}");
        }
    }
}
