//! Ethernet II and IEEE 802.3 headers.
//!
//! In: a frame without FCS. Out: the MAC addresses and what the EtherType names.
//! Cost: one length check.
//! Invariants: 14 octets, no tags.
//! Source: IEEE 802.3-2022 section 3.1.1; EtherTypes, IANA "IEEE 802 Numbers".

use super::walk::{self, Next, Step, Walk};
use super::{Mac, fabricpath, llc, mpls, pbb, pppoe, vlan, vntag};
use crate::counters::DropCause;
use crate::decode::decoder::Rules;

/// EtherTypes that the decoder knows.
pub mod ether_type {
    #![allow(missing_docs, reason = "the names are IEEE's and IANA's")]
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const TRANSPARENT_ETHERNET: u16 = 0x6558;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const FLOW_CONTROL: u16 = 0x8808;
    pub const SLOW_PROTOCOLS: u16 = 0x8809;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_UPSTREAM: u16 = 0x8848;
    pub const PPPOE_DISCOVERY: u16 = 0x8863;
    pub const PPPOE_SESSION: u16 = 0x8864;
    pub const JUMBO_LLC: u16 = 0x8870;
    pub const EAPOL: u16 = 0x888e;
    pub const SERVICE_VLAN: u16 = 0x88a8;
    pub const LLDP: u16 = 0x88cc;
    pub const BACKBONE_SERVICE: u16 = 0x88e7;
    pub const PTP: u16 = 0x88f7;
    pub const CFM: u16 = 0x8902;
    pub const FABRICPATH: u16 = 0x8903;
    pub const VN_TAG: u16 = 0x8926;
    pub const E_TAG: u16 = 0x893f;
    pub const NSH: u16 = 0x894f;
    pub const LOOPBACK_TEST: u16 = 0x9000;
    pub const VLAN_9100: u16 = 0x9100;
    pub const VLAN_9200: u16 = 0x9200;
}

/// Up to this value the field is the length of an 802.3 frame, not a type (section 3.2.6).
pub const LENGTH_MAX: u16 = 1500;

/// An Ethernet header.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a>(pub &'a [u8; 14]);

impl Ethernet<'_> {
    /// Who it is for.
    #[inline]
    pub fn destination(self) -> Mac {
        Mac(self.0.first_chunk().copied().unwrap_or_default())
    }

    /// Who sent it.
    #[inline]
    pub fn source(self) -> Mac {
        let [_, _, _, _, _, _, rest @ ..] = self.0;
        Mac(rest.first_chunk().copied().unwrap_or_default())
    }

    /// EtherType, or a length up to [`LENGTH_MAX`].
    #[inline]
    pub const fn ether_type(self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

/// Takes the header.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>) -> Step {
    let header = walk.take(DropCause::MalformedLink)?;
    walk.ethernet = Some(header);
    walk.vlans.tags = 0;
    Ok(Next::EtherType(Ethernet(header).ether_type()))
}

/// Goes where the EtherType says.
#[inline]
pub(super) fn dispatch(walk: &mut Walk<'_>, rules: &Rules, ether_type: u16) -> Step {
    match ether_type {
        ether_type::IPV4 => Ok(Next::Ipv4),
        ether_type::IPV6 => Ok(Next::Ipv6),
        ether_type::VLAN
        | ether_type::SERVICE_VLAN
        | ether_type::VLAN_9100
        | ether_type::VLAN_9200 => vlan::step(walk, rules),
        _ => rare(walk, ether_type),
    }
}

#[cold]
fn rare(walk: &mut Walk<'_>, ether_type: u16) -> Step {
    match ether_type {
        ..=LENGTH_MAX => llc::step(walk, u32::from(ether_type)),
        ether_type::MPLS | ether_type::MPLS_UPSTREAM => Ok(Next::Mpls),
        ether_type::PPPOE_SESSION => pppoe::step(walk),
        ether_type::VN_TAG => vntag::step_vn_tag(walk),
        ether_type::E_TAG => vntag::step_e_tag(walk),
        ether_type::NSH => Ok(Next::Nsh),
        ether_type::BACKBONE_SERVICE => pbb::step(walk),
        ether_type::FABRICPATH => fabricpath::step(walk),
        ether_type::JUMBO_LLC => llc::step(walk, walk.limit),
        _ => Err(not_ip(ether_type)),
    }
}

