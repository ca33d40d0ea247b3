//! What was measured in conversations beside packets and octets.
//!
//! In: notes of rows, late rows. Out: [`Extra`]: histograms of delays, counts of events and losses.
//! Cost: nothing for a conversation without notes; 8 bytes for each of its first [`NOTES_MAX`] notes,
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
const NOTES_MAX: u8 = 64;

/// Numbers of notes, and of sums, in a window are smaller than that: 128 MiB of notes.
const END: u32 = (1 << NUMBER_BITS) - 1;

const NUMBER_BITS: u32 = 24;

/// Of which [`Extra`] a conversation is: in the low 24 bits a number, in the others how many notes
/// there are, or what else the number means.
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

    /// Instead of a number of notes: that of the sums follows.
    const SUMS: u8 = u8::MAX - 1;

    const fn of(kind: u8, number: u32) -> Self {
        Self((kind as u32) << NUMBER_BITS | number & END)
    }

    const fn read(self) -> Kept {
        let (number, [.., kind]) = (self.0 & END, self.0.to_le_bytes());
        match kind {
            0 => Kept::Nothing,
            Self::SUMS => Kept::Sums(number as usize),
            u8::MAX => Kept::NoRoom,
            notes => Kept::Notes(notes, number),
        }
    }
}

/// How the measures of a conversation are kept.
enum Kept {
    Nothing,
    NoRoom,
    /// So many notes, and the number of the newest.
    Notes(u8, u32),
    Sums(usize),
}

const _: () = assert!(NOTES_MAX < ExtraPlace::SUMS, "a number of notes is no other kind");

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

    /// Adds a note of a row whose initiator this is; the bytes that it took.
    fn add(&mut self, note: Note, initiator: Sender) -> usize {
        let Some((what, sender, amount)) = note.read() else { return 0 };
        let direction = Direction::of(sender, initiator);
        match what {
            // What the responder answered belongs to what the initiator sent.
            What::Delay(_) => self.add_delay(key_of(what, direction.turned()), amount),
            _ => self.add_count(key_of(what, direction), amount),
        }
    }
}

/// A note of a conversation.
#[derive(Clone, Copy, Debug)]
struct Link {
    amount: u32,
    /// What it is about, as if `Low` had begun, and the number of the note before; that is [`END`]
    /// for the oldest.
    subject_and_before: u32,
}

const _: () = assert!(size_of::<Link>() == 8, "bytes as the documents state them");

impl Link {
    const fn new(note: Note, initiator: Sender, before: u32) -> Self {
        let subject = note.subject_if_low_began(initiator) as u32;
        Self { amount: note.amount_bits(), subject_and_before: subject << NUMBER_BITS | before }
    }

    const fn note(self) -> Note {
        let [.., subject] = self.subject_and_before.to_le_bytes();
        Note::of_bits(subject, self.amount)
    }

    const fn before(self) -> u32 {
        self.subject_and_before & END
    }
}

/// Measures of all conversations of a window.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    links: Vec<Link>,
    sums: Vec<Extra>,
    /// Bytes of the sums.
    sums_bytes: usize,
    lost: u64,
}

impl Extras {
    /// Adds a note to a conversation, whose place is kept in `place`, and whose initiator this is in
    /// the note's row, if all that is kept takes less than `bytes_max`.
    #[inline]
    pub(crate) fn add(
        &mut self,
        place: &mut ExtraPlace,
        (initiator, note): (Sender, Note),
        bytes_max: usize,
    ) {
        let (notes, newest) = match place.read() {
            _ if self.bytes() >= bytes_max || self.links.len() >= END as usize => {
                return self.lose(place);
            }
            Kept::NoRoom => return self.lose(place),
            Kept::Nothing => (0, END),
            Kept::Notes(notes, newest) if notes < NOTES_MAX => (notes, newest),
            Kept::Notes(_, newest) => {
                let sums = self.add_up(place, newest);
                return self.add_to_sums(sums, initiator, note);
            }
            Kept::Sums(sums) => return self.add_to_sums(sums, initiator, note),
        };
        let number = u32::try_from(self.links.len()).unwrap_or(END);
        self.links.push(Link::new(note, initiator, newest));
        *place = ExtraPlace::of(notes + 1, number);
    }

    #[cold]
    fn lose(&mut self, place: &mut ExtraPlace) {
        self.lost += 1;
        if let Kept::Notes(notes, _) = place.read() {
            self.lost += u64::from(notes);
        }
        *place = ExtraPlace::NO_ROOM;
    }

    fn add_to_sums(&mut self, sums: usize, initiator: Sender, note: Note) {
        if let Some(extra) = self.sums.get_mut(sums) {
            self.sums_bytes += extra.add(note, initiator);
        }
    }

    /// Adds up the notes of a conversation; the number of its sums. The places of the notes are not
    /// used again: they are few beside what the sums of so many take.
    #[cold]
    fn add_up(&mut self, place: &mut ExtraPlace, newest: u32) -> usize {
        let mut extra = Extra::default();
        let bytes = self.sum(newest, &mut extra);
        self.sums_bytes += size_of::<Extra>() + bytes;
        let number = self.sums.len();
        // Sums are fewer than the notes that they came of.
        *place = ExtraPlace::of(ExtraPlace::SUMS, u32::try_from(number).unwrap_or(END));
        self.sums.push(extra);
        number
    }

