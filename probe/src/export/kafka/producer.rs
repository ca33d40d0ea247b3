//! Batches to their topic.
//!
//! In: batches. Out: messages that their brokers have confirmed.
//! Cost: one look at the batch an attempt, and one message copied into the client's queue each.
//! Invariants: the client's queue is bounded by [`QUEUE_MESSAGES_MAX`] and [`QUEUE_KIB_MAX`]; a message is
//! given to the client once, and again only when the client has said that it has failed or a new client
//! had to be made; the client itself sends it under one sequence number however often it tries, so a
//! lost answer doubles nothing.
//! Source: librdkafka, "Idempotent Producer"; KIP-98, KIP-360.

use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::client::{Says, Settings, Trouble};
use super::messages::{self, Message};
use crate::config::{KafkaCompression, KafkaFormat, KafkaPlan};
use crate::export::sink::{Batch, Delivered, Driver, Failure};
use crate::time::{monotonic_ns, ms};

/// Messages in the client's queue at most.
const QUEUE_MESSAGES_MAX: usize = 100_000;
/// Their size at most, in KiB; one batch and a half.
const QUEUE_KIB_MAX: usize = 16 << 10;
/// How long the client is asked for news at once.
const POLL: Duration = Duration::from_millis(2);
/// How long nothing may be confirmed after trouble until an attempt is over.
const TROUBLE_NS: u64 = ms(1_000);

/// How long the client waits for an answer at least, in milliseconds.
const REQUEST_MS_MIN: u64 = 1_000;

/// How long brokers may take to say that they are there, at the end of an attempt.
const SIGN_NS_MAX: u64 = ms(1_000);
/// Attempts without any confirmation from brokers that are there, until another client is made: they do
/// not know this one's producer any more, and it does not find out.
const STUCK_MAX: u32 = 3;

/// What became of a message: its place in the batch, and why it failed.
type Report = (usize, Option<RDKafkaErrorCode>);

/// Takes what the producer says.
struct Context {
    says: Says,
    reports: Sender<Report>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.says.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.says.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let failed = result.as_ref().err().and_then(|(error, _)| error.rdkafka_error_code());
        let failed = match result {
            Ok(_) => None,
            Err(_) => Some(failed.unwrap_or(RDKafkaErrorCode::Fail)),
        };
        // There is room for as many as the client's queue holds.
        let told = self.reports.try_send((place, failed));
        debug_assert!(told.is_ok(), "reports are taken after each poll");
    }
}

/// A producer and what it says.
struct Client {
    settings: Settings,
    producer: BaseProducer<Context>,
    reports: Receiver<Report>,
    trouble: Trouble,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// With us.
    Here,
    /// With the client.
    Away,
    /// With the brokers.
    There,
    /// Nobody will ever take it.
    Refused,
}

/// A batch of which not all is confirmed.
struct UnderWay {
    token: String,
    states: Vec<State>,
}

impl UnderWay {
    fn count(&self, state: State) -> usize {
        self.states.iter().filter(|it| **it == state).count()
    }

    /// What was with a client that is no more.
    fn client_is_gone(&mut self) {
        for state in self.states.iter_mut().filter(|it| **it == State::Away) {
            *state = State::Here;
        }
    }
}

/// Delivers batches.
pub struct Publisher {
    plan: KafkaPlan,
    timeout_ns: u64,
    probe: String,
    client: Option<Client>,
    under_way: Option<UnderWay>,
    /// Attempts at which brokers that are there confirmed nothing, in a row.
    stuck: u32,
}

impl Publisher {
    /// For the topics of a plan. The client is made with the first batch.
    pub fn new(plan: &KafkaPlan, timeout_ms: u32, probe: &str) -> Self {
        Self {
            plan: plan.clone(),
            timeout_ns: ms(timeout_ms.into()),
            probe: probe.to_owned(),
            client: None,
            under_way: None,
            stuck: 0,
        }
    }

