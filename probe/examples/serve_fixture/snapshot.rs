//! Believable snapshots as a function of the second, so that a test knows what it will see.

#[path = "taps.rs"]
mod taps;

use std::collections::BTreeMap;

use vmprobe::aggregate::live::{
    ByClass, HistoryPoint, LiveAlert, LiveConversation, LiveHistory, LiveLedger, LiveMode,
    LivePort, LiveSink, LiveSnapshot, LiveStore, LiveTotals, LiveWorker, ProtocolShare, Volume,
};

/// The first snapshot that is served has this many windows behind it.
pub(crate) const FIRST_TICK: u64 = 260;
/// A name that would be markup if it were not shown as text.
pub(crate) const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// 2026-01-15T09:00:00Z.
const START_NS: u64 = 1_768_467_600_000_000_000;
const WINDOW_NS: u64 = 1_000_000_000;

/// Name, tenant and address. Tenants use the same addresses.
type Vm = (&'static str, &'static str, &'static str);

const WEB_1: Vm = ("web-1", "acme", "10.0.0.11");
const WEB_2: Vm = ("web-2", "acme", "10.0.0.12");
const APP_1: Vm = ("app-1", "acme", "10.0.0.21");
const DB_1: Vm = ("db-1", "acme", "10.0.0.31");
const SHOP_WEB: Vm = ("shop-web", "globex", "10.0.0.11");
const SHOP_DB: Vm = ("shop-db", "globex", "10.0.0.31");
const BUILD: Vm = ("build-runner-7", "initech", "10.0.0.11");
const REGISTRY: Vm = ("registry", "initech", "10.0.0.40");
const BACKUP: Vm = ("backup", "platform", "10.9.0.5");
const ODD: Vm = (HOSTILE, "hooli", "fd00:10::66");
const USER_1: Vm = ("", "", "203.0.113.24");
const USER_2: Vm = ("", "", "198.51.100.77");
const MIRROR: Vm = ("", "", "2001:db8:0:1::8a2e:370:7334");
const TRANSIT: Vm = ("", "", "192.0.2.9");

/// Source, destination, segment, protocol, port, application, octets a second forward and back.
type Talk = (Vm, Vm, &'static str, u8, u16, Option<&'static str>, u64, u64);

const TALKS: &[Talk] = &[
    (WEB_1, APP_1, "default/vxlan/4242", 6, 8080, Some("http"), 1_900_000, 6_400_000),
    (WEB_2, APP_1, "default/vxlan/4242", 6, 8080, Some("http"), 1_700_000, 5_900_000),
    (APP_1, DB_1, "default/vxlan/4242", 6, 5432, Some("postgresql"), 800_000, 9_700_000),
    (USER_1, WEB_1, "default/vlan/42", 6, 443, Some("tls"), 310_000, 4_300_000),
    (USER_2, WEB_2, "default/vlan/42", 6, 443, Some("tls"), 240_000, 3_100_000),
    (SHOP_WEB, SHOP_DB, "default/vxlan/4711", 6, 3306, Some("mysql"), 420_000, 2_600_000),
    (USER_2, SHOP_WEB, "default/vlan/43", 17, 443, Some("quic"), 150_000, 1_800_000),
    (BUILD, REGISTRY, "east/geneve/9001", 6, 5000, Some("http"), 90_000, 7_200_000),
    (BACKUP, DB_1, "default/vxlan/4242", 6, 22, Some("ssh"), 60_000, 1_100_000),
    (BACKUP, SHOP_DB, "default/vxlan/4711", 6, 22, Some("ssh"), 55_000, 930_000),
    (BUILD, MIRROR, "east/geneve/9001", 6, 443, Some("tls"), 34_000, 880_000),
    (WEB_1, WEB_2, "default/vxlan/4242", 17, 7946, None, 21_000, 19_000),
    (APP_1, BACKUP, "default/vxlan/4242", 17, 53, Some("dns"), 4_200, 9_800),
    (SHOP_WEB, BACKUP, "default/vxlan/4711", 17, 123, Some("ntp"), 900, 900),
    (ODD, REGISTRY, "east/geneve/9002", 6, 5000, None, 12_000, 45_000),
    (USER_1, TRANSIT, "default/none", 6, 179, Some("bgp"), 2_400, 1_900),
    (BUILD, WEB_1, "east/geneve/9001", 1, 0, None, 840, 840),
];

/// A probe that works, `tick` seconds after its start.
pub(crate) fn normal(tick: u64) -> LiveSnapshot {
    let conversations = conversations(tick);
    let total = point(tick);
    LiveSnapshot {
        probe_id: "probe-rack-12".to_owned(),
        domain: "default".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: LiveMode::Run,
        ended: false,
        window_count: tick,
        window_start_ns: total.window_start_ns,
        window_length_ms: 1_000,
        totals: LiveTotals {
            packets_per_s: as_rate(total.packets),
            octets_per_s: as_rate(total.octets),
            flows_live: 48_200 + noise(tick, 9) % 900,
            flows_new_per_s: as_rate(610 + noise(tick, 8) % 140),
        },
        history: history(tick),
        by_class: by_class(&conversations),
        by_protocol: by_protocol(&conversations),
        alerts: alerts(tick),
        ledger: ledger(tick),
        workers: workers(tick),
        taps: taps::taps(tick),
        path_sample_one_in: Some(16),
        paths: taps::paths(tick),
        migrations: taps::migrations(tick),
        store: LiveStore {
            folder: Some("/var/lib/vmprobe".to_owned()),
            state: "ok".to_owned(),
            query_example: Some(
                "vmprobe query --data /var/lib/vmprobe 'SELECT source_virtual_station_name, \
                 sum(octet_delta_count) FROM windows GROUP BY 1 ORDER BY 2 DESC LIMIT 10'"
                    .to_owned(),
            ),
            stored_bytes: Some(1_234_567_890),
            merged_files: 32,
            removed_records: BTreeMap::from([("age", 0), ("size", 0)]),
        },
        top_conversations: conversations,
    }
    .bounded()
}

/// A probe before its first window.
pub(crate) fn empty() -> LiveSnapshot {
    LiveSnapshot {
        probe_id: "probe-rack-12".to_owned(),
        domain: "default".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        window_length_ms: 1_000,
        store: LiveStore { state: "off".to_owned(), ..LiveStore::default() },
        ..LiveSnapshot::default()
    }
}

/// A probe with one tap, so that no packets are followed.
pub(crate) fn one_tap(tick: u64) -> LiveSnapshot {
    let mut live = normal(tick);
    live.taps.truncate(1);
    live.path_sample_one_in = None;
    live.paths.clear();
    live
}

/// A probe that lost count, with a full disk and an overloaded worker.
pub(crate) fn fault(tick: u64) -> LiveSnapshot {
    let mut live = normal(tick);
    live.ledger.accounted -= 17;
    live.ledger.unaccounted = 17;
    "disk_full".clone_into(&mut live.store.state);
    for sink in &mut live.ledger.sinks {
        "disk_full".clone_into(&mut sink.state);
        sink.dropped = 1_204;
    }
    if let Some(worker) = live.workers.first_mut() {
        worker.busy_percent = 99.6;
        worker.ring_fill_percent = 88.0;
        worker.shed_rate = 0.125;
    }
    live
}

fn uuid(vm: Vm) -> Option<String> {
    let (name, tenant, _) = vm;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes().chain(tenant.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let digits = format!("{hash:016x}");
    (!name.is_empty()).then(|| {
        format!(
            "{}-{}-4{}-9{}-{digits:.12}",
            &digits[..8],
            &digits[8..12],
            &digits[12..15],
            &digits[..3]
        )
    })
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Steady, repeatable jitter.
fn noise(tick: u64, seed: u64) -> u64 {
    let mut value =
        tick.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd1b5_4a32_d192_ed03);
    value = (value ^ (value >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (value ^ (value >> 32)) & 0xffff_ffff
}

/// A slow wave with jitter, in thousandths.
fn swell(tick: u64, seed: u64) -> u64 {
    let phase = (tick + seed * 13) % 120;
    let wave = if phase < 60 { phase } else { 120 - phase };
    820 + wave * 5 + noise(tick, seed) % 120
}

#[expect(clippy::cast_precision_loss, reason = "small counts of a made-up probe")]
fn as_rate(count: u64) -> f64 {
    count as f64
}

fn class_of(source: Vm, destination: Vm) -> &'static str {
    match (source.0.is_empty(), destination.0.is_empty()) {
        (true, true) => "transit",
        (false, false) if source.1 == destination.1 => "east_west",
        (false, false) => "inter_tenant",
        _ => "north_south",
    }
}

fn protocol_name(number: u8) -> &'static str {
    match number {
        1 => "ICMP",
        6 => "TCP",
        _ => "UDP",
    }
}

fn conversation(talk: &Talk, tick: u64, seed: u64) -> LiveConversation {
    let (source, destination, segment, protocol, port, application, forward, reverse) = *talk;
    let forward = forward * swell(tick, seed) / 1000;
    let reverse = reverse * swell(tick, seed + 50) / 1000;
    LiveConversation {
        source_address: source.2.to_owned(),
        destination_address: destination.2.to_owned(),
        source_virtual_station_name: known(source.0),
        source_virtual_station_tenant: known(source.1),
        source_virtual_station_uuid: uuid(source),
        destination_virtual_station_name: known(destination.0),
        destination_virtual_station_tenant: known(destination.1),
        destination_virtual_station_uuid: uuid(destination),
        segment: segment.to_owned(),
        protocol_identifier: protocol,
        protocol: protocol_name(protocol).to_owned(),
        destination_port: port,
        application_name: application.map(str::to_owned),
        traffic_class: class_of(source, destination).to_owned(),
        flows: 1 + forward / 21_000,
        packet_delta_count: 1 + forward / 310,
        octet_delta_count: forward,
        reverse_packet_delta_count: 1 + reverse / 1_240,
        reverse_octet_delta_count: reverse,
    }
}

fn conversations(tick: u64) -> Vec<LiveConversation> {
    let mut rows: Vec<_> =
        (1..).zip(TALKS).map(|(seed, talk)| conversation(talk, tick, seed)).collect();
    rows.sort_by_key(|row| {
        std::cmp::Reverse(row.octet_delta_count + row.reverse_octet_delta_count)
    });
    rows
}

fn volume<'a>(rows: impl Iterator<Item = &'a LiveConversation>) -> Volume {
    rows.fold(Volume::default(), |sum, row| Volume {
        packets: sum.packets + row.packet_delta_count + row.reverse_packet_delta_count,
        octets: sum.octets + row.octet_delta_count + row.reverse_octet_delta_count,
    })
}

fn by_class(rows: &[LiveConversation]) -> ByClass {
    let of = |class: &str| volume(rows.iter().filter(|row| row.traffic_class == class));
    ByClass {
        east_west: of("east_west"),
        inter_tenant: of("inter_tenant"),
        north_south: of("north_south"),
        transit: of("transit"),
    }
}

fn by_protocol(rows: &[LiveConversation]) -> Vec<ProtocolShare> {
    ["TCP", "UDP", "ICMP"]
        .map(|name| {
            let Volume { packets, octets } = volume(rows.iter().filter(|row| row.protocol == name));
            ProtocolShare { name: name.to_owned(), packets, octets }
        })
        .to_vec()
}

fn point(tick: u64) -> HistoryPoint {
    let Volume { packets, octets } = volume(conversations(tick).iter());
    let scan = tick % 150;
    let burst = if (95..107).contains(&scan) { 9_000 + noise(tick, 3) % 2_500 } else { 0 };
    HistoryPoint {
        window_start_ns: START_NS + tick * WINDOW_NS,
        packets: packets + burst,
        octets: octets + burst * 44,
        flows: 2_100 + noise(tick, 4) % 300,
        alerts: u64::from(scan == 96),
    }
}

fn history(tick: u64) -> Vec<HistoryPoint> {
    let mut history = LiveHistory::default();
    for at in tick.saturating_sub(299)..=tick {
        history.push(point(at));
    }
    history.to_vec()
}

fn alerts(tick: u64) -> Vec<LiveAlert> {
    let at = |second: u64| START_NS + second * WINDOW_NS;
    let begun = tick - tick % 20;
    vec![
        LiveAlert {
            id: "7c1f2a90".to_owned(),
            detector: "port_scan".to_owned(),
            state: "updated".to_owned(),
            severity: "high".to_owned(),
            title: "build-runner-7 tried 412 services, 9 answered".to_owned(),
            source_address: Some(BUILD.2.to_owned()),
            source_virtual_station_name: known(BUILD.0),
            destination_address: None,
            destination_virtual_station_name: None,
            first_seen_ns: at(96),
            last_seen_ns: at(begun),
            statistic: 14_820.5,
            threshold: 99.0,
        },
        LiveAlert {
            id: "51b0e4d3".to_owned(),
            detector: "syn_flood".to_owned(),
            state: "open".to_owned(),
            severity: "critical".to_owned(),
            title: "9,412 connection attempts to tcp/443 in one window, 2 % completed".to_owned(),
            source_address: Some(USER_2.2.to_owned()),
            source_virtual_station_name: None,
            destination_address: Some(SHOP_WEB.2.to_owned()),
            destination_virtual_station_name: known(SHOP_WEB.0),
            first_seen_ns: at(FIRST_TICK - 14),
            last_seen_ns: at(tick),
            statistic: 31_207.8,
            threshold: 23.9,
        },
        LiveAlert {
            id: "0d93c6aa".to_owned(),
            detector: "port_scan".to_owned(),
            state: "closed".to_owned(),
            severity: "medium".to_owned(),
            title: format!("{HOSTILE} tried 58 services, 3 answered"),
            source_address: Some(ODD.2.to_owned()),
            source_virtual_station_name: known(ODD.0),
            destination_address: Some(REGISTRY.2.to_owned()),
            destination_virtual_station_name: known(REGISTRY.0),
            first_seen_ns: at(12),
            last_seen_ns: at(47),
            statistic: 128.4,
            threshold: 99.0,
        },
    ]
}

fn ledger(tick: u64) -> LiveLedger {
    let seen: u64 = 41_300 * tick + noise(tick, 1) % 400;
    let causes = [
        ("duplicate", 2_051 * tick),
        ("copy_other_tap", 988 * tick),
        ("filtered", 310 * tick),
        ("not_ip_arp", 12 * tick),
        ("not_ip_lldp", tick / 3),
        ("malformed_tcp", tick / 40),
        ("malformed_ipv4", 3),
    ];
    let causes: std::collections::BTreeMap<_, _> =
        causes.into_iter().map(|(cause, count)| (cause.to_owned(), count)).collect();
    let in_flight = 1_900 + noise(tick, 2) % 300;
    let received = seen + in_flight + causes.values().sum::<u64>();
    let port = |port: &str, received, missed| LivePort {
        port: port.to_owned(),
        received,
        missed,
        ..LivePort::default()
    };
    let made = 2_180 * tick;
    LiveLedger {
        received,
        accounted: seen,
        in_flight,
        late_rows: 0,
        causes,
        unaccounted: 0,
        nic: vec![port("mirror-a", received - received / 3, 0), port("mirror-b", received / 3, 0)],
        sinks: vec![LiveSink {
            name: "parquet".to_owned(),
            kind: "parquet".to_owned(),
            made,
            delivered: made - made % 4_000,
            queued: made % 4_000,
            spooled: 0,
            dropped: 0,
            state: "ok".to_owned(),
            problem: None,
        }],
    }
}

fn workers(tick: u64) -> Vec<LiveWorker> {
    let worker = |number: u16, port: Option<&str>, busy: u64| LiveWorker {
        worker: number,
        core: Some(number + 2),
        port: port.map(str::to_owned),
        queue: port.map(|_| 0),
        packets_per_s: as_rate(busy * 380 + noise(tick, number.into()) % 900),
        busy_percent: as_rate(busy * 10 + noise(tick, number.into()) % 60) / 10.0,
        flows: 16_000 + 400 * u64::from(number) + noise(tick, 20) % 500,
        flow_slots: 1 << 20,
        ring_fill_percent: as_rate(noise(tick, 30 + u64::from(number)) % 90) / 10.0,
        spread_in: 9_800 * tick + 17 * u64::from(number),
        spread_out: 10_100 * tick,
        shed_rate: 0.0,
        late_packets: tick / 7,
        ..LiveWorker::default()
    };
    vec![worker(0, Some("mirror-a"), 61), worker(1, Some("mirror-b"), 34), worker(2, None, 12)]
}
