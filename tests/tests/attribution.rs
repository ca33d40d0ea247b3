//! Who the ends of a conversation, a flow or an alert are, and of which class it is: as the probe says it and
//! as a query says it afterwards.
//!
//! Facts that are known in time: the view `windows_now` is `windows`, and so are those of `flows` and
//! `alerts`. Facts that come late: each is what the probe would have written, had it known them.

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

/// Tenants; see [`VMS`].
const INVENTORY: &str = r#"
[[tenant]]
name = "a"
[[tenant]]
name = "b"
[[tenant]]
name = "infra"
"#;

/// Who has the address and speaks: last octet of the MAC address, tenant of the VM, VLAN, address, from the
/// first window on or in the last one only, and more of the interface.
struct End(u8, Option<&'static str>, Option<u16>, &'static str, u64, &'static str);

/// Half-way through the second window.
const UNTIL: &str = "valid_to = 1700000001500000000\n";
const SINCE: &str = "valid_from = 1700000001500000000\n";

/// Tenant a has two VMs, one of them in a home network, b one, and infra serves everybody; one of a's VMs
/// stands in a shared network. 10.0.0.7 and 10.0.0.8 go from a VM of a to one of b, and 10.0.0.9 to nobody.
/// In VLAN 7 tenant b has addresses that a has as well. The last ones are no VM's: at home, shared (and at
/// home), outside.
const ENDS: [End; 30] = [
    End(1, Some("a"), None, "10.0.0.1", 0, ""),
    End(2, Some("a"), None, "10.0.0.2", 0, ""),
    End(3, Some("b"), None, "10.0.0.3", 0, ""),
    End(4, Some("infra"), None, "10.0.0.53", 0, ""),
    End(5, Some("a"), None, "192.168.0.9", 0, ""),
    End(6, Some("a"), None, "10.9.0.1", 0, ""),
    End(7, Some("a"), None, "10.0.0.7", 0, UNTIL),
    End(8, Some("b"), None, "10.0.0.7", 0, SINCE),
    End(9, Some("a"), None, "10.0.0.8", 9, UNTIL),
    End(10, Some("b"), None, "10.0.0.8", 2, SINCE),
    End(11, Some("a"), None, "10.0.0.9", 2, UNTIL),
    End(12, Some("b"), Some(7), "10.0.0.1", 0, ""),
    End(13, Some("b"), Some(7), "10.0.0.2", 0, ""),
    End(20, None, None, "192.168.0.1", 0, ""),
    End(21, None, None, "169.254.169.254", 0, ""),
    End(22, None, None, "8.8.8.8", 0, ""),
    End(23, None, None, "9.9.9.9", 0, ""),
    End(24, None, None, "10.9.0.200", 0, ""),
    End(25, None, Some(7), "10.0.0.3", 0, ""),
    End(26, None, Some(7), "10.0.0.4", 0, ""),
    End(27, None, Some(7), "10.0.0.5", 0, ""),
    End(28, None, Some(7), "10.0.0.6", 0, ""),
    End(29, None, Some(7), "10.0.0.7", 0, ""),
    End(30, None, Some(7), "10.0.0.8", 0, ""),
    End(
        31,
        Some("a"),
        None,
        "10.0.0.31",
        0,
        "shared_addresses = [\"10.0.0.100\", \"10.0.0.101\"]\n",
    ),
    End(32, Some("b"), None, "10.0.0.32", 0, "shared_addresses = [\"10.0.0.100\"]\n"),
    // These two from what they may have, and a router with both.
    End(31, None, None, "10.0.0.100", 0, ""),
    End(32, None, None, "10.0.0.100", 0, ""),
    End(33, None, None, "10.0.0.100", 0, ""),
    End(33, None, None, "10.0.0.101", 0, ""),
];

/// Addresses that VMs may have as others may, by the MAC address that is seen with them, and whose they are.
const SHARED: [(u8, &str, Option<&str>); 4] = [
    (31, "10.0.0.100", Some("vm-31")),
    (32, "10.0.0.100", Some("vm-32")),
    (33, "10.0.0.100", None),
    // Only one may have it.
    (33, "10.0.0.101", Some("vm-31")),
];

/// Destinations alone.
const GROUPS: [&str; 2] = ["224.0.0.251", "255.255.255.255"];

const RULES: &str = "[inventory]\nhome_networks = [\"192.168.0.0/16\", \"10.9.0.128/25\"]\n\
                     shared_tenants = [\"infra\"]\n\
                     shared_networks = [\"169.254.169.254/32\", \"10.9.0.0/24\"]\n";

fn inventory(folder: &Folder) -> PathBuf {
    let mut text = INVENTORY.to_owned();
    for End(number, tenant, vlan, address, _, rest) in ENDS {
        let Some(tenant) = tenant else { continue };
        let segment =
            vlan.map(|id| format!("segment = \"default/vlan/{id}\"\n")).unwrap_or_default();
        text += &format!(
            "[[vm]]\nuuid = \"00000000-0000-0000-0000-0000000000{number:02}\"\nname = \"vm-{number}\"\n\
             tenant = \"{tenant}\"\n[[vm.interface]]\nmac = \"02:00:00:00:00:{number:02x}\"\n\
             addresses = [\"{address}\"]\n{segment}{rest}"
        );
    }
    folder.write("inventory.toml", text)
}

/// One packet from everybody to everybody else in each of five windows.
fn capture(folder: &Folder) -> PathBuf {
    let path = folder.path("all.pcap");
    let mut writer =
        PcapWriter::new(fs::File::create(&path).expect("a file"), 1, true).expect("room");
    for second in 0..5 {
        let mut at = Timestamp::from_parts(START_S + second, 1_000);
        let speaks = |end: &&End| end.4 <= second;
        for End(from, _, vlan, source, ..) in ENDS.iter().filter(speaks) {
            let beside = ENDS.iter().filter(speaks).filter(|end| end.2 == *vlan);
            let others = beside.map(|end| (end.0, end.3));
            for (to, destination) in others.chain(GROUPS.map(|group| (99, group))) {
                if *source == destination {
                    continue;
                }
                let frame = datagram((*from, source), (to, destination), *vlan);
                let octets = u32::try_from(frame.len()).expect("short");
                writer.write(at, octets, &frame).expect("room");
                at = at + 1_000_000;
            }
        }
    }
    writer.finish().expect("room");
    path
}

/// A frame from one MAC and IP address to another.
fn datagram(from: (u8, &str), to: (u8, &str), vlan: Option<u16>) -> Vec<u8> {
    let address = |text: &str| match text.parse::<IpAddr>().expect("an address") {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("none is here"),
    };
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, from.0], [2, 0, 0, 0, 0, to.0]);
    let (source, destination) = (address(from.1), address(to.1));
    let builder = match vlan {
        Some(id) => {
            ethernet.single_vlan(id.try_into().expect("a VLAN id")).ipv4(source, destination, 64)
        }
        None => ethernet.ipv4(source, destination, 64),
    };
    let mut frame = Vec::new();
    builder.udp(5_000, 9).write(&mut frame, &[7; 20]).expect("a vector takes all");
    frame
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

