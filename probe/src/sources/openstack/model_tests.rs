//! Notifications in the forms that the services document, and what comes of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::envelope::LeftOut;
use super::model::{Mapping, Model};
use crate::inventory::{Attribute, Change, Subject, Value};
use crate::time::Timestamp;

const KNOWN: Timestamp = Timestamp(u64::MAX);
/// 2026-03-01T10:00:00Z.
const T0: u64 = 1_772_359_200;

const VM: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01";
const PORT: &str = "c1a7b1f2-6a55-4d7e-8b86-0f2e1d3c4b01";
const NET: &str = "0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e001";
const NET2: &str = "0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e002";
const SUBNET: &str = "5a8e2b07-03cb-4f7a-b1b4-d94b0a1de001";
const SUBNET2: &str = "5a8e2b07-03cb-4f7a-b1b4-d94b0a1de002";
const ROUTER: &str = "7e1d0f3a-5f3e-4a52-8b1c-5d2f9b0ac001";
const ROUTER2: &str = "7e1d0f3a-5f3e-4a52-8b1c-5d2f9b0ac002";
const MAC: &str = "fa:16:3e:4c:2c:30";

/// A message of that event, `second` after the start, in an envelope.
fn message(event: &str, second: u64, payload: &Json) -> Vec<u8> {
    of_project(event, second, payload, ("", ""))
}

fn of_project(event: &str, second: u64, payload: &Json, project: (&str, &str)) -> Vec<u8> {
    let host = payload.pointer("/nova_object.data/host").or(payload.get("host"));
    let host = host.and_then(Json::as_str).unwrap_or("net1");
    let minute = format!("2026-03-01 10:{:02}:{:02}.000000", second / 60, second % 60);
    let mut inner = json!({
        "event_type": event,
        "payload": payload,
        "priority": "INFO",
        "publisher_id": format!("nova-compute:{host}"),
        "message_id": format!("{event}-{second}-{payload}"),
        "timestamp": minute,
    });
    if !project.0.is_empty() {
        inner["_context_project_id"] = project.0.into();
        inner["_context_project_name"] = project.1.into();
    }
    json!({"oslo.version": "2.0", "oslo.message": inner.to_string()}).to_string().into_bytes()
}

/// Versioned payload of an instance, as `doc/notification_samples` has it, with some members changed.
fn versioned(changes: &Json) -> Json {
    let mut data = json!({
        "uuid": VM,
        "display_name": "web-1",
        "host_name": "web-1",
        "tenant_id": "p1",
        "host": "host1",
        "node": "host1",
        "state": "active",
        "task_state": null,
        "power_state": "running",
        "metadata": {},
        "launched_at": "2026-03-01T10:00:00Z",
        "terminated_at": null,
        "deleted_at": null,
        "ip_addresses": [{
            "nova_object.name": "IpPayload",
            "nova_object.namespace": "nova",
            "nova_object.version": "1.0",
            "nova_object.data": {
                "mac": MAC,
                "address": "10.0.0.5",
                "port_uuid": PORT,
                "version": 4,
                "label": "private",
                "device_name": "tapc1a7b1f2-6a",
                "meta": {},
            },
        }],
    });
    merge(&mut data, changes);
    json!({
        "nova_object.data": data,
        "nova_object.name": "InstanceActionPayload",
        "nova_object.namespace": "nova",
        "nova_object.version": "1.8",
    })
}

/// Legacy payload of an instance.
fn legacy(changes: &Json) -> Json {
    let mut payload = json!({
        "instance_id": VM,
        "display_name": "web-1",
        "hostname": "web-1",
        "tenant_id": "p1",
        "host": "host1",
        "node": "host1",
        "state": "active",
        "state_description": "",
        "metadata": {},
        "launched_at": "2026-03-01T10:00:00.250000",
        "terminated_at": "",
        "deleted_at": "",
        "fixed_ips": [{
            "version": 4, "vif_mac": MAC, "floating_ips": [], "label": "private", "meta": {},
            "address": "10.0.0.5", "type": "fixed",
        }],
    });
    merge(&mut payload, changes);
    payload
}

