//! What the probe shows of its taps and of the ways between them.
//!
//! In: the aggregator's taps and ways. Out: parts of a [`super::LiveSnapshot`].
//! Invariants: sums carry the time that they are over; a figure without packets is `None`, never 0.
//! Source: the definitions, docs/measures.md.

use serde::Serialize;

use crate::aggregate::path::PathCounts;
use crate::counters::TapTotals;

/// One tap. Counts of its own are since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveTap {
    /// Name of the tap.
    pub name: String,
    /// Host it stands on, where the configuration says so.
    pub host: Option<String>,
    /// Frames as captured.
    pub packets: u64,
    /// Octets of those frames on the wire.
    pub octets: u64,
    /// Packets seen twice at this tap.
    pub duplicates: u64,
    /// Packets that may be duplicates, and count.
    pub ambiguous: u64,
    /// Packets that were counted at another tap.
    pub copies: u64,
    /// Packets of which the capture kept only a part.
    pub snapped: u64,
    /// Packets whose segment the configured map did not know.
    pub segment_unmapped: u64,
    /// Packets missing from the mirror's own numbers; `None` where it has none.
    pub mirror_gaps: Option<u64>,
    /// Where its time comes from: `hardware`, `tsc`, `file` …
    pub clock_source: String,
    /// How far its time can be from the wall clock, in nanoseconds; `None` where unknown.
    pub clock_error_bound_ns: Option<u64>,
    /// What it counted in the last window.
    pub window: TapHealth,
    /// Sums of the last minutes.
    pub recent: TapHealth,
}

/// What a tap counted over a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TapHealth {
    /// The time that this is over, in milliseconds; 0 before the first window.
    pub length_ms: u64,
    /// Frames as captured.
    pub packets: u64,
    /// Octets of those frames on the wire.
    pub octets: u64,
    /// Packets seen twice at this tap.
    pub duplicates: u64,
    /// Packets that may be duplicates, and count.
    pub ambiguous: u64,
    /// Packets that were counted at another tap.
    pub copies: u64,
    /// Packets of which the capture kept only a part.
    pub snapped: u64,
    /// Packets whose segment the configured map did not know.
    pub segment_unmapped: u64,
    /// Logical packets in segments that no interface of the inventory is in; `None` without an
    /// inventory.
    pub segment_unknown: Option<u64>,
    /// Packets missing from the mirror's own numbers; `None` where it has none.
    pub mirror_gaps: Option<u64>,
    /// TCP conversations that it counted with acknowledged data and at least four packets in a window.
    pub tcp_conversations: u64,
    /// Of these, those of which one direction alone came by, at this tap and all others.
    pub tcp_one_way_conversations: u64,
    /// Share of these conversations of which both directions came by, 0–100; `None` without one.
    pub coverage_percent: Option<f64>,
}

impl TapHealth {
    /// Counts of so much time.
    pub fn new(counts: &TapCounts, length_ms: u64) -> Self {
        let TapCounts { totals, tcp_conversations, tcp_one_way_conversations, .. } = *counts;
        let complete = tcp_conversations.saturating_sub(tcp_one_way_conversations);
        Self {
            length_ms,
            packets: totals.packets,
            octets: totals.octets,
            duplicates: totals.duplicates,
            ambiguous: totals.ambiguous,
            copies: totals.copies_other_tap,
            snapped: totals.snapped,
            segment_unmapped: totals.segment_unmapped,
            segment_unknown: counts.segment_unknown,
            mirror_gaps: counts.has_sequence.then_some(totals.mirror_gaps),
            tcp_conversations,
            tcp_one_way_conversations,
            coverage_percent: (tcp_conversations > 0)
                .then(|| 100.0 * float(complete) / float(tcp_conversations)),
        }
    }
}

/// What a tap counted, as it is added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TapCounts {
    /// Packets and octets.
    pub totals: TapTotals,
    /// Whether its mirror numbers the packets.
    pub has_sequence: bool,
    /// Logical packets in segments that no interface of the inventory is in; `None` without an
    /// inventory.
    pub segment_unknown: Option<u64>,
    /// TCP conversations that it counted with acknowledged data and at least four packets in a window.
    pub tcp_conversations: u64,
    /// Of these, those of which one direction alone came by, at this tap and all others.
    pub tcp_one_way_conversations: u64,
}

impl TapCounts {
    /// Adds the counts of another window.
    pub fn add(&mut self, other: &Self) {
        self.totals.merge(&other.totals);
        self.has_sequence |= other.has_sequence;
        self.segment_unknown = both(self.segment_unknown, other.segment_unknown);
        self.tcp_conversations += other.tcp_conversations;
        self.tcp_one_way_conversations += other.tcp_one_way_conversations;
    }
}

/// The sum of what is known.
fn both(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    if one.is_none() && other.is_none() {
        return None;
    }
    Some(one.unwrap_or(0) + other.unwrap_or(0))
}

