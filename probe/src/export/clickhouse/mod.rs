//! ClickHouse, by its HTTP interface.
//!
//! In: batches in Native. Out: rows in tables that are derived from the record schema.
//! Cost: one insert a batch; roll-ups are the server's work.
//! Invariants: a batch is inserted under its token, so a retry stores nothing twice, in the table or in a
//! roll-up, also where the tables have been upgraded in between; a server too old to promise that is
//! refused.
//! Source: ClickHouse's documentation: "HTTP Interface", "Native",
//! `insert_deduplication_token`, `deduplicate_blocks_in_dependent_materialized_views`.
//!
//! | file | |
//! |---|---|
//! | `ddl` | the tables, derived |
//! | `batch` | what a batch says of itself |
//! | `native` | rows → octets |
//! | `client` | requests, errors |
//! | `insert` | batches → inserts |
//! | `server` | what a server has |
//! | `schema` | what has to be done on a server, and doing it |

mod batch;
mod client;
pub mod ddl;
mod insert;
mod native;
mod schema;
mod server;

pub use insert::Inserts;
pub use native::Native;
pub use schema::{SchemaError, apply};

/// The oldest server whose retries are known to store nothing twice in roll-ups.
const VERSION_MIN: (u32, u32) = (24, 8);
