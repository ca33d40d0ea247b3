//! Learning from ARP, neighbour discovery and DHCP: a handmade capture through the whole program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vmprobe::capture::file::PcapWriter;
use vmprobe::config::Plan;
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::query;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{self, Row, number, text};
use vmprobe_tests::replaying::{run, small_plan};

const BEGIN_S: u64 = 1_700_000_000;
const FILE_VM: &str = "00000000-0000-0000-0000-000000000003";
/// Of which the file knows a MAC address and no address.
const MAC_VM: &str = "00000000-0000-0000-0000-000000000006";
const SILENCE_NS: u64 = 14_400 * 1_000_000_000;

const fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

/// In VLAN 7, padded to the least that Ethernet has.
fn frame(to: [u8; 6], from: u8, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        [&to[..], &mac(from), &[0x81, 0, 0, 7], &ether_type.to_be_bytes(), payload].concat();
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// `sender` says that it has 10.0.0.`address`, in a frame from `from`.
fn arp(from: u8, sender: u8, address: u8) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let packet = [&head[..], &mac(sender), &[10, 0, 0, address], &mac(8), &[10, 0, 0, 8]].concat();
    frame(mac(8), from, 0x0806, &packet)
}

fn udp(from: u8, source: u8, to: u8, destination: u8) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(mac(from), mac(to))
        .single_vlan(7.try_into().expect("a VLAN id"))
        .ipv4([10, 0, 0, source], [10, 0, 0, destination], 64)
        .udp(5_000, 9);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[7; 20]).expect("a vector takes all");
    bytes
}

/// A server at 10.0.0.8 gives `client` 10.0.0.`address` for `lease_s`.
fn dhcp(client: u8, address: u8, lease_s: u32, name: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[16..20].copy_from_slice(&[10, 0, 0, address]);
    message[28..34].copy_from_slice(&mac(client));
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 5, 51, 4]);
    message.extend(lease_s.to_be_bytes());
    message.extend([12, u8::try_from(name.len()).expect("short")]);
    message.extend(name);
    message.push(255);
    let builder = etherparse::PacketBuilder::ethernet2(mac(8), mac(client))
        .single_vlan(7.try_into().expect("a VLAN id"))
        .ipv4([10, 0, 0, 8], [10, 0, 0, address], 64)
        .udp(67, 68);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &message).expect("a vector takes all");
    bytes
}

/// Duplicate address detection of fe80::`last`, with a checksum by etherparse.
fn detection(from: u8, last: u8) -> Vec<u8> {
    let target = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, last];
    let builder = etherparse::PacketBuilder::ethernet2(mac(from), [0x33, 0x33, 0xff, 0, 0, last])
        .single_vlan(7.try_into().expect("a VLAN id"))
        .ipv6([0; 16], group, 255)
        .icmpv6_raw(135, 0, [0; 4]);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &target).expect("a vector takes all");
    bytes
}

/// Who says what when, in seconds from the beginning.
fn lessons() -> Vec<(u64, Vec<u8>)> {
    let mut all = vec![
        (0, arp(1, 1, 1)),
        (0, udp(1, 1, 8, 50)),
        // Whose packets come through a router later.
        (1, arp(6, 6, 6)),
        (1, dhcp(2, 2, 3_600, b"web-2")),
        (2, udp(2, 2, 1, 1)),
        (2, detection(4, 4)),
        // Another one claims what the file names, and what the first one has.
        (3, arp(9, 9, 3)),
        (3, arp(9, 9, 1)),
        // Not who sent the frame; a host name that is markup.
        (4, arp(9, 1, 99)),
        (4, dhcp(5, 5, 60, b"<script>")),
        (5, udp(3, 3, 2, 2)),
        (5, udp(8, 6, 2, 2)),
    ];
    // Repetitions, and time for what was tried out to hold.
    for second in 6..20 {
        all.push((second, arp(1, 1, 1)));
        all.push((second, udp(2, 2, 3, 3)));
    }
    all
}

fn capture(folder: &Folder) -> PathBuf {
    let path = folder.path("lessons.pcap");
    let mut writer =
        PcapWriter::new(std::fs::File::create(&path).expect("a file"), 1, true).expect("room");
    for (number, (second, bytes)) in lessons().iter().enumerate() {
        let octets = u32::try_from(bytes.len()).expect("short");
        let nanosecond = u64::try_from(number).expect("few");
        writer
            .write(Timestamp::from_parts(BEGIN_S + second, nanosecond), octets, bytes)
            .expect("room");
    }
    writer.finish().expect("room");
    path
}

