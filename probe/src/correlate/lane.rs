//! One way from probes to records: a topic of theirs, that between members, and what is made of both.
//!
//! In: partitions of both topics that the brokers give to this member. Out: messages to the member that
//! adds up, its records, offsets to the brokers.
//! Cost: part of the member's thread; each turn takes what is there and does a bounded step of the rest.
//! Invariants: an offset is committed when what came of all messages before it is confirmed: messages
//! between members by the brokers, records by the sinks (or in their spool); what another member is given
//! is forgotten here at once; nothing is given up but with the whole member.
//! Source: docs/correlate.md.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::config::Plan;
use crate::export::Sinks;
use crate::export::kafka::client::{Says, Settings, Trouble};
use crate::inventory::InventoryCell;
use crate::record::{RecordMaker, Rows};
use crate::time::Timestamp;

use super::counts::Counts;
use super::member::{CorrelateError, now_ms};
use super::message::Message;
use super::reading::{Begin, Read, Reading};
use super::sending::{Confirms, QUEUE_MESSAGES_MAX, Sent, producer};
use super::status::{LaneStatus, PartitionStatus, Rooms, TopicStatus};

/// Messages of a turn of each topic at most.
const TURN_MESSAGES_MAX: usize = 2_000;
/// Windows whose records may be with the sinks at once: what may come twice.
const UNDER_WAY_MAX: usize = 4;

/// What is made of one partition of what probes send.
pub(super) trait Part {
    /// A message was read. `times`: when it says that it was sent, and the wall clock, in milliseconds.
    fn read(&mut self, offset: i64, times: (i64, i64), value: &[u8]);
    /// Gives out what is over, each with the offset from which on it must be read again if it is not
    /// confirmed. `ended_ms`: the wall clock of when there was nothing more to read.
    fn due(&mut self, ended_ms: Option<i64>, out: &mut dyn FnMut(i64, Message));
    /// Up to when messages were read.
    fn clock_ms(&self, ended_ms: Option<i64>) -> i64;
    /// The offset behind the last message.
    fn next_offset(&self) -> i64;
    /// What must be read again by who comes after: all from here on.
    fn first_needed(&self) -> i64;
    /// Adds what it has counted.
    fn count(&self, counts: &mut Counts);
    /// Adds what it holds of what it has room for.
    fn rooms(&self, _: &mut Rooms) {}
}

/// What is made of the messages of all members.
pub(super) trait Reduce {
    /// Takes a message. `now_ms`: the wall clock.
    fn read(&mut self, offset: i64, value: &[u8], now_ms: i64);
    /// There is nothing more to read now.
    fn caught_up(&mut self);
    /// The next window that is over, its end and its records.
    fn next_rows(&mut self) -> Option<(u64, Timestamp, Rows)>;
    /// The records of a window, and of all before it, are out.
    fn is_out(&mut self, window: u64);
    /// What must be read again by who comes after: all from here on.
    fn first_needed(&mut self) -> i64;
    /// Adds what it has counted.
    fn count(&self, counts: &mut Counts);
    /// Adds what it holds of what it has room for.
    fn rooms(&self, rooms: &mut Rooms);
    /// Alerts that are open.
    fn open_alerts(&self) -> u64 {
        0
    }
    /// For the next one of the same member.
    fn into_maker(self: Box<Self>) -> RecordMaker;
}

/// What begins a [`Reduce`].
pub(super) struct Start {
    pub(super) inventory: InventoryCell,
    pub(super) maker: RecordMaker,
    /// Of the topic of probes.
    pub(super) partitions: usize,
    pub(super) first: Begin,
}

/// What a lane is for.
pub(super) struct Job {
    /// What stands behind the prefix in the name of the topic of probes.
    pub(super) topic: &'static str,
    /// The same of the topic between members, of which only partition 0 is used.
    pub(super) between: &'static str,
    /// What stands behind the group's name in those of the members that read either topic.
    pub(super) groups: [&'static str; 2],
    /// What is counted, but for what is left out.
    pub(super) counts: &'static [&'static str],
    /// What is left out, by cause.
    pub(super) causes: &'static [&'static str],
    pub(super) part: fn(&Arc<Plan>, i64) -> Box<dyn Part>,
    pub(super) reduce: fn(&Arc<Plan>, Start) -> Box<dyn Reduce>,
}

