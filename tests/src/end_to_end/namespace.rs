//! Network namespaces that stand for virtual machines, and one for the switch between them.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value as Json;

use super::program::run_to_end;

static MADE: AtomicU32 = AtomicU32::new(0);

/// A network namespace without IPv6, so that nothing in it talks by itself; deleted with all its
/// interfaces when dropped. Needs root.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// What the kernel counted at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub received_packets: u64,
    /// Their octets, without FCS.
    pub received_octets: u64,
    /// Frames sent.
    pub sent_packets: u64,
    /// Their octets, without FCS.
    pub sent_octets: u64,
}

impl Counters {
    /// What was counted since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            received_packets: self.received_packets - earlier.received_packets,
            received_octets: self.received_octets - earlier.received_octets,
            sent_packets: self.sent_packets - earlier.sent_packets,
            sent_octets: self.sent_octets - earlier.sent_octets,
        }
    }
}

impl Namespace {
    /// A new one.
    pub fn new(role: &str) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("vmp{}-{number}-{role}", std::process::id()) };
        ip(&["netns", "add", &namespace.name]);
        let all = "/proc/sys/net/ipv6/conf";
        // A kernel without IPv6 has nothing to switch off.
        let quiet = format!("for each in all default; do echo 1 > {all}/$each/disable_ipv6; done");
        let _ = run_to_end(namespace.shell(&quiet));
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// A command that runs in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program in it, which must succeed; the answer is its standard output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.command(program);
        command.args(arguments);
        let ended = run_to_end(command);
        assert_eq!(ended.code, Some(0), "{program} {arguments:?}: {}{}", ended.output, ended.log);
        ended.output
    }

    /// `ip` in it.
    pub fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all);
    }

    /// A pair of interfaces: `here` in this namespace and `there` in another (or this) one, both
    /// up and without offloads, so that each frame on the wire is one packet of the sender.
    pub fn wire(&self, here: &str, to: &Self, there: &str) {
        self.ip(&["link", "add", here, "type", "veth", "peer", "name", there, "netns", &to.name]);
        for (namespace, interface) in [(self, here), (to, there)] {
            let off =
                ["rx", "tx", "sg", "tso", "gso", "gro"].iter().flat_map(|name| [*name, "off"]);
            let arguments: Vec<_> = ["-K", interface].into_iter().chain(off).collect();
            namespace.run("ethtool", &arguments);
            namespace.ip(&["link", "set", interface, "up"]);
        }
    }

    /// Counters of an interface in it.
    pub fn counters(&self, interface: &str) -> Counters {
        let text = self.run("ip", &["-json", "-stats", "link", "show", "dev", interface]);
        let links: Json = serde_json::from_str(&text).expect("ip writes JSON");
        let count = |direction: &str, what: &str| {
            links[0]["stats64"][direction][what].as_u64().unwrap_or_else(|| panic!("{text}"))
        };
        Counters {
            received_packets: count("rx", "packets"),
            received_octets: count("rx", "bytes"),
            sent_packets: count("tx", "packets"),
            sent_octets: count("tx", "bytes"),
        }
    }

    /// Frames that the kernel dropped on their way out of or into an interface in it.
    pub fn dropped(&self, interface: &str) -> u64 {
        let text = self.run("ip", &["-json", "-stats", "link", "show", "dev", interface]);
        let links: Json = serde_json::from_str(&text).expect("ip writes JSON");
        let of = |direction: &str| links[0]["stats64"][direction]["dropped"].as_u64();
        of("rx").zip(of("tx")).map_or_else(|| panic!("{text}"), |(rx, tx)| rx + tx)
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", script]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(0), "ip {arguments:?}: {}", ended.log);
}
