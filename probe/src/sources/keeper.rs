//! The one thread that keeps the store of facts.
//!
//! In: batches of all sources. Out: snapshots for look-ups, maps for workers, rows of the `inventory`
//! table, the status, the journal.
//! Cost: what the changes cost; nothing while nothing changes but a look at the states of sources.
//! Invariants: changes apply in the order in which they were sent, each batch as a whole. Rows that the
//! aggregation thread does not take wait here, at most [`ROWS_WAITING_MAX`]; beyond it they are lost and
//! counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::handle::{Inbox, Received, SourceHandle, SourceSpec};
use super::journal::{Journal, JournalPlan, JournalStatus};
use super::ovsdb::{self, CoverageMap};
use super::requests::{RequestNote, Requests};
use super::segments::{MapCell, segment_map};
use super::status::{InventoryStatus, StatusCell, conflicts};
use crate::config::{Plan, Problems};
use crate::inventory::{
    Batch, ClassRules, Inventory, InventoryCell, LineNames, RowChange, SegmentMap, SourceId,
    SourceName, Spaces, Store, StoreLimits,
};
use crate::time::{Timestamp, monotonic_ns, ms, wall_clock};

/// Rows on their way to the aggregation thread at most.
const ROW_QUEUE: usize = 1 << 16;
/// Rows that wait for that way at most.
pub const ROWS_WAITING_MAX: usize = 1 << 21;
/// How long the keeper waits for a batch before it looks at the states of sources.
const WAIT_MS: u64 = 100;
/// Batches that are applied before look-ups see them, where many wait.
const BATCHES_AT_ONCE: usize = 256;
/// How often the map is made anew although nothing changed: times of facts come.
const MAP_AGAIN_NS: u64 = 10_000_000_000;

/// The log tells of new conflicts once in so much time.
const CONFLICTS_SAID_NS: u64 = 10_000_000_000;

/// Rows on their way to the aggregation thread.
pub type RowQueue = Arc<ArrayQueue<RowChange>>;

/// What others hold of the inventory.
#[derive(Clone, Debug)]
pub struct InventoryView {
    /// The newest snapshot.
    pub inventory: InventoryCell,
    /// The newest map of segments.
    pub maps: Arc<MapCell>,
    /// How the sources are doing.
    pub status: StatusCell,
    /// Rows of the `inventory` table to come.
    pub rows: RowQueue,
}

impl InventoryView {
    /// Of an inventory that nobody changes.
    pub fn of(inventory: Inventory) -> Self {
        Self {
            inventory: inventory.into_cell(),
            maps: Arc::default(),
            status: StatusCell::default(),
            rows: Arc::new(ArrayQueue::new(1)),
        }
    }
}

/// The store with all its ways in and out.
pub struct Keeper {
    plan: Arc<Plan>,
    store: Store,
    inbox: Inbox,
    view: InventoryView,
    rows_waiting: VecDeque<RowChange>,
    rows_lost: u64,
    /// Maps that some worker still holds: they are freed here.
    maps_before: Vec<Arc<SegmentMap>>,
    map_at: Timestamp,
    conflicts_before: usize,
    conflicts_said_at: Timestamp,
    coverage: Arc<CoverageMap>,
    /// The sources are files of packets, whose time is not the clock's.
    replays: bool,
    journal: Option<Journal>,
    requests: Requests,
    /// Sources that an earlier run has heard.
    heard: Vec<SourceId>,
}

