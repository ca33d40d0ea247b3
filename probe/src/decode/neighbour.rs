//! Neighbour discovery of IPv6: who has which address.
//!
//! In: the body of an ICMPv6 message behind its first eight octets. Out: a view of solicitations and
//! advertisements: target, link-layer address.
//! Cost: a step for each option, of which there are at most as many as octets by eight.
//! Invariants: an option is never longer than the message, nor empty.
//! Source: RFC 4861 sections 4.3, 4.4 and 4.6.

use super::Mac;
use crate::inventory::Address;

/// Type and code of a solicitation.
pub const SOLICITATION: u16 = 135 << 8;
/// Type and code of an advertisement.
pub const ADVERTISEMENT: u16 = 136 << 8;
/// Hop limit of all messages: no router has passed them on.
pub const HOP_LIMIT: u8 = 255;
/// Flag of an advertisement, in the first octet behind the checksum: it is to replace what is known.
/// Proxies and anycast addresses have it not.
pub const OVERRIDE: u8 = 0x20;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const UNIT_OCTETS: usize = 8;

/// A solicitation or an advertisement.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour<'a> {
    target: &'a [u8; 16],
    options: &'a [u8],
}

/// Options that are not those of RFC 4861 section 4.6: empty, or longer than the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddOptions;

impl<'a> Neighbour<'a> {
    /// Reads the body; `None` if it is short.
    pub fn new(body: &'a [u8]) -> Option<Self> {
        let (target, options) = body.split_first_chunk()?;
        Some(Self { target, options })
    }

    /// The address that is asked for, or told of.
    pub const fn target(self) -> Address {
        Address(*self.target)
    }

    /// The link-layer address of who asks, or of the target; `None` where it is not said.
    ///
    /// # Errors
    /// [`OddOptions`], also where the link-layer address is none of Ethernet.
    pub fn link_layer(self, message: u16) -> Result<Option<Mac>, OddOptions> {
        let wanted = if message == SOLICITATION { SOURCE_LINK_LAYER } else { TARGET_LINK_LAYER };
        let mut rest = self.options;
        let mut found = None;
        while let Some(&[kind, units]) = rest.first_chunk() {
            let octets = usize::from(units) * UNIT_OCTETS;
            let option = rest.get(..octets).filter(|_| octets > 0).ok_or(OddOptions)?;
            if kind == wanted && found.is_none() {
                let whole: [u8; UNIT_OCTETS] = option.try_into().map_err(|_| OddOptions)?;
                let [_, _, mac @ ..] = whole;
                found = Some(Mac(mac));
            }
            rest = rest.get(octets..).unwrap_or(&[]);
        }
        if rest.is_empty() { Ok(found) } else { Err(OddOptions) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(options: &[u8]) -> Vec<u8> {
        [&[0xfd; 16][..], options].concat()
    }

    fn link_layer(options: &[u8], message: u16) -> Result<Option<Mac>, OddOptions> {
        Neighbour::new(&body(options)).expect("a target").link_layer(message)
    }

    #[test]
    fn the_link_layer_address_of_each_message_is_found() {
        let (source, target) = ([1, 1, 2, 0, 0, 0, 0, 1], [2, 1, 2, 0, 0, 0, 0, 2]);
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let all = [nonce, source, target].concat();
        let mac = |last| Ok(Some(Mac([2, 0, 0, 0, 0, last])));
        assert_eq!(link_layer(&all, SOLICITATION), mac(1));
        assert_eq!(link_layer(&all, ADVERTISEMENT), mac(2));
        assert_eq!(link_layer(&source, ADVERTISEMENT), Ok(None));
        assert_eq!(link_layer(&[], SOLICITATION), Ok(None));
        assert_eq!(Neighbour::new(&body(&[])).expect("").target(), Address([0xfd; 16]));
    }

    #[test]
    fn odd_options_are_no_evidence() {
        for options in [
            &[1, 0, 2, 0, 0, 0, 0, 1][..],
            &[1, 2, 2, 0, 0, 0, 0, 1],
            &[1, 1, 2, 0, 0, 0, 0],
            &[1],
            &[1, 1, 2, 0, 0, 0, 0, 1, 9],
            // Sixteen octets: no Ethernet address.
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(link_layer(options, SOLICITATION), Err(OddOptions), "{options:?}");
        }
        assert!((0..16).all(|octets| Neighbour::new(&[0; 16][..octets]).is_none()));
    }
}
