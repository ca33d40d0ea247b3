//! Follows the packets that the digest selects.
//!
//! In: packets in the order of their clock. Out: trajectories.
//! Cost: see the module; a sweep looks at [`SWEEP_SLOTS_MAX`] slots a turn.
//! Invariants: a packet is followed until its deadline, or with two taps until both have shown it;
//! what comes later changes nothing, whether a sweep has been there or not.

use crate::config::{PathPlan, WindowPlan};
use crate::copies::{Digest, Verdict};
use crate::decode::{Headers, Marks, protocol, tcp_flag};
use crate::index::WindowNumber;
use crate::memory;
use crate::time::{Timestamp, ms};

use super::entry::{Entry, Facts, NONE, Range, State, reaches};
use super::watch::{Taken, Watches};
use super::{Evidence, PathCounts, PathOutput, Trajectory};

/// Slots next to each other in which a digest may lie, at either of two places. One place of four
/// gives packets up early where a sixth of the table waits; two hardly before it is full (Azar,
/// Broder, Karlin, Upfal, Balanced Allocations, 1999).
const WAYS: usize = 4;

/// Slots that a turn looks at for packets whose deadline has come.
const SWEEP_SLOTS_MAX: usize = 64;

/// The table is gone through once in so much time.
const SWEEP_ROUND_NS: u64 = ms(1_000);

/// Packets that one segment is compared with at most.
const WALK_MAX: usize = 256;

/// The stage of one worker.
pub struct PathStage {
    entries: memory::Table<Entry>,
    facts: memory::Table<Facts>,
    watches: Watches,
    /// Digests are selected up to this.
    limit: u32,
    verdict_ns: u64,
    length_ns: u64,
    grace_ns: u64,
    /// There are two taps: what both have shown is done with.
    ends_at_second: bool,
    sweep_at: usize,
    sweep_due: Timestamp,
    counts: PathCounts,
}

impl PathStage {
    /// For so many taps.
    pub fn new(plan: &PathPlan, windows: &WindowPlan, taps: usize) -> Self {
        let slots = (plan.slots as usize).next_power_of_two().max(WAYS);
        Self {
            entries: memory::table(slots, Entry::default()),
            facts: memory::table(slots, Facts::default()),
            watches: Watches::new(slots / 2, ms(plan.verdict_ms.into())),
            limit: u32::MAX / plan.sample_one_in.max(1),
            verdict_ns: ms(plan.verdict_ms.into()),
            length_ns: ms(windows.length_ms.into()),
            grace_ns: ms(windows.grace_ms.into()),
            ends_at_second: taps <= 2,
            sweep_at: slots,
            sweep_due: Timestamp::ZERO,
            counts: PathCounts::default(),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.facts) + self.watches.bytes()
    }

    /// What could not be done.
    pub fn counts(&self) -> PathCounts {
        self.counts
    }

    /// Looks at a packet, whatever becomes of it in the traffic. `true`: another tap showed what it
    /// holds before, cut into other segments (GRO, TSO), so that it is a copy.
    #[inline]
    pub fn note(
        &mut self,
        headers: &Headers,
        digest: &Digest,
        verdict: Verdict,
        output: &mut impl PathOutput,
    ) -> bool {
        self.concerns(headers.hash, digest)
            && self.consider(headers, digest, digest.tag <= self.limit, verdict, output)
    }

    /// Looks at a TCP segment that is known to hold what another tap showed in other segments: it tells
    /// of those, and is not followed itself.
    #[inline]
    pub fn note_recut(&mut self, headers: &Headers, output: &mut impl PathOutput) {
        if self.watches.may_have(headers.hash) {
            self.weigh(headers, output);
        }
    }

    /// Whether every packet is followed.
    pub fn follows_all(&self) -> bool {
        self.limit == u32::MAX
    }

    /// Whether a packet of a flow with this hash has to be looked at.
    #[inline]
    pub fn concerns(&self, flow: u64, digest: &Digest) -> bool {
        digest.tag <= self.limit || self.watches.may_have(flow)
    }

