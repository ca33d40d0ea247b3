//! Where the SQL of DuckDB and of ClickHouse differ.
//!
//! In: what is meant. Out: how the one or the other says it.
//! Invariants: whatever both say in the same words is written once, where it is asked.

use crate::schema;

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Of the embedded engine.
    Duckdb,
    /// Of the server.
    Clickhouse,
}

impl Dialect {
    /// A number of 64 bits without a sign.
    pub(crate) fn unsigned(self, value: &str) -> String {
        match self {
            Self::Duckdb => format!("{value}::UBIGINT"),
            Self::Clickhouse => format!("toUInt64({value})"),
        }
    }

    /// A function of any values that spreads them evenly.
    pub(crate) fn hash(self) -> &'static str {
        match self {
            Self::Duckdb => "hash",
            Self::Clickhouse => "cityHash64",
        }
    }

    /// Whether no router passes an address on.
    pub(crate) fn stays_on_link(self, address: &str) -> String {
        match self {
            Self::Duckdb => format!("stays_on_link({address})"),
            Self::Clickhouse => schema::expanded("stays_on_link", "address", address),
        }
    }

    /// The least or the greatest number (`min`, `max`) in lists that is on one side of another one, else
    /// `default`. A list may not be there.
    pub(crate) fn of_lists(
        self,
        function: &str,
        lists: &[String],
        side: &str,
        default: &str,
    ) -> String {
        let default = self.unsigned(default);
        let all = lists.join(", ");
        match self {
            Self::Duckdb => {
                let none = format!("{} IS NULL", lists.join(" IS NULL AND "));
                format!(
                    "CASE WHEN {none} THEN {default} ELSE coalesce(
                       list_{function}(list_filter(list_concat({all}), lambda t: t {side})), {default})
                     END"
                )
            }
            // Where there is no list, it is empty.
            Self::Clickhouse => {
                let array =
                    if lists.len() > 1 { format!("arrayConcat({all})") } else { all.clone() };
                let found = format!("arrayFilter(t -> t {side}, {array})");
                let name = if function == "max" { "arrayMax" } else { "arrayMin" };
                format!("if(empty({found}), {default}, {name}({found}))")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_say_the_same_of_lists() {
        let lists = ["a".to_owned(), "b".to_owned()];
        let duckdb = Dialect::Duckdb.of_lists("max", &lists, "<= x", "5");
        assert!(
            duckdb.starts_with("CASE WHEN a IS NULL AND b IS NULL THEN 5::UBIGINT"),
            "{duckdb}"
        );
        let clickhouse = Dialect::Clickhouse.of_lists("max", &lists, "<= x", "5");
        assert_eq!(
            clickhouse,
            "if(empty(arrayFilter(t -> t <= x, arrayConcat(a, b))), toUInt64(5), \
             arrayMax(arrayFilter(t -> t <= x, arrayConcat(a, b))))"
        );
    }
}
