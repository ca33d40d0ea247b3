//! The graph from the records.
//!
//! In: tables, and `facts`, what the inventory says as it is known now. Out: [`Graph`].
//! Invariants: who had an address is answered as it is known now. A VM is its UUID, whatever its
//! address was; an address that no inventory named is itself, in its address space. A switch is its name;
//! where that is `HOST/BRIDGE` it stands on the host.

use anyhow::Context as _;

use crate::cell::Cell;
use crate::database::Database;

use super::conversations;
use super::graph::{Graph, named};
use super::stored::Stored;
use crate::span::Span;

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub(super) span: Span,
    pub(super) tenant: Option<&'a str>,
    pub(super) conversations: u32,
}

pub(super) type Row = Vec<Cell>;

/// Reads it.
pub(super) fn graph(
    database: &Database,
    stored: &Stored,
    wanted: &Wanted<'_>,
) -> anyhow::Result<Graph> {
    let mut graph = Graph { span: wanted.span, ..Graph::default() };
    conversations::conversations(database, stored, wanted, &mut graph)?;
    inventory(database, wanted, &mut graph)?;
    taps(database, wanted.span, &mut graph)?;
    paths(database, wanted.span, &mut graph)?;
    Ok(graph)
}

/// What the inventory says, as it is known now, of all VMs that were there.
fn inventory(database: &Database, wanted: &Wanted<'_>, graph: &mut Graph) -> anyhow::Result<()> {
    let Span { from_ns, to_ns } = wanted.span;
    let tenant =
        wanted.tenant.map_or_else(String::new, |tenant| format!(" AND tenant = {}", text(tenant)));
    let there = format!(
        "FROM facts WHERE uuid IS NOT NULL AND valid_from_ns < {to_ns}
           AND (valid_to_ns IS NULL OR valid_to_ns > {from_ns}){tenant}"
    );
    let sql = format!("SELECT DISTINCT uuid, name, tenant {there} ORDER BY ALL");
    let mut last = String::new();
    database.each(&sql, |row: Row| {
        let [uuid, name, tenant] = row.first_chunk().context("a row of the inventory")?;
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
        Ok(())
    })?;
    for (kind, place) in
        [("runs_on", "host"), ("attached_to", "segment"), ("plugged_into", "switch")]
    {
        stays(database, &there, (kind, place), graph)?;
    }
    switches_stand(graph);
    Ok(())
}

/// Where VMs were from when to when: one edge a stay, however many rows of the inventory tell of it.
fn stays(
    database: &Database,
    there: &str,
    (kind, place): (&'static str, &str),
    graph: &mut Graph,
) -> anyhow::Result<()> {
    // A switch is entered by one interface, a host and a segment by the whole VM.
    let by = if place == "switch" { "mac" } else { "NULL" };
    // A stay begins where nothing before it lasted until then.
    let sql = format!(
        "WITH stays AS (
           SELECT DISTINCT uuid, {by} AS mac, {place} AS place, valid_from_ns AS since,
                  coalesce(valid_to_ns, 18446744073709551615) AS until
           {there} AND {place} IS NOT NULL),
         begun AS (
           SELECT *, coalesce(since > max(until) OVER before, true) AS begins FROM stays
           WINDOW before AS (PARTITION BY uuid, mac, place ORDER BY since, until
             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
         numbered AS (
           SELECT *, sum(begins::INTEGER) OVER (PARTITION BY uuid, mac, place
             ORDER BY since, until) AS number
           FROM begun)
         SELECT uuid, mac, place, min(since) AS since,
                nullif(max(until), 18446744073709551615) AS until
         FROM numbered GROUP BY uuid, mac, place, number ORDER BY ALL"
    );
    database.each(&sql, |row: Row| {
        let [uuid, mac, own, since, until] = row.first_chunk().context("a stay")?;
        let mut facts = vec![
            ("valid_from_ns".to_owned(), since.clone()),
            ("valid_to_ns".to_owned(), until.clone()),
        ];
        facts.extend((*mac != Cell::Null).then(|| ("mac".to_owned(), mac.clone())));
        let (vm, place_name) = (named("vm", uuid.plain()), named(place, own.plain()));
        graph.edge(kind, [(&vm, "vm"), (&place_name, place)], facts);
        Ok(())
    })
}

fn taps(database: &Database, span: Span, graph: &mut Graph) -> anyhow::Result<()> {
    let Span { from_ns, to_ns } = span;
    let sql = format!(
        "SELECT tap, max(host), max(switch), any_value(port), sum(packet_count)::UBIGINT,
                sum(octet_count)::UBIGINT
         FROM taps WHERE window_start_ns >= {from_ns} AND window_start_ns < {to_ns}
         GROUP BY tap ORDER BY tap"
    );
    database.each(&sql, |row: Row| {
        let [tap, host, switch, port, packets, octets] =
            row.first_chunk().context("a row of taps")?;
        let name = named("tap", tap.plain());
        graph.node(&name, "tap").facts =
            [("name", tap), ("port", port), ("packet_count", packets), ("octet_count", octets)]
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .into();
        for (kind, own) in [("host", host), ("switch", switch)] {
            if *own != Cell::Null {
                let place = named(kind, own.plain());
                graph.edge("stands_on", [(&name, "tap"), (&place, kind)], Vec::new());
            }
        }
        Ok(())
    })?;
    switches_stand(graph);
    Ok(())
}

/// Joins each switch to its host, once.
fn switches_stand(graph: &mut Graph) {
    let switches = graph.nodes.iter_mut().filter(|(_, node)| node.kind == "switch");
    let mut hosts = Vec::new();
    for (name, node) in switches.filter(|(_, node)| node.facts.is_empty()) {
        let own = name.split_once(':').map_or(name.as_str(), |(_, own)| own);
        // A bridge has no slash in its name, for an interface of the kernel has the same.
        let host = own.rsplit_once('/').map(|(host, _)| host);
        node.facts.push(("name".to_owned(), Cell::Text(own.to_owned())));
        hosts.extend(host.map(|host| (name.clone(), named("host", host))));
    }
    for (switch, host) in hosts {
        graph.edge("stands_on", [(&switch, "switch"), (&host, "host")], Vec::new());
    }
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
    let in_span = span.windows();
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

/// A text of SQL.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
