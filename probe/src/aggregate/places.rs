//! Where in a list something is, by its hash.
//!
//! In: hashes, and whether an entry is the one that is looked for. Out: its number in the list.
//! Cost: four bytes a place and one cache line for nearly all look-ups; growing asks for the hash of
//! every entry once.
//! Invariants: at most seven places of eight are taken, so a look ends. Who looks compares the entry
//! itself; the tag only saves most looks at wrong ones.

use super::low;

/// Places of the smallest index.
const PLACES_MIN: usize = 1_024;

/// An index that is so many times as large as it would be made now gives memory back.
const SPARE_TIMES: usize = 8;

/// An index of a list that only grows until all of it is forgotten.
#[derive(Default)]
pub(super) struct Places {
    /// Number of the entry plus one in as many low bits as number the places, bits of the hash in the
    /// others; 0 is empty. As many as a power of two.
    places: Vec<u32>,
}

impl Places {
    /// The entry that lies where a hash wants to be; perhaps another's.
    #[inline]
    pub(super) fn guess(&self, hash: u64) -> Option<usize> {
        let place = self.places.get(low(hash) & self.mask())?;
        self.number_of(*place)
    }

    /// The number of the entry that `is_it`.
    ///
    /// # Errors
    /// The place where it would be.
    #[inline]
    pub(super) fn find(
        &self,
        hash: u64,
        mut is_it: impl FnMut(usize) -> bool,
    ) -> Result<usize, usize> {
        let (mask, tag) = (self.mask(), self.tag_of(hash));
        let mut place = low(hash) & mask;
        while let Some(number) = self.places.get(place).and_then(|place| self.number_of(*place)) {
            if self.places[place] & !self.number_mask() == tag && is_it(number) {
                return Ok(number);
            }
            place = (place + 1) & mask;
        }
        Err(place)
    }

    /// Enters an entry at the place that [`Places::find`] gave.
    #[inline]
    pub(super) fn put(&mut self, place: usize, hash: u64, number: usize) {
        let number = u32::try_from(number + 1).unwrap_or(0) & self.number_mask();
        self.places[place] = self.tag_of(hash) | number;
    }

    /// Makes room for `entries` entries, of which those in `hashes` are there already, in order.
    pub(super) fn reserve(&mut self, entries: usize, hashes: impl Iterator<Item = u64>) {
        let places = places_for(entries);
        if places <= self.places.len() {
            return;
        }
        self.places.clear();
        self.places.resize(places, 0);
        for (number, hash) in hashes.enumerate() {
            let Err(place) = self.find(hash, |_| false) else { continue };
            self.put(place, hash, number);
        }
    }

    /// Whether so many entries have room.
    #[inline]
    pub(super) fn has_room(&self, entries: usize) -> bool {
        entries <= self.places.len() / 8 * 7
    }

    /// Forgets all, of which there were so many, and keeps the memory that as many again need.
    pub(super) fn clear(&mut self, entries: usize) {
        let places = places_for(entries);
        if self.places.len() >= SPARE_TIMES * places {
            self.places.truncate(places);
            self.places.shrink_to_fit();
        }
        self.places.fill(0);
    }

    /// Places there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }

    #[inline]
    fn number_mask(&self) -> u32 {
        u32::try_from(self.mask()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn number_of(&self, place: u32) -> Option<usize> {
        ((place & self.number_mask()) as usize).checked_sub(1)
    }

    #[inline]
    fn tag_of(&self, hash: u64) -> u32 {
        let [.., a, b, c, d] = hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d]) & !self.number_mask()
    }
}

/// Places for so many entries.
fn places_for(entries: usize) -> usize {
    (entries.saturating_mul(8) / 7 + 1).next_power_of_two().max(PLACES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash that looks drawn.
    fn hash(number: usize) -> u64 {
        (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }

    fn filled(entries: usize) -> Places {
        let mut places = Places::default();
        for number in 0..entries {
            if !places.has_room(number + 1) {
                places.reserve(number + 1, (0..number).map(hash));
            }
            let place = places.find(hash(number), |found| found == number);
            places.put(place.expect_err("it is not there"), hash(number), number);
        }
        places
    }

    #[test]
    fn what_was_put_is_found_and_nothing_else() {
        for entries in [0, 1, 895, 896, 897, 50_000] {
            let places = filled(entries);
            for number in 0..entries {
                assert_eq!(places.find(hash(number), |found| found == number), Ok(number));
            }
            assert!(places.find(hash(entries), |found| found == entries).is_err());
            assert!(places.len() / 8 * 7 >= entries);
        }
    }

    #[test]
    fn tags_save_nearly_all_looks_at_wrong_entries() {
        let places = filled(50_000);
        let mut looks = 0;
        for number in 0..50_000 {
            let _ = places.find(hash(number), |found| {
                looks += 1;
                found == number
            });
        }
        assert!(looks < 50_100, "{looks}");
    }

    #[test]
    fn after_a_flood_memory_is_given_back() {
        let mut places = filled(100_000);
        assert_eq!(places.len(), 1 << 17);
        places.clear(50_000);
        assert_eq!(places.len(), 1 << 17);
        places.clear(10_000);
        assert_eq!(places.len(), 1 << 14);
        assert!(places.places.capacity() < 1 << 15 && places.find(hash(1), |_| true).is_err());
    }
}
