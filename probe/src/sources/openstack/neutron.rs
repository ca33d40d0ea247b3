//! What Neutron says of ports, trunks, networks, subnets, routers and floating addresses.
//!
//! In: a [`Notification`]. Out: [`Event`]s; several where one message is of many ports.
//! Invariants: a port that is bound to no VM is still an event, for it may have been before.
//! Source: Neutron, notifications of its API (`port.create.end` with the resource as the API gives
//! it; `port.delete.end` with the id), and networking API v2, provider attributes, lists of ports.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::envelope::{LeftOut, Notification, Object, text, timestamp};
use crate::inventory::{ADDRESSES_MAX, Mac, Uuid};
use crate::time::Timestamp;

/// Resources in one message at most.
const RESOURCES_MAX: usize = 4_096;
/// Subnets of one router interface at most.
const SUBNETS_MAX: usize = 64;
/// Owners of the ports by which routers are connected to subnets (of a VLAN or a tenant network, not the
/// gateway to the outside).
const ROUTERS: [&str; 3] = [
    "network:router_interface",
    "network:router_interface_distributed",
    "network:ha_router_replicated_interface",
];
const SECOND_NS: u64 = 1_000_000_000;

/// Largest VLAN id.
const VLAN_MAX: u64 = 4_094;

/// One thing that a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A port is like this now.
    Port(Port),
    /// A port is gone.
    PortGone(Uuid, Option<Port>),
    /// A trunk is like this now.
    Trunk(Trunk),
    /// A trunk is gone.
    TrunkGone {
        /// The trunk.
        id: Uuid,
        /// Its port, in messages that name it.
        port: Option<Uuid>,
    },
    /// A floating address is like this now.
    Floating(Floating),
    /// A floating address is gone.
    FloatingGone(Uuid),
    /// A network is like this now.
    Network(Network),
    /// A network is gone.
    NetworkGone(Uuid),
    /// A subnet belongs to a network.
    Subnet {
        /// The subnet.
        id: Uuid,
        /// Its network.
        network: Uuid,
    },
    /// A subnet is gone.
    SubnetGone(Uuid),
    /// A router was connected to subnets.
    Joined(RouterInterface),
    /// A router was disconnected from subnets.
    Parted(RouterInterface),
    /// A router is gone.
    RouterGone(Uuid),
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Id.
    pub(super) id: Uuid,
    /// VM that it is bound to.
    pub(super) vm: Option<Uuid>,
    /// MAC address.
    pub(super) mac: Mac,
    /// Network.
    pub(super) network: Uuid,
    /// Addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Single addresses that it may send from as well; `None` where the message does not say.
    pub(super) pairs: Option<Vec<IpAddr>>,
    /// The trunk that it is the port of.
    pub(super) trunk: Option<Trunk>,
    /// Host that it is bound on.
    pub(super) host: Option<Arc<str>>,
    /// Project id.
    pub(super) project: Option<Arc<str>>,
}

/// A trunk: a port of a VM, on which packets of further ports come tagged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trunk {
    /// Id.
    pub(super) id: Uuid,
    /// The port that is plugged into the VM.
    pub(super) port: Uuid,
    /// The further ones, each with its VLAN id.
    pub(super) subports: Vec<(Uuid, u16)>,
}

/// An address in an outer network that stands for one of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Floating {
    /// Id.
    pub(super) id: Uuid,
    /// The address.
    pub(super) address: IpAddr,
    /// The outer network.
    pub(super) network: Uuid,
    /// The port, if it stands for one now.
    pub(super) port: Option<Uuid>,
}

/// A network, with what of it shows on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// Id.
    pub(super) id: Uuid,
    /// `vxlan`, `vlan`, …; `None` for a network of several segments, or where the message hides it.
    pub(super) kind: Option<Arc<str>>,
    /// VLAN id, VNI or key.
    pub(super) number: Option<u32>,
    /// Physical network of a VLAN or flat network.
    pub(super) physical: Option<Arc<str>>,
}

/// A router's interface in subnets of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouterInterface {
    /// The router.
    pub(super) router: Uuid,
    /// The network, in messages that name it.
    pub(super) network: Option<Uuid>,
    /// The subnets.
    pub(super) subnets: Vec<Uuid>,
}

