//! The conversations of one open window.
//!
//! In: rows in blocks. Out: the conversations with their sums, sorted by key.
//! Cost: a row is one hash, one look at the index and four cache lines of its conversation; the
//! rows of a batch are looked up together, so that their memory is fetched at once. Nothing is
//! allocated once a table has held as many conversations before.
//! Invariants: one entry a key; never more entries than the caller allows; the index is at most
//! half full, so a look ends.

use std::cmp::Ordering;
use std::hint::black_box;

use super::{Conversation, ConversationKey, Extras};
use crate::decode::Address;
use crate::hash::fold;
use crate::spread::HashSeed;
use crate::window::{Row, RowBlock};

/// Rows that are looked up together: as many misses as a core has under way.
const BATCH_ROWS: usize = 32;

/// Entries that are sorted in one go.
const PART_ENTRIES: usize = 1 << 15;

/// Places of the smallest index.
const PLACES_MIN: usize = 1_024;

/// Instead of the number of an entry that stands where it belongs.
const IN_ORDER: u32 = u32::MAX;

/// The part of a place that is of the hash.
const TAG: u64 = !0 << 32;

/// Instead of the number of an entry, where there was no room for it.
const FULL: u32 = u32::MAX;

/// A conversation with its key.
pub(super) type Entry = (ConversationKey, Conversation);

/// Conversations by key.
pub(super) struct ConversationTable {
    entries: Vec<Entry>,
    /// High half of the hash above, number of the entry plus one below; 0 is empty. As many as a
    /// power of two.
    places: Vec<u64>,
    order: Vec<Ordered>,
    /// Entries of the rows of the block that is added now.
    numbers: Vec<u32>,
    extras: Extras,
    seed: HashSeed,
}

impl ConversationTable {
    /// Empty.
    pub(super) fn new(seed: HashSeed) -> Self {
        Self {
            entries: Vec::new(),
            places: Vec::new(),
            order: Vec::new(),
            numbers: Vec::new(),
            extras: Extras::default(),
            seed,
        }
    }

    /// Conversations in it.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds the rows of a block. Gives the packets of those that found no room, because it would
    /// have held more than `entries_max`.
    pub(super) fn add(&mut self, block: &RowBlock, entries_max: usize) -> u64 {
        let mut full_packets = 0;
        self.numbers.clear();
        for batch in block.rows.chunks(BATCH_ROWS) {
            self.reserve((self.entries.len() + batch.len()).min(entries_max));
            let mut hashes = [0; BATCH_ROWS];
            self.touch(batch, &mut hashes);
            for (row, hash) in batch.iter().zip(hashes) {
                let number = self.add_one(row, hash, (block.sampling_rate, entries_max));
                if number == FULL {
                    full_packets += row.packets_sum();
                }
                self.numbers.push(number);
            }
        }
        self.add_notes(block);
        full_packets
    }

    /// Adds what was measured in the rows of a block that were just added. Of a row that found no
    /// room it is gone with the packets.
    fn add_notes(&mut self, block: &RowBlock) {
        for note in block.notes.iter() {
            let Some(row) = block.rows.get(note.row()) else { continue };
            let number = self.numbers.get(note.row()).map_or(FULL, |number| *number);
            if let Some((_, conversation)) = self.entries.get_mut(number as usize) {
                self.extras.add(&mut conversation.extra, row.initiator(), *note);
            }
        }
    }

    /// What was measured in the conversations, out of the table.
    pub(super) fn take_extras(&mut self) -> Extras {
        std::mem::take(&mut self.extras)
    }

