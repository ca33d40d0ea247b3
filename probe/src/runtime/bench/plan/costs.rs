//! What a packet costs here, from a measurement or from a report of one.
//!
//! In: a capture, a report, or neither. Out: [`Costs`].
//! Cost: a measurement with poll gaps and spreading; without a capture one is generated first, in a
//! folder of its own that is removed again.
//! Invariants: a report is read within [`REPORT_BYTES_MAX`]; it must be of one worker, because the
//! model adds what several do to each other.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::costs::AggregatorCost;
use super::super::spread::{SpreadCost, SpreadFrom};
use super::super::{BenchOptions, bench, ratio};
use super::{PlanError, PlanOptions};
use crate::generate::{self, Options, Scenario, generate};

/// Bytes of a report at most.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// What is generated: benign traffic of a small cloud at one of its taps.
const GENERATED_SEED: u64 = 1;
const GENERATED: Options = Options { scale: 2.0, duration_s: Some(20), vms_per_tenant: None };
const GENERATED_TAP: &str = "tap-a.pcap";

/// A poll gap above is no measurement but a machine that stood still.
const GAP_US_MAX: f64 = 1e7;

/// Where the costs come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// This capture, measured now.
    Capture(PathBuf),
    /// This report.
    Report(PathBuf),
    /// Generated traffic, measured now.
    Generated,
}

/// What was measured, of one worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// Where from.
    pub origin: Origin,
    /// Packets measured.
    pub packets: u64,
    /// Flows in them.
    pub flows: u64,
    /// CPU time a packet in nanoseconds.
    pub ns_per_packet: f64,
    /// Bytes of memory a flow.
    pub bytes_per_flow: u64,
    /// What a receive ring must last for 99.99 % of the time, in microseconds.
    pub poll_gap_p9999_us: Option<f64>,
    /// What spreading by software adds to a packet that is passed on, in nanoseconds.
    pub spread_ns_per_passed_packet: Option<f64>,
    /// CPU time of the aggregation thread a row or flow record, in nanoseconds.
    pub aggregator_ns_per_row: Option<f64>,
}

impl Costs {
    /// What the measured flows touch.
    pub(super) fn flow_table_bytes(&self) -> u64 {
        self.flows.saturating_mul(self.bytes_per_flow)
    }
}

/// The part of a bench report that is read.
#[derive(Deserialize)]
struct Measured {
    packets: u64,
    flows: u64,
    workers: u16,
    ns_per_packet: f64,
    bytes_per_flow: u64,
    poll_gap_us: Option<MeasuredGaps>,
    spread: Option<SpreadCost>,
    aggregator: Option<AggregatorCost>,
}

/// Of all turns: the rest of a [`super::super::gaps::GapTable`] is not read.
#[derive(Deserialize)]
struct MeasuredGaps {
    p9999: f64,
}

/// From whichever the options name.
pub(super) fn gather(options: &PlanOptions, bench: &BenchOptions) -> Result<Costs, PlanError> {
    if let Some(file) = &options.measured {
        return read(file);
    }
    if bench.file.as_os_str().is_empty() {
        let folder = std::env::temp_dir().join(format!("vmprobe-plan-{}", std::process::id()));
        let made = generate(Scenario::Benign, GENERATED_SEED, &folder, GENERATED);
        let costs = made.map_err(PlanError::from).and_then(|_: generate::Summary| {
            measure(&folder.join(GENERATED_TAP), bench, Origin::Generated)
        });
        // What cannot be removed is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&folder);
        return costs;
    }
    measure(&bench.file, bench, Origin::Capture(bench.file.clone()))
}

fn measure(file: &Path, options: &BenchOptions, origin: Origin) -> Result<Costs, PlanError> {
    let options = BenchOptions {
        file: file.to_owned(),
        workers: 1,
        poll_gaps: true,
        spread: Some(SpreadFrom::One),
        ..options.clone()
    };
    let report = bench(&options)?;
    let measured = Measured {
        packets: report.packets,
        flows: report.flows,
        workers: report.workers,
        ns_per_packet: report.ns_per_packet,
        bytes_per_flow: report.bytes_per_flow as u64,
        poll_gap_us: report.poll_gap_us.map(|gaps| MeasuredGaps { p9999: gaps.all.p9999 }),
        spread: report.spread,
        aggregator: Some(report.aggregator),
    };
    let why = |why| PlanError::NotAReport { file: file.to_owned(), why };
    costs_of(&measured, origin).map_err(why)
}

