//! The windows of a span as few rows: who talked to whom, named as known now, and the largest of them.
//!
//! In: `windows`, `inventory`. Out: tables `facts`, `chosen` (edges, the largest first, with a number)
//! and `chosen_talks` (what they are made of, named); what found no room.
//! Cost: one pass over a dozen columns of `windows`; memory for the talks of one part.
//! Invariants: the talks of a span are taken in parts where they do not fit the memory, each part with
//! all that belongs to its edges, so that the result is the same whatever the number of parts; at most
//! `conversations` edges are kept at a time.
//!
//! Rows of `windows` are summed up over the time in which nothing is known to change at either end: from
//! instant to instant of what the inventory says of these addresses, MAC addresses and VMs. All windows
//! between two instants ask the same of the inventory, which is then asked once.

use anyhow::Context as _;

use crate::cell::Cell;
use crate::database::{Database, is_out_of_memory};
use crate::dialect::Dialect;
use crate::schema;

use super::read::{Row, Wanted, text};
use super::stored::Stored;
use crate::span::Span;

/// Parts that a span is taken in, at most; each time that the memory does not suffice there are
/// [`PARTS_MORE`] times as many.
const PARTS_MAX: u32 = 256;
const PARTS_MORE: u32 = 4;

/// The largest first; of those that are as large there is one order too.
const ORDER: &str =
    "ORDER BY octets + octets_back DESC, source, target, protocol, port, application, class";

/// What was left out: conversations, packets, octets.
pub(super) type LeftOut = [u128; 3];

/// Makes the tables.
pub(super) fn choose(
    database: &Database,
    stored: &Stored,
    wanted: &Wanted<'_>,
) -> anyhow::Result<LeftOut> {
    database.execute(
        "CREATE TEMP TABLE facts AS FROM inventory_now;
         CREATE TEMP TABLE known AS
           SELECT address AS key FROM facts WHERE address IS NOT NULL
           UNION SELECT mac FROM facts WHERE mac IS NOT NULL",
    )?;
    let changes = Changes::find(database, stored, wanted.span)?;
    let scan = Scan { wanted, stored, changes };
    let mut parts = 1;
    loop {
        match scan.in_parts(database, parts) {
            Err(error) if is_out_of_memory(&error) && parts < PARTS_MAX => parts *= PARTS_MORE,
            other => return other,
        }
    }
}

/// Instants at which what is known changes.
struct Changes {
    /// Of the windows in the span, the first and the last instant.
    bounds: [String; 2],
    /// Whether there is one between them.
    any: bool,
    /// Whether what is known of a MAC address may say who has any address.
    by_mac: bool,
}

impl Changes {
    /// Makes the table `changes`: of each address and MAC address (in no space) that the inventory names,
    /// the instants between the bounds at which any of what it says of it changes, or of the VMs behind it.
    fn find(database: &Database, stored: &Stored, span: Span) -> anyhow::Result<Self> {
        let in_span = span.windows();
        let sql = format!(
            "SELECT coalesce(min(window_start_ns), 0) AS first, coalesce(max(window_end_ns), 0) AS last
             FROM windows WHERE {in_span}"
        );
        stored.keep(database, "bounds", &sql, &[])?;
        let bounds = first_row::<2>(database, "FROM bounds")?.map(|cell| cell.plain().to_owned());
        let [first, last] = &bounds;
        database.execute(&format!(
            "CREATE TEMP TABLE changes AS
             WITH named AS (
               SELECT *, address_space AS space, address AS key FROM facts
               UNION ALL SELECT *, segment, address FROM facts
               UNION ALL SELECT *, '', mac FROM facts),
             behind AS (
               SELECT probe_id, space, key, uuid FROM named
               UNION
               -- Who has a learned address is known by its MAC address.
               SELECT learned.probe_id, learned.space, learned.key, held.uuid
               FROM named AS learned JOIN facts AS held USING (probe_id, mac)
               WHERE learned.uuid IS NULL),
             told AS (
               SELECT probe_id, space, key, valid_from_ns, valid_to_ns FROM named
               UNION
               SELECT behind.probe_id, space, key, valid_from_ns, valid_to_ns
               FROM behind JOIN facts USING (probe_id, uuid)),
             instants AS (
               SELECT DISTINCT probe_id, space, key, unnest([valid_from_ns, valid_to_ns]) AS instant
               FROM told WHERE key IS NOT NULL AND space IS NOT NULL)
             SELECT probe_id AS of_probe_id, space, key, list(instant) AS instants FROM instants
             WHERE instant > {first} AND instant < {last} GROUP BY ALL"
        ))?;
        let sql = "SELECT EXISTS (FROM changes),
                   EXISTS (FROM facts WHERE mac IS NOT NULL AND address IS NULL)";
        let [any, by_mac] = first_row(database, sql)?.map(|cell| cell.plain() == "true");
        Ok(Self { bounds, any, by_mac })
    }

