//! Which virtual machine was that, at that time; and which class of traffic.
//!
//! In: address space, address, MAC and time. Out: [`VmRef`], [`TrafficClass`].
//! Cost: two hashes and a binary search among the spans of one address; no allocation.
//! Invariants: immutable; what changes is in the next snapshot, which shares all else with this one, so
//! no look-up ever waits. A [`VmRef`] belongs to the snapshot that gave it. Reused addresses never mix
//! two VMs, because their spans are apart.
//! Source: ARCHITECTURE.md, "Who is who"; link-local addresses, RFC 3927 and RFC 4291 section
//! 2.5.6.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::change::Subject;
use super::claims::{Conflict, Held, Name};
use super::class::{ClassRules, NetworkKind, Side, TrafficClass};
use super::fact::Facts;
use super::history::VmHistory;
use super::precedence::SourceName;
use super::source::SourceId;
use super::spaces::{NOWHERE, Spaces};
use super::{Address, AddressSpace, Interval, InventoryData, Mac, Segment};
use crate::hash::{Keyed, KeyedMap};
use crate::time::Timestamp;

/// Parts of the look-up table: a change copies one of them.
const BUCKETS: usize = 1_024;
/// Virtual machines that lie together: a change copies so many references.
const CHUNK_VMS: usize = 64;
/// Conflicts that are listed at most; all are counted.
pub const CONFLICTS_LISTED_MAX: usize = 1_000;

/// A virtual machine of one [`Inventory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmRef(pub(super) u32);

/// Where the newest snapshot is found.
pub type InventoryCell = Arc<ArcSwap<Inventory>>;

/// A virtual machine with all that was ever said of it.
#[derive(Clone, Debug, Default)]
pub struct VmEntry {
    /// As all sources together have it.
    pub history: VmHistory,
    /// What each said and when it became known.
    pub facts: Facts,
}

/// A conflict with the name that is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedConflict {
    /// Where.
    pub space: AddressSpace,
    /// Address or MAC address.
    pub claimed: String,
    /// By whom, and who is right.
    pub conflict: Conflict,
}

type Bucket = KeyedMap<Name, Held>;

/// A snapshot of who is who.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub(super) known: Timestamp,
    chunks: Vec<Arc<Vec<Arc<VmEntry>>>>,
    /// With those that were only learned.
    entry_count: usize,
    /// How many of them were only learned.
    pub(super) learned_count: usize,
    buckets: Vec<Arc<Bucket>>,
    hash: Keyed,
    pub(super) spaces: Arc<Spaces>,
    pub(super) segments: Arc<BTreeMap<Segment, u32>>,
    pub(super) sources: Arc<[SourceName]>,
    pub(super) rules: Arc<ClassRules>,
    pub(super) conflicts: Arc<BTreeMap<Name, Vec<Conflict>>>,
}

impl Default for Inventory {
    fn default() -> Self {
        Self {
            known: Timestamp::ZERO,
            chunks: Vec::new(),
            entry_count: 0,
            learned_count: 0,
            buckets: (0..BUCKETS).map(|_| Arc::default()).collect(),
            hash: Keyed::default(),
            spaces: Arc::default(),
            segments: Arc::default(),
            sources: [].into(),
            rules: Arc::default(),
            conflicts: Arc::default(),
        }
    }
}

impl Inventory {
    /// What a file says, and nothing else; for tests and measurements.
    pub fn new(data: &InventoryData, rules: ClassRules) -> Self {
        super::store::Store::of_file(data, rules).snapshot()
    }

    /// Without a VM.
    pub(super) fn empty(
        spaces: Arc<Spaces>,
        rules: Arc<ClassRules>,
        sources: Arc<[SourceName]>,
    ) -> Self {
        Self { spaces, sources, rules, ..Self::default() }
    }

