//! Keys of `[correlate]`.

use super::super::document::Given::{Default, Nothing};
use super::super::document::{Kind, Table, key};
use super::integer;
use super::sink::{BROKERS_MAX, CA_FILE, MECHANISM, PASSWORD, USER};

/// What `vmprobe correlate` reads.
pub(super) static CORRELATE: Table = Table {
    path: "correlate",
    meaning: "What `vmprobe correlate` reads from Kafka. docs/correlate.md.",
    keys: &[
        key(
            "brokers",
            Kind::List(&Kind::Stream, BROKERS_MAX),
            Nothing("[\"tls://kafka1.example:9093\"]"),
            "",
            "Brokers that are asked for all others; all with TLS or all without.",
        ),
        USER,
        PASSWORD,
        MECHANISM,
        CA_FILE,
        key(
            "topic_prefix",
            Kind::Name,
            Default("\"vmprobe.\""),
            "",
            "What stands before path_samples and windows in the topics that probes write to, and before \
             trajectories and contacts in those between members.",
        ),
        key(
            "group",
            Kind::Name,
            Default("\"vmprobe-correlate\""),
            "",
            "Consumer group; its members share the work.",
        ),
        key(
            "hold_ms",
            integer(100, 600_000),
            Default("15000"),
            "ms",
            "How long after the first sighting of a packet was sent others of it are waited for; and after \
             the first record of a window others of it.",
        ),
        key(
            "detect",
            Kind::Flag,
            Default("false"),
            "",
            "Whether the detectors ([detect]) look at the windows of all probes together.",
        ),
        key(
            "history_s",
            integer(60, 86_400),
            Default("3600"),
            "seconds",
            "How far back a member that takes over the detectors reads at most, to know what goes on: so \
             long before the last window that was over, or for detect.port_scan.forget_s and 64 windows, \
             where that is more. What began before is an alert that opens anew.",
        ),
        key(
            "contacts_mib_max",
            integer(16, 1_048_576),
            Default("1024"),
            "MiB",
            "Memory for who contacted whom in windows that are not over, also while detectors look at it; \
             what finds no room is left out and counted (contacts_full).",
        ),
        key(
            "listen",
            Kind::Listen,
            Nothing("\"127.0.0.1:8081\""),
            "",
            "Where metrics (/metrics) and health (/healthz) of a member are served.",
        ),
        key(
            "session_ms",
            integer(1_000, 300_000),
            Default("10000"),
            "ms",
            "A member that says nothing for so long is taken for dead, and its part given to others.",
        ),
    ],
};
