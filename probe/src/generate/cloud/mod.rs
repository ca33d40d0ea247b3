//! What a generated cloud consists of, and what is to happen in it.
//!
//! In: the scenario. Out: [`Story`]: hosts, tenants, VMs, users, and the plan of their traffic.
//! Invariants: within one address space no two VMs share an address; MAC addresses differ
//! everywhere.

mod build;
mod demo;
mod overlap;

pub(super) use build::Builder;
pub(super) use demo::{Attacks, demo};
pub(super) use overlap::overlap;

use std::net::IpAddr;

use super::network::START_US;
use crate::inventory::{AddressSpace, Segment, SegmentKind};

/// A place in [`Cloud::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeIndex(pub(super) usize);

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On a host, by its place in [`HOSTS`].
    Host(usize),
    /// Beyond the gateway, or the gateway itself.
    Outside,
}

/// A host with its tunnel end and the tap on its virtual switch.
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) tap: &'static str,
    /// Tunnel end (RFC 7348: VTEP).
    pub(super) vtep: [u8; 4],
    /// Second address of the tunnel end: the far end of tunnels that stay within the host.
    pub(super) local_vtep: [u8; 4],
    pub(super) mac: [u8; 6],
    /// The switch that the host is connected to.
    pub(super) leaf_mac: [u8; 6],
}

/// The two hosts of every scenario. Underlay addresses are of RFC 5737.
pub(super) const HOSTS: [Host; 2] = [
    Host {
        name: "host-a",
        tap: "tap-a",
        vtep: [192, 0, 2, 11],
        local_vtep: [192, 0, 2, 111],
        mac: [0x02, 0, 0, 0, 0x0a, 0x01],
        leaf_mac: [0x02, 0, 0, 0, 0x0a, 0xfe],
    },
    Host {
        name: "host-b",
        tap: "tap-b",
        vtep: [192, 0, 2, 12],
        local_vtep: [192, 0, 2, 112],
        mac: [0x02, 0, 0, 0, 0x0b, 0x01],
        leaf_mac: [0x02, 0, 0, 0, 0x0b, 0xfe],
    },
];

/// Tunnel end of the gateway.
pub(super) const GATEWAY_VTEP: [u8; 4] = [192, 0, 2, 1];

/// One end of a packet, as it stands on the wire of its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    pub(super) node: NodeIndex,
    pub(super) mac: [u8; 6],
    pub(super) address: IpAddr,
    pub(super) segment: Segment,
    pub(super) space: AddressSpace,
}

/// A virtual interface.
pub(super) struct Interface {
    pub(super) mac: [u8; 6],
    pub(super) addresses: Vec<IpAddr>,
    pub(super) segment: Segment,
}

/// A virtual machine.
pub(super) struct Vm {
    pub(super) uuid: String,
    pub(super) name: String,
    /// Place in [`Cloud::tenants`].
    pub(super) tenant: usize,
    /// Place in [`HOSTS`] when the scenario begins.
    pub(super) host: usize,
    pub(super) interfaces: Vec<Interface>,
    /// TCP ports that accept connections.
    pub(super) open_ports: Vec<u16>,
}

/// A VM, a user outside, or the gateway: what has a clock and a network card.
pub(super) struct Node {
    pub(super) place: Place,
    /// The machine's place in [`Cloud::vms`], if it is one.
    pub(super) vm: Option<usize>,
    /// One-way delay to the gateway, for what stands outside.
    pub(super) distance_us: u64,
    /// Next IPv4 identification; 0 is left out.
    pub(super) identification: u16,
    /// Where the node's TCP timestamp clock started, in milliseconds.
    pub(super) clock_ms: u32,
    /// Next ephemeral port.
    pub(super) port: u16,
    /// When the network card has sent what it was given.
    pub(super) card_free_us: u64,
    /// Last arrival over its line to the gateway, out and in, so that jitter never reorders.
    pub(super) line_busy_until_us: [u64; 2],
    /// While a migration stops the machine: when it runs again.
    pub(super) paused_until_us: Option<u64>,
}

/// Several segments with one address space.
pub(super) struct JoinedSpace {
    pub(super) name: String,
    pub(super) segments: Vec<Segment>,
}

/// Everything that exists.
#[derive(Default)]
pub(super) struct Cloud {
    pub(super) tenants: Vec<String>,
    pub(super) vms: Vec<Vm>,
    /// The VMs in their order, then what stands outside.
    pub(super) nodes: Vec<Node>,
    pub(super) spaces: Vec<JoinedSpace>,
}

