//! Who moved: the same network card sends at another tap than before, for good.
//!
//! In: who sent when at which tap, window by window. Out: [`Move`]s, each with the silence in which it
//! happened.
//! Cost: a look-up for each pair of endpoints in a window; the packets of a station are sorted only in
//! a window in which two taps showed it.
//! Invariants: a move is stated only of a station that stood still for [`SPAN_NS`] or since it is known,
//! of which each tap showed [`PACKETS_MIN`] packets, and when somebody that it talked to before hears
//! it from the new place; clocks alone do not say so. What is seen here and there, as a router is, has
//! not moved. At most [`STATIONS_MAX`] stations and [`PAIRS_MAX`] pairs; those that are there go on.
//! Source: docs/measures.md, "Migrations".

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::decode::{Address, Mac};
use crate::hash::KeyedMap;
use crate::index::TapIndex;
use crate::inventory::{AddressSpace, Segment};
use crate::path::Ends;
use crate::time::{Timestamp, ms};

use super::ClockOffset;
use super::history::{SPAN_NS, Way};
use super::stations::{Station, Stations};
use super::window::{Counts, Order, Shown, TapSet};

const STATIONS_MAX: usize = 1 << 16;
const PAIRS_MAX: usize = 1 << 17;

/// Packets that each of the two taps must have shown: fewer may be what the other mirror lost, in a row.
const PACKETS_MIN: u64 = 4;

/// One packet in so many at a wrong tap is a mirror's loss, no move.
const OUTLIERS_ONE_IN: u64 = 8;

/// Addresses of one station, and peers, that are told apart.
const NAMES_MAX: usize = 64;

/// How long a move explains that others are seen elsewhere.
const EXPLAINS_NS: u64 = ms(10_000);

/// Moves that are remembered for that.
const RECENT_MAX: usize = 256;

/// A network card that sends at another tap than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Address space of its addresses.
    pub space: AddressSpace,
    /// Segment that it was seen in at the new tap.
    pub segment: Segment,
    /// Its MAC address.
    pub mac: Mac,
    /// The least of the addresses that it sent from.
    pub address: Address,
    /// 4 or 6.
    pub ip_version: u8,
    /// Tap that it stood next to.
    pub from: TapIndex,
    /// Tap that it stands next to.
    pub to: TapIndex,
    /// Its last packet before.
    pub last: Timestamp,
    /// Its first packet after; not before the last one by their clocks, else the silence is 0.
    pub first: Timestamp,
    /// Endpoints that it talked to before and after.
    pub peers: u64,
    /// The two taps' clocks, where both directions between them show them.
    pub clocks: Option<ClockOffset>,
}

impl Move {
    /// How long nothing of it was seen.
    pub fn blackout_ns(&self) -> u64 {
        self.first.since_ns(self.last)
    }
}

/// How the tap next to a sender is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// One tap alone showed the packets, or hops or packets of both directions give the order.
    Certain,
    /// Clocks give the order, or what was known before.
    Believed,
    /// Other taps than before show the packets, and clocks alone give the order: it may stand where it
    /// stood.
    InDoubt,
}

/// What a sender's packets to one other showed at one tap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    station: Station,
    segment: Segment,
    source: (u8, Address),
    peer: Address,
    /// Next to the sender.
    tap: TapIndex,
    order: Certainty,
    /// All that showed them.
    set: TapSet,
    packets: u64,
    first: Timestamp,
    last: Timestamp,
    /// As in [`Shown`].
    name: (u32, u32),
}

impl Sent {
    /// Whose packets to whom, and who showed them.
    fn way(&self) -> (Station, Address, TapSet) {
        (self.station, self.peer, self.set)
    }

