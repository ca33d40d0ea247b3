//! Rings between workers: headers in batches, single producer and single consumer.
//!
//! In: headers that another worker owns. Out: the same, in order.
//! Cost: one copy of the headers; the ring itself is touched once a batch.
//! Invariants: `ring_packets` at most wait in a ring; batches are made once and come back; no
//! clock that is published is taken for [`QUIET`] or [`CLOSED`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use crate::decode::Headers;
use crate::memory;
use crate::time::Timestamp;

/// Packets that one batch holds at most.
pub const BATCH_PACKETS_MAX: usize = 64;

/// How far ahead memory is asked for, which the worker at the other end touched last.
pub const AHEAD_PACKETS: usize = 8;

/// Clock of a ring of which nothing is expected.
pub const QUIET: Timestamp = Timestamp(u64::MAX - 1);

/// Clock of a ring that is closed.
pub const CLOSED: Timestamp = Timestamp(u64::MAX);

type Batch = Vec<Headers>;

struct Shared {
    full: ArrayQueue<Batch>,
    empty: ArrayQueue<Batch>,
    /// The producer's clock: all packets up to it are in the ring.
    clock: CachePadded<AtomicU64>,
    /// The producer's clock when it closed the ring.
    last_clock: AtomicU64,
}

/// Makes a ring that holds about `packets` (at least two batches).
pub fn ring(packets: usize) -> (RingSender, RingReceiver) {
    let batches = (packets / BATCH_PACKETS_MAX).max(2);
    let shared = Arc::new(Shared {
        full: ArrayQueue::new(batches),
        empty: ArrayQueue::new(batches + 2),
        clock: CachePadded::new(AtomicU64::new(0)),
        last_clock: AtomicU64::new(0),
    });
    for _ in 0..batches {
        // Room for `batches + 2` was made above.
        let _ = shared.empty.push(Vec::with_capacity(BATCH_PACKETS_MAX));
    }
    let sender =
        RingSender { open: Vec::with_capacity(BATCH_PACKETS_MAX), shared: Arc::clone(&shared) };
    let batch = Vec::with_capacity(BATCH_PACKETS_MAX);
    (sender, RingReceiver { shared, batch, place: 0, is_fresh: false })
}

/// The producing end, owned by the worker that received the packets.
pub struct RingSender {
    open: Batch,
    shared: Arc<Shared>,
}

impl RingSender {
    /// Adds a packet; `false` if the batch is full and the ring has no room: nothing was added.
    #[inline]
    pub fn push(&mut self, headers: &Headers) -> bool {
        if self.open.len() == BATCH_PACKETS_MAX && !self.flush() {
            return false;
        }
        self.open.push(*headers);
        memory::fetch_ahead(&mut self.open, AHEAD_PACKETS);
        true
    }

    /// Hands the open batch over; `false` if the ring has no room, and the batch stays open.
    pub fn flush(&mut self) -> bool {
        if self.open.is_empty() {
            return true;
        }
        let Some(empty) = self.shared.empty.pop() else { return false };
        let batch = std::mem::replace(&mut self.open, empty);
        if let Err(batch) = self.shared.full.push(batch) {
            let empty = std::mem::replace(&mut self.open, batch);
            // It came from there a moment ago.
            let _ = self.shared.empty.push(empty);
            return false;
        }
        true
    }

    /// Says that all packets received up to `clock` are handed over. Call after a flush that
    /// succeeded; with an open batch it says nothing.
    #[inline]
    pub fn publish(&self, clock: Timestamp) {
        if self.open.is_empty() {
            self.shared.clock.store(clock.0.min(QUIET.0 - 1), Ordering::Release);
        }
    }

    /// Says that nothing is expected: nobody need wait for this ring until it is published again.
    #[inline]
    pub fn publish_quiet(&self) {
        if self.open.is_empty() {
            self.shared.clock.store(QUIET.0, Ordering::Release);
        }
    }

    /// Says that nothing will come any more; `clock` is how far the producer has read.
    pub fn close(&self, clock: Timestamp) {
        self.shared.last_clock.store(clock.0, Ordering::Relaxed);
        self.shared.clock.store(CLOSED.0, Ordering::Release);
    }
}

