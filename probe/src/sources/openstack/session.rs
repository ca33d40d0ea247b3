//! One connection to a broker: queue, bindings, and what is delivered.
//!
//! In: deliveries. Out: changes, in batches. A delivery is acknowledged when the inventory has taken what
//! it says, so that none is lost with the connection.
//! Cost: one acknowledgement and one batch for all deliveries that wait, at most [`TOGETHER_MAX`].
//! Invariants: at most `prefetch` deliveries are under way. The probe makes its own queue and nothing
//! else: exchanges are the services', who would fail if they found one of another kind.

use std::time::Duration;

use async_rs::{Runtime, Tokio};
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::tcp::AsyncTcpStream;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ErrorKind, ExchangeKind};

use super::envelope::LeftOut;
use super::link::{self, Held, Hold, Kit};
use super::listing::{self, Listing};
use super::{Due, Feed, Look, Trouble};
use crate::config::BrokerUrl;
use crate::inventory::{Batch, Change, Scope};
use crate::sources::handle::{Backoff, Full};
use crate::time::{Timestamp, monotonic_ns, ms, wall_clock};

/// Deliveries that are taken together at most.
const TOGETHER_MAX: usize = 256;
/// How often it is looked whether an exchange is due to be bound.
const ASK_MS: u64 = 1_000;
/// How often a binding is made anew, which also shows that the broker is there.
const BIND_MS: u64 = 5_000;
/// Longest wait for an exchange that is not there: each look at one leaves a line in the broker's log.
const MISSING_MS_MAX: u64 = 300_000;
/// Longest time to the next list after one in which servers are missing.
const PARTIAL_AGAIN_S: u32 = 300;
/// Wait for room in the inventory's queue.
const ROOM_MS: u64 = 100;
/// Largest file of certificates, and of a password.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Feed<'_> {
    /// Takes what one broker delivers until something fails.
    pub(super) async fn session(&mut self, url: &BrokerUrl) -> Result<(), Trouble> {
        let patience = Duration::from_millis(self.plan.timeout_ms.into());
        // Ends the connection, however the session does.
        let hold = Hold::new();
        let begun = tokio::time::timeout(patience, self.begin(url, hold.held())).await;
        let (connection, mut consumer) = begun.map_err(|_| Trouble::Timeout)??;
        let mut ask = tokio::time::interval(Duration::from_millis(ASK_MS));
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Once the queue is bound, so that nothing falls between the list and the notifications.
            if !self.looks.is_empty() {
                self.list().await;
            }
            tokio::select! {
                biased;
                _ = ask.tick() => self.ask(&connection).await?,
                delivery = consumer.next() => {
                    let first = delivery.ok_or(Trouble::Closed)??;
                    let more = std::iter::from_fn(|| consumer.next().now_or_never().flatten());
                    let more: Result<Vec<Delivery>, _> = more.take(TOGETHER_MAX - 1).collect();
                    self.take(std::iter::once(first).chain(more?).collect()).await?;
                }
            }
        }
    }

    /// Connects, and begins to consume.
    async fn begin(
        &mut self,
        url: &BrokerUrl,
        held: Held,
    ) -> Result<(Connection, Consumer), Trouble> {
        let connection = self.connect(url, held).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(self.plan.prefetch, BasicQosOptions::default()).await?;
        let kept = self.queue(&connection, &channel).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(
            self.plan.queue.as_str().into(),
            "vmprobe".into(),
            options,
            FieldTable::default(),
        );
        let consumer = consumer.await?;
        self.connected(kept, wall_clock());
        Ok((connection, consumer))
    }

    async fn connect(&self, url: &BrokerUrl, held: Held) -> Result<Connection, Trouble> {
        let connector = if url.tls {
            let pem = read(&self.plan.ca_file, "ca_file")?;
            Some(link::connector(&pem).map_err(Trouble::Unreachable)?)
        } else {
            None
        };
        let uri = self.uri(url)?;
        let connect = async move |uri: AMQPUri, _: Runtime<Kit>| {
            let place = uri.authority;
            let link = link::connect(&place.host, place.port, connector.clone(), &held).await?;
            Ok(AsyncTcpStream::Plain(link))
        };
        let properties =
            ConnectionProperties::default().with_connection_name(self.plan.queue.as_str().into());
        let runtime = Runtime::new(Kit(Tokio::current()));
        Ok(Connection::connector(uri, runtime, connect, properties).await?)
    }

    fn uri(&self, url: &BrokerUrl) -> Result<AMQPUri, Trouble> {
        let password = match (&self.plan.password, &self.plan.password_file) {
            (_, Some(file)) => {
                let text = String::from_utf8(read(file, "password_file")?);
                let text = text.map_err(|_| Trouble::PasswordFile)?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            (Some(password), None) => password.0.clone(),
            (None, None) => "guest".to_owned(),
        };
        let userinfo = AMQPUserInfo { username: self.plan.user.clone(), password };
        Ok(AMQPUri {
            scheme: if url.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority { userinfo, host: url.host.clone(), port: url.port },
            vhost: url.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(self.plan.heartbeat_s),
                ..AMQPQueryString::default()
            },
        })
    }

    /// Makes the queue if it is not there. `true` where it was: it has kept what came meanwhile.
    async fn queue(&self, connection: &Connection, channel: &Channel) -> Result<bool, Trouble> {
        let name = self.plan.queue.as_str();
        // A look that fails closes its channel.
        let look = connection.create_channel().await?;
        let found = look.queue_declare(
            name.into(),
            QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() },
            FieldTable::default(),
        );
        match found.await {
            Ok(_) => {
                look.close(200, "OK".into()).await?;
                return Ok(true);
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let mut arguments = FieldTable::default();
        let expires_ms = i64::from(self.plan.queue_expires_s) * 1_000;
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(expires_ms));
        let length = i64::from(self.plan.queue_messages_max);
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(length));
        channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments).await?;
        Ok(false)
    }

    /// Binds the queue to all exchanges that are due. An answer shows that the broker is there.
    async fn ask(&mut self, connection: &Connection) -> Result<(), Trouble> {
        let patience = Duration::from_millis(self.plan.timeout_ms.into());
        let now_ns = monotonic_ns();
        let due = |look: &Look| look.next_ns <= now_ns;
        let (mut looked, mut came) = (false, Vec::new());
        for (place, exchange) in self.plan.exchanges.iter().enumerate() {
            if !self.looks.get(place).is_none_or(due) {
                continue;
            }
            let bound = tokio::time::timeout(patience, self.bind(connection, exchange)).await;
            let bound = bound.map_err(|_| Trouble::Timeout)??;
            let missed = self.looks.get(place).map_or(0, |look| look.misses);
            if bound && missed > 0 {
                came.push(exchange.clone());
            }
            let misses = if bound { 0 } else { missed + 1 };
            let wait_ms = if bound { BIND_MS } else { (500 << misses.min(16)).min(MISSING_MS_MAX) };
            let look = Look { misses, next_ns: monotonic_ns() + ms(wait_ms) };
            match self.looks.get_mut(place) {
                Some(before) => *before = look,
                None => self.looks.push(look),
            }
            looked = true;
        }
        if looked {
            self.bound(wall_clock());
        }
        self.came(&came, wall_clock());
        Ok(())
    }

    /// `false` where the exchange is not there.
    async fn bind(&self, connection: &Connection, exchange: &str) -> Result<bool, Trouble> {
        let channel = connection.create_channel().await?;
        let look = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let found = channel.exchange_declare(
            exchange.into(),
            ExchangeKind::Topic,
            look,
            FieldTable::default(),
        );
        match found.await {
            Ok(()) => {}
            Err(error) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        for topic in &self.plan.topics {
            let (queue, options) = (self.plan.queue.as_str(), QueueBindOptions::default());
            let bound = channel.queue_bind(
                queue.into(),
                exchange.into(),
                topic.as_str().into(),
                options,
                FieldTable::default(),
            );
            bound.await?;
        }
        channel.close(200, "OK".into()).await?;
        Ok(true)
    }

    /// Lists what is there, if that is due. What fails is said, and tried again; notifications are heard
    /// meanwhile.
    async fn list(&mut self) {
        let Due::At(due_ns, mut backoff) = self.listing else { return };
        if monotonic_ns() < due_ns {
            return;
        }
        let began_ns = monotonic_ns();
        match listing::list(&self.plan.api).await {
            Ok(listing) => {
                let again_s = self.plan.api.again_s;
                let again_s =
                    if listing.is_partial() { again_s.min(PARTIAL_AGAIN_S) } else { again_s };
                self.listing = match ms(u64::from(again_s) * 1_000) {
                    0 => Due::No,
                    wait_ns => Due::At(monotonic_ns() + wait_ns, Backoff::default()),
                };
                self.listed(&listing).await;
            }
            Err(trouble) => {
                let wait_ms = backoff.next_ms().min(self.plan.retry_max_ms.into());
                // Nothing else is heard while it is listed, so not more than half of the time.
                let now_ns = monotonic_ns();
                let wait_ns = ms(wait_ms).max(now_ns - began_ns);
                self.listing = Due::At(now_ns + wait_ns, backoff);
                self.handle.left_out("listing_failed", 1);
                self.handle
                    .note(format_args!("what is there was not listed: {trouble}"), wall_clock());
            }
        }
    }

    /// Says what was listed.
    async fn listed(&mut self, listing: &Listing) {
        let (batch, left_out) = self.model.listed(listing);
        for (reason, count) in left_out {
            self.handle.left_out(reason, count);
        }
        if listing.is_partial() {
            self.handle.left_out("cell_down", 1);
            let what = "Nova does not reach all of its cells: what is known of servers stays, and nothing \
                        ends by this list";
            self.handle.note(what, wall_clock());
        }
        let changes = batch.changes.len();
        tracing::info!(source = self.handle.name(), changes, "what is there was listed");
        self.say(batch, wall_clock()).await;
    }

    /// Hands changes over, waiting for room where there is none.
    async fn say(&self, mut batch: Batch, known: Timestamp) {
        let everything = batch.scope != Scope::Some;
        while everything || !batch.changes.is_empty() {
            match self.handle.send(batch, known) {
                Ok(()) => break,
                Err(Full(back)) => batch = back,
            }
            tokio::time::sleep(Duration::from_millis(ROOM_MS)).await;
        }
    }

    /// Says what deliveries say, then acknowledges them.
    async fn take(&mut self, deliveries: Vec<Delivery>) -> Result<(), Trouble> {
        let known = wall_clock();
        let mut changes = Vec::new();
        for delivery in &deliveries {
            self.read(&delivery.data, known, &mut changes);
        }
        self.handle.heard(known);
        self.say(Batch::from(changes), known).await;
        if let Some(last) = deliveries.last() {
            last.ack(BasicAckOptions { multiple: true }).await?;
        }
        Ok(())
    }

    /// Reads one message; what it does not say is counted.
    fn read(&mut self, body: &[u8], known: Timestamp, changes: &mut Vec<Change>) {
        let small = u32::try_from(body.len()).is_ok_and(|size| size <= self.plan.message_bytes_max);
        let said = if small { self.model.message(body, known) } else { Err(LeftOut::TooLarge) };
        match said {
            Ok(said) => changes.extend(said),
            Err(why) => {
                self.handle.left_out(why.name(), 1);
                if let Some(trouble) = why.trouble() {
                    self.handle.note(trouble, known);
                }
            }
        }
    }
}

/// Whether the broker says that there is no such queue or exchange.
fn is_missing(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
        }
        _ => false,
    }
}

fn read(path: &std::path::Path, key: &'static str) -> Result<Vec<u8>, Trouble> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| Trouble::File { key, error })
}
