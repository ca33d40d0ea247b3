//! Frames for the tests of the decoders, made octet by octet.
//!
//! In: payloads. Out: packets around them, and what the decoder says of them at every length.

use std::sync::Arc;

use super::{DecodeContext, Decoder, Headers};
use crate::capture::{Frame, LinkType};
use crate::config::{Plan, TapMatch, TapPlan};
use crate::counters::DropCause;
use crate::index::{PortIndex, TapIndex};
use crate::inventory::{Segment, SegmentKind};
use crate::time::Timestamp;

/// What became of a frame that was cut.
pub(super) enum Outcome {
    /// The capture ended; the frame was longer on the wire.
    Snapped(Result<Headers, DropCause>),
    /// The frame itself was shorter.
    WireShort(Result<Headers, DropCause>),
}

/// A whole Ethernet frame of port 0.
pub(super) fn frame_of(bytes: &[u8]) -> Frame<'_> {
    Frame {
        bytes,
        wire_octets: u32::try_from(bytes.len()).expect("short"),
        timestamp: Timestamp::ZERO,
        link: LinkType::Ethernet,
        port: PortIndex(0),
        stripped_vlan: None,
    }
}

/// A decoder with one port.
pub(super) fn decoder_of(plan: &Plan) -> Decoder {
    Decoder::new(&DecodeContext::new(plan, ["port"]))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Headers, DropCause> {
    decode_with(&decoder_of(&Plan::default()), &frame_of(bytes))
}

pub(super) fn decode_with(decoder: &Decoder, frame: &Frame<'_>) -> Result<Headers, DropCause> {
    let mut out = Headers::default();
    decoder.decode(frame, Timestamp::ZERO, &mut out).map(|()| out)
}

/// Feeds every prefix of `bytes`, as cut by the capture and as cut on the wire. Whatever the
/// outcome, no payload lies outside of what was captured.
pub(super) fn every_shorter_length(bytes: &[u8], mut check: impl FnMut(usize, Outcome)) {
    let decoder = decoder_of(&Plan::default());
    for length in 0..bytes.len() {
        let part = bytes.get(..length).expect("shorter");
        let short = frame_of(part);
        let snapped = Frame { wire_octets: frame_of(bytes).wire_octets, ..short };
        for (frame, is_snapped) in [(snapped, true), (short, false)] {
            let result = decode_with(&decoder, &frame);
            if let Ok(headers) = &result {
                let end = headers.payload_offset + headers.payload_captured_octets;
                assert!(end as usize <= length, "payload ends at {end} of {length}");
                assert!(headers.payload_captured_octets <= headers.payload_octets);
            }
            check(
                length,
                if is_snapped { Outcome::Snapped(result) } else { Outcome::WireShort(result) },
            );
        }
    }
}

pub(super) fn segment_text(headers: &Headers) -> String {
    headers.segment.text(&["default".to_owned()])
}

pub(super) fn set_u16(bytes: &mut [u8], place: usize, value: u16) {
    let field = bytes.get_mut(place..place + 2).expect("inside");
    field.copy_from_slice(&value.to_be_bytes());
}

pub(super) fn with_ether_type(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &ether_type.to_be_bytes(), payload].concat()
}

/// An IPv4 packet in Ethernet.
pub(super) fn ethernet(packet: &[u8]) -> Vec<u8> {
    with_ether_type(0x0800, packet)
}

/// `frame` with `tags` (type, control information), the first one outermost.
pub(super) fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tags = tags.iter().flat_map(|(kind, control)| [kind.to_be_bytes(), control.to_be_bytes()]);
    [addresses, &tags.flatten().collect::<Vec<u8>>(), rest].concat()
}

/// 10.0.0.1 to 10.0.0.2, identification 0x1234, no checksum.
pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(payload.len() + 20).expect("short").to_be_bytes();
    let header = [
        0x45, 0, total[0], total[1], 0x12, 0x34, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    [&header[..], payload].concat()
}

/// fd00::1 to fd00::2, traffic class 0xb8.
pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![0x6b, 0x80, 0, 0, length[0], length[1], next, 64];
    for last in [1, 2] {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(payload);
    bytes
}

pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).expect("short");
    let mut bytes = Vec::new();
    for field in [source, destination, length, 0xbeef] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// 40000 to 443, sequence 0x01020304, acknowledgement 0x05060708, window 512. `options` has a
