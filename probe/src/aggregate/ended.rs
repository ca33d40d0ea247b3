//! Flows for which records are due, and rows that came late.
//!
//! In: blocks of workers. Out: the same of all workers, in a fixed order.
//! Cost: a copy, and what the lines of a flow say.
//! Invariants: the order does not depend on the number of workers.
//! Source: none.

use crate::flow::{EndedFlow, FlowTotals};
use crate::window::{FlowBlock, LateRow, NO_TOTALS};

/// Late rows that wait at most; beyond them they are lost and counted.
pub(super) const LATE_ROWS_MAX: usize = 1 << 16;

/// Flows that have ended, with what there is to tell of them.
#[derive(Debug, Default)]
pub struct EndedFlows {
    flows: Vec<EndedFlow>,
    totals: Vec<FlowTotals>,
}

impl EndedFlows {
    /// Flows of which there is nothing to tell but what they say.
    pub fn plain(flows: Vec<EndedFlow>) -> Self {
        Self { flows, totals: Vec::new() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Each, with its totals unless they are all 0.
    pub fn iter(&self) -> impl Iterator<Item = (&EndedFlow, Option<&FlowTotals>)> {
        self.flows.iter().map(|flow| (flow, self.totals.get(flow.totals as usize)))
    }

    pub(super) fn add(&mut self, block: &FlowBlock) {
        let before = u32::try_from(self.totals.len()).unwrap_or(NO_TOTALS);
        self.totals.extend_from_slice(&block.totals);
        self.flows.extend(block.flows().iter().map(|ending| EndedFlow {
            // The place of none stays so: there are fewer totals than that.
            totals: ending.totals.saturating_add(before),
            ..ending.told()
        }));
    }

    pub(super) fn sort(&mut self) {
        self.flows.sort_by_key(|ended| {
            let key = &ended.flow.key;
            (ended.flow.record_start, key.space, key.low, key.high, key.low_port, key.high_port)
        });
    }
}

/// Puts late rows in order.
pub(super) fn sort_late(rows: &mut [LateRow]) {
    rows.sort_by_key(|late| {
        let row = &late.row;
        (late.losses.window, row.space(), row.source(), row.destination(), row.destination_port())
    });
}
