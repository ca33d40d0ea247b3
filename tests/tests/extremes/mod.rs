//! Rows with the values that go wrong first: null, empty, the largest and the longest.

use std::net::IpAddr;
use std::sync::Arc;

use vmprobe::decode::Mac;
use vmprobe::measure::histogram::Summary;
use vmprobe::record::{
    AlertRecord, AppRecord, DelayRecord, Delays, FlowRecord, Group, InventoryRecord, LedgerRecord,
    MigrationRecord, PathRecord, PathSampleRecord, Rows, SegmentCounts, TEXT_BYTES_MAX, TapRecord,
    VmUsageRecord, WindowMeasures, WindowRecord,
};

/// A time of the year 2262, the last that a signed count of nanoseconds reaches.
const LATE_NS: u64 = i64::MAX as u64;
/// What ends fields, lines and messages somewhere.
const AWKWARD: &str = "\0a=b|c\\\\=d\\n \u{1}\t\u{1b}\u{7f}\u{85}\u{2028}\r\n\"x\": 'y' <&>,; k=v Ω\u{1f980}\u{feff} ";
const MAC: Mac = Mac([0xff, 0, 0x0a, 0xb0, 0xc1, 0xde]);

/// Of each table one row with nothing in it and one with everything at its limit.
pub(crate) fn rows() -> Rows {
    Rows {
        windows: vec![WindowRecord::default(), window()],
        flows: vec![FlowRecord::default(), flow()],
        apps: vec![AppRecord::default(), app()],
        alerts: vec![AlertRecord::default(), alert()],
        ledger: vec![LedgerRecord::default(), ledger()],
        inventory: vec![InventoryRecord::default(), inventory()],
        vm_usage: vec![VmUsageRecord::default(), vm_usage()],
        taps: vec![TapRecord::default(), tap()],
        path: vec![PathRecord::default(), path()],
        delays: vec![DelayRecord::default(), delay()],
        path_samples: vec![PathSampleRecord::default(), path_sample()],
        migrations: vec![MigrationRecord::default(), migration()],
    }
}

fn text(text: &str) -> Arc<str> {
    text.into()
}

