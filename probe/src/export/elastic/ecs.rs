//! Records with the names of the Elastic Common Schema.
//!
//! In: a row. Out: one JSON object on a line: what ECS has a name for under that name, and the record as it
//! is under `vmprobe`.
//! Invariants: ids are texts, because Elasticsearch's `long` is signed; what is null has no key.
//! Source: Elastic Common Schema 8.11; docs/sinks/elastic.md has the table of names.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::export::sink::{Cell, Encoder, Row};
use crate::record::{COMMON, Kind, Origin, Table};
use crate::time::Timestamp;

/// Version of the schema whose names these are.
const ECS: &str = "8.11.0";

/// Writes lines.
pub(in crate::export) struct Documents {
    probe: Arc<str>,
}

impl Documents {
    pub(in crate::export) fn new(origin: &Origin) -> Self {
        Self { probe: Arc::clone(&origin.probe_id) }
    }
}

impl Encoder for Documents {
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let mut document = Map::new();
        document.insert("@timestamp".to_owned(), time_text(row.time()).into());
        document.insert("ecs".to_owned(), json!({ "version": ECS }));
        document.insert(
            "observer".to_owned(),
            json!({
                "name": &*self.probe,
                "vendor": "vmprobe",
                "product": "vmprobe",
                "type": "network-probe",
                "version": env!("CARGO_PKG_VERSION"),
            }),
        );
        document.insert("event".to_owned(), event(row));
        put(
            &mut document,
            "source",
            end(row, "source", ["packet_delta_count", "octet_delta_count"]),
        );
        let reverse = ["reverse_packet_delta_count", "reverse_octet_delta_count"];
        put(&mut document, "destination", end(row, "destination", reverse));
        put(&mut document, "network", network(row));
        if row.table() == Table::Alerts {
            alert(row, &mut document);
        }
        document.insert("vmprobe".to_owned(), own(row).into());
        let written = serde_json::to_writer(&mut *out, &document);
        debug_assert!(written.is_ok(), "texts and numbers are JSON");
        out.push(b'\n');
    }
}

fn put(into: &mut Map<String, Value>, key: &str, value: Map<String, Value>) {
    if !value.is_empty() {
        into.insert(key.to_owned(), value.into());
    }
}

fn value(cell: Cell<'_>) -> Option<Value> {
    Some(match cell {
        Cell::Null => return None,
        Cell::Unsigned(number) => number.into(),
        Cell::Signed(number) => number.into(),
        Cell::Float(number) => number.into(),
        Cell::Bool(flag) => flag.into(),
        Cell::Text(text) => text.into(),
    })
}

/// Copies a column to a key, if the row has it.
fn copy(row: Row<'_>, column: &str, into: &mut Map<String, Value>, key: &str) {
    if let Some(value) = value(row.named(column)) {
        into.insert(key.to_owned(), value);
    }
}

/// The record as it is, ids as texts.
fn own(row: Row<'_>) -> Map<String, Value> {
    let columns = row.columns().iter().enumerate();
    columns
        .filter_map(|(place, column)| {
            let value = match row.cell(place) {
                Cell::Unsigned(id) if is_id(column.name, column.kind) => id.to_string().into(),
                other => value(other)?,
            };
            Some((column.name.to_owned(), value))
        })
        .collect()
}

/// Whether a column's numbers use all 64 bits.
pub(super) fn is_id(name: &str, kind: Kind) -> bool {
    kind == Kind::U64 && name.ends_with("_id")
}

fn event(row: Row<'_>) -> Value {
    let table = row.table();
    let mut event = Map::new();
    let kind = match table {
        Table::Alerts => "alert",
        Table::Flows | Table::Apps | Table::Migrations => "event",
        Table::Inventory => "state",
        _ => "metric",
    };
    event.insert("kind".to_owned(), kind.into());
    event.insert("dataset".to_owned(), format!("vmprobe.{}", table.name()).into());
    event.insert("module".to_owned(), "vmprobe".into());
    match table {
        Table::Flows => {
            event.insert("category".to_owned(), json!(["network"]));
            // 2: the active timeout, after which the flow goes on.
            let goes_on = row.named("flow_end_reason").number() == Some(2);
            let types = if goes_on { json!(["connection"]) } else { json!(["connection", "end"]) };
            event.insert("type".to_owned(), types);
            if let Some(id) = row.named("flow_id").number() {
                event.insert("id".to_owned(), id.to_string().into());
            }
        }
        Table::Alerts => {
            event.insert("category".to_owned(), json!(["intrusion_detection"]));
            event.insert("type".to_owned(), json!(["info"]));
            copy(row, "alert_id", &mut event, "id");
            let severity = match row.named("severity").text() {
                Some("critical") => 90,
                Some("high") => 70,
                Some("medium") => 50,
                Some("low") => 30,
                _ => 10,
            };
            event.insert("severity".to_owned(), severity.into());
        }
        _ => {}
    }
    let number = |names: &[&str]| names.iter().find_map(|name| row.named(name).number());
    let start = number(&["flow_start_ns", "window_start_ns", "first_seen_ns"]);
    let end = number(&["flow_end_ns", "window_end_ns", "last_seen_ns"]);
    if let (Some(start), Some(end)) = (start, end) {
        event.insert("start".to_owned(), time_text(Timestamp(start)).into());
        event.insert("end".to_owned(), time_text(Timestamp(end)).into());
        event.insert("duration".to_owned(), end.saturating_sub(start).into());
    }
    event.into()
}

