//! Rows of the windows that are open, in blocks that become messages as they are.
//!
//! In: rows as flows begin them; blocks without rows. Out: [`RowBlock`]s of one window.
//! Cost: a row is written once, where the aggregator will read it; finding it again is two loads.
//! Invariants: a block holds rows of one window; a place is good for its flow until the block is
//! taken, which [`OpenRows::get`] notices and `notes` does not; the number of blocks here never changes.

use std::collections::VecDeque;

use crate::index::{FlowIndex, WindowNumber};

use super::note::Notes;
use super::{ROWS_PER_BLOCK, Row, RowNotes, Rows};

/// Rows behind the next one whose memory is fetched: a packet may begin one each.
const ROWS_AHEAD: usize = 2;

/// Windows that can be open or waiting for an aggregator that is behind; four are open at most.
const PHASES: usize = 8;

/// Where a row is while its window is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowPlace(pub u32);

impl RowPlace {
    /// No row is there.
    pub const NOWHERE: Self = Self(u32::MAX);
}

/// Rows of one window.
#[derive(Debug, Default)]
pub struct RowBlock {
    /// The window.
    pub window: WindowNumber,
    /// Lowest share of flows that shedding kept while the window was open.
    pub sampling_rate: f32,
    /// The rows.
    pub rows: Rows,
    /// What was measured in them.
    pub notes: Notes,
}

/// All open rows of one worker.
pub(super) struct OpenRows {
    blocks: Box<[Block]>,
    free: Vec<u32>,
    windows: [OpenWindow; PHASES],
    /// Share of flows that shedding keeps now.
    sampling_rate: f32,
    /// What is written where there is no room goes here, and nowhere.
    nowhere: Row,
}

struct Block {
    window: WindowNumber,
    rows: Rows,
    notes: Notes,
}

struct OpenWindow {
    window: WindowNumber,
    sampling_rate: f32,
    /// Packets of the rows that are here.
    packets: u64,
    /// The block that is being filled; it may be full, or gone and another window's.
    filling: u32,
    /// Its blocks, the one that is being filled last.
    places: VecDeque<u32>,
}

/// No window has it.
const NO_WINDOW: WindowNumber = WindowNumber(u64::MAX);

/// All blocks are in use, or the window's place is taken by an older one that has rows still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoBlock;

impl OpenRows {
    /// Of so many blocks, whose memory is written here, so that no packet meets a page fault later.
    pub(super) fn new(blocks: usize) -> Self {
        let blocks = blocks.max(1);
        let block = |rows| Block { window: NO_WINDOW, rows, notes: Notes::default() };
        let places = 0..u32::try_from(blocks).unwrap_or(u32::MAX);
        Self {
            blocks: Rows::of_blocks(blocks).map(block).collect(),
            free: places.rev().collect(),
            windows: std::array::from_fn(|_| OpenWindow {
                window: NO_WINDOW,
                sampling_rate: 1.0,
                packets: 0,
                filling: 0,
                places: VecDeque::with_capacity(blocks),
            }),
            sampling_rate: 1.0,
            nowhere: Row::default(),
        }
    }

