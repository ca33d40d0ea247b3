//! First copy, duplicate at one tap, or copy at another tap.
//!
//! In: headers with tap and time. Out: a [`Verdict`] for each packet.
//! Cost: one hash of invariant fields and one cache line.
//! Invariants: the number of packets called [`Verdict::First`] for one digest is the largest number
//! seen at any one tap. Bounded memory; what had to be forgotten early is counted.
//! Source: hash-based selection over invariant fields, RFC 5475 §6.2; trajectory sampling (Duffield
//! and Grossglauser 2001).

mod digest;

pub use digest::Digest;

use crate::config::CopiesPlan;
use crate::decode::Headers;
use crate::index::TapIndex;
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

/// One digest at one tap. `count` 0 marks a free entry.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Entry {
    seen: Timestamp,
    tag: u32,
    tap: TapIndex,
    strict: u8,
    count: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket([Entry; WAYS]);

const _: () = assert!(size_of::<Bucket>() == 64, "one cache line a packet");

/// Digests of the last moments.
pub struct CopyTable {
    buckets: Box<[Bucket]>,
    mask: usize,
    seed: HashSeed,
    window_ns: u64,
    path_window_ns: u64,
    digest_payload_octets: u8,
    known_to_duplicate: Box<[bool]>,
    evicted: u64,
}

impl CopyTable {
    /// `known_to_duplicate[tap]`: the tap copies packets twice by construction.
    pub fn new(plan: &CopiesPlan, seed: HashSeed, known_to_duplicate: Vec<bool>) -> Self {
        let buckets = (plan.slots as usize / WAYS).next_power_of_two();
        Self {
            buckets: vec![Bucket::default(); buckets].into_boxed_slice(),
            mask: buckets - 1,
            seed,
            window_ns: ms(u64::from(plan.window_ms)),
            path_window_ns: ms(u64::from(plan.path_window_ms)),
            digest_payload_octets: plan.digest_payload_octets,
            known_to_duplicate: known_to_duplicate.into_boxed_slice(),
            evicted: 0,
        }
    }

    /// Says what the packet is, and remembers it.
    #[inline]
    pub fn classify(&mut self, headers: &Headers) -> Verdict {
        let digest = Digest::of(headers, self.digest_payload_octets, self.seed);
        let now = headers.timestamp;
        let seen_at = |entry: &Entry, within_ns: u64| {
            entry.count > 0 && now.0.abs_diff(entry.seen.0) <= within_ns && entry.tag == digest.tag
        };
        let bucket = &mut self.buckets[digest.place & self.mask].0;
        let mut here = None;
        let mut elsewhere: Option<Entry> = None;
        for (way, entry) in bucket.iter().enumerate() {
            if entry.tap == headers.tap && seen_at(entry, self.path_window_ns) {
                here = Some(way);
            } else if seen_at(entry, self.path_window_ns)
                && elsewhere.is_none_or(|best| best.count < entry.count)
            {
                elsewhere = Some(*entry);
            }
        }
        let mut ambiguous = false;
        if let Some(way) = here {
            let entry = &mut bucket[way];
            let close = now.0.abs_diff(entry.seen.0) <= self.window_ns;
            if close && entry.strict == digest.strict {
                let known = self.known_to_duplicate.get(usize::from(headers.tap.0)).copied();
                if digest.distinguishes || known.unwrap_or(false) {
                    return Verdict::Duplicate;
                }
                ambiguous = true;
            }
            entry.count = entry.count.saturating_add(1);
            entry.seen = now;
            entry.strict = digest.strict;
        } else {
            let way = free_way(bucket, now, self.path_window_ns, &mut self.evicted);
            bucket[way] = Entry {
                seen: now,
                tag: digest.tag,
                tap: headers.tap,
                strict: digest.strict,
                count: 1,
            };
        }
        let count = here.map_or(1, |way| bucket[way].count);
        match elsewhere {
            Some(entry) if count <= entry.count => {
                Verdict::OtherTap { tap: entry.tap, seen: entry.seen }
            }
            _ if ambiguous => Verdict::Ambiguous,
            _ => Verdict::First,
        }
    }

    /// Digests forgotten before their time, because their bucket was full.
    pub fn evicted_digests(&self) -> u64 {
        self.evicted
    }
}

/// A way that is free or too old to matter, else the oldest.
fn free_way(bucket: &[Entry; WAYS], now: Timestamp, keep_ns: u64, evicted: &mut u64) -> usize {
    let mut oldest = 0;
    for (way, entry) in bucket.iter().enumerate() {
        if entry.count == 0 || now.0.abs_diff(entry.seen.0) > keep_ns {
            return way;
        }
        if entry.seen < bucket[oldest].seen {
            oldest = way;
        }
    }
    *evicted += 1;
    oldest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Marks;

    const MS: u64 = 1_000_000;

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
        assert_eq!(table.classify(&packet(0, 0)), Verdict::First);
        assert_eq!(table.classify(&packet(0, MS)), Verdict::Duplicate);
        assert_eq!(table.classify(&packet(0, 7 * MS)), Verdict::First);
    }

    #[test]
    fn the_same_packet_at_another_tap_is_a_path_sample() {
        let mut table = table();
        table.classify(&packet(0, 0));
        let verdict = table.classify(&packet(1, 2 * MS));
        assert_eq!(verdict, Verdict::OtherTap { tap: TapIndex(0), seen: Timestamp(1_000 * MS) });
        assert_eq!(table.classify(&packet(1, 150 * MS)), Verdict::First);
    }

    #[test]
    fn a_retransmission_has_another_identification() {
        let mut table = table();
        table.classify(&packet(0, 0));
        let again = Headers { ip_identification: 78, ..packet(0, MS) };
        assert_eq!(table.classify(&again), Verdict::First);
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
        assert_eq!(table.classify(&repeated_ack(0, 0)), Verdict::First);
        assert_eq!(table.classify(&repeated_ack(0, MS)), Verdict::Ambiguous);
        // Both are seen at the other tap too: still two logical packets, not three or four.
        assert!(matches!(table.classify(&repeated_ack(1, MS)), Verdict::OtherTap { .. }));
        assert!(matches!(table.classify(&repeated_ack(1, 2 * MS)), Verdict::OtherTap { .. }));
        assert_eq!(table.classify(&repeated_ack(1, 3 * MS)), Verdict::Ambiguous);
        assert_eq!(
            table.classify(&repeated_ack(2, 3 * MS)),
            Verdict::OtherTap { tap: TapIndex(1), seen: Timestamp(1_003 * MS) }
        );
        assert_eq!(table.classify(&repeated_ack(2, 3 * MS)), Verdict::Duplicate);
    }

    #[test]
    fn fields_that_hops_change_do_not_matter() {
        let mut table = table();
        table.classify(&packet(0, 0));
        let hop = Headers { ttl: 9, traffic_class: 4, ..packet(1, MS) };
        assert!(matches!(table.classify(&hop), Verdict::OtherTap { .. }));
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let plan = CopiesPlan { slots: 16, ..CopiesPlan::default() };
        let mut table = CopyTable::new(&plan, HashSeed::fixed(), Vec::new());
        for number in 0..1_000 {
            table.classify(&Headers { tcp_sequence: number, ..packet(0, 0) });
        }
        assert!(table.evicted_digests() > 900);
    }
}
