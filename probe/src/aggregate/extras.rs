//! What was measured in conversations beside packets and octets.
//!
//! In: notes of rows, late rows. Out: [`Extra`]: histograms of delays, counts of events and losses.
//! Cost: nothing for a conversation without notes. The first [`NOTES_MAX`] notes are kept as they
//! came: those of a row together, in 12 bytes for one, 28 for four, 48 for eight. With more of them
//! 48 bytes, 72 for each kind of delay with 8 to 16 for each bucket in use, 16 to 32 for each kind of
//! event. All of a window are let go with it.
//! Invariants: adding up in any order gives the same; not more bytes than the caller allows: a
//! conversation whose notes find no room says so and has no measures, and the notes are counted.
//! Source: docs/measures.md, percentiles.

use std::borrow::Cow;

use crate::index::Sender;
use crate::measure::histogram::Sparse;
use crate::measure::tcp::{Cause, Method};
use crate::window::{LateLosses, Note, What};

/// Notes of a conversation that are kept as they are: beyond so many their sums take less.
const NOTES_MAX: usize = 64;

const _: () = assert!(NOTES_MAX <= u8::MAX as usize, "their number is an octet of a run's head");

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

    /// The newest notes of a conversation.
    const fn notes(number: u32) -> Self {
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
    /// Where its newest run of notes begins.
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

/// Instead of the place of a run, behind the oldest.
const END: u32 = u32::MAX;

/// Subjects of notes in a word.
const SUBJECTS_PER_WORD: usize = 4;

/// Those of a run's first word of subjects; the other two octets of it are counts.
const SUBJECTS_IN_HEAD: usize = 2;

/// Measures of all conversations of a window.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Runs of notes: where the run before begins, or [`END`]; in one word how many notes there are,
    /// how many up to here, and what the first two are about; what the others are about, four in a
    /// word; and their amounts.
    runs: Vec<u32>,
    sums: Vec<Extra>,
    /// Bytes of the sums.
    sums_bytes: usize,
    lost: u64,
}

impl Extras {
    /// Adds the notes of a row, at least one, to its conversation, whose place is kept in `place`, if
    /// all that is kept takes less than `bytes_max`.
    #[inline]
    pub(crate) fn add(
        &mut self,
        place: &mut ExtraPlace,
        initiator: Sender,
        notes: &[Note],
        bytes_max: usize,
    ) {
        let newest = match place.read() {
            _ if self.bytes() >= bytes_max => return self.lose(place, notes),
            Kept::NoRoom => return self.lose(place, notes),
            Kept::Nothing => END,
            Kept::Notes(newest) => newest,
            Kept::Sums(sums) => return self.add_to_sums(sums, initiator, notes),
        };
        let all = self.notes_up_to(newest) + notes.len();
        if all > NOTES_MAX {
            return self.add_up(place, newest, initiator, notes);
        }
        // The bytes that callers allow are fewer than such numbers.
        let begin = u32::try_from(self.runs.len()).unwrap_or(END);
        let subject =
            |place: usize| notes.get(place).map_or(0, |note| note.subject_if_low_began(initiator));
        self.runs.push(newest);
        let counts = [notes.len(), all].map(|count| u8::try_from(count).unwrap_or(u8::MAX));
        self.runs.push(u32::from_le_bytes([counts[0], counts[1], subject(0), subject(1)]));
        for first in (SUBJECTS_IN_HEAD..notes.len()).step_by(SUBJECTS_PER_WORD) {
            let subjects = [first, first + 1, first + 2, first + 3].map(subject);
            self.runs.push(u32::from_le_bytes(subjects));
        }
        self.runs.extend(notes.iter().map(|note| note.amount_bits()));
        *place = ExtraPlace::notes(begin);
    }

    /// Notes of a conversation up to the run that begins there.
    #[inline]
    fn notes_up_to(&self, begin: u32) -> usize {
        let head = self.runs.get(begin as usize + 1);
        head.map_or(0, |head| usize::from(head.to_le_bytes()[1]))
    }

    #[cold]
    fn lose(&mut self, place: &mut ExtraPlace, notes: &[Note]) {
        self.lost += notes.len() as u64;
        if let Kept::Notes(newest) = place.read() {
            self.lost += self.notes_up_to(newest) as u64;
        }
        *place = ExtraPlace::NO_ROOM;
    }

    fn add_to_sums(&mut self, sums: usize, initiator: Sender, notes: &[Note]) {
        if let Some(extra) = self.sums.get_mut(sums) {
            self.sums_bytes += notes.iter().map(|note| extra.add(*note, initiator)).sum::<usize>();
        }
    }

    /// Adds up the notes of a conversation, and others. Their place is not used again: it is small
    /// beside what the sums of so many take.
    #[cold]
    fn add_up(&mut self, place: &mut ExtraPlace, newest: u32, initiator: Sender, notes: &[Note]) {
        let mut extra = Extra::default();
        let bytes = self.sum(newest, &mut extra);
        self.sums_bytes += size_of::<Extra>() + bytes;
        let number = self.sums.len();
        *place = ExtraPlace::sums(u32::try_from(number).unwrap_or(0));
        self.sums.push(extra);
        self.add_to_sums(number, initiator, notes);
    }

