//! Hours that stand added up say the same as their windows.

mod folder;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use folder::{Folder, files, stderr};
use serde_json::Value as Json;
use vmprobe::config::StorePlan;
use vmprobe::export::ParquetSink;
use vmprobe::record::{Rows, WindowRecord};
use vmprobe::time::Timestamp;

const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3_600 * SECOND_NS;
const HOUR: u64 = 480_000;

/// Windows of an hour, `count` of them.
fn windows(hour: u64, count: u64) -> Rows {
    let window = |number: u64| {
        let vm = |number: u64| Some(Arc::<str>::from(format!("vm-{}", number % 7)));
        let address = |number: u64| IpAddr::V4(Ipv4Addr::from_bits(number.try_into().unwrap_or(0)));
        let start = hour * HOUR_NS + number * 17 % 3_600 * SECOND_NS;
        WindowRecord {
            window_start_ns: start,
            window_end_ns: start + SECOND_NS,
            segment: "default/none".into(),
            address_space: "default/none".into(),
            source_address: address(number),
            destination_address: address(number / 3),
            destination_port: if number.is_multiple_of(3) { 443 } else { 53 },
            protocol_identifier: 6,
            application_name: if number.is_multiple_of(5) { "tls" } else { "" },
            source_virtual_station_name: if number.is_multiple_of(4) { None } else { vm(number) },
            destination_virtual_station_name: vm(number / 11),
            traffic_class: "north_south",
            flow_count: 1,
            packet_delta_count: number,
            octet_delta_count: number * 100,
            reverse_octet_delta_count: number * 7 + 1,
            sampling_rate: if number.is_multiple_of(2) { 1.0 } else { 0.5 },
            tap: "a".into(),
            ..WindowRecord::default()
        }
    };
    Rows { windows: (0..count).map(window).collect(), ..Rows::default() }
}

fn write(folder: &Folder, probe: &str, hour: u64, count: u64) {
    let plan =
        StorePlan { folder: Some(folder.0.clone()), free_mib_min: 0, ..StorePlan::default() };
    let mut sink = ParquetSink::new(&plan, probe, "east").expect("a folder");
    sink.write(windows(hour, count), Timestamp(hour * HOUR_NS));
    assert!(sink.close(Timestamp(hour * HOUR_NS)), "{:?}", sink.health());
}

fn hour_folder(folder: &Folder, hour: u64) -> PathBuf {
    let days = fs::read_dir(folder.0.join("windows")).expect("days").flatten();
    let hours = days.flat_map(|day| fs::read_dir(day.path()).expect("hours").flatten());
    let hours = hours.map(|entry| entry.path());
    hours.filter(|path| path.ends_with(format!("{:02}", hour % 24))).last().expect("the hour")
}

fn roll_up(folder: &Folder, probe: &str, hour: u64) {
    let output = try_to_roll_up(folder, probe, hour, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!folder.0.join(".roll-up-p1").exists(), "nothing is left");
}

fn try_to_roll_up(folder: &Folder, probe: &str, hour: u64, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"));
    command.arg("roll-up").arg("--hour").arg(hour_folder(folder, hour));
    command.arg("--work").arg(folder.0.join(".roll-up-p1")).args(["--probe", probe]);
    command.args(arguments).output().expect("the query program")
}

/// Hidden files of the hour.
fn rolled(folder: &Folder, hour: u64) -> Vec<String> {
    let entries = fs::read_dir(hour_folder(folder, hour)).expect("the hour").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with('.')).collect();
    names.sort();
    names
}

/// What a view says, and what the windows say in its place.
fn both(folder: &Folder, view: &str, interval_ns: u64) -> [Vec<Json>; 2] {
    let question = |start: &str, rows: &str, from: &str| {
        folder.json(&format!(
            "SELECT probe_id, {start} AS start_ns, source_virtual_station_name, \
             destination_virtual_station_name, destination_port, application_name, traffic_class, \
             {rows}::UBIGINT AS row_count, sum(octet_delta_count)::UBIGINT AS octets, \
             sum(packet_delta_count)::UBIGINT AS packets, sum(retransmission_packet_count) AS again, \
             min(sampling_rate) AS rate, max(sequence_ack_rtt_max_ns) AS longest \
             FROM {from} GROUP BY ALL ORDER BY ALL"
        ))
    };
    let start = format!("window_start_ns // {interval_ns} * {interval_ns}");
    [question("start_ns", "sum(row_count)", view), question(&start, "count(*)", "windows")]
}

