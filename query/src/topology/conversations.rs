//! Conversations of a span, with who saw them and what they passed.
//!
//! In: the chosen talks, `path`, `taps`, `inventory`. Out: edges of the graph, and the nodes at their ends.
//! Cost: a pass over `path`; memory for what is given.
//! Invariants: a conversation is seen by the tap that counted it and by the taps that its followed
//! packets passed. Its path names, in order, the switch of the sender, those of the taps (of each pair of
//! taps that its packets passed while its ends stood where they did, or of the one that counted it), and
//! that of the receiver, as they were then; a host where its switch is not known; nothing where neither
//! is. Of an end that moved in a window, the place counts that agrees with the taps.

use anyhow::Context as _;

use crate::cell::{Cell, quoted};
use crate::database::Database;

use super::graph::{Graph, named};
use super::read::{Row, Wanted};
use super::stored::Stored;
use super::talks;
use crate::span::Span;

/// What is said of a conversation, in the order of the columns behind its ends.
const FACTS: [&str; 15] = [
    "protocol_identifier",
    "destination_port",
    "application_name",
    "traffic_class",
    "segments",
    "seen_by",
    "ways",
    "hosts",
    "path",
    "packet_delta_count",
    "reverse_packet_delta_count",
    "octet_delta_count",
    "reverse_octet_delta_count",
    "first_window_start_ns",
    "last_window_end_ns",
];
/// Columns before these: both ends with name and tenant.
const ENDS: usize = 6;

/// Where the ends of the chosen talks stood, and the taps that their packets passed: `passed`, by edge.
fn passed_sql(span: Span) -> String {
    let Span { from_ns, to_ns } = span;
    format!(
        "places AS (
           SELECT DISTINCT probe_id, uuid, address, mac, host, coalesce(switch, host) AS place,
                  valid_from_ns, valid_to_ns
           FROM facts WHERE coalesce(switch, host) IS NOT NULL),
         ends AS (
           SELECT DISTINCT probe_id, source_virtual_station_uuid AS uuid, source_address AS address,
                  source_mac AS mac, held_from_ns, held_to_ns
           FROM talks
           UNION
           SELECT DISTINCT probe_id, destination_virtual_station_uuid, destination_address,
                  destination_mac, held_from_ns, held_to_ns
           FROM talks),
         stood AS (
           SELECT DISTINCT ends.*, places.host, places.place
           FROM ends JOIN places ON places.probe_id = ends.probe_id AND places.uuid = ends.uuid
             AND places.valid_from_ns < ends.held_to_ns
             AND (places.valid_to_ns IS NULL OR places.valid_to_ns > ends.held_from_ns)
             AND (places.address = ends.address OR places.mac = ends.mac OR places.mac IS NULL)),
         standing AS (
           SELECT probe_id, tap, max(host) AS host, max(switch) AS switch
           FROM taps WHERE window_start_ns >= {from_ns} AND window_start_ns < {to_ns}
           GROUP BY ALL),
         combined AS (
           SELECT talks.edge, sender.host AS source_host, receiver.host AS destination_host,
                  [sender.place, {first}, {last}, receiver.place] AS places,
                  coalesce((first.switch = sender.place OR first.host = sender.host)::UTINYINT, 0)
                  + CASE WHEN hops.to_tap IS NULL THEN
                      coalesce((first.switch = receiver.place
                                OR first.host = receiver.host)::UTINYINT, 0)
                    ELSE coalesce((last.switch = receiver.place
                                   OR last.host = receiver.host)::UTINYINT, 0) END AS agreement,
                  talks.number, hops.from_tap, hops.to_tap
           FROM talks
           LEFT JOIN stood AS sender ON {of_source}
           LEFT JOIN stood AS receiver ON {of_destination}
           LEFT JOIN hops ON hops.number = talks.number
           LEFT JOIN standing AS first ON first.probe_id = talks.probe_id
             AND first.tap = coalesce(hops.from_tap, talks.tap)
           LEFT JOIN standing AS last ON last.probe_id = talks.probe_id
             AND last.tap = hops.to_tap),
         -- Of who moved in a window, that place counts at which the taps saw him.
         on_the_way AS (
           SELECT DISTINCT edge, source_host, destination_host, places
           FROM (SELECT * FROM combined
                 QUALIFY agreement = max(agreement) OVER (PARTITION BY number, from_tap, to_tap))),
         passed AS (
           SELECT edge, list(DISTINCT places) AS paths,
                  list_concat(
                    coalesce(list(DISTINCT source_host) FILTER (source_host IS NOT NULL), []),
                    coalesce(list(DISTINCT destination_host)
                      FILTER (destination_host IS NOT NULL), [])) AS hosts
           FROM on_the_way GROUP BY ALL)",
        first = place_of_tap("first"),
        last = place_of_tap("last"),
        of_source = stood_at("sender", "source"),
        of_destination = stood_at("receiver", "destination"),
    )
}

