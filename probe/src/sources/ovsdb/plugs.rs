//! Which VM is plugged into which port.
//!
//! In: the rows of a switch. Out: a [`Plug`] for each interface that belongs to a VM.
//! Cost: one visit of each bridge, port and interface.
//! Invariants: what the database does not say is `None`, never guessed.
//! Source: ovs-vswitchd.conf.db(5), "Common Columns" and "Integration with hypervisors": `attached-mac`
//! is the VM's address (`mac_in_use` is the tap's), `iface-id`, `iface-status`, `vm-id`. OpenStack's os-vif
//! writes `vm-uuid`, XenServer `xs-vm-uuid`.

use std::sync::Arc;

use super::database::{Database, Row};
use super::schema::Table;
use crate::inventory::{Mac, Uuid};

/// Keys that name the VM, the first one first.
const VM_KEYS: [&str; 3] = ["vm-id", "vm-uuid", "xs-vm-uuid"];

/// An interface of a VM on a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plug {
    /// The row of the interface.
    pub(super) interface: Uuid,
    /// The row of its port.
    pub(super) port: Uuid,
    /// The row of its bridge.
    pub(super) bridge: Uuid,
    /// Name of the bridge.
    pub(super) bridge_name: Arc<str>,
    /// Name of the port.
    pub(super) port_name: Arc<str>,
    /// Name of the interface.
    pub(super) name: Arc<str>,
    /// Host that the bridge is on.
    pub(super) host: Option<Arc<str>>,
    /// The VM.
    pub(super) vm: Option<Uuid>,
    /// The VM's name, where whoever plugged it wrote one.
    pub(super) vm_name: Option<Arc<str>>,
    /// The interface's MAC address.
    pub(super) mac: Option<Mac>,
    /// `iface-id`: the id of a Neutron port, for one.
    pub(super) iface_id: Option<Arc<str>>,
    /// VLAN of all that it sends without a tag; `None`: a trunk, or none.
    pub(super) vlan: Option<u16>,
    /// It is the one in use of those with its `iface-id`.
    pub(super) active: bool,
}

impl Plug {
    /// The switch's name in the inventory. Bridges of all hosts are called alike, so the host is in it.
    pub(super) fn switch(&self) -> Option<Arc<str>> {
        let bridge = &self.bridge_name;
        match &self.host {
            _ if bridge.is_empty() => None,
            Some(host) => Some(format!("{host}/{bridge}").into()),
            None => Some(Arc::clone(bridge)),
        }
    }
}

/// All plugs, in order of bridges and ports. `host`: what the configuration says.
pub(super) fn plugs(database: &Database, host: Option<&str>) -> Vec<Plug> {
    let configured: Option<Arc<str>> = host.map(Into::into);
    let switch = switch_host(database);
    let mut plugs = Vec::new();
    for (bridge, row) in database.rows(Table::Bridge) {
        let own = || row.external("hostname").cloned().or_else(|| switch.clone());
        let host = configured.clone().or_else(own);
        let bridge_name: Arc<str> = row.text("name").into();
        for port in row.uuids("ports") {
            let Some(port_row) = database.row(Table::Port, port) else { continue };
            for interface in port_row.uuids("interfaces") {
                let Some(found) = database.row(Table::Interface, interface) else { continue };
                if !is_of_vm(found) {
                    continue;
                }
                plugs.push(Plug {
                    interface,
                    port,
                    bridge,
                    bridge_name: Arc::clone(&bridge_name),
                    port_name: port_row.text("name").into(),
                    name: found.text("name").into(),
                    host: host.clone(),
                    vm: VM_KEYS.iter().find_map(|key| found.external(key)?.parse().ok()),
                    vm_name: found.external("vm-name").cloned(),
                    mac: found.external("attached-mac").and_then(|text| text.parse().ok()),
                    iface_id: found.external("iface-id").cloned(),
                    vlan: access_vlan(port_row),
                    active: found.external("iface-status").is_none_or(|text| &**text == "active"),
                });
            }
        }
    }
    plugs
}

/// What the switch calls its host.
pub(super) fn switch_host(database: &Database) -> Option<Arc<str>> {
    let mut rows = database.rows(Table::Switch);
    let (_, row) = rows.next()?;
    row.external("hostname").or_else(|| row.external("system-id")).cloned()
}

fn is_of_vm(interface: &Row) -> bool {
    let keys = ["attached-mac", "iface-id"];
    keys.iter().chain(&VM_KEYS).any(|key| interface.external(key).is_some())
}