    /// Forgets all, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.places.fill(0);
    }

    /// Gives all conversations in order of their keys and forgets them: `sorted`, which is empty, takes
    /// their place. Calls `pause` every few milliseconds, because others wait meanwhile.
    pub(super) fn sort_into(&mut self, sorted: &mut Vec<Entry>, mut pause: impl FnMut()) {
        self.order.clear();
        let ordered =
            (0_u32..).zip(&self.entries).map(|(number, (key, _))| Ordered::of(key, number));
        self.order.extend(ordered);
        let entries = &self.entries;
        let compare = |one: &Ordered, other: &Ordered| {
            one.compare(other)
                .then_with(|| entries[one.number as usize].0.cmp(&entries[other.number as usize].0))
        };
        for part in self.order.chunks_mut(PART_ENTRIES) {
            part.sort_unstable_by(compare);
            pause();
        }
        // Only merges: it finds the parts sorted.
        if self.order.len() > PART_ENTRIES {
            self.order.sort_by(compare);
        }
        for first in (0..self.order.len()).step_by(PART_ENTRIES) {
            let end = self.order.len().min(first + PART_ENTRIES);
            (first..end).for_each(|start| self.put_in_order(start));
            pause();
        }
        std::mem::swap(&mut self.entries, sorted);
        self.clear();
    }

    /// Puts each entry of the cycle that begins at `start` where the order wants it.
    fn put_in_order(&mut self, start: usize) {
        let mut place = start;
        loop {
            let from = std::mem::replace(&mut self.order[place].number, IN_ORDER);
            if from == IN_ORDER || from as usize == start {
                return;
            }
            self.entries.swap(place, from as usize);
            place = from as usize;
        }
    }

    /// Reads what the rows of a batch will need, all at once, so that one waits for memory once and
    /// not for each.
    fn touch(&self, batch: &[Row], hashes: &mut [u64; BATCH_ROWS]) {
        let mut found = [0; BATCH_ROWS];
        for ((row, hash), found) in batch.iter().zip(hashes.iter_mut()).zip(&mut found) {
            *hash = hash_of(&ConversationKey::of(row), self.seed);
            *found = self.places[low(*hash) & (self.places.len() - 1)];
        }
        let mut touched = 0;
        for place in &found[..batch.len()] {
            let Some((key, sums)) = number_of(*place).and_then(|number| self.entries.get(number))
            else {
                continue;
            };
            touched ^= key.space.bits() ^ sums.flows ^ sums.late_packets ^ sums.unanswered;
            touched ^= u64::from(sums.tap.0);
        }
        black_box(touched);
    }

    fn add_one(&mut self, row: &Row, hash: u64, (rate, entries_max): (f32, usize)) -> u32 {
        let mask = self.places.len() - 1;
        let mut place = low(hash) & mask;
        while let Some(number) = number_of(self.places[place]) {
            if (self.places[place] ^ hash) & TAG == 0 {
                let (key, conversation) = &mut self.entries[number];
                if key.is_of(row) {
                    conversation.add(row, rate);
                    return short(number);
                }
            }
            place = (place + 1) & mask;
        }
        if self.entries.len() >= entries_max {
            return FULL;
        }
        self.entries.push((ConversationKey::of(row), Conversation::first(row, rate)));
        self.places[place] = (hash & TAG) | self.entries.len() as u64;
        short(self.entries.len() - 1)
    }

    /// Makes room in the index for so many entries.
    fn reserve(&mut self, entries: usize) {
        let needed = (2 * entries).max(PLACES_MIN);
        if needed <= self.places.len() {
            return;
        }
        self.places.clear();
        self.places.resize(needed.next_power_of_two(), 0);
        let mask = self.places.len() - 1;
        for number in 0..self.entries.len() {
            let hash = hash_of(&self.entries[number].0, self.seed);
            let mut place = low(hash) & mask;
            while self.places[place] != 0 {
                place = (place + 1) & mask;
            }
            self.places[place] = (hash & TAG) | (number as u64 + 1);
        }
    }
}

/// The entry that a place names.
#[inline]
const fn number_of(place: u64) -> Option<usize> {
    low(place & !TAG).checked_sub(1)
}

#[inline]
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(FULL)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "what it is masked with is shorter")]
const fn low(hash: u64) -> usize {
    hash as usize
}

