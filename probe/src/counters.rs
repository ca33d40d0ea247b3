//! The account of every packet, and the names of every loss.
//!
//! In: events of the packet path. Out: [`DropCause`], [`CauseCounts`], [`WorkerTotals`].
//! Cost: plain additions; a worker hands a copy of its totals out with each closed window, so no
//! counter is shared between cores.
//! Invariants: for each worker received + spread in = spread out + Σ causes + booked + held.
//! Source: the ledger, ARCHITECTURE.md.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count with a single writer that another thread may look at: progress, nothing of the
/// ledger.
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

    /// A recent value.
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
    Duplicate "duplicate" "The same packet was seen before at the same tap.",
    CopyOtherTap "copy_other_tap" "The same packet was counted at another tap; it is a path sample.",
    WindowRingFull "window_ring_full" "Its window was lost because the aggregator did not keep up.",
    WindowRowsFull "window_rows_full" "Its window had no room for another conversation.",
}

/// Where on its path a packet is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Bytes to headers, filters included.
    Decode,
    /// To the worker that owns the flow, shedding included.
    Spread,
    /// Copies of one packet.
    Copies,
    /// From the worker to the aggregator.
    HandOff,
    /// All workers' windows together.
    Aggregate,
}

impl Stage {
    /// In order of the path.
    pub const ALL: [Self; 5] =
        [Self::Decode, Self::Spread, Self::Copies, Self::HandOff, Self::Aggregate];

    /// The name in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Spread => "spread",
            Self::Copies => "copies",
            Self::HandOff => "hand_off",
            Self::Aggregate => "aggregate",
        }
    }
}

impl DropCause {
    /// The stage that leaves the packet out.
    pub const fn stage(self) -> Stage {
        match self {
            Self::Shed | Self::SpreadRingFull => Stage::Spread,
            Self::Duplicate | Self::CopyOtherTap => Stage::Copies,
            Self::WindowRingFull => Stage::HandOff,
            Self::WindowRowsFull => Stage::Aggregate,
            _ => Stage::Decode,
        }
    }
}

/// One count a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseCounts([u64; DropCause::ALL.len()]);

impl Default for CauseCounts {
    fn default() -> Self {
        Self([0; DropCause::ALL.len()])
    }
}

impl CauseCounts {
    /// Counts packets lost to `cause`.
    #[inline]
    pub fn add(&mut self, cause: DropCause, packets: u64) {
        self.0[cause as usize] += packets;
    }

    /// Packets lost to `cause` so far.
    pub fn of(&self, cause: DropCause) -> u64 {
        self.0[cause as usize]
    }

    /// Packets lost to any cause so far.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds all counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Causes with a count that is not 0.
    pub fn iter(&self) -> impl Iterator<Item = (DropCause, u64)> + '_ {
        DropCause::ALL.iter().map(|&cause| (cause, self.of(cause))).filter(|(_, count)| *count > 0)
    }
}

/// What was seen at one tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapTotals {
    /// Frames.
    pub packets: u64,
    /// Octets of these frames on the wire.
    pub octets: u64,
    /// Frames that the capture or the mirror cut.
    pub snapped: u64,
    /// Duplicates at this tap.
    pub duplicates: u64,
    /// Packets that may be duplicates, and count.
    pub ambiguous: u64,
    /// Copies of packets that another tap counted.
    pub copies_other_tap: u64,
    /// Packets that the mirror numbered.
    pub sequenced: u64,
    /// Packets missing from the mirror's own sequence numbers.
    pub mirror_gaps: u64,
    /// Packets whose segment the configured map did not know.
    pub segment_unmapped: u64,
    /// Packets of which a cloud said where it took them.
    pub cloud_packets: u64,
    /// What it said of the last one: see [`crate::decode::TapOptions`].
    pub cloud_endpoint: u64,
    /// Likewise.
    pub cloud_attachment: u64,
}

impl TapTotals {
    /// Adds all counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.octets += other.octets;
        self.snapped += other.snapped;
        self.duplicates += other.duplicates;
        self.ambiguous += other.ambiguous;
        self.copies_other_tap += other.copies_other_tap;
        self.sequenced += other.sequenced;
        self.mirror_gaps += other.mirror_gaps;
        self.segment_unmapped += other.segment_unmapped;
        self.cloud_packets += other.cloud_packets;
        self.cloud_endpoint = self.cloud_endpoint.max(other.cloud_endpoint);
        self.cloud_attachment = self.cloud_attachment.max(other.cloud_attachment);
    }
}

impl TapTotals {
    /// What was counted since `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            octets: self.octets - earlier.octets,
            snapped: self.snapped - earlier.snapped,
            duplicates: self.duplicates - earlier.duplicates,
            ambiguous: self.ambiguous - earlier.ambiguous,
            copies_other_tap: self.copies_other_tap - earlier.copies_other_tap,
            sequenced: self.sequenced - earlier.sequenced,
            mirror_gaps: self.mirror_gaps - earlier.mirror_gaps,
            segment_unmapped: self.segment_unmapped - earlier.segment_unmapped,
            cloud_packets: self.cloud_packets - earlier.cloud_packets,
            cloud_endpoint: self.cloud_endpoint,
            cloud_attachment: self.cloud_attachment,
        }
    }
}

