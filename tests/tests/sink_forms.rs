//! Records with extreme values in the forms of other programs, read back by readers that are not the probe's.

mod extremes;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value as Json, json};
use vmprobe::record::Table;
use vmprobe_tests::end_to_end::{Folder, missing, missing_tools, run_to_end};
use vmprobe_tests::forms::{Cef, cef, json_of, read_by_python, without_nulls};
use vmprobe_tests::rsyslog::{Rsyslog, said};
use vmprobe_tests::sinks::{NOW, all_delivered, origin, plan_of as plan, start};

/// What CEF says of a record, by docs/sinks/syslog.md.
fn cef_of(table: &str, row: &Json) -> Cef {
    let mut fields = BTreeMap::new();
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let first = |columns: &[&str]| {
        columns.iter().map(|column| &row[*column]).find(|it| !it.is_null()).map(text)
    };
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(key.to_owned(), value);
        }
    };
    let time = Table::ALL.iter().find(|it| it.name() == table).expect("a table");
    let ms = |columns: &[&str]| {
        let ns = first(columns)?.parse::<u64>().expect("a time");
        Some((ns / 1_000_000).to_string())
    };
    put("rt", ms(&[time.time_column()]));
    put("start", ms(&["first_seen_ns", "flow_start_ns", "window_start_ns"]));
    put("end", ms(&["last_seen_ns", "flow_end_ns", "window_end_ns"]));
    for (column, four, six, label) in [
        ("source_address", "src", "c6a2", "Source IPv6 Address"),
        ("destination_address", "dst", "c6a3", "Destination IPv6 Address"),
    ] {
        let address = row[column].as_str().map(str::to_owned);
        if address.as_ref().is_some_and(|it| it.contains(':')) {
            put(&format!("{six}Label"), Some(label.to_owned()));
            put(six, address);
        } else {
            put(four, address);
        }
    }
    let protocol = row["protocol_identifier"].as_u64().map(|protocol| match protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        other => format!("{other:03}"),
    });
    put("proto", protocol);
    for (key, columns) in [
        ("externalId", &["alert_id", "flow_id"][..]),
        ("spt", &["source_port"]),
        ("dpt", &["destination_port"]),
        ("smac", &["source_mac"]),
        ("dmac", &["destination_mac"]),
        ("shost", &["source_virtual_station_name"]),
        ("dhost", &["destination_virtual_station_name"]),
        ("app", &["application_name"]),
        ("in", &["octet_delta_count"]),
        ("out", &["reverse_octet_delta_count"]),
        ("cnt", &["event_count"]),
        ("act", &["state"]),
    ] {
        put(key, first(columns));
    }
    for (number, (column, label)) in (1..).zip([
        ("segment", "segment"),
        ("source_virtual_station_tenant", "sourceTenant"),
        ("destination_virtual_station_tenant", "destinationTenant"),
        ("traffic_class", "trafficClass"),
        ("mitre_technique", "mitreTechnique"),
        ("features", "features"),
    ]) {
        let value = first(&[column]);
        put(&format!("cs{number}Label"), value.as_ref().map(|_| label.to_owned()));
        put(&format!("cs{number}"), value);
    }
    // Line ends of a header have no escape.
    let head = |column: &str| row[column].as_str().unwrap_or(table).replace(['\r', '\n'], " ");
    let severity = match row["severity"].as_str() {
        Some("critical") => "10",
        Some("high") => "8",
        Some("medium") => "5",
        Some("low") => "3",
        _ => "1",
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let vmprobe = || "vmprobe".to_owned();
    let (signature, name) = (head("detector"), head("title"));
    Cef { header: [vmprobe(), vmprobe(), version, signature, name, severity.to_owned()], fields }
}

/// Table and text of a message. The header of one with a time after 2100 rsyslog does not understand, and
/// shows it with the text.
fn table_and_text(message: &Json) -> (&str, &str) {
    let (table, text) = (message["id"].as_str().expect("a table"), said(message));
    if table != "-" {
        return (table, text);
    }
    let parts: Vec<_> = text.splitn(7, ' ').collect();
    let [time, "p1", "vmprobe", "-", table, "-", text] = parts[..] else { panic!("{message}") };
    assert!(time > "2100", "{message}");
    (table, text)
}

