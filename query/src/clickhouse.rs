//! Records in a ClickHouse.
//!
//! In: who asks where, limits, SQL. Out: rows, whole or an error.
//! Cost: the server's; here a row at a time, or what is fetched as a file in memory within a bound.
//! Invariants: every question is asked with `readonly = 1` and limits of time, memory and result that
//! the text of the question cannot change; the server ends it when this program does. What users type
//! runs only if the server's own parser says that it is a query that calls nothing that reads outside
//! (`allowed`).

mod allowed;
mod answer;
mod client;
mod fetch;
mod local;
mod secret;

use std::path::PathBuf;

pub(crate) use client::{Asking, Refused, Server, is_too_much};
pub(crate) use fetch::{Fetched, Upload};
pub(crate) use local::records;
pub(crate) use secret::Secret;

/// What of the memory an answer may take that is read into tables here.
pub(crate) const ANSWER_SHARE: u32 = 4;

/// Who asks where.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// HTTP interface.
    pub(crate) url: String,
    /// Database of the records.
    pub(crate) database: String,
    /// `None`: `default`.
    pub(crate) user: Option<String>,
    /// `None`: there is none.
    pub(crate) password: Option<Secret>,
    /// Authorities.
    pub(crate) ca_file: PathBuf,
}
