//! Sightings of one partition, joined by digest.
//!
//! In: sightings with the time that their messages were sent. Out: trajectories.
//! Cost: a look-up a sighting; a sort of a few of them when a digest's time is over.
//! Invariants: a digest is held for `hold` from its first sighting on, by the time of messages and not by
//! when they are read, so that it makes no difference who reads them, or how many in one turn; in which order probes
//! have sent them makes none either, because what was held is joined in the order of the packets. A message
//! from the future counts as one of now (see [`believed_ms`]), and is counted. At most
//! [`OPEN_MAX`] digests, [`GROUP_MAX`] sightings of each and [`SIGHTINGS_MAX`] in all are held; what is given up
//! early, or left out, is counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::Plan;
use crate::copies::Verdict;
use crate::decode::Headers;
use crate::inventory::{Segment, SegmentKind};
use crate::path::{Evidence, PathOutput, PathStage, Trajectory};
use crate::time::{Timestamp, ms};

use super::believed_ms;
use super::sample::Sighting;

/// Digests of one partition that are held at once.
const OPEN_MAX: usize = 1 << 18;
/// Sightings of all of them: some 150 MB.
const SIGHTINGS_MAX: usize = 1 << 20;
/// Sightings of one digest.
const GROUP_MAX: usize = 64;

/// What was held of one digest.
struct Group {
    first_ms: i64,
    first_offset: i64,
    sightings: Vec<Sighting>,
}

/// What could not be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MatcherCounts {
    /// Digests whose time was cut short, because there was no room for others.
    pub(super) evicted: u64,
    /// Sightings of a digest beyond those that one may have.
    pub(super) left_out: u64,
    /// Messages that were sent later than now.
    pub(super) clock_ahead: u64,
}

/// One partition.
pub(super) struct Matcher {
    hold_ms: i64,
    path_window_ns: u64,
    stage: PathStage,
    groups: BTreeMap<u64, Group>,
    /// Sightings in them, and how many there may be.
    sightings: usize,
    sightings_max: usize,
    by_time: BTreeSet<(i64, u64)>,
    /// Offsets of groups, which are what must be read again if they are not out.
    by_offset: BTreeSet<(i64, u64)>,
    /// Those that are over, in order.
    over: VecDeque<Group>,
    /// Latest time of a message.
    clock_ms: i64,
    /// Offset behind the last message.
    next_offset: i64,
    counts: MatcherCounts,
}

/// Trajectories that come out of one digest.
#[derive(Default)]
struct Out(Vec<Trajectory>);

impl PathOutput for Out {
    fn trajectory(&mut self, trajectory: &Trajectory) {
        self.0.push(*trajectory);
    }
}

impl Matcher {
    /// `first_offset`: of the message that is read first.
    pub(super) fn new(plan: &Plan, hold_ms: i64, first_offset: i64) -> Self {
        // Digest by digest: there is never more than one in it.
        let one = crate::config::PathPlan { slots: 1, ..plan.path.clone() };
        Self {
            hold_ms,
            path_window_ns: ms(plan.copies.path_window_ms.into()),
            stage: PathStage::new(&one, &plan.window, plan.taps.len()),
            groups: BTreeMap::new(),
            sightings: 0,
            sightings_max: SIGHTINGS_MAX,
            by_time: BTreeSet::new(),
            by_offset: BTreeSet::new(),
            over: VecDeque::new(),
            clock_ms: i64::MIN,
            next_offset: first_offset,
            counts: MatcherCounts::default(),
        }
    }

    pub(super) fn counts(&self) -> MatcherCounts {
        self.counts
    }

    /// A message was read, whatever was in it. `now_ms`: the wall clock.
    pub(super) fn read(
        &mut self,
        offset: i64,
        (sent_ms, now_ms): (i64, i64),
        sighting: Option<Sighting>,
    ) {
        self.next_offset = offset + 1;
        let said_ms = sent_ms;
        let sent_ms = believed_ms(said_ms, now_ms, self.hold_ms);
        self.counts.clock_ahead += u64::from(sent_ms < said_ms);
        self.clock_ms = self.clock_ms.max(sent_ms);
        // What its time ends has no part in it, whether or not that was given out already.
        self.close(self.clock_ms);
        let Some(sighting) = sighting else { return };
        let digest = sighting.digest;
        let group = self.groups.entry(digest).or_insert_with(|| {
            self.by_time.insert((sent_ms, digest));
            self.by_offset.insert((offset, digest));
            Group { first_ms: sent_ms, first_offset: offset, sightings: Vec::new() }
        });
        if group.sightings.len() < GROUP_MAX {
            group.sightings.push(sighting);
            self.sightings += 1;
        } else {
            self.counts.left_out += 1;
        }
        self.close(self.clock_ms);
    }

