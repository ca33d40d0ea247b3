//! One way from probes to records: a topic of theirs, that between members, and what is made of both.
//!
//! In: partitions of both topics that the brokers give to this member. Out: messages to the member that
//! adds up, its records, offsets to the brokers.
//! Cost: part of the member's thread; each turn takes what is there and does a bounded step of the rest.
//! Invariants: an offset is committed when what came of all messages before it is confirmed: messages
//! between members by the brokers, records by the sinks (or in their spool), but for a sink that does not
//! keep up and has no spool, for which nobody waits ([`Sinks::settle`]); what another member is given
//! is forgotten here at once; nothing is given up but with the whole member.
//! Source: docs/correlate.md.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};

use crate::config::Plan;
use crate::export::Sinks;
use crate::export::kafka::client::{Says, Settings, Trouble};
use crate::inventory::InventoryCell;
use crate::record::{RecordMaker, Rows};
use crate::time::{Timestamp, monotonic_ns, ms};

use super::counts::Counts;
use super::member::{CorrelateError, now_ms};
use super::message::Message;
use super::reading::{Begin, Read, Reading};
use super::sending::{Confirms, QUEUE_MESSAGES_MAX, Sent, producer, send};
use super::status::{LaneStatus, PartitionStatus, Rooms, TopicStatus};

/// Messages of a turn of each topic at most.
const TURN_MESSAGES_MAX: usize = 2_000;
/// How long it is not asked again where something begins, when brokers have not answered: asking may take
/// long, and the rest goes on meanwhile.
const ASK_NS: u64 = ms(2_000);
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
    /// The topic of probes has so many partitions.
    fn set_partitions(&mut self, partitions: usize);
    /// What is to be read next.
    fn wants(&self) -> Wants {
        Wants::Next
    }
    /// What is read next is what it has asked for last.
    fn goes_back(&mut self) {}
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

/// What a [`Reduce`] wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// What comes next.
    Next,
    /// Nothing until windows are given out.
    Nothing,
    /// What is there from this offset on.
    From(i64),
}

