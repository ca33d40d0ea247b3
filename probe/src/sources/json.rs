//! The inventory as JSON: what requests to the API say.
//!
//! In: a parsed body. Out: changes; or each fault with the JSON Pointer of its place.
//! Cost: one pass over the body.
//! Invariants: unknown members are faults, as unknown keys of files are. At most [`FAULTS_MAX`] faults
//! are told. What passes here the store takes, but for its bounds on numbers.
//! Source: RFC 8259 (JSON), RFC 6901 (JSON Pointer), RFC 3339 (times).

use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::inventory::{
    ADDRESSES_MAX, Batch, Change, INTERFACES_MAX, InterfaceId, Mac, Scope, Segment, Statement,
    TAGS_MAX, Until, Uuid, joined,
};
use crate::time::Timestamp;

/// Faults that are told at most.
pub const FAULTS_MAX: usize = 100;
/// Events of one request at most.
pub const EVENTS_MAX: usize = 100_000;
/// Characters of a text, as in the inventory file.
const TEXT_CHARS_MAX: usize = 255;

/// What is wrong with a part of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON Pointer of the place; empty for the whole body.
    pub pointer: String,
    /// What is wrong.
    pub error: String,
    /// What would be right.
    pub allowed: String,
}

const MAC: &str = "a MAC address of one interface, such as fa:16:3e:00:00:01";
const EVENTS: &str = "create, update, migrate or terminate";
const OF_VM: [&str; 5] = ["name", "tenant", "host", "tags", "interfaces"];

/// What an event says of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub vm: Uuid,
    /// Version of the VM that it tells of, if the client counts them.
    pub revision: Option<u64>,
    /// What.
    pub changes: Vec<Change>,
}

/// What a body says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Of VMs.
    pub events: Vec<Event>,
    /// Of segments.
    pub spaces: Vec<Change>,
    /// Whether that is everything.
    pub scope: Scope,
}

impl Said {
    /// Of one VM alone.
    pub fn of_vm(event: Event, scope: Scope) -> Self {
        Self { events: vec![event], spaces: Vec::new(), scope }
    }

    /// All changes, in order.
    pub fn into_batch(self) -> Batch {
        let changes = self.events.into_iter().flat_map(|event| event.changes).chain(self.spaces);
        Batch { changes: changes.collect(), scope: self.scope }
    }
}

