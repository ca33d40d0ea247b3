//! Where a flow is: buckets of tags over a dense slab.
//!
//! In: packets whose flow is named ([`Packet`]): hash, key, sender. Out: [`FlowIndex`] into the slab.
//! Cost: one cache line for the bucket and the flow's own two on a hit; all memory is there from
//! `new` on.
//! Invariants: one slot per live key; at most `slots` flows; an index stays valid until its flow is
//! removed; a look-up reads at most `PROBES_MAX` buckets.
//! Source: bucketised hashing with tags as in Cuckoo++ (Le Scouarnec 2018) and F14, without moves.

use crate::index::{FlowIndex, Sender};
use crate::memory;

use super::packet::Packet;
use super::state::{Flow, Rest, low};

const WAYS: usize = 12;

/// Buckets that a key may lie in, from its home on.
const PROBES_MAX: usize = 8;

/// Flows for each bucket on average when the table is full.
const LOAD_PER_BUCKET: usize = 8;

/// The tag of a way without flow.
const FREE_TAG: u8 = 0;

/// The octets of [`Bucket::last_tags`]; those above are no ways.
const LAST_WAYS: u64 = 0xffff_ffff;

/// Behind the last free slot.
const NO_SLOT: u32 = u32::MAX;

/// One cache line: tags are compared before any flow is touched.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u8; WAYS],
    flows: [u32; WAYS],
    /// Flows whose home this is and that lie further on; a look-up goes on while it is not 0.
    overflowed: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Self = Self { tags: [FREE_TAG; WAYS], flows: [0; WAYS], overflowed: 0 };

    /// The tags of the first eight ways.
    #[inline]
    const fn first_tags(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.tags;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Where a flow probably is, as far as the first eight ways know: they know of nearly all.
    #[inline]
    fn guess_in_front(&self, hash: u64) -> Option<Guess> {
        let matches = equal_octets(self.first_tags(), tag_of(hash));
        let way = matches.trailing_zeros() as usize / 8;
        if matches == 0 { None } else { Some(Guess(self.flows[way])) }
    }

    /// The same of one of which these know nothing.
    #[inline]
    fn guess_behind(&self, hash: u64) -> Guess {
        if self.last_tags() == 0 { Guess::NONE } else { self.guess_among_last(hash) }
    }

    #[cold]
    fn guess_among_last(&self, hash: u64) -> Guess {
        Guess(self.candidates(tag_of(hash)).next().unwrap_or(NO_SLOT))
    }

    /// The tags of the others; above them stands nothing.
    #[inline]
    const fn last_tags(&self) -> u64 {
        let [.., i, j, k, l] = self.tags;
        u32::from_le_bytes([i, j, k, l]) as u64
    }

    /// Whether no flow here has a tag, and none lies further on.
    #[inline]
    const fn knows_nothing_of(&self, tag: u8) -> bool {
        let last = self.last_tags();
        equal_octets(self.first_tags(), tag) == 0
            && (last == 0 || equal_octets(last, tag) & LAST_WAYS == 0)
            && self.overflowed == 0
    }

    /// The first way without flow.
    #[inline]
    const fn free_way(&self) -> Option<usize> {
        // Of the matches the lowest is none by mistake.
        let first = equal_octets(self.first_tags(), FREE_TAG);
        if first != 0 {
            return Some(first.trailing_zeros() as usize / 8);
        }
        let last = equal_octets(self.last_tags(), FREE_TAG) & LAST_WAYS;
        if last == 0 { None } else { Some(8 + last.trailing_zeros() as usize / 8) }
    }

    /// The flows that a tag may belong to.
    #[inline]
    fn candidates(&self, tag: u8) -> Candidates<'_> {
        let matches = equal_octets(self.first_tags(), tag);
        let mut candidates = Candidates { bucket: self, tag, base: 0, matches };
        if matches == 0 {
            candidates.go_on();
        }
        candidates
    }
}

