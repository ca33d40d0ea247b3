//! What most packets need to be counted and measured: far less than [`Headers`].
//!
//! In: a frame of the common shape (see `plain`), whole. Out: [`Brief`], or nothing where all headers
//! must be read by the decoder; [`Fields`] beside it; [`Headers`] from a brief, for who asks for more.
//! Cost: one length check and some 40 instructions; a third of what [`Headers`] take.
//! Invariants: where a brief is made, the decoder accepts the frame, and says the same of it (a
//! property test compares them, and the headers made from a brief with the decoder's).
//! Source: as in `ethernet`, `ipv4`, `tcp` and `udp`.

mod passed;
mod tunnelled;

pub use passed::InBrief;
pub(super) use tunnelled::{Tunnel, Tunnelled};

use super::plain::{Around, MirrorNote, Plain};
use super::tcp::{ALIGNED_TIMESTAMP, next_option, syn_segment, syn_shift};
use super::udp::TunnelPorts;
use super::{Address, Headers, Marks, PAYLOAD_HEAD_OCTETS, protocol, tcp_flag};
use crate::capture::{Frame, LinkType};
use crate::index::{Sender, TapIndex};
use crate::inventory::{AddressSpace, Segment};
use crate::time::Timestamp;

/// IPv4, and TCP without options. Shorter packets are padded; where they are not, all headers are
/// read.
const HEAD_OCTETS: usize = 40;

const ETHERNET_OCTETS: usize = 14;
const IPV4_OCTETS: u32 = 20;
const TCP_OCTETS: u32 = 20;
const UDP_OCTETS: u32 = 8;

/// Place of the TCP sequence number behind an IPv4 header without options.
const SEQUENCE_AT: usize = 24;

/// TCP header whose only option is the timestamps, laid out as nearly every sender does.
const STAMPED_TCP_OCTETS: u32 = 32;

/// EtherType IPv4; version 4 and five words, no options; any traffic class behind them.
const IPV4_WITHOUT_OPTIONS: u32 = u32::from_ne_bytes([0x08, 0x00, 0x45, 0]);
const WITHOUT_TRAFFIC_CLASS: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);

/// All but don't-fragment and the reserved bit before it.
const FRAGMENT_BITS: u16 = u16::from_ne_bytes([0x3f, 0xff]);

/// Flags of segments that may begin a flow, or end it at once.
const NOT_SETTLED: u16 = tcp_flag::SYN | tcp_flag::RST;

/// Marks of packets of which a brief is made.
const MARKS: Marks =
    Marks(Marks::ETHERNET.0 | Marks::TCP_TIMESTAMP.0 | Marks::DONT_FRAGMENT.0 | Marks::MIRROR.0);

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    pub(super) tap: TapIndex,
    pub(super) segment: Segment,
    pub(super) space: AddressSpace,
}

impl FramePlace {
    /// The tap that copied the frame.
    pub const fn tap(&self) -> TapIndex {
        self.tap
    }
}

/// A packet of the common shape, in brief.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    /// Hash of the canonical flow key, filled in by `spread`.
    pub hash: u64,
    /// Address (32 bits) and port (16) of source and destination; in the order of the key once
    /// `spread` has named the flow.
    pub ends: [u64; 2],
    /// Address space.
    pub space: AddressSpace,
    /// Segment.
    pub segment: Segment,
    /// Receive time.
    pub timestamp: Timestamp,
    /// The largest receive time of the source up to this packet.
    pub clock: Timestamp,
    /// IP octets.
    pub octets: u16,
    /// Tap that copied the packet.
    pub tap: TapIndex,
    /// Low octet of the TCP flags, 0 with UDP.
    pub tcp_flags: u8,
    /// TCP or UDP.
    pub protocol: u8,
    /// Who sent it, filled in by `spread`.
    pub sender: Sender,
    /// Whether there is payload.
    pub has_payload: bool,
    /// Destination and source MAC, as they stand in the frame.
    pub stations: [u8; 12],
    /// Octets of the frame on the wire.
    pub wire_octets: u32,
    /// Place of the IPv4 header in the frame.
    pub ip_at: u16,
    /// What a mirror says of the packet, of [`Marks::MIRROR`].
    pub mirror_marks: Marks,
    /// See [`Headers::mirror_sequence`].
    pub mirror_sequence: u32,
}