/// The cause that an EtherType without IP is counted under.
pub(super) const fn not_ip(ether_type: u16) -> DropCause {
    match ether_type {
        ether_type::ARP => DropCause::NotIpArp,
        ether_type::JUMBO_LLC => DropCause::NotIpLlc,
        ether_type::LLDP => DropCause::NotIpLldp,
        ether_type::FLOW_CONTROL
        | ether_type::SLOW_PROTOCOLS
        | ether_type::EAPOL
        | ether_type::PTP
        | ether_type::CFM
        | ether_type::LOOPBACK_TEST => DropCause::NotIpControl,
        ether_type::PPPOE_DISCOVERY => DropCause::NotIpPppoe,
        _ => DropCause::NotIpOther,
    }
}

/// Whether `octets` may well begin with an Ethernet header: its type is one that a data centre
/// carries, and an IP header behind it has the version that the type names. Used where a format
/// does not say what it carries.
pub(super) fn plausible(octets: &[u8]) -> bool {
    let Some((header, inner)) = octets.split_first_chunk::<14>() else { return false };
    let version = inner.first().map_or(0, |first| first >> 4);
    match Ethernet(header).ether_type() {
        ether_type::IPV4 => version == 4,
        ether_type::IPV6 => version == 6,
        ether_type::VLAN | ether_type::SERVICE_VLAN | ether_type::ARP | ether_type::LLDP => true,
        other => mpls::is_ether_type(other),
    }
}

/// The same of the `octets` octets that stand `at` octets from here and are all that may be looked at.
/// [`DropCause::SnappedHeader`] where the capture ended before that can be told.
pub(super) fn plausible_at(walk: &Walk<'_>, at: u32, octets: u32) -> Result<bool, DropCause> {
    // The header, and the version of a packet behind it.
    const LOOKED_AT_OCTETS: usize = 15;
    if octets < walk::octets(LOOKED_AT_OCTETS) {
        return Ok(false);
    }
    let head = walk.peek::<LOOKED_AT_OCTETS>(at)?;
    Ok(head.is_some_and(|head| plausible(head)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, udp, with_ether_type,
    };

    #[test]
    fn addresses_and_type_are_read() {
        let bytes: [u8; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x86, 0xdd];
        let header = Ethernet(&bytes);
        assert_eq!(header.destination(), Mac([1, 2, 3, 4, 5, 6]));
        assert_eq!(header.source(), Mac([7, 8, 9, 10, 11, 12]));
        assert_eq!(header.ether_type(), ether_type::IPV6);
    }

    #[test]
    fn each_type_has_its_cause() {
        for (ether_type, cause) in [
            (0x0806, DropCause::NotIpArp),
            (0x88cc, DropCause::NotIpLldp),
            (0x8808, DropCause::NotIpControl),
            (0x8809, DropCause::NotIpControl),
            (0x888e, DropCause::NotIpControl),
            (0x9000, DropCause::NotIpControl),
            (0x8863, DropCause::NotIpPppoe),
            (0x05ff, DropCause::NotIpOther),
            (0x88e5, DropCause::NotIpOther),
        ] {
            let frame = with_ether_type(ether_type, &[0; 46]);
            assert_eq!(decode(&frame).err(), Some(cause), "{ether_type:04x}");
        }
    }

    #[test]
    fn every_shorter_frame_is_a_cause() {
        let frame = ethernet(&ipv4(17, &udp(1, 2, b"payload")));
        let headers = decode(&frame).expect("whole");
        assert_eq!((headers.octets, headers.layer2_octets), (35, 49));
        every_shorter_length(&frame, |length, outcome| match outcome {
            Outcome::WireShort(result) => match length {
                0..14 => assert_eq!(result.err(), Some(DropCause::MalformedLink), "{length}"),
                14..34 => assert_eq!(result.err(), Some(DropCause::MalformedIpv4), "{length}"),
                34..38 => assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{length}"),
                _ => assert_eq!(result.expect("ports are there").octets, 35),
            },
            Outcome::Snapped(result) => match length {
                0..38 => assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{length}"),
                _ => assert_eq!(result.expect("ports are there").octets, 35),
            },
        });
    }
}
