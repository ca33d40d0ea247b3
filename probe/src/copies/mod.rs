//! First copy, duplicate at one tap, or copy at another tap.
//!
//! In: headers with tap and time. Out: a [`Verdict`] for each packet.
//! Cost: one hash of invariant fields and one cache line.
//! Invariants: the number of packets called [`Verdict::First`] for one digest is the largest number
//! seen at any one tap. Bounded memory; what had to be forgotten early is counted.
//! Source: hash-based selection over invariant fields, RFC 5475 §6.2; trajectory sampling (Duffield
//! and Grossglauser 2001).

mod digest;

pub use digest::{Digest, Invariant, PayloadMask};

use crate::config::CopiesPlan;
use crate::decode::Headers;
use crate::index::TapIndex;
use crate::memory;
use crate::spread::HashSeed;
use crate::time::{Timestamp, ms};

/// What a packet is, seen beside those shortly before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A logical packet seen for the first time: it counts.
    First,
    /// Equal to one seen at the same tap, with nothing to tell them apart: it counts, and is
    /// counted as ambiguous.
    Ambiguous,
    /// Seen at the same tap before.
    Duplicate,
    /// Seen at another tap before.
    OtherTap {
        /// The tap that saw it before.
        tap: TapIndex,
        /// When.
        seen: Timestamp,
    },
}

const WAYS: usize = 4;

/// Bits of a tag.
const TAG_BITS: u32 = 28;

/// Duplicates in a row that a mirror makes at most of one packet. More equal packets are a flood of
/// packets whose identification stands still, and count.
const REPEATS_MAX: u32 = 3;

/// One digest at one tap. `count` 0 marks a free entry.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    seen: Timestamp,
    /// Tag of the digest, and above it the duplicates since a packet counted last.
    tag_repeats: u32,
    tap: TapIndex,
    strict: u8,
    count: u8,
}

impl Entry {
    /// Of a packet that its tap sees for the first time.
    #[inline]
    const fn of((tap, seen): (TapIndex, Timestamp), digest: &Digest) -> Self {
        Self { seen, tag_repeats: digest.tag & TAG_MASK, tap, strict: digest.strict, count: 1 }
    }

    #[inline]
    const fn has(&self, tag: u32) -> bool {
        (self.tag_repeats ^ tag) & TAG_MASK == 0
    }

    const fn repeats(&self) -> u32 {
        self.tag_repeats >> TAG_BITS
    }
}

const TAG_MASK: u32 = (1 << TAG_BITS) - 1;

/// Entries side by side, so that all tags are compared at once.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket {
    tags_repeats: [u32; WAYS],
    seen: [Timestamp; WAYS],
    taps: [TapIndex; WAYS],
    stricts: [u8; WAYS],
    counts: [u8; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64, "one cache line a packet");

impl Bucket {
    #[inline]
    fn has(&self, tag: u32) -> bool {
        let [a, b, c, d] = self.tags_repeats.map(|other| (other ^ tag) & TAG_MASK == 0);
        a | b | c | d
    }

    fn entries(&self) -> [Entry; WAYS] {
        std::array::from_fn(|way| Entry {
            seen: self.seen[way],
            tag_repeats: self.tags_repeats[way],
            tap: self.taps[way],
            strict: self.stricts[way],
            count: self.counts[way],
        })
    }

    #[inline]
    fn put(&mut self, way: usize, entry: Entry) {
        // The remainder needs no check.
        let way = way % WAYS;
        self.seen[way] = entry.seen;
        self.tags_repeats[way] = entry.tag_repeats;
        self.taps[way] = entry.tap;
        self.stricts[way] = entry.strict;
        self.counts[way] = entry.count;
    }

    /// Whether the way is free, or too old to matter. One that was never taken is both.
    #[inline]
    fn is_free(&self, way: usize, now: Timestamp, keep_ns: u64) -> bool {
        now.0.abs_diff(self.seen[way].0) > keep_ns || self.counts[way] == 0
    }