/// The record as JSON that a message of CEF has, where its table has no keys of its own.
fn whole(text: &str) -> String {
    cef(text).fields.remove("msg").unwrap_or_else(|| "null".to_owned())
}

/// Every field of every table that the two forms carry, through rsyslog.
#[test]
fn syslog_keeps_extremes_in_both_forms() {
    let tables = vmprobe::config::schema::SINK_TABLES;
    for format in ["json", "cef"] {
        let Some(mut rsyslog) = Rsyslog::new("extremes through syslog", false) else { return };
        rsyslog.run();
        let text = format!(
            "[[sink.syslog]]\nname = \"s\"\n{}format = \"{format}\"\ntables = {tables:?}\n\
             batch_ms = 10\n",
            rsyslog.keys("")
        );
        let mut sinks = start(&plan(&text));
        let rows = extremes::rows();
        sinks.send(&rows, NOW, 0);
        all_delivered(&sinks, u64::try_from(rows.len()).expect("few"));
        let found = rsyslog.understood(rows.len());
        assert_eq!(found.len(), rows.len());
        let mut wanted = json_of(&rows, &origin());
        let mut lines = Vec::new();
        for message in &found {
            let (_, text) = table_and_text(message);
            let json = if format == "json" { text.to_owned() } else { whole(text) };
            lines.extend([json.as_bytes(), b"\n"].concat());
        }
        for (message, json) in found.iter().zip(read_by_python(&lines)) {
            let (table, text) = table_and_text(message);
            let rows = wanted.get_mut(table).unwrap_or_else(|| panic!("{message}"));
            let row = if format == "json" {
                let place = rows.iter().position(|it| *it == json);
                place.unwrap_or_else(|| panic!("{table}: {json}\nnot in {rows:?}"))
            } else {
                let mut found = cef(text);
                let has_keys = ["alerts", "flows", "windows"].contains(&table);
                assert_eq!(found.fields.remove("msg").is_none(), has_keys, "{table}");
                let same = |row: &Json| cef_of(table, row) == found && (has_keys || json == *row);
                let of: Vec<_> = rows.iter().map(|row| cef_of(table, row)).collect();
                let place = rows.iter().position(same);
                place.unwrap_or_else(|| panic!("{table}: {found:?}\nnot in {of:?}"))
            };
            rows.remove(row);
        }
        assert!(wanted.values().all(Vec::is_empty), "each came once");
    }
}

/// What EVE says of a flow's TCP flags.
fn tcp_of(row: &Json) -> Json {
    let [there, back] = ["tcp_control_bits", "reverse_tcp_control_bits"]
        .map(|column| row[column].as_u64().expect("a number"));
    let names = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let mut tcp = json!({
        "tcp_flags": format!("{:02x}", (there | back) & 0xff),
        "tcp_flags_ts": format!("{:02x}", there & 0xff),
        "tcp_flags_tc": format!("{:02x}", back & 0xff), "state": row["tcp_state"],
    });
    for (bit, name) in names.into_iter().enumerate() {
        tcp[name] = ((there | back) >> bit & 1 == 1).into();
    }
    tcp
}

