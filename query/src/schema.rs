//! The tables that there are.
//!
//! In: `schema.sql`, made from the record module of vmprobe (a test of that program holds both
//! equal, so this program needs nothing of the probe's to be built). Out: names, and the SQL that
//! makes empty tables.

/// `CREATE TABLE` statements of all tables, in the form that [`tables`] reads.
pub(crate) const DDL: &str = include_str!("schema.sql");

/// Names of the tables.
pub(crate) fn tables() -> impl Iterator<Item = &'static str> {
    DDL.lines().filter_map(|line| line.strip_prefix("CREATE TABLE \"")?.strip_suffix("\" ("))
}

/// Whether `sql` may read `table`; if not, none of its files is opened. The functions that could
/// make a name at run time are not allowed (`statement.rs`), so it stands in the text.
pub(crate) fn may_read(sql: &str, table: &str) -> bool {
    sql.to_ascii_lowercase().contains(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_where_it_may_be_named() {
        assert!(may_read("select * from \"Flows\"", "flows"));
        assert!(!may_read("from windows", "flows"));
    }

    #[test]
    fn the_tables_of_the_first_release_are_there() {
        let names: Vec<_> = tables().collect();
        for name in ["windows", "flows", "alerts", "ledger", "inventory", "taps"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
    }
}
