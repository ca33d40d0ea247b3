//! Fragments that wait for their first one, in one chain a datagram.
//!
//! In: headers. Out: the same, oldest first.
//! Cost: one copy of the headers each way. Allocates only in `new`.
//! Invariants: at most as many as there are places; each is in one chain.

use crate::decode::Headers;

struct Waiting {
    headers: Headers,
    /// The one that came before it.
    older: Option<u32>,
}

/// All places.
pub(super) struct WaitingFragments {
    places: Vec<Waiting>,
    free: Vec<u32>,
    places_max: usize,
}

impl WaitingFragments {
    /// For `places` fragments.
    pub(super) fn new(places: u32) -> Self {
        let places_max = places as usize;
        Self {
            places: Vec::with_capacity(places_max),
            free: Vec::with_capacity(places_max),
            places_max,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> u64 {
        (self.places.len() - self.free.len()) as u64
    }

    /// Adds a fragment to the chain whose newest one is `older`; `None` without room.
    pub(super) fn add(&mut self, headers: &Headers, older: Option<u32>) -> Option<u32> {
        let waiting = Waiting { headers: *headers, older };
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = waiting;
            return Some(place);
        }
        if self.places.len() == self.places_max {
            return None;
        }
        self.places.push(waiting);
        u32::try_from(self.places.len() - 1).ok()
    }

    /// Appends the chain whose newest one is `newest` to `ready`, oldest first, each as `change`
    /// makes it.
    pub(super) fn release(
        &mut self,
        newest: Option<u32>,
        ready: &mut Vec<Headers>,
        change: impl Fn(&Headers) -> Headers,
    ) {
        let begin = ready.len();
        let mut next = newest;
        while let Some(place) = next {
            let waiting = &self.places[place as usize];
            ready.push(change(&waiting.headers));
            next = waiting.older;
            self.free.push(place);
        }
        ready[begin..].reverse();
    }
}
