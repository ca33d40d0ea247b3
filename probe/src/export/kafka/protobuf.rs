//! Records as Protocol Buffers, and the schema that describes them.
//!
//! In: rows; the record schema. Out: one message a row; `vmprobe.proto`.
//! Cost: one pass over the row, no allocation but of the output.
//! Invariants: names, types and order are those of the record schema; a field's number stands in
//! `vmprobe.proto`, which is in the tree, and is never given to another one: a new column gets the next
//! free number of its message, that of a column which is gone stays reserved. A test holds the file equal
//! to what [`schema`] makes of it.
//! Source: protobuf.dev, "Encoding" and "Language Guide (proto 3)".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::super::sink::{Cell, Row};
use crate::record::{Column, Kind, SCHEMA_VERSION, Table};

/// The schema as it is in the tree.
pub const COMMITTED: &str = include_str!("vmprobe.proto");

/// Numbers that protobuf keeps for itself.
const KEPT: std::ops::RangeInclusive<u32> = 19_000..=19_999;

/// Numbers of the columns of each table, by place; 0 for one that has none, which a test finds.
static NUMBERS: LazyLock<Vec<Vec<u32>>> = LazyLock::new(|| {
    let given = numbers(COMMITTED);
    let of = |table: &Table| {
        let fields = given.get(&message_name(*table));
        let number = |column: &Column| fields.and_then(|it| it.named.get(column.name)).copied();
        table.columns().iter().map(|column| number(column).unwrap_or(0)).collect()
    };
    Table::ALL.iter().map(of).collect()
});

/// Appends a row as a message.
pub(super) fn write_row(row: Row<'_>, out: &mut Vec<u8>) {
    let numbers = NUMBERS.get(row.table() as usize).map_or(&[][..], Vec::as_slice);
    let columns = row.columns().iter().enumerate().zip(numbers);
    for ((place, column), number) in columns.filter(|(_, number)| **number > 0) {
        // A field that is not optional and has the default value is left out: proto3.
        let cell = row.cell(place);
        if column.nullable || !is_default(cell) {
            write_field(column.kind, *number, cell, out);
        }
    }
}

fn is_default(cell: Cell<'_>) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Unsigned(value) => value == 0,
        Cell::Signed(value) => value == 0,
        // −0 is another value.
        Cell::Float(value) => value.to_bits() == 0,
        Cell::Bool(value) => !value,
        Cell::Text(text) => text.is_empty(),
    }
}

/// How a value is laid out.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
}

const fn wire_of(kind: Kind) -> Wire {
    match kind {
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 | Kind::I64 | Kind::Bool => Wire::Varint,
        Kind::F64 => Wire::Fixed64,
        Kind::Text => Wire::Length,
    }
}

