//! The conversations of one open window.
//!
//! In: rows in blocks. Out: the conversations with their sums, sorted by key.
//! Cost: a row is four hashes, a look at the index for both endpoints and the conversation, and the
//! line or two of its sums; the rows of a batch are looked up together, so that their memory is
//! fetched at once. Nothing is allocated once a table has held as many conversations before.
//! Invariants: one entry a key; never more entries than the caller allows, and never more names
//! than they and a batch need.

use std::cmp::Ordering;
use std::hint::black_box;

use super::conversations::{Conversations, Endpoint, Path};
use super::packed::{Name, Packed};
use super::places::Places;
use crate::decode::Address;
use crate::hash::fold;
use crate::spread::HashSeed;
use crate::window::{Row, RowBlock};

/// Rows that are looked up together: as many misses as a core has under way.
const BATCH_ROWS: usize = 32;

/// Entries that are sorted in one go.
const PART_ENTRIES: usize = 1 << 15;

/// Instead of the number of an entry that stands where it belongs.
const IN_ORDER: u32 = u32::MAX;

/// Conversations by key.
pub(super) struct ConversationTable {
    all: Conversations,
    places: Places,
    endpoint_places: Places,
    path_places: Places,
    /// Entries of the rows of the block that is added now.
    added: Vec<Option<usize>>,
    seed: HashSeed,
}

/// What a table may hold.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Conversations at most.
    pub(super) entries_max: usize,
    /// Bytes of what was measured in them at most.
    pub(super) measured_bytes_max: usize,
}

/// What is known of a row before it is added.
#[derive(Clone, Copy, Default)]
struct Lookup {
    /// Of both endpoints.
    hashes: [u64; 2],
    /// Numbers of both endpoints and the path, and the conversation's hash, if all are known.
    name: Option<(Name, u64)>,
}

impl ConversationTable {
    /// Empty.
    pub(super) fn new(seed: HashSeed) -> Self {
        Self {
            all: Conversations::default(),
            places: Places::default(),
            endpoint_places: Places::default(),
            path_places: Places::default(),
            added: Vec::new(),
            seed,
        }
    }

    /// Conversations in it.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Memory of an earlier window, in which nothing is.
    pub(super) fn take_memory(&mut self, memory: Conversations) {
        debug_assert!(self.all.is_empty() && memory.is_empty(), "nothing is lost");
        self.all = memory;
    }

    /// Bytes of what was measured in them.
    pub(super) fn measured_bytes(&self) -> usize {
        self.all.extras().bytes()
    }

    /// Measures that found no room.
    pub(super) fn measures_lost(&self) -> u64 {
        self.all.extras().lost()
    }

    /// Adds the rows of a block. Gives the packets of those that found no room.
    pub(super) fn add(&mut self, block: &RowBlock, room: Room) -> u64 {
        let Room { entries_max, measured_bytes_max } = room;
        let rate = block.sampling_rate.min(1.0);
        let rate = (rate, self.all.number_rate(rate));
        let mut full_packets = 0;
        self.added.clear();
        for batch in block.rows.chunks(BATCH_ROWS) {
            self.reserve(batch.len(), entries_max);
            let mut lookups = [Lookup::default(); BATCH_ROWS];
            self.touch(batch, &mut lookups);
            for (row, lookup) in batch.iter().zip(&lookups) {
                let name = lookup.name.or_else(|| self.name(row, lookup.hashes, entries_max));
                let entry = name.and_then(|name| self.entry(name, entries_max));
                match entry {
                    Some(entry) => self.all.add(entry, row, rate),
                    None => full_packets += row.packets_sum(),
                }
                self.added.push(entry);
            }
        }
        // What was measured in a row that found no room is gone with its packets.
        for note in block.notes.iter() {
            let entry = self.added.get(note.row()).copied().flatten();
            if let (Some(row), Some(entry)) = (block.rows.get(note.row()), entry) {
                self.all.add_note(entry, (row.initiator(), *note), measured_bytes_max);
            }
        }
        full_packets
    }

