//! Link types of capture files.
//!
//! In: the number in a file or interface header. Out: [`LinkType`] with the FCS length.
//! Invariants: what a frame loses is its FCS, never anything in front of it.
//! Source: the `LINKTYPE_` registry; header word, draft-ietf-opsawg-pcap section 4 (FCS length
//! in 16-bit words in the highest four bits, valid if bit `0x0400_0000` is set).

use crate::capture::LinkType;

const FCS_PRESENT: u32 = 0x0400_0000;
const FCS_SHIFT: u32 = 28;

/// How the frames of one file or interface begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) kind: LinkType,
    /// Octets of frame check sequence at the end of each frame; 0 if none or not known.
    pub(super) fcs_octets: u32,
}

impl Link {
    /// From the last word of a classic file header.
    pub(super) fn of_word(word: u32) -> Self {
        let [_, _, high, low] = word.to_be_bytes();
        let words = if word & FCS_PRESENT == 0 { 0 } else { word >> FCS_SHIFT };
        Self { kind: kind(u16::from_be_bytes([high, low])), fcs_octets: words * 2 }
    }

    /// From a pcapng interface. Its FCS length is octets to some writers and bits to others,
    /// because the format's text said bits where its example was octets; 8, 16, 24 and 32 can
    /// only be bits.
    pub(super) fn of_interface(number: u16, fcs_length: u8) -> Self {
        let octets = if fcs_length != 0 && fcs_length.is_multiple_of(8) {
            fcs_length / 8
        } else {
            fcs_length
        };
        Self { kind: kind(number), fcs_octets: u32::from(octets) }
    }

    /// How many of the captured octets belong to the frame without its FCS. A record that holds
    /// more than the packet had is cut to the packet.
    #[inline]
    pub(super) fn frame_octets(self, captured_octets: u32, original_octets: u32) -> u32 {
        captured_octets.min(original_octets.saturating_sub(self.fcs_octets))
    }
}

fn kind(number: u16) -> LinkType {
    match number {
        1 => LinkType::Ethernet,
        // 12 and 14 are the numbers that BSD systems write for raw IP.
        12 | 14 | 101 | 228 | 229 => LinkType::RawIp,
        113 => LinkType::LinuxSll,
        276 => LinkType::LinuxSll2,
        0 | 108 => LinkType::Loopback,
        other => LinkType::Unsupported(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_low_half_is_the_link_type() {
        assert_eq!(Link::of_word(0x0003_0001).kind, LinkType::Ethernet);
        assert_eq!(Link::of_word(0x0000_0114).kind, LinkType::LinuxSll2);
        assert_eq!(Link::of_word(105).kind, LinkType::Unsupported(105));
    }

    #[test]
    fn fcs_counts_16_bit_words_and_only_with_its_flag() {
        assert_eq!(Link::of_word(0x2400_0001), Link { kind: LinkType::Ethernet, fcs_octets: 4 });
        assert_eq!(Link::of_word(0x2000_0001).fcs_octets, 0);
        assert_eq!(Link::of_word(0x0400_0001).fcs_octets, 0);
    }

    #[test]
    fn fcs_of_an_interface_in_octets_or_bits() {
        assert_eq!(Link::of_interface(1, 0).fcs_octets, 0);
        assert_eq!(Link::of_interface(1, 4).fcs_octets, 4);
        assert_eq!(Link::of_interface(1, 32).fcs_octets, 4);
    }

    #[test]
    fn only_the_fcs_is_taken_off() {
        let link = Link { kind: LinkType::Ethernet, fcs_octets: 4 };
        for (captured, original, frame) in
            [(64, 64, 60), (62, 64, 60), (60, 64, 60), (40, 64, 40), (3, 3, 0), (80, 64, 60)]
        {
            assert_eq!(link.frame_octets(captured, original), frame, "{captured} of {original}");
        }
    }
}
