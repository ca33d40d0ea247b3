//! The conversations of a span as few rows: who talked to whom, named as known now, and the largest of them.
//!
//! In: `windows`, in files the hours that stand added up, `inventory`. Out: tables `facts`, `chosen` (edges, the largest
//! first, with a number) and `chosen_talks` (what they are made of, named); what found no room.
//! Cost: one pass over a dozen columns of the windows that stand added up nowhere, memory for the talks of
//! one part of them; three passes over the others.
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
use crate::now;

use super::read::{Wanted, text};
use super::rolled::{Rolled, keys};
use super::stored::Stored;

/// Parts that a span is taken in, at most; each time that the memory does not suffice there are
/// [`PARTS_MORE`] times as many.
const PARTS_MAX: u32 = 256;
const PARTS_MORE: u32 = 4;

/// The largest first; of those that are as large there is one order too.
const ORDER: &str =
    "ORDER BY octets + octets_back DESC, source, target, protocol, port, application, class";

/// What makes an edge, by number or address.
const EDGE: [&str; 9] = [
    "source_vm",
    "target_vm",
    "space",
    "source_at",
    "target_at",
    "protocol",
    "port",
    "application",
    "class",
];
const SUMS: &str = "sum(packets) AS packets, sum(back) AS back, sum(octets) AS octets, \
                    sum(octets_back) AS octets_back";
