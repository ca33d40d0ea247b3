//! Rounds over real files; no process is started.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::config::StorePlan;
use crate::export::ParquetSink;
use crate::export::parquet::test_folder::Folder;
use crate::record::{FlowRecord, InventoryRecord, Rows, Table, WindowRecord};
use crate::time::Timestamp;

const HOUR_NS: u64 = 3_600_000_000_000;
/// The hour that the files are of.
const HOUR: u64 = 480_000;

impl Folder {
    fn hour(&self) -> PathBuf {
        folder::hour_folder(&self.0, Table::Flows, HOUR)
    }

    /// Names of the files of the hour, hidden ones too.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.hour()).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Files of one probe: file `n` has flows that end at `n`, `n + files`, `n + 2 files` …, so that
    /// all overlap.
    fn write(&self, probe: &str, files: u64, flows: u64) {
        self.write_at(probe, HOUR, files, flows);
    }

    fn write_at(&self, probe: &str, hour: u64, files: u64, flows: u64) {
        let plan =
            StorePlan { folder: Some(self.0.clone()), free_mib_min: 0, ..StorePlan::default() };
        let mut sink = ParquetSink::new(&plan, probe, "east").expect("a folder");
        for file in 0..files {
            let end = |place| hour * HOUR_NS + place * files + file;
            let flow = |place| FlowRecord {
                flow_id: place * files + file,
                flow_end_ns: end(place),
                ..FlowRecord::default()
            };
            let rows = Rows { flows: (0..flows).map(flow).collect(), ..Rows::default() };
            sink.write(rows, Timestamp(hour * HOUR_NS));
            assert!(sink.close(Timestamp(hour * HOUR_NS)), "{:?}", sink.health());
        }
    }

    fn round(&self) -> Round {
        Round { run_hour: HOUR, ..Round::of_all(Work::Tidy, &self.0, "p1", HOUR + 2) }
    }

    fn tidy(&self) -> Tidied {
        self.round().run_through()
    }

    /// How often each flow is found by whoever lists the folder, and whether each file is in order.
    fn flows(&self) -> BTreeMap<u64, usize> {
        let mut found = BTreeMap::new();
        for name in self.names().iter().filter(|name| name.ends_with(".parquet")) {
            for flow in column(&self.hour().join(name), "flow_id") {
                *found.entry(flow).or_default() += 1;
            }
        }
        found
    }
}

fn column(path: &Path, name: &str) -> Vec<u64> {
    let file = fs::File::open(path).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let batches = reader.build().expect("a reader").map(|batch| batch.expect("a batch"));
    let values = batches.flat_map(|batch| {
        let column = batch.column_by_name(name).expect("the column").clone();
        column.as_primitive::<UInt64Type>().values().to_vec()
    });
    values.collect()
}

fn once_each(flows: u64) -> BTreeMap<u64, usize> {
    (0..flows).map(|flow| (flow, 1)).collect()
}

#[test]
fn small_files_of_an_hour_become_one_in_order() {
    let folder = Folder::new("merge");
    folder.write("p1", 20, 3_000);
    folder.write("p1-other", 1, 7);
    fs::write(folder.hour().join("notes.txt"), "mine").expect("a file");
    let tidied = folder.tidy();
    assert_eq!((tidied.merged_files, tidied.made_files, &tidied.problems), (20, 1, &vec![]));
    let names = folder.names();
    let start = HOUR * HOUR_NS;
    let (merged, other) =
        (format!("flows-p1-{start}-20.parquet"), format!("flows-p1-other-{start}-0.parquet"));
    assert_eq!(names, [merged.clone(), other.clone(), "notes.txt".to_owned()]);
    let ends = column(&folder.hour().join(&merged), "flow_end_ns");
    assert!(ends.is_sorted(), "the order of the table");
    fs::remove_file(folder.hour().join(other)).expect("it is there");
    assert_eq!(folder.flows(), once_each(60_000));
    assert!(!folder.0.join(".compact-p1").exists());
    let file = fs::File::open(folder.hour().join(merged)).expect("a file");
    let built = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let keys = built.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let said: Vec<_> = keys.iter().map(|key| (key.key.as_str(), key.value.as_deref())).collect();
    assert!(said.contains(&("vmprobe.table", Some("flows"))), "{said:?}");
    assert!(said.contains(&("vmprobe.schema_version", Some("1"))), "{said:?}");
    // One file is nothing to merge.
    assert_eq!(folder.tidy().merged_files, 0);
}

