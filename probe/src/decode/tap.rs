//! Which tap (Observation Point) a frame was copied at.
//!
//! In: the configured taps, the names of the ports. Out: the [`TapIndex`] of a port, of an outer
//! VLAN tag (RSPAN), of a mirror tunnel.
//! Cost: one indexed load per frame where no tap matches more than its port; else a scan of the
//! configured taps for the frame's tag or tunnel.
//! Invariants: the tap with the most conditions that all hold wins, then the first configured; a
//! port without a configured tap is a tap of its own.
//! Source: Observation Point, RFC 5476 section 2; ARCHITECTURE.md, "tap".

use std::net::IpAddr;

use crate::config::{TapMatch, TapPlan};
use crate::index::{PortIndex, TapIndex};
use crate::inventory::{Segment, SegmentKind};

/// A tunnel that may be a mirror's, as a tap may describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorTunnel {
    /// ERSPAN: session id, 0–1023. `None` for type I, which has none.
    Erspan(Option<u16>),
    /// GRE: key, where the header has one.
    Gre(Option<u32>),
    /// VXLAN: VNI.
    Vxlan(u32),
}

/// What is configured for one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTaps {
    /// The port, as conditions name it.
    pub port: PortIndex,
    /// The tap of all that nothing more specific claims.
    pub tap: TapIndex,
    /// Some tap matches an outer VLAN tag here.
    pub by_vlan: bool,
    /// Some tap matches a tunnel here.
    pub by_tunnel: bool,
}

/// What a tap says of the segments seen there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapSegment {
    /// Domain of every segment.
    pub domain: u8,
    /// Segment of packets that name none themselves.
    pub untagged: Option<Segment>,
}

impl TapSegment {
    /// Segment of frames without a tag.
    #[inline]
    pub fn of_untagged(&self) -> Segment {
        self.untagged.unwrap_or(Segment::new(self.domain, SegmentKind::None, 0))
    }
}

/// All taps of a probe.
#[derive(Clone, Debug, Default)]
pub struct TapTable {
    configured: u16,
    segments: Vec<TapSegment>,
    /// Taps with conditions beyond the port, most conditions first.
    specific: Vec<(TapIndex, TapMatch)>,
    /// Taps that match a port alone, or everything.
    plain: Vec<(TapIndex, Option<String>)>,
    port_names: Vec<String>,
    ports: Vec<PortTaps>,
}

impl TapTable {
    /// Builds from the configured taps, in order, and the names of the ports, in order.
    pub fn new<N: AsRef<str>>(taps: &[TapPlan], ports: impl IntoIterator<Item = N>) -> Self {
        let mut table =
            Self { configured: u16::try_from(taps.len()).unwrap_or(u16::MAX), ..Self::default() };
        for (place, tap) in taps.iter().enumerate().take(usize::from(table.configured)) {
            let index = TapIndex(u16::try_from(place).unwrap_or(u16::MAX));
            table.segments.push(TapSegment { domain: tap.domain, untagged: tap.segment });
            if matches_vlan_or_tunnel(&tap.matches) {
                table.specific.push((index, tap.matches.clone()));
            } else {
                table.plain.push((index, tap.matches.port.clone()));
            }
        }
        // Stable: equally specific taps stay in the order of the configuration.
        table.specific.sort_by_key(|(_, matches)| std::cmp::Reverse(conditions(matches)));
        for port in ports {
            table.add_port(port.as_ref());
        }
        table
    }

    /// Adds the next port (a capture file or an interface found while reading). Its index is the
    /// number of ports before it; more than 65,536 ports share the last index.
    pub fn add_port(&mut self, name: &str) {
        let port = PortIndex(u16::try_from(self.ports.len()).unwrap_or(u16::MAX));
        let named = self.plain.iter().find(|(_, of_port)| of_port.as_deref() == Some(name));
        let tap = named
            .or_else(|| self.plain.iter().find(|(_, of_port)| of_port.is_none()))
            .map_or(self.default_tap(port), |(tap, _)| *tap);
        let here = |matches: &TapMatch| matches.port.as_deref().is_none_or(|wanted| wanted == name);
        let mut specific = self.specific.iter().map(|(_, matches)| matches).filter(|m| here(m));
        let by_vlan = specific.clone().any(|matches| !matches_tunnel(matches));
        let by_tunnel = specific.any(matches_tunnel);
        self.port_names.push(name.to_owned());
        self.ports.push(PortTaps { port, tap, by_vlan, by_tunnel });
    }

