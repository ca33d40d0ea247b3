//! HTTP API, live page and metrics.
//!
//! In: the newest [`LiveSnapshot`](crate::aggregate::live::LiveSnapshot), the inventory. Out: JSON under
//! `/api/v1`, server-sent events, the page, `/metrics`, `/healthz`; the same metrics to OpenTelemetry.
//! Cost: two threads of its own; a window is serialised once for all clients.
//! Invariants: no worker and no aggregator ever waits for a client: they only swap a pointer.
//! Loopback only. Connections, streams, request sizes and waiting times are bounded; a client
//! that is too slow for a stream misses windows.
//! What `vmprobe correlate` shows of itself goes the same way (`member`).
//! Source: RFC 9110 (HTTP), RFC 9112 (HTTP/1.1), WHATWG HTML section 9.2 (server-sent events).

mod api;
mod connections;
mod coverage;
mod feed;
mod guard;
mod health;
mod inventory;
mod list;
mod member;
mod metrics;
mod openapi;
mod otlp;
mod page;
mod problem;
mod routes;
mod stall;
mod stream;
mod topology;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::aggregate::live::LiveCell;
use crate::config::ServePlan;
use crate::inventory::Inventory;
use crate::store::query::Records;

pub use inventory::InventoryApi;
pub use member::start as start_member;
pub use openapi::DOCUMENT as OPENAPI_DOCUMENT;
pub use otlp::{Pusher, start as start_otlp};
pub use routes::paths as route_paths;
pub use stream::STREAMS_MAX;

/// Threads that answer requests.
const THREADS: usize = 2;
/// How long [`ServeHandle::stop`] lets answers finish.
const DRAIN_MS: u64 = 2_000;
/// How long it then waits for the threads.
const THREADS_END_MS: u64 = 1_000;

/// Why the server side could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is reachable from outside, which would need TLS and a token.
    #[error("{key}: {listen} is no loopback address; use 127.0.0.1 or [::1]")]
    NotLoopback {
        /// The key that says where to listen.
        key: &'static str,
        /// As configured.
        listen: SocketAddr,
    },
    /// Another program has the port.
    #[error("{key}: {listen} is in use; choose another port, or 0 for any free one")]
    PortBusy {
        /// The key that says where to listen.
        key: &'static str,
        /// As configured.
        listen: SocketAddr,
    },
    /// The address could not be bound.
    #[error("{key}: cannot listen on {listen}: {source}")]
    Listen {
        /// The key that says where to listen.
        key: &'static str,
        /// As configured.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The threads could not start.
    #[error("serve: cannot start its threads: {source}")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
}

/// The running server side. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct ServeHandle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: Option<(Runtime, JoinHandle<()>)>,
}

impl ServeHandle {
    /// Where it listens; the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends streams, lets other answers finish for at most 2 s, and ends the threads. Returns
    /// within 3 s.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        let Some((runtime, server)) = self.tasks.take() else { return };
        let drained = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(DRAIN_MS), server).await
        });
        if drained.is_err() {
            tracing::warn!("some HTTP connections did not end in time and were cut");
        }
        runtime.shutdown_timeout(Duration::from_millis(THREADS_END_MS));
    }
}

impl Drop for ServeHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some((runtime, _)) = self.tasks.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts the server side on threads of its own. They run where the caller may run: pin
/// workers, not the caller.
///
/// # Errors
/// [`ServeError`] where the address is no loopback address or cannot be bound.
pub fn start(plan: &ServePlan, live: LiveCell) -> Result<ServeHandle, ServeError> {
    start_with(plan, live, InventoryApi::of(Inventory::default()), None)
}

/// The same, with an inventory, and where the records are, if they are kept.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    plan: &ServePlan,
    live: LiveCell,
    inventory: InventoryApi,
    records: Option<Records>,
) -> Result<ServeHandle, ServeError> {
    let handle = serve("serve.listen", plan.listen, THREADS, |stopping| {
        let published = feed::start(live, stopping.clone());
        routes::router(routes::Shared::new(published, stopping, (inventory, records)))
    })?;
    tracing::info!(address = %handle.address, "page, API and metrics");
    Ok(handle)
}

/// Serves what `router` makes, on so many threads. `key`: what says where.
fn serve(
    key: &'static str,
    listen: SocketAddr,
    thread_count: usize,
    router: impl FnOnce(Stopping) -> Router,
) -> Result<ServeHandle, ServeError> {
    if !listen.ip().is_loopback() {
        return Err(ServeError::NotLoopback { key, listen });
    }
    let failed = |source| ServeError::Listen { key, listen, source };
    let listener = bind(key, listen)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = threads(thread_count)?;
    let (stop, stopping) = watch::channel(false);
    let server = {
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let stopping = Stopping(stopping);
        let router = router(stopping.clone());
        tokio::spawn(connections::accept(listener, router, stopping))
    };
    Ok(ServeHandle { address, stop, tasks: Some((runtime, server)) })
}

/// Tells a task that the probe stops.
#[derive(Clone, Debug)]
struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Waits until the probe stops.
    async fn wait(&mut self) {
        // An error means that the handle is gone, which is a stop too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

fn bind(key: &'static str, listen: SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::PortBusy { key, listen },
        _ => ServeError::Listen { key, listen, source },
    })
}

fn threads(count: usize) -> Result<Runtime, ServeError> {
    Builder::new_multi_thread()
        .worker_threads(count)
        .max_blocking_threads(1)
        .thread_name("vmprobe-serve")
        .enable_all()
        .build()
        .map_err(|source| ServeError::Threads { source })
}
