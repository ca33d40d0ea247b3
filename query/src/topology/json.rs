//! The graph as one JSON document.
//!
//! Source: RFC 8259.

use std::io::Write;

use crate::cell::{Cell, quoted};

use super::graph::{Facts, Graph};

/// Writes it: `from_ns`, `to_ns` (null where nothing was said), `nodes`, `edges`, `left_out`, `warnings`.
pub(super) fn write(graph: &Graph, out: &mut impl Write) -> anyhow::Result<()> {
    let from = (graph.span.from_ns > 0).then_some(graph.span.from_ns);
    let to = (graph.span.to_ns < u64::MAX).then_some(graph.span.to_ns);
    write!(out, "{{\"from_ns\":{},\"to_ns\":{},\n\"nodes\":[", bound(from), bound(to))?;
    let mut before = "";
    for (name, node) in &graph.nodes {
        let facts = fields(&node.facts);
        let (name, kind) = (quoted(name), quoted(&node.kind));
        write!(out, "{before}\n{{\"id\":{name},\"kind\":{kind}{facts}}}")?;
        before = ",";
    }
    write!(out, "],\n\"edges\":[")?;
    before = "";
    for edge in &graph.edges {
        let (kind, facts) = (quoted(edge.kind), fields(&edge.facts));
        let (source, target) = (quoted(&edge.source), quoted(&edge.target));
        let ends = format!("\"source\":{source},\"target\":{target},\"kind\":{kind}");
        write!(out, "{before}\n{{{ends}{facts}}}")?;
        before = ",";
    }
    let left_out = fields(&graph.left_out);
    let left_out = left_out.strip_prefix(',').unwrap_or_default();
    let warnings: Vec<_> = graph.warnings.iter().map(|warning| quoted(warning)).collect();
    let warnings = warnings.join(",");
    Ok(writeln!(out, "],\n\"left_out\":{{{left_out}}},\n\"warnings\":[{warnings}]}}")?)
}

fn bound(ns: Option<u64>) -> String {
    ns.map_or_else(|| "null".to_owned(), |ns| ns.to_string())
}

fn fields(facts: &Facts) -> String {
    let field = |(name, value): &(String, Cell)| [",", &quoted(name), ":", &value.json()].concat();
    facts.iter().map(field).collect()
}
