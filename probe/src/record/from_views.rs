//! Views, ended flows and alerts to records, with names and virtual machines.
//!
//! In: what the aggregator and the detectors give. Out: [`Rows`].
//! Cost: a look-up of both endpoints a conversation or flow; texts are shared.
//! Invariants: a VM is the one that had the address at the time of the traffic; a measure that is
//! not taken is null, never 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::delays::TenantDelays;
use super::ends::{LastEnds, VmTexts};
use super::group::Group;
use super::inventory::InventoryRows;
use super::ledger::{ledger_rows, tenant_delays_lost};
use super::measures;
use super::usage::usage_records;
use super::{AlertRecord, FlowRecord, Names, Rows, TapRecord, WindowRecord};
use crate::aggregate::{Conversation, ConversationKey, EndedFlows, Extra, TapView, WindowView};
use crate::decode::{Address, Mac, protocol};
use crate::detect::Alert;
use crate::flow::{EndedFlow, FlowTotals, TcpState};
use crate::index::{TapIndex, content_id};
use crate::inventory::{AddressSpace, Interval, Inventory, InventoryCell};
use crate::measure::tcp::Opening;
use crate::sources::usage::UsageQueue;
use crate::spread::FlowKey;
use crate::time::Timestamp;
use crate::window::{LateRow, WindowClock, sides};

/// Where a tap's times come from.
#[derive(Clone, Copy, Debug)]
pub struct TapClock {
    /// `file`, `tsc`, `nic` or `kernel`.
    pub source: &'static str,
    /// Bound of the error against the wall clock, where it is known.
    pub error_bound_ns: Option<u64>,
}

/// Makes records.
pub struct RecordMaker {
    pub(super) names: Names,
    /// As of the last window.
    pub(super) inventory: Arc<Inventory>,
    newest_inventory: InventoryCell,
    pub(super) inventory_rows: InventoryRows,
    pub(super) last_ends: LastEnds,
    pub(super) usage: Option<UsageQueue>,
    /// One packet in so many is followed from tap to tap.
    pub(super) path_one_in: u32,
    /// Of the conversations since [`RecordMaker::delays`].
    delays: TenantDelays,
}

impl RecordMaker {
    /// With the names of the plan and the inventory as it is known.
    pub fn new(names: Names, inventory: InventoryCell, inventory_rows: InventoryRows) -> Self {
        Self {
            names,
            inventory: inventory.load_full(),
            newest_inventory: inventory,
            inventory_rows,
            last_ends: LastEnds::default(),
            usage: None,
            path_one_in: 1,
            delays: TenantDelays::default(),
        }
    }

    /// One packet in so many is followed from tap to tap.
    #[must_use]
    pub fn following_one_in(self, packets: u32) -> Self {
        Self { path_one_in: packets, ..self }
    }

    /// Samples of what VMs use are recorded with each window.
    #[must_use]
    pub fn with_usage(self, usage: UsageQueue) -> Self {
        Self { usage: Some(usage), ..self }
    }

    /// Names of segments, spaces and taps.
    pub fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// The name of an address space.
    pub fn space(&mut self, space: AddressSpace) -> Arc<str> {
        match self.inventory.spaces().name(space) {
            Some(name) => Arc::clone(name),
            None => self.names.space(space),
        }
    }

    /// Records of a window without its conversations: taps, ledger, what has become known of the
    /// inventory. All records until the next window see the inventory as it is known now.
    pub fn window(&mut self, view: &WindowView, clocks: impl Fn(&TapView) -> TapClock) -> Rows {
        self.renew();
        let inventory = self.inventory_records(view.start);
        let vm_usage = self.usage.as_ref().map(usage_records).unwrap_or_default();
        let mut rows = Rows { inventory, vm_usage, ..Rows::default() };
        let unknown = self.unknown_segments(view);
        for tap in &view.taps {
            let here = unknown.as_ref().map(|unknown| unknown.get(&tap.tap).copied().unwrap_or(0));
            let record = self.tap(view, tap, clocks(tap), here);
            rows.taps.push(record);
        }
        rows.ledger = ledger_rows(view);
        rows
    }

    /// Sees the inventory as it is known now.
    pub fn renew(&mut self) {
        self.inventory = self.newest_inventory.load_full();
        self.last_ends = LastEnds::default();
    }

    /// Packets in segments that the inventory has no interface in, by the tap that counted them.
    fn unknown_segments(&self, view: &WindowView) -> Option<BTreeMap<TapIndex, u64>> {
        if !self.inventory.knows_segments() {
            return None;
        }
        let mut unknown = BTreeMap::new();
        for (key, conversation) in &view.conversations {
            if !self.inventory.knows_segment(key.segment) {
                let packets: u64 = conversation.packets.iter().sum();
                *unknown.entry(conversation.tap).or_default() += packets;
            }
        }
        Some(unknown)
    }

