//! The graph itself.
//!
//! Invariants: a node stands once; edges name nodes that are there; order is by kind and name.

use std::collections::BTreeMap;

use crate::cell::Cell;

use crate::span::Span;

/// What a node or an edge says beside its name, in the order in which it is written.
pub(super) type Facts = Vec<(String, Cell)>;

/// Something that is there.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// tenant, host, switch, tap, segment, vm or endpoint (an address that no inventory names).
    pub(super) kind: String,
    /// What it says of itself.
    pub(super) facts: Facts,
}

/// How two of them belong together.
#[derive(Debug)]
pub(super) struct Edge {
    /// conversation, path, `belongs_to`, `runs_on`, `attached_to`, `plugged_into` or `stands_on`.
    pub(super) kind: &'static str,
    /// Name of the node it begins at.
    pub(super) source: String,
    /// Name of the node it ends at.
    pub(super) target: String,
    /// What it says of itself.
    pub(super) facts: Facts,
}

/// A graph of one span of time.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// The span that was asked for.
    pub(super) span: Span,
    /// By name.
    pub(super) nodes: BTreeMap<String, Node>,
    /// In order.
    pub(super) edges: Vec<Edge>,
    /// Conversations, packets and octets that found no room.
    pub(super) left_out: Facts,
    /// What it was made without.
    pub(super) warnings: Vec<String>,
}

impl Graph {
    /// Makes sure that a node is there; what is known of it already stays.
    pub(super) fn node(&mut self, name: &str, kind: &str) -> &mut Node {
        let node = self.nodes.entry(name.to_owned()).or_default();
        if node.kind.is_empty() {
            kind.clone_into(&mut node.kind);
        }
        node
    }

    /// Adds an edge, and a node where one of its ends is not there yet.
    pub(super) fn edge(&mut self, kind: &'static str, ends: [(&str, &str); 2], facts: Facts) {
        for (name, kind) in ends {
            self.node(name, kind);
        }
        let [source, target] = ends.map(|(name, _)| name.to_owned());
        self.edges.push(Edge { kind, source, target, facts });
    }
}

/// A name of a node: its kind, and what is its own among these.
pub(super) fn named(kind: &str, own: &str) -> String {
    format!("{kind}:{own}")
}
