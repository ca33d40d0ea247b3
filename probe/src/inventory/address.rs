//! MAC and IP addresses as they stand in keys and records, and their text.
//!
//! In: octets of headers, text of configuration and inventory. Out: [`Mac`], [`Address`].
//! Cost: plain arrays; text is made only for records and messages.
//! Invariants: an IPv4 address has twelve leading zero octets, so address and IP version together
//! name it.
//! Source: IEEE 802 section 8 (text of a MAC), RFC 5952 (text of an IPv6 address).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A MAC address (EUI-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// As a number, for comparisons.
    #[inline]
    pub const fn bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// A text that is no MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a MAC address is six pairs of hexadecimal digits, separated by `:` or `-`")]
pub struct NotMac;

impl FromStr for Mac {
    type Err = NotMac;

    /// Reads `fa:16:3e:00:00:01` or `fa-16-3e-00-00-01`, in either case of letters.
    fn from_str(text: &str) -> Result<Self, NotMac> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            *octet = parts.next().and_then(hexadecimal_pair).ok_or(NotMac)?;
        }
        if parts.next().is_some() { Err(NotMac) } else { Ok(Self(octets)) }
    }
}

fn hexadecimal_pair(text: &str) -> Option<u8> {
    let plain = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, octet) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ":" };
            write!(out, "{separator}{octet:02x}")?;
        }
        Ok(())
    }
}

/// An IP address of 16 octets, IPv4 in the last four; the IP version stands beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// An IPv4 address; the first twelve octets are 0.
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    }

    /// As the standard library's type; `version` is 4 or 6.
    pub fn to_ip(self, version: u8) -> IpAddr {
        let [.., a, b, c, d] = self.0;
        if version == 4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(self.0).into() }
    }

    /// From the standard library's type, with its version.
    pub fn of_ip(ip: IpAddr) -> (Self, u8) {
        match ip {
            IpAddr::V4(ip) => (Self::v4(ip.octets()), 4),
            IpAddr::V6(ip) => (Self(ip.octets()), 6),
        }
    }

    /// The text of the address, IPv6 as in RFC 5952; `version` is 4 or 6.
    pub fn text(self, version: u8) -> String {
        self.to_ip(version).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_texts_read_back() {
        let mac = Mac([0xfa, 0x16, 0x3e, 0, 0x0a, 0xff]);
        assert_eq!(mac.to_string(), "fa:16:3e:00:0a:ff");
        assert_eq!("fa:16:3e:00:0a:ff".parse(), Ok(mac));
        assert_eq!("FA-16-3E-00-0A-FF".parse(), Ok(mac));
    }

    #[test]
    fn other_texts_are_no_mac() {
        for text in [
            "",
            "fa:16:3e:00:0a",
            "fa:16:3e:00:0a:ff:00",
            "fa:16:3e:00:0a:f",
            "fa:16:3e:00:0a:+f",
            "fa:16:3e-00-0a-ff",
            "fa163e000aff",
            "fa:16:3e:00:0a:fg",
            "ää:16:3e:00:0a:ff",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NotMac), "{text}");
        }
    }

    #[test]
    fn addresses_have_the_text_of_rfc_5952() {
        for (text, version) in
            [("10.0.0.1", 4), ("2001:db8::1", 6), ("::", 6), ("fe80::1:0:0:1", 6)]
        {
            let (address, found) = Address::of_ip(text.parse().expect(text));
            assert_eq!((address.text(found).as_str(), found), (text, version));
        }
    }
}
