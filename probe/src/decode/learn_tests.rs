//! Tests of what packets show: handmade ones, and octets of no meaning.

use proptest::prelude::*;

use super::*;
use crate::config::Plan;
use crate::decode::Decoder;
use crate::decode::testing::{
    decoder_of, ethernet, every_shorter_length, frame_of, segment_text, tagged, udp, vxlan,
    with_ether_type,
};
use crate::time::Timestamp;

/// All frames of `testing` are from here to 02:00:00:00:00:02.
const SENDER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ALL: Lessons = Lessons { arp: true, nd: true, dhcp: true };

fn decoder() -> Decoder {
    let mut plan = Plan::default();
    plan.inventory.learned.enabled = true;
    decoder_of(&plan)
}

type Shown = Result<Option<Evidence>, Unlearned>;

/// What a frame shows, and its segment; `None` where it is not looked at.
fn look(bytes: &[u8], lessons: Lessons) -> Option<(Shown, String)> {
    let mut headers = Headers::default();
    let cause = decoder().decode(&frame_of(bytes), Timestamp(5), &mut headers).err();
    let shown = lessons.concern(&headers, cause).then(|| evidence(bytes, &headers, cause));
    shown.map(|shown| (shown, segment_text(&headers)))
}

fn shown(bytes: &[u8]) -> Shown {
    look(bytes, ALL).expect("it is looked at").0
}

fn arp(operation: u8, mac: [u8; 6], ip: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let packet = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &ip, &[0; 6], &target, &[0; 18]];
    with_ether_type(0x0806, &packet.concat())
}

/// With hop limit 255.
fn icmp6(source: [u8; 16], destination: [u8; 16], message: &[u8]) -> Vec<u8> {
    let octets = u16::try_from(message.len()).expect("short").to_be_bytes();
    let header = [0x60, 0, 0, 0, octets[0], octets[1], 58, 255];
    with_ether_type(0x86dd, &[&header[..], &source, &destination, message].concat())
}

const fn fe80(last: u8) -> [u8; 16] {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

const SOURCE_OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 1];
const TARGET_OPTION: [u8; 8] = [2, 1, 2, 0, 0, 0, 0, 1];
const OTHER_OPTION: [u8; 8] = [2, 1, 2, 0, 0, 0, 0, 9];

fn neighbour(kind: u8, flags: u8, source: [u8; 16], options: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &fe80(7), options].concat();
    icmp6(source, fe80(2), &message)
}

/// An acknowledgement for a client, as a frame to `to`.
fn dhcp(client: [u8; 6], to: [u8; 6], options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[16..20].copy_from_slice(&[10, 0, 0, 7]);
    message[28..34].copy_from_slice(&client);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 5]);
    message.extend(options);
    let mut frame = ethernet(&crate::decode::testing::ipv4(17, &udp(67, 68, &message)));
    frame[..6].copy_from_slice(&to);
    frame
}

fn dhcp_v6(destination: [u8; 16]) -> Vec<u8> {
    let given = [&[0xfd; 16][..], &[0, 0, 0, 60, 0, 0, 0, 120]].concat();
    let association = [&[0; 12][..], &[0, 5, 0, 24], &given].concat();
    let message = [&[7, 1, 2, 3, 0, 3, 0, 40][..], &association].concat();
    let datagram = udp(547, 546, &message);
    let mut frame = icmp6(fe80(1), destination, &datagram);
    frame[14 + 6] = 17;
    frame
}

fn one(shown: Shown) -> (String, Means) {
    let evidence = shown.expect("sound").expect("something");
    assert_eq!(evidence.mac, SENDER);
    (evidence.address.to_ip(evidence.ip_version).to_string(), evidence.means)
}

#[test]
fn the_sender_of_an_arp_packet_is_learned() {
    for operation in [1, 2] {
        let (address, means) = one(shown(&arp(operation, SENDER.0, [10, 0, 0, 1], [10, 0, 0, 9])));
        assert_eq!((&*address, means), ("10.0.0.1", Means::Arp));
    }
    // Gratuitous, in a tenant's network: the segment is that of the packet.
    let announced = vxlan(7, &arp(1, SENDER.0, [10, 0, 0, 1], [10, 0, 0, 1]));
    let (result, segment) = look(&announced, ALL).expect("it is looked at");
    assert_eq!((one(result).0, &*segment), ("10.0.0.1".to_owned(), "default/vxlan/7"));
    assert_eq!(shown(&arp(1, SENDER.0, [0; 4], [10, 0, 0, 1])), Ok(None), "a probe");
    for (operation, mac, ip, why) in [
        (3, SENDER.0, [10, 0, 0, 1], Unlearned::Malformed),
        (1, [2, 0, 0, 0, 0, 9], [10, 0, 0, 1], Unlearned::NotOfSender),
        (2, SENDER.0, [255; 4], Unlearned::NotUnicast),
        (2, SENDER.0, [224, 0, 0, 1], Unlearned::NotUnicast),
        (2, SENDER.0, [127, 0, 0, 1], Unlearned::NotUnicast),
        (2, SENDER.0, [0, 0, 0, 1], Unlearned::NotUnicast),
    ] {
        assert_eq!(shown(&arp(operation, mac, ip, [10, 0, 0, 9])), Err(why), "{operation} {ip:?}");
    }
    let mut group = arp(2, [3, 0, 0, 0, 0, 1], [10, 0, 0, 1], [10, 0, 0, 9]);
    group[6] = 3;
    assert_eq!(shown(&group), Err(Unlearned::NotUnicast));
}