/// The high bit of each octet of `word` that equals `octet`, and perhaps of some above one that
/// does: whoever asks compares the keys anyway.
#[inline]
const fn equal_octets(word: u64, octet: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let differences = word ^ (ONES * octet as u64);
    differences.wrapping_sub(ONES) & !differences & (ONES << 7)
}

/// Ways are taken from the first on, so the first eight are looked at first.
struct Candidates<'a> {
    bucket: &'a Bucket,
    tag: u8,
    base: usize,
    matches: u64,
}

impl Candidates<'_> {
    /// To the last four ways.
    #[inline]
    fn go_on(&mut self) {
        if self.base == 0 {
            self.matches = equal_octets(self.bucket.last_tags(), self.tag) & LAST_WAYS;
            self.base = 8;
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.matches == 0 {
            self.go_on();
        }
        // Without a match this is beyond all ways.
        let way = self.base + self.matches.trailing_zeros() as usize / 8;
        self.matches &= self.matches.wrapping_sub(1);
        self.bucket.flows.get(way).copied()
    }
}

/// Flow table of one worker.
pub struct FlowTable {
    /// A power of two, at least one.
    buckets: memory::Table<Bucket>,
    flows: memory::Table<Flow>,
    rests: memory::Table<Rest>,
    /// Slots below were used at some time.
    used: usize,
    first_free: u32,
    live: usize,
}

/// Why a flow finds no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFull {
    /// All slots are in use.
    Slots,
    /// Too many flows want the same few buckets; this one is a neighbour that could leave.
    Bucket(FlowIndex),
}

impl FlowTable {
    /// For at most `slots` flows, up to 2³¹.
    pub fn new(slots: u32) -> Self {
        let slots = slots as usize;
        let buckets = slots.div_ceil(LOAD_PER_BUCKET).max(1).next_power_of_two();
        Self {
            buckets: memory::table(buckets, Bucket::EMPTY),
            flows: memory::table(slots, Flow::default()),
            rests: memory::table(slots, Rest::default()),
            used: 0,
            first_free: NO_SLOT,
            live: 0,
        }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + size_of_val(&*self.flows) + size_of_val(&*self.rests)
    }

    /// Live flows.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no flow is live.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Slots that were ever used; indices are below it.
    pub fn slots_used(&self) -> usize {
        self.used
    }

    /// Flows at most.
    pub fn slots(&self) -> usize {
        self.flows.len()
    }

    /// Has the key's home bucket fetched, while other packets of the burst are looked at.
    #[inline]
    pub fn fetch_bucket(&self, hash: u64) {
        memory::fetch_at(&self.buckets, self.home(low(hash)));
    }

    /// The same for the flow in a slot.
    #[inline]
    pub(super) fn fetch_bucket_of(&self, slot: usize) {
        if let Some(flow) = self.flows.get(slot) {
            memory::fetch_at(&self.buckets, self.home(flow.hash));
        }
    }

    /// Where the key's flow probably is, from tags alone. To be given to [`FlowTable::find`].
    #[inline]
    pub fn guess(&self, hash: u64) -> Guess {
        let bucket = &self.buckets[self.home(low(hash))];
        let known = bucket.guess_in_front(hash);
        known.unwrap_or_else(|| bucket.guess_behind(hash))
    }

    /// The same, and both lines of the flow are fetched.
    #[inline]
    pub fn guess_and_fetch(&self, hash: u64) -> Guess {
        let bucket = &self.buckets[self.home(low(hash))];
        let Some(guess) = bucket.guess_in_front(hash) else {
            let guess = bucket.guess_behind(hash);
            self.fetch(guess);
            return guess;
        };
        memory::fetch_at(&self.flows, guess.0 as usize);
        guess
    }

    /// Has both lines of the flow that was guessed fetched.
    #[inline]
    pub fn fetch(&self, guess: Guess) {
        if let Some(flow) = self.guessed(guess) {
            memory::fetch(flow);
        }
    }

    /// Asks once more for the line of the flow that was guessed by which it is found. A processor drops
    /// what it is asked to fetch while it waits for too many lines, and nothing else looks at this one
    /// before the packet's turn.
    #[inline]
    pub fn fetch_again(&self, guess: Guess) {
        if let Some(flow) = self.guessed(guess) {
            memory::fetch(&flow.identity);
        }
    }

