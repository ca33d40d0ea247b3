//! A window on one file that is filled in large blocks and read without copies.
//!
//! In: an [`Input`]. Out: the bytes that follow, as one slice.
//! Cost: one large read a block; the rest of a cut record is moved to the front at each refill.
//! Invariants: bytes stay where they are until [`Buffer::refill`]; the buffer grows only to hold
//! one record or block, and only as far as the file really has bytes.

use std::io;

use super::input::Input;

/// Bytes of one file, read ahead.
#[derive(Debug)]
pub(super) struct Buffer {
    input: Input,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Place of `bytes[0]` in the (decompressed) file.
    base: u64,
    ended: bool,
    failure: Option<io::Error>,
}

impl Buffer {
    pub(super) fn new(input: Input, capacity_bytes: usize) -> Self {
        Self {
            input,
            bytes: vec![0; capacity_bytes.max(1)],
            start: 0,
            end: 0,
            base: 0,
            ended: false,
            failure: None,
        }
    }

    /// What was read and not yet consumed.
    #[inline]
    pub(super) fn window(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or(&[])
    }

    /// Place of the window in the buffer, for [`Buffer::at`].
    #[inline]
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    /// Bytes at a place that was in the window since the last refill.
    #[inline]
    pub(super) fn at(&self, start: usize, length: u32) -> &[u8] {
        self.bytes.get(start..start + length as usize).unwrap_or(&[])
    }

    /// Moves the window on.
    #[inline]
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = self.end.min(self.start + bytes);
    }

    /// Place of the window in the (decompressed) file.
    pub(super) const fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Whether nothing follows the window.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Why nothing follows, if reading failed.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.input.stored_bytes()
    }

    /// Reads until the buffer is full and the window has `need` bytes, or the file ends. What
    /// [`Buffer::at`] gave before is gone.
    pub(super) fn refill(&mut self, need: usize) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.base += self.start as u64;
        self.end -= self.start;
        self.start = 0;
        while !self.ended && (self.end < self.bytes.len() || self.end < need) {
            if self.end == self.bytes.len() {
                let grown = need.min(self.bytes.len().saturating_mul(2));
                self.bytes.resize(grown, 0);
            }
            match self.input.read(&mut self.bytes[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count,
                Err(error) => {
                    self.failure = Some(error);
                    self.ended = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn buffer(bytes: &[u8], capacity: usize) -> Buffer {
        let input = Input::new(Box::new(Cursor::new(bytes.to_vec()))).expect("can be read");
        Buffer::new(input, capacity)
    }

    #[test]
    fn the_window_moves_over_the_file() {
        let mut buffer = buffer(b"abcdefgh", 3);
        buffer.refill(1);
        assert_eq!((buffer.window(), buffer.has_ended()), (b"abc".as_slice(), false));
        buffer.consume(2);
        buffer.refill(1);
        assert_eq!((buffer.window(), buffer.offset()), (b"cde".as_slice(), 2));
        assert_eq!(buffer.at(buffer.start() + 1, 2), b"de");
        buffer.consume(3);
        buffer.refill(3);
        buffer.refill(4);
        assert_eq!((buffer.window(), buffer.has_ended()), (b"fgh".as_slice(), true));
    }

    #[test]
    fn it_grows_to_what_is_there_not_to_what_is_asked_for() {
        let mut buffer = buffer(&[7; 10], 4);
        buffer.refill(1 << 30);
        assert_eq!(buffer.window().len(), 10);
        assert!(buffer.bytes.len() <= 16, "{}", buffer.bytes.len());
    }
}
