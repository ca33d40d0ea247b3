//! Sources of the inventory: each runs on a thread of its own and says what it knows.
//!
//! In: a file, requests, other systems. Out: changes, through a bounded queue, to the one thread that
//! keeps the store of facts and publishes what look-ups see.
//! Invariants: a source that hangs, fails or floods makes nobody else wait; what it said before still
//! counts, and its state is shown. Nothing here is known to a worker.

mod handle;

pub use handle::{
    Backoff, Full, Inbox, InventorySource, QUEUE_BATCHES, QUEUE_CHANGES_MAX, Received,
    SourceHandle, SourceSpec,
};
