//! Records at a real RabbitMQ: confirmed, of every table, and each under one id whatever happens to it.

mod extremes;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use lapin::message::{Delivery, DeliveryResult};
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value as Json;
use vmprobe::time::{monotonic_ns, sleep_ms};
use vmprobe_tests::broker::{Broker, PACKAGES, certificates};
use vmprobe_tests::end_to_end::{Folder, missing, missing_tools, run_to_end, until, vmprobe};
use vmprobe_tests::forms::{json_of, read_by_python};
use vmprobe_tests::records;
use vmprobe_tests::sinks::{
    NOW, SOON_S, alerts, all_delivered, failing, numbers, only, origin, plan_of as plan, start,
};

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
                "vmprobe.#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.expect("bound");
        });
    }

    /// How much is in the queue.
    fn count(&self) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let queue = self.channel.queue_declare("q".into(), options, FieldTable::default());
        self.runtime.block_on(queue).expect("a queue").message_count()
    }

    /// All that is in the queue.
    fn drain(&self) -> Vec<Delivery> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let count = self.count();
        self.runtime.block_on(async {
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let consumer =
                self.channel.basic_consume("q".into(), "c".into(), options, FieldTable::default());
            consumer.await.expect("a consumer").set_delegate(move |delivery: DeliveryResult| {
                let sender = sender.clone();
                async move {
                    if let Ok(Some(delivery)) = delivery {
                        let _ = sender.send(delivery);
                    }
                }
            });
            let soon = Duration::from_secs(SOON_S);
            let all = (0..count).map(|_| receiver.recv_timeout(soon).expect("a message")).collect();
            let cancelled = self.channel.basic_cancel("c".into(), BasicCancelOptions::default());
            cancelled.await.expect("cancelled");
            all
        })
    }

    /// The records of the queue by table, as Python reads them.
    fn records(&self) -> BTreeMap<String, Vec<Json>> {
        let messages = self.drain();
        let lines: Vec<u8> =
            messages.iter().flat_map(|it| [&it.data[..], b"\n"].concat()).collect();
        let mut by_table = BTreeMap::<String, Vec<Json>>::new();
        for (message, record) in messages.iter().zip(read_by_python(&lines)) {
            let table = message.properties.kind().clone().expect("a type").to_string();
            assert_eq!(message.routing_key.as_str(), format!("vmprobe.{table}"));
            by_table.entry(table).or_default().push(record);
        }
        by_table
    }
}

/// Published and confirmed at once at most (`WINDOW_MESSAGES` of the sink).
const RABBITMQ_WINDOW: usize = 1_024;
/// Records of a large batch, which takes several of these.
const BATCH: u64 = 10_000;

fn rabbitmq(broker: &Broker, rest: &str) -> String {
    format!(
        "[[sink.rabbitmq]]\nname = \"bus\"\nurl = \"amqps://127.0.0.1:{}\"\nca_file = \"{}\"\n\
         retry_max_ms = 300\ntimeout_ms = 20000\n{rest}",
        broker.tls_port,
        broker.ca_file().display()
    )
}

/// A replay with what comes seldom: the inventory's facts, taps, the ledger, alerts. As many as the store has.
fn a_replay_tells_rabbitmq_what_comes_seldom(broker: &Broker, consumer: &Consumer) {
    const TABLES: [&str; 4] = ["alerts", "inventory", "taps", "ledger"];
    let folder = Folder::new("replay-rabbitmq");
    let mut command = Command::new(vmprobe());
    command.args(["generate", "--scenario", "port-scan", "--seed", "1", "--out"]);
    command.arg(folder.path("generated"));
    run_to_end(command).expect(0, &[]);
    let sink = rabbitmq(broker, &format!("tables = {TABLES:?}\n"));
    let inventory = folder.path("generated/inventory.toml");
    let text = format!(
        "[flow]\nslots_per_worker = 16384\n[inventory]\nfile = \"{}\"\n{sink}",
        inventory.display()
    );
    let mut command = Command::new(vmprobe());
    command.args(["replay", "--json", "-c"]).arg(folder.write("vmprobe.toml", text));
    command.arg("--out").arg(folder.path("records"));
    command.arg(folder.path("generated/tap-a.pcap"));
    let report = run_to_end(command).expect(0, &[]).json();
    let sink = &report["sinks"][1];
    assert_eq!((&sink["name"], &sink["made"]), (&"bus".into(), &sink["delivered"]), "{report}");
    let found = consumer.records();
    for table in TABLES {
        let stored = records::rows(&folder.path("records"), table).len();
        // The ledger's last rows tell of this sink itself, after it has ended.
        let there = found.get(table).map_or(0, Vec::len);
        assert!(stored > 0 && there == stored, "{table}: {there} of {stored}");
    }
}

