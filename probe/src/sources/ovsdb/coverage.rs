//! Which interfaces of VMs a switch mirrors, and which it does not.
//!
//! In: the rows of a switch. Out: [`SwitchCoverage`], interface by interface and direction by direction.
//! Cost: for each VLAN that VMs use, one visit of each port and mirror of the bridge.
//! Invariants: a mirror without an output, or that no bridge has, mirrors nothing. What a mirror takes of
//! a direction only in part is never called mirrored.
//! Source: ovs-vswitchd.conf.db(5), table Mirror: a packet is selected that enters (`select_src_port`) or
//! leaves (`select_dst_port`) the bridge through a selected port and is in a selected VLAN; an output port
//! carries nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::database::{Database, Row};
use super::plugs::Plug;
use super::schema::Table;
use crate::inventory::Uuid;

/// Mirrors that are named for one interface at most.
const MIRRORS_NAMED_MAX: usize = 8;

/// How much of one direction of an interface is mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mirrored {
    /// Nothing, as far as the switch knows.
    #[default]
    No,
    /// Some VLANs, or what a filter lets through.
    Partly,
    /// All that passes between it and other ports of the bridge, but at those.
    Elsewhere,
    /// All, at its own port.
    Fully,
}

/// Both directions in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Both directions.
    Mirrored,
    /// One direction, and nothing of the other.
    OneDirection,
    /// Less than that of a direction.
    Partly,
    /// Neither direction.
    #[default]
    NotMirrored,
}

impl Coverage {
    /// All, the best first.
    pub const ALL: [Self; 4] =
        [Self::Mirrored, Self::OneDirection, Self::Partly, Self::NotMirrored];

    /// The name in the API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mirrored => "mirrored",
            Self::OneDirection => "one_direction",
            Self::Partly => "partly",
            Self::NotMirrored => "not_mirrored",
        }
    }

    fn of(sent: Mirrored, received: Mirrored) -> Self {
        let whole = |mirrored| mirrored >= Mirrored::Elsewhere;
        match (sent, received) {
            (Mirrored::No, Mirrored::No) => Self::NotMirrored,
            _ if whole(sent) && whole(received) => Self::Mirrored,
            (Mirrored::Partly, _) | (_, Mirrored::Partly) => Self::Partly,
            _ => Self::OneDirection,
        }
    }
}

/// One interface of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceCoverage {
    /// The source that says so: `ovsdb:host1`.
    pub source: String,
    /// Host of the switch.
    pub host: Option<String>,
    /// Bridge.
    pub bridge: String,
    /// Port of the bridge.
    pub port: String,
    /// Interface of the port, mostly of the same name.
    pub interface: String,
    /// UUID of the VM, where the switch knows it.
    pub virtual_station_uuid: Option<String>,
    /// MAC address of the VM's interface.
    pub mac: Option<String>,
    /// `external_ids:iface-id`.
    pub iface_id: Option<String>,
    /// VLAN of its port.
    pub vlan: Option<u16>,
    /// Both directions in one word.
    pub coverage: Coverage,
    /// What the VM sends.
    pub sent: Mirrored,
    /// What the VM receives.
    pub received: Mirrored,
    /// Mirrors that select its port, at most eight.
    pub mirrors: Vec<String>,
    /// Octets of a packet that the mirrors of its port copy at most, where they cut.
    pub snap_octets: Option<u16>,
}

/// One mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MirrorState {
    /// Bridge that has it.
    pub bridge: String,
    /// Its name.
    pub name: String,
    /// Port that the copies leave through.
    pub output_port: Option<String>,
    /// VLAN that the copies are in (RSPAN).
    pub output_vlan: Option<u16>,
    /// It has neither, so it copies nothing.
    pub without_output: bool,
    /// Octets of a packet that it copies at most.
    pub snap_octets: Option<u16>,
}

