//! From a plan to the parts of each worker.
//!
//! In: plan, number of receiving workers. Out: [`WorkerParts`] for each worker, made on the
//! worker's own thread from what [`Build`] hands it, and the receivers of the aggregator.

use std::path::PathBuf;
use std::sync::Arc;

use crate::aggregate::live::LiveSnapshot;
use crate::config::{FlowPlan, Plan, Problems, Sizes, Spread};
use crate::copies::CopyTable;
use crate::decode::brief::InBrief;
use crate::decode::filter::Filters;
use crate::decode::{DecodeContext, Decoder, Headers};
use crate::flow::{FlowStage, MeasureTerms};
use crate::path::PathStage;
use crate::sources::MapCell;
use crate::sources::learned::{EvidenceReceiver, EvidenceSender, evidence_rings};
use crate::spread::HashSeed;
use crate::spread::fragments::FragmentTable;
use crate::spread::ring::{
    PAYLOAD_BYTES_PER_PACKET, RingReceiver, RingSender, ring, ring_with_payloads,
};
use crate::spread::shed::{ShedWishes, Shedder};
use crate::time::ms;
use crate::window::{
    EXCERPT_BYTES, HandoffReceiver, HandoffSender, NOTE_BYTES_PER_ROW, ROWS_PER_BLOCK, Row,
    WindowClock, handoff,
};
use crate::worker::{LearnTap, PortNames, WorkerParts};

/// Blocks of rows on their way from a worker to the aggregator.
const HANDOFF_BLOCKS: usize = 256;

/// Taps that are counted by name; what lies beyond is counted in sum only.
const TAPS_MAX: usize = 1_024;

/// Why the packet path could not start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The inventory file is wrong.
    #[error("{0}")]
    Inventory(Problems),
    /// The system has no thread to give.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// Name of the thread.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Capture files could not be opened.
    #[error(transparent)]
    Open(#[from] crate::capture::file::OpenError),
    /// The page could not start.
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
    /// A NIC could not start.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Nic(#[from] crate::capture::nic::NicError),
    /// The store's folder has records of before.
    #[error("{0} holds records already; choose another folder or remove it first")]
    FolderInUse(PathBuf),
}

/// What goes to one worker's thread; the parts are made there.
pub struct Seat {
    plan: Arc<Plan>,
    context: DecodeContext,
    outgoing: Vec<RingSender>,
    incoming: Vec<RingReceiver>,
    handoff: HandoffSender,
    wishes: ShedWishes,
    seed: HashSeed,
    digest_seed: HashSeed,
    place: usize,
    workers: usize,
    receivers: usize,
    waits: bool,
    port_names: PortNames,
    maps: Option<Arc<MapCell>>,
    evidence: Option<EvidenceSender>,
}

/// All seats, and what the aggregation thread needs.
pub struct Build {
    /// One for each worker.
    pub seats: Vec<Seat>,
    /// The aggregator's ends.
    pub handoffs: Vec<HandoffReceiver>,
    /// How time is cut.
    pub windows: WindowClock,
    /// Names of ports; more may come while files are read.
    pub port_names: PortNames,
    /// What workers learn of who has which address; of no worker where nothing is learned.
    pub evidence: EvidenceReceiver,
}

impl Build {
    /// For `workers` workers of which the first `receivers` have a source. `waits`: the sources
    /// are files. `ports`: those known now. `maps`: segments by the inventory; without it, by the plan
    /// alone.
    pub fn new(
        plan: &Arc<Plan>,
        maps: Option<&Arc<MapCell>>,
        ports: &[String],
        (receivers, workers): (usize, usize),
        waits: bool,
    ) -> Self {
        let windows = WindowClock::new(plan.window.length_ms, plan.window.grace_ms);
        let port_names = PortNames::new(ports);
        let seed = HashSeed::random();
        let digest_seed = digest_seed(plan, waits);
        let wishes = ShedWishes::new(workers);
        let context = DecodeContext::new(plan, ports);
        let (mut outgoing, mut incoming) = rings(plan, receivers, workers);
        let learners = if plan.inventory.learned.enabled { workers } else { 0 };
        let (evidence_senders, evidence) = evidence_rings(learners);
        let mut evidence_senders = evidence_senders.into_iter();
        let mut handoffs = Vec::new();
        let mut seats = Vec::new();
        let alone = plan.worker.spread == Spread::Never;
        for place in 0..workers {
            let (sender, receiver) = handoff(HANDOFF_BLOCKS, open_blocks(plan), waits);
            handoffs.push(receiver);
            seats.push(Seat {
                plan: Arc::clone(plan),
                context: context.clone(),
                outgoing: std::mem::take(&mut outgoing[place]),
                incoming: std::mem::take(&mut incoming[place]),
                handoff: sender,
                wishes: wishes.clone(),
                seed,
                digest_seed,
                place,
                // A worker that never spreads is alone as far as it knows.
                workers: if alone { 1 } else { workers },
                receivers: if alone { 1 } else { receivers },
                waits,
                port_names: port_names.clone(),
                maps: maps.cloned(),
                evidence: evidence_senders.next(),
            });
        }
        Self { seats, handoffs, windows, port_names, evidence }
    }
}

impl Seat {
    /// Number of the worker.
    pub fn place(&self) -> usize {
        self.place
    }

