//! The tables of ClickHouse, derived from the record schema.
//!
//! In: [`Table::ALL`], a plan. Out: statements.
//! Invariants: a table has every column of the schema under its name, with its meaning as comment, and
//! `filed_time` behind them; the order is the schema's sort order, by time first.
//!
//! | | |
//! |---|---|
//! | partition | the day of `filed_time`: a row's time, or where that is further than an hour from the time that the packets had come to, the nearest that is not; so stamps all over the centuries make no partition each |
//! | order | the schema's sort columns, as far as they are never null |
//! | indices | Bloom filters on addresses and ids of VMs, for questions about one of them over a long time |
//! | roll-ups | `windows_1m`, `windows_1h`: sums, minima and maxima of conversations; percentiles and shares cannot be added up and are left out |

use crate::config::ClickhousePlan;
use crate::record::{Column, Kind, Roll, SCHEMA_VERSION, Table};

/// The column that a row is filed by.
pub const FILED: &str = "filed_time";
/// Type of that column.
pub const FILED_TYPE: &str = "DateTime('UTC')";
/// User for questions.
const READER: &str = "vmprobe_reader";
/// Parts whose tokens the server remembers.
const TOKENS: u32 = 10_000;

/// Where replicated tables are in the keeper.
const PLACES: &str = "/clickhouse/tables/{shard}";

/// Texts that differ from row to row.
const UNIQUE_TEXTS: [&str; 4] = ["alert_id", "title", "silent_if", "features"];

/// A column of a server's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerColumn {
    /// Name.
    pub name: String,
    /// Type as ClickHouse writes it.
    pub kind: String,
    /// Its definition.
    pub definition: String,
    /// Whether it is computed from others when it is asked.
    pub is_computed: bool,
}

/// A table on the server: where rows are, or what they add up to.
#[derive(Clone, Debug)]
pub struct ServerTable {
    /// Name, by which it is asked.
    pub name: String,
    /// In order.
    pub columns: Vec<ServerColumn>,
    /// Of a roll-up: columns whose values keep rows apart when they are added up.
    pub keys: Vec<String>,
    /// Days that rows are kept; 0: for ever.
    pub ttl_days: u32,
    /// Behind the columns: engine and order.
    tail: String,
    /// Column that rows are spread over servers by.
    sharding: String,
    time: &'static str,
    /// For a roll-up: how its rows are made of those of `windows`.
    pub select: Option<String>,
}

/// The type of a column.
pub fn column_type(column: &Column) -> String {
    let repeats = matches!(column.unit, "" | "domain/kind/id" | "uuid")
        && !UNIQUE_TEXTS.contains(&column.name);
    let kind = match column.kind {
        Kind::U8 => "UInt8",
        Kind::U16 => "UInt16",
        Kind::U32 => "UInt32",
        Kind::U64 => "UInt64",
        Kind::I64 => "Int64",
        Kind::F64 => "Float64",
        Kind::Bool => "Bool",
        Kind::Text => "String",
    };
    match (column.nullable, column.kind == Kind::Text && repeats) {
        (false, false) => kind.to_owned(),
        (true, false) => format!("Nullable({kind})"),
        (false, true) => format!("LowCardinality({kind})"),
        (true, true) => format!("LowCardinality(Nullable({kind}))"),
    }
}

fn column(column: &Column) -> ServerColumn {
    let kind = column_type(column);
    let codec =
        if column.kind == Kind::U64 && column.unit == "ns" { "Delta, ZSTD(1)" } else { "ZSTD(1)" };
    let unit = if column.unit.is_empty() { String::new() } else { format!(" [{}]", column.unit) };
    let comment = quoted(&format!("{}{unit}", column.meaning.trim()));
    let definition = format!("{kind} COMMENT {comment} CODEC({codec})");
    ServerColumn { name: column.name.to_owned(), kind, definition, is_computed: false }
}

fn filed() -> ServerColumn {
    let comment = quoted("Time by which the row is filed: its partition and its end.");
    ServerColumn {
        name: FILED.to_owned(),
        kind: FILED_TYPE.to_owned(),
        definition: format!("{FILED_TYPE} COMMENT {comment} CODEC(DoubleDelta, ZSTD(1))"),
        is_computed: false,
    }
}

