//! Who says what is in the inventory: the kinds of sources, and how each of them is doing.
//!
//! In: nothing. Out: [`SourceKind`] with its default precedence, [`SourceId`], [`SourceHealth`].
//! Invariants: the same number means the same source for as long as the probe runs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::time::Timestamp;

/// Sources of one probe at most.
pub const SOURCES_MAX: usize = 64;

/// Kind of a source. In the default order of precedence: where two contradict, the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Requests to the HTTP API.
    Api,
    /// The inventory file.
    File,
    /// Notifications of OpenStack.
    Openstack,
    /// libvirt on a host.
    Libvirt,
    /// The database of an Open vSwitch.
    Ovsdb,
    /// What ARP, ND and DHCP show.
    Learned,
}

impl SourceKind {
    /// All, in the default order of precedence.
    pub const ALL: [Self; 6] =
        [Self::Api, Self::File, Self::Openstack, Self::Libvirt, Self::Ovsdb, Self::Learned];

    /// The name in configuration and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::File => "file",
            Self::Openstack => "openstack",
            Self::Libvirt => "libvirt",
            Self::Ovsdb => "ovsdb",
            Self::Learned => "learned",
        }
    }

    /// Whether it speaks of the future on purpose. What others date beyond the allowed skew of clocks
    /// counts from the instant at which it became known.
    pub const fn plans(self) -> bool {
        matches!(self, Self::Api | Self::File)
    }

    /// Whether it only fills what no other source names: its claims give way without a conflict.
    pub const fn yields(self) -> bool {
        matches!(self, Self::Learned)
    }
}

/// Number of a source, in order of registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u8);

/// How a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It has not answered yet, or is being tried again.
    #[default]
    Connecting,
    /// What it says is up to date.
    Live,
    /// It was live, but has been silent for longer than it should be.
    Stale,
    /// It cannot be reached, or what it says cannot be read; what it said before still counts.
    Failed,
}

impl SourceState {
    /// The name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }
}

/// How a source is doing, for API, metrics and page.
#[derive(Clone, Debug, Serialize)]
pub struct SourceHealth {
    /// Kind.
    pub kind: SourceKind,
    /// Name, unique: `file`, `ovsdb:host1`.
    pub name: String,
    /// Place in the order of precedence; 0 is heard first.
    pub rank: u8,
    /// State.
    pub state: SourceState,
    /// Since when, by the probe's clock, since the epoch.
    pub since_ns: u64,
    /// When it last showed that it is there, by the probe's clock; null for never.
    pub last_heard_ns: Option<u64>,
    /// When its last change became known, by the probe's clock; null for never.
    pub last_change_ns: Option<u64>,
    /// The time that it gave that change, by its own clock; null for never.
    pub last_valid_ns: Option<u64>,
    /// How far its changes were dated ahead of the probe's clock at most.
    pub clock_ahead_max_ns: u64,
    /// Changes that were dated beyond the allowed skew and count from when they became known.
    pub clamped_changes: u64,
    /// What went wrong last; null for nothing.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_ns: Option<u64>,
    /// Connections made, or files read.
    pub connections: u64,
    /// Changes received.
    pub changes: u64,
    /// Of these, what was known already.
    pub unchanged: u64,
    /// Of these, what was left out, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
}

impl SourceHealth {
    /// The state at `now`, for a source that is never silent for longer than `stale_after_ns`.
    #[must_use]
    pub fn at(mut self, now: Timestamp, stale_after_ns: Option<u64>) -> Self {
        let heard = Timestamp(self.last_heard_ns.unwrap_or(self.since_ns));
        let limit = stale_after_ns.filter(|limit| now.since_ns(heard) > *limit);
        if self.state == SourceState::Live
            && let Some(limit) = limit
        {
            self.state = SourceState::Stale;
            self.since_ns = (heard + limit).0;
        }
        self
    }
}
