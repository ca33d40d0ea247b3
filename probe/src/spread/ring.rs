//! Rings between workers: packets in batches, single producer and single consumer.
//!
//! In: packets that another worker owns, in brief or with all headers, few with their payload. Out: the
//! same, in order.
//! Cost: one copy of 128 octets, of 192 where all headers go; once a batch two lines of the ring itself.
//! Invariants: `ring_packets` at most wait in a ring; batches are made once and come back; no
//! clock that is published is taken for [`QUIET`] or [`CLOSED`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::atomic::AtomicCell;
use crossbeam::utils::CachePadded;

use crate::decode::brief::InBrief;
use crate::decode::{Brief, Headers};
use crate::memory;
use crate::time::Timestamp;

/// Packets that one batch holds at most.
pub const BATCH_PACKETS_MAX: usize = 64;

/// Octets of a payload that goes along at most.
pub const PAYLOAD_OCTETS_MAX: usize = 2_048;

/// Octets of all payload in a batch; what finds no room there stays behind.
const BATCH_PAYLOAD_OCTETS: usize = 16 << 10;

/// Bytes of that room for each packet of a ring.
pub const PAYLOAD_BYTES_PER_PACKET: usize = BATCH_PAYLOAD_OCTETS / BATCH_PACKETS_MAX;

/// How far ahead memory is asked for, which the worker at the other end touched last.
pub const AHEAD_PACKETS: usize = 16;

/// Clock of a ring of which nothing is expected.
pub const QUIET: Timestamp = Timestamp(u64::MAX - 1);

/// Clock of a ring that is closed.
pub const CLOSED: Timestamp = Timestamp(u64::MAX);

/// A packet on its way.
#[derive(Clone, Copy, Debug)]
pub enum Passed<'a> {
    /// Of the common shape.
    InBrief(&'a InBrief),
    /// Any other.
    Headers(&'a Headers),
}

impl Passed<'_> {
    /// The largest receive time of its source up to it.
    #[inline]
    pub const fn clock(self) -> Timestamp {
        match self {
            Self::InBrief(packet) => packet.brief().clock,
            Self::Headers(headers) => headers.clock,
        }
    }

    /// Hash of its flow's key.
    #[inline]
    pub const fn hash(self) -> u64 {
        match self {
            Self::InBrief(packet) => packet.brief().hash,
            Self::Headers(headers) => headers.hash,
        }
    }

    /// Has its memory fetched.
    #[inline]
    pub fn fetch(self) {
        match self {
            Self::InBrief(packet) => memory::fetch(packet),
            Self::Headers(headers) => memory::fetch(headers),
        }
    }
}

/// Packets that go together.
#[derive(Debug)]
pub struct Batch {
    /// Packet `n` stands in the place `n` of its kind. There always is some, but while it changes hands.
    memory: Memory,
    /// What stands there.
    told: Told,
}

/// What tells of the packets of a batch. It goes with the ring's own place, so that beside packets no line
/// more is touched at the other end.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// A bit for each packet: it is in brief.
    in_brief: u64,
    /// The same: payload of it goes along.
    with_payload: u64,
    count: usize,
}

/// Where the payload of a packet stands.
#[derive(Clone, Copy, Debug)]
struct PayloadPlace {
    /// Number of the packet.
    of: usize,
    begin: usize,
    end: usize,
}

const _: () = assert!(BATCH_PACKETS_MAX <= u64::BITS as usize, "a bit for each packet");

/// What changes hands in one word.
type Memory = Option<Box<BatchMemory>>;

#[derive(Debug)]
struct BatchMemory {
    in_brief: [InBrief; BATCH_PACKETS_MAX],
    headers: [Headers; BATCH_PACKETS_MAX],
    /// Payload of some of them.
    payloads: Vec<u8>,
    /// Of which packets, in order.
    payload_places: Vec<PayloadPlace>,
}

impl BatchMemory {
    /// With room for so much payload.
    fn new(payload_octets: usize) -> Memory {
        let places = if payload_octets == 0 { 0 } else { BATCH_PACKETS_MAX };
        Some(Box::new(Self {
            in_brief: [InBrief::default(); BATCH_PACKETS_MAX],
            headers: [Headers::default(); BATCH_PACKETS_MAX],
            payloads: Vec::with_capacity(payload_octets),
            payload_places: Vec::with_capacity(places),
        }))
    }
}

impl Batch {
    /// Of no packets.
    fn empty(payload_octets: usize) -> Self {
        Self { memory: BatchMemory::new(payload_octets), told: Told::default() }
    }