/// A text in a statement.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', " "))
}

/// A name in a statement.
pub(super) fn named(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// All tables, those of records first.
pub fn tables(plan: &ClickhousePlan) -> Vec<ServerTable> {
    let records = Table::ALL.iter().map(|table| records(*table, plan));
    let rollups = [("windows_1m", "toStartOfMinute"), ("windows_1h", "toStartOfHour")];
    let rollups = rollups.map(|(name, start)| rollup(name, start, plan));
    records.chain(rollups).collect()
}

fn records(table: Table, plan: &ClickhousePlan) -> ServerTable {
    let all = table.columns();
    let mut columns: Vec<_> = all.iter().map(column).collect();
    columns.push(filed());
    let indexed =
        all.iter().filter(|it| matches!(it.unit, "uuid" | "RFC 5952") || it.name == "flow_id");
    let mut indices = String::new();
    for it in indexed {
        let (index, name) = (named(&format!("by_{}", it.name)), named(it.name));
        indices.push_str(&format!(
            ",\n    INDEX {index} {name} TYPE bloom_filter(0.01) GRANULARITY 4"
        ));
    }
    let never_null = |name: &&&str| all.iter().any(|it| it.name == **name && !it.nullable);
    let order: Vec<_> =
        table.sort_columns().iter().filter(never_null).map(|name| named(name)).collect();
    let has_source = all.iter().any(|it| it.name == "source_address");
    let sharding = if has_source { "ifNull(source_address, '')" } else { "probe_id" };
    ServerTable {
        name: table.name().to_owned(),
        columns,
        keys: Vec::new(),
        ttl_days: plan.ttl_days,
        tail: format!(
            "{indices}\n)\nENGINE = {{engine}}\nPARTITION BY toDate({FILED})\nORDER BY ({})",
            order.join(", ")
        ),
        sharding: sharding.to_owned(),
        time: FILED,
        select: None,
    }
}

fn rollup(name: &str, start: &str, plan: &ClickhousePlan) -> ServerTable {
    let all = Table::Windows.columns();
    let mut columns = vec![ServerColumn {
        name: "start_time".to_owned(),
        kind: FILED_TYPE.to_owned(),
        definition: format!(
            "{FILED_TYPE} COMMENT {} CODEC(DoubleDelta, ZSTD(1))",
            quoted("Start of the interval, of the time by which the windows are filed.")
        ),
        is_computed: false,
    }];
    columns.push(ServerColumn {
        name: "start_ns".to_owned(),
        kind: "UInt64".to_owned(),
        definition: format!(
            "UInt64 ALIAS toUnixTimestamp(start_time) * 1000000000 COMMENT {}",
            quoted("The same since the epoch, by the name that it has in the embedded store. [ns]")
        ),
        is_computed: true,
    });
    let mut select = vec![format!("{start}({FILED}) AS start_time")];
    let mut keys = vec!["start_time".to_owned()];
    let mut key_names = keys.clone();
    for of in &all {
        let plain = named(of.name);
        let (kind, value) = match Roll::of(of) {
            Roll::Out => continue,
            Roll::Key => {
                keys.push(plain.clone());
                key_names.push(of.name.to_owned());
                (column_type(of), plain.clone())
            }
            Roll::With(function) => {
                (format!("SimpleAggregateFunction({function}, {})", column_type(of)), plain)
            }
        };
        select.push(value);
        let comment = quoted(of.meaning.trim());
        let definition = format!("{kind} COMMENT {comment} CODEC(ZSTD(1))");
        let name = of.name.to_owned();
        columns.push(ServerColumn { name, kind, definition, is_computed: false });
    }
    // What narrows most stands first.
    let first = ["start_time", "`address_space`", "`source_address`", "`destination_address`"];
    let rest = keys.iter().map(String::as_str).filter(|key| !first.contains(key));
    let order: Vec<_> = first.into_iter().chain(rest).collect();
    ServerTable {
        name: name.to_owned(),
        columns,
        keys: key_names,
        ttl_days: plan.rollup_ttl_days,
        tail: format!(
            "\n)\nENGINE = {{engine}}\nPARTITION BY toYYYYMM(start_time)\nPRIMARY KEY ({})\nORDER BY ({})",
            first.join(", "),
            order.join(", ")
        ),
        sharding: "source_address".to_owned(),
        time: "start_time",
        // Rows as they are: the table adds them up when it merges them. A GROUP BY before it would cost as
        // much again, and find little to add up in one batch.
        select: Some(format!("SELECT {} FROM {{windows}} AS windows", select.join(", "))),
    }
}

/// The schema's version and the age that rows reach, as a table's comment has them.
pub fn comment(ttl_days: u32) -> String {
    format!("vmprobe schema={SCHEMA_VERSION} ttl_days={ttl_days}")
}

/// Statements for one server or cluster.
pub struct Statements<'a> {
    plan: &'a ClickhousePlan,
}

