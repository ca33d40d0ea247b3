//! What was measured in conversations beside packets and octets.
//!
//! In: notes of rows, late rows. Out: [`Extra`]: histograms of delays, counts of events and losses.
//! Cost: nothing for a conversation without notes; 12 bytes for each of its first [`NOTES_MAX`] notes,
//! which are kept as they came; with more of them 48 bytes, 72 for each kind of delay with 8 to 16
//! for each bucket in use, 16 to 32 for each kind of event. All of a window are let go with it.
//! Invariants: adding up in any order gives the same; not more bytes than the caller allows: a
//! conversation whose notes find no room says so and has no measures, and the notes are counted.
//! Source: docs/measures.md, percentiles.

use std::borrow::Cow;

use crate::index::Sender;
use crate::measure::histogram::Sparse;
use crate::measure::tcp::{Cause, Method};
use crate::window::{LateLosses, Note, What};

/// Notes of a conversation that are kept as they are: beyond so many their sums take less.
const NOTES_MAX: u8 = 32;

/// Of which [`Extra`] a conversation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtraPlace(u32);

impl ExtraPlace {
    /// As a number, for [`ExtraPlace::of_number`].
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    /// From [`ExtraPlace::number`].
    pub(super) const fn of_number(number: u32) -> Self {
        Self(number)
    }

    /// Something was measured, and found no room.
    const NO_ROOM: Self = Self(u32::MAX);

    /// Set where the rest is a place among the sums, not among the notes.
    const SUMS: u32 = 1 << 31;

    /// The newest note of a conversation.
    const fn note(number: u32) -> Self {
        Self(number + 1)
    }

    /// Its sums.
    const fn sums(number: u32) -> Self {
        Self(number | Self::SUMS)
    }

    const fn read(self) -> Kept {
        match self.0 {
            0 => Kept::Nothing,
            u32::MAX => Kept::NoRoom,
            number if number & Self::SUMS == 0 => Kept::Notes(number - 1),
            number => Kept::Sums((number & !Self::SUMS) as usize),
        }
    }
}

/// How the measures of a conversation are kept.
enum Kept {
    Nothing,
    NoRoom,
    /// The newest of its notes.
    Notes(u32),
    Sums(usize),
}

/// Which way, seen from the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Sent by the initiator; of delays, answered by the responder.
    Forward = 0,
    /// The other one.
    Reverse = 1,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Forward, Self::Reverse];

    const fn of(sender: Sender, initiator: Sender) -> Self {
        if sender.place() == initiator.place() { Self::Forward } else { Self::Reverse }
    }

    const fn turned(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

/// What is counted, as a number: for lists in order.
const fn count_of(what: What) -> u8 {
    match what {
        What::Delay(method) => method as u8,
        What::Event(event) => 16 + event as u8,
        What::LostOctets(cause) => 48 + cause as u8,
        What::LostPackets(cause) => 56 + cause as u8,
        What::Stalled => 64,
    }
}

const fn key_of(what: What, direction: Direction) -> u8 {
    count_of(what) << 1 | direction as u8
}

/// Measures of one conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// By [`key_of`], in order.
    delays: Vec<(u8, Sparse)>,
    counts: Vec<(u8, u64)>,
}

impl Extra {
    /// Delays by `method` that this direction waited for: of `Forward` the responder answered. The
    /// handshake's have one direction each.
    pub fn delay(&self, method: Method, direction: Direction) -> Option<&Sparse> {
        let key = key_of(What::Delay(method), direction);
        let place = self.delays.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.delays.get(place).map(|(_, delays)| delays)
    }

    /// Whether nothing was measured, so that all there is to measure is 0.
    pub fn is_empty(&self) -> bool {
        self.delays.is_empty() && self.counts.is_empty()
    }

    /// Of a row that came late.
    pub fn of_late(losses: &LateLosses, initiator: Sender) -> Self {
        let mut extra = Self::default();
        for sender in [Sender::Low, Sender::High] {
            let direction = Direction::of(sender, initiator);
            for cause in Cause::ALL {
                let lost = losses.lost(cause, sender);
                extra.add_count(key_of(What::LostOctets(cause), direction), lost.octets);
                extra.add_count(key_of(What::LostPackets(cause), direction), lost.packets);
            }
            extra.add_count(key_of(What::Stalled, direction), losses.stalled_ns[sender.place()]);
        }
        extra
    }