fn read(file: &Path) -> Result<Costs, PlanError> {
    let failed = |error| PlanError::Read { file: file.to_owned(), error };
    let why = |why| PlanError::NotAReport { file: file.to_owned(), why };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(REPORT_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > REPORT_BYTES_MAX {
        return Err(why(format!("a report is at most {REPORT_BYTES_MAX} bytes long")));
    }
    let measured: Measured = serde_json::from_str(&text)
        .map_err(|error| why(format!("not a report of `bench --json`: {error}")))?;
    costs_of(&measured, Origin::Report(file.to_owned())).map_err(why)
}

/// Checks, because a report may have been written by hand.
fn costs_of(measured: &Measured, origin: Origin) -> Result<Costs, String> {
    if measured.workers != 1 {
        return Err(format!("a report of one worker is needed, this is of {}", measured.workers));
    }
    if measured.packets == 0 || measured.flows == 0 || measured.bytes_per_flow == 0 {
        return Err("there are no packets or no flows in it".to_owned());
    }
    if !(0.1..=1e9).contains(&measured.ns_per_packet) {
        return Err(format!("{} ns a packet make no sense", measured.ns_per_packet));
    }
    let gap_us = measured.poll_gap_us.as_ref().map(|gaps| gaps.p9999);
    if let Some(gap_us) = gap_us.filter(|gap_us| !(0.0..=GAP_US_MAX).contains(gap_us)) {
        return Err(format!("a poll gap of {gap_us} µs makes no sense"));
    }
    let spread = measured.spread.filter(|spread| spread.passed_packets > 0);
    Ok(Costs {
        origin,
        packets: measured.packets,
        flows: measured.flows,
        ns_per_packet: measured.ns_per_packet,
        bytes_per_flow: measured.bytes_per_flow,
        poll_gap_p9999_us: gap_us,
        spread_ns_per_passed_packet: spread.and_then(per_passed),
        aggregator_ns_per_row: measured.aggregator.and_then(|cost| {
            let rows = cost.rows.saturating_add(cost.records);
            (rows > 0).then(|| ratio(cost.cpu_ns, rows))
        }),
    })
}

/// What is added to each packet is that of the share that is passed on; noise may make it negative,
/// and then it is none.
fn per_passed(spread: SpreadCost) -> Option<f64> {
    let workers = f64::from(spread.workers);
    let share = match spread.from {
        SpreadFrom::One => (workers - 1.0) / workers,
        SpreadFrom::Each => 1.0,
    };
    let added_ns = spread.added_ns_per_packet.max(0.0) / share;
    added_ns.is_finite().then_some(added_ns)
}

#[cfg(test)]
mod tests {
    use super::super::super::gaps::{GapTable, Gaps};
    use super::*;

    fn costs(text: &str) -> Result<Costs, String> {
        let measured = serde_json::from_str(text).map_err(|error| error.to_string())?;
        costs_of(&measured, Origin::Generated)
    }

    #[test]
    fn reports_are_read_with_and_without_what_is_optional() {
        let short =
            r#"{"packets":10,"flows":2,"workers":1,"ns_per_packet":200.5,"bytes_per_flow":192}"#;
        let found = costs(short).expect("enough");
        assert_eq!((found.flow_table_bytes(), found.poll_gap_p9999_us), (384, None));
        // As it is written.
        let all = Gaps { turns: 9, p50: 1.0, p99: 2.0, p9999: 80.5, max: 90.0 };
        let gaps =
            GapTable { all, causes: Vec::new(), machine: Some(all), machine_beside_another: None };
        let gaps = serde_json::to_string(&gaps).expect("numbers");
        let long = short.replace("\"flows\"", &format!(r#""poll_gap_us":{gaps},"flows""#));
        let long = long.replacen(
            "\"flows\"",
            r#""aggregator":{"rows":3,"records":1,"cpu_ns":400},
               "spread":{"from":"one","workers":2,"passed_packets":5,"alone_ns_per_packet":200,
                 "together_ns_per_packet":210,"added_ns_per_packet":10,
                 "sending_ns_per_packet":4,"taking_ns_per_packet":4},"flows""#,
            1,
        );
        let found = costs(&long).expect("all");
        assert_eq!(found.poll_gap_p9999_us, Some(80.5));
        assert_eq!(found.aggregator_ns_per_row, Some(100.0));
        assert_eq!(found.spread_ns_per_passed_packet, Some(20.0));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (workers, packets, ns, why) in [
            (2, 10, 200.0, "one worker"),
            (1, 0, 200.0, "no packets"),
            (1, 10, 0.0, "no sense"),
            (1, 10, -5.0, "no sense"),
            (1, 10, 1e300, "no sense"),
        ] {
            let text = format!(
                r#"{{"packets":{packets},"flows":2,"workers":{workers},"ns_per_packet":{ns},"bytes_per_flow":192}}"#
            );
            assert!(costs(&text).is_err_and(|found| found.contains(why)), "{text}");
        }
    }
}