impl<'a> Statements<'a> {
    /// Of a plan.
    pub const fn new(plan: &'a ClickhousePlan) -> Self {
        Self { plan }
    }

    /// ` ON CLUSTER …` where there is one.
    fn on_cluster(&self) -> String {
        self.plan
            .cluster
            .as_ref()
            .map_or_else(String::new, |it| format!(" ON CLUSTER {}", named(it)))
    }

    /// The name of the table that holds rows: with a cluster, that of each server's own part.
    pub fn local(&self, table: &str) -> String {
        if self.plan.cluster.is_some() { format!("{table}_local") } else { table.to_owned() }
    }

    fn full(&self, table: &str) -> String {
        format!("{}.{}", named(&self.plan.database), named(table))
    }

    /// The database.
    pub fn database(&self) -> String {
        let name = named(&self.plan.database);
        format!("CREATE DATABASE IF NOT EXISTS {name}{}", self.on_cluster())
    }

    /// A table on a server that has nothing of it.
    fn create(&self, table: &ServerTable) -> Vec<String> {
        let mut all = vec![self.create_local(table, 1)];
        all.extend(self.create_view(table));
        all.extend(self.create_distributed(table, false));
        all
    }

    /// Of an engine as the server writes it: which place of the keeper for tables made by this name it has.
    pub fn place(&self, table: &ServerTable, engine: &str) -> Option<usize> {
        let (database, local) = (&self.plan.database, self.local(&table.name));
        let begin = format!("'{PLACES}/{database}/{local}");
        let (ending, _) = engine.split_once(&begin)?.1.split_once('\'')?;
        if ending.is_empty() { Some(1) } else { ending.strip_prefix('.')?.parse().ok() }
    }

    /// The table that holds rows; where it is replicated, at a place of the keeper, counted from 1.
    pub fn create_local(&self, table: &ServerTable, place: usize) -> String {
        let local = self.local(&table.name);
        let columns: Vec<_> = table
            .columns
            .iter()
            .map(|it| format!("    {} {}", named(&it.name), it.definition))
            .collect();
        let family = if table.select.is_some() { "AggregatingMergeTree" } else { "MergeTree" };
        let (engine, tokens) = if self.plan.replicated {
            let ending = if place > 1 { format!(".{place}") } else { String::new() };
            let place = format!("{PLACES}/{{database}}/{{table}}{ending}");
            let engine = format!("Replicated{family}('{place}', '{{replica}}')");
            (engine, "replicated_deduplication_window")
        } else {
            (family.to_owned(), "non_replicated_deduplication_window")
        };
        let ttl = Self::ttl(table).map_or_else(String::new, |ttl| format!("\nTTL {ttl}"));
        let nullable = if table.select.is_some() { ", allow_nullable_key = 1" } else { "" };
        format!(
            "CREATE TABLE IF NOT EXISTS {}{} (\n{}{}{ttl}\nSETTINGS {tokens} = {TOKENS}, \
             ttl_only_drop_parts = 1{nullable}\nCOMMENT {}",
            self.full(&local),
            self.on_cluster(),
            columns.join(",\n"),
            table.tail.replace("{engine}", &engine),
            quoted(&comment(table.ttl_days)),
        )
    }