    #[inline(never)]
    fn consider(
        &mut self,
        headers: &Headers,
        digest: &Digest,
        selected: bool,
        verdict: Verdict,
        output: &mut impl PathOutput,
    ) -> bool {
        if verdict == Verdict::Duplicate {
            return false;
        }
        let is_copy = matches!(verdict, Verdict::OtherTap { .. });
        let is_evidence =
            !is_copy && headers.protocol == protocol::TCP && !headers.marks.has(Marks::FRAGMENT);
        if is_evidence && self.weigh(headers, output) {
            return true;
        }
        if selected {
            self.see(headers, digest.bits(), is_copy, output);
        }
        false
    }

    /// Takes a sighting that another probe's stage has given out, with what is known of its packet; all
    /// packets are selected.
    pub fn join(
        &mut self,
        headers: &Headers,
        digest: u64,
        verdict: Verdict,
        evidence: Evidence,
        output: &mut impl PathOutput,
    ) {
        self.see(headers, digest, matches!(verdict, Verdict::OtherTap { .. }), output);
        let mut its = self.slots_of(digest).into_iter();
        let is_it = |slot: &usize| {
            let entry = &self.entries[*slot];
            entry.digest == digest && entry.state == State::Open
        };
        if let Some(slot) = its.find(is_it) {
            self.entries[slot].evidence = evidence;
        }
    }

