//! Columns that are null together: one field of a row.
//!
//! In: what was measured, or that nothing was. Out: the same in Arrow columns, as JSON, or compared.
//! Cost: 16 bytes a row; what is the same for many rows is kept once, and appended once for a run of
//! them. Only a row with values of its own has memory of its own, which copies of it share.
//! Invariants: as those of single columns: null is never written as 0.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value as Json;

use super::column::{Column, ColumnBuilder, Value as _};

/// A Rust type whose values are several columns of a row.
pub trait Columns: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The columns, which may all be null.
    const COLUMNS: &'static [Column];

    /// The values, in the order of [`Columns::COLUMNS`].
    fn cells(&self) -> impl Iterator<Item = Cell>;
}

/// One value of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// In a column of [`super::Kind::U64`].
    Number(Option<u64>),
    /// In a column of [`super::Kind::F64`].
    Share(Option<f64>),
}

impl Cell {
    /// Most rows that have values of their own stand alone.
    #[inline]
    fn append_once(self, builder: &mut ColumnBuilder) {
        match (self, builder) {
            (Self::Number(Some(value)), ColumnBuilder::U64(builder)) => builder.append_value(value),
            (Self::Number(None), ColumnBuilder::U64(builder)) => builder.append_null(),
            (cell, builder) => cell.append(1, builder),
        }
    }

    fn append(self, times: usize, builder: &mut ColumnBuilder) {
        match (self, builder) {
            (Self::Number(Some(value)), ColumnBuilder::U64(builder)) => {
                builder.append_value_n(value, times);
            }
            (Self::Share(Some(value)), ColumnBuilder::F64(builder)) => {
                builder.append_value_n(value, times);
            }
            (Self::Number(None) | Self::Share(None), builder) => builder.append_nulls(times),
            (cell, builder) => unreachable!("{cell:?} for the column {builder:?}"),
        }
    }

    fn json(self) -> Json {
        match self {
            Self::Number(value) => value.json(),
            Self::Share(value) => value.json(),
        }
    }

    fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) => one.order(&two),
            (Self::Share(one), Self::Share(two)) => one.order(&two),
            // A column has one kind.
            _ => Ordering::Equal,
        }
    }
}

/// The columns of `T` in one row.
#[derive(Clone, Debug, Default)]
pub enum Group<T: 'static> {
    /// All are null.
    #[default]
    Null,
    /// The same as in other rows.
    Same(&'static T),
    /// This row's own.
    Own(Arc<T>),
}

impl<T: Columns> Group<T> {
    /// The values; `None` where all are null.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Null => None,
            Self::Same(values) => Some(values),
            Self::Own(values) => Some(values),
        }
    }

    /// Whether another row has the same without a look at the values.
    fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Same(one), Self::Same(two)) => std::ptr::eq(*one, *two),
            _ => false,
        }
    }

    fn append_times(&self, times: usize, builders: &mut [ColumnBuilder]) {
        match self.get() {
            Some(values) => {
                // From within: a chain of iterators looks at its parts anew for each step from outside.
                let mut builders = builders.iter_mut();
                if times == 1 {
                    values.cells().for_each(|cell| {
                        if let Some(builder) = builders.next() {
                            cell.append_once(builder);
                        }
                    });
                } else {
                    values.cells().for_each(|cell| {
                        if let Some(builder) = builders.next() {
                            cell.append(times, builder);
                        }
                    });
                }
            }
            None => builders.iter_mut().for_each(|builder| builder.append_nulls(times)),
        }
    }

    /// Appends the values of all rows to the builders of [`Columns::COLUMNS`].
    pub(super) fn append<'a>(
        mut rows: impl Iterator<Item = &'a Self>,
        builders: &mut [ColumnBuilder],
    ) {
        let Some(mut run) = rows.next() else { return };
        let mut times = 1;
        for row in rows {
            if row.is_as(run) {
                times += 1;
            } else {
                run.append_times(times, builders);
                (run, times) = (row, 1);
            }
        }
        run.append_times(times, builders);
    }

    /// As JSON, each column.
    pub(super) fn json(&self) -> Vec<Json> {
        match self.get() {
            Some(values) => values.cells().map(Cell::json).collect(),
            None => vec![Json::Null; T::COLUMNS.len()],
        }
    }

    /// A total order: by the first column that differs.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self.get(), other.get()) {
            _ if self.is_as(other) => Ordering::Equal,
            (Some(one), Some(two)) => {
                let mut orders = one.cells().zip(two.cells()).map(|(one, two)| one.order(two));
                orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            }
            (one, two) => one.is_some().cmp(&two.is_some()),
        }
    }
}

