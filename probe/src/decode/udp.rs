//! UDP headers, and the tunnels that their ports name.
//!
//! In: the payload of an IP packet. Out: ports and payload, or what a tunnel carries.
//! Cost: one length check, and one bit test for the ports.
//! Invariants: what cannot be the tunnel that its port names is a flow like any other; the
//! checksum is not verified, because virtual NICs leave it partial.
//! Source: RFC 768; jumbograms, RFC 2675 section 4.

use super::decoder::Rules;
use super::walk::{Next, Step, Walk, octets};
use super::{
    Headers, Marks, capwap, dhcp, geneve, gre, gtp, mpls, protocol, teredo, vxlan, vxlan_gpe,
};
use crate::config::DecodePlan;
use crate::counters::DropCause;

const HEADER_OCTETS: u32 = 8;

/// A UDP header.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a>(pub &'a [u8; 8]);

impl Udp<'_> {
    /// Source port.
    #[inline]
    pub const fn source_port(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Destination port.
    #[inline]
    pub const fn destination_port(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Octets of header and payload; 0 in a jumbogram or before segmentation.
    #[inline]
    pub const fn octets(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }
}

/// A tunnel over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpTunnel {
    /// RFC 7348.
    Vxlan,
    /// Generic protocol extension of VXLAN.
    VxlanGpe,
    /// RFC 8926.
    Geneve,
    /// 3GPP TS 29.281.
    Gtp,
    /// RFC 7510.
    Mpls,
    /// RFC 8086.
    Gre,
    /// RFC 4380.
    Teredo,
    /// RFC 5415.
    Capwap,
    /// No tunnel: what a DHCP server says to a client, which is learned from.
    DhcpClient,
}

impl UdpTunnel {
    /// Whether answers come from its port, to any: the peer's port is one that the network chose.
    const fn answers_from_port(self) -> bool {
        matches!(self, Self::Teredo | Self::Capwap)
    }
}

/// Which ports are tunnels.
#[derive(Clone, Debug, Default)]
pub struct TunnelPorts {
    /// Bit `port mod 64` is set where some tunnel has such a destination port: most packets stop
    /// here.
    destinations: u64,
    /// The same of source ports.
    sources: u64,
    /// Bit `port / 64 mod 64`: stops most of the rest, port 53 among them.
    high: u64,
    ports: Vec<(u16, UdpTunnel)>,
}

impl TunnelPorts {
    /// From the configuration; a port in several lists is the first one's.
    pub fn new(plan: &DecodePlan) -> Self {
        let of = |ports: &[u16], tunnel| -> Vec<_> { ports.iter().map(|p| (*p, tunnel)).collect() };
        let ports = [
            of(&plan.vxlan_ports, UdpTunnel::Vxlan),
            of(&plan.vxlan_gpe_ports, UdpTunnel::VxlanGpe),
            of(&plan.geneve_ports, UdpTunnel::Geneve),
            of(&plan.gtp_ports, UdpTunnel::Gtp),
            of(&plan.mpls_ports, UdpTunnel::Mpls),
            of(&plan.gre_ports, UdpTunnel::Gre),
            of(&plan.teredo_ports, UdpTunnel::Teredo),
            of(&plan.capwap_ports, UdpTunnel::Capwap),
        ]
        .concat();
        let mut of = Self { ports, ..Self::default() };
        for (port, tunnel) in &of.ports {
            of.destinations |= bit(*port);
            of.high |= bit(port / 64);
            if tunnel.answers_from_port() {
                of.sources |= bit(*port);
            }
        }
        of
    }

    /// Has what DHCP servers say to clients read header by header, unless the port is a tunnel's.
    #[must_use]
    pub fn with_dhcp(mut self) -> Self {
        let (_, port) = dhcp::PORTS_V4;
        if self.of(port).is_none() {
            self.ports.push((port, UdpTunnel::DhcpClient));
            self.destinations |= bit(port);
            self.high |= bit(port / 64);
        }
        self
    }