/// What `vms_1m` says, and what the windows say in its place.
fn both_of_vms(folder: &Folder) -> [Vec<Json>; 2] {
    let sums = "sum(octet_delta_count)::UBIGINT AS sent, \
                sum(reverse_octet_delta_count)::UBIGINT AS received, \
                sum(window_full_count)::UBIGINT AS full, min(sampling_rate) AS rate";
    let view = folder.json(&format!(
        "SELECT probe_id, start_ns, side, virtual_station_name AS name, traffic_class, \
         sum(row_count)::UBIGINT AS row_count, {sums} FROM vms_1m GROUP BY ALL ORDER BY ALL"
    ));
    let seen_from = |side: &str, twins: [&str; 3]| {
        let [sent, received, full] = twins;
        format!(
            "SELECT probe_id, window_start_ns // 60000000000 * 60000000000 AS start_ns, \
             '{side}' AS side, {side}_virtual_station_name AS name, traffic_class, sampling_rate, \
             {sent} AS octet_delta_count, {received} AS reverse_octet_delta_count, \
             {full} AS window_full_count FROM windows"
        )
    };
    let (forward, reverse) = ("octet_delta_count", "reverse_octet_delta_count");
    let windows = folder.json(&format!(
        "SELECT probe_id, start_ns, side, name, traffic_class, count(*)::UBIGINT AS row_count, {sums} \
         FROM ({} UNION ALL {}) GROUP BY ALL ORDER BY ALL",
        seen_from("source", [forward, reverse, "window_full_count"]),
        seen_from("destination", [reverse, forward, "reverse_window_full_count"])
    ));
    [view, windows]
}

fn check(folder: &Folder, rows: u64) {
    for (view, interval_ns) in [("windows_1m", 60 * SECOND_NS), ("windows_1h", HOUR_NS)] {
        let [found, expected] = both(folder, view, interval_ns);
        assert!(found.len() > 10 && found == expected, "{view}");
        let sum = |row: &Json| row["row_count"].as_u64().expect("a count");
        assert_eq!(found.iter().map(sum).sum::<u64>(), rows, "{view}");
    }
    let [found, expected] = both_of_vms(folder);
    assert!(found.len() > 10 && found == expected, "vms_1m");
    let all = "sum(octet_delta_count)::UBIGINT AS sent, sum(reverse_octet_delta_count)::UBIGINT AS received";
    assert_eq!(
        folder.json(&format!("SELECT {all} FROM vms_1m WHERE side = 'source'")),
        folder.json(&format!("SELECT {all} FROM windows")),
        "one side is all there is"
    );
}

#[test]
fn hours_that_stand_added_up_say_the_same() {
    let folder = Folder::new("rolled");
    for probe in ["p1", "p1-b"] {
        write(&folder, probe, HOUR, 3_000);
        write(&folder, probe, HOUR, 500);
        write(&folder, probe, HOUR + 1, 2_000);
    }
    check(&folder, 11_000);
    roll_up(&folder, "p1", HOUR);
    let names = rolled(&folder, HOUR);
    let views = ["talks_1h", "vms_1m", "windows_1h", "windows_1m"];
    let is_of = |(name, view): (&String, &str)| name.starts_with(&format!(".{view}.2-p1-2-1-"));
    assert!(names.len() == 4 && names.iter().zip(views).all(is_of), "{names:?}");
    check(&folder, 11_000);
    // Again it has nothing to do; of another probe the files are its own.
    roll_up(&folder, "p1", HOUR);
    roll_up(&folder, "p1-b", HOUR);
    assert!(
        rolled(&folder, HOUR).len() == 8
            && names.iter().all(|it| rolled(&folder, HOUR).contains(it))
    );
    check(&folder, 11_000);
    // What comes late is seen although the hour stands added up, and is in it the next time.
    write(&folder, "p1", HOUR, 100);
    check(&folder, 11_100);
    roll_up(&folder, "p1", HOUR);
    let now = rolled(&folder, HOUR);
    assert!(now.len() == 8 && !names.iter().any(|name| now.contains(name)), "{now:?}");
    check(&folder, 11_100);
}

