//! Rows in ClickHouse's Native, column by column.
//!
//! In: rows as columns. Out: blocks, each compressed by itself, behind what the batch says of itself.
//! Cost: numbers are copied as they lie in memory; a text that repeats is looked up in the block's own
//! dictionary; a column that is null in all rows of a block is left out. No memory of its own a row: what a
//! block is written in is used again for the next.
//! Invariants: a block has the columns that its batch says, under the same types, or lacks those that are
//! null; the same rows give the same octets.
//! Source: ClickHouse, "Native" (numbers little-endian, lengths as LEB128; of a nullable column first which
//! rows are null, an octet each; of LowCardinality version, kind of indices, dictionary and indices).

use std::collections::hash_map::Entry;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Float64Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, StringArray};
use zstd::bulk::Compressor;

use super::super::sink::{Encoder, Row, TableRows};
use super::batch::{self, length, text};
use super::ddl::{FILED, FILED_TYPE, column_type};
use crate::hash::KeyedMap;
use crate::record::{Column, Kind, Table};
use crate::time::Timestamp;

const HOUR_NS: u64 = 3_600_000_000_000;
/// Rows of a block at most.
const BLOCK_ROWS: usize = 8_192;
/// Columns are mostly alike from row to row: level 1 would make a third less of a row (23 octets instead of
/// 36 of a conversation) for twice the time.
const ZSTD_LEVEL: i32 = -5;

/// Numbers are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"));

/// The encoder.
pub struct Native {
    compressor: Compressor<'static>,
    block: Vec<u8>,
    compressed: Vec<u8>,
}

impl Native {
    /// With nothing to write yet.
    ///
    /// # Panics
    /// Where zstd has no memory for its tables.
    pub fn new() -> Self {
        let compressor = Compressor::new(ZSTD_LEVEL).expect("a level that zstd has");
        Self { compressor, block: Vec::new(), compressed: Vec::new() }
    }

    fn append(&mut self, rows: &TableRows, from: usize, count: usize, out: &mut Vec<u8>) {
        self.block.clear();
        write(rows, from, count, &mut self.block);
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(self.block.len()));
        self.compressor
            .compress_to_buffer(&self.block, &mut self.compressed)
            .expect("there is room for what does not get smaller");
        out.extend_from_slice(&self.compressed);
    }
}

impl Default for Native {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder for Native {
    fn begin(&mut self, table: Table, out: &mut Vec<u8>) {
        batch::begin(table, out);
    }

    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let (rows, place) = row.among();
        self.append(rows, place, 1, out);
    }

    fn rows(
        &mut self,
        rows: &TableRows,
        from: usize,
        records_max: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let count = records_max.min(BLOCK_ROWS).min(rows.len().saturating_sub(from));
        if count > 0 {
            self.append(rows, from, count, out);
        }
        count
    }
}

/// A block.
fn write(rows: &TableRows, from: usize, count: usize, out: &mut Vec<u8>) {
    let there = || rows.columns(from, count).filter(|(_, values)| values.null_count() < count);
    length(there().count() + 1, out);
    length(count, out);
    let time = rows.table.time_column();
    let mut filed = Vec::new();
    for (column, values) in there() {
        text(column.name, out);
        text(&column_type(column), out);
        write_column(column, &values, out);
        if column.name == time {
            let times = values.as_primitive::<UInt64Type>().values();
            filed = times.iter().map(|ns| filed_s(Timestamp(*ns), rows.packets)).collect();
        }
    }
    text(FILED, out);
    text(FILED_TYPE, out);
    out.extend(filed.into_iter().flat_map(u32::to_le_bytes));
}

/// The time by which a row is filed, in seconds: its own, or where that is further than an hour from the
/// time that the packets had come to, the nearest that is not.
fn filed_s(time: Timestamp, packets: Timestamp) -> u32 {
    let filed = time.clamp(packets - HOUR_NS, packets + HOUR_NS);
    u32::try_from(filed.as_ns() / 1_000_000_000).unwrap_or(u32::MAX)
}

fn write_column(column: &Column, values: &dyn Array, out: &mut Vec<u8>) {
    if column.kind == Kind::Text && column_type(column).starts_with("LowCardinality") {
        return write_dictionary(values.as_string(), column.nullable, out);
    }
    if column.nullable {
        write_nulls(values, out);
    }
    match column.kind {
        Kind::U8 => write_numbers::<UInt8Type>(values, out),
        Kind::U16 => write_numbers::<UInt16Type>(values, out),
        Kind::U32 => write_numbers::<UInt32Type>(values, out),
        Kind::U64 => write_numbers::<UInt64Type>(values, out),
        Kind::I64 => write_numbers::<Int64Type>(values, out),
        Kind::F64 => write_numbers::<Float64Type>(values, out),
        Kind::Bool => {
            let bits = values.as_boolean().values().bit_chunks();
            write_bits(bits.iter_padded(), values.len(), out);
        }
        Kind::Text => {
            let texts: &StringArray = values.as_string();
            for place in 0..texts.len() {
                text(texts.value(place), out);
            }
        }
    }
}

