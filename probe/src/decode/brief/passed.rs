//! A packet of the common shape on its way to the worker that owns its flow.
//!
//! In: a brief whose flow is named, and the packet. Out: the same in two cache lines: the brief, the
//! [`Fields`], all [`Headers`].
//! Cost: moves of a known length; what is read is read where it stands.
//! Invariants: nothing that a brief says goes along twice. What is read is what was read of the packet
//! itself (a property test compares them), whatever stood in the memory before.
//! Source: as in `ipv4`, `tcp` and `udp`.

use super::{Brief, Fields, HEAD_OCTETS, IPV4_OCTETS, STAMPED, TCP_OCTETS, UDP_OCTETS};
use super::{FLAGS_WINDOW, octets_at};
use crate::decode::tcp::ALIGNED_TIMESTAMP;
use crate::decode::{Headers, PAYLOAD_HEAD_OCTETS, protocol, tcp_flag};
use crate::index::Sender;

/// Octets that go along of what stands behind the ports.
const BEHIND_OCTETS: usize = 40;

/// Of TCP: sequence to window, then options and payload. Checksum and urgent pointer stay behind.
const TCP_FIXED_OCTETS: usize = 12;

/// Where in an IPv4 packet both stand, and where what goes along ends.
const BEHIND_PORTS: usize = 24;
const TCP_OPTIONS: usize = HEAD_OCTETS;
const TCP_END: usize = TCP_OPTIONS + BEHIND_OCTETS - TCP_FIXED_OCTETS;
const UDP_END: usize = BEHIND_PORTS + BEHIND_OCTETS;

/// A packet of the common shape: what its owner counts it by, and what it reads the rest from.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct InBrief {
    /// In place of [`Brief::wire_octets`] and [`Brief::ip_at`], which only who has the frame asks for,
    /// stand the octets of the IPv4 header that a brief does not tell.
    brief: Brief,
    behind: [u8; BEHIND_OCTETS],
}

const _: () = assert!(size_of::<InBrief>() == 128, "two cache lines");

impl Default for InBrief {
    fn default() -> Self {
        Self { brief: Brief::default(), behind: [0; BEHIND_OCTETS] }
    }
}

impl InBrief {
    /// Whether all that its owner may read of a packet goes along: not so where the first octets of a
    /// payload stand behind more options than timestamps.
    #[inline]
    pub fn holds(brief: &Brief, packet: &[u8]) -> bool {
        // The length of a TCP header stands in its upper half, in words.
        usize::from(brief.octets) <= TCP_END
            || brief.protocol != protocol::TCP
            || packet.get(32).is_some_and(|length| *length < 0x90)
    }

    /// Makes it that of a packet, from the IPv4 header on.
    #[inline]
    pub fn write(&mut self, brief: &Brief, packet: &[u8]) {
        self.brief = *brief;
        let Some(head) = packet.first_chunk::<HEAD_OCTETS>() else { return };
        self.brief.wire_octets = u32::from_ne_bytes([head[1], head[8], head[4], head[5]]);
        self.brief.ip_at = u16::from_ne_bytes([head[6], head[7]]);
        if brief.protocol != protocol::TCP {
            self.write_datagram(packet);
            return;
        }
        let Some((fixed, options)) = self.behind.split_first_chunk_mut::<TCP_FIXED_OCTETS>() else {
            return;
        };
        *fixed = octets_at(head, BEHIND_PORTS);
        let behind = packet.get(TCP_OPTIONS..packet.len().min(TCP_END)).unwrap_or_default();
        if let (Some(to), Some(from)) = (options.first_chunk_mut(), behind.first_chunk()) {
            let to: &mut [u8; TCP_END - TCP_OPTIONS] = to;
            *to = *from;
        } else if !write_ends::<16>(options, behind) && !write_ends::<8>(options, behind) {
            write_few(options, behind);
        }
    }

    #[inline]
    fn write_datagram(&mut self, packet: &[u8]) {
        let behind = packet.get(BEHIND_PORTS..packet.len().min(UDP_END)).unwrap_or_default();
        if let Some(from) = behind.first_chunk() {
            self.behind = *from;
        } else if !write_ends::<32>(&mut self.behind, behind) {
            write_ends::<16>(&mut self.behind, behind);
        }
    }

    /// The flow is named. What it says of the frame means nothing.
    #[inline]
    pub const fn brief(&self) -> &Brief {
        &self.brief
    }

    /// What [`Fields::of`] gives for the packet.
    #[inline]
    pub fn fields(&self) -> Option<Fields> {
        let Self { brief, behind } = self;
        let [_, _, identification @ ..] = brief.wire_octets.to_ne_bytes();
        let mut fields =
            Fields { ip_identification: u16::from_be_bytes(identification), ..Fields::default() };
        if brief.protocol != protocol::TCP {
            let claimed = u32::from(u16::from_be_bytes([behind[0], behind[1]]));
            fields.payload_octets = claimed.checked_sub(UDP_OCTETS)?;
            // Behind length and checksum.
            fields.payload_head = head_of(behind, 4, fields.payload_octets as usize);
            return Some(fields);
        }
        let word = u32::from_be_bytes(octets_at(behind, 8));
        fields.tcp_word = word & FLAGS_WINDOW;
        let header_octets = (word >> 28) * 4;
        let options_octets = header_octets.checked_sub(TCP_OCTETS)? as usize;
        if options_octets != 0 {
            self.read_options(options_octets, &mut fields)?;
        }
        let numbers = u64::from_be_bytes(octets_at(behind, 0));
        let has_ack = fields.tcp_flags() & tcp_flag::ACK != 0;
        fields.tcp_numbers = if has_ack { numbers } else { numbers & !u64::from(u32::MAX) };
        fields.payload_octets = u32::from(brief.octets).checked_sub(IPV4_OCTETS + header_octets)?;
        let begin = TCP_FIXED_OCTETS + options_octets;
        fields.payload_head = head_of(behind, begin, fields.payload_octets as usize);
        Some(fields)
    }

