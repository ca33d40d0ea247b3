//! Conversations of the hours that stand added up.
//!
//! In: relations of `Database::make_talks`: `rolled_talks`, the windows that they stand for, and the rest. Out: SQL of
//! what is read of each.
//! Invariants: each window of the span is in exactly one of them. Of an hour that does not lie in the span
//! with all its rows the windows are read; and those between two ends at which something changes inside a
//! row, which became known when the hour stood added up.

use crate::cell::Cell;
use crate::changes::{Changes, first_row};
use crate::database::{Database, TALKS};
use crate::rollup::{HOUR_NS, TABLE, TALK_KEYS};
use crate::span::Span;

/// What tells the ends of torn rows apart, of columns that are never null.
const TORN_BY: &str = "start_ns, probe_id, address_space, source_address, destination_address";

/// Which hours are read added up.
pub(super) struct Rolled {
    span: Span,
    /// All windows.
    windows: &'static str,
    /// Their first instants, in order.
    hours: Vec<u64>,
    /// Whether there are rows that something changes in, in the table `torn`.
    any_torn: bool,
}

impl Rolled {
    /// None of them, where nothing but the table of windows is there.
    pub(super) const fn none(span: Span) -> Self {
        Self { span, windows: TABLE, hours: Vec::new(), any_torn: false }
    }

    /// Looks at what stands added up.
    pub(super) fn find(database: &Database, span: Span) -> anyhow::Result<Self> {
        let Span { from_ns, to_ns } = span;
        let mut rolled = Self { windows: TALKS.windows, ..Self::none(span) };
        let sql = format!(
            "SELECT start_ns FROM {} WHERE {} GROUP BY start_ns
             HAVING bool_and(first_end_ns > {from_ns} AND last_start_ns < {to_ns}) ORDER BY start_ns",
            TALKS.rolled,
            rolled.overlap()
        );
        database.each(&sql, |row| {
            rolled.hours.push(row.first().map_or("", Cell::plain).parse()?);
            Ok(())
        })?;
        Ok(rolled)
    }

    /// Makes the table `torn` where it is needed.
    pub(super) fn find_torn(
        &mut self,
        database: &Database,
        changes: &Changes,
    ) -> anyhow::Result<()> {
        if changes.any && self.any() {
            let rows = changes.with_instants(&self.rows(""));
            database.execute(&format!(
                "CREATE TEMP TABLE torn AS SELECT DISTINCT {TORN_BY} FROM {rows} WHERE {}",
                changes.within("first_start_ns", "last_end_ns")
            ))?;
            let [any] = first_row(database, "SELECT EXISTS (FROM torn)")?;
            self.any_torn = any.plain() == "true";
        }
        Ok(())
    }

    /// The times of all windows of the span, some as the first and the last of many.
    pub(super) fn times(&self) -> String {
        let windows = self.windows("");
        if !self.any() {
            return windows;
        }
        format!(
            "(SELECT window_start_ns, window_end_ns FROM {windows}
              UNION ALL SELECT first_start_ns, last_end_ns FROM {})",
            self.rows("")
        )
    }

    /// Rows that stand added up, in the columns of `rollup::talks`; `filter` is of the columns that tell
    /// conversations apart.
    pub(super) fn rows(&self, filter: &str) -> String {
        let torn = if self.any_torn {
            format!(" ANTI JOIN torn USING ({TORN_BY})")
        } else {
            String::new()
        };
        format!(
            "(SELECT * FROM (SELECT * FROM {} WHERE start_ns IN ({}) AND {}{filter}) AS own{torn})",
            TALKS.rolled,
            self.hours.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
            self.overlap()
        )
    }

    /// Whether there are any.
    pub(super) const fn any(&self) -> bool {
        !self.hours.is_empty()
    }

    /// The windows that are read; `filter` as above. It is applied to all of them at once, because each of its
    /// joins takes memory wherever it stands.
    pub(super) fn windows(&self, filter: &str) -> String {
        let in_span = self.span.windows();
        if !self.any() {
            return format!("(SELECT * FROM {} WHERE {in_span}{filter})", self.windows);
        }
        let mut parts = vec![
            format!("SELECT * FROM {} WHERE {in_span}", TALKS.rest),
            // By bounds, so that row groups are left out by what they say of themselves.
            format!(
                "SELECT * FROM {} WHERE {in_span}{}",
                TALKS.behind,
                self.ranges().map(outside).collect::<String>()
            ),
        ];
        if self.any_torn {
            parts.push(format!(
                "SELECT * EXCLUDE (start_ns) FROM (
                   SELECT window_start_ns // {HOUR_NS} * {HOUR_NS} AS start_ns, * FROM {}
                   WHERE {in_span} AND ({})) AS own
                 SEMI JOIN torn USING ({TORN_BY})",
                TALKS.behind,
                self.ranges().map(inside).collect::<Vec<_>>().join(" OR ")
            ));
        }
        format!("(SELECT * FROM ({}) WHERE true{filter})", parts.join(" UNION ALL "))
    }

    /// That rows have windows in the span.
    fn overlap(&self) -> String {
        let Span { from_ns, to_ns } = self.span;
        format!("last_end_ns > {from_ns} AND first_start_ns < {to_ns}")
    }

    /// Hours that follow one another as one: first instant, and the first behind.
    fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.hours.chunk_by(|one, two| one + HOUR_NS == *two).filter_map(|hours| {
            let (first, last) = (hours.first()?, hours.last()?);
            Some((*first, last.saturating_add(HOUR_NS)))
        })
    }
}

fn outside((from, to): (u64, u64)) -> String {
    format!(" AND (window_start_ns < {from} OR window_start_ns >= {to})")
}

fn inside((from, to): (u64, u64)) -> String {
    format!("window_start_ns >= {from} AND window_start_ns < {to}")
}

/// Their columns that tell conversations apart.
pub(super) fn keys() -> String {
    TALK_KEYS.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_that_follow_one_another_are_one_range() {
        let hours = [1, 2, 3, 7, 9, 10].map(|hour| hour * HOUR_NS).to_vec();
        let rolled = Rolled { hours, ..Rolled::none(Span::default()) };
        let ranges: Vec<_> =
            rolled.ranges().map(|(from, to)| (from / HOUR_NS, to / HOUR_NS)).collect();
        assert_eq!(ranges, [(1, 4), (7, 8), (9, 11)]);
    }
}
