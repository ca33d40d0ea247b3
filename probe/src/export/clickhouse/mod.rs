//! ClickHouse, by its HTTP interface.
//!
//! In: batches in RowBinary. Out: rows in tables that are derived from the record schema.
//! Cost: one insert a batch; roll-ups are the server's work.
//! Invariants: a batch is inserted under its token, so a retry stores nothing twice, in the table or in a
//! roll-up, also where the tables have been upgraded in between; a server too old to promise that is
//! refused.
//! Source: ClickHouse's documentation: "HTTP Interface", "RowBinaryWithNamesAndTypes",
//! `insert_deduplication_token`, `deduplicate_blocks_in_dependent_materialized_views`.
//!
//! | file | |
//! |---|---|
//! | `ddl` | the tables, derived |
//! | `row_binary` | rows → octets |
//! | `client` | requests, errors |
//! | `insert` | batches → inserts |
//! | `schema` | what has to be done on a server, and doing it |

mod client;
pub mod ddl;
mod insert;
mod row_binary;
mod schema;

pub use insert::Inserts;
pub use row_binary::RowBinary;
pub use schema::{SchemaError, apply};

/// The oldest server whose retries are known to store nothing twice in roll-ups.
const VERSION_MIN: (u32, u32) = (24, 8);
