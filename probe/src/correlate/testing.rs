//! What the one member gives out that adds up, alone and where another takes over.
//!
//! In: what begins it, messages between members. Out: its windows with their records.

use super::lane::Reduce;
use super::message::Message;
use crate::record::Rows;

/// Windows with their records.
pub(super) type Given = Vec<(u64, Rows)>;

/// What is over and not out yet.
pub(super) fn given(reducer: &mut impl Reduce) -> Given {
    let mut all = Vec::new();
    while let Some((window, _, rows)) = reducer.next_rows() {
        reducer.is_out(window);
        all.push((window, rows));
    }
    all
}

/// What one gives that reads all of a log.
pub(super) fn whole<R: Reduce>(mut reducer: R, log: &[Vec<u8>]) -> (Given, R) {
    reducer.caught_up();
    let mut all = Vec::new();
    for (offset, message) in (0..).zip(log) {
        reducer.read(offset, message, i64::MAX);
        all.extend(given(&mut reducer));
    }
    (all, reducer)
}

/// What two give, of which the second follows the first at `cut`; and from where on that one reads again.
/// `begin` begins one that reads from an offset on; `before` is said to be out where nothing was given.
pub(super) fn taken_over<R: Reduce>(
    begin: impl Fn(i64) -> R,
    log: &[Vec<u8>],
    cut: usize,
    before: u64,
) -> (Given, i64) {
    let (mut all, mut one) = whole(begin(0), &log[..cut]);
    let said = Message::Emitted { window: all.last().map_or(before, |(window, _)| *window) };
    let mut log = log.to_vec();
    log.insert(cut, serde_json::to_vec(&said).expect("JSON"));
    let first = one.first_needed();
    let mut two = begin(first);
    let skipped = usize::try_from(first).expect("it is not negative");
    for (offset, message) in log.iter().enumerate().skip(skipped) {
        two.read(i64::try_from(offset).expect("small"), message, i64::MAX);
        if offset == cut {
            two.caught_up();
        }
        all.extend(given(&mut two));
    }
    (all, first)
}
