//! A broker of the Kafka protocol of its own for a test: started, killed, started again; taken down when it
//! is dropped.
//!
//! In: nothing. Out: a [`Kafka`] on loopback ports of its own, reached through a front that can do TLS and
//! SASL, and lose answers.
//! Invariants: its topics are in memory, so they end with it; those of a front do not.
//! Source: the broker is tansu, put in place by scripts/fetch-kafka; `front.py` says what the front does.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::certificates;
use crate::end_to_end::{missing_tools, until};
use crate::folder::Folder;
use crate::ports::free_ports;
use crate::skips::{missing, skipped};

/// How long it may take to start, on a machine that is busy with other tests.
const START_S: u64 = 60;
/// How long a consumer waits for something that is there.
const READ_S: u64 = 30;
/// The user that a front knows, with [`PASSWORD`].
pub const USER: &str = "probe";
/// Its password.
pub const PASSWORD: &str = "s3cret&%";
/// What a front stands on.
const FRONT: &str = include_str!("front.py");

/// What a front asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Front {
    /// TLS.
    pub tls: bool,
    /// How passwords are shown, as SASL names it.
    pub mechanism: Option<&'static str>,
}

/// A broker behind a front.
pub struct Kafka {
    folder: Folder,
    /// Port of the front.
    pub port: u16,
    broker_port: u16,
    asks: Front,
    broker: Option<Child>,
    front: Option<Child>,
}

/// A message as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
    /// The header `id`.
    pub id: String,
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/kafka/tansu")
}

impl Kafka {
    /// One that does not run yet; `None`, which is said, where it is not there.
    pub fn new(test: &str, asks: Front) -> Option<Self> {
        if !program().is_file() {
            skipped(test, "not installed: tansu (scripts/fetch-kafka)");
            return None;
        }
        let tools = missing_tools(&["python3", "openssl"]);
        if !tools.is_empty() {
            missing(test, &tools, "python3 openssl");
            return None;
        }
        let folder = Folder::new("kafka");
        certificates(&folder);
        folder.write("user", format!("{USER}\n"));
        folder.write("password", format!("{PASSWORD}\n"));
        folder.write("front.py", FRONT);
        let [port, broker_port] = free_ports();
        Some(Self { folder, port, broker_port, asks, broker: None, front: None })
    }

    /// The same, started.
    pub fn start(test: &str, asks: Front) -> Option<Self> {
        let mut kafka = Self::new(test, asks)?;
        kafka.run();
        Some(kafka)
    }

    /// Starts broker and front, those that do not run; the broker without topics.
    pub fn run(&mut self) {
        if self.broker.is_none() {
            let mut command = Command::new(program());
            command.arg("--listener-url").arg(format!("tcp://127.0.0.1:{}", self.broker_port));
            command.arg("--advertised-listener-url").arg(format!("tcp://127.0.0.1:{}", self.port));
            command.args(["--storage-engine", "memory://tansu/"]);
            self.broker = Some(self.spawn(command, self.broker_port));
        }
        if self.front.is_none() {
            let mut command = Command::new("python3");
            command.arg(self.path("front.py")).arg(self.port.to_string());
            command.arg(self.broker_port.to_string()).arg(self.folder.root());
            command.args(self.asks.tls.then_some("tls")).args(self.asks.mechanism);
            self.front = Some(self.spawn(command, self.port));
        }
    }

    fn spawn(&self, mut command: Command, port: u16) -> Child {
        let said = fs::File::create(self.path(&format!("said-{port}"))).expect("a file");
        let also = said.try_clone().expect("a file");
        command.stdin(Stdio::null()).stdout(said).stderr(also);
        let child = command.spawn().expect("it starts");
        let up = until(START_S, || TcpStream::connect(("127.0.0.1", port)).ok());
        assert!(up.is_some(), "{command:?} does not listen");
        child
    }

    /// Kills the broker without warning, and with it all that it had.
    pub fn kill(&mut self) {
        end(&mut self.broker);
    }

    /// Kills the front without warning: all connections end at once, with what was on its way.
    pub fn kill_front(&mut self) {
        end(&mut self.front);
    }

    /// Whether every third answer to a producer is lost.
    pub fn lose_answers(&self, lose: bool) {
        if lose {
            self.folder.write("cut", "");
        } else {
            let _ = fs::remove_file(self.path("cut"));
        }
    }

