//! The conversations of a span as few rows: who talked to whom, named as known now, and the largest of them.
//!
//! In: `windows`, in files the hours that stand added up, `inventory`. Out: tables `facts`, `chosen` (edges, the largest
//! first, with a number) and `chosen_talks` (what they are made of, named); what found no room.
//! Cost: one pass over a dozen columns of the windows that stand added up nowhere, memory for the talks of
//! one part of them; four passes over the others (`edges.rs`).
//! Invariants: the talks of a span are taken in parts where they do not fit the memory, each part with
//! all that belongs to its edges, so that the result is the same whatever the number of parts; at most
//! `conversations` edges are kept at a time.
//!
//! Rows are summed up over the time in which nothing is known to change at either end: from instant to
//! instant of what the inventory says of these addresses, MAC addresses and VMs. All windows between two
//! instants ask the same of the inventory, which is then asked once. Edges are summed up by numbers of VMs,
//! and by addresses of those who are none: names come to those that are chosen.

use crate::changes::{Changes, FACTS, first_row};
use crate::database::{Database, is_out_of_memory};
use crate::dialect::Dialect;

use super::edges::Named;
use super::read::Wanted;
use super::rolled::{Rolled, keys};
use super::stored::Stored;

/// Parts that a span is taken in, at most; each time that the memory does not suffice there are
/// [`PARTS_MORE`] times as many.
const PARTS_MAX: u32 = 256;
const PARTS_MORE: u32 = 4;

/// What was left out: conversations, packets, octets.
pub(super) type LeftOut = [u128; 3];

/// Makes the tables.
pub(super) fn choose(
    database: &Database,
    stored: &Stored,
    wanted: &Wanted<'_>,
) -> anyhow::Result<LeftOut> {
    database.execute(FACTS)?;
    database.execute(
        "CREATE TEMP TABLE vms AS SELECT uuid, row_number() OVER (ORDER BY uuid)::UINTEGER AS number
         FROM (SELECT DISTINCT uuid FROM facts WHERE uuid IS NOT NULL)",
    )?;
    let mut rolled = match stored {
        Stored::Files => Rolled::find(database, wanted.span)?,
        Stored::Clickhouse(_) => Rolled::none(wanted.span),
    };
    stored.keep(database, "bounds", &Changes::bounds_sql(&rolled.times()), &[])?;
    let bounds = first_row(database, "FROM bounds")?;
    let changes = Changes::find(database, stored.dialect(), &bounds)?;
    rolled.find_torn(database, &changes)?;
    let scan = Scan { wanted, stored, changes, rolled };
    let mut parts = 1;
    loop {
        match scan.in_parts(database, parts) {
            Err(error) if is_out_of_memory(&error) && parts < PARTS_MAX => parts *= PARTS_MORE,
            other => return other,
        }
    }
}

/// What is read of the conversations.
struct Scan<'a> {
    wanted: &'a Wanted<'a>,
    stored: &'a Stored,
    changes: Changes,
    rolled: Rolled,
}

