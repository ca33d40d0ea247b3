//! Counters that one thread writes and others read, and the names of every loss.
//!
//! In: events of the packet path. Out: `Counter`, `CauseCounters`, the enum `DropCause`.
//! Cost: a relaxed load and store; no read-modify-write, because there is one writer.
//! Invariants: received = accounted + Σ causes, for every worker and for the probe.
//! Source: the ledger, ARCHITECTURE.md.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count with a single writer. Readers on other cores see a recent value.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may call it.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Sets; only the owning thread may call it.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    #[inline]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! drop_causes {
    ($($variant:ident $name:literal $doc:literal,)+) => {
        /// Why a packet that was received is not accounted in a window. Each variant is one
        /// line of the ledger.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropCause { $(#[doc = $doc] $variant,)+ }

        impl DropCause {
            /// Every cause, in the order of the packet's path.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the ledger.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One line for the documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

drop_causes! {
    UnsupportedLinkType "unsupported_link_type" "The capture's link type is none that the probe decodes.",
    Shed "shed" "Its whole flow was left out by hash because the probe is overloaded; rows state the rate.",
    NotIpArp "not_ip_arp" "EtherType ARP; read for learning addresses, no IP traffic.",
    NotIpLlc "not_ip_llc" "IEEE 802.3 frame with a length, not a type: LLC, STP, CDP.",
    NotIpLldp "not_ip_lldp" "EtherType LLDP.",
    NotIpControl "not_ip_control" "EtherType of a control protocol: flow control, LACP, EAPOL, PTP, loopback test.",
    NotIpPppoe "not_ip_pppoe" "PPPoE that carries no IP or is not decoded.",
    NotIpMpls "not_ip_mpls" "MPLS that carries no IP or Ethernet.",
    NotIpOther "not_ip_other" "Another EtherType.",
    UnsupportedTunnel "unsupported_tunnel" "A tunnel announces an inner protocol that is not decoded.",
    TooDeep "too_deep" "More nested tunnels than decode.depth_max.",
    SnappedHeader "snapped_header" "The capture length ended inside a header that names the flow.",
    MalformedLink "malformed_link" "Link-layer header shorter than its format.",
    MalformedVlan "malformed_vlan" "VLAN tag cut short, or more tags than decode allows.",
    MalformedMpls "malformed_mpls" "MPLS label stack cut short or without a bottom.",
    MalformedIpv4 "malformed_ipv4" "IPv4 header with a wrong version, header length or total length.",
    MalformedIpv6 "malformed_ipv6" "IPv6 header or extension header with a wrong version or length.",
    MalformedTcp "malformed_tcp" "TCP header shorter than its data offset says.",
    MalformedUdp "malformed_udp" "UDP header cut short or with an impossible length.",
    MalformedSctp "malformed_sctp" "SCTP common header cut short.",
    MalformedIcmp "malformed_icmp" "ICMP or ICMPv6 header cut short.",
    MalformedVxlan "malformed_vxlan" "VXLAN or VXLAN-GPE header cut short or with wrong flags.",
    MalformedGeneve "malformed_geneve" "GENEVE header or options cut short or of another version.",
    MalformedGre "malformed_gre" "GRE header cut short or of another version.",
    MalformedErspan "malformed_erspan" "ERSPAN header cut short or of another version.",
    Filtered "filtered" "A [[filter]] of the configuration takes it out.",
    SpreadRingFull "spread_ring_full" "The ring to the worker that owns its flow was full.",
    FragmentTableFull "fragment_table_full" "A fragment that waited for its first one was pushed out.",
    Duplicate "duplicate" "The same packet was seen before at the same tap.",
    CopyOtherTap "copy_other_tap" "The same packet was counted at another tap; it is a path sample.",
    FlowTableFull "flow_table_full" "The flow table was full and nothing could leave.",
    WindowRingFull "window_ring_full" "Its window was lost because the aggregator did not keep up.",
    WindowRowsFull "window_rows_full" "Its window had no room for another conversation.",
}

/// One counter a cause, with a single writer.
#[derive(Debug)]
pub struct CauseCounters([Counter; DropCause::ALL.len()]);

impl Default for CauseCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl CauseCounters {
    /// Counts packets lost to `cause`.
    #[inline]
    pub fn add(&self, cause: DropCause, count: u64) {
        self.0[cause as usize].add(count);
    }

    /// Packets lost to `cause` so far.
    pub fn load(&self, cause: DropCause) -> u64 {
        self.0[cause as usize].load()
    }

    /// Packets lost to any cause so far.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(Counter::load).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_numbers_are_their_places_and_names_differ() {
        let mut names: Vec<_> = DropCause::ALL.iter().map(|cause| cause.name()).collect();
        for (place, cause) in DropCause::ALL.iter().enumerate() {
            assert_eq!(place, *cause as usize);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropCause::ALL.len());
    }

    #[test]
    fn causes_sum() {
        let causes = CauseCounters::default();
        causes.add(DropCause::Filtered, 2);
        causes.add(DropCause::Duplicate, 3);
        assert_eq!((causes.sum(), causes.load(DropCause::Filtered)), (5, 2));
    }
}
