//! What was measured in a row beside its packets and octets, one note a sample.
//!
//! In: delays, events, losses of a row's flow. Out: the same as the aggregator reads it.
//! Cost: eight bytes, written behind the note before; a row that measures nothing has none.
//! Invariants: notes of a block belong to its rows, so they are added up like these, in any order.
//! Source: docs/measures.md.

use crate::index::Sender;
use crate::measure::span::Span;
use crate::measure::tcp::{Cause, EVENTS, Event, Method};
use crate::memory;

const METHODS: usize = Method::ALL.len();
const CAUSES: usize = Cause::ALL.len();

/// First numbers of each kind in [`Note::what`], without the sender's bit.
const FIRST_EVENT: usize = METHODS;
const FIRST_OCTETS: usize = FIRST_EVENT + EVENTS;
const FIRST_PACKETS: usize = FIRST_OCTETS + CAUSES;
const STALLED: usize = FIRST_PACKETS + CAUSES;

const _: () = assert!(STALLED < 128, "the kind and a bit for the sender are one octet");

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A delay, in ns.
    Delay(Method),
    /// So many events.
    Event(Event),
    /// Octets lost.
    LostOctets(Cause),
    /// Packets lost.
    LostPackets(Cause),
    /// A window was 0 for so long, in ns.
    Stalled,
}

impl What {
    const fn number(self) -> usize {
        match self {
            Self::Delay(method) => method as usize,
            Self::Event(event) => FIRST_EVENT + event as usize,
            Self::LostOctets(cause) => FIRST_OCTETS + cause as usize,
            Self::LostPackets(cause) => FIRST_PACKETS + cause as usize,
            Self::Stalled => STALLED,
        }
    }

    /// Whether the amount is a time.
    const fn is_time(self) -> bool {
        matches!(self, Self::Delay(_) | Self::Stalled)
    }
}

/// One sample, event or loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    amount: u32,
    /// Place of the row in its block.
    row: u8,
    what: u8,
}

const _: () = assert!(size_of::<Note>() == 8, "bytes as the documents state them");

impl Note {
    /// Of `sender`: who sent the segment, or what was lost; of a delay, who answered.
    #[inline]
    pub fn new(what: What, sender: Sender, amount: u64) -> Self {
        let kept = if what.is_time() {
            Span::of_ns(amount).bits()
        } else {
            u32::try_from(amount).unwrap_or(u32::MAX)
        };
        let what = what.number() << 1 | sender.place();
        Self { amount: kept, row: 0, what: what.to_le_bytes()[0] }
    }

    /// The same in the row of that place in its block.
    #[inline]
    #[must_use]
    pub(crate) const fn of_row(self, row: u8) -> Self {
        Self { row, ..self }
    }

    /// From what [`Note::subject_if_low_began`] and [`Note::amount_bits`] gave.
    #[inline]
    pub(crate) const fn of_bits(subject: u8, amount: u32) -> Self {
        Self { amount, row: 0, what: subject }
    }

    /// What it is about, and whom, in an octet; with the senders turned round where `High` began.
    #[inline]
    pub(crate) const fn subject_if_low_began(self, initiator: Sender) -> u8 {
        self.what ^ initiator as u8
    }

    /// How much, as it is kept.
    #[inline]
    pub(crate) const fn amount_bits(self) -> u32 {
        self.amount
    }

    /// Place of its row in the block.
    #[inline]
    pub const fn row(self) -> usize {
        self.row as usize
    }

    /// What it is about, whom, and how much: ns, octets, packets or events.
    pub fn read(self) -> Option<(What, Sender, u64)> {
        let number = usize::from(self.what >> 1);
        let what = match number {
            STALLED => What::Stalled,
            FIRST_PACKETS.. => What::LostPackets(*Cause::ALL.get(number - FIRST_PACKETS)?),
            FIRST_OCTETS.. => What::LostOctets(*Cause::ALL.get(number - FIRST_OCTETS)?),
            FIRST_EVENT.. => What::Event(*Event::ALL.get(number - FIRST_EVENT)?),
            _ => What::Delay(*Method::ALL.get(number)?),
        };
        let sender = if self.what & 1 == 0 { Sender::Low } else { Sender::High };
        let amount =
            if what.is_time() { Span::of_bits(self.amount).ns()? } else { u64::from(self.amount) };
        Some((what, sender, amount))
    }
}

/// Notes in a cache line.
const NOTES_PER_LINE: usize = 64 / size_of::<Note>();

/// Notes behind the next one whose memory is fetched: two lines on.
const NOTES_AHEAD: usize = 2 * NOTES_PER_LINE;

/// Notes in a chunk.
pub(super) const NOTES_PER_CHUNK: usize = 256;

/// Some notes of a block, and those that came before.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    notes: Vec<Note>,
    before: Option<Box<Self>>,
}

impl Chunk {
    /// An empty one; its memory is written when it is used.
    pub(super) fn empty() -> Self {
        Self { notes: Vec::with_capacity(NOTES_PER_CHUNK), before: None }
    }
}

