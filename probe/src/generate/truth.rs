//! What really happened, to compare a probe's answers with.
//!
//! In: each mirrored or lost packet, each attack and migration. Out: `truth.json`.
//! Cost: one hash of the flow key a logical packet.
//! Invariants: counts are of what stands in the captures; frames = logical packets + copies +
//! frames without IP.
//! Source: octets are IP octets (Information Element 1).

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::inventory::{AddressSpace, Segment};

use super::cloud::{HOSTS, NodeIndex, Story};
use super::network::START_US;
use super::random::low16;
use super::scenario::Scenario;

/// What makes a biflow: address space, protocol, and both ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FlowKey {
    space: AddressSpace,
    protocol: u8,
    low: (IpAddr, u16),
    high: (IpAddr, u16),
}

impl FlowKey {
    /// The key of a packet, the same for both directions. Ports are 0 for ICMP.
    pub(super) fn new(
        space: AddressSpace,
        protocol: u8,
        one: (IpAddr, u16),
        other: (IpAddr, u16),
    ) -> Self {
        Self { space, protocol, low: one.min(other), high: one.max(other) }
    }

    /// A number that stands for the flow: 16 bits of FNV-1a over its key.
    pub(super) fn entropy(&self) -> u16 {
        let octets = |(address, port): (IpAddr, u16)| match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 16) | u128::from(port),
            IpAddr::V6(address) => address.to_bits() ^ u128::from(port),
        };
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(self.protocol);
        for octet in
            octets(self.low).to_le_bytes().into_iter().chain(octets(self.high).to_le_bytes())
        {
            hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        }
        low16(hash >> 32)
    }
}

/// One attack. Addresses that vary or are spoofed are null.
#[derive(Clone, Debug, Serialize)]
struct Attack {
    kind: &'static str,
    source_address: Option<IpAddr>,
    source_vm: Option<String>,
    destination_address: Option<IpAddr>,
    destination_vm: Option<String>,
    segment: String,
    /// Stamp of the first packet from the attacker, at the tap that saw it first.
    first_seen_ns: u64,
    /// Stamp of the last one.
    last_seen_ns: u64,
    /// Logical packets from the attacker.
    packets: u64,
}

impl Attack {
    fn of(kind: &'static str, segment: Segment) -> Self {
        Self {
            kind,
            source_address: None,
            source_vm: None,
            destination_address: None,
            destination_vm: None,
            segment: segment.text(&[]),
            first_seen_ns: 0,
            last_seen_ns: 0,
            packets: 0,
        }
    }
}

/// One live migration.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Migration {
    pub(super) uuid: String,
    pub(super) name: String,
    /// When the VM stood still.
    pub(super) stopped_ns: u64,
    /// When it ran again, at its new host.
    pub(super) time_ns: u64,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

/// One tap.
#[derive(Clone, Debug, Serialize)]
struct Tap {
    name: &'static str,
    host: &'static str,
}

/// Delay of the packets that were seen at both taps, in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
struct Delay {
    /// Rounded down.
    mean: u64,
    min: u64,
    max: u64,
    count: u64,
    #[serde(skip)]
    sum: u64,
}

/// Names of the tap that sees a packet first, and of the other.
pub(super) type TapPair = (&'static str, &'static str);

/// The way from one tap to the other.
#[derive(Clone, Debug, Serialize)]
struct Path {
    from_tap: &'static str,
    to_tap: &'static str,
    delay_ns: Delay,
    /// Seen at the first tap, never at the second.
    lost_packets: u64,
    /// Of these, TCP segments whose range the sender repeated.
    lost_repeated_packets: u64,
    /// Packets that set out.
    total_packets: u64,
}

/// The whole truth.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Truth {
    scenario: &'static str,
    seed: u64,
    /// First instant and end of the planned time.
    start_ns: u64,
    end_ns: u64,
    /// Frames in all captures, and their octets.
    packets: u64,
    octets: u64,
    packets_by_tap: BTreeMap<&'static str, u64>,
    octets_by_tap: BTreeMap<&'static str, u64>,
    /// Frames that carry no IP (ARP).
    not_ip_packets: u64,
    /// IP packets, each counted once however many taps saw it.
    logical_packets: u64,
    /// Further copies of them at another tap.
    copied_packets: u64,
    /// Packets lost between the gateway and the tap, so that none shows them.
    lost_before_tap_packets: u64,
    /// Packets lost beyond the gateway, after a tap showed them.
    lost_after_tap_packets: u64,
    /// Biflows: address space, addresses, protocol, ports (0 for ICMP).
    flows: u64,
    octets_sent_by_vm: BTreeMap<String, u64>,
    packets_sent_by_vm: BTreeMap<String, u64>,
    attacks: Vec<Attack>,
    taps: Vec<Tap>,
    path: Vec<Path>,
    pub(super) migrations: Vec<Migration>,
    #[serde(skip)]
    keys: HashSet<FlowKey>,
}

