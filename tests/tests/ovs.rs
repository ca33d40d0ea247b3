//! Network namespaces as virtual machines on an Open vSwitch, mirrored into `vmprobe run`.
//!
//! Real ping, curl and iperf3 traffic. What the probe counted for each VM is what the VM's own
//! interface sent: frames, and octets but for ARP, which is a cause in the ledger and no IP.
#![cfg(feature = "dpdk")]
#![expect(clippy::disallowed_types, reason = "tests wait for one another")]

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;
use vmprobe::time::sleep_ms;
use vmprobe_tests::end_to_end::{
    Counters, DataPath, Ended, Folder, HugePages, Ledger, Namespace, Probe, Switch, is_root,
    missing, missing_tools, port, skipped, too_long, until, vmprobe,
};
use vmprobe_tests::records::{Row, rows, sum};

/// Octets of an ARP frame on a wire that pads nothing.
const ARP_OCTETS: u64 = 42;
/// Size of the page that curl fetches.
const PAGE_OCTETS: usize = 100_000;
/// What they come with.
const PACKAGES: &str = "iproute2 ethtool iputils-ping curl iperf3 python3 openvswitch-switch-dpdk";
const TOOLS: [&str; 8] =
    ["ip", "ethtool", "ovs-vsctl", "ovsdb-server", "ping", "curl", "iperf3", "python3"];

#[test]
fn mirror_to_a_port() {
    let Some(cloud) = Cloud::new("mirror_to_a_port", DataPath::Plain) else { return };
    cloud.wire_mirror();
    cloud.switch.set(&["add-port", "br0", "mirror"]);
    cloud.switch.mirror_to_port("mirror");
    // The tenants' tag is still there and names the segment.
    cloud.check(&cloud.watch("net_af_packet0,iface=tap", ""));
}

#[test]
fn mirror_by_rspan_vlan() {
    let Some(cloud) = Cloud::new("mirror_by_rspan_vlan", DataPath::Plain) else { return };
    cloud.wire_mirror();
    cloud.switch.set(&["add-port", "br0", "mirror", "trunks=99"]);
    cloud.switch.set(&["set", "bridge", "br0", "flood-vlans=99"]);
    cloud.switch.mirror_to_vlan(99);
    // RSPAN has replaced the tenant's tag: the segment comes from the inventory, by MAC address.
    cloud.check(
        &cloud.watch(
            "net_af_packet0,iface=tap",
            "[[tap]]\nname = \"rspan\"\nmatch = { vlan = 99 }\n",
        ),
    );
}

#[test]
fn mirror_by_ovs_dpdk_over_memif() {
    let name = "mirror_by_ovs_dpdk_over_memif";
    if too_long(name) {
        return;
    }
    if !is_root() {
        skipped(name, "needs root for huge pages");
        return;
    }
    let Some(pages) = HugePages::reserve(256) else {
        skipped(name, "256 huge pages of 2 MiB cannot be had");
        return;
    };
    let path = DataPath::Dpdk(pages.folder());
    let Some(cloud) = Cloud::new(name, path) else { return };
    let socket = cloud.switch.folder.path("memif.sock").display().to_string();
    let server = format!(
        "options:dpdk-devargs=net_memif0,role=server,id=0,socket={socket},socket-abstract=no"
    );
    let interface = ["--", "set", "interface", "mirror", "type=dpdk", &server];
    cloud.switch.set(&[&["add-port", "br0", "mirror"][..], &interface].concat());
    cloud.switch.mirror_to_port("mirror");
    let client = format!("net_memif0,role=client,id=0,socket={socket},socket-abstract=no");
    cloud.check(&cloud.watch(&client, ""));
}

/// A switch with DPDK and a probe take a core each.
static CORES: Mutex<()> = Mutex::new(());

/// Two VMs on a switch.
struct Cloud {
    vms: [Vm; 2],
    switch: Switch,
    folder: Folder,
    _cores: MutexGuard<'static, ()>,
}

struct Vm {
    name: &'static str,
    mac: &'static str,
    address: &'static str,
    namespace: Namespace,
}

/// What a probe said about a cloud, and what the VMs sent meanwhile.
struct Watched {
    ended: Ended,
    sent: [Counters; 2],
    conversations: Json,
}

