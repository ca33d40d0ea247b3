//! Relates a tick counter (time stamp counter, NIC clock) to the wall clock.
//!
//! In: once a second a [`Sample`]: ticks and wall clock, read together. Out: a [`Conversion`] from
//! ticks to [`Timestamp`], published to readers without a lock.
//! Cost: for a reader one load a burst, and two multiplications a stamp.
//! Invariants: stamps never run backwards, except where the wall clock itself was set back by
//! more than [`STEP_NS`], which is counted; an offset below that is worked off over one sample
//! interval. The error bound is against this machine's wall clock: how well that one is
//! synchronised is not known here.
//! Source: tolerance of an oscillator, RFC 5905 §7.2 (PHI, 15 parts per million).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::time::Timestamp;

/// An offset beyond this is a step of the wall clock, not a drift of the counter.
pub const STEP_NS: u64 = 10_000_000;
/// An offset is worked off over this time, the interval of the samples. With [`STEP_NS`] the
/// clock is bent by 1 % at most, so it always runs forward.
const SLEW_NS: u64 = 1_000_000_000;
/// Samples over which the counter's rate is taken.
const HISTORY: usize = 16;
/// How far an oscillator may leave its rate, parts per billion.
const TOLERANCE_PPB: u64 = 15_000;
/// Rates are nanoseconds per tick in 32.32 fixed point.
const FRACTION_BITS: u32 = 32;

/// Ticks and wall clock at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The counter.
    pub ticks: u64,
    /// The wall clock.
    pub wall: Timestamp,
    /// How far the two readings may lie apart.
    pub uncertainty_ns: u64,
}

impl Sample {
    /// A counter read between two readings of the wall clock. A wall clock that was set back in
    /// between gives the second reading and an uncertainty of the step.
    pub fn between(before: Timestamp, ticks: u64, after: Timestamp) -> Self {
        let half = after.since_ns(before) / 2;
        let uncertainty_ns = (half + 1).max(before.since_ns(after));
        Self { ticks, wall: after - half, uncertainty_ns }
    }
}

/// From ticks to time: a line, bent for as long as an offset is worked off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    base_ticks: u64,
    base: Timestamp,
    /// Nanoseconds per tick, 32.32 fixed point.
    rate: u64,
    /// Added to the rate for the first `slew_ticks`, 32.32 fixed point, signed.
    slew: i64,
    slew_ticks: u64,
    error_ns: u64,
    drift_ppb: u64,
}

impl Conversion {
    /// The time at `ticks`; before the base the line goes on backwards.
    #[inline]
    pub fn at(&self, ticks: u64) -> Timestamp {
        let delta = ticks.wrapping_sub(self.base_ticks).cast_signed();
        let slewed = delta.clamp(0, self.slew_ticks.cast_signed());
        let scaled =
            i128::from(delta) * i128::from(self.rate) + i128::from(slewed) * i128::from(self.slew);
        let nanoseconds = i64::try_from(scaled >> FRACTION_BITS).unwrap_or(i64::MAX);
        Timestamp(self.base.0.saturating_add_signed(nanoseconds))
    }

    /// Bound of the error against the wall clock at `ticks`; grows with the time since the last
    /// sample.
    pub fn error_ns(&self, ticks: u64) -> u64 {
        self.error_ns_at(self.at(ticks))
    }

    /// The same at a time instead of a count of ticks.
    pub fn error_ns_at(&self, at: Timestamp) -> u64 {
        let age = at.since_ns(self.base);
        let drift = u128::from(age) * u128::from(self.drift_ppb) / 1_000_000_000;
        self.error_ns.saturating_add(u64::try_from(drift).unwrap_or(u64::MAX))
    }
}

/// Keeps a conversion true by samples. Pure: it reads no clock.
#[derive(Clone, Debug)]
pub struct Discipline {
    history: Vec<Sample>,
    conversion: Conversion,
    steps: u32,
}

