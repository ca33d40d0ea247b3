//! `bench --store`: a day of a cloud's records, written and asked.
//!
//! In: how many VMs, conversations a second and hours; a folder. Out: [`StoreReport`]: what writing and
//! merging cost, how large the records are, how long each question takes.
//! Cost: the records are made here, second by second, with the rows that a window has; no packet.
//! Invariants: the same options give the same records. They are written by the sink that `run` has
//! and merged as in `run`; questions go to the query program as a user's do.

mod questions;
mod server;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::day::{BEGIN_S, Day};
use super::machine;
use crate::config::{SinkPlan, StorePlan};
use crate::export::ParquetSink;
use crate::record::{Rows, Table};
use crate::store::query::Records;
use crate::store::{Round, Tidied};
use crate::time::{Timestamp, monotonic_ns, thread_cpu_ns};

pub use questions::Asked;
pub use server::ServerReport;

/// Whose records they are.
const PROBE: &str = "bench";
const HOUR_S: u64 = 3_600;

/// What is measured.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where the records go; it must not hold any.
    pub folder: PathBuf,
    /// Virtual machines, ten to a tenant.
    pub vms: u32,
    /// Conversations in each window of a second.
    pub conversations: u32,
    /// How long.
    pub hours: u32,
    /// How often each question is asked; the median counts.
    pub times: u32,
    /// A ClickHouse that gets the same records and is asked the same, if there is one.
    pub server: Option<SinkPlan>,
    /// Its process, where that is on this machine and what it takes is to be told.
    pub server_process: Option<u32>,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreReport {
    /// Virtual machines.
    pub vms: u32,
    /// Hours.
    pub hours: u32,
    /// Rows of `windows`.
    pub conversations: u64,
    /// Rows of `flows`.
    pub flows: u64,
    /// Rows of all tables.
    pub records: u64,
    /// CPU time of making, encoding and writing, and of it the share of making alone.
    pub write_cpu_s: f64,
    /// See there.
    pub make_cpu_s: f64,
    /// Records a second of CPU time, without making them.
    pub records_per_second: f64,
    /// Before small files were merged.
    pub written: OnDisk,
    /// And after.
    pub merged: OnDisk,
    /// CPU time of merging.
    pub merge_cpu_s: f64,
    /// CPU time of adding hours up, a process each.
    pub roll_up_cpu_s: f64,
    /// Most memory of this process while it wrote and merged.
    pub peak_bytes: u64,
    /// Bytes of a million rows of `windows`, merged.
    pub bytes_per_million_conversations: f64,
    /// Each question on the merged files.
    pub questions: Vec<Asked>,
    /// The same of a server.
    pub server: Option<ServerReport>,
}

/// Files of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OnDisk {
    /// Of all tables.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Size of those of `windows`.
    pub windows_bytes: u64,
    /// Beside them: hours that stand added up.
    pub rolled_files: u64,
    /// See there.
    pub rolled_bytes: u64,
}

/// Measures.
///
/// # Errors
/// What went wrong, for people.
pub fn measure(options: &StoreOptions) -> Result<StoreReport, String> {
    let mut report =
        StoreReport { vms: options.vms, hours: options.hours, ..StoreReport::default() };
    write(options, &mut report)?;
    report.written = on_disk(&options.folder);
    let begun_ns = thread_cpu_ns();
    let children_ms = machine::cpu_ms_of_children();
    let tidied = merge(options);
    report.merge_cpu_s = seconds(thread_cpu_ns() - begun_ns);
    report.roll_up_cpu_s = (machine::cpu_ms_of_children() - children_ms) / 1e3;
    if let Some(problem) = tidied.problems.first() {
        return Err(problem.clone());
    }
    report.merged = on_disk(&options.folder);
    report.peak_bytes = machine::peak_bytes();
    report.bytes_per_million_conversations =
        float(report.merged.windows_bytes) * 1e6 / float(report.conversations.max(1));
    let files = Records::Folder(options.folder.clone());
    report.questions = questions::ask(&files, None, options.times)?;
    report.server =
        options.server.as_ref().map(|plan| server::measure(options, plan)).transpose()?;
    Ok(report)
}

fn write(options: &StoreOptions, report: &mut StoreReport) -> Result<(), String> {
    let plan = StorePlan {
        folder: Some(options.folder.clone()),
        free_mib_min: 16,
        ..StorePlan::default()
    };
    let mut sink = ParquetSink::new(&plan, PROBE, "default").ok_or("no folder")?;
    let mut day = Day::new(options.vms);
    let (mut make_ns, mut write_ns) = (0, 0);
    for second in 0..u64::from(options.hours) * HOUR_S {
        let start = Timestamp::from_parts(BEGIN_S + second, 0);
        let begun_ns = thread_cpu_ns();
        let rows: Rows = day.second(start, options.conversations);
        let made_ns = thread_cpu_ns();
        report.conversations += rows.windows.len() as u64;
        report.flows += rows.flows.len() as u64;
        report.records += rows.len() as u64;
        sink.write(rows, start);
        make_ns += made_ns - begun_ns;
        write_ns += thread_cpu_ns() - made_ns;
    }
    let end = Timestamp::from_parts(BEGIN_S + u64::from(options.hours) * HOUR_S, 0);
    if !sink.close(end) || sink.ledger().dropped_sum() > 0 {
        return Err(format!("records were lost: {:?}", sink.health()));
    }
    report.make_cpu_s = seconds(make_ns);
    report.write_cpu_s = seconds(make_ns + write_ns);
    report.records_per_second = float(report.records) * 1e9 / float(write_ns.max(1));
    Ok(())
}

/// As in `run`, once all hours are over.
fn merge(options: &StoreOptions) -> Tidied {
    let hour = BEGIN_S / HOUR_S + u64::from(options.hours) + 2;
    let round = Round {
        folder: options.folder.clone(),
        probe_id: PROBE.to_owned(),
        hour,
        run_hour: hour,
        keep_days: None,
        size_mib_max: None,
        free_mib_min: 16,
        compact: true,
        whole: true,
        leave: Vec::new(),
    };
    let tidied = round.run(&mut std::io::sink());
    // Some hours a round are added up.
    while round.run(&mut std::io::sink()).rolled_hours > 0 {}
    tidied
}

fn on_disk(folder: &Path) -> OnDisk {
    let mut sum = OnDisk::default();
    for table in Table::ALL {
        let before = sum.bytes;
        sum.count(&folder.join(table.name()));
        if *table == Table::Windows {
            sum.windows_bytes = sum.bytes - before;
        }
    }
    sum
}

impl OnDisk {
    /// Adds the files of a folder; those in it are days and hours.
    fn count(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_record = !entry.file_name().as_encoded_bytes().starts_with(b".");
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => self.count(&entry.path()),
                Ok(metadata) if is_record => {
                    self.files += 1;
                    self.bytes += metadata.len();
                }
                Ok(metadata) => {
                    self.rolled_files += 1;
                    self.rolled_bytes += metadata.len();
                }
                Err(_) => {}
            }
        }
    }
}

/// Wall time in milliseconds.
fn ms_since(begun_ns: u64) -> f64 {
    float(monotonic_ns() - begun_ns) / 1e6
}

fn seconds(ns: u64) -> f64 {
    float(ns) / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
fn float(count: u64) -> f64 {
    count as f64
}
