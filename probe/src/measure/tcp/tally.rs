//! A sink that adds up: all events, delays and losses of one flow, or of many.
//!
//! In: what a [`super::TcpFlow`] says. Out: counts, sums, extremes.
//! Cost: one addition an event; for tests, small tools, and as a model of what records hold.
//! Invariants: counts saturate nowhere within 2⁶⁴.
//! Source: docs/measures.md.

use crate::index::Sender;

use super::{Cause, EVENTS, Event, Loss, Method, Sink};

/// Delays of one method to one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Samples.
    pub count: u64,
    /// Their sum in ns.
    pub sum_ns: u64,
    /// The shortest in ns; 0 without samples.
    pub min_ns: u64,
    /// The longest in ns.
    pub max_ns: u64,
}

impl Delay {
    fn add(&mut self, ns: u64) {
        self.min_ns = if self.count == 0 { ns } else { self.min_ns.min(ns) };
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.count += 1;
    }
}

/// Lost octets and packets of one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Octets.
    pub octets: u64,
    /// Packets, an estimate.
    pub packets: u64,
}

/// Everything, by sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    events: [[u64; EVENTS]; 2],
    delays: [[Delay; Method::ALL.len()]; 2],
    losses: [[Lost; 4]; 2],
    stalled_ns: [u64; 2],
}

impl Tally {
    /// How often `event` happened by segments of `sender`.
    pub const fn events(&self, event: Event, sender: Sender) -> u64 {
        self.events[sender.place()][event as usize]
    }

    /// The same of both endpoints.
    pub const fn total(&self, event: Event) -> u64 {
        self.events[0][event as usize] + self.events[1][event as usize]
    }

    /// Delays by `method` that the endpoint `far` answered.
    pub const fn delay(&self, method: Method, far: Sender) -> Delay {
        self.delays[far.place()][method as usize]
    }

    /// Losses of what `sender` sent.
    pub const fn lost(&self, cause: Cause, sender: Sender) -> Lost {
        self.losses[sender.place()][cause as usize]
    }

    /// How long the window of `sender` was 0, in ns.
    pub const fn stalled_ns(&self, sender: Sender) -> u64 {
        self.stalled_ns[sender.place()]
    }
}

impl Sink for Tally {
    #[inline]
    fn delay(&mut self, method: Method, far: Sender, ns: u64) {
        self.delays[far.place()][method as usize].add(ns);
    }

    #[inline]
    fn event(&mut self, event: Event, sender: Sender) {
        self.events[sender.place()][event as usize] += 1;
    }

    fn loss(&mut self, loss: Loss) {
        let lost = &mut self.losses[loss.sender.place()][loss.cause as usize];
        lost.octets += u64::from(loss.octets);
        lost.packets += u64::from(loss.packets);
    }

    fn stalled(&mut self, sender: Sender, ns: u64) {
        let stalled = &mut self.stalled_ns[sender.place()];
        *stalled = stalled.saturating_add(ns);
    }
}
