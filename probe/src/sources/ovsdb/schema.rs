//! The columns that are read, and whether a server has them.
//!
//! In: a database's schema. Out: [`Columns`]: what is to be monitored, and how its changes are told.
//! Invariants: a missing column is named; one that only newer switches have may be missing.
//! Source: ovs-vswitchd.conf.db(5); RFC 7047 section 3.2; differences are told of columns that can hold
//! more than one element, ovsdb-server(7) section 4.1.14.

use serde_json::{Map, Value, json};

use super::cell::Form;

/// The database.
pub(super) const DATABASE: &str = "Open_vSwitch";

/// A table that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Switch,
    Bridge,
    Port,
    Interface,
    Mirror,
}

impl Table {
    pub(super) const ALL: [Self; 5] =
        [Self::Switch, Self::Bridge, Self::Port, Self::Interface, Self::Mirror];

    /// Its name in the database.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Switch => "Open_vSwitch",
            Self::Bridge => "Bridge",
            Self::Port => "Port",
            Self::Interface => "Interface",
            Self::Mirror => "Mirror",
        }
    }

    /// What is read of it.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Switch => SWITCH,
            Self::Bridge => BRIDGE,
            Self::Port => PORT,
            Self::Interface => INTERFACE,
            Self::Mirror => MIRROR,
        }
    }
}

const SWITCH: &[Column] = &[column("external_ids", Form::Texts)];
const BRIDGE: &[Column] = &[
    column("name", Form::Text),
    column("ports", Form::Uuids),
    column("mirrors", Form::Uuids),
    column("external_ids", Form::Texts),
];
const PORT: &[Column] = &[
    column("name", Form::Text),
    column("interfaces", Form::Uuids),
    column("tag", Form::Numbers),
    column("trunks", Form::Numbers),
    column("vlan_mode", Form::Text),
];
const INTERFACE: &[Column] = &[column("name", Form::Text), column("external_ids", Form::Texts)];
const MIRROR: &[Column] = &[
    column("name", Form::Text),
    column("select_all", Form::Flag),
    column("select_src_port", Form::Uuids),
    column("select_dst_port", Form::Uuids),
    column("select_vlan", Form::Numbers),
    column("output_port", Form::Uuids),
    column("output_vlan", Form::Numbers),
    Column { optional: true, ..column("snaplen", Form::Numbers) },
    Column { optional: true, ..column("filter", Form::Text) },
];

/// A column that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// Older switches do without.
    optional: bool,
}

const fn column(name: &'static str, form: Form) -> Column {
    Column { name, form, optional: false }
}

/// What a server's schema lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database {DATABASE} of this server (version {version}) lacks {}", missing.join(", ")
)]
pub(super) struct SchemaError {
    version: String,
    missing: Vec<String>,
}

/// The columns of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    /// Of each table in order: what is there, and whether its changes are told as differences.
    present: Vec<Vec<(Column, bool)>>,
}

impl Columns {
    /// From the answer to `get_schema`.
    pub(super) fn check(schema: &Value) -> Result<Self, SchemaError> {
        let mut missing = Vec::new();
        let mut present = Vec::new();
        for table in Table::ALL {
            let found = &schema["tables"][table.name()]["columns"];
            let mut columns = Vec::new();
            for column in table.columns() {
                match found.get(column.name) {
                    Some(found) => columns.push((*column, holds_many(found))),
                    None if column.optional => {}
                    None => missing.push(format!("{}.{}", table.name(), column.name)),
                }
            }
            present.push(columns);
        }
        if missing.is_empty() {
            return Ok(Self { present });
        }
        let version = schema["version"].as_str().unwrap_or("unknown");
        Err(SchemaError { version: version.chars().take(20).collect(), missing })
    }

    /// Of a server that has all of them, and tells differences of sets.
    pub(super) fn all() -> Self {
        let of_table = |table: Table| {
            let columns = table.columns().iter();
            columns
                .map(|column| (*column, !matches!(column.form, Form::Text | Form::Flag)))
                .collect()
        };
        Self { present: Table::ALL.into_iter().map(of_table).collect() }
    }

    /// What is asked for: `{table: [{"columns": […]}]}`.
    pub(super) fn wanted(&self) -> Value {
        let of_table = |(table, columns): (Table, &Vec<(Column, bool)>)| {
            let names: Vec<_> = columns.iter().map(|(column, _)| column.name).collect();
            (table.name().to_owned(), json!([{"columns": names}]))
        };
        let tables: Map<String, Value> =
            Table::ALL.into_iter().zip(&self.present).map(of_table).collect();
        Value::Object(tables)
    }

    /// A column by its name, with whether its changes are told as differences.
    pub(super) fn find(&self, table: Table, name: &str) -> Option<(Column, bool)> {
        let columns = self.present.get(table as usize)?;
        columns.iter().find(|(column, _)| column.name == name).copied()
    }
}

fn holds_many(column: &Value) -> bool {
    match &column["type"]["max"] {
        Value::String(text) => text == "unlimited",
        Value::Number(max) => max.as_u64().is_some_and(|max| max > 1),
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A schema with all columns, with the types that Open vSwitch 3.1 has.
    pub(in super::super) fn schema() -> Value {
        let mut tables = Map::new();
        for table in Table::ALL {
            let columns = table.columns().iter().map(|column| {
                let max = match (column.name, column.form) {
                    ("output_port" | "tag" | "output_vlan" | "snaplen", _) => json!(1),
                    (_, Form::Numbers) => json!(4096),
                    (_, Form::Uuids | Form::Texts) => json!("unlimited"),
                    _ => json!(1),
                };
                (column.name.to_owned(), json!({"type": {"key": "string", "min": 0, "max": max}}))
            });
            let columns: Map<String, Value> = columns.collect();
            tables.insert(table.name().to_owned(), json!({"columns": columns}));
        }
        json!({"name": DATABASE, "version": "8.3.1", "tables": tables})
    }

    #[test]
    fn all_columns_are_found_and_asked_for() {
        let columns = Columns::check(&schema()).expect("it is whole");
        assert_eq!(columns.wanted()["Interface"], json!([{"columns": ["name", "external_ids"]}]));
        let many = |table, name| columns.find(table, name).map(|(_, many)| many);
        assert_eq!(many(Table::Port, "tag"), Some(false));
        assert_eq!(many(Table::Port, "trunks"), Some(true));
        assert_eq!(many(Table::Mirror, "select_src_port"), Some(true));
        assert_eq!(many(Table::Port, "name"), Some(false));
        assert_eq!(many(Table::Port, "ofport"), None);
    }

    #[test]
    fn missing_columns_are_named() {
        let mut schema = schema();
        let tables = schema["tables"].as_object_mut().expect("an object");
        tables.remove("Mirror");
        let interface = tables["Interface"]["columns"].as_object_mut().expect("an object");
        interface.remove("external_ids");
        let text = Columns::check(&schema).expect_err("not whole").to_string();
        assert!(
            text.contains("version 8.3.1) lacks Interface.external_ids, Mirror.name"),
            "{text}"
        );
        assert!(Columns::check(&json!(null)).is_err());
    }

    #[test]
    fn what_only_new_switches_have_may_be_missing() {
        let mut schema = schema();
        let mirror = schema["tables"]["Mirror"]["columns"].as_object_mut().expect("an object");
        mirror.remove("snaplen");
        mirror.remove("filter");
        let columns = Columns::check(&schema).expect("it is whole");
        assert!(columns.find(Table::Mirror, "filter").is_none());
        assert!(!columns.wanted()["Mirror"].to_string().contains("snaplen"));
    }
}