    /// Records of some conversations of a window, behind those that are there.
    pub fn conversations(
        &mut self,
        view: &WindowView,
        conversations: &[(ConversationKey, Conversation)],
        records: &mut Vec<WindowRecord>,
    ) {
        records.reserve(conversations.len());
        for (key, conversation) in conversations {
            let extra = view.conversations.extras().get(conversation.extra);
            let extra = extra.as_deref();
            let record = self.conversation((view.start, view.end), key, conversation, extra);
            if let Some(extra) = extra.filter(|extra| !extra.is_empty()) {
                let (initiator, responder) = (
                    &record.source_virtual_station_tenant,
                    &record.destination_virtual_station_tenant,
                );
                self.delays.add(initiator, responder, extra);
            }
            records.push(record);
        }
    }

    /// Delays by tenant and method of a window whose conversations were all recorded.
    pub fn delays(&mut self, view: &WindowView, rows: &mut Rows) {
        let (delays, lost) = self.delays.take((view.start, view.end));
        rows.delays = delays;
        rows.ledger.extend((lost > 0).then(|| tenant_delays_lost(view, lost)));
    }

    /// Records of what was found out of older windows: without packets, so that a window's losses
    /// are the sums over all its records.
    pub fn late(&mut self, rows: &[LateRow], windows: WindowClock) -> Vec<WindowRecord> {
        let record = |late: &LateRow| {
            let (start, end) = windows.span(late.losses.window);
            let key = ConversationKey::of(&late.row);
            let conversation = Conversation::first(&late.row, 1.0);
            let extra = Extra::of_late(&late.losses, late.row.initiator());
            self.conversation((start, end), &key, &conversation, Some(&extra))
        };
        rows.iter().map(record).collect()
    }

    /// Records of flows that have ended.
    pub fn flows(&mut self, flows: &EndedFlows) -> Rows {
        let flows = flows.iter().map(|(ended, totals)| self.flow(ended, totals)).collect();
        Rows { flows, ..Rows::default() }
    }

    /// Records of alerts.
    pub fn alerts(&mut self, alerts: &[Alert]) -> Rows {
        let alerts = alerts.iter().map(|alert| self.alert(alert)).collect();
        Rows { alerts, ..Rows::default() }
    }

    fn conversation(
        &mut self,
        (start, end): (Timestamp, Timestamp),
        key: &ConversationKey,
        conversation: &Conversation,
        extra: Option<&Extra>,
    ) -> WindowRecord {
        let ends = self.endpoints(
            key.space,
            key.ip_version,
            (key.source, key.source_mac),
            (key.destination, key.destination_mac),
            Interval { from: start, to: end },
        );
        let [source_network_kind, destination_network_kind] = ends.networks;
        let [source, destination] = ends.vms;
        let went_back = conversation.packets[1] > 0;
        let is_tcp = key.protocol == protocol::TCP;
        let measures = extra
            .filter(|_| is_tcp)
            .map_or(Group::Null, |extra| measures::of_conversation(extra, conversation.packets));
        WindowRecord {
            window_start_ns: start.0,
            window_end_ns: end.0,
            segment: self.names.segment(key.segment),
            reverse_segment: went_back.then(|| self.names.segment(key.reverse_segment)),
            address_space: self.space(key.space),
            source_address: key.source.to_ip(key.ip_version),
            destination_address: key.destination.to_ip(key.ip_version),
            source_mac: known_mac(key.source_mac),
            destination_mac: known_mac(key.destination_mac),
            protocol_identifier: key.protocol,
            destination_port: key.destination_port,
            application_name: key.application.name(),
            source_virtual_station_uuid: source.uuid,
            source_virtual_station_name: source.name,
            source_virtual_station_tenant: source.tenant,
            destination_virtual_station_uuid: destination.uuid,
            destination_virtual_station_name: destination.name,
            destination_virtual_station_tenant: destination.tenant,
            traffic_class: ends.class.name(),
            source_network_kind,
            destination_network_kind,
            flow_count: conversation.flows,
            packet_delta_count: conversation.packets[0],
            reverse_packet_delta_count: conversation.packets[1],
            octet_delta_count: conversation.octets[0],
            reverse_octet_delta_count: conversation.octets[1],
            layer2_octet_delta_count: conversation.layer2_octets[0],
            reverse_layer2_octet_delta_count: conversation.layer2_octets[1],
            late_packet_count: conversation.late_packets,
            syn_count: conversation.syns,
            connection_established_count: conversation.established,
            connection_refused_count: conversation.refused,
            connection_unanswered_count: conversation.unanswered,
            connection_half_open_count: conversation.half_open,
            sampling_rate: f64::from(conversation.sampling_rate),
            tap: self.names.tap(conversation.tap),
            contact_count: conversation.contacts,
            answered_count: conversation.answered,
            measures,
        }
    }

