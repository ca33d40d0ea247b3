//! Rows in ClickHouse's RowBinaryWithNamesAndTypes.
//!
//! In: rows. Out: octets; a batch says its columns and types itself, so that one from the spool still
//! fits a table that has got more columns or wider ones since.
//! Cost: fixed-width numbers, no text but that of the record.
//! Source: ClickHouse, "RowBinaryWithNamesAndTypes" (numbers little-endian, lengths as LEB128).

use super::super::sink::{Cell, Encoder, Row};
use super::ddl::{FILED, FILED_TYPE, column_type};
use crate::record::{Column, Kind, Table};
use crate::time::Timestamp;

const HOUR_NS: u64 = 3_600_000_000_000;

/// The encoder.
pub struct RowBinary;

impl Encoder for RowBinary {
    fn begin(&mut self, table: Table, out: &mut Vec<u8>) {
        let columns = table.columns();
        length(columns.len() + 1, out);
        for column in &columns {
            text(column.name, out);
        }
        text(FILED, out);
        for column in &columns {
            text(&column_type(column), out);
        }
        text(FILED_TYPE, out);
    }

    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        for (place, column) in row.columns().iter().enumerate() {
            value(column, row.cell(place), out);
        }
        out.extend_from_slice(&filed_s(row.time(), row.packets()).to_le_bytes());
    }
}

/// The time by which a row is filed, in seconds: its own, or where that is further than an hour from the
/// time that the packets had come to, the nearest that is not.
fn filed_s(time: Timestamp, packets: Timestamp) -> u32 {
    let filed = time.clamp(packets - HOUR_NS, packets + HOUR_NS);
    u32::try_from(filed.as_ns() / 1_000_000_000).unwrap_or(u32::MAX)
}

fn value(column: &Column, cell: Cell<'_>, out: &mut Vec<u8>) {
    if column.nullable {
        out.push(u8::from(cell == Cell::Null));
    }
    match (cell, column.kind) {
        (Cell::Null, _) => {}
        (Cell::Unsigned(number), kind) => {
            let octets = number.to_le_bytes();
            let width = match kind {
                Kind::U8 => 1,
                Kind::U16 => 2,
                Kind::U32 => 4,
                _ => 8,
            };
            out.extend_from_slice(octets.get(..width).unwrap_or(&octets));
        }
        (Cell::Signed(number), _) => out.extend_from_slice(&number.to_le_bytes()),
        (Cell::Float(number), _) => out.extend_from_slice(&number.to_le_bytes()),
        (Cell::Bool(flag), _) => out.push(u8::from(flag)),
        (Cell::Text(value), _) => text(value, out),
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Names and types of the columns of a batch; `None` where it is none.
pub(super) fn columns(batch: &[u8]) -> Option<Vec<(&str, &str)>> {
    let mut rest = batch;
    let count = take_length(&mut rest)?;
    let mut texts = || {
        let mut all = Vec::new();
        for _ in 0..count {
            let length = take_length(&mut rest)?;
            let (text, after) = rest.split_at_checked(length)?;
            rest = after;
            all.push(std::str::from_utf8(text).ok()?);
        }
        Some(all)
    };
    let (names, types) = (texts()?, texts()?);
    Some(names.into_iter().zip(types).collect())
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        length |= usize::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_leb128() {
        let encoded = |value| {
            let mut out = Vec::new();
            length(value, &mut out);
            out
        };
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(127), [127]);
        assert_eq!(encoded(128), [0x80, 1]);
        assert_eq!(encoded(65_535), [0xff, 0xff, 3]);
    }

    #[test]
    fn a_batch_says_its_columns() {
        for table in Table::ALL {
            let mut batch = Vec::new();
            RowBinary.begin(*table, &mut batch);
            let said = columns(&batch).expect("it is one");
            let wanted: Vec<_> = table.columns().iter().map(column_type).collect();
            assert!(
                said.iter()
                    .map(|(_, kind)| *kind)
                    .eq(wanted.iter().map(|it| &**it).chain([FILED_TYPE]))
            );
            assert_eq!(said.first().map(|(name, _)| *name), Some("schema_version"));
            for end in 0..batch.len() {
                assert_eq!(columns(&batch[..end]), None, "{end} octets");
            }
        }
        assert_eq!(columns(&[0xff; 40]), None);
    }

    #[test]
    fn rows_are_filed_within_an_hour_of_the_packets() {
        let s = |seconds| Timestamp::from_parts(seconds, 0);
        assert_eq!(filed_s(s(10_000), s(9_000)), 10_000);
        assert_eq!(filed_s(s(0), s(9_000)), 5_400);
        assert_eq!(filed_s(Timestamp(u64::MAX), s(9_000)), 12_600);
        assert_eq!(filed_s(Timestamp(u64::MAX), Timestamp(u64::MAX)), u32::MAX);
    }
}
