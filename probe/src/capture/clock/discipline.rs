//! Keeps a conversion true by samples.
//!
//! In: [`Sample`]s, about one a second. Out: the [`Conversion`] that holds, and what was noticed.
//! Cost: a few divisions a sample.
//! Invariants: pure, it reads no clock. Time runs forward, whatever the wall clock and the counter
//! do. A wall clock that was set forward is followed at once. One that was set back is met again:
//! time goes on where it is and loses one part in [`BACK_SHARE`] until then, and the error bound
//! says by how much it is ahead. A counter that starts anew or jumps is followed from there, as far
//! as the wall clock says.
//! Source: tolerance of an oscillator, RFC 5905 §7.2 (PHI, 15 parts per million).

use super::{Conversion, FRACTION_BITS, Sample};
use crate::time::Timestamp;

/// The wall clock moved by more than this against the counter: it was set, it did not drift.
pub const STEP_NS: u64 = 10_000_000;

/// Time that is ahead of the wall clock loses at most one part in so many: a second is worked off
/// in twenty, and durations are measured 5 % short meanwhile.
pub const BACK_SHARE: u64 = 20;

/// Small offsets are worked off over this time, the interval of the samples. With [`STEP_NS`] the
/// clock is bent by 1 % at most.
const SLEW_NS: u64 = 1_000_000_000;
/// Samples over which the counter's rate is taken.
const HISTORY: usize = 16;
/// How far an oscillator may leave its rate, parts per billion.
const TOLERANCE_PPB: u64 = 15_000;

/// What a sample showed beside drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The wall clock was set forward; time follows at once.
    Forward {
        /// By how much.
        by_ns: u64,
    },
    /// The wall clock was set back; time is ahead of it and meets it again.
    Back {
        /// By how much.
        by_ns: u64,
    },
    /// The counter started anew or jumped; time goes on from where it was.
    Counter,
}

/// Keeps a conversion true by samples. Pure: it reads no clock.
#[derive(Clone, Debug)]
pub struct Discipline {
    history: Vec<Sample>,
    conversion: Conversion,
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
        Some(Self { history, conversion })
    }

    /// Takes a sample in. One whose ticks did not move, and one that is less certain than a step
    /// is large, is left out.
    pub fn observe(&mut self, sample: Sample) -> Option<Change> {
        let last = *self.history.last()?;
        if sample.ticks == last.ticks || sample.uncertainty_ns > STEP_NS {
            return None;
        }
        let elapsed = Elapsed::between(last, sample, self.conversion.rate);
        let change = elapsed.change(STEP_NS + last.uncertainty_ns.max(sample.uncertainty_ns));
        let now = match change {
            // The ticks say nothing; the wall clock says how far time has come.
            Some(Change::Counter) => {
                let wall_ns = u64::try_from(elapsed.wall_ns).unwrap_or(0);
                let ticks = ticks_in(wall_ns, self.conversion.rate);
                self.conversion.at(last.ticks.saturating_add(ticks))
            }
            _ => self.conversion.at(sample.ticks),
        };
        if change.is_some() {
            self.history.clear();
        }
        self.remember(sample);
        self.go_on(sample, now);
        change
    }

    /// The conversion that holds now.
    pub fn conversion(&self) -> Conversion {
        self.conversion
    }

    /// The newest samples since the last change.
    fn remember(&mut self, sample: Sample) {
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(sample);
    }

    /// Time goes on from `now`, at the counter's rate, and meets the wall clock: at once if that is
    /// far ahead, else at the next sample, or as soon as it may lose what it is ahead.
    fn go_on(&mut self, sample: Sample, now: Timestamp) {
        let oldest = self.history.first().copied().unwrap_or(sample);
        let (rate, drift_ppb) = rate_between(oldest, sample)
            .unwrap_or((self.conversion.rate, self.conversion.drift_ppb));
        let offset = i128::from(sample.wall.0) - i128::from(now.0);
        let follows = offset > i128::from(STEP_NS);
        let (base, offset) = if follows { (sample.wall, 0) } else { (now, offset) };
        let offset_ns = u64::try_from(offset.unsigned_abs()).unwrap_or(u64::MAX);
        let share = if offset < 0 { BACK_SHARE } else { 1 };
        let slew_ticks = ticks_in(SLEW_NS.max(offset_ns.saturating_mul(share)), rate);
        let slew = (offset << FRACTION_BITS) / i128::from(slew_ticks.max(1));
        self.conversion = Conversion {
            base_ticks: sample.ticks,
            base,
            rate,
            slew: i64::try_from(slew).unwrap_or(0),
            slew_ticks,
            error_ns: offset_ns.saturating_add(sample.uncertainty_ns),
            drift_ppb,
        };
    }
}

