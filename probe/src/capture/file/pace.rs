//! Replays at a multiple of the original speed.
//!
//! In: a source whose stamps can be asked for, a clock. Out: the same packets, not before their
//! time.
//! Cost: one clock call a poll.
//! Invariants: order and contents are the source's; a packet is early only behind a hole of more
//! than [`HOLE_NS`], which is not waited for; one that is late is given at once, and the schedule
//! is not moved by it.

use std::time::Duration;

use crate::capture::{Source, SourceState};
use crate::time::{Timestamp, monotonic_ns};

/// A jump of the stamps that nobody waits for: a broken stamp, or a break between two captures. The
/// schedule begins anew behind it.
const HOLE_NS: u64 = 3_600 * 1_000_000_000;

/// A source that can hold back what is not due.
pub trait Scheduled: Source {
    /// Stamp of the next packet; `None` at the end. Bursts from before are gone.
    fn next_stamp(&mut self) -> Option<Timestamp>;

    /// As [`Source::poll`], but leaves packets that are later than `limit`.
    fn poll_until(&mut self, limit: Timestamp) -> (Self::Burst<'_>, SourceState);
}

/// Releases the packets of `S` by a clock that counts nanoseconds.
#[derive(Debug)]
pub struct Paced<S, C = fn() -> u64> {
    source: S,
    clock: C,
    times: f64,
    begin: Option<Begin>,
}

/// The instant at which the packet was due that the schedule begins with.
#[derive(Clone, Copy, Debug)]
struct Begin {
    stamp: Timestamp,
    clock_ns: u64,
}

impl<S: Scheduled> Paced<S> {
    /// Replays `source` at `times` its original speed (2 is twice as fast), by the monotonic clock
    /// from the first poll on. What is not a positive number stands for no pace: everything is
    /// due at once.
    pub fn new(source: S, times: f64) -> Self {
        Self::with_clock(source, times, monotonic_ns)
    }
}

impl<S: Scheduled, C: FnMut() -> u64> Paced<S, C> {
    /// As [`Paced::new`] with another clock, which must not go back.
    pub fn with_clock(source: S, times: f64, clock: C) -> Self {
        Self { source, clock, times, begin: None }
    }

    /// The source, for its ports and errors.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Up to which stamp packets are due now.
    fn due(&mut self) -> Timestamp {
        let now_ns = (self.clock)();
        let Some(stamp) = self.source.next_stamp() else { return Timestamp(u64::MAX) };
        if let Some(begin) = self.begin {
            let due = self.due_since(begin, now_ns);
            // A stamp far behind the first one of the schedule follows a jump ahead.
            if stamp <= due + HOLE_NS && begin.stamp <= stamp + HOLE_NS {
                return due;
            }
        }
        let begin = *self.begin.insert(Begin { stamp, clock_ns: now_ns });
        self.due_since(begin, now_ns)
    }

    fn due_since(&self, begin: Begin, now_ns: u64) -> Timestamp {
        let waited = Duration::from_nanos(now_ns.saturating_sub(begin.clock_ns));
        // Beyond what a duration holds, and for a pace that is none, everything is due.
        Duration::try_from_secs_f64(waited.as_secs_f64() * self.times)
            .ok()
            .filter(|_| self.times > 0.0)
            .and_then(|elapsed| u64::try_from(elapsed.as_nanos()).ok())
            .map_or(Timestamp(u64::MAX), |elapsed_ns| begin.stamp + elapsed_ns)
    }
}

impl<S: Scheduled, C: FnMut() -> u64> Source for Paced<S, C> {
    type Burst<'a>
        = S::Burst<'a>
    where
        Self: 'a;

    fn is_live(&self) -> bool {
        self.source.is_live()
    }

    /// An empty burst while nothing is due.
    fn poll(&mut self) -> (Self::Burst<'_>, SourceState) {
        let due = self.due();
        self.source.poll_until(due)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::capture::Burst;
    use crate::capture::file::tests::{capture, in_bursts, source};

    fn released(times: f64, clock: &Cell<u64>, at: &[(u64, usize)]) {
        let file = capture(&[1_000, 1_000, 2_000, 500, 5_000]);
        let mut paced = Paced::with_clock(source(vec![("a", file)]), times, || clock.get());
        for (now_ns, packets) in at {
            clock.set(*now_ns);
            assert_eq!(paced.poll().0.len(), *packets, "at {now_ns}");
        }
        assert_eq!(paced.poll().1, SourceState::Ended);
    }

    #[test]
    fn packets_come_at_their_time() {
        // A stamp that goes back is due as soon as its turn comes.
        released(1.0, &Cell::new(0), &[(7, 2), (1_006, 0), (1_007, 2), (4_006, 0), (4_007, 1)]);
    }

    #[test]
    fn twice_as_fast() {
        released(2.0, &Cell::new(0), &[(0, 2), (499, 0), (500, 2), (1_999, 0), (2_000, 1)]);
    }

    #[test]
    fn half_as_fast_and_late() {
        released(0.5, &Cell::new(0), &[(0, 2), (1_999, 0), (50_000, 3)]);
    }

    #[test]
    fn no_pace_gives_everything() {
        for times in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            released(times, &Cell::new(0), &[(1, 5)]);
        }
    }

    #[test]
    fn nobody_waits_for_a_broken_stamp() {
        let clock = Cell::new(0);
        let file = capture(&[1_000, 4_000_000_000_000_000_000, 2_000, 3_000]);
        let mut paced = Paced::with_clock(in_bursts(vec![("a", file)], 1), 1.0, || clock.get());
        for (now_ns, packets) in [(0, 1), (10, 1), (20, 1), (1_019, 0), (1_020, 1)] {
            clock.set(now_ns);
            assert_eq!(paced.poll().0.len(), packets, "at {now_ns}");
        }
    }

    #[test]
    fn waiting_is_no_end_and_keeps_the_clock() {
        let clock = Cell::new(0);
        let mut paced =
            Paced::with_clock(source(vec![("a", capture(&[1_000, 9_000]))]), 1.0, || clock.get());
        assert_eq!(paced.poll().1, SourceState::Open(Timestamp(1_000)));
        assert_eq!(paced.poll().1, SourceState::Open(Timestamp(1_000)));
        clock.set(8_000);
        assert_eq!(paced.poll().1, SourceState::Open(Timestamp(9_000)));
        assert_eq!(paced.poll().1, SourceState::Ended);
    }
}