impl Keeper {
    /// Without anything known. `specs`: all sources; a handle for each comes back in the same order.
    pub fn new(
        plan: &Arc<Plan>,
        specs: Vec<SourceSpec>,
        stop: Arc<AtomicBool>,
        replays: bool,
        now: Timestamp,
    ) -> (Self, Vec<SourceHandle>) {
        let mut inbox = Inbox::new(stop);
        let names = specs.iter().map(|spec| SourceName {
            kind: spec.kind,
            name: spec.name.as_str().into(),
            rank: spec.rank,
        });
        let names = names.collect();
        let handles = specs.into_iter().filter_map(|spec| inbox.register(spec, now)).collect();
        let store = Store::new(limits(plan), spaces(plan), rules(plan), names).with_rows();
        let view = InventoryView {
            inventory: store.snapshot().into_cell(),
            maps: Arc::default(),
            status: StatusCell::default(),
            rows: Arc::new(ArrayQueue::new(ROW_QUEUE)),
        };
        // A replay asks no switch.
        let databases = plan.inventory.ovsdb.iter().filter(|_| !replays);
        let keeper = Self {
            plan: Arc::clone(plan),
            store,
            inbox,
            view,
            rows_waiting: VecDeque::new(),
            rows_lost: 0,
            maps_before: Vec::new(),
            map_at: Timestamp::ZERO,
            conflicts_before: 0,
            conflicts_said_at: Timestamp::ZERO,
            coverage: Arc::new(CoverageMap::new(databases.map(ovsdb::source_name))),
            replays,
            journal: None,
            requests: Requests::default(),
            heard: Vec::new(),
        };
        (keeper, handles)
    }

    /// Knows again what the journal of an earlier run tells, and keeps it from now on. To be called before
    /// anything else is known.
    ///
    /// # Errors
    /// A file that is no journal, or is of a newer version, or another process keeps.
    pub fn keep_journal(&mut self, plan: JournalPlan) -> Result<(), Problems> {
        let sources = self.store.inventory().sources();
        let names = LineNames { sources: sources.into(), domains: self.plan.domains.clone() };
        let numbers = (0..).map(SourceId).take(sources.len());
        let (mut journal, mut recovered) = Journal::open(plan, names)?;
        let (now, known) = (wall_clock(), recovered.restored.known);
        let skew_max_ns = limits(&self.plan).clock_skew_max_ns;
        let facts = recovered.restored.bound_known(now, skew_max_ns);
        if facts > 0 || recovered.restored.known < known {
            let ahead_s = known.since_ns(now) / 1_000_000_000;
            tracing::warn!(
                ahead_s,
                facts,
                "the clock of an earlier run was ahead: what became known then counts as known now"
            );
            journal.write_anew();
        }
        self.heard = numbers.filter(|source| recovered.restored.speaks(*source)).collect();
        self.store.restore(recovered.restored);
        self.store.note_deltas();
        self.requests = recovered.requests;
        self.journal = Some(journal);
        Ok(())
    }

    /// Requests that changed the inventory, as an earlier run remembers them.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Whether an earlier run has heard a source.
    pub fn has_heard(&self, source: SourceId) -> bool {
        self.heard.contains(&source)
    }

    /// What others hold.
    pub fn view(&self) -> &InventoryView {
        &self.view
    }

    /// Where the sources write what switches mirror.
    pub fn coverage(&self) -> &Arc<CoverageMap> {
        &self.coverage
    }

    /// The store, to ask it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Applies a batch at once, where no thread keeps the store.
    /// `true` where that changed anything.
    pub fn apply(&mut self, source: SourceId, known: Timestamp, batch: Batch) -> bool {
        self.store.apply(source, known, batch)
    }

    /// Lets look-ups see what was applied, where no thread keeps the store.
    pub fn show(&mut self, now: Timestamp) {
        self.say_conflicts(now);
        self.view.inventory.store(Arc::new(self.store.snapshot()));
        self.publish_status(now);
    }

    /// Rows known so far, for the first window, however many there are.
    pub fn take_rows(&mut self) -> Vec<RowChange> {
        self.store.take_row_changes()
    }

    /// Lets all others see what is known.
    pub fn publish(&mut self, now: Timestamp) {
        self.view.inventory.store(Arc::new(self.store.snapshot()));
        self.publish_map(now);
        self.publish_status(now);
    }