impl Discipline {
    /// Starts from two samples, best some 10 ms apart; `None` if the counter or the wall clock
    /// did not move forward between them.
    pub fn new(first: Sample, second: Sample) -> Option<Self> {
        let (rate, drift_ppb) = rate_between(first, second)?;
        let conversion = Conversion {
            base_ticks: second.ticks,
            base: second.wall,
            rate,
            slew: 0,
            slew_ticks: 0,
            error_ns: second.uncertainty_ns,
            drift_ppb,
        };
        let mut history = Vec::with_capacity(HISTORY);
        history.extend([first, second]);
        Some(Self { history, conversion, steps: 0 })
    }

    /// Takes a sample in. One whose ticks did not move is left out.
    pub fn observe(&mut self, sample: Sample) {
        let last = self.history.last().map_or(0, |last| last.ticks);
        if sample.ticks <= last {
            return;
        }
        let predicted = self.conversion.at(sample.ticks);
        if predicted.0.abs_diff(sample.wall.0) > STEP_NS.max(sample.uncertainty_ns) {
            self.step(sample);
        } else {
            self.slew(sample, predicted);
        }
    }

    /// The conversion that holds now.
    pub fn conversion(&self) -> Conversion {
        self.conversion
    }

    /// How often the wall clock was set by more than [`STEP_NS`].
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The wall clock was set: time goes on from there, at the rate known before.
    fn step(&mut self, sample: Sample) {
        self.steps = self.steps.saturating_add(1);
        self.history.clear();
        self.history.push(sample);
        self.conversion = Conversion {
            base_ticks: sample.ticks,
            base: sample.wall,
            slew: 0,
            slew_ticks: 0,
            error_ns: sample.uncertainty_ns,
            ..self.conversion
        };
    }

    /// Time goes on where it is, at the counter's rate, and meets the wall clock at the next
    /// sample.
    fn slew(&mut self, sample: Sample, predicted: Timestamp) {
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(sample);
        let oldest = self.history.first().copied().unwrap_or(sample);
        let (rate, drift_ppb) = rate_between(oldest, sample)
            .unwrap_or((self.conversion.rate, self.conversion.drift_ppb));
        let offset = sample.wall.0.wrapping_sub(predicted.0).cast_signed();
        let slew_ticks = ticks_in(SLEW_NS, rate);
        let slew = (i128::from(offset) << FRACTION_BITS) / i128::from(slew_ticks.max(1));
        self.conversion = Conversion {
            base_ticks: sample.ticks,
            base: predicted,
            rate,
            slew: i64::try_from(slew).unwrap_or(0),
            slew_ticks,
            error_ns: offset.unsigned_abs().saturating_add(sample.uncertainty_ns),
            drift_ppb,
        };
    }
}

/// Rate from one sample to a later one, and by how much it may be wrong.
fn rate_between(first: Sample, second: Sample) -> Option<(u64, u64)> {
    let ticks = second.ticks.checked_sub(first.ticks).filter(|&ticks| ticks > 0)?;
    let elapsed = second.wall.0.checked_sub(first.wall.0).filter(|&elapsed| elapsed > 0)?;
    let rate = (u128::from(elapsed) << FRACTION_BITS) / u128::from(ticks);
    let rate = u64::try_from(rate).ok().filter(|&rate| rate > 0)?;
    let doubt = u128::from(first.uncertainty_ns) + u128::from(second.uncertainty_ns);
    let doubt = u64::try_from(doubt * 1_000_000_000 / u128::from(elapsed)).unwrap_or(u64::MAX);
    Some((rate, doubt.saturating_add(TOLERANCE_PPB)))
}

