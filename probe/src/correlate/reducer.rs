//! Trajectories of all partitions, added up by window.
//!
//! In: messages of the members, in the order of their topic. Out: records of each window, once all that
//! belongs to it is there.
//! Cost: as in a probe's aggregation thread, and at most 60 bytes a sighting that may come again. What waits
//! in windows has room for [`WAITING_MAX`] beside what more comes of these windows.
//! Invariants: a window is over when every partition has joined what was sent until twice the hold after
//! the window's first sighting was; so it makes no difference how long a member took, or whether another
//! one did its work again. What was joined twice counts once, among the last [`KNOWN_MAX`] sightings that
//! may be: what counts beyond them is counted. Who takes over begins early enough to know
//! what the one before knew, and gives nothing out before it has read what that one has said it gave out.
//! No window is given out before its time because one clock is ahead, that of a member or that of packets:
//! the one counts as now, and packets of windows further ahead than the hold are left out, both counted.
//! Where windows are full, what is of later ones is passed over, and read again when those before are given
//! out ([`Skipped`]): nothing is lost, and nothing of it is counted twice.
//! Source: as aggregate/path.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::aggregate::path::{PAST_NS, Paths, Stands, Waiting};
use crate::config::Plan;
use crate::hash::KeyedSet;
use crate::index::{TapIndex, WindowNumber};
use crate::inventory::InventoryCell;
use crate::path::{Sight, Trajectory};
use crate::record::{RecordMaker, Rows};
use crate::time::{Timestamp, ms};

use super::believed_ms;
use super::lane::Wants;
use super::message::Message;

/// For how long [`Paths`] remembers ways, places and least times.
const HISTORY_NS: u64 = ms(60_000);
/// Windows before which what it knows of how times scatter counts next to nothing: each half as much as the
/// one after it.
const HISTORY_WINDOWS: u64 = 32;
const _: () = assert!(PAST_NS < HISTORY_NS, "what it remembers of moves is less");

/// Sightings by which trajectories that come again are known, at most; beyond it they are not.
const KNOWN_MAX: usize = 1 << 22;
/// What windows that are not given out may hold until no other one begins: some 2 GB, 1,650
/// octets a pair of endpoints and 24 a packet.
const WAITING_MAX: Waiting = Waiting { windows: usize::MAX, ends: 1 << 20, packets: 1 << 24 };
/// How old the offset may be from which a member reads again what another one has joined already, beside
/// what was held then: it is committed twice a second, and takes its time to the brokers.
const COMMIT_MS: i64 = 5_000;

/// What is known of a window's messages.
#[derive(Clone, Copy)]
struct Arrival {
    /// When its first sighting was sent.
    first_ms: i64,
    first_offset: i64,
}

/// What was left out or came late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReducerCounts {
    /// Trajectories that counted.
    pub(super) taken: u64,
    /// That were there already.
    pub(super) repeated: u64,
    /// Whose window was over.
    pub(super) late: u64,
    /// Messages that do not read, or name what the configuration does not have.
    pub(super) unread: u64,
    /// Clocks of members that were later than now, and trajectories whose packets were later than their
    /// messages by more than the hold.
    pub(super) clock_ahead: u64,
    /// Trajectories that counted without being remembered.
    pub(super) unremembered: u64,
}

/// A sighting by which a trajectory is known: digest, when, where.
type Mark = (u64, Timestamp, TapIndex);

/// Sightings of one window.
#[derive(Default)]
struct Known {
    /// When the last of their trajectories was sent.
    last_ms: i64,
    marks: KeyedSet<Mark>,
}

/// Trajectories of later windows that found no room: they are read again, from the first of them on. Until
/// then all is read on that says whether the windows that are there are over.
struct Skipped {
    /// Of the first.
    offset: i64,
    /// The last window of which all is taken.
    last: u64,
    /// What members had said before it: what they say later is of what was passed over, too.
    clocks: BTreeMap<i32, i64>,
}

/// What is read again: of windows up to the last one, all was taken before.
struct Again {
    until: i64,
    last: u64,
}

