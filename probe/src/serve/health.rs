//! Whether the probe does its work.
//!
//! In: the newest snapshot and its age. Out: `/healthz`: 200, or 503 with every reason. A probe
//! that has ended on purpose is well, however long ago that was.
//! Invariants: an alert about traffic is no fault of the probe and does not appear here.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::aggregate::live::{LiveMode, LiveSink, LiveSnapshot};
use crate::time::{monotonic_ns, ms};

use super::routes::Shared;

/// A live probe is late when no window closed for this many window lengths …
const LATE_WINDOWS: u64 = 10;
/// … and for at least this long.
const LATE_MS_MIN: u64 = 10_000;

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    /// `ok`, `ended` or `failing`.
    status: &'static str,
    reasons: Vec<Reason>,
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Reason {
    /// One word for programs.
    pub(super) code: &'static str,
    /// One sentence for people.
    pub(super) detail: String,
}

/// `GET /healthz`.
pub(super) async fn health(State(shared): State<Shared>) -> Response {
    let published = shared.newest();
    let age_ns = monotonic_ns().saturating_sub(published.noticed_ns);
    let (code, health) = judge(&published.snapshot, age_ns);
    (code, Json(health)).into_response()
}

fn judge(snapshot: &LiveSnapshot, age_ns: u64) -> (StatusCode, Health) {
    verdict(reasons(snapshot, age_ns), snapshot.ended)
}

/// What the answer is, with all that is wrong.
pub(super) fn verdict(reasons: Vec<Reason>, ended: bool) -> (StatusCode, Health) {
    let (code, status) = match (reasons.is_empty(), ended) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
        (true, true) => (StatusCode::OK, "ended"),
        (true, false) => (StatusCode::OK, "ok"),
    };
    (code, Health { status, reasons })
}

fn reasons(snapshot: &LiveSnapshot, age_ns: u64) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut add = |code, detail| reasons.push(Reason { code, detail });
    let late_ms = LATE_MS_MIN.max(LATE_WINDOWS * u64::from(snapshot.window_length_ms));
    let is_late = snapshot.mode == LiveMode::Run && age_ns > ms(late_ms);
    // After the end no window is waited for.
    if !snapshot.ended && snapshot.window_count == 0 {
        add("no_window_yet", "no window has closed yet".to_owned());
    } else if !snapshot.ended && is_late {
        add("window_late", format!("no window closed for {} s", age_ns / ms(1_000)));
    }
    let unaccounted = snapshot.ledger.unaccounted;
    if unaccounted != 0 {
        add("unaccounted", format!("the ledger leaves {unaccounted} packets unaccounted"));
    }
    if !is_fine(&snapshot.store.state) {
        add("store", format!("records are not written: {}", snapshot.store.state));
    }
    reasons.extend(failing(&snapshot.ledger.sinks));
    reasons
}

/// Of each sink that takes nothing.
pub(super) fn failing(sinks: &[LiveSink]) -> impl Iterator<Item = Reason> {
    sinks.iter().filter(|sink| !is_fine(&sink.state)).map(|sink| {
        let problem = sink.problem.as_ref().map(|what| format!(", {what}")).unwrap_or_default();
        let detail = format!("sink {}: {}{problem}", sink.name, sink.state);
        Reason { code: "sink", detail }
    })
}

fn is_fine(state: &str) -> bool {
    // Who took a sink away knows that it delivers nothing more.
    matches!(state, "ok" | "off" | "retired" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(snapshot: &LiveSnapshot, age_ms: u64) -> Vec<&'static str> {
        reasons(snapshot, ms(age_ms)).iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn each_fault_has_its_reason() {
        let mut snapshot = LiveSnapshot { window_length_ms: 1_000, ..LiveSnapshot::default() };
        assert_eq!(codes(&snapshot, 0), ["no_window_yet"]);
        snapshot.window_count = 1;
        assert!(codes(&snapshot, 9_000).is_empty());
        assert_eq!(codes(&snapshot, 11_000), ["window_late"]);
        snapshot.mode = LiveMode::Replay;
        assert!(codes(&snapshot, 11_000).is_empty());
        snapshot.ledger.unaccounted = -1;
        snapshot.store.state = "disk_full".to_owned();
        let state = "unreachable".to_owned();
        snapshot.ledger.sinks.push(LiveSink { state, ..LiveSink::default() });
        assert_eq!(codes(&snapshot, 0), ["unaccounted", "store", "sink"]);
        "retired".clone_into(&mut snapshot.ledger.sinks[0].state);
        assert_eq!(codes(&snapshot, 0), ["unaccounted", "store"]);
    }

    #[test]
    fn a_probe_that_has_ended_is_well_for_ever() {
        let mut snapshot = LiveSnapshot {
            window_length_ms: 1_000,
            window_count: 5,
            ended: true,
            ..LiveSnapshot::default()
        };
        let (code, health) = judge(&snapshot, ms(11_000));
        assert_eq!((code, health.status), (StatusCode::OK, "ended"));
        snapshot.ledger.unaccounted = 1;
        let (code, health) = judge(&snapshot, ms(11_000));
        assert_eq!((code, health.status), (StatusCode::SERVICE_UNAVAILABLE, "failing"));
    }
}
