//! Brokers, passwords and certificates as a client's settings.
//!
//! In: [`KafkaCluster`]. Out: [`Settings`], and the client library's words for what failed.
//! Invariants: passwords and certificates are read when asked for and stand in no text; settings that are
//! equal make equal clients.
//! Source: librdkafka, CONFIGURATION.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use crate::config::{KafkaCluster, SaslMechanism, secret};

/// Longest wait between two attempts of the client to connect, in milliseconds.
const RECONNECT_MS_MAX: u32 = 2_000;
/// Until a topic that a broker does not know is taken for missing, in milliseconds.
const TOPIC_KNOWN_MS: u32 = 3_000;

/// What a client is made of.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// As the plan says, and as the files are now.
    ///
    /// # Errors
    /// What cannot be read, for people.
    pub(crate) fn new(cluster: &KafkaCluster, client: &str) -> Result<Self, String> {
        let brokers: Vec<_> = cluster.brokers.iter().map(|it| place(&it.host, it.port)).collect();
        let (encrypted, access) = (cluster.is_encrypted(), &cluster.access);
        let mut settings = vec![
            ("bootstrap.servers", brokers.join(",")),
            ("client.id", client.to_owned()),
            ("security.protocol", protocol(encrypted, access.user.is_some()).to_owned()),
            ("reconnect.backoff.max.ms", RECONNECT_MS_MAX.to_string()),
            ("topic.metadata.propagation.max.ms", TOPIC_KNOWN_MS.to_string()),
        ];
        if encrypted {
            let path = &access.ca_file;
            let pem = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            settings.push(("ssl.ca.pem", pem));
        }
        if let Some(user) = &access.user {
            let password = match &access.password {
                Some(place) => secret::read(place).map_err(|error| error.to_string())?,
                None => String::new(),
            };
            settings.push(("sasl.mechanism", mechanism(cluster.mechanism).to_owned()));
            settings.push(("sasl.username", user.clone()));
            settings.push(("sasl.password", password));
        }
        Ok(Self(settings))
    }

    /// For the client library.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.0 {
            config.set(*name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Notice);
        config
    }
}

fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

const fn protocol(encrypted: bool, user: bool) -> &'static str {
    match (encrypted, user) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    }
}

const fn mechanism(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::Plain => "PLAIN",
    }
}

/// What the client said last of its brokers, for people; none once they do what they should.
#[derive(Clone, Default)]
pub(crate) struct Trouble {
    last: Arc<ArcSwapOption<String>>,
    said: Arc<AtomicU64>,
}

impl Trouble {
    pub(crate) fn note(&self, what: String) {
        self.last.store(Some(Arc::new(what)));
    }

    pub(crate) fn clear(&self) {
        self.last.store(None);
    }

    pub(crate) fn last(&self) -> Option<Arc<String>> {
        self.last.load_full()
    }

    /// One more failure.
    pub(crate) fn count(&self) {
        self.said.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn counted(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }
}

/// Takes what a client says of itself.
pub(crate) struct Says(pub(crate) Trouble);

impl ClientContext for Says {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The sink says itself once that it fails, and why.
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all are down says less than why one is.
        let code = error.rdkafka_error_code();
        let all_down = code == Some(rdkafka::types::RDKafkaErrorCode::AllBrokersDown);
        self.0.count();
        if !all_down || self.0.last().is_none() {
            self.0.note(reason.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SinkAccess;

    fn settings(cluster: &KafkaCluster) -> Vec<(&'static str, String)> {
        Settings::new(cluster, "c").map(|it| it.0).expect("readable")
    }

    #[test]
    fn the_way_there_follows_from_urls_and_user() {
        let url = |text: &str| text.parse().expect("a URL");
        let mut cluster = KafkaCluster {
            brokers: vec![url("tcp://a:1"), url("tcp://[::1]:2")],
            access: SinkAccess::default(),
            mechanism: SaslMechanism::Plain,
        };
        let of = |cluster: &KafkaCluster, name| {
            settings(cluster).into_iter().find(|(it, _)| *it == name).map(|(_, value)| value)
        };
        assert_eq!(of(&cluster, "bootstrap.servers").as_deref(), Some("a:1,[::1]:2"));
        assert_eq!(of(&cluster, "security.protocol").as_deref(), Some("plaintext"));
        assert_eq!(of(&cluster, "sasl.mechanism"), None);
        cluster.access.user = Some("u".to_owned());
        assert_eq!(of(&cluster, "security.protocol").as_deref(), Some("sasl_plaintext"));
        assert_eq!(of(&cluster, "sasl.mechanism").as_deref(), Some("PLAIN"));
        cluster.brokers = vec![url("tls://a:1")];
        cluster.access.ca_file = "/nowhere/ca.pem".into();
        let error = Settings::new(&cluster, "c").err();
        assert!(error.is_some_and(|error| error.starts_with("/nowhere/ca.pem: ")));
    }
}