/// multiple of four octets; where it has not, no-operations are added.
pub(super) fn tcp(flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let padded = options.len().next_multiple_of(4);
    let words = u16::try_from(5 + padded / 4).expect("short");
    let mut bytes = [40000_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat();
    bytes.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    bytes.extend((flags | (words << 12)).to_be_bytes());
    bytes.extend([2, 0, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.resize(20 + padded, 1);
    bytes.extend(payload);
    bytes
}

/// `frame` in VXLAN in UDP in IPv4 in Ethernet.
pub(super) fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let payload = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat();
    ethernet(&ipv4(17, &udp(50000, 4789, &payload)))
}

/// `inner` in GRE in IPv4 in Ethernet; `flags` say whether there are a checksum (0), a key and a
/// sequence number (0xabcd).
pub(super) fn gre(flags: u16, protocol_type: u16, key: u32, inner: &[u8]) -> Vec<u8> {
    let mut bytes = [flags.to_be_bytes(), protocol_type.to_be_bytes()].concat();
    if flags & 0x8000 != 0 {
        bytes.extend([0; 4]);
    }
    if flags & 0x2000 != 0 {
        bytes.extend(key.to_be_bytes());
    }
    if flags & 0x1000 != 0 {
        bytes.extend(0xabcd_u32.to_be_bytes());
    }
    bytes.extend(inner);
    ethernet(&ipv4(47, &bytes))
}

/// `frame` in ERSPAN, with a GRE sequence number: type II, whose third octet says how it was tagged and
/// whether it was cut, of VLAN 100 and session 5.
pub(super) fn erspan_ii(third: u8, frame: &[u8]) -> Vec<u8> {
    gre(0x1000, 0x88be, 0, &[&[0x10, 100, third, 5, 0, 0, 0, 1][..], frame].concat())
}

/// The same of type III, whose last octet says whether a subheader follows.
pub(super) fn erspan_iii(last: u8, subheader: &[u8], frame: &[u8]) -> Vec<u8> {
    let header = [0x20, 100, 0, 5, 0, 0, 0, 9, 0, 0, 0, last];
    gre(0x1000, 0x22eb, 0, &[&header[..], subheader, frame].concat())
}

/// `frame` as mirrors send it, and in tunnels that look like theirs.
pub(super) fn mirrored(frame: &[u8]) -> Vec<Vec<u8>> {
    let tag = tagged(frame, &[(0x8100, 9)]);
    let mut other_source = erspan_ii(0, frame);
    other_source[29] = 9;
    vec![
        tagged(frame, &[(0x8100, 100)]),
        tagged(&vxlan(9, frame), &[(0x8100, 100)]),
        tagged(&tag, &[(0x8100, 100)]),
        gre(0, 0x88be, 0, frame),
        erspan_ii(0, frame),
        erspan_ii(4, &tag),
        erspan_ii(2 << 3, frame),
        erspan_ii(2 << 3, &tag),
        erspan_ii(2 << 3, &vxlan(9, &tag)),
        erspan_ii(3 << 3, &tag),
        erspan_ii(0, &vxlan(4_242, frame)),
        erspan_ii(0, &vxlan(7, &tag)),
        erspan_ii(0, &erspan_ii(0, frame)),
        erspan_iii(8, &[], frame),
        erspan_iii(1, &[0; 8], frame),
        tagged(&erspan_ii(0, frame), &[(0x8100, 6)]),
        tagged(&erspan_ii(0, frame), &[(0x8100, 100)]),
        other_source,
        vxlan(7, frame),
        vxlan(7, &tag),
        vxlan(9, &erspan_ii(0, frame)),
        gre(0, 0x6558, 0, frame),
        gre(0x3000, 0x6558, 7, frame),
        gre(0x3000, 0x6558, 8, &tag),
        gre(0xb000, 0x6558, 7, &vxlan(9, frame)),
        gre(0x3000, 0x6558, 0x1234, &vxlan(9, frame)),
    ]
}

/// Plans with taps that claim some of them, and without.
pub(super) fn mirror_plans() -> [Plan; 4] {
    let with = |taps: Vec<TapMatch>| {
        let tap = |matches| TapPlan { matches, ..TapPlan::default() };
        Plan { taps: taps.into_iter().map(tap).collect(), ..Plan::default() }
    };
    let any = TapMatch::default();
    let tunnels = vec![
        TapMatch { erspan_session: Some(5), ..any.clone() },
        TapMatch { outer_source: "10.0.0.9".parse().ok(), ..any.clone() },
        TapMatch { gre_key: Some(7), ..any.clone() },
        TapMatch { vxlan_vni: Some(7), ..any.clone() },
        TapMatch { erspan_session: Some(5), vlan: Some(6), ..any.clone() },
    ];
    let vlan = TapMatch { vlan: Some(100), ..any.clone() };
    let all = [tunnels.clone(), vec![any, vlan.clone()]].concat();
    let mut shallow = with(all.clone());
    shallow.decode.depth_max = 1;
    shallow.decode.nvgre = true;
    [Plan::default(), with(vec![vlan]), with(all), shallow]
}

/// How many there are of [`decoders`].
pub(super) const DECODERS: usize = 6;

/// One with each of these plans, and two that know stations: of the taps that claim an ERSPAN session and
/// a VNI, and of the port's tap.
pub(super) fn decoders(which: usize) -> Decoder {
    let plans = mirror_plans();
    match (plans.get(which), which) {
        (Some(plan), _) => decoder_of(plan),
        (None, 4) => with_stations(&plans[2], &[0, 3]),
        (None, _) => with_stations(&plans[2], &[5]),
    }
}

fn with_stations(plan: &Plan, taps: &[u16]) -> Decoder {
    let context = DecodeContext::new(plan, ["port"]);
    let mut map = (**context.map()).clone();
    for tap in taps {
        let tenant = Segment::new(0, SegmentKind::Vlan, 77);
        assert!(map.place(TapIndex(*tap), [2, 0, 0, 0, 0, 1], tenant));
    }
    Decoder::new(&context.with_map(Arc::new(map)))
}
