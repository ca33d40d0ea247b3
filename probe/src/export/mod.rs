//! Records on their way out of the probe.
//!
//! In: [`Rows`](crate::record::Rows). Out: files now; message buses and databases have their rooms
//! beside `parquet`.
//! Cost: nothing here runs on a worker; a sink has a thread of its own.
//! Invariants: each sink has a bounded queue and its own account, and
//! made = delivered + queued + Σ dropped by cause, at every moment.
//! Source: the ledger, ARCHITECTURE.md.

mod account;
pub mod parquet;

pub use account::{SinkCause, SinkHealth, SinkLedger};
pub use parquet::ParquetSink;
