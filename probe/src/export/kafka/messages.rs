//! Rows as keys and values of messages, and these in the octets of a batch.
//!
//! In: rows. Out: a batch: one octet for the form, then of each record the lengths of key and value (32
//! bits, little-endian) and both.
//! Invariants: a batch says its form itself, so that one from the spool is read right under another
//! configuration; [`read`] never reads past the end, whatever a disk has done.

use super::super::json;
use super::super::sink::{Encoder, Row};
use super::keys;
use super::protobuf;
use crate::config::KafkaFormat;
use crate::record::Table;

/// Octets of a length.
const LENGTH: usize = 4;

/// Writes records as messages.
pub struct Messages {
    format: KafkaFormat,
}

impl Messages {
    /// Of a form.
    pub const fn new(format: KafkaFormat) -> Self {
        Self { format }
    }
}

const fn octet_of(format: KafkaFormat) -> u8 {
    match format {
        KafkaFormat::Json => b'j',
        KafkaFormat::Protobuf => b'p',
    }
}

impl Encoder for Messages {
    fn begin(&mut self, _table: Table, out: &mut Vec<u8>) {
        out.push(octet_of(self.format));
    }

    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[0; 2 * LENGTH]);
        keys::write(row, out);
        let key_end = out.len();
        match self.format {
            KafkaFormat::Json => json::write_row(row, out),
            KafkaFormat::Protobuf => protobuf::write_row(row, out),
        }
        let lengths = [key_end - begin - 2 * LENGTH, out.len() - key_end];
        for (place, length) in lengths.into_iter().enumerate() {
            // A record is far below 4 GiB: some ten texts of 64 KiB.
            let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
            let at = begin + place * LENGTH;
            out[at..at + LENGTH].copy_from_slice(&length);
        }
    }
}

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// `None` where nothing decides which records it meets: any partition will do.
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
}

/// The form of a batch and its records; `None` where it is no batch of this sink.
pub(super) fn read(bytes: &[u8]) -> Option<(KafkaFormat, Vec<Message<'_>>)> {
    let (octet, mut rest) = bytes.split_first()?;
    let forms = [KafkaFormat::Json, KafkaFormat::Protobuf];
    let format = forms.into_iter().find(|format| octet_of(*format) == *octet)?;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (key, value, behind) = next(rest)?;
        messages.push(Message { key: (!key.is_empty()).then_some(key), value });
        rest = behind;
    }
    Some((format, messages))
}

fn next(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let (value_length, rest) = rest.split_first_chunk::<LENGTH>()?;
    let length = |octets: &[u8; LENGTH]| usize::try_from(u32::from_le_bytes(*octets)).ok();
    let (key, rest) = rest.split_at_checked(length(key_length)?)?;
    let (value, rest) = rest.split_at_checked(length(value_length)?)?;
    Some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, Origin, Rows};
    use crate::time::Timestamp;

    fn batch(format: KafkaFormat) -> Vec<u8> {
        let alert = |id: &str| AlertRecord { alert_id: id.into(), ..AlertRecord::default() };
        let rows = Rows { alerts: vec![alert(""), alert("two")], ..Rows::default() };
        let origin = Origin::new("p", "d");
        let (parts, _) = TableRows::of(&rows, &origin, Timestamp::ZERO, |_| true);
        let (mut encoder, mut bytes) = (Messages::new(format), Vec::new());
        encoder.begin(Table::Alerts, &mut bytes);
        for row in parts.iter().flat_map(TableRows::rows) {
            encoder.row(row, &mut bytes);
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for format in [KafkaFormat::Json, KafkaFormat::Protobuf] {
            let bytes = batch(format);
            let (found, messages) = read(&bytes).expect("a batch");
            let keys: Vec<_> = messages.iter().map(|message| message.key).collect();
            assert_eq!((found, keys), (format, vec![None, Some(&b"two"[..])]));
            assert_eq!(messages[1].value.starts_with(b"{"), format == KafkaFormat::Json);
        }
    }

    #[test]
    fn a_broken_batch_is_none() {
        let bytes = batch(KafkaFormat::Json);
        let ends: Vec<_> = (0..bytes.len()).filter(|end| read(&bytes[..*end]).is_some()).collect();
        assert_eq!(ends.len(), 2, "whole records only: {ends:?}");
        assert_eq!(read(b"x"), None);
        assert_eq!(read(&[b'j', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), None);
    }
}
