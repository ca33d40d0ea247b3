//! The store against a model that keeps one value for each instant and looks at all of them.
//!
//! Time has [`INSTANTS`] instants; the last one stands for all that follow. The model knows nothing of
//! intervals, facts, buckets or snapshots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::time::Timestamp;

const INSTANTS: usize = 24;
const VMS: u128 = 4;
const MACS: u8 = 2;
const ADDRESSES: u8 = 3;
const VNIS: u32 = 2;
/// Ranks of the sources, two of which are equal; that at [`LEARNED`] is learned.
const RANKS: [u8; 4] = [1, 0, 2, 1];
const LEARNED: u8 = 2;

/// A value and since when it is known.
type Line = Vec<Option<(Value, u64)>>;

#[derive(Clone, Default)]
struct Model {
    lines: BTreeMap<(u8, Subject, Attribute), Line>,
    /// Made of these: of each interface and of each segment, at each instant.
    connections: BTreeMap<(u128, Mac), Vec<Option<Connected>>>,
    spaces: BTreeMap<Segment, Vec<String>>,
}

/// How an interface is connected: segment, addresses, those that others may have too, who says so, since
/// when that is known.
type Connected = (Option<Segment>, Value, Value, u8, u64);

/// Who claims a name at an instant, with all that decides between several.
struct Claimant {
    uuid: u128,
    rank: u8,
    from: usize,
    known: u64,
    yields: bool,
    shares: bool,
}

impl Model {
    fn apply(&mut self, source: u8, known: u64, batch: &Batch) {
        let before = self.clone();
        let mut changes = batch.changes.clone();
        if let Scope::All { at, missing } = batch.scope {
            changes.extend(self.missing(source, at, missing, &batch.changes));
        }
        if let Scope::Each { at } = batch.scope {
            let named = |change: &Change| {
                matches!(change.subject, Subject::Vm(_))
                    && batch.changes.iter().any(|said| said.subject == change.subject)
            };
            changes.extend(
                self.missing(source, at, Missing::Ended, &batch.changes).into_iter().filter(named),
            );
        }
        for change in &changes {
            let key = (source, change.subject, change.attribute.clone());
            let line = self.lines.entry(key).or_insert_with(|| vec![None; INSTANTS]);
            let from = index(change.from);
            let to = match change.until {
                Until::At(to) => index(to),
                Until::Next => next(line, from),
            };
            for value in &mut line[from..to] {
                *value = change.value.clone().map(|value| (value, known));
            }
        }
        for (key, line) in &mut self.lines {
            let old = before.lines.get(key).cloned().unwrap_or_else(|| vec![None; INSTANTS]);
            let stays: Vec<_> =
                runs(line).into_iter().filter(|run| runs(&old).contains(run)).collect();
            for (from, to, value) in runs(line) {
                let since = stays.contains(&(from, to, value.clone()));
                for at in from..to {
                    let known =
                        if since { old[at].clone().expect("it was there").1 } else { known };
                    line[at] = Some((value.clone(), known));
                }
            }
        }
        self.remember();
    }

    /// What is asked for again and again.
    fn remember(&mut self) {
        for uuid in 0..VMS {
            for mac in (0..MACS).map(mac) {
                let line = (0..INSTANTS).map(|at| self.connection_of(uuid, mac, at)).collect();
                self.connections.insert((uuid, mac), line);
            }
        }
        for segment in (0..VNIS).map(segment) {
            let line = (0..INSTANTS).map(|at| self.space_of(segment, at)).collect();
            self.spaces.insert(segment, line);
        }
    }

    fn connection(&self, uuid: u128, mac: Mac, at: usize) -> Option<&Connected> {
        self.connections[&(uuid, mac)][at].as_ref()
    }

    fn space(&self, segment: Segment, at: usize) -> &str {
        &self.spaces[&segment][at]
    }