impl Truth {
    /// Before the first packet: what is planned.
    pub(super) fn begin(scenario: Scenario, seed: u64, story: &Story) -> Self {
        let uuid = |node: NodeIndex| story.cloud.vms.get(node.0).map(|vm| vm.uuid.clone());
        let scans = story.scans.iter().map(|scan| Attack {
            source_address: Some(scan.source.address),
            source_vm: uuid(scan.source.node),
            ..Attack::of("port_scan", scan.source.segment)
        });
        let floods = story.floods.iter().map(|flood| Attack {
            destination_address: Some(flood.target.address),
            destination_vm: uuid(flood.target.node),
            ..Attack::of("syn_flood", flood.target.segment)
        });
        Self {
            scenario: scenario.name(),
            seed,
            start_ns: START_US * 1_000,
            end_ns: (START_US + story.duration_us) * 1_000,
            attacks: scans.chain(floods).collect(),
            taps: HOSTS.iter().map(|host| Tap { name: host.tap, host: host.name }).collect(),
            ..Self::default()
        }
    }

    /// Counts a frame in a capture.
    pub(super) fn frame(&mut self, tap: &'static str, octets: u64) {
        self.packets += 1;
        self.octets += octets;
        *self.packets_by_tap.entry(tap).or_default() += 1;
        *self.octets_by_tap.entry(tap).or_default() += octets;
    }

    /// Says that the frame just counted carries no IP.
    pub(super) fn not_ip(&mut self) {
        self.not_ip_packets += 1;
    }

    /// Says that the frame just counted repeats a logical packet.
    pub(super) fn copy(&mut self) {
        self.copied_packets += 1;
    }

    /// Counts a logical packet when its first copy is captured.
    pub(super) fn logical(&mut self, flow: FlowKey, sender: Option<&str>, ip_octets: u64) {
        self.logical_packets += 1;
        self.keys.insert(flow);
        let Some(uuid) = sender else { return };
        add(&mut self.octets_sent_by_vm, uuid, ip_octets);
        add(&mut self.packets_sent_by_vm, uuid, 1);
    }

    /// Counts an attacker's packet at its first tap.
    pub(super) fn attack(&mut self, place: usize, time_ns: u64) {
        let Some(attack) = self.attacks.get_mut(place) else { return };
        if attack.packets == 0 {
            attack.first_seen_ns = time_ns;
        }
        attack.last_seen_ns = time_ns;
        attack.packets += 1;
    }

    /// Counts a packet that arrived at the second tap.
    pub(super) fn delayed(&mut self, taps: TapPair, delay_ns: u64) {
        let path = self.path_of(taps);
        path.total_packets += 1;
        let delay = &mut path.delay_ns;
        delay.min = if delay.count == 0 { delay_ns } else { delay.min.min(delay_ns) };
        delay.max = delay.max.max(delay_ns);
        delay.count += 1;
        delay.sum += delay_ns;
        delay.mean = delay.sum / delay.count;
    }

    /// Counts a packet that was lost between the taps.
    pub(super) fn lost(&mut self, taps: TapPair) {
        let path = self.path_of(taps);
        path.total_packets += 1;
        path.lost_packets += 1;
    }

    /// Says that the sender has repeated a range that was lost between the taps.
    pub(super) fn repeated(&mut self, taps: TapPair) {
        self.path_of(taps).lost_repeated_packets += 1;
    }

    /// Counts a packet that no tap shows.
    pub(super) fn lost_before_tap(&mut self) {
        self.lost_before_tap_packets += 1;
    }

    /// Counts a packet that was lost after its tap.
    pub(super) fn lost_after_tap(&mut self) {
        self.lost_after_tap_packets += 1;
    }

    /// Frames and octets in all captures; fixes the number of flows.
    pub(super) fn finish(&mut self) -> (u64, u64) {
        self.flows = self.keys.len() as u64;
        self.path.sort_by_key(|path| (path.from_tap, path.to_tap));
        (self.packets, self.octets)
    }

    fn path_of(&mut self, taps: TapPair) -> &mut Path {
        let found = self.path.iter().position(|path| (path.from_tap, path.to_tap) == taps);
        let place = found.unwrap_or_else(|| {
            self.path.push(Path {
                from_tap: taps.0,
                to_tap: taps.1,
                delay_ns: Delay::default(),
                lost_packets: 0,
                lost_repeated_packets: 0,
                total_packets: 0,
            });
            self.path.len() - 1
        });
        &mut self.path[place]
    }
}

fn add(map: &mut BTreeMap<String, u64>, uuid: &str, count: u64) {
    match map.get_mut(uuid) {
        Some(sum) => *sum += count,
        None => drop(map.insert(uuid.to_owned(), count)),
    }
}