    /// The tunnel that the destination `port` is one of, if any.
    #[inline]
    pub fn of(&self, port: u16) -> Option<UdpTunnel> {
        if self.destinations & bit(port) == 0 { None } else { self.find(port) }
    }

    /// The tunnel that a datagram may be of, by its ports.
    #[inline]
    pub fn between(&self, source: u16, destination: u16) -> Option<UdpTunnel> {
        if (self.destinations & bit(destination)) | (self.sources & bit(source)) == 0 {
            return None;
        }
        self.find(destination)
            .or_else(|| self.find(source).filter(|tunnel| tunnel.answers_from_port()))
    }

    fn find(&self, port: u16) -> Option<UdpTunnel> {
        if self.high & bit(port / 64) == 0 {
            return None;
        }
        self.ports.iter().find(|(tunnel, _)| *tunnel == port).map(|(_, tunnel)| *tunnel)
    }
}

const fn bit(port: u16) -> u64 {
    1 << (port % 64)
}

/// Takes the header.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers, rules: &Rules) -> Step {
    out.protocol = protocol::UDP;
    let datagram_octets = walk.limit;
    let Some((header, payload)) = walk.rest.split_first_chunk() else { return cut(walk, out) };
    let header = Udp(header);
    out.source_port = header.source_port();
    out.destination_port = header.destination_port();
    let payload_octets = match u32::from(header.octets()) {
        0 => datagram_octets - HEADER_OCTETS,
        claimed @ HEADER_OCTETS.. if claimed <= datagram_octets => claimed - HEADER_OCTETS,
        // The rest of the datagram is in the next fragments.
        HEADER_OCTETS.. if walk.ip_marks.has(Marks::FRAGMENT) => datagram_octets - HEADER_OCTETS,
        _ => return Err(DropCause::MalformedUdp),
    };
    walk.rest = payload;
    walk.narrow(payload_octets);
    if let Some(tunnel) = rules.tunnels.between(out.source_port, out.destination_port)
        && let Some(next) = inside(walk, out, rules, tunnel)?
    {
        return Ok(next);
    }
    walk.write_payload(out);
    Ok(Next::Flow)
}

fn inside(
    walk: &mut Walk<'_>,
    out: &mut Headers,
    rules: &Rules,
    tunnel: UdpTunnel,
) -> Result<Option<Next>, DropCause> {
    let next = match tunnel {
        UdpTunnel::Vxlan => vxlan::step(walk, out, rules),
        UdpTunnel::VxlanGpe => vxlan_gpe::step(walk),
        UdpTunnel::Geneve => geneve::step(walk),
        UdpTunnel::Gtp => gtp::step(walk, rules),
        UdpTunnel::Mpls => mpls::step_in_udp(walk),
        UdpTunnel::Gre => gre::step_in_udp(walk, out, rules),
        UdpTunnel::Teredo => teredo::step(walk),
        UdpTunnel::Capwap => capwap::step(walk),
        UdpTunnel::DhcpClient => return Ok(None),
    }?;
    if next.is_some() {
        out.source_port = 0;
        out.destination_port = 0;
    }
    Ok(next)
}

/// A header that is not all there: the ports are enough.
#[cold]
fn cut(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    if walk.limit < HEADER_OCTETS {
        return Err(DropCause::MalformedUdp);
    }
    ports_alone(walk, out, HEADER_OCTETS)
}

