//! What operators don't want to see: storage, live migration, the probe's own exports.
//!
//! In: headers. Out: whether one of the `[[filter]]`s of the configuration matches.
//! Cost: nothing without filters; a few compares each otherwise.
//! Invariants: all conditions of a filter must hold; addresses and ports in either direction.

use ipnet::IpNet;

use crate::config::FilterPlan;
use crate::inventory::SegmentKind;

use super::Headers;

/// All filters.
#[derive(Clone, Debug, Default)]
pub struct Filters(Vec<FilterPlan>);

impl Filters {
    /// From the plan.
    pub fn new(filters: &[FilterPlan]) -> Self {
        Self(filters.to_vec())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the packet is to be left out.
    #[inline]
    pub fn matches(&self, headers: &Headers) -> bool {
        !self.0.is_empty() && self.0.iter().any(|filter| holds(filter, headers))
    }
}

fn holds(filter: &FilterPlan, headers: &Headers) -> bool {
    filter.tap.is_none_or(|tap| tap == headers.tap)
        && filter.vlan.is_none_or(|vlan| in_vlan(headers, vlan))
        && filter.protocol.is_none_or(|protocol| protocol == headers.protocol)
        && filter
            .port
            .is_none_or(|port| port == headers.source_port || port == headers.destination_port)
        && filter.network.is_none_or(|network| in_network(headers, &network))
}

fn in_vlan(headers: &Headers, vlan: u16) -> bool {
    let segment = headers.segment;
    match segment.kind() {
        SegmentKind::Vlan => segment.id() == u32::from(vlan),
        SegmentKind::Qinq => {
            segment.id() >> 12 == u32::from(vlan) || segment.id() & 0xfff == u32::from(vlan)
        }
        _ => false,
    }
}

fn in_network(headers: &Headers, network: &IpNet) -> bool {
    let version = headers.ip_version;
    network.contains(&headers.source.to_ip(version))
        || network.contains(&headers.destination.to_ip(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Address;
    use crate::inventory::Segment;

    fn packet() -> Headers {
        Headers {
            segment: Segment::qinq(0, 10, 20),
            source: Address::v4([10, 1, 0, 5]),
            destination: Address::v4([10, 2, 0, 5]),
            source_port: 40_000,
            destination_port: 3_260,
            protocol: 6,
            ip_version: 4,
            ..Headers::default()
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let network = |text: &str| Some(text.parse().expect("a network"));
        let base = FilterPlan { port: Some(3_260), ..FilterPlan::default() };
        let cases = [
            (base.clone(), true),
            (FilterPlan { vlan: Some(20), ..base.clone() }, true),
            (FilterPlan { vlan: Some(30), ..base.clone() }, false),
            (FilterPlan { network: network("10.2.0.0/16"), ..base.clone() }, true),
            (FilterPlan { network: network("10.3.0.0/16"), ..base.clone() }, false),
            (FilterPlan { network: network("::/0"), ..base.clone() }, false),
            (FilterPlan { protocol: Some(17), ..base }, false),
        ];
        for (filter, wanted) in cases {
            let filters = Filters::new(std::slice::from_ref(&filter));
            assert_eq!(filters.matches(&packet()), wanted, "{filter:?}");
        }
        assert!(!Filters::default().matches(&packet()));
    }
}
