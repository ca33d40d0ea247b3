//! Records at a real broker of Kafka: each once, in the partition of its key, in both forms.

mod extremes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use vmprobe::export::{Sinks, SinksWanted, kafka};
use vmprobe::record::{
    FlowRecord, Kind, Origin, PathSampleRecord, Record, Rows, Table, TableVisitor,
};
use vmprobe::time::{Timestamp, sleep_ms};
use vmprobe_tests::end_to_end::{Folder, missing, missing_tools, until};
use vmprobe_tests::kafka::{Front, Kafka, PASSWORD};
use vmprobe_tests::sinks::{SOON_S, all_delivered, failing, only, plan_of};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn text(kafka: &Kafka, rest: &str) -> String {
    format!(
        "[[sink.kafka]]\nname = \"bus\"\n{}retry_max_ms = 300\nbatch_ms = 20\n{rest}",
        kafka.keys()
    )
}

fn origin(probe: &str) -> Origin {
    Origin::new(probe, "east")
}

fn start(text: &str, probe: &str) -> Sinks {
    let plan = plan_of(text);
    Sinks::start(&[plan], origin(probe), true, SinksWanted::default()).expect("threads")
}

/// `count` flows, numbered from `first`, whose directions alternate between few pairs of endpoints.
fn flows(first: u64, count: u64) -> Rows {
    let address = |number: u64| {
        let [.., a, b] = number.to_be_bytes();
        std::net::IpAddr::from([10, 0, a, b])
    };
    let flow = |number: u64| {
        let (one, other) = (address(number / 2 % 50), address(1_000 + number / 2 % 50));
        let (source, destination) =
            if number.is_multiple_of(2) { (one, other) } else { (other, one) };
        FlowRecord {
            flow_id: number,
            flow_end_ns: NOW.as_ns() + number,
            source_address: source,
            destination_address: destination,
            ..FlowRecord::default()
        }
    };
    Rows { flows: (first..first + count).map(flow).collect(), ..Rows::default() }
}

/// The flows of a topic, each of which must be there once.
fn once(kafka: &Kafka) -> Vec<u64> {
    let messages = kafka.read("vmprobe.flows");
    let ids: BTreeSet<_> = messages.iter().map(|message| message.id.clone()).collect();
    assert_eq!(ids.len(), messages.len(), "no two messages have one id");
    let flow = |value: &[u8]| {
        let json: Json = serde_json::from_slice(value).expect("JSON");
        json["flow_id"].as_u64().expect("a number")
    };
    let mut flows: Vec<_> = messages.iter().map(|message| flow(&message.value)).collect();
    flows.sort_unstable();
    flows
}

struct JsonTrip<'a> {
    kafka: &'a Kafka,
    rows: Rows,
    tables: usize,
}

impl TableVisitor for JsonTrip<'_> {
    fn table<R: Record>(&mut self) {
        let found = self.kafka.read(&format!("json.{}", R::TABLE.name()));
        let mut found: Vec<Json> = found
            .iter()
            .map(|message| serde_json::from_slice(&message.value).expect("JSON"))
            .collect();
        let rows = R::among(&self.rows).iter();
        let mut expected: Vec<Json> = rows.map(|row| row.json(&origin("p1"))).collect();
        assert_eq!(expected.len(), 2, "{} has extremes", R::TABLE.name());
        let time = |row: &Json| row[R::TABLE.time_column()].as_u64();
        found.sort_by_key(time);
        expected.sort_by_key(time);
        assert_eq!(found, expected, "{}", R::TABLE.name());
        self.tables += 1;
    }
}

/// What `protoc` makes of a message, by the schema in the tree.
fn decoded(folder: &Folder, table: Table, value: &[u8]) -> BTreeMap<String, String> {
    let name: String =
        table.name().split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    let mut protoc = Command::new("protoc")
        .arg(format!("--decode=vmprobe.v1.{name}"))
        .arg("vmprobe.proto")
        .current_dir(folder.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("protoc runs");
    protoc.stdin.take().expect("a pipe").write_all(value).expect("it reads");
    let output = protoc.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", table.name());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a field");
        // A field without a name is one that the schema does not know.
        assert!(name.starts_with(|first: char| first.is_ascii_lowercase()), "{line}");
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(field).collect()
}

