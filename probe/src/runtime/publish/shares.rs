//! A window's sums, shares and largest conversations for the page.
//!
//! In: records of conversations, part by part in order. Out: what a snapshot shows of them.
//! Cost: one look at each record, while it is in the cache; at most [`CANDIDATES_MAX`] are kept.
//! Invariants: the same whatever the parts; of equally large conversations those that came first.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::aggregate::live::{ByClass, CONVERSATIONS_MAX, LiveConversation, ProtocolShare, Volume};
use crate::record::WindowRecord;

use super::protocol_name;

/// Conversations that are kept until the largest of them are chosen.
const CANDIDATES_MAX: usize = 4 * CONVERSATIONS_MAX;

/// Sums over the conversations of a window.
pub struct Shares {
    /// Packets.
    pub packets: u64,
    /// IP octets.
    pub octets: u64,
    /// Flows.
    pub flows: u64,
    /// Traffic by class.
    pub by_class: ByClass,
    protocols: [Volume; 256],
    candidates: Vec<Candidate>,
    /// Records so far.
    records: usize,
    /// No conversation that is as small as this is among the largest any more.
    too_small: Option<u64>,
}

/// The order of the largest conversations, and one.
struct Candidate {
    rank: (Reverse<u64>, usize),
    record: WindowRecord,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            packets: 0,
            octets: 0,
            flows: 0,
            by_class: ByClass::default(),
            protocols: [Volume::default(); 256],
            candidates: Vec::new(),
            records: 0,
            too_small: None,
        }
    }
}

impl Shares {
    /// Adds records.
    pub fn add(&mut self, records: &[WindowRecord]) {
        for record in records {
            let (packets, octets) = (packets_of(record), octets_of(record));
            let class = match record.traffic_class {
                "east_west" => &mut self.by_class.east_west,
                "inter_tenant" => &mut self.by_class.inter_tenant,
                "north_south" => &mut self.by_class.north_south,
                _ => &mut self.by_class.transit,
            };
            let protocol = &mut self.protocols[usize::from(record.protocol_identifier)];
            for volume in [class, protocol] {
                volume.packets += packets;
                volume.octets += octets;
            }
            self.packets += packets;
            self.octets += octets;
            self.flows += record.flow_count;
            if self.too_small.is_none_or(|too_small| octets > too_small) {
                self.keep((Reverse(octets), self.records), record);
            }
            self.records += 1;
        }
    }

    fn keep(&mut self, rank: (Reverse<u64>, usize), record: &WindowRecord) {
        self.candidates.push(Candidate { rank, record: record.clone() });
        if self.candidates.len() == CANDIDATES_MAX {
            self.candidates.select_nth_unstable_by_key(CONVERSATIONS_MAX - 1, |it| it.rank);
            self.candidates.truncate(CONVERSATIONS_MAX);
            self.too_small = self.candidates.last().map(|smallest| smallest.rank.0.0);
        }
    }

    /// Traffic by protocol, the largest first.
    pub fn by_protocol(&self) -> Vec<ProtocolShare> {
        let share = |(protocol, volume): (u8, &Volume)| ProtocolShare {
            name: protocol_name(protocol),
            packets: volume.packets,
            octets: volume.octets,
        };
        let seen = (0_u8..=255).zip(&self.protocols);
        let mut shares: Vec<_> =
            seen.filter(|(_, volume)| **volume != Volume::default()).map(share).collect();
        shares.sort_by_key(|share| Reverse(share.octets));
        shares
    }

    /// The largest conversations.
    pub fn top_conversations(mut self) -> Vec<LiveConversation> {
        self.candidates.sort_unstable_by_key(|candidate| candidate.rank);
        self.candidates.truncate(CONVERSATIONS_MAX);
        self.candidates.iter().map(|candidate| live(&candidate.record)).collect()
    }
}

const fn packets_of(record: &WindowRecord) -> u64 {
    record.packet_delta_count + record.reverse_packet_delta_count
}

const fn octets_of(record: &WindowRecord) -> u64 {
    record.octet_delta_count + record.reverse_octet_delta_count
}

fn live(record: &WindowRecord) -> LiveConversation {
    let text = |text: &Option<Arc<str>>| text.as_deref().map(ToOwned::to_owned);
    LiveConversation {
        source_address: record.source_address.to_string(),
        destination_address: record.destination_address.to_string(),
        source_virtual_station_name: text(&record.source_virtual_station_name),
        source_virtual_station_tenant: text(&record.source_virtual_station_tenant),
        source_virtual_station_uuid: text(&record.source_virtual_station_uuid),
        destination_virtual_station_name: text(&record.destination_virtual_station_name),
        destination_virtual_station_tenant: text(&record.destination_virtual_station_tenant),
        destination_virtual_station_uuid: text(&record.destination_virtual_station_uuid),
        segment: record.segment.to_string(),
        protocol_identifier: record.protocol_identifier,
        protocol: protocol_name(record.protocol_identifier),
        destination_port: record.destination_port,
        application_name: (record.application_name != "unknown")
            .then(|| record.application_name.to_string()),
        traffic_class: record.traffic_class.to_string(),
        flows: record.flow_count,
        packet_delta_count: record.packet_delta_count,
        octet_delta_count: record.octet_delta_count,
        reverse_packet_delta_count: record.reverse_packet_delta_count,
        reverse_octet_delta_count: record.reverse_octet_delta_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(octets: u64, port: u16) -> WindowRecord {
        WindowRecord {
            octet_delta_count: octets,
            packet_delta_count: 1,
            flow_count: 1,
            destination_port: port,
            protocol_identifier: if port.is_multiple_of(2) { 6 } else { 17 },
            traffic_class: "east_west",
            ..WindowRecord::default()
        }
    }

    #[test]
    fn the_largest_are_those_of_a_whole_sort_whatever_the_parts() {
        // Few sizes, so that many are equally large.
        let records: Vec<_> =
            (0..5_000_u16).map(|port| record(u64::from(port) * 7_919 % 101, port)).collect();
        let mut sorted: Vec<_> = records.iter().collect();
        sorted.sort_by_key(|record| Reverse(record.octet_delta_count));
        let wanted: Vec<_> =
            sorted[..CONVERSATIONS_MAX].iter().map(|record| record.destination_port).collect();
        for part in [1, 64, 5_000] {
            let mut shares = Shares::default();
            for records in records.chunks(part) {
                shares.add(records);
                assert!(shares.candidates.len() < CANDIDATES_MAX);
            }
            assert_eq!((shares.packets, shares.flows), (5_000, 5_000));
            assert_eq!(shares.by_class.east_west.octets, shares.octets);
            let protocols = shares.by_protocol();
            assert_eq!(protocols.len(), 2);
            assert!(protocols[0].octets >= protocols[1].octets);
            let top = shares.top_conversations();
            let ports: Vec<_> = top.iter().map(|it| it.destination_port).collect();
            assert_eq!(ports, wanted);
        }
    }
}
