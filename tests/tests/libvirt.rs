//! libvirt's own test driver, in a file and in a daemon, as a source of the inventory; what VMs use, beside
//! what they send.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use vmprobe::config::{self, Mode};
use vmprobe::export::ParquetSink;
use vmprobe::inventory::{SourceHealth, SourceState, VmHistory};
use vmprobe::record::{InventoryRecord, Rows, VmUsageRecord, WindowRecord};
use vmprobe::sources::{Prepared, Sources};
use vmprobe::time::{Timestamp, wall_clock};
use vmprobe_tests::end_to_end::{NOT_BUILT, missing, missing_tools, query, skipped, until};
use vmprobe_tests::libvirtd::{Libvirtd, PACKAGES, TOOLS};

/// The domain that the test driver always has.
const TEST: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
const WEB: &str = "9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01";
/// A domain as Nova describes it.
const DOMAIN: &str = "<domain type='test'>
  <name>instance-0000001a</name>
  <uuid>9f6c6d0e-3a35-4c35-9f0c-8a7e1f6b2c01</uuid>
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:name>web &amp; db</nova:name>
      <nova:owner>
        <nova:user uuid='u1'>admin</nova:user>
        <nova:project uuid='p1'>acme</nova:project>
      </nova:owner>
    </nova:instance>
  </metadata>
  <memory>524288</memory>
  <vcpu>1</vcpu>
  <os><type>hvm</type></os>
  <devices>
    <interface type='bridge'>
      <mac address='fa:16:3e:00:00:01'/>
      <source bridge='br-int'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='c1a7b1f2-6a55-4d7e-8b86-0f2e1d3c4b01'/>
      </virtualport>
      <target dev='tapc1a7b1f2-6a'/>
      <vlan><tag id='42'/></vlan>
    </interface>
  </devices>
</domain>
";

struct Host {
    sources: Sources,
}

impl Host {
    fn new(uri: &str, rest: &str) -> Self {
        let text = format!(
            "[[inventory.libvirt]]\nname = \"h\"\nuri = {uri:?}\nhost = \"host1\"\n\
             retry_max_ms = 1000\nusage_s = 1\n{rest}\n"
        );
        let loaded = config::parse(&text, "test.toml", Path::new(""), Mode::Replay);
        let plan = Arc::new(loaded.expect("allowed").plan);
        let prepared = Prepared::new(&plan, false, &Arc::default()).expect("no file");
        Self { sources: prepared.start() }
    }

    fn health(&self) -> SourceHealth {
        self.sources.view().status.load().sources.first().expect("one source").clone()
    }

    fn soon<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        until(20, check).unwrap_or_else(|| panic!("{what}: {:?}", self.health()))
    }

    fn live(&self) {
        self.soon("live", || (self.health().state == SourceState::Live).then_some(()));
    }

    fn vm(&self, uuid: &str) -> Option<VmHistory> {
        let inventory = self.sources.view().inventory.load();
        let found = inventory.entries().find(|(_, entry)| entry.history.uuid_text.as_ref() == uuid);
        found.map(|(_, entry)| entry.history.clone())
    }

    /// Where it runs now.
    fn host(&self, uuid: &str) -> Option<String> {
        self.vm(uuid)?.host_at(wall_clock()).map(ToString::to_string)
    }
}