    /// Gives all conversations in order of their keys and forgets them, and their memory. Calls
    /// `pause` every few milliseconds, because others wait meanwhile.
    pub(super) fn sort(&mut self, mut pause: impl FnMut()) -> Conversations {
        let mut order = self.order(&mut pause);
        for first in (0..order.len()).step_by(PART_ENTRIES) {
            let end = order.len().min(first + PART_ENTRIES);
            (first..end).for_each(|start| put_in_order(&mut self.all.entries, &mut order, start));
            pause();
        }
        self.places.clear(self.all.entries.len());
        self.endpoint_places.clear(self.all.endpoints.len());
        self.path_places.clear(self.all.paths.len());
        std::mem::take(&mut self.all)
    }

    /// Numbers of the entries in order of their keys.
    fn order(&self, mut pause: impl FnMut()) -> Vec<u32> {
        let all = &self.all;
        let spaces = Ranks::new(all.paths.iter().map(|path| path.space.bits()), &mut pause);
        let address = |endpoint: &Endpoint| u128::from_be_bytes(endpoint.address.0);
        let addresses = Ranks::new(all.endpoints.iter().map(address), &mut pause);
        let number_bits = bits(all.entries.len());
        // At most 25 + 2 · 26 + 25 + 25: a window has 2²⁴ conversations at most.
        let key_bits = spaces.bits + 2 * addresses.bits + SERVICE_BITS + number_bits;
        debug_assert!(key_bits <= u128::BITS, "{key_bits} bits");
        let ordered = |(number, entry): (u32, &Packed)| {
            let name = &entry.name;
            let path = &all.paths[name.path as usize];
            let mut key = u128::from(spaces.of(name.path));
            for endpoint in [name.source, name.destination] {
                key = key << addresses.bits | u128::from(addresses.of(endpoint));
            }
            key = key << SERVICE_BITS | u128::from(service(name, path.ip_version));
            key << number_bits | u128::from(number)
        };
        let mut order: Vec<u128> = (0_u32..).zip(&all.entries).map(ordered).collect();
        let number_in = |ordered: u128| {
            #[expect(clippy::cast_possible_truncation, reason = "the other bits are of its key")]
            let number = ordered as u32;
            number & ((1 << number_bits) - 1)
        };
        let key = |ordered: u128| all.key(&all.entries[number_in(ordered) as usize].name);
        // Few differ in their application, stations or segments alone.
        let compare = |one: &u128, other: &u128| {
            let ranks = (one >> number_bits).cmp(&(other >> number_bits));
            ranks.then_with(|| key(*one).cmp(&key(*other)))
        };
        sort_in_parts(&mut order, compare, pause);
        order.into_iter().map(number_in).collect()
    }

    /// Reads what the rows of a batch will need, all at once, so that one waits for memory once and
    /// not for each.
    fn touch(&self, batch: &[Row], lookups: &mut [Lookup; BATCH_ROWS]) {
        let mut touched = 0;
        for (row, lookup) in batch.iter().zip(lookups.iter_mut()) {
            lookup.hashes = Endpoint::both(row).map(|endpoint| self.hash_of_endpoint(&endpoint));
            for hash in lookup.hashes {
                let guess = self.endpoint_places.guess(hash);
                let endpoint = guess.and_then(|number| self.all.endpoints.get(number));
                touched ^= endpoint.map_or(0, |endpoint| endpoint.mac.0[0]);
            }
        }
        black_box(touched);
        let mut touched = 0;
        for (row, lookup) in batch.iter().zip(lookups.iter_mut()) {
            lookup.name = self.known_name(row, lookup.hashes);
            let guess = lookup.name.and_then(|(_, hash)| self.places.guess(hash));
            let entry = guess.and_then(|number| self.all.entries.get(number));
            touched ^= entry.map_or(0, |entry| u32::from(entry.rate()) ^ entry.name.source);
        }
        black_box(touched);
    }

