//! `bench --store`: a day of a cloud's records, written and asked.
//!
//! In: how many VMs, conversations a second and hours; a folder. Out: [`StoreReport`]: what writing and
//! merging cost, how large the records are, how long each question takes.
//! Cost: the records are made here, second by second, with the rows that a window has; no packet.
//! Invariants: the same options give the same records. They are written by the sink that `run` has, and
//! merged and added up as in `run`, an hour while the next are written; questions go to the query program as
//! a user's do.

mod questions;
mod server;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};

use serde::Serialize;

use super::day::{BEGIN_S, Day};
use super::machine;
use crate::config::{SinkPlan, StorePlan};
use crate::export::ParquetSink;
use crate::export::parquet::folder;
use crate::record::{Rows, Table};
use crate::store::query::Records;
use crate::store::{Round, Work};
use crate::time::{Timestamp, monotonic_ns, thread_cpu_ns};

pub use questions::Asked;
pub use server::ServerReport;

/// Whose records they are.
const PROBE: &str = "bench";
const HOUR_S: u64 = 3_600;

/// What is measured.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where the records go; it must not hold any, unless they are written already.
    pub folder: PathBuf,
    /// Virtual machines, ten to a tenant.
    pub vms: u32,
    /// Conversations in each window of a second.
    pub conversations: u32,
    /// How long.
    pub hours: u32,
    /// How often each question is asked; the median counts.
    pub times: u32,
    /// The records are there already, on the server too: they are only asked.
    pub written: bool,
    /// A ClickHouse that gets the same records and is asked the same, if there is one.
    pub server: Option<SinkPlan>,
    /// Its process, where that is on this machine and what it takes is to be told.
    pub server_process: Option<u32>,
}

/// What came out. Of records that were written before, what writing and merging cost is 0.
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
    if !options.written {
        make(options, &mut report)?;
    }
    report.merged = on_disk(&options.folder);
    report.peak_bytes = machine::peak_bytes();
    if report.conversations > 0 {
        report.bytes_per_million_conversations =
            float(report.merged.windows_bytes) * 1e6 / float(report.conversations);
    }
    let files = Records::Folder(options.folder.clone());
    let flow_id = first_flow(options);
    report.questions = questions::ask(&files, flow_id, None, options.times)?;
    report.server =
        options.server.as_ref().map(|plan| server::measure(options, plan)).transpose()?;
    Ok(report)
}

/// Writes the records, merges them and adds them up.
fn make(options: &StoreOptions, report: &mut StoreReport) -> Result<(), String> {
    let children_ms = machine::cpu_ms_of_children();
    let (over, hours) = std::sync::mpsc::channel();
    let (written, tidied) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || write(options, &over));
        let tidied = tidy(options, &hours);
        // It does nothing that could panic.
        (writer.join().unwrap_or_else(|_| Err("the writer ended early".to_owned())), tidied)
    });
    written?.tell(report);
    (report.written, report.merge_cpu_s) = tidied?;
    report.roll_up_cpu_s = (machine::cpu_ms_of_children() - children_ms) / 1e3;
    Ok(())
}

/// What the writer did.
#[derive(Default)]
struct Written {
    conversations: u64,
    flows: u64,
    records: u64,
    make_ns: u64,
    write_ns: u64,
}

impl Written {
    fn tell(&self, report: &mut StoreReport) {
        report.conversations = self.conversations;
        report.flows = self.flows;
        report.records = self.records;
        report.make_cpu_s = seconds(self.make_ns);
        report.write_cpu_s = seconds(self.make_ns + self.write_ns);
        report.records_per_second = float(self.records) * 1e9 / float(self.write_ns.max(1));
    }
}

/// Writes all hours, and says of each when all its files are there.
fn write(options: &StoreOptions, over: &Sender<u64>) -> Result<Written, String> {
    let plan = StorePlan {
        folder: Some(options.folder.clone()),
        free_mib_min: 16,
        ..StorePlan::default()
    };
    let mut sink = ParquetSink::new(&plan, PROBE, "default").ok_or("no folder")?;
    let mut day = Day::new(options.vms);
    let mut written = Written::default();
    for second in 0..u64::from(options.hours) * HOUR_S {
        let start = Timestamp::from_parts(BEGIN_S + second, 0);
        let begun_ns = thread_cpu_ns();
        let rows: Rows = day.second(start, options.conversations);
        let made_ns = thread_cpu_ns();
        written.conversations += rows.windows.len() as u64;
        written.flows += rows.flows.len() as u64;
        written.records += rows.len() as u64;
        sink.write(rows, start);
        written.make_ns += made_ns - begun_ns;
        written.write_ns += thread_cpu_ns() - made_ns;
        // Its last file has been open for as long as a file may be.
        let closed = second.checked_sub(u64::from(plan.file_seconds) + 1);
        if let Some(hour) = closed.filter(|closed| closed % HOUR_S == 0 && *closed > 0) {
            // Whoever tidies has told what went wrong.
            let _ = over.send(hour / HOUR_S - 1);
        }
    }
    let end = Timestamp::from_parts(BEGIN_S + u64::from(options.hours) * HOUR_S, 0);
    if !sink.close(end) || sink.ledger().dropped_sum() > 0 {
        return Err(format!("records were lost: {:?}", sink.health()));
    }
    let _ = over.send(u64::from(options.hours.saturating_sub(1)));
    Ok(written)
}

/// Merges the small files of each hour that is over and adds it up, as in `run`, but for the hours that
/// are being written. What there was before, and the CPU time of merging.
fn tidy(options: &StoreOptions, over: &Receiver<u64>) -> Result<(OnDisk, f64), String> {
    let (mut written, mut merge_ns) = (OnDisk::default(), 0);
    let first = BEGIN_S / HOUR_S;
    let folder_of =
        |root: &Path, table: Table, hour| folder::hour_folder(root, table, first + hour);
    for hour in over {
        for table in Table::ALL {
            let before = written.bytes;
            written.count(&folder_of(&options.folder, *table, hour));
            if *table == Table::Windows {
                written.windows_bytes += written.bytes - before;
            }
        }
        let later = (hour + 1..=hour + 2)
            .flat_map(|hour| Table::ALL.iter().map(move |table| (hour, *table)))
            .map(|(hour, table)| folder_of(Path::new(""), table, hour).display().to_string());
        let round = Round {
            free_mib_min: 16,
            leave: later.collect(),
            ..Round::of_all(Work::Tidy, &options.folder, PROBE, first + hour + 2)
        };
        let begun_ns = thread_cpu_ns();
        let mut tidied = round.run_through();
        while std::mem::take(&mut tidied.unfinished) {
            tidied.add(round.run_through());
        }
        merge_ns += thread_cpu_ns() - begun_ns;
        tidied.add(Round { work: Work::RollUp, ..round }.run_through());
        if let Some(problem) = tidied.problems.first() {
            return Err(problem.clone());
        }
    }
    Ok((written, seconds(merge_ns)))
}

/// The id of a flow that is in the records.
fn first_flow(options: &StoreOptions) -> u64 {
    let start = Timestamp::from_parts(BEGIN_S, 0);
    let rows = Day::new(options.vms).second(start, options.conversations);
    rows.flows.first().map_or(0, |flow| flow.flow_id)
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
