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
/// Ranks of the sources; the last one is learned.
const RANKS: [u8; 3] = [1, 0, 2];

/// A value and since when it is known.
type Line = Vec<Option<(Value, u64)>>;

#[derive(Clone, Default)]
struct Model {
    lines: BTreeMap<(u8, Subject, Attribute), Line>,
}

/// Who claims an address at an instant, with all that decides between several.
struct Claimant {
    uuid: u128,
    rank: u8,
    from: usize,
    known: u64,
    yields: bool,
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
        let said = (0..3_u8).filter_map(|source| {
            let line = self.lines.get(&(source, subject, attribute.clone()))?;
            line[at].clone().map(|(value, known)| (value, source, known))
        });
        said.min_by_key(|(_, source, _)| RANKS[usize::from(*source)])
    }

    fn connection(
        &self,
        uuid: u128,
        mac: Mac,
        at: usize,
    ) -> Option<(Option<Segment>, Value, u8, u64)> {
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
        let first = addresses.clone().or(segment.clone()).or(attached)?;
        let segment = segment.map(|(value, ..)| match value {
            Value::Segment(segment) => segment,
            other => panic!("{other:?}"),
        });
        let addresses = addresses.map_or_else(|| Value::addresses([]), |(value, ..)| value);
        Some((segment, addresses, first.1, first.2))
    }

    fn space(&self, segment: Segment, at: usize) -> String {
        match self.heard(Subject::Segment(segment), &Attribute::Space, at) {
            Some((Value::Text(name), ..)) => name.to_string(),
            _ => segment.to_string(),
        }
    }

    fn claimants(&self, space: &str, address: IpAddr, at: usize) -> Vec<Claimant> {
        let mut claimants = Vec::new();
        for uuid in 0..VMS {
            for mac in (0..MACS).map(mac) {
                let Some(connection) = self.connection(uuid, mac, at) else { continue };
                let (Some(segment), Value::Addresses(addresses), source, known) =
                    connection.clone()
                else {
                    continue;
                };
                if !addresses.contains(&address) || self.space(segment, at) != space {
                    continue;
                }
                let same = |at: usize| {
                    self.connection(uuid, mac, at).as_ref() == Some(&connection)
                        && self.space(segment, at) == space
                };
                let from = (0..=at).rev().take_while(|at| same(*at)).last().expect("at itself");
                claimants.push(Claimant {
                    uuid,
                    rank: RANKS[usize::from(source)],
                    from,
                    known,
                    yields: source == 2,
                });
            }
        }
        claimants
    }

    /// Whether nothing is said of a VM but by the source that is learned.
    fn is_learned(&self, uuid: u128) -> bool {
        let mut sources = self.said(uuid).map(|(source, _)| source).peekable();
        sources.peek().is_some() && sources.all(|source| source == 2)
    }

    /// By whom what is said of a VM.
    fn said(&self, uuid: u128) -> impl Iterator<Item = (u8, &Attribute)> {
        let of_vm = self.lines.iter().filter(move |((_, subject, _), line)| {
            *subject == Subject::Vm(Uuid(uuid)) && line.iter().any(Option::is_some)
        });
        of_vm.map(|((source, _, attribute), _)| (*source, attribute))
    }

    /// The lowest MAC address of which anything is said.
    fn first_mac(&self, uuid: u128) -> Option<Mac> {
        let interfaces = self.said(uuid).filter_map(|(_, attribute)| attribute.interface());
        interfaces.map(|id| id.mac).min()
    }

    /// The VM of which sources know the MAC address and no address: in the space, else anywhere.
    fn named_by_mac(&self, space: &str, mac: Mac, at: usize) -> Option<u128> {
        [Some(space), None].into_iter().find_map(|place| {
            let mut claimants: Vec<(u8, u128)> = Vec::new();
            for uuid in (0..VMS).filter(|uuid| !self.is_learned(*uuid)) {
                let Some((segment, addresses, source, _)) = self.connection(uuid, mac, at) else {
                    continue;
                };
                let is_there = match (place, segment) {
                    (None, segment) => segment.is_none(),
                    (Some(space), Some(segment)) => {
                        addresses == Value::addresses([]) && self.space(segment, at) == space
                    }
                    (Some(_), None) => false,
                };
                // The last rank is that of what is learned.
                claimants.extend(is_there.then_some((RANKS[usize::from(source)], uuid)));
            }
            claimants.sort_unstable();
            match &*claimants {
                [(first, _), (second, _), ..] if first == second => None,
                [(_, uuid), ..] => Some(*uuid),
                [] => None,
            }
        })
    }

    /// Who has an address, by what was learned as well, and all who claim it where that is a conflict.
    fn resolve(&self, space: &str, address: IpAddr, at: usize) -> (Option<u128>, BTreeSet<u128>) {
        let (holder, rivals) = self.holder(space, address, at);
        let learned = holder.filter(|holder| self.is_learned(*holder));
        let mac = learned.and_then(|learned| self.first_mac(learned));
        let named = mac.and_then(|mac| self.named_by_mac(space, mac, at));
        (named.or(holder), rivals)
    }

    /// Whose claim on an address counts, and all who claim it where that is a conflict.
    fn holder(&self, space: &str, address: IpAddr, at: usize) -> (Option<u128>, BTreeSet<u128>) {
        let claimants = self.claimants(space, address, at);
        let best = claimants.iter().min_by_key(|one| {
            (one.yields, one.rank, Reverse(one.from), Reverse(one.known), Reverse(one.uuid))
        });
        let Some(best) = best else { return (None, BTreeSet::new()) };
        let rivals = claimants.iter().filter(|one| best.yields || !one.yields);
        let rivals: BTreeSet<u128> = rivals.map(|one| one.uuid).collect();
        (Some(best.uuid), if rivals.len() > 1 { rivals } else { BTreeSet::new() })
    }
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
    let of_vm = (0..VMS, 0..MACS, 0..7_u8, 0..4_u8, 0..8_u8).prop_map(
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
    (0..3_u8, prop::collection::vec(change(), 1..6), scope)
        .prop_map(|(source, changes, scope)| (source, Batch { changes, scope }))
}

