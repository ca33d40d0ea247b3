//! The store of facts: applies what sources say, and gives snapshots to look-ups.
//!
//! In: [`Batch`]es of sources, with the time at which they became known. Out: [`Inventory`] snapshots;
//! rows of the `inventory` table; counts of what was said, and why something was left out.
//! Cost: a change costs what its VM has facts, and the copy of one part of the look-up table; a
//! snapshot costs a reference for each part.
//! Invariants: one writer. Known time never runs backwards. Nothing is overwritten: a correction ends the
//! time in which the old fact was known. VMs, facts, interfaces, tags, addresses and texts are bounded, and
//! each rejection is counted by its reason.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::{Attribute, Batch, Change, InterfaceId, Missing, Scope, Subject};
use super::claims::Name;
use super::class::ClassRules;
use super::delta::{Restored, SubjectDelta};
use super::ends::Ends;
use super::fact::{Fact, Facts};
use super::history::VmHistory;
use super::lookup::VmEntry;
use super::precedence::SourceName;
use super::rows::{InventoryRow, RowChange, rows_of};
use super::sound::{Rejection, sound};
use super::source::{SourceId, SourceKind};
use super::spaces::Spaces;
use super::{AddressSpace, Inventory, InventoryData, Segment, Uuid, VmRef};
use crate::hash::KeyedMap;
use crate::time::{Timestamp, ms};

/// Interfaces of one VM at most.
pub const INTERFACES_MAX: usize = 64;
/// Tags of one VM at most.
pub const TAGS_MAX: usize = 64;

/// How much the store takes.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Virtual machines, ended ones included; where more come, those that ended longest ago are
    /// forgotten.
    pub vms_max: usize,
    /// Endpoints that were only learned, ended ones included; they take no place of a VM, and no VM
    /// takes one of theirs.
    pub learned_max: usize,
    /// Facts of one VM or segment, superseded ones included.
    pub facts_max: usize,
    /// How far ahead of the probe's clock a source may date what it says.
    pub clock_skew_max_ns: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            vms_max: 100_000,
            learned_max: 65_536,
            facts_max: 1_024,
            clock_skew_max_ns: ms(5_000),
        }
    }
}

/// What the store counts of one source.
#[derive(Clone, Debug, Default)]
pub struct SourceCounts {
    /// Changes received.
    pub changes: u64,
    /// Attributes of which nothing new was said.
    pub unchanged: u64,
    /// Changes that were left out, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Changes dated beyond the allowed skew.
    pub clamped: u64,
    /// How far changes were dated ahead at most.
    pub clock_ahead_max_ns: u64,
    /// When the last change became known.
    pub last_change: Option<Timestamp>,
    /// The time that it has itself.
    pub last_valid: Option<Timestamp>,
}

/// What the store counts in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreCounts {
    /// Batches applied.
    pub batches: u64,
    /// Attributes whose history changed.
    pub changed: u64,
    /// Old facts that were forgotten for lack of room.
    pub facts_forgotten: u64,
    /// Ended VMs that were forgotten for lack of room.
    pub vms_forgotten: u64,
    /// Learned endpoints that were over and were forgotten for lack of room.
    pub learned_forgotten: u64,
    /// Rows of the table that were left out because a VM has too many.
    pub rows_left_out: u64,
}

/// What is kept of a VM beside the snapshot.
#[derive(Default)]
struct Slot {
    names: Vec<Name>,
    segments: BTreeSet<Segment>,
    rows: Vec<(Arc<InventoryRow>, Timestamp)>,
    /// It counts as one of those that were only learned.
    learned: bool,
}

/// The store.
pub struct Store {
    inventory: Inventory,
    limits: StoreLimits,
    slots: Vec<Slot>,
    /// Slots of endpoints that were only learned.
    learned_slots: usize,
    /// Of these, those that are over, the one that ended longest ago first.
    learned_ended: BTreeSet<(Timestamp, VmRef)>,
    by_uuid: KeyedMap<Uuid, VmRef>,
    counts: Vec<SourceCounts>,
    totals: StoreCounts,
    rows_wanted: bool,
    row_changes: Vec<RowChange>,
    deltas_wanted: bool,
    deltas: Vec<SubjectDelta>,
}

