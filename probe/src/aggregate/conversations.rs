//! All conversations of a window, packed.
//!
//! In: what a table has summed up. Out: each [`ConversationKey`] with its [`Conversation`].
//! Cost: 52 bytes a conversation, 22 an endpoint, 32 for each way packets go, what
//! was measured beside; unpacking copies.
//! Invariants: addresses, stations and segments are kept once, however many conversations name
//! them. A conversation whose sums do not fit its 52 bytes has them beside it as they are.

use super::packed::{Name, Packed};
use super::{Conversation, ConversationKey, Extras};
use crate::decode::{Address, Mac};
use crate::index::Sender;
use crate::inventory::{AddressSpace, Segment};
use crate::window::{Note, Row};

/// A list that has room for so many times as much as was in it gives memory back.
const SPARE_TIMES: usize = 4;

/// Entries for which a list always keeps the memory.
const KEPT_MIN: usize = 1_024;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    pub(super) mac: Mac,
}

impl Endpoint {
    /// Initiator and responder of a row.
    #[inline]
    pub(super) const fn both(row: &Row) -> [Self; 2] {
        let ends = row.ends();
        [
            Self { address: row.source(), mac: ends.source_mac },
            Self { address: row.destination(), mac: ends.destination_mac },
        ]
    }
}

/// Where packets of both directions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) space: AddressSpace,
    pub(super) segment: Segment,
    pub(super) reverse_segment: Segment,
    pub(super) ip_version: u8,
}

impl Path {
    /// Of a row.
    #[inline]
    pub(super) const fn of(row: &Row) -> Self {
        let ends = row.ends();
        Self {
            space: row.space(),
            segment: ends.segment,
            reverse_segment: ends.reverse_segment,
            ip_version: row.ip_version(),
        }
    }
}

/// Conversations in order of their keys, once they are given out.
#[derive(Clone, Debug, Default)]
pub struct Conversations {
    pub(super) entries: Vec<Packed>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) paths: Vec<Path>,
    /// Shares of flows that shedding kept.
    rates: Vec<f32>,
    /// Sums of those that do not fit.
    pub(super) wide: Vec<Conversation>,
    /// What was measured in them, by [`Conversation::extra`].
    extras: Extras,
}

impl Conversations {
    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Each, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { all: self, entries: self.entries.iter() }
    }

    /// All in order, at most `conversations_max` at a time, which is at least 1.
    pub fn parts(
        &self,
        conversations_max: usize,
    ) -> impl Iterator<Item = Vec<(ConversationKey, Conversation)>> + '_ {
        let parts = self.entries.chunks(conversations_max);
        parts.map(|part| part.iter().map(|entry| self.unpack(entry)).collect())
    }

    /// Forgets all. Keeps the memory that as many again need; what is far beyond it is given back.
    pub(super) fn clear(&mut self) {
        clear(&mut self.entries);
        clear(&mut self.endpoints);
        clear(&mut self.paths);
        clear(&mut self.wide);
        self.rates.clear();
        self.extras.clear();
    }

    /// Number of the share of flows that shedding kept, `None` if there are too many of them.
    pub(super) fn number_rate(&mut self, rate: f32) -> Option<u8> {
        let known = self.rates.iter().position(|known| known.to_bits() == rate.to_bits());
        let number = u8::try_from(known.unwrap_or(self.rates.len())).ok()?;
        if known.is_none() {
            self.rates.push(rate);
        }
        Some(number)
    }

    /// Adds a row to an entry. `rate`: the share of flows that shedding kept, and its number if it
    /// has one.
    #[inline]
    pub(super) fn add(&mut self, entry: usize, row: &Row, (rate, number): (f32, Option<u8>)) {
        let packed = &mut self.entries[entry];
        if let Some(place) = packed.wide() {
            self.wide[place].add(row, rate);
            return;
        }
        let known = self.rates.get(usize::from(packed.rate()));
        let number =
            if known.is_some_and(|known| *known <= rate) { Some(packed.rate()) } else { number };
        match number.and_then(|number| packed.with(row, number)) {
            Some(sum) => *packed = sum,
            None => self.add_wide(entry, row, rate),
        }
    }

    /// What was measured in its conversations.
    pub fn extras(&self) -> &Extras {
        &self.extras
    }

    /// Adds what was measured in a row of an entry, and who began there, if all that is measured
    /// takes less than `bytes_max`.
    #[inline]
    pub(super) fn add_note(&mut self, entry: usize, note: (Sender, Note), bytes_max: usize) {
        let packed = &mut self.entries[entry];
        let place = match packed.wide() {
            Some(place) => &mut self.wide[place].extra,
            None => &mut packed.extra,
        };
        self.extras.add(place, note, bytes_max);
    }

    #[cold]
    fn add_wide(&mut self, entry: usize, row: &Row, rate: f32) {
        let mut sums = self.sums(&self.entries[entry]);
        sums.add(row, rate);
        self.entries[entry].widen(self.wide.len());
        self.wide.push(sums);
    }

    #[inline]
    fn sums(&self, entry: &Packed) -> Conversation {
        match entry.wide() {
            Some(place) => self.wide[place],
            None => entry.sums(self.rates.get(usize::from(entry.rate())).copied().unwrap_or(1.0)),
        }
    }

    /// The key that a name stands for.
    #[inline]
    pub(super) fn key(&self, name: &Name) -> ConversationKey {
        let source = &self.endpoints[name.source as usize];
        let destination = &self.endpoints[name.destination as usize];
        let path = &self.paths[name.path as usize];
        ConversationKey {
            space: path.space,
            source: source.address,
            destination: destination.address,
            protocol: name.protocol,
            ip_version: path.ip_version,
            destination_port: name.destination_port,
            application: name.application,
            segment: path.segment,
            reverse_segment: path.reverse_segment,
            source_mac: source.mac,
            destination_mac: destination.mac,
        }
    }

    #[inline]
    fn unpack(&self, entry: &Packed) -> (ConversationKey, Conversation) {
        (self.key(&entry.name), self.sums(entry))
    }
}

