//! What of the switch's database is known here.
//!
//! In: updates as the server tells them. Out: [`Database`], row by row.
//! Cost: what the update has, and a count of what all rows have.
//! Invariants: at most so many rows, with at most [`ROW_ELEMENTS`] elements of sets each on average. An
//! update that does not fit what is known is an error, after which everything is asked for anew.
//! Source: RFC 7047 section 4.1.6 (`update`); ovsdb-server(7) sections 4.1.12 to 4.1.15 (`update2`,
//! `update3`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::cell::{Cell, WrongForm};
use super::schema::{Columns, Table};
use crate::inventory::Uuid;

/// Elements of sets in all rows at most, for each row that there may be.
const ROW_ELEMENTS: usize = 64;

/// Why an update cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UpdateError {
    /// More rows than are kept.
    #[error("the database has more than {rows_max} rows (inventory.ovsdb.rows_max)")]
    Rows {
        /// As configured.
        rows_max: usize,
    },
    /// More references and VLANs than are kept.
    #[error(
        "the rows of the database hold more than {elements_max} references and VLANs \
         ({ROW_ELEMENTS} for each of inventory.ovsdb.rows_max)"
    )]
    Elements {
        /// In all rows together.
        elements_max: usize,
    },
    /// A change of a row that is not known.
    #[error("an update changes a row of {table} that was never told")]
    Unknown {
        /// Of this table.
        table: &'static str,
    },
    /// A value of another form.
    #[error("an update of {table}.{column}: {source}")]
    Form {
        /// Of this table.
        table: &'static str,
        /// Of this column.
        column: &'static str,
        /// What is wrong.
        source: WrongForm,
    },
    /// Another shape than the protocol's.
    #[error("an update has not the shape that the protocol wants")]
    Shape,
}

/// One row: the columns that differ from the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row(BTreeMap<&'static str, Cell>);

impl Row {
    /// A text; empty where there is none.
    pub(super) fn text(&self, column: &str) -> &str {
        if let Some(Cell::Text(text)) = self.0.get(column) { text } else { "" }
    }

    /// A flag.
    pub(super) fn flag(&self, column: &str) -> bool {
        matches!(self.0.get(column), Some(Cell::Flag(true)))
    }

    /// Integers in order.
    pub(super) fn numbers(&self, column: &str) -> impl Iterator<Item = u16> {
        let Some(Cell::Numbers(numbers)) = self.0.get(column) else {
            return None.into_iter().flatten();
        };
        Some(numbers.iter().copied()).into_iter().flatten()
    }

    /// Referenced rows in order.
    pub(super) fn uuids(&self, column: &str) -> impl Iterator<Item = Uuid> {
        let Some(Cell::Uuids(uuids)) = self.0.get(column) else {
            return None.into_iter().flatten();
        };
        Some(uuids.iter().copied()).into_iter().flatten()
    }

    /// Whether that row is referenced.
    pub(super) fn has_uuid(&self, column: &str, uuid: Uuid) -> bool {
        matches!(self.0.get(column), Some(Cell::Uuids(uuids)) if uuids.contains(&uuid))
    }

    /// Elements of all its sets.
    fn elements(&self) -> usize {
        let sets = self.0.values().map(|cell| match cell {
            Cell::Numbers(numbers) => numbers.len(),
            Cell::Uuids(uuids) => uuids.len(),
            Cell::Text(_) | Cell::Flag(_) | Cell::Texts(_) => 0,
        });
        sets.sum()
    }

    /// One of `external_ids`; an empty one counts as none.
    pub(super) fn external(&self, key: &str) -> Option<&Arc<str>> {
        let Some(Cell::Texts(texts)) = self.0.get("external_ids") else { return None };
        texts.get(key).filter(|text| !text.is_empty())
    }
}

/// The rows of all tables that are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Database {
    tables: [BTreeMap<Uuid, Row>; 5],
    columns: Columns,
    rows_max: usize,
}

