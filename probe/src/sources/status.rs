//! How the inventory is doing: one immutable snapshot for API, metrics and page.
//!
//! In: the keeper. Out: [`InventoryStatus`] in a [`StatusCell`].
//! Invariants: lists are bounded; nobody who reads waits for the keeper.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use super::journal::JournalStatus;
use super::ovsdb::SwitchCoverage;
use crate::inventory::{Inventory, SourceHealth, VmHistory};

/// Conflicts that a status lists at most.
const CONFLICTS_MAX: usize = 100;

/// Where the newest status is found.
pub type StatusCell = Arc<ArcSwap<InventoryStatus>>;

/// The state of the inventory and of its sources.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InventoryStatus {
    /// Virtual machines that are known, ended ones included.
    pub vms: u64,
    /// Endpoints that were only learned from packets, those that are over included.
    pub learned: u64,
    /// Since when the newest fact is known, by the probe's clock, since the epoch.
    pub known_ns: u64,
    /// Batches of changes applied.
    pub batches: u64,
    /// Attributes whose history changed.
    pub changed: u64,
    /// Old facts that were forgotten for lack of room.
    pub facts_forgotten: u64,
    /// Ended VMs that were forgotten for lack of room.
    pub vms_forgotten: u64,
    /// Learned endpoints that were over and were forgotten for lack of room.
    pub learned_forgotten: u64,
    /// Rows of the `inventory` table that were left out or lost.
    pub rows_lost: u64,
    /// Names that several VMs claim at once, at any time.
    pub conflicts: u64,
    /// The first of them.
    pub conflict_list: Vec<ConflictStatus>,
    /// Sources, in order of registration.
    pub sources: Vec<SourceHealth>,
    /// What keeps the inventory over a restart.
    pub journal: JournalStatus,
    /// What switches mirror, in the order of the configuration.
    #[serde(skip)]
    pub switches: Vec<Arc<SwitchCoverage>>,
}

/// Several VMs claim one address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConflictStatus {
    /// Address, or MAC address.
    pub claimed: String,
    /// Address space: the name of a joined one, else the segment's number.
    pub address_space: String,
    /// First instant.
    pub valid_from_ns: u64,
    /// First instant after; null for still.
    pub valid_to_ns: Option<u64>,
    /// The VM to which it is attributed; null for none. Of who was only learned `learned:` and the MAC
    /// address.
    pub attributed: Option<String>,
    /// All that claim it, likewise.
    pub claimants: Vec<String>,
}

/// The first conflicts of a snapshot.
pub(super) fn conflicts(inventory: &Inventory, domains: &[String]) -> Vec<ConflictStatus> {
    let uuid = |vm| inventory.vm(vm).map(VmHistory::label).unwrap_or_default();
    let listed = inventory.conflicts().into_iter().take(CONFLICTS_MAX);
    listed
        .map(|named| {
            let space = inventory.spaces().name(named.space).map(ToString::to_string);
            let to = named.conflict.valid.to.0;
            ConflictStatus {
                claimed: named.claimed,
                address_space: space.unwrap_or_else(|| named.space.as_segment().text(domains)),
                valid_from_ns: named.conflict.valid.from.0,
                valid_to_ns: (to != u64::MAX).then_some(to),
                attributed: named.conflict.attributed.map(uuid),
                claimants: named.conflict.claimants.into_iter().map(uuid).collect(),
            }
        })
        .collect()
}
