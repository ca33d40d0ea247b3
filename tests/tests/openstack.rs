//! Notifications of OpenStack through a real RabbitMQ, into the inventory that the probe asks.
//!
//! The messages are ours, in the forms that Nova and Neutron document.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use vmprobe::config::{self, Mode};
use vmprobe::inventory::{Address, Interval, SourceHealth, SourceState, VmHistory};
use vmprobe::sources::{Prepared, Sources};
use vmprobe::time::{Timestamp, monotonic_ns, sleep_ms, wall_clock};
use vmprobe_tests::broker::{Broker, PACKAGES, Publisher};
use vmprobe_tests::end_to_end::{missing, until};

const VM: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01";
const NET: &str = "0d4b53c5-7a0b-44a5-9f0a-61c1a9f0e001";
const SUBNET: &str = "5a8e2b07-03cb-4f7a-b1b4-d94b0a1de001";
const ROUTER: &str = "7e1d0f3a-5f3e-4a52-8b1c-5d2f9b0ac001";
const KEY: &str = "notifications.info";
/// How long a change may take from the broker to a look-up here.
const SOON_S: u64 = 20;

/// A notification in an envelope, said at `at`.
fn message(event: &str, at: Timestamp, payload: &Json) -> Vec<u8> {
    let micros = at.0 / 1_000;
    let inner = json!({
        "event_type": event,
        "payload": payload,
        "priority": "INFO",
        "publisher_id": "nova-compute:host1",
        "message_id": format!("{event} {micros}"),
        "timestamp": text(at),
    });
    json!({"oslo.version": "2.0", "oslo.message": inner.to_string()}).to_string().into_bytes()
}

/// As Python writes a time.
fn text(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1_000_000_000).expect("this century");
    let days = seconds.div_euclid(86_400);
    let second = seconds.rem_euclid(86_400);
    // Days to date, after Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = (if month < 10 { month + 3 } else { month - 9 }, year + era * 400);
    let year = if month <= 2 { year + 1 } else { year };
    let micros = at.0 % 1_000_000_000 / 1_000;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

fn instance(host: &str, state: &str) -> Json {
    json!({
        "nova_object.data": {
            "uuid": VM, "display_name": "web-1", "tenant_id": "p1", "host": host, "state": state,
            "task_state": null, "metadata": {}, "ip_addresses": [],
        },
        "nova_object.name": "InstanceActionPayload",
        "nova_object.namespace": "nova",
        "nova_object.version": "1.8",
    })
}

fn port(number: u32, address: &str) -> Json {
    json!({"port": {
        "id": format!("c1a7b1f2-6a55-4d7e-8b86-0000{number:08x}"),
        "network_id": NET, "project_id": "p1",
        "mac_address": format!("fa:16:3e:00:{:02x}:{:02x}", number / 256, number % 256),
        "device_id": VM, "device_owner": "compute:nova", "binding:host_id": "host1",
        "fixed_ips": [{"subnet_id": SUBNET, "ip_address": address}],
    }})
}

fn network() -> Json {
    json!({"network": {
        "id": NET, "provider:network_type": "vxlan", "provider:segmentation_id": 4242,
        "provider:physical_network": null,
    }})
}

/// The sources of a configuration with one cloud.
struct Cloud {
    sources: Sources,
}

impl Cloud {
    fn new(urls: &[String], rest: &str) -> Self {
        let mut text =
            format!("[inventory]\n[[inventory.openstack]]\nname = \"c\"\nurls = {urls:?}\n");
        writeln!(text, "retry_max_ms = 1000\n{rest}").expect("memory");
        let loaded = config::parse(&text, "test.toml", Path::new(""), Mode::Replay);
        let plan = Arc::new(loaded.expect("allowed").plan);
        let prepared = Prepared::new(&plan, false, &Arc::default()).expect("no file");
        Self { sources: prepared.start() }
    }

    fn health(&self) -> SourceHealth {
        let status = self.sources.view().status.load();
        status.sources.first().expect("one source").clone()
    }

    /// Waits for that, with the health in the message where it does not come.
    fn soon<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        until(SOON_S, check).unwrap_or_else(|| panic!("{what}: {:?}", self.health()))
    }

    fn live(&self) {
        self.soon("live", || (self.health().state == SourceState::Live).then_some(()));
    }

    fn rejected(&self, reason: &str) -> u64 {
        self.health().rejected.get(reason).copied().unwrap_or(0)
    }

    /// The VM with that address in the segment of [`network`] at a time.
    fn who(&self, address: &str, at: Timestamp) -> Option<VmHistory> {
        let inventory = self.sources.view().inventory.load();
        let domains = ["default".to_owned()];
        let segment = vmprobe::inventory::Segment::parse("default/vxlan/4242", &domains)?;
        let space = inventory.spaces().at(segment, at);
        let (address, version) = Address::of_ip(address.parse().expect("an address"));
        let vm = inventory.resolve(space, address, version, None, at)?;
        inventory.vm(vm).cloned()
    }
}

