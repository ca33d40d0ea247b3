//! Where records go beside the store.
//!
//! In: `[[sink]]`. Out: [`SinkPlan`].
//! Invariants: a plan holds no secret, only where one is found; so it may be shown.

mod url;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;

use super::openstack::BrokerUrl;
use url::SECRET;
pub(super) use url::host_and_port;
pub(crate) use url::without_path;
pub use url::{CollectorUrl, HttpUrl, NotUrl, StreamUrl, Transport};

/// One destination of records.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkPlan {
    /// Name, unique.
    pub name: String,
    /// What is there.
    pub kind: SinkKind,
    /// Names of the tables whose records go there.
    pub tables: Vec<String>,
    /// Which of their records.
    pub filter: SinkFilter,
    /// Records of a batch at most.
    pub batch_records: u32,
    /// Age of a batch at most, in milliseconds.
    pub batch_ms: u32,
    /// Batches in memory at most, in MiB.
    pub queue_mib: u32,
    /// Longest time of one attempt, in milliseconds; at RabbitMQ of the broker's silence in it.
    pub timeout_ms: u32,
    /// Longest wait between two attempts, in milliseconds.
    pub retry_max_ms: u32,
    /// Folder for what finds no room in memory.
    pub spool_folder: Option<PathBuf>,
    /// Size of the spool at most, in MiB.
    pub spool_mib: u32,
}

/// Which records of its tables a sink takes. What a table does not have, it is not asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SinkFilter {
    /// Tenant of either end; empty: all.
    pub tenants: Vec<String>,
    /// Classes of traffic; empty: all.
    pub traffic_classes: Vec<String>,
    /// Networks of either address; empty: all.
    pub networks: Vec<IpNet>,
    /// Least severity.
    pub severity_min: Option<String>,
}

/// How the probe shows who it is, and how it knows the destination.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkAccess {
    /// User.
    pub user: Option<String>,
    /// Where the user's password is.
    pub password: Option<SecretPlace>,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
}

impl Default for SinkAccess {
    fn default() -> Self {
        let ca_file = "/etc/ssl/certs/ca-certificates.crt".into();
        Self { user: None, password: None, ca_file }
    }
}

/// Where a secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// It is the first line of this file.
    File(PathBuf),
    /// It is this variable of the environment.
    Variable(String),
}

impl SecretPlace {
    /// With a relative path beginning at `base`.
    #[must_use]
    pub(crate) fn below(self, base: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(base.join(path)),
            Self::Variable(_) => self,
        }
    }
}

impl std::fmt::Display for SecretPlace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(out, "file:{}", path.display()),
            Self::Variable(name) => write!(out, "env:{name}"),
        }
    }
}

impl FromStr for SecretPlace {
    type Err = NotUrl;

    fn from_str(text: &str) -> Result<Self, NotUrl> {
        let name = |name: &str| {
            (1..=255).contains(&name.len())
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
        };
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("env", variable)) if name(variable) => Ok(Self::Variable(variable.to_owned())),
            _ => Err(SECRET),
        }
    }
}

/// What is at the other end.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// ClickHouse by HTTP.
    Clickhouse(ClickhousePlan),
    /// Signed requests.
    Webhook(WebhookPlan),
    /// RFC 5424 over TCP.
    Syslog(SyslogPlan),
    /// Lines with Suricata's names.
    Eve(EvePlan),
    /// RabbitMQ.
    Rabbitmq(RabbitmqPlan),
    /// A collector of IPFIX.
    Ipfix(IpfixPlan),
    /// Elasticsearch, or what speaks its `_bulk`.
    Elastic(ElasticPlan),
    /// Splunk's HTTP Event Collector.
    Splunk(SplunkPlan),
    /// Kafka.
    Kafka(KafkaPlan),
}

impl SinkKind {
    /// The word in the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Clickhouse(_) => "clickhouse",
            Self::Webhook(_) => "webhook",
            Self::Syslog(_) => "syslog",
            Self::Eve(_) => "eve",
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Ipfix(_) => "ipfix",
            Self::Elastic(_) => "elastic",
            Self::Splunk(_) => "splunk",
            Self::Kafka(_) => "kafka",
        }
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self {
            Self::Clickhouse(plan) => format!("{} database {}", plan.url, plan.database),
            Self::Webhook(plan) => plan.url.to_string(),
            Self::Syslog(plan) => plan.url.to_string(),
            Self::Eve(plan) => plan.path.display().to_string(),
            Self::Rabbitmq(plan) => format!("{} exchange {}", plan.url, plan.exchange),
            Self::Ipfix(plan) => plan.url.to_string(),
            Self::Elastic(plan) => format!("{} indices {}-*", plan.url, plan.index),
            Self::Splunk(plan) => plan.url.to_string(),
            Self::Kafka(plan) => format!("{} topics {}*", plan.cluster, plan.topic_prefix),
        }
    }
}