/// Reads the two ports that UDP, TCP and SCTP begin with, of a header of `header_octets` that
/// the capture cut behind them.
pub(super) fn ports_alone(walk: &mut Walk<'_>, out: &mut Headers, header_octets: u32) -> Step {
    let Some(&[a, b, c, d]) = walk.rest.first_chunk() else {
        return Err(DropCause::SnappedHeader);
    };
    out.source_port = u16::from_be_bytes([a, b]);
    out.destination_port = u16::from_be_bytes([c, d]);
    debug_assert!(octets(walk.rest.len()) < header_octets, "only for a header that was cut");
    walk.rest = walk.rest.get(walk.rest.len()..).unwrap_or(&[]);
    walk.limit = walk.limit.saturating_sub(header_octets);
    walk.write_payload(out);
    Ok(Next::Flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, set_u16, udp,
    };

    #[test]
    fn tunnels_are_found_by_their_port() {
        let ports = TunnelPorts::new(&DecodePlan::default());
        assert_eq!(ports.of(4789), Some(UdpTunnel::Vxlan));
        assert_eq!(ports.of(8472), Some(UdpTunnel::Vxlan));
        assert_eq!(ports.of(4790), Some(UdpTunnel::VxlanGpe));
        assert_eq!(ports.of(6081), Some(UdpTunnel::Geneve));
        assert_eq!(ports.of(2152), Some(UdpTunnel::Gtp));
        assert_eq!(ports.of(6635), Some(UdpTunnel::Mpls));
        assert_eq!(ports.of(4754), Some(UdpTunnel::Gre));
        assert_eq!(ports.of(4789 + 64), None, "the same bit of the filter");
        assert_eq!((0..=u16::MAX).filter(|port| ports.of(*port).is_some()).count(), 9);
    }

    #[test]
    fn answers_of_some_tunnels_come_from_their_port() {
        let ports = TunnelPorts::new(&DecodePlan::default());
        for (source, destination, tunnel) in [
            (3544, 50_000, Some(UdpTunnel::Teredo)),
            (50_000, 3544, Some(UdpTunnel::Teredo)),
            (5247, 50_000, Some(UdpTunnel::Capwap)),
            (4789, 50_000, None),
            (8472, 50_000, None),
            (5247, 4789, Some(UdpTunnel::Vxlan)),
            (5247 + 64, 50_000, None),
            (53, 50_000, None),
        ] {
            assert_eq!(ports.between(source, destination), tunnel, "{source} {destination}");
        }
    }

    #[test]
    fn lengths_are_checked() {
        for (claimed, payload) in [(0, Some(7)), (15, Some(7)), (10, Some(2)), (8, Some(0))]
            .into_iter()
            .chain([(7, None), (1, None), (16, None), (0xffff, None)])
        {
            let mut bytes = ethernet(&ipv4(17, &udp(1, 2, b"payload")));
            set_u16(&mut bytes, 38, claimed);
            let result = decode(&bytes);
            match payload {
                Some(payload) => assert_eq!(result.expect("valid").payload_octets, payload),
                None => assert_eq!(result.err(), Some(DropCause::MalformedUdp), "{claimed}"),
            }
        }
    }

    #[test]
    fn a_first_fragment_holds_less_than_the_datagram() {
        let mut bytes = ethernet(&ipv4(17, &udp(1, 2, b"payload")));
        set_u16(&mut bytes, 38, 4000);
        set_u16(&mut bytes, 20, 0x2000);
        assert_eq!(decode(&bytes).expect("first fragment").payload_octets, 7);
    }

    #[test]
    fn a_short_header_is_malformed_and_a_cut_one_has_ports() {
        let header = udp(1, 2, &[]);
        for length in 0..8 {
            let result = decode(&ethernet(&ipv4(17, header.get(..length).expect("shorter"))));
            assert_eq!(result.err(), Some(DropCause::MalformedUdp), "{length}");
        }
        every_shorter_length(&ethernet(&ipv4(17, &udp(1, 2, b"payload"))), |at, outcome| {
            if let (38.., Outcome::Snapped(result)) = (at, outcome) {
                let headers = result.expect("ports are there");
                assert_eq!((headers.destination_port, headers.payload_octets), (2, 7));
                assert_eq!(headers.payload_captured_octets as usize, at.saturating_sub(42));
            }
        });
    }
}
