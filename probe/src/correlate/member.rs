//! One member of the group: what it reads, joins, adds up, sends and commits; the loop.
//!
//! In: partitions that the brokers give to this member. Out: trajectories to the others, records to the
//! sinks, offsets to the brokers.
//! Cost: one thread; each turn takes what is there and does a bounded step of the rest.
//! Invariants: an offset is committed when what came of all messages before it is confirmed: trajectories
//! by the brokers, records by the sinks (or in their spool); what another member is given is forgotten here
//! at once; nothing is given up but with the whole member.
//! Source: docs/correlate.md.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::config::{KafkaCluster, Plan};
use crate::export::kafka::client::{Says, Settings, Trouble};
use crate::export::{SinkReport, Sinks, SinksWanted};
use crate::inventory::InventoryCell;
use crate::path::Trajectory;
use crate::record::{InventoryRows, Names, Origin, RecordMaker, Table};
use crate::sources::{self, ReadAgain};
use crate::time::{monotonic_ns, ms, wall_clock};
use crate::worker::PortNames;

use super::joined::{Joined, Message};
use super::matcher::Matcher;
use super::reading::{Read, Reading};
use super::reducer::Reducer;
use super::sample::{self, Unread};

/// How long a turn waits for messages of each topic.
const POLL: Duration = Duration::from_millis(20);
/// Messages of a turn at most.
const TURN_MESSAGES_MAX: usize = 2_000;
/// How often it is asked whether there is more to read, clocks are told and offsets are committed.
const ROUND_NS: u64 = ms(500);
/// Messages in the producer's queue at most.
const QUEUE_MESSAGES_MAX: usize = 100_000;
/// Windows whose records may be with the sinks at once: what may come twice.
const UNDER_WAY_MAX: usize = 4;
/// How long the end waits for what is on its way.
const END_NS: u64 = ms(5_000);
/// How often the log tells of clocks that are ahead.
const AHEAD_TOLD_NS: u64 = ms(60_000);
/// What comes behind the prefix in the name of the topic between members; only its partition 0 is used.
const JOINED_TOPIC: &str = "trajectories";
/// What comes behind the group's name in that of those that add up.
const SUM_GROUP: &str = "-sum";

/// Why a member ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum CorrelateError {
    /// No brokers in the configuration.
    #[error("correlate.brokers: is missing")]
    NoBrokers,
    /// Fewer than two taps.
    #[error("[[tap]]: the taps of all probes, two or more, are missing")]
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
    /// Messages read.
    pub messages: u64,
    /// Messages that gave no sighting, by reason.
    pub malformed: u64,
    /// Of taps that the configuration does not have.
    pub unknown_tap: u64,
    /// Of address spaces that it does not have.
    pub unknown_space: u64,
    /// Trajectories joined.
    pub joined: u64,
    /// Digests whose time was cut short for want of room.
    pub evicted: u64,
    /// Sightings beyond those that one digest may have.
    pub left_out: u64,
    /// Trajectories that were added up.
    pub taken: u64,
    /// Of these, that had been there before and counted once.
    pub repeated: u64,
    /// Of these, that would count again if they came again: there was no room to remember them.
    pub unremembered: u64,
    /// Packets whose window was over.
    pub late: u64,
    /// Messages that were sent later than now by more than a tenth of the hold, and counted as sent then;
    /// packets that were later than their messages by more than the hold, and were left out.
    pub clock_ahead: u64,
    /// Windows given out.
    pub windows: u64,
    /// Records made of them.
    pub records: u64,
    /// The sinks.
    pub sinks: Vec<SinkReport>,
}

/// What a message was about, so that its confirmation is known.
#[derive(Clone, Copy)]
enum Sent {
    Joined { assignment: u64, partition: i32, offset: i64 },
    Clock,
    Emitted { assignment: u64, window: u64 },
}

/// Tells of messages that are confirmed, or never will be.
struct Confirms {
    says: Says,
    reports: Sender<(Sent, Option<KafkaError>)>,
}

impl ClientContext for Confirms {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.says.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.says.error(error, reason);
    }
}

impl ProducerContext for Confirms {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let failed = result.as_ref().err().map(|(error, _)| error.clone());
        let told = self.reports.try_send((*sent, failed));
        debug_assert!(told.is_ok(), "there is room for as many as the queue holds");
    }
}

