//! What a client is told when a request cannot be answered.
//!
//! In: a status and a sentence. Out: JSON `{error, allowed}`.
//! Invariants: nothing of the request is repeated beyond a bounded, JSON-escaped name.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Characters of a client's text that are repeated in an answer.
const REPEATED_CHARS_MAX: usize = 64;

/// A request that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    pub(super) status: StatusCode,
    /// What is wrong.
    pub(super) error: String,
    /// What would be right.
    pub(super) allowed: String,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { status, error: error.into(), allowed: allowed.into() }
    }

    /// 400.
    pub(super) fn bad_request(error: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, allowed)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

/// A client's text, cut so that it can stand in an answer.
pub(super) fn repeated(text: &str) -> String {
    text.chars().take(REPEATED_CHARS_MAX).collect()
}