/// All of one group.
pub(super) struct Reducer {
    plan: Arc<Plan>,
    hold_ms: i64,
    /// As far as that is known.
    partitions: Option<usize>,
    length_ns: u64,
    paths: Paths,
    waiting_max: Waiting,
    skipped: Option<Skipped>,
    again: Vec<Again>,
    maker: RecordMaker,
    arrivals: BTreeMap<u64, Arrival>,
    known: BTreeMap<WindowNumber, Known>,
    known_max: usize,
    known_count: usize,
    /// Up to when what was sent is joined, by partition.
    clocks: BTreeMap<i32, i64>,
    next_offset: i64,
    /// Behind what was ever read.
    new_offset: i64,
    /// All that other members have said is read; nothing is given out before.
    is_caught_up: bool,
    /// Records of windows up to this one are out.
    emitted: Option<u64>,
    counts: ReducerCounts,
}

impl Reducer {
    pub(super) fn new(
        plan: &Arc<Plan>,
        inventory: InventoryCell,
        maker: RecordMaker,
        first_offset: i64,
    ) -> Self {
        Self {
            hold_ms: plan.correlate.hold_ms.into(),
            partitions: None,
            length_ns: ms(plan.window.length_ms.into()),
            paths: Paths::new(plan, Stands::new(plan, inventory)),
            waiting_max: WAITING_MAX,
            skipped: None,
            again: Vec::new(),
            plan: Arc::clone(plan),
            maker,
            arrivals: BTreeMap::new(),
            known: BTreeMap::new(),
            known_max: KNOWN_MAX,
            known_count: 0,
            clocks: BTreeMap::new(),
            next_offset: first_offset,
            new_offset: first_offset,
            is_caught_up: false,
            emitted: None,
            counts: ReducerCounts::default(),
        }
    }

    pub(super) fn counts(&self) -> ReducerCounts {
        self.counts
    }

    /// Sightings that are remembered, and how many there is room for.
    pub(super) fn room(&self) -> (usize, usize) {
        (self.known_count, self.known_max)
    }

    /// What windows hold that are not given out, and what they may.
    pub(super) fn waiting(&self) -> (Waiting, Waiting) {
        (self.paths.waiting(), self.waiting_max)
    }

    /// So many partitions have clocks.
    pub(super) const fn set_partitions(&mut self, partitions: usize) {
        self.partitions = Some(partitions);
    }

    /// For the next reducer of the same member.
    pub(super) fn into_maker(self) -> RecordMaker {
        self.maker
    }

    /// There is nothing more to read now.
    pub(super) const fn caught_up(&mut self) {
        self.is_caught_up = true;
    }

    /// Takes a message. `now_ms`: the wall clock.
    pub(super) fn read(&mut self, offset: i64, value: &[u8], now_ms: i64) {
        self.next_offset = offset + 1;
        let is_new = offset >= self.new_offset;
        self.new_offset = self.new_offset.max(self.next_offset);
        match serde_json::from_slice(value) {
            Ok(Message::Joined(joined)) => match joined.trajectory(&self.plan) {
                Some(trajectory) if self.is_ahead(joined.sent_ms(), trajectory.window) => {
                    self.counts.clock_ahead += u64::from(is_new);
                }
                Some(trajectory) if self.passes_over(offset, trajectory.window.0) => {}
                Some(trajectory) => self.take(offset, joined.sent_ms(), &trajectory),
                None => self.counts.unread += u64::from(is_new),
            },
            Ok(Message::Clock { partition, sent_ms }) => {
                let believed_ms = believed_ms(sent_ms, now_ms, self.hold_ms);
                self.counts.clock_ahead += u64::from(is_new && believed_ms < sent_ms);
                let clock = self.clocks.entry(partition).or_insert(believed_ms);
                *clock = believed_ms.max(*clock);
            }
            Ok(Message::Emitted { window }) => self.emitted = self.emitted.max(Some(window)),
            Ok(Message::Contacts(_)) | Err(_) => self.counts.unread += u64::from(is_new),
        }
    }

