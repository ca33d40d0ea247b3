//! From one list of columns to structs, schemas and code that fills them.
//!
//! In: `tables.rs`. Out: for each table its row struct and its [`Record`] implementation.
//! Cost: none at run time; the list is expanded when compiling.
//! Invariants: column `i` of a table is field `i` of its struct after the [`COMMON`] ones; groups of
//! columns stand behind those that stand alone.

use std::cmp::Ordering;
use std::iter::repeat_n;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use serde_json::Value as Json;

use super::column::{Column, ColumnBuilder, Element, Kind, Value};
use super::{Rows, Table};
use crate::time::Timestamp;

/// Version of the whole schema. It grows when a column changes its meaning or type; a column
/// that is added alone does not change it.
pub const SCHEMA_VERSION: u16 = 1;

/// Rows that are made into columns together: each column looks at all of them, so they shall still be in
/// the core's cache.
const NEAR_ROWS: usize = 512;

/// The columns with which every record begins; the same for all records of a writer.
pub const COMMON: &[Column] = &[
    Column {
        name: "schema_version",
        kind: Kind::U16,
        nullable: false,
        unit: "",
        element: Element::None,
        meaning: "Version of this schema.",
    },
    Column {
        name: "probe_id",
        kind: Kind::Text,
        nullable: false,
        unit: "",
        element: Element::None,
        meaning: "The probe that made the record.",
    },
    Column {
        name: "domain",
        kind: Kind::Text,
        nullable: false,
        unit: "",
        element: Element::None,
        meaning: "The domain of the probe, in which taps and secrets are shared.",
    },
];

/// Who writes the records: the values of the [`COMMON`] columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Probe id.
    pub probe_id: Arc<str>,
    /// Domain.
    pub domain: Arc<str>,
}

impl Origin {
    /// The origin of all records of one probe.
    pub fn new(probe_id: &str, domain: &str) -> Self {
        Self { probe_id: probe_id.into(), domain: domain.into() }
    }

    fn append(&self, rows: usize, builders: &mut [ColumnBuilder]) {
        if let [version, probe_id, domain, ..] = builders {
            Value::append_all(repeat_n(&SCHEMA_VERSION, rows), version);
            Value::append_all(repeat_n(&self.probe_id, rows), probe_id);
            Value::append_all(repeat_n(&self.domain, rows), domain);
        }
    }

    fn json(&self) -> serde_json::Map<String, Json> {
        let values = [SCHEMA_VERSION.json(), self.probe_id.json(), self.domain.json()];
        COMMON.iter().map(|column| column.name.to_owned()).zip(values).collect()
    }
}

/// A row of one table.
pub trait Record: Clone + Default + Send + 'static {
    /// Its table.
    const TABLE: Table;
    /// Its own columns, in the order of the struct's fields; [`COMMON`] stand before them.
    const COLUMNS: &'static [Column];

    /// The time by which the row is filed under an hour.
    fn time(&self) -> Timestamp;
    /// The rows of this table in a batch of all tables.
    fn of(rows: &mut Rows) -> &mut Vec<Self>;
    /// The same, to look at.
    fn among(rows: &Rows) -> &[Self];
    /// A total order: the table's sort columns, then all others.
    fn order(&self, other: &Self) -> Ordering;
    /// Appends the values that stand alone, column by column; `builders` has one for each of
    /// [`Record::COLUMNS`].
    fn append_alone(rows: &[Self], builders: &mut [ColumnBuilder]);
    /// Appends the groups of all rows, likewise.
    fn append_groups(rows: &[Self], builders: &mut [ColumnBuilder]);
    /// The values in the order of [`Record::COLUMNS`].
    fn values(&self) -> Vec<Json>;

    /// The row as one JSON object with all columns, the common ones first.
    fn json(&self, origin: &Origin) -> Json {
        let mut object = origin.json();
        let names = Self::COLUMNS.iter().map(|column| column.name.to_owned());
        object.extend(names.zip(self.values()));
        Json::Object(object)
    }

    /// The rows as columns.
    ///
    /// # Errors
    /// None for rows of this module; Arrow checks the columns' types and lengths again.
    fn batch(rows: &[Self], origin: &Origin) -> Result<RecordBatch, ArrowError> {
        let columns = Self::TABLE.columns();
        let mut builders: Vec<_> =
            columns.iter().map(|column| ColumnBuilder::new(column.kind, rows.len())).collect();
        let (common, own) = builders.split_at_mut(COMMON.len());
        origin.append(rows.len(), common);
        for rows in rows.chunks(NEAR_ROWS) {
            Self::append_alone(rows, own);
            Self::append_groups(rows, own);
        }
        let arrays = builders.iter_mut().map(ColumnBuilder::finish).collect();
        RecordBatch::try_new(Self::TABLE.schema(), arrays)
    }
}

/// Something that is done once for each table, with the table's row type.
pub trait TableVisitor {
    /// One table.
    fn table<R: Record>(&mut self);
}

impl Table {
    /// All columns, [`COMMON`] first.
    pub fn columns(self) -> Vec<Column> {
        COMMON.iter().chain(self.own_columns()).copied().collect()
    }

    /// The Arrow schema of all columns.
    pub fn schema(self) -> SchemaRef {
        let fields: Vec<_> = self.columns().iter().map(Column::field).collect();
        Arc::new(Schema::new(fields))
    }
}

