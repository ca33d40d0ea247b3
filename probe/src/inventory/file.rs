//! The inventory file: tenants and virtual machines.
//!
//! In: TOML or JSON text, the domains and joined spaces of the configuration. Out: [`InventoryData`], or
//! every problem at once as `FILE:LINE: key: what is wrong and what is allowed`.
//! Cost: one parse and a sort of all addresses; runs at start and on reload only. The text has at
//! most [`INVENTORY_BYTES_MAX`].
//! Invariants: never panics; an address belongs to one VM at a time within an address space.
//! Read again, what stands without a time holds from that reading on and what it was before stays
//! history; where times are written, they are the whole history, and correct what was said before.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::json_file::AsToml;
use crate::config::document::{self, Report, Section, key, quoted, tables};
use crate::config::{Given, Kind, Problems, SpacePlan, Table};
use crate::inventory::{
    Address, AddressSpace, Attribute, Change, Interface, InterfaceId, Interval, Mac, Placement,
    SPACES_MAX, Segment, Subject, Until, Uuid, Value, Vm,
};
use crate::time::Timestamp;

/// Largest inventory file in bytes.
pub const INVENTORY_BYTES_MAX: u64 = 64 << 20;
/// Virtual machines of one file at most, and tenants.
pub const VMS_MAX: usize = 1_000_000;

/// What may be written in an inventory file.
pub static ROOT: Table = Table {
    path: "",
    meaning: "",
    keys: &[tables(&TENANT, VMS_MAX), tables(&SPACE, SPACES_MAX), tables(&VM, VMS_MAX)],
};

static SPACE: Table = Table {
    path: "space",
    meaning: "Segments between which a tenant's router passes packets, so that their addresses are \
              unique among them; one table each.",
    keys: &[
        key("name", Kind::Text, Given::Required("\"acme-router\""), "", "Name, unique."),
        key(
            "segments",
            Kind::List(&Kind::Segment, 4_096),
            Given::Required("[\"default/vxlan/1\", \"default/vxlan/2\"]"),
            "",
            "Tenant networks; each in one space at most.",
        ),
    ],
};

static TENANT: Table = Table {
    path: "tenant",
    meaning: "Somebody whom virtual machines belong to; one table each.",
    keys: &[key("name", Kind::Text, Given::Required("\"acme\""), "", "Name, unique.")],
};

static VM: Table = Table {
    path: "vm",
    meaning: "A virtual machine; one table each.",
    keys: &[
        key(
            "uuid",
            Kind::Uuid,
            Given::Required("\"5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01\""),
            "",
            "Identity, unique.",
        ),
        key("name", Kind::Text, Given::Required("\"web-1\""), "", "Name in records."),
        key("tenant", Kind::Text, Given::Required("\"acme\""), "", "Name of a tenant."),
        key("host", Kind::Text, Given::Nothing("\"host1\""), "", "Host it runs on."),
        SWITCH,
        VALID_FROM,
        VALID_TO,
        tables(&INTERFACE, 64),
        tables(&PLACEMENT, 10_000),
    ],
};

static INTERFACE: Table = Table {
    path: "vm.interface",
    meaning: "A network interface of the VM above it.",
    keys: &[
        key("mac", Kind::Mac, Given::Required("\"fa:16:3e:00:00:01\""), "", "MAC address."),
        key(
            "addresses",
            Kind::List(&Kind::Address, 256),
            Given::Default("[]"),
            "",
            "IP addresses. Without any, all that the MAC address sends is the VM's.",
        ),
        key(
            "shared_addresses",
            Kind::List(&Kind::Address, 256),
            Given::Default("[]"),
            "",
            "IP addresses that it may have as others may: of a virtual router, a cluster. Of several the one \
             that is seen with it, by its MAC address, has it.",
        ),
        key(
            "segment",
            Kind::Segment,
            Given::Default("\"default/none\""),
            "",
            "Tenant network that it is connected to.",
        ),
        VALID_FROM,
        VALID_TO,
    ],
};