    /// Whether a trajectory was taken before, or is one of a window that finds no room now.
    fn passes_over(&mut self, offset: i64, window: u64) -> bool {
        self.again.retain(|again| again.until > offset);
        if self.again.iter().any(|again| window <= again.last) {
            return true;
        }
        if let Some(skipped) = &self.skipped {
            return window > skipped.last;
        }
        let last = self.arrivals.last_key_value().map(|(last, _)| *last);
        let finds_room = last.is_none_or(|last| window <= last) || self.has_room();
        if let Some(last) = last.filter(|_| !finds_room) {
            self.skipped = Some(Skipped { offset, last, clocks: self.clocks.clone() });
        }
        !finds_room
    }

    /// Whether another window may begin. Those that a window waits for behind it always may: else none would
    /// ever be given out.
    fn has_room(&self) -> bool {
        let (waiting, max) = self.waiting();
        waiting.windows <= self.paths.lag() + 1
            || waiting.ends < max.ends && waiting.packets < max.packets
    }

    /// What is to be read next.
    pub(super) fn wants(&self) -> Wants {
        let Some(skipped) = &self.skipped else { return Wants::Next };
        let complete = self.complete().filter(|_| self.is_caught_up);
        match complete {
            Some(complete) if self.paths.has_view(complete) => Wants::Nothing,
            Some(complete) if complete.0 >= skipped.last => Wants::From(skipped.offset),
            _ => Wants::Next,
        }
    }

    /// What was passed over is read now.
    pub(super) fn goes_back(&mut self) {
        let Some(Skipped { offset, last, clocks }) = self.skipped.take() else { return };
        self.again.retain(|again| again.until > self.next_offset);
        self.again.push(Again { until: self.next_offset, last });
        (self.next_offset, self.clocks) = (offset, clocks);
    }

    fn take(&mut self, offset: i64, sent_ms: i64, trajectory: &Trajectory) {
        let window = trajectory.window.0;
        if self.is_repeated(sent_ms, trajectory) {
            self.counts.repeated += 1;
            return;
        }
        let arrival = self
            .arrivals
            .entry(window)
            .or_insert(Arrival { first_ms: sent_ms, first_offset: offset });
        arrival.first_ms = arrival.first_ms.min(sent_ms);
        self.counts.taken += 1;
        self.paths.take(std::slice::from_ref(trajectory));
    }

    /// Whether a trajectory was there before, in part at least; if not, it is remembered.
    fn is_repeated(&mut self, sent_ms: i64, trajectory: &Trajectory) -> bool {
        let mark = |sight: &Sight| (trajectory.digest, sight.at, sight.tap);
        let (sights, length_ns) = (trajectory.sights(), self.length_ns);
        let number = |sight: &Sight| WindowNumber::of(sight.at, length_ns);
        let is_known = |sight: &Sight| {
            self.known.get(&number(sight)).is_some_and(|known| known.marks.contains(&mark(sight)))
        };
        if sights.iter().any(is_known) {
            return true;
        }
        if self.known_count + sights.len() > self.known_max {
            self.counts.unremembered += 1;
            return false;
        }
        for sight in sights {
            let known = self.known.entry(number(sight)).or_default();
            known.last_ms = known.last_ms.max(sent_ms);
            self.known_count += usize::from(known.marks.insert(mark(sight)));
        }
        false
    }

    /// Whether packets had a time that was further ahead of that of their message than a window waits for
    /// others: with that window all between would be given out, before their packets have come.
    fn is_ahead(&self, sent_ms: i64, window: WindowNumber) -> bool {
        let start_ms = window.start(self.length_ns).as_ns() / ms(1);
        i64::try_from(start_ms).unwrap_or(i64::MAX) > sent_ms.saturating_add(self.hold_ms)
    }

    /// Up to when what was sent is joined in all partitions.
    fn clock_ms(&self) -> Option<i64> {
        self.least_ms(&self.clocks)
    }

