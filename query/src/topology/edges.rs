//! Conversations that are named, and the largest of them.
//!
//! In: table `talks`, rows that stand added up, `facts`, `known`, `changes`, `vms`. Out: tables `largest_talks`,
//! `chosen` and `chosen_talks`.
//! Cost: of rows that stand added up two passes over their ends, one over what few of them differ in, and one over
//! all columns; a talk is in memory once, with numbers in the place of most texts, beside the sum of its edge.
//! Invariants: an end is named for the span in which nothing is known to change about it. A row that stands
//! added up lies in one such span of either end; where it does not, it is read as windows (`rolled.rs`).

use crate::changes::Changes;
use crate::database::Database;
use crate::now;

use super::read::{Wanted, text};
use super::rolled::keys;

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
/// Of the columns that tell talks apart, those that take few values together.
const CONTEXT: [&str; 7] = [
    "probe_id",
    "address_space",
    "segment",
    "tap",
    "application_name",
    "source_network_kind",
    "destination_network_kind",
];
/// What is known of an end beside its number.
const WHO: [&str; 3] = ["uuid", "name", "tenant"];

/// The talks of a part, to be named.
pub(super) struct Named<'a> {
    pub(super) wanted: &'a Wanted<'a>,
    pub(super) changes: &'a Changes,
    /// Beside `talks` the rows that stand added up.
    pub(super) rolled: Option<String>,
}