    /// How many packets there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.told.count
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.told.count == 0
    }

    /// One of them, in order.
    #[inline]
    pub fn get(&self, number: usize) -> Option<Passed<'_>> {
        let memory = self.memory.as_deref().filter(|_| number < self.told.count)?;
        if self.told.in_brief & bit_of(number) == 0 {
            memory.headers.get(number).map(Passed::Headers)
        } else {
            memory.in_brief.get(number).map(Passed::InBrief)
        }
    }

    /// Adds a packet; there is room.
    #[inline]
    fn push(&mut self, headers: &Headers) {
        let (Some(memory), number) = (&mut self.memory, self.told.count) else { return };
        if let Some(place) = memory.headers.get_mut(number) {
            *place = *headers;
            self.told.count += 1;
        }
        if let Some(later) = memory.headers.get(number + AHEAD_PACKETS) {
            memory::fetch_to_write(later);
        }
    }

    /// The same of the common shape. What follows `next` after it is filled.
    #[inline]
    fn push_in_brief(&mut self, brief: &Brief, packet: &[u8], next: &Memory) {
        let (Some(memory), number) = (&mut self.memory, self.told.count) else { return };
        if let Some(place) = memory.in_brief.get_mut(number) {
            place.write(brief, packet);
            self.told.in_brief |= bit_of(number);
            self.told.count += 1;
        }
        if let Some(later) = memory.in_brief.get(number + AHEAD_PACKETS) {
            memory::fetch_to_write(later);
        }
        // Where it begins nothing was fetched from the batch before, which may end any time.
        if number < AHEAD_PACKETS
            && let Some(place) = next.as_ref().and_then(|next| next.in_brief.get(number))
        {
            memory::fetch_to_write(place);
        }
    }

    /// Adds payload to the packet that was added last, as much of it as there may be; where there is no
    /// room for it, it stays behind.
    #[cold]
    fn keep_payload(&mut self, payload: &[u8]) {
        let Some(memory) = &mut self.memory else { return };
        let BatchMemory { payloads, payload_places, .. } = &mut **memory;
        if self.told.with_payload == 0 {
            payloads.clear();
            payload_places.clear();
        }
        let kept = payload.get(..payload.len().min(PAYLOAD_OCTETS_MAX)).unwrap_or_default();
        let (begin, end) = (payloads.len(), payloads.len() + kept.len());
        let Some(of) = self.told.count.checked_sub(1) else { return };
        let has_room =
            end <= payloads.capacity() && payload_places.len() < payload_places.capacity();
        if has_room && !kept.is_empty() {
            payloads.extend_from_slice(kept);
            payload_places.push(PayloadPlace { of, begin, end });
            self.told.with_payload |= bit_of(of);
        }
    }

    /// Payload that goes along with a packet; empty where none does.
    #[inline]
    fn payload(&self, number: usize) -> &[u8] {
        // Where it stands was written by another core last, and is asked for only where it is wanted.
        if self.told.with_payload & bit_of(number) == 0 {
            return &[];
        }
        let Some(memory) = &self.memory else { return &[] };
        let BatchMemory { payloads, payload_places, .. } = &**memory;
        let found = payload_places.binary_search_by_key(&number, |place| place.of);
        let place = found.ok().and_then(|at| payload_places.get(at));
        place.and_then(|place| payloads.get(place.begin..place.end)).unwrap_or_default()
    }
}

/// The bit of a packet of a batch.
#[inline]
const fn bit_of(number: usize) -> u64 {
    1 << (number % BATCH_PACKETS_MAX)
}

/// A place of the ring: a batch that waits, or one that was read and waits to be filled. Whoever comes to
/// it leaves the one and takes the other.
struct Place {
    memory: AtomicCell<Memory>,
    in_brief: AtomicU64,
    with_payload: AtomicU64,
    count: AtomicUsize,
}

impl Place {
    fn new(payload_octets: usize) -> Self {
        Self {
            memory: AtomicCell::new(BatchMemory::new(payload_octets)),
            in_brief: AtomicU64::new(0),
            with_payload: AtomicU64::new(0),
            count: AtomicUsize::new(0),
        }
    }

    /// Leaves a batch, for the memory of one that was read.
    fn leave(&self, filled: Memory, told: Told) -> Memory {
        self.in_brief.store(told.in_brief, Ordering::Relaxed);
        self.with_payload.store(told.with_payload, Ordering::Relaxed);
        self.count.store(told.count, Ordering::Relaxed);
        self.memory.swap(filled)
    }

    /// Takes the batch, for the memory of one that was read.
    fn take(&self, read: Memory) -> Batch {
        let told = Told {
            in_brief: self.in_brief.load(Ordering::Relaxed),
            with_payload: self.with_payload.load(Ordering::Relaxed),
            count: self.count.load(Ordering::Relaxed),
        };
        Batch { memory: self.memory.swap(read), told }
    }
}

const _: () = assert!(AtomicCell::<Memory>::is_lock_free(), "a word");

struct Shared {
    places: Box<[CachePadded<Place>]>,
    sent: CachePadded<Sent>,
    /// Batches that were taken, by the consumer.
    taken: CachePadded<AtomicUsize>,
}

