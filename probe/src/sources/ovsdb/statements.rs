//! What a switch says of virtual machines, as changes.
//!
//! In: the plugs as they are now. Out: a [`Batch`] with what differs from what was said before.
//! Cost: as many look-ups as there are interfaces.
//! Invariants: a switch sees its own ports only, so where one is gone it says nothing any more: it never
//! says that a VM is not there. Of several interfaces that claim one MAC address of one VM, and of several
//! hosts of one VM, the one that came last counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::plugs::Plug;
use crate::inventory::{
    Attribute, Batch, Change, Mac, Missing, Scope, Segment, SegmentKind, Subject, TEXT_BYTES_MAX,
    Until, Uuid, Value,
};
use crate::time::Timestamp;

/// What makes an interface another one, although its row stays.
type Identity = (Option<Uuid>, Option<Mac>, Option<Arc<str>>, bool);

/// What was said, and since when each interface is as it is.
#[derive(Debug, Default)]
pub(super) struct Statements {
    /// The domain of VLANs; `None`: they name no segments.
    vlan_domain: Option<u8>,
    since: BTreeMap<Uuid, (Identity, Timestamp)>,
    said: BTreeMap<(Uuid, Attribute), Value>,
    /// The last batch found no room, or nothing was ever said: everything is said anew.
    again: bool,
}

impl Statements {
    pub(super) fn new(vlan_domain: Option<u8>) -> Self {
        Self { vlan_domain, again: true, ..Self::default() }
    }

    /// Everything is said anew next time.
    pub(super) fn say_again(&mut self) {
        self.again = true;
    }

    /// What is different from `now` on; `None` where nothing is.
    pub(super) fn batch(&mut self, plugs: &[Plug], now: Timestamp) -> Option<Batch> {
        let holds = self.holding(plugs, now);
        let change = |(vm, attribute): &(Uuid, Attribute), value: Option<&Value>| Change {
            subject: Subject::Vm(*vm),
            attribute: attribute.clone(),
            value: value.cloned(),
            from: now,
            until: Until::Next,
        };
        let all = self.again;
        let mut changes = Vec::new();
        if !all {
            let gone = self.said.keys().filter(|key| !holds.contains_key(*key));
            changes.extend(gone.map(|key| change(key, None)));
        }
        let new = holds.iter().filter(|(key, value)| all || self.said.get(*key) != Some(*value));
        changes.extend(new.map(|(key, value)| change(key, Some(value))));
        self.said = holds;
        self.again = false;
        let scope =
            if all { Scope::All { at: now, missing: Missing::Unsaid } } else { Scope::Some };
        (all || !changes.is_empty()).then_some(Batch { changes, scope })
    }

    /// All that holds now.
    fn holding(&mut self, plugs: &[Plug], now: Timestamp) -> BTreeMap<(Uuid, Attribute), Value> {
        let mut since = BTreeMap::new();
        for plug in plugs {
            let identity = (plug.vm, plug.mac, plug.host.clone(), plug.active);
            let before = self.since.remove(&plug.interface);
            let same = before.filter(|(before, _)| *before == identity);
            since.insert(plug.interface, same.unwrap_or((identity, now)));
        }
        self.since = since;
        let mut named: Vec<(Uuid, &Plug)> = plugs
            .iter()
            .filter(|plug| plug.active)
            .filter_map(|plug| Some((plug.vm?, plug)))
            .collect();
        let since = |plug: &Plug| self.since.get(&plug.interface).map(|(_, since)| *since);
        named.sort_by_key(|(_, plug)| (since(plug), plug.interface));
        let mut holds = BTreeMap::new();
        let mut interfaces = BTreeMap::new();
        for (vm, plug) in named {
            let mut put = |attribute, text: &Option<Arc<str>>| {
                if let Some(text) = text.as_ref().filter(|text| text.len() <= TEXT_BYTES_MAX) {
                    holds.insert((vm, attribute), Value::Text(Arc::clone(text)));
                }
            };
            put(Attribute::Host, &plug.host);
            put(Attribute::Name, &plug.vm_name);
            if let Some(mac) = plug.mac {
                interfaces.insert((vm, mac), plug);
            }
        }
        for ((vm, mac), plug) in interfaces {
            holds.insert((vm, Attribute::Attached(mac.into())), Value::Flag(true));
            if let Some(segment) = self.segment(plug) {
                holds.insert((vm, Attribute::Segment(mac.into())), Value::Segment(segment));
            }
            let port = plug.iface_id.clone().map(|port| (Attribute::Port(mac.into()), port));
            let switch = plug.switch().map(|switch| (Attribute::Switch(mac.into()), switch));
            for (attribute, text) in port.into_iter().chain(switch) {
                if text.len() <= TEXT_BYTES_MAX {
                    holds.insert((vm, attribute), Value::Text(text));
                }
            }
        }
        holds
    }