impl Named<'_> {
    /// `named`: ends that the inventory names, with the number of the VM; `named_rolled`: the ends of rows that
    /// stand added up, as far as the inventory knows their address or MAC address, for each span in which
    /// nothing changes. One end after the other: what a statement needs at the least, however few its rows are,
    /// grows with its joins.
    pub(super) fn name(&self, database: &Database) -> anyhow::Result<()> {
        const ENDS: &str = "probe_id VARCHAR, address_space VARCHAR, address VARCHAR, mac VARCHAR";
        let mut statements = vec![format!(
            "CREATE OR REPLACE TEMP TABLE known_ends ({ENDS}, from_ns UBIGINT, to_ns UBIGINT);
             CREATE OR REPLACE TEMP TABLE rolled_ends ({ENDS})"
        )];
        for end in ["source", "destination"] {
            statements.push(format!(
                "INSERT INTO known_ends
                 SELECT DISTINCT probe_id, address_space, {end}_address, {end}_mac, held_from_ns, held_to_ns
                 FROM talks WHERE {end}_address IN (SELECT key FROM known) OR {end}_mac IS NOT NULL"
            ));
            statements.extend(self.rolled.as_ref().map(|rows| {
                format!(
                    "INSERT INTO rolled_ends
                     SELECT DISTINCT probe_id, address_space, {end}_address, {end}_mac FROM {rows}
                     WHERE {end}_address IN (SELECT key FROM known) OR {end}_mac IN (SELECT key FROM known)"
                )
            }));
        }
        statements.push(format!(
            "CREATE OR REPLACE TEMP TABLE rolled_spans AS
             SELECT * RENAME (mac AS seen_mac),
                    CASE WHEN mac IN (SELECT key FROM known) THEN mac END AS mac
             FROM ({});
             INSERT INTO known_ends
             SELECT DISTINCT probe_id, address_space, address, mac, from_ns, to_ns FROM rolled_spans",
            self.changes.spans("(SELECT DISTINCT * FROM rolled_ends)")
        ));
        statements.push(format!(
            "CREATE OR REPLACE TEMP TABLE named AS
             WITH inventory_now AS (FROM facts)
             SELECT ends.*, known.uuid, known.name, known.tenant, known.tenant_shared, vms.number,
                    row_number() OVER ()::UINTEGER AS who
             FROM (SELECT DISTINCT * FROM known_ends) AS ends
             LEFT JOIN ({}) AS known ON {}
             LEFT JOIN vms ON vms.uuid = known.uuid",
            now::known("SELECT DISTINCT * FROM known_ends"),
            same("known", "ends"),
        ));
        statements.push(self.contexts_sql());
        statements.push(format!(
            "CREATE OR REPLACE TEMP TABLE named_rolled AS
             SELECT named.*, own.seen_mac FROM rolled_spans AS own JOIN named ON {};
             DROP TABLE known_ends; DROP TABLE rolled_ends; DROP TABLE rolled_spans",
            same("named", "own")
        ));
        database.execute(&statements.join("; "))
    }

    /// `contexts`: what few talks differ in, with a number, and numbers of what of it makes an edge.
    fn contexts_sql(&self) -> String {
        let columns = CONTEXT.join(", ");
        let rows = self.rolled.as_ref().map_or_else(String::new, |rows| {
            format!(" UNION SELECT DISTINCT {columns} FROM {rows}")
        });
        format!(
            "CREATE OR REPLACE TEMP TABLE contexts AS
             SELECT *, row_number() OVER ()::UINTEGER AS context,
                    dense_rank() OVER (ORDER BY address_space)::UINTEGER AS space,
                    dense_rank() OVER (ORDER BY application_name)::UINTEGER AS application
             FROM (SELECT DISTINCT {columns} FROM talks{rows})"
        )
    }

    /// Talks with the numbers of those at their ends, and their class, as known now.
    fn talks(&self) -> String {
        let mut parts = vec![Talks::OF_WINDOWS.named()];
        parts.extend(self.rolled.as_ref().map(|rows| {
            Talks {
                rows,
                sums: [
                    "packet_delta_count",
                    "reverse_packet_delta_count",
                    "octet_delta_count",
                    "reverse_octet_delta_count",
                ],
                who: "named_rolled",
                mac: "seen_mac",
                then: ["first_start_ns >= ", "from_ns AND talk.last_end_ns <= ", "to_ns"],
            }
            .named()
        }));
        let tenant = self.wanted.tenant.map_or_else(String::new, |tenant| {
            let tenant = text(tenant);
            format!(" WHERE source_tenant = {tenant} OR destination_tenant = {tenant}")
        });
        format!(
            "SELECT * EXCLUDE (source_tenant, destination_tenant) FROM ({}){tenant}",
            parts.join(" UNION ALL ")
        )
    }

    /// `largest_talks`: what the largest edges are made of, beside the sums of all.
    pub(super) fn largest_sql(&self) -> String {
        let by = EDGE.map(|name| format!("largest.{name} IS NOT DISTINCT FROM own.{name}"));
        format!(
            "CREATE OR REPLACE TEMP TABLE largest_talks AS
             WITH named_talks AS MATERIALIZED ({talks}),
             edge_talks AS NOT MATERIALIZED (
               SELECT * EXCLUDE (space),
                    CASE WHEN source_vm IS NULL OR target_vm IS NULL THEN space END AS space,
                    CASE WHEN source_vm IS NULL THEN source_address END AS source_at,
                    CASE WHEN target_vm IS NULL THEN destination_address END AS target_at
               FROM named_talks),
             edges AS MATERIALIZED (
               SELECT {edge}, sum(octets::HUGEINT + octets_back) AS size FROM edge_talks GROUP BY ALL),
             largest AS (
               SELECT * FROM edges WHERE size >= coalesce(
                 (SELECT size FROM edges ORDER BY size DESC LIMIT 1 OFFSET {last}), 0)),
             everything AS (
               SELECT sum(packets::HUGEINT + back) AS all_packets,
                      sum(octets::HUGEINT + octets_back) AS all_octets
               FROM named_talks)
             SELECT own.*, everything.*, (SELECT count(*) FROM edges) AS all_count
             FROM edge_talks AS own JOIN largest ON {by} CROSS JOIN everything",
            talks = self.talks(),
            edge = EDGE.join(", "),
            last = self.wanted.conversations - 1,
            by = by.join(" AND "),
        )
    }

    /// The largest edges of this part and those before it.
    pub(super) fn chosen_sql(&self, has_before: bool) -> String {
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
        let by = EDGE.map(|name| {
            let own = match name {
                "space" => "CASE WHEN own.space IS NOT NULL THEN context.address_space END",
                "application" => "context.application_name",
                _ => &format!("own.{name}"),
            };
            format!("chosen.{name} IS NOT DISTINCT FROM {own}")
        });
        let who = WHO.map(|it| {
            format!(
                "source.{it} AS source_virtual_station_{it},
                 destination.{it} AS destination_virtual_station_{it}"
            )
        });
        let [held_from, held_to] = self.changes.held_of(&["source", "destination"]);
        let own_keys = keys()
            .split(", ")
            .map(|key| match key.strip_suffix("_mac") {
                // One that the inventory does not know says nothing.
                Some(end) => format!("{end}.mac AS {key}"),
                None if CONTEXT.contains(&key) => format!("context.{key}"),
                None if key == "protocol_identifier" => format!("own.protocol AS {key}"),
                None if key == "destination_port" => format!("own.port AS {key}"),
                None => format!("own.{key}"),
            })
            .collect::<Vec<_>>();
        format!(
            "CREATE OR REPLACE TEMP TABLE chosen AS
             WITH largest AS (SELECT {edge}, {SUMS} FROM largest_talks GROUP BY ALL),
             named_edges AS (
               SELECT largest.* REPLACE (spaces.name AS space, applications.name AS application),
                      {source} AS source, {target} AS target
               FROM largest LEFT JOIN vms AS source ON source.number = source_vm
                 LEFT JOIN vms AS target ON target.number = target_vm
                 LEFT JOIN (SELECT DISTINCT space, address_space AS name FROM contexts) AS spaces
                   ON spaces.space = largest.space
                 JOIN (SELECT DISTINCT application, application_name AS name FROM contexts)
                   AS applications ON applications.application = largest.application)
             SELECT *, row_number() OVER ({ORDER}) AS number
             FROM (SELECT * FROM (FROM named_edges {before}) {ORDER} LIMIT {limit});
             CREATE OR REPLACE TEMP TABLE chosen_talks AS
             SELECT {own_keys}, {held_from} AS held_from_ns, {held_to} AS held_to_ns, {who}, chosen.class AS traffic_class,
                    chosen.source, chosen.target, chosen.protocol, chosen.port, chosen.application,
                    chosen.class, sum(own.packets) AS packets, sum(own.back) AS back,
                    sum(own.octets) AS octets, sum(own.octets_back) AS octets_back, {TIMES}
             FROM largest_talks AS own JOIN contexts AS context ON context.context = own.context
               JOIN chosen ON {by}
               LEFT JOIN named AS source ON source.who = own.source_who
               LEFT JOIN named AS destination ON destination.who = own.destination_who
             GROUP BY ALL {talks_before};
             DROP TABLE largest_talks; DROP TABLE talks; DROP TABLE named; DROP TABLE named_rolled;
             DROP TABLE contexts; DROP TABLE IF EXISTS rolled_part",
            edge = EDGE.join(", "),
            source = node("source"),
            target = node("target"),
            own_keys = own_keys.join(", "),
            who = who.join(", "),
            by = by.join(" AND "),
        )
    }
}

