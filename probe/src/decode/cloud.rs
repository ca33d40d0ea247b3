//! GENEVE options by which clouds say where they took a packet.
//!
//! In: the options of a GENEVE header. Out: [`TapOptions`]: where the packet was taken, kept beside the
//! tap.
//! Cost: one length check an option; only GENEVE with options comes here.
//! Invariants: options name no segment; unknown and broken ones are left out.
//! Source: format, RFC 8926 section 3.5; classes, IANA "GENEVE Option Class"; AWS, "Gateway Load
//! Balancers: GENEVE protocol"; Google, "Packet mirroring with Network Security Integration".

/// Amazon.
const CLASS_AWS: u16 = 0x0108;
/// Google.
const CLASS_GOOGLE: u16 = 0x0132;
/// Another cloud's load balancer, whose three options are Amazon's.
const CLASS_LIKE_AWS: u16 = 0x0167;

/// Where a cloud took a packet; 0 where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapOptions {
    /// Amazon: VPC endpoint. Google: virtual network, 28 bits.
    pub endpoint: u64,
    /// Amazon: attachment. Google: profile of the endpoint group.
    pub attachment: u64,
    /// Amazon: the load balancer's name of the flow.
    pub flow_cookie: u32,
}

impl TapOptions {
    /// Reads all options. `None` where no cloud says anything.
    pub(super) fn of(mut options: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        while let Some((&[high, low, kind, length], rest)) = options.split_first_chunk() {
            let octets = usize::from(length & 0x1f) * 4;
            let Some((value, rest)) = rest.split_at_checked(octets) else { break };
            found.note(u16::from_be_bytes([high, low]), kind & 0x7f, value);
            options = rest;
        }
        (found != Self::default()).then_some(found)
    }

    fn note(&mut self, class: u16, kind: u8, value: &[u8]) {
        let short = value.first_chunk().map(|octets| u32::from_be_bytes(*octets));
        let long = value.first_chunk().map(|octets| u64::from_be_bytes(*octets));
        match (class, kind) {
            (CLASS_AWS | CLASS_LIKE_AWS, 1) => self.endpoint = long.unwrap_or(0),
            (CLASS_AWS | CLASS_LIKE_AWS, 2) | (CLASS_GOOGLE, 3) => {
                self.attachment = long.unwrap_or(0);
            }
            (CLASS_AWS | CLASS_LIKE_AWS, 3) => self.flow_cookie = short.unwrap_or(0),
            // The direction stands in the lowest bits.
            (CLASS_GOOGLE, 1) => self.endpoint = u64::from(short.unwrap_or(0) >> 4),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Marks;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, tcp, udp, vxlan,
    };

    const AWS: [u8; 32] = [
        1, 8, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 1, 8, 2, 2, 0, 0, 0, 0, 0, 0, 0, 9, 1, 8, 3, 1, 0xca,
        0xfe, 0, 1,
    ];
    const GOOGLE: [u8; 20] =
        [1, 0x32, 1, 1, 0x80, 0, 0, 0xd1, 1, 0x32, 3, 2, 0, 0, 0, 0, 0, 0, 0x12, 0x34];

    fn geneve(options: &[u8], inner: &[u8]) -> Vec<u8> {
        let words = u8::try_from(options.len() / 4).expect("short");
        let header = [words, 0, 8, 0, 0, 0, 0, 0];
        ethernet(&ipv4(17, &udp(5, 6081, &[&header[..], options, inner].concat())))
    }

    #[test]
    fn options_of_clouds_are_kept() {
        let inner = ipv4(17, &udp(1, 2, b"x"));
        for (options, endpoint, attachment, flow_cookie) in
            [(&AWS[..], 0x0001_0203_0405_0607, 9, 0xcafe_0001), (&GOOGLE, 0x0800_000d, 0x1234, 0)]
        {
            let frame = geneve(options, &inner);
            let expected = Some(TapOptions { endpoint, attachment, flow_cookie });
            let headers = decode(&frame).expect("inner");
            assert_eq!(headers.tap_options(), expected);
            assert_eq!(headers.destination_port, 2);
            every_shorter_length(&frame, |at, outcome| {
                let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
                if let (Ok(headers), 54..) = (result, at) {
                    assert_eq!(headers.tap_options(), expected, "{at}");
                }
            });
        }
    }

    #[test]
    fn acknowledgements_keep_their_sack_blocks_beside_them() {
        let sack = [1, 1, 5, 18, 0, 0, 0, 7, 0, 0, 0, 9, 0xff, 0, 0, 1, 0xff, 0, 0, 2];
        let decode_with = |options: &[u8], payload: &[u8]| {
            let frame = geneve(options, &ipv4(6, &tcp(0x10, &sack, payload)));
            decode(&frame).expect("inner")
        };
        let edges = [7, 9, 0xff00_0001, 0xff00_0002];
        for options in [&[][..], &AWS, &GOOGLE] {
            let headers = decode_with(options, &[]);
            assert_eq!(headers.tcp_sack(), Some(edges));
            assert_eq!(headers.tap_options().is_some(), !options.is_empty());
            assert_eq!(headers.payload_captured_octets, 0, "what they stand in is no payload");
        }
        assert_eq!(decode_with(&[], b"abc").tcp_sack(), Some(edges));
        let both = decode_with(&AWS, b"abc");
        assert_eq!(both.tcp_sack(), None);
        assert_eq!(both.payload_head.first_chunk(), Some(b"abc"));
        assert_eq!(both.tap_options().map(|options| options.attachment), Some(9));
    }

    #[test]
    fn what_no_cloud_says_is_left_out() {
        let inner = ipv4(17, &udp(1, 2, b"x"));
        for options in [&[][..], &[1, 2, 1, 1, 9, 9, 9, 9], &[1, 8, 9, 0], &[1, 8, 1, 0x1f]] {
            let headers = decode(&geneve(options, &inner)).expect("inner");
            assert_eq!(headers.tap_options(), None);
            assert!(!headers.marks.has(Marks::TAP_OPTIONS));
        }
        for length in 0..AWS.len() {
            let part = AWS.get(..length).expect("shorter");
            assert_eq!(TapOptions::of(part).is_some(), length >= 12, "{length}");
        }
    }

    #[test]
    fn a_tenant_cannot_name_a_tap() {
        let inner = geneve(&AWS, &ipv4(17, &udp(1, 2, b"x")));
        assert_eq!(decode(&vxlan(7, &inner)).expect("inner").tap_options(), None);
    }
}
