//! A running probe that learns from a real `ovsdb-server` who is who: names in conversations, a
//! migration, the coverage map, and the server's death.
#![cfg(feature = "dpdk")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value as Json, json};
use vmprobe_tests::end_to_end::{
    Folder, Ledger, NOT_BUILT, OvsdbServer, Probe, Storage, answer_within, built, datagram,
    endless, get, missing, run_to_end, skipped, too_long, until,
};

const WEB: &str = "00000000-0000-0000-0000-000000000001";
const DB: &str = "00000000-0000-0000-0000-000000000002";

/// A probe that sees `web` send to `db` in VLAN 10.
fn start(folder: &Folder, server: &OvsdbServer) -> (Probe, String) {
    let station = |number| ([2, 0, 0, 0, 0, number], [10, 0, 0, number]);
    let rest = format!(
        "[[tap]]\nname = \"t\"\nmatch = {{ port = \"p\" }}\nhost = \"h1\"\nswitch = \"h1/br1\"\n\
         duplicates = false\n\
         [[inventory.ovsdb]]\nname = \"switch\"\naddress = \"unix:{}\"\nretry_max_ms = 1000\n",
        server.path("db.sock").display(),
    );
    endless(folder, &[datagram(10, station(1), station(2))], &rest)
}

fn plug(server: &OvsdbServer, bridge: &str, port: &str, vm: &str, name: &str) {
    let low = vm.get(35..).unwrap_or_default();
    let mac = format!("external_ids:attached-mac=\"02:00:00:00:00:0{low}\"");
    let (id, name) = (format!("external_ids:vm-id={vm}"), format!("external_ids:vm-name={name}"));
    let add = ["add-port", bridge, port, "tag=10", "--", "set", "interface", port];
    server.set(&[&add[..], &[&mac, &id, &name]].concat());
}

/// Waits until an answer of the API is as wanted.
fn waits_for(address: &str, path: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    answer_within(20, address, path, wanted)
}

/// Names of both ends in the stored windows that name either, each pair once.
fn stored_names(folder: &Folder) -> Vec<Json> {
    let Some(program) = built("vmprobe-query") else { return Vec::new() };
    let mut command = Command::new(program);
    command.arg("--data").arg(folder.path("records")).args(["--format", "json"]).arg(
        "SELECT DISTINCT source_virtual_station_name AS source, \
         destination_virtual_station_name AS destination FROM windows \
         WHERE source_virtual_station_name IS NOT NULL OR destination_virtual_station_name IS NOT NULL",
    );
    serde_json::from_str(&run_to_end(command).expect(0, &[]).output).expect("one JSON document")
}

/// Whether any item of a page has that.
fn any(page: &Json, wanted: impl Fn(&Json) -> bool) -> bool {
    page["items"].as_array().is_some_and(|items| items.iter().any(wanted))
}

fn is_named(page: &Json) -> bool {
    any(page, |item| {
        item["source_virtual_station_name"] == "web"
            && item["destination_virtual_station_name"] == "db"
            && item["destination_virtual_station_uuid"] == DB
    })
}

#[test]
fn a_switch_names_the_vms_of_a_running_probe() {
    let test = "a_switch_names_the_vms_of_a_running_probe";
    if too_long(test) {
        return;
    }
    let lacks = OvsdbServer::lacks();
    if !lacks.is_empty() {
        missing(test, &lacks, "openvswitch-switch openssl");
        return;
    }
    let mut server = OvsdbServer::start(Storage::Alone);
    for (bridge, host) in [("br1", "h1"), ("br2", "h2")] {
        let hostname = format!("external_ids:hostname={host}");
        server.set(&["add-br", bridge, "--", "set", "bridge", bridge, &hostname]);
    }
    let folder = Folder::new("ovsdb-live");
    let (probe, address) = start(&folder, &server);
    let address = address.as_str();
    waits_for(address, "/api/v1/inventory", |status| status["sources"][0]["state"] == "live");
    plug(&server, "br1", "tap1", WEB, "web");
    plug(&server, "br1", "tap2", DB, "db");
    let page = waits_for(address, "/api/v1/conversations", is_named);
    assert!(any(&page, |item| item["segment"] == "default/vlan/10"), "{page}");
    mirrors_are_shown(&server, address);

    // It moves while it talks, and is on both hosts for a while.
    plug(&server, "br2", "tap3", WEB, "web");
    server.set(&["del-port", "tap1"]);
    let vm = format!("/api/v1/inventory/vms/{WEB}");
    let moved = waits_for(address, &vm, |vm| vm["migrations"][0]["to"] == "h2");
    assert_eq!(moved["migrations"][0]["from"], "h1", "{moved}");
    let page = get(address, "/api/v1/inventory/vms?limit=10").json();
    for (uuid, name) in [(WEB, "web"), (DB, "db")] {
        assert!(any(&page, |vm| vm["uuid"] == uuid && vm["name"] == name), "{name}: {page}");
    }

    server.kill();
    let source = |status: &Json| status["sources"][0].clone();
    waits_for(address, "/api/v1/inventory", |status| source(status)["state"] == "failed");
    let windows = |live: &Json| live["window_count"].as_u64().unwrap_or(0);
    let before = windows(&get(address, "/api/v1/live").json());
    waits_for(address, "/api/v1/live", |live| windows(live) > before + 2);
    assert!(is_named(&get(address, "/api/v1/conversations").json()), "what was known stays");
    assert_eq!(get(address, "/api/v1/coverage").json()["switches"][0]["live"], false);
    server.resume();
    let back = waits_for(address, "/api/v1/inventory", |status| source(status)["state"] == "live");
    assert_eq!(source(&back)["connections"], 2);
    let error = source(&back)["last_error"].clone();
    assert!(error.as_str().is_some_and(|error| error.contains("no connection for")), "{error}");
    waits_for(address, "/api/v1/conversations", is_named);

    probe.terminate();
    let ended = probe.end(30);
    Ledger::even(&ended.expect(0, &[]).json());
    switches_are_drawn(&folder);
    if built("vmprobe-query").is_some() {
        assert!(stored_names(&folder).contains(&json!({"source": "web", "destination": "db"})));
    }
}

