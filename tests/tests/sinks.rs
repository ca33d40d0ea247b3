//! Sinks at real receivers: an HTTP server with an HMAC of its own, rsyslog, RabbitMQ.

mod extremes;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value as Json;
use vmprobe::config::SinkPlan;
use vmprobe::export::json::write_row;
use vmprobe::export::sink::TableRows;
use vmprobe::export::{Sinks, SinksWanted};
use vmprobe::record::{AlertRecord, Origin, Record, Rows, Table, TableVisitor};
use vmprobe::time::{Timestamp, sleep_ms};
use vmprobe_tests::broker::{Broker, PACKAGES};
use vmprobe_tests::end_to_end::{
    Folder, free_port, missing, missing_tools, run_to_end, until, vmprobe,
};
use vmprobe_tests::sinks::{SOON_S, all_delivered, failing, only, plan_of as plan};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn start(plan: &SinkPlan) -> Sinks {
    let origin = Origin::new("p1", "east");
    Sinks::start(std::slice::from_ref(plan), origin, false, SinksWanted::default())
        .expect("threads")
}

/// Alerts with numbers and texts that go wrong first.
fn alerts(first: u64, count: u64) -> Rows {
    let alert = |number: u64| AlertRecord {
        alert_id: format!("a{number}").into(),
        event_count: number,
        severity: "high",
        title: "Ω \"quoted\" | = \\ \n end".into(),
        source_address: Some("2001:db8::1".parse().expect("an address")),
        last_seen_ns: NOW.as_ns(),
        ..AlertRecord::default()
    };
    Rows { alerts: (first..first + count).map(alert).collect(), ..Rows::default() }
}

fn numbers(records: &[Json]) -> Vec<u64> {
    let mut numbers: Vec<_> =
        records.iter().map(|it| it["event_count"].as_u64().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

struct Compare<'a> {
    rows: &'a Rows,
    origin: &'a Origin,
    tables: usize,
}

impl TableVisitor for Compare<'_> {
    fn table<R: Record>(&mut self) {
        let (parts, lost) =
            TableRows::of(self.rows, self.origin, Timestamp::ZERO, |it| it == R::TABLE);
        let lines = parts.iter().flat_map(TableRows::rows).map(|row| {
            let mut line = Vec::new();
            write_row(row, &mut line);
            assert!(!line.contains(&b'\n'));
            serde_json::from_slice::<Json>(&line).expect("JSON")
        });
        let records = R::among(self.rows);
        assert_eq!((records.len(), lost), (2, 0), "{} has extremes", R::TABLE.name());
        assert!(lines.eq(records.iter().map(|record| record.json(self.origin))), "{:?}", R::TABLE);
        self.tables += 1;
    }
}

#[test]
fn json_is_what_the_schema_says_in_every_column_of_every_table() {
    let (rows, origin) = (extremes::rows(), Origin::new("p\"1\n", "d\u{1}ü"));
    let mut compare = Compare { rows: &rows, origin: &origin, tables: 0 };
    Table::visit(&mut compare);
    assert_eq!(compare.tables, Table::ALL.len());
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
    let server = Server(command.stdin(Stdio::null()).spawn().expect("it starts"));
    let up = until(SOON_S, || TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(up.is_some(), "{command:?} does not listen");
    server
}

/// Takes requests whose signature is right, keeps their bodies, one a line; refuses every third at first,
/// and sends whoever asks for /moved elsewhere.
const RECEIVER: &str = r#"
import hashlib, hmac, http.server, sys, time
port, path, secret = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = 0
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        at, given = self.headers["X-Vmprobe-Time"], self.headers["X-Vmprobe-Signature"]
        wanted = "v1=" + hmac.new(secret, at.encode() + b"." + body, hashlib.sha256).hexdigest()
        Receiver.seen += 1
        status = 200
        if not hmac.compare_digest(given, wanted) or abs(time.time() - int(at)) > 300:
            status = 401
        elif Receiver.seen % 3 == 0:
            status = 503
        if status == 200:
            with open(path, "ab") as out:
                out.write(self.headers["X-Vmprobe-Batch"].encode() + b" " + body + b"\n")
        if self.path == "/moved":
            status = 307
        self.send_response(status)
        self.send_header("Location", "/hook")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
"#;

#[test]
fn a_webhook_gets_signed_requests_each_until_it_says_yes() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("webhooks", &tools, "python3");
    }
    let folder = Folder::new("webhook");
    let (port, secret) = (free_port(), folder.write("secret", "k3y\nnot this\n"));
    let (bodies, script) = (folder.path("bodies"), folder.write("receiver.py", RECEIVER));
    let mut command = Command::new("python3");
    command.arg(script).arg(port.to_string()).arg(&bodies).arg("k3y");
    let text = |path: &str| {
        format!(
            "[[sink.webhook]]\nname = \"w\"\nurl = \"http://127.0.0.1:{port}/{path}\"\n\
             secret = \"file:{}\"\nbatch_records = 5\nretry_max_ms = 200\n",
            secret.display()
        )
    };
    let mut sinks = start(&plan(&text("hook")));
    sinks.send(&alerts(0, 20), NOW, 0);
    failing(&sinks, "onnect");
    let server = serve(command, port);
    all_delivered(&sinks, 20);
    // Another key: nothing is taken until it is the right one again.
    fs::write(&secret, "other\n").expect("a file");
    sinks.send(&alerts(20, 5), NOW, 0);
    failing(&sinks, "401");
    fs::write(&secret, "k3y\n").expect("a file");
    all_delivered(&sinks, 25);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    let text_of = fs::read_to_string(&bodies).expect("bodies");
    let batches: BTreeMap<&str, Json> = text_of
        .lines()
        .map(|line| line.split_once(' ').expect("a batch and a body"))
        .map(|(batch, body)| (batch, serde_json::from_str(body).expect("JSON")))
        .collect();
    let records: Vec<Json> = batches
        .values()
        .flat_map(|body| body["records"].as_array().expect("records").clone())
        .collect();
    assert_eq!(numbers(&records), (0..25).collect::<Vec<_>>());
    assert_eq!(records[0]["title"], "Ω \"quoted\" | = \\ \n end");
    let mut moved = start(&plan(&text("moved")));
    moved.send(&alerts(0, 1), NOW, 0);
    failing(&moved, "307");
    drop(server);
}

