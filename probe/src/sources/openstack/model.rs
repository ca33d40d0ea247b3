//! What notifications mean for the inventory.
//!
//! In: message bodies, in any order, some of them twice. Out: changes.
//! Cost: a few look-ups a message; a new network or router looks at all ports or routers once.
//! Invariants: bounded by the `…_MAX`; the same message gives the same changes, or none if it was the
//! same delivery. Nova has the last word on existence, name, tenant and host of a VM, Neutron on its
//! interfaces; what one of them says of the other's counts only for VMs and interfaces that the other
//! has not spoken of, because it may be out of date and would make the inventory go back and forth.
//! A message is placed by its own time, so a late one changes the past and not the present.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::envelope::{self, LeftOut, Notification};
use super::listing::Listing;
use super::neutron::{self, Event, Network, RouterInterface};
use super::nova::{self, Instance, Place, What};
use super::ports::Ports;
use crate::inventory::{
    Attribute, Batch, Change, Mac, Missing, Scope, Segment, SegmentKind, Statement, Uuid, Value,
    joined,
};
use crate::time::Timestamp;

/// VMs remembered at most.
pub(super) const VMS_MAX: usize = 1 << 18;
/// Ports remembered at most.
pub(super) const PORTS_MAX: usize = 1 << 19;
/// Networks, subnets, and interfaces of routers remembered at most, each.
const NETWORKS_MAX: usize = 1 << 17;
/// Projects whose name is remembered at most.
const PROJECTS_MAX: usize = 1 << 16;
/// Deliveries remembered at most, to know one that comes again.
const DELIVERIES_MAX: usize = 1 << 13;

/// How the cloud is mapped to the probe's words.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    /// Domain of its segments.
    pub(super) domain: u8,
    /// Domains of physical networks that are not of that one.
    pub(super) physical: HashMap<String, u8>,
    /// Tenants are called by the id of their project, not by its name.
    pub(super) tenant_ids: bool,
}

/// What the notifications so far have said, as far as later ones need it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) mapping: Mapping,
    pub(super) vms: HashMap<Uuid, Vm>,
    pub(super) ports: Ports,
    pub(super) networks: HashMap<Uuid, KnownNetwork>,
    subnets: HashMap<Uuid, Uuid>,
    /// By router and subnet.
    routers: BTreeMap<(Uuid, Uuid), Joint>,
    projects: HashMap<Arc<str>, Arc<str>>,
    names: HashSet<Arc<str>>,
    deliveries: Deliveries,
}

#[derive(Debug, Default)]
pub(super) struct Vm {
    /// Nova has spoken of it.
    pub(super) by_nova: bool,
    /// Its project, and since when.
    pub(super) project: Option<(Arc<str>, Timestamp)>,
    /// Interfaces that Neutron speaks of.
    pub(super) ports: BTreeSet<Mac>,
    /// Interfaces that only Nova speaks of.
    pub(super) nics: BTreeSet<Mac>,
    /// Outer networks in which it has, or had, floating addresses, by the numbers of its interfaces there.
    pub(super) outer: BTreeMap<u16, Uuid>,
    tags: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct KnownNetwork {
    pub(super) segment: Option<Segment>,
    /// The router whose address space it is in, as said last.
    router: Option<Uuid>,
}

/// A router's interface.
#[derive(Debug)]
struct Joint {
    network: Option<Uuid>,
    at: Timestamp,
}

impl Model {
    /// Knows nothing yet.
    pub(super) fn new(mapping: Mapping) -> Self {
        Self { mapping, ..Self::default() }
    }

    /// Takes one message that arrived at `known`.
    pub(super) fn message(
        &mut self,
        body: &[u8],
        known: Timestamp,
    ) -> Result<Vec<Change>, LeftOut> {
        let notification = envelope::open(body, known)?;
        if notification.id.as_ref().is_some_and(|id| self.deliveries.has(id)) {
            return Err(LeftOut::Repeated);
        }
        self.ports.now = known;
        let mut changes = Vec::new();
        self.learn_name(&notification, &mut changes);
        let taken = if nova::is_of_instance(&notification.event) {
            nova::instance(&notification).and_then(|said| self.instance(&said, &mut changes))
        } else {
            neutron::events(&notification).and_then(|events| {
                let at = notification.at;
                events.into_iter().try_for_each(|event| self.event(event, at, &mut changes))
            })
        };
        if let Some(id) = &notification.id {
            self.deliveries.add(id);
        }
        match taken {
            Err(why) if changes.is_empty() => Err(why),
            _ => Ok(changes),
        }
    }

