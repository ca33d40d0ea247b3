//! What a key may hold.
//!
//! In: a TOML value. Out: why it is not allowed, and what is.
//! Invariants: what [`Kind::accepts`] lets through, [`super::Section`] can read.
//! Source: RFC 3339 (times), RFC 9562 section 4 (text of a UUID).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use toml::de::{DeInteger, DeValue};

use super::table::Table;
use crate::config::{
    BrokerUrl, CollectorUrl, HttpUrl, OvsdbRemote, SecretPlace, ServiceUrl, StreamUrl, device,
    without_path,
};
use crate::inventory::{Mac, Uuid};
use crate::time::Timestamp;

/// Type and range of a key's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number from `min` to `max`.
    Integer {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A power of two from `min` to `max`.
    PowerOfTwo {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A number between two bounds, neither of them included.
    Number {
        /// Lower bound.
        above: f64,
        /// Upper bound.
        below: f64,
    },
    /// 1 to 63 letters, digits, `-`, `_` or `.`.
    Name,
    /// 1 to 255 characters, none of them a control character.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A path of the file system.
    Path,
    /// A DPDK device.
    Device,
    /// A broker of an OpenStack cloud.
    Broker,
    /// Where a service is reached by HTTP.
    Service,
    /// A database server of an Open vSwitch.
    Ovsdb,
    /// An HTTP server.
    Http,
    /// A TCP server.
    Stream,
    /// A collector of IPFIX.
    Collector,
    /// Where a secret is.
    Secret,
    /// An IP address.
    Address,
    /// An IP network.
    Network,
    /// Where to listen: a loopback address and a port.
    Listen,
    /// `domain/kind/id`; whether the domain exists is checked with the list of domains.
    Segment,
    /// A UUID.
    Uuid,
    /// A MAC address.
    Mac,
    /// An instant: RFC 3339 with offset, or nanoseconds since the epoch.
    Time,
    /// An array of at most so many values of one kind.
    List(&'static Kind, usize),
    /// A table.
    Table(&'static Table),
    /// An array of at most so many tables.
    Tables(&'static Table, usize),
}

impl Kind {
    /// What is allowed, for people.
    pub fn allowed(&self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Integer { min, max } => format!("{min} to {max}"),
            Self::PowerOfTwo { min, max } => format!("{min} to {max}, a power of two"),
            Self::Number { above, below } => format!("a number above {above} and below {below}"),
            Self::Name => "1 to 63 letters, digits, dots, - or _".to_owned(),
            Self::Text => "1 to 255 characters of text".to_owned(),
            Self::Word(words) => {
                words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ")
            }
            Self::Path => "a path, 1 to 4096 characters".to_owned(),
            Self::Device => device::allowed(),
            Self::Broker => "amqp://HOST:PORT/VHOST or amqps://HOST:PORT/VHOST, without user and \
                             password (IPv6 in brackets; without a port 5672, with amqps 5671; without \
                             a virtual host /)"
                .to_owned(),
            Self::Service => "http://HOST:PORT/PATH or https://HOST:PORT/PATH, without user and password \
                           (IPv6 in brackets; without a port 80, with https 443)"
                .to_owned(),
            Self::Ovsdb => {
                "unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT (IPv6 in brackets; without a \
                            port 6640)"
                    .to_owned()
            }
            Self::Http => "http://HOST:PORT/PATH or https://HOST:PORT/PATH, without user and password"
                .to_owned(),
            Self::Stream => "tcp://HOST:PORT or tls://HOST:PORT (IPv6 in brackets)".to_owned(),
            Self::Collector => "udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or sctp://HOST:PORT \
                                (IPv6 in brackets)"
                .to_owned(),
            Self::Secret => "file:PATH, whose first line it is, or env:VARIABLE of the environment"
                .to_owned(),
            Self::Address => "an IPv4 or IPv6 address".to_owned(),
            Self::Network => "a network such as 10.0.0.0/8 or 2001:db8::/32".to_owned(),
            Self::Listen => "a loopback address and a port, such as 127.0.0.1:8080 or [::1]:8080; \
                             beyond loopback, TLS and a token will be required, which this version \
                             does not offer"
                .to_owned(),
            Self::Segment => "domain/kind/id such as default/none, default/vlan/42, \
                              default/qinq/10.20 or default/vxlan/4242, with a domain of \
                              segments.domains"
                .to_owned(),
            Self::Uuid => "a UUID such as 5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01".to_owned(),
            Self::Mac => "a MAC address such as fa:16:3e:00:00:01".to_owned(),
            Self::Time => "a time with offset such as 2026-01-31T12:00:00Z, from 1970 to 2554, or \
                           nanoseconds since 1970"
                .to_owned(),
            Self::List(item, max) => format!("at most {max} of: {}", item.allowed()),
            Self::Table(table) => format!("a table with the keys {}", table.names()),
            Self::Tables(table, max) => {
                format!("at most {max} tables, each headed [[{}]]", table.path)
            }
        }
    }

    /// Why `value` is not allowed. What is inside arrays and tables is not looked at.
    pub(crate) fn fault(&self, value: &DeValue<'_>) -> Option<String> {
        match (self, value) {
            (Self::Integer { min, max }, DeValue::Integer(number)) => {
                integer_fault(number, *min, *max)
            }
            (Self::PowerOfTwo { min, max }, DeValue::Integer(number)) => {
                power_fault(number, *min, *max)
            }
            (Self::Number { above, below }, DeValue::Float(_) | DeValue::Integer(_)) => {
                number_fault(number_of(value), *above, *below)
            }
            (Self::Time, DeValue::Integer(_) | DeValue::Datetime(_)) => {
                time_of(value).is_none().then(|| format!("{} is no such time", shown(value)))
            }
            (Self::List(_, max), DeValue::Array(items)) if items.len() > *max => {
                Some(format!("{} values are too many", items.len()))
            }
            (Self::Tables(_, max), DeValue::Array(items)) if items.len() > *max => {
                Some(format!("{} tables are too many", items.len()))
            }
            (Self::Flag, DeValue::Boolean(_))
            | (Self::List(..) | Self::Tables(..), DeValue::Array(_))
            | (Self::Table(_), DeValue::Table(_)) => None,
            (_, DeValue::String(text)) if self.is_text() => self.text_fault(text),
            _ => Some(format!("{} is of the wrong type", shown(value))),
        }
    }

    /// Whether `value` may be read: it and all values of an array are allowed.
    pub(crate) fn accepts(&self, value: &DeValue<'_>) -> bool {
        self.fault(value).is_none()
            && match (self, value) {
                (Self::List(item, _), DeValue::Array(items)) => {
                    items.iter().all(|found| item.accepts(found.get_ref()))
                }
                _ => true,
            }
    }

    fn is_text(&self) -> bool {
        matches!(
            self,
            Self::Name
                | Self::Text
                | Self::Word(_)
                | Self::Path
                | Self::Device
                | Self::Broker
                | Self::Service
                | Self::Ovsdb
                | Self::Http
                | Self::Stream
                | Self::Collector
                | Self::Secret
                | Self::Address
                | Self::Network
                | Self::Listen
                | Self::Segment
                | Self::Uuid
                | Self::Mac
                | Self::Time
        )
    }

    fn text_fault(&self, text: &str) -> Option<String> {
        let good = match self {
            Self::Name => is_name(text),
            Self::Word(words) => words.contains(&text),
            Self::Path => is_text_of(text, 4096),
            Self::Device => device::is_known(text),
            Self::Broker => text.parse::<BrokerUrl>().is_ok(),
            Self::Service => text.parse::<ServiceUrl>().is_ok(),
            Self::Ovsdb => text.parse::<OvsdbRemote>().is_ok(),
            Self::Http => text.parse::<HttpUrl>().is_ok(),
            Self::Stream => text.parse::<StreamUrl>().is_ok(),
            Self::Collector => text.parse::<CollectorUrl>().is_ok(),
            Self::Secret => text.parse::<SecretPlace>().is_ok(),
            Self::Address => text.parse::<IpAddr>().is_ok(),
            Self::Network => return network_fault(text),
            Self::Listen => return listen_fault(text),
            Self::Uuid => text.parse::<Uuid>().is_ok(),
            Self::Mac => text.parse::<Mac>().is_ok(),
            Self::Time => time_of_text(text).is_some(),
            _ => is_text_of(text, 255),
        };
        // No text of the probe shows a secret, also where it stands in the wrong place.
        (!good).then(|| match self {
            Self::Secret => "it is not allowed".to_owned(),
            Self::Http | Self::Service | Self::Stream | Self::Collector | Self::Broker
                if text.contains('@') =>
            {
                "it holds a user, which has a key of its own".to_owned()
            }
            Self::Http => format!("{} is not allowed", quoted(&without_path(text))),
            _ => format!("{} is not allowed", quoted(text)),
        })
    }
}

fn integer_fault(number: &DeInteger<'_>, min: u64, max: u64) -> Option<String> {
    match integer_of(number) {
        None if number.as_str().starts_with('-') => Some(format!("{number} is negative")),
        None => Some(format!("{number} is too large")),
        Some(value) if value < min => Some(format!("{value} is too small")),
        Some(value) if value > max => Some(format!("{value} is too large")),
        Some(_) => None,
    }
}

fn power_fault(number: &DeInteger<'_>, min: u64, max: u64) -> Option<String> {
    match integer_of(number) {
        Some(value) if !value.is_power_of_two() => Some(format!("{value} is not a power of two")),
        _ => integer_fault(number, min, max),
    }
}

fn number_fault(number: Option<f64>, above: f64, below: f64) -> Option<String> {
    match number {
        None => Some("is no number".to_owned()),
        Some(value) if value <= above => Some(format!("{value} is too small")),
        Some(value) if value >= below => Some(format!("{value} is too large")),
        Some(value) if value.is_nan() => Some("nan is no number".to_owned()),
        Some(_) => None,
    }
}

fn network_fault(text: &str) -> Option<String> {
    match text.parse::<IpNet>() {
        Err(_) => Some(format!("{} is no network", quoted(text))),
        Ok(network) if network != network.trunc() => Some(format!(
            "{network} has bits beyond its prefix; its network is {}",
            network.trunc()
        )),
        Ok(_) => None,
    }
}

fn listen_fault(text: &str) -> Option<String> {
    match text.parse::<SocketAddr>() {
        Err(_) => Some(format!("{} is no address with a port", quoted(text))),
        Ok(listen) if !listen.ip().is_loopback() => {
            Some(format!("{} is no loopback address", listen.ip()))
        }
        Ok(_) => None,
    }
}

/// A whole number that is not negative.
pub(super) fn integer_of(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A number, whole or not.
pub(super) fn number_of(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        _ => None,
    }
}

/// The instant that a value of [`Kind::Time`] names.
pub(super) fn time_of(value: &DeValue<'_>) -> Option<Timestamp> {
    match value {
        DeValue::Integer(number) => integer_of(number).map(Timestamp),
        DeValue::Datetime(time) => time_of_text(&time.to_string()),
        DeValue::String(text) => time_of_text(text),
        _ => None,
    }
}

fn time_of_text(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    let seconds = u64::try_from(time.timestamp()).ok()?.checked_mul(1_000_000_000)?;
    seconds.checked_add(time.timestamp_subsec_nanos().into()).map(Timestamp)
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
}

fn is_text_of(text: &str, characters_max: usize) -> bool {
    !text.is_empty()
        && text.chars().take(characters_max + 1).count() <= characters_max
        && !text.chars().any(char::is_control)
}

/// Text of a file in quotes, shortened and without control characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 60;
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quoted(text)),
        DeValue::Integer(number) => format!("the number {}", unquoted(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", unquoted(number.as_str())),
        DeValue::Boolean(flag) => format!("the value {flag}"),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn unquoted(text: &str) -> String {
    quoted(text).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: Kind, value: &str) -> Option<String> {
        let value = DeValue::parse(value).expect(value);
        kind.fault(value.get_ref())
    }

    #[test]
    fn numbers_have_bounds() {
        let kind = Kind::Integer { min: 2, max: 1_000 };
        for good in ["2", "1_000", "0x3e8"] {
            assert_eq!(fault(kind, good), None, "{good}");
        }
        for (bad, why) in [
            ("1", "1 is too small"),
            ("1001", "1001 is too large"),
            ("-3", "-3 is negative"),
            ("99999999999999999999", "99999999999999999999 is too large"),
            ("2.0", "the number 2.0 is of the wrong type"),
            ("\"2\"", "the text \"2\" is of the wrong type"),
            ("[2]", "an array is of the wrong type"),
        ] {
            assert_eq!(fault(kind, bad).as_deref(), Some(why), "{bad}");
        }
    }

    #[test]
    fn of_a_url_that_is_none_no_path_is_shown() {
        let found = fault(Kind::Http, "\"https://hooks.example/T0/s3 cret\"");
        assert_eq!(found.as_deref(), Some("\"https://hooks.example/…\" is not allowed"));
    }

    #[test]
    fn powers_of_two() {
        let kind = Kind::PowerOfTwo { min: 4, max: 64 };
        assert_eq!(fault(kind, "64"), None);
        assert_eq!(fault(kind, "100").as_deref(), Some("100 is not a power of two"));
        assert_eq!(fault(kind, "128").as_deref(), Some("128 is too large"));
        assert_eq!(fault(kind, "0").as_deref(), Some("0 is not a power of two"));
    }

    #[test]
    fn fractions_exclude_their_bounds() {
        let kind = Kind::Number { above: 0.0, below: 1.0 };
        assert_eq!(fault(kind, "1e-6"), None);
        for bad in ["0", "1", "0.0", "1.0", "nan", "inf", "-inf", "1e400", "true"] {
            assert!(fault(kind, bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn texts() {
        for (kind, good, bad) in [
            (Kind::Name, "a-b_C.9", "a b"),
            (Kind::Text, "häuser", ""),
            (Kind::Word(&["auto", "never"]), "never", "Never"),
            (Kind::Path, "a/b", ""),
            (Kind::Broker, "amqps://h/v", "http://h"),
            (Kind::Service, "https://h/v3", "https://h/v3?a=b"),
            (Kind::Ovsdb, "ssl:[::1]:6641", "udp:h:1"),
            (Kind::Address, "2001:db8::1", "10.0.0.256"),
            (Kind::Network, "10.0.0.0/8", "10.0.0.1/8"),
            (Kind::Listen, "[::1]:80", "192.0.2.1:80"),
            (
                Kind::Uuid,
                "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01",
                "5e8f7f3a6d6b4b559a0e3a2f6b1c0d01",
            ),
            (Kind::Mac, "fa:16:3e:00:00:01", "fa:16:3e:00:00"),
            (Kind::Time, "2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00"),
        ] {
            assert_eq!(fault(kind, &format!("{good:?}")), None, "{good}");
            assert!(fault(kind, &format!("{bad:?}")).is_some(), "{bad}");
        }
    }

    #[test]
    fn times_are_nanoseconds() {
        let time = |text| time_of(DeValue::parse(text).expect(text).get_ref());
        assert_eq!(time("7"), Some(Timestamp(7)));
        assert_eq!(time("1970-01-01T00:00:01.5Z"), Some(Timestamp(1_500_000_000)));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Some(Timestamp(0)));
        assert_eq!(time("2554-01-01T00:00:00Z").map(|time| time.0 % 1_000_000_000), Some(0));
        for bad in [
            "1969-12-31T23:59:59Z",
            "2600-01-01T00:00:00Z",
            "1970-01-01T00:00:01",
            "1970-01-01",
            "-1",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 63);
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
    }
}