impl<T: Columns> PartialEq for Group<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

/// How many columns these are in all.
pub(super) const fn length(parts: &[&[Column]]) -> usize {
    let (mut sum, mut part) = (0, 0);
    while part < parts.len() {
        sum += parts[part].len();
        part += 1;
    }
    sum
}

/// The columns of all parts, which are `N`, one after the other.
pub(super) const fn joined<const N: usize>(parts: &[&[Column]]) -> [Column; N] {
    let mut all = [parts[0][0]; N];
    let (mut place, mut part) = (0, 0);
    while part < parts.len() {
        let mut column = 0;
        while column < parts[part].len() {
            all[place] = parts[part][column];
            place += 1;
            column += 1;
        }
        part += 1;
    }
    assert!(place == N, "the parts have so many columns");
    all
}

#[cfg(test)]
mod tests {
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{Float64Type, UInt64Type};

    use super::super::column::{Element, Kind};
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(Option<u64>, f64);

    const fn column(name: &'static str, kind: Kind) -> Column {
        Column { name, kind, nullable: true, unit: "", element: Element::None, meaning: "It." }
    }

    impl Columns for Pair {
        const COLUMNS: &'static [Column] =
            &[column("count", Kind::U64), column("share", Kind::F64)];

        fn cells(&self) -> impl Iterator<Item = Cell> {
            [Cell::Number(self.0), Cell::Share(Some(self.1))].into_iter()
        }
    }

    static NOTHING: Pair = Pair(Some(0), 0.0);
    static ANOTHER: Pair = Pair(None, 1.0);

    fn rows() -> Vec<Group<Pair>> {
        let own = |count| Group::Own(Arc::new(Pair(Some(count), 0.5)));
        vec![
            Group::Null,
            Group::Null,
            Group::Same(&NOTHING),
            Group::Same(&NOTHING),
            Group::Same(&ANOTHER),
            own(7),
            own(7),
            Group::Null,
            Group::Same(&NOTHING),
        ]
    }

    #[test]
    fn runs_of_rows_come_as_each_by_itself() {
        let rows = rows();
        let mut builders = Pair::COLUMNS.iter().map(|it| ColumnBuilder::new(it.kind, 0));
        let mut builders: Vec<_> = builders.by_ref().collect();
        Group::append(rows.iter(), &mut builders);
        let [counts, shares] = [0, 1].map(|place: usize| builders[place].finish());
        let counts: Vec<_> = counts.as_primitive::<UInt64Type>().iter().collect();
        let expected = [None, None, Some(0), Some(0), None, Some(7), Some(7), None, Some(0)];
        assert_eq!(counts, expected);
        let shares = shares.as_primitive::<Float64Type>();
        let null: Vec<_> = (0..9).filter(|place| shares.is_null(*place)).collect();
        assert_eq!((null, shares.value(4), shares.value(6)), (vec![0, 1, 7], 1.0, 0.5));
        for (row, count) in rows.iter().zip(counts) {
            assert_eq!(row.json()[0], count.map_or(Json::Null, Json::from));
        }
    }

    #[test]
    fn a_value_is_the_same_however_it_is_kept() {
        let (kept, own) = (Group::Same(&NOTHING), Group::Own(Arc::new(NOTHING.clone())));
        assert_eq!(kept, own);
        assert_eq!((kept.order(&own), own.order(&kept)), (Ordering::Equal, Ordering::Equal));
        assert_eq!(Group::Null.order(&kept), Ordering::Less);
        assert_eq!(Group::Own(Arc::new(Pair(Some(1), 0.0))).order(&kept), Ordering::Greater);
        // By the second column where the first is equal.
        assert_eq!(Group::Own(Arc::new(Pair(Some(0), 0.1))).order(&kept), Ordering::Greater);
        assert_ne!(Group::Null, kept);
    }

    #[test]
    fn nothing_of_its_own_takes_no_memory() {
        assert_eq!(size_of::<Group<Pair>>(), 16);
        let rows = rows();
        let own = rows.iter().filter(|row| matches!(row, Group::Own(_))).count();
        assert_eq!(own, 2);
    }
}