fn port(changes: &Json) -> Json {
    let mut port = json!({
        "id": PORT,
        "name": "",
        "network_id": NET,
        "tenant_id": "p1",
        "project_id": "p1",
        "mac_address": MAC,
        "device_id": VM,
        "device_owner": "compute:nova",
        "binding:host_id": "host1",
        "binding:vif_type": "ovs",
        "fixed_ips": [{"subnet_id": SUBNET, "ip_address": "10.0.0.5"}],
        "status": "DOWN",
    });
    merge(&mut port, changes);
    json!({"port": port})
}

fn network(id: &str, kind: &str, number: u32) -> Json {
    json!({"network": {
        "id": id, "name": "n", "tenant_id": "p1", "provider:network_type": kind,
        "provider:segmentation_id": number, "provider:physical_network": null, "subnets": [],
    }})
}

fn subnet(id: &str, network: &str) -> Json {
    json!({"subnet": {"id": id, "network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4}})
}

fn interface(router: &str, subnet: &str) -> Json {
    json!({"router_interface": {
        "id": router, "subnet_id": subnet, "subnet_ids": [subnet], "tenant_id": "p1",
        "port_id": "33b1a5c7-75b6-4c05-9480-4bc648845c6f",
    }})
}

fn merge(into: &mut Json, changes: &Json) {
    let (Some(into), Some(changes)) = (into.as_object_mut(), changes.as_object()) else { return };
    into.extend(changes.iter().map(|(name, value)| (name.clone(), value.clone())));
}

/// A model, and everything that it has said, as lines `second subject attribute = value`.
#[derive(Default)]
struct Cloud {
    model: Model,
}

impl Cloud {
    fn hear(&mut self, event: &str, second: u64, payload: &Json) -> Vec<String> {
        self.raw(&message(event, second, payload))
    }

    fn raw(&mut self, body: &[u8]) -> Vec<String> {
        let changes = self.model.message(body, KNOWN).expect("a notification that is used");
        changes.iter().map(line).collect()
    }
}

fn line(change: &Change) -> String {
    let ns = change.from.0 - T0 * 1_000_000_000;
    let (whole, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let second = format!("{whole}.{rest:09}");
    let second = second.trim_end_matches('0').trim_end_matches('.');
    let value = match &change.value {
        None => "-".to_owned(),
        Some(Value::Flag(flag)) => flag.to_string(),
        Some(Value::Text(text)) => text.to_string(),
        Some(Value::Segment(segment)) => segment.to_string(),
        Some(Value::Addresses(addresses)) => format!("{addresses:?}"),
    };
    let whose = match &change.subject {
        Subject::Segment(segment) => format!("{segment} "),
        Subject::Vm(_) => String::new(),
    };
    let name = match &change.attribute {
        Attribute::Tag(name) => format!("tag {name}"),
        other => other.name().to_owned(),
    };
    format!("{second} {whose}{name} = {value}")
}

/// What of these lines begins with one of the words.
fn only(lines: &[String], words: &[&str]) -> Vec<String> {
    let has = |line: &&String| words.iter().any(|word| line.contains(word));
    lines.iter().filter(has).cloned().collect()
}

#[test]
fn a_created_instance_is_whole_in_both_formats() {
    let said = Cloud::default().hear("instance.create.end", 3, &versioned(&json!({})));
    assert_eq!(
        said,
        [
            "0 exists = true",
            "0 name = web-1",
            "0 tenant = p1",
            "0 host = host1",
            "0 tag state = active",
            "0 attached = true",
            "0 addresses = [10.0.0.5]",
            &format!("0 port = {PORT}"),
        ]
    );
    let said = Cloud::default().hear("compute.instance.create.end", 3, &legacy(&json!({})));
    assert_eq!(
        said,
        [
            "0.25 exists = true",
            "0.25 name = web-1",
            "0.25 tenant = p1",
            "0.25 host = host1",
            "0.25 tag state = active",
            "0.25 attached = true",
            "0.25 addresses = [10.0.0.5]",
        ]
    );
}

#[test]
fn an_instance_ends_when_it_was_terminated() {
    let end = json!({"state": "deleted", "terminated_at": "2026-03-01T10:00:20Z", "host": null});
    let said = Cloud::default().hear("instance.delete.end", 30, &versioned(&end));
    assert_eq!(said, ["20.999999999 exists = false".to_owned()]);
    // Never after the message.
    let said = Cloud::default().hear("instance.delete.end", 20, &versioned(&end));
    assert_eq!(said, ["20 exists = false".to_owned()]);
    let end = json!({"state": "deleted", "terminated_at": "2026-03-01T10:00:20.5"});
    let said = Cloud::default().hear("compute.instance.delete.end", 30, &legacy(&end));
    assert_eq!(said, ["20.5 exists = false".to_owned()]);
}

/// The order and contents of a live migration from host1 to host2: the source goes on to say host1,
/// even after the destination has said host2.
#[test]
fn a_live_migration_moves_the_host_once() {
    let busy = json!({"task_state": "migrating"});
    let there = json!({"host": "host2", "node": "host2"});
    let mut cloud = Cloud::default();
    let mut said = cloud.hear("instance.create.end", 3, &versioned(&json!({})));
    for (event, second, changes) in [
        ("instance.update", 60, &busy),
        ("instance.live_migration_pre.end", 61, &busy),
        ("instance.live_migration_post_dest.end", 70, &there),
        ("instance.live_migration_post.end", 71, &busy),
        ("instance.update", 72, &there),
    ] {
        said.extend(cloud.hear(event, second, &versioned(changes)));
    }
    assert_eq!(only(&said, &["host"]), ["0 host = host1", "70 host = host2", "72 host = host2"]);
}

#[test]
fn a_legacy_migration_moves_the_host_once() {
    let busy = json!({"state_description": "migrating"});
    let mut cloud = Cloud::default();
    let mut said = cloud.hear("compute.instance.create.end", 3, &legacy(&json!({})));
    // Older releases send this before the record has the new host: the publisher is the destination.
    let mut arrived = message("compute.instance.live_migration.post.dest.end", 71, &legacy(&busy));
    arrived = String::from_utf8(arrived)
        .expect("text")
        .replace("nova-compute:host1", "compute.host2")
        .into();
    said.extend(cloud.raw(&arrived));
    said.extend(cloud.hear("compute.instance.live_migration._post.end", 72, &legacy(&busy)));
    assert_eq!(only(&said, &["host"]), ["0.25 host = host1", "71 host = host2"]);
}

#[test]
fn a_resized_instance_is_where_it_arrived() {
    let mut cloud = Cloud::default();
    cloud.hear("compute.instance.create.end", 3, &legacy(&json!({})));
    let there = json!({"host": "host3", "state": "resized"});
    let said = cloud.hear("compute.instance.finish_resize.end", 50, &legacy(&there));
    assert_eq!(only(&said, &["host"]), ["50 host = host3"]);
    let said = cloud.hear("instance.resize_finish.end", 51, &versioned(&there));
    assert_eq!(only(&said, &["host", "state"]), ["51 host = host3", "51 tag state = resized"]);
    let shelved = json!({"host": null, "node": null, "state": "shelved_offloaded"});
    let said = cloud.hear("instance.shelve_offload.end", 60, &versioned(&shelved));
    assert_eq!(only(&said, &["host"]), ["60 host = -"]);
}

#[test]
fn power_and_metadata_are_tags() {
    let mut cloud = Cloud::default();
    let made = json!({"metadata": {"role": "db", "tier": "gold"}});
    let said = cloud.hear("instance.create.end", 3, &versioned(&made));
    let tags = ["0 tag state = active", "0 tag role = db", "0 tag tier = gold"];
    assert_eq!(only(&said, &["tag"]), tags);
    let off = json!({"state": "stopped", "metadata": {"role": "web"}});
    let said = cloud.hear("instance.power_off.end", 9, &versioned(&off));
    assert_eq!(
        only(&said, &["tag"]),
        ["9 tag state = stopped", "9 tag tier = -", "9 tag role = web"]
    );
}

#[test]
fn a_port_is_plugged_moved_and_taken_off() {
    let mut cloud = Cloud::default();
    cloud.hear_nothing("network.create.end", 1, &network(NET, "vxlan", 4242));
    cloud.hear_nothing("port.create.end", 2, &port(&json!({"device_id": "", "device_owner": ""})));
    let said = cloud.hear("port.update.end", 3, &port(&json!({})));
    let whole = [
        "3 attached = true",
        &format!("3 port = {PORT}"),
        "3 addresses = [10.0.0.5]",
        "3 segment = vxlan/4242",
        "3 host = host1",
        "3 tenant = p1",
    ];
    assert_eq!(said, whole);
    let other = json!({"fixed_ips": [{"ip_address": "10.0.0.9"}, {"ip_address": "2001:db8::9"}]});
    let said = cloud.hear("port.update.end", 9, &port(&other));
    assert_eq!(only(&said, &["addresses"]), ["9 addresses = [10.0.0.9, 2001:db8::9]"]);
    let off = port(&json!({"device_id": "", "device_owner": ""}));
    assert_eq!(cloud.hear("port.update.end", 12, &off), ["12 attached = false"]);
    cloud.hear("port.update.end", 13, &port(&json!({})));
    assert_eq!(
        cloud.hear("port.delete.end", 14, &json!({"port_id": PORT})),
        ["14 attached = false"]
    );
    cloud.hear_nothing("port.delete.end", 15, &json!({"port_id": PORT}));
}

#[test]
fn a_network_may_become_known_after_its_ports() {
    let mut cloud = Cloud::default();
    let said = cloud.hear("port.create.end", 3, &port(&json!({})));
    assert_eq!(only(&said, &["segment"]), Vec::<String>::new());
    let said = cloud.hear("network.update.end", 8, &network(NET, "geneve", 77));
    assert_eq!(said, ["3 segment = geneve/77"]);
    // What hides the provider's attributes takes nothing back.
    cloud.hear_nothing("network.update.end", 9, &json!({"network": {"id": NET}}));
    let said = cloud.hear("port.update.end", 10, &port(&json!({})));
    assert_eq!(only(&said, &["segment"]), ["10 segment = geneve/77"]);
}

#[test]
fn many_ports_come_in_one_message() {
    let mut list = Vec::new();
    for number in 1..4 {
        let mut port = port(&json!({}))["port"].take();
        port["id"] = format!("c1a7b1f2-6a55-4d7e-8b86-00000000000{number}").into();
        port["mac_address"] = format!("fa:16:3e:00:00:0{number}").into();
        list.push(port);
    }
    let said = Cloud::default().hear("port.create.end", 3, &json!({"ports": list}));
    assert_eq!(only(&said, &["attached"]).len(), 3);
}

#[test]
fn networks_of_each_kind_have_their_segment() {
    let mapping = Mapping {
        domain: 1,
        physical: [("p2".to_owned(), 2)].into_iter().collect(),
        tenant_ids: false,
    };
    let domains = ["default", "east", "west"].map(str::to_owned);
    let seen = |network: Json| {
        let mut model = Model::new(mapping.clone());
        let mut seen = model.message(&message("port.create.end", 1, &port(&json!({}))), KNOWN);
        let network = json!({"network": network});
        seen = seen.and_then(|_| model.message(&message("network.create.end", 2, &network), KNOWN));
        let value = seen.expect("used").into_iter().next().and_then(|change| change.value);
        match value {
            Some(Value::Segment(segment)) => Some(segment.text(&domains)),
            _ => None,
        }
    };
    let of = |kind: &str, number: Json, physical: Json| {
        seen(json!({
            "id": NET, "provider:network_type": kind, "provider:segmentation_id": number,
            "provider:physical_network": physical,
        }))
    };
    let is = |text: &str| Some(text.to_owned());
    assert_eq!(of("vxlan", 4242.into(), Json::Null), is("east/vxlan/4242"));
    assert_eq!(of("geneve", 1.into(), Json::Null), is("east/geneve/1"));
    assert_eq!(of("gre", 4_000_000_000_u32.into(), Json::Null), is("east/gre/4000000000"));
    assert_eq!(of("vlan", 42.into(), "p1".into()), is("east/vlan/42"));
    assert_eq!(of("vlan", 42.into(), "p2".into()), is("west/vlan/42"));
    assert_eq!(of("flat", Json::Null, "p2".into()), is("west/none"));
    for (kind, number) in
        [("local", Json::Null), ("vxlan", (1 << 24).into()), ("vlan", 4095.into())]
    {
        assert_eq!(of(kind, number, Json::Null), None, "{kind}");
    }
    let segment = |number| {
        json!({
            "provider:network_type": "vlan", "provider:segmentation_id": number,
            "provider:physical_network": "p1",
        })
    };
    assert_eq!(seen(json!({"id": NET, "segments": [segment(5)]})), is("east/vlan/5"));
    assert_eq!(seen(json!({"id": NET, "segments": [segment(5), segment(6)]})), None);
}

#[test]
fn a_router_joins_segments_and_the_first_one_counts() {
    let mut cloud = Cloud::default();
    cloud.hear_nothing("network.create.end", 1, &network(NET, "vxlan", 1));
    cloud.hear_nothing("network.create.end", 2, &network(NET2, "vxlan", 2));
    cloud.hear_nothing("subnet.create.end", 3, &subnet(SUBNET, NET));
    let said = cloud.hear("router.interface.create", 5, &interface(ROUTER, SUBNET));
    assert_eq!(said, [format!("5 vxlan/1 space = router/{ROUTER}")]);
    // The subnet becomes known after the interface.
    cloud.hear_nothing("router.interface.create", 6, &interface(ROUTER, SUBNET2));
    let said = cloud.hear("subnet.update.end", 9, &subnet(SUBNET2, NET2));
    assert_eq!(said, [format!("6 vxlan/2 space = router/{ROUTER}")]);
    cloud.hear_nothing("router.interface.create", 10, &interface(ROUTER2, SUBNET));
    let said = cloud.hear("router.interface.delete", 20, &interface(ROUTER, SUBNET));
    assert_eq!(said, [format!("20 vxlan/1 space = router/{ROUTER2}")]);
    let said = cloud.hear("router.delete.end", 30, &json!({"router_id": ROUTER2}));
    assert_eq!(said, ["30 vxlan/1 space = -"]);
    let said = cloud.hear("network.delete.end", 40, &json!({"network_id": NET2}));
    assert_eq!(said, ["40 vxlan/2 space = -"]);
}

#[test]
fn each_service_has_the_last_word_on_its_own() {
    let mut cloud = Cloud::default();
    cloud.hear("port.create.end", 2, &port(&json!({})));
    // Nova's memory of addresses is older than what Neutron said.
    let stale =
        json!({"ip_addresses": [{"nova_object.data": {"mac": MAC, "address": "10.0.0.99"}}]});
    let said = cloud.hear("instance.create.end", 3, &versioned(&stale));
    assert_eq!(only(&said, &["addresses"]), Vec::<String>::new());
    let said = cloud.hear("port.update.end", 9, &port(&json!({"binding:host_id": "host2"})));
    assert_eq!(only(&said, &["host", "tenant"]), Vec::<String>::new());
}

#[test]
fn an_interface_that_only_nova_knows_is_detached_by_nova() {
    let mut cloud = Cloud::default();
    cloud.hear("instance.create.end", 3, &versioned(&json!({})));
    let none = json!({"ip_addresses": []});
    let said = cloud.hear("instance.update", 5, &versioned(&none));
    assert_eq!(only(&said, &["attached"]), Vec::<String>::new());
    let said = cloud.hear("instance.interface_detach.end", 6, &versioned(&none));
    assert_eq!(only(&said, &["attached"]), ["6 attached = false"]);
}

#[test]
fn a_tenant_has_one_name_all_along() {
    let mut cloud = Cloud::default();
    cloud.hear("instance.create.end", 3, &versioned(&json!({})));
    let project =
        |second, project| of_project("instance.update", second, &versioned(&json!({})), project);
    let said = cloud.raw(&project(9, ("p1", "acme")));
    assert_eq!(only(&said, &["tenant"]), ["0 tenant = acme", "9 tenant = acme"]);
    // Another project of that name keeps its id; a request of another project says nothing of this one.
    let said = cloud.raw(&project(10, ("p2", "acme")));
    assert_eq!(only(&said, &["tenant"]), ["10 tenant = acme"]);
    let other = versioned(&json!({"uuid": PORT, "tenant_id": "p2"}));
    let said = cloud.raw(&of_project("instance.create.end", 11, &other, ("p1", "acme")));
    assert_eq!(only(&said, &["tenant"]), ["0 tenant = p2"]);
}

#[test]
fn what_is_delivered_again_says_nothing_and_what_is_late_changes_the_past() {
    let mut cloud = Cloud::default();
    let first = message("port.create.end", 2, &port(&json!({})));
    cloud.raw(&first);
    assert_eq!(cloud.model.message(&first, KNOWN), Err(LeftOut::Repeated));
    cloud.hear("port.update.end", 9, &port(&json!({"mac_address": "fa:16:3e:00:00:99"})));
    // An older message that comes now is dated back, and does not take the newer MAC address off.
    let said = cloud.hear("port.update.end", 5, &port(&json!({})));
    assert_eq!(only(&said, &["attached"]), ["5 attached = true"]);
    let said = cloud.hear("port.delete.end", 12, &json!({"port_id": PORT}));
    assert_eq!(said.len(), 1);
}

#[test]
fn what_cannot_be_used_has_a_name() {
    let mut model = Model::default();
    let cases = [
        ("instance.create.start", versioned(&json!({})), LeftOut::NotUsed),
        ("instance.create.error", versioned(&json!({})), LeftOut::NotUsed),
        ("volume.create.end", json!({}), LeftOut::NotUsed),
        ("floatingip.update.end", json!({"floatingip": {}}), LeftOut::Payload),
        ("instance.create.end", json!({}), LeftOut::Payload),
        ("instance.create.end", versioned(&json!({"uuid": "x"})), LeftOut::Payload),
        ("port.create.end", json!({"port": {"id": PORT}}), LeftOut::Payload),
        ("port.create.end", json!({"port": 7}), LeftOut::Payload),
        ("port.create.end", json!({"ports": []}), LeftOut::Payload),
        ("port.delete.end", json!({"port_id": 7}), LeftOut::Payload),
        ("router.interface.create", json!({"router_interface": {"id": ROUTER}}), LeftOut::Payload),
    ];
    for (event, payload, why) in cases {
        let said = model.message(&message(event, 1, &payload), KNOWN);
        assert_eq!(said.map(|changes| changes.len()), Err(why), "{event} {payload}");
    }
}

impl Cloud {
    /// A message that is used, but says nothing of a VM or segment by itself.
    fn hear_nothing(&mut self, event: &str, second: u64, payload: &Json) {
        assert_eq!(self.hear(event, second, payload), Vec::<String>::new(), "{event}");
    }
}

/// All samples of above, as bodies.
fn samples() -> Vec<Vec<u8>> {
    vec![
        message("instance.create.end", 1, &versioned(&json!({"metadata": {"a": "b"}}))),
        message("compute.instance.update", 2, &legacy(&json!({}))),
        message("instance.delete.end", 3, &versioned(&json!({"state": "deleted"}))),
        message("port.create.end", 4, &port(&json!({}))),
        message("port.update.end", 5, &port(&json!({"device_id": ""}))),
        message("port.delete.end", 6, &json!({"port_id": PORT})),
        message("network.create.end", 7, &network(NET, "vlan", 5)),
        message("subnet.create.end", 8, &subnet(SUBNET, NET)),
        message("router.interface.create", 9, &interface(ROUTER, SUBNET)),
        message("router.interface.delete", 10, &interface(ROUTER, SUBNET)),
        message("network.delete.end", 11, &json!({"network_id": NET})),
    ]
}

/// Replaces a member or item by something else, at a place that `at` chooses.
fn spoil(value: &mut Json, at: &mut u32, with: &Json) {
    *at = at.wrapping_sub(1);
    if *at == 0 {
        *value = with.clone();
        return;
    }
    match value {
        Json::Object(members) => members.values_mut().for_each(|value| spoil(value, at, with)),
        Json::Array(items) => items.iter_mut().for_each(|value| spoil(value, at, with)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn garbage_is_left_out(body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Model::default().message(&body, KNOWN).is_err());
    }

    /// Bodies with octets changed, cut short, or with another value somewhere: nothing panics, and the
    /// model goes on.
    #[test]
    fn damaged_messages_do_no_harm(
        damage in prop::collection::vec((0_usize..11, any::<u16>(), any::<u8>(), 0_u32..60), 1..40),
    ) {
        let with = [json!(null), json!(7), json!("x"), json!([]), json!({}), json!([[{}]]), json!(-1e300)];
        let samples = samples();
        let mut model = Model::default();
        for (which, at, octet, place) in damage {
            let mut body = samples[which].clone();
            if octet % 2 == 0 {
                let at = usize::from(at) % body.len();
                body[at] = octet;
                body.truncate(body.len() - usize::from(octet) % 3);
            } else {
                let mut outer: Json = serde_json::from_slice(&body).expect("a sample");
                let text = outer["oslo.message"].as_str().unwrap_or_default().to_owned();
                let mut inner: Json = serde_json::from_str(&text).expect("a sample");
                spoil(&mut inner, &mut (place + 1), &with[usize::from(octet) % with.len()]);
                outer["oslo.message"] = inner.to_string().into();
                body = outer.to_string().into_bytes();
            }
            let _ = model.message(&body, KNOWN);
        }
        let said = model.message(&message("port.create.end", 59, &port(&json!({}))), KNOWN);
        prop_assert!(said.is_ok_and(|changes| changes.len() >= 3));
    }

    /// In whatever order messages come, each VM is attached to what its newest message says.
    #[test]
    fn any_order_gives_the_same_present(order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut model = Model::default();
        let mut facts = BTreeMap::new();
        for second in order {
            let address = format!("10.0.0.{second}");
            let changes = json!({"fixed_ips": [{"ip_address": address}]});
            let body = message("port.update.end", second as u64, &port(&changes));
            for change in model.message(&body, KNOWN).expect("used") {
                facts.insert((change.attribute.name(), change.from), change.value);
            }
        }
        let last = facts.iter().rev().find(|((name, _), _)| *name == "addresses");
        let addresses = Some(Value::addresses(["10.0.0.5".parse().expect("an address")]));
        prop_assert_eq!(last.map(|(_, value)| value.clone()), Some(addresses));
        prop_assert!(facts.iter().all(|((name, _), value)| *name != "attached" || *value == Some(Value::Flag(true))));
    }
}
