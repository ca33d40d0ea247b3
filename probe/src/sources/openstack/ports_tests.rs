//! Trunks, allowed address pairs and floating addresses: on whom a packet is booked.

use serde_json::{Value as Json, json};

use super::listing::Networking;
use super::model::{Mapping, Model};
use super::rig::Rig;

const VM: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01";
const OTHER: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c02";
/// VXLAN 1, where VMs are plugged in; VXLAN 2 and 3, which come tagged; the outer network, VLAN 500.
const NETS: [(&str, &str, u32); 4] = [
    ("0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e001", "vxlan", 1),
    ("0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e002", "vxlan", 2),
    ("0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e003", "vxlan", 3),
    ("0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e004", "vlan", 500),
];
const TRUNK: &str = "a7e0ee57-614e-44a9-a469-0a78663c6ffc";
const FIP: &str = "ea95e4be-ef86-4fd6-b994-9d11f5b5c51c";
const FIP2: &str = "ea95e4be-ef86-4fd6-b994-9d11f5b5c52c";
const MAC: &str = "fa:16:3e:00:00:01";
const ROUTER: &str = "fa:16:3e:ff:ff:01";

fn id(number: u8) -> String {
    format!("c1a7b1f2-6a55-4d7e-8b86-0000000000{number:02x}")
}

fn network(place: usize) -> Json {
    let (id, kind, number) = NETS[place];
    json!({"network": {
        "id": id, "provider:network_type": kind, "provider:segmentation_id": number,
        "provider:physical_network": null, "created_at": "2026-03-01T09:00:00Z",
    }})
}

