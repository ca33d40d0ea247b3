//! How a member does, for its metrics and its health.
//!
//! In: what lanes and sinks count, twice a second. Out: a [`Status`], which whoever serves it reads without
//! making the member wait.
//! Cost: one small snapshot a round.
//! Invariants: names come from the program and from topics, never from traffic.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::export::SinkReport;

use super::counts::Counts;

/// The newest state of a member.
pub type StatusCell = Arc<ArcSwap<Status>>;

/// A member as of its last round.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Id of the member, as `probe.id` has it.
    pub member: Arc<str>,
    /// Domain.
    pub domain: Arc<str>,
    /// When this was, by the monotonic clock; 0: there was no round yet.
    pub round_ns: u64,
    /// What it does: path samples, detectors, or both.
    pub lanes: Vec<LaneStatus>,
    /// Its sinks.
    pub sinks: Vec<SinkReport>,
}

/// One of its lanes.
#[derive(Clone, Debug, Default)]
pub struct LaneStatus {
    /// Table that it reads.
    pub table: &'static str,
    /// This member adds up, or runs the detectors.
    pub reduces: bool,
    /// All that is counted, by name.
    pub counts: Counts,
    /// Which of these are of what was left out.
    pub causes: &'static [&'static str],
    /// Alerts that are open; nothing where this member has no detectors.
    pub open_alerts: u64,
    /// What is held, against what there is room for.
    pub rooms: Rooms,
    /// The topic of probes, and the one between members.
    pub topics: [TopicStatus; 2],
}

impl LaneStatus {
    /// Counts of what was left out, or those of everything else.
    pub fn counts(&self, left_out: bool) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().filter(move |(name, _)| self.causes.contains(name) == left_out)
    }
}

/// A topic as this member reads it.
#[derive(Clone, Debug, Default)]
pub struct TopicStatus {
    /// Name.
    pub topic: String,
    /// Messages read.
    pub messages: u64,
    /// What went wrong with the brokers, as often as it was said.
    pub errors: u64,
    /// The last of that, for people.
    pub trouble: Option<Arc<String>>,
    /// Brokers that there is a connection to; `None` as long as nobody has looked.
    pub brokers_up: Option<u64>,
    /// Those of this member.
    pub partitions: Vec<PartitionStatus>,
}

/// A partition that is this member's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Number.
    pub partition: i32,
    /// Messages that are there and not read; `None` as long as the brokers have not said.
    pub lag_messages: Option<u64>,
    /// How far behind now that is which was sent last of what was read, in milliseconds; `None` between
    /// members, or where nothing was read yet.
    pub behind_ms: Option<u64>,
}

/// Places that are taken, and those there are, by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rooms(BTreeMap<&'static str, (u64, u64)>);

impl Rooms {
    /// Adds so many that are taken, of so many.
    pub(super) fn add(&mut self, what: &'static str, taken: usize, max: usize) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let room = self.0.entry(what).or_default();
        *room = (room.0 + count(taken), room.1 + count(max));
    }

    /// All: what, taken, and how many there are.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.0.iter().map(|(what, (taken, max))| (*what, *taken, *max))
    }
}
