//! What happened to a flow since its last record, beside packets and octets.
//!
//! In: events, losses, copies, fragments. Out: counts for its record.
//! Cost: 248 bytes, for flows of which there is anything to tell only.
//! Invariants: counts saturate.
//! Source: docs/measures.md.

use crate::index::Sender;
use crate::measure::tcp::{Cause, Event, Loss, Lost};
use crate::window::What;

/// Events that are counted: refusals, the last of them, are told by how far the opening came.
const COUNTED: usize = Event::Refused as usize;

/// Counts of one record. Arrays of two are by sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTotals {
    lost_octets: [[u64; 4]; 2],
    stalled_ns: [u64; 2],
    lost_packets: [[u32; 4]; 2],
    events: [[u32; COUNTED]; 2],
    duplicates: [u32; 2],
    icmp_errors: [u16; 2],
    /// IP fragments.
    pub fragments: u32,
    /// Packets that the capture or the mirror cut.
    pub snapped: u32,
}

impl FlowTotals {
    /// Counts events by segments of `sender`.
    pub fn event(&mut self, event: Event, sender: Sender) {
        if let Some(count) = self.events[sender.place()].get_mut(event as usize) {
            add(count, 1);
        }
    }

    /// Counts a loss.
    pub fn loss(&mut self, loss: &Loss) {
        let (sender, cause) = (loss.sender.place(), loss.cause as usize);
        let octets = &mut self.lost_octets[sender][cause];
        *octets = octets.saturating_add(loss.octets.into());
        add(&mut self.lost_packets[sender][cause], loss.packets);
    }

    /// The window of `sender` was 0 for so long.
    pub fn stalled(&mut self, sender: Sender, ns: u64) {
        let stalled = &mut self.stalled_ns[sender.place()];
        *stalled = stalled.saturating_add(ns);
    }

    /// Counts a duplicate at one tap.
    pub fn duplicate(&mut self, sender: Sender) {
        add(&mut self.duplicates[sender.place()], 1);
    }

    /// Counts an ICMP error about a packet of `sender`.
    pub fn icmp_error(&mut self, sender: Sender) {
        let errors = &mut self.icmp_errors[sender.place()];
        *errors = errors.saturating_add(1);
    }

    /// ICMP errors about packets of `sender`.
    pub fn icmp_errors(&self, sender: Sender) -> u64 {
        self.icmp_errors[sender.place()].into()
    }

    /// Duplicates of what `sender` sent.
    pub fn duplicates(&self, sender: Sender) -> u64 {
        self.duplicates[sender.place()].into()
    }

    /// How often `event` happened by segments of `sender`.
    pub fn events(&self, event: Event, sender: Sender) -> u64 {
        self.events[sender.place()].get(event as usize).map_or(0, |count| u64::from(*count))
    }

    /// Losses of what `sender` sent.
    pub fn lost(&self, cause: Cause, sender: Sender) -> Lost {
        let (sender, cause) = (sender.place(), cause as usize);
        Lost {
            octets: self.lost_octets[sender][cause],
            packets: self.lost_packets[sender][cause].into(),
        }
    }

    /// One of these counts.
    pub fn count(&self, what: What, sender: Sender) -> u64 {
        match what {
            What::Event(event) => self.events(event, sender),
            What::LostOctets(cause) => self.lost(cause, sender).octets,
            What::LostPackets(cause) => self.lost(cause, sender).packets,
            What::Stalled => self.stalled_ns(sender),
            // Samples stand in the records of windows.
            What::Delay(_) => 0,
        }
    }

    /// How long the window of `sender` was 0, in ns.
    pub fn stalled_ns(&self, sender: Sender) -> u64 {
        self.stalled_ns[sender.place()]
    }
}

fn add(count: &mut u32, more: u32) {
    *count = count.saturating_add(more);
}
