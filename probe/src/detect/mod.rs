//! Views to findings to alerts.
//!
//! In: one [`WindowView`] after the other, in order of time. Out: [`Alert`]s.
//! Cost: stated by each detector; memory of each is bounded.
//! Invariants: deterministic: a detector sees nothing but views, which are sorted, and its own
//! state; no clock, no randomness. So stored windows can be replayed.
//! Source: each detector names its own.

mod alert;
mod chi_squared;
mod port_scan;
mod syn_flood;

pub use alert::{Alert, AlertBook, AlertState, Finding, Severity};
pub use port_scan::PortScan;
pub use syn_flood::SynFlood;

use crate::aggregate::WindowView;
use crate::config::DetectPlan;
use crate::time::Timestamp;

/// One detector. Each is a file with what it sees, its formula and source, its parameters, its
/// cost, and a scenario in which it fires and one in which it must not.
pub trait Detector: Send {
    /// Name in alerts.
    fn name(&self) -> &'static str;

    /// Looks at one window; adds what it finds.
    fn observe(&mut self, view: &WindowView, findings: &mut Vec<Finding>);

    /// Start of the first window with something in it that may yet become a finding, or goes on; `None`
    /// where there is nothing of the kind.
    fn needed_since(&self) -> Option<Timestamp> {
        None
    }
}

/// All detectors that are on, and the alerts that they keep.
pub struct Detectors {
    detectors: Vec<Box<dyn Detector>>,
    book: AlertBook,
    findings: Vec<Finding>,
}

impl Detectors {
    /// From the plan.
    pub fn new(plan: &DetectPlan) -> Self {
        let mut detectors: Vec<Box<dyn Detector>> = Vec::new();
        if plan.port_scan.enabled {
            detectors.push(Box::new(PortScan::new(&plan.port_scan)));
        }
        if plan.syn_flood.enabled {
            detectors.push(Box::new(SynFlood::new(&plan.syn_flood)));
        }
        Self { detectors, book: AlertBook::default(), findings: Vec::new() }
    }

    /// Looks at one window. Gives the alerts that are new or have changed, in a fixed order.
    /// Calls `pause` after each detector, because others wait meanwhile.
    pub fn observe(&mut self, view: &WindowView, mut pause: impl FnMut()) -> Vec<Alert> {
        self.findings.clear();
        for detector in &mut self.detectors {
            detector.observe(view, &mut self.findings);
            pause();
        }
        self.book.note(view.end, &self.findings)
    }

    /// Closes all alerts when nothing will come any more.
    pub fn finish(&mut self) -> Vec<Alert> {
        self.book.close_all()
    }

    /// Start of the first window that whoever begins anew must see to know what goes on now. Beside that,
    /// detectors forget: a baseline what was many windows ago, a port scan who was silent for `forget_s`.
    pub fn needed_since(&self) -> Option<Timestamp> {
        let detectors = self.detectors.iter().filter_map(|detector| detector.needed_since());
        detectors.chain(self.book.first_seen()).min()
    }

    /// Findings that opened no alert, because as many as may be open went on already.
    pub fn crowded_out(&self) -> u64 {
        self.book.crowded_out()
    }

    /// Alerts that are open now.
    pub fn open_alerts(&self) -> u64 {
        self.book.open()
    }

    /// Alerts that were opened so far.
    pub fn opened_alerts(&self) -> u64 {
        self.book.opened()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Conversation, ConversationKey};
    use crate::index::WindowNumber;

    /// A window of a second with the given conversations.
    pub(super) fn view(
        number: u64,
        conversations: Vec<(ConversationKey, Conversation)>,
    ) -> WindowView {
        WindowView::of(WindowNumber(number), 1_000_000_000, conversations)
    }

    #[test]
    fn what_is_off_finds_nothing() {
        let mut plan = DetectPlan::default();
        plan.port_scan.enabled = false;
        let detectors = Detectors::new(&plan);
        assert_eq!(detectors.detectors.len(), 1);
        assert_eq!(detectors.detectors[0].name(), "syn_flood");
    }
}
