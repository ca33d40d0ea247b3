//! What Nova says of an instance.
//!
//! In: a [`Notification`]. Out: an [`Instance`], in one form for both formats of Nova.
//! Invariants: an event that is not over (`.start`) or failed (`.error`) says nothing.
//! Source: Nova, "Notifications in Nova", `doc/notification_samples`: versioned ones
//! (`instance.create.end`, members below `nova_object.data`), and legacy ones
//! (`compute.instance.create.end`); compute API v2.1, `GET /servers/detail`, with the extended attributes
//! that administrators see; its guide, "Handling Down Cells".

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::envelope::{LeftOut, Notification, Object, cut, text, timestamp};
use super::neutron::since_listed;
use crate::inventory::{Mac, Uuid};
use crate::time::Timestamp;

/// Tags of one VM at most: the first ones by name.
const TAGS_MAX: usize = 32;
/// Interfaces in one message at most.
const NICS_MAX: usize = 64;
/// Services write some times in whole seconds, cut off.
const SECOND_NS: u64 = 1_000_000_000;

/// What happened to the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It runs for the first time.
    Created,
    /// It is on the host that says so (migrated, resized).
    Arrived,
    /// It is gone for good.
    Ended,
    /// An interface was taken off.
    Detached,
    /// Anything else.
    Changed,
}

/// Where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// There.
    Host(Arc<str>),
    /// Nowhere: it is shelved.
    Nowhere,
    /// The message does not say, or it is on its way, when the two hosts say different things.
    Unsaid,
}

/// One interface as Nova knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nic {
    /// Id of the port.
    pub(super) port: Option<Arc<str>>,
    /// Addresses.
    pub(super) addresses: Vec<IpAddr>,
}

/// What a message says of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// Which.
    pub(super) vm: Uuid,
    /// What happened.
    pub(super) what: What,
    /// Since when, by Nova's clock.
    pub(super) at: Timestamp,
    /// Name.
    pub(super) name: Option<Arc<str>>,
    /// Project id.
    pub(super) project: Option<Arc<str>>,
    /// Host.
    pub(super) place: Place,
    /// State: `active`, `stopped`, `paused`, …
    pub(super) state: Option<Arc<str>>,
    /// Interfaces by MAC address; empty where the message has none of them.
    pub(super) nics: BTreeMap<Mac, Nic>,
    /// Metadata by name; `None` where the message has none.
    pub(super) tags: Option<BTreeMap<Arc<str>, Arc<str>>>,
}

/// The status of what is in a cell that Nova does not reach.
pub(super) const UNSEEN: &str = "UNKNOWN";

/// Whether a server is listed of which Nova knows little more than its id, because it does not reach its cell:
/// status, project, when it was made. Nova has that from another database, and nothing is to be seen of how the
/// server is now.
pub(super) fn is_unseen(server: &Object) -> bool {
    server.get("status").and_then(Value::as_str) == Some(UNSEEN) && !server.contains_key("name")
}

/// Whether the event is Nova's, and of an instance.
pub(super) fn is_of_instance(event: &str) -> bool {
    kind(event).is_some()
}

/// Kind of event without the prefix of its format.
fn kind(event: &str) -> Option<&str> {
    event.strip_prefix("compute.instance.").or_else(|| event.strip_prefix("instance."))
}

/// Reads one of Nova's notifications of an instance.
pub(super) fn instance(notification: &Notification) -> Result<Instance, LeftOut> {
    let kind = kind(&notification.event).ok_or(LeftOut::NotUsed)?;
    if [".start", ".error", ".progress"].iter().any(|ending| kind.ends_with(ending)) {
        return Err(LeftOut::NotUsed);
    }
    let payload = data(&notification.payload)?;
    let id = ["uuid", "instance_id"].into_iter().find_map(|name| payload.get(name)?.as_str());
    let vm: Uuid = id.and_then(|id| id.parse().ok()).ok_or(LeftOut::Payload)?;
    let state = text(payload, "state");
    let what = what(kind, state.as_deref());
    Ok(Instance {
        vm,
        what,
        at: since(what, payload, notification.at),
        name: text(payload, "display_name"),
        project: text(payload, "tenant_id"),
        place: place(what, payload, notification),
        state,
        nics: nics(payload)?,
        tags: payload.get("metadata").and_then(tags),
    })
}

/// A server as the API lists it, and since when it exists. What it is like now, it is since it was last
/// changed. `None` for one that is deleted, or has another form.
pub(super) fn listed(server: &Object) -> Option<(Instance, Option<Timestamp>)> {
    let state = text(server, "OS-EXT-STS:vm_state");
    if state.as_deref() == Some("deleted") {
        return None;
    }
    let began = since_listed(server, &["OS-SRV-USG:launched_at", "created"]);
    let place = match text(server, "OS-EXT-SRV-ATTR:host") {
        Some(host) => Place::Host(host),
        None if state.as_ref().is_some_and(|state| state.starts_with("shelved")) => Place::Nowhere,
        None => Place::Unsaid,
    };
    let mut nics: BTreeMap<Mac, Nic> = BTreeMap::new();
    let networks = server.get("addresses").and_then(Value::as_object);
    let addresses = networks.into_iter().flat_map(Map::values).filter_map(Value::as_array);
    for item in addresses.flatten() {
        let floating = item.get("OS-EXT-IPS:type").and_then(Value::as_str) == Some("floating");
        let mac = item.get("OS-EXT-IPS-MAC:mac_addr").and_then(Value::as_str);
        let Some(mac) = mac.and_then(|mac| mac.parse::<Mac>().ok()).filter(|_| !floating) else {
            continue;
        };
        if nics.len() >= NICS_MAX && !nics.contains_key(&mac) {
            continue;
        }
        let address: Option<IpAddr> =
            item.get("addr").and_then(Value::as_str).and_then(|text| text.parse().ok());
        nics.entry(mac).or_default().addresses.extend(address);
    }
    let instance = Instance {
        vm: server.get("id")?.as_str()?.parse().ok()?,
        what: What::Changed,
        at: since_listed(server, &["updated"]).unwrap_or(Timestamp(u64::MAX)),
        name: text(server, "name"),
        project: text(server, "tenant_id"),
        place,
        state,
        nics,
        tags: server.get("metadata").and_then(tags),
    };
    Some((instance, began))
}

