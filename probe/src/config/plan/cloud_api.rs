//! The APIs of one OpenStack cloud, from which what is there is listed.
//!
//! In: keys `api_…` of `[[inventory.openstack]]`. Out: [`CloudApiPlan`] with the [`ServiceUrl`]s to ask.
//! Invariants: no secret stands in it, only where one is found.
//! Source: RFC 3986 (URLs); OpenStack Identity API v3.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::sink::{SecretPlace, host_and_port};

/// Longest host name, and path, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// Where a service is reached by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    /// Inside TLS (`https`).
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path, without a slash at its end; empty for none.
    pub path: String,
}

/// A text that is no URL of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("http://HOST:PORT/PATH or https://HOST:PORT/PATH is wanted")]
pub struct NotService;

impl FromStr for ServiceUrl {
    type Err = NotService;

    fn from_str(text: &str) -> Result<Self, NotService> {
        let (scheme, rest) = text.split_once("://").ok_or(NotService)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(NotService),
        };
        let place_end = rest.find('/').unwrap_or(rest.len());
        let (place, path) = rest.split_at(place_end);
        let (host, port) = host_and_port(place).ok_or(NotService)?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let in_path = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.~/%:@".contains(&octet);
        let path = path.trim_end_matches('/');
        if host.len() > NAME_BYTES_MAX || path.len() > NAME_BYTES_MAX || !path.bytes().all(in_path)
        {
            return Err(NotService);
        }
        Ok(Self { tls, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl ServiceUrl {
    /// Host and port as they stand in a URL.
    pub fn place(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(out, "{scheme}://{}{}", self.place(), self.path)
    }
}

/// How the probe says who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloudAuth {
    /// Nothing is asked.
    #[default]
    Off,
    /// User and password at Keystone, in a project.
    Password,
    /// Application credential at Keystone.
    Credential,
    /// Not at all: services that run with `auth_strategy = noauth`.
    None,
}

/// The APIs of one cloud.
#[derive(Clone, Debug)]
pub struct CloudApiPlan {
    /// Who asks, if anything is asked.
    pub auth: CloudAuth,
    /// Keystone, version 3.
    pub identity_url: Option<ServiceUrl>,
    /// Neutron; `None`: as the catalogue of Keystone says.
    pub network_url: Option<ServiceUrl>,
    /// Nova, likewise.
    pub compute_url: Option<ServiceUrl>,
    /// Region of the catalogue; `None`: the first.
    pub region: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    /// User, with a password.
    pub user: Option<String>,
    /// Its domain.
    pub user_domain: String,
    /// Project, with a password.
    pub project: Option<String>,
    /// Its domain.
    pub project_domain: String,
    /// Id of the application credential.
    pub credential_id: Option<String>,
    /// Where the password, or the credential's secret, is.
    pub secret: Option<SecretPlace>,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
    /// Longest time for one answer.
    pub timeout_ms: u32,
    /// Time between two lists of one connection; 0: only the first.
    pub again_s: u32,
    /// Items asked for at once.
    pub page_items: u32,
    /// Largest answer that is read.
    pub answer_mib_max: u32,
    /// Longest time for all answers of one list.
    pub list_timeout_s: u32,
    /// What they may have together.
    pub list_mib_max: u32,
}

impl Default for CloudApiPlan {
    fn default() -> Self {
        Self {
            auth: CloudAuth::Off,
            identity_url: None,
            network_url: None,
            compute_url: None,
            region: None,
            interface: "public".to_owned(),
            user: None,
            user_domain: "Default".to_owned(),
            project: None,
            project_domain: "Default".to_owned(),
            credential_id: None,
            secret: None,
            ca_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            timeout_ms: 30_000,
            again_s: 3_600,
            page_items: 500,
            answer_mib_max: 64,
            list_timeout_s: 600,
            list_mib_max: 512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_back() {
        for text in [
            "http://127.0.0.1:9696",
            "https://[2001:db8::1]:5000/v3",
            "https://cloud.example:443/identity/v3",
        ] {
            let url: Result<ServiceUrl, _> = text.parse();
            assert_eq!(url.map(|url| url.to_string()).as_deref(), Ok(text));
        }
        let ports = ["http://h", "https://h/"].map(str::parse::<ServiceUrl>);
        let read = ports.map(|url| url.map(|url| (url.port, url.path)));
        assert_eq!(read, [Ok((80, String::new())), Ok((443, String::new()))]);
    }

    #[test]
    fn other_texts_are_no_urls() {
        for text in [
            "",
            "h",
            "amqp://h",
            "http://",
            "http://:1",
            "http://h:0",
            "http://user:pw@h",
            "http://[::1",
            "http://h/a b",
            "http://h/a?b=c",
            "http://h/a\r\nx: y",
            "http://h/#a",
        ] {
            assert_eq!(text.parse::<ServiceUrl>(), Err(NotService), "{text}");
        }
    }
}
