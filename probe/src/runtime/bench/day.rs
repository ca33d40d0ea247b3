//! The records of a cloud, second by second.
//!
//! In: VMs, the second. Out: [`Rows`] as a live run with one worker writes them for a window.
//! Cost: some hundred nanoseconds a row.
//! Invariants: the same VMs and seconds give the same rows.
//!
//! Tenants of ten VMs all have 10.0.0.0/24, in a VXLAN segment each. A VM talks to eight of its own
//! tenant, by services of their own; every sixth conversation is of a user outside, one of 4,096.
//! Few VMs have most of the traffic. Three of four conversations are TCP; half of these have
//! samples of delay in a window, and one in fifty a retransmission. Every fourth conversation ends
//! a flow. The inventory names all VMs from the first window on; once a minute one migrates.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::decode::Mac;
use crate::measure::histogram::Summary;
use crate::record::{
    AlertRecord, Delays, FlowRecord, Group, InventoryRecord, LedgerRecord, Rows, SegmentCounts,
    TapRecord, WindowMeasures, WindowRecord,
};
use crate::time::Timestamp;

/// Begin of the day, at midnight.
pub(super) const BEGIN_S: u64 = 1_735_689_600;
const SECOND_NS: u64 = 1_000_000_000;
const TENANT_VMS: u32 = 10;
const PEERS: u64 = 8;
const USERS: u64 = 4_096;
/// Rows of the ledger in a window: those of a live run with one worker and one port.
const LEDGER_ROWS: u64 = 24;
/// Seconds between two alerts, and between two migrations.
const ALERT_S: u64 = 60;
/// MAC address of all who come from outside.
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// Hosts that VMs stand on and migrate between.
const HOSTS: u64 = 40;
/// Services: port, application.
const SERVICES: [(u16, &str); 6] =
    [(443, "tls"), (80, "http"), (5_432, "postgresql"), (6_379, "redis"), (53, "dns"), (22, "ssh")];

pub(super) struct Day {
    vms: Vec<Vm>,
    tap: Arc<str>,
    random: u64,
    /// Start of the first window.
    begun: Option<Timestamp>,
    facts: u64,
}

struct Vm {
    uuid: Arc<str>,
    name: Arc<str>,
    tenant: Arc<str>,
    segment: Arc<str>,
    address: IpAddr,
    mac: Mac,
    /// What the inventory says of it now.
    fact: InventoryRecord,
}

/// A record of a talk, with the columns that say who is at its ends.
macro_rules! between {
    ($record:ident, $ends:expr, { $($rest:tt)* }) => {{
        let Ends { talk, from, to } = $ends;
        $record {
            segment: Arc::clone(&to.segment),
            reverse_segment: Some(Arc::clone(&to.segment)),
            address_space: Arc::clone(&to.segment),
            source_address: from.map_or(talk.user, |from| from.address),
            destination_address: to.address,
            source_mac: Some(from.map_or(ROUTER, |from| from.mac)),
            destination_mac: Some(to.mac),
            destination_port: talk.port,
            protocol_identifier: talk.protocol,
            application_name: talk.application,
            source_virtual_station_uuid: from.map(|from| Arc::clone(&from.uuid)),
            source_virtual_station_name: from.map(|from| Arc::clone(&from.name)),
            source_virtual_station_tenant: from.map(|from| Arc::clone(&from.tenant)),
            destination_virtual_station_uuid: Some(Arc::clone(&to.uuid)),
            destination_virtual_station_name: Some(Arc::clone(&to.name)),
            destination_virtual_station_tenant: Some(Arc::clone(&to.tenant)),
            traffic_class: if from.is_some() { "east_west" } else { "north_south" },
            sampling_rate: 1.0,
            $($rest)*
        }
    }};
}

/// Who is at the ends of a talk.
#[derive(Clone, Copy)]
struct Ends<'a> {
    talk: &'a Talk,
    from: Option<&'a Vm>,
    to: &'a Vm,
}

/// Who talks to whom.
struct Talk {
    from: Option<usize>,
    user: IpAddr,
    to: usize,
    port: u16,
    application: &'static str,
    protocol: u8,
    packets: u64,
    octets: u64,
}

impl Day {
    pub(super) fn new(vms: u32) -> Self {
        let vms = (0..vms).map(vm).collect();
        Self { vms, tap: "rack-1".into(), random: 1, begun: None, facts: 0 }
    }

