//! Classic pcap files.
//!
//! In: the file header, then windows that begin at a record. Out: one [`Step`] a window.
//! Cost: a few instructions a record, no copy.
//! Invariants: a stamp's fraction may exceed a second, the stamp is then later by that much.
//! Source: draft-ietf-opsawg-pcap sections 4 and 5; the modified header (magic 0xa1b2cd34), with
//! 8 more octets a record for interface, protocol and packet type, is Alexey Kuznetzov's.

use super::error::Damage;
use super::link::Link;
use super::record::{Order, Packet, Step};
use super::{CAPTURED_OCTETS_MAX, MAGIC_MICROSECONDS, MAGIC_MODIFIED, MAGIC_NANOSECONDS};
use crate::capture::STAMP_MAX;
use crate::index::PortIndex;
use crate::time::Timestamp;

/// Length of the file header.
pub(super) const HEADER_BYTES: usize = 24;

/// Seconds and fraction have 32 bits each, so the largest stamp of this format needs no cutting.
const _: () = assert!(
    Timestamp::from_parts(u32::MAX as u64, u32::MAX as u64 * 1_000).as_ns() < STAMP_MAX.as_ns()
);

const RECORD_HEADER_BYTES: usize = 16;
const MODIFIED_RECORD_HEADER_BYTES: usize = 24;

/// How to read the records of one file.
#[derive(Debug)]
pub(super) struct Classic {
    order: Order,
    ns_per_fraction: u64,
    header_bytes: usize,
    /// Before version 2.3 the original length stood first; 2.3 was written in both ways.
    lengths: Lengths,
    link: Link,
    port: PortIndex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lengths {
    CapturedFirst,
    OriginalFirst,
    LargerIsOriginal,
}

/// Whether a file that begins with `magic` is a classic one, and in which byte order.
pub(super) fn recognise(magic: [u8; 4]) -> Option<Order> {
    [Order::Little, Order::Big].into_iter().find(|order| {
        [MAGIC_MICROSECONDS, MAGIC_NANOSECONDS, MAGIC_MODIFIED].contains(&order.u32(magic))
    })
}

impl Classic {
    /// From the file header, whose magic was recognised.
    ///
    /// # Errors
    /// [`Damage::Version`] if the major version is not 2.
    pub(super) fn new(
        header: &[u8; HEADER_BYTES],
        order: Order,
        port: PortIndex,
    ) -> Result<Self, Damage> {
        let [m0, m1, m2, m3, major0, major1, minor0, minor1, .., l0, l1, l2, l3] = *header;
        let magic = order.u32([m0, m1, m2, m3]);
        let (major, minor) = (order.u16([major0, major1]), order.u16([minor0, minor1]));
        if major != 2 {
            return Err(Damage::Version { major, minor });
        }
        Ok(Self {
            order,
            ns_per_fraction: if magic == MAGIC_NANOSECONDS { 1 } else { 1_000 },
            header_bytes: if magic == MAGIC_MODIFIED {
                MODIFIED_RECORD_HEADER_BYTES
            } else {
                RECORD_HEADER_BYTES
            },
            lengths: match minor {
                0..=2 => Lengths::OriginalFirst,
                3 => Lengths::LargerIsOriginal,
                _ => Lengths::CapturedFirst,
            },
            link: Link::of_word(order.u32([l0, l1, l2, l3])),
            port,
        })
    }

    /// Reads the record at the begin of `window`.
    #[inline]
    pub(super) fn step(&self, window: &[u8]) -> Step {
        let Some(header) = window.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Step::More(self.header_bytes);
        };
        let [s0, s1, s2, s3, f0, f1, f2, f3, c0, c1, c2, c3, o0, o1, o2, o3] = *header;
        let first = self.order.u32([c0, c1, c2, c3]);
        let second = self.order.u32([o0, o1, o2, o3]);
        let (captured, original) = self.lengths(first, second);
        if captured > CAPTURED_OCTETS_MAX {
            return Step::Broken(Damage::CapturedLength { captured_octets: captured });
        }
        let record_bytes = self.header_bytes + captured as usize;
        if window.len() < record_bytes {
            return Step::More(record_bytes);
        }
        let fraction = u64::from(self.order.u32([f0, f1, f2, f3]));
        let packet = Packet {
            timestamp: Timestamp::from_parts(
                u64::from(self.order.u32([s0, s1, s2, s3])),
                fraction * self.ns_per_fraction,
            ),
            begin: self.header_bytes,
            frame_octets: self.link.frame_octets(captured, original),
            original_octets: original,
            link: self.link.kind,
            port: self.port,
        };
        Step::Packet(packet, record_bytes)
    }

