//! Rows of the `inventory` table: a VM with one address, for a time in which nothing of it changed.
//!
//! In: a snapshot, a VM of it. Out: [`InventoryRow`]s; [`RowChange`]s when they become known and when they
//! are known to be otherwise.
//! Cost: made anew for a VM when anything of it changes, or who else claims its addresses.
//! Invariants: at most [`ROWS_PER_VM_MAX`] rows a VM, the rest is counted. The same snapshot gives the
//! same rows in the same order.

use std::net::IpAddr;
use std::sync::Arc;

use super::claims::Name;
use super::history::{InterfaceHistory, VmHistory};
use super::precedence::between;
use super::source::SourceId;
use super::spaces::NOWHERE;
use super::timeline::Timeline;
use super::{Address, AddressSpace, Interval, Inventory, Mac, Segment, VmRef};
use crate::time::Timestamp;

/// Rows of one VM at most.
pub const ROWS_PER_VM_MAX: usize = 4_096;

/// A VM with one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryRow {
    /// Identity.
    pub uuid: Arc<str>,
    /// Nobody but packets says anything of it: the identity is none.
    pub learned: bool,
    /// Name; `None` if no source names it.
    pub name: Option<Arc<str>>,
    /// Tenant, likewise.
    pub tenant: Option<Arc<str>>,
    /// Host, likewise.
    pub host: Option<Arc<str>>,
    /// MAC address of the interface; `None` for a VM without one.
    pub mac: Option<Mac>,
    /// Its address; `None` if none is known.
    pub address: Option<IpAddr>,
    /// Tenant network; `None` if no source names it.
    pub segment: Option<Segment>,
    /// Address space of that segment then.
    pub space: Option<AddressSpace>,
    /// Switch that the interface is plugged in at; `None` if no source names it.
    pub switch: Option<Arc<str>>,
    /// Whether traffic of that address is attributed to the VM: another one may claim it too.
    pub attributed: bool,
    /// It may have the address as others may: where it is not attributed, the MAC address decides.
    pub shared: bool,
    /// When.
    pub valid: Interval,
    /// Who says the address, or what there is instead of it.
    pub source: Option<SourceId>,
}

/// A row that became known, or is known no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The row.
    pub row: Arc<InventoryRow>,
    /// Since when it is, or was, known.
    pub known_from: Timestamp,
    /// When the probe learnt otherwise; `None`: it holds.
    pub known_to: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Eq)]
struct Who {
    name: Option<Arc<str>>,
    tenant: Option<Arc<str>>,
    host: Option<Arc<str>>,
}

/// The rows of a VM, and how many were left out.
pub(super) fn rows_of(inventory: &Inventory, vm: VmRef) -> (Vec<InventoryRow>, u64) {
    let Some(history) = inventory.vm(vm) else { return (Vec::new(), 0) };
    let mut maker = Maker { inventory, vm, history, who: who(history), rows: Vec::new() };
    maker.interfaces();
    let excess = maker.rows.len().saturating_sub(ROWS_PER_VM_MAX);
    maker.rows.truncate(ROWS_PER_VM_MAX);
    (maker.rows, excess as u64)
}

/// Name, tenant and host over all of time.
fn who(history: &VmHistory) -> Timeline<Who> {
    let lines = [&history.names, &history.tenants, &history.hosts];
    let spans = lines.into_iter().flat_map(Timeline::spans).map(|(valid, _)| *valid);
    let mut who = Timeline::default();
    for time in between(spans.chain([Interval::ALWAYS])) {
        let [name, tenant, host] = lines.map(|line| line.at(time.from).cloned());
        who.append(time, Who { name, tenant, host });
    }
    who
}

struct Maker<'a> {
    inventory: &'a Inventory,
    vm: VmRef,
    history: &'a VmHistory,
    who: Timeline<Who>,
    rows: Vec<InventoryRow>,
}