    fn ttl(table: &ServerTable) -> Option<String> {
        (table.ttl_days > 0).then(|| format!("{} + INTERVAL {} DAY", table.time, table.ttl_days))
    }

    /// How a table is moved out of the way, with all that is in it.
    pub fn rename(&self, name: &str) -> String {
        let (from, to) = (self.full(name), self.full(&format!("{name}_old")));
        format!("RENAME TABLE IF EXISTS {from} TO {to}{}", self.on_cluster())
    }

    /// How a view that fills a roll-up is taken away.
    pub fn drop_view(&self, name: &str) -> String {
        format!("DROP VIEW IF EXISTS {}{}", self.full(name), self.on_cluster())
    }

    /// The view that fills a roll-up.
    pub fn view_name(&self, table: &ServerTable) -> String {
        format!("{}_view", self.local(&table.name))
    }

    /// How a roll-up is made.
    pub fn view_select(&self, table: &ServerTable) -> Option<String> {
        let windows = self.full(&self.local("windows"));
        table.select.as_ref().map(|select| select.replace("{windows}", &windows))
    }

    /// The view that fills a roll-up, if it is one.
    pub fn create_view(&self, table: &ServerTable) -> Option<String> {
        let select = self.view_select(table)?;
        Some(format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {}{} TO {} AS {select}",
            self.full(&self.view_name(table)),
            self.on_cluster(),
            self.full(&self.local(&table.name)),
        ))
    }

    /// The view with the columns of now.
    pub fn change_view(&self, table: &ServerTable) -> Option<String> {
        let select = self.view_select(table)?;
        let view = self.full(&self.view_name(table));
        Some(format!("ALTER TABLE {view}{} MODIFY QUERY {select}", self.on_cluster()))
    }

    /// The table by which all servers' parts are asked, if there is a cluster. Where one `is_there`, it is
    /// replaced: it has no rows of its own. Otherwise another server may have a table of rows by this name.
    pub fn create_distributed(&self, table: &ServerTable, is_there: bool) -> Option<String> {
        let cluster = self.plan.cluster.as_ref()?;
        let local = self.local(&table.name);
        let create =
            if is_there { "CREATE OR REPLACE TABLE" } else { "CREATE TABLE IF NOT EXISTS" };
        Some(format!(
            "{create} {}{} AS {} ENGINE = Distributed({}, {}, {}, cityHash64({}))",
            self.full(&table.name),
            self.on_cluster(),
            self.full(&local),
            named(cluster),
            named(&self.plan.database),
            named(&local),
            table.sharding,
        ))
    }

    /// A column that the server's table lacks; `after` stands before it. `order`: the table's order with
    /// it, where it keeps rows apart. Only in the statement that makes a column can it be added to that.
    pub fn add_column(
        &self,
        table: &ServerTable,
        column: &ServerColumn,
        after: Option<&str>,
        order: Option<&[String]>,
    ) -> String {
        let place = after.map_or_else(|| " FIRST".to_owned(), |it| format!(" AFTER {}", named(it)));
        let order = order.map_or_else(String::new, |order| {
            let order: Vec<_> = order.iter().map(|it| named(it)).collect();
            format!(", MODIFY ORDER BY ({})", order.join(", "))
        });
        format!(
            "{} ADD COLUMN IF NOT EXISTS {} {}{place}{order}",
            self.alter(table),
            named(&column.name),
            column.definition
        )
    }

    /// A column of another type.
    pub fn change_column(&self, table: &ServerTable, column: &ServerColumn) -> String {
        let name = named(&column.name);
        format!("{} MODIFY COLUMN {name} {}", self.alter(table), column.definition)
    }

    /// Another age of rows.
    pub fn change_ttl(&self, table: &ServerTable) -> String {
        match Self::ttl(table) {
            Some(ttl) => format!("{} MODIFY TTL {ttl}", self.alter(table)),
            None => format!("{} REMOVE TTL", self.alter(table)),
        }
    }

    /// The comment of now.
    pub fn change_comment(&self, table: &ServerTable) -> String {
        let text = quoted(&comment(table.ttl_days));
        format!("{} MODIFY COMMENT {text}", self.alter(table))
    }

    fn alter(&self, table: &ServerTable) -> String {
        format!("ALTER TABLE {}{}", self.full(&self.local(&table.name)), self.on_cluster())
    }
}

