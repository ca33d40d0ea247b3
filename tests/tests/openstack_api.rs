//! What is there when the probe comes: listed by a real neutron-server, and by doubles of Keystone and Nova
//! (their documented forms, not the services). The message bus is a real RabbitMQ.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value as Json, json};
use vmprobe::config::{self, Mode};
use vmprobe::inventory::{Address, Segment, SourceHealth, SourceState, Uuid, VmHistory};
use vmprobe::sources::{Prepared, Sources};
use vmprobe::time::wall_clock;
use vmprobe_tests::broker::{self, Broker, Publisher};
use vmprobe_tests::cloud_double::{CloudDouble, SECRET, Script};
use vmprobe_tests::end_to_end::{Folder, missing, until};
use vmprobe_tests::neutron::{self, Neutron};

const SOON_S: u64 = 30;

fn vm_id(number: usize) -> String {
    format!("9f6c6d0e-3a35-4c35-9f0c-{number:012x}")
}

fn server(number: usize, project: &str) -> Json {
    json!({
        "id": vm_id(number), "name": format!("vm-{number}"), "tenant_id": project, "status": "ACTIVE",
        "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:10Z",
        "OS-SRV-USG:launched_at": "2026-01-01T00:00:05.000000",
        "OS-EXT-SRV-ATTR:host": "host1", "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:task_state": null, "metadata": {}, "addresses": {},
    })
}

struct Cloud(Sources);

impl Cloud {
    fn new(broker: &Broker, queue: &str, rest: &str) -> Self {
        let text = format!(
            "[inventory]\n[[inventory.openstack]]\nname = \"c\"\nurls = [\"amqp://127.0.0.1:{}\"]\n\
             retry_max_ms = 1000\nqueue = \"{queue}\"\n{rest}\n",
            broker.port
        );
        let loaded = config::parse(&text, "test.toml", Path::new(""), Mode::Replay);
        let plan = Arc::new(loaded.unwrap_or_else(|problems| panic!("{problems}")).plan);
        Self(Prepared::new(&plan, false, &Arc::default()).expect("no file").start())
    }

    fn health(&self) -> SourceHealth {
        self.0.view().status.load().sources.first().expect("one source").clone()
    }

    fn soon<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        until(SOON_S, check).unwrap_or_else(|| panic!("{what}: {:?}", self.health()))
    }

    fn vm(&self, uuid: &str) -> Option<VmHistory> {
        let inventory = self.0.view().inventory.load();
        let mut entries = inventory.entries().map(|(_, entry)| &entry.history);
        entries.find(|history| history.uuid_text.as_ref() == uuid).cloned()
    }

    fn who(&self, segment: &str, address: &str) -> Option<VmHistory> {
        let (inventory, now) = (self.0.view().inventory.load(), wall_clock());
        let segment = Segment::parse(segment, &["default".to_owned()])?;
        let (address, version) = Address::of_ip(address.parse().expect("an address"));
        let space = inventory.spaces().at(segment, now);
        inventory.vm(inventory.resolve(space, address, version, None, now)?).cloned()
    }
}

#[test]
fn what_neutron_has_is_known_without_a_notification() {
    let name = "what_neutron_has_is_known_without_a_notification";
    let Some(broker) = Broker::start() else {
        missing(name, &["rabbitmq-server"], broker::PACKAGES);
        return;
    };
    let Some(neutron) = Neutron::start() else {
        missing(name, &["neutron-server"], neutron::PACKAGES);
        return;
    };
    let (network, vni, subnet) = neutron.network("10.0.0.0/24");
    let router = json!({"router": {"name": "r", "tenant_id": "p1"}});
    let router =
        neutron.ask("POST", "/routers", &router)["router"]["id"].as_str().map(str::to_owned);
    let router = router.expect("an id");
    let interface = json!({ "subnet_id": subnet });
    neutron.ask("PUT", &format!("/routers/{router}/add_router_interface"), &interface);
    let ports: Vec<_> = (0..5).map(|number| neutron.port(&network, &vm_id(number))).collect();
    let services = Publisher::new(&broker, &["neutron"]);
    // Pages of two.
    let rest = format!(
        "api_auth = \"none\"\napi_network_url = \"http://{}\"\napi_page_items = 2",
        neutron.address
    );
    let cloud = Cloud::new(&broker, "a", &rest);
    let segment = format!("default/vxlan/{vni}");
    for (number, (port, mac, address)) in ports.iter().enumerate() {
        let vm = cloud.soon("a listed port", || cloud.who(&segment, address));
        assert_eq!(vm.uuid_text.as_ref(), vm_id(number));
        assert_eq!(vm.host_at(wall_clock()).map(AsRef::as_ref), Some("host1"));
        let interface = &vm.interfaces[0];
        assert_eq!(&interface.id.mac.to_string(), mac);
        assert_eq!(interface.ports.at(wall_clock()).map(AsRef::as_ref), Some(port.as_str()));
    }
    let space = cloud.0.view().inventory.load().spaces().named(&format!("router/{router}"));
    assert!(space.is_some(), "what the router joins");
    assert_eq!(cloud.health().rejected.get("listing_failed"), None);
    drop((cloud, services));
    // Not there at first: said, and tried again.
    drop(neutron);
    let cloud = Cloud::new(&broker, "b", &rest);
    let error = cloud.soon("the failure is said", || {
        cloud.health().last_error.filter(|error| error.contains("was not listed"))
    });
    assert!(error.contains("no connection"), "{error}");
}

