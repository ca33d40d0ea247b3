//! Which packets must have passed both taps of a way, and what became of those that one tap alone
//! showed.
//!
//! In: a window's packets between two endpoints, and when others of them took which way. Out:
//! [`PathCounts`].
//! Cost: a pass over the packets that one tap alone showed.
//! Invariants: a packet between two that took the way was to take it too. Before the first of them
//! and behind the last one that is believed only while nothing says that an endpoint has moved: it was
//! seen last (or next) at its tap, and those without a match are few, or their sender repeats them and
//! nobody acknowledges.

use crate::path::{Ends, Evidence};
use crate::time::Timestamp;

use super::PathCounts;
use super::history::Way;
use super::places::{Places, Stands, agree};
use super::window::{Alone, Counts, TapSet};

/// Packets in a row without a match that may be lost, though they are acknowledged.
const RUN_MAX: u64 = 3;

/// When packets took a way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) way: Way,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl Taken {
    /// A way that should be taken: every packet comes before the first that does.
    pub(super) const fn by_none(way: Way) -> Self {
        Self { way, first: Timestamp(u64::MAX), last: Timestamp::ZERO }
    }
}

/// Packets without a match in a row.
#[derive(Default)]
struct Run {
    packets: u64,
    repeated: u64,
    acknowledged: u64,
}

impl Run {
    fn add(&mut self, alone: &Alone) {
        self.packets += 1;
        self.repeated += u64::from(alone.evidence == Evidence::Repeated);
        self.acknowledged += u64::from(alone.evidence == Evidence::Acknowledged);
    }

    const fn may_be_lost(&self) -> bool {
        self.packets <= RUN_MAX || (self.repeated > 0 && self.acknowledged == 0)
    }
}

/// Adds further times at which ways were taken.
pub(super) fn join(taken: &mut Vec<Taken>, further: impl Iterator<Item = Taken>) {
    for one in further {
        match taken.iter_mut().find(|known| known.way == one.way) {
            Some(known) => {
                known.first = known.first.min(one.first);
                known.last = known.last.max(one.last);
            }
            None => taken.push(one),
        }
    }
    taken.sort_by_key(|taken| taken.way);
}

/// What became of the packets on one of the ways that packets of these endpoints take.
pub(super) fn count(
    counts: &Counts,
    ends: &Ends,
    taken: &Taken,
    all: &[Taken],
    (stands, places): (&Stands, &[&Places]),
) -> PathCounts {
    let way = taken.way;
    let mut sum = PathCounts::default();
    for (set, packets) in &counts.seen {
        several(set, packets, way, all, &mut sum);
    }
    let is_it = |pair: &&super::window::Pair| {
        [(pair.lower, pair.higher), (pair.higher, pair.lower)].contains(&way)
    };
    if let Some(pair) = counts.pairs.iter().find(is_it) {
        (sum.recut, sum.stripped) = (pair.recut.iter().sum(), pair.stripped);
    }
    let (mut head, mut tail) = (Run::default(), Run::default());
    let concerns = |alone: &&Alone| alone.tap == way.0 || alone.tap == way.1;
    for alone in counts.alone.iter().filter(concerns) {
        if alone.at < taken.first {
            head.add(alone);
        } else if alone.at > taken.last {
            tail.add(alone);
        }
    }
    for alone in counts.alone.iter().filter(concerns) {
        let is_head = alone.at < taken.first;
        let is_between = !is_head && alone.at <= taken.last;
        let run = if is_head { &head } else { &tail };
        if is_between || (run.may_be_lost() && agree(stands, places, ends, way, alone.at)) {
            single(alone, way, &mut sum);
        }
    }
    sum
}

/// Packets that several taps showed, or that can't be told apart.
fn several(
    set: &TapSet,
    packets: &[u64; Evidence::KINDS],
    way: Way,
    all: &[Taken],
    sum: &mut PathCounts,
) {
    let ambiguous = packets[Evidence::Ambiguous as usize];
    let certain = packets.iter().sum::<u64>() - ambiguous;
    // Whether it was seen at a tap that those which pass the second one pass later.
    let is_seen_behind = all.iter().any(|taken| taken.way.0 == way.1 && set.has(taken.way.1));
    match (set.has(way.0), set.has(way.1)) {
        (false, false) => return,
        (true, true) => sum.matched += certain,
        (false, true) => sum.first_missed += certain,
        (true, false) if is_seen_behind => sum.mirror += certain,
        (true, false) => {
            sum.network += packets[Evidence::Repeated as usize];
            sum.mirror += packets[Evidence::Acknowledged as usize];
            sum.unresolved += packets[Evidence::None as usize];
        }
    }
    sum.ambiguous += ambiguous;
}

fn single(alone: &Alone, way: Way, sum: &mut PathCounts) {
    if alone.tap == way.1 {
        sum.first_missed += 1;
        return;
    }
    match alone.evidence {
        Evidence::Repeated => sum.network += 1,
        Evidence::Acknowledged => sum.mirror += 1,
        Evidence::None | Evidence::Ambiguous => sum.unresolved += 1,
    }
}
