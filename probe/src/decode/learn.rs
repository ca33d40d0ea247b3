//! What a packet shows of who has which address.
//!
//! In: a frame and what the decoder read of it. Out: [`Evidence`], or why there is none.
//! Cost: a comparison or two for packets of other kinds; a pass over the options for these.
//! Invariants: only who sent the frame speaks for itself, and a server to a client on the same link.
//! Nothing is read beyond what was captured of the packet.
//! Source: docs/sources/learned.md; RFC 826; RFC 4861 section 7.1 (what is sound); RFC 2131.

use super::arp::Arp;
use super::dhcp::{self, Lease, NoLease};
use super::neighbour::{ADVERTISEMENT, HOP_LIMIT, Neighbour, OVERRIDE, SOLICITATION};
use super::{Address, Headers, Mac, Marks, protocol};
use crate::config::Lessons;
use crate::counters::DropCause;
use crate::sources::learned::{Evidence, HostName, Means, Unlearned};

const REQUEST_OR_REPLY: core::ops::RangeInclusive<u16> = 1..=2;
const BROADCAST: Mac = Mac([0xff; 6]);

impl Lessons {
    /// Whether a packet may show something; `cause` where the decoder rejected it.
    #[inline]
    pub fn concern(self, headers: &Headers, cause: Option<DropCause>) -> bool {
        match cause {
            None => {
                let ports = (headers.source_port, headers.destination_port);
                let is_nd = matches!(headers.icmp_type_code, SOLICITATION | ADVERTISEMENT);
                let is_dhcp = ports == dhcp::PORTS_V4 || ports == dhcp::PORTS_V6;
                (is_nd && self.nd) || (is_dhcp && self.dhcp)
            }
            Some(cause) => cause == DropCause::NotIpArp && self.arp,
        }
    }
}

/// What a packet of [`Lessons::concern`] shows; `None` for nothing.
///
/// # Errors
/// Why nothing is learned from a packet that says something.
pub fn evidence(
    frame: &[u8],
    headers: &Headers,
    cause: Option<DropCause>,
) -> Result<Option<Evidence>, Unlearned> {
    let begin = headers.payload_offset as usize;
    let captured = headers.payload_captured_octets as usize;
    let payload = frame.get(begin..).and_then(|rest| rest.get(..captured)).unwrap_or(&[]);
    let is_whole = headers.payload_captured_octets == headers.payload_octets;
    // What is wrong with a part may be well with the whole.
    let wrong = if is_whole { Unlearned::Malformed } else { Unlearned::Cut };
    if !headers.marks.has(Marks::ETHERNET) {
        return Ok(None);
    }
    // Of fragments only the first could be read; of neighbour discovery RFC 6980 forbids them.
    if headers.marks.has(Marks::FRAGMENT) {
        return Err(Unlearned::Malformed);
    }
    let shown = match (cause, headers.protocol) {
        (Some(_), _) => of_arp(payload, headers, wrong)?,
        (None, protocol::ICMPV6) => {
            let flags = begin.checked_sub(4).and_then(|at| frame.get(at)).copied();
            of_neighbour(payload, flags.unwrap_or(0), is_whole, headers, wrong)?
        }
        (None, protocol::UDP) if headers.ip_version == 4 => of_dhcp(payload, headers, wrong)?,
        (None, protocol::UDP) => of_dhcp_v6(payload, headers, wrong)?,
        // Another protocol with such ports.
        _ => None,
    };
    shown.map(sound).transpose()
}

fn sound(evidence: Evidence) -> Result<Evidence, Unlearned> {
    let is_one = is_unicast(evidence.mac) && is_host(evidence.address, evidence.ip_version);
    if is_one { Ok(evidence) } else { Err(Unlearned::NotUnicast) }
}

fn is_unicast(mac: Mac) -> bool {
    mac.0[0] & 1 == 0 && mac != Mac::default()
}

/// Whether an address may be one interface's: not reserved for all, for none, or for the machine itself.
fn is_host(Address(octets): Address, ip_version: u8) -> bool {
    if ip_version == 4 {
        return matches!(octets[12], 1..=126 | 128..=223);
    }
    // The unspecified address, the loopback address, and what is written as such an IPv4 address stand
    // below 1 in the first twelve octets.
    let low = octets.first_chunk::<10>().is_some_and(|high| *high == [0; 10]);
    octets[0] != 0xff && !low
}

