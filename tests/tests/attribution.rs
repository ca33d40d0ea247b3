//! Who the ends of a conversation are, and of which class it is: as the probe says it and as a query says it
//! afterwards.
//!
//! Facts that are known in time: the view `windows_now` is `windows`. Facts that come late: it is what the
//! probe would have written, had it known them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use etherparse::PacketBuilder;
use serde_json::Value as Json;
use vmprobe::capture::file::PcapWriter;
use vmprobe::config::{self, Mode, Plan};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::{Folder, NOT_BUILT, query, skipped};
use vmprobe_tests::replaying::run;

const START_S: u64 = 1_700_000_000;

/// Tenant a has two VMs, one of them in a home network, b one, and infra serves everybody; one of a's VMs
/// stands in a shared network. 10.0.0.7 goes from a VM of a to one of b, half-way through the second window.
const INVENTORY: &str = r#"
[[tenant]]
name = "a"
[[tenant]]
name = "b"
[[tenant]]
name = "infra"
"#;

/// Last octet of the MAC address, tenant, address, and more of the interface.
const VMS: [(u8, &str, &str, &str); 10] = [
    (1, "a", "10.0.0.1", ""),
    (2, "a", "10.0.0.2", ""),
    (3, "b", "10.0.0.3", ""),
    (4, "infra", "10.0.0.53", ""),
    (5, "a", "192.168.0.9", ""),
    (6, "a", "10.9.0.1", ""),
    (7, "a", "10.0.0.7", "valid_to = 1700000001500000000\n"),
    (8, "b", "10.0.0.7", "valid_from = 1700000001500000000\n"),
    (9, "a", "10.0.0.9", "shared_addresses = [\"10.0.0.100\", \"10.0.0.101\"]\n"),
    (10, "b", "10.0.0.10", "shared_addresses = [\"10.0.0.100\"]\n"),
];

/// Addresses that VMs may have as others may, by whose MAC address they are seen: the two of above and a
/// router; and who that is.
const SHARED: [(u8, &str, Option<u8>); 4] = [
    (9, "10.0.0.100", Some(9)),
    (10, "10.0.0.100", Some(10)),
    (30, "10.0.0.100", None),
    // Only one may have it.
    (30, "10.0.0.101", Some(9)),
];

/// Addresses that no VM has: at home, shared (and at home), outside.
const OTHERS: [(u8, &str); 5] = [
    (20, "192.168.0.1"),
    (21, "169.254.169.254"),
    (22, "8.8.8.8"),
    (23, "9.9.9.9"),
    (24, "10.9.0.200"),
];

/// Destinations alone.
const GROUPS: [&str; 2] = ["224.0.0.251", "255.255.255.255"];

const RULES: &str = "[inventory]\nhome_networks = [\"192.168.0.0/16\", \"10.9.0.128/25\"]\n\
                     shared_tenants = [\"infra\"]\n\
                     shared_networks = [\"169.254.169.254/32\", \"10.9.0.0/24\"]\n";

fn uuid(number: u8) -> String {
    format!("00000000-0000-0000-0000-0000000000{number:02}")
}

fn mac_text(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn inventory(folder: &Folder) -> PathBuf {
    let mut text = INVENTORY.to_owned();
    for (number, tenant, address, rest) in VMS {
        text += &format!(
            "[[vm]]\nuuid = \"{}\"\nname = \"vm-{number}\"\ntenant = \"{tenant}\"\n\
             [[vm.interface]]\nmac = \"{}\"\naddresses = [\"{address}\"]\n{rest}",
            uuid(number),
            mac_text(number)
        );
    }
    folder.write("inventory.toml", text)
}

/// One packet from everybody to everybody else in each of three windows.
fn capture(folder: &Folder) -> PathBuf {
    let path = folder.path("all.pcap");
    let mut writer =
        PcapWriter::new(fs::File::create(&path).expect("a file"), 1, true).expect("room");
    let ends: Vec<(u8, &str)> =
        VMS.iter().map(|(number, _, address, _)| (*number, *address)).chain(OTHERS).collect();
    let ends: Vec<(u8, &str)> =
        ends.into_iter().chain(SHARED.map(|(number, address, _)| (number, address))).collect();
    let groups = GROUPS.map(|group| (99, group));
    for second in 0..3 {
        let mut at = Timestamp::from_parts(START_S + second, 1_000);
        for (from, source) in &ends {
            for (to, destination) in ends.iter().chain(&groups) {
                if source == destination {
                    continue;
                }
                let address = |text: &str| match text.parse::<IpAddr>().expect("an address") {
                    IpAddr::V4(ip) => ip.octets(),
                    IpAddr::V6(_) => panic!("none is here"),
                };
                let builder =
                    PacketBuilder::ethernet2([2, 0, 0, 0, 0, *from], [2, 0, 0, 0, 0, *to])
                        .ipv4(address(source), address(destination), 64)
                        .udp(5_000, 9);
                let mut frame = Vec::new();
                builder.write(&mut frame, &[7; 20]).expect("a vector takes all");
                let octets = u32::try_from(frame.len()).expect("short");
                writer.write(at, octets, &frame).expect("room");
                at = at + 1_000_000;
            }
        }
    }
    writer.finish().expect("room");
    path
}

fn plan() -> Plan {
    let mut plan =
        config::parse(RULES, "rules.toml", Path::new(""), Mode::Replay).expect("allowed").plan;
    plan.serve.enabled = false;
    plan.store.free_mib_min = 0;
    plan.flow.slots_per_worker = 1 << 12;
    plan.window.rows_max = 1 << 12;
    plan
}

/// What a table or view says of each conversation.
fn said(records: &Path, from: &str) -> Option<Vec<Json>> {
    let sql = format!(
        "SELECT window_start_ns, source_address, destination_address, source_mac, destination_mac,
                COLUMNS('virtual_station'), traffic_class, packet_delta_count
         FROM {from} ORDER BY ALL"
    );
    query(records, &sql).map(|rows| rows.as_array().expect("rows").clone())
}

/// No row of one is not in the other.
fn assert_equal(records: &Path) -> Option<()> {
    for (one, other) in [("windows", "windows_now"), ("windows_now", "windows")] {
        let sql =
            format!("SELECT * FROM (FROM {one} EXCEPT ALL FROM {other}) ORDER BY ALL LIMIT 3");
        let rows = query(records, &sql)?;
        assert_eq!(rows.as_array().map(Vec::len), Some(0), "in {one} alone: {rows}");
    }
    Some(())
}

fn classes(rows: &[Json]) -> Vec<&str> {
    let mut classes: Vec<_> =
        rows.iter().map(|row| row["traffic_class"].as_str().expect("a class")).collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a file");
        }
    }
}

