//! UUIDs of virtual machines.
//!
//! In: text of an inventory. Out: [`Uuid`], one number, and its canonical text.
//! Source: RFC 9562 section 4.

use std::fmt;
use std::str::FromStr;

use super::{Mac, Segment};

/// A UUID of any version. It is the identity of a VM; all else may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

impl Uuid {
    /// The store's key of an endpoint that was only learned: the segment and the MAC address that it was
    /// seen with. It is of the variant that RFC 9562 keeps for the future, so it is no VM's, and it is
    /// shown nowhere.
    pub fn of_learned(segment: Segment, mac: Mac) -> Self {
        const FUTURE_VARIANT: u128 = 0xe000 << 48;
        let [a, b, c, d, e, f] = mac.0;
        let station = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Self(u128::from(segment.bits()) << 64 | FUTURE_VARIANT | u128::from(station))
    }
}

/// A text that is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UUID is 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct NotUuid;

const GROUP_DIGITS: [usize; 5] = [8, 4, 4, 4, 12];

impl FromStr for Uuid {
    type Err = NotUuid;

    /// Reads the text with hyphens, in either case of letters.
    fn from_str(text: &str) -> Result<Self, NotUuid> {
        let mut number = 0_u128;
        let mut groups = text.split('-');
        for digits in GROUP_DIGITS {
            let group = groups.next().filter(|group| group.len() == digits).ok_or(NotUuid)?;
            for digit in group.chars() {
                number = (number << 4) | u128::from(digit.to_digit(16).ok_or(NotUuid)?);
            }
        }
        if groups.next().is_some() { Err(NotUuid) } else { Ok(Self(number)) }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shift = 128;
        for (place, digits) in GROUP_DIGITS.into_iter().enumerate() {
            let separator = if place == 0 { "" } else { "-" };
            shift -= 4 * digits;
            let group = (self.0 >> shift) & ((1 << (4 * digits)) - 1);
            write!(out, "{separator}{group:0digits$x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back() {
        for text in ["00000000-0000-0000-0000-000000000001", "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01"]
        {
            assert_eq!(text.parse::<Uuid>().map(|uuid| uuid.to_string()).as_deref(), Ok(text));
            assert_eq!(text.to_uppercase().parse::<Uuid>(), text.parse());
        }
    }

    #[test]
    fn other_texts_are_no_uuid() {
        for text in [
            "",
            "5e8f7f3a",
            "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d0",
            "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01-",
            "5e8f7f3a-6d6b-4b55-9a0e3a2f6b1c0d011",
            "ge8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01",
            "+e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01",
        ] {
            assert_eq!(text.parse::<Uuid>(), Err(NotUuid), "{text}");
        }
    }
}
