//! Elastic bulk at osmem-server, a double of OpenSearch made by others, and Splunk's HTTP Event Collector at
//! a double of our own, written after Splunk's documents: neither real server can be had here.

mod extremes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use vmprobe::export::{SinkCause, SinkHealth};
use vmprobe::record::{FlowRecord, Kind, Rows, Table};
use vmprobe::time::sleep_ms;
use vmprobe_tests::end_to_end::{
    Folder, free_port, get, missing, missing_tools, run_to_end, send_json, skipped, until, vmprobe,
};
use vmprobe_tests::forms::{json_of, read_by_python, without_nulls};
use vmprobe_tests::sinks::{
    NOW, SOON_S, all_delivered, failing, only, origin, plan_of as plan, start,
};

fn flows(numbers: std::ops::Range<u64>) -> Rows {
    let flow = |number: u64| FlowRecord {
        flow_id: u64::MAX - number,
        protocol_identifier: 6,
        source_address: "10.0.0.1".parse().expect("an address"),
        destination_address: "2001:db8::1".parse().expect("an address"),
        source_port: 1_234,
        destination_port: 443,
        packet_delta_count: number,
        flow_start_ns: NOW.as_ns(),
        flow_end_ns: NOW.as_ns() + number,
        segment: "a \"b\" \\ \n Ω".into(),
        ..FlowRecord::default()
    };
    Rows { flows: numbers.map(flow).collect(), ..Rows::default() }
}

/// A child process, killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(mut command: Command, port: u16) -> Server {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(command.spawn().expect("it starts"));
    let up = until(SOON_S, || TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(up.is_some(), "{command:?} does not listen");
    server
}

fn script(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)).args(arguments);
    command
}

/// The server, as `scripts/fetch-receivers` puts it there.
fn osmem() -> Option<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/receivers/lib");
    let versions = fs::read_dir(lib).ok()?.flatten();
    let mut found =
        versions.map(|it| it.path().join("site-packages/osmem_server/bin/osmem-server"));
    found.find(|path| path.is_file())
}

fn count(server: &str, index: &str) -> Option<u64> {
    send_json(server, "POST", &format!("/{index}/_refresh"), &Json::Null);
    let answer = get(server, &format!("/{index}/_count"));
    (answer.status == 200).then(|| answer.json()["count"].as_u64())?
}

#[test]
fn elastic_stores_each_record_once_and_what_never_fits_is_counted() {
    let Some(program) = osmem() else {
        return skipped("Elastic bulk", "not installed: osmem-server (scripts/fetch-receivers)");
    };
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("Elastic bulk", &tools, "python3");
    }
    let (port, relay_port) = (free_port(), free_port());
    let text = format!(
        "[[sink.elastic]]\nname = \"e\"\nurl = \"http://127.0.0.1:{relay_port}/\"\nuser = \"u\"\n\
         password = \"env:PATH\"\nbatch_records = 100\nbatch_ms = 20\nretry_max_ms = 200\n"
    );
    let mut sinks = start(&plan(&text));
    sinks.send(&flows(0..100), NOW, 0);
    failing(&sinks, "onnect");
    let mut command = Command::new(program);
    command.args(["-addr", &format!("127.0.0.1:{port}"), "-no-stdin-watch"]);
    let _server = serve(command, port);
    let server = format!("127.0.0.1:{port}");
    let mut command = Command::new(vmprobe());
    command.args(["schema", "elastic"]);
    let template: Json =
        serde_json::from_str(&run_to_end(command).expect(0, &[]).output).expect("JSON");
    let taken = send_json(&server, "PUT", "/_index_template/vmprobe", &template);
    assert_eq!(taken.status, 200, "{}", taken.body);
    // The first attempt is too much for it, the second is stored and nobody hears of it.
    let ports = [relay_port.to_string(), port.to_string()];
    let run_relay = || serve(script("lossy_bulk.py", &[&ports[0], &ports[1]]), relay_port);
    let mut relay = Some(run_relay());
    all_delivered(&sinks, 100);
    // The way there is cut under load, twice, and each time begins as badly as the first.
    for part in 1..25_u64 {
        if matches!(part, 6 | 16) {
            drop(relay.take());
        }
        sinks.send(&flows(part * 100..part * 100 + 100), NOW, 0);
        match part {
            10 | 20 => relay = Some(run_relay()),
            _ => sleep_ms(10),
        }
        if relay.is_none() {
            failing(&sinks, "");
        }
    }
    all_delivered(&sinks, 2_500);
    assert_eq!(count(&server, "vmprobe-flows"), Some(2_500));
    let found = get(&server, "/vmprobe-flows/_search?size=5000").json();
    let hits = found["hits"]["hits"].as_array().expect("hits").clone();
    let of = |hit: &Json| hit["_source"]["source"]["packets"].as_u64().expect("a number");
    let numbers: BTreeSet<u64> = hits.iter().map(of).collect();
    assert_eq!(numbers, (0..2_500).collect());
    for hit in &hits {
        let document = &hit["_source"];
        let id = (u64::MAX - of(hit)).to_string();
        assert_eq!(
            (&document["event"]["id"], &document["vmprobe"]["flow_id"]),
            (&id.clone().into(), &id.into())
        );
        assert_eq!(document["vmprobe"]["segment"], "a \"b\" \\ \n Ω");
        assert_eq!(document["network"]["transport"], "tcp");
    }
    // The template's types: an address is one, so networks can be asked for.
    let query = serde_json::json!({ "query": { "term": { "destination.ip": "2001:db8::/32" } } });
    let inside = send_json(&server, "POST", "/vmprobe-flows/_search", &query).json();
    assert_eq!(inside["hits"]["total"]["value"], 2_500, "{inside}");
    // A count that no signed number holds never fits; it is lost alone, and counted.
    let mut rows = flows(2_500..2_503);
    rows.flows[1].packet_delta_count = u64::MAX;
    sinks.send(&rows, NOW, 0);
    all_delivered(&sinks, 2_502);
    let report = only(sinks.finish());
    assert_eq!((report.ledger.dropped(SinkCause::Refused), report.ledger.dropped_sum()), (1, 1));
    assert_eq!(count(&server, "vmprobe-flows"), Some(2_502));
}

