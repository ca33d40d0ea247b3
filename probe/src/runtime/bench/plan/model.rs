//! The model: from costs to cores, memory, rings and records. Arithmetic only.
//!
//! In: traffic, costs, latencies, assumptions. Out: [`Sizing`] for a number of cores.
//! Invariants: a core more never lowers the highest rate, because a worker that would only slow
//! down the others is left idle; what a core may take times what arrives at it is a second; shares
//! and factors are checked before.
//! Source: Little 1961 (L = λW) for flow records; docs/sizing.md has every formula.

use serde::Serialize;

use crate::config::{FlowPlan, Plan, PortPlan, Sizes};

use super::{Costs, Latencies, PlanError, Traffic, within};

/// Workers that are tried at most.
const WORKERS_MAX: u16 = 1_024;

/// Queues of one port at most, as configured.
const QUEUES_MAX: u16 = 64;

/// Descriptors of a queue, as configured.
const DESCRIPTORS: (f64, f64) = (64.0, 32_768.0);

/// Flows a worker, as configured.
const SLOTS: (f64, f64) = (FlowPlan::SLOTS_MIN as f64, FlowPlan::SLOTS_MAX as f64);

/// Packet buffers a queue beside its descriptors: a burst, and the pool's caches.
const MBUFS_BESIDE: u32 = 384 + 32;

/// Cores of a machine at most.
const CORES_MAX: f64 = 1_024.0;

/// Steps of a search between two rates; each halves what is left.
const SEARCH_STEPS: u32 = 64;

/// Numbers that no measurement here can give. All can be set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assumptions {
    /// Share of a core's time that may be planned with, above 0 to 1.
    pub load_share: f64,
    /// What each further worker adds to the cost of a packet, as a share of it: they share the
    /// last-level cache, the memory channels and the clock's budget.
    pub contention_share: f64,
    /// Cost of the NIC's driver a packet in nanoseconds.
    pub receive_ns: f64,
    /// What spreading adds to a packet that is passed on in nanoseconds; as measured without.
    pub spread_ns: Option<f64>,
    /// Packets of the busiest worker as a multiple of the mean.
    pub skew: f64,
    /// Cache lines of a packet that lie anywhere in the flow table.
    pub flow_lines: f64,
    /// Cores for aggregation, store, page and system.
    pub other_cores: u16,
    /// How long a flow stays in the table on average, with its timeout, in seconds.
    pub flow_life_s: f64,
    /// Length of a window in seconds.
    pub window_s: f64,
    /// Bytes on disk of a row of `windows`.
    pub row_bytes: f64,
    /// Bytes on disk of a row of `flows`.
    pub record_bytes: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            load_share: 0.7,
            contention_share: 0.02,
            receive_ns: 15.0,
            spread_ns: None,
            skew: 1.2,
            flow_lines: 5.0,
            other_cores: 1,
            flow_life_s: 60.0,
            window_s: 1.0,
            row_bytes: 32.0,
            record_bytes: 100.0,
        }
    }
}

/// What spreading adds to a packet that is passed on where it was not measured: as in
/// `benches/record/2026-11-26.md`, where half are passed on.
const SPREAD_NS: f64 = 65.0;

impl Assumptions {
    pub(super) fn check(&self, cores: &[u16]) -> Result<(), PlanError> {
        within("--load-percent", self.load_share * 100.0, 1.0, 100.0)?;
        within("--contention-percent", self.contention_share * 100.0, 0.0, 100.0)?;
        within("--receive-ns", self.receive_ns, 0.0, 1e6)?;
        within("--spread-ns", self.spread_ns.unwrap_or(SPREAD_NS), 0.0, 1e6)?;
        within("--skew", self.skew, 1.0, 100.0)?;
        within("--flow-lines", self.flow_lines, 0.0, 100.0)?;
        within("--flow-life-s", self.flow_life_s, 0.001, 1e6)?;
        within("--window-s", self.window_s, 0.1, 3_600.0)?;
        within("--row-bytes", self.row_bytes, 1.0, 1e6)?;
        within("--record-bytes", self.record_bytes, 1.0, 1e6)?;
        for &cores in cores {
            within("--cores", cores.into(), 1.0, CORES_MAX)?;
            if cores <= self.other_cores {
                return Err(PlanError::NoWorker { cores, other_cores: self.other_cores });
            }
        }
        Ok(())
    }
}

/// What runs short first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// Nothing: the line is full before.
    Line,
    /// CPU time of the workers.
    Workers,
    /// The aggregation thread, which is one.
    Aggregator,
}

