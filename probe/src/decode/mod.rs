//! Bytes to headers: taps, segments, tunnels, addresses, ports, TCP fields.
//!
//! In: a [`Frame`]. Out: [`Headers`], or the one [`DropCause`] for which the packet is rejected.
//! Cost: one pass over the headers, no allocation.
//! Invariants: never panics, never reads past the end; lengths come from the headers, so a frame
//! cut by the capture length counts in full.
//! Source: each file names its RFC or IEEE section.

pub mod brief;
mod decoder;
mod plain;
mod enclosed;
mod walk;
pub mod tap;
pub mod filter;
pub mod ethernet;
pub mod vlan;
pub mod vntag;
pub mod pbb;
pub mod fabricpath;
pub mod llc;
mod ppp;
pub mod pppoe;
pub mod mpls;
pub mod nsh;
pub mod sll;
pub mod loopback;
pub mod arp;
pub mod ipv4;
pub mod ipv6;
pub mod ipip;
mod transport;
pub mod tcp;
pub mod udp;
pub mod sctp;
mod quote;
pub mod icmp;
pub mod neighbour;
pub mod dhcp;
pub mod vxlan;
pub mod vxlan_gpe;
mod cloud;
pub mod geneve;
pub mod gre;
mod pptp;
pub mod gtp;
mod teredo;
mod wlan;
pub mod capwap;
pub mod erspan;
pub mod learn;
#[cfg(test)]
mod testing;

pub use brief::{Brief, FramePlace};
pub use cloud::TapOptions;
pub use decoder::{DecodeContext, Decoder};

pub use crate::inventory::{Address, Mac};

use crate::index::{Sender, TapIndex};
use crate::inventory::{AddressSpace, Segment};
use crate::time::Timestamp;

/// Payload octets that [`Headers`] carries along: enough to tell packets apart (copies) and to
/// recognise an application's first words. The same in the whole domain.
pub const PAYLOAD_HEAD_OCTETS: usize = 16;

/// Facts about one packet that are either true or not, as bits of [`Headers::marks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(pub u16);

impl Marks {
    /// The capture ended before the packet did.
    pub const SNAPPED: Self = Self(1);
    /// A fragment, first or later.
    pub const FRAGMENT: Self = Self(1 << 1);
    /// A fragment without transport header: its ports come from the fragment table.
    pub const LATER_FRAGMENT: Self = Self(1 << 2);
    /// More fragments follow (not the last one).
    pub const MORE_FRAGMENTS: Self = Self(1 << 3);
    /// TCP with the timestamps option (RFC 7323).
    pub const TCP_TIMESTAMP: Self = Self(1 << 4);
    /// An inner Ethernet header was seen, so the MAC addresses are valid.
    pub const ETHERNET: Self = Self(1 << 5);
    /// IPv4 with the don't-fragment bit.
    pub const DONT_FRAGMENT: Self = Self(1 << 6);
    /// Came in a mirror tunnel or mirror VLAN, which was taken off.
    pub const MIRROR_TUNNEL: Self = Self(1 << 7);
    /// The mirror says that it cut the packet (ERSPAN T bit).
    pub const MIRROR_TRUNCATED: Self = Self(1 << 8);
    /// The mirror's sequence number is present.
    pub const MIRROR_SEQUENCE: Self = Self(1 << 9);
    /// The mirror says that the packet left the port (ERSPAN direction: egress).
    pub const MIRROR_EGRESS: Self = Self(1 << 10);
    /// TCP with at least one SACK block (RFC 2018).
    pub const TCP_SACK: Self = Self(1 << 11);
    /// What the wire says of the segment was unknown to the configured map.
    pub const SEGMENT_UNMAPPED: Self = Self(1 << 12);
    /// A fragment that has been to the fragment table.
    pub const PORTS_RESOLVED: Self = Self(1 << 13);
    /// An ICMP error that names the flow it is about: see [`Headers::quoted`].
    pub const ICMP_ERROR: Self = Self(1 << 14);
    /// A cloud says where it took the packet: see [`Headers::tap_options`].
    pub const TAP_OPTIONS: Self = Self(1 << 15);

    /// All that is said of a mirror.
    pub const MIRROR: Self = Self(
        Self::MIRROR_TUNNEL.0
            | Self::MIRROR_TRUNCATED.0
            | Self::MIRROR_SEQUENCE.0
            | Self::MIRROR_EGRESS.0,
    );

    /// Whether all bits of `mark` are set.
    #[inline]
    pub const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 == mark.0
    }

    /// Sets the bits of `mark`.
    #[inline]
    pub const fn set(&mut self, mark: Self) {
        self.0 |= mark.0;
    }
}

/// TCP flags as in IE 6 `tcpControlBits` (RFC 9565): bit 0 FIN … bit 7 CWR, bit 8 AE.
pub mod tcp_flag {
    #![allow(missing_docs, reason = "the names are those of RFC 9293 section 3.1")]
    pub const FIN: u16 = 1;
    pub const SYN: u16 = 1 << 1;
    pub const RST: u16 = 1 << 2;
    pub const PSH: u16 = 1 << 3;
    pub const ACK: u16 = 1 << 4;
}

