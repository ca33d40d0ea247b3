//! What a run and a replay have in common: page, store, aggregation, the threads and their end.
//!
//! In: a plan, and a [`Way`]: how packets come. Out: seats for the workers; at the end a [`Report`].
//! Invariants: the page shows what is known from the first moment; the aggregation thread ends
//! after all workers, the store after it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::aggregate::apps::Apps;
use crate::aggregate::live::{LiveCell, LiveMode, LivePort, live_cell};
use crate::aggregate::path::{Paths, Stands};
use crate::aggregate::{Aggregator, Migrations};
use crate::config::Plan;
use crate::detect::Detectors;
use crate::export::{ParquetSink, Sinks, SinksWanted};
use crate::record::{InventoryRows, Names, Origin, RecordMaker};
use crate::serve::{self, InventoryApi, Pusher, ServeHandle};
use crate::sources::{self, ReadAgain, Sources};
use crate::store::query::Records;
use crate::store::{self, StoreClock, StoreHandle, UpkeepPlan};
use crate::time::monotonic_ns;

use super::analysis::{Analysis, AnalysisParts, ClockOf, RunSummary};
use super::build::{Build, RuntimeError, Seat, empty_snapshot};
use super::publish::{Publisher, PublisherParts, WorkerPlace};
use super::{Report, ReportLedger};

/// All that is there before a source of packets is opened.
pub(super) struct Prepared {
    plan: Arc<Plan>,
    begun_ns: u64,
    sources: sources::Prepared,
    live: LiveCell,
    page: Option<ServeHandle>,
    metrics: Option<Pusher>,
}

/// How packets come.
pub(super) struct Way {
    /// From NICs or from files.
    pub(super) mode: LiveMode,
    /// Whether sources lose nothing while they wait.
    pub(super) waits: bool,
    /// Names of the ports that are known now.
    pub(super) ports: Vec<String>,
    /// Workers with a source.
    pub(super) receivers: usize,
    /// Where each worker stands.
    pub(super) places: Vec<WorkerPlace>,
    /// Counters of the ports.
    pub(super) port_counts: Box<dyn Fn() -> Vec<LivePort> + Send>,
    /// Clocks of the taps.
    pub(super) clock_of: ClockOf,
    /// Set when the workers are told to end.
    pub(super) ending: Arc<AtomicBool>,
    /// Other sinks than the plan's, later.
    pub(super) sinks: SinksWanted,
}

/// A run whose aggregation has begun.
pub(super) struct Pipeline {
    begun_ns: u64,
    page: Option<ServeHandle>,
    /// Ends when it is dropped.
    _metrics: Option<Pusher>,
    analysis: JoinHandle<RunSummary>,
    sources: Sources,
}

impl Prepared {
    /// Reads the inventory and starts the page. `replays`: packets come from capture files; `again`
    /// asks sources to read again what they can.
    pub(super) fn new(
        plan: &Arc<Plan>,
        serves: bool,
        replays: bool,
        again: &ReadAgain,
    ) -> Result<Self, RuntimeError> {
        let begun_ns = monotonic_ns();
        let sources =
            sources::Prepared::new(plan, replays, again).map_err(RuntimeError::Inventory)?;
        let live = live_cell(empty_snapshot(plan));
        let api = InventoryApi {
            view: sources.view().clone(),
            handle: sources.api().cloned(),
            plan: Arc::clone(plan),
            requests: Arc::new(Mutex::new(sources.requests())),
        };
        let page = serves
            .then(|| serve::start_with(&plan.serve, live.clone(), api, Records::of(plan)))
            .transpose()?;
        // In a replay there is no time that counts could be since.
        let metrics = (!replays)
            .then(|| serve::start_otlp(&plan.otlp, &live, &sources.view().status))
            .transpose()?
            .flatten();
        Ok(Self { plan: Arc::clone(plan), begun_ns, sources, live, page, metrics })
    }

