//! What a run came to, in bounds: its alerts and its largest conversations.
//!
//! In: each change of an alert, each window's conversations. Out: the last alerts as they stood
//! last; the conversations with most octets.
//! Cost: a map look-up a conversation and window; texts are made at the end only.
//! Invariants: at most [`ALERTS_MAX`] alerts and [`TOP_KEPT_MAX`] conversations are kept. As long
//! as no conversation was left out the sums are exact; afterwards they are an estimate, never too
//! high, and say so.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::aggregate::{Conversation, ConversationKey};
use crate::decode::Address;
use crate::hash::KeyedMap;
use crate::inventory::AddressSpace;
use crate::record::{AlertRecord, WindowRecord};

use super::publish::protocol_name;

/// Alerts kept as they stood last; the oldest leaves first.
const ALERTS_MAX: usize = 1_024;

/// Conversations of which sums are kept.
const TOP_KEPT_MAX: usize = 16_384;

/// Conversations in the result.
const TOP_GIVEN: usize = 1_024;

/// The last alerts, in order of opening.
#[derive(Debug, Default)]
pub(super) struct LastAlerts(VecDeque<AlertRecord>);

impl LastAlerts {
    /// Takes over how an alert stands now.
    pub(super) fn note(&mut self, record: &AlertRecord) {
        // What changes is mostly what was opened lately.
        let known = self.0.iter_mut().rev().find(|known| known.alert_id == record.alert_id);
        if let Some(known) = known {
            known.clone_from(record);
            return;
        }
        if self.0.len() == ALERTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(record.clone());
    }

    pub(super) fn into_vec(self) -> Vec<AlertRecord> {
        self.0.into()
    }
}

/// Conversations over the whole run, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopConversations {
    /// `tenant/name (address) → tenant/name (address) TCP/5432` with octets of both directions.
    pub lines: Vec<(String, u64)>,
    /// There were more conversations than are kept, so sums may be too low.
    pub is_estimate: bool,
}

/// What makes a conversation one over windows: MAC addresses and segments may change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct TopKey {
    space: AddressSpace,
    source: Address,
    destination: Address,
    protocol: u8,
    ip_version: u8,
    destination_port: u16,
    /// An address that goes to another VM begins another conversation.
    vms: [Option<Arc<str>>; 2],
}

/// A VM as the line names it.
#[derive(Clone, Debug)]
struct Who {
    name: Option<Arc<str>>,
    tenant: Option<Arc<str>>,
}

#[derive(Debug)]
struct Sum {
    octets: u64,
    ends: [Who; 2],
}

/// Sums of octets by conversation.
#[derive(Debug, Default)]
pub(super) struct TopSums {
    sums: KeyedMap<TopKey, Sum>,
    is_estimate: bool,
    /// Octets of the largest conversation that was left out.
    left_out_octets: u64,
}

impl TopSums {
    /// Adds a conversation of one window; `record` is made of it.
    pub(super) fn note(
        &mut self,
        key: &ConversationKey,
        conversation: &Conversation,
        record: &WindowRecord,
    ) {
        let vms = [
            record.source_virtual_station_uuid.clone(),
            record.destination_virtual_station_uuid.clone(),
        ];
        let key = TopKey {
            space: key.space,
            source: key.source,
            destination: key.destination,
            protocol: key.protocol,
            ip_version: key.ip_version,
            destination_port: key.destination_port,
            vms,
        };
        if let Some(sum) = self.sums.get_mut(&key) {
            sum.octets += conversation.octets_sum();
            return;
        }
        if self.sums.len() == TOP_KEPT_MAX {
            // As small as what was left out before: a flood makes no room for itself.
            if self.is_estimate && conversation.octets_sum() <= self.left_out_octets {
                return;
            }
            self.keep_largest_half();
        }
        self.sums.insert(key, Sum { octets: conversation.octets_sum(), ends: ends(record) });
    }

    /// The largest conversations as texts.
    pub(super) fn finish(self) -> TopConversations {
        let mut lines: Vec<_> =
            self.sums.into_iter().map(|(key, sum)| (line(&key, &sum), sum.octets)).collect();
        lines.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        lines.truncate(TOP_GIVEN);
        TopConversations { lines, is_estimate: self.is_estimate }
    }