    fn missing(&self, source: u8, at: Timestamp, how: Missing, said: &[Change]) -> Vec<Change> {
        let from = index(at);
        let mut ends = Vec::new();
        let subjects: BTreeSet<Subject> =
            self.lines.keys().map(|(_, subject, _)| *subject).collect();
        for subject in subjects {
            let of = self.lines.iter().filter(|((by, of, _), line)| {
                *by == source && *of == subject && line[from..].iter().any(Option::is_some)
            });
            let before: BTreeSet<Attribute> =
                of.map(|((.., attribute), _)| attribute.clone()).collect();
            let again = said.iter().filter(|change| change.subject == subject);
            let again: BTreeSet<Attribute> = again.map(|change| change.attribute.clone()).collect();
            let mut end = |attribute, value| {
                let until = Until::At(Timestamp(u64::MAX));
                ends.push(Change { subject, attribute, value, from: at, until });
            };
            let no = Some(Value::Flag(false));
            let is_vm = matches!(subject, Subject::Vm(_));
            if !is_vm && !again.is_empty() {
                continue;
            }
            if how == Missing::Ended && is_vm && again.is_empty() && !before.is_empty() {
                end(Attribute::Exists, no.clone());
                continue;
            }
            for attribute in before.difference(&again) {
                let same = |other: &Attribute| other.interface() == attribute.interface();
                match attribute.interface() {
                    Some(id) if how == Missing::Ended && !again.iter().any(same) => {
                        end(Attribute::Attached(id), no.clone());
                    }
                    _ => end(attribute.clone(), None),
                }
            }
        }
        ends
    }

    /// What is heard of an attribute at an instant, from whom, and since when it is known.
    fn heard(
        &self,
        subject: Subject,
        attribute: &Attribute,
        at: usize,
    ) -> Option<(Value, u8, u64)> {
        let said = (0_u8..).zip(RANKS).filter_map(|(source, rank)| {
            let line = self.lines.get(&(source, subject, attribute.clone()))?;
            let (value, known) = line[at].clone()?;
            let same = |at: &usize| line[*at].as_ref().is_some_and(|(other, _)| *other == value);
            let from = (0..=at).rev().take_while(same).last().expect("at itself");
            Some(((rank, Reverse(from), Reverse(known), source), (value, source, known)))
        });
        said.min_by_key(|(order, _)| *order).map(|(_, said)| said)
    }

    fn text(&self, uuid: u128, attribute: &Attribute, at: usize) -> Option<String> {
        match self.heard(Subject::Vm(Uuid(uuid)), attribute, at) {
            Some((Value::Text(text), ..)) => Some(text.to_string()),
            _ => None,
        }
    }

    /// Of the instant, else the first ever.
    fn first_text(&self, uuid: u128, attribute: &Attribute, at: usize) -> Option<String> {
        let mut at_all = std::iter::once(at).chain(0..INSTANTS);
        at_all.find_map(|at| self.text(uuid, attribute, at))
    }

    /// Whether nothing is said of a VM but by the source that is learned.
    fn is_learned(&self, uuid: u128) -> bool {
        let said = self.lines.iter().filter(|((_, subject, _), line)| {
            *subject == Subject::Vm(Uuid(uuid)) && line.iter().any(Option::is_some)
        });
        let mut sources = said.map(|((source, ..), _)| *source).peekable();
        sources.peek().is_some() && sources.all(|source| source == LEARNED)
    }

    /// Whether anything is said of an interface, at any instant.
    fn has_mac(&self, uuid: u128, mac: Mac) -> bool {
        self.lines.iter().any(|((_, subject, attribute), line)| {
            *subject == Subject::Vm(Uuid(uuid))
                && attribute.interface() == Some(mac.into())
                && line.iter().any(Option::is_some)
        })
    }

    fn connection_of(&self, uuid: u128, mac: Mac, at: usize) -> Option<Connected> {
        let (subject, id) = (Subject::Vm(Uuid(uuid)), InterfaceId::from(mac));
        let heard = |attribute| self.heard(subject, &attribute, at);
        let no = |heard: &Option<(Value, u8, u64)>| {
            heard.as_ref().is_some_and(|(value, ..)| *value == Value::Flag(false))
        };
        let attached = heard(Attribute::Attached(id));
        if no(&attached) || no(&heard(Attribute::Exists)) {
            return None;
        }
        let (segment, addresses) = (heard(Attribute::Segment(id)), heard(Attribute::Addresses(id)));
        let shared = heard(Attribute::Shared(id));
        let first = addresses.clone().or(shared.clone()).or(segment.clone()).or(attached)?;
        let segment = segment.map(|(value, ..)| match value {
            Value::Segment(segment) => segment,
            other => panic!("{other:?}"),
        });
        let [addresses, shared] = [addresses, shared]
            .map(|heard| heard.map_or_else(|| Value::addresses([]), |(value, ..)| value));
        Some((segment, addresses, shared, first.1, first.2))
    }