impl Store {
    /// Empty.
    pub fn new(
        limits: StoreLimits,
        spaces: Spaces,
        rules: ClassRules,
        sources: Vec<SourceName>,
    ) -> Self {
        let counts = vec![SourceCounts::default(); sources.len()];
        let inventory = Inventory::empty(Arc::new(spaces), Arc::new(rules), sources.into());
        Self {
            inventory,
            limits,
            slots: Vec::new(),
            learned_slots: 0,
            learned_ended: BTreeSet::new(),
            by_uuid: KeyedMap::default(),
            counts,
            totals: StoreCounts::default(),
            rows_wanted: false,
            row_changes: Vec::new(),
            deltas_wanted: false,
            deltas: Vec::new(),
        }
    }

    /// With what one file says.
    pub(super) fn of_file(data: &InventoryData, rules: ClassRules) -> Self {
        let source = SourceName { kind: SourceKind::File, name: "file".into(), rank: 0 };
        let interfaces = data.vms.iter().flat_map(|vm| &vm.interfaces);
        let joined = interfaces
            .filter(|interface| interface.space != AddressSpace::of_segment(interface.segment))
            .map(|interface| (interface.segment, interface.space));
        let limits = StoreLimits { vms_max: usize::MAX, ..StoreLimits::default() };
        let mut store = Self::new(limits, Spaces::new([], joined), rules, vec![source]);
        store.apply(SourceId(0), Timestamp::ZERO, data.changes(None).into());
        store
    }

    /// Also makes rows of the table.
    #[must_use]
    pub fn with_rows(self) -> Self {
        Self { rows_wanted: true, ..self }
    }

    /// Other limits, of a store that knows nothing yet.
    #[cfg(test)]
    pub(super) fn limits(&mut self, limits: StoreLimits) {
        self.limits = limits;
    }

    /// Rows as they are known now.
    #[cfg(test)]
    pub(super) fn rows(&self) -> Vec<InventoryRow> {
        let rows = self.slots.iter().flat_map(|slot| &slot.rows);
        rows.map(|(row, _)| InventoryRow::clone(row)).collect()
    }

    /// Also notes what becomes of facts, for who takes it by [`Store::take_deltas`].
    pub fn note_deltas(&mut self) {
        self.deltas_wanted = true;
    }

    /// What became of facts since the last call.
    pub fn take_deltas(&mut self) -> Vec<SubjectDelta> {
        std::mem::take(&mut self.deltas)
    }

    /// Takes over what an earlier run knew, into a store that knows nothing yet. A row of the table is
    /// known since the newest fact that it is made of. Where there are more VMs than there may be, those
    /// that ended longest ago are left out, then the last ones.
    pub fn restore(&mut self, restored: Restored) {
        let known = restored.known;
        self.inventory.known = known;
        let (vms, segments) = restored.into_parts();
        let sources = Arc::clone(&self.inventory.sources);
        let facts_max = self.limits.facts_max;
        let spaces = Arc::make_mut(&mut self.inventory.spaces);
        for (segment, mut facts) in segments {
            self.totals.facts_forgotten += facts.forget(facts_max);
            if let Some(place) = spaces.facts_mut(segment) {
                *place = facts;
                spaces.resolve(segment, &sources);
            }
        }
        let entries = vms.into_iter().map(|(uuid, mut facts)| {
            self.totals.facts_forgotten += facts.forget(facts_max);
            VmEntry { history: VmHistory::new(uuid, &facts, &sources), facts }
        });
        let mut entries: Vec<VmEntry> = entries.collect();
        self.totals.vms_forgotten += leave_out(&mut entries, self.limits.vms_max);
        let mut restored = BTreeSet::new();
        for entry in entries {
            let uuid = entry.history.uuid;
            if let Some(vm) = self.inventory.push(Arc::new(entry)) {
                self.slots.push(Slot::default());
                self.by_uuid.insert(uuid, vm);
                restored.insert(vm);
            }
        }
        self.claim_anew(restored, known);
        self.date_rows();
    }