const _: () = assert!(size_of::<Brief>() == 88, "as the documents state it");

impl Brief {
    /// Writes that of an untagged frame, the largest receive time so far being `clock`; `None`, and what
    /// is written means nothing, where it is another one. Inlined, so that of the frame only what is
    /// looked at is ever read.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a tenth of all instructions of a packet")]
    pub(super) fn write(
        frame: &Frame<'_>,
        clock: Timestamp,
        place: &FramePlace,
        tunnels: &TunnelPorts,
        out: &mut Self,
    ) -> Option<()> {
        if !matches!(frame.link, LinkType::Ethernet) || frame.stripped_vlan.is_some() {
            return None;
        }
        // One check of the length; the places of both headers follow from it.
        let start: &[u8; ETHERNET_OCTETS + HEAD_OCTETS] = frame.bytes.first_chunk()?;
        let (ethernet, from_ip) = start.split_first_chunk::<ETHERNET_OCTETS>()?;
        let head: &[u8; HEAD_OCTETS] = from_ip.first_chunk()?;
        let kind = u32::from_ne_bytes(octets_at(start, 12));
        let is_plain = kind & WITHOUT_TRAFFIC_CLASS == IPV4_WITHOUT_OPTIONS
            && u16::from_ne_bytes(octets_at(head, 6)) & FRAGMENT_BITS == 0
            && usize::from(short(head, 2)) + ETHERNET_OCTETS <= frame.bytes.len();
        if !is_plain {
            return None;
        }
        let stations = ethernet.first_chunk()?;
        Self::write_packet((frame, clock), place, tunnels, (stations, head, 14), out)
    }

    /// The same of a packet that was found to be of the common shape, and whole, `ip_at` octets into
    /// the frame.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `Brief::write`")]
    pub(super) fn write_packet(
        (frame, clock): (&Frame<'_>, Timestamp),
        place: &FramePlace,
        tunnels: &TunnelPorts,
        (stations, head, ip_at): (&[u8; 12], &[u8; HEAD_OCTETS], u16),
        out: &mut Self,
    ) -> Option<()> {
        // Each field is written as soon as it is known: all of them do not fit the registers.
        (out.timestamp, out.clock, out.wire_octets) = (frame.timestamp, clock, frame.wire_octets);
        let octets = short(head, 2);
        (out.octets, out.protocol) = (octets, head[9]);
        if head[9] == protocol::TCP {
            let headers_octets = IPV4_OCTETS + tcp_header_octets(head)?;
            out.has_payload = u32::from(octets).checked_sub(headers_octets)? != 0;
            out.tcp_flags = head[33];
        } else {
            let claimed = udp_octets(head, u32::from(octets), tunnels)?;
            out.has_payload = claimed.checked_sub(UDP_OCTETS)? != 0;
            out.tcp_flags = 0;
        }
        (out.tap, out.segment, out.space) = (place.tap, place.segment, place.space);
        (out.stations, out.ip_at) = (*stations, ip_at);
        out.set_mirror(MirrorNote::default());
        out.ends = ends(head);
        Some(())
    }
}

impl Brief {
    #[inline]
    pub(super) const fn set_mirror(&mut self, note: MirrorNote) {
        (self.mirror_marks, self.mirror_sequence) = (note.marks, note.sequence);
    }

    /// The sequence number that the mirror gave the packet.
    #[inline]
    pub const fn sequence(&self) -> Option<u32> {
        if self.mirror_marks.has(Marks::MIRROR_SEQUENCE) {
            Some(self.mirror_sequence)
        } else {
            None
        }
    }

