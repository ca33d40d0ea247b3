//! The link itself: frames wait, are lost, overtaken, doubled, merged, and shown by two mirrors.
//!
//! In: frames with the time at which they enter; the time that has come. Out: what leaves and what
//! the mirrors show, into an [`Outlet`].
//! Cost: a heap of what is under way, at most [`QUEUE_FRAMES_MAX`], and the log.
//! Invariants: without reordering no frame overtakes another of its direction; a frame is shown at
//! its entry before anything else happens to it, and at its exit before it is delivered; time given
//! to the outlet never goes back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::alike::alike;
use super::impairments::{Direction, Impairments, Side, Way};
use super::merge::{Leaving, Merger, Part};
use super::packet::{decrement_ttl, parse, push_vlan, set_vlan, set_vni};
use super::truth::{Fate, Frame, TapSums, Truth};

/// Frames that a link takes in its life.
pub const FRAMES_MAX: usize = 4_000_000;

/// Frames under way at once.
pub const QUEUE_FRAMES_MAX: usize = 16_384;

/// Where frames go.
pub trait Outlet {
    /// The time of what happens now and should happen at `due_ns`: that, where time is virtual.
    fn happens_ns(&mut self, due_ns: u64) -> u64 {
        due_ns
    }

    /// A mirror shows a frame, as far as it keeps its octets, of `wire_octets`.
    fn show(&mut self, tap: Side, at_ns: u64, frame: &[u8], wire_octets: u32);

    /// A frame arrives at a side.
    fn deliver(&mut self, to: Side, at_ns: u64, frame: Vec<u8>);
}

#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    due_ns: u64,
    sequence: u64,
    direction: Direction,
    part: Part,
    wire_octets: u32,
    octets: Vec<u8>,
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due_ns, self.sequence).cmp(&(other.due_ns, other.sequence))
    }
}

/// A frame at a tap: the `number`-th that enters or leaves there.
#[derive(Clone, Copy, Debug)]
struct Place {
    tap: Side,
    leaves: bool,
    number: u64,
}

/// What is known of one direction.
#[derive(Debug, Default)]
struct State {
    entered: u64,
    /// When the last one of those in order leaves.
    last_due_ns: u64,
    /// Largest number that has left, and one.
    left: u64,
    /// Frames that have left, merged ones as one.
    exits: u64,
    merger: Option<Merger>,
}

/// A link with a mirror at each end.
#[derive(Debug)]
pub struct Link {
    states: [State; 2],
    queue: BinaryHeap<Reverse<Waiting>>,
    sequence: u64,
    merged: u64,
    truth: Truth,
}

impl Link {
    /// A new one.
    pub fn new(seed: u64, impairments: Impairments) -> Self {
        let state = |direction| {
            let merger = impairments.way(direction).merge.map(Merger::new);
            State { merger, ..State::default() }
        };
        Self {
            states: Direction::BOTH.map(state),
            queue: BinaryHeap::new(),
            sequence: 0,
            merged: 0,
            truth: Truth { seed, impairments, ..Truth::default() },
        }
    }

    /// Frames that came so far.
    pub fn frames(&self) -> usize {
        self.truth.frames.len()
    }

    /// When something leaves next.
    pub fn next_ns(&self) -> Option<u64> {
        let first = self.queue.peek().map(|Reverse(waiting)| waiting.due_ns);
        let merged = self.states.iter().filter_map(|state| state.merger.as_ref()?.deadline_ns());
        merged.chain(first).min()
    }

    /// A frame enters; what was due by then leaves before. `octets` is what is there of `wire_octets`.
    pub fn enter(
        &mut self,
        direction: Direction,
        now_ns: u64,
        octets: Vec<u8>,
        wire_octets: u32,
        outlet: &mut impl Outlet,
    ) {
        self.advance(now_ns, outlet);
        let now_ns = outlet.happens_ns(now_ns);
        let state = &mut self.states[direction.place()];
        let number = state.entered;
        state.entered += 1;
        let headers = parse(&octets);
        let place = self.truth.frames.len();
        let mut entry = Frame::new(direction, number, now_ns, wire_octets, headers.as_ref());
        entry.alike = headers.map_or(0, |headers| alike(&octets, &headers));
        self.truth.frames.push(entry);
        let at = Place { tap: direction.entry(), leaves: false, number };
        let shown = self.mirror(at, now_ns, &octets, wire_octets, outlet);
        self.truth.frames[place].shown.entry = shown;

        let way = self.truth.impairments.way(direction);
        let lot = way.lot(self.truth.seed, direction, number);
        if lot.lost || self.queue.len() >= QUEUE_FRAMES_MAX {
            let fate = if lot.lost { Fate::Lost } else { Fate::Overflowed };
            self.truth.frames[place].fate = fate;
            return;
        }
        let mut due_ns = now_ns.saturating_add(lot.delay_ns);
        let state = &mut self.states[direction.place()];
        if lot.late {
            due_ns = due_ns.saturating_add(way.reorder_ns);
        } else {
            due_ns = due_ns.max(state.last_due_ns);
            state.last_due_ns = due_ns;
        }
        let octets = changed(octets, way);
        let again = lot.twice.then(|| (due_ns.saturating_add(way.duplicate_ns), octets.clone()));
        let first = Part { frame: place, is_second: false };
        self.wait(due_ns, direction, first, wire_octets, octets);
        if let Some((due_ns, octets)) = again {
            let second = Part { frame: place, is_second: true };
            self.wait(due_ns, direction, second, wire_octets, octets);
        }
    }

