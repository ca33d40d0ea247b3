//! Addresses of destinations.
//!
//! In: a text of the configuration. Out: its parts, checked.
//! Invariants: no user and no password in any; of a URL of HTTP only scheme, host and port are shown,
//! because services put secrets into paths and queries.

use std::fmt;
use std::str::FromStr;

/// `http://` or `https://`, a host, and what follows; without user and password.
#[derive(Clone, PartialEq, Eq)]
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
pub(super) const SECRET: NotUrl = NotUrl("file:PATH or env:VARIABLE");
const COLLECTOR: NotUrl =
    NotUrl("udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or sctp://HOST:PORT");
const STREAM: NotUrl = NotUrl("tcp://HOST:PORT or tls://HOST:PORT");

/// Host and port; the port may be missing.
pub(in super::super) fn host_and_port(place: &str) -> Option<(&str, Option<u16>)> {
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
    /// As it was written; no text that the probe makes may have it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A URL as far as it may be shown: what stands behind host and port is a secret with many services, and
/// becomes `/…`.
pub(crate) fn without_path(text: &str) -> String {
    let place = text.find("://").map_or(0, |at| at + 3);
    let end = text.get(place..).and_then(|rest| rest.find(['/', '?', '#']));
    match end.map(|end| text.split_at(place + end)) {
        Some((shown, hidden)) if hidden != "/" => format!("{shown}/…"),
        _ => text.to_owned(),
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&without_path(&self.text))
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HttpUrl({self})")
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

/// How IPFIX messages travel (RFC 7011 §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One message a datagram.
    Udp,
    /// Messages one after the other.
    Tcp,
    /// The same inside TLS.
    Tls,
    /// One message a chunk of stream 0.
    Sctp,
}

/// `udp://HOST:PORT`, `tcp://…`, `tls://…` or `sctp://…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    /// How messages get there.
    pub transport: Transport,
    /// Host and port.
    pub place: StreamUrl,
}

impl FromStr for CollectorUrl {
    type Err = NotUrl;

    fn from_str(text: &str) -> Result<Self, NotUrl> {
        let (scheme, place) = text.split_once("://").ok_or(COLLECTOR)?;
        let transport = match scheme {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls,
            "sctp" => Transport::Sctp,
            _ => return Err(COLLECTOR),
        };
        match host_and_port(place) {
            Some((host, Some(port))) => {
                let tls = transport == Transport::Tls;
                Ok(Self { transport, place: StreamUrl { tls, host: host.to_owned(), port } })
            }
            _ => Err(COLLECTOR),
        }
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Sctp => "sctp",
        };
        let StreamUrl { host, port, .. } = &self.place;
        if host.contains(':') {
            write!(out, "{scheme}://[{host}]:{port}")
        } else {
            write!(out, "{scheme}://{host}:{port}")
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
    fn nothing_behind_host_and_port_is_shown() {
        for (text, shown) in [
            ("https://a.example:8443/x?token=1", "https://a.example:8443/…"),
            ("https://hooks.example/T0/s3cret", "https://hooks.example/…"),
            ("http://[::1]:8123?token=1", "http://[::1]:8123/…"),
            ("http://a:9200/", "http://a:9200/"),
            ("http://a:9200", "http://a:9200"),
        ] {
            let url: HttpUrl = text.parse().expect("a URL");
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("HttpUrl({shown})"));
        }
        // Also of what is no URL.
        assert_eq!(without_path("hooks.example/T0/s3cret"), "hooks.example/…");
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

    #[test]
    fn urls_of_collectors_read_back() {
        for text in ["udp://127.0.0.1:4739", "tcp://a:1", "tls://a:1", "sctp://[2001:db8::1]:4739"]
        {
            let url = text.parse::<CollectorUrl>().map(|url| url.to_string());
            assert_eq!(url.as_deref(), Ok(text));
        }
        for text in ["", "http://a:1", "udp://a", "udp://a:0", "udp://a:1/b", "udp://u@a:1"] {
            assert_eq!(text.parse::<CollectorUrl>(), Err(COLLECTOR), "{text}");
        }
    }
}
