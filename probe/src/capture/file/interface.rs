//! Interfaces of a pcapng section: link type, clock, name.
//!
//! In: the body of an interface description block. Out: [`Interface`].
//! Cost: once an interface; a stamp costs one multiplication or division.
//! Invariants: an option of a wrong length is left out, the interface is read all the same; no
//! stamp overflows or is above [`STAMP_MAX`].
//! Source: draft-ietf-opsawg-pcapng section 4.2.

use super::link::Link;
use super::record::{Fields, Order};
use crate::capture::STAMP_MAX;
use crate::index::PortIndex;
use crate::time::Timestamp;

const OPTION_END: u16 = 0;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_FCS_LENGTH: u16 = 13;
const OPTION_OFFSET: u16 = 14;

/// Characters of an interface's name that are kept.
const NAME_CHARACTERS_MAX: usize = 64;

/// One interface of a section.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) link: Link,
    /// Octets that a simple packet was cut to; 0 is no limit.
    pub(super) snap_octets: u32,
    pub(super) clock: Clock,
    /// Its name, or its number where it has none.
    pub(super) name: String,
    pub(super) port: PortIndex,
}

/// How an interface counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    resolution: Resolution,
    offset_ns: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    /// A unit is so many nanoseconds.
    Nanoseconds(u64),
    /// So many units are a nanosecond.
    PerNanosecond(u64),
    /// 2 to this power units are a second.
    PowerOfTwo(u8),
}

impl Interface {
    /// Reads the block's body; `None` if it is too short. The port is given later.
    pub(super) fn read(fields: &mut Fields<'_>, number: usize) -> Option<Self> {
        let link = fields.u16()?;
        fields.u16()?;
        let snap_octets = fields.u32()?;
        let mut interface = Self {
            link: Link::of_interface(link, 0),
            snap_octets,
            clock: Clock { resolution: Resolution::Nanoseconds(1_000), offset_ns: 0 },
            name: number.to_string(),
            port: PortIndex(0),
        };
        while let Some((code, value)) = option(fields) {
            interface.apply(code, value, link, fields.order);
        }
        Some(interface)
    }

    fn apply(&mut self, code: u16, value: &[u8], link: u16, order: Order) {
        match (code, value) {
            (OPTION_NAME, name) => {
                if let Some(name) = printable(name) {
                    self.name = name;
                }
            }
            (OPTION_RESOLUTION, [resolution]) => {
                self.clock.resolution = Resolution::of_option(*resolution);
            }
            (OPTION_FCS_LENGTH, [length]) => self.link = Link::of_interface(link, *length),
            (OPTION_OFFSET, value) => {
                if let Ok(bytes) = <[u8; 8]>::try_from(value) {
                    self.clock.offset_ns = i128::from(order.i64(bytes)) * 1_000_000_000;
                }
            }
            _ => {}
        }
    }
}

impl Clock {
    /// The time that `units` stand for; before 1970 or after [`STAMP_MAX`] the nearest of the two.
    #[inline]
    pub(super) fn timestamp(self, units: u64) -> Timestamp {
        let ns = match self.resolution {
            Resolution::Nanoseconds(ns) => u128::from(units) * u128::from(ns),
            Resolution::PerNanosecond(units_per_ns) => u128::from(units / units_per_ns),
            Resolution::PowerOfTwo(power) => (u128::from(units) * 1_000_000_000) >> power,
        };
        // Both are below 2^94, so neither the conversion nor the sum can overflow.
        let ns = i128::try_from(ns).unwrap_or(i128::MAX / 2) + self.offset_ns;
        Timestamp(u64::try_from(ns.max(0)).unwrap_or(u64::MAX)).min(STAMP_MAX)
    }
}

impl Resolution {
    /// From `if_tsresol`: the highest bit chooses a power of two or of ten.
    fn of_option(value: u8) -> Self {
        let exponent = value & 0x7f;
        if value & 0x80 != 0 {
            return Self::PowerOfTwo(exponent);
        }
        match exponent.checked_sub(9) {
            None => Self::Nanoseconds(10_u64.pow(u32::from(9 - exponent))),
            // With 10^20 units a nanosecond, 64 bits of units are less than one.
            Some(more) => 10_u64
                .checked_pow(u32::from(more))
                .map_or(Self::Nanoseconds(0), Self::PerNanosecond),
        }
    }
}

/// The next option; `None` at the end of them, or where one is cut short.
#[inline]
pub(super) fn option<'a>(fields: &mut Fields<'a>) -> Option<(u16, &'a [u8])> {
    let code = fields.u16()?;
    let length = fields.u16()?;
    if code == OPTION_END { None } else { Some((code, fields.padded(usize::from(length))?)) }
}

fn printable(name: &[u8]) -> Option<String> {
    let name: String = String::from_utf8_lossy(name)
        .trim_matches(|character: char| character == '\0' || character.is_whitespace())
        .chars()
        .take(NAME_CHARACTERS_MAX)
        .map(|character| if character.is_control() { '_' } else { character })
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(resolution: u8, offset_s: i64) -> Clock {
        Clock {
            resolution: Resolution::of_option(resolution),
            offset_ns: i128::from(offset_s) * 1_000_000_000,
        }
    }

    #[test]
    fn resolutions() {
        for (resolution, units, ns) in [
            (0, 3, 3_000_000_000),
            (6, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
            (9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
            (12, 1_999, 1),
            (28, u64::MAX, 1),
            (29, u64::MAX, 0),
            (127, u64::MAX, 0),
            (0x80, 2, 2_000_000_000),
            (0x80 | 1, 3, 1_500_000_000),
            (0x80 | 32, 1 << 31, 500_000_000),
            (0xff, u64::MAX, 0),
        ] {
            assert_eq!(clock(resolution, 0).timestamp(units), Timestamp(ns), "{resolution:#x}");
        }
    }

    #[test]
    fn offsets_move_and_nothing_overflows() {
        assert_eq!(clock(6, 10).timestamp(5), Timestamp(10_000_005_000));
        assert_eq!(clock(6, -1).timestamp(1_500_000), Timestamp(500_000_000));
        assert_eq!(clock(6, -10).timestamp(5), Timestamp::ZERO);
        assert_eq!(clock(0, i64::MAX).timestamp(u64::MAX), STAMP_MAX);
        assert_eq!(clock(9, 0).timestamp(u64::MAX), STAMP_MAX);
        assert_eq!(clock(0, i64::MIN).timestamp(u64::MAX), STAMP_MAX);
        assert_eq!(clock(9, i64::MIN).timestamp(0), Timestamp::ZERO);
    }

    #[test]
    fn names_are_cut_and_printable() {
        assert_eq!(printable(b" eth0\0\0").as_deref(), Some("eth0"));
        assert_eq!(printable(b"a\nb\xff").as_deref(), Some("a_b\u{fffd}"));
        assert_eq!(printable(&[b'x'; 1000]).map(|name| name.len()), Some(NAME_CHARACTERS_MAX));
        assert_eq!(printable(b" \0"), None);
    }
}
