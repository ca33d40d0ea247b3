//! Records in ArcSight's Common Event Format.
//!
//! In: a row. Out: `CEF:0|…` on one line.
//! Invariants: no text of a record ends a field, a line or, at readers written in C, the message early.
//! Source: "CEF Implementation Standard", Micro Focus, version 26: header, extension keys, escapes.

use std::io::Write as _;
use std::net::IpAddr;

use super::super::json;
use super::super::sink::{Cell, Row};
use crate::record::Table;

/// Extension keys of texts and numbers, and the columns that they come from; the first one that is there
/// counts.
const FIELDS: &[(&str, &[&str])] = &[
    ("externalId", &["alert_id", "flow_id"]),
    ("spt", &["source_port"]),
    ("dpt", &["destination_port"]),
    ("smac", &["source_mac"]),
    ("dmac", &["destination_mac"]),
    ("shost", &["source_virtual_station_name"]),
    ("dhost", &["destination_virtual_station_name"]),
    ("app", &["application_name"]),
    // Relative to source and destination: in is from source to destination.
    ("in", &["octet_delta_count"]),
    ("out", &["reverse_octet_delta_count"]),
    ("cnt", &["event_count"]),
    ("act", &["state"]),
];

/// Custom texts with their labels: the first is always `cs1`, and so on, whatever the others have.
const CUSTOM: &[(&str, &str)] = &[
    ("segment", "segment"),
    ("source_virtual_station_tenant", "sourceTenant"),
    ("destination_virtual_station_tenant", "destinationTenant"),
    ("traffic_class", "trafficClass"),
    ("mitre_technique", "mitreTechnique"),
    ("features", "features"),
];

/// Times, in milliseconds since the epoch.
const TIMES: &[(&str, &[&str])] = &[
    ("start", &["first_seen_ns", "flow_start_ns", "window_start_ns"]),
    ("end", &["last_seen_ns", "flow_end_ns", "window_end_ns"]),
];

/// Appends the message.
pub(super) fn write(row: Row<'_>, out: &mut Vec<u8>) {
    let table = row.table().name();
    let signature = row.named("detector").text().unwrap_or(table);
    let name = row.named("title").text().unwrap_or(table);
    // Writing into memory cannot fail.
    let _ = write!(out, "CEF:0|vmprobe|vmprobe|{}|", env!("CARGO_PKG_VERSION"));
    header(signature, out);
    out.push(b'|');
    header(name, out);
    let _ = write!(out, "|{}|", severity(row));
    let _ = write!(out, "rt={}", row.time().as_ns() / 1_000_000);
    for (key, columns) in TIMES {
        if let Some(ns) = columns.iter().find_map(|name| row.named(name).number()) {
            let _ = write!(out, " {key}={}", ns / 1_000_000);
        }
    }
    address(row.named("source_address"), ("src", "c6a2", "Source"), out);
    address(row.named("destination_address"), ("dst", "c6a3", "Destination"), out);
    if let Some(protocol) = row.named("protocol_identifier").number() {
        let _ = write!(out, " proto={}", crate::export::eve::protocol_name(protocol));
    }
    for (key, columns) in FIELDS {
        let cell = columns.iter().map(|name| row.named(name)).find(|cell| *cell != Cell::Null);
        if let Some(cell) = cell {
            field(key, cell, out);
        }
    }
    let numbered = (1..).zip(CUSTOM);
    for (number, (column, label)) in numbered.filter(|(_, (it, _))| row.named(it) != Cell::Null) {
        field(&format!("cs{number}"), row.named(column), out);
        field(&format!("cs{number}Label"), Cell::Text(label), out);
    }
    if !matches!(row.table(), Table::Alerts | Table::Flows | Table::Windows) {
        // What has no keys of its own is all there as JSON.
        let mut text = Vec::new();
        json::write_row(row, &mut text);
        field("msg", Cell::Text(&String::from_utf8_lossy(&text)), out);
    }
}

/// 0–10: the standard's Low is up to 3, Medium up to 6, High up to 8, Very-High beyond.
fn severity(row: Row<'_>) -> u8 {
    match row.named("severity").text() {
        Some("critical") => 10,
        Some("high") => 8,
        Some("medium") => 5,
        Some("low") => 3,
        _ => 1,
    }
}