/// Tables with ends: what tells their rows apart, and what of them depends on who the ends are.
const TABLES: [(&str, &str); 3] = [
    (
        "windows",
        "window_start_ns, address_space, source_address, destination_address, source_mac, destination_mac,
         packet_delta_count, COLUMNS('virtual_station'), traffic_class",
    ),
    (
        "flows",
        "flow_id, flow_start_ns, address_space, source_address, destination_address, source_mac,
         packet_delta_count, COLUMNS('virtual_station'), traffic_class",
    ),
    (
        "alerts",
        "alert_id, state, address_space, first_seen_ns, last_seen_ns, source_address,
         destination_address, COLUMNS('virtual_station'), title",
    ),
];

/// The rows of a table or view.
fn said(records: &Path, columns: &str, from: &str) -> Option<Vec<Json>> {
    let sql = format!("SELECT {columns} FROM {from} ORDER BY ALL");
    query(records, &sql).map(|rows| rows.as_array().expect("rows").clone())
}

/// No row of a table is not in its view, and the other way round.
fn assert_equal(records: &Path) -> Option<()> {
    for (table, _) in TABLES {
        let view = &format!("{table}_now");
        for (one, other) in [(table, view.as_str()), (view, table)] {
            let sql =
                format!("SELECT * FROM (FROM {one} EXCEPT ALL FROM {other}) ORDER BY ALL LIMIT 3");
            let rows = query(records, &sql)?;
            assert_eq!(rows.as_array().map(Vec::len), Some(0), "in {one} alone: {rows}");
        }
    }
    Some(())
}

