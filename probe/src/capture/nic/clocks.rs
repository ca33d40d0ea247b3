//! The clocks of a run: read once a second beside the wall clock, off the workers.
//!
//! In: the time stamp counter, the NICs' clocks. Out: a conversion of each, for the sources; what
//! happens to the clocks, in the log.
//! Cost: microseconds a second, on a thread of its own.
//! Invariants: the log says each change once, and packets whose stamps did not count at most once a
//! minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ClockSource;
use crate::capture::clock::{BACK_SHARE, Change, Discipline, Sample, SharedConversion};
use crate::counters::Counter;
use crate::dpdk::{Port, Reading, read_device_clock, read_tsc};
use crate::index::PortIndex;
use crate::time::Timestamp;

/// Time between the first two readings of a clock, from which its first rate is taken.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);
/// Time between readings afterwards; the discipline works offsets off over one.
const INTERVAL: Duration = Duration::from_secs(1);
/// Readings between two words about stamps that did not count.
const FOREIGN_READINGS: u32 = 60;

/// One counter and its conversion.
#[derive(Debug)]
pub(super) struct Clock {
    /// `None`: the time stamp counter.
    port: Option<(Port, PortIndex)>,
    discipline: Discipline,
    shared: Arc<SharedConversion>,
}

impl Clock {
    /// The time stamp counter; `None` if it does not run.
    pub(super) fn of_tsc() -> Option<Self> {
        Self::new(None)
    }

    /// A NIC's clock; `None` if it cannot be read or does not run.
    pub(super) fn of_port(port: Port, index: PortIndex) -> Option<Self> {
        Self::new(Some((port, index)))
    }

    /// Its conversion, for readers.
    pub(super) fn shared(&self) -> &Arc<SharedConversion> {
        &self.shared
    }

    fn new(port: Option<(Port, PortIndex)>) -> Option<Self> {
        let first = sample(port.as_ref())?;
        std::thread::sleep(FIRST_INTERVAL);
        let discipline = Discipline::new(first, sample(port.as_ref())?)?;
        let shared = Arc::new(SharedConversion::default());
        shared.publish(&discipline.conversion());
        Some(Self { port, discipline, shared })
    }

    /// Takes a reading in; the answer is what it showed beside drift.
    fn observe(&mut self) -> Option<Change> {
        let change = self.discipline.observe(sample(self.port.as_ref())?);
        self.shared.publish(&self.discipline.conversion());
        if let Some(change) = change {
            self.tell(change);
        }
        change
    }

    fn tell(&self, change: Change) {
        let clock = match &self.port {
            None => "tsc".to_owned(),
            Some((_, index)) => format!("port {}", index.0),
        };
        match change {
            Change::Forward { by_ns } => {
                tracing::warn!(clock, by_ns, "the wall clock was set forward; packet times follow");
            }
            Change::Back { by_ns } => {
                let met_after_s = by_ns.saturating_mul(BACK_SHARE) / 1_000_000_000;
                tracing::warn!(
                    clock,
                    by_ns,
                    met_after_s,
                    "the wall clock was set back; packet times run 5 % slower until they meet it"
                );
            }
            Change::Counter => {
                tracing::warn!(clock, "the counter started anew or jumped; packet times go on");
            }
        }
    }
}

fn sample(port: Option<&(Port, PortIndex)>) -> Option<Sample> {
    let Reading { before, ticks, after } = match port {
        None => read_tsc()?,
        Some((port, _)) => read_device_clock(port)?,
    };
    Some(Sample::between(before, ticks, after))
}

/// The clock of a port's stamps. It is kept by the clock thread; asking it costs the workers
/// nothing.
#[derive(Clone, Debug)]
pub struct PortClock {
    source: ClockSource,
    clocks: Vec<Arc<SharedConversion>>,
}

impl PortClock {
    /// Of stamps that come from any of `clocks`; none for a file's.
    pub(super) fn new(source: ClockSource, clocks: Vec<Arc<SharedConversion>>) -> Self {
        Self { source, clocks }
    }

    /// The time stamp counter with this relation to the wall clock.
    pub fn of_counter(conversion: Arc<SharedConversion>) -> Self {
        Self::new(ClockSource::Tsc, vec![conversion])
    }

