//! Where a flow is: buckets of tags over a dense slab.
//!
//! In: key and hash. Out: [`FlowIndex`] into the slab.
//! Cost: one cache line for the bucket and the flow's own lines on a hit; no allocation after
//! `new`, the slab is reserved and filled as flows come.
//! Invariants: one slot per live key; at most `slots` flows; an index stays valid until its flow is
//! removed; a look-up reads at most `PROBES_MAX` buckets.
//! Source: bucketised hashing with tags as in Cuckoo++ (Le Scouarnec 2018) and F14, without moves.

use crate::index::FlowIndex;
use crate::spread::FlowKey;

use super::Flow;

const WAYS: usize = 10;

/// Buckets that a key may lie in, from its home on.
const PROBES_MAX: usize = 8;

/// Flows for each bucket on average when the table is full.
const LOAD_PER_BUCKET: usize = 5;

const FREE: u32 = u32::MAX;

/// One cache line: tags are compared before any flow is touched.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    flows: [u32; WAYS],
    tags: [u16; WAYS],
    /// Flows whose home this is and that lie further on; a look-up goes on while it is not 0.
    overflowed: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Self = Self { flows: [FREE; WAYS], tags: [0; WAYS], overflowed: 0 };
}

/// Flow table of one worker.
pub struct FlowTable {
    buckets: Box<[Bucket]>,
    mask: usize,
    flows: Vec<Flow>,
    free: Vec<u32>,
    slots: usize,
}

/// Why a flow finds no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFull {
    /// All slots are in use.
    Slots,
    /// No bucket near the key's home has room; this flow lies in its home and could leave.
    Bucket(FlowIndex),
}

impl FlowTable {
    /// For at most `slots` flows.
    pub fn new(slots: u32) -> Self {
        let slots = slots as usize;
        let buckets = (slots / LOAD_PER_BUCKET).next_power_of_two();
        Self {
            buckets: vec![Bucket::EMPTY; buckets].into_boxed_slice(),
            mask: buckets - 1,
            flows: Vec::with_capacity(slots),
            free: Vec::with_capacity(slots),
            slots,
        }
    }

    /// Bytes of memory a flow, with its share of the buckets, when the table is full.
    pub fn bytes_per_flow(&self) -> usize {
        let buckets = self.buckets.len() * size_of::<Bucket>();
        size_of::<Flow>() + size_of::<u32>() + buckets.div_ceil(self.slots)
    }

    /// Live flows.
    pub fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    /// Whether no flow is live.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots that were ever used; indices are below it.
    pub fn slots_used(&self) -> usize {
        self.flows.len()
    }

    /// Flows at most.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Reads the key's home bucket, so that the processor fetches it while other packets of the
    /// burst are looked at. What it returns means nothing.
    #[inline]
    pub fn touch_bucket(&self, hash: u64) -> u32 {
        self.buckets[self.home(hash)].overflowed
    }

    /// Where the key's flow probably is, from tags alone, so that its lines can be fetched.
    #[inline]
    pub fn touch_flow(&self, hash: u64) -> u8 {
        let bucket = &self.buckets[self.home(hash)];
        let tag = tag_of(hash);
        let way = (0..WAYS).find(|&way| bucket.tags[way] == tag && bucket.flows[way] != FREE);
        way.map_or(0, |way| self.flows[bucket.flows[way] as usize].key.protocol)
    }

    /// The flow with this key.
    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<FlowIndex> {
        let tag = tag_of(hash);
        let home = self.home(hash);
        for probe in 0..PROBES_MAX {
            let bucket = &self.buckets[(home + probe) & self.mask];
            for way in 0..WAYS {
                let flow = bucket.flows[way];
                if bucket.tags[way] == tag && flow != FREE && self.flows[flow as usize].key == *key
                {
                    return Some(FlowIndex(flow));
                }
            }
            if bucket.overflowed == 0 {
                return None;
            }
        }
        None
    }

    /// Puts a flow in whose key is not there yet.
    ///
    /// # Errors
    /// [`TableFull`], and nothing was put in.
    ///
    /// # Panics
    /// Never: slots are counted by a `u32`.
    pub fn insert(&mut self, flow: Flow) -> Result<FlowIndex, TableFull> {
        let home = self.home(flow.hash);
        let room = (0..PROBES_MAX).find_map(|probe| {
            let place = (home + probe) & self.mask;
            let way = self.buckets[place].flows.iter().position(|slot| *slot == FREE)?;
            Some((probe, place, way))
        });
        let Some((probe, place, way)) = room else {
            return Err(TableFull::Bucket(FlowIndex(self.buckets[home].flows[0])));
        };
        let tag = tag_of(flow.hash);
        let index = if let Some(index) = self.free.pop() {
            self.flows[index as usize] = flow;
            index
        } else if self.flows.len() < self.slots {
            self.flows.push(flow);
            u32::try_from(self.flows.len() - 1).expect("slots is a u32")
        } else {
            return Err(TableFull::Slots);
        };
        self.buckets[place].flows[way] = index;
        self.buckets[place].tags[way] = tag;
        self.count_overflow(home, probe, 1);
        Ok(FlowIndex(index))
    }

