//! What each VM did in a minute: the view `vms_1m`.
//!
//! In: `windows`, or what they came to in a minute. Out: SQL.
//! Invariants: a row of `windows` is in it twice, once for each end, seen from there: what the VM sent is
//! forward, what it received reverse. All outside is a row without a VM. The rows of one side are all the
//! traffic there is.

use super::{Roll, columns};

/// The ends of a conversation.
const SIDES: [&str; 2] = ["source", "destination"];

/// Rows of `from`, seen from either end; `rows` is how many windows each stands for.
pub(super) fn rows(from: &str, start: &str, rows: &str) -> String {
    let side = |side: &str| {
        let columns = seen_from(side).into_iter().map(|it| format!("{} AS {}", it.from, it.name));
        let columns: Vec<_> = columns.collect();
        format!(
            "SELECT {start} AS start_ns, '{side}' AS side, {}, {rows} AS row_count FROM {from} AS own",
            columns.join(", ")
        )
    };
    SIDES.map(side).join(" UNION ALL ")
}

/// The minutes of pairs added up.
pub(super) fn added_up(minutes: &str) -> String {
    let columns = seen_from("source").into_iter().map(|it| match it.roll {
        Roll::With(function) => format!("{function}({0})::{1} AS {0}", it.name, it.kind),
        Roll::Key => it.name,
    });
    let columns: Vec<_> = columns.collect();
    // A VM's rows lie together, so that a question for one reads few row groups.
    format!(
        "SELECT start_ns, side, {}, sum(row_count)::UBIGINT AS row_count FROM ({}) GROUP BY ALL \
         ORDER BY virtual_station_name, start_ns",
        columns.join(", "),
        rows(minutes, "start_ns", "row_count")
    )
}

/// A column of the view.
struct Seen {
    name: String,
    /// What it is of `windows`.
    from: String,
    kind: &'static str,
    roll: Roll,
}

fn seen_from(side: &str) -> Vec<Seen> {
    let columns = columns();
    let has = |name: &str| columns.iter().any(|(own, ..)| *own == name);
    // What is forward at the one end is reverse at the other.
    let turned = |name: &str| {
        let twin = name.strip_prefix("reverse_").map(str::to_owned);
        let twin = twin.unwrap_or_else(|| format!("reverse_{name}"));
        if side == "destination" && has(&twin) { twin } else { name.to_owned() }
    };
    let mut seen = Vec::new();
    for (name, kind, roll) in &columns {
        let own = name.strip_prefix("source_").unwrap_or(name);
        let from = match roll {
            Roll::With(_) => turned(name),
            Roll::Key if own != *name => format!("{side}_{own}"),
            Roll::Key if matches!(*name, "probe_id" | "domain" | "traffic_class") => {
                (*name).to_owned()
            }
            Roll::Key => continue,
        };
        seen.push(Seen { name: own.to_owned(), from: format!("own.{from}"), kind, roll: *roll });
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_sent_the_other_received() {
        let from = |side: &str, name: &str| {
            seen_from(side).into_iter().find(|it| it.name == name).map(|it| it.from)
        };
        for (name, source, destination) in [
            ("octet_delta_count", "own.octet_delta_count", "own.reverse_octet_delta_count"),
            ("reverse_octet_delta_count", "own.reverse_octet_delta_count", "own.octet_delta_count"),
            ("response_time_sum_ns", "own.response_time_sum_ns", "own.response_time_sum_ns"),
            (
                "virtual_station_name",
                "own.source_virtual_station_name",
                "own.destination_virtual_station_name",
            ),
            ("network_kind", "own.source_network_kind", "own.destination_network_kind"),
            ("traffic_class", "own.traffic_class", "own.traffic_class"),
        ] {
            assert_eq!(from("source", name).as_deref(), Some(source));
            assert_eq!(from("destination", name).as_deref(), Some(destination));
        }
        for gone in ["destination_virtual_station_name", "segment", "destination_port"] {
            assert_eq!(from("source", gone), None, "{gone}");
        }
    }
}
