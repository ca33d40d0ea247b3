//! A worker at work on live flows, on its own thread.
//!
//! In: how many flows, whether they end, what is to be measured. Out: figures; the ledger.
//! Cost: see `live_flows`.
//! Invariants: the worker is that of `run`: it never waits for the aggregator, which has the cores
//! that the worker leaves. Making packets is never in a figure.

use std::rc::Rc;
use std::sync::Arc;

use crate::aggregate::{Aggregator, LedgerTotals};
use crate::config::{self, FlowPlan, Plan, Spread};
use crate::cores;
use crate::time::thread_cpu_ns;
use crate::worker::{Turn, Worker};

use super::super::build::Seat;
use super::super::pipeline::{join, spawn};
use super::super::{Build, RuntimeError};
use super::gaps::{BothRecorder, Gap, take_turn};
use super::live_flows::{LiveFlowsMemory, LiveFlowsOptions, LiveFlowsSize};
use super::pattern::Pattern;
use super::ring::{Control, RingSource};
use super::{machine, measure, ratio};

/// Packets of a flow in a second of the packets' own time.
pub(super) const ROUNDS_PER_SECOND: u64 = 4;

/// Rounds before what is measured: all flows have begun, and the first window has closed.
const WARM_ROUNDS: u64 = 6;

/// Packets before what is measured at least (unit tests look at no figures), where the flows are few.
const WARM_PACKETS_MIN: u64 = if cfg!(test) { 20_000 } else { 1_000_000 };

/// Packets that are measured at least.
const PACKETS_MIN: u64 = if cfg!(test) { 20_000 } else { 4_000_000 };

/// Packets of a flow where flows end: then another takes its place.
const LIFE_ROUNDS: u32 = 64;

/// Rounds before what is measured where flows end: as many end of silence as are begun.
const WARM_ROUNDS_ENDING: u64 = 12;

/// Where flows end, TCP is over so soon after its end: ends are as frequent as beginnings before
/// long.
const CLOSED_MS: u32 = 1_000;

/// The same for UDP after so much silence.
const IDLE_OTHER_MS: u32 = 2_000;

/// Seconds of the packets' own time in which gaps are measured: as many windows close.
const GAP_SECONDS: u64 = 3;

/// A table has so many slots, or a multiple of that.
const SLOTS_STEP: u32 = FlowPlan::SLOTS_MIN;

/// What is to be run.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) options: &'a LiveFlowsOptions,
    pub(super) flows: u32,
    pub(super) flows_end: bool,
}

impl Run<'_> {
    /// Measures on a thread of its own, beside an aggregator that takes everything.
    pub(super) fn start<T: Send + 'static>(
        self,
        measure: impl FnOnce(&mut Bench) -> T + Send + 'static,
    ) -> Result<(T, LedgerTotals), RuntimeError> {
        let plan = Arc::new(self.plan());
        let mut build = Build::new(&plan, None, &["ring".to_owned()], (1, 1), false);
        let aggregator = Aggregator::new(build.handoffs, build.windows, plan.window.rows_max);
        let cores = cores::allowed();
        let (first, rest) = cores.split_at(cores.len().min(1));
        let (first, rest) = (first.to_vec(), rest.to_vec());
        let aggregation = spawn("aggregator", move || {
            // Where no core is left it shares them.
            let _ = cores::stay_on(&rest);
            super::measure::aggregate(aggregator)
        })?;
        let seat = build.seats.pop().expect("one worker was asked for");
        let (features, flows, flows_end) = (self.options.features, self.flows, self.flows_end);
        let worker = spawn("worker-0", move || {
            let _ = cores::stay_on(&first);
            let mut bench = Bench::new(seat, features, flows, flows_end);
            let measured = measure(&mut bench);
            bench.end();
            measured
        })?;
        let measured = join(worker);
        Ok((measured, join(aggregation).ledger))
    }

    fn plan(self) -> Plan {
        let mut plan = config::replay_without_file();
        plan.worker.count = 1;
        plan.worker.spread = Spread::Never;
        // Flows that have ended stay for a while beside those that took their places.
        let room = self.flows.next_multiple_of(SLOTS_STEP) << u32::from(self.flows_end);
        plan.flow.slots_per_worker = self.options.slots.unwrap_or(room);
        if self.flows_end {
            (plan.flow.closed_ms, plan.flow.idle_other_ms) = (CLOSED_MS, IDLE_OTHER_MS);
        }
        plan
    }
}

/// The worker and its ring.
pub(super) struct Bench {
    worker: Worker<RingSource>,
    control: Rc<Control>,
    flows: u64,
    flows_end: bool,
}

impl Bench {
    fn new(seat: Seat, features: super::Features, flows: u32, flows_end: bool) -> Self {
        let control = Rc::new(Control::default());
        let pattern = Pattern::new(flows, flows_end.then_some(LIFE_ROUNDS));
        let (burst_packets, flows) = (usize::from(seat.burst_packets()), u64::from(flows));
        let rate_pps = flows * ROUNDS_PER_SECOND;
        let source = RingSource::new(pattern, burst_packets, rate_pps, Rc::clone(&control));
        let worker = Worker::new(Some(source), measure::parts_for(seat, features));
        Self { worker, control, flows, flows_end }
    }

