//! Making and upgrading the tables of a server.
//!
//! In: a plan, what the server has. Out: the statements that are missing, and their execution.
//! Invariants: nothing is dropped but what can be made again without loss (a Distributed table); columns
//! that this version does not know stay; a server whose schema is of a newer vmprobe is left alone; what
//! is done already is not done again, so it can be run at any time.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::client::{Client, ClientError};
use super::ddl::{ServerColumn, ServerTable, Statements, comment, quoted, tables};
use crate::config::ClickhousePlan;
use crate::record::SCHEMA_VERSION;

/// Why a schema is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The server.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// What the server says of its tables is not understood.
    #[error("the server's list of tables is not understood: {0}")]
    Answer(#[from] serde_json::Error),
    /// The tables are of a newer version.
    #[error(
        "table {table} has schema version {found}, this vmprobe knows {SCHEMA_VERSION}; use the newer \
         vmprobe"
    )]
    Newer {
        /// Which.
        table: String,
        /// Its version.
        found: u16,
    },
    /// A roll-up adds up rows that a column keeps apart.
    #[error(
        "rows of table {table} that differ in {column} alone are added up, because that is not in its \
         ORDER BY; drop the view {table}_view, rename the table (RENAME TABLE) and run this again, which \
         makes both anew"
    )]
    Key {
        /// Table.
        table: String,
        /// Column.
        column: String,
    },
    /// A column has a type that cannot become the wanted one.
    #[error(
        "column {column} of table {table} is {found} and must be {wanted}; rename the table \
         (RENAME TABLE) and run this again, which makes a new one"
    )]
    Type {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// Type on the server.
        found: String,
        /// Type of the schema.
        wanted: String,
    },
}

/// What a server has.
#[derive(Debug, Default)]
struct Server {
    /// Columns by table, each with its type.
    columns: BTreeMap<String, BTreeMap<String, String>>,
    /// Comments of tables.
    comments: BTreeMap<String, String>,
    /// Columns by which tables are in order.
    orders: BTreeMap<String, Vec<String>>,
    /// What views select.
    selects: BTreeMap<String, String>,
}

/// One column as the server lists it.
#[derive(Deserialize)]
struct ColumnLine {
    table: String,
    name: String,
    r#type: String,
}

/// One table as the server lists it.
#[derive(Deserialize)]
struct TableLine {
    name: String,
    comment: String,
    sorting_key: String,
    as_select: String,
}

/// Makes and upgrades the tables. The statements that were needed come back, in order; with `dry` they
/// are not executed.
///
/// # Errors
/// [`SchemaError`]; what was executed before it stays.
pub fn apply(
    plan: &ClickhousePlan,
    timeout_ms: u32,
    dry: bool,
) -> Result<Vec<String>, SchemaError> {
    let client = Client::new(plan, timeout_ms)?;
    client.version()?;
    let needed = missing(plan, &look(&client, plan)?)?;
    if !dry {
        for statement in &needed {
            client.run(statement)?;
        }
    }
    Ok(needed)
}

