//! Which virtual machine was that, at that time; and which class of traffic.
//!
//! In: address space, address, MAC and time. Out: [`VmRef`], [`TrafficClass`].
//! Cost: one hash and a binary search among the intervals of one address; no allocation.
//! Invariants: immutable; a new inventory is a new snapshot. A [`VmRef`] belongs to the snapshot
//! that gave it. Reused addresses never mix two VMs, because their intervals are apart.
//! Source: ARCHITECTURE.md, "Who is who"; link-local addresses, RFC 3927 and RFC 4291 section
//! 2.5.6.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Address, AddressSpace, Interval, InventoryData, Mac, Segment, Vm};
use crate::hash::KeyedMap;
use crate::time::Timestamp;

/// A virtual machine of one [`Inventory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmRef(u32);

/// Where traffic goes, seen from the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficClass {
    /// Both ends inside, same tenant.
    EastWest,
    /// Both ends inside, different tenants.
    InterTenant,
    /// One end outside.
    NorthSouth,
    /// No end inside.
    #[default]
    Transit,
}

impl TrafficClass {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EastWest => "east_west",
            Self::InterTenant => "inter_tenant",
            Self::NorthSouth => "north_south",
            Self::Transit => "transit",
        }
    }
}

/// A snapshot of who is who.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    tenants: Vec<Arc<str>>,
    vms: Vec<Vm>,
    home_networks: Vec<IpNet>,
    by_address: Spans<(AddressSpace, Address, u8)>,
    /// All interfaces, for addresses that no router passes on.
    by_mac: Spans<(AddressSpace, Mac)>,
    /// Interfaces whose addresses the inventory does not know.
    by_mac_alone: Spans<(AddressSpace, Mac)>,
}

impl Inventory {
    /// Builds the snapshot. Virtual machines beyond 2^32 are left out, which no file reaches.
    pub fn new(data: InventoryData, home_networks: &[IpNet]) -> Self {
        let mut addresses = Vec::new();
        let mut macs = Vec::new();
        let mut macs_alone = Vec::new();
        for (number, vm) in (0..=u32::MAX).zip(&data.vms) {
            for interface in &vm.interfaces {
                let claim = (interface.valid, VmRef(number));
                for address in &interface.addresses {
                    let (address, version) = Address::of_ip(*address);
                    addresses.push(((interface.space, address, version), claim));
                }
                let name = (interface.space, interface.mac);
                macs.push((name, claim));
                if interface.addresses.is_empty() {
                    macs_alone.push((name, claim));
                }
            }
        }
        Self {
            tenants: data.tenants,
            vms: data.vms,
            home_networks: home_networks.to_vec(),
            by_address: Spans::new(addresses),
            by_mac: Spans::new(macs),
            by_mac_alone: Spans::new(macs_alone),
        }
    }

    /// The segment of each MAC address at a time; without one, as the inventory has it last. Of
    /// several interfaces with one MAC address the one whose time began last counts.
    pub fn stations(&self, at: Option<Timestamp>) -> BTreeMap<Mac, Segment> {
        let interfaces = self.vms.iter().flat_map(|vm| &vm.interfaces);
        let mut valid: Vec<_> =
            interfaces.filter(|found| at.is_none_or(|at| found.valid.holds(at))).collect();
        // Stable: of equal ones the last in the file counts.
        valid.sort_by_key(|interface| (interface.valid.from, interface.valid.to));
        valid.into_iter().map(|interface| (interface.mac, interface.segment)).collect()
    }

    /// The VM that had `address` in `space` at a time; `ip_version` is 4 or 6. The MAC is asked
    /// only where it is sound evidence: for addresses that no router passes on, and for
    /// interfaces whose addresses the inventory does not know.
    pub fn resolve(
        &self,
        space: AddressSpace,
        address: Address,
        ip_version: u8,
        mac: Option<Mac>,
        at: Timestamp,
    ) -> Option<VmRef> {
        self.by_address.find(&(space, address, ip_version), at).or_else(|| {
            let name = (space, mac?);
            let stays = stays_on_link(address.to_ip(ip_version));
            if stays { self.by_mac.find(&name, at) } else { self.by_mac_alone.find(&name, at) }
        })
    }

    /// The class of traffic between two endpoints with the VMs that [`Inventory::resolve`] gave.
    /// An address of a home network is inside without a tenant, which differs from every tenant.
    /// A multicast or broadcast destination is where its sender is.
    pub fn class(
        &self,
        source: (Option<VmRef>, Address),
        destination: (Option<VmRef>, Address),
        ip_version: u8,
    ) -> TrafficClass {
        let side = |(vm, address): (Option<VmRef>, Address)| self.side(vm, address, ip_version);
        let from = side(source);
        let to =
            if reaches_all(destination.1.to_ip(ip_version)) { from } else { side(destination) };
        match (from, to) {
            (Side::Outside, Side::Outside) => TrafficClass::Transit,
            (Side::Outside, _) | (_, Side::Outside) => TrafficClass::NorthSouth,
            (one, other) if one == other => TrafficClass::EastWest,
            _ => TrafficClass::InterTenant,
        }
    }

