//! A source of the probe that runs against a server, and what it has said so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use vmprobe::config::OvsdbPlan;
use vmprobe::inventory::{
    Attribute, Missing, Scope, SourceHealth, SourceKind, SourceState, Subject, Uuid, Value,
};
use vmprobe::sources::ovsdb::{CoverageMap, OvsdbSource, SwitchCoverage, source_name};
use vmprobe::sources::{Inbox, InventorySource as _, SourceSpec};
use vmprobe::time::{monotonic_ns, wall_clock};

/// Longest time that anything may take.
const SECONDS_MAX: u64 = 30;

/// A running source; ended when dropped.
pub(crate) struct Watch {
    inbox: Inbox,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    coverage: Arc<CoverageMap>,
    facts: BTreeMap<(Uuid, Attribute), Value>,
    /// Of each batch: whether it was everything.
    pub(crate) batches: Vec<bool>,
}

impl Watch {
    pub(crate) fn start(plan: &OvsdbPlan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut inbox = Inbox::new(Arc::clone(&stop));
        let spec = SourceSpec {
            kind: SourceKind::Ovsdb,
            name: source_name(plan),
            rank: 4,
            stale_after_ms: Some(plan.stale_after_ms.into()),
        };
        let handle = inbox.register(spec, wall_clock()).expect("room");
        let coverage = Arc::new(CoverageMap::new([source_name(plan)]));
        let source = Box::new(OvsdbSource::new(plan, &coverage, 0));
        let thread = Some(std::thread::spawn(move || source.run(handle)));
        Self { inbox, stop, thread, coverage, facts: BTreeMap::new(), batches: Vec::new() }
    }

    pub(crate) fn health(&self) -> SourceHealth {
        self.inbox.health(wall_clock()).remove(0)
    }

    pub(crate) fn coverage(&self) -> Arc<SwitchCoverage> {
        self.coverage.load().remove(0)
    }

    /// What holds of a VM, in order.
    pub(crate) fn facts(&self, vm: Uuid) -> Vec<String> {
        let of_vm = self.facts.iter().filter(|((other, _), _)| *other == vm);
        of_vm
            .map(|((_, attribute), value)| format!("{}={}", attribute.name(), text(value)))
            .collect()
    }

    /// VMs of which anything holds.
    pub(crate) fn vms(&self) -> Vec<Uuid> {
        let mut vms: Vec<_> = self.facts.keys().map(|(vm, _)| *vm).collect();
        vms.dedup();
        vms
    }

    /// Listens until it is so.
    pub(crate) fn until(&mut self, what: &str, check: impl Fn(&Self) -> bool) {
        let end_ns = monotonic_ns() + SECONDS_MAX * 1_000_000_000;
        while !check(self) {
            let facts: Vec<_> = self.vms().into_iter().map(|vm| self.facts(vm)).collect();
            let (health, coverage) = (self.health(), self.coverage());
            assert!(monotonic_ns() < end_ns, "never {what}: {facts:?}\n{health:?}\n{coverage:?}");
            self.listen(20);
        }
    }

    pub(crate) fn until_live(&mut self, connections: u64) {
        self.until("live", |watch| {
            let health = watch.health();
            health.state == SourceState::Live && health.connections == connections
        });
    }

    pub(crate) fn until_facts(&mut self, vm: Uuid, facts: &[&str]) {
        self.until(&format!("{facts:?}"), |watch| watch.facts(vm) == facts);
    }

    /// Waits until it has failed for a reason with these words in it.
    pub(crate) fn until_failed(&mut self, words: &str) {
        self.until(&format!("failed: {words}"), |watch| {
            let health = watch.health();
            let error = health.last_error.unwrap_or_default();
            health.state == SourceState::Failed && error.contains(words)
        });
    }

    /// Takes over one batch, if one comes in time; whether one did.
    pub(crate) fn hears(&mut self, wait_ms: u64) -> bool {
        let before = self.batches.len();
        self.listen(wait_ms);
        self.batches.len() > before
    }

    /// Takes over one batch, if one comes in time.
    pub(crate) fn listen(&mut self, wait_ms: u64) {
        let Some(received) = self.inbox.next(wait_ms) else { return };
        let all = match received.batch.scope {
            Scope::All { missing, .. } => {
                assert_eq!(missing, Missing::Unsaid, "a switch sees its own ports only");
                self.facts.clear();
                true
            }
            Scope::Some => false,
            Scope::Each { .. } => panic!("a switch has no last word on a VM"),
        };
        self.batches.push(all);
        for change in received.batch.changes {
            let Subject::Vm(vm) = change.subject else { panic!("a switch names VMs: {change:?}") };
            let key = (vm, change.attribute);
            assert_ne!(change.value, Some(Value::Flag(false)), "it never says that it is not so");
            match change.value {
                Some(value) => drop(self.facts.insert(key, value)),
                None => assert!(self.facts.remove(&key).is_some(), "{key:?} was never said"),
            }
        }
    }

    /// Ends it; the answer is how long that took, in milliseconds.
    pub(crate) fn end(mut self) -> u64 {
        let begun_ns = monotonic_ns();
        self.join();
        (monotonic_ns() - begun_ns) / 1_000_000
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the source panics");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.join();
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) => text.to_string(),
        Value::Segment(segment) => segment.text(&["default".to_owned(), "east".to_owned()]),
        Value::Addresses(addresses) => format!("{addresses:?}"),
    }
}
