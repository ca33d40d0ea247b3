//! DHCP for IPv4 and IPv6: what a server gives to whom.
//!
//! In: the payload of a datagram from a server to a client. Out: a view of an acknowledgement, or of
//! the first address of a reply.
//! Cost: a step for each option.
//! Invariants: no option reaches beyond the message; what is cut is told apart from what is wrong.
//! Source: RFC 2131 section 2 and 4.3; RFC 2132; RFC 8415 sections 8, 21.4 and 21.6.

use super::Mac;
use crate::inventory::Address;

/// Ports of a server and a client (RFC 2131 section 4.1).
pub const PORTS_V4: (u16, u16) = (67, 68);
/// Ports of a server and a client (RFC 8415 section 7.2).
pub const PORTS_V6: (u16, u16) = (547, 546);

const FIXED_OCTETS: usize = 236;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const REPLY_TO_ETHERNET: [u8; 3] = [2, 1, 6];
const PAD: u8 = 0;
const HOST_NAME: u8 = 12;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const END: u8 = 255;
const ACKNOWLEDGEMENT: u8 = 5;

const REPLY_V6: u8 = 7;
const IDENTITY_ASSOCIATION: u16 = 3;
const IA_ADDRESS: u16 = 5;

/// Why a message gives nobody an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLease {
    /// It is another message, or gives no address.
    Other,
    /// It ends inside an option, or is of another form.
    Malformed,
}

/// A server gives an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease<'a> {
    /// The address.
    pub address: Address,
    /// For how long, in seconds; 0: it does not say. All bits set: for ever.
    pub seconds: u32,
    /// To whom, of IPv4.
    pub mac: Option<Mac>,
    /// What the server calls it, of IPv4; empty for nothing.
    pub host_name: &'a [u8],
}

/// Reads an acknowledgement (DHCPACK) for Ethernet.
///
/// # Errors
/// [`NoLease`].
pub fn acknowledged(message: &[u8]) -> Result<Lease<'_>, NoLease> {
    let (fixed, rest) = message.split_first_chunk::<FIXED_OCTETS>().ok_or(NoLease::Malformed)?;
    let options = rest.strip_prefix(&COOKIE).ok_or(NoLease::Malformed)?;
    if !fixed.starts_with(&REPLY_TO_ETHERNET) {
        return Err(NoLease::Other);
    }
    let [a, b, c, d] = [16, 17, 18, 19].map(|place: usize| fixed[place]);
    let mac = Mac([28, 29, 30, 31, 32, 33].map(|place: usize| fixed[place]));
    let mut lease =
        Lease { address: Address::v4([a, b, c, d]), seconds: 0, mac: Some(mac), host_name: &[] };
    let kind = read_options(options, &mut lease)?;
    // An answer to DHCPINFORM gives no address.
    let gives = kind == Some(ACKNOWLEDGEMENT) && lease.address != Address::default();
    if gives { Ok(lease) } else { Err(NoLease::Other) }
}

