//! What all sinks beside the store have in common.
//!
//! In: [`Rows`], plans. Out: batches at their destinations, and for each sink an account and its health.
//! Cost: the sender copies the rows of the tables that sinks want, once for all of them; the rest is done
//! on two threads a sink: one keeps and encodes, one waits for the destination.
//! Invariants: handing over never waits, unless the caller says so (files wait); a sink that hangs slows
//! neither the caller nor another sink; every bound is counted where it is hit; plans can change while
//! records come.
//! Source: at least once: a batch is tried again under the same token until the destination says that it
//! has it; docs/sinks/.

mod apart;
mod backoff;
mod batch;
mod courier;
mod filter;
mod keeper;
mod queue;
mod rows;
mod spool;
#[cfg(test)]
mod tests;

pub use apart::Apart;
pub use batch::{Batch, Delivered, Driver, Encoder, Failure};
pub use rows::{Cell, Row, TableRows};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam::channel::{Sender, TrySendError, bounded};

use super::{SinkCause, SinkHealth, SinkLedger};
use crate::aggregate::live::LiveSink;
use crate::config::{SinkKind, SinkPlan};
use crate::record::{Origin, Rows, Table};
use crate::time::{Timestamp, monotonic_ns, ms, sleep_ms, wall_clock};
use courier::Courier;
use keeper::{Keeper, KeeperParts};
use queue::Queue;

/// Hand-overs between the caller and a keeper. It is records that take memory; of these there are enough for a
/// keeper that waits for its disk for minutes, with windows of 100 ms and two hand-overs each.
const MESSAGES_MAX: usize = 1 << 12;
/// Records between them; one batch with more passes when it is alone.
const RECORDS_MAX: u64 = 1 << 18;
/// How often a caller that waits looks for room, in milliseconds.
const ROOM_MS: u64 = 1;
/// How long a sink may take until what it was sent is out, before others go on without it.
const SETTLE_NS: u64 = ms(5_000);
/// Sinks that were taken away, have ended, and still have an account each.
const RETIRED_MAX: usize = 16;

/// Sinks as another configuration wants them; taken when the next rows come.
pub type SinksWanted = Arc<ArcSwapOption<Vec<SinkPlan>>>;

/// How a sink does, for the page, the metrics and the ledger.
#[derive(Clone, Debug, Default)]
pub struct SinkReport {
    /// Name; one that was taken away may have the same.
    pub name: String,
    /// Kind.
    pub kind: &'static str,
    /// The account in records.
    pub ledger: SinkLedger,
    /// Whether the destination takes them.
    pub health: SinkHealth,
    /// Taken away: nothing more is made for it, and nobody need mind how it does.
    pub retired: bool,
}

impl SinkReport {
    /// As page and metrics show it.
    pub fn live(&self) -> LiveSink {
        let (state, problem) = match &self.health {
            SinkHealth::Ok => ("ok", None),
            SinkHealth::Failing { what, .. } => ("failing", Some(shortened(what))),
        };
        let state = if self.retired { "retired" } else { state };
        LiveSink { state: state.to_owned(), problem, ..self.ledger.live(&self.name, self.kind) }
    }
}

/// What failed, as long as a line for people may be.
fn shortened(what: &str) -> String {
    const SHOWN_CHARACTERS: usize = 300;
    what.chars().take(SHOWN_CHARACTERS).collect()
}

/// Makes the encoder of a plan.
type MakeEncoder = Box<dyn Fn(&SinkPlan) -> Box<dyn Encoder> + Send>;

/// What a keeper is told.
enum Message {
    /// Rows of one table each, the time that the packets had come to, and how many records they are.
    Rows(Vec<Arc<Rows>>, Timestamp, u64),
    /// Another plan of the same kind.
    Plan(Arc<SinkPlan>),
    /// The sender goes on when all before this is delivered or on disk.
    Settle,
}

/// All sinks of a run, as the thread that makes records holds them.
pub struct Sinks {
    origin: Origin,
    waits: bool,
    wanted: SinksWanted,
    running: Vec<Handle>,
    /// Taken away; they still deliver what they have.
    retired: Vec<Handle>,
    /// The sums of those before them, by name.
    ended: Vec<SinkReport>,
}

/// One sink.
struct Handle {
    plan: Arc<SinkPlan>,
    tables: Vec<Table>,
    messages: Option<Sender<Message>>,
    report: Arc<ArcSwap<SinkReport>>,
    /// Records between here and the keeper.
    waiting: Arc<AtomicU64>,
    settling: Settling,
    refused: u64,
    retired: bool,
    thread: Option<JoinHandle<SinkReport>>,
}