fn shown(headers: &Headers, mac: Mac, address: Address, means: Means) -> Evidence {
    Evidence {
        at: headers.timestamp,
        segment: headers.segment,
        mac,
        address,
        ip_version: if means == Means::Arp { 4 } else { headers.ip_version },
        means,
        lease_s: 0,
        name: HostName::default(),
        name_refused: false,
    }
}

fn of_arp(
    packet: &[u8],
    headers: &Headers,
    wrong: Unlearned,
) -> Result<Option<Evidence>, Unlearned> {
    let arp = Arp::new(packet).ok_or(wrong)?;
    if !REQUEST_OR_REPLY.contains(&arp.operation()) {
        return Err(Unlearned::Malformed);
    }
    // A probe (RFC 5227) asks; who finds nobody announces itself.
    if arp.sender_ip().is_unspecified() {
        return Ok(None);
    }
    if arp.sender_mac() != headers.source_mac {
        return Err(Unlearned::NotOfSender);
    }
    let address = Address::v4(arp.sender_ip().octets());
    Ok(Some(shown(headers, arp.sender_mac(), address, Means::Arp)))
}

fn of_neighbour(
    body: &[u8],
    flags: u8,
    is_whole: bool,
    headers: &Headers,
    wrong: Unlearned,
) -> Result<Option<Evidence>, Unlearned> {
    let neighbour = Neighbour::new(body).ok_or(wrong)?;
    if headers.ttl != HOP_LIMIT || headers.ip_version != 6 {
        return Err(Unlearned::Malformed);
    }
    // Options that were cut may say that somebody else is meant.
    if !is_whole {
        return Err(Unlearned::Cut);
    }
    let said = neighbour.link_layer(headers.icmp_type_code).map_err(|_| Unlearned::Malformed)?;
    if said.is_some_and(|mac| mac != headers.source_mac) {
        return Err(Unlearned::NotOfSender);
    }
    let (address, means) = match headers.icmp_type_code {
        SOLICITATION if headers.source == Address::default() => {
            (neighbour.target(), Means::Tentative)
        }
        SOLICITATION => (headers.source, Means::Neighbour),
        _ if flags & OVERRIDE == 0 => return Ok(None),
        _ => (neighbour.target(), Means::Neighbour),
    };
    Ok(Some(shown(headers, headers.source_mac, address, means)))
}

fn of_dhcp(
    message: &[u8],
    headers: &Headers,
    wrong: Unlearned,
) -> Result<Option<Evidence>, Unlearned> {
    let lease = match dhcp::acknowledged(message) {
        Ok(lease) => lease,
        Err(NoLease::Other) => return Ok(None),
        Err(NoLease::Malformed) => return Err(wrong),
    };
    let mac = lease.mac.unwrap_or_default();
    let is_on_link = headers.destination_mac == mac || headers.destination_mac == BROADCAST;
    if is_on_link { Ok(Some(given(&lease, mac, headers))) } else { Err(Unlearned::OffLink) }
}

fn of_dhcp_v6(
    message: &[u8],
    headers: &Headers,
    wrong: Unlearned,
) -> Result<Option<Evidence>, Unlearned> {
    let lease = match dhcp::replied(message) {
        Ok(lease) => lease,
        Err(NoLease::Other) => return Ok(None),
        Err(NoLease::Malformed) => return Err(wrong),
    };
    // A client is answered at its link-local address, so the frame is for itself.
    let [first, second, ..] = headers.destination.0;
    let is_on_link = first == 0xfe && second & 0xc0 == 0x80;
    let mac = headers.destination_mac;
    if is_on_link { Ok(Some(given(&lease, mac, headers))) } else { Err(Unlearned::OffLink) }
}

fn given(lease: &Lease<'_>, mac: Mac, headers: &Headers) -> Evidence {
    let name = HostName::new(lease.host_name);
    Evidence {
        lease_s: lease.seconds,
        name: name.unwrap_or_default(),
        name_refused: name.is_none() && !lease.host_name.is_empty(),
        ..shown(headers, mac, lease.address, Means::Dhcp)
    }
}

#[cfg(test)]
#[path = "learn_tests.rs"]
mod tests;