fn plan(folder: &Folder, capture: &Path, workers: u16, learns: bool) -> Plan {
    let inventory = format!(
        "[[tenant]]\nname = \"acme\"\n[[vm]]\nuuid = \"{FILE_VM}\"\nname = \"db\"\ntenant = \"acme\"\n\
         [[vm.interface]]\nmac = \"02:00:00:00:00:03\"\naddresses = [\"10.0.0.3\"]\n\
         segment = \"default/vlan/7\"\n\
         [[vm]]\nuuid = \"{MAC_VM}\"\nname = \"cache\"\ntenant = \"acme\"\n\
         [[vm.interface]]\nmac = \"02:00:00:00:00:06\"\nsegment = \"default/vlan/7\"\n"
    );
    let mut plan = small_plan(&[capture.to_owned()]);
    plan.worker.count = workers;
    plan.inventory.file = Some(folder.write("inventory.toml", inventory));
    plan.inventory.learned.enabled = learns;
    plan
}

fn replayed(folder: &Folder, workers: u16, learns: bool) -> PathBuf {
    let capture = capture(folder);
    let into = folder.path("records");
    let replay =
        run(plan(folder, &capture, workers, learns), &[capture], Some(&into)).expect("a replay");
    assert_eq!(replay.report.ledger.unaccounted, 0);
    assert_eq!(replay.report.ledger.causes["not_ip_arp"], 19);
    into
}

/// Learned rows that still hold at the end: MAC address, address, name, attributed, begin and end in
/// seconds from the beginning.
fn learned(rows: &[Row]) -> BTreeSet<(String, String, Option<String>, bool, u64, u64)> {
    let over: BTreeSet<u64> = rows
        .iter()
        .filter(|row| !row["known_to_ns"].is_null())
        .map(|row| number(row, "fact_id"))
        .collect();
    let held = rows.iter().filter(|row| {
        text(row, "source") == Some("learned") && !over.contains(&number(row, "fact_id"))
    });
    let second = |row: &Row, column: &str| number(row, column) / 1_000_000_000 - BEGIN_S;
    held.map(|row| {
        assert!(
            row["uuid"].is_null() && row["tenant"].is_null() && row["host"].is_null(),
            "{row:?}"
        );
        assert_eq!(text(row, "segment"), Some("default/vlan/7"));
        let owned = |column| text(row, column).map(str::to_owned);
        (
            owned("mac").expect("a MAC address"),
            owned("address").expect("an address"),
            owned("name"),
            row["attributed"] == true,
            second(row, "valid_from_ns"),
            second(row, "valid_to_ns"),
        )
    })
    .collect()
}

#[test]
fn packets_name_what_no_source_names() {
    let folder = Folder::new("learned");
    let into = replayed(&folder, 2, true);
    let rows = records::rows(&into, "inventory");
    let silence = SILENCE_NS / 1_000_000_000;
    let row = |last: u8, address: &str, name: Option<&str>, attributed, from, to| {
        let mac = format!("02:00:00:00:00:{last:02x}");
        (mac, address.to_owned(), name.map(str::to_owned), attributed, from, to)
    };
    let expected = [
        row(2, "10.0.0.2", Some("web-2"), true, 1, 3_601),
        row(6, "10.0.0.6", None, true, 1, 1 + silence),
        row(5, "10.0.0.5", None, true, 4, 64),
        row(4, "fe80::4", None, true, 3, 3 + silence),
        // The file's, whoever claims it.
        row(9, "10.0.0.3", None, false, 3, 3 + silence),
        // The first one had it, then the other one.
        row(1, "10.0.0.1", None, true, 0, 3),
        row(1, "10.0.0.1", None, false, 3, silence),
        row(9, "10.0.0.1", None, true, 3, 3 + silence),
    ];
    assert_eq!(learned(&rows), expected.into_iter().collect());

    let windows = records::rows(&into, "windows");
    let ends = |row: &Row| {
        ["source", "destination"].map(|end| {
            let of =
                |what: &str| text(row, &format!("{end}_virtual_station_{what}")).map(str::to_owned);
            (text(row, &format!("{end}_address")).map(str::to_owned), of("uuid"), of("name"))
        })
    };
    let all: BTreeSet<_> = windows.iter().flat_map(ends).collect();
    let named = |address: &str, uuid: Option<&str>, name: Option<&str>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        all.contains(&(Some(address.to_owned()), owned(uuid), owned(name)))
    };
    assert!(named("10.0.0.2", None, Some("web-2")), "{all:?}");
    assert!(named("10.0.0.3", Some(FILE_VM), Some("db")), "{all:?}");
    assert!(named("10.0.0.1", None, None), "{all:?}");
    assert!(named("10.0.0.6", Some(MAC_VM), Some("cache")), "by the MAC address: {all:?}");
    assert!(!windows.iter().any(|row| format!("{row:?}").contains("script")));
    let flows = records::rows(&into, "flows");
    assert!(flows.iter().any(|row| text(row, "source_virtual_station_name") == Some("web-2")));
}

