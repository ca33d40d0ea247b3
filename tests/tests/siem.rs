//! Elastic bulk at osmem-server, a double of OpenSearch made by others, and Splunk's HTTP Event Collector at
//! a double of our own, written after Splunk's documents: neither real server can be had here.

mod extremes;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use vmprobe::config::SinkPlan;
use vmprobe::export::{SinkCause, SinkHealth, Sinks, SinksWanted};
use vmprobe::record::{FlowRecord, Origin, Rows};
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::{
    Folder, free_port, get, missing, missing_tools, run_to_end, send_json, skipped, until, vmprobe,
};
use vmprobe_tests::sinks::{SOON_S, all_delivered, only, plan_of as plan};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn start(plan: &SinkPlan) -> Sinks {
    let origin = Origin::new("p1", "east");
    Sinks::start(std::slice::from_ref(plan), origin, false, SinksWanted::default())
        .expect("threads")
}

fn failing(sinks: &Sinks, words: &str) {
    let what = || match only(sinks.reports()).health {
        SinkHealth::Failing { what, .. } if what.contains(words) => Some(()),
        _ => None,
    };
    assert!(until(SOON_S, what).is_some(), "never {words:?}: {:?}", sinks.reports());
}

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
    let _relay = serve(script("lossy_bulk.py", &[&ports[0], &ports[1]]), relay_port);
    all_delivered(&sinks, 100);
    sinks.send(&flows(100..500), NOW, 0);
    all_delivered(&sinks, 500);
    assert_eq!(count(&server, "vmprobe-flows"), Some(500));
    let found = get(&server, "/vmprobe-flows/_search?size=1000").json();
    let hits = found["hits"]["hits"].as_array().expect("hits").clone();
    let of = |hit: &Json| hit["_source"]["source"]["packets"].as_u64().expect("a number");
    let numbers: BTreeSet<u64> = hits.iter().map(of).collect();
    assert_eq!(numbers, (0..500).collect());
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
    assert_eq!(inside["hits"]["total"]["value"], 500, "{inside}");
    // A count that no signed number holds never fits; it is lost alone, and counted.
    let mut rows = flows(500..503);
    rows.flows[1].packet_delta_count = u64::MAX;
    sinks.send(&rows, NOW, 0);
    all_delivered(&sinks, 502);
    let report = only(sinks.finish());
    assert_eq!((report.ledger.dropped(SinkCause::Refused), report.ledger.dropped_sum()), (1, 1));
    assert_eq!(count(&server, "vmprobe-flows"), Some(502));
}

/// Answers as `_bulk` does, and refuses what is longer than a proxy takes; keeps the ids, one a line.
const SHORT_BULK: &str = r#"
import http.server, json, sys
port, path, octets_max = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
class Bulk(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 413, b"<html>too large"
        if len(body) <= octets_max:
            actions = [json.loads(line) for line in body.splitlines()[::2]]
            with open(path, "a") as out:
                out.writelines(action["create"]["_id"] + "\n" for action in actions)
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

#[test]
fn behind_a_proxy_that_takes_short_requests_alone_each_record_gets_there_once() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("Elastic bulk behind a proxy", &tools, "python3");
    }
    let (folder, port) = (Folder::new("short-bulk"), free_port());
    let mut command = Command::new("python3");
    command.args(["-c", SHORT_BULK, &port.to_string()]).arg(folder.path("ids")).arg("100000");
    let _server = serve(command, port);
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

#[test]
fn elastic_takes_every_table_with_its_extremes() {
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
    sinks.send(&extremes::rows(), NOW, 0);
    let total = 2 * u64::try_from(tables.len()).expect("few");
    let done = || {
        let ledger = only(sinks.reports()).ledger;
        (ledger.delivered + ledger.dropped(SinkCause::Refused) == total).then_some(ledger)
    };
    let ledger = until(SOON_S, done).unwrap_or_else(|| panic!("{:?}", sinks.reports()));
    sinks.finish();
    // Rows with nothing in them fit; of the others those do not that hold counts above 2^63.
    assert!(ledger.delivered >= total / 2, "{ledger:?}");
    let stored: u64 = tables.iter().filter_map(|table| count(&server, &format!("x-{table}"))).sum();
    assert_eq!(stored, ledger.delivered);
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
                 timeout_ms = 3000\n",
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
