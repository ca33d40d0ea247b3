//! Trajectories of one window, added up by endpoints.
//!
//! In: trajectories. Out: for each pair of taps the times between them, and how many packets were
//! seen at which taps only.
//! Cost: a look-up a trajectory; a sparse histogram for endpoints and pair of taps.
//! Invariants: nothing depends on the order in which trajectories come.

use crate::hash::KeyedMap;
use crate::index::TapIndex;
use crate::measure::histogram::Sparse;
use crate::path::{Ends, Evidence, SIGHTS_MAX, Sight, Trajectory};
use crate::time::Timestamp;

use super::delays::Delays;
use super::history::Way;
use super::noise::Noise;
use super::places::Places;

/// Endpoints in a window at most; the rest is counted.
const ENDS_MAX: usize = 1 << 16;

/// Packets of one pair of endpoints that one tap alone showed, in a window at most. Where no other tap
/// ever shows any there may be many, and they say nothing.
const ALONE_MAX: usize = 4_096;

/// Packets of a window of which it is kept when each was seen, at most.
const SHOWN_MAX: usize = 1 << 18;

/// Standard errors that the means of both directions are apart where it is certain which tap comes first:
/// by chance they are in one case of 1,000 with the fewest packets whose scatter says something, and
/// hardly ever with many.
const CERTAIN_ERRORS: f64 = 4.0;

/// Taps that a packet was seen at, in order of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TapSet {
    taps: [TapIndex; SIGHTS_MAX + 1],
    count: u8,
}

impl TapSet {
    fn of(trajectory: &Trajectory) -> Self {
        let sights = trajectory.sights().iter().map(|sight| sight.tap);
        Self::new(sights.chain(trajectory.recut))
    }

    #[cfg(test)]
    pub(super) fn of_taps(taps: &[TapIndex]) -> Self {
        Self::new(taps.iter().copied())
    }

    fn new(taps: impl Iterator<Item = TapIndex>) -> Self {
        let mut set = Self::default();
        for (place, tap) in set.taps.iter_mut().zip(taps) {
            *place = tap;
            set.count += 1;
        }
        set.taps[..usize::from(set.count)].sort_unstable();
        set
    }

    pub(super) fn has(&self, tap: TapIndex) -> bool {
        self.taps().contains(&tap)
    }

    fn taps(&self) -> &[TapIndex] {
        &self.taps[..usize::from(self.count)]
    }

    /// The tap next to the sender, where packets of these endpoints took these ways, and whether it is
    /// certain that they passed each other tap of the set behind another one.
    pub(super) fn entry(&self, orders: &[Order]) -> Option<(TapIndex, bool)> {
        if let [alone] = self.taps() {
            return Some((*alone, true));
        }
        let its = || orders.iter().filter(|it| self.has(it.way.0) && self.has(it.way.1));
        let is_behind = |tap: TapIndex| its().any(|order| order.way.1 == tap);
        let entry = self.taps().iter().copied().find(|tap| !is_behind(*tap))?;
        let is_certainly_behind =
            |tap: &TapIndex| its().any(|order| order.way.1 == *tap && order.is_certain);
        let mut others = self.taps().iter().filter(|tap| **tap != entry);
        Some((entry, others.all(is_certainly_behind) && its().all(|order| order.is_certain)))
    }
}

/// In which order packets pass two taps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) way: Way,
    /// Hops say so, or packets of both directions: not a clock, nor what was known.
    pub(super) is_certain: bool,
}

/// Two taps that showed the same packets: times are from the lower number to the higher.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair {
    pub(super) lower: TapIndex,
    pub(super) higher: TapIndex,
    pub(super) delays: Delays<Sparse>,
    /// Of the packets that both showed.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Of those that both showed as they are: the others may take until their deadline to be known.
    pub(super) whole: Option<(Timestamp, Timestamp)>,
    /// Packets that the lower, or the higher, showed whole and the other in pieces cut otherwise.
    pub(super) recut: [u64; 2],
    /// Packets that one of them showed without a segment's tag.
    pub(super) stripped: u64,
    /// Hops that were counted down from the lower to the higher, over all packets.
    hops: i64,
    /// Squares of all times.
    squares_ns2: u128,
}