    fn connect(&self, settings: Settings) -> Result<Client, String> {
        let trouble = Trouble::default();
        let (sender, reports) = bounded(QUEUE_MESSAGES_MAX);
        let context = Context { says: Says(trouble.clone()), reports: sender };
        let timeout_ms = (self.timeout_ns / ms(1)).max(REQUEST_MS_MIN);
        let producer = settings
            .config()
            .set("enable.idempotence", "true")
            // Never given up by the client: whoever gave a message up could not know whether it arrived.
            .set("message.timeout.ms", "0")
            .set("request.timeout.ms", timeout_ms.to_string())
            .set("queue.buffering.max.messages", QUEUE_MESSAGES_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string())
            .set("compression.type", compression(self.plan.compression))
            // As Java's clients do it, so that others find the partition of a key.
            .set("partitioner", "murmur2_random")
            .create_with_context(context)
            .map_err(|error: KafkaError| error.to_string())?;
        Ok(Client { settings, producer, reports, trouble })
    }

    /// The client; another one where it has broken, or where passwords or certificates have changed.
    fn client(&mut self, under_way: &mut UnderWay) -> Result<Client, String> {
        let settings = Settings::new(&self.plan.cluster, &format!("vmprobe-{}", self.probe))?;
        let is_good =
            |it: &Client| it.settings == settings && it.producer.client().fatal_error().is_none();
        if let Some(client) = self.client.take().filter(is_good) {
            return Ok(client);
        }
        under_way.client_is_gone();
        self.connect(settings)
    }

    /// What was confirmed of this batch before, if it was tried before.
    fn resume(&mut self, batch: &Batch, messages: usize) -> UnderWay {
        match self.under_way.take() {
            Some(under_way) if under_way.token == batch.token => return under_way,
            // Reports name places in a batch; those of another one must not come.
            Some(_) => self.client = None,
            None => {}
        }
        UnderWay { token: batch.token.clone(), states: vec![State::Here; messages] }
    }

    fn attempt(
        &mut self,
        topic: &str,
        (format, messages): (KafkaFormat, &[Message<'_>]),
        under_way: &mut UnderWay,
    ) -> Result<(), String> {
        let client = self.client(under_way)?;
        let UnderWay { token, states } = under_way;
        let mut attempt = Attempt {
            client: &client,
            topic,
            format,
            token,
            messages,
            states,
            next: 0,
            failed: None,
            confirmed: false,
        };
        let sign_ns = SIGN_NS_MAX.min(self.timeout_ns / 2);
        let outcome = attempt.run(self.timeout_ns - sign_ns);
        let is_stuck = outcome.is_err() && attempt.is_stuck(Duration::from_nanos(sign_ns));
        self.stuck = if is_stuck { self.stuck + 1 } else { 0 };
        if self.stuck < STUCK_MAX {
            self.client = Some(client);
        } else {
            tracing::warn!(
                topic,
                "brokers are there and confirm nothing: another producer is made"
            );
            self.stuck = 0;
        }
        outcome
    }
}

const fn compression(compression: KafkaCompression) -> &'static str {
    match compression {
        KafkaCompression::None => "none",
        KafkaCompression::Lz4 => "lz4",
        KafkaCompression::Zstd => "zstd",
    }
}

const fn content_type(format: KafkaFormat) -> &'static str {
    match format {
        KafkaFormat::Json => "application/json",
        KafkaFormat::Protobuf => "application/x-protobuf",
    }
}

/// One attempt at a batch.
struct Attempt<'a> {
    client: &'a Client,
    topic: &'a str,
    format: KafkaFormat,
    token: &'a str,
    messages: &'a [Message<'a>],
    states: &'a mut [State],
    /// Those before it are not here any more.
    next: usize,
    /// What a broker has said of a message.
    failed: Option<RDKafkaErrorCode>,
    /// Something was confirmed.
    confirmed: bool,
}