    fn least_ms(&self, clocks: &BTreeMap<i32, i64>) -> Option<i64> {
        let all = clocks.len() >= self.partitions?;
        clocks.values().min().copied().filter(|_| all)
    }

    /// The last window of which, and of all before it, everything is there; the last of all where nothing
    /// is missing of any, and nothing was passed over.
    fn complete(&self) -> Option<WindowNumber> {
        let clock_ms = self.clock_ms()?;
        let is_over = |arrival: &Arrival| {
            arrival.first_ms.saturating_add(self.hold_ms.saturating_mul(2)) <= clock_ms
        };
        let over = self.arrivals.iter().take_while(|(_, arrival)| is_over(arrival));
        let last = over.map(|(window, _)| *window).last()?;
        if self.skipped.is_some() {
            return Some(WindowNumber(last));
        }
        let is_last = self.arrivals.last_key_value().is_some_and(|(window, _)| *window == last);
        Some(WindowNumber(if is_last { u64::MAX } else { last }))
    }

    /// The next window that is over, its end and its records.
    pub(super) fn next_rows(&mut self) -> Option<(u64, Timestamp, Rows)> {
        if !self.is_caught_up {
            return None;
        }
        let complete = self.complete()?;
        loop {
            let view = self.paths.next_view(complete)?;
            self.counts.late += view.late_packets;
            let window = WindowNumber::of(view.start, self.length_ns).0;
            if self.emitted.is_some_and(|emitted| window <= emitted) {
                self.forget(window);
                continue;
            }
            self.maker.renew();
            return Some((window, view.end, self.maker.paths(&view)));
        }
    }

    /// The records of a window are out.
    pub(super) fn is_out(&mut self, window: u64) {
        self.emitted = self.emitted.max(Some(window));
        self.forget(window);
    }

    /// Forgets what no later window asks for.
    fn forget(&mut self, window: u64) {
        let verdict_ns = ms(self.plan.path.verdict_ms.into());
        let kept = (HISTORY_NS + 2 * verdict_ns).div_ceil(self.length_ns) + HISTORY_WINDOWS;
        let first = window.saturating_sub(kept);
        self.arrivals = self.arrivals.split_off(&first);
        self.forget_known();
    }

    /// Forgets what comes no second time: whoever takes over a partition begins with what its last member
    /// held, which was sent at most a hold before that member's clock.
    fn forget_known(&mut self) {
        // What was passed over comes as of then.
        let clocks = self.skipped.as_ref().map_or(&self.clocks, |skipped| &skipped.clocks);
        let Some(clock_ms) = self.least_ms(clocks) else { return };
        let least_ms = clock_ms.saturating_sub(self.hold_ms.saturating_mul(2) + COMMIT_MS);
        self.known.retain(|_, known| known.last_ms >= least_ms);
        self.known_count = self.known.values().map(|known| known.marks.len()).sum();
    }

