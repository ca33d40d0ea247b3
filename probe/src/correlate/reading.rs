//! A topic as a member of a group reads it.
//!
//! In: what the brokers send. Out: messages, ends of partitions, partitions that come and go.
//! Invariants: what was read of a partition before it went away is never seen after; what passes by itself
//! is said in the log, all else is an error.
//! Source: KIP-62 (heartbeats apart from polls), librdkafka "Consumer groups".

use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionListElem as Place;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::config::CorrelatePlan;
use crate::export::kafka::client::{Says, Settings, Trouble};

use super::member::CorrelateError;

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(10);
/// Messages that the client reads ahead, in KiB.
const QUEUE_KIB_MAX: u32 = 64 << 10;
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

/// Tells of partitions that come and go.
struct Group {
    says: Says,
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
        let context = Group { says: Says(trouble.clone()), assigned: sender };
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
            .set("topic.metadata.refresh.interval.ms", "30000");
        let consumer: BaseConsumer<Group> = config.create_with_context(context)?;
        consumer.subscribe(&[&topic])?;
        Ok(Self { topic, consumer, assigned, trouble })
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

    fn failed(&self, error: &KafkaError) -> Result<(), CorrelateError> {
        if let Some((_, what)) = self.consumer.client().fatal_error() {
            return Err(CorrelateError::Kafka(what));
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                tracing::warn!("topic {} is not there (yet)", self.topic);
            }
            _ => tracing::warn!(%error, last = ?self.trouble.last(), "reading"),
        }
        Ok(())
    }

    /// The partitions that are this member's from now on, where that has changed: all state of those
    /// before is void.
    pub(super) fn assigned(&self) -> Option<Vec<i32>> {
        self.assigned.try_iter().last()
    }

    /// Where reading a partition begins: where the group has committed, else at the first message.
    pub(super) fn begin(&self, partition: i32) -> Result<Begin, CorrelateError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let committed = self.consumer.committed_offsets(list, ANSWER)?;
        match committed.find_partition(&self.topic, partition).map(|it| it.offset()) {
            Some(Offset::Offset(offset)) => Ok(Begin { offset, is_committed: true }),
            _ => {
                let (offset, _) = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER)?;
                Ok(Begin { offset, is_committed: false })
            }
        }
    }

    /// Whether a broker that answers knows of nothing behind this offset.
    pub(super) fn is_end(&self, partition: i32, offset: i64) -> bool {
        let marks = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER);
        marks.is_ok_and(|(_, end)| offset >= end)
    }

    /// How many partitions the topic has.
    pub(super) fn partitions(&self) -> Result<usize, CorrelateError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ANSWER)?;
        Ok(metadata.topics().iter().map(|topic| topic.partitions().len()).sum())
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
