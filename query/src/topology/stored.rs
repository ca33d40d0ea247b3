//! Where the records are that a graph is made of.
//!
//! In: what is asked of large tables. Out: a local table of the answer, small enough to go on with.
//! Invariants: what is asked of a server is what is asked of files, so is all that is made of it; the
//! server reads `windows` and `path`, and of the smaller tables gives what lies in the span.

use crate::clickhouse::{Fetched, Server, Upload};
use crate::database::{Database, empty};
use crate::dialect::Dialect;
use crate::schema;

use crate::span::Span;

/// Where they are.
pub(super) enum Stored {
    /// In files, which the database has as views.
    Files,
    /// On a server.
    Clickhouse(Box<Server>),
}

impl Stored {
    /// On a server, with the small tables fetched from it.
    pub(super) fn on(database: &Database, server: Server, span: Span) -> anyhow::Result<Self> {
        let names: Vec<_> = schema::columns("inventory").map(|(name, _)| name).collect();
        let inventory = format!("SELECT {} FROM inventory", names.join(", "));
        let Span { from_ns, to_ns } = span;
        // Each place and port of a tap is a row, as of a single window.
        let taps = format!(
            "SELECT probe_id, tap, host, switch, port, sum(packet_count) AS packet_count,
                    sum(octet_count) AS octet_count, min(taps.window_start_ns) AS window_start_ns
             FROM taps WHERE taps.window_start_ns >= {from_ns} AND taps.window_start_ns < {to_ns}
             GROUP BY ALL"
        );
        let path = format!(
            "SELECT scope, window_start_ns, window_end_ns, from_tap, to_tap, sampled_packet_count,
                    matched_packet_count, network_loss_packet_count, mirror_loss_packet_count,
                    unresolved_loss_packet_count, delay_sample_count, delay_mean_ns
             FROM path WHERE scope = 'taps' AND {}",
            span.windows()
        );
        for (table, sql) in [("inventory", inventory), ("taps", taps), ("path", path)] {
            let fetched = Fetched::ask(&server, &sql, &[])?;
            let rows = fetched.rows();
            // In the place of the one that the views are over; columns that nobody looks at are null.
            database.execute(&format!(
                "CREATE OR REPLACE TABLE {table} AS
                 FROM {} UNION ALL BY NAME FROM {rows}",
                empty(table)
            ))?;
        }
        Ok(Self::Clickhouse(Box::new(server)))
    }

    /// Whose SQL is asked.
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Files => Dialect::Duckdb,
            Self::Clickhouse(_) => Dialect::Clickhouse,
        }
    }

    /// Keeps the answer as a local table; `with` are local tables that the question names.
    pub(super) fn keep(
        &self,
        database: &Database,
        table: &str,
        sql: &str,
        with: &[&str],
    ) -> anyhow::Result<()> {
        let create = format!("CREATE OR REPLACE TEMP TABLE {table} AS");
        match self {
            Self::Files => database.execute(&format!("{create} {sql}")),
            Self::Clickhouse(server) => {
                let uploads = with.iter().map(|name| Upload::of(database, name));
                let uploads: Vec<_> = uploads.collect::<anyhow::Result<_>>()?;
                let fetched = Fetched::ask(server, sql, &uploads)?;
                database.execute(&format!("{create} FROM {}", fetched.rows()))
            }
        }
    }
}
