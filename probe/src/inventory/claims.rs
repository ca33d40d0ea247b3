//! Who had an address, or a MAC address, at which time; and what if several claim it.
//!
//! In: connections of interfaces. Out: [`Held`]: for each name its claims, its spans, its conflicts.
//! Cost: a name is made anew when one of its claims changes.
//! Invariants: spans of a name are in order and apart. Where several VMs claim one address at once, the
//! source of the lower rank is right; then the claim that began later; then the one that became known
//! later; then the larger UUID. That is a conflict, and is shown, unless the loser was only learned, or may
//! have the address as others may: such a claim counts where nobody has the address, and where no other VM
//! may have it too. Of several claims on one MAC address only a lower rank decides; else it says nothing of
//! anybody. Who was only learned claims addresses and no MAC address: a router's is seen in many segments.

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};

use super::history::VmHistory;
use super::precedence::{SourceName, between, rank};
use super::spaces::{NOWHERE, Spaces};
use super::{Address, AddressSpace, Interval, Mac, Uuid, VmRef};
use crate::time::Timestamp;

/// An address or a MAC address in an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    space: AddressSpace,
    octets: [u8; 16],
    kind: NameKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum NameKind {
    /// Of any interface, for addresses that no router passes on.
    Mac = 1,
    /// Of an interface whose addresses are not known.
    MacAlone = 2,
    V4 = 4,
    V6 = 6,
}

impl Hash for Name {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [high, low] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&self.octets[at..at + 8]);
            u64::from_le_bytes(word)
        });
        // The kind says little that the rest does not; equal hashes are told apart all the same.
        state.write_u64(self.space.bits());
        state.write_u64(low ^ self.kind as u64);
        if high != 0 {
            state.write_u64(high);
        }
    }
}

impl Name {
    #[inline]
    pub(super) fn address(space: AddressSpace, address: Address, ip_version: u8) -> Self {
        let kind = if ip_version == 4 { NameKind::V4 } else { NameKind::V6 };
        Self { space, octets: address.0, kind }
    }

    pub(super) fn mac(space: AddressSpace, mac: Mac) -> Self {
        Self { space, octets: mac_octets(mac), kind: NameKind::Mac }
    }

    pub(super) fn mac_alone(space: AddressSpace, mac: Mac) -> Self {
        Self { space, octets: mac_octets(mac), kind: NameKind::MacAlone }
    }

    fn is_address(&self) -> bool {
        matches!(self.kind, NameKind::V4 | NameKind::V6)
    }

    pub(super) fn space(&self) -> AddressSpace {
        self.space
    }

    /// Its text: the address, or the MAC address.
    pub(super) fn text(&self) -> String {
        match self.kind {
            NameKind::V4 => Address(self.octets).text(4),
            NameKind::V6 => Address(self.octets).text(6),
            NameKind::Mac | NameKind::MacAlone => {
                let [.., a, b, c, d, e, f] = self.octets;
                Mac([a, b, c, d, e, f]).to_string()
            }
        }
    }
}

fn mac_octets(mac: Mac) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[10..].copy_from_slice(&mac.0);
    octets
}

/// A VM's claim on a name for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    valid: Interval,
    pub(super) vm: VmRef,
    uuid: Uuid,
    rank: u8,
    known: Timestamp,
    /// Gives way without a conflict.
    yields: bool,
    /// Others may have it as well: gives way to who has it.
    shares: bool,
    /// The same claim stands under another name, where its conflicts are shown.
    shadow: bool,
}

impl Claim {
    /// The less counts more: to have an address, to be one who may have it, to be seen with it.
    fn weight(&self) -> u8 {
        if self.yields { 2 } else { u8::from(self.shares) }
    }
}

/// Several VMs claim one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// When.
    pub valid: Interval,
    /// To whom it is attributed; `None`: to nobody.
    pub attributed: Option<VmRef>,
    /// All who claim it, in order of their references.
    pub claimants: Vec<VmRef>,
}

/// One name.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    claims: Vec<Claim>,
    spans: Vec<(Interval, VmRef)>,
    pub(super) conflicts: Vec<Conflict>,
}

impl Held {
    /// Who had it at a time.
    #[inline]
    pub(super) fn at(&self, at: Timestamp) -> Option<VmRef> {
        // Nearly every name has one holder for all of time that is known.
        if let [(valid, vm)] = &*self.spans {
            return valid.holds(at).then_some(*vm);
        }
        let after = self.spans.partition_point(|(valid, _)| valid.from <= at);
        let (valid, vm) = self.spans.get(after.checked_sub(1)?)?;
        valid.holds(at).then_some(*vm)
    }