#[test]
fn rabbitmq_confirms_every_record_or_it_comes_again() {
    let Some(mut broker) = Broker::start() else {
        return missing("RabbitMQ as a sink", &["rabbitmq-server"], PACKAGES);
    };
    let alone = rabbitmq(&broker, "tables = [\"alerts\"]\nbatch_records = 100\n");
    let mut sinks = start(&plan(&alone));
    sinks.send(&alerts(0, 250), NOW, 0);
    // Neither exchange nor queue: nothing is lost while nobody wants it.
    failing(&sinks, "no exchange 'vmprobe'");
    let consumer = Consumer::new(&broker);
    consumer.make_exchange();
    failing(&sinks, "no queue is bound to exchange vmprobe for vmprobe.alerts");
    consumer.bind();
    let bound_ns = monotonic_ns();
    all_delivered(&sinks, 250);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    assert_eq!(numbers(&consumer.records()["alerts"]), (0..250).collect::<Vec<_>>());
    // Whom it does not know, and where it is not.
    let secret = broker.path("secret");
    fs::write(&secret, "wr0ng\n").expect("a file");
    let keys = format!("{alone}user = \"guest\"\npassword = \"file:{}\"\n", secret.display());
    let port = broker.tls_port.to_string();
    for (text, words) in [
        (keys, "ACCESS_REFUSED"),
        (alone.replace(&format!("{port}\""), &format!("{port}/other\"")), "vhost other not found"),
        (alone.replace("/ca.pem", "/other.pem"), "UnknownIssuer"),
    ] {
        let mut sinks = start(&plan(&text));
        sinks.send(&alerts(0, 1), NOW, 0);
        failing(&sinks, words);
        assert!(!format!("{:?}", sinks.reports()).contains("wr0ng"));
    }
    // Every field of every table.
    let tables = vmprobe::config::schema::SINK_TABLES;
    let all = rabbitmq(&broker, &format!("tables = {tables:?}\nbatch_ms = 10\n"));
    let mut sinks = start(&plan(&all));
    let rows = extremes::rows();
    sinks.send(&rows, NOW, 0);
    all_delivered(&sinks, u64::try_from(rows.len()).expect("few"));
    sinks.finish();
    let mut found = consumer.records();
    for (table, mut rows) in json_of(&rows, &origin()) {
        let found = found.get_mut(table).expect(table);
        for rows in [&mut rows, &mut *found] {
            rows.sort_by_key(Json::to_string);
        }
        assert_eq!(*found, rows, "{table}");
    }
    a_replay_tells_rabbitmq_what_comes_seldom(&broker, &consumer);
    blocked(&broker, &consumer);
    // The broker's own tables (what is bound to what) reach the disk up to 2 s later (Erlang's disk_log);
    // killed before, it would not know the binding any more.
    sleep_ms((bound_ns + 3_000_000_000).saturating_sub(monotonic_ns()) / 1_000_000);
    killed_under_load(&mut broker, consumer);
}

/// Threads of the client, one a connection.
fn connections() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.trim() == "lapin-io-loop").count()
}

/// A broker with a memory alarm: each attempt is late, and leaves nothing behind.
fn blocked(broker: &Broker, consumer: &Consumer) {
    let before = connections();
    broker.control(&["set_vm_memory_high_watermark", "0"]);
    let text = rabbitmq(broker, "tables = [\"alerts\"]\n");
    let mut sinks = start(&plan(&text.replace("timeout_ms = 20000", "timeout_ms = 500")));
    sinks.send(&alerts(0, 250), NOW, 0);
    failing(&sinks, "no answer in timeout_ms");
    for _ in 0..80 {
        // That of the attempt that is under way, and of one that ends.
        assert!(connections() <= before + 2, "{} of before, {}", before, connections());
        sleep_ms(100);
    }
    broker.control(&["set_vm_memory_high_watermark", "0.6"]);
    all_delivered(&sinks, 250);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    let gone = until(SOON_S, || (connections() == before).then_some(()));
    assert!(gone.is_some(), "{} of before, {}", before, connections());
    // What was waiting in the broker's sockets may come as well, under the same ids.
    let mut found = numbers(&consumer.records()["alerts"]);
    found.dedup();
    assert_eq!(found, (0..250).collect::<Vec<_>>());
}