/// A partition of the samples.
struct Partition {
    matcher: Matcher,
    /// There was nothing behind this offset.
    end: Option<i64>,
    /// Offsets of trajectories that are not confirmed yet, with how many.
    unconfirmed: BTreeMap<i64, u64>,
    /// There was nothing more to read then.
    ended_ms: Option<i64>,
    told_ms: i64,
    committed: i64,
}

struct Member {
    plan: Arc<Plan>,
    samples: Reading,
    joined: Reading,
    producer: BaseProducer<Confirms>,
    reports: Receiver<(Sent, Option<KafkaError>)>,
    inventory: InventoryCell,
    /// Counts assignments of samples, and of the adding up.
    assignments: [u64; 2],
    names: Names,
    maker: Option<RecordMaker>,
    partitions: BTreeMap<i32, Partition>,
    reducer: Option<Reducer>,
    /// Of the topic between members.
    joined_committed: i64,
    /// The last window whose records are with the sinks, and whether others are being told that these
    /// are out.
    under_way: Option<(u64, bool)>,
    sinks: Sinks,
    round_at_ns: u64,
    /// What the log has told of clocks that are ahead, and when it may again.
    ahead_told: (u64, u64),
    report: CorrelateReport,
}

/// Runs a member until `stop`.
///
/// # Errors
/// [`CorrelateError`]; what was not committed is another member's then.
pub fn correlate(plan: &Arc<Plan>, stop: &AtomicBool) -> Result<CorrelateReport, CorrelateError> {
    let cluster = &plan.correlate.cluster;
    if cluster.brokers.is_empty() {
        return Err(CorrelateError::NoBrokers);
    }
    if plan.taps.len() < 2 {
        return Err(CorrelateError::NoTaps);
    }
    let mut prepared = sources::Prepared::new(plan, false, &ReadAgain::default())
        .map_err(|problems| CorrelateError::Inventory(problems.to_string()))?;
    let view = prepared.view().clone();
    let rows = InventoryRows::new(prepared.take_rows(), Arc::clone(&view.rows));
    let names = || Names::new(plan, PortNames::new(&[]));
    let maker = RecordMaker::new(names(), Arc::clone(&view.inventory), rows)
        .following_one_in(plan.path.sample_one_in);
    let mut member = Member::new(plan, cluster, view.inventory, names(), maker)?;
    let sources = prepared.start();
    let outcome = member.run(stop);
    sources.stop();
    outcome.map(|()| member.end(stop))
}

/// The wall clock, in milliseconds since the epoch.
fn now_ms() -> i64 {
    (wall_clock().as_ns() / ms(1)).cast_signed()
}

fn producer(settings: &Settings, confirms: Confirms) -> Result<BaseProducer<Confirms>, KafkaError> {
    settings
        .config()
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", QUEUE_MESSAGES_MAX.to_string())
        .set("compression.type", "zstd")
        .create_with_context(confirms)
}