    /// Digests that are held, and how many there is room for.
    pub(super) fn room(&self) -> (usize, usize) {
        (self.groups.len(), OPEN_MAX)
    }

    /// Up to when messages were read; `now_ms` is the wall clock of when there was nothing more to read.
    pub(super) fn clock_ms(&self, now_ms: Option<i64>) -> i64 {
        self.clock_ms.max(now_ms.unwrap_or(i64::MIN))
    }

    /// The offset behind the last message.
    pub(super) const fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Gives out what has been held long enough, with the offset of its first sighting and when that was
    /// sent.
    pub(super) fn due(&mut self, now_ms: Option<i64>, mut out: impl FnMut(i64, i64, &Trajectory)) {
        self.close(self.clock_ms(now_ms));
        while let Some(group) = self.over.pop_front() {
            for trajectory in &self.join(group.sightings) {
                out(group.first_offset, group.first_ms, trajectory);
            }
        }
    }

    /// Ends what has been held long enough by then, or has no room.
    fn close(&mut self, clock_ms: i64) {
        while let Some(&(first_ms, digest)) = self.by_time.first() {
            let is_full = self.groups.len() > OPEN_MAX || self.sightings > self.sightings_max;
            if first_ms.saturating_add(self.hold_ms) > clock_ms && !is_full {
                return;
            }
            self.counts.evicted += u64::from(first_ms.saturating_add(self.hold_ms) > clock_ms);
            self.by_time.pop_first();
            let Some(group) = self.groups.remove(&digest) else { continue };
            debug_assert_eq!(group.first_ms, first_ms, "both have the same groups");
            self.by_offset.remove(&(group.first_offset, digest));
            self.sightings -= group.sightings.len();
            self.over.push_back(group);
        }
    }

    /// What must be read again by who comes after: all from here on.
    pub(super) fn first_needed(&self) -> i64 {
        let held = self.by_offset.first().map(|(offset, _)| *offset);
        let over = self.over.iter().map(|group| group.first_offset).min();
        held.into_iter().chain(over).min().unwrap_or(self.next_offset)
    }

    /// Joins the sightings of one digest, as a probe does it that sees all of them.
    fn join(&mut self, mut sightings: Vec<Sighting>) -> Vec<Trajectory> {
        sightings.sort_by_key(|it| (it.sight.at, it.sight.tap));
        // A message that was sent twice is one sighting.
        sightings.dedup_by_key(|it| (it.sight.at, it.sight.tap));
        let found = evidence(&sightings);
        let mut out = Out::default();
        let mut clock = Timestamp::ZERO;
        for (place, sighting) in sightings.iter().enumerate() {
            clock = clock.max(sighting.sight.at);
            let is_copy = |before: &Sighting| {
                before.sight.tap != sighting.sight.tap
                    && sighting.sight.at.since_ns(before.sight.at) <= self.path_window_ns
            };
            let verdict = match sightings[..place].iter().find(|before| is_copy(before)) {
                Some(before) => Verdict::OtherTap { tap: before.sight.tap, seen: before.sight.at },
                None => Verdict::First,
            };
            let headers = headers(sighting, clock);
            self.stage.join(&headers, sighting.digest, verdict, found, &mut out);
        }
        self.stage.end(&mut out);
        self.stage.forget();
        out.0
    }
}

/// What probes have found out about one packet, each at its own taps: of two that contradict each other
/// the one nearer to the sender, who saw it first.
fn evidence(sightings: &[Sighting]) -> Evidence {
    if sightings.iter().any(|it| it.evidence == Evidence::Ambiguous) {
        return Evidence::Ambiguous;
    }
    let found = sightings.iter().map(|it| it.evidence).find(|it| *it != Evidence::None);
    found.unwrap_or_default()
}