/// Who asks for one flow, or one address, leaves out row groups that do not have it.
#[test]
fn merged_flows_say_which_values_they_have() {
    let folder = Folder::new("bloom");
    folder.write("p1", 4, 500);
    assert_eq!(folder.tidy().merged_files, 4);
    let file = fs::File::open(folder.hour().join(&folder.names()[0])).expect("a file");
    let built = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let filter = |name: &str| {
        let column = built.schema().index_of(name).expect("a column");
        built.get_row_group_column_bloom_filter(0, column).expect("it can be read")
    };
    let flows = filter("flow_id").expect("a filter");
    assert!((0..2_000_u64).all(|flow| flows.check(&flow)));
    let wrong = (2_000..12_000_u64).filter(|flow| flows.check(flow)).count();
    assert!(wrong < 300, "{wrong} of 10,000");
    assert!(filter("source_address").is_some() && filter("packet_delta_count").is_none());
}

/// More files than row groups may be open at a time, all of the same second.
#[test]
fn order_is_given_up_before_a_row_is() {
    let folder = Folder::new("many-runs");
    folder.write("p1", 150, 20);
    assert_eq!(folder.tidy().merged_files, 150);
    assert_eq!(folder.flows(), once_each(3_000));
}

#[test]
fn an_hour_that_grows_waits_for_more_files() {
    let folder = Folder::new("grows");
    folder.write("p1", 15, 10);
    let open = Round { hour: HOUR + 1, ..folder.round() };
    assert_eq!(open.run_through().merged_files, 0);
    folder.write("p1", 1, 1);
    assert_eq!(open.run_through().merged_files, 16);
    assert_eq!(folder.names().len(), 1);
}

#[test]
fn files_that_are_no_good_stay_and_are_named() {
    let folder = Folder::new("no-good");
    folder.write("p1", 6, 3_000);
    let names = folder.names();
    let path = |place: usize| folder.hour().join(&names[place]);
    let mut torn = fs::read(path(1)).expect("a file");
    torn.truncate(torn.len() - 1);
    fs::write(path(1), &torn).expect("written");
    // Its end is whole, its pages are not.
    let mut wrong = fs::read(path(4)).expect("a file");
    let middle = wrong.len() / 8;
    wrong[4..middle].fill(0xa5);
    fs::write(path(4), &wrong).expect("written");
    let tidied = folder.tidy();
    assert_eq!((tidied.merged_files, tidied.made_files), (4, 1));
    assert_eq!(tidied.problems.len(), 2, "{:?}", tidied.problems);
    for place in [1, 4] {
        assert!(tidied.problems.iter().any(|problem| problem.contains(&names[place])));
    }
    assert_eq!((fs::read(path(1)).ok(), fs::read(path(4)).ok()), (Some(torn), Some(wrong)));
    // They are not tried again and again.
    assert_eq!(tidied.leave.len(), 1);
    let again = Round { leave: tidied.leave, ..folder.round() };
    let again = again.run_through();
    assert_eq!((again.merged_files, again.problems), (0, vec![]));
}

/// What a process that is killed leaves: before the step and after it.
#[test]
fn a_crash_leaves_every_row_once_and_the_next_round_cleans_up() {
    let folder = Folder::new("crash");
    folder.write("p1", 4, 100);
    let hidden = folder.0.join(".compact-p1").join(format!("flows-{HOUR}"));
    fs::create_dir_all(&hidden).expect("a folder");
    fs::write(hidden.join("flows-p1-0-9.parquet"), "PAR1 half of it").expect("a file");
    assert_eq!(folder.flows(), once_each(400));
    assert_eq!(folder.tidy().merged_files, 4);
    assert_eq!(folder.flows(), once_each(400));
    // After the step: the old files lie where the new ones were made.
    fs::create_dir_all(&hidden).expect("a folder");
    fs::copy(folder.hour().join(&folder.names()[0]), hidden.join("flows-p1-0-0.parquet"))
        .expect("copied");
    assert_eq!(folder.flows(), once_each(400));
    folder.tidy();
    assert_eq!(folder.flows(), once_each(400));
    assert!(!folder.0.join(".compact-p1").exists());
}

