//! Instants at which what the inventory says of the ends of conversations changes.
//!
//! In: the view `inventory_now`, windows, whose SQL is asked. Out: temporary tables `facts`, `known` and `changes`; SQL that looks
//! them up.
//! Cost: one pass over two columns of the windows; then two look-ups a row, where there is any change.
//! Invariants: all windows between two of these instants ask the same of the inventory.

use anyhow::Context as _;

use crate::cell::Cell;
use crate::database::Database;
use crate::dialect::Dialect;

/// `facts`, what the inventory says as it is known now, and `known`, the addresses and MAC addresses in it.
pub(crate) const FACTS: &str = "CREATE TEMP TABLE facts AS FROM inventory_now;
     CREATE TEMP TABLE known AS
       SELECT address AS key FROM facts WHERE address IS NOT NULL
       UNION SELECT mac FROM facts WHERE mac IS NOT NULL";

/// Instants at which what is known changes.
pub(crate) struct Changes {
    /// Whose SQL looks them up.
    dialect: Dialect,
    /// Of the windows, the first and the last instant.
    bounds: [String; 2],
    /// Whether there is one between them.
    pub(crate) any: bool,
    /// Whether what is known of a MAC address may say who has any address.
    by_mac: bool,
}

impl Changes {
    /// What asks for the first and the last instant of `windows`.
    pub(crate) fn bounds_sql(windows: &str) -> String {
        format!(
            "SELECT coalesce(min(window_start_ns), 0) AS first, coalesce(max(window_end_ns), 0) AS last
             FROM {windows} AS own"
        )
    }

    /// Makes the table `changes` of [`FACTS`]: of each address and MAC address (in no space) that the
    /// inventory names, the instants between the bounds at which any of what it says of it changes, or of
    /// the VMs behind it.
    pub(crate) fn find(
        database: &Database,
        dialect: Dialect,
        bounds: &[Cell; 2],
    ) -> anyhow::Result<Self> {
        let bounds = bounds.each_ref().map(|cell| cell.plain().to_owned());
        let [first, last] = &bounds;
        database.execute(&format!(
            "CREATE TEMP TABLE changes AS
             WITH named AS (
               SELECT *, address_space AS space, address AS key FROM facts
               UNION ALL SELECT *, segment, address FROM facts
               UNION ALL SELECT *, '', mac FROM facts),
             behind AS (
               SELECT probe_id, space, key, uuid FROM named
               UNION
               -- Who has a learned address is known by its MAC address.
               SELECT learned.probe_id, learned.space, learned.key, held.uuid
               FROM named AS learned JOIN facts AS held USING (probe_id, mac)
               WHERE learned.uuid IS NULL),
             told AS (
               SELECT probe_id, space, key, valid_from_ns, valid_to_ns FROM named
               UNION
               SELECT behind.probe_id, space, key, valid_from_ns, valid_to_ns
               FROM behind JOIN facts USING (probe_id, uuid)),
             instants AS (
               SELECT DISTINCT probe_id, space, key, unnest([valid_from_ns, valid_to_ns]) AS instant
               FROM told WHERE key IS NOT NULL AND space IS NOT NULL)
             SELECT probe_id AS of_probe_id, space, key, list(instant) AS instants FROM instants
             WHERE instant > {first} AND instant < {last} GROUP BY ALL"
        ))?;
        let sql = "SELECT EXISTS (FROM changes),
                   EXISTS (FROM facts WHERE mac IS NOT NULL AND address IS NULL)";
        let [any, by_mac] = first_row(database, sql)?.map(|cell| cell.plain() == "true");
        Ok(Self { dialect, bounds, any, by_mac })
    }

    /// `rows` with the instants of their ends.
    pub(crate) fn with_instants(&self, rows: &str) -> String {
        if !self.any {
            return rows.to_owned();
        }
        let (mut columns, mut joins) = (String::new(), String::new());
        for (alias, space, key) in self.lookups() {
            columns.push_str(&format!(", {alias}.instants AS {alias}_instants"));
            joins.push_str(&join(&alias, &space, &key));
        }
        format!("(SELECT own.*{columns} FROM {rows} AS own{joins})")
    }

    /// Of `ends`, with `probe_id`, `address_space`, `address` and `mac`, the spans in which nothing is known to
    /// change about them, `from_ns` to `to_ns`, in the SQL of DuckDB. Those of an end follow one another.
    pub(crate) fn spans(&self, ends: &str) -> String {
        let [first, last] = self.bounds.each_ref().map(|bound| Dialect::Duckdb.unsigned(bound));
        if !self.any {
            return format!("SELECT own.*, {first} AS from_ns, {last} AS to_ns FROM {ends} AS own");
        }
        let (mut lists, mut joins) = (Vec::new(), String::new());
        let here = Dialect::Duckdb;
        for (alias, space, key) in self.lookups_of(here, "known", "own.address", "own.mac") {
            lists.push(format!("{alias}.instants"));
            joins.push_str(&join(&alias, &space, &key));
        }
        let all = match &lists[..] {
            [one] => one.clone(),
            _ => format!("list_concat({})", lists.join(", ")),
        };
        format!(
            "SELECT * EXCLUDE (instants), unnest(list_concat([{first}], instants)) AS from_ns,
                    unnest(list_concat(instants, [{last}])) AS to_ns
             FROM (SELECT own.*, list_sort(list_distinct({all})) AS instants
                   FROM {ends} AS own{joins})"
        )
    }

