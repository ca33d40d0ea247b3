//! What tests of sinks have in common.

use std::path::Path;

use serde_json::Value as Json;
use vmprobe::config::{self, Mode, SinkPlan};
use vmprobe::export::{SinkHealth, SinkReport, Sinks, SinksWanted};
use vmprobe::record::{AlertRecord, Origin, Rows};
use vmprobe::time::Timestamp;

use crate::end_to_end::until;

/// How long something may take that comes by itself.
pub const SOON_S: u64 = 60;

/// The packets' clock of tests that need none that goes.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// Who sends.
pub fn origin() -> Origin {
    Origin::new("p1", "east")
}

/// A sink that runs.
pub fn start(plan: &SinkPlan) -> Sinks {
    Sinks::start(std::slice::from_ref(plan), origin(), false, SinksWanted::default())
        .expect("threads")
}

/// `count` alerts with numbers from `first` on, and a title that goes wrong first.
pub fn alerts(first: u64, count: u64) -> Rows {
    let alert = |number: u64| AlertRecord {
        alert_id: format!("a{number}").into(),
        event_count: number,
        severity: "high",
        title: "Ω \"quoted\" | = \\ \n end".into(),
        source_address: Some("2001:db8::1".parse().expect("an address")),
        last_seen_ns: NOW.as_ns(),
        ..AlertRecord::default()
    };
    Rows { alerts: (first..first + count).map(alert).collect(), ..Rows::default() }
}

/// The numbers of such alerts, sorted.
pub fn numbers(records: &[Json]) -> Vec<u64> {
    let numbers: Vec<_> =
        records.iter().map(|it| it["event_count"].as_u64().expect("a number")).collect();
    sorted(&numbers)
}

/// The sink of a configuration that has one.
pub fn plan_of(text: &str) -> SinkPlan {
    let loaded = config::parse(text, "test.toml", Path::new("/"), Mode::Replay);
    loaded.unwrap_or_else(|problems| panic!("{problems}")).plan.sinks.remove(0)
}

/// The report of the only sink, of which each record is accounted for.
pub fn only(mut reports: Vec<SinkReport>) -> SinkReport {
    assert_eq!(reports.len(), 1);
    let report = reports.remove(0);
    assert_eq!(report.ledger.unaccounted(), 0, "{report:?}");
    report
}

/// Waits until the only sink has delivered so many.
pub fn all_delivered(sinks: &Sinks, records: u64) {
    let done = || (only(sinks.reports()).ledger.delivered == records).then_some(());
    assert!(until(SOON_S, done).is_some(), "{:?}", sinks.reports());
}

/// Waits until the only sink has delivered so many or more.
pub fn some_delivered(sinks: &Sinks, records: u64) {
    let some = || (only(sinks.reports()).ledger.delivered >= records).then_some(());
    assert!(until(SOON_S, some).is_some(), "{:?}", sinks.reports());
}

/// Waits until the only sink fails with these words.
pub fn failing(sinks: &Sinks, words: &str) {
    let what = || match only(sinks.reports()).health {
        SinkHealth::Failing { what, .. } if what.contains(words) => Some(()),
        _ => None,
    };
    let failing = until(SOON_S, what);
    assert!(failing.is_some(), "never {words:?}: {:?}", sinks.reports());
}

/// What a kill did to records on a way without acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toll {
    /// Records that neither life of the receiver has read.
    pub lost: u64,
    /// Records that both have read.
    pub doubled: u64,
}

/// Holds what the two lives of a receiver have read against the most that TCP and UDP without an
/// acknowledgement can give. Records have the numbers from 0 to `sent`, in batches of `batch` each; the first
/// `killed` of them had been handed over when the first life was over, and nothing after that may be lost.
///
/// Each life has read a run of numbers without a hole, none twice; the second one from the beginning of a
/// batch to the end, so that what was not read lies in one piece before the kill; and not more than the batch
/// that was under way is in both.
pub fn one_kill(first: &[u64], second: &[u64], [killed, sent]: [u64; 2], batch: u64) -> Toll {
    let count = |of: &[u64]| u64::try_from(of.len()).expect("few");
    let end = count(first);
    assert!(sorted(first).into_iter().eq(0..end), "a hole before the kill, or twice: {first:?}");
    assert!(!second.is_empty() && count(second) <= sent, "{} of {sent}", second.len());
    let begin = sent - count(second);
    let rest = sorted(second).into_iter().eq(begin..sent);
    assert!(rest, "a hole after the kill, or twice: {second:?}");
    assert!(begin <= killed, "{begin} is the first one of after the kill at {killed}");
    assert_eq!(begin % batch, 0, "a batch comes again whole");
    let toll = Toll { lost: begin.saturating_sub(end), doubled: end.saturating_sub(begin) };
    assert!(toll.doubled <= batch, "{toll:?}");
    toll
}

fn sorted(numbers: &[u64]) -> Vec<u64> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(first: std::ops::Range<u64>, second: std::ops::Range<u64>) -> Toll {
        let of = |range: std::ops::Range<u64>| range.collect::<Vec<_>>();
        one_kill(&of(first), &of(second), [50, 100], 10)
    }

    #[test]
    fn what_lies_before_the_kill_may_be_lost_and_one_batch_doubled() {
        assert_eq!(kill(0..40, 40..100), Toll { lost: 0, doubled: 0 });
        assert_eq!(kill(0..31, 50..100), Toll { lost: 19, doubled: 0 });
        assert_eq!(kill(0..47, 40..100), Toll { lost: 0, doubled: 7 });
    }

    #[test]
    #[should_panic(expected = "the first one of after the kill")]
    fn nothing_is_lost_after_the_kill() {
        kill(0..40, 60..100);
    }

    #[test]
    #[should_panic(expected = "a hole before")]
    fn nothing_is_missing_in_between() {
        one_kill(&[0, 2], &[10], [10, 11], 10);
    }

    #[test]
    #[should_panic(expected = "doubled: 20")]
    fn no_two_batches_are_doubled() {
        kill(0..50, 30..100);
    }
}