    /// Lets everything leave whose time has come.
    pub fn advance(&mut self, now_ns: u64, outlet: &mut impl Outlet) {
        while let Some(due_ns) = self.next_ns().filter(|due_ns| *due_ns <= now_ns) {
            if self.queue.peek().is_some_and(|Reverse(waiting)| waiting.due_ns == due_ns) {
                let Some(Reverse(waiting)) = self.queue.pop() else { return };
                self.pass(waiting, outlet);
                continue;
            }
            for direction in Direction::BOTH {
                let merger = self.states[direction.place()].merger.as_mut();
                if let Some(leaving) = merger.and_then(|merger| merger.overdue(due_ns)) {
                    self.leave(direction, due_ns, leaving, outlet);
                }
            }
        }
    }

    /// Lets everything leave, and says what was done.
    pub fn end(mut self, outlet: &mut impl Outlet) -> Truth {
        while let Some(due_ns) = self.next_ns() {
            self.advance(due_ns, outlet);
        }
        self.truth
    }

    fn wait(
        &mut self,
        due_ns: u64,
        direction: Direction,
        part: Part,
        wire_octets: u32,
        octets: Vec<u8>,
    ) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.queue.push(Reverse(Waiting {
            due_ns,
            sequence,
            direction,
            part,
            wire_octets,
            octets,
        }));
    }

    /// Out of the queue: to the merger, if there is one, or away.
    fn pass(&mut self, waiting: Waiting, outlet: &mut impl Outlet) {
        let Waiting { due_ns, direction, part, wire_octets, octets, .. } = waiting;
        let leaving = Leaving { octets, wire_octets, parts: vec![part] };
        let Some(merger) = &mut self.states[direction.place()].merger else {
            self.leave(direction, due_ns, leaving, outlet);
            return;
        };
        for leaving in merger.offer(due_ns, leaving) {
            self.leave(direction, due_ns, leaving, outlet);
        }
    }

    fn leave(
        &mut self,
        direction: Direction,
        due_ns: u64,
        leaving: Leaving,
        outlet: &mut impl Outlet,
    ) {
        let Leaving { octets, wire_octets, parts } = leaving;
        let left_ns = outlet.happens_ns(due_ns);
        let number = self.states[direction.place()].exits;
        self.states[direction.place()].exits += 1;
        let at = Place { tap: direction.exit(), leaves: true, number };
        let shown = self.mirror(at, left_ns, &octets, wire_octets, outlet);
        let is_merged = parts.len() > 1;
        self.merged += u64::from(is_merged);
        let into = is_merged.then_some(self.merged);
        for part in parts {
            self.log(direction, left_ns, part, into, shown);
        }
        outlet.deliver(direction.exit(), left_ns, octets);
    }

    fn log(
        &mut self,
        direction: Direction,
        left_ns: u64,
        part: Part,
        into: Option<u64>,
        shown: u8,
    ) {
        let frame = &mut self.truth.frames[part.frame];
        if frame.left_ns.is_some() || part.is_second {
            frame.left_again_ns = Some(left_ns);
        } else {
            frame.left_ns = Some(left_ns);
            let left = &mut self.states[direction.place()].left;
            frame.reordered = frame.number + 1 < *left;
            *left = (*left).max(frame.number + 1);
        }
        if into.is_some() {
            frame.fate = Fate::Merged;
            frame.merged_into = into;
            frame.shown.merged += shown;
            return;
        }
        if frame.fate == Fate::Waiting {
            frame.fate = Fate::Passed;
        }
        frame.shown.exit += shown;
        if shown > 0 && frame.merged_into.is_none() {
            frame.shown_ns.get_or_insert(left_ns);
        }
    }

    /// Shows a frame at a tap; the answer is how often.
    fn mirror(
        &mut self,
        Place { tap, leaves, number }: Place,
        at_ns: u64,
        frame: &[u8],
        wire_octets: u32,
        outlet: &mut impl Outlet,
    ) -> u8 {
        let mirror = self.truth.impairments.mirror(tap);
        let sums = &mut self.truth.taps[tap.place()];
        let copies = mirror.copies(self.truth.seed, tap, leaves, number);
        let not_ip = u64::from(parse(frame).is_none());
        let tagged = mirror.vlan.filter(|_| copies > 0).map(|vlan| push_vlan(frame, vlan));
        let wire_octets = wire_octets + if tagged.is_some() { 4 } else { 0 };
        let whole = tagged.as_deref().unwrap_or(frame);
        let kept =
            mirror.snap_octets.map_or(whole.len(), |octets| whole.len().min(octets as usize));
        let times = u64::from(copies);
        *sums = TapSums {
            offered: sums.offered + 1,
            lost: sums.lost + u64::from(copies == 0),
            doubled: sums.doubled + u64::from(copies > 1),
            shown: sums.shown + times,
            shown_octets: sums.shown_octets + times * u64::from(wire_octets),
            shown_not_ip: sums.shown_not_ip + times * not_ip,
            shown_cut: sums.shown_cut + times * u64::from(kept < wire_octets as usize),
        };
        let shown_ns = at_ns.saturating_add_signed(mirror.offset_ns);
        for _ in 0..copies {
            outlet.show(tap, shown_ns, &whole[..kept], wire_octets);
        }
        copies
    }
}

/// A frame as it is behind the link.
fn changed(mut octets: Vec<u8>, way: &Way) -> Vec<u8> {
    if let Some(place) = way.router_mac.and(octets.get_mut(6..12)) {
        place.copy_from_slice(&way.router_mac.unwrap_or_default());
    }
    let Some(headers) = parse(&octets) else { return octets };
    if way.ttl_decrement > 0 {
        decrement_ttl(&mut octets, &headers, way.ttl_decrement);
    }
    if let Some(vlan) = way.vlan {
        set_vlan(&mut octets, &headers, vlan);
    }
    if let Some(vni) = way.vni {
        set_vni(&mut octets, &headers, vni);
    }
    octets
}
