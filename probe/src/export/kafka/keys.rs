//! Which records meet: the key of a message.
//!
//! In: a row. Out: a text; Kafka puts messages with equal keys into one partition of a topic, in order.
//! Invariants: both directions of a conversation, and all probes' sightings of one packet, have one key.

use std::io::Write as _;

use super::super::sink::{Cell, Row};
use crate::record::Table;

/// What a table's records are kept together by.
enum Key {
    /// The two endpoints in their address space, whichever sends.
    Pair,
    /// These columns, up to the first that is null.
    Columns(&'static [&'static str]),
}

const fn key(table: Table) -> Key {
    match table {
        Table::Windows | Table::Flows | Table::Apps | Table::Path => Key::Pair,
        Table::PathSamples => Key::Columns(&["digest_hash_value"]),
        Table::Alerts => Key::Columns(&["alert_id"]),
        Table::Migrations => Key::Columns(&["address_space", "address"]),
        Table::Inventory => Key::Columns(&["uuid"]),
        Table::VmUsage => Key::Columns(&["virtual_station_uuid"]),
        Table::Delays => Key::Columns(&["virtual_station_tenant"]),
        Table::Taps => Key::Columns(&["tap"]),
        Table::Ledger => Key::Columns(&["probe_id"]),
    }
}

/// Appends the key of a row; nothing where it has none, so that it meets no other.
pub(super) fn write(row: Row<'_>, out: &mut Vec<u8>) {
    match key(row.table()) {
        Key::Pair => pair(row, out),
        Key::Columns(names) => {
            for (place, name) in names.iter().enumerate() {
                let cell = row.named(name);
                if cell == Cell::Null {
                    return;
                }
                if place > 0 {
                    out.push(b'|');
                }
                text(cell, out);
            }
        }
    }
}

fn pair(row: Row<'_>, out: &mut Vec<u8>) {
    let of = |name| row.named(name).text();
    let ends = of("source_address").zip(of("destination_address"));
    let Some((one, other)) = ends else {
        // Everybody's packets between two taps.
        let Some(taps) = of("from_tap").zip(of("to_tap")) else { return };
        return joined([taps.0.min(taps.1), taps.0.max(taps.1)], out);
    };
    joined([of("address_space").unwrap_or_default(), one.min(other), one.max(other)], out);
}

fn joined<const N: usize>(texts: [&str; N], out: &mut Vec<u8>) {
    for (place, text) in texts.iter().enumerate() {
        if place > 0 {
            out.push(b'|');
        }
        out.extend_from_slice(text.as_bytes());
    }
}

fn text(cell: Cell<'_>, out: &mut Vec<u8>) {
    // Writing into memory cannot fail.
    let _ = match cell {
        Cell::Null => Ok(()),
        Cell::Unsigned(value) => write!(out, "{value}"),
        Cell::Signed(value) => write!(out, "{value}"),
        Cell::Float(value) => write!(out, "{value}"),
        Cell::Bool(value) => write!(out, "{value}"),
        Cell::Text(text) => out.write_all(text.as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, FlowRecord, Origin, PathRecord, PathSampleRecord, Rows};
    use crate::time::Timestamp;

    fn keys(rows: &Rows) -> Vec<String> {
        let origin = Origin::new("p", "d");
        let (parts, _) = TableRows::of(rows, &origin, Timestamp::ZERO, |_| true);
        let key = |row| {
            let mut out = Vec::new();
            write(row, &mut out);
            String::from_utf8(out).expect("UTF-8")
        };
        parts.iter().flat_map(TableRows::rows).map(key).collect()
    }

    #[test]
    fn what_must_meet_has_one_key() {
        let ip = |text: &str| text.parse().expect("an address");
        let flow = |one, other| FlowRecord {
            address_space: "blue".into(),
            source_address: ip(one),
            destination_address: ip(other),
            ..FlowRecord::default()
        };
        let rows = Rows {
            flows: vec![flow("10.0.0.2", "10.0.0.10"), flow("10.0.0.10", "10.0.0.2")],
            ..Rows::default()
        };
        assert_eq!(keys(&rows), ["blue|10.0.0.10|10.0.0.2"; 2]);
        let sample = |tap: &str| PathSampleRecord {
            digest_hash_value: u64::MAX,
            tap: tap.into(),
            ..PathSampleRecord::default()
        };
        let rows = Rows { path_samples: vec![sample("a"), sample("b")], ..Rows::default() };
        assert_eq!(keys(&rows), ["18446744073709551615"; 2]);
        let way = |from: &str, to: &str| PathRecord {
            from_tap: from.into(),
            to_tap: to.into(),
            ..PathRecord::default()
        };
        let rows = Rows { path: vec![way("a", "b"), way("b", "a")], ..Rows::default() };
        assert_eq!(keys(&rows), ["a|b"; 2]);
        let alert = AlertRecord { alert_id: "x".into(), ..AlertRecord::default() };
        assert_eq!(keys(&Rows { alerts: vec![alert], ..Rows::default() }), ["x"]);
    }

    #[test]
    fn columns_of_keys_are_there() {
        for table in Table::ALL {
            let Key::Columns(names) = key(*table) else { continue };
            let columns = table.columns();
            for name in names {
                assert!(columns.iter().any(|column| column.name == *name), "{table:?}.{name}");
            }
        }
    }
}