/// The switch of a tap; else its host, where it is none of the ends': those say more.
fn place_of_tap(tap: &str) -> String {
    format!(
        "CASE WHEN {tap}.switch IS NOT NULL THEN {tap}.switch
              WHEN {tap}.host = sender.host OR {tap}.host = receiver.host THEN NULL
              ELSE {tap}.host END"
    )
}

/// That a row of `stood` is of an end of a talk.
fn stood_at(alias: &str, end: &str) -> String {
    format!(
        "{alias}.probe_id = talks.probe_id
             AND {alias}.uuid = talks.{end}_virtual_station_uuid
             AND {alias}.address = talks.{end}_address
             AND {alias}.mac IS NOT DISTINCT FROM talks.{end}_mac
             AND {alias}.held_from_ns = talks.held_from_ns
             AND {alias}.held_to_ns = talks.held_to_ns"
    )
}

/// Tables of the chosen talks, of the pairs at their ends, and of the ways that their packets took: `talks`,
/// `pairs`, `both_ways`, `hops`, `ways`.
fn keep_ways(database: &Database, stored: &Stored, span: Span) -> anyhow::Result<()> {
    let in_span = span.windows();
    database.execute(
        "CREATE OR REPLACE TEMP TABLE talks AS
           SELECT own.*, chosen.number AS edge, row_number() OVER () AS number
           FROM chosen_talks AS own JOIN chosen ON own.source = chosen.source
             AND own.target = chosen.target AND own.protocol_identifier = chosen.protocol
             AND own.destination_port = chosen.port AND own.application_name = chosen.application
             AND own.traffic_class = chosen.class;
         CREATE TEMP TABLE pairs AS
           SELECT DISTINCT edge, address_space, source_address AS a, destination_address AS b,
                  protocol_identifier AS protocol
           FROM talks;
         CREATE TEMP TABLE both_ways AS
           SELECT address_space, a, b, protocol FROM pairs
           UNION SELECT address_space, b, a, protocol FROM pairs;
         CREATE TEMP TABLE talk_spans AS
           SELECT number, probe_id, address_space, source_address, destination_address,
                  protocol_identifier, first_start_ns, last_start_ns, first_end_ns, last_end_ns
           FROM talks",
    )?;
    let hops = format!(
        "SELECT DISTINCT talk_spans.number AS number, path.from_tap AS from_tap, path.to_tap AS to_tap
         FROM path JOIN talk_spans ON talk_spans.probe_id = path.probe_id
           AND talk_spans.address_space = path.address_space
           AND talk_spans.source_address = path.source_address
           AND talk_spans.destination_address = path.destination_address
           AND talk_spans.protocol_identifier = path.protocol_identifier
         WHERE path.window_start_ns BETWEEN talk_spans.first_start_ns AND talk_spans.last_start_ns
           AND path.window_end_ns BETWEEN talk_spans.first_end_ns AND talk_spans.last_end_ns
           AND path.scope = 'endpoints' AND path.matched_packet_count > 0 AND {in_span}"
    );
    stored.keep(database, "hops", &hops, &["talk_spans"])?;
    let ways = format!(
        "SELECT DISTINCT path.address_space AS address_space, path.source_address AS a,
                path.destination_address AS b, path.protocol_identifier AS protocol,
                path.from_tap AS from_tap, path.to_tap AS to_tap
         FROM path
         WHERE (path.address_space, path.source_address, path.destination_address,
                path.protocol_identifier) IN (SELECT address_space, a, b, protocol FROM both_ways)
           AND path.scope = 'endpoints' AND path.matched_packet_count > 0 AND {in_span}"
    );
    stored.keep(database, "ways", &ways, &["both_ways"])
}

