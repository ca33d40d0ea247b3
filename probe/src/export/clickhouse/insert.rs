//! Batches as inserts.
//!
//! In: batches. Out: rows on the server, each once.
//! Invariants: the server answers when the rows are in their parts; a retry has the same token and the
//! same octets in one block, so the server knows it, in the table and in each roll-up; a batch that was made
//! before columns of the table got wider is cast to them, under the same token, and never one to narrower
//! ones.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::sink::{Batch, Delivered, Driver, Failure};
use super::batch::{self, Body, Said};
use super::client::{Client, ClientError};
use super::ddl::{named, quoted};
use super::schema::widens;
use crate::config::ClickhousePlan;
use crate::record::Table;

/// Compression of batches of before: beyond it it costs more than the network saves.
const ZSTD_LEVEL: i32 = 1;

/// Errors of the data itself, which another attempt would not mend: CANNOT_PARSE_TEXT,
/// CANNOT_PARSE_INPUT_ASSERTION_FAILED, TOO_LARGE_STRING_SIZE.
const REFUSALS: [u32; 3] = [6, 27, 131];
/// Errors of a schema that is missing or older: NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_TABLE,
/// UNKNOWN_DATABASE, those of [`COLUMNS`].
const SCHEMA: [u32; 5] = [16, 60, 81, COLUMNS[0], COLUMNS[1]];
/// Errors of columns that the table has not, or has under another type: TYPE_MISMATCH (in Native),
/// INCORRECT_DATA.
const COLUMNS: [u32; 2] = [53, 117];

/// Settings under which a batch is one block that is stored once, and nothing of it is cut off or left out.
const SETTINGS: [(&str, &str); 14] = [
    ("wait_end_of_query", "1"),
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("input_format_parallel_parsing", "0"),
    ("input_format_native_allow_types_conversion", "0"),
    ("input_format_skip_unknown_fields", "0"),
    // Null is refused by a column that cannot hold it, and not made 0.
    ("input_format_null_as_default", "0"),
    ("max_insert_block_size", "1048576"),
    ("min_insert_block_size_rows", "1048576"),
    ("min_insert_block_size_bytes", "1073741824"),
    // Rows of more days than ClickHouse takes at once by default are rows all the same.
    ("max_partitions_per_insert_block", "0"),
    ("insert_distributed_sync", "1"),
    // A batch has little that adds up; what there is is added up when parts are merged.
    ("optimize_on_insert", "0"),
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

    fn insert(&mut self, batch: &Batch, said: &Said<'_>) -> Result<(), ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let client = Client::new(&self.plan, self.timeout_ms)?;
                client.version()?;
                client
            }
        };
        let (database, table) = (named(&self.plan.database), named(batch.table.name()));
        let into = format!("INSERT INTO {database}.{table}");
        let (format, body) = match said.body {
            Body::Native(body) => ("Native", Cow::Borrowed(body)),
            Body::RowBinary(rows) => {
                let body = zstd::bulk::compress(rows, ZSTD_LEVEL)
                    .map_err(|error| ClientError::Unreachable(error.to_string()))?;
                ("RowBinaryWithNamesAndTypes", Cow::Owned(body))
            }
        };
        let send = |columns: &str| {
            let statement = format!("{into}{columns} FORMAT {format}");
            let mut parameters =
                vec![("query", &*statement), ("insert_deduplication_token", &*batch.token)];
            parameters.extend(SETTINGS);
            client.send_zstd(&parameters, &body)
        };
        match send("") {
            Err(error @ ClientError::Server { code, .. }) if COLUMNS.contains(&code) => {
                let cast = self.cast(&client, batch.table, &said.columns)?.ok_or(error)?;
                send(&cast)?;
            }
            sent => {
                sent?;
            }
        }
        // After a failure it may be another server that answers next; it is asked anew.
        self.client = Some(client);
        Ok(())
    }

    /// How a batch is taken as the columns of the table, if it lacks none of its own and all are as wide:
    /// ClickHouse would cut off what does not fit, and say nothing.
    fn cast(
        &self,
        client: &Client,
        table: Table,
        columns: &[(&str, &str)],
    ) -> Result<Option<String>, ClientError> {
        let there = client.run(&format!(
            "SELECT name, type FROM system.columns WHERE database = {} AND table = {} FORMAT TSVRaw",
            quoted(&self.plan.database),
            quoted(table.name())
        ))?;
        let there: BTreeMap<_, _> =
            there.lines().filter_map(|line| line.split_once('\t')).collect();
        Ok(cast(columns, &there))
    }
}

fn cast(columns: &[(&str, &str)], there: &BTreeMap<&str, &str>) -> Option<String> {
    let fits = |(name, kind): &(&str, &str)| there.get(name).is_some_and(|it| widens(kind, it));
    if !columns.iter().all(fits) {
        return None;
    }
    let names: Vec<_> = columns.iter().map(|(name, _)| named(name)).collect();
    let types: Vec<_> =
        columns.iter().map(|(name, kind)| format!("{} {kind}", named(name))).collect();
    let (names, types) = (names.join(", "), quoted(&types.join(", ")));
    Some(format!(" ({names}) SELECT {names} FROM input({types})"))
}

impl Driver for Inserts {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let Some(said) = batch::read(&batch.bytes) else {
            return Err(Failure::refused("the batch does not say what it is: a bug"));
        };
        match self.insert(batch, &said) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_become_wider_is_cast_and_nothing_else() {
        let there =
            BTreeMap::from([("a", "UInt32"), ("at", "DateTime('UTC')"), ("more", "String")]);
        let cast = |kind| cast(&[("a", kind), ("at", "DateTime('UTC')")], &there);
        let statement = " (`a`, `at`) SELECT `a`, `at` FROM input('`a` UInt16, `at` \
                         DateTime(\\'UTC\\')')";
        assert_eq!(cast("UInt16").as_deref(), Some(statement));
        for other in ["UInt64", "Nullable(UInt16)", "Int64", "String"] {
            assert_eq!(cast(other), None, "{other} would lose values");
        }
        assert_eq!(super::cast(&[("b", "UInt8")], &there), None, "no such column");
    }
}