/// What one worker has counted since it started, as it hands it out.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Of the worker.
    pub totals: WorkerTotals,
    /// By tap, in order of [`crate::index::TapIndex`].
    pub taps: Vec<TapTotals>,
}

impl Snapshot {
    /// A copy in memory of its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { totals: self.totals, taps: self.taps.clone() }
    }

    /// Copies into memory that is there already.
    pub fn copy(&mut self, totals: &WorkerTotals, taps: &[TapTotals]) {
        self.totals = *totals;
        self.taps.clear();
        self.taps.extend_from_slice(taps);
    }
}

/// All that one worker has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerTotals {
    /// Frames taken from its source.
    pub received_packets: u64,
    /// Their octets on the wire.
    pub received_octets: u64,
    /// Packets passed to other workers.
    pub spread_out_packets: u64,
    /// Packets taken over from other workers.
    pub spread_in_packets: u64,
    /// Packets booked in a window.
    pub booked_packets: u64,
    /// Those of them that came after their own window was closed.
    pub late_packets: u64,
    /// Packets in rows cut so far; the rest of the booked ones is in open windows.
    pub cut_packets: u64,
    /// Packets that wait: fragments for their first one, packets for older ones of other rings.
    pub held_packets: u64,
    /// Fragments that went on without ports.
    pub fragments_unresolved: u64,
    /// Digests forgotten before their time.
    pub digests_evicted: u64,
    /// ICMP errors that could not be told to the worker of the flow that they quote.
    pub icmp_quotes_lost: u64,
    /// Records of ended flows lost because the aggregator did not keep up.
    pub flow_records_lost: u64,
    /// Measures (samples, events, verdicts) that found no room in a block of rows or on the way to the
    /// aggregator.
    pub measures_lost: u64,
    /// Times that a flow had something to tell and no place for it.
    pub measures_refused: u64,
    /// Packets followed from tap to tap that were lost because the aggregator did not keep up.
    pub path_samples_lost: u64,
    /// Payload that tells of transactions and that was lost because the aggregator did not keep up, or
    /// was not at hand (fragments).
    pub app_messages_lost: u64,
    /// Packets no longer followed, because their place was needed.
    pub path_evicted: u64,
    /// Packets followed without looking for evidence of their loss, for lack of room, and flows that
    /// were forgotten while what is known of them might still have been of use.
    pub path_unwatched: u64,
    /// Segments that were not compared with all packets of their flow that wait for evidence.
    pub path_walks_cut: u64,
    /// Losses.
    pub causes: CauseCounts,
    /// Flows begun.
    pub flows_created: u64,
    /// Flows that left for lack of room: before any answer, and others.
    pub flows_evicted: [u64; 2],
    /// Live flows now.
    pub flows_live: u64,
    /// Turns of the loop, and those in which a packet came.
    pub turns: [u64; 2],
    /// Share of flows that shedding keeps now; 1 keeps all.
    pub sampling_rate: f32,
    /// How full the receive ring is now, in percent, where the port can say.
    pub ring_fill_percent: Option<u8>,
}

impl WorkerTotals {
    /// Received + spread in − spread out − Σ causes − booked − held: 0, or there is a bug. Rows
    /// lost on the way to the aggregator were booked, so their causes are not subtracted twice.
    pub fn unaccounted(&self) -> i64 {
        let lost_rows = self.causes.of(DropCause::WindowRingFull);
        let taken = self.received_packets + self.spread_in_packets + lost_rows;
        let gone =
            self.spread_out_packets + self.causes.sum() + self.booked_packets + self.held_packets;
        taken.cast_signed().wrapping_sub(gone.cast_signed())
    }

    /// What stands beside the balance, by name: what came late, and what was lost, forgotten or given
    /// up where a bound was met. The same names in records and reports.
    pub fn beside_balance(&self) -> [(&'static str, u64); 13] {
        [
            ("late", self.late_packets),
            ("fragments_unresolved", self.fragments_unresolved),
            ("flow_records_lost", self.flow_records_lost),
            ("measures_lost", self.measures_lost),
            ("measures_refused", self.measures_refused),
            ("flows_evicted", self.flows_evicted.iter().sum()),
            ("digests_evicted", self.digests_evicted),
            ("icmp_quotes_lost", self.icmp_quotes_lost),
            ("path_samples_lost", self.path_samples_lost),
            ("app_messages_lost", self.app_messages_lost),
            ("path_evicted", self.path_evicted),
            ("path_unwatched", self.path_unwatched),
            ("path_walks_cut", self.path_walks_cut),
        ]
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
    fn what_is_missing_shows() {
        let mut totals = WorkerTotals { received_packets: 10, ..WorkerTotals::default() };
        totals.causes.add(DropCause::Filtered, 2);
        totals.booked_packets = 7;
        assert_eq!(totals.unaccounted(), 1);
        totals.spread_out_packets = 1;
        totals.causes.add(DropCause::WindowRingFull, 3);
        assert_eq!(totals.unaccounted(), 0);
    }
}
