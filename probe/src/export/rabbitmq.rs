//! RabbitMQ: one message a record, confirmed by the broker.
//!
//! In: batches of JSON lines. Out: messages to a topic exchange, key `vmprobe.TABLE`.
//! Cost: [`WINDOW_MESSAGES`] of a batch are published at once, then their confirmations are waited for, each
//! no longer than `timeout_ms` after the one before.
//! Invariants: a record counts as delivered when the broker has confirmed it and a queue has taken it:
//! messages are persistent and mandatory, and one that no queue wants is tried again like any that
//! failed. A retry has the same message ids, so consumers can tell, and leaves out what is confirmed: a batch
//! gets on with each attempt, however slow the broker is. A failed attempt leaves no connection, thread or
//! buffer of the client behind, also where the broker hangs or blocks publishers.
//! Source: RabbitMQ, "Consumer Acknowledgements and Publisher Confirms"; AMQP 0-9-1.

mod answers;

use std::time::Duration;

use async_rs::{Runtime as AsyncRuntime, Tokio};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::runtime::Runtime;

use answers::{Answers, Patience};

use super::sink::{Batch, Delivered, Driver, Failure};
use crate::config::RabbitmqPlan;
use crate::config::secret;
use crate::sources::openstack::link::{self, Held, Hold, Kit};

/// Heartbeat of the connection, in seconds.
const HEARTBEAT_S: u16 = 20;
/// AMQP's delivery mode of messages that outlive the broker.
const PERSISTENT: u8 = 2;

/// How long the broker is listened to when a connection is closed, in milliseconds.
const CLOSE_MS: u64 = 500;

/// Messages that are published before their confirmations are waited for.
const WINDOW_MESSAGES: usize = 1_024;

/// A batch of which not all is confirmed.
struct UnderWay {
    token: String,
    /// By the number of the record.
    confirmed: Vec<bool>,
}

/// Delivers batches.
pub(super) struct Publisher {
    plan: RabbitmqPlan,
    timeout: Duration,
    probe: String,
    runtime: Option<Runtime>,
    connected: Option<Connected>,
    under_way: Option<UnderWay>,
}

/// A connection that publishes. It ends with its hold, whether the broker answers or not.
struct Connected {
    connection: Connection,
    channel: Channel,
    _hold: Hold,
}

impl Connected {
    fn works(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Tells the broker, if it listens: a connection that ends without a word is a warning in its log.
    async fn close(self) {
        let told = self.connection.close(200, "OK".into());
        let _ = tokio::time::timeout(Duration::from_millis(CLOSE_MS), told).await;
    }
}

impl Publisher {
    pub(super) fn new(plan: &RabbitmqPlan, timeout_ms: u32, probe: &str) -> Self {
        let timeout = Duration::from_millis(timeout_ms.into());
        Self {
            plan: plan.clone(),
            timeout,
            probe: probe.to_owned(),
            runtime: None,
            connected: None,
            under_way: None,
        }
    }

    /// What was confirmed of this batch before, if it was tried before.
    fn resume(&mut self, batch: &Batch) -> UnderWay {
        let same = self.under_way.take().filter(|it| it.token == batch.token);
        same.unwrap_or_else(|| {
            let lines = batch.bytes.split(|octet| *octet == b'\n').count();
            UnderWay { token: batch.token.clone(), confirmed: vec![false; lines] }
        })
    }

    async fn connect(plan: &RabbitmqPlan, probe: &str) -> Result<Connected, String> {
        let hold = Hold::new();
        let (connection, channel) = Self::open(plan, probe, hold.held()).await?;
        Ok(Connected { connection, channel, _hold: hold })
    }