    fn flow(&mut self, ended: &EndedFlow, totals: Option<&FlowTotals>) -> FlowRecord {
        let flow = &ended.flow;
        let key = &flow.key;
        let (forward, reverse) = (flow.initiator.place(), flow.initiator.other().place());
        let (there, back) = sides(&flow.sides, flow.initiator);
        let (source, destination) =
            (key.address(flow.initiator), key.address(flow.initiator.other()));
        let ends = self.endpoints(
            key.space,
            key.ip_version,
            (source, there.source_mac),
            (destination, there.destination_mac),
            Interval { from: flow.record_start, to: flow.last_seen + 1 },
        );
        let [source_network_kind, destination_network_kind] = ends.networks;
        let [source_vm, destination_vm] = ends.vms;
        let answered = flow.sides[reverse].seen;
        let (segments, losses) = measures::of_flow(ended, totals);
        let of_packets = |count: &dyn Fn(&FlowTotals) -> u64| {
            // Without totals nothing happened.
            flow.measured.packets.then(|| totals.map_or(0, count))
        };
        FlowRecord {
            flow_id: flow_id(key, flow.first_seen),
            segment: self.names.segment(there.segment),
            reverse_segment: answered.then(|| self.names.segment(back.segment)),
            address_space: self.space(key.space),
            source_address: source.to_ip(key.ip_version),
            destination_address: destination.to_ip(key.ip_version),
            source_port: key.port(flow.initiator),
            destination_port: key.port(flow.initiator.other()),
            protocol_identifier: key.protocol,
            ip_version: key.ip_version,
            source_mac: known_mac(there.source_mac),
            destination_mac: known_mac(there.destination_mac),
            flow_start_ns: flow.record_start.0,
            flow_end_ns: flow.last_seen.0,
            flow_end_reason: ended.reason as u8,
            initiator_method: flow.initiator_method.name(),
            packet_delta_count: flow.packets[forward],
            reverse_packet_delta_count: flow.packets[reverse],
            octet_delta_count: flow.octets[forward],
            reverse_octet_delta_count: flow.octets[reverse],
            layer2_octet_delta_count: flow.layer2_octets[forward],
            reverse_layer2_octet_delta_count: flow.layer2_octets[reverse],
            tcp_control_bits: flow.tcp_control_bits[forward].into(),
            reverse_tcp_control_bits: flow.tcp_control_bits[reverse].into(),
            tcp_state: if flow.tcp == TcpState::NotTcp { "" } else { flow.tcp.name() },
            application_name: flow.application.name(),
            tap: self
                .names
                .tap(flow.taps[if flow.sides[forward].seen { forward } else { reverse }]),
            reverse_tap: answered.then(|| self.names.tap(flow.taps[reverse])),
            sampling_rate: ended.sampling_rate.into(),
            source_virtual_station_uuid: source_vm.uuid,
            source_virtual_station_name: source_vm.name,
            source_virtual_station_tenant: source_vm.tenant,
            destination_virtual_station_uuid: destination_vm.uuid,
            destination_virtual_station_name: destination_vm.name,
            destination_virtual_station_tenant: destination_vm.tenant,
            traffic_class: ends.class.name(),
            source_network_kind,
            destination_network_kind,
            duplicate_packet_count: of_packets(&|it| it.duplicates(flow.initiator)),
            reverse_duplicate_packet_count: of_packets(&|it| it.duplicates(flow.initiator.other())),
            icmp_error_count: of_packets(&|it| it.icmp_errors(flow.initiator)),
            reverse_icmp_error_count: of_packets(&|it| it.icmp_errors(flow.initiator.other())),
            fragment_count: of_packets(&|it| it.fragments.into()),
            snapped_packet_count: of_packets(&|it| it.snapped.into()),
            connection_opening: flow.measured.opening.map(Opening::name),
            handshake_server_rtt_ns: flow.measured.handshake_server_rtt_ns,
            handshake_client_rtt_ns: flow.measured.handshake_client_rtt_ns,
            segments,
            losses,
        }
    }