    /// All of a pair of endpoints, whose packets took these ways.
    pub(super) fn of<'a>(
        ends: &Ends,
        counts: &'a Counts,
        orders: &'a [Order],
        stations: &Stations,
    ) -> impl Iterator<Item = Self> + use<'a> {
        let (ends, whose) = (*ends, stations.of(ends.space, ends.source, ends.ip_version));
        (0..).zip(&counts.spans).filter_map(move |(place, span)| {
            let (station, segment) = whose?;
            let (tap, is_certain) = span.set.entry(orders)?;
            let order = if is_certain { Certainty::Certain } else { Certainty::Believed };
            Some(Self {
                station,
                segment,
                source: (ends.ip_version, ends.source),
                peer: ends.destination,
                tap,
                order,
                set: span.set,
                packets: span.packets,
                first: span.first,
                last: span.last,
                name: (counts.number, place),
            })
        })
    }
}

/// What may be a move.
#[derive(Clone, Debug)]
struct Candidate {
    tap: TapIndex,
    last: Timestamp,
    first: Timestamp,
    packets: u64,
    /// Those that hear it from the new place and heard it from the old one.
    peers: BTreeSet<Address>,
}

/// From when on it was in doubt where a station stands.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    set: TapSet,
    /// Its last packet before.
    last: Timestamp,
    first: Timestamp,
    /// Its last packet in doubt.
    until: Timestamp,
}

/// Where a station stands.
#[derive(Clone, Debug)]
struct Stand {
    tap: TapIndex,
    /// Whether anything but clocks said so.
    is_certain: bool,
    packets: u64,
    /// Its last packet there.
    last: Timestamp,
    /// When it was last seen here and there.
    roamed: Option<Timestamp>,
    candidate: Option<Candidate>,
    doubt: Option<Doubt>,
    addresses: BTreeSet<(u8, Address)>,
    seen: Timestamp,
}

/// A move, or what may be one, with what it explains.
#[derive(Clone, Debug)]
struct Claim {
    station: Station,
    way: Way,
    peers: BTreeSet<Address>,
    addresses: BTreeSet<(u8, Address)>,
    at: Timestamp,
}

impl Claim {
    /// Whether another one's peers are all this one's addresses, and this one has more to show for it.
    fn explains(&self, other: &Self) -> bool {
        let has = |peer: &Address| self.addresses.iter().any(|(_, address)| address == peer);
        let weight = |claim: &Self| (claim.peers.len(), Reverse(claim.addresses.len()));
        self.station != other.station
            && (self.station.space, self.way) == (other.station.space, other.way)
            && other.peers.iter().all(has)
            && weight(self) > weight(other)
    }
}

/// Of all stations.
#[derive(Default)]
pub(super) struct Moves {
    stands: KeyedMap<Station, Stand>,
    pairs: KeyedMap<(Station, Address), Known>,
    recent: Vec<Claim>,
    tidied: Timestamp,
    /// Not all packets are followed, so a silence is an upper bound.
    of_some: bool,
}

/// How a station's packets to another were shown last.
#[derive(Clone, Copy, Debug)]
struct Known {
    tap: TapIndex,
    set: TapSet,
    is_certain: bool,
    seen: Timestamp,
}

/// What one station did in a window.
#[derive(Default)]
struct Seen<'a> {
    sent: Vec<&'a Sent>,
    /// Without what is in doubt.
    totals: BTreeMap<TapIndex, u64>,
    split: Option<Split>,
}

/// The packets of a window cut in two, so that as few as can be are at the wrong tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    wrong: u64,
    last: Timestamp,
    first: Timestamp,
}

impl Moves {
    /// `follows_all`: no packet is left out.
    pub(super) fn new(follows_all: bool) -> Self {
        Self { of_some: !follows_all, ..Self::default() }
    }

