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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_first_release_are_there() {
        let names: Vec<_> = tables().collect();
        for name in ["windows", "flows", "alerts", "ledger", "inventory", "taps"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
    }
}
