//! One file as a stream of bytes, decompressed where its first bytes say so.
//!
//! In: a file or any reader. Out: bytes, and how many were read of what is stored.
//! Cost: a large read goes straight to the file; decompression is a stream.
//! Invariants: memory is bounded whatever the compressed stream says (gzip 32 KiB of window, zstd
//! at most 128 MiB, the library's limit); one layer of compression is taken off, no more.
//! Source: gzip magic, RFC 1952 section 2.3.1; zstd magic, RFC 8878 section 3.1.1.

use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

/// Compressed bytes read at once.
const COMPRESSED_BYTES: usize = 256 << 10;

const MAGIC_GZIP: [u8; 2] = [0x1f, 0x8b];
const MAGIC_ZSTD: u32 = 0xfd2f_b528;
/// A frame to be skipped; the low four bits are free.
const MAGIC_ZSTD_SKIPPABLE: u32 = 0x184d_2a50;

pub(super) type Raw = Box<dyn Read + Send>;
type Compressed = BufReader<Counted>;

/// A capture's bytes.
pub(super) enum Input {
    Plain(Counted),
    Gzip(Box<MultiGzDecoder<Compressed>>),
    Zstd(Decoder<'static, Compressed>),
}

impl Input {
    /// Looks at the first bytes of `raw` and decompresses if they say so.
    ///
    /// # Errors
    /// What reading the first bytes says.
    pub(super) fn new(mut raw: Raw) -> io::Result<Self> {
        let mut begin = Vec::with_capacity(4);
        raw.by_ref().take(4).read_to_end(&mut begin)?;
        let word = begin.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let gzip = begin.starts_with(&MAGIC_GZIP);
        let counted = Counted { raw: Cursor::new(begin).chain(raw), bytes: 0 };
        if gzip {
            let buffered = BufReader::with_capacity(COMPRESSED_BYTES, counted);
            Ok(Self::Gzip(Box::new(MultiGzDecoder::new(buffered))))
        } else if word == MAGIC_ZSTD || word & !0xf == MAGIC_ZSTD_SKIPPABLE {
            let buffered = BufReader::with_capacity(COMPRESSED_BYTES, counted);
            Ok(Self::Zstd(Decoder::with_buffer(buffered)?))
        } else {
            Ok(Self::Plain(counted))
        }
    }

    /// Stored (compressed) bytes read so far.
    pub(super) fn stored_bytes(&self) -> u64 {
        match self {
            Self::Plain(counted) => counted.bytes,
            Self::Gzip(decoder) => decoder.get_ref().get_ref().bytes,
            Self::Zstd(decoder) => decoder.get_ref().get_ref().bytes,
        }
    }

    /// Reads some bytes into `into`; 0 is the end.
    ///
    /// # Errors
    /// What the operating system or the decompressor says.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Plain(counted) => counted.read(into),
                Self::Gzip(decoder) => decoder.read(into),
                Self::Zstd(decoder) => decoder.read(into),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Plain(_) => "Plain",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        };
        formatter.debug_struct(name).field("stored_bytes", &self.stored_bytes()).finish()
    }
}

/// A reader that counts what it gave.
pub(super) struct Counted {
    raw: Chain<Cursor<Vec<u8>>, Raw>,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(into)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    pub(in crate::capture::file) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    pub(in crate::capture::file) fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).expect("a vector takes all")
    }

    fn read_all(bytes: Vec<u8>) -> (Vec<u8>, u64, Option<io::Error>) {
        let mut input = Input::new(Box::new(Cursor::new(bytes))).expect("a vector can be read");
        let (mut out, mut part) = (Vec::new(), [0; 7]);
        loop {
            match input.read(&mut part) {
                Ok(0) => return (out, input.stored_bytes(), None),
                Ok(count) => out.extend_from_slice(&part[..count]),
                Err(error) => return (out, input.stored_bytes(), Some(error)),
            }
        }
    }

    #[test]
    fn streams_are_what_was_stored() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for stored in [bytes.clone(), gzip(&bytes), zstd(&bytes)] {
            let length = stored.len() as u64;
            let (out, count, error) = read_all(stored);
            assert!(error.is_none(), "{error:?}");
            assert_eq!((out == bytes, count), (true, length));
        }
    }

    #[test]
    fn joined_streams_are_read_to_the_end() {
        for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstd] {
            let (out, _, error) = read_all([pack(b"one "), pack(b"two")].concat());
            assert_eq!((out.as_slice(), error.is_none()), (b"one two".as_slice(), true));
        }
    }

    #[test]
    fn a_cut_stream_gives_its_begin_and_an_error() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for mut stored in [gzip(&bytes), zstd(&bytes)] {
            stored.truncate(stored.len() - 9);
            let (out, _, error) = read_all(stored);
            assert!(bytes.starts_with(&out));
            assert!(error.is_some());
        }
    }

    #[test]
    fn short_and_empty_inputs_are_plain() {
        for bytes in [vec![], vec![1], vec![0x28, 0xb5, 0x2f]] {
            assert_eq!(read_all(bytes.clone()).0, bytes);
        }
    }
}
