//! Questions to the services of a cloud by HTTP.
//!
//! In: a URL, headers, perhaps a body. Out: status and JSON.
//! Cost: a connection for each question; the whole answer in memory, which is bounded.
//! Invariants: an answer that takes longer than the plan allows, or is larger, is an error. No redirection
//! is followed, so that a token goes nowhere but where the configuration or the catalogue says. Neither
//! tokens nor bodies stand in an error.
//! Source: RFC 9112; RFC 9110 section 15.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, to_bytes};
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
    #[error("{at}: the answer is larger than api_answer_mib_max, or ended early")]
    Answer { at: String },
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
#[derive(Debug)]
pub(super) struct Answer {
    /// The token of Keystone, if there is one.
    pub(super) token: Option<String>,
    /// The body.
    pub(super) body: Value,
}

/// What is asked.
#[derive(Debug)]
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
}

impl<'a> Client<'a> {
    /// `pem`: certificates of authorities, where any service is reached by `https`.
    pub(super) fn new(plan: &'a CloudApiPlan, pem: Option<&[u8]>) -> io::Result<Self> {
        Ok(Self { plan, connector: pem.map(link::connector).transpose()? })
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
        let max = usize::try_from(self.plan.answer_mib_max).unwrap_or(1) << 20;
        let octets = to_bytes(body, max).await;
        let octets = octets.map_err(|_| ApiTrouble::Answer { at: at.to_owned() })?;
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