/// Hash of a key: every word under a secret one.
#[inline]
fn hash_of(key: &ConversationKey, seed: HashSeed) -> u64 {
    let [s0, s1, s2, s3] = seed.words();
    let ([a, b], [c, d]) = (words(key.source), words(key.destination));
    let ([e, f, g, h, i, j], [k, l, m, n, o, p]) = (key.source_mac.0, key.destination_mac.0);
    let service = u64::from(key.destination_port)
        | u64::from(key.protocol) << 16
        | u64::from(key.ip_version) << 24
        | (key.application as u64) << 32;
    let ends = fold(a ^ s0, b ^ s1) ^ fold(c ^ s2, d ^ s3);
    let what = fold(key.space.bits() ^ s1, service ^ s2);
    let segments = fold(key.segment.bits() ^ s3, key.reverse_segment.bits() ^ s0);
    let macs = fold(
        u64::from_le_bytes([e, f, g, h, i, j, k, l]) ^ s2,
        u64::from_le_bytes([m, n, o, p, 0, 0, 0, 0]) ^ s1,
    );
    fold(ends ^ macs ^ s0, what ^ segments ^ s3)
}

/// Both halves of an address.
#[inline]
const fn words(address: Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}

/// As much of a key as sorts nearly all conversations without a look at them.
#[derive(Clone, Copy)]
struct Ordered {
    ends: u128,
    space: u64,
    number: u32,
}

impl Ordered {
    #[inline]
    fn of(key: &ConversationKey, number: u32) -> Self {
        let (source, destination) =
            (u128::from_be_bytes(key.source.0), u128::from_be_bytes(key.destination.0));
        let short = |address: u128| u32::try_from(address).ok().map(u128::from);
        // From the high bits: whether the address has more than 32 bits, then the address as far as
        // there is room; the same again for the destination where the source is short, and the
        // service where that is short too.
        let ends = match (short(source), short(destination)) {
            (None, _) => LONG | (source >> 1),
            (Some(source), None) => (source << 95) | (LONG >> 33) | (destination >> 34),
            (Some(source), Some(destination)) => {
                let service = u128::from(key.protocol) << 24
                    | u128::from(key.ip_version) << 16
                    | u128::from(key.destination_port);
                (source << 95) | (destination << 62) | (service << 30)
            }
        };
        Self { ends, space: key.space.bits(), number }
    }

    #[inline]
    fn compare(&self, other: &Self) -> Ordering {
        self.space.cmp(&other.space).then(self.ends.cmp(&other.ends))
    }
}