impl Database {
    pub(super) fn new(rows_max: usize) -> Self {
        Self { rows_max, ..Self::default() }
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.tables = Default::default();
    }

    /// The server's columns from now on.
    pub(super) fn set_columns(&mut self, columns: Columns) {
        self.columns = columns;
    }

    /// What is asked for.
    pub(super) fn wanted(&self) -> Value {
        self.columns.wanted()
    }

    /// The rows of a table, in order.
    pub(super) fn rows(&self, table: Table) -> impl Iterator<Item = (Uuid, &Row)> {
        self.tables[table as usize].iter().map(|(uuid, row)| (*uuid, row))
    }

    /// One row.
    pub(super) fn row(&self, table: Table, uuid: Uuid) -> Option<&Row> {
        self.tables[table as usize].get(&uuid)
    }

    /// Takes over `table-updates2`: `initial`, `insert`, `modify` or `delete` of each row.
    pub(super) fn update2(&mut self, updates: &Value) -> Result<(), UpdateError> {
        self.each(updates, |database, table, uuid, update| {
            let (operation, row) = update.iter().next().ok_or(UpdateError::Shape)?;
            match operation.as_str() {
                "initial" | "insert" => database.put(table, uuid, row),
                "modify" => database.modify(table, uuid, row),
                "delete" => database.remove(table, uuid),
                _ => Err(UpdateError::Shape),
            }
        })
    }

    /// Takes over `table-updates`: `old` and `new` of each row.
    pub(super) fn update(&mut self, updates: &Value) -> Result<(), UpdateError> {
        self.each(updates, |database, table, uuid, update| match update.get("new") {
            Some(row) => database.put(table, uuid, row),
            None if update.contains_key("old") => database.remove(table, uuid),
            None => Err(UpdateError::Shape),
        })
    }

    fn each(
        &mut self,
        updates: &Value,
        take: impl Fn(&mut Self, Table, Uuid, &Map<String, Value>) -> Result<(), UpdateError>,
    ) -> Result<(), UpdateError> {
        let updates = updates.as_object().ok_or(UpdateError::Shape)?;
        for table in Table::ALL {
            let Some(rows) = updates.get(table.name()) else { continue };
            for (uuid, update) in rows.as_object().ok_or(UpdateError::Shape)? {
                let uuid = uuid.parse().map_err(|_| UpdateError::Shape)?;
                take(self, table, uuid, update.as_object().ok_or(UpdateError::Shape)?)?;
            }
        }
        let rows: usize = self.tables.iter().map(BTreeMap::len).sum();
        if rows > self.rows_max {
            return Err(UpdateError::Rows { rows_max: self.rows_max });
        }
        let elements_max = self.rows_max.saturating_mul(ROW_ELEMENTS);
        let elements =
            self.tables.iter().flat_map(BTreeMap::values).map(Row::elements).sum::<usize>();
        if elements > elements_max {
            return Err(UpdateError::Elements { elements_max });
        }
        Ok(())
    }

    fn put(&mut self, table: Table, uuid: Uuid, row: &Value) -> Result<(), UpdateError> {
        let mut new = Row::default();
        for (column, cell, _) in self.cells(table, row)? {
            new.0.insert(column, cell);
        }
        self.tables[table as usize].insert(uuid, new);
        Ok(())
    }

    fn modify(&mut self, table: Table, uuid: Uuid, row: &Value) -> Result<(), UpdateError> {
        let cells = self.cells(table, row)?;
        let Some(known) = self.tables[table as usize].get_mut(&uuid) else {
            return Err(UpdateError::Unknown { table: table.name() });
        };
        for (column, cell, differs) in cells {
            match known.0.get_mut(column) {
                Some(now) if differs => now.differ(cell),
                _ => drop(known.0.insert(column, cell)),
            }
        }
        Ok(())
    }

    fn remove(&mut self, table: Table, uuid: Uuid) -> Result<(), UpdateError> {
        let known = self.tables[table as usize].remove(&uuid);
        known.map(drop).ok_or(UpdateError::Unknown { table: table.name() })
    }