    /// In a cell of its own, for who never changes it.
    pub fn into_cell(self) -> InventoryCell {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// Since when it is known.
    pub fn known(&self) -> Timestamp {
        self.known
    }

    /// The segment of each MAC address at a time; without one, as the inventory has it last. Of
    /// several interfaces with one MAC address the one whose time began last counts.
    pub fn stations(&self, at: Option<Timestamp>) -> BTreeMap<Mac, Segment> {
        // What was learned of a MAC address is where the wire showed it; that a tap's mirror hides it, the
        // wire cannot know.
        let named = self.entries().filter(|(_, entry)| !entry.history.learned);
        let interfaces = named.flat_map(|(_, entry)| &entry.history.interfaces);
        let mut valid: Vec<_> = interfaces
            .flat_map(|interface| {
                interface.connections.spans().iter().filter_map(|(valid, connection)| {
                    Some((*valid, interface.id, connection.segment?))
                })
            })
            .filter(|(valid, ..)| at.is_none_or(|at| valid.holds(at)))
            .collect();
        // The interface that is plugged in counts, not what else its MAC address is for. Stable: of equal
        // ones the last VM counts.
        valid.sort_by_key(|(valid, id, _)| (Reverse(id.number), valid.from, valid.to));
        valid.into_iter().map(|(_, id, segment)| (id.mac, segment)).collect()
    }

    /// The VM that had `address` in `space` at a time; `ip_version` is 4 or 6. The MAC is asked
    /// only where it is sound evidence: for addresses that no router passes on, and for
    /// interfaces whose addresses the inventory does not know. Who was only learned comes last.
    #[inline]
    pub fn resolve(
        &self,
        space: AddressSpace,
        address: Address,
        ip_version: u8,
        mac: Option<Mac>,
        at: Timestamp,
    ) -> Option<VmRef> {
        let held = self.held(&Name::address(space, address, ip_version));
        let moment = || Interval { from: at, to: Timestamp(at.0.saturating_add(1)) };
        let Some(vm) = held.and_then(|held| held.at(at)) else {
            let (ip, mac) = (address.to_ip(ip_version), mac?);
            let sharer = held.and_then(|held| self.sharer(held, ip, mac, moment()));
            return sharer.or_else(|| self.resolve_mac(space, ip, mac, at));
        };
        if self.learned_count == 0 {
            return Some(vm);
        }
        Some(self.unless_named(vm, (space, address.to_ip(ip_version), mac), moment()))
    }

    /// The VM that had `address` during a time. Where several had it one after the other, that is the
    /// one with the MAC address, else the one that had it first.
    pub fn resolve_within(
        &self,
        space: AddressSpace,
        address: Address,
        ip_version: u8,
        mac: Option<Mac>,
        time: Interval,
    ) -> Option<VmRef> {
        let ip = address.to_ip(ip_version);
        let name = Name::address(space, address, ip_version);
        let Some(vm) = self.holder_within(&name, mac, time) else {
            let mac = mac?;
            let sharer = self.held(&name).and_then(|held| self.sharer(held, ip, mac, time));
            return sharer.or_else(|| self.resolve_mac_within(space, ip, mac, time));
        };
        if self.learned_count == 0 {
            return Some(vm);
        }
        Some(self.unless_named(vm, (space, ip, mac), time))
    }

    /// Of several who may have an address, the one that has it by its MAC address.
    #[cold]
    fn sharer(&self, held: &Held, ip: IpAddr, mac: Mac, time: Interval) -> Option<VmRef> {
        let has = |vm: &VmRef| self.vm(*vm).is_some_and(|history| history.shares(mac, ip, time));
        let mut found = held.sharers(time).filter(has);
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    }

    /// Who held a name during a time: the one with the MAC address, else the first; of VMs and those
    /// that were only learned a VM.
    fn holder_within(&self, name: &Name, mac: Option<Mac>, time: Interval) -> Option<VmRef> {
        let held = self.held(name);
        let mut holders = held.into_iter().flat_map(|held| held.during(time)).map(|(_, vm)| vm);
        let first = holders.next()?;
        let Some(second) = holders.next() else { return Some(first) };
        let has_mac = |vm: &VmRef| {
            mac.is_some_and(|mac| self.vm(*vm).is_some_and(|history| history.has_mac(mac)))
        };
        let is_named = |vm: &VmRef| self.vm(*vm).is_some_and(|history| !history.learned);
        let all = || [first, second].into_iter().chain(holders.clone());
        if self.learned_count == 0 {
            return all().find(has_mac).or(Some(first));
        }
        let named = || all().filter(is_named);
        named()
            .find(has_mac)
            .or_else(|| named().next())
            .or_else(|| all().find(has_mac))
            .or(Some(first))
    }

    fn resolve_mac_within(
        &self,
        space: AddressSpace,
        ip: IpAddr,
        mac: Mac,
        time: Interval,
    ) -> Option<VmRef> {
        let first = self.resolve_mac(space, ip, mac, time.from);
        first.or_else(|| {
            // It may have come in the middle.
            let names = mac_names(space, ip, mac);
            let held = names.iter().filter_map(|name| self.held(name));
            held.flat_map(|held| held.during(time)).next().map(|(_, vm)| vm)
        })
    }

    /// The holder of an address itself, unless it was only learned and a source names a VM by its MAC
    /// address: by the one that the packet shows, else by the one that was learned with the address.
    /// VMs that may have the address come before those whose addresses are not known.
    #[cold]
    fn unless_named(
        &self,
        holder: VmRef,
        (space, ip, mac): (AddressSpace, IpAddr, Option<Mac>),
        time: Interval,
    ) -> VmRef {
        let Some(learned) = self.vm(holder).filter(|history| history.learned) else {
            return holder;
        };
        let (address, version) = Address::of_ip(ip);
        let held = self.held(&Name::address(space, address, version));
        let sharer = |mac| held.and_then(|held| self.sharer(held, ip, mac, time));
        let shown = mac
            .and_then(|mac| sharer(mac).or_else(|| self.resolve_mac_within(space, ip, mac, time)));
        let named = shown.or_else(|| {
            let own = learned.interfaces.first()?.id.mac;
            if let Some(vm) = sharer(own) {
                return Some(vm);
            }
            let names = [Name::mac_alone(space, own), Name::mac_alone(NOWHERE, own)];
            let held = names.iter().filter_map(|name| self.held(name));
            held.flat_map(|held| held.during(time)).next().map(|(_, vm)| vm)
        });
        named.unwrap_or(holder)
    }

    #[cold]
    fn resolve_mac(
        &self,
        space: AddressSpace,
        ip: IpAddr,
        mac: Mac,
        at: Timestamp,
    ) -> Option<VmRef> {
        mac_names(space, ip, mac).iter().find_map(|name| self.held(name)?.at(at))
    }

    /// The class of traffic between two endpoints with the VMs that [`Inventory::resolve`] gave, in a
    /// time; see [`ClassRules`].
    pub fn class(
        &self,
        source: (Option<VmRef>, Address),
        destination: (Option<VmRef>, Address),
        ip_version: u8,
        time: Interval,
    ) -> TrafficClass {
        let end = |vm: Option<VmRef>, network| {
            let vm = vm.and_then(|vm| self.vm(vm)).filter(|vm| !vm.learned);
            let tenant = vm.and_then(|vm| vm.tenant_within(time)).map(AsRef::as_ref);
            (vm.is_some(), tenant, network)
        };
        let from = self.rules.of_source(source.1.to_ip(ip_version));
        let to = self.rules.of_destination(destination.1.to_ip(ip_version));
        self.class_of(end(source.0, from), end(destination.0, to))
    }

    /// The class of traffic between two ends: whether a VM is there, its tenant, what the address says
    /// by [`Inventory::rules`].
    pub fn class_of(
        &self,
        source: (bool, Option<&str>, Option<NetworkKind>),
        destination: (bool, Option<&str>, Option<NetworkKind>),
    ) -> TrafficClass {
        let side = |(is_vm, tenant, network)| self.rules.side(is_vm, tenant, network);
        let from = side(source);
        let reaches_all = destination.2 == Some(NetworkKind::Group);
        Side::class(from, if reaches_all { from } else { side(destination) })
    }

    /// Who is inside beside VMs, and who belongs to everybody.
    pub fn rules(&self) -> &ClassRules {
        &self.rules
    }

    /// A virtual machine; `None` if the reference is of another snapshot that had more.
    pub fn vm(&self, vm: VmRef) -> Option<&VmHistory> {
        self.entry(vm).map(|entry| &entry.history)
    }

    /// A virtual machine with its facts.
    pub fn entry(&self, vm: VmRef) -> Option<&Arc<VmEntry>> {
        let place = usize::try_from(vm.0).ok()?;
        self.chunks.get(place / CHUNK_VMS)?.get(place % CHUNK_VMS)
    }

    /// All virtual machines, and those that were only learned.
    pub fn entries(&self) -> impl Iterator<Item = (VmRef, &Arc<VmEntry>)> {
        (0..).map(VmRef).zip(self.chunks.iter().flat_map(|chunk| chunk.iter()))
    }

    /// How many virtual machines it knows, ended ones included.
    pub fn vm_count(&self) -> usize {
        self.entry_count - self.learned_count
    }

    /// How many endpoints were only learned, of which no source knows more.
    pub fn learned_count(&self) -> usize {
        self.learned_count
    }

    /// Names of all tenants.
    pub fn tenants(&self) -> Vec<Arc<str>> {
        let spans = self.entries().flat_map(|(_, entry)| entry.history.tenants.spans());
        let mut tenants: Vec<_> = spans.map(|(_, tenant)| Arc::clone(tenant)).collect();
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }

    /// Segments and address spaces.
    pub fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// Whether any interface is, or was, in a segment.
    pub fn knows_segment(&self, segment: Segment) -> bool {
        self.segments.contains_key(&segment)
    }

    /// Whether any interface is in any segment.
    pub fn knows_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// All facts, subject by subject, but those that were only learned: what makes the same inventory out
    /// of nothing.
    pub fn subjects(&self) -> impl Iterator<Item = (Subject, &Facts)> {
        let segments = self.spaces.facts().iter();
        let segments = segments.map(|(segment, facts)| (Subject::Segment(*segment), facts));
        let yields = |source: SourceId| {
            let source = self.sources.get(usize::from(source.0));
            source.is_some_and(|source| source.kind.yields())
        };
        let said = move |facts: &Facts| facts.all().iter().any(|fact| !yields(fact.source));
        let vms = self.entries().filter(move |(_, entry)| said(&entry.facts));
        let vms = vms.map(|(_, entry)| (Subject::Vm(entry.history.uuid), &entry.facts));
        segments.chain(vms)
    }

    /// The sources, by number.
    pub fn sources(&self) -> &[SourceName] {
        &self.sources
    }

    /// How many names are claimed by several VMs at once, at any time.
    pub fn conflict_count(&self) -> usize {
        self.conflicts.values().map(Vec::len).sum()
    }

    /// The first [`CONFLICTS_LISTED_MAX`] of these.
    pub fn conflicts(&self) -> Vec<NamedConflict> {
        let all = self.conflicts.iter().flat_map(|(name, conflicts)| {
            conflicts.iter().map(|conflict| NamedConflict {
                space: name.space(),
                claimed: name.text(),
                conflict: conflict.clone(),
            })
        });
        all.take(CONFLICTS_LISTED_MAX).collect()
    }

    /// The inventory as it was known at a time, made anew from the facts: costs what reading it costs.
    #[must_use]
    pub fn known_at(&self, known: Timestamp) -> Self {
        let spaces = Arc::new(self.spaces.known_at(known, &self.sources));
        let (rules, sources) = (Arc::clone(&self.rules), Arc::clone(&self.sources));
        let mut then = Self { known, ..Self::empty(spaces, rules, sources) };
        for (_, entry) in self.entries() {
            let facts = entry.facts.known_at(known);
            let history = VmHistory::new(entry.history.uuid, &facts, &self.sources);
            then.learned_count += usize::from(history.learned);
            then.push(Arc::new(VmEntry { history, facts }));
        }
        for (vm, _) in self.entries() {
            then.claim(vm, &[]);
        }
        then
    }

    #[inline]
    fn held(&self, name: &Name) -> Option<&Held> {
        self.buckets.get(bucket_of(self.hash, name))?.get(name)
    }

    /// Adds a VM without its claims.
    pub(super) fn push(&mut self, entry: Arc<VmEntry>) -> Option<VmRef> {
        let vm = VmRef(u32::try_from(self.entry_count).ok()?);
        if self.entry_count.is_multiple_of(CHUNK_VMS) {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK_VMS)));
        }
        Arc::make_mut(self.chunks.last_mut()?).push(entry);
        self.entry_count += 1;
        Some(vm)
    }

    /// Changes a VM without its claims.
    pub(super) fn entry_mut(&mut self, vm: VmRef) -> Option<&mut VmEntry> {
        let place = usize::try_from(vm.0).ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(place / CHUNK_VMS)?);
        chunk.get_mut(place % CHUNK_VMS).map(Arc::make_mut)
    }

    /// Makes a VM's claims anew; `before`: the names that it claimed. Gives the names that it claims
    /// now.
    pub(super) fn claim(&mut self, vm: VmRef, before: &[Name]) -> Vec<Name> {
        let Some(entry) = self.entry(vm).map(Arc::clone) else { return Vec::new() };
        let claims = super::claims::claims_of(vm, &entry.history, &self.spaces, &self.sources);
        let mut names: Vec<Name> = claims.iter().map(|(name, _)| *name).collect();
        names.dedup();
        let mut touched = names.clone();
        touched.extend(before.iter().filter(|name| names.binary_search(name).is_err()));
        for name in touched {
            let begin = claims.partition_point(|(other, _)| *other < name);
            let of_name = claims.get(begin..).unwrap_or_default().iter();
            let of_name = of_name.take_while(|(other, _)| *other == name).map(|(_, claim)| *claim);
            self.put(&name, vm, of_name);
        }
        names
    }

    fn put(&mut self, name: &Name, vm: VmRef, claims: impl Iterator<Item = super::claims::Claim>) {
        let Some(bucket) = self.buckets.get_mut(bucket_of(self.hash, name)) else { return };
        let bucket = Arc::make_mut(bucket);
        let held = bucket.entry(*name).or_default();
        held.replace(name, vm, claims);
        let known = self.conflicts.get(name).map(Vec::as_slice).unwrap_or_default();
        if known != held.conflicts {
            let conflicts = Arc::make_mut(&mut self.conflicts);
            if held.conflicts.is_empty() {
                conflicts.remove(name);
            } else {
                conflicts.insert(*name, held.conflicts.clone());
            }
        }
        if held.is_empty() {
            bucket.remove(name);
        }
    }

    /// All who claim any of some names, each once.
    pub(super) fn claimants(&self, names: &[Name]) -> Vec<VmRef> {
        let held = names.iter().filter_map(|name| self.held(name));
        let mut claimants: Vec<VmRef> = held.flat_map(Held::claimants).collect();
        claimants.sort_unstable();
        claimants.dedup();
        claimants
    }

    /// For which parts of a time a name is attributed to a VM.
    pub(super) fn attributed(&self, name: &Name, vm: VmRef, time: Interval) -> Vec<Interval> {
        let held = self.held(name);
        let during = held.into_iter().flat_map(|held| held.during(time));
        during.filter(|(_, holder)| *holder == vm).filter_map(|(span, _)| span.and(time)).collect()
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits choose")]
fn bucket_of(hash: Keyed, name: &Name) -> usize {
    hash.hash_one(name) as usize % BUCKETS
}

/// What a MAC address says of an endpoint: where the packet was seen, else of interfaces whose segment
/// nobody names.
fn mac_names(space: AddressSpace, ip: IpAddr, mac: Mac) -> [Name; 2] {
    let name = if stays_on_link(ip) { Name::mac } else { Name::mac_alone };
    [name(space, mac), name(NOWHERE, mac)]
}

/// Addresses that a router does not pass on, so that the MAC beside them is the endpoint's own.
fn stays_on_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::file;
    use super::super::{Segment, SegmentKind, SourceKind, Statement, Store, StoreLimits, Uuid};
    use super::*;

    const NOON: Timestamp = Timestamp(1_000);

    fn inventory(text: &str, home: &[&str]) -> Inventory {
        let data = file::parse(text, "i.toml", &["default".to_owned()], &[])
            .unwrap_or_else(|problems| panic!("{problems}"));
        let home = home.iter().map(|text| text.parse().expect("a network")).collect();
        Inventory::new(&data, ClassRules { home_networks: home, ..ClassRules::default() })
    }

    fn vxlan(vni: u32) -> AddressSpace {
        AddressSpace::of_segment(Segment::new(0, SegmentKind::Vxlan, vni))
    }

    fn name(inventory: &Inventory, vm: Option<VmRef>) -> Option<&str> {
        let vm = vm.and_then(|vm| inventory.vm(vm));
        vm.and_then(|vm| vm.name_within(Interval::ALWAYS)).map(AsRef::as_ref)
    }

    fn vm(out: &mut String, number: u32, tenant: u32, rest: &str) {
        writeln!(
            out,
            "[[vm]]\nuuid = \"00000000-0000-0000-0000-{number:012}\"\nname = \"vm-{number}\"\n\
             tenant = \"t{tenant}\"\n[[vm.interface]]\n{rest}"
        )
        .expect("a string");
    }

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([0xfa, 0x16, a, b, c, d])
    }

    #[test]
    fn a_hundred_tenants_with_the_same_addresses() {
        let mut text = String::new();
        for tenant in 0..100 {
            writeln!(text, "[[tenant]]\nname = \"t{tenant}\"").expect("a string");
            for host in 0..10 {
                let number = tenant * 10 + host;
                let rest = format!(
                    "mac = \"{}\"\naddresses = [\"10.0.0.{}\"]\nsegment = \"default/vxlan/{}\"",
                    mac(number),
                    host + 1,
                    5_000 + tenant
                );
                vm(&mut text, number, tenant, &rest);
            }
        }
        let inventory = inventory(&text, &[]);
        assert_eq!((inventory.vm_count(), inventory.tenants().len()), (1_000, 100));
        for tenant in 0..100_u32 {
            for host in 0..10_u8 {
                let address = Address::v4([10, 0, 0, host + 1]);
                let found = inventory.resolve(vxlan(5_000 + tenant), address, 4, None, NOON);
                let expected = format!("vm-{}", tenant * 10 + u32::from(host));
                assert_eq!(name(&inventory, found), Some(expected.as_str()));
            }
        }
        assert_eq!(
            inventory.resolve(vxlan(4_999), Address::v4([10, 0, 0, 1]), 4, None, NOON),
            None
        );
        assert_eq!(
            inventory.resolve(vxlan(5_000), Address::v4([10, 0, 0, 1]), 6, None, NOON),
            None
        );
    }

    #[test]
    fn a_reused_address_is_who_had_it_then() {
        let mut text = "[[tenant]]\nname = \"t0\"\n".to_owned();
        for number in 0..50 {
            let rest = format!(
                "mac = \"{}\"\naddresses = [\"10.0.0.1\"]\nvalid_from = {}\nvalid_to = {}",
                mac(number),
                number * 100,
                number * 100 + 60
            );
            vm(&mut text, number, 0, &rest);
        }
        let inventory = inventory(&text, &[]);
        for at in 0..5_100_u64 {
            let found = inventory.resolve(
                AddressSpace::default(),
                Address::v4([10, 0, 0, 1]),
                4,
                None,
                Timestamp(at),
            );
            let expected = (at % 100 < 60 && at < 5_000).then(|| format!("vm-{}", at / 100));
            assert_eq!(name(&inventory, found), expected.as_deref(), "{at}");
        }
    }

    #[test]
    fn the_mac_speaks_where_no_router_is_between() {
        let mut text = "[[tenant]]\nname = \"t0\"\n".to_owned();
        vm(&mut text, 1, 0, "mac = \"fa:16:00:00:00:01\"\naddresses = [\"10.0.0.1\"]");
        vm(&mut text, 2, 0, "mac = \"fa:16:00:00:00:02\"");
        vm(&mut text, 3, 0, "mac = \"fa:16:00:00:00:03\"");
        vm(&mut text, 4, 0, "mac = \"fa:16:00:00:00:03\"");
        let inventory = inventory(&text, &[]);
        let ask = |ip: &str, number| {
            let (address, version) = Address::of_ip(ip.parse().expect("an address"));
            let found = inventory.resolve(
                AddressSpace::default(),
                address,
                version,
                Some(mac(number)),
                NOON,
            );
            name(&inventory, found).map(str::to_owned)
        };
        assert_eq!(ask("10.0.0.1", 9).as_deref(), Some("vm-1"), "a router changed the MAC");
        assert_eq!(
            ask("8.8.8.8", 1),
            None,
            "what a VM with known addresses forwards is not its own"
        );
        assert_eq!(ask("fe80::1", 1).as_deref(), Some("vm-1"));
        assert_eq!(ask("0.0.0.0", 1).as_deref(), Some("vm-1"));
        assert_eq!(ask("10.0.0.77", 2).as_deref(), Some("vm-2"), "its addresses are not known");
        assert_eq!(ask("10.0.0.78", 3), None, "two VMs with one MAC");
    }

    #[test]
    fn an_address_that_several_may_have_is_whose_mac_address_is_seen() {
        let named = |kind| SourceName { kind, name: "s".into(), rank: 0 };
        let sources = [SourceKind::Openstack, SourceKind::Learned].map(named);
        let mut store = Store::new(
            StoreLimits::default(),
            Spaces::default(),
            ClassRules::default(),
            sources.into(),
        );
        let at = |vm: u32| Statement::new(Uuid(vm.into()), Timestamp(1));
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let may = |vm: u8, shared: &[u8]| {
            let own = mac(vm.into());
            let said = at(vm.into()).segment(own, Segment::NONE).addresses(own, [ip(vm)]);
            said.shared(own, shared.iter().map(|last| ip(*last)))
        };
        let mut say = |source, known, said: Statement| {
            store.apply(SourceId(source), Timestamp(known), said.into());
            store.snapshot()
        };
        let who = |inventory: &Inventory, last, seen: u32| {
            let (address, version) = Address::of_ip(ip(last));
            let space = AddressSpace::default();
            let now = inventory.resolve(space, address, version, Some(mac(seen)), NOON);
            let time = Interval { from: NOON, to: NOON + 10 };
            let window = inventory.resolve_within(space, address, version, Some(mac(seen)), time);
            assert_eq!(now, window, "{last} by {seen}");
            now.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid.0)
        };
        // One alone has it, whoever passes its packets on.
        let one = say(0, 10, may(1, &[100, 101]));
        assert_eq!([1, 2, 9].map(|seen| who(&one, 100, seen)), [Some(1); 3]);
        // Of two the one that is seen with it; the other address stays.
        let two = say(0, 11, may(2, &[100]));
        assert_eq!([1, 2, 9].map(|seen| who(&two, 100, seen)), [Some(1), Some(2), None]);
        assert_eq!([1, 2, 9].map(|seen| who(&two, 101, seen)), [Some(1); 3]);
        assert_eq!(two.conflict_count(), 0, "that is how it is meant");
        // Behind a router, the one that answered for it (ARP) last.
        let learned = Statement::new(Uuid(77), Timestamp(5))
            .segment(mac(2), Segment::NONE)
            .addresses(mac(2), [ip(100)]);
        let heard = say(1, 12, learned);
        assert_eq!([1, 2, 9].map(|seen| who(&heard, 100, seen)), [Some(1), Some(2), Some(2)]);
        // Who has it as its own has it.
        let own = say(0, 13, at(3).segment(mac(3), Segment::NONE).addresses(mac(3), [ip(100)]));
        assert_eq!([1, 2, 9].map(|seen| who(&own, 100, seen)), [Some(3); 3]);
        assert_eq!(own.conflict_count(), 0);
        // And no more when it may not.
        say(0, 14, at(3).exists(false));
        let less = say(0, 15, may(2, &[]));
        assert_eq!([1, 2, 9].map(|seen| who(&less, 100, seen)), [Some(1); 3]);
    }

    #[test]
    fn a_mac_is_where_it_was_at_the_time() {
        let mut text = "[[tenant]]\nname = \"t0\"\n".to_owned();
        // The newest one stands first in the file.
        for (number, vni, from, to) in [(1, 3, 2026, 2027), (2, 1, 2024, 2025), (3, 2, 2025, 2026)]
        {
            let rest = format!(
                "mac = \"{}\"\nsegment = \"default/vxlan/{vni}\"\n\
                 valid_from = {from}-01-01T00:00:00Z\nvalid_to = {to}-01-01T00:00:00Z",
                mac(7)
            );
            vm(&mut text, number, 0, &rest);
        }
        let inventory = inventory(&text, &[]);
        let vni = |at| inventory.stations(at).get(&mac(7)).map(|segment| segment.id());
        let noon =
            |year: u64| Some(Timestamp::from_parts((year - 1970) * 31_556_952, 0) + (1 << 52));
        assert_eq!(
            [2023, 2024, 2025, 2026, 2027].map(|year| vni(noon(year))),
            [None, Some(1), Some(2), Some(3), None]
        );
        assert_eq!(vni(None), Some(3));
    }

    #[test]
    fn classes_of_traffic() {
        let mut text = "[[tenant]]\nname = \"t0\"\n[[tenant]]\nname = \"t1\"\n".to_owned();
        vm(&mut text, 0, 0, "mac = \"fa:16:00:00:00:00\"\naddresses = [\"10.0.0.1\"]");
        vm(&mut text, 1, 0, "mac = \"fa:16:00:00:00:01\"\naddresses = [\"10.0.0.2\"]");
        vm(&mut text, 2, 1, "mac = \"fa:16:00:00:00:02\"\naddresses = [\"10.0.0.3\"]");
        let inventory = inventory(&text, &["192.168.0.0/16"]);
        let class = |source: [u8; 4], destination: [u8; 4]| {
            let end = |octets| {
                let address = Address::v4(octets);
                (inventory.resolve(AddressSpace::default(), address, 4, None, NOON), address)
            };
            inventory.class(end(source), end(destination), 4, Interval::ALWAYS)
        };
        let (a, b, c) = ([10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]);
        let (home, out) = ([192, 168, 0, 1], [8, 8, 8, 8]);
        assert_eq!(class(a, b), TrafficClass::EastWest);
        assert_eq!(class(a, a), TrafficClass::EastWest);
        assert_eq!(class(a, c), TrafficClass::InterTenant);
        assert_eq!(class(a, out), TrafficClass::NorthSouth);
        assert_eq!(class(out, c), TrafficClass::NorthSouth);
        assert_eq!(class(out, out), TrafficClass::Transit);
        assert_eq!(class(home, a), TrafficClass::InterTenant);
        assert_eq!(class(home, home), TrafficClass::EastWest);
        assert_eq!(class(home, out), TrafficClass::NorthSouth);
        assert_eq!(class(a, [224, 0, 0, 251]), TrafficClass::EastWest);
        assert_eq!(class(a, [255, 255, 255, 255]), TrafficClass::EastWest);
        assert_eq!(class(out, [224, 0, 0, 251]), TrafficClass::Transit);
        assert_eq!(
            Inventory::default().class(
                (None, Address::v4(a)),
                (None, Address::v4(b)),
                4,
                Interval::ALWAYS
            ),
            TrafficClass::Transit
        );
    }
}