    /// How much of something that is counted belongs to a direction; of delays see
    /// [`Extra::delay`].
    pub fn count(&self, what: What, direction: Direction) -> u64 {
        let key = key_of(what, direction);
        let place = self.counts.binary_search_by_key(&key, |(key, _)| *key);
        place.ok().and_then(|place| self.counts.get(place)).map_or(0, |(_, count)| *count)
    }

    /// Adds to a count; the bytes that it took.
    fn add_count(&mut self, key: u8, amount: u64) -> usize {
        if amount == 0 {
            return 0;
        }
        match self.counts.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(place) => {
                let (_, count) = &mut self.counts[place];
                *count = count.saturating_add(amount);
                0
            }
            Err(place) => {
                let before = self.counts.capacity();
                self.counts.insert(place, (key, amount));
                (self.counts.capacity() - before) * size_of::<(u8, u64)>()
            }
        }
    }

    /// Adds a sample; the bytes that it took.
    fn add_delay(&mut self, key: u8, ns: u64) -> usize {
        let (place, bytes) = match self.delays.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(place) => (place, 0),
            Err(place) => {
                // There are few kinds; room for four at once would be half of what it takes.
                self.delays.reserve_exact(1);
                self.delays.insert(place, (key, Sparse::default()));
                (place, size_of::<(u8, Sparse)>())
            }
        };
        let (_, delays) = &mut self.delays[place];
        let before = delays.bytes();
        delays.record(ns);
        bytes + delays.bytes().saturating_sub(before)
    }

    /// Adds a note of a row that `Low` began; the bytes that it took.
    fn add(&mut self, note: Note) -> usize {
        let Some((what, sender, amount)) = note.read() else { return 0 };
        let direction = Direction::of(sender, Sender::Low);
        match what {
            // What the responder answered belongs to what the initiator sent.
            What::Delay(_) => self.add_delay(key_of(what, direction.turned()), amount),
            _ => self.add_count(key_of(what, direction), amount),
        }
    }
}

/// A note of a conversation, and the one before it.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// As if `Low` had begun; instead of a row it says how many of its conversation there are up to
    /// it.
    note: Note,
    before: u32,
}

const _: () = assert!(size_of::<Link>() == 12, "bytes as the documents state them");

/// Stands behind the oldest note.
const END: u32 = u32::MAX;

/// Measures of all conversations of a window.
#[derive(Clone, Debug)]
pub struct Extras {
    links: Vec<Link>,
    /// The first of the links that are in use no more.
    free: u32,
    sums: Vec<Extra>,
    /// Bytes of the sums.
    sums_bytes: usize,
    lost: u64,
}

impl Default for Extras {
    fn default() -> Self {
        Self { links: Vec::new(), free: END, sums: Vec::new(), sums_bytes: 0, lost: 0 }
    }
}

impl Extras {
    /// Adds a note to a conversation, whose place is kept in `place`, if all of them take less than
    /// `bytes_max`.
    #[inline]
    pub(crate) fn add(
        &mut self,
        place: &mut ExtraPlace,
        initiator: Sender,
        note: Note,
        bytes_max: usize,
    ) {
        let note = note.as_if_low_began(initiator);
        let newest = match place.read() {
            _ if self.bytes() >= bytes_max => return self.lose(place),
            Kept::NoRoom => return self.lose(place),
            Kept::Nothing => END,
            Kept::Notes(newest) => newest,
            Kept::Sums(sums) => return self.add_to_sums(sums, note),
        };
        let notes = self.links.get(newest as usize).map_or(0, |link| link.note.row());
        if notes >= usize::from(NOTES_MAX) {
            return self.add_up(place, newest, note);
        }
        let place_in_row = u8::try_from(notes + 1).unwrap_or(NOTES_MAX);
        let link = Link { note: note.of_row(place_in_row), before: newest };
        *place = ExtraPlace::note(self.put(link));
    }