macro_rules! tables {
    ($(
        $(#[doc = $about:literal])+
        $table:ident $name:literal as $rows:ident: $record:ident
        by $time:ident, sorted by $($key:ident)+
        {
            $(
                $(#[doc = $meaning:literal])+
                $column:ident: $type:ty, $unit:literal, $element:expr;
            )+
        }
        $(with {
            $(
                $(#[doc = $group_meaning:literal])+
                $group:ident: $group_type:ty;
            )+
        })?
    )+) => {
        /// A table of records.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table {
            $($(#[doc = $about])+ $table,)+
        }

        impl Table {
            /// Every table, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$table,)+];

            /// Name of the table, its folder and its view.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$table => $name,)+ }
            }

            /// What a row of it is.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$table => concat!($($about),+),)+ }
            }

            /// The column by which a row is filed under an hour.
            pub const fn time_column(self) -> &'static str {
                match self { $(Self::$table => stringify!($time),)+ }
            }

            /// The columns that rows are sorted by first.
            pub const fn sort_columns(self) -> &'static [&'static str] {
                match self { $(Self::$table => &[$(stringify!($key)),+],)+ }
            }

            /// The table called `name`.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|table| table.name() == name)
            }

            /// The columns without the common ones.
            pub(super) const fn own_columns(self) -> &'static [Column] {
                match self { $(Self::$table => <$record as Record>::COLUMNS,)+ }
            }

            /// Calls the visitor once for each table, in the order of [`Table::ALL`].
            pub fn visit(visitor: &mut impl TableVisitor) {
                $(visitor.table::<$record>();)+
            }
        }

        /// A batch of records of all tables.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Rows {
            $(#[doc = concat!("Rows of `", $name, "`.")] pub $rows: Vec<$record>,)+
        }

        impl Rows {
            /// Rows of all tables together.
            pub fn len(&self) -> usize {
                0 $(+ self.$rows.len())+
            }

            /// Rows of one table.
            pub fn len_of(&self, table: Table) -> usize {
                match table { $(Table::$table => self.$rows.len(),)+ }
            }

            /// Whether there is no row.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Takes the rows out of `other`, behind its own.
            pub fn append(&mut self, other: &mut Self) {
                $(self.$rows.append(&mut other.$rows);)+
            }

            /// A copy of the rows of the tables that are `wanted`.
            #[must_use]
            pub fn only(&self, wanted: impl Fn(Table) -> bool) -> Self {
                Self {
                    $($rows: if wanted(Table::$table) { self.$rows.clone() } else { Vec::new() },)+
                }
            }

            /// Sorts each table into its total order.
            pub fn sort(&mut self) {
                $(self.$rows.sort_unstable_by(Record::order);)+
            }
        }

        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $record {
                $($(#[doc = $meaning])+ pub $column: $type,)+
                $($($(#[doc = $group_meaning])+ pub $group: Group<$group_type>,)+)?
            }

            impl Default for $record {
                fn default() -> Self {
                    Self { $($column: Value::empty(),)+ $($($group: Group::Null,)+)? }
                }
            }

            impl Record for $record {
                const TABLE: Table = Table::$table;
                const COLUMNS: &'static [Column] = {
                    const ALONE: &[Column] = &[$(Column {
                        name: stringify!($column),
                        kind: <$type as Value>::KIND,
                        nullable: <$type as Value>::NULLABLE,
                        unit: $unit,
                        element: $element,
                        meaning: concat!($($meaning),+),
                    },)+];
                    const PARTS: &[&[Column]] =
                        &[ALONE $($(, <$group_type as Columns>::COLUMNS)+)?];
                    const ALL: [Column; length(PARTS)] = joined(PARTS);
                    &ALL
                };

                fn time(&self) -> Timestamp {
                    Timestamp(self.$time)
                }

                fn of(rows: &mut Rows) -> &mut Vec<Self> {
                    &mut rows.$rows
                }

                fn among(rows: &Rows) -> &[Self] {
                    &rows.$rows
                }

                fn order(&self, other: &Self) -> Ordering {
                    Ordering::Equal
                        $(.then_with(|| self.$key.order(&other.$key)))+
                        $(.then_with(|| self.$column.order(&other.$column)))+
                        $($(.then_with(|| self.$group.order(&other.$group)))+)?
                }

                fn append_alone(rows: &[Self], builders: &mut [ColumnBuilder]) {
                    let mut builders = builders.iter_mut();
                    $(if let Some(builder) = builders.next() {
                        Value::append_all(rows.iter().map(|row| &row.$column), builder);
                    })+
                }

                fn append_groups(rows: &[Self], builders: &mut [ColumnBuilder]) {
                    let alone = [$(stringify!($column)),+].len();
                    let rest = builders.get_mut(alone..).unwrap_or_default();
                    $($(
                        let columns = <$group_type as Columns>::COLUMNS.len();
                        let (these, rest) = rest.split_at_mut(columns);
                        Group::append(rows.iter().map(|row| &row.$group), these);
                    )+)?
                    debug_assert!(rest.is_empty(), "all columns of {} rows are filled", rows.len());
                }

                fn values(&self) -> Vec<Json> {
                    [vec![$(self.$column.json(),)+] $($(, self.$group.json())+)?].concat()
                }
            }
        )+
    };
}
