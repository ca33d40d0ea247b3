//! A running probe with RabbitMQ and libvirt beside it: what they say is asked by HTTP, and neither of
//! them takes the probe, or a name of its traffic, with it when it is killed.
#![cfg(feature = "dpdk")]

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use vmprobe::time::wall_clock;
use vmprobe_tests::broker::{self, Broker, Publisher};
use vmprobe_tests::end_to_end::{
    Folder, Ledger, NOT_BUILT, Station, datagram, endless, get, missing, query, skipped, until,
};
use vmprobe_tests::libvirtd::{self, Libvirtd};

/// VM of the cloud, which Neutron names with its address.
const VM: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01";
/// VM of the host, which libvirt names by its MAC address alone.
const DOMAIN: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c02";
/// The domain that libvirt's test driver always has.
const TEST: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
const NETWORK: &str = "0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e001";
/// The VLAN of both, and one in which others have their addresses.
const VLANS: [u16; 2] = [7, 8];

fn configuration(broker: &Broker, daemon: &Libvirtd) -> String {
    format!(
        "[inventory]\n\
         [[inventory.openstack]]\nname = \"c\"\nurls = [\"amqp://127.0.0.1:{port}\"]\n\
         retry_max_ms = 1000\n\
         [[inventory.libvirt]]\nname = \"h\"\nuri = \"{uri}\"\nretry_max_ms = 1000\n",
        port = broker.port,
        uri = daemon.uri(),
    )
}

/// What the probe receives, without end: VM to domain, and strangers who have the same addresses.
fn frames() -> [Vec<u8>; 2] {
    let stations = |own: u8| -> [Station; 2] {
        [1, 2].map(|number| ([0xfa, 0x16, 0x3e, own, 0, number], [10, 0, 0, number]))
    };
    let ([vm, domain], [stranger, other]) = (stations(0), stations(9));
    [datagram(VLANS[0], vm, domain), datagram(VLANS[1], stranger, other)]
}

fn notification(event: &str, payload: &Json) -> Vec<u8> {
    json!({"event_type": event, "payload": payload}).to_string().into_bytes()
}

fn created(name: &str) -> Vec<u8> {
    let payload = json!({
        "instance_id": VM, "display_name": name, "tenant_id": "p1", "host": "host1",
        "state": "active", "state_description": "", "metadata": {}, "fixed_ips": [],
    });
    notification("compute.instance.update", &payload)
}

/// Its network and its port.
fn plugged() -> [Vec<u8>; 2] {
    let network = json!({"network": {
        "id": NETWORK, "provider:network_type": "vlan", "provider:segmentation_id": VLANS[0],
        "provider:physical_network": null,
    }});
    let port = json!({"port": {
        "id": "c1a7b1f2-6a55-4d7e-8b86-0f2e1d3c4b01", "network_id": NETWORK, "project_id": "p1",
        "mac_address": "fa:16:3e:00:00:01", "device_id": VM, "device_owner": "compute:nova",
        "binding:host_id": "host1",
        "fixed_ips": [{"subnet_id": NETWORK, "ip_address": "10.0.0.1"}],
    }});
    [notification("network.create.end", &network), notification("port.create.end", &port)]
}

/// Starts the domain, which libvirt's test driver forgets when it is killed.
fn begin(daemon: &Libvirtd) {
    let xml = format!(
        "<domain type='test'><name>db</name><uuid>{DOMAIN}</uuid><memory>524288</memory><vcpu>1</vcpu>
         <os><type>hvm</type></os><devices><interface type='bridge'>
         <mac address='fa:16:3e:00:00:02'/><source bridge='br-int'/>
         <virtualport type='openvswitch'><parameters interfaceid='{DOMAIN}'/></virtualport>
         <vlan><tag id='{}'/></vlan></interface></devices></domain>",
        VLANS[0]
    );
    daemon.virsh(&["define", &daemon.file("db.xml", &xml)]);
    daemon.virsh(&["start", "db"]);
}

/// A source by its name.
fn source(address: &str, name: &str) -> Option<Json> {
    let status = get(address, "/api/v1/inventory").json();
    status["sources"].as_array()?.iter().find(|source| source["name"] == name).cloned()
}

/// A VM as the API has it now.
fn vm(address: &str, uuid: &str) -> Option<Json> {
    let answer = get(address, &format!("/api/v1/inventory/vms/{uuid}"));
    (answer.status == 200).then(|| answer.json())
}

/// Whether the conversation of the last window has both names.
fn both_are_named(address: &str) -> Option<()> {
    let page = get(address, "/api/v1/conversations").json();
    let named = page["items"].as_array()?.iter().any(|item| {
        item["source_virtual_station_uuid"] == VM
            && item["destination_virtual_station_uuid"] == DOMAIN
    });
    named.then_some(())
}

/// Packets and windows so far.
fn progress(address: &str) -> [u64; 2] {
    let live = get(address, "/api/v1/live").json();
    [&live["ledger"]["received"], &live["window_count"]].map(|count| count.as_u64().unwrap_or(0))
}

/// Waits until packets have come in several more windows, and gives what there is then.
fn goes_on(address: &str) -> [u64; 2] {
    let [packets, windows] = progress(address);
    let more =
        || Some(progress(address)).filter(|now| now[0] > packets + 100 && now[1] > windows + 3);
    until(20, more)
        .unwrap_or_else(|| panic!("{windows} windows: {}", get(address, "/api/v1/live").body))
}

