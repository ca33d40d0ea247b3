//! The source of databases of Open vSwitch against a real `ovsdb-server`: through a unix socket, TCP and
//! TLS, through its death and its return, and as old servers answer.
//!
//! A double takes its place only for faults that a real server cannot be made to show (`faults`).

mod double;
mod faults;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmprobe::config::{OvsdbHost, OvsdbPlan, OvsdbRemote};
use vmprobe::inventory::{SourceState, Uuid};
use vmprobe::sources::ovsdb::Mirrored::{Elsewhere, Fully, No};
use vmprobe::time::sleep_ms;
use vmprobe_tests::end_to_end::{OvsdbServer, Storage, authority, certificate, missing};

use double::Double;
use watch::Watch;

const VM: Uuid = Uuid(0x5e8f_7f3a_6d6b_4b55_9a0e_3a2f_6b1c_0d01);

/// A server, if one can be had here.
fn server(test: &str, storage: Storage) -> Option<OvsdbServer> {
    let lacks = OvsdbServer::lacks();
    if !lacks.is_empty() {
        missing(test, &lacks, "openvswitch-switch openssl");
        return None;
    }
    let server = OvsdbServer::start(storage);
    server.set(&["set", "open_vswitch", ".", "external_ids:hostname=h0"]);
    for (bridge, host) in [("br1", "h1"), ("br2", "h2")] {
        let hostname = format!("external_ids:hostname={host}");
        server.set(&["add-br", bridge, "--", "set", "bridge", bridge, &hostname]);
    }
    server.set(&["add-br", "br0"]);
    Some(server)
}

fn local(port: u16) -> OvsdbHost {
    OvsdbHost { host: "127.0.0.1".to_owned(), port }
}

fn over_unix(server: &OvsdbServer) -> OvsdbPlan {
    OvsdbPlan::new("a".to_owned(), OvsdbRemote::Unix(server.path("db.sock")))
}

fn over_tcp(port: u16) -> OvsdbPlan {
    OvsdbPlan::new("a".to_owned(), OvsdbRemote::Tcp(local(port)))
}

fn over_tls(server: &OvsdbServer) -> OvsdbPlan {
    OvsdbPlan {
        ca_file: Some(server.path("ca.pem")),
        certificate_file: Some(server.path("probe.pem")),
        key_file: Some(server.path("probe-key.pem")),
        ..OvsdbPlan::new("a".to_owned(), OvsdbRemote::Tls(local(server.tls_port)))
    }
}

/// Plugs a VM in as hypervisors do.
fn plug(server: &OvsdbServer, bridge: &str, port: &str, vm: Uuid, more: &[&str]) {
    let [.., low] = vm.0.to_be_bytes();
    let keys = [
        format!("external_ids:attached-mac=\"02:00:00:00:00:{low:02x}\""),
        format!("external_ids:iface-id=id-{port}"),
        format!("external_ids:vm-id={vm}"),
        "external_ids:iface-status=active".to_owned(),
    ];
    let mut all = vec!["add-port", bridge, port];
    all.extend(more);
    all.extend(["--", "set", "interface", port]);
    all.extend(keys.iter().map(String::as_str));
    server.set(&all);
}

/// A VM comes, changes its VLAN, moves to another host, and goes.
fn is_followed(server: &OvsdbServer, plan: &OvsdbPlan) {
    let mut watch = Watch::start(plan);
    watch.until_live(1);
    plug(server, "br1", "p1", VM, &["tag=10"]);
    let facts = |host: &str, port, vlan| {
        [
            format!("host={host}"),
            "attached=true".to_owned(),
            format!("segment=default/vlan/{vlan}"),
            format!("port=id-{port}"),
            format!("switch={host}/{}", host.replace('h', "br")),
        ]
    };
    let until = |watch: &mut Watch, facts: [String; 5]| {
        watch.until_facts(VM, &facts.each_ref().map(String::as_str));
    };
    until(&mut watch, facts("h1", "p1", 10));
    server.set(&["set", "port", "p1", "tag=20"]);
    until(&mut watch, facts("h1", "p1", 20));
    // As in a migration: it is there for a while on both.
    plug(server, "br2", "p2", VM, &["tag=20"]);
    until(&mut watch, facts("h2", "p2", 20));
    server.set(&["del-port", "p1"]);
    server.set(&["set", "interface", "p2", "external_ids:vm-name=web"]);
    let named = [
        "name=web",
        "host=h2",
        "attached=true",
        "segment=default/vlan/20",
        "port=id-p2",
        "switch=h2/br2",
    ];
    watch.until_facts(VM, &named);
    server.set(&["set", "interface", "p2", "external_ids:iface-status=inactive"]);
    watch.until_facts(VM, &[]);
    server.set(&["set", "interface", "p2", "external_ids:iface-status=active"]);
    watch.until_facts(VM, &named);
    server.set(&["del-port", "p2"]);
    watch.until_facts(VM, &[]);
    assert_eq!(watch.batches.iter().filter(|all| **all).count(), 1, "everything was said once");
    assert!(watch.end() < 2_000, "it ends at once");
}