/// A port as Neutron's API shows it, with some members changed.
fn port(number: u8, net: usize, address: &str, changes: &Json) -> Json {
    let mut port = json!({
        "id": id(number), "name": "", "network_id": NETS[net].0, "tenant_id": "p1",
        "mac_address": format!("fa:16:3e:00:00:{number:02x}"), "admin_state_up": true,
        "status": "ACTIVE", "device_id": "", "device_owner": "",
        "fixed_ips": [{"subnet_id": "5a8e2b07-03cb-4f7a-b1b4-d94b0a1de001", "ip_address": address}],
        "allowed_address_pairs": [], "extra_dhcp_opts": [], "security_groups": [],
        "binding:vnic_type": "normal", "binding:profile": {}, "binding:host_id": "host1",
        "binding:vif_type": "ovs", "port_security_enabled": true, "tags": [],
        "created_at": "2026-03-01T09:00:00Z", "updated_at": "2026-03-01T09:00:00Z",
        "revision_number": 2, "project_id": "p1",
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        port[name.as_str()] = value.clone();
    }
    json!({ "port": port })
}

fn of_vm(vm: &str) -> Json {
    json!({"device_id": vm, "device_owner": "compute:nova"})
}

fn trunk(subports: &[(u8, u16)]) -> Json {
    trunk_of(TRUNK, 1, subports)
}

fn trunk_of(trunk: &str, port: u8, subports: &[(u8, u16)]) -> Json {
    json!({"trunk": {
        "id": trunk, "port_id": id(port), "status": "DOWN", "admin_state_up": true, "name": "",
        "sub_ports": sub_ports(subports), "project_id": "p1", "revision_number": 0,
    }})
}

fn sub_ports(subports: &[(u8, u16)]) -> Vec<Json> {
    let subport = |(number, vlan): &(u8, u16)| json!({"port_id": id(*number), "segmentation_type": "vlan", "segmentation_id": vlan});
    subports.iter().map(subport).collect()
}

fn floating(fip: &str, address: &str, port: Option<u8>) -> Json {
    json!({"floatingip": {
        "id": fip, "floating_ip_address": address, "floating_network_id": NETS[3].0,
        "port_id": port.map(id), "fixed_ip_address": port.map(|_| "10.0.0.5"),
        "router_id": null, "status": "DOWN", "tenant_id": "p1",
    }})
}

/// The four networks.
fn cloud() -> Rig {
    let mut rig = Rig::new();
    for place in 0..NETS.len() {
        rig.neutron("network.create.end", 0, &network(place));
    }
    rig
}

/// A VM whose port is that of a trunk: the subport of VLAN 101 has the MAC address of the port, as most
/// have, that of VLAN 102 its own.
fn trunked() -> Rig {
    let mut rig = cloud();
    rig.neutron("port.create.end", 1, &port(1, 0, "10.0.0.5", &json!({})));
    let same = json!({ "mac_address": MAC });
    rig.neutron("port.create.end", 1, &port(2, 1, "10.1.0.5", &same));
    rig.neutron("port.create.end", 1, &port(3, 2, "10.2.0.5", &json!({})));
    rig.neutron("trunk.create.end", 2, &trunk(&[(2, 101), (3, 102)]));
    assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", MAC, 3), None, "no VM yet");
    rig.neutron("port.update.end", 10, &port(1, 0, "10.0.0.5", &of_vm(VM)));
    rig
}

const OWN_MAC: &str = "fa:16:3e:00:00:03";

/// A port has one trunk at a time, so no more trunks are remembered than ports have.
#[test]
fn a_trunk_that_follows_another_one_is_the_only_one() {
    let mut rig = trunked();
    let next = |number: u8| format!("a7e0ee57-614e-44a9-a469-0a78663c60{number:02x}");
    for number in 0..100 {
        let said = trunk_of(&next(number), 1, &[(2, 101)]);
        rig.neutron("trunk.create.end", 20 + u64::from(number), &said);
    }
    assert_eq!(rig.model.ports.trunk_count(), 1);
    // That an earlier one is gone is told late, with its port and without.
    rig.neutron("trunk.delete.end", 130, &trunk_of(&next(7), 1, &[]));
    rig.neutron("trunk.delete.end", 131, &json!({"trunk_id": next(8)}));
    rig.neutron(
        "trunk.delete.end",
        132,
        &json!({"trunk_id": next(9), "trunk": {"port_id": id(1)}}),
    );
    assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", MAC, 140).as_deref(), Some(VM));
    rig.neutron("port.delete.end", 150, &json!({"port_id": id(1)}));
    assert_eq!(rig.model.ports.trunk_count(), 0);
    assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", MAC, 160), None);
}

#[test]
fn a_byte_on_a_subport_is_booked_on_the_vm_of_the_trunk() {
    let rig = trunked();
    let vm = Some(VM.to_owned());
    // Between hosts: in the segment of the subport's network, by its address.
    assert_eq!(rig.who("default/vxlan/1", "10.0.0.5", MAC, 11), vm);
    assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", ROUTER, 11), vm);
    assert_eq!(rig.who("default/vxlan/3", "10.2.0.5", OWN_MAC, 11), vm);
    // At the port of the VM: tagged, by its MAC address, whatever else has that VLAN id.
    assert_eq!(rig.who("default/vlan/101", "10.1.0.5", MAC, 11), vm);
    assert_eq!(rig.who("default/vlan/102", "10.2.0.5", OWN_MAC, 11), vm);
    assert_eq!(rig.who("default/vlan/101", "10.1.0.5", ROUTER, 11), None);
    assert_eq!(rig.who("default/vlan/102", "10.2.0.5", MAC, 11), None);
    // An address of another of its networks is none of it there.
    assert_eq!(rig.who("default/vxlan/1", "10.1.0.5", MAC, 11), None);
    // It was so since the port was the VM's.
    assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", MAC, 9), None);
    assert!(rig.is_at_peace());
    // A mirror without tags shows the MAC address in the port's own network.
    let mac = MAC.parse().expect("a MAC address");
    let stations = rig.store.inventory().stations(None);
    assert_eq!(stations.get(&mac).map(ToString::to_string).as_deref(), Some("vxlan/1"));
}

#[test]
fn subports_come_and_go_with_trunk_and_vm() {
    let mut rig = trunked();
    let vm = Some(VM.to_owned());
    let who = |rig: &Rig, second| {
        [("default/vxlan/2", "10.1.0.5"), ("default/vxlan/3", "10.2.0.5")]
            .map(|(segment, address)| rig.who(segment, address, ROUTER, second))
    };
    // A message of the port says what is in its trunk.
    let mut less = of_vm(VM);
    less["trunk_details"] = json!({"trunk_id": TRUNK, "sub_ports": sub_ports(&[(3, 102)])});
    rig.neutron("port.update.end", 20, &port(1, 0, "10.0.0.5", &less));
    assert_eq!(who(&rig, 19), [vm.clone(), vm.clone()]);
    assert_eq!(who(&rig, 21), [None, vm.clone()]);
    assert_eq!(rig.who("default/vxlan/1", "10.0.0.5", MAC, 21), vm, "the port itself stays");
    assert_eq!(rig.who("default/vlan/101", "10.1.0.5", MAC, 21), None);
    // An older one that comes late changes nothing of now.
    rig.neutron("trunk.update.end", 15, &trunk(&[(2, 101)]));
    assert_eq!(who(&rig, 21), [None, vm.clone()]);
    // The trunk is plugged into another VM.
    rig.neutron("port.update.end", 30, &port(1, 0, "10.0.0.5", &of_vm(OTHER)));
    assert_eq!(who(&rig, 29), [None, vm.clone()]);
    assert_eq!(who(&rig, 31), [None, Some(OTHER.to_owned())]);
    rig.neutron("trunk.delete.end", 40, &json!({"trunk_id": TRUNK}));
    assert_eq!(who(&rig, 41), [None, None]);
    assert_eq!(rig.who("default/vxlan/1", "10.0.0.5", MAC, 41).as_deref(), Some(OTHER));
    rig.neutron("port.delete.end", 50, &json!({"port_id": id(1)}));
    assert_eq!(rig.who("default/vxlan/1", "10.0.0.5", MAC, 51), None);
    assert!(rig.is_at_peace() && rig.left_out.is_empty(), "{:?}", rig.left_out);
}

/// The one trunk loses it and the other one gets it, whichever message comes first.
#[test]
fn a_subport_that_moves_to_another_trunk_leaves_the_first_vm() {
    const SECOND: &str = "a7e0ee57-614e-44a9-a469-0a78663c6ffd";
    for gets_first in [false, true] {
        let mut rig = trunked();
        rig.neutron("port.create.end", 10, &port(4, 0, "10.0.0.6", &of_vm(OTHER)));
        rig.neutron("trunk.create.end", 11, &trunk_of(SECOND, 4, &[]));
        rig.neutron("floatingip.create.end", 12, &floating(FIP, "198.51.100.7", Some(3)));
        let loses = ("trunk.update.end", 20, trunk(&[(2, 101)]));
        let gets = ("trunk.update.end", 24, trunk_of(SECOND, 4, &[(3, 103)]));
        let order = if gets_first { [gets, loses] } else { [loses, gets] };
        for (event, second, payload) in &order {
            rig.neutron(event, *second, payload);
        }
        let (vm, other) = (Some(VM.to_owned()), Some(OTHER.to_owned()));
        let who = |segment, address, mac| {
            [15, 22, 30].map(|second| rig.who(segment, address, mac, second))
        };
        let moved = [vm.clone(), None, other.clone()];
        assert_eq!(who("default/vxlan/3", "10.2.0.5", ROUTER), moved, "{gets_first}");
        assert_eq!(who("default/vlan/500", "198.51.100.7", ROUTER), moved, "{gets_first}");
        let seen = [
            who("default/vlan/102", "10.2.0.5", OWN_MAC),
            who("default/vlan/103", "10.2.0.5", OWN_MAC),
        ];
        assert_eq!(seen, [[vm.clone(), None, None], [None, None, other]], "{gets_first}");
        // The other subport stays, and nobody claims what is another one's.
        assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", ROUTER, 30), vm);
        assert!(rig.is_at_peace() && rig.left_out.is_empty(), "{gets_first}: {:?}", rig.left_out);
        // The first trunk as it was before comes late, and takes nothing back.
        rig.neutron("trunk.update.end", 21, &trunk(&[(2, 101), (3, 102)]));
        assert_eq!(rig.who("default/vxlan/3", "10.2.0.5", ROUTER, 30).as_deref(), Some(OTHER));
        assert!(rig.is_at_peace(), "{gets_first}");
    }
}

/// The message of the trunk that loses it never comes.
#[test]
fn a_subport_is_in_one_trunk_only() {
    let mut rig = trunked();
    rig.neutron("port.create.end", 10, &port(4, 0, "10.0.0.6", &of_vm(OTHER)));
    let second = trunk_of("a7e0ee57-614e-44a9-a469-0a78663c6ffd", 4, &[(3, 102)]);
    rig.neutron("trunk.create.end", 20, &second);
    let who = |rig: &Rig, second| rig.who("default/vxlan/3", "10.2.0.5", ROUTER, second);
    assert_eq!(who(&rig, 19).as_deref(), Some(VM));
    assert_eq!(who(&rig, 21).as_deref(), Some(OTHER));
    assert!(rig.is_at_peace());
    rig.neutron("trunk.delete.end", 30, &json!({"trunk_id": TRUNK}));
    assert_eq!(who(&rig, 31).as_deref(), Some(OTHER));
}

#[test]
fn an_address_of_a_pair_is_of_who_is_seen_with_it() {
    let mut rig = cloud();
    let pair = |vm: &str, pairs: Json| {
        let mut changes = of_vm(vm);
        changes["allowed_address_pairs"] = pairs;
        changes
    };
    let vip = json!([{"ip_address": "10.0.0.100", "mac_address": MAC},
                     {"ip_address": "10.0.0.128/25", "mac_address": MAC},
                     {"ip_address": "10.0.0.101/32", "mac_address": MAC}]);
    rig.neutron("port.create.end", 1, &port(1, 0, "10.0.0.5", &pair(VM, vip)));
    let who = |rig: &Rig, address, mac, second| rig.who("default/vxlan/1", address, mac, second);
    let (vm, other) = (Some(VM.to_owned()), Some(OTHER.to_owned()));
    // Only one may have it, so it has, also behind a router. Who may send from a whole network forwards.
    for mac in [MAC, ROUTER] {
        assert_eq!(who(&rig, "10.0.0.100", mac, 2), vm);
        assert_eq!(who(&rig, "10.0.0.101", mac, 2), vm);
        assert_eq!(who(&rig, "10.0.0.129", mac, 2), None);
    }
    // Two of a cluster: who sends from it has it; nobody is guessed.
    let vip = json!([{"ip_address": "10.0.0.100", "mac_address": "fa:16:3e:00:00:02"}]);
    rig.neutron("port.create.end", 10, &port(2, 0, "10.0.0.6", &pair(OTHER, vip)));
    let seen = |rig: &Rig, second| {
        [MAC, "fa:16:3e:00:00:02", ROUTER].map(|mac| who(rig, "10.0.0.100", mac, second))
    };
    assert_eq!(seen(&rig, 11), [vm.clone(), other.clone(), None]);
    assert_eq!(seen(&rig, 9), [vm.clone(), vm.clone(), vm.clone()]);
    assert!(rig.is_at_peace(), "that is how it is meant");
    // Their own addresses are their own.
    assert_eq!(who(&rig, "10.0.0.5", ROUTER, 11), vm);
    assert_eq!(who(&rig, "10.0.0.6", ROUTER, 11), other);
    // The pair is taken off, which an empty list says; a message without a list says nothing of it.
    let silent = json!({"port": {
        "id": id(2), "network_id": NETS[0].0, "mac_address": "fa:16:3e:00:00:02", "device_id": OTHER,
        "device_owner": "compute:nova", "fixed_ips": [{"ip_address": "10.0.0.6"}]}});
    rig.neutron("port.update.end", 20, &silent);
    assert_eq!(seen(&rig, 21), [vm.clone(), other, None]);
    rig.neutron("port.update.end", 30, &port(2, 0, "10.0.0.6", &of_vm(OTHER)));
    assert_eq!(seen(&rig, 31), [vm.clone(), vm.clone(), vm]);
}

#[test]
fn a_floating_address_is_the_vms_in_the_outer_network() {
    let mut rig = cloud();
    rig.neutron("port.create.end", 1, &port(1, 0, "10.0.0.5", &of_vm(VM)));
    rig.neutron("port.create.end", 1, &port(2, 0, "10.0.0.6", &of_vm(OTHER)));
    rig.neutron("floatingip.create.end", 2, &floating(FIP, "198.51.100.7", None));
    rig.neutron("floatingip.create.end", 2, &floating(FIP2, "198.51.100.8", Some(1)));
    let outer = |rig: &Rig, address: &str, second| {
        let who = rig.who("default/vlan/500", address, ROUTER, second);
        who.map(|who| if who == VM { 1 } else { 2 })
    };
    assert_eq!((outer(&rig, "198.51.100.7", 3), outer(&rig, "198.51.100.8", 3)), (None, Some(1)));
    rig.neutron("floatingip.update.end", 10, &floating(FIP, "198.51.100.7", Some(1)));
    assert_eq!(
        (outer(&rig, "198.51.100.7", 11), outer(&rig, "198.51.100.8", 11)),
        (Some(1), Some(1))
    );
    // Inside it is seen by its own address, and outside that is nobody's.
    assert_eq!(rig.who("default/vxlan/1", "10.0.0.5", ROUTER, 11).as_deref(), Some(VM));
    assert_eq!(outer(&rig, "10.0.0.5", 11), None);
    assert_eq!(rig.who("default/vxlan/1", "198.51.100.7", ROUTER, 11), None);
    // It moves to another VM, at an instant.
    rig.neutron("floatingip.update.end", 20, &floating(FIP, "198.51.100.7", Some(2)));
    assert_eq!([19, 21].map(|second| outer(&rig, "198.51.100.7", second)), [Some(1), Some(2)]);
    assert_eq!(outer(&rig, "198.51.100.8", 21), Some(1));
    // A port that is deleted loses it, which Neutron does not say by itself.
    rig.neutron("port.delete.end", 30, &json!({"port_id": id(2)}));
    assert_eq!(outer(&rig, "198.51.100.7", 31), None);
    let gone = json!({"floatingip_id": FIP2, "floatingip": floating(FIP2, "198.51.100.8", Some(1))["floatingip"]});
    rig.neutron("floatingip.delete.end", 40, &gone);
    assert_eq!([39, 41].map(|second| outer(&rig, "198.51.100.8", second)), [Some(1), None]);
    assert!(rig.is_at_peace() && rig.left_out.is_empty(), "{:?}", rig.left_out);
    // A MAC address in the outer network is never taken for the VM's.
    let mac = MAC.parse().expect("a MAC address");
    let stations = rig.store.inventory().stations(None);
    assert_eq!(stations.get(&mac).map(ToString::to_string).as_deref(), Some("vxlan/1"));
}

/// A service whose clock runs an hour ahead for one message does not make those that follow late.
#[test]
fn a_message_of_tomorrow_does_not_outlive_those_of_today() {
    let mut rig = cloud();
    let later = 1_000_000;
    rig.neutron("port.create.end", later, &port(1, 0, "10.0.0.5", &of_vm(VM)));
    rig.neutron("trunk.create.end", later, &trunk(&[(2, 101)]));
    rig.neutron("floatingip.create.end", later, &floating(FIP, "198.51.100.7", Some(1)));
    rig.neutron("port.create.end", later, &port(2, 1, "10.1.0.5", &json!({})));
    let told = |rig: &Rig, second| {
        [
            ("default/vxlan/1", "10.0.0.5"),
            ("default/vxlan/2", "10.1.0.5"),
            ("default/vlan/500", "198.51.100.7"),
        ]
        .map(|(segment, address)| rig.who(segment, address, ROUTER, second).is_some())
    };
    // They count since they came.
    assert_eq!(told(&rig, 100_010), [true; 3]);
    let counts = &rig.store.source_counts()[0];
    assert!(counts.clamped > 5 && counts.clock_ahead_max_ns > 800_000_000_000_000, "{counts:?}");
    for (event, payload) in [
        ("trunk.update.end", trunk(&[])),
        ("floatingip.update.end", floating(FIP, "198.51.100.7", None)),
        ("port.update.end", port(1, 0, "10.0.0.6", &of_vm(VM))),
    ] {
        rig.neutron(event, 100_020, &payload);
    }
    assert_eq!(told(&rig, 100_030), [false; 3]);
}

/// What Neutron lists while all of that is so.
fn listed() -> Networking {
    let objects = |items: Vec<Json>, name: &str| {
        let object = |mut item: Json| match item[name].take() {
            Json::Object(object) => object,
            other => panic!("{other}"),
        };
        items.into_iter().map(object).collect()
    };
    let mut parent = of_vm(VM);
    parent["trunk_details"] =
        json!({"trunk_id": TRUNK, "sub_ports": sub_ports(&[(2, 101), (3, 102)])});
    parent["allowed_address_pairs"] = json!([{"ip_address": "10.0.0.100", "mac_address": MAC}]);
    let same = json!({"mac_address": MAC, "device_owner": "trunk:subport"});
    let ports = vec![
        // In the order of their ids, or any other.
        port(3, 2, "10.2.0.5", &json!({"device_owner": "trunk:subport"})),
        port(1, 0, "10.0.0.5", &parent),
        port(2, 1, "10.1.0.5", &same),
    ];
    Networking {
        networks: objects((0..4).map(network).collect(), "network"),
        subnets: Vec::new(),
        ports: objects(ports, "port"),
        floating: objects(vec![floating(FIP, "198.51.100.7", Some(1))], "floatingip"),
    }
}

#[test]
fn what_is_listed_and_what_is_notified_is_one() {
    let told = |rig: &Rig, second| {
        [
            ("default/vxlan/1", "10.0.0.5"),
            ("default/vxlan/1", "10.0.0.100"),
            ("default/vxlan/2", "10.1.0.5"),
            ("default/vxlan/3", "10.2.0.5"),
            ("default/vlan/500", "198.51.100.7"),
        ]
        .map(|(segment, address)| rig.who(segment, address, ROUTER, second).is_some())
    };
    let mut rig = Rig::new();
    rig.list(listed(), 10);
    assert_eq!(told(&rig, 11), [true; 5]);
    assert_eq!(rig.who("default/vlan/101", "10.9.9.9", MAC, 11).as_deref(), Some(VM));
    // A probe that was started anew has the facts and no memory: the same list changes nothing.
    let before = format!("{:?}", rig.vm(VM).interfaces);
    rig.model = Model::new(Mapping::default());
    rig.list(listed(), 20);
    assert_eq!(format!("{:?}", rig.vm(VM).interfaces), before);
    // What was taken off while nobody listened ends with the next list.
    let mut less = listed();
    less.floating.clear();
    less.ports.truncate(2);
    let parent = less.ports[1].get_mut("trunk_details").expect("a trunk");
    parent["sub_ports"] = json!(sub_ports(&[(3, 102)]));
    less.ports[1].insert("allowed_address_pairs".to_owned(), json!([]));
    less.ports[1].insert("updated_at".to_owned(), json!("2026-03-01T10:00:25Z"));
    rig.list(less, 30);
    assert_eq!(told(&rig, 24), [true; 5]);
    assert_eq!(told(&rig, 31), [true, false, false, true, false]);
    assert!(rig.is_at_peace());
}

/// Addresses in two outer networks, told in either order, listed in either order, and listed again.
#[test]
fn floating_addresses_in_two_networks_are_the_same_in_any_order() {
    const OUTER: [(&str, u32, &str, &str); 2] = [
        ("0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e009", 501, FIP, "198.51.100.7"),
        ("0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e008", 502, FIP2, "203.0.113.7"),
    ];
    let network = |(id, vlan, ..): (&str, u32, &str, &str)| {
        json!({"network": {
            "id": id, "provider:network_type": "vlan", "provider:segmentation_id": vlan,
            "provider:physical_network": null, "created_at": "2026-03-01T09:00:00Z",
        }})
    };
    let address = |(id, _, fip, address): (&str, u32, &str, &str)| {
        let mut floating = floating(fip, address, Some(1));
        floating["floatingip"]["floating_network_id"] = json!(id);
        floating["floatingip"]["updated_at"] = json!("2026-03-01T10:00:05Z");
        floating
    };
    let listing = |order: [usize; 2]| {
        let mut listing = listed();
        let object = |json: Json, name: &str| json[name].as_object().expect("one").clone();
        listing.networks.extend(OUTER.map(|outer| object(network(outer), "network")));
        listing.floating = order.map(|at| object(address(OUTER[at]), "floatingip")).to_vec();
        listing
    };
    let told = |rig: &Rig, second| {
        OUTER.map(|(_, vlan, _, address)| {
            rig.who(&format!("default/vlan/{vlan}"), address, ROUTER, second).is_some()
        })
    };
    let mut seen = Vec::new();
    for order in [[0, 1], [1, 0]] {
        let mut rig = cloud();
        rig.neutron("port.create.end", 1, &port(1, 0, "10.0.0.5", &of_vm(VM)));
        for at in order {
            rig.neutron("network.create.end", 1, &network(OUTER[at]));
            rig.neutron("floatingip.create.end", 5, &address(OUTER[at]));
        }
        assert_eq!(told(&rig, 6), [true; 2], "{order:?}");
        let interfaces = |rig: &Rig| {
            let all = rig.vm(VM).interfaces.iter().map(|interface| {
                let connection = interface.connections.spans().first();
                (interface.id, connection.and_then(|(_, connection)| connection.segment))
            });
            all.collect::<std::collections::BTreeSet<_>>()
        };
        seen.push(interfaces(&rig));
        let [a, b] = order;
        for listed in [[b, a], [a, b]] {
            rig.list(listing(listed), 20);
            assert_eq!([6, 30].map(|second| told(&rig, second)), [[true; 2]; 2], "{order:?}");
            assert!(interfaces(&rig).is_superset(&seen[0]), "{order:?}");
            assert!(rig.is_at_peace());
        }
        // One is taken off, and the other one stays.
        rig.neutron("floatingip.update.end", 40, &{
            let mut gone = address(OUTER[0]);
            gone["floatingip"]["port_id"] = Json::Null;
            gone
        });
        assert_eq!([39, 41].map(|second| told(&rig, second)), [[true; 2], [false, true]]);
    }
    assert_eq!(seen[0], seen[1], "numbers follow from the networks");
}

/// A trunk or floating address may be told of before the port that it needs, and before the network.
#[test]
fn any_order_gives_the_same_present() {
    let messages: Vec<(&str, u64, Json)> = vec![
        ("network.create.end", 1, network(1)),
        ("network.create.end", 1, network(3)),
        ("port.create.end", 2, port(1, 0, "10.0.0.5", &of_vm(VM))),
        ("port.create.end", 3, port(2, 1, "10.1.0.5", &json!({"mac_address": MAC}))),
        ("trunk.create.end", 4, trunk(&[(2, 101)])),
        ("floatingip.create.end", 5, floating(FIP, "198.51.100.7", Some(1))),
    ];
    for turn in 0..messages.len() {
        for back in [false, true] {
            let mut order: Vec<_> = messages.iter().collect();
            order.rotate_left(turn);
            if back {
                order.reverse();
            }
            let mut rig = Rig::new();
            for (event, second, payload) in order {
                rig.neutron(event, *second, payload);
            }
            let vm = Some(VM.to_owned());
            assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", ROUTER, 50), vm, "{turn} {back}");
            assert_eq!(
                rig.who("default/vlan/500", "198.51.100.7", ROUTER, 50),
                vm,
                "{turn} {back}"
            );
            assert_eq!(rig.who("default/vxlan/2", "10.1.0.5", ROUTER, 3), None, "{turn} {back}");
        }
    }
}
