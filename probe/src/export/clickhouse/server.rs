//! What a server has.
//!
//! In: a server. Out: its tables as far as [`super::schema`] must know them.
//! Invariants: only what every user may read of `system` is asked, of the other servers of a cluster only
//! where a replicated table is to be made.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::Client;
use super::ddl::{ServerTable, Statements, named, quoted};
use super::schema::SchemaError;
use crate::config::ClickhousePlan;

/// What a server has.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// Columns by table, each with its type.
    pub(super) columns: BTreeMap<String, BTreeMap<String, String>>,
    /// Comments of tables.
    pub(super) comments: BTreeMap<String, String>,
    /// Engines of tables.
    pub(super) engines: BTreeMap<String, String>,
    /// Columns by which tables are in order.
    pub(super) orders: BTreeMap<String, Vec<String>>,
    /// What views select.
    pub(super) selects: BTreeMap<String, String>,
    /// Replicated tables, also of the other servers of the cluster.
    pub(super) replicas: Vec<Replica>,
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
    engine: String,
    comment: String,
    sorting_key: String,
    as_select: String,
}

/// A replicated table as a server lists it.
#[derive(Debug, Deserialize)]
pub(super) struct Replica {
    pub(super) database: String,
    pub(super) name: String,
    /// With its place in the keeper, in which the table has the name that it was made under.
    pub(super) engine_full: String,
}

/// Looks at a server. What its other servers have is in [`Server::replicas`] alone.
pub(super) fn look(client: &Client, plan: &ClickhousePlan) -> Result<Server, SchemaError> {
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
        "SELECT name, engine, comment, sorting_key, as_select FROM system.tables \
         WHERE database = {database} FORMAT JSONEachRow"
    ))?;
    for line in described.lines() {
        let TableLine { name, engine, comment, sorting_key, as_select } =
            serde_json::from_str(line)?;
        server.orders.insert(name.clone(), words(&sorting_key).map(str::to_owned).collect());
        server.selects.insert(name.clone(), as_select);
        server.engines.insert(name.clone(), engine);
        server.comments.insert(name, comment);
    }
    Ok(server)
}

/// Replicated tables of a server and, where there is one, of its cluster. A server that does not answer is
/// left out; it cannot make a table now either.
pub(super) fn replicas(
    client: &Client,
    plan: &ClickhousePlan,
) -> Result<Vec<Replica>, SchemaError> {
    let tables = plan.cluster.as_ref().map_or_else(
        || "system.tables".to_owned(),
        |cluster| format!("clusterAllReplicas({}, system.tables)", named(cluster)),
    );
    let lines = client.run(&format!(
        "SELECT database, name, engine_full FROM {tables} WHERE engine LIKE 'Replicated%' \
         SETTINGS skip_unavailable_shards = 1 FORMAT JSONEachRow"
    ))?;
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

impl Server {
    /// The place of a table that is to be made: that of another server's table of this name, or one that no
    /// table has. A table that was renamed keeps its place, because the server writes it down with the name
    /// of then.
    pub(super) fn place(&self, plan: &ClickhousePlan, table: &ServerTable) -> usize {
        let statements = Statements::new(plan);
        let local = statements.local(&table.name);
        let place = |it: &Replica| statements.place(table, &it.engine_full);
        let mut own =
            self.replicas.iter().filter(|it| it.database == plan.database && it.name == local);
        let taken = self.replicas.iter().filter_map(place).max().unwrap_or(0);
        own.find_map(place).unwrap_or(taken + 1)
    }
}

/// Names in an expression.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| it != '_' && !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::clickhouse::ddl::tables;

    #[test]
    fn a_table_is_made_where_other_replicas_have_it_or_where_none_is() {
        let mut plan = ClickhousePlan::new("http://127.0.0.1:8123".parse().expect("a URL"));
        (plan.cluster, plan.replicated) = (Some("lake".to_owned()), true);
        let tables = tables(&plan);
        let windows = tables.iter().find(|it| it.name == "windows").expect("a table");
        let place = |replicas: &[(&str, &str, &str)]| {
            let of = |(database, name, place): &(&str, &str, &str)| Replica {
                database: (*database).to_owned(),
                name: (*name).to_owned(),
                engine_full: format!(
                    "ReplicatedMergeTree('/clickhouse/tables/{{shard}}/{place}', '{{replica}}') ORDER BY a"
                ),
            };
            let server =
                Server { replicas: replicas.iter().map(of).collect(), ..Server::default() };
            server.place(&plan, windows)
        };
        let (own, first, second) =
            ("windows_local", "vmprobe/windows_local", "vmprobe/windows_local.2");
        assert_eq!(place(&[]), 1);
        assert_eq!(place(&[("vmprobe", "flows_local", "vmprobe/flows_local")]), 1);
        assert_eq!(place(&[("other", own, "other/windows_local")]), 1);
        // A server that is new, or has renamed it alone, which is for its server to refuse.
        assert_eq!(place(&[("vmprobe", own, first)]), 1);
        assert_eq!(place(&[("vmprobe", "old", first), ("vmprobe", own, first)]), 1);
        // Renamed on all.
        assert_eq!(place(&[("vmprobe", "old", first), ("vmprobe", "old", first)]), 2);
        assert_eq!(place(&[("kept", own, first)]), 2, "moved into another database");
        assert_eq!(place(&[("vmprobe", "old", first), ("vmprobe", "older", second)]), 3);
        // A server that is new after that.
        assert_eq!(place(&[("vmprobe", "old", first), ("vmprobe", own, second)]), 2);
        assert_eq!(place(&[("vmprobe", own, second)]), 2, "the old one is gone");
    }
}
