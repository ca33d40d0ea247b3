//! Which SQL users may ask a server.
//!
//! In: the text. Out: the same, without a semicolon at its end.
//! Cost: the server parses the text once more.
//! Invariants: a text that the server does not parse as one query (or `DESCRIBE`, `SHOW TABLES`,
//! `EXISTS`, or `EXPLAIN` of a query) never runs; of table functions only [`TABLE_FUNCTIONS`] do, and
//! none of [`READERS`].
//!
//! `readonly = 1` and grants do not suffice: with both, ClickHouse 25.8 gives a file's text by `file()`
//! to whoever may select anything, `DESCRIBE TABLE url(…)` goes and looks there, and `KILL QUERY` ends
//! the same user's other queries. So the server is first asked how it parses the text (`EXPLAIN AST`,
//! which runs nothing of it), and the tree is judged.

use anyhow::{bail, ensure};

use super::client::Server;

const ALLOWED: &str = "only one query (SELECT, FROM, WITH, DESCRIBE, SHOW TABLES, EXISTS, EXPLAIN)";

/// What a statement may be, by the first word of its tree, and what may be explained.
const STATEMENTS: [&str; 5] =
    ["DescribeQuery", "ShowTables", "ShowColumns", "ExistsTableQuery", EXPLAIN];
const QUERIES: [&str; 3] = ["SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery"];
const EXPLAIN: &str = "Explain";

/// Table functions that only make rows.
const TABLE_FUNCTIONS: [&str; 8] = [
    "generate_series",
    "generateseries",
    "null",
    "numbers",
    "numbers_mt",
    "values",
    "view",
    "zeros",
];

/// Functions that read what is not in the tables: beginnings of their names.
const READERS: [&str; 9] = [
    "file",
    // With a host as its first argument it connects there.
    "hascolumnintable",
    "dictget",
    "dicthas",
    "dictisin",
    "joinget",
    "catboostevaluate",
    "executable",
    "evalmlmethod",
];

/// The text as it may be run.
pub(super) fn allowed<'a>(server: &Server, sql: &'a str) -> anyhow::Result<&'a str> {
    let sql = sql.trim().trim_end_matches(';').trim_end();
    ensure!(!sql.is_empty(), "the query is empty");
    // A comment at its end would hide nothing, and what begins otherwise than a query does not parse.
    judge(&server.text(&format!("EXPLAIN AST {sql}"))?)?;
    Ok(sql)
}

/// Looks at a tree, one node a line, its depth in spaces.
fn judge(tree: &str) -> anyhow::Result<()> {
    let mut above = "";
    for (place, line) in tree.lines().enumerate() {
        let mut words = line.split_whitespace();
        let (node, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let lower = name.to_ascii_lowercase();
        if place == 0 || above == EXPLAIN {
            let may_be = place == 0 && STATEMENTS.contains(&node);
            ensure!(may_be || QUERIES.contains(&node), "{ALLOWED} is allowed");
        }
        match node {
            "Function" if above == "TableExpression" => {
                let is_allowed = TABLE_FUNCTIONS.contains(&lower.as_str());
                ensure!(is_allowed, "the table function {name}() is not allowed");
            }
            "Function" if READERS.iter().any(|reader| lower.starts_with(reader)) => {
                bail!("the function {name}() is not allowed");
            }
            "Set" => bail!("SETTINGS are not allowed"),
            _ => {}
        }
        above = node;
    }
    ensure!(!tree.trim().is_empty(), "{ALLOWED} is allowed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_judged_by_what_they_call() {
        let select = "SelectWithUnionQuery (children 1)\n";
        for tree in [
            select.to_owned(),
            format!("{select} TableExpression (children 1)\n  TableIdentifier file\n"),
            format!("{select} TableExpression (children 1)\n  Function numbers (children 1)\n"),
            format!("{select} Function sum (children 1)\n  Literal \\'Function file\\'\n"),
            format!("Explain EXPLAIN (children 1)\n {select}"),
            "DescribeQuery (children 1)\n TableExpression (children 1)\n  TableIdentifier a\n"
                .into(),
        ] {
            assert!(judge(&tree).is_ok(), "{tree}");
        }
        for tree in [
            String::new(),
            "KillQueryQuery Literal_UInt64_1 ASYNC (children 1)\n".to_owned(),
            "InsertQuery   (children 2)\n".to_owned(),
            "Explain EXPLAIN TABLE OVERRIDE (children 1)\n Function mysql\n".to_owned(),
            format!("{select} TableExpression (children 1)\n  Function url (alias u) (children 1)\n"),
            format!("{select} Function file (children 1)\n"),
            format!("{select} Function dictGetOrDefault (children 1)\n"),
            format!("{select} Set\n"),
            "DescribeQuery (children 1)\n TableExpression (children 1)\n  Function url (children 1)\n"
                .into(),
        ] {
            assert!(judge(&tree).is_err(), "{tree}");
        }
    }
}
