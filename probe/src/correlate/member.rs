//! One member of the group: its lanes and its sinks; the loop.
//!
//! In: what the brokers give to this member. Out: records to the sinks, a status twice a second, a report.
//! Cost: one thread.
//! Invariants: both lanes go on side by side, neither waits for the other; what a lane says is out has been
//! delivered by the sinks, or is in their spool, or waits in the memory of one that does not keep up and has
//! none; a member ends by itself only where waiting does not help.
//! Source: docs/correlate.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::config::Plan;
use crate::export::kafka::client::Settings;
use crate::export::{SinkReport, Sinks, SinksWanted};
use crate::record::{InventoryRows, Names, Origin, RecordMaker};
use crate::sources::{self, ReadAgain};
use crate::time::{monotonic_ns, ms, wall_clock};
use crate::worker::PortNames;

use super::counts::Counts;
use super::lane::{Job, Lane};
use super::status::{Status, StatusCell};
use super::{contacts, paths};

/// How long a turn waits for messages of each topic, where the turn before had none.
const POLL: Duration = Duration::from_millis(20);
/// How often it is asked whether there is more to read, clocks are told and offsets are committed.
const ROUND_NS: u64 = ms(500);
/// How long the end waits for what is on its way.
const END_NS: u64 = ms(5_000);
/// How often the log tells of clocks that are ahead.
const AHEAD_TOLD_NS: u64 = ms(60_000);

/// Why a member ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum CorrelateError {
    /// No brokers in the configuration.
    #[error("correlate.brokers: is missing")]
    NoBrokers,
    /// Neither two taps nor detectors.
    #[error(
        "[[tap]]: the taps of all probes, two or more, are missing, and correlate.detect is not set"
    )]
    NoTaps,
    /// The inventory.
    #[error("{0}")]
    Inventory(String),
    /// The system has no thread to give.
    #[error("a thread cannot start: {0}")]
    Thread(#[from] std::io::Error),
    /// What the brokers say.
    #[error("{0}")]
    Kafka(String),
}

impl From<KafkaError> for CorrelateError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error.to_string())
    }
}

/// What a member has done.
#[derive(Clone, Debug, Default)]
pub struct CorrelateReport {
    /// Of path samples; nothing with fewer than two taps.
    pub paths: Counts,
    /// Of detectors; nothing where they are off.
    pub detect: Counts,
    /// The sinks.
    pub sinks: Vec<SinkReport>,
}

struct Member {
    paths: Option<Lane>,
    detect: Option<Lane>,
    sinks: Sinks,
    origin: Origin,
    /// For whoever shows it.
    status: StatusCell,
    round_at_ns: u64,
    /// What the log has told of clocks that are ahead, and when it may again.
    ahead_told: (u64, u64),
}

/// Runs a member until `stop`; `status` has how it does.
///
/// # Errors
/// [`CorrelateError`]; what was not committed is another member's then.
pub fn correlate(
    plan: &Arc<Plan>,
    status: &StatusCell,
    stop: &AtomicBool,
) -> Result<CorrelateReport, CorrelateError> {
    if plan.correlate.cluster.brokers.is_empty() {
        return Err(CorrelateError::NoBrokers);
    }
    let (joins, detects) = (plan.taps.len() >= 2, plan.correlate.detect);
    if !joins && !detects {
        return Err(CorrelateError::NoTaps);
    }
    let mut prepared = sources::Prepared::new(plan, false, &ReadAgain::default())
        .map_err(|problems| CorrelateError::Inventory(problems.to_string()))?;
    let view = prepared.view().clone();
    let rows = InventoryRows::new(prepared.take_rows(), Arc::clone(&view.rows));
    let id = format!("vmprobe-correlate-{}", plan.probe.id);
    let settings = Settings::new(&plan.correlate.cluster, &id).map_err(CorrelateError::Kafka)?;
    let lane = |job: &'static Job, rows| {
        let names = Names::new(plan, PortNames::new(&[]));
        let maker = RecordMaker::new(names, Arc::clone(&view.inventory), rows)
            .following_one_in(plan.path.sample_one_in);
        Lane::new(job, plan, &settings, Arc::clone(&view.inventory), maker)
    };
    let origin = Origin::new(&plan.probe.id, &plan.probe.domain);
    let mut member = Member {
        paths: joins.then(|| lane(&paths::JOB, rows)).transpose()?,
        detect: detects.then(|| lane(&contacts::JOB, InventoryRows::default())).transpose()?,
        sinks: Sinks::start(&plan.sinks, origin.clone(), true, SinksWanted::default())?,
        origin,
        status: Arc::clone(status),
        round_at_ns: 0,
        ahead_told: (0, 0),
    };
    let sources = prepared.start();
    let outcome = member.run(stop);
    sources.stop();
    match outcome {
        Ok(()) => Ok(member.end(stop)),
        Err(error) => {
            // What they have is said to be out, or comes again.
            member.sinks.finish();
            Err(error)
        }
    }
}