#[test]
fn what_nova_has_is_known_and_what_is_gone_has_ended() {
    let name = "what_nova_has_is_known_and_what_is_gone_has_ended";
    let Some(mut broker) = Broker::start() else {
        missing(name, &["rabbitmq-server"], broker::PACKAGES);
        return;
    };
    let Some(neutron) = Neutron::start() else {
        missing(name, &["neutron-server"], neutron::PACKAGES);
        return;
    };
    let folder = Folder::new("cloud");
    let secret = folder.write("secret", format!("{SECRET}\n"));
    let (network, vni, _) = neutron.network("10.1.0.0/24");
    let (_, _, address) = neutron.port(&network, &vm_id(0));
    let segment = format!("default/vxlan/{vni}");
    let script = |servers: Vec<Json>| Script {
        servers,
        network_url: format!("http://{}", neutron.address),
        page_max: 3,
        ..Script::default()
    };
    let all = Arc::new(script((0..7).map(|number| server(number, "p1")).collect()));
    all.fails.store(true, Ordering::Relaxed);
    let double = CloudDouble::start(Arc::clone(&all));
    let api = |double: &CloudDouble, more: &str| {
        format!(
            "api_identity_url = \"http://{}/v3\"\napi_secret = \"file:{}\"\napi_page_items = 100\n{more}",
            double.address,
            secret.display()
        )
    };
    let password = "api_auth = \"password\"\napi_user = \"vmprobe\"\napi_project = \"admin\"";
    let services = Publisher::new(&broker, &["nova"]);
    let cloud = Cloud::new(&broker, "a", &api(&double, password));
    let error = cloud.soon("a service that fails is said", || {
        cloud.health().last_error.filter(|error| error.contains("/servers/detail: status 503"))
    });
    assert!(error.contains("Nova is not itself today"), "{error}");
    assert_eq!(cloud.health().state, SourceState::Live, "notifications are heard meanwhile");
    assert!(cloud.vm(&vm_id(6)).is_none());
    all.fails.store(false, Ordering::Relaxed);
    let last = cloud.soon("the last page", || cloud.vm(&vm_id(6)));
    assert_eq!(last.tenants.at(wall_clock()).map(AsRef::as_ref), Some("acme"));
    let first = cloud.soon("with its address", || cloud.who(&segment, &address));
    assert_eq!(first.uuid_text.as_ref(), vm_id(0));
    assert_eq!(first.names.at(wall_clock()).map(AsRef::as_ref), Some("vm-0"));
    assert!(cloud.health().rejected.get("listing_failed") >= Some(&1));

    // With a credential, at a cloud of three servers.
    let half = Arc::new(script((0..3).map(|number| server(number, "p1")).collect()));
    let other = CloudDouble::start(half);
    let credential = "api_auth = \"application_credential\"\napi_credential_id = \"c1\"";
    let by_credential = Cloud::new(&broker, "b", &api(&other, credential));
    by_credential.soon("listed by a credential", || by_credential.vm(&vm_id(2)));
    drop(by_credential);

    // A wrong secret is said, and not shown.
    folder.write("secret", "hunter2");
    let refused = Cloud::new(&broker, "c", &api(&double, password));
    let error = refused.soon("a wrong secret is said", || {
        refused.health().last_error.filter(|error| error.contains("was not listed"))
    });
    assert!(error.contains("status 401") && !error.contains("hunter2"), "{error}");
    drop(refused);

    // A gap, in which one server moves, one comes and the last ones go, and nobody tells of it.
    folder.write("secret", SECRET);
    let mut moved = server(2, "p1");
    moved["OS-EXT-SRV-ATTR:host"] = json!("host2");
    moved["updated"] = json!("2026-01-02T00:00:00Z");
    let after = vec![server(0, "p1"), server(1, "p1"), moved, server(9, "p2")];
    let place = double.address.clone();
    drop(double);
    let _again = CloudDouble::start_at(&place, Arc::new(script(after)));
    let gap = wall_clock();
    broker.kill();
    drop(services);
    cloud.soon("the loss is seen", || (cloud.health().state != SourceState::Live).then_some(()));
    assert!(cloud.vm(&vm_id(6)).is_some_and(|vm| vm.ended().is_none()), "what was said counts");
    assert!(cloud.vm(&vm_id(9)).is_none());
    broker.run();
    let _services = Publisher::new(&broker, &["nova"]);
    let ended = cloud.soon("what is gone has ended", || cloud.vm(&vm_id(6))?.ended());
    assert!((gap..=wall_clock()).contains(&ended), "{ended:?}, in or after the gap from {gap:?}");
    assert!(cloud.vm(&vm_id(3)).is_some_and(|vm| vm.ended().is_some()));
    let vm = cloud.vm(&vm_id(2)).expect("known");
    assert_eq!(vm.ended(), None);
    assert_eq!(vm.host_at(wall_clock()).map(AsRef::as_ref), Some("host2"), "it moved in the gap");
    let new = cloud.vm(&vm_id(9)).expect("it came in the gap");
    assert_eq!(new.tenants.at(wall_clock()).map(AsRef::as_ref), Some("other"));
}

