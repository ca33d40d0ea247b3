//! Where records go beside the store.
//!
//! In: `[[sink]]`. Out: [`SinkPlan`].
//! Invariants: a plan holds no secret, only where one is found; so it may be shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;

use super::openstack::BrokerUrl;

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
    /// Longest time of one attempt, in milliseconds.
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

/// `http://` or `https://`, a host, and what follows; without user and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Inside TLS.
    pub tls: bool,
    /// Host.
    pub host: String,
    text: String,
}

/// `tcp://HOST:PORT` or `tls://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUrl {
    /// Inside TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A text that is no URL of the wanted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is wanted")]
pub struct NotUrl(pub(crate) &'static str);

const HTTP: NotUrl = NotUrl("http://HOST:PORT/PATH or https://HOST:PORT/PATH");
const SECRET: NotUrl = NotUrl("file:PATH or env:VARIABLE");
const STREAM: NotUrl = NotUrl("tcp://HOST:PORT or tls://HOST:PORT");

/// Host and port; the port may be missing.
pub(super) fn host_and_port(place: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(place) => place.split_once(']')?,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:".contains(&octet);
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    match port.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port > 0)?))),
        None => port.is_empty().then_some((host, None)),
    }
}

impl FromStr for HttpUrl {
    type Err = NotUrl;

    fn from_str(text: &str) -> Result<Self, NotUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(HTTP)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(HTTP),
        };
        let place = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, _) = host_and_port(place).ok_or(HTTP)?;
        if rest.contains('#') || !rest.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(HTTP);
        }
        Ok(Self { tls, host: host.to_owned(), text: text.to_owned() })
    }
}

impl HttpUrl {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for HttpUrl {
    /// Without what stands behind a question mark: some put tokens there.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text.split('?').next().unwrap_or_default())
    }
}

impl FromStr for StreamUrl {
    type Err = NotUrl;

    fn from_str(text: &str) -> Result<Self, NotUrl> {
        let (scheme, place) = text.split_once("://").ok_or(STREAM)?;
        let tls = match scheme {
            "tcp" => false,
            "tls" => true,
            _ => return Err(STREAM),
        };
        match host_and_port(place) {
            Some((host, Some(port))) => Ok(Self { tls, host: host.to_owned(), port }),
            _ => Err(STREAM),
        }
    }
}

impl fmt::Display for StreamUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "tcp" };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(out, "{scheme}://[{host}]:{port}")
        } else {
            write!(out, "{scheme}://{host}:{port}")
        }
    }
}

impl SinkPlan {
    /// What is not given otherwise.
    pub fn new(name: String, kind: SinkKind) -> Self {
        let (tables, batch_records): (&[&str], u32) = match &kind {
            SinkKind::Clickhouse(_) => (super::super::schema::SINK_TABLES, 20_000),
            SinkKind::Kafka(_) => (super::super::schema::SINK_TABLES, 5_000),
            SinkKind::Eve(_) | SinkKind::Rabbitmq(_) => (&["flows", "alerts"], 1_000),
            SinkKind::Webhook(_) | SinkKind::Syslog(_) => (&["alerts"], 100),
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
            | SinkKind::Webhook(WebhookPlan { url, .. }) => Some((url.tls, &url.host)),
            SinkKind::Syslog(plan) => Some((plan.url.tls, &plan.url.host)),
            SinkKind::Rabbitmq(plan) => Some((plan.url.tls, &plan.url.host)),
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
    fn urls_of_http() {
        let url: HttpUrl = "https://a.example:8443/x?token=1".parse().expect("a URL");
        assert!(url.tls && url.host == "a.example");
        assert_eq!(url.to_string(), "https://a.example:8443/x", "no token is shown");
        assert_eq!(url.as_str(), "https://a.example:8443/x?token=1");
        assert!("http://[::1]:8123".parse::<HttpUrl>().is_ok());
        for text in [
            "",
            "a",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a:0",
            "http://a b",
            "http://a#b",
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(HTTP), "{text}");
        }
    }

    #[test]
    fn places_of_secrets() {
        assert_eq!("env:A_1".parse(), Ok(SecretPlace::Variable("A_1".to_owned())));
        let file: SecretPlace = "file:a".parse().expect("a place");
        assert_eq!(file.below(Path::new("/b")), SecretPlace::File("/b/a".into()));
        for text in ["", "hunter2", "file:", "env:", "env:a b", "pass:x"] {
            assert_eq!(text.parse::<SecretPlace>(), Err(SECRET), "{text}");
        }
    }

    #[test]
    fn urls_of_streams_read_back() {
        for text in ["tcp://127.0.0.1:514", "tls://[2001:db8::1]:6514", "tcp://log.example:514"] {
            let url = text.parse::<StreamUrl>().map(|url| url.to_string());
            assert_eq!(url.as_deref(), Ok(text));
        }
        for text in ["", "udp://a:1", "tcp://a", "tcp://a:0", "tcp://a:1/b", "tcp://u@a:1"] {
            assert_eq!(text.parse::<StreamUrl>(), Err(STREAM), "{text}");
        }
    }
}