static PLACEMENT: Table = Table {
    path: "vm.placement",
    meaning: "A time that the VM above it spends on a host; migration starts a new one.",
    keys: &[
        key("host", Kind::Text, Given::Required("\"host1\""), "", "Name of the host."),
        SWITCH,
        VALID_FROM,
        VALID_TO,
    ],
};

const SWITCH: document::Key = key(
    "switch",
    Kind::Text,
    Given::Nothing("\"host1/br0\""),
    "",
    "Switch that its interfaces are plugged in at there; a bridge of a host is HOST/BRIDGE.",
);
const VALID_FROM: document::Key =
    key("valid_from", Kind::Time, Given::Nothing("1970-01-01T00:00:00Z"), "", "First instant.");
const VALID_TO: document::Key =
    key("valid_to", Kind::Time, Given::Nothing("2554-01-01T00:00:00Z"), "", "First instant after.");

/// What an inventory file says.
#[derive(Clone, Debug, Default)]
pub struct InventoryData {
    /// Names of tenants, in order of the file.
    pub tenants: Vec<Arc<str>>,
    /// Address spaces with their segments, in order of the file.
    pub spaces: Vec<(Arc<str>, Vec<Segment>)>,
    /// Virtual machines, in order of the file.
    pub vms: Vec<Vm>,
}

impl InventoryData {
    /// As changes that say everything. `again`: when it was read, if it was not the first time.
    pub fn changes(&self, again: Option<Timestamp>) -> Vec<Change> {
        let mut lines = Lines { again, changes: Vec::new() };
        for vm in &self.vms {
            lines.vm(vm);
        }
        for (name, segments) in &self.spaces {
            for segment in segments {
                let line = vec![always(name)];
                lines.say(Subject::Segment(*segment), &Attribute::Space, &line);
            }
        }
        lines.changes
    }
}

/// Changes of a file.
struct Lines {
    again: Option<Timestamp>,
    changes: Vec<Change>,
}

impl Lines {
    fn vm(&mut self, vm: &Vm) {
        let subject = Subject::Vm(vm.uuid);
        self.say(subject, &Attribute::Exists, &exists(vm.valid));
        for (attribute, text) in [(Attribute::Name, &vm.name), (Attribute::Tenant, &vm.tenant)] {
            self.say(subject, &attribute, &[always(text)]);
        }
        let text = |text: &Arc<str>| Value::Text(Arc::clone(text));
        let placed = vm.placements.iter().map(|placed| (placed.valid, Some(text(&placed.host))));
        let hosts: Vec<_> = vm.host.iter().map(always).chain(placed).collect();
        self.say(subject, &Attribute::Host, &hosts);
        let placed = vm.placements.iter();
        let placed = placed.map(|placed| (placed.valid, placed.switch.as_ref().map(text)));
        let mut switches: Vec<_> = vm.switch.iter().map(always).chain(placed).collect();
        if switches.iter().all(|(_, switch)| switch.is_none()) {
            switches.clear();
        }
        for (id, interfaces) in numbered(&vm.interfaces) {
            let line = |value: fn(&Interface) -> Value| {
                interfaces.iter().map(|one| (one.valid, Some(value(one)))).collect::<Vec<_>>()
            };
            self.say(subject, &Attribute::Switch(id), &switches);
            self.say(subject, &Attribute::Attached(id), &line(|_| Value::Flag(true)));
            self.say(subject, &Attribute::Segment(id), &line(|one| Value::Segment(one.segment)));
            // An interface without addresses leaves them to who knows them.
            let known = interfaces.iter().filter(|one| !one.addresses.is_empty());
            let known = known
                .map(|one| (one.valid, Some(Value::addresses(one.addresses.iter().copied()))))
                .collect::<Vec<_>>();
            self.say(subject, &Attribute::Addresses(id), &known);
            let shared = interfaces.iter().filter(|one| !one.shared.is_empty());
            let shared = shared
                .map(|one| (one.valid, Some(Value::addresses(one.shared.iter().copied()))))
                .collect::<Vec<_>>();
            self.say(subject, &Attribute::Shared(id), &shared);
        }
    }