/// Answers as `_bulk` does, and refuses what is longer than a proxy takes; keeps the ids, one a line, and the
/// documents with the names of their indexes.
const SHORT_BULK: &str = r#"
import http.server, json, sys
port, path, octets_max = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
class Bulk(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 413, b"<html>too large"
        if len(body) <= octets_max:
            lines = body.split(b"\n")
            actions = [json.loads(line) for line in lines[:-1:2]]
            with open(path, "a") as out:
                out.writelines(action["create"]["_id"] + "\n" for action in actions)
            with open(path + ".documents", "ab") as out:
                for action, line in zip(actions, lines[1::2]):
                    index = action["create"]["_index"].encode()
                    out.write(b'{"index":"' + index + b'","document":' + line + b"}\n")
            items = [{"create": {"status": 201}} for _ in actions]
            status, answer = 200, json.dumps({"items": items}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Bulk).serve_forever()
"#;

/// That server, which takes requests of so many octets at most, and its port; the names of what came are in
/// the file `ids`.
fn short_bulk(folder: &Folder, octets_max: &str) -> (Server, u16) {
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-c", SHORT_BULK, &port.to_string()]).arg(folder.path("ids")).arg(octets_max);
    (serve(command, port), port)
}

#[test]
fn behind_a_proxy_that_takes_short_requests_alone_each_record_gets_there_once() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("Elastic bulk behind a proxy", &tools, "python3");
    }
    let folder = Folder::new("short-bulk");
    let (_server, port) = short_bulk(&folder, "100000");
    let text = format!(
        "[[sink.elastic]]\nname = \"e\"\nurl = \"http://127.0.0.1:{port}/\"\nuser = \"u\"\n\
         password = \"env:PATH\"\nbatch_records = 1000\nbatch_ms = 50\n"
    );
    let mut sinks = start(&plan(&text));
    sinks.send(&flows(0..3_000), NOW, 0);
    all_delivered(&sinks, 3_000);
    let report = only(sinks.finish());
    assert_eq!((report.ledger.dropped_sum(), report.health), (0, SinkHealth::Ok));
    let ids = fs::read_to_string(folder.path("ids")).expect("ids");
    let each: BTreeSet<_> = ids.lines().collect();
    assert_eq!((ids.lines().count(), each.len()), (3_000, 3_000));
}

/// A record as it is in a document, by docs/sinks/elastic.md: without what is null, ids as texts.
fn own(table: &str, row: &Json) -> Json {
    let mut own = without_nulls(row);
    let table = Table::ALL.iter().find(|it| it.name() == table).expect("a table");
    let columns = table.columns();
    let ids = columns.iter().filter(|it| it.kind == Kind::U64 && it.name.ends_with("_id"));
    for id in ids {
        if let Some(value) = own.get_mut(id.name) {
            *value = value.to_string().into();
        }
    }
    own
}