/// A partition of what probes send.
struct Partition {
    part: Box<dyn Part>,
    /// There was nothing behind this offset.
    end: Option<i64>,
    /// Offsets of messages that are not confirmed yet, with how many.
    unconfirmed: BTreeMap<i64, u64>,
    /// There was nothing more to read then.
    ended_ms: Option<i64>,
    told_ms: i64,
    committed: i64,
}

/// One of them.
pub(super) struct Lane {
    job: &'static Job,
    plan: Arc<Plan>,
    sent: Reading,
    joined: Reading,
    producer: BaseProducer<Confirms>,
    /// What the producer says of its brokers.
    trouble: Trouble,
    reports: Receiver<(Sent, Option<KafkaError>)>,
    inventory: InventoryCell,
    /// Counts assignments of what probes send, and of the adding up.
    assignments: [u64; 2],
    maker: Option<RecordMaker>,
    partitions: BTreeMap<i32, Partition>,
    reducer: Option<Box<dyn Reduce>>,
    /// Of the topic between members: what need never be read again, and what is read.
    joined_committed: i64,
    joined_next: i64,
    /// Messages read of each topic.
    messages: [u64; 2],
    /// The last window whose records are with the sinks, and whether others are being told that these
    /// are out.
    under_way: Option<(u64, bool)>,
    /// Of what is no longer this member's.
    past: Counts,
}

impl Lane {
    pub(super) fn new(
        job: &'static Job,
        plan: &Arc<Plan>,
        settings: &Settings,
        inventory: InventoryCell,
        maker: RecordMaker,
    ) -> Result<Self, CorrelateError> {
        let (to_reports, reports) = bounded(QUEUE_MESSAGES_MAX);
        let trouble = Trouble::default();
        let confirms = Confirms { says: Says(trouble.clone()), reports: to_reports };
        let correlate = &plan.correlate;
        let reading = |group: &str, topic: &str| {
            let group = format!("{}{group}", correlate.group);
            let topic = format!("{}{topic}", correlate.topic_prefix);
            Reading::new(correlate, settings, &group, topic)
        };
        Ok(Self {
            job,
            sent: reading(job.groups[0], job.topic)?,
            joined: reading(job.groups[1], job.between)?,
            producer: producer(settings, confirms)?,
            plan: Arc::clone(plan),
            trouble,
            reports,
            inventory,
            assignments: [0; 2],
            maker: Some(maker),
            partitions: BTreeMap::new(),
            reducer: None,
            joined_committed: 0,
            joined_next: 0,
            messages: [0; 2],
            under_way: None,
            past: Counts::of(&[job.counts, job.causes]),
        })
    }

    /// Takes what there is of both topics, within bounds; whether there was anything. Waits so long for
    /// each where there is nothing.
    pub(super) fn read(&mut self, wait: Duration) -> Result<bool, CorrelateError> {
        let sent = self.read_sent(wait)?;
        let joined = self.read_joined(wait)?;
        Ok(sent || joined)
    }

    fn read_sent(&mut self, mut wait: Duration) -> Result<bool, CorrelateError> {
        let mut any = false;
        for _ in 0..TURN_MESSAGES_MAX {
            let read = self.sent.next(wait)?;
            wait = Duration::ZERO;
            if let Some(partitions) = self.sent.assigned() {
                self.assign_sent(&partitions)?;
            }
            match read {
                None => break,
                Some(Read::End { partition }) => {
                    if let Some(place) = self.partitions.get_mut(&partition) {
                        place.end = Some(place.part.next_offset());
                    }
                }
                Some(Read::Message { partition, offset, sent_ms, value }) => {
                    any = true;
                    self.messages[0] += 1;
                    if let Some(place) = self.partitions.get_mut(&partition) {
                        place.part.read(offset, (sent_ms, now_ms()), &value);
                    }
                }
            }
        }
        Ok(any)
    }

