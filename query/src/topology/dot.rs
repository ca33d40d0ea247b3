//! The graph as DOT.
//!
//! Source: the DOT language, <https://graphviz.org/doc/info/lang.html>.

use std::io::Write;

use crate::cell::Cell;

use super::graph::{Edge, Graph, Node};

/// Writes it: nodes with name and kind, edges with what makes them up.
pub(super) fn write(graph: &Graph, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "digraph topology {{\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];")?;
    for (name, node) in &graph.nodes {
        let (id, label, shape) = (quoted(name), quoted(&label(name, node)), shape(&node.kind));
        writeln!(out, "  {id} [label={label}, shape={shape}];")?;
    }
    for edge in &graph.edges {
        let (source, target) = (quoted(&edge.source), quoted(&edge.target));
        let (label, style) = (quoted(&edge_label(edge)), style(edge.kind));
        writeln!(out, "  {source} -> {target} [label={label}, style={style}];")?;
    }
    let left = graph.left_out.first().map_or("0", |(_, value)| value.plain());
    if left != "0" {
        let label = quoted(&format!("{left} conversations with less traffic are left out"));
        writeln!(out, "  label={label};")?;
    }
    Ok(writeln!(out, "}}")?)
}

fn fact<'a>(facts: &'a [(String, Cell)], name: &str) -> &'a str {
    facts.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.plain())
}

fn label(name: &str, node: &Node) -> String {
    let own = name.split_once(':').map_or(name, |(_, own)| own);
    match (fact(&node.facts, "name"), fact(&node.facts, "tenant")) {
        ("", _) => own.to_owned(),
        (name, "") => name.to_owned(),
        (name, tenant) => format!("{tenant}/{name}"),
    }
}

fn edge_label(edge: &Edge) -> String {
    let fact = |name| fact(&edge.facts, name);
    match edge.kind {
        "conversation" => {
            let octets = |name| fact(name).parse::<u64>().unwrap_or(0);
            let octets = octets("octet_delta_count") + octets("reverse_octet_delta_count");
            let port = fact("destination_port");
            format!("{}/{port} {octets} octets", protocol(fact("protocol_identifier")))
        }
        "path" if !fact("delay_mean_ns").is_empty() => format!("{} ns", fact("delay_mean_ns")),
        kind => kind.replace('_', " "),
    }
}

fn protocol(number: &str) -> &str {
    match number {
        "1" => "ICMP",
        "6" => "TCP",
        "17" => "UDP",
        "58" => "ICMPv6",
        "132" => "SCTP",
        other => other,
    }
}

fn shape(kind: &str) -> &'static str {
    match kind {
        "vm" => "box",
        "host" => "box3d",
        "switch" => "component",
        "tap" => "invtriangle",
        "segment" => "cds",
        "tenant" => "folder",
        _ => "ellipse",
    }
}

fn style(kind: &str) -> &'static str {
    match kind {
        "conversation" => "solid",
        "path" => "bold",
        _ => "dashed",
    }
}

/// A text in quotes. Backslashes would begin an escape, and a line break a new line.
fn quoted(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 2);
    safe.push('"');
    for letter in text.chars() {
        match letter {
            '"' => safe.push_str("\\\""),
            '\\' => safe.push_str("\\\\"),
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe.push('"');
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_leave_its_quotes() {
        assert_eq!(quoted("a\"; x [\\\n"), "\"a\\\"; x [\\\\\u{fffd}\"");
    }
}
