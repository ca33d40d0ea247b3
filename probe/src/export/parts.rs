//! Batches that a destination finds too long, as several requests.
//!
//! In: a batch of lines. Out: parts of it, of whole lines, as long as the destination takes them.
//! Cost: one request a batch as long as none is too long; each time one is, the parts become half as long,
//! and after [`LONGER_AFTER`] parts twice as long again.
//! Invariants: every line is in one part, in order; what was taken is not sent again in another attempt; a
//! destination that finds single records too long, and has taken none, is not asked for each.

use super::sink::{Batch, Delivered, Failure};

/// Parts taken one after another after which a longer one is tried.
const LONGER_AFTER: u32 = 256;
/// Single records of a batch that are found too long, before the whole of it is given up.
const SINGLES_MAX: u64 = 3;

/// Some lines of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) bytes: &'a [u8],
    /// Number of the first record in its batch.
    pub(super) first: u64,
    pub(super) records: u64,
    /// It is the whole batch.
    pub(super) whole: bool,
}

/// What a destination says of a part.
pub(super) enum Answer {
    /// It has it, but for so many records that it never takes.
    Taken { refused: u64 },
    /// It takes no request that long.
    TooLong(String),
}

/// What is known of a destination, and of the batch that is on its way there.
pub(super) struct Parts {
    /// Octets of a part at most, if it has more than one line.
    bytes_max: usize,
    /// Parts taken since it changed.
    taken: u32,
    /// The batch.
    token: String,
    /// Of it, what is over: octets, records, and of these those that are refused.
    done_bytes: usize,
    done: u64,
    refused: u64,
}

impl Parts {
    pub(super) const fn new() -> Self {
        Self {
            bytes_max: usize::MAX,
            taken: 0,
            token: String::new(),
            done_bytes: 0,
            done: 0,
            refused: 0,
        }
    }