/// What packets from one endpoint to another did.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) pairs: Vec<Pair>,
    /// Packets by the taps that showed them, by evidence: those of several taps, and those that can't
    /// be told apart.
    pub(super) seen: Vec<(TapSet, [u64; Evidence::KINDS])>,
    /// Packets that one tap alone showed.
    pub(super) alone: Vec<Alone>,
    /// More of them than are kept.
    pub(super) alone_more: u64,
    /// Stands for these endpoints in [`Shown`]; in no output.
    pub(super) number: u32,
    /// When packets were seen, by the taps that showed them.
    pub(super) spans: Vec<Span>,
}

/// Packets that the same taps showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) set: TapSet,
    pub(super) packets: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// When a packet was seen first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) at: Timestamp,
    /// [`Counts::number`].
    pub(super) ends: u32,
    /// Place in [`Counts::spans`].
    pub(super) span: u32,
}

/// A packet that one tap alone showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone {
    pub(super) at: Timestamp,
    pub(super) tap: TapIndex,
    pub(super) evidence: Evidence,
}

/// One window.
#[derive(Default)]
pub(super) struct Window {
    pub(super) ends: KeyedMap<Ends, Counts>,
    /// Packets of endpoints that found no room.
    pub(super) full_packets: u64,
    /// Packets that came after their own window was given out.
    pub(super) late_packets: u64,
    pub(super) samples: Vec<Trajectory>,
    /// Packets whose sightings found no room among the samples.
    pub(super) samples_full: u64,
    /// Made when it is asked for.
    pub(super) places: Option<Places>,
    /// Each packet, in no order.
    pub(super) shown: Vec<Shown>,
    /// Packets that found no room there.
    pub(super) shown_full: u64,
}

impl Window {
    pub(super) fn add(&mut self, trajectory: &Trajectory) {
        if self.ends.len() >= ENDS_MAX && !self.ends.contains_key(&trajectory.ends) {
            self.full_packets += 1;
            return;
        }
        let number = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let new = || Counts { number, ..Counts::default() };
        let counts = self.ends.entry(trajectory.ends).or_insert_with(new);
        let set = TapSet::of(trajectory);
        let (ends, span) = (counts.number, counts.span(set, trajectory.first_seen()));
        counts.add(trajectory, set);
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(Shown { at: trajectory.first_seen(), ends, span });
        } else {
            self.shown_full += 1;
        }
    }
}

