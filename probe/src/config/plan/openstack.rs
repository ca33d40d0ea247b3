//! One OpenStack cloud whose notifications are listened to.
//!
//! In: `[[inventory.openstack]]`. Out: [`OpenstackPlan`] with the [`BrokerUrl`]s to connect to.
//! Invariants: no text that is made of a plan shows a password.
//! Source: RabbitMQ, "URI Specification"; ports 5672 and 5671 as IANA has assigned them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::CloudApiPlan;

/// Port of AMQP.
const PORT: u16 = 5_672;
/// Port of AMQP inside TLS.
const TLS_PORT: u16 = 5_671;
/// Longest host name, and virtual host, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Inside TLS (`amqps`).
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Virtual host.
    pub vhost: String,
}

/// A text that names no broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("amqp://HOST:PORT/VHOST or amqps://HOST:PORT/VHOST is wanted")]
pub struct NotBroker;

impl FromStr for BrokerUrl {
    type Err = NotBroker;

    /// Reads the URL. Without a path, and with `/` alone, the virtual host is `/`. User and password
    /// have keys of their own.
    fn from_str(text: &str) -> Result<Self, NotBroker> {
        let (scheme, rest) = text.split_once("://").ok_or(NotBroker)?;
        let tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(NotBroker),
        };
        let (place, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match place.strip_prefix('[') {
            Some(place) => place.split_once(']').ok_or(NotBroker)?,
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(NotBroker)?,
            None if port.is_empty() => {
                if tls {
                    TLS_PORT
                } else {
                    PORT
                }
            }
            None => return Err(NotBroker),
        };
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:".contains(&octet);
        let named = (1..=NAME_BYTES_MAX).contains(&host.len()) && host.bytes().all(plain);
        let vhost = percent_decoded(vhost).ok_or(NotBroker)?;
        if !named || vhost.len() > NAME_BYTES_MAX || vhost.contains(char::is_control) {
            return Err(NotBroker);
        }
        let vhost = if vhost.is_empty() { "/".to_owned() } else { vhost };
        Ok(Self { tls, host: host.to_owned(), port, vhost })
    }
}

/// `None` where a `%` is not followed by two hexadecimal digits, or what comes out is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'%' => {
                let digits = [octets.next()?, octets.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
            }
            b'/' | b'?' | b'#' => return None,
            _ => out.push(octet),
        }
    }
    String::from_utf8(out).ok()
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let Self { host, port, vhost, .. } = self;
        if host.contains(':') {
            write!(out, "{scheme}://[{host}]:{port}")?;
        } else {
            write!(out, "{scheme}://{host}:{port}")?;
        }
        if vhost == "/" {
            Ok(())
        } else {
            write!(out, "/{}", vhost.replace('%', "%25").replace('/', "%2f"))
        }
    }
}

/// A password, which no debug output shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

/// One cloud.
#[derive(Clone, Debug)]
pub struct OpenstackPlan {
    /// Name, unique among these.
    pub name: String,
    /// Brokers of its message bus; the next one is tried where one fails.
    pub urls: Vec<BrokerUrl>,
    /// User at the broker.
    pub user: String,
    /// Password, if it stands in the configuration.
    pub password: Option<Secret>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
    /// Exchanges that services publish to.
    pub exchanges: Vec<String>,
    /// Topics of notifications, each a routing key with its priority.
    pub topics: Vec<String>,
    /// Name of the probe's queue.
    pub queue: String,
    /// Notifications that the queue keeps at most while the probe is away.
    pub queue_messages_max: u32,
    /// How long the broker keeps the queue while the probe is away.
    pub queue_expires_s: u32,
    /// Notifications under way to the probe at most.
    pub prefetch: u16,
    /// Largest notification that is read.
    pub message_bytes_max: u32,
    /// Heartbeat of the connection.
    pub heartbeat_s: u16,
    /// Longest time to connect.
    pub timeout_ms: u32,
    /// Longest wait between two tries to connect.
    pub retry_max_ms: u32,
    /// Shown as stale after so long a silence.
    pub stale_after_ms: u32,
    /// Domain of the cloud's segments (place in [`super::Plan::domains`]).
    pub domain: u8,
    /// Domains of physical networks that are not of that one.
    pub physical_domains: Vec<(String, u8)>,
    /// Tenants are called by the id of their project.
    pub tenant_ids: bool,
    /// APIs that list what is there.
    pub api: CloudApiPlan,
}

impl OpenstackPlan {
    /// What is not given otherwise.
    pub fn new(name: String, urls: Vec<BrokerUrl>) -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            queue: format!("vmprobe-{name}"),
            name,
            urls,
            user: "guest".to_owned(),
            password: None,
            password_file: None,
            ca_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            exchanges: texts(&["nova", "neutron", "openstack"]),
            topics: texts(&["notifications.info", "versioned_notifications.info"]),
            queue_messages_max: 100_000,
            queue_expires_s: 86_400,
            prefetch: 256,
            message_bytes_max: 1 << 20,
            heartbeat_s: 20,
            timeout_ms: 10_000,
            retry_max_ms: 30_000,
            stale_after_ms: 60_000,
            domain: 0,
            physical_domains: Vec::new(),
            tenant_ids: false,
            api: CloudApiPlan::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_back() {
        for text in [
            "amqp://127.0.0.1:5672",
            "amqps://[2001:db8::1]:15671",
            "amqp://rabbit-1.example:5672/nova",
            "amqp://h:5672/a%2fb%25",
        ] {
            let url: Result<BrokerUrl, _> = text.parse();
            assert_eq!(url.map(|url| url.to_string()).as_deref(), Ok(text));
        }
        let ports = ["amqp://h", "amqps://h/"].map(str::parse::<BrokerUrl>);
        let read = ports.map(|url| url.map(|url| (url.port, url.vhost)));
        assert_eq!(read, [Ok((PORT, "/".to_owned())), Ok((TLS_PORT, "/".to_owned()))]);
    }

    #[test]
    fn other_texts_name_no_broker() {
        for text in [
            "",
            "h",
            "http://h",
            "rabbit://h",
            "amqp://",
            "amqp://:1",
            "amqp://h:0",
            "amqp://h:99999",
            "amqp://user:pw@h",
            "amqp://[::1",
            "amqp://[::1]1",
            "amqp://h/a/b",
            "amqp://h/%2",
            "amqp://h/%zz",
            "amqp://h/%ff",
            "amqp://h/a?heartbeat=1",
        ] {
            assert_eq!(text.parse::<BrokerUrl>(), Err(NotBroker), "{text}");
        }
    }

    #[test]
    fn a_plan_does_not_show_its_password() {
        let mut plan = OpenstackPlan::new("a".to_owned(), Vec::new());
        plan.password = Some(Secret("hunter2".to_owned()));
        assert!(!format!("{plan:?}").contains("hunter2"));
    }
}
