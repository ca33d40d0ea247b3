//! Learning in step with the packets of files.
//!
//! In: evidence of the workers. Out: the inventory as known by the packets so far.
//! Cost: on the aggregation thread, what the learner and the store cost.
//! Invariants: whoever asks of a time asks after all evidence of before was taken, and later evidence
//! changes nothing of that time; so a replay gives the same each time. What becomes known is known since
//! the time of its packet.

use super::evidence::EvidenceReceiver;
use super::{Learner, tell};
use crate::config::LearnedPlan;
use crate::sources::{Keeper, SourceHandle};
use crate::time::Timestamp;

/// The learner with the store, where no thread keeps it.
pub struct LearningInStep {
    learner: Learner,
    receiver: EvidenceReceiver,
    keeper: Keeper,
    handle: SourceHandle,
    is_live: bool,
}

impl LearningInStep {
    /// Of what workers send, with the store of a replay.
    pub fn new(
        plan: &LearnedPlan,
        receiver: EvidenceReceiver,
        keeper: Keeper,
        handle: SourceHandle,
    ) -> Self {
        Self { learner: Learner::new(plan), receiver, keeper, handle, is_live: false }
    }

    /// Takes all evidence that is there.
    pub fn take(&mut self) {
        let mut changed = false;
        let mut last = None;
        while let Some(evidence) = self.receiver.take() {
            self.learner.take(&evidence);
            last = Some(evidence.at);
            let changes = self.learner.take_changes();
            if !changes.is_empty() {
                changed |= self.keeper.apply(self.handle.id(), evidence.at, changes.into());
            }
        }
        let Some(at) = last else { return };
        if self.is_live {
            self.handle.heard(at);
        } else {
            self.handle.live(at);
            self.is_live = true;
        }
        tell(&self.handle, &mut self.learner, &mut self.receiver);
        if changed {
            self.keeper.show(at);
        }
    }

    /// Hands rows of the table on that became known before `end`.
    pub fn rows_before(&mut self, end: Timestamp) {
        self.keeper.pass_rows_on(end);
    }

    /// At the end: all that is left.
    pub fn finish(&mut self, at: Timestamp) {
        self.take();
        tell(&self.handle, &mut self.learner, &mut self.receiver);
        self.keeper.pass_rows_on(Timestamp(u64::MAX));
        self.keeper.show(at);
    }
}