    /// Says of each row since when it is known, by the facts that it is made of.
    fn date_rows(&mut self) {
        self.row_changes.clear();
        for (vm, slot) in (0..).map(VmRef).zip(&mut self.slots) {
            let Some(entry) = self.inventory.entry(vm) else { continue };
            for (row, known) in &mut slot.rows {
                let facts = entry.facts.current().filter(|fact| is_of(fact, row));
                *known = facts.map(|fact| fact.known.from).max().unwrap_or(*known);
                let change = RowChange { row: Arc::clone(row), known_from: *known, known_to: None };
                self.row_changes.push(change);
            }
        }
    }

    /// What look-ups see from now on.
    pub fn snapshot(&self) -> Inventory {
        self.inventory.clone()
    }

    /// The newest state.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Counts of each source, by number.
    pub fn source_counts(&self) -> &[SourceCounts] {
        &self.counts
    }

    /// Counts in all.
    pub fn counts(&self) -> StoreCounts {
        self.totals
    }

    /// The changes of rows since the last call.
    pub fn take_row_changes(&mut self) -> Vec<RowChange> {
        std::mem::take(&mut self.row_changes)
    }

    /// Takes over what a source says. `true` where that changed anything.
    pub fn apply(&mut self, source: SourceId, known: Timestamp, batch: Batch) -> bool {
        let known = known.max(self.inventory.known);
        self.inventory.known = known;
        self.totals.batches += 1;
        let by_subject = self.sorted(source, known, batch);
        let mut changed = BTreeSet::new();
        let mut segments = BTreeSet::new();
        for (subject, changes) in by_subject {
            match subject {
                Subject::Vm(uuid) => changed.extend(self.vm(source, uuid, &changes, known)),
                Subject::Segment(segment) => {
                    if self.segment(source, segment, &changes, known) {
                        segments.insert(segment);
                    }
                }
            }
        }
        if !segments.is_empty() {
            let slots = (0..).map(VmRef).zip(&self.slots);
            let there = slots.filter(|(_, slot)| !slot.segments.is_disjoint(&segments));
            changed.extend(there.map(|(vm, _)| vm));
        }
        let changes_anything = !changed.is_empty() || !segments.is_empty();
        self.claim_anew(changed, known);
        changes_anything
    }

    /// The sound changes by subject, and what ends because it is not said again.
    fn sorted(
        &mut self,
        source: SourceId,
        known: Timestamp,
        batch: Batch,
    ) -> BTreeMap<Subject, Vec<Change>> {
        let mut by_subject: BTreeMap<Subject, Vec<Change>> = BTreeMap::new();
        for mut change in batch.changes {
            self.date(source, known, &mut change);
            match sound(&change) {
                Ok(()) => by_subject.entry(change.subject).or_default().push(change),
                Err(rejection) => self.reject(source, rejection, 1),
            }
        }
        let of_source = |at: Timestamp| if self.plans(source) { at } else { at.min(known) };
        match batch.scope {
            Scope::Some => {}
            Scope::Each { at } => self.end_of_each(source, of_source(at), &mut by_subject),
            Scope::All { at, missing } => {
                self.end_missing(source, of_source(at), missing, &mut by_subject);
            }
        }
        by_subject
    }

    fn plans(&self, source: SourceId) -> bool {
        self.kind(source).is_some_and(SourceKind::plans)
    }

    fn yields(&self, source: SourceId) -> bool {
        self.kind(source).is_some_and(SourceKind::yields)
    }

    fn kind(&self, source: SourceId) -> Option<SourceKind> {
        self.inventory.sources.get(usize::from(source.0)).map(|source| source.kind)
    }

