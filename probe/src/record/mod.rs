//! The record schema: what the probe writes down, in one place.
//!
//! In: facts of the aggregator, the detectors, the ledger and the inventory. Out: a row struct a
//! table, [`Rows`] as a batch of all tables, and from the same list the columns of Parquet, the
//! keys of JSON, the SQL types of the query program and the documentation.
//! Cost: plain structs; a text is a shared `Arc<str>`, so a row copies no names.
//! Invariants: every record carries [`COMMON`] (schema version, probe, domain); a name, type or
//! unit stands in `tables.rs` or `measures.rs` and nowhere else; rows are in a total order before they are written,
//! so the order in which threads finish shows in no output.
//! Source: names, RFC 7012 and the IANA registry of IPFIX Information Elements, in snake case;
//! reverse elements, RFC 5103 §6; address texts, RFC 5952.

mod apps;
mod column;
mod delays;
mod docs;
mod ends;
mod from_views;
mod group;
mod inventory;
mod ledger;
mod measures;
mod migrations;
mod names;
mod numbers;
mod paths;
mod roll;
#[macro_use]
mod schema;
mod tables;
mod usage;

pub use column::{Column, ColumnBuilder, Element, Kind, TEXT_BYTES_MAX, Value};
pub use docs::{ddl, markdown};
pub use from_views::{RecordMaker, TapClock};
pub use group::{Cell, Columns, Group};
pub use inventory::{InventoryRows, REST_BATCHES_MAX};
pub use ledger::{app_messages, migrations_lost, port_rows, sink_rows, workers_rows};
pub use measures::{Delays, FlowLosses, SegmentCounts, WindowMeasures};
pub use names::Names;
pub use numbers::Numbers;
pub use roll::Roll;
pub use schema::{COMMON, Origin, Record, SCHEMA_VERSION, TableVisitor};
pub use tables::*;
