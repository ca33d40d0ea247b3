//! Replays in this process with small tables.
//!
//! In: captures. Out: what `replay` reports, its records in a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use vmprobe::config::{self, Plan};
use vmprobe::runtime::RuntimeError;
use vmprobe::runtime::replay::{Replay, ReplayOptions, replay};

use crate::folder::Folder;

/// The plan of a replay without configuration file, with tables as small as such captures need.
pub fn small_plan(captures: &[PathBuf]) -> Plan {
    let mut plan = config::replay_without_file();
    // A capture has at most one flow for each 64 octets; packed ones for fewer.
    let octets = captures.iter().map(|path| {
        let octets = std::fs::metadata(path).map_or(0, |about| about.len());
        let packed = path.extension().is_some_and(|ending| ending == "gz" || ending == "zst");
        if packed { octets * 16 } else { octets }
    });
    let flows = u32::try_from(octets.sum::<u64>() / 64).unwrap_or(u32::MAX);
    plan.flow.slots_per_worker = flows.clamp(1 << 10, 1 << 18).next_power_of_two();
    plan.window.rows_max = plan.flow.slots_per_worker;
    plan.copies.slots = 1 << 12;
    plan.decode.fragment_slots = 1 << 10;
    plan.serve.enabled = false;
    plan.store.free_mib_min = 0;
    // By the packets' clock: with files of a minute, to make them would take most of the time of a
    // replay of a day.
    plan.store.file_seconds = 3_600;
    plan
}

/// Replays to the end.
///
/// # Errors
/// As [`replay`].
pub fn run(
    mut plan: Plan,
    captures: &[PathBuf],
    records: Option<&Path>,
) -> Result<Replay, RuntimeError> {
    plan.store.folder = records.map(Path::to_owned);
    let options = ReplayOptions { files: captures.to_vec(), ..ReplayOptions::default() };
    replay(&Arc::new(plan), &options, &Arc::new(AtomicBool::new(false)), |_| ())
}

/// Replays with so many workers, copies taken out; the answer is the folder of the records, which is in
/// `folder`.
///
/// # Panics
/// If the replay fails or packets are not accounted for.
pub fn records_of(captures: &[PathBuf], workers: u16, folder: &Folder) -> PathBuf {
    let mut plan = small_plan(captures);
    plan.worker.count = workers;
    plan.copies.remove = true;
    let records = folder.path("records");
    let replay = run(plan, captures, Some(&records)).expect("a replay");
    assert_eq!(replay.report.ledger.unaccounted, 0);
    records
}
