//! A virtual machine as all sources together have it: what was true of it at which time.
//!
//! In: facts, the order of precedence. Out: [`VmHistory`], which look-ups and records ask.
//! Cost: made anew when a fact of the VM changes, never otherwise.
//! Invariants: the UUID is the identity; all else is an attribute with its times. An interface is
//! connected only while the VM exists and has it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::change::{Attribute, InterfaceId, Value};
use super::fact::{Fact, Facts};
use super::precedence::{Heard, SourceName, between, heard};
use super::source::SourceId;
use super::timeline::Timeline;
use super::{Interval, Mac, Segment, Uuid};
use crate::time::Timestamp;

/// A virtual machine over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmHistory {
    /// Identity.
    pub uuid: Uuid,
    /// The identity's text, made once. Not to be shown of who was only learned.
    pub uuid_text: Arc<str>,
    /// Nobody but packets says anything of it: an endpoint without identity, and no VM.
    pub learned: bool,
    /// Whether it exists; where nobody says so, it does.
    pub exists: Timeline<bool>,
    /// Names, as people call it.
    pub names: Timeline<Arc<str>>,
    /// Names of the tenants that it belongs to.
    pub tenants: Timeline<Arc<str>>,
    /// Hosts that it runs on; a change is a migration.
    pub hosts: Timeline<Arc<str>>,
    /// Tags by name.
    pub tags: BTreeMap<Arc<str>, Timeline<Arc<str>>>,
    /// Interfaces, in order of their MAC addresses.
    pub interfaces: Vec<InterfaceHistory>,
}

/// A network interface over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceHistory {
    /// Which.
    pub id: InterfaceId,
    /// When it is connected, and how.
    pub connections: Timeline<Connection>,
    /// Names of the switch's port.
    pub ports: Timeline<Arc<str>>,
    /// Names of the switch. Where one is known, the interface may still not be connected.
    pub switches: Timeline<Arc<str>>,
}

/// How an interface is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The tenant network; `None` if no source names it.
    pub segment: Option<Segment>,
    /// Its addresses; none if they are not known.
    pub addresses: Arc<[IpAddr]>,
    /// Addresses that it may have as others may.
    pub shared: Arc<[IpAddr]>,
    /// Who says the addresses, or else that it is there.
    pub source: SourceId,
    /// Since when the probe knows it.
    pub known: Timestamp,
}

impl VmHistory {
    /// From the current ones of its facts.
    pub(super) fn new(uuid: Uuid, facts: &Facts, sources: &[SourceName]) -> Self {
        let mut by_attribute: BTreeMap<&Attribute, Vec<&Fact>> = BTreeMap::new();
        for fact in facts.current() {
            by_attribute.entry(&fact.attribute).or_default().push(fact);
        }
        let said = |attribute: &Attribute| {
            by_attribute.get(attribute).map(Vec::as_slice).unwrap_or_default()
        };
        let texts = |attribute: &Attribute| plain(&heard(said(attribute), sources, text));
        let exists = plain(&heard(said(&Attribute::Exists), sources, flag));
        let mut tags = BTreeMap::new();
        let mut interfaces = Vec::new();
        for attribute in by_attribute.keys() {
            match attribute {
                Attribute::Tag(name) => {
                    tags.insert(Arc::clone(name), texts(attribute));
                }
                other => interfaces.extend(other.interface()),
            }
        }
        interfaces.sort_unstable();
        interfaces.dedup();
        let interface = |id: InterfaceId| {
            let parts = Parts {
                attached: heard(said(&Attribute::Attached(id)), sources, flag),
                segments: heard(said(&Attribute::Segment(id)), sources, segment),
                addresses: heard(said(&Attribute::Addresses(id)), sources, addresses),
                shared: heard(said(&Attribute::Shared(id)), sources, addresses),
                ports: heard(said(&Attribute::Port(id)), sources, text),
            };
            let connections = parts.connections(&exists);
            let switches = texts(&Attribute::Switch(id));
            InterfaceHistory { id, connections, ports: plain(&parts.ports), switches }
        };
        Self {
            uuid,
            uuid_text: uuid.to_string().into(),
            learned: is_learned(facts, sources),
            names: texts(&Attribute::Name),
            tenants: texts(&Attribute::Tenant),
            hosts: texts(&Attribute::Host),
            tags,
            interfaces: interfaces.into_iter().map(interface).collect(),
            exists,
        }
    }

    /// The name during a time: the one at its beginning, else the first one in it, else the first ever.
    pub fn name_within(&self, time: Interval) -> Option<&Arc<str>> {
        self.names.within(time).or_else(|| first(&self.names))
    }

