//! Places for what few flows have.
//!
//! In: entries. Out: their places, which a flow keeps.
//! Cost: a look is one index; memory is reserved at start and written when a place is first taken.
//! Invariants: never more than so many places; one that is refused is counted.
//! Source: none.

/// No place.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A bounded number of entries.
pub(super) struct Slab<T> {
    entries: Vec<T>,
    free: Vec<u32>,
    places: usize,
    refused: u64,
}

impl<T> Slab<T> {
    /// With so many places.
    pub(super) fn new(places: usize) -> Self {
        Self {
            entries: Vec::with_capacity(places),
            free: Vec::with_capacity(places),
            places,
            refused: 0,
        }
    }

    /// Bytes when all places are taken.
    pub(super) fn bytes(&self) -> usize {
        self.places * (size_of::<T>() + size_of::<u32>())
    }

    /// Times that no place was free.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn get(&self, place: u32) -> Option<&T> {
        self.entries.get(place as usize)
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.entries.get_mut(place as usize)
    }

    /// Takes a place; `None`, and counted, where all are taken.
    pub(super) fn take(&mut self, entry: T) -> Option<u32> {
        if let Some(place) = self.free.pop() {
            self.entries[place as usize] = entry;
            return Some(place);
        }
        let place =
            u32::try_from(self.entries.len()).ok().filter(|_| self.entries.len() < self.places);
        match place {
            Some(_) => self.entries.push(entry),
            None => self.refused += 1,
        }
        place
    }

    pub(super) fn give_back(&mut self, place: u32) {
        if place != NOWHERE {
            self.free.push(place);
        }
    }
}