    /// Where the link is from now on.
    #[inline]
    fn put(&mut self, link: Link) -> u32 {
        if let Some(free) = self.links.get_mut(self.free as usize) {
            let number = std::mem::replace(&mut self.free, free.before);
            *free = link;
            return number;
        }
        self.links.push(link);
        // The bytes that callers allow are fewer than such numbers.
        u32::try_from(self.links.len() - 1).unwrap_or(END)
    }

    #[cold]
    fn lose(&mut self, place: &mut ExtraPlace) {
        self.lost += 1;
        if let Kept::Notes(newest) = place.read() {
            self.lost += self.let_go(newest);
        }
        *place = ExtraPlace::NO_ROOM;
    }

    /// Frees the notes of a conversation; how many they were.
    fn let_go(&mut self, newest: u32) -> u64 {
        let (mut number, mut notes) = (newest, 0);
        while let Some(link) = self.links.get_mut(number as usize) {
            notes += 1;
            if link.before == END {
                link.before = std::mem::replace(&mut self.free, newest);
                break;
            }
            number = link.before;
        }
        notes
    }

    fn add_to_sums(&mut self, sums: usize, note: Note) {
        if let Some(extra) = self.sums.get_mut(sums) {
            self.sums_bytes += extra.add(note);
        }
    }

    /// Adds up the notes of a conversation, and another one.
    #[cold]
    fn add_up(&mut self, place: &mut ExtraPlace, newest: u32, note: Note) {
        let mut extra = Extra::default();
        let bytes = self.sum(newest, &mut extra) + extra.add(note);
        self.let_go(newest);
        self.sums_bytes += size_of::<Extra>() + bytes;
        *place = ExtraPlace::sums(u32::try_from(self.sums.len()).unwrap_or(0));
        self.sums.push(extra);
    }

    /// Adds the notes of a conversation to its sums; the bytes that they took.
    fn sum(&self, newest: u32, sums: &mut Extra) -> usize {
        let link = |number: u32| self.links.get(number as usize);
        let links = std::iter::successors(link(newest), |newer| link(newer.before));
        links.map(|link| sums.add(link.note)).sum()
    }