/// `source` or `destination`.
fn end(row: Row<'_>, which: &str, [packets, octets]: [&str; 2]) -> Map<String, Value> {
    let mut end = Map::new();
    copy(row, &format!("{which}_address"), &mut end, "ip");
    copy(row, &format!("{which}_address"), &mut end, "address");
    if has_ports(row) {
        copy(row, &format!("{which}_port"), &mut end, "port");
    }
    if let Some(mac) = row.named(&format!("{which}_mac")).text() {
        // RFC 7042, as ECS wants it.
        end.insert("mac".to_owned(), mac.to_uppercase().replace(':', "-").into());
    }
    if row.table() == Table::Flows || row.table() == Table::Windows {
        copy(row, packets, &mut end, "packets");
        copy(row, octets, &mut end, "bytes");
    }
    end
}

fn has_ports(row: Row<'_>) -> bool {
    row.named("protocol_identifier").number().is_none_or(|it| [6, 17, 132].contains(&it))
}

fn network(row: Row<'_>) -> Map<String, Value> {
    let mut network = Map::new();
    if let Some(protocol) = row.named("protocol_identifier").number() {
        network.insert("iana_number".to_owned(), protocol.to_string().into());
        let name = crate::export::eve::protocol_name(protocol).to_lowercase();
        if name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            network.insert("transport".to_owned(), name.into());
        }
    }
    if let Some(address) = row.named("source_address").text() {
        let kind = if address.contains(':') { "ipv6" } else { "ipv4" };
        network.insert("type".to_owned(), kind.into());
    }
    let app = row.named("application_name").text().filter(|app| !matches!(*app, "" | "unknown"));
    if let Some(app) = app {
        network.insert("protocol".to_owned(), app.into());
    }
    for (key, columns) in [
        ("packets", ["packet_delta_count", "reverse_packet_delta_count"]),
        ("bytes", ["octet_delta_count", "reverse_octet_delta_count"]),
    ] {
        if let [Some(there), Some(back)] = columns.map(|column| row.named(column).number()) {
            network.insert(key.to_owned(), there.saturating_add(back).into());
        }
    }
    network
}

fn alert(row: Row<'_>, document: &mut Map<String, Value>) {
    copy(row, "title", document, "message");
    let mut rule = Map::new();
    copy(row, "detector", &mut rule, "name");
    put(document, "rule", rule);
    if let Some(technique) = row.named("mitre_technique").text() {
        let threat = json!({ "framework": "MITRE ATT&CK", "technique": { "id": [technique] } });
        document.insert("threat".to_owned(), threat);
    }
}

/// RFC 3339, UTC, to the nanosecond.
fn time_text(time: Timestamp) -> String {
    let (seconds, ns) = (time.as_ns() / 1_000_000_000, time.as_ns() % 1_000_000_000);
    i64::try_from(seconds)
        .ok()
        .zip(u32::try_from(ns).ok())
        .and_then(|(seconds, ns)| chrono::DateTime::from_timestamp(seconds, ns))
        .map_or_else(String::new, |it| it.format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string())
}