/// What the producer says, on one line.
#[derive(Default)]
struct Sent {
    /// Batches that were sent.
    batches: AtomicUsize,
    /// The producer's clock: all packets up to it are in the ring.
    clock: AtomicU64,
    /// The producer's clock when it closed the ring.
    last_clock: AtomicU64,
}

/// Where one end is in the ring.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// Batches that passed.
    batches: usize,
    /// The next place.
    place: usize,
    /// As many as the other end was last seen to have let pass.
    other: usize,
}

impl Position {
    fn step(&mut self, places: usize) {
        self.batches = self.batches.wrapping_add(1);
        self.place = if self.place + 1 == places { 0 } else { self.place + 1 };
    }
}

/// Makes a ring that holds about `packets` (at least two batches), without their payload.
pub fn ring(packets: usize) -> (RingSender, RingReceiver) {
    ring_of(packets, 0)
}

/// The same with room for the payload of some.
pub fn ring_with_payloads(packets: usize) -> (RingSender, RingReceiver) {
    ring_of(packets, BATCH_PAYLOAD_OCTETS)
}

fn ring_of(packets: usize, payload_octets: usize) -> (RingSender, RingReceiver) {
    let batches = (packets / BATCH_PACKETS_MAX).max(2);
    let shared = Arc::new(Shared {
        places: (0..batches).map(|_| CachePadded::new(Place::new(payload_octets))).collect(),
        sent: CachePadded::default(),
        taken: CachePadded::default(),
    });
    let sender = RingSender {
        open: Batch::empty(payload_octets),
        next: BatchMemory::new(payload_octets),
        position: Position::default(),
        shared: Arc::clone(&shared),
    };
    let receiver = RingReceiver {
        shared,
        batch: Batch::empty(payload_octets),
        position: Position::default(),
        place: 0,
        is_fresh: false,
    };
    (sender, receiver)
}

/// The producing end, owned by the worker that received the packets.
pub struct RingSender {
    open: Batch,
    /// What is filled next; its beginning is fetched meanwhile.
    next: Memory,
    position: Position,
    shared: Arc<Shared>,
}

impl RingSender {
    /// Adds a packet; `false` if the batch is full and the ring has no room: nothing was added.
    #[inline]
    pub fn push(&mut self, headers: &Headers) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.open.push(headers);
        }
        has_room
    }

    /// The same of a packet of the common shape, whose flow is named, from its IPv4 header on.
    #[inline]
    pub fn push_in_brief(&mut self, brief: &Brief, packet: &[u8]) -> bool {
        let has_room = self.has_room();
        if has_room {
            self.open.push_in_brief(brief, packet, &self.next);
        }
        has_room
    }

    /// Has payload go along with the packet that was just pushed.
    #[inline]
    pub fn keep_payload(&mut self, payload: &[u8]) {
        if !payload.is_empty() {
            self.open.keep_payload(payload);
        }
    }

    /// Whether a packet can be added, where need be to the next batch.
    #[inline]
    fn has_room(&mut self) -> bool {
        self.open.len() < BATCH_PACKETS_MAX || self.flush()
    }

    /// Hands the open batch over; `false` if the ring has no room, and the batch stays open.
    pub fn flush(&mut self) -> bool {
        if self.open.is_empty() {
            return true;
        }
        let Shared { places, sent, taken } = &*self.shared;
        let position = &mut self.position;
        if position.batches.wrapping_sub(position.other) == places.len() {
            // The other end's line is looked at only where it matters.
            position.other = taken.load(Ordering::Acquire);
            if position.batches.wrapping_sub(position.other) == places.len() {
                return false;
            }
        }
        let memory = std::mem::replace(&mut self.open.memory, self.next.take());
        let told = std::mem::take(&mut self.open.told);
        self.next = places.get(position.place).and_then(|place| place.leave(memory, told));
        position.step(places.len());
        sent.batches.store(position.batches, Ordering::Release);
        true
    }

    /// Says that all packets received up to `clock` are handed over. Call after a flush that
    /// succeeded; with an open batch it says nothing.
    #[inline]
    pub fn publish(&self, clock: Timestamp) {
        if self.open.is_empty() {
            self.shared.sent.clock.store(clock.0.min(QUIET.0 - 1), Ordering::Release);
        }
    }

    /// Says that nothing is expected: nobody need wait for this ring until it is published again.
    #[inline]
    pub fn publish_quiet(&self) {
        if self.open.is_empty() {
            self.shared.sent.clock.store(QUIET.0, Ordering::Release);
        }
    }

    /// Says that nothing will come any more; `clock` is how far the producer has read.
    pub fn close(&self, clock: Timestamp) {
        self.shared.sent.last_clock.store(clock.0, Ordering::Relaxed);
        self.shared.sent.clock.store(CLOSED.0, Ordering::Release);
    }
}

