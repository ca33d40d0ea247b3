//! Sinks whose destination does as it is told.

use std::collections::VecDeque;

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::config::{EvePlan, SyslogFormat, SyslogPlan};
use crate::record::{FlowRecord, LedgerRecord};
use crate::time::ms;

/// What the destination does with the next attempts; when none is left, it takes all.
#[derive(Clone, Copy)]
enum Does {
    Take,
    Fail,
    Refuse,
    Hang(u64),
    /// Takes it after so long.
    TakeSlowly(u64),
    /// Takes it, and says that it failed.
    TakeAndFail,
}

/// Token, records and octets.
type Attempt = (String, u64, Vec<u8>);

#[derive(Clone, Default)]
struct Destination {
    does: Arc<Mutex<VecDeque<Does>>>,
    always: Arc<Mutex<Option<Does>>>,
    /// Each attempt that arrived.
    arrived: Arc<Mutex<Vec<Attempt>>>,
}

impl Driver for Destination {
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Failure> {
        let next = self.does.lock().pop_front().or(*self.always.lock()).unwrap_or(Does::Take);
        let arrives = || {
            let attempt = (batch.token.clone(), batch.records, batch.bytes.clone());
            self.arrived.lock().push(attempt);
        };
        match next {
            Does::Take => arrives(),
            Does::TakeSlowly(for_ms) => {
                sleep_ms(for_ms);
                arrives();
            }
            Does::TakeAndFail => {
                arrives();
                return Err(Failure::again("no answer"));
            }
            Does::Fail => return Err(Failure::again("it is down")),
            Does::Refuse => return Err(Failure::refused("never")),
            Does::Hang(for_ms) => {
                sleep_ms(for_ms);
                return Err(Failure::again("timeout"));
            }
        }
        Ok(Delivered::default())
    }
}

fn plan(name: &str) -> SinkPlan {
    let eve = EvePlan { path: "x".into(), socket: false };
    let mut plan = SinkPlan::new(name.to_owned(), SinkKind::Eve(eve));
    plan.tables = vec!["ledger".to_owned()];
    (plan.batch_records, plan.batch_ms, plan.retry_max_ms) = (10, 20, 100);
    plan
}

fn handle(plan: SinkPlan, waits: bool, to: &Destination) -> Handle {
    let make_driver = {
        let to = to.clone();
        Box::new(move |_: &SinkPlan| -> Box<dyn Driver> { Box::new(to.clone()) })
    };
    let make_encoder =
        Box::new(|_: &SinkPlan| -> Box<dyn Encoder> { Box::new(crate::export::json::Lines) });
    Handle::with(plan, Origin::new("p", "d"), waits, make_encoder, make_driver).expect("threads")
}

/// Rows of the only table of [`plan`].
fn rows(count: usize) -> [Arc<Rows>; 1] {
    [Arc::new(Rows { ledger: vec![LedgerRecord::default(); count], ..Rows::default() })]
}

fn sums(report: &SinkReport) -> (u64, u64, u64, u64) {
    let ledger = &report.ledger;
    assert_eq!(ledger.unaccounted(), 0, "{ledger:?}");
    (ledger.made, ledger.delivered, ledger.queued, ledger.dropped_sum())
}

/// Patience, also for disks.
fn until(what: impl Fn() -> bool) {
    let end_ns = monotonic_ns() + ms(60_000);
    while !what() {
        assert!(monotonic_ns() < end_ns, "it never happens");
        sleep_ms(2);
    }
}

#[test]
fn all_that_is_sent_arrives_in_batches() {
    let to = Destination::default();
    let mut sink = handle(plan("a"), false, &to);
    for _ in 0..5 {
        sink.send(&rows(5), Timestamp::ZERO, 0);
    }
    until(|| sink.report().ledger.delivered == 25);
    assert_eq!(sums(&sink.join()), (25, 25, 0, 0));
    let arrived = to.arrived.lock();
    assert!(arrived.iter().all(|(_, records, _)| *records <= 10));
    let lines = arrived.iter().map(|(_, _, bytes)| bytes.split(|it| *it == b'\n').count() - 1);
    assert_eq!(lines.sum::<usize>(), 25);
    let tokens: std::collections::BTreeSet<_> = arrived.iter().map(|(token, ..)| token).collect();
    assert_eq!(tokens.len(), arrived.len());
}