/// A ClickHouse.
#[derive(Clone, Debug, PartialEq)]
pub struct ClickhousePlan {
    /// Its HTTP interface.
    pub url: HttpUrl,
    /// Who the probe is there.
    pub access: SinkAccess,
    /// Database.
    pub database: String,
    /// Cluster whose servers share the records.
    pub cluster: Option<String>,
    /// Replicated tables.
    pub replicated: bool,
    /// Days that records are kept; 0: for ever.
    pub ttl_days: u32,
    /// Days that roll-ups are kept; 0: for ever.
    pub rollup_ttl_days: u32,
}

/// A receiver of signed requests.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookPlan {
    /// Where they go.
    pub url: HttpUrl,
    /// Where the key of the signature is.
    pub secret: SecretPlace,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
}

/// A syslog receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct SyslogPlan {
    /// Where it listens.
    pub url: StreamUrl,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
    /// What a message says.
    pub format: SyslogFormat,
}

/// What a syslog message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyslogFormat {
    /// The record as JSON.
    #[default]
    Json,
    /// ArcSight's Common Event Format.
    Cef,
}

/// Where EVE lines go.
#[derive(Clone, Debug, PartialEq)]
pub struct EvePlan {
    /// File or socket.
    pub path: PathBuf,
    /// It is a UNIX stream socket that somebody listens on.
    pub socket: bool,
}

/// A RabbitMQ.
#[derive(Clone, Debug, PartialEq)]
pub struct RabbitmqPlan {
    /// Where it listens.
    pub url: BrokerUrl,
    /// Who the probe is there.
    pub access: SinkAccess,
    /// Topic exchange.
    pub exchange: String,
}

/// Brokers of Kafka, and how to talk to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KafkaCluster {
    /// Those that are asked first; all with TLS or all without.
    pub brokers: Vec<StreamUrl>,
    /// Who the probe is there.
    pub access: SinkAccess,
    /// How the password is shown.
    pub mechanism: SaslMechanism,
}

impl KafkaCluster {
    /// Whether the way there is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.brokers.iter().all(|broker| broker.tls)
    }
}

impl KafkaCluster {
    /// As of a sink: the broker that is furthest away.
    pub(crate) fn endpoint(&self) -> Option<(bool, &str)> {
        let is_local = |broker: &&StreamUrl| is_local(&broker.host);
        let far = self.brokers.iter().find(|broker| !is_local(broker));
        far.or(self.brokers.first()).map(|broker| (self.is_encrypted(), broker.host.as_str()))
    }
}

/// Whether a host is this machine itself.
pub(crate) fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

impl fmt::Display for KafkaCluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, broker) in self.brokers.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(out, "{comma}{broker}")?;
        }
        Ok(())
    }
}

/// How a password is shown to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaslMechanism {
    /// RFC 5802 with SHA-512.
    #[default]
    ScramSha512,
    /// The same with SHA-256.
    ScramSha256,
    /// As it is, RFC 4616.
    Plain,
}

/// Topics of Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaPlan {
    /// Where they are.
    pub cluster: KafkaCluster,
    /// What stands before a table's name.
    pub topic_prefix: String,
    /// What a message says.
    pub format: KafkaFormat,
    /// How messages are compressed.
    pub compression: KafkaCompression,
}

impl KafkaPlan {
    /// What is not given otherwise.
    pub fn new(cluster: KafkaCluster) -> Self {
        Self {
            cluster,
            topic_prefix: "vmprobe.".to_owned(),
            format: KafkaFormat::default(),
            compression: KafkaCompression::default(),
        }
    }
}

/// What a message of Kafka says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaFormat {
    /// The record as JSON.
    #[default]
    Json,
    /// The record by `vmprobe.proto`.
    Protobuf,
}

/// How messages are compressed on their way to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaCompression {
    /// Not at all.
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    #[default]
    Zstd,
}

/// An Elasticsearch.
#[derive(Clone, Debug, PartialEq)]
pub struct ElasticPlan {
    /// Its HTTP interface.
    pub url: HttpUrl,
    /// Who the probe is there.
    pub access: SinkAccess,
    /// Where an API key is, instead of user and password.
    pub api_key: Option<SecretPlace>,
    /// Beginning of the names of indices or data streams; `-TABLE` follows.
    pub index: String,
}

