//! Ports of VMs: their interfaces, what comes tagged in a trunk, their floating addresses.
//!
//! In: what is said of ports, trunks and floating addresses, in any order. Out: changes.
//! Cost: a few look-ups; for the port of a trunk, one for each of its subports.
//! Invariants: bounded by the `…_MAX`. Beside the interface that a VM is plugged in with (number 0) stand
//! further ones of its MAC addresses, whose numbers follow from what they are: a subport in its own network
//! (its VLAN id), the same as the VM sees it ([`AS_SEEN`] and the VLAN id), floating addresses
//! ([`FLOATING`] and what follows from the id of the outer network, whatever was said before).
//! Source: Neutron, "Trunking", "allowed address pairs", "floating IPs"; networking API v2.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::envelope::LeftOut;
use super::model::{Model, PORTS_MAX, VMS_MAX};
use super::neutron::{Floating, Port, Trunk};
use crate::inventory::{
    Attribute, Change, InterfaceId, Mac, Segment, SegmentKind, Statement, Uuid, Value,
};
use crate::time::Timestamp;

/// Floating addresses remembered at most.
const FLOATING_MAX: usize = 1 << 18;
/// Outer networks of one VM at most.
const OUTER_MAX: usize = 64;
/// Numbers of subports as the VM sees them begin here; VLAN ids are smaller.
const AS_SEEN: u16 = 1 << 12;
/// Numbers of floating addresses begin here.
const FLOATING: u16 = 1 << 13;
/// How many of them there are; a prime, so that all of an id counts.
const FLOATING_NUMBERS: u16 = 57_331;

/// Ports, and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Ports {
    known: BTreeMap<Uuid, KnownPort>,
    /// The port of each trunk; no more of them than of `parents`.
    trunks: BTreeMap<Uuid, Uuid>,
    /// Subports by the port of their trunk.
    parents: BTreeMap<Uuid, Subports>,
    /// The port of the trunk that a subport is in.
    subports: BTreeMap<Uuid, Uuid>,
    floating: BTreeMap<Uuid, KnownFloating>,
    /// Floating addresses by port.
    floating_of: BTreeMap<Uuid, BTreeSet<Uuid>>,
    /// When the message came. What a service dates after it is no later than that which comes next.
    pub(super) now: Timestamp,
}

#[derive(Debug)]
struct KnownPort {
    said: Port,
    segment: Option<Segment>,
    at: Timestamp,
}

#[derive(Debug)]
struct Subports {
    /// The trunk.
    trunk: Uuid,
    /// VLAN ids.
    vlans: BTreeMap<Uuid, u16>,
    at: Timestamp,
}

#[derive(Debug)]
struct KnownFloating {
    said: Floating,
    at: Timestamp,
}

/// How a port is an interface of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plug {
    vm: Uuid,
    mac: Mac,
    /// Of a subport.
    vlan: Option<u16>,
}

impl Plug {
    fn id(self) -> InterfaceId {
        InterfaceId { mac: self.mac, number: self.vlan.unwrap_or(0) }
    }

    /// As the VM sees it: of a subport, with a tag.
    fn as_seen(self) -> Option<InterfaceId> {
        self.vlan.map(|vlan| InterfaceId { mac: self.mac, number: AS_SEEN + vlan })
    }
}

impl Ports {
    /// Of a VM that it is bound to, or whose trunk it is in.
    fn plug(&self, id: Uuid) -> Option<Plug> {
        let port = &self.known.get(&id)?.said;
        if let Some(vm) = port.vm {
            return Some(Plug { vm, mac: port.mac, vlan: None });
        }
        let parent = self.subports.get(&id)?;
        let vlan = *self.parents.get(parent)?.vlans.get(&id)?;
        let vm = self.known.get(parent)?.said.vm?;
        Some(Plug { vm, mac: port.mac, vlan: Some(vlan) })
    }

    /// Subports of a port, with how each would be one of a VM.
    fn subports_of(&self, parent: Uuid, vm: Uuid) -> Vec<(Uuid, Plug)> {
        let vlans = self.parents.get(&parent).into_iter().flat_map(|it| &it.vlans);
        let of_parent = vlans.filter(|(id, _)| self.subports.get(*id) == Some(&parent));
        let plugs = of_parent.filter_map(|(id, vlan)| {
            let mac = self.known.get(id)?.said.mac;
            Some((*id, Plug { vm, mac, vlan: Some(*vlan) }))
        });
        plugs.collect()
    }