fn write_numbers<T: ArrowPrimitiveType>(values: &dyn Array, out: &mut Vec<u8>) {
    out.extend_from_slice(values.as_primitive::<T>().values().inner().as_slice());
}

/// An octet a row: whether it is null.
fn write_nulls(values: &dyn Array, out: &mut Vec<u8>) {
    match values.nulls() {
        None => out.resize(out.len() + values.len(), 0),
        Some(valid) => {
            let bits = valid.inner().bit_chunks();
            write_bits(bits.iter_padded().map(|word| !word), values.len(), out);
        }
    }
}

/// An octet a bit, of so many.
fn write_bits(words: impl Iterator<Item = u64>, count: usize, out: &mut Vec<u8>) {
    let end = out.len() + count;
    for octet in words.flat_map(u64::to_le_bytes) {
        out.extend_from_slice(&BITS[usize::from(octet)]);
    }
    out.truncate(end);
}

/// The bits of an octet, the lowest first.
const BITS: [[u8; 8]; 256] = {
    let mut all = [[0; 8]; 256];
    let mut octet = 0;
    while octet < all.len() {
        let mut bit = 0;
        while bit < 8 {
            all[octet][bit] = ((octet >> bit) & 1).to_le_bytes()[0];
            bit += 1;
        }
        octet += 1;
    }
    all
};

/// Version of LowCardinality's form, and that dictionaries stand in the blocks that use them.
const DICTIONARIES_IN_BLOCKS: u64 = 1;
/// With the kind of the indices: the dictionary stands here, and is another than that of the block before.
const DICTIONARY_HERE: u64 = 1 << 9 | 1 << 10;

/// Texts that repeat. `nullable`: the first of the dictionary stands for null.
fn write_dictionary(texts: &StringArray, nullable: bool, out: &mut Vec<u8>) {
    let mut known: KeyedMap<&str, u32> = KeyedMap::default();
    let mut dictionary: Vec<&str> = if nullable { vec![""] } else { Vec::new() };
    let mut places: Vec<u32> = Vec::with_capacity(texts.len());
    // Rows are in an order, so most are as the one before.
    let mut last: Option<(&str, u32)> = None;
    for row in 0..texts.len() {
        if texts.is_null(row) {
            places.push(0);
            continue;
        }
        let value = texts.value(row);
        let place = match last {
            Some((as_before, place)) if as_before == value => place,
            _ => match known.entry(value) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let place = u32::try_from(dictionary.len()).unwrap_or(u32::MAX);
                    dictionary.push(value);
                    *entry.insert(place)
                }
            },
        };
        last = Some((value, place));
        places.push(place);
    }
    let mut number = |number: u64| out.extend_from_slice(&number.to_le_bytes());
    let width = match dictionary.len() {
        0..=0x100 => 0,
        0x101..=0x1_0000 => 1,
        _ => 2,
    };
    number(DICTIONARIES_IN_BLOCKS);
    number(DICTIONARY_HERE | width);
    number(dictionary.len() as u64);
    for value in &dictionary {
        text(value, out);
    }
    out.extend_from_slice(&(places.len() as u64).to_le_bytes());
    match width {
        0 => out.extend(places.iter().map(|place| place.to_le_bytes()[0])),
        1 => out.extend(places.iter().flat_map(|place| {
            let [low, high, ..] = place.to_le_bytes();
            [low, high]
        })),
        _ => out.extend(places.iter().flat_map(|place| place.to_le_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_octets() {
        let mut out = vec![9];
        write_bits([0b101, u64::MAX].into_iter(), 66, &mut out);
        assert_eq!(out.len(), 67);
        assert_eq!(out[..5], [9, 1, 0, 1, 0]);
        assert_eq!(out[64..], [0, 1, 1]);
    }

    #[test]
    fn texts_that_repeat_stand_once() {
        let texts: StringArray = [Some("b"), None, Some("b"), Some("a")].into_iter().collect();
        let mut out = Vec::new();
        write_dictionary(&texts, true, &mut out);
        let expected = [
            &1_u64.to_le_bytes()[..],
            &0x600_u64.to_le_bytes(),
            &3_u64.to_le_bytes(),
            &[0, 1, b'b', 1, b'a'],
            &4_u64.to_le_bytes(),
            &[1, 0, 1, 2],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn indices_are_as_wide_as_the_dictionary_is_long() {
        for (count, width) in [(256_u32, 0_u64), (257, 1), (65_537, 2)] {
            let texts: StringArray = (0..count).map(|it| Some(it.to_string())).collect();
            let mut out = Vec::new();
            write_dictionary(&texts, false, &mut out);
            assert_eq!(out[8..16], (0x600 | width).to_le_bytes(), "{count} texts");
            let last = (count - 1).to_le_bytes();
            assert!(out.ends_with(&last[..1 << width]), "{count} texts");
        }
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
