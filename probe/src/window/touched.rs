//! Flows that have counts of an open window.
//!
//! In: flows as they are first counted in a window. Out: the same, when the window closes.
//! Cost: one store a flow and window.
//! Invariants: at most `slots` entries a window; an entry may be out of date, the flow itself says.

use std::collections::VecDeque;

use crate::index::{FlowIndex, WindowNumber};

/// Windows that can be open or closing at the same time.
const PHASES: usize = 4;

/// One list for each window that is open or closing.
pub struct Touched {
    lists: [VecDeque<FlowIndex>; PHASES],
    slots: usize,
}

impl Touched {
    /// For a table of `slots` flows.
    pub fn new(slots: usize) -> Self {
        Self { lists: std::array::from_fn(|_| VecDeque::with_capacity(slots)), slots }
    }

    /// Notes a flow. If the list is full the oldest entry comes back: its row must be cut now.
    #[inline]
    #[must_use]
    pub fn push(&mut self, window: WindowNumber, flow: FlowIndex) -> Option<FlowIndex> {
        let slots = self.slots;
        let list = self.list(window);
        let displaced = if list.len() == slots { list.pop_front() } else { None };
        list.push_back(flow);
        displaced
    }

    /// Takes the next flow of a window that is closing.
    #[inline]
    pub fn pop(&mut self, window: WindowNumber) -> Option<FlowIndex> {
        self.list(window).pop_front()
    }

    #[expect(clippy::cast_possible_truncation, reason = "below PHASES")]
    fn list(&mut self, window: WindowNumber) -> &mut VecDeque<FlowIndex> {
        &mut self.lists[(window.0 % PHASES as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_lists_of_their_own_and_a_bound() {
        let mut touched = Touched::new(2);
        let (first, second) = (WindowNumber(7), WindowNumber(8));
        assert_eq!(touched.push(first, FlowIndex(1)), None);
        assert_eq!(touched.push(second, FlowIndex(2)), None);
        assert_eq!(touched.push(first, FlowIndex(3)), None);
        assert_eq!(touched.push(first, FlowIndex(4)), Some(FlowIndex(1)));
        assert_eq!(touched.pop(first), Some(FlowIndex(3)));
        assert_eq!(touched.pop(second), Some(FlowIndex(2)));
        assert_eq!(touched.pop(second), None);
    }
}
