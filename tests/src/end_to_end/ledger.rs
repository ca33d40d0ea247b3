//! The account in the JSON of `run --json` and `replay --json`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// The account of a run, checked.
#[derive(Debug)]
pub struct Ledger {
    /// Packets taken from the sources.
    pub received: u64,
    /// Packets booked in a window.
    pub accounted: u64,
    /// Packets that ended otherwise.
    pub causes: BTreeMap<String, u64>,
}

impl Ledger {
    /// Takes it out of a report; panics unless received = accounted + Σ causes.
    pub fn even(report: &Json) -> Self {
        let ledger = &report["ledger"];
        let number = |value: &Json| value.as_u64().unwrap_or_else(|| panic!("{report}"));
        let causes: BTreeMap<String, u64> = ledger["causes"]
            .as_object()
            .unwrap_or_else(|| panic!("no causes: {report}"))
            .iter()
            .map(|(cause, packets)| (cause.clone(), number(packets)))
            .collect();
        let received = number(&ledger["received"]);
        let accounted = number(&ledger["accounted"]);
        assert_eq!(ledger["unaccounted"], 0, "{report}");
        assert_eq!(received, accounted + causes.values().sum::<u64>(), "{report}");
        assert_eq!(number(&report["packets"]), received, "{report}");
        for sink in report["sinks"].as_array().into_iter().flatten() {
            let dropped = sink["dropped"].as_object().into_iter().flatten();
            let dropped: u64 = dropped.map(|(_, records)| number(records)).sum();
            let kept = number(&sink["delivered"]) + number(&sink["spooled"]);
            assert_eq!(number(&sink["made"]), kept + dropped, "{report}");
        }
        Self { received, accounted, causes }
    }

    /// Packets lost to a cause.
    pub fn of(&self, cause: &str) -> u64 {
        self.causes.get(cause).copied().unwrap_or(0)
    }
}

/// A counter of a port in a report.
pub fn port(report: &Json, name: &str, counter: &str) -> u64 {
    let ports = report["ports"].as_array();
    let port = ports.into_iter().flatten().find(|port| port["port"] == name);
    port.and_then(|port| port[counter].as_u64())
        .unwrap_or_else(|| panic!("port {name} has no {counter}: {report}"))
}