    /// Takes the next window, which begins at `start`.
    pub(super) fn window(
        &mut self,
        start: Timestamp,
        sent: &mut [Sent],
        shown: &[Shown],
    ) -> Vec<Move> {
        self.tidy(start);
        self.stick(sent);
        let mut seen: BTreeMap<Station, Seen> = BTreeMap::new();
        for one in &*sent {
            let seen = seen.entry(one.station).or_default();
            seen.sent.push(one);
            if one.order != Certainty::InDoubt {
                *seen.totals.entry(one.tap).or_default() += one.packets;
            }
        }
        // The order in which their packets came must not show.
        for seen in seen.values_mut() {
            seen.sent.sort_unstable_by_key(|sent| (sent.peer, sent.tap, sent.set, sent.first));
        }
        for (station, seen) in &seen {
            if let Some(stand) = self.stands.get_mut(station) {
                stand.correct(seen);
            }
        }
        self.split(start, &mut seen, shown);
        let mut moved = Vec::new();
        let mut claims = Vec::new();
        for (station, seen) in &seen {
            if self.stands.len() >= STATIONS_MAX && !self.stands.contains_key(station) {
                continue;
            }
            self.update(start, *station, seen);
            let Some(stand) = self.stands.get_mut(station) else { continue };
            let Some(candidate) = &stand.candidate else { continue };
            let claim = Claim {
                station: *station,
                way: (stand.tap, candidate.tap),
                peers: candidate.peers.clone(),
                addresses: stand.addresses.clone(),
                at: start,
            };
            if let Some(found) = stand.settle(start, seen) {
                let segment = seen.sent.iter().find(|sent| sent.tap == found.tap);
                moved.push((claim.clone(), found.clone(), segment.map(|sent| sent.segment)));
            }
            claims.push(claim);
        }
        claims.append(&mut self.recent.clone());
        let is_explained = |claim: &Claim| claims.iter().any(|other| other.explains(claim));
        moved.retain(|(claim, ..)| !is_explained(claim));
        self.recent.extend(moved.iter().map(|(claim, ..)| claim.clone()));
        self.recent.truncate(RECENT_MAX);
        moved
            .into_iter()
            .filter_map(|(claim, found, segment)| found.moved(&claim, segment?))
            .collect()
    }

    /// Which of two taps packets passed first is known from times, and live ones are coarse. Who moves
    /// changes which taps show its packets, so while these are the same the order is too, once it is
    /// certain. Where it is not, the packets are taken to be sent from where the station stands.
    fn stick(&self, sent: &mut [Sent]) {
        let is_certain = |one: &&Sent| one.order == Certainty::Certain;
        let certain: BTreeMap<_, _> =
            sent.iter().filter(is_certain).map(|one| (one.way(), one.tap)).collect();
        for one in sent {
            if let Some(tap) = certain.get(&one.way()) {
                (one.tap, one.order) = (*tap, Certainty::Certain);
            }
            let known = self.pairs.get(&(one.station, one.peer));
            let same = known.filter(|known| known.set == one.set);
            if let Some(known) = same.filter(|it| it.is_certain || !is_certain(&&*one)) {
                one.tap = known.tap;
            } else if one.order == Certainty::Believed
                && let Some(stand) = self.stands.get(&one.station)
                && one.set.has(stand.tap)
            {
                one.tap = stand.tap;
                let is_in_doubt = known.is_some() || self.of_some;
                one.order = if is_in_doubt { Certainty::InDoubt } else { one.order };
            }
        }
    }

    /// Finds the moment of what may be moves within the window, from single packets.
    fn split(&self, start: Timestamp, seen: &mut BTreeMap<Station, Seen>, shown: &[Shown]) {
        let mut names: KeyedMap<(u32, u32), (Station, bool)> = KeyedMap::default();
        for (station, seen) in &*seen {
            let Some(stand) = self.stands.get(station).filter(|stand| stand.is_still(start)) else {
                continue;
            };
            if seen.totals.len() > 1 && seen.totals.contains_key(&stand.tap) {
                let sent = seen.sent.iter().filter(|sent| sent.order != Certainty::InDoubt);
                let named = sent.map(|sent| (sent.name, sent.tap != stand.tap));
                names.extend(named.map(|(name, is_new)| (name, (*station, is_new))));
            }
        }
        if names.is_empty() {
            return;
        }
        let mut packets: BTreeMap<Station, Vec<(Timestamp, bool)>> = BTreeMap::new();
        for one in shown {
            if let Some((station, is_new)) = names.get(&(one.ends, one.span)) {
                packets.entry(*station).or_default().push((one.at, *is_new));
            }
        }
        for (station, mut packets) in packets {
            packets.sort_unstable();
            if let Some(seen) = seen.get_mut(&station) {
                seen.split = Split::of(&packets);
            }
        }
    }

