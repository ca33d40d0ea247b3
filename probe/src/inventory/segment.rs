//! Segments and address spaces as numbers that fit a flow key.
//!
//! In: tags and tunnel headers. Out: `Segment` and `AddressSpace`, one `u64` each, and their text
//! `domain/kind/id`.
//! Cost: shifts; no table is looked up to name a segment.
//! Invariants: equal segments have equal numbers on every worker and probe with the same list of
//! domains; two different segments never share a number.

use std::fmt;

/// Kind of the innermost overlay header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SegmentKind {
    /// Untagged, no tunnel.
    #[default]
    None = 0,
    /// One VLAN tag.
    Vlan = 1,
    /// Two VLAN tags.
    Qinq = 2,
    /// VXLAN or VXLAN-GPE.
    Vxlan = 3,
    /// GENEVE.
    Geneve = 4,
    /// NVGRE (GRE with Ethernet inside and a key).
    Nvgre = 5,
    /// GRE with or without key.
    Gre = 6,
    /// MPLS bottom label, where the configuration says that labels name segments.
    Mpls = 7,
    /// A name of the configuration or inventory, not a header.
    Named = 8,
    /// Provider backbone bridging, by its service instance (802.1ah).
    Pbb = 9,
    /// GTP-U tunnel endpoint id, where the configuration says that they name segments.
    Gtp = 10,
}

impl SegmentKind {
    const ALL: [Self; 11] = [
        Self::None,
        Self::Vlan,
        Self::Qinq,
        Self::Vxlan,
        Self::Geneve,
        Self::Nvgre,
        Self::Gre,
        Self::Mpls,
        Self::Named,
        Self::Pbb,
        Self::Gtp,
    ];

    /// The word in `domain/kind/id`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vlan => "vlan",
            Self::Qinq => "qinq",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Nvgre => "nvgre",
            Self::Gre => "gre",
            Self::Mpls => "mpls",
            Self::Named => "named",
            Self::Pbb => "pbb",
            Self::Gtp => "gtp",
        }
    }
}

const KIND_SHIFT: u32 = 60;
const DOMAIN_SHIFT: u32 = 52;
const TAG_MASK: u64 = 0xfff;

/// A tenant network as seen in the packet. From the high bits: kind (4), domain (8), id (28, for
/// GRE and GTP 32), and the VLAN tags inside a tunnel (24: two of them, for GRE and GTP one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Segment(u64);

impl Segment {
    /// Domains that fit a number; domain 0 is called `default`.
    pub const DOMAINS_MAX: usize = 256;

    /// Untagged traffic of domain 0.
    pub const NONE: Self = Self(0);

    /// A segment named by one header; `id` is the VLAN id, VNI, VSID, GRE key, label, I-SID or TEID. For
    /// [`SegmentKind::Qinq`] use [`Segment::qinq`].
    pub const fn new(domain: u8, kind: SegmentKind, id: u32) -> Self {
        Self(
            ((kind as u64) << KIND_SHIFT)
                | ((domain as u64) << DOMAIN_SHIFT)
                | ((id as u64) << id_shift(kind)),
        )
    }

    /// Two stacked VLAN tags, each 0–4095.
    pub const fn qinq(domain: u8, outer: u16, inner: u16) -> Self {
        let id = ((outer as u32 & 0xfff) << 12) | (inner as u32 & 0xfff);
        Self::new(domain, SegmentKind::Qinq, id)
    }

    /// The same segment with the VLAN tags inside its tunnel, which are part of its name:
    /// `vxlan/4242.10`, `vxlan/4242.10.20`. Pass outer 0 for one tag. `None` where two tags do
    /// not fit beside a GRE key or a TEID.
    #[must_use]
    pub fn with_inner_vlans(self, outer: u16, inner: u16) -> Option<Self> {
        let (outer, inner) = (u64::from(outer) & TAG_MASK, u64::from(inner) & TAG_MASK);
        if outer != 0 && has_wide_id(self.kind()) {
            return None;
        }
        Some(Self(self.0 | (outer << 12) | inner))
    }

    /// Kind of the innermost overlay header.
    pub fn kind(self) -> SegmentKind {
        let bits = usize::try_from(self.0 >> KIND_SHIFT).unwrap_or(0);
        SegmentKind::ALL.get(bits).copied().unwrap_or_default()
    }

    /// Place of the domain in the configuration's list.
    #[expect(clippy::cast_possible_truncation, reason = "the field is 8 bits wide")]
    pub const fn domain(self) -> u8 {
        (self.0 >> DOMAIN_SHIFT) as u8
    }

    /// VLAN id, VNI, VSID, key, label, I-SID or TEID; for two stacked VLANs both, 12 bits each.
    pub fn id(self) -> u32 {
        let field = self.0 & ((1 << DOMAIN_SHIFT) - 1);
        u32::try_from(field >> id_shift(self.kind())).unwrap_or(u32::MAX)
    }

    /// The VLAN tags inside the tunnel, outer then inner; 0 where there is none.
    #[expect(clippy::cast_possible_truncation, reason = "each field is 12 bits wide")]
    pub fn inner_vlans(self) -> (u16, u16) {
        let outer = if has_wide_id(self.kind()) { 0 } else { (self.0 >> 12) & TAG_MASK };
        (outer as u16, (self.0 & TAG_MASK) as u16)
    }

