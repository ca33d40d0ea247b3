//! What `vmprobe correlate` shows of itself.
//!
//! In: the newest [`Status`]. Out: `/metrics` and `/healthz`, on a loopback address.
//! Cost: one thread of its own; the member only swaps a pointer, twice a second.
//! Invariants: as those of the probe's own page. A backlog is no fault of the member: it is shown, and
//! whoever watches says how much is too much.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use crate::correlate::{LaneStatus, Status, StatusCell};
use crate::export::SinkReport;
use crate::time::{monotonic_ns, ms};

use super::health::{Health, Reason, failing, verdict};
use super::{ServeError, ServeHandle, metrics, routes, serve};

/// A member is stuck when it has not come round for so long: a round waits for brokers 10 s at a time.
const LATE_MS: u64 = 60_000;

/// Serves it until the handle is stopped. `status` is what
/// [`correlate`](crate::correlate::correlate) keeps.
///
/// # Errors
/// [`ServeError`] where the address is no loopback address or cannot be bound.
pub fn start(listen: SocketAddr, status: StatusCell) -> Result<ServeHandle, ServeError> {
    let handle = serve("correlate.listen", listen, 1, |_| router(status))?;
    tracing::info!(address = %handle.address(), "metrics and health");
    Ok(handle)
}

fn router(status: StatusCell) -> Router {
    let nothing = |uri: Uri| async move { routes::not_found(&uri, "/metrics, /healthz") };
    let router = Router::new()
        .route("/metrics", get(metrics::member_metrics))
        .route("/healthz", get(health))
        .fallback(nothing);
    routes::guarded(router).with_state(status)
}

/// `GET /healthz`.
async fn health(State(status): State<StatusCell>) -> Response {
    let (code, health) = judge(&status.load(), monotonic_ns());
    (code, Json(health)).into_response()
}

fn judge(status: &Status, now_ns: u64) -> (StatusCode, Health) {
    verdict(reasons(status, now_ns), false)
}

fn reasons(status: &Status, now_ns: u64) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let age_ns = now_ns.saturating_sub(status.round_ns);
    if status.round_ns == 0 {
        let detail = "nothing was read yet".to_owned();
        reasons.push(Reason { code: "no_round_yet", detail });
    } else if age_ns > ms(LATE_MS) {
        let detail = format!("nothing was done for {} s", age_ns / ms(1_000));
        reasons.push(Reason { code: "round_late", detail });
    }
    reasons.extend(status.lanes.iter().flat_map(away));
    let sinks: Vec<_> = status.sinks.iter().map(SinkReport::live).collect();
    reasons.extend(failing(&sinks));
    reasons
}

/// Topics whose brokers are not there.
fn away(lane: &LaneStatus) -> impl Iterator<Item = Reason> {
    lane.topics.iter().filter(|topic| topic.brokers_up == Some(0)).map(|topic| {
        let why = topic.trouble.as_ref().map(|what| format!(": {what}")).unwrap_or_default();
        let detail = format!("topic {}: no broker is there{why}", topic.topic);
        Reason { code: "brokers", detail }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::TopicStatus;
    use crate::export::SinkHealth;
    use crate::time::Timestamp;

    #[test]
    fn each_fault_has_its_reason() {
        let codes = |status: &Status, now_ms: u64| -> Vec<&'static str> {
            reasons(status, ms(now_ms)).iter().map(|reason| reason.code).collect()
        };
        let mut status = Status::default();
        assert_eq!(codes(&status, 5), ["no_round_yet"]);
        status.round_ns = ms(1_000);
        let topic = |brokers_up| TopicStatus { brokers_up, ..TopicStatus::default() };
        let lane = |brokers_up| LaneStatus {
            topics: [topic(Some(3)), topic(brokers_up)],
            ..LaneStatus::default()
        };
        // Nobody has looked yet: that is no fault.
        status.lanes = vec![lane(Some(1)), lane(None)];
        assert!(codes(&status, 2_000).is_empty());
        assert_eq!(judge(&status, ms(2_000)).0, StatusCode::OK);
        assert_eq!(codes(&status, 62_000), ["round_late"]);
        status.lanes.push(lane(Some(0)));
        let health =
            SinkHealth::Failing { what: "away".to_owned(), full: false, since: Timestamp::ZERO };
        status.sinks.push(SinkReport { health, ..SinkReport::default() });
        assert_eq!(codes(&status, 2_000), ["brokers", "sink"]);
        assert_eq!(judge(&status, ms(2_000)).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