fn some(of: &str) -> Option<Arc<str>> {
    Some(text(of))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn window() -> WindowRecord {
    WindowRecord {
        window_start_ns: LATE_NS,
        window_end_ns: u64::MAX,
        segment: text("east/vxlan/16777215"),
        reverse_segment: some("east/qinq/4095.4095"),
        address_space: text("Ω \"tenant\", 'one'\n"),
        source_address: ip("2001:db8::1:0:0:1"),
        destination_address: ip("255.255.255.255"),
        source_mac: Some(MAC),
        destination_mac: Some(Mac([0; 6])),
        protocol_identifier: u8::MAX,
        destination_port: u16::MAX,
        source_virtual_station_uuid: some("ffffffff-ffff-ffff-ffff-ffffffffffff"),
        source_virtual_station_name: some(AWKWARD),
        destination_virtual_station_name: some(""),
        flow_count: u64::MAX,
        packet_delta_count: u64::MAX,
        reverse_octet_delta_count: u64::MAX,
        sampling_rate: 0.1,
        measures: Group::Own(Arc::new(measures())),
        ..WindowRecord::default()
    }
}

fn app() -> AppRecord {
    AppRecord {
        transaction_start_ns: LATE_NS,
        response_time_ns: Some(u64::MAX),
        is_truncated: true,
        flow_id: u64::MAX,
        source_address: ip("2001:db8::1:0:0:1"),
        source_port: u16::MAX,
        dns_id: Some(0),
        dns_question_name: some("\\255.\"Ω\","),
        dns_flags: Some(u16::MAX),
        dns_answers: some("[{\"rdata\":\"'\\n\"}]"),
        tls_cipher_suite: Some(u16::MAX),
        tls_offered_protocols: some("h2,http/1.1"),
        http_request_target: Some("/".repeat(TEXT_BYTES_MAX).into()),
        http_user_agent: some(""),
        http_content_length: Some(u64::MAX),
        ..AppRecord::default()
    }
}

fn measures() -> WindowMeasures {
    let mut delays = [None; 7];
    let summary = Summary { count: u64::MAX, sum_ns: u64::MAX, min_ns: 0, max_ns: 1 };
    delays[0] = Some(Delays { summary, percentiles_ns: [0, 1, u64::MAX] });
    WindowMeasures {
        delays,
        segments: segments(),
        lost_packets: [[u64::MAX, 0]; 4],
        loss: [[Some(0.0), Some(1.0)], [None, None]],
    }
}

fn segments() -> SegmentCounts {
    let mut counts = [[0; 2]; 15];
    counts[6][1] = u64::MAX;
    SegmentCounts(counts)
}

fn flow() -> FlowRecord {
    FlowRecord {
        flow_id: u64::MAX,
        flow_start_ns: 1,
        flow_end_ns: LATE_NS,
        flow_end_reason: u8::MAX,
        source_address: ip("::"),
        destination_address: ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        source_port: u16::MAX,
        ip_version: 6,
        source_mac: Some(MAC),
        initiator_method: "first_packet_and_port",
        packet_delta_count: u64::MAX,
        tcp_control_bits: u16::MAX,
        duplicate_packet_count: Some(0),
        segments: Group::Own(Arc::new(segments())),
        handshake_client_rtt_ns: Some(u64::MAX),
        sampling_rate: 1.0,
        application_name: "tls",
        segment: text(AWKWARD),
        source_virtual_station_name: some(AWKWARD),
        destination_virtual_station_tenant: some(""),
        address_space: "x".repeat(TEXT_BYTES_MAX).into(),
        ..FlowRecord::default()
    }
}

fn alert() -> AlertRecord {
    AlertRecord {
        last_seen_ns: LATE_NS,
        confidence: 1.0,
        source_address: Some(ip("::ffff:192.0.2.1")),
        destination_port: Some(0),
        statistic: 1e300,
        threshold: -0.5,
        baseline: 1e-300,
        event_count: u64::MAX,
        detector: text("a|b\\c=d"),
        severity: "critical",
        title: text("two\r\nlines,\t\"quoted\" \u{1f980} | = \\ \0"),
        source_virtual_station_name: some(AWKWARD),
        destination_virtual_station_tenant: some(AWKWARD),
        features: text(r#"{"contacts":20,"of":"a=b|c\\"}"#),
        silent_if: "ü".repeat(10_000).into(),
        ..AlertRecord::default()
    }
}

fn ledger() -> LedgerRecord {
    LedgerRecord {
        window_start_ns: LATE_NS,
        scope: "probe",
        measure: text("unaccounted"),
        packet_count: u64::MAX,
        unaccounted: Some(i64::MIN),
        estimate: true,
        ..LedgerRecord::default()
    }
}

fn inventory() -> InventoryRecord {
    InventoryRecord {
        known_from_ns: LATE_NS,
        valid_to_ns: Some(u64::MAX),
        mac: Some(MAC),
        name: some(AWKWARD),
        tenant: some(""),
        address: Some(ip("fe80::1")),
        switch: some("host /1/br0"),
        ..InventoryRecord::default()
    }
}

fn vm_usage() -> VmUsageRecord {
    VmUsageRecord {
        sample_ns: LATE_NS,
        mac: Some(MAC),
        cpu_total_ns: Some(u64::MAX),
        dropped_packet_total_count: Some(u64::MAX),
        ..VmUsageRecord::default()
    }
}

fn delay() -> DelayRecord {
    DelayRecord {
        window_start_ns: LATE_NS,
        virtual_station_tenant: some("Ω"),
        method: "handshake_client",
        sample_count: u64::MAX,
        min_ns: u64::MAX,
        ..DelayRecord::default()
    }
}

fn path() -> PathRecord {
    PathRecord {
        window_start_ns: LATE_NS,
        scope: "endpoints",
        source_address: Some(ip("fe80::1")),
        protocol_identifier: Some(u8::MAX),
        sampled_packet_count: u64::MAX,
        loss_high: Some(1.0),
        delay_mean_ns: Some(i64::MIN),
        delay_max_ns: Some(i64::MAX),
        clock_offset_ns: Some(-1),
        clock_offset_bound_ns: Some(u64::MAX),
        ..PathRecord::default()
    }
}

fn path_sample() -> PathSampleRecord {
    PathSampleRecord {
        observation_time_ns: LATE_NS,
        digest_hash_value: u64::MAX,
        ip_total_length: u32::MAX,
        ip_ttl: u8::MAX,
        source_address: ip("fe80::1"),
        evidence: "acknowledged",
        segment_stripped: true,
        ..PathSampleRecord::default()
    }
}

fn tap() -> TapRecord {
    TapRecord {
        window_start_ns: LATE_NS,
        octet_count: u64::MAX,
        mirror_sequence_gap_count: Some(u64::MAX),
        clock_source: "hardware",
        clock_error_bound_ns: Some(0),
        ..TapRecord::default()
    }
}

fn migration() -> MigrationRecord {
    MigrationRecord {
        time_ns: LATE_NS,
        virtual_station_uuid: some("ffffffff-ffff-ffff-ffff-ffffffffffff"),
        virtual_station_name: some("Ω \"vm\", 'one'\n"),
        virtual_station_tenant: some(""),
        reported_by: some("ovsdb:host1"),
        detected: true,
        from_host: some("a"),
        from_tap: some("tap,a"),
        address: Some(ip("2001:db8::1:0:0:1")),
        mac: Some(MAC),
        last_seen_ns: Some(0),
        first_seen_ns: Some(u64::MAX),
        blackout_ns: Some(u64::MAX),
        peer_count: Some(u64::MAX),
        sampling_probability: f64::MIN_POSITIVE,
        estimate: true,
        ..MigrationRecord::default()
    }
}