    fn space_of(&self, segment: Segment, at: usize) -> String {
        match self.heard(Subject::Segment(segment), &Attribute::Space, at) {
            Some((Value::Text(name), ..)) => name.to_string(),
            _ => segment.to_string(),
        }
    }

    /// Those whose interface `claims` a name in a space, or where no segment is known without one.
    fn claimants(
        &self,
        space: Option<&str>,
        at: usize,
        claims: impl Fn(Mac, &Connected) -> bool,
    ) -> Vec<Claimant> {
        let space_of = |connection: &Connected, at| connection.0.map(|it| self.space(it, at));
        let mut claimants = Vec::new();
        for uuid in 0..VMS {
            for mac in (0..MACS).map(mac) {
                let Some(connection) = self.connection(uuid, mac, at) else { continue };
                if !claims(mac, connection) {
                    continue;
                }
                let (.., source, known) = *connection;
                let (rank, yields) = (RANKS[usize::from(source)], source == LEARNED);
                // What was under way when a segment was joined stays in the segment's own space.
                let own = connection.0.map(|segment| segment.to_string());
                for under_way in [false, true] {
                    let place =
                        |at| if under_way { own.as_deref() } else { space_of(connection, at) };
                    if place(at) != space || (under_way && own.is_none()) {
                        continue;
                    }
                    let same = |at: usize| {
                        self.connection(uuid, mac, at) == Some(connection) && place(at) == space
                    };
                    let from = (0..=at).rev().take_while(|at| same(*at)).last().expect("at itself");
                    claimants.push(Claimant { uuid, rank, from, known, yields, shares: false });
                }
            }
        }
        claimants
    }

    /// Who has an address: its holder, unless that one was only learned and a VM is known by its MAC
    /// address alone.
    fn resolve(&self, space: &str, address: IpAddr, at: usize) -> Option<u128> {
        let (holder, _) = self.holder(space, address, at);
        self.unless_named(holder?, (space, address), None, at..at + 1)
    }

    /// Of those that may have an address as others may the only one with that MAC address.
    fn sharer(
        &self,
        (space, address): (&str, IpAddr),
        mac: Mac,
        instants: std::ops::Range<usize>,
    ) -> Option<u128> {
        let claimants = instants.clone().flat_map(|at| self.claimants_of(space, address, at));
        let may: BTreeSet<u128> = claimants.filter(|one| one.shares).map(|one| one.uuid).collect();
        let has = |uuid: u128, at: usize| {
            let connection = self.connection(uuid, mac, at);
            connection.is_some_and(|connection| holds(&connection.2, address))
        };
        let is_it = |uuid: &u128| instants.clone().any(|at| has(*uuid, at));
        let mut found = may.into_iter().filter(is_it);
        found.next().filter(|_| found.next().is_none())
    }

    fn unless_named(
        &self,
        holder: u128,
        (space, address): (&str, IpAddr),
        mac_shown: Option<Mac>,
        instants: std::ops::Range<usize>,
    ) -> Option<u128> {
        if !self.is_learned(holder) {
            return Some(holder);
        }
        let within = |mac: Mac| {
            let mut places = [Some(space), None].into_iter();
            places.find_map(|place| {
                instants.clone().find_map(|at| self.behind_mac(place, mac, at, true))
            })
        };
        let begin = instants.start;
        let sharer = |mac| self.sharer((space, address), mac, instants.clone());
        let shown = mac_shown.and_then(|mac| {
            sharer(mac)
                .or_else(|| self.resolve_mac(space, mac, begin, true))
                .or_else(|| within(mac))
        });
        let own = || {
            let mac = (0..MACS).map(mac).find(|mac| self.has_mac(holder, *mac))?;
            sharer(mac).or_else(|| within(mac))
        };
        shown.or_else(own).or(Some(holder))
    }

    /// Whose claim on an address counts, and all who claim it where that is a conflict.
    fn holder(&self, space: &str, address: IpAddr, at: usize) -> (Option<u128>, BTreeSet<u128>) {
        let claimants = self.claimants_of(space, address, at);
        let Some((best, rivals)) = decided(&claimants) else { return (None, BTreeSet::new()) };
        let rivals: BTreeSet<u128> = rivals.iter().map(|one| one.uuid).chain([best.uuid]).collect();
        (Some(best.uuid), if rivals.len() > 1 { rivals } else { BTreeSet::new() })
    }

