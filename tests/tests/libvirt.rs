//! libvirt's own test driver, in a file and in a daemon, as a source of the inventory.

use std::path::Path;
use std::sync::Arc;

use vmprobe::config::{self, Mode};
use vmprobe::inventory::{SourceHealth, SourceState, VmHistory};
use vmprobe::sources::{Prepared, Sources};
use vmprobe::time::wall_clock;
use vmprobe_tests::end_to_end::{missing, missing_tools, until};
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