    /// Applies what waits and lets others see it; waits for the first batch at most so long. `true`
    /// where anything came.
    pub fn turn(&mut self, wait_ms: u64) -> bool {
        let first = self.inbox.next(wait_ms);
        let came = first.is_some();
        let (mut changed, mut notes) = (false, Vec::new());
        let more = std::iter::from_fn(|| self.inbox.next(0));
        let batches: Vec<Received> = first.into_iter().chain(more).take(BATCHES_AT_ONCE).collect();
        // What is only learned is in no map.
        let mut maps_change = false;
        for Received { source, known, batch, note } in batches {
            let applied = self.store.apply(source, known, batch);
            changed |= applied;
            maps_change |= applied && !self.only_fills(source);
            if !note.is_empty() {
                self.requests.note(&note);
                notes.push(note);
            }
        }
        let now = wall_clock();
        if changed {
            self.say_conflicts(now);
            // Who sees what is known finds it counted.
            self.publish_status(now);
            self.view.inventory.store(Arc::new(self.store.snapshot()));
        }
        if maps_change || now.since_ns(self.map_at) > MAP_AGAIN_NS {
            self.publish_map(now);
        }
        self.pass_rows_on(Timestamp(u64::MAX));
        self.maps_before.retain(|map| Arc::strong_count(map) > 1);
        self.write_journal(&notes);
        self.publish_status(now);
        came
    }

    fn only_fills(&self, source: SourceId) -> bool {
        let source = self.store.inventory().sources().get(usize::from(source.0));
        source.is_some_and(|source| source.kind.yields())
    }

    /// After look-ups have seen it.
    fn write_journal(&mut self, notes: &[RequestNote]) {
        let Some(journal) = &mut self.journal else { return };
        let deltas = self.store.take_deltas();
        let inventory = self.store.inventory();
        journal.note(inventory.known(), &deltas, notes);
        journal.turn(inventory, &self.requests, monotonic_ns());
    }

    /// Until the end is told and all that was sent before it is applied.
    pub fn run(mut self, stop: &AtomicBool) {
        loop {
            // First, so that what was sent while it was not so is in the turn.
            let stops = stop.load(Ordering::SeqCst);
            if !self.turn(WAIT_MS) && stops {
                break;
            }
        }
        if let Some(journal) = self.journal.take() {
            journal.close(self.store.inventory(), &self.requests, monotonic_ns());
        }
    }

    fn publish_map(&mut self, now: Timestamp) {
        self.map_at = now;
        // What happened to be valid today says nothing of a capture, and the same capture gives the same
        // records every day.
        let at = (!self.replays).then_some(now);
        let map = segment_map(&self.plan, self.store.inventory(), at);
        if *self.view.maps.load() != map {
            self.maps_before.push(self.view.maps.publish(map));
        }
    }

    /// Hands rows on that became known, or known to be otherwise, before `end`.
    pub fn pass_rows_on(&mut self, end: Timestamp) {
        self.rows_waiting.extend(self.store.take_row_changes());
        let told = |row: &RowChange| row.known_to.unwrap_or(row.known_from);
        while let Some(row) = self.rows_waiting.front().filter(|row| told(row) < end) {
            if self.view.rows.push(row.clone()).is_err() {
                break;
            }
            self.rows_waiting.pop_front();
        }
        let excess = self.rows_waiting.len().saturating_sub(ROWS_WAITING_MAX);
        if excess > 0 {
            self.rows_waiting.truncate(ROWS_WAITING_MAX);
            self.rows_lost += excess as u64;
            tracing::warn!(rows = excess, "rows of the inventory table were lost");
        }
    }