    /// The name of a row's conversation, if all that it names is known.
    #[inline]
    fn known_name(&self, row: &Row, hashes: [u64; 2]) -> Option<(Name, u64)> {
        let [from, to] = Endpoint::both(row);
        let source = self.find_endpoint(&from, hashes[0]).ok()?;
        let destination = self.find_endpoint(&to, hashes[1]).ok()?;
        let path = self.find_path(&Path::of(row)).ok()?;
        Some(self.named(row, [source, destination, path]))
    }

    /// The name of a row's conversation; what it names is entered, unless there is no room for
    /// another conversation, which it then would be.
    #[cold]
    fn name(&mut self, row: &Row, hashes: [u64; 2], entries_max: usize) -> Option<(Name, u64)> {
        if self.all.len() >= entries_max {
            return self.known_name(row, hashes);
        }
        let [from, to] = Endpoint::both(row);
        let mut endpoint = |endpoint, hash| {
            self.find_endpoint(&endpoint, hash).unwrap_or_else(|place| {
                self.endpoint_places.put(place, hash, self.all.endpoints.len());
                self.all.endpoints.push(endpoint);
                self.all.endpoints.len() - 1
            })
        };
        let (source, destination) = (endpoint(from, hashes[0]), endpoint(to, hashes[1]));
        let path = Path::of(row);
        let path = self.find_path(&path).unwrap_or_else(|place| {
            let hash = self.hash_of_path(&path);
            self.path_places.put(place, hash, self.all.paths.len());
            self.all.paths.push(path);
            self.all.paths.len() - 1
        });
        Some(self.named(row, [source, destination, path]))
    }

    #[inline]
    fn named(&self, row: &Row, numbers: [usize; 3]) -> (Name, u64) {
        // Lists are shorter than their index, whose numbers have 32 bits.
        let [source, destination, path] = numbers.map(|number| u32::try_from(number).unwrap_or(0));
        let name = Name {
            source,
            destination,
            path,
            destination_port: row.destination_port(),
            protocol: row.protocol(),
            application: row.application,
        };
        (name, self.hash_of_name(&name))
    }

    /// The entry of a name; another one if there is none yet.
    #[inline]
    fn entry(&mut self, (name, hash): (Name, u64), entries_max: usize) -> Option<usize> {
        let entries = &self.all.entries;
        let place = match self.places.find(hash, |number| entries[number].name == name) {
            Ok(number) => return Some(number),
            Err(place) => place,
        };
        let number = entries.len();
        if number >= entries_max {
            return None;
        }
        self.places.put(place, hash, number);
        self.all.entries.push(Packed::new(name));
        Some(number)
    }

    #[inline]
    fn find_endpoint(&self, endpoint: &Endpoint, hash: u64) -> Result<usize, usize> {
        let endpoints = &self.all.endpoints;
        self.endpoint_places.find(hash, |number| endpoints[number] == *endpoint)
    }

    #[inline]
    fn find_path(&self, path: &Path) -> Result<usize, usize> {
        let paths = &self.all.paths;
        self.path_places.find(self.hash_of_path(path), |number| paths[number] == *path)
    }

    /// Makes room for what so many rows can bring.
    #[inline]
    fn reserve(&mut self, rows: usize, entries_max: usize) {
        let entries = (self.all.len() + rows).min(entries_max);
        let endpoints = self.all.endpoints.len() + 2 * rows;
        let paths = self.all.paths.len() + rows;
        let has_room = self.places.has_room(entries)
            && self.endpoint_places.has_room(endpoints)
            && self.path_places.has_room(paths);
        if !has_room {
            self.grow(entries, endpoints, paths);
        }
    }

    #[cold]
    fn grow(&mut self, entries: usize, endpoints: usize, paths: usize) {
        let (seed, all) = (self.seed, &self.all);
        let names = all.entries.iter().map(|entry| hash_of_name(&entry.name, seed));
        self.places.reserve(entries, names);
        let known = all.endpoints.iter().map(|endpoint| hash_of_endpoint(endpoint, seed));
        self.endpoint_places.reserve(endpoints, known);
        self.path_places.reserve(paths, all.paths.iter().map(|path| hash_of_path(path, seed)));
    }

