//! Views of tables with both ends as they are known now.
//!
//! In: a table, and the time that its rows are of. Out: the SQL of its view `TABLE_now`.
//! Invariants: all views name by the same rules, which are those of `inventory::lookup` and
//! `inventory::class` of the probe, in `known.sql` and `now.sql`.

/// A table whose rows have a source and a destination.
struct Ends {
    table: &'static str,
    /// Whether the MAC addresses beside the addresses are recorded.
    with_macs: bool,
    /// Columns of the first and the last instant.
    time: [&'static str; 2],
    /// How the start of what holds compares with the last instant: `<=` where that belongs to the time.
    before: &'static str,
    /// What changes with the names beside the ends themselves, and by what.
    replaced: &'static str,
    /// Columns that the view needs and does not show.
    added: &'static str,
    /// What it shows of these.
    shown: &'static str,
}

/// Windows and flows have a class of traffic.
const SIDES: &str = ",
        side_of(source_network_kind, source.uuid, source.tenant, source.tenant_shared) AS source_side,
        side_of(destination_network_kind, destination.uuid, destination.tenant, destination.tenant_shared)
            AS destination_side";
const CLASS: &str = "SELECT * EXCLUDE (source_side, destination_side) REPLACE (
    class_of(source_side, destination_side, destination_network_kind, source_virtual_station_tenant,
        destination_virtual_station_tenant) AS traffic_class
)";

const TABLES: [Ends; 3] = [
    Ends {
        table: "windows",
        with_macs: true,
        time: ["window_start_ns", "window_end_ns"],
        before: "<",
        replaced: "",
        added: SIDES,
        shown: CLASS,
    },
    Ends {
        table: "flows",
        with_macs: true,
        time: ["flow_start_ns", "flow_end_ns"],
        before: "<=",
        replaced: "",
        added: SIDES,
        shown: CLASS,
    },
    Ends {
        table: "alerts",
        with_macs: false,
        time: ["first_seen_ns", "last_seen_ns"],
        before: "<=",
        replaced: ", renamed(
            renamed(title, source_address, source_virtual_station_name, source.name),
            destination_address, destination_virtual_station_name, destination.name
        ) AS title",
        added: "",
        shown: "SELECT *",
    },
];

/// `CREATE VIEW` statements of all.
pub(crate) fn views() -> String {
    TABLES.iter().map(Ends::view).collect()
}

impl Ends {
    fn view(&self) -> String {
        let [from, to] = self.time;
        let mac = |end: &str| {
            if self.with_macs { format!("{end}_mac") } else { "NULL::VARCHAR".to_owned() }
        };
        let table = self.table;
        let ends = both(|end| {
            format!(
                "SELECT DISTINCT probe_id, address_space, {end}_address AS address, {} AS mac,
        {from} AS from_ns, {to} AS to_ns
    FROM {table}",
                mac(end)
            )
        });
        let known = both(|end| {
            format!(
                "LEFT JOIN known AS {end}
        ON {end}.probe_id = {table}.probe_id
        AND {end}.address_space = {table}.address_space
        AND {end}.address = {table}.{end}_address
        AND {end}.mac IS NOT DISTINCT FROM {}
        AND {end}.from_ns = {table}.{from}
        AND {end}.to_ns = {table}.{to}",
                mac(end)
            )
        });
        let stations = both(|end| {
            let columns = ["uuid", "name", "tenant"];
            columns.map(|it| format!("{end}.{it} AS {end}_virtual_station_{it}")).join(", ")
        });
        include_str!("now.sql")
            .replace("{table}", table)
            .replace("{ends}", &ends.join("\n    UNION\n    "))
            .replace("{candidates}", &candidates(self.before))
            .replace("{virtual_stations}", &stations.join(",\n        "))
            .replace("{replaced}", self.replaced)
            .replace("{added}", self.added)
            .replace("{known}", &known.join("\n    "))
            .replace("{shown}", self.shown)
    }
}

/// Who the ends of a query were in its time: the rows of `known`, for those whom the inventory names. The
/// columns of `ends` are those that `known.sql` says.
pub(crate) fn known(ends: &str) -> String {
    format!("WITH ends AS ({ends}), {} SELECT * FROM known", candidates(TABLES[0].before))
}

/// Tables of a `WITH`, behind `ends`; `before` as in [`Ends`].
fn candidates(before: &str) -> String {
    let then = |held: &str| {
        format!(
            "{held}.valid_from_ns {before} ends.to_ns
        AND ({held}.valid_to_ns IS NULL OR {held}.valid_to_ns > ends.from_ns)"
        )
    };
    let sql = include_str!("known.sql")
        .replace("{held_then}", &then("held"))
        .replace("{learned_then}", &then("learned"))
        .replace("{sharing_then}", &then("sharing"));
    sql.trim_end().to_owned()
}

fn both(of: impl Fn(&str) -> String) -> [String; 2] {
    ["source", "destination"].map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_to_be_filled_in() {
        let sql = views();
        assert!(!sql.contains(['{', '}']), "{sql}");
        assert!(!known("FROM x").contains(['{', '}']));
        assert_eq!(sql.matches("CREATE VIEW ").count(), TABLES.len());
    }
}