/// Reads bodies.
pub struct Reader<'a> {
    domains: &'a [String],
    now: Timestamp,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// `domains` are those of the plan; what has no time holds from `now` on.
    pub fn new(domains: &'a [String], now: Timestamp) -> Self {
        Self { domains, now, faults: Vec::new() }
    }

    /// What `{"events": […], "spaces": […]}` says.
    ///
    /// # Errors
    /// All faults.
    pub fn events(mut self, body: &Json) -> Result<Said, Vec<Fault>> {
        let mut said = Said { events: Vec::new(), spaces: Vec::new(), scope: Scope::Some };
        if let Some(body) = self.object(body, "", &["events", "spaces"]) {
            for (at, event) in self.list(body, "", "events", EVENTS_MAX) {
                said.events.extend(self.event(event, &at));
            }
            for (at, space) in self.list(body, "", "spaces", EVENTS_MAX) {
                said.spaces.extend(self.space(space, &at));
            }
        }
        self.finish(said)
    }

    /// Everything that is said of one VM from an instant on.
    ///
    /// # Errors
    /// All faults.
    pub fn vm(mut self, uuid: Uuid, body: &Json) -> Result<Said, Vec<Fault>> {
        let mut members = OF_VM.to_vec();
        members.extend(["at", "until", "revision"]);
        let Some(body) = self.object(body, "", &members) else { return Err(self.faults) };
        let at = self.time(body, "", "at").unwrap_or(self.now);
        let statement = self.statement(body, "", uuid, at).exists(true);
        let revision = self.revision(body, "");
        let changes = self.attributes(body, "", statement).changes();
        self.finish(Said::of_vm(Event { vm: uuid, revision, changes }, Scope::Each { at }))
    }

    fn finish<T>(self, read: T) -> Result<T, Vec<Fault>> {
        if self.faults.is_empty() { Ok(read) } else { Err(self.faults) }
    }

    fn event(&mut self, event: &Json, at: &str) -> Option<Event> {
        let mut members = OF_VM.to_vec();
        members.extend(["vm", "event", "at", "until", "revision"]);
        let event = self.object(event, at, &members)?;
        let uuid = self.parsed::<Uuid>(event, at, "vm", "a UUID").unwrap_or_default();
        let from = self.time(event, at, "at").unwrap_or(self.now);
        let statement = self.statement(event, at, uuid, from);
        let statement = match self.text(event, at, "event").as_deref() {
            Some("create") => statement.exists(true),
            Some("terminate") => statement.exists(false),
            Some("migrate") if !event.contains_key("host") => {
                self.fault(format!("{at}/host"), "is missing", "the host that it migrated to");
                statement
            }
            Some("migrate" | "update") => statement,
            Some(other) => {
                self.fault(format!("{at}/event"), format!("{} is no event", short(other)), EVENTS);
                statement
            }
            None => {
                if !event.contains_key("event") {
                    self.fault(format!("{at}/event"), "is missing", EVENTS);
                }
                statement
            }
        };
        if !event.contains_key("vm") {
            self.fault(format!("{at}/vm"), "is missing", "a UUID");
        }
        let revision = self.revision(event, at);
        let changes = self.attributes(event, at, statement).changes();
        Some(Event { vm: uuid, revision, changes })
    }

    fn revision(&mut self, of: &Map<String, Json>, at: &str) -> Option<u64> {
        let value = of.get("revision")?;
        let revision = value.as_u64();
        if revision.is_none() {
            let allowed = "a whole number that grows with each version of the VM";
            self.fault(format!("{at}/revision"), format!("{} is none", short_json(value)), allowed);
        }
        revision
    }

    fn statement(
        &mut self,
        of: &Map<String, Json>,
        at: &str,
        uuid: Uuid,
        from: Timestamp,
    ) -> Statement {
        let statement = Statement::new(uuid, from);
        let Some(until) = self.time(of, at, "until") else { return statement };
        if until <= from {
            self.fault(format!("{at}/until"), "ends before it begins", "a time after `at`");
        }
        statement.until(Until::At(until))
    }

    fn attributes(&mut self, of: &Map<String, Json>, at: &str, said: Statement) -> Statement {
        let mut said = said;
        if let Some(name) = self.text(of, at, "name") {
            said = said.name(name);
        }
        if let Some(tenant) = self.text(of, at, "tenant") {
            said = said.tenant(tenant);
        }
        if let Some(host) = self.text(of, at, "host") {
            said = said.host(host);
        }
        match of.get("tags") {
            Some(Json::Object(tags)) if tags.len() <= TAGS_MAX => {
                for name in tags.keys() {
                    let place = format!("{at}/tags");
                    self.sound(name, &format!("{place}/{}", escaped(name)));
                    if let Some(value) = self.text(tags, &place, name) {
                        said = said.tag(name.as_str(), value);
                    }
                }
            }
            Some(_) => {
                let allowed = format!("an object of at most {TAGS_MAX} texts");
                self.fault(format!("{at}/tags"), "is none", allowed);
            }
            None => {}
        }
        for (place, interface) in self.list(of, at, "interfaces", INTERFACES_MAX) {
            said = self.interface(interface, &place, said);
        }
        said
    }

    fn interface(&mut self, interface: &Json, at: &str, said: Statement) -> Statement {
        let members =
            ["mac", "addresses", "shared_addresses", "segment", "port", "switch", "attached"];
        let Some(interface) = self.object(interface, at, &members) else { return said };
        let Some(mac) = self.parsed::<Mac>(interface, at, "mac", MAC) else {
            if !interface.contains_key("mac") {
                self.fault(format!("{at}/mac"), "is missing", MAC);
            }
            return said;
        };
        if mac.0[0] & 1 != 0 {
            self.fault(format!("{at}/mac"), format!("{mac} is a group address"), MAC);
        }
        let id = InterfaceId::from(mac);
        let attached = match interface.get("attached") {
            None => true,
            Some(Json::Bool(attached)) => *attached,
            Some(_) => {
                self.fault(format!("{at}/attached"), "is none", "true or false");
                true
            }
        };
        let mut said = said.attached(id, attached);
        if interface.contains_key("addresses") {
            let addresses = self.addresses(interface, at, "addresses");
            said = said.addresses(id, addresses);
        }
        if interface.contains_key("shared_addresses") {
            let addresses = self.addresses(interface, at, "shared_addresses");
            said = said.shared(id, addresses);
        }
        if let Some(segment) = self.segment(interface, at) {
            said = said.segment(id, segment);
        }
        if let Some(port) = self.text(interface, at, "port") {
            said = said.port(id, port);
        }
        if let Some(switch) = self.text(interface, at, "switch") {
            said = said.switch(id, switch);
        }
        said
    }

    fn addresses(&mut self, of: &Map<String, Json>, at: &str, name: &str) -> Vec<IpAddr> {
        const ALLOWED: &str = "a unicast IPv4 or IPv6 address";
        let mut addresses = Vec::new();
        for (place, address) in self.list(of, at, name, ADDRESSES_MAX) {
            let parsed = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
            let broadcast = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            match parsed {
                Some(ip) if !ip.is_multicast() && !ip.is_unspecified() && !broadcast(ip) => {
                    addresses.push(ip);
                }
                _ => self.fault(place, format!("{} is none", short_json(address)), ALLOWED),
            }
        }
        addresses
    }

    fn space(&mut self, space: &Json, at: &str) -> Vec<Change> {
        let members = ["name", "segments", "at"];
        let Some(space) = self.object(space, at, &members) else { return Vec::new() };
        let from = self.time(space, at, "at").unwrap_or(self.now);
        let name = self.text(space, at, "name");
        if !space.contains_key("name") {
            self.fault(format!("{at}/name"), "is missing", "the name of an address space");
        }
        let mut changes = Vec::new();
        for (place, segment) in self.list(space, at, "segments", 4_096) {
            let parsed = segment.as_str().and_then(|text| Segment::parse(text, self.domains));
            match parsed {
                Some(segment) => changes.push(joined(segment, name.as_deref(), from)),
                None => self.no_segment(place, segment),
            }
        }
        changes
    }

    fn segment(&mut self, of: &Map<String, Json>, at: &str) -> Option<Segment> {
        let value = of.get("segment")?;
        let parsed = value.as_str().and_then(|text| Segment::parse(text, self.domains));
        if parsed.is_none() {
            self.no_segment(format!("{at}/segment"), value);
        }
        parsed
    }

    fn no_segment(&mut self, pointer: String, value: &Json) {
        let allowed = "domain/kind/id such as default/vlan/42, with a domain of segments.domains";
        self.fault(pointer, format!("{} names no segment", short_json(value)), allowed);
    }

    fn object<'j>(
        &mut self,
        value: &'j Json,
        at: &str,
        members: &[&str],
    ) -> Option<&'j Map<String, Json>> {
        let allowed = || format!("an object with {}", members.join(", "));
        let Some(object) = value.as_object() else {
            self.fault(at.to_owned(), format!("{} is no object", short_json(value)), allowed());
            return None;
        };
        for name in object.keys().filter(|name| !members.contains(&name.as_str())) {
            let pointer = format!("{at}/{}", escaped(name));
            self.fault(pointer, format!("{} is no member", short(name)), allowed());
        }
        Some(object)
    }

    fn list<'j>(
        &mut self,
        of: &'j Map<String, Json>,
        at: &str,
        name: &str,
        most: usize,
    ) -> Vec<(String, &'j Json)> {
        match of.get(name) {
            None => Vec::new(),
            Some(Json::Array(items)) if items.len() <= most => {
                let place = |(number, item)| (format!("{at}/{name}/{number}"), item);
                items.iter().enumerate().map(place).collect()
            }
            Some(_) => {
                self.fault(format!("{at}/{name}"), "is none", format!("a list of at most {most}"));
                Vec::new()
            }
        }
    }

    fn text(&mut self, of: &Map<String, Json>, at: &str, name: &str) -> Option<String> {
        let value = of.get(name)?;
        let pointer = format!("{at}/{}", escaped(name));
        match value.as_str() {
            Some(text) => {
                self.sound(text, &pointer);
                Some(text.to_owned())
            }
            None => {
                self.fault(pointer, format!("{} is no text", short_json(value)), "a text");
                None
            }
        }
    }

    fn sound(&mut self, text: &str, pointer: &str) {
        let characters = text.chars().count();
        if characters == 0 || characters > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
            let allowed =
                format!("1 to {TEXT_CHARS_MAX} characters, none of them a control character");
            self.fault(pointer.to_owned(), format!("{} is not allowed", short(text)), allowed);
        }
    }

    fn parsed<T: FromStr>(
        &mut self,
        of: &Map<String, Json>,
        at: &str,
        name: &str,
        allowed: &str,
    ) -> Option<T> {
        let value = of.get(name)?;
        let parsed = value.as_str().and_then(|text| text.parse().ok());
        if parsed.is_none() {
            self.fault(format!("{at}/{name}"), format!("{} is none", short_json(value)), allowed);
        }
        parsed
    }

    fn time(&mut self, of: &Map<String, Json>, at: &str, name: &str) -> Option<Timestamp> {
        let value = of.get(name)?;
        let time = match value {
            Json::Number(number) => number.as_u64().map(Timestamp),
            Json::String(text) => parse_time(text),
            _ => None,
        };
        if time.is_none() {
            let allowed =
                "nanoseconds since 1970, or a time with offset such as 2026-01-31T12:00:00Z";
            self.fault(
                format!("{at}/{name}"),
                format!("{} is no time", short_json(value)),
                allowed,
            );
        }
        time
    }

    fn fault(&mut self, pointer: String, error: impl Into<String>, allowed: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { pointer, error: error.into(), allowed: allowed.into() });
        }
    }
}