impl Counts {
    /// Counts a packet among those that the same taps showed; its place.
    fn span(&mut self, set: TapSet, at: Timestamp) -> u32 {
        let place = self.spans.iter().position(|span| span.set == set).unwrap_or_else(|| {
            self.spans.push(Span { set, packets: 0, first: at, last: at });
            self.spans.len() - 1
        });
        let span = &mut self.spans[place];
        span.packets += 1;
        (span.first, span.last) = (span.first.min(at), span.last.max(at));
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn add(&mut self, trajectory: &Trajectory, set: TapSet) {
        let at = trajectory.first_seen();
        if set.count == 1 && trajectory.evidence != Evidence::Ambiguous {
            if self.alone.len() < ALONE_MAX {
                let (tap, evidence) = (set.taps[0], trajectory.evidence);
                self.alone.push(Alone { at, tap, evidence });
            } else {
                self.alone_more += 1;
            }
            return;
        }
        let place = self.seen.iter().position(|(seen, _)| *seen == set).unwrap_or_else(|| {
            self.seen.push((set, [0; Evidence::KINDS]));
            self.seen.len() - 1
        });
        self.seen[place].1[trajectory.evidence as usize] += 1;
        if trajectory.evidence == Evidence::Ambiguous {
            return;
        }
        let sights = trajectory.sights();
        for (place, one) in sights.iter().enumerate() {
            for other in &sights[place + 1..] {
                self.match_sights(one, other, at);
            }
        }
        if let Some((first, recut)) = sights.first().zip(trajectory.recut) {
            let place = usize::from(first.tap > recut);
            self.pair(first.tap, recut, at).recut[place] += 1;
        }
    }

    fn match_sights(&mut self, one: &Sight, other: &Sight, at: Timestamp) {
        let (lower, higher) = if one.tap < other.tap { (one, other) } else { (other, one) };
        let pair = self.pair(lower.tap, higher.tap, at);
        let ns = higher.at.0.cast_signed().wrapping_sub(lower.at.0.cast_signed());
        pair.delays.record(ns);
        pair.squares_ns2 = pair.squares_ns2.saturating_add(u128::from(ns.unsigned_abs()).pow(2));
        pair.stripped += u64::from(lower.is_untagged != higher.is_untagged);
        pair.hops += i64::from(lower.ttl) - i64::from(higher.ttl);
        let (first, last) = pair.whole.unwrap_or((at, at));
        pair.whole = Some((first.min(at), last.max(at)));
    }

    fn pair(&mut self, one: TapIndex, other: TapIndex, at: Timestamp) -> &mut Pair {
        let (lower, higher) = (one.min(other), one.max(other));
        let is_it = |pair: &Pair| (pair.lower, pair.higher) == (lower, higher);
        let place = self.pairs.iter().position(is_it).unwrap_or_else(|| {
            self.pairs.push(Pair { lower, higher, first: at, last: at, ..Pair::default() });
            self.pairs.len() - 1
        });
        let pair = &mut self.pairs[place];
        (pair.first, pair.last) = (pair.first.min(at), pair.last.max(at));
        pair
    }

    /// How many there were, whatever is known of them.
    pub(super) fn packets(&self) -> u64 {
        let seen: u64 = self.seen.iter().flat_map(|(_, packets)| packets).sum();
        seen + self.alone.len() as u64 + self.alone_more
    }

    /// Whether a tap showed any of them.
    pub(super) fn is_shown_by(&self, tap: TapIndex) -> bool {
        self.seen.iter().any(|(set, _)| set.has(tap))
            || self.alone.iter().any(|alone| alone.tap == tap)
    }

    fn find(&self, lower: TapIndex, higher: TapIndex) -> Option<&Pair> {
        self.pairs.iter().find(|pair| (pair.lower, pair.higher) == (lower, higher))
    }
}

impl Pair {
    /// Which tap the packets passed first. Hops that were counted down say so. Else, because times
    /// hold the offset between two clocks, both directions are compared: away from the lower tap
    /// they are longer by twice the way. Else what was known; else the clocks are believed.
    pub(super) fn order(
        &self,
        answers: Option<&Counts>,
        mut known: impl Iterator<Item = Way>,
        noise: &Noise,
    ) -> Order {
        let up = (self.lower, self.higher);
        let down = (self.higher, self.lower);
        let toward = |is_up| if is_up { up } else { down };
        if self.hops != 0 {
            return Order { way: toward(self.hops > 0), is_certain: true };
        }
        let turned = answers.and_then(|answers| answers.find(self.lower, self.higher));
        if let Some(turned) = turned.filter(|turned| turned.delays.count > 0) {
            let (here, there) = (self.delays.mean_ns(), turned.delays.mean_ns());
            if self.delays.count > 0 && here != there {
                let is_up = here > there;
                return Order { way: toward(is_up), is_certain: self.agrees(turned, is_up, noise) };
            }
        }
        let way = known.find(|way| [up, down].contains(way)).unwrap_or_else(|| {
            toward(match self.delays.mean_ns() {
                Some(mean_ns) => mean_ns >= 0,
                None => self.recut[0] >= self.recut[1],
            })
        });
        Order { way, is_certain: false }
    }