    /// Who has an address, or may have it.
    fn claimants_of(&self, space: &str, address: IpAddr, at: usize) -> Vec<Claimant> {
        let has = |_: Mac, connection: &Connected| holds(&connection.1, address);
        let may = |_: Mac, connection: &Connected| holds(&connection.2, address);
        let mut claimants = self.claimants(Some(space), at, has);
        let sharers = self.claimants(Some(space), at, may).into_iter();
        claimants.extend(sharers.map(|one| Claimant { shares: true, ..one }));
        claimants
    }

    /// Who is behind a MAC address: only a lower rank decides between several. `alone`: of interfaces
    /// whose addresses are not known.
    fn resolve_mac(&self, space: &str, mac: Mac, at: usize, alone: bool) -> Option<u128> {
        [Some(space), None].into_iter().find_map(|space| self.behind_mac(space, mac, at, alone))
    }

    /// The same in one space, or where no segment is known. Who was only learned is behind none.
    fn behind_mac(&self, space: Option<&str>, mac: Mac, at: usize, alone: bool) -> Option<u128> {
        let has = |its: Mac, connection: &Connected| {
            its == mac && (!alone || connection.0.is_none() || connection.1 == Value::addresses([]))
        };
        let mut claimants = self.claimants(space, at, has);
        claimants.retain(|one| !self.is_learned(one.uuid));
        let (best, rivals) = decided(&claimants)?;
        let equal = rivals.iter().any(|one| one.uuid != best.uuid && one.rank == best.rank);
        (!equal).then_some(best.uuid)
    }

    /// Who had an address in some instants: of several, the one with the MAC address, else the first;
    /// but a VM before those that were only learned.
    fn resolve_within(
        &self,
        space: &str,
        address: IpAddr,
        mac: Mac,
        instants: std::ops::Range<usize>,
    ) -> Option<u128> {
        let all = instants.clone().filter_map(|at| self.holder(space, address, at).0);
        let mut holders: Vec<u128> = all.collect();
        if holders.iter().any(|uuid| !self.is_learned(*uuid)) {
            holders.retain(|uuid| !self.is_learned(*uuid));
        }
        holders.dedup();
        let several = holders.len() > 1;
        let with_mac = holders.iter().find(|uuid| several && self.has_mac(**uuid, mac));
        let Some(holder) = with_mac.or(holders.first()).copied() else {
            return self.sharer((space, address), mac, instants);
        };
        self.unless_named(holder, (space, address), Some(mac), instants)
    }
}

/// The best of some claims, and those that are no worse in kind. What several may have is nobody's.
fn decided(claimants: &[Claimant]) -> Option<(&Claimant, Vec<&Claimant>)> {
    let sharers: BTreeSet<u128> =
        claimants.iter().filter(|one| one.shares).map(|one| one.uuid).collect();
    let kind = |one: &Claimant| if one.yields { 2 } else { u8::from(one.shares) };
    let counts = |one: &&Claimant| !one.shares || sharers.len() == 1;
    let best = claimants.iter().filter(counts).min_by_key(|one| {
        (kind(one), one.rank, Reverse(one.from), Reverse(one.known), Reverse(one.uuid))
    })?;
    let rivals = claimants.iter().filter(counts).filter(|one| kind(one) == kind(best)).collect();
    Some((best, rivals))
}

fn holds(addresses: &Value, address: IpAddr) -> bool {
    matches!(addresses, Value::Addresses(all) if all.contains(&address))
}

fn index(at: Timestamp) -> usize {
    usize::try_from(at.0).unwrap_or(INSTANTS).min(INSTANTS)
}

/// Until when an event holds.
fn next(line: &Line, from: usize) -> usize {
    let value = |at: usize| line[at].clone().map(|(value, _)| value);
    match value(from) {
        Some(_) => (from..INSTANTS).find(|at| value(*at) != value(from)).unwrap_or(INSTANTS),
        None => (from..INSTANTS).find(|at| value(*at).is_some()).unwrap_or(INSTANTS),
    }
}

/// Stretches of one value.
fn runs(line: &Line) -> Vec<(usize, usize, Value)> {
    let mut runs: Vec<(usize, usize, Value)> = Vec::new();
    for (at, value) in line.iter().enumerate() {
        let Some((value, _)) = value else { continue };
        match runs.last_mut() {
            Some((_, to, same)) if *to == at && same == value => *to = at + 1,
            _ => runs.push((at, at + 1, value.clone())),
        }
    }
    runs
}

fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn segment(vni: u32) -> Segment {
    Segment::new(0, SegmentKind::Vxlan, vni)
}

fn change() -> impl Strategy<Value = Change> {
    let of_vm = (0..VMS, 0..MACS, 0..10_u8, 0..4_u8, 0..8_u8).prop_map(
        |(uuid, number, what, value, bits)| {
            let id = InterfaceId::from(mac(number));
            let name = |prefix: &str| Value::Text(format!("{prefix}{value}").into());
            let of = (0..ADDRESSES).filter(|number| bits >> number & 1 == 1).map(address);
            let (attribute, value) = match what {
                0 => (Attribute::Exists, Value::Flag(value > 0)),
                1 => (Attribute::Name, name("vm-")),
                2 => (Attribute::Host, name("host-")),
                3 => (Attribute::Attached(id), Value::Flag(value > 0)),
                4 => (Attribute::Segment(id), Value::Segment(segment(u32::from(value) % VNIS))),
                5 => (Attribute::Switch(id), name("switch-")),
                6 | 7 => (Attribute::Shared(id), Value::addresses(of)),
                _ => (Attribute::Addresses(id), Value::addresses(of)),
            };
            (Subject::Vm(Uuid(uuid)), attribute, value)
        },
    );
    let of_segment = (0..VNIS, 0..2_u8).prop_map(|(vni, name)| {
        let name = Value::Text(format!("space-{name}").into());
        (Subject::Segment(segment(vni)), Attribute::Space, name)
    });
    let said = prop_oneof![9 => of_vm, 1 => of_segment];
    let last = INSTANTS as u64 - 1;
    (
        said,
        0..last,
        prop::option::weighted(0.3, 1..=last),
        prop::bool::weighted(0.15),
        any::<bool>(),
    )
        .prop_map(move |((subject, attribute, value), from, length, none, ever)| {
            let to = length.map(|length| Timestamp((from + length).min(last)));
            let ever = if ever { Until::At(Timestamp(u64::MAX)) } else { Until::Next };
            let until = to.map_or(ever, Until::At);
            let value = (!none).then_some(value);
            Change { subject, attribute, value, from: Timestamp(from), until }
        })
        .prop_map(|change| match change.until {
            Until::At(to) if to <= change.from => Change { until: Until::Next, ..change },
            _ => change,
        })
}

fn batch() -> impl Strategy<Value = (u8, Batch)> {
    let all = (0..INSTANTS as u64 - 1, select(vec![Missing::Ended, Missing::Unsaid]))
        .prop_map(|(at, missing)| Scope::All { at: Timestamp(at), missing });
    let each = (0..INSTANTS as u64 - 1).prop_map(|at| Scope::Each { at: Timestamp(at) });
    let scope = prop_oneof![8 => Just(Scope::Some), 1 => all, 1 => each];
    let source = 0..u8::try_from(RANKS.len()).expect("few");
    (source, prop::collection::vec(change(), 1..6), scope)
        .prop_map(|(source, changes, scope)| (source, Batch { changes, scope }))
}

fn store() -> Store {
    // Those that are equal are of one kind.
    let kinds = [SourceKind::Api, SourceKind::File, SourceKind::Learned, SourceKind::Api];
    let sources = kinds.into_iter().zip(RANKS).enumerate();
    let sources = sources.map(|(number, (kind, rank))| {
        let name = format!("{}{number}", kind.name()).into();
        SourceName { kind, name, rank }
    });
    // Nothing is dated beyond this, so that learned things count as they come.
    let limits = StoreLimits { clock_skew_max_ns: 1 << 40, ..StoreLimits::default() };
    Store::new(limits, Spaces::default(), ClassRules::default(), sources.collect()).with_rows()
}