/// An index template for all tables: types that dynamic mapping would get wrong.
pub fn template(index: &str) -> Value {
    let mut own = Map::new();
    for column in Table::ALL.iter().flat_map(|table| table.columns()) {
        let kind = match column.kind {
            Kind::Text if column.unit == "RFC 5952" => "ip",
            Kind::Text => "keyword",
            Kind::Bool => "boolean",
            Kind::F64 => "double",
            kind if is_id(column.name, kind) => "keyword",
            _ => "long",
        };
        let mut mapping = Map::new();
        mapping.insert("type".to_owned(), kind.into());
        if kind == "keyword" {
            // Lucene takes no term above 32,766 octets.
            mapping.insert("ignore_above".to_owned(), 8_191.into());
        }
        own.insert(column.name.to_owned(), mapping.into());
    }
    debug_assert!(own.len() > COMMON.len());
    let keyword = json!({ "type": "keyword" });
    let end = json!({ "properties": {
        "ip": { "type": "ip" }, "address": keyword, "mac": keyword, "port": { "type": "long" },
        "packets": { "type": "long" }, "bytes": { "type": "long" },
    }});
    json!({
        "index_patterns": [format!("{index}-*")],
        "priority": 200,
        "template": {
            "settings": { "index": { "mapping": { "total_fields": { "limit": 2_000 } } } },
            "mappings": {
                "dynamic_templates": [
                    { "texts": { "match_mapping_type": "string", "mapping": keyword } },
                ],
                "properties": {
                    "@timestamp": { "type": "date_nanos" },
                    "message": { "type": "text" },
                    "event": { "properties": {
                        "start": { "type": "date_nanos" }, "end": { "type": "date_nanos" },
                        "duration": { "type": "long" }, "severity": { "type": "long" },
                    }},
                    "source": end, "destination": end,
                    "vmprobe": { "properties": own },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, FlowRecord, LedgerRecord, Rows};

    fn documents(rows: &Rows) -> Vec<Value> {
        let origin = Origin::new("p", "d");
        let (parts, _) = TableRows::of(rows, &origin, Timestamp::ZERO, |_| true);
        let mut encoder = Documents::new(&origin);
        let mut out = Vec::new();
        for row in parts.iter().flat_map(TableRows::rows) {
            encoder.row(row, &mut out);
        }
        let text = String::from_utf8(out).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn records_have_the_names_of_ecs() {
        let flow = FlowRecord {
            flow_id: u64::MAX,
            protocol_identifier: 6,
            source_address: "2001:db8::1".parse().expect("an address"),
            source_port: 1_234,
            destination_port: 443,
            source_mac: Some("fa:16:3e:00:00:01".parse().expect("a MAC")),
            application_name: "tls",
            flow_start_ns: 1_700_000_000_000_000_001,
            flow_end_ns: 1_700_000_002_500_000_000,
            flow_end_reason: 3,
            packet_delta_count: 3,
            reverse_octet_delta_count: 5,
            ..FlowRecord::default()
        };
        let ping =
            FlowRecord { protocol_identifier: 1, flow_end_reason: 2, ..FlowRecord::default() };
        let alert = AlertRecord {
            severity: "high",
            detector: "port_scan".into(),
            title: "scan".into(),
            mitre_technique: Some("T1046".into()),
            ..AlertRecord::default()
        };
        let ledger = vec![LedgerRecord::default()];
        let rows = Rows { flows: vec![flow, ping], alerts: vec![alert], ledger, ..Rows::default() };
        let [flow, ping, alert, ledger] = &documents(&rows)[..] else { panic!("four") };
        assert_eq!(flow["@timestamp"], "2023-11-14T22:13:22.500000000Z");
        assert_eq!(flow["event"]["start"], "2023-11-14T22:13:20.000000001Z");
        assert_eq!(flow["event"]["type"], json!(["connection", "end"]));
        assert_eq!(flow["event"]["id"], "18446744073709551615");
        assert_eq!(flow["vmprobe"]["flow_id"], "18446744073709551615");
        assert_eq!(flow["source"]["mac"], "FA-16-3E-00-00-01");
        assert_eq!(
            (&flow["source"]["port"], &flow["source"]["packets"]),
            (&1_234.into(), &3.into())
        );
        assert_eq!(
            (&flow["destination"]["bytes"], &flow["network"]["bytes"]),
            (&5.into(), &5.into())
        );
        let network =
            ["transport", "type", "protocol", "iana_number"].map(|key| &flow["network"][key]);
        assert_eq!(network, ["tcp", "ipv6", "tls", "6"]);
        assert!(
            ping["source"].get("port").is_none() && ping["event"]["type"] == json!(["connection"])
        );
        assert_eq!((&alert["event"]["kind"], &alert["message"]), (&"alert".into(), &"scan".into()));
        assert_eq!(
            (&alert["event"]["severity"], &alert["rule"]["name"]),
            (&70.into(), &"port_scan".into())
        );
        assert_eq!(alert["threat"]["technique"]["id"], json!(["T1046"]));
        assert_eq!(ledger["event"]["kind"], "metric");
        assert!(ledger.get("source").is_none());
    }

    #[test]
    fn a_column_has_one_type_in_all_tables() {
        let mut kinds = std::collections::BTreeMap::new();
        for column in Table::ALL.iter().flat_map(|table| table.columns()) {
            let before = kinds.insert(column.name, (column.kind, column.unit));
            assert!(
                before.is_none_or(|before| before.0 == column.kind),
                "{} is of two types",
                column.name
            );
        }
        assert_eq!(template("x")["index_patterns"][0], "x-*");
    }
}