    /// What is configured for each port, by its index.
    pub fn ports(&self) -> &[PortTaps] {
        &self.ports
    }

    /// What is configured for `port`; a port that was never added is a tap of its own.
    #[inline]
    pub fn port(&self, port: PortIndex) -> PortTaps {
        self.ports.get(usize::from(port.0)).copied().unwrap_or(PortTaps {
            port,
            tap: self.default_tap(port),
            by_vlan: false,
            by_tunnel: false,
        })
    }

    /// The tap that an RSPAN mirror VLAN names: the outermost tag of a frame of `port`.
    pub fn of_vlan(&self, port: PortIndex, vlan: u16) -> Option<TapIndex> {
        self.find(port, |matches| !matches_tunnel(matches) && matches.vlan == Some(vlan))
    }

    /// The tap that claims `tunnel` as its mirror; `outer_source` sent it, `vlan` is the
    /// outermost tag of the frame.
    pub fn of_tunnel(
        &self,
        port: PortIndex,
        vlan: Option<u16>,
        tunnel: MirrorTunnel,
        outer_source: IpAddr,
    ) -> Option<TapIndex> {
        self.find(port, |matches| {
            matches_tunnel(matches)
                && (matches.vlan.is_none() || matches.vlan == vlan)
                && matches.outer_source.is_none_or(|wanted| wanted == outer_source)
                && tunnel_matches(matches, tunnel)
        })
    }

    /// What `tap` says of segments.
    #[inline]
    pub fn segment(&self, tap: TapIndex) -> TapSegment {
        self.segments.get(usize::from(tap.0)).copied().unwrap_or_default()
    }

    /// Configured taps; the tap of a port without one follows them.
    pub const fn configured(&self) -> u16 {
        self.configured
    }

    /// Taps in all: the configured ones, and one for each port that is known.
    pub fn len(&self) -> usize {
        usize::from(self.configured) + self.ports.len()
    }

    /// Whether nothing is configured and no port is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn default_tap(&self, port: PortIndex) -> TapIndex {
        TapIndex(self.configured.saturating_add(port.0))
    }

    fn find(&self, port: PortIndex, holds: impl Fn(&TapMatch) -> bool) -> Option<TapIndex> {
        let name = self.port_names.get(usize::from(port.0));
        let here = |matches: &TapMatch| matches.port.is_none() || matches.port.as_ref() == name;
        self.specific
            .iter()
            // Names are compared last: they take longest.
            .find(|(_, matches)| holds(matches) && here(matches))
            .map(|(tap, _)| *tap)
    }
}

fn matches_tunnel(matches: &TapMatch) -> bool {
    matches.erspan_session.is_some()
        || matches.gre_key.is_some()
        || matches.vxlan_vni.is_some()
        || matches.outer_source.is_some()
}

fn matches_vlan_or_tunnel(matches: &TapMatch) -> bool {
    matches.vlan.is_some() || matches_tunnel(matches)
}

fn conditions(matches: &TapMatch) -> usize {
    [
        matches.port.is_some(),
        matches.vlan.is_some(),
        matches.erspan_session.is_some(),
        matches.gre_key.is_some(),
        matches.vxlan_vni.is_some(),
        matches.outer_source.is_some(),
    ]
    .into_iter()
    .filter(|given| *given)
    .count()
}