    /// Counts a change, and bounds how far ahead it is dated.
    fn date(&mut self, source: SourceId, known: Timestamp, change: &mut Change) {
        let (plans, skew_max_ns) = (self.plans(source), self.limits.clock_skew_max_ns);
        let Some(counts) = self.counts.get_mut(usize::from(source.0)) else { return };
        counts.changes += 1;
        counts.last_change = Some(known);
        counts.last_valid = Some(change.from);
        if plans {
            return;
        }
        let ahead_ns = change.from.since_ns(known);
        counts.clock_ahead_max_ns = counts.clock_ahead_max_ns.max(ahead_ns);
        if ahead_ns > skew_max_ns {
            counts.clamped += 1;
            change.from = known;
        }
    }

    fn reject(&mut self, source: SourceId, rejection: Rejection, changes: usize) {
        if let Some(counts) = self.counts.get_mut(usize::from(source.0)) {
            *counts.rejected.entry(rejection.name()).or_default() += changes as u64;
        }
    }

    /// What a source said before, of a time after `at`, of the VMs that it names again.
    fn end_of_each(
        &self,
        source: SourceId,
        at: Timestamp,
        by_subject: &mut BTreeMap<Subject, Vec<Change>>,
    ) {
        for (subject, changes) in by_subject {
            let Subject::Vm(uuid) = subject else { continue };
            let entry = self.by_uuid.get(uuid).and_then(|vm| self.inventory.entry(*vm));
            let ends = Ends { source, at, missing: Missing::Ended, subject: *subject };
            let ended = entry.map(|entry| ends.of_vm(&entry.facts, changes));
            changes.extend(ended.into_iter().flatten());
        }
    }

    /// All that a source said before of a time after `at`, and that it does not repeat.
    fn end_missing(
        &self,
        source: SourceId,
        at: Timestamp,
        missing: Missing,
        by_subject: &mut BTreeMap<Subject, Vec<Change>>,
    ) {
        for (_, entry) in self.inventory.entries() {
            let subject = Subject::Vm(entry.history.uuid);
            let said = by_subject.get(&subject).map(Vec::as_slice).unwrap_or_default();
            let ends = Ends { source, at, missing, subject };
            let ended = ends.of_vm(&entry.facts, said);
            if !ended.is_empty() {
                by_subject.entry(subject).or_default().extend(ended);
            }
        }
        for (segment, facts) in self.inventory.spaces.facts() {
            let subject = Subject::Segment(*segment);
            if let Entry::Vacant(unsaid) = by_subject.entry(subject) {
                let ends = Ends { source, at, missing: Missing::Unsaid, subject };
                let ended = ends.of_vm(facts, &[]);
                if !ended.is_empty() {
                    unsaid.insert(ended);
                }
            }
        }
    }

    fn vm(
        &mut self,
        source: SourceId,
        uuid: Uuid,
        changes: &[Change],
        known: Timestamp,
    ) -> Option<VmRef> {
        let there = self.by_uuid.get(&uuid).copied();
        // Of a VM that nobody has spoken of there is nothing to be said no more.
        if there.is_none() && changes.iter().all(|change| change.value.is_none()) {
            self.count(source, 0, changes.len() as u64, 0);
            return None;
        }
        let learned = self.yields(source);
        let Some(vm) = there.or_else(|| self.add(uuid, learned, known)) else {
            let full = if learned { Rejection::LearnedFull } else { Rejection::VmsFull };
            self.reject(source, full, changes.len());
            return None;
        };
        let changes = self.within_bounds(source, vm, changes);
        let facts_max = self.limits.facts_max;
        let sources = Arc::clone(&self.inventory.sources);
        // What says nothing new copies nothing.
        let mut facts = self.inventory.entry(vm)?.facts.clone();
        let applied = facts.apply(source, &changes, known, facts_max);
        self.count(source, applied.changed, applied.unchanged, applied.forgotten);
        if applied.changed == 0 {
            return None;
        }
        let history = VmHistory::new(uuid, &facts, &sources);
        self.note_facts(vm, source, &facts);
        self.put(vm, VmEntry { history, facts });
        Some(vm)
    }

