//! How long a worker does not look at its source, and what it does meanwhile.
//!
//! In: a worker's turns. Out: [`GapTable`]: CPU time from one poll to the next, by what the turn did.
//! Cost: two readings of a clock a turn, hundreds of ns each; one of them stands in the gap.
//! Invariants: each turn is in exactly one line of the table. The same clock around nothing but
//! arithmetic says what the machine itself adds: interrupts, and what a hypervisor takes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::capture::Source;
use crate::cores;
use crate::time::{monotonic_ns, thread_cpu_ns};
use crate::worker::{Progress, Turn, Worker};

use super::ratio;

/// Longer gaps count as this long.
const GAP_MAX_NS: u64 = 60_000_000_000;

/// Digits of a gap that are kept.
const GAP_DIGITS: u8 = 3;

/// Rounds of arithmetic that are timed to find out how many last as long as a turn.
const SPIN_TRIAL: u64 = 1 << 20;

/// Rates that are looked at end here, and are found to so much.
const RATE_MAX_PPS: u64 = 100_000_000;
const RATE_STEP_PPS: u64 = 10_000;

/// What a turn can do, in the order of the words that name it.
const DUTIES: [&str; 7] = [
    "packets",
    "a window ends",
    "rows of a closing window",
    "the aggregator is told",
    "a round of expiry",
    "flows end",
    "fragments",
];

/// What one turn did: one bit for each of [`DUTIES`].
type Duties = u8;

/// CPU time from one poll to the next in microseconds: what a receive ring must hold.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gaps {
    /// How many.
    pub turns: u64,
    /// Half of the gaps are at most so long.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

impl Gaps {
    fn of(gaps: &Histogram<u64>) -> Self {
        let microseconds = |quantile: f64| ratio(gaps.value_at_quantile(quantile), 1_000);
        Self {
            turns: gaps.len(),
            p50: microseconds(0.5),
            p99: microseconds(0.99),
            p9999: microseconds(0.9999),
            max: ratio(gaps.max(), 1_000),
        }
    }
}

/// Gaps of the turns that did the same.
#[derive(Clone, Debug, Serialize)]
pub struct CauseGaps {
    /// What they did.
    pub cause: String,
    /// How long it took.
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// Gaps, and where they come from.
#[derive(Clone, Debug, Serialize)]
pub struct GapTable {
    /// Of all turns.
    #[serde(flatten)]
    pub all: Gaps,
    /// By what the turn did, the longest first.
    pub causes: Vec<CauseGaps>,
    /// The same clock around arithmetic that lasts as long as half of the turns: what the machine
    /// adds by itself.
    pub machine: Option<Gaps>,
    /// The same while a thread on another core does arithmetic as well, where there is one.
    pub machine_beside_another: Option<Gaps>,
}

/// One turn: what it did, and how long it was in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    duties: Duties,
    pub(super) ns: u64,
}

/// Takes one turn. `outside_ns`: CPU time so far that is not the worker's.
pub(super) fn take_turn<S: Source>(
    worker: &mut Worker<S>,
    outside_ns: impl Fn() -> u64,
) -> (Turn, Gap) {
    let (before, outside_before_ns) = (State::of(worker), outside_ns());
    let begun_ns = thread_cpu_ns();
    let turn = worker.turn();
    let elapsed_ns = thread_cpu_ns() - begun_ns;
    let ns = elapsed_ns.saturating_sub(outside_ns() - outside_before_ns);
    (turn, Gap { duties: State::of(worker).since(&before), ns })
}

/// Gaps of the same turns by two clocks.
#[derive(Clone, Debug, Serialize)]
pub struct ByBothClocks {
    /// By the clock on the wall: what a receive ring sees, with all that took the core away.
    pub wall: Gaps,
    /// CPU time of the worker's thread.
    pub cpu: Gaps,
}

/// Notes turns by both clocks.
pub(super) struct BothRecorder {
    wall: Histogram<u64>,
    cpu: Histogram<u64>,
}

impl Default for BothRecorder {
    fn default() -> Self {
        Self { wall: empty(), cpu: empty() }
    }
}

impl BothRecorder {
    /// Takes one turn and notes it, unless something was done in it that is not the worker's.
    /// `outside_ns`: CPU time so far of such work.
    pub(super) fn take_turn<S: Source>(
        &mut self,
        worker: &mut Worker<S>,
        outside_ns: impl Fn() -> u64,
    ) {
        let outside_before_ns = outside_ns();
        let (begun_ns, begun_cpu_ns) = (monotonic_ns(), thread_cpu_ns());
        worker.turn();
        let cpu_ns = thread_cpu_ns() - begun_cpu_ns;
        let wall_ns = monotonic_ns() - begun_ns;
        if outside_ns() == outside_before_ns {
            self.wall.saturating_record(wall_ns);
            self.cpu.saturating_record(cpu_ns);
        }
    }

    /// Takes another run in.
    pub(super) fn merge(&mut self, other: &Self) {
        add(&mut self.wall, &other.wall);
        add(&mut self.cpu, &other.cpu);
    }