#[test]
fn vms_are_followed_over_a_unix_socket() {
    let Some(server) = server("vms_are_followed_over_a_unix_socket", Storage::Alone) else {
        return;
    };
    is_followed(&server, &over_unix(&server));
}

#[test]
fn vms_are_followed_over_tcp() {
    let Some(server) = server("vms_are_followed_over_tcp", Storage::Alone) else { return };
    is_followed(&server, &over_tcp(server.tcp_port));
}

#[test]
fn vms_are_followed_inside_tls() {
    let Some(server) = server("vms_are_followed_inside_tls", Storage::Alone) else { return };
    is_followed(&server, &over_tls(&server));
}

#[test]
fn old_servers_are_followed() {
    let Some(server) = server("old_servers_are_followed", Storage::Alone) else { return };
    for unknown in [["monitor_cond_since"].as_slice(), &["monitor_cond_since", "monitor_cond"]] {
        let relay = Double::relay(server.tcp_port, unknown);
        is_followed(&server, &over_tcp(relay.port));
    }
}

#[test]
fn certificates_are_checked() {
    let Some(mut server) = server("certificates_are_checked", Storage::Alone) else { return };
    authority(&server.folder, "other");
    let refuses = |plan: OvsdbPlan, why: &str| {
        let mut watch = Watch::start(&plan);
        watch.until_failed(why);
        assert_eq!((watch.vms(), watch.health().connections), (vec![], 0));
    };
    let plan = over_tls(&server);
    let other = Some(server.path("other.pem"));
    refuses(OvsdbPlan { ca_file: other.clone(), ..plan.clone() }, "UnknownIssuer");
    // Without a name to check, the authority still counts.
    refuses(OvsdbPlan { ca_file: other, check_name: false, ..plan.clone() }, "UnknownIssuer");
    let named = |name: &str| OvsdbPlan { server_name: Some(name.to_owned()), ..plan.clone() };
    refuses(named("switch.example"), "not valid for name");
    // The server wants to know who asks.
    refuses(OvsdbPlan { certificate_file: None, key_file: None, ..plan.clone() }, "ertificate");
    let nowhere = Some(server.path("nowhere.pem"));
    refuses(OvsdbPlan { ca_file: nowhere, ..plan.clone() }, "nowhere.pem");
    Watch::start(&named("localhost")).until_live(1);
    // As Open vSwitch's own tools make them: without a name.
    server.kill();
    certificate(&server.folder, "ca", "server", "basicConstraints=CA:FALSE");
    server.resume();
    refuses(plan.clone(), "not valid for ");
    Watch::start(&OvsdbPlan { check_name: false, ..plan }).until_live(1);
}