    /// Where any time is written, the line is the whole history; else it holds from now on.
    fn say(&mut self, subject: Subject, attribute: &Attribute, line: &[(Interval, Option<Value>)]) {
        if line.is_empty() {
            return;
        }
        let timeless = line.iter().all(|(valid, _)| *valid == Interval::ALWAYS);
        let from = self.again.filter(|_| timeless).unwrap_or_default();
        let whole = Interval { from, to: Interval::ALWAYS.to };
        let cleared = (!timeless).then_some((whole, None));
        let said = line.iter().map(|(valid, value)| {
            let valid = if timeless { whole } else { *valid };
            (valid, value.clone())
        });
        for (valid, value) in cleared.into_iter().chain(said) {
            let (attribute, until) = (attribute.clone(), Until::At(valid.to));
            self.changes.push(Change { subject, attribute, value, from: valid.from, until });
        }
    }
}

fn always(text: &Arc<str>) -> (Interval, Option<Value>) {
    (Interval::ALWAYS, Some(Value::Text(Arc::clone(text))))
}

/// A VM with a time of its own exists in it and at no other.
fn exists(valid: Interval) -> Vec<(Interval, Option<Value>)> {
    let before = Interval { from: Timestamp::ZERO, to: valid.from };
    let after = Interval { from: valid.to, to: Interval::ALWAYS.to };
    let spans = [(before, false), (valid, true), (after, false)];
    let spans = spans.into_iter().filter(|(span, _)| span.from < span.to);
    spans.map(|(span, exists)| (span, Some(Value::Flag(exists)))).collect()
}

/// Interfaces by MAC address; those of one address that are there at one time are told apart.
fn numbered(interfaces: &[Interface]) -> BTreeMap<InterfaceId, Vec<&Interface>> {
    let mut numbered: BTreeMap<InterfaceId, Vec<&Interface>> = BTreeMap::new();
    for interface in interfaces {
        let free = (0..=u16::MAX).map(|number| InterfaceId { mac: interface.mac, number });
        let id = free.into_iter().find(|id| {
            let there = numbered.get(id).map(Vec::as_slice).unwrap_or_default();
            there.iter().all(|other| other.valid.and(interface.valid).is_none())
        });
        if let Some(id) = id {
            numbered.entry(id).or_default().push(interface);
        }
    }
    numbered
}

/// Reads the file at `path`, JSON if its name ends so, else TOML; `domains` and `spaces` are those of the
/// configuration.
///
/// # Errors
/// Every problem of the file; or that it cannot be read, is no UTF-8, or is too large.
pub fn load(
    path: &Path,
    domains: &[String],
    spaces: &[SpacePlan],
) -> Result<InventoryData, Problems> {
    let text = document::read(path, INVENTORY_BYTES_MAX)?;
    let name = path.display().to_string();
    let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    if is_json {
        parse_json(&text, &name, domains, spaces)
    } else {
        parse(&text, &name, domains, spaces)
    }
}

/// Reads JSON `text` of a file called `file_name` in problems.
///
/// # Errors
/// Every problem of the text.
pub fn parse_json(
    text: &str,
    file_name: &str,
    domains: &[String],
    spaces: &[SpacePlan],
) -> Result<InventoryData, Problems> {
    let toml = AsToml::new(text, file_name)?;
    // It may be longer than the text that was read.
    read(&toml.text, u64::MAX, file_name, domains, spaces).map_err(|problems| toml.placed(problems))
}

/// Reads TOML `text` of a file called `file_name` in problems.
///
/// # Errors
/// Every problem of the text.
pub fn parse(
    text: &str,
    file_name: &str,
    domains: &[String],
    spaces: &[SpacePlan],
) -> Result<InventoryData, Problems> {
    read(text, INVENTORY_BYTES_MAX, file_name, domains, spaces)
}