/// How far wall clock and counter came from one sample to the next, each in nanoseconds; below 0
/// where it went back.
struct Elapsed {
    wall_ns: i128,
    counter_ns: i128,
}

impl Elapsed {
    fn between(last: Sample, sample: Sample, rate: u64) -> Self {
        let ticks = i128::from(sample.ticks) - i128::from(last.ticks);
        Self {
            wall_ns: i128::from(sample.wall.0) - i128::from(last.wall.0),
            // Below 2^97 with any rate that a counter has; a hostile one is cut.
            counter_ns: ticks.saturating_mul(i128::from(rate)) >> FRACTION_BITS,
        }
    }

    /// Of two that disagree by more than `tolerance_ns`, the one that is further from the samples'
    /// interval was set.
    fn change(&self, tolerance_ns: u64) -> Option<Change> {
        let by = self.wall_ns - self.counter_ns;
        if by.unsigned_abs() <= u128::from(tolerance_ns) {
            return None;
        }
        let oddness = |elapsed_ns: i128| (elapsed_ns - i128::from(SLEW_NS)).unsigned_abs();
        let by_ns = u64::try_from(by.unsigned_abs()).unwrap_or(u64::MAX);
        Some(if self.counter_ns <= 0 || oddness(self.counter_ns) > oddness(self.wall_ns) {
            Change::Counter
        } else if by > 0 {
            Change::Forward { by_ns }
        } else {
            Change::Back { by_ns }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A counter of about 2.5 GHz beside a wall clock that is `ahead_ns` ahead of the true time.
    fn sample(true_ns: u64, ahead_ns: i64) -> Sample {
        let wall = Timestamp((1_700_000_000 * SECOND + true_ns).saturating_add_signed(ahead_ns));
        Sample { ticks: 5_000 + true_ns * 5 / 2, wall, uncertainty_ns: 30 }
    }

    /// What the error may be at a sample's wall clock.
    fn bound(clock: &Discipline, now: Sample) -> u64 {
        clock.conversion().error_ns_at(now.wall)
    }

    fn started() -> Discipline {
        Discipline::new(sample(0, 0), sample(20_000_000, 0)).expect("both move")
    }

    #[test]
    fn a_steady_clock_is_followed_to_the_nanosecond() {
        let mut clock = started();
        for second in 1..100 {
            assert_eq!(clock.observe(sample(second * SECOND, 0)), None);
            let at = sample(second * SECOND + 700_000_000, 0);
            let error = clock.conversion().at(at.ticks).0.abs_diff(at.wall.0);
            assert!(error <= 2, "{error} ns after {second} s");
            let bound = bound(&clock, at);
            assert!((30..20_000).contains(&bound), "{bound}");
        }
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
                let bound = bound(&clock, now);
                assert!(second < 3 || error <= bound, "{error} > {bound} at {true_ns}");
            }
        }
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
            let bound = bound(&clock, sample(2 * SECOND, offset));
            assert!(bound >= 9_000_000, "the bound shows the offset: {bound}");
        }
    }

