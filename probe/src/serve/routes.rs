//! The table of routes.
//!
//! In: nothing. Out: the router, and the paths that the OpenAPI document must have.
//! Invariants: every route answers GET and HEAD; only those of the inventory change anything, by other
//! methods.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::store::query::Records;

use super::Stopping;
use super::feed::Published;
use super::inventory::InventoryApi;
use super::metrics::Rendered;
use super::problem::{Problem, repeated};
use super::{api, coverage, guard, health, inventory, metrics, openapi, page, stream, topology};

/// What handlers see.
#[derive(Clone)]
pub(super) struct Shared {
    /// The newest snapshot.
    pub(super) published: watch::Receiver<Arc<Published>>,
    /// Becomes true when the probe stops.
    pub(super) stopping: Stopping,
    /// Places for clients of the live stream.
    pub(super) streams: Arc<Semaphore>,
    /// Metrics of the newest window that was asked for.
    pub(super) metrics: Arc<Mutex<Option<Arc<Rendered>>>>,
    /// Who is who.
    pub(super) inventory: InventoryApi,
    /// Where the records are, if they are kept.
    pub(super) records: Option<Records>,
    /// Places for questions to the records.
    pub(super) questions: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(
        published: watch::Receiver<Arc<Published>>,
        stopping: Stopping,
        (inventory, records): (InventoryApi, Option<Records>),
    ) -> Self {
        let streams = Arc::new(Semaphore::new(stream::STREAMS_MAX));
        let questions = Arc::new(Semaphore::new(1));
        let metrics = Arc::default();
        Self { published, stopping, streams, metrics, inventory, records, questions }
    }

    /// The newest snapshot.
    pub(super) fn newest(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }
}

fn table() -> [(&'static str, MethodRouter<Shared>); 20] {
    [
        ("/", get(page::index)),
        ("/page/{file}", get(page::file)),
        ("/api/v1/live", get(api::live)),
        ("/api/v1/live/stream", get(stream::stream)),
        ("/api/v1/conversations", get(api::conversations)),
        ("/api/v1/alerts", get(api::alerts)),
        ("/api/v1/ledger", get(api::ledger)),
        ("/api/v1/workers", get(api::workers)),
        ("/api/v1/taps", get(api::taps)),
        ("/api/v1/paths", get(api::paths)),
        ("/api/v1/migrations", get(api::migrations)),
        ("/api/v1/topology", get(topology::topology)),
        ("/api/v1/inventory", get(inventory::status).post(inventory::events)),
        ("/api/v1/inventory/vms", get(inventory::vms)),
        (
            "/api/v1/inventory/vms/{uuid}",
            get(inventory::vm).put(inventory::put_vm).delete(inventory::end_vm),
        ),
        ("/api/v1/inventory/resolve/{address}", get(inventory::resolve)),
        ("/api/v1/coverage", get(coverage::coverage)),
        ("/api/v1/openapi.json", get(openapi::document)),
        ("/metrics", get(metrics::metrics)),
        ("/healthz", get(health::health)),
    ]
}

/// Every path that is served, with parameters in braces.
pub fn paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

/// The router with all routes behind the guard.
pub(super) fn router(shared: Shared) -> Router {
    let not_found = |uri: Uri| async move { not_found(&uri, "see /api/v1/openapi.json") };
    let routes = table().into_iter();
    let router = routes.fold(Router::new(), |router, (path, handler)| router.route(path, handler));
    guarded(router.fallback(not_found)).with_state(shared)
}

/// Routes behind the guard, with bounds on what is sent.
pub(super) fn guarded<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(inventory::BODY_OCTETS_MAX))
        .layer(middleware::from_fn(guard::guard))
}

pub(super) fn not_found(uri: &Uri, allowed: &'static str) -> Response {
    let error = format!("nothing is served at {}", repeated(uri.path()));
    Problem::new(StatusCode::NOT_FOUND, error, allowed).into_response()
}

async fn method_not_allowed(method: Method) -> Response {
    let error = format!("{} is not answered here", repeated(method.as_str()));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, error, "GET, HEAD").into_response()
}