    /// A virtual machine; `None` if the reference is of another snapshot that had more.
    pub fn vm(&self, vm: VmRef) -> Option<&Vm> {
        usize::try_from(vm.0).ok().and_then(|place| self.vms.get(place))
    }

    /// All virtual machines, in order of the file, for the inventory record.
    pub fn vms(&self) -> &[Vm] {
        &self.vms
    }

    /// Names of all tenants, in order of the file.
    pub fn tenants(&self) -> &[Arc<str>] {
        &self.tenants
    }

    fn side(&self, vm: Option<VmRef>, address: Address, ip_version: u8) -> Side<'_> {
        if let Some(vm) = vm.and_then(|vm| self.vm(vm)) {
            return Side::Tenant(&vm.tenant);
        }
        let ip = address.to_ip(ip_version);
        let home = self.home_networks.iter().any(|network| network.contains(&ip));
        if home { Side::Home } else { Side::Outside }
    }
}

/// Whom an endpoint belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side<'a> {
    Tenant(&'a str),
    Home,
    Outside,
}

/// Addresses that a router does not pass on, so that the MAC beside them is the endpoint's own.
fn stays_on_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

fn reaches_all(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// Who had a name at which time. The spans of one name lie together, in order, apart.
#[derive(Clone, Debug)]
struct Spans<K> {
    places: KeyedMap<K, std::ops::Range<usize>>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    valid: Interval,
    /// `None` where several VMs claim the name at one time.
    vm: Option<VmRef>,
}

impl<K> Default for Spans<K> {
    fn default() -> Self {
        Self { places: KeyedMap::default(), spans: Vec::new() }
    }
}

impl<K: Copy + Ord + Hash> Spans<K> {
    fn new(mut claims: Vec<(K, (Interval, VmRef))>) -> Self {
        claims.sort_unstable_by_key(|(name, (valid, vm))| (*name, valid.from, *vm));
        let mut made = Self::default();
        for claims in claims.chunk_by(|one, other| one.0 == other.0) {
            let Some((name, _)) = claims.first() else { continue };
            let start = made.spans.len();
            for (_, (valid, vm)) in claims {
                made.append(start, Span { valid: *valid, vm: Some(*vm) });
            }
            made.places.insert(*name, start..made.spans.len());
        }
        made
    }

    /// Joins a span with the one before where they overlap; two VMs then make it nobody's.
    fn append(&mut self, start: usize, span: Span) {
        let before = self.spans.get_mut(start..).and_then(<[Span]>::last_mut);
        match before {
            Some(before) if span.valid.from < before.valid.to => {
                before.valid.to = before.valid.to.max(span.valid.to);
                before.vm = before.vm.filter(|vm| span.vm == Some(*vm));
            }
            _ => self.spans.push(span),
        }
    }

    fn find(&self, name: &K, at: Timestamp) -> Option<VmRef> {
        if self.spans.is_empty() {
            return None;
        }
        let spans = self.spans.get(self.places.get(name)?.clone())?;
        let after = spans.partition_point(|span| span.valid.from <= at);
        let span = spans.get(after.checked_sub(1)?)?;
        if span.valid.holds(at) { span.vm } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::file;
    use super::super::{Segment, SegmentKind};
    use super::*;

    const NOON: Timestamp = Timestamp(1_000);

    fn inventory(text: &str, home: &[&str]) -> Inventory {
        let data = file::parse(text, "i.toml", &["default".to_owned()], &[])
            .unwrap_or_else(|problems| panic!("{problems}"));
        let home: Vec<IpNet> = home.iter().map(|text| text.parse().expect("a network")).collect();
        Inventory::new(data, &home)
    }

    fn vxlan(vni: u32) -> AddressSpace {
        AddressSpace::of_segment(Segment::new(0, SegmentKind::Vxlan, vni))
    }

    fn name(inventory: &Inventory, vm: Option<VmRef>) -> Option<&str> {
        vm.and_then(|vm| inventory.vm(vm)).map(|vm| vm.name.as_ref())
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
        assert_eq!((inventory.vms().len(), inventory.tenants().len()), (1_000, 100));
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
            inventory.class(end(source), end(destination), 4)
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
            Inventory::default().class((None, Address::v4(a)), (None, Address::v4(b)), 4),
            TrafficClass::Transit
        );
    }
}
