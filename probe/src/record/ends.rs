//! Who stands at both ends.
//!
//! In: addresses, MAC addresses, a time. Out: [`Endpoints`] as the inventory knows them.
//! Cost: a look-up of each end, but where an end is that of the record before: conversations come in
//! order of their initiators.
//! Invariants: a VM is the one that had the address in that time.

use std::sync::Arc;

use super::RecordMaker;
use crate::decode::{Address, Mac};
use crate::inventory::{AddressSpace, Interval, NetworkKind, TrafficClass, VmHistory, VmRef};

/// Both endpoints.
pub(super) struct Endpoints {
    /// Source and destination.
    pub(super) vms: [VmTexts; 2],
    /// What their addresses say, in a word.
    pub(super) networks: [Option<&'static str>; 2],
    pub(super) class: TrafficClass,
}

/// A VM as records name it; all `None` for none. An endpoint that was only learned has a name at most.
#[derive(Clone, Default)]
pub(super) struct VmTexts {
    pub(super) uuid: Option<Arc<str>>,
    pub(super) name: Option<Arc<str>>,
    pub(super) tenant: Option<Arc<str>>,
}

/// What is asked of an end.
#[derive(Clone, Copy, PartialEq)]
struct End {
    space: AddressSpace,
    address: Address,
    mac: Mac,
    ip_version: u8,
    time: Interval,
}

/// The ends of the record before; of one snapshot of the inventory.
#[derive(Default)]
pub(super) struct LastEnds([Option<(End, VmTexts)>; 2]);

impl RecordMaker {
    pub(super) fn endpoints(
        &mut self,
        space: AddressSpace,
        ip_version: u8,
        source: (Address, Mac),
        destination: (Address, Mac),
        time: Interval,
    ) -> Endpoints {
        let end = |(address, mac)| End { space, address, mac, ip_version, time };
        let vms = [self.end(0, end(source)), self.end(1, end(destination))];
        let rules = self.inventory.rules();
        let networks = [
            rules.of_source(source.0.to_ip(ip_version)),
            rules.of_destination(destination.0.to_ip(ip_version)),
        ];
        let [from, to] = [0, 1].map(|end: usize| {
            let vm = &vms[end];
            (vm.uuid.is_some(), vm.tenant.as_deref(), networks[end])
        });
        let class = self.inventory.class_of(from, to);
        let networks = networks.map(|network| network.map(NetworkKind::name));
        Endpoints { vms, networks, class }
    }

    fn end(&mut self, place: usize, end: End) -> VmTexts {
        if let Some((last, vm)) = &self.last_ends.0[place]
            && *last == end
        {
            return vm.clone();
        }
        let mac = (end.mac != Mac::default()).then_some(end.mac);
        let End { space, address, ip_version, time, .. } = end;
        let found = self.inventory.resolve_within(space, address, ip_version, mac, time);
        let vm = self.vm(found, time);
        self.last_ends.0[place] = Some((end, vm.clone()));
        vm
    }

    pub(super) fn vm(&self, vm: Option<VmRef>, time: Interval) -> VmTexts {
        let vm = vm.and_then(|vm| self.inventory.vm(vm));
        VmTexts {
            uuid: vm.and_then(VmHistory::shown_uuid).cloned(),
            name: vm.and_then(|vm| vm.name_within(time)).cloned(),
            tenant: vm.and_then(|vm| vm.tenant_within(time)).cloned(),
        }
    }
}