/// The chosen conversations with who saw them and what they passed.
fn sql(span: Span) -> String {
    let passed = passed_sql(span);
    format!(
        "WITH
         seen AS (
           SELECT edge, unnest([from_tap, to_tap]) AS tap, from_tap || ' > ' || to_tap AS way
           FROM pairs JOIN ways USING (address_space, a, b, protocol)
           UNION ALL
           SELECT edge, unnest([from_tap, to_tap]), NULL
           FROM pairs JOIN ways ON ways.address_space = pairs.address_space
             AND ways.a = pairs.b AND ways.b = pairs.a AND ways.protocol = pairs.protocol
           UNION ALL
           SELECT DISTINCT edge, tap, NULL FROM talks),
         seen_by AS (
           SELECT edge, list_sort(list(DISTINCT tap)) AS taps,
                  list_sort(coalesce(list(DISTINCT way) FILTER (way IS NOT NULL), [])) AS ways
           FROM seen GROUP BY ALL),
         said AS (
           SELECT edge, list_sort(list(DISTINCT segment)) AS segments,
                  max(source_virtual_station_name) AS source_name,
                  max(destination_virtual_station_name) AS target_name,
                  max(source_virtual_station_tenant) AS source_tenant,
                  max(destination_virtual_station_tenant) AS target_tenant,
                  min(first_start_ns) AS first, max(last_end_ns) AS last
           FROM talks GROUP BY ALL),
         {passed}
         SELECT source, target, source_name, target_name, source_tenant, target_tenant,
                protocol, port, application, class, segments, taps, ways,
                list_sort(list_distinct(hosts)) AS hosts, paths,
                packets::UBIGINT, back::UBIGINT, octets::UBIGINT, octets_back::UBIGINT, first, last
         FROM chosen
         JOIN said ON said.edge = chosen.number
         JOIN seen_by ON seen_by.edge = chosen.number
         JOIN passed ON passed.edge = chosen.number
         ORDER BY chosen.number"
    )
}

/// Adds them to the graph, those with the most octets first; the rest is counted.
pub(super) fn conversations(
    database: &Database,
    stored: &Stored,
    wanted: &Wanted<'_>,
    graph: &mut Graph,
) -> anyhow::Result<()> {
    let left = talks::choose(database, stored, wanted)?;
    keep_ways(database, stored, wanted.span)?;
    database.each(&sql(wanted.span), |row: Row| {
        let [source, target, source_name, target_name, source_tenant, target_tenant] =
            row.first_chunk::<ENDS>().context("a row of conversations")?;
        for (end, name, tenant) in
            [(source, source_name, source_tenant), (target, target_name, target_tenant)]
        {
            let kind = end.plain().split(':').next().unwrap_or_default();
            let node = graph.node(end.plain(), kind);
            if node.facts.is_empty() {
                node.facts.push(("name".to_owned(), name_of(end.plain(), name)));
                node.facts.push(("tenant".to_owned(), tenant.clone()));
            }
            if *tenant != Cell::Null {
                graph.node(&named("tenant", tenant.plain()), "tenant");
            }
        }
        let values = row.get(ENDS..).context("a row of conversations")?;
        let facts = FACTS.iter().zip(values).map(|(name, value)| {
            let value = if *name == "path" { paths(value)? } else { value.clone() };
            Ok(((*name).to_owned(), value))
        });
        let facts = facts.collect::<anyhow::Result<_>>()?;
        let ends = [(source.plain(), ""), (target.plain(), "")];
        graph.edge("conversation", ends, facts);
        Ok(())
    })?;
    let names = ["conversations", "packets", "octets"].map(str::to_owned);
    graph.left_out = names.into_iter().zip(left.map(|it| Cell::Literal(it.to_string()))).collect();
    Ok(())
}

/// Lists of places as SQL gives them, without what is not known, and each place once where it comes
/// several times in a row.
fn paths(lists: &Cell) -> anyhow::Result<Cell> {
    let lists: Vec<Vec<Option<String>>> =
        serde_json::from_str(lists.plain()).context("the places of a conversation")?;
    let paths = lists.into_iter().map(|list| {
        let mut places: Vec<String> = list.into_iter().flatten().collect();
        places.dedup();
        places
    });
    let mut paths: Vec<Vec<String>> = paths.filter(|places| !places.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    let lists = paths.iter().map(|places| {
        let names: Vec<_> = places.iter().map(|name| quoted(name)).collect();
        format!("[{}]", names.join(","))
    });
    Ok(Cell::Literal(format!("[{}]", lists.collect::<Vec<_>>().join(","))))
}

/// The name that an end is shown with: the VM's, else the address behind its space.
fn name_of(end: &str, name: &Cell) -> Cell {
    if *name != Cell::Null {
        return name.clone();
    }
    Cell::Text(end.rsplit('/').next().unwrap_or(end).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_each_place_once_and_nothing_unknown() {
        let of = |lists: &str| paths(&Cell::Literal(lists.to_owned())).expect("lists").json();
        assert_eq!(
            of(
                r#"[["a/b",null,"c/b","c/b"],["a/b","c/b",null,null],[null,null,null,null],["x",null,null,"x"]]"#
            ),
            r#"[["a/b","c/b"],["x"]]"#
        );
        assert_eq!(of("[]"), "[]");
        // What was left and entered again was left.
        assert_eq!(of(r#"[["a","b",null,"a"]]"#), r#"[["a","b","a"]]"#);
    }
}