/// The wall clock, in milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    (wall_clock().as_ns() / ms(1)).cast_signed()
}

impl Member {
    fn lanes(&mut self) -> (impl Iterator<Item = &mut Lane>, &mut Sinks) {
        (self.paths.iter_mut().chain(&mut self.detect), &mut self.sinks)
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<(), CorrelateError> {
        let mut is_busy = false;
        while !stop.load(Ordering::Relaxed) {
            is_busy = self.turn(if is_busy { Duration::ZERO } else { POLL }, stop)?;
            if monotonic_ns() >= self.round_at_ns {
                for lane in self.lanes().0 {
                    lane.round(stop)?;
                }
                self.tell_clocks_ahead();
                self.show();
                self.round_at_ns = monotonic_ns() + ROUND_NS;
            }
        }
        Ok(())
    }

    /// Whether there was anything to read.
    fn turn(&mut self, wait: Duration, stop: &AtomicBool) -> Result<bool, CorrelateError> {
        let (lanes, sinks) = self.lanes();
        let mut any = false;
        for lane in lanes {
            any |= lane.read(wait)?;
            lane.join(stop)?;
            lane.confirm()?;
            lane.reduce(sinks, stop)?;
        }
        Ok(any)
    }

    fn report(&self) -> CorrelateReport {
        let counts = |lane: &Option<Lane>| lane.as_ref().map(Lane::counts).unwrap_or_default();
        CorrelateReport {
            paths: counts(&self.paths),
            detect: counts(&self.detect),
            sinks: self.sinks.reports(),
        }
    }

    fn show(&self) {
        self.status.store(Arc::new(Status {
            member: Arc::clone(&self.origin.probe_id),
            domain: Arc::clone(&self.origin.domain),
            round_ns: monotonic_ns(),
            lanes: self.paths.iter().chain(&self.detect).map(Lane::status).collect(),
            sinks: self.sinks.reports(),
        }));
    }

    /// Says in the log that clocks are ahead, which nobody else may see.
    fn tell_clocks_ahead(&mut self) {
        let lanes = self.paths.iter().chain(&self.detect);
        let clock_ahead = lanes.map(|lane| lane.counts().count("clock_ahead")).sum();
        let (told, again_ns) = self.ahead_told;
        if clock_ahead > told && monotonic_ns() >= again_ns {
            tracing::warn!(
                clock_ahead,
                "the clock of a probe or of another member is ahead of this one's, or this one's behind"
            );
            self.ahead_told = (clock_ahead, monotonic_ns() + AHEAD_TOLD_NS);
        }
    }

    /// Waits for what is on its way, commits, and leaves the group.
    fn end(mut self, stop: &AtomicBool) -> CorrelateReport {
        let until_ns = monotonic_ns() + END_NS;
        let (lanes, sinks) = self.lanes();
        for lane in lanes {
            while lane.drain(sinks, stop, Duration::from_millis(5)) && monotonic_ns() < until_ns {}
            lane.leave();
        }
        let report = self.report();
        CorrelateReport { sinks: self.sinks.finish(), ..report }
    }
}