/// How far a sink is with what it was sent.
#[derive(Default)]
struct Settling {
    /// It knows that it is waited for.
    is_asked: bool,
    since_ns: Option<u64>,
    /// Nobody waits for it until it has caught up.
    is_behind: bool,
}

impl Sinks {
    /// None.
    pub fn none() -> Self {
        Self {
            origin: Origin::new("", ""),
            waits: false,
            wanted: SinksWanted::default(),
            running: Vec::new(),
            retired: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Starts a sink for each plan. `waits`: the caller loses nothing while it waits, so a full queue of a
    /// destination that works makes it wait. `wanted` may name others later.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(
        plans: &[SinkPlan],
        origin: Origin,
        waits: bool,
        wanted: SinksWanted,
    ) -> io::Result<Self> {
        let mut sinks = Self { origin, waits, wanted, ..Self::none() };
        for plan in plans {
            sinks.add(plan.clone())?;
        }
        Ok(sinks)
    }

    /// Whether there is a sink, now or soon.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.wanted.load().is_none()
    }

    /// Hands rows to all sinks that want them. `packets`: the time that the packets have come to;
    /// `until_ns`: how long to wait for room, by the monotonic clock (0: not at all). What finds none is
    /// counted as [`SinkCause::HandOffFull`], before filters.
    pub fn send(&mut self, rows: &Rows, packets: Timestamp, until_ns: u64) {
        self.change();
        let wants = |table: &Table| self.running.iter().any(|sink| sink.tables.contains(table));
        let tables = Table::ALL.iter().filter(|table| rows.len_of(**table) > 0 && wants(table));
        // Each by itself, so that no sink holds rows that only another one wants.
        let parts: Vec<_> = tables.map(|table| Arc::new(rows.only(|it| it == *table))).collect();
        for sink in &mut self.running {
            sink.send(&parts, packets, until_ns);
        }
    }

    /// How all do; those that were taken away as well, of which older ones have one account a name. The sums
    /// of a name never get smaller.
    pub fn reports(&self) -> Vec<SinkReport> {
        let handles = self.running.iter().chain(&self.retired).map(Handle::report);
        handles.chain(self.ended.iter().cloned()).collect()
    }

    /// Whether all that was sent is delivered, lost for good, or in a spool.
    pub fn is_settled(&self) -> bool {
        self.running.iter().chain(&self.retired).all(Handle::is_settled)
    }

    /// Whether all that was sent is out, for a sender that begins again where it was with what is not: sinks
    /// close their batches, and what one with a spool has not delivered within a second, or at once where it
    /// fails, is written there. One that has not done it within [`SETTLE_NS`], or fails and has no spool, is
    /// not waited for until it has caught up; its records wait in its memory meanwhile.
    pub fn settle(&mut self) -> bool {
        let now_ns = monotonic_ns();
        let mut all_settled = true;
        // Each is asked.
        for sink in self.running.iter_mut().chain(&mut self.retired) {
            all_settled &= sink.settle(now_ns);
        }
        all_settled
    }

    /// Whether each sink has taken what it was sent: one that works and whose queue is full takes no more.
    pub fn has_room(&self) -> bool {
        self.running.iter().all(|sink| sink.waiting.load(Ordering::Acquire) == 0)
    }

    /// Delivers what is left, within bounds, ends the threads, and gives the final accounts.
    pub fn finish(mut self) -> Vec<SinkReport> {
        let mut all = std::mem::take(&mut self.running);
        all.append(&mut self.retired);
        // All at once, so that they wait side by side.
        for sink in &mut all {
            sink.messages = None;
        }
        all.into_iter().map(Handle::join).chain(self.ended).collect()
    }

    /// Takes over another configuration, if there is one.
    fn change(&mut self) {
        let Some(plans) = self.wanted.swap(None) else { return };
        let running = std::mem::take(&mut self.running);
        let mut all_told = true;
        for mut sink in running {
            let same = |plan: &&SinkPlan| {
                plan.name == sink.plan.name
                    && plan.kind.name() == sink.plan.kind.name()
                    && plan.spool_folder == sink.plan.spool_folder
            };
            match plans.iter().find(same) {
                Some(plan) => {
                    all_told &= sink.set(plan);
                    self.running.push(sink);
                }
                None => self.retire(sink),
            }
        }
        for plan in plans.iter() {
            let here = self.running.iter().any(|sink| sink.plan.name == plan.name);
            if !here && let Err(error) = self.add(plan.clone()) {
                tracing::error!(sink = plan.name, %error, "the sink does not start");
            }
        }
        if !all_told {
            // Once more with the next rows, unless yet another configuration has come.
            self.wanted.compare_and_swap(&None::<Arc<_>>, Some(plans));
        }
    }

