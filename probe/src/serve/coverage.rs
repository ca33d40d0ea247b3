//! Which interfaces of VMs are mirrored.
//!
//! In: what the switches mirror, the inventory for names. Out: `/api/v1/coverage`.
//! Cost: one visit of all interfaces a request, and of all VMs for the names of those on the page.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::list::{self, Filter, Pairs};
use super::problem::Problem;
use super::routes::Shared;
use crate::inventory::{Interval, Inventory};
use crate::sources::ovsdb::{Coverage, InterfaceCoverage, SwitchCoverage};

/// Ways to choose interfaces.
pub(super) const FILTERS: &[Filter<InterfaceCoverage>] = &[
    Filter { name: "source", values: &[], passes: |found, value| found.source == value },
    Filter {
        name: "host",
        values: &[],
        passes: |found, value| found.host.as_deref() == Some(value),
    },
    Filter { name: "bridge", values: &[], passes: |found, value| found.bridge == value },
    Filter {
        name: "vm",
        values: &[],
        passes: |found, value| found.virtual_station_uuid.as_deref() == Some(value),
    },
    Filter {
        name: "coverage",
        values: &[
            Coverage::Mirrored.name(),
            Coverage::OneDirection.name(),
            Coverage::Partly.name(),
            Coverage::NotMirrored.name(),
        ],
        passes: |found, value| found.coverage.name() == value,
    },
];

#[derive(Serialize)]
struct CoveragePage<'a> {
    /// Each switch with its mirrors.
    switches: Vec<&'a SwitchCoverage>,
    total: usize,
    limit: usize,
    offset: usize,
    items: Vec<Shown<'a>>,
}

/// An interface with the name of its VM.
#[derive(Serialize)]
struct Shown<'a> {
    virtual_station_name: Option<String>,
    #[serde(flatten)]
    interface: &'a InterfaceCoverage,
}

/// `GET /api/v1/coverage`.
pub(super) async fn coverage(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    let status = shared.inventory.view.status.load_full();
    let inventory = shared.inventory.view.inventory.load_full();
    match page(&status.switches, &inventory, &pairs) {
        Ok(page) => Json(page).into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn page<'a>(
    switches: &'a [Arc<SwitchCoverage>],
    inventory: &Inventory,
    pairs: &Pairs,
) -> Result<CoveragePage<'a>, Problem> {
    let query = list::read(pairs, FILTERS)?;
    let all = switches.iter().flat_map(|switch| &switch.list);
    let passing: Vec<&InterfaceCoverage> = all
        .filter(|found| query.chosen.iter().all(|(filter, value)| (filter.passes)(found, value)))
        .collect();
    let shown = passing.iter().skip(query.offset).take(query.limit);
    let names = names(inventory, shown.clone().copied());
    let named = |interface: &&'a InterfaceCoverage| {
        let uuid = interface.virtual_station_uuid.as_deref();
        let virtual_station_name = uuid.and_then(|uuid| names.get(uuid)).cloned();
        Shown { virtual_station_name, interface }
    };
    Ok(CoveragePage {
        switches: switches.iter().map(Arc::as_ref).collect(),
        total: passing.len(),
        limit: query.limit,
        offset: query.offset,
        items: shown.map(named).collect(),
    })
}

/// Last names of the VMs of some interfaces, by UUID.
fn names<'a>(
    inventory: &Inventory,
    interfaces: impl Iterator<Item = &'a InterfaceCoverage>,
) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> = interfaces
        .filter_map(|interface| Some((interface.virtual_station_uuid.clone()?, String::new())))
        .collect();
    for (_, entry) in inventory.entries() {
        if let Some(name) = names.get_mut(&*entry.history.uuid_text) {
            let last = entry.history.names.spans().last().map(|(_, name)| name);
            let last = last.or_else(|| entry.history.name_within(Interval::ALWAYS));
            *name = last.map(ToString::to_string).unwrap_or_default();
        }
    }
    names.retain(|_, name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{ClassRules, file};

    const UUID: &str = "00000000-0000-0000-0000-000000000001";

    fn switches() -> Vec<Arc<SwitchCoverage>> {
        let interface = |port: &str, coverage, vm: Option<&str>| InterfaceCoverage {
            source: "ovsdb:a".to_owned(),
            port: port.to_owned(),
            coverage,
            virtual_station_uuid: vm.map(str::to_owned),
            ..InterfaceCoverage::default()
        };
        let list = vec![
            interface("p1", Coverage::Mirrored, Some(UUID)),
            interface("p2", Coverage::OneDirection, None),
        ];
        vec![Arc::new(SwitchCoverage { list, ..SwitchCoverage::default() })]
    }

    fn ask(pairs: &[(&str, &str)]) -> serde_json::Value {
        let text = format!(
            "[[tenant]]\nname = \"t\"\n[[vm]]\nuuid = \"{UUID}\"\nname = \"web\"\ntenant = \"t\"\n"
        );
        let data = file::parse(&text, "i.toml", &["default".to_owned()], &[]).expect("right");
        let inventory = Inventory::new(&data, ClassRules::default());
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let switches = switches();
        let page = page(&switches, &inventory, &pairs).map_err(|problem| problem.error);
        serde_json::to_value(page.expect("right")).expect("JSON")
    }

    #[test]
    fn interfaces_have_the_names_of_their_vms() {
        let answer = ask(&[]);
        assert_eq!(answer["items"][0]["virtual_station_name"], "web");
        assert!(answer["items"][1]["virtual_station_name"].is_null());
        assert_eq!((&answer["total"], &answer["items"][0]["port"]), (&2.into(), &"p1".into()));
    }

    #[test]
    fn they_can_be_chosen() {
        for (filter, ports) in [
            (("coverage", "one_direction"), vec!["p2"]),
            (("vm", UUID), vec!["p1"]),
            (("source", "ovsdb:a"), vec!["p1", "p2"]),
            (("host", "h"), vec![]),
        ] {
            let answer = ask(&[filter]);
            let items = answer["items"].as_array().expect("a list");
            let found: Vec<_> = items.iter().filter_map(|item| item["port"].as_str()).collect();
            assert_eq!(found, ports, "{filter:?}");
        }
    }
}
