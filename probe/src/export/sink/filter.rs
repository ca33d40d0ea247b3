//! Which records a sink takes.
//!
//! In: a row. Out: whether it passes.
//! Invariants: a condition on columns that a table does not have lets its rows pass; of two ends one
//! is enough.

use std::net::IpAddr;

use super::Row;
use crate::config::SinkFilter;
use crate::config::schema::SEVERITIES;

const TENANTS: [&str; 2] = ["source_virtual_station_tenant", "destination_virtual_station_tenant"];
const ADDRESSES: [&str; 2] = ["source_address", "destination_address"];

/// Whether the row passes all conditions.
pub(super) fn passes(filter: &SinkFilter, row: Row<'_>) -> bool {
    let tenant = |text: &str| filter.tenants.iter().any(|tenant| tenant == text);
    let network = |text: &str| {
        text.parse::<IpAddr>()
            .is_ok_and(|address| filter.networks.iter().any(|network| network.contains(&address)))
    };
    let class = |text: &str| filter.traffic_classes.iter().any(|class| class == text);
    let severe = |text: &str| rank(text) >= filter.severity_min.as_deref().map_or(0, rank);
    (filter.tenants.is_empty() || either(row, &TENANTS, tenant))
        && (filter.networks.is_empty() || either(row, &ADDRESSES, network))
        && (filter.traffic_classes.is_empty() || either(row, &["traffic_class"], class))
        && (filter.severity_min.is_none() || either(row, &["severity"], severe))
}

/// Whether one of the columns is as wanted; or the table has none of them.
fn either(row: Row<'_>, names: &[&str], wanted: impl Fn(&str) -> bool) -> bool {
    let mut there = false;
    for column in row.columns().iter().enumerate().filter(|(_, it)| names.contains(&it.name)) {
        there = true;
        if row.cell(column.0).text().is_some_and(&wanted) {
            return true;
        }
    }
    !there
}

fn rank(severity: &str) -> usize {
    SEVERITIES.iter().position(|word| *word == severity).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sink::TableRows;
    use crate::record::{AlertRecord, LedgerRecord, Origin, Rows, WindowRecord};
    use crate::time::Timestamp;

    fn passed(filter: &SinkFilter) -> Vec<&'static str> {
        let window = WindowRecord {
            source_address: "10.0.0.1".parse().expect("an address"),
            destination_address: "2001:db8::1".parse().expect("an address"),
            destination_virtual_station_tenant: Some("blue".into()),
            traffic_class: "transit",
            ..WindowRecord::default()
        };
        let alert = AlertRecord { severity: "high", ..AlertRecord::default() };
        let ledger = vec![LedgerRecord::default()];
        let rows = Rows { windows: vec![window], alerts: vec![alert], ledger, ..Rows::default() };
        let (parts, _) = TableRows::of(&rows, &Origin::new("p", "d"), Timestamp::ZERO, |_| true);
        let rows = parts.iter().flat_map(TableRows::rows);
        rows.filter(|row| passes(filter, *row)).map(|row| row.table().name()).collect()
    }

    #[test]
    fn conditions_are_asked_of_tables_that_have_them() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let none = SinkFilter::default();
        assert_eq!(passed(&none), ["windows", "alerts", "ledger"]);
        let tenants = |names| SinkFilter { tenants: texts(names), ..none.clone() };
        assert_eq!(passed(&tenants(&["red", "blue"])), ["windows", "ledger"]);
        assert_eq!(passed(&tenants(&["red"])), ["ledger"]);
        let network = |text: &str| SinkFilter {
            networks: vec![text.parse().expect("a network")],
            ..none.clone()
        };
        assert_eq!(passed(&network("2001:db8::/32")), ["windows", "ledger"]);
        assert_eq!(passed(&network("10.1.0.0/16")), ["ledger"]);
        let class = SinkFilter { traffic_classes: texts(&["east-west"]), ..none.clone() };
        assert_eq!(passed(&class), ["alerts", "ledger"]);
        let severity =
            |word: &str| SinkFilter { severity_min: Some(word.to_owned()), ..none.clone() };
        assert_eq!(passed(&severity("high")), ["windows", "alerts", "ledger"]);
        assert_eq!(passed(&severity("critical")), ["windows", "ledger"]);
    }
}
