//! Delay and loss between taps, by window: for each pair of taps, and for each pair of endpoints.
//!
//! In: trajectories of all workers. Out: a [`PathView`] a window.
//! Cost: a look-up a trajectory; a histogram for each pair of endpoints while a window is open.
//! Invariants: a window is given out when every packet of it has its verdict, in order; a loss
//! is stated only where other packets of the same endpoints passed both taps, lately or soon after.
//! Which worker a packet was at shows in nothing.
//! Source: the definitions, docs/measures.md; offset from both directions, as in RFC 5905 section 8.

mod delays;
mod history;
mod window;

pub use delays::{Delays, Ranks};

use std::collections::BTreeMap;

use crate::config::Plan;
use crate::index::{TapIndex, WindowNumber};
use crate::measure::histogram::{Dense, Sparse};
use crate::path::{Ends, Evidence, Trajectory};
use crate::time::{Timestamp, ms};

use history::{History, Least, Way};
use window::{Counts, TapSet, Window};

/// Sightings of a window that become records at most, if they are asked for.
const SAMPLES_MAX: usize = 1 << 18;

/// What is left of a sweep of a worker when a window closes, at most.
const SWEEP_NS: u64 = ms(2_000);

/// Packets of one way between two taps, selected ones only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounts {
    /// Seen at both.
    pub matched: u64,
    /// Of these, at the second in frames that were cut otherwise, so without a time.
    pub recut: u64,
    /// Seen at the second only: the mirror of the first did not show them.
    pub first_missed: u64,
    /// Seen at the first only, and repeated by the sender.
    pub network: u64,
    /// Seen at the first only, and acknowledged, or seen further on.
    pub mirror: u64,
    /// Seen at the first only, without evidence.
    pub unresolved: u64,
    /// Can't be told apart from others; in no other count.
    pub ambiguous: u64,
}

impl PathCounts {
    /// Logical packets of this direction.
    pub const fn total(&self) -> u64 {
        self.matched + self.first_missed + self.network + self.mirror + self.unresolved
    }

    /// Share that was lost between the taps: proven, and with what is unresolved.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn loss(&self) -> Option<(f64, f64)> {
        let total = self.total();
        let share = |lost: u64| lost as f64 / total as f64;
        (total > 0).then(|| (share(self.network), share(self.network + self.unresolved)))
    }

    fn add(&mut self, other: &Self) {
        self.matched += other.matched;
        self.recut += other.recut;
        self.first_missed += other.first_missed;
        self.network += other.network;
        self.mirror += other.mirror;
        self.unresolved += other.unresolved;
        self.ambiguous += other.ambiguous;
    }
}

/// Times from the first tap to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathDelay {
    /// Samples.
    pub count: u64,
    /// Their mean.
    pub mean_ns: i64,
    /// The least.
    pub min_ns: i64,
    /// The largest.
    pub max_ns: i64,
    /// Percentiles 50, 90 and 99.
    pub percentiles_ns: [i64; 3],
    /// The least of the last 60 s.
    pub base_ns: i64,
}

impl PathDelay {
    fn of<H: Ranks>(delays: &Delays<H>, base_ns: Option<i64>) -> Option<Self> {
        let percentile = |per_mille| delays.percentile_ns(per_mille);
        Some(Self {
            count: delays.count,
            mean_ns: delays.mean_ns()?,
            min_ns: delays.min_ns,
            max_ns: delays.max_ns,
            percentiles_ns: [percentile(500)?, percentile(900)?, percentile(990)?],
            base_ns: base_ns.unwrap_or(delays.min_ns),
        })
    }
}

/// How far the second tap's clock is ahead of the first's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Estimate: exact where both directions take the same least time.
    pub offset_ns: i64,
    /// It is off by no more than this, as no packet arrives before it was sent.
    pub bound_ns: u64,
}

/// A way between two taps, of everybody or of one pair of endpoints.
#[derive(Clone, Copy, Debug)]
pub struct PathRow {
    /// Whose packets; `None`: everybody's.
    pub ends: Option<Ends>,
    /// Tap that they pass first.
    pub from: TapIndex,
    /// Tap that they pass later.
    pub to: TapIndex,
    /// How many.
    pub counts: PathCounts,
    /// How long; `None` without samples.
    pub delay: Option<PathDelay>,
    /// The clocks, from both directions of everybody's packets; `None` with one direction.
    pub offset: Option<ClockOffset>,
}