fn store() -> Store {
    let kinds = [SourceKind::File, SourceKind::Api, SourceKind::Learned];
    let sources = kinds.into_iter().zip(RANKS);
    let sources = sources.map(|(kind, rank)| SourceName { kind, name: kind.name().into(), rank });
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
            spaces.insert((model.space(segment(vni), at), space));
        }
        for (name, space) in spaces {
            for number in 0..ADDRESSES {
                let (wanted, rivals) = model.resolve(&name, address(number), at);
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
            }
        }
        for number in 0..VMS {
            let Some(vm) = inventory.entries().find(|(_, entry)| entry.history.uuid.0 == number)
            else {
                continue;
            };
            let host = model.heard(Subject::Vm(Uuid(number)), &Attribute::Host, at);
            let host = host.map(|(value, ..)| value);
            let found = vm.1.history.host_at(Timestamp(at as u64));
            prop_assert_eq!(found.cloned().map(Value::Text), host, "host of {} at {}", number, at);
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

/// Rows that are known now, by the changes of rows alone.
fn rows_known(changes: &[RowChange]) -> Vec<InventoryRow> {
    let mut known: Vec<(InventoryRow, Timestamp)> = Vec::new();
    for change in changes {
        let row = (*change.row).clone();
        match change.known_to {
            None => known.push((row, change.known_from)),
            Some(_) => {
                let place = known.iter().position(|old| *old == (row.clone(), change.known_from));
                known.swap_remove(place.expect("what ends was known"));
            }
        }
    }
    known.into_iter().map(|(row, _)| row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model(batches in prop::collection::vec(batch(), 1..14)) {
        let (mut store, mut model) = (store(), Model::default());
        let mut then = Vec::new();
        let mut rows = Vec::new();
        for (number, (source, batch)) in batches.into_iter().enumerate() {
            let known = 100 + number as u64;
            let before = store.snapshot();
            let same = before.clone();
            model.apply(source, known, &batch);
            store.apply(SourceId(source), Timestamp(known), batch);
            rows.extend(store.take_row_changes());
            compare(store.inventory(), &model)?;
            // What others hold does not change under their hands.
            prop_assert_eq!(before.conflicts(), same.conflicts());
            then.push((known, model.clone(), store.snapshot()));
        }
        for (known, model, snapshot) in &then {
            compare(&store.inventory().known_at(Timestamp(*known)), model)?;
            compare(snapshot, model)?;
        }
        // The rows say the same as look-ups: who has an address, and nobody else.
        let mut rows = rows_known(&rows);
        rows.retain(|row| row.attributed && row.address.is_some());
        for at in 0..INSTANTS {
            for vni in 0..VNIS {
                let space = store.inventory().spaces().at(segment(vni), Timestamp(at as u64));
                for number in 0..ADDRESSES {
                    let holders: BTreeSet<_> = rows.iter().filter(|row| {
                        row.space == Some(space)
                            && row.address == Some(address(number))
                            && row.valid.holds(Timestamp(at as u64))
                    }).map(|row| row.uuid.to_string()).collect();
                    let (asked, version) = Address::of_ip(address(number));
                    let found = store.inventory().resolve(space, asked, version, None, Timestamp(at as u64));
                    let found = found.and_then(|vm| store.inventory().vm(vm)).map(|vm| vm.uuid_text.to_string());
                    let learned = (0..VMS).filter(|uuid| model.is_learned(*uuid));
                    let learned: BTreeSet<_> = learned.map(|uuid| Uuid(uuid).to_string()).collect();
                    if holders.is_disjoint(&learned) {
                        prop_assert_eq!(holders, found.into_iter().collect::<BTreeSet<_>>());
                    } else {
                        // Look-ups may know a VM by the MAC address.
                        prop_assert!(found.is_some() && holders.len() == 1);
                    }
                }
            }
        }
    }
}