#[test]
fn neighbours_are_learned_if_no_router_can_have_sent_them() {
    for (frame, address, means) in [
        (neighbour(136, 0x60, fe80(7), &TARGET_OPTION), "fe80::7", Means::Neighbour),
        (neighbour(136, 0x20, fe80(7), &[]), "fe80::7", Means::Neighbour),
        (neighbour(135, 0, fe80(3), &SOURCE_OPTION), "fe80::3", Means::Neighbour),
        (neighbour(135, 0, [0; 16], &[]), "fe80::7", Means::Tentative),
    ] {
        assert_eq!(one(shown(&frame)), (address.to_owned(), means));
        let mut routed = frame.clone();
        routed[14 + 7] = 64;
        assert_eq!(shown(&routed), Err(Unlearned::Malformed));
        let tag = look(&tagged(&frame, &[(0x8100, 42)]), ALL).expect("it is looked at");
        assert_eq!(tag.1, "default/vlan/42");
    }
    assert_eq!(shown(&neighbour(136, 0x40, fe80(7), &TARGET_OPTION)), Ok(None), "a proxy");
    assert_eq!(shown(&neighbour(136, 0x20, fe80(7), &OTHER_OPTION)), Err(Unlearned::NotOfSender));
    assert_eq!(shown(&neighbour(136, 0x20, fe80(7), &[2, 0])), Err(Unlearned::Malformed));
    let multicast = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &[0xff; 16]].concat();
    assert_eq!(shown(&icmp6(fe80(7), fe80(2), &multicast)), Err(Unlearned::NotUnicast));
    assert_eq!(shown(&icmp6(fe80(7), fe80(2), &multicast[..20])), Err(Unlearned::Malformed));
    assert!(look(&icmp6(fe80(7), fe80(2), &[128, 0, 0, 0, 0, 0, 0, 0]), ALL).is_none(), "echo");
}

#[test]
fn leases_are_learned_on_the_link_of_the_client() {
    let options = [51, 4, 0, 0, 0x0e, 0x10, 12, 3, b'w', b'e', b'b', 255];
    for to in [SENDER.0, [0xff; 6]] {
        let lease = shown(&dhcp(SENDER.0, to, &options)).expect("sound").expect("a lease");
        assert_eq!((lease.mac, lease.means, lease.lease_s), (SENDER, Means::Dhcp, 3_600));
        assert_eq!((lease.name.text(), lease.name_refused), (Some("web"), false));
        assert_eq!(lease.address.to_ip(4).to_string(), "10.0.0.7");
    }
    assert_eq!(shown(&dhcp(SENDER.0, [2, 0, 0, 0, 0, 9], &options)), Err(Unlearned::OffLink));
    assert_eq!(shown(&dhcp([0; 6], [0xff; 6], &options)), Err(Unlearned::NotUnicast));
    let odd = shown(&dhcp(SENDER.0, SENDER.0, &[12, 3, b'<', b'b', b'>'])).expect("sound");
    assert!(odd.is_some_and(|lease| lease.name_refused && lease.name.text().is_none()));
    assert_eq!(shown(&dhcp(SENDER.0, SENDER.0, &[12, 9])), Err(Unlearned::Malformed));
    let six = shown(&dhcp_v6(fe80(9))).expect("sound").expect("a lease");
    assert_eq!(
        (six.address, six.lease_s, six.mac),
        (Address([0xfd; 16]), 120, Mac([2, 0, 0, 0, 0, 2]))
    );
    assert_eq!(shown(&dhcp_v6([0xfd; 16])), Err(Unlearned::OffLink), "to a relay, or routed");
    // To a relay, and what clients say.
    for ports in [(67, 67), (68, 67)] {
        let frame = ethernet(&crate::decode::testing::ipv4(17, &udp(ports.0, ports.1, &[0; 300])));
        assert!(look(&frame, ALL).is_none(), "{ports:?}");
    }
}

