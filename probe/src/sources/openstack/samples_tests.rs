//! Notifications as Nova and Neutron document them, replayed in the order in which they come: an instance is
//! created, migrated live, resized and deleted. The samples are ours; their members are those of Nova's
//! `doc/notification_samples` and "unversioned notifications", and of networking API v2.

use serde_json::{Value as Json, json};

use super::rig::{Rig, at};
use crate::time::Timestamp;

const VM: &str = "5c1f4b02-8a57-4c3e-b0a7-2d4e6f8091a3";
const PORT: &str = "f2d47c10-52ab-4b8e-9e77-60a1b2c3d4e5";
const NET: &str = "0a9c3e51-7b24-4d0f-8a36-1f2e3d4c5b6a";
const SUBNET: &str = "7e5d1c2b-3a4f-4e60-9d8c-b7a695847362";
const MAC: &str = "fa:16:3e:5a:7b:01";
const PROJECT: &str = "8d0f6f4a3b5c4e0f9a1b2c3d4e5f6a7b";

/// What a message says beside the instance itself.
struct Said<'a> {
    state: &'a str,
    task: Option<&'a str>,
    host: Option<&'a str>,
    /// The instance has its address.
    wired: bool,
    /// When it was launched and terminated, in seconds.
    launched: Option<u64>,
    terminated: Option<u64>,
}

const ACTIVE: Said<'static> = Said {
    state: "active",
    task: None,
    host: Some("compute1"),
    wired: true,
    launched: Some(12),
    terminated: None,
};

fn clock(second: u64) -> String {
    format!("10:{:02}:{:02}", second / 60, second % 60)
}

fn object(name: &str, version: &str, data: &Json) -> Json {
    json!({
        "nova_object.name": name, "nova_object.namespace": "nova", "nova_object.version": version,
        "nova_object.data": data,
    })
}

fn flavor() -> Json {
    object(
        "FlavorPayload",
        "1.4",
        &json!({
            "flavorid": "c0ffee00-0000-4000-8000-000000000001", "name": "s2.small", "root_gb": 10,
            "vcpus": 2, "ephemeral_gb": 0, "memory_mb": 2048, "disabled": false, "rxtx_factor": 1.0,
            "extra_specs": {"hw:watchdog_action": "disabled"}, "swap": 0, "is_public": true,
            "vcpu_weight": 0, "projects": null, "description": null,
        }),
    )
}

/// A payload of a versioned notification: `name` and `version` are those of the object, `more` its further
/// members.
fn versioned(said: &Said<'_>, name: &str, version: &str, more: &Json) -> Json {
    let time = |second: Option<u64>| second.map(|second| format!("2026-03-01T{}Z", clock(second)));
    let ip = object(
        "IpPayload",
        "1.0",
        &json!({
            "mac": MAC, "address": "10.20.0.9", "port_uuid": PORT, "meta": {}, "version": 4,
            "label": "front", "device_name": "tapf2d47c10-52",
        }),
    );
    let disk = object(
        "BlockDevicePayload",
        "1.0",
        &json!({
            "boot_index": null, "delete_on_termination": false, "device_name": "/dev/vdb", "tag": null,
            "volume_id": "2c4e6a80-1b3d-4f5e-8a9b-0c1d2e3f4a5b",
        }),
    );
    let mut data = json!({
        "architecture": "x86_64", "auto_disk_config": "MANUAL", "availability_zone": "zone1",
        "block_devices": [disk], "created_at": "2026-03-01T10:00:05Z",
        "deleted_at": time(said.terminated), "display_description": "front-1",
        "display_name": "front-1", "host": said.host, "host_name": "front-1",
        "image_uuid": "3f2a1b0c-9d8e-4f7a-8b6c-5d4e3f2a1b0c",
        "ip_addresses": if said.wired { json!([ip]) } else { json!([]) },
        "kernel_id": "", "key_name": "ops", "launched_at": time(said.launched), "locked": false,
        "locked_reason": null, "metadata": {"role": "front"}, "node": said.host, "os_type": null,
        "power_state": "running", "progress": 0, "ramdisk_id": "",
        "request_id": "req-0f1e2d3c-4b5a-4697-8877-665544332211", "reservation_id": "r-8k2m4p6q",
        "state": said.state, "task_state": said.task, "tenant_id": PROJECT,
        "terminated_at": time(said.terminated), "updated_at": "2026-03-01T10:00:12Z",
        "user_id": "u1", "uuid": VM, "action_initiator_user": "u1",
        "action_initiator_project": PROJECT, "flavor": flavor(),
    });
    for (member, value) in more.as_object().into_iter().flatten() {
        data[member.as_str()] = value.clone();
    }
    object(name, version, &data)
}