/// Names but those that were learned, and all else, are what they are without learning.
#[test]
fn nothing_else_changes() {
    let (with, without) = (Folder::new("learned-with"), Folder::new("learned-without"));
    let folders = [replayed(&with, 2, true), replayed(&without, 2, false)];
    let names = ["source_virtual_station_name", "destination_virtual_station_name"];
    for table in ["windows", "flows", "taps"] {
        let [learned, plain] = folders.each_ref().map(|into| {
            let mut rows = records::rows(into, table);
            // Of this one a source names a VM, to which learning leads.
            rows.retain(|row| {
                row.get("source_address").and_then(|address| address.as_str()) != Some("10.0.0.6")
            });
            rows
        });
        assert!(!plain.is_empty());
        assert_eq!(records::sorted(&learned, &names), records::sorted(&plain, &names), "{table}");
    }
    let plain = records::rows(&folders[1], "inventory");
    assert!(!plain.is_empty() && plain.iter().all(|row| text(row, "source") == Some("file")));
}

#[test]
fn a_replay_that_learns_gives_the_same_each_time() {
    let all: Vec<_> = (0..3_u16)
        .map(|round| {
            let folder = Folder::new(&format!("learned-again-{round}"));
            let into = replayed(&folder, 1 + round * 2, true);
            ["inventory", "windows", "flows"]
                .map(|table| records::sorted(&records::rows(&into, table), &["flow_id"]))
        })
        .collect();
    assert!(all[0].iter().all(|rows| !rows.is_empty()));
    assert!(all.iter().all(|one| *one == all[0]));
}

/// Queries name as the probe does.
#[test]
fn queries_name_what_was_learned() {
    let folder = Folder::new("learned-query");
    let into = replayed(&folder, 1, true);
    let ask = |sql: &str| query(&into, sql);
    for (one, other) in [("windows", "windows_now"), ("flows", "flows_now")]
        .into_iter()
        .flat_map(|(table, view)| [(table, view), (view, table)])
    {
        let Some(alone) = ask(&format!("FROM {one} EXCEPT ALL FROM {other}")) else { return };
        assert_eq!(alone.as_array().map(Vec::len), Some(0), "in {one} alone: {alone}");
    }
    let names = ask("SELECT count(*)::UBIGINT AS rows FROM windows_now \
         WHERE source_virtual_station_name = 'web-2' AND source_virtual_station_uuid IS NULL");
    assert!(names.expect("it is built")[0]["rows"].as_u64() > Some(0));
}

/// A flood of claims: nothing is lost but what the bounds leave out, and VMs keep their places.
#[test]
fn a_flood_of_claims_is_bounded() {
    let folder = Folder::new("learned-flood");
    let path = folder.path("flood.pcap");
    let mut writer =
        PcapWriter::new(std::fs::File::create(&path).expect("a file"), 1, true).expect("room");
    for number in 0..20_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let station = [2, 1, 0, a, b, c];
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        let packet =
            [&head[..], &station, &[10, a, b, c], &[0; 6], &[10, 0, 0, 8], &[0; 18]].concat();
        let bytes = [&[0xff; 6][..], &station, &[8, 6], &packet].concat();
        let octets = u32::try_from(bytes.len()).expect("short");
        let at = Timestamp::from_parts(BEGIN_S + u64::from(number / 2_000), number.into());
        writer.write(at, octets, &bytes).expect("room");
    }
    writer.finish().expect("room");
    let mut plan = plan(&folder, &path, 2, true);
    plan.inventory.vms_max = 2;
    plan.inventory.learned.addresses_max = 1_000;
    plan.inventory.learned.addresses_per_segment_max = 500;
    let into = folder.path("records");
    let replay = run(plan, &[path], Some(&into)).expect("a replay");
    assert_eq!(replay.report.ledger.causes["not_ip_arp"], 20_000);
    assert_eq!(replay.report.ledger.unaccounted, 0);
    let rows = records::rows(&into, "inventory");
    let by = |source: &str| rows.iter().filter(|row| text(row, "source") == Some(source)).count();
    assert_eq!((by("learned"), by("file")), (500, 2));
}