    /// In the log, where there are more than before; not again and again, for who forges ARP packets
    /// makes one after another.
    fn say_conflicts(&mut self, now: Timestamp) {
        let count = self.store.inventory().conflict_count();
        let soon = now.since_ns(self.conflicts_said_at) < CONFLICTS_SAID_NS;
        if count > self.conflicts_before && soon {
            return;
        }
        if count > self.conflicts_before {
            self.conflicts_said_at = now;
            let inventory = self.store.inventory();
            let newest = conflicts(inventory, &self.plan.domains);
            let example = newest.iter().max_by_key(|conflict| conflict.valid_from_ns);
            if let Some(example) = example {
                tracing::warn!(
                    conflicts = count,
                    claimed = example.claimed,
                    address_space = example.address_space,
                    attributed = example.attributed,
                    claimants = ?example.claimants,
                    "several VMs claim one address at once"
                );
            }
        }
        self.conflicts_before = count;
    }

    fn publish_status(&mut self, now: Timestamp) {
        let inventory = self.store.inventory();
        let totals = self.store.counts();
        let mut sources = self.inbox.health(now);
        for (health, counts) in sources.iter_mut().zip(self.store.source_counts()) {
            health.changes = counts.changes;
            health.unchanged = counts.unchanged;
            health.clamped_changes = counts.clamped;
            health.clock_ahead_max_ns = counts.clock_ahead_max_ns;
            health.last_change_ns = counts.last_change.map(|at| at.0);
            health.last_valid_ns = counts.last_valid.map(|at| at.0);
            health.rejected.extend(counts.rejected.iter().map(|(name, count)| (*name, *count)));
        }
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.view.status.store(Arc::new(InventoryStatus {
            vms: count(inventory.vm_count()),
            learned: count(inventory.learned_count()),
            known_ns: inventory.known().0,
            batches: totals.batches,
            changed: totals.changed,
            facts_forgotten: totals.facts_forgotten,
            vms_forgotten: totals.vms_forgotten,
            learned_forgotten: totals.learned_forgotten,
            rows_lost: self.rows_lost + totals.rows_left_out,
            conflicts: count(inventory.conflict_count()),
            conflict_list: conflicts(inventory, &self.plan.domains),
            sources,
            switches: self.coverage.load(),
            journal: self.journal.as_ref().map_or_else(JournalStatus::default, Journal::status),
        }));
    }
}

fn limits(plan: &Plan) -> StoreLimits {
    StoreLimits {
        vms_max: plan.inventory.vms_max as usize,
        learned_max: plan.inventory.learned.endpoints_max(),
        facts_max: plan.inventory.facts_per_vm_max as usize,
        clock_skew_max_ns: ms(plan.inventory.clock_skew_max_ms.into()),
    }
}

fn spaces(plan: &Plan) -> Spaces {
    let names = plan.spaces.iter().map(|space| space.name.as_str().into());
    let joined = plan
        .spaces
        .iter()
        .flat_map(|space| space.segments.iter().map(|segment| (*segment, space.space)));
    Spaces::new(names, joined)
}