    /// Whether it says that it is a broker of version 0.10.
    pub fn be_old(&self, old: bool) {
        if old {
            self.folder.write("old", "");
        } else {
            let _ = fs::remove_file(self.path("old"));
        }
    }

    /// How many were lost.
    pub fn lost_answers(&self) -> u64 {
        let text = fs::read_to_string(self.path("lost")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// A path in its folder: `ca.pem`, `other.pem` (another authority), `password`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// The keys of a configuration that lead there.
    pub fn keys(&self) -> String {
        let scheme = if self.asks.tls { "tls" } else { "tcp" };
        let mut keys = format!("brokers = [\"{scheme}://127.0.0.1:{}\"]\n", self.port);
        if self.asks.tls {
            keys += &format!("ca_file = \"{}\"\n", self.path("ca.pem").display());
        }
        if let Some(mechanism) = self.asks.mechanism {
            let (mechanism, file) = (mechanism.to_lowercase(), self.path("password"));
            keys += &format!(
                "user = \"{USER}\"\npassword = \"file:{}\"\nmechanism = \"{mechanism}\"\n",
                file.display()
            );
        }
        keys
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port));
        let protocol = match (self.asks.tls, self.asks.mechanism.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        config.set("ssl.ca.location", self.path("ca.pem").display().to_string());
        if let Some(mechanism) = self.asks.mechanism {
            config.set("sasl.mechanism", mechanism);
            config.set("sasl.username", USER).set("sasl.password", PASSWORD);
        }
        config.set("group.id", "reader").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true");
        // At the end of a topic the broker waits so long for more.
        config.set("fetch.wait.max.ms", "10");
        config
    }

    /// Makes a topic with so many partitions, which nobody has made yet.
    pub fn make_topic(&self, topic: &str, partitions: u32) {
        let output = self.create_topic(topic, partitions);
        assert!(output.status.success(), "{output:?}");
    }

    /// Makes a topic where its producers have not: the broker makes one for them as soon as they ask for it.
    pub fn have_topic(&self, topic: &str) {
        let output = self.create_topic(topic, 1);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() || said.contains("already exists"), "{output:?}");
    }

    fn create_topic(&self, topic: &str, partitions: u32) -> Output {
        let broker = format!("tcp://127.0.0.1:{}", self.broker_port);
        let mut command = Command::new(program());
        command.args(["topic", "create", "--broker", &broker]);
        command.args(["--partitions", &partitions.to_string(), topic]);
        command.output().expect("it runs")
    }

    /// Whether a topic of one partition has had a message.
    pub fn has_any(&self, topic: &str) -> bool {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let wait = Duration::from_secs(READ_S);
        consumer.fetch_watermarks(topic, 0, wait).expect("watermarks").1 > 0
    }

    /// All that is in a topic, partition by partition.
    pub fn read(&self, topic: &str) -> Vec<Found> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let wait = Duration::from_secs(READ_S);
        let metadata = consumer.fetch_metadata(Some(topic), wait).expect("metadata");
        let partitions: Vec<i32> =
            metadata.topics()[0].partitions().iter().map(MetadataPartition::id).collect();
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(topic, *partition, Offset::Beginning).expect("a place");
        }
        consumer.assign(&list).expect("assigned");
        let (mut found, mut ends) = (Vec::new(), BTreeSet::new());
        // The broker's answers to questions for the end are wrong; those to reading are not.
        while ends.len() < partitions.len() {
            let message = match consumer.poll(wait).expect("messages or an end") {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(partition)) => {
                    ends.insert(partition);
                    continue;
                }
                Err(error) => panic!("{topic}: {error}"),
            };
            let header = message.headers().and_then(|headers| {
                let header = headers.iter().find(|header| header.key == "id")?;
                String::from_utf8(header.value?.to_vec()).ok()
            });
            found.push(Found {
                partition: message.partition(),
                key: message.key().unwrap_or_default().to_vec(),
                value: message.payload().unwrap_or_default().to_vec(),
                id: header.unwrap_or_default(),
            });
        }
        found.sort_by_key(|message| message.partition);
        found
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill_front();
        self.kill();
    }
}
