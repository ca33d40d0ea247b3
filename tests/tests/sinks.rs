//! Sinks at real receivers: an HTTP server with an HMAC of its own, rsyslog, a file.

mod extremes;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use vmprobe::export::Sinks;
use vmprobe::export::json::write_row;
use vmprobe::export::sink::TableRows;
use vmprobe::record::{Origin, Record, Rows, Table, TableVisitor};
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::{
    Folder, free_port, missing, missing_tools, run_to_end, until, vmprobe,
};
use vmprobe_tests::forms::{json_of, read_by_python};
use vmprobe_tests::rsyslog::{Rsyslog, said};
use vmprobe_tests::sinks::{
    NOW, SOON_S, alerts, all_delivered, failing, numbers, one_kill, only, origin, plan_of as plan,
    some_delivered, start,
};

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

/// Takes requests whose signatures are right, and would not be with another batch's id; keeps their bodies,
/// one a line; refuses every third at first, and sends whoever asks for a path that ends in moved elsewhere.
/// It repeats the path in what it answers. With a certificate and its key inside TLS.
const RECEIVER: &str = r#"
import hashlib, hmac, http.server, ssl, sys, time, urllib.parse
port, path, secret = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = 0
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        at, batch = self.headers["X-Vmprobe-Time"], self.headers["X-Vmprobe-Batch"]
        sign = lambda text: hmac.new(secret, text, hashlib.sha256).hexdigest()
        first = "v1=" + sign(at.encode() + b"." + body)
        wanted, other = ("v2=" + sign(f"{at}\n{it}\n".encode() + body) for it in (batch, batch + "0"))
        is_right = lambda name, wanted: hmac.compare_digest(self.headers[name], wanted)
        signed = is_right("X-Vmprobe-Signature-2", wanted) and is_right("X-Vmprobe-Signature", first)
        Receiver.seen += 1
        status = 200
        if not signed or abs(time.time() - int(at)) > 300:
            status = 401
        elif is_right("X-Vmprobe-Signature-2", other):
            status = 500
        elif Receiver.seen % 3 == 0:
            status = 503
        if status == 200:
            with open(path, "ab") as out:
                out.write(self.headers["X-Vmprobe-Batch"].encode() + b" " + body + b"\n")
        if "/moved" in self.path:
            status = 307
        self.send_response(status)
        self.send_header("Location", "/hook")
        said = f"{status}: no {self.path}, no {urllib.parse.unquote(self.path)}".encode()
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver)
if len(sys.argv) > 4:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[4:])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// The bodies that a receiver has taken, by their batches; none was taken twice.
fn bodies(path: &Path) -> BTreeMap<String, Json> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut batches = BTreeMap::new();
    let parts = text.lines().map(|line| line.split_once(' ').expect("a batch and a body"));
    let lines: Vec<u8> =
        parts.clone().flat_map(|(_, body)| [body.as_bytes(), b"\n"].concat()).collect();
    for ((batch, _), body) in parts.zip(read_by_python(&lines)) {
        assert!(batches.insert(batch.to_owned(), body).is_none(), "{batch} was taken twice");
    }
    batches
}