/// A payload of an unversioned notification.
fn unversioned(said: &Said<'_>, more: &Json) -> Json {
    let time = |second: Option<u64>| {
        second.map_or_else(String::new, |second| format!("2026-03-01T{}.000000", clock(second)))
    };
    let ip = json!({
        "version": 4, "vif_mac": MAC, "floating_ips": [], "label": "front", "meta": {},
        "address": "10.20.0.9", "type": "fixed",
    });
    let mut payload = json!({
        "tenant_id": PROJECT, "user_id": "u1", "instance_id": VM, "display_name": "front-1",
        "reservation_id": "r-8k2m4p6q", "hostname": "front-1", "instance_type": "s2.small",
        "instance_type_id": 7, "instance_flavor_id": "42", "architecture": "x86_64",
        "memory_mb": 2048, "disk_gb": 10, "vcpus": 2, "root_gb": 10, "ephemeral_gb": 0,
        "host": said.host, "node": said.host, "availability_zone": "zone1", "cell_name": "",
        "created_at": "2026-03-01 10:00:05+00:00", "terminated_at": time(said.terminated),
        "deleted_at": time(said.terminated), "launched_at": time(said.launched),
        "image_ref_url": "http://192.0.2.1:9292/images/3f2a1b0c-9d8e-4f7a-8b6c-5d4e3f2a1b0c",
        "os_type": null, "kernel_id": "", "ramdisk_id": "", "state": said.state,
        "state_description": said.task.unwrap_or(""), "progress": "", "access_ip_v4": null,
        "access_ip_v6": null, "image_meta": {"base_image_ref": "3f2a1b0c"},
        "metadata": {"role": "front"},
        "fixed_ips": if said.wired { json!([ip]) } else { json!([]) },
    });
    for (member, value) in more.as_object().into_iter().flatten() {
        payload[member.as_str()] = value.clone();
    }
    payload
}

/// One message: second, host of the service, event in both formats, what it says.
type Message = (u64, &'static str, [&'static str; 2], Said<'static>);

/// Everything that Nova says of the instance, in order, the beginnings of things too.
fn nova() -> Vec<Message> {
    [created(), migrated(), resized(), deleted()].into_iter().flatten().collect()
}

/// Something has begun, and may fail.
fn begins((_, _, events, _): &Message) -> bool {
    events[0].rsplit('.').next() == Some("start")
}

