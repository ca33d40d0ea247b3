//! Windows of several workers: bounds, and the account while they hold.

use super::*;
use crate::app::Application;
use crate::counters::DropCause;
use crate::decode::Address;
use crate::flow::FlowOutput;
use crate::index::{FlowIndex, Sender, TapIndex};
use crate::measure::tcp::Event;
use crate::spread::FlowKey;
use crate::window::{Ends, HandoffSender, Note, RowFacts, What, handoff};

/// Sends `packets` packets of the `number`-th pair of addresses.
fn send(sender: &mut HandoffSender, window: u64, number: u8, packets: u64) {
    let key = FlowKey { low: Address::v4([10, 0, 0, number]), ..FlowKey::default() };
    let mut row = Row::of(&RowFacts {
        flow: FlowIndex(number.into()),
        key: &key,
        initiator: Sender::Low,
        ends: Ends::default(),
        tap: TapIndex(0),
        application: Application::Unknown,
        counts_flow: true,
    });
    for _ in 0..packets {
        row.count(Sender::Low, 100, false);
        sender.count(WindowNumber(window), 1);
    }
    *sender.begin_row(WindowNumber(window)).1 = row;
}

/// Totals of a worker that has received and booked `booked` packets.
fn close(sender: &mut HandoffSender, window: u64, booked: u64) {
    let mut totals = WorkerTotals {
        received_packets: booked,
        booked_packets: booked,
        ..WorkerTotals::default()
    };
    assert!(sender.send_window(WindowNumber(window), usize::MAX));
    assert!(sender.close(WindowNumber(window), &mut totals, &[]));
}

#[test]
fn what_found_no_room_is_settled_with_its_window() {
    let (mut sender, receiver) = handoff(8, 8, false);
    let (mut slow, slow_receiver) = handoff(8, 8, false);
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver, slow_receiver], windows, 1);
    // The first worker is a window ahead, and in that one most found no room.
    send(&mut sender, 1, 1, 5);
    send(&mut sender, 1, 2, 2);
    close(&mut sender, 1, 7);
    send(&mut sender, 2, 1, 1);
    send(&mut sender, 2, 2, 40);
    close(&mut sender, 2, 48);
    close(&mut slow, 1, 0);
    while aggregator.collect() {}
    let view = aggregator.next_view().expect("both have closed it");
    assert_eq!((view.number, full(&view.ledger)), (WindowNumber(1), 2));
    assert_eq!((view.ledger.accounted, view.ledger.unaccounted), (5, 0));
    assert_eq!(view.ledger.received, 7);
    assert!(aggregator.next_view().is_none(), "the slow one has not closed it");
    close(&mut slow, 2, 0);
    while aggregator.collect() {}
    let view = aggregator.next_view().expect("both have closed it");
    assert_eq!((full(&view.ledger), view.ledger.accounted), (42, 6));
    assert_eq!((view.ledger.received, view.ledger.unaccounted), (48, 0));
}

#[test]
fn windows_that_wait_for_a_worker_are_bounded_together() {
    const ROWS_MAX: usize = 10;
    let (mut sender, receiver) = handoff(64, 8, false);
    let (mut slow, slow_receiver) = handoff(8, 8, false);
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver, slow_receiver], windows, 10);
    let mut booked = 0;
    for window in 1..=8 {
        for number in 0..100 {
            send(&mut sender, window, number, 1);
        }
        booked += 100;
        close(&mut sender, window, booked);
        while aggregator.collect() {}
        assert!(aggregator.conversations <= FULL_WINDOWS_MAX * ROWS_MAX);
    }
    close(&mut slow, 8, 0);
    while aggregator.collect() {}
    let mut kept = Vec::new();
    while let Some(view) = aggregator.next_view() {
        kept.push(view.conversations.len());
        assert_eq!(view.ledger.unaccounted, 0);
        aggregator.recycle(view);
    }
    assert_eq!(kept, [10, 10, 10, 10, 0, 0, 0, 0]);
    let ledger = aggregator.ledger();
    assert_eq!((ledger.accounted, ledger.causes.of(DropCause::WindowRowsFull)), (40, 760));
    assert_eq!((aggregator.conversations, ledger.unaccounted), (0, 0));
    assert!(aggregator.spare_tables.len() <= SPARE_MAX);
    assert!(aggregator.spare_views.len() <= SPARE_MAX);
}

fn full(ledger: &LedgerTotals) -> u64 {
    ledger.causes.of(DropCause::WindowRowsFull)
}