/// Everything that one switch mirrors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchCoverage {
    /// The source that says so.
    pub source: String,
    /// It says so now; otherwise this is the last that it said.
    pub live: bool,
    /// When it last changed, by the probe's clock, since the epoch; null for never.
    pub as_of_ns: Option<u64>,
    /// What the switch, or the configuration, calls its host.
    pub host: Option<String>,
    /// Interfaces of VMs by coverage.
    pub interfaces: BTreeMap<&'static str, u64>,
    /// Mirrors.
    pub mirrors: Vec<MirrorState>,
    /// The interfaces themselves.
    #[serde(skip)]
    pub list: Vec<InterfaceCoverage>,
}

/// What the switch mirrors now.
pub(super) fn coverage(database: &Database, plugs: &[Plug], source: &str) -> SwitchCoverage {
    let mut mirrors = Vec::new();
    let mut list = Vec::new();
    for (bridge, row) in database.rows(Table::Bridge) {
        let of_bridge = Bridge::new(database, row);
        mirrors.extend(states(database, row));
        let mut elsewhere = BTreeMap::new();
        for plug in plugs.iter().filter(|plug| plug.bridge == bridge) {
            list.push(of_bridge.interface(plug, source, &mut elsewhere));
        }
    }
    let mut interfaces: BTreeMap<&'static str, u64> =
        Coverage::ALL.into_iter().map(|coverage| (coverage.name(), 0)).collect();
    for interface in &list {
        *interfaces.entry(interface.coverage.name()).or_default() += 1;
    }
    SwitchCoverage {
        source: source.to_owned(),
        interfaces,
        mirrors,
        list,
        ..SwitchCoverage::default()
    }
}

/// VLANs that a port carries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Vlans {
    All,
    These(BTreeSet<u16>),
}

impl Vlans {
    fn of(port: &Row) -> Self {
        let tag = port.numbers("tag").next();
        let trunks: BTreeSet<u16> = port.numbers("trunks").collect();
        match (port.text("vlan_mode"), tag) {
            ("access" | "dot1q-tunnel", tag) => Self::These([tag.unwrap_or(0)].into()),
            ("", Some(tag)) => Self::These([tag].into()),
            // A trunk without a list carries all.
            _ if trunks.is_empty() => Self::All,
            (_, native) => Self::These(trunks.into_iter().chain(native).collect()),
        }
    }

    fn meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::These(one), Self::These(other)) => !one.is_disjoint(other),
            _ => true,
        }
    }
}

/// A mirror that mirrors.
struct Mirror<'a> {
    row: &'a Row,
    vlans: Option<BTreeSet<u16>>,
}

impl Mirror<'_> {
    /// How much it takes of what a port has in some VLANs.
    fn takes(&self, selection: &'static str, port: Uuid, vlans: &Vlans) -> Mirrored {
        if !self.row.flag("select_all") && !self.row.has_uuid(selection, port) {
            return Mirrored::No;
        }
        let whole = match (&self.vlans, vlans) {
            (None, _) => true,
            (Some(selected), Vlans::These(vlans)) if vlans.is_disjoint(selected) => {
                return Mirrored::No;
            }
            (Some(selected), Vlans::These(vlans)) => vlans.is_subset(selected),
            (Some(_), Vlans::All) => false,
        };
        // A filter of OpenFlow terms is not looked into.
        if whole && self.row.text("filter").is_empty() { Mirrored::Fully } else { Mirrored::Partly }
    }
}

/// What enters a bridge through a port, and what leaves.
const SENT: &str = "select_src_port";
const RECEIVED: &str = "select_dst_port";

/// Ports that carry some VLANs.
#[derive(Clone, Copy, Default)]
struct Carriers {
    ports: usize,
    /// Of these, ports of whose packets in one direction not all are mirrored.
    unmirrored: usize,
}

struct Bridge<'a> {
    mirrors: Vec<Mirror<'a>>,
    /// All but those reserved for mirrors.
    ports: BTreeMap<Uuid, Vlans>,
}

