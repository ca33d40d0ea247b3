//! TCP headers.
//!
//! In: the payload of an IP packet. Out: ports, flags, sequence numbers, window, timestamps, the
//! first two SACK blocks, what a SYN says of segments and windows, the payload.
//! Cost: one length check; options are read in one pass of at most 40 octets.
//! Invariants: a header cut behind its flags is enough (14 octets); wrong options end the pass
//! and are no error; the checksum is not verified.
//! Source: RFC 9293 section 3.1; timestamps, RFC 7323 section 3.2; SACK, RFC 2018 section 3;
//! accurate ECN flag, RFC 9768.

use super::walk::{Next, Step, Walk, octets};
use super::{Headers, Marks, protocol, tcp_flag};
use crate::counters::DropCause;

const HEADER_OCTETS: u32 = 20;

/// Octets that must have been captured: through the flags.
const CAPTURED_MIN: usize = 14;

/// No operation, no operation, timestamps of ten octets: as nearly every sender lays it out
/// (RFC 7323 appendix A).
pub(super) const ALIGNED_TIMESTAMP: [u8; 4] = [1, 1, 8, 10];

/// A TCP header without its options.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a>(pub &'a [u8; 20]);

impl Tcp<'_> {
    /// Source port.
    #[inline]
    pub const fn source_port(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Destination port.
    #[inline]
    pub const fn destination_port(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Sequence number of the first octet.
    #[inline]
    pub const fn sequence(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Acknowledgement number, valid with ACK.
    #[inline]
    pub const fn acknowledgement(self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Length of the header in octets, with options: 0–60, valid from 20.
    #[inline]
    pub const fn header_octets(self) -> u32 {
        ((self.0[12] >> 4) as u32) * 4
    }

    /// Flags, see [`tcp_flag`].
    #[inline]
    pub const fn flags(self) -> u16 {
        u16::from_be_bytes([self.0[12] & 1, self.0[13]])
    }

    /// Window, not scaled.
    #[inline]
    pub const fn window(self) -> u16 {
        u16::from_be_bytes([self.0[14], self.0[15]])
    }
}

/// Takes the header.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    out.protocol = protocol::TCP;
    let segment_octets = walk.limit;
    let Some((header, behind)) = walk.rest.split_first_chunk() else { return cut(walk, out) };
    let header = Tcp(header);
    write(out, header);
    let header_octets = header.header_octets();
    if header_octets < HEADER_OCTETS {
        return Err(DropCause::MalformedTcp);
    }
    if header_octets > segment_octets {
        return too_long(walk, out);
    }
    let options_octets = (header_octets - HEADER_OCTETS) as usize;
    // Options that the capture cut leave a payload of nothing, at the end of the frame.
    let captured = options_octets.min(behind.len());
    let Some((options, payload)) = behind.split_at_checked(captured) else {
        return Err(DropCause::SnappedHeader);
    };
    if options_octets != 0 {
        read_options(options, &mut walk.ip_marks, out);
    }
    walk.rest = payload;
    walk.limit = segment_octets - header_octets;
    walk.write_payload(out);
    Ok(Next::Flow)
}

#[inline]
fn write(out: &mut Headers, header: Tcp<'_>) {
    out.source_port = header.source_port();
    out.destination_port = header.destination_port();
    out.tcp_sequence = header.sequence();
    out.tcp_flags = header.flags();
    out.tcp_window = header.window();
    if out.tcp_flags & tcp_flag::ACK != 0 {
        out.tcp_acknowledgement = header.acknowledgement();
    }
}

/// A header that is not all there: cut by the capture behind its flags, or by a fragment behind
/// its ports (the least that a first fragment holds is eight octets, RFC 1858 section 3).
#[cold]
fn cut(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    let fragment = walk.ip_marks.has(Marks::FRAGMENT) && walk.limit >= 8;
    if walk.limit < HEADER_OCTETS && !fragment {
        return Err(DropCause::MalformedTcp);
    }
    let captured_min = if walk.limit < octets(CAPTURED_MIN) { 8 } else { CAPTURED_MIN };
    if walk.rest.len() < captured_min {
        return Err(DropCause::SnappedHeader);
    }
    // What is missing reads as 0.
    let mut header = [0; 20];
    for (to, from) in header.iter_mut().zip(walk.rest) {
        *to = *from;
    }
    write(out, Tcp(&header));
    let header_octets = Tcp(&header).header_octets();
    if captured_min == CAPTURED_MIN && header_octets < HEADER_OCTETS {
        return Err(DropCause::MalformedTcp);
    }
    if header_octets > walk.limit && !fragment {
        return Err(DropCause::MalformedTcp);
    }
    no_payload(walk, out, header_octets.max(HEADER_OCTETS))
}

/// The options end behind the packet: no fault where the rest is in the next fragment.
#[cold]
fn too_long(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    if !walk.ip_marks.has(Marks::FRAGMENT) {
        return Err(DropCause::MalformedTcp);
    }
    let header_octets = walk.limit;
    no_payload(walk, out, header_octets)
}

/// Nothing of the payload was captured.
fn no_payload(walk: &mut Walk<'_>, out: &mut Headers, header_octets: u32) -> Step {
    walk.rest = walk.rest.get(walk.rest.len()..).unwrap_or(&[]);
    walk.limit = walk.limit.saturating_sub(header_octets);
    walk.write_payload(out);
    Ok(Next::Flow)
}

#[inline]
pub(super) fn read_options(options: &[u8], marks: &mut Marks, out: &mut Headers) {
    let mut rest = options;
    if let Some((&ALIGNED_TIMESTAMP, behind)) = options.split_first_chunk()
        && let Some((times, behind)) = behind.split_first_chunk()
    {
        timestamps(times, marks, out);
        rest = behind;
    }
    while let [kind, behind @ ..] = rest {
        rest = match (*kind, behind) {
            (0, _) => return,
            (1, _) => behind,
            // What nearly all SYNs have: an option whose length is known is read in a few steps.
            (2, [4, high, low, next @ ..]) => {
                out.tcp_syn_options = syn_segment(out.tcp_syn_options, [*high, *low]);
                next
            }
            (3, [3, shift, next @ ..]) => {
                out.tcp_syn_options = syn_shift(out.tcp_syn_options, *shift);
                next
            }
            _ => match other_option(*kind, behind, marks, out) {
                Some(next) => next,
                None => return,
            },
        };
    }
}

/// Kind and body of the first option, and what stands behind it; `None` at the end.
#[inline]
pub(super) fn next_option(rest: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, behind) = rest.split_first()?;
    match kind {
        0 => None,
        1 => Some((1, &[], behind)),
        _ => body_of(behind).map(|(body, next)| (*kind, body, next)),
    }
}

/// The body of the option of which `behind` is what stands behind its kind, and what stands behind that;
/// `None` where it does not end within the header.
#[inline]
fn body_of(behind: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, behind) = behind.split_first()?;
    behind.split_at_checked(usize::from(*length).checked_sub(2)?)
}

