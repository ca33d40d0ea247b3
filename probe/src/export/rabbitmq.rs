//! RabbitMQ: one message a record, confirmed by the broker.
//!
//! In: batches of JSON lines. Out: messages to a topic exchange, key `vmprobe.TABLE`.
//! Cost: a batch is published at once, then its confirmations are waited for.
//! Invariants: a record counts as delivered when the broker has confirmed it and a queue has taken it:
//! messages are persistent and mandatory, and one that no queue wants is tried again like any that
//! failed. A retry has the same message ids, so consumers can tell.
//! Source: RabbitMQ, "Consumer Acknowledgements and Publisher Confirms"; AMQP 0-9-1.

use std::time::Duration;

use async_rs::{Runtime as AsyncRuntime, Tokio};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::runtime::Runtime;

use super::sink::{Batch, Delivered, Driver, Failure};
use crate::config::RabbitmqPlan;
use crate::config::secret;
use crate::sources::openstack::link::{self, Kit};

/// Heartbeat of the connection, in seconds.
const HEARTBEAT_S: u16 = 20;
/// AMQP's delivery mode of messages that outlive the broker.
const PERSISTENT: u8 = 2;

/// Delivers batches.
pub(super) struct Publisher {
    plan: RabbitmqPlan,
    timeout: Duration,
    probe: String,
    runtime: Option<Runtime>,
    connected: Option<(Connection, Channel)>,
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
        }
    }

    async fn connect(plan: &RabbitmqPlan, probe: &str) -> Result<(Connection, Channel), String> {
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
            let link = link::connect(&place.host, place.port, connector.clone()).await?;
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

/// Publishes all records and waits for all confirmations.
async fn publish(
    channel: &Channel,
    plan: &RabbitmqPlan,
    probe: &str,
    batch: &Batch,
) -> Result<(), String> {
    let text = |error: lapin::Error| error.to_string();
    let key = format!("vmprobe.{}", batch.table.name());
    let (mut confirms, mut closed) = (Vec::new(), None);
    for (number, line) in batch.bytes.split(|octet| *octet == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
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
        match published.await {
            Ok(confirm) => confirms.push(confirm),
            // Why the broker has closed the channel is said to those that wait for its answer.
            Err(error) => {
                closed = Some(text(error));
                break;
            }
        }
    }
    let (mut returned, mut refused) = (0_u64, 0_u64);
    for confirm in confirms {
        match confirm.await.map_err(text)? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(_)) => returned += 1,
            Confirmation::Nack(_) | Confirmation::NotRequested => refused += 1,
        }
    }
    if let Some(closed) = closed {
        return Err(closed);
    }
    match (returned, refused) {
        (0, 0) => Ok(()),
        (0, _) => Err(format!("the broker did not take {refused} messages")),
        _ => Err(format!(
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
        let (plan, probe, timeout) = (&self.plan, &self.probe, self.timeout);
        let kept = self.connected.take().filter(|(connection, channel)| {
            connection.status().connected() && channel.status().connected()
        });
        let attempt = async {
            let connected = match kept {
                Some(connected) => connected,
                None => Self::connect(plan, probe).await?,
            };
            publish(&connected.1, plan, probe, batch).await?;
            Ok::<_, String>(connected)
        };
        let outcome = runtime.block_on(async { tokio::time::timeout(timeout, attempt).await });
        self.runtime = Some(runtime);
        match outcome {
            Ok(Ok(connected)) => {
                self.connected = Some(connected);
                Ok(Delivered::default())
            }
            Ok(Err(what)) => Err(Failure::again(&format!("{}: {what}", self.plan.url))),
            Err(_) => Err(Failure::again(&format!("{}: no answer in timeout_ms", self.plan.url))),
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
