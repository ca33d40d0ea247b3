//! Conversations with their addresses in an hour, for `vmprobe topology`.
//!
//! In: `windows`, what the inventory says when an hour is added up. Out: SQL.
//! Invariants: rows of a conversation are split where the inventory is known to change at its ends, so that
//! whoever asks finds no change inside one. What becomes known later may fall inside: then the windows of
//! these ends are read instead (`topology/rolled.rs`).

use super::{HOUR_NS, start_of};

/// What tells conversations apart.
pub(crate) const KEYS: [&str; 13] = [
    "probe_id",
    "address_space",
    "source_address",
    "destination_address",
    "source_mac",
    "destination_mac",
    "source_network_kind",
    "destination_network_kind",
    "protocol_identifier",
    "destination_port",
    "application_name",
    "segment",
    "tap",
];
const SUMS: [&str; 4] = [
    "packet_delta_count",
    "reverse_packet_delta_count",
    "octet_delta_count",
    "reverse_octet_delta_count",
];
/// First and last begin and end of the windows of a row.
const TIMES: [(&str, &str, &str); 4] = [
    ("first_start_ns", "min", "window_start_ns"),
    ("last_start_ns", "max", "window_start_ns"),
    ("first_end_ns", "min", "window_end_ns"),
    ("last_end_ns", "max", "window_end_ns"),
];

/// Rows of `from`, windows, in its columns.
pub(super) fn as_they_are(from: &str) -> String {
    let times = TIMES.map(|(name, _, of)| format!("{of} AS {name}"));
    format!(
        "SELECT {} AS start_ns, {}, {}, {} FROM {from}",
        start_of("window_start_ns", HOUR_NS),
        KEYS.join(", "),
        SUMS.join(", "),
        times.join(", ")
    )
}

/// Rows of `from`, windows, added up, but for those between which `split` changes.
pub(super) fn added_up(from: &str, split: &[String; 2]) -> String {
    let sums = SUMS.map(|name| format!("sum({name})::UBIGINT AS {name}"));
    let times = TIMES.map(|(name, function, of)| format!("{function}({of}) AS {name}"));
    format!(
        "SELECT * EXCLUDE (split_from, split_to) FROM (\
         SELECT {start} AS start_ns, {keys}, {from_ns} AS split_from, {to_ns} AS split_to, {}, {} \
         FROM {from} GROUP BY ALL) ORDER BY address_space, destination_address, source_address",
        sums.join(", "),
        times.join(", "),
        start = start_of("window_start_ns", HOUR_NS),
        keys = KEYS.join(", "),
        from_ns = split[0],
        to_ns = split[1],
    )
}