/// Reads any other option, of which `behind` is what stands behind its kind; what stands behind it, or
/// `None` where it does not end within the header.
fn other_option<'a>(
    kind: u8,
    behind: &'a [u8],
    marks: &mut Marks,
    out: &mut Headers,
) -> Option<&'a [u8]> {
    let (body, next) = body_of(behind)?;
    match (kind, body.len()) {
        (8, 8) => {
            if let Some(times) = body.first_chunk() {
                timestamps(times, marks, out);
            }
        }
        (5, 8..) => sack(body, marks, out),
        _ => {}
    }
    Some(next)
}

/// The first two blocks; a length that holds no whole number of them says nothing of octets.
#[cold]
fn sack(body: &[u8], marks: &mut Marks, out: &mut Headers) {
    marks.set(Marks::TCP_SACK);
    let mut edges = [0; 4];
    if body.len().is_multiple_of(8) {
        for (to, from) in edges.iter_mut().zip(body.as_chunks::<4>().0) {
            *to = u32::from_be_bytes(*from);
        }
    }
    out.set_tcp_sack(edges);
}

/// [`Headers::tcp_syn_options`] with the largest segment, as it stands in the header.
#[inline]
pub(super) const fn syn_segment(options: u32, [high, low]: [u8; 2]) -> u32 {
    options & !0xffff | u16::from_be_bytes([high, low]) as u32
}

/// The same with the shift of windows. Larger shifts count as the largest there is (RFC 7323
/// section 2.3).
#[inline]
pub(super) const fn syn_shift(options: u32, shift: u8) -> u32 {
    const SHIFT_MAX: u8 = 14;
    let shift = if shift < SHIFT_MAX { shift } else { SHIFT_MAX };
    options & !(0xff << 16) | (shift as u32 + 1) << 16
}