#[test]
fn domains_of_a_daemon_are_followed() {
    let Some(mut daemon) = Libvirtd::start() else {
        missing("domains_of_a_daemon_are_followed", &TOOLS, PACKAGES);
        return;
    };
    let host = Host::new(&daemon.uri(), "");
    host.live();
    let on_host1 = |uuid: &'static str| {
        let host = &host;
        move || host.host(uuid).filter(|name| name == "host1")
    };
    host.soon("the domain that is always there", on_host1(TEST));

    // All of this comes by events, long before read_s.
    let file = daemon.file("web.xml", DOMAIN);
    daemon.virsh(&["define", &file]);
    let vm = host.soon("a new domain", || host.vm(WEB));
    assert_eq!(vm.host_at(wall_clock()), None, "it does not run");
    daemon.virsh(&["start", "instance-0000001a"]);
    host.soon("it runs", on_host1(WEB));
    let vm = host.vm(WEB).expect("known");
    let now = wall_clock();
    let within = vmprobe::inventory::Interval { from: now, to: now + 1 };
    assert_eq!(vm.name_within(within).map(AsRef::as_ref), Some("web & db"));
    assert_eq!(vm.tenant_within(within).map(AsRef::as_ref), Some("acme"));
    let [interface] = vm.interfaces.as_slice() else { panic!("{:?}", vm.interfaces) };
    assert_eq!(interface.id.mac.to_string(), "fa:16:3e:00:00:01");
    let (port, connection) = (interface.ports.at(now), interface.connections.at(now));
    assert_eq!(port.map(AsRef::as_ref), Some("c1a7b1f2-6a55-4d7e-8b86-0f2e1d3c4b01"));
    let segment = connection.and_then(|connection| connection.segment);
    assert_eq!(segment.map(|segment| segment.to_string()).as_deref(), Some("vlan/42"));
    daemon.virsh(&["suspend", "instance-0000001a"]);
    daemon.virsh(&["destroy", "instance-0000001a"]);
    host.soon("it is off", || host.host(WEB).is_none().then_some(()));
    // Its past stays.
    assert_eq!(host.vm(WEB).expect("known").host_at(now).map(AsRef::as_ref), Some("host1"));
    let sample = || host.sources.usage().take().filter(|sample| sample.vm.to_string() == TEST);
    host.soon("what it uses", sample);

    // A daemon that is killed: what it said still counts, and it is found again.
    assert_eq!(host.health().connections, 1);
    daemon.kill();
    host.soon("the loss is seen", || (host.health().state != SourceState::Live).then_some(()));
    assert_eq!(host.host(TEST).as_deref(), Some("host1"));
    daemon.run();
    host.live();
    assert_eq!(host.health().connections, 2);
    let error = host.health().last_error.expect("why it was away");
    assert!(error.contains("socket"), "{error}");
    daemon.virsh(&["destroy", "test"]);
    host.soon("events come again", || host.host(TEST).is_none().then_some(()));
}

#[test]
fn domains_of_a_file_are_read() {
    let test = "domains_of_a_file_are_read";
    let folder = vmprobe_tests::folder::Folder::new("libvirt-file");
    if !missing_tools(&TOOLS).is_empty() {
        missing(test, &TOOLS, PACKAGES);
        return;
    }
    let file = folder.path("node.xml");
    std::fs::write(&file, format!("<node>{DOMAIN}</node>")).expect("a file");
    let host = Host::new(&format!("test://{}", file.display()), "");
    host.live();
    host.soon("the domain", || host.vm(WEB));
    drop(host);

    let nowhere = Host::new("test+unix:///default?socket=/nonexistent", "");
    let error = nowhere.soon("why not", || nowhere.health().last_error);
    assert!(error.contains("No such file or directory"), "{error}");
    let nothing = Host::new("test:///default", "program = \"no-such-virsh\"");
    let error = nothing.soon("why not", || nothing.health().last_error);
    assert!(error.contains("no-such-virsh does not start"), "{error}");
}

const NOON_NS: u64 = 1_700_000_000_000_000_000;
const HALF_NS: u64 = 500_000_000;

/// Counters of one VM and of its interface, by half seconds from noon: CPU time in ms, and what the host
/// dropped of what it sent and of what it was sent.
fn samples(uuid: &str, of: &[(u64, u64, [Option<u64>; 2])]) -> Vec<VmUsageRecord> {
    let mac = Some(vmprobe::inventory::Mac([2, 0, 0, 0, 0, 1]));
    let rows = of.iter().flat_map(|(at, cpu_ms, [sent, received])| {
        let row = || VmUsageRecord {
            sample_ns: NOON_NS + at * HALF_NS,
            virtual_station_uuid: uuid.into(),
            ..VmUsageRecord::default()
        };
        let (cpu, vcpus) = (Some(cpu_ms * 1_000_000), Some(2));
        let vm = VmUsageRecord {
            cpu_total_ns: cpu,
            vcpu_count: vcpus,
            memory_bytes: Some(1 << 30),
            ..row()
        };
        let interface = VmUsageRecord {
            mac,
            dropped_packet_total_count: *sent,
            reverse_dropped_packet_total_count: *received,
            ..row()
        };
        [vm, interface]
    });
    rows.collect()
}

