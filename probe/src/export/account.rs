//! What became of the records that a sink was given.
//!
//! In: counts of the sink. Out: [`SinkLedger`], [`SinkHealth`].
//! Invariants: made = delivered + queued + Σ dropped.

use crate::aggregate::live::LiveSink;
use crate::time::Timestamp;

/// Why a record did not reach its destination. Each variant is one line of the sink's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SinkCause {
    /// The destination failed for so long that the queue was full.
    QueueFull,
    /// The sink's thread did not keep up with what was handed to it.
    HandOffFull,
    /// The record could not be encoded; a bug.
    NotEncoded,
    /// The program ended while the destination still failed.
    UndeliveredAtEnd,
    /// The spool was full, or its disk failed.
    SpoolFull,
    /// The destination has said that it never takes the record.
    Refused,
}

impl SinkCause {
    /// Every cause.
    pub const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::HandOffFull,
        Self::NotEncoded,
        Self::UndeliveredAtEnd,
        Self::SpoolFull,
        Self::Refused,
    ];

    /// The name in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "sink_queue_full",
            Self::HandOffFull => "sink_hand_off_full",
            Self::NotEncoded => "sink_not_encoded",
            Self::UndeliveredAtEnd => "sink_undelivered_at_end",
            Self::SpoolFull => "sink_spool_full",
            Self::Refused => "sink_refused",
        }
    }
}

/// The account of a sink, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkLedger {
    /// Records that the sink was given.
    pub made: u64,
    /// Records that are safe at their destination.
    pub delivered: u64,
    /// Records that wait, in memory or in the spool.
    pub queued: u64,
    /// Of these, those in the spool, which outlive the program.
    pub spooled: u64,
    dropped: [u64; SinkCause::ALL.len()],
}

impl SinkLedger {
    /// Records dropped for `cause`.
    pub const fn dropped(&self, cause: SinkCause) -> u64 {
        self.dropped[cause as usize]
    }

    /// As page and metrics show it.
    pub fn live(&self, name: &str, kind: &str) -> LiveSink {
        LiveSink {
            name: name.to_owned(),
            kind: kind.to_owned(),
            made: self.made,
            delivered: self.delivered,
            queued: self.queued,
            spooled: self.spooled,
            dropped: self.dropped_sum(),
            state: String::new(),
            problem: None,
        }
    }

    /// Records dropped for any cause.
    pub fn dropped_sum(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// made − delivered − queued − Σ dropped; 0, or there is a bug.
    pub fn unaccounted(&self) -> i128 {
        i128::from(self.made)
            - i128::from(self.delivered)
            - i128::from(self.queued)
            - i128::from(self.dropped_sum())
    }

    pub(crate) const fn drop_queued(&mut self, cause: SinkCause, records: u64) {
        self.queued = self.queued.saturating_sub(records);
        self.dropped[cause as usize] += records;
    }

    pub(crate) const fn deliver(&mut self, records: u64) {
        self.queued = self.queued.saturating_sub(records);
        self.delivered += records;
    }

    /// Adds another account.
    pub(crate) fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.delivered += other.delivered;
        self.queued += other.queued;
        self.spooled += other.spooled;
        for (sum, records) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += records;
        }
    }

    pub(crate) const fn queue(&mut self, records: u64) {
        self.made += records;
        self.queued += records;
    }
}

/// Whether a sink can deliver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SinkHealth {
    /// The last attempt worked, or there was none yet.
    #[default]
    Ok,
    /// Records wait until the destination works again.
    Failing {
        /// Time of the first attempt that failed.
        since: Timestamp,
        /// What failed last, for people.
        what: String,
        /// It is room that is missing.
        full: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_even() {
        let mut ledger = SinkLedger::default();
        ledger.queue(10);
        ledger.deliver(4);
        ledger.drop_queued(SinkCause::QueueFull, 5);
        assert_eq!((ledger.made, ledger.delivered, ledger.queued), (10, 4, 1));
        assert_eq!((ledger.dropped(SinkCause::QueueFull), ledger.unaccounted()), (5, 0));
    }

    #[test]
    fn causes_are_their_places() {
        for (place, cause) in SinkCause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, place);
        }
    }
}