    /// The segment that a plug's VLAN names.
    pub(super) fn segment(&self, plug: &Plug) -> Option<Segment> {
        Some(Segment::new(self.vlan_domain?, SegmentKind::Vlan, plug.vlan?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: Uuid = Uuid(7);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn plug(interface: u128) -> Plug {
        Plug {
            interface: Uuid(interface),
            port: Uuid(interface),
            bridge: Uuid(100),
            bridge_name: "br0".into(),
            port_name: "p".into(),
            name: "p".into(),
            host: Some("h1".into()),
            vm: Some(VM),
            vm_name: None,
            mac: Some(MAC),
            iface_id: Some("i".into()),
            vlan: Some(10),
            active: true,
        }
    }

    /// What a batch says, as text.
    fn said(batch: Option<Batch>) -> Vec<String> {
        let changes = batch.into_iter().flat_map(|batch| batch.changes);
        changes
            .map(|change| {
                let value = match change.value {
                    None => "-".to_owned(),
                    Some(Value::Text(text)) => text.to_string(),
                    Some(Value::Flag(flag)) => flag.to_string(),
                    Some(Value::Segment(segment)) => segment.text(&["default".to_owned()]),
                    Some(Value::Addresses(_)) => "addresses".to_owned(),
                };
                format!("{} {}={value}", change.from.0, change.attribute.name())
            })
            .collect()
    }

    fn sources() -> Statements {
        Statements::new(Some(0))
    }

    #[test]
    fn a_port_comes_changes_and_goes() {
        let mut statements = sources();
        let all = [
            "5 host=h1",
            "5 attached=true",
            "5 segment=default/vlan/10",
            "5 port=i",
            "5 switch=h1/br0",
        ];
        assert_eq!(said(statements.batch(&[plug(1)], Timestamp(5))), all);
        assert_eq!(statements.batch(&[plug(1)], Timestamp(6)), None);
        let other = Plug { vlan: Some(20), ..plug(1) };
        assert_eq!(said(statements.batch(&[other], Timestamp(7))), ["7 segment=default/vlan/20"]);
        let gone = statements.batch(&[], Timestamp(8)).expect("something");
        assert_eq!(gone.scope, Scope::Some);
        assert_eq!(
            said(Some(gone)),
            ["8 host=-", "8 attached=-", "8 segment=-", "8 port=-", "8 switch=-"]
        );
    }

    #[test]
    fn the_first_word_and_the_one_after_a_refusal_are_everything() {
        let mut statements = sources();
        let all = Scope::All { at: Timestamp(5), missing: Missing::Unsaid };
        assert_eq!(statements.batch(&[], Timestamp(5)).map(|batch| batch.scope), Some(all));
        assert_eq!(statements.batch(&[], Timestamp(6)), None);
        let _refused = statements.batch(&[plug(1)], Timestamp(6));
        statements.say_again();
        let again = statements.batch(&[plug(1)], Timestamp(7)).expect("everything");
        assert_eq!(again.scope, Scope::All { at: Timestamp(7), missing: Missing::Unsaid });
        assert_eq!(said(Some(again)).len(), 5);
    }

    #[test]
    fn of_two_interfaces_the_later_one_counts() {
        let mut statements = sources();
        let _ = statements.batch(&[plug(9)], Timestamp(5));
        let target = Plug { host: Some("h2".into()), vlan: None, ..plug(1) };
        let both = [plug(9), target.clone()];
        let moved = ["6 segment=-", "6 host=h2", "6 switch=h2/br0"];
        assert_eq!(said(statements.batch(&both, Timestamp(6))), moved);
        assert_eq!(said(statements.batch(&[target], Timestamp(7))), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_in_use_says_nothing() {
        let mut statements = sources();
        let idle = Plug { active: false, ..plug(1) };
        assert_eq!(said(statements.batch(std::slice::from_ref(&idle), Timestamp(5))).len(), 0);
        assert_eq!(said(statements.batch(&[plug(1)], Timestamp(6))).len(), 5);
        assert_eq!(said(statements.batch(&[idle], Timestamp(7))).len(), 5);
    }

    #[test]
    fn a_switch_is_named_by_host_and_bridge() {
        let switch = |host: Option<&str>, bridge: &str| {
            let plug = Plug { host: host.map(Into::into), bridge_name: bridge.into(), ..plug(1) };
            let said = said(sources().batch(&[plug], Timestamp(5)));
            said.iter().find_map(|text| text.strip_prefix("5 switch=").map(str::to_owned))
        };
        assert_eq!(switch(Some("h1"), "br0").as_deref(), Some("h1/br0"));
        assert_eq!(switch(None, "br0").as_deref(), Some("br0"));
        assert_eq!(switch(Some("h1"), ""), None);
        assert_eq!(switch(Some(&"h".repeat(TEXT_BYTES_MAX)), "br0"), None, "too long");
    }

    #[test]
    fn without_a_vm_nobody_is_named() {
        let mut statements = sources();
        let plugs = [Plug { vm: None, ..plug(1) }, Plug { mac: None, ..plug(2) }];
        assert_eq!(said(statements.batch(&plugs, Timestamp(5))), ["5 host=h1"]);
    }

    #[test]
    fn vlans_name_segments_where_they_should() {
        let mut statements = Statements::new(None);
        let said = said(statements.batch(&[plug(1)], Timestamp(5)));
        assert!(!said.iter().any(|text| text.contains("segment")), "{said:?}");
    }
}
