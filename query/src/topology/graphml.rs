//! The graph as GraphML.
//!
//! Source: GraphML, <http://graphml.graphdrawing.org/specification.html>; what is left out of a
//! text is what XML 1.0 has no character for.

use std::collections::BTreeMap;
use std::io::Write;

use crate::cell::Cell;

use super::graph::{Facts, Graph};

/// Writes it. Facts are attributes: numbers as `long`, all else as `string`.
pub(super) fn write(graph: &Graph, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(out, "<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">")?;
    let nodes = kinds(graph.nodes.values().map(|node| &node.facts));
    let edges = kinds(graph.edges.iter().map(|edge| &edge.facts));
    let left_out = kinds(std::iter::once(&graph.left_out));
    for (of, facts) in [("node", &nodes), ("edge", &edges), ("graph", &left_out)] {
        if of != "graph" {
            key(out, of, "kind", "string")?;
        }
        for (name, kind) in facts {
            key(out, of, name, kind)?;
        }
    }
    writeln!(out, "<graph id=\"topology\" edgedefault=\"directed\">")?;
    data(out, "graph", &graph.left_out)?;
    for (name, node) in &graph.nodes {
        writeln!(out, "<node id=\"{}\">", escaped(name))?;
        datum(out, "node", "kind", &node.kind)?;
        data(out, "node", &node.facts)?;
        writeln!(out, "</node>")?;
    }
    for edge in &graph.edges {
        let (source, target) = (escaped(&edge.source), escaped(&edge.target));
        writeln!(out, "<edge source=\"{source}\" target=\"{target}\">")?;
        datum(out, "edge", "kind", edge.kind)?;
        data(out, "edge", &edge.facts)?;
        writeln!(out, "</edge>")?;
    }
    Ok(writeln!(out, "</graph>\n</graphml>")?)
}

/// Names of facts, with the kind that all their values have.
fn kinds<'a>(all: impl Iterator<Item = &'a Facts>) -> BTreeMap<&'a str, &'static str> {
    let mut kinds = BTreeMap::new();
    for (name, value) in all.flatten() {
        let kind = kinds.entry(name.as_str()).or_insert("long");
        if *value != Cell::Null && !is_number(value) {
            *kind = "string";
        }
    }
    kinds
}

fn is_number(value: &Cell) -> bool {
    matches!(value, Cell::Literal(text) if text.parse::<i64>().is_ok())
}

fn key(out: &mut impl Write, of: &str, name: &str, kind: &str) -> anyhow::Result<()> {
    let id = escaped(&format!("{of}.{name}"));
    let name = escaped(name);
    Ok(writeln!(out, "<key id=\"{id}\" for=\"{of}\" attr.name=\"{name}\" attr.type=\"{kind}\"/>")?)
}

fn data(out: &mut impl Write, of: &str, facts: &Facts) -> anyhow::Result<()> {
    for (name, value) in facts.iter().filter(|(_, value)| *value != Cell::Null) {
        datum(out, of, name, value.plain())?;
    }
    Ok(())
}

fn datum(out: &mut impl Write, of: &str, name: &str, value: &str) -> anyhow::Result<()> {
    let (name, value) = (escaped(name), escaped(value));
    Ok(writeln!(out, "<data key=\"{of}.{name}\">{value}</data>")?)
}

/// A text as XML takes it; a name may come from a packet.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_leave_its_place() {
        assert_eq!(escaped("a<b>&\"\u{1}\n"), "a&lt;b&gt;&amp;&quot;\u{fffd}\u{fffd}");
    }
}
