//! The inventory of a running probe: changes by HTTP and by file, late facts, address spaces that
//! workers learn while packets come.
#![cfg(feature = "dpdk")]

use std::process::Command;

use serde_json::{Value as Json, json};
use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::{
    Folder, NOT_BUILT, Probe, answer_within, built, get, query, send, send_json, skipped, too_long,
    vmprobe,
};

const WEB: &str = "00000000-0000-0000-0000-000000000001";
const DB: &str = "00000000-0000-0000-0000-000000000002";

fn inventory(name: &str, rest: &str) -> String {
    format!(
        "[[tenant]]\nname = \"acme\"\n[[vm]]\nuuid = \"{WEB}\"\nname = \"{name}\"\ntenant = \"acme\"\n\
         [[vm.interface]]\nmac = \"02:00:00:00:00:01\"\naddresses = [\"10.0.0.1\"]\n\
         segment = \"default/vlan/7\"\n{rest}"
    )
}

/// One packet from 10.0.0.1 to 10.0.0.2 in VLAN 7.
fn capture(folder: &Folder) -> String {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .single_vlan(7.try_into().expect("a VLAN id"))
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(5_000, 9);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[7; 20]).expect("a vector takes all");
    let path = folder.path("in.pcap");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = PcapWriter::new(file, 1, true).expect("room");
    let octets = u32::try_from(frame.len()).expect("short");
    writer.write(Timestamp::from_parts(1_700_000_000, 0), octets, &frame).expect("room");
    writer.finish().expect("room");
    path.display().to_string()
}

fn start(folder: &Folder) -> (Probe, String) {
    folder.write("inventory.toml", inventory("web", ""));
    let text = format!(
        "[eal]\nmemory_mib = 128\nhuge_pages = false\nfile_prefix = \"{}\"\n\
         [[port]]\nname = \"p\"\ndevice = \"net_pcap0,rx_pcap={},infinite_rx=1\"\n\
         [flow]\nslots_per_worker = 1024\n[window]\nlength_ms = 500\nrows_max = 1024\n\
         [inventory]\nfile = \"inventory.toml\"\napi = true\n\
         [store]\nfolder = \"records\"\nfree_mib_min = 16\n[serve]\nlisten = \"127.0.0.1:0\"\n",
        folder.name(),
        capture(folder)
    );
    let file = folder.write("vmprobe.toml", text);
    let mut command = Command::new(vmprobe());
    command.args(["run", "--seconds", "60", "-c"]).arg(file);
    let mut probe = Probe::start(command);
    let address = probe.receiving().expect("it has a page");
    (probe, address)
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
    for question in ["from=yesterday", "from=2&to=1", "limit=0", "data=/", "tenant="] {
        let refused = get(address, &format!("/api/v1/topology?{question}"));
        assert_eq!(refused.status, 400, "{question}: {refused:?}");
        assert!(refused.json()["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
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
    folder.write("inventory.toml", "[[vm]]\n");
    let failed =
        waits_for(address, "/api/v1/inventory", |status| file(status)["state"] == "failed");
    assert!(file(&failed)["last_error"].as_str().is_some_and(|error| error.contains("uuid")));
    probe.said("the inventory of before stays", 5);
    assert_eq!(get(address, "/api/v1/inventory/vms?name=web").json()["total"], 1);
    let space =
        "[[space]]\nname = \"router\"\nsegments = [\"default/vlan/7\", \"default/vlan/8\"]\n";
    folder.write("inventory.toml", inventory("web-2", space));
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