    /// The same of a packet whose headers were all read, and whose flow is named; `None` where it is not
    /// of the common shape. Where its frame is, is not known any more: [`Brief::ip_at`] is 0, and
    /// [`Brief::wire_octets`] are those of the innermost frame.
    #[inline]
    pub fn of(headers: &Headers) -> Option<Self> {
        let is_plain = headers.ip_version == 4
            && (headers.protocol == protocol::TCP || headers.protocol == protocol::UDP)
            && headers.marks.0 & !MARKS.0 == 0
            && headers.payload_captured_octets == headers.payload_octets;
        let octets = u16::try_from(headers.octets).ok().filter(|_| is_plain)?;
        let source = end_of(headers.source, headers.source_port);
        let destination = end_of(headers.destination, headers.destination_port);
        let [a, b, c, d, e, f] = headers.destination_mac.0;
        let [g, h, i, j, k, l] = headers.source_mac.0;
        Some(Self {
            hash: headers.hash,
            ends: match headers.sender {
                Sender::Low => [source, destination],
                Sender::High => [destination, source],
            },
            space: headers.space,
            segment: headers.segment,
            timestamp: headers.timestamp,
            clock: headers.clock,
            octets,
            tap: headers.tap,
            tcp_flags: headers.tcp_flags.to_le_bytes()[0],
            protocol: headers.protocol,
            sender: headers.sender,
            has_payload: headers.payload_octets != 0,
            stations: [a, b, c, d, e, f, g, h, i, j, k, l],
            wire_octets: headers.layer2_octets,
            ip_at: 0,
            mirror_marks: Marks(headers.marks.0 & Marks::MIRROR.0),
            mirror_sequence: headers.mirror_sequence,
        })
    }

    /// Both ports.
    #[expect(clippy::cast_possible_truncation, reason = "the port is the low 16 bits")]
    pub const fn ports(&self) -> [u16; 2] {
        [self.ends[0] as u16, self.ends[1] as u16]
    }

    /// Whether it neither begins a connection nor breaks one off.
    #[inline]
    pub const fn goes_on(&self) -> bool {
        self.tcp_flags as u16 & NOT_SETTLED == 0
    }

    /// TCP sequence number of the packet, which is this from its IPv4 header on.
    #[inline]
    pub fn tcp_sequence(&self, packet: &[u8]) -> u32 {
        let number = packet.get(SEQUENCE_AT..).and_then(<[u8]>::first_chunk);
        number
            .filter(|_| self.protocol == protocol::TCP)
            .map_or(0, |octets| u32::from_be_bytes(*octets))
    }

    /// The packet in its frame, from the IPv4 header on.
    #[inline]
    pub fn packet_in<'a>(&self, frame: &Frame<'a>) -> &'a [u8] {
        frame.bytes.get(usize::from(self.ip_at)..).unwrap_or_default()
    }

    /// Writes all headers of the packet, which this begins and whose flow is named: the same that the
    /// decoder reads.
    pub fn write_headers(&self, packet: &[u8], out: &mut Headers) {
        // What is written of it are the stations; the tag behind them is in the segment.
        let mut ethernet = [0; ETHERNET_OCTETS];
        ethernet[..self.stations.len()].copy_from_slice(&self.stations);
        let Some(plain) = Plain::of_brief(&ethernet, packet, self) else { return };
        let around = Around {
            timestamp: self.timestamp,
            clock: self.clock,
            tap: self.tap,
            segment: self.segment,
            space: self.space,
            mirror: MirrorNote { marks: self.mirror_marks, sequence: self.mirror_sequence },
            before: 0,
        };
        plain.write_known(&around, out);
        (out.hash, out.sender) = (self.hash, self.sender);
    }
}

impl Brief {
    /// The payload of the packet, which this is from its IPv4 header on.
    pub fn payload<'a>(&self, fields: &Fields, packet: &'a [u8]) -> &'a [u8] {
        let octets = fields.payload_octets as usize;
        // Behind a datagram may stand what is not its own; a segment takes all there is.
        let begin = if self.protocol == protocol::TCP {
            usize::from(self.octets).saturating_sub(octets)
        } else {
            (IPV4_OCTETS + UDP_OCTETS) as usize
        };
        packet.get(begin..).and_then(|behind| behind.get(..octets)).unwrap_or_default()
    }
}

/// What a packet is known by wherever it is seen, and what TCP measures need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The first octets behind the transport header; what is missing reads as 0.
    pub payload_head: [u8; PAYLOAD_HEAD_OCTETS],
    /// TCP sequence number, and below it the acknowledgement number, which is 0 without ACK.
    pub tcp_numbers: u64,
    /// TCP timestamps, value above echo; 0 without the option.
    pub tcp_stamps: u64,
    /// Octets behind the transport header.
    pub payload_octets: u32,
    /// TCP flags and window as one word of the header has them, and [`STAMPED`].
    tcp_word: u32,
    /// IPv4 identification.
    pub ip_identification: u16,
    /// What a SYN says of segments and windows, see [`Headers::tcp_syn_options`]; 0 of others.
    pub tcp_syn_options: u32,
}