/// The consuming end, owned by the worker that owns the flows.
pub struct RingReceiver {
    shared: Arc<Shared>,
    batch: Batch,
    place: usize,
    /// Nobody has looked at the batch as a whole.
    is_fresh: bool,
}

impl RingReceiver {
    /// The oldest packet that waits, without taking it.
    #[inline]
    pub fn head(&mut self) -> Option<&Headers> {
        if self.place == self.batch.len() {
            self.turn()?;
        }
        self.batch.get(self.place)
    }

    /// Place of the oldest packet in its batch, below [`BATCH_PACKETS_MAX`].
    #[inline]
    pub fn place(&self) -> usize {
        self.place
    }

    /// All packets of the batch whose packet is next, once for each batch.
    #[inline]
    pub fn fresh_batch(&mut self) -> Option<&[Headers]> {
        std::mem::take(&mut self.is_fresh).then_some(&self.batch)
    }

    /// Takes the packet that [`RingReceiver::head`] showed.
    #[inline]
    pub fn advance(&mut self) {
        self.place = (self.place + 1).min(self.batch.len());
    }

    /// The producer's clock. Read it before looking for packets: once the ring is empty after
    /// that, nothing older is to come.
    #[inline]
    pub fn clock(&self) -> Timestamp {
        Timestamp(self.shared.clock.load(Ordering::Acquire))
    }

    /// How far the producer had read when it closed the ring; 0 before.
    pub fn last_clock(&self) -> Timestamp {
        Timestamp(self.shared.last_clock.load(Ordering::Relaxed))
    }

    fn turn(&mut self) -> Option<()> {
        let next = self.shared.full.pop()?;
        let mut used = std::mem::replace(&mut self.batch, next);
        used.clear();
        (self.place, self.is_fresh) = (0, true);
        // The ring of empty batches has room for all that exist.
        let _ = self.shared.empty.push(used);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u64) -> Headers {
        Headers { timestamp: Timestamp(number), ..Headers::default() }
    }

    #[test]
    fn packets_come_out_in_order_across_threads() {
        let (mut sender, mut receiver) = ring(256);
        let producer = std::thread::spawn(move || {
            for number in 0..10_000 {
                while !sender.push(&numbered(number)) {
                    std::thread::yield_now();
                }
            }
            while !sender.flush() {
                std::thread::yield_now();
            }
            sender.close(Timestamp(77));
        });
        let mut expected = 0;
        while expected < 10_000 {
            match receiver.head() {
                Some(headers) => {
                    assert_eq!(headers.timestamp.0, expected);
                    receiver.advance();
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        producer.join().expect("the producer ends");
        assert_eq!((receiver.head().is_none(), receiver.clock()), (true, CLOSED));
        assert_eq!(receiver.last_clock(), Timestamp(77));
    }

    #[test]
    fn a_batch_is_fresh_once() {
        let (mut sender, mut receiver) = ring(256);
        for number in 0..BATCH_PACKETS_MAX as u64 + 2 {
            assert!(sender.push(&numbered(number)));
        }
        assert!(sender.flush());
        assert!(receiver.fresh_batch().is_none(), "nothing was asked for");
        for batch_packets in [BATCH_PACKETS_MAX, 2] {
            for place in 0..batch_packets {
                assert!(receiver.head().is_some());
                assert_eq!(receiver.place(), place);
                let fresh = receiver.fresh_batch().map(<[Headers]>::len);
                assert_eq!(fresh, (place == 0).then_some(batch_packets));
                receiver.advance();
            }
        }
        assert!(receiver.head().is_none());
    }

    #[test]
    fn no_clock_closes_the_ring() {
        let (sender, receiver) = ring(256);
        for clock in [u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            sender.publish(Timestamp(clock));
            assert!(receiver.clock() < QUIET && receiver.clock().0 >= u64::MAX / 2);
        }
    }

    #[test]
    fn a_full_ring_refuses_and_keeps_what_it_has() {
        let (mut sender, mut receiver) = ring(128);
        let mut pushed = 0;
        while sender.push(&numbered(pushed)) {
            pushed += 1;
            assert!(pushed < 1_000);
        }
        let mut taken = 0;
        while receiver.head().is_some() {
            receiver.advance();
            taken += 1;
        }
        assert!(sender.flush());
        while receiver.head().is_some() {
            receiver.advance();
            taken += 1;
        }
        assert_eq!(taken, pushed);
    }
}
