//! Records on their way out of the probe.
//!
//! In: [`Rows`](crate::record::Rows). Out: files of the store, and what [`Sinks`] send to other systems.
//! Cost: nothing here runs on a worker; each sink has threads of its own.
//! Invariants: each sink has a bounded queue and its own account, and
//! made = delivered + queued + Σ dropped by cause, at every moment.
//! Source: the ledger, ARCHITECTURE.md.
//!
//! | file | |
//! |---|---|
//! | `account` | what became of a sink's records |
//! | `parquet/` | the store's files |
//! | `sink/` | what all other sinks have in common: hand-off, filters, batches, queue, spool, retry |
//! | `json` | records as JSON, for all sinks that speak it |
//! | `tls` `http` `stream` | certificates, requests, connections |
//! | `hidden` | answers without secrets |
//! | `parts` | batches that are too long for a request |
//! | `clickhouse/` `kafka/` `webhook` `syslog` `eve` `rabbitmq` `ipfix/` `elastic/` `splunk` | one destination each |

mod account;
pub mod clickhouse;
pub mod elastic;
mod eve;
mod hidden;
mod http;
pub mod ipfix;
pub mod json;
pub mod kafka;
pub mod parquet;
mod parts;
mod rabbitmq;
pub mod sink;
mod splunk;
mod stream;
mod syslog;
mod tls;
mod webhook;

pub use account::{SinkCause, SinkHealth, SinkLedger};
pub(crate) use hidden::Hidden;
pub(crate) use http::Client;
pub use parquet::ParquetSink;
pub use sink::{SinkReport, Sinks, SinksWanted};
