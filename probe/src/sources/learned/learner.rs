//! Evidence to changes of the inventory.
//!
//! In: [`Evidence`] in the order of its time. Out: [`Change`]s of endpoints, each a segment and a MAC
//! address with its addresses; what was not learned, by reason.
//! Cost: some look-ups for each evidence; a change only when something is new, comes to its end, or half
//! of its time is over.
//! Invariants: the same evidence in the same order gives the same changes. All that is kept is bounded by
//! the plan. What holds before an instant depends on evidence up to that instant alone: later evidence
//! adds to what holds later.
//! Source: RFC 826, 5227 (ARP); RFC 4861 section 7.2, RFC 4862 section 5.4 (neighbour discovery); RFC
//! 2131 section 4.4 (leases).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::evidence::{Evidence, Means, Unlearned, UnlearnedCounts};
use crate::config::LearnedPlan;
use crate::hash::KeyedMap;
use crate::inventory::{
    Address, Attribute, Change, InterfaceId, Mac, Segment, Statement, Until, Uuid,
};
use crate::time::{Timestamp, ms};

/// The same evidence within this time says nothing new; workers leave it out likewise.
pub const REPEAT_NS: u64 = ms(30_000);
/// A longer lease counts as one of this: seven days. Who keeps its lease is seen again before.
const LEASE_S_MAX: u64 = 604_800;
/// How long nobody may answer duplicate address detection (RFC 4862 section 5.1, RetransTimer).
const TENTATIVE_NS: u64 = ms(1_000);
/// Addresses that wait so at most.
const TENTATIVE_MAX: usize = 4_096;
/// Interfaces of the inventory that stand for the addresses of one endpoint, one after the other; twice
/// as many as an endpoint may have addresses at once, so that one is always free.
const NUMBERS: u8 = 64;

type Station = (Segment, Mac);
type Name = (Segment, u8, Address);

/// An address that an endpoint has.
#[derive(Clone, Copy, Debug)]
struct Binding {
    name: Name,
    /// The interface that stands for it.
    number: u8,
    /// Until when it was said to have it.
    to: Timestamp,
    /// When evidence was last taken.
    taken: Timestamp,
    /// The last lease: when it was given, and for how long.
    lease: Option<(Timestamp, u32)>,
}

#[derive(Debug, Default)]
struct Endpoint {
    bindings: Vec<Binding>,
    last_number: u8,
    host_name: Option<(Arc<str>, Timestamp)>,
}

/// What is known of who has which address.
#[derive(Debug)]
pub struct Learner {
    plan: LearnedPlan,
    endpoints: KeyedMap<Station, Endpoint>,
    /// Who showed an address last, and since when its claim counts.
    holders: KeyedMap<Name, (Mac, Timestamp)>,
    addresses: usize,
    by_segment: KeyedMap<Segment, usize>,
    /// When addresses come to their end.
    due: BTreeSet<(Timestamp, Name, Mac)>,
    /// Who tries an address out, until when; nobody any more where two did.
    tentative: KeyedMap<Name, (Option<Mac>, Timestamp)>,
    tentative_due: BTreeSet<(Timestamp, Name)>,
    changes: Vec<Change>,
    unlearned: UnlearnedCounts,
    told: [u64; Unlearned::ALL.len()],
}

impl Learner {
    /// With nothing known.
    pub fn new(plan: &LearnedPlan) -> Self {
        Self {
            plan: plan.clone(),
            endpoints: KeyedMap::default(),
            holders: KeyedMap::default(),
            addresses: 0,
            by_segment: KeyedMap::default(),
            due: BTreeSet::new(),
            tentative: KeyedMap::default(),
            tentative_due: BTreeSet::new(),
            changes: Vec::new(),
            unlearned: UnlearnedCounts::default(),
            told: [0; Unlearned::ALL.len()],
        }
    }

    /// Addresses that are somebody's.
    pub fn addresses(&self) -> usize {
        self.addresses
    }

    /// The changes since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// What was not learned since the last call.
    pub fn unlearned(&mut self) -> Vec<(Unlearned, u64)> {
        let mut more = Vec::new();
        for (why, told) in Unlearned::ALL.iter().zip(&mut self.told) {
            let now = self.unlearned.of(*why);
            if now > *told {
                more.push((*why, now - *told));
                *told = now;
            }
        }
        more
    }

