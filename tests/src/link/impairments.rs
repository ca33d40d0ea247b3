//! What a link and its mirrors do to frames.
//!
//! In: values, or JSON. Out: the same.
//! Cost: none.
//! Invariants: shares are parts per million, times are nanoseconds; the default does nothing.

use serde::{Deserialize, Serialize};

use super::random::{Stream, below, draw};

/// The whole, in parts per million.
pub const PPM: u32 = 1_000_000;

/// One end of the link, with its tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The first.
    A,
    /// The other.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// 0 or 1.
    pub const fn place(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// From one side to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// What side A sends.
    AToB,
    /// What side B sends.
    BToA,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::AToB, Self::BToA];

    /// What comes from a side.
    pub const fn from(side: Side) -> Self {
        match side {
            Side::A => Self::AToB,
            Side::B => Self::BToA,
        }
    }

    /// Where frames enter.
    pub const fn entry(self) -> Side {
        match self {
            Self::AToB => Side::A,
            Self::BToA => Side::B,
        }
    }

    /// Where frames leave.
    pub const fn exit(self) -> Side {
        match self {
            Self::AToB => Side::B,
            Self::BToA => Side::A,
        }
    }

    /// 0 or 1.
    pub const fn place(self) -> usize {
        self.entry().place()
    }
}

/// Merging of TCP segments, as receivers do (GRO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// Longest merged frame with its Ethernet header. A live link cannot send more than its
    /// interfaces' MTU.
    pub frame_octets_max: u32,
    /// How long a segment waits for the one behind it.
    pub hold_ns: u64,
}

/// What happens on the way from one side to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Way {
    /// Time that every frame takes.
    pub delay_ns: u64,
    /// Further time, evenly spread from 0 to this. It never makes frames overtake one another.
    pub jitter_ns: u64,
    /// Share of frames that are lost.
    pub loss_ppm: u32,
    /// Share of frames that take [`Way::reorder_ns`] longer, while others may overtake them.
    pub reorder_ppm: u32,
    /// How much longer.
    pub reorder_ns: u64,
    /// Share of frames that leave twice.
    pub duplicate_ppm: u32,
    /// How long after the first the second leaves.
    pub duplicate_ns: u64,
    /// TCP segments in order leave as one frame.
    pub merge: Option<Merge>,
    /// Routed hops: taken off TTL or hop limit of the innermost IP header.
    pub ttl_decrement: u8,
    /// Source MAC address behind a routed hop.
    pub router_mac: Option<[u8; 6]>,
    /// VLAN id of tagged frames behind the link.
    pub vlan: Option<u16>,
    /// VNI of VXLAN frames behind the link.
    pub vni: Option<u32>,
}

/// What a mirror does to copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mirror {
    /// Share of copies that are lost.
    pub loss_ppm: u32,
    /// Share of copies that come twice.
    pub duplicate_ppm: u32,
    /// Octets of a frame that a copy keeps.
    pub snap_octets: Option<u32>,
    /// How far the clock of this tap is ahead; in captures only.
    pub offset_ns: i64,
    /// VLAN id of the mirror (RSPAN): in a tag outside of what the frame has.
    pub vlan: Option<u16>,
}

/// What a link and its mirrors do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Impairments {
    /// From A to B.
    pub a_to_b: Way,
    /// From B to A.
    pub b_to_a: Way,
    /// The mirror of side A.
    pub mirror_a: Mirror,
    /// The mirror of side B.
    pub mirror_b: Mirror,
}

impl Impairments {
    /// The same in both directions and at both mirrors.
    pub fn alike(way: Way, mirror: Mirror) -> Self {
        Self { a_to_b: way.clone(), b_to_a: way, mirror_a: mirror.clone(), mirror_b: mirror }
    }

    /// What happens in a direction.
    pub const fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::AToB => &self.a_to_b,
            Direction::BToA => &self.b_to_a,
        }
    }

    /// What happens at a tap.
    pub const fn mirror(&self, tap: Side) -> &Mirror {
        match tap {
            Side::A => &self.mirror_a,
            Side::B => &self.mirror_b,
        }
    }
}

/// What the link does to the `number`-th frame of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lot {
    pub(super) lost: bool,
    pub(super) late: bool,
    pub(super) twice: bool,
    pub(super) delay_ns: u64,
}

impl Way {
    pub(super) fn lot(&self, seed: u64, direction: Direction, number: u64) -> Lot {
        let bits = |what: u64| draw(seed, Stream(((direction.place() as u64) << 8) | what), number);
        Lot {
            lost: hits(bits(1), self.loss_ppm),
            late: hits(bits(2), self.reorder_ppm),
            twice: hits(bits(3), self.duplicate_ppm),
            delay_ns: self.delay_ns + below(bits(4), self.jitter_ns.saturating_add(1)),
        }
    }
}

impl Mirror {
    /// How often the `number`-th frame that enters, or leaves, at a tap is copied.
    pub(super) fn copies(&self, seed: u64, tap: Side, leaves: bool, number: u64) -> u8 {
        let place = (tap.place() as u64) | (u64::from(leaves) << 1);
        let bits = |what: u64| draw(seed, Stream(0x1_0000 | (place << 8) | what), number);
        if hits(bits(1), self.loss_ppm) {
            return 0;
        }
        1 + u8::from(hits(bits(2), self.duplicate_ppm))
    }
}

fn hits(bits: u64, ppm: u32) -> bool {
    below(bits, PPM.into()) < ppm.into()
}
