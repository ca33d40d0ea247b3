//! Rows as workers cut them, made by number.
//!
//! In: how many. Out: [`Row`]s that are the same in every run, and the inventory that knows their
//! ends.
//! Cost: a row is arithmetic on its number; nothing is kept.
//! Invariants: the rows of one window are of exactly as many conversations as asked for; rows of
//! one conversation do not follow each other.

use std::sync::Arc;

use crate::app::Application;
use crate::decode::{Address, Mac, protocol};
use crate::flow::event;
use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
use crate::inventory::{
    AddressSpace, ClassRules, Interface, Interval, Inventory, InventoryData, Segment, SegmentKind,
    Uuid, Vm,
};
use crate::spread::FlowKey;
use crate::window::{Ends, Row, RowFacts};

/// Virtual machines of a tenant.
const TENANT_VMS: u32 = 100;
/// Services that a pair of virtual machines may use.
const PORTS: [u16; 8] = [443, 80, 5_432, 3_306, 6_379, 9_092, 8_080, 22];
/// A prime above all counts of rows: its multiples visit every conversation once a round.
const STRIDE: u64 = 4_294_967_291;
/// Services that a flood is sent to.
const FLOOD_SERVICES: u32 = 8;
/// Port of every initiator.
const CLIENT_PORT: u16 = 40_000;
/// The first VNI.
const FIRST_VNI: u32 = 5_000;

/// What the rows are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    /// Conversations in a window, at least 1.
    pub(super) conversations: u32,
    /// Rows of each of them in a window, at least 1.
    pub(super) flows: u32,
    /// Tenants, at least 1; each has as many virtual machines as the others, on the same addresses.
    pub(super) tenants: u32,
}

impl Traffic {
    /// Rows in a window.
    pub(super) fn rows(self) -> u64 {
        u64::from(self.conversations) * u64::from(self.flows)
    }

    /// The row of that number, below [`Traffic::rows`]. Seven conversations of eight
    /// are between two virtual machines of a tenant, one goes outside; a fourth of the flows begin.
    pub(super) fn row(self, number: u64) -> Row {
        let conversation = low(number.wrapping_mul(STRIDE) % u64::from(self.conversations));
        let (source, rest) = (conversation % self.vms(), conversation / self.vms());
        let (tenant, source) = (source / TENANT_VMS, source % TENANT_VMS);
        let outside = rest % 8 == 7;
        let other = (source + 1 + rest / 8 % (TENANT_VMS - 1)) % TENANT_VMS;
        let begins = number.is_multiple_of(4);
        let segment = segment(tenant);
        let key = FlowKey {
            space: AddressSpace::of_segment(segment),
            low: inside(source),
            high: if outside { on_the_internet(rest) } else { inside(other) },
            low_port: CLIENT_PORT,
            high_port: if outside { PORTS[0] } else { port(rest) },
            protocol: protocol::TCP,
            ip_version: 4,
        };
        let destination_mac = if outside { Mac([2, 0, 0, 0, 0, 1]) } else { mac(tenant, other) };
        let ends = ends(segment, mac(tenant, source), destination_mac);
        let mut row = begun(&key, ends);
        for sender in [Sender::Low, Sender::High].into_iter().cycle().take(11) {
            row.count(sender, 400, false);
        }
        if begins {
            row.events = BEGUN;
        }
        row
    }

    /// Everybody inside.
    pub(super) fn inventory(self) -> Inventory {
        let tenants: Vec<Arc<str>> =
            (0..self.tenants).map(|tenant| format!("tenant-{tenant}").into()).collect();
        let vms = (0..self.vms()).map(|number| {
            let (tenant, place) = (number / TENANT_VMS, number % TENANT_VMS);
            let uuid = Uuid(u128::from(number));
            Vm {
                uuid,
                name: format!("vm-{tenant}-{place}").into(),
                tenant: Arc::clone(&tenants[tenant as usize]),
                host: None,
                switch: None,
                placements: Vec::new(),
                interfaces: vec![Interface {
                    mac: mac(tenant, place),
                    addresses: vec![inside(place).to_ip(4)],
                    shared: Vec::new(),
                    segment: segment(tenant),
                    space: AddressSpace::of_segment(segment(tenant)),
                    valid: Interval::ALWAYS,
                }],
                valid: Interval::ALWAYS,
            }
        });
        let vms = vms.collect();
        let data = InventoryData { tenants, vms, ..InventoryData::default() };
        Inventory::new(&data, ClassRules::default())
    }

