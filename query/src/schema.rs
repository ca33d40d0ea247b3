//! The tables that there are.
//!
//! In: `schema.sql`, made from the record module of vmprobe (a test of that program holds both
//! equal, so this program needs nothing of the probe's to be built), `views.sql`, `now.sql`,
//! `vm_windows.sql`. Out: names, and the SQL that makes empty tables and views.

use std::sync::LazyLock;

use crate::{now, rollup};

/// `CREATE TABLE` statements of all tables, in the form that [`tables`] reads.
pub(crate) const DDL: &str = include_str!("schema.sql");

/// `CREATE VIEW` statements over the tables: what was recorded, as it is known now.
pub(crate) static VIEWS: LazyLock<String> = LazyLock::new(|| {
    [include_str!("views.sql"), &now::views(), include_str!("vm_windows.sql")].concat()
});

/// Tables that a view reads and does not name.
const BEHIND_VIEWS: [(&str, &[&str]); 7] = [
    ("windows_now", &["inventory"]),
    ("flows_now", &["inventory"]),
    ("alerts_now", &["inventory"]),
    ("vm_windows", &["windows", "vm_usage", "inventory"]),
    ("migration_windows", &["migrations"]),
    ("migration_paths", &["migrations", "windows"]),
    ("migration_lens", &["migrations", "windows", "flows", "path"]),
];

/// Names and types of a table's columns.
pub(crate) fn columns(table: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let begin = format!("CREATE TABLE \"{table}\" (\n");
    let body = DDL.split_once(&begin).map_or("", |(_, body)| body);
    let body = body.split_once("\n);").map_or("", |(body, _)| body);
    body.lines().filter_map(|line| {
        let (name, kind) = line.trim().strip_prefix('"')?.split_once("\" ")?;
        Some((name, kind.trim_end_matches(',').trim_end_matches(" NOT NULL")))
    })
}

/// The schema's version.
pub(crate) fn version() -> u16 {
    let words = DDL.split_once("schema version ").map_or("", |(_, rest)| rest);
    words.split('.').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// What a macro of the views stands for, with one argument put in: for a server that has no macros.
pub(crate) fn expanded(name: &str, parameter: &str, argument: &str) -> String {
    let begin = format!("CREATE MACRO {name}({parameter}) AS ");
    let body = VIEWS.split_once(&begin).and_then(|(_, body)| body.split_once(";\n"));
    body.map_or("", |(body, _)| body).replace(parameter, argument)
}

/// Names of the tables.
pub(crate) fn tables() -> impl Iterator<Item = &'static str> {
    DDL.lines().filter_map(|line| line.strip_prefix("CREATE TABLE \"")?.strip_suffix("\" ("))
}

/// Whether `sql` may read `table`; if not, none of its files is opened. The functions that could
/// make a name at run time are not allowed (`statement.rs`), so it stands in the text.
pub(crate) fn may_read(sql: &str, table: &str) -> bool {
    let mut sql = sql.to_ascii_lowercase();
    for view in rollup::RollUp::VIEWS {
        // They are made of files of their own, and of those that these leave out.
        if table == rollup::TABLE {
            sql = sql.replace(view.name(), "");
        }
    }
    let is_behind =
        |(view, tables): &(&str, &[&str])| sql.contains(view) && tables.contains(&table);
    sql.contains(table) || BEHIND_VIEWS.iter().any(is_behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_where_it_may_be_named() {
        assert!(may_read("select * from \"Flows\"", "flows"));
        assert!(!may_read("from windows", "flows"));
        assert!(
            may_read("from Windows_Now", "inventory") && may_read("from windows_now", "windows")
        );
        assert!(!may_read("from windows", "inventory"));
        for table in ["flows", "alerts"] {
            let sql = format!("from {table}_now");
            assert!(may_read(&sql, table) && may_read(&sql, "inventory"), "{table}");
        }
        for table in ["migrations", "windows", "flows", "path"] {
            assert!(may_read("from migration_lens", table), "{table}");
        }
        assert!(!may_read("from migration_lens", "alerts"));
        assert!(!may_read("from Windows_1h", "windows"));
        assert!(may_read("from windows_1h, windows", "windows"));
    }

    #[test]
    fn columns_have_names_and_types() {
        let windows: Vec<_> = columns("windows").collect();
        assert_eq!(windows.first(), Some(&("schema_version", "USMALLINT")));
        assert_eq!(windows.last(), Some(&("reverse_loss_high", "DOUBLE")));
        assert!(windows.contains(&("source_mac", "VARCHAR")), "{windows:?}");
    }

    #[test]
    fn macros_are_put_in() {
        let sql = expanded("stays_on_link", "address", "windows.source_mac");
        assert!(sql.starts_with('(') && sql.ends_with(')'), "{sql}");
        assert_eq!(sql.matches("windows.source_mac").count(), 6);
        assert!(version() >= 1);
    }

    #[test]
    fn the_tables_of_the_first_release_are_there() {
        let names: Vec<_> = tables().collect();
        for name in ["windows", "flows", "alerts", "ledger", "inventory", "taps"] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
    }
}