    /// Notes what becomes of a VM's facts by what a source said; what is only learned is not noted, for
    /// packets say it again.
    fn note_facts(&mut self, vm: VmRef, source: SourceId, facts: &Facts) {
        if !self.deltas_wanted || self.yields(source) {
            return;
        }
        let Some(before) = self.inventory.entry(vm) else { return };
        let subject = Subject::Vm(before.history.uuid);
        self.deltas.push(SubjectDelta::Facts(subject, facts.since(&before.facts)));
    }

    /// Puts an entry in its place, and keeps count of those that were only learned.
    fn put(&mut self, vm: VmRef, entry: VmEntry) {
        let ended = |history: &VmHistory| history.ended().filter(|_| history.learned);
        let after = (entry.history.learned, ended(&entry.history));
        let Some(place) = self.inventory.entry_mut(vm) else { return };
        let before = (place.history.learned, ended(&place.history));
        *place = entry;
        self.inventory.learned_count += usize::from(after.0);
        self.inventory.learned_count -= usize::from(before.0);
        if let Some(at) = before.1 {
            self.learned_ended.remove(&(at, vm));
        }
        if let Some(at) = after.1 {
            self.learned_ended.insert((at, vm));
        }
    }

    fn count(&mut self, source: SourceId, changed: u64, unchanged: u64, forgotten: u64) {
        self.totals.changed += changed;
        self.totals.facts_forgotten += forgotten;
        if let Some(counts) = self.counts.get_mut(usize::from(source.0)) {
            counts.unchanged += unchanged;
        }
    }

    /// Without what would give the VM too many interfaces or tags.
    fn within_bounds(&mut self, source: SourceId, vm: VmRef, changes: &[Change]) -> Vec<Change> {
        let history = self.inventory.vm(vm);
        let known = history.into_iter().flat_map(|history| &history.interfaces);
        let mut interfaces: BTreeSet<InterfaceId> = known.map(|interface| interface.id).collect();
        let tags = history.into_iter().flat_map(|history| history.tags.keys());
        let mut tags: BTreeSet<Arc<str>> = tags.cloned().collect();
        let mut within = Vec::with_capacity(changes.len());
        for change in changes {
            let mut full = None;
            if let Some(id) = change.attribute.interface()
                && interfaces.insert(id)
                && interfaces.len() > INTERFACES_MAX
            {
                interfaces.remove(&id);
                full = Some(Rejection::InterfacesFull);
            }
            if let Attribute::Tag(name) = &change.attribute
                && tags.insert(Arc::clone(name))
                && tags.len() > TAGS_MAX
            {
                tags.remove(name);
                full = Some(Rejection::TagsFull);
            }
            match full {
                None => within.push(change.clone()),
                Some(rejection) => self.reject(source, rejection, 1),
            }
        }
        within
    }

    /// A place for a new VM, or for who is only learned: a free one, else that of the one of the same
    /// sort that ended longest ago.
    fn add(&mut self, uuid: Uuid, learned: bool, known: Timestamp) -> Option<VmRef> {
        let history =
            VmHistory { uuid, uuid_text: uuid.to_string().into(), ..VmHistory::default() };
        let entry = VmEntry { history, facts: Facts::default() };
        let has_room = if learned {
            self.learned_slots < self.limits.learned_max
        } else {
            self.slots.len() - self.learned_slots < self.limits.vms_max
        };
        let vm = if has_room {
            self.slots.push(Slot { learned, ..Slot::default() });
            self.learned_slots += usize::from(learned);
            self.inventory.push(Arc::new(entry))?
        } else {
            let vm = self.ended(learned, known)?;
            self.forget(vm);
            self.put(vm, entry);
            vm
        };
        self.by_uuid.insert(uuid, vm);
        Some(vm)
    }

