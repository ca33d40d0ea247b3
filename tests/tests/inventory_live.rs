//! The inventory of a running probe: changes by HTTP and by file, late facts, address spaces that
//! workers learn while packets come, 10,000 VMs on one network.
#![cfg(feature = "dpdk")]

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use vmprobe::generate::Options;
use vmprobe_tests::end_to_end::{
    Folder, Ledger, NOT_BUILT, Probe, answer_within, built, datagram, endless, get, query, send,
    send_json, skipped, too_long, vmprobe,
};
use vmprobe_tests::overlap::{self, Overlap};

const WEB: &str = "00000000-0000-0000-0000-000000000001";
const DB: &str = "00000000-0000-0000-0000-000000000002";

fn inventory(name: &str, rest: &str) -> String {
    format!(
        "[[tenant]]\nname = \"acme\"\n[[vm]]\nuuid = \"{WEB}\"\nname = \"{name}\"\ntenant = \"acme\"\n\
         [[vm.interface]]\nmac = \"02:00:00:00:00:01\"\naddresses = [\"10.0.0.1\"]\n\
         segment = \"default/vlan/7\"\n{rest}"
    )
}

/// A probe that sees 10.0.0.1 send to 10.0.0.2 in VLAN 7.
fn start(folder: &Folder) -> (Probe, String) {
    folder.write("inventory.toml", inventory("web", ""));
    let station = |number| ([2, 0, 0, 0, 0, number], [10, 0, 0, number]);
    let rest = "[inventory]\nfile = \"inventory.toml\"\napi = true\n";
    endless(folder, &[datagram(7, station(1), station(2))], rest)
}

/// Waits until an answer of the API is as wanted.
fn waits_for(address: &str, path: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    answer_within(10, address, path, wanted)
}

fn db() -> Json {
    json!({"events": [{
        "vm": DB, "event": "create", "at": "2020-01-01T00:00:00Z", "name": "db", "tenant": "acme",
        "interfaces": [{"mac": "02:00:00:00:00:02", "addresses": ["10.0.0.2"], "segment": "default/vlan/7"}],
    }]})
}

#[test]
fn late_facts_are_seen_by_queries_and_spaces_by_workers() {
    if too_long("the inventory of a running probe") {
        return;
    }
    if built("vmprobe-query").is_none() {
        skipped("the inventory of a running probe", NOT_BUILT);
        return;
    }
    let folder = Folder::new("inventory-live");
    let (mut probe, address) = start(&folder);
    let address = address.as_str();
    // A window or two in which nobody knows who 10.0.0.2 is.
    waits_for(address, "/api/v1/live", |live| live["window_count"].as_u64() > Some(2));

    changes_by_http(address);
    changes_by_file(&folder, address, &mut probe);

    let windows = get(address, "/api/v1/live").json()["window_count"].as_u64().unwrap_or(0);
    waits_for(address, "/api/v1/live", |live| live["window_count"].as_u64() > Some(windows + 2));
    graph_by_http(address);
    graph_beside_torn_files(address, &folder.path("records/windows/torn"));
    let metrics = get(address, "/metrics").body;
    for line in ["vmprobe_inventory_vms{} 2.0", "source=\"file\",state=\"live\"} 1.0"] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    probe.terminate();
    let ended = probe.end(30);
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
    check_records(&folder.path("records"));
}