/// Talks, and how those at their ends are found.
struct Talks<'a> {
    rows: &'a str,
    /// Packets and octets, forward and reverse.
    sums: [&'static str; 4],
    /// Table of those at the ends.
    who: &'static str,
    /// Its column of MAC addresses as the talks have them.
    mac: &'static str,
    /// What a row of it is for a talk of its time; before and between the columns of `who`.
    then: [&'static str; 3],
}

impl Talks<'_> {
    const OF_WINDOWS: Talks<'static> = Talks {
        rows: "talks",
        sums: ["packets", "back", "octets", "octets_back"],
        who: "named",
        mac: "mac",
        then: ["held_from_ns = ", "from_ns AND talk.held_to_ns = ", "to_ns"],
    };

    /// With the numbers of those at their ends.
    fn named(&self) -> String {
        let Self { rows, sums, who, mac, then: [before, between, behind] } = self;
        let join = |end: &str| {
            format!(
                "LEFT JOIN {who} AS {end} ON {end}.probe_id = talk.probe_id
                   AND {end}.address_space = talk.address_space
                   AND {end}.address = talk.{end}_address
                   AND {end}.{mac} IS NOT DISTINCT FROM talk.{end}_mac
                   AND talk.{before}{end}.{between}{end}.{behind}"
            )
        };
        let side = |end: &str| {
            format!(
                "side_of(talk.{end}_network_kind, {end}.uuid, {end}.tenant, {end}.tenant_shared)"
            )
        };
        let names = Self::OF_WINDOWS.sums;
        let sums =
            sums.iter().zip(names).map(|(sum, name)| format!("talk.{sum}::UBIGINT AS {name}"));
        format!(
            "SELECT talk.source_address, talk.destination_address,
                    talk.protocol_identifier AS protocol, talk.destination_port AS port,
                    contexts.context, contexts.space, contexts.application,
                    {sums},
                    talk.first_start_ns, talk.last_start_ns, talk.first_end_ns, talk.last_end_ns,
                    source.number AS source_vm, destination.number AS target_vm,
                    source.who AS source_who, destination.who AS destination_who,
                    source.tenant AS source_tenant, destination.tenant AS destination_tenant,
                    class_of({source_side}, {destination_side}, talk.destination_network_kind,
                      source.tenant, destination.tenant) AS class
             FROM {rows} AS talk JOIN contexts ON {context} {source} {destination}",
            context = CONTEXT
                .map(|it| format!("contexts.{it} IS NOT DISTINCT FROM talk.{it}"))
                .join(" AND "),
            sums = sums.collect::<Vec<_>>().join(", "),
            source_side = side("source"),
            destination_side = side("destination"),
            source = join("source"),
            destination = join("destination"),
        )
    }
}

/// That rows of two tables are of one end and one span.
fn same(one: &str, two: &str) -> String {
    let columns = ["probe_id", "address_space", "address", "from_ns", "to_ns"];
    let same = columns.map(|name| format!("{one}.{name} = {two}.{name}"));
    format!("{} AND {one}.mac IS NOT DISTINCT FROM {two}.mac", same.join(" AND "))
}

/// Name of the node at an end.
fn node(end: &str) -> String {
    format!(
        "CASE WHEN {end}_vm IS NULL THEN 'endpoint:' || spaces.name || '/' || {end}_at
              ELSE 'vm:' || {end}.uuid END"
    )
}
