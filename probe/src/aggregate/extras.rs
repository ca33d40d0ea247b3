//! What was measured in conversations beside packets and octets.
//!
//! In: notes of rows, late rows. Out: [`Extra`]: histograms of delays, counts of events and losses.
//! Cost: nothing for a conversation without notes; else 56 bytes, 72 for each kind of delay with 8
//! for each bucket in use, 16 for each kind of event. All of a window are let go with it.
//! Invariants: adding up in any order gives the same; not more than [`EXTRAS_BYTES_MAX`] a window:
//! a conversation whose notes find no room says so and has no measures, and the notes are counted.
//! Source: docs/measures.md, percentiles.

use crate::index::Sender;
use crate::measure::histogram::Sparse;
use crate::measure::tcp::{Cause, Event, Lost, Method};
use crate::window::{LateLosses, Note, What};

/// Bytes of all extras of a window at most.
pub const EXTRAS_BYTES_MAX: usize = 256 << 20;

/// Bytes of a sample in a new bucket: the list of buckets grows to twice its size.
const BUCKET_BYTES: usize = 16;

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

    /// Nothing was measured.
    const NOTHING: u32 = 0;
    /// Something was, and found no room.
    const NO_ROOM: u32 = u32::MAX;
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

    /// How often something happened by segments of a direction.
    pub fn events(&self, event: Event, direction: Direction) -> u64 {
        self.count(What::Event(event), direction)
    }

    /// What a direction lost.
    pub fn lost(&self, cause: Cause, direction: Direction) -> Lost {
        Lost {
            octets: self.count(What::LostOctets(cause), direction),
            packets: self.count(What::LostPackets(cause), direction),
        }
    }

    /// How long the window of a direction's sender was 0, in ns.
    pub fn stalled_ns(&self, direction: Direction) -> u64 {
        self.count(What::Stalled, direction)
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

    fn count(&self, what: What, direction: Direction) -> u64 {
        let key = key_of(what, direction);
        let place = self.counts.binary_search_by_key(&key, |(key, _)| *key);
        place.ok().and_then(|place| self.counts.get(place)).map_or(0, |(_, count)| *count)
    }

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
                self.counts.insert(place, (key, amount));
                size_of::<(u8, u64)>()
            }
        }
    }

    fn add_delay(&mut self, key: u8, ns: u64) -> usize {
        let (place, mut bytes) = match self.delays.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(place) => (place, 0),
            Err(place) => {
                self.delays.insert(place, (key, Sparse::default()));
                (place, size_of::<(u8, Sparse)>())
            }
        };
        let (_, delays) = &mut self.delays[place];
        let before = delays.buckets_used();
        delays.record(ns);
        bytes += BUCKET_BYTES * delays.buckets_used().saturating_sub(before);
        bytes
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

/// Measures of all conversations of a window.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    entries: Vec<Extra>,
    bytes: usize,
    lost: u64,
}

impl Extras {
    /// Adds a note to a conversation, whose place is kept in `place`.
    pub(crate) fn add(&mut self, place: &mut ExtraPlace, initiator: Sender, note: Note) {
        if self.bytes >= EXTRAS_BYTES_MAX {
            place.0 = ExtraPlace::NO_ROOM;
        }
        if place.0 == ExtraPlace::NO_ROOM {
            self.lost += 1;
            return;
        }
        if place.0 == ExtraPlace::NOTHING {
            self.entries.push(Extra::default());
            self.bytes += size_of::<Extra>();
            place.0 = u32::try_from(self.entries.len()).unwrap_or(ExtraPlace::NO_ROOM);
        }
        if let Some(extra) = self.entries.get_mut(place.0 as usize - 1) {
            self.bytes += extra.add(note, initiator);
        }
    }

    /// What was measured of a conversation; an empty one where nothing was, `None` where it found
    /// no room.
    pub fn get(&self, place: ExtraPlace) -> Option<&Extra> {
        static NOTHING: Extra = Extra { delays: Vec::new(), counts: Vec::new() };
        match place.0 {
            ExtraPlace::NOTHING => Some(&NOTHING),
            ExtraPlace::NO_ROOM => None,
            place => self.entries.get(place as usize - 1),
        }
    }

    /// Notes that found no room.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_order_of_notes_does_not_matter() {
        let sum = |notes: &[Note]| {
            let (mut extras, mut place) = (Extras::default(), ExtraPlace::default());
            for note in notes {
                extras.add(&mut place, Sender::High, *note);
            }
            extras.get(place).expect("there is room").clone()
        };
        let (one, mut turned) = (notes(), notes());
        turned.reverse();
        assert_eq!(sum(&one), sum(&turned));
    }

    #[test]
    fn a_delay_belongs_to_what_was_answered() {
        let (mut extras, mut place) = (Extras::default(), ExtraPlace::default());
        let note = |what, sender| Note::new(what, sender, 5);
        extras.add(&mut place, Sender::High, note(What::Delay(Method::Response), Sender::Low));
        extras.add(&mut place, Sender::High, note(What::Event(Event::Gap), Sender::Low));
        let extra = extras.get(place).expect("there is room");
        let samples = |direction| {
            let delays = extra.delay(Method::Response, direction);
            delays.map_or(0, |delays| delays.summary().count)
        };
        assert_eq!(Direction::BOTH.map(samples), [1, 0]);
        assert_eq!(Direction::BOTH.map(|way| extra.events(Event::Gap, way)), [0, 5]);
        assert_eq!(extras.get(ExtraPlace::default()), Some(&Extra::default()));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_known() {
        let mut extras = Extras { bytes: EXTRAS_BYTES_MAX - 1, ..Extras::default() };
        let note = Note::new(What::Event(Event::Gap), Sender::Low, 1);
        let (mut one, mut other) = (ExtraPlace::default(), ExtraPlace::default());
        extras.add(&mut one, Sender::Low, note);
        assert!(extras.get(one).is_some() && extras.lost() == 0);
        extras.add(&mut other, Sender::Low, note);
        assert!(extras.get(other).is_none() && extras.lost() == 1);
    }
}
