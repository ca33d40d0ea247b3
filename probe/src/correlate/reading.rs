//! A topic as a member of a group reads it.
//!
//! In: what the brokers send. Out: messages, ends of partitions, partitions that come and go.
//! Invariants: what was read of a partition before it went away is never seen after; what may pass by itself
//! (brokers that are away, leaders that are elected, topics that are not there yet) is said in the log and
//! counted, all else is an error.
//! Source: KIP-62 (heartbeats apart from polls), librdkafka "Consumer groups", STATISTICS.md.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam::channel::{Receiver, Sender, bounded};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::metadata::Metadata;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionListElem as Place;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::config::CorrelatePlan;
use crate::export::kafka::client::{Says, Settings, Trouble};

use super::member::CorrelateError;
use super::status::TopicStatus;

/// How long a broker may take to answer a question: nothing else is done meanwhile, and it is asked again.
const ANSWER: Duration = Duration::from_secs(3);
/// Messages that the client reads ahead, in KiB.
const QUEUE_KIB_MAX: u32 = 64 << 10;
/// How often the client says how it does, in milliseconds.
const LOOK_MS: u32 = 2_000;
/// Assignments between two polls at most.
const EVENTS_MAX: usize = 16;

/// What reading brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A message, and when it was sent, in milliseconds since the epoch.
    Message { partition: i32, offset: i64, sent_ms: i64, value: Vec<u8> },
    /// There is nothing behind what was read of this partition.
    End { partition: i32 },
}

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    /// The first message that is read.
    pub(super) offset: i64,
    /// The group has committed it; else it is the first one that is there.
    pub(super) is_committed: bool,
}

/// What a client has said last of how it does.
struct Look {
    brokers_up: u64,
    /// Behind the last message, by partition.
    ends: BTreeMap<i32, i64>,
}

impl Look {
    fn at(statistics: &Statistics, topic: &str) -> Self {
        // Others stand for a role that one of these has.
        let is_broker = |source: &str| source == "configured" || source == "learned";
        let brokers = statistics.brokers.values();
        let up = brokers.filter(|it| is_broker(&it.source) && it.state == "UP").count();
        let partitions = statistics.topics.get(topic).map(|topic| topic.partitions.values());
        let ends = partitions.into_iter().flatten();
        Self {
            brokers_up: u64::try_from(up).unwrap_or(u64::MAX),
            ends: ends.map(|it| (it.partition, it.hi_offset)).filter(|it| it.1 >= 0).collect(),
        }
    }
}

/// Tells of partitions that come and go.
struct Group {
    says: Says,
    topic: String,
    look: Arc<ArcSwapOption<Look>>,
    /// Those that are read from now on, instead of those before.
    assigned: Sender<Vec<i32>>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.says.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes by itself, as no error.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::warn!(reason, "the brokers");
        self.says.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.look.store(Some(Arc::new(Look::at(&statistics, &self.topic))));
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = match rebalance {
            Rebalance::Assign(list) => list.elements().iter().map(Place::partition).collect(),
            Rebalance::Revoke(_) | Rebalance::Error(_) => Vec::new(),
        };
        // Taken after each poll, which brings two at most.
        let told = self.assigned.try_send(partitions);
        debug_assert!(told.is_ok(), "there is room");
    }
}

/// One topic.
pub(super) struct Reading {
    topic: String,
    consumer: BaseConsumer<Group>,
    assigned: Receiver<Vec<i32>>,
    trouble: Trouble,
    look: Arc<ArcSwapOption<Look>>,
}

