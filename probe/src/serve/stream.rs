//! Server-sent events: one event a window.
//!
//! In: the newest [`Published`]. Out: an endless answer of `event: live` frames.
//! Cost: clients share the octets of an event.
//! Invariants: at most [`STREAMS_MAX`] streams; a slow client gets the newest snapshot when it
//! reads again and none of those between; all streams end when the probe stops.
//! Source: WHATWG HTML section 9.2.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Stopping;
use super::feed::Published;
use super::problem::Problem;
use super::routes::Shared;

/// Clients of the stream at one time.
pub const STREAMS_MAX: usize = 64;
/// Silence after which a comment is sent, so that both sides notice a dead peer.
const KEEP_ALIVE_S: u64 = 15;
/// How long a browser waits before it comes again.
const HELLO: &str = "retry: 2000\n\n";

/// `GET /api/v1/live/stream`.
pub(super) async fn stream(State(shared): State<Shared>) -> Response {
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let allowed = format!("{STREAMS_MAX} streams at one time; poll /api/v1/live instead");
        let problem =
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live streams", allowed);
        return ([(header::RETRY_AFTER, "5")], problem).into_response();
    };
    let client = Client {
        published: shared.published.clone(),
        stopping: shared.stopping.clone(),
        greeted: Greeting::Hello,
        _permit: permit,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(stream::unfold(client, Client::next))).into_response()
}

enum Greeting {
    Hello,
    Present,
    Following,
}

struct Client {
    published: watch::Receiver<Arc<Published>>,
    stopping: Stopping,
    greeted: Greeting,
    _permit: OwnedSemaphorePermit,
}

impl Client {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let chunk = match self.greeted {
            Greeting::Hello => {
                self.greeted = Greeting::Present;
                Bytes::from_static(HELLO.as_bytes())
            }
            Greeting::Present => {
                self.greeted = Greeting::Following;
                self.newest()
            }
            Greeting::Following => self.follow().await?,
        };
        Some((Ok(chunk), self))
    }

    fn newest(&mut self) -> Bytes {
        self.published.borrow_and_update().event.clone()
    }

    /// The next event, or a comment after long silence; `None` when the probe stops.
    async fn follow(&mut self) -> Option<Bytes> {
        let silence = Duration::from_secs(KEEP_ALIVE_S);
        tokio::select! {
            () = self.stopping.wait() => None,
            changed = tokio::time::timeout(silence, self.published.changed()) => match changed {
                Ok(Ok(())) => Some(self.newest()),
                Ok(Err(_)) => None,
                Err(_) => Some(Bytes::from_static(b": no new window\n\n")),
            },
        }
    }
}