    /// Takes a flow out; its index may be given to another flow from now on.
    pub fn remove(&mut self, index: FlowIndex) {
        let hash = self.flows[index.0 as usize].hash;
        let home = self.home(hash);
        for probe in 0..PROBES_MAX {
            let bucket = &mut self.buckets[(home + probe) & self.mask];
            if let Some(way) = bucket.flows.iter().position(|slot| *slot == index.0) {
                bucket.flows[way] = FREE;
                self.count_overflow(home, probe, -1);
                self.flows[index.0 as usize].live = false;
                self.free.push(index.0);
                return;
            }
        }
    }

    /// The flow at an index that this table gave; it may be a dead one if it was removed since.
    #[inline]
    pub fn flow(&self, index: FlowIndex) -> &Flow {
        &self.flows[index.0 as usize]
    }

    /// The same, to change.
    #[inline]
    pub fn flow_mut(&mut self, index: FlowIndex) -> &mut Flow {
        &mut self.flows[index.0 as usize]
    }

    /// A flow that was put in as `(index, born)` and still is the same one.
    pub fn same(&self, index: FlowIndex, born: u32) -> Option<&Flow> {
        self.flows.get(index.0 as usize).filter(|flow| flow.live && flow.born == born)
    }

    /// Each bucket from the home up to the one before where the flow lies was passed over.
    fn count_overflow(&mut self, home: usize, probe: usize, by: i32) {
        for passed in 0..probe {
            let bucket = &mut self.buckets[(home + passed) & self.mask];
            bucket.overflowed = bucket.overflowed.saturating_add_signed(by);
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to the number of buckets")]
    fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask
    }
}

/// Bits that pick neither the worker nor, in any sensible size, the bucket.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "16 bits are what a tag is")]
const fn tag_of(hash: u64) -> u16 {
    (hash >> 28) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Headers;
    use crate::spread::HashSeed;

    fn flow(number: u32, seed: HashSeed) -> Flow {
        let headers = Headers {
            source_port: u16::try_from(number & 0xffff).expect("16 bits"),
            destination_port: u16::try_from(number >> 16).expect("16 bits"),
            ..Headers::default()
        };
        let (key, _) = FlowKey::of(&headers);
        Flow { key, hash: key.hash(seed), live: true, ..Flow::default() }
    }

    #[test]
    fn holds_as_many_flows_as_it_has_slots() {
        let seed = HashSeed::random();
        let mut table = FlowTable::new(1 << 12);
        let mut indices = Vec::new();
        // Ports 0 and n and ports n and 0 are one key, so numbers stay below 2^16.
        for number in 0..1 << 12 {
            indices.push(table.insert(flow(number, seed)).expect("there is room"));
        }
        assert_eq!(table.insert(flow(60_000, seed)), Err(TableFull::Slots));
        for number in 0..1 << 12 {
            let wanted = flow(number, seed);
            assert_eq!(table.find(&wanted.key, wanted.hash), Some(indices[number as usize]));
        }
        for index in indices {
            table.remove(index);
        }
        assert!(table.is_empty());
        assert!(table.buckets.iter().all(|bucket| bucket.overflowed == 0));
    }

    #[test]
    fn agrees_with_a_map_under_random_operations() {
        let seed = HashSeed::fixed();
        let mut table = FlowTable::new(1 << 8);
        let mut model = std::collections::HashMap::new();
        let mut state = 7_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = u32::try_from(state >> 55).expect("9 bits");
            let wanted = flow(number, seed);
            assert_eq!(table.find(&wanted.key, wanted.hash), model.get(&number).copied());
            match model.get(&number) {
                Some(index) => {
                    table.remove(*index);
                    model.remove(&number);
                }
                None => match table.insert(wanted) {
                    Ok(index) => {
                        model.insert(number, index);
                    }
                    Err(full) => assert!(model.len() > 200, "{full:?} at {}", model.len()),
                },
            }
            assert_eq!(table.len(), model.len());
        }
    }
}
