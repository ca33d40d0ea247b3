//! IPFIX: records as flow records and options, to a collector.
//!
//! In: batches of records as IPFIX has them. Out: messages by UDP, TCP, TLS or SCTP.
//! Cost: a batch is made into messages and sent at once.
//! Invariants: by TCP, TLS and SCTP at least once as far as the protocol goes, which has no
//! acknowledgement of what a collector has read; by UDP at most once, but for a batch that an error of the
//! network came back for: what is lost on the way shows in the collector's sequence numbers alone.
//! Source: RFC 7011; RFC 5103 (biflows); docs/sinks/ipfix.md.
//!
//! | file | |
//! |---|---|
//! | `elements` | which element a column is |
//! | `records` | rows to data records and their templates |
//! | `message` | these to messages of a session |
//! | `link` | messages to a socket |

mod elements;
mod link;
mod message;
mod records;
#[cfg(test)]
mod tests;

use super::sink::{Batch, Delivered, Driver, Failure};
use crate::config::{IpfixPlan, Transport};
use crate::time::{monotonic_ns, wall_clock};
use link::Link;
use message::{Sent, Session};

pub use elements::markdown;
pub(super) use records::Records;

/// The Observation Domain of a probe (RFC 7011 §3.1): never 0, which means none in particular.
fn observation_domain(plan: &IpfixPlan, probe: &str) -> u32 {
    plan.observation_domain_id.unwrap_or_else(|| crc32fast::hash(probe.as_bytes()).max(1))
}

/// Delivers batches.
pub(super) struct Exporter {
    plan: IpfixPlan,
    timeout_ms: u32,
    session: Session,
    sent: Sent,
    link: Option<Link>,
}

impl Exporter {
    pub(super) fn new(plan: &IpfixPlan, timeout_ms: u32, probe: &str) -> Self {
        let session = Session::new(plan, observation_domain(plan, probe));
        Self { plan: plan.clone(), timeout_ms, session, sent: Sent::default(), link: None }
    }

    /// The way there; a session begins with each connection. By UDP its sequence goes on, but to a collector
    /// another port is another session, of which it knows no templates.
    fn link(&mut self) -> Result<Link, Failure> {
        if let Some(mut link) = self.link.take()
            && !link.is_closed()
        {
            return Ok(link);
        }
        let link =
            Link::open(&self.plan, self.timeout_ms).map_err(|error| Failure::again(&error))?;
        match self.plan.url.transport {
            Transport::Udp => self.session.tell_again(),
            _ => self.session.restart(),
        }
        Ok(link)
    }
}

impl Driver for Exporter {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let mut link = self.link()?;
        let (now, now_ns) = (wall_clock(), monotonic_ns());
        let messages = self.session.messages(&batch.bytes, now, now_ns, &self.sent);
        let messages = messages.map_err(|error| Failure::refused(&error))?;
        if let Err((sent, error)) = link.send(&messages, self.timeout_ms) {
            if let Some(first) = messages.get(sent) {
                self.session.unsent(first);
            }
            return Err(Failure::again(&format!("{}: {error}", self.plan.url)));
        }
        let octets: usize = messages.iter().map(Vec::len).sum();
        self.sent.messages += u64::try_from(messages.len()).unwrap_or(u64::MAX);
        self.sent.octets += u64::try_from(octets).unwrap_or(u64::MAX);
        self.sent.records += batch.records;
        self.link = Some(link);
        Ok(Delivered::default())
    }
}
