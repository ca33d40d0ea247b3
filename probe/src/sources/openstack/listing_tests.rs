//! Lists in the forms that the APIs document, and what comes of them beside notifications.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::listing::{Listing, Networking};
use super::model::{Mapping, Model};
use crate::inventory::{
    Address, Batch, ClassRules, Segment, SegmentKind, SourceId, SourceKind, SourceName, Spaces,
    Store, StoreLimits, VmHistory,
};
use crate::time::Timestamp;

const VM: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01";
const OTHER: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c02";
const NET: &str = "0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e001";
const SUBNET: &str = "5a8e2b07-03cb-4f7a-b1b4-d94b0a1de001";
const ROUTER: &str = "7e1d0f3a-5f3e-4a52-8b1c-5d2f9b0ac001";
/// 2026-03-01T10:00:00Z.
const T0: u64 = 1_772_359_200;

fn at(second: u64) -> Timestamp {
    Timestamp::from_parts(T0 + second, 0)
}

fn server(id: &str, changes: &Json) -> Json {
    let mut server = json!({
        "id": id, "name": "web-1", "tenant_id": "p1", "user_id": "u", "status": "ACTIVE",
        "created": "2026-03-01T09:00:00Z", "updated": "2026-03-01T10:00:20Z",
        "OS-SRV-USG:launched_at": "2026-03-01T09:00:10.000000", "OS-SRV-USG:terminated_at": null,
        "OS-EXT-SRV-ATTR:host": "host1", "OS-EXT-SRV-ATTR:hypervisor_hostname": "host1",
        "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:task_state": null,
        "metadata": {"tier": "front"},
        "addresses": {"n1": [
            {"version": 4, "addr": "10.0.0.5", "OS-EXT-IPS:type": "fixed",
             "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"},
            {"version": 4, "addr": "198.51.100.7", "OS-EXT-IPS:type": "floating",
             "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"},
        ]},
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        server[name.as_str()] = value.clone();
    }
    server
}

fn port(number: u8, device: &str, owner: &str) -> Json {
    json!({
        "id": format!("c1a7b1f2-6a55-4d7e-8b86-0000000000{number:02x}"), "network_id": NET,
        "mac_address": format!("fa:16:3e:00:00:{number:02x}"), "device_id": device,
        "device_owner": owner, "binding:host_id": "host1", "project_id": "p1",
        "fixed_ips": [{"subnet_id": SUBNET, "ip_address": format!("10.0.0.{}", number + 4)}],
        "created_at": "2026-03-01T09:00:05Z", "updated_at": "2026-03-01T09:00:08Z",
    })
}

fn objects(items: Vec<Json>) -> Vec<serde_json::Map<String, Json>> {
    let object = |item| if let Json::Object(object) = item { object } else { panic!("{item}") };
    items.into_iter().map(object).collect()
}

/// A network between VM, router and DHCP server.
fn networking() -> Networking {
    let network = json!({
        "id": NET, "created_at": "2026-03-01T08:00:00Z", "provider:network_type": "vxlan",
        "provider:segmentation_id": 4242, "provider:physical_network": null,
    });
    let ports = vec![
        port(1, VM, "compute:nova"),
        port(2, ROUTER, "network:router_interface"),
        port(3, "dhcp1", "network:dhcp"),
    ];
    Networking {
        networks: objects(vec![network]),
        subnets: objects(vec![json!({"id": SUBNET, "network_id": NET})]),
        ports: objects(ports),
        floating: Vec::new(),
    }
}

fn listing(servers: Option<Vec<Json>>, networking: Option<Networking>) -> Listing {
    let projects = vec![(Arc::from("p1"), Arc::from("acme"))];
    let servers = servers.map(objects);
    Listing { began: at(100), networking, servers, hosts_unseen: 0, projects }
}

struct Cloud {
    model: Model,
    store: Store,
    known: Timestamp,
}

impl Cloud {
    fn new() -> Self {
        let source = SourceName { kind: SourceKind::Openstack, name: "c".into(), rank: 0 };
        let limits = StoreLimits::default();
        let store = Store::new(limits, Spaces::default(), ClassRules::default(), vec![source]);
        Self { model: Model::new(Mapping::default()), store, known: at(1_000) }
    }

    fn apply(&mut self, batch: Batch) -> bool {
        self.known = self.known + 1;
        self.store.apply(SourceId(0), self.known, batch)
    }

    fn listed(&mut self, listing: &Listing) -> (bool, Vec<(&'static str, u64)>) {
        let (batch, left_out) = self.model.listed(listing);
        (self.apply(batch), left_out.into_iter().collect())
    }

    /// A notification `second` after the start.
    fn notify(&mut self, event: &str, second: u64, payload: &Json) {
        let said = json!({
            "event_type": event, "payload": payload, "publisher_id": "nova-compute:host1",
            "message_id": format!("{event} {second}"),
            "timestamp": format!("2026-03-01 10:{:02}:{:02}.500000", second / 60, second % 60),
        });
        let changes = self.model.message(said.to_string().as_bytes(), self.known);
        self.apply(changes.expect("understood").into());
    }

    fn who(&self, address: [u8; 4], at: Timestamp) -> Option<&VmHistory> {
        let inventory = self.store.inventory();
        let space = inventory.spaces().named(&format!("router/{ROUTER}"))?;
        let vm = inventory.resolve(space, Address::v4(address), 4, None, at)?;
        inventory.vm(vm)
    }

    fn vm(&self, uuid: &str) -> &VmHistory {
        let mut entries = self.store.inventory().entries().map(|(_, entry)| &entry.history);
        entries.find(|history| history.uuid_text.as_ref() == uuid).expect("known")
    }
}

#[test]
fn what_is_listed_is_known_since_it_is_so() {
    let mut cloud = Cloud::new();
    let listing = listing(Some(vec![server(VM, &json!({}))]), Some(networking()));
    assert_eq!(cloud.listed(&listing), (true, vec![]));
    let vm = cloud.who([10, 0, 0, 5], at(50)).expect("in the router's space");
    assert_eq!(vm.uuid_text.as_ref(), VM);
    let text = |text: Option<&Arc<str>>| text.map(ToString::to_string);
    assert_eq!(text(vm.names.at(at(50))).as_deref(), Some("web-1"));
    assert_eq!(text(vm.tenants.at(at(50))).as_deref(), Some("acme"));
    assert_eq!(text(vm.host_at(at(50))).as_deref(), Some("host1"));
    assert_eq!(text(vm.tags["tier"].at(at(50))).as_deref(), Some("front"));
    let [interface] = &*vm.interfaces else { panic!("{vm:?}") };
    let (valid, connection) = &interface.connections.spans()[0];
    assert_eq!(connection.segment, Some(Segment::new(0, SegmentKind::Vxlan, 4_242)));
    assert_eq!(connection.addresses.len(), 1, "a floating address is no address of it");
    // Since the port was changed last, at the end of that second.
    assert_eq!(valid.from, Timestamp((T0 - 3_600 + 9) * 1_000_000_000 - 1));
    assert_eq!(vm.exists.spans()[0].0.from, Timestamp((T0 - 3_600 + 11) * 1_000_000_000 - 1));
    // The same again is nothing new, also to a probe that has only the facts.
    assert_eq!(cloud.listed(&listing), (false, vec![]));
    cloud.model = Model::new(Mapping::default());
    assert_eq!(cloud.listed(&listing), (false, vec![]));
}

#[test]
fn a_list_corrects_what_notifications_said_only_where_it_differs() {
    let mut cloud = Cloud::new();
    cloud.listed(&listing(Some(vec![server(VM, &json!({}))]), Some(networking())));
    // A migration at 10:01:30.5, which the list after it tells by the second.
    let moved = json!({"instance_id": VM, "host": "host2", "state": "active", "tenant_id": "p1"});
    cloud.notify("compute.instance.live_migration.post.dest.end", 90, &moved);
    let hosts = |cloud: &Cloud| -> Vec<(Timestamp, String)> {
        let spans = cloud.vm(VM).hosts.spans().iter();
        spans.map(|(valid, host)| (valid.from, host.to_string())).collect()
    };
    let before = hosts(&cloud);
    assert_eq!(before.len(), 2, "{before:?}");
    let updated = json!({"OS-EXT-SRV-ATTR:host": "host2", "updated": "2026-03-01T10:01:30Z"});
    cloud.listed(&listing(Some(vec![server(VM, &updated)]), Some(networking())));
    assert_eq!(hosts(&cloud), before, "to the fraction of the second");
    // What was missed while nobody listened is known from the list.
    let updated = json!({"OS-EXT-SRV-ATTR:host": "host3", "updated": "2026-03-01T10:01:35Z"});
    cloud.listed(&listing(Some(vec![server(VM, &updated)]), Some(networking())));
    assert_eq!(hosts(&cloud).last().map(|(_, host)| host.as_str()), Some("host3"));
}

#[test]
fn what_is_gone_has_ended_if_both_services_were_asked() {
    let mut cloud = Cloud::new();
    let both = vec![server(VM, &json!({})), server(OTHER, &json!({"addresses": {}}))];
    cloud.listed(&listing(Some(both), Some(networking())));
    // Half a list, or one with an item that cannot be read, ends nothing.
    cloud.listed(&listing(None, Some(Networking::default())));
    assert!(cloud.vm(VM).ended().is_none());
    let broken = server("7", &json!({}));
    let (_, left_out) = cloud.listed(&listing(Some(vec![broken]), Some(Networking::default())));
    assert_eq!(left_out, [("payload_malformed", 1)]);
    assert!(cloud.vm(VM).ended().is_none());
    let deleted = server(OTHER, &json!({"OS-EXT-STS:vm_state": "deleted"}));
    let rest = vec![server(VM, &json!({})), deleted];
    assert_eq!(cloud.listed(&listing(Some(rest), Some(networking()))), (true, vec![]));
    assert_eq!(cloud.vm(OTHER).ended(), Some(at(100)), "when the first question was asked");
    assert!(cloud.vm(VM).ended().is_none());
    assert!(cloud.who([10, 0, 0, 5], at(150)).is_some());
}

/// What Nova lists of a server whose cell it does not reach; the sample of its guide.
fn unseen(id: &str) -> Json {
    json!({
        "created": "2026-03-01T09:00:00Z", "id": id, "status": "UNKNOWN", "tenant_id": "p1",
        "security_groups": [{"name": "default"}],
        "links": [{"href": format!("http://openstack.example.com/v2.1/servers/{id}"), "rel": "self"}],
    })
}

/// The server of a cell that is down is listed in part, or not at all: what is known of it stays as it is, and
/// of others too nothing ends by such a list.
#[test]
fn servers_of_a_cell_that_is_down_stay_as_they_are_known() {
    let mut cloud = Cloud::new();
    let both = vec![server(VM, &json!({})), server(OTHER, &json!({"addresses": {}}))];
    cloud.listed(&listing(Some(both.clone()), Some(networking())));
    let known = cloud.vm(OTHER).clone();
    let in_part = listing(Some(vec![server(VM, &json!({})), unseen(OTHER)]), Some(networking()));
    let mut without = listing(Some(vec![server(VM, &json!({}))]), Some(networking()));
    without.hosts_unseen = 1;
    for partial in [&in_part, &without] {
        assert!(partial.is_partial());
        assert_eq!(cloud.listed(partial), (false, vec![]), "nothing that can be said of it is new");
        let vm = cloud.vm(OTHER);
        assert_eq!((&vm.names, &vm.hosts, &vm.tags), (&known.names, &known.hosts, &known.tags));
        assert_eq!((&vm.exists, &vm.tenants), (&known.exists, &known.tenants));
    }
    // Of what is reached the list tells all the same.
    let moved = json!({"OS-EXT-SRV-ATTR:host": "host2", "updated": "2026-03-01T10:01:30Z"});
    let partial = listing(Some(vec![server(VM, &moved), unseen(OTHER)]), Some(networking()));
    cloud.listed(&partial);
    assert_eq!(cloud.vm(VM).host_at(at(99)).map(AsRef::as_ref), Some("host2"));
    // A tag that was taken off while the cell was down is gone when it is reached again.
    let untagged = vec![server(VM, &moved), server(OTHER, &json!({"metadata": {}}))];
    cloud.listed(&listing(Some(untagged), Some(networking())));
    assert!(cloud.vm(OTHER).tags.get("tier").is_none_or(|tier| tier.at(at(101)).is_none()));
    // And it ends when it is not listed although all cells are reached.
    cloud.listed(&listing(Some(vec![server(VM, &moved)]), Some(networking())));
    assert_eq!(cloud.vm(OTHER).ended(), Some(at(100)));
    // Nova's own fault of that status is a whole server.
    assert!(!listing(Some(vec![server(VM, &json!({"status": "UNKNOWN"}))]), None).is_partial());
}

#[test]
fn without_neutron_the_servers_have_their_addresses() {
    let mut cloud = Cloud::new();
    let servers = vec![server(VM, &json!({}))];
    cloud.listed(&listing(Some(servers), None));
    let [interface] = &*cloud.vm(VM).interfaces else { panic!() };
    let (_, connection) = &interface.connections.spans()[0];
    let address: std::net::IpAddr = [10, 0, 0, 5].into();
    assert_eq!((&*connection.addresses, connection.segment), (&[address][..], None));
}

/// Where one service is asked only, what the other one has told by notifications still has the last word.
#[test]
fn a_list_of_one_service_keeps_what_the_other_one_told() {
    let mut cloud = Cloud::new();
    cloud.listed(&listing(Some(vec![server(VM, &json!({}))]), Some(networking())));
    // Nova has moved it; what Neutron still lists is an older host, and another project.
    let moved = json!({"instance_id": VM, "host": "host2", "state": "active", "tenant_id": "p1"});
    cloud.notify("compute.instance.live_migration.post.dest.end", 90, &moved);
    let mut stale = networking();
    stale.ports[0].insert("updated_at".to_owned(), json!("2026-03-01T10:01:35Z"));
    stale.ports[0].insert("project_id".to_owned(), json!("p2"));
    cloud.listed(&listing(None, Some(stale)));
    let vm = cloud.vm(VM);
    let text = |text: Option<&Arc<str>>| text.map(ToString::to_string);
    assert_eq!(text(vm.host_at(at(99))).as_deref(), Some("host2"));
    assert_eq!(text(vm.tenants.at(at(99))).as_deref(), Some("acme"));
    // Nova alone lists another address for the interface of a port, and knows of no segment.
    let mut other = server(VM, &json!({"updated": "2026-03-01T10:01:36Z"}));
    other["addresses"]["n1"][0]["addr"] = json!("10.0.0.99");
    cloud.listed(&listing(Some(vec![other]), None));
    assert!(cloud.who([10, 0, 0, 5], at(150)).is_some(), "as Neutron said");
    assert!(cloud.who([10, 0, 0, 99], at(150)).is_none());
    // The port is remembered, so that its end is one.
    let gone = json!({"port_id": "c1a7b1f2-6a55-4d7e-8b86-000000000001"});
    cloud.notify("port.delete.end", 200, &gone);
    assert!(cloud.who([10, 0, 0, 5], at(199)).is_some());
    assert!(cloud.who([10, 0, 0, 5], at(201)).is_none());
}