impl<'a> Bridge<'a> {
    fn new(database: &'a Database, bridge: &'a Row) -> Self {
        let rows = bridge.uuids("mirrors").filter_map(|mirror| database.row(Table::Mirror, mirror));
        let with_output = rows.filter(|row| has_output(row));
        let mirrors: Vec<_> = with_output
            .map(|row| {
                let vlans: BTreeSet<u16> = row.numbers("select_vlan").collect();
                Mirror { row, vlans: (!vlans.is_empty()).then_some(vlans) }
            })
            .collect();
        let outputs: BTreeSet<Uuid> =
            mirrors.iter().flat_map(|mirror| mirror.row.uuids("output_port")).collect();
        let ports = bridge.uuids("ports").filter(|port| !outputs.contains(port));
        let ports = ports
            .filter_map(|port| Some((port, Vlans::of(database.row(Table::Port, port)?))))
            .collect();
        Self { mirrors, ports }
    }

    fn interface(
        &self,
        plug: &Plug,
        source: &str,
        elsewhere: &mut BTreeMap<Vlans, [Carriers; 2]>,
    ) -> InterfaceCoverage {
        let mut found = InterfaceCoverage {
            source: source.to_owned(),
            host: plug.host.as_deref().map(str::to_owned),
            bridge: plug.bridge_name.to_string(),
            port: plug.port_name.to_string(),
            interface: plug.name.to_string(),
            virtual_station_uuid: plug.vm.map(|vm| vm.to_string()),
            mac: plug.mac.map(|mac| mac.to_string()),
            iface_id: plug.iface_id.as_deref().map(str::to_owned),
            vlan: plug.vlan,
            ..InterfaceCoverage::default()
        };
        // A port that is reserved for a mirror carries no traffic of a VM.
        let Some(vlans) = self.ports.get(&plug.port) else { return found };
        found.sent = self.at_port(SENT, plug.port, vlans);
        found.received = self.at_port(RECEIVED, plug.port, vlans);
        let others = elsewhere.entry(vlans.clone()).or_insert_with(|| self.carriers(vlans));
        // What a VM sends leaves through other ports; what it receives entered through them.
        let [entering, leaving] = *others;
        for (mirrored, others, selection) in
            [(&mut found.sent, leaving, RECEIVED), (&mut found.received, entering, SENT)]
        {
            if *mirrored < Mirrored::Elsewhere && self.is_whole(others, selection, plug.port, vlans)
            {
                *mirrored = Mirrored::Elsewhere;
            }
        }
        found.coverage = Coverage::of(found.sent, found.received);
        let selecting = self.mirrors.iter().filter(|mirror| {
            [SENT, RECEIVED]
                .iter()
                .any(|selection| mirror.takes(selection, plug.port, vlans) > Mirrored::No)
        });
        let selecting: Vec<_> = selecting.collect();
        found.mirrors = selecting
            .iter()
            .take(MIRRORS_NAMED_MAX)
            .map(|mirror| mirror.row.text("name").into())
            .collect();
        // Where one copies whole packets, nothing is lost.
        let snaps: Option<Vec<u16>> =
            selecting.iter().map(|mirror| mirror.row.numbers("snaplen").next()).collect();
        found.snap_octets = snaps.and_then(|snaps| snaps.into_iter().max());
        found
    }

    fn at_port(&self, selection: &'static str, port: Uuid, vlans: &Vlans) -> Mirrored {
        let taken = self.mirrors.iter().map(|mirror| mirror.takes(selection, port, vlans));
        taken.max().unwrap_or_default()
    }

