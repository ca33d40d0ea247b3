//! Sources of the inventory: each runs on a thread of its own and says what it knows.
//!
//! In: a file, requests, other systems. Out: changes, through a bounded queue, to the one thread that
//! keeps the store of facts and publishes what look-ups see.
//! Invariants: a source that hangs, fails or floods makes nobody else wait; what it said before still
//! counts, and its state is shown. A worker knows nothing of it but the map of segments.

pub mod file;
mod handle;
mod journal;
pub mod json;
mod keeper;
pub mod learned;
pub mod libvirt;
pub mod openstack;
pub mod ovsdb;
pub mod requests;
mod segments;
mod start;
mod status;
pub mod usage;

pub use handle::{
    Backoff, Full, Inbox, InventorySource, QUEUE_BATCHES, QUEUE_CHANGES_MAX, Received,
    SourceHandle, SourceSpec,
};
pub use journal::{JournalPlan, JournalState, JournalStatus};
pub use keeper::{InventoryView, Keeper, ROWS_WAITING_MAX, RowQueue, rules};
pub use segments::{MapCell, segment_map};
pub use start::{Prepared, ReadAgain, Sources};
pub use status::{ConflictStatus, InventoryStatus, StatusCell};