    /// What came of it.
    pub(super) fn gaps(&self) -> ByBothClocks {
        ByBothClocks { wall: Gaps::of(&self.wall), cpu: Gaps::of(&self.cpu) }
    }
}

/// Of each turn of several runs that did the same, the shortest: what the worker itself needs.
pub(super) fn shortest(runs: &[Vec<Gap>]) -> Vec<Gap> {
    let turns = runs.iter().map(Vec::len).min().unwrap_or(0);
    let gaps_of = |turn: usize| runs.iter().filter_map(move |run| run.get(turn));
    (0..turns).filter_map(|turn| gaps_of(turn).min_by_key(|gap| gap.ns).copied()).collect()
}

/// The highest rate in packets a second at which never more than `descriptors` packets wait, where
/// each turn takes up to `burst_packets` and lasts as long as it did.
pub(super) fn rate_without_overrun(gaps: &[Gap], burst_packets: u16, descriptors: usize) -> u64 {
    let fits = |rate_pps: u64| {
        let mut waiting = 0.0_f64;
        gaps.iter().all(|gap| {
            waiting += ratio(gap.ns, 1_000_000_000) * ratio(rate_pps, 1);
            let fits = waiting <= ratio(descriptors as u64, 1);
            waiting = (waiting - f64::from(burst_packets)).max(0.0);
            fits
        })
    };
    let (mut fitting, mut too_high) = (0, RATE_MAX_PPS);
    while too_high - fitting > RATE_STEP_PPS {
        let between = u64::midpoint(fitting, too_high);
        if fits(between) { fitting = between } else { too_high = between }
    }
    fitting
}

/// Notes how long turns are.
#[derive(Default)]
pub(super) struct GapRecorder {
    by_duties: BTreeMap<Duties, Histogram<u64>>,
    machine: Option<Histogram<u64>>,
    machine_beside_another: Option<Histogram<u64>>,
}

impl GapRecorder {
    /// Notes a turn.
    pub(super) fn note(&mut self, gap: Gap) {
        self.by_duties.entry(gap.duties).or_insert_with(empty).saturating_record(gap.ns);
    }

    /// Times arithmetic on this thread, as many times as there were turns; a second time beside a
    /// thread on `others`, where there are other cores.
    pub(super) fn time_the_machine(&mut self, others: &[u16]) {
        let all = self.all();
        let begun_ns = thread_cpu_ns();
        spin(SPIN_TRIAL);
        let trial_ns = (thread_cpu_ns() - begun_ns).max(1);
        let steps = all.value_at_quantile(0.5).saturating_mul(SPIN_TRIAL) / trial_ns;
        self.machine = Some(time_arithmetic(steps, all.len()));
        self.machine_beside_another = beside_another(others, || time_arithmetic(steps, all.len()));
    }

    /// Takes the gaps of another worker in.
    pub(super) fn merge(&mut self, other: &Self) {
        for (duties, gaps) in &other.by_duties {
            add(self.by_duties.entry(*duties).or_insert_with(empty), gaps);
        }
        for (sum, machine) in [
            (&mut self.machine, &other.machine),
            (&mut self.machine_beside_another, &other.machine_beside_another),
        ] {
            if let Some(machine) = machine {
                add(sum.get_or_insert_with(empty), machine);
            }
        }
    }

    /// What came of it.
    pub(super) fn table(&self) -> GapTable {
        let mut causes: Vec<_> = self
            .by_duties
            .iter()
            .map(|(duties, gaps)| CauseGaps { cause: name(*duties), gaps: Gaps::of(gaps) })
            .collect();
        causes.sort_by(|a, b| b.gaps.max.total_cmp(&a.gaps.max));
        GapTable {
            all: Gaps::of(&self.all()),
            causes,
            machine: self.machine.as_ref().map(Gaps::of),
            machine_beside_another: self.machine_beside_another.as_ref().map(Gaps::of),
        }
    }

    fn all(&self) -> Histogram<u64> {
        let mut all = empty();
        self.by_duties.values().for_each(|gaps| add(&mut all, gaps));
        all
    }
}

/// What a turn may change.
struct State {
    received_packets: u64,
    flows_created: u64,
    flows_live: u64,
    progress: Progress,
}

impl State {
    fn of<S: Source>(worker: &Worker<S>) -> Self {
        Self {
            received_packets: worker.totals().received_packets,
            flows_created: worker.flows().counts().created,
            flows_live: worker.flows().table().len() as u64,
            progress: worker.progress(),
        }
    }

    /// What was done since `before`.
    fn since(&self, before: &Self) -> Duties {
        let (now, then) = (self.progress, before.progress);
        let ended = self.flows_created + before.flows_live > before.flows_created + self.flows_live;
        let done = [
            self.received_packets > before.received_packets,
            now.open_from != then.open_from,
            now.is_closing || then.is_closing,
            now.told_from != then.told_from,
            now.is_expiring || then.is_expiring,
            ended,
            now.held_packets != then.held_packets,
        ];
        done.iter().rev().fold(0, |duties, done| duties << 1 | Duties::from(*done))
    }
}