    /// Of what enters, and of what leaves, in some VLANs.
    fn carriers(&self, vlans: &Vlans) -> [Carriers; 2] {
        let mut both = [Carriers::default(); 2];
        for port in
            self.ports.iter().filter(|(_, carried)| carried.meet(vlans)).map(|(port, _)| *port)
        {
            for (found, selection) in both.iter_mut().zip([SENT, RECEIVED]) {
                found.ports += 1;
                let whole = self.at_port(selection, port, vlans) == Mirrored::Fully;
                found.unmirrored += usize::from(!whole);
            }
        }
        both
    }

    /// Whether all ports but this one are mirrored whole.
    fn is_whole(&self, all: Carriers, selection: &'static str, port: Uuid, vlans: &Vlans) -> bool {
        let own = usize::from(self.at_port(selection, port, vlans) != Mirrored::Fully);
        all.ports > 1 && all.unmirrored == own
    }
}

/// All mirrors, those without an output too.
fn states(database: &Database, bridge: &Row) -> Vec<MirrorState> {
    let rows = bridge.uuids("mirrors").filter_map(|mirror| database.row(Table::Mirror, mirror));
    let port_name = |port| Some(database.row(Table::Port, port)?.text("name").into());
    rows.map(|row| MirrorState {
        bridge: bridge.text("name").into(),
        name: row.text("name").into(),
        output_port: row.uuids("output_port").find_map(port_name),
        output_vlan: row.numbers("output_vlan").next(),
        without_output: !has_output(row),
        snap_octets: row.numbers("snaplen").next(),
    })
    .collect()
}

