//! Which sources a plan has, and their threads.
//!
//! In: a plan. Out: a [`Sources`]: the inventory as others see it, fed for as long as it lives.
//! Invariants: what is known at start (the file) is known before the first packet. All threads have ended
//! when [`Sources::stop`] returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::file::{self, FileSource};
use super::handle::{InventorySource, SourceHandle, SourceSpec};
use super::journal::JournalPlan;
use super::keeper::{InventoryView, Keeper};
use super::learned::{EvidenceReceiver, Learned, LearningInStep};
use super::libvirt::Libvirt;
use super::openstack::Openstack;
use super::ovsdb::{self, OvsdbSource};
use super::requests::Requests;
use super::usage::UsageQueue;
use crate::config::{Plan, Problems};
use crate::inventory::{RowChange, SourceKind};
use crate::time::{Timestamp, wall_clock};

/// Name of the source that is learned from packets.
const LEARNED_NAME: &str = "learned";

/// Asked by SIGHUP: sources that can be read again are.
pub type ReadAgain = Arc<AtomicBool>;

/// The sources of a plan before they run.
pub struct Prepared {
    plan: Arc<Plan>,
    /// Until somebody else keeps it in step with packets of files.
    keeper: Option<Keeper>,
    view: InventoryView,
    replays: bool,
    learned: Option<SourceHandle>,
    sources: Vec<(Box<dyn InventorySource>, SourceHandle)>,
    api: Option<SourceHandle>,
    usage: UsageQueue,
    stop: Arc<AtomicBool>,
}

/// Running sources.
pub struct Sources {
    view: InventoryView,
    usage: UsageQueue,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Prepared {
    /// Reads the journal of an earlier run, then the inventory file, if there are any. `replays`: packets
    /// come from files, so that nothing but the file and the packets is a source, and the file is read
    /// once.
    ///
    /// # Errors
    /// Every problem in the file at once; a journal that cannot be gone on with.
    pub fn new(plan: &Arc<Plan>, replays: bool, again: &ReadAgain) -> Result<Self, Problems> {
        let now = if replays { Timestamp::ZERO } else { wall_clock() };
        let stop = Arc::new(AtomicBool::new(false));
        let opened = plan.inventory.file.as_deref();
        let opened = opened.map(|path| FileSource::open(path, plan, Arc::clone(again)));
        let opened = opened.transpose()?;
        let mut specs = Vec::new();
        if opened.is_some() {
            specs.push(spec(plan, SourceKind::File, "file".to_owned(), None));
        }
        let has_api = !replays && plan.inventory.api;
        if has_api {
            specs.push(spec(plan, SourceKind::Api, "api".to_owned(), None));
        }
        let learns = plan.inventory.learned.enabled;
        if learns {
            // The time of files is not that of the clock.
            let stale_ms = (!replays).then_some(plan.inventory.learned.stale_after_ms.into());
            specs.push(spec(plan, SourceKind::Learned, LEARNED_NAME.to_owned(), stale_ms));
        }
        let usage = UsageQueue::default();
        let remote = if replays { Vec::new() } else { remote(plan, &usage) };
        specs.extend(remote.iter().map(|(spec, _)| spec.clone()));
        for database in plan.inventory.ovsdb.iter().filter(|_| !replays) {
            let stale_after_ms = Some(database.stale_after_ms.into());
            specs.push(spec(plan, SourceKind::Ovsdb, ovsdb::source_name(database), stale_after_ms));
        }
        let (mut keeper, handles) = Keeper::new(plan, specs, Arc::clone(&stop), replays, now);
        let journal = JournalPlan::of(plan).filter(|_| !replays && !handles.is_empty());
        if let Some(journal) = journal {
            keeper.keep_journal(journal)?;
        }
        let mut handles = handles.into_iter();
        let mut sources: Vec<(Box<dyn InventorySource>, SourceHandle)> = Vec::new();
        if let Some((source, data)) = opened
            && let Some(handle) = handles.next()
        {
            let said = if keeper.has_heard(handle.id()) {
                file::again(&data, now)
            } else {
                data.changes(None).into()
            };
            keeper.apply(handle.id(), now, said);
            handle.live(now);
            if !replays {
                sources.push((Box::new(source), handle));
            }
        }
        let api = if has_api { handles.next() } else { None };
        if let Some(api) = &api {
            api.live(now);
        }
        let learned = if learns { handles.next() } else { None };
        sources.extend(remote.into_iter().map(|(_, source)| source).zip(handles.by_ref()));
        let databases = plan.inventory.ovsdb.iter().enumerate();
        for ((place, database), handle) in databases.zip(handles) {
            let source = OvsdbSource::new(database, keeper.coverage(), place);
            sources.push((Box::new(source), handle));
        }
        keeper.publish(now);
        Ok(Self {
            plan: Arc::clone(plan),
            view: keeper.view().clone(),
            keeper: Some(keeper),
            replays,
            learned,
            sources,
            api,
            usage,
            stop,
        })
    }

    /// What others hold.
    pub fn view(&self) -> &InventoryView {
        &self.view
    }

    /// Learns from what workers send, where the plan says so. With packets of files the store comes
    /// back too, for who names what they show: nobody else changes it.
    pub fn learn(&mut self, receiver: EvidenceReceiver) -> Option<LearningInStep> {
        let (handle, plan) = (self.learned.take()?, &self.plan.inventory.learned);
        if self.replays {
            return Some(LearningInStep::new(plan, receiver, self.keeper.take()?, handle));
        }
        self.sources.push((Box::new(Learned::new(plan, receiver)), handle));
        None
    }

    /// What VMs use of their hosts.
    pub fn usage(&self) -> &UsageQueue {
        &self.usage
    }

    /// The way in for requests to the API, where they may change the inventory.
    pub fn api(&self) -> Option<&SourceHandle> {
        self.api.as_ref()
    }

    /// Requests that changed the inventory, as an earlier run remembers them.
    pub fn requests(&self) -> Requests {
        self.keeper.as_ref().map(|keeper| keeper.requests().clone()).unwrap_or_default()
    }

    /// Rows known so far, for the first window.
    pub fn take_rows(&mut self) -> Vec<RowChange> {
        self.keeper.as_mut().map(Keeper::take_rows).unwrap_or_default()
    }

    /// Starts all threads. A source whose thread the system does not give has failed.
    pub fn start(self) -> Sources {
        let view = self.view;
        let mut threads = Vec::new();
        let has_sources = !self.sources.is_empty() || self.api.is_some();
        for (source, handle) in self.sources {
            let (of_thread, name) = (handle.clone(), format!("source-{}", handle.name()));
            let thread = std::thread::Builder::new().name(name);
            match thread.spawn(move || source.run(of_thread)) {
                Ok(thread) => threads.push(thread),
                Err(error) => handle.failed(format_args!("no thread: {error}"), wall_clock()),
            }
        }
        if let Some(keeper) = self.keeper.filter(|_| has_sources) {
            let stop = Arc::clone(&self.stop);
            let thread = std::thread::Builder::new().name("inventory".to_owned());
            match thread.spawn(move || keeper.run(&stop)) {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::error!("the inventory stays as it is: no thread: {error}"),
            }
        }
        Sources { view, usage: self.usage, stop: self.stop, threads }
    }
}

impl Sources {
    /// What others hold.
    pub fn view(&self) -> &InventoryView {
        &self.view
    }

