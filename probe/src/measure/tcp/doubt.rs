//! Ranges of octets whose fate is not known yet.
//!
//! In: holes (octets that were not seen) and repeats (octets that were seen more than once); what
//! fills or acknowledges them. Out: verdicts, by [`super::loss`].
//! Cost: 32 bytes a range, [`DOUBTS_MAX`] of them for each endpoint; looked at one by one.
//! Invariants: holes of one endpoint do not share octets; a full list gives its oldest range up.
//! Source: docs/measures.md, loss by cause.

use crate::time::Timestamp;

use super::sequence::{Range, distance, reaches};

/// Ranges in doubt of one endpoint at a time. With more holes than these in one round trip a
/// verdict is made early; the loss is counted all the same.
pub(super) const DOUBTS_MAX: usize = 5;

/// Why a range is in doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Not seen.
    #[default]
    Hole,
    /// Seen more than once.
    Repeat,
}

/// One range.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubt {
    /// The time whose window a loss belongs to: when a hole was noticed; when a repeated range
    /// was sent before, as far as known.
    pub(super) at: Timestamp,
    /// When it was repeated last; once acknowledged, when that was.
    pub(super) since: Timestamp,
    pub(super) range: Range,
    /// TSval of the last repeat; 0: none.
    pub(super) stamp: u32,
    pub(super) kind: Kind,
    /// The receiver has it.
    pub(super) acked: bool,
    /// How often it was repeated.
    pub(super) times: u8,
}

const _: () = assert!(size_of::<Doubt>() == 32, "bytes a range");

impl Doubt {
    pub(super) fn hole(range: Range, at: Timestamp) -> Self {
        Self { at, since: at, range, ..Self::default() }
    }
}

/// The ranges of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubts {
    list: [Doubt; DOUBTS_MAX],
    len: u8,
}

impl Doubts {
    pub(super) const NONE: Self = Self {
        list: [Doubt {
            at: Timestamp::ZERO,
            since: Timestamp::ZERO,
            range: Range { begin: 0, end: 0 },
            stamp: 0,
            kind: Kind::Hole,
            acked: false,
            times: 0,
        }; DOUBTS_MAX],
        len: 0,
    };