    async fn open(
        plan: &RabbitmqPlan,
        probe: &str,
        held: Held,
    ) -> Result<(Connection, Channel), String> {
        let connector = if plan.url.tls {
            let path = &plan.access.ca_file;
            let failed = |error| format!("{}: {error}", path.display());
            let pem = std::fs::read(path).map_err(failed)?;
            Some(link::connector(&pem).map_err(failed)?)
        } else {
            None
        };
        let password = match &plan.access.password {
            Some(place) => secret::read(place).map_err(|error| error.to_string())?,
            None => "guest".to_owned(),
        };
        let username = plan.access.user.clone().unwrap_or_else(|| "guest".to_owned());
        let uri = AMQPUri {
            scheme: if plan.url.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username, password },
                host: plan.url.host.clone(),
                port: plan.url.port,
            },
            vhost: plan.url.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(HEARTBEAT_S), ..AMQPQueryString::default() },
        };
        let connect = async move |uri: AMQPUri, _: AsyncRuntime<Kit>| {
            let place = uri.authority;
            let link = link::connect(&place.host, place.port, connector.clone(), &held).await?;
            Ok(AsyncTcpStream::Plain(link))
        };
        let properties =
            ConnectionProperties::default().with_connection_name(format!("vmprobe-{probe}").into());
        let runtime = AsyncRuntime::new(Kit(Tokio::current()));
        let text = |error: lapin::Error| error.to_string();
        let connection =
            Connection::connector(uri, runtime, connect, properties).await.map_err(text)?;
        let channel = connection.create_channel().await.map_err(text)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(text)?;
        Ok((connection, channel))
    }
}

/// Publishes what is not confirmed, and waits for all confirmations, as long as the broker goes on answering.
async fn publish(
    channel: &Channel,
    (plan, probe, timeout): (&RabbitmqPlan, &str, Duration),
    batch: &Batch,
    confirmed: &mut [bool],
) -> Result<(), String> {
    let lines = batch.bytes.split(|octet| *octet == b'\n').enumerate();
    let here = |(number, line): &(usize, &[u8])| {
        !line.is_empty() && confirmed.get(*number) == Some(&false)
    };
    let left: Vec<_> = lines.filter(here).collect();
    for window in left.chunks(WINDOW_MESSAGES) {
        publish_window(channel, (plan, probe, timeout), batch, window, confirmed).await?;
    }
    Ok(())
}

async fn publish_window(
    channel: &Channel,
    (plan, probe, timeout): (&RabbitmqPlan, &str, Duration),
    batch: &Batch,
    window: &[(usize, &[u8])],
    confirmed: &mut [bool],
) -> Result<(), String> {
    let key = format!("vmprobe.{}", batch.table.name());
    let (mut confirms, mut failed) = (Vec::new(), None);
    let mut patience = Patience::new(timeout);
    for (number, line) in window {
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_app_id(format!("vmprobe-{probe}").into())
            .with_message_id(format!("{}/{number}", batch.token).into())
            .with_type(batch.table.name().into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published = channel.basic_publish(
            plan.exchange.as_str().into(),
            key.as_str().into(),
            options,
            line,
            properties,
        );
        match patience.wait(published).await {
            Ok(confirm) => confirms.push((*number, confirm)),
            // Why the broker has closed the channel is said to those that wait for its answer.
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let mut answers = Answers::of(confirms, &mut patience).await;
    for number in &answers.taken {
        if let Some(confirmed) = confirmed.get_mut(*number) {
            *confirmed = true;
        }
    }
    if let Some(what) = answers.failed.take().or(failed) {
        return Err(what);
    }
    match answers {
        Answers { returned: 0, refused: 0, .. } => Ok(()),
        Answers { returned: 0, refused, .. } => {
            Err(format!("the broker did not take {refused} messages"))
        }
        Answers { returned, .. } => Err(format!(
            "no queue is bound to exchange {} for {key}: {returned} messages came back",
            plan.exchange
        )),
    }
}

impl Driver for Publisher {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            // One thread drives the connection also between batches: heartbeats.
            None => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("sink-rabbitmq")
                .enable_all()
                .build()
                .map_err(|error| Failure::again(&error))?,
        };
        let mut under_way = self.resume(batch);
        let (plan, probe, timeout) = (&self.plan, self.probe.as_str(), self.timeout);
        let kept = self.connected.take().filter(Connected::works);
        let confirmed = &mut under_way.confirmed;
        let outcome = runtime.block_on(async {
            let connected = match kept {
                Some(connected) => connected,
                None => Patience::new(timeout).wait(Self::connect(plan, probe)).await?,
            };
            let channel = &connected.channel;
            match publish(channel, (plan, probe, timeout), batch, confirmed).await {
                Ok(()) => Ok(connected),
                Err(what) => {
                    connected.close().await;
                    Err(what)
                }
            }
        });
        self.runtime = Some(runtime);
        match outcome {
            Ok(connected) => {
                self.connected = Some(connected);
                Ok(Delivered::default())
            }
            Err(what) => {
                self.under_way = Some(under_way);
                Err(Failure::again(&format!("{}: {what}", self.plan.url)))
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not waiting: the broker may hang.
            runtime.shutdown_background();
        }
    }
}