    /// What must be read again by who comes after: all from here on.
    pub(super) fn first_needed(&self) -> i64 {
        let first = self.arrivals.values().map(|arrival| arrival.first_offset).min();
        let next = first.unwrap_or(self.next_offset);
        self.skipped.as_ref().map_or(next, |skipped| skipped.offset.min(next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::joined::Joined;
    use super::super::message::Message;
    use super::super::testing::{self, Given, given, taken_over};
    use super::*;
    use crate::config::TapPlan;
    use crate::decode::Address;
    use crate::path::Ends;
    use crate::record::{InventoryRows, Names};
    use crate::worker::PortNames;

    const WINDOWS: u64 = 150;
    const START_S: u64 = 1_700_000_000;

    fn plan() -> Arc<Plan> {
        let tap = |name: &str| TapPlan { name: name.to_owned(), ..TapPlan::default() };
        let mut plan = Plan { taps: vec![tap("a"), tap("b")], ..Plan::default() };
        plan.domains = vec!["default".to_owned()];
        plan.correlate.hold_ms = 1_000;
        Arc::new(plan)
    }

    fn names(plan: &Plan) -> Names {
        Names::new(plan, PortNames::new(&[]))
    }

    fn reducer(plan: &Arc<Plan>, first_offset: i64) -> Reducer {
        let maker =
            RecordMaker::new(names(plan), InventoryCell::default(), InventoryRows::default());
        let mut reducer = Reducer::new(plan, InventoryCell::default(), maker, first_offset);
        reducer.set_partitions(2);
        reducer
    }

    /// A packet from one tap to the other, whose way takes longer from minute to minute.
    fn trajectory(window: u64, packet: u64) -> Trajectory {
        let at = Timestamp((START_S + window) * 1_000_000_000 + packet * 1_000_000);
        let later = Timestamp(at.0 + 100_000 + window * 1_000 + packet);
        let sight = |tap, at, ttl| Sight { tap: TapIndex(tap), at, ttl, is_untagged: true };
        let address = |last| Address::v4([10, 0, 0, last]);
        let ends = Ends {
            source: address(1),
            destination: address(2),
            protocol: 17,
            ip_version: 4,
            ..Ends::default()
        };
        let number = WindowNumber::of(at, 1_000_000_000);
        // Each fifth is lost.
        let sights = [sight(0, at, 64), sight(1, later, 63)];
        let seen = if packet % 5 == 4 { &sights[..1] } else { &sights };
        Trajectory::of(ends, window * 100 + packet, number, seen).expect("two sights")
    }

    /// When what a window has was sent.
    fn sent_ms(window: u64) -> i64 {
        i64::try_from((START_S + window) * 1_000).expect("small")
    }

    fn joined(plan: &Plan, window: u64, packet: u64) -> Vec<u8> {
        let joined = Joined::of(&trajectory(window, packet), sent_ms(window), &mut names(plan));
        serde_json::to_vec(&Message::Joined(Box::new(joined))).expect("JSON")
    }

    /// What members send in so many windows; `again`: another one does half of it once more.
    fn log(plan: &Plan, again: bool) -> Vec<Vec<u8>> {
        let mut log = Vec::new();
        for window in 0..WINDOWS {
            log.extend((0..10).map(|packet| joined(plan, window, packet)));
            if let Some(before) = window.checked_sub(1).filter(|_| again) {
                log.extend((0..5).map(|packet| joined(plan, before, packet)));
            }
            for partition in 0..2 {
                let clock = Message::Clock { partition, sent_ms: sent_ms(window) };
                log.push(serde_json::to_vec(&clock).expect("JSON"));
            }
        }
        for partition in 0..2 {
            let clock = Message::Clock { partition, sent_ms: i64::MAX };
            log.push(serde_json::to_vec(&clock).expect("JSON"));
        }
        log
    }

    fn whole(plan: &Arc<Plan>, log: &[Vec<u8>]) -> (Given, ReducerCounts) {
        let (all, reducer) = testing::whole(reducer(plan, 0), log);
        (all, reducer.counts())
    }

    #[test]
    fn who_takes_over_goes_on_where_the_other_was() {
        let plan = plan();
        let log = log(&plan, false);
        let (whole, counts) = whole(&plan, &log);
        assert_eq!(whole.len() as u64, WINDOWS);
        assert_eq!((counts.taken, counts.late, counts.unread), (WINDOWS * 10, 0, 0));
        let lost = |rows: &Rows| rows.path.iter().map(|row| row.unresolved_loss_packet_count).max();
        assert!(whole.iter().all(|(_, rows)| lost(rows) == Some(2)), "{whole:?}");
        for cut in [0, 5, 60, 300, 1_500, 1_700, log.len() - 1] {
            let (all, first) = taken_over(|first| reducer(&plan, first), &log, cut, 0);
            assert!(cut < 1_500 || first > 0, "it is not all read again: {cut}");
            assert_eq!(all, whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_joined_twice_counts_once() {
        let plan = plan();
        let (once, _) = whole(&plan, &log(&plan, false));
        let (twice, counts) = whole(&plan, &log(&plan, true));
        assert_eq!((counts.taken, counts.repeated), (WINDOWS * 10, (WINDOWS - 1) * 5));
        assert_eq!(once, twice);
    }

    #[test]
    fn what_may_not_come_again_makes_room_for_what_may() {
        let plan = plan();
        // A tenth of all sightings.
        let with_room = |room: usize, again| {
            let (mut reducer, mut all) = (reducer(&plan, 0), Vec::new());
            reducer.known_max = room;
            reducer.caught_up();
            for (offset, message) in (0..).zip(&log(&plan, again)) {
                reducer.read(offset, message, i64::MAX);
                assert!(reducer.known_count <= room);
                all.extend(given(&mut reducer));
            }
            assert!(reducer.known.is_empty() && reducer.known_count == 0);
            (all, reducer.counts())
        };
        let (once, _) = whole(&plan, &log(&plan, false));
        let (twice, counts) = with_room(270, true);
        assert_eq!((counts.repeated, counts.unremembered), ((WINDOWS - 1) * 5, 0));
        assert_eq!(once, twice);
        // Without room for them it is at least known how many there were.
        let (_, counts) = with_room(100, false);
        assert!((1..WINDOWS * 10).contains(&counts.unremembered), "{counts:?}");
        assert_eq!((counts.taken, counts.repeated), (WINDOWS * 10, 0));
    }

    #[test]
    fn a_partition_that_nobody_has_holds_the_windows_up() {
        let plan = plan();
        let mut reducer = reducer(&plan, 0);
        reducer.caught_up();
        for (offset, message) in (0..).zip(&log(&plan, false)) {
            let text = String::from_utf8_lossy(message);
            if !text.contains("\"clock\":{\"partition\":1") {
                reducer.read(offset, message, i64::MAX);
            }
            assert!(reducer.next_rows().is_none());
        }
        let clock = Message::Clock { partition: 1, sent_ms: i64::MAX };
        reducer.read(100_000, &serde_json::to_vec(&clock).expect("JSON"), i64::MAX);
        assert_eq!(given(&mut reducer).len() as u64, WINDOWS);
    }

    /// What one gives with room for so many packets, and how many messages it has read for it; windows are
    /// given out one at a time, after so many messages at least.
    fn with_little_room(
        plan: &Arc<Plan>,
        log: &[Vec<u8>],
        packets: usize,
        (begins, messages): (bool, usize),
    ) -> (Given, ReducerCounts, usize) {
        let (mut reducer, mut all) = (reducer(plan, 0), Vec::new());
        reducer.waiting_max.packets = packets;
        reducer.is_caught_up = begins;
        let (mut at, mut read, mut given_at) = (0, 0, 0);
        loop {
            let mut is_idle = true;
            match reducer.wants() {
                Wants::Next if at < log.len() => {
                    reducer.read(i64::try_from(at).expect("small"), &log[at], i64::MAX);
                    assert!(reducer.first_needed() <= i64::try_from(at).expect("small") + 1);
                    (at, read, is_idle) = (at + 1, read + 1, false);
                }
                Wants::Next => {
                    is_idle = reducer.is_caught_up;
                    reducer.caught_up();
                }
                Wants::Nothing => {}
                Wants::From(offset) => {
                    at = usize::try_from(offset).expect("it is not negative");
                    reducer.goes_back();
                    is_idle = false;
                }
            }
            if (is_idle || read >= given_at + messages)
                && let Some((window, _, rows)) = reducer.next_rows()
            {
                reducer.is_out(window);
                all.push((window, rows));
                (given_at, is_idle) = (read, false);
            }
            // All windows before the limit, and what more comes of them.
            assert!(reducer.paths.waiting().packets <= 2 * packets + 10);
            if is_idle {
                return (all, reducer.counts(), read);
            }
        }
    }

    #[test]
    fn what_finds_no_room_in_windows_is_read_again() {
        let plan = plan();
        for again in [false, true] {
            let log = log(&plan, again);
            let (expected, counts) = whole(&plan, &log);
            // Who takes over and has to read all first; and one whose sinks are slow.
            for way in [(false, 0), (true, 0), (true, 300)] {
                let (all, found, read) = with_little_room(&plan, &log, 200, way);
                assert_eq!(found, counts, "{way:?}");
                assert_eq!(all, expected, "{way:?}");
                assert!(read < log.len() * 5 / 2, "{way:?}: {read} of {}", log.len());
                let (all, found, read) = with_little_room(&plan, &log, 5_000, way);
                assert_eq!((&all, found, read), (&expected, counts, log.len()), "{way:?}");
            }
        }
    }

    #[test]
    fn a_partition_that_is_far_behind_loses_nothing_where_windows_are_full() {
        let plan = plan();
        let partition = |text: &str| {
            let half = text.split("\"digest\":").nth(1).and_then(|it| it.split(',').next());
            half.map(|digest| digest.parse::<u64>().expect("a number") % 10 / 5)
        };
        let (mut ahead, behind): (Vec<_>, Vec<_>) = log(&plan, false).into_iter().partition(|it| {
            let text = String::from_utf8_lossy(it);
            partition(&text) == Some(0) || text.contains("\"clock\":{\"partition\":0")
        });
        ahead.extend(behind);
        let (expected, counts) = whole(&plan, &ahead);
        assert_eq!((expected.len() as u64, counts.taken, counts.late), (WINDOWS, WINDOWS * 10, 0));
        for way in [(false, 0), (true, 0), (true, 300)] {
            let (all, found, _) = with_little_room(&plan, &ahead, 200, way);
            assert_eq!((found, all.len()), (counts, expected.len()), "{way:?}");
            assert_eq!(all, expected, "{way:?}");
        }
    }

    #[test]
    fn nothing_is_over_as_long_as_nobody_knows_how_many_partitions_there_are() {
        let plan = plan();
        let maker =
            RecordMaker::new(names(&plan), InventoryCell::default(), InventoryRows::default());
        let mut reducer = Reducer::new(&plan, InventoryCell::default(), maker, 0);
        reducer.caught_up();
        for (offset, message) in (0..).zip(&log(&plan, false)) {
            reducer.read(offset, message, i64::MAX);
            assert!(reducer.next_rows().is_none());
        }
        reducer.set_partitions(2);
        assert_eq!(given(&mut reducer).len() as u64, WINDOWS);
    }

    #[test]
    fn a_clock_that_is_ahead_gives_no_window_out_before_its_time() {
        const AHEAD: u64 = 3_600;
        let plan = plan();
        let log = log(&plan, false);
        let (expected, _) = whole(&plan, &log);
        let (mut reducer, mut all) = (reducer(&plan, 0), Vec::new());
        reducer.caught_up();
        let ahead = [
            // A member, in both partitions.
            Message::Clock { partition: 0, sent_ms: sent_ms(40 + AHEAD) },
            Message::Clock { partition: 1, sent_ms: sent_ms(40 + AHEAD) },
            // The packets of a probe, whose message counts as sent now.
            Message::Joined(Box::new(Joined::of(
                &trajectory(40 + AHEAD, 0),
                sent_ms(40),
                &mut names(&plan),
            ))),
        ];
        let mut offset = 0;
        let mut read = |reducer: &mut Reducer, message: &[u8], now_ms| {
            reducer.read(offset, message, now_ms);
            offset += 1;
            all.extend(given(reducer));
        };
        for (place, message) in log.iter().enumerate() {
            // Ten trajectories and two clocks a window.
            let window = place as u64 / 12;
            let now_ms = if window < WINDOWS { sent_ms(window) } else { i64::MAX };
            if place == 40 * 12 {
                for message in &ahead {
                    read(&mut reducer, &serde_json::to_vec(message).expect("JSON"), now_ms);
                }
            }
            read(&mut reducer, message, now_ms);
        }
        assert_eq!(all, expected);
        let counts = reducer.counts();
        assert_eq!((counts.clock_ahead, counts.late, counts.taken), (3, 0, WINDOWS * 10));
    }
}