fn broker(test: &str) -> Option<Broker> {
    let broker = Broker::start();
    if broker.is_none() {
        missing(test, &["rabbitmq-server"], PACKAGES);
    }
    broker
}

#[test]
fn what_a_cloud_says_is_known() {
    let Some(broker) = broker("what_a_cloud_says_is_known") else { return };
    let url = format!("amqp://127.0.0.1:{}", broker.port);
    let cloud = Cloud::new(std::slice::from_ref(&url), "message_bytes_max = 100000");
    let none = "no exchange of these is there yet: nova, neutron, openstack";
    cloud.soon("the missing exchanges are said", || {
        cloud.health().last_error.filter(|error| error.contains(none))
    });
    let services = Publisher::new(&broker, &["nova", "neutron"]);
    cloud.live();

    let start = wall_clock() - 60_000_000_000;
    let after = |seconds: u64| start + seconds * 1_000_000_000;
    let neutron = |event: &str, second, payload: &Json| {
        services.publish("neutron", KEY, &message(event, after(second), payload));
    };
    let nova = |key: &str, event: &str, second, payload: &Json| {
        services.publish("nova", key, &message(event, after(second), payload));
    };
    neutron("network.create.end", 0, &network());
    neutron("port.update.end", 1, &port(1, "10.0.0.5"));
    let versioned = "versioned_notifications.info";
    nova(versioned, "instance.create.end", 2, &instance("host1", "active"));
    // What is not theirs, too large, not JSON, not whole: counted, and nothing else happens.
    neutron("port.create.end", 3, &json!({"port": {"id": 7}}));
    services.publish("neutron", KEY, b"{\"oslo.version\": \"2.0\", \"oslo.message\": \"{\"}");
    services.publish("neutron", KEY, &vec![b' '; 200_000]);
    neutron("security_group.create.end", 3, &json!({"security_group": {}}));
    let mut of_tomorrow = instance("host9", "active");
    of_tomorrow["nova_object.version"] = "7.0".into();
    nova(versioned, "instance.power_on.end", 4, &of_tomorrow);
    nova(versioned, "instance.live_migration_post_dest.end", 20, &instance("host2", "active"));
    neutron("port.update.end", 30, &port(1, "10.0.0.9"));

    let known = || cloud.who("10.0.0.9", after(31));
    let vm = cloud.soon("the second address is known", known);
    assert_eq!(vm.uuid_text.as_ref(), VM);
    assert_eq!(vm.host_at(after(10)).map(AsRef::as_ref), Some("host1"));
    assert_eq!(vm.host_at(after(21)).map(AsRef::as_ref), Some("host2"));
    assert_eq!(cloud.who("10.0.0.5", after(10)).map(|vm| vm.uuid), Some(vm.uuid));
    assert_eq!(cloud.who("10.0.0.5", after(31)), None);
    let reasons = [
        "payload_malformed",
        "message_not_json",
        "message_too_large",
        "event_not_used",
        "payload_version",
    ];
    for reason in reasons {
        assert_eq!(cloud.rejected(reason), 1, "{reason}");
    }
    // A router joins the segment to an address space of its own name.
    neutron("subnet.create.end", 31, &json!({"subnet": {"id": SUBNET, "network_id": NET}}));
    let interface = json!({"router_interface": {"id": ROUTER, "subnet_id": SUBNET}});
    neutron("router.interface.create", 32, &interface);
    let space = format!("router/{ROUTER}");
    let named = || cloud.sources.view().inventory.load().spaces().named(&space);
    cloud.soon("the router's space is known", named);
    nova(versioned, "instance.delete.end", 40, &instance("host2", "deleted"));
    let ended = || cloud.who("10.0.0.9", after(35)).and_then(|vm| vm.ended());
    assert_eq!(cloud.soon("the end is known", ended), Timestamp(after(40).0 / 1_000 * 1_000));
    assert_eq!(cloud.who("10.0.0.9", after(41)), None);

    // Who may not come in is told so, without the password in the text; the next broker is tried.
    let refused = Cloud::new(&[url], "queue = \"b\"\npassword = \"hunter2\"");
    let error = refused.soon("a wrong password is said", || refused.health().last_error);
    assert!(error.contains("ACCESS") && !error.contains("hunter2"), "{error}");
    let state = refused.health().state;
    assert!([SourceState::Failed, SourceState::Connecting].contains(&state), "{state:?}");
    drop(refused);

    // Inside TLS, with the right authority and with another one.
    let tls = [format!("amqps://127.0.0.1:{}", broker.tls_port)];
    let with = |queue: &str, file: &Path| {
        Cloud::new(&tls, &format!("queue = {queue:?}\nca_file = {:?}", file.display().to_string()))
    };
    with("t", &broker.ca_file()).live();
    let other = with("o", &broker.other_ca_file());
    let error = other.soon("another authority is not believed", || other.health().last_error);
    assert!(error.contains("certificate"), "{error}");
    drop(other);

    // A password in a file, and a first broker that is not there.
    std::fs::write(broker.path("password"), "guest\n").expect("a file");
    let file = format!("password_file = {:?}", broker.path("password").display().to_string());
    let urls = ["amqp://127.0.0.1:1".to_owned(), tls[0].clone()];
    let ca = format!("ca_file = {:?}", broker.ca_file().display().to_string());
    Cloud::new(&urls, &format!("queue = \"f\"\n{file}\n{ca}")).live();
}