/// Holds a document against its row.
fn same_document(table: &str, document: &Json, row: &Json) {
    assert_eq!(document["vmprobe"], own(table, row), "{table}");
    assert_eq!(document["event"]["dataset"], format!("vmprobe.{table}"));
    let mut copies = vec![
        ("/source/ip", "source_address"),
        ("/source/address", "source_address"),
        ("/destination/ip", "destination_address"),
        ("/destination/address", "destination_address"),
    ];
    match table {
        "alerts" => copies.extend([
            ("/message", "title"),
            ("/rule/name", "detector"),
            ("/event/id", "alert_id"),
            ("/threat/technique/id/0", "mitre_technique"),
        ]),
        "flows" | "windows" => copies.extend([
            ("/source/packets", "packet_delta_count"),
            ("/source/bytes", "octet_delta_count"),
            ("/destination/packets", "reverse_packet_delta_count"),
            ("/destination/bytes", "reverse_octet_delta_count"),
        ]),
        _ => {}
    }
    for (key, column) in copies {
        let found = document.pointer(key).unwrap_or(&Json::Null);
        assert_eq!(found, &row[column], "{table}{key}: {document}");
    }
    let time = Table::ALL.iter().find(|it| it.name() == table).expect("a table").time_column();
    let fraction = format!(".{:09}Z", row[time].as_u64().expect("a time") % 1_000_000_000);
    let stamp = document["@timestamp"].as_str().expect("a text");
    assert!(stamp.ends_with(&fraction), "{stamp} of {}", row[time]);
}

/// Every field of every table in the requests, as Python reads them.
#[test]
fn documents_have_every_field_with_its_extremes() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("extremes in _bulk", &tools, "python3");
    }
    let folder = Folder::new("bulk-extremes");
    let (_server, port) = short_bulk(&folder, "10000000");
    let tables = vmprobe::config::schema::SINK_TABLES;
    let text = format!(
        "[[sink.elastic]]\nname = \"e\"\nurl = \"http://127.0.0.1:{port}/\"\nindex = \"x\"\n\
         tables = {tables:?}\nbatch_ms = 20\n"
    );
    let mut sinks = start(&plan(&text));
    let rows = extremes::rows();
    sinks.send(&rows, NOW, 0);
    all_delivered(&sinks, u64::try_from(rows.len()).expect("few"));
    sinks.finish();
    let mut found = BTreeMap::<String, Vec<Json>>::new();
    for line in read_by_python(&fs::read(folder.path("ids.documents")).expect("documents")) {
        let index = line["index"].as_str().and_then(|it| it.strip_prefix("x-")).expect("an index");
        found.entry(index.to_owned()).or_default().push(line["document"].clone());
    }
    for (table, rows) in json_of(&rows, &origin()) {
        assert_eq!(found[table].len(), rows.len(), "{table}");
        for (document, row) in found[table].iter().zip(&rows) {
            same_document(table, document, row);
        }
    }
}

/// What a server does with them: all is stored but rows with counts that its signed numbers cannot hold.
#[test]
fn elastic_stores_every_table_but_counts_that_no_signed_number_holds() {
    let Some(program) = osmem() else {
        return skipped("Elastic bulk", "not installed: osmem-server (scripts/fetch-receivers)");
    };
    let port = free_port();
    let mut command = Command::new(program);
    command.args(["-addr", &format!("127.0.0.1:{port}"), "-no-stdin-watch"]);
    let _server = serve(command, port);
    let server = format!("127.0.0.1:{port}");
    let template = vmprobe::export::elastic::template("x");
    let taken = send_json(&server, "PUT", "/_index_template/x", &template);
    assert_eq!(taken.status, 200, "{}", taken.body);
    let tables = vmprobe::config::schema::SINK_TABLES;
    let text = format!(
        "[[sink.elastic]]\nname = \"e\"\nurl = \"http://127.0.0.1:{port}\"\nindex = \"x\"\n\
         tables = {tables:?}\nbatch_ms = 20\n"
    );
    let mut sinks = start(&plan(&text));
    let rows = extremes::rows();
    sinks.send(&rows, NOW, 0);
    let total = u64::try_from(rows.len()).expect("few");
    let done = || {
        let ledger = only(sinks.reports()).ledger;
        (ledger.delivered + ledger.dropped(SinkCause::Refused) == total).then_some(ledger)
    };
    let ledger = until(SOON_S, done).unwrap_or_else(|| panic!("{:?}", sinks.reports()));
    sinks.finish();
    let mut stored = 0;
    for (table, rows) in json_of(&rows, &origin()) {
        let fits = |row: &&Json| {
            let own = own(table, row);
            let numbers = own.as_object().expect("an object").values();
            numbers.filter_map(Json::as_u64).all(|number| i64::try_from(number).is_ok())
        };
        let wanted: Vec<_> = rows.iter().filter(fits).collect();
        send_json(&server, "POST", &format!("/x-{table}/_refresh"), &Json::Null);
        let found = get(&server, &format!("/x-{table}/_search?size=10")).json();
        let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
        assert_eq!(hits.len(), wanted.len(), "{table}: {found}");
        for row in wanted {
            let own = own(table, row);
            let hit = hits.iter().find(|hit| hit["_source"]["vmprobe"] == own);
            assert!(hit.is_some(), "{table}: {own}\nnot in {hits:?}");
        }
        stored += u64::try_from(hits.len()).expect("few");
    }
    assert_eq!((ledger.delivered, ledger.dropped(SinkCause::Refused)), (stored, total - stored));
}

