//! OpenStack: what Nova and Neutron list, then their notifications from the cloud's message bus.
//!
//! In: `[[inventory.openstack]]`, messages of RabbitMQ, answers of the services' APIs. Out: changes of VMs
//! and segments.
//! Cost: a thread that waits, and two of the AMQP client.
//! Invariants: a broker that is gone is tried again, the next one of the list first, for as long as the
//! probe runs; how long it was away is said. What was said before still counts meanwhile.
//! Source: AMQP 0-9-1; OpenStack Identity, Networking and Compute API; docs/sources/openstack.md.
//!
//! | file | |
//! |---|---|
//! | `envelope` | octets → notification |
//! | `nova` `neutron` | notification → what it says of instances, ports, trunks, networks, routers |
//! | `model` `ports` | what that means for the inventory |
//! | `link` `session` | the connection |
//! | `http` `identity` `listing` | what the APIs list |

mod envelope;
mod http;
mod identity;
pub(crate) mod link;
mod listing;
#[cfg(test)]
mod listing_tests;
mod model;
#[cfg(test)]
mod model_tests;
mod neutron;
mod nova;
mod ports;
#[cfg(test)]
mod ports_tests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod samples_tests;
mod session;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;

use model::{Mapping, Model};

use super::handle::{Backoff, InventorySource, SourceHandle};
use crate::config::{CloudAuth, OpenstackPlan};
use crate::time::{Timestamp, wall_clock};

/// How often the end of the probe is looked for.
const STOP_POLL_MS: u64 = 50;
/// How long the client may take to end.
const END_MS: u64 = 1_000;

/// One cloud as a source.
pub struct Openstack {
    plan: OpenstackPlan,
}

impl Openstack {
    /// Of a cloud; connects when it runs.
    pub const fn new(plan: OpenstackPlan) -> Self {
        Self { plan }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    #[error("no answer in timeout_ms")]
    Timeout,
    #[error("{key} cannot be read: {error}")]
    File { key: &'static str, error: io::Error },
    #[error("password_file is not UTF-8 text")]
    PasswordFile,
    #[error("the broker ended the delivery (was the queue deleted?)")]
    Closed,
    #[error("{0}")]
    Broker(#[from] lapin::Error),
}

/// A source that runs.
struct Feed<'a> {
    plan: &'a OpenstackPlan,
    handle: &'a SourceHandle,
    model: Model,
    /// The last connection was up.
    live: bool,
    /// When the last connection was lost that was up.
    lost: Option<Timestamp>,
    /// Exchanges that were bound once.
    seen: BTreeSet<String>,
    /// What is known of the exchanges on this connection, in the order of the plan.
    looks: Vec<Look>,
    /// What is there is to be listed.
    listing: Due,
}

/// When what is there is to be listed.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// Not before the next connection.
    No,
    /// At an instant of the monotonic clock, after so many failures.
    At(u64, Backoff),
}

/// When an exchange is to be looked at again.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Looks in a row at which it was not there.
    misses: u32,
    /// By the monotonic clock.
    next_ns: u64,
}

impl InventorySource for Openstack {
    fn run(self: Box<Self>, handle: SourceHandle) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("openstack")
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                handle.failed(format_args!("no thread: {error}"), wall_clock());
                return;
            }
        };
        let mapping = Mapping {
            domain: self.plan.domain,
            physical: self.plan.physical_domains.iter().cloned().collect(),
            tenant_ids: self.plan.tenant_ids,
        };
        let mut feed = Feed {
            plan: &self.plan,
            handle: &handle,
            model: Model::new(mapping),
            live: false,
            lost: None,
            seen: BTreeSet::new(),
            looks: Vec::new(),
            listing: Due::No,
        };
        runtime.block_on(feed.keep_on());
        runtime.shutdown_timeout(std::time::Duration::from_millis(END_MS));
    }
}