/// Each row names those who sent it or nobody, and from one time to another those who sent it.
fn rows_are_right(folder: &Folder, (from_ns, to_ns): (u64, u64)) {
    let sql = format!(
        "SELECT segment, source_virtual_station_uuid AS source, destination_virtual_station_uuid AS destination,
             window_start_ns >= {from_ns} AND window_end_ns <= {to_ns} AS between, count(*)::UBIGINT AS rows
         FROM windows GROUP BY ALL"
    );
    let Some(rows) = query(&folder.path("records"), &sql) else {
        return skipped("rows_are_right", NOT_BUILT);
    };
    let mut seen = BTreeSet::new();
    for row in rows.as_array().expect("rows") {
        let names = [row["source"].as_str(), row["destination"].as_str()];
        let of_both = row["segment"] == "default/vlan/7";
        assert!(of_both || row["segment"] == "default/vlan/8", "{row}");
        if row["between"] == true {
            assert_eq!(names, if of_both { [Some(VM), Some(DOMAIN)] } else { [None; 2] }, "{row}");
            seen.insert(of_both);
        } else {
            let allowed =
                |name: Option<&str>, uuid| name.is_none() || of_both && name == Some(uuid);
            assert!(allowed(names[0], VM) && allowed(names[1], DOMAIN), "{row}");
        }
    }
    assert_eq!(seen.len(), 2, "{rows}");
}

#[test]
fn a_probe_outlives_its_sources() {
    let name = "a_probe_outlives_its_sources";
    let Some(mut daemon) = Libvirtd::start() else {
        missing(name, &libvirtd::TOOLS, libvirtd::PACKAGES);
        return;
    };
    let Some(mut broker) = Broker::start() else {
        missing(name, &["rabbitmq-server"], broker::PACKAGES);
        return;
    };
    let services = Publisher::new(&broker, &["nova", "neutron"]);
    let folder = Folder::new("sources");
    let (mut probe, address) = endless(&folder, &frames(), &configuration(&broker, &daemon));
    let address = address.as_str();
    let becomes = |name: &str, wanted: &[&str]| {
        let reached = || {
            source(address, name)
                .filter(|source| source["state"].as_str().is_some_and(|it| wanted.contains(&it)))
        };
        let reached = until(30, reached);
        reached.unwrap_or_else(|| panic!("{}", get(address, "/api/v1/inventory").body))
    };
    let sources = ["openstack:c", "libvirt:h"];
    let live = || sources.map(|name| becomes(name, &["live"]));
    live();
    services.publish("nova", "notifications.info", &created("web-1"));
    for message in plugged() {
        services.publish("neutron", "notifications.info", &message);
    }
    begin(&daemon);
    let named = |name: &'static str| {
        move || vm(address, VM).filter(|vm| vm.to_string().contains(&format!("\"{name}\"")))
    };
    assert!(until(20, named("web-1")).is_some(), "the VM of the cloud");
    assert!(until(20, || vm(address, TEST)).is_some(), "a VM of the host");
    let conversations = || get(address, "/api/v1/conversations").body;
    assert!(until(20, || both_are_named(address)).is_some(), "{}", conversations());
    let known_ns = wall_clock().as_ns();
    goes_on(address);

    broker.kill();
    daemon.kill();
    drop(services);
    let away = sources.map(|name| becomes(name, &["failed", "connecting"]));
    let [packets, _] = goes_on(address);
    both_are_named(address).unwrap_or_else(|| panic!("what was said stays: {}", conversations()));
    assert!(vm(address, VM).is_some() && vm(address, TEST).is_some(), "what was said stays");
    // The gap is seen: nothing was heard meanwhile, and why.
    for before in &away {
        let name = before["name"].as_str().expect("a name");
        let now = source(address, name).expect("it is listed");
        assert_eq!(now["last_heard_ns"], before["last_heard_ns"], "{now}");
        assert!(
            now["last_heard_ns"].as_u64() < Some(wall_clock().as_ns() - 1_000_000_000),
            "{now}"
        );
        assert!(now["last_error"].is_string(), "{now}");
        let state = format!("vmprobe_source_state{{source=\"{name}\",state=\"live\"}} 0.0");
        assert!(get(address, "/metrics").body.contains(&state), "{state}");
    }
    let back_ns = wall_clock().as_ns();

    broker.run();
    daemon.run();
    let services = Publisher::new(&broker, &["nova", "neutron"]);
    for (source, before) in live().iter().zip(&away) {
        assert!(source["last_heard_ns"].as_u64() > before["last_heard_ns"].as_u64(), "{source}");
    }
    services.publish("nova", "notifications.info", &created("web-2"));
    begin(&daemon);
    assert!(until(20, named("web-2")).is_some(), "what comes after is heard");
    assert!(until(20, || both_are_named(address)).is_some(), "{}", conversations());
    assert!(goes_on(address)[0] > packets);
    assert!(probe.runs());
    probe.terminate();
    let ended = probe.end(30);
    Ledger::even(&ended.expect(0, &["connected again after"]).json());
    rows_are_right(&folder, (known_ns, back_ns));
}
