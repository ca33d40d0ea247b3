//! What VMs use of their hosts: a bounded stream beside the inventory.
//!
//! In: counters of VMs, as their hosts give them. Out: [`VmUsage`] in a [`UsageQueue`], for whoever joins
//! them to the windows of the VM.
//! Cost: one allocation a sample.
//! Invariants: nobody waits: where nobody takes them, the newest [`USAGE_QUEUE`] samples are kept, and
//! the others are counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::inventory::{Mac, Uuid};
use crate::time::Timestamp;

/// Samples that wait at most.
pub const USAGE_QUEUE: usize = 1 << 14;

/// What one VM has used up to a time. All are counters since the VM began, which fall back to 0 with it,
/// but memory, which is as of then. `None`: its host does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmUsage {
    /// Which.
    pub vm: Uuid,
    /// When it was read, by the probe's clock.
    pub at: Timestamp,
    /// CPU time of all its virtual CPUs, in ns.
    pub cpu_ns: Option<u64>,
    /// Virtual CPUs that it has.
    pub vcpu_count: Option<u64>,
    /// Memory that it has.
    pub memory_bytes: Option<u64>,
    /// Memory of the host that it takes.
    pub resident_bytes: Option<u64>,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceUsage>,
}

/// Counters of one virtual interface, in the direction that the VM sees: `rx` is what it receives.
/// What its driver does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its MAC address.
    pub mac: Mac,
    /// Octets received, with Ethernet headers.
    pub rx_octets: Option<u64>,
    /// Packets received.
    pub rx_packets: Option<u64>,
    /// Packets for it that were dropped.
    pub rx_drops: Option<u64>,
    /// Packets for it that were in error.
    pub rx_errors: Option<u64>,
    /// Octets sent, with Ethernet headers.
    pub tx_octets: Option<u64>,
    /// Packets sent.
    pub tx_packets: Option<u64>,
    /// Packets of it that were dropped.
    pub tx_drops: Option<u64>,
    /// Packets of it that were in error.
    pub tx_errors: Option<u64>,
}

/// Samples on their way.
#[derive(Clone, Debug)]
pub struct UsageQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    samples: ArrayQueue<VmUsage>,
    lost: AtomicU64,
}

impl Default for UsageQueue {
    fn default() -> Self {
        let samples = ArrayQueue::new(USAGE_QUEUE);
        Self(Arc::new(Inner { samples, lost: AtomicU64::new(0) }))
    }
}

impl UsageQueue {
    /// Adds a sample; the oldest one makes room where there is none.
    pub fn add(&self, sample: VmUsage) {
        if self.0.samples.force_push(sample).is_some() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The oldest sample.
    pub fn take(&self) -> Option<VmUsage> {
        self.0.samples.pop()
    }

    /// Samples that made room for others.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_samples_are_kept_and_the_others_counted() {
        let queue = UsageQueue::default();
        let sample = |at| VmUsage {
            vm: Uuid(1),
            at: Timestamp(at),
            cpu_ns: None,
            vcpu_count: None,
            memory_bytes: None,
            resident_bytes: None,
            interfaces: Vec::new(),
        };
        (0..USAGE_QUEUE as u64 + 3).for_each(|at| queue.add(sample(at)));
        assert_eq!((queue.lost(), queue.take()), (3, Some(sample(3))));
    }
}