/// Reads one of Neutron's notifications.
pub(super) fn events(notification: &Notification) -> Result<Vec<Event>, LeftOut> {
    let payload = &notification.payload;
    match notification.event.as_str() {
        "port.create.end" | "port.update.end" => {
            resources(payload, "port", "ports", |object| port(object).map(Event::Port))
        }
        "port.delete.end" => {
            let last = payload.get("port").and_then(Value::as_object).and_then(port);
            let gone = gone(payload, "port_id").or(last.as_ref().map(|port| port.id));
            one(gone.map(|id| Event::PortGone(id, last)))
        }
        "trunk.create.end" | "trunk.update.end" => {
            resources(payload, "trunk", "trunks", |object| trunk(object).map(Event::Trunk))
        }
        "trunk.delete.end" => {
            let last = payload.get("trunk").and_then(Value::as_object);
            let port = last.and_then(|last| id(last, "port_id"));
            one(gone(payload, "trunk_id").map(|id| Event::TrunkGone { id, port }))
        }
        "floatingip.create.end" | "floatingip.update.end" => {
            resources(payload, "floatingip", "floatingips", |object| {
                floating(object).map(Event::Floating)
            })
        }
        "floatingip.delete.end" => one(gone(payload, "floatingip_id").map(Event::FloatingGone)),
        "network.create.end" | "network.update.end" => {
            resources(payload, "network", "networks", |object| network(object).map(Event::Network))
        }
        "network.delete.end" => one(gone(payload, "network_id").map(Event::NetworkGone)),
        "subnet.create.end" | "subnet.update.end" => {
            resources(payload, "subnet", "subnets", |object| {
                Some(Event::Subnet { id: id(object, "id")?, network: id(object, "network_id")? })
            })
        }
        "subnet.delete.end" => one(gone(payload, "subnet_id").map(Event::SubnetGone)),
        "router.interface.create" => one(router_interface(payload).map(Event::Joined)),
        "router.interface.delete" => one(router_interface(payload).map(Event::Parted)),
        "router.delete.end" => one(gone(payload, "router_id").map(Event::RouterGone)),
        _ => Err(LeftOut::NotUsed),
    }
}

fn one(event: Option<Event>) -> Result<Vec<Event>, LeftOut> {
    event.map(|event| vec![event]).ok_or(LeftOut::Payload)
}

/// One resource, or the list of a bulk request; a single one of another form spoils all.
fn resources(
    payload: &Object,
    name: &str,
    names: &str,
    read: impl Fn(&Object) -> Option<Event>,
) -> Result<Vec<Event>, LeftOut> {
    let list = payload.get(names).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let all: Vec<_> = payload.get(name).into_iter().chain(list).collect();
    if all.is_empty() || all.len() > RESOURCES_MAX {
        return Err(LeftOut::Payload);
    }
    let events = all.into_iter().map(|value| value.as_object().and_then(&read));
    events.collect::<Option<_>>().ok_or(LeftOut::Payload)
}

fn id(object: &Object, name: &str) -> Option<Uuid> {
    object.get(name)?.as_str()?.parse().ok()
}

fn gone(payload: &Object, name: &str) -> Option<Uuid> {
    id(payload, name)
}

/// What a port that is listed is: one of a VM, or the interface of a router in its subnets. The state of a
/// port holds since it was last changed; see [`since_listed`].
pub(super) fn listed_port(object: &Object) -> Option<(Event, Option<Timestamp>)> {
    let owner = object.get("device_owner").and_then(Value::as_str).unwrap_or_default();
    if !ROUTERS.contains(&owner) {
        return Some((Event::Port(port(object)?), since_listed(object, &["updated_at"])));
    }
    let fixed = object.get("fixed_ips").and_then(Value::as_array).into_iter().flatten();
    let subnets = fixed.filter_map(|item| item.get("subnet_id")?.as_str()?.parse().ok());
    let interface = RouterInterface {
        router: id(object, "device_id")?,
        network: Some(id(object, "network_id")?),
        subnets: subnets.take(SUBNETS_MAX).collect(),
    };
    Some((Event::Joined(interface), since_listed(object, &["created_at"])))
}

/// A network that is listed.
pub(super) fn listed_network(object: &Object) -> Option<(Event, Option<Timestamp>)> {
    Some((Event::Network(network(object)?), since_listed(object, &["created_at"])))
}

/// A floating address that is listed.
pub(super) fn listed_floating(object: &Object) -> Option<(Event, Option<Timestamp>)> {
    Some((Event::Floating(floating(object)?), since_listed(object, &["updated_at"])))
}

/// A subnet that is listed.
pub(super) fn listed_subnet(object: &Object) -> Option<(Event, Option<Timestamp>)> {
    Some((Event::Subnet { id: id(object, "id")?, network: id(object, "network_id")? }, None))
}

