//! Migrations: what the inventory reports and what the traffic shows, as one.
//!
//! In: the inventory, [`Move`]s between taps, how far windows have come. Out: a [`Migration`] each.
//! Cost: a pass over the virtual machines a window, over their hosts where they had several.
//! Invariants: a migration is stated once: what was reported and seen within [`JOIN_NS`] is one. What is
//! reported later than [`REPORT_NS`] after it happened is in the inventory's table alone. Given an
//! inventory that does not change, nothing depends on anything but the packets.
//! Source: docs/measures.md, "Migrations".

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::path::{ClockOffset, Move, Paths};
use crate::config::Plan;
use crate::decode::Mac;
use crate::index::TapIndex;
use crate::inventory::{
    AddressSpace, Attribute, Interval, Inventory, InventoryCell, Segment, Uuid, Value, VmEntry,
    VmHistory, VmRef,
};
use crate::path::Ends;
use crate::time::{Timestamp, ms};

/// How far what is reported may be from what is seen: sources have clocks of their own, and say so
/// before or after it.
const JOIN_NS: u64 = ms(10_000);

/// How much later than it happened a migration may become known.
const REPORT_NS: u64 = ms(60_000);

/// Migrations of one window at most; the rest is counted.
const FOUND_MAX: usize = 4_096;

/// The virtual machine, as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrant {
    /// Identity.
    pub uuid: Arc<str>,
    /// Name at the time.
    pub name: Option<Arc<str>>,
    /// Tenant at the time.
    pub tenant: Option<Arc<str>>,
}

/// A virtual machine went to another host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migration {
    /// As reported, else that of the first packet at the new tap.
    pub time: Timestamp,
    /// Who; `None` where the inventory names none.
    pub vm: Option<Migrant>,
    /// The source that reports it.
    pub reported: Option<Arc<str>>,
    /// Whether traffic shows it.
    pub detected: bool,
    /// Host before and after: as reported, else those of the taps.
    pub hosts: [Option<Arc<str>>; 2],
    /// Tap before and after, where traffic shows it.
    pub taps: [Option<TapIndex>; 2],
    /// Where its address is one; `None` where it is not known.
    pub space: Option<AddressSpace>,
    /// Segment of the address.
    pub segment: Option<Segment>,
    /// Its least address there.
    pub address: Option<IpAddr>,
    /// MAC address of that interface.
    pub mac: Option<Mac>,
    /// The last packet that it sent before and the first one after it.
    pub silence: Option<(Timestamp, Timestamp)>,
    /// Endpoints that it talked to before and after, where traffic shows it.
    pub peers: Option<u64>,
    /// The two taps' clocks.
    pub clocks: Option<ClockOffset>,
}

/// Joins what is reported and what is seen.
#[derive(Default)]
pub struct Migrations {
    inventory: InventoryCell,
    /// Hosts of taps.
    hosts: Vec<Option<Arc<str>>>,
    begun: Option<Timestamp>,
    /// What is reported before it was stated, unless it became known later.
    reached: Timestamp,
    /// Reported ones that were stated.
    done: BTreeSet<(Uuid, Timestamp)>,
    found: Vec<Migration>,
    left_out: u64,
}

impl Migrations {
    /// Of the plan's taps.
    pub fn new(plan: &Plan, inventory: InventoryCell) -> Self {
        let hosts = plan.taps.iter().map(|tap| tap.host.as_deref().map(Into::into)).collect();
        Self { inventory, hosts, ..Self::default() }
    }

    /// A window from `start` to `end` was given out, with what moved in it; with ways between taps,
    /// whose packets have their verdicts.
    pub(super) fn window(
        &mut self,
        (start, end): (Timestamp, Timestamp),
        moves: &[Move],
        paths: Option<&Paths>,
    ) {
        self.begun.get_or_insert(start);
        let inventory = self.inventory.load_full();
        for found in moves {
            self.seen(&inventory, found);
        }
        let wait_ns = if paths.is_some() { JOIN_NS } else { 0 };
        self.reach(&inventory, Timestamp(end.0.saturating_sub(wait_ns)), paths);
        let forgotten = Timestamp(end.0.saturating_sub(2 * REPORT_NS));
        self.done.retain(|(_, time)| *time >= forgotten);
    }

    /// There is nothing behind `end`.
    pub(super) fn finish(&mut self, end: Timestamp, paths: Option<&Paths>) {
        let inventory = self.inventory.load_full();
        self.reach(&inventory, end, paths);
    }

    /// What was found since the last call, and how many were left out.
    pub(super) fn take(&mut self) -> (Vec<Migration>, u64) {
        (std::mem::take(&mut self.found), std::mem::take(&mut self.left_out))
    }

    fn add(&mut self, migration: Migration) {
        if self.found.len() < FOUND_MAX {
            self.found.push(migration);
        } else {
            self.left_out += 1;
        }
    }

