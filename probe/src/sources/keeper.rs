//! The one thread that keeps the store of facts.
//!
//! In: batches of all sources. Out: snapshots for look-ups, maps for workers, rows of the `inventory`
//! table, the status.
//! Cost: what the changes cost; nothing while nothing changes but a look at the states of sources.
//! Invariants: changes apply in the order in which they were sent, each batch as a whole. Rows that the
//! aggregation thread does not take wait here, at most [`ROWS_WAITING_MAX`]; beyond it they are lost and
//! counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::handle::{Inbox, Received, SourceHandle, SourceSpec};
use super::segments::{MapCell, segment_map};
use super::status::{InventoryStatus, StatusCell, conflicts};
use crate::config::Plan;
use crate::inventory::{
    Batch, ClassRules, Inventory, InventoryCell, RowChange, SegmentMap, SourceId, SourceName,
    Spaces, Store, StoreLimits,
};
use crate::time::{Timestamp, ms, wall_clock};

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
    /// Of an inventory that nobody changes; for tests and measurements.
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
    /// The sources are files of packets, whose time is not the clock's.
    replays: bool,
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
            replays,
        };
        (keeper, handles)
    }

    /// What others hold.
    pub fn view(&self) -> &InventoryView {
        &self.view
    }

    /// The store, to ask it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Applies a batch at once, before anything runs.
    pub fn apply(&mut self, source: SourceId, known: Timestamp, batch: Batch) {
        self.store.apply(source, known, batch);
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
        let mut changed = false;
        let more = std::iter::from_fn(|| self.inbox.next(0));
        let batches: Vec<Received> = first.into_iter().chain(more).take(BATCHES_AT_ONCE).collect();
        for Received { source, known, batch } in batches {
            changed |= self.store.apply(source, known, batch);
        }
        let now = wall_clock();
        if changed {
            self.say_conflicts();
            self.view.inventory.store(Arc::new(self.store.snapshot()));
        }
        if changed || now.since_ns(self.map_at) > MAP_AGAIN_NS {
            self.publish_map(now);
        }
        self.pass_rows_on();
        self.maps_before.retain(|map| Arc::strong_count(map) > 1);
        self.publish_status(now);
        came
    }

    /// Until the end is told and all is applied.
    pub fn run(mut self, stop: &AtomicBool) {
        while self.turn(WAIT_MS) || !stop.load(Ordering::Relaxed) {}
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

    fn pass_rows_on(&mut self) {
        self.rows_waiting.extend(self.store.take_row_changes());
        while let Some(row) = self.rows_waiting.pop_front() {
            if let Err(row) = self.view.rows.push(row) {
                self.rows_waiting.push_front(row);
                break;
            }
        }
        let excess = self.rows_waiting.len().saturating_sub(ROWS_WAITING_MAX);
        if excess > 0 {
            self.rows_waiting.truncate(ROWS_WAITING_MAX);
            self.rows_lost += excess as u64;
            tracing::warn!(rows = excess, "rows of the inventory table were lost");
        }
    }

    fn say_conflicts(&mut self) {
        let count = self.store.inventory().conflict_count();
        if count > self.conflicts_before {
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
            known_ns: inventory.known().0,
            batches: totals.batches,
            changed: totals.changed,
            facts_forgotten: totals.facts_forgotten,
            vms_forgotten: totals.vms_forgotten,
            rows_lost: self.rows_lost + totals.rows_left_out,
            conflicts: count(inventory.conflict_count()),
            conflict_list: conflicts(inventory, &self.plan.domains),
            sources,
        }));
    }
}

fn limits(plan: &Plan) -> StoreLimits {
    StoreLimits {
        vms_max: plan.inventory.vms_max as usize,
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