fn what(kind: &str, state: Option<&str>) -> What {
    match kind {
        _ if state == Some("deleted") => What::Ended,
        "delete.end" => What::Ended,
        "create.end" => What::Created,
        "live_migration_post_dest.end"
        | "live_migration.post.dest.end"
        | "resize_finish.end"
        | "finish_resize.end" => What::Arrived,
        "interface_detach.end" => What::Detached,
        _ => What::Changed,
    }
}

/// Members of a versioned object, or of a legacy payload as they are. Within one major version members are
/// added only; the second one of some took members away that are not read here.
fn data(object: &Object) -> Result<&Object, LeftOut> {
    let Some(data) = object.get("nova_object.data") else { return Ok(object) };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let newest = match text("nova_object.name") {
        Some("InstanceUpdatePayload" | "InstanceExistsPayload") => 2,
        _ => 1,
    };
    if let Some(version) = object.get("nova_object.version") {
        let major = version.as_str().and_then(|version| version.split('.').next()?.parse().ok());
        if !major.is_some_and(|major: u32| (1..=newest).contains(&major)) {
            return Err(LeftOut::PayloadVersion);
        }
    }
    data.as_object().ok_or(LeftOut::Payload)
}

/// An instance exists since it was launched and until it was terminated, both of which a message
/// reports a little later. A time in whole seconds was cut off: its end is taken as the end of that
/// second, but never after the message.
fn since(what: What, payload: &Object, said: Timestamp) -> Timestamp {
    let time = |name| payload.get(name).and_then(Value::as_str).and_then(timestamp);
    let at = match what {
        What::Created => time("launched_at"),
        What::Ended => time("terminated_at")
            .or_else(|| time("deleted_at"))
            .map(|at| if at.0.is_multiple_of(SECOND_NS) { at + (SECOND_NS - 1) } else { at }),
        What::Arrived | What::Detached | What::Changed => None,
    };
    at.unwrap_or(said).min(said)
}

/// While an instance is on its way, its record still says where it came from; only the host where it
/// has arrived knows better.
fn place(what: What, payload: &Object, notification: &Notification) -> Place {
    let busy = ["task_state", "new_task_state", "state_description"];
    let busy = busy.into_iter().any(|name| text(payload, name).is_some());
    match (text(payload, "host"), what) {
        (_, What::Arrived) if busy => {
            notification.publisher_host.clone().map_or(Place::Unsaid, Place::Host)
        }
        (_, What::Ended) => Place::Unsaid,
        _ if busy => Place::Unsaid,
        (Some(host), _) => Place::Host(host),
        (None, _) if text(payload, "state").is_some_and(|state| state.starts_with("shelved")) => {
            Place::Nowhere
        }
        (None, _) => Place::Unsaid,
    }
}

/// `ip_addresses` of versioned messages, `fixed_ips` of legacy ones: one item an address.
fn nics(payload: &Object) -> Result<BTreeMap<Mac, Nic>, LeftOut> {
    let items = ["ip_addresses", "fixed_ips"].into_iter().find_map(|name| payload.get(name));
    let mut nics: BTreeMap<Mac, Nic> = BTreeMap::new();
    for item in items.and_then(Value::as_array).into_iter().flatten() {
        let Some(item) = item.as_object() else { continue };
        let item = data(item)?;
        let mac = ["mac", "vif_mac"].into_iter().find_map(|name| item.get(name)?.as_str());
        let Some(mac) = mac.and_then(|mac| mac.parse::<Mac>().ok()) else { continue };
        if nics.len() >= NICS_MAX && !nics.contains_key(&mac) {
            continue;
        }
        let nic = nics.entry(mac).or_default();
        nic.port = nic.port.take().or_else(|| text(item, "port_uuid"));
        let address: Option<IpAddr> =
            item.get("address").and_then(Value::as_str).and_then(|a| a.parse().ok());
        nic.addresses.extend(address);
    }
    Ok(nics)
}

/// Metadata is an object, in old messages a list of `{key, value}`.
fn tags(metadata: &Value) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
    let named = |(name, value): (&str, &Value)| Some((cut(name), cut(value.as_str()?)));
    let mut tags: BTreeMap<_, _> = match metadata {
        Value::Object(all) => {
            all.iter().map(|(name, value)| (name.as_str(), value)).filter_map(named).collect()
        }
        Value::Array(all) => {
            let pairs = all
                .iter()
                .filter_map(|item| Some((item.get("key")?.as_str()?, item.get("value")?)));
            pairs.filter_map(named).collect()
        }
        _ => return None,
    };
    while tags.len() > TAGS_MAX {
        tags.pop_last();
    }
    Some(tags)
}