    /// One attempt: all parts that are not over yet.
    pub(super) fn deliver(
        &mut self,
        batch: &Batch,
        mut send: impl FnMut(Part<'_>) -> Result<Answer, Failure>,
    ) -> Result<Delivered, Failure> {
        if self.token != batch.token {
            self.token.clone_from(&batch.token);
            (self.done_bytes, self.done, self.refused) = (0, 0, 0);
        }
        let mut too_long = None;
        while let Some(part) = self.next(&batch.bytes) {
            match send(part) {
                Ok(Answer::Taken { refused }) => self.over(part, refused.min(part.records)),
                Ok(Answer::TooLong(_)) if part.records > 1 => {
                    (self.bytes_max, self.taken) = (part.bytes.len() / 2, 0);
                }
                Ok(Answer::TooLong(what)) => {
                    self.over(part, 1);
                    if self.refused == self.done && self.refused >= SINGLES_MAX {
                        // Its length is not what is wrong.
                        self.bytes_max = usize::MAX;
                        return Err(Failure::refused(&what));
                    }
                    too_long = Some(what);
                }
                // Of one part, where others were taken.
                Err(Failure { refused: true, .. }) if self.done > self.refused => {
                    self.over(part, part.records);
                }
                Err(failure) => return Err(failure),
            }
        }
        match too_long {
            Some(what) if self.refused == self.done => Err(Failure::refused(&what)),
            _ => Ok(Delivered { refused: self.refused }),
        }
    }

    fn over(&mut self, part: Part<'_>, refused: u64) {
        self.done_bytes += part.bytes.len();
        self.done += part.records;
        self.refused += refused;
        self.taken += 1;
        if self.taken >= LONGER_AFTER {
            (self.bytes_max, self.taken) = (self.bytes_max.saturating_mul(2), 0);
        }
    }

    /// The next lines; one at least.
    fn next<'a>(&self, bytes: &'a [u8]) -> Option<Part<'a>> {
        let rest = bytes.get(self.done_bytes..).filter(|rest| !rest.is_empty())?;
        let (mut length, mut records) = (0, 0);
        for line in rest.split_inclusive(|octet| *octet == b'\n') {
            if records > 0 && length + line.len() > self.bytes_max {
                break;
            }
            length += line.len();
            records += 1;
        }
        let part = rest.get(..length)?;
        let whole = part.len() == bytes.len();
        Some(Part { bytes: part, first: self.done, records, whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Table;

    fn batch(token: &str, lines: usize) -> Batch {
        let bytes = (0..lines).flat_map(|number| format!("line {number:04}\n").into_bytes());
        let bytes = bytes.collect();
        Batch { table: Table::Flows, records: lines as u64, token: token.to_owned(), bytes }
    }

    /// Takes requests up to a length.
    #[derive(Default)]
    struct Proxy {
        octets_max: usize,
        requests: usize,
        taken: Vec<(u64, u64)>,
        bytes: Vec<u8>,
        /// Requests after which it is down once.
        down_after: Option<usize>,
    }

    impl Proxy {
        fn takes(&mut self, part: Part<'_>) -> Result<Answer, Failure> {
            self.requests += 1;
            if self.down_after == Some(self.requests) {
                return Err(Failure::again("down"));
            }
            if part.bytes.len() > self.octets_max {
                return Ok(Answer::TooLong("too long".to_owned()));
            }
            self.taken.push((part.first, part.records));
            self.bytes.extend_from_slice(part.bytes);
            Ok(Answer::Taken { refused: 0 })
        }
    }

    #[test]
    fn a_batch_goes_in_parts_that_are_short_enough_each_line_once() {
        let mut proxy = Proxy { octets_max: 250, ..Proxy::default() };
        let (mut parts, batch) = (Parts::new(), batch("a", 100));
        assert_eq!(parts.deliver(&batch, |part| proxy.takes(part)), Ok(Delivered::default()));
        assert_eq!(proxy.bytes, batch.bytes);
        assert!(proxy.taken.iter().all(|(_, records)| (10..=25).contains(records)));
        let next = proxy.taken.iter().map(|(first, records)| first + records).collect::<Vec<_>>();
        let first = proxy.taken.iter().map(|(first, _)| *first).collect::<Vec<_>>();
        assert_eq!((first[0], &first[1..]), (0, &next[..next.len() - 1]));
        // The next batch begins with what was learned.
        let before = (proxy.requests, proxy.taken.len());
        let again = super::tests::batch("b", 100);
        assert!(parts.deliver(&again, |part| proxy.takes(part)).is_ok());
        assert_eq!(proxy.requests - before.0, proxy.taken.len() - before.1, "none is too long");
    }

    #[test]
    fn what_was_taken_is_not_sent_again() {
        let mut proxy = Proxy { octets_max: 250, down_after: Some(6), ..Proxy::default() };
        let (mut parts, batch) = (Parts::new(), batch("a", 100));
        assert!(parts.deliver(&batch, |part| proxy.takes(part)).is_err_and(|it| !it.refused));
        assert!(!proxy.bytes.is_empty() && proxy.bytes.len() < batch.bytes.len());
        assert_eq!(parts.deliver(&batch, |part| proxy.takes(part)), Ok(Delivered::default()));
        assert_eq!(proxy.bytes, batch.bytes);
    }

    #[test]
    fn a_line_that_is_too_long_is_lost_alone() {
        let mut batch = batch("a", 3);
        batch.bytes.extend_from_slice(&[b'x'; 400]);
        batch.bytes.extend_from_slice(b"\nlast\n");
        batch.records = 5;
        let mut proxy = Proxy { octets_max: 250, ..Proxy::default() };
        let mut parts = Parts::new();
        let delivered = parts.deliver(&batch, |part| proxy.takes(part));
        assert_eq!((delivered, proxy.taken.len() > 1), (Ok(Delivered { refused: 1 }), true));
        assert!(proxy.bytes.starts_with(b"line") && proxy.bytes.ends_with(b"2\nlast\n"));
    }

    #[test]
    fn who_takes_not_even_single_lines_is_not_asked_for_each() {
        let mut proxy = Proxy::default();
        let mut parts = Parts::new();
        let delivered = parts.deliver(&batch("a", 1_000), |part| proxy.takes(part));
        assert!(delivered.is_err_and(|failure| failure.refused));
        assert!(proxy.requests < 30, "{}", proxy.requests);
    }

    #[test]
    fn a_longer_part_is_tried_again() {
        let mut proxy = Proxy { octets_max: 250, ..Proxy::default() };
        let mut parts = Parts::new();
        assert!(parts.deliver(&batch("a", 100), |part| proxy.takes(part)).is_ok());
        proxy.octets_max = usize::MAX;
        for number in 0..200 {
            let batch = batch(&format!("b{number}"), 100);
            assert!(parts.deliver(&batch, |part| proxy.takes(part)).is_ok());
        }
        assert_eq!(proxy.taken.last(), Some(&(0, 100)), "whole again");
    }
}