#[test]
fn only_what_is_asked_for_is_looked_at() {
    let frames = [
        arp(1, SENDER.0, [10, 0, 0, 1], [10, 0, 0, 9]),
        neighbour(136, 0x20, fe80(7), &TARGET_OPTION),
        dhcp(SENDER.0, SENDER.0, &[]),
    ];
    for (place, frame) in frames.iter().enumerate() {
        let lessons = Lessons { arp: place == 0, nd: place == 1, dhcp: place == 2 };
        assert!(look(frame, lessons).is_some(), "{place}");
        let others = Lessons { arp: place != 0, nd: place != 1, dhcp: place != 2 };
        assert!(look(frame, others).is_none(), "{place}");
    }
}

/// With learning, such datagrams are never read in brief: settled flows are not looked at.
#[test]
fn answers_of_servers_are_not_read_in_brief() {
    let bytes = dhcp(SENDER.0, SENDER.0, &[]);
    let frame = frame_of(&bytes);
    let mut brief = crate::decode::Brief::default();
    let mut is_brief = |decoder: &Decoder| {
        let place = decoder.place_of_untagged(frame.port).expect("one place for all");
        decoder.brief((&frame, Timestamp(5)), place, &mut brief).is_some()
    };
    assert!(!is_brief(&decoder()));
    assert!(is_brief(&decoder_of(&Plan::default())));
    let inside = vxlan(7, &bytes);
    let frame = frame_of(&inside);
    assert!(decoder().brief_of_enclosed(&frame, Timestamp(5), &mut brief).is_none());
    assert!(look(&inside, ALL).expect("it is looked at").0.is_ok_and(|lease| lease.is_some()));
}

#[test]
fn every_shorter_packet_shows_the_same_or_nothing() {
    for frame in [
        arp(1, SENDER.0, [10, 0, 0, 1], [10, 0, 0, 9]),
        neighbour(136, 0x20, fe80(7), &TARGET_OPTION),
        dhcp(SENDER.0, SENDER.0, &[51, 4, 0, 0, 0x0e, 0x10, 255]),
        dhcp_v6(fe80(9)),
    ] {
        let whole = shown(&frame).expect("sound");
        for octets in 0..frame.len() {
            let part = &frame[..octets];
            let cut = crate::capture::Frame {
                wire_octets: frame_of(&frame).wire_octets,
                ..frame_of(part)
            };
            let mut headers = Headers::default();
            let cause = decoder().decode(&cut, Timestamp(5), &mut headers).err();
            if ALL.concern(&headers, cause) {
                match evidence(part, &headers, cause) {
                    Ok(Some(found)) => assert_eq!(found.address, whole.expect("something").address),
                    Ok(None) | Err(Unlearned::Cut | Unlearned::Malformed) => {}
                    Err(why) => panic!("{octets}: {why:?}"),
                }
            }
        }
        every_shorter_length(&frame, |_, _| {});
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Changed somewhere, it never panics, and what is learned could be somebody's.
    #[test]
    fn changed_packets_show_nothing_unsound(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut frame = match which {
            0 => arp(1, SENDER.0, [10, 0, 0, 1], [10, 0, 0, 9]),
            1 => neighbour(135, 0, fe80(3), &[SOURCE_OPTION, TARGET_OPTION].concat()),
            2 => dhcp(SENDER.0, SENDER.0, &[51, 4, 0, 0, 0x0e, 0x10, 12, 3, b'w', b'e', b'b', 255]),
            _ => dhcp_v6(fe80(9)),
        };
        for (place, value) in changes {
            let place = place.index(frame.len());
            frame[place] = value;
        }
        if is_cut {
            frame.truncate(cut.index(frame.len()));
        }
        if let Some((Ok(Some(found)), _)) = look(&frame, ALL) {
            prop_assert!(found.mac.0[0] & 1 == 0);
            let ip = found.address.to_ip(found.ip_version);
            prop_assert!(!ip.is_multicast() && !ip.is_unspecified() && !ip.is_loopback());
        }
    }

    /// Octets of no meaning behind each of the headers.
    #[test]
    fn any_octets_are_read(octets in prop::collection::vec(any::<u8>(), 0..400), which in 0..4_usize) {
        let frame = match which {
            0 => with_ether_type(0x0806, &octets),
            1 => icmp6(fe80(1), fe80(2), &[&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &octets].concat()),
            2 => ethernet(&crate::decode::testing::ipv4(17, &udp(67, 68, &octets))),
            _ => ethernet(&crate::decode::testing::ipv4(17, &udp(547, 546, &octets))),
        };
        let _ = look(&frame, ALL);
        let _ = dhcp::acknowledged(&octets);
        let _ = dhcp::replied(&octets);
    }
}