/// Delay and loss of one window.
pub struct PathView {
    /// First instant.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
    /// Ways in order of their taps; everybody's first.
    pub rows: Vec<PathRow>,
    /// Each packet, if asked for.
    pub samples: Vec<Trajectory>,
    /// Selected packets that came too late for their own window.
    pub late_packets: u64,
    /// Selected packets that found no room.
    pub full_packets: u64,
}

/// Windows that wait for verdicts, and what is known of ways.
pub struct Paths {
    windows: BTreeMap<WindowNumber, Window>,
    next: WindowNumber,
    length_ns: u64,
    /// Windows until the last packet of one has its verdict.
    lag: u64,
    /// Windows behind one in which its ways may show.
    ahead: u64,
    keeps_samples: bool,
    history: History,
    least: BTreeMap<Way, Least>,
}

impl Paths {
    /// As the plan says.
    pub fn new(plan: &Plan) -> Self {
        let length_ns = ms(plan.window.length_ms.into());
        let verdict = ms(plan.path.verdict_ms.into()).div_ceil(length_ns);
        Self {
            windows: BTreeMap::new(),
            next: WindowNumber(0),
            length_ns,
            lag: verdict + SWEEP_NS.div_ceil(length_ns),
            // With two taps a match is known at once, with more when nothing more can come.
            ahead: if plan.taps.len() == 2 { verdict } else { 0 },
            keeps_samples: plan.path.samples,
            history: History::default(),
            least: BTreeMap::new(),
        }
    }

    /// Takes what a worker hands over.
    pub fn take(&mut self, trajectories: &[Trajectory]) {
        for trajectory in trajectories {
            let late = trajectory.window < self.next;
            let window = self.windows.entry(trajectory.window.max(self.next)).or_default();
            window.late_packets += u64::from(late);
            if self.keeps_samples {
                if window.samples.len() < SAMPLES_MAX {
                    window.samples.push(*trajectory);
                } else {
                    window.full_packets += 1;
                }
            }
            window.add(trajectory);
        }
    }

    /// The next window whose packets all have their verdicts, when all workers have closed the
    /// windows up to `closed`.
    pub fn next_view(&mut self, closed: WindowNumber) -> Option<PathView> {
        let (&number, _) = self.windows.first_key_value()?;
        if number.0.saturating_add(self.lag) > closed.0 {
            return None;
        }
        let mut window = self.windows.remove(&number)?;
        self.next = number.next();
        let (start, end) = (number.start(self.length_ns), number.end(self.length_ns));
        let mut samples = std::mem::take(&mut window.samples);
        samples.sort_by_key(|sample| (sample.first_seen(), sample.digest, sample.ends));
        Some(PathView {
            start,
            end,
            rows: self.rows(number, start, &window),
            samples,
            late_packets: window.late_packets,
            full_packets: window.full_packets,
        })
    }