const _: () = assert!(size_of::<Fields>() == 48, "what a packet is known by, beside its brief");

/// Flags, see [`tcp_flag`], and window in [`Fields::tcp_word`]; above them stands the header's length.
const FLAGS_WINDOW: u32 = 0x01ff_ffff;
const FLAGS_SHIFT: u32 = 16;

/// Bit of [`Fields::tcp_word`]: there are timestamps.
const STAMPED: u32 = 1 << 31;

impl Fields {
    /// Of a packet of which [`Brief::of`] was made.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "IPv4 has 16 bits of it")]
    pub fn of_headers(headers: &Headers) -> Self {
        let stamped = if headers.marks.has(Marks::TCP_TIMESTAMP) { STAMPED } else { 0 };
        let flags = u32::from(headers.tcp_flags) << FLAGS_SHIFT;
        let is_syn = headers.tcp_flags & tcp_flag::SYN != 0;
        Self {
            payload_head: headers.payload_head,
            tcp_numbers: both(headers.tcp_sequence, headers.tcp_acknowledgement),
            tcp_stamps: both(headers.tcp_timestamp_value, headers.tcp_timestamp_echo),
            payload_octets: headers.payload_octets,
            tcp_word: flags & FLAGS_WINDOW | u32::from(headers.tcp_window) | stamped,
            ip_identification: headers.ip_identification as u16,
            tcp_syn_options: if is_syn { headers.tcp_syn_options } else { 0 },
        }
    }

    /// Of a packet of which a [`Brief`] could be made, and which this begins; nothing where there are
    /// TCP options beside the usual timestamps, but for those of a SYN.
    #[inline]
    pub fn of(packet: &[u8], brief: &Brief) -> Option<Self> {
        let mut fields = Self::default();
        fields.read(packet, brief).map(|()| fields)
    }

    /// The same where they stay; after `None` they mean nothing.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `Brief::write`")]
    pub fn read(&mut self, packet: &[u8], brief: &Brief) -> Option<()> {
        // Behind a short packet stands the padding of its frame.
        let head: &[u8; HEAD_OCTETS] = packet.first_chunk()?;
        (self.ip_identification, self.tcp_syn_options) = (short(head, 4), 0);
        if brief.protocol != protocol::TCP {
            return self.read_datagram(packet, head);
        }
        let word = long(head, 32);
        self.tcp_word = word & FLAGS_WINDOW;
        self.tcp_stamps = 0;
        // That it is long enough the brief says.
        let header_octets = (word >> 28) * 4;
        if header_octets != TCP_OCTETS {
            self.read_options(packet, header_octets)?;
        }
        let numbers = wide(head, 24);
        let has_ack = word & u32::from(tcp_flag::ACK) << FLAGS_SHIFT != 0;
        self.tcp_numbers = if has_ack { numbers } else { numbers & !u64::from(u32::MAX) };
        self.payload_octets = u32::from(brief.octets).checked_sub(IPV4_OCTETS + header_octets)?;
        let begin = (IPV4_OCTETS + header_octets) as usize;
        self.payload_head = head_of(packet, begin, self.payload_octets as usize)?;
        Some(())
    }

    #[inline]
    fn read_options(&mut self, packet: &[u8], header_octets: u32) -> Option<()> {
        let Some(stamps) = stamps(packet, header_octets) else {
            let is_syn = self.tcp_flags() & tcp_flag::SYN != 0;
            let options = packet.get(HEAD_OCTETS..(IPV4_OCTETS + header_octets) as usize)?;
            return if is_syn { self.read_options_of_syn(options) } else { None };
        };
        self.tcp_stamps = stamps;
        self.tcp_word |= STAMPED;
        Some(())
    }

    /// The same of a SYN, which has more of them, in any order. `None` where there are SACK blocks, which a
    /// SYN has no use for.
    #[inline(never)]
    fn read_options_of_syn(&mut self, options: &[u8]) -> Option<()> {
        let mut rest = options;
        while let Some((kind, body, next)) = next_option(rest) {
            match (kind, body) {
                (8, &[a, b, c, d, e, f, g, h]) => {
                    self.tcp_stamps = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                    self.tcp_word |= STAMPED;
                }
                (2, &[high, low]) => {
                    self.tcp_syn_options = syn_segment(self.tcp_syn_options, [high, low]);
                }
                (3, &[shift]) => self.tcp_syn_options = syn_shift(self.tcp_syn_options, shift),
                (5, _) => return None,
                _ => {}
            }
            rest = next;
        }
        Some(())
    }

