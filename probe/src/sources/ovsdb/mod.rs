//! The database of an Open vSwitch as a source: which VM is plugged in where, and what is mirrored.
//!
//! In: JSON-RPC of an `ovsdb-server`, through a unix socket, TCP or TLS. Out: changes of the inventory, and
//! the [`CoverageMap`].
//! Cost: a thread a switch, which sleeps until the server tells something.
//! Invariants: whatever a server says or does not say, the source goes on: it connects again, with a pause
//! that grows and differs at random. A gap changes nothing of what is known and is told in the health of
//! the source; what changed meanwhile counts from its end, because nobody knows more.
//! Source: RFC 7047; ovsdb-server(7); ovs-vswitchd.conf.db(5). docs/sources/ovsdb.md is for users.
//!
//! | file | |
//! |---|---|
//! | `stream` `tls` | octets |
//! | `frame` `rpc` | messages |
//! | `cell` `schema` `database` | rows |
//! | `plugs` `statements` | what they say of VMs |
//! | `coverage` | what is mirrored |
//! | `session` | one connection |

mod cell;
mod coverage;
mod database;
mod frame;
mod plugs;
mod rpc;
mod schema;
mod session;
mod statements;
mod stream;
mod tls;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use coverage::{Coverage, InterfaceCoverage, MirrorState, Mirrored, SwitchCoverage};

use super::handle::{Backoff, InventorySource, SourceHandle};
use crate::config::OvsdbPlan;
use crate::time::{Timestamp, monotonic_ns, wall_clock};
use database::Database;
use frame::Framer;
use rpc::Message;
use schema::Columns;
use session::Failure;
use statements::Statements;
use stream::Connector;

/// What all switches mirror: written by their sources, read by anyone.
#[derive(Debug, Default)]
pub struct CoverageMap {
    switches: Vec<ArcSwap<SwitchCoverage>>,
}

impl CoverageMap {
    /// With a place for each of the sources.
    pub fn new(sources: impl IntoIterator<Item = String>) -> Self {
        let empty = |source| SwitchCoverage { source, ..SwitchCoverage::default() };
        let places = sources.into_iter().map(|source| ArcSwap::from_pointee(empty(source)));
        Self { switches: places.collect() }
    }

    /// The newest of each switch, in the order of the configuration.
    pub fn load(&self) -> Vec<Arc<SwitchCoverage>> {
        self.switches.iter().map(ArcSwap::load_full).collect()
    }

    fn change(&self, place: usize, change: impl FnOnce(&SwitchCoverage) -> SwitchCoverage) {
        if let Some(switch) = self.switches.get(place) {
            let changed = change(&switch.load());
            switch.store(Arc::new(changed));
        }
    }
}

/// The name of the source that a plan makes.
pub fn source_name(plan: &OvsdbPlan) -> String {
    format!("ovsdb:{}", plan.name)
}

/// One switch as a source.
pub struct OvsdbSource {
    switch: Switch,
}

impl OvsdbSource {
    /// It writes its coverage at `place` of the map.
    pub fn new(plan: &OvsdbPlan, coverage: &Arc<CoverageMap>, place: usize) -> Self {
        Self { switch: Switch::new(plan, Arc::clone(coverage), place) }
    }
}

impl InventorySource for OvsdbSource {
    fn run(mut self: Box<Self>, handle: SourceHandle) {
        let (mut backoff, mut connector) = (Backoff::default(), Connector::default());
        let random = RandomState::new();
        handle.connecting(wall_clock());
        loop {
            let connections = self.switch.connections;
            let Err(failure) = session::run(&mut self.switch, &mut connector, &handle) else {
                return;
            };
            if handle.is_stopping() {
                return;
            }
            if self.switch.connections > connections {
                backoff.reset();
            }
            self.switch.is_lost(&failure, &handle);
            let wait_ms = backoff.next_ms().min(self.switch.plan.retry_max_ms.into());
            if !handle.wait_ms(jittered(wait_ms, random.hash_one(monotonic_ns()))) {
                return;
            }
        }
    }
}

/// Longer or shorter by up to a quarter, so that not all probes come back at once.
fn jittered(wait_ms: u64, random: u64) -> u64 {
    wait_ms - wait_ms / 4 + random % (wait_ms / 2 + 1)
}

/// What is known of a switch, from one connection to the next.
struct Switch {
    plan: OvsdbPlan,
    source: String,
    database: Database,
    /// After which the server is asked to go on.
    last_transaction: Option<String>,
    statements: Statements,
    coverage: Arc<CoverageMap>,
    place: usize,
    connections: u64,
    /// Since when there is no connection, where there was one.
    lost_ns: Option<u64>,
}

impl Switch {
    fn new(plan: &OvsdbPlan, coverage: Arc<CoverageMap>, place: usize) -> Self {
        Self {
            source: source_name(plan),
            database: Database::new(plan.rows_max as usize),
            last_transaction: None,
            statements: Statements::new(plan.vlan_segments.then_some(plan.domain)),
            coverage,
            place,
            connections: 0,
            lost_ns: None,
            plan: plan.clone(),
        }
    }

