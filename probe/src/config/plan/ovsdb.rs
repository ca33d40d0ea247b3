//! One database of an Open vSwitch to listen to.
//!
//! In: `[[inventory.ovsdb]]`. Out: [`OvsdbPlan`] with the [`OvsdbRemote`] to connect to.
//! Source: connection methods as in ovsdb(7); port 6640, RFC 7047 section 7.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Port of OVSDB that IANA has assigned.
const PORT: u16 = 6_640;
/// Longest path of a unix socket, in bytes (`sockaddr_un` without its closing 0).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where a database server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OvsdbRemote {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `tcp:HOST:PORT`.
    Tcp(OvsdbHost),
    /// `ssl:HOST:PORT`: the same inside TLS.
    Tls(OvsdbHost),
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvsdbHost {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A text that names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT is wanted")]
pub struct NotRemote;

impl FromStr for OvsdbRemote {
    type Err = NotRemote;

    fn from_str(text: &str) -> Result<Self, NotRemote> {
        let (method, rest) = text.split_once(':').ok_or(NotRemote)?;
        match method {
            "unix" if is_socket_path(rest) => Ok(Self::Unix(rest.into())),
            "tcp" => rest.parse().map(Self::Tcp),
            "ssl" => rest.parse().map(Self::Tls),
            _ => Err(NotRemote),
        }
    }
}

fn is_socket_path(text: &str) -> bool {
    (1..=SOCKET_PATH_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl FromStr for OvsdbHost {
    type Err = NotRemote;

    /// Reads `host`, `host:port`, `10.0.0.1:6640` or `[2001:db8::1]:6640`.
    fn from_str(text: &str) -> Result<Self, NotRemote> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(NotRemote)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(NotRemote)?,
            None if port.is_empty() => PORT,
            None => return Err(NotRemote),
        };
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:%".contains(&octet);
        let named = (1..=253).contains(&host.len()) && host.bytes().all(plain);
        named.then(|| Self { host: host.to_owned(), port }).ok_or(NotRemote)
    }
}

impl fmt::Display for OvsdbHost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(out, "[{host}]:{port}")
        } else {
            write!(out, "{host}:{port}")
        }
    }
}

impl fmt::Display for OvsdbRemote {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Tcp(host) => write!(out, "tcp:{host}"),
            Self::Tls(host) => write!(out, "ssl:{host}"),
        }
    }
}

impl OvsdbRemote {
    /// With a relative path beginning at `base`.
    #[must_use]
    pub fn below(self, base: &Path) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(base.join(path)),
            other => other,
        }
    }
}

/// One database of an Open vSwitch.
#[derive(Clone, Debug)]
pub struct OvsdbPlan {
    /// Name, unique among these.
    pub name: String,
    /// Where its server listens.
    pub address: OvsdbRemote,
    /// Host that its ports are on, whatever the database says of itself.
    pub host: Option<String>,
    /// Domain of the segments that VLAN tags name (place in [`super::Plan::domains`]).
    pub domain: u8,
    /// Whether a port's VLAN tag names the segment of its interfaces.
    pub vlan_segments: bool,
    /// Certificates of authorities, PEM; without it no certificate is believed.
    pub ca_file: Option<PathBuf>,
    /// The probe's certificate, PEM, with the chain behind it.
    pub certificate_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Whether the server's certificate must name the server.
    pub check_name: bool,
    /// The name, if not the host of the address.
    pub server_name: Option<String>,
    /// Longest time for a connection with its handshake, and for an answer.
    pub timeout_ms: u32,
    /// After so long a silence the server is asked whether it is there.
    pub echo_ms: u32,
    /// Longest wait between two tries to connect; each is made longer or shorter by up to a quarter.
    pub retry_max_ms: u32,
    /// Shown as stale after so long a silence.
    pub stale_after_ms: u32,
    /// Longest message of the server in MiB.
    pub message_mib_max: u32,
    /// Rows of all tables together at most.
    pub rows_max: u32,
}

impl OvsdbPlan {
    /// What is not given otherwise.
    pub fn new(name: String, address: OvsdbRemote) -> Self {
        Self {
            name,
            address,
            host: None,
            domain: 0,
            vlan_segments: true,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            check_name: true,
            server_name: None,
            timeout_ms: 10_000,
            echo_ms: 5_000,
            retry_max_ms: 8_000,
            stale_after_ms: 20_000,
            message_mib_max: 16,
            rows_max: 100_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_read_back() {
        for text in [
            "unix:/run/openvswitch/db.sock",
            "tcp:127.0.0.1:6640",
            "ssl:[2001:db8::1]:16640",
            "ssl:switch-1.example:6641",
        ] {
            assert_eq!(
                text.parse().map(|remote: OvsdbRemote| remote.to_string()).as_deref(),
                Ok(text)
            );
        }
        let default: Result<OvsdbRemote, _> = "tcp:h".parse();
        assert_eq!(default.map(|remote| remote.to_string()).as_deref(), Ok("tcp:h:6640"));
    }

    #[test]
    fn other_texts_name_no_server() {
        let long = format!("unix:/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        for text in [
            "",
            "unix:",
            "/run/db.sock",
            "tcp:",
            "tcp::6640",
            "tcp:h:0",
            "tcp:h:65536",
            "tcp:h:x",
            "tcp:[::1",
            "tcp:[::1]6640",
            "ptcp:6640",
            "tcp:a b:1",
            "udp:h:1",
            &long,
        ] {
            assert_eq!(text.parse::<OvsdbRemote>(), Err(NotRemote), "{text}");
        }
    }
}