/// All look-ups of a snapshot are the model's, and so are its conflicts.
fn compare(inventory: &Inventory, model: &Model) -> Result<(), TestCaseError> {
    let uuid = |vm: VmRef| inventory.vm(vm).expect("its own").uuid.0;
    let mut conflicts: BTreeSet<(String, String, usize)> = BTreeSet::new();
    for at in 0..INSTANTS {
        let mut spaces: BTreeSet<(String, AddressSpace)> = BTreeSet::new();
        for vni in 0..VNIS {
            let space = inventory.spaces().at(segment(vni), Timestamp(at as u64));
            spaces.insert((model.space(segment(vni), at).to_owned(), space));
        }
        for (name, space) in spaces {
            for number in 0..ADDRESSES {
                let wanted = model.resolve(&name, address(number), at);
                let (_, rivals) = model.holder(&name, address(number), at);
                let (asked, version) = Address::of_ip(address(number));
                let found = inventory.resolve(space, asked, version, None, Timestamp(at as u64));
                prop_assert_eq!(
                    found.map(uuid),
                    wanted,
                    "{} in {} at {}",
                    address(number),
                    name,
                    at
                );
                if !rivals.is_empty() {
                    conflicts.insert((name.clone(), address(number).to_string(), at));
                }
                for mac in (0..MACS).map(mac) {
                    let to = (at + 3).min(INSTANTS);
                    let wanted = model.resolve_within(&name, address(number), mac, at..to);
                    let time = Interval { from: Timestamp(at as u64), to: Timestamp(to as u64) };
                    let found = inventory.resolve_within(space, asked, version, Some(mac), time);
                    // Where nobody had it the MAC address is asked.
                    if wanted.is_some() {
                        prop_assert_eq!(found.map(uuid), wanted, "{} in {:?}", asked.text(4), time);
                    }
                }
            }
            for mac in (0..MACS).map(mac) {
                // One that no router passes on, and one that no interface has.
                for (alone, ip) in [(false, [169, 254, 0, 1]), (true, [10, 9, 9, 9])] {
                    let time = Timestamp(at as u64);
                    let found = inventory.resolve(space, Address::v4(ip), 4, Some(mac), time);
                    let wanted = model.resolve_mac(&name, mac, at, alone);
                    prop_assert_eq!(found.map(uuid), wanted, "{} {} {} {}", mac, name, at, alone);
                }
            }
        }
        for number in 0..VMS {
            let Some(vm) = inventory.entries().find(|(_, entry)| entry.history.uuid.0 == number)
            else {
                continue;
            };
            compare_vm(&vm.1.history, model, (number, at))?;
        }
    }
    let mut found: BTreeSet<(String, String, usize)> = BTreeSet::new();
    for named in inventory.conflicts() {
        if !named.claimed.contains('.') {
            continue;
        }
        let name = inventory.spaces().name(named.space).map(ToString::to_string);
        let name = name.unwrap_or_else(|| named.space.as_segment().to_string());
        for at in 0..INSTANTS {
            if named.conflict.valid.holds(Timestamp(at as u64)) {
                found.insert((name.clone(), named.claimed.clone(), at));
            }
        }
    }
    prop_assert_eq!(found, conflicts, "conflicts");
    Ok(())
}

/// All that is known of a VM at an instant.
fn compare_vm(
    history: &VmHistory,
    model: &Model,
    (uuid, at): (u128, usize),
) -> Result<(), TestCaseError> {
    let time = Timestamp(at as u64);
    let text = |text: Option<&std::sync::Arc<str>>| text.map(ToString::to_string);
    let exists = model.heard(Subject::Vm(Uuid(uuid)), &Attribute::Exists, at);
    let exists = exists.map(|(value, ..)| value);
    prop_assert_eq!(history.exists.at(time).copied().map(Value::Flag), exists);
    for (found, attribute) in [(&history.names, Attribute::Name), (&history.hosts, Attribute::Host)]
    {
        let wanted = model.text(uuid, &attribute, at);
        prop_assert_eq!(text(found.at(time)), wanted, "{:?} of {} at {}", attribute, uuid, at);
    }
    for mac in (0..MACS).map(mac) {
        let found = history.interfaces.iter().find(|interface| interface.id.mac == mac);
        let connection = found.and_then(|interface| interface.connections.at(time));
        let connection = connection.map(|it| {
            let [addresses, shared] =
                [&it.addresses, &it.shared].map(|all| Value::addresses(all.iter().copied()));
            (it.segment, addresses, shared, it.source.0, it.known.0)
        });
        let wanted = model.connection(uuid, mac, at).cloned();
        prop_assert_eq!(connection, wanted, "{} of {}", mac, uuid);
        let switch = text(found.and_then(|interface| interface.switches.at(time)));
        prop_assert_eq!(switch, model.text(uuid, &Attribute::Switch(mac.into()), at));
    }
    Ok(())
}

