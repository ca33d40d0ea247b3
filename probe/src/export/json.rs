//! Records as JSON: one encoder for all sinks that speak it.
//!
//! In: a row of a table. Out: one JSON object on one line, all columns, in the schema's order.
//! Cost: no allocation but of the output; names are written as they are, because they hold nothing to
//! escape (a test of the schema).
//! Invariants: the same as [`Record::json`](crate::record::Record::json): null is `null`, numbers are
//! numbers, also above 2^53, and what JSON lacks (NaN, infinity) is null.
//! Source: RFC 8259.

use std::io::Write as _;

use super::sink::{Cell, Encoder, Row};

/// One object a line.
pub struct Lines;

impl Encoder for Lines {
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        write_row(row, out);
        out.push(b'\n');
    }
}

/// Appends a row as an object, without a line end.
pub fn write_row(row: Row<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (place, column) in row.columns().iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(column.name.as_bytes());
        out.extend_from_slice(b"\":");
        write_cell(row.cell(place), out);
    }
    out.push(b'}');
}

/// Appends one value.
pub fn write_cell(cell: Cell<'_>, out: &mut Vec<u8>) {
    // Writing into memory cannot fail.
    let _ = match cell {
        Cell::Null => out.write_all(b"null"),
        Cell::Unsigned(value) => write!(out, "{value}"),
        Cell::Signed(value) => write!(out, "{value}"),
        Cell::Bool(value) => write!(out, "{value}"),
        Cell::Float(value) => return write_json(out, &value),
        Cell::Text(text) => return write_json(out, &text),
    };
}

fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "numbers and texts are JSON");
}
