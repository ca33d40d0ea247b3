//! ICMP errors through the whole path: each is a packet of its own flow, and counts on the flow that it
//! quotes, whichever worker that is and however often a mirror shows it.

use std::net::IpAddr;
use std::path::PathBuf;

use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{self, number, text};
use vmprobe_tests::replaying::records_of;

/// Flows, each of which gets as many errors as its number says.
const FLOWS: u8 = 20;

fn ipv4(protocol: u8, identification: u16, ends: [[u8; 4]; 2], payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).expect("short");
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend([0, 0, 64, protocol, 0, 0]);
    packet.extend(ends.concat());
    packet.extend(payload);
    packet
}

/// A question that nobody answers.
fn question(flow: u8, identification: u16) -> Vec<u8> {
    let datagram = [&[0x80, flow, 0, 53, 0, 16, 0, 0][..], b"question"].concat();
    ipv4(17, identification, [[10, 0, 0, 1], [10, 0, 1, flow]], &datagram)
}

/// What a router says of it.
fn error(flow: u8, identification: u16) -> Vec<u8> {
    let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &question(flow, 1)].concat();
    ipv4(1, identification, [[10, 0, 0, 254], [10, 0, 0, 1]], &message)
}

/// Each packet comes `copies` times.
fn capture(folder: &Folder, copies: usize) -> PathBuf {
    let mut packets = Vec::new();
    for flow in 0..FLOWS {
        packets.push(question(flow, 1));
        packets.extend(
            (0..flow).map(|place| error(flow, 0x100 + u16::from(flow) * 32 + u16::from(place))),
        );
    }
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for (place, packet) in packets.iter().enumerate() {
        for copy in 0..copies {
            let micros = u32::try_from(place * 100 + copy).expect("short");
            let octets = u32::try_from(packet.len()).expect("short");
            for word in [1_700_000_000, micros, octets, octets] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
    }
    let path = folder.path("errors.pcap");
    std::fs::write(&path, file).expect("a file");
    path
}

fn check(workers: u16, copies: usize) {
    let folder = Folder::new("icmp-errors");
    let files = [capture(&folder, copies)];
    let flows = records::rows(&records_of(&files, workers, &folder), "flows");
    let errors = u64::from(FLOWS) * u64::from(FLOWS - 1) / 2;
    let (mut quoted, mut own) = (0, 0);
    for flow in &flows {
        let counts = ["icmp_error_count", "reverse_icmp_error_count"].map(|c| number(flow, c));
        if number(flow, "protocol_identifier") == 1 {
            own += number(flow, "packet_delta_count") + number(flow, "reverse_packet_delta_count");
            assert_eq!(counts, [0, 0], "{flow:?}");
            continue;
        }
        let IpAddr::V4(far) = text(flow, "destination_address").expect("one").parse().expect("one")
        else {
            panic!("{flow:?}")
        };
        assert_eq!(counts, [far.octets()[3].into(), 0], "{workers} workers: {flow:?}");
        assert_eq!(number(flow, "packet_delta_count"), 1);
        quoted += counts[0];
    }
    assert_eq!((quoted, own, flows.len()), (errors, errors, usize::from(FLOWS) + 1));
}

#[test]
fn errors_count_on_the_flow_that_they_quote() {
    check(1, 1);
    check(4, 1);
}

#[test]
fn copies_of_an_error_count_once() {
    check(1, 2);
    check(3, 2);
}
