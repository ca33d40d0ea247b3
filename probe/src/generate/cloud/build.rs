//! Fills a cloud: identities, addresses and places of VMs and users.
//!
//! In: names and roles. Out: VMs with uuid and MAC, users with their distance.
//! Invariants: VMs come before everything outside, so a VM's place is its node's too.

use std::net::IpAddr;

use crate::inventory::Segment;

use super::{Cloud, Interface, JoinedSpace, Node, NodeIndex, Place, Vm};
use crate::generate::random::{Random, low16};

/// First port of the ephemeral range (Linux: `ip_local_port_range`).
const EPHEMERAL_PORT_FIRST: u16 = 32_768;

/// Builds a [`Cloud`].
pub(crate) struct Builder<'a> {
    pub(crate) cloud: Cloud,
    pub(crate) random: &'a mut Random,
}

impl<'a> Builder<'a> {
    /// An empty cloud.
    pub(crate) fn new(random: &'a mut Random) -> Self {
        Self { cloud: Cloud::default(), random }
    }

    /// Adds a tenant and gives its place.
    pub(crate) fn tenant(&mut self, name: &str) -> usize {
        self.cloud.tenants.push(name.to_owned());
        self.cloud.tenants.len() - 1
    }

    /// Joins segments into one address space.
    pub(crate) fn join(&mut self, name: &str, segments: &[Segment]) {
        self.cloud.spaces.push(JoinedSpace { name: name.to_owned(), segments: segments.to_vec() });
    }

    /// Adds a VM and gives its place. It must come before anything outside.
    pub(crate) fn vm(
        &mut self,
        tenant: usize,
        name: &str,
        host: usize,
        open_ports: &[u16],
        networks: &[(Segment, &[IpAddr])],
    ) -> usize {
        let place = self.cloud.vms.len();
        let interfaces = networks.iter().enumerate().map(|(number, (segment, addresses))| {
            Interface { mac: mac(place, number), addresses: addresses.to_vec(), segment: *segment }
        });
        let interfaces = interfaces.collect();
        let uuid = self.uuid();
        let vm = Vm {
            uuid,
            name: name.to_owned(),
            tenant,
            host,
            interfaces,
            open_ports: open_ports.to_vec(),
        };
        self.cloud.vms.push(vm);
        self.node(Place::Host(host), Some(place), 0);
        place
    }

    /// Adds a node beyond the gateway.
    pub(crate) fn outside(&mut self, distance_us: u64) -> NodeIndex {
        self.node(Place::Outside, None, distance_us)
    }

    fn node(&mut self, place: Place, vm: Option<usize>, distance_us: u64) -> NodeIndex {
        let identification = low16(self.random.bits()).max(1);
        let clock_ms = self.random.bits32();
        self.cloud.nodes.push(Node {
            place,
            vm,
            distance_us,
            identification,
            clock_ms,
            port: EPHEMERAL_PORT_FIRST,
            card_free_us: 0,
            line_busy_until_us: [0; 2],
            paused_until_us: None,
        });
        NodeIndex(self.cloud.nodes.len() - 1)
    }

    /// A random UUID (version 4, RFC 9562 section 5.4).
    fn uuid(&mut self) -> String {
        let mut octets = [0; 16];
        self.random.fill(&mut octets);
        octets[6] = octets[6] & 0x0f | 0x40;
        octets[8] = octets[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (place, octet) in octets.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [octet >> 4, octet & 0xf] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        text
    }
}

/// MAC of a VM's interface, with the prefix that OpenStack uses.
fn mac(vm: usize, interface: usize) -> [u8; 6] {
    let [low, high] = low16(vm as u64).to_le_bytes();
    let [number, _] = low16(interface as u64).to_le_bytes();
    [0xfa, 0x16, 0x3e, high, low, number]
}