    pub(super) fn all(&self) -> &[Doubt] {
        self.list.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub(super) fn all_mut(&mut self) -> &mut [Doubt] {
        self.list.get_mut(..usize::from(self.len)).unwrap_or_default()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one; returns the oldest if there was no room, for a verdict now.
    pub(super) fn push(&mut self, doubt: Doubt) -> Option<Doubt> {
        let mut oldest = None;
        if usize::from(self.len) == DOUBTS_MAX {
            let place = (0..DOUBTS_MAX).min_by_key(|place| self.list[*place].at)?;
            oldest = self.take(place);
        }
        if let Some(free) = self.list.get_mut(usize::from(self.len)) {
            *free = doubt;
            self.len += 1;
        }
        oldest
    }

    /// Takes the one at `place` out; the last takes its place.
    pub(super) fn take(&mut self, place: usize) -> Option<Doubt> {
        let last = usize::from(self.len).checked_sub(1)?;
        if place > last {
            return None;
        }
        self.list.swap(place, last);
        self.len -= 1;
        self.list.get(last).copied()
    }

    /// Takes the first one out that is as `wanted` says.
    pub(super) fn take_if(&mut self, wanted: impl Fn(&Doubt) -> bool) -> Option<Doubt> {
        let place = self.all().iter().position(wanted)?;
        self.take(place)
    }

    /// Octets of `range` that lie in holes.
    pub(super) fn unseen_octets(&self, range: Range) -> u32 {
        self.holes().map(|hole| hole.range.shared(range).octets()).sum()
    }

    /// When the earliest hole that shares octets with `range` was noticed.
    pub(super) fn noticed(&self, range: Range) -> Option<Timestamp> {
        let hit = |hole: &&Doubt| !hole.range.shared(range).is_empty();
        self.holes().filter(hit).map(|hole| hole.at).min()
    }

    fn holes(&self) -> impl Iterator<Item = &Doubt> {
        self.all().iter().filter(|doubt| doubt.kind == Kind::Hole)
    }

    /// Cuts `range` out of the first hole that shares octets with it; what was cut, and a doubt
    /// that found no room where this made two holes of one.
    pub(super) fn fill(&mut self, range: Range) -> Option<(Doubt, Option<Doubt>)> {
        let hole = self
            .take_if(|doubt| doubt.kind == Kind::Hole && !doubt.range.shared(range).is_empty())?;
        let cut = hole.range.shared(range);
        let before = Range { begin: hole.range.begin, end: cut.begin };
        let behind = Range { begin: cut.end, end: hole.range.end };
        let mut lost = None;
        for rest in [before, behind] {
            if !rest.is_empty() {
                lost = self.push(Doubt { range: rest, ..hole }).or(lost);
            }
        }
        Some((Doubt { range: cut, ..hole }, lost))
    }

    /// The receiver has everything up to `acknowledgement`.
    pub(super) fn acknowledged(&mut self, acknowledgement: u32, at: Timestamp) {
        for doubt in self.all_mut() {
            if !doubt.acked && reaches(acknowledgement, doubt.range.end) {
                doubt.acked = true;
                doubt.since = at;
            }
        }
    }

    /// The receiver has `range`, and lacks something before it.
    pub(super) fn sacked(&mut self, range: Range, at: Timestamp) {
        for doubt in self.all_mut() {
            if doubt.kind == Kind::Hole && !doubt.acked && range.holds(doubt.range) {
                doubt.acked = true;
                doubt.since = at;
            }
        }
    }

    /// Notes that `range` was repeated. The same doubt grows if it begins within the range.
    pub(super) fn repeated(&mut self, repeat: Doubt) -> Option<Doubt> {
        let known = self.all_mut().iter_mut().find(|doubt| {
            doubt.kind == Kind::Repeat && !doubt.acked && doubt.range.holds(repeat.range)
        });
        match known {
            Some(doubt) => {
                doubt.times = doubt.times.saturating_add(1);
                doubt.since = repeat.since;
                doubt.stamp = repeat.stamp;
                None
            }
            None => self.push(repeat),
        }
    }

    /// The receiver got octets of `range` twice: one repeat less that was needed. Whether it was
    /// one that is in doubt.
    pub(super) fn in_vain(&mut self, range: Range) -> bool {
        let place = self
            .all()
            .iter()
            .position(|doubt| doubt.kind == Kind::Repeat && !doubt.range.shared(range).is_empty());
        let Some(place) = place else { return false };
        let Some(doubt) = self.all_mut().get_mut(place) else { return false };
        doubt.times = doubt.times.saturating_sub(1);
        if doubt.times == 0 {
            self.take(place);
        }
        true
    }

    /// Takes a repeat out that did not cause the acknowledgement that covers it, because that
    /// echoes an older time or comes sooner than anything can (Eifel detection, RFC 3522).
    pub(super) fn take_needless(
        &mut self,
        acknowledgement: u32,
        echo: Option<u32>,
        sooner_than: Timestamp,
    ) -> Option<Doubt> {
        self.take_if(|doubt| {
            let older =
                doubt.stamp != 0 && echo.is_some_and(|echo| distance(doubt.stamp, echo) < 0);
            doubt.kind == Kind::Repeat
                && !doubt.acked
                && reaches(acknowledgement, doubt.range.end)
                && (older || sooner_than < doubt.since)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(begin: u32, end: u32) -> Range {
        Range { begin, end }
    }

    fn holes(doubts: &Doubts) -> Vec<(u32, u32)> {
        let mut all: Vec<_> =
            doubts.holes().map(|hole| (hole.range.begin, hole.range.end)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_hole_is_filled_from_the_middle_and_from_its_ends() {
        let mut doubts = Doubts::default();
        assert!(doubts.push(Doubt::hole(range(100, 200), Timestamp(1))).is_none());
        let (cut, lost) = doubts.fill(range(140, 160)).expect("it shares octets");
        assert_eq!((cut.range, lost.is_none()), (range(140, 160), true));
        assert_eq!(holes(&doubts), [(100, 140), (160, 200)]);
        assert_eq!(doubts.unseen_octets(range(90, 170)), 50);
        doubts.fill(range(0, 140)).expect("it shares octets");
        doubts.fill(range(190, 300)).expect("it shares octets");
        assert_eq!(holes(&doubts), [(160, 190)]);
        assert!(doubts.fill(range(190, 300)).is_none());
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut doubts = Doubts::default();
        for number in 0..5 {
            let hole = Doubt::hole(range(number, number + 1), Timestamp(u64::from(10 - number)));
            assert!(doubts.push(hole).is_none());
        }
        let oldest = doubts.push(Doubt::hole(range(9, 10), Timestamp(99)));
        assert_eq!(oldest.map(|hole| hole.range), Some(range(4, 5)));
        assert_eq!(doubts.all().len(), DOUBTS_MAX);
    }

    #[test]
    fn a_needless_repeat_is_told_by_its_echo() {
        let repeat = |stamp| Doubt {
            kind: Kind::Repeat,
            times: 1,
            stamp,
            since: Timestamp(50),
            ..Doubt::hole(range(1, 2), Timestamp(1))
        };
        let mut doubts = Doubts::default();
        doubts.push(repeat(7));
        assert!(doubts.take_needless(2, Some(7), Timestamp(60)).is_none(), "its own echo");
        assert!(doubts.take_needless(1, Some(6), Timestamp(60)).is_none(), "not acknowledged");
        assert!(doubts.take_needless(2, Some(6), Timestamp(60)).is_some());
        doubts.push(repeat(0));
        assert!(doubts.take_needless(2, None, Timestamp(49)).is_some());
    }
}