    fn update(&mut self, start: Timestamp, station: Station, seen: &Seen) {
        let most = seen.totals.iter().max_by_key(|(tap, packets)| (**packets, Reverse(**tap)));
        let Some(tap) = most.map(|(tap, _)| *tap).or(seen.sent.first().map(|sent| sent.tap)) else {
            return;
        };
        let stand = self.stands.entry(station).or_insert_with(|| Stand {
            tap,
            is_certain: false,
            packets: 0,
            last: Timestamp::ZERO,
            roamed: None,
            candidate: None,
            doubt: None,
            addresses: BTreeSet::new(),
            seen: start,
        });
        stand.seen = start;
        for sent in &seen.sent {
            if stand.addresses.len() < NAMES_MAX {
                stand.addresses.insert(sent.source);
            }
        }
        stand.correct(seen);
        // Of some packets what is in doubt ends a silence on neither side: that is an upper bound.
        if !self.of_some {
            stand.doubt(seen);
        }
        if most.is_none() {
            return;
        }
        stand.weigh(start, seen);
        let mut rest = &seen.sent[..];
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|sent| sent.peer == first.peer).count();
            let (pair, others) = rest.split_at(count);
            rest = others;
            let key = (station, first.peer);
            let known = self.pairs.get(&key).copied();
            stand.hear(pair, known);
            if known.is_some() || self.pairs.len() < PAIRS_MAX {
                let of_now = Known::of(pair, start).map(|now| now.after(known));
                self.pairs.extend(of_now.map(|now| (key, now)));
            }
        }
    }

    fn tidy(&mut self, at: Timestamp) {
        self.recent.retain(|claim| at.since_ns(claim.at) < EXPLAINS_NS);
        if at.since_ns(self.tidied) < SPAN_NS / 4 {
            return;
        }
        self.tidied = at;
        self.stands.retain(|_, stand| at.since_ns(stand.seen) < SPAN_NS);
        self.pairs.retain(|_, known| at.since_ns(known.seen) < SPAN_NS);
    }
}

impl Known {
    /// How the last ones of a window were shown, single ones left out, which a mirror may have lost.
    fn of(pair: &[&Sent], seen: Timestamp) -> Option<Self> {
        let all: u64 = pair.iter().map(|sent| sent.packets).sum();
        let most = pair.iter().filter(|sent| sent.packets * 4 >= all);
        let most = most.filter(|sent| sent.order != Certainty::InDoubt);
        let last = most.max_by_key(|sent| (sent.last, sent.set))?;
        let is_certain = last.order == Certainty::Certain;
        Some(Self { tap: last.tap, set: last.set, is_certain, seen })
    }

    /// What was certain before stays so while the same taps show the packets.
    fn after(self, before: Option<Self>) -> Self {
        let was_certain = before.is_some_and(|it| it.is_certain && it.set == self.set);
        Self { is_certain: self.is_certain || was_certain, ..self }
    }
}