/// What an hour's windows were added up to goes with these windows, and counts as they do.
#[test]
fn roll_ups_go_with_their_windows() {
    let folder = Folder::new("roll-ups");
    let hour = folder::hour_folder(&folder.0, Table::Windows, HOUR);
    let plan =
        StorePlan { folder: Some(folder.0.clone()), free_mib_min: 0, ..StorePlan::default() };
    let window = |start| WindowRecord { window_start_ns: start, ..WindowRecord::default() };
    for file in 0..2 {
        let mut sink = ParquetSink::new(&plan, "p1", "east").expect("a folder");
        let rows = Rows { windows: vec![window(HOUR * HOUR_NS + file)], ..Rows::default() };
        sink.write(rows, Timestamp(HOUR * HOUR_NS));
        assert!(sink.close(Timestamp(HOUR * HOUR_NS)), "{:?}", sink.health());
    }
    let place = (HOUR, Table::Windows);
    let files = |hours: &Hours| hours.get(&place).cloned().unwrap_or_default();
    let stored = files(&scan::all(&folder.0, "p1"));
    let bytes: u64 = stored.iter().map(|stored| stored.bytes).sum();
    assert!(!scan::has_rolled(&folder.0, "p1", place, &stored));
    for view in ["windows_1m", "windows_1h", "vms_1m", "talks_1h"] {
        assert!(!scan::has_rolled(&folder.0, "p1", place, &stored), "{view} is missing");
        let name = format!(".{view}.2-p1-2-{}-{bytes}", stored[1].number);
        fs::write(hour.join(name), [0; 100]).expect("a file");
        // Of an earlier version.
        fs::write(hour.join(format!(".{view}-p1-2-1-7")), [0; 10]).expect("a file");
        fs::write(hour.join(format!(".{view}-p1-b-1-0-7")), [0; 9]).expect("another's");
    }
    assert!(scan::has_rolled(&folder.0, "p1", place, &stored));
    let rolled = files(&scan::all(&folder.0, "p1"));
    assert_eq!(rolled.iter().map(|stored| stored.rolled_bytes).sum::<u64>(), 440);

    // Merged, they are other files.
    assert_eq!(folder.tidy().merged_files, 2);
    let merged = files(&scan::all(&folder.0, "p1"));
    assert_eq!((merged.len(), merged[0].rolled_bytes), (1, 0));
    assert!(hour.join(".windows_1h-p1-b-1-0-7").exists(), "another probe's stay");

    let size = merged[0].bytes;
    fs::write(hour.join(format!(".windows_1h-p1-1-0-{size}")), [0; 50]).expect("a file");
    let round = Round { hour: HOUR + 9, size_mib_max: Some(0), ..folder.round() };
    let tidied = round.run_through();
    let removed = tidied.by_size;
    assert_eq!((removed.files, removed.records, removed.bytes), (1, 2, size + 50));
    let left: Vec<_> = fs::read_dir(hour).expect("another's").flatten().collect();
    assert_eq!(left.len(), 4, "another probe's: {left:?}");
}