/// One that takes connections and says nothing, with and without TLS.
#[test]
fn a_broker_that_says_nothing_holds_no_connection_of_an_attempt_that_is_over() {
    const ATTEMPTS: usize = 8;
    let tools = missing_tools(&["openssl"]);
    if !tools.is_empty() {
        return missing("a broker that says nothing", &tools, "openssl");
    }
    let folder = Folder::new("silent-broker");
    certificates(&folder);
    for scheme in ["amqp", "amqps"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (sender, taken) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = sender.send(stream);
            }
        });
        let text = format!(
            "[[sink.rabbitmq]]\nname = \"bus\"\nurl = \"{scheme}://127.0.0.1:{port}\"\n\
             ca_file = \"{}\"\nretry_max_ms = 100\ntimeout_ms = 200\n",
            folder.path("ca.pem").display()
        );
        let mut sinks = start(&plan(&text));
        sinks.send(&alerts(0, 10), NOW, 0);
        failing(&sinks, "no answer in timeout_ms");
        for attempt in 0..ATTEMPTS {
            let soon = Duration::from_secs(SOON_S);
            let mut stream = taken.recv_timeout(soon).expect("another attempt");
            // It ends when the attempt does.
            stream.set_read_timeout(Some(soon)).expect("a time");
            stream.read_to_end(&mut Vec::new()).expect("its end");
            assert!(connections() <= 2, "{scheme}: {} after {attempt}", connections());
        }
        drop(sinks);
        let gone = until(SOON_S, || (connections() == 0).then_some(()));
        assert!(gone.is_some(), "{scheme}: {}", connections());
    }
}

/// One of another protocol answers with the header of that (AMQP 1.0 §2.2), and closes.
#[test]
fn a_broker_of_another_protocol_is_told_and_records_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 8]);
            let _ = stream.write_all(b"AMQP\x00\x01\x00\x00");
        }
    });
    let text = format!(
        "[[sink.rabbitmq]]\nname = \"bus\"\nurl = \"amqp://127.0.0.1:{port}\"\nretry_max_ms = 300\n\
         timeout_ms = 2000\n"
    );
    let mut sinks = start(&plan(&text));
    sinks.send(&alerts(0, 10), NOW, 0);
    failing(&sinks, "the server only supports AMQP 1.0.0");
    let report = only(sinks.reports());
    assert_eq!((report.ledger.queued, report.ledger.dropped_sum()), (10, 0));
}

/// Each record is there under one id; what was published again after the kill has that same id and octets, and
/// is no more than was waited for then.
fn killed_under_load(broker: &mut Broker, consumer: Consumer) {
    const SENT: u64 = 2 * BATCH;
    let text = rabbitmq(broker, &format!("tables = [\"alerts\"]\nbatch_records = {BATCH}\n"));
    let mut sinks = start(&plan(&text));
    sinks.send(&alerts(0, SENT), NOW, 0);
    // In the middle of the second batch.
    let middle = u32::try_from(BATCH + BATCH / 4).expect("few");
    let some = until(SOON_S, || (consumer.count() > middle).then_some(()));
    assert!(some.is_some(), "{:?}", sinks.reports());
    broker.kill();
    drop(consumer);
    let delivered = only(sinks.reports()).ledger.delivered;
    assert!(delivered < SENT, "it was killed under load");
    failing(&sinks, "127.0.0.1");
    broker.run();
    all_delivered(&sinks, SENT);
    assert_eq!(only(sinks.finish()).ledger.dropped_sum(), 0);
    let messages = Consumer::new(broker).drain();
    let mut by_id = BTreeMap::new();
    for message in &messages {
        let id = message.properties.message_id().clone().expect("an id").to_string();
        let before = by_id.insert(id, &message.data);
        assert!(before.is_none_or(|before| *before == message.data), "one id, one record");
    }
    let lines: Vec<u8> = by_id.values().flat_map(|data| [&data[..], b"\n"].concat()).collect();
    assert_eq!(numbers(&read_by_python(&lines)), (0..SENT).collect::<Vec<_>>());
    let doubled = messages.len() - by_id.len();
    assert!(doubled <= RABBITMQ_WINDOW, "{doubled} came twice");
    eprintln!("RabbitMQ killed after {delivered} of {SENT}: {doubled} came twice");
}