/// A text as protobuf's text format shows it.
fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).expect("quotes");
    let (mut octets, mut rest) = (Vec::new(), inner.bytes());
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        octets.push(match rest.next().expect("an escape") {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            first @ b'0'..=b'3' => {
                let mut digit = || rest.next().expect("an octal digit") - b'0';
                (first - b'0') * 64 + digit() * 8 + digit()
            }
            other => other,
        });
    }
    String::from_utf8(octets).expect("UTF-8")
}

struct ProtobufTrip<'a> {
    kafka: &'a Kafka,
    folder: &'a Folder,
    rows: Rows,
    tables: usize,
}

impl TableVisitor for ProtobufTrip<'_> {
    fn table<R: Record>(&mut self) {
        let messages = self.kafka.read(&format!("pb.{}", R::TABLE.name()));
        let mut found: Vec<_> =
            messages.iter().map(|message| decoded(self.folder, R::TABLE, &message.value)).collect();
        let time = R::TABLE.time_column();
        found.sort_by_key(|row| row.get(time).map_or(0, |at| at.parse::<u64>().expect("a time")));
        let rows = R::among(&self.rows).iter();
        let mut expected: Vec<Json> = rows.map(|row| row.json(&origin("p1"))).collect();
        expected.sort_by_key(|row| row[time].as_u64());
        assert_eq!(found.len(), expected.len(), "{}", R::TABLE.name());
        for (found, expected) in found.iter().zip(&expected) {
            for column in R::TABLE.columns() {
                let shown = found.get(column.name).map(String::as_str);
                let found = match (shown, column.kind) {
                    (None, _) if column.nullable => Json::Null,
                    (None, Kind::Text) => Json::from(""),
                    (None, Kind::Bool) => Json::from(false),
                    (None, Kind::F64) => Json::from(0.0),
                    (None, _) => Json::from(0),
                    (Some(shown), Kind::Text) => Json::from(unquoted(shown)),
                    (Some(shown), Kind::Bool) => Json::from(shown == "true"),
                    (Some(shown), Kind::F64) => Json::from(shown.parse::<f64>().expect(shown)),
                    (Some(shown), Kind::I64) => Json::from(shown.parse::<i64>().expect(shown)),
                    (Some(shown), _) => Json::from(shown.parse::<u64>().expect(shown)),
                };
                let expected = &expected[column.name];
                // Text format shows 15 digits of a double.
                let near = found.as_f64().zip(expected.as_f64()).is_some_and(|(one, other)| {
                    column.kind == Kind::F64 && (one - other).abs() <= other.abs() * 1e-12
                });
                let name = R::TABLE.name();
                assert!(near || found == *expected, "{name}.{}: {found}", column.name);
            }
        }
        self.tables += 1;
    }
}

#[test]
fn every_field_comes_back_as_it_was_in_both_forms() {
    let tools = missing_tools(&["protoc"]);
    if !tools.is_empty() {
        return missing("every field through Kafka", &tools, "protobuf-compiler");
    }
    let Some(kafka) = Kafka::start("every field through Kafka", Front::default()) else { return };
    for form in [
        "topic_prefix = \"json.\"\ncompression = \"lz4\"\n",
        "topic_prefix = \"pb.\"\nformat = \"protobuf\"\ncompression = \"none\"\n",
    ] {
        let mut sinks = start(&text(&kafka, form), "p1");
        sinks.send(&extremes::rows(), NOW, u64::MAX);
        let records = u64::try_from(extremes::rows().len()).expect("few");
        all_delivered(&sinks, records);
        assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    }
    let mut check = JsonTrip { kafka: &kafka, rows: extremes::rows(), tables: 0 };
    Table::visit(&mut check);
    assert_eq!(check.tables, Table::ALL.len());
    let folder = Folder::new("proto");
    folder.write("vmprobe.proto", kafka::COMMITTED);
    let rows = extremes::rows();
    let mut check = ProtobufTrip { kafka: &kafka, folder: &folder, rows, tables: 0 };
    Table::visit(&mut check);
    assert_eq!(check.tables, Table::ALL.len());
}

