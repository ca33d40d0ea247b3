//! Virtual machines, and endpoints that were only learned, as the API shows them.
//!
//! In: a VM of a snapshot. Out: what is true of it at a time, or all that was ever said of it.
//! Invariants: times are nanoseconds since the epoch; what has not ended has no end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::inventory::{Interval, Inventory, Segment, Value, VmEntry, VmHistory};
use crate::time::Timestamp;

/// A VM at a time.
#[derive(Clone, Debug, Serialize)]
pub(in crate::serve) struct ShownVm {
    /// Null for an endpoint that was only learned.
    pub(in crate::serve) uuid: Option<String>,
    /// Nobody but packets says anything of it.
    pub(in crate::serve) learned: bool,
    pub(in crate::serve) name: Option<String>,
    pub(in crate::serve) tenant: Option<String>,
    pub(in crate::serve) host: Option<String>,
    tags: BTreeMap<String, String>,
    interfaces: Vec<ShownInterface>,
}

#[derive(Clone, Debug, Serialize)]
struct ShownInterface {
    mac: String,
    addresses: Vec<IpAddr>,
    /// Those that it may have as others may.
    shared_addresses: Vec<IpAddr>,
    segment: Option<String>,
    port: Option<String>,
    switch: Option<String>,
}

impl ShownVm {
    /// `None` for a VM that does not exist then, or of which nothing is known then.
    pub(in crate::serve) fn at(vm: &VmHistory, at: Timestamp, domains: &[String]) -> Option<Self> {
        let there = vm.exists.at(at) != Some(&false);
        let known = vm.exists.at(at).is_some()
            || vm.names.at(at).is_some()
            || vm.hosts.at(at).is_some()
            || vm.interfaces.iter().any(|interface| interface.connections.at(at).is_some());
        (there && known).then(|| Self::new(vm, at, domains))
    }

    /// As it is then, whether it exists or not.
    pub(in crate::serve) fn new(vm: &VmHistory, at: Timestamp, domains: &[String]) -> Self {
        let text = |text: Option<&std::sync::Arc<str>>| text.map(ToString::to_string);
        let moment = Interval { from: at, to: at + 1 };
        let tags = vm.tags.iter().filter_map(|(name, values)| {
            values.at(at).map(|value| (name.to_string(), value.to_string()))
        });
        let interfaces = vm.interfaces.iter().filter_map(|interface| {
            let connection = interface.connections.at(at)?;
            Some(ShownInterface {
                mac: interface.id.mac.to_string(),
                addresses: connection.addresses.to_vec(),
                shared_addresses: connection.shared.to_vec(),
                segment: connection.segment.map(|segment| segment.text(domains)),
                port: text(interface.ports.at(at)),
                switch: text(interface.switches.at(at)),
            })
        });
        Self {
            uuid: text(vm.shown_uuid()),
            learned: vm.learned,
            name: text(vm.name_within(moment)),
            tenant: text(vm.tenant_within(moment)),
            host: text(vm.host_at(at)),
            tags: tags.collect(),
            interfaces: interfaces.collect(),
        }
    }
}

/// A VM with its history.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShownHistory {
    uuid: String,
    /// When it came from which host to which.
    migrations: Vec<ShownMigration>,
    /// All that was said, in the order in which it became known.
    facts: Vec<ShownFact>,
}

#[derive(Clone, Debug, Serialize)]
struct ShownMigration {
    at_ns: u64,
    from: String,
    to: String,
}

#[derive(Clone, Debug, Serialize)]
struct ShownFact {
    attribute: &'static str,
    /// Name of a tag, or MAC address of an interface.
    of: Option<String>,
    value: serde_json::Value,
    valid_from_ns: u64,
    valid_to_ns: Option<u64>,
    known_from_ns: u64,
    known_to_ns: Option<u64>,
    source: String,
}

/// All that is kept of a VM.
pub(super) fn history(entry: &VmEntry, inventory: &Inventory, domains: &[String]) -> ShownHistory {
    let migrations = entry.history.migrations().map(|(at, from, to)| ShownMigration {
        at_ns: at.0,
        from: from.to_string(),
        to: to.to_string(),
    });
    let facts = entry.facts.all().iter().map(|fact| {
        let source = inventory.sources().get(usize::from(fact.source.0));
        let of = match &fact.attribute {
            crate::inventory::Attribute::Tag(name) => Some(name.to_string()),
            other => other.interface().map(|id| id.to_string()),
        };
        ShownFact {
            attribute: fact.attribute.name(),
            of,
            value: shown(&fact.value, domains),
            valid_from_ns: fact.valid.from.0,
            valid_to_ns: end(fact.valid),
            known_from_ns: fact.known.from.0,
            known_to_ns: end(fact.known),
            source: source.map(|source| source.name.to_string()).unwrap_or_default(),
        }
    });
    ShownHistory {
        uuid: entry.history.uuid_text.to_string(),
        migrations: migrations.collect(),
        facts: facts.collect(),
    }
}

fn end(time: Interval) -> Option<u64> {
    (time.to != Interval::ALWAYS.to).then_some(time.to.0)
}

fn shown(value: &Value, domains: &[String]) -> serde_json::Value {
    let segment = |segment: &Segment| segment.text(domains);
    match value {
        Value::Flag(flag) => (*flag).into(),
        Value::Text(text) => text.to_string().into(),
        Value::Segment(value) => segment(value).into(),
        Value::Addresses(addresses) => {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().into()
        }
    }
}
