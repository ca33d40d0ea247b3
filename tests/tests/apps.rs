//! Transactions of real captures, against what tshark reads of the same packets.
//!
//! tshark 4.0 has no JA4, so its lists of ciphers, extensions and algorithms go through the probe's own
//! sum, whose results on one of these captures are FoxIO's (github.com/FoxIO-LLC/ja4, python/test).
//! Compared are sets, by capture: what is asked twice within the time for an answer is one record.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;
use vmprobe::app::dns::message::{rcode_name, type_name};
use vmprobe::app::tls::hello::ClientHello;
use vmprobe::app::tls::ja4::ja4;
use vmprobe_tests::captures;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{self, Row};
use vmprobe_tests::replaying::{run, small_plan};
use vmprobe_tests::skips::missing;

/// Captures with DNS, TLS or HTTP in them: of networks, of test suites, in tunnels, out of order.
const CAPTURES: [&str; 21] = [
    "benign/dnstunnel__normal_00006_20230805193455.pcap",
    "benign/dnstunnel__normal_00067_20230806152800.pcap",
    "benign/kdd99sparkml__normal.pcap",
    "benign/ndpi__iphone.pcap",
    "benign/snort3__sessions_100conn_10cps_10sec.pcap",
    "benign/wswiki__https.pcap",
    "benign/zeek__workshop_2011_browse.pcap",
    "encapsulation/deepflow__decapsulate_erspan1.pcap",
    "encapsulation/ndpi__6in4tunnel.pcap",
    "encapsulation/ndpi__vxlan.pcap",
    "encapsulation/suricata__vxlan-decoder-03__vxlan.pcap",
    "encapsulation/wswiki__metamako_trailer.pcap",
    "encapsulation/zeek__tunnels_gre-over-udp-4754.pcap",
    "protocols/arkime__openssl-ssl3.pcap",
    "protocols/ja4__tls-sni.pcapng",
    "protocols/ndpi__doh.pcapng",
    "protocols/ndpi__no_sni.pcap",
    "protocols/ndpi__safari.pcap",
    "protocols/ndpi__tor.pcap",
    "tcp/honeybadger__qi_local_GET_slashdot_redirect.pcap",
    "tcp/wireshark__challenge01_ooo_stream.pcapng",
];

/// What one of both says alone: capture, kind, how its text begins, and why.
const DIFFERENCES: [(&str, &str, &str, &str); 6] = [
    ("benign/ndpi__iphone.pcap", "dns query", "0 _airport._tcp.local PTR", "17 questions are none"),
    (
        "benign/wswiki__https.pcap",
        "dns query",
        "7690 ",
        "no DNS on port 53, and malformed to tshark",
    ),
    (
        "encapsulation/deepflow__decapsulate_erspan1.pcap",
        "http request",
        "35543-8030 GET findependent",
        "the field is in the second segment of the head",
    ),
    (
        "encapsulation/deepflow__decapsulate_erspan1.pcap",
        "http request",
        "46010-8030 POST",
        "tshark does not wait for a segment that comes too late",
    ),
    (
        "encapsulation/deepflow__decapsulate_erspan1.pcap",
        "http request",
        "46257-8030 POST",
        "tshark does not wait for a segment that comes too late",
    ),
    (
        "tcp/wireshark__challenge01_ooo_stream.pcapng",
        "tls client",
        "443-62697 25th.syn-bit.nl",
        "tshark lists algorithms of delegated credentials with the others",
    ),
];

const KINDS: [&str; 6] =
    ["dns query", "dns answer", "tls client", "tls server", "http request", "http response"];

/// What is said, by [`KINDS`].
type Said = [BTreeSet<String>; KINDS.len()];