fn said(state: &'static str, task: Option<&'static str>, host: &'static str) -> Said<'static> {
    Said { state, task, host: Some(host), ..ACTIVE }
}

fn created() -> Vec<Message> {
    let unborn = |task| Said {
        state: "building",
        task: Some(task),
        host: None,
        launched: None,
        wired: false,
        ..ACTIVE
    };
    vec![
        (5, "api1", ["instance.update", "compute.instance.update"], unborn("scheduling")),
        (
            7,
            "compute1",
            ["instance.create.start", "compute.instance.create.start"],
            unborn("spawning"),
        ),
        (13, "compute1", ["instance.create.end", "compute.instance.create.end"], ACTIVE),
    ]
}

/// To compute2; until the destination says that it has it, the record names the source.
fn migrated() -> Vec<Message> {
    let moving = || said("active", Some("migrating"), "compute1");
    let there = || said("active", None, "compute2");
    vec![
        (60, "api1", ["instance.update", "compute.instance.update"], moving()),
        (
            61,
            "compute2",
            ["instance.live_migration_pre.start", "compute.instance.live_migration.pre.start"],
            moving(),
        ),
        (
            63,
            "compute2",
            ["instance.live_migration_pre.end", "compute.instance.live_migration.pre.end"],
            moving(),
        ),
        (
            70,
            "compute1",
            ["instance.live_migration_post.start", "compute.instance.live_migration._post.start"],
            moving(),
        ),
        (
            71,
            "compute2",
            [
                "instance.live_migration_post_dest.start",
                "compute.instance.live_migration.post.dest.start",
            ],
            moving(),
        ),
        (
            72,
            "compute2",
            [
                "instance.live_migration_post_dest.end",
                "compute.instance.live_migration.post.dest.end",
            ],
            there(),
        ),
        (
            74,
            "compute1",
            ["instance.live_migration_post.end", "compute.instance.live_migration._post.end"],
            there(),
        ),
    ]
}

/// To compute3; the record names it while the instance is still under way.
fn resized() -> Vec<Message> {
    vec![
        (
            120,
            "compute3",
            ["instance.resize_prep.start", "compute.instance.resize.prep.start"],
            said("active", Some("resize_prep"), "compute2"),
        ),
        (
            121,
            "compute3",
            ["instance.resize_prep.end", "compute.instance.resize.prep.end"],
            said("active", Some("resize_prep"), "compute2"),
        ),
        (
            125,
            "compute2",
            ["instance.resize.start", "compute.instance.resize.start"],
            said("active", Some("resize_migrating"), "compute2"),
        ),
        (
            130,
            "compute2",
            ["instance.resize.end", "compute.instance.resize.end"],
            said("active", Some("resize_migrated"), "compute3"),
        ),
        (
            135,
            "compute3",
            ["instance.resize_finish.start", "compute.instance.finish_resize.start"],
            said("active", Some("resize_finish"), "compute3"),
        ),
        (
            140,
            "compute3",
            ["instance.resize_finish.end", "compute.instance.finish_resize.end"],
            said("resized", None, "compute3"),
        ),
        (
            180,
            "compute2",
            ["instance.resize_confirm.end", "compute.instance.resize.confirm.end"],
            said("active", None, "compute3"),
        ),
    ]
}

fn deleted() -> Vec<Message> {
    let going = || said("active", Some("deleting"), "compute3");
    let gone = Said { terminated: Some(300), wired: false, ..said("deleted", None, "compute3") };
    vec![
        (299, "compute3", ["instance.delete.start", "compute.instance.delete.start"], going()),
        (
            300,
            "compute3",
            ["instance.shutdown.end", "compute.instance.shutdown.end"],
            Said { wired: false, ..going() },
        ),
        (302, "compute3", ["instance.delete.end", "compute.instance.delete.end"], gone),
    ]
}

/// The object that carries an event's payload, its version today, and its further members.
fn carrier(event: &str) -> (&'static str, &'static str, Json) {
    match event {
        "instance.update" => (
            "InstanceUpdatePayload",
            "2.1",
            json!({
                "audit_period": object("AuditPeriodPayload", "1.0", &json!({
                    "audit_period_beginning": "2026-03-01T00:00:00Z",
                    "audit_period_ending": "2026-03-01T10:00:00Z"})),
                "old_display_name": null, "tags": [], "shares": null,
                "state_update": object("InstanceStateUpdatePayload", "1.0", &json!({
                    "old_state": "active", "state": "active", "old_task_state": null,
                    "new_task_state": null})),
            }),
        ),
        "instance.create.start" | "instance.create.end" => (
            "InstanceCreatePayload",
            "1.13",
            json!({"fault": null, "keypairs": [], "tags": [], "trusted_image_certificates": null,
                   "instance_name": "instance-00000007", "shares": null}),
        ),
        "instance.resize_prep.start" | "instance.resize_prep.end" => (
            "InstanceActionResizePrepPayload",
            "1.4",
            json!({"fault": null, "new_flavor": flavor()}),
        ),
        _ => ("InstanceActionPayload", "1.9", json!({"fault": null, "shares": null})),
    }
}

fn payload(message: &Message, format: usize) -> Json {
    let (_, _, events, said) = message;
    if format == 1 {
        return unversioned(said, &json!({}));
    }
    let (name, version, more) = carrier(events[0]);
    versioned(said, name, version, &more)
}

/// A network, and the port of the instance, which moves and goes with it.
fn neutron() -> Vec<(u64, &'static str, Json)> {
    let network = json!({"network": {
            "id": NET, "name": "front", "tenant_id": PROJECT, "project_id": PROJECT,
            "admin_state_up": true, "mtu": 1450, "status": "ACTIVE", "subnets": [], "shared": false,
            "availability_zone_hints": [], "availability_zones": [], "ipv4_address_scope": null,
            "ipv6_address_scope": null, "router:external": false, "description": "",
            "port_security_enabled": true, "tags": [], "revision_number": 1,
            "created_at": "2026-03-01T10:00:01Z", "updated_at": "2026-03-01T10:00:01Z",
            "provider:network_type": "vxlan", "provider:physical_network": null,
            "provider:segmentation_id": 4711,
    }});
    let port = |host: &str, status: &str| {
        json!({"port": {
            "id": PORT, "name": "", "network_id": NET, "tenant_id": PROJECT, "project_id": PROJECT,
            "mac_address": MAC, "admin_state_up": true, "status": status, "device_id": VM,
            "device_owner": "compute:zone1", "description": "", "allowed_address_pairs": [],
            "fixed_ips": [{"subnet_id": SUBNET, "ip_address": "10.20.0.9"}],
            "extra_dhcp_opts": [], "security_groups": ["b1a29384-7566-4758-8493-a2b1c0d9e8f7"],
            "port_security_enabled": true, "tags": [], "revision_number": 3, "resource_request": null,
            "binding:host_id": host, "binding:profile": {}, "binding:vif_type": "ovs",
            "binding:vif_details": {"port_filter": true}, "binding:vnic_type": "normal",
            "created_at": "2026-03-01T10:00:08Z", "updated_at": "2026-03-01T10:00:09Z",
        }})
    };
    let last = port("compute3", "ACTIVE")["port"].take();
    vec![
        (1, "network.create.end", network),
        (8, "port.create.end", port("compute1", "DOWN")),
        (73, "port.update.end", port("compute2", "ACTIVE")),
        (131, "port.update.end", port("compute3", "ACTIVE")),
        (301, "port.delete.end", json!({"port_id": PORT, "port": last})),
    ]
}

fn hosts(rig: &Rig) -> Vec<(u64, String)> {
    let spans = rig.vm(VM).hosts.spans().iter();
    spans.map(|(valid, host)| (valid.from.since_ns(at(0)), host.to_string())).collect()
}

#[test]
fn an_instance_that_is_made_moved_resized_and_deleted_has_that_history_in_both_formats() {
    const SECOND: u64 = 1_000_000_000;
    for format in 0..2 {
        for with_neutron in [true, false] {
            let mut rig = Rig::new();
            let mut wiring = if with_neutron { neutron() } else { Vec::new() };
            let messages = nova();
            let begun = messages.iter().filter(|message| begins(message));
            let begun = begun.count() as u64;
            for message in &messages {
                let (second, host, events, _) = message;
                for (second, event, payload) in wiring.extract_if(.., |(at, ..)| *at <= *second) {
                    rig.neutron(event, second, &payload);
                }
                rig.notify(events[format], *second, host, &payload(message, format));
            }
            assert!(wiring.is_empty());
            assert_eq!(rig.left_out, [("event_not_used", begun)].into(), "format {format}");
            let vm = rig.vm(VM);
            // To the end of the second that Nova cuts off.
            let ended = at(301) - 1;
            let exists: Vec<(Timestamp, bool)> =
                vm.exists.spans().iter().map(|(valid, exists)| (valid.from, *exists)).collect();
            assert_eq!(exists, [(at(5), true), (ended, false)], "format {format}");
            let moves = [(12, "compute1"), (72, "compute2"), (140, "compute3")]
                .map(|(second, host)| (second * SECOND, host.to_owned()));
            assert_eq!(hosts(&rig), moves, "format {format}, Neutron {with_neutron}");
            let text = |text: Option<&std::sync::Arc<str>>| text.map(ToString::to_string);
            let noon = at(200);
            assert_eq!(text(vm.names.at(noon)).as_deref(), Some("front-1"));
            assert_eq!(text(vm.tenants.at(noon)).as_deref(), Some(PROJECT));
            let states: Vec<(u64, String)> = vm.tags["state"]
                .spans()
                .iter()
                .map(|(valid, state)| (valid.from.since_ns(at(0)) / SECOND, state.to_string()))
                .collect();
            let wanted = [(5, "building"), (12, "active"), (140, "resized"), (180, "active")];
            assert_eq!(states, wanted.map(|(second, state)| (second, state.to_owned())));
            assert_eq!(text(vm.tags["role"].at(noon)).as_deref(), Some("front"));
            let [interface] = &*vm.interfaces else { panic!("{vm:?}") };
            assert_eq!(interface.id.mac.to_string(), MAC);
            let address: std::net::IpAddr = "10.20.0.9".parse().expect("an address");
            let connection = interface.connections.at(noon).expect("connected");
            assert_eq!(&*connection.addresses, &[address]);
            let segment = connection.segment.map(|segment| segment.to_string());
            assert_eq!(segment.as_deref(), with_neutron.then_some("vxlan/4711"));
            let last = interface.connections.spans().last().map(|(valid, _)| valid.to);
            assert_eq!(last, Some(ended), "format {format}, Neutron {with_neutron}");
            if with_neutron {
                let who = |second| rig.who("default/vxlan/4711", "10.20.0.9", MAC, second);
                assert_eq!(
                    [7, 9, 299, 302].map(|second| who(second).is_some()),
                    [false, true, true, false]
                );
            }
        }
    }
}

/// A newer minor version adds members; another major version may mean anything, so nothing is taken of it
/// and it is counted.
#[test]
fn a_payload_of_an_unknown_version_says_nothing_and_is_counted() {
    let known = ["1.0", "1.99"];
    let unknown = ["0.9", "3.0", "10.1", "x", ""];
    for message in nova().iter().filter(|message| !begins(message)) {
        let (second, host, events, _) = message;
        let newest = if events[0] == "instance.update" { "2.99" } else { "1.99" };
        let older = if events[0] == "instance.update" { "1.9" } else { "1.1" };
        for version in known.into_iter().chain([newest, older]) {
            let mut payload = payload(message, 0);
            payload["nova_object.version"] = version.into();
            payload["nova_object.data"]["something_new"] = json!({"of": [1, 2]});
            let mut rig = Rig::new();
            rig.notify(events[0], *second, host, &payload);
            assert!(rig.left_out.is_empty(), "{events:?} {version}");
            assert_eq!(rig.vm(VM).uuid_text.as_ref(), VM);
        }
        let mut rig = Rig::new();
        for version in unknown.into_iter().map(Json::from).chain([json!(1), json!(null)]) {
            let mut payload = payload(message, 0);
            payload["nova_object.version"] = version;
            rig.notify(events[0], *second, host, &payload);
        }
        let mut payload = payload(message, 0);
        let addresses = payload["nova_object.data"]["ip_addresses"].as_array_mut();
        let mut count = 7;
        if let Some(ip) = addresses.and_then(|all| all.first_mut()) {
            ip["nova_object.version"] = "2.0".into();
            rig.notify(events[0], *second, host, &payload);
            count += 1;
        }
        assert_eq!(rig.left_out, [("payload_version", count)].into(), "{events:?}");
        assert_eq!(rig.store.inventory().vm_count(), 0, "nothing was taken of it");
    }
    // Of a second major version only those objects that have one.
    let mut rig = Rig::new();
    let create = &nova()[2];
    let mut payload = payload(create, 0);
    payload["nova_object.version"] = "2.0".into();
    rig.notify("instance.create.end", 13, "compute1", &payload);
    assert_eq!(rig.left_out, [("payload_version", 1)].into());
}