/// Names of the VMs at an address that a table has.
fn names<'a>(rows: &'a [Json], space: &str, address: &str) -> Vec<Option<&'a str>> {
    let of =
        rows.iter().filter(|row| row["address_space"] == space && row["source_address"] == address);
    let mut names: Vec<_> = of.map(|row| row["source_virtual_station_name"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
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
    let Some(windows) = said(&in_time, TABLES[0].1, "windows") else {
        return skipped("what is known late", NOT_BUILT);
    };
    assert_eq!(classes(&windows), ["east_west", "inter_tenant", "north_south", "transit"]);
    for (number, address, vm) in SHARED {
        let mac = format!("02:00:00:00:00:{number:02x}");
        for end in ["source", "destination"] {
            let seen = windows.iter().filter(|row| {
                row[format!("{end}_address")] == address && row[format!("{end}_mac")] == mac
            });
            let whose: Vec<_> =
                seen.map(|row| row[format!("{end}_virtual_station_name")].as_str()).collect();
            assert!(whose.len() > 30, "{address} of {mac} as {end}");
            assert!(whose.iter().all(|it| *it == vm), "{address} of {mac}: {whose:?}");
        }
    }
    assert_equal(&in_time).expect("it is built");
    assert_equal(&late).expect("it is built");
    for (table, columns) in TABLES {
        let unknown = said(&late, columns, table).expect("it is built");
        assert!(!unknown.is_empty(), "no {table}");
        let nobody = |row: &Json| row["source_virtual_station_name"].is_null();
        assert!(unknown.iter().all(nobody), "somebody knew of {table}");
    }
    copy(&in_time.join("inventory"), &late.join("inventory"));
    for (table, columns) in TABLES {
        let then = said(&in_time, columns, table).expect("it is built");
        let now = said(&late, columns, &format!("{table}_now")).expect("it is built");
        for (now, then) in now.iter().zip(&then) {
            assert_eq!(now, then, "{table}");
        }
        assert_eq!(now.len(), then.len(), "{table}");
        let named = |address| names(&now, "default/none", address);
        let of_tenant_b = names(&now, "default/vlan/7", "10.0.0.1");
        assert_eq!((named("10.0.0.1"), of_tenant_b), (vec![Some("vm-1")], vec![Some("vm-12")]));
        assert_eq!(named("10.0.0.8"), [Some("vm-10")], "{table}: VM 9 had it before");
        assert_eq!(named("10.0.0.9"), [None], "{table}: VM 11 had it before");
        assert_eq!(named("8.8.8.8"), [None], "{table}");
    }
}

#[test]
fn what_is_known_in_time_is_the_same_afterwards() {
    for (scenario, seed) in [(Scenario::Cloud, 7), (Scenario::Overlap, 5)] {
        let folder = Folder::new("attribution-cloud");
        let options = Options { scale: 1.0, duration_s: Some(8), ..Options::default() };
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