impl Cloud {
    fn new(name: &str, path: DataPath<'_>) -> Option<Self> {
        if too_long(name) {
            return None;
        }
        if !is_root() {
            skipped(name, "needs root for network namespaces");
            return None;
        }
        let mut tools = missing_tools(&TOOLS);
        tools.extend(Switch::lacks(path));
        if !tools.is_empty() {
            missing(name, &tools, PACKAGES);
            return None;
        }
        let cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
        let switch = Switch::start(path);
        let vm = |name, mac, address: &'static str| {
            let namespace = Namespace::new(name);
            let port = format!("to-{name}");
            switch.namespace.wire(&port, &namespace, "eth0");
            namespace.ip(&["link", "set", "eth0", "address", mac]);
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"]);
            switch.set(&["add-port", "br0", &port, "tag=10"]);
            Vm { name, mac, address, namespace }
        };
        let vms =
            [vm("web", "02:00:00:00:0a:01", "10.1.0.1"), vm("db", "02:00:00:00:0a:02", "10.1.0.2")];
        Some(Self { vms, switch, folder: Folder::new("cloud"), _cores: cores })
    }

    /// The pair of interfaces that carries the mirror: `mirror` at the switch, `tap` at the probe.
    fn wire_mirror(&self) {
        self.switch.namespace.wire("mirror", &self.switch.namespace, "tap");
    }

    /// Runs a probe on `device` while the VMs talk.
    fn watch(&self, device: &str, taps: &str) -> Watched {
        self.folder.write("inventory.toml", self.inventory());
        let config = self.folder.write("vmprobe.toml", self.configuration(device, taps));
        let mut command = self.switch.namespace.command(vmprobe());
        command.args(["run", "--json", "--seconds", "60", "-c"]).arg(config);
        let mut probe = Probe::start(command);
        let page = probe.receiving().expect("the page is on");
        self.switch.sends_through("mirror");
        let before = self.counters();
        self.talk();
        let conversations = self.ask(&page);
        // What is on its way arrives.
        sleep_ms(1_000);
        let after = self.counters();
        probe.terminate();
        let ended = probe.end(30);
        assert_eq!(after, self.counters(), "VMs are silent at the end");
        let sent = [after[0].since(before[0]), after[1].since(before[1])];
        Watched { ended, sent, conversations }
    }

    fn counters(&self) -> [Counters; 2] {
        [0, 1].map(|place: usize| self.vms[place].namespace.counters("eth0"))
    }

    /// Real programs: ping, then a page by HTTP, then bulk both ways, over TCP and over UDP.
    fn talk(&self) {
        let [web, db] = &self.vms;
        web.namespace.run("ping", &["-c", "5", "-i", "0.2", db.address]);
        let folder = self.folder.root().display().to_string();
        fs::write(self.folder.path("page"), vec![b'x'; PAGE_OCTETS]).expect("a file");
        let mut command = db.namespace.command("python3");
        command.args(["-m", "http.server", "8000", "--bind", db.address, "--directory", &folder]);
        let _server = Probe::start(command);
        let url = format!("http://{}:8000/page", db.address);
        let fetch = ["--silent", "--show-error", "--retry", "20", "--retry-connrefused"];
        let to = ["--retry-delay", "1", "--output", "/dev/null", "--write-out", "%{size_download}"];
        let got = web.namespace.run("curl", &[&fetch[..], &to, &[&url]].concat());
        assert_eq!(got, PAGE_OCTETS.to_string());

        let mut command = db.namespace.command("iperf3");
        command.args(["--server", "--bind", db.address]);
        let _sink = Probe::start(command);
        let client = ["--client", db.address, "--connect-timeout", "5000", "--time", "2"];
        let up = until(20, || {
            let listening = db.namespace.run("ss", &["-H", "-l", "-t", "-n", "sport = :5201"]);
            (!listening.is_empty()).then_some(())
        });
        assert!(up.is_some(), "iperf3 does not listen");
        for rest in [["--bitrate", "10M"].as_slice(), &["--bitrate", "2M", "--udp"]] {
            web.namespace.run("iperf3", &[&client[..], rest].concat());
        }
    }

    /// The conversations of the newest window that has some, from inside of the probe's namespace.
    fn ask(&self, page: &str) -> Json {
        let url = format!("http://{page}/api/v1/live");
        let text = self.switch.namespace.run("curl", &["--silent", "--show-error", &url]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn check(&self, watched: &Watched) {
        let report = watched.ended.expect(0, &[]).json();
        let ledger = Ledger::even(&report);
        let records = self.folder.path("records");
        let windows = rows(&records, "windows");
        let sent: u64 = watched.sent.iter().map(|sent| sent.sent_packets).sum();
        let of_port = |counter| port(&report, "mirror", counter);
        assert_eq!(of_port("received"), ledger.received, "{report}");
        // The mirror copies each packet once, and the port misses none at this rate.
        assert_eq!(sent, ledger.received + of_port("missed"), "{report}");
        assert_eq!((ledger.of("duplicate"), of_port("missed")), (0, 0), "{report}");
        let arp: u64 =
            (0..2).map(|place| self.check_vm(place, &watched.sent[place], &windows)).sum();
        assert_eq!(arp, ledger.of("not_ip_arp"), "{report}");
        assert_eq!(ledger.accounted, sent - arp, "{report}");
        assert!(arp >= 2, "somebody asked and somebody answered");
        self.check_conversations(&windows);
        check_page(&watched.conversations);
    }

    /// Compares what a VM sent with what was seen of it; the answer is how many ARP frames it sent.
    fn check_vm(&self, place: usize, sent: &Counters, windows: &[Row]) -> u64 {
        let name = self.vms[place].name;
        let as_source = |row: &Row| row["source_virtual_station_name"] == name;
        let as_destination = |row: &Row| row["destination_virtual_station_name"] == name;
        let sent_by_it = |column: &str| {
            sum(windows, column, as_source)
                + sum(windows, &format!("reverse_{column}"), as_destination)
        };
        let packets = sent_by_it("packet_delta_count");
        let arp = sent.sent_packets.checked_sub(packets).expect("not more was seen than sent");
        let frame_octets = sent_by_it("layer2_octet_delta_count") + arp * ARP_OCTETS;
        assert_eq!(frame_octets, sent.sent_octets, "octets of {name}, {arp} ARP frames");
        let headers = 14 * packets;
        assert_eq!(
            sent_by_it("octet_delta_count") + headers,
            sent_by_it("layer2_octet_delta_count"),
            "{name}"
        );
        arp
    }

    fn check_conversations(&self, windows: &[Row]) {
        for row in windows {
            assert_eq!(row["segment"], "default/vlan/10", "{row:?}");
            assert_eq!(row["traffic_class"], "east_west", "{row:?}");
            for side in ["source", "destination"] {
                assert_eq!(row[&format!("{side}_virtual_station_tenant")], "acme", "{row:?}");
            }
        }
        let [web, db] = &self.vms;
        for (protocol, port, octets_min) in [
            (1, 0, 5 * 84),
            (6, 8000, PAGE_OCTETS as u64),
            (6, 5201, 1_000_000),
            (17, 5201, 200_000),
        ] {
            let chosen = |row: &Row| {
                row["protocol_identifier"] == protocol
                    && (protocol == 1 || row["destination_port"] == port)
                    && row["source_virtual_station_name"] == web.name
                    && row["destination_virtual_station_name"] == db.name
                    && row["source_address"] == web.address
            };
            let octets = sum(windows, "octet_delta_count", chosen)
                + sum(windows, "reverse_octet_delta_count", chosen);
            assert!(octets >= octets_min, "protocol {protocol} port {port}: {octets} octets");
        }
    }

    fn inventory(&self) -> String {
        let vm = |(place, vm): (usize, &Vm)| {
            format!(
                "[[vm]]\nuuid = \"5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d0{place}\"\nname = \"{}\"\n\
                 tenant = \"acme\"\n[[vm.interface]]\nmac = \"{}\"\naddresses = [\"{}\"]\n\
                 segment = \"default/vlan/10\"\n",
                vm.name, vm.mac, vm.address
            )
        };
        let vms: String = self.vms.iter().enumerate().map(vm).collect();
        format!("[[tenant]]\nname = \"acme\"\n{vms}")
    }

    fn configuration(&self, device: &str, taps: &str) -> String {
        let prefix = self.folder.name();
        format!(
            r#"
[eal]
memory_mib = 128
huge_pages = false
file_prefix = "{prefix}"
[[port]]
name = "mirror"
device = "{device}"
mbufs = 8191
{taps}
[flow]
slots_per_worker = 16384
[window]
rows_max = 16384
[inventory]
file = "inventory.toml"
[store]
folder = "records"
[serve]
listen = "127.0.0.1:0"
"#
        )
    }
}

fn check_page(live: &Json) {
    let conversations = live["top_conversations"].as_array().expect("a list");
    let named = conversations.iter().any(|row| {
        row["source_virtual_station_name"] == "web"
            && row["destination_virtual_station_name"] == "db"
    });
    assert!(named, "the page names both VMs: {live}");
    assert_eq!(live["ledger"]["unaccounted"], 0, "{live}");
}
