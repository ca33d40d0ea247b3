//! What became of facts as JSON, and back.
//!
//! In: [`SubjectDelta`]s. Out: JSON values, of a bounded size each; the same deltas again.
//! Cost: some microseconds a fact.
//! Invariants: sources and domains stand there by name, because their numbers may be others at the next
//! start. What nobody of that name is there for any more is left out and counted by reason; what has
//! another form is an error.
//!
//! A fact is `[source, attribute, of, value, valid_from, valid_to, known_from, known_to]`, with `null` for an
//! end that has not come; `of` is the MAC address of an interface (with `#NUMBER` behind it for further ones
//! of the same address) or the name of a tag. A fact that is gone is
//! `[source, attribute, of, valid_from, known_from]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::change::{Attribute, InterfaceId, Subject, Value};
use super::delta::{Delta, FactKey, SubjectDelta};
use super::fact::Fact;
use super::precedence::SourceName;
use super::source::SourceId;
use super::{Interval, Mac, Segment, Uuid};
use crate::time::Timestamp;

/// Facts of one value at most.
const FACTS_MAX: usize = 256;

/// Numbers by name: sources by their place, and the domains of segments.
#[derive(Clone, Debug)]
pub struct LineNames {
    /// Sources, in order of their numbers.
    pub sources: Arc<[SourceName]>,
    /// Domains, in order of their numbers.
    pub domains: Vec<String>,
}

