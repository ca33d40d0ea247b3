//! Classes of traffic.
//!
//! In: whom both ends belong to. Out: [`TrafficClass`].
//! Invariants: an end outside makes traffic north-south whatever the other end is.
//! Source: ARCHITECTURE.md, "Who is who".

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

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

/// Who is inside beside the VMs of the inventory, and who belongs to everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassRules {
    /// An address in one of these is inside, without a tenant, which differs from every tenant.
    pub home_networks: Vec<IpNet>,
    /// Tenants whose VMs serve all others (DNS, NTP, package mirrors): traffic with them is east-west,
    /// as if they were the other end's own.
    pub shared_tenants: BTreeSet<Arc<str>>,
    /// The same by address, for services that are no VM, or that many tenants reach by one address.
    pub shared_networks: Vec<IpNet>,
}

/// What an address says of its end, whoever is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// In one of the home networks.
    Home,
    /// In one of the shared networks, which counts before the home networks.
    Shared,
    /// A multicast or broadcast destination, which is where its sender is.
    Group,
}

impl NetworkKind {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Shared => "shared",
            Self::Group => "group",
        }
    }
}

/// Whom an endpoint belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side<'a> {
    Tenant(&'a str),
    /// Inside, of no tenant that is known.
    Home,
    /// Of everybody.
    Shared,
    Outside,
}

impl ClassRules {
    /// What the address of a source says.
    pub fn of_source(&self, ip: IpAddr) -> Option<NetworkKind> {
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        if among(&self.shared_networks) {
            Some(NetworkKind::Shared)
        } else {
            among(&self.home_networks).then_some(NetworkKind::Home)
        }
    }

    /// What the address of a destination says.
    pub fn of_destination(&self, ip: IpAddr) -> Option<NetworkKind> {
        if reaches_all(ip) { Some(NetworkKind::Group) } else { self.of_source(ip) }
    }

    /// Whether a tenant serves all others.
    pub fn is_shared(&self, tenant: &str) -> bool {
        self.shared_tenants.contains(tenant)
    }

    /// `is_vm`: whether a VM is at the address; `tenant`: its tenant, if it is known. The
    /// program of queries says the same in SQL (`side_of`).
    pub(super) fn side<'a>(
        &self,
        is_vm: bool,
        tenant: Option<&'a str>,
        network: Option<NetworkKind>,
    ) -> Side<'a> {
        match tenant {
            _ if network == Some(NetworkKind::Shared) => Side::Shared,
            Some(tenant) if self.is_shared(tenant) => Side::Shared,
            Some(tenant) => Side::Tenant(tenant),
            None if is_vm || network == Some(NetworkKind::Home) => Side::Home,
            None => Side::Outside,
        }
    }
}

impl Side<'_> {
    pub(super) fn class(from: Self, to: Self) -> TrafficClass {
        match (from, to) {
            (Self::Outside, Self::Outside) => TrafficClass::Transit,
            (Self::Outside, _) | (_, Self::Outside) => TrafficClass::NorthSouth,
            (Self::Shared, _) | (_, Self::Shared) => TrafficClass::EastWest,
            (one, other) if one == other => TrafficClass::EastWest,
            _ => TrafficClass::InterTenant,
        }
    }
}

/// A multicast or broadcast destination is where its sender is.
fn reaches_all(ip: IpAddr) -> bool {
    ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_belongs_to_the_other_end() {
        let rules = ClassRules {
            home_networks: vec!["192.168.0.0/16".parse().expect("a network")],
            shared_tenants: ["infra".into()].into(),
            shared_networks: vec!["169.254.169.254/32".parse().expect("a network")],
        };
        let ip = |text: &str| text.parse().expect("an address");
        let side = |is_vm, tenant, text| rules.side(is_vm, tenant, rules.of_source(ip(text)));
        let (a, b) = (side(true, Some("a"), "10.0.0.1"), side(true, Some("b"), "10.0.0.2"));
        let dns = side(true, Some("infra"), "10.0.0.53");
        let metadata = side(false, None, "169.254.169.254");
        let (home, out) = (side(false, None, "192.168.0.1"), side(false, None, "8.8.8.8"));
        assert!(Side::class(a, b) == TrafficClass::InterTenant);
        assert!(Side::class(a, dns) == TrafficClass::EastWest);
        assert!(Side::class(metadata, b) == TrafficClass::EastWest);
        assert!(Side::class(home, dns) == TrafficClass::EastWest);
        assert!(Side::class(home, a) == TrafficClass::InterTenant);
        assert!(Side::class(out, dns) == TrafficClass::NorthSouth);
        assert!(side(true, None, "10.0.0.9") == Side::Home);
        assert_eq!(rules.of_destination(ip("224.0.0.251")), Some(NetworkKind::Group));
        assert_eq!(rules.of_source(ip("224.0.0.251")), None);
    }
}