/// Rows that were known at a time, by the changes of rows alone.
fn rows_known(changes: &[RowChange], at: Timestamp) -> Vec<InventoryRow> {
    let mut known: Vec<(InventoryRow, Timestamp)> = Vec::new();
    for change in changes {
        let row = ((*change.row).clone(), change.known_from);
        match change.known_to {
            None if change.known_from <= at => known.push(row),
            Some(to) if to <= at => {
                let place = known.iter().position(|old| *old == row);
                known.swap_remove(place.expect("what ends was known"));
            }
            _ => {}
        }
    }
    known.into_iter().map(|(row, _)| row).collect()
}

/// The rows say the same as look-ups: who has an address, and nobody else; and what else is known of
/// the VM then.
fn compare_rows(
    rows: &[InventoryRow],
    inventory: &Inventory,
    model: &Model,
) -> Result<(), TestCaseError> {
    let of_addresses = rows.iter().filter(|row| row.attributed && row.address.is_some());
    let of_addresses: Vec<_> = of_addresses.collect();
    for at in 0..INSTANTS {
        let time = Timestamp(at as u64);
        let spaces = (0..VNIS).map(segment).map(|segment| {
            (inventory.spaces().at(segment, time), model.space(segment, at).to_owned())
        });
        for (space, name) in spaces.collect::<BTreeMap<_, _>>() {
            for number in 0..ADDRESSES {
                let its = of_addresses.iter().filter(|row| {
                    row.space == Some(space)
                        && row.address == Some(address(number))
                        && row.valid.holds(time)
                });
                let its: Vec<_> = its.collect();
                let holders: BTreeSet<_> = its.iter().map(|row| row.uuid.to_string()).collect();
                let wanted = model.holder(&name, address(number), at).0;
                prop_assert_eq!(
                    holders,
                    wanted.map(|uuid| Uuid(uuid).to_string()).into_iter().collect::<BTreeSet<_>>()
                );
                for (row, uuid) in its.iter().zip(wanted.into_iter().cycle()) {
                    let mac = row.mac.expect("it has an interface");
                    let switch = Attribute::Switch(mac.into());
                    let wanted = [
                        model.first_text(uuid, &Attribute::Name, at),
                        model.text(uuid, &Attribute::Host, at),
                        model.text(uuid, &switch, at),
                    ];
                    let found = [&row.name, &row.host, &row.switch];
                    let found = found.map(|text| text.as_deref().map(ToOwned::to_owned));
                    prop_assert_eq!(found, wanted, "name, host, switch at {}: {:?}", at, row);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model(
        batches in prop::collection::vec((batch(), 0..4_u64), 1..14),
    ) {
        let (mut store, mut model) = (store(), Model::default());
        let mut then: Vec<(u64, Model, Inventory)> = Vec::new();
        let mut rows = Vec::new();
        let mut known = 0;
        for (number, ((source, batch), back)) in (0_u64..).zip(batches) {
            // The clock may step back, or stand; what is known never does.
            let said = 100 + 2 * number - back;
            known = said.max(known);
            let before = store.snapshot();
            let same = before.clone();
            model.apply(source, known, &batch);
            store.apply(SourceId(source), Timestamp(said), batch);
            rows.extend(store.take_row_changes());
            compare(store.inventory(), &model)?;
            // What others hold does not change under their hands.
            prop_assert_eq!(before.conflicts(), same.conflicts());
            then.retain(|(earlier, ..)| *earlier != known);
            then.push((known, model.clone(), store.snapshot()));
        }
        for (known, model, snapshot) in &then {
            let again = store.inventory().known_at(Timestamp(*known));
            compare(&again, model)?;
            compare(snapshot, model)?;
            compare_rows(&rows_known(&rows, Timestamp(*known)), snapshot, model)?;
        }
    }

    /// What became of facts, written and read, gives the store that applied the changes: the same facts in
    /// the same order, the same look-ups, conflicts and rows. It does so at any point, also with a
    /// whole state in between, and goes on as the other does.
    #[test]
    fn deltas_give_the_same_store(
        batches in prop::collection::vec(batch(), 1..14),
        restarts in prop::collection::vec(any::<bool>(), 14),
        (vms_max, facts_max) in (1..=4_usize, prop::sample::select(vec![6, 64])),
    ) {
        let limits = StoreLimits {
            clock_skew_max_ns: 1 << 40,
            vms_max,
            facts_max,
            ..StoreLimits::default()
        };
        let fresh = || {
            let mut store = store();
            store.limits(limits);
            store.note_deltas();
            store
        };
        let names = LineNames { sources: fresh().inventory().sources().into(), domains: vec!["default".to_owned()] };
        let (mut store, mut other) = (fresh(), fresh());
        let mut restored = Restored::default();
        for (number, (source, batch)) in batches.into_iter().enumerate() {
            // What is only learned is not written down, and nobody else speaks of the same subjects.
            let source = if source == LEARNED { 3 } else { source };
            let known = Timestamp(100 + number as u64);
            store.apply(SourceId(source), known, batch.clone());
            let deltas = store.take_deltas();
            let lines: Vec<_> = deltas.iter().flat_map(|delta| written(delta, &names)).collect();
            let mut reader = LineReader::new(&names);
            for line in &lines {
                let text = line.to_string();
                let line = serde_json::from_str(&text).expect("JSON");
                restored.redo(reader.read(&line).expect("a delta").expect("named"));
            }
            restored.known = store.inventory().known();
            other.apply(SourceId(source), known, batch);
            same(&store, &other)?;
            if restarts[number] {
                // A restart: the other store is what the lines say.
                other = fresh();
                other.restore(std::mem::take(&mut restored));
                same(&store, &other)?;
                // What a VM that is forgotten had, others do not have afterwards in the table; a restart
                // does not know of it.
                if store.counts().vms_forgotten == 0 {
                    prop_assert_eq!(rows_by_name(&store), rows_by_name(&other));
                }
                // And a whole state, as the file has it after it was written anew.
                for (subject, facts) in store.inventory().subjects() {
                    restored.redo(SubjectDelta::whole(subject, facts));
                }
            }
        }
    }
}

/// Rows with spaces by name, in an order of their own.
fn rows_by_name(store: &Store) -> Vec<String> {
    let spaces = store.inventory().spaces();
    let text = |mut row: InventoryRow| {
        let space = row.space.take().map(|space| (spaces.name(space), space.as_segment()));
        let space =
            space.map(|(name, segment)| name.map_or(segment.to_string(), ToString::to_string));
        format!("{row:?} {space:?}")
    };
    let mut rows: Vec<_> = store.rows().into_iter().map(text).collect();
    rows.sort_unstable();
    rows
}

/// Facts, look-ups and conflicts of two stores are the same.
fn same(store: &Store, other: &Store) -> Result<(), TestCaseError> {
    let facts = |store: &Store| -> BTreeMap<Uuid, Facts> {
        let entries = store.inventory().entries().map(|(_, entry)| entry);
        let entries = entries.filter(|entry| !entry.facts.all().is_empty());
        entries.map(|entry| (entry.history.uuid, entry.facts.clone())).collect()
    };
    prop_assert_eq!(facts(store), facts(other));
    let spaces = |store: &Store| {
        let mut facts = store.inventory().spaces().facts().clone();
        // Of some it was only said that nothing is said.
        facts.retain(|_, facts| !facts.all().is_empty());
        facts
    };
    prop_assert_eq!(spaces(store), spaces(other));
    let claimed = |store: &Store| -> BTreeSet<String> {
        let inventory = store.inventory();
        let conflicts = inventory.conflicts().into_iter().map(|named| {
            let uuid = |vm: &VmRef| inventory.vm(*vm).expect("its own").uuid;
            let space = inventory.spaces().name(named.space).map(ToString::to_string);
            let space = space.unwrap_or_else(|| named.space.as_segment().to_string());
            let claimants: BTreeSet<Uuid> = named.conflict.claimants.iter().map(uuid).collect();
            let attributed = named.conflict.attributed.as_ref().map(uuid);
            format!(
                "{space} {} {:?} {attributed:?} {claimants:?}",
                named.claimed, named.conflict.valid
            )
        });
        conflicts.collect()
    };
    prop_assert_eq!(claimed(store), claimed(other));
    for at in (0..INSTANTS as u64).map(Timestamp) {
        for (vni, number) in
            (0..VNIS).flat_map(|vni| (0..ADDRESSES).map(move |number| (vni, number)))
        {
            let who = |store: &Store| {
                let inventory = store.inventory();
                let space = inventory.spaces().at(segment(vni), at);
                let (asked, version) = Address::of_ip(address(number));
                let vm = inventory.resolve(space, asked, version, None, at);
                vm.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid)
            };
            prop_assert_eq!(who(store), who(other));
        }
    }
    Ok(())
}