/// rsyslog with one receiver, whose messages it writes down as JSON lines with what it has understood.
fn rsyslog(folder: &Folder, port: u16, tls: bool) -> Command {
    let at = |name: &str| folder.path(name).display().to_string();
    let (driver, input) = if tls {
        let files = format!(
            "defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{}\" \
             defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\"",
            at("ca.pem"),
            at("broker.pem"),
            at("broker.key")
        );
        let mode =
            "StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\"";
        (files, mode)
    } else {
        (String::new(), "")
    };
    folder.write(
        "rsyslog.conf",
        format!(
            "global(workDirectory=\"{root}\" maxMessageSize=\"64k\" {driver})\n\
             module(load=\"imtcp\" {input})\n\
             template(name=\"lines\" type=\"list\" option.jsonf=\"on\") {{\n\
             property(outname=\"severity\" name=\"syslogseverity\" format=\"jsonf\")\n\
             property(outname=\"facility\" name=\"syslogfacility\" format=\"jsonf\")\n\
             property(outname=\"host\" name=\"hostname\" format=\"jsonf\")\n\
             property(outname=\"app\" name=\"app-name\" format=\"jsonf\")\n\
             property(outname=\"id\" name=\"msgid\" format=\"jsonf\")\n\
             property(outname=\"time\" name=\"timereported\" dateFormat=\"rfc3339\" format=\"jsonf\")\n\
             property(outname=\"message\" name=\"msg\" format=\"jsonf\") }}\n\
             ruleset(name=\"r\") {{ action(type=\"omfile\" file=\"{out}\" template=\"lines\") }}\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\" ruleset=\"r\")\n",
            root = folder.root().display(),
            out = at("messages"),
        ),
    );
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(at("rsyslog.conf")).arg("-i").arg(at("pid"));
    command
}

