//! Conversations of a span, with who saw them and what they passed.
//!
//! In: `windows`, `path`, `taps`, `inventory`. Out: edges of the graph, and the nodes at their ends.
//! Invariants: a conversation is seen by the tap that counted it and by the taps that its followed
//! packets passed. Its path names, in order, the switch of the sender, those of the taps (of each pair of
//! taps that its packets passed, or of the one that counted it), and that of the receiver, as they were
//! in the window; a host where its switch is not known; nothing where neither is. Of an end that moved in
//! a window, the place counts that agrees with the taps.

use anyhow::Context as _;

use crate::cell::{Cell, quoted};
use crate::database::Database;

use super::graph::{Graph, named};
use super::read::{Row, Wanted, in_span, text};
use super::span::Span;

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

/// Where both ends, and the taps between them, stood in each window: `passed`, by endpoints and protocol.
fn passed_sql(span: Span) -> String {
    let in_span = in_span(span);
    let Span { from_ns, to_ns } = span;
    format!(
        "places AS (
           SELECT DISTINCT probe_id, uuid, address, mac, host, coalesce(switch, host) AS place,
                  valid_from_ns, valid_to_ns
           FROM inventory_now
           WHERE coalesce(switch, host) IS NOT NULL AND valid_from_ns < {to_ns}
             AND (valid_to_ns IS NULL OR valid_to_ns > {from_ns})),
         ends AS (
           SELECT DISTINCT probe_id, source_virtual_station_uuid AS uuid, source_address AS address,
                  source_mac AS mac, window_start_ns, window_end_ns
           FROM seen_windows
           UNION
           SELECT DISTINCT probe_id, destination_virtual_station_uuid, destination_address,
                  destination_mac, window_start_ns, window_end_ns
           FROM seen_windows),
         stood AS (
           SELECT DISTINCT ends.*, places.host, places.place
           FROM ends JOIN places ON places.probe_id = ends.probe_id AND places.uuid = ends.uuid
             AND places.valid_from_ns < ends.window_end_ns
             AND (places.valid_to_ns IS NULL OR places.valid_to_ns > ends.window_start_ns)
             AND (places.address = ends.address OR places.mac = ends.mac OR places.mac IS NULL)),
         hops AS (
           SELECT DISTINCT probe_id, window_start_ns, address_space, source_address,
                  destination_address, protocol_identifier, from_tap, to_tap
           FROM path WHERE scope = 'endpoints' AND matched_packet_count > 0 AND {in_span}),
         standing AS (
           SELECT probe_id, tap, max(host) AS host, max(switch) AS switch
           FROM taps WHERE window_start_ns >= {from_ns} AND window_start_ns < {to_ns}
           GROUP BY ALL),
         combined AS (
           SELECT seen_windows.address_space, seen_windows.source_address,
                  seen_windows.destination_address,
                  seen_windows.source_virtual_station_uuid AS source_uuid,
                  seen_windows.destination_virtual_station_uuid AS destination_uuid,
                  seen_windows.protocol_identifier AS protocol,
                  sender.host AS source_host, receiver.host AS destination_host,
                  [sender.place, {first}, {last}, receiver.place] AS places,
                  coalesce((first.switch = sender.place OR first.host = sender.host)::UTINYINT, 0)
                  + CASE WHEN hops.to_tap IS NULL THEN
                      coalesce((first.switch = receiver.place
                                OR first.host = receiver.host)::UTINYINT, 0)
                    ELSE coalesce((last.switch = receiver.place
                                   OR last.host = receiver.host)::UTINYINT, 0) END AS agreement,
                  seen_windows.number, hops.from_tap, hops.to_tap
           FROM seen_windows
           LEFT JOIN stood AS sender ON {of_source}
           LEFT JOIN stood AS receiver ON {of_destination}
           LEFT JOIN hops ON hops.probe_id = seen_windows.probe_id
             AND hops.window_start_ns = seen_windows.window_start_ns
             AND hops.address_space = seen_windows.address_space
             AND hops.source_address = seen_windows.source_address
             AND hops.destination_address = seen_windows.destination_address
             AND hops.protocol_identifier = seen_windows.protocol_identifier
           LEFT JOIN standing AS first ON first.probe_id = seen_windows.probe_id
             AND first.tap = coalesce(hops.from_tap, seen_windows.tap)
           LEFT JOIN standing AS last ON last.probe_id = seen_windows.probe_id
             AND last.tap = hops.to_tap),
         -- Of who moved in a window, that place counts at which the taps saw him.
         on_the_way AS (
           SELECT DISTINCT * EXCLUDE (agreement, number, from_tap, to_tap)
           FROM (SELECT * FROM combined
                 QUALIFY agreement = max(agreement) OVER (PARTITION BY number, from_tap, to_tap))),
         passed AS (
           SELECT address_space, source_address, destination_address, source_uuid,
                  destination_uuid, protocol, list(DISTINCT places) AS paths,
                  list(DISTINCT source_host) FILTER (source_host IS NOT NULL) AS source_hosts,
                  list(DISTINCT destination_host) FILTER (destination_host IS NOT NULL)
                    AS destination_hosts
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

/// That a row of `stood` is of an end of a window.
fn stood_at(alias: &str, end: &str) -> String {
    format!(
        "{alias}.probe_id = seen_windows.probe_id
             AND {alias}.uuid = seen_windows.{end}_virtual_station_uuid
             AND {alias}.address = seen_windows.{end}_address
             AND {alias}.mac IS NOT DISTINCT FROM seen_windows.{end}_mac
             AND {alias}.window_start_ns = seen_windows.window_start_ns
             AND {alias}.window_end_ns = seen_windows.window_end_ns"
    )
}

/// Conversations of the span, by their ends and service.
fn sql(wanted: &Wanted<'_>) -> String {
    let in_span = in_span(wanted.span);
    let tenant = wanted.tenant.map_or_else(String::new, |tenant| {
        let tenant = text(tenant);
        format!(
            " AND (source_virtual_station_tenant = {tenant} \
             OR destination_virtual_station_tenant = {tenant})"
        )
    });
    let passed = passed_sql(wanted.span);
    format!(
        "WITH seen_windows AS MATERIALIZED (
           SELECT *, row_number() OVER () AS number FROM windows_now WHERE {in_span}{tenant}),
         ways AS (
           SELECT address_space, source_address AS a, destination_address AS b,
                  protocol_identifier AS protocol, from_tap, to_tap,
                  sum(matched_packet_count) AS matched
           FROM path WHERE scope = 'endpoints' AND {in_span} GROUP BY ALL HAVING matched > 0),
         seen AS (
           SELECT address_space, a, b, protocol, list(DISTINCT tap) AS taps,
                  list(DISTINCT way) FILTER (way IS NOT NULL) AS ways
           FROM (SELECT address_space, a, b, protocol, unnest([from_tap, to_tap]) AS tap,
                        from_tap || ' > ' || to_tap AS way FROM ways
                 UNION ALL
                 SELECT address_space, b, a, protocol, unnest([from_tap, to_tap]), NULL FROM ways)
           GROUP BY ALL),
         {passed},
         sums AS (
           SELECT address_space, source_address, destination_address,
                  source_virtual_station_uuid AS source_uuid,
                  destination_virtual_station_uuid AS destination_uuid,
                  any_value(source_virtual_station_name) AS source_name,
                  any_value(destination_virtual_station_name) AS destination_name,
                  any_value(source_virtual_station_tenant) AS source_tenant,
                  any_value(destination_virtual_station_tenant) AS destination_tenant,
                  protocol_identifier AS protocol, destination_port AS port,
                  application_name AS application, traffic_class AS class,
                  list(DISTINCT segment) AS segments, list(DISTINCT tap) AS taps,
                  sum(packet_delta_count) AS packets, sum(reverse_packet_delta_count) AS back,
                  sum(octet_delta_count) AS octets, sum(reverse_octet_delta_count) AS octets_back,
                  min(window_start_ns) AS first, max(window_end_ns) AS last
           FROM seen_windows GROUP BY ALL),
         edges AS (
           SELECT CASE WHEN sums.source_uuid IS NULL
                       THEN 'endpoint:' || sums.address_space || '/' || sums.source_address
                       ELSE 'vm:' || sums.source_uuid END AS source,
                  CASE WHEN sums.destination_uuid IS NULL
                       THEN 'endpoint:' || sums.address_space || '/' || sums.destination_address
                       ELSE 'vm:' || sums.destination_uuid END AS target,
                  max(source_name) AS source_name, max(destination_name) AS target_name,
                  max(source_tenant) AS source_tenant, max(destination_tenant) AS target_tenant,
                  sums.protocol, port, application, class,
                  list_sort(list_distinct(flatten(list(segments)))) AS segments,
                  list_sort(list_distinct(flatten(list(list_concat(sums.taps, seen.taps))))) AS taps,
                  list_sort(list_distinct(flatten(list(coalesce(seen.ways, []))))) AS ways,
                  list_sort(list_distinct(flatten(list(list_concat(
                    coalesce(passed.source_hosts, []),
                    coalesce(passed.destination_hosts, [])))))) AS hosts,
                  list_sort(list_distinct(flatten(list(passed.paths)))) AS paths,
                  sum(packets) AS packets, sum(back) AS back, sum(octets) AS octets,
                  sum(octets_back) AS octets_back, min(first) AS first, max(last) AS last
           FROM sums
           LEFT JOIN seen ON seen.address_space = sums.address_space
             AND seen.a = sums.source_address AND seen.b = sums.destination_address
             AND seen.protocol = sums.protocol
           JOIN passed ON passed.address_space = sums.address_space
             AND passed.source_address = sums.source_address
             AND passed.destination_address = sums.destination_address
             AND passed.source_uuid IS NOT DISTINCT FROM sums.source_uuid
             AND passed.destination_uuid IS NOT DISTINCT FROM sums.destination_uuid
             AND passed.protocol = sums.protocol
           GROUP BY ALL)
         SELECT source, target, source_name, target_name, source_tenant, target_tenant,
                protocol, port, application, class, segments, taps, ways, hosts, paths,
                packets::UBIGINT, back::UBIGINT, octets::UBIGINT, octets_back::UBIGINT, first, last
         FROM edges
         ORDER BY octets + octets_back DESC, source, target, protocol, port, application, class"
    )
}

/// Adds them to the graph, those with the most octets first; the rest is counted.
pub(super) fn conversations(
    database: &Database,
    wanted: &Wanted<'_>,
    graph: &mut Graph,
) -> anyhow::Result<()> {
    let mut left = [0_u128; 3];
    let mut kept = 0;
    database.each(&sql(wanted), |row: Row| {
        let fact = |name: &str| {
            let place = FACTS.iter().position(|known| *known == name);
            place.and_then(|place| row.get(ENDS + place)).context("a row of conversations")
        };
        if kept == wanted.conversations {
            let number = |name| Ok::<u128, anyhow::Error>(fact(name)?.plain().parse()?);
            left[0] += 1;
            left[1] += number("packet_delta_count")? + number("reverse_packet_delta_count")?;
            left[2] += number("octet_delta_count")? + number("reverse_octet_delta_count")?;
            return Ok(());
        }
        kept += 1;
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
        let facts = FACTS.iter().map(|name| {
            let value = fact(name)?;
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