impl Feed<'_> {
    /// Connects again and again until the probe ends.
    async fn keep_on(&mut self) {
        let mut backoff = Backoff::default();
        let handle = self.handle.clone();
        for url in self.plan.urls.iter().cycle() {
            handle.connecting(wall_clock());
            let trouble = tokio::select! {
                ended = self.session(url) => ended.err(),
                () = stopping(&handle) => return,
            };
            let now = wall_clock();
            if self.live {
                self.live = false;
                self.lost = Some(now);
                backoff.reset();
            }
            if let Some(trouble) = trouble {
                handle.failed(format_args!("{url}: {trouble}"), now);
            }
            let wait_ms = jittered(backoff.next_ms().min(self.plan.retry_max_ms.into()));
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_millis(wait_ms)) => {}
                () = stopping(&handle) => return,
            }
        }
    }

    /// Whether the APIs are asked.
    fn lists(&self) -> bool {
        self.plan.api.auth != CloudAuth::Off
    }

    /// A connection is up; where one was lost before, says what may be missing. `kept`: the queue was
    /// still there.
    fn connected(&mut self, kept: bool, now: Timestamp) {
        self.looks.clear();
        if self.lists() {
            self.listing = Due::At(0, Backoff::default());
        }
        let Some(lost) = self.lost.take() else { return };
        let away_s = now.since_ns(lost).div_ceil(1_000_000_000);
        let queue = if kept { "kept its queue" } else { "had lost its queue" };
        self.handle.note(
            format_args!(
                "connected again after {away_s} s; the broker {queue}: notifications of that time may \
                 be missing{}",
                if self.lists() { "; all is listed anew" } else { "" }
            ),
            now,
        );
    }

    /// Exchanges that were not there are bound: what their services have said since the queue began to listen
    /// went past it.
    fn came(&mut self, exchanges: &[String], now: Timestamp) {
        if exchanges.is_empty() {
            return;
        }
        if self.lists() {
            let backoff = match self.listing {
                Due::At(_, backoff) => backoff,
                Due::No => Backoff::default(),
            };
            self.listing = Due::At(0, backoff);
        }
        self.handle.note(
            format_args!(
                "exchange {} was not there and is bound now: notifications of before may be missing{}",
                exchanges.join(", "),
                if self.lists() { "; all is listed anew" } else { "" }
            ),
            now,
        );
    }

    /// Exchanges were looked at. One that is bound is enough to be live; none of them is not.
    fn bound(&mut self, now: Timestamp) {
        if self.looks.iter().all(|look| look.misses > 0) {
            let names = self.plan.exchanges.join(", ");
            self.live = false;
            self.handle.failed(format_args!("no exchange of these is there yet: {names}"), now);
            return;
        }
        for (exchange, look) in self.plan.exchanges.iter().zip(&self.looks) {
            if look.misses == 0 {
                self.seen.insert(exchange.clone());
            } else if self.seen.contains(exchange) {
                self.handle
                    .note(format_args!("exchange {exchange} is gone; it is waited for"), now);
            }
        }
        if self.live {
            self.handle.heard(now);
        } else {
            self.live = true;
            self.handle.live(now);
        }
    }
}

async fn stopping(handle: &SourceHandle) {
    while !handle.is_stopping() {
        tokio::time::sleep(std::time::Duration::from_millis(STOP_POLL_MS)).await;
    }
}

/// Between a half and all of it, so that many probes do not come back at once.
fn jittered(wait_ms: u64) -> u64 {
    let half = wait_ms / 2;
    half + RandomState::new().hash_one(wait_ms) % (wait_ms - half + 1)
}

/// Takes messages, one a line, as a broker would deliver them; for fuzzing. Returns how many said
/// something.
///
/// # Panics
/// If any of them makes it: a bug.
pub fn exercise(messages: &[u8]) -> usize {
    let mut model = Model::new(Mapping::default());
    let known = Timestamp::from_parts(1_700_000_000, 0);
    let lines = messages.split(|octet| *octet == b'\n');
    lines.filter(|line| model.message(line, known).is_ok_and(|changes| !changes.is_empty())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_differ_within_bounds() {
        let waits: BTreeSet<u64> = (0..100).map(|_| jittered(10_000)).collect();
        assert!(waits.len() > 10 && waits.iter().all(|wait| (5_000..=10_000).contains(wait)));
        assert_eq!(jittered(0), 0);
    }
}