    /// The VM, or the learned endpoint, that ended longest ago.
    fn ended(&self, learned: bool, known: Timestamp) -> Option<VmRef> {
        if learned {
            let (at, vm) = *self.learned_ended.first()?;
            return (at <= known).then_some(vm);
        }
        let vms = self.inventory.entries().zip(&self.slots).filter(|(_, slot)| !slot.learned);
        let ended = vms.filter_map(|((vm, entry), _)| {
            let at = entry.history.ended().filter(|at| *at <= known)?;
            Some((at, vm))
        });
        ended.min().map(|(_, vm)| vm)
    }

    /// Forgets one; its rows of the table stay as they are.
    fn forget(&mut self, vm: VmRef) {
        let Some(uuid) = self.inventory.vm(vm).map(|history| history.uuid) else { return };
        self.by_uuid.remove(&uuid);
        self.put(vm, VmEntry::default());
        let place = usize::try_from(vm.0).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get_mut(place) else { return };
        let learned = slot.learned;
        let before = std::mem::replace(slot, Slot { learned, ..Slot::default() });
        self.inventory.claim(vm, &before.names);
        if !learned {
            self.count_segments(&before.segments, &BTreeSet::new());
        }
        if self.deltas_wanted && !learned {
            self.deltas.push(SubjectDelta::Forgotten(uuid));
        }
        self.totals.vms_forgotten += u64::from(!learned);
        self.totals.learned_forgotten += u64::from(learned);
    }

    fn segment(
        &mut self,
        source: SourceId,
        segment: Segment,
        changes: &[Change],
        known: Timestamp,
    ) -> bool {
        let facts_max = self.limits.facts_max;
        let sources = Arc::clone(&self.inventory.sources);
        let spaces = Arc::make_mut(&mut self.inventory.spaces);
        let Some(facts) = spaces.facts_mut(segment) else {
            self.reject(source, Rejection::SpacesFull, changes.len());
            return false;
        };
        let before = self.deltas_wanted.then(|| facts.clone());
        let applied = facts.apply(source, changes, known, facts_max);
        if let Some(before) = before.filter(|_| applied.changed > 0) {
            let delta = facts.since(&before);
            self.deltas.push(SubjectDelta::Facts(Subject::Segment(segment), delta));
        }
        let whole = applied.changed == 0 || spaces.resolve(segment, &sources);
        if !whole {
            self.reject(source, Rejection::SpacesFull, 1);
        }
        self.count(source, applied.changed, applied.unchanged, applied.forgotten);
        applied.changed > 0
    }

    /// Makes claims and rows of VMs anew, and rows of those that claim the same.
    fn claim_anew(&mut self, changed: BTreeSet<VmRef>, known: Timestamp) {
        let mut affected = changed.clone();
        for vm in changed {
            let place = usize::try_from(vm.0).unwrap_or(usize::MAX);
            let Some(slot) = self.slots.get_mut(place) else { continue };
            let before = std::mem::take(&mut slot.names);
            let segments_before = std::mem::take(&mut slot.segments);
            let names = self.inventory.claim(vm, &before);
            if self.rows_wanted {
                affected.extend(self.inventory.claimants(&before));
                affected.extend(self.inventory.claimants(&names));
            }
            let segments = self.inventory.vm(vm).map(segments_of).unwrap_or_default();
            // A segment is not known by what was only learned there.
            if !self.slots[place].learned {
                self.count_segments(&segments_before, &segments);
            }
            self.slots[place].names = names;
            self.slots[place].segments = segments;
        }
        if self.rows_wanted {
            for vm in affected {
                self.rows_anew(vm, known);
            }
        }
    }

    fn count_segments(&mut self, before: &BTreeSet<Segment>, after: &BTreeSet<Segment>) {
        if before == after {
            return;
        }
        let segments = Arc::make_mut(&mut self.inventory.segments);
        for segment in after.difference(before) {
            *segments.entry(*segment).or_default() += 1;
        }
        for segment in before.difference(after) {
            let left = segments.get_mut(segment).map(|count| {
                *count -= 1;
                *count
            });
            if left == Some(0) {
                segments.remove(segment);
            }
        }
    }