/// A Splunk.
#[derive(Clone, Debug, PartialEq)]
pub struct SplunkPlan {
    /// Its HTTP Event Collector.
    pub url: HttpUrl,
    /// Where the token is.
    pub token: SecretPlace,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
    /// Index; `None`: the token's own.
    pub index: Option<String>,
    /// A batch counts as delivered when it is indexed.
    pub acknowledge: bool,
}

/// A collector of IPFIX.
#[derive(Clone, Debug, PartialEq)]
pub struct IpfixPlan {
    /// Where it listens.
    pub url: CollectorUrl,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
    /// Private enterprise number that the probe's own elements stand under.
    pub enterprise_number: u32,
    /// Observation Domain; `None`: derived from the probe's id.
    pub observation_domain_id: Option<u32>,
    /// Templates are sent again after this time, by UDP, in seconds.
    pub template_refresh_s: u32,
    /// And after so many messages.
    pub template_refresh_messages: u32,
    /// Octets of a message at most, its header included.
    pub message_octets_max: u32,
}

impl IpfixPlan {
    /// What is not given otherwise.
    pub fn new(url: CollectorUrl) -> Self {
        Self {
            url,
            ca_file: SinkAccess::default().ca_file,
            // RFC 5612: for documentation.
            enterprise_number: 32_473,
            observation_domain_id: None,
            template_refresh_s: 60,
            template_refresh_messages: 1_000,
            message_octets_max: 1_420,
        }
    }
}

impl SinkPlan {
    /// What is not given otherwise.
    pub fn new(name: String, kind: SinkKind) -> Self {
        let (tables, batch_records): (&[&str], u32) = match &kind {
            SinkKind::Clickhouse(_) => (super::super::schema::SINK_TABLES, 100_000),
            SinkKind::Kafka(_) => (super::super::schema::SINK_TABLES, 5_000),
            SinkKind::Eve(_) => (&["flows", "alerts", "apps"], 1_000),
            SinkKind::Rabbitmq(_) | SinkKind::Elastic(_) | SinkKind::Splunk(_) => {
                (&["flows", "alerts"], 1_000)
            }
            SinkKind::Webhook(_) | SinkKind::Syslog(_) => (&["alerts"], 100),
            SinkKind::Ipfix(_) => (&["flows", "taps"], 1_000),
        };
        Self {
            name,
            kind,
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
            filter: SinkFilter::default(),
            batch_records,
            batch_ms: 1_000,
            queue_mib: 64,
            timeout_ms: 10_000,
            retry_max_ms: 30_000,
            spool_folder: None,
            spool_mib: 1_024,
        }
    }
}

impl SinkPlan {
    /// Whether the way there is encrypted, and the host at its end; `None` where there is no way.
    pub(crate) fn endpoint(&self) -> Option<(bool, &str)> {
        match &self.kind {
            SinkKind::Clickhouse(ClickhousePlan { url, .. })
            | SinkKind::Webhook(WebhookPlan { url, .. })
            | SinkKind::Elastic(ElasticPlan { url, .. })
            | SinkKind::Splunk(SplunkPlan { url, .. }) => Some((url.tls, &url.host)),
            SinkKind::Syslog(plan) => Some((plan.url.tls, &plan.url.host)),
            SinkKind::Rabbitmq(plan) => Some((plan.url.tls, &plan.url.host)),
            SinkKind::Ipfix(plan) => Some((plan.url.place.tls, &plan.url.place.host)),
            SinkKind::Kafka(plan) => plan.cluster.endpoint(),
            SinkKind::Eve(_) => None,
        }
    }
}

impl ClickhousePlan {
    /// What is not given otherwise.
    pub fn new(url: HttpUrl) -> Self {
        Self {
            url,
            access: SinkAccess::default(),
            database: "vmprobe".to_owned(),
            cluster: None,
            replicated: false,
            ttl_days: 30,
            rollup_ttl_days: 400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_secrets() {
        assert_eq!("env:A_1".parse(), Ok(SecretPlace::Variable("A_1".to_owned())));
        let file: SecretPlace = "file:a".parse().expect("a place");
        assert_eq!(file.below(Path::new("/b")), SecretPlace::File("/b/a".into()));
        for text in ["", "hunter2", "file:", "env:", "env:a b", "pass:x"] {
            assert_eq!(text.parse::<SecretPlace>(), Err(SECRET), "{text}");
        }
    }
}