    /// The same of what members have joined, if this one adds up.
    fn read_joined(&mut self, mut wait: Duration) -> Result<bool, CorrelateError> {
        let mut any = false;
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
                    any = true;
                    self.messages[1] += 1;
                    self.joined_next = offset + 1;
                    reducer.read(offset, &value, now_ms());
                }
                (Some(_), _) => {}
            }
        }
        Ok(any)
    }

    fn assign_sent(&mut self, partitions: &[i32]) -> Result<(), CorrelateError> {
        self.assignments[0] += 1;
        for place in self.partitions.values() {
            place.part.count(&mut self.past);
        }
        self.partitions.clear();
        tracing::info!(of = self.job.topic, ?partitions, "this member joins");
        for partition in partitions {
            let first = self.sent.begin(*partition)?.offset;
            let place = Partition {
                part: (self.job.part)(&self.plan, first),
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
            reducer.count(&mut self.past);
            self.maker = Some(reducer.into_maker());
        }
        tracing::info!(of = self.job.topic, reduces, "this member adds up");
        if reduces && let Some(maker) = self.maker.take() {
            let first = self.joined.begin(0)?;
            let (partitions, inventory) = (self.sent.partitions()?, Arc::clone(&self.inventory));
            (self.joined_committed, self.joined_next) = (first.offset, first.offset);
            let start = Start { inventory, maker, partitions, first };
            self.reducer = Some((self.job.reduce)(&self.plan, start));
        }
        Ok(())
    }

    /// Joins what has been held long enough.
    pub(super) fn join(&mut self, stop: &AtomicBool) {
        let mut all = Vec::new();
        for (partition, place) in &mut self.partitions {
            let unconfirmed = &mut place.unconfirmed;
            place.part.due(place.ended_ms, &mut |offset, message| {
                *unconfirmed.entry(offset).or_default() += 1;
                all.push((*partition, offset, message));
            });
        }
        for (partition, offset, message) in all {
            let assignment = self.assignments[0];
            // What is not sent is never confirmed, so it is read again.
            self.send(&message, Sent::Joined { assignment, partition, offset }, stop);
        }
    }

    fn send(&self, message: &Message, sent: Sent, stop: &AtomicBool) -> bool {
        send(&self.producer, self.joined.topic(), message, sent, stop)
    }

    /// Takes confirmations.
    pub(super) fn confirm(&mut self) -> Result<(), CorrelateError> {
        self.producer.poll(Duration::ZERO);
        if let Some((_, what)) = self.producer.client().fatal_error() {
            return Err(CorrelateError::Kafka(what));
        }
        while let Ok((sent, failed)) = self.reports.try_recv() {
            if let Some(error) = failed {
                let topic = self.joined.topic();
                return Err(CorrelateError::Kafka(format!("topic {topic}: {error}")));
            }
            self.confirmed(sent);
        }
        Ok(())
    }

    fn confirmed(&mut self, sent: Sent) {
        match sent {
            Sent::Joined { assignment, partition, offset } if assignment == self.assignments[0] => {
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

    /// Gives out the next windows, once those before are out.
    pub(super) fn reduce(&mut self, sinks: &mut Sinks, stop: &AtomicBool) {
        if self.under_way.is_some() {
            return self.tell(sinks, stop);
        }
        let Some(reducer) = &mut self.reducer else { return };
        for (window, end, rows) in std::iter::from_fn(|| reducer.next_rows()).take(UNDER_WAY_MAX) {
            self.past.add("windows", 1);
            self.past.add("records", u64::try_from(rows.len()).unwrap_or(u64::MAX));
            sinks.send(&rows, end, u64::MAX);
            self.under_way = Some((window, false));
        }
    }

    /// Tells others of records that are out.
    fn tell(&mut self, sinks: &Sinks, stop: &AtomicBool) {
        if let Some((window, false)) = self.under_way
            && sinks.is_settled()
        {
            let sent = Sent::Emitted { assignment: self.assignments[1], window };
            let told = self.send(&Message::Emitted { window }, sent, stop);
            self.under_way = Some((window, told));
        }
    }

    /// What is done now and then: looks whether there is more to read, tells clocks, commits offsets.
    pub(super) fn round(&mut self, stop: &AtomicBool) -> Result<(), CorrelateError> {
        let mut clocks = Vec::new();
        for (partition, place) in &mut self.partitions {
            let next = place.part.next_offset();
            // Asking waits for brokers, which may be gone.
            let at_end = place.end == Some(next)
                && !stop.load(Ordering::Relaxed)
                && self.sent.is_end(*partition, next);
            place.ended_ms = at_end.then(now_ms);
            // What is due by this clock is joined in the next turn: so it is told before that turn's.
            let clock_ms = place.part.clock_ms(place.ended_ms);
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
            let held = place.part.first_needed();
            let offset = unconfirmed.map_or(held, |offset| offset.min(held));
            (offset > std::mem::replace(&mut place.committed, offset))
                .then_some((*partition, offset))
        });
        self.sent.commit(due)?;
        let needed = self.reducer.as_mut().map(|reducer| reducer.first_needed());
        let due = needed.filter(|offset| *offset > self.joined_committed);
        self.joined_committed = due.unwrap_or(self.joined_committed);
        self.joined.commit(due.map(|offset| (0, offset)).into_iter())
    }

    /// All that is counted so far.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.past.clone();
        counts.add("messages", self.messages.iter().sum());
        for place in self.partitions.values() {
            place.part.count(&mut counts);
        }
        if let Some(reducer) = &self.reducer {
            reducer.count(&mut counts);
        }
        counts
    }

    /// How it does now.
    pub(super) fn status(&self) -> LaneStatus {
        let mut rooms = Rooms::default();
        for place in self.partitions.values() {
            place.part.rooms(&mut rooms);
        }
        if let Some(reducer) = &self.reducer {
            reducer.rooms(&mut rooms);
        }
        LaneStatus {
            table: self.job.topic,
            reduces: self.reducer.is_some(),
            counts: self.counts(),
            causes: self.job.causes,
            open_alerts: self.reducer.as_ref().map_or(0, |reducer| reducer.open_alerts()),
            rooms,
            topics: [self.sent_status(), self.joined_status()],
        }
    }

    fn sent_status(&self) -> TopicStatus {
        let now_ms = now_ms();
        let partition = |(partition, place): (&i32, &Partition)| {
            let clock_ms = place.part.clock_ms(place.ended_ms);
            PartitionStatus {
                partition: *partition,
                lag_messages: self.sent.lag(*partition, place.part.next_offset()),
                behind_ms: (clock_ms != i64::MIN)
                    .then(|| u64::try_from(now_ms.saturating_sub(clock_ms)).unwrap_or(0)),
            }
        };
        TopicStatus {
            messages: self.messages[0],
            partitions: self.partitions.iter().map(partition).collect(),
            ..self.sent.status()
        }
    }

    fn joined_status(&self) -> TopicStatus {
        let status = self.joined.status();
        let partition = || PartitionStatus {
            partition: 0,
            lag_messages: self.joined.lag(0, self.joined_next),
            behind_ms: None,
        };
        TopicStatus {
            messages: self.messages[1],
            // Those of who sends there as well.
            errors: status.errors + self.trouble.counted(),
            trouble: status.trouble.clone().or_else(|| self.trouble.last()),
            partitions: self.reducer.as_ref().map(|_| partition()).into_iter().collect(),
            ..status
        }
    }

    /// Waits a little for what is on its way; whether there is anything left. Nothing new is begun.
    pub(super) fn drain(&mut self, sinks: &Sinks, stop: &AtomicBool, wait: Duration) -> bool {
        let is_open = self.under_way.is_some()
            || self.partitions.values().any(|place| !place.unconfirmed.is_empty());
        if !is_open {
            return false;
        }
        self.producer.poll(wait);
        if self.confirm().is_err() {
            return false;
        }
        self.tell(sinks, stop);
        true
    }

    /// Commits, and leaves both groups.
    pub(super) fn leave(&mut self) {
        let _ = self.commit();
        self.sent.leave();
        self.joined.leave();
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