fn name(duties: Duties) -> String {
    let done = (0..).zip(DUTIES).filter(|(bit, _)| duties >> bit & 1 == 1);
    let words: Vec<_> = done.map(|(_, name)| name).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" + ") }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, GAP_MAX_NS, GAP_DIGITS).expect("the bounds are in order")
}

fn add(sum: &mut Histogram<u64>, gaps: &Histogram<u64>) {
    // All have the same bounds, so it cannot fail.
    let _ = sum.add(gaps);
}

fn time_arithmetic(steps: u64, turns: u64) -> Histogram<u64> {
    let mut gaps = empty();
    for _ in 0..turns {
        let begun_ns = thread_cpu_ns();
        spin(steps);
        gaps.saturating_record(thread_cpu_ns() - begun_ns);
    }
    gaps
}

/// Works while another core does as well; not at all without another core.
fn beside_another<T>(others: &[u16], work: impl FnOnce() -> T) -> Option<T> {
    if others.is_empty() {
        return None;
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = cores::stay_on(others);
            while !ended.load(Ordering::Relaxed) {
                spin(SPIN_TRIAL);
            }
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        Some(result)
    })
}

#[inline(never)]
fn spin(steps: u64) {
    for step in 0..steps {
        black_box(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::WindowNumber;

    fn state(received_packets: u64, flows_live: u64, progress: Progress) -> State {
        State { received_packets, flows_created: 10, flows_live, progress }
    }

    #[test]
    fn a_turn_is_named_by_what_it_changed() {
        let idle = Progress::default();
        let before = state(5, 7, idle);
        assert_eq!(name(state(5, 7, idle).since(&before)), "nothing");
        assert_eq!(name(state(6, 7, idle).since(&before)), "packets");
        let closing = Progress { open_from: WindowNumber(3), is_closing: true, ..idle };
        let closed = Progress { told_from: WindowNumber(3), is_closing: false, ..closing };
        let cut = state(6, 7, closing).since(&before);
        assert_eq!(name(cut), "packets + a window ends + rows of a closing window");
        let told = state(5, 7, closed).since(&state(5, 7, closing));
        assert_eq!(name(told), "rows of a closing window + the aggregator is told");
        let expiring = Progress { is_expiring: true, held_packets: 1, ..idle };
        let ended = state(5, 6, expiring).since(&before);
        assert_eq!(name(ended), "a round of expiry + flows end + fragments");
        // One flow began and one ended.
        let replaced = State { flows_created: 11, ..state(6, 7, idle) };
        assert_eq!(name(replaced.since(&before)), "packets + flows end");
        let begun = State { flows_created: 11, ..state(6, 8, idle) };
        assert_eq!(name(begun.since(&before)), "packets");
    }

    fn gap(duties: Duties, ns: u64) -> Gap {
        Gap { duties, ns }
    }

    #[test]
    fn the_table_holds_every_turn_once_with_the_longest_first() {
        let (mut one, mut other) = (GapRecorder::default(), GapRecorder::default());
        (1..=99).for_each(|us| one.note(gap(1, us * 1_000)));
        other.note(gap(4, 500_000));
        one.merge(&other);
        assert!(one.table().machine.is_none());
        one.time_the_machine(cores::allowed().get(1..).unwrap_or_default());
        let table = one.table();
        let machine = table.machine.expect("timed");
        assert_eq!((table.all.turns, machine.turns), (100, 100));
        let beside = table.machine_beside_another.map(|gaps| gaps.turns);
        assert_eq!(beside, (cores::allowed().len() > 1).then_some(100));
        assert!((table.all.max - 500.0).abs() < 1.0 && (table.all.p50 - 50.0).abs() < 1.0);
        let causes: Vec<_> =
            table.causes.iter().map(|line| (line.cause.as_str(), line.gaps.turns)).collect();
        assert_eq!(causes, [("rows of a closing window", 1), ("packets", 99)]);
        assert!(machine.max > 0.0);
    }

    #[test]
    fn the_shortest_of_each_turn_is_kept_with_what_it_did() {
        let runs = [vec![gap(1, 5), gap(1, 900), gap(2, 7)], vec![gap(1, 6), gap(3, 8)]];
        assert_eq!(shortest(&runs), [gap(1, 5), gap(3, 8)]);
        assert_eq!(shortest(&[]), []);
    }

    #[test]
    fn a_ring_overruns_by_its_longest_gap_or_by_all_together() {
        // 32 packets in 8 µs: 4 million a second, but for one gap of 2 ms.
        let mut gaps = vec![gap(1, 8_000); 100_000];
        let steady = rate_without_overrun(&gaps, 32, 4_096);
        assert!((4_000_000..4_030_000).contains(&steady), "{steady}");
        gaps[500] = gap(1, 2_000_000);
        let rate = rate_without_overrun(&gaps, 32, 4_096);
        assert!((2_030_000..=2_048_000).contains(&rate), "{rate}");
        assert_eq!(rate_without_overrun(&[gap(1, u64::from(u32::MAX) * 100)], 32, 4_096), 0);
    }
}