fn address(cell: Cell<'_>, (four, six, label): (&str, &str, &str), out: &mut Vec<u8>) {
    let Some(text) = cell.text() else { return };
    match text.parse() {
        Ok(IpAddr::V6(_)) => {
            field(six, cell, out);
            let label = format!("{label} IPv6 Address");
            field(&format!("{six}Label"), Cell::Text(&label), out);
        }
        _ => field(four, cell, out),
    }
}

fn field(key: &str, cell: Cell<'_>, out: &mut Vec<u8>) {
    let _ = write!(out, " {key}=");
    match cell {
        Cell::Text(text) => extension(text, out),
        other => json::write_cell(other, out),
    }
}

/// First of Unicode's pictures of control characters, U+2400 to U+2421, as UTF-8; the next ones follow in the
/// last octet.
const PICTURES: [u8; 3] = [0xe2, 0x90, 0x80];
/// The picture of DEL.
const DELETE: [u8; 3] = [0xe2, 0x90, 0xa1];

/// A header field: backslash and pipe are escaped, line ends become blanks.
fn header(text: &str, out: &mut Vec<u8>) {
    escaped(text, b"\\|", |_| b" ", out);
}

/// An extension's value: backslash and equals sign are escaped, line ends become `\n`.
fn extension(text: &str, out: &mut Vec<u8>) {
    escaped(text, b"\\=", |octet| if octet == b'\r' { b"\\r" } else { b"\\n" }, out);
}

fn escaped(text: &str, special: &[u8], line_end: impl Fn(u8) -> &'static [u8], out: &mut Vec<u8>) {
    for octet in text.bytes() {
        match octet {
            b'\n' | b'\r' => out.extend_from_slice(line_end(octet)),
            // The standard has no escape for them, and receivers change or end at them.
            0..0x20 => {
                let [first, second, last] = PICTURES;
                out.extend_from_slice(&[first, second, last + octet]);
            }
            0x7f => out.extend_from_slice(&DELETE),
            _ => {
                if special.contains(&octet) {
                    out.push(b'\\');
                }
                out.push(octet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, FlowRecord, LedgerRecord, Origin, Rows};
    use crate::time::Timestamp;

    #[test]
    fn an_alert_is_an_event_that_nothing_in_it_ends_early() {
        let alert = AlertRecord {
            detector: "port|scan".into(),
            severity: "medium",
            title: "a|b\\c\nd\0\t\u{7f}".into(),
            features: "{\"x\":\"=\n\"}".into(),
            source_address: Some("192.0.2.1".parse().expect("an address")),
            destination_address: Some("2001:db8::1".parse().expect("an address")),
            first_seen_ns: 1_000_000,
            last_seen_ns: 2_000_000,
            event_count: 9,
            ..AlertRecord::default()
        };
        let flow = FlowRecord { protocol_identifier: 6, source_port: 7, ..FlowRecord::default() };
        let ledger = LedgerRecord::default();
        let rows = Rows {
            alerts: vec![alert],
            flows: vec![flow],
            ledger: vec![ledger],
            ..Rows::default()
        };
        let (parts, _) = TableRows::of(&rows, &Origin::new("p", "d"), Timestamp::ZERO, |_| true);
        let texts: Vec<String> = parts
            .iter()
            .flat_map(TableRows::rows)
            .map(|row| {
                let mut out = Vec::new();
                write(row, &mut out);
                String::from_utf8(out).expect("UTF-8")
            })
            .collect();
        let [flow, alert, ledger] = &texts[..] else { panic!("three: {texts:?}") };
        let version = env!("CARGO_PKG_VERSION");
        let head = format!(
            "CEF:0|vmprobe|vmprobe|{version}|port\\|scan|a\\|b\\\\c d␀␉␡|5|rt=2 start=1 end=2 "
        );
        assert!(alert.starts_with(&head), "{alert}");
        for part in [
            " src=192.0.2.1 ",
            " c6a3=2001:db8::1 c6a3Label=Destination IPv6 Address",
            " cnt=9 ",
            " cs6={\"x\":\"\\=\\n\"} cs6Label=features",
        ] {
            assert!(alert.contains(part), "{part} in {alert}");
        }
        assert!(flow.contains("|flows|flows|1|"), "{flow}");
        assert!(flow.contains(" proto=TCP ") && flow.contains(" spt=7 "), "{flow}");
        assert!(flow.contains(" cs1Label=segment ") && !alert.contains(" cs2"), "{texts:?}");
        assert!(ledger.contains(" msg={\"schema_version\":"));
        assert!(texts.iter().all(|text| !text.contains(['\n', '\r'])));
    }
}