    /// Forgets all that was given out.
    pub fn forget(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Over) {
            *entry = Entry::default();
        }
    }

    /// A selected packet at a tap.
    fn see(&mut self, headers: &Headers, digest: u64, is_copy: bool, output: &mut impl PathOutput) {
        let slots = self.slots_of(digest);
        for slot in slots {
            let entry = &mut self.entries[slot];
            if entry.digest != digest || entry.state == State::Free {
                continue;
            }
            if entry.state == State::Over || entry.deadline < headers.clock {
                if entry.state == State::Open {
                    self.finish(slot, output);
                }
                if !is_copy {
                    self.begin(slot, headers, digest);
                }
                return;
            }
            if entry.is_seen_at(headers.tap) {
                // A copy of a copy that `copies` could not tell from a further packet.
                if !is_copy {
                    entry.evidence = Evidence::Ambiguous;
                    self.unwatch(slot);
                }
            } else if entry.has_room() && entry.is_near(headers.timestamp) {
                self.facts[slot].add(headers, entry);
                entry.add(headers);
                if self.ends_at_second && entry.evidence != Evidence::Ambiguous {
                    self.finish(slot, output);
                }
            }
            return;
        }
        // The copy of a packet that was given up already is nothing new.
        if !is_copy {
            let slot = self.make_room(slots, headers.clock, output);
            self.begin(slot, headers, digest);
        }
    }

    /// Where a digest may lie.
    #[inline]
    fn slots_of(&self, digest: u64) -> [usize; 2 * WAYS] {
        let mask = (self.entries.len() - 1) & !(WAYS - 1);
        // 2⁶⁴ / golden ratio: the upper half depends on all of the digest.
        let other = digest.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let (one, other) = (place_of(digest) & mask, place_of(other) & mask);
        std::array::from_fn(|way| if way < WAYS { one + way } else { other + way - WAYS })
    }

    /// A slot for a packet: free, over, due, or the one that was followed longest. Of two places
    /// with room the one with more of it.
    fn make_room(
        &mut self,
        slots: [usize; 2 * WAYS],
        clock: Timestamp,
        output: &mut impl PathOutput,
    ) -> usize {
        let is_free = |slot: &usize| self.entries[*slot].state != State::Open;
        let (one, other) = slots.split_at(WAYS);
        let free = |slots: &[usize]| slots.iter().filter(|slot| is_free(slot)).count();
        let more = if free(other) > free(one) { other } else { one };
        let is_empty = |slot: &usize| self.entries[*slot].state == State::Free;
        if let Some(slot) = more.iter().find(|slot| is_empty(slot)) {
            return *slot;
        }
        let rank = |slot: &usize| {
            let entry = &self.entries[*slot];
            (entry.state != State::Over, entry.deadline)
        };
        let among = if free(more) > 0 { more } else { &slots[..] };
        let slot = among.iter().copied().min_by_key(rank).unwrap_or(slots[0]);
        let entry = &self.entries[slot];
        if entry.state == State::Open {
            self.counts.evicted += u64::from(entry.deadline >= clock);
            self.finish(slot, output);
        }
        slot
    }

    fn begin(&mut self, slot: usize, headers: &Headers, digest: u64) {
        let deadline = headers.clock + self.verdict_ns;
        self.entries[slot] = Entry::begin(headers, digest, deadline);
        self.facts[slot] = Facts::of(headers);
        if self.facts[slot].range.octets() > 0 {
            self.watch(slot, headers.hash, headers.clock);
        }
    }

    /// Puts a packet behind those of its flow that wait.
    fn watch(&mut self, slot: usize, flow: u64, clock: Timestamp) {
        let Some(Taken { place, forgot }) = self.watches.take(flow, clock) else {
            self.counts.unwatched += 1;
            return;
        };
        // A packet of that flow would not be known for a repetition.
        let is_early = forgot.is_some_and(|used| clock.since_ns(used) <= self.verdict_ns);
        self.counts.unwatched += u64::from(is_early);
        let short = short(slot);
        let sender = self.entries[slot].sender.place();
        let end = self.facts[slot].range.end;
        self.facts[slot].watch = place;
        let begin = self.facts[slot].range.begin;
        let watch = self.watches.at(place);
        let is_known = watch.has_top[sender];
        self.facts[slot].repeats = is_known && !reaches(begin, watch.top[sender]);
        if !is_known || reaches(end, watch.top[sender]) {
            (watch.top[sender], watch.has_top[sender]) = (end, true);
        }
        let before = std::mem::replace(&mut watch.newest[sender], short);
        if before == NONE {
            (watch.oldest[sender], watch.oldest_end[sender]) = (short, end);
        } else {
            self.entries[before as usize].next = short;
        }
        self.entries[slot].previous = before;
    }

    /// Takes a packet out of those that wait, if it is there.
    fn unwatch(&mut self, slot: usize) {
        let place = std::mem::replace(&mut self.facts[slot].watch, NONE);
        if place == NONE {
            return;
        }
        let Entry { next, previous, sender, .. } = self.entries[slot];
        let sender = sender.place();
        let next_end = (next != NONE).then(|| self.facts[next as usize].range.end);
        let watch = self.watches.at(place);
        if previous == NONE {
            watch.oldest[sender] = next;
            watch.oldest_end[sender] = next_end.unwrap_or(0);
        } else {
            self.entries[previous as usize].next = next;
        }
        if next == NONE {
            watch.newest[sender] = previous;
        } else {
            self.entries[next as usize].previous = previous;
        }
        (self.entries[slot].next, self.entries[slot].previous) = (NONE, NONE);
        self.watches.release(place);
    }

    /// What a segment says of those of its flow that wait. `true`: it is some of them, cut otherwise,
    /// and no packet of its own.
    fn weigh(&mut self, headers: &Headers, output: &mut impl PathOutput) -> bool {
        let Some(place) = self.watches.find(headers.hash) else { return false };
        let range = Range::of(headers);
        let sender = headers.sender.place();
        let may_repeat = range.octets() > 0 && self.watches.at(place).may_repeat(sender, range);
        let is_recut = may_repeat && self.weigh_range(place, headers, range, output);
        let flags = headers.tcp_flags;
        if flags & tcp_flag::ACK != 0 && flags & tcp_flag::RST == 0 {
            self.weigh_acknowledgement(place, headers, output);
        }
        is_recut
    }

    /// A range that was sent already: a repetition, or at another tap the same in other pieces.
    fn weigh_range(
        &mut self,
        place: u32,
        headers: &Headers,
        range: Range,
        output: &mut impl PathOutput,
    ) -> bool {
        let mut is_recut = false;
        let mut at = self.watches.at(place).oldest[headers.sender.place()];
        for walked in 0.. {
            if at == NONE {
                break;
            }
            if walked == WALK_MAX {
                self.counts.walks_cut += 1;
                break;
            }
            let slot = at as usize;
            let (entry, facts) = (&mut self.entries[slot], &mut self.facts[slot]);
            at = entry.next;
            let shared = facts.range.shared(range);
            if shared == 0 || entry.deadline < headers.clock {
                continue;
            }
            if entry.is_seen_at(headers.tap) || facts.range == range {
                entry.evidence = Evidence::Repeated;
                self.unwatch(slot);
                continue;
            }
            is_recut = true;
            facts.recut_octets = facts.recut_octets.saturating_add(shared);
            if facts.recut_octets >= facts.range.octets() {
                facts.is_recut_at(headers.tap);
                self.unwatch(slot);
                if self.ends_at_second {
                    self.finish(slot, output);
                }
            }
        }
        is_recut
    }

    /// An acknowledgement of what the other endpoint sent.
    fn weigh_acknowledgement(
        &mut self,
        place: u32,
        headers: &Headers,
        output: &mut impl PathOutput,
    ) {
        let sender = headers.sender.other().place();
        // The watch is free after the last one, which has no oldest then.
        while self.watches.at(place).is_reached(sender, headers.tcp_acknowledgement) {
            let slot = self.watches.at(place).oldest[sender] as usize;
            if self.entries[slot].deadline < headers.clock {
                self.finish(slot, output);
            } else {
                // What was sent before may be acknowledged because of that.
                if !self.facts[slot].repeats {
                    self.entries[slot].evidence = Evidence::Acknowledged;
                }
                self.unwatch(slot);
            }
        }
    }

    /// Gives out what is known of a packet.
    fn finish(&mut self, slot: usize, output: &mut impl PathOutput) {
        self.unwatch(slot);
        let entry = &mut self.entries[slot];
        entry.state = State::Over;
        let trajectory = entry.trajectory(&self.facts[slot]);
        // As the packet itself: in the oldest window that was open, if it came late.
        let begun = entry.deadline - self.verdict_ns;
        let own = WindowNumber::of(trajectory.first_seen(), self.length_ns);
        let oldest = WindowNumber::of(begun - self.grace_ns, self.length_ns);
        output.trajectory(&Trajectory { window: own.max(oldest), ..trajectory });
    }

    /// A bounded step of the search for packets whose deadline has come.
    #[inline]
    pub fn sweep_step(&mut self, clock: Timestamp, output: &mut impl PathOutput) {
        if self.sweep_at == self.entries.len() {
            if clock < self.sweep_due {
                return;
            }
            (self.sweep_at, self.sweep_due) = (0, clock + SWEEP_ROUND_NS);
        }
        let end = (self.sweep_at + SWEEP_SLOTS_MAX).min(self.entries.len());
        self.sweep(self.sweep_at..end, clock, output);
        self.sweep_at = end;
    }

    /// Gives out every packet whose deadline has come.
    pub fn sweep_all(&mut self, clock: Timestamp, output: &mut impl PathOutput) {
        self.sweep(0..self.entries.len(), clock, output);
    }

    /// Gives out all.
    pub fn end(&mut self, output: &mut impl PathOutput) {
        self.sweep_all(Timestamp(u64::MAX), output);
    }

    fn sweep(
        &mut self,
        slots: std::ops::Range<usize>,
        clock: Timestamp,
        output: &mut impl PathOutput,
    ) {
        for slot in slots {
            let entry = &self.entries[slot];
            if entry.state == State::Open && entry.deadline < clock {
                self.finish(slot, output);
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is masked to the table")]
const fn place_of(digest: u64) -> usize {
    digest as usize
}

fn short(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WindowPlan;
    use crate::decode::Address;
    use crate::index::{Sender, TapIndex};

    const MS: u64 = 1_000_000;
    const START: u64 = 1_000_000 * MS;

    impl PathOutput for Vec<Trajectory> {
        fn trajectory(&mut self, trajectory: &Trajectory) {
            self.push(*trajectory);
        }
    }

    fn stage(taps: usize) -> PathStage {
        let plan = PathPlan { slots: 1_024, sample_one_in: 1, ..PathPlan::default() };
        PathStage::new(&plan, &WindowPlan::default(), taps)
    }

    /// A segment of the lower endpoint with so many octets from `sequence` on.
    fn data(tap: u16, at_ms: u64, sequence: u32, octets: u32) -> Headers {
        Headers {
            tap: TapIndex(tap),
            timestamp: Timestamp(START + at_ms * MS),
            clock: Timestamp(START + at_ms * MS),
            source: Address::v4([10, 0, 0, 1]),
            destination: Address::v4([10, 0, 0, 2]),
            protocol: protocol::TCP,
            ip_version: 4,
            ttl: 64,
            octets: octets + 40,
            payload_octets: octets,
            tcp_sequence: sequence,
            tcp_flags: tcp_flag::ACK,
            hash: 77,
            ..Headers::default()
        }
    }

    fn answer(tap: u16, at_ms: u64, acknowledgement: u32) -> Headers {
        let data = data(tap, at_ms, 1, 0);
        Headers {
            source: data.destination,
            destination: data.source,
            sender: Sender::High,
            tcp_acknowledgement: acknowledgement,
            ..data
        }
    }

    /// What `copies` says of a first copy, and of one at another tap; the digest is the number.
    fn first(stage: &mut PathStage, headers: &Headers, number: u32, out: &mut Vec<Trajectory>) {
        stage.note(headers, &digest(number), Verdict::First, out);
    }

    fn copy(stage: &mut PathStage, headers: &Headers, number: u32, out: &mut Vec<Trajectory>) {
        let verdict = Verdict::OtherTap { tap: TapIndex(0), seen: Timestamp(0) };
        stage.note(headers, &digest(number), verdict, out);
    }

    fn digest(number: u32) -> Digest {
        Digest { place: number as usize * 4, tag: number, ..Digest::default() }
    }

    fn taps(trajectory: &Trajectory) -> Vec<u16> {
        trajectory.sights().iter().map(|sight| sight.tap.0).collect()
    }

    #[test]
    fn a_segment_is_compared_with_so_many_packets_and_the_rest_is_counted() {
        for (packets, cut) in [(WALK_MAX, 0), (WALK_MAX + 1, 1)] {
            let (mut stage, mut out) = (stage(2), Vec::new());
            for number in (0_u32..).take(packets) {
                first(&mut stage, &data(0, 0, number * 10, 10), number + 1, &mut out);
            }
            // All of it again in one frame, as a card that merges shows it at the other tap.
            let all = u32::try_from(packets).expect("few") * 10;
            copy(&mut stage, &data(1, 0, 0, all), 5_000, &mut out);
            first(&mut stage, &data(1, 0, 0, all), 5_001, &mut out);
            assert_eq!(stage.counts().walks_cut, cut, "{packets}");
            assert_eq!(stage.counts().evicted, 0);
            assert_eq!(out.len(), WALK_MAX, "those that it was compared with are recut");
        }
    }

    #[test]
    fn a_packet_at_both_taps_has_a_time_and_no_more() {
        let (mut stage, mut out) = (stage(2), Vec::new());
        first(&mut stage, &data(0, 0, 100, 50), 1, &mut out);
        copy(&mut stage, &Headers { ttl: 63, ..data(1, 3, 100, 50) }, 1, &mut out);
        assert_eq!((out.len(), taps(&out[0])), (1, vec![0, 1]));
        let [one, two] = [0, 1].map(|place| out[0].sights()[place]);
        assert_eq!((two.at.since_ns(one.at), one.ttl, two.ttl), (3 * MS, 64, 63));
        assert_eq!((out[0].octets, out[0].first_seen()), (90, one.at));
        copy(&mut stage, &data(1, 4, 100, 50), 1, &mut out);
        stage.end(&mut out);
        assert_eq!(out.len(), 1, "what is over stays so");
    }

    #[test]
    fn with_more_taps_it_is_followed_to_the_deadline() {
        let (mut stage, mut out) = (stage(3), Vec::new());
        first(&mut stage, &data(0, 0, 100, 50), 1, &mut out);
        copy(&mut stage, &data(2, 5, 100, 50), 1, &mut out);
        // Its mirror is ahead of time by its clock.
        copy(
            &mut stage,
            &Headers { timestamp: Timestamp(START - MS), ..data(1, 6, 100, 50) },
            1,
            &mut out,
        );
        stage.sweep_all(Timestamp(START + 5_000 * MS), &mut out);
        assert_eq!(out.len(), 0, "the deadline itself still counts");
        stage.sweep_all(Timestamp(START + 5_000 * MS + 1), &mut out);
        assert_eq!((out.len(), taps(&out[0])), (1, vec![0, 2, 1]));
        assert_eq!(out[0].sights()[2].at, Timestamp(START - MS));
    }

    #[test]
    fn evidence_is_what_comes_first() {
        for (second, third, evidence) in [
            (data(0, 9, 100, 50), answer(1, 10, 150), Evidence::Repeated),
            (answer(1, 9, 150), data(0, 10, 100, 50), Evidence::Acknowledged),
            (data(0, 9, 120, 50), answer(1, 10, 170), Evidence::Repeated),
            (data(0, 9, 150, 50), answer(1, 10, 149), Evidence::None),
            (data(0, 6_000, 100, 50), answer(1, 6_001, 150), Evidence::None),
        ] {
            let (mut stage, mut out) = (stage(2), Vec::new());
            first(&mut stage, &data(0, 0, 100, 50), 1, &mut out);
            first(&mut stage, &second, 2, &mut out);
            first(&mut stage, &third, 3, &mut out);
            stage.end(&mut out);
            let lost = out.iter().find(|trajectory| trajectory.digest == digest(1).bits());
            assert_eq!(lost.map(|lost| lost.evidence), Some(evidence), "{second:?}");
        }
    }

    #[test]
    fn an_acknowledgement_proves_nothing_of_a_repetition() {
        let (mut stage, mut out) = (stage(2), Vec::new());
        first(&mut stage, &data(0, 0, 100, 50), 1, &mut out);
        copy(&mut stage, &data(1, 1, 100, 50), 1, &mut out);
        first(&mut stage, &data(0, 9, 100, 50), 2, &mut out);
        first(&mut stage, &answer(1, 10, 150), 3, &mut out);
        stage.end(&mut out);
        assert_eq!((out[0].evidence, out[1].evidence), (Evidence::None, Evidence::None));
    }

    #[test]
    fn frames_cut_otherwise_are_the_same_octets() {
        // Merged on the way, then split on the way.
        let (mut stage, mut out) = (stage(2), Vec::new());
        for (number, sequence) in [(1, 100), (2, 150), (3, 200)] {
            first(&mut stage, &data(0, 0, sequence, 50), number, &mut out);
        }
        first(&mut stage, &data(1, 1, 100, 150), 4, &mut out);
        first(&mut stage, &data(0, 2, 250, 100), 5, &mut out);
        first(&mut stage, &data(1, 3, 250, 60), 6, &mut out);
        first(&mut stage, &data(1, 3, 310, 40), 7, &mut out);
        stage.end(&mut out);
        let recut: Vec<_> = out.iter().map(|it| (it.digest >> 32, it.recut)).collect();
        let at_b = Some(TapIndex(1));
        assert_eq!(recut, [(1, at_b), (2, at_b), (3, at_b), (5, at_b)]);
    }

    #[test]
    fn equal_packets_are_ambiguous() {
        let (mut stage, mut out) = (stage(2), Vec::new());
        first(&mut stage, &data(0, 0, 100, 0), 1, &mut out);
        stage.note(&data(0, 1, 100, 0), &digest(1), Verdict::Ambiguous, &mut out);
        copy(&mut stage, &data(1, 2, 100, 0), 1, &mut out);
        copy(&mut stage, &data(1, 3, 100, 0), 1, &mut out);
        stage.note(&data(0, 4, 100, 0), &digest(1), Verdict::Duplicate, &mut out);
        stage.end(&mut out);
        assert_eq!((out.len(), out[0].evidence), (1, Evidence::Ambiguous));
    }

    #[test]
    fn a_sweep_changes_when_but_not_what() {
        let run = |sweeps: bool| {
            let plan = PathPlan { slots: 1 << 14, sample_one_in: 1, ..PathPlan::default() };
            let mut stage = PathStage::new(&plan, &WindowPlan::default(), 2);
            let mut out = Vec::new();
            let mut state = 1_u32;
            for number in 0..4_000_u32 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at_ms = u64::from(number) * 7;
                let sequence = number * 50;
                first(&mut stage, &data(0, at_ms, sequence, 50), number, &mut out);
                match state >> 29 {
                    0 => {}
                    1 => first(
                        &mut stage,
                        &data(0, at_ms + 2, sequence, 50),
                        number + (1 << 20),
                        &mut out,
                    ),
                    2 => first(
                        &mut stage,
                        &answer(1, at_ms + 2, sequence + 50),
                        number + (1 << 21),
                        &mut out,
                    ),
                    _ => copy(&mut stage, &data(1, at_ms + 1, sequence, 50), number, &mut out),
                }
                if sweeps {
                    stage.sweep_step(Timestamp(START + at_ms * MS), &mut out);
                }
            }
            stage.end(&mut out);
            let counts = stage.counts();
            let what =
                |it: &Trajectory| format!("{} {:?} {:?}", it.digest, it.evidence, it.sights());
            let mut what: Vec<_> = out.iter().map(what).collect();
            what.sort_unstable();
            (what, counts)
        };
        let (plain, counts) = run(false);
        assert_eq!(counts, PathCounts::default());
        assert_eq!((plain, counts), run(true));
    }

    #[test]
    fn a_flow_is_known_again_after_thousands_of_others() {
        let plan = PathPlan { slots: 1 << 14, sample_one_in: 1, ..PathPlan::default() };
        for seed in 1..40 {
            let mut stage = PathStage::new(&plan, &WindowPlan::default(), 2);
            let mut out = Vec::new();
            let mut number = 0;
            let mut both = |stage: &mut PathStage, headers: &Headers, out: &mut Vec<Trajectory>| {
                number += 1;
                first(stage, headers, number, out);
                copy(stage, &Headers { tap: TapIndex(1), ..*headers }, number, out);
            };
            let flow = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
            let of_flow = |headers| Headers { hash: flow, ..headers };
            both(&mut stage, &of_flow(data(0, 0, 100, 50)), &mut out);
            let mut hash = flow;
            for _ in 0..3_000 {
                hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let other = Headers { hash: hash ^ (hash >> 29), ..data(0, 1, 7, 1) };
                both(&mut stage, &other, &mut out);
            }
            // Sent again and lost, while the first one is acknowledged.
            first(&mut stage, &of_flow(data(0, 200, 100, 50)), 1 << 20, &mut out);
            first(&mut stage, &of_flow(answer(1, 201, 150)), 2 << 20, &mut out);
            stage.end(&mut out);
            let lost = out.iter().find(|it| it.digest == digest(1 << 20).bits());
            // An acknowledgement may be of what was sent before.
            assert_eq!(lost.map(|lost| lost.evidence), Some(Evidence::None), "{seed}");
            assert_eq!(stage.counts(), PathCounts::default());
        }
    }

    #[test]
    fn a_table_that_is_half_full_gives_nothing_up() {
        let (mut stage, mut out) = (stage(2), Vec::new());
        let mut state = 1_u64;
        for _ in 0..600 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (place, tag) = ((state >> 20) as usize, (state >> 32) as u32);
            let digest = Digest { place, tag, ..Digest::default() };
            let headers = Headers { hash: state ^ (state >> 31), ..data(0, 0, 1, 1) };
            stage.note(&headers, &digest, Verdict::First, &mut out);
        }
        assert_eq!((out.len(), stage.counts().evicted), (0, 0));
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let (mut stage, mut out) = (stage(2), Vec::new());
        for number in 0..10_000 {
            let headers = Headers { hash: number.into(), ..data(0, 0, number, 1) };
            first(&mut stage, &headers, number, &mut out);
        }
        let bytes = stage.bytes();
        stage.end(&mut out);
        assert_eq!((out.len(), stage.bytes()), (10_000, bytes));
        assert!(stage.counts().evicted > 8_000, "{:?}", stage.counts());
    }
}