fn read(
    text: &str,
    bytes_max: u64,
    file_name: &str,
    domains: &[String],
    spaces: &[SpacePlan],
) -> Result<InventoryData, Problems> {
    let (document, mut report) = document::parse(text, file_name, bytes_max, &ROOT)?;
    let root = Section::root(&ROOT, &document);
    let configured = spaces
        .iter()
        .flat_map(|space| space.segments.iter().map(|segment| (*segment, space.space)));
    let mut reader = Reader {
        domains,
        spaces: configured.collect(),
        tenants: HashMap::new(),
        places: HashMap::new(),
        uuids: HashMap::new(),
        claims: Vec::new(),
        report: &mut report,
    };
    let tenants = reader.tenants(&root.tables("tenant"));
    let spaces = reader.address_spaces(&root.tables("space"), spaces);
    let vms = reader.vms(&root.tables("vm"));
    reader.conflicts(&vms);
    report.finish().map(|_| InventoryData { tenants, spaces, vms })
}

struct Reader<'a> {
    domains: &'a [String],
    spaces: HashMap<Segment, AddressSpace>,
    /// Each name with its place in the text.
    tenants: HashMap<String, (Arc<str>, usize)>,
    places: HashMap<String, Arc<str>>,
    uuids: HashMap<Uuid, usize>,
    claims: Vec<Claim>,
    report: &'a mut Report,
}

/// An address that a VM says is its own.
struct Claim {
    space: AddressSpace,
    segment: Segment,
    address: IpAddr,
    valid: Interval,
    vm: usize,
    at: usize,
}

