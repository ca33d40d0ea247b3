//! A running probe with RabbitMQ and libvirt beside it: what they say is asked by HTTP, and neither of
//! them takes the probe with it when it is killed.
#![cfg(feature = "dpdk")]

use serde_json::{Value as Json, json};
use vmprobe_tests::broker::{self, Broker, Publisher};
use vmprobe_tests::end_to_end::{Folder, Probe, get, missing, until, vmprobe};
use vmprobe_tests::libvirtd::{self, Libvirtd};

/// VM of the cloud.
const VM: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01";
/// The domain that libvirt's test driver always has.
const TEST: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

fn configuration(broker: &Broker, daemon: &Libvirtd) -> String {
    format!(
        "[eal]\nhuge_pages = false\nmemory_mib = 128\nfile_prefix = \"vmprobe-sources-{process}\"\n\
         [[port]]\nname = \"p\"\ndevice = \"net_null0,no-rx=1\"\nmbufs = 4095\n\
         [flow]\nslots_per_worker = 1024\n[copies]\nslots = 1024\n[decode]\nfragment_slots = 64\n\
         [serve]\nlisten = \"127.0.0.1:0\"\n[inventory]\n\
         [[inventory.openstack]]\nname = \"c\"\nurls = [\"amqp://127.0.0.1:{port}\"]\n\
         retry_max_ms = 1000\n\
         [[inventory.libvirt]]\nname = \"h\"\nuri = \"{uri}\"\nretry_max_ms = 1000\n",
        process = std::process::id(),
        port = broker.port,
        uri = daemon.uri(),
    )
}

fn created(name: &str) -> Vec<u8> {
    let payload = json!({
        "instance_id": VM, "display_name": name, "tenant_id": "p1", "host": "host1",
        "state": "active", "state_description": "", "metadata": {}, "fixed_ips": [],
    });
    json!({"event_type": "compute.instance.update", "payload": payload}).to_string().into_bytes()
}

/// The state of a source by its name.
fn state(address: &str, name: &str) -> Option<String> {
    let status = get(address, "/api/v1/inventory").json();
    let source = status["sources"].as_array()?.iter().find(|source| source["name"] == name)?;
    source["state"].as_str().map(str::to_owned)
}

/// A VM as the API has it now.
fn vm(address: &str, uuid: &str) -> Option<Json> {
    let answer = get(address, &format!("/api/v1/inventory/vms/{uuid}"));
    (answer.status == 200).then(|| answer.json())
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
    let services = Publisher::new(&broker, &["nova"]);
    let folder = Folder::new("sources");
    let file = folder.write("vmprobe.toml", configuration(&broker, &daemon));
    let mut command = std::process::Command::new(vmprobe());
    command.args(["run", "--json", "-c"]).arg(&file);
    let mut probe = Probe::start(command);
    let address = probe.receiving().expect("a page");
    let becomes = |source: &str, wanted: &[&str]| {
        let reached = || state(&address, source).filter(|state| wanted.contains(&state.as_str()));
        assert!(until(30, reached).is_some(), "{}", get(&address, "/api/v1/inventory").body);
    };
    becomes("openstack:c", &["live"]);
    becomes("libvirt:h", &["live"]);
    services.publish("nova", "notifications.info", &created("web-1"));
    let named = |name: &'static str| {
        let address = &address;
        move || vm(address, VM).filter(|vm| vm.to_string().contains(&format!("\"{name}\"")))
    };
    assert!(until(20, named("web-1")).is_some(), "the VM of the cloud");
    assert!(until(20, || vm(&address, TEST)).is_some(), "the VM of the host");

    broker.kill();
    daemon.kill();
    drop(services);
    becomes("openstack:c", &["failed", "connecting"]);
    becomes("libvirt:h", &["failed", "connecting"]);
    assert!(vm(&address, VM).is_some() && vm(&address, TEST).is_some(), "what was said stays");
    broker.run();
    daemon.run();
    let services = Publisher::new(&broker, &["nova"]);
    becomes("openstack:c", &["live"]);
    becomes("libvirt:h", &["live"]);
    services.publish("nova", "notifications.info", &created("web-2"));
    assert!(until(20, named("web-2")).is_some(), "what comes after is heard");
    assert!(probe.runs());
    probe.terminate();
    let ended = probe.end(30);
    ended.expect(0, &["connected again after"]);
}