    /// Outer networks of a port's floating addresses.
    fn outer(&self, id: Uuid) -> BTreeSet<Uuid> {
        let floating = self.floating_of.get(&id).into_iter().flatten();
        floating.filter_map(|id| Some(self.floating.get(id)?.said.network)).collect()
    }

    /// Trunks that are remembered.
    #[cfg(test)]
    pub(super) fn trunk_count(&self) -> usize {
        self.trunks.len()
    }

    /// Floating addresses of a port in one outer network, and since when all of them are.
    fn floating(&self, id: Uuid, network: Uuid) -> (Vec<IpAddr>, Timestamp) {
        let floating = self.floating_of.get(&id).into_iter().flatten();
        let known = floating.filter_map(|id| self.floating.get(id));
        let there: Vec<_> = known.filter(|known| known.said.network == network).collect();
        let since = there.iter().map(|known| known.at).max().unwrap_or_default();
        (there.into_iter().map(|known| known.said.address).collect(), since)
    }
}

impl Model {
    /// A port is like this now.
    pub(super) fn port(
        &mut self,
        port: &Port,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), LeftOut> {
        let before = self.ports.known.get(&port.id).map(|known| known.at);
        let room = before.is_some() || self.ports.known.len() < PORTS_MAX;
        let vm_room =
            port.vm.is_none_or(|vm| self.vms.contains_key(&vm)) || self.vms.len() < VMS_MAX;
        if !room || !vm_room {
            return Err(LeftOut::Full);
        }
        let segment = self.segment_of(port.network);
        let order = at.min(self.ports.now);
        if before.is_some_and(|since| since > order) {
            // It was so then.
            if let Some(vm) = port.vm {
                let plug = Plug { vm, mac: port.mac, vlan: None };
                let statement = Statement::new(vm, at);
                changes.extend(self.interface(plug, port, segment, statement).changes());
            }
            return Ok(());
        }
        let plugged = self.ports.plug(port.id);
        // The trunk is remembered by itself.
        let said = Port { trunk: None, ..port.clone() };
        self.ports.known.insert(port.id, KnownPort { said, segment, at: order });
        let plug = self.ports.plug(port.id);
        let moves = plugged != plug;
        if let Some(before) = plugged.filter(|_| moves) {
            self.unplug(port.id, before, at, changes);
        }
        if let Some(plug) = plug {
            self.say(port.id, plug, at, changes);
            if moves {
                self.say_rest(port.id, plug, at, changes);
            }
        }
        if let Some(trunk) = &port.trunk {
            self.trunk(trunk, at, changes)?;
        }
        Ok(())
    }

    /// A message that comes before what it undoes leaves nothing to undo; a repetition neither.
    pub(super) fn port_gone(
        &mut self,
        id: Uuid,
        last: Option<&Port>,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        let plugged = self.ports.plug(id).or_else(|| {
            let last = last.filter(|_| !self.ports.known.contains_key(&id))?;
            Some(Plug { vm: last.vm?, mac: last.mac, vlan: None })
        });
        if let Some(plug) = plugged {
            self.unplug(id, plug, at, changes);
        }
        self.ports.known.remove(&id);
        self.ports.subports.remove(&id);
        self.ports.forget_trunk(id);
        // Neutron takes floating addresses off a port that is gone, without a word.
        for floating in self.ports.floating_of.remove(&id).unwrap_or_default() {
            if let Some(known) = self.ports.floating.get_mut(&floating) {
                known.said.port = None;
            }
        }
    }