    /// The number itself, for hashing and keys.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The text `domain/kind/id`, with the domain's name from `domains`.
    pub fn text(self, domains: &[String]) -> String {
        let domain = domains.get(usize::from(self.domain())).map_or("default", String::as_str);
        format!("{domain}/{self}")
    }

    /// Reads `domain/kind/id`, as [`Segment::text`] writes it. `None` if it is not of that form
    /// or the domain is not in `domains`.
    pub fn parse(text: &str, domains: &[String]) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (domain, kind) = (parts.next()?, parts.next()?);
        let place = domains.iter().position(|name| name == domain);
        let domain = u8::try_from(place.or((domain == "default").then_some(0))?).ok()?;
        let kind = SegmentKind::ALL.into_iter().find(|candidate| candidate.name() == kind)?;
        let numbers = parts.next().map(numbers_of).unwrap_or(Some(Vec::new()))?;
        let tag = |number: u32| u16::try_from(number).ok().filter(|tag| *tag < 4096);
        match (kind, numbers.as_slice()) {
            (SegmentKind::None, []) => Some(Self::new(domain, kind, 0)),
            (SegmentKind::Qinq, [outer, inner]) => {
                Some(Self::qinq(domain, tag(*outer)?, tag(*inner)?))
            }
            (SegmentKind::Vlan, [id]) => Some(Self::new(domain, kind, tag(*id)?.into())),
            (SegmentKind::None | SegmentKind::Qinq | SegmentKind::Vlan, _) => None,
            (_, [id]) => in_range(kind, *id).then(|| Self::new(domain, kind, *id)),
            (_, [id, inner]) if in_range(kind, *id) => {
                Self::new(domain, kind, *id).with_inner_vlans(0, tag(*inner)?)
            }
            (_, [id, outer, inner]) if in_range(kind, *id) => {
                Self::new(domain, kind, *id).with_inner_vlans(tag(*outer)?, tag(*inner)?)
            }
            _ => None,
        }
    }
}

const fn id_shift(kind: SegmentKind) -> u32 {
    if has_wide_id(kind) { 20 } else { 24 }
}

/// Keys and TEIDs are 32 bits wide.
const fn has_wide_id(kind: SegmentKind) -> bool {
    matches!(kind, SegmentKind::Gre | SegmentKind::Gtp)
}

fn in_range(kind: SegmentKind, id: u32) -> bool {
    has_wide_id(kind) || id < 1 << 28
}

fn numbers_of(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|number| number.parse().ok()).collect()
}

impl fmt::Display for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind().name())?;
        match (self.kind(), self.inner_vlans()) {
            (SegmentKind::None, _) => Ok(()),
            (SegmentKind::Qinq, _) => write!(out, "/{}.{}", self.id() >> 12, self.id() & 0xfff),
            (_, (0, 0)) => write!(out, "/{}", self.id()),
            (_, (0, inner)) => write!(out, "/{}.{inner}", self.id()),
            (_, (outer, inner)) => write!(out, "/{}.{outer}.{inner}", self.id()),
        }
    }
}

/// The set of segments in which addresses are unique: part of every flow key, spread hash and
/// copy digest. By default the segment itself; joined ones share the number of a
/// [`SegmentKind::Named`] segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct AddressSpace(u64);

impl AddressSpace {
    /// The address space that one segment is by itself.
    pub const fn of_segment(segment: Segment) -> Self {
        Self(segment.0)
    }

    /// The `index`-th joined address space of the configuration.
    pub const fn named(index: u32) -> Self {
        Self(Segment::new(0, SegmentKind::Named, index).0)
    }

    /// The number itself, for hashing and keys.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The segment whose number this is; [`SegmentKind::Named`] for a joined one, whose id is
    /// its place among the joined spaces.
    pub const fn as_segment(self) -> Segment {
        Segment(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back_and_differ() {
        let domains = vec!["default".to_owned(), "east".to_owned()];
        let texts = [
            "default/none",
            "default/vlan/42",
            "default/qinq/10.20",
            "east/vxlan/4242",
            "east/vxlan/4242.10",
            "east/vxlan/16777215.4095.4094",
            "default/gre/4294967295.7",
            "east/geneve/1",
            "default/nvgre/1",
            "default/mpls/16",
            "default/pbb/16777215.4095.4094",
            "default/gtp/4294967295",
        ];
        let mut seen = std::collections::HashSet::new();
        for text in texts {
            let segment = Segment::parse(text, &domains).expect(text);
            assert_eq!(segment.text(&domains), text);
            assert!(seen.insert(segment.bits()));
        }
    }

    #[test]
    fn wrong_texts_name_nothing() {
        for text in [
            "",
            "default",
            "west/vlan/1",
            "default/vlan/4096",
            "default/vlan/1.2",
            "default/foo/1",
            "default/qinq/1",
            "default/vxlan/x",
            "default/gre/1.2.3",
            "default/gtp/1.2.3",
            "default/none/1",
        ] {
            assert_eq!(Segment::parse(text, &["default".to_owned()]), None, "{text}");
        }
    }
}