#[test]
fn what_must_meet_is_in_one_partition() {
    let Some(kafka) = Kafka::start("keys of Kafka", Front::default()) else { return };
    for topic in ["vmprobe.flows", "vmprobe.path_samples"] {
        kafka.make_topic(topic, 4);
    }
    for probe in ["p1", "p2", "p3"] {
        let mut sinks = start(&text(&kafka, ""), probe);
        let sample = |number: u64| PathSampleRecord {
            digest_hash_value: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            tap: probe.into(),
            ..PathSampleRecord::default()
        };
        let path_samples = (0..100).map(sample).collect();
        sinks.send(&Rows { path_samples, ..flows(0, 100) }, NOW, u64::MAX);
        all_delivered(&sinks, 200);
        sinks.finish();
    }
    for (topic, keys, each) in [("vmprobe.flows", 50, 6), ("vmprobe.path_samples", 100, 3)] {
        let mut places = BTreeMap::<Vec<u8>, Vec<i32>>::new();
        for message in kafka.read(topic) {
            places.entry(message.key).or_default().push(message.partition);
        }
        assert_eq!(places.len(), keys, "{topic}");
        for (key, partitions) in &places {
            assert_eq!(partitions.len(), each, "{topic} {key:?}");
            assert!(partitions.iter().all(|it| *it == partitions[0]), "{topic} {key:?}");
        }
        let used: BTreeSet<_> = places.values().map(|partitions| partitions[0]).collect();
        assert_eq!(used.len(), 4, "{topic} uses all of its partitions");
    }
}

#[test]
fn answers_that_are_lost_double_nothing() {
    let Some(kafka) = Kafka::start("lost answers of Kafka", Front::default()) else { return };
    kafka.lose_answers(true);
    let mut sinks = start(&text(&kafka, "tables = [\"flows\"]\nbatch_records = 200\n"), "p1");
    let mut sent = 0;
    let lost = until(SOON_S, || {
        sinks.send(&flows(sent, 200), NOW, u64::MAX);
        sent += 200;
        sleep_ms(20);
        (kafka.lost_answers() >= 5).then_some(())
    });
    assert!(lost.is_some(), "{:?}", sinks.reports());
    kafka.lose_answers(false);
    all_delivered(&sinks, sent);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    assert_eq!(once(&kafka), (0..sent).collect::<Vec<_>>());
}