/// A cloud whose services ask nobody who he is, at a double that is all of them; `rest` of the configuration.
fn open_cloud(broker: &Broker, double: &CloudDouble, rest: &str) -> Cloud {
    let place = &double.address;
    let rest = format!(
        "api_auth = \"none\"\napi_network_url = \"http://{place}\"\n\
         api_compute_url = \"http://{place}/v2.1\"\n{rest}"
    );
    Cloud::new(broker, "q", &rest)
}

fn servers(count: usize) -> Vec<Json> {
    (0..count).map(|number| server(number, "p1")).collect()
}

/// What a service has said before its exchange was bound went past the queue, so all is listed anew then.
#[test]
fn an_exchange_that_comes_late_has_all_listed_anew() {
    let name = "an_exchange_that_comes_late_has_all_listed_anew";
    let Some(broker) = Broker::start() else {
        missing(name, &["rabbitmq-server"], broker::PACKAGES);
        return;
    };
    let script =
        |count| Script { servers: servers(count), open: true, page_max: 100, ..Script::default() };
    let double = CloudDouble::start(Arc::new(script(2)));
    let _nova = Publisher::new(&broker, &["nova"]);
    let cloud = open_cloud(&broker, &double, "exchanges = [\"nova\", \"neutron\"]");
    cloud.soon("listed", || cloud.vm(&vm_id(1)));
    cloud.soon("live", || (cloud.health().state == SourceState::Live).then_some(()));
    // Another server comes, and the exchange at which that is told is not there yet.
    let place = double.address.clone();
    drop(double);
    let _again = CloudDouble::start_at(&place, Arc::new(script(3)));
    assert!(cloud.vm(&vm_id(2)).is_none());
    let _neutron = Publisher::new(&broker, &["neutron"]);
    cloud.soon("what came in between is listed", || cloud.vm(&vm_id(2)));
    let health = cloud.health();
    assert_eq!(health.connections, 1, "of the same connection");
    let error = health.last_error.expect("it is said");
    assert!(error.contains("exchange neutron was not there and is bound now"), "{error}");
}

