//! Two virtual machines on two hosts, joined by a link with known truth, mirrored at both hosts.
//!
//! ```text
//!  vm-a ── br0 of host-a ── wire-a ┐ vmprobe-link ┌ wire-b ── br0 of host-b ── vm-b
//!                                  └ mirror ── tap ┘
//! ```
//!
//! Each box is a network namespace; the link, its mirrors and the probe are in one. Both mirrors share
//! one interface, as RSPAN VLANs [`MIRROR_VLANS`], so that one worker receives both. Needs root.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use vmprobe::time::sleep_ms;

use super::namespace::Namespace;
use super::program::{Ended, Probe, built, is_root, missing_tools, run_to_end, until, vmprobe};
use crate::folder::Folder;
use crate::link::live::{Options, UP};
use crate::link::{Impairments, Side, Truth};
use crate::skips::{missing, skipped, too_long};

/// VLANs of the mirrors of A and B.
pub const MIRROR_VLANS: [u16; 2] = [101, 102];

/// MTU of the VMs' own packets.
const MTU: u32 = 1_500;
const ADDRESSES: [&str; 2] = ["10.7.0.1", "10.7.0.2"];
const NAMES: [&str; 2] = ["a", "b"];
const TOOLS: [&str; 6] = ["ip", "ethtool", "ping", "curl", "iperf3", "python3"];
const PACKAGES: &str = "iproute2 ethtool iputils-ping curl iperf3 python3";
/// Longest life of a link.
const SECONDS_MAX: u64 = 120;

/// The hosts and VMs; the link is started for each run.
#[derive(Debug)]
pub struct Rig {
    vms: [Namespace; 2],
    hosts: [Namespace; 2],
    hub: Namespace,
    folder: Folder,
    runs: AtomicU32,
    kernel_stamps: bool,
    _server: Probe,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    /// What the link did.
    pub truth: Truth,
    /// What the taps saw, with the link's own stamps; to be replayed with [`Rig::replay_plan`].
    pub captures: [PathBuf; 2],
    /// What the probe said, if one ran.
    pub probe: Option<Ended>,
    /// Its records.
    pub records: PathBuf,
    /// Frames of the mirrors that the kernel dropped before a probe could receive them.
    pub dropped: u64,
}

impl Rig {
    /// Makes it; `None` where this machine cannot have it, which is noted as a skip of `name`.
    pub fn new(name: &str) -> Option<Self> {
        if too_long(name) {
            return None;
        }
        if !is_root() {
            skipped(name, "needs root for network namespaces");
            return None;
        }
        let tools = missing_tools(&TOOLS);
        if !tools.is_empty() {
            missing(name, &tools, PACKAGES);
            return None;
        }
        let hub = Namespace::new("hub");
        hub.wire("mirror", &hub, "tap");
        let [(host_a, vm_a), (host_b, vm_b)] = NAMES.map(|side| wire_side(&hub, side));
        let vms = [vm_a, vm_b];
        let folder = Folder::new("rig");
        folder.write("page", vec![b'x'; 1_000_000]);
        let mut command = vms[1].command("python3");
        let root = folder.root().display().to_string();
        command.args(["-m", "http.server", "80", "--bind", ADDRESSES[1], "--directory", &root]);
        let server = Probe::start(command);
        Some(Self {
            vms,
            hosts: [host_a, host_b],
            hub,
            folder,
            runs: AtomicU32::new(0),
            kernel_stamps: false,
            _server: server,
        })
    }

    /// Its probes stamp a frame when the kernel takes it, not when they come to look: on a core that
    /// they share, the latter is milliseconds late.
    #[must_use]
    pub fn with_kernel_stamps(self) -> Self {
        Self { kernel_stamps: true, ..self }
    }

    /// The address of the VM at a side.
    pub fn address(side: Side) -> IpAddr {
        IpAddr::V4(ADDRESSES[side.place()].parse().expect("an address"))
    }

    /// The namespace of the VM at a side.
    pub const fn vm(&self, side: Side) -> &Namespace {
        &self.vms[side.place()]
    }