fn ticks_in(nanoseconds: u64, rate: u64) -> u64 {
    let ticks = (u128::from(nanoseconds) << FRACTION_BITS) / u128::from(rate.max(1));
    u64::try_from(ticks).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

/// A conversion that one thread publishes and others read.
#[derive(Debug, Default)]
pub struct SharedConversion {
    /// Odd while it is being written.
    version: AtomicU64,
    words: [AtomicU64; 7],
}

impl SharedConversion {
    /// Publishes; only one thread may call it.
    pub fn publish(&self, conversion: &Conversion) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let c = conversion;
        let words = [
            c.base_ticks,
            c.base.0,
            c.rate,
            c.slew.cast_unsigned(),
            c.slew_ticks,
            c.error_ns,
            c.drift_ppb,
        ];
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// The newest conversion, for who asks seldom. A writer that is halfway is waited for, which
    /// takes nanoseconds; workers, who never wait, have a [`ConversionReader`].
    pub fn read(&self) -> Conversion {
        loop {
            let version = self.version.load(Ordering::Acquire);
            if let Some(conversion) = self.copy(version) {
                return conversion;
            }
            std::hint::spin_loop();
        }
    }

    /// The conversion of this version; `None` if it is being written or not the newest any more.
    fn copy(&self, version: u64) -> Option<Conversion> {
        if version % 2 == 1 {
            return None;
        }
        let [base_ticks, base, rate, slew, slew_ticks, error_ns, drift_ppb] =
            std::array::from_fn(|place| self.words[place].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let (base, slew) = (Timestamp(base), slew.cast_signed());
        (self.version.load(Ordering::Relaxed) == version).then_some(Conversion {
            base_ticks,
            base,
            rate,
            slew,
            slew_ticks,
            error_ns,
            drift_ppb,
        })
    }
}

/// A reader's copy of a [`SharedConversion`], renewed when there is a new one.
#[derive(Clone, Debug)]
pub struct ConversionReader {
    shared: Arc<SharedConversion>,
    version: u64,
    conversion: Conversion,
}

impl ConversionReader {
    /// Reads `shared`, to which at least one conversion should have been published; before that
    /// all times are the epoch.
    pub fn new(shared: Arc<SharedConversion>) -> Self {
        let mut reader = Self { shared, version: 0, conversion: Conversion::default() };
        reader.refresh();
        reader
    }

    /// The newest conversion; the one before if it is just being written.
    #[inline]
    pub fn refresh(&mut self) -> &Conversion {
        if self.shared.version.load(Ordering::Acquire) != self.version {
            self.renew();
        }
        &self.conversion
    }

    /// Where the conversions come from.
    pub fn shared(&self) -> &Arc<SharedConversion> {
        &self.shared
    }

    /// Never waits: if the writer was halfway, the next burst tries again.
    #[cold]
    fn renew(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if let Some(conversion) = self.shared.copy(version) {
            self.version = version;
            self.conversion = conversion;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A counter of about 2.5 GHz beside a wall clock that is `ahead_ns` ahead of the true time.
    fn sample(true_ns: u64, ahead_ns: i64) -> Sample {
        let wall = Timestamp((1_700_000_000 * SECOND + true_ns).saturating_add_signed(ahead_ns));
        Sample { ticks: 5_000 + true_ns * 5 / 2, wall, uncertainty_ns: 30 }
    }

    fn started() -> Discipline {
        Discipline::new(sample(0, 0), sample(20_000_000, 0)).expect("both move")
    }

    #[test]
    fn a_steady_clock_is_followed_to_the_nanosecond() {
        let mut clock = started();
        for second in 1..100 {
            clock.observe(sample(second * SECOND, 0));
            let at = sample(second * SECOND + 700_000_000, 0);
            let error = clock.conversion().at(at.ticks).0.abs_diff(at.wall.0);
            assert!(error <= 2, "{error} ns after {second} s");
            let bound = clock.conversion().error_ns(at.ticks);
            assert!((30..20_000).contains(&bound), "{bound}");
        }
        assert_eq!(clock.steps(), 0);
    }

    #[test]
    fn a_drifting_wall_clock_is_followed_within_the_bound_and_forwards() {
        let mut clock = started();
        let mut latest = Timestamp::ZERO;
        // 100 parts per million fast, with the noise of real readings.
        let ahead = |ns: u64| i64::try_from(ns / 10_000).expect("small");
        for second in 1..60_u64 {
            let noise = i64::try_from(second * 7 % 50).expect("small") - 25;
            clock.observe(sample(second * SECOND, ahead(second * SECOND) + noise));
            for part in 0..10 {
                let true_ns = second * SECOND + part * 99_999_999;
                let now = sample(true_ns, ahead(true_ns));
                let stamp = clock.conversion().at(now.ticks);
                assert!(stamp >= latest, "runs backwards at {true_ns}");
                latest = stamp;
                let error = stamp.0.abs_diff(now.wall.0);
                let bound = clock.conversion().error_ns(now.ticks);
                assert!(second < 3 || error <= bound, "{error} > {bound} at {true_ns}");
            }
        }
        assert_eq!(clock.steps(), 0);
    }

    #[test]
    fn a_small_offset_is_worked_off_without_running_backwards() {
        for offset in [-9_000_000, 9_000_000] {
            let mut clock = started();
            clock.observe(sample(SECOND, 0));
            let before = clock.conversion().at(sample(2 * SECOND, 0).ticks);
            clock.observe(sample(2 * SECOND, offset));
            let mut latest = before;
            for step in 0..=1_000 {
                let stamp = clock.conversion().at(sample(2 * SECOND + step * 1_000_000, 0).ticks);
                assert!(stamp >= latest);
                latest = stamp;
            }
            let met = sample(3 * SECOND, offset).wall;
            assert!(latest.0.abs_diff(met.0) < 10_000_000, "{offset}");
            let bound = clock.conversion().error_ns(sample(2 * SECOND, 0).ticks);
            assert!(bound >= 9_000_000, "the bound shows the offset: {bound}");
        }
    }

    #[test]
    fn a_step_is_followed_and_counted() {
        for offset in [-3_600_000_000_000, 3_600_000_000_000] {
            let mut clock = started();
            clock.observe(sample(SECOND, 0));
            clock.observe(sample(2 * SECOND, offset));
            let now = sample(2 * SECOND + 1_000_000, offset);
            assert!(clock.conversion().at(now.ticks).0.abs_diff(now.wall.0) < 1_000);
            assert_eq!(clock.steps(), 1);
            clock.observe(sample(3 * SECOND, offset));
            assert_eq!(clock.steps(), 1);
        }
    }

    #[test]
    fn stuck_counters_are_refused_or_left_out() {
        assert!(Discipline::new(sample(5, 0), sample(5, 0)).is_none());
        assert!(Discipline::new(sample(SECOND, 0), sample(0, 0)).is_none());
        let mut clock = started();
        let before = clock.conversion();
        clock.observe(sample(20_000_000, 500));
        assert_eq!(clock.conversion(), before);
    }

    #[test]
    fn extreme_ticks_do_not_overflow() {
        let conversion = started().conversion();
        for ticks in [0, 1, u64::MAX / 2, u64::MAX] {
            let _ = conversion.at(ticks);
            let _ = conversion.error_ns(ticks);
        }
    }

    #[test]
    fn readings_lie_in_the_middle() {
        let sample = Sample::between(Timestamp(1_000), 7, Timestamp(1_101));
        assert_eq!((sample.wall, sample.uncertainty_ns), (Timestamp(1_051), 51));
        let back = Sample::between(Timestamp(5_000), 7, Timestamp(1_000));
        assert_eq!((back.wall, back.uncertainty_ns), (Timestamp(1_000), 4_000));
    }

    #[test]
    fn readers_see_whole_conversions() {
        let shared = Arc::new(SharedConversion::default());
        // Each word is the same number, so a mixture would show.
        let whole = |number: u64| Conversion {
            base_ticks: number,
            base: Timestamp(number),
            rate: number,
            slew: number.cast_signed(),
            slew_ticks: number,
            error_ns: number,
            drift_ppb: number,
        };
        shared.publish(&whole(1));
        let mut reader = ConversionReader::new(Arc::clone(&shared));
        let writer = std::thread::spawn(move || {
            for number in 2..50_000 {
                shared.publish(&whole(number));
            }
        });
        let mut seen = 0;
        while seen < 49_999 {
            let conversion = *reader.refresh();
            assert_eq!(conversion, whole(conversion.rate));
            assert!(conversion.rate >= seen);
            seen = conversion.rate;
        }
        writer.join().expect("the writer ends");
    }
}