    /// The columns of a row that are read, each with whether it is a difference.
    fn cells(
        &self,
        table: Table,
        row: &Value,
    ) -> Result<Vec<(&'static str, Cell, bool)>, UpdateError> {
        let mut cells = Vec::new();
        for (name, value) in row.as_object().ok_or(UpdateError::Shape)? {
            let Some((column, differs)) = self.columns.find(table, name) else { continue };
            let cell = Cell::read(column.form, value).map_err(|source| UpdateError::Form {
                table: table.name(),
                column: column.name,
                source,
            })?;
            cells.push((column.name, cell, differs));
        }
        Ok(cells)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::cell::KEYS;
    use super::super::plugs::tests::VM;
    use super::super::schema::tests::schema;
    use super::*;

    pub(in super::super) fn uuid(number: u128) -> String {
        Uuid(number).to_string()
    }

    pub(in super::super) fn database() -> Database {
        let mut database = Database::new(100);
        database.set_columns(Columns::check(&schema()).expect("whole"));
        database
    }

    fn apply(database: &mut Database, updates: &Value) -> Result<(), UpdateError> {
        database.update2(updates)
    }

    #[test]
    fn rows_come_change_and_go() {
        let mut database = database();
        let port = uuid(1);
        let insert = json!({"Port": {&port: {"insert": {
            "name": "p", "tag": 10, "trunks": ["set", [1, 2]], "ofport": 7
        }}}});
        apply(&mut database, &insert).expect("fits");
        let row = |database: &Database| {
            let row = database.row(Table::Port, Uuid(1)).expect("there");
            (row.numbers("tag").collect::<Vec<_>>(), row.numbers("trunks").collect::<Vec<_>>())
        };
        assert_eq!(row(&database), (vec![10], vec![1, 2]));
        // A value of one is replaced, a set differs.
        let modify = json!({"Port": {&port: {"modify": {"tag": 20, "trunks": ["set", [2, 3]]}}}});
        apply(&mut database, &modify).expect("fits");
        assert_eq!(row(&database), (vec![20], vec![1, 3]));
        let clear = json!({"Port": {&port: {"modify": {"tag": ["set", []]}}}});
        apply(&mut database, &clear).expect("fits");
        assert_eq!(row(&database), (vec![], vec![1, 3]));
        apply(&mut database, &json!({"Port": {&port: {"delete": null}}})).expect("fits");
        assert_eq!(database.rows(Table::Port).count(), 0);
    }

    #[test]
    fn the_oldest_form_tells_whole_rows() {
        let mut database = database();
        let (port, gone) = (uuid(1), json!({"Port": {uuid(1): {"old": {"name": "p"}}}}));
        let new = json!({"Port": {&port: {"new": {"name": "p", "trunks": ["set", [1, 2]]}}}});
        database.update(&new).expect("fits");
        let changed = json!({"Port": {&port: {"old": {"trunks": ["set", [1, 2]]},
            "new": {"name": "p", "trunks": ["set", [2, 3]]}}}});
        database.update(&changed).expect("fits");
        let row = database.row(Table::Port, Uuid(1)).expect("there");
        assert_eq!(row.numbers("trunks").collect::<Vec<_>>(), [2, 3]);
        database.update(&gone).expect("fits");
        assert_eq!(database.rows(Table::Port).count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut database = database();
        for (updates, error) in [
            (json!([]), UpdateError::Shape),
            (json!({"Port": {"x": {"insert": {}}}}), UpdateError::Shape),
            (json!({"Port": {uuid(1): {"replace": {}}}}), UpdateError::Shape),
            (json!({"Port": {uuid(1): {}}}), UpdateError::Shape),
            (json!({"Port": {uuid(1): {"modify": {}}}}), UpdateError::Unknown { table: "Port" }),
            (json!({"Port": {uuid(1): {"delete": null}}}), UpdateError::Unknown { table: "Port" }),
        ] {
            assert_eq!(database.update2(&updates), Err(error), "{updates}");
        }
        let wrong = json!({"Port": {uuid(1): {"insert": {"tag": "x"}}}});
        let text = database.update2(&wrong).expect_err("wrong").to_string();
        assert!(text.contains("Port.tag"), "{text}");
        // Other tables and columns are passed over.
        apply(&mut database, &json!({"QoS": 7, "Port": {uuid(1): {"insert": {"qos": 1}}}}))
            .expect("fits");
    }

    #[test]
    fn rows_are_bounded() {
        let mut database = database();
        for number in 0..100 {
            apply(&mut database, &json!({"Port": {uuid(number): {"insert": {}}}})).expect("fits");
        }
        let more = database.update2(&json!({"Interface": {uuid(7): {"insert": {}}}}));
        assert_eq!(more, Err(UpdateError::Rows { rows_max: 100 }));
        // A set may not grow for ever either.
        let mut database = self::database();
        let ports: Vec<_> = (0..6_400).map(|number| json!(["uuid", uuid(number)])).collect();
        apply(&mut database, &json!({"Bridge": {uuid(1): {"insert": {"ports": ["set", ports]}}}}))
            .expect("fits");
        let one = json!(["uuid", uuid(6_400)]);
        let more = database.update2(&json!({"Bridge": {uuid(1): {"modify": {"ports": one}}}}));
        assert_eq!(more, Err(UpdateError::Elements { elements_max: 6_400 }));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let names =
            ["Port", "Interface", "insert", "modify", "delete", "new", "old", "tag", "name"];
        let more = ["external_ids", "interfaces", "set", "map", "uuid", "vm-id", "trunks"];
        let word = prop::sample::select([&names[..], &more].concat());
        let uuid = (0_u128..3).prop_map(|number| Uuid(number).to_string());
        let key = prop_oneof![word.prop_map(str::to_owned), uuid];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            key.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(key.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A value of a column, mostly of a form that some column has.
    fn any_cell() -> impl Strategy<Value = Value> {
        let reference = (0_u128..3).prop_map(|number| json!(["uuid", uuid(number)]));
        let references = prop::collection::vec(reference.clone(), 0..3);
        let numbers = prop::collection::vec(0_u16..5, 0..4);
        let id =
            (prop::sample::select(KEYS.to_vec()), prop::sample::select(vec!["active", "x", VM]));
        prop_oneof![
            any_json(),
            reference,
            references.prop_map(|references| json!(["set", references])),
            numbers.prop_map(|numbers| json!(["set", numbers])),
            prop::collection::vec(id, 0..4).prop_map(|ids| json!(["map", ids])),
            any::<bool>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from),
        ]
    }

    /// An update of the right shape with anything in it.
    pub(in super::super) fn any_update() -> impl Strategy<Value = Value> {
        fn object(
            keys: impl Strategy<Value = String> + 'static,
            values: impl Strategy<Value = Value> + 'static,
        ) -> impl Strategy<Value = Value> {
            let map = prop::collection::hash_map(keys, values, 1..4);
            map.prop_map(|map| Value::Object(map.into_iter().collect()))
        }
        let columns = Table::ALL.into_iter().flat_map(Table::columns).map(|column| column.name);
        let column = prop::sample::select(columns.collect::<Vec<_>>()).prop_map(str::to_owned);
        let operations = ["initial", "insert", "modify", "delete", "new", "old"];
        let operation = prop::sample::select(operations.to_vec()).prop_map(str::to_owned);
        let table =
            prop::sample::select(Table::ALL.to_vec()).prop_map(|table| table.name().to_owned());
        let change = object(operation, object(column, any_cell()));
        object(table, object((0_u128..3).prop_map(uuid), change))
    }

    proptest! {
        #[test]
        fn any_update_is_taken_or_refused(
            updates in prop::collection::vec(prop_oneof![any_json(), any_update()], 1..6)
        ) {
            let mut database = database();
            for update in &updates {
                let _ = (database.update2(update), database.update(update));
                prop_assert!(database.rows(Table::Port).count() <= 100);
            }
        }
    }
}
