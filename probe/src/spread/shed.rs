//! Shedding: at overload whole flows are left out by hash, at a stated rate.
//!
//! In: how full the receive rings are. Out: whether a flow is kept, and the rate.
//! Cost: one multiplication and a comparison a packet.
//! Invariants: all workers use one threshold, so a flow is kept or shed in both directions and in
//! all copies; whether it is kept says nothing of its worker; the rate halves at most once a step
//! and grows slowly back.
//! Source: hash-based selection, RFC 5475 §5.2.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;

use crate::config::ShedPlan;

/// Keep everything.
const ALL: u32 = u32::MAX;

/// The high half of the hash picks the worker, so it cannot say by itself what is kept: that would
/// leave some workers without any flow. The high half of the product depends on all bits, most on
/// the low ones. 2⁶⁴ / golden ratio, Knuth, The Art of Computer Programming 3, section 6.4.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

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
        let mixed = hash.wrapping_mul(MIX);
        u32::try_from(mixed >> 32).unwrap_or(ALL) <= self.threshold
    }

    /// Whether all flows are kept now.
    #[inline]
    pub fn keeps_all(&self) -> bool {
        self.threshold == ALL
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
    use crate::decode::Headers;
    use crate::spread::{FlowKey, HashSeed, owner};

    #[test]
    fn overload_halves_and_calm_restores() {
        let wishes = ShedWishes::new(2);
        let mut first = Shedder::new(&ShedPlan::default(), wishes.clone(), 0);
        let mut second = Shedder::new(&ShedPlan::default(), wishes, 1);
        assert!((0..10_000).all(|hash| first.keeps(hash)) && first.rate() >= 1.0);
        first.step(Some(90));
        second.step(Some(0));
        let same = (0..10_000).all(|hash| first.keeps(hash) == second.keeps(hash));
        assert!(same && !(0..10_000).all(|hash| first.keeps(hash)), "one threshold for all");
        assert!((first.rate() - 0.5).abs() < 1e-6);
        assert!(first.keeps(0));
        for _ in 0..200 {
            first.step(Some(0));
        }
        second.step(None);
        assert!((0..10_000).all(|hash| second.keeps(hash)));
    }

    #[test]
    fn kept_flows_are_even_over_workers() {
        let mut shedder = Shedder::new(&ShedPlan::default(), ShedWishes::new(1), 0);
        for halvings in 1..=3 {
            shedder.step(Some(100));
            let mut kept = [0_u32; 4];
            for port in 0..u16::MAX {
                let headers = Headers { source_port: port, protocol: 6, ..Headers::default() };
                let hash = FlowKey::of(&headers).0.hash(HashSeed::fixed());
                kept[owner(hash, 4)] += u32::from(shedder.keeps(hash));
            }
            let even = (u32::from(u16::MAX) >> halvings) / 4;
            let near = even - even / 10..even + even / 10;
            assert!(kept.iter().all(|flows| near.contains(flows)), "{kept:?} of {even}");
        }
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