/// The highest bit.
const LONG: u128 = 1 << 127;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::app::Application;
    use crate::decode::Mac;
    use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
    use crate::inventory::{AddressSpace, Segment, SegmentKind};
    use crate::spread::FlowKey;
    use crate::window::{Ends, Notes, RowFacts};

    /// A number that looks drawn, from 0 to below `end`.
    fn draw(state: &mut u64, end: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) % end
    }

    fn block(rows: Vec<Row>) -> RowBlock {
        RowBlock { window: WindowNumber(1), sampling_rate: 0.5, rows, notes: Notes::default() }
    }

    /// A row of so many packets there and back.
    fn made(key: &FlowKey, ends: Ends, packets: [u64; 2]) -> Row {
        let mut row = Row::of(&RowFacts {
            flow: FlowIndex(0),
            key,
            initiator: Sender::Low,
            ends,
            tap: TapIndex(0),
            application: Application::Unknown,
            counts_flow: true,
        });
        for (sender, packets) in [Sender::Low, Sender::High].into_iter().zip(packets) {
            (0..packets).for_each(|_| row.count(sender, 100, false));
        }
        row
    }

    /// One packet each way of the source of that number.
    fn of_source(number: u32) -> Row {
        let low = Address::v4(number.to_be_bytes());
        made(&FlowKey { low, ..FlowKey::default() }, Ends::default(), [1, 1])
    }

    /// Few values of each field, so that rows meet and keys differ in any one of them.
    fn row(state: &mut u64) -> Row {
        let small = |number: u64| u8::try_from(number).expect("small");
        let address = |state: &mut u64| match draw(state, 3) {
            0 => Address::v4([10, 0, 0, small(draw(state, 3))]),
            1 => Address::v4([200, 0, 0, small(draw(state, 2))]),
            _ => {
                let mut long = [0xff; 16];
                (long[15], long[7]) = (small(draw(state, 2)), small(draw(state, 2)));
                Address(long)
            }
        };
        let vlan =
            |state: &mut u64| Segment::new(0, SegmentKind::Vlan, u32::from(small(draw(state, 2))));
        let key = FlowKey {
            space: AddressSpace::of_segment(vlan(state)),
            low: address(state),
            high: address(state),
            protocol: if draw(state, 2) == 0 { 6 } else { 17 },
            ip_version: if draw(state, 2) == 0 { 4 } else { 6 },
            high_port: if draw(state, 2) == 0 { 53 } else { 60_000 },
            ..FlowKey::default()
        };
        let ends = Ends {
            segment: vlan(state),
            reverse_segment: vlan(state),
            source_mac: Mac([0, 0, 0, 0, 0, small(draw(state, 2))]),
            ..Ends::default()
        };
        made(&key, ends, [draw(state, 9), draw(state, 9)])
    }

    #[test]
    fn it_is_a_map_that_sorts() {
        let mut state = 1;
        let mut table = ConversationTable::new(HashSeed::random());
        for rows in [100, 30_000, 3_000] {
            let rows: Vec<_> = (0..rows).map(|_| row(&mut state)).collect();
            let mut model: HashMap<ConversationKey, Conversation> = HashMap::new();
            for row in &rows {
                model.entry(ConversationKey::of(row)).or_default().add(row, 0.5);
            }
            let mut model: Vec<Entry> = model.into_iter().collect();
            model.sort_by_key(|(key, _)| *key);
            let full: u64 =
                rows.chunks(77).map(|rows| table.add(&block(rows.to_vec()), usize::MAX)).sum();
            assert_eq!((full, table.len()), (0, model.len()));
            let mut sorted = Vec::new();
            table.sort_into(&mut sorted, || ());
            assert_eq!(sorted, model);
        }
    }

    #[test]
    fn what_is_sorted_in_parts_is_sorted_as_a_whole() {
        let mut table = ConversationTable::new(HashSeed::random());
        let rows = (0..100_000_u32).map(|number| of_source(number.wrapping_mul(0x9e37_79b1)));
        assert_eq!(table.add(&block(rows.collect()), usize::MAX), 0);
        let (mut sorted, mut pauses) = (Vec::new(), 0);
        table.sort_into(&mut sorted, || pauses += 1);
        assert_eq!((sorted.len(), pauses), (100_000, 2 * 4));
        assert!(sorted.is_sorted_by(|(one, _), (other, _)| one < other));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_is_there_goes_on() {
        let mut table = ConversationTable::new(HashSeed::fixed());
        let rows = (0..100).chain(0..100).map(of_source).collect();
        assert_eq!((table.add(&block(rows), 60), table.len()), (2 * 2 * 40, 60));
        assert!(table.entries.iter().all(|(_, sums)| sums.packets == [2, 2]));
    }

    #[test]
    fn a_table_that_is_used_again_takes_no_more_memory() {
        let mut table = ConversationTable::new(HashSeed::fixed());
        let mut sorted = Vec::new();
        let mut sizes = Vec::new();
        for window in 0..4_u32 {
            let rows = (0..10_000).map(|number| of_source(window << 16 | number)).collect();
            table.add(&block(rows), 8_192);
            table.sort_into(&mut sorted, || ());
            let entries = table.entries.capacity() + sorted.capacity();
            sizes.push((entries, table.places.len(), table.order.capacity()));
            sorted.clear();
        }
        // From the second window on there are two lists that take turns.
        assert!(sizes[1].0 < 40_000 && sizes[1].1 == 16_384 && sizes[1].2 < 20_000, "{sizes:?}");
        assert!(sizes[1..].iter().all(|size| *size == sizes[1]), "{sizes:?}");
    }
}