    /// From when to when nothing is known to change at the ends of a window, or about them while it
    /// lasts: what the inventory says of this span it says of the window.
    fn held(&self, dialect: Dialect) -> [String; 2] {
        let [first, last] = &self.bounds;
        if !self.any {
            return [first, last].map(|bound| dialect.unsigned(bound));
        }
        let lists = self.lookups(dialect).into_iter();
        let lists: Vec<_> = lists.map(|(alias, ..)| format!("{alias}_instants")).collect();
        [
            dialect.of_lists("max", &lists, "<= window_start_ns", first),
            dialect.of_lists("min", &lists, ">= window_end_ns", last),
        ]
    }

    /// Rows of `windows` with the instants of their ends.
    fn windows(&self, dialect: Dialect, filter: &str) -> String {
        if !self.any {
            return format!("windows WHERE {filter}");
        }
        let (mut columns, mut joins) = (String::new(), String::new());
        for (alias, space, key) in self.lookups(dialect) {
            columns.push_str(&format!(", {alias}.instants AS {alias}_instants"));
            joins.push_str(&format!(
                " LEFT JOIN changes AS {alias} ON {alias}.of_probe_id = windows.probe_id
                  AND {alias}.space = {space} AND {alias}.key = {key}"
            ));
        }
        format!("(SELECT windows.*{columns} FROM windows {joins} WHERE {filter}) AS windows")
    }

    /// By what a window's ends are looked up: alias, space, key. Addresses that no router passes on are
    /// known by the MAC address beside them.
    fn lookups(&self, dialect: Dialect) -> Vec<(String, String, String)> {
        let mut lookups = Vec::new();
        for end in ["source", "destination"] {
            let (address, mac) = (format!("windows.{end}_address"), format!("windows.{end}_mac"));
            let own = dialect.stays_on_link(&address);
            if self.by_mac {
                lookups.push((format!("{end}_of_mac"), "''".to_owned(), mac.clone()));
            }
            lookups.push((
                end.to_owned(),
                format!("CASE WHEN {own} THEN '' ELSE windows.address_space END"),
                format!("CASE WHEN {own} THEN {mac} ELSE {address} END"),
            ));
        }
        lookups
    }
}

fn first_row<const N: usize>(database: &Database, sql: &str) -> anyhow::Result<[Cell; N]> {
    let mut first = None;
    database.each(sql, |row: Row| {
        first = first.take().or_else(|| row.first_chunk().cloned());
        Ok(())
    })?;
    first.context("a row of an answer")
}

/// What is read of `windows`.
struct Scan<'a> {
    wanted: &'a Wanted<'a>,
    stored: &'a Stored,
    changes: Changes,
}