#[test]
fn a_broker_that_is_killed_comes_back() {
    let Some(mut broker) = broker("a_broker_that_is_killed_comes_back") else { return };
    let cloud = Cloud::new(&[format!("amqp://127.0.0.1:{}", broker.port)], "");
    // Who connects again finds them, so that what it says last is of the gap.
    let services = Publisher::lasting(&broker, &["neutron"]);
    cloud.live();
    let live_ns = monotonic_ns();
    let start = wall_clock() - 600_000_000_000;
    let address = |number: u32| format!("10.0.{}.{}", number / 250, number % 250 + 1);
    // One port each, with its own address.
    let say = |services: &Publisher, number: u32| {
        let at = start + u64::from(number) * 1_000_000;
        let port = port(number, &address(number));
        services.publish("neutron", KEY, &message("port.create.end", at, &port));
    };
    services.publish("neutron", KEY, &message("network.create.end", start, &network()));
    let interfaces = || {
        let inventory = cloud.sources.view().inventory.load();
        let (_, entry) = inventory.entries().next()?;
        Some(entry.history.interfaces.len())
    };
    for number in 0..20 {
        say(&services, number);
    }
    cloud.soon("all of before", || interfaces().filter(|count| *count == 20));
    let before = cloud.health();
    assert_eq!(before.connections, 1);
    // The broker's own tables reach the disk up to 2 s later; killed before, it would not know the queue.
    sleep_ms((live_ns + 3_000_000_000).saturating_sub(monotonic_ns()) / 1_000_000);

    // Killed while a stream of messages is under way.
    for number in 20..40 {
        say(&services, number);
    }
    broker.kill();
    drop(services);
    cloud.soon("the loss is seen", || (cloud.health().state != SourceState::Live).then_some(()));
    assert!(interfaces() >= Some(20), "what was said still counts");
    broker.run();
    let services = Publisher::lasting(&broker, &["neutron"]);
    cloud.live();
    let health = cloud.health();
    assert_eq!(health.connections, 2);
    let error = health.last_error.expect("the gap is said");
    assert!(error.contains("connected again after"), "{error}");
    assert!(health.since_ns > before.since_ns);
    for number in 40..60 {
        say(&services, number);
    }
    let last = || cloud.who("10.0.0.60", start + 60_000_000);
    let vm = cloud.soon("what comes after is heard", last);
    // The broker had confirmed all, so all survived it: each port once, with its address, since its time and
    // still, whether it was delivered once or twice.
    let found: Vec<_> = vm
        .interfaces
        .iter()
        .map(|interface| {
            let [(valid, connection)] = interface.connections.spans() else {
                panic!("{interface:?}")
            };
            let port = interface.ports.at(valid.from).map(ToString::to_string);
            let addresses: Vec<_> = connection.addresses.iter().map(ToString::to_string).collect();
            (interface.id.mac.to_string(), port, addresses, *valid)
        })
        .collect();
    let wanted: Vec<_> = (0..60_u32)
        .map(|number| {
            let said = &port(number, &address(number))["port"];
            let text = |name: &str| said[name].as_str().map(str::to_owned);
            // Python writes microseconds.
            let from = Timestamp((start + u64::from(number) * 1_000_000).0 / 1_000 * 1_000);
            let valid = Interval { from, to: Interval::ALWAYS.to };
            (text("mac_address").expect("a text"), text("id"), vec![address(number)], valid)
        })
        .collect();
    assert_eq!(found, wanted);
    // What was taken and not yet acknowledged came again, and was known to.
    let rejected = cloud.health().rejected;
    assert!(rejected.keys().all(|reason| *reason == "message_repeated"), "{rejected:?}");
    assert_eq!(cloud.sources.view().status.load().conflicts, 0);
}

