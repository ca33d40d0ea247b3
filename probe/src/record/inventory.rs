//! Rows of the inventory to records.
//!
//! In: rows that became known, or known to be otherwise. Out: rows of `inventory`.
//! Invariants: both records of one row have the same `fact_id`, and no others of a run have it.

use std::sync::Arc;

use super::usage::{SAMPLES_MAX, usage_records};
use super::{InventoryRecord, RecordMaker, Rows};
use crate::index::content_id;
use crate::inventory::RowChange;
use crate::sources::usage::USAGE_QUEUE;
use crate::sources::{ROWS_WAITING_MAX, RowQueue};
use crate::time::Timestamp;

/// Rows of the inventory that are to be recorded.
#[derive(Debug, Default)]
pub struct InventoryRows {
    /// Those that are known at start: all of them go with the first window.
    first: Vec<RowChange>,
    /// Those that become known later.
    later: Option<RowQueue>,
    /// Start of the first window.
    run_start: Option<Timestamp>,
}

impl InventoryRows {
    /// Known now, and to come.
    pub fn new(first: Vec<RowChange>, later: RowQueue) -> Self {
        Self { first, later: Some(later), run_start: None }
    }
}

/// Rows of the inventory that one window takes at most, beside those that were known at start.
const INVENTORY_ROWS_MAX: usize = 1 << 16;

/// Batches of [`RecordMaker::rest`] at most: all that can wait, while sources say more.
pub const REST_BATCHES_MAX: usize =
    ROWS_WAITING_MAX.div_ceil(INVENTORY_ROWS_MAX) + USAGE_QUEUE.div_ceil(SAMPLES_MAX);

impl RecordMaker {
    /// What came from sources after the last window, some of it at a time; empty where there is no more.
    /// What became known of the inventory is left out where there was no window: it says of no traffic
    /// whose it was.
    pub fn rest(&mut self) -> Rows {
        let start = self.inventory_rows.run_start;
        let inventory = start.map(|start| self.inventory_records(start)).unwrap_or_default();
        let vm_usage = self.usage.as_ref().map(usage_records).unwrap_or_default();
        Rows { inventory, vm_usage, ..Rows::default() }
    }

    /// Rows that became known, or known to be otherwise, since the window before.
    pub(super) fn inventory_records(&mut self, window_start: Timestamp) -> Vec<InventoryRecord> {
        let run_start = *self.inventory_rows.run_start.get_or_insert(window_start);
        let mut changes = std::mem::take(&mut self.inventory_rows.first);
        while changes.len() < INVENTORY_ROWS_MAX {
            let later = self.inventory_rows.later.as_ref();
            let Some(change) = later.and_then(|later| later.pop()) else { break };
            changes.push(change);
        }
        changes.into_iter().map(|change| self.inventory_record(&change, run_start)).collect()
    }

    fn inventory_record(&mut self, change: &RowChange, run_start: Timestamp) -> InventoryRecord {
        let row = &*change.row;
        // What a replay reads at its start it knows since its first window.
        let known = |at: Timestamp| if at == Timestamp::ZERO { run_start.0 } else { at.0 };
        let until = row.valid.to.0;
        let rules = self.inventory.rules();
        let source =
            row.source.and_then(|source| self.inventory.sources().get(usize::from(source.0)));
        let source = source.map_or_else(|| "".into(), |source| Arc::clone(&source.name));
        let mut record = InventoryRecord {
            fact_id: 0,
            run_start_ns: run_start.0,
            uuid: (!row.learned).then(|| Arc::clone(&row.uuid)),
            name: row.name.clone(),
            tenant: row.tenant.clone(),
            tenant_shared: row.tenant.as_deref().is_some_and(|tenant| rules.is_shared(tenant)),
            host: row.host.clone(),
            switch: row.switch.clone(),
            mac: row.mac,
            address: row.address,
            segment: row.segment.map(|segment| self.names.segment(segment)),
            address_space: row.space.map(|space| self.space(space)),
            attributed: row.attributed,
            address_shared: row.shared,
            valid_from_ns: row.valid.from.0,
            valid_to_ns: (until != u64::MAX).then_some(until),
            known_from_ns: known(change.known_from),
            known_to_ns: change.known_to.map(|at| at.0),
            source,
        };
        record.fact_id = fact_id(&record);
        record
    }
}

/// The same in the record that says that it became known and in the one that says that it is known to be
/// otherwise, and in no other of the same run.
fn fact_id(record: &InventoryRecord) -> u64 {
    let none: &str = "";
    let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or(none).to_owned();
    let mut content = [
        text(&record.uuid),
        text(&record.name),
        text(&record.tenant),
        text(&record.host),
        text(&record.switch),
        text(&record.segment),
        text(&record.address_space),
        record.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        record.address.map(|address| address.to_string()).unwrap_or_default(),
        record.attributed.to_string(),
        record.address_shared.to_string(),
        record.source.to_string(),
    ]
    .join("\0")
    .into_bytes();
    let times =
        [record.valid_from_ns, record.valid_to_ns.unwrap_or(u64::MAX), record.known_from_ns];
    content.extend(times.into_iter().flat_map(u64::to_be_bytes));
    content_id(&content)
}
