//! The producer of a lane, and what it tells of each message.
//!
//! In: settings of a client. Out: a producer whose confirmations come through a channel.
//! Invariants: idempotent; nothing is given up but with the producer; there is room for the report of each
//! message that its queue holds.
//! Source: librdkafka, INTRODUCTION.md ("Idempotent Producer").

use crossbeam::channel::Sender;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};

use crate::export::kafka::client::{Says, Settings};

/// Messages in the producer's queue at most.
pub(super) const QUEUE_MESSAGES_MAX: usize = 100_000;
/// What they may take, in KiB.
const QUEUE_KIB_MAX: u32 = 64 << 10;

/// What a message was about, so that its confirmation is known.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    /// Something joined of a partition.
    Joined { assignment: u64, partition: i32, offset: i64 },
    /// A clock.
    Clock,
    /// That records of a window are out.
    Emitted { assignment: u64, window: u64 },
}

/// Tells of messages that are confirmed, or never will be.
pub(super) struct Confirms {
    pub(super) says: Says,
    pub(super) reports: Sender<(Sent, Option<KafkaError>)>,
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

/// A producer.
pub(super) fn producer(
    settings: &Settings,
    confirms: Confirms,
) -> Result<BaseProducer<Confirms>, KafkaError> {
    settings
        .config()
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", QUEUE_MESSAGES_MAX.to_string())
        .set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string())
        .set("compression.type", "zstd")
        .create_with_context(confirms)
}