const FIELDS: [&str; 30] = [
    "udp.srcport",
    "tcp.srcport",
    "tcp.dstport",
    "dns.id",
    "dns.flags.response",
    "dns.qry.name",
    "dns.qry.type",
    "dns.flags.rcode",
    "dns.count.answers",
    "tls.handshake.type",
    "tls.handshake.extensions_server_name",
    "tls.handshake.version",
    "tls.handshake.ciphersuite",
    "tls.handshake.extension.type",
    "tls.handshake.extensions.supported_version",
    "tls.handshake.sig_hash_alg",
    "tls.handshake.extensions_alpn_str",
    "http.request.method",
    "http.host",
    "http.request.uri",
    "http.user_agent",
    "http.request.version",
    "http.response.code",
    "http.content_type",
    "http.response.version",
    "http.content_length_header",
    "udp.dstport",
    "dns.flags",
    "dns.count.queries",
    "tls.record.content_type",
];

/// Between occurrences of a field; in no text.
const BETWEEN: char = '\u{1f}';

/// One packet as tshark tells of it.
struct Packet<'a>(Vec<&'a str>);

impl<'a> Packet<'a> {
    fn all(&self, field: &str) -> Vec<&'a str> {
        let place = FIELDS.iter().position(|name| *name == field).expect("a field of the list");
        let text = self.0.get(place).copied().unwrap_or_default();
        text.split(BETWEEN).filter(|text| !text.is_empty()).collect()
    }

    fn first(&self, field: &str) -> &'a str {
        self.all(field).first().copied().unwrap_or_default()
    }

    fn has(&self, field: &str) -> bool {
        !self.all(field).is_empty()
    }

    /// Both ports, whoever began.
    fn ports(&self) -> String {
        both(self.first("tcp.srcport"), self.first("tcp.dstport"))
    }

    fn numbers(&self, field: &str) -> Vec<u16> {
        self.all(field).into_iter().filter_map(number).collect()
    }
}

fn both(one: &str, other: &str) -> String {
    format!("{}-{}", one.min(other), one.max(other))
}

/// A number as tshark writes them.
fn number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn tshark(capture: &Path) -> Said {
    let mut command = Command::new("tshark");
    // What a head says is told where it stands, not where its body ends.
    command.args(["-o", "http.desegment_body:FALSE"]);
    command.arg("-r").arg(capture).args(["-Y", "dns || mdns || llmnr || tls.handshake || http"]);
    command.args(["-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E"]);
    command.arg(format!("aggregator={BETWEEN}"));
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut said = Said::default();
    for line in text.lines() {
        let packet = Packet(line.split('\t').collect());
        dns(&packet, &mut said);
        tls(&packet, &mut said);
        http(&packet, &mut said);
    }
    said
}

fn dns(packet: &Packet<'_>, said: &mut Said) {
    if !packet.has("dns.id") {
        return;
    }
    let name = packet.first("dns.qry.name").replace("<Root>", ".");
    let kind = number(packet.first("dns.qry.type")).map(type_name).unwrap_or_default();
    let id = number(packet.first("dns.id")).unwrap_or(0);
    let question = format!("{id} {name} {kind}");
    if ["1", "True"].contains(&packet.first("dns.flags.response")) {
        let rcode = number(packet.first("dns.flags.rcode")).unwrap_or(0);
        let rcode = rcode_name(u8::try_from(rcode).unwrap_or(0));
        let count = packet.first("dns.count.answers");
        said[1].insert(format!("{question} {rcode} {count}"));
    } else {
        said[0].insert(question);
    }
}