    #[inline]
    fn read_options(&self, octets: usize, fields: &mut Fields) -> Option<()> {
        let options: [u8; 12] = octets_at(&self.behind, TCP_FIXED_OCTETS);
        let [kinds @ .., a, b, c, d, e, f, g, h] = options;
        if octets == options.len() && kinds == ALIGNED_TIMESTAMP {
            fields.tcp_stamps = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            fields.tcp_word |= STAMPED;
            return Some(());
        }
        let is_syn = fields.tcp_flags() & tcp_flag::SYN != 0;
        let options = self.behind.get(TCP_FIXED_OCTETS..)?.get(..octets)?;
        if is_syn { fields.read_options_of_syn(options) } else { None }
    }

    /// Writes all headers of the packet; payload begins where what came along does.
    pub fn write_headers(&self, out: &mut Headers) {
        self.brief.write_headers(&self.packet(), out);
        out.payload_offset = 0;
    }

    /// How the packet begins, as far as it is known; nothing else of it is read for its headers.
    fn packet(&self) -> [u8; TCP_END] {
        let Self { brief, behind } = self;
        let (source, destination) = match brief.sender {
            Sender::Low => (brief.ends[0], brief.ends[1]),
            Sender::High => (brief.ends[1], brief.ends[0]),
        };
        let [traffic_class, ttl, identification @ ..] = brief.wire_octets.to_ne_bytes();
        let [_, _, source @ .., source_port_high, source_port_low] = source.to_be_bytes();
        let [_, _, destination @ .., port_high, port_low] = destination.to_be_bytes();
        let mut packet = [0; TCP_END];
        packet[..2].copy_from_slice(&[0x45, traffic_class]);
        packet[2..4].copy_from_slice(&brief.octets.to_be_bytes());
        packet[4..6].copy_from_slice(&identification);
        packet[6..8].copy_from_slice(&brief.ip_at.to_ne_bytes());
        packet[8..10].copy_from_slice(&[ttl, brief.protocol]);
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet[20..24].copy_from_slice(&[source_port_high, source_port_low, port_high, port_low]);
        if brief.protocol == protocol::TCP {
            packet[24..36].copy_from_slice(&behind[..TCP_FIXED_OCTETS]);
            packet[TCP_OPTIONS..].copy_from_slice(&behind[TCP_FIXED_OCTETS..]);
        } else {
            packet[BEHIND_PORTS..UDP_END].copy_from_slice(behind);
        }
        packet
    }
}

/// Writes the first and the last `OCTETS` of what has at most twice as many: moves of a length that is
/// known take a third of what a copy of any length does. `false`: it has fewer.
#[inline]
fn write_ends<const OCTETS: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let Some(last_at) = from.len().checked_sub(OCTETS) else { return false };
    let (first, last) = (from.first_chunk::<OCTETS>(), from.last_chunk::<OCTETS>());
    if let (Some(to), Some(first)) = (to.first_chunk_mut(), first) {
        *to = *first;
    }
    let to = to.get_mut(last_at..).and_then(|behind| behind.first_chunk_mut());
    if let (Some(to), Some(last)) = (to, last) {
        *to = *last;
    }
    true
}

/// The same of fewer than eight.
#[inline]
fn write_few(to: &mut [u8], from: &[u8]) {
    if !write_ends::<4>(to, from) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// The first of so many octets of payload that begin at `begin`; what is missing reads as 0.
#[inline]
fn head_of(behind: &[u8; BEHIND_OCTETS], begin: usize, octets: usize) -> [u8; PAYLOAD_HEAD_OCTETS] {
    if octets == 0 {
        return [0; PAYLOAD_HEAD_OCTETS];
    }
    let Some(head) = behind.get(begin..).and_then(|payload| payload.first_chunk()) else {
        return last_of(behind, begin, octets);
    };
    if octets >= PAYLOAD_HEAD_OCTETS {
        return *head;
    }
    (u128::from_le_bytes(*head) & ((1 << (8 * octets)) - 1)).to_le_bytes()
}

/// The same where it stands behind so many options that sixteen octets do not.
#[cold]
fn last_of(behind: &[u8; BEHIND_OCTETS], begin: usize, octets: usize) -> [u8; PAYLOAD_HEAD_OCTETS] {
    let mut head = [0; PAYLOAD_HEAD_OCTETS];
    let payload = behind.get(begin..).unwrap_or_default().iter().take(octets);
    head.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
    head
}
