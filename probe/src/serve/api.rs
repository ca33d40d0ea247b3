//! The JSON answers under `/api/v1`.
//!
//! In: the newest snapshot. Out: the whole of it, or one of its lists.
//! Cost: the whole snapshot is shared; a list is serialised per request.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::aggregate::live::{
    LiveAlert, LiveConversation, LiveLedger, LiveMigration, LivePath, LiveTap, LiveWorker,
};
use crate::counters::DropCause;

use super::list::{self, Filter, Pairs};
use super::routes::Shared;

const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

/// What `/api/v1/conversations` can be filtered by.
pub(super) const CONVERSATION_FILTERS: &[Filter<LiveConversation>] = &[
    Filter { name: "vm", values: &[], passes: |row, value| vms(row).any(|vm| vm == value) },
    Filter {
        name: "tenant",
        values: &[],
        passes: |row, value| tenants(row).any(|name| name == value),
    },
    Filter {
        name: "address",
        values: &[],
        passes: |row, value| row.source_address == value || row.destination_address == value,
    },
    Filter { name: "segment", values: &[], passes: |row, value| row.segment == value },
    Filter {
        name: "application",
        values: &[],
        passes: |row, value| row.application_name.as_deref() == Some(value),
    },
    Filter {
        name: "class",
        values: &["east_west", "inter_tenant", "north_south", "transit"],
        passes: |row, value| row.traffic_class == value,
    },
];

/// What `/api/v1/alerts` can be filtered by.
pub(super) const ALERT_FILTERS: &[Filter<LiveAlert>] = &[
    Filter { name: "detector", values: &[], passes: |alert, value| alert.detector == value },
    Filter {
        name: "state",
        values: &["open", "updated", "closed"],
        passes: |alert, value| alert.state == value,
    },
    Filter {
        name: "severity",
        values: &["info", "low", "medium", "high", "critical"],
        passes: |alert, value| alert.severity == value,
    },
    Filter {
        name: "vm",
        values: &[],
        passes: |alert, value| {
            let source = alert.source_virtual_station_name.as_deref();
            source == Some(value)
                || alert.destination_virtual_station_name.as_deref() == Some(value)
        },
    },
    Filter {
        name: "address",
        values: &[],
        passes: |alert, value| {
            let source = alert.source_address.as_deref();
            source == Some(value) || alert.destination_address.as_deref() == Some(value)
        },
    },
];

/// What `/api/v1/workers` can be filtered by.
pub(super) const WORKER_FILTERS: &[Filter<LiveWorker>] = &[Filter {
    name: "port",
    values: &[],
    passes: |worker, value| worker.port.as_deref() == Some(value),
}];

/// What `/api/v1/taps` can be filtered by.
pub(super) const TAP_FILTERS: &[Filter<LiveTap>] = &[
    Filter { name: "name", values: &[], passes: |tap, value| tap.name == value },
    Filter { name: "host", values: &[], passes: |tap, value| tap.host.as_deref() == Some(value) },
];

/// What `/api/v1/paths` can be filtered by.
pub(super) const PATH_FILTERS: &[Filter<LivePath>] = &[
    Filter { name: "from_tap", values: &[], passes: |path, value| path.from_tap == value },
    Filter { name: "to_tap", values: &[], passes: |path, value| path.to_tap == value },
    Filter {
        name: "host",
        values: &[],
        passes: |path, value| {
            path.from_host.as_deref() == Some(value) || path.to_host.as_deref() == Some(value)
        },
    },
];

/// What `/api/v1/migrations` can be filtered by.
pub(super) const MIGRATION_FILTERS: &[Filter<LiveMigration>] = &[
    Filter {
        name: "vm",
        values: &[],
        passes: |migration, value| {
            migration.virtual_station_name.as_deref() == Some(value)
                || migration.virtual_station_uuid.as_deref() == Some(value)
        },
    },
    Filter {
        name: "tenant",
        values: &[],
        passes: |migration, value| migration.virtual_station_tenant.as_deref() == Some(value),
    },
    Filter {
        name: "address",
        values: &[],
        passes: |migration, value| migration.address.as_deref() == Some(value),
    },
    Filter {
        name: "host",
        values: &[],
        passes: |migration, value| {
            migration.from_host.as_deref() == Some(value)
                || migration.to_host.as_deref() == Some(value)
        },
    },
];

/// Names and UUIDs of both VMs.
fn vms(row: &LiveConversation) -> impl Iterator<Item = &str> {
    [
        &row.source_virtual_station_name,
        &row.source_virtual_station_uuid,
        &row.destination_virtual_station_name,
        &row.destination_virtual_station_uuid,
    ]
    .into_iter()
    .flatten()
    .map(String::as_str)
}

fn tenants(row: &LiveConversation) -> impl Iterator<Item = &str> {
    [&row.source_virtual_station_tenant, &row.destination_virtual_station_tenant]
        .into_iter()
        .flatten()
        .map(String::as_str)
}

/// `GET /api/v1/live`.
pub(super) async fn live(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    match list::none_allowed(&pairs) {
        Ok(()) => ([JSON], shared.newest().json.clone()).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// `GET /api/v1/conversations`.
pub(super) async fn conversations(
    State(shared): State<Shared>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let snapshot = &shared.newest().snapshot;
    list::answer(snapshot, &snapshot.top_conversations, CONVERSATION_FILTERS, &pairs)
}

/// `GET /api/v1/alerts`.
pub(super) async fn alerts(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    let snapshot = &shared.newest().snapshot;
    list::answer(snapshot, &snapshot.alerts, ALERT_FILTERS, &pairs)
}

/// `GET /api/v1/workers`.
pub(super) async fn workers(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    let snapshot = &shared.newest().snapshot;
    list::answer(snapshot, &snapshot.workers, WORKER_FILTERS, &pairs)
}

/// `GET /api/v1/taps`.
pub(super) async fn taps(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    let snapshot = &shared.newest().snapshot;
    list::answer(snapshot, &snapshot.taps, TAP_FILTERS, &pairs)
}

/// `GET /api/v1/paths`.
pub(super) async fn paths(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    let snapshot = &shared.newest().snapshot;
    list::answer(snapshot, &snapshot.paths, PATH_FILTERS, &pairs)
}

/// `GET /api/v1/migrations`.
pub(super) async fn migrations(
    State(shared): State<Shared>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let snapshot = &shared.newest().snapshot;
    list::answer(snapshot, &snapshot.migrations, MIGRATION_FILTERS, &pairs)
}

/// The ledger with what each of its causes means.
#[derive(Serialize)]
struct ExplainedLedger<'a> {
    window_start_ns: u64,
    #[serde(flatten)]
    ledger: &'a LiveLedger,
    meanings: BTreeMap<&'static str, &'static str>,
}

/// `GET /api/v1/ledger`.
pub(super) async fn ledger(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    if let Err(problem) = list::none_allowed(&pairs) {
        return problem.into_response();
    }
    let snapshot = &shared.newest().snapshot;
    let named =
        DropCause::ALL.iter().filter(|cause| snapshot.ledger.causes.contains_key(cause.name()));
    Json(ExplainedLedger {
        window_start_ns: snapshot.window_start_ns,
        ledger: &snapshot.ledger,
        meanings: named.map(|cause| (cause.name(), cause.meaning())).collect(),
    })
    .into_response()
}