impl Member {
    fn new(
        plan: &Arc<Plan>,
        cluster: &KafkaCluster,
        inventory: InventoryCell,
        names: Names,
        maker: RecordMaker,
    ) -> Result<Self, CorrelateError> {
        let id = format!("vmprobe-correlate-{}", plan.probe.id);
        let settings = Settings::new(cluster, &id).map_err(CorrelateError::Kafka)?;
        let (to_reports, reports) = bounded(QUEUE_MESSAGES_MAX);
        let confirms = Confirms { says: Says(Trouble::default()), reports: to_reports };
        let (correlate, group) = (&plan.correlate, &plan.correlate.group);
        let topic = |name: &str| format!("{}{name}", correlate.topic_prefix);
        let samples = topic(Table::PathSamples.name());
        let origin = Origin::new(&plan.probe.id, &plan.probe.domain);
        Ok(Self {
            samples: Reading::new(correlate, &settings, group, samples)?,
            joined: Reading::new(
                correlate,
                &settings,
                &format!("{group}{SUM_GROUP}"),
                topic(JOINED_TOPIC),
            )?,
            sinks: Sinks::start(&plan.sinks, origin, true, SinksWanted::default())?,
            producer: producer(&settings, confirms)?,
            plan: Arc::clone(plan),
            reports,
            inventory,
            assignments: [0; 2],
            names,
            maker: Some(maker),
            partitions: BTreeMap::new(),
            reducer: None,
            joined_committed: 0,
            under_way: None,
            round_at_ns: 0,
            ahead_told: (0, 0),
            report: CorrelateReport::default(),
        })
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<(), CorrelateError> {
        while !stop.load(Ordering::Relaxed) {
            self.read_samples()?;
            self.read_joined()?;
            self.join(stop);
            self.confirm()?;
            self.reduce(stop);
            if monotonic_ns() >= self.round_at_ns {
                self.round(stop)?;
                self.round_at_ns = monotonic_ns() + ROUND_NS;
            }
        }
        Ok(())
    }

    /// Takes what there is of samples, within bounds.
    fn read_samples(&mut self) -> Result<(), CorrelateError> {
        let mut wait = POLL;
        for _ in 0..TURN_MESSAGES_MAX {
            let read = self.samples.next(wait)?;
            wait = Duration::ZERO;
            if let Some(partitions) = self.samples.assigned() {
                self.assign_samples(&partitions)?;
            }
            match read {
                None => break,
                Some(Read::End { partition }) => {
                    if let Some(place) = self.partitions.get_mut(&partition) {
                        place.end = Some(place.matcher.next_offset());
                    }
                }
                Some(Read::Message { partition, offset, sent_ms, value }) => {
                    self.report.messages += 1;
                    self.take_sample((partition, offset), sent_ms, &value);
                }
            }
        }
        Ok(())
    }

    fn take_sample(&mut self, (partition, offset): (i32, i64), sent_ms: i64, value: &[u8]) {
        let Some(place) = self.partitions.get_mut(&partition) else { return };
        let sighting = match sample::read(&self.plan, value) {
            Ok(sighting) => Some(sighting),
            Err(why) => {
                match why {
                    Unread::Malformed => self.report.malformed += 1,
                    Unread::UnknownTap => self.report.unknown_tap += 1,
                    Unread::UnknownSpace => self.report.unknown_space += 1,
                }
                None
            }
        };
        place.matcher.read(offset, (sent_ms, now_ms()), sighting);
    }

    /// The same of what members have joined, if this one adds up.
    fn read_joined(&mut self) -> Result<(), CorrelateError> {
        let mut wait = POLL;
        for _ in 0..TURN_MESSAGES_MAX {
            let read = self.joined.next(wait)?;
            wait = Duration::ZERO;
            if let Some(partitions) = self.joined.assigned() {
                self.assign_joined(partitions.contains(&0))?;
            }
            match (read, &mut self.reducer) {
                (None, _) => break,
                (Some(Read::End { partition: 0 }), Some(reducer)) => reducer.caught_up(),
                (Some(Read::Message { partition: 0, offset, value, .. }), Some(reducer)) => {
                    self.report.messages += 1;
                    reducer.read(offset, &value, now_ms());
                }
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

    fn assign_samples(&mut self, partitions: &[i32]) -> Result<(), CorrelateError> {
        self.assignments[0] += 1;
        self.report_matchers();
        self.partitions.clear();
        tracing::info!(?partitions, "this member joins");
        let hold_ms = self.plan.correlate.hold_ms.into();
        for partition in partitions {
            let first = self.samples.first_offset(*partition)?;
            let place = Partition {
                matcher: Matcher::new(&self.plan, hold_ms, first),
                end: None,
                unconfirmed: BTreeMap::new(),
                ended_ms: None,
                told_ms: i64::MIN,
                committed: first,
            };
            self.partitions.insert(*partition, place);
        }
        Ok(())
    }

    fn assign_joined(&mut self, reduces: bool) -> Result<(), CorrelateError> {
        self.assignments[1] += 1;
        self.under_way = None;
        if let Some(reducer) = self.reducer.take() {
            self.report_reducer(&reducer);
            self.maker = Some(reducer.into_maker());
        }
        tracing::info!(reduces, "this member adds up");
        if reduces && let Some(maker) = self.maker.take() {
            let first = self.joined.first_offset(0)?;
            let (partitions, inventory) = (self.samples.partitions()?, Arc::clone(&self.inventory));
            self.joined_committed = first;
            self.reducer = Some(Reducer::new(&self.plan, inventory, maker, partitions, first));
        }
        Ok(())
    }

    /// Joins what has been held long enough.
    fn join(&mut self, stop: &AtomicBool) {
        let mut all = Vec::new();
        for (partition, place) in &mut self.partitions {
            place.matcher.due(place.ended_ms, |offset, sent_ms, trajectory: &Trajectory| {
                all.push((*partition, offset, sent_ms, *trajectory));
            });
        }
        for (partition, offset, sent_ms, trajectory) in all {
            if let Some(place) = self.partitions.get_mut(&partition) {
                *place.unconfirmed.entry(offset).or_default() += 1;
            }
            self.report.joined += 1;
            let joined = Joined::of(&trajectory, sent_ms, &mut self.names);
            let assignment = self.assignments[0];
            let sent = Sent::Joined { assignment, partition, offset };
            // What is not sent is never confirmed, so it is read again.
            self.send(&Message::Joined(Box::new(joined)), sent, stop);
        }
    }

    fn send(&self, message: &Message, sent: Sent, stop: &AtomicBool) -> bool {
        send(&self.producer, self.joined.topic(), message, sent, stop)
    }

    /// Takes confirmations.
    fn confirm(&mut self) -> Result<(), CorrelateError> {
        self.producer.poll(Duration::ZERO);
        if let Some((_, what)) = self.producer.client().fatal_error() {
            return Err(CorrelateError::Kafka(what));
        }
        while let Ok((sent, failed)) = self.reports.try_recv() {
            if let Some(error) = failed {
                return Err(CorrelateError::Kafka(format!(
                    "topic {}: {error}",
                    self.joined.topic()
                )));
            }
            match sent {
                Sent::Joined { assignment, partition, offset }
                    if assignment == self.assignments[0] =>
                {
                    let place = self.partitions.get_mut(&partition);
                    if let Some(unconfirmed) = place.map(|place| &mut place.unconfirmed)
                        && let Some(count) = unconfirmed.get_mut(&offset)
                    {
                        *count -= 1;
                        if *count == 0 {
                            unconfirmed.remove(&offset);
                        }
                    }
                }
                Sent::Emitted { assignment, window } if assignment == self.assignments[1] => {
                    self.under_way = None;
                    if let Some(reducer) = &mut self.reducer {
                        reducer.is_out(window);
                    }
                }
                Sent::Joined { .. } | Sent::Emitted { .. } | Sent::Clock => {}
            }
        }
        Ok(())
    }

    /// Gives out the next windows, once those before are out.
    fn reduce(&mut self, stop: &AtomicBool) {
        match self.under_way {
            Some((window, false)) if self.sinks.is_settled() => {
                let sent = Sent::Emitted { assignment: self.assignments[1], window };
                let told = self.send(&Message::Emitted { window }, sent, stop);
                self.under_way = Some((window, told));
            }
            Some(_) => {}
            None => {
                let Some(reducer) = &mut self.reducer else { return };
                for (window, end, rows) in
                    std::iter::from_fn(|| reducer.next_rows()).take(UNDER_WAY_MAX)
                {
                    self.report.windows += 1;
                    self.report.records += u64::try_from(rows.len()).unwrap_or(u64::MAX);
                    self.sinks.send(&rows, end, u64::MAX);
                    self.under_way = Some((window, false));
                }
            }
        }
    }

    /// What is done now and then: looks whether there is more to read, tells clocks, commits offsets.
    fn round(&mut self, stop: &AtomicBool) -> Result<(), CorrelateError> {
        self.tell_clocks_ahead();
        let mut clocks = Vec::new();
        for (partition, place) in &mut self.partitions {
            let next = place.matcher.next_offset();
            // Asking waits for brokers, which may be gone.
            let at_end = place.end == Some(next)
                && !stop.load(Ordering::Relaxed)
                && self.samples.is_end(*partition, next);
            place.ended_ms = at_end.then(now_ms);
            // What is due by this clock is joined in the next turn: so it is told before that turn's.
            let clock_ms = place.matcher.clock_ms(place.ended_ms);
            if clock_ms > place.told_ms {
                place.told_ms = clock_ms;
                clocks.push((*partition, clock_ms));
            }
        }
        self.join(stop);
        for (partition, sent_ms) in clocks {
            // A clock stands behind what is joined until then: without that, there is none.
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.send(&Message::Clock { partition, sent_ms }, Sent::Clock, stop);
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<(), CorrelateError> {
        let due = self.partitions.iter_mut().filter_map(|(partition, place)| {
            let unconfirmed = place.unconfirmed.first_key_value().map(|(offset, _)| *offset);
            let held = place.matcher.first_needed();
            let offset = unconfirmed.map_or(held, |offset| offset.min(held));
            (offset > std::mem::replace(&mut place.committed, offset))
                .then_some((*partition, offset))
        });
        self.samples.commit(due)?;
        let needed = self.reducer.as_ref().map(Reducer::first_needed);
        let due = needed.filter(|offset| *offset > self.joined_committed);
        self.joined_committed = due.unwrap_or(self.joined_committed);
        self.joined.commit(due.map(|offset| (0, offset)).into_iter())
    }

    fn report_matchers(&mut self) {
        for place in self.partitions.values() {
            let counts = place.matcher.counts();
            self.report.evicted += counts.evicted;
            self.report.left_out += counts.left_out;
            self.report.clock_ahead += counts.clock_ahead;
        }
    }

    /// Says in the log that clocks are ahead, which nobody else may see.
    fn tell_clocks_ahead(&mut self) {
        let matchers = self.partitions.values().map(|place| place.matcher.counts().clock_ahead);
        let reducer = self.reducer.as_ref().map_or(0, |it| it.counts().clock_ahead);
        let clock_ahead = self.report.clock_ahead + matchers.sum::<u64>() + reducer;
        let (told, again_ns) = self.ahead_told;
        if clock_ahead > told && monotonic_ns() >= again_ns {
            tracing::warn!(
                clock_ahead,
                "the clock of a probe or of another member is ahead of this one's, or this one's behind"
            );
            self.ahead_told = (clock_ahead, monotonic_ns() + AHEAD_TOLD_NS);
        }
    }

    fn report_reducer(&mut self, reducer: &Reducer) {
        let counts = reducer.counts();
        self.report.taken += counts.taken;
        self.report.repeated += counts.repeated;
        self.report.unremembered += counts.unremembered;
        self.report.late += counts.late;
        self.report.malformed += counts.unread;
        self.report.clock_ahead += counts.clock_ahead;
    }

    /// Waits for what is on its way, commits, and leaves the group.
    fn end(mut self, stop: &AtomicBool) -> CorrelateReport {
        let until_ns = monotonic_ns() + END_NS;
        let is_open = |it: &Self| {
            it.under_way.is_some() || it.partitions.values().any(|it| !it.unconfirmed.is_empty())
        };
        while is_open(&self) && monotonic_ns() < until_ns {
            self.producer.poll(Duration::from_millis(5));
            if self.confirm().is_err() {
                break;
            }
            if self.under_way.is_some() {
                self.reduce_no_more(stop);
            }
        }
        let _ = self.commit();
        self.samples.leave();
        self.joined.leave();
        self.report_matchers();
        if let Some(reducer) = self.reducer.take() {
            self.report_reducer(&reducer);
        }
        self.report.sinks = self.sinks.finish();
        self.report
    }

    /// As [`Member::reduce`], without another window.
    fn reduce_no_more(&mut self, stop: &AtomicBool) {
        if self.under_way.is_some_and(|(_, told)| !told) {
            self.reduce(stop);
        }
    }
}

/// Sends a message to the member that adds up. Waits for room, which the brokers make, until `stop`.
/// Whether the producer has it.
fn send(
    producer: &BaseProducer<Confirms>,
    topic: &str,
    message: &Message,
    sent: Sent,
    stop: &AtomicBool,
) -> bool {
    let Ok(value) = serde_json::to_vec(message) else { return false };
    let mut record = BaseRecord::<(), Vec<u8>, Box<Sent>>::with_opaque_to(topic, Box::new(sent))
        .partition(0)
        .payload(&value);
    while let Err((error, back)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            // The producer has broken for good, which `confirm` sees.
            tracing::error!(%error, "sending");
            return false;
        }
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        record = back;
        producer.poll(Duration::from_millis(5));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use rdkafka::config::ClientConfig;

    use super::*;

    #[test]
    fn a_full_queue_of_a_broker_that_is_away_does_not_hold_up_the_end() {
        let (reports, _keep) = bounded(10);
        let confirms = Confirms { says: Says(Trouble::default()), reports };
        // Nobody listens there.
        let producer: BaseProducer<Confirms> = ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("queue.buffering.max.messages", "1")
            .create_with_context(confirms)
            .expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let (said, heard) = mpsc::channel();
        let stops = Arc::clone(&stop);
        thread::spawn(move || {
            for _ in 0..2 {
                let clock = Message::Clock { partition: 0, sent_ms: 0 };
                let sent = send(&producer, "trajectories", &clock, Sent::Clock, &stops);
                let _ = said.send(sent);
            }
        });
        let soon = Duration::from_secs(20);
        assert_eq!(heard.recv_timeout(soon), Ok(true), "there is room for one");
        assert!(heard.recv_timeout(Duration::from_millis(300)).is_err(), "it waits for room");
        stop.store(true, Ordering::Relaxed);
        assert_eq!(heard.recv_timeout(soon), Ok(false), "it waits no more");
    }
}