fn messages(folder: &Folder) -> Vec<Json> {
    let text = fs::read_to_string(folder.path("messages")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn rsyslog_understands_every_message_over_tcp_and_tls() {
    let tools = missing_tools(&["rsyslogd", "openssl"]);
    if !tools.is_empty() {
        return missing("syslog", &tools, "rsyslog rsyslog-gnutls openssl");
    }
    for (tls, format) in [(false, "json"), (true, "cef")] {
        let (folder, port) = (Folder::new("syslog"), free_port());
        vmprobe_tests::broker::certificates(&folder);
        let scheme = if tls { "tls" } else { "tcp" };
        let text = |ca: &str| {
            let ca = if tls {
                format!("ca_file = \"{}\"\n", folder.path(ca).display())
            } else {
                String::new()
            };
            format!(
                "[[sink.syslog]]\nname = \"s\"\nurl = \"{scheme}://127.0.0.1:{port}\"\n{ca}\
                 format = \"{format}\"\nretry_max_ms = 200\nbatch_ms = 10\n"
            )
        };
        let mut sinks = start(&plan(&text("ca.pem")));
        sinks.send(&alerts(0, 50), NOW, 0);
        failing(&sinks, "refused");
        let server = serve(rsyslog(&folder, port, tls), port);
        all_delivered(&sinks, 50);
        let all = || Some(messages(&folder)).filter(|messages| messages.len() == 50);
        let found = until(SOON_S, all).unwrap_or_else(|| panic!("{:?}", messages(&folder)));
        for message in &found {
            let head = ["severity", "facility", "host", "app", "id"].map(|key| &message[key]);
            assert_eq!(head, ["3", "16", "p1", "vmprobe", "alerts"], "{message}");
            assert_eq!(message["time"], "2023-11-14T22:13:20.000000Z");
        }
        let said = |message: &Json| message["message"].as_str().expect("text").trim().to_owned();
        if format == "json" {
            let records: Vec<Json> = found
                .iter()
                .map(|message| serde_json::from_str(&said(message)).expect("JSON"))
                .collect();
            assert_eq!(numbers(&records), (0..50).collect::<Vec<_>>());
            assert_eq!(records[0]["title"], "Ω \"quoted\" | = \\ \n end");
        } else {
            let first = said(&found[0]);
            assert!(first.starts_with("CEF:0|vmprobe|vmprobe|"), "{first}");
            assert!(first.contains("|Ω \"quoted\" \\| = \\\\   end|8|"), "{first}");
            assert!(first.contains(" c6a2=2001:db8::1 "), "{first}");
        }
        drop(server);
        // It comes back by itself.
        sinks.send(&alerts(50, 10), NOW, 0);
        failing(&sinks, "127.0.0.1");
        let server = serve(rsyslog(&folder, port, tls), port);
        all_delivered(&sinks, 60);
        let all = || (messages(&folder).len() >= 60).then_some(());
        assert!(until(SOON_S, all).is_some(), "{}", messages(&folder).len());
        sinks.finish();
        if tls {
            let mut other = start(&plan(&text("other.pem")));
            other.send(&alerts(0, 1), NOW, 0);
            failing(&other, "certificate");
        }
        drop(server);
    }
}

/// A receiver that knows TLS 1.3, whose tickets nobody reads, and is closed while nothing is sent.
#[test]
fn a_tls_receiver_that_closes_between_two_batches_misses_none() {
    let tools = missing_tools(&["openssl"]);
    if !tools.is_empty() {
        return missing("syslog over TLS 1.3", &tools, "openssl");
    }
    let (folder, port) = (Folder::new("syslog-closed"), free_port());
    vmprobe_tests::broker::certificates(&folder);
    let serve = |name: &str| {
        let mut command = Command::new("openssl");
        let out = fs::File::create(folder.path(name)).expect("a file");
        command.args(["s_server", "-quiet", "-tls1_3", "-accept", &port.to_string(), "-cert"]);
        command.arg(folder.path("broker.pem")).arg("-key").arg(folder.path("broker.key"));
        // It ends with its input.
        command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::null());
        let server = Server(command.spawn().expect("it starts"));
        let up = until(SOON_S, || TcpStream::connect(("127.0.0.1", port)).ok());
        assert!(up.is_some(), "it does not listen");
        server
    };
    let read = |name: &str, count: usize| {
        let text = || fs::read_to_string(folder.path(name)).unwrap_or_default();
        let all = || (text().matches("\"alert_id\"").count() == count).then_some(());
        assert!(until(SOON_S, all).is_some(), "{name}: {}", text());
    };
    let text = format!(
        "[[sink.syslog]]\nname = \"s\"\nurl = \"tls://127.0.0.1:{port}\"\nca_file = \"{}\"\n\
         retry_max_ms = 200\nbatch_ms = 10\n",
        folder.path("ca.pem").display()
    );
    let mut sinks = start(&plan(&text));
    for round in 0..3_u64 {
        let name = format!("out-{round}");
        let server = serve(&name);
        sinks.send(&alerts(round * 7, 7), NOW, 0);
        all_delivered(&sinks, (round + 1) * 7);
        read(&name, 7);
        drop(server);
    }
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
}

/// The broker's side: an exchange, and a queue that is bound when the test wants it.
struct Consumer {
    runtime: tokio::runtime::Runtime,
    channel: lapin::Channel,
    _connection: Connection,
}

impl Consumer {
    fn new(broker: &Broker) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let url = format!("amqp://guest:guest@127.0.0.1:{}", broker.port);
        let connected = until(SOON_S, || {
            let connect = Connection::connect(&url, ConnectionProperties::default());
            runtime.block_on(connect).ok()
        });
        let connection = connected.expect("the broker takes connections");
        let channel = runtime.block_on(connection.create_channel()).expect("a channel");
        Self { runtime, channel, _connection: connection }
    }

    fn make_exchange(&self) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let made = self.channel.exchange_declare(
            "vmprobe".into(),
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        );
        self.runtime.block_on(made).expect("an exchange");
    }

    fn bind(&self) {
        self.runtime.block_on(async {
            let options = QueueDeclareOptions::durable();
            let made = self.channel.queue_declare("q".into(), options, FieldTable::default());
            made.await.expect("a queue");
            let bound = self.channel.queue_bind(
                "q".into(),
                "vmprobe".into(),
                "vmprobe.alerts".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.expect("bound");
        });
    }

    fn drain(&self) -> Vec<Delivery> {
        let mut all = Vec::new();
        self.runtime.block_on(async {
            while let Some(message) =
                self.channel.basic_get("q".into(), BasicGetOptions::default()).await.expect("a get")
            {
                message.delivery.ack(BasicAckOptions::default()).await.expect("an ack");
                all.push(message.delivery);
            }
        });
        all
    }
}

