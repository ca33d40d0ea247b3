//! Requests that changed the inventory, so that the same one again changes nothing.
//!
//! In: idempotency keys, revisions of VMs. Out: whether a request was taken before, or an event is older
//! than what is known.
//! Cost: a look-up; memory for [`KEYS_MAX`] keys and [`REVISIONS_MAX`] revisions.
//! Invariants: bounded; beyond the bounds what was used longest ago is forgotten first.
//! Source: draft-ietf-httpapi-idempotency-key-header.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::inventory::Uuid;
use crate::time::Timestamp;

/// Keys that are remembered at most.
pub const KEYS_MAX: usize = 1 << 14;
/// VMs whose revision is remembered at most.
pub const REVISIONS_MAX: usize = 1 << 18;
/// VMs that requests of this run have told of, at most: as many as may wait for the keeper.
const TOLD_MAX: usize = 1 << 18;

/// What was answered to a request with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Digest of what was asked.
    pub digest: u64,
    /// When it became known.
    pub known: Timestamp,
    /// Changes of attributes.
    pub changes: u64,
    /// Events that were older than what was known.
    pub stale: u64,
}

/// What is to be remembered of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestNote {
    /// Its key, if it had one.
    pub key: Option<(Arc<str>, Taken)>,
    /// Revisions that it gave.
    pub revisions: Vec<(Uuid, u64)>,
}

impl RequestNote {
    /// Whether there is nothing to be remembered.
    pub fn is_empty(&self) -> bool {
        self.key.is_none() && self.revisions.is_empty()
    }
}

/// All that is remembered.
#[derive(Clone, Debug)]
pub struct Requests {
    keys: Recent<Arc<str>, Taken>,
    revisions: Recent<Uuid, u64>,
    /// In no journal: what is told is in the inventory soon after.
    told: Recent<Uuid, ()>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            keys: Recent::new(KEYS_MAX),
            revisions: Recent::new(REVISIONS_MAX),
            told: Recent::new(TOLD_MAX),
        }
    }
}

impl Requests {
    /// What was answered to the key.
    pub fn taken(&self, key: &str) -> Option<Taken> {
        self.keys.get(key).copied()
    }

    /// The largest revision that was given of a VM.
    pub fn revision(&self, vm: Uuid) -> Option<u64> {
        self.revisions.get(&vm).copied()
    }

    /// Whether a request of this run has told of a VM, which look-ups may not see yet.
    pub fn was_told(&self, vm: Uuid) -> bool {
        self.told.get(&vm).is_some()
    }

    /// Remembers that a request has told of VMs.
    pub fn tell(&mut self, vms: &[Uuid]) {
        for vm in vms {
            self.told.put(*vm, ());
        }
    }

    /// Remembers a request.
    pub fn note(&mut self, note: &RequestNote) {
        if let Some((key, taken)) = &note.key {
            self.keys.put(Arc::clone(key), *taken);
        }
        for (vm, revision) in &note.revisions {
            let before = self.revision(*vm).unwrap_or(0);
            self.revisions.put(*vm, before.max(*revision));
        }
    }

    /// All of it, oldest first, as notes of a bounded size.
    pub fn notes(&self) -> Vec<RequestNote> {
        let revisions: Vec<_> = self.revisions.in_order().map(|(vm, r)| (*vm, *r)).collect();
        let revisions = revisions.chunks(1_000);
        let revisions = revisions.map(|part| RequestNote { key: None, revisions: part.to_vec() });
        let keys = self.keys.in_order().map(|(key, taken)| RequestNote {
            key: Some((Arc::clone(key), *taken)),
            revisions: Vec::new(),
        });
        revisions.chain(keys).collect()
    }
}

/// A map of bounded size that forgets first what was put longest ago.
#[derive(Clone, Debug)]
struct Recent<K, V> {
    max: usize,
    next: u64,
    values: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn new(max: usize) -> Self {
        Self { max, next: 0, values: HashMap::new(), order: BTreeMap::new() }
    }

    fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key).map(|(_, value)| value)
    }

    fn put(&mut self, key: K, value: V) {
        self.next += 1;
        if let Some((before, _)) = self.values.insert(key.clone(), (self.next, value)) {
            self.order.remove(&before);
        }
        self.order.insert(self.next, key);
        if self.values.len() > self.max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
    }

    fn in_order(&self) -> impl Iterator<Item = (&K, &V)> {
        self.order.values().filter_map(|key| Some((key, &self.values.get(key)?.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_longest_ago_is_forgotten_first() {
        let mut recent = Recent::new(2);
        for key in [1, 2, 1, 3] {
            recent.put(key, key * 10);
        }
        assert_eq!([1, 2, 3].map(|key| recent.get(&key).copied()), [Some(10), None, Some(30)]);
        assert_eq!(recent.in_order().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(recent.order.len(), 2);
    }

    #[test]
    fn notes_say_all_of_it_again() {
        let taken = |known| Taken { digest: 7, known: Timestamp(known), changes: 3, stale: 1 };
        let mut requests = Requests::default();
        for number in 0..2_500_u64 {
            let key = (number < 3).then(|| (number.to_string().into(), taken(number)));
            requests.note(&RequestNote { key, revisions: vec![(Uuid(number.into()), number)] });
        }
        // An older revision never takes the place of a newer one.
        requests.note(&RequestNote { key: None, revisions: vec![(Uuid(9), 4)] });
        assert_eq!(requests.revision(Uuid(9)), Some(9));
        let mut again = Requests::default();
        let notes = requests.notes();
        assert_eq!(notes.len(), 3 + 3);
        for note in &notes {
            again.note(note);
        }
        assert_eq!(again.taken("2"), Some(taken(2)));
        assert_eq!(again.notes(), notes);
    }
}