    #[test]
    fn a_step_forward_is_followed_at_once() {
        let mut clock = started();
        assert_eq!(clock.observe(sample(SECOND, 0)), None);
        let offset = 3_600_000_000_000;
        let change = clock.observe(sample(2 * SECOND, offset));
        let Some(Change::Forward { by_ns }) = change else { panic!("{change:?}") };
        assert!(by_ns.abs_diff(offset.unsigned_abs()) < 1_000, "{by_ns}");
        let now = sample(2 * SECOND + 1_000_000, offset);
        assert!(clock.conversion().at(now.ticks).0.abs_diff(now.wall.0) < 1_000);
        assert_eq!(clock.observe(sample(3 * SECOND, offset)), None);
    }

    /// Follows `wanted` (true time → sample) for `seconds`, and says how far time is from its wall
    /// clock at the end. Time never goes back, and is never further away than the bound says.
    fn follow(
        clock: &mut Discipline,
        seconds: std::ops::Range<u64>,
        wanted: impl Fn(u64) -> Sample,
    ) -> i128 {
        let mut latest = clock.conversion().at(wanted(seconds.start * SECOND).ticks);
        let mut away = 0;
        for second in seconds {
            clock.observe(wanted(second * SECOND));
            for part in 0..100 {
                let now = wanted(second * SECOND + part * SECOND / 100);
                let stamp = clock.conversion().at(now.ticks);
                assert!(stamp >= latest, "runs backwards at {second}.{part}");
                latest = stamp;
                away = i128::from(stamp.0) - i128::from(now.wall.0);
                let bound = bound(clock, now);
                assert!(away.unsigned_abs() <= u128::from(bound), "{away} > {bound}");
            }
        }
        away
    }

    #[test]
    fn a_step_back_is_worked_off_and_time_runs_on() {
        let set_back = |true_ns| sample(true_ns, -5_000_000_000);
        let mut clock = started();
        clock.observe(sample(SECOND, 0));
        let mut seen = clock.clone();
        let change = seen.observe(set_back(2 * SECOND));
        let Some(Change::Back { by_ns }) = change else { panic!("{change:?}") };
        assert!(by_ns.abs_diff(5 * SECOND) < 1_000, "{by_ns}");
        assert_eq!(seen.observe(set_back(3 * SECOND)), None, "told once");
        // One part in twenty of the time that passed.
        let away = follow(&mut clock, 2..42, set_back);
        assert!((2_990_000_000..3_010_000_000).contains(&away), "{away}");
        let away = follow(&mut clock, 42..110, set_back);
        assert!(away.abs() < 1_000, "{away}");
    }

    #[test]
    fn a_step_back_that_is_undone_leaves_nothing() {
        let mut clock = started();
        clock.observe(sample(SECOND, 0));
        follow(&mut clock, 2..10, |true_ns| sample(true_ns, -60_000_000_000));
        let away = follow(&mut clock, 10..20, |true_ns| sample(true_ns, 0));
        assert!(away.abs() < 1_000, "{away}");
    }

    #[test]
    fn a_counter_that_starts_anew_or_jumps_is_followed() {
        for ticks in [0, 1 << 50] {
            let anew = |true_ns: u64| Sample {
                ticks: ticks + (true_ns - 30 * SECOND) * 5 / 2,
                ..sample(true_ns, 0)
            };
            let mut clock = started();
            follow(&mut clock, 1..30, |true_ns| sample(true_ns, 0));
            let before = clock.conversion().at(sample(30 * SECOND, 0).ticks);
            assert_eq!(clock.observe(anew(30 * SECOND + 200_000_000)), Some(Change::Counter));
            assert!(clock.conversion().at(anew(30 * SECOND + 200_000_000).ticks) >= before);
            let away = follow(&mut clock, 31..60, anew);
            assert!(away.abs() < 1_000, "{away}");
        }
    }

    #[test]
    fn a_sample_that_is_not_certain_is_left_out() {
        let mut clock = started();
        let before = clock.conversion();
        let doubtful = Sample { uncertainty_ns: STEP_NS + 1, ..sample(SECOND, -5_000_000_000) };
        assert_eq!((clock.observe(doubtful), clock.conversion()), (None, before));
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
        }
    }
}
