//! The account of every packet over all workers.
//!
//! In: totals of workers, rows taken over. Out: [`LedgerTotals`].
//! Invariants: received = accounted + in flight + Σ causes + unaccounted, and unaccounted is 0 or
//! there is a bug. What is in flight is counted by itself, never computed as the rest.
//! Source: ARCHITECTURE.md, "The ledger".

use crate::counters::{CauseCounts, DropCause, Stage, WorkerTotals};

/// One worker's part.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerAccount {
    /// Its totals as of its last closed window.
    pub totals: WorkerTotals,
    /// Packets in rows that the aggregator has taken from it.
    pub rows_packets: u64,
    /// Whether it has ended, so that nothing of it is on its way.
    pub ended: bool,
}

/// The account so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerTotals {
    /// Packets taken from all sources.
    pub received: u64,
    /// Their octets on the wire.
    pub octets: u64,
    /// Packets booked in a window that the aggregator has.
    pub accounted: u64,
    /// Packets on their way: in open windows, held back, or in rings between workers.
    pub in_flight: u64,
    /// Losses by cause.
    pub causes: CauseCounts,
    /// What is missing. Not 0 means a bug.
    pub unaccounted: i64,
}

impl LedgerTotals {
    /// Sums over workers. `rows_full_packets`: packets of rows that found no room in a window, of
    /// the windows that the workers' totals cover.
    pub fn new(workers: impl Iterator<Item = WorkerAccount>, rows_full_packets: u64) -> Self {
        let mut sum = Self::default();
        let (mut spread_out, mut spread_in, mut all_ended) = (0, 0, true);
        for worker in workers {
            let totals = &worker.totals;
            sum.received += totals.received_packets;
            sum.octets += totals.received_octets;
            sum.causes.merge(&totals.causes);
            spread_out += totals.spread_out_packets;
            spread_in += totals.spread_in_packets;
            all_ended &= worker.ended;
            let cut = totals.cut_packets - totals.causes.of(DropCause::WindowRingFull);
            // Rows of the next window may have come already; they are counted with that one.
            let taken =
                if worker.ended { worker.rows_packets } else { worker.rows_packets.min(cut) };
            sum.accounted += taken;
            sum.in_flight += totals.held_packets + (totals.booked_packets - totals.cut_packets);
            sum.unaccounted += totals.unaccounted() + difference(cut, taken);
        }
        // Counts of different workers are of different moments until all have ended.
        if all_ended {
            sum.unaccounted += difference(spread_out, spread_in);
        } else {
            sum.in_flight += spread_out.saturating_sub(spread_in);
            // What one worker has taken over another has received, though its own word is older.
            sum.received += spread_in.saturating_sub(spread_out);
        }
        sum.accounted -= rows_full_packets;
        sum.causes.add(DropCause::WindowRowsFull, rows_full_packets);
        sum
    }
}

/// What went into a stage, what was left out there, and what went on, of the packets whose way is
/// over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageAccount {
    /// The stage.
    pub stage: Stage,
    /// Packets that came in.
    pub packets_in: u64,
    /// Packets left out here, over all causes.
    pub left_out: u64,
    /// Packets that went on.
    pub packets_out: u64,
}

impl LedgerTotals {
    /// The account stage by stage: what goes out of one comes into the next, and what goes out of
    /// the last is accounted. Counted from there backwards, because of what is in flight nobody
    /// knows yet where it ends: so no count of a stage ever falls, and at the end the first stage
    /// has taken all that was received.
    pub fn stages(&self) -> [StageAccount; Stage::ALL.len()] {
        let nothing = |stage| StageAccount { stage, packets_in: 0, left_out: 0, packets_out: 0 };
        let mut accounts = Stage::ALL.map(nothing);
        let mut packets_out = self.accounted;
        for account in accounts.iter_mut().rev() {
            let here = self.causes.iter().filter(|(cause, _)| cause.stage() == account.stage);
            account.left_out = here.map(|(_, packets)| packets).sum();
            account.packets_out = packets_out;
            account.packets_in = packets_out + account.left_out;
            packets_out = account.packets_in;
        }
        accounts
    }
}

