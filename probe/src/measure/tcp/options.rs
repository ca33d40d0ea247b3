//! TCP options that the measures need.
//!
//! In: the octets between a TCP header and its payload, at most 40 of them, from anyone. Out:
//! [`Options`].
//! Cost: one pass; nothing for a header without options, two compares for timestamps as nearly
//! every sender lays them out.
//! Invariants: never panics, never reads past the end; a wrong option ends the pass, and what was
//! read before stays; an option of another length than its own is passed over.
//! Source: RFC 9293 section 3.1 (segment size), RFC 7323 (window scale, timestamps), RFC 2018
//! (SACK), RFC 2883 (D-SACK is the first block, below the acknowledgement or inside the second).

use super::sequence::{Range, reaches};

/// Largest shift that a window scale may have (RFC 7323 section 2.3); larger ones count as this.
const WINDOW_SCALE_MAX: u8 = 14;

/// No operation, no operation, timestamps of ten octets (RFC 7323 appendix A).
const ALIGNED_TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];

/// The timestamps option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the last value that it heard from the other side; 0 in a SYN.
    pub echo: u32,
}

/// What the options of one segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// The SACK block with the newest news: what arrived last of what lies above a hole.
    pub sacked: Option<Range>,
    /// D-SACK: what arrived twice.
    pub duplicate: Option<Range>,
    /// Maximum segment size in octets; 0 without the option.
    pub segment_octets_max: u16,
    /// Shift of the windows to come, 0–14.
    pub window_scale: Option<u8>,
}

impl Options {
    /// Reads the options of a segment that acknowledges `acknowledgement`.
    #[inline]
    pub fn read(octets: &[u8], acknowledgement: u32) -> Self {
        let mut options = Self::default();
        let mut rest = octets;
        if let Some((&ALIGNED_TIMESTAMPS, behind)) = octets.split_first_chunk()
            && let Some((times, behind)) = behind.split_first_chunk()
        {
            options.timestamps = Some(timestamps(times));
            rest = behind;
        }
        while let Some((kind, body, behind)) = next(rest) {
            options.take(kind, body, acknowledgement);
            rest = behind;
        }
        options
    }

    fn take(&mut self, kind: u8, body: &[u8], acknowledgement: u32) {
        match (kind, body) {
            (2, &[high, low]) => self.segment_octets_max = u16::from_be_bytes([high, low]),
            (3, &[shift]) => self.window_scale = Some(shift.min(WINDOW_SCALE_MAX)),
            (5, blocks) if blocks.len() % 8 == 0 => self.blocks(blocks, acknowledgement),
            (8, times) => {
                if let (Some(times), 8) = (times.first_chunk(), times.len()) {
                    self.timestamps = Some(timestamps(times));
                }
            }
            _ => {}
        }
    }

    fn blocks(&mut self, octets: &[u8], acknowledgement: u32) {
        self.take_blocks(octets.chunks_exact(8).filter_map(block), acknowledgement);
    }

    /// Takes the first SACK blocks, none of them empty, of a segment that acknowledges
    /// `acknowledgement`.
    pub fn take_blocks(&mut self, mut blocks: impl Iterator<Item = Range>, acknowledgement: u32) {
        let Some(first) = blocks.next() else { return };
        let second = blocks.next();
        let is_duplicate =
            reaches(acknowledgement, first.end) || second.is_some_and(|second| second.holds(first));
        if is_duplicate {
            self.duplicate = Some(first);
            self.sacked = second;
        } else {
            self.sacked = Some(first);
        }
    }
}

/// Kind and body of the first option, and what stands behind it; `None` at the end.
#[inline]
fn next(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    match octets {
        [] | [0, ..] => None,
        [1, behind @ ..] => Some((1, &[], behind)),
        [kind, length, behind @ ..] => {
            let body = usize::from(*length).checked_sub(2)?;
            let (body, behind) = behind.split_at_checked(body)?;
            Some((*kind, body, behind))
        }
        [_] => None,
    }
}

/// A block, unless it is empty.
fn block(octets: &[u8]) -> Option<Range> {
    let &[a, b, c, d, e, f, g, h] = octets else { return None };
    let block =
        Range { begin: u32::from_be_bytes([a, b, c, d]), end: u32::from_be_bytes([e, f, g, h]) };
    (!block.is_empty()).then_some(block)
}

