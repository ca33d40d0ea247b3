//! Who is who: segments, address spaces, virtual machines and tenants.
//!
//! In: configuration and the inventory file. Out: [`SegmentMap`] for workers, [`Inventory`] for
//! the aggregator.
//! Invariants: workers hold an immutable snapshot; the aggregator asks by address space, address
//! and time.
//! Source: ARCHITECTURE.md, "Who is who".

mod address;
mod change;
mod map;
pub mod file;
mod lookup;
mod segment;
mod source;
mod uuid;
mod vm;

pub use address::{Address, Mac, NotMac};
pub use change::{
    ADDRESSES_MAX, Attribute, BATCH_CHANGES_MAX, Batch, Change, InterfaceId, Missing, Scope,
    Statement, Subject, TEXT_BYTES_MAX, Until, Value, joined,
};
pub use file::InventoryData;
pub use lookup::{Inventory, TrafficClass, VmRef};
pub use map::{STATIONS_MAX, SegmentMap};
pub use segment::{AddressSpace, Segment, SegmentKind};
pub use source::{SOURCES_MAX, SourceHealth, SourceId, SourceKind, SourceState};
pub use uuid::{NotUuid, Uuid};
pub use vm::{Interface, Interval, Placement, Vm};
