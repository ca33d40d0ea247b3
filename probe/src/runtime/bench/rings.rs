//! What a ring between two workers costs by itself.
//!
//! In: burst size and number of workers. Out: CPU time of sending and of taking a packet.
//! Cost: [`PACKETS`] through one ring.
//! Invariants: batches are as long as a burst that is dealt out evenly over all workers makes them;
//! packets are in the sender's cache, as they are after decoding; waiting is not counted.
//! Source: `spread/ring.rs`; what the worker does for each packet in `take_over` beside its flows.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use crossbeam::utils::CachePadded;

use crate::config::Plan;
use crate::cores;
use crate::decode::Brief;
use crate::spread::ring::{Passed, RingReceiver, RingSender, ring};
use crate::time::{Timestamp, thread_cpu_ns};

use super::super::RuntimeError;
use super::super::pipeline::{join, spawn};
use super::{ratio, spread};

/// Packets through the ring.
const PACKETS: u64 = 1 << 19;

/// Batches that the sender is ahead at most, and that the receiver waits for.
const AHEAD_BATCHES: u64 = 24;
const STRETCH_BATCHES: u64 = 12;

/// How far both are.
#[derive(Default)]
struct Progress {
    sent: CachePadded<AtomicU64>,
    taken: CachePadded<AtomicU64>,
}

impl Progress {
    fn under_way(&self) -> u64 {
        let taken = self.taken.load(Ordering::Acquire);
        self.sent.load(Ordering::Acquire).saturating_sub(taken)
    }
}

/// Nanoseconds of CPU time a packet: sending, taking.
pub(super) fn measure(plan: &Plan, workers: u16) -> Result<[f64; 2], RuntimeError> {
    let batch = u64::from(plan.worker.burst_packets / workers.max(1)).max(1);
    let (sender, receiver) = ring(plan.worker.spread_ring_packets as usize);
    let progress = Arc::new(Progress::default());
    let start = Arc::new(Barrier::new(2));
    let cores = cores::allowed();
    let core_of = |place: usize| cores.get(place % cores.len().max(1)).copied();
    let (taking_core, sending_core) = (core_of(1), core_of(0));
    let (taking_start, taking_progress) = (Arc::clone(&start), Arc::clone(&progress));
    let taking = spawn("ring-taking", move || {
        let _ = cores::stay_on(taking_core.as_slice());
        taking_start.wait();
        take_all(receiver, batch, &taking_progress)
    })?;
    let sending = spawn("ring-sending", move || {
        let _ = cores::stay_on(sending_core.as_slice());
        start.wait();
        send_all(sender, batch, &progress)
    })?;
    Ok([join(sending), join(taking)].map(|cpu_ns| ratio(cpu_ns, PACKETS)))
}

fn send_all(mut sender: RingSender, batch: u64, progress: &Progress) -> u64 {
    let mut briefs = vec![Brief::default(); 32];
    let packet = [0; 128];
    let begun_ns = thread_cpu_ns();
    let (mut sent, mut waited_ns) = (0, 0);
    while sent < PACKETS {
        let end = PACKETS.min(sent + batch);
        while sent < end {
            let place = usize::try_from(sent % 32).unwrap_or(0);
            briefs[place].clock = Timestamp(sent);
            if sender.push_in_brief(black_box(&briefs[place]), black_box(&packet)) {
                sent += 1;
            } else {
                waited_ns += spread::wait_until(|| progress.under_way() == 0);
            }
        }
        while !sender.flush() {
            waited_ns += spread::wait_until(|| progress.under_way() == 0);
        }
        sender.publish(Timestamp(sent));
        progress.sent.store(sent, Ordering::Release);
        if progress.under_way() > AHEAD_BATCHES * batch {
            waited_ns += spread::wait_until(|| progress.under_way() <= STRETCH_BATCHES * batch);
        }
    }
    (thread_cpu_ns() - begun_ns).saturating_sub(waited_ns)
}

fn take_all(mut receiver: RingReceiver, batch: u64, progress: &Progress) -> u64 {
    let begun_ns = thread_cpu_ns();
    let (mut taken, mut waited_ns) = (0, 0);
    while taken < PACKETS {
        black_box(receiver.clock());
        if let Some(Passed::InBrief(&packet)) = receiver.head() {
            receiver.advance();
            black_box(&packet);
            taken += 1;
            continue;
        }
        progress.taken.store(taken, Ordering::Release);
        waited_ns += spread::wait_until(|| {
            progress.under_way() >= STRETCH_BATCHES * batch
                || progress.sent.load(Ordering::Acquire) == PACKETS
        });
    }
    (thread_cpu_ns() - begun_ns).saturating_sub(waited_ns)
}
