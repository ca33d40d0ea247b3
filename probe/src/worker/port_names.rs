//! Names of ports that appear while a capture is read.
//!
//! In: names, from the one worker that reads. Out: each by its place, for any thread.
//! Cost: a name is written once and never moved, however many follow; a look is two loads.
//! Invariants: a name never changes; places have no gaps; at most 65,536.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// As many as a [`crate::index::PortIndex`] can tell apart.
const NAMES_MAX: usize = 1 << u16::BITS;

/// Names that are made room for at once.
const CHUNK_NAMES: usize = 256;

type Chunk = Box<[OnceLock<Arc<str>>]>;

#[derive(Debug)]
struct Names {
    chunks: Box<[OnceLock<Chunk>]>,
    count: AtomicUsize,
}

/// The list, shared.
#[derive(Clone, Debug)]
pub struct PortNames(Arc<Names>);

impl Default for PortNames {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl PortNames {
    /// Begins with the ports of the configuration.
    pub fn new(names: &[String]) -> Self {
        let chunks = (0..NAMES_MAX / CHUNK_NAMES).map(|_| OnceLock::new()).collect();
        let list = Self(Arc::new(Names { chunks, count: AtomicUsize::new(0) }));
        for name in names {
            list.add(name);
        }
        list
    }

    /// Adds a name at the end; only one thread does. Beyond 65,536 it is left out.
    pub fn add(&self, name: &str) {
        let place = self.0.count.load(Ordering::Relaxed);
        let Some(chunk) = self.0.chunks.get(place / CHUNK_NAMES) else { return };
        let chunk = chunk.get_or_init(|| (0..CHUNK_NAMES).map(|_| OnceLock::new()).collect());
        // Nobody else adds, so the place is empty.
        let _ = chunk[place % CHUNK_NAMES].set(name.into());
        self.0.count.store(place + 1, Ordering::Relaxed);
    }

    /// Names so far; at least those whose packets the caller has seen.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// The name at `place`, if it is known by now.
    pub fn get(&self, place: usize) -> Option<Arc<str>> {
        let chunk = self.0.chunks.get(place / CHUNK_NAMES)?.get()?;
        chunk[place % CHUNK_NAMES].get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_where_they_are_and_end_with_sixteen_bits() {
        let names = PortNames::new(&["a".to_owned()]);
        let first = names.get(0).expect("it was added");
        for number in 1..NAMES_MAX + 10 {
            names.add(&number.to_string());
        }
        assert!(Arc::ptr_eq(&first, &names.get(0).expect("it stays")));
        for place in [1, CHUNK_NAMES - 1, CHUNK_NAMES, NAMES_MAX - 1] {
            assert_eq!(names.get(place).as_deref(), Some(place.to_string().as_str()));
        }
        assert_eq!(names.get(NAMES_MAX), None);
    }

    #[test]
    fn another_thread_sees_what_was_added() {
        let names = PortNames::default();
        let reader = names.clone();
        let thread = std::thread::spawn(move || {
            (0..1_000).for_each(|place| {
                while reader.get(place).is_none() {
                    std::thread::yield_now();
                }
                assert_eq!(reader.get(place).as_deref(), Some(place.to_string().as_str()));
            });
        });
        (0..1_000).for_each(|number: u32| names.add(&number.to_string()));
        thread.join().expect("the reader ends");
        assert_eq!(names.count(), 1_000);
    }
}