    fn retire(&mut self, mut sink: Handle) {
        tracing::info!(sink = sink.plan.name, "the sink is taken away; what it has is delivered");
        sink.messages = None;
        sink.retired = true;
        self.retired.push(sink);
        self.sum_up();
    }

    /// Of more than [`RETIRED_MAX`] the oldest that have ended keep but one account a name. One that still
    /// delivers is not waited for.
    fn sum_up(&mut self) {
        while self.retired.len() > RETIRED_MAX {
            let Some(place) = self.retired.iter().position(Handle::has_ended) else { return };
            let report = self.retired.remove(place).join();
            match self.ended.iter_mut().find(|sum| sum.name == report.name) {
                Some(sum) => sum.ledger.add(&report.ledger),
                None => self.ended.push(report),
            }
        }
    }

    fn add(&mut self, plan: SinkPlan) -> io::Result<()> {
        let handle = Handle::start(plan, self.origin.clone(), self.waits)?;
        self.running.push(handle);
        Ok(())
    }
}

impl Handle {
    fn start(plan: SinkPlan, origin: Origin, waits: bool) -> io::Result<Self> {
        let probe = Arc::clone(&origin.probe_id);
        let make_encoder = {
            let origin = origin.clone();
            move |plan: &SinkPlan| encoder(plan, &origin)
        };
        let make_driver = Box::new(move |plan: &SinkPlan| driver(plan, &probe));
        Self::with(plan, origin, waits, Box::new(make_encoder), make_driver)
    }

    fn with(
        plan: SinkPlan,
        origin: Origin,
        waits: bool,
        make_encoder: MakeEncoder,
        make_driver: courier::MakeDriver,
    ) -> io::Result<Self> {
        let plan = Arc::new(plan);
        let (messages, inbox) = bounded(MESSAGES_MAX);
        let report = Arc::new(ArcSwap::from_pointee(SinkReport {
            name: plan.name.clone(),
            kind: plan.kind.name(),
            ..SinkReport::default()
        }));
        let waiting = Arc::<AtomicU64>::default();
        let keeper = Keeper::new(KeeperParts {
            encoder: make_encoder(&plan),
            make_encoder,
            queue: Queue::new(u64::from(plan.queue_mib) << 20),
            courier: Courier::start(&plan.name, make_driver)?,
            inbox,
            report: Arc::clone(&report),
            waits,
            run: wall_clock().as_ns(),
            waiting: Arc::clone(&waiting),
            plan: Arc::clone(&plan),
            origin,
        });
        let name = format!("keep-{}", plan.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || keeper.run())?;
        Ok(Self {
            tables: keeper::tables(&plan),
            plan,
            messages: Some(messages),
            report,
            waiting,
            settling: Settling::default(),
            refused: 0,
            retired: false,
            thread: Some(thread),
        })
    }

