//! `vmprobe bench --beside-query`.

use std::path::{Path, PathBuf};

use clap::Args;
use vmprobe::runtime::bench::{
    BesideQueryOptions, BesideQueryReport, Features, Gaps, bench_beside_query,
};
use vmprobe::store::holds_records;

use super::super::output::{self, Outcome};
use super::told;

/// Live flows of the worker, where nothing is said.
const FLOWS: u32 = 1_000_000;

#[derive(Args)]
pub(crate) struct BesideQueryArguments {
    /// Measure how long a worker with so many `--live-flows` (one number; 1,000,000 without) does not
    /// look at its source, alone and while the records in this folder are asked without a pause.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pcap", "aggregator", "inventory", "store"])]
    pub(super) beside_query: Option<PathBuf>,
}

/// Measures; `json`: as one JSON object.
pub(super) fn bench(folder: &Path, flows: &[u32], features: Features, json: bool) -> Outcome {
    if !holds_records(folder) {
        return output::failed(&format!(
            "{}: holds no records; `bench --store` makes some",
            folder.display()
        ));
    }
    let flows = flows.first().copied().unwrap_or(FLOWS);
    let options = BesideQueryOptions { folder: folder.to_owned(), flows, features };
    told(bench_beside_query(&options), json, print, |_| true)
}

fn print(report: &BesideQueryReport) {
    output::line(format_args!(
        "{} live flows on core {:?}; beside it {} queries of {:.1} s, and {} not ended, on {:?}; {} \
         runs of each\n\n\
         From one poll to the next (µs)\n{:>9}{:>9}{:>9}{:>9}{:>9}",
        report.flows,
        report.worker_cores,
        report.queries,
        report.query_s,
        report.queries_cut,
        report.query_cores,
        report.runs,
        "turns",
        "p50",
        "p99",
        "p99.99",
        "max"
    ));
    let line = |gaps: &Gaps, what: &str| {
        let Gaps { turns, p50, p99, p9999, max } = gaps;
        output::line(format_args!("{turns:>9}{p50:>9.1}{p99:>9.1}{p9999:>9.1}{max:>9.1}  {what}"));
    };
    line(&report.alone.wall, "alone, by the clock on the wall");
    line(&report.beside.wall, "beside queries, by the clock on the wall");
    line(&report.alone.cpu, "alone, CPU time");
    line(&report.beside.cpu, "beside queries, CPU time");
}
