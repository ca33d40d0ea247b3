//! What comes over the line.
//!
//! In: rate of the NIC, sizes of frames, what the mirror wraps around them. Out: packets a second.
//! Invariants: sizes are of the mirrored frame with its FCS, as line rates are always given.
//! Source: IEEE 802.3-2022, 3.1.1 (preamble and SFD, 8 octets) and 4.4.2 (interpacket gap, 96 bits);
//! the simple IMIX of 7:4:1 IP packets of 40, 576 and 1,500 octets as the genome of RFC 6985 §3
//! writes such mixes; RFC 7348 §5 (VXLAN); IEEE 802.1Q-2022, 9.3 (tag).

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{PlanError, within};

/// Preamble, start of frame, and the gap between two frames.
const LINE_OCTETS: f64 = 20.0;

/// Smallest frame with FCS, and the largest that NICs take.
const FRAME_OCTETS: std::ops::RangeInclusive<u16> = 64..=9_622;

/// Frames of the simple IMIX with FCS, and how many of each. IP packets of 40 octets are padded.
const IMIX: [(u16, u16); 3] = [(64, 7), (594, 4), (1_518, 1)];

/// Sizes of the frames that are mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// The simple IMIX: 361.8 octets on average.
    Imix,
    /// All the same, in octets with FCS.
    Frames(u16),
}

impl Mix {
    /// Octets of a frame on average.
    pub fn frame_octets_mean(self) -> f64 {
        match self {
            Self::Frames(octets) => octets.into(),
            Self::Imix => {
                let octets: f64 = IMIX
                    .iter()
                    .map(|&(octets, frames)| f64::from(octets) * f64::from(frames))
                    .sum();
                octets / IMIX.iter().map(|&(_, frames)| f64::from(frames)).sum::<f64>()
            }
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Imix => out.write_str("imix"),
            Self::Frames(octets) => write!(out, "{octets}"),
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = (FRAME_OCTETS.start(), FRAME_OCTETS.end());
        match text.parse() {
            _ if text == "imix" => Ok(Self::Imix),
            Ok(octets) if FRAME_OCTETS.contains(&octets) => Ok(Self::Frames(octets)),
            _ => Err(format!("`imix` or a frame of {least} to {most} octets with FCS is allowed")),
        }
    }
}

impl Serialize for Mix {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// What the mirror wraps around a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encapsulation {
    /// Nothing.
    #[default]
    None,
    /// A VLAN tag.
    Rspan,
    /// Ethernet, IPv4, UDP, VXLAN.
    Vxlan,
    /// Ethernet, IPv4, GRE with sequence number, ERSPAN type II.
    Erspan2,
}

impl Encapsulation {
    /// Octets that it adds to a frame. In a tunnel the frame loses its own FCS (RFC 7348 §5) and
    /// the outer one has one, so the sum stays.
    pub fn octets(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Rspan => 4.0,
            Self::Vxlan | Self::Erspan2 => 14.0 + 20.0 + 8.0 + 8.0,
        }
    }
}

/// What is mirrored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traffic {
    /// Rate of the NIC in Gbit/s.
    pub nic_gbps: f64,
    /// Frames.
    pub mix: Mix,
    /// What the mirror wraps around them.
    pub encapsulation: Encapsulation,
    /// Flows that are alive at the same time.
    pub flows: f64,
    /// Share of packets that are copies of others, 0 to below 1.
    pub copies_share: f64,
}

impl Traffic {
    /// Octets on the wire on average, with preamble, gap and FCS.
    pub fn wire_octets_mean(&self) -> f64 {
        self.mix.frame_octets_mean() + self.encapsulation.octets() + LINE_OCTETS
    }

    /// Packets a second when the line is full.
    pub fn line_packets_per_second(&self) -> f64 {
        self.nic_gbps * 1e9 / 8.0 / self.wire_octets_mean()
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        within("--nic-gbps", self.nic_gbps, 0.01, 1_600.0)?;
        within("--flows", self.flows, 1.0, 4e9)?;
        within("--copies", self.copies_share, 0.0, 0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(nic_gbps: f64, mix: Mix, encapsulation: Encapsulation) -> f64 {
        let traffic = Traffic { nic_gbps, mix, encapsulation, flows: 1.0, copies_share: 0.0 };
        traffic.line_packets_per_second()
    }

    #[test]
    fn line_rates_are_the_known_ones() {
        for (gbps, octets, packets) in [
            (100.0, 64, 148_809_523.8),
            (10.0, 64, 14_880_952.4),
            (100.0, 1_518, 8_127_438.2),
            (25.0, 512, 5_874_060.2),
        ] {
            let rate = rate(gbps, Mix::Frames(octets), Encapsulation::None);
            assert!((rate - packets).abs() < 1.0, "{gbps} {octets}: {rate}");
        }
        assert!((Mix::Imix.frame_octets_mean() - 4_342.0 / 12.0).abs() < 1e-9);
        let rspan = rate(100.0, Mix::Frames(64), Encapsulation::Rspan);
        assert!((rspan - 1e11 / 8.0 / 88.0).abs() < 1.0, "{rspan}");
        let vxlan = rate(100.0, Mix::Frames(64), Encapsulation::Vxlan);
        assert!((vxlan - 1e11 / 8.0 / 134.0).abs() < 1.0, "{vxlan}");
    }

    #[test]
    fn mixes_read_back_and_nonsense_does_not() {
        for text in ["imix", "64", "1500", "9622"] {
            assert_eq!(text.parse::<Mix>().map(|mix| mix.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0", "63", "9623", "70000", "-64", "big", "64.5"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