#[test]
fn old_hours_go_with_their_rows_counted() {
    let folder = Folder::new("old");
    folder.write_at("p1", HOUR - 30, 3, 10);
    folder.write_at("p2", HOUR - 30, 1, 10);
    folder.write_at("p1", HOUR - 20, 1, 5);
    let facts = Rows {
        inventory: vec![InventoryRecord {
            known_from_ns: (HOUR - 30) * HOUR_NS,
            ..InventoryRecord::default()
        }],
        ..Rows::default()
    };
    let plan =
        StorePlan { folder: Some(folder.0.clone()), free_mib_min: 0, ..StorePlan::default() };
    let mut sink = ParquetSink::new(&plan, "p1", "east").expect("a folder");
    let time = Timestamp((HOUR - 30) * HOUR_NS);
    sink.write(facts, time);
    assert!(sink.close(time));

    let round = Round { hour: HOUR, run_hour: HOUR - 30, keep_days: Some(1), ..folder.round() };
    let tidied = round.run_through();
    assert_eq!((tidied.by_age.files, tidied.by_age.records), (3, 30));
    assert_eq!((tidied.by_size, &tidied.problems), (Removed::default(), &vec![]));
    assert_eq!(tidied.merged_files, 0, "nothing is merged that was removed");
    let at = |table, hour| scan::between(&folder.0, "p1", hour, hour).contains_key(&(hour, table));
    assert!(!at(Table::Flows, HOUR - 30) && at(Table::Flows, HOUR - 20));
    assert!(at(Table::Inventory, HOUR - 30), "facts of this run hold on");
    assert_eq!(scan::between(&folder.0, "p2", HOUR - 30, HOUR - 30).len(), 1);
    // The next one finds an empty day and leaves no folder behind.
    let day = folder::hour_folder(&folder.0, Table::Flows, HOUR - 20);
    fs::remove_dir_all(folder::hour_folder(&folder.0, Table::Flows, HOUR - 30)).expect("p2's");
    Round { hour: HOUR + 9, ..round }.run_through();
    assert!(!day.exists() && !day.parent().is_some_and(Path::exists));
}

/// Whatever ends a round, what it removed until then is known.
#[test]
fn each_hour_that_goes_is_told_before_the_next() {
    let folder = Folder::new("told-at-once");
    for hour in [HOUR - 3, HOUR - 2, HOUR] {
        folder.write_at("p1", hour, 2, 10);
    }
    let round = Round { hour: HOUR, size_mib_max: Some(0), ..folder.round() };
    let mut told = Vec::new();
    round.run(&mut |step| {
        let Step::Done(done) = step else { return };
        let left = scan::all(&folder.0, "p1").len();
        told.push((left, done.by_size.records, done.stored_bytes.is_some(), done.merged_files));
    });
    // The open hour has too few files to be merged; that all is retained is told before.
    assert_eq!(told, [(2, 20, false, 0), (1, 20, false, 0), (1, 0, true, 0), (1, 0, false, 0)]);
}

/// Merging goes on in the next round, behind what is kept.
#[test]
fn a_round_ends_in_time_whatever_is_left_to_merge() {
    let folder = Folder::new("in-time");
    for hour in [HOUR - 1, HOUR] {
        folder.write_at("p1", hour, 2, 10);
    }
    let round = folder.round();
    let (mut sum, mut late) = (Tidied::default(), Tidied::default());
    for (merge_until_ns, sum) in [(0, &mut late), (u64::MAX, &mut sum)] {
        let mut tell = |step| {
            if let Step::Done(done) = step {
                sum.add(done);
            }
        };
        Doing { merge_until_ns, ..Doing::new(&round, &mut tell) }.tidy();
    }
    assert_eq!((late.merged_files, late.unfinished), (0, true));
    assert_eq!((sum.merged_files, sum.unfinished), (4, false));
    assert!(!round.run_through().unfinished, "nothing is left");
}

/// An hour was removed while it was added up.
#[test]
fn roll_ups_without_windows_go_by_the_same_rules() {
    let folder = Folder::new("orphans");
    let hour = folder::hour_folder(&folder.0, Table::Windows, HOUR - 30);
    fs::create_dir_all(&hour).expect("a folder");
    fs::write(hour.join(".windows_1h.2-p1-2-1-7"), [0; 10]).expect("a file");
    fs::write(hour.join("windows-p2-1-0.parquet"), "another's").expect("a file");
    assert_eq!(folder.tidy().problems, [""; 0]);
    let round = Round { hour: HOUR, keep_days: Some(1), ..folder.round() };
    let tidied = round.run_through();
    assert_eq!(tidied.by_age, Removed { files: 0, records: 0, bytes: 10 });
    let left: Vec<_> = fs::read_dir(hour).expect("another's").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Who adds files waits for the removal alone, not for the look at what is removed.
#[test]
fn rows_are_counted_before_the_folder_is_held() {
    let folder = Folder::new("count-first");
    let round = folder.round();
    let mut tell = |_| {};
    let mut doing = Doing::new(&round, &mut tell);
    let place = (HOUR, Table::Flows);
    let stored = Stored { start_ns: 7, number: 0, bytes: 9, rolled_bytes: 0 };
    let path = scan::path(&folder.0, "p1", place, &stored);
    fs::create_dir_all(folder.hour()).expect("a folder");
    // Whoever looks into a pipe waits until somebody writes.
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    let (removed, added) = std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            // Opening it for writing ends once it is looked into.
            let looked_into = fs::OpenOptions::new().write(true).open(&path).expect("the pipe");
            let added = folder::lock_shared(&folder.0).map(drop);
            drop(looked_into);
            added
        });
        (doing.remove(place, Some(vec![stored])), adding.join().expect("it ends"))
    });
    assert!(added.is_ok(), "{added:?}");
    assert_eq!(removed, Removed { files: 1, records: 0, bytes: 9 });
    assert!(!path.exists() && doing.done.problems.is_empty(), "{:?}", doing.done.problems);
}

