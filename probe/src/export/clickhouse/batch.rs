//! What a batch says of itself, before its rows.
//!
//! In: a table. Out: the names and types of its columns as they are now, so that a batch from the spool
//! still fits a table that has got more columns or wider ones since; and again from a batch.
//! Invariants: a batch of a probe of before, in RowBinaryWithNamesAndTypes, is one too: it begins with how
//! many columns it has, which are some, where this begins with [`MARK`].
//! Source: ClickHouse, "RowBinaryWithNamesAndTypes" (lengths as LEB128), whose head this is behind the mark.

use super::ddl::{FILED, FILED_TYPE, column_type};
use crate::record::Table;

/// How a batch begins whose rows are in Native, compressed. To who knows RowBinary alone, a probe of before
/// that finds it in the spool, it is more columns than there can be: an error, and no rows.
const MARK: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];

/// A batch, as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said<'a> {
    /// Names and types of its columns.
    pub(super) columns: Vec<(&'a str, &'a str)>,
    /// Its rows.
    pub(super) body: Body<'a>,
}

/// Rows in one of ClickHouse's formats.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// Native, compressed by zstd.
    Native(&'a [u8]),
    /// RowBinaryWithNamesAndTypes, its head included.
    RowBinary(&'a [u8]),
}

/// What stands before the rows of a table.
pub(super) fn begin(table: Table, out: &mut Vec<u8>) {
    let columns = table.columns();
    out.extend_from_slice(&MARK);
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

pub(super) fn text(text: &str, out: &mut Vec<u8>) {
    length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn length(mut length: usize, out: &mut Vec<u8>) {
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

/// What a batch says; `None` where it is none.
pub(super) fn read(batch: &[u8]) -> Option<Said<'_>> {
    let native = batch.strip_prefix(&MARK);
    let mut rest = native.unwrap_or(batch);
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
    let body = if native.is_some() { Body::Native(rest) } else { Body::RowBinary(batch) };
    Some(Said { columns: names.into_iter().zip(types).collect(), body })
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
            begin(*table, &mut batch);
            let head = batch.len();
            batch.extend(b"rows");
            let said = read(&batch).expect("it is one");
            let wanted: Vec<_> = table.columns().iter().map(column_type).collect();
            let wanted = wanted.iter().map(|it| &**it).chain([FILED_TYPE]);
            assert!(said.columns.iter().map(|(_, kind)| *kind).eq(wanted));
            assert_eq!(said.columns.first().map(|(name, _)| *name), Some("schema_version"));
            assert_eq!(said.body, Body::Native(b"rows"));
            // As a probe of before has left it.
            let old = &batch[MARK.len()..];
            let before = read(old).expect("it is one");
            assert_eq!(before, Said { body: Body::RowBinary(old), ..said });
            for end in 0..head {
                assert_eq!(read(&batch[..end]), None, "{end} octets");
            }
        }
        assert_eq!(read(&[0xff; 40]), None);
    }
}