fn events(folder: &Folder) -> Vec<Json> {
    let text = fs::read_to_string(folder.path("events")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn splunk_gets_each_event_and_says_when_it_is_indexed() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("Splunk's collector", &tools, "python3");
    }
    for mode in ["plain", "acknowledge"] {
        let (folder, port) = (Folder::new("hec"), free_port());
        let token = folder.write("token", "t0ken\n");
        let text = |index: &str| {
            format!(
                "[[sink.splunk]]\nname = \"s\"\nurl = \"http://127.0.0.1:{port}\"\ntoken = \"file:{}\"\n\
                 {index}acknowledge = {}\nbatch_records = 50\nbatch_ms = 20\nretry_max_ms = 200\n\
                 timeout_ms = 1500\n",
                token.display(),
                mode == "acknowledge"
            )
        };
        let mut sinks = start(&plan(&text("index = \"network\"\n")));
        sinks.send(&flows(0..100), NOW, 0);
        failing(&sinks, "onnect");
        let events_file = folder.path("events").display().to_string();
        let _server =
            serve(script("hec.py", &[&port.to_string(), &events_file, "t0ken", mode]), port);
        all_delivered(&sinks, 100);
        // Busy once on the way.
        sinks.send(&flows(100..300), NOW, 0);
        all_delivered(&sinks, 300);
        // Another token on the other side first.
        fs::write(&token, "other\n").expect("a file");
        sinks.send(&flows(300..310), NOW, 0);
        failing(&sinks, "Invalid token (code 4)");
        fs::write(&token, "t0ken\n").expect("a file");
        all_delivered(&sinks, 310);
        assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
        let events = events(&folder);
        // The batch whose acknowledgement never came was not indexed by this double, so none is twice.
        assert_eq!(events.len(), 310, "{mode}");
        let ids: BTreeSet<_> =
            events.iter().filter_map(|it| it["fields"]["vmprobe_event_id"].as_str()).collect();
        assert_eq!(ids.len(), 310, "{mode}");
        let numbers: BTreeSet<u64> =
            events.iter().filter_map(|it| it["event"]["packet_delta_count"].as_u64()).collect();
        assert_eq!(numbers, (0..310).collect(), "{mode}");
        let first = &events[0];
        assert_eq!((&first["host"], &first["sourcetype"]), (&"p1".into(), &"vmprobe:flows".into()));
        assert_eq!(first["event"]["segment"], "a \"b\" \\ \n Ω");
        // An index that the token may not write to is a matter of configuration: records wait.
        let mut other = start(&plan(&text("index = \"other\"\n")));
        other.send(&flows(0..1), NOW, 0);
        failing(&other, "code 7");
        assert_eq!(only(other.reports()).ledger.queued, 1);
    }
}

#[test]
fn splunk_gets_every_field_of_every_table() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("extremes at Splunk's collector", &tools, "python3");
    }
    let (folder, port) = (Folder::new("hec-extremes"), free_port());
    let token = folder.write("token", "t0ken\n");
    let events_file = folder.path("events").display().to_string();
    let _server =
        serve(script("hec.py", &[&port.to_string(), &events_file, "t0ken", "plain"]), port);
    let tables = vmprobe::config::schema::SINK_TABLES;
    let text = format!(
        "[[sink.splunk]]\nname = \"s\"\nurl = \"http://127.0.0.1:{port}\"\ntoken = \"file:{}\"\n\
         tables = {tables:?}\nbatch_ms = 20\nretry_max_ms = 200\n",
        token.display()
    );
    let mut sinks = start(&plan(&text));
    let rows = extremes::rows();
    sinks.send(&rows, NOW, 0);
    all_delivered(&sinks, u64::try_from(rows.len()).expect("few"));
    sinks.finish();
    let mut found = BTreeMap::<String, Vec<Json>>::new();
    for event in events(&folder) {
        let kind = event["sourcetype"].as_str().and_then(|it| it.strip_prefix("vmprobe:"));
        found.entry(kind.expect("a table").to_owned()).or_default().push(event["event"].clone());
    }
    for (table, rows) in json_of(&rows, &origin()) {
        assert_eq!(found[table], rows, "{table}");
    }
}
