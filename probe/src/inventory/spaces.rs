//! Address spaces: which segments are routed together, by configuration and by inventory.
//!
//! In: the configuration's spaces, facts of segments. Out: the [`AddressSpace`] of a segment at a time,
//! names of spaces, the joins that workers are told.
//! Cost: a map look-up; changes are rare.
//! Invariants: a name keeps its number for as long as the probe runs. What the configuration joins the
//! inventory does not move.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{Attribute, Value};
use super::fact::{Fact, Facts};
use super::precedence::{SourceName, heard};
use super::timeline::Timeline;
use super::{AddressSpace, Interval, Segment};
use crate::time::Timestamp;

/// Names of address spaces at most, those of the configuration included.
pub const SPACES_MAX: usize = 1 << 16;
/// Segments that the inventory joins at most.
pub const SEGMENTS_MAX: usize = 1 << 18;

/// Where interfaces stand whose segment no source names: only MAC addresses mean anything there.
pub(super) const NOWHERE: AddressSpace = AddressSpace::named((1 << 28) - 1);

/// Segments and spaces as they are known.
#[derive(Clone, Debug, Default)]
pub struct Spaces {
    /// By number.
    names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, u32>,
    configured: BTreeMap<Segment, AddressSpace>,
    facts: BTreeMap<Segment, Facts>,
    joined: BTreeMap<Segment, Timeline<AddressSpace>>,
}

impl Spaces {
    /// With the spaces of the configuration: names in order of their numbers, and what they join.
    pub fn new(
        names: impl IntoIterator<Item = Arc<str>>,
        joined: impl IntoIterator<Item = (Segment, AddressSpace)>,
    ) -> Self {
        let mut spaces = Self { configured: joined.into_iter().collect(), ..Self::default() };
        for name in names {
            spaces.number(&name);
        }
        spaces
    }

    /// The name of a joined space; `None` for a segment of its own.
    pub fn name(&self, space: AddressSpace) -> Option<&Arc<str>> {
        let segment = space.as_segment();
        let place = usize::try_from(segment.id()).ok()?;
        (segment.kind() == super::SegmentKind::Named).then(|| self.names.get(place))?
    }

    /// The space of that name.
    pub fn named(&self, name: &str) -> Option<AddressSpace> {
        self.numbers.get(name).copied().map(AddressSpace::named)
    }

    /// The space that a segment is routed in at a time.
    pub fn at(&self, segment: Segment, at: Timestamp) -> AddressSpace {
        let own = AddressSpace::of_segment(segment);
        if let Some(space) = self.configured.get(&segment) {
            return *space;
        }
        self.joined.get(&segment).and_then(|joined| joined.at(at)).copied().unwrap_or(own)
    }

    /// The spaces of a segment during a time; the whole of it in each of them that is given with the
    /// time itself.
    pub(super) fn during(&self, segment: Segment, time: Interval) -> Vec<(Interval, AddressSpace)> {
        let own = AddressSpace::of_segment(segment);
        if let Some(space) = self.configured.get(&segment) {
            return vec![(time, *space)];
        }
        let Some(joined) = self.joined.get(&segment) else { return vec![(time, own)] };
        let mut timeline = Timeline::of(time, own);
        for (valid, space) in joined.spans() {
            if let Some(both) = valid.and(time) {
                timeline.set(both, Some(*space));
            }
        }
        timeline.spans().to_vec()
    }

    /// Whether the inventory ever joined a segment.
    pub(super) fn has_joined(&self, segment: Segment) -> bool {
        !self.configured.contains_key(&segment) && self.joined.contains_key(&segment)
    }

    /// What the inventory joins at a time, beside the configuration.
    pub fn joins(&self, at: Timestamp) -> impl Iterator<Item = (Segment, AddressSpace)> + '_ {
        self.joined.iter().filter_map(move |(segment, joined)| {
            let space = joined.at(at)?;
            (!self.configured.contains_key(segment)).then_some((*segment, *space))
        })
    }

    /// Facts of all segments.
    pub fn facts(&self) -> &BTreeMap<Segment, Facts> {
        &self.facts
    }

    pub(super) fn facts_mut(&mut self, segment: Segment) -> Option<&mut Facts> {
        if self.facts.len() >= SEGMENTS_MAX && !self.facts.contains_key(&segment) {
            return None;
        }
        Some(self.facts.entry(segment).or_default())
    }

    /// Makes the timeline of a segment anew. `false` where a name found no room.
    pub(super) fn resolve(&mut self, segment: Segment, sources: &[SourceName]) -> bool {
        let Some(facts) = self.facts.get(&segment) else { return true };
        let said: Vec<&Fact> =
            facts.current().filter(|fact| fact.attribute == Attribute::Space).collect();
        let text = |value: &Value| {
            if let Value::Text(text) = value { Some(Arc::clone(text)) } else { None }
        };
        let heard = heard(&said, sources, text);
        let (mut joined, mut whole) = (Timeline::default(), true);
        for (valid, heard) in heard.spans() {
            match self.number(&heard.value) {
                Some(number) => joined.append(*valid, AddressSpace::named(number)),
                None => whole = false,
            }
        }
        self.joined.insert(segment, joined);
        whole
    }

    fn number(&mut self, name: &Arc<str>) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        if self.names.len() >= SPACES_MAX {
            return None;
        }
        let number = u32::try_from(self.names.len()).ok()?;
        self.names.push(Arc::clone(name));
        self.numbers.insert(Arc::clone(name), number);
        Some(number)
    }

    /// As it was known at a time.
    pub(super) fn known_at(&self, known: Timestamp, sources: &[SourceName]) -> Self {
        let facts = self.facts.iter().map(|(segment, facts)| (*segment, facts.known_at(known)));
        let mut then = Self { facts: facts.collect(), joined: BTreeMap::new(), ..self.clone() };
        let segments: Vec<Segment> = then.facts.keys().copied().collect();
        for segment in segments {
            then.resolve(segment, sources);
        }
        then
    }
}
