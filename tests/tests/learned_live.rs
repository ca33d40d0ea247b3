//! Learning while packets come: the source's state, what the API and metrics show, and that it gives way
//! to the API's own word.
#![cfg(feature = "dpdk")]

use serde_json::{Value as Json, json};
use vmprobe_tests::end_to_end::{
    Folder, Probe, answer_within, datagram, endless, get, query, send_json, too_long,
};

const VM: &str = "00000000-0000-0000-0000-000000000001";

/// 02:00:00:00:00:01 says that it has 10.0.0.1, in VLAN 7; then it sends from there.
fn start(folder: &Folder) -> (Probe, String) {
    let (own, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let head = [0x81, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
    let arp = [&other[..], &own, &head, &own, &[10, 0, 0, 1], &other, &[10, 0, 0, 2], &[0; 14]];
    let frames = [arp.concat(), datagram(7, (own, [10, 0, 0, 1]), (other, [10, 0, 0, 2]))];
    endless(folder, &frames, "[inventory]\napi = true\n[inventory.learned]\nenabled = true\n")
}

/// Waits until an answer of the API is as wanted.
fn waits_for(address: &str, path: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    answer_within(10, address, path, wanted)
}

#[test]
fn what_packets_show_is_marked_and_gives_way() {
    if too_long("learning while packets come") {
        return;
    }
    let folder = Folder::new("learned-live");
    let (probe, address) = start(&folder);
    let address = address.as_str();
    let learned =
        waits_for(address, "/api/v1/inventory/vms?learned=true", |list| list["total"] == 1);
    let one = &learned["items"][0];
    assert_eq!(
        (&one["uuid"], &one["learned"], &one["tenant"]),
        (&Json::Null, &json!(true), &Json::Null)
    );
    let interface = json!({"mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1"],
        "segment": "default/vlan/7", "port": null, "shared_addresses": [], "switch": null});
    assert_eq!(one["interfaces"], json!([interface]));
    assert_eq!(get(address, "/api/v1/inventory/vms").json()["total"], 0, "it is no VM");
    let status = waits_for(address, "/api/v1/inventory", |status| {
        status["sources"].as_array().is_some_and(|all| {
            all.iter().any(|source| source["name"] == "learned" && source["state"] == "live")
        })
    });
    assert_eq!(
        (&status["vms"], &status["learned"], &status["conflicts"]),
        (&json!(0), &json!(1), &json!(0))
    );
    let resolve = "/api/v1/inventory/resolve/10.0.0.1?address_space=default/vlan/7";
    assert_eq!(get(address, resolve).json()["vm"]["learned"], true);

    let named = json!({"events": [{
        "vm": VM, "event": "create", "at": "2020-01-01T00:00:00Z", "name": "web", "tenant": "acme",
        "interfaces": [{"mac": "02:00:00:00:00:09", "addresses": ["10.0.0.1"], "segment": "default/vlan/7"}],
    }]});
    assert_eq!(send_json(address, "POST", "/api/v1/inventory", &named).status, 202);
    let found = waits_for(address, resolve, |found| found["vm"]["uuid"] == VM);
    assert_eq!(found["vm"]["learned"], false);
    let status = get(address, "/api/v1/inventory").json();
    assert_eq!((&status["vms"], &status["conflicts"]), (&json!(1), &json!(0)));
    let metrics = get(address, "/metrics").body;
    for line in ["vmprobe_inventory_learned{} 1.0", "source=\"learned\",state=\"live\"} 1.0"] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let windows = get(address, "/api/v1/live").json()["window_count"].as_u64().unwrap_or(0);
    waits_for(address, "/api/v1/live", |live| live["window_count"].as_u64() > Some(windows + 2));
    probe.terminate();
    let ended = probe.end(30);
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
    let ask = |sql: &str| query(&folder.path("records"), sql);
    let Some(rows) = ask("SELECT DISTINCT uuid, mac, address, attributed FROM inventory_now \
        WHERE source = 'learned' ORDER BY ALL")
    else {
        return;
    };
    let row = |attributed| json!({"uuid": null, "mac": "02:00:00:00:00:01", "address": "10.0.0.1", "attributed": attributed});
    assert!(rows.as_array().is_some_and(|all| all.contains(&row(false))), "{rows}");
}
