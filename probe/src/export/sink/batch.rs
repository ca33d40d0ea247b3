//! What is sent at once, and who encodes and sends it.

use crate::record::Table;

use super::{Row, TableRows};

/// Octets of a batch at which it is sent.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Encoded records of one table. Once made it never changes: every attempt sends the same octets under
/// the same token, so that a destination that knows tokens stores nothing twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The table.
    pub table: Table,
    /// Records in it.
    pub records: u64,
    /// Identity, which no other batch of any probe has.
    pub token: String,
    /// As [`Encoder`] has written it.
    pub bytes: Vec<u8>,
}

/// Writes records in the form of a destination.
pub trait Encoder: Send {
    /// What stands before the records of a batch.
    fn begin(&mut self, _table: Table, _out: &mut Vec<u8>) {}
    /// Appends one record.
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>);
    /// Appends records from the place `from` on, as many as `records_max` and there are, unless the batch
    /// is full before; how many. At least one, where there is one and `records_max` is not 0. For encoders
    /// to which columns are cheaper than rows.
    fn rows(
        &mut self,
        rows: &TableRows,
        from: usize,
        records_max: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut taken = 0;
        for row in rows.rows().skip(from).take(records_max) {
            self.row(row, out);
            taken += 1;
            if is_full(out) {
                break;
            }
        }
        taken
    }
}

/// Whether a batch has as many octets as one shall have.
pub(super) const fn is_full(batch: &[u8]) -> bool {
    batch.len() >= BATCH_BYTES_MAX
}

/// Takes batches to a destination. It runs on a thread of its own and may wait as long as the plan's
/// `timeout_ms`, but no longer; with each request, where a batch needs several; with each
/// answer, where they come one after the other.
pub trait Driver: Send {
    /// One attempt. What is delivered is safe there.
    ///
    /// # Errors
    /// [`Failure`]; the batch may have arrived all the same.
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure>;
}

/// What became of a batch that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Records of it that the destination will never take.
    pub refused: u64,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// For people; without secrets.
    pub what: String,
    /// No other attempt would do better.
    pub refused: bool,
}

impl Failure {
    /// Another attempt may do better.
    pub fn again(what: &(impl ToString + ?Sized)) -> Self {
        Self { what: what.to_string(), refused: false }
    }

    /// None will.
    pub fn refused(what: &(impl ToString + ?Sized)) -> Self {
        Self { what: what.to_string(), refused: true }
    }
}