    /// Makes room for as many again, so that it is done seldom. By octets, then by key: the same
    /// in every run.
    fn keep_largest_half(&mut self) {
        let mut all: Vec<_> = self.sums.drain().collect();
        // Only which half it is counts, not the order within.
        all.select_nth_unstable_by(TOP_KEPT_MAX / 2, |(a, one), (b, two)| {
            two.octets.cmp(&one.octets).then_with(|| a.cmp(b))
        });
        let left_out = all.iter().skip(TOP_KEPT_MAX / 2).map(|(_, sum)| sum.octets);
        self.left_out_octets = left_out.max().unwrap_or(0);
        all.truncate(TOP_KEPT_MAX / 2);
        self.sums.extend(all);
        self.is_estimate = true;
    }
}

fn ends(record: &WindowRecord) -> [Who; 2] {
    [
        Who {
            name: record.source_virtual_station_name.clone(),
            tenant: record.source_virtual_station_tenant.clone(),
        },
        Who {
            name: record.destination_virtual_station_name.clone(),
            tenant: record.destination_virtual_station_tenant.clone(),
        },
    ]
}

/// `acme/web-1 (10.0.0.5) → acme/db-1 (10.0.0.9) TCP/5432`.
fn line(key: &TopKey, sum: &Sum) -> String {
    let end = |who: &Who, address: Address| {
        let address = address.to_ip(key.ip_version);
        match (&who.name, &who.tenant) {
            (Some(name), Some(tenant)) => format!("{tenant}/{name} ({address})"),
            _ => address.to_string(),
        }
    };
    let [source, destination] = &sum.ends;
    let (source, destination) = (end(source, key.source), end(destination, key.destination));
    let protocol = protocol_name(key.protocol);
    format!("{source} → {destination} {protocol}/{}", key.destination_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> ConversationKey {
        ConversationKey {
            source: Address::v4(number.to_be_bytes()),
            destination: Address::v4([9, 9, 9, 9]),
            protocol: 6,
            ip_version: 4,
            destination_port: 80,
            ..ConversationKey::default()
        }
    }

    fn octets(octets: u64) -> Conversation {
        Conversation { octets: [octets, 0], ..Conversation::default() }
    }

    #[test]
    fn conversations_are_added_up_and_the_largest_comes_first() {
        let mut top = TopSums::default();
        let record = WindowRecord::default();
        for _ in 0..3 {
            top.note(&key(1), &octets(10), &record);
        }
        top.note(&key(2), &octets(20), &record);
        let top = top.finish();
        let lines = [("0.0.0.1 → 9.9.9.9 TCP/80", 30), ("0.0.0.2 → 9.9.9.9 TCP/80", 20)];
        assert_eq!(top.lines, lines.map(|(line, octets)| (line.to_owned(), octets)));
        assert!(!top.is_estimate);
    }

    #[test]
    fn a_large_conversation_that_comes_late_is_seen_and_memory_is_bounded() {
        let mut top = TopSums::default();
        let record = WindowRecord::default();
        for number in 0..40_000 {
            top.note(&key(number), &octets(1), &record);
            assert!(top.sums.len() <= TOP_KEPT_MAX);
        }
        top.note(&key(50_000), &octets(1_000), &record);
        let top = top.finish();
        assert_eq!(top.lines.first().map(|line| line.1), Some(1_000));
        assert_eq!(top.lines.len(), TOP_GIVEN);
        assert!(top.is_estimate);
    }

    #[test]
    fn the_last_alerts_are_kept_as_they_stood_last() {
        let alert = |number: usize, state| AlertRecord {
            alert_id: format!("{number:016x}").into(),
            state,
            ..AlertRecord::default()
        };
        let mut alerts = LastAlerts::default();
        for number in 0..ALERTS_MAX + 10 {
            alerts.note(&alert(number, "open"));
        }
        alerts.note(&alert(ALERTS_MAX, "closed"));
        let kept = alerts.into_vec();
        assert_eq!(kept.len(), ALERTS_MAX);
        assert_eq!(&*kept[0].alert_id, format!("{:016x}", 10));
        assert_eq!(kept[ALERTS_MAX - 10].state, "closed");
    }
}