/// Nova leaves servers of a cell that it does not reach out of its lists. They go on, and end when they are
/// not listed although all cells are reached.
#[test]
fn servers_of_a_cell_that_is_down_do_not_end() {
    let name = "servers_of_a_cell_that_is_down_do_not_end";
    let Some(broker) = Broker::start() else {
        missing(name, &["rabbitmq-server"], broker::PACKAGES);
        return;
    };
    let script = Script { servers: servers(4), open: true, page_max: 3, ..Script::default() };
    let script = Arc::new(script);
    let double = CloudDouble::start(Arc::clone(&script));
    let _nova = Publisher::new(&broker, &["nova"]);
    let cloud = open_cloud(&broker, &double, "api_again_s = 1");
    cloud.soon("listed", || cloud.vm(&vm_id(3)));
    script.down.store(2, Ordering::Relaxed);
    let count = || cloud.health().rejected.get("cell_down").copied().unwrap_or(0);
    cloud.soon("lists without that cell", || (count() >= 2).then_some(()));
    let error = cloud.health().last_error.expect("it is said");
    assert!(error.contains("does not reach all of its cells"), "{error}");
    for number in 0..4 {
        let vm = cloud.vm(&vm_id(number)).expect("known");
        let now = wall_clock();
        assert_eq!((vm.ended(), vm.exists.at(now)), (None, Some(&true)), "{number}");
        assert_eq!(vm.names.at(now).map(AsRef::as_ref), Some(format!("vm-{number}").as_str()));
        assert_eq!(vm.host_at(now).map(AsRef::as_ref), Some("host1"));
    }
    // The cell is back, without one of them.
    let place = double.address.clone();
    drop(double);
    let back = Script { servers: servers(3), open: true, page_max: 3, ..Script::default() };
    let double = CloudDouble::start_at(&place, Arc::new(back));
    cloud.soon("one is gone", || cloud.vm(&vm_id(3))?.ended());
    assert!(cloud.vm(&vm_id(2)).is_some_and(|vm| vm.ended().is_none()));
    // A Nova that cannot tell is listed as it is.
    drop(double);
    let old =
        Script { servers: servers(2), open: true, old: true, page_max: 3, ..Script::default() };
    let _double = CloudDouble::start_at(&place, Arc::new(old));
    cloud.soon("another one is gone", || cloud.vm(&vm_id(2))?.ended());
}

/// An instance on a trunk, with a subport, a pair and a floating address.
struct Wired {
    parent: Json,
    subport: Json,
    trunk: Json,
    floating: Json,
    /// The VNIs of the port's network, and of the subport's.
    vnis: [u64; 2],
    /// Segments and addresses: its own, of the pair, of the subport, outside.
    places: [(String, String); 4],
}

fn text(value: &Json) -> String {
    value.as_str().expect("a text").to_owned()
}

fn path(kind: &str, of: &Json) -> String {
    format!("/{kind}/{}", text(&of["id"]))
}

fn wired(neutron: &Neutron) -> Wired {
    let made = |path: &str, kind: &str, body: Json| {
        neutron.ask("POST", path, &json!({ kind: body }))[kind].take()
    };
    let (inner, vni, inner_subnet) = neutron.network("10.0.0.0/24");
    let (tagged, tagged_vni, _) = neutron.network("10.1.0.0/24");
    let outer = json!({
        "name": "outer", "tenant_id": "p1", "router:external": true,
        "provider:network_type": "vlan", "provider:physical_network": "physnet1",
        "provider:segmentation_id": 500});
    let outer = made("/networks", "network", outer);
    let subnet = json!({
        "network_id": outer["id"], "ip_version": 4, "cidr": "198.51.100.0/24", "tenant_id": "p1"});
    made("/subnets", "subnet", subnet);
    let parent = made("/ports", "port", json!({"network_id": inner, "tenant_id": "p1"}));
    let same =
        json!({"network_id": tagged, "tenant_id": "p1", "mac_address": parent["mac_address"]});
    let subport = made("/ports", "port", same);
    let sub_ports = json!([
        {"port_id": subport["id"], "segmentation_type": "vlan", "segmentation_id": 101}]);
    let trunk = json!({"port_id": parent["id"], "tenant_id": "p1", "sub_ports": sub_ports});
    let trunk = made("/trunks", "trunk", trunk);
    let bound = json!({"port": {
        "device_id": vm_id(1), "device_owner": "compute:nova", "binding:host_id": "host1",
        "allowed_address_pairs": [{"ip_address": "10.0.0.200"}]}});
    neutron.ask("PUT", &path("ports", &parent), &bound);
    // A floating address needs a router between.
    let gateway = json!({"tenant_id": "p1", "external_gateway_info": {"network_id": outer["id"]}});
    let router = made("/routers", "router", gateway);
    let place = format!("{}/add_router_interface", path("routers", &router));
    neutron.ask("PUT", &place, &json!({"subnet_id": inner_subnet}));
    let floating = json!({
        "floating_network_id": outer["id"], "tenant_id": "p1", "port_id": parent["id"]});
    let floating = made("/floatingips", "floatingip", floating);
    let address = |port: &Json| text(&port["fixed_ips"][0]["ip_address"]);
    let places = [
        (format!("default/vxlan/{vni}"), address(&parent)),
        (format!("default/vxlan/{vni}"), "10.0.0.200".to_owned()),
        (format!("default/vxlan/{tagged_vni}"), address(&subport)),
        ("default/vlan/500".to_owned(), text(&floating["floating_ip_address"])),
    ];
    Wired { parent, subport, trunk, floating, vnis: [vni, tagged_vni], places }
}