    /// Where files of this rig are.
    pub const fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Runs the link while the VMs do what `traffic` says. With `probe` a probe receives both mirrors
    /// meanwhile, with these further lines of configuration.
    pub fn run(
        &self,
        seed: u64,
        mut impairments: Impairments,
        probe: Option<&str>,
        traffic: impl FnOnce(&Self),
    ) -> Run {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let run = self.folder.path(&format!("run-{number}"));
        std::fs::create_dir_all(&run).expect("a folder can be made");
        impairments.mirror_a.vlan = Some(MIRROR_VLANS[0]);
        impairments.mirror_b.vlan = Some(MIRROR_VLANS[1]);
        let merges = [&impairments.a_to_b, &impairments.b_to_a].map(|way| way.merge);
        let longest = merges.iter().flatten().map(|merge| merge.frame_octets_max).max();
        let mtu = longest.map_or(MTU, |octets| octets.saturating_sub(14).max(MTU));
        self.let_through(mtu);
        let options = Options {
            sides: ["wire-a", "wire-b"].map(str::to_owned),
            mirrors: ["mirror", "mirror"].map(str::to_owned),
            seed,
            impairments,
            folder: run.clone(),
            captures: true,
            seconds_max: SECONDS_MAX,
        };
        let records = run.join("records");
        let dropped = || ["mirror", "tap"].map(|name| self.hub.dropped(name)).iter().sum::<u64>();
        let before = dropped();
        let mut receiving = probe.map(|more| self.start_probe(&run, mtu, more));
        if let Some(probe) = &mut receiving {
            probe.receiving();
            // DPDK's driver for packet sockets may have set another MTU.
            self.let_through(mtu);
        }
        let link = start_link(&self.hub, &options);
        traffic(self);
        // What is on its way arrives.
        sleep_ms(500);
        link.terminate();
        link.end(30).expect(0, &[]);
        let probe = receiving.map(|probe| {
            sleep_ms(500);
            probe.terminate();
            probe.end(30)
        });
        let truth = Truth::read(&run).expect("the link writes the truth");
        let captures = ["tap-a.pcap", "tap-b.pcap"].map(|name| run.join(name));
        Run { truth, captures, probe, records, dropped: dropped() - before }
    }

    /// Echo requests from A to B.
    pub fn ping(&self, count: u32) {
        // Some may be lost, so the exit code says nothing.
        let mut command = self.vm(Side::A).command("ping");
        command.args(["-q", "-i", "0.01", "-W", "1", "-c", &count.to_string(), ADDRESSES[1]]);
        let _ = Probe::start(command).end(60);
    }

    /// Fetches a page of a million octets from B to A.
    pub fn curl(&self) {
        let url = format!("http://{}/page", ADDRESSES[1]);
        let fetch = ["--silent", "--show-error", "--retry", "20", "--retry-connrefused"];
        let to = ["--retry-delay", "1", "--output", "/dev/null", "--write-out", "%{size_download}"];
        let got = self.vm(Side::A).run("curl", &[&fetch[..], &to, &[&url]].concat());
        assert_eq!(got, "1000000");
    }

    /// iperf3 from A to B with further arguments: `--udp`, `--bitrate`, `--time`, `--reverse`, …
    pub fn iperf3(&self, arguments: &[&str]) {
        let ended = self.try_iperf3(arguments);
        // It begins to send UDP with one datagram, which the link may lose: then it waits for half a
        // minute and gives up.
        let is_lost =
            arguments.contains(&"--udp") && ended.log.contains("unable to read from stream socket");
        let ended = if is_lost { self.try_iperf3(arguments) } else { ended };
        assert_eq!(ended.code, Some(0), "iperf3 {arguments:?}: {}{}", ended.output, ended.log);
    }

    fn try_iperf3(&self, arguments: &[&str]) -> Ended {
        let mut command = self.vm(Side::B).command("iperf3");
        command.args(["--server", "--one-off", "--bind", ADDRESSES[1]]);
        let server = Probe::start(command);
        let listening = ["-H", "-l", "-t", "-n", "sport = :5201"];
        let up = until(20, || (!self.vm(Side::B).run("ss", &listening).is_empty()).then_some(()));
        assert!(up.is_some(), "iperf3 does not listen");
        let mut client = self.vm(Side::A).command("iperf3");
        client.args(["--client", ADDRESSES[1], "--connect-timeout", "10000"]).args(arguments);
        let ended = run_to_end(client);
        drop(server);
        ended
    }

