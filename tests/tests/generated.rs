//! Generated clouds through the whole path: what comes out is what the generator says happened.
//!
//! The truth counts while packets are made, so it knows nothing of the probe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use vmprobe::config::{self, Mode, Plan};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{self, Row, number, text};
use vmprobe_tests::replaying::run;

/// A scenario, played back.
struct Played {
    _folder: Folder,
    truth: Json,
    accounted: u64,
    causes: BTreeMap<&'static str, u64>,
    records: PathBuf,
}

fn plan(folder: &Path) -> Plan {
    let loaded = config::load(&folder.join("vmprobe.toml"), Mode::Replay);
    let mut plan = loaded.expect("the generator's configuration").plan;
    plan.serve.enabled = false;
    plan.store.free_mib_min = 0;
    plan
}

fn play(scenario: Scenario) -> Played {
    let folder = Folder::new(&format!("generated-{scenario}"));
    generate(scenario, 3, folder.root(), Options::default()).expect("generated");
    let truth = std::fs::read_to_string(folder.path("truth.json")).expect("the truth");
    let truth: Json = serde_json::from_str(&truth).expect("JSON");
    let files = ["tap-a.pcap", "tap-b.pcap"].map(|name| folder.path(name));
    let records = folder.path("records");
    let replay = run(plan(folder.root()), &files, Some(&records)).expect("a replay");
    assert!(replay.errors.is_empty(), "{:?}", replay.errors);
    let report = replay.report;
    assert_eq!(report.ledger.unaccounted, 0);
    assert_eq!(report.packets, truth["packets"]);
    assert_eq!(report.octets, truth["octets"]);
    // Each run has its own secret, so what lies where is another each time, and must not show.
    // A line of digests that is full forgets the oldest, whose copies have come long ago: once in
    // some hundred thousand packets, and the counts below would show where they had not.
    let mut beside = report.ledger.beside;
    let forgotten = beside.remove("digests_evicted").unwrap_or(0);
    assert!(forgotten <= 3, "{forgotten} digests were forgotten");
    assert_eq!(beside, BTreeMap::new(), "no other bound is met");
    let (accounted, causes) = (report.ledger.accounted, report.ledger.causes);
    Played { _folder: folder, truth, accounted, causes, records }
}

/// IP octets that each VM sent, by the records of windows.
fn sent_by_vm(windows: &[Row]) -> BTreeMap<String, u64> {
    let mut sent = BTreeMap::new();
    for row in windows {
        for (uuid, octets) in [
            ("source_virtual_station_uuid", "octet_delta_count"),
            ("destination_virtual_station_uuid", "reverse_octet_delta_count"),
        ] {
            let Some(uuid) = text(row, uuid) else { continue };
            *sent.entry(uuid.to_owned()).or_default() += number(row, octets);
        }
    }
    sent.retain(|_, octets| *octets > 0);
    sent
}

fn sum(rows: &[Row], columns: [&str; 2]) -> u64 {
    rows.iter().flat_map(|row| columns.map(|column| number(row, column))).sum()
}

fn list(value: &Json) -> &[Json] {
    value.as_array().expect("a list")
}

/// Traffic, flows and copies are as the truth says.
fn check_traffic(played: &Played) {
    let Played { truth, causes, records, .. } = played;
    let windows = records::rows(records, "windows");
    let truth_sent = truth["octets_sent_by_vm"].as_object().expect("an object").iter();
    let truth_sent: BTreeMap<String, u64> = truth_sent
        .map(|(uuid, octets)| (uuid.clone(), octets.as_u64().expect("a number")))
        .collect();
    let sent = sent_by_vm(&windows);
    let differences: Vec<_> = truth_sent
        .iter()
        .filter(|(uuid, octets)| sent.get(*uuid) != Some(*octets))
        .map(|(uuid, octets)| (uuid, octets, sent.get(uuid)))
        .collect();
    assert!(differences.is_empty(), "octets by VM, truth and records: {differences:?}");
    assert_eq!(sent.len(), truth_sent.len(), "no further VM sends");

    let columns = ["packet_delta_count", "reverse_packet_delta_count"];
    let flows = records::rows(records, "flows");
    assert_eq!(truth["logical_packets"], played.accounted);
    assert_eq!(truth["logical_packets"], sum(&windows, columns), "in windows");
    assert_eq!(truth["logical_packets"], sum(&flows, columns), "in flows");

    let cause = |name| causes.get(name).copied().unwrap_or(0);
    assert_eq!(truth["copied_packets"], cause("copy_other_tap"));
    assert_eq!(truth["not_ip_packets"], cause("not_ip_arp"));
    assert_eq!(cause("duplicate"), 0, "no tap sees a packet twice");
    let named = cause("copy_other_tap") + cause("not_ip_arp");
    assert_eq!(causes.values().sum::<u64>(), named, "{causes:?}");
    check_flows(truth, &flows);
    check_taps(truth, &records::rows(records, "taps"));
    check_paths(truth, &records::rows(records, "path"));
}