/// The way from one tap to another: everybody's packets that are followed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LivePath {
    /// Tap that the packets pass first.
    pub from_tap: String,
    /// Tap that they pass later.
    pub to_tap: String,
    /// Host of the first tap, where the configuration says so.
    pub from_host: Option<String>,
    /// Host of the later tap.
    pub to_host: Option<String>,
    /// Start of the last window with packets on this way of which all have their verdicts,
    /// nanoseconds since the epoch. It lies some seconds behind the last closed window.
    pub window_start_ns: u64,
    /// Packets of that window of which the time between the taps is known.
    pub delay_sample_count: u64,
    /// Their mean time from tap to tap in nanoseconds, by the clocks of the taps; negative where
    /// these differ by more than the way takes. `None` without a sample, as all that follow.
    pub delay_mean_ns: Option<i64>,
    /// The least.
    pub delay_min_ns: Option<i64>,
    /// The largest.
    pub delay_max_ns: Option<i64>,
    /// Median, off by at most 0.8 %.
    pub delay_p50_ns: Option<i64>,
    /// 90th percentile.
    pub delay_p90_ns: Option<i64>,
    /// 99th percentile.
    pub delay_p99_ns: Option<i64>,
    /// Mean less the least of the last 60 s: free of a constant clock offset.
    pub delay_excess_mean_ns: Option<i64>,
    /// Estimate of how far the later tap's clock is ahead of the first one's; `None` with one
    /// direction only.
    pub clock_offset_ns: Option<i64>,
    /// The offset is off by no more than this.
    pub clock_offset_bound_ns: Option<u64>,
    /// Pairs of endpoints whose TCP packets took this way in that window and whose answers some tap showed.
    pub answered_pairs: u64,
    /// Of these, those of which the first tap showed no answer: it shows one direction only.
    pub first_tap_one_way_pairs: u64,
    /// Of these, those of which the later tap showed no answer.
    pub later_tap_one_way_pairs: u64,
    /// Packets of that window.
    pub window: LivePathCounts,
    /// Sums of the last minutes.
    pub recent: LivePathCounts,
    /// Sums since the start.
    pub total: LivePathCounts,
}

/// Packets on a way over a while, followed ones only.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LivePathCounts {
    /// The time that this is over, in milliseconds.
    pub length_ms: u64,
    /// Logical packets: matched, missed at the first tap, or lost for any cause.
    pub sampled: u64,
    /// Seen at both taps.
    pub matched: u64,
    /// Of these, at the later tap in frames that were merged or split, so without a time.
    pub recut: u64,
    /// Seen at the later tap only: the first one's mirror lost them.
    pub first_tap_missed: u64,
    /// Seen at the first tap only, and repeated by the sender: lost between the taps.
    pub network_loss: u64,
    /// Seen at the first tap only, and acknowledged, or seen further on: the later mirror lost them.
    pub mirror_loss: u64,
    /// Seen at the first tap only, without evidence.
    pub unresolved_loss: u64,
    /// Matched packets that one tap showed without the segment's tag, the other with it.
    pub segment_stripped: u64,
    /// Not to be told from equal ones; in no other count.
    pub ambiguous: u64,
    /// Share lost between the taps at least (what is proven), 0–100; `None` without packets.
    pub loss_low_percent: Option<f64>,
    /// Share lost between the taps at most (with what is unresolved), 0–100.
    pub loss_high_percent: Option<f64>,
}

impl LivePathCounts {
    /// Counts of so much time.
    pub fn new(counts: &PathCounts, length_ms: u64) -> Self {
        let loss = counts.loss();
        Self {
            length_ms,
            sampled: counts.total(),
            matched: counts.matched,
            recut: counts.recut,
            first_tap_missed: counts.first_missed,
            network_loss: counts.network,
            mirror_loss: counts.mirror,
            unresolved_loss: counts.unresolved,
            segment_stripped: counts.stripped,
            ambiguous: counts.ambiguous,
            loss_low_percent: loss.map(|(low, _)| 100.0 * low),
            loss_high_percent: loss.map(|(_, high)| 100.0 * high),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people; counts are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(packets: u64, mirror_gaps: Option<u64>) -> TapCounts {
        let gaps = mirror_gaps.unwrap_or(0);
        TapCounts {
            totals: TapTotals { packets, mirror_gaps: gaps, ..TapTotals::default() },
            has_sequence: mirror_gaps.is_some(),
            ..TapCounts::default()
        }
    }

    #[test]
    fn what_is_not_known_stays_so_in_sums() {
        let mut sum = TapCounts::default();
        let shown = |sum: &TapCounts| {
            let health = TapHealth::new(sum, 5);
            (health.packets, health.segment_unknown, health.mirror_gaps)
        };
        sum.add(&counted(3, None));
        assert_eq!(shown(&sum), (3, None, None));
        sum.add(&counted(4, Some(0)));
        assert_eq!(shown(&sum), (7, None, Some(0)));
        sum.add(&TapCounts { segment_unknown: Some(1), ..counted(0, Some(2)) });
        assert_eq!(shown(&sum), (7, Some(1), Some(2)));
    }

    #[test]
    fn shares_are_of_what_they_say() {
        let one_way = TapCounts {
            tcp_conversations: 8,
            tcp_one_way_conversations: 2,
            ..TapCounts::default()
        };
        assert_eq!(TapHealth::new(&one_way, 5).coverage_percent, Some(75.0));
        assert_eq!(TapHealth::new(&TapCounts::default(), 5).coverage_percent, None);
        let counts = PathCounts {
            matched: 93,
            network: 1,
            unresolved: 2,
            mirror: 4,
            ..PathCounts::default()
        };
        let shown = LivePathCounts::new(&counts, 1_000);
        assert_eq!((shown.loss_low_percent, shown.loss_high_percent), (Some(1.0), Some(3.0)));
        assert_eq!(LivePathCounts::new(&PathCounts::default(), 1_000).loss_low_percent, None);
    }
}