    /// The rows of the window that begins at `start`, in a run that has just closed it.
    pub(super) fn second(&mut self, start: Timestamp, conversations: u32) -> Rows {
        let mut rows = Rows::default();
        for number in 0..u64::from(conversations) {
            let talk = self.talk();
            if number % 4 == 0 {
                let flow = self.flow(&talk, start);
                rows.flows.push(flow);
            }
            let window = self.window(&talk, start);
            rows.windows.push(window);
        }
        let ns = start.as_ns();
        rows.ledger = (0..LEDGER_ROWS).map(|number| ledger(number, ns)).collect();
        rows.taps = vec![TapRecord {
            window_start_ns: ns,
            tap: Arc::clone(&self.tap),
            ..TapRecord::default()
        }];
        if self.begun.is_none() {
            self.begun = Some(start);
            rows.inventory = self.all_facts(start);
        } else if (ns / SECOND_NS).is_multiple_of(ALERT_S) {
            rows.inventory = self.migration(start);
        }
        if (ns / SECOND_NS).is_multiple_of(ALERT_S) {
            let alert = self.alert(start);
            rows.alerts.push(alert);
        }
        rows
    }

    /// What the inventory says at the start.
    fn all_facts(&mut self, start: Timestamp) -> Vec<InventoryRecord> {
        for vm in &mut self.vms {
            self.facts += 1;
            vm.fact = InventoryRecord {
                fact_id: self.facts,
                run_start_ns: start.as_ns(),
                known_from_ns: start.as_ns(),
                ..vm.fact.clone()
            };
        }
        self.vms.iter().map(|vm| vm.fact.clone()).collect()
    }

    /// A VM goes to another host: what was known is otherwise, and two facts take its place.
    fn migration(&mut self, at: Timestamp) -> Vec<InventoryRecord> {
        let place = index(self.below(self.vms.len() as u64));
        let host = self.below(HOSTS);
        let Some(vm) = self.vms.get_mut(place) else { return Vec::new() };
        let (ns, old) = (at.as_ns(), vm.fact.clone());
        let fact = |fact_id, known_to_ns| InventoryRecord {
            fact_id,
            known_from_ns: ns,
            known_to_ns,
            ..old.clone()
        };
        let before = InventoryRecord { valid_to_ns: Some(ns), ..fact(self.facts + 1, None) };
        let after = InventoryRecord {
            valid_from_ns: ns,
            host: Some(format!("host-{host:02}").into()),
            switch: Some(format!("host-{host:02}/br0").into()),
            ..fact(self.facts + 2, None)
        };
        self.facts += 2;
        vm.fact = after.clone();
        vec![InventoryRecord { known_to_ns: Some(ns), ..old }, before, after]
    }