    /// The tenant during a time, likewise.
    pub fn tenant_within(&self, time: Interval) -> Option<&Arc<str>> {
        self.tenants.within(time).or_else(|| first(&self.tenants))
    }

    /// The host it runs on at a time.
    pub fn host_at(&self, at: Timestamp) -> Option<&Arc<str>> {
        self.hosts.at(at)
    }

    /// The identity's text for records and answers; `None` for who has none.
    pub fn shown_uuid(&self) -> Option<&Arc<str>> {
        (!self.learned).then_some(&self.uuid_text)
    }

    /// What tells it apart in messages: the identity, or the MAC address that was learned.
    pub fn label(&self) -> String {
        match self.interfaces.first() {
            Some(interface) if self.learned => format!("learned:{}", interface.id.mac),
            _ => self.uuid_text.to_string(),
        }
    }

    /// Whether one of its interfaces ever had that MAC address.
    pub fn has_mac(&self, mac: Mac) -> bool {
        self.interfaces.iter().any(|interface| interface.id.mac == mac)
    }

    /// Whether one of its interfaces has that MAC address, and may have that address as others may, at
    /// some time of a span.
    pub(super) fn shares(&self, mac: Mac, address: IpAddr, time: Interval) -> bool {
        let interfaces = self.interfaces.iter().filter(|interface| interface.id.mac == mac);
        let mut connections = interfaces.flat_map(|interface| interface.connections.spans());
        connections.any(|(valid, connection)| {
            valid.and(time).is_some() && connection.shared.contains(&address)
        })
    }

    /// Since when it is known not to exist any more; `None` while it may.
    pub fn ended(&self) -> Option<Timestamp> {
        let (valid, exists) = self.exists.spans().last()?;
        (!exists && valid.to == Interval::ALWAYS.to).then_some(valid.from)
    }

    /// Its migrations: when it came from which host to which. A time on no host in between is passed
    /// over.
    pub fn migrations(&self) -> impl Iterator<Item = (Timestamp, &Arc<str>, &Arc<str>)> {
        self.hosts.spans().windows(2).filter_map(|pair| {
            let [(_, from), (valid, to)] = pair else { return None };
            (from != to).then_some((valid.from, from, to))
        })
    }
}

/// Whether something is known, and all of it from sources that only fill gaps.
fn is_learned(facts: &Facts, sources: &[SourceName]) -> bool {
    let yields = |fact: &Fact| {
        let source = sources.get(usize::from(fact.source.0));
        source.is_some_and(|source| source.kind.yields())
    };
    facts.current().next().is_some() && facts.current().all(yields)
}

fn first(timeline: &Timeline<Arc<str>>) -> Option<&Arc<str>> {
    timeline.spans().first().map(|(_, value)| value)
}

/// What is said of one interface.
struct Parts {
    attached: Timeline<Heard<bool>>,
    segments: Timeline<Heard<Segment>>,
    addresses: Timeline<Heard<Arc<[IpAddr]>>>,
    shared: Timeline<Heard<Arc<[IpAddr]>>>,
    ports: Timeline<Heard<Arc<str>>>,
}

impl Parts {
    fn connections(&self, exists: &Timeline<bool>) -> Timeline<Connection> {
        let spans = times(&self.attached).chain(times(&self.segments));
        let spans = spans.chain(times(&self.addresses)).chain(times(&self.shared));
        let spans = spans.chain(times(&self.ports));
        let spans = spans.chain(exists.spans().iter().map(|(valid, _)| *valid));
        let mut connections = Timeline::default();
        for time in between(spans) {
            let is_there = exists.at(time.from) != Some(&false);
            if let Some(connection) = self.connection(time.from).filter(|_| is_there) {
                connections.append(time, connection);
            }
        }
        connections
    }

    fn connection(&self, at: Timestamp) -> Option<Connection> {
        let attached = self.attached.at(at);
        if attached.is_some_and(|attached| !attached.value) {
            return None;
        }
        let (segment, addresses) = (self.segments.at(at), self.addresses.at(at));
        let shared = self.shared.at(at);
        let said = [
            addresses.map(|said| (said.source, said.known)),
            shared.map(|said| (said.source, said.known)),
            segment.map(|said| (said.source, said.known)),
            attached.map(|said| (said.source, said.known)),
            self.ports.at(at).map(|said| (said.source, said.known)),
        ];
        let (source, known) = said.into_iter().flatten().next()?;
        Some(Connection {
            segment: segment.map(|said| said.value),
            addresses: addresses.map_or_else(|| [].into(), |said| Arc::clone(&said.value)),
            shared: shared.map_or_else(|| [].into(), |said| Arc::clone(&said.value)),
            source,
            known,
        })
    }
}

