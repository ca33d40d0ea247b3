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

    /// Who has an address, and all who claim it where that is a conflict.
    fn resolve(&self, space: &str, address: IpAddr, at: usize) -> (Option<u128>, BTreeSet<u128>) {
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
                    prop_assert_eq!(holders, found.into_iter().collect::<BTreeSet<_>>());
                }
            }
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
        let limits = StoreLimits { clock_skew_max_ns: 1 << 40, vms_max, facts_max };
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
                prop_assert_eq!(rows_by_name(&store), rows_by_name(&other));
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