    /// The first free way, else the oldest.
    #[inline]
    fn free_way(&self, now: Timestamp, keep_ns: u64, evicted: &mut u64) -> usize {
        if self.is_free(0, now, keep_ns) {
            return 0;
        }
        self.free_way_behind(now, keep_ns, evicted)
    }

    #[inline(never)]
    fn free_way_behind(&self, now: Timestamp, keep_ns: u64, evicted: &mut u64) -> usize {
        let mut oldest = 0;
        for way in 1..WAYS {
            if self.is_free(way, now, keep_ns) {
                return way;
            }
            if self.seen[way] < self.seen[oldest] {
                oldest = way;
            }
        }
        *evicted += 1;
        oldest
    }
}

/// Digests of the last moments.
pub struct CopyTable {
    buckets: memory::Table<Bucket>,
    mask: usize,
    seed: HashSeed,
    window_ns: u64,
    path_window_ns: u64,
    payload_mask: PayloadMask,
    known_to_duplicate: Box<[bool]>,
    evicted: u64,
}

impl CopyTable {
    /// `known_to_duplicate[tap]`: the tap copies packets twice by construction.
    pub fn new(plan: &CopiesPlan, seed: HashSeed, known_to_duplicate: Vec<bool>) -> Self {
        let buckets = (plan.slots as usize / WAYS).next_power_of_two();
        Self {
            buckets: memory::table(buckets, Bucket::default()),
            mask: buckets - 1,
            seed,
            window_ns: ms(u64::from(plan.window_ms)),
            path_window_ns: ms(u64::from(plan.path_window_ms)),
            payload_mask: PayloadMask::first(plan.digest_payload_octets),
            known_to_duplicate: known_to_duplicate.into_boxed_slice(),
            evicted: 0,
        }
    }

    /// Has the line fetched that the packet's digest lies in.
    #[inline]
    pub fn fetch(&self, digest: &Digest) {
        memory::fetch_at(&self.buckets, digest.place & self.mask);
    }

    /// The digest of a packet. For [`CopyTable::classify`].
    #[inline]
    pub fn digest(&self, headers: &Headers) -> Digest {
        self.digest_of(&Invariant::of(headers, self.seed))
    }

    /// The same from what is known of it.
    #[inline]
    pub fn digest_of(&self, invariant: &Invariant) -> Digest {
        Digest::of(invariant, self.payload_mask, self.seed)
    }

    /// Says what the packet is that was seen at a tap at some time, and remembers it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "hardly any packet goes another way than this")]
    pub fn classify(&mut self, at: (TapIndex, Timestamp), digest: &Digest) -> Verdict {
        let bucket = &mut self.buckets[digest.place & self.mask];
        // Hardly any packet is a copy: first all tags at once.
        if bucket.has(digest.tag) {
            return self.classify_known(at, digest);
        }
        if !bucket.is_free(0, at.1, self.path_window_ns) {
            return self.put_behind(at, digest);
        }
        bucket.put(0, Entry::of(at, digest));
        Verdict::First
    }

    /// A packet whose tag is not in its bucket, where the first way is not free.
    #[inline(never)]
    fn put_behind(&mut self, at: (TapIndex, Timestamp), digest: &Digest) -> Verdict {
        let bucket = &mut self.buckets[digest.place & self.mask];
        let way = bucket.free_way_behind(at.1, self.path_window_ns, &mut self.evicted);
        bucket.put(way, Entry::of(at, digest));
        Verdict::First
    }