impl Attempt<'_> {
    /// Until all is confirmed, something has failed, or the time is over.
    fn run(&mut self, timeout_ns: u64) -> Result<(), String> {
        let until_ns = monotonic_ns().saturating_add(timeout_ns);
        let mut progress_ns = monotonic_ns();
        loop {
            if self.failed.is_none() {
                self.send();
            }
            self.client.producer.poll(POLL);
            if self.take_reports() {
                progress_ns = monotonic_ns();
            }
            let away = self.states.contains(&State::Away);
            match self.failed {
                None if !away && !self.states.contains(&State::Here) => return Ok(()),
                Some(failed) if !away => return Err(self.said(failed)),
                _ => {}
            }
            let now_ns = monotonic_ns();
            let trouble = self.client.trouble.last();
            match trouble {
                Some(what) if now_ns > progress_ns + TROUBLE_NS => return Err(what.to_string()),
                _ if now_ns < until_ns => {}
                Some(what) => return Err(format!("no answer in timeout_ms: {what}")),
                None => return Err("no answer in timeout_ms".to_owned()),
            }
        }
    }

    /// Gives the client what it has room for.
    fn send(&mut self) {
        while let (Some(state), Some(message)) =
            (self.states.get_mut(self.next), self.messages.get(self.next))
        {
            if *state == State::Here {
                let id = format!("{}/{}", self.token, self.next);
                let header = |key, value| Header { key, value: Some(value) };
                let headers = OwnedHeaders::new_with_capacity(2)
                    .insert(header("id", id.as_str()))
                    .insert(header("content-type", content_type(self.format)));
                let mut record = BaseRecord::with_opaque_to(self.topic, self.next)
                    .payload(message.value)
                    .headers(headers);
                record.key = message.key;
                match self.client.producer.send(record) {
                    Ok(()) => *state = State::Away,
                    Err((error, _)) => match error.rdkafka_error_code() {
                        Some(RDKafkaErrorCode::QueueFull) => return,
                        Some(RDKafkaErrorCode::MessageSizeTooLarge) => *state = State::Refused,
                        code => {
                            self.failed = Some(code.unwrap_or(RDKafkaErrorCode::Fail));
                            return;
                        }
                    },
                }
            }
            self.next += 1;
        }
    }

    /// Whether anything was confirmed.
    fn take_reports(&mut self) -> bool {
        let mut confirmed = false;
        for (place, failed) in self.client.reports.try_iter() {
            let Some(state) = self.states.get_mut(place) else { continue };
            *state = match failed {
                None => {
                    confirmed = true;
                    State::There
                }
                Some(code) if is_final(code) => State::Refused,
                Some(code) => {
                    self.failed = Some(code);
                    State::Here
                }
            };
        }
        if confirmed {
            self.confirmed = true;
            self.client.trouble.clear();
        }
        confirmed
    }

    /// Whether nothing was confirmed, or refused, by brokers that are there all the same.
    fn is_stuck(&self, wait: Duration) -> bool {
        if self.confirmed || self.failed.is_some() {
            return false;
        }
        let are_there =
            self.client.producer.client().fetch_metadata(Some(self.topic), wait).is_ok();
        if are_there {
            // What was wrong is over.
            self.client.trouble.clear();
        }
        are_there
    }

    fn said(&self, failed: RDKafkaErrorCode) -> String {
        let fatal = self.client.producer.client().fatal_error();
        match (failed, fatal) {
            (_, Some((code, what))) => format!("{code}: {what}"),
            (RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition, _) => {
                format!("there is no topic {}, and the brokers make none", self.topic)
            }
            (code, None) => format!("topic {}: {code}", self.topic),
        }
    }
}

/// Whether a broker will never take such a message.
const fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord)
}

impl Driver for Publisher {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let Some((format, messages)) = messages::read(&batch.bytes) else {
            return Err(Failure::refused("the batch is not whole"));
        };
        let mut under_way = self.resume(batch, messages.len());
        let topic = format!("{}{}", self.plan.topic_prefix, batch.table.name());
        match self.attempt(&topic, (format, &messages), &mut under_way) {
            Ok(()) => {
                let refused = under_way.count(State::Refused);
                Ok(Delivered { refused: u64::try_from(refused).unwrap_or(u64::MAX) })
            }
            Err(what) => {
                self.under_way = Some(under_way);
                Err(Failure::again(&format!("{}: {what}", self.plan.cluster)))
            }
        }
    }
}
