//! What is learned from, against etherparse: neighbour discovery and ARP of any octets.

use etherparse::icmpv6::{NdpOptionSlice, NeighborSolicitationPayloadSlice};
use etherparse::{ArpHardwareId, ArpPacketSlice, EtherType};
use proptest::prelude::*;

use vmprobe::decode::Mac;
use vmprobe::decode::arp::Arp;
use vmprobe::decode::neighbour::{ADVERTISEMENT, Neighbour, SOLICITATION};

/// Options of types and lengths that occur, and then some octets of no meaning.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let one = (prop::sample::select(vec![1_u8, 2, 14, 200]), 0..3_u8, any::<[u8; 14]>());
    let one = one.prop_map(|(kind, units, value)| {
        let octets = (usize::from(units) * 8).saturating_sub(2);
        [&[kind, units][..], &value[..octets]].concat()
    });
    let rest = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..8)];
    (prop::collection::vec(one, 0..4), rest).prop_map(|(all, rest)| [all.concat(), rest].concat())
}

/// The first link-layer address as etherparse has it; `None` where it finds a fault.
fn by_etherparse(
    body: &NeighborSolicitationPayloadSlice<'_>,
    message: u16,
) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for option in body.options_iterator() {
        match option.ok()? {
            NdpOptionSlice::SourceLinkLayerAddress(it) if message == SOLICITATION => {
                found.push(it.link_layer_address().to_vec());
            }
            NdpOptionSlice::TargetLinkLayerAddress(it) if message == ADVERTISEMENT => {
                found.push(it.link_layer_address().to_vec());
            }
            _ => {}
        }
    }
    Some(found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neighbours_are_read_alike(target in any::<[u8; 16]>(), options in options(), asks in any::<bool>()) {
        let body = [&target[..], &options].concat();
        let message = if asks { SOLICITATION } else { ADVERTISEMENT };
        let theirs = NeighborSolicitationPayloadSlice::from_slice(&body).expect("a target");
        let ours = Neighbour::new(&body).expect("a target");
        prop_assert_eq!(ours.target().0, theirs.target_address().octets());
        match (ours.link_layer(message), by_etherparse(&theirs, message)) {
            (Ok(mac), Some(found)) => {
                prop_assert_eq!(mac.map(|mac| mac.0.to_vec()), found.first().cloned());
            }
            (Err(_), None) => {}
            // Two units are a link-layer address to etherparse, but none of Ethernet.
            (Err(_), Some(found)) => prop_assert!(found.first().is_some_and(|mac| mac.len() != 6)),
            (Ok(_), None) => {
                // Faults of options that have nothing to do with the address are etherparse's alone.
                prop_assert!(false, "{:?}", body);
            }
        }
        for octets in 0..16 {
            prop_assert!(Neighbour::new(&body[..octets]).is_none());
        }
    }

    #[test]
    fn arp_is_read_alike(head in any::<[u8; 8]>(), keeps in any::<bool>(), rest in prop::collection::vec(any::<u8>(), 0..40)) {
        let operation = [head[6], head[7]];
        let head = if keeps { [0, 1, 8, 0, 6, 4, operation[0], operation[1]] } else { head };
        let packet = [&head[..], &rest].concat();
        let theirs = ArpPacketSlice::from_slice(&packet).ok().filter(|arp| {
            arp.hw_addr_type() == ArpHardwareId::ETHERNET
                && arp.proto_addr_type() == EtherType::IPV4
                && (arp.hw_addr_size(), arp.proto_addr_size()) == (6, 4)
        });
        let ours = Arp::new(&packet);
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        if let Some((ours, theirs)) = ours.zip(theirs) {
            prop_assert_eq!(ours.operation(), theirs.operation().0);
            prop_assert_eq!(&ours.sender_mac().0[..], theirs.sender_hw_addr());
            prop_assert_eq!(&ours.sender_ip().octets()[..], theirs.sender_protocol_addr());
            prop_assert_eq!(ours.target_mac(), Mac(theirs.target_hw_addr().try_into().expect("six")));
            prop_assert_eq!(&ours.target_ip().octets()[..], theirs.target_protocol_addr());
        }
    }
}
