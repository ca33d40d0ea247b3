//! Flows that have counts of an open window.
//!
//! In: flows as they are first counted in a window. Out: the same, when the window closes.
//! Cost: one bit a flow and window; a closing window scans the bits of all slots, 64 a word.
//! Invariants: a bit may be out of date, the flow itself says.

use crate::index::{FlowIndex, WindowNumber};

use super::bits::SlotBits;

/// Windows that can be open or closing at the same time.
pub(super) const PHASES: usize = 4;

/// One set for each window that is open or closing.
pub(super) struct Touched([Phase; PHASES]);

struct Phase {
    bits: SlotBits,
    /// Words that the present closing has not looked at yet.
    words_left: usize,
}

impl Touched {
    /// For a table of `slots` flows.
    pub(super) fn new(slots: usize) -> Self {
        Self(std::array::from_fn(|_| {
            let bits = SlotBits::new(slots);
            Phase { words_left: bits.words(), bits }
        }))
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|phase| phase.bits.bytes()).sum()
    }

    /// Notes a flow.
    #[inline]
    pub(super) fn set(&mut self, window: WindowNumber, flow: FlowIndex) {
        self.phase(window).bits.set(flow);
    }

    /// Takes the next flow of a window that is closing; looks at `words_max` words at most and lowers
    /// it. `None` where they are used up, or all flows are taken.
    pub(super) fn take(
        &mut self,
        window: WindowNumber,
        words_max: &mut usize,
    ) -> Option<FlowIndex> {
        let phase = self.phase(window);
        let allowed = phase.words_left.min(*words_max);
        let mut unused = allowed;
        let flow = phase.bits.take_next(&mut unused);
        phase.words_left -= allowed - unused;
        *words_max -= allowed - unused;
        flow
    }

    /// Whether all flows of the window were taken; then the next window of its place can come.
    pub(super) fn is_closed(&mut self, window: WindowNumber) -> bool {
        let phase = self.phase(window);
        let closed = phase.words_left == 0;
        if closed {
            phase.words_left = phase.bits.words();
        }
        closed
    }

    #[expect(clippy::cast_possible_truncation, reason = "below PHASES")]
    fn phase(&mut self, window: WindowNumber) -> &mut Phase {
        &mut self.0[(window.0 % PHASES as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_sets_of_their_own_and_steps_are_bounded() {
        let mut touched = Touched::new(64 * 8);
        let (first, second) = (WindowNumber(7), WindowNumber(8));
        touched.set(first, FlowIndex(500));
        touched.set(second, FlowIndex(2));
        touched.set(first, FlowIndex(3));
        let mut words = 4;
        assert_eq!(touched.take(first, &mut words), Some(FlowIndex(3)));
        assert_eq!((touched.take(first, &mut words), words), (None, 0));
        assert!(!touched.is_closed(first));
        let mut words = 100;
        assert_eq!(touched.take(first, &mut words), Some(FlowIndex(500)));
        assert_eq!(touched.take(first, &mut words), None);
        assert!(touched.is_closed(first) && !touched.is_closed(first));
        assert_eq!(touched.take(second, &mut words), Some(FlowIndex(2)));
    }
}