    /// A packet whose tag is in its bucket already.
    #[inline(never)]
    fn classify_known(&mut self, at: (TapIndex, Timestamp), digest: &Digest) -> Verdict {
        let (tap, now) = at;
        let bucket = &mut self.buckets[digest.place & self.mask];
        let mut entries = bucket.entries();
        let mut here = None;
        let mut elsewhere: Option<Entry> = None;
        for (way, entry) in entries.iter().enumerate() {
            let is_seen = entry.has(digest.tag)
                && entry.count > 0
                && now.0.abs_diff(entry.seen.0) <= self.path_window_ns;
            if !is_seen {
                continue;
            }
            if entry.tap == tap {
                here = Some(way);
            } else if elsewhere.is_none_or(|best| best.count < entry.count) {
                elsewhere = Some(*entry);
            }
        }
        let Some(way) = here else {
            let way = bucket.free_way(now, self.path_window_ns, &mut self.evicted);
            bucket.put(way, Entry::of(at, digest));
            return judge(1, elsewhere, false);
        };
        let known = self.known_to_duplicate.get(usize::from(tap.0)).copied();
        let may_repeat = digest.distinguishes || known.unwrap_or(false);
        let entry = &mut entries[way];
        let is_close = now.0.abs_diff(entry.seen.0) <= self.window_ns;
        let is_equal = is_close && entry.strict == digest.strict;
        if is_equal && may_repeat && entry.repeats() < REPEATS_MAX {
            entry.tag_repeats += 1 << TAG_BITS;
            bucket.put(way, *entry);
            return Verdict::Duplicate;
        }
        if entry.count == u8::MAX {
            lower_counts(&mut entries, digest.tag);
            elsewhere = elsewhere.map(|best| newest(&entries, digest.tag, best));
        }
        let entry = &mut entries[way];
        // A flood stays one: only a packet that is no repetition may have duplicates again.
        if !is_equal {
            entry.tag_repeats &= TAG_MASK;
        }
        entry.count += 1;
        entry.seen = now;
        entry.strict = digest.strict;
        let count = entry.count;
        for (way, entry) in entries.into_iter().enumerate() {
            bucket.put(way, entry);
        }
        judge(count, elsewhere, is_equal)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Digests forgotten before their time, because their bucket was full.
    pub fn evicted_digests(&self) -> u64 {
        self.evicted
    }
}

/// A packet that its tap has seen for the `count`-th time counts if no other tap saw as many.
#[inline]
fn judge(count: u8, elsewhere: Option<Entry>, is_ambiguous: bool) -> Verdict {
    match elsewhere {
        Some(entry) if count <= entry.count => {
            Verdict::OtherTap { tap: entry.tap, seen: entry.seen }
        }
        _ if is_ambiguous => Verdict::Ambiguous,
        _ => Verdict::First,
    }
}

/// Counts of a digest at all its taps are lowered alike, so that they go on telling which tap is
/// ahead.
#[cold]
fn lower_counts(entries: &mut [Entry; WAYS], tag: u32) {
    let counts = |entry: &&mut Entry| entry.has(tag) && entry.count > 0;
    let least = entries.iter_mut().filter(counts).map(|entry| entry.count).min().unwrap_or(1);
    // With one tap alone, or one far behind, the counts of those ahead end at the limit.
    let by = (least - 1).max(1);
    for entry in entries.iter_mut().filter(|entry| entry.has(tag)) {
        entry.count = entry.count.saturating_sub(by).clamp(1, u8::MAX - 1);
    }
}

/// The entry of the same tap as it is now.
fn newest(entries: &[Entry; WAYS], tag: u32, entry: Entry) -> Entry {
    entries.iter().find(|other| other.has(tag) && other.tap == entry.tap).copied().unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Marks;

    const MS: u64 = 1_000_000;

    fn classify(table: &mut CopyTable, headers: &Headers) -> Verdict {
        let digest = table.digest(headers);
        table.classify((headers.tap, headers.timestamp), &digest)
    }

    fn table() -> CopyTable {
        CopyTable::new(&CopiesPlan::default(), HashSeed::fixed(), vec![false, false, true])
    }

    fn packet(tap: u16, at_ns: u64) -> Headers {
        Headers {
            tap: TapIndex(tap),
            timestamp: Timestamp(1_000 * MS + at_ns),
            protocol: 6,
            ip_version: 4,
            ip_identification: 77,
            tcp_sequence: 5,
            payload_octets: 10,
            ..Headers::default()
        }
    }

    #[test]
    fn the_same_packet_at_one_tap_is_a_duplicate_for_a_while() {
        let mut table = table();
        assert_eq!(classify(&mut table, &packet(0, 0)), Verdict::First);
        assert_eq!(classify(&mut table, &packet(0, MS)), Verdict::Duplicate);
        assert_eq!(classify(&mut table, &packet(0, 7 * MS)), Verdict::First);
    }

    #[test]
    fn the_same_packet_at_another_tap_is_a_path_sample() {
        let mut table = table();
        classify(&mut table, &packet(0, 0));
        let verdict = classify(&mut table, &packet(1, 2 * MS));
        assert_eq!(verdict, Verdict::OtherTap { tap: TapIndex(0), seen: Timestamp(1_000 * MS) });
        assert_eq!(classify(&mut table, &packet(1, 150 * MS)), Verdict::First);
    }

    #[test]
    fn a_retransmission_has_another_identification() {
        let mut table = table();
        classify(&mut table, &packet(0, 0));
        let again = Headers { ip_identification: 78, ..packet(0, MS) };
        assert_eq!(classify(&mut table, &again), Verdict::First);
    }

    #[test]
    fn what_cannot_be_told_apart_counts_as_traffic() {
        let mut table = table();
        let repeated_ack = |tap, at_ns| {
            let mut headers =
                Headers { ip_identification: 0, payload_octets: 0, ..packet(tap, at_ns) };
            headers.marks.set(Marks::TCP_TIMESTAMP);
            headers
        };
        assert_eq!(classify(&mut table, &repeated_ack(0, 0)), Verdict::First);
        assert_eq!(classify(&mut table, &repeated_ack(0, MS)), Verdict::Ambiguous);
        // Both are seen at the other tap too: still two logical packets, not three or four.
        assert!(matches!(classify(&mut table, &repeated_ack(1, MS)), Verdict::OtherTap { .. }));
        assert!(matches!(classify(&mut table, &repeated_ack(1, 2 * MS)), Verdict::OtherTap { .. }));
        assert_eq!(classify(&mut table, &repeated_ack(1, 3 * MS)), Verdict::Ambiguous);
        assert_eq!(
            classify(&mut table, &repeated_ack(2, 3 * MS)),
            Verdict::OtherTap { tap: TapIndex(1), seen: Timestamp(1_003 * MS) }
        );
        assert_eq!(classify(&mut table, &repeated_ack(2, 3 * MS)), Verdict::Duplicate);
    }

    #[test]
    fn fields_that_hops_change_do_not_matter() {
        let mut table = table();
        classify(&mut table, &packet(0, 0));
        let hop = Headers { ttl: 9, traffic_class: 4, ..packet(1, MS) };
        assert!(matches!(classify(&mut table, &hop), Verdict::OtherTap { .. }));
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let plan = CopiesPlan { slots: 16, ..CopiesPlan::default() };
        let mut table = CopyTable::new(&plan, HashSeed::fixed(), Vec::new());
        for number in 0..1_000 {
            classify(&mut table, &Headers { tcp_sequence: number, ..packet(0, 0) });
        }
        assert!(table.evicted_digests() > 900);
    }

    #[test]
    fn a_flood_whose_identification_stands_still_counts() {
        let mut table = table();
        let verdicts: Vec<_> =
            (0..100).map(|at| classify(&mut table, &packet(0, at * 1_000))).collect();
        let duplicates = verdicts.iter().filter(|it| **it == Verdict::Duplicate).count();
        assert_eq!(duplicates, REPEATS_MAX as usize, "no mirror makes a hundred copies");
    }

    #[test]
    fn equal_packets_at_two_taps_count_once_however_many() {
        let mut table = table();
        let mut counted = 0;
        for number in 0..2_000_u64 {
            for tap in [0, 1] {
                let headers = Headers {
                    ip_identification: 0,
                    payload_octets: 0,
                    ..packet(tap, number * MS + u64::from(tap))
                };
                let verdict = classify(&mut table, &headers);
                counted += u64::from(matches!(verdict, Verdict::First | Verdict::Ambiguous));
            }
        }
        assert_eq!(counted, 2_000);
    }
}