/// The classes of a plan.
pub fn rules(plan: &Plan) -> ClassRules {
    let tenants = plan.inventory.shared_tenants.iter();
    ClassRules {
        home_networks: plan.inventory.home_networks.clone(),
        shared_tenants: tenants.map(|tenant| tenant.as_str().into()).collect(),
        shared_networks: plan.inventory.shared_networks.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{
        Address, AddressSpace, Mac, Segment, SegmentKind, SourceKind, Statement, Uuid, joined,
    };

    const SEGMENT: Segment = Segment::new(0, SegmentKind::Vxlan, 7);

    fn keeper(kinds: &[SourceKind]) -> (Keeper, Vec<SourceHandle>) {
        let spec = |(rank, kind): (u8, &SourceKind)| SourceSpec {
            kind: *kind,
            name: kind.name().to_owned(),
            rank,
            stale_after_ms: None,
        };
        let specs = (0..).zip(kinds).map(spec).collect();
        Keeper::new(&Arc::default(), specs, Arc::default(), false, Timestamp(1))
    }

    fn vm(uuid: u128, from: Timestamp) -> Statement {
        let [.., last] = uuid.to_be_bytes();
        let mac = Mac([2, 0, 0, 0, 0, last]);
        let address = "10.0.0.1".parse().expect("an address");
        Statement::new(Uuid(uuid), from).segment(mac, SEGMENT).addresses(mac, [address])
    }

    fn who(keeper: &Keeper, at: Timestamp) -> Option<u128> {
        let inventory = keeper.view().inventory.load();
        let space = inventory.spaces().at(SEGMENT, at);
        let found = inventory.resolve(space, Address::v4([10, 0, 0, 1]), 4, None, at);
        found.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid.0)
    }

    fn settle(keeper: &mut Keeper) -> Arc<InventoryStatus> {
        while keeper.turn(0) {}
        keeper.view().status.load_full()
    }

    #[test]
    fn what_is_sent_is_seen_and_recorded() {
        let now = wall_clock();
        let (mut keeper, handles) = keeper(&[SourceKind::Ovsdb]);
        handles[0].send(vm(1, now - 5), now).expect("room");
        let status = settle(&mut keeper);
        assert_eq!((who(&keeper, now), status.vms, status.changed), (Some(1), 1, 2));
        let row = keeper.view().rows.pop().expect("a row");
        assert_eq!((row.known_from, row.known_to), (now, None));
        assert!(row.row.attributed && row.row.address.is_some());
        // The same again is nothing new.
        handles[0].send(vm(1, now - 3), now + 1).expect("room");
        let status = settle(&mut keeper);
        assert_eq!((status.changed, status.sources[0].unchanged), (2, 2));
        assert!(keeper.view().rows.is_empty());
    }

    #[test]
    fn what_was_sent_before_the_end_is_applied() {
        let now = wall_clock();
        let (keeper, handles) = keeper(&[SourceKind::Api]);
        let (inventory, stop) = (keeper.view().inventory.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let kept = scope.spawn(|| keeper.run(&stop));
            for number in 1..=200_u128 {
                handles[0].send(vm(number, now - 5), now).expect("room");
            }
            stop.store(true, Ordering::SeqCst);
            kept.join().expect("no panic");
        });
        assert_eq!(inventory.load().vm_count(), 200);
        assert!(handles[0].send(vm(201, now), now).is_err(), "nobody takes it");
    }

    #[test]
    fn a_clock_that_runs_ahead_is_bounded_and_shown() {
        let now = wall_clock();
        let (mut keeper, handles) = keeper(&[SourceKind::Libvirt, SourceKind::Api]);
        handles[0].send(vm(1, now + ms(3_000)), now).expect("room");
        handles[0].send(Statement::new(Uuid(1), now + ms(60_000)).host("h"), now).expect("room");
        handles[1].send(Statement::new(Uuid(2), now + ms(60_000)).host("h"), now).expect("room");
        let status = settle(&mut keeper);
        let ahead = &status.sources[0];
        assert_eq!((ahead.clamped_changes, ahead.clock_ahead_max_ns), (1, ms(60_000)));
        assert_eq!(status.sources[1].clamped_changes, 0, "the API may plan");
        assert_eq!((who(&keeper, now), who(&keeper, now + ms(3_000))), (None, Some(1)));
        let inventory = keeper.view().inventory.load();
        let host = |uuid: u128, at: Timestamp| {
            let entry = inventory.entries().find(|(_, entry)| entry.history.uuid.0 == uuid);
            entry.and_then(|(_, entry)| entry.history.host_at(at).cloned())
        };
        assert!(host(1, now).is_some() && host(2, now).is_none());
    }

    #[test]
    fn two_vms_with_one_address_are_a_conflict_and_the_rule_decides() {
        let now = wall_clock();
        let kinds = [SourceKind::Openstack, SourceKind::Ovsdb, SourceKind::Learned];
        let (mut keeper, handles) = keeper(&kinds);
        handles[1].send(vm(2, now - 9), now).expect("room");
        handles[2].send(vm(3, now - 1), now).expect("room");
        assert_eq!(settle(&mut keeper).conflicts, 0, "what is learned gives way");
        assert_eq!(who(&keeper, now), Some(2));
        handles[1].send(vm(4, now - 5), now).expect("room");
        let status = settle(&mut keeper);
        assert_eq!((status.conflicts, who(&keeper, now)), (1, Some(4)), "the later claim");
        assert_eq!(status.conflict_list[0].claimants.len(), 2);
        assert_eq!(status.conflict_list[0].claimed, "10.0.0.1");
        handles[0].send(vm(1, now - 7), now).expect("room");
        assert_eq!((settle(&mut keeper).conflicts, who(&keeper, now)), (2, Some(1)));
        assert_eq!(who(&keeper, now - 8), Some(2));
        for (source, uuid) in [(0, 1), (1, 4)] {
            let ended = Statement::new(Uuid(uuid), now - 9).exists(false);
            handles[source].send(ended, now).expect("room");
        }
        assert_eq!((settle(&mut keeper).conflicts, who(&keeper, now)), (0, Some(2)));
    }

    #[test]
    fn unsound_changes_are_left_out_by_reason() {
        let now = wall_clock();
        let (mut keeper, handles) = keeper(&[SourceKind::Ovsdb]);
        let group = Mac([1, 0, 0, 0, 0, 1]);
        let many = (0..=255_u8).map(|last| std::net::IpAddr::from([10, 1, 0, last]));
        let many = many.chain(["10.2.0.1".parse().expect("an address")]);
        let statement = Statement::new(Uuid(1), now)
            .name("")
            .host("x".repeat(2_000))
            .attached(group, true)
            .addresses(Mac([2; 6]), many)
            .addresses(Mac([4; 6]), ["224.0.0.1".parse().expect("an address")])
            .until(crate::inventory::Until::At(now - 1))
            .tenant("late");
        handles[0].send(statement, now).expect("room");
        let status = settle(&mut keeper);
        let rejected: Vec<_> =
            status.sources[0].rejected.iter().map(|(name, n)| (*name, *n)).collect();
        let expected = [
            ("address_not_unicast", 1),
            ("addresses_full", 1),
            ("mac_not_unicast", 1),
            ("text_length", 2),
            ("time_empty", 1),
        ];
        assert_eq!(rejected, expected);
        assert_eq!(status.vms, 0);
    }

    #[test]
    fn workers_get_a_new_map_when_a_router_joins_segments() {
        let now = wall_clock();
        let (mut keeper, handles) = keeper(&[SourceKind::Openstack]);
        keeper.publish(now);
        let maps = Arc::clone(&keeper.view().maps);
        let (version, own) = (maps.version(), AddressSpace::of_segment(SEGMENT));
        assert_eq!(maps.load().space_of(SEGMENT), own);
        handles[0].send(vec![joined(SEGMENT, Some("router"), now - 1)], now).expect("room");
        handles[0].send(vm(1, now - 1), now).expect("room");
        settle(&mut keeper);
        let space = maps.load().space_of(SEGMENT);
        assert!(maps.version() != version && space != own);
        assert_eq!(who(&keeper, now), Some(1));
        let inventory = keeper.view().inventory.load();
        assert_eq!(inventory.spaces().name(space).map(AsRef::as_ref), Some("router"));
        // What was under way before the workers knew has the segment's own space.
        let before = inventory.resolve(own, Address::v4([10, 0, 0, 1]), 4, None, now);
        assert!(before.is_some());
        drop(inventory);
        let version = maps.version();
        handles[0].send(vm(2, now).addresses(Mac([2; 6]), []), now).expect("room");
        settle(&mut keeper);
        assert_eq!(maps.version(), version, "a map that is the same is not swapped");
    }
}
