//! Requests to destinations that speak HTTP.
//!
//! In: a URL, headers, a body. Out: status and the beginning of the answer.
//! Cost: a connection is kept and used again.
//! Invariants: an attempt takes no longer than its timeout; no redirect is followed, because it would
//! carry credentials to where nobody sent them; no proxy of the environment is used; what is shown of an
//! answer or an error has nothing of what is [`Hidden`].

use std::fmt::Display;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::hidden::Hidden;
use super::tls;

/// What is read of an answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A client of one destination.
pub(crate) struct Client(Agent);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// ClickHouse's number of an error.
    pub(crate) exception: Option<u32>,
    pub(crate) body: Vec<u8>,
    /// It is longer than what is read of it.
    pub(crate) is_cut: bool,
    hidden: Hidden,
}

impl Answer {
    /// The beginning of what it says, for people.
    pub(crate) fn text(&self) -> String {
        self.shown(&String::from_utf8_lossy(&self.body))
    }

    /// The beginning of a text that was made of it, for people.
    pub(crate) fn shown(&self, text: &str) -> String {
        self.hidden.shown(text)
    }
}

impl Client {
    /// A client; `ca_file` where the way is encrypted.
    pub(crate) fn new(ca_file: Option<&Path>, timeout_ms: u32) -> Result<Self, String> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(timeout_ms.into())))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("vmprobe/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = ca_file {
            let roots = tls::authorities(path)?;
            let roots: Vec<_> =
                roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            let roots = RootCerts::Specific(Arc::new(roots));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self(config.build().into()))
    }

    /// Sends a request and reads its answer.
    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        hidden: Hidden,
    ) -> Result<Answer, String> {
        let shown = |error: &dyn Display| hidden.shown(&error.to_string());
        let mut request = self.0.post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send(body).map_err(|error| shown(&error))?;
        let status = response.status().as_u16();
        let exception = response.headers().get("x-clickhouse-exception-code");
        let exception = exception.and_then(|code| code.to_str().ok()?.parse().ok());
        let mut read = Vec::new();
        let mut reader = response.into_body().into_reader().take(ANSWER_BYTES_MAX + 1);
        reader.read_to_end(&mut read).map_err(|error| shown(&error))?;
        let bytes_max = usize::try_from(ANSWER_BYTES_MAX).unwrap_or(usize::MAX);
        let is_cut = read.len() > bytes_max;
        read.truncate(bytes_max);
        Ok(Answer { status, exception, body: read, is_cut, hidden })
    }
}

/// Text in a URL's query.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-_.~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}