/// The graph of the whole run: both bridges with their hosts and VMs, and what the conversation passed.
fn switches_are_drawn(folder: &Folder) {
    let Some(program) = built("vmprobe-query") else {
        return skipped("switches_are_drawn", NOT_BUILT);
    };
    let mut command = Command::new(program);
    command.args(["topology", "--data"]).arg(folder.path("records"));
    let ended = run_to_end(command);
    let graph: Json =
        serde_json::from_str(&ended.expect(0, &[]).output).expect("one JSON document");
    // By what the switch calls them.
    for (vm, name) in [(WEB, "web"), (DB, "db")] {
        let id = format!("vm:{vm}");
        let node = graph["nodes"].as_array().into_iter().flatten().find(|node| node["id"] == id);
        assert_eq!(node.map(|node| &node["name"]), Some(&json!(name)), "{id}: {graph}");
    }
    let edges: BTreeSet<_> = graph["edges"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|edge| {
            let text = |name: &str| edge[name].as_str().unwrap_or_default().to_owned();
            [text("source"), text("kind"), text("target")].join(" ")
        })
        .collect();
    for wanted in [
        format!("vm:{WEB} plugged_into switch:h1/br1"),
        format!("vm:{WEB} plugged_into switch:h2/br2"),
        format!("vm:{DB} plugged_into switch:h1/br1"),
        "switch:h1/br1 stands_on host:h1".to_owned(),
        "switch:h2/br2 stands_on host:h2".to_owned(),
        "tap:t stands_on switch:h1/br1".to_owned(),
    ] {
        assert!(edges.contains(&wanted), "{wanted}: {edges:?}");
    }
    let talk = graph["edges"].as_array().into_iter().flatten().find(|edge| {
        edge["source"] == format!("vm:{WEB}")
            && edge["kind"] == "conversation"
            && edge["target"] == format!("vm:{DB}")
    });
    let path = &talk.expect("they talk")["path"];
    let paths = path.as_array().expect("paths");
    assert!(paths.contains(&json!(["h1/br1"])), "{path}");
    assert!(paths.contains(&json!(["h2/br2", "h1/br1"])), "{path}");
}

fn mirrors_are_shown(server: &OvsdbServer, address: &str) {
    let page = get(address, "/api/v1/coverage").json();
    assert_eq!(page["total"], 2, "{page}");
    assert_eq!(page["switches"][0]["interfaces"]["not_mirrored"], 2, "{page}");
    let mirror = ["--", "--id=@m", "create", "mirror", "name=m0", "select-all=true"];
    let rest = ["output-vlan=99", "--", "set", "bridge", "br1", "mirrors=@m"];
    server.set(&[&mirror[..], &rest].concat());
    let page = waits_for(address, "/api/v1/coverage?coverage=mirrored", |page| page["total"] == 2);
    assert!(any(&page, |item| item["virtual_station_name"] == "web"), "{page}");
    let line = "vmprobe_coverage_interfaces{source=\"ovsdb:switch\",coverage=\"mirrored\"} 2.0";
    let metrics = until(10, || get(address, "/metrics").body.contains(line).then_some(()));
    assert!(metrics.is_some(), "{}", get(address, "/metrics").body);
}