    fn rows_anew(&mut self, vm: VmRef, known: Timestamp) {
        let (rows, left_out) = rows_of(&self.inventory, vm);
        self.totals.rows_left_out += left_out;
        let Some(slot) = usize::try_from(vm.0).ok().and_then(|at| self.slots.get_mut(at)) else {
            return;
        };
        let mut before = std::mem::take(&mut slot.rows);
        for row in rows {
            if let Some(place) = before.iter().position(|(old, _)| **old == row) {
                slot.rows.push(before.swap_remove(place));
                continue;
            }
            let row = Arc::new(row);
            let change = RowChange { row: Arc::clone(&row), known_from: known, known_to: None };
            self.row_changes.push(change);
            slot.rows.push((row, known));
        }
        for (row, known_from) in before {
            self.row_changes.push(RowChange { row, known_from, known_to: Some(known) });
        }
    }
}

/// Leaves out VMs beyond so many; says how many.
fn leave_out(entries: &mut Vec<VmEntry>, vms_max: usize) -> u64 {
    let excess = entries.len().saturating_sub(vms_max);
    if excess == 0 {
        return 0;
    }
    let ended =
        entries.iter().filter_map(|entry| Some((entry.history.ended()?, entry.history.uuid)));
    let mut ended: Vec<_> = ended.collect();
    ended.sort_unstable();
    let gone: BTreeSet<Uuid> = ended.into_iter().take(excess).map(|(_, uuid)| uuid).collect();
    entries.retain(|entry| !gone.contains(&entry.history.uuid));
    entries.truncate(vms_max);
    excess as u64
}

/// Whether a row is made of a fact.
fn is_of(fact: &Fact, row: &InventoryRow) -> bool {
    let interface = fact.attribute.interface();
    let of_row = interface.is_none_or(|id| row.mac.is_none_or(|mac| mac == id.mac));
    of_row && !matches!(fact.attribute, Attribute::Tag(_)) && fact.valid.and(row.valid).is_some()
}