fn tls(packet: &Packet<'_>, said: &mut Said) {
    if !packet.has("tcp.srcport") {
        return;
    }
    let kinds = packet.all("tls.handshake.type");
    let versions = packet.numbers("tls.handshake.extensions.supported_version");
    let version = packet.numbers("tls.handshake.version").first().copied().unwrap_or(0);
    if kinds.contains(&"1") {
        let protocols = packet.all("tls.handshake.extensions_alpn_str");
        let hello = ClientHello {
            legacy_version: version,
            ciphers: packet.numbers("tls.handshake.ciphersuite"),
            extensions: packet.numbers("tls.handshake.extension.type"),
            server_name: None,
            protocols: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(),
            versions,
            signature_algorithms: packet.numbers("tls.handshake.sig_hash_alg"),
        };
        let name = packet.first("tls.handshake.extensions_server_name");
        // After a server's wish to have another one (RFC 8446 §4.1.4) the first one stands.
        if said[2].iter().any(|known| known.split(' ').next() == Some(&packet.ports())) {
            return;
        }
        let ports = packet.ports();
        said[2].insert(format!("{ports} {name} {} {}", protocols.join(","), ja4(&hello)));
    } else if kinds.contains(&"2") {
        let version = versions.first().copied().unwrap_or(version);
        let cipher = packet.numbers("tls.handshake.ciphersuite");
        let cipher = cipher.first().copied().unwrap_or(0);
        said[3].insert(format!("{} {version:04x} {cipher}", packet.ports()));
    }
}

fn http(packet: &Packet<'_>, said: &mut Said) {
    // One of the captures has keys with it, with which tshark reads what is inside TLS.
    if !packet.has("tcp.srcport") || packet.has("tls.record.content_type") {
        return;
    }
    if packet.has("http.request.method") {
        let host = packet.first("http.host");
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let target = packet.first("http.request.uri");
        let target = target.find(['?', '#']).map_or_else(
            || target.to_owned(),
            |at| format!("{}?", target.get(..at).unwrap_or_default()),
        );
        let parts = [
            &packet.ports(),
            packet.first("http.request.method"),
            host,
            &target,
            packet.first("http.user_agent"),
            packet.first("http.request.version"),
        ];
        said[4].insert(parts.join(" "));
    } else if packet.has("http.response.code") {
        let kind = packet.first("http.content_type");
        let kind = kind.split(';').next().unwrap_or_default().trim_end();
        let parts = [
            &packet.ports(),
            packet.first("http.response.code"),
            kind,
            packet.first("http.content_length_header"),
        ];
        said[5].insert(parts.join(" "));
    }
}