    fn alert(&mut self, alert: &Alert) -> AlertRecord {
        let finding = &alert.finding;
        let time = Interval { from: finding.first_seen, to: finding.last_seen + 1 };
        let find = |address: Option<Address>| {
            let vm = address.and_then(|address| {
                let (space, version) = (finding.space, finding.ip_version);
                self.inventory.resolve_within(space, address, version, None, time)
            });
            self.vm(vm, time)
        };
        let (source, destination) = (find(finding.source), find(finding.destination));
        let features: serde_json::Map<_, _> = finding
            .features
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        AlertRecord {
            alert_id: alert.id.as_str().into(),
            detector: finding.detector.into(),
            state: alert.state.name(),
            severity: finding.severity.name(),
            confidence: finding.confidence,
            mitre_technique: finding.mitre_technique.map(Into::into),
            source_address: finding.source.map(|address| address.to_ip(finding.ip_version)),
            destination_address: finding
                .destination
                .map(|address| address.to_ip(finding.ip_version)),
            destination_port: finding.destination_port,
            segment: self.names.segment(finding.segment),
            address_space: self.space(finding.space),
            title: title(alert, &source, &destination).into(),
            source_virtual_station_uuid: source.uuid,
            source_virtual_station_name: source.name,
            source_virtual_station_tenant: source.tenant,
            destination_virtual_station_uuid: destination.uuid,
            destination_virtual_station_name: destination.name,
            destination_virtual_station_tenant: destination.tenant,
            first_seen_ns: finding.first_seen.0,
            last_seen_ns: finding.last_seen.0,
            statistic: finding.statistic,
            threshold: finding.threshold,
            baseline: finding.baseline,
            event_count: finding.events,
            features: serde_json::Value::Object(features).to_string().into(),
            silent_if: finding.silent_if.as_str().into(),
            seen_by_probes: None,
        }
    }

    fn tap(
        &mut self,
        view: &WindowView,
        tap: &TapView,
        clock: TapClock,
        unknown: Option<u64>,
    ) -> TapRecord {
        let said = tap.totals.cloud_packets > 0;
        let cloud = |id: u64| said.then(|| format!("{id:016x}").into());
        TapRecord {
            window_start_ns: view.start.0,
            tap: self.names.tap(tap.tap),
            host: self.names.tap_host(tap.tap).map(Into::into),
            switch: self.names.tap_switch(tap.tap).map(Into::into),
            port: self.names.port_of(tap.tap),
            packet_count: tap.totals.packets,
            octet_count: tap.totals.octets,
            duplicate_packet_count: tap.totals.duplicates,
            copy_other_tap_packet_count: tap.totals.copies_other_tap,
            tcp_conversation_count: tap.tcp_conversations,
            tcp_one_way_conversation_count: tap.tcp_one_way_conversations,
            coverage: coverage(tap),
            segment_unknown_packet_count: unknown,
            copy_ambiguous_packet_count: tap.totals.ambiguous,
            snapped_packet_count: tap.totals.snapped,
            segment_unmapped_packet_count: tap.totals.segment_unmapped,
            mirror_sequence_gap_count: tap.has_sequence.then_some(tap.totals.mirror_gaps),
            cloud_endpoint_id: cloud(tap.totals.cloud_endpoint),
            cloud_attachment_id: cloud(tap.totals.cloud_attachment),
            clock_source: clock.source,
            clock_error_bound_ns: clock.error_bound_ns,
        }
    }
}

/// One line for people.
fn title(alert: &Alert, source: &VmTexts, destination: &VmTexts) -> String {
    let finding = &alert.finding;
    let who = |vm: &VmTexts, address: Option<Address>| {
        let address = address.map(|address| address.to_ip(finding.ip_version).to_string());
        match (&vm.name, address) {
            (Some(name), Some(address)) => format!("{name} ({address})"),
            (_, address) => address.unwrap_or_else(|| "several sources".to_owned()),
        }
    };
    match finding.detector {
        "port_scan" => format!("{} scans ports", who(source, finding.source)),
        "syn_flood" => format!(
            "SYN flood on {} port {}",
            who(destination, finding.destination),
            finding.destination_port.unwrap_or(0)
        ),
        other => other.to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn coverage(tap: &TapView) -> Option<f64> {
    let (all, one_way) = (tap.tcp_conversations, tap.tcp_one_way_conversations);
    (all > 0).then(|| (all - one_way) as f64 / all as f64)
}

fn known_mac(mac: Mac) -> Option<Mac> {
    (mac != Mac::default()).then_some(mac)
}

/// From the key and the time of the first packet: the same in every run on the same
/// packets, and in each record of one biflow.
pub(super) fn flow_id(key: &FlowKey, first_seen: Timestamp) -> u64 {
    let space = key.space.bits().to_be_bytes();
    let ports = [key.low_port.to_be_bytes(), key.high_port.to_be_bytes()];
    let protocol = [key.protocol, key.ip_version];
    let first_seen = first_seen.0.to_be_bytes();
    let addresses = key.low.0.iter().chain(&key.high.0);
    let octets = space.iter().chain(addresses).chain(ports.iter().flatten());
    content_id(octets.chain(&protocol).chain(&first_seen))
}