    /// Where the stamps come from.
    pub fn source(&self) -> ClockSource {
        self.source
    }

    /// Bound of the stamps' error against this machine's wall clock at `now`; `None` where the
    /// stamps are not this machine's.
    pub fn error_ns(&self, now: Timestamp) -> Option<u64> {
        let largest = self.clocks.iter().map(|clock| clock.read().error_ns_at(now)).max()?;
        // The kernel's stamps are in whole microseconds.
        Some(largest.max(if self.source == ClockSource::Kernel { 1_000 } else { 0 }))
    }
}

/// Reads the clocks once a second, off the workers. Ends when dropped.
#[derive(Debug)]
pub struct ClockThread {
    shared: Arc<ThreadShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct ThreadShared {
    stop: AtomicBool,
    steps: AtomicU32,
}

impl ClockThread {
    /// For these clocks; `foreign` count packets whose own stamps did not count.
    pub(super) fn start(
        mut clocks: Vec<Clock>,
        foreign: Vec<Arc<Counter>>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(ThreadShared::default());
        let seen = Arc::clone(&shared);
        let mut foreign = Foreign { counters: foreign, told: 0, readings: FOREIGN_READINGS };
        let run = move || {
            while !seen.stop.load(Ordering::Acquire) {
                std::thread::park_timeout(INTERVAL);
                let changed = clocks.iter_mut().filter_map(Clock::observe).count();
                seen.steps.fetch_add(u32::try_from(changed).unwrap_or(0), Ordering::Relaxed);
                if let Some(packets) = foreign.news() {
                    tracing::warn!(
                        packets,
                        "stamps of the NIC or kernel too far from the poll so far; the packets \
                         have the time of the poll"
                    );
                }
            }
        };
        let thread = std::thread::Builder::new().name("clock".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How often a clock was set or began anew while the probe ran.
    pub fn steps(&self) -> u32 {
        self.shared.steps.load(Ordering::Relaxed)
    }
}

impl Drop for ClockThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// What is to be said about stamps that did not count.
struct Foreign {
    counters: Vec<Arc<Counter>>,
    told: u64,
    /// Readings since it was last said.
    readings: u32,
}

impl Foreign {
    /// All such packets, if there are new ones and nothing was said lately.
    fn news(&mut self) -> Option<u64> {
        self.readings = self.readings.saturating_add(1);
        let packets = self.counters.iter().map(|counter| counter.load()).sum();
        if packets == self.told || self.readings < FOREIGN_READINGS {
            return None;
        }
        (self.told, self.readings) = (packets, 0);
        Some(packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_that_do_not_count_are_told_once_a_minute() {
        let counter = Arc::new(Counter::default());
        let counters = vec![Arc::clone(&counter)];
        let mut foreign = Foreign { counters, told: 0, readings: FOREIGN_READINGS };
        assert_eq!(foreign.news(), None);
        counter.add(3);
        assert_eq!(foreign.news(), Some(3));
        counter.add(1);
        let told: Vec<_> = (0..200).filter_map(|_| foreign.news()).collect();
        assert_eq!(told, [4]);
    }

    #[test]
    fn the_bound_is_that_of_the_worst_clock() {
        let shared = |uncertainty_ns| {
            let sample = |ticks| Sample { ticks, wall: Timestamp(ticks), uncertainty_ns };
            let discipline = Discipline::new(sample(0), sample(1_000_000)).expect("both move");
            let shared = Arc::new(SharedConversion::default());
            shared.publish(&discipline.conversion());
            shared
        };
        let (good, bad) = (shared(20), shared(3_000));
        let error_ns = |source, clocks: &[&Arc<SharedConversion>]| {
            let clocks = clocks.iter().map(|clock| Arc::clone(clock)).collect();
            PortClock::new(source, clocks).error_ns(Timestamp(1_000_000))
        };
        assert_eq!(error_ns(ClockSource::Tsc, &[&good]), Some(20));
        assert_eq!(error_ns(ClockSource::Nic, &[&good, &bad]), Some(3_000));
        assert_eq!(error_ns(ClockSource::Kernel, &[&good]), Some(1_000));
        assert_eq!(error_ns(ClockSource::File, &[]), None);
    }
}
