//! The decoder on any octets: no panic, no payload outside of the frame, and of what is read in brief the
//! same headers.
//!
//! The first four octets choose link type, snap length, port and stripped tag; the rest is the
//! frame.

use std::sync::LazyLock;

use vmprobe::capture::{Frame, LinkType, StrippedVlan};
use vmprobe::config::{DecodePlan, Plan, TapMatch, TapPlan};
use vmprobe::decode::{Brief, DecodeContext, Decoder, Headers};
use vmprobe::index::PortIndex;
use vmprobe::time::Timestamp;

/// One with nothing configured, one with taps of every kind.
static DECODERS: LazyLock<[Decoder; 2]> = LazyLock::new(|| {
    let taps = [
        TapMatch { vlan: Some(100), ..TapMatch::default() },
        TapMatch { erspan_session: Some(5), ..TapMatch::default() },
        TapMatch { gre_key: Some(7), ..TapMatch::default() },
        TapMatch { vxlan_vni: Some(9), ..TapMatch::default() },
    ]
    .map(|matches| TapPlan { matches, ..TapPlan::default() })
    .to_vec();
    let decode = DecodePlan {
        nvgre: true,
        mpls_segments: true,
        gtp_segments: true,
        ..DecodePlan::default()
    };
    let all = Plan { taps, decode, ..Plan::default() };
    [&Plan::default(), &all].map(|plan| Decoder::new(&DecodeContext::new(plan, ["a", "b"])))
});

/// Decodes one frame with both.
pub(crate) fn exercise(input: &[u8]) {
    let Some((&[link, extra, port, tag], bytes)) = input.split_first_chunk() else { return };
    let frame = Frame {
        bytes,
        wire_octets: u32::try_from(bytes.len()).unwrap_or(u32::MAX) + u32::from(extra),
        timestamp: Timestamp::ZERO,
        link: match link % 5 {
            0 => LinkType::Ethernet,
            1 => LinkType::RawIp,
            2 => LinkType::LinuxSll,
            3 => LinkType::LinuxSll2,
            _ => LinkType::Loopback,
        },
        port: PortIndex(u16::from(port % 3)),
        stripped_vlan: (tag != 0)
            .then_some(StrippedVlan { outer_tci: u16::from(tag), inner_tci: None }),
    };
    let mut out = Headers::default();
    for decoder in &*DECODERS {
        let result = decoder.decode(&frame, Timestamp::ZERO, &mut out);
        let end = out.payload_offset as usize + out.payload_captured_octets as usize;
        assert!(end <= bytes.len(), "the payload ends behind the frame");
        if result.is_ok() {
            assert!(matches!(out.ip_version, 4 | 6));
            assert!(out.payload_captured_octets <= out.payload_octets);
            assert!(out.octets >= out.payload_octets);
        }
        if let Some(brief) = brief_of(decoder, &frame) {
            assert!(result.is_ok(), "in brief, but rejected");
            let mut from_brief = Headers::default();
            brief.write_headers(brief.packet_in(&frame), &mut from_brief);
            assert_eq!(format!("{from_brief:?}"), format!("{out:?}"));
        }
    }
}

/// What is read in brief, if that may do.
fn brief_of(decoder: &Decoder, frame: &Frame<'_>) -> Option<Brief> {
    let mut brief = Brief::default();
    let (place, clock) = (decoder.place_of_untagged(frame.port), Timestamp::ZERO);
    let untagged = place.and_then(|place| decoder.brief((frame, clock), place, &mut brief));
    untagged.or_else(|| decoder.brief_of_enclosed(frame, clock, &mut brief)).map(|()| brief)
}