/// The graph of the records that are written so far, and questions that are not understood.
fn graph_by_http(address: &str) {
    let graph = get(address, "/api/v1/topology?from=2020-01-01T00:00:00Z&limit=10");
    assert_eq!(graph.status, 200, "{graph:?}");
    let graph = graph.json();
    assert!(graph["nodes"].is_array() && graph["edges"].is_array(), "{graph}");
    assert_eq!(
        (&graph["from_ns"], &graph["to_ns"]),
        (&json!(1_577_836_800_000_000_000_u64), &Json::Null)
    );
    // A store that is busy with the disk may once not have put the newest records into files.
    let lacks_nothing = |graph: &Json| graph["warnings"] == json!([]);
    answer_within(60, address, "/api/v1/topology?limit=10", lacks_nothing);
    for question in ["from=yesterday", "from=2&to=1", "limit=0", "data=/", "tenant="] {
        let refused = get(address, &format!("/api/v1/topology?{question}"));
        assert_eq!(refused.status, 400, "{question}: {refused:?}");
        assert!(refused.json()["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
}

/// They are left out, the answer says so, and does not wait until somebody has read of each.
fn graph_beside_torn_files(address: &str, torn: &Path) {
    std::fs::create_dir_all(torn).expect("a folder");
    for number in 0..600 {
        let name = format!("{}{number}.parquet", "x".repeat(200));
        std::fs::write(torn.join(name), "PAR1").expect("a file");
    }
    let graph = get(address, "/api/v1/topology?limit=10");
    assert_eq!(graph.status, 200, "{graph:?}");
    let graph = graph.json();
    let warnings = graph["warnings"].as_array().expect("a list");
    let of_files = |warning: &&str| warning.starts_with("left out, not records of vmprobe (600):");
    let warning = warnings.iter().filter_map(Json::as_str).find(of_files);
    assert!(warning.is_some_and(|warning| warning.ends_with("and 580 more")), "{warnings:?}");
    std::fs::remove_dir_all(torn).expect("it is there");
}

fn changes_by_http(address: &str) {
    let posted = send_json(address, "POST", "/api/v1/inventory", &db());
    assert_eq!(posted.status, 202, "{posted:?}");
    let vm = format!("/api/v1/inventory/vms/{DB}");
    waits_for(address, &vm, |vm| vm["facts"].as_array().is_some_and(|facts| facts.len() == 6));
    // Again it changes nothing.
    assert_eq!(send_json(address, "POST", "/api/v1/inventory", &db()).status, 202);
    let sources = waits_for(address, "/api/v1/inventory", |status| {
        status["sources"].as_array().is_some_and(|sources| {
            sources.iter().any(|source| source["name"] == "api" && source["unchanged"] == 6)
        })
    });
    assert_eq!(sources["vms"], 2);

    let wrong = json!({"events": [{"vm": "7", "event": "create"}]});
    let refused = send_json(address, "POST", "/api/v1/inventory", &wrong);
    assert_eq!(
        (refused.status, &refused.json()["faults"][0]["pointer"]),
        (400, &json!("/events/0/vm"))
    );
    assert_eq!(send(address, "POST", "/api/v1/inventory", "", &db().to_string()).status, 415);
    let foreign = "Origin: https://example.org\r\nContent-Type: application/json\r\n";
    assert_eq!(send(address, "POST", "/api/v1/inventory", foreign, &db().to_string()).status, 403);
    let long = "Content-Type: application/json\r\nContent-Length: 9000000\r\n";
    assert_eq!(send(address, "POST", "/api/v1/inventory", long, "").status, 413);

    // All that is said of it anew: what is left out ends.
    let whole = json!({"name": "db-2", "tenant": "acme", "interfaces": [
        {"mac": "02:00:00:00:00:02", "addresses": ["10.0.0.2"], "segment": "default/vlan/7"}]});
    assert_eq!(send_json(address, "PUT", &vm, &whole).status, 202);
    waits_for(address, "/api/v1/inventory/vms?name=db-2", |page| page["total"] == 1);
    let asked = "/api/v1/inventory/resolve/10.0.0.2?address_space=default/vlan/7";
    assert_eq!(get(address, asked).json()["vm"]["uuid"], DB);
    let before = format!("{asked}&known=2020-01-01T00:00:00Z");
    assert_eq!(get(address, &before).json()["vm"], Json::Null, "nobody knew it then");
    let unknown = format!("/api/v1/inventory/vms/{}", DB.replace('2', "9"));
    assert_eq!(send(address, "DELETE", &unknown, "", "").status, 404);
}

fn changes_by_file(folder: &Folder, address: &str, probe: &mut Probe) {
    let file = |status: &Json| status["sources"][0].clone();
    folder.replace("inventory.toml", "[[vm]]\n");
    let failed =
        waits_for(address, "/api/v1/inventory", |status| file(status)["state"] == "failed");
    assert!(file(&failed)["last_error"].as_str().is_some_and(|error| error.contains("uuid")));
    probe.said("the inventory of before stays", 5);
    assert_eq!(get(address, "/api/v1/inventory/vms?name=web").json()["total"], 1);
    let space =
        "[[space]]\nname = \"router\"\nsegments = [\"default/vlan/7\", \"default/vlan/8\"]\n";
    folder.replace("inventory.toml", inventory("web-2", space));
    waits_for(address, "/api/v1/inventory/vms?name=web-2", |page| page["total"] == 1);
    waits_for(address, "/api/v1/conversations", |page| {
        page["items"].as_array().is_some_and(|items| {
            items.iter().any(|item| item["destination_virtual_station_name"] == "db-2")
        })
    });
}

fn check_records(records: &std::path::Path) {
    let ask = |sql: &str| query(records, sql).expect("it is built");
    let then = ask("SELECT destination_virtual_station_name AS name, address_space AS space, \
         count(*)::UBIGINT AS windows FROM windows GROUP BY ALL ORDER BY min(window_start_ns)");
    let names: Vec<&Json> = then.as_array().expect("rows").iter().map(|row| &row["name"]).collect();
    assert!(names[0].is_null(), "as known then: {then}");
    let last = then.as_array().and_then(|rows| rows.last()).expect("a row");
    assert_eq!((&last["name"], &last["space"]), (&json!("db-2"), &json!("router")), "{then}");
    let now = ask("SELECT DISTINCT source_virtual_station_uuid AS source, \
         destination_virtual_station_uuid AS destination, traffic_class AS class FROM windows_now");
    let all = json!([{"source": WEB, "destination": DB, "class": "east_west"}]);
    assert_eq!(now, all, "as known now, of all windows");
    let same =
        ask("SELECT (SELECT count(*) FROM windows) = (SELECT count(*) FROM windows_now) AS same");
    assert_eq!(same[0]["same"], true);
    let rows = ask("SELECT count(*)::UBIGINT AS rows FROM inventory WHERE known_to_ns IS NOT NULL");
    assert!(rows[0]["rows"].as_u64() > Some(0), "{rows}");
}

/// VLAN of the mirror of each tap.
const MIRRORS: [u16; 2] = [101, 102];
/// One VM in so many is not in the file, and is told by HTTP while its packets come.
const LATE_ONE_IN: usize = 1_000;

/// Both captures as one, cut at each second: records in order of their stamps, each frame behind the tag of
/// its tap's mirror. The first piece is the file's header.
fn merged(captures: &[std::path::PathBuf; 2]) -> Vec<Vec<u8>> {
    let files = captures.each_ref().map(|path| std::fs::read(path).expect("a capture"));
    let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
    for (file, vlan) in files.iter().zip(MIRRORS) {
        let mut rest = &file[24..];
        while !rest.is_empty() {
            let word =
                |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four octets"));
            let octets = word(8);
            let end = 16 + usize::try_from(octets).expect("short");
            let length = (octets + 4).to_le_bytes();
            let (stamps, frame) = (&rest[..8], &rest[16..end]);
            let tag = [&[0x81, 0][..], &vlan.to_be_bytes()].concat();
            let parts = [stamps, &length, &length, &frame[..12], &tag, &frame[12..]];
            records.push((u64::from(word(0)) * 1_000_000 + u64::from(word(4)), parts.concat()));
            rest = &rest[end..];
        }
    }
    records.sort_by_key(|(stamp_us, _)| *stamp_us);
    let first_s = records.first().expect("packets").0 / 1_000_000;
    let mut pieces = vec![files[0][..24].to_vec()];
    for (stamp_us, record) in records {
        let piece = 1 + usize::try_from(stamp_us / 1_000_000 - first_s).expect("a short capture");
        pieces.resize(pieces.len().max(piece + 1), Vec::new());
        pieces[piece].extend(record);
    }
    pieces
}

/// The generated inventory without what is told later: where VMs go to, and some VMs altogether. Gives the
/// file, and the events that create these VMs.
fn known_at_start(inventory: &str) -> (String, Vec<Json>) {
    let mut vms = inventory.split("\n[[vm]]\n");
    let mut text = vms.next().expect("tenants").to_owned();
    let mut late = Vec::new();
    for (place, vm) in vms.enumerate() {
        let vm = vm.split("\n[[vm.placement]]").next().unwrap_or_default();
        if place % LATE_ONE_IN != LATE_ONE_IN / 2 {
            text += &format!("\n[[vm]]\n{vm}\n");
            continue;
        }
        let field = |key: &str| {
            let line = vm.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
            line.unwrap_or_else(|| panic!("{key}: {vm}")).trim_matches(['[', ']', '"'])
        };
        late.push(json!({
            "vm": field("uuid"), "event": "create", "at": "2000-01-01T00:00:00Z",
            "name": field("name"), "tenant": field("tenant"), "host": field("host"),
            "interfaces": [{"mac": field("mac"), "addresses": [field("addresses")],
                            "segment": field("segment")}],
        }));
    }
    (text, late)
}

fn overlap_configuration(folder: &Folder) -> String {
    let mut text = format!(
        "[eal]\nmemory_mib = 128\nhuge_pages = false\nfile_prefix = \"{}\"\n\
         [[port]]\nname = \"p\"\ndevice = \"net_pcap0,rx_pcap={}\"\n\
         [copies]\nslots = 131072\n[path]\nslots = 65536\n[flow]\nslots_per_worker = 65536\n\
         [window]\nrows_max = 65536\n[inventory]\nfile = \"start.toml\"\napi = true\n\
         [store]\nfolder = \"records\"\nfree_mib_min = 16\n[serve]\nlisten = \"127.0.0.1:0\"\n",
        folder.name(),
        folder.path("packets").display(),
    );
    for (tap, (vlan, host)) in
        ["tap-a", "tap-b"].iter().zip(MIRRORS.iter().zip(["host-a", "host-b"]))
    {
        text += &format!(
            "[[tap]]\nname = \"{tap}\"\nmatch = {{ port = \"p\", vlan = {vlan} }}\nhost = \"{host}\"\n\
             direction = \"ingress\"\nduplicates = false\n"
        );
    }
    text
}

/// 10,000 VMs in 100 tenants, all in 10.0.0.0/24. While their packets come in, the API is told of a
/// migration in each second of them, and of VMs that nobody knew. No octet is booked on another VM: at once
/// for those that are known, and on query for all.
#[test]
fn vms_on_one_network_are_told_apart_while_the_inventory_changes() {
    let test = "vms_on_one_network_are_told_apart_while_the_inventory_changes";
    if too_long(test) {
        return;
    }
    let options = Options { scale: 0.25, duration_s: Some(8), vms_per_tenant: Some(100) };
    let cloud = Overlap::new("overlap-live", overlap::seed(test), options);
    let folder = &cloud.folder;
    let inventory = std::fs::read_to_string(folder.path("inventory.toml")).expect("an inventory");
    let (start, late) = known_at_start(&inventory);
    folder.write("start.toml", start);
    let pipe = folder.path("packets");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let file = folder.write("live.toml", overlap_configuration(folder));

    // The probe opens the pipe when somebody writes into it.
    let mut pieces = merged(&cloud.captures()).into_iter();
    let (to_writer, from_test) = std::sync::mpsc::sync_channel::<Vec<u8>>(0);
    let header = pieces.next().expect("a header");
    let writer = std::thread::spawn(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(pipe).expect("a pipe");
        let mut write = |piece: &[u8]| pipe.write_all(piece).expect("the probe reads");
        write(&header);
        for piece in from_test {
            write(&piece);
        }
    });
    let mut command = Command::new(vmprobe());
    command.args(["run", "--json", "--idle-seconds", "3", "-c"]).arg(file);
    let mut probe = Probe::start(command);
    let address = probe.receiving().expect("it has a page");
    let migrations = cloud.truth["migrations"].as_array().expect("migrations");
    let late_uuids: Vec<String> =
        late.iter().map(|event| event["vm"].as_str().expect("a text").to_owned()).collect();
    let mut late = late.into_iter();
    for (second, piece) in pieces.enumerate() {
        to_writer.send(piece).expect("the writer is there");
        // This piece is on its way.
        let moved = migrations.get(second).map(|moved| {
            json!({"vm": moved["uuid"], "event": "migrate", "host": moved["to"],
                   "at": moved["time_ns"]})
        });
        let events: Vec<Json> = moved.into_iter().chain(late.by_ref().take(2)).collect();
        let posted = send_json(&address, "POST", "/api/v1/inventory", &json!({ "events": events }));
        assert_eq!(posted.status, 202, "{posted:?}");
    }
    assert_eq!(late.len(), 0, "all were told");
    for moved in migrations {
        let uuid = moved["uuid"].as_str().expect("a text");
        waits_for(&address, &format!("/api/v1/inventory/vms/{uuid}"), |vm| {
            vm["migrations"][0]["to"] == moved["to"]
        });
    }
    drop(to_writer);
    writer.join().expect("it ends");
    let ended = probe.end(60);
    let ledger = Ledger::even(&ended.expect(0, &[]).json());
    assert_eq!(Some(ledger.received), cloud.truth["packets"].as_u64());

    let (sent, records) = (cloud.sent(), folder.path("records"));
    eprintln!("{} packets, {} VMs", cloud.truth["packets"], sent.len());
    assert!(sent.len() > 7_500, "{} VMs sent", sent.len());
    let Some(mut at_once) = overlap::booked(&records, "windows") else {
        return skipped(test, NOT_BUILT);
    };
    overlap::assert_own(&sent, &overlap::booked(&records, "windows_now").expect("it is built"));
    let mut known = sent.clone();
    for uuid in &late_uuids {
        let (all, booked) = (known.remove(uuid), at_once.remove(uuid));
        assert!(booked <= all, "{uuid} has {booked:?} of {all:?}");
    }
    overlap::assert_own(&known, &at_once);
}