    /// CPU time per packet, and memory with all flows live.
    pub(super) fn flat(&mut self) -> LiveFlowsSize {
        self.warm();
        let windows = PACKETS_MIN.div_ceil(self.flows * ROUNDS_PER_SECOND);
        let (filling_ns, begun_ns) = (self.control.filling_ns.get(), thread_cpu_ns());
        let packets = self.take(windows * self.flows * ROUNDS_PER_SECOND);
        let elapsed_ns = thread_cpu_ns() - begun_ns;
        let making_ns = self.control.filling_ns.get() - filling_ns;
        let table = self.worker.flows().table();
        LiveFlowsSize {
            flows: u32::try_from(self.flows).unwrap_or(u32::MAX),
            flows_in_table: table.len() as u64,
            slots_per_worker: u32::try_from(table.slots()).unwrap_or(u32::MAX),
            packets,
            ns_per_packet: ratio(elapsed_ns.saturating_sub(making_ns), packets),
            times_10k: None,
            making_ns: ratio(making_ns, packets),
            rows_lost_percent: 0.0,
            unaccounted: 0,
            memory: self.memory(),
            poll_gap_us: None,
        }
    }

    /// CPU time from one poll to the next, turn by turn, and the page faults meanwhile.
    pub(super) fn gaps(&mut self) -> (Vec<Gap>, u64) {
        self.warm();
        let packets = GAP_SECONDS * self.flows * ROUNDS_PER_SECOND;
        let until = self.control.given.get() + packets;
        // More than there are turns, written now: what faults are counted are the worker's.
        let mut gaps = vec![Gap::default(); usize::try_from(packets).unwrap_or(0) / 16];
        gaps.clear();
        let faults = machine::page_faults();
        while self.control.given.get() < until {
            let (_, gap) = take_turn(&mut self.worker, || self.control.filling_ns.get());
            gaps.push(gap);
        }
        (gaps, machine::page_faults() - faults)
    }

    /// The same by both clocks.
    pub(super) fn gaps_by_both(&mut self) -> BothRecorder {
        self.warm();
        let until = self.control.given.get() + GAP_SECONDS * self.flows * ROUNDS_PER_SECOND;
        let mut gaps = BothRecorder::default();
        while self.control.given.get() < until {
            gaps.take_turn(&mut self.worker, || self.control.filling_ns.get());
        }
        gaps
    }

    /// Until everything is as it will stay.
    fn warm(&mut self) {
        let rounds = if self.flows_end { WARM_ROUNDS_ENDING } else { WARM_ROUNDS };
        self.take((rounds * self.flows).max(WARM_PACKETS_MIN));
    }

    /// Takes at least so many packets; how many it were.
    #[inline(never)]
    fn take(&mut self, packets: u64) -> u64 {
        let given = self.control.given.get();
        while self.control.given.get() < given + packets {
            self.worker.turn();
        }
        self.control.given.get() - given
    }

    fn memory(&self) -> LiveFlowsMemory {
        let flows = self.worker.flows();
        let (side_slab_bytes, side_slab_refused) = flows.side_slab();
        let (bytes_per_slot, table) = (flows.bytes_per_flow(), flows.table());
        LiveFlowsMemory {
            resident_bytes: machine::resident_bytes(),
            worker_bytes: self.worker.table_bytes(),
            bytes_per_slot,
            bytes_per_flow: ratio((bytes_per_slot * table.slots()) as u64, table.len() as u64),
            side_slab_bytes,
            side_slab_refused,
        }
    }

    /// Ends all flows and says so to the aggregator.
    fn end(mut self) {
        self.control.ended.set(true);
        while self.worker.turn() != Turn::Ended {}
        self.worker.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::bench::Features;

    fn options() -> LiveFlowsOptions {
        LiveFlowsOptions {
            flows: Vec::new(),
            slots: None,
            features: Features::All,
            poll_gaps: true,
        }
    }

    #[test]
    fn turns_are_alike_from_run_to_run() {
        let options = options();
        let run = Run { options: &options, flows: 1_500, flows_end: true };
        let runs = [0, 1].map(|_| run.start(Bench::gaps).expect("threads can be had").0.0);
        assert_eq!(runs[0].len(), runs[1].len());
        assert!(runs[0].len() as u64 >= GAP_SECONDS * 1_500 * ROUNDS_PER_SECOND / 32);
        assert!(runs[0].iter().all(|gap| gap.ns > 0));
    }

    #[test]
    fn no_packet_is_a_copy_of_another() {
        let options = options();
        let run = Run { options: &options, flows: 2_000, flows_end: true };
        let ((), ledger) = run.start(Bench::warm).expect("threads can be had");
        assert_eq!((ledger.unaccounted, ledger.causes.sum()), (0, 0));
        assert!(ledger.received >= WARM_PACKETS_MIN);
    }
}
