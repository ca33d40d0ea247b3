//! What every request passes, and what every answer carries.
//!
//! In: a request. Out: the answer of its route, or a refusal; headers that keep a browser from
//! doing more with it than the page needs.
//! Invariants: a request whose `Host` is no name of this machine's loopback is refused, so a
//! foreign web page cannot read the probe through a name of its own (DNS rebinding); so is one that a
//! page of another origin sent. A body is read only by routes of the inventory, within a bound.
//! Source: RFC 9110 section 7.2 (Host), Content Security Policy Level 3.

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Octets that a request's body may announce where no route reads one.
const BODY_OCTETS_MAX: u64 = 4096;
/// Where bodies are read.
const INVENTORY: &str = "/api/v1/inventory";

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             object-src 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Middleware around all routes.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = match refusal(request.uri(), request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refusal(uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    if !is_for_loopback(uri, headers) {
        let allowed = "Host: localhost, 127.0.0.1 or [::1], with or without a port";
        return Some(Problem::new(StatusCode::FORBIDDEN, "this host name is not served", allowed));
    }
    if !is_of_loopback(headers) {
        let allowed = "requests of programs, and of pages that this machine serves";
        return Some(Problem::new(StatusCode::FORBIDDEN, "another origin's page asks", allowed));
    }
    let announced = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    let reads = uri.path().starts_with(INVENTORY);
    let most = if reads { super::inventory::BODY_OCTETS_MAX as u64 } else { BODY_OCTETS_MAX };
    (announced > most).then(|| {
        let allowed = format!("a body of at most {most} octets");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", allowed)
    })
}

/// Both the `Host` header and, where the request line names one, its authority must be ours.
fn is_for_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let only_one = hosts.next().is_none();
    only_one && host.is_some_and(is_loopback) && uri.host().is_none_or(is_loopback)
}

/// A browser names the origin of a page that sends what a link cannot.
fn is_of_loopback(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    host.is_some_and(|(_, host)| is_loopback(host))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && !name.ends_with(':') => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

fn is_port(text: &str) -> bool {
    !text.contains(']') && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_loopback_are_served() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:80"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org:80",
            "127.0.0.2",
            "localhost:x",
            "localhost:99999",
            "[::1",
            "[::2]:80",
            "::1",
            "localhost:80:80",
            ":80",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let from = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            is_of_loopback(&headers)
        };
        assert!(is_of_loopback(&HeaderMap::new()));
        assert!(from("http://127.0.0.1:8080") && from("http://localhost"));
        for origin in ["https://example.org", "null", "http://localhost.example.org", ""] {
            assert!(!from(origin), "{origin}");
        }
    }

    #[test]
    fn a_request_needs_exactly_one_host() {
        let uri = Uri::from_static("/");
        let mut headers = HeaderMap::new();
        assert!(!is_for_loopback(&uri, &headers));
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(is_for_loopback(&uri, &headers));
        assert!(!is_for_loopback(&Uri::from_static("http://example.org/"), &headers));
        headers.append(header::HOST, HeaderValue::from_static("example.org"));
        assert!(!is_for_loopback(&uri, &headers));
    }
}