/// Trunks, pairs and floating addresses as a real Neutron tells of them, by notifications and by lists. It does
/// not notify of subports that are added to a trunk or taken off: its next message of the port says so.
#[test]
fn what_neutron_does_is_heard_and_what_it_has_is_listed_alike() {
    let name = "what_neutron_does_is_heard_and_what_it_has_is_listed_alike";
    let Some(broker) = Broker::start() else {
        missing(name, &["rabbitmq-server"], broker::PACKAGES);
        return;
    };
    let Some(neutron) = Neutron::notifying(&broker) else {
        missing(name, &["neutron-server"], neutron::PACKAGES);
        return;
    };
    // With its first notification Neutron makes its exchange.
    neutron.network("10.9.0.0/24");
    let cloud = Cloud::new(&broker, "heard", "");
    cloud.soon("live", || (cloud.health().state == SourceState::Live).then_some(()));
    let wired = wired(&neutron);
    let whose = |cloud: &Cloud| {
        wired.places.each_ref().map(|(segment, address)| {
            cloud.who(segment, address).is_some_and(|vm| vm.uuid_text.as_ref() == vm_id(1))
        })
    };
    cloud.soon("all is heard", || (whose(&cloud) == [true; 4]).then_some(()));
    let rest = format!("api_auth = \"none\"\napi_network_url = \"http://{}\"", neutron.address);
    let listed = Cloud::new(&broker, "listed", &rest);
    listed.soon("all is listed", || (whose(&listed) == [true; 4]).then_some(()));
    let [vni, tagged] = wired.vnis;
    // The number of an interface in an outer network follows from the network's id.
    let outer: Uuid = text(&wired.floating["floating_network_id"]).parse().expect("a UUID");
    let outside = 8_192 + u16::try_from(outer.0 % 57_331).expect("small");
    for cloud in [&cloud, &listed] {
        let vm = cloud.vm(&vm_id(1)).expect("known");
        let now = wall_clock();
        let interfaces: Vec<_> = vm
            .interfaces
            .iter()
            .map(|interface| {
                let connection = interface.connections.at(now).expect("connected");
                let segment = connection.segment.map(|segment| segment.to_string());
                let counts = (connection.addresses.len(), connection.shared.len());
                (interface.id.number, segment.expect("it is in one"), counts)
            })
            .collect();
        let wanted = [
            (0, format!("vxlan/{vni}"), (1, 1)),
            (101, format!("vxlan/{tagged}"), (1, 0)),
            // As the VM sees it: with a tag, by its MAC address.
            (4_096 + 101, "vlan/101".to_owned(), (0, 0)),
            (outside, "vlan/500".to_owned(), (1, 0)),
        ];
        assert_eq!(interfaces, wanted);
        assert_eq!(cloud.0.view().status.load().conflicts, 0);
    }

    // Taken off without a word; the next message of the port tells.
    let off = json!({"sub_ports": [{"port_id": wired.subport["id"]}]});
    neutron.ask("PUT", &format!("{}/remove_subports", path("trunks", &wired.trunk)), &off);
    let parent = path("ports", &wired.parent);
    neutron.ask("PUT", &parent, &json!({"port": {"name": "eth0"}}));
    cloud.soon("the subport is off", || (whose(&cloud) == [true, true, false, true]).then_some(()));
    let none = json!({"floatingip": {"port_id": null}});
    neutron.ask("PUT", &path("floatingips", &wired.floating), &none);
    cloud.soon("the floating address is off", || {
        (whose(&cloud) == [true, true, false, false]).then_some(())
    });
    neutron.ask("PUT", &parent, &json!({"port": {"allowed_address_pairs": []}}));
    cloud.soon("the pair is off", || (whose(&cloud) == [true, false, false, false]).then_some(()));
}
