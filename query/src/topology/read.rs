//! The graph from the records.
//!
//! In: tables. Out: [`Graph`].
//! Invariants: who had an address is answered as it is known now. A VM is its UUID, whatever its address was; an address that no inventory named is
//! itself, in its address space. A conversation is seen by the tap that counted it and by the taps
//! that its followed packets passed.

use anyhow::Context as _;

use crate::cell::Cell;
use crate::database::Database;

use super::graph::{Graph, named};
use super::span::Span;

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub(super) span: Span,
    pub(super) tenant: Option<&'a str>,
    pub(super) conversations: u32,
}

type Row = Vec<Cell>;

/// Reads it.
pub(super) fn graph(database: &Database, wanted: &Wanted<'_>) -> anyhow::Result<Graph> {
    let mut graph = Graph { span: wanted.span, ..Graph::default() };
    conversations(database, wanted, &mut graph)?;
    inventory(database, wanted, &mut graph)?;
    taps(database, wanted.span, &mut graph)?;
    paths(database, wanted.span, &mut graph)?;
    Ok(graph)
}

/// Conversations of the span, by their ends and service, with the taps that saw them.
fn conversations_sql(wanted: &Wanted<'_>) -> String {
    let in_span = in_span(wanted.span);
    let tenant = wanted.tenant.map_or_else(String::new, |tenant| {
        let tenant = text(tenant);
        format!(
            " AND (source_virtual_station_tenant = {tenant} \
             OR destination_virtual_station_tenant = {tenant})"
        )
    });
    format!(
        "WITH ways AS (
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
           FROM windows_now WHERE {in_span}{tenant} GROUP BY ALL),
         edges AS (
           SELECT CASE WHEN source_uuid IS NULL
                       THEN 'endpoint:' || sums.address_space || '/' || source_address
                       ELSE 'vm:' || source_uuid END AS source,
                  CASE WHEN destination_uuid IS NULL
                       THEN 'endpoint:' || sums.address_space || '/' || destination_address
                       ELSE 'vm:' || destination_uuid END AS target,
                  max(source_name) AS source_name, max(destination_name) AS target_name,
                  max(source_tenant) AS source_tenant, max(destination_tenant) AS target_tenant,
                  sums.protocol, port, application, class,
                  list_sort(list_distinct(flatten(list(segments)))) AS segments,
                  list_sort(list_distinct(flatten(list(list_concat(sums.taps, seen.taps))))) AS taps,
                  list_sort(list_distinct(flatten(list(coalesce(seen.ways, []))))) AS ways,
                  sum(packets) AS packets, sum(back) AS back, sum(octets) AS octets,
                  sum(octets_back) AS octets_back, min(first) AS first, max(last) AS last
           FROM sums LEFT JOIN seen ON seen.address_space = sums.address_space
             AND seen.a = source_address AND seen.b = destination_address
             AND seen.protocol = sums.protocol
           GROUP BY ALL)
         SELECT source, target, source_name, target_name, source_tenant, target_tenant,
                protocol, port, application, class, segments, taps, ways,
                packets::UBIGINT, back::UBIGINT, octets::UBIGINT, octets_back::UBIGINT, first, last
         FROM edges
         ORDER BY octets + octets_back DESC, source, target, protocol, port, application, class"
    )
}

fn conversations(
    database: &Database,
    wanted: &Wanted<'_>,
    graph: &mut Graph,
) -> anyhow::Result<()> {
    const FACTS: [&str; 13] = [
        "protocol_identifier",
        "destination_port",
        "application_name",
        "traffic_class",
        "segments",
        "seen_by",
        "ways",
        "packet_delta_count",
        "reverse_packet_delta_count",
        "octet_delta_count",
        "reverse_octet_delta_count",
        "first_window_start_ns",
        "last_window_end_ns",
    ];
    let mut left = [0_u128; 3];
    let mut kept = 0;
    database.each(&conversations_sql(wanted), |row: Row| {
        if kept == wanted.conversations {
            let number = |place: usize| row[place].plain().parse().unwrap_or(0);
            left[0] += 1;
            left[1] += number(13) + number(14);
            left[2] += number(15) + number(16);
            return Ok(());
        }
        kept += 1;
        let [source, target, source_name, target_name, source_tenant, target_tenant] =
            row.first_chunk().context("a row of conversations")?;
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
        let names = FACTS.iter().map(|name| (*name).to_owned());
        let facts = names.zip(row[6..].iter().cloned()).collect();
        let ends = [(source.plain(), ""), (target.plain(), "")];
        graph.edge("conversation", ends, facts);
        Ok(())
    })?;
    let names = ["conversations", "packets", "octets"].map(str::to_owned);
    graph.left_out = names.into_iter().zip(left.map(|it| Cell::Literal(it.to_string()))).collect();
    Ok(())
}

/// The name that an end is shown with: the VM's, else the address behind its space.
fn name_of(end: &str, name: &Cell) -> Cell {
    if *name != Cell::Null {
        return name.clone();
    }
    Cell::Text(end.rsplit('/').next().unwrap_or(end).to_owned())
}