#[test]
fn mirrors_cover_interfaces() {
    let Some(server) = server("mirrors_cover_interfaces", Storage::Alone) else { return };
    plug(&server, "br1", "p1", VM, &["tag=10"]);
    plug(&server, "br1", "p2", Uuid(VM.0 + 1), &["tag=10"]);
    server.set(&["add-port", "br1", "out"]);
    let mut watch = Watch::start(&over_unix(&server));
    let until = |watch: &mut Watch, expected: [_; 2]| {
        watch.until(&format!("{expected:?}"), |watch| {
            let mut list = watch.coverage().list.clone();
            list.sort_by(|one, other| one.port.cmp(&other.port));
            let found: Vec<_> = list.iter().map(|found| (found.sent, found.received)).collect();
            found == expected
        });
    };
    until(&mut watch, [(No, No); 2]);
    let get = |port, id| ["--", id, "get", "port", port];
    let create = ["--", "--id=@m", "create", "mirror", "name=m0", "select-src-port=@p"];
    let rest = ["output-port=@o", "--", "set", "bridge", "br1", "mirrors=@m"];
    let made = [&get("p1", "--id=@p")[..], &get("out", "--id=@o"), &create, &rest].concat();
    server.set(&made);
    until(&mut watch, [(Fully, No), (No, No)]);
    let coverage = watch.coverage();
    assert_eq!(coverage.mirrors[0].output_port.as_deref(), Some("out"));
    assert_eq!(coverage.interfaces["one_direction"], 1);
    assert_eq!(
        coverage.list.iter().find(|found| found.port == "p1").map(|found| found.mirrors.len()),
        Some(1)
    );
    let p2 = server.set(&["get", "port", "p2", "_uuid"]);
    server.set(&["add", "mirror", "m0", "select_src_port", p2.trim()]);
    // The bridge's own port may send to both.
    until(&mut watch, [(Fully, No), (Fully, No)]);
    let own = server.set(&["get", "port", "br1", "_uuid"]);
    server.set(&["add", "mirror", "m0", "select_src_port", own.trim()]);
    until(&mut watch, [(Fully, Elsewhere); 2]);
    server.set(&["set", "mirror", "m0", "select_all=true", "snaplen=96"]);
    until(&mut watch, [(Fully, Fully); 2]);
    assert_eq!(watch.coverage().list[0].snap_octets, Some(96));
    server.set(&["set", "mirror", "m0", "select_vlan=20"]);
    until(&mut watch, [(No, No); 2]);
    server.set(&["set", "mirror", "m0", "select_vlan=10", "--", "del-port", "out"]);
    until(&mut watch, [(No, No); 2]);
    assert!(watch.coverage().mirrors[0].without_output);
    server.set(&["set", "mirror", "m0", "output_vlan=99"]);
    until(&mut watch, [(Fully, Fully); 2]);
    server.set(&["clear", "bridge", "br1", "mirrors"]);
    until(&mut watch, [(No, No); 2]);
}

#[test]
fn a_server_that_dies_leaves_a_gap_and_no_lies() {
    let name = "a_server_that_dies_leaves_a_gap_and_no_lies";
    let Some(mut server) = server(name, Storage::Alone) else { return };
    let vm = |number: u128| Uuid(VM.0 + number);
    plug(&server, "br1", "stays", vm(100), &[]);
    plug(&server, "br1", "goes", vm(101), &[]);
    let plan = OvsdbPlan { retry_max_ms: 1_000, ..over_unix(&server) };
    let mut watch = Watch::start(&plan);
    watch.until_live(1);
    watch.until("both", |watch| watch.vms() == [vm(100), vm(101)]);
    for round in 0..3 {
        let before = watch.health().connections;
        let stop = Arc::new(AtomicBool::new(false));
        // Ports come and go while the server dies; many of these changes fail.
        let changes = {
            let (stop, folder) = (Arc::clone(&stop), server.path("db.sock"));
            std::thread::spawn(move || change_ports(&folder, &stop))
        };
        watch.until("some of it", |watch| watch.vms().len() > 3);
        server.kill();
        stop.store(true, Ordering::Relaxed);
        changes.join().expect("it does not panic");
        watch.until_failed("");
        // What it had said by then waits.
        while watch.hears(0) {}
        let known = watch.vms();
        // Nothing is said of what nobody can know.
        let batches = watch.batches.len();
        watch.listen(1_500);
        assert_eq!((watch.vms(), watch.batches.len()), (known, batches));
        assert!(!watch.coverage().live);
        // What happens while nobody looks.
        if round == 0 {
            server.change_file(
                r#"["Open_vSwitch",{"op":"update","table":"Interface","where":[["name","==","goes"]],
                "row":{"external_ids":["map",[]]}}]"#,
            );
        }
        server.resume();
        watch.until_live(before + 1);
        assert!(watch.coverage().live);
        let error = watch.health().last_error.unwrap_or_default();
        assert!(error.starts_with("there was no connection for "), "{error}");
        let real = plugged(&server);
        watch.until("what is", |watch| watch.vms() == real);
        assert!(real.contains(&vm(100)) && !real.contains(&vm(101)));
        for port in server.set(&["list-ports", "br2"]).lines() {
            server.set(&["del-port", port]);
        }
        watch.until("only the one that stays", |watch| watch.vms() == [vm(100)]);
    }
}