/// All frames of each tap, those without IP and those of the last window among them.
fn check_taps(truth: &Json, taps: &[Row]) {
    for tap in list(&truth["taps"]) {
        let name = tap["name"].as_str().expect("a name");
        let of_it = |row: &Row| row["tap"] == tap["name"];
        let counted =
            ["packet_count", "octet_count"].map(|column| records::sum(taps, column, of_it));
        let truly = ["packets_by_tap", "octets_by_tap"].map(|count| &truth[count][name]);
        assert_eq!(counted.map(Json::from).each_ref(), truly, "{name}");
        assert!(counted[0] > 0, "{name} sees packets");
        let host = taps.iter().filter(|row| of_it(row)).all(|row| row["host"] == tap["host"]);
        assert!(host, "{name} stands on {}", tap["host"]);
    }
    let known =
        taps.iter().all(|row| list(&truth["taps"]).iter().any(|tap| row["tap"] == tap["name"]));
    assert!(known, "no further tap: {taps:?}");
}

/// Delay and loss of each way between the taps: exact, but for the mean, which each window rounds.
fn check_paths(truth: &Json, rows: &[Row]) {
    let taps = |row: &Row| row["scope"] == "taps";
    for path in list(&truth["path"]) {
        let of_it = |row: &Row| {
            taps(row) && row["from_tap"] == path["from_tap"] && row["to_tap"] == path["to_tap"]
        };
        let of = |column: &str| records::sum(rows, column, of_it);
        let truly = |name: &str| path[name].as_u64().expect("a number");
        let delay = |name: &str| path["delay_ns"][name].as_u64().expect("a number");
        assert_eq!(of("matched_packet_count"), delay("count"), "{path}");
        assert_eq!(of("delay_sample_count"), delay("count"), "{path}");
        assert_eq!(of("sampled_packet_count"), truly("total_packets"), "{path}");
        assert_eq!(of("network_loss_packet_count"), truly("lost_repeated_packets"), "{path}");
        let unproven = of("unresolved_loss_packet_count") + of("mirror_loss_packet_count");
        let lost = truly("lost_packets") - truly("lost_repeated_packets");
        assert_eq!((unproven, of("ambiguous_packet_count")), (lost, 0), "{path}");
        let found = |column: &str| {
            let rows = rows.iter().filter(|row| of_it(row) && !row[column].is_null());
            rows.map(|row| row[column].as_i64().expect("a number")).collect::<Vec<_>>()
        };
        let (least, most) = (found("delay_min_ns"), found("delay_max_ns"));
        assert_eq!(least.into_iter().min(), Some(delay("min").cast_signed()), "{path}");
        assert_eq!(most.into_iter().max(), Some(delay("max").cast_signed()), "{path}");
        let sum: i64 = rows
            .iter()
            .filter(|row| of_it(row) && !row["delay_mean_ns"].is_null())
            .map(|row| {
                let samples = number(row, "delay_sample_count").cast_signed();
                row["delay_mean_ns"].as_i64().expect("a number") * samples
            })
            .sum();
        let mean = sum / delay("count").cast_signed();
        assert!(mean.abs_diff(delay("mean").cast_signed()) <= 1_000, "{mean} {path}");
    }
    let ways = rows.iter().filter(|row| taps(row)).map(|row| (&row["from_tap"], &row["to_tap"]));
    let ways: std::collections::HashSet<_> = ways.map(|way| format!("{way:?}")).collect();
    assert_eq!(ways.len(), list(&truth["path"]).len(), "no further way: {ways:?}");
}

/// The truth has one flow for each key in the whole run.
fn check_flows(truth: &Json, flows: &[Row]) {
    let columns = ["address_space", "protocol_identifier"];
    let ends = [("source_address", "source_port"), ("destination_address", "destination_port")];
    let key = |flow: &Row| {
        let mut ends = ends.map(|(address, port)| format!("{} {}", flow[address], flow[port]));
        ends.sort_unstable();
        format!("{:?} {ends:?}", columns.map(|column| flow[column].to_string()))
    };
    let mut keys: Vec<_> = flows.iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(truth["flows"], keys.len());
}

/// Each attack has an alert at the right ones, and there is no other alert.
fn check_alerts(played: &Played) {
    let alerts = records::rows(&played.records, "alerts");
    let attacks = list(&played.truth["attacks"]);
    let is_of = |alert: &Row, attack: &Json| {
        let same = |column: &str| attack[column].is_null() || alert[column] == attack[column];
        alert["detector"] == attack["kind"]
            && same("source_address")
            && same("destination_address")
            && alert["segment"] == attack["segment"]
            && number(alert, "last_seen_ns") >= attack["first_seen_ns"].as_u64().expect("a time")
    };
    for attack in attacks {
        let found = alerts.iter().any(|alert| is_of(alert, attack));
        assert!(found, "no alert of {attack}: {alerts:?}");
    }
    for alert in &alerts {
        let known = attacks.iter().any(|attack| is_of(alert, attack));
        assert!(known, "a false alarm: {alert:?}");
    }
}

#[test]
fn cloud() {
    let played = play(Scenario::Cloud);
    check_traffic(&played);
    check_alerts(&played);
}

#[test]
fn overlap() {
    let played = play(Scenario::Overlap);
    check_traffic(&played);
    check_alerts(&played);
}

#[test]
fn port_scan() {
    let played = play(Scenario::PortScan);
    check_traffic(&played);
    check_alerts(&played);
}

#[test]
fn syn_flood() {
    let played = play(Scenario::SynFlood);
    check_traffic(&played);
    check_alerts(&played);
}

#[test]
fn benign() {
    let played = play(Scenario::Benign);
    check_traffic(&played);
    check_alerts(&played);
    assert_eq!(records::rows(&played.records, "alerts").len(), 0);
}
