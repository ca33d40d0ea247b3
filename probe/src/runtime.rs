//! Makes workers, rings and threads from a plan; starts them, and stops them in order.
//!
//! In: a [`Plan`] and sources. Out: a [`Report`] at the end; records, page and log on the way.
//! Invariants: workers are made on their own pinned threads; the aggregation thread ends after
//! all workers, the store after it, so nothing that was booked is lost on the way out.

mod analysis;
pub mod bench;
mod build;
mod pipeline;
mod publish;
#[cfg(feature = "dpdk")]
pub mod live;
pub mod replay;
mod rest;
mod summary;

pub use analysis::{Analysis, AnalysisParts, ClockOf, RunSummary};
pub use build::{Build, RuntimeError, Seat, table_sizes};
pub use summary::TopConversations;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::aggregate::live::LivePort;
use crate::aggregate::{LedgerTotals, StageAccount};
use crate::counters::WorkerTotals;
use crate::export::{SinkCause, SinkLedger};

/// What a run comes to, as the last line of `--json`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Packets read, of every link type.
    pub packets: u64,
    /// Their original lengths in octets.
    pub octets: u64,
    /// Biflows begun.
    pub flows: u64,
    /// Windows with traffic.
    pub windows: u64,
    /// Alerts opened.
    pub alerts: u64,
    /// Wall time in seconds.
    pub elapsed_s: f64,
    /// The account.
    pub ledger: ReportLedger,
    /// The account of each sink of records.
    pub sinks: Vec<ReportSink>,
    /// What stands before `received`: NIC ports, or the files and interfaces of a replay, from
    /// which nothing can be missed.
    pub ports: Vec<LivePort>,
}

/// The account of a sink over a whole run, in records: made = delivered + spooled + Σ dropped.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReportSink {
    /// Name of the sink.
    pub name: String,
    /// Records that it was given.
    pub made: u64,
    /// Records that are safe at their destination.
    pub delivered: u64,
    /// Records that wait on disk for the next run.
    pub spooled: u64,
    /// Records lost, by cause.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl ReportSink {
    /// Records lost for any cause.
    pub fn dropped_sum(&self) -> u64 {
        self.dropped.values().sum()
    }
}

impl ReportSink {
    fn new(name: &str, ledger: &SinkLedger) -> Self {
        let dropped = SinkCause::ALL
            .iter()
            .map(|&cause| (cause.name(), ledger.dropped(cause)))
            .filter(|(_, records)| *records > 0)
            .collect();
        Self {
            name: name.to_owned(),
            made: ledger.made,
            delivered: ledger.delivered,
            spooled: ledger.spooled,
            dropped,
        }
    }
}

/// The store first, then the others.
fn report_sinks(summary: &RunSummary) -> Vec<ReportSink> {
    let store = summary.sink.iter().map(|ledger| ReportSink::new(STORE, ledger));
    let others = summary.sinks.iter().map(|sink| ReportSink::new(&sink.name, &sink.ledger));
    store.chain(others).collect()
}

/// Name of the store among sinks.
const STORE: &str = "parquet";

impl Report {
    /// Whether all packets are accounted for and no record was lost, neither on the way from a
    /// worker nor at a sink.
    pub fn is_whole(&self) -> bool {
        self.ledger.unaccounted == 0
            && self.ledger.workers.iter().all(|worker| worker.flow_records_lost == 0)
            && self.sinks.iter().all(|sink| sink.dropped_sum() == 0)
    }
}

/// The account of a whole run: received = accounted + Σ causes + unaccounted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReportLedger {
    /// Packets taken from the sources.
    pub received: u64,
    /// Packets booked in a window.
    pub accounted: u64,
    /// Packets lost or left out, by cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// What is missing; not 0 means a bug.
    pub unaccounted: i64,
    /// What stands beside the balance, over all workers: what came late, and what was lost, forgotten
    /// or given up where a bound was met; only what is not 0.
    pub beside: BTreeMap<&'static str, u64>,
    /// The same account stage by stage, in order of the path.
    pub stages: Vec<ReportStage>,
    /// Each worker's part.
    pub workers: Vec<ReportWorker>,
}

