//! Makes workers, rings and threads from a plan; starts them, and stops them in order.
//!
//! In: a [`Plan`] and sources. Out: a [`Report`] at the end; records, page and log on the way.
//! Invariants: workers are made on their own pinned threads; the aggregation thread ends after
//! all workers, the store after it, so nothing that was booked is lost on the way out.

mod analysis;
pub mod bench;
mod build;
mod publish;
#[cfg(feature = "dpdk")]
pub mod live;
pub mod replay;

pub use analysis::{Analysis, RunSummary};
pub use build::{Build, RuntimeError, load_inventory, table_sizes};

use std::collections::BTreeMap;

use serde::Serialize;

use crate::aggregate::LedgerTotals;

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
}

impl From<&LedgerTotals> for ReportLedger {
    fn from(totals: &LedgerTotals) -> Self {
        Self {
            received: totals.received,
            accounted: totals.accounted,
            causes: totals.causes.iter().map(|(cause, packets)| (cause.name(), packets)).collect(),
            unaccounted: totals.unaccounted + totals.in_flight.cast_signed(),
        }
    }
}