fn segments_of(history: &VmHistory) -> BTreeSet<Segment> {
    let spans = history.interfaces.iter().flat_map(|interface| interface.connections.spans());
    spans.filter_map(|(_, connection)| connection.segment).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::inventory::{Address, Mac, Statement};

    fn store(vms_max: usize) -> Store {
        let source = SourceName { kind: SourceKind::Ovsdb, name: "s".into(), rank: 0 };
        let limits = StoreLimits { vms_max, ..StoreLimits::default() };
        Store::new(limits, Spaces::default(), ClassRules::default(), vec![source]).with_rows()
    }

    fn vm(number: u8, at: u64) -> Statement {
        let mac = Mac([2, 0, 0, 0, 0, number]);
        let address = IpAddr::from([10, 0, 0, number]);
        Statement::new(Uuid(number.into()), Timestamp(at))
            .exists(true)
            .segment(mac, Segment::NONE)
            .addresses(mac, [address])
    }

    fn say(store: &mut Store, statement: Statement, known: u64) {
        store.apply(SourceId(0), Timestamp(known), statement.into());
    }

    fn who(store: &Store, number: u8, at: u64) -> Option<u128> {
        let address = Address::v4([10, 0, 0, number]);
        let inventory = store.inventory();
        let found = inventory.resolve(AddressSpace::default(), address, 4, None, Timestamp(at));
        found.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid.0)
    }

    #[test]
    fn what_ended_longest_ago_makes_room_and_what_is_there_does_not() {
        let mut store = store(3);
        for number in 1..=3 {
            say(&mut store, vm(number, 10), 10);
        }
        say(&mut store, vm(4, 20), 20);
        assert_eq!(store.source_counts()[0].rejected.get("vms_full"), Some(&3));
        assert_eq!((who(&store, 4, 30), store.counts().vms_forgotten), (None, 0));
        say(&mut store, Statement::new(Uuid(2), Timestamp(22)).exists(false), 22);
        say(&mut store, Statement::new(Uuid(3), Timestamp(21)).exists(false), 23);
        say(&mut store, vm(4, 24), 24);
        assert_eq!(store.counts().vms_forgotten, 1);
        let found: Vec<_> = (1..=4).map(|number| who(&store, number, 15)).collect();
        assert_eq!(found, [Some(1), Some(2), None, None], "the third ended first");
        assert_eq!(who(&store, 4, 30), Some(4));
        assert_eq!(store.inventory().vm_count(), 3);
        assert!(store.inventory().knows_segment(Segment::NONE));
    }

    #[test]
    fn an_interface_without_a_segment_is_known_by_its_mac_address_anywhere() {
        let mut store = store(9);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        say(&mut store, Statement::new(Uuid(1), Timestamp(5)).attached(mac, true), 5);
        let inventory = store.inventory();
        let space =
            AddressSpace::of_segment(Segment::new(0, crate::inventory::SegmentKind::Vlan, 9));
        let address = Address::v4([192, 0, 2, 1]);
        assert!(inventory.resolve(space, address, 4, Some(mac), Timestamp(6)).is_some());
        assert!(inventory.resolve(space, address, 4, None, Timestamp(6)).is_none());
        let rows = store.take_row_changes();
        assert_eq!((rows[0].row.space, rows[0].row.attributed), (None, true));
    }

    #[test]
    fn what_is_only_learned_is_noted_for_no_restart() {
        let named = |kind| SourceName { kind, name: "s".into(), rank: 0 };
        let sources = [SourceKind::Ovsdb, SourceKind::Learned].map(named).into();
        let limits = StoreLimits { learned_max: 1, ..StoreLimits::default() };
        let mut store = Store::new(limits, Spaces::default(), ClassRules::default(), sources);
        store.note_deltas();
        say(&mut store, vm(1, 10), 10);
        store.apply(SourceId(1), Timestamp(11), vm(2, 11).into());
        let ended = Statement::new(Uuid(2), Timestamp(12)).exists(false);
        store.apply(SourceId(1), Timestamp(12), ended.into());
        // The next one takes its place.
        store.apply(SourceId(1), Timestamp(13), vm(3, 13).into());
        assert_eq!(store.counts().learned_forgotten, 1);
        let noted = store.take_deltas();
        let of_first =
            |delta: &SubjectDelta| matches!(delta, SubjectDelta::Facts(Subject::Vm(Uuid(1)), _));
        assert!(noted.len() == 1 && noted.iter().all(of_first), "{noted:?}");
        let subjects: Vec<_> = store.inventory().subjects().map(|(subject, _)| subject).collect();
        assert_eq!(subjects, [Subject::Vm(Uuid(1))]);
    }

    #[test]
    fn known_time_never_runs_backwards() {
        let mut store = store(9);
        say(&mut store, vm(1, 10), 100);
        say(&mut store, vm(2, 10), 50);
        let facts = store.inventory().entries().flat_map(|(_, entry)| entry.facts.all());
        assert!(facts.map(|fact| fact.known.from.0).all(|known| known == 100));
    }

    #[test]
    fn a_vm_has_a_bounded_number_of_interfaces_and_tags() {
        let mut store = store(9);
        let mut statement = Statement::new(Uuid(1), Timestamp(1));
        for number in 0..100_u8 {
            statement = statement.attached(Mac([2, 0, 0, 0, 0, number]), true);
            statement = statement.tag(format!("tag-{number}"), "x");
        }
        say(&mut store, statement, 1);
        let rejected = &store.source_counts()[0].rejected;
        assert_eq!((rejected["interfaces_full"], rejected["tags_full"]), (36, 36));
        let (_, entry) = store.inventory().entries().next().expect("one VM");
        assert_eq!((entry.history.interfaces.len(), entry.history.tags.len()), (64, 64));
    }
}