    fn vms(self) -> u32 {
        self.tenants * TENANT_VMS
    }
}

const BEGUN: u8 = event::STARTED
    | event::CONTACT
    | event::SYN
    | event::SYN_ACK
    | event::ANSWERED
    | event::ESTABLISHED;

/// One SYN of a spoofed source to one of a few services, of which every one is a new flow; and that
/// flow's key.
pub(super) fn flood_row(window: WindowNumber, number: u64) -> (Row, FlowKey) {
    let seed = number.wrapping_add(window.0.wrapping_mul(STRIDE));
    let source = low(mixed(seed) >> 32);
    let service = low(number % u64::from(FLOOD_SERVICES));
    let key = FlowKey {
        space: AddressSpace::of_segment(segment(0)),
        low: Address::v4(source.to_be_bytes()),
        high: inside(service),
        low_port: CLIENT_PORT,
        high_port: PORTS[0],
        protocol: protocol::TCP,
        ip_version: 4,
    };
    let mut row = begun(&key, ends(segment(0), Mac([2, 0, 0, 0, 0, 1]), mac(0, service)));
    row.count(Sender::Low, 40, false);
    row.events = event::STARTED | event::CONTACT | event::SYN;
    (row, key)
}

/// The row of a flow whose initiator is the lower endpoint, without packets.
fn begun(key: &FlowKey, ends: Ends) -> Row {
    Row::of(&RowFacts {
        flow: FlowIndex(0),
        key,
        initiator: Sender::Low,
        ends,
        tap: TapIndex(0),
        application: Application::Unknown,
        counts_flow: true,
    })
}

fn ends(segment: Segment, source_mac: Mac, destination_mac: Mac) -> Ends {
    Ends {
        segment,
        reverse_segment: segment,
        source_mac,
        destination_mac,
        layer2_header_octets: [14; 2],
    }
}

fn segment(tenant: u32) -> Segment {
    Segment::new(0, SegmentKind::Vxlan, FIRST_VNI + tenant)
}

fn inside(place: u32) -> Address {
    let [.., high, low] = place.to_be_bytes();
    Address::v4([10, 0, high, low])
}

fn on_the_internet(number: u32) -> Address {
    let [_, a, b, c] = number.to_be_bytes();
    Address::v4([203, a, b, c])
}

fn mac(tenant: u32, place: u32) -> Mac {
    let ([.., a, b], [.., c, d]) = (tenant.to_be_bytes(), place.to_be_bytes());
    Mac([0xfa, 0x16, a, b, c, d])
}

fn port(rest: u32) -> u16 {
    // Each round of the neighbours has a port of its own, and after eight the ports go on.
    let round = rest / 8 / (TENANT_VMS - 1) * 7 + rest % 8;
    let known = PORTS.get(round as usize).copied();
    known.unwrap_or_else(|| 10_000 + (round % 50_000) as u16)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn low(number: u64) -> u32 {
    number as u32
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014).
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::aggregate::ConversationKey;

    #[test]
    fn a_window_has_as_many_conversations_as_asked_for() {
        for (conversations, tenants) in [(1, 1), (1_000, 3), (90_000, 1)] {
            let traffic = Traffic { conversations, flows: 2, tenants };
            let rows = (0..traffic.rows()).map(|number| traffic.row(number));
            let keys: HashSet<_> = rows.map(|row| ConversationKey::of(&row)).collect();
            assert_eq!(keys.len(), conversations as usize);
        }
    }

    #[test]
    fn nearly_every_row_of_a_flood_is_of_another_source() {
        let rows = (0..10_000).map(|number| flood_row(WindowNumber(1), number).0.source());
        assert!(rows.collect::<HashSet<_>>().len() > 9_900);
    }
}