/// A value that is no delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is missing or of another form")]
pub struct NotLine(&'static str);

/// The values that say a delta: several for one of many facts.
pub fn written(delta: &SubjectDelta, names: &LineNames) -> Vec<Json> {
    let (subject, delta) = match delta {
        SubjectDelta::Forgotten(uuid) => return vec![json!({ "forgotten": uuid.to_string() })],
        SubjectDelta::Facts(subject, delta) => (subject, delta),
    };
    let (kind, name) = match subject {
        Subject::Vm(uuid) => ("vm", uuid.to_string()),
        Subject::Segment(segment) => ("segment", segment.text(&names.domains)),
    };
    let value = |what: &str, items: Vec<Json>| json!({ kind: name.as_str(), what: items });
    let gone = delta.gone.chunks(FACTS_MAX);
    let gone = gone.map(|keys| value("gone", keys.iter().map(|key| names.key(key)).collect()));
    let said = delta.said.chunks(FACTS_MAX);
    let said =
        said.map(|facts| value("facts", facts.iter().map(|fact| names.fact(fact)).collect()));
    let mut values: Vec<Json> = gone.chain(said).collect();
    if values.is_empty() {
        values.push(value("facts", Vec::new()));
    }
    values
}

impl LineNames {
    fn source(&self, source: SourceId) -> &str {
        self.sources.get(usize::from(source.0)).map_or("", |source| source.name.as_ref())
    }

    fn fact(&self, fact: &Fact) -> Json {
        let value = match &fact.value {
            Value::Flag(flag) => json!(flag),
            Value::Text(text) => json!(text.as_ref()),
            Value::Segment(segment) => json!(segment.text(&self.domains)),
            Value::Addresses(addresses) => {
                addresses.iter().map(|address| json!(address.to_string())).collect()
            }
        };
        let end = |time: Interval| (time.to != Interval::ALWAYS.to).then_some(time.to.0);
        json!([
            self.source(fact.source),
            fact.attribute.name(),
            of(&fact.attribute),
            value,
            fact.valid.from.0,
            end(fact.valid),
            fact.known.from.0,
            end(fact.known),
        ])
    }

    fn key(&self, key: &FactKey) -> Json {
        json!([
            self.source(key.source),
            key.attribute.name(),
            of(&key.attribute),
            key.valid_from.0,
            key.known_from.0,
        ])
    }
}

fn of(attribute: &Attribute) -> Json {
    match attribute {
        Attribute::Tag(name) => json!(name.as_ref()),
        other => other.interface().map_or(Json::Null, |id| json!(id.to_string())),
    }
}

/// Reads values.
#[derive(Debug)]
pub struct LineReader<'a> {
    names: &'a LineNames,
    numbers: BTreeMap<&'a str, SourceId>,
    /// What was left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

impl<'a> LineReader<'a> {
    /// With the names of now.
    pub fn new(names: &'a LineNames) -> Self {
        let numbers = (0..).map(SourceId).zip(names.sources.iter());
        let numbers = numbers.map(|(id, source)| (source.name.as_ref(), id)).collect();
        Self { names, numbers, left_out: BTreeMap::new() }
    }

    /// The delta that a value says; `None` where all of it is left out.
    ///
    /// # Errors
    /// [`NotLine`] for a value of another form.
    pub fn read(&mut self, value: &Json) -> Result<Option<SubjectDelta>, NotLine> {
        let uuid = |name: &'static str| {
            let text = value.get(name)?.as_str();
            Some(text.and_then(|text| text.parse::<Uuid>().ok()).ok_or(NotLine(name)))
        };
        if let Some(uuid) = uuid("forgotten") {
            return Ok(Some(SubjectDelta::Forgotten(uuid?)));
        }
        let (facts, gone) = (list(value, "facts")?, list(value, "gone")?);
        let subject = match uuid("vm") {
            Some(uuid) => Subject::Vm(uuid?),
            None => {
                let text = value.get("segment").and_then(Json::as_str).ok_or(NotLine("vm"))?;
                let Some(segment) = Segment::parse(text, &self.names.domains) else {
                    self.leave_out("domain_unknown", facts.len());
                    return Ok(None);
                };
                Subject::Segment(segment)
            }
        };
        let mut delta = Delta::default();
        for fact in facts {
            delta.said.extend(self.fact(fact)?);
        }
        for key in gone {
            delta.gone.extend(self.key(key)?);
        }
        if delta.said.is_empty() && !facts.is_empty() {
            return Ok(None);
        }
        Ok(Some(SubjectDelta::Facts(subject, delta)))
    }

    fn leave_out(&mut self, reason: &'static str, count: usize) {
        *self.left_out.entry(reason).or_default() += count as u64;
    }

    fn fact(&mut self, value: &Json) -> Result<Option<Fact>, NotLine> {
        let Some([source, name, of, value, valid_from, valid_to, known_from, known_to]) =
            value.as_array().and_then(|items| <&[Json; 8]>::try_from(items.as_slice()).ok())
        else {
            return Err(NotLine("a fact"));
        };
        let attribute = attribute(name, of)?;
        let valid = Interval { from: time(valid_from)?, to: end(valid_to)? };
        let known = Interval { from: time(known_from)?, to: end(known_to)? };
        if valid.from >= valid.to || known.from >= known.to {
            return Err(NotLine("the time of a fact"));
        }
        let Some(source) = self.source(source)? else {
            self.leave_out("source_unknown", 1);
            return Ok(None);
        };
        let Some(value) = self.value(&attribute, value)? else {
            self.leave_out("domain_unknown", 1);
            return Ok(None);
        };
        Ok(Some(Fact { attribute, value, valid, known, source }))
    }

    fn key(&mut self, value: &Json) -> Result<Option<FactKey>, NotLine> {
        let Some([source, name, of, valid_from, known_from]) =
            value.as_array().and_then(|items| <&[Json; 5]>::try_from(items.as_slice()).ok())
        else {
            return Err(NotLine("a fact that is gone"));
        };
        let (valid_from, known_from) = (time(valid_from)?, time(known_from)?);
        let attribute = attribute(name, of)?;
        let source = self.source(source)?;
        Ok(source.map(|source| FactKey { source, attribute, valid_from, known_from }))
    }

    fn source(&self, value: &Json) -> Result<Option<SourceId>, NotLine> {
        let name = value.as_str().ok_or(NotLine("the source of a fact"))?;
        Ok(self.numbers.get(name).copied())
    }

    fn value(&self, attribute: &Attribute, value: &Json) -> Result<Option<Value>, NotLine> {
        let wrong = NotLine("the value of a fact");
        let value = match (attribute, value) {
            (Attribute::Exists | Attribute::Attached(_), Json::Bool(flag)) => Value::Flag(*flag),
            (Attribute::Segment(_), Json::String(text)) => {
                return Ok(Segment::parse(text, &self.names.domains).map(Value::Segment));
            }
            (Attribute::Addresses(_) | Attribute::Shared(_), Json::Array(items)) => {
                let address = |item: &Json| item.as_str()?.parse::<IpAddr>().ok();
                let addresses: Option<Vec<_>> = items.iter().map(address).collect();
                Value::addresses(addresses.ok_or(wrong)?)
            }
            (
                Attribute::Name
                | Attribute::Tenant
                | Attribute::Host
                | Attribute::Tag(_)
                | Attribute::Port(_)
                | Attribute::Switch(_)
                | Attribute::Space,
                Json::String(text),
            ) => Value::Text(text.as_str().into()),
            _ => return Err(wrong),
        };
        Ok(Some(value))
    }
}

