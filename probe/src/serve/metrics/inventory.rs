//! Metrics of the inventory and its sources.

use std::fmt;

use super::{Families, float, sample};
use crate::inventory::{SourceHealth, SourceState};
use crate::sources::{InventoryStatus, JournalState};

/// All of them. Families without a source have no sample.
pub(super) fn inventory(status: &InventoryStatus, families: &mut Families<'_>) -> fmt::Result {
    families.gauge("vmprobe_inventory_vms", "VMs that are known.", float(status.vms))?;
    families.gauge(
        "vmprobe_inventory_learned",
        "Endpoints that were only learned from packets.",
        float(status.learned),
    )?;
    families.gauge(
        "vmprobe_inventory_conflicts",
        "Addresses that several VMs claim at once, at any time.",
        float(status.conflicts),
    )?;
    families.counters(
        "vmprobe_inventory_changes",
        "Attributes of VMs whose history changed.",
        [sample([], status.changed)],
    )?;
    let lost = [
        ("fact", status.facts_forgotten),
        ("vm", status.vms_forgotten),
        ("learned", status.learned_forgotten),
        ("row", status.rows_lost),
    ];
    families.counters(
        "vmprobe_inventory_forgotten",
        "What was forgotten for lack of room.",
        lost.map(|(what, count)| sample([("what", what.to_owned())], count)),
    )?;
    let journal = &status.journal;
    let states = JournalState::ALL.map(|state| {
        let labels = [("state", state.name().to_owned())];
        sample(labels, if journal.state == state { 1.0 } else { 0.0 })
    });
    let meaning = "1 for the state that the inventory's journal is in.";
    families.gauges("vmprobe_inventory_journal_state", meaning, states)?;
    let meaning = "Size of the inventory's journal.";
    families.gauge("vmprobe_inventory_journal_bytes", meaning, float(journal.bytes))?;
    let meaning = "Octets of the inventory's journal that were not sound at start.";
    families.gauge("vmprobe_inventory_journal_cut_bytes", meaning, float(journal.cut_bytes))?;
    let states = status.sources.iter().flat_map(|source| {
        [SourceState::Connecting, SourceState::Live, SourceState::Stale, SourceState::Failed].map(
            |state| {
                let labels = [("source", source.name.clone()), ("state", state.name().to_owned())];
                sample(labels, if source.state == state { 1.0 } else { 0.0 })
            },
        )
    });
    families.gauges("vmprobe_source_state", "1 for the state that the source is in.", states)?;
    let name = |source: &SourceHealth| [("source", source.name.clone())];
    let heard = status
        .sources
        .iter()
        .filter_map(|source| Some(sample(name(source), float(source.last_heard_ns?) / 1e9)));
    families.gauges(
        "vmprobe_source_last_heard_seconds",
        "When the source last showed that it is there, seconds since the epoch.",
        heard,
    )?;
    let ahead = status.sources.iter();
    families.gauges(
        "vmprobe_source_clock_ahead_seconds",
        "How far the source dated changes ahead of the probe's clock at most.",
        ahead.map(|source| sample(name(source), float(source.clock_ahead_max_ns) / 1e9)),
    )?;
    let changes = status.sources.iter().map(|source| sample(name(source), source.changes));
    families.counters("vmprobe_source_changes", "Changes that the source sent.", changes)?;
    let rejected = status.sources.iter().flat_map(|source| {
        source.rejected.iter().map(|(reason, count)| {
            let labels = [("source", source.name.clone()), ("reason", (*reason).to_owned())];
            sample(labels, *count)
        })
    });
    families.counters(
        "vmprobe_source_rejected_changes",
        "Changes left out, by reason.",
        rejected,
    )?;
    let interfaces = status.switches.iter().flat_map(|switch| {
        switch.interfaces.iter().map(|(coverage, count)| {
            let source = ("source", switch.source.clone());
            sample([source, ("coverage", (*coverage).to_owned())], float(*count))
        })
    });
    families.gauges(
        "vmprobe_coverage_interfaces",
        "Interfaces of VMs by how much of what they send and receive their switch mirrors.",
        interfaces,
    )
}
