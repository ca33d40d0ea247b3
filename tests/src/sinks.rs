//! What tests of sinks have in common.

use std::path::Path;

use vmprobe::config::{self, Mode, SinkPlan};
use vmprobe::export::{SinkHealth, SinkReport, Sinks};

use crate::end_to_end::until;

/// How long something may take that comes by itself.
pub const SOON_S: u64 = 60;

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

/// Waits until the only sink fails with these words.
pub fn failing(sinks: &Sinks, words: &str) {
    let what = || match only(sinks.reports()).health {
        SinkHealth::Failing { what, .. } if what.contains(words) => Some(()),
        _ => None,
    };
    let failing = until(SOON_S, what);
    assert!(failing.is_some(), "never {words:?}: {:?}", sinks.reports());
}
