//! How the journal is doing, for API, metrics and page.
//!
//! In: the journal. Out: [`JournalStatus`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::JournalPlan;

/// How the journal is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalState {
    /// None is kept.
    #[default]
    Off,
    /// What became known is in the file.
    Ok,
    /// The disk has no room; what becomes known waits in memory.
    DiskFull,
    /// The state does not fit the file's bound.
    TooLarge,
    /// It cannot be written for another reason.
    Failed,
}

impl JournalState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Off, Self::Ok, Self::DiskFull, Self::TooLarge, Self::Failed];

    /// The name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ok => "ok",
            Self::DiskFull => "disk_full",
            Self::TooLarge => "too_large",
            Self::Failed => "failed",
        }
    }
}

/// What the journal has done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JournalStatus {
    /// How it is doing.
    pub state: JournalState,
    /// The file; null where none is kept.
    pub file: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// Its size at most.
    pub bytes_max: u64,
    /// Entries made by this run.
    pub entries: u64,
    /// Of these, what is not in the file yet.
    pub waiting_entries: u64,
    /// How often the whole state was written anew.
    pub rewrites: u64,
    /// VMs that were known at start from the file.
    pub restored_vms: u64,
    /// Facts likewise.
    pub restored_facts: u64,
    /// Facts of the file that were left out, by reason: `source_unknown`, `domain_unknown`.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Octets of the file that were not sound at start: skipped, or cut off its end.
    pub cut_bytes: u64,
    /// In how many places.
    pub cut_places: u64,
    /// The file in which they are kept; null for none.
    pub cut_file: Option<String>,
    /// What went wrong last; null for nothing.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_ns: Option<u64>,
}

impl JournalStatus {
    pub(super) fn new(plan: &JournalPlan) -> Self {
        Self {
            state: JournalState::Ok,
            file: Some(plan.path.display().to_string()),
            bytes_max: plan.bytes_max,
            ..Self::default()
        }
    }
}
