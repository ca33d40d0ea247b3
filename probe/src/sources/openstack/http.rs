//! Questions to the services of a cloud by HTTP.
//!
//! In: a URL, headers, perhaps a body. Out: status and JSON.
//! Cost: a connection for each question; the whole answer in memory, which is bounded.
//! Invariants: an answer that takes longer than the plan allows, or is larger, is an error, and so are answers
//! that are larger together. No redirection is followed, so that a token goes nowhere but where the configuration or the catalogue says. Neither
//! tokens nor bodies stand in an error.
//! Source: RFC 9112; RFC 9110 section 15.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::rt::{Read, Write};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::link;
use crate::config::secret::SecretError;
use crate::config::{CloudApiPlan, ServiceUrl};

/// Octets of a service's own message that an error repeats.
const MESSAGE_BYTES_MAX: usize = 200;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiTrouble {
    #[error("{at}: no answer in api_timeout_ms")]
    Timeout { at: String },
    #[error("{at}: no connection: {error}")]
    Unreachable { at: String, error: io::Error },
    #[error("{at}: {error}")]
    Http { at: String, error: hyper::Error },
    #[error("{at}: the answer is larger than api_answer_mib_max")]
    AnswerTooLarge { at: String },
    #[error("{at}: the answer ended early: {error}")]
    Ended { at: String, error: axum::Error },
    #[error("{at}: the answers of one list are larger together than api_list_mib_max")]
    ListTooLarge { at: String },
    #[error("the list took longer than api_list_timeout_s")]
    ListTimeout,
    #[error("{at}: status {status}{message}")]
    Status { at: String, status: u16, message: String },
    #[error("{at}: the answer is not of the documented form: {what}")]
    Form { at: String, what: &'static str },
    #[error("{at}: more than {max} {name}")]
    TooMany { at: String, name: &'static str, max: usize },
    #[error("the catalogue of Keystone names no {interface} endpoint of the service {service}")]
    NoEndpoint { service: &'static str, interface: String },
    #[error("api_ca_file {}: {error}", path.display())]
    Authorities { path: PathBuf, error: io::Error },
    #[error("api_secret: {0}")]
    Secret(#[from] SecretError),
}

impl ApiTrouble {
    /// The status that a service answered with.
    pub(super) fn status(&self) -> Option<u16> {
        if let Self::Status { status, .. } = self { Some(*status) } else { None }
    }
}

/// What a service answered.
pub(super) struct Answer {
    /// The token of Keystone, if there is one.
    pub(super) token: Option<String>,
    /// The body.
    pub(super) body: Value,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) url: &'a ServiceUrl,
    /// Path, behind that of the URL, and query.
    pub(super) target: String,
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) body: Option<String>,
}

/// Asks the services of one cloud.
pub(super) struct Client<'a> {
    plan: &'a CloudApiPlan,
    connector: Option<TlsConnector>,
    /// Octets that may still come.
    left: Cell<u64>,
}

impl<'a> Client<'a> {
    /// `pem`: certificates of authorities, where any service is reached by `https`.
    pub(super) fn new(plan: &'a CloudApiPlan, pem: Option<&[u8]>) -> io::Result<Self> {
        let connector = pem.map(link::connector).transpose()?;
        Ok(Self { plan, connector, left: Cell::new(u64::from(plan.list_mib_max) << 20) })
    }

    /// Asks once.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, ApiTrouble> {
        let at = format!("{}{}", question.url, path_of(&question.target));
        let patience = Duration::from_millis(self.plan.timeout_ms.into());
        match tokio::time::timeout(patience, self.answer(question, &at)).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiTrouble::Timeout { at }),
        }
    }

    async fn answer(&self, question: Question<'_>, at: &str) -> Result<Answer, ApiTrouble> {
        let unreachable = |error| ApiTrouble::Unreachable { at: at.to_owned(), error };
        let url = question.url;
        let request = request(question).ok_or_else(|| form(at, "a header of ours is not ASCII"))?;
        let connected = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream = connected.map_err(unreachable)?;
        if !url.tls {
            return self.exchange(TokioIo::new(stream), request, at).await;
        }
        let connector = self.connector.as_ref();
        let connector = connector
            .ok_or_else(|| unreachable(io::Error::other("no certificates of authorities")))?;
        let name = ServerName::try_from(url.host.clone());
        let name = name.map_err(|error| unreachable(io::Error::other(error)))?;
        let stream = connector.connect(name, stream).await.map_err(unreachable)?;
        self.exchange(TokioIo::new(stream), request, at).await
    }

    async fn exchange<I>(
        &self,
        io: I,
        request: Request<Body>,
        at: &str,
    ) -> Result<Answer, ApiTrouble>
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let http = |error| ApiTrouble::Http { at: at.to_owned(), error };
        let (mut sender, connection) = http1::handshake(io).await.map_err(http)?;
        let mut connection = pin!(connection);
        let mut exchange = pin!(async {
            let response = sender.send_request(request).await.map_err(http)?;
            self.read(response.map(Body::new), at).await
        });
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => {
                ended.map_err(http)?;
                exchange.await
            }
        }
    }

    async fn read(&self, response: Response<Body>, at: &str) -> Result<Answer, ApiTrouble> {
        let (head, body) = response.into_parts();
        let octets = self.octets(body, at).await?;
        let json: Result<Value, _> = serde_json::from_slice(&octets);
        if !head.status.is_success() {
            let message = json.ok().as_ref().and_then(message).unwrap_or_default();
            let status = head.status.as_u16();
            return Err(ApiTrouble::Status { at: at.to_owned(), status, message });
        }
        let token = head.headers.get("x-subject-token").and_then(|token| token.to_str().ok());
        let token = token.map(str::to_owned);
        Ok(Answer { token, body: json.map_err(|_| form(at, "no JSON"))? })
    }

    /// All of a body, within what one answer and what one list may have.
    async fn octets(&self, body: Body, at: &str) -> Result<Vec<u8>, ApiTrouble> {
        let max = u64::from(self.plan.answer_mib_max) << 20;
        let mut parts = body.into_data_stream();
        let mut octets = Vec::new();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| ApiTrouble::Ended { at: at.to_owned(), error })?;
            let left = self.left.get().checked_sub(part.len() as u64);
            self.left.set(left.ok_or_else(|| ApiTrouble::ListTooLarge { at: at.to_owned() })?);
            if (octets.len() + part.len()) as u64 > max {
                return Err(ApiTrouble::AnswerTooLarge { at: at.to_owned() });
            }
            octets.extend_from_slice(&part);
        }
        Ok(octets)
    }
}

