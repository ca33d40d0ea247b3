//! Transactions under Suricata's names.
//!
//! In: a row of `apps`. Out: what stands under `dns`, `tls` or `http`, and when it was said.
//! Invariants: what was not seen has no key.
//! Source: Suricata, "Eve JSON Format", rust/src/dns/log.rs (version 2 of its DNS events, that of
//! Suricata 5 to 7) and etc/schema.json (`tls.ja4`, `client_alpns` and `server_alpns` since 8).

use serde_json::{Map, Value};

use super::super::sink::{Cell, Row};
use super::put;
use crate::time::Timestamp;

/// One event.
pub(super) struct Told {
    /// When.
    pub(super) at: Timestamp,
    /// `dns`, `tls` or `http`.
    pub(super) kind: &'static str,
    /// What stands under that name.
    pub(super) what: Value,
}

/// Flags of a DNS header, by their names.
const DNS_FLAGS: [(&str, u64); 6] =
    [("qr", 0x8000), ("aa", 0x400), ("tc", 0x200), ("rd", 0x100), ("ra", 0x80), ("z", 0x40)];

/// The events of a transaction, in order.
pub(super) fn told(row: Row<'_>) -> impl Iterator<Item = Told> {
    let start = row.time();
    let end = start + row.named("response_time_ns").number().unwrap_or(0);
    let state = row.named("transaction_state").text().unwrap_or_default();
    let one = |at, kind, what: Map<_, _>| Some(Told { at, kind, what: Value::Object(what) });
    match row.named("application_name").text() {
        Some("dns") => [
            if state == "answer_only" { None } else { one(start, "dns", query(row)) },
            if state == "unanswered" { None } else { one(end, "dns", answer(row)) },
        ],
        Some("tls") => [one(end, "tls", tls(row)), None],
        Some("http") => [one(end, "http", http(row)), None],
        _ => [None, None],
    }
    .into_iter()
    .flatten()
}

fn query(row: Row<'_>) -> Map<String, Value> {
    let mut query = Map::new();
    query.insert("version".to_owned(), 2.into());
    query.insert("type".to_owned(), "query".into());
    put(&mut query, "id", row.named("dns_id"));
    put(&mut query, "rrname", row.named("dns_question_name"));
    put(&mut query, "rrtype", row.named("dns_question_type"));
    query.insert("opcode".to_owned(), opcode(row).into());
    query
}

fn opcode(row: Row<'_>) -> u64 {
    row.named("dns_flags").number().unwrap_or(0) >> 11 & 0xf
}

fn answer(row: Row<'_>) -> Map<String, Value> {
    let mut answer = Map::new();
    let flags = row.named("dns_flags").number().unwrap_or(0);
    answer.insert("version".to_owned(), 2.into());
    answer.insert("type".to_owned(), "answer".into());
    put(&mut answer, "id", row.named("dns_id"));
    answer.insert("flags".to_owned(), format!("{flags:x}").into());
    for (name, bit) in DNS_FLAGS {
        if flags & bit != 0 {
            answer.insert(name.to_owned(), true.into());
        }
    }
    answer.insert("opcode".to_owned(), opcode(row).into());
    put(&mut answer, "rrname", row.named("dns_question_name"));
    put(&mut answer, "rrtype", row.named("dns_question_type"));
    put(&mut answer, "rcode", row.named("dns_response_code"));
    // A text that was cut is no JSON any more.
    let answers = row.named("dns_answers").text();
    if let Some(answers) = answers.and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok()) {
        let mut grouped: Map<String, Value> = Map::new();
        for one in &answers {
            if let (Some(kind), Some(data)) = (one["rrtype"].as_str(), one["rdata"].as_str()) {
                let group = grouped.entry(kind).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(group) = group.as_array_mut() {
                    group.push(data.into());
                }
            }
        }
        answer.insert("answers".to_owned(), answers.into());
        answer.insert("grouped".to_owned(), grouped.into());
    }
    answer
}

fn tls(row: Row<'_>) -> Map<String, Value> {
    let mut tls = Map::new();
    put(&mut tls, "sni", row.named("tls_server_name"));
    put(&mut tls, "version", row.named("tls_version"));
    put(&mut tls, "ja4", row.named("tls_ja4"));
    for (key, column) in
        [("client_alpns", "tls_offered_protocols"), ("server_alpns", "tls_protocol")]
    {
        if let Cell::Text(names) = row.named(column) {
            tls.insert(key.to_owned(), names.split(',').collect());
        }
    }
    tls
}