/// Clocks of services that are wrong: what is said ahead of the probe's clock is bounded, what is said behind
/// it counts from its own time, and both can be seen.
#[test]
fn clocks_that_run_ahead_or_behind_are_bounded_and_shown() {
    const SECOND: u64 = 1_000_000_000;
    let Some(broker) = broker("clocks_that_run_ahead_or_behind_are_bounded_and_shown") else {
        return;
    };
    let cloud = Cloud::new(&[format!("amqp://127.0.0.1:{}", broker.port)], "");
    let services = Publisher::new(&broker, &["neutron"]);
    cloud.live();
    let say = |event: &str, at, payload: &Json| {
        services.publish("neutron", KEY, &message(event, at, payload));
    };
    let start = wall_clock() - 600 * SECOND;
    say("network.create.end", start, &network());

    // Four seconds ahead, which is within clock_skew_max_ms: it is so from then on.
    let soon = wall_clock() + 4 * SECOND;
    say("port.create.end", soon, &port(1, "10.0.0.1"));
    cloud.soon("it will be so", || cloud.who("10.0.0.1", soon + SECOND));
    assert_eq!(cloud.who("10.0.0.1", soon - SECOND / 10).map(|vm| vm.uuid_text), None);
    let health = cloud.health();
    assert_eq!(health.clamped_changes, 0);
    assert!((1..=4 * SECOND).contains(&health.clock_ahead_max_ns), "{health:?}");

    // An hour ahead: it is so since the probe knows it, and each change is counted.
    let said = wall_clock();
    let ahead = said + 3_600 * SECOND;
    say("port.create.end", ahead, &port(2, "10.0.0.2"));
    let vm = cloud.soon("it counts at once", || cloud.who("10.0.0.2", wall_clock()));
    let of_second = |vm: &VmHistory| {
        let interface = vm.interfaces.iter().find(|one| one.id.mac.to_string().ends_with(":02"));
        interface.map(|one| one.connections.spans()[0].0.from).expect("it is there")
    };
    assert!((said..=wall_clock()).contains(&of_second(&vm)), "since it became known");
    let health = cloud.health();
    // Attached, port, addresses, segment, host, tenant.
    assert_eq!(health.clamped_changes, 6);
    assert!((3_570 * SECOND..=3_600 * SECOND).contains(&health.clock_ahead_max_ns), "{health:?}");

    // An hour behind: it counts from its own time on, which says nothing else of that time; how far behind
    // it is the two times of the last change tell.
    let known_before = cloud.health().last_change_ns;
    let behind = wall_clock() - 3_600 * SECOND;
    say("port.create.end", behind, &port(3, "10.0.0.3"));
    cloud.soon("it is known", || cloud.who("10.0.0.3", wall_clock()));
    let past = behind + SECOND;
    assert_eq!(cloud.who("10.0.0.3", past).map(|vm| vm.uuid_text.to_string()).as_deref(), Some(VM));
    assert_eq!(cloud.who("10.0.0.3", behind - SECOND).map(|vm| vm.uuid_text), None);
    assert_eq!(cloud.who("10.0.0.1", past).map(|vm| vm.uuid_text), None);
    let health = cloud.health();
    let (known, valid) =
        (health.last_change_ns.expect("known"), health.last_valid_ns.expect("said"));
    assert!(Some(known) > known_before);
    assert!((3_600 * SECOND..3_630 * SECOND).contains(&(known - valid)), "{health:?}");
    assert_eq!(health.clamped_changes, 6, "the past is taken as it is");
    // What the probe knew then stays what it knew then.
    let inventory = cloud.sources.view().inventory.load().known_at(Timestamp(known - 1));
    let domains = ["default".to_owned()];
    let segment = vmprobe::inventory::Segment::parse("default/vxlan/4242", &domains).expect("one");
    let space = inventory.spaces().at(segment, past);
    let (asked, version) = Address::of_ip("10.0.0.3".parse().expect("an address"));
    assert_eq!(inventory.resolve(space, asked, version, None, past), None);

    // A service whose clock lags says that the port is gone, at a time before it came: it is gone since
    // then, as it says, and not at the time that the probe heard it.
    say("port.delete.end", behind + 10 * SECOND, &json!({"port_id": port(3, "")["port"]["id"]}));
    cloud.soon("it is gone", || cloud.who("10.0.0.3", wall_clock()).is_none().then_some(()));
    assert!(cloud.who("10.0.0.3", past).is_some());
    assert_eq!(cloud.who("10.0.0.3", behind + 11 * SECOND).map(|vm| vm.uuid_text), None);
}
