//! Passive learning: who has which address, from ARP, neighbour discovery and DHCP in the packets.
//!
//! In: [`Evidence`] that workers read. Out: changes of the source of the lowest precedence; of who is
//! over, and of what was not learned and why.
//! Cost: with NICs a thread that looks every [`POLL_MS`]; with files the aggregation thread does it, so
//! that a replay gives the same each time.
//! Invariants: nobody waits for it but the worker that reads files. Nothing is said of a VM: what is
//! learned stands under a key of its own, and gives way to all other sources.
//! Source: docs/sources/learned.md.

mod evidence;
mod in_step;
mod learner;

pub use evidence::{
    Evidence, EvidenceReceiver, EvidenceSender, HOST_NAME_OCTETS_MAX, HostName, Means,
    RING_EVIDENCE, Unlearned, evidence_rings,
};
pub use in_step::LearningInStep;
pub use learner::{Learner, REPEAT_NS};

use super::handle::{Full, InventorySource, SourceHandle};
use crate::config::LearnedPlan;
use crate::inventory::Batch;
use crate::time::{Timestamp, wall_clock};

/// How often the rings are looked at.
const POLL_MS: u64 = 50;

/// The source, on a thread of its own.
pub struct Learned {
    learner: Learner,
    receiver: EvidenceReceiver,
    /// What found no room; nothing more is taken before it has gone.
    unsent: Option<Batch>,
    is_live: bool,
}

impl Learned {
    /// Of what workers send.
    pub fn new(plan: &LearnedPlan, receiver: EvidenceReceiver) -> Self {
        Self { learner: Learner::new(plan), receiver, unsent: None, is_live: false }
    }

    /// Takes what came, and sends what is new.
    fn turn(&mut self, handle: &SourceHandle, now: Timestamp) {
        if self.unsent.is_none() {
            self.learn(handle, now);
            let changes = self.learner.take_changes();
            self.unsent = (!changes.is_empty()).then(|| changes.into());
        }
        if let Some(batch) = self.unsent.take()
            && let Err(Full(batch)) = handle.send(batch, now)
        {
            self.unsent = Some(batch);
        }
        tell(handle, &mut self.learner, &mut self.receiver);
    }

    fn learn(&mut self, handle: &SourceHandle, now: Timestamp) {
        let mut heard = false;
        // No more than there was: who sends faster than this takes waits in the rings.
        for _ in 0..RING_EVIDENCE {
            let Some(evidence) = self.receiver.take() else { break };
            self.learner.take(&evidence);
            heard = true;
        }
        self.learner.advance(now);
        if heard && self.is_live {
            handle.heard(now);
        } else if heard {
            handle.live(now);
            self.is_live = true;
        }
    }
}

/// Says what was not learned.
fn tell(handle: &SourceHandle, learner: &mut Learner, receiver: &mut EvidenceReceiver) {
    for (why, count) in learner.unlearned().into_iter().chain(receiver.unlearned()) {
        handle.left_out(why.name(), count);
    }
}

