//! IEEE 802.11 data frames, as CAPWAP carries them.
//!
//! In: an 802.11 frame without FCS. Out: how long its header is, where LLC follows it.
//! Cost: a few compares; only CAPWAP comes here.
//! Invariants: only data frames that are whole, not encrypted and not aggregated are read.
//! Source: IEEE 802.11-2020 section 9.2.4.1 (frame control) and 9.3.2.1 (data frames).

const HEADER_OCTETS: u32 = 24;
const ADDRESS_OCTETS: u32 = 6;
const QOS_OCTETS: u32 = 2;
const HIGH_THROUGHPUT_OCTETS: u32 = 4;

/// Version 0 and type 2 (data).
const DATA: u8 = 0b1000;
const VERSION_AND_TYPE: u8 = 0b1111;
/// Bits of the subtype.
const NO_PAYLOAD: u8 = 0x40;
const QOS: u8 = 0x80;
/// Flags.
const BOTH_SYSTEMS: u8 = 0b11;
const MORE_FRAGMENTS: u8 = 0b100;
const PROTECTED: u8 = 0x40;
const ORDER: u8 = 0x80;

/// Octets of the header whose frame control is `control`, LLC behind it. `None` for frames without
/// payload that can be read. Some access points send the two octets the other way round.
pub(super) fn header_octets(control: [u8; 2]) -> Option<u32> {
    let [first, second] = control;
    let (kind, flags) = match (first & VERSION_AND_TYPE == DATA, second & VERSION_AND_TYPE == DATA)
    {
        (true, _) => (first, second),
        (false, true) => (second, first),
        (false, false) => return None,
    };
    if kind & NO_PAYLOAD != 0 || flags & (PROTECTED | MORE_FRAGMENTS) != 0 {
        return None;
    }
    let mut octets = HEADER_OCTETS;
    if flags & BOTH_SYSTEMS == BOTH_SYSTEMS {
        octets += ADDRESS_OCTETS;
    }
    if kind & QOS != 0 {
        octets += QOS_OCTETS;
        if flags & ORDER != 0 {
            octets += HIGH_THROUGHPUT_OCTETS;
        }
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::header_octets;

    #[test]
    fn lengths_follow_the_frame_control() {
        for (control, octets) in [
            ([0x08, 0x01], Some(24)),
            ([0x08, 0x02], Some(24)),
            ([0x08, 0x03], Some(30)),
            ([0x88, 0x01], Some(26)),
            ([0x88, 0x81], Some(30)),
            ([0x88, 0x83], Some(36)),
            ([0x11, 0x08], Some(24)),
            ([0x02, 0x88], Some(26)),
            ([0x48, 0x01], None),
            ([0xc8, 0x01], None),
            ([0x08, 0x41], None),
            ([0x08, 0x05], None),
            ([0x80, 0x00], None),
            ([0xb4, 0x00], None),
            ([0x09, 0x01], None),
        ] {
            assert_eq!(header_octets(control), octets, "{control:x?}");
        }
    }
}
