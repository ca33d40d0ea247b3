//! The records on disk: what is written is read back, and neither a crash nor a full disk tears it.

mod extremes;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value as Json;

use vmprobe::config::StorePlan;
use vmprobe::export::{ParquetSink, SinkHealth};
use vmprobe::record::{self, LedgerRecord, Origin, Record, Rows, Table, TableVisitor};
use vmprobe::time::Timestamp;

/// Names the folder for a test that runs itself again as a child.
const CHILD_FOLDER: &str = "VMPROBE_TEST_CHILD_FOLDER";

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("vmprobe-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a temporary folder");
    path
}

fn plan(folder: &Path) -> StorePlan {
    StorePlan {
        folder: Some(folder.to_path_buf()),
        queue_rows_max: 1_000_000,
        file_seconds: 0,
        free_mib_min: 0,
    }
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("whole").build();
    reader.expect("a reader").map(|batch| batch.expect("a batch")).collect()
}

/// A cell as the record module would write it in JSON.
fn cell(column: &dyn Array, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        other => panic!("no record has a column of type {other}"),
    }
}

fn objects(batch: &RecordBatch) -> Vec<Json> {
    let schema = batch.schema();
    let object = |row| {
        let cells = batch.columns().iter().map(|column| cell(column, row));
        let names = schema.fields().iter().map(|field| field.name().clone());
        Json::Object(names.zip(cells).collect())
    };
    (0..batch.num_rows()).map(object).collect()
}

struct RoundTrip {
    rows: Rows,
    folder: PathBuf,
    tables: usize,
}

impl TableVisitor for RoundTrip {
    fn table<R: Record>(&mut self) {
        let origin = Origin::new("p1", "east");
        let mut rows = std::mem::take(R::of(&mut self.rows));
        assert_eq!(rows.len(), 2, "{} has no extremes", R::TABLE.name());
        rows.sort_by(R::order);
        let expected: Vec<_> = rows.iter().map(|row| row.json(&origin)).collect();
        let files = parquet_files(&self.folder.join(R::TABLE.name()));
        assert_eq!(files.len(), 2, "the rows are centuries apart");
        let mut found: Vec<_> =
            files.iter().flat_map(|file| read(file)).flat_map(|batch| objects(&batch)).collect();
        found.sort_by_key(|row| row.get(R::TABLE.time_column()).and_then(Json::as_u64));
        assert_eq!(found, expected);
        self.tables += 1;
    }
}

#[test]
fn every_table_comes_back_as_it_was() {
    let folder = folder("round-trip");
    let mut sink = ParquetSink::new(&plan(&folder), "p1", "east").expect("a folder");
    sink.write(extremes::rows(), Timestamp(1));
    assert!(sink.close(Timestamp(1)), "{:?}", sink.health());
    let mut check = RoundTrip { rows: extremes::rows(), folder, tables: 0 };
    Table::visit(&mut check);
    assert_eq!(check.tables, Table::ALL.len());
    let _ = fs::remove_dir_all(check.folder);
}

#[test]
fn derived_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let derived = [
        (root.join("src/record/README.md"), record::markdown()),
        (root.join("../query/src/schema.sql"), record::ddl()),
    ];
    for (path, expected) in derived {
        if std::env::var_os("VMPROBE_UPDATE").is_some() {
            fs::write(&path, &expected).expect("the tree is writable");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{} is not what src/record/tables.rs says: VMPROBE_UPDATE=1 cargo test --test records",
            path.display()
        );
    }
}

/// This test again, as a process of its own, with a folder.
fn child(program: &mut Command, test: &str, folder: &Path) -> Command {
    let exe = std::env::current_exe().expect("this program");
    let mut command = Command::new(program.get_program());
    command.args(program.get_args()).arg(exe).args(["--exact", test, "--ignored", "--nocapture"]);
    command.env(CHILD_FOLDER, folder).stdout(Stdio::piped());
    command
}

fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD_FOLDER).map(PathBuf::from)
}