    /// Time goes on: what has come to its end goes, what nobody contradicted holds.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((at, name)) =
            self.tentative_due.first().copied().filter(|(at, _)| *at <= now)
        {
            self.tentative_due.remove(&(at, name));
            if let Some((Some(mac), _)) = self.tentative.remove(&name) {
                self.hold(&Evidence::of_neighbour(name, mac, at));
            }
        }
        while let Some((to, name, mac)) = self.due.first().copied().filter(|(to, ..)| *to <= now) {
            self.forget((name, mac), to);
        }
    }

    /// Takes what a packet shows.
    pub fn take(&mut self, evidence: &Evidence) {
        self.advance(evidence.at);
        if evidence.name_refused {
            self.unlearned.add(Unlearned::NameRefused);
        }
        let ip = evidence.address.to_ip(evidence.ip_version);
        if !self.is_wanted(ip) {
            self.unlearned.add(Unlearned::OtherNetwork);
            return;
        }
        if evidence.means == Means::Tentative {
            self.try_out(evidence);
        } else {
            self.answer(evidence);
            self.hold(evidence);
        }
    }

    fn is_wanted(&self, ip: IpAddr) -> bool {
        let networks = &self.plan.networks;
        networks.is_empty() || networks.iter().any(|network| network.contains(&ip))
    }

    /// Duplicates of an address are looked for: it holds if nobody answers.
    fn try_out(&mut self, evidence: &Evidence) {
        let name = evidence.name();
        match self.holders.get(&name) {
            Some((holder, _)) if *holder == evidence.mac => return,
            Some(_) => return self.unlearned.add(Unlearned::TentativeRefused),
            None => {}
        }
        if let Some((mac, _)) = self.tentative.get_mut(&name) {
            if mac.is_some_and(|mac| mac != evidence.mac) {
                // Two try it at once; neither may keep it (RFC 4862 section 5.4.3), though it be seen
                // again at another tap.
                *mac = None;
                self.unlearned.add(Unlearned::TentativeRefused);
            }
            return;
        }
        if self.tentative.len() >= TENTATIVE_MAX {
            return self.unlearned.add(Unlearned::TentativeFull);
        }
        let due = evidence.at + TENTATIVE_NS;
        self.tentative.insert(name, (Some(evidence.mac), due));
        self.tentative_due.insert((due, name));
    }

    /// Somebody shows an address that may be waited for.
    fn answer(&mut self, evidence: &Evidence) {
        let name = evidence.name();
        if let Some((mac, due)) = self.tentative.remove(&name) {
            self.tentative_due.remove(&(due, name));
            if mac.is_some_and(|mac| mac != evidence.mac) {
                self.unlearned.add(Unlearned::TentativeRefused);
            }
        }
    }

    /// Somebody has an address.
    fn hold(&mut self, evidence: &Evidence) {
        let (name, station) = (evidence.name(), evidence.station());
        let known = self
            .endpoints
            .get(&station)
            .and_then(|endpoint| endpoint.bindings.iter().position(|binding| binding.name == name));
        let is_news = match known {
            Some(place) => self.hold_on(evidence, place),
            None => self.has_room(&station) && self.begin(evidence),
        };
        if is_news {
            self.name(evidence);
        }
    }

    fn has_room(&self, station: &Station) -> bool {
        let of_segment = self.by_segment.get(&station.0).copied().unwrap_or(0);
        let of_mac = self.endpoints.get(station).map_or(0, |endpoint| endpoint.bindings.len());
        let full = if self.addresses >= self.plan.addresses_max as usize {
            Unlearned::AddressesFull
        } else if of_segment >= self.plan.addresses_per_segment_max as usize {
            Unlearned::SegmentFull
        } else if of_mac >= self.plan.addresses_per_mac_max as usize {
            Unlearned::MacFull
        } else {
            return true;
        };
        self.unlearned.add(full);
        false
    }

    /// An address that this endpoint did not have.
    fn begin(&mut self, evidence: &Evidence) -> bool {
        let (name, station) = (evidence.name(), evidence.station());
        let before = self.other_holder(evidence);
        let from = after(before, evidence.at);
        self.holders.insert(name, (evidence.mac, from));
        if let Some((mac, _)) = before
            && evidence.means == Means::Dhcp
        {
            // A server gives it to one at a time.
            self.forget((name, mac), evidence.at);
        }
        let is_new = !self.endpoints.contains_key(&station);
        let endpoint = self.endpoints.entry(station).or_default();
        let number = endpoint.free_number();
        let to = self.plan.end(evidence);
        endpoint.bindings.push(Binding {
            name,
            number,
            to,
            taken: evidence.at,
            lease: evidence.lease(),
        });
        self.addresses += 1;
        *self.by_segment.entry(station.0).or_default() += 1;
        self.due.insert((to, name, evidence.mac));
        if is_new {
            // It may have been there before, and been over since.
            let statement = Statement::new(key(&station), evidence.at).until(FOR_EVER);
            self.changes.extend(statement.says(Attribute::Exists, None).changes());
        }
        self.say(&station, from, number, to, name);
        true
    }

    /// Another one that showed the address last.
    fn other_holder(&self, evidence: &Evidence) -> Option<(Mac, Timestamp)> {
        let holder = self.holders.get(&evidence.name()).copied();
        holder.filter(|(mac, _)| *mac != evidence.mac)
    }

    /// An address that this endpoint has already; `false` where it says what was said just before.
    fn hold_on(&mut self, evidence: &Evidence, place: usize) -> bool {
        let (name, station) = (evidence.name(), evidence.station());
        let before = self.other_holder(evidence);
        let Some(endpoint) = self.endpoints.get_mut(&station) else { return false };
        let Some(binding) = endpoint.bindings.get_mut(place) else { return false };
        if binding.repeats(evidence) {
            return false;
        }
        let (other, from) = (before.is_some(), after(before, evidence.at));
        self.holders.insert(name, (evidence.mac, from));
        let wanted = self.plan.end(evidence).max(binding.to);
        let half_ns = ms(1_000 * u64::from(self.plan.silence_s)) / 2;
        let is_due = binding.to.since_ns(evidence.at) < half_ns || evidence.means == Means::Dhcp;
        let to = if is_due || other { wanted } else { binding.to };
        let before = *binding;
        *binding =
            Binding { to, taken: evidence.at, lease: evidence.lease().or(before.lease), ..before };
        let mut number = before.number;
        self.due.remove(&(before.to, name, evidence.mac));
        self.due.insert((to, name, evidence.mac));
        if other {
            // Another one showed it in between. The claim that begins later counts, so this one begins
            // anew, as another interface: the same one would only go on.
            number = endpoint.free_number();
            endpoint.bindings[place].number = number;
            self.unsay(&station, from, before.number);
        }
        if other || to > before.to {
            self.say(&station, from, number, to, name);
        }
        true
    }

    /// An endpoint has an address no longer.
    fn forget(&mut self, (name, mac): (Name, Mac), at: Timestamp) {
        let station = (name.0, mac);
        let Some(endpoint) = self.endpoints.get_mut(&station) else { return };
        let Some(place) = endpoint.bindings.iter().position(|binding| binding.name == name) else {
            return;
        };
        let binding = endpoint.bindings.swap_remove(place);
        let is_last = endpoint.bindings.is_empty();
        self.due.remove(&(binding.to, name, mac));
        self.addresses -= 1;
        if let Some(count) = self.by_segment.get_mut(&name.0) {
            *count -= 1;
            if *count == 0 {
                self.by_segment.remove(&name.0);
            }
        }
        if self.holders.get(&name).is_some_and(|(holder, _)| *holder == mac) {
            self.holders.remove(&name);
        }
        if at < binding.to {
            self.unsay(&station, at, binding.number);
        }
        if is_last {
            self.endpoints.remove(&station);
            let statement = Statement::new(key(&station), at).until(FOR_EVER);
            self.changes.extend(statement.exists(false).changes());
        }
    }

    /// What a server calls an endpoint holds as long as its lease.
    fn name(&mut self, evidence: &Evidence) {
        let Some(text) = evidence.name.text() else { return };
        let (station, to) = (evidence.station(), self.plan.end(evidence));
        let Some(endpoint) = self.endpoints.get_mut(&station) else { return };
        let known = endpoint.host_name.as_ref().filter(|(known, _)| **known == *text);
        if known.is_some_and(|(_, until)| *until >= to) {
            return;
        }
        let name = known.map_or_else(|| Arc::from(text), |(name, _)| Arc::clone(name));
        endpoint.host_name = Some((Arc::clone(&name), to));
        let statement = Statement::new(key(&station), evidence.at)
            .until(FOR_EVER)
            .says(Attribute::Name, None)
            .until(Until::At(to))
            .name(name);
        self.changes.extend(statement.changes());
    }

    fn say(&mut self, station: &Station, from: Timestamp, number: u8, to: Timestamp, name: Name) {
        let interface = InterfaceId { mac: station.1, number: number.into() };
        let statement = Statement::new(key(station), from)
            .until(Until::At(to))
            .segment(interface, station.0)
            .addresses(interface, [name.2.to_ip(name.1)]);
        self.changes.extend(statement.changes());
    }

    fn unsay(&mut self, station: &Station, from: Timestamp, number: u8) {
        let interface = InterfaceId { mac: station.1, number: number.into() };
        let statement = Statement::new(key(station), from)
            .until(FOR_EVER)
            .says(Attribute::Segment(interface), None)
            .says(Attribute::Addresses(interface), None);
        self.changes.extend(statement.changes());
    }
}