#[test]
fn a_failed_batch_comes_again_as_it_was_and_before_all_others() {
    let to = Destination::default();
    *to.always.lock() = Some(Does::Fail);
    let mut sink = handle(plan("a"), false, &to);
    sink.send(&rows(20), Timestamp::ZERO, 0);
    until(|| matches!(sink.report().health, SinkHealth::Failing { .. }));
    to.does.lock().extend([Does::TakeAndFail, Does::Fail]);
    *to.always.lock() = None;
    until(|| sink.report().ledger.delivered == 20);
    assert_eq!(sink.report().health, SinkHealth::Ok);
    assert_eq!(sums(&sink.join()), (20, 20, 0, 0));
    let arrived = to.arrived.lock();
    assert_eq!(arrived.len(), 3);
    assert_eq!(arrived[0], arrived[1], "the same token, the same octets");
    assert_ne!(arrived[1].0, arrived[2].0);
}

#[test]
fn what_is_refused_is_counted_and_holds_up_nothing() {
    let to = Destination::default();
    to.does.lock().push_back(Does::Refuse);
    let mut sink = handle(plan("a"), false, &to);
    sink.send(&rows(20), Timestamp::ZERO, 0);
    until(|| sink.report().ledger.queued == 0 && sink.report().ledger.made == 20);
    let report = sink.join();
    assert_eq!(sums(&report), (20, 10, 0, 10));
    assert_eq!(report.ledger.dropped(SinkCause::Refused), 10);
}

#[test]
fn a_sink_that_refuses_one_batch_after_another_is_failing() {
    let to = Destination::default();
    *to.always.lock() = Some(Does::Refuse);
    let mut sink = handle(plan("a"), false, &to);
    sink.send(&rows(20), Timestamp::ZERO, 0);
    until(|| sink.report().ledger.dropped(SinkCause::Refused) == 20);
    assert_eq!(sink.report().health, SinkHealth::Ok, "two may be wrong by themselves");
    sink.send(&rows(40), Timestamp::ZERO, 0);
    until(|| sink.report().ledger.dropped(SinkCause::Refused) == 60);
    let SinkHealth::Failing { what, .. } = sink.report().health else { panic!("all are") };
    assert_eq!(what, "every batch is refused: never");
    *to.always.lock() = None;
    sink.send(&rows(10), Timestamp::ZERO, 0);
    until(|| sink.report().ledger.delivered == 10);
    assert_eq!((sink.report().health, sums(&sink.join())), (SinkHealth::Ok, (70, 10, 0, 60)));
}

#[test]
fn a_sink_that_hangs_slows_neither_the_caller_nor_another_sink() {
    let (hangs, works) = (Destination::default(), Destination::default());
    *hangs.always.lock() = Some(Does::Hang(60_000));
    let mut sinks = Sinks::none();
    sinks.running = vec![handle(plan("hangs"), false, &hangs), handle(plan("b"), false, &works)];
    let begun_ns = monotonic_ns();
    for _ in 0..500 {
        sinks.send(&rows(20)[0], Timestamp::ZERO, 0);
        // As windows come, not all at once.
        sleep_ms(1);
    }
    assert!(monotonic_ns() - begun_ns < ms(5_000));
    until(|| sinks.reports()[1].ledger.delivered == 10_000);
    until(|| sinks.reports()[0].ledger.made == 10_000);
    let [hanging, working] = &sinks.reports()[..] else { panic!("two") };
    assert_eq!((sums(hanging).1, sums(working).3), (0, 0));
    let ended_ns = monotonic_ns();
    let reports = sinks.finish();
    assert!(monotonic_ns() - ended_ns < ms(8_000), "the end is bounded");
    assert_eq!(reports[0].ledger.dropped(SinkCause::UndeliveredAtEnd), 10_000);
}