    #[inline]
    fn read_datagram(&mut self, packet: &[u8], head: &[u8; HEAD_OCTETS]) -> Option<()> {
        self.payload_octets = u32::from(short(head, 24)).checked_sub(UDP_OCTETS)?;
        let begin = (IPV4_OCTETS + UDP_OCTETS) as usize;
        self.payload_head = head_of(packet, begin, self.payload_octets as usize)?;
        (self.tcp_word, self.tcp_numbers, self.tcp_stamps) = (0, 0, 0);
        Some(())
    }

    /// TCP flags, see [`tcp_flag`].
    #[inline]
    pub const fn tcp_flags(&self) -> u16 {
        ((self.tcp_word & FLAGS_WINDOW) >> FLAGS_SHIFT) as u16
    }

    /// TCP flags and window, and whether there are timestamps.
    #[inline]
    pub(crate) const fn tcp_word(&self) -> u32 {
        self.tcp_word
    }

    /// TCP window, not scaled.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the window is the low half")]
    pub const fn tcp_window(&self) -> u16 {
        self.tcp_word as u16
    }

    /// TCP sequence number.
    #[inline]
    pub const fn tcp_sequence(&self) -> u32 {
        (self.tcp_numbers >> u32::BITS) as u32
    }

    /// TCP acknowledgement number; 0 without ACK.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the acknowledgement is the low half")]
    pub const fn tcp_acknowledgement(&self) -> u32 {
        self.tcp_numbers as u32
    }

    /// Whether there are TCP timestamps.
    #[inline]
    pub const fn is_stamped(&self) -> bool {
        self.tcp_word & STAMPED != 0
    }

    /// TCP timestamps, value and echo.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each is half of the word")]
    pub const fn tcp_timestamps(&self) -> Option<(u32, u32)> {
        let stamps = ((self.tcp_stamps >> u32::BITS) as u32, self.tcp_stamps as u32);
        if self.is_stamped() { Some(stamps) } else { None }
    }
}

/// Two numbers in a word, as they stand in a header.
#[inline]
const fn both(first: u32, second: u32) -> u64 {
    ((first as u64) << u32::BITS) | second as u64
}