#[test]
fn a_worker_that_stands_still_bounds_the_windows_of_the_others() {
    const WINDOWS: u64 = 1_000;
    let (mut sender, receiver) = handoff(8, 8, false);
    let (mut slow, slow_receiver) = handoff(8, 8, false);
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver, slow_receiver], windows, 1 << 20);
    for window in 1..=WINDOWS {
        send(&mut sender, window, 1, 3);
        close(&mut sender, window, 3 * window);
        while aggregator.collect() {}
        assert!(aggregator.next_view().is_none() && aggregator.open.len() <= OPEN_WINDOWS_MAX + 1);
        assert!(aggregator.workers[0].snapshots.len() <= OPEN_WINDOWS_MAX + 1);
    }
    close(&mut slow, WINDOWS, 0);
    while aggregator.collect() {}
    let mut given = Vec::new();
    while let Some(view) = aggregator.next_view() {
        given.push((view.number.0, view.conversations.len()));
        assert_eq!(view.ledger.unaccounted, 0, "{:?}", view.number);
        aggregator.recycle(view);
    }
    let kept = (1..=OPEN_WINDOWS_MAX as u64).map(|window| (window, 1));
    assert_eq!(given, kept.chain([(WINDOWS, 0)]).collect::<Vec<_>>());
    let ledger = aggregator.ledger();
    let lost = 3 * (WINDOWS - OPEN_WINDOWS_MAX as u64);
    assert_eq!((full(&ledger), ledger.accounted), (lost, 3 * OPEN_WINDOWS_MAX as u64));
    assert_eq!((ledger.received, ledger.unaccounted), (3 * WINDOWS, 0));
    // And goes on as if nothing had been.
    send(&mut sender, WINDOWS + 1, 1, 1);
    close(&mut sender, WINDOWS + 1, 3 * WINDOWS + 1);
    close(&mut slow, WINDOWS + 1, 0);
    while aggregator.collect() {}
    let view = aggregator.next_view().expect("all have closed it");
    assert_eq!((view.conversations.len(), full(&view.ledger)), (1, lost));
    assert_eq!((view.ledger.accounted, view.ledger.unaccounted), (769, 0));
}

#[test]
fn files_wait_for_each_other_and_lose_nothing() {
    const WINDOWS: u64 = 2 * OPEN_WINDOWS_MAX as u64;
    let (mut sender, receiver) = handoff(8, 8, true);
    let (mut slow, slow_receiver) = handoff(8, 8, true);
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver, slow_receiver], windows, 1 << 20);
    for window in 1..=WINDOWS {
        send(&mut sender, window, 1, 1);
        close(&mut sender, window, window);
        while aggregator.collect() {}
    }
    close(&mut slow, WINDOWS, 0);
    while aggregator.collect() {}
    let views = std::iter::from_fn(|| aggregator.next_view()).count() as u64;
    let ledger = aggregator.ledger();
    assert_eq!((views, ledger.accounted, ledger.causes.sum()), (WINDOWS, WINDOWS, 0));
}

#[test]
fn workers_are_not_heard_while_windows_wait_that_are_over() {
    let (mut sender, receiver) = handoff(64, 8, false);
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver], windows, 1 << 20);
    let mut booked = 0;
    for window in 1..=8 {
        send(&mut sender, window, 1, 1);
        booked += 1;
        close(&mut sender, window, booked);
    }
    while aggregator.collect() {}
    assert_eq!(aggregator.open.len(), OVER_WINDOWS_MAX);
    // Nobody waits for ever: each that is given out makes room for another.
    let mut given = Vec::new();
    while let Some(view) = aggregator.next_view() {
        given.push(view.number.0);
        aggregator.recycle(view);
        while aggregator.collect() {}
        assert!(aggregator.open.len() <= OVER_WINDOWS_MAX);
    }
    assert_eq!(given, (1..=8).collect::<Vec<_>>());
}

#[test]
fn one_full_window_that_waits_is_enough() {
    let (mut sender, receiver) = handoff(64, 8, false);
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver], windows, 8);
    for window in 1..=3 {
        (0..2).for_each(|number| send(&mut sender, window, number, 1));
        close(&mut sender, window, 2 * window);
    }
    while aggregator.collect() {}
    // Two conversations are the fourth part of all that a window may have.
    assert_eq!((aggregator.open.len(), aggregator.conversations), (1, 2));
    let mut views = 0;
    while let Some(view) = aggregator.next_view() {
        assert_eq!(view.conversations.len(), 2);
        views += 1;
        while aggregator.collect() {}
    }
    assert_eq!(views, 3);
}

#[test]
fn what_is_measured_is_bounded_over_all_open_windows() {
    let (mut sender, receiver) = handoff(64, 8, false);
    let (_slow, slow_receiver) = handoff(8, 8, false);
    sender.make_notes();
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver, slow_receiver], windows, 1 << 20);
    // As if other windows were full.
    aggregator.measured_bytes = MEASURED_BYTES_MAX - 24;
    let row = Row::default();
    for window in [1, 2, 3] {
        let (place, begun) = sender.begin_row(WindowNumber(window));
        *begun = row;
        for _ in 0..2 {
            let note = Note::new(What::Event(Event::Gap), Sender::Low, 1);
            sender.measured(place, note);
        }
        close(&mut sender, window, 0);
        while aggregator.collect() {}
    }
    assert!(aggregator.measured_bytes <= MEASURED_BYTES_MAX);
    let lost = |window: &OpenWindow| window.conversations.measures_lost();
    assert_eq!(aggregator.open.values().map(lost).collect::<Vec<_>>(), [0, 2, 2]);
}

#[test]
fn who_works_on_a_window_listens_until_another_is_full() {
    let (mut sender, receiver) = handoff(64, 8, false);
    let windows = WindowClock::new(1_000, 0);
    let mut aggregator = Aggregator::new(vec![receiver], windows, 4);
    for number in 0..4 {
        send(&mut sender, 1, number, 1);
        assert!(sender.send_window(WindowNumber(1), usize::MAX));
        aggregator.listen();
        assert_eq!(aggregator.conversations, usize::from(number) + 1);
    }
    send(&mut sender, 2, 1, 1);
    assert!(sender.send_window(WindowNumber(2), usize::MAX));
    aggregator.listen();
    assert_eq!(aggregator.conversations, 4, "it is still in the ring");
    aggregator.collect();
    assert_eq!(aggregator.conversations, 5);
}
