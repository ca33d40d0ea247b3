//! Which SQL is allowed.
//!
//! In: the text. Out: the one statement to run.
//! Cost: DuckDB parses the text once more.
//! Invariants: a text that DuckDB does not parse as one single `SELECT` (or `DESCRIBE`, `SHOW`,
//! `SUMMARIZE`, `VALUES`, `FROM`, or `EXPLAIN` of one) never runs, not in part either; of table
//! functions only [`TABLE_FUNCTIONS`] run, because some others write (`enable_logging`), and some
//! run a text that was not looked at (`query`).
//!
//! The parser that decides is the one that will run the text: DuckDB's `json_serialize_sql`
//! answers for `SELECT` statements only, and takes the text as a value.

use anyhow::{Context as _, bail, ensure};
use duckdb::Connection;
use serde_json::Value as Json;

const ALLOWED: &str = "only one query (SELECT, FROM, WITH, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN)";

/// Table functions that only make rows or tell of tables and settings.
const TABLE_FUNCTIONS: &[&str] = &[
    "duckdb_columns",
    "duckdb_functions",
    "duckdb_keywords",
    "duckdb_settings",
    "duckdb_tables",
    "duckdb_types",
    "duckdb_views",
    "generate_series",
    "json_each",
    "json_tree",
    "pragma_table_info",
    "pragma_version",
    "range",
    "repeat",
    "unnest",
];

/// The text as it may be run.
pub(crate) fn allowed(connection: &Connection, sql: &str) -> anyhow::Result<String> {
    let sql = sql.trim().trim_end_matches(';').trim_end();
    ensure!(!sql.is_empty(), "the query is empty");
    let (explain, query) = split_explain(sql);
    judge(connection, query)?;
    Ok(format!("{explain}{query}"))
}

fn judge(connection: &Connection, sql: &str) -> anyhow::Result<()> {
    let answer: String =
        connection
            .query_row("SELECT json_serialize_sql(?::VARCHAR)::VARCHAR", [sql], |row| row.get(0))?;
    let answer: Json = serde_json::from_str(&answer).context("the query is nested too deeply")?;
    let text = |key: &str| answer.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    if answer.get("error") != Some(&Json::Bool(false)) {
        // What DuckDB reads but does not serialise is a statement of another sort.
        ensure!(text("error_type") == "parser", "{ALLOWED} is allowed");
        bail!(text("error_message"));
    }
    let statements = answer.get("statements").and_then(Json::as_array).map_or(0, Vec::len);
    ensure!(statements == 1, "{ALLOWED} is allowed at a time, these are {statements}");
    if let Some(function) = forbidden_function(&answer) {
        bail!("the table function {function}() is not allowed");
    }
    Ok(())
}

/// The first table function anywhere in the parsed statement that is not in [`TABLE_FUNCTIONS`].
/// The depth is bounded: reading the JSON refuses more than 128 levels.
fn forbidden_function(node: &Json) -> Option<String> {
    match node {
        Json::Array(children) => children.iter().find_map(forbidden_function),
        Json::Object(fields) => {
            if fields.get("type").and_then(Json::as_str) == Some("TABLE_FUNCTION") {
                let name = fields.get("function").and_then(|call| call.get("function_name"));
                let name = name.and_then(Json::as_str).unwrap_or("?").to_ascii_lowercase();
                if !TABLE_FUNCTIONS.contains(&name.as_str()) {
                    return Some(name);
                }
            }
            fields.values().find_map(forbidden_function)
        }
        _ => None,
    }
}

/// `EXPLAIN` and `EXPLAIN ANALYZE` apart from the query that they explain.
fn split_explain(sql: &str) -> (&str, &str) {
    let mut rest = sql;
    for word in ["explain", "analyze"] {
        match rest.split_at_checked(word.len()) {
            Some((head, tail))
                if head.eq_ignore_ascii_case(word) && tail.starts_with(char::is_whitespace) =>
            {
                rest = tail.trim_start();
            }
            _ => break,
        }
    }
    sql.split_at(sql.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explain_is_split_off() {
        assert_eq!(split_explain("EXPLAIN  select 1"), ("EXPLAIN  ", "select 1"));
        assert_eq!(split_explain("explain analyze from t"), ("explain analyze ", "from t"));
        assert_eq!(split_explain("explained"), ("", "explained"));
    }

    #[test]
    fn queries_pass_and_all_else_does_not() {
        let connection = Connection::open_in_memory().expect("a database");
        for sql in [
            "select 1;",
            "with a as (select 1) from a",
            "from range(3)",
            "values (1)",
            "show tables",
            "describe select 1 -- what is it",
            "summarize from range(3)",
            "explain select 1",
            "explain analyze select 1",
            "from range(3) t, lateral unnest([t.range])",
            "select ';' -- ;",
        ] {
            let allowed = allowed(&connection, sql).expect(sql);
            let mut statement = connection.prepare(&allowed).expect(sql);
            assert!(statement.query([]).is_ok_and(|mut rows| rows.next().is_ok()), "{sql}");
        }
        for sql in [
            "",
            ";",
            "select 1; select 2",
            "select 1; drop table t",
            "create table t (a int)",
            "copy (select 1) to 'x'",
            "attach 'x'",
            "install httpfs",
            "load httpfs",
            "pragma version",
            "set threads = 1",
            "reset threads",
            "insert into t values (1)",
            "call pragma_version()",
            "export database 'x'",
            "checkpoint",
            "from checkpoint()",
            "from read_csv('x')",
            "from main.query('select 1')",
            "with a as (from Enable_Logging()) from a",
            "select (select 1 from query_table('x'))",
            "explain copy (select 1) to 'x'",
            "explain analyze copy (select 1) to 'x'",
            "select 1) ; copy (select 1) to 'x' ; select * from (select 1",
            "describe select 1); copy (select 1) to 'x' ; select * from (select 1",
            "selec 1",
        ] {
            assert!(allowed(&connection, sql).is_err(), "{sql}");
        }
    }
}