/// Protocol numbers (IANA) that the path treats in a way of their own.
pub mod protocol {
    #![allow(missing_docs, reason = "the names are IANA's")]
    pub const ICMP: u8 = 1;
    pub const IPIP: u8 = 4;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const IPV6: u8 = 41;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// All that later stages know of a packet: the innermost IP packet and what was around it.
/// Addresses, ports and MACs are as on the wire (source sent it).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Headers {
    /// Receive time.
    pub timestamp: Timestamp,
    /// The largest receive time of the source up to this packet; windows close by it.
    pub clock: Timestamp,
    /// Address space, part of every key.
    pub space: AddressSpace,
    /// Segment the packet was seen in.
    pub segment: Segment,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source MAC, zero without [`Marks::ETHERNET`].
    pub source_mac: Mac,
    /// Destination MAC, zero without [`Marks::ETHERNET`].
    pub destination_mac: Mac,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: u16,
    /// Tap that copied the packet.
    pub tap: TapIndex,
    /// See [`Marks`].
    pub marks: Marks,
    /// IANA protocol number of the transport header (after IPv6 extension headers).
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// DSCP and ECN octet.
    pub traffic_class: u8,
    /// IP octets: IPv4 total length, or 40 + IPv6 payload length (IE 1).
    pub octets: u32,
    /// Inner Ethernet header without tags (14, or 0 without one) plus IP octets (IE 352).
    pub layer2_octets: u32,
    /// IPv4 identification, or the identification of an IPv6 fragment header; else 0.
    pub ip_identification: u32,
    /// Offset of a fragment in octets.
    pub fragment_offset: u16,
    /// TCP flags, see [`tcp_flag`].
    pub tcp_flags: u16,
    /// TCP sequence number.
    pub tcp_sequence: u32,
    /// TCP acknowledgement number; 0 without ACK.
    pub tcp_acknowledgement: u32,
    /// TCP timestamps option: value. 0 without [`Marks::TCP_TIMESTAMP`].
    pub tcp_timestamp_value: u32,
    /// TCP timestamps option: echo reply.
    pub tcp_timestamp_echo: u32,
    /// TCP window as in the header, not scaled.
    pub tcp_window: u16,
    /// ICMP type (high octet) and code (low octet), as IE 32 and 139.
    pub icmp_type_code: u16,
    /// Octets after the transport header by the headers' lengths; captured or not.
    pub payload_octets: u32,
    /// Where the payload begins in the captured frame.
    pub payload_offset: u32,
    /// Octets of payload that were captured.
    pub payload_captured_octets: u32,
    /// Sequence number of the mirror (ERSPAN, GRE), valid with [`Marks::MIRROR_SEQUENCE`].
    pub mirror_sequence: u32,
    /// The first payload octets; how many are valid is `min(payload_captured_octets, 16)`. Of a segment
    /// without payload see [`Headers::tcp_sack`].
    pub payload_head: [u8; PAYLOAD_HEAD_OCTETS],
    /// Of TCP options: maximum segment size (low half, 0 without) and shift of the window plus one
    /// (above, 0 without).
    pub tcp_syn_options: u32,
    /// Hash of the canonical flow key, filled in by `spread`; equal for both directions.
    pub hash: u64,
    /// Which endpoint of the canonical flow key sent the packet, filled in by `spread`.
    pub sender: Sender,
    /// Protocol of the packet that an ICMP error quotes, valid with [`Marks::ICMP_ERROR`]; the other
    /// parts of its key stand in the TCP fields. 0 in [`Headers::quoted`] itself.
    pub quoted_protocol: u8,
    /// Its source port.
    pub quoted_source_port: u16,
    /// See [`Headers::tap_options`].
    pub tap_flow_cookie: u32,
    /// See [`Headers::tap_options`].
    pub tap_endpoint: u64,
    /// See [`Headers::tap_options`].
    pub tap_attachment: u64,
}

impl Headers {
    /// Begin and end of the first two SACK blocks; one that is not there is empty. They are kept where
    /// the options of a cloud would be; where those are, in place of the payload that acknowledgements
    /// do not have, and of segments with payload not at all.
    pub fn tcp_sack(&self) -> Option<[u32; 4]> {
        if !self.marks.has(Marks::TCP_SACK) {
            return None;
        }
        if !self.marks.has(Marks::TAP_OPTIONS) {
            return Some(self.kept_sack());
        }
        let (edges, _) = self.payload_head.as_chunks::<4>();
        let edges = edges.first_chunk().filter(|_| self.payload_octets == 0);
        edges.map(|edges| edges.map(u32::from_be_bytes))
    }

    /// What [`Headers::set_tcp_sack`] keeps.
    fn kept_sack(&self) -> [u32; 4] {
        let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
        let edges = |word: u64| (low(word >> 32), low(word));
        let ((a, b), (c, d)) = (edges(self.tap_endpoint), edges(self.tap_attachment));
        [a, b, c, d]
    }

    #[cold]
    fn set_tcp_sack(&mut self, [a, b, c, d]: [u32; 4]) {
        let word = |begin: u32, end: u32| u64::from(begin) << 32 | u64::from(end);
        (self.tap_endpoint, self.tap_attachment) = (word(a, b), word(c, d));
    }

    /// Where a cloud's mirror or load balancer says that it took the packet.
    pub fn tap_options(&self) -> Option<TapOptions> {
        self.marks.has(Marks::TAP_OPTIONS).then_some(TapOptions {
            endpoint: self.tap_endpoint,
            attachment: self.tap_attachment,
            flow_cookie: self.tap_flow_cookie,
        })
    }

    #[cold]
    fn set_tap_options(&mut self, options: TapOptions) {
        if self.marks.has(Marks::TCP_SACK) && self.payload_octets == 0 {
            let edges = self.kept_sack();
            for (to, edge) in self.payload_head.as_chunks_mut::<4>().0.iter_mut().zip(edges) {
                *to = edge.to_be_bytes();
            }
        }
        self.marks.set(Marks::TAP_OPTIONS);
        self.tap_endpoint = options.endpoint;
        self.tap_attachment = options.attachment;
        self.tap_flow_cookie = options.flow_cookie;
    }
}

const _: () =
    assert!(size_of::<Headers>() <= 192, "three cache lines a packet in the spread rings");