    #[inline]
    fn lengths(&self, first: u32, second: u32) -> (u32, u32) {
        match self.lengths {
            Lengths::CapturedFirst => (first, second),
            Lengths::OriginalFirst => (second, first),
            Lengths::LargerIsOriginal => (first.min(second), first.max(second)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::capture::LinkType;
    use crate::capture::file::tests::read;

    /// A classic file; each record is (seconds, fraction, captured octets, original length).
    pub(in crate::capture::file) fn file(
        order: Order,
        magic: u32,
        link: u32,
        records: &[(u32, u32, &[u8], u32)],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let word = |bytes: &mut Vec<u8>, value: u32| match order {
            Order::Little => bytes.extend(value.to_le_bytes()),
            Order::Big => bytes.extend(value.to_be_bytes()),
        };
        word(&mut bytes, magic);
        match order {
            Order::Little => bytes.extend([2, 0, 4, 0]),
            Order::Big => bytes.extend([0, 2, 0, 4]),
        }
        for value in [0, 0, 65_535, link] {
            word(&mut bytes, value);
        }
        for (seconds, fraction, octets, original) in records {
            let captured = u32::try_from(octets.len()).expect("small");
            for value in [*seconds, *fraction, captured, *original] {
                word(&mut bytes, value);
            }
            if magic == MAGIC_MODIFIED {
                bytes.extend([0xff; 8]);
            }
            bytes.extend(*octets);
        }
        bytes
    }

    #[test]
    fn every_magic_in_both_byte_orders() {
        let records: [(u32, u32, &[u8], u32); 2] = [(1, 5, b"abcd", 4), (2, 6, b"xyz", 60)];
        for order in [Order::Little, Order::Big] {
            for (magic, unit) in
                [(MAGIC_MICROSECONDS, 1_000), (MAGIC_NANOSECONDS, 1), (MAGIC_MODIFIED, 1_000)]
            {
                let seen = read(&[("tap", file(order, magic, 1, &records))]);
                assert_eq!(seen.errors, Vec::<String>::new(), "{order:?} {magic:#x}");
                assert_eq!(seen.ports, ["tap"]);
                let [first, second] = seen.frames.as_slice() else { panic!("{seen:?}") };
                assert_eq!(first.bytes, b"abcd");
                assert_eq!(first.timestamp, Timestamp(1_000_000_000 + 5 * unit));
                assert_eq!((second.bytes.as_slice(), second.wire_octets), (&b"xyz"[..], 60));
                assert_eq!(second.timestamp, Timestamp(2_000_000_000 + 6 * unit));
                assert_eq!((seen.packets, seen.octets), (2, 64));
            }
        }
    }

    #[test]
    fn link_type_is_the_low_half_and_fcs_is_taken_off() {
        let records: [(u32, u32, &[u8], u32); 2] = [(1, 0, &[1; 64], 64), (1, 0, &[1; 50], 1000)];
        for (word, link, octets) in [
            (0x2400_0001, LinkType::Ethernet, 60),
            (0x3000_0001, LinkType::Ethernet, 64),
            (0x2400_0093, LinkType::Unsupported(147), 60),
        ] {
            let seen = read(&[("a", file(Order::Little, MAGIC_NANOSECONDS, word, &records))]);
            assert_eq!(seen.frames[0].link, link);
            assert_eq!((seen.frames[0].bytes.len(), seen.frames[0].wire_octets), (octets, 64));
            assert_eq!((seen.frames[1].bytes.len(), seen.frames[1].wire_octets), (50, 1000));
        }
    }

    #[test]
    fn odd_values_are_taken_as_far_as_they_make_sense() {
        let records: [(u32, u32, &[u8], u32); 3] =
            [(1, 2_000_000, b"late", 4), (u32::MAX, u32::MAX, b"", 0), (3, 0, b"longer", 4)];
        let seen = read(&[("a", file(Order::Little, MAGIC_MICROSECONDS, 1, &records))]);
        assert_eq!(seen.errors, Vec::<String>::new());
        assert_eq!(seen.frames[0].timestamp, Timestamp(3_000_000_000));
        assert_eq!(
            seen.frames[1].timestamp,
            Timestamp(4_294_967_295_000_000_000 + 4_294_967_295_000)
        );
        assert_eq!(
            (seen.frames[2].bytes.as_slice(), seen.frames[2].wire_octets),
            (&b"long"[..], 4)
        );
    }

    #[test]
    fn an_impossible_capture_length_ends_the_file() {
        let mut bytes =
            file(Order::Little, MAGIC_MICROSECONDS, 1, &[(1, 0, b"ab", 2), (1, 0, b"cd", 2)]);
        let second = HEADER_BYTES + 16 + 2;
        bytes[second + 8..second + 12].copy_from_slice(&(CAPTURED_OCTETS_MAX + 1).to_le_bytes());
        let seen = read(&[("a", bytes)]);
        assert_eq!(seen.packets, 1);
        assert_eq!(
            seen.errors,
            ["a: at byte 42: corrupt record: 262145 captured octets, 262144 can be"]
        );
    }

    #[test]
    fn lengths_of_old_versions_are_put_in_order() {
        let mut bytes = file(Order::Little, MAGIC_MICROSECONDS, 1, &[(1, 0, b"ab", 60)]);
        for (minor, swapped) in [(2_u8, true), (3, true), (3, false), (4, false)] {
            bytes[6] = minor;
            let (first, second) = if swapped { (60_u32, 2_u32) } else { (2, 60) };
            bytes[32..36].copy_from_slice(&first.to_le_bytes());
            bytes[36..40].copy_from_slice(&second.to_le_bytes());
            let seen = read(&[("a", bytes.clone())]);
            assert_eq!((seen.frames[0].bytes.len(), seen.octets), (2, 60), "2.{minor} {swapped}");
        }
        bytes[4] = 9;
        assert_eq!(
            read(&[("a", bytes)]).errors,
            ["a: at byte 0: version 9.4 of the format is not known"]
        );
    }
}