/// The VLAN of an access port, or the native one of a trunk.
fn access_vlan(port: &Row) -> Option<u16> {
    match port.text("vlan_mode") {
        // The tag of the outer header: which one is inside, the VM says.
        "trunk" | "dot1q-tunnel" => None,
        _ => port.numbers("tag").next().filter(|tag| *tag != 0),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::super::database::tests::{database, uuid};
    use super::*;

    pub(in super::super) const VM: &str = "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01";

    /// A bridge `br0` with `ports` (numbers of rows, with their columns), each with an interface of the
    /// same number that has `ids`.
    pub(in super::super) fn bridge(ports: &[(u128, Value, Value)]) -> Database {
        let mut database = database();
        let references: Vec<_> =
            ports.iter().map(|(number, ..)| json!(["uuid", uuid(*number)])).collect();
        database
            .update2(&json!({
                "Open_vSwitch": {uuid(900): {"initial": {
                    "external_ids": ["map", [["hostname", "h1"], ["system-id", "s"]]]
                }}},
                "Bridge": {uuid(901): {"initial": {"name": "br0", "ports": ["set", references]}}},
            }))
            .expect("fits");
        for (number, port, ids) in ports {
            let mut port = port.clone();
            port["name"] = json!(format!("p{number}"));
            port["interfaces"] = json!(["uuid", uuid(*number)]);
            let interface = json!({"name": format!("p{number}"), "external_ids": ids});
            database
                .update2(&json!({
                    "Port": {uuid(*number): {"insert": port}},
                    "Interface": {uuid(*number): {"insert": interface}},
                }))
                .expect("fits");
        }
        database
    }

    pub(in super::super) fn ids(pairs: &[(&str, &str)]) -> Value {
        json!(["map", pairs])
    }

    #[test]
    fn the_vm_is_what_external_ids_say() {
        let all = [("attached-mac", "02:00:00:00:00:01"), ("iface-id", "i"), ("vm-name", "web")];
        let with = |more: &[(&str, &str)]| {
            let database = bridge(&[(1, json!({"tag": 10}), ids(&[&all, more].concat()))]);
            plugs(&database, None).pop().expect("a plug")
        };
        let plug = with(&[("vm-id", VM)]);
        assert_eq!(plug.vm, VM.parse().ok());
        assert_eq!(plug.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!((plug.host.as_deref(), plug.vlan, plug.active), (Some("h1"), Some(10), true));
        assert_eq!((&*plug.bridge_name, &*plug.name), ("br0", "p1"));
        assert_eq!(with(&[("vm-uuid", VM)]).vm, VM.parse().ok());
        assert_eq!(with(&[("vm-id", "no uuid"), ("xs-vm-uuid", VM)]).vm, VM.parse().ok());
        assert!(!with(&[("vm-id", VM), ("iface-status", "inactive")]).active);
        assert_eq!(with(&[]).vm, None);
    }

    #[test]
    fn other_ports_are_no_plugs() {
        let database = bridge(&[(1, json!({}), json!(["map", []])), (2, json!({}), ids(&[]))]);
        assert_eq!(plugs(&database, None), []);
    }

    #[test]
    fn the_host_is_the_nearest_one_that_is_named() {
        let mut database = bridge(&[(1, json!({}), ids(&[("iface-id", "i")]))]);
        let host = |database: &Database, configured| {
            plugs(database, configured).pop().and_then(|plug| plug.host).unwrap_or_default()
        };
        assert_eq!(&*host(&database, None), "h1");
        let own = json!({"Bridge": {uuid(901): {"modify": {"external_ids": ids(&[("hostname", "h2")])}}}});
        database.update2(&own).expect("fits");
        assert_eq!(&*host(&database, None), "h2");
        assert_eq!(&*host(&database, Some("h3")), "h3");
    }

    #[test]
    fn a_trunk_has_no_vlan_of_its_own() {
        for (port, vlan) in [
            (json!({"tag": 10}), Some(10)),
            (json!({"tag": 10, "vlan_mode": "access"}), Some(10)),
            (json!({"tag": 10, "vlan_mode": "native-tagged"}), Some(10)),
            (json!({"tag": 10, "vlan_mode": "dot1q-tunnel"}), None),
            (json!({"trunks": ["set", [1, 2]]}), None),
            (json!({"tag": 0}), None),
        ] {
            let database = bridge(&[(1, port.clone(), ids(&[("iface-id", "i")]))]);
            assert_eq!(plugs(&database, None)[0].vlan, vlan, "{port}");
        }
    }
}