fn has_output(mirror: &Row) -> bool {
    mirror.uuids("output_port").next().is_some() || mirror.numbers("output_vlan").next().is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::database::tests::uuid;
    use super::super::plugs::plugs;
    use super::super::plugs::tests::{bridge, ids};
    use super::*;

    const OUT: u128 = 50;

    fn reference(number: u128) -> Value {
        json!(["uuid", uuid(number)])
    }

    /// VMs at ports 1 (VLAN 10), 2 (VLAN 10) and 3 (VLAN 20), an uplink that carries all VLANs, a port for
    /// the mirrors; and the mirrors.
    fn switch(mirrors: &[Value]) -> Database {
        let vm = |number, tag| (number, json!({"tag": tag}), ids(&[("iface-id", "i")]));
        let plain = |number| (number, json!({}), ids(&[]));
        let mut database = bridge(&[vm(1, 10), vm(2, 10), vm(3, 20), plain(4), plain(OUT)]);
        let numbered = || (200..).zip(mirrors);
        let references: Vec<_> = numbered().map(|(number, _)| reference(number)).collect();
        let rows: serde_json::Map<_, _> = numbered()
            .map(|(number, row)| {
                let mut row = row.clone();
                row["name"] = json!(format!("m{}", number - 200));
                (uuid(number), json!({"insert": row}))
            })
            .collect();
        let updates = json!({
            "Mirror": rows,
            "Bridge": {uuid(901): {"modify": {"mirrors": ["set", references]}}},
        });
        database.update2(&updates).expect("fits");
        database
    }

    fn map(mirrors: &[Value]) -> SwitchCoverage {
        let database = switch(mirrors);
        coverage(&database, &plugs(&database, None), "ovsdb:a")
    }

    /// Sent and received of the VMs' interfaces.
    fn both(mirrors: &[Value]) -> Vec<(Mirrored, Mirrored)> {
        map(mirrors).list.iter().map(|found| (found.sent, found.received)).collect()
    }

    use Mirrored::{Elsewhere, Fully, No, Partly};

    #[test]
    fn without_mirrors_nothing_is_mirrored() {
        assert_eq!(both(&[]), [(No, No); 3]);
        let without_output = json!({"select_all": true});
        let map = map(&[without_output]);
        assert_eq!(map.interfaces.get("not_mirrored"), Some(&3));
        assert!(map.mirrors[0].without_output);
        assert!(map.list[0].mirrors.is_empty());
    }

    #[test]
    fn all_ports_to_a_port_or_to_a_vlan() {
        for output in [json!({"output_port": reference(OUT)}), json!({"output_vlan": 99})] {
            let mut mirror = output;
            mirror["select_all"] = json!(true);
            mirror["snaplen"] = json!(96);
            let map = map(&[mirror]);
            assert!(map.list.iter().all(|found| (found.sent, found.received) == (Fully, Fully)));
            assert_eq!(map.interfaces.get("mirrored"), Some(&3));
            assert_eq!((&*map.list[0].mirrors[0], map.list[0].snap_octets), ("m0", Some(96)));
        }
    }

    #[test]
    fn directions_are_of_the_vm() {
        let mirror = json!({"select_src_port": reference(1), "output_vlan": 99});
        assert_eq!(both(&[mirror]), [(Fully, No), (No, No), (No, No)]);
        let mirror = json!({"select_dst_port": reference(2), "output_vlan": 99});
        let map = map(&[mirror]);
        assert_eq!((map.list[1].sent, map.list[1].received), (No, Fully));
        assert_eq!(map.list[1].coverage, Coverage::OneDirection);
        assert_eq!(map.interfaces.get("one_direction"), Some(&1));
    }

    #[test]
    fn what_enters_everywhere_is_all_that_anyone_receives() {
        // Ports 1, 2 and the uplink carry VLAN 10; only what enters through them is mirrored.
        let sources = json!(["set", [reference(1), reference(2), reference(4)]]);
        let mirror = json!({"select_src_port": sources, "output_port": reference(OUT)});
        assert_eq!(both(&[mirror]), [(Fully, Elsewhere), (Fully, Elsewhere), (No, Elsewhere)]);
        // Without the uplink something may come that nobody mirrors.
        let sources = json!(["set", [reference(1), reference(2)]]);
        let mirror = json!({"select_src_port": sources, "output_port": reference(OUT)});
        assert_eq!(both(&[mirror]), [(Fully, No), (Fully, No), (No, No)]);
    }

    #[test]
    fn vlans_select() {
        let mirror =
            |vlans: Value| json!({"select_all": true, "select_vlan": vlans, "output_vlan": 99});
        assert_eq!(both(&[mirror(json!(10))]), [(Fully, Fully), (Fully, Fully), (No, No)]);
        let both_vlans = json!(["set", [10, 20]]);
        assert_eq!(both(&[mirror(both_vlans)]), [(Fully, Fully); 3]);
    }

    #[test]
    fn of_a_trunk_some_vlans_are_a_part() {
        let mut database =
            switch(&[json!({"select_all": true, "select_vlan": 10, "output_vlan": 99})]);
        let trunk = json!({"Port": {uuid(1): {"modify": {"tag": ["set", []], "trunks": ["set", [10, 30]]}}}});
        database.update2(&trunk).expect("fits");
        let found = coverage(&database, &plugs(&database, None), "ovsdb:a");
        assert_eq!((found.list[0].sent, found.list[0].coverage), (Partly, Coverage::Partly));
    }

    #[test]
    fn a_filter_makes_a_part_of_it() {
        let mirror = json!({"select_all": true, "filter": "icmp", "output_vlan": 99});
        assert_eq!(both(&[mirror]), [(Partly, Partly); 3]);
    }

    #[test]
    fn several_mirrors_add_up() {
        let sent = json!({"select_src_port": reference(1), "output_vlan": 99, "snaplen": 64});
        let received = json!({"select_dst_port": reference(1), "output_port": reference(OUT)});
        let map = map(&[sent, received]);
        let found = &map.list[0];
        assert_eq!((found.coverage, found.snap_octets), (Coverage::Mirrored, None));
        assert_eq!(found.mirrors.len(), 2);
    }

    #[test]
    fn what_is_reserved_for_a_mirror_carries_nothing() {
        let mirror = json!({"select_all": true, "output_port": reference(1)});
        assert_eq!(both(&[mirror]), [(No, No), (Fully, Fully), (Fully, Fully)]);
    }
}
