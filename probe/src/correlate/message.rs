//! What members tell each other.
//!
//! In: messages. Out: JSON, and back.
//! Invariants: each topic between members has messages of one lane only; those of another are left out, and
//! counted.

use serde::{Deserialize, Serialize};

use super::contact::Contacts;
use super::joined::Joined;

/// A message between members.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Message {
    /// A packet that is over.
    Joined(Box<Joined>),
    /// What a probe has seen of who contacts whom in a window.
    Contacts(Contacts),
    /// What was sent to this partition of the probes' topic until then is joined, but for what is held; it
    /// stands before this message.
    Clock {
        /// Which.
        partition: i32,
        /// When, in milliseconds since the epoch.
        sent_ms: i64,
    },
    /// The records of this window, and of all before it, are out.
    Emitted {
        /// Its number.
        window: u64,
    },
}