/// Without the token, and without what stands in the body.
impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// Without headers and body, in which tokens and passwords stand.
impl fmt::Debug for Question<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = out.debug_struct("Question");
        out.field("method", &self.method).field("url", &self.url).field("target", &self.target);
        out.finish_non_exhaustive()
    }
}

pub(super) fn form(at: &str, what: &'static str) -> ApiTrouble {
    ApiTrouble::Form { at: at.to_owned(), what }
}

/// Without the query, which says nothing to people.
fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

fn request(question: Question<'_>) -> Option<Request<Body>> {
    let target = format!("{}{}", question.url.path, question.target);
    let mut request = Request::builder()
        .method(question.method)
        .uri(target)
        .header(HOST, question.url.place())
        .header(ACCEPT, "application/json");
    for (name, value) in question.headers {
        request = request.header(*name, value);
    }
    if question.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    request.body(question.body.map_or_else(Body::empty, Body::from)).ok()
}

/// What a service says of an error: `{"error": {"message": …}}`, `{"NeutronError": {"message": …}}`,
/// `{"itemNotFound": {"message": …}}`.
fn message(body: &Value) -> Option<String> {
    let inner = body.as_object()?.values().next()?;
    let text = inner.get("message")?.as_str()?;
    let plain = text.chars().filter(|letter| !letter.is_control());
    let mut text: String = plain.take(MESSAGE_BYTES_MAX).collect();
    text.insert_str(0, ": ");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_people_shows_no_secret() {
        let url: ServiceUrl = "http://h:5000/v3".parse().expect("a URL");
        let headers = [("x-auth-token", "t0ken".to_owned())];
        let question = Question {
            method: Method::POST,
            url: &url,
            target: "/auth/tokens".to_owned(),
            headers: &headers,
            body: Some("{\"password\": \"hunter2\"}".to_owned()),
        };
        let answer =
            Answer { token: Some("t0ken".to_owned()), body: serde_json::json!({"s": "hunter2"}) };
        let text = format!("{question:?} {answer:?}");
        assert!(text.contains("/auth/tokens"), "{text}");
        assert!(!text.contains("t0ken") && !text.contains("hunter2"), "{text}");
    }
}