/// The type of the message; lease time and host name go into `lease`.
fn read_options<'a>(mut rest: &'a [u8], lease: &mut Lease<'a>) -> Result<Option<u8>, NoLease> {
    let mut kind = None;
    while let Some((code, after)) = rest.split_first() {
        match *code {
            PAD => rest = after,
            END => break,
            code => {
                let (octets, after) = after.split_first().ok_or(NoLease::Malformed)?;
                let octets = usize::from(*octets);
                let (value, after) = after.split_at_checked(octets).ok_or(NoLease::Malformed)?;
                rest = after;
                match (code, value) {
                    (MESSAGE_TYPE, [one]) => kind = Some(*one),
                    (LEASE_TIME, [a, b, c, d]) => {
                        lease.seconds = u32::from_be_bytes([*a, *b, *c, *d]);
                    }
                    (MESSAGE_TYPE | LEASE_TIME, _) => return Err(NoLease::Malformed),
                    // Some servers end it with a zero octet (RFC 2132 section 2).
                    (HOST_NAME, value) => {
                        lease.host_name = value.strip_suffix(&[0]).unwrap_or(value);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(kind)
}

/// Reads the first address of a reply of DHCPv6 that is given for a time.
///
/// # Errors
/// [`NoLease`].
pub fn replied(message: &[u8]) -> Result<Lease<'static>, NoLease> {
    let (head, options) = message.split_first_chunk::<4>().ok_or(NoLease::Malformed)?;
    if head[0] != REPLY_V6 {
        return Err(NoLease::Other);
    }
    // IAID and two times stand before the options of an association.
    let association = option_v6(options, IDENTITY_ASSOCIATION)?.ok_or(NoLease::Other)?;
    let inside = association.get(12..).ok_or(NoLease::Malformed)?;
    let given = option_v6(inside, IA_ADDRESS)?.ok_or(NoLease::Other)?;
    // Address, preferred and valid lifetime.
    let (address, times) = given.split_first_chunk().ok_or(NoLease::Malformed)?;
    let seconds = times.get(4..).and_then(|valid| valid.first_chunk()).ok_or(NoLease::Malformed)?;
    match u32::from_be_bytes(*seconds) {
        0 => Err(NoLease::Other),
        seconds => Ok(Lease { address: Address(*address), seconds, mac: None, host_name: &[] }),
    }
}

/// The value of the first option with a code.
fn option_v6(mut rest: &[u8], wanted: u16) -> Result<Option<&[u8]>, NoLease> {
    while !rest.is_empty() {
        let (&[a, b, c, d], after) = rest.split_first_chunk().ok_or(NoLease::Malformed)?;
        let octets = usize::from(u16::from_be_bytes([c, d]));
        let (value, after) = after.split_at_checked(octets).ok_or(NoLease::Malformed)?;
        if u16::from_be_bytes([a, b]) == wanted {
            return Ok(Some(value));
        }
        rest = after;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a server to 02:00:00:00:00:01, which gets 10.0.0.7.
    fn message(options: &[u8]) -> Vec<u8> {
        let mut message = vec![0; FIXED_OCTETS];
        message[..4].copy_from_slice(&[2, 1, 6, 0]);
        message[16..20].copy_from_slice(&[10, 0, 0, 7]);
        message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        [&message[..], &COOKIE, options].concat()
    }

    const ACK: [u8; 3] = [53, 1, 5];
    const HOUR: [u8; 6] = [51, 4, 0, 0, 0x0e, 0x10];

    #[test]
    fn an_acknowledgement_says_who_gets_what_for_how_long() {
        let name = [12, 6, b'w', b'e', b'b', b'-', b'1', 0];
        let bytes =
            message(&[&ACK[..], &[0, 0, 1, 4, 255, 255, 255, 0], &HOUR, &name, &[255, 9]].concat());
        let lease = acknowledged(&bytes).expect("a lease");
        assert_eq!((lease.address, lease.seconds), (Address::v4([10, 0, 0, 7]), 3_600));
        assert_eq!(lease.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(lease.host_name, b"web-1");
        let bytes = message(&ACK);
        assert_eq!(acknowledged(&bytes).expect("without an end").seconds, 0);
    }

    #[test]
    fn other_messages_give_nothing_and_cut_ones_are_malformed() {
        for kind in [1, 2, 3, 4, 6, 7, 8] {
            assert_eq!(acknowledged(&message(&[53, 1, kind])), Err(NoLease::Other), "{kind}");
        }
        assert_eq!(acknowledged(&message(&[])), Err(NoLease::Other), "BOOTP");
        let mut to_inform = message(&ACK);
        to_inform[16..20].fill(0);
        assert_eq!(acknowledged(&to_inform), Err(NoLease::Other));
        let mut token_ring = message(&ACK);
        token_ring[1] = 6;
        assert_eq!(acknowledged(&token_ring), Err(NoLease::Other));
        for options in [&[53, 2, 5, 0][..], &[51, 1, 9], &[53], &[12, 9, b'a']] {
            assert_eq!(acknowledged(&message(options)), Err(NoLease::Malformed), "{options:?}");
        }
        let whole = message(&[&ACK[..], &HOUR].concat());
        for octets in 0..FIXED_OCTETS + COOKIE.len() {
            assert_eq!(acknowledged(&whole[..octets]), Err(NoLease::Malformed), "{octets}");
        }
    }

    fn reply(valid: u32) -> Vec<u8> {
        let given = [&[0xfd; 16][..], &[0, 0, 0, 60], &valid.to_be_bytes()].concat();
        let inside = [&[0, 5, 0, 24][..], &given].concat();
        let association = [&[0; 12][..], &inside].concat();
        let octets = u16::try_from(association.len()).expect("short").to_be_bytes();
        [&[7, 1, 2, 3][..], &[0, 1, 0, 2, 9, 9], &[0, 3], &octets, &association].concat()
    }

    #[test]
    fn a_reply_of_version_six_gives_its_first_address() {
        let bytes = reply(120);
        let lease = replied(&bytes).expect("a lease");
        assert_eq!((lease.address, lease.seconds), (Address([0xfd; 16]), 120));
        assert_eq!(replied(&reply(0)), Err(NoLease::Other), "taken back");
        let mut solicit = bytes.clone();
        solicit[0] = 1;
        assert_eq!(replied(&solicit), Err(NoLease::Other));
        assert_eq!(replied(&[7, 1, 2, 3]), Err(NoLease::Other));
        for octets in (0..4).chain(5..10).chain(11..bytes.len()) {
            assert_eq!(replied(&bytes[..octets]), Err(NoLease::Malformed), "{octets}");
        }
    }
}