    /// Takes a list of what is there, in the place of all that was remembered of the services that were
    /// asked, but names. Also gives how many items were left out, by reason.
    ///
    /// Where both services have listed theirs, what is not listed has ended when the first one was asked. Not
    /// where Nova did not reach all of its servers: what was known of them stays.
    pub(super) fn listed(&mut self, listing: &Listing) -> (Batch, BTreeMap<&'static str, u64>) {
        let partial = listing.is_partial();
        self.forget(listing.servers.is_some() && !partial, listing.networking.is_some());
        self.ports.now = listing.began;
        let (mut changes, mut left_out) = (Vec::new(), BTreeMap::new());
        for (project, name) in &listing.projects {
            self.learn(project, name, &mut changes);
        }
        let mut count = |why: LeftOut| *left_out.entry(why.name()).or_default() += 1;
        let servers = listing.servers.iter().flatten();
        for server in servers.filter(|server| !nova::is_unseen(server)) {
            let Some((mut said, existed)) = nova::listed(server) else {
                if server.get("OS-EXT-STS:vm_state").and_then(|state| state.as_str())
                    != Some("deleted")
                {
                    count(LeftOut::Payload);
                }
                continue;
            };
            said.at = said.at.min(listing.began);
            if listing.networking.is_some() {
                // Neutron has the last word on these, and says it next.
                said.nics.clear();
            }
            if let Some(existed) = existed.filter(|existed| *existed < said.at) {
                let mut statement = Statement::new(said.vm, existed).exists(true);
                if let Some(project) = &said.project {
                    statement = statement.tenant(self.tenant(project));
                }
                changes.extend(statement.changes());
            }
            if let Err(why) = self.instance(&said, &mut changes) {
                count(why);
            }
        }
        let networking = listing.networking.iter();
        let events = networking.flat_map(|listed| {
            let networks = listed.networks.iter().map(neutron::listed_network);
            let subnets = listed.subnets.iter().map(neutron::listed_subnet);
            let ports = listed.ports.iter().map(neutron::listed_port);
            let floating = listed.floating.iter().map(neutron::listed_floating);
            networks.chain(subnets).chain(ports).chain(floating)
        });
        for event in events {
            let Some((event, at)) = event else {
                count(LeftOut::Payload);
                continue;
            };
            let at = at.map_or(listing.began, |at| at.min(listing.began));
            if let Err(why) = self.event(event, at, &mut changes) {
                count(why);
            }
        }
        let both = listing.servers.is_some() && listing.networking.is_some();
        let whole = both && !partial && left_out.is_empty();
        let all = Scope::All { at: listing.began, missing: Missing::Ended };
        (Batch { changes, scope: if whole { all } else { Scope::Some } }, left_out)
    }

    /// Forgets what services have said that say it anew, but names. What the other one has said of VMs stays,
    /// or what this one says of them beside would count.
    fn forget(&mut self, nova: bool, neutron: bool) {
        let before = std::mem::take(self);
        *self = Self {
            mapping: before.mapping,
            projects: before.projects,
            names: before.names,
            deliveries: before.deliveries,
            ..Self::default()
        };
        if !neutron {
            self.ports = before.ports;
            self.networks = before.networks;
            self.subnets = before.subnets;
            self.routers = before.routers;
        }
        for (id, vm) in before.vms {
            let mut kept = Vm::default();
            if !nova && vm.by_nova {
                (kept.by_nova, kept.project) = (true, vm.project);
                (kept.nics, kept.tags) = (vm.nics, vm.tags);
            }
            if !neutron && !vm.ports.is_empty() {
                (kept.ports, kept.outer) = (vm.ports, vm.outer);
            }
            if kept.by_nova || !kept.ports.is_empty() {
                self.vms.insert(id, kept);
            }
        }
    }

    fn learn_name(&mut self, notification: &Notification, changes: &mut Vec<Change>) {
        if let Some((project, name)) = &notification.project {
            self.learn(project, name, changes);
        }
    }

    /// A project's name stands only in requests of its own members. Where it becomes known after its
    /// VMs, they are said to be of that tenant all along: one tenant has one name.
    fn learn(&mut self, project: &Arc<str>, name: &Arc<str>, changes: &mut Vec<Change>) {
        let known = self.projects.contains_key(project) || self.names.contains(name);
        if self.mapping.tenant_ids || known || self.projects.len() >= PROJECTS_MAX {
            return;
        }
        self.projects.insert(Arc::clone(project), Arc::clone(name));
        self.names.insert(Arc::clone(name));
        for (vm, said) in &self.vms {
            if let Some((of, from)) = said.project.as_ref().filter(|(of, _)| of == project) {
                let tenant = self.tenant(of);
                changes.extend(Statement::new(*vm, *from).tenant(tenant).changes());
            }
        }
        changes.sort_by_key(|change| change.subject);
    }

