//! Texts of segments, address spaces and taps, each made once.
//!
//! In: numbers of the packet path. Out: shared texts.
//! Cost: a map look-up; a new text the first time.
//! Invariants: at most [`TEXTS_MAX`] texts are kept; beyond it a text is made anew each time.

use std::sync::Arc;

use crate::config::{Plan, TapPlan};
use crate::hash::KeyedMap;
use crate::index::TapIndex;
use crate::inventory::{AddressSpace, Segment, SegmentKind};
use crate::worker::PortNames;

/// Texts kept of each kind.
const TEXTS_MAX: usize = 1 << 16;

/// The texts.
pub struct Names {
    domains: Vec<String>,
    spaces: Vec<Arc<str>>,
    taps: Vec<TapPlan>,
    ports: PortNames,
    segments: KeyedMap<Segment, Arc<str>>,
    tap_names: KeyedMap<TapIndex, Arc<str>>,
}

impl Names {
    /// From the plan; ports may be added while packets are read.
    pub fn new(plan: &Plan, ports: PortNames) -> Self {
        Self {
            domains: plan.domains.clone(),
            spaces: plan.spaces.iter().map(|space| space.name.as_str().into()).collect(),
            taps: plan.taps.clone(),
            ports,
            segments: KeyedMap::default(),
            tap_names: KeyedMap::default(),
        }
    }

    /// `domain/kind/id`.
    pub fn segment(&mut self, segment: Segment) -> Arc<str> {
        if let Some(text) = self.segments.get(&segment) {
            return Arc::clone(text);
        }
        let text: Arc<str> = segment.text(&self.domains).into();
        if self.segments.len() < TEXTS_MAX {
            self.segments.insert(segment, Arc::clone(&text));
        }
        text
    }

    /// The name of a joined address space, else the segment that it is.
    pub fn space(&mut self, space: AddressSpace) -> Arc<str> {
        let segment = space.as_segment();
        if segment.kind() == SegmentKind::Named {
            let place = usize::try_from(segment.id()).unwrap_or(usize::MAX);
            if let Some(name) = self.spaces.get(place) {
                return Arc::clone(name);
            }
        }
        self.segment(segment)
    }

    /// The name of a configured tap, else of the port whose default tap it is.
    pub fn tap(&mut self, tap: TapIndex) -> Arc<str> {
        if let Some(text) = self.tap_names.get(&tap) {
            return Arc::clone(text);
        }
        let text: Arc<str> = match self.taps.get(usize::from(tap.0)) {
            Some(plan) => plan.name.as_str().into(),
            None => self.port_of(tap),
        };
        self.tap_names.insert(tap, Arc::clone(&text));
        text
    }

    /// The host that a tap stands on, where the configuration says so.
    pub fn tap_host(&self, tap: TapIndex) -> Option<&str> {
        self.taps.get(usize::from(tap.0)).and_then(|plan| plan.host.as_deref())
    }

    /// The switch that a tap copies from, where the configuration says so.
    pub fn tap_switch(&self, tap: TapIndex) -> Option<&str> {
        self.taps.get(usize::from(tap.0)).and_then(|plan| plan.switch.as_deref())
    }

    /// The port of a tap: the one that it is configured for, or whose default tap it is; empty
    /// for a tap of several ports.
    pub fn port_of(&self, tap: TapIndex) -> Arc<str> {
        let place = usize::from(tap.0);
        if let Some(plan) = self.taps.get(place) {
            return plan.matches.port.as_deref().unwrap_or("").into();
        }
        self.ports.get(place - self.taps.len()).unwrap_or_else(|| "".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SpacePlan;

    #[test]
    fn numbers_get_their_names() {
        let plan = Plan {
            domains: vec!["default".to_owned()],
            spaces: vec![SpacePlan {
                name: "blue".to_owned(),
                space: AddressSpace::named(0),
                segments: Vec::new(),
            }],
            taps: vec![TapPlan { name: "host-a".to_owned(), ..TapPlan::default() }],
            ..Plan::default()
        };
        let mut names = Names::new(&plan, PortNames::new(&["p0".to_owned()]));
        let vlan = Segment::new(0, SegmentKind::Vlan, 42);
        assert_eq!(&*names.segment(vlan), "default/vlan/42");
        assert_eq!(&*names.space(AddressSpace::of_segment(vlan)), "default/vlan/42");
        assert_eq!(&*names.space(AddressSpace::named(0)), "blue");
        assert_eq!((&*names.tap(TapIndex(0)), &*names.tap(TapIndex(1))), ("host-a", "p0"));
    }
}