/// A plan for one number of cores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sizing {
    /// Cores of the machine.
    pub cores: u16,
    /// Of these, cores for workers.
    pub worker_cores: u16,
    /// Workers that give the highest rate: all of them, unless each further one only adds cost.
    pub workers: u16,
    /// CPU time that a packet may take with so many workers at line rate.
    pub budget_ns_per_packet: f64,
    /// CPU time that it takes.
    pub cost_ns_per_packet: f64,
    /// Workers that line rate needs, each with a queue; none where no number does.
    pub workers_needed: Option<u16>,
    /// Cores that line rate needs, with those for other threads.
    pub cores_needed: Option<u32>,
    /// Highest rate within the load that is planned with.
    pub packets_per_second: f64,
    /// The same in Gbit/s on the wire, with preamble and gap.
    pub gbps: f64,
    /// Share of the line.
    pub line_share: f64,
    /// What runs short first.
    pub bottleneck: Bottleneck,
    /// Load of the aggregation thread at that rate, 1 is a core.
    pub aggregator_load: Option<f64>,
    /// Flows a worker: `flow.slots_per_worker`.
    pub slots_per_worker: u32,
    /// Memory of all flow tables.
    pub flow_bytes: u64,
    /// Memory of all tables of the packet path and of packet buffers.
    pub memory_bytes: u64,
    /// Descriptors of a queue that last for the poll gap; none where it was not measured.
    pub descriptors: Option<u32>,
    /// Rows of `windows` a second.
    pub rows_per_second: f64,
    /// Rows of `flows` a second.
    pub records_per_second: f64,
    /// Bytes to disk a second.
    pub disk_bytes_per_second: f64,
    /// What the defaults of the configuration or the probe's bounds do not hold.
    pub limits: Vec<String>,
}

/// All that a plan depends on.
pub(super) struct Model<'a> {
    pub(super) traffic: &'a Traffic,
    pub(super) costs: &'a Costs,
    pub(super) memory: &'a Latencies,
    pub(super) assumptions: &'a Assumptions,
    /// Bytes of an entry of each table.
    pub(super) sizes: &'a Sizes,
}

