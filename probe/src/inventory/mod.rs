//! Who is who: segments, address spaces, virtual machines and tenants.
//!
//! In: configuration, and what sources say ([`Change`]). Out: [`SegmentMap`] for workers, [`Inventory`]
//! for the aggregator.
//! Invariants: workers hold an immutable snapshot; the aggregator asks by address space, address
//! and time, in a snapshot as well. Nothing that was ever known is overwritten.
//! Source: ARCHITECTURE.md, "Who is who".
//!
//! | file | |
//! |---|---|
//! | `address` `uuid` `segment` | what names an endpoint |
//! | `map` | the workers' snapshot |
//! | `change` `source` | what sources say, and who they are |
//! | `timeline` `fact` | values over time; what was said and known when |
//! | `precedence` `history` | whom to believe; a VM as all sources together have it |
//! | `spaces` `claims` | who may have an address where; what if several do |
//! | `sound` `ends` | what the store takes; what ends unsaid |
//! | `store` | applies changes, gives snapshots |
//! | `lookup` `class` | the snapshot; classes of traffic |
//! | `rows` | rows of the `inventory` table |
//! | `delta` `line` | what became of facts, to do it again after a restart; as JSON |
//! | `file` `json_file` `vm` | the inventory file |

mod address;
mod change;
mod claims;
mod class;
mod delta;
mod ends;
mod fact;
pub mod file;
mod history;
mod json_file;
mod line;
mod lookup;
mod map;
#[cfg(test)]
mod model;
mod precedence;
mod rows;
mod segment;
mod sound;
mod source;
mod spaces;
mod store;
mod timeline;
mod uuid;
mod vm;

pub use address::{Address, Mac, NotMac};
pub use change::{
    ADDRESSES_MAX, Attribute, BATCH_CHANGES_MAX, Batch, Change, InterfaceId, Missing, Scope,
    Statement, Subject, TEXT_BYTES_MAX, Until, Value, joined,
};
pub use claims::Conflict;
pub use class::{ClassRules, NetworkKind, TrafficClass};
pub use delta::{Delta, FactKey, Restored, SubjectDelta};
pub use fact::{Applied, Fact, Facts};
pub use file::InventoryData;
pub use history::{Connection, InterfaceHistory, VmHistory};
pub use line::{LineNames, LineReader, NotLine, written};
pub use lookup::{CONFLICTS_LISTED_MAX, Inventory, InventoryCell, NamedConflict, VmEntry, VmRef};
pub use map::{STATIONS_MAX, SegmentMap};
pub use precedence::SourceName;
pub use rows::{InventoryRow, ROWS_PER_VM_MAX, RowChange};
pub use segment::{AddressSpace, Segment, SegmentKind};
pub use sound::Rejection;
pub use source::{SOURCES_MAX, SourceHealth, SourceId, SourceKind, SourceState};
pub use spaces::{SEGMENTS_MAX, SPACES_MAX, Spaces};
pub use store::{INTERFACES_MAX, SourceCounts, Store, StoreCounts, StoreLimits, TAGS_MAX};
pub use timeline::Timeline;
pub use uuid::{NotUuid, Uuid};
pub use vm::{Interface, Interval, Placement, Vm};
