//! Records of one table, to be read column by column or row by row.
//!
//! In: [`Rows`]. Out: [`TableRows`], parts of one table of at most [`PART_ROWS`]; a [`Row`] of it; its
//! [`Cell`]s.
//! Cost: the columns that the store makes too; a cell is one look into one of them.
//! Invariants: cell `i` is of column `i` of the table, so no encoder knows names or types of its own.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array as _, ArrayRef, BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;

use super::filter;
use crate::config::SinkFilter;
use crate::record::{Column, Kind, Origin, Record, Rows, Table, TableVisitor};
use crate::time::Timestamp;

/// Rows of a part at most.
const PART_ROWS: usize = 8_192;

/// Rows of one table.
pub struct TableRows {
    /// The table.
    pub table: Table,
    /// The time that the packets had come to when the rows were made.
    pub packets: Timestamp,
    columns: Vec<Column>,
    batch: RecordBatch,
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Not measured, or not known.
    Null,
    /// Any unsigned width.
    Unsigned(u64),
    /// Signed.
    Signed(i64),
    /// A number that may have a fraction.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(&'a str),
}

impl<'a> Cell<'a> {
    /// The text, if it is one.
    pub const fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is an unsigned one.
    pub const fn number(self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(number),
            _ => None,
        }
    }
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    rows: &'a TableRows,
    place: usize,
}

impl TableRows {
    /// The rows of the tables that are `wanted`, and how many could not be made into columns (a bug).
    pub fn of(
        rows: &Rows,
        origin: &Origin,
        packets: Timestamp,
        wanted: impl Fn(Table) -> bool,
    ) -> (Vec<Self>, u64) {
        let mut split = Split { rows, origin, packets, wanted, parts: Vec::new(), lost: 0 };
        Table::visit(&mut split);
        (split.parts, split.lost)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its columns, as the schema has them, each with the values of `count` rows from the place `from` on.
    pub fn columns(
        &self,
        from: usize,
        count: usize,
    ) -> impl ExactSizeIterator<Item = (&Column, ArrayRef)> {
        let slices = self.batch.columns().iter().map(move |it| it.slice(from, count));
        self.columns.iter().zip(slices)
    }

    /// Those that pass the filter.
    #[must_use]
    pub(super) fn passing(self, filter: &SinkFilter) -> Self {
        if *filter == SinkFilter::default() {
            return self;
        }
        let passing = self.rows().map(|row| Some(filter::passes(filter, row)));
        match filter_record_batch(&self.batch, &passing.collect::<BooleanArray>()) {
            Ok(batch) => Self { batch, ..self },
            Err(error) => unreachable!("there is an answer for each row: {error}"),
        }
    }

    /// Each row.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.batch.num_rows()).map(|place| Row { rows: self, place })
    }

    /// The place of a column, by name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

impl<'a> Row<'a> {
    /// Its table.
    pub const fn table(self) -> Table {
        self.rows.table
    }

    /// All rows of which it is one, and its place.
    pub const fn among(self) -> (&'a TableRows, usize) {
        (self.rows, self.place)
    }

    /// Its columns.
    pub fn columns(self) -> &'a [Column] {
        &self.rows.columns
    }

    /// The time that the packets had come to.
    pub const fn packets(self) -> Timestamp {
        self.rows.packets
    }

    /// The value in a column; null where there is no such column.
    pub fn cell(self, place: usize) -> Cell<'a> {
        let kind = self.rows.columns.get(place).map(|column| column.kind);
        let (Some(kind), Some(column)) = (kind, self.rows.batch.columns().get(place)) else {
            return Cell::Null;
        };
        let row = self.place;
        if column.is_null(row) {
            return Cell::Null;
        }
        match kind {
            Kind::U8 => Cell::Unsigned(column.as_primitive::<UInt8Type>().value(row).into()),
            Kind::U16 => Cell::Unsigned(column.as_primitive::<UInt16Type>().value(row).into()),
            Kind::U32 => Cell::Unsigned(column.as_primitive::<UInt32Type>().value(row).into()),
            Kind::U64 => Cell::Unsigned(column.as_primitive::<UInt64Type>().value(row)),
            Kind::I64 => Cell::Signed(column.as_primitive::<Int64Type>().value(row)),
            Kind::F64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
            Kind::Bool => Cell::Bool(column.as_boolean().value(row)),
            Kind::Text => Cell::Text(column.as_string::<i32>().value(row)),
        }
    }

    /// The value in the column called `name`; null where there is no such column.
    pub fn named(self, name: &str) -> Cell<'a> {
        self.rows.place(name).map_or(Cell::Null, |place| self.cell(place))
    }

    /// The time by which it is filed.
    pub fn time(self) -> Timestamp {
        Timestamp(self.named(self.table().time_column()).number().unwrap_or(0))
    }
}

struct Split<'a, W> {
    rows: &'a Rows,
    origin: &'a Origin,
    packets: Timestamp,
    wanted: W,
    parts: Vec<TableRows>,
    lost: u64,
}

impl<W: Fn(Table) -> bool> TableVisitor for Split<'_, W> {
    fn table<R: Record>(&mut self) {
        if !(self.wanted)(R::TABLE) {
            return;
        }
        for part in R::among(self.rows).chunks(PART_ROWS) {
            match R::batch(part, self.origin) {
                Ok(batch) => self.parts.push(TableRows {
                    table: R::TABLE,
                    packets: self.packets,
                    columns: R::TABLE.columns(),
                    batch,
                }),
                Err(error) => {
                    tracing::error!(table = R::TABLE.name(), %error, "records are no columns");
                    self.lost += super::count(part.len());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AlertRecord, LedgerRecord};

    #[test]
    fn parts_hold_all_rows_in_order() {
        let record = |place| LedgerRecord { packet_count: place, ..LedgerRecord::default() };
        let many = u64::try_from(PART_ROWS).expect("it fits") + 1;
        let rows = Rows {
            ledger: (0..many).map(record).collect(),
            alerts: vec![AlertRecord::default()],
            ..Rows::default()
        };
        let origin = Origin::new("p", "d");
        let of =
            |wanted: Table| TableRows::of(&rows, &origin, Timestamp(7), |table| table == wanted).0;
        let parts = of(Table::Ledger);
        assert_eq!(parts.len(), 2);
        let counts = parts.iter().flat_map(TableRows::rows).map(|row| row.named("packet_count"));
        assert!(counts.eq((0..many).map(Cell::Unsigned)));
        assert_eq!(of(Table::Alerts)[0].rows().count(), 1);
        assert!(of(Table::Flows).is_empty());
        let row = parts[0].rows().next().expect("a row");
        assert_eq!((row.named("probe_id"), row.named("no")), (Cell::Text("p"), Cell::Null));
    }
}