/// Who may ask the records and do nothing else, as statements with a password to be chosen.
pub fn reader(plan: &ClickhousePlan) -> [String; 2] {
    let (database, on_cluster) = (named(&plan.database), Statements::new(plan).on_cluster());
    [
        format!(
            "CREATE USER IF NOT EXISTS {READER}{on_cluster} IDENTIFIED WITH sha256_password BY 'CHOOSE ONE'"
        ),
        format!("GRANT{on_cluster} SELECT ON {database}.* TO {READER}"),
    ]
}

/// Everything, for a server that has nothing. Its user is a comment, because its password is not known.
pub fn text(plan: &ClickhousePlan) -> String {
    let statements = Statements::new(plan);
    let tables = tables(plan);
    let all = std::iter::once(statements.database())
        .chain(tables.iter().flat_map(|table| statements.create(table)));
    let all = all.map(|statement| statement + ";\n\n");
    let reader = reader(plan).map(|statement| format!("-- {statement};\n"));
    all.chain(["-- A user for [query], with no other rights and no setting readonly:\n".to_owned()])
        .chain(reader)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> ClickhousePlan {
        ClickhousePlan::new("http://127.0.0.1:8123".parse().expect("a URL"))
    }

    #[test]
    fn every_column_of_the_schema_is_there() {
        let tables = tables(&plan());
        for (table, made) in Table::ALL.iter().zip(&tables) {
            assert_eq!(made.name, table.name());
            let names: Vec<_> = made.columns.iter().map(|it| it.name.as_str()).collect();
            let wanted: Vec<_> = table.columns().iter().map(|it| it.name).chain([FILED]).collect();
            assert_eq!(names, wanted);
        }
        assert_eq!(tables.len(), Table::ALL.len() + 2);
    }

    #[test]
    fn roll_ups_add_up_what_can_be_added() {
        let tables = tables(&plan());
        let minute = tables.iter().find(|it| it.name == "windows_1m").expect("a roll-up");
        let kind = |name: &str| {
            minute.columns.iter().find(|it| it.name == name).map(|it| it.kind.as_str())
        };
        assert_eq!(kind("packet_delta_count"), Some("SimpleAggregateFunction(sum, UInt64)"));
        assert_eq!(
            kind("sequence_ack_rtt_max_ns"),
            Some("SimpleAggregateFunction(max, Nullable(UInt64))")
        );
        assert_eq!(kind("source_address"), Some("String"));
        for name in ["window_start_ns", "loss_low", "sequence_ack_rtt_p99_ns", "source_mac"] {
            assert_eq!(kind(name), None, "{name}");
        }
    }

    #[test]
    fn options_show_in_the_statements() {
        let mut plan = plan();
        let single = text(&plan);
        assert!(single.contains("ENGINE = MergeTree") && !single.contains("Replicated"));
        assert!(single.contains("TTL filed_time + INTERVAL 30 DAY"), "{single}");
        assert!(single.contains("TTL start_time + INTERVAL 400 DAY"));
        (plan.cluster, plan.replicated) = (Some("lake".to_owned()), true);
        (plan.ttl_days, plan.rollup_ttl_days) = (0, 0);
        let many = text(&plan);
        assert!(many.contains("ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}"));
        assert!(many.contains("ENGINE = ReplicatedAggregatingMergeTree("));
        assert!(many.contains("ENGINE = Distributed(`lake`, `vmprobe`, `flows_local`"));
        assert!(!many.contains("\nTTL "));
        assert!(
            many.split(";\n\n")
                .filter(|it| !it.is_empty() && !it.starts_with("--"))
                .all(|it| it.contains("ON CLUSTER `lake`"))
        );
    }

    #[test]
    fn texts_in_statements_end_where_they_should() {
        assert_eq!(quoted("it's \\ a\nline"), "'it\\'s \\\\ a line'");
        assert_eq!(named("a`b"), "`a\\`b`");
    }
}