fn times<V: Clone + PartialEq>(timeline: &Timeline<V>) -> impl Iterator<Item = Interval> + '_ {
    timeline.spans().iter().map(|(valid, _)| *valid)
}

fn plain<V: Clone + PartialEq>(timeline: &Timeline<Heard<V>>) -> Timeline<V> {
    let mut plain = Timeline::default();
    for (valid, heard) in timeline.spans() {
        plain.append(*valid, heard.value.clone());
    }
    plain
}

fn text(value: &Value) -> Option<Arc<str>> {
    if let Value::Text(text) = value { Some(Arc::clone(text)) } else { None }
}

fn flag(value: &Value) -> Option<bool> {
    if let Value::Flag(flag) = value { Some(*flag) } else { None }
}

fn segment(value: &Value) -> Option<Segment> {
    if let Value::Segment(segment) = value { Some(*segment) } else { None }
}

fn addresses(value: &Value) -> Option<Arc<[IpAddr]>> {
    if let Value::Addresses(addresses) = value { Some(Arc::clone(addresses)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::source::SourceKind;
    use super::*;
    use crate::inventory::Statement;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn sources() -> Vec<SourceName> {
        let source = |(rank, kind)| SourceName { kind, name: "s".into(), rank };
        (0..).zip([SourceKind::Openstack, SourceKind::Libvirt]).map(source).collect()
    }

    fn says(facts: &mut Facts, source: u8, statement: Statement) {
        let known = Timestamp(1_000 + facts.all().len() as u64);
        facts.apply(SourceId(source), &statement.changes(), known, 1_000);
    }

    fn at(at: u64) -> Statement {
        Statement::new(Uuid(1), Timestamp(at))
    }

    fn hosts(facts: &Facts) -> Vec<(u64, String)> {
        let vm = VmHistory::new(Uuid(1), facts, &sources());
        vm.hosts.spans().iter().map(|(valid, host)| (valid.from.0, host.to_string())).collect()
    }

    #[test]
    fn the_first_source_is_heard_where_it_speaks() {
        let mut facts = Facts::default();
        says(&mut facts, 1, at(0).host("low"));
        says(&mut facts, 0, at(10).host("high"));
        assert_eq!(hosts(&facts), [(0, "low".to_owned()), (10, "high".to_owned())]);
        says(&mut facts, 0, at(20).says(Attribute::Host, None));
        let expected = [(0, "low"), (10, "high"), (20, "low")];
        assert_eq!(hosts(&facts), expected.map(|(at, host)| (at, host.to_owned())));
    }

    #[test]
    fn each_source_gives_what_it_knows_of_an_interface() {
        let mut facts = Facts::default();
        let segment = Segment::new(0, crate::inventory::SegmentKind::Vxlan, 7);
        says(&mut facts, 1, at(0).attached(MAC, true));
        says(
            &mut facts,
            0,
            at(5).segment(MAC, segment).addresses(MAC, ["10.0.0.1".parse().expect("")]),
        );
        says(&mut facts, 0, at(30).exists(false));
        let vm = VmHistory::new(Uuid(1), &facts, &sources());
        let [interface] = &*vm.interfaces else { panic!("{vm:?}") };
        let spans = interface.connections.spans();
        let times: Vec<_> = spans.iter().map(|(valid, _)| (valid.from.0, valid.to.0)).collect();
        assert_eq!(times, [(0, 5), (5, 30)]);
        assert_eq!((spans[0].1.segment, spans[0].1.addresses.len()), (None, 0));
        assert_eq!((spans[1].1.segment, spans[1].1.addresses.len()), (Some(segment), 1));
        assert_eq!((spans[0].1.source, spans[1].1.source), (SourceId(1), SourceId(0)));
        assert_eq!(vm.ended(), Some(Timestamp(30)));
    }

    #[test]
    fn a_change_of_host_is_a_migration() {
        let mut facts = Facts::default();
        says(&mut facts, 0, at(0).host("a"));
        says(&mut facts, 0, at(10).host("b"));
        says(&mut facts, 0, at(20).says(Attribute::Host, None));
        says(&mut facts, 0, at(25).host("b"));
        let vm = VmHistory::new(Uuid(1), &facts, &sources());
        let migrations: Vec<_> = vm
            .migrations()
            .map(|(at, from, to)| (at.0, from.to_string(), to.to_string()))
            .collect();
        assert_eq!(migrations, [(10, "a".to_owned(), "b".to_owned())]);
    }
}
