//! Packets that show who has which address, of any octets: no panic, nothing unsound is learned, every
//! bound holds, and a file's word stands.
//!
//! Each packet is three octets (kind and VLAN, time since the one before in units of two seconds, length)
//! and so many octets: an ARP packet, the body of an ICMPv6 message, the payload of a datagram from a
//! server, or a whole frame.

use std::net::IpAddr;
use std::sync::LazyLock;

use vmprobe::capture::{Frame, LinkType};
use vmprobe::config::{Lessons, Plan};
use vmprobe::decode::learn::evidence;
use vmprobe::decode::{DecodeContext, Decoder, Headers};
use vmprobe::index::PortIndex;
use vmprobe::inventory::{
    Address, AddressSpace, ClassRules, Mac, Segment, SourceId, SourceKind, SourceName, Spaces,
    Statement, Store, StoreLimits, Uuid,
};
use vmprobe::sources::learned::Learner;
use vmprobe::time::Timestamp;

const SECOND: u64 = 1_000_000_000;
const LESSONS: Lessons = Lessons { arp: true, nd: true, dhcp: true };
/// The VM of the file, at 10.0.0.3.
const VM: Uuid = Uuid(3);

static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let mut plan = Plan::default();
    plan.inventory.learned.enabled = true;
    plan.inventory.learned.silence_s = 60;
    plan.inventory.learned.addresses_max = 16;
    plan.inventory.learned.addresses_per_segment_max = 8;
    plan.inventory.learned.addresses_per_mac_max = 4;
    plan
});
static DECODER: LazyLock<Decoder> =
    LazyLock::new(|| Decoder::new(&DecodeContext::new(&PLAN, ["port"])));

/// A file that names one VM, and what is learned.
fn store() -> Store {
    let source = |kind: SourceKind, rank| SourceName { kind, name: kind.name().into(), rank };
    // That it stands first makes no difference.
    let sources = vec![source(SourceKind::File, 1), source(SourceKind::Learned, 0)];
    let learned_max = PLAN.inventory.learned.endpoints_max();
    let limits = StoreLimits { learned_max, vms_max: 1, ..StoreLimits::default() };
    let mut store = Store::new(limits, Spaces::default(), ClassRules::default(), sources);
    let mac = Mac([2, 0, 0, 0, 0, 3]);
    let named = Statement::new(VM, Timestamp::ZERO)
        .segment(mac, Segment::NONE)
        .addresses(mac, [IpAddr::from([10, 0, 0, 3])]);
    store.apply(SourceId(0), Timestamp::ZERO, named.into());
    store
}

fn frame(kind: u8, octets: &[u8]) -> Vec<u8> {
    let ether = |to: [u8; 6], ether_type: [u8; 2]| {
        let from = [2, 0, 0, 0, 0, 1];
        let tag: &[u8] = if kind & 8 == 0 { &[] } else { &[0x81, 0, 0, 7] };
        [&to[..], &from, tag, &ether_type].concat()
    };
    let length = u8::try_from(octets.len()).unwrap_or(u8::MAX);
    let six = |next: u8, length: u8, source: u8| {
        let mut header = vec![0x60, 0, 0, 0, 0, length, next, 255];
        for last in [source, 2] {
            header.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        if source == 0 {
            header[8..24].fill(0);
        }
        header
    };
    match kind & 7 {
        0 | 1 => {
            [&ether([0xff; 6], [8, 6])[..], &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1], octets]
                .concat()
        }
        2 | 3 => {
            let message = [135 + (kind & 1), 0, 0, 0, 0x20, 0, 0, 0];
            let header = six(58, length.saturating_add(8), kind >> 4);
            [&ether([2; 6], [0x86, 0xdd])[..], &header, &message, octets].concat()
        }
        4 | 5 => {
            let total = u16::from(length) + 28 + 240;
            let [high, low] = total.to_be_bytes();
            let [udp_high, udp_low] = (total - 20).to_be_bytes();
            let ip = [0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 8, 10, 0, 0, 7];
            let datagram = [0, 67, 0, 68, udp_high, udp_low, 0, 0];
            let mut fixed = [0; 240];
            fixed[..3].copy_from_slice(&[2, 1, 6]);
            fixed[16..20].copy_from_slice(&[10, 0, 0, kind >> 4]);
            fixed[28..34].copy_from_slice(&[2, 0, 0, 0, 0, kind >> 4]);
            fixed[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
            [&ether([0xff; 6], [8, 0])[..], &ip, &datagram, &fixed, octets].concat()
        }
        6 => {
            let header = six(17, length.saturating_add(8), 1);
            let datagram = [2, 35, 2, 34, 0, length.saturating_add(8), 0, 0];
            [&ether([2; 6], [0x86, 0xdd])[..], &header, &datagram, octets].concat()
        }
        _ => octets.to_vec(),
    }
}

/// Learns from all packets.
pub(crate) fn exercise(mut input: &[u8]) {
    let mut learner = Learner::new(&PLAN.inventory.learned);
    let mut store = store();
    let mut now = Timestamp(1_000 * SECOND);
    let mut headers = Headers::default();
    while let Some((&[kind, later, length], rest)) = input.split_first_chunk() {
        let (octets, rest) = rest.split_at(rest.len().min(length.into()));
        input = rest;
        now = now + u64::from(later) * 2 * SECOND;
        let bytes = frame(kind, octets);
        let frame = Frame {
            bytes: &bytes,
            wire_octets: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            timestamp: now,
            link: LinkType::Ethernet,
            port: PortIndex(0),
            stripped_vlan: None,
        };
        let cause = DECODER.decode(&frame, now, &mut headers).err();
        if !LESSONS.concern(&headers, cause) {
            continue;
        }
        let Ok(Some(shown)) = evidence(&bytes, &headers, cause) else { continue };
        assert_eq!(shown.mac.0[0] & 1, 0, "a group has no address");
        let ip = shown.address.to_ip(shown.ip_version);
        assert!(!ip.is_multicast() && !ip.is_unspecified() && !ip.is_loopback());
        assert!(shown.name.text().is_none_or(|name| !name.contains(['<', '&', '"', ' '])));
        learner.take(&shown);
        store.apply(SourceId(1), now, learner.take_changes().into());
        check(&learner, &store, now);
    }
}

fn check(learner: &Learner, store: &Store, now: Timestamp) {
    let inventory = store.inventory();
    assert!(learner.addresses() <= 16);
    assert!(inventory.learned_count() <= PLAN.inventory.learned.endpoints_max());
    assert_eq!(inventory.vm_count(), 1);
    let (space, address) = (AddressSpace::default(), Address::v4([10, 0, 0, 3]));
    let found = inventory.resolve(space, address, 4, None, now).and_then(|vm| inventory.vm(vm));
    assert_eq!(found.map(|vm| vm.uuid), Some(VM), "the file's word stands");
    let rejected = &store.source_counts()[1].rejected;
    assert!(rejected.is_empty(), "{rejected:?}");
}
