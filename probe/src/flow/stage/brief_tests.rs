//! Packets that are known in brief give the same rows and records as their headers.

use proptest::prelude::*;

use super::tests::Records;
use super::*;
use crate::decode::brief::Fields;
use crate::decode::{Marks, protocol};
use crate::inventory::{Segment, SegmentKind};
use crate::spread::{HashSeed, name_flow};

const MS: u64 = 1_000_000;
const WINDOW_NS: u64 = 1_000 * MS;

/// A packet as a few octets say.
fn packet([ends, kind, flags, number, way, gap]: [u8; 6], clock: &mut Timestamp) -> Headers {
    // Mostly soon, sometimes behind a timeout.
    let gap_ms = if gap > 250 { 200_000 } else { u64::from(gap) * 4 };
    *clock = *clock + gap_ms * MS;
    let is_tcp = kind & 3 != 0;
    let mut headers = Headers {
        timestamp: Timestamp(clock.0.saturating_sub(u64::from(kind >> 6) * 20 * MS)),
        clock: *clock,
        protocol: if is_tcp { protocol::TCP } else { protocol::UDP },
        ip_version: 4,
        source_port: 40_000 + u16::from(ends % 4),
        destination_port: if ends & 4 == 0 { 80 } else { 8_080 },
        octets: 40 + u32::from(number) * 200,
        tcp_flags: if is_tcp { u16::from(flags & 0x1f) } else { 0 },
        tcp_sequence: if is_tcp { u32::from(number % 3) } else { 0 },
        tap: TapIndex(u16::from(way >> 7)),
        marks: Marks::ETHERNET,
        ..Headers::default()
    };
    (headers.source.0[15], headers.destination.0[15]) = (1, 2);
    (headers.source_mac.0[5], headers.destination_mac.0[5]) = (1, 2);
    if way & 1 != 0 {
        std::mem::swap(&mut headers.source, &mut headers.destination);
        std::mem::swap(&mut headers.source_port, &mut headers.destination_port);
        std::mem::swap(&mut headers.source_mac, &mut headers.destination_mac);
    }
    // Seldom another router, or another segment.
    if way & 0x7e == 0x7e {
        headers.source_mac.0[5] = 3;
    } else if way & 0x7e == 0x7c {
        headers.segment = Segment::new(0, SegmentKind::Vlan, 7);
    }
    name_flow(&mut headers, HashSeed::fixed());
    headers
}

/// The same with what is measured of it: payload, numbers, timestamps, what a SYN says.
fn measured_packet(octets: [u8; 6], [amount, options]: [u8; 2], clock: &mut Timestamp) -> Headers {
    let mut headers = packet(octets, clock);
    headers.payload_octets = u32::from(amount % 4) * 700;
    headers.payload_captured_octets = headers.payload_octets;
    if headers.protocol != protocol::TCP {
        return headers;
    }
    headers.tcp_sequence = 1_000 + u32::from(octets[3] % 8) * 700;
    if headers.tcp_flags & tcp_flag::ACK != 0 {
        headers.tcp_acknowledgement = 1_000 + u32::from(amount % 8) * 700;
    }
    headers.tcp_window = u16::from(amount % 5) * 100;
    if options & 1 != 0 {
        headers.marks.set(Marks::TCP_TIMESTAMP);
        headers.tcp_timestamp_value = u32::from(options / 2 % 8);
        headers.tcp_timestamp_echo = u32::from(amount % 8);
    }
    // Left there in packets that are no SYN it says nothing.
    headers.tcp_syn_options = (u32::from(options % 16) << 16) + u32::from(amount) * 10;
    headers
}

/// How such a packet begins, from its IPv4 header on, as far as it is asked.
fn octets_of(headers: &Headers) -> [u8; 40] {
    let mut octets = [0xa5; 40];
    octets[24..28].copy_from_slice(&headers.tcp_sequence.to_be_bytes());
    octets
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_brief_is_metered_as_its_headers_are(
        packets in prop::collection::vec(any::<[u8; 6]>(), 1..120),
    ) {
        let plan = FlowPlan { slots_per_worker: 4, active_ms: 3_000, ..FlowPlan::default() };
        let stage = || FlowStage::new(&plan).without_measures();
        let (mut long, mut short) = ((stage(), Records::default()), (stage(), Records::default()));
        let mut clock = Timestamp(WINDOW_NS);
        for octets in packets {
            let headers = packet(octets, &mut clock);
            let booking = (WindowNumber::of(headers.timestamp, WINDOW_NS), octets[5] == 7);
            let guess = long.0.guess(headers.hash);
            long.0.meter(&headers, guess, Verdict::First, booking, &mut long.1);
            let brief = Brief::of(&headers).expect("it is of the common shape");
            let guess = short.0.guess(headers.hash);
            if short.0.is_settled(&brief, guess) {
                short.0.count_settled_unheard(guess, &brief, booking, &mut short.1);
            } else {
                let packet = (&brief, &octets_of(&headers)[..]);
                short.0.meter_brief(packet, guess, booking, &mut short.1);
            }
            if octets[1] % 16 == 5 {
                long.0.expire_step(clock, 3, &mut long.1);
                short.0.expire_step(clock, 3, &mut short.1);
            }
        }
        long.0.end_all(clock, &mut long.1);
        short.0.end_all(clock, &mut short.1);
        prop_assert_eq!(long.0.counts(), short.0.counts());
        prop_assert_eq!(format!("{:?}", long.1), format!("{:?}", short.1));
    }

    #[test]
    fn a_known_packet_is_measured_as_its_headers_are(
        packets in prop::collection::vec(any::<([u8; 6], [u8; 2])>(), 1..120),
    ) {
        let plan = FlowPlan { slots_per_worker: 4, active_ms: 3_000, ..FlowPlan::default() };
        let stage = || FlowStage::new(&plan);
        let (mut long, mut short) = ((stage(), Records::default()), (stage(), Records::default()));
        let mut clock = Timestamp(WINDOW_NS);
        for (octets, more) in packets {
            let headers = measured_packet(octets, more, &mut clock);
            let window = WindowNumber::of(headers.timestamp, WINDOW_NS);
            let guess = long.0.guess(headers.hash);
            long.0.meter(&headers, guess, Verdict::First, (window, false), &mut long.1);
            let brief = Brief::of(&headers).expect("it is of the common shape");
            let known = (&brief, &Fields::of_headers(&headers));
            let speech = || Speech::with_payload(known.0, known.1, &[]);
            let guess = short.0.guess(headers.hash);
            if short.0.is_settled(&brief, guess) && more[1] & 0x80 != 0 {
                short.0.count_settled(guess, &brief, (window, false), &mut short.1, speech);
                short.0.measure_settled(guess, known, window, &mut short.1);
            } else {
                short.0.meter_known(guess, known, window, &mut short.1, speech);
            }
        }
        long.0.end_all(clock, &mut long.1);
        short.0.end_all(clock, &mut short.1);
        prop_assert_eq!(long.0.counts(), short.0.counts());
        prop_assert_eq!(format!("{:?}", long.1), format!("{:?}", short.1));
    }
}