#[test]
fn who_waits_until_all_is_out_is_held_up_by_no_sink() {
    let folder = std::env::temp_dir().join(format!("vmprobe-settles-{}", std::process::id()));
    let to = [Does::Fail, Does::Hang(60_000), Does::Take].map(|does| {
        let to = Destination::default();
        *to.always.lock() = Some(does);
        to
    });
    let with = |mut plan: SinkPlan| {
        // Longer than anybody waits.
        (plan.batch_ms, plan.queue_mib) = (600_000, 64);
        plan
    };
    let mut sinks = Sinks::none();
    sinks.running = vec![
        handle(with(plan("down")), true, &to[0]),
        handle(with(spooling(&folder)), true, &to[1]),
        handle(with(plan("works")), true, &to[2]),
    ];
    let begun_ns = monotonic_ns();
    for window in 1..=50 {
        sinks.send(&rows(3)[0], Timestamp::ZERO, u64::MAX);
        while !sinks.settle() {
            assert!(
                monotonic_ns() - begun_ns < ms(4_500),
                "window {window}: {:?}",
                sinks.reports()
            );
            sleep_ms(1);
        }
        let given_up = sinks.running.iter().map(|sink| sink.settling.is_behind);
        assert_eq!(given_up.collect::<Vec<_>>(), [true, false, false], "window {window}");
        let [down, hangs, works] = &sinks.reports()[..] else { panic!("three") };
        assert_eq!(works.ledger.delivered, window * 3);
        // Had it been killed, this would be there for the next run.
        assert_eq!(hangs.ledger.spooled, window * 3);
        assert_eq!(sums(down).1 + sums(down).3, 0);
    }
    // It has all as soon as it is back.
    *to[0].always.lock() = None;
    until(|| sinks.reports()[0].ledger.delivered == 150);
    assert!(sinks.settle());
    assert_eq!(sinks.finish()[1].ledger.spooled, 150);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_sink_that_hangs_and_has_no_spool_is_waited_for_once() {
    let to = Destination::default();
    *to.always.lock() = Some(Does::Hang(60_000));
    let mut sinks = Sinks::none();
    sinks.running = vec![handle(plan("hangs"), true, &to)];
    let begun_ns = monotonic_ns();
    for _ in 0..20 {
        sinks.send(&rows(3)[0], Timestamp::ZERO, u64::MAX);
        while !sinks.settle() {
            sleep_ms(5);
        }
    }
    let waited_ns = monotonic_ns() - begun_ns;
    assert!((SETTLE_NS..SETTLE_NS + ms(3_000)).contains(&waited_ns), "{waited_ns}");
    assert_eq!(sums(&sinks.reports()[0]).1, 0);
    drop(sinks);
}

#[test]
fn who_waits_until_all_is_out_waits_for_no_room_that_a_spool_has() {
    let folder = std::env::temp_dir().join(format!("vmprobe-room-{}", std::process::id()));
    let to = Destination::default();
    *to.always.lock() = Some(Does::Hang(60_000));
    let mut plan = spooling(&folder);
    plan.spool_mib = 1_000;
    let mut sinks = Sinks::none();
    sinks.running = vec![handle(plan, true, &to)];
    for window in 1..=20 {
        until(|| sinks.has_room());
        sinks.send(&rows(1_000)[0], Timestamp::ZERO, u64::MAX);
        until(|| sinks.reports()[0].ledger.made == window * 1_000);
        let end_ns = monotonic_ns() + ms(10_000);
        while !sinks.settle() {
            assert!(monotonic_ns() < end_ns, "{:?}", sinks.reports());
            sleep_ms(1);
        }
    }
    let ledger = sinks.reports()[0].ledger;
    assert_eq!((ledger.queued, ledger.spooled, ledger.dropped_sum()), (20_000, 20_000, 0));
    drop(sinks);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_full_queue_drops_and_counts_while_it_is_down() {
    let to = Destination::default();
    *to.always.lock() = Some(Does::Fail);
    let mut plan = plan("a");
    (plan.queue_mib, plan.batch_records) = (1, 1_000);
    let mut sink = handle(plan, false, &to);
    for _ in 0..40 {
        sink.send(&rows(1_000), Timestamp::ZERO, u64::MAX);
    }
    until(|| sink.report().ledger.made == 40_000);
    let ledger = sink.report().ledger;
    assert!(ledger.dropped(SinkCause::QueueFull) > 0, "{ledger:?}");
    assert!(ledger.queued > 3_000, "a MiB is used: {ledger:?}");
    *to.always.lock() = None;
    until(|| sink.report().ledger.queued == 0);
    let report = sink.join();
    assert_eq!(report.ledger.delivered + report.ledger.dropped_sum(), 40_000);
}

#[test]
fn who_may_wait_loses_nothing_to_a_slow_destination() {
    let to = Destination::default();
    to.does.lock().extend([Does::Take; 3]);
    let mut plan = plan("a");
    (plan.queue_mib, plan.batch_records) = (1, 1_000);
    let mut sink = handle(plan, true, &to);
    for _ in 0..60 {
        sink.send(&rows(1_000), Timestamp::ZERO, u64::MAX);
    }
    assert_eq!(sums(&sink.join()), (60_000, 60_000, 0, 0));
}

#[test]
fn who_may_wait_loses_nothing_of_rows_that_are_more_than_the_queue() {
    let to = Destination::default();
    let mut plan = plan("a");
    (plan.queue_mib, plan.batch_records) = (1, 1_000);
    let mut sink = handle(plan.clone(), true, &to);
    for _ in 0..3 {
        sink.send(&rows(60_000), Timestamp::ZERO, u64::MAX);
    }
    assert_eq!(sums(&sink.join()), (180_000, 180_000, 0, 0));
    // Longer than the end of a run lasts otherwise.
    *to.always.lock() = Some(Does::TakeSlowly(900));
    let mut sink = handle(plan.clone(), true, &to);
    sink.send(&rows(7_000), Timestamp::ZERO, u64::MAX);
    assert_eq!(sums(&sink.join()), (7_000, 7_000, 0, 0));
    *to.always.lock() = None;
    // Who may not wait has the queue and no more.
    let mut sink = handle(plan, false, &to);
    sink.send(&rows(60_000), Timestamp::ZERO, u64::MAX);
    let (made, _, _, dropped) = sums(&sink.join());
    assert!(made == 60_000 && dropped > 0, "{dropped}");
}

#[test]
fn the_spool_outlives_a_run() {
    let folder = std::env::temp_dir().join(format!("vmprobe-sinks-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let to = Destination::default();
    *to.always.lock() = Some(Does::Fail);
    let mut plan = plan("a");
    (plan.queue_mib, plan.batch_records) = (1, 1_000);
    plan.spool_folder = Some(folder.clone());
    let mut sink = handle(plan.clone(), false, &to);
    for _ in 0..40 {
        sink.send(&rows(1_000), Timestamp::ZERO, u64::MAX);
    }
    let report = sink.join();
    assert_eq!(sums(&report), (40_000, 0, 40_000, 0));
    assert_eq!(report.ledger.spooled, 40_000, "all that is left is on disk");
    *to.always.lock() = None;
    let sink = handle(plan, false, &to);
    until(|| sink.report().ledger.delivered == 40_000);
    assert_eq!(sums(&sink.join()), (40_000, 40_000, 0, 0));
    let tokens: std::collections::BTreeSet<_> =
        to.arrived.lock().iter().map(|(token, ..)| token.clone()).collect();
    assert_eq!(tokens.len(), 40);
    let _ = std::fs::remove_dir_all(folder);
}

/// A plan with a spool and little memory.
fn spooling(folder: &std::path::Path) -> SinkPlan {
    let _ = std::fs::remove_dir_all(folder);
    let mut plan = plan("a");
    (plan.queue_mib, plan.batch_records) = (1, 1_000);
    plan.spool_folder = Some(folder.to_owned());
    plan
}

#[test]
fn a_sink_that_is_put_back_gets_the_spool_when_the_one_before_has_left_it() {
    let folder = std::env::temp_dir().join(format!("vmprobe-left-{}", std::process::id()));
    let plan = spooling(&folder);
    let (dead, works) = (Destination::default(), Destination::default());
    *dead.always.lock() = Some(Does::Fail);
    let mut before = handle(plan.clone(), false, &dead);
    for _ in 0..40 {
        before.send(&rows(1_000), Timestamp::ZERO, u64::MAX);
    }
    until(|| before.report().ledger.made == 40_000);
    let mut after = handle(plan, false, &works);
    after.send(&rows(5), Timestamp::ZERO, 0);
    until(|| after.report().ledger.delivered == 5);
    assert_eq!(sums(&before.join()), (40_000, 0, 40_000, 0));
    until(|| after.report().ledger.delivered == 40_005);
    assert_eq!(sums(&after.join()), (40_005, 40_005, 0, 0));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn another_size_of_the_spool_is_taken_while_it_is_used() {
    let folder = std::env::temp_dir().join(format!("vmprobe-size-{}", std::process::id()));
    let mut plan = spooling(&folder);
    plan.spool_mib = 1;
    let to = Destination::default();
    *to.always.lock() = Some(Does::Fail);
    let mut sink = handle(plan.clone(), false, &to);
    let fill = |sink: &mut Handle| {
        for _ in 0..40 {
            sink.send(&rows(1_000), Timestamp::ZERO, u64::MAX);
        }
    };
    fill(&mut sink);
    until(|| sink.report().ledger.made == 40_000);
    let lost = sink.report().ledger.dropped(SinkCause::SpoolFull);
    assert!(lost > 0);
    plan.spool_mib = 100;
    assert!(sink.set(&plan));
    fill(&mut sink);
    until(|| sink.report().ledger.made == 80_000);
    assert_eq!(sink.report().ledger.dropped(SinkCause::SpoolFull), lost);
    sink.join();
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn what_the_disk_does_not_give_is_delivered_when_it_does() {
    let folder = std::env::temp_dir().join(format!("vmprobe-unread-{}", std::process::id()));
    let plan = spooling(&folder);
    let to = Destination::default();
    *to.always.lock() = Some(Does::Fail);
    let mut sink = handle(plan, false, &to);
    for _ in 0..40 {
        sink.send(&rows(1_000), Timestamp::ZERO, u64::MAX);
    }
    until(|| sink.report().ledger.made == 40_000);
    // In place of all that is not read back yet: folders, which cannot be read.
    let files = std::fs::read_dir(folder.join("a/eve")).expect("a folder");
    let files: Vec<_> = files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "batch"))
        .collect();
    // In one step, so that at no time it looks as if somebody had taken them away.
    let exchange = || {
        for path in &files {
            let away = path.with_extension("away");
            renameat_with(CWD, path, CWD, away, RenameFlags::EXCHANGE).expect("both are there");
        }
    };
    for path in &files {
        std::fs::create_dir(path.with_extension("away")).expect("room");
    }
    exchange();
    *to.always.lock() = None;
    let problem = || match sink.report().health {
        SinkHealth::Failing { what, .. } => what.contains("the spool"),
        SinkHealth::Ok => false,
    };
    until(problem);
    let ledger = sink.report().ledger;
    assert_eq!((ledger.dropped_sum(), ledger.queued), (0, 40_000 - ledger.delivered));
    exchange();
    until(|| sink.report().ledger.delivered == 40_000);
    assert_eq!(sink.report().health, SinkHealth::Ok);
    assert_eq!(sums(&sink.join()), (40_000, 40_000, 0, 0));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn what_a_sink_of_another_kind_has_left_waits_for_its_kind() {
    let folder = std::env::temp_dir().join(format!("vmprobe-kinds-{}", std::process::id()));
    let plan = spooling(&folder);
    let to = Destination::default();
    *to.always.lock() = Some(Does::Fail);
    let mut sink = handle(plan.clone(), false, &to);
    sink.send(&rows(3_000), Timestamp::ZERO, 0);
    assert_eq!(sink.join().ledger.spooled, 3_000);
    *to.always.lock() = None;
    let mut other = plan.clone();
    other.kind = SinkKind::Syslog(SyslogPlan {
        url: "tcp://127.0.0.1:1".parse().expect("a URL"),
        ca_file: "".into(),
        format: SyslogFormat::Json,
    });
    let mut sink = handle(other, false, &to);
    sink.send(&rows(7), Timestamp::ZERO, 0);
    until(|| sink.report().ledger.delivered == 7);
    assert_eq!(sums(&sink.join()), (7, 7, 0, 0));
    let sink = handle(plan, false, &to);
    until(|| sink.report().ledger.delivered == 3_000);
    assert_eq!(sums(&sink.join()), (3_000, 3_000, 0, 0));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_hand_off_without_room_is_counted() {
    let to = Destination::default();
    let mut sink = handle(plan("a"), false, &to);
    sink.waiting.store(RECORDS_MAX, Ordering::Relaxed);
    sink.send(&rows(7), Timestamp::ZERO, 0);
    sink.waiting.store(0, Ordering::Relaxed);
    let report = sink.join();
    assert_eq!((sums(&report), report.ledger.dropped(SinkCause::HandOffFull)), ((7, 0, 0, 7), 7));
}

#[test]
fn another_configuration_is_taken_while_records_come() {
    let to = Destination::default();
    let wanted = SinksWanted::default();
    let mut sinks = Sinks { wanted: Arc::clone(&wanted), ..Sinks::none() };
    sinks.running = vec![handle(plan("a"), false, &to), handle(plan("b"), false, &to)];
    sinks.send(&rows(5)[0], Timestamp::ZERO, 0);
    let mut changed = plan("a");
    changed.tables = vec!["flows".to_owned()];
    wanted.store(Some(Arc::new(vec![changed])));
    sinks.send(&rows(5)[0], Timestamp::ZERO, 0);
    until(|| sinks.reports().iter().all(|report| report.ledger.delivered == 5));
    assert_eq!((sinks.running.len(), sinks.retired.len()), (1, 1));
    assert_eq!(sinks.running[0].tables, [Table::Flows]);
    let reports = sinks.finish();
    assert_eq!(reports.iter().map(sums).collect::<Vec<_>>(), [(5, 5, 0, 0); 2]);
}

/// A keeper that stands still for a while, as one that waits for its disk.
#[test]
fn many_short_windows_wait_for_a_keeper_that_stands_still() {
    const WINDOWS: u64 = 1_000;
    let stands = Arc::new(Mutex::new(()));
    let make_encoder = {
        let stands = Arc::clone(&stands);
        Box::new(move |_: &SinkPlan| -> Box<dyn Encoder> { Box::new(Stands(Arc::clone(&stands))) })
    };
    let make_driver = |_: &SinkPlan| -> Box<dyn Driver> { Box::new(Destination::default()) };
    let origin = Origin::new("p", "d");
    let sink = Handle::with(plan("a"), origin, false, make_encoder, Box::new(make_driver));
    let mut sink = sink.expect("threads");
    let held = stands.lock();
    for _ in 0..WINDOWS {
        sink.send(&rows(2), Timestamp::ZERO, 0);
    }
    // What only another sink wants is not kept for it.
    let flows = vec![FlowRecord::default(); 3];
    let flows = Arc::new(Rows { flows, ..Rows::default() });
    sink.send(&[Arc::clone(&flows)], Timestamp::ZERO, 0);
    assert_eq!(Arc::strong_count(&flows), 1);
    drop(held);
    assert_eq!(sums(&sink.join()), (2 * WINDOWS, 2 * WINDOWS, 0, 0));
}

/// Encodes as soon as it may.
struct Stands(Arc<Mutex<()>>);

impl Encoder for Stands {
    fn row(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let _held = self.0.lock();
        crate::export::json::Lines.row(row, out);
    }
}

#[test]
fn whoever_takes_many_sinks_away_waits_for_none_and_forgets_none() {
    const SINKS: usize = 2 * RETIRED_MAX;
    let wanted = SinksWanted::default();
    let mut sinks = Sinks { wanted: Arc::clone(&wanted), ..Sinks::none() };
    let [hangs, works] = [(); 2].map(|()| Destination::default());
    *hangs.always.lock() = Some(Does::Hang(500));
    let mut sent = 0;
    let made = |sinks: &Sinks| sinks.reports().iter().map(|it| sums(it).0).sum::<u64>();
    let mut take_away = |sinks: &mut Sinks, to: &Destination| {
        sinks.running = (0..SINKS).map(|_| handle(plan("a"), false, to)).collect();
        sinks.send(&rows(3)[0], Timestamp::ZERO, 0);
        sent += 3 * count(SINKS);
        until(|| made(sinks) == sent);
        let begun_ns = monotonic_ns();
        wanted.store(Some(Arc::new(Vec::new())));
        sinks.send(&rows(3)[0], Timestamp::ZERO, 0);
        assert!(monotonic_ns() - begun_ns < ms(400), "{}", monotonic_ns() - begun_ns);
        assert_eq!(made(sinks), sent);
    };
    take_away(&mut sinks, &hangs);
    // None has ended.
    assert_eq!((sinks.retired.len(), sinks.ended.len()), (SINKS, 0));
    until(|| sinks.retired.iter().all(Handle::has_ended));
    take_away(&mut sinks, &works);
    assert!(sinks.retired.len() <= SINKS && sinks.ended.len() == 1);
    let reports = sinks.finish();
    assert!(reports.iter().all(|it| it.retired && it.name == "a"));
    let (mut all, mut lost) = (0, 0);
    for report in &reports {
        all += sums(report).0;
        lost += report.ledger.dropped(SinkCause::UndeliveredAtEnd);
    }
    assert_eq!((all, lost), (sent, sent / 2), "what those have lost that hang is told at the end");
}

#[test]
fn a_sink_that_is_taken_away_and_put_back_is_another_one() {
    let folder = std::env::temp_dir().join(format!("vmprobe-put-back-{}", std::process::id()));
    let wanted = SinksWanted::default();
    let mut sinks = Sinks { wanted: Arc::clone(&wanted), ..Sinks::none() };
    let to = Destination::default();
    *to.always.lock() = Some(Does::Hang(500));
    sinks.running = vec![handle(plan("a"), false, &to)];
    sinks.send(&rows(50)[0], Timestamp::ZERO, 0);
    until(|| sinks.reports()[0].ledger.made == 50);
    let mut back = plan("a");
    back.kind = SinkKind::Eve(EvePlan { path: folder.clone(), socket: false });
    for plans in [vec![], vec![back]] {
        wanted.store(Some(Arc::new(plans)));
        sinks.send(&rows(7)[0], Timestamp::ZERO, 0);
    }
    until(|| sinks.reports()[0].ledger.made == 7);
    let reports = sinks.reports();
    assert_eq!(reports.iter().map(|it| it.ledger.made).collect::<Vec<_>>(), [7, 50]);
    assert!(reports.iter().all(|it| it.name == "a"));
    assert_eq!(reports.iter().map(|it| it.retired).collect::<Vec<_>>(), [false, true]);
    let ended: Vec<_> = sinks.finish().iter().map(|it| (it.ledger.made, it.retired)).collect();
    assert_eq!(ended, [(7, false), (50, true)]);
    let _ = std::fs::remove_file(folder);
}

#[test]
fn the_configuration_knows_all_tables() {
    let names: Vec<_> = Table::ALL.iter().map(|table| table.name()).collect();
    assert_eq!(crate::config::schema::SINK_TABLES, names);
}