/// What the inventory says, as it is known now, of all VMs that were there.
fn inventory(database: &Database, wanted: &Wanted<'_>, graph: &mut Graph) -> anyhow::Result<()> {
    let Span { from_ns, to_ns } = wanted.span;
    let tenant =
        wanted.tenant.map_or_else(String::new, |tenant| format!(" AND tenant = {}", text(tenant)));
    let sql = format!(
        "SELECT DISTINCT uuid, name, tenant, host, segment,
                valid_from_ns, valid_to_ns
         FROM inventory_now WHERE uuid IS NOT NULL AND valid_from_ns < {to_ns}
           AND (valid_to_ns IS NULL OR valid_to_ns > {from_ns}){tenant}
         ORDER BY ALL"
    );
    let mut last = String::new();
    database.each(&sql, |row: Row| {
        let [uuid, name, tenant, host, segment, from, to] =
            row.first_chunk().context("a row of the inventory")?;
        let vm = named("vm", uuid.plain());
        let node = graph.node(&vm, "vm");
        if node.facts.is_empty() {
            node.facts.push(("name".to_owned(), name.clone()));
            node.facts.push(("tenant".to_owned(), tenant.clone()));
        }
        let belongs = format!("{vm} {}", tenant.plain());
        if belongs != last && !tenant.plain().is_empty() {
            let whose = named("tenant", tenant.plain());
            graph.edge("belongs_to", [(&vm, "vm"), (&whose, "tenant")], Vec::new());
            last = belongs;
        }
        let while_it_was = || {
            vec![("valid_from_ns".to_owned(), from.clone()), ("valid_to_ns".to_owned(), to.clone())]
        };
        for (kind, node, own) in [("runs_on", "host", host), ("attached_to", "segment", segment)] {
            if *own != Cell::Null {
                let place = named(node, own.plain());
                graph.edge(kind, [(&vm, "vm"), (&place, node)], while_it_was());
            }
        }
        Ok(())
    })?;
    graph.edges.dedup_by(|one, other| {
        (one.kind, &one.source, &one.target, &one.facts)
            == (other.kind, &other.source, &other.target, &other.facts)
    });
    Ok(())
}

fn taps(database: &Database, span: Span, graph: &mut Graph) -> anyhow::Result<()> {
    let Span { from_ns, to_ns } = span;
    let sql = format!(
        "SELECT tap, max(host), any_value(port), sum(packet_count)::UBIGINT,
                sum(octet_count)::UBIGINT
         FROM taps WHERE window_start_ns >= {from_ns} AND window_start_ns < {to_ns}
         GROUP BY tap ORDER BY tap"
    );
    database.each(&sql, |row: Row| {
        let [tap, host, port, packets, octets] = row.first_chunk().context("a row of taps")?;
        let name = named("tap", tap.plain());
        graph.node(&name, "tap").facts =
            [("name", tap), ("port", port), ("packet_count", packets), ("octet_count", octets)]
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .into();
        if *host != Cell::Null {
            let place = named("host", host.plain());
            graph.edge("stands_on", [(&name, "tap"), (&place, "host")], Vec::new());
        }
        Ok(())
    })
}

/// Ways between taps with their delay and loss, weighted by packets.
fn paths(database: &Database, span: Span, graph: &mut Graph) -> anyhow::Result<()> {
    const FACTS: [&str; 7] = [
        "sampled_packet_count",
        "matched_packet_count",
        "network_loss_packet_count",
        "mirror_loss_packet_count",
        "unresolved_loss_packet_count",
        "delay_sample_count",
        "delay_mean_ns",
    ];
    let in_span = in_span(span);
    let sql = format!(
        "SELECT from_tap, to_tap, sum(sampled_packet_count)::UBIGINT,
                sum(matched_packet_count)::UBIGINT, sum(network_loss_packet_count)::UBIGINT,
                sum(mirror_loss_packet_count)::UBIGINT,
                sum(unresolved_loss_packet_count)::UBIGINT,
                sum(delay_sample_count)::UBIGINT AS samples,
                CASE WHEN samples > 0 THEN round(sum(delay_mean_ns::DOUBLE * delay_sample_count)
                     / samples)::BIGINT END
         FROM path WHERE scope = 'taps' AND {in_span} GROUP BY ALL ORDER BY ALL"
    );
    database.each(&sql, |row: Row| {
        let [from, to] = row.first_chunk().context("a row of paths")?;
        let names = FACTS.iter().map(|name| (*name).to_owned());
        let facts = names.zip(row[2..].iter().cloned()).collect();
        let (from, to) = (named("tap", from.plain()), named("tap", to.plain()));
        graph.edge("path", [(&from, "tap"), (&to, "tap")], facts);
        Ok(())
    })
}

/// Windows that lie in the span, in part at least.
fn in_span(Span { from_ns, to_ns }: Span) -> String {
    format!("window_end_ns > {from_ns} AND window_start_ns < {to_ns}")
}

/// A text of SQL.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