impl Maker<'_> {
    fn interfaces(&mut self) {
        let history = self.history;
        let connected = history.interfaces.iter().any(|one| !one.connections.is_empty());
        if !connected {
            self.without_interface();
        }
        for interface in &history.interfaces {
            for (valid, connection) in interface.connections.spans() {
                let mut row = self.empty(Some(interface.id.mac), Some(connection.source));
                row.segment = connection.segment;
                let Some(segment) = connection.segment else {
                    self.add(interface, &row, None, *valid);
                    continue;
                };
                for (valid, space) in self.inventory.spaces().during(segment, *valid) {
                    row.space = Some(space);
                    if connection.addresses.is_empty() {
                        self.add(interface, &row, None, valid);
                    }
                    for address in &*connection.addresses {
                        self.add(interface, &row, Some(*address), valid);
                    }
                    let own = |address: &&IpAddr| connection.addresses.contains(address);
                    for address in connection.shared.iter().filter(|address| !own(address)) {
                        let row = InventoryRow { shared: true, ..row.clone() };
                        self.add(interface, &row, Some(*address), valid);
                    }
                }
            }
        }
    }

    /// A VM of which nothing but its existence is known, or its name.
    fn without_interface(&mut self) {
        let row = self.empty(None, None);
        for (valid, who) in self.who.spans().to_vec() {
            let named = who.name.is_some() || who.tenant.is_some() || who.host.is_some();
            let is_there = self.history.exists.at(valid.from) != Some(&false);
            if named && is_there {
                let until = self.history.ended().unwrap_or(Interval::ALWAYS.to);
                let valid = Interval { to: valid.to.min(until), ..valid };
                self.rows.push(named_row(&row, &who, valid, true));
            }
        }
    }

    fn empty(&self, mac: Option<Mac>, source: Option<SourceId>) -> InventoryRow {
        InventoryRow {
            uuid: Arc::clone(&self.history.uuid_text),
            learned: self.history.learned,
            name: None,
            tenant: None,
            host: None,
            mac,
            address: None,
            segment: None,
            space: None,
            switch: None,
            attributed: true,
            shared: false,
            valid: Interval::ALWAYS,
            source,
        }
    }

    /// Cut where name, tenant, host or switch change, and where the address becomes another one's. Of a
    /// time at which nobody named VM or tenant, the first name ever stands, as look-ups have it.
    fn add(
        &mut self,
        interface: &InterfaceHistory,
        row: &InventoryRow,
        address: Option<IpAddr>,
        valid: Interval,
    ) {
        let space = row.space.unwrap_or(NOWHERE);
        let name = match (address, row.mac) {
            (Some(address), _) => {
                let (address, version) = Address::of_ip(address);
                Name::address(space, address, version)
            }
            (None, mac) => Name::mac_alone(space, mac.unwrap_or_default()),
        };
        let row = InventoryRow { address, ..row.clone() };
        let attributed = self.inventory.attributed(&name, self.vm, valid);
        for (time, who) in self.who.spans() {
            let Some(time) = time.and(valid) else { continue };
            let who = Who {
                name: self.history.name_within(time).cloned(),
                tenant: self.history.tenant_within(time).cloned(),
                ..who.clone()
            };
            let switches = interface.switches.spans().iter().map(|(span, _)| span);
            let edges = attributed.iter().chain(switches).filter_map(|span| span.and(time));
            for part in between([time].into_iter().chain(edges)) {
                let holds = attributed.iter().any(|span| span.holds(part.from));
                let switch = interface.switches.at(part.from).cloned();
                let row = InventoryRow { switch, ..row.clone() };
                self.rows.push(named_row(&row, &who, part, holds));
            }
        }
    }
}

fn named_row(row: &InventoryRow, who: &Who, valid: Interval, attributed: bool) -> InventoryRow {
    InventoryRow {
        name: who.name.clone(),
        tenant: who.tenant.clone(),
        host: who.host.clone(),
        attributed,
        valid,
        ..row.clone()
    }
}