/// A cell as a text; nothing where it is null.
fn cell(row: &Row, column: &str) -> String {
    match &row[column] {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn ours(rows: &[Row]) -> Said {
    let mut said = Said::default();
    for row in rows {
        let cells = |columns: &[&str]| {
            columns.iter().map(|column| cell(row, column)).collect::<Vec<_>>().join(" ")
        };
        let state = cell(row, "transaction_state");
        let ports = both(&cell(row, "source_port"), &cell(row, "destination_port"));
        match cell(row, "application_name").as_str() {
            "dns" => {
                let question = cells(&["dns_id", "dns_question_name", "dns_question_type"]);
                if state != "unanswered" {
                    let answer = cells(&["dns_response_code", "dns_answer_count"]);
                    said[1].insert(format!("{question} {answer}"));
                }
                if state != "answer_only" {
                    said[0].insert(question);
                }
            }
            "tls" => {
                if !row["tls_ja4"].is_null() {
                    let client = cells(&["tls_server_name", "tls_offered_protocols", "tls_ja4"]);
                    said[2].insert(format!("{ports} {client}"));
                }
                if !row["tls_cipher_suite"].is_null() {
                    let version = cell(row, "tls_version");
                    let number = ["SSLv3", "TLSv1", "TLS 1.1", "TLS 1.2", "TLS 1.3"]
                        .iter()
                        .position(|name| *name == version)
                        .map_or(0, |place| 0x300 + place);
                    let cipher = cell(row, "tls_cipher_suite");
                    said[3].insert(format!("{ports} {number:04x} {cipher}"));
                }
            }
            _ => {
                if !row["http_request_method"].is_null() {
                    let request = cells(&[
                        "http_request_method",
                        "http_request_host",
                        "http_request_target",
                        "http_user_agent",
                        "http_message_version",
                    ]);
                    said[4].insert(format!("{ports} {request}"));
                }
                if !row["http_status_code"].is_null() {
                    let response =
                        cells(&["http_status_code", "http_content_type", "http_content_length"]);
                    said[5].insert(format!("{ports} {response}"));
                }
            }
        }
    }
    said
}

/// Transactions of a capture, all of flows that have records.
fn replayed(capture: &Path) -> Vec<Row> {
    let records = Folder::new("apps");
    let files = [capture.to_path_buf()];
    let replay = run(small_plan(&files), &files, Some(records.root())).expect("a replay");
    let lost = replay.report.ledger.workers.iter().map(|worker| worker.app_messages_lost);
    let fragments = capture.to_string_lossy().contains("frag");
    assert!(fragments || lost.sum::<u64>() == 0, "{}", capture.display());
    let rows = records::rows(records.root(), "apps");
    let flows = records::rows(records.root(), "flows");
    let known: BTreeSet<_> = flows.iter().map(|flow| flow["flow_id"].as_u64()).collect();
    let strangers = rows.iter().filter(|row| !known.contains(&row["flow_id"].as_u64()));
    assert_eq!(strangers.count(), 0, "{}: flows without a record", capture.display());
    rows
}

#[test]
fn tshark_reads_the_same_transactions() {
    let Some(folder) = captures::folder() else { return };
    if Command::new("tshark").arg("--version").output().is_err() {
        return missing("transactions as tshark reads them", &["tshark"], "tshark");
    }
    let (mut both, mut either) = ([0_usize; KINDS.len()], [0_usize; KINDS.len()]);
    let mut unexplained = Vec::new();
    for name in CAPTURES {
        let capture = folder.join(name);
        let (ours, theirs) = (ours(&replayed(&capture)), tshark(&capture));
        for (place, kind) in KINDS.iter().enumerate() {
            let (ours, theirs) = (&ours[place], &theirs[place]);
            both[place] += ours.intersection(theirs).count();
            either[place] += ours.union(theirs).count();
            for (who, only) in
                [("ours", ours.difference(theirs)), ("tshark", theirs.difference(ours))]
            {
                let is_known = |one: &String| {
                    DIFFERENCES.iter().any(|(capture, of, begin, _)| {
                        (capture, of) == (&name, kind) && one.starts_with(begin)
                    })
                };
                let new = only.filter(|one| !is_known(one));
                unexplained.extend(new.map(|one| format!("{name}: {kind}: only {who}: {one}")));
            }
        }
    }
    for ((kind, both), either) in KINDS.iter().zip(both).zip(either) {
        #[expect(clippy::cast_precision_loss, reason = "counts of a test")]
        let agreement = both as f64 / either as f64;
        eprintln!("{kind}: {both} of {either}, {:.2} %", agreement * 100.0);
        assert!(either > 30, "{kind}: there is something to compare");
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// Fingerprints that FoxIO's own program gives for the first streams of its capture.
#[test]
fn fingerprints_are_those_of_foxio() {
    let Some(folder) = captures::folder() else { return };
    let rows = replayed(&folder.join("protocols/ja4__tls-sni.pcapng"));
    for (port, name, fingerprint) in [
        (50_112, "clientservices.googleapis.com", "t13d1516h2_8daaf6152771_e5627efa2ab1"),
        (50_116, "lastpass.com", "t13d1516h2_8daaf6152771_e5627efa2ab1"),
        (50_122, "lp-push-server-452.lastpass.com", "t13d1516h1_8daaf6152771_e5627efa2ab1"),
        (50_123, "mtalk.google.com", "t13d151400_8daaf6152771_de4a06bb82e3"),
        (50_140, "gateway.facebook.com", "t13d1516h1_8daaf6152771_e5627efa2ab1"),
    ] {
        let row = rows.iter().find(|row| row["source_port"].as_u64() == Some(port));
        let row = row.unwrap_or_else(|| panic!("port {port}"));
        assert_eq!(
            (cell(row, "tls_server_name").as_str(), cell(row, "tls_ja4").as_str()),
            (name, fingerprint)
        );
    }
}