    /// Everyone who had it during a time, in order.
    pub(super) fn during(
        &self,
        time: Interval,
    ) -> impl Iterator<Item = (Interval, VmRef)> + Clone + '_ {
        let first = self.spans.partition_point(|(valid, _)| valid.to <= time.from);
        let there = self.spans.get(first..).unwrap_or_default().iter();
        there.take_while(move |(valid, _)| valid.from < time.to).copied()
    }

    /// All who may have it as others may, at some time of a span.
    pub(super) fn sharers(&self, time: Interval) -> impl Iterator<Item = VmRef> + '_ {
        let there = self.claims.iter().filter(move |claim| claim.valid.and(time).is_some());
        there.filter(|claim| claim.shares).map(|claim| claim.vm)
    }

    /// All who claim it.
    pub(super) fn claimants(&self) -> impl Iterator<Item = VmRef> + '_ {
        self.claims.iter().map(|claim| claim.vm)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Puts a VM's claims in the place of those that it had.
    pub(super) fn replace(&mut self, name: &Name, vm: VmRef, claims: impl Iterator<Item = Claim>) {
        self.claims.retain(|claim| claim.vm != vm);
        self.claims.extend(claims);
        // Nearly every name has one claim, and there are many names.
        self.claims.shrink_to_fit();
        self.spans = Vec::new();
        self.conflicts = Vec::new();
        if let [claim] = &*self.claims {
            self.spans = vec![(claim.valid, claim.vm)];
            return;
        }
        for time in between(self.claims.iter().map(|claim| claim.valid)) {
            self.decide(name, time);
        }
    }

    fn decide(&mut self, name: &Name, time: Interval) {
        let there = self.claims.iter().filter(|claim| claim.valid.and(time).is_some());
        let best = |claim: &&Claim| {
            let later = (Reverse(claim.valid.from), Reverse(claim.known), Reverse(claim.uuid));
            (claim.weight(), claim.rank, later)
        };
        let mut sharers = there.clone().filter(|claim| claim.shares).map(|claim| claim.vm);
        let is_shared = sharers.next().is_some_and(|vm| sharers.any(|other| other != vm));
        // Of several who may have it none has it for that alone.
        let there = there.filter(|claim| !(is_shared && claim.shares));
        let Some(first) = there.clone().min_by_key(best).copied() else { return };
        let rivals = there.filter(|claim| claim.vm != first.vm && claim.weight() == first.weight());
        let rivals: Vec<Claim> = rivals.copied().collect();
        let equal = rivals.iter().any(|claim| claim.rank == first.rank);
        let undecided = equal && !name.is_address();
        let attributed = (!undecided).then_some(first.vm);
        if let Some(vm) = attributed {
            match self.spans.last_mut() {
                Some((valid, same)) if valid.to == time.from && *same == vm => valid.to = time.to,
                _ => self.spans.push((time, vm)),
            }
        }
        if rivals.is_empty() || first.shadow || name.kind == NameKind::MacAlone {
            return;
        }
        let mut claimants: Vec<VmRef> = rivals.iter().map(|claim| claim.vm).collect();
        claimants.push(first.vm);
        claimants.sort_unstable();
        claimants.dedup();
        match self.conflicts.last_mut() {
            Some(before)
                if before.valid.to == time.from
                    && before.attributed == attributed
                    && before.claimants == claimants =>
            {
                before.valid.to = time.to;
            }
            _ => self.conflicts.push(Conflict { valid: time, attributed, claimants }),
        }
    }
}

/// All that a VM claims, in order of names.
pub(super) fn claims_of(
    vm: VmRef,
    history: &VmHistory,
    spaces: &Spaces,
    sources: &[SourceName],
) -> Vec<(Name, Claim)> {
    let mut claims = Vec::new();
    for interface in &history.interfaces {
        let mac = interface.id.mac;
        for (valid, connection) in interface.connections.spans() {
            let source = sources.get(usize::from(connection.source.0));
            let claim = Claim {
                valid: *valid,
                vm,
                uuid: history.uuid,
                rank: rank(sources, connection.source),
                known: connection.known,
                yields: source.is_some_and(|source| source.kind.yields()),
                shares: false,
                shadow: false,
            };
            let Some(segment) = connection.segment else {
                if !history.learned {
                    claims.push((Name::mac(NOWHERE, mac), claim));
                    claims.push((Name::mac_alone(NOWHERE, mac), claim));
                }
                continue;
            };
            let mut places = spaces.during(segment, *valid);
            let joined = places.len();
            if spaces.has_joined(segment) {
                // What was under way when the workers learnt of it has the segment's own space, in
                // which nobody else can be.
                places.push((*valid, AddressSpace::of_segment(segment)));
            }
            for (place, (valid, space)) in places.into_iter().enumerate() {
                let claim = Claim { valid, shadow: place >= joined, ..claim };
                if !history.learned {
                    claims.push((Name::mac(space, mac), claim));
                    if connection.addresses.is_empty() {
                        claims.push((Name::mac_alone(space, mac), claim));
                    }
                }
                for address in &*connection.addresses {
                    let (address, version) = Address::of_ip(*address);
                    claims.push((Name::address(space, address, version), claim));
                }
                for address in &*connection.shared {
                    let (address, version) = Address::of_ip(*address);
                    let claim = Claim { shares: true, ..claim };
                    claims.push((Name::address(space, address, version), claim));
                }
            }
        }
    }
    claims.sort_by_key(|(name, claim)| (*name, claim.valid.from, claim.shadow));
    claims
}