/// What begins a [`Reduce`].
pub(super) struct Start {
    pub(super) inventory: InventoryCell,
    pub(super) maker: RecordMaker,
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
    /// Those of which it is not known yet where they begin, and whether nothing was there to read.
    beginning: BTreeMap<i32, bool>,
    /// This member adds up.
    reduces: bool,
    /// There is one where it does, once it is known where it begins.
    reducer: Option<Box<dyn Reduce>>,
    /// Of the topic of probes, once the brokers have said.
    partition_count: Option<usize>,
    /// Where something begins is not asked before.
    ask_at_ns: u64,
    /// Something of the topic between members has come that nobody has taken.
    is_passed: bool,
    /// That topic is not read.
    is_paused: bool,
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
            beginning: BTreeMap::new(),
            reduces: false,
            reducer: None,
            partition_count: None,
            ask_at_ns: 0,
            is_passed: false,
            is_paused: false,
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
                    } else if let Some(is_end) = self.beginning.get_mut(&partition) {
                        *is_end = true;
                    }
                }
                Some(Read::Message { partition, offset, sent_ms, value }) => {
                    any = true;
                    self.messages[0] += 1;
                    if self.beginning.remove(&partition).is_some() {
                        // Here, whatever the brokers say.
                        self.begin_part(partition, offset, false);
                    }
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
        self.read_wanted()?;
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
                (Some(Read::End { partition: 0 } | Read::Message { partition: 0, .. }), None) => {
                    self.is_passed = true;
                }
                (Some(_), _) => {}
            }
        }
        Ok(any)
    }

    /// Reads what the reducer wants.
    fn read_wanted(&mut self) -> Result<(), CorrelateError> {
        let Some(reducer) = &mut self.reducer else { return Ok(()) };
        let wants = reducer.wants();
        let pauses = wants == Wants::Nothing;
        if pauses != self.is_paused && self.joined.pause(0, pauses)? {
            self.is_paused = pauses;
        }
        if let Wants::From(offset) = wants
            && self.joined.read_from(0, offset)?
        {
            self.joined_next = offset;
            reducer.goes_back();
        }
        Ok(())
    }

    fn assign_sent(&mut self, partitions: &[i32]) -> Result<(), CorrelateError> {
        self.assignments[0] += 1;
        for place in self.partitions.values() {
            place.part.count(&mut self.past);
        }
        self.partitions.clear();
        tracing::info!(of = self.job.topic, ?partitions, "this member joins");
        self.beginning = partitions.iter().map(|partition| (*partition, false)).collect();
        self.begin_sent()
    }

    /// Asks again where to begin, after a while.
    fn begin(&mut self) -> Result<(), CorrelateError> {
        let is_begun = self.beginning.is_empty()
            && (!self.reduces || self.reducer.is_some() && self.partition_count.is_some());
        if is_begun || monotonic_ns() < self.ask_at_ns {
            return Ok(());
        }
        self.begin_sent()?;
        self.begin_joined()?;
        self.ask_at_ns = monotonic_ns() + ASK_NS;
        Ok(())
    }

    /// Begins the partitions of which the brokers say where.
    fn begin_sent(&mut self) -> Result<(), CorrelateError> {
        while let Some((&partition, &is_end)) = self.beginning.first_key_value() {
            let Some(first) = self.sent.begin(partition)? else { break };
            self.beginning.remove(&partition);
            self.begin_part(partition, first.offset, is_end);
        }
        Ok(())
    }

    fn begin_part(&mut self, partition: i32, first: i64, is_end: bool) {
        let place = Partition {
            part: (self.job.part)(&self.plan, first),
            end: is_end.then_some(first),
            unconfirmed: BTreeMap::new(),
            ended_ms: None,
            told_ms: i64::MIN,
            committed: first,
        };
        self.partitions.insert(partition, place);
    }

    fn assign_joined(&mut self, reduces: bool) -> Result<(), CorrelateError> {
        self.assignments[1] += 1;
        self.under_way = None;
        if let Some(reducer) = self.reducer.take() {
            reducer.count(&mut self.past);
            self.maker = Some(reducer.into_maker());
        }
        tracing::info!(of = self.job.topic, reduces, "this member adds up");
        (self.reduces, self.is_passed, self.partition_count) = (reduces, false, None);
        // What another assignment had is not known to be as it was.
        if reduces && self.is_paused {
            self.is_paused = !self.joined.pause(0, false)?;
        }
        self.begin_joined()
    }

    /// Begins adding up, once the brokers have said where, and asks for how many partitions it is.
    fn begin_joined(&mut self) -> Result<(), CorrelateError> {
        if !self.reduces {
            return Ok(());
        }
        if self.reducer.is_none() {
            let Some(first) = self.joined.begin(0)? else { return Ok(()) };
            if self.is_passed && !self.joined.read_from(0, first.offset)? {
                return Ok(());
            }
            let Some(maker) = self.maker.take() else { return Ok(()) };
            let inventory = Arc::clone(&self.inventory);
            (self.joined_committed, self.joined_next) = (first.offset, first.offset);
            let start = Start { inventory, maker, first };
            self.reducer = Some((self.job.reduce)(&self.plan, start));
        }
        if self.partition_count.is_none()
            && let Some(count) = self.sent.partitions()?
            && let Some(reducer) = &mut self.reducer
        {
            self.partition_count = Some(count);
            reducer.set_partitions(count);
        }
        Ok(())
    }

    /// Joins what has been held long enough.
    pub(super) fn join(&mut self, stop: &AtomicBool) -> Result<(), CorrelateError> {
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
            // What is not sent is never confirmed, so it is read again by who comes after: it is over here.
            self.send(&message, Sent::Joined { assignment, partition, offset }, stop)?;
        }
        Ok(())
    }

    fn send(
        &self,
        message: &Message,
        sent: Sent,
        stop: &AtomicBool,
    ) -> Result<bool, CorrelateError> {
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
    pub(super) fn reduce(
        &mut self,
        sinks: &mut Sinks,
        stop: &AtomicBool,
    ) -> Result<(), CorrelateError> {
        if self.under_way.is_some() {
            return self.tell(sinks, stop);
        }
        // One that is slow, and cannot keep more, is waited for, here rather than inside of it.
        let Some(reducer) = self.reducer.as_mut().filter(|_| sinks.has_room()) else {
            return Ok(());
        };
        for (window, end, rows) in std::iter::from_fn(|| reducer.next_rows()).take(UNDER_WAY_MAX) {
            self.past.add("windows", 1);
            self.past.add("records", u64::try_from(rows.len()).unwrap_or(u64::MAX));
            sinks.send(&rows, end, u64::MAX);
            self.under_way = Some((window, false));
        }
        Ok(())
    }

    /// Tells others of records that are out.
    fn tell(&mut self, sinks: &mut Sinks, stop: &AtomicBool) -> Result<(), CorrelateError> {
        if let Some((window, false)) = self.under_way
            && sinks.settle()
        {
            let sent = Sent::Emitted { assignment: self.assignments[1], window };
            let told = self.send(&Message::Emitted { window }, sent, stop)?;
            self.under_way = Some((window, told));
        }
        Ok(())
    }

    /// What is done now and then: looks whether there is more to read, tells clocks, commits offsets.
    pub(super) fn round(&mut self, stop: &AtomicBool) -> Result<(), CorrelateError> {
        self.begin()?;
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
        self.join(stop)?;
        for (partition, sent_ms) in clocks {
            // A clock stands behind what is joined until then: without that, there is none.
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.send(&Message::Clock { partition, sent_ms }, Sent::Clock, stop)?;
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
    pub(super) fn drain(&mut self, sinks: &mut Sinks, stop: &AtomicBool, wait: Duration) -> bool {
        let is_open = self.under_way.is_some()
            || self.partitions.values().any(|place| !place.unconfirmed.is_empty());
        if !is_open {
            return false;
        }
        self.producer.poll(wait);
        self.confirm().is_ok() && self.tell(sinks, stop).is_ok()
    }

    /// Commits, and leaves both groups.
    pub(super) fn leave(&mut self) {
        let _ = self.commit();
        self.sent.leave();
        self.joined.leave();
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::config::TapPlan;
    use crate::correlate::paths;
    use crate::record::{InventoryRows, Names};
    use crate::worker::PortNames;

    const SAMPLES: &str = "vmprobe.path_samples";
    const BETWEEN: &str = "vmprobe.trajectories";

    /// Brokers, and a plan that leads there.
    fn brokers() -> (MockCluster<'static, DefaultProducerContext>, Arc<Plan>) {
        let cluster = MockCluster::new(1).expect("brokers");
        cluster.create_topic(BETWEEN, 1, 1).expect("a topic");
        let tap = |name: &str| TapPlan { name: name.to_owned(), ..TapPlan::default() };
        let mut plan = Plan { taps: vec![tap("a"), tap("b")], ..Plan::default() };
        let brokers = cluster.bootstrap_servers();
        let broker = brokers.split(',').next().expect("a broker");
        plan.correlate.cluster.brokers = vec![format!("tcp://{broker}").parse().expect("a URL")];
        (cluster, Arc::new(plan))
    }

    fn lane(job: &'static Job, plan: &Arc<Plan>) -> Lane {
        let settings = Settings::new(&plan.correlate.cluster, "c").expect("settings");
        let names = Names::new(plan, PortNames::new(&[]));
        let inventory = InventoryCell::default();
        let maker = RecordMaker::new(names, Arc::clone(&inventory), InventoryRows::default());
        Lane::new(job, plan, &settings, inventory, maker).expect("a client")
    }

    /// Goes on until something is so.
    fn until(lane: &mut Lane, what: &str, is_so: impl Fn(&Lane) -> bool) {
        let stop = AtomicBool::new(false);
        let end_ns = monotonic_ns() + ms(60_000);
        while !is_so(lane) {
            assert!(monotonic_ns() < end_ns, "it never is so: {what}");
            lane.read(Duration::from_millis(20)).expect("nothing of this ends a member");
            lane.join(&stop).expect("nothing of this ends a member");
            lane.confirm().expect("nothing of this ends a member");
            lane.round(&stop).expect("nothing of this ends a member");
        }
    }

    #[test]
    fn what_brokers_do_not_say_yet_is_asked_again() {
        let (cluster, plan) = brokers();
        let mut lane = lane(&paths::JOB, &plan);
        // Without the topic of probes nobody knows how many partitions must have told their clocks.
        until(&mut lane, "it adds up", |lane| lane.reducer.is_some());
        assert_eq!(lane.partition_count, None);
        // One of two partitions has no leader.
        cluster.create_topic(SAMPLES, 2, 1).expect("a topic");
        cluster.partition_leader(SAMPLES, 1, None).expect("a partition");
        until(&mut lane, "it reads one", |lane| lane.partitions.contains_key(&0));
        until(&mut lane, "all are counted", |lane| lane.partition_count == Some(2));
        assert_eq!(lane.beginning.keys().collect::<Vec<_>>(), [&1]);
        cluster.partition_leader(SAMPLES, 1, Some(1)).expect("a partition");
        until(&mut lane, "it reads both", |lane| lane.partitions.len() == 2);
        // Ends of what is empty are known, so clocks are told.
        let is_at_end = |lane: &Lane| lane.partitions.values().all(|it| it.ended_ms.is_some());
        until(&mut lane, "both are at their ends", is_at_end);
    }

    /// What happens to a [`Scripted`].
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Event {
        Read(i64),
        End,
        Asked,
    }

    static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

    /// Goes back from message 9 to 3, and wants none for a while behind message 14.
    #[derive(Default)]
    struct Scripted {
        last: i64,
        has_gone_back: bool,
        waits: u32,
    }

    impl Reduce for Scripted {
        fn read(&mut self, offset: i64, _: &[u8], _: i64) {
            EVENTS.lock().push(Event::Read(offset));
            self.last = offset;
            self.waits = if offset == 14 && self.has_gone_back { 40 } else { 0 };
        }
        fn caught_up(&mut self) {
            EVENTS.lock().push(Event::End);
        }
        fn set_partitions(&mut self, _: usize) {}
        fn wants(&self) -> Wants {
            match self {
                Self { last: 9.., has_gone_back: false, .. } => Wants::From(3),
                Self { waits: 1.., .. } => Wants::Nothing,
                _ => Wants::Next,
            }
        }
        fn goes_back(&mut self) {
            self.has_gone_back = true;
        }
        fn next_rows(&mut self) -> Option<(u64, Timestamp, Rows)> {
            if self.waits > 0 {
                self.waits -= 1;
                EVENTS.lock().push(Event::Asked);
            }
            None
        }
        fn is_out(&mut self, _: u64) {}
        fn first_needed(&mut self) -> i64 {
            0
        }
        fn count(&self, _: &mut Counts) {}
        fn rooms(&self, _: &mut Rooms) {}
        fn into_maker(self: Box<Self>) -> RecordMaker {
            unreachable!("it is given away to nobody")
        }
    }

    static SCRIPTED: Job = Job {
        topic: "path_samples",
        between: "trajectories",
        groups: ["", "-sum"],
        counts: &["messages", "windows", "records"],
        causes: &[],
        part: |plan, first| (paths::JOB.part)(plan, first),
        reduce: |_, _| Box::new(Scripted::default()),
    };

    #[test]
    fn what_a_reducer_wants_is_what_it_reads() {
        let (_cluster, plan) = brokers();
        let mut lane = lane(&SCRIPTED, &plan);
        let stop = AtomicBool::new(false);
        let mut sinks = Sinks::none();
        // Without rounds, in which clocks would come in between.
        let mut until = |lane: &mut Lane, wanted: Event| {
            let end_ns = monotonic_ns() + ms(30_000);
            while EVENTS.lock().iter().rev().take(4).all(|event| *event != wanted) {
                assert!(monotonic_ns() < end_ns, "{wanted:?}: {:?}", EVENTS.lock());
                lane.read(Duration::from_millis(5)).expect("brokers");
                lane.confirm().expect("brokers");
                lane.reduce(&mut sinks, &stop).expect("brokers");
            }
        };
        for offset in 0..20 {
            // Each a turn's, so that there is something to go back for.
            send(&lane.producer, BETWEEN, &Message::Emitted { window: offset }, Sent::Clock, &stop)
                .expect("it is sent");
            lane.producer.flush(Duration::from_secs(10)).expect("it is there");
            until(&mut lane, Event::Read(offset.cast_signed()));
        }
        until(&mut lane, Event::End);
        let events = EVENTS.lock();
        let read = events.iter().filter_map(|event| match event {
            Event::Read(offset) => Some(*offset),
            Event::End | Event::Asked => None,
        });
        assert_eq!(read.collect::<Vec<_>>(), (0..10).chain(3..20).collect::<Vec<_>>());
        let place = |wanted| events.iter().rposition(|event| *event == wanted);
        let (from, to) = (place(Event::Read(14)), place(Event::Read(15)));
        let waited = events[from.expect("read")..to.expect("read")].iter();
        assert_eq!(waited.filter(|event| **event == Event::Asked).count(), 40);
        // It is at the end again behind what it went back to.
        let again = events.iter().position(|event| *event == Event::Read(9)).expect("read");
        assert!(events[again..].contains(&Event::End));
    }
}