fn headers(sighting: &Sighting, clock: Timestamp) -> Headers {
    let Sighting { ends, octets, sight, .. } = sighting;
    let kind = if sight.is_untagged { SegmentKind::None } else { SegmentKind::Vlan };
    Headers {
        tap: sight.tap,
        timestamp: sight.at,
        clock,
        ttl: sight.ttl,
        octets: *octets,
        space: ends.space,
        source: ends.source,
        destination: ends.destination,
        protocol: ends.protocol,
        ip_version: ends.ip_version,
        segment: Segment::new(0, kind, 0),
        ..Headers::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TapPlan;
    use crate::index::TapIndex;
    use crate::inventory::AddressSpace;
    use crate::path::{Ends, Sight};

    const MS: u64 = 1_000_000;

    fn plan() -> Plan {
        let tap = |name: &str| TapPlan { name: name.to_owned(), ..TapPlan::default() };
        Plan { taps: ["a", "b", "c"].map(tap).to_vec(), ..Plan::default() }
    }

    fn sighting(digest: u64, tap: u16, at_ms: u64) -> Sighting {
        let at = Timestamp(1_000_000 * MS + at_ms * MS);
        Sighting {
            digest,
            ends: Ends { space: AddressSpace::default(), ip_version: 4, ..Ends::default() },
            octets: 100,
            sight: Sight { tap: TapIndex(tap), at, ttl: 64, is_untagged: true },
            evidence: Evidence::None,
        }
    }

    /// When it was sent, and the same wall clock.
    const fn sent(sent_ms: i64) -> (i64, i64) {
        (sent_ms, sent_ms)
    }

    fn taps(trajectory: &Trajectory) -> Vec<u16> {
        trajectory.sights().iter().map(|sight| sight.tap.0).collect()
    }

    fn out(matcher: &mut Matcher, now_ms: Option<i64>) -> Vec<(i64, Vec<u16>)> {
        let mut all = Vec::new();
        matcher.due(now_ms, |offset, _, trajectory| all.push((offset, taps(trajectory))));
        all
    }

    #[test]
    fn sightings_meet_in_any_order_and_offsets_wait_for_them() {
        for order in [[0_u16, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut matcher = Matcher::new(&plan(), 1_000, 0);
            for (place, tap) in (0_i64..).zip(order) {
                let sighting = sighting(7, tap, tap.into());
                matcher.read(10 + place, sent(5_000 + place * 400), Some(sighting));
            }
            matcher.read(13, sent(5_900), Some(sighting(8, 0, 50)));
            assert!(out(&mut matcher, None).is_empty());
            assert_eq!(matcher.first_needed(), 10);
            matcher.read(14, sent(6_000), None);
            assert_eq!(out(&mut matcher, None), [(10, vec![0, 1, 2])], "{order:?}");
            assert_eq!(matcher.first_needed(), 13);
            // Nothing more comes: the wall clock ends the wait.
            assert!(out(&mut matcher, Some(6_899)).is_empty());
            assert_eq!(out(&mut matcher, Some(6_900)), [(13, vec![0])]);
            assert_eq!((matcher.first_needed(), matcher.counts()), (15, MatcherCounts::default()));
        }
    }

    #[test]
    fn sightings_have_a_bound_and_the_oldest_digest_gives_way() {
        let mut matcher = Matcher::new(&plan(), 1_000, 0);
        matcher.sightings_max = 5;
        for (offset, (digest, tap)) in
            (0..).zip([(7, 0), (7, 1), (8, 0), (8, 1), (8, 2), (9, 0), (9, 1), (9, 2)])
        {
            matcher.read(offset, sent(5_000 + offset), Some(sighting(digest, tap, tap.into())));
            assert!(matcher.sightings <= 5);
        }
        assert_eq!(matcher.counts().evicted, 2);
        assert_eq!(out(&mut matcher, None), [(0, vec![0, 1]), (2, vec![0, 1, 2])]);
        assert_eq!(out(&mut matcher, Some(9_000)), [(5, vec![0, 1, 2])]);
        assert_eq!((matcher.sightings, matcher.first_needed()), (0, 8));
    }

    #[test]
    fn one_message_of_a_clock_that_is_ahead_ends_no_wait() {
        let mut matcher = Matcher::new(&plan(), 1_000, 0);
        matcher.read(0, sent(5_000), Some(sighting(7, 0, 0)));
        matcher.read(1, (5_010 + 3_600_000, 5_010), Some(sighting(8, 0, 3_600_000)));
        assert!(out(&mut matcher, None).is_empty(), "an hour ahead is now");
        matcher.read(2, sent(5_600), Some(sighting(7, 1, 3)));
        matcher.read(3, sent(6_000), Some(sighting(9, 0, 50)));
        assert_eq!(out(&mut matcher, None), [(0, vec![0, 1])]);
        assert_eq!(matcher.counts(), MatcherCounts { clock_ahead: 1, ..MatcherCounts::default() });
        // It is itself held as if it were sent a tenth of the hold from then on.
        matcher.read(4, sent(6_109), None);
        assert!(out(&mut matcher, None).is_empty());
        matcher.read(5, (6_110, 6_010), None);
        assert_eq!(out(&mut matcher, None), [(1, vec![0])]);
        assert_eq!(matcher.counts().clock_ahead, 1, "a tenth is nothing");
    }

    /// Sightings of packets that come again and again, some late, in turns of so many messages.
    fn in_turns(messages: usize) -> (Vec<(i64, Vec<u16>)>, MatcherCounts) {
        let mut matcher = Matcher::new(&plan(), 1_000, 0);
        let mut all = Vec::new();
        for offset in 0..6_000_i64 {
            let digest = (offset * 7 % 23).cast_unsigned();
            let late_ms = [0, 90, 0, 1_300, 30][usize::try_from(offset % 5).expect("small")];
            let sent_ms = 10_000 + offset * 9 - late_ms;
            let tap = u16::try_from(offset * 31 % 3).expect("small");
            let seen_ms = u64::try_from(sent_ms / 500 * 500).expect("not negative");
            matcher.read(offset, sent(sent_ms), Some(sighting(digest, tap, seen_ms)));
            if (usize::try_from(offset).expect("small") + 1).is_multiple_of(messages) {
                all.extend(out(&mut matcher, None));
            }
        }
        all.extend(out(&mut matcher, Some(i64::MAX)));
        assert_eq!(matcher.first_needed(), 6_000);
        (all, matcher.counts())
    }

    #[test]
    fn how_fast_a_member_reads_makes_no_difference() {
        let one = in_turns(1);
        let sights = |many| one.0.iter().filter(|(_, taps)| (taps.len() > 1) == many).count();
        assert!(sights(true) > 500 && sights(false) > 10, "{} {}", sights(true), sights(false));
        for messages in [7, 300, 2_000] {
            assert_eq!(in_turns(messages), one, "{messages} messages a turn");
        }
    }

    #[test]
    fn what_is_over_and_not_given_out_yet_is_read_again_by_who_comes_after() {
        let mut matcher = Matcher::new(&plan(), 1_000, 0);
        matcher.read(10, sent(5_000), Some(sighting(7, 0, 0)));
        matcher.read(11, sent(6_000), Some(sighting(8, 0, 1_000)));
        assert_eq!(matcher.first_needed(), 10);
        assert_eq!(out(&mut matcher, None), [(10, vec![0])]);
        assert_eq!(matcher.first_needed(), 11);
    }

    #[test]
    fn the_same_digest_after_a_verdict_is_another_packet_and_twice_the_same_is_one() {
        let mut matcher = Matcher::new(&plan(), 1_000, 0);
        for (offset, tap, at_ms) in [(0, 0, 0), (1, 1, 3), (2, 1, 3), (3, 0, 9_000), (4, 2, 9_001)]
        {
            matcher.read(offset, sent(0), Some(sighting(7, tap, at_ms)));
        }
        assert_eq!(out(&mut matcher, Some(1_000)), [(0, vec![0, 1]), (0, vec![0, 2])]);
    }

    #[test]
    fn evidence_is_that_of_the_tap_nearest_to_the_sender() {
        let with = |tap, at_ms, evidence| Sighting { evidence, ..sighting(7, tap, at_ms) };
        let (none, repeated, acknowledged) =
            (Evidence::None, Evidence::Repeated, Evidence::Acknowledged);
        for (one, other, found) in [
            (none, none, none),
            (none, repeated, repeated),
            (acknowledged, repeated, acknowledged),
            (repeated, Evidence::Ambiguous, Evidence::Ambiguous),
        ] {
            assert_eq!(evidence(&[with(0, 0, one), with(1, 1, other)]), found);
            let mut matcher = Matcher::new(&plan(), 1_000, 0);
            matcher.read(0, sent(0), Some(with(1, 1, other)));
            matcher.read(1, sent(0), Some(with(0, 0, one)));
            let mut all = Vec::new();
            matcher.due(Some(1_000), |_, _, trajectory| all.push(trajectory.evidence));
            assert_eq!(all, [found]);
        }
    }
}