impl Scan<'_> {
    fn in_parts(&self, database: &Database, parts: u32) -> anyhow::Result<LeftOut> {
        let tables = [
            "chosen",
            "chosen_talks",
            "talks",
            "rolled_part",
            "named",
            "named_rolled",
            "contexts",
            "largest_talks",
        ];
        let drops = tables.map(|table| format!("DROP TABLE IF EXISTS {table}"));
        database.execute(&drops.join("; "))?;
        let mut needed = vec!["known", "changes"];
        if parts > 1 {
            let met = self.met_sql();
            self.stored.keep(database, "met", &met, &["known"])?;
            needed.push("met");
        }
        let mut all = LeftOut::default();
        for part in 0..parts {
            let filter = part_sql(self.stored.dialect(), parts, part);
            self.stored.keep(database, "talks", &self.talks_sql(&filter), &needed)?;
            let named = Named {
                wanted: self.wanted,
                changes: &self.changes,
                rolled: self.rolled_part(database, parts, &filter)?,
            };
            named.name(database)?;
            database.execute(&named.largest_sql())?;
            add(&mut all, left_of(database)?);
            database.execute(&named.chosen_sql(part > 0))?;
        }
        let kept = sums(database, "chosen")?;
        Ok(std::array::from_fn(|place| all[place].saturating_sub(kept[place])))
    }

    /// The rows of this part that stand added up. They are read where they are needed, four times; or, where
    /// memory is short, put into a table, because each join of a statement takes some, however few rows
    /// there are.
    fn rolled_part(
        &self,
        database: &Database,
        parts: u32,
        filter: &str,
    ) -> anyhow::Result<Option<String>> {
        if !self.rolled.any() {
            return Ok(None);
        }
        let rows = self.rolled.rows(filter);
        if parts == 1 {
            return Ok(Some(rows));
        }
        database.execute(&format!("CREATE OR REPLACE TEMP TABLE rolled_part AS FROM {rows}"))?;
        Ok(Some("rolled_part".to_owned()))
    }

    /// `met`: addresses that stood beside a MAC address that the inventory knows, in any row of the span.
    /// Beside another one they may stand as well, and be no VM's there or here: one node, so one part.
    fn met_sql(&self) -> String {
        let mut rows = vec![self.rolled.windows("")];
        if self.rolled.any() {
            rows.push(self.rolled.rows(""));
        }
        let mut ends = Vec::new();
        for (rows, end) in
            rows.iter().flat_map(|rows| ["source", "destination"].map(|end| (rows, end)))
        {
            ends.push(format!(
                "SELECT address_space || '/' || {end}_address AS name FROM {rows} AS own
                 WHERE {end}_mac IN (SELECT key FROM known)"
            ));
        }
        format!("SELECT DISTINCT name FROM ({}) AS ends", ends.join(" UNION ALL "))
    }

    /// `talks`: rows of windows summed up over the time in which nothing changes.
    fn talks_sql(&self, filter: &str) -> String {
        let windows = self.changes.with_instants(&self.rolled.windows(filter));
        let [held_from, held_to] = self.changes.held("window_start_ns", "window_end_ns");
        format!(
            "SELECT {keys}, {held_from} AS held_from_ns, {held_to} AS held_to_ns,
                    sum(packet_delta_count) AS packets, sum(reverse_packet_delta_count) AS back,
                    sum(octet_delta_count) AS octets,
                    sum(reverse_octet_delta_count) AS octets_back,
                    min(window_start_ns) AS first_start_ns, max(window_start_ns) AS last_start_ns,
                    min(window_end_ns) AS first_end_ns, max(window_end_ns) AS last_end_ns
             FROM {windows} AS own GROUP BY ALL",
            keys = known_keys()
        )
    }
}

/// A part of the conversations, with all that belong to the same edges: service and ends, as far as an end
/// cannot be a VM's, which may have several addresses.
fn part_sql(dialect: Dialect, parts: u32, part: u32) -> String {
    if parts == 1 {
        return String::new();
    }
    let end = |end: &str| {
        format!(
            "CASE WHEN {end}_address IN (SELECT key FROM known)
                    OR (address_space || '/' || {end}_address) IN (SELECT name FROM met) THEN ''
             ELSE address_space || '/' || {end}_address END"
        )
    };
    format!(
        " AND {hash}(protocol_identifier, destination_port, application_name, {}, {}) % {parts} = {part}",
        end("source"),
        end("destination"),
        hash = dialect.hash(),
    )
}

/// What tells talks apart. A MAC address says nothing where the inventory does not know it.
fn known_keys() -> String {
    let mut keys = keys();
    for mac in ["source_mac", "destination_mac"] {
        // An alias would go before the column of its name in ClickHouse.
        let known =
            format!("CASE WHEN own.{mac} IN (SELECT key FROM known) THEN own.{mac} END AS {mac}");
        keys = keys.replace(mac, &known);
    }
    keys
}

fn sums(database: &Database, table: &str) -> anyhow::Result<LeftOut> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(packets + back), 0), coalesce(sum(octets + octets_back), 0)
         FROM {table}"
    );
    numbers(database, &sql)
}

fn numbers(database: &Database, sql: &str) -> anyhow::Result<LeftOut> {
    let mut sums = LeftOut::default();
    for (sum, number) in sums.iter_mut().zip(first_row::<3>(database, sql)?) {
        *sum = number.plain().parse()?;
    }
    Ok(sums)
}

/// All of the part whose largest stand in `largest_talks`.
fn left_of(database: &Database) -> anyhow::Result<LeftOut> {
    let sql = "SELECT coalesce(any_value(all_count), 0), coalesce(any_value(all_packets), 0),
               coalesce(any_value(all_octets), 0) FROM largest_talks";
    numbers(database, sql)
}

fn add(all: &mut LeftOut, more: LeftOut) {
    for (sum, more) in all.iter_mut().zip(more) {
        *sum += more;
    }
}