    /// Adds the notes of a conversation to its sums; the bytes that they took.
    fn sum(&self, newest: u32, sums: &mut Extra) -> usize {
        let link = |number: u32| self.links.get(number as usize);
        let links = std::iter::successors(link(newest), |newer| link(newer.before()));
        links.map(|link| sums.add(link.note(), Sender::Low)).sum()
    }

    /// What was measured of a conversation; an empty one where nothing was, `None` where it found
    /// no room.
    pub fn get(&self, place: ExtraPlace) -> Option<Cow<'_, Extra>> {
        static NOTHING: Extra = Extra { delays: Vec::new(), counts: Vec::new() };
        match place.read() {
            Kept::Nothing => Some(Cow::Borrowed(&NOTHING)),
            Kept::NoRoom => None,
            Kept::Notes(_, newest) => {
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
        size_of_val(self.links.as_slice()) + self.sums_bytes
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

    fn sum(notes: &[Note]) -> Extra {
        let (mut extras, mut place) = (Extras::default(), ExtraPlace::default());
        add_all(&mut extras, &mut place, Sender::High, notes);
        assert_eq!(extras.lost(), 0);
        extras.get(place).expect("there is room").into_owned()
    }

    fn add_all(extras: &mut Extras, place: &mut ExtraPlace, initiator: Sender, notes: &[Note]) {
        for note in notes {
            extras.add(place, (initiator, *note), usize::MAX);
        }
    }

    fn model(notes: &[Note], initiator: Sender) -> Extra {
        let mut sums = Extra::default();
        for note in notes {
            sums.add(*note, initiator);
        }
        sums
    }

    #[test]
    fn sums_are_those_of_all_notes_in_whatever_order_they_come() {
        // Kept as they are, and added up.
        for many in [1, 2, 3, 63, 64, 65, 66, 300] {
            let mut notes = notes()[..many].to_vec();
            let expected = model(&notes, Sender::High);
            assert_eq!(sum(&notes), expected, "{many}");
            notes.reverse();
            assert_eq!(sum(&notes), expected, "{many} turned");
        }
    }

    #[test]
    fn conversations_whose_notes_lie_among_each_other_keep_their_own() {
        let all = notes();
        let (mut extras, mut places) = (Extras::default(), [ExtraPlace::default(); 80]);
        for round in 0..80 {
            for (number, place) in places.iter_mut().enumerate().skip(round) {
                extras.add(place, (Sender::Low, all[number + round]), usize::MAX);
            }
        }
        for (number, place) in places.iter().enumerate() {
            let expected = model(&all[number..=2 * number], Sender::Low);
            assert_eq!(extras.get(*place).as_deref(), Some(&expected), "{number}");
        }
        // Its number and one has each of them.
        assert_eq!(extras.sums.len(), 80 - usize::from(NOTES_MAX));
    }

    #[test]
    fn bytes_are_those_that_it_takes() {
        let mut extras = Extras::default();
        let mut places = [ExtraPlace::default(); 4];
        let mut taken = Vec::new();
        for (place, count) in places.iter_mut().zip([1, 4, 64, 300]) {
            let before = extras.bytes();
            add_all(&mut extras, place, Sender::Low, &notes()[..count]);
            taken.push(extras.bytes() - before);
        }
        assert_eq!(taken[..3], [8, 4 * 8, 64 * 8]);
        assert_eq!(taken[3], 64 * 8 + bytes_of(&extras.sums[0]));
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
        let note = |what, sender| Note::new(what, sender, 5);
        let extra = sum(&[
            note(What::Delay(Method::Response), Sender::Low),
            note(What::Event(Event::Gap), Sender::Low),
        ]);
        let samples = |direction| {
            let delays = extra.delay(Method::Response, direction);
            delays.map_or(0, |delays| delays.summary().count)
        };
        assert_eq!(Direction::BOTH.map(samples), [1, 0]);
        let gaps = |way| extra.count(What::Event(Event::Gap), way);
        assert_eq!(Direction::BOTH.map(gaps), [0, 5]);
        let nothing = Extras::default();
        assert!(nothing.get(ExtraPlace::default()).is_some_and(|nothing| nothing.is_empty()));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_known() {
        let mut extras = Extras::default();
        let note = Note::new(What::Event(Event::Gap), Sender::Low, 1);
        let (mut one, mut other) = (ExtraPlace::default(), ExtraPlace::default());
        let bytes_max = 3 * size_of::<Link>();
        for _ in 0..3 {
            extras.add(&mut one, (Sender::Low, note), bytes_max);
        }
        assert!(extras.get(one).is_some() && extras.lost() == 0);
        extras.add(&mut other, (Sender::Low, note), bytes_max);
        assert!(extras.get(other).is_none() && extras.lost() == 1);
        // With what it had before: half of its measures would be wrong ones.
        extras.add(&mut one, (Sender::Low, note), bytes_max);
        assert!(extras.get(one).is_none() && extras.lost() == 5);
        assert_eq!(extras.bytes(), bytes_max);
    }
}