/// A condition on another kind of tunnel never holds, so a tap with both claims nothing.
fn tunnel_matches(matches: &TapMatch, tunnel: MirrorTunnel) -> bool {
    let (session, key, vni) = match tunnel {
        MirrorTunnel::Erspan(session) => (session, None, None),
        MirrorTunnel::Gre(key) => (None, key, None),
        MirrorTunnel::Vxlan(vni) => (None, None, Some(vni)),
    };
    (matches.erspan_session.is_none() || matches.erspan_session == session)
        && (matches.gre_key.is_none() || matches.gre_key == key)
        && (matches.vxlan_vni.is_none() || matches.vxlan_vni == vni)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(matches: TapMatch) -> TapPlan {
        TapPlan { matches, ..TapPlan::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ports_without_a_tap_are_taps_of_their_own() {
        let taps = [tap(TapMatch { port: Some("b".to_owned()), ..TapMatch::default() })];
        let mut table = TapTable::new(&taps, ["a", "b"]);
        assert_eq!(table.port(PortIndex(0)).tap, TapIndex(1));
        assert_eq!(table.port(PortIndex(1)).tap, TapIndex(0));
        assert_eq!(table.port(PortIndex(2)).tap, TapIndex(3));
        table.add_port("b");
        assert_eq!(table.port(PortIndex(2)).tap, TapIndex(0));
        assert!(!table.port(PortIndex(2)).by_vlan);
    }

    #[test]
    fn a_tap_without_conditions_takes_all_other_ports() {
        let taps = [
            tap(TapMatch::default()),
            tap(TapMatch { port: Some("b".to_owned()), ..TapMatch::default() }),
        ];
        let table = TapTable::new(&taps, ["a", "b"]);
        assert_eq!(table.port(PortIndex(0)).tap, TapIndex(0));
        assert_eq!(table.port(PortIndex(1)).tap, TapIndex(1));
    }

    #[test]
    fn the_most_specific_tap_wins() {
        let taps = [
            tap(TapMatch { vlan: Some(100), ..TapMatch::default() }),
            tap(TapMatch { vlan: Some(100), port: Some("b".to_owned()), ..TapMatch::default() }),
        ];
        let table = TapTable::new(&taps, ["a", "b"]);
        assert!(table.port(PortIndex(0)).by_vlan && !table.port(PortIndex(0)).by_tunnel);
        assert_eq!(table.of_vlan(PortIndex(0), 100), Some(TapIndex(0)));
        assert_eq!(table.of_vlan(PortIndex(1), 100), Some(TapIndex(1)));
        assert_eq!(table.of_vlan(PortIndex(1), 101), None);
    }

    #[test]
    fn tunnels_match_all_their_conditions() {
        let taps = [
            tap(TapMatch { erspan_session: Some(5), ..TapMatch::default() }),
            tap(TapMatch {
                erspan_session: Some(5),
                outer_source: Some(ip("10.0.0.1")),
                ..TapMatch::default()
            }),
            tap(TapMatch { gre_key: Some(7), vlan: Some(3), ..TapMatch::default() }),
            tap(TapMatch { vxlan_vni: Some(9), ..TapMatch::default() }),
            tap(TapMatch { outer_source: Some(ip("fd00::1")), ..TapMatch::default() }),
        ];
        let table = TapTable::new(&taps, ["a"]);
        let of = |vlan, tunnel, source| table.of_tunnel(PortIndex(0), vlan, tunnel, ip(source));
        let (one, two) = ("10.0.0.1", "10.0.0.2");
        assert_eq!(of(None, MirrorTunnel::Erspan(Some(5)), one), Some(TapIndex(1)));
        assert_eq!(of(None, MirrorTunnel::Erspan(Some(5)), two), Some(TapIndex(0)));
        assert_eq!(of(None, MirrorTunnel::Erspan(None), one), None);
        assert_eq!(of(Some(3), MirrorTunnel::Gre(Some(7)), two), Some(TapIndex(2)));
        assert_eq!(of(None, MirrorTunnel::Gre(Some(7)), two), None);
        assert_eq!(of(None, MirrorTunnel::Vxlan(9), two), Some(TapIndex(3)));
        assert_eq!(of(None, MirrorTunnel::Vxlan(5), two), None);
        assert_eq!(of(None, MirrorTunnel::Vxlan(5), "fd00::1"), Some(TapIndex(4)));
        assert_eq!(table.of_vlan(PortIndex(0), 3), None);
    }
}
