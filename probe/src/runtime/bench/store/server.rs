//! The same records on a server, asked the same.
//!
//! In: a sink to a ClickHouse whose tables are there. Out: [`ServerReport`].
//! Cost: the records are made anew, second by second, and go through the sink that `run` has.

use serde::Serialize;

use super::super::day::{BEGIN_S, Day};
use super::questions::{self, Asked};
use super::{HOUR_S, PROBE, StoreOptions, first_flow, float};
use crate::config::{SinkKind, SinkPlan};
use crate::export::{Sinks, SinksWanted};
use crate::record::Origin;
use crate::store::query::Records;
use crate::time::{Timestamp, monotonic_ns, sleep_ms};

/// So long nothing may be delivered before it is given up, in ns.
const SILENCE_NS_MAX: u64 = 120_000_000_000;
/// How often it is looked whether all is delivered, in milliseconds.
const LOOK_MS: u64 = 20;

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerReport {
    /// Records of all tables that were delivered to it; 0 where it had them before.
    pub delivered: u64,
    /// Wall time until it had them.
    pub delivery_s: f64,
    /// Each question.
    pub questions: Vec<Asked>,
}

pub(super) fn measure(options: &StoreOptions, plan: &SinkPlan) -> Result<ServerReport, String> {
    let SinkKind::Clickhouse(server) = &plan.kind else { return Err("no ClickHouse".to_owned()) };
    let begun_ns = monotonic_ns();
    let delivered = if options.written { 0 } else { deliver(options, plan)? };
    let delivery_s = float(monotonic_ns() - begun_ns) / 1e9;
    let records = Records::Clickhouse(Box::new(server.clone()));
    let flow_id = first_flow(options);
    let questions = questions::ask(&records, flow_id, options.server_process, options.times)?;
    Ok(ServerReport { delivered, delivery_s, questions })
}

fn deliver(options: &StoreOptions, plan: &SinkPlan) -> Result<u64, String> {
    let origin = Origin::new(PROBE, "default");
    let plans = std::slice::from_ref(plan);
    let sinks = Sinks::start(plans, origin, true, SinksWanted::default());
    let mut sinks = sinks.map_err(|error| format!("no thread for the sink: {error}"))?;
    let mut day = Day::new(options.vms);
    for second in 0..u64::from(options.hours) * HOUR_S {
        let start = Timestamp::from_parts(BEGIN_S + second, 0);
        let rows = day.second(start, options.conversations);
        sinks.send(&rows, start, monotonic_ns() + SILENCE_NS_MAX);
    }
    let delivered = |sinks: &Sinks| sinks.reports().iter().map(|it| it.ledger.delivered).sum();
    let (mut last, mut moved_ns): (u64, u64) = (delivered(&sinks), monotonic_ns());
    while !sinks.is_settled() && monotonic_ns() - moved_ns < SILENCE_NS_MAX {
        sleep_ms(LOOK_MS);
        let now = delivered(&sinks);
        if now != last {
            (last, moved_ns) = (now, monotonic_ns());
        }
    }
    let reports = sinks.finish();
    let report = reports.first().ok_or("no sink")?;
    if report.ledger.delivered == report.ledger.made {
        Ok(report.ledger.delivered)
    } else {
        Err(format!("records were not delivered: {report:?}"))
    }
}
