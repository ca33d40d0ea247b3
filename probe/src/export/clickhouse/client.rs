//! Requests to a ClickHouse, and what its errors mean.
//!
//! In: statements, data. Out: the answer's text.
//! Invariants: the password is in a header, never in a URL or a text of an error.

use super::super::hidden::Hidden;
use super::super::http::{Answer, Client as Http, percent_encoded};
use super::VERSION_MIN;
use crate::config::ClickhousePlan;
use crate::config::secret;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No answer, or none that ClickHouse gives.
    #[error("{0}")]
    Unreachable(String),
    /// The server's word.
    #[error("ClickHouse says ({code}): {text}")]
    Server {
        /// Its number of the error.
        code: u32,
        /// Its text, shortened.
        text: String,
    },
    /// The server is too old.
    #[error(
        "the server is ClickHouse {0}; at least {min_0}.{min_1} is needed, because older ones may count a \
         batch twice in roll-ups when it is tried again",
        min_0 = VERSION_MIN.0,
        min_1 = VERSION_MIN.1
    )]
    TooOld(String),
}

/// A server.
pub(super) struct Client {
    http: Http,
    plan: ClickhousePlan,
}

impl Client {
    pub(super) fn new(plan: &ClickhousePlan, timeout_ms: u32) -> Result<Self, ClientError> {
        let ca_file = plan.url.tls.then_some(plan.access.ca_file.as_path());
        let http = Http::new(ca_file, timeout_ms).map_err(ClientError::Unreachable)?;
        Ok(Self { http, plan: plan.clone() })
    }

    /// Runs a statement.
    pub(super) fn run(&self, statement: &str) -> Result<String, ClientError> {
        self.send(&[("wait_end_of_query", "1")], statement.as_bytes())
    }

    /// The server's version, if it is new enough.
    pub(super) fn version(&self) -> Result<String, ClientError> {
        let answer = self.post(&[], &[], b"SELECT version()")?;
        let version = text_of(&answer)?.trim().to_owned();
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if found < VERSION_MIN {
            return Err(ClientError::TooOld(answer.shown(&version)));
        }
        Ok(version)
    }

    /// Sends a body with parameters, which are settings or the statement.
    fn send(&self, parameters: &[(&str, &str)], body: &[u8]) -> Result<String, ClientError> {
        text_of(&self.post(parameters, &[], body)?)
    }

    /// The same with a body that is compressed.
    pub(super) fn send_zstd(
        &self,
        parameters: &[(&str, &str)],
        body: &[u8],
    ) -> Result<String, ClientError> {
        text_of(&self.post(parameters, &[("Content-Encoding", "zstd")], body)?)
    }

    fn post(
        &self,
        parameters: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ClientError> {
        let base = self.plan.url.as_str();
        let mut url = base.to_owned();
        let host = base.find("://").map_or(0, |at| at + 3);
        if !base.get(host..).is_some_and(|rest| rest.contains(['/', '?'])) {
            url.push('/');
        }
        for (name, value) in parameters {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(name);
            url.push('=');
            url.push_str(&percent_encoded(value));
        }
        let password = match &self.plan.access.password {
            Some(place) => {
                secret::read(place).map_err(|error| ClientError::Unreachable(error.to_string()))?
            }
            None => String::new(),
        };
        let user = self.plan.access.user.as_deref().unwrap_or("default");
        let mut all = vec![("X-ClickHouse-User", user), ("X-ClickHouse-Key", &*password)];
        all.extend(headers);
        let hidden = Hidden::new(&self.plan.url, &[&password]);
        self.http.post(&url, &all, body, hidden).map_err(ClientError::Unreachable)
    }
}

/// What it says, if that is no error.
fn text_of(answer: &Answer) -> Result<String, ClientError> {
    let text = String::from_utf8_lossy(&answer.body);
    match (answer.status, answer.exception) {
        (200, None) => Ok(text.into_owned()),
        (_, Some(code)) => Err(ClientError::Server { code, text: answer.text() }),
        // Old servers have no such header; their text begins with the number.
        (_, None) if text.starts_with("Code: ") => {
            let digits = text.bytes().skip(6).take_while(u8::is_ascii_digit);
            let code = digits.fold(0_u32, |code, digit| {
                code.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
            });
            Err(ClientError::Server { code, text: answer.text() })
        }
        (status, None) => {
            let what = format!("the answer has status {status}: {}", answer.text());
            Err(ClientError::Unreachable(what))
        }
    }
}