    /// The row at `place`, if `flow` has it open in `window`.
    #[inline]
    pub(super) fn get(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<&mut Row> {
        let block = self.blocks.get_mut(place.0 as usize / ROWS_PER_BLOCK)?;
        let row = block.rows.at_mut(place.0 as usize)?;
        (block.window == window && row.flow() == flow).then_some(row)
    }

    /// The same, and where notes on it are written; `None` also where there is no room for those of one
    /// packet.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each packet of a settled flow that is measured asks")]
    pub(super) fn get_noted(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<(&mut Row, RowNotes<'_>)> {
        let block = self.blocks.get_mut(place.0 as usize / ROWS_PER_BLOCK)?;
        let row = block.rows.at_mut(place.0 as usize)?;
        let is_it = block.window == window && row.flow() == flow;
        if is_it { Some((row, block.notes.of_row(row_of(place))?)) } else { None }
    }

    /// Where notes on the row at `place` are written, which was just found or begun: it is not asked
    /// whose it is.
    #[inline]
    pub(super) fn notes(&mut self, place: RowPlace) -> Option<&mut Notes> {
        let block = self.blocks.get_mut(place.0 as usize / ROWS_PER_BLOCK)?;
        debug_assert!(
            block.window != NO_WINDOW && place.0 as usize % ROWS_PER_BLOCK < block.rows.len(),
            "a note on a row that is not open"
        );
        Some(&mut block.notes)
    }

    /// Has the row at `place` fetched, whoever has it, and where notes on it are written if there may
    /// be any.
    #[inline]
    pub(super) fn fetch(&self, place: RowPlace, with_notes: bool) {
        let Some(block) = self.blocks.get(place.0 as usize / ROWS_PER_BLOCK) else { return };
        block.rows.fetch(place.0 as usize);
        if with_notes {
            block.notes.fetch();
        }
    }

    /// Begins a row of `window`, after [`OpenRows::has_room`] with nothing in between; an older one's
    /// fields stand in it.
    #[inline]
    pub(super) fn begin_row(&mut self, window: WindowNumber) -> (RowPlace, &mut Row) {
        let place = self.windows[phase_of(window)].filling;
        let Some(block) = self.blocks.get_mut(place as usize) else {
            return (RowPlace::NOWHERE, &mut self.nowhere);
        };
        block.rows.fetch_ahead(ROWS_AHEAD + 1);
        let at = place_of(place, block.rows.len());
        (at, block.rows.begin().unwrap_or(&mut self.nowhere))
    }

    /// Whether `window` has a block with room.
    #[inline]
    pub(super) fn has_room(&self, window: WindowNumber) -> bool {
        let place = self.windows[phase_of(window)].filling;
        let block = self.blocks.get(place as usize);
        block.is_some_and(|block| block.window == window && block.rows.has_room())
    }

    /// Another block for `window`, without rows.
    ///
    /// # Errors
    /// [`NoBlock`] where all blocks are in use, and nothing was done.
    #[inline(never)]
    pub(super) fn open_block(&mut self, window: WindowNumber) -> Result<(), NoBlock> {
        self.begin(window);
        let open = &mut self.windows[phase_of(window)];
        if open.window != window {
            return Err(NoBlock);
        }
        let place = self.free.pop().ok_or(NoBlock)?;
        open.places.push_back(place);
        open.filling = place;
        let block = &mut self.blocks[place as usize];
        block.window = window;
        for ahead in 0..=ROWS_AHEAD {
            block.rows.fetch_ahead(ahead);
        }
        Ok(())
    }

    /// Counts packets that are in rows of `window`.
    #[inline]
    pub(super) fn count(&mut self, window: WindowNumber, packets: u64) {
        let counted = &mut self.windows[phase_of(window)].packets;
        *counted = counted.wrapping_add(packets);
    }

    /// The share of flows that shedding keeps from now on, while `window` is the newest.
    pub(super) fn set_sampling_rate(&mut self, rate: f32, window: WindowNumber) {
        self.sampling_rate = rate;
        for open in &mut self.windows {
            open.sampling_rate = open.sampling_rate.min(rate);
        }
        self.begin(window);
    }

    /// Takes the next block of `window`, an empty one in exchange.
    pub(super) fn take(&mut self, window: WindowNumber, empty: Rows) -> Option<RowBlock> {
        let open = &mut self.windows[phase_of(window)];
        if open.window != window {
            return None;
        }
        let place = open.places.pop_front()?;
        let sampling_rate = open.sampling_rate;
        let block = &mut self.blocks[place as usize];
        block.window = NO_WINDOW;
        let rows = std::mem::replace(&mut block.rows, empty);
        let notes = std::mem::take(&mut block.notes);
        self.free.push(place);
        Some(RowBlock { window, sampling_rate, rows, notes })
    }

    /// Whether rows of `window` are here.
    pub(super) fn has(&self, window: WindowNumber) -> bool {
        let open = &self.windows[phase_of(window)];
        open.window == window && !open.places.is_empty()
    }

    /// The oldest window that has rows.
    pub(super) fn oldest(&self) -> Option<WindowNumber> {
        let open = self.windows.iter().filter(|open| !open.places.is_empty());
        open.map(|open| open.window).min()
    }

    /// Leaves out the next block of `window`: the packets of its rows, and what was measured in them.
    pub(super) fn lose(&mut self, window: WindowNumber) -> Option<(u64, Notes)> {
        let open = &mut self.windows[phase_of(window)];
        if open.window != window {
            return None;
        }
        let place = open.places.pop_front()?;
        let block = &mut self.blocks[place as usize];
        block.window = NO_WINDOW;
        let packets = block.rows.packets_sum();
        block.rows.clear();
        self.free.push(place);
        Some((packets, std::mem::take(&mut block.notes)))
    }

    /// The window whose rows must go before `window` can have a block: the one in its place, else the
    /// oldest.
    pub(super) fn in_the_way_of(&self, window: WindowNumber) -> Option<WindowNumber> {
        let open = &self.windows[phase_of(window)];
        if open.window != window && !open.places.is_empty() {
            return Some(open.window);
        }
        self.oldest()
    }

    /// Packets of rows that left before their window was over no longer count as its own.
    pub(super) fn left(&mut self, window: WindowNumber, packets: u64) {
        let counted = &mut self.windows[phase_of(window)].packets;
        // Below 0 for a moment where they are counted only now.
        *counted = counted.wrapping_sub(packets);
    }

    /// The packets of a window all of whose blocks were taken; it is over.
    pub(super) fn end(&mut self, window: WindowNumber) -> u64 {
        let open = &mut self.windows[phase_of(window)];
        if open.window == window { std::mem::take(&mut open.packets) } else { 0 }
    }

    /// Bytes of all blocks.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * ROWS_PER_BLOCK * size_of::<Row>()
    }

    /// Something may be booked in `window` from now on.
    fn begin(&mut self, window: WindowNumber) {
        let sampling_rate = self.sampling_rate;
        let open = &mut self.windows[phase_of(window)];
        // A window that has rows is closed before another one takes its place.
        if open.window != window && open.places.is_empty() {
            (open.window, open.sampling_rate) = (window, sampling_rate);
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "below PHASES")]
const fn phase_of(window: WindowNumber) -> usize {
    (window.0 % PHASES as u64) as usize
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "rows of a block are few")]
const fn place_of(block: u32, row: usize) -> RowPlace {
    RowPlace(block * ROWS_PER_BLOCK as u32 + row as u32)
}

/// The place of a row in its block.
#[inline]
pub(super) const fn row_of(place: RowPlace) -> u8 {
    const _: () = assert!(ROWS_PER_BLOCK == 256, "the low octet is the place in the block");
    place.0.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Address;
    use crate::index::{Sender, TapIndex};
    use crate::measure::tcp::Event;
    use crate::spread::FlowKey;
    use crate::window::note::Chunk;
    use crate::window::{Ends, Note, RowFacts, What};

    fn row(flow: u32) -> Row {
        let key = FlowKey { low: Address::v4([10, 0, 0, 1]), ..FlowKey::default() };
        Row::of(&RowFacts {
            flow: FlowIndex(flow),
            key: &key,
            initiator: Sender::Low,
            ends: Ends::default(),
            tap: TapIndex(0),
            application: crate::app::Application::Unknown,
            counts_flow: true,
        })
    }

    fn push(open: &mut OpenRows, window: WindowNumber, row: Row) -> Result<RowPlace, NoBlock> {
        if !open.has_room(window) {
            open.open_block(window)?;
        }
        let (place, begun) = open.begin_row(window);
        *begun = row;
        Ok(place)
    }

    #[test]
    fn a_row_is_its_flows_until_its_block_is_taken() {
        let mut open = OpenRows::new(4);
        let (first, second) = (WindowNumber(8), WindowNumber(9));
        let one = push(&mut open, first, row(1)).expect("there is room");
        let other = push(&mut open, second, row(1)).expect("there is room");
        assert!(open.get(one, first, FlowIndex(1)).is_some());
        assert!(open.get(one, second, FlowIndex(1)).is_none(), "another window");
        assert!(open.get(one, first, FlowIndex(2)).is_none(), "another flow");
        open.count(first, 1);
        let block = open.take(first, Rows::new()).expect("there is one");
        assert_eq!((block.window, block.rows.len()), (first, 1));
        assert!(open.get(one, first, FlowIndex(1)).is_none() && !open.has(first));
        assert_eq!((open.end(first), open.end(first)), (1, 0));
        // The block is used again, by another flow.
        for flow in 0..3 * 256 {
            push(&mut open, second, row(flow)).expect("there is room");
        }
        assert!(open.get(one, second, FlowIndex(1)).is_none());
        assert!(open.get(other, second, FlowIndex(1)).is_some());
    }

    #[test]
    fn blocks_are_bounded_and_a_windows_place_is_its_own() {
        let mut open = OpenRows::new(2);
        let window = WindowNumber(3);
        for flow in 0..512 {
            push(&mut open, window, row(flow)).expect("there is room");
        }
        assert_eq!(push(&mut open, window, row(0)), Err(NoBlock));
        assert_eq!(open.in_the_way_of(window), Some(window));
        let block = open.take(window, Rows::new()).expect("there is one");
        assert_eq!(block.rows[0].flow(), FlowIndex(0), "the oldest goes first");
        let later = WindowNumber(window.0 + PHASES as u64);
        assert_eq!(push(&mut open, later, row(0)), Err(NoBlock));
        assert_eq!(open.in_the_way_of(later), Some(window));
        let _ = open.take(window, Rows::new());
        assert!(push(&mut open, later, row(0)).is_ok());
    }

    #[test]
    fn notes_go_with_their_rows() {
        let mut open = OpenRows::new(4);
        let window = WindowNumber(8);
        push(&mut open, window, row(6)).expect("there is room");
        let place = push(&mut open, window, row(7)).expect("there is room");
        assert_eq!(row_of(place), 1);
        let notes = open.notes(place).expect("they are there");
        notes.grow(Box::new(Chunk::empty()));
        let note = Note::new(What::Event(Event::Gap), Sender::Low, 1).of_row(row_of(place));
        assert_eq!(notes.push(note), Ok(()));
        let block = open.take(window, Rows::new()).expect("there is one");
        assert_eq!(block.notes.iter().collect::<Vec<_>>(), [&note]);
        push(&mut open, window, row(7)).expect("there is room");
        let block = open.take(window, Rows::new()).expect("there is one");
        assert_eq!(block.notes.iter().count(), 0, "a block that is used again has none");
    }

    #[test]
    fn a_window_states_its_lowest_rate() {
        let mut open = OpenRows::new(4);
        let (first, second) = (WindowNumber(10), WindowNumber(11));
        let rate = |open: &mut OpenRows, window| {
            push(open, window, row(1)).expect("there is room");
            open.take(window, Rows::new()).map(|block| block.sampling_rate)
        };
        open.set_sampling_rate(1.0, first);
        open.set_sampling_rate(0.25, first);
        open.set_sampling_rate(0.9, first);
        assert_eq!(rate(&mut open, second), Some(0.9));
        assert_eq!(rate(&mut open, first), Some(0.25));
        open.set_sampling_rate(1.0, second);
        assert_eq!(rate(&mut open, WindowNumber(18)), Some(1.0));
    }
}