    /// A trunk has these subports now.
    pub(super) fn trunk(
        &mut self,
        trunk: &Trunk,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), LeftOut> {
        let parent = trunk.port;
        let order = at.min(self.ports.now);
        let before = self.ports.parents.get(&parent);
        if before.is_some_and(|before| before.at > order) {
            return Ok(());
        }
        let vlans: BTreeMap<Uuid, u16> = trunk.subports.iter().copied().collect();
        if self.ports.subports.len() + vlans.len() > PORTS_MAX
            || (self.ports.trunks.len() >= PORTS_MAX && !self.ports.trunks.contains_key(&trunk.id))
        {
            return Err(LeftOut::Full);
        }
        // A port has one trunk at a time; the one that it had before is gone.
        let other = before.map(|before| before.trunk).filter(|other| *other != trunk.id);
        let vlans_before = before.map(|before| before.vlans.clone()).unwrap_or_default();
        for (id, vlan) in &vlans_before {
            if vlans.get(id) != Some(vlan) {
                self.leave(*id, parent, *vlan, at, changes);
            }
        }
        if let Some(other) = other {
            self.ports.trunks.remove(&other);
        }
        self.ports.trunks.insert(trunk.id, parent);
        let mine: Vec<Uuid> =
            vlans.keys().copied().filter(|id| self.ports.may_take(*id, parent, order)).collect();
        let mut new = mine.clone();
        new.retain(|id| {
            self.ports.subports.get(id) != Some(&parent) || vlans_before.get(id) != vlans.get(id)
        });
        for id in &new {
            // A port is in one trunk only: what this message says comes after what another one said.
            if let Some(plug) = self.ports.plug(*id).filter(|plug| plug.vlan.is_some()) {
                self.unplug(*id, plug, at, changes);
            }
        }
        self.ports.subports.extend(mine.into_iter().map(|id| (id, parent)));
        self.ports.parents.insert(parent, Subports { trunk: trunk.id, vlans, at: order });
        for id in new {
            let Some(plug) = self.ports.plug(id).filter(|plug| plug.vlan.is_some()) else {
                continue;
            };
            self.say(id, plug, at, changes);
            self.say_rest(id, plug, at, changes);
        }
        Ok(())
    }

    /// A subport is not in this trunk any more, with this VLAN id. Where another one has it already, it has
    /// left before that one got it.
    fn leave(
        &mut self,
        id: Uuid,
        parent: Uuid,
        vlan: u16,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        match self.ports.subports.get(&id).copied() {
            Some(holder) if holder == parent => {
                if let Some(plug) = self.ports.plug(id).filter(|plug| plug.vlan.is_some()) {
                    self.unplug(id, plug, at, changes);
                }
                self.ports.subports.remove(&id);
            }
            Some(_) if at < self.plugged_since(id) => {
                let vm = self.ports.known.get(&parent).and_then(|known| known.said.vm);
                let port = self.ports.known.get(&id).map(|known| &known.said);
                if let (Some(vm), Some(port)) = (vm, port.filter(|port| port.vm.is_none())) {
                    let plug = Plug { vm, mac: port.mac, vlan: Some(vlan) };
                    self.unplug(id, plug, at, changes);
                }
            }
            _ => {}
        }
    }

    /// A trunk is gone, and its subports are no interfaces of the VM any more.
    pub(super) fn trunk_gone(
        &mut self,
        id: Uuid,
        port: Option<Uuid>,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        let Some(parent) = self.ports.trunks.remove(&id).or(port) else { return };
        // It may have another trunk by now, of which this message says nothing.
        if self.ports.parents.get(&parent).is_some_and(|it| it.trunk != id) {
            return;
        }
        let Some(vm) = self.ports.known.get(&parent).and_then(|known| known.said.vm) else {
            self.ports.forget_trunk(parent);
            return;
        };
        for (id, plug) in self.ports.subports_of(parent, vm) {
            self.unplug(id, plug, at, changes);
        }
        self.ports.forget_trunk(parent);
    }

    /// A floating address is like this now.
    pub(super) fn floating(
        &mut self,
        floating: &Floating,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), LeftOut> {
        let before = self.ports.floating.get(&floating.id);
        if before.is_none() && self.ports.floating.len() >= FLOATING_MAX {
            return Err(LeftOut::Full);
        }
        let order = at.min(self.ports.now);
        if before.is_some_and(|before| before.at > order) {
            return Ok(());
        }
        let place = |said: &Floating| Some((said.port?, said.network));
        let places: BTreeSet<(Uuid, Uuid)> = before
            .map(|before| &before.said)
            .into_iter()
            .chain([floating])
            .filter_map(place)
            .collect();
        self.ports.take_off(floating.id);
        if let Some(port) = floating.port {
            self.ports.floating_of.entry(port).or_default().insert(floating.id);
        }
        let known = KnownFloating { said: floating.clone(), at: order };
        self.ports.floating.insert(floating.id, known);
        for (port, network) in places {
            self.say_floating(port, network, at, changes);
        }
        Ok(())
    }