    fn send(&mut self, parts: &[Arc<Rows>], packets: Timestamp, until_ns: u64) {
        let wants = |rows: &Rows| self.tables.iter().any(|table| rows.len_of(*table) > 0);
        let wanted: Vec<_> = parts.iter().filter(|rows| wants(rows)).cloned().collect();
        // Each has one table.
        let records: u64 = wanted.iter().map(|rows| count(rows.len())).sum();
        let Some(messages) = self.messages.as_ref().filter(|_| records > 0) else { return };
        self.settling.is_asked = false;
        let mut message = Message::Rows(wanted, packets, records);
        loop {
            let waiting = self.waiting.load(Ordering::Relaxed);
            if waiting == 0 || waiting + records <= RECORDS_MAX {
                // Before it can be taken, else the keeper would subtract what is not there yet.
                self.waiting.fetch_add(records, Ordering::Relaxed);
                match messages.try_send(message) {
                    Ok(()) => return,
                    Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                        self.waiting.fetch_sub(records, Ordering::Relaxed);
                        message = back;
                    }
                }
            }
            if monotonic_ns() >= until_ns {
                self.refused += records;
                return;
            }
            sleep_ms(ROOM_MS);
        }
    }

    fn is_settled(&self) -> bool {
        // In this order: what is not on its way any more is in the report.
        self.waiting.load(Ordering::Acquire) == 0 && {
            let ledger = self.report.load().ledger;
            ledger.queued == ledger.spooled
        }
    }

    /// Whether nobody need wait for it.
    fn settle(&mut self, now_ns: u64) -> bool {
        if self.is_settled() {
            (self.settling.since_ns, self.settling.is_behind) = (None, false);
            return true;
        }
        if !self.settling.is_asked
            && let Some(messages) = &self.messages
        {
            self.settling.is_asked = messages.try_send(Message::Settle).is_ok();
        }
        let since_ns = *self.settling.since_ns.get_or_insert(now_ns);
        let fails = matches!(self.report.load().health, SinkHealth::Failing { .. });
        let is_hopeless = fails && self.plan.spool_folder.is_none();
        self.settling.is_behind |= is_hopeless || now_ns - since_ns >= SETTLE_NS;
        self.settling.is_behind
    }

    /// Another plan, if it is another. `false` where there is no room to say so now.
    fn set(&mut self, plan: &SinkPlan) -> bool {
        if *self.plan == *plan {
            return true;
        }
        let plan = Arc::new(plan.clone());
        let message = Message::Plan(Arc::clone(&plan));
        let told = self.messages.as_ref().is_some_and(|to| to.try_send(message).is_ok());
        if told {
            tracing::info!(sink = plan.name, "the sink has another configuration");
            self.tables = keeper::tables(&plan);
            self.plan = plan;
        }
        told
    }

    fn report(&self) -> SinkReport {
        self.complete(SinkReport::clone(&self.report.load()))
    }

    /// What the keeper does not know.
    fn complete(&self, mut report: SinkReport) -> SinkReport {
        report.retired = self.retired;
        count_refused(self.refused, &mut report.ledger);
        report
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end.
    fn join(mut self) -> SinkReport {
        self.messages = None;
        let joined = self.thread.take().and_then(|thread| thread.join().ok());
        let report = joined.unwrap_or_else(|| SinkReport::clone(&self.report.load()));
        self.complete(report)
    }
}

fn count_refused(records: u64, ledger: &mut SinkLedger) {
    ledger.queue(records);
    ledger.drop_queued(SinkCause::HandOffFull, records);
}

fn encoder(plan: &SinkPlan, origin: &Origin) -> Box<dyn Encoder> {
    match &plan.kind {
        SinkKind::Clickhouse(_) => Box::new(super::clickhouse::Native::new()),
        SinkKind::Webhook(_) | SinkKind::Rabbitmq(_) => Box::new(super::json::Lines),
        SinkKind::Kafka(it) => Box::new(super::kafka::Messages::new(it.format)),
        SinkKind::Syslog(syslog) => Box::new(super::syslog::Messages::new(syslog, origin)),
        SinkKind::Eve(_) => Box::new(super::eve::Lines::new(origin)),
        SinkKind::Elastic(_) => Box::new(super::elastic::Documents::new(origin)),
        SinkKind::Splunk(splunk) => Box::new(super::splunk::Events::new(splunk, origin)),
        SinkKind::Ipfix(ipfix) => Box::new(super::ipfix::Records::new(ipfix, &origin.probe_id)),
    }
}

fn driver(plan: &SinkPlan, probe: &str) -> Box<dyn Driver> {
    let timeout_ms = plan.timeout_ms;
    match &plan.kind {
        SinkKind::Clickhouse(it) => Box::new(super::clickhouse::Inserts::new(it, timeout_ms)),
        SinkKind::Webhook(it) => Box::new(super::webhook::Requests::new(it, timeout_ms, probe)),
        SinkKind::Syslog(it) => Box::new(super::syslog::Output::new(it, timeout_ms)),
        SinkKind::Eve(it) => Box::new(super::eve::Output::new(it, timeout_ms)),
        SinkKind::Elastic(it) => Box::new(super::elastic::Bulk::new(it, timeout_ms)),
        SinkKind::Splunk(it) => Box::new(super::splunk::Collector::new(it, timeout_ms, probe)),
        SinkKind::Ipfix(it) => Box::new(super::ipfix::Exporter::new(it, timeout_ms, probe)),
        SinkKind::Rabbitmq(it) => Box::new(super::rabbitmq::Publisher::new(it, timeout_ms, probe)),
        SinkKind::Kafka(it) => Box::new(super::kafka::Publisher::new(it, timeout_ms, probe)),
    }
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
