//! One window as all workers saw it.
//!
//! In: the aggregator's sums. Out: what detectors, records and the page read.
//! Invariants: conversations are sorted by key.

use crate::counters::{TapTotals, WorkerTotals};
use crate::index::{TapIndex, WindowNumber};
use crate::time::Timestamp;

use super::{Conversation, ConversationKey, Extras, LedgerTotals};

/// One window.
#[derive(Clone, Debug)]
pub struct WindowView {
    /// Number.
    pub number: WindowNumber,
    /// First instant.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
    /// Conversations in order of their keys.
    pub conversations: Vec<(ConversationKey, Conversation)>,
    /// What was measured in them, by [`Conversation::extra`].
    pub extras: Extras,
    /// Measures that found no room here since the view before.
    pub measures_lost: u64,
    /// What the taps counted since the view before.
    pub taps: Vec<TapView>,
    /// The account so far.
    pub ledger: LedgerTotals,
    /// The account at the view before.
    pub ledger_before: LedgerTotals,
    /// Totals of each worker as of this window.
    pub workers: Vec<WorkerTotals>,
    /// The same at the view before; empty at the first one.
    pub workers_before: Vec<WorkerTotals>,
    /// Packets of rows that came after their own window was given out.
    pub late_packets: u64,
}

/// What one tap counted since the view before.
#[derive(Clone, Copy, Debug)]
pub struct TapView {
    /// Tap.
    pub tap: TapIndex,
    /// Counts since the view before.
    pub totals: TapTotals,
    /// Whether its mirror numbers the packets.
    pub has_sequence: bool,
}

impl TapView {
    /// Taps that have ever counted anything, with what they counted since `before`.
    pub fn differences(now: &[TapTotals], before: &[TapTotals]) -> Vec<Self> {
        let nothing = TapTotals::default();
        let mut views = Vec::new();
        for (place, totals) in (0_u16..).zip(now) {
            let earlier = before.get(usize::from(place)).unwrap_or(&nothing);
            if *totals != nothing {
                views.push(Self {
                    tap: TapIndex(place),
                    totals: totals.since(earlier),
                    has_sequence: totals.sequenced > 0,
                });
            }
        }
        views
    }
}