fn http(row: Row<'_>) -> Map<String, Value> {
    let mut http = Map::new();
    for (key, column) in [
        ("hostname", "http_request_host"),
        ("url", "http_request_target"),
        ("http_user_agent", "http_user_agent"),
        ("http_content_type", "http_content_type"),
        ("http_method", "http_request_method"),
        ("protocol", "http_message_version"),
        ("status", "http_status_code"),
        ("length", "http_content_length"),
    ] {
        put(&mut http, key, row.named(column));
    }
    http
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::lines;
    use super::*;
    use crate::record::{AppRecord, FlowRecord, Rows};

    /// Names of Suricata's own schema (OISF/suricata, etc/schema.json, of 2026-08-21).
    const NAMES: [(&str, &[&str]); 4] = [
        (
            "dns",
            &[
                "aa",
                "additionals",
                "answer",
                "answers",
                "authorities",
                "flags",
                "grouped",
                "id",
                "opcode",
                "qr",
                "queries",
                "query",
                "ra",
                "rcode",
                "rd",
                "rrname",
                "rrtype",
                "tc",
                "tx_id",
                "type",
                "version",
                "z",
            ],
        ),
        (
            "tls",
            &[
                "certificate",
                "chain",
                "client",
                "client_alpns",
                "client_handshake",
                "fingerprint",
                "from_proto",
                "issuerdn",
                "ja3",
                "ja3s",
                "ja4",
                "notafter",
                "notbefore",
                "serial",
                "server_alpns",
                "server_handshake",
                "session_resumed",
                "sni",
                "subject",
                "subjectaltname",
                "version",
            ],
        ),
        (
            "http",
            &[
                "content_range",
                "hostname",
                "http2",
                "http_content_type",
                "http_method",
                "http_port",
                "http_refer",
                "http_user_agent",
                "length",
                "protocol",
                "redirect",
                "request_headers",
                "response_headers",
                "status",
                "status_string",
                "url",
                "version",
                "xff",
            ],
        ),
        ("answers", &["rdata", "rrname", "rrtype", "soa", "srv", "sshfp", "ttl"]),
    ];

    fn assert_names(kind: &str, event: &Value) {
        let (_, names) = NAMES.iter().find(|(name, _)| *name == kind).expect("a kind");
        for key in event.as_object().expect("an object").keys() {
            assert!(names.contains(&key.as_str()), "{kind}.{key}");
        }
    }

    fn record(application_name: &'static str) -> AppRecord {
        AppRecord {
            flow_id: u64::MAX,
            transaction_start_ns: 1_700_000_000_000_000_000,
            response_time_ns: Some(1_500_000),
            transaction_state: "answered",
            protocol_identifier: if application_name == "dns" { 17 } else { 6 },
            source_port: 50_000,
            application_name,
            ..AppRecord::default()
        }
    }

    #[test]
    fn transactions_have_suricatas_names() {
        let answers = json!([
            {"rrname": "a.b", "rrtype": "CNAME", "ttl": 1, "rdata": "c.d"},
            {"rrname": "c.d", "rrtype": "A", "ttl": 2, "rdata": "192.0.2.1"},
            {"rrname": "c.d", "rrtype": "A", "ttl": 2, "rdata": "192.0.2.2"},
        ]);
        let dns = AppRecord {
            dns_id: Some(7),
            dns_question_name: Some("a.b".into()),
            dns_question_type: Some("A".into()),
            dns_flags: Some(0x8180),
            dns_response_code: Some("NOERROR".into()),
            dns_answers: Some(answers.to_string().into()),
            ..record("dns")
        };
        let silent = AppRecord {
            transaction_state: "unanswered",
            response_time_ns: None,
            dns_response_code: None,
            dns_answers: None,
            dns_flags: Some(0x100),
            ..dns.clone()
        };
        let tls = AppRecord {
            tls_server_name: Some("example.org".into()),
            tls_version: Some("TLS 1.3".into()),
            tls_offered_protocols: Some("h2,http/1.1".into()),
            tls_ja4: Some("t13".into()),
            tls_cipher_suite: Some(0x1301),
            ..record("tls")
        };
        let http = AppRecord {
            http_request_method: Some("GET".into()),
            http_request_host: Some("example.org".into()),
            http_request_target: Some("/".into()),
            http_message_version: Some("HTTP/1.1".into()),
            http_user_agent: Some("curl".into()),
            http_status_code: Some(200),
            http_content_type: Some("text/html".into()),
            http_content_length: Some(12),
            ..record("http")
        };
        let flow = FlowRecord { flow_id: u64::MAX, ..FlowRecord::default() };
        let apps = vec![dns, silent, tls, http];
        let rows = Rows { apps, flows: vec![flow], ..Rows::default() };
        let lines = lines(&rows);
        let [flow, query, answer, alone, tls, http] = &lines[..] else { panic!("six: {lines:?}") };
        for event in [query, answer, alone, tls, http] {
            let kind = event["event_type"].as_str().expect("a kind");
            assert_names(kind, &event[kind]);
            assert_eq!(event["flow_id"], flow["flow_id"]);
            assert_eq!(event["src_port"], 50_000);
        }
        assert_eq!(
            (&query["timestamp"], &answer["timestamp"]),
            (&"2023-11-14T22:13:20.000000+0000".into(), &"2023-11-14T22:13:20.001500+0000".into(),)
        );
        let asked = json!({"version": 2, "type": "query", "id": 7, "rrname": "a.b",
            "rrtype": "A", "opcode": 0});
        assert_eq!((&query["dns"], &alone["dns"]), (&asked, &asked));
        let told = &answer["dns"];
        assert_eq!(
            (&told["type"], &told["version"], &told["flags"]),
            (&"answer".into(), &2.into(), &"8180".into())
        );
        assert_eq!((&told["qr"], &told["ra"], told.get("aa")), (&true.into(), &true.into(), None));
        assert_eq!((&told["rcode"], &told["answers"]), (&"NOERROR".into(), &answers));
        assert_eq!(told["grouped"], json!({"CNAME": ["c.d"], "A": ["192.0.2.1", "192.0.2.2"]}));
        told["answers"]
            .as_array()
            .expect("answers")
            .iter()
            .for_each(|one| assert_names("answers", one));
        assert_eq!(
            tls["tls"],
            json!({"sni": "example.org", "version": "TLS 1.3", "ja4": "t13", "client_alpns": ["h2", "http/1.1"]})
        );
        assert_eq!(tls["vmprobe"]["tls_cipher_suite"], 0x1301);
        assert_eq!(
            http["http"],
            json!({
                "hostname": "example.org", "url": "/", "http_method": "GET", "protocol": "HTTP/1.1",
                "http_user_agent": "curl", "status": 200, "http_content_type": "text/html",
                "length": 12,
            })
        );
    }
}