fn difference(left: u64, right: u64) -> i64 {
    left.cast_signed().wrapping_sub(right.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(received: u64, booked: u64, cut: u64, rows: u64) -> WorkerAccount {
        let totals = WorkerTotals {
            received_packets: received,
            booked_packets: booked,
            cut_packets: cut,
            ..WorkerTotals::default()
        };
        WorkerAccount { totals, rows_packets: rows, ended: false }
    }

    #[test]
    fn open_windows_are_in_flight() {
        let ledger = LedgerTotals::new([account(10, 10, 7, 7)].into_iter(), 0);
        assert_eq!((ledger.accounted, ledger.in_flight, ledger.unaccounted), (7, 3, 0));
    }

    #[test]
    fn stages_hand_on_what_they_do_not_leave_out() {
        let mut worker = account(10, 7, 7, 7);
        worker.totals.causes.add(DropCause::Filtered, 1);
        worker.totals.causes.add(DropCause::Duplicate, 2);
        let ledger = LedgerTotals::new([worker].into_iter(), 0);
        let out = ledger.stages().map(|account| account.packets_out);
        assert_eq!(out, [9, 9, 7, 7, 7]);
        assert_eq!((ledger.accounted, ledger.unaccounted), (7, 0));
    }

    #[test]
    fn what_is_in_flight_is_in_no_stage_yet() {
        let open = LedgerTotals::new([account(10, 10, 7, 7)].into_iter(), 0);
        // The three turn out to be copies.
        let mut worker = account(10, 7, 7, 7);
        worker.totals.causes.add(DropCause::CopyOtherTap, 3);
        let closed = LedgerTotals::new([worker].into_iter(), 0);
        assert_eq!((open.stages()[0].packets_in, closed.stages()[0].packets_in), (7, 10));
        for (before, now) in open.stages().iter().zip(closed.stages()) {
            assert!(before.packets_in <= now.packets_in && before.packets_out <= now.packets_out);
        }
    }

    #[test]
    fn a_row_that_vanished_shows() {
        let ledger = LedgerTotals::new([account(10, 10, 10, 8)].into_iter(), 0);
        assert_eq!(ledger.unaccounted, 2);
    }

    #[test]
    fn what_was_spread_must_arrive_in_the_end() {
        let mut sender = account(10, 4, 4, 4);
        sender.totals.spread_out_packets = 6;
        let mut taker = account(0, 5, 5, 5);
        taker.totals.spread_in_packets = 5;
        let running = LedgerTotals::new([sender, taker].into_iter(), 0);
        assert_eq!((running.in_flight, running.unaccounted), (1, 0));
        (sender.ended, taker.ended) = (true, true);
        assert_eq!(LedgerTotals::new([sender, taker].into_iter(), 0).unaccounted, 1);
    }

    #[test]
    fn what_was_taken_over_was_received_though_the_sender_says_so_later() {
        let mut sender = account(10, 4, 4, 4);
        sender.totals.spread_out_packets = 6;
        let mut taker = account(0, 9, 9, 9);
        taker.totals.spread_in_packets = 9;
        let running = LedgerTotals::new([sender, taker].into_iter(), 0);
        assert_eq!((running.received, running.accounted), (13, 13));
        assert_eq!((running.in_flight, running.unaccounted), (0, 0));
    }

    #[test]
    fn rows_without_room_are_a_cause() {
        let ledger = LedgerTotals::new([account(10, 10, 10, 10)].into_iter(), 4);
        assert_eq!((ledger.accounted, ledger.unaccounted), (6, 0));
        assert_eq!(ledger.causes.of(DropCause::WindowRowsFull), 4);
    }
}