    /// SplitMix64.
    fn bits(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(limit);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    fn talk(&mut self) -> Talk {
        let count = self.vms.len() as u64;
        // The product of two even shares: few VMs have most.
        let most = self.below(count);
        let to = index(self.below(most + 1));
        let tenant = to / 10 * 10;
        let peer = self.below(PEERS);
        let is_outside = self.below(6) == 0;
        let from = (tenant + (to + 1 + index(peer)) % 10).min(self.vms.len() - 1);
        let (port, application) = SERVICES[(to + index(peer)) % SERVICES.len()];
        let [.., high, low] = self.below(USERS).to_be_bytes();
        let protocol = if self.below(4) == 0 { 17 } else { 6 };
        let packets = 1 + self.below(40);
        let octets = packets * (60 + self.below(1_200));
        Talk {
            from: (!is_outside).then_some(from),
            user: Ipv4Addr::new(198, 18, high, low).into(),
            to,
            port,
            application,
            protocol,
            packets,
            octets,
        }
    }

    fn window(&mut self, talk: &Talk, start: Timestamp) -> WindowRecord {
        let measures = if talk.protocol == 6 { self.measures() } else { Group::Null };
        let Some(ends) = self.ends(talk) else { return WindowRecord::default() };
        between!(WindowRecord, ends, {
            window_start_ns: start.as_ns(),
            window_end_ns: start.as_ns() + SECOND_NS,
            flow_count: 1,
            packet_delta_count: talk.packets,
            reverse_packet_delta_count: talk.packets / 2 + 1,
            octet_delta_count: talk.octets,
            reverse_octet_delta_count: talk.octets / 3 + 40,
            layer2_octet_delta_count: talk.octets + 14 * talk.packets,
            reverse_layer2_octet_delta_count: talk.octets / 3 + 54,
            tap: Arc::clone(&self.tap),
            measures,
            ..WindowRecord::default()
        })
    }

    fn ends<'a>(&'a self, talk: &'a Talk) -> Option<Ends<'a>> {
        let from = talk.from.and_then(|from| self.vms.get(from));
        self.vms.get(talk.to).map(|to| Ends { talk, from, to })
    }

    fn measures(&mut self) -> Group<WindowMeasures> {
        let mut measures = WindowMeasures {
            delays: [None; 7],
            segments: SegmentCounts([[0; 2]; 15]),
            lost_packets: [[0; 2]; 4],
            loss: [[Some(0.0); 2]; 2],
        };
        if self.below(2) == 0 {
            let least = 100_000 + self.below(400_000);
            let spread = self.below(300_000);
            let count = 1 + self.below(8);
            let summary = Summary {
                count,
                sum_ns: count * (least + spread / 2),
                min_ns: least,
                max_ns: least + spread,
            };
            let percentiles_ns = [least + spread / 2, least + spread, least + spread];
            measures.delays[4] = Some(Delays { summary, percentiles_ns });
        }
        if self.below(50) == 0 {
            measures.segments.0[0][0] = 1;
        }
        Group::Own(Arc::new(measures))
    }

    fn flow(&mut self, talk: &Talk, start: Timestamp) -> FlowRecord {
        let flow_id = self.bits();
        let end = start.as_ns() + self.below(SECOND_NS);
        let length = self.below(60 * SECOND_NS);
        let source_port = u16::try_from(32_768 + self.below(28_000)).unwrap_or(0);
        let rtt = 100_000 + self.below(400_000);
        let is_tcp = talk.protocol == 6;
        let Some(ends) = self.ends(talk) else { return FlowRecord::default() };
        between!(FlowRecord, ends, {
            flow_id,
            source_port,
            ip_version: 4,
            flow_start_ns: end.saturating_sub(length),
            flow_end_ns: end,
            flow_end_reason: 3,
            initiator_method: "syn",
            packet_delta_count: talk.packets * 10,
            reverse_packet_delta_count: talk.packets * 5,
            octet_delta_count: talk.octets * 10,
            reverse_octet_delta_count: talk.octets * 3,
            tcp_control_bits: if is_tcp { 0x1b } else { 0 },
            reverse_tcp_control_bits: if is_tcp { 0x1b } else { 0 },
            tcp_state: if is_tcp { "closed" } else { "" },
            tap: Arc::clone(&self.tap),
            reverse_tap: Some(Arc::clone(&self.tap)),
            handshake_server_rtt_ns: is_tcp.then_some(rtt),
            handshake_client_rtt_ns: is_tcp.then_some(rtt / 2),
            ..FlowRecord::default()
        })
    }

    fn alert(&mut self, start: Timestamp) -> AlertRecord {
        let talk = self.talk();
        AlertRecord {
            last_seen_ns: start.as_ns(),
            first_seen_ns: start.as_ns(),
            detector: "port_scan".into(),
            severity: "medium",
            state: "open",
            source_address: Some(talk.user),
            destination_address: self.vms.get(talk.to).map(|vm| vm.address),
            title: "port scan".into(),
            ..AlertRecord::default()
        }
    }
}

fn ledger(number: u64, ns: u64) -> LedgerRecord {
    LedgerRecord {
        window_start_ns: ns,
        scope: "probe",
        measure: format!("cause_{number}").into(),
        packet_count: number * 1_000,
        ..LedgerRecord::default()
    }
}

fn vm(number: u32) -> Vm {
    let (tenant, place) = (number / TENANT_VMS, number % TENANT_VMS);
    let segment: Arc<str> = format!("default/vxlan/{}", 10_000 + tenant).into();
    let [.., high, low] = tenant.to_be_bytes();
    let host = u8::try_from(place + 1).unwrap_or(u8::MAX);
    let uuid: Arc<str> =
        format!("5f0c1e2a-{number:04x}-4000-8000-{:012x}", u64::from(number) * 7_919).into();
    let name: Arc<str> = format!("vm-{tenant:03}-{place}").into();
    let tenant: Arc<str> = format!("tenant-{tenant:03}").into();
    let address = Ipv4Addr::new(10, 0, 0, host).into();
    let mac = Mac([2, 0x16, 0x3e, high, low, host]);
    let on = u64::from(number) % HOSTS;
    let fact = InventoryRecord {
        uuid: Some(Arc::clone(&uuid)),
        name: Some(Arc::clone(&name)),
        tenant: Some(Arc::clone(&tenant)),
        host: Some(format!("host-{on:02}").into()),
        switch: Some(format!("host-{on:02}/br0").into()),
        mac: Some(mac),
        address: Some(address),
        segment: Some(Arc::clone(&segment)),
        address_space: Some(Arc::clone(&segment)),
        attributed: true,
        source: "file".into(),
        ..InventoryRecord::default()
    };
    Vm { uuid, name, tenant, segment, address, mac, fact }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seconds_are_the_same_and_look_like_a_cloud() {
        let second = || {
            let mut day = Day::new(1_000);
            day.second(Timestamp::from_parts(1_735_689_600, 0), 2_000)
        };
        let rows = second();
        assert_eq!(rows, second());
        assert_eq!((rows.windows.len(), rows.flows.len(), rows.alerts.len()), (2_000, 500, 1));
        assert_eq!(rows.inventory.len(), 1_000);
        let outside = rows.windows.iter().filter(|row| row.traffic_class == "north_south").count();
        assert!((200..500).contains(&outside), "{outside}");
        for row in &rows.windows {
            let (from, to) =
                (&row.source_virtual_station_tenant, &row.destination_virtual_station_tenant);
            assert!(from.is_none() || from == to, "{row:?}");
            assert!(from.is_none() || row.source_address != row.destination_address, "{row:?}");
        }
    }
}