fn ledger_rows(count: u64, start_ns: u64) -> Rows {
    let row = |number| LedgerRecord {
        window_start_ns: start_ns,
        packet_count: number,
        // Texts that do not compress, so that files grow.
        measure: format!("{:x}", (number + start_ns).wrapping_mul(0x9e37_79b9_7f4a_7c15)).into(),
        ..LedgerRecord::default()
    };
    Rows { ledger: (0..count).map(row).collect(), ..Rows::default() }
}

#[test]
fn a_killed_writer_leaves_no_torn_file() {
    let folder = folder("killed");
    let mut whole = 0;
    for round in 1..=5 {
        let mut writer = child(&mut Command::new("env"), "child_that_writes_until_killed", &folder)
            .spawn()
            .expect("this program again");
        // Each round is killed at another place of its work.
        sleep(Duration::from_millis(150 + round * 37));
        writer.kill().expect("SIGKILL");
        writer.wait().expect("its end");
        let files = parquet_files(&folder);
        for file in &files {
            assert_eq!(read(file).iter().map(RecordBatch::num_rows).sum::<usize>(), 5_000);
        }
        assert!(files.len() > whole, "round {round} wrote nothing");
        whole = files.len();
    }
    let _ = fs::remove_dir_all(folder);
}

#[test]
#[ignore = "a child of another test"]
fn child_that_writes_until_killed() {
    let Some(folder) = child_folder() else { return };
    let mut sink = ParquetSink::new(&plan(&folder), "p1", "east").expect("a folder");
    for time in 0.. {
        sink.write(ledger_rows(5_000, time), Timestamp(time));
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let folder = folder("full");
    let mut command = Command::new("unshare");
    // The file system is seen by the child alone and goes with it.
    command.args(["--mount", "--propagation", "private"]);
    let output = child(&mut command, "child_with_a_full_disk", &folder).output();
    let said = output.as_ref().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let said = said.unwrap_or_default();
    let _ = fs::remove_dir_all(&folder);
    if said.contains("disk: recovered") {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    assert!(!root || said.contains("disk: no tmpfs"), "{output:?}");
    eprintln!("SKIPPED a_full_disk_is_waited_for: mounting a small file system needs root");
}

#[test]
#[ignore = "a child of another test"]
fn child_with_a_full_disk() {
    let Some(folder) = child_folder() else { return };
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&folder);
    if !mount.status().is_ok_and(|status| status.success()) {
        println!("disk: no tmpfs");
        return;
    }
    let ballast = folder.join("ballast");
    let mut sink = ParquetSink::new(&plan(&folder), "p1", "east").expect("a folder");
    sink.write(ledger_rows(10, 0), Timestamp(0));
    assert_eq!(sink.ledger().delivered, 10);

    fs::write(&ballast, vec![1; 950 << 10]).expect("most of the disk");
    sink.write(ledger_rows(50_000, 1), Timestamp(1));
    let SinkHealth::Failing { since, what } = sink.health().clone() else {
        panic!("a full disk must fail")
    };
    assert_eq!(since, Timestamp(1));
    assert!(what.contains("No space left"), "{what}");
    assert_eq!((sink.ledger().queued, sink.ledger().dropped_sum()), (50_000, 0));
    assert_eq!(parquet_files(&folder).len(), 1, "what does not fit leaves nothing");

    // The reason stays while the disk is full, however often it is tried.
    let hour = Timestamp::from_parts(3_600, 0);
    sink.tick(hour);
    assert!(matches!(sink.health(), SinkHealth::Failing { since: Timestamp(1), .. }));

    fs::remove_file(&ballast).expect("space returns");
    sink.tick(hour + hour.as_ns());
    assert_eq!(*sink.health(), SinkHealth::Ok);
    let ledger = sink.ledger();
    assert_eq!((ledger.delivered, ledger.queued, ledger.unaccounted()), (50_010, 0, 0));
    println!("disk: recovered");
}
