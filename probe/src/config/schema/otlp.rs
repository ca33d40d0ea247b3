//! Keys of `[otlp]`.

use super::super::document::Given::{Default, Nothing};
use super::super::document::{Kind, Table, key};
use super::integer;

pub(super) static OTLP: Table = Table {
    path: "otlp",
    meaning: "The metrics of /metrics, sent to a collector of OpenTelemetry while the probe runs. \
              docs/sinks/otlp.md says more.",
    keys: &[
        key(
            "url",
            Kind::Http,
            Nothing("\"http://127.0.0.1:4318\""),
            "",
            "Where it takes OTLP by HTTP, without /v1/metrics. Without it nothing is sent.",
        ),
        key(
            "authorization",
            Kind::Secret,
            Nothing("\"file:/etc/vmprobe/otlp-authorization\""),
            "",
            "Where the value of the header Authorization is, such as Bearer and a token; read each time.",
        ),
        key(
            "ca_file",
            Kind::Path,
            Default("\"/etc/ssl/certs/ca-certificates.crt\""),
            "",
            "Certificates of the authorities that its certificate is checked with, PEM; for https only.",
        ),
        key("interval_ms", integer(100, 3_600_000), Default("15000"), "ms", "How often."),
        key(
            "timeout_ms",
            integer(100, 60_000),
            Default("5000"),
            "ms",
            "Longest time of one attempt.",
        ),
    ],
};