    /// Starts the store and the aggregation thread. The seats are for the workers, whom the caller
    /// starts.
    pub(super) fn start(mut self, way: Way) -> Result<(Pipeline, Vec<Seat>), RuntimeError> {
        let plan = &self.plan;
        let view = self.sources.view().clone();
        let inventory_rows = InventoryRows::new(self.sources.take_rows(), Arc::clone(&view.rows));
        let workers = (way.receivers, way.places.len());
        let build = Build::new(plan, Some(&view.maps), &way.ports, workers, way.waits);
        let learning = self.sources.learn(build.evidence);
        let publisher = Publisher::new(PublisherParts {
            live: self.live,
            base: empty_snapshot(plan),
            mode: way.mode,
            flow_slots: plan.flow.slots_per_worker.into(),
            places: way.places,
            ports: way.port_counts,
            clock_of: Arc::clone(&way.clock_of),
            folder: plan.store.folder.as_ref().map(|folder| folder.display().to_string()),
        });
        let names = Names::new(plan, build.port_names);
        let origin = Origin::new(&plan.probe.id, &plan.probe.domain);
        let sinks = Sinks::start(&plan.sinks, origin, way.waits, way.sinks)
            .map_err(thread_error("sink"))?;
        let analysis = Analysis::new(AnalysisParts {
            aggregator: Aggregator::new(build.handoffs, build.windows, plan.window.rows_max)
                .with_paths(
                    plan.follows_paths()
                        .then(|| Paths::new(plan, Stands::new(plan, Arc::clone(&view.inventory)))),
                )
                .with_apps(plan.app.transactions.then(|| Apps::new(plan.app.url_queries)))
                .with_migrations(Migrations::new(plan, Arc::clone(&view.inventory))),
            detectors: Detectors::new(&plan.detect),
            maker: RecordMaker::new(names, view.inventory, inventory_rows)
                .following_one_in(plan.path.sample_one_in)
                .with_usage(self.sources.usage().clone()),
            store: start_store(plan, way.mode)?,
            sinks,
            publisher,
            clock_of: way.clock_of,
            waits: way.waits,
            ending: way.ending,
            learning,
        });
        let analysis = spawn("aggregator", move || analysis.run())?;
        let sources = self.sources.start();
        let pipeline = Pipeline {
            begun_ns: self.begun_ns,
            page: self.page,
            _metrics: self.metrics,
            analysis,
            sources,
        };
        Ok((pipeline, build.seats))
    }
}

impl Pipeline {
    /// Where the page is, if it is served.
    pub(super) fn page_address(&self) -> Option<SocketAddr> {
        self.page.as_ref().map(ServeHandle::address)
    }

    /// Waits for the aggregation, after all workers have ended. The page stays until its handle is
    /// stopped.
    pub(super) fn finish(
        self,
        ports: impl FnOnce() -> Vec<LivePort>,
    ) -> (Report, RunSummary, Option<ServeHandle>) {
        let summary = join(self.analysis);
        self.sources.stop();
        let elapsed_ns = monotonic_ns().saturating_sub(self.begun_ns);
        let report = Report {
            packets: summary.ledger.received,
            octets: summary.ledger.octets,
            flows: summary.flows,
            windows: summary.windows,
            alerts: summary.alerts,
            elapsed_s: std::time::Duration::from_nanos(elapsed_ns).as_secs_f64(),
            ledger: ReportLedger::new(&summary.ledger, &summary.workers),
            sinks: super::report_sinks(&summary),
            ports: ports(),
        };
        (report, summary, self.page)
    }
}

/// Live, files age by the wall clock and the folder is tidied; in a replay they age by its packets,
/// so that it gives the same files each time.
fn start_store(plan: &Plan, mode: LiveMode) -> Result<Option<StoreHandle>, RuntimeError> {
    let start = |sink| match mode {
        LiveMode::Run => store::start_live(sink, UpkeepPlan::new(&plan.store, &plan.probe.id)),
        LiveMode::Replay => store::start(sink, StoreClock::Batches),
    };
    ParquetSink::new(&plan.store, &plan.probe.id, &plan.probe.domain)
        .map(|sink| start(sink).map_err(thread_error("store")))
        .transpose()
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RuntimeError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(thread_error(name))
}

pub(super) fn join<T>(thread: JoinHandle<T>) -> T {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn thread_error(name: &str) -> impl FnOnce(std::io::Error) -> RuntimeError {
    let name = name.to_owned();
    move |source| RuntimeError::Thread { name, source }
}