    /// A move: whose, and what was reported of it.
    fn seen(&mut self, inventory: &Inventory, found: &Move) {
        let time = Interval { from: found.last, to: Timestamp(found.first.0.saturating_add(1)) };
        let (mac, version) = (Some(found.mac), found.ip_version);
        let vm = inventory.resolve_within(found.space, found.address, version, mac, time);
        let entry = vm.and_then(|vm| inventory.entry(vm)).filter(|entry| !entry.history.learned);
        let reported = entry.and_then(|entry| nearest(entry, found));
        let hosts =
            [found.from, found.to].map(|tap| self.hosts.get(usize::from(tap.0)).cloned().flatten());
        let mut migration = Migration {
            time: found.first,
            vm: entry.map(|entry| migrant(&entry.history, found.first)),
            detected: true,
            hosts,
            taps: [Some(found.from), Some(found.to)],
            space: Some(found.space),
            segment: Some(found.segment),
            address: Some(found.address.to_ip(found.ip_version)),
            mac: Some(found.mac),
            silence: Some((found.last, found.first.max(found.last))),
            peers: Some(found.peers),
            clocks: found.clocks,
            ..Migration::default()
        };
        if let Some((entry, (time, from, to))) = entry.zip(reported) {
            // It was stated as reported, before it sent again; or by another interface of it.
            if !self.done.insert((entry.history.uuid, time)) {
                return;
            }
            migration.time = time;
            migration.vm = Some(migrant(&entry.history, time));
            migration.reported = Some(source(inventory, entry, time));
            migration.hosts = [Some(from), Some(to)];
        }
        self.add(migration);
    }

    /// States what is reported before `upto` and was not seen until now.
    fn reach(&mut self, inventory: &Inventory, upto: Timestamp, paths: Option<&Paths>) {
        let Some(begun) = self.begun else { return };
        let late = Timestamp(upto.0.saturating_sub(REPORT_NS));
        let since = late.min(self.reached).max(begun);
        self.reached = self.reached.max(upto);
        for (vm, entry) in inventory.entries() {
            for (time, from, to) in entry.history.migrations() {
                if time < since || time >= upto || !self.done.insert((entry.history.uuid, time)) {
                    continue;
                }
                let hosts = [Some(Arc::clone(from)), Some(Arc::clone(to))];
                self.add(reported(inventory, (vm, entry), (time, hosts), paths));
            }
        }
    }
}

/// The reported migration of a VM that a move is.
fn nearest(entry: &VmEntry, found: &Move) -> Option<(Timestamp, Arc<str>, Arc<str>)> {
    let (last, first) = (found.last, found.first.max(found.last));
    let distance_ns = |time: Timestamp| last.since_ns(time).max(time.since_ns(first));
    let all = entry.history.migrations();
    let near = all.filter(|(time, ..)| distance_ns(*time) <= JOIN_NS);
    let nearest = near.min_by_key(|(time, ..)| (distance_ns(*time), *time));
    nearest.map(|(time, from, to)| (time, Arc::clone(from), Arc::clone(to)))
}

/// One of which the traffic shows no change of taps.
fn reported(
    inventory: &Inventory,
    (vm, entry): (VmRef, &VmEntry),
    (time, hosts): (Timestamp, [Option<Arc<str>>; 2]),
    paths: Option<&Paths>,
) -> Migration {
    let history = &entry.history;
    let connected = history.interfaces.iter().find_map(|interface| {
        let connection = interface.connections.at(time)?;
        Some((interface.id.mac, connection))
    });
    let segment = connected.and_then(|(_, connection)| connection.segment);
    let is_its = |ends: &Ends| {
        inventory.resolve(ends.space, ends.source, ends.ip_version, None, time) == Some(vm)
    };
    Migration {
        time,
        vm: Some(migrant(history, time)),
        reported: Some(source(inventory, entry, time)),
        hosts,
        segment,
        space: segment.map(|segment| inventory.spaces().at(segment, time)),
        address: connected.and_then(|(_, connection)| connection.addresses.first().copied()),
        mac: connected.map(|(mac, _)| mac),
        silence: paths.and_then(|paths| paths.silence(time, is_its)),
        ..Migration::default()
    }
}

fn migrant(history: &VmHistory, time: Timestamp) -> Migrant {
    let time = Interval { from: time, to: Timestamp(time.0.saturating_add(1)) };
    Migrant {
        uuid: Arc::clone(&history.uuid_text),
        name: history.name_within(time).cloned(),
        tenant: history.tenant_within(time).cloned(),
    }
}

/// The name of the source that says on which host the VM is from a time on.
fn source(inventory: &Inventory, entry: &VmEntry, time: Timestamp) -> Arc<str> {
    let said = entry.facts.current().filter(|fact| fact.attribute == Attribute::Host);
    let host = entry.history.host_at(time);
    let is_it = |value: &Value| matches!((value, host), (Value::Text(one), Some(it)) if one == it);
    let said = said.filter(|fact| fact.valid.holds(time) && is_it(&fact.value));
    let names = said.filter_map(|fact| inventory.sources().get(usize::from(fact.source.0)));
    let first = names.min_by_key(|source| source.rank);
    first.map_or_else(|| Arc::from(""), |source| Arc::clone(&source.name))
}

#[cfg(test)]
mod tests;