fn look(client: &Client, plan: &ClickhousePlan) -> Result<Server, SchemaError> {
    let database = quoted(&plan.database);
    let mut server = Server::default();
    let columns = client.run(&format!(
        "SELECT table, name, type FROM system.columns WHERE database = {database} \
         ORDER BY table, position FORMAT JSONEachRow"
    ))?;
    for line in columns.lines() {
        let ColumnLine { table, name, r#type } = serde_json::from_str(line)?;
        server.columns.entry(table).or_default().insert(name, r#type);
    }
    let described = client.run(&format!(
        "SELECT name, comment, sorting_key, as_select FROM system.tables WHERE database = {database} \
         FORMAT JSONEachRow"
    ))?;
    for line in described.lines() {
        let TableLine { name, comment, sorting_key, as_select } = serde_json::from_str(line)?;
        server.orders.insert(name.clone(), words(&sorting_key).map(str::to_owned).collect());
        server.selects.insert(name.clone(), as_select);
        server.comments.insert(name, comment);
    }
    Ok(server)
}

/// Names in an expression.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| it != '_' && !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// Whether a view gives all columns of its table, each row as it is. (Those of before added up what a batch
/// has, which the table does itself: the same rows at twice the cost.)
fn is_current(select: &str, table: &ServerTable) -> bool {
    let given: BTreeSet<_> = words(select).collect();
    let gives_all =
        table.columns.iter().all(|column| column.is_computed || given.contains(&*column.name));
    gives_all && !given.contains("GROUP")
}

/// What has to be done, in order.
fn missing(plan: &ClickhousePlan, server: &Server) -> Result<Vec<String>, SchemaError> {
    let statements = Statements::new(plan);
    let mut needed = Vec::new();
    if server.comments.is_empty() {
        needed.push(statements.database());
    }
    for table in tables(plan) {
        let local = statements.local(&table.name);
        let Some(columns) = server.columns.get(&local) else {
            needed.extend(statements.create(&table));
            continue;
        };
        let found = server.comments.get(&local).map_or("", String::as_str);
        let (version, ttl_days) = read_comment(found);
        if version.is_some_and(|version| version > SCHEMA_VERSION) {
            let found = version.unwrap_or_default();
            return Err(SchemaError::Newer { table: local, found });
        }
        let order = server.orders.get(&local).cloned().unwrap_or_default();
        let changed = change_columns(&statements, &table, columns, order, &mut needed)?;
        let is_there = |name: &String| server.comments.contains_key(name);
        match server.selects.get(&statements.view_name(&table)) {
            _ if table.select.is_none() => {}
            None => needed.extend(statements.create_view(&table)),
            // Not by what has changed just now: another run may have ended between the two.
            Some(select) if is_current(select, &table) => {}
            Some(_) => needed.extend(statements.change_view(&table)),
        }
        if changed || !is_there(&table.name) {
            needed.extend(statements.create_distributed(&table));
        }
        if ttl_days.unwrap_or(0) != table.ttl_days {
            needed.push(statements.change_ttl(&table));
        }
        if found != comment(table.ttl_days) {
            needed.push(statements.change_comment(&table));
        }
    }
    Ok(needed)
}

/// Columns that lack or have another type. Whether there are any. `order`: what the table is in order by.
fn change_columns(
    statements: &Statements<'_>,
    table: &ServerTable,
    found: &BTreeMap<String, String>,
    mut order: Vec<String>,
    needed: &mut Vec<String>,
) -> Result<bool, SchemaError> {
    let before = needed.len();
    let mut after: Option<&str> = None;
    for column in &table.columns {
        let is_key = table.keys.contains(&column.name);
        match found.get(&column.name) {
            None => {
                // Behind what is there: the beginning of an order cannot change.
                order.extend(is_key.then(|| column.name.clone()));
                let order = is_key.then_some(&*order);
                needed.push(statements.add_column(table, column, after, order));
            }
            Some(_) if is_key && !order.contains(&column.name) => {
                let (table, column) = (statements.local(&table.name), column.name.clone());
                return Err(SchemaError::Key { table, column });
            }
            Some(kind) if *kind == column.kind => {}
            Some(kind) if widens(kind, &column.kind) => {
                needed.push(statements.change_column(table, column));
            }
            Some(kind) => return Err(wrong_type(table, column, kind)),
        }
        after = Some(&column.name);
    }
    Ok(needed.len() > before)
}

fn wrong_type(table: &ServerTable, column: &ServerColumn, found: &str) -> SchemaError {
    SchemaError::Type {
        table: table.name.clone(),
        column: column.name.clone(),
        found: found.to_owned(),
        wanted: column.kind.clone(),
    }
}

/// Whether every value of one type is one of the other.
pub(super) fn widens(from: &str, to: &str) -> bool {
    let ((from, from_null), (to, to_null)) = (bare(from), bare(to));
    if from_null && !to_null {
        return false;
    }
    let width = |kind: &str| kind.strip_prefix("UInt").and_then(|bits| bits.parse::<u32>().ok());
    from == to || width(from).zip(width(to)).is_some_and(|(from, to)| from <= to)
}

/// A type without LowCardinality and Nullable, and whether it was nullable.
fn bare(kind: &str) -> (&str, bool) {
    let inner = |kind: &'_ str, name: &str| -> Option<(usize, usize)> {
        let rest = kind.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?;
        Some((name.len() + 1, rest.len()))
    };
    let mut kind = kind;
    if let Some((at, length)) = inner(kind, "LowCardinality") {
        kind = kind.get(at..at + length).unwrap_or(kind);
    }
    match inner(kind, "Nullable") {
        Some((at, length)) => (kind.get(at..at + length).unwrap_or(kind), true),
        None => (kind, false),
    }
}

/// Version and days of a table's comment.
fn read_comment(comment: &str) -> (Option<u16>, Option<u32>) {
    let value =
        |name: &str| comment.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let version = value("schema").and_then(|version| version.parse().ok());
    (version, value("ttl_days").and_then(|days| days.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ClickhousePlan {
        ClickhousePlan::new("http://127.0.0.1:8123".parse().expect("a URL"))
    }

    /// A server that has all that `plan` wants.
    fn complete(plan: &ClickhousePlan) -> Server {
        let statements = Statements::new(plan);
        let mut server = Server::default();
        for table in tables(plan) {
            let local = statements.local(&table.name);
            let columns = table.columns.iter().map(|it| (it.name.clone(), it.kind.clone()));
            server.columns.insert(local.clone(), columns.collect());
            server.orders.insert(local.clone(), table.keys.clone());
            server.comments.insert(local, comment(table.ttl_days));
            server.comments.entry(table.name.clone()).or_default();
            if let Some(select) = statements.view_select(&table) {
                server.comments.insert(statements.view_name(&table), String::new());
                server.selects.insert(statements.view_name(&table), select);
            }
        }
        server
    }

    #[test]
    fn nothing_is_done_twice() {
        let plan = plan();
        assert_eq!(missing(&plan, &complete(&plan)).expect("all is well"), [""; 0]);
        let all = missing(&plan, &Server::default()).expect("all is made");
        assert_eq!(all.len(), 1 + tables(&plan).len() + 2, "database, tables, views");
    }

    #[test]
    fn what_is_missing_is_added_in_its_place() {
        let plan = plan();
        let mut server = complete(&plan);
        server.columns.get_mut("windows").expect("a table").remove("tap");
        // A database of a version that had no such table.
        server.columns.remove("apps");
        server.columns.get_mut("windows_1m").expect("a table").remove("flow_count");
        // One of which only the view lacks something, as a run leaves it that ends between the two.
        let select = server.selects.get_mut("windows_1m_view").expect("a view");
        *select = select.replace("flow_count", "");
        let select = server.selects.get_mut("windows_1h_view").expect("a view");
        *select = select.replace("syn_count", "");
        server
            .columns
            .get_mut("flows")
            .expect("a table")
            .insert("source_port".to_owned(), "UInt8".to_owned());
        server
            .columns
            .get_mut("flows")
            .expect("a table")
            .insert("custom".to_owned(), "UInt8".to_owned());
        let needed = missing(&plan, &server).expect("it can be done").join("\n");
        assert!(needed.contains("ALTER TABLE `vmprobe`.`windows` ADD COLUMN IF NOT EXISTS `tap`"));
        assert!(needed.contains("AFTER `sampling_rate`"), "{needed}");
        assert!(needed.contains("CREATE TABLE IF NOT EXISTS `vmprobe`.`apps`"), "{needed}");
        assert!(needed.contains("`windows_1m` ADD COLUMN IF NOT EXISTS `flow_count`"));
        assert!(needed.contains("ALTER TABLE `vmprobe`.`windows_1m_view` MODIFY QUERY SELECT"));
        assert!(needed.contains("ALTER TABLE `vmprobe`.`windows_1h_view` MODIFY QUERY SELECT"));
        assert!(!needed.contains("MODIFY ORDER BY"), "{needed}");
        assert!(
            needed.contains("ALTER TABLE `vmprobe`.`flows` MODIFY COLUMN `source_port` UInt16")
        );
        assert!(!needed.contains("custom") && !needed.contains("DROP"));
    }

    #[test]
    fn a_view_that_adds_up_by_itself_is_changed() {
        let plan = plan();
        let mut server = complete(&plan);
        let select = server.selects.get_mut("windows_1m_view").expect("a view");
        select.push_str(" GROUP BY start_time");
        let needed = missing(&plan, &server).expect("it can be done");
        assert_eq!(needed.len(), 1, "{needed:?}");
        assert!(needed[0].contains("`windows_1m_view` MODIFY QUERY SELECT"), "{needed:?}");
        assert!(!needed[0].contains("GROUP BY"), "{needed:?}");
    }

    #[test]
    fn what_keeps_rows_of_a_roll_up_apart_is_in_its_order() {
        let plan = plan();
        let mut server = complete(&plan);
        for name in ["traffic_class", "application_name"] {
            server.columns.get_mut("windows_1m").expect("a table").remove(name);
            server.orders.get_mut("windows_1m").expect("a table").retain(|it| it != name);
        }
        let needed = missing(&plan, &server).expect("it can be done");
        let ends = |statement: &String, end| statement.ends_with(end);
        assert!(
            ends(&needed[0], ", `destination_network_kind`, `application_name`)"),
            "{needed:?}"
        );
        assert!(ends(&needed[1], ", `application_name`, `traffic_class`)"), "{needed:?}");
        assert!(needed[0].contains(", MODIFY ORDER BY (`start_time`, "), "{needed:?}");
        // As an earlier version of this program has left it.
        let mut server = complete(&plan);
        server.orders.get_mut("windows_1h").expect("a table").retain(|it| it != "traffic_class");
        let error = missing(&plan, &server).expect_err("it cannot be added").to_string();
        assert!(error.contains("windows_1h") && error.contains("traffic_class"), "{error}");
    }

    #[test]
    fn another_age_is_told() {
        let mut plan = plan();
        let server = complete(&plan);
        plan.ttl_days = 7;
        let needed = missing(&plan, &server).expect("it can be done").join("\n");
        assert!(needed.contains("`flows` MODIFY TTL filed_time + INTERVAL 7 DAY"), "{needed}");
        assert!(needed.contains("MODIFY COMMENT 'vmprobe schema=1 ttl_days=7'"), "{needed}");
        assert!(!needed.contains("windows_1m"));
        plan.ttl_days = 0;
        assert!(missing(&plan, &server).expect("it can be done").join("\n").contains("REMOVE TTL"));
    }

    #[test]
    fn what_would_lose_values_is_refused() {
        let plan = plan();
        let mut server = complete(&plan);
        server.comments.insert("flows".to_owned(), "vmprobe schema=999 ttl_days=30".to_owned());
        assert!(matches!(missing(&plan, &server), Err(SchemaError::Newer { found: 999, .. })));
        let mut server = complete(&plan);
        let flows = server.columns.get_mut("flows").expect("a table");
        flows.insert("source_port".to_owned(), "String".to_owned());
        let error = missing(&plan, &server).expect_err("no number").to_string();
        assert!(
            error.contains("source_port of table flows is String and must be UInt16"),
            "{error}"
        );
    }

    #[test]
    fn types_widen_and_never_narrow() {
        for (from, to, is) in [
            ("UInt8", "UInt16", true),
            ("UInt16", "UInt8", false),
            ("UInt64", "Nullable(UInt64)", true),
            ("Nullable(UInt64)", "UInt64", false),
            ("String", "LowCardinality(Nullable(String))", true),
            ("LowCardinality(Nullable(String))", "LowCardinality(String)", false),
            ("Int64", "UInt64", false),
        ] {
            assert_eq!(widens(from, to), is, "{from} to {to}");
        }
    }
}