    pub(super) fn tenant(&self, project: &Arc<str>) -> Arc<str> {
        Arc::clone(self.projects.get(project).unwrap_or(project))
    }

    fn instance(&mut self, said: &Instance, changes: &mut Vec<Change>) -> Result<(), LeftOut> {
        if said.what == What::Ended {
            self.vms.remove(&said.vm);
            changes.extend(Statement::new(said.vm, said.at).exists(false).changes());
            return Ok(());
        }
        if self.vms.len() >= VMS_MAX && !self.vms.contains_key(&said.vm) {
            return Err(LeftOut::Full);
        }
        let tenant = said.project.as_ref().map(|project| self.tenant(project));
        let vm = self.vms.entry(said.vm).or_default();
        vm.by_nova = true;
        if let Some(project) = &said.project {
            let from = vm.project.as_ref().map_or(said.at, |(_, from)| said.at.min(*from));
            vm.project = Some((Arc::clone(project), from));
        }
        let mut statement = Statement::new(said.vm, said.at).exists(true);
        if let Some(name) = &said.name {
            statement = statement.name(Arc::clone(name));
        }
        if let Some(tenant) = tenant {
            statement = statement.tenant(tenant);
        }
        statement = match &said.place {
            Place::Host(host) => statement.host(Arc::clone(host)),
            Place::Nowhere => statement.says(Attribute::Host, None),
            Place::Unsaid => statement,
        };
        if let Some(state) = &said.state {
            statement = statement.tag("state", Arc::clone(state));
        }
        statement = tags(vm, said, statement);
        changes.extend(nics(vm, said, statement).changes());
        Ok(())
    }

    fn event(
        &mut self,
        event: Event,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), LeftOut> {
        match event {
            Event::Port(port) => return self.port(&port, at, changes),
            Event::PortGone(id, last) => self.port_gone(id, last.as_ref(), at, changes),
            Event::Trunk(trunk) => return self.trunk(&trunk, at, changes),
            Event::TrunkGone { id, port } => self.trunk_gone(id, port, at, changes),
            Event::Floating(floating) => return self.floating(&floating, at, changes),
            Event::FloatingGone(id) => self.floating_gone(id, at, changes),
            Event::Network(network) => return self.network(&network, at, changes),
            Event::NetworkGone(id) => self.network_gone(id, at, changes),
            Event::Subnet { id, network } => {
                if self.subnets.len() >= NETWORKS_MAX && !self.subnets.contains_key(&id) {
                    return Err(LeftOut::Full);
                }
                self.subnets.insert(id, network);
                let joints = self.routers.iter_mut().filter(|((_, subnet), _)| *subnet == id);
                for (_, joint) in joints {
                    joint.network = Some(network);
                }
                self.space(network, at, changes);
            }
            Event::SubnetGone(id) => {
                self.subnets.remove(&id);
            }
            Event::Joined(interface) => return self.join(&interface, at, changes),
            Event::Parted(interface) => self.part(&interface, at, changes),
            Event::RouterGone(router) => self.part_all(router, at, changes),
        }
        Ok(())
    }

    fn network(
        &mut self,
        network: &Network,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), LeftOut> {
        let segment = segment(network, &self.mapping);
        let before = self.networks.get(&network.id);
        if before.is_none() && self.networks.len() >= NETWORKS_MAX {
            return Err(LeftOut::Full);
        }
        let router = before.and_then(|before| before.router);
        // Members of a project may not see the provider's attributes; what an administrator's
        // message has shown still holds.
        let segment = segment.or(before.and_then(|before| before.segment));
        self.networks.insert(network.id, KnownNetwork { segment, router });
        if let Some(segment) = segment {
            self.connect(network.id, segment, at, changes);
        }
        self.space(network.id, at, changes);
        Ok(())
    }

    fn network_gone(&mut self, id: Uuid, at: Timestamp, changes: &mut Vec<Change>) {
        let Some(network) = self.networks.remove(&id) else { return };
        if let (Some(segment), Some(_)) = (network.segment, network.router) {
            changes.push(joined(segment, None, at));
        }
    }