const TIMES: &str = "min(first_start_ns) AS first_start_ns, max(last_start_ns) AS last_start_ns, \
                     min(first_end_ns) AS first_end_ns, max(last_end_ns) AS last_end_ns";

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
        database.execute(
            "DROP TABLE IF EXISTS chosen; DROP TABLE IF EXISTS chosen_talks;
             DROP TABLE IF EXISTS talks; DROP TABLE IF EXISTS edges; DROP TABLE IF EXISTS named",
        )?;
        let mut needed = vec!["known", "changes"];
        if parts > 1 {
            let met = self.met_sql();
            self.stored.keep(database, "met", &met, &["known"])?;
            needed.push("met");
        }
        let mut all = LeftOut::default();
        for part in 0..parts {
            let filter = part_sql(self.stored.dialect(), parts, part);
            let sql = self.talks_sql(&filter);
            self.stored.keep(database, "talks", &sql, &needed)?;
            let talks = self.all_talks(database, parts, &filter)?;
            database.execute(&named_sql(&talks))?;
            database.execute(&self.edges_sql(&talks))?;
            add(&mut all, sums(database, "edges")?);
            database.execute(&self.chosen_sql(&talks, part > 0))?;
        }
        let kept = sums(database, "chosen")?;
        Ok(std::array::from_fn(|place| all[place].saturating_sub(kept[place])))
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

    /// Those, and beside them the hours that stand added up, which may have several rows of a talk. These
    /// are read where they are needed, three times; or, where memory is short, put with the others, because
    /// each join of a statement takes some, however few rows there are.
    fn all_talks(&self, database: &Database, parts: u32, filter: &str) -> anyhow::Result<String> {
        if !self.rolled.any() {
            return Ok("talks".to_owned());
        }
        let rows = self.changes.with_instants(&self.rolled.rows(filter));
        let [held_from, held_to] = self.changes.held("first_start_ns", "last_end_ns");
        let rows = format!(
            "SELECT {keys}, {held_from} AS held_from_ns, {held_to} AS held_to_ns,
                    packet_delta_count AS packets, reverse_packet_delta_count AS back,
                    octet_delta_count AS octets, reverse_octet_delta_count AS octets_back,
                    first_start_ns, last_start_ns, first_end_ns, last_end_ns
             FROM {rows} AS own",
            keys = known_keys()
        );
        if parts > 1 {
            database.execute(&format!("INSERT INTO talks {rows}"))?;
            return Ok("talks".to_owned());
        }
        Ok(format!("(FROM talks UNION ALL {rows})"))
    }

    /// Talks with what makes their edges, as known now. They are named twice instead of kept with names:
    /// once for the sums, then those that are chosen.
    fn edges_of(&self, talks: &str) -> String {
        let end = |alias: &str, end: &str| {
            format!(
                "LEFT JOIN named AS {alias} ON {alias}.probe_id = talk.probe_id
                   AND {alias}.address_space = talk.address_space
                   AND {alias}.address = talk.{end}_address
                   AND {alias}.mac IS NOT DISTINCT FROM talk.{end}_mac
                   AND {alias}.from_ns = talk.held_from_ns AND {alias}.to_ns = talk.held_to_ns"
            )
        };
        let side = |end: &str| {
            format!(
                "side_of(talk.{end}_network_kind, {end}.uuid, {end}.tenant, {end}.tenant_shared)"
            )
        };
        let tenant = self.wanted.tenant.map_or_else(String::new, |tenant| {
            let tenant = text(tenant);
            format!(" WHERE source.tenant = {tenant} OR destination.tenant = {tenant}")
        });
        format!(
            "SELECT talk.*, source.number AS source_vm, destination.number AS target_vm,
                    CASE WHEN source_vm IS NULL OR target_vm IS NULL THEN talk.address_space END
                      AS space,
                    CASE WHEN source_vm IS NULL THEN talk.source_address END AS source_at,
                    CASE WHEN target_vm IS NULL THEN talk.destination_address END AS target_at,
                    talk.protocol_identifier AS protocol, talk.destination_port AS port,
                    talk.application_name AS application,
                    class_of({source_side}, {destination_side}, talk.destination_network_kind,
                      source.tenant, destination.tenant) AS class,
                    source.uuid AS source_virtual_station_uuid,
                    source.name AS source_virtual_station_name,
                    source.tenant AS source_virtual_station_tenant,
                    destination.uuid AS destination_virtual_station_uuid,
                    destination.name AS destination_virtual_station_name,
                    destination.tenant AS destination_virtual_station_tenant
             FROM {talks} AS talk {source} {destination}{tenant}",
            source_side = side("source"),
            destination_side = side("destination"),
            source = end("source", "source"),
            destination = end("destination", "destination"),
        )
    }

    fn edges_sql(&self, talks: &str) -> String {
        format!(
            "CREATE OR REPLACE TEMP TABLE edges AS
             SELECT {}, {SUMS} FROM ({}) GROUP BY ALL",
            EDGE.join(", "),
            self.edges_of(talks)
        )
    }

    /// The largest edges of this part and those before it.
    fn chosen_sql(&self, talks: &str, has_before: bool) -> String {
        let limit = self.wanted.conversations;
        let (before, talks_before) = if has_before {
            (
                "UNION ALL BY NAME SELECT * EXCLUDE (number) FROM chosen",
                "UNION ALL BY NAME
                 SELECT own.* FROM chosen_talks AS own
                 SEMI JOIN chosen USING (source, target, protocol, port, application, class)",
            )
        } else {
            ("", "")
        };
        let by = EDGE.map(|name| format!("chosen.{name} IS NOT DISTINCT FROM own.{name}"));
        let named = ["uuid", "name", "tenant"].map(|name| {
            format!("source_virtual_station_{name}, destination_virtual_station_{name}")
        });
        format!(
            "CREATE OR REPLACE TEMP TABLE chosen AS
             WITH largest AS (
               SELECT * FROM edges WHERE octets + octets_back >= coalesce(
                 (SELECT octets + octets_back AS size FROM edges
                  ORDER BY size DESC LIMIT 1 OFFSET {last}), 0)),
             named_edges AS (
               SELECT largest.*, {source} AS source, {target} AS target
               FROM largest LEFT JOIN vms AS source ON source.number = source_vm
                 LEFT JOIN vms AS target ON target.number = target_vm)
             SELECT *, row_number() OVER ({ORDER}) AS number
             FROM (SELECT * FROM (FROM named_edges {before}) {ORDER} LIMIT {limit});
             DROP TABLE edges;
             CREATE OR REPLACE TEMP TABLE chosen_talks AS
             SELECT {keys}, held_from_ns, held_to_ns, {named}, chosen.class AS traffic_class,
                    chosen.source, chosen.target, chosen.protocol, chosen.port, chosen.application,
                    chosen.class, sum(own.packets) AS packets, sum(own.back) AS back,
                    sum(own.octets) AS octets, sum(own.octets_back) AS octets_back, {TIMES}
             FROM ({edges}) AS own JOIN chosen ON {by}
             GROUP BY ALL {talks_before};
             DROP TABLE talks; DROP TABLE named",
            last = limit - 1,
            source = node("source"),
            target = node("target"),
            keys = keys(),
            named = named.join(", "),
            edges = self.edges_of(talks),
            by = by.join(" AND "),
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

/// `named`: ends of talks that the inventory names, as known now, with the number of the VM. Whom it does
/// not know by address or MAC address it cannot name. One end after the other: what a statement needs at
/// the least, however few its rows are, grows with its joins.
fn named_sql(talks: &str) -> String {
    let ends = ["source", "destination"].map(|end| {
        format!(
            "INSERT INTO known_ends
             SELECT DISTINCT probe_id, address_space, {end}_address, {end}_mac, held_from_ns, held_to_ns
             FROM {talks}
             WHERE {end}_address IN (SELECT key FROM known) OR {end}_mac IS NOT NULL"
        )
    });
    format!(
        "CREATE OR REPLACE TEMP TABLE known_ends (probe_id VARCHAR, address_space VARCHAR,
           address VARCHAR, mac VARCHAR, from_ns UBIGINT, to_ns UBIGINT);
         {};
         CREATE OR REPLACE TEMP TABLE named AS
         WITH inventory_now AS (FROM facts)
         SELECT own.*, vms.number FROM ({}) AS own LEFT JOIN vms ON vms.uuid = own.uuid;
         DROP TABLE known_ends",
        ends.join("; "),
        now::known("SELECT DISTINCT * FROM known_ends")
    )
}

/// Name of the node at an end.
fn node(end: &str) -> String {
    format!(
        "CASE WHEN {end}_vm IS NULL THEN 'endpoint:' || space || '/' || {end}_at
              ELSE 'vm:' || {end}.uuid END"
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