impl Reading {
    /// As a member of `group`.
    pub(super) fn new(
        plan: &CorrelatePlan,
        settings: &Settings,
        group: &str,
        topic: String,
    ) -> Result<Self, KafkaError> {
        let trouble = Trouble::default();
        let (sender, assigned) = bounded(EVENTS_MAX);
        let look = Arc::<ArcSwapOption<Look>>::default();
        let context = Group {
            says: Says(trouble.clone()),
            topic: topic.clone(),
            look: Arc::clone(&look),
            assigned: sender,
        };
        let mut config = settings.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", QUEUE_KIB_MAX.to_string())
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", plan.session_ms.to_string())
            .set("heartbeat.interval.ms", (plan.session_ms / 3).to_string())
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("statistics.interval.ms", LOOK_MS.to_string());
        let consumer: BaseConsumer<Group> = config.create_with_context(context)?;
        consumer.subscribe(&[&topic])?;
        Ok(Self { topic, consumer, assigned, trouble, look })
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// What comes next. Assignments that were made meanwhile are to be taken before it is looked at.
    pub(super) fn next(&self, wait: Duration) -> Result<Option<Read>, CorrelateError> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(Read::Message {
                partition: message.partition(),
                offset: message.offset(),
                sent_ms: message.timestamp().to_millis().unwrap_or(0),
                value: message.payload().unwrap_or_default().to_vec(),
            })),
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Some(Read::End { partition })),
            Some(Err(error)) => self.failed(&error).map(|()| None),
        }
    }

    /// How reading does, but for what its reader counts.
    pub(super) fn status(&self) -> TopicStatus {
        TopicStatus {
            topic: self.topic.clone(),
            errors: self.trouble.counted(),
            trouble: self.trouble.last(),
            brokers_up: self.look.load().as_ref().map(|look| look.brokers_up),
            ..TopicStatus::default()
        }
    }

    /// Messages of a partition that are behind this offset, as the brokers have said last.
    pub(super) fn lag(&self, partition: i32, next_offset: i64) -> Option<u64> {
        let look = self.look.load();
        let end = look.as_ref()?.ends.get(&partition)?;
        // What was read since then may be further.
        Some(u64::try_from(end.saturating_sub(next_offset)).unwrap_or(0))
    }

    fn failed(&self, error: &KafkaError) -> Result<(), CorrelateError> {
        self.trouble.count();
        self.check()?;
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                tracing::warn!("topic {} is not there (yet)", self.topic);
            }
            _ => tracing::warn!(%error, last = ?self.trouble.last(), "reading"),
        }
        Ok(())
    }

    /// Whether the client goes on.
    fn check(&self) -> Result<(), CorrelateError> {
        match self.consumer.client().fatal_error() {
            Some((_, what)) => Err(CorrelateError::Kafka(what)),
            None => Ok(()),
        }
    }

    /// What a broker has answered; `None` where it may another time.
    fn answered<T>(&self, answer: Result<T, KafkaError>) -> Result<Option<T>, CorrelateError> {
        let error = match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        self.trouble.count();
        self.check()?;
        if error.rdkafka_error_code().is_some_and(is_for_good) {
            return Err(error.into());
        }
        tracing::warn!(topic = self.topic, %error, "the brokers do not answer (yet)");
        Ok(None)
    }

    /// The partitions that are this member's from now on, where that has changed: all state of those
    /// before is void.
    pub(super) fn assigned(&self) -> Option<Vec<i32>> {
        self.assigned.try_iter().last()
    }

    /// Where reading a partition begins: where the group has committed, else at the first message. `None`
    /// where it is to be asked again.
    pub(super) fn begin(&self, partition: i32) -> Result<Option<Begin>, CorrelateError> {
        self.answered(self.ask_begin(partition))
    }

    fn ask_begin(&self, partition: i32) -> Result<Begin, KafkaError> {
        let committed = self.consumer.committed_offsets(self.list(partition), ANSWER)?;
        let committed = committed.find_partition(&self.topic, partition);
        if let Some(committed) = committed {
            committed.error()?;
            if let Offset::Offset(offset) = committed.offset() {
                return Ok(Begin { offset, is_committed: true });
            }
        }
        let (offset, _) = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER)?;
        Ok(Begin { offset, is_committed: false })
    }

    fn list(&self, partition: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        list
    }

    /// Reads a partition from here on; whether it does.
    pub(super) fn read_from(&self, partition: i32, offset: i64) -> Result<bool, CorrelateError> {
        let sought = self.consumer.seek(&self.topic, partition, Offset::Offset(offset), ANSWER);
        Ok(self.answered(sought)?.is_some())
    }

    /// Reads nothing of a partition, or goes on; whether it does.
    pub(super) fn pause(&self, partition: i32, pauses: bool) -> Result<bool, CorrelateError> {
        let list = self.list(partition);
        let consumer = &self.consumer;
        let set = if pauses { consumer.pause(&list) } else { consumer.resume(&list) };
        Ok(self.answered(set)?.is_some())
    }

    /// Whether a broker that answers knows of nothing behind this offset.
    pub(super) fn is_end(&self, partition: i32, offset: i64) -> bool {
        let marks = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER);
        marks.is_ok_and(|(_, end)| offset >= end)
    }

    /// How many partitions the topic has; `None` where it is to be asked again, as of a topic that is not
    /// there yet.
    pub(super) fn partitions(&self) -> Result<Option<usize>, CorrelateError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ANSWER);
        let metadata = self.answered(metadata)?;
        let topics = metadata.iter().flat_map(Metadata::topics);
        let partitions = topics.map(|topic| topic.partitions().len()).sum();
        Ok(Some(partitions).filter(|partitions| *partitions > 0))
    }

    /// All before these offsets needs never be read again.
    pub(super) fn commit(
        &self,
        offsets: impl Iterator<Item = (i32, i64)>,
    ) -> Result<(), CorrelateError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::warn!(%error, "offsets are not committed (yet)");
        }
        Ok(())
    }

    /// Leaves the group.
    pub(super) fn leave(&self) {
        self.consumer.unsubscribe();
    }
}

/// Whether somebody must do something about it.
const fn is_for_good(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidGroupId
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics;

    use super::*;

    #[test]
    fn brokers_and_ends_are_those_of_the_topic() {
        let broker = |source: &str, state: &str| {
            let (source, state) = (source.to_owned(), state.to_owned());
            (
                format!("{source} {state}"),
                statistics::Broker { source, state, ..Default::default() },
            )
        };
        let topic = |offsets: &[(i32, i64)]| statistics::Topic {
            partitions: offsets
                .iter()
                .map(|(partition, hi_offset)| {
                    let (partition, hi_offset) = (*partition, *hi_offset);
                    let own = statistics::Partition { partition, hi_offset, ..Default::default() };
                    (partition, own)
                })
                .collect(),
            ..Default::default()
        };
        let said = Statistics {
            brokers: [
                broker("configured", "UP"),
                broker("learned", "UP"),
                broker("learned", "CONNECT"),
                broker("logical", "UP"),
                broker("internal", "UP"),
            ]
            .into(),
            // Partition -1 stands for those that nobody knows.
            topics: [
                ("mine".to_owned(), topic(&[(0, 7), (1, -1001), (-1, -1001)])),
                ("other".to_owned(), topic(&[(0, 99)])),
            ]
            .into(),
            ..Statistics::default()
        };
        let look = Look::at(&said, "mine");
        assert_eq!((look.brokers_up, look.ends), (2, BTreeMap::from([(0, 7)])));
    }
}
