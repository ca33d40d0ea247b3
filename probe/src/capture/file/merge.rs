//! Several files as one, in order of their stamps.
//!
//! In: readers. Out: records by stamp; within a file in file order, on equal stamps in the order
//! of the files.
//! Cost: a file is read in runs, as long as no other has an earlier packet, so that one file costs
//! nothing more and k files a comparison a packet and a heap of k a change of file.
//! Invariants: a buffer is refilled only before a take, so records of one take stay valid; a
//! take ends early where a buffer is used up or a port is new, never in a wrong order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::error::FileError;
use super::ports::Ports;
use super::reader::{Advance, Reader};
use super::record::Record;
use crate::time::Timestamp;

/// All files of a source.
#[derive(Debug)]
pub(super) struct Merge {
    readers: Vec<Reader>,
    /// Files whose next packet is there, by its stamp.
    heads: BinaryHeap<Reverse<(Timestamp, u16)>>,
    /// Files whose buffer is used up.
    starved: Vec<u16>,
    ports: Ports,
    errors: Vec<FileError>,
    stored_bytes: u64,
}

/// Whether a take may go on.
#[derive(PartialEq, Eq)]
enum Run {
    On,
    Stop,
}

impl Merge {
    /// Reads the first block of each file, so that ports and errors that stand in front are known.
    pub(super) fn new(readers: Vec<Reader>) -> Self {
        let starved = (0_u16..).zip(&readers).map(|(file, _)| file).collect();
        let mut merge = Self {
            heads: BinaryHeap::with_capacity(readers.len()),
            stored_bytes: readers.iter().map(Reader::stored_bytes).sum(),
            readers,
            starved,
            ports: Ports::default(),
            errors: Vec::new(),
        };
        merge.feed();
        merge.ports.take_grown();
        merge
    }

    pub(super) fn readers(&self) -> &[Reader] {
        &self.readers
    }

    pub(super) fn port_names(&self) -> &[String] {
        self.ports.names()
    }

    pub(super) fn errors(&self) -> &[FileError] {
        &self.errors
    }

    /// Stored bytes that were read of all files.
    pub(super) const fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Whether every packet was taken.
    pub(super) fn has_ended(&self) -> bool {
        self.heads.is_empty() && self.starved.is_empty()
    }

    /// Stamp of the next packet; the octets of all taken packets are gone.
    pub(super) fn next_stamp(&mut self) -> Option<Timestamp> {
        self.feed();
        self.heads.peek().map(|Reverse((stamp, _))| *stamp)
    }

    /// Takes at most `max` packets whose stamps are at most `limit`. The octets of those taken
    /// before are gone.
    pub(super) fn take(&mut self, into: &mut Vec<Record>, max: usize, limit: Timestamp) {
        into.clear();
        self.feed();
        if self.ports.take_grown() {
            return;
        }
        while into.len() < max {
            match self.heads.peek() {
                Some(Reverse((stamp, file))) if *stamp <= limit => {
                    let file = *file;
                    self.heads.pop();
                    if self.run(file, into, max, limit) == Run::Stop {
                        break;
                    }
                }
                _ => break,
            }
        }
        // The port that ended this take is in the list now, and its packets come with the next.
        self.ports.take_grown();
    }

    /// Takes packets of one file until another file has an earlier one.
    #[inline]
    fn run(&mut self, file: u16, into: &mut Vec<Record>, max: usize, limit: Timestamp) -> Run {
        let other = self.heads.peek().map(|Reverse(other)| *other);
        let Some(reader) = self.readers.get_mut(usize::from(file)) else { return Run::Stop };
        loop {
            into.extend(reader.head());
            match reader.advance(&mut self.ports) {
                Advance::Head(stamp) => {
                    let stop = into.len() >= max || stamp > limit || self.ports.has_grown();
                    if stop || other.is_some_and(|other| other < (stamp, file)) {
                        self.heads.push(Reverse((stamp, file)));
                        return if self.ports.has_grown() { Run::Stop } else { Run::On };
                    }
                }
                Advance::Starved => {
                    self.starved.push(file);
                    return Run::Stop;
                }
                Advance::Ended => {
                    self.errors.extend(reader.take_error());
                    return Run::On;
                }
            }
        }
    }

    /// Refills what is used up.
    fn feed(&mut self) {
        // In order of the files, so that ports and errors are in that order too.
        for place in 0..self.starved.len() {
            let file = self.starved[place];
            let Some(reader) = self.readers.get_mut(usize::from(file)) else { continue };
            let before = reader.stored_bytes();
            let mut advance = Advance::Starved;
            while advance == Advance::Starved {
                advance = reader.refill(&mut self.ports);
            }
            self.stored_bytes += reader.stored_bytes() - before;
            match advance {
                Advance::Head(stamp) => self.heads.push(Reverse((stamp, file))),
                _ => self.errors.extend(reader.take_error()),
            }
        }
        self.starved.clear();
    }
}