impl Stand {
    /// What was sent to one other in a window: whether it hears a candidate from its new place, and
    /// heard it from the old one, shown by other taps.
    fn hear(&mut self, pair: &[&Sent], known: Option<Known>) {
        let Some(candidate) = &mut self.candidate else { return };
        let here = pair.iter().map(|sent| (sent.tap, sent.set));
        let mut here: Vec<_> = here.filter(|(tap, _)| *tap == self.tap).collect();
        let known = known.map(|known| (known.tap, known.set));
        here.extend(known.filter(|(tap, _)| *tap == self.tap));
        let is_new = |sent: &&&Sent| {
            sent.tap == candidate.tap && here.iter().any(|(_, set)| *set != sent.set)
        };
        if let Some(sent) = pair.iter().find(is_new)
            && candidate.peers.len() < NAMES_MAX
        {
            candidate.peers.insert(sent.peer);
        }
    }

    /// Whether it was not seen here and there lately.
    fn is_still(&self, at: Timestamp) -> bool {
        self.roamed.is_none_or(|roamed| at.since_ns(roamed) >= SPAN_NS)
    }

    /// Where it was only believed to stand until it is certain, it did not move: of packets that were
    /// seen there as well the order is known now.
    fn correct(&mut self, seen: &Seen) {
        if self.is_certain {
            return;
        }
        let certain = seen.sent.iter().filter(|sent| sent.order == Certainty::Certain);
        let around = certain.filter(|sent| sent.set.has(self.tap));
        if let Some(most) = around.max_by_key(|sent| (sent.packets, Reverse(sent.tap))) {
            self.is_certain = true;
            if most.tap != self.tap {
                (self.tap, self.packets, self.candidate) = (most.tap, 0, None);
            }
        }
    }

    /// Notes from when on it is in doubt where it stands; what it certainly sent from there since then
    /// ends that.
    fn doubt(&mut self, seen: &Seen) {
        let is_doubtful = |sent: &&&Sent| sent.order == Certainty::InDoubt;
        let here = || seen.sent.iter().filter(|sent| sent.tap == self.tap && !is_doubtful(sent));
        if self.doubt.is_some_and(|doubt| here().any(|sent| sent.last > doubt.first)) {
            self.doubt = None;
        }
        let doubtful = || seen.sent.iter().filter(is_doubtful);
        let Some(first) = doubtful().min_by_key(|sent| (sent.first, sent.set)) else { return };
        let doubt = self.doubt.get_or_insert_with(|| {
            let before = here().map(|sent| sent.last).filter(|last| *last < first.first);
            let last = before.max().unwrap_or(self.last);
            Doubt { set: first.set, last, first: first.first, until: first.last }
        });
        doubt.until = doubtful().map(|sent| sent.last).fold(doubt.until, Timestamp::max);
    }

    /// What the window's packets say of where it stands.
    fn weigh(&mut self, start: Timestamp, seen: &Seen) {
        let here = seen.totals.get(&self.tap).copied().unwrap_or(0);
        let others = seen.totals.iter().filter(|(tap, _)| **tap != self.tap);
        let other = others.max_by_key(|(tap, packets)| (**packets, Reverse(**tap)));
        let Some((tap, there)) = other.map(|(tap, packets)| (*tap, *packets)) else {
            return self.stays(start, seen);
        };
        if seen.totals.values().sum::<u64>() > (here + there) * 9 / 8 {
            return self.roams(start, seen);
        }
        let split =
            seen.split.filter(|split| here > 0 && split.wrong * OUTLIERS_ONE_IN <= here.min(there));
        if let (Some(split), None) = (split, &self.candidate) {
            self.packets += here;
            self.last = split.last;
            self.begin(tap, (split.last, split.first), there, seen);
        } else if there * OUTLIERS_ONE_IN <= here {
            self.stays(start, seen);
        } else if here * OUTLIERS_ONE_IN <= there {
            self.is_elsewhere(start, tap, there, seen);
        } else {
            self.roams(start, seen);
        }
    }

    fn stays(&mut self, start: Timestamp, seen: &Seen) {
        if self.candidate.take().is_some_and(|candidate| candidate.packets >= PACKETS_MIN) {
            self.roamed = Some(start);
        }
        self.add_here(seen);
    }