#[test]
fn connections_that_break_under_load_lose_and_double_nothing() {
    let test = "broken connections of Kafka";
    let Some(mut kafka) = Kafka::start(test, Front::default()) else { return };
    let mut sinks = start(&text(&kafka, "tables = [\"flows\"]\nbatch_records = 100\n"), "p1");
    let mut sent = 0;
    for _ in 0..4 {
        for _ in 0..20 {
            sinks.send(&flows(sent, 100), NOW, u64::MAX);
            sent += 100;
            sleep_ms(3);
        }
        kafka.kill_front();
        for _ in 0..5 {
            sinks.send(&flows(sent, 100), NOW, u64::MAX);
            sent += 100;
        }
        failing(&sinks, "127.0.0.1");
        kafka.run();
    }
    all_delivered(&sinks, sent);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    assert_eq!(once(&kafka), (0..sent).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_is_not_there_yet_or_comes_back_empty_gets_what_waits() {
    let Some(mut kafka) = Kafka::new("a broker of Kafka that ends", Front::default()) else {
        return;
    };
    let keys = "tables = [\"flows\"]\nbatch_records = 100\ntimeout_ms = 3000\n";
    let mut sinks = start(&text(&kafka, keys), "p1");
    sinks.send(&flows(0, 1_000), NOW, u64::MAX);
    failing(&sinks, "127.0.0.1");
    kafka.run();
    all_delivered(&sinks, 1_000);
    assert_eq!(once(&kafka), (0..1_000).collect::<Vec<_>>());
    // Killed: what it had ends with it, as it has no disk. What is sent meanwhile is all there then.
    kafka.kill();
    kafka.kill_front();
    sinks.send(&flows(1_000, 1_000), NOW, u64::MAX);
    failing(&sinks, "127.0.0.1");
    kafka.run();
    all_delivered(&sinks, 2_000);
    sinks.send(&flows(2_000, 100), NOW, u64::MAX);
    all_delivered(&sinks, 2_100);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    assert_eq!(once(&kafka), (1_000..2_100).collect::<Vec<_>>());
}

#[test]
fn what_a_run_leaves_in_the_spool_the_next_one_delivers() {
    let Some(mut kafka) = Kafka::new("the spool before Kafka", Front::default()) else { return };
    let spool = Folder::new("kafka-spool");
    let keys = format!("tables = [\"flows\"]\nspool_folder = \"{}\"\n", spool.root().display());
    let mut sinks = start(&text(&kafka, &keys), "p1");
    sinks.send(&flows(0, 300), NOW, u64::MAX);
    failing(&sinks, "127.0.0.1");
    let ledger = only(sinks.finish()).ledger;
    assert_eq!((ledger.spooled, ledger.dropped_sum()), (300, 0));
    kafka.run();
    // Its form is what it was made in.
    let sinks = start(&text(&kafka, &format!("{keys}format = \"protobuf\"\n")), "p1");
    all_delivered(&sinks, 300);
    sinks.finish();
    assert_eq!(once(&kafka), (0..300).collect::<Vec<_>>());
}

#[test]
fn a_broker_of_an_old_version_is_told_and_records_wait() {
    let Some(mut kafka) = Kafka::start("an old broker of Kafka", Front::default()) else { return };
    kafka.be_old(true);
    let mut sinks = start(&text(&kafka, "tables = [\"flows\"]\n"), "p1");
    sinks.send(&flows(0, 10), NOW, u64::MAX);
    failing(&sinks, "0.11");
    // It is upgraded: connections end.
    kafka.kill_front();
    kafka.be_old(false);
    kafka.run();
    all_delivered(&sinks, 10);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    assert_eq!(once(&kafka), (0..10).collect::<Vec<_>>());
}

#[test]
fn passwords_and_certificates_are_checked_and_what_is_wrong_is_said() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let asks = Front { tls: true, mechanism: Some(mechanism) };
        let Some(kafka) = Kafka::start("passwords of Kafka", asks) else { return };
        fs::write(kafka.path("wrong"), "hunter2\n").expect("a file");
        let text = text(&kafka, "tables = [\"flows\"]\n").replace("/password\"", "/wrong\"");
        let mut sinks = start(&text, "p1");
        sinks.send(&flows(0, 10), NOW, u64::MAX);
        failing(&sinks, "SASL authentication error: these are no good credentials");
        assert!(!format!("{:?}", sinks.reports()).contains("hunter2"));
        // The right one is taken without a word.
        fs::write(kafka.path("wrong"), PASSWORD).expect("a file");
        all_delivered(&sinks, 10);
        sinks.finish();
        assert_eq!(once(&kafka), (0..10).collect::<Vec<_>>(), "{mechanism}");
    }
    let asks = Front { tls: true, mechanism: None };
    let Some(kafka) = Kafka::start("certificates of Kafka", asks) else { return };
    let other = text(&kafka, "tables = [\"flows\"]\n").replace("/ca.pem", "/other.pem");
    let mut sinks = start(&other, "p1");
    sinks.send(&flows(0, 10), NOW, u64::MAX);
    failing(&sinks, "certificate verify failed");
    let ca = fs::read(kafka.path("ca.pem")).expect("a certificate");
    fs::write(kafka.path("other.pem"), ca).expect("a file");
    all_delivered(&sinks, 10);
    sinks.finish();
    fs::remove_file(kafka.path("other.pem")).expect("it was there");
    let mut sinks = start(&other, "p1");
    sinks.send(&flows(0, 10), NOW, u64::MAX);
    failing(&sinks, "other.pem");
}