#[test]
fn a_webhook_gets_signed_requests_each_until_it_says_yes() {
    let tools = missing_tools(&["python3"]);
    if !tools.is_empty() {
        return missing("webhooks", &tools, "python3");
    }
    let folder = Folder::new("webhook");
    let (port, secret) = (free_port(), folder.write("secret", "k3y\nnot this\n"));
    let (taken, script) = (folder.path("bodies"), folder.write("receiver.py", RECEIVER));
    let mut command = Command::new("python3");
    command.arg(script).arg(port.to_string()).arg(&taken).arg("k3y");
    let text = |path: &str| {
        format!(
            "[[sink.webhook]]\nname = \"w\"\nurl = \"http://127.0.0.1:{port}/T0/h1dden/b%2Fs3cret/{path}?key=t0ken\"\n\
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
    // What stands behind host and port is a secret with many services.
    let place = format!("http://127.0.0.1:{port}/… answers 401");
    failing(&sinks, &place);
    // The receiver repeats it.
    failing(&sinks, "401: no /…, no /…");
    let shown = format!("{:?}", sinks.reports());
    assert!(!["h1dden", "s3cret", "t0ken"].iter().any(|it| shown.contains(it)), "{shown}");
    fs::write(&secret, "k3y\n").expect("a file");
    all_delivered(&sinks, 25);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    let batches = bodies(&taken);
    let records: Vec<Json> = batches
        .values()
        .flat_map(|body| body["records"].as_array().expect("records").clone())
        .collect();
    assert_eq!(numbers(&records), (0..25).collect::<Vec<_>>());
    assert_eq!(records[0]["title"], "Ω \"quoted\" | = \\ \n end");
    let mut moved = start(&plan(&text("moved")));
    moved.send(&alerts(0, 1), NOW, 0);
    failing(&moved, "/… answers 307");
    drop(server);
}

/// Inside TLS, with an authority of its own; and every field of every table gets there as it was.
#[test]
fn a_webhook_inside_tls_is_trusted_by_its_authority_and_name_alone() {
    let tools = missing_tools(&["python3", "openssl"]);
    if !tools.is_empty() {
        return missing("webhooks inside TLS", &tools, "python3 openssl");
    }
    let folder = Folder::new("webhook-tls");
    vmprobe_tests::broker::certificates(&folder);
    let (port, secret) = (free_port(), folder.write("secret", "k3y\n"));
    let (taken, script) = (folder.path("bodies"), folder.write("receiver.py", RECEIVER));
    let mut command = Command::new("python3");
    command.arg(script).arg(port.to_string()).arg(&taken).arg("k3y");
    command.arg(folder.path("broker.pem")).arg(folder.path("broker.key"));
    let _server = serve(command, port);
    let tables = vmprobe::config::schema::SINK_TABLES;
    let text = |host: &str, ca: &str| {
        format!(
            "[[sink.webhook]]\nname = \"w\"\nurl = \"https://{host}:{port}/h\"\nca_file = \"{}\"\n\
             secret = \"file:{}\"\ntables = {tables:?}\nbatch_ms = 10\nretry_max_ms = 200\n",
            folder.path(ca).display(),
            secret.display()
        )
    };
    for (host, ca, words) in [
        ("127.0.0.1", "other.pem", "invalid peer certificate: UnknownIssuer"),
        ("localhost", "ca.pem", "invalid peer certificate: certificate not valid for name"),
        ("127.0.0.1", "none.pem", "none.pem: "),
    ] {
        let mut sinks = start(&plan(&text(host, ca)));
        sinks.send(&alerts(0, 1), NOW, 0);
        failing(&sinks, words);
    }
    assert_eq!(bodies(&taken).len(), 0, "nothing was sent to whom nobody trusts");
    let mut sinks = start(&plan(&text("127.0.0.1", "ca.pem")));
    let rows = extremes::rows();
    sinks.send(&rows, NOW, 0);
    all_delivered(&sinks, u64::try_from(rows.len()).expect("few"));
    sinks.finish();
    let mut found = BTreeMap::<String, Vec<Json>>::new();
    for body in bodies(&taken).into_values() {
        let records = body["records"].as_array().expect("records").clone();
        let table = body["table"].as_str().expect("a table").to_owned();
        found.entry(table).or_default().extend(records);
    }
    for (table, rows) in json_of(&rows, &origin()) {
        assert_eq!(found[table], rows, "{table}");
    }
}

#[test]
fn rsyslog_understands_every_message_over_tcp_and_tls() {
    for (tls, format) in [(false, "json"), (true, "cef")] {
        let Some(mut rsyslog) = Rsyslog::new("syslog", tls) else { return };
        let text = |ca: &str| {
            let keys = rsyslog.keys(ca);
            format!(
                "[[sink.syslog]]\nname = \"s\"\n{keys}format = \"{format}\"\nretry_max_ms = 200\n\
                 batch_ms = 10\n"
            )
        };
        let (text, other) = (text("ca.pem"), text("other.pem"));
        let mut sinks = start(&plan(&text));
        sinks.send(&alerts(0, 50), NOW, 0);
        failing(&sinks, "refused");
        rsyslog.run();
        all_delivered(&sinks, 50);
        let found = rsyslog.understood(50);
        assert_eq!(found.len(), 50);
        for message in &found {
            let head = ["severity", "facility", "host", "app", "id"].map(|key| &message[key]);
            assert_eq!(head, ["3", "16", "p1", "vmprobe", "alerts"], "{message}");
            assert_eq!(message["time"], "2023-11-14T22:13:20.000000Z");
        }
        if format == "json" {
            let records: Vec<Json> = found
                .iter()
                .map(|message| serde_json::from_str(said(message)).expect("JSON"))
                .collect();
            assert_eq!(numbers(&records), (0..50).collect::<Vec<_>>());
            assert_eq!(records[0]["title"], "Ω \"quoted\" | = \\ \n end");
        } else {
            let first = said(&found[0]);
            assert!(first.starts_with("CEF:0|vmprobe|vmprobe|"), "{first}");
            assert!(first.contains("|Ω \"quoted\" \\| = \\\\   end|8|"), "{first}");
            assert!(first.contains(" c6a2=2001:db8::1 "), "{first}");
        }
        sinks.finish();
        if tls {
            let mut refused = start(&plan(&other));
            refused.send(&alerts(0, 1), NOW, 0);
            failing(&refused, "certificate");
        }
    }
}

/// What syslog without acknowledgement can give at most, and all of that (docs/sinks/syslog.md).
#[test]
fn rsyslog_killed_under_load_misses_only_what_it_had_been_given_before() {
    const BATCH: u64 = 50;
    let count = |records: u64| usize::try_from(records).expect("few");
    for tls in [false, true] {
        let Some(mut rsyslog) = Rsyslog::new("rsyslog killed under load", tls) else { return };
        let text = format!(
            "[[sink.syslog]]\nname = \"s\"\n{}retry_max_ms = 200\nbatch_records = {BATCH}\n",
            rsyslog.keys("ca.pem")
        );
        let mut sinks = start(&plan(&text));
        let mut sent = 0;
        let mut send = |sinks: &mut Sinks, batches: u64| {
            sinks.send(&alerts(sent, batches * BATCH), NOW, 0);
            sent += batches * BATCH;
            sent
        };
        rsyslog.run();
        // Killed when it has read all: nothing is lost.
        let idle = send(&mut sinks, 10);
        rsyslog.understood(count(idle));
        rsyslog.kill();
        let before = send(&mut sinks, 10);
        failing(&sinks, "127.0.0.1");
        rsyslog.run();
        rsyslog.understood(count(before - idle));
        send(&mut sinks, 40);
        some_delivered(&sinks, before + 10 * BATCH);
        rsyslog.kill();
        let killed = send(&mut sinks, 0);
        send(&mut sinks, 40);
        failing(&sinks, "127.0.0.1");
        rsyslog.run();
        let sent = send(&mut sinks, 40);
        all_delivered(&sinks, sent);
        assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
        rsyslog.understood(count(sent - killed));
        let numbers_of = |life| -> Vec<u64> {
            let of = |message: &Json| {
                let record: Json = serde_json::from_str(said(message)).expect("JSON");
                record["event_count"].as_u64().expect("a number")
            };
            rsyslog.messages(life).iter().map(of).collect()
        };
        let last = || numbers_of(3).contains(&(sent - 1)).then_some(());
        assert!(until(SOON_S, last).is_some(), "tls {tls}");
        let second = numbers_of(2);
        assert!(numbers_of(1).into_iter().eq(0..idle), "{tls} {:?}", numbers_of(1));
        assert!(second.iter().copied().take(count(before - idle)).eq(idle..before), "{second:?}");
        let from_idle = |life| numbers_of(life).iter().map(|it| it - idle).collect::<Vec<_>>();
        let numbers = [killed, sent].map(|it| it - idle);
        let toll = one_kill(&from_idle(2), &from_idle(3), numbers, BATCH);
        eprintln!("rsyslog killed, tls {tls}: {toll:?} of {sent}");
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
    // A question to a name server and its answer are one record and two lines.
    let answers = lines.iter().filter(|line| line["dns"]["type"] == "answer").count();
    assert_eq!(report["sinks"][0]["delivered"], lines.len() - answers, "{report}");
    let packets = lines.iter().filter_map(|line| line["flow"]["pkts_toserver"].as_u64());
    assert!(packets.sum::<u64>() > 0);
}
