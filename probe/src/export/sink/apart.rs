//! Encoding and delivering one after the other, to measure each.
//!
//! In: rows, a plan. Out: all their batches; an attempt for each.
//! Cost: all batches in memory.
//! Invariants: the batches are those that a keeper makes of the same rows; no thread is started.

use super::{Batch, Driver, Encoder, TableRows, batch, count};
use crate::config::SinkPlan;
use crate::record::{Origin, Rows, Table};
use crate::time::Timestamp;

/// Makes batches of rows.
pub struct Apart<'a> {
    plan: &'a SinkPlan,
    origin: Origin,
    encoder: Box<dyn Encoder>,
    /// Makes tokens that no other run has.
    run: u64,
    open: Option<Batch>,
    /// Those that are full.
    batches: Vec<Batch>,
}

impl<'a> Apart<'a> {
    /// By a plan.
    pub fn new(plan: &'a SinkPlan, origin: Origin, run: u64) -> Self {
        let encoder = super::encoder(plan, &origin);
        Self { plan, origin, encoder, run, open: None, batches: Vec::new() }
    }

    /// Encodes the rows of a table that the sink takes.
    pub fn encode(&mut self, table: Table, rows: &Rows, packets: Timestamp) {
        if !super::keeper::tables(self.plan).contains(&table) {
            return;
        }
        let (parts, _) = TableRows::of(rows, &self.origin, packets, |it| it == table);
        for part in parts {
            let part = part.passing(&self.plan.filter);
            let mut from = 0;
            while from < part.len() {
                from += self.append(table, &part, from);
            }
        }
    }

    fn append(&mut self, table: Table, part: &TableRows, from: usize) -> usize {
        let mut open = self.open.take().unwrap_or_else(|| {
            let token = format!("{}/apart/{:x}/{}", self.plan.name, self.run, self.batches.len());
            let mut bytes = Vec::new();
            self.encoder.begin(table, &mut bytes);
            Batch { table, records: 0, token, bytes }
        });
        let records_max = u64::from(self.plan.batch_records);
        let room = usize::try_from(records_max - open.records).unwrap_or(usize::MAX);
        let taken = self.encoder.rows(part, from, room, &mut open.bytes);
        open.records += count(taken);
        if open.records >= records_max || batch::is_full(&open.bytes) {
            self.batches.push(open);
        } else {
            self.open = Some(open);
        }
        taken
    }

    /// All of them, and who delivers them.
    pub fn finish(mut self) -> (Vec<Batch>, Box<dyn Driver>) {
        self.batches.extend(self.open.take());
        (self.batches, super::driver(self.plan, &self.origin.probe_id))
    }
}
