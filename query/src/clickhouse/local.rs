//! Records of a span, fetched to be asked here as files are.
//!
//! In: a query, a span. Out: files in memory, of the tables that the query may read.
//! Invariants: of the inventory all is fetched, because what it says of a span may be older; of other
//! tables what lies in the span, in part at least.

use std::collections::BTreeMap;

use super::{Fetched, Server};
use crate::files::{Files, OpenFile};
use crate::span::Span;
use crate::{rollup, schema};

/// Columns of the one instant that a row is of, in the tables that have no span.
const INSTANTS: [&str; 5] =
    ["window_start_ns", "time_ns", "sample_ns", "observation_time_ns", "transaction_start_ns"];
/// Columns of the first and the last instant.
const SPANS: [[&str; 2]; 2] = [["flow_start_ns", "flow_end_ns"], ["first_seen_ns", "last_seen_ns"]];

/// The records that a query may read.
pub(crate) fn records(server: &Server, sql: &str, span: Span) -> anyhow::Result<Files> {
    let mut of_table = BTreeMap::new();
    for table in schema::tables() {
        let is_read = schema::may_read(sql, table);
        let file = is_read.then(|| fetch(server, table, span)).transpose()?;
        of_table.insert(table, file.into_iter().collect());
    }
    let mut to_roll = Vec::new();
    if rollup::are_read(sql) {
        to_roll.push(fetch(server, rollup::TABLE, span)?);
    }
    let views = schema::views(sql);
    Ok(Files { of_table, rolled: Vec::new(), to_roll, views, with_talks: false })
}

fn fetch(server: &Server, table: &'static str, span: Span) -> anyhow::Result<OpenFile> {
    let names: Vec<_> = schema::columns(table).map(|(name, _)| name).collect();
    let filter = filter(&names, span);
    let sql = format!("SELECT {} FROM {table}{filter}", names.join(", "));
    Ok(Fetched::ask(server, &sql, &[])?.into_file(table)?)
}

fn filter(names: &[&str], span: Span) -> String {
    let has = |name: &&str| names.contains(name);
    let Span { from_ns, to_ns } = span;
    if has(&"valid_from_ns") {
        return String::new();
    }
    if has(&"window_end_ns") {
        return format!(" WHERE {}", span.windows());
    }
    // A migration has both, and happens at its time.
    if has(&"time_ns") {
        return format!(" WHERE time_ns >= {from_ns} AND time_ns < {to_ns}");
    }
    if let Some([first, last]) = SPANS.iter().find(|pair| pair.iter().all(has)) {
        return format!(" WHERE {last} >= {from_ns} AND {first} < {to_ns}");
    }
    let instant = INSTANTS.iter().find(|name| has(name));
    instant
        .map_or_else(String::new, |name| format!(" WHERE {name} >= {from_ns} AND {name} < {to_ns}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_but_the_inventory_has_a_time() {
        let span = Span { from_ns: 7_200_000_000_000, to_ns: 7_300_000_000_000 };
        for table in schema::tables() {
            let names: Vec<_> = schema::columns(table).map(|(name, _)| name).collect();
            assert_eq!(filter(&names, span).is_empty(), table == "inventory", "{table}");
        }
        let flows = filter(&["flow_start_ns", "flow_end_ns"], span);
        assert_eq!(flows, " WHERE flow_end_ns >= 7200000000000 AND flow_start_ns < 7300000000000");
    }
}