impl Reader<'_> {
    fn tenants(&mut self, sections: &[Section<'_>]) -> Vec<Arc<str>> {
        let mut tenants = Vec::new();
        for section in sections {
            let Some(name) = section.get::<String>("name") else { continue };
            let at = section.at("name");
            if let Some((_, before)) = self.tenants.get(&name) {
                let line = self.report.line(*before);
                let what = format!("{} stands in line {line} too (allowed: once)", quoted(&name));
                self.report.problem(at, section.path("name"), what);
                continue;
            }
            let shared: Arc<str> = name.as_str().into();
            self.tenants.insert(name, (Arc::clone(&shared), at));
            tenants.push(shared);
        }
        tenants
    }

    /// Spaces, numbered behind those of the configuration but for the names that it has too.
    fn address_spaces(
        &mut self,
        sections: &[Section<'_>],
        configured: &[SpacePlan],
    ) -> Vec<(Arc<str>, Vec<Segment>)> {
        let mut numbers: HashMap<String, (AddressSpace, Option<usize>)> =
            configured.iter().map(|space| (space.name.clone(), (space.space, None))).collect();
        let mut spaces = Vec::new();
        for section in sections {
            let Some(name) = section.get::<String>("name") else { continue };
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let at = section.at("name");
            if let Some((_, Some(before))) = numbers.get(&name) {
                let line = self.report.line(*before);
                let what = format!("{} stands in line {line} too (allowed: once)", quoted(&name));
                self.report.problem(at, section.path("name"), what);
            }
            let entry = numbers.entry(name.clone()).or_insert((AddressSpace::named(next), None));
            entry.1 = Some(at);
            let space = entry.0;
            let segments = self.joined(section, space);
            spaces.push((name.into(), segments));
        }
        spaces
    }

    fn joined(&mut self, section: &Section<'_>, space: AddressSpace) -> Vec<Segment> {
        let mut segments = Vec::new();
        for (at, text) in section.items::<String>("segments") {
            let Some(segment) = Segment::parse(&text, self.domains) else {
                let allowed = Kind::Segment.allowed();
                let what = format!("{} names no segment (allowed: {allowed})", quoted(&text));
                self.report.problem(at, section.path("segments"), what);
                continue;
            };
            if self.spaces.insert(segment, space).is_some_and(|before| before != space) {
                let what =
                    format!("{} is joined elsewhere (allowed: one space at most)", quoted(&text));
                self.report.problem(at, section.path("segments"), what);
            }
            segments.push(segment);
        }
        segments
    }

    fn vms(&mut self, sections: &[Section<'_>]) -> Vec<Vm> {
        sections.iter().enumerate().map(|(place, section)| self.vm(place, section)).collect()
    }

    fn vm(&mut self, place: usize, section: &Section<'_>) -> Vm {
        let uuid = section.get::<Uuid>("uuid").unwrap_or_default();
        self.uuid_once(section, uuid);
        let valid = self.interval(section);
        let host = section.get::<String>("host").map(|host| self.place(host));
        let interfaces = section.tables("interface");
        Vm {
            uuid,
            name: section.get::<String>("name").unwrap_or_default().into(),
            tenant: self.tenant(section),
            host,
            switch: section.get::<String>("switch").map(|switch| self.place(switch)),
            placements: self.placements(&section.tables("placement")),
            interfaces: interfaces
                .iter()
                .map(|found| self.interface(found, place, valid))
                .collect(),
            valid,
        }
    }

    fn uuid_once(&mut self, section: &Section<'_>, uuid: Uuid) {
        if !section.has("uuid") {
            return;
        }
        let at = section.at("uuid");
        if let Some(before) = self.uuids.get(&uuid) {
            let line = self.report.line(*before);
            let what = format!("{uuid} stands in line {line} too (allowed: each VM once)");
            self.report.problem(at, section.path("uuid"), what);
        } else {
            self.uuids.insert(uuid, at);
        }
    }

    fn tenant(&mut self, section: &Section<'_>) -> Arc<str> {
        let name = section.get::<String>("tenant").unwrap_or_default();
        if let Some((tenant, _)) = self.tenants.get(&name) {
            return Arc::clone(tenant);
        }
        if section.has("tenant") {
            let what = format!(
                "no tenant is called {} (allowed: the name of a [[tenant]])",
                quoted(&name)
            );
            self.report.problem(section.at("tenant"), section.path("tenant"), what);
        }
        name.into()
    }

    /// One text for each host and switch, however many VMs it has.
    fn place(&mut self, name: String) -> Arc<str> {
        Arc::clone(self.places.entry(name).or_insert_with_key(|name| name.as_str().into()))
    }

    fn interval(&mut self, section: &Section<'_>) -> Interval {
        let mut valid = Interval::ALWAYS;
        section.read::<Timestamp>("valid_from", &mut valid.from);
        section.read::<Timestamp>("valid_to", &mut valid.to);
        if valid.from >= valid.to {
            let name = if section.has("valid_to") { "valid_to" } else { "valid_from" };
            let what = "ends before it begins (allowed: valid_from before valid_to)";
            self.report.problem(section.at(name), section.path(name), what);
        }
        valid
    }

    fn placements(&mut self, sections: &[Section<'_>]) -> Vec<Placement> {
        let mut placements = Vec::new();
        for section in sections {
            let host = section.get::<String>("host").unwrap_or_default();
            let switch = section.get::<String>("switch").map(|switch| self.place(switch));
            let valid = self.interval(section);
            let placement = Placement { host: self.place(host), switch, valid };
            placements.push((placement, section.at("host")));
        }
        placements.sort_by_key(|(placement, _)| placement.valid.from);
        for pair in placements.windows(2) {
            let [(before, line_at), (after, at)] = pair else { continue };
            if before.valid.and(after.valid).is_some() {
                let line = self.report.line(*line_at);
                let what = format!(
                    "overlaps with the placement of line {line} (allowed: one host at a time)"
                );
                self.report.problem(*at, "vm.placement", what);
            }
        }
        placements.into_iter().map(|(placement, _)| placement).collect()
    }

    fn interface(&mut self, section: &Section<'_>, vm: usize, vm_valid: Interval) -> Interface {
        let segment = self.segment(section);
        let space = self.spaces.get(&segment).copied();
        let space = space.unwrap_or(AddressSpace::of_segment(segment));
        let own = self.interval(section);
        let both = own.and(vm_valid);
        if both.is_none() && own.from < own.to && vm_valid.from < vm_valid.to {
            let what = "lies outside the time of its VM (allowed: within the VM's valid_from and \
                        valid_to)";
            self.report.problem(section.at("valid_from"), "vm.interface", what);
        }
        let valid = both.unwrap_or(own);
        let addresses = section.items::<IpAddr>("addresses");
        for (at, address) in &addresses {
            self.own_address(section, "addresses", *at, *address);
            self.claims.push(Claim { space, segment, address: *address, valid, vm, at: *at });
        }
        let shared = section.items::<IpAddr>("shared_addresses");
        for (at, address) in &shared {
            self.own_address(section, "shared_addresses", *at, *address);
        }
        Interface {
            mac: self.mac(section),
            shared: shared.into_iter().map(|(_, address)| address).collect(),
            addresses: addresses.into_iter().map(|(_, address)| address).collect(),
            segment,
            space,
            valid,
        }
    }

    fn mac(&mut self, section: &Section<'_>) -> Mac {
        let mac = section.get::<Mac>("mac").unwrap_or_default();
        if mac.0[0] & 1 != 0 {
            let what = format!("{mac} is a group address (allowed: the address of one interface)");
            self.report.problem(section.at("mac"), section.path("mac"), what);
        }
        mac
    }

    fn own_address(&mut self, section: &Section<'_>, key: &str, at: usize, address: IpAddr) {
        if address.is_multicast() || address.is_unspecified() || is_broadcast(address) {
            let what = format!("{address} belongs to no interface (allowed: unicast addresses)");
            self.report.problem(at, section.path(key), what);
        }
    }

    fn segment(&mut self, section: &Section<'_>) -> Segment {
        let Some(text) = section.get::<String>("segment") else { return Segment::NONE };
        Segment::parse(&text, self.domains).unwrap_or_else(|| {
            let allowed = Kind::Segment.allowed();
            let what = format!("{} names no segment (allowed: {allowed})", quoted(&text));
            self.report.problem(section.at("segment"), section.path("segment"), what);
            Segment::NONE
        })
    }

    /// Two VMs with one address in one space at one time.
    fn conflicts(&mut self, vms: &[Vm]) {
        self.claims.sort_by_key(|claim| {
            (claim.space, Address::of_ip(claim.address), claim.valid.from, claim.at)
        });
        let mut longest: Option<&Claim> = None;
        for claim in &self.claims {
            let same = longest
                .filter(|before| (before.space, before.address) == (claim.space, claim.address));
            if let Some(before) = same
                && before.vm != claim.vm
                && before.valid.and(claim.valid).is_some()
            {
                let what = conflict(before, claim, vms, self.domains, self.report.line(before.at));
                self.report.problem(claim.at, "vm.interface.addresses", what);
            }
            if same.is_none_or(|before| before.valid.to < claim.valid.to) {
                longest = Some(claim);
            }
        }
    }
}

fn conflict(one: &Claim, other: &Claim, vms: &[Vm], domains: &[String], line: usize) -> String {
    let name = vms.get(one.vm).map(|vm| quoted(&vm.name)).unwrap_or_default();
    let segment = other.segment.text(domains);
    format!(
        "{} in {segment} is also claimed by VM {name} in line {line} at the same time (allowed: \
         one VM at a time in an address space)",
        other.address
    )
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::ClassRules;

    const VM_1: &str =
        "uuid = \"00000000-0000-0000-0000-000000000001\"\nname = \"web-1\"\ntenant = \"acme\"\n";
    const VM_2: &str =
        "uuid = \"00000000-0000-0000-0000-000000000002\"\nname = \"web-2\"\ntenant = \"acme\"\n";

    fn read(text: &str) -> Result<InventoryData, Problems> {
        parse(text, "i.toml", &["default".to_owned(), "east".to_owned()], &[])
    }

    fn problems(text: &str) -> String {
        read(text).err().map(|problems| problems.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_whole_file() {
        let text = format!(
            "[[tenant]]\nname = \"acme\"\n[[vm]]\n{VM_1}host = \"h1\"\nswitch = \"h1/br0\"\n\
             valid_from = 2026-01-01T00:00:00Z\n\
             [[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\naddresses = [\"10.0.0.5\", \"2001:db8::5\"]\n\
             segment = \"east/vxlan/4242\"\nvalid_to = \"2027-01-01T00:00:00Z\"\n\
             [[vm.interface]]\nmac = \"fa:16:3e:00:00:02\"\n\
             [[vm.placement]]\nhost = \"h2\"\nswitch = \"h2/br0\"\nvalid_from = 20\nvalid_to = 30\n\
             [[vm.placement]]\nhost = \"h1\"\nvalid_from = 10\nvalid_to = 20\n"
        );
        let data = read(&text).expect("valid");
        let [vm] = data.vms.as_slice() else { panic!("one VM") };
        assert_eq!(
            (vm.name.as_ref(), vm.tenant.as_ref(), vm.host.as_deref()),
            ("web-1", "acme", Some("h1"))
        );
        assert_eq!(vm.uuid, Uuid(1));
        let [first, second] = vm.interfaces.as_slice() else { panic!("two interfaces") };
        assert_eq!(
            first.segment.text(&["default".to_owned(), "east".to_owned()]),
            "east/vxlan/4242"
        );
        assert_eq!(first.addresses.len(), 2);
        assert_eq!(first.valid.from, vm.valid.from);
        assert!(first.valid.to < vm.valid.to);
        assert_eq!((second.segment, second.addresses.len()), (Segment::NONE, 0));
        let inventory = crate::inventory::Inventory::new(&data, ClassRules::default());
        let (_, entry) = inventory.entries().next().expect("one VM");
        let host = |at| entry.history.host_at(Timestamp(at)).map(AsRef::as_ref);
        assert_eq!([5, 10, 25, 30].map(host), [Some("h1"), Some("h1"), Some("h2"), Some("h1")]);
        // A placement that names no switch does not take over that of the VM.
        for interface in &entry.history.interfaces {
            let switch = |at| interface.switches.at(Timestamp(at)).map(AsRef::as_ref);
            let expected = [Some("h1/br0"), None, Some("h2/br0"), Some("h1/br0")];
            assert_eq!([5, 10, 25, 30].map(switch), expected);
            assert!(interface.connections.at(Timestamp(5)).is_none(), "a switch attaches nothing");
        }
    }

    #[test]
    fn joined_segments_share_their_space() {
        let domains = ["default".to_owned()];
        let segment = Segment::parse("default/vlan/7", &domains).expect("a segment");
        let space = SpacePlan {
            name: "r".to_owned(),
            space: AddressSpace::named(3),
            segments: vec![segment],
        };
        let text = format!(
            "[[tenant]]\nname = \"acme\"\n[[vm]]\n{VM_1}[[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\nsegment = \"default/vlan/7\"\n"
        );
        let data = parse(&text, "i.toml", &domains, &[space]).expect("valid");
        assert_eq!(data.vms[0].interfaces[0].space, AddressSpace::named(3));
    }

    #[test]
    fn every_problem_at_once() {
        let text = format!(
            "[[tenant]]\nname = \"acme\"\n[[tenant]]\nname = \"acme\"\n[[vm]]\n{VM_1}[[vm]]\n{VM_1}\
             [[vm]]\nuuid = \"7\"\nname = \"x\"\ntenant = \"other\"\nhots = \"h\"\n\
             [[vm.interface]]\nmac = \"fa:16\"\naddresses = [\"10.0.0.300\", \"224.0.0.1\"]\nsegment = \"west/vlan/1\"\n\
             [[vm.interface]]\nmac = \"01:00:5e:00:00:01\"\nvalid_from = 5\nvalid_to = 5\n\
             [[vm.placement]]\nhost = \"a\"\nvalid_to = 9\n[[vm.placement]]\nhost = \"b\"\nvalid_from = 8\n"
        );
        let found = problems(&text);
        let starts = [
            "i.toml:4: tenant.name: \"acme\" stands in line 2 too",
            "i.toml:10: vm.uuid: 00000000-0000-0000-0000-000000000001 stands in line 6 too",
            "i.toml:14: vm.uuid: \"7\" is not allowed (allowed: a UUID",
            "i.toml:16: vm.tenant: no tenant is called \"other\"",
            "i.toml:17: vm.hots: is no key; vm.host is",
            "i.toml:19: vm.interface.mac: \"fa:16\" is not allowed",
            "i.toml:20: vm.interface.addresses: \"10.0.0.300\" is not allowed",
            "i.toml:21: vm.interface.segment: \"west/vlan/1\" names no segment",
            "i.toml:23: vm.interface.mac: 01:00:5e:00:00:01 is a group address",
            "i.toml:25: vm.interface.valid_to: ends before it begins",
            "i.toml:30: vm.placement: overlaps with the placement of line 27",
        ];
        assert_eq!(found.lines().count(), starts.len(), "{found}");
        for (line, start) in found.lines().zip(starts) {
            assert!(line.starts_with(start), "{line}\n{start}");
        }
        let group = format!(
            "[[tenant]]\nname = \"acme\"\n[[vm]]\n{VM_1}[[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\naddresses = [\n\"10.0.0.1\",\n\"ff02::1\"]\n"
        );
        assert_eq!(
            problems(&group),
            "i.toml:11: vm.interface.addresses: ff02::1 belongs to no interface (allowed: unicast addresses)"
        );
    }

    fn two_vms(first: &str, second: &str) -> String {
        format!(
            "[[tenant]]\nname = \"acme\"\n[[vm]]\n{VM_1}[[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\naddresses = [\"10.0.0.5\"]\n{first}\
             [[vm]]\n{VM_2}[[vm.interface]]\nmac = \"fa:16:3e:00:00:02\"\naddresses = [\"10.0.0.5\"]\n{second}"
        )
    }

    #[test]
    fn an_address_has_one_vm_at_a_time() {
        assert_eq!(
            problems(&two_vms("", "")),
            "i.toml:16: vm.interface.addresses: 10.0.0.5 in default/none is also claimed by VM \
             \"web-1\" in line 9 at the same time (allowed: one VM at a time in an address space)"
        );
        assert!(
            problems(&two_vms("valid_to = 10\n", "valid_from = 9\n"))
                .contains("in line 9 at the same time")
        );
        assert_eq!(problems(&two_vms("valid_to = 10\n", "valid_from = 10\n")), "");
        assert_eq!(problems(&two_vms("", "segment = \"default/vlan/1\"\n")), "");
    }

    #[test]
    fn an_interface_lives_within_its_vm() {
        let text = format!(
            "[[tenant]]\nname = \"acme\"\n[[vm]]\n{VM_1}valid_to = 10\n[[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\nvalid_from = 10\n"
        );
        assert!(
            problems(&text).starts_with("i.toml:10: vm.interface: lies outside the time of its VM")
        );
    }

    #[test]
    fn cut_files_never_panic() {
        let whole = two_vms("valid_to = 10\n", "valid_from = 2026-01-01T00:00:00Z\n");
        for end in 0..whole.len() {
            if let Err(problems) = read(&whole[..end]) {
                assert!(!problems.list.is_empty(), "{end}");
            }
        }
    }
}