/// The timestamps of a header that has this option alone.
#[inline]
fn stamps(packet: &[u8], header_octets: u32) -> Option<u64> {
    let options: &[u8; 12] = packet.get(HEAD_OCTETS..)?.first_chunk()?;
    let [kinds @ .., a, b, c, d, e, f, g, h] = *options;
    let is_usual = header_octets == STAMPED_TCP_OCTETS && kinds == ALIGNED_TIMESTAMP;
    is_usual.then_some(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// Length of a TCP header that is long enough.
#[inline]
fn tcp_header_octets(head: &[u8; HEAD_OCTETS]) -> Option<u32> {
    let header_octets = u32::from(head[32] >> 4) * 4;
    (header_octets >= TCP_OCTETS).then_some(header_octets)
}

/// The first of so many octets of payload that begin at `begin`; what is missing reads as 0.
#[inline]
fn head_of(packet: &[u8], begin: usize, octets: usize) -> Option<[u8; PAYLOAD_HEAD_OCTETS]> {
    if octets == 0 {
        return Some([0; PAYLOAD_HEAD_OCTETS]);
    }
    if octets >= PAYLOAD_HEAD_OCTETS {
        return packet.get(begin..)?.first_chunk().copied();
    }
    // The sixteen octets that end where the payload does: headers stand before it.
    let window = u128::from_le_bytes(*packet.get(..begin + octets)?.last_chunk()?);
    Some((window >> (8 * (PAYLOAD_HEAD_OCTETS - octets))).to_le_bytes())
}

#[inline]
const fn short<const START: usize>(head: &[u8; START], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

#[inline]
const fn long<const START: usize>(head: &[u8; START], at: usize) -> u32 {
    u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

#[inline]
const fn wide(head: &[u8; HEAD_OCTETS], at: usize) -> u64 {
    both(long(head, at), long(head, at + 4))
}

/// The same of an address; in the order of endpoints.
#[inline]
pub(crate) const fn end_of(address: Address, port: u16) -> u64 {
    let [.., a, b, c, d] = address.0;
    ((u32::from_be_bytes([a, b, c, d]) as u64) << 16) | port as u64
}

/// The address of such a word.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the address is 32 bits above the port")]
pub(crate) const fn address_of(end: u64) -> Address {
    Address::v4(((end >> 16) as u32).to_be_bytes())
}

/// Address and port of source and destination, in one word each.
#[inline]
fn ends(head: &[u8; HEAD_OCTETS]) -> [u64; 2] {
    let source = u64::from(long(head, 12));
    // The destination, and both ports behind it.
    let rest = u64::from_be_bytes(octets_at(head, 16));
    [(source << 16) | ((rest >> 16) & 0xffff), ((rest >> 16) & !0xffff) | (rest & 0xffff)]
}

/// Octets that the header claims of a UDP datagram that is no tunnel's, and which the packet has.
#[inline]
fn udp_octets(head: &[u8; HEAD_OCTETS], octets: u32, tunnels: &TunnelPorts) -> Option<u32> {
    if head[9] != protocol::UDP || tunnels.between(short(head, 20), short(head, 22)).is_some() {
        return None;
    }
    let claimed = u32::from(short(head, 24));
    (claimed + IPV4_OCTETS <= octets).then_some(claimed)
}

/// `OCTETS` of the start of a frame or packet, in one load.
#[inline]
fn octets_at<const START: usize, const OCTETS: usize>(
    start: &[u8; START],
    at: usize,
) -> [u8; OCTETS] {
    start.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; OCTETS])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::app::Speech;
    use crate::config::Plan;
    use crate::copies::Invariant;
    use crate::decode::testing::{
        DECODERS, decoder_of, decoders, ethernet, frame_of, ipv4, mirrored, tagged, tcp, udp, vxlan,
    };
    use crate::decode::{Decoder, Headers, Marks};
    use crate::spread::{HashSeed, name_brief, name_flow};

    const TIMES: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
    const BLOCKS: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 7, 0, 0, 0, 9];
    const OPENING: [u8; 8] = [2, 4, 5, 180, 1, 3, 3, 7];
    /// As Linux lays them out: segment size, SACK permitted, timestamps, window scale.
    const LINUX_OPENING: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7];
    /// As many as a header takes: timestamps, and no-operations.
    const MOST: [u8; 40] = {
        let mut most = [1; 40];
        (most[30], most[31]) = (8, 10);
        most
    };

    fn frames() -> Vec<Vec<u8>> {
        let payload: Vec<u8> = (1..40).collect();
        // More than is passed on of a packet, and as much as fits a frame.
        let long: Vec<u8> = (0..=255).cycle().take(1_400).collect();
        vec![
            ethernet(&ipv4(6, &tcp(0x10, &[], &payload))),
            ethernet(&ipv4(6, &tcp(0x18, &TIMES, &payload[..9]))),
            ethernet(&ipv4(6, &tcp(0x11, &TIMES, &[]))),
            ethernet(&ipv4(6, &tcp(0x10, &BLOCKS, &[]))),
            ethernet(&ipv4(6, &tcp(0x02, &TIMES, &[]))),
            ethernet(&ipv4(6, &tcp(0x12, &OPENING, &[]))),
            ethernet(&ipv4(6, &tcp(0x14, &[], &[]))),
            ethernet(&ipv4(17, &udp(1_000, 53, &payload[..16]))),
            ethernet(&ipv4(17, &udp(50_000, 1_000, &payload[..13]))),
            vxlan(4_242, &ethernet(&ipv4(6, &tcp(0x10, &[], &payload)))),
            tagged(&ethernet(&ipv4(6, &tcp(0x10, &[], &payload))), &[(0x8100, 7)]),
            ethernet(&ipv4(6, &tcp(0x18, &MOST, &long[..200]))),
            ethernet(&ipv4(6, &tcp(0x18, &MOST, &long))),
            ethernet(&ipv4(6, &tcp(0x18, &TIMES, &long))),
            ethernet(&ipv4(17, &udp(50_000, 53, &long[..200]))),
            vxlan(4_242, &ethernet(&ipv4(6, &tcp(0x18, &MOST, &long[..200])))),
            vxlan(4_242, &ethernet(&ipv4(17, &udp(50_000, 53, &long)))),
            ethernet(&ipv4(6, &tcp(0x02, &LINUX_OPENING, &payload[..3]))),
            ethernet(&ipv4(6, &tcp(0x02, &LINUX_OPENING, &[]))),
            ethernet(&ipv4(6, &tcp(0x18, &[], &payload[..5]))),
        ]
    }

    fn decoder() -> Decoder {
        decoder_of(&Plan::default())
    }

    /// The same, and as mirrors send them.
    fn all_frames() -> Vec<Vec<u8>> {
        let plain = frames();
        let mirrored = plain.iter().take(9).flat_map(|frame| mirrored(frame));
        plain.iter().cloned().chain(mirrored).collect()
    }

    fn brief_of(decoder: &Decoder, frame: &Frame<'_>) -> Option<Brief> {
        brief_over(Brief::default(), decoder, frame)
    }

    /// A brief and fields in which nothing stands as it is after [`Default`]: what an older packet left.
    fn left_over() -> (Brief, Fields) {
        let segment = Segment::new(3, crate::inventory::SegmentKind::Vxlan, 0xff_ffff);
        let brief = Brief {
            hash: u64::MAX,
            ends: [u64::MAX; 2],
            space: AddressSpace::of_segment(segment),
            segment,
            timestamp: Timestamp(u64::MAX),
            clock: Timestamp(u64::MAX),
            octets: u16::MAX,
            tap: TapIndex(u16::MAX),
            tcp_flags: u8::MAX,
            protocol: u8::MAX,
            sender: Sender::High,
            has_payload: true,
            stations: [u8::MAX; 12],
            wire_octets: u32::MAX,
            ip_at: u16::MAX,
            mirror_marks: Marks(u16::MAX),
            mirror_sequence: u32::MAX,
        };
        let fields = Fields {
            payload_head: [u8::MAX; PAYLOAD_HEAD_OCTETS],
            tcp_numbers: u64::MAX,
            tcp_stamps: u64::MAX,
            payload_octets: u32::MAX,
            tcp_word: u32::MAX,
            ip_identification: u16::MAX,
            tcp_syn_options: u32::MAX,
        };
        (brief, fields)
    }

    /// The same of what is passed on: payload of a segment as long as may be.
    fn left_over_in_brief() -> InBrief {
        let mut passed = InBrief::default();
        let (brief, _) = left_over();
        passed.write(&Brief { protocol: 6, ..brief }, &[0xa5; 80]);
        passed
    }

    fn brief_over(mut brief: Brief, decoder: &Decoder, frame: &Frame<'_>) -> Option<Brief> {
        let place = decoder.place_of_untagged(frame.port);
        place
            .and_then(|place| decoder.brief((frame, Timestamp(9)), place, &mut brief))
            .or_else(|| decoder.brief_of_enclosed(frame, Timestamp(9), &mut brief))?;
        name_brief(&mut brief, HashSeed::fixed());
        Some(brief)
    }

    /// What an application is told, whose ports stand in any order.
    fn told(mut speech: Speech<'_>) -> String {
        speech.words.ports.sort_unstable();
        format!("{speech:?}")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_brief_is_what_all_headers_say(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            padding in 0_usize..20,
            captured in prop_oneof![20_usize..240, 240_usize..1_600],
            beyond in 0_u32..40,
            by in 0..DECODERS,
        ) {
            let all = all_frames();
            let mut bytes = which.get(&all).clone();
            for (place, value) in changes {
                // Mostly in the headers.
                let places = bytes.len().min(170);
                bytes[place.index(places)] = value;
            }
            bytes.resize(bytes.len() + padding, 0);
            // Half of the time the capture says so where it was cut.
            let on_wire = if beyond % 2 == 0 { frame_of(&bytes).wire_octets + beyond } else { 0 };
            bytes.truncate(captured);
            let decoder = decoders(by);
            let frame = Frame { wire_octets: on_wire.max(frame_of(&bytes).wire_octets), ..frame_of(&bytes) };
            if let Some(brief) = brief_of(&decoder, &frame) {
                let seed = HashSeed::fixed();
                // Nothing of an older packet stays.
                let (older, mut fields) = left_over();
                prop_assert_eq!(brief_over(older, &decoder, &frame), Some(brief));
                let is_read = fields.read(brief.packet_in(&frame), &brief).is_some();
                prop_assert_eq!(is_read.then_some(fields), Fields::of(brief.packet_in(&frame), &brief));
                let mut headers = Headers::default();
                let walked = decoder.decode_step_by_step(&frame, Timestamp(9), &mut headers);
                prop_assert_eq!(walked, Ok(()));
                name_flow(&mut headers, seed);
                let of_headers = Brief::of(&headers).map(|of_headers| Brief {
                    wire_octets: brief.wire_octets,
                    ip_at: brief.ip_at,
                    ..of_headers
                });
                // The decoder may have read SACK blocks.
                let is_plain = !headers.marks.has(Marks::TCP_SACK);
                prop_assert_eq!(is_plain.then_some(brief), of_headers);
                let mut from_brief = Headers { quoted_protocol: 1, ..Headers::default() };
                let packet = brief.packet_in(&frame);
                brief.write_headers(packet, &mut from_brief);
                prop_assert_eq!(format!("{from_brief:?}"), format!("{headers:?}"));
                // What is passed on is enough, whatever was passed on before.
                let mut passed = left_over_in_brief();
                if InBrief::holds(&brief, packet) {
                    passed.write(&brief, packet);
                    let mut from_passed = Headers { quoted_protocol: 1, ..Headers::default() };
                    passed.write_headers(&mut from_passed);
                    let headers = Headers { payload_offset: 0, ..headers };
                    prop_assert_eq!(format!("{from_passed:?}"), format!("{headers:?}"));
                    prop_assert_eq!(passed.fields(), Fields::of(packet, &brief));
                    let Brief { wire_octets, ip_at, .. } = *passed.brief();
                    prop_assert_eq!(*passed.brief(), Brief { wire_octets, ip_at, ..brief });
                }
                prop_assert_eq!(brief.wire_octets, frame.wire_octets);
                prop_assert!(!headers.marks.has(Marks::SNAPPED) && !headers.marks.has(Marks::FRAGMENT));
                if let Some(fields) = Fields::of(packet, &brief) {
                    let invariant = Invariant::of_brief(&brief, &fields);
                    prop_assert_eq!(invariant, Invariant::of(&headers, seed));
                    prop_assert_eq!(fields.payload_octets, headers.payload_captured_octets);
                    prop_assert_eq!(fields, Fields::of_headers(&headers));
                    // What its application is told of, from the frame or with what came along.
                    let said = told(Speech::of(&headers, &bytes));
                    let of_brief = Speech::of_brief(&brief, &fields, packet);
                    prop_assert_eq!(&told(of_brief), &said);
                    if InBrief::holds(&brief, packet) {
                        let of_passed = passed.fields().unwrap_or_default();
                        let carried = Speech::with_payload(&brief, &of_passed, of_brief.payload);
                        prop_assert_eq!(&told(carried), &said);
                    }
                }
            }
        }
    }

    #[test]
    fn the_common_shape_is_known_in_brief() {
        let decoder = decoder();
        let all = frames();
        let briefs: Vec<bool> =
            all.iter().map(|bytes| brief_of(&decoder, &frame_of(bytes)).is_some()).collect();
        assert_eq!(briefs, [true; 20]);
        let goes_on = |bytes: &[u8]| {
            brief_of(&decoder, &frame_of(bytes)).is_some_and(|brief| brief.goes_on())
        };
        assert!(goes_on(&all[0]) && goes_on(&all[7]));
        assert!(!goes_on(&all[4]) && !goes_on(&all[5]) && !goes_on(&all[6]));
        let fields = |bytes: &[u8]| {
            let frame = frame_of(bytes);
            let brief = brief_of(&decoder, &frame).expect("the common shape");
            Fields::of(brief.packet_in(&frame), &brief)
        };
        assert!(fields(&all[1]).is_some_and(|fields| fields.tcp_timestamps() == Some((7, 9))));
        assert_eq!(fields(&all[3]), None, "SACK blocks are for all headers");
        assert!(fields(&all[5]).is_some_and(|fields| !fields.is_stamped()));
        let said = |bytes: &[u8]| fields(bytes).map(|fields| fields.tcp_syn_options);
        assert_eq!((said(&all[17]), said(&all[1])), (Some((8 << 16) + 1_460), Some(0)));
        assert!(fields(&all[17]).is_some_and(|fields| fields.tcp_timestamps() == Some((7, 9))));
    }
}
