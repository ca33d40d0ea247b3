//! Batches as inserts.
//!
//! In: batches. Out: rows on the server, each once.
//! Invariants: the server answers when the rows are in their parts; a retry has the same token and the
//! same octets in one block, so the server knows it, in the table and in each roll-up.

use super::super::sink::{Batch, Delivered, Driver, Failure};
use super::client::{Client, ClientError};
use super::ddl::named;
use crate::config::ClickhousePlan;

/// Compression of what is sent: beyond it it costs more than the network saves.
const ZSTD_LEVEL: i32 = 1;

/// Errors of the data itself, which another attempt would not mend: CANNOT_PARSE_TEXT,
/// CANNOT_PARSE_INPUT_ASSERTION_FAILED, TOO_LARGE_STRING_SIZE.
const REFUSALS: [u32; 3] = [6, 27, 131];
/// Errors of a schema that is missing or older: NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_TABLE,
/// UNKNOWN_DATABASE, INCORRECT_DATA (a column that the table has not).
const SCHEMA: [u32; 4] = [16, 60, 81, 117];

/// Settings under which a batch is one block that is stored once.
const SETTINGS: [(&str, &str); 9] = [
    ("wait_end_of_query", "1"),
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("input_format_parallel_parsing", "0"),
    ("max_insert_block_size", "1048576"),
    ("min_insert_block_size_rows", "1048576"),
    ("min_insert_block_size_bytes", "1073741824"),
    ("insert_distributed_sync", "1"),
];

/// Delivers batches.
pub struct Inserts {
    plan: ClickhousePlan,
    timeout_ms: u32,
    /// A server that was asked for its version, and is new enough.
    client: Option<Client>,
}

impl Inserts {
    /// To a server.
    pub fn new(plan: &ClickhousePlan, timeout_ms: u32) -> Self {
        Self { plan: plan.clone(), timeout_ms, client: None }
    }

    fn insert(&mut self, batch: &Batch) -> Result<(), ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let client = Client::new(&self.plan, self.timeout_ms)?;
                client.version()?;
                client
            }
        };
        let (database, table) = (named(&self.plan.database), named(batch.table.name()));
        let statement = format!("INSERT INTO {database}.{table} FORMAT RowBinaryWithNamesAndTypes");
        let mut parameters =
            vec![("query", &*statement), ("insert_deduplication_token", &*batch.token)];
        parameters.extend(SETTINGS);
        let body = zstd::bulk::compress(&batch.bytes, ZSTD_LEVEL)
            .map_err(|error| ClientError::Unreachable(error.to_string()))?;
        client.send_zstd(&parameters, &body)?;
        // After a failure it may be another server that answers next; it is asked anew.
        self.client = Some(client);
        Ok(())
    }
}

impl Driver for Inserts {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        match self.insert(batch) {
            Ok(()) => Ok(Delivered::default()),
            Err(error @ ClientError::Server { code, .. }) if REFUSALS.contains(&code) => {
                Err(Failure::refused(&error))
            }
            Err(error @ ClientError::Server { code, .. }) if SCHEMA.contains(&code) => {
                let hint = "`vmprobe schema clickhouse --apply` makes and upgrades the tables";
                Err(Failure::again(&format!("{error} ({hint})")))
            }
            Err(error) => Err(Failure::again(&error)),
        }
    }
}
