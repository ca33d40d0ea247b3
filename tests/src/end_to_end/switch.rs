//! Open vSwitch with its userspace datapath, in a namespace of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vmprobe::time::sleep_ms;

use super::namespace::Namespace;
use super::program::{run_to_end, until};
use crate::folder::Folder;

/// Open vSwitch's own programs; not all of them are in PATH.
const PLAIN: &str = "/usr/lib/openvswitch-switch/ovs-vswitchd";
const WITH_DPDK: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How the switch moves packets.
#[derive(Clone, Copy, Debug)]
pub enum DataPath<'a> {
    /// Through the kernel's packet sockets.
    Plain,
    /// With DPDK, its memory in huge pages mounted at this folder.
    Dpdk(&'a Path),
}

/// A switch with the bridge `br0`; ended and removed when dropped.
#[derive(Debug)]
pub struct Switch {
    daemons: Vec<Child>,
    /// Databases, sockets and logs.
    pub folder: Folder,
    /// Where its interfaces are. After `daemons`: they end first.
    pub namespace: Namespace,
}

impl Switch {
    /// A file without which no switch of this kind can be had here.
    pub fn lacks(path: DataPath<'_>) -> Option<&'static str> {
        [SCHEMA, daemon(path)].into_iter().find(|file| !Path::new(file).exists())
    }

    /// Starts one.
    pub fn start(path: DataPath<'_>) -> Self {
        let folder = Folder::new("ovs");
        let namespace = Namespace::new("hub");
        let mut switch = Self { daemons: Vec::new(), folder, namespace };
        let file = |name: &str| switch.folder.path(name).display().to_string();
        let (database, socket) = (file("conf.db"), file("db.sock"));
        run("ovsdb-tool", &["create", &database, SCHEMA]);
        let server = [
            database,
            format!("--remote=punix:{socket}"),
            format!("--unixctl={}", file("ovsdb.ctl")),
            format!("--log-file={}", file("ovsdb.log")),
        ];
        let daemon_arguments = [
            format!("unix:{socket}"),
            format!("--unixctl={}", file("vswitchd.ctl")),
            format!("--log-file={}", file("vswitchd.log")),
        ];
        switch.daemon(Path::new("ovsdb-server"), &server);
        let up = until(20, || Path::new(&socket).exists().then_some(()));
        assert!(up.is_some(), "ovsdb-server makes no socket");
        switch.set(&["--no-wait", "init"]);
        if let DataPath::Dpdk(huge) = path {
            let extra = format!(
                "other_config:dpdk-extra=--no-pci --file-prefix={} --huge-dir={}",
                switch.prefix(),
                huge.display()
            );
            switch.set(&["--no-wait", "set", "Open_vSwitch", ".", &extra]);
            switch.set(&[
                "--no-wait",
                "set",
                "Open_vSwitch",
                ".",
                "other_config:dpdk-init=true",
                "other_config:dpdk-socket-mem=192",
                "other_config:pmd-cpu-mask=0x2",
                "other_config:dpdk-lcore-mask=0x1",
            ]);
        }
        switch.daemon(Path::new(daemon(path)), &daemon_arguments);
        switch.set(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
        switch
    }

    /// Waits until the switch can send through one of its interfaces: a memif is connected some
    /// time after the other side has opened it, and the switch looks every few seconds.
    pub fn sends_through(&self, interface: &str) {
        let state = || self.set(&["get", "interface", interface, "link_state"]);
        let up = until(60, || (state().trim() == "up").then_some(()));
        assert!(up.is_some(), "{interface} is {}", state());
    }

    /// `ovs-vsctl` on it; the answer is what it prints.
    pub fn set(&self, arguments: &[&str]) -> String {
        let socket = format!("--db=unix:{}", self.folder.path("db.sock").display());
        let mut all = vec!["--timeout=20", &socket];
        all.extend(arguments);
        let mut command = Command::new("ovs-vsctl");
        command.args(&all);
        let ended = run_to_end(command);
        let log = || fs::read_to_string(self.folder.path("vswitchd.log")).unwrap_or_default();
        assert_eq!(ended.code, Some(0), "ovs-vsctl {all:?}: {}\n{}", ended.log, log());
        ended.output
    }

    /// Mirrors all packets to a port.
    pub fn mirror_to_port(&self, port: &str) {
        self.mirror(&["--", "--id=@p", "get", "port", port], "output-port=@p");
    }

    /// Mirrors all packets into a VLAN (RSPAN).
    pub fn mirror_to_vlan(&self, vlan: u16) {
        self.mirror(&[], &format!("output-vlan={vlan}"));
    }

    fn mirror(&self, before: &[&str], to: &str) {
        self.set(&["clear", "bridge", "br0", "mirrors"]);
        let mut all = before.to_vec();
        all.extend(["--", "--id=@m", "create", "mirror", "name=m0", "select-all=true", to]);
        all.extend(["--", "set", "bridge", "br0", "mirrors=@m"]);
        self.set(&all);
        // Changes of mirrors take up to a second.
        sleep_ms(1_200);
    }

    fn daemon(&mut self, program: &Path, arguments: &[String]) {
        let mut command = self.namespace.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.folder.root());
        }
        self.daemons.push(command.spawn().expect("the switch starts"));
    }

    fn prefix(&self) -> String {
        self.folder.name()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // What its DPDK leaves behind.
        let _ = fs::remove_dir_all(Path::new("/var/run/dpdk").join(self.prefix()));
    }
}

const fn daemon(path: DataPath<'_>) -> &'static str {
    match path {
        DataPath::Plain => PLAIN,
        DataPath::Dpdk(_) => WITH_DPDK,
    }
}

fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments);
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(0), "{program} {arguments:?}: {}", ended.log);
}
