//! One window as all workers saw it.
//!
//! In: the aggregator's sums. Out: what detectors, records and the page read.
//! Invariants: conversations are sorted by key.

use crate::counters::{TapTotals, WorkerTotals};
use crate::decode::protocol;
use crate::index::{TapIndex, WindowNumber};
use crate::time::Timestamp;

use super::{Conversation, ConversationKey, Conversations, LedgerTotals};

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
    pub conversations: Conversations,
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

impl WindowView {
    /// One of which nothing but its conversations is known, in order of their keys.
    pub fn of(
        number: WindowNumber,
        length_ns: u64,
        conversations: impl IntoIterator<Item = (ConversationKey, Conversation)>,
    ) -> Self {
        Self {
            number,
            start: number.start(length_ns),
            end: number.end(length_ns),
            conversations: conversations.into_iter().collect(),
            measures_lost: 0,
            taps: Vec::new(),
            ledger: LedgerTotals::default(),
            ledger_before: LedgerTotals::default(),
            workers: Vec::new(),
            workers_before: Vec::new(),
            late_packets: 0,
        }
    }
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
    /// TCP conversations that it counted, in which one end has acknowledged what the other sent and that
    /// have at least [`TALK_PACKETS_MIN`] packets in the window.
    pub tcp_conversations: u64,
    /// Of these, those of which one direction alone came by, at this tap and all others.
    pub tcp_one_way_conversations: u64,
}

/// Packets of a conversation whose directions say something: fewer may be the end of a talk, or a probe.
const TALK_PACKETS_MIN: u64 = 4;

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
                    tcp_conversations: 0,
                    tcp_one_way_conversations: 0,
                });
            }
        }
        views
    }

    /// Counts the conversations of a window at the tap that counted them.
    pub fn count_conversations(views: &mut [Self], conversations: &Conversations) {
        for (key, conversation) in conversations {
            let [forward, reverse] = conversation.packets;
            let talks = key.protocol == protocol::TCP && conversation.acknowledged;
            if !talks || forward + reverse < TALK_PACKETS_MIN {
                continue;
            }
            // Taps are few, and in order.
            let place = views.binary_search_by_key(&conversation.tap, |view| view.tap);
            if let Some(view) = place.ok().and_then(|place| views.get_mut(place)) {
                view.tcp_conversations += 1;
                view.tcp_one_way_conversations += u64::from(forward == 0 || reverse == 0);
            }
        }
    }
}