    /// Whether more than chance says of the order what the means of both directions do: they are apart by
    /// some standard errors, and the extremes say the same. Live times are coarse, and a few packets
    /// that waited long at one tap turn a mean, and one of the extremes.
    fn agrees(&self, turned: &Self, is_up: bool, noise: &Noise) -> bool {
        let Some(variance_ns2) = noise.variance_ns2(self.lower, self.higher) else {
            return false;
        };
        let error_ns = (variance_ns2 * (self.share() + turned.share())).sqrt();
        if (self.exact_mean_ns() - turned.exact_mean_ns()).abs() < CERTAIN_ERRORS * error_ns {
            return false;
        }
        let (here, there) = (&self.delays, &turned.delays);
        let least = (here.min_ns - there.min_ns).signum();
        let most = (here.max_ns - there.max_ns).signum();
        let is = if is_up { 1 } else { -1 };
        least != -is && most != -is && (least == is || most == is)
    }

    /// What one time is of the mean.
    #[expect(clippy::cast_precision_loss, reason = "compared with what is off by far more")]
    fn share(&self) -> f64 {
        1.0 / self.delays.count as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "as above")]
    fn exact_mean_ns(&self) -> f64 {
        self.delays.sum_ns as f64 * self.share()
    }

    /// Squares of what times differ from their mean, in ns².
    pub(super) fn scatter_ns2(&self) -> u128 {
        let sum_ns = u128::from(self.delays.sum_ns.unsigned_abs());
        let of_mean = sum_ns.saturating_mul(sum_ns) / u128::from(self.delays.count.max(1));
        self.squares_ns2.saturating_sub(of_mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::fold;

    const TAPS: [TapIndex; 2] = [TapIndex(0), TapIndex(1)];

    /// What both directions show between two taps: packets of each took `way_ns`, and waited up to
    /// `coarse_ns` at either tap until somebody looked; the clock of the second is ahead by `offset_ns`.
    fn order(packets: u64, way_ns: i64, coarse_ns: u64, offset_ns: i64, seed: u64) -> Order {
        let waited = |number: u64| -> i64 {
            let mixed = fold(seed ^ 0x9e37_79b9_7f4a_7c15, number ^ 0xd1b5_4a32_d192_ed03);
            (fold(mixed, 0xbf58_476d_1ce4_e5b9) % coarse_ns.max(1)).cast_signed()
        };
        let both = [1, -1].map(|sign| {
            let mut counts = Counts::default();
            for number in 0..packets {
                let number = 4 * number + u64::from(sign > 0);
                let ns = sign * way_ns + offset_ns + waited(number) - waited(number + 2);
                let (at, later) = (1_000_000_000_u64, 1_000_000_000_u64.wrapping_add_signed(ns));
                let one = Sight { tap: TAPS[0], at: Timestamp(at), ..Sight::default() };
                let other = Sight { tap: TAPS[1], at: Timestamp(later), ..Sight::default() };
                counts.match_sights(&one, &other, Timestamp(at));
            }
            counts
        });
        let mut noise = Noise::default();
        for pair in both.iter().flat_map(|counts| &counts.pairs) {
            noise.add(pair);
        }
        both[0].pairs[0].order(Some(&both[1]), std::iter::empty(), &noise)
    }

    #[test]
    fn few_packets_or_coarse_times_are_not_certain() {
        let certain = |order: Order| order.is_certain.then_some(order.way);
        let (up, offset_ns) = ((TAPS[0], TAPS[1]), 700_000_000);
        for seed in 0..100 {
            assert_eq!(certain(order(8, 50_000, 100, offset_ns, seed)), None);
            assert_eq!(certain(order(9, 50_000, 100, offset_ns, seed)), Some(up));
            assert_eq!(certain(order(500, 50_000, 200_000, offset_ns, seed)), Some(up));
            assert_eq!(certain(order(9, 0, 0, offset_ns, seed)), None);
        }
        // Of what is nothing but noise hardly any is taken for an order.
        for packets in [9, 30, 300] {
            let wrong = (0..2_000).filter(|seed| order(packets, 0, 200_000, 0, *seed).is_certain);
            assert!(wrong.count() <= 3, "{packets}");
        }
    }
}