impl Cloud {
    /// The address space of a segment.
    pub(super) fn space_of(&self, segment: Segment) -> AddressSpace {
        let joined = self.spaces.iter().position(|space| space.segments.contains(&segment));
        match joined.and_then(|place| u32::try_from(place).ok()) {
            Some(place) => AddressSpace::named(place),
            None => AddressSpace::of_segment(segment),
        }
    }

    /// The end of interface `interface` of the VM at `vm`, with its first address of that IP
    /// version. `None` where it has none.
    pub(super) fn endpoint(&self, vm: usize, interface: usize, version6: bool) -> Option<Endpoint> {
        let interface = self.vms.get(vm)?.interfaces.get(interface)?;
        let address = *interface.addresses.iter().find(|ip| ip.is_ipv6() == version6)?;
        let (mac, segment) = (interface.mac, interface.segment);
        Some(Endpoint { node: NodeIndex(vm), mac, address, segment, space: self.space_of(segment) })
    }

    /// An end with that address beyond the gateway of `segment`.
    pub(super) fn outside(&self, node: NodeIndex, address: IpAddr, segment: Segment) -> Endpoint {
        let space = self.space_of(segment);
        Endpoint { node, mac: gateway_mac(segment), address, segment, space }
    }

    /// The node of an end.
    pub(super) fn node(&mut self, index: NodeIndex) -> &mut Node {
        &mut self.nodes[index.0]
    }
}

/// MAC address of the router in a segment.
pub(super) fn gateway_mac(segment: Segment) -> [u8; 6] {
    let [a, b, c, ..] = segment.id().to_le_bytes();
    [0x02, 0x5e, segment.kind() as u8, c, b, a]
}

/// VLAN id, where the segment is a VLAN; everything else is in VXLAN.
pub(super) fn vlan_of(segment: Segment) -> Option<u16> {
    (segment.kind() == SegmentKind::Vlan).then(|| u16::try_from(segment.id()).unwrap_or(0))
}

/// What two ends say to each other.
#[derive(Clone, Debug)]
pub(super) enum Talk {
    /// TLS 1.3 on port 443 with that server name.
    Https(String),
    /// HTTP/1.1 on that port with that host name.
    Http(u16, String),
    /// PostgreSQL on port 5432.
    Postgres,
    /// One DNS query for that name.
    Dns(String),
    /// ICMP echo.
    Ping,
}

/// A stream of conversations that begin at random times.
pub(super) struct Demand {
    pub(super) talk: Talk,
    pub(super) clients: Vec<Endpoint>,
    pub(super) servers: Vec<Endpoint>,
    /// Name server that half of the clients ask first.
    pub(super) resolver: Option<Endpoint>,
    /// Mean time between two beginnings.
    pub(super) interval_us: u64,
}

/// A live migration.
pub(super) struct Move {
    /// Place in [`Cloud::vms`].
    pub(super) vm: usize,
    /// When the machine stops.
    pub(super) at_us: u64,
    /// How long it stands still.
    pub(super) blackout_us: u64,
}

impl Move {
    /// When the machine runs again, in nanoseconds since the epoch.
    pub(super) fn resume_ns(&self) -> u64 {
        (START_US + self.at_us + self.blackout_us) * 1_000
    }
}

/// A port scan from one VM.
pub(super) struct Scan {
    pub(super) source: Endpoint,
    /// What is knocked at; a node is known where somebody has the address.
    pub(super) targets: Vec<(IpAddr, Option<Endpoint>, u16)>,
    pub(super) at_us: u64,
    pub(super) interval_us: u64,
}

/// A flood of SYNs from spoofed sources.
pub(super) struct Flood {
    /// The node beyond the gateway that sends.
    pub(super) origin: NodeIndex,
    pub(super) target: Endpoint,
    pub(super) port: u16,
    pub(super) at_us: u64,
    pub(super) interval_us: u64,
    pub(super) packets: u64,
}

/// A whole scenario before it runs.
pub(super) struct Story {
    pub(super) cloud: Cloud,
    pub(super) gateway: NodeIndex,
    pub(super) demands: Vec<Demand>,
    pub(super) moves: Vec<Move>,
    pub(super) scans: Vec<Scan>,
    pub(super) floods: Vec<Flood>,
    /// After this no conversation begins.
    pub(super) duration_us: u64,
}