    /// The configuration that replays the captures of a run with both taps named.
    pub fn replay_plan() -> &'static str {
        "[[tap]]\nname = \"a\"\nmatch = { port = \"tap-a\", vlan = 101 }\n\
         [[tap]]\nname = \"b\"\nmatch = { port = \"tap-b\", vlan = 102 }\n"
    }

    fn start_probe(&self, run: &Path, mtu: u32, more: &str) -> Probe {
        let prefix = self.folder.name();
        let [a, b] = MIRROR_VLANS;
        // Room for some seconds, in which the worker may have to wait for a core. DPDK wants a whole
        // frame of the kernel's ring to fit in one of its buffers.
        let frame_bytes = (mtu + 128).next_multiple_of(if mtu > MTU { 4_096 } else { 2_048 });
        let frames = (1 << 27) / frame_bytes / 4 * 4;
        let block_bytes = 4 * frame_bytes;
        let ring = format!("framesz={frame_bytes},blocksz={block_bytes},framecnt={frames}");
        let device = if self.kernel_stamps {
            "net_pcap0,rx_iface_in=tap".to_owned()
        } else {
            format!("net_af_packet0,iface=tap,{ring}")
        };
        let mbufs = if mtu > MTU { 4_095 } else { 8_191 };
        let text = format!(
            r#"
[eal]
memory_mib = 128
huge_pages = false
file_prefix = "{prefix}"
[[port]]
name = "mirror"
device = "{device}"
frame_octets_max = {frame_bytes}
mbufs = {mbufs}
[[tap]]
name = "a"
match = {{ vlan = {a} }}
[[tap]]
name = "b"
match = {{ vlan = {b} }}
[flow]
slots_per_worker = 16384
[window]
rows_max = 16384
[store]
folder = "records"
[serve]
enabled = false
{more}"#
        );
        let file = run.join("vmprobe.toml");
        std::fs::write(&file, text).expect("a file can be written");
        let mut command: Command = self.hub.command(vmprobe());
        command.args(["run", "--json", "--seconds", "120", "-c"]).arg(file);
        Probe::start(command)
    }

    /// Sets the MTU of all interfaces on the way, and leaves that of the VMs' packets.
    fn let_through(&self, mtu: u32) {
        let mtu = mtu.to_string();
        let set = |namespace: &Namespace, interface: &str| {
            namespace.ip(&["link", "set", interface, "mtu", &mtu]);
        };
        let own = MTU.to_string();
        let segment = (MTU - 40).to_string();
        for ((name, host), vm) in NAMES.iter().zip(&self.hosts).zip(&self.vms) {
            set(&self.hub, &format!("wire-{name}"));
            for interface in ["uplink", "vnet", "br0"] {
                set(host, interface);
            }
            set(vm, "eth0");
            let route = ["route", "replace", "10.7.0.0/24", "dev", "eth0"];
            vm.ip(&[&route[..], &["mtu", &own, "advmss", &segment]].concat());
        }
        // The mirrors' tag comes on top.
        let mirror = (mtu.parse::<u32>().expect("a number") + 4).to_string();
        for interface in ["mirror", "tap"] {
            self.hub.ip(&["link", "set", interface, "mtu", &mirror]);
        }
    }
}

/// A link that runs in a namespace, once frames may come.
pub fn start_link(namespace: &Namespace, options: &Options) -> Probe {
    let file = options.folder.join("link.json");
    let text = serde_json::to_string(options).expect("JSON");
    std::fs::write(&file, text).expect("a file can be written");
    let link = built("vmprobe-link").expect("vmprobe-link is built with the tests");
    // Before all else, where that may be asked for: it sleeps most of the time.
    let first = missing_tools(&["chrt"]).is_empty();
    let mut command = if first { namespace.command("chrt") } else { namespace.command(&link) };
    if first {
        command.args(["--fifo", "10"]).arg(&link);
    }
    command.arg(&file);
    let mut link = Probe::start(command);
    link.said(UP, 20);
    link
}

/// A host with a bridge, and a VM on it.
fn wire_side(hub: &Namespace, side: &str) -> (Namespace, Namespace) {
    let host = Namespace::new(&format!("host-{side}"));
    let vm = Namespace::new(&format!("vm-{side}"));
    let place = usize::from(side == NAMES[1]);
    // Its own address, so that it does not change with its ports.
    let address = format!("02:00:00:07:01:0{place}");
    host.ip(&["link", "add", "br0", "address", &address, "type", "bridge", "mcast_snooping", "0"]);
    host.ip(&["link", "set", "br0", "up"]);
    host.wire("uplink", hub, &format!("wire-{side}"));
    host.wire("vnet", &vm, "eth0");
    for interface in ["uplink", "vnet"] {
        host.ip(&["link", "set", interface, "master", "br0"]);
    }
    vm.ip(&["link", "set", "eth0", "address", &format!("02:00:00:07:00:0{place}")]);
    vm.ip(&["address", "add", &format!("{}/24", ADDRESSES[place]), "dev", "eth0"]);
    (host, vm)
}