    /// Everything is asked for anew.
    fn forget(&mut self) {
        self.database.clear();
        self.last_transaction = None;
    }

    /// Says what is new; `false` where it found no room and must be said again.
    fn publish(&mut self, handle: &SourceHandle) -> bool {
        let now = wall_clock();
        let plugs = plugs::plugs(&self.database, self.plan.host.as_deref());
        let mut found = coverage::coverage(&self.database, &plugs, &self.source);
        let switch_host = || plugs::switch_host(&self.database).map(|host| host.to_string());
        found.host = self.plan.host.clone().or_else(switch_host);
        self.coverage.change(self.place, |before| {
            found.live = before.live;
            found.as_of_ns = before.as_of_ns;
            let same = found.as_of_ns.is_some() && found == *before;
            SwitchCoverage { as_of_ns: if same { found.as_of_ns } else { Some(now.0) }, ..found }
        });
        let Some(batch) = self.statements.batch(&plugs, now) else { return true };
        let is_said = handle.send(batch, now).is_ok();
        if !is_said {
            self.statements.say_again();
        }
        is_said
    }

    fn is_live(&mut self, handle: &SourceHandle) {
        self.connections += 1;
        let now = wall_clock();
        handle.live(now);
        self.coverage.change(self.place, |before| SwitchCoverage { live: true, ..before.clone() });
        if let Some(lost_ns) = self.lost_ns.take() {
            let gap_ms = monotonic_ns().saturating_sub(lost_ns) / 1_000_000;
            let text = format!(
                "there was no connection for {gap_ms} ms: what changed meanwhile counts from its end"
            );
            handle.note(text, now);
        }
    }

    fn is_lost(&mut self, failure: &Failure, handle: &SourceHandle) {
        if matches!(failure, Failure::Update(_) | Failure::Shape { .. } | Failure::Cancelled) {
            self.forget();
        }
        if self.connections > 0 {
            self.lost_ns.get_or_insert_with(monotonic_ns);
        }
        handle.failed(failure, wall_clock());
        self.coverage.change(self.place, |before| SwitchCoverage { live: false, ..before.clone() });
    }
}

/// Takes what a server may send, cut into pieces of so many octets, by a schema that has all columns; for
/// fuzzing. Returns how many changes of the inventory it comes to.
///
/// # Panics
/// If a message is lost or made by where it is cut, or anything else breaks: a bug.
pub fn exercise(octets: &[u8], piece: usize) -> usize {
    let whole = messages(octets, octets.len().max(1));
    let pieces = messages(octets, piece.max(1));
    assert_eq!(whole, pieces, "where a message is cut makes no difference");
    let mut database = Database::new(EXERCISE_ROWS_MAX);
    database.set_columns(Columns::all());
    let mut statements = Statements::new(Some(0));
    let mut changes = 0;
    for (number, message) in (1..).zip(whole) {
        let Ok(Message::Notice { params, .. }) = rpc::parse(&message) else { continue };
        for updates in params.as_array().into_iter().flatten() {
            let taken = database.update2(updates).or_else(|_| database.update(updates));
            if taken.is_err() {
                database.clear();
                statements.say_again();
            }
        }
        let plugs = plugs::plugs(&database, None);
        let batch = statements.batch(&plugs, Timestamp::from_parts(number, 0));
        changes += batch.map_or(0, |batch| batch.changes.len());
        drop(coverage::coverage(&database, &plugs, "exercise"));
    }
    changes
}

fn messages(octets: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut framer = Framer::new(EXERCISE_BYTES_MAX);
    let mut messages = Vec::new();
    for part in octets.chunks(piece) {
        framer.push(part);
        loop {
            match framer.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    messages
}

/// Octets of a message, and rows, in [`exercise`].
const EXERCISE_BYTES_MAX: usize = 1 << 16;
const EXERCISE_ROWS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::database::tests::{any_update, database};
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn waits_differ_by_a_quarter_at_most() {
        for random in [0, 1, 77, u64::MAX] {
            for wait_ms in [0, 1, 1_000, 8_000] {
                let wait = jittered(wait_ms, random);
                assert!((wait_ms * 3 / 4..=wait_ms * 5 / 4).contains(&wait), "{wait_ms}: {wait}");
            }
        }
        assert_ne!(jittered(1_000, 0), jittered(1_000, 77));
    }

    proptest! {
        #[test]
        fn any_rows_give_statements_and_coverage(
            updates in prop::collection::vec(any_update(), 1..12)
        ) {
            let (mut database, mut statements) = (database(), Statements::new(Some(0)));
            for (now, update) in (1..).zip(&updates) {
                let _ = database.update2(update);
                let plugs = plugs::plugs(&database, None);
                let found = coverage::coverage(&database, &plugs, "ovsdb:a");
                prop_assert_eq!(found.list.len(), plugs.len());
                let counted: u64 = found.interfaces.values().sum();
                prop_assert_eq!(counted, plugs.len() as u64);
                let _ = statements.batch(&plugs, Timestamp(now));
                prop_assert!(statements.batch(&plugs, Timestamp(now)).is_none());
            }
        }
    }
}