impl Model<'_> {
    pub(super) fn size(&self, cores: u16) -> Sizing {
        let given = self.assumptions;
        let worker_cores = cores.saturating_sub(given.other_cores).max(1);
        let line = self.traffic.line_packets_per_second();
        let (workers, workers_rate) = self.best(worker_cores);
        let mut packets_per_second = line.min(workers_rate);
        let mut bottleneck =
            if workers_rate < line { Bottleneck::Workers } else { Bottleneck::Line };
        if let Some(rate) = self.aggregator_rate(packets_per_second) {
            packets_per_second = rate;
            bottleneck = Bottleneck::Aggregator;
        }
        let workers_needed = (1..=WORKERS_MAX).find(|&workers| self.rate(workers) >= line);
        let rows_per_second = self.rows_per_second(packets_per_second);
        let records_per_second = self.records_per_second();
        let descriptors = self.descriptors(packets_per_second / f64::from(workers));
        let slots_per_worker = self.slots_per_worker(workers);
        let (flow_bytes, memory_bytes) = self.memory_bytes(workers, slots_per_worker, descriptors);
        let mut sizing = Sizing {
            cores,
            worker_cores,
            workers,
            budget_ns_per_packet: 1e9 * f64::from(workers) / line,
            cost_ns_per_packet: self.cost_ns(workers),
            workers_needed,
            cores_needed: workers_needed
                .map(|workers| u32::from(workers) + u32::from(given.other_cores)),
            packets_per_second,
            gbps: packets_per_second * self.traffic.wire_octets_mean() * 8.0 / 1e9,
            line_share: packets_per_second / line,
            bottleneck,
            aggregator_load: self.aggregator_load(packets_per_second),
            slots_per_worker,
            flow_bytes,
            memory_bytes,
            descriptors,
            rows_per_second,
            records_per_second,
            disk_bytes_per_second: rows_per_second * given.row_bytes
                + records_per_second * given.record_bytes,
            limits: Vec::new(),
        };
        sizing.limits = self.limits(&sizing);
        sizing
    }

    /// CPU time of a packet with so many workers.
    fn cost_ns(&self, workers: u16) -> f64 {
        let (given, workers) = (self.assumptions, f64::from(workers));
        let spread_ns =
            given.spread_ns.or(self.costs.spread_ns_per_passed_packet).unwrap_or(SPREAD_NS);
        let alone = self.costs.ns_per_packet
            + given.receive_ns
            + spread_ns * (workers - 1.0) / workers
            + given.flow_lines * self.colder_ns(workers);
        alone * (1.0 + given.contention_share * (workers - 1.0))
    }

    /// What a line costs more than in the measurement, because the flows touch more memory.
    fn colder_ns(&self, workers: f64) -> f64 {
        let bytes_of = |flows: f64| flows * real(self.costs.bytes_per_flow);
        let here = self.memory.update_ns(bytes_of(real(self.costs.flows)));
        (self.memory.update_ns(bytes_of(self.traffic.flows / workers)) - here).max(0.0)
    }

    /// Packets a second of so many workers, when the busiest has the load that is planned with.
    fn rate(&self, workers: u16) -> f64 {
        let given = self.assumptions;
        f64::from(workers) * given.load_share * 1e9
            / (self.cost_ns(workers) * given.skew_of(workers))
    }

    /// How many of `workers_max` workers give the highest rate, and that rate.
    fn best(&self, workers_max: u16) -> (u16, f64) {
        let mut best = (1, self.rate(1));
        for workers in 2..=workers_max {
            let rate = self.rate(workers);
            if rate > best.1 {
                best = (workers, rate);
            }
        }
        best
    }

    fn rows_per_second(&self, packets_per_second: f64) -> f64 {
        let (flows, window_s) = (self.traffic.flows, self.assumptions.window_s);
        let logical = packets_per_second * (1.0 - self.traffic.copies_share);
        // `exp_m1` keeps its digits where few packets meet many flows.
        -flows * (-logical * window_s / flows).exp_m1() / window_s
    }

    fn records_per_second(&self) -> f64 {
        self.traffic.flows / self.assumptions.flow_life_s
    }

    fn aggregator_load(&self, packets_per_second: f64) -> Option<f64> {
        let ns = self.costs.aggregator_ns_per_row?;
        Some((self.rows_per_second(packets_per_second) + self.records_per_second()) * ns / 1e9)
    }

    /// The rate at which the aggregation thread has the load that is planned with, if `rate` is
    /// above it.
    fn aggregator_rate(&self, rate: f64) -> Option<f64> {
        let too_much = |rate| {
            self.aggregator_load(rate).is_some_and(|load| load > self.assumptions.load_share)
        };
        if !too_much(rate) {
            return None;
        }
        let (mut least, mut most) = (0.0, rate);
        for _ in 0..SEARCH_STEPS {
            let middle = f64::midpoint(least, most);
            if too_much(middle) { most = middle } else { least = middle }
        }
        Some(least)
    }

    fn slots_per_worker(&self, workers: u16) -> u32 {
        let flows = self.traffic.flows * self.assumptions.skew_of(workers) / f64::from(workers);
        power_of_two(flows.clamp(SLOTS.0, SLOTS.1))
    }

    /// What may arrive in the gap, at the busiest queue.
    fn descriptors(&self, packets_per_second: f64) -> Option<u32> {
        let gap_s = self.costs.poll_gap_p9999_us? / 1e6;
        let packets = packets_per_second * self.assumptions.skew * gap_s;
        Some(power_of_two(packets.clamp(DESCRIPTORS.0, DESCRIPTORS.1)))
    }

    /// Flow tables, and all memory as `vmprobe check` computes it.
    fn memory_bytes(&self, workers: u16, slots: u32, descriptors: Option<u32>) -> (u64, u64) {
        let mut plan = Plan::default();
        plan.worker.count = workers;
        plan.flow.slots_per_worker = slots;
        let defaults = PortPlan::default();
        let descriptors = descriptors.unwrap_or(defaults.descriptors.into());
        plan.ports = vec![PortPlan {
            queues: workers,
            mbufs: u32::from(workers).saturating_mul(descriptors + MBUFS_BESIDE),
            ..defaults
        }];
        let memory = plan.memory(self.sizes);
        let flow_bytes = u64::from(slots)
            .saturating_mul(self.costs.bytes_per_flow)
            .saturating_mul(workers.into());
        let others = memory.own_bytes() - memory.flow_bytes;
        (flow_bytes, flow_bytes.saturating_add(others).saturating_add(memory.mbuf_bytes_min))
    }

    fn limits(&self, sizing: &Sizing) -> Vec<String> {
        let defaults = Plan::default();
        let mut limits = Vec::new();
        if sizing.workers > QUEUES_MAX {
            limits.push(format!(
                "{} workers need more than one port: a port has at most {QUEUES_MAX} queues",
                sizing.workers
            ));
        }
        let rows = sizing.rows_per_second * self.assumptions.window_s;
        if rows > f64::from(defaults.window.rows_max) {
            limits.push(format!(
                "{rows:.0} rows a window are above the default of window.rows_max, {}",
                defaults.window.rows_max
            ));
        }
        let flows = self.traffic.flows * self.assumptions.skew / f64::from(sizing.workers);
        if flows > SLOTS.1 {
            limits
                .push(format!("{flows:.0} flows a worker are above flow.slots_per_worker's most"));
        }
        if self.costs.poll_gap_p9999_us.is_none() {
            limits.push("poll gaps were not measured, so no receive ring is planned".to_owned());
        } else if sizing.descriptors.is_some_and(|ring| f64::from(ring) >= DESCRIPTORS.1) {
            limits.push("the receive ring is at its most and may be too short".to_owned());
        }
        if self.costs.aggregator_ns_per_row.is_none() {
            limits.push("the aggregation thread was not measured, so it limits nothing".to_owned());
        }
        limits
    }
}

impl Assumptions {
    /// One worker has all packets.
    fn skew_of(&self, workers: u16) -> f64 {
        if workers == 1 { 1.0 } else { self.skew }
    }
}

#[expect(clippy::cast_precision_loss, reason = "16 digits are enough for counts of a plan")]
fn real(count: u64) -> f64 {
    count as f64
}

/// The power of two at or above a number of 1 to 2³¹.
fn power_of_two(number: f64) -> u32 {
    let mut power = 1_u32;
    while f64::from(power) < number && power < 1 << 31 {
        power <<= 1;
    }
    power
}

#[cfg(test)]
mod tests;