#[test]
fn rabbitmq_confirms_every_record_or_it_comes_again() {
    let Some(mut broker) = Broker::start() else {
        return missing("RabbitMQ as a sink", &["rabbitmq-server"], PACKAGES);
    };
    let text = format!(
        "[[sink.rabbitmq]]\nname = \"bus\"\nurl = \"amqps://127.0.0.1:{}\"\nca_file = \"{}\"\n\
         tables = [\"alerts\"]\nbatch_records = 100\nretry_max_ms = 300\ntimeout_ms = 20000\n",
        broker.tls_port,
        broker.ca_file().display()
    );
    let mut sinks = start(&plan(&text));
    sinks.send(&alerts(0, 250), NOW, 0);
    // Neither exchange nor queue: nothing is lost while nobody wants it.
    failing(&sinks, "vmprobe");
    let consumer = Consumer::new(&broker);
    consumer.make_exchange();
    failing(&sinks, "no queue is bound to exchange vmprobe for vmprobe.alerts");
    consumer.bind();
    all_delivered(&sinks, 250);
    drop(consumer);
    // The broker's own tables (what is bound to what) reach the disk up to 2 s later (Erlang's disk_log);
    // killed before, it would not know the binding any more.
    sleep_ms(3_000);
    broker.kill();
    sinks.send(&alerts(250, 250), NOW, 0);
    failing(&sinks, "127.0.0.1");
    broker.run();
    all_delivered(&sinks, 500);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    let consumer = Consumer::new(&broker);
    let mut by_id = BTreeMap::new();
    for message in consumer.drain() {
        let id = message.properties.message_id().clone().expect("an id").to_string();
        assert_eq!(message.routing_key.as_str(), "vmprobe.alerts");
        by_id.insert(id, serde_json::from_slice::<Json>(&message.data).expect("JSON"));
    }
    let records: Vec<_> = by_id.into_values().collect();
    assert_eq!(numbers(&records), (0..500).collect::<Vec<_>>());
    // A batch that takes longer than one wait for the broker gets there all the same.
    let slow = text.replace("= 20000", "= 500").replace("_records = 100", "_records = 100000");
    let mut sinks = start(&plan(&format!("{slow}batch_ms = 2000\n")));
    sinks.send(&alerts(0, 20_000), NOW, 0);
    all_delivered(&sinks, 20_000);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
}

#[test]
fn a_replay_writes_eve_lines_for_its_flows_and_alerts() {
    let folder = Folder::new("eve");
    let mut command = Command::new(vmprobe());
    command.args(["generate", "--scenario", "port-scan", "--seed", "1", "--out"]);
    command.arg(folder.path("generated"));
    run_to_end(command).expect(0, &[]);
    let file = folder.write(
        "vmprobe.toml",
        "[flow]\nslots_per_worker = 16384\n[[sink.eve]]\nname = \"eve\"\npath = \"eve.json\"\n",
    );
    let mut command = Command::new(vmprobe());
    command.args(["replay", "--json", "-c"]).arg(&file);
    command.arg(folder.path("generated/tap-a.pcap"));
    let report = run_to_end(command).expect(0, &[]).json();
    let text = fs::read_to_string(folder.path("eve.json")).expect("lines");
    let lines: Vec<Json> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["event_type"] == kind).count();
    assert!(of("flow") > 0 && of("alert") > 0, "{text}");
    assert_eq!(report["sinks"][0]["delivered"], lines.len(), "{report}");
    let packets = lines.iter().filter_map(|line| line["flow"]["pkts_toserver"].as_u64());
    assert!(packets.sum::<u64>() > 0);
}