    /// Packets that a poll takes at most.
    pub fn burst_packets(&self) -> u16 {
        self.plan.worker.burst_packets
    }

    /// Makes the parts; called on the worker's own thread.
    pub fn parts(self) -> WorkerParts {
        let plan = &self.plan;
        let known = plan.taps.iter().map(|tap| tap.duplicates).collect();
        WorkerParts {
            decoder: Decoder::new(&self.context),
            filters: Filters::new(&plan.filters),
            shedder: Shedder::new(&plan.shed, self.wishes, self.place),
            fragments: FragmentTable::new(
                plan.decode.fragment_slots,
                plan.decode.fragment_timeout_ms,
            ),
            outgoing: self.outgoing,
            incoming: self.incoming,
            copies: Some(CopyTable::new(&plan.copies, self.digest_seed, known)),
            path: plan
                .follows_paths()
                .then(|| PathStage::new(&plan.path, &plan.window, plan.taps.len())),
            remove_copies: plan.copies.remove,
            flows: FlowStage::measuring(&plan.flow, measure_terms(plan))
                .with_transactions(plan.app.transactions),
            windows: WindowClock::new(plan.window.length_ms, plan.window.grace_ms),
            handoff: handoff_of(plan, self.handoff),
            seed: self.seed,
            place: if self.workers == 1 { 0 } else { self.place },
            workers: self.workers,
            receivers: self.receivers,
            hold_ns: u64::from(plan.worker.spread_hold_us) * 1_000,
            waits: self.waits,
            taps_max: TAPS_MAX,
            port_names: self.port_names,
            maps: self.maps,
            learn: self
                .evidence
                .map(|sender| LearnTap::new(plan.inventory.learned.lessons, sender, self.waits)),
            transactions: plan.app.transactions,
        }
    }
}

/// With the blocks that the plan needs.
fn handoff_of(plan: &Plan, handoff: HandoffSender) -> HandoffSender {
    let handoff = if plan.follows_paths() { handoff.with_paths() } else { handoff };
    if plan.app.transactions { handoff.with_excerpts() } else { handoff }
}

fn measure_terms(plan: &Plan) -> MeasureTerms {
    MeasureTerms {
        window_ns: ms(u64::from(plan.window.length_ms)),
        verdict_ns: ms(u64::from(plan.path.verdict_ms)),
        path_window_ns: ms(u64::from(plan.copies.path_window_ms)),
    }
}

/// Keys the digests that select packets: the domain's secret. Where there is none, every run has its
/// own, but a replay that selects takes the same each time, because it gives the same each time.
fn digest_seed(plan: &Plan, waits: bool) -> HashSeed {
    match &plan.path.secret {
        Some(secret) => HashSeed::of_secret(secret),
        None if waits && plan.follows_paths() && plan.path.sample_one_in > 1 => HashSeed::fixed(),
        None => HashSeed::random(),
    }
}

/// Blocks of the rows that a worker can have open.
fn open_blocks(plan: &Plan) -> usize {
    (plan.open_rows() as usize).div_ceil(ROWS_PER_BLOCK)
}

/// Bytes of one entry of each table, for the memory that `check` computes.
pub fn table_sizes() -> Sizes {
    let entry = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    Sizes {
        flow_bytes: entry(
            FlowStage::new(&FlowPlan { slots_per_worker: 1 << 16, ..FlowPlan::default() })
                .bytes_per_flow(),
        ),
        row_bytes: entry(size_of::<Row>() + NOTE_BYTES_PER_ROW),
        copy_bytes: 16,
        path_bytes: 144,
        fragment_bytes: entry(2 * size_of::<Headers>()),
        spread_bytes: entry(size_of::<Headers>() + size_of::<InBrief>()),
        payload_bytes: entry(PAYLOAD_BYTES_PER_PACKET),
        excerpt_bytes: entry(EXCERPT_BYTES),
    }
}

/// A snapshot to show before the first window.
pub(super) fn empty_snapshot(plan: &Plan) -> LiveSnapshot {
    LiveSnapshot {
        probe_id: plan.probe.id.clone(),
        domain: plan.probe.domain.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        window_length_ms: plan.window.length_ms,
        path_sample_one_in: plan.follows_paths().then_some(plan.path.sample_one_in),
        ..LiveSnapshot::default()
    }
}

/// Rings from each receiving worker to every worker, by sender and by receiver. A worker that
/// receives alone keeps its own packets.
fn rings(
    plan: &Plan,
    receivers: usize,
    workers: usize,
) -> (Vec<Vec<RingSender>>, Vec<Vec<RingReceiver>>) {
    let mut outgoing: Vec<Vec<RingSender>> = (0..workers).map(|_| Vec::new()).collect();
    let mut incoming: Vec<Vec<RingReceiver>> = (0..workers).map(|_| Vec::new()).collect();
    if workers == 1 || plan.worker.spread == Spread::Never {
        return (outgoing, incoming);
    }
    for (from, senders) in outgoing.iter_mut().enumerate().take(receivers) {
        for (to, receivers_of) in incoming.iter_mut().enumerate() {
            let packets = plan.worker.spread_ring_packets as usize;
            let (sender, receiver) =
                if plan.app.transactions { ring_with_payloads(packets) } else { ring(packets) };
            senders.push(sender);
            if from != to || receivers > 1 {
                receivers_of.push(receiver);
            }
        }
    }
    (outgoing, incoming)
}
