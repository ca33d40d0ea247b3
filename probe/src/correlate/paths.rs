//! Path samples: the lane that joins them.
//!
//! In: records of `path_samples`. Out: trajectories to the member that adds up, records of `path`.
//! Cost: as [`Matcher`] and [`Reducer`] have it.

use std::sync::Arc;

use crate::config::Plan;
use crate::record::{Names, RecordMaker, Rows, Table};
use crate::time::Timestamp;
use crate::worker::PortNames;

use super::counts::Counts;
use super::joined::Joined;
use super::lane::{Job, Part, Reduce, Start, Wants};
use super::matcher::Matcher;
use super::message::Message;
use super::reducer::Reducer;
use super::sample::{self, Unread};
use super::status::Rooms;

/// What it is for.
pub(super) static JOB: Job = Job {
    topic: Table::PathSamples.name(),
    between: "trajectories",
    groups: ["", "-sum"],
    counts: &["messages", "joined", "taken", "repeated", "windows", "records"],
    causes: &[
        "malformed",
        "unknown_tap",
        "unknown_space",
        "evicted",
        "left_out",
        "unremembered",
        "late",
        "clock_ahead",
    ],
    part: |plan, first_offset| Box::new(Samples::new(plan, first_offset)),
    reduce: |plan, start| {
        let Start { inventory, maker, first } = start;
        Box::new(Reducer::new(plan, inventory, maker, first.offset))
    },
};

/// One partition of the samples.
struct Samples {
    plan: Arc<Plan>,
    matcher: Matcher,
    names: Names,
    malformed: u64,
    unknown_tap: u64,
    unknown_space: u64,
    joined: u64,
}

impl Samples {
    fn new(plan: &Arc<Plan>, first_offset: i64) -> Self {
        Self {
            matcher: Matcher::new(plan, plan.correlate.hold_ms.into(), first_offset),
            names: Names::new(plan, PortNames::new(&[])),
            plan: Arc::clone(plan),
            malformed: 0,
            unknown_tap: 0,
            unknown_space: 0,
            joined: 0,
        }
    }
}

impl Part for Samples {
    fn read(&mut self, offset: i64, times: (i64, i64), value: &[u8]) {
        let sighting = sample::read(&self.plan, value).map_err(|why| match why {
            Unread::Malformed => self.malformed += 1,
            Unread::UnknownTap => self.unknown_tap += 1,
            Unread::UnknownSpace => self.unknown_space += 1,
        });
        self.matcher.read(offset, times, sighting.ok());
    }

    fn due(&mut self, ended_ms: Option<i64>, out: &mut dyn FnMut(i64, Message)) {
        let Self { matcher, names, joined, .. } = self;
        matcher.due(ended_ms, |offset, sent_ms, trajectory| {
            *joined += 1;
            out(offset, Message::Joined(Box::new(Joined::of(trajectory, sent_ms, names))));
        });
    }

    fn clock_ms(&self, ended_ms: Option<i64>) -> i64 {
        self.matcher.clock_ms(ended_ms)
    }

    fn next_offset(&self) -> i64 {
        self.matcher.next_offset()
    }

    fn first_needed(&self) -> i64 {
        self.matcher.first_needed()
    }

    fn count(&self, counts: &mut Counts) {
        let matcher = self.matcher.counts();
        counts.add("malformed", self.malformed);
        counts.add("unknown_tap", self.unknown_tap);
        counts.add("unknown_space", self.unknown_space);
        counts.add("joined", self.joined);
        counts.add("evicted", matcher.evicted);
        counts.add("left_out", matcher.left_out);
        counts.add("clock_ahead", matcher.clock_ahead);
    }

    fn rooms(&self, rooms: &mut Rooms) {
        let (held, max) = self.matcher.room();
        rooms.add("packets", held, max);
    }
}

impl Reduce for Reducer {
    fn read(&mut self, offset: i64, value: &[u8], now_ms: i64) {
        self.read(offset, value, now_ms);
    }

    fn caught_up(&mut self) {
        self.caught_up();
    }

    fn wants(&self) -> Wants {
        Reducer::wants(self)
    }

    fn goes_back(&mut self) {
        Reducer::goes_back(self);
    }

    fn set_partitions(&mut self, partitions: usize) {
        Reducer::set_partitions(self, partitions);
    }

    fn next_rows(&mut self) -> Option<(u64, Timestamp, Rows)> {
        self.next_rows()
    }

    fn is_out(&mut self, window: u64) {
        self.is_out(window);
    }

    fn first_needed(&mut self) -> i64 {
        Reducer::first_needed(self)
    }

    fn count(&self, counts: &mut Counts) {
        let own = self.counts();
        counts.add("taken", own.taken);
        counts.add("repeated", own.repeated);
        counts.add("unremembered", own.unremembered);
        counts.add("late", own.late);
        counts.add("malformed", own.unread);
        counts.add("clock_ahead", own.clock_ahead);
    }

    fn rooms(&self, rooms: &mut Rooms) {
        let (known, max) = self.room();
        rooms.add("known_sightings", known, max);
        let (waiting, max) = self.waiting();
        rooms.add("waiting_ends", waiting.ends, max.ends);
        rooms.add("waiting_packets", waiting.packets, max.packets);
    }

    fn into_maker(self: Box<Self>) -> RecordMaker {
        (*self).into_maker()
    }
}