    /// A floating address is gone.
    pub(super) fn floating_gone(&mut self, id: Uuid, at: Timestamp, changes: &mut Vec<Change>) {
        self.ports.take_off(id);
        let Some(known) = self.ports.floating.remove(&id) else { return };
        if let Some(port) = known.said.port {
            self.say_floating(port, known.said.network, at, changes);
        }
    }

    /// Says the segment of ports and floating addresses that were known before their network was.
    pub(super) fn connect(
        &mut self,
        network: Uuid,
        segment: Segment,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        let mut said = Vec::new();
        let late = self
            .ports
            .known
            .iter()
            .filter(|(_, port)| port.said.network == network && port.segment != Some(segment));
        let late: Vec<(Uuid, Timestamp)> = late
            .map(|(id, port)| (*id, if port.segment.is_none() { port.at } else { at }))
            .collect();
        for (id, from) in late {
            if let Some(port) = self.ports.known.get_mut(&id) {
                port.segment = Some(segment);
            }
            if let Some(plug) = self.ports.plug(id) {
                let from = from.max(self.plugged_since(id));
                said.extend(Statement::new(plug.vm, from).segment(plug.id(), segment).changes());
            }
        }
        said.sort_by_key(|change| (change.subject, change.from));
        changes.extend(said);
        let floating = self.ports.floating.values().filter(|known| known.said.network == network);
        let ports: BTreeSet<Uuid> = floating.filter_map(|known| known.said.port).collect();
        for port in ports {
            let since = self.ports.known.get(&port).map_or(at, |known| known.at);
            self.say_floating(port, network, since, changes);
        }
    }

    /// Since when a subport can be one at all.
    fn plugged_since(&self, id: Uuid) -> Timestamp {
        let parent = self.ports.subports.get(&id);
        let since = parent.and_then(|parent| self.ports.parents.get(parent));
        since.map_or(Timestamp::ZERO, |parent| parent.at)
    }

    /// What a port is as an interface.
    fn say(&mut self, id: Uuid, plug: Plug, at: Timestamp, changes: &mut Vec<Change>) {
        let Some(known) = self.ports.known.get(&id) else { return };
        let (port, segment) = (known.said.clone(), known.segment);
        let at =
            if plug.vlan.is_some() { at.max(known.at).max(self.plugged_since(id)) } else { at };
        if plug.vlan.is_none() {
            let vm = self.vms.entry(plug.vm).or_default();
            vm.nics.remove(&port.mac);
            vm.ports.insert(port.mac);
        }
        let statement = self.interface(plug, &port, segment, Statement::new(plug.vm, at));
        changes.extend(statement.changes());
    }

    /// What else is the VM's by a port: its floating addresses, and subports.
    fn say_rest(&mut self, id: Uuid, plug: Plug, at: Timestamp, changes: &mut Vec<Change>) {
        for network in self.ports.outer(id) {
            self.say_floating(id, network, at, changes);
        }
        if plug.vlan.is_some() {
            return;
        }
        for (subport, plug) in self.ports.subports_of(id, plug.vm) {
            self.say(subport, plug, at, changes);
            self.say_rest(subport, plug, at, changes);
        }
    }

    fn interface(
        &mut self,
        plug: Plug,
        port: &Port,
        segment: Option<Segment>,
        statement: Statement,
    ) -> Statement {
        let (id, text) = (plug.id(), port.id.to_string());
        let mut statement = statement
            .attached(id, true)
            .port(id, text.as_str())
            .addresses(id, port.addresses.iter().copied());
        if let Some(segment) = segment {
            statement = statement.segment(id, segment);
        }
        if let Some(pairs) = &port.pairs {
            let pairs = pairs.iter().copied().filter(|pair| !port.addresses.contains(pair));
            let value =
                Some(Value::addresses(pairs)).filter(|value| *value != Value::addresses([]));
            statement = statement.says(Attribute::Shared(id), value);
        }
        if let (Some(vlan), Some(seen)) = (plug.vlan, plug.as_seen()) {
            let tagged = Segment::new(self.mapping.domain, SegmentKind::Vlan, vlan.into());
            return statement.attached(seen, true).port(seen, text).segment(seen, tagged);
        }
        self.beside(plug.vm, port, statement)
    }