/// When a claim begins: after that of who showed the address last, though their packets have one stamp.
/// Of claims that begin at once the one that became known later would count, and each correction of
/// one becomes known anew.
fn after(holder: Option<(Mac, Timestamp)>, at: Timestamp) -> Timestamp {
    holder.map_or(at, |(_, since)| at.max(since + 1))
}

const FOR_EVER: Until = Until::At(Timestamp(u64::MAX));

fn key((segment, mac): &Station) -> Uuid {
    Uuid::of_learned(*segment, *mac)
}

impl Endpoint {
    /// A number that no address has, and none had just before.
    fn free_number(&mut self) -> u8 {
        let used = |number: u8| self.bindings.iter().any(|binding| binding.number == number);
        let after = (1..=NUMBERS).map(|step| (self.last_number + step) % NUMBERS);
        let free = after.clone().find(|number| !used(*number)).unwrap_or(0);
        self.last_number = free;
        free
    }
}

impl Binding {
    /// Whether evidence says what was said just before: see [`REPEAT_NS`].
    fn repeats(&self, evidence: &Evidence) -> bool {
        match (evidence.lease(), self.lease) {
            (None, _) => evidence.at.since_ns(self.taken) < REPEAT_NS,
            (Some((at, lease_s)), Some((given, before_s))) => {
                lease_s == before_s && at.since_ns(given) < REPEAT_NS
            }
            (Some(_), None) => false,
        }
    }
}

impl LearnedPlan {
    /// Until when an address is the endpoint's by this evidence.
    fn end(&self, evidence: &Evidence) -> Timestamp {
        let seconds = match evidence.means {
            Means::Dhcp if evidence.lease_s > 0 => u64::from(evidence.lease_s).min(LEASE_S_MAX),
            _ => self.silence_s.into(),
        };
        evidence.at + ms(1_000 * seconds)
    }
}

impl Evidence {
    fn of_neighbour(name: Name, mac: Mac, at: Timestamp) -> Self {
        let (segment, ip_version, address) = name;
        let means = Means::Neighbour;
        let (lease_s, host_name) = (0, super::evidence::HostName::default());
        Self {
            at,
            segment,
            mac,
            address,
            ip_version,
            means,
            lease_s,
            name: host_name,
            name_refused: false,
        }
    }

    fn name(&self) -> Name {
        (self.segment, self.ip_version, self.address)
    }

    fn station(&self) -> Station {
        (self.segment, self.mac)
    }

    fn lease(&self) -> Option<(Timestamp, u32)> {
        (self.means == Means::Dhcp).then_some((self.at, self.lease_s))
    }
}

#[cfg(test)]
#[path = "learner_tests.rs"]
mod tests;