/// Nanoseconds since the epoch as digits, or RFC 3339 with offset; `None` for anything else, and for
/// times before 1970 or after 2554.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return text.parse().ok().map(Timestamp);
    }
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    let seconds = u64::try_from(time.timestamp()).ok()?;
    let ns = seconds.checked_mul(1_000_000_000)?;
    ns.checked_add(time.timestamp_subsec_nanos().into()).map(Timestamp)
}

/// As a part of a JSON Pointer.
fn escaped(name: &str) -> String {
    let cut: String = name.chars().take(64).collect();
    cut.replace('~', "~0").replace('/', "~1")
}

fn short(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    format!("{cut:?}")
}

fn short_json(value: &Json) -> String {
    match value {
        Json::String(text) => short(text),
        Json::Object(_) => "an object".to_owned(),
        Json::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// A VM that ends.
pub fn ended(vm: Uuid, at: Timestamp, revision: Option<u64>) -> Said {
    let changes = Statement::new(vm, at).exists(false).changes();
    Said::of_vm(Event { vm, revision, changes }, Scope::Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn domains() -> Vec<String> {
        vec!["default".to_owned()]
    }

    fn events(body: &Json) -> Result<Vec<Change>, Vec<Fault>> {
        Ok(Reader::new(&domains(), Timestamp(77)).events(body)?.into_batch().changes)
    }

    #[test]
    fn events_become_changes() {
        let uuid = "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01";
        let mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 1]);
        let body = json!({
            "events": [
                {"vm": uuid, "event": "create", "at": "1970-01-01T00:00:01Z", "name": "web",
                 "tags": {"tier": "front"},
                 "interfaces": [{"mac": mac.to_string(), "addresses": ["10.0.0.1"],
                                 "segment": "default/vlan/7", "switch": "h1/br0"}]},
                {"vm": uuid, "event": "migrate", "at": 5, "host": "h2"},
                {"vm": uuid, "event": "terminate"},
            ],
            "spaces": [{"name": "blue", "segments": ["default/vlan/7"]}],
        });
        let vm: Uuid = uuid.parse().expect("a UUID");
        let segment = Segment::parse("default/vlan/7", &domains()).expect("a segment");
        let mut expected = Statement::new(vm, Timestamp(1_000_000_000))
            .exists(true)
            .name("web")
            .tag("tier", "front")
            .attached(mac, true)
            .addresses(mac, ["10.0.0.1".parse().expect("an address")])
            .segment(mac, segment)
            .switch(mac, "h1/br0")
            .changes();
        expected.extend(Statement::new(vm, Timestamp(5)).host("h2").changes());
        expected.extend(Statement::new(vm, Timestamp(77)).exists(false).changes());
        expected.push(joined(segment, Some("blue"), Timestamp(77)));
        assert_eq!(events(&body), Ok(expected));
    }

    #[test]
    fn each_fault_is_told_with_its_place() {
        let body = json!({
            "events": [
                {"vm": "7", "event": "explode", "at": "noon", "nmae": "x", "name": "", "revision": -1},
                {"event": "migrate", "interfaces": [{"mac": "01:00:5e:00:00:01", "addresses": ["224.0.0.1", 5]}, 3]},
                {"vm": "00000000-0000-0000-0000-000000000001", "event": "create", "at": 9, "until": 9,
                 "tags": [], "interfaces": [{"segment": "west/vlan/1"}]},
            ],
            "extra": 1,
        });
        let faults = events(&body).expect_err("much is wrong");
        let places: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(
            places,
            [
                "/extra",
                "/events/0/nmae",
                "/events/0/vm",
                "/events/0/at",
                "/events/0/event",
                "/events/0/revision",
                "/events/0/name",
                "/events/1/host",
                "/events/1/vm",
                "/events/1/interfaces/0/mac",
                "/events/1/interfaces/0/addresses/0",
                "/events/1/interfaces/0/addresses/1",
                "/events/1/interfaces/1",
                "/events/2/until",
                "/events/2/tags",
                "/events/2/interfaces/0/mac",
            ]
        );
    }

    #[test]
    fn other_bodies_are_faults() {
        for body in [json!(null), json!([]), json!("x"), json!({"events": {}})] {
            assert!(events(&body).is_err(), "{body}");
        }
        assert_eq!(events(&json!({})), Ok(Vec::new()));
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(parse_time("5"), Some(Timestamp(5)));
        assert_eq!(parse_time("1970-01-01T01:00:00.5+01:00"), Some(Timestamp(500_000_000)));
        for text in
            ["", "1969-12-31T23:59:59Z", "2026-01-01T00:00:00", "99999999999999999999", "-1"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