impl Scan<'_> {
    fn in_parts(&self, database: &Database, parts: u32) -> anyhow::Result<LeftOut> {
        database.execute(
            "DROP TABLE IF EXISTS chosen; DROP TABLE IF EXISTS chosen_talks;
             DROP TABLE IF EXISTS talks; DROP TABLE IF EXISTS edges",
        )?;
        let mut all = LeftOut::default();
        for part in 0..parts {
            let sql = self.talks_sql(parts, part);
            self.stored.keep(database, "talks", &sql, &["known", "changes"])?;
            database.execute(&self.edges_sql())?;
            add(&mut all, sums(database, "edges")?);
            database.execute(&self.chosen_sql(part > 0))?;
        }
        let kept = sums(database, "chosen")?;
        Ok(std::array::from_fn(|place| all[place].saturating_sub(kept[place])))
    }

    /// `talks`: rows of `windows` summed up over the time in which nothing changes.
    fn talks_sql(&self, parts: u32, part: u32) -> String {
        let in_span = self.wanted.span.windows();
        let dialect = self.stored.dialect();
        let [held_from, held_to] = self.changes.held(dialect);
        let part = part_sql(dialect, parts, part);
        let windows = self.changes.windows(dialect, &format!("{in_span}{part}"));
        format!(
            "SELECT probe_id, address_space, source_address, destination_address,
                    {source_mac} AS source_mac, {destination_mac} AS destination_mac,
                    source_network_kind, destination_network_kind, protocol_identifier,
                    destination_port, application_name, segment, tap,
                    {held_from} AS held_from_ns, {held_to} AS held_to_ns,
                    sum(packet_delta_count) AS packets, sum(reverse_packet_delta_count) AS back,
                    sum(octet_delta_count) AS octets,
                    sum(reverse_octet_delta_count) AS octets_back,
                    min(window_start_ns) AS first_start_ns, max(window_start_ns) AS last_start_ns,
                    min(window_end_ns) AS first_end_ns, max(window_end_ns) AS last_end_ns
             FROM {windows} GROUP BY ALL",
            source_mac = mac("source"),
            destination_mac = mac("destination"),
        )
    }

    /// Talks with who was at their ends, as known now. They are named twice instead of kept with names:
    /// once for the sums, then those that are chosen.
    fn named_sql(&self) -> String {
        let tenant = self.wanted.tenant.map_or_else(String::new, |tenant| {
            let tenant = text(tenant);
            format!(
                " WHERE source_virtual_station_tenant = {tenant} \
                 OR destination_virtual_station_tenant = {tenant}"
            )
        });
        let named = schema::view("windows_now");
        format!(
            "WITH windows AS (
               SELECT *, held_from_ns AS window_start_ns, held_to_ns AS window_end_ns,
                      NULL::VARCHAR AS source_virtual_station_uuid,
                      NULL::VARCHAR AS source_virtual_station_name,
                      NULL::VARCHAR AS source_virtual_station_tenant,
                      NULL::VARCHAR AS destination_virtual_station_uuid,
                      NULL::VARCHAR AS destination_virtual_station_name,
                      NULL::VARCHAR AS destination_virtual_station_tenant, '' AS traffic_class
               FROM talks),
             inventory_now AS (FROM facts)
             SELECT * EXCLUDE (window_start_ns, window_end_ns), {source} AS source,
                    {target} AS target
             FROM ({named}) AS named{tenant}",
            source = name_of("source"),
            target = name_of("destination"),
        )
    }

    fn edges_sql(&self) -> String {
        format!(
            "CREATE OR REPLACE TEMP TABLE edges AS
             SELECT source, target, protocol_identifier AS protocol, destination_port AS port,
                    application_name AS application, traffic_class AS class,
                    sum(packets) AS packets, sum(back) AS back, sum(octets) AS octets,
                    sum(octets_back) AS octets_back
             FROM ({}) GROUP BY ALL",
            self.named_sql()
        )
    }

    /// The largest edges of this part and those before it.
    fn chosen_sql(&self, has_before: bool) -> String {
        let limit = self.wanted.conversations;
        let named = self.named_sql();
        let (before, talks_before) = if has_before {
            (
                "UNION ALL BY NAME SELECT * EXCLUDE (number) FROM chosen",
                "UNION ALL BY NAME FROM chosen_talks",
            )
        } else {
            ("", "")
        };
        format!(
            "CREATE OR REPLACE TEMP TABLE chosen AS
             SELECT *, row_number() OVER ({ORDER}) AS number
             FROM (SELECT * FROM (FROM edges {before}) {ORDER} LIMIT {limit});
             DROP TABLE edges;
             CREATE OR REPLACE TEMP TABLE chosen_talks AS
             SELECT own.* FROM (FROM ({named}) {talks_before}) AS own
             SEMI JOIN chosen ON own.source = chosen.source AND own.target = chosen.target
               AND own.protocol_identifier = chosen.protocol AND own.destination_port = chosen.port
               AND own.application_name = chosen.application AND own.traffic_class = chosen.class;
             DROP TABLE talks"
        )
    }
}

/// A part of the windows, with all that belong to the same edges: service and ends, as far as an end
/// cannot be a VM's, which may have several addresses.
fn part_sql(dialect: Dialect, parts: u32, part: u32) -> String {
    if parts == 1 {
        return String::new();
    }
    let end = |end: &str| {
        format!(
            "CASE WHEN windows.{end}_address IN (SELECT key FROM known)
                    OR coalesce(windows.{end}_mac IN (SELECT key FROM known), false) THEN ''
             ELSE windows.address_space || '/' || windows.{end}_address END"
        )
    };
    format!(
        " AND {hash}(protocol_identifier, destination_port, application_name, {}, {}) % {parts} = {part}",
        end("source"),
        end("destination"),
        hash = dialect.hash(),
    )
}

/// A MAC address says nothing where the inventory does not know it.
fn mac(end: &str) -> String {
    format!("CASE WHEN windows.{end}_mac IN (SELECT key FROM known) THEN windows.{end}_mac END")
}

/// Name of the node at an end.
fn name_of(end: &str) -> String {
    format!(
        "CASE WHEN {end}_virtual_station_uuid IS NULL
              THEN 'endpoint:' || address_space || '/' || {end}_address
              ELSE 'vm:' || {end}_virtual_station_uuid END"
    )
}

fn sums(database: &Database, table: &str) -> anyhow::Result<LeftOut> {
    let sql = format!(
        "SELECT count(*), coalesce(sum(packets + back), 0), coalesce(sum(octets + octets_back), 0)
         FROM {table}"
    );
    let mut sums = LeftOut::default();
    for (sum, number) in sums.iter_mut().zip(first_row::<3>(database, &sql)?) {
        *sum = number.plain().parse()?;
    }
    Ok(sums)
}

fn add(all: &mut LeftOut, more: LeftOut) {
    for (sum, more) in all.iter_mut().zip(more) {
        *sum += more;
    }
}
