//! The producer of a lane, and what it tells of each message.
//!
//! In: settings of a client, messages. Out: a producer whose confirmations come through a channel.
//! Invariants: idempotent; nothing is given up but with the producer; what it refuses is an error; there is room for the report of each
//! message that its queue holds.
//! Source: librdkafka, INTRODUCTION.md ("Idempotent Producer").

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::Sender;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext};

use crate::export::kafka::client::{Says, Settings};

use super::member::CorrelateError;
use super::message::Message;

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

/// Sends a message to the member that adds up. Waits for room, which the brokers make, until `stop`.
/// Whether the producer has it.
///
/// # Errors
/// The producer refuses it: the topic is gone, it may not be written to, or nothing can be sent any more.
pub(super) fn send(
    producer: &BaseProducer<Confirms>,
    topic: &str,
    message: &Message,
    sent: Sent,
    stop: &AtomicBool,
) -> Result<bool, CorrelateError> {
    let value = serde_json::to_vec(message).map_err(|error| refused(topic, &error))?;
    let mut record = BaseRecord::<(), Vec<u8>, Box<Sent>>::with_opaque_to(topic, Box::new(sent))
        .partition(0)
        .payload(&value);
    while let Err((error, back)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            return Err(refused(topic, &error));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        record = back;
        producer.poll(Duration::from_millis(5));
    }
    Ok(true)
}

fn refused(topic: &str, error: &impl Display) -> CorrelateError {
    CorrelateError::Kafka(format!("topic {topic}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;

    use crossbeam::channel::{Receiver, bounded};
    use rdkafka::config::ClientConfig;

    use super::super::contact::Contacts;
    use super::*;
    use crate::export::kafka::client::Trouble;

    /// What a producer tells.
    type Reports = Receiver<(Sent, Option<KafkaError>)>;

    /// A producer with a setting, and brokers where nobody listens.
    fn unheard(setting: &str, value: &str) -> (BaseProducer<Confirms>, Reports) {
        let (reports, told) = bounded(10);
        let confirms = Confirms { says: Says(Trouble::default()), reports };
        let producer = ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set(setting, value)
            .create_with_context(confirms)
            .expect("a producer");
        (producer, told)
    }

    #[test]
    fn a_full_queue_of_a_broker_that_is_away_does_not_hold_up_the_end() {
        let (producer, _reports) = unheard("queue.buffering.max.messages", "1");
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
        let heard =
            |within| heard.recv_timeout(within).map(|sent| sent.expect("it is not refused"));
        assert_eq!(heard(soon), Ok(true), "there is room for one");
        assert!(heard(Duration::from_millis(300)).is_err(), "it waits for room");
        stop.store(true, Ordering::Relaxed);
        assert_eq!(heard(soon), Ok(false), "it waits no more");
    }

    #[test]
    fn what_the_producer_refuses_is_no_message_that_was_sent() {
        let (producer, _reports) = unheard("message.max.bytes", "1000");
        let contacts =
            Contacts { sent_ms: 0, window: 7, probe: "p".repeat(2_000), rows: Vec::new() };
        let sent = Sent::Joined { assignment: 1, partition: 0, offset: 5 };
        let stop = AtomicBool::new(false);
        let sent = send(&producer, "contacts", &Message::Contacts(contacts), sent, &stop);
        let error = sent.expect_err("it is too long").to_string();
        assert!(error.starts_with("topic contacts: ") && error.contains("too large"), "{error}");
    }
}