    /// Whether all was given out.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn rows(&mut self, number: WindowNumber, start: Timestamp, window: &Window) -> Vec<PathRow> {
        let mut sums: BTreeMap<Way, (PathCounts, Delays<Dense>)> = BTreeMap::new();
        let mut rows = Vec::new();
        let mut sorted: Vec<_> = window.ends.iter().collect();
        sorted.sort_by_key(|(ends, _)| **ends);
        for (ends, counts) in sorted {
            let taken = self.ways_taken(window, ends, counts, start);
            let mut ways: Vec<Way> = taken.iter().map(|(way, _)| *way).collect();
            ways.extend(self.history.ways(ends, start));
            if !counts.seen.is_empty() {
                ways.extend(self.ways_ahead(number, ends, start));
            }
            ways.sort_unstable();
            ways.dedup();
            for way in &ways {
                let delays = taken.iter().find(|(taken, _)| taken == way).map(|(_, delays)| delays);
                let counted = counts.on(*way, &ways);
                if counted == PathCounts::default() {
                    continue;
                }
                let sum = sums.entry(*way).or_default();
                sum.0.add(&counted);
                let base = delays.and_then(|delays| {
                    sum.1.merge(delays);
                    let least = (delays.count > 0).then_some(delays.min_ns);
                    self.history.add(ends, *way, start, least)
                });
                rows.push(PathRow {
                    ends: Some(*ends),
                    from: way.0,
                    to: way.1,
                    counts: counted,
                    delay: delays.and_then(|delays| PathDelay::of(delays, base)),
                    offset: None,
                });
            }
        }
        for (way, (_, delays)) in sums.iter().filter(|(_, (_, delays))| delays.count > 0) {
            self.least.entry(*way).or_default().add(start, delays.min_ns);
        }
        let mut all: Vec<_> = sums
            .iter()
            .map(|(way, (counts, delays))| self.sum_row(*way, *counts, delays, start))
            .collect();
        rows.sort_by_key(|row| (row.from, row.to, row.ends));
        all.append(&mut rows);
        all
    }

    fn sum_row(
        &self,
        way: Way,
        counts: PathCounts,
        delays: &Delays<Dense>,
        at: Timestamp,
    ) -> PathRow {
        let least = |way| self.least.get(&way).and_then(|least: &Least| least.at(at));
        let (there, back) = (least(way), least((way.1, way.0)));
        let offset = there.zip(back).map(|(there, back)| ClockOffset {
            offset_ns: (there - back) / 2,
            bound_ns: (there + back).max(0).unsigned_abs().div_ceil(2),
        });
        PathRow {
            ends: None,
            from: way.0,
            to: way.1,
            counts,
            delay: PathDelay::of(delays, there),
            offset,
        }
    }

    /// The ways that packets took in a window, with their times.
    fn ways_taken(
        &self,
        window: &Window,
        ends: &Ends,
        counts: &Counts,
        at: Timestamp,
    ) -> Vec<(Way, Delays<Sparse>)> {
        let answers = window.ends.get(&ends.turned());
        let of_pair = |pair: &window::Pair| {
            let way = pair.way(answers, self.history.ways(ends, at));
            let delays = pair.delays.clone();
            (way, if way.0 == pair.lower { delays } else { delays.turned() })
        };
        counts.pairs.iter().map(of_pair).collect()
    }

    /// The ways that packets of these endpoints take soon after.
    fn ways_ahead(&self, number: WindowNumber, ends: &Ends, at: Timestamp) -> Vec<Way> {
        let last = WindowNumber(number.0.saturating_add(self.ahead));
        let mut ways = Vec::new();
        for (_, window) in self.windows.range(number..=last) {
            let Some(counts) = window.ends.get(ends) else { continue };
            let answers = window.ends.get(&ends.turned());
            let way = |pair: &window::Pair| pair.way(answers, self.history.ways(ends, at));
            ways.extend(counts.pairs.iter().map(way));
        }
        ways
    }
}

impl Counts {
    /// What became of packets on one of the ways that packets of these endpoints take.
    fn on(&self, way: Way, ways: &[Way]) -> PathCounts {
        let mut counts = PathCounts::default();
        for (set, packets) in &self.seen {
            let certain = packets.iter().sum::<u64>() - packets[Evidence::Ambiguous as usize];
            match (set.has(way.0), set.has(way.1)) {
                (false, false) => continue,
                (true, true) => counts.matched += certain,
                (false, true) => counts.first_missed += certain,
                (true, false) if is_seen_behind(set, way.1, ways) => counts.mirror += certain,
                (true, false) => {
                    counts.network += packets[Evidence::Repeated as usize];
                    counts.mirror += packets[Evidence::Acknowledged as usize];
                    counts.unresolved += packets[Evidence::None as usize];
                }
            }
            counts.ambiguous += packets[Evidence::Ambiguous as usize];
        }
        let is_it = |pair: &&window::Pair| {
            [(pair.lower, pair.higher), (pair.higher, pair.lower)].contains(&way)
        };
        counts.recut = self.pairs.iter().find(is_it).map_or(0, |pair| pair.recut.iter().sum());
        counts
    }
}

/// Whether a packet was seen at a tap that those which pass `tap` pass later.
fn is_seen_behind(set: &TapSet, tap: TapIndex, ways: &[Way]) -> bool {
    ways.iter().any(|(from, to)| *from == tap && set.has(*to))
}