    /// Has what only beginnings and endings touch fetched, where the next packet of `sender` may be one.
    /// The flow's own lines are there.
    #[inline]
    pub fn fetch_rest(&self, guess: Guess, sender: Sender) {
        if self.guessed(guess).is_some_and(|flow| flow.may_ask_rest(sender))
            && let Some(rest) = self.rests.get(guess.0 as usize)
        {
            memory::fetch(rest);
        }
    }

    /// The flow that was guessed; perhaps another's than the packet's.
    #[inline]
    pub fn guessed(&self, guess: Guess) -> Option<&Flow> {
        self.flows.get(guess.0 as usize)
    }

    /// The same, to change.
    #[inline]
    pub(super) fn guessed_mut(&mut self, guess: Guess) -> Option<&mut Flow> {
        self.flows.get_mut(guess.0 as usize)
    }

    /// The flow of a packet; `guess` is tried first.
    #[inline]
    pub(super) fn find(&self, packet: &impl Packet, guess: Guess) -> Option<FlowIndex> {
        let guessed = self.guessed(guess);
        if guessed.is_some_and(|flow| packet.is_of(&flow.identity.key)) {
            return Some(FlowIndex(guess.0));
        }
        let bucket = &self.buckets[self.home(low(packet.hash()))];
        // Of most packets without a flow nobody in their bucket has the tag.
        if bucket.knows_nothing_of(tag_of(packet.hash())) {
            return None;
        }
        self.search(packet)
    }

    #[inline(never)]
    fn search(&self, packet: &impl Packet) -> Option<FlowIndex> {
        let tag = tag_of(packet.hash());
        let home = self.home(low(packet.hash()));
        for probe in 0..PROBES_MAX {
            let bucket = &self.buckets[(home + probe) & self.mask()];
            for flow in bucket.candidates(tag) {
                if packet.is_of(&self.flows[flow as usize].identity.key) {
                    return Some(FlowIndex(flow));
                }
            }
            if bucket.overflowed == 0 {
                return None;
            }
        }
        None
    }

    /// Takes a slot for a flow whose key is not there yet; the caller writes the flow.
    ///
    /// # Errors
    /// [`TableFull`], and nothing was taken.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "called once, where a flow begins")]
    pub fn insert(&mut self, hash: u64) -> Result<FlowIndex, TableFull> {
        let home = self.home(low(hash));
        if let Some(way) = self.buckets[home].free_way() {
            return self.insert_at(hash, home, way);
        }
        self.insert_behind(hash, home)
    }

    #[inline]
    fn insert_at(&mut self, hash: u64, place: usize, way: usize) -> Result<FlowIndex, TableFull> {
        let index = self.take_slot().ok_or(TableFull::Slots)?;
        let bucket = &mut self.buckets[place];
        bucket.flows[way] = index.0;
        bucket.tags[way] = tag_of(hash);
        self.live += 1;
        Ok(index)
    }

    /// The same where the home bucket is full.
    #[cold]
    fn insert_behind(&mut self, hash: u64, home: usize) -> Result<FlowIndex, TableFull> {
        let room = (1..PROBES_MAX).find_map(|probe| {
            let place = (home + probe) & self.mask();
            self.buckets[place].free_way().map(|way| (probe, place, way))
        });
        let Some((probe, place, way)) = room else {
            return Err(TableFull::Bucket(FlowIndex(self.buckets[home].flows[0])));
        };
        let index = self.insert_at(hash, place, way)?;
        self.count_overflow(home, probe, 1);
        Ok(index)
    }

    #[inline]
    fn take_slot(&mut self) -> Option<FlowIndex> {
        if let Some(free) = self.flows.get(self.first_free as usize) {
            let index = FlowIndex(self.first_free);
            self.first_free = free.hash;
            self.fetch_slot(self.first_free as usize);
            return Some(index);
        }
        let index = u32::try_from(self.used).ok().filter(|_| self.used < self.flows.len())?;
        self.used += 1;
        self.fetch_slot(self.used);
        Some(FlowIndex(index))
    }