/// Two VMs of which nobody knew then, and what one sent to the other in each of five windows of a second.
fn talk_of_two_vms() -> Rows {
    let vm = |number: u8, name: &str| InventoryRecord {
        fact_id: number.into(),
        uuid: Some(format!("00000000-0000-0000-0000-00000000000{number}").into()),
        name: Some(name.into()),
        tenant: Some("acme".into()),
        address: Some([10, 0, 0, number].into()),
        address_space: Some("default/none".into()),
        attributed: true,
        source: "file".into(),
        ..InventoryRecord::default()
    };
    let window = |number: u64| WindowRecord {
        window_start_ns: NOON_NS + 2 * number * HALF_NS,
        window_end_ns: NOON_NS + 2 * (number + 1) * HALF_NS,
        address_space: "default/none".into(),
        source_address: [10, 0, 0, 1].into(),
        destination_address: [10, 0, 0, 2].into(),
        packet_delta_count: 10,
        reverse_packet_delta_count: 4,
        octet_delta_count: 1_000,
        reverse_octet_delta_count: 200,
        ..WindowRecord::default()
    };
    Rows {
        windows: (0..5).map(window).collect(),
        inventory: vec![vm(1, "web"), vm(2, "db"), vm(3, "quiet")],
        ..Rows::default()
    }
}

/// What a VM used stands beside what it sent, window by window.
#[test]
fn usage_stands_beside_windows() {
    let folder = vmprobe_tests::folder::Folder::new("vm-windows");
    let plan = config::StorePlan {
        folder: Some(folder.root().to_owned()),
        free_mib_min: 0,
        ..config::StorePlan::default()
    };
    let mut sink = ParquetSink::new(&plan, "p1", "east").expect("a folder");
    let mut rows = talk_of_two_vms();
    let [web, quiet] = [1, 3].map(|number| format!("00000000-0000-0000-0000-00000000000{number}"));
    // The domain of `web` began anew before the last sample, whose drops its host does not say.
    rows.vm_usage = samples(
        &web,
        &[(1, 0, [Some(7), None]), (5, 2_000, [Some(11), None]), (9, 1_000, [None; 2])],
    );
    // `quiet` does not speak, and nobody asked about it for three hours.
    let samples_of_quiet =
        [(2, 0, [Some(0); 2]), (4, 500, [Some(0), Some(6)]), (4 + 6 * 3_600, 900, [Some(0); 2])];
    rows.vm_usage.extend(samples(&quiet, &samples_of_quiet));
    sink.write(rows, Timestamp(NOON_NS));
    assert!(sink.close(Timestamp(NOON_NS)), "{:?}", sink.health());

    let sql = format!(
        "SELECT (window_start_ns - {NOON_NS}) // 1_000_000_000 AS second, virtual_station_name AS name,
             virtual_station_tenant AS tenant, packet_delta_count AS sent,
             reverse_packet_delta_count AS received, octet_delta_count + reverse_octet_delta_count AS octets,
             cpu_ns / 1e6 AS cpu_ms, cpu_share, memory_bytes >> 30 AS gib, dropped_packet_count AS dropped,
             reverse_dropped_packet_count AS dropped_back, sample_interval_ns / 1e9 AS interval_s
         FROM vm_windows ORDER BY name, second"
    );
    let Some(found) = query(folder.root(), &sql) else {
        return skipped("usage stands beside windows", NOT_BUILT);
    };
    let row = |second: u64, name: &str, [sent, received, octets]: [u64; 3]| {
        json!({"second": second, "name": name, "tenant": "acme", "sent": sent, "received": received,
               "octets": octets, "cpu_ms": null, "cpu_share": null, "gib": null, "dropped": null,
               "dropped_back": null, "interval_s": null})
    };
    let used =
        |mut row: Json, cpu_ms: f64, [dropped, dropped_back]: [Option<f64>; 2], interval_s: f64| {
            row["cpu_ms"] = cpu_ms.into();
            row["cpu_share"] = (cpu_ms / 2_000.0).into();
            row["gib"] = 1.into();
            row["dropped"] = dropped.into();
            row["dropped_back"] = dropped_back.into();
            row["interval_s"] = interval_s.into();
            row
        };
    let mut expected: Vec<_> = (0..5).map(|second| row(second, "db", [4, 10, 1_200])).collect();
    expected.push(used(row(1, "quiet", [0, 0, 0]), 500.0, [Some(0.0), Some(6.0)], 1.0));
    let web = |second| row(second, "web", [10, 4, 1_200]);
    expected.push(web(0));
    expected.push(used(web(1), 1_000.0, [Some(2.0), None], 2.0));
    expected.push(used(web(2), 750.0, [None; 2], 2.0));
    expected.push(used(web(3), 500.0, [None; 2], 2.0));
    expected.push(web(4));
    assert_eq!(found, Json::Array(expected));
}