#[test]
fn what_stands_added_up_is_what_is_read_and_a_torn_one_is_not() {
    let folder = Folder::new("rolled-read");
    write(&folder, "p1", HOUR, 3_000);
    roll_up(&folder, "p1", HOUR);
    let hour = hour_folder(&folder, HOUR);
    let paths = || fs::read_dir(&hour).expect("the hour").flatten().map(|entry| entry.path());
    let is_record = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "parquet");
    let records = paths().find(is_record).expect("the windows");
    let whole = fs::read(&records).expect("a file");
    // Pages that nobody can read, in a file that is as large as before.
    let mut broken = whole.clone();
    let footer = *broken.last_chunk::<8>().expect("its end").first_chunk().expect("a length");
    let pages = broken.len() - 8 - usize::try_from(u32::from_le_bytes(footer)).expect("a length");
    broken[4..pages].fill(0xa5);
    fs::write(&records, broken).expect("written");
    let rows =
        "SELECT sum(row_count)::UBIGINT AS n, sum(octet_delta_count)::UBIGINT AS o FROM windows_1h";
    let octets = (0..3_000).map(|number| number * 100).sum::<u64>();
    assert_eq!(folder.json(rows), [serde_json::json!({"n": 3_000, "o": octets})]);
    let rate = "SELECT sum(reverse_octet_delta_count)::UBIGINT AS o FROM vms_1m WHERE side = 'destination'";
    assert_eq!(folder.json(rate), [serde_json::json!({"o": octets})]);
    let asked = folder.query(&["SELECT sum(octet_delta_count) FROM windows"]);
    assert_eq!(asked.status.code(), Some(1), "it needs them");
    fs::write(&records, whole).expect("written");
    for path in paths().filter(|path| !is_record(path)) {
        fs::write(path, "PAR1 torn").expect("written");
    }
    assert_eq!(folder.json(rows), [serde_json::json!({"n": 3_000, "o": octets})]);
    check(&folder, 3_000);
}

/// What an earlier version made of the same windows is not read, and goes when they are added up anew.
#[test]
fn what_an_earlier_version_made_is_made_anew() {
    let folder = Folder::new("rolled-earlier");
    write(&folder, "p1", HOUR, 1_000);
    roll_up(&folder, "p1", HOUR);
    let hour = hour_folder(&folder, HOUR);
    for name in rolled(&folder, HOUR) {
        let earlier = name.replace(".2-p1-", "-p1-");
        assert_ne!(earlier, name);
        fs::rename(hour.join(&name), hour.join(&earlier)).expect("renamed");
        fs::write(hour.join(&earlier), "PAR1 of other columns").expect("written");
    }
    check(&folder, 1_000);
    roll_up(&folder, "p1", HOUR);
    let names = rolled(&folder, HOUR);
    assert!(names.len() == 4 && names.iter().all(|name| name.contains(".2-p1-")), "{names:?}");
    check(&folder, 1_000);
}

#[test]
fn a_foreign_file_is_refused_here_too() {
    let folder = Folder::new("rolled-foreign");
    write(&folder, "p1", HOUR, 100);
    let flows = Rows {
        flows: vec![vmprobe::record::FlowRecord {
            flow_end_ns: HOUR * HOUR_NS,
            ..vmprobe::record::FlowRecord::default()
        }],
        ..Rows::default()
    };
    folder.write(flows, Timestamp(HOUR * HOUR_NS));
    let file = files(&folder.0.join("flows")).pop().expect("a file");
    fs::copy(file, hour_folder(&folder, HOUR).join("foreign.parquet")).expect("copied");
    let output = folder.query(&["FROM windows_1h"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("foreign.parquet: column "), "{}", stderr(&output));
    let output = folder.query(&["--skip-bad-files", "FROM windows_1h"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// That the disk has no room says nothing of the hour; that a file in it is no record does.
#[test]
fn a_disk_without_room_is_told_from_a_bad_hour() {
    let folder = Folder::new("rolled-room");
    write(&folder, "p1", HOUR, 100);
    let output = try_to_roll_up(&folder, "p1", HOUR, &["--free-mib-min=4000000000"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("too little free space"), "{}", stderr(&output));
    fs::write(hour_folder(&folder, HOUR).join("foreign.parquet"), "no records").expect("a file");
    let output = try_to_roll_up(&folder, "p1", HOUR, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(!folder.0.join(".roll-up-p1").exists(), "nothing is left");
}