/// Plugs VMs in and out at `br2`, each for a short while, until it is told to stop.
fn change_ports(socket: &std::path::Path, stop: &AtomicBool) {
    let database = format!("--db=unix:{}", socket.display());
    for number in (0_u128..50).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (port, old) = (format!("x{number}"), format!("x{}", (number + 40) % 50));
        let uuid = Uuid(VM.0 + 1_000 + number);
        let mac = format!("external_ids:attached-mac=\"02:00:00:00:01:{number:02x}\"");
        let vm = format!("external_ids:vm-id={uuid}");
        let mut command = std::process::Command::new("ovs-vsctl");
        command.args([&database, "--no-wait", "--timeout=2"]);
        command.args(["--may-exist", "add-port", "br2", &port, "--", "set", "interface", &port]);
        command.args([&mac, &vm, "--", "--if-exists", "del-port", "br2", &old]);
        let _ = command.stderr(std::process::Stdio::null()).status();
    }
}

/// VMs that the database itself says are plugged in, in order.
fn plugged(server: &OvsdbServer) -> Vec<Uuid> {
    let columns = ["--format=csv", "--no-heading", "--columns=external_ids", "list", "interface"];
    let text = server.set(&columns);
    let ids = text.lines().filter_map(|line| line.split("vm-id=").nth(1));
    let mut vms: Vec<Uuid> = ids
        .map(|rest| rest.trim_start_matches('"'))
        .map(|rest| rest.get(..36).and_then(|uuid| uuid.parse().ok()).expect("a UUID"))
        .collect();
    vms.sort_unstable();
    vms
}

#[test]
fn a_cluster_goes_on_where_it_was_left() {
    let Some(server) = server("a_cluster_goes_on_where_it_was_left", Storage::Cluster) else {
        return;
    };
    plug(&server, "br1", "p1", VM, &["tag=10"]);
    let relay = Double::relay(server.tcp_port, &[]);
    let mut watch = Watch::start(&over_tcp(relay.port));
    watch.until_live(1);
    watch.until("the first", |watch| watch.vms() == [VM]);
    relay.cut();
    watch.until_failed("closed");
    plug(&server, "br1", "p2", Uuid(VM.0 + 1), &["tag=10"]);
    watch.until_live(2);
    watch.until("the second", |watch| watch.vms() == [VM, Uuid(VM.0 + 1)]);
    assert_eq!(watch.batches, [true, false], "only what is new was said");
}

#[test]
fn two_switches_are_two_sources() {
    let test = "two_switches_are_two_sources";
    let (Some(one), Some(other)) = (server(test, Storage::Alone), server(test, Storage::Alone))
    else {
        return;
    };
    let mut first = Watch::start(&OvsdbPlan { host: Some("left".to_owned()), ..over_unix(&one) });
    let east = OvsdbPlan { domain: 1, host: Some("right".to_owned()), ..over_tcp(other.tcp_port) };
    let mut second = Watch::start(&east);
    plug(&one, "br0", "p", VM, &["tag=7"]);
    plug(&other, "br0", "p", VM, &["tag=7"]);
    first.until_facts(
        VM,
        &["host=left", "attached=true", "segment=default/vlan/7", "port=id-p", "switch=left/br0"],
    );
    second.until_facts(
        VM,
        &["host=right", "attached=true", "segment=east/vlan/7", "port=id-p", "switch=right/br0"],
    );
}

#[test]
fn an_idle_server_is_heard_by_its_echo() {
    let Some(server) = server("an_idle_server_is_heard_by_its_echo", Storage::Alone) else {
        return;
    };
    let plan = OvsdbPlan { echo_ms: 200, stale_after_ms: 1_000, ..over_tcp(server.tcp_port) };
    let mut watch = Watch::start(&plan);
    watch.until_live(1);
    for _ in 0..30 {
        sleep_ms(100);
        assert_eq!(watch.health().state, SourceState::Live);
    }
    assert_eq!(watch.health().connections, 1);
}