    /// The slot that the next flow will take; beyond all where none is free.
    #[inline]
    pub(super) const fn next_slot(&self) -> usize {
        if self.first_free == NO_SLOT { self.used } else { self.first_free as usize }
    }

    /// Has a slot fetched that the next flow will take.
    #[inline]
    fn fetch_slot(&self, slot: usize) {
        if let (Some(flow), Some(rest)) = (self.flows.get(slot), self.rests.get(slot)) {
            memory::fetch(flow);
            memory::fetch(rest);
        }
    }

    /// Has the flow in a slot fetched that may be over.
    #[inline]
    pub(super) fn fetch_flow(&self, index: FlowIndex) {
        self.fetch_slot(index.0 as usize);
    }

    /// Takes a flow out; its index may be given to another flow from now on.
    pub fn remove(&mut self, index: FlowIndex) {
        let home = self.home(self.flows[index.0 as usize].hash);
        for probe in 0..PROBES_MAX {
            let place = (home + probe) & self.mask();
            let bucket = &mut self.buckets[place];
            let way =
                (0..WAYS).find(|&way| bucket.flows[way] == index.0 && bucket.tags[way] != FREE_TAG);
            if let Some(way) = way {
                bucket.tags[way] = FREE_TAG;
                self.count_overflow(home, probe, -1);
                let flow = &mut self.flows[index.0 as usize];
                flow.end();
                flow.hash = self.first_free;
                self.first_free = index.0;
                self.live -= 1;
                return;
            }
        }
    }

    /// Takes all flows out, each of which [`Flow::end`] has ended: no bucket is looked for.
    pub(super) fn clear(&mut self) {
        self.buckets.fill(Bucket::EMPTY);
        (self.used, self.first_free, self.live) = (0, NO_SLOT, 0);
    }

    /// The flow at an index that this table gave; it may be a dead one if it was removed since.
    #[inline]
    pub fn flow(&self, index: FlowIndex) -> &Flow {
        &self.flows[index.0 as usize]
    }

    /// The same, to change.
    #[inline]
    pub fn flow_mut(&mut self, index: FlowIndex) -> &mut Flow {
        &mut self.flows[index.0 as usize]
    }

    /// What is seldom touched of a flow.
    #[inline]
    pub(super) fn rest(&self, index: FlowIndex) -> &Rest {
        &self.rests[index.0 as usize]
    }

    /// A flow with what is seldom touched of it, to change.
    #[inline]
    pub(super) fn both_mut(&mut self, index: FlowIndex) -> (&mut Flow, &mut Rest) {
        (&mut self.flows[index.0 as usize], &mut self.rests[index.0 as usize])
    }

    /// Each bucket from the home up to the one before where the flow lies was passed over.
    fn count_overflow(&mut self, home: usize, probe: usize, by: i32) {
        for passed in 0..probe {
            let place = (home + passed) & self.mask();
            let bucket = &mut self.buckets[place];
            bucket.overflowed = bucket.overflowed.saturating_add_signed(by);
        }
    }

    /// Of a place among the buckets. Made of their number, so that the compiler knows it to be one.
    #[inline]
    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        hash as usize & self.mask()
    }
}

/// Where a flow probably is.
#[derive(Clone, Copy, Debug)]
pub struct Guess(u32);

impl Guess {
    /// The flow.
    #[inline]
    pub(super) const fn index(self) -> FlowIndex {
        FlowIndex(self.0)
    }

    /// Nothing is known.
    pub const NONE: Self = Self(NO_SLOT);

    /// The slot; beyond all of them where nothing is known.
    #[inline]
    pub(super) const fn place(self) -> usize {
        self.0 as usize
    }
}

impl Default for Guess {
    fn default() -> Self {
        Self::NONE
    }
}