#[inline]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "a view of the packet, not a copy")]
fn timestamps(octets: &[u8; 8]) -> Timestamps {
    let [a, b, c, d, e, f, g, h] = *octets;
    Timestamps { value: u32::from_be_bytes([a, b, c, d]), echo: u32::from_be_bytes([e, f, g, h]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: [u8; 10] = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

    fn sack(blocks: &[(u32, u32)]) -> Vec<u8> {
        let length = u8::try_from(2 + 8 * blocks.len()).expect("short");
        let edges = blocks.iter().flat_map(|(begin, end)| [*begin, *end]);
        [5, length].into_iter().chain(edges.flat_map(u32::to_be_bytes)).collect()
    }

    const fn range(begin: u32, end: u32) -> Option<Range> {
        Some(Range { begin, end })
    }

    #[test]
    fn a_syn_of_every_kind() {
        let octets = [&[2, 4, 5, 0xb4, 4, 2][..], &TIMES, &[1, 3, 3, 7]].concat();
        let options = Options::read(&octets, 0);
        assert_eq!(options.segment_octets_max, 1460);
        assert_eq!(options.window_scale, Some(7));
        assert_eq!(options.timestamps, Some(Timestamps { value: 1, echo: 2 }));
        assert_eq!(Options::read(&[3, 3, 200], 0).window_scale, Some(14));
    }

    #[test]
    fn timestamps_in_any_place() {
        let times = Some(Timestamps { value: 1, echo: 2 });
        for before in [&[1, 1][..], &[], &[1], &[2, 4, 1, 1], &[1, 1, 1]] {
            let options = Options::read(&[before, &TIMES].concat(), 0);
            assert_eq!(options.timestamps, times, "{before:?}");
        }
    }

    #[test]
    fn the_first_block_may_tell_of_a_duplicate() {
        let options = Options::read(&sack(&[(50, 60)]), 40);
        assert_eq!((options.sacked, options.duplicate), (range(50, 60), None));
        let options = Options::read(&sack(&[(30, 40)]), 40);
        assert_eq!((options.sacked, options.duplicate), (None, range(30, 40)));
        let options = Options::read(&sack(&[(50, 60), (50, 90)]), 40);
        assert_eq!((options.sacked, options.duplicate), (range(50, 90), range(50, 60)));
        let options = Options::read(&sack(&[(80, 90), (50, 60)]), 40);
        assert_eq!((options.sacked, options.duplicate), (range(80, 90), None));
        assert_eq!(Options::read(&sack(&[(60, 50)]), 40), Options::default());
    }

    #[test]
    fn every_shorter_length_and_every_changed_octet() {
        let whole = [&[1, 1][..], &TIMES, &sack(&[(50, 60), (70, 80)]), &[4, 2, 3, 3, 2]].concat();
        for length in 0..whole.len() {
            let part = whole.get(..length).expect("shorter");
            let options = Options::read(part, 40);
            assert_eq!(options.timestamps.is_some(), length >= 12, "{length}");
            assert_eq!(options.sacked.is_some(), length >= 30, "{length}");
            for place in 0..length {
                for octet in [0, 1, 2, 3, 5, 8, 127, 255] {
                    let mut changed = part.to_vec();
                    changed[place] = octet;
                    let options = Options::read(&changed, 40);
                    assert!(options.window_scale.is_none_or(|shift| shift <= 14));
                }
            }
        }
    }

    #[test]
    fn wrong_options_end_the_pass() {
        for wrong in [&[8, 0][..], &[8, 1], &[8], &[8, 200, 1], &[0, 3, 3, 1], &[5, 9, 0, 0, 0, 0]]
        {
            assert_eq!(Options::read(wrong, 0), Options::default(), "{wrong:?}");
            let before = Options::read(&[&[3, 3, 9], wrong].concat(), 0);
            assert_eq!(before.window_scale, Some(9), "{wrong:?}");
        }
        let options = Options::read(&[8, 6, 0, 0, 0, 1, 3, 3, 9], 0);
        assert_eq!((options.timestamps, options.window_scale), (None, Some(9)));
    }
}