/// What [`Conversations::iter`] gives.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    all: &'a Conversations,
    entries: std::slice::Iter<'a, Packed>,
}

impl Iterator for Iter<'_> {
    type Item = (ConversationKey, Conversation);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(|entry| self.all.unpack(entry))
    }
}

impl<'a> IntoIterator for &'a Conversations {
    type Item = (ConversationKey, Conversation);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Forgets all of a list. Keeps the memory that as many again need; what is far beyond it is given
/// back.
pub(super) fn clear<T>(list: &mut Vec<T>) {
    let used = list.len().max(KEPT_MIN);
    list.clear();
    if list.capacity() > SPARE_TIMES * used {
        list.shrink_to(used);
    }
}

/// As they are: in their order, each with its sums beside it.
impl FromIterator<(ConversationKey, Conversation)> for Conversations {
    fn from_iter<I: IntoIterator<Item = (ConversationKey, Conversation)>>(list: I) -> Self {
        let mut all = Self::default();
        for (key, sums) in list {
            let source = Endpoint { address: key.source, mac: key.source_mac };
            let destination = Endpoint { address: key.destination, mac: key.destination_mac };
            let path = Path {
                space: key.space,
                segment: key.segment,
                reverse_segment: key.reverse_segment,
                ip_version: key.ip_version,
            };
            // In order of keys they come one behind the other.
            let before = all.entries.last().map(|entry| entry.name);
            let known = before.filter(|name| all.endpoints[name.source as usize] == source);
            let source = known.map_or_else(|| numbered(&mut all.endpoints, source), |it| it.source);
            let known = before.filter(|name| all.paths[name.path as usize] == path);
            let mut entry = Packed::new(Name {
                source,
                destination: numbered(&mut all.endpoints, destination),
                path: known.map_or_else(|| numbered(&mut all.paths, path), |it| it.path),
                destination_port: key.destination_port,
                protocol: key.protocol,
                application: key.application,
            });
            entry.widen(all.wide.len());
            all.wide.push(sums);
            all.entries.push(entry);
        }
        all
    }
}

/// Adds one more to a list; its number.
fn numbered<T>(list: &mut Vec<T>, one: T) -> u32 {
    let number = u32::try_from(list.len()).expect("there are fewer than numbers of entries");
    list.push(one);
    number
}