/// Bits that pick neither the bucket nor the worker: the low half picks the bucket, and the worker is
/// picked by the highest bits. Never [`FREE_TAG`].
#[inline]
const fn tag_of(hash: u64) -> u8 {
    let [_, _, _, _, tag, ..] = hash.to_le_bytes();
    tag + (tag == FREE_TAG) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Headers;
    use crate::flow::InitiatorMethod;
    use crate::index::{Sender, WindowNumber};
    use crate::spread::{HashSeed, name_flow};

    fn packet(number: u32, seed: HashSeed) -> Headers {
        let mut headers = Headers {
            ip_version: 4,
            source_port: u16::try_from(number & 0xffff).expect("16 bits"),
            destination_port: u16::try_from(number >> 16).expect("16 bits"),
            ..Headers::default()
        };
        name_flow(&mut headers, seed);
        headers
    }

    fn insert(table: &mut FlowTable, packet: &Headers) -> Result<FlowIndex, TableFull> {
        let index = table.insert(packet.hash)?;
        let initiator = (Sender::Low, InitiatorMethod::FirstPacket);
        table.flow_mut(index).begin(packet, initiator, WindowNumber(0));
        Ok(index)
    }

    #[test]
    fn holds_as_many_flows_as_it_has_slots() {
        // The last is the least full of its buckets, the first the most.
        for slots in [1 << 12, 5_000, (1 << 12) + 1] {
            holds(slots);
        }
    }

    fn holds(slots: u32) {
        // Of some 500 other seeds one lets too many of these flows want the same few buckets.
        let seed = HashSeed::fixed();
        let mut table = FlowTable::new(slots);
        let mut indices = Vec::new();
        // Ports 0 and n and ports n and 0 are one key, so numbers stay below 2^16.
        for number in 0..slots {
            indices.push(insert(&mut table, &packet(number, seed)).expect("there is room"));
        }
        assert_eq!(insert(&mut table, &packet(60_000, seed)), Err(TableFull::Slots));
        for number in 0..slots {
            let wanted = packet(number, seed);
            let found = Some(indices[number as usize]);
            assert_eq!(table.find(&wanted, Guess::NONE), found);
            assert_eq!(table.find(&wanted, table.guess(wanted.hash)), found);
        }
        for index in indices {
            table.remove(index);
        }
        assert!(table.is_empty());
        assert!(table.buckets.iter().all(|bucket| bucket.overflowed == 0));
    }

    #[test]
    fn agrees_with_a_map_under_random_operations() {
        let seed = HashSeed::fixed();
        let mut table = FlowTable::new(1 << 8);
        let mut model = std::collections::HashMap::new();
        let mut state = 7_u64;
        let mut guess = Guess::NONE;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = u32::try_from(state >> 55).expect("9 bits");
            let wanted = packet(number, seed);
            // A guess of before may be wrong in any way.
            assert_eq!(table.find(&wanted, guess), model.get(&number).copied());
            guess = table.guess(wanted.hash);
            match model.get(&number) {
                Some(index) => {
                    table.remove(*index);
                    model.remove(&number);
                }
                None => match insert(&mut table, &wanted) {
                    Ok(index) => {
                        model.insert(number, index);
                    }
                    Err(full) => assert!(model.len() > 200, "{full:?} at {}", model.len()),
                },
            }
            assert_eq!(table.len(), model.len());
        }
    }

    #[test]
    fn equal_octets_are_found() {
        assert_eq!(equal_octets(0x0500_0000_0000_0005, 5), 0x8000_0000_0000_0080);
        assert_eq!(equal_octets(u64::MAX, 5), 0);
    }

    #[test]
    fn candidates_are_all_ways_with_the_tag() {
        for ways in [&[][..], &[0], &[7], &[8], &[11], &[0, 3, 8, 11], &[2, 4]] {
            let mut bucket = Bucket::EMPTY;
            for &way in ways {
                (bucket.tags[way], bucket.flows[way]) =
                    (200, 100 + u32::try_from(way).expect("12"));
            }
            let found: Vec<u32> = bucket.candidates(200).collect();
            let wanted: Vec<u32> = ways.iter().map(|&way| bucket.flows[way]).collect();
            assert_eq!(found, wanted);
        }
    }
}