impl InventorySource for Learned {
    fn run(mut self: Box<Self>, handle: SourceHandle) {
        while handle.wait_ms(POLL_MS) {
            self.turn(&handle, wall_clock());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Plan;
    use crate::inventory::{
        Address, AddressSpace, Mac, Segment, SourceKind, SourceState, Statement, Uuid, VmHistory,
    };
    use crate::sources::{Keeper, SourceSpec};
    use crate::time::ms;

    fn keeper(kinds: &[SourceKind]) -> (Keeper, Vec<SourceHandle>) {
        let spec = |(rank, kind): (u8, &SourceKind)| SourceSpec {
            kind: *kind,
            name: kind.name().to_owned(),
            rank,
            stale_after_ms: Some(5_000),
        };
        let specs = (0..).zip(kinds).map(spec).collect();
        Keeper::new(&Arc::<Plan>::default(), specs, Arc::default(), false, Timestamp(1))
    }

    fn evidence(mac: u8, address: u8, at: Timestamp) -> Evidence {
        Evidence {
            at,
            segment: Segment::NONE,
            mac: Mac([2, 0, 0, 0, 0, mac]),
            address: Address::v4([10, 0, 0, address]),
            ip_version: 4,
            means: Means::Dhcp,
            lease_s: 3_600,
            name: HostName::new(format!("host-{mac}").as_bytes()).expect("a name"),
            name_refused: false,
        }
    }

    /// Who has an address: its label, and its name.
    fn who(keeper: &Keeper, address: u8, mac: Option<Mac>, at: Timestamp) -> Option<String> {
        let inventory = keeper.view().inventory.load();
        let address = Address::v4([10, 0, 0, address]);
        let vm = inventory.resolve(AddressSpace::default(), address, 4, mac, at)?;
        inventory.vm(vm).map(VmHistory::label)
    }

    fn settle(keeper: &mut Keeper) {
        while keeper.turn(0) {}
    }

    #[test]
    fn what_is_learned_fills_gaps_and_is_no_vm() {
        let now = wall_clock();
        let kinds = [SourceKind::File, SourceKind::Libvirt, SourceKind::Learned];
        let (mut keeper, handles) = keeper(&kinds);
        let (senders, receiver) = evidence_rings(1);
        let mut source = Learned::new(&Plan::default().inventory.learned, receiver);
        for number in 1..=3 {
            assert!(senders[0].push(evidence(number, number, now - 5)));
        }
        senders[0].unlearned(Unlearned::Cut);
        source.turn(&handles[2], now);
        settle(&mut keeper);
        let status = keeper.view().status.load_full();
        assert_eq!((status.vms, status.learned, status.conflicts), (0, 3, 0));
        assert_eq!(status.sources[2].state, SourceState::Live);
        assert_eq!(status.sources[2].rejected.get("packet_cut"), Some(&1));
        assert_eq!(who(&keeper, 1, None, now).as_deref(), Some("learned:02:00:00:00:00:01"));
        assert_eq!(who(&keeper, 1, None, now - 6), None, "not before its packet");
        assert_eq!(who(&keeper, 1, None, now + ms(3_600_000)), None, "not after its lease");
        // A file names one of the addresses, libvirt the MAC address of another.
        let (one, other) = (Mac([2, 0, 0, 0, 0, 9]), Mac([2, 0, 0, 0, 0, 2]));
        let named = Statement::new(Uuid(7), now - 9)
            .segment(one, Segment::NONE)
            .addresses(one, ["10.0.0.1".parse().expect("an address")]);
        handles[0].send(named, now).expect("room");
        handles[1].send(Statement::new(Uuid(8), now - 9).attached(other, true), now).expect("room");
        settle(&mut keeper);
        let status = keeper.view().status.load_full();
        assert_eq!((status.vms, status.learned, status.conflicts), (2, 3, 0));
        let found = |address| who(&keeper, address, None, now).unwrap_or_default();
        assert!(found(1).ends_with("07") && found(2).ends_with("08"), "{} {}", found(1), found(2));
        assert_eq!(found(3), "learned:02:00:00:00:00:03");
        // The MAC address that the packet shows is a named VM's: that one speaks for the address.
        assert!(who(&keeper, 3, Some(other), now).expect("known").ends_with("08"));
        // Neither segments nor stations are known by what was learned.
        let inventory = keeper.view().inventory.load();
        assert_eq!(inventory.stations(Some(now)).len(), 1);
        let learned: Vec<_> =
            inventory.entries().filter(|(_, entry)| entry.history.learned).collect();
        assert_eq!(learned.len(), 3);
        assert!(learned.iter().all(|(_, entry)| entry.history.shown_uuid().is_none()));
        let name = learned[0].1.history.names.at(now).map(AsRef::as_ref);
        assert_eq!(name, Some("host-1"));
    }

    #[test]
    fn two_that_claim_one_address_are_a_conflict_and_the_later_claim_counts() {
        let now = wall_clock();
        let (mut keeper, handles) = keeper(&[SourceKind::Learned]);
        let (senders, receiver) = evidence_rings(1);
        let mut source = Learned::new(&Plan::default().inventory.learned, receiver);
        let arp = |mac, at| Evidence { means: Means::Arp, ..evidence(mac, 1, at) };
        for (mac, ago_s, right) in [(1, 200, 1), (2, 100, 2), (1, 50, 1)] {
            let at = now - ms(ago_s * 1_000);
            assert!(senders[0].push(arp(mac, at)));
            source.turn(&handles[0], now);
            settle(&mut keeper);
            let label = format!("learned:02:00:00:00:00:0{right}");
            assert_eq!(who(&keeper, 1, None, at), Some(label), "after {mac}");
        }
        let status = keeper.view().status.load_full();
        assert!(status.conflicts > 0);
        let claimants = &status.conflict_list[0].claimants;
        assert!(claimants.iter().all(|name| name.starts_with("learned:")), "{claimants:?}");
        // A server that gives the address to another ends all doubt from then on.
        let at = now - ms(10_000);
        assert!(senders[0].push(evidence(3, 1, at)));
        source.turn(&handles[0], now);
        settle(&mut keeper);
        assert_eq!(who(&keeper, 1, None, at).as_deref(), Some("learned:02:00:00:00:00:03"));
    }

    #[test]
    fn silence_makes_it_stale_and_a_full_queue_is_tried_again() {
        let now = wall_clock();
        let (mut keeper, handles) = keeper(&[SourceKind::Learned]);
        let (senders, receiver) = evidence_rings(1);
        let mut source = Learned::new(&Plan::default().inventory.learned, receiver);
        source.turn(&handles[0], now - ms(60_000));
        keeper.turn(0);
        let state = |keeper: &Keeper| keeper.view().status.load().sources[0].state;
        assert_eq!(state(&keeper), SourceState::Connecting);
        assert!(senders[0].push(evidence(1, 1, now - ms(50_000))));
        let full = Batch::from(Statement::new(Uuid(1), now).host("h"));
        let full: Vec<_> = std::iter::repeat_n(full.changes[0].clone(), 1 << 20).collect();
        handles[0].send(full, now).expect("room");
        source.turn(&handles[0], now - ms(50_000));
        assert!(source.unsent.is_some());
        settle(&mut keeper);
        source.turn(&handles[0], now - ms(50_000));
        settle(&mut keeper);
        assert!(source.unsent.is_none());
        assert!(who(&keeper, 1, None, now).is_some());
        assert_eq!(state(&keeper), SourceState::Stale);
    }
}