/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = size_of::<Chunk>() + NOTES_PER_CHUNK * size_of::<Note>();

/// What was measured in the rows of a block: as many chunks as that takes.
#[derive(Clone, Debug, Default)]
pub struct Notes(Option<Box<Chunk>>);

impl Notes {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Note> {
        let chunks = std::iter::successors(self.0.as_deref(), |chunk| chunk.before.as_deref());
        chunks.flat_map(|chunk| &chunk.notes)
    }

    /// Has what is looked at first fetched.
    #[inline]
    pub(super) fn fetch(&self) {
        if let Some(chunk) = &self.0 {
            memory::fetch(&**chunk);
        }
    }

    /// Adds a note; gives it back where the last chunk is full.
    #[inline]
    pub(super) fn push(&mut self, note: Note) -> Result<(), Note> {
        let is_taken = self.0.as_mut().is_some_and(|chunk| push(&mut chunk.notes, note));
        if is_taken { Ok(()) } else { Err(note) }
    }

    /// Where notes on the row of that place in its block are written, if the last chunk has room for
    /// [`ROW_NOTES_MAX`].
    #[inline]
    pub(super) fn of_row(&mut self, row: u8) -> Option<RowNotes<'_>> {
        let notes = &mut self.0.as_mut()?.notes;
        // It has the room that it was made with.
        let has_room = notes.len() <= NOTES_PER_CHUNK - ROW_NOTES_MAX;
        has_room.then_some(RowNotes { notes, row })
    }

    /// Adds a note, in another chunk where need be.
    #[cfg(test)]
    pub(crate) fn note(&mut self, note: Note) {
        if let Err(note) = self.push(note) {
            self.grow(Box::new(Chunk::empty()));
            assert_eq!(self.push(note), Ok(()));
        }
    }

    /// Goes on in another chunk, which is empty.
    pub(super) fn grow(&mut self, mut chunk: Box<Chunk>) {
        chunk.before = self.0.take();
        self.0 = Some(chunk);
    }

    /// Takes a chunk out and empties it.
    pub(super) fn shrink(&mut self) -> Option<Box<Chunk>> {
        let mut chunk = self.0.take()?;
        self.0 = chunk.before.take();
        chunk.notes.clear();
        Some(chunk)
    }
}

/// Notes of one packet that [`RowNotes`] have room for.
pub const ROW_NOTES_MAX: usize = 4;

/// Where notes of one packet on its row are written.
#[derive(Debug)]
pub struct RowNotes<'a> {
    notes: &'a mut Vec<Note>,
    /// Place of the row in its block.
    row: u8,
}

impl<'a> RowNotes<'a> {
    /// Of a row that stands anywhere, as of the first of a block; there is room for [`ROW_NOTES_MAX`] more. For
    /// tests.
    pub const fn of_memory(notes: &'a mut Vec<Note>) -> Self {
        Self { notes, row: 0 }
    }

    /// Adds a note, the packet's [`ROW_NOTES_MAX`]th at most.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "every other packet has one")]
    pub fn push(&mut self, note: Note) {
        let is_taken = push(self.notes, note.of_row(self.row));
        debug_assert!(is_taken, "more notes than a packet has");
    }
}

/// Adds a note where there is room.
#[inline(always)]
#[expect(clippy::inline_always, reason = "every other packet has one")]
fn push(notes: &mut Vec<Note>, note: Note) -> bool {
    let has_room = notes.len() < notes.capacity();
    if has_room {
        if notes.len().is_multiple_of(NOTES_PER_LINE) {
            memory::fetch_ahead(notes, NOTES_AHEAD);
        }
        notes.push(note);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_and_come_back() {
        let mut notes = Notes::default();
        for row in (0..=255).cycle().take(600) {
            let note = Note::new(What::Stalled, Sender::Low, 1).of_row(row);
            if let Err(note) = notes.push(note) {
                notes.grow(Box::new(Chunk::empty()));
                assert_eq!(notes.push(note), Ok(()));
            }
        }
        assert_eq!(notes.iter().count(), 600);
        let rows: usize = notes.iter().map(|note| note.row()).sum();
        assert_eq!(rows, 2 * (0..256).sum::<usize>() + (0..88).sum::<usize>());
        let chunks = std::iter::from_fn(|| notes.shrink()).count();
        assert_eq!((chunks, notes.iter().count()), (3, 0));
    }

    #[test]
    fn what_is_noted_is_read() {
        let delays = Method::ALL.into_iter().map(What::Delay);
        let events = Event::ALL.into_iter().map(What::Event);
        let octets = Cause::ALL.into_iter().map(What::LostOctets);
        let packets = Cause::ALL.into_iter().map(What::LostPackets);
        let all = delays.chain(events).chain(octets).chain(packets).chain([What::Stalled]);
        for (amount, what) in (1..).zip(all) {
            for sender in [Sender::Low, Sender::High] {
                let note = Note::new(what, sender, amount).of_row(255);
                assert_eq!((note.row(), note.read()), (255, Some((what, sender, amount))));
            }
        }
    }
}