    /// Host and tenant, where Nova has not spoken of the VM.
    fn beside(&mut self, id: Uuid, port: &Port, mut statement: Statement) -> Statement {
        let tenant =
            port.project.as_ref().map(|project| (Arc::clone(project), self.tenant(project)));
        let vm = self.vms.entry(id).or_default();
        if vm.by_nova {
            return statement;
        }
        if let Some(host) = &port.host {
            statement = statement.host(Arc::clone(host));
        }
        if let Some((project, tenant)) = tenant {
            let at = statement.since();
            let from = vm.project.as_ref().map_or(at, |(_, from)| at.min(*from));
            vm.project = Some((project, from));
            statement = statement.tenant(tenant);
        }
        statement
    }

    /// All that is a VM's by a port is it no more.
    fn unplug(&mut self, id: Uuid, plug: Plug, at: Timestamp, changes: &mut Vec<Change>) {
        if plug.vlan.is_none()
            && let Some(vm) = self.vms.get_mut(&plug.vm)
        {
            vm.ports.remove(&plug.mac);
        }
        let mut statement = Statement::new(plug.vm, at).attached(plug.id(), false);
        if let Some(seen) = plug.as_seen() {
            statement = statement.attached(seen, false);
        }
        for network in self.ports.outer(id) {
            if let Some(number) = self.outer_number(plug.vm, network, false) {
                statement = statement.attached(InterfaceId { mac: plug.mac, number }, false);
            }
        }
        changes.extend(statement.changes());
        if plug.vlan.is_none() {
            for (subport, plug) in self.ports.subports_of(id, plug.vm) {
                self.unplug(subport, plug, at, changes);
            }
        }
    }

    /// Says the floating addresses that a port has in one outer network. Nothing while the segment of that
    /// network is not known: an address means nothing without one.
    fn say_floating(
        &mut self,
        port: Uuid,
        network: Uuid,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        let (Some(plug), Some(segment)) = (self.ports.plug(port), self.segment_of(network)) else {
            return;
        };
        let (addresses, since) = self.ports.floating(port, network);
        let at = at.max(since);
        let is_new = !addresses.is_empty();
        let Some(number) = self.outer_number(plug.vm, network, is_new) else { return };
        let id = InterfaceId { mac: plug.mac, number };
        let statement = Statement::new(plug.vm, at);
        let statement = if is_new {
            statement.attached(id, true).segment(id, segment).addresses(id, addresses)
        } else {
            statement.attached(id, false)
        };
        changes.extend(statement.changes());
    }

    /// The number of a VM's interfaces in an outer network, one that it has not yet if `new`.
    fn outer_number(&mut self, vm: Uuid, network: Uuid, new: bool) -> Option<u16> {
        if !new && !self.vms.contains_key(&vm) {
            return None;
        }
        let outer = &mut self.vms.entry(vm).or_default().outer;
        let first = u16::try_from(network.0 % u128::from(FLOATING_NUMBERS)).ok()?;
        // Where two networks of a VM have one number, which hardly ever is, the later one has the next.
        let numbers = (first..FLOATING_NUMBERS).chain(0..first).map(|number| FLOATING + number);
        for number in numbers.take(OUTER_MAX) {
            match outer.get(&number) {
                Some(known) if *known == network => return Some(number),
                Some(_) => {}
                None if new && outer.len() < OUTER_MAX => {
                    outer.insert(number, network);
                    return Some(number);
                }
                None => return None,
            }
        }
        None
    }

    fn segment_of(&self, network: Uuid) -> Option<Segment> {
        self.networks.get(&network).and_then(|network| network.segment)
    }
}

impl Ports {
    /// Whether a trunk of which something is said gets a subport: not from one of which something later
    /// was said.
    fn may_take(&self, id: Uuid, parent: Uuid, order: Timestamp) -> bool {
        let holder = self.subports.get(&id).filter(|holder| **holder != parent);
        let since = holder.and_then(|holder| self.parents.get(holder)).map(|holder| holder.at);
        since.is_none_or(|since| since <= order)
    }

    fn forget_trunk(&mut self, parent: Uuid) {
        let Some(gone) = self.parents.remove(&parent) else { return };
        self.trunks.remove(&gone.trunk);
        for id in gone.vlans.keys() {
            if self.subports.get(id) == Some(&parent) {
                self.subports.remove(id);
            }
        }
    }

    fn take_off(&mut self, floating: Uuid) {
        let port = self.floating.get(&floating).and_then(|known| known.said.port);
        let Some(port) = port else { return };
        if let Some(all) = self.floating_of.get_mut(&port) {
            all.remove(&floating);
            if all.is_empty() {
                self.floating_of.remove(&port);
            }
        }
    }
}