#[inline]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "a view of the packet, not a copy")]
fn timestamps(times: &[u8; 8], marks: &mut Marks, out: &mut Headers) {
    let [a, b, c, d, e, f, g, h] = *times;
    out.tcp_timestamp_value = u32::from_be_bytes([a, b, c, d]);
    out.tcp_timestamp_echo = u32::from_be_bytes([e, f, g, h]);
    marks.set(Marks::TCP_TIMESTAMP);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, set_u16, tcp,
    };

    const SYN_ACK: u16 = tcp_flag::SYN | tcp_flag::ACK;

    #[test]
    fn fields_are_read() {
        let headers = decode(&ethernet(&ipv4(6, &tcp(0x1ff, &[], b"abc")))).expect("whole");
        assert_eq!((headers.source_port, headers.destination_port), (40000, 443));
        assert_eq!((headers.tcp_sequence, headers.tcp_acknowledgement), (0x0102_0304, 0x0506_0708));
        assert_eq!((headers.tcp_flags, headers.tcp_window), (0x1ff, 512));
        assert_eq!((headers.payload_octets, headers.payload_offset), (3, 54));
        assert_eq!(headers.payload_head.first_chunk(), Some(b"abc"));
        let headers = decode(&ethernet(&ipv4(6, &tcp(tcp_flag::SYN, &[], &[])))).expect("whole");
        assert_eq!(headers.tcp_acknowledgement, 0, "without ACK it means nothing");
    }

    #[test]
    fn options_are_read_in_any_order() {
        let times = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let sack = [5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let aligned = [&[1, 1][..], &times, &[1, 1], &sack].concat();
        let syn = [&[2, 4, 5, 0xb4, 4, 2][..], &times, &[1, 3, 3, 7]].concat();
        let other = [&sack[..], &times].concat();
        for (options, has_sack) in [(aligned, true), (syn, false), (other, true)] {
            let headers =
                decode(&ethernet(&ipv4(6, &tcp(SYN_ACK, &options, b"x")))).expect("whole");
            assert_eq!((headers.tcp_timestamp_value, headers.tcp_timestamp_echo), (1, 2));
            assert!(headers.marks.has(Marks::TCP_TIMESTAMP));
            assert_eq!(headers.marks.has(Marks::TCP_SACK), has_sack);
            assert_eq!(headers.tcp_sack(), has_sack.then_some([1, 2, 0, 0]));
            let of_syn = if has_sack { 0 } else { (8 << 16) + 1_460 };
            assert_eq!(headers.tcp_syn_options, of_syn);
            assert_eq!(headers.payload_octets, 1);
        }
    }

    #[test]
    fn wrong_options_are_no_error() {
        for options in [[8, 10, 0, 0], [8, 0, 0, 0], [8, 1, 0, 0], [1, 1, 1, 8], [0, 8, 10, 0]] {
            let headers =
                decode(&ethernet(&ipv4(6, &tcp(SYN_ACK, &options, b"x")))).expect("whole");
            assert!(!headers.marks.has(Marks::TCP_TIMESTAMP), "{options:?}");
            assert_eq!(headers.payload_octets, 1);
        }
    }

    #[test]
    fn a_wrong_data_offset_is_malformed() {
        for offset in [0x4012, 0x6012, 0xf012] {
            let mut bytes = ethernet(&ipv4(6, &tcp(SYN_ACK, &[], b"abc")));
            set_u16(&mut bytes, 46, offset);
            assert_eq!(decode(&bytes).err(), Some(DropCause::MalformedTcp), "{offset:04x}");
        }
    }

    #[test]
    fn a_header_cut_behind_its_flags_is_enough() {
        let times = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        every_shorter_length(&ethernet(&ipv4(6, &tcp(SYN_ACK, &times, b"abc"))), |at, outcome| {
            match outcome {
                Outcome::WireShort(result) if at < 34 => assert!(result.is_err(), "{at}"),
                Outcome::Snapped(result) | Outcome::WireShort(result) if at < 48 => {
                    assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
                }
                Outcome::Snapped(result) | Outcome::WireShort(result) => {
                    let headers = result.expect("flags are there");
                    assert_eq!((headers.tcp_flags, headers.octets), (SYN_ACK, 55));
                    assert_eq!((headers.payload_octets, headers.tcp_sequence), (3, 0x0102_0304));
                    assert_eq!(headers.payload_captured_octets as usize, at.saturating_sub(66));
                    assert_eq!(headers.marks.has(Marks::TCP_TIMESTAMP), at >= 66);
                }
            }
        });
    }

    #[test]
    fn a_header_shorter_than_its_packet_allows_is_malformed() {
        let header = tcp(SYN_ACK, &[], &[]);
        for length in 0..20 {
            let part = header.get(..length).expect("shorter");
            let result = decode(&ethernet(&ipv4(6, part)));
            assert_eq!(result.err(), Some(DropCause::MalformedTcp), "{length}");
        }
    }

    #[test]
    fn the_least_first_fragment_has_ports() {
        let header = tcp(SYN_ACK, &[], &[]);
        for length in 8..20 {
            let mut bytes = ethernet(&ipv4(6, header.get(..length).expect("shorter")));
            set_u16(&mut bytes, 20, 0x2000);
            let headers = decode(&bytes).expect("ports are there");
            assert_eq!((headers.source_port, headers.tcp_sequence), (40000, 0x0102_0304));
            assert_eq!(headers.payload_octets, 0);
        }
    }
}
