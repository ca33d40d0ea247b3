//! Every column of every table: name, type, unit, Information Element, meaning.
//!
//! In: nothing. Out: [`Table`], [`Rows`], and a row struct a table.
//! The column behind `by` files a row: under its hour, or where that is further than an hour from
//! the time that the packets have come to (a stamp that is wrong by years), under the nearest hour
//! that is not. So a query over a time asks the column, never the folder alone.
//! Invariants: a null says "not measured" or "not known", never 0; a count without an "of both
//! directions" stands beside its `reverse_` twin.
//! Source: numbers, IANA's registry "IPFIX Entities"; 349–352 are its layer-2 and virtual station
//! elements.
//!
//! Another table needs nothing but its entry here.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value as Json;

use super::column::{Column, ColumnBuilder, Element, Value};
use super::group::{Columns, Group, joined, length};
use super::measures::{FlowLosses, SegmentCounts, WindowMeasures};
use super::schema::{Record, TableVisitor};
use crate::decode::Mac;
use crate::time::Timestamp;

tables! {
    /// Conversations: what two endpoints did for one service in one window.
    Windows "windows" as windows: WindowRecord
    by window_start_ns, sorted by window_start_ns address_space source_address
        destination_address protocol_identifier destination_port
    {
        /// First instant of the window, since the epoch, UTC.
        window_start_ns: u64, "ns", Element::None;
        /// First instant after the window.
        window_end_ns: u64, "ns", Element::None;
        /// Segment that the initiator's packets were seen in.
        segment: Arc<str>, "domain/kind/id", Element::None;
        /// Segment that the responder's packets were seen in; null where none was seen.
        reverse_segment: Option<Arc<str>>, "domain/kind/id", Element::None;
        /// Address space that keeps equal addresses of different tenants apart.
        address_space: Arc<str>, "", Element::None;
        /// Address of the initiator.
        source_address: IpAddr, "RFC 5952", Element::Ie(&[8, 27]);
        /// Address of the responder.
        destination_address: IpAddr, "RFC 5952", Element::Ie(&[12, 28]);
        /// MAC address on the initiator's side; null without an inner Ethernet header.
        source_mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::Ie(&[56]);
        /// MAC address on the responder's side; null without an inner Ethernet header.
        destination_mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::Ie(&[80]);
        /// IP protocol.
        protocol_identifier: u8, "IANA", Element::Ie(&[4]);
        /// Port of the responder; 0 where the protocol has none.
        destination_port: u16, "", Element::Ie(&[11]);
        /// Application.
        application_name: &'static str, "", Element::Ie(&[96]);
        /// VM at the source address, as known when the record was made; null where the inventory
        /// names none.
        source_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        source_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        source_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// VM at the destination address, as known when the record was made; null where the
        /// inventory names none.
        destination_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        destination_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        destination_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// east-west, inter-tenant, north-south or transit.
        traffic_class: &'static str, "", Element::None;
        /// What the configuration says of the source address, whoever is there: home (in
        /// inventory.home_networks), shared (in inventory.shared_networks); null for nothing.
        source_network_kind: Option<&'static str>, "", Element::None;
        /// The same of the destination address, and group where it is multicast or broadcast, which
        /// is where its sender is.
        destination_network_kind: Option<&'static str>, "", Element::None;
        /// Flows with at least one packet in the window.
        flow_count: u64, "flows", Element::Ie(&[3]);
        /// Logical packets, initiator to responder.
        packet_delta_count: u64, "packets", Element::Ie(&[2]);
        /// Logical packets, responder to initiator.
        reverse_packet_delta_count: u64, "packets", Element::Reverse(2);
        /// IP octets, initiator to responder.
        octet_delta_count: u64, "octets", Element::Ie(&[1]);
        /// IP octets, responder to initiator.
        reverse_octet_delta_count: u64, "octets", Element::Reverse(1);
        /// Octets of the inner Ethernet header without tags plus IP, initiator to responder.
        layer2_octet_delta_count: u64, "octets", Element::Ie(&[352]);
        /// Octets of the inner Ethernet header without tags plus IP, responder to initiator.
        reverse_layer2_octet_delta_count: u64, "octets", Element::Reverse(352);
        /// Packets among these that belong to an older window that was closed already.
        late_packet_count: u64, "packets", Element::None;
        /// TCP flows whose first SYN came in the window.
        syn_count: u64, "flows", Element::None;
        /// TCP connections that were established in the window.
        connection_established_count: u64, "flows", Element::None;
        /// TCP connections that were refused by a reset.
        connection_refused_count: u64, "flows", Element::None;
        /// TCP connections given up without any answer.
        connection_unanswered_count: u64, "flows", Element::None;
        /// TCP connections whose SYN-ACK came in the window, and up to its end nothing that completes
        /// the handshake.
        connection_half_open_count: u64, "flows", Element::None;
        /// Share of flows that was looked at, 0–1; below 1 the probe shed whole flows.
        sampling_rate: f64, "", Element::Ie(&[311]);
        /// Tap that saw the initiator's first packet first; at equal times the one configured first.
        tap: Arc<str>, "", Element::None;
        /// Flows that asked for something with their first packet in the window: TCP that begins without
        /// ACK and RST, UDP.
        contact_count: u64, "flows", Element::None;
        /// Flows whose first answer, other than a reset, came in the window.
        answered_count: u64, "flows", Element::None;
    } with {
        /// What was measured of its TCP segments.
        measures: WindowMeasures;
    }

    /// Biflows that ended, or that live longer than the active timeout; several records of one
    /// biflow share `flow_id` and count since the record before.
    Flows "flows" as flows: FlowRecord
    by flow_end_ns, sorted by flow_end_ns flow_start_ns flow_id
    {
        /// Identity of the biflow, derived from its key and its first packet's time.
        flow_id: u64, "", Element::Ie(&[148]);
        /// Segment that the initiator's packets were seen in.
        segment: Arc<str>, "domain/kind/id", Element::None;
        /// Segment that the responder's packets were seen in; null where none was seen.
        reverse_segment: Option<Arc<str>>, "domain/kind/id", Element::None;
        /// Address space that keeps equal addresses of different tenants apart.
        address_space: Arc<str>, "", Element::None;
        /// Address of the initiator.
        source_address: IpAddr, "RFC 5952", Element::Ie(&[8, 27]);
        /// Address of the responder.
        destination_address: IpAddr, "RFC 5952", Element::Ie(&[12, 28]);
        /// Port of the initiator; 0 where the protocol has none.
        source_port: u16, "", Element::Ie(&[7]);
        /// Port of the responder; 0 where the protocol has none.
        destination_port: u16, "", Element::Ie(&[11]);
        /// IP protocol.
        protocol_identifier: u8, "IANA", Element::Ie(&[4]);
        /// 4 or 6.
        ip_version: u8, "", Element::Ie(&[60]);
        /// MAC address on the initiator's side; null without an inner Ethernet header.
        source_mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::Ie(&[56]);
        /// MAC address on the responder's side; null without an inner Ethernet header.
        destination_mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::Ie(&[80]);
        /// First packet that this record counts, since the epoch, UTC.
        flow_start_ns: u64, "ns", Element::Ie(&[156]);
        /// Last packet that this record counts.
        flow_end_ns: u64, "ns", Element::Ie(&[157]);
        /// 1 idle timeout, 2 active timeout, 3 end of flow, 4 forced end, 5 lack of resources.
        flow_end_reason: u8, "IANA", Element::Ie(&[136]);
        /// How the initiator was told: syn, first_packet_and_port or first_packet.
        initiator_method: &'static str, "", Element::None;
        /// Logical packets, initiator to responder.
        packet_delta_count: u64, "packets", Element::Ie(&[2]);
        /// Logical packets, responder to initiator.
        reverse_packet_delta_count: u64, "packets", Element::Reverse(2);
        /// IP octets, initiator to responder.
        octet_delta_count: u64, "octets", Element::Ie(&[1]);
        /// IP octets, responder to initiator.
        reverse_octet_delta_count: u64, "octets", Element::Reverse(1);
        /// Octets of the inner Ethernet header without tags plus IP, initiator to responder.
        layer2_octet_delta_count: u64, "octets", Element::Ie(&[352]);
        /// Octets of the inner Ethernet header without tags plus IP, responder to initiator.
        reverse_layer2_octet_delta_count: u64, "octets", Element::Reverse(352);
        /// TCP flags seen, or-ed together, initiator to responder.
        tcp_control_bits: u16, "RFC 9565", Element::Ie(&[6]);
        /// TCP flags seen, or-ed together, responder to initiator.
        reverse_tcp_control_bits: u16, "RFC 9565", Element::Reverse(6);
        /// TCP state at the end of the record; empty for other protocols.
        tcp_state: &'static str, "", Element::None;
        /// Application.
        application_name: &'static str, "", Element::Ie(&[96]);
        /// Tap that saw the initiator's first packet first; at equal times the one configured first.
        tap: Arc<str>, "", Element::None;
        /// Tap that saw the responder's first packet first; null where none was seen.
        reverse_tap: Option<Arc<str>>, "", Element::None;
        /// Packets left out because the same one was seen before at its tap, initiator to
        /// responder; null where it is not measured.
        duplicate_packet_count: Option<u64>, "packets", Element::None;
        /// Packets left out because the same one was seen before at its tap, responder to
        /// initiator; null where it is not measured.
        reverse_duplicate_packet_count: Option<u64>, "packets", Element::None;
        /// ICMP errors that quote a packet from initiator to responder (each is a packet of its own
        /// flow too), at most 65,535; null where it is not measured.
        icmp_error_count: Option<u64>, "packets", Element::None;
        /// ICMP errors that quote a packet from responder to initiator, likewise.
        reverse_icmp_error_count: Option<u64>, "packets", Element::None;
        /// How far the opening of a TCP connection came: unseen, unanswered, refused, half_open or
        /// open; null where it is not measured.
        connection_opening: Option<&'static str>, "", Element::None;
        /// Delay from SYN to SYN-ACK; null without a sample (a repeated SYN gives none).
        handshake_server_rtt_ns: Option<u64>, "ns", Element::None;
        /// Delay from SYN-ACK to ACK; null without a sample (a repeated SYN-ACK gives none).
        handshake_client_rtt_ns: Option<u64>, "ns", Element::None;
        /// IP fragments among the packets, both directions; null where it is not measured.
        fragment_count: Option<u64>, "packets", Element::None;
        /// Packets that the capture or the mirror cut, both directions; null where it is not measured.
        snapped_packet_count: Option<u64>, "packets", Element::None;
        /// Share of flows that was looked at, 0–1; below 1 the probe shed whole flows.
        sampling_rate: f64, "", Element::Ie(&[311]);
        /// VM at the source address, as known when the record was made; null where the inventory
        /// names none.
        source_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        source_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        source_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// VM at the destination address, as known when the record was made; null where the
        /// inventory names none.
        destination_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        destination_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        destination_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// east-west, inter-tenant, north-south or transit.
        traffic_class: &'static str, "", Element::None;
        /// What the configuration says of the source address, as in `windows`.
        source_network_kind: Option<&'static str>, "", Element::None;
        /// What it says of the destination address, as in `windows`.
        destination_network_kind: Option<&'static str>, "", Element::None;
    } with {
        /// What happened by its TCP segments.
        segments: SegmentCounts;
        /// What they lost.
        losses: FlowLosses;
    }

    /// Transactions of applications: a name asked for (DNS), a connection opened (TLS), something asked
    /// for by HTTP/1. Columns of other protocols are null. [What is read of each](../../../docs/apps.md).
    Apps "apps" as apps: AppRecord
    by transaction_start_ns, sorted by transaction_start_ns flow_id application_name
    {
        /// First packet of what was asked, since the epoch, UTC; where that was not seen, of the answer.
        transaction_start_ns: u64, "ns", Element::None;
        /// From there to the first packet of the answer; null where either was not seen.
        response_time_ns: Option<u64>, "ns", Element::None;
        /// answered; unanswered: no answer was seen within 10 s (DNS) or 60 s; answer_only: what was
        /// asked was not seen, or nothing was.
        transaction_state: &'static str, "", Element::None;
        /// Something of it is missing, because it was longer than what is read or was captured.
        is_truncated: bool, "", Element::None;
        /// Identity of the biflow that it is of, as in `flows`.
        flow_id: u64, "", Element::Ie(&[148]);
        /// Segment that the initiator's packets were seen in.
        segment: Arc<str>, "domain/kind/id", Element::None;
        /// Address space that keeps equal addresses of different tenants apart.
        address_space: Arc<str>, "", Element::None;
        /// Address of the flow's initiator.
        source_address: IpAddr, "RFC 5952", Element::Ie(&[8, 27]);
        /// Address of the flow's responder.
        destination_address: IpAddr, "RFC 5952", Element::Ie(&[12, 28]);
        /// Port of the initiator.
        source_port: u16, "", Element::Ie(&[7]);
        /// Port of the responder.
        destination_port: u16, "", Element::Ie(&[11]);
        /// IP protocol.
        protocol_identifier: u8, "IANA", Element::Ie(&[4]);
        /// dns, tls or http.
        application_name: &'static str, "", Element::Ie(&[96]);
        /// Tap that saw the initiator's first packet first; at equal times the one configured first.
        tap: Arc<str>, "", Element::None;
        /// VM at the source address, as known when the record was made; null where the inventory
        /// names none.
        source_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        source_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        source_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// VM at the destination address, as known when the record was made; null where the
        /// inventory names none.
        destination_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        destination_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        destination_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// east-west, inter-tenant, north-south or transit.
        traffic_class: &'static str, "", Element::None;
        /// Identification of the query.
        dns_id: Option<u16>, "", Element::None;
        /// Name that was asked for, as zone files write it; `.` for the root.
        dns_question_name: Option<Arc<str>>, "RFC 1035 5.1", Element::None;
        /// Type that was asked for, as `A`; `TYPE` and a number where it has no name here.
        dns_question_type: Option<Arc<str>>, "IANA", Element::None;
        /// Class, as `IN`.
        dns_question_class: Option<Arc<str>>, "IANA", Element::None;
        /// Flags of the header of the answer, without one of the query.
        dns_flags: Option<u16>, "RFC 1035 4.1.1", Element::None;
        /// Response code, as `NXDOMAIN`; a number where it has no name here; null without an answer.
        dns_response_code: Option<Arc<str>>, "IANA", Element::None;
        /// Answers by the header; null without an answer.
        dns_answer_count: Option<u16>, "records", Element::None;
        /// The first 16 of them, a JSON array of objects with rrname, rrtype, ttl (in seconds) and rdata,
        /// soa or srv; null without any.
        dns_answers: Option<Arc<str>>, "JSON", Element::None;
        /// Whom the client wants to reach.
        tls_server_name: Option<Arc<str>>, "", Element::None;
        /// Version that the server chose, as `TLS 1.3`, as far as it says so in the clear; null where its
        /// hello was not seen.
        tls_version: Option<Arc<str>>, "", Element::None;
        /// The highest version that the client offered, likewise.
        tls_offered_version: Option<Arc<str>>, "", Element::None;
        /// Cipher suite that the server chose.
        tls_cipher_suite: Option<u16>, "IANA", Element::None;
        /// Protocols above that the client offered (ALPN), with commas between.
        tls_offered_protocols: Option<Arc<str>>, "IANA", Element::None;
        /// Protocol above that the server chose; TLS 1.3 says it only in what is encrypted.
        tls_protocol: Option<Arc<str>>, "IANA", Element::None;
        /// Fingerprint of what the client offered.
        tls_ja4: Option<Arc<str>>, "JA4", Element::None;
        /// Method.
        http_request_method: Option<Arc<str>>, "", Element::Ie(&[459]);
        /// Host of the request, without its port.
        http_request_host: Option<Arc<str>>, "", Element::Ie(&[460]);
        /// Target, without user and password; without its query too, unless that is configured.
        http_request_target: Option<Arc<str>>, "", Element::Ie(&[461]);
        /// Version of the request, without one of the response, as `HTTP/1.1`.
        http_message_version: Option<Arc<str>>, "", Element::Ie(&[462]);
        /// User agent.
        http_user_agent: Option<Arc<str>>, "", Element::Ie(&[468]);
        /// Status code of the response.
        http_status_code: Option<u16>, "", Element::Ie(&[457]);
        /// Type of its content, without parameters.
        http_content_type: Option<Arc<str>>, "", Element::Ie(&[469]);
        /// Length of its content, as its head says.
        http_content_length: Option<u64>, "octets", Element::None;
    }

    /// Delay and loss from one tap to another in one window, by the packets that the digest selects:
    /// of everybody, and of each pair of endpoints and protocol. A window's rows come when all its
    /// packets have their verdict.
    Path "path" as path: PathRecord
    by window_start_ns, sorted by window_start_ns from_tap to_tap scope address_space
        source_address destination_address protocol_identifier
    {
        /// First instant of the window, since the epoch, UTC.
        window_start_ns: u64, "ns", Element::None;
        /// First instant after the window.
        window_end_ns: u64, "ns", Element::None;
        /// taps: everybody's packets on this way; endpoints: those of one direction between two
        /// endpoints.
        scope: &'static str, "", Element::None;
        /// Tap that the packets pass first.
        from_tap: Arc<str>, "", Element::None;
        /// Tap that they pass later.
        to_tap: Arc<str>, "", Element::None;
        /// Host of the first tap; null where not configured.
        from_host: Option<Arc<str>>, "", Element::None;
        /// Host of the later tap; null where not configured.
        to_host: Option<Arc<str>>, "", Element::None;
        /// Address space of the endpoints; null where scope is taps, as all that follow.
        address_space: Option<Arc<str>>, "", Element::None;
        /// Address of the sender.
        source_address: Option<IpAddr>, "RFC 5952", Element::Ie(&[8, 27]);
        /// Address of the receiver.
        destination_address: Option<IpAddr>, "RFC 5952", Element::Ie(&[12, 28]);
        /// IP protocol.
        protocol_identifier: Option<u8>, "IANA", Element::Ie(&[4]);
        /// VM at the source address, as known when the record was made; null where the inventory
        /// names none.
        source_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        source_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        source_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// VM at the destination address, as known when the record was made; null where the
        /// inventory names none.
        destination_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        destination_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        destination_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// Share of packets that is followed, by their digest.
        sampling_probability: f64, "", Element::Ie(&[311]);
        /// Logical packets that were followed: matched, missed at the first tap, or lost for any cause.
        sampled_packet_count: u64, "packets", Element::None;
        /// Seen at both taps.
        matched_packet_count: u64, "packets", Element::None;
        /// Of these, shown by the later tap in frames that were merged or split on the way, so without
        /// a time.
        recut_packet_count: u64, "packets", Element::None;
        /// Seen at the later tap only: the first one's mirror did not show them.
        first_tap_missed_packet_count: u64, "packets", Element::None;
        /// Seen at the first tap only, and the sender repeated the range: lost between the taps.
        network_loss_packet_count: u64, "packets", Element::None;
        /// Seen at the first tap only, and the receiver acknowledged them, or a tap behind saw them:
        /// lost by the later tap's mirror.
        mirror_loss_packet_count: u64, "packets", Element::None;
        /// Seen at the first tap only, and nothing says why.
        unresolved_loss_packet_count: u64, "packets", Element::None;
        /// Matched packets that one of the taps showed without a segment's tag and the other with one:
        /// the mirror takes it off. Seen only where an address space joins both segments.
        segment_stripped_packet_count: u64, "packets", Element::None;
        /// Followed, but not to be told from equal ones; in no other count.
        ambiguous_packet_count: u64, "packets", Element::None;
        /// Pairs of endpoints whose TCP packets took this way in this window and whose answers some tap
        /// showed, four of those that are followed at least; null where scope is endpoints.
        answered_pair_count: Option<u64>, "pairs", Element::None;
        /// Of these, those of which the first tap showed no answer: it shows one direction only, or
        /// the answers take another way; null where scope is endpoints.
        first_tap_one_way_pair_count: Option<u64>, "pairs", Element::None;
        /// Of these, those of which the later tap showed no answer; null where scope is endpoints.
        later_tap_one_way_pair_count: Option<u64>, "pairs", Element::None;
        /// Share lost between the taps at least, 0–1: network; null without packets.
        loss_low: Option<f64>, "", Element::None;
        /// Share lost between the taps at most, 0–1: network and unresolved; null without packets.
        loss_high: Option<f64>, "", Element::None;
        /// Packets of which the time between the taps is known.
        delay_sample_count: u64, "samples", Element::None;
        /// Mean time from tap to tap, by their clocks; negative where these differ by more than it;
        /// null without a sample, as all that follow.
        delay_mean_ns: Option<i64>, "ns", Element::None;
        /// Least of these times.
        delay_min_ns: Option<i64>, "ns", Element::None;
        /// Largest of these times.
        delay_max_ns: Option<i64>, "ns", Element::None;
        /// Median, off by at most 0.8 %.
        delay_p50_ns: Option<i64>, "ns", Element::None;
        /// 90th percentile.
        delay_p90_ns: Option<i64>, "ns", Element::None;
        /// 99th percentile.
        delay_p99_ns: Option<i64>, "ns", Element::None;
        /// Least time on this way in the last 60 s: any time less this one is free of a constant clock
        /// offset.
        delay_base_ns: Option<i64>, "ns", Element::None;
        /// Mean time less the least of the last 60 s.
        delay_excess_mean_ns: Option<i64>, "ns", Element::None;
        /// How far the later tap's clock is ahead of the first one's, from the least times of both
        /// directions in 60 s; null with one direction, or where scope is endpoints.
        clock_offset_ns: Option<i64>, "ns", Element::None;
        /// The offset is off by no more than this; null where there is none.
        clock_offset_bound_ns: Option<u64>, "ns", Element::None;
    }

    /// Delays of TCP by tenant and method: all samples of a window whose answer came from a VM of the
    /// tenant, in one histogram.
    Delays "delays" as delays: DelayRecord
    by window_start_ns, sorted by window_start_ns virtual_station_tenant method
    {
        /// First instant of the window, since the epoch, UTC.
        window_start_ns: u64, "ns", Element::None;
        /// First instant after the window.
        window_end_ns: u64, "ns", Element::None;
        /// Tenant of the end that answered, as known when the record was made; null where the
        /// inventory names none.
        virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// handshake_server, handshake_client, tcp_timestamp, sequence_ack or response.
        method: &'static str, "", Element::None;
        /// Samples.
        sample_count: u64, "samples", Element::None;
        /// Their sum.
        sum_ns: u64, "ns", Element::None;
        /// Least of them.
        min_ns: u64, "ns", Element::None;
        /// Largest of them.
        max_ns: u64, "ns", Element::None;
        /// Median.
        p50_ns: u64, "ns", Element::None;
        /// 90th percentile.
        p90_ns: u64, "ns", Element::None;
        /// 99th percentile.
        p99_ns: u64, "ns", Element::None;
    }

    /// Each sighting of each packet that the digest selects, so that taps of several probes can be
    /// matched; written only where `path.samples` asks for it.
    PathSamples "path_samples" as path_samples: PathSampleRecord
    by observation_time_ns, sorted by observation_time_ns digest_hash_value tap
    {
        /// When the tap saw the packet, since the epoch, UTC.
        observation_time_ns: u64, "ns", Element::Ie(&[325]);
        /// First instant of the window that the packet is counted in.
        window_start_ns: u64, "ns", Element::None;
        /// Digest over what no hop changes, keyed by `path.secret`: equal at all taps.
        digest_hash_value: u64, "", Element::Ie(&[326]);
        /// The tap.
        tap: Arc<str>, "", Element::None;
        /// IP octets of the packet.
        ip_total_length: u32, "octets", Element::Ie(&[224]);
        /// Time to live or hop limit at this tap.
        ip_ttl: u8, "", Element::Ie(&[192]);
        /// Address space of the endpoints.
        address_space: Arc<str>, "", Element::None;
        /// Address of the sender.
        source_address: IpAddr, "RFC 5952", Element::Ie(&[8, 27]);
        /// Address of the receiver.
        destination_address: IpAddr, "RFC 5952", Element::Ie(&[12, 28]);
        /// IP protocol.
        protocol_identifier: u8, "IANA", Element::Ie(&[4]);
        /// What this probe found out of the packet within path.verdict_ms, should other taps not have
        /// shown it: none, repeated (the sender sent its range again), acknowledged (the receiver
        /// acknowledged it before), ambiguous (equal packets can't be told apart).
        evidence: &'static str, "", Element::None;
        /// The tap showed it without a segment.
        segment_stripped: bool, "", Element::None;
    }

    /// Migrations: a VM went to another host, as a source of the inventory reports it, as the traffic
    /// shows it (the same MAC and IP address sends at another tap), or both.
    Migrations "migrations" as migrations: MigrationRecord
    by time_ns, sorted by time_ns virtual_station_uuid address_space address mac
    {
        /// When it happened, since the epoch, UTC: as reported, else that of the first packet at the new
        /// tap.
        time_ns: u64, "ns", Element::None;
        /// The VM, as known when the record was made; null where the inventory names none, as the two
        /// that follow.
        virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM.
        virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// The source that reports it, by its name: file, api, ovsdb:host1 …; null where only traffic
        /// shows it.
        reported_by: Option<Arc<str>>, "", Element::None;
        /// Traffic shows it: the VM sends at another tap than before.
        detected: bool, "", Element::None;
        /// Host before: as reported, else that of the tap; null where not known.
        from_host: Option<Arc<str>>, "", Element::None;
        /// Host after, likewise.
        to_host: Option<Arc<str>>, "", Element::None;
        /// Tap next to it before; null where traffic does not show the migration.
        from_tap: Option<Arc<str>>, "", Element::None;
        /// Tap next to it after, likewise.
        to_tap: Option<Arc<str>>, "", Element::None;
        /// Address space of the address; null where not known.
        address_space: Option<Arc<str>>, "", Element::None;
        /// Segment of the address; null where not known.
        segment: Option<Arc<str>>, "domain/kind/id", Element::None;
        /// Its address, the least if it has several; null where not known.
        address: Option<IpAddr>, "RFC 5952", Element::None;
        /// MAC address of its interface; null where not known.
        mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::None;
        /// When it was seen to send last before, by the clock of the tap before; null where packets are
        /// not followed between taps, or too few were seen.
        last_seen_ns: Option<u64>, "ns", Element::None;
        /// When it was seen to send first after, by the clock of the tap after; null likewise.
        first_seen_ns: Option<u64>, "ns", Element::None;
        /// The silence between the two, the longest around the event: at least as long as the VM stood
        /// still; null likewise.
        blackout_ns: Option<u64>, "ns", Element::None;
        /// By how much the blackout may be off because of the two taps' clocks; null where the clocks were
        /// not compared, or no tap changed.
        blackout_clock_bound_ns: Option<u64>, "ns", Element::None;
        /// Endpoints that it sent to before and after, at most 64; null where traffic does not show the
        /// migration.
        peer_count: Option<u64>, "endpoints", Element::None;
        /// Share of packets whose times are known, 0–1 (`path.sample_one_in`).
        sampling_probability: f64, "", Element::Ie(&[311]);
        /// The blackout is an estimate, too long by a few times the distance between packets that are
        /// followed, because not all are.
        estimate: bool, "", Element::None;
    }

    /// Alerts: each change of one is a row; the newest row of an `alert_id` is how it stands.
    Alerts "alerts" as alerts: AlertRecord
    by last_seen_ns, sorted by last_seen_ns detector alert_id
    {
        /// Identity, derived from the detector, the endpoints and the first time.
        alert_id: Arc<str>, "", Element::None;
        /// Detector that raised it.
        detector: Arc<str>, "", Element::None;
        /// open, updated or closed.
        state: &'static str, "", Element::None;
        /// info, low, medium, high or critical.
        severity: &'static str, "", Element::None;
        /// How sure the detector is, 0–1.
        confidence: f64, "", Element::None;
        /// MITRE ATT&CK technique; null where none fits.
        mitre_technique: Option<Arc<str>>, "", Element::None;
        /// Address it comes from; null where it is about a target alone.
        source_address: Option<IpAddr>, "RFC 5952", Element::Ie(&[8, 27]);
        /// Address it is aimed at; null where it is about a source alone.
        destination_address: Option<IpAddr>, "RFC 5952", Element::Ie(&[12, 28]);
        /// Port it is aimed at; null where there is not one.
        destination_port: Option<u16>, "", Element::Ie(&[11]);
        /// Segment it was seen in.
        segment: Arc<str>, "domain/kind/id", Element::None;
        /// Address space of the addresses.
        address_space: Arc<str>, "", Element::None;
        /// VM at the source address, as known when the record was made; null where the inventory
        /// names none.
        source_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        source_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        source_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// VM at the destination address, as known when the record was made; null where the
        /// inventory names none.
        destination_virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM, or the host name that DHCP gave an endpoint that is none.
        destination_virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        destination_virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// First evidence, since the epoch, UTC.
        first_seen_ns: u64, "ns", Element::None;
        /// Latest evidence.
        last_seen_ns: u64, "ns", Element::None;
        /// The detector's statistic.
        statistic: f64, "", Element::None;
        /// The value that it crossed.
        threshold: f64, "", Element::None;
        /// The value that is usual here.
        baseline: f64, "", Element::None;
        /// Events (contacts, attempts, windows) in it so far.
        event_count: u64, "", Element::None;
        /// One line for people.
        title: Arc<str>, "", Element::None;
        /// What weighed most, as a JSON object.
        features: Arc<str>, "JSON", Element::None;
        /// What would have kept it silent.
        silent_if: Arc<str>, "", Element::None;
        /// Probes whose records of `windows` show it, as a JSON list of their ids in order, at most 63 and
        /// then "others"; null where one probe has found it in its own traffic (`probe_id`).
        seen_by_probes: Option<Arc<str>>, "JSON", Element::None;
    }

    /// The account of every packet: per window and place, what came in, what was accounted, and
    /// every loss by cause.
    Ledger "ledger" as ledger: LedgerRecord
    by window_start_ns, sorted by window_start_ns scope name measure
    {
        /// First instant of the window, since the epoch, UTC.
        window_start_ns: u64, "ns", Element::None;
        /// nic_port, worker, stage, sink or probe.
        scope: &'static str, "", Element::None;
        /// Which port, stage or sink; of a worker the port and queue that it reads, `port/queue`.
        name: Arc<str>, "", Element::None;
        /// What is counted: received, accounted, unaccounted, or the cause of a loss. Beside the
        /// balance: late and late_rows (accounted packets that came after their own window),
        /// fragments_unresolved, flow_records_lost (records), measures_lost (samples and events),
        /// tenant_delays_lost (samples that found no room in `delays`),
        /// measures_refused (times), flows_evicted (flows), digests_evicted (digests),
        /// icmp_quotes_lost (ICMP errors that could not be told to the worker of the flow that they
        /// quote), path_samples_lost, path_evicted, path_unwatched, path_walks_cut (segments),
        /// path_rows_full, path_late, path_samples_full and path_times_full (packets followed between
        /// taps), path_ways_full, path_places_full and path_stations_full (endpoints of which way,
        /// place or network card were not remembered), migrations_lost (migrations), app_messages_lost and
        /// app_messages_malformed (messages of which `apps` should tell), where they are not 0.
        measure: Arc<str>, "", Element::None;
        /// Packets (records, where the scope is sink) since the window before; of in_flight, held and
        /// queued how many there are now; of `unaccounted` the absolute value.
        packet_count: u64, "packets", Element::None;
        /// Received less accounted less all causes, in rows whose measure is unaccounted, where it
        /// must be 0; null in all others.
        unaccounted: Option<i64>, "packets", Element::None;
        /// The count is an estimate, not the probe's own count (losses before the probe).
        estimate: bool, "", Element::None;
    }

    /// Who was who: one row for each address of a VM, or of an endpoint that was learned, and each
    /// interval in which it was so (valid) and in which the probe knew it (known).
    Inventory "inventory" as inventory: InventoryRecord
    by known_from_ns, sorted by known_from_ns uuid address valid_from_ns
    {
        /// The same in the record that says that this became known and, if the probe learnt otherwise,
        /// in the one that says so.
        fact_id: u64, "", Element::None;
        /// Start of the first window of the run of the probe that knew it, since the epoch, UTC.
        run_start_ns: u64, "ns", Element::None;
        /// The VM; null for an endpoint that was only learned from packets, which no source names.
        uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Its name; null where not known. Of a learned endpoint the host name that DHCP gave it.
        name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Its tenant; null where not known.
        tenant: Option<Arc<str>>, "", Element::None;
        /// Whether the configuration says that this tenant serves all others
        /// (inventory.shared_tenants).
        tenant_shared: bool, "", Element::None;
        /// The host it ran on; null where not known.
        host: Option<Arc<str>>, "", Element::None;
        /// The switch that the interface was plugged in at, a bridge of a host as HOST/BRIDGE; null
        /// where not known.
        switch: Option<Arc<str>>, "", Element::None;
        /// Its MAC address; null where not known.
        mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::None;
        /// Its address; null where not known.
        address: Option<IpAddr>, "RFC 5952", Element::None;
        /// The segment of that address; null where not known.
        segment: Option<Arc<str>>, "domain/kind/id", Element::None;
        /// The address space of that segment; null where not known.
        address_space: Option<Arc<str>>, "", Element::None;
        /// Whether traffic of the address is this VM's; false where another VM claims it too and is
        /// right.
        attributed: bool, "", Element::None;
        /// Whether the interface may have the address as others may (a virtual router's, a cluster's):
        /// where it is not attributed, traffic of the address with this MAC address is this VM's.
        address_shared: bool, "", Element::None;
        /// Since when it was so, since the epoch, UTC; 0 for always.
        valid_from_ns: u64, "ns", Element::None;
        /// Until when it was so; null for still.
        valid_to_ns: Option<u64>, "ns", Element::None;
        /// Since when the probe knew it.
        known_from_ns: u64, "ns", Element::None;
        /// When the probe learnt otherwise; null in the record that says that it became known.
        known_to_ns: Option<u64>, "ns", Element::None;
        /// Who says the address, by the name of the source: file, api, ovsdb:host1, learned …; empty for
        /// a VM without an interface.
        source: Arc<str>, "", Element::None;
    }

    /// What VMs use of their hosts, as the hosts count it: one row a sample of a VM, and one for each of
    /// its interfaces. Counts are since the VM began and fall back to 0 with it.
    VmUsage "vm_usage" as vm_usage: VmUsageRecord
    by sample_ns, sorted by sample_ns virtual_station_uuid mac
    {
        /// When it was read, since the epoch, UTC, by the probe's clock.
        sample_ns: u64, "ns", Element::None;
        /// The VM.
        virtual_station_uuid: Arc<str>, "uuid", Element::Ie(&[349]);
        /// The interface; null in the row of the VM itself.
        mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::None;
        /// CPU time of all its virtual CPUs; null in rows of interfaces and where the host does not say.
        cpu_total_ns: Option<u64>, "ns", Element::None;
        /// Virtual CPUs that it has; null as before.
        vcpu_count: Option<u64>, "CPUs", Element::None;
        /// Memory that it has; null as before.
        memory_bytes: Option<u64>, "bytes", Element::None;
        /// Memory of the host that it takes; null as before.
        resident_bytes: Option<u64>, "bytes", Element::None;
        /// Octets that the VM has sent, with Ethernet headers; this and what follows is null in the row
        /// of the VM itself.
        layer2_octet_total_count: Option<u64>, "octets", Element::Ie(&[353]);
        /// Octets that it has received.
        reverse_layer2_octet_total_count: Option<u64>, "octets", Element::Reverse(353);
        /// Packets that it has sent.
        packet_total_count: Option<u64>, "packets", Element::Ie(&[86]);
        /// Packets that it has received.
        reverse_packet_total_count: Option<u64>, "packets", Element::Reverse(86);
        /// Packets that it sent and the host dropped.
        dropped_packet_total_count: Option<u64>, "packets", Element::Ie(&[135]);
        /// Packets for it that the host dropped.
        reverse_dropped_packet_total_count: Option<u64>, "packets", Element::Reverse(135);
        /// Packets that it sent and that were in error.
        error_packet_total_count: Option<u64>, "packets", Element::None;
        /// Packets for it that were in error.
        reverse_error_packet_total_count: Option<u64>, "packets", Element::None;
    }

    /// Health of each tap in each window.
    Taps "taps" as taps: TapRecord
    by window_start_ns, sorted by window_start_ns tap
    {
        /// First instant of the window, since the epoch, UTC.
        window_start_ns: u64, "ns", Element::None;
        /// Name of the tap.
        tap: Arc<str>, "", Element::None;
        /// Host it stands on; null where not configured.
        host: Option<Arc<str>>, "", Element::None;
        /// Switch it copies from, a bridge of a host as HOST/BRIDGE; null where not configured.
        switch: Option<Arc<str>>, "", Element::None;
        /// Port, file or interface that its packets came from.
        port: Arc<str>, "", Element::None;
        /// Frames as captured.
        packet_count: u64, "packets", Element::None;
        /// Octets of these frames as captured on the wire, mirror encapsulation included.
        octet_count: u64, "octets", Element::None;
        /// Packets seen before at the same tap.
        duplicate_packet_count: u64, "packets", Element::None;
        /// Packets equal to one before that could be a repeated packet as well; they count as
        /// traffic.
        copy_ambiguous_packet_count: u64, "packets", Element::None;
        /// Copies of packets that another tap counted.
        copy_other_tap_packet_count: u64, "packets", Element::None;
        /// Packets that the capture or the mirror cut.
        snapped_packet_count: u64, "packets", Element::None;
        /// TCP conversations that this tap counted, with four packets or more, in which one end has
        /// acknowledged what the other sent: both directions are there to be seen.
        tcp_conversation_count: u64, "conversations", Element::None;
        /// Of these, those of which no tap showed more than one direction.
        tcp_one_way_conversation_count: u64, "conversations", Element::None;
        /// Share of these conversations of which both directions were seen, 0–1; null without any.
        coverage: Option<f64>, "", Element::None;
        /// Logical packets counted at this tap in segments that the inventory has no interface in;
        /// null without an inventory.
        segment_unknown_packet_count: Option<u64>, "packets", Element::None;
        /// Packets whose segment the configured map did not know; they count in the segment on the
        /// wire.
        segment_unmapped_packet_count: u64, "packets", Element::None;
        /// Packets missing by the mirror's own sequence numbers; null where the mirror has none.
        mirror_sequence_gap_count: Option<u64>, "packets", Element::None;
        /// Where a cloud's GENEVE options say that the last packet was taken, in hexadecimal: VPC
        /// endpoint (Amazon), virtual network (Google); null where none says so.
        cloud_endpoint_id: Option<Arc<str>>, "", Element::None;
        /// The same, attachment (Amazon) or profile (Google).
        cloud_attachment_id: Option<Arc<str>>, "", Element::None;
        /// Where its time stamps come from.
        clock_source: &'static str, "", Element::None;
        /// Bound of their error against the wall clock; null where it is not known.
        clock_error_bound_ns: Option<u64>, "ns", Element::None;
    }
}