#[test]
fn the_oldest_hours_go_where_all_are_too_large() {
    let folder = Folder::new("large");
    for hour in [HOUR - 3, HOUR - 2, HOUR] {
        folder.write_at("p1", hour, 1, 60_000);
    }
    let round =
        |mib| Round { hour: HOUR, size_mib_max: Some(mib), compact: false, ..folder.round() };
    let hours = || scan::all(&folder.0, "p1").into_keys().map(|(hour, _)| hour).collect::<Vec<_>>();
    assert_eq!(round(1_000).run_through().by_size, Removed::default());
    let tidied = round(0).run_through();
    assert_eq!((tidied.by_size.files, tidied.by_size.records), (2, 120_000));
    assert_eq!(hours(), [HOUR], "the open hour stays");
    assert!(tidied.problems[0].contains("store.size_mib_max"), "{:?}", tidied.problems);
}

#[test]
fn hours_ahead_of_the_clock_are_named_when_they_go() {
    let folder = Folder::new("ahead");
    for hour in [HOUR - 3, HOUR, HOUR + 9_000] {
        folder.write_at("p1", hour, 1, 60_000);
    }
    let bytes: u64 = scan::all(&folder.0, "p1").values().flatten().map(|file| file.bytes).sum();
    let mib = u32::try_from(bytes >> 20).expect("few");
    assert!(bytes > u64::from(mib) << 20 && mib > 0, "{bytes}");
    let tidied = Round { hour: HOUR, size_mib_max: Some(mib), ..folder.round() }.run_through();
    assert_eq!((tidied.by_size.files, tidied.by_size.records), (1, 60_000));
    let hours = scan::all(&folder.0, "p1").into_keys().map(|(hour, _)| hour);
    assert_eq!(hours.collect::<Vec<_>>(), [HOUR - 3, HOUR], "the good ones stay");
    assert!(tidied.problems[0].contains("ahead of the clock"), "{:?}", tidied.problems);
}

/// Files of a version with other columns are merged by themselves.
#[test]
fn files_with_other_columns_are_not_mixed() {
    let folder = Folder::new("other-columns");
    folder.write("p1", 3, 10);
    let names = folder.names();
    // An older version had no `flow_end_reason`.
    for name in &names[..2] {
        without_column(&folder.hour().join(name), "flow_end_reason");
    }
    assert_eq!(folder.tidy().merged_files, 0);
    assert_eq!(folder.flows(), once_each(30));
    fs::remove_file(folder.hour().join(&names[2])).expect("it is there");
    assert_eq!(folder.tidy().merged_files, 2);
    assert_eq!(folder.flows().len(), 20);
}

fn without_column(path: &Path, name: &str) {
    let file = fs::File::open(path).expect("a file");
    let built = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let batches: Vec<_> =
        built.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
    let keep = |batch: &arrow_array::RecordBatch| {
        let schema = batch.schema();
        let columns =
            (0..schema.fields().len()).filter(|place| schema.field(*place).name() != name);
        batch.project(&columns.collect::<Vec<_>>()).expect("columns")
    };
    let kept: Vec<_> = batches.iter().map(keep).collect();
    let out = fs::File::create(path).expect("a file");
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(out, kept[0].schema(), None).expect("a writer");
    for batch in &kept {
        writer.write(batch).expect("written");
    }
    writer.close().expect("closed");
}