/// The first of some times that is there. APIs write whole seconds, cut off; at the end of that second it
/// was so for sure, and what a notification has said with the exact time stays as it is.
pub(super) fn since_listed(object: &Object, names: &[&str]) -> Option<Timestamp> {
    let time = |name: &&str| timestamp(object.get(*name)?.as_str()?);
    let at = names.iter().find_map(time)?;
    Some(if at.0.is_multiple_of(SECOND_NS) { at + (SECOND_NS - 1) } else { at })
}

/// What Nova plugs into a VM has the owner `compute:ZONE`; routers, DHCP servers and load balancers
/// have others.
fn port(port: &Object) -> Option<Port> {
    let owner = port.get("device_owner").and_then(Value::as_str).unwrap_or_default();
    let fixed = port.get("fixed_ips").and_then(Value::as_array).into_iter().flatten();
    let address = |item: &Value| item.get("ip_address")?.as_str()?.parse().ok();
    Some(Port {
        id: id(port, "id")?,
        vm: owner.starts_with("compute:").then(|| id(port, "device_id")).flatten(),
        mac: port.get("mac_address")?.as_str()?.parse().ok()?,
        network: id(port, "network_id")?,
        addresses: fixed.filter_map(address).take(ADDRESSES_MAX).collect(),
        pairs: port.get("allowed_address_pairs").and_then(Value::as_array).map(|all| pairs(all)),
        trunk: port.get("trunk_details").and_then(Value::as_object).and_then(|details| {
            let subports = subports(details);
            Some(Trunk { id: id(details, "trunk_id")?, port: id(port, "id")?, subports })
        }),
        host: text(port, "binding:host_id"),
        project: text(port, "project_id").or_else(|| text(port, "tenant_id")),
    })
}

/// Single addresses: who may send from a whole network passes on what others send.
fn pairs(pairs: &[Value]) -> Vec<IpAddr> {
    let single = |pair: &Value| {
        let text = pair.get("ip_address")?.as_str()?;
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { "32" } else { "128" };
        (length.is_empty() || length == whole).then_some(address)
    };
    pairs.iter().filter_map(single).take(ADDRESSES_MAX).collect()
}

fn trunk(trunk: &Object) -> Option<Trunk> {
    let subports = subports(trunk);
    Some(Trunk { id: id(trunk, "id")?, port: id(trunk, "port_id")?, subports })
}

fn subports(of: &Object) -> Vec<(Uuid, u16)> {
    let subport = |subport: &Value| {
        let vlan = subport.get("segmentation_id")?.as_u64();
        let vlan = vlan.filter(|vlan| (1..=VLAN_MAX).contains(vlan))?;
        Some((subport.get("port_id")?.as_str()?.parse().ok()?, u16::try_from(vlan).ok()?))
    };
    let all = of.get("sub_ports").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(subport).take(RESOURCES_MAX).collect()
}

fn floating(floating: &Object) -> Option<Floating> {
    Some(Floating {
        id: id(floating, "id")?,
        address: floating.get("floating_ip_address")?.as_str()?.parse().ok()?,
        network: id(floating, "floating_network_id")?,
        port: id(floating, "port_id"),
    })
}

fn network(network: &Object) -> Option<Network> {
    let id = id(network, "id")?;
    let several = network.get("segments").and_then(Value::as_array);
    // With one segment in the list it is the network's; with several, each host has its own.
    let provider = match several.map(Vec::as_slice) {
        Some([one]) => one.as_object()?,
        Some([_, _, ..]) => return Some(Network { id, kind: None, number: None, physical: None }),
        _ => network,
    };
    let number = provider.get("provider:segmentation_id").and_then(Value::as_u64);
    Some(Network {
        id,
        kind: text(provider, "provider:network_type"),
        number: number.and_then(|number| u32::try_from(number).ok()),
        physical: text(provider, "provider:physical_network"),
    })
}

fn router_interface(payload: &Object) -> Option<RouterInterface> {
    let interface = payload.get("router_interface")?.as_object()?;
    let listed = interface.get("subnet_ids").and_then(Value::as_array).into_iter().flatten();
    let mut subnets: Vec<Uuid> =
        listed.filter_map(|id| id.as_str()?.parse().ok()).take(SUBNETS_MAX).collect();
    subnets.extend(id(interface, "subnet_id").filter(|id| !subnets.contains(id)));
    let network = id(interface, "network_id");
    if subnets.is_empty() {
        return None;
    }
    Some(RouterInterface { router: id(interface, "id")?, network, subnets })
}
