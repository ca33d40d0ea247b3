//! Random records of a cloud in which much changes, for whoever answers questions to them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use vmprobe::decode::Mac;
use vmprobe::record::{InventoryRecord, WindowRecord};

const SECOND_NS: u64 = 1_000_000_000;
pub(crate) const BEGIN_NS: u64 = 1_700_000_000 * SECOND_NS;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn octet(number: u64) -> u8 {
    u8::try_from(number).expect("an octet")
}

/// Addresses that belong to this VM and that, in three address spaces, of VMs that migrate, of interfaces
/// without an address, of endpoints that were only learned, at instants that no window keeps to.
pub(crate) fn facts(random: &mut Random) -> Vec<InventoryRecord> {
    let mut facts = Vec::new();
    for fact_id in 0..120 {
        let vm = random.below(12);
        let begin = BEGIN_NS + random.below(300 * SECOND_NS);
        let end = begin + random.below(150 * SECOND_NS);
        let is_learned = random.below(6) == 0;
        let text = |kind: &str, number: u64| Some(Arc::from(format!("{kind}-{number}")));
        let space = random.below(3);
        let has_address = is_learned || random.below(4) > 0;
        let host = random.below(4);
        facts.push(InventoryRecord {
            fact_id,
            run_start_ns: BEGIN_NS,
            uuid: if is_learned { None } else { text("uuid", vm) },
            name: text("name", vm),
            tenant: if is_learned || vm == 3 { None } else { text("tenant", vm / 3) },
            tenant_shared: vm / 3 == 2,
            host: text("host", host),
            switch: if host == 0 { None } else { text("switch", host) },
            mac: (random.below(4) > 0).then(|| Mac([2, 0, 0, 0, 0, octet(vm)])),
            address: has_address.then(|| address(random.below(9))),
            segment: has_address.then(|| segment(space)),
            // What is joined has another space than its own segment.
            address_space: (has_address || random.below(2) == 0)
                .then(|| if space == 2 { segment(1) } else { segment(space) }),
            attributed: random.below(10) > 0,
            valid_from_ns: if random.below(8) == 0 { 0 } else { begin },
            valid_to_ns: (random.below(3) > 0).then_some(end),
            known_from_ns: begin,
            source: "file".into(),
            ..InventoryRecord::default()
        });
    }
    // Some are known to be otherwise by now.
    let gone: Vec<_> = facts.iter().step_by(9).cloned().collect();
    let known_to_ns = |fact: &InventoryRecord| Some(fact.known_from_ns + 1);
    facts.extend(gone.into_iter().map(|fact| {
        let known_to_ns = known_to_ns(&fact);
        InventoryRecord { known_to_ns, ..fact }
    }));
    facts
}

fn segment(number: u64) -> Arc<str> {
    format!("default/vxlan/{number}").into()
}

fn address(number: u64) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, octet(number)).into()
}

pub(crate) fn windows(random: &mut Random, count: u64) -> Vec<WindowRecord> {
    let window = |_| {
        let start = BEGIN_NS + random.below(300) * SECOND_NS;
        // One address is outside.
        let mut end = || (address(random.below(10)), Mac([2, 0, 0, 0, 0, octet(random.below(14))]));
        let ((source_address, source_mac), (destination_address, destination_mac)) = (end(), end());
        let space = segment(random.below(3));
        WindowRecord {
            window_start_ns: start,
            window_end_ns: start + SECOND_NS,
            segment: Arc::clone(&space),
            address_space: space,
            source_address,
            destination_address,
            source_mac: (random.below(5) > 0).then_some(source_mac),
            destination_mac: Some(destination_mac),
            protocol_identifier: 6,
            destination_port: if random.below(2) == 0 { 443 } else { 22 },
            application_name: "tls",
            source_network_kind: (random.below(4) == 0).then_some("home"),
            traffic_class: "transit",
            flow_count: 1,
            packet_delta_count: 1,
            octet_delta_count: 1 + random.below(1_000),
            reverse_octet_delta_count: random.below(500),
            tap: if random.below(2) == 0 { "a".into() } else { "b".into() },
            ..WindowRecord::default()
        }
    };
    (0..count).map(window).collect()
}