fn write_field(kind: Kind, number: u32, cell: Cell<'_>, out: &mut Vec<u8>) {
    if cell != Cell::Null {
        varint(u64::from(number) << 3 | wire_of(kind) as u64, out);
    }
    match cell {
        Cell::Null => {}
        Cell::Unsigned(value) => varint(value, out),
        Cell::Signed(value) => varint(zigzag(value), out),
        Cell::Bool(value) => varint(u64::from(value), out),
        Cell::Float(value) => out.extend_from_slice(&value.to_le_bytes()),
        Cell::Text(text) => {
            varint(u64::try_from(text.len()).unwrap_or(0), out);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Small negative numbers as small ones: sint64.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A message of a table's, by names; `None` where it is none. Fields that the schema does not have are left
/// out.
pub(crate) fn read_row(table: Table, mut bytes: &[u8]) -> Option<serde_json::Map<String, Json>> {
    let columns = table.columns();
    let numbers = NUMBERS.get(table as usize)?;
    let mut row = serde_json::Map::new();
    for column in columns.iter().filter(|column| !column.nullable) {
        row.insert(column.name.to_owned(), default_of(column.kind));
    }
    while !bytes.is_empty() {
        let tag = read_varint(&mut bytes)?;
        let column =
            numbers.iter().position(|number| u64::from(*number) == tag >> 3).map(|at| columns[at]);
        let (wire, value) = match tag & 7 {
            0 => (Wire::Varint, Json::from(read_varint(&mut bytes)?)),
            1 => {
                let (octets, rest) = bytes.split_first_chunk::<8>()?;
                bytes = rest;
                (Wire::Fixed64, Json::from(f64::from_le_bytes(*octets)))
            }
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                let (octets, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                (Wire::Length, Json::from(std::str::from_utf8(octets).ok()?))
            }
            _ => return None,
        };
        let Some(column) = column else { continue };
        if wire_of(column.kind) as u8 != wire as u8 {
            return None;
        }
        let value = match (column.kind, value.as_u64()) {
            (Kind::I64, Some(value)) => Json::from(unzigzag(value)),
            (Kind::Bool, Some(value)) => Json::from(value != 0),
            _ => value,
        };
        row.insert(column.name.to_owned(), value);
    }
    Some(row)
}

fn default_of(kind: Kind) -> Json {
    match kind {
        Kind::Text => Json::from(""),
        Kind::Bool => Json::from(false),
        Kind::F64 => Json::from(0.0),
        _ => Json::from(0),
    }
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Fields of one message.
#[derive(Default)]
struct Fields {
    named: BTreeMap<String, u32>,
    /// Of columns that are gone.
    reserved: BTreeSet<u32>,
}

/// The numbers that a schema has given.
fn numbers(text: &str) -> BTreeMap<String, Fields> {
    let mut all = BTreeMap::<String, Fields>::new();
    let mut message = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("message ").and_then(|it| it.strip_suffix(" {")) {
            name.clone_into(&mut message);
        }
        let fields = all.entry(message.clone()).or_default();
        if let Some(list) = line.strip_prefix("reserved ").and_then(|it| it.strip_suffix(';')) {
            fields.reserved.extend(list.split(", ").filter_map(|it| it.parse::<u32>().ok()));
        } else if let Some((field, number)) =
            line.strip_suffix(';').and_then(|it| it.split_once(" = "))
            && let (Some(name), Ok(number)) = (field.split(' ').next_back(), number.parse())
        {
            fields.named.insert(name.to_owned(), number);
        }
    }
    all
}

/// The schema of all tables; numbers are those of `before`, which is an earlier one, or empty.
pub fn schema(before: &str) -> String {
    let mut given = numbers(before);
    let mut text = format!(
        "// Messages of vmprobe on Kafka, record schema version {SCHEMA_VERSION}. Made from the record \
         module; a test holds\n// both equal. Numbers never change. `optional` is what may be null: not \
         measured, or not known.\n\nsyntax = \"proto3\";\n\npackage vmprobe.v{SCHEMA_VERSION};\n"
    );
    for table in Table::ALL {
        let name = message_name(*table);
        let fields = given.remove(&name).unwrap_or_default();
        // Writing into a String cannot fail.
        let _ = write!(text, "\n// A record of `{}`, topic vmprobe.{0}.\n", table.name());
        let _ = writeln!(text, "message {name} {{");
        write_fields(&table.columns(), &fields, &mut text);
        text.push_str("}\n");
    }
    text
}

fn write_fields(columns: &[Column], given: &Fields, text: &mut String) {
    let is_gone = |name: &String| !columns.iter().any(|column| column.name == name);
    let gone = given.named.iter().filter(|(name, _)| is_gone(name)).map(|(_, number)| *number);
    let reserved: BTreeSet<u32> = given.reserved.iter().copied().chain(gone).collect();
    if !reserved.is_empty() {
        let list: Vec<_> = reserved.iter().map(u32::to_string).collect();
        let _ = writeln!(text, "  reserved {};", list.join(", "));
    }
    let mut last = given.named.values().chain(&reserved).max().copied().unwrap_or(0);
    for column in columns {
        let number = given.named.get(column.name).copied().unwrap_or_else(|| {
            last += 1;
            if KEPT.contains(&last) {
                last = KEPT.end() + 1;
            }
            last
        });
        comment(column, text);
        let optional = if column.nullable { "optional " } else { "" };
        let kind = protobuf_type(column.kind);
        let _ = writeln!(text, "  {optional}{kind} {} = {number};", column.name);
    }
}

/// What a column says, as lines of comment.
fn comment(column: &Column, text: &mut String) {
    const WIDTH: usize = 96;
    let unit = if column.unit.is_empty() { String::new() } else { format!(" [{}]", column.unit) };
    let mut line = String::from("  //");
    for word in format!("{}{unit}", column.meaning.trim()).split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("  //");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

const fn protobuf_type(kind: Kind) -> &'static str {
    match kind {
        Kind::U8 | Kind::U16 | Kind::U32 => "uint32",
        Kind::U64 => "uint64",
        Kind::I64 => "sint64",
        Kind::F64 => "double",
        Kind::Bool => "bool",
        Kind::Text => "string",
    }
}

/// `path_samples` → `PathSamples`.
fn message_name(table: Table) -> String {
    let mut name = String::new();
    for word in table.name().split('_') {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.extend(letters);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_number_of_its_own() {
        for (table, numbers) in Table::ALL.iter().zip(&*NUMBERS) {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), table.columns().len(), "{table:?}");
            assert!(sorted[0] > 0, "{table:?} has a column without a number");
        }
        let places: Vec<_> = Table::ALL.iter().map(|table| *table as usize).collect();
        assert!(places.into_iter().eq(0..Table::ALL.len()), "tables are found by their place");
    }

    #[test]
    fn numbers_stay() {
        let fresh = schema("");
        assert_eq!(schema(&fresh), fresh);
        let is_field = |line: &&str| line.contains("domain = 3;");
        assert_eq!(fresh.lines().filter(is_field).count(), Table::ALL.len());
        // A column that another version had is never given out again; one that it did not have comes last.
        let other = fresh.replace("string domain = 3;", "string gone = 3;");
        let next = schema(&other);
        assert_eq!(next.matches("  reserved 3;\n").count(), Table::ALL.len());
        let own = format!("  string domain = {};", Table::Taps.columns().len() + 1);
        assert!(next.contains(&own), "{own}");
        assert_eq!(schema(&next), next);
        assert_eq!(
            schema(&next.replace("string domain", "string again")).matches("reserved 3, ").count(),
            Table::ALL.len()
        );
    }

    #[test]
    fn values_are_laid_out_as_the_encoding_says() {
        let of = |kind, cell| {
            let mut out = Vec::new();
            write_field(kind, 1, cell, &mut out);
            out
        };
        // The examples of "Encoding".
        assert_eq!(of(Kind::U32, Cell::Unsigned(150)), [0x08, 0x96, 0x01]);
        let testing = [0x0a, 7, b't', b'e', b's', b't', b'i', b'n', b'g'];
        assert_eq!(of(Kind::Text, Cell::Text("testing")), testing);
        assert_eq!(of(Kind::I64, Cell::Signed(-1)), [0x08, 1]);
        assert_eq!(of(Kind::U64, Cell::Unsigned(u64::MAX)).len(), 11);
        assert_eq!(of(Kind::F64, Cell::Float(-0.5))[..2], [0x09, 0]);
        assert!(of(Kind::Bool, Cell::Null).is_empty());
        assert_eq!([zigzag(i64::MIN), zigzag(i64::MAX)], [u64::MAX, u64::MAX - 1]);
    }

    #[test]
    fn what_is_written_reads_back() {
        use crate::export::sink::TableRows;
        use crate::record::{Origin, PathSampleRecord, Record as _, Rows};
        use crate::time::Timestamp;
        let sample = PathSampleRecord {
            digest_hash_value: u64::MAX,
            tap: "a".into(),
            segment_stripped: true,
            evidence: "none",
            ..PathSampleRecord::default()
        };
        let origin = Origin::new("p", "d");
        let rows = Rows { path_samples: vec![sample.clone()], ..Rows::default() };
        let (parts, _) = TableRows::of(&rows, &origin, Timestamp::ZERO, |_| true);
        let mut bytes = Vec::new();
        write_row(parts[0].rows().next().expect("a row"), &mut bytes);
        let read = read_row(Table::PathSamples, &bytes).expect("a message");
        assert_eq!(Json::Object(read), sample.json(&origin));
        for end in 1..bytes.len() {
            // Cut anywhere it is another message or none, and never a panic.
            let _ = read_row(Table::PathSamples, &bytes[..end]);
        }
        assert!([i64::MIN, -1, 0, i64::MAX].iter().all(|it| unzigzag(zigzag(*it)) == *it));
    }
}
