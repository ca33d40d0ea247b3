//! A cloud for tests: messages go through envelope and model into a store, which is asked.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::envelope::LeftOut;
use super::listing::{Listing, Networking};
use super::model::{Mapping, Model};
use crate::inventory::{
    Address, ClassRules, Mac, Segment, SourceId, SourceKind, SourceName, Spaces, Store,
    StoreLimits, VmHistory,
};
use crate::time::Timestamp;

/// 2026-03-01T10:00:00Z.
const T0: u64 = 1_772_359_200;

/// That many seconds after the start.
pub(super) fn at(second: u64) -> Timestamp {
    Timestamp::from_parts(T0 + second, 0)
}

/// What is said of one cloud, and what is known of it.
pub(super) struct Rig {
    pub(super) model: Model,
    pub(super) store: Store,
    known: Timestamp,
    /// Messages that said nothing, by reason.
    pub(super) left_out: BTreeMap<&'static str, u64>,
    count: u64,
}

impl Rig {
    /// With Nova and Neutron, and nothing in them.
    pub(super) fn new() -> Self {
        let source = SourceName { kind: SourceKind::Openstack, name: "c".into(), rank: 0 };
        let limits = StoreLimits::default();
        let store = Store::new(limits, Spaces::default(), ClassRules::default(), vec![source]);
        let model = Model::new(Mapping::default());
        Self { model, store, known: at(100_000), left_out: BTreeMap::new(), count: 0 }
    }

    /// A notification `second` after the start by a service on `host`.
    pub(super) fn notify(&mut self, event: &str, second: u64, host: &str, payload: &Json) {
        self.count += 1;
        let time =
            chrono::DateTime::from_timestamp(i64::try_from(T0 + second).expect("this century"), 0)
                .expect("a time")
                .to_rfc3339();
        let said = json!({
            "event_type": event, "payload": payload, "priority": "INFO",
            "publisher_id": format!("nova-compute:{host}"),
            "message_id": format!("{}", self.count),
            "timestamp": time,
        });
        let body = json!({"oslo.version": "2.0", "oslo.message": said.to_string()}).to_string();
        self.known = self.known + 1;
        match self.model.message(body.as_bytes(), self.known) {
            Ok(changes) => {
                self.store.apply(SourceId(0), self.known, changes.into());
            }
            Err(why) => *self.left_out.entry(LeftOut::name(why)).or_default() += 1,
        }
    }

    /// One of Neutron.
    pub(super) fn neutron(&mut self, event: &str, second: u64, payload: &Json) {
        self.notify(event, second, "net1", payload);
    }

    /// What Neutron lists, `second` after the start.
    pub(super) fn list(&mut self, networking: Networking, second: u64) {
        let listing = Listing {
            began: at(second),
            networking: Some(networking),
            servers: Some(Vec::new()),
            hosts_unseen: 0,
            projects: Vec::new(),
        };
        let (batch, left_out) = self.model.listed(&listing);
        assert!(left_out.is_empty(), "{left_out:?}");
        self.known = self.known + 1;
        self.store.apply(SourceId(0), self.known, batch);
    }

    /// The UUID of who had an address in a segment, by the MAC address that a packet showed.
    pub(super) fn who(
        &self,
        segment: &str,
        address: &str,
        mac: &str,
        second: u64,
    ) -> Option<String> {
        let inventory = self.store.inventory();
        let segment = Segment::parse(segment, &["default".to_owned()]).expect("a segment");
        let (address, version) = Address::of_ip(address.parse().expect("an address"));
        let mac: Mac = mac.parse().expect("a MAC address");
        let space = inventory.spaces().at(segment, at(second));
        let vm = inventory.resolve(space, address, version, Some(mac), at(second))?;
        inventory.vm(vm).map(|vm| vm.uuid_text.to_string())
    }

    /// A VM that is known.
    pub(super) fn vm(&self, uuid: &str) -> &VmHistory {
        let mut entries = self.store.inventory().entries().map(|(_, entry)| &entry.history);
        entries.find(|history| history.uuid_text.as_ref() == uuid).expect("known")
    }

    /// Nothing is claimed by two.
    pub(super) fn is_at_peace(&self) -> bool {
        self.store.inventory().conflict_count() == 0
    }
}