/// What one stage left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReportStage {
    /// Its name.
    pub stage: &'static str,
    /// Packets that came in.
    pub packets_in: u64,
    /// Packets left out here.
    pub left_out: u64,
    /// Packets that went on.
    pub packets_out: u64,
}

/// One worker's account: received + spread in = spread out + Σ causes + booked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReportWorker {
    /// Packets taken from its source.
    pub received: u64,
    /// Packets taken over from other workers.
    pub spread_in: u64,
    /// Packets passed to other workers.
    pub spread_out: u64,
    /// Packets booked in a window.
    pub booked: u64,
    /// Packets that came after their own window was closed.
    pub late: u64,
    /// Fragments that went on without ports.
    pub fragments_unresolved: u64,
    /// Records of flows lost because the aggregator did not keep up.
    pub flow_records_lost: u64,
    /// Flows that left for lack of room.
    pub flows_evicted: u64,
    /// Digests of packets forgotten before their time.
    pub digests_evicted: u64,
    /// Measures that found no room.
    pub measures_lost: u64,
    /// Times that a flow had something to tell and no place for it.
    pub measures_refused: u64,
    /// ICMP errors that did not reach the flow that they quote.
    pub icmp_quotes_lost: u64,
    /// Packets between taps lost on the way to the aggregator.
    pub path_samples_lost: u64,
    /// Messages of applications lost on the way to the aggregator, or not at hand.
    pub app_messages_lost: u64,
    /// Packets no longer followed between taps, because their place was needed.
    pub path_evicted: u64,
    /// Packets followed without looking for evidence, and flows forgotten too early for it.
    pub path_unwatched: u64,
    /// Segments that were not compared with all packets of their flow that wait for evidence.
    pub path_walks_cut: u64,
    /// What is missing.
    pub unaccounted: i64,
}

impl ReportWorker {
    fn new(totals: &WorkerTotals) -> Self {
        Self {
            received: totals.received_packets,
            spread_in: totals.spread_in_packets,
            spread_out: totals.spread_out_packets,
            booked: totals.booked_packets,
            late: totals.late_packets,
            fragments_unresolved: totals.fragments_unresolved,
            flow_records_lost: totals.flow_records_lost,
            flows_evicted: totals.flows_evicted.iter().sum(),
            digests_evicted: totals.digests_evicted,
            measures_lost: totals.measures_lost,
            measures_refused: totals.measures_refused,
            icmp_quotes_lost: totals.icmp_quotes_lost,
            path_samples_lost: totals.path_samples_lost,
            app_messages_lost: totals.app_messages_lost,
            path_evicted: totals.path_evicted,
            path_unwatched: totals.path_unwatched,
            path_walks_cut: totals.path_walks_cut,
            unaccounted: totals.unaccounted(),
        }
    }
}

impl ReportLedger {
    /// From the final account.
    pub fn new(totals: &LedgerTotals, workers: &[WorkerTotals]) -> Self {
        let stage = |account: StageAccount| ReportStage {
            stage: account.stage.name(),
            packets_in: account.packets_in,
            left_out: account.left_out,
            packets_out: account.packets_out,
        };
        let mut beside = BTreeMap::new();
        for (name, count) in workers.iter().flat_map(WorkerTotals::beside_balance) {
            *beside.entry(name).or_default() += count;
        }
        beside.retain(|_, count| *count > 0);
        Self {
            beside,
            stages: totals.stages().into_iter().map(stage).collect(),
            workers: workers.iter().map(ReportWorker::new).collect(),
            received: totals.received,
            accounted: totals.accounted,
            causes: totals.causes.iter().map(|(cause, packets)| (cause.name(), packets)).collect(),
            unaccounted: totals.unaccounted + totals.in_flight.cast_signed(),
        }
    }
}