    /// What VMs use of their hosts.
    pub fn usage(&self) -> &UsageQueue {
        &self.usage
    }

    /// Ends all threads.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a source of the inventory ended in a panic");
            }
        }
    }
}

/// Other systems that are asked or listened to.
fn remote(plan: &Plan, usage: &UsageQueue) -> Vec<(SourceSpec, Box<dyn InventorySource>)> {
    let mut all: Vec<(SourceSpec, Box<dyn InventorySource>)> = Vec::new();
    for cloud in &plan.inventory.openstack {
        let (name, stale_ms) = (format!("openstack:{}", cloud.name), cloud.stale_after_ms);
        let spec = spec(plan, SourceKind::Openstack, name, Some(stale_ms.into()));
        all.push((spec, Box::new(Openstack::new(cloud.clone()))));
    }
    for host in &plan.inventory.libvirt {
        let (name, stale_ms) = (format!("libvirt:{}", host.name), host.stale_after_ms);
        let spec = spec(plan, SourceKind::Libvirt, name, Some(stale_ms.into()));
        all.push((spec, Box::new(Libvirt::new(host.clone(), usage.clone()))));
    }
    all
}

/// Sources of a kind have the rank of the kind.
pub(super) fn spec(
    plan: &Plan,
    kind: SourceKind,
    name: String,
    stale_after_ms: Option<u64>,
) -> SourceSpec {
    let place = plan.inventory.precedence.iter().position(|other| *other == kind);
    let rank = place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX - 1);
    SourceSpec { kind, name, rank, stale_after_ms }
}