    #[inline]
    fn hash_of_name(&self, name: &Name) -> u64 {
        hash_of_name(name, self.seed)
    }

    #[inline]
    fn hash_of_endpoint(&self, endpoint: &Endpoint) -> u64 {
        hash_of_endpoint(endpoint, self.seed)
    }

    #[inline]
    fn hash_of_path(&self, path: &Path) -> u64 {
        hash_of_path(path, self.seed)
    }
}

/// Hash of a name: every word under a secret one.
#[inline]
fn hash_of_name(name: &Name, seed: HashSeed) -> u64 {
    let [s0, s1, s2, _] = seed.words();
    let ends = u64::from(name.source) << 32 | u64::from(name.destination);
    let service = u64::from(name.path) << 32
        | u64::from(name.destination_port) << 16
        | u64::from(name.protocol) << 8
        | name.application as u64;
    fold(fold(ends ^ s0, service ^ s1) ^ s2, s0)
}

#[inline]
fn hash_of_endpoint(endpoint: &Endpoint, seed: HashSeed) -> u64 {
    let [s0, s1, s2, s3] = seed.words();
    let ([a, b], [c, d, e, f, g, h]) = (words(endpoint.address), endpoint.mac.0);
    fold(fold(a ^ s0, b ^ s1) ^ s2, u64::from_le_bytes([c, d, e, f, g, h, 0, 0]) ^ s3)
}

#[inline]
fn hash_of_path(path: &Path, seed: HashSeed) -> u64 {
    let [s0, s1, s2, s3] = seed.words();
    let there = fold(path.space.bits() ^ s0, path.segment.bits() ^ s1);
    fold(there ^ s2, path.reverse_segment.bits() ^ s3).wrapping_add(path.ip_version.into())
}

/// Both halves of an address.
#[inline]
const fn words(address: Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}

/// The rank of each value among those that differ.
struct Ranks {
    ranks: Vec<u32>,
    /// Bits that the largest takes.
    bits: u32,
}

impl Ranks {
    fn new<T: Copy + Ord>(values: impl Iterator<Item = T>, pause: impl FnMut()) -> Self {
        let mut order: Vec<(T, u32)> = values.zip(0..).collect();
        sort_in_parts(&mut order, |one, other| one.0.cmp(&other.0), pause);
        let mut ranks = vec![0; order.len()];
        let (mut rank, mut before) = (0_u32, None);
        for (value, number) in order {
            rank += u32::from(before.is_some_and(|before| before != value));
            ranks[number as usize] = rank;
            before = Some(value);
        }
        Self { ranks, bits: bits(rank as usize) }
    }

    #[inline]
    fn of(&self, number: u32) -> u32 {
        self.ranks[number as usize]
    }
}

/// Bits that numbers up to this one take.
const fn bits(largest: usize) -> u32 {
    usize::BITS - largest.leading_zeros()
}

/// Bits of [`service`].
const SERVICE_BITS: u32 = 8 + 1 + 16;

/// What orders conversations between the same addresses, in that order: protocol, version of IP,
/// port.
#[inline]
fn service(name: &Name, ip_version: u8) -> u32 {
    let version = u32::from(ip_version > 4);
    u32::from(name.protocol) << 17 | version << 16 | u32::from(name.destination_port)
}

/// Sorts, with a pause after every part of the work.
fn sort_in_parts<T>(
    list: &mut [T],
    compare: impl Fn(&T, &T) -> Ordering + Copy,
    mut pause: impl FnMut(),
) {
    for part in list.chunks_mut(PART_ENTRIES) {
        part.sort_unstable_by(compare);
        pause();
    }
    // Only merges: it finds the parts sorted.
    if list.len() > PART_ENTRIES {
        list.sort_by(compare);
    }
}