    /// Adds the notes of a conversation to its sums; the bytes that they took.
    fn sum(&self, newest: u32, sums: &mut Extra) -> usize {
        let (mut begin, mut bytes) = (newest, 0);
        while let Some([before, head, rest @ ..]) = self.runs.get(begin as usize..) {
            let [count, _, first, second] = head.to_le_bytes();
            let count = usize::from(count);
            let words = count.saturating_sub(SUBJECTS_IN_HEAD).div_ceil(SUBJECTS_PER_WORD);
            let (more, amounts) = rest.split_at(words.min(rest.len()));
            let subjects = [first, second];
            let subjects =
                subjects.into_iter().chain(more.iter().flat_map(|word| word.to_le_bytes()));
            for (subject, amount) in subjects.zip(amounts).take(count) {
                bytes += sums.add(Note::of_bits(subject, *amount), Sender::Low);
            }
            begin = *before;
        }
        bytes
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
        size_of_val(self.runs.as_slice()) + self.sums_bytes
    }

    /// Forgets all, and keeps memory of notes as [`super::conversations::clear`] says.
    pub(super) fn clear(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        super::conversations::clear(&mut runs);
        *self = Self { runs, ..Self::default() };
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

    fn sum(rows: &[&[Note]]) -> Extra {
        let (mut extras, mut place) = (Extras::default(), ExtraPlace::default());
        for notes in rows {
            extras.add(&mut place, Sender::High, notes, usize::MAX);
        }
        assert_eq!(extras.lost(), 0);
        extras.get(place).expect("there is room").into_owned()
    }

    fn model(notes: &[Note], initiator: Sender) -> Extra {
        let mut sums = Extra::default();
        notes.iter().for_each(|note| {
            sums.add(*note, initiator);
        });
        sums
    }

    #[test]
    fn sums_are_those_of_all_notes_in_whatever_rows_they_come() {
        let notes = notes();
        // Kept as they are, and added up.
        for many in [1, 2, 3, 5, 6, 7, 11, 63, 64, 65, 66, 300] {
            let mut notes = notes[..many].to_vec();
            let expected = model(&notes, Sender::High);
            for in_row in [1, 2, 3, 4, 7, 64, 100, 300] {
                let rows: Vec<_> = notes.chunks(in_row).collect();
                assert_eq!(sum(&rows), expected, "{many} by {in_row}");
            }
            notes.reverse();
            assert_eq!(sum(&[&notes]), expected, "{many} turned");
        }
    }

    #[test]
    fn conversations_whose_notes_lie_among_each_other_keep_their_own() {
        let all = notes();
        let (mut extras, mut places) = (Extras::default(), [ExtraPlace::default(); 80]);
        for round in 0..80 {
            for (number, place) in places.iter_mut().enumerate().skip(round) {
                extras.add(place, Sender::Low, &all[number + round..][..1], usize::MAX);
            }
        }
        for (number, place) in places.iter().enumerate() {
            let expected = model(&all[number..=2 * number], Sender::Low);
            assert_eq!(extras.get(*place).as_deref(), Some(&expected), "{number}");
        }
        // Its number and one has each of them.
        assert_eq!(extras.sums.len(), 80 - NOTES_MAX);
    }

    #[test]
    fn bytes_are_those_that_it_takes() {
        let mut extras = Extras::default();
        let mut places = [ExtraPlace::default(); 5];
        let counts = [1, 4, 8, 64, 300];
        let mut taken = Vec::new();
        for (place, count) in places.iter_mut().zip(counts) {
            let before = extras.bytes();
            extras.add(place, Sender::Low, &notes()[..count], usize::MAX);
            taken.push(extras.bytes() - before);
        }
        assert_eq!(taken[..4], [12, 28, 48, 4 * (2 + 16 + 64)]);
        assert_eq!(taken[4], bytes_of(&extras.sums[0]));
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
        let extra = sum(&[&[
            note(What::Delay(Method::Response), Sender::Low),
            note(What::Event(Event::Gap), Sender::Low),
        ]]);
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
        let notes = [Note::new(What::Event(Event::Gap), Sender::Low, 1); 2];
        let (mut one, mut other) = (ExtraPlace::default(), ExtraPlace::default());
        let bytes_max = 3 * 16;
        for _ in 0..3 {
            extras.add(&mut one, Sender::Low, &notes, bytes_max);
        }
        assert!(extras.get(one).is_some() && extras.lost() == 0);
        extras.add(&mut other, Sender::Low, &notes, bytes_max);
        assert!(extras.get(other).is_none() && extras.lost() == 2);
        // With what it had before: half of its measures would be wrong ones.
        extras.add(&mut one, Sender::Low, &notes, bytes_max);
        assert!(extras.get(one).is_none() && extras.lost() == 10);
        assert_eq!(extras.bytes(), bytes_max);
    }
}