    /// What was measured of a conversation; an empty one where nothing was, `None` where it found
    /// no room.
    pub fn get(&self, place: ExtraPlace) -> Option<Cow<'_, Extra>> {
        static NOTHING: Extra = Extra { delays: Vec::new(), counts: Vec::new() };
        match place.read() {
            Kept::Nothing => Some(Cow::Borrowed(&NOTHING)),
            Kept::NoRoom => None,
            Kept::Notes(newest) => {
                let mut sums = Extra::default();
                self.sum(newest, &mut sums);
                Some(Cow::Owned(sums))
            }
            Kept::Sums(sums) => self.sums.get(sums).map(Cow::Borrowed),
        }
    }

    /// Notes that found no room.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes that they take.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.links.len() * size_of::<Link>() + self.sums_bytes
    }

    /// Forgets all, and keeps memory of notes as [`super::conversations::clear`] says.
    pub(super) fn clear(&mut self) {
        let mut links = std::mem::take(&mut self.links);
        super::conversations::clear(&mut links);
        *self = Self { links, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tcp::Event;

    fn notes() -> Vec<Note> {
        let mut notes = Vec::new();
        for number in 0..300_u64 {
            let sender = if number % 3 == 0 { Sender::Low } else { Sender::High };
            let what = [
                What::Delay(Method::SequenceAck),
                What::Delay(Method::TcpTimestamp),
                What::Event(Event::Retransmission),
                What::LostPackets(Cause::Mirror),
            ];
            let amount = 1_000 + number * number * 77;
            notes.push(Note::new(
                what[usize::try_from(number % 4).expect("small")],
                sender,
                amount,
            ));
        }
        notes
    }

    /// Adds all notes of a conversation that `initiator` began.
    fn add_all(extras: &mut Extras, place: &mut ExtraPlace, initiator: Sender, notes: &[Note]) {
        notes.iter().for_each(|note| extras.add(place, initiator, *note, usize::MAX));
    }

    fn sum(notes: &[Note]) -> Extra {
        let (mut extras, mut place) = (Extras::default(), ExtraPlace::default());
        add_all(&mut extras, &mut place, Sender::High, notes);
        assert_eq!(extras.lost(), 0);
        extras.get(place).expect("there is room").into_owned()
    }

    #[test]
    fn the_order_of_notes_does_not_matter() {
        // Kept as they are, and added up.
        for many in [1, 2, 31, 32, 33, 34, 300] {
            let mut notes = notes();
            notes.truncate(many);
            let forwards = sum(&notes);
            notes.reverse();
            assert_eq!(forwards, sum(&notes), "{many}");
        }
    }

    #[test]
    fn sums_are_those_of_all_notes_however_they_are_kept() {
        let all = notes();
        let (mut extras, mut places) = (Extras::default(), [ExtraPlace::default(); 40]);
        // As many notes as its number, and one in turn, so that they lie among each other.
        for round in 0..40 {
            for (place, extra) in places.iter_mut().enumerate().skip(round) {
                let note = all[(place + round) % all.len()];
                extras.add(extra, Sender::Low, note, usize::MAX);
            }
        }
        for (number, place) in places.iter().enumerate() {
            let mut model = Extra::default();
            for round in 0..=number {
                model.add(all[(number + round) % all.len()]);
            }
            assert_eq!(extras.get(*place).as_deref(), Some(&model), "{number}");
        }
        assert_eq!(extras.sums.len(), 40 - usize::from(NOTES_MAX));
    }

    #[test]
    fn places_of_notes_that_were_added_up_are_used_again() {
        let mut extras = Extras::default();
        for _ in 0..50 {
            let mut place = ExtraPlace::default();
            add_all(&mut extras, &mut place, Sender::Low, &notes());
        }
        assert_eq!((extras.links.len(), extras.sums.len()), (usize::from(NOTES_MAX), 50));
        let real: usize = extras.sums.iter().map(bytes_of).sum();
        assert_eq!(extras.bytes(), real + usize::from(NOTES_MAX) * 12);
        extras.clear();
        assert_eq!((extras.bytes(), extras.lost()), (0, 0));
    }

    /// As the allocator sees it.
    fn bytes_of(extra: &Extra) -> usize {
        let delays: usize = extra.delays.iter().map(|(_, delays)| delays.bytes()).sum();
        let beside = size_of::<(u8, Sparse)>() - size_of::<Sparse>();
        let counts = extra.counts.capacity() * size_of::<(u8, u64)>();
        size_of::<Extra>() + extra.delays.capacity() * beside + delays + counts
    }

    #[test]
    fn a_delay_belongs_to_what_was_answered() {
        let (mut extras, mut place) = (Extras::default(), ExtraPlace::default());
        let note = |what, sender| Note::new(what, sender, 5);
        let notes = [
            note(What::Delay(Method::Response), Sender::Low),
            note(What::Event(Event::Gap), Sender::Low),
        ];
        add_all(&mut extras, &mut place, Sender::High, &notes);
        let extra = extras.get(place).expect("there is room");
        let samples = |direction| {
            let delays = extra.delay(Method::Response, direction);
            delays.map_or(0, |delays| delays.summary().count)
        };
        assert_eq!(Direction::BOTH.map(samples), [1, 0]);
        let gaps = |way| extra.count(What::Event(Event::Gap), way);
        assert_eq!(Direction::BOTH.map(gaps), [0, 5]);
        let nothing = extras.get(ExtraPlace::default());
        assert!(nothing.is_some_and(|nothing| nothing.is_empty()));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_known() {
        let mut extras = Extras::default();
        let note = Note::new(What::Event(Event::Gap), Sender::Low, 1);
        let (mut one, mut other) = (ExtraPlace::default(), ExtraPlace::default());
        let bytes_max = 3 * size_of::<Link>();
        for _ in 0..3 {
            extras.add(&mut one, Sender::Low, note, bytes_max);
        }
        assert!(extras.get(one).is_some() && extras.lost() == 0);
        extras.add(&mut other, Sender::Low, note, bytes_max);
        assert!(extras.get(other).is_none() && extras.lost() == 1);
        // With what it had before: half of its measures would be wrong ones.
        extras.add(&mut one, Sender::Low, note, bytes_max);
        assert!(extras.get(one).is_none() && extras.lost() == 5);
        assert_eq!((extras.bytes(), extras.links.len()), (bytes_max, 3));
    }
}