    fn roams(&mut self, start: Timestamp, seen: &Seen) {
        self.roamed = Some(start);
        self.candidate = None;
        self.add_here(seen);
    }

    fn add_here(&mut self, seen: &Seen) {
        let here = seen.sent.iter().filter(|sent| sent.tap == self.tap);
        for sent in here.filter(|sent| sent.order != Certainty::InDoubt) {
            self.packets += sent.packets;
            self.last = self.last.max(sent.last);
        }
    }

    fn is_elsewhere(&mut self, start: Timestamp, tap: TapIndex, packets: u64, seen: &Seen) {
        match &mut self.candidate {
            Some(candidate) if candidate.tap == tap => candidate.packets += packets,
            Some(_) => self.roams(start, seen),
            None => {
                let there = seen.sent.iter().filter(|sent| sent.tap == tap);
                let first = there.map(|sent| sent.first).min().unwrap_or(start);
                self.begin(tap, (self.last, first), packets, seen);
            }
        }
    }

    fn begin(&mut self, tap: TapIndex, silence: (Timestamp, Timestamp), packets: u64, seen: &Seen) {
        let there = || seen.sent.iter().filter(|sent| sent.tap == tap);
        let (last, first) = match self.doubt.take() {
            // What was in doubt is certain now.
            Some(doubt) if there().any(|sent| sent.set == doubt.set) => (doubt.last, doubt.first),
            Some(doubt) if doubt.until < silence.1 => (silence.0.max(doubt.until), silence.1),
            _ => silence,
        };
        self.candidate = Some(Candidate { tap, last, first, packets, peers: BTreeSet::new() });
    }

    /// Makes a candidate that has shown enough the place where it stands; the answer is a move.
    fn settle(&mut self, start: Timestamp, seen: &Seen) -> Option<Candidate> {
        let candidate = self.candidate.as_ref().filter(|one| one.packets >= PACKETS_MIN)?;
        let is_still = self.is_still(start);
        let is_heard = !candidate.peers.is_empty();
        // Nobody that knew it before has heard of it for long.
        let is_old = start.since_ns(candidate.first) >= SPAN_NS;
        if is_still && !is_heard && !is_old {
            return None;
        }
        let candidate = self.candidate.take()?;
        let moved = is_still && is_heard && self.packets >= PACKETS_MIN;
        (self.tap, self.packets) = (candidate.tap, candidate.packets);
        let there = seen.sent.iter().filter(|sent| sent.tap == candidate.tap);
        self.last = there.map(|sent| sent.last).max().unwrap_or(candidate.first);
        self.roamed = if is_still { None } else { Some(start) };
        moved.then_some(candidate)
    }
}

impl Candidate {
    fn moved(&self, claim: &Claim, segment: Segment) -> Option<Move> {
        let (ip_version, address) = *claim.addresses.first()?;
        Some(Move {
            space: claim.station.space,
            segment,
            mac: claim.station.mac,
            address,
            ip_version,
            from: claim.way.0,
            to: claim.way.1,
            last: self.last,
            first: self.first,
            peers: self.peers.len() as u64,
            clocks: None,
        })
    }
}

impl Split {
    /// Of packets in order of time, each with whether the new tap showed it.
    fn of(packets: &[(Timestamp, bool)]) -> Option<Self> {
        let old = packets.iter().filter(|(_, is_new)| !is_new).count();
        // Before the first packet all old ones are wrong; each packet more changes that by one.
        let (mut wrong, mut best) = (old, (usize::MAX, 0));
        for (place, (_, is_new)) in packets.iter().enumerate() {
            if *is_new {
                wrong += 1;
            } else {
                wrong -= 1;
            }
            if wrong < best.0 {
                best = (wrong, place);
            }
        }
        let (last, _) = packets.get(best.1)?;
        let (first, _) = packets.get(best.1 + 1)?;
        Some(Self { wrong: best.0 as u64, last: *last, first: *first })
    }
}

#[cfg(test)]
mod tests;
