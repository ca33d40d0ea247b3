//! What becomes of a column of `windows` where windows are added up.
//!
//! In: a column. Out: its fate, from which the roll-ups in ClickHouse and those in files follow; these read
//! it in `schema.sql` of the query program.
//! Invariants: percentiles, shares and instants cannot be added up and are left out.

use super::column::{Column, Kind};

/// What becomes of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// Its values keep rows apart.
    Key,
    /// Its values become one by this function, by its name in SQL.
    With(&'static str),
    /// It is left out.
    Out,
}

impl Roll {
    /// Of a column.
    pub fn of(column: &Column) -> Self {
        let ends = |ending: &str| column.name.ends_with(ending);
        match column.kind {
            Kind::U64 if column.name.starts_with("window_") && ends("_ns") => Self::Out,
            Kind::U64 if ends("_min_ns") => Self::With("min"),
            Kind::U64 if ends("_max_ns") => Self::With("max"),
            Kind::U64 if ends("_p50_ns") || ends("_p90_ns") || ends("_p99_ns") => Self::Out,
            Kind::U64 => Self::With("sum"),
            Kind::F64 if column.name == "sampling_rate" => Self::With("min"),
            Kind::U8 | Kind::U16 | Kind::Text
                if !matches!(column.name, "schema_version" | "reverse_segment" | "tap")
                    && !ends("_mac") =>
            {
                Self::Key
            }
            _ => Self::Out,
        }
    }

    /// A word for it, empty where the column is left out.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::With(function) => function,
            Self::Out => "",
        }
    }
}
