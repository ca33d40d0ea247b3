//! Accepts connections and bounds what each may cost.
//!
//! In: a listener and the router. Out: answers.
//! Invariants: at most [`CONNECTIONS_MAX`] connections; a head of at most [`HEAD_BYTES_MAX`]
//! bytes that arrives within [`HEAD_S`] s, which also ends idle connections; a client that
//! takes nothing for [`super::stall::STALL_S`] s is cut.
//! Source: RFC 9112.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::Stopping;
use super::stall::StallGuard;

/// Connections at one time; further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = 256;
/// Seconds in which a request's head must arrive.
const HEAD_S: u64 = 5;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// Pause after the system refused a connection (no file descriptors left).
const REFUSED_MS: u64 = 100;

/// Accepts until `stopping` says so, then lets open answers finish.
pub(super) async fn accept(listener: TcpListener, router: Router, mut stopping: Stopping) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let (stream, place) = tokio::select! {
            () = stopping.wait() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept_one(&listener, &places) => accepted,
        };
        connections.spawn(serve(stream, place, router.clone(), stopping.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::debug!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(REFUSED_MS)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    router: Router,
    mut stopping: Stopping,
) {
    // Small answers go out at once; where the option cannot be set they are only slower.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(stream));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_S))
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended early");
    }
}