/// The consuming end, owned by the worker that owns the flows.
pub struct RingReceiver {
    shared: Arc<Shared>,
    batch: Batch,
    position: Position,
    place: usize,
    /// Nobody has looked at the batch as a whole.
    is_fresh: bool,
}

impl RingReceiver {
    /// The oldest packet that waits, without taking it.
    #[inline]
    pub fn head(&mut self) -> Option<Passed<'_>> {
        if self.place == self.batch.len() {
            self.turn()?;
        }
        self.batch.get(self.place)
    }

    /// The next packet of the batch if it is in brief and came alone; no other batch is turned to.
    #[inline]
    pub fn next_in_brief(&self) -> Option<&InBrief> {
        match self.batch.get(self.place) {
            Some(Passed::InBrief(packet))
                if self.batch.told.with_payload & bit_of(self.place) == 0 =>
            {
                Some(packet)
            }
            _ => None,
        }
    }

    /// Payload that came along with the packet that [`RingReceiver::head`] showed.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.batch.payload(self.place)
    }

    /// Place of the oldest packet in its batch, below [`BATCH_PACKETS_MAX`].
    #[inline]
    pub fn place(&self) -> usize {
        self.place
    }

    /// All packets of the batch whose packet is next, once for each batch.
    #[inline]
    pub fn fresh_batch(&mut self) -> Option<&Batch> {
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
        Timestamp(self.shared.sent.clock.load(Ordering::Acquire))
    }

    /// How far the producer had read when it closed the ring; 0 before.
    pub fn last_clock(&self) -> Timestamp {
        Timestamp(self.shared.sent.last_clock.load(Ordering::Relaxed))
    }

    fn turn(&mut self) -> Option<()> {
        let Shared { places, sent, taken } = &*self.shared;
        let position = &mut self.position;
        if position.batches == position.other {
            position.other = sent.batches.load(Ordering::Acquire);
            if position.batches == position.other {
                return None;
            }
        }
        self.batch = places.get(position.place)?.take(self.batch.memory.take());
        (self.place, self.is_fresh) = (0, true);
        position.step(places.len());
        taken.store(position.batches, Ordering::Release);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u64) -> Headers {
        Headers { clock: Timestamp(number), ..Headers::default() }
    }

    #[test]
    fn packets_come_out_in_order_across_threads() {
        let (mut sender, mut receiver) = ring(256);
        let producer = std::thread::spawn(move || {
            for number in 0..10_000 {
                let clock = Timestamp(number);
                let brief = Brief { clock, ..Brief::default() };
                while if number % 3 == 0 {
                    !sender.push_in_brief(&brief, &[7; 40])
                } else {
                    !sender.push(&numbered(number))
                } {
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
                Some(packet) => {
                    assert_eq!(packet.clock().0, expected);
                    // Each kind is what was sent.
                    assert_eq!(matches!(packet, Passed::InBrief(_)), expected % 3 == 0);
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
                let fresh = receiver.fresh_batch().map(Batch::len);
                assert_eq!(fresh, (place == 0).then_some(batch_packets));
                receiver.advance();
            }
        }
        assert!(receiver.head().is_none());
    }

    #[test]
    fn payload_comes_out_with_its_packet() {
        let (mut sender, mut receiver) = ring_with_payloads(256);
        let long = vec![9; PAYLOAD_OCTETS_MAX + 1];
        let payloads: [&[u8]; 4] = [b"one", b"", &long, b"four"];
        for payload in payloads {
            assert!(sender.push(&numbered(1)));
            sender.keep_payload(payload);
        }
        assert!(sender.flush());
        for wanted in payloads {
            assert!(receiver.head().is_some());
            let kept = wanted.get(..wanted.len().min(PAYLOAD_OCTETS_MAX));
            assert_eq!(Some(receiver.payload()), kept);
            receiver.advance();
        }
        // What finds no room stays behind, and the packet goes all the same.
        for _ in 0..BATCH_PACKETS_MAX {
            assert!(sender.push(&numbered(1)));
            sender.keep_payload(&long);
        }
        assert!(sender.flush());
        let (mut packets, mut with_payload) = (0, 0);
        while receiver.head().is_some() {
            packets += 1;
            with_payload += usize::from(!receiver.payload().is_empty());
            receiver.advance();
        }
        assert_eq!(with_payload, BATCH_PAYLOAD_OCTETS / PAYLOAD_OCTETS_MAX);
        assert_eq!(packets, BATCH_PACKETS_MAX);
        let (mut sender, mut receiver) = ring(256);
        assert!(sender.push(&numbered(1)));
        sender.keep_payload(b"one");
        assert!(sender.flush() && receiver.head().is_some() && receiver.payload().is_empty());
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