/// What EVE says of a flow or an alert, by docs/sinks/eve.md.
fn eve_of(table: &str, row: &Json) -> Json {
    let time = |ns: &Json| {
        let us = ns.as_u64().expect("a time") / 1_000;
        let mut command = Command::new("date");
        command.args(["-u", "-d", &format!("@{}", us / 1_000_000), "+%Y-%m-%dT%H:%M:%S"]);
        let text = run_to_end(command).expect(0, &[]).output.trim().to_owned();
        format!("{text}.{:06}+0000", us % 1_000_000)
    };
    let number = |column: &str| row[column].as_u64().unwrap_or(0);
    let text = |column: &str| row[column].as_str().unwrap_or_default();
    let ports = row["protocol_identifier"].as_u64().is_none_or(|it| [6, 17, 132].contains(&it));
    let port = |column: &str| if ports { row[column].clone() } else { Json::Null };
    let own = [
        "flow_id",
        "alert_id",
        "domain",
        "segment",
        "address_space",
        "traffic_class",
        "source_virtual_station_uuid",
        "source_virtual_station_name",
        "source_virtual_station_tenant",
        "destination_virtual_station_uuid",
        "destination_virtual_station_name",
        "destination_virtual_station_tenant",
        "tap",
        "state",
        "severity",
        "confidence",
        "statistic",
        "threshold",
        "event_count",
        "retransmission_packet_count",
        "reverse_retransmission_packet_count",
        "handshake_server_rtt_ns",
        "handshake_client_rtt_ns",
    ];
    let own: serde_json::Map<_, _> =
        own.map(|column| (column.to_owned(), row[column].clone())).into_iter().collect();
    let mut event = json!({
        "src_ip": row["source_address"], "src_port": port("source_port"),
        "dest_ip": row["destination_address"], "dest_port": port("destination_port"),
        "host": "p1", "vmprobe": without_nulls(&own.into()),
    });
    if table == "alerts" {
        let technique = &row["mitre_technique"];
        let metadata = json!({ "mitre_technique_id": [technique] });
        event["timestamp"] = time(&row["last_seen_ns"]).into();
        event["event_type"] = "alert".into();
        event["alert"] = json!({
            "action": "allowed", "gid": 1, "rev": 1, "signature": text("title"),
            "category": text("detector"),
            "severity": match text("severity") {
                "critical" | "high" => 1, "medium" => 2, "low" => 3, _ => 4,
            },
            "metadata": if technique.is_null() { json!({}) } else { metadata },
        });
        return without_nulls(&event);
    }
    event["timestamp"] = time(&row["flow_end_ns"]).into();
    event["event_type"] = "flow".into();
    event["flow_id"] = (number("flow_id") >> 1).into();
    event["proto"] = match number("protocol_identifier") {
        6 => "TCP".into(),
        17 => "UDP".into(),
        other => format!("{other:03}").into(),
    };
    event["app_proto"] = match text("application_name") {
        "" | "unknown" => "failed".into(),
        app => app.into(),
    };
    event["flow"] = json!({
        "pkts_toserver": row["packet_delta_count"],
        "pkts_toclient": row["reverse_packet_delta_count"],
        "bytes_toserver": row["layer2_octet_delta_count"],
        "bytes_toclient": row["reverse_layer2_octet_delta_count"],
        "start": time(&row["flow_start_ns"]), "end": time(&row["flow_end_ns"]),
        "age": (number("flow_end_ns") - number("flow_start_ns")) / 1_000_000_000,
        "state": match text("tcp_state") {
            "closed" | "reset" => "closed",
            "" if number("reverse_packet_delta_count") == 0 => "new",
            _ => "established",
        },
        "reason": if [4, 5].contains(&number("flow_end_reason")) { "forced" } else { "timeout" },
        "alerted": false,
    });
    if number("protocol_identifier") == 6 {
        event["tcp"] = tcp_of(row);
    }
    let ether = json!({ "src_mac": row["source_mac"], "dest_mac": row["destination_mac"] });
    if without_nulls(&ether) != json!({}) {
        event["ether"] = without_nulls(&ether);
    }
    without_nulls(&event)
}

#[test]
fn eve_keeps_extremes_as_python_reads_them() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("extremes in EVE", &tools, "python3");
    }
    let folder = Folder::new("eve-extremes");
    let path = folder.path("eve.json");
    let text =
        format!("[[sink.eve]]\nname = \"e\"\npath = \"{}\"\nbatch_ms = 10\n", path.display());
    let mut sinks = start(&plan(&text));
    let mut rows = extremes::rows();
    // The extremes are of protocol 0, which has no ports and no flags.
    let mut tcp = rows.flows[1].clone();
    (tcp.protocol_identifier, tcp.reverse_tcp_control_bits, tcp.tcp_state) = (6, 0x12, "reset");
    rows.flows.push(tcp);
    sinks.send(&rows, NOW, 0);
    all_delivered(&sinks, 5);
    sinks.finish();
    let mut found = read_by_python(&fs::read(&path).expect("lines"));
    for line in &mut found {
        if let Some(alert) = line.get_mut("alert").and_then(Json::as_object_mut) {
            let number = alert.remove("signature_id").and_then(|it| it.as_u64());
            assert!(number.is_some_and(|it| (1_000_000..2_000_000).contains(&it)), "{number:?}");
        }
    }
    let wanted = json_of(&rows, &origin());
    for table in ["flows", "alerts"] {
        for row in &wanted[table] {
            let wanted = eve_of(table, row);
            assert!(found.contains(&wanted), "{wanted:#}\nnot in {found:#?}");
        }
    }
    assert_eq!(found.len(), 5);
}