fn list<'j>(value: &'j Json, name: &'static str) -> Result<&'j [Json], NotLine> {
    match value.get(name) {
        None => Ok(&[]),
        Some(items) => items.as_array().map(Vec::as_slice).ok_or(NotLine(name)),
    }
}

fn time(value: &Json) -> Result<Timestamp, NotLine> {
    value.as_u64().map(Timestamp).ok_or(NotLine("a time"))
}

fn end(value: &Json) -> Result<Timestamp, NotLine> {
    if value.is_null() { Ok(Interval::ALWAYS.to) } else { time(value) }
}

fn attribute(name: &Json, of: &Json) -> Result<Attribute, NotLine> {
    let wrong = NotLine("the attribute of a fact");
    let interface = || {
        let text = of.as_str()?;
        let (mac, number) = text.split_once('#').unwrap_or((text, "0"));
        Some(InterfaceId { mac: mac.parse::<Mac>().ok()?, number: number.parse().ok()? })
    };
    let interface = || interface().ok_or(wrong);
    Ok(match name.as_str().unwrap_or_default() {
        "exists" => Attribute::Exists,
        "name" => Attribute::Name,
        "tenant" => Attribute::Tenant,
        "host" => Attribute::Host,
        "tag" => Attribute::Tag(of.as_str().ok_or(wrong)?.into()),
        "attached" => Attribute::Attached(interface()?),
        "segment" => Attribute::Segment(interface()?),
        "addresses" => Attribute::Addresses(interface()?),
        "shared_addresses" => Attribute::Shared(interface()?),
        "port" => Attribute::Port(interface()?),
        "switch" => Attribute::Switch(interface()?),
        "space" => Attribute::Space,
        _ => return Err(wrong),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{SegmentKind, SourceKind};

    fn names(sources: &[&str], domains: &[&str]) -> LineNames {
        let source =
            |name: &&str| SourceName { kind: SourceKind::Api, name: (*name).into(), rank: 0 };
        LineNames {
            sources: sources.iter().map(source).collect(),
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        }
    }

    fn fact(source: u8, attribute: Attribute, value: Value, to: u64) -> Fact {
        let valid = Interval { from: Timestamp(5), to: Timestamp(to) };
        let known = Interval { from: Timestamp(7), to: Timestamp(u64::MAX) };
        Fact { attribute, value, valid, known, source: SourceId(source) }
    }

    fn all() -> Vec<Fact> {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let (first, second) = (InterfaceId::from(mac), InterfaceId { mac, number: 1 });
        let third = InterfaceId { mac, number: 8_192 };
        let text = |text: &str| Value::Text(text.into());
        let addresses = ["2001:db8::1", "10.0.0.1"].map(|text| text.parse().expect("an address"));
        let segment = Value::Segment(Segment::new(1, SegmentKind::Vxlan, 9));
        vec![
            fact(0, Attribute::Exists, Value::Flag(true), u64::MAX),
            fact(1, Attribute::Name, text("nät\n\"1\""), 9),
            fact(1, Attribute::Tenant, text("acme"), 9),
            fact(1, Attribute::Host, text("host1"), 9),
            fact(0, Attribute::Tag("a#b".into()), text(""), 9),
            fact(0, Attribute::Attached(first), Value::Flag(false), 9),
            fact(0, Attribute::Segment(second), segment, 9),
            fact(0, Attribute::Addresses(second), Value::addresses(addresses), 9),
            fact(0, Attribute::Shared(third), Value::addresses(addresses), 9),
            fact(0, Attribute::Addresses(first), Value::addresses([]), 9),
            fact(0, Attribute::Port(first), text("tap0"), 9),
            fact(0, Attribute::Switch(second), text("host1/br-int"), 9),
        ]
    }

    #[test]
    fn each_fact_reads_back() {
        let names = names(&["file", "api"], &["default", "east"]);
        let vm = Subject::Vm(Uuid(7));
        let gone = all().iter().map(FactKey::of).collect();
        let delta = SubjectDelta::Facts(vm, Delta { gone, said: all() });
        let [first, second] = &*written(&delta, &names) else { panic!("two values") };
        let mut reader = LineReader::new(&names);
        let mut again = Delta::default();
        for value in [first, second] {
            match reader.read(value) {
                Ok(Some(SubjectDelta::Facts(subject, part))) if subject == vm => {
                    again.gone.extend(part.gone);
                    again.said.extend(part.said);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(SubjectDelta::Facts(vm, again), delta);
        assert!(reader.left_out.is_empty());
        let forgotten = SubjectDelta::Forgotten(Uuid(9));
        assert_eq!(reader.read(&written(&forgotten, &names)[0]), Ok(Some(forgotten)));
    }

    #[test]
    fn names_that_are_gone_leave_facts_out_and_moved_ones_do_not() {
        let delta = Delta { gone: Vec::new(), said: all() };
        let delta = SubjectDelta::Facts(Subject::Vm(Uuid(7)), delta);
        let lines = written(&delta, &names(&["file", "api"], &["default", "east"]));
        let now = names(&["api", "ovsdb:h"], &["west", "default"]);
        let mut reader = LineReader::new(&now);
        let Ok(Some(SubjectDelta::Facts(_, read))) = reader.read(&lines[0]) else { panic!() };
        assert_eq!(read.said.len(), 3);
        assert!(read.said.iter().all(|fact| fact.source == SourceId(0)), "the number of now");
        assert_eq!(reader.left_out, [("source_unknown", 9)].into());
        let now = names(&["file", "api"], &["default"]);
        let mut reader = LineReader::new(&now);
        reader.read(&lines[0]).expect("a delta");
        assert_eq!(reader.left_out, [("domain_unknown", 1)].into());
    }

    #[test]
    fn other_forms_are_errors() {
        let names = names(&["api"], &["default"]);
        let mut reader = LineReader::new(&names);
        let id = Uuid(1).to_string();
        for value in [
            json!(null),
            json!({}),
            json!({"vm": "1"}),
            json!({"vm": id, "facts": 3}),
            json!({"vm": id, "facts": [[]]}),
            json!({"vm": id, "facts": [["api", "host", null, 5, 1, null, 1, null]]}),
            json!({"vm": id, "facts": [["api", "host", null, "h", 1, 1, 1, null]]}),
            json!({"vm": id, "facts": [["api", "port", "x", "h", 1, null, 1, null]]}),
            json!({"vm": id, "facts": [["api", "age", null, "h", 1, null, 1, null]]}),
            json!({"vm": id, "gone": [["api", "host", null, 1]]}),
        ] {
            assert!(reader.read(&value).is_err(), "{value}");
        }
    }
}
