//! Metrics sent to a collector of OpenTelemetry.

use std::path::PathBuf;

use super::sink::{HttpUrl, SecretPlace, SinkAccess};

/// `[otlp]`.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpPlan {
    /// Where it takes OTLP by HTTP; `None`: nothing is sent.
    pub url: Option<HttpUrl>,
    /// Where the value of the header `Authorization` is.
    pub authorization: Option<SecretPlace>,
    /// Certificates of authorities, PEM.
    pub ca_file: PathBuf,
    /// How often, in milliseconds.
    pub interval_ms: u32,
    /// Longest time of one attempt, in milliseconds.
    pub timeout_ms: u32,
}

impl Default for OtlpPlan {
    fn default() -> Self {
        Self {
            url: None,
            authorization: None,
            ca_file: SinkAccess::default().ca_file,
            interval_ms: 15_000,
            timeout_ms: 5_000,
        }
    }
}