/// Puts each entry of the cycle that begins at `start` where the order wants it.
fn put_in_order(entries: &mut [Packed], order: &mut [u32], start: usize) {
    let mut place = start;
    loop {
        let from = std::mem::replace(&mut order[place], IN_ORDER);
        if from == IN_ORDER || from as usize == start {
            return;
        }
        entries.swap(place, from as usize);
        place = from as usize;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::aggregate::Direction;
    use crate::aggregate::{Conversation, ConversationKey};
    use crate::app::Application;
    use crate::decode::Mac;
    use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
    use crate::inventory::{AddressSpace, Segment, SegmentKind};
    use crate::measure::tcp::Event;
    use crate::spread::FlowKey;
    use crate::window::{Ends, Note, ROWS_PER_BLOCK, RowFacts, What};

    /// A number that looks drawn, from 0 to below `end`.
    fn draw(state: &mut u64, end: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) % end
    }

    fn block(rows: &[Row]) -> RowBlock {
        let window = WindowNumber(1);
        let mut block = RowBlock { window, sampling_rate: 0.5, ..RowBlock::default() };
        for row in rows {
            *block.rows.begin().expect("fewer than a block holds") = *row;
        }
        block
    }

    /// Adds rows block by block; packets that found no room.
    fn add(table: &mut ConversationTable, rows: impl Iterator<Item = Row>, room: Room) -> u64 {
        let rows: Vec<Row> = rows.collect();
        rows.chunks(ROWS_PER_BLOCK).map(|rows| table.add(&block(rows), room)).sum()
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

    const ROOM: Room = entries(usize::MAX);

    /// Room for so many, and for all that is measured in them.
    const fn entries(entries_max: usize) -> Room {
        Room { entries_max, measured_bytes_max: usize::MAX }
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
        let mut row = made(&key, ends, [draw(state, 9), draw(state, 9)]);
        row.events = small(draw(state, 256));
        // Few have more than a packed entry holds.
        row.late_packets = if draw(state, 16) == 0 { 300 } else { 0 };
        row.tap = TapIndex(u16::from(small(draw(state, 3))));
        if draw(state, 64) == 0 {
            row.count(Sender::High, 3 << 30, false);
        }
        row
    }

    #[test]
    fn it_is_a_map_that_sorts() {
        let mut state = 1;
        let mut table = ConversationTable::new(HashSeed::random());
        let mut wide = (0, 0);
        for rows in [100, 30_000, 3_000] {
            let rows: Vec<_> = (0..rows).map(|_| row(&mut state)).collect();
            let mut model: HashMap<ConversationKey, Conversation> = HashMap::new();
            for row in &rows {
                model.entry(ConversationKey::of(row)).or_default().add(row, 0.5);
            }
            let mut model: Vec<(ConversationKey, Conversation)> = model.into_iter().collect();
            model.sort_by_key(|(key, _)| *key);
            let full: u64 = rows.chunks(77).map(|rows| table.add(&block(rows), ROOM)).sum();
            assert_eq!((full, table.len()), (0, model.len()));
            let sorted = table.sort(|| ());
            assert!(sorted.iter().eq(model.iter().copied()));
            assert!(sorted.parts(7).flatten().eq(model));
            wide.0 += sorted.wide.len();
            wide.1 += sorted.len();
        }
        // Both kinds were there.
        assert!(wide.0 > 100 && wide.0 < wide.1 / 2, "{wide:?}");
    }

    #[test]
    fn what_was_measured_stays_with_its_conversation() {
        let mut table = ConversationTable::new(HashSeed::random());
        let mut sent = 0;
        for part in 0..40_u32 {
            let rows: Vec<_> = (0..100).map(|place| of_source(place % 50)).collect();
            let mut rows = block(&rows);
            let note = Note::new(What::Event(Event::Gap), Sender::Low, 1);
            for place in 0..=u8::try_from(part).expect("small") {
                rows.notes.note(note.of_row(place));
                sent += 1;
            }
            // A conversation that does not fit its bytes any more.
            rows.rows.at_mut(0).expect("one").count(Sender::High, 3 << 30, false);
            table.add(&rows, ROOM);
        }
        let sorted = table.sort(|| ());
        assert!(!sorted.wide.is_empty());
        let gaps = |(key, sums): (ConversationKey, Conversation)| {
            let extra = sorted.extras().get(sums.extra).expect("there is room");
            let gaps = Direction::BOTH
                .map(|way| extra.count(What::Event(Event::Gap), way))
                .iter()
                .sum::<u64>();
            let source = u32::from(key.source.0[15]);
            // Two rows of a block are of one source, fifty apart.
            assert_eq!(gaps, u64::from(40_u32.saturating_sub(source)), "{source}");
            gaps
        };
        assert_eq!(sorted.iter().map(gaps).sum::<u64>(), sent);
    }

    #[test]
    fn what_is_sorted_in_parts_is_sorted_as_a_whole() {
        let mut table = ConversationTable::new(HashSeed::random());
        let rows = (0..100_000_u32).map(|number| of_source(number.wrapping_mul(0x9e37_79b1)));
        assert_eq!(add(&mut table, rows, ROOM), 0);
        let mut pauses = 0;
        let sorted = table.sort(|| pauses += 1);
        // Endpoints are sorted in as many parts, and the one path in one.
        assert_eq!((sorted.len(), pauses), (100_000, 3 * 4 + 1));
        assert!(sorted.iter().is_sorted_by(|(one, _), (other, _)| one < other));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_is_there_goes_on() {
        let mut table = ConversationTable::new(HashSeed::fixed());
        let rows = (0..100).chain(0..100).map(of_source);
        assert_eq!((add(&mut table, rows, entries(60)), table.len()), (2 * 2 * 40, 60));
        assert!(table.all.iter().all(|(_, sums)| sums.packets == [2, 2]));
    }

    #[test]
    fn what_finds_no_room_leaves_no_name_behind() {
        let mut table = ConversationTable::new(HashSeed::fixed());
        for part in 0..100 {
            let rows = (100 * part..100 * part + 100).map(of_source);
            add(&mut table, rows, entries(60));
        }
        assert_eq!((table.len(), table.all.paths.len()), (60, 1));
        assert!(table.all.endpoints.len() <= 2 * (60 + BATCH_ROWS));
        assert_eq!(table.places.len(), 1_024);
    }

    #[test]
    fn a_quiet_window_after_a_flood_gives_memory_back() {
        let mut table = ConversationTable::new(HashSeed::fixed());
        add(&mut table, (0..100_000).map(of_source), ROOM);
        let mut memory = table.sort(|| ());
        memory.clear();
        assert!(memory.entries.capacity() >= 100_000);
        table.take_memory(memory);
        add(&mut table, (0..1_000).map(of_source), ROOM);
        let mut memory = table.sort(|| ());
        memory.clear();
        assert!(memory.entries.capacity() < 2_048 && memory.endpoints.capacity() < 2_048);
        assert!(table.places.len() < 4_096 && table.endpoint_places.len() < 4_096);
    }

    #[test]
    fn a_table_that_is_used_again_takes_no_more_memory() {
        let mut table = ConversationTable::new(HashSeed::fixed());
        let mut sizes = Vec::new();
        for window in 0..4_u32 {
            let rows = (0..10_000).map(|number| of_source(window << 16 | number));
            add(&mut table, rows, entries(8_192));
            let mut memory = table.sort(|| ());
            memory.clear();
            sizes.push((
                memory.entries.capacity(),
                memory.endpoints.capacity(),
                table.places.len(),
            ));
            table.take_memory(memory);
        }
        assert!(sizes[1].0 < 20_000 && sizes[1].1 < 20_000 && sizes[1].2 == 16_384, "{sizes:?}");
        assert!(sizes[1..].iter().all(|size| *size == sizes[1]), "{sizes:?}");
    }
}