#[test]
fn what_is_known_late_gives_the_class_that_the_probe_would_have_given() {
    let folder = Folder::new("attribution");
    let (inventory, captures) = (inventory(&folder), [capture(&folder)]);
    let (in_time, late) = (folder.path("in-time"), folder.path("late"));
    let mut knowing = plan();
    knowing.inventory.file = Some(inventory);
    for (plan, records) in [(knowing, &in_time), (plan(), &late)] {
        let report = run(plan, &captures, Some(records)).expect("a replay").report;
        assert_eq!(report.ledger.unaccounted, 0);
    }
    let Some(windows) = said(&in_time, "windows") else {
        return skipped("what is known late", NOT_BUILT);
    };
    assert_eq!(classes(&windows), ["east_west", "inter_tenant", "north_south", "transit"]);
    for (number, address, vm) in SHARED {
        let (mac, uuid) = (mac_text(number), vm.map(uuid));
        for end in ["source", "destination"] {
            let seen = windows.iter().filter(|row| {
                row[format!("{end}_address")] == address && row[format!("{end}_mac")] == mac
            });
            let whose: Vec<_> =
                seen.map(|row| row[format!("{end}_virtual_station_uuid")].as_str()).collect();
            assert!(whose.len() > 30, "{address} of {mac} as {end}");
            assert!(whose.iter().all(|it| *it == uuid.as_deref()), "{address} of {mac}: {whose:?}");
        }
    }
    assert_equal(&in_time).expect("it is built");

    let unknown = said(&late, "windows").expect("it is built");
    assert_equal(&late).expect("it is built");
    copy(&in_time.join("inventory"), &late.join("inventory"));
    let known = said(&late, "windows_now").expect("it is built");
    let changed = known.iter().zip(&unknown);
    let changed = changed.filter(|(now, then)| now["traffic_class"] != then["traffic_class"]);
    assert!(changed.count() > 100);
    for (now, then) in known.iter().zip(&windows) {
        assert_eq!(now, then);
    }
    assert_eq!(known.len(), windows.len());
}

#[test]
fn what_is_known_in_time_is_the_same_afterwards() {
    for (scenario, seed) in [(Scenario::Cloud, 7), (Scenario::Overlap, 5)] {
        let folder = Folder::new("attribution-cloud");
        let options = Options { scale: 1.0, duration_s: Some(8) };
        generate(scenario, seed, folder.root(), options).expect("generated");
        let loaded = config::load(&folder.path("vmprobe.toml"), Mode::Replay);
        let mut plan = loaded.expect("the generator's configuration").plan;
        plan.serve.enabled = false;
        plan.store.free_mib_min = 0;
        let inventory = fs::read_to_string(folder.path("inventory.toml")).expect("an inventory");
        let tenant = inventory.split("[[tenant]]\nname = \"").nth(1).expect("a tenant");
        plan.inventory.shared_tenants =
            vec![tenant.split('"').next().expect("its name").to_owned()];
        plan.inventory.home_networks = vec!["128.0.0.0/1".parse().expect("a network")];
        let records = folder.path("records");
        let files = ["tap-a.pcap", "tap-b.pcap"].map(|name| folder.path(name));
        run(plan, &files, Some(&records)).expect("a replay");
        if assert_equal(&records).is_none() {
            return skipped("what is known in time", NOT_BUILT);
        }
    }
}
