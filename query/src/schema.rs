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

/// Words of questions that may show which views there are.
const CATALOGUE: [&str; 7] =
    ["show", "describe", "summarize", "pragma", "information_schema", "duckdb_", "pg_"];

/// Of [`VIEWS`] what `sql` may name, and what that is made of. Making all takes longer than most questions.
pub(crate) fn views(sql: &str) -> String {
    let sql = sql.to_ascii_lowercase();
    let words = || sql.split(|it: char| !it.is_alphanumeric() && it != '_');
    let of_catalogue = |word: &str| {
        CATALOGUE
            .iter()
            .any(|it| if it.ends_with('_') { word.starts_with(it) } else { word == *it })
    };
    // Behind a column it is an order.
    let is_described = sql.split('(').any(|part| part.split_whitespace().next() == Some("desc"));
    if is_described || words().any(of_catalogue) || sql.contains("sqlite_") {
        return VIEWS.clone();
    }
    let mut needed: Vec<&str> = Vec::new();
    // A view is made of those before it. Macros take no time.
    let statements: Vec<_> = VIEWS.split_inclusive(";\n").collect();
    for statement in statements.into_iter().rev() {
        let view =
            statement.split_once("CREATE VIEW ").and_then(|(_, rest)| rest.split(' ').next());
        let is_named = view.is_none_or(|view| {
            sql.contains(view) || needed.iter().any(|other| other.contains(view))
        });
        needed.extend(is_named.then_some(statement));
    }
    needed.into_iter().rev().collect()
}

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

/// All tables and views, as the help names them.
pub(crate) fn listed() -> String {
    let tables: Vec<_> = tables().collect();
    let views = VIEWS.split("CREATE VIEW ").skip(1).filter_map(|rest| rest.split(' ').next());
    let views: Vec<_> = views.chain(rollup::RollUp::VIEWS.map(rollup::RollUp::name)).collect();
    format!("Tables: {}.\nViews, of files: {}.", tables.join(", "), views.join(", "))
}

/// Names and types of a table's columns.
pub(crate) fn columns(table: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    fates(table).map(|(name, kind, _)| (name, kind))
}

/// The same, with what becomes of them where rows are added up: `key`, a function, or empty.
pub(crate) fn fates(
    table: &str,
) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let begin = format!("CREATE TABLE \"{table}\" (\n");
    let body = DDL.split_once(&begin).map_or("", |(_, body)| body);
    let body = body.split_once("\n);").map_or("", |(body, _)| body);
    body.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix('"')?.split_once("\" ")?;
        let (kind, fate) = rest.split_once(" -- ").unwrap_or((rest, ""));
        Some((name, kind.trim_end_matches(',').trim_end_matches(" NOT NULL"), fate))
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
    fn views_are_made_where_they_may_be_named() {
        let made = |sql: &str| {
            let sql = views(sql);
            let names = sql.split("CREATE VIEW ").skip(1);
            names.map(|rest| rest.split(' ').next().unwrap_or("").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(made("SELECT count(*) FROM windows"), [""; 0]);
        assert_eq!(made("from Windows_Now"), ["inventory_now", "windows_now"]);
        let lens = ["migration_windows", "migration_paths", "migration_lens"];
        assert_eq!(made("FROM migration_lens"), lens);
        let all = made("SHOW TABLES");
        assert_eq!(all.len(), VIEWS.matches("CREATE VIEW ").count());
        assert_eq!(made("FROM windows ORDER BY octet_delta_count DESC LIMIT 5"), [""; 0]);
        for sql in [
            "describe",
            "DESC windows",
            "FROM ( DESC windows)",
            "FROM duckdb_views()",
            "from information_schema.tables",
        ] {
            assert_eq!(made(sql), all, "{sql}");
        }
        for view in &all {
            assert!(made(&format!("FROM {view}")).contains(view), "{view}");
        }
        assert_eq!(views("show tables"), *VIEWS);
        assert_eq!(
            views("FROM windows").matches("CREATE MACRO ").count(),
            VIEWS.matches("CREATE MACRO ").count()
        );
    }

    #[test]
    fn columns_have_names_and_types() {
        let windows: Vec<_> = columns("windows").collect();
        assert_eq!(windows.first(), Some(&("schema_version", "USMALLINT")));
        assert_eq!(windows.last(), Some(&("reverse_loss_high", "DOUBLE")));
        assert!(windows.contains(&("source_mac", "VARCHAR")), "{windows:?}");
        let fates: Vec<_> = fates("windows").collect();
        assert!(fates.contains(&("flow_count", "UBIGINT", "sum")), "{fates:?}");
        assert!(fates.contains(&("source_mac", "VARCHAR", "")), "{fates:?}");
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