    fn join(
        &mut self,
        interface: &RouterInterface,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<(), LeftOut> {
        for subnet in &interface.subnets {
            let network = interface.network.or_else(|| self.subnets.get(subnet).copied());
            let place = (interface.router, *subnet);
            if self.routers.len() >= NETWORKS_MAX && !self.routers.contains_key(&place) {
                return Err(LeftOut::Full);
            }
            self.routers.entry(place).or_insert(Joint { network, at });
            if let Some(network) = network {
                self.space(network, at, changes);
            }
        }
        Ok(())
    }

    fn part(&mut self, interface: &RouterInterface, at: Timestamp, changes: &mut Vec<Change>) {
        for subnet in &interface.subnets {
            let joint = self.routers.remove(&(interface.router, *subnet));
            if let Some(network) = joint.and_then(|joint| joint.network) {
                self.space(network, at, changes);
            }
        }
    }

    fn part_all(&mut self, router: Uuid, at: Timestamp, changes: &mut Vec<Change>) {
        let all = (router, Uuid(0))..=(router, Uuid(u128::MAX));
        let subnets: Vec<Uuid> = self.routers.range(all).map(|((_, subnet), _)| *subnet).collect();
        self.part(&RouterInterface { router, network: None, subnets }, at, changes);
    }

    /// Says the address space of a network's segment where it has changed: that of the router that
    /// was connected first. A network between several routers cannot be in all of their spaces, for
    /// the same addresses may be in use behind each.
    fn space(&mut self, id: Uuid, at: Timestamp, changes: &mut Vec<Change>) {
        let joints = self.routers.iter().filter(|(_, joint)| joint.network == Some(id));
        let first = joints.map(|((router, _), joint)| (joint.at, *router)).min();
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(segment) = network.segment else { return };
        let router = first.map(|(_, router)| router);
        if network.router == router {
            return;
        }
        // A segment that becomes known late was joined all along.
        let from = match (network.router, first) {
            (None, Some((joined, _))) => joined,
            _ => at,
        };
        network.router = router;
        changes.push(joined(
            segment,
            router.map(|router| format!("router/{router}")).as_deref(),
            from,
        ));
    }
}

/// Metadata as tags; one that is gone is said no more.
fn tags(vm: &mut Vm, said: &Instance, mut statement: Statement) -> Statement {
    let Some(tags) = &said.tags else { return statement };
    for gone in vm.tags.iter().filter(|name| !tags.contains_key(*name)) {
        statement = statement.says(Attribute::Tag(Arc::clone(gone)), None);
    }
    for (name, value) in tags.iter().filter(|(name, _)| name.as_ref() != "state") {
        let value = Some(Value::Text(Arc::clone(value)));
        statement = statement.says(Attribute::Tag(Arc::clone(name)), value);
    }
    vm.tags = tags.keys().filter(|name| name.as_ref() != "state").cloned().collect();
    statement
}

/// Interfaces that Neutron has not spoken of.
fn nics(vm: &mut Vm, said: &Instance, mut statement: Statement) -> Statement {
    for (mac, nic) in said.nics.iter().filter(|(mac, _)| !vm.ports.contains(*mac)) {
        statement = statement.attached(*mac, true).addresses(*mac, nic.addresses.iter().copied());
        if let Some(port) = &nic.port {
            statement = statement.port(*mac, Arc::clone(port));
        }
        vm.nics.insert(*mac);
    }
    if said.what == What::Detached {
        let (left, gone) = vm.nics.iter().copied().partition(|mac| said.nics.contains_key(mac));
        vm.nics = left;
        let gone: BTreeSet<Mac> = gone;
        for mac in gone {
            statement = statement.attached(mac, false);
        }
    }
    statement
}

/// The segment of a network. Local networks never leave their host and have none.
fn segment(network: &Network, mapping: &Mapping) -> Option<Segment> {
    let kind = network.kind.as_deref()?;
    let physical = network.physical.as_deref().and_then(|name| mapping.physical.get(name));
    let domain = *physical.unwrap_or(&mapping.domain);
    let number = |max: u32| network.number.filter(|number| *number <= max);
    let (kind, number) = match kind {
        "vxlan" => (SegmentKind::Vxlan, number(0xff_ffff)?),
        "geneve" => (SegmentKind::Geneve, number(0xff_ffff)?),
        "gre" => (SegmentKind::Gre, number(u32::MAX)?),
        "vlan" => (SegmentKind::Vlan, number(4_094)?),
        "flat" => (SegmentKind::None, 0),
        _ => return None,
    };
    Some(Segment::new(domain, kind, number))
}

/// The last deliveries, by id.
#[derive(Debug, Default)]
struct Deliveries {
    order: VecDeque<Arc<str>>,
    ids: HashSet<Arc<str>>,
}

impl Deliveries {
    fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn add(&mut self, id: &str) {
        let id = envelope::cut(id);
        if !self.ids.insert(Arc::clone(&id)) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > DELIVERIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}
