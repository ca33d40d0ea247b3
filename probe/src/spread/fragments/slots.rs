//! Places for datagrams, in queues by what is known of them.
//!
//! In: keys and deadlines. Out: the place of a datagram, the oldest of each queue.
//! Cost: one map look-up to find one; all else is a few loads. Allocates only in `new`.
//! Invariants: at most as many datagrams as places; each is in one queue. Within a queue all have
//! the same time to live from when they joined it, so they stand in order of their deadlines.

use std::collections::HashMap;

use super::datagram::{Datagram, DatagramKey};
use crate::time::Timestamp;

/// What is known of the datagrams of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// The first fragment did not come yet.
    Unknown,
    /// Ports are known, more fragments may come.
    Known,
    /// All of it was seen.
    Whole,
}

const QUEUES: usize = 3;

struct Entry {
    key: DatagramKey,
    datagram: Datagram,
    deadline: Timestamp,
    queue: Queue,
    older: Option<u32>,
    newer: Option<u32>,
}

#[derive(Clone, Copy, Default)]
struct Ends {
    oldest: Option<u32>,
    newest: Option<u32>,
}

/// All places.
pub(super) struct Slots {
    by_key: HashMap<DatagramKey, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    ends: [Ends; QUEUES],
    count: u32,
}

impl Slots {
    /// For `count` datagrams.
    pub(super) fn new(count: u32) -> Self {
        Self {
            by_key: HashMap::with_capacity(count as usize),
            entries: Vec::with_capacity(count as usize),
            free: Vec::with_capacity(count as usize),
            ends: [Ends::default(); QUEUES],
            count,
        }
    }

    pub(super) fn find(&self, key: &DatagramKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.count as usize
    }

    pub(super) fn datagram(&mut self, slot: u32) -> &mut Datagram {
        &mut self.entries[slot as usize].datagram
    }

    /// A new datagram at the end of [`Queue::Unknown`]; there must be room.
    pub(super) fn insert(&mut self, key: DatagramKey, deadline: Timestamp) -> u32 {
        let entry = Entry {
            key,
            datagram: Datagram::default(),
            deadline,
            queue: Queue::Unknown,
            older: None,
            newer: None,
        };
        let slot = if let Some(slot) = self.free.pop() {
            self.entries[slot as usize] = entry;
            slot
        } else {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("places are counted in 32 bits")
        };
        self.by_key.insert(key, slot);
        self.append(slot, Queue::Unknown);
        slot
    }

    /// Puts a datagram to the end of a queue, with a new deadline.
    pub(super) fn move_to(&mut self, slot: u32, queue: Queue, deadline: Timestamp) {
        self.unlink(slot);
        self.entries[slot as usize].deadline = deadline;
        self.append(slot, queue);
    }

    /// Takes a datagram out.
    pub(super) fn remove(&mut self, slot: u32) -> Datagram {
        self.unlink(slot);
        let entry = &self.entries[slot as usize];
        self.by_key.remove(&entry.key);
        self.free.push(slot);
        entry.datagram
    }

    /// The datagram that joined `queue` first, and its deadline.
    pub(super) fn oldest(&self, queue: Queue) -> Option<(u32, Timestamp)> {
        let slot = self.ends[queue as usize].oldest?;
        Some((slot, self.entries[slot as usize].deadline))
    }

    /// Whether the datagram's ports were known, and are not to be used any more at `clock`.
    pub(super) fn is_over(&self, slot: u32, clock: Timestamp) -> bool {
        let entry = &self.entries[slot as usize];
        entry.queue != Queue::Unknown && entry.deadline <= clock
    }

    fn append(&mut self, slot: u32, queue: Queue) {
        let ends = &mut self.ends[queue as usize];
        let older = ends.newest.replace(slot);
        ends.oldest = ends.oldest.or(Some(slot));
        if let Some(older) = older {
            self.entries[older as usize].newer = Some(slot);
        }
        let entry = &mut self.entries[slot as usize];
        (entry.queue, entry.older, entry.newer) = (queue, older, None);
    }

    fn unlink(&mut self, slot: u32) {
        let Entry { queue, older, newer, .. } = self.entries[slot as usize];
        match older {
            Some(older) => self.entries[older as usize].newer = newer,
            None => self.ends[queue as usize].oldest = newer,
        }
        match newer {
            Some(newer) => self.entries[newer as usize].older = older,
            None => self.ends[queue as usize].newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Headers;

    const ALL: [Queue; QUEUES] = [Queue::Unknown, Queue::Known, Queue::Whole];

    fn key(number: u32) -> DatagramKey {
        DatagramKey::of(&Headers { ip_identification: number, ..Headers::default() })
    }

    /// Against a list for each queue, with a fixed sequence of steps that looks random.
    #[test]
    fn queues_agree_with_lists() {
        let mut slots = Slots::new(16);
        let mut lists: [Vec<u32>; 3] = Default::default();
        let mut state = 1_u32;
        for clock in 0..20_000_u64 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (number, queue) = (state >> 27, ALL[(state >> 8) as usize % QUEUES]);
            let Some(slot) = slots.find(&key(number)) else {
                if !slots.is_full() {
                    let slot = slots.insert(key(number), Timestamp(clock));
                    lists[0].push(slot);
                }
                continue;
            };
            for list in &mut lists {
                list.retain(|place| *place != slot);
            }
            if state & 1 == 0 {
                slots.remove(slot);
            } else {
                slots.move_to(slot, queue, Timestamp(clock));
                lists[queue as usize].push(slot);
            }
            for queue in ALL {
                let oldest = slots.oldest(queue).map(|(slot, _)| slot);
                assert_eq!(oldest, lists[queue as usize].first().copied());
            }
            assert_eq!(slots.len(), lists.iter().map(Vec::len).sum::<usize>());
        }
        assert!(slots.entries.len() <= 16);
    }
}
