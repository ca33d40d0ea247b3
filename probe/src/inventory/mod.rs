//! Who is who: segments, address spaces, virtual machines and tenants.
//!
//! In: configuration and the inventory file. Out: [`SegmentMap`] for workers, [`Inventory`] for
//! the aggregator.
//! Invariants: workers hold an immutable snapshot; the aggregator asks by address space, address
//! and time.
//! Source: ARCHITECTURE.md, "Who is who".

mod address;
mod map;
mod segment;
mod uuid;

pub use address::{Address, Mac, NotMac};
pub use map::{STATIONS_MAX, SegmentMap};
pub use segment::{AddressSpace, Segment, SegmentKind};
pub use uuid::{NotUuid, Uuid};
