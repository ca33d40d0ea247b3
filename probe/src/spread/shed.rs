//! Shedding: at overload whole flows are left out by hash, at a stated rate.
//!
//! In: how full the receive rings are. Out: whether a flow is kept, and the rate.
//! Cost: one relaxed load and a comparison a packet.
//! Invariants: all workers use one threshold, so a flow is kept or shed in both directions and in
//! all copies; the rate halves at most once a step and grows slowly back.
//! Source: hash-based selection, RFC 5475 §5.2.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;

use crate::config::ShedPlan;

/// Keep everything.
const ALL: u32 = u32::MAX;

/// Never below about 0.4 % of the flows.
const LEAST: u32 = ALL >> 8;

/// Wishes of all workers; the smallest one holds for all.
#[derive(Clone)]
pub struct ShedWishes(Arc<[CachePadded<AtomicU32>]>);

impl ShedWishes {
    /// For so many workers; all flows are kept at first.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| CachePadded::new(AtomicU32::new(ALL))).collect())
    }

    fn effective(&self) -> u32 {
        self.0.iter().map(|wish| wish.load(Ordering::Relaxed)).min().unwrap_or(ALL)
    }
}

/// One worker's view of shedding.
pub struct Shedder {
    wishes: ShedWishes,
    worker: usize,
    threshold: u32,
    high_percent: u8,
    low_percent: u8,
    enabled: bool,
}

impl Shedder {
    /// For the `worker`-th worker.
    pub fn new(plan: &ShedPlan, wishes: ShedWishes, worker: usize) -> Self {
        Self {
            wishes,
            worker,
            threshold: ALL,
            high_percent: plan.high_percent,
            low_percent: plan.low_percent,
            enabled: plan.enabled,
        }
    }

    /// Whether the flow with this hash is kept.
    #[inline]
    pub fn keeps(&self, hash: u64) -> bool {
        u32::try_from(hash >> 32).unwrap_or(ALL) <= self.threshold
    }

    /// Share of flows that is kept, above 0 to 1.
    #[expect(clippy::cast_possible_truncation, reason = "seven digits of a rate are enough")]
    pub fn rate(&self) -> f32 {
        if self.threshold == ALL {
            return 1.0;
        }
        (f64::from(self.threshold) / f64::from(ALL)) as f32
    }

    /// Once every few turns: how full this worker's receive ring is, in percent, where the port
    /// can say.
    pub fn step(&mut self, fill_percent: Option<u8>) {
        if !self.enabled {
            return;
        }
        if let Some(fill) = fill_percent {
            let wish = &self.wishes.0[self.worker];
            let now = wish.load(Ordering::Relaxed);
            if fill >= self.high_percent {
                wish.store((now >> 1).max(LEAST), Ordering::Relaxed);
            } else if fill <= self.low_percent && now != ALL {
                wish.store(now.saturating_add((now >> 6).max(1)), Ordering::Relaxed);
            }
        }
        self.threshold = self.wishes.effective();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_halves_and_calm_restores() {
        let wishes = ShedWishes::new(2);
        let mut first = Shedder::new(&ShedPlan::default(), wishes.clone(), 0);
        let mut second = Shedder::new(&ShedPlan::default(), wishes, 1);
        assert!(first.keeps(u64::MAX) && first.rate() >= 1.0);
        first.step(Some(90));
        second.step(Some(0));
        assert!(!first.keeps(u64::MAX) && !second.keeps(u64::MAX), "one threshold for all");
        assert!((first.rate() - 0.5).abs() < 1e-6);
        assert!(first.keeps(0));
        for _ in 0..200 {
            first.step(Some(0));
        }
        second.step(None);
        assert!(second.keeps(u64::MAX));
    }

    #[test]
    fn some_flows_are_always_kept() {
        let mut shedder = Shedder::new(&ShedPlan::default(), ShedWishes::new(1), 0);
        for _ in 0..100 {
            shedder.step(Some(100));
        }
        assert!(shedder.keeps(0) && shedder.rate() > 0.003);
    }
}