    /// From when to when nothing is known to change at the ends of a row [`Self::with_instants`], or about
    /// them from `start` to `end`: what the inventory says of this span it says of the row.
    pub(crate) fn held(&self, start: &str, end: &str) -> [String; 2] {
        let [first, last] = &self.bounds;
        if !self.any {
            return [first, last].map(|bound| self.dialect.unsigned(bound));
        }
        let lists = self.lists();
        [
            self.dialect.of_lists("max", &lists, &format!("<= {start}"), first),
            self.dialect.of_lists("min", &lists, &format!(">= {end}"), last),
        ]
    }

    /// The span in which nothing changes at any of these ends, of which each has its own or none, from
    /// [`Self::spans`], in the SQL of DuckDB.
    pub(crate) fn held_of(&self, ends: &[&str]) -> [String; 2] {
        let [first, last] = self.bounds.each_ref().map(|bound| Dialect::Duckdb.unsigned(bound));
        let of = |function: &str, column: &str, bound: &str| {
            let mut all: Vec<_> = ends.iter().map(|end| format!("{end}.{column}")).collect();
            all.push(bound.to_owned());
            format!("{function}({})", all.join(", "))
        };
        [of("greatest", "from_ns", &first), of("least", "to_ns", &last)]
    }

    /// Whether something changes at the ends of a row between `start` and `end`, in the SQL of DuckDB.
    pub(crate) fn within(&self, start: &str, end: &str) -> String {
        let lists = self.lists();
        format!(
            "CASE WHEN {none} IS NULL THEN false
             ELSE len(list_filter(list_concat({all}), lambda t: t > {start} AND t < {end})) > 0 END",
            none = lists.join(" IS NULL AND "),
            all = lists.join(", "),
        )
    }

    fn lists(&self) -> Vec<String> {
        self.lookups().into_iter().map(|(alias, ..)| format!("{alias}_instants")).collect()
    }

    /// By what the ends of a row are looked up: alias, space, key.
    fn lookups(&self) -> Vec<(String, String, String)> {
        let of = |end: &str| {
            let (address, mac) = (format!("own.{end}_address"), format!("own.{end}_mac"));
            self.lookups_of(self.dialect, end, &address, &mac)
        };
        ["source", "destination"].into_iter().flat_map(of).collect()
    }

    /// By what one end is. Addresses that no router passes on are known by the MAC address beside them.
    fn lookups_of(
        &self,
        dialect: Dialect,
        end: &str,
        address: &str,
        mac: &str,
    ) -> Vec<(String, String, String)> {
        let own = dialect.stays_on_link(address);
        let mut lookups = Vec::new();
        if self.by_mac {
            lookups.push((format!("{end}_of_mac"), "''".to_owned(), mac.to_owned()));
        }
        lookups.push((
            end.to_owned(),
            format!("CASE WHEN {own} THEN '' ELSE own.address_space END"),
            format!("CASE WHEN {own} THEN {mac} ELSE {address} END"),
        ));
        lookups
    }
}

fn join(alias: &str, space: &str, key: &str) -> String {
    format!(
        " LEFT JOIN changes AS {alias} ON {alias}.of_probe_id = own.probe_id
          AND {alias}.space = {space} AND {alias}.key = {key}"
    )
}

/// The first columns of the first row of an answer.
pub(crate) fn first_row<const N: usize>(
    database: &Database,
    sql: &str,
) -> anyhow::Result<[Cell; N]> {
    let mut first = None;
    database.each(sql, |row: Vec<Cell>| {
        first = first.take().or_else(|| row.first_chunk().cloned());
        Ok(())
    })?;
    first.context("a row of an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_cut_here_whoever_looks_instants_up() {
        for any in [false, true] {
            let bounds = ["1".to_owned(), "2".to_owned()];
            let changes = Changes { dialect: Dialect::Clickhouse, bounds, any, by_mac: true };
            let [from, to] = changes.held_of(&["source", "destination"]);
            for sql in [changes.spans("ends"), from, to] {
                assert!(!sql.contains("toUInt64") && !sql.contains("array"), "{sql}");
            }
            assert!(changes.held("a", "b")[0].contains("toUInt64"), "the server has these");
        }
    }
}
