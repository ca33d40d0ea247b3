//! The records on disk: what is written is read back, and neither a crash nor a full disk tears it.
#![expect(clippy::print_stdout, reason = "a child tells the test that started it how far it came")]

mod extremes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use vmprobe::config::StorePlan;
use vmprobe::export::{ParquetSink, SinkHealth, kafka};
use vmprobe::record::{self, LedgerRecord, Origin, Record, Rows, Table, TableVisitor};
use vmprobe::time::{Timestamp, sleep_ms};
use vmprobe_tests::end_to_end::{is_root, until};
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{files, finished_files, read};
use vmprobe_tests::skips::skipped;

/// Names the folder for a test that runs itself again as a child.
const CHILD_FOLDER: &str = "VMPROBE_TEST_CHILD_FOLDER";

fn plan(folder: &Path) -> StorePlan {
    StorePlan {
        folder: Some(folder.to_path_buf()),
        queue_rows_max: 1_000_000,
        file_seconds: 0,
        free_mib_min: 0,
        ..StorePlan::default()
    }
}

struct RoundTrip {
    rows: Rows,
    folder: Folder,
    tables: usize,
}

impl TableVisitor for RoundTrip {
    fn table<R: Record>(&mut self) {
        let origin = Origin::new("p1", "east");
        let mut rows = std::mem::take(R::of(&mut self.rows));
        assert_eq!(rows.len(), 2, "{} has no extremes", R::TABLE.name());
        rows.sort_by(R::order);
        let expected: Vec<_> = rows.iter().map(|row| row.json(&origin)).collect();
        let files = files(&self.folder.path(R::TABLE.name()));
        assert_eq!(files.len(), 2, "the rows are centuries apart");
        let rows_found = files.iter().flat_map(|file| read(file));
        let mut found: Vec<_> =
            rows_found.map(|row| Json::Object(row.into_iter().collect())).collect();
        found.sort_by_key(|row| row.get(R::TABLE.time_column()).and_then(Json::as_u64));
        assert_eq!(found, expected);
        self.tables += 1;
    }
}

#[test]
fn every_table_comes_back_as_it_was() {
    let folder = Folder::new("round-trip");
    let mut sink = ParquetSink::new(&plan(folder.root()), "p1", "east").expect("a folder");
    sink.write(extremes::rows(), Timestamp(1));
    assert!(sink.close(Timestamp(1)), "{:?}", sink.health());
    let mut check = RoundTrip { rows: extremes::rows(), folder, tables: 0 };
    Table::visit(&mut check);
    assert_eq!(check.tables, Table::ALL.len());
}

/// Names the folder for [`writes_the_fixture_of_this_version`].
const FIXTURE: &str = "VMPROBE_FIXTURE";

struct Expected(Rows, serde_json::Map<String, Json>);

impl TableVisitor for Expected {
    fn table<R: Record>(&mut self) {
        let mut rows = std::mem::take(R::of(&mut self.0));
        rows.sort_by(R::order);
        let origin = Origin::new("p1", "east");
        let rows = rows.iter().map(|row| row.json(&origin)).collect();
        self.1.insert(R::TABLE.name().to_owned(), rows);
    }
}

/// `tests/data/records-v<N>` is made by this, once for each version of the schema: what a later
/// version must read.
#[test]
#[ignore = "makes a fixture"]
fn writes_the_fixture_of_this_version() {
    let Some(folder) = std::env::var_os(FIXTURE).map(PathBuf::from) else { return };
    let mut sink = ParquetSink::new(&plan(&folder), "p1", "east").expect("a folder");
    sink.write(extremes::rows(), Timestamp(1));
    assert!(sink.close(Timestamp(1)), "{:?}", sink.health());
    let mut expected = Expected(extremes::rows(), serde_json::Map::new());
    Table::visit(&mut expected);
    let text = serde_json::to_string_pretty(&expected.1).expect("JSON");
    fs::write(folder.join("expected.json"), text + "\n").expect("written");
}

#[test]
fn derived_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let derived = [
        (root.join("../probe/src/record/README.md"), record::markdown()),
        (root.join("../query/src/schema.sql"), record::ddl()),
        (root.join("../docs/sinks/ipfix-elements.md"), vmprobe::export::ipfix::markdown()),
        (root.join("../probe/src/export/kafka/vmprobe.proto"), kafka::schema(kafka::COMMITTED)),
    ];
    for (path, expected) in derived {
        if std::env::var_os("VMPROBE_UPDATE").is_some() {
            fs::write(&path, &expected).expect("the tree is writable");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{} is not what probe/src/record/tables.rs says: VMPROBE_UPDATE=1 cargo test --test records",
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
    let folder = Folder::new("killed");
    let mut whole = 0;
    for round in 1..=5 {
        let mut writer =
            child(&mut Command::new("env"), "child_that_writes_until_killed", folder.root())
                .spawn()
                .expect("this program again");
        let written = until(60, || (finished_files(folder.root()).len() > whole).then_some(()));
        // Each round is killed at another place of its work.
        sleep_ms(round * 37);
        writer.kill().expect("SIGKILL");
        writer.wait().expect("its end");
        assert!(written.is_some(), "round {round} wrote nothing");
        let files = finished_files(folder.root());
        for file in &files {
            assert_eq!(read(file).len(), 5_000);
        }
        whole = files.len();
    }
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
    let folder = Folder::new("full-disk");
    let mut command = Command::new("unshare");
    // The file system is seen by the child alone and goes with it.
    command.args(["--mount", "--propagation", "private"]);
    let output = child(&mut command, "child_with_a_full_disk", folder.root()).output();
    let said = output.as_ref().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let said = said.unwrap_or_default();
    if said.contains("disk: recovered") {
        return;
    }
    assert!(!is_root() || said.contains("disk: no tmpfs"), "{output:?}");
    skipped("a_full_disk_is_waited_for", "mounting a small file system needs root");
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
    let SinkHealth::Failing { since, what, .. } = sink.health().clone() else {
        panic!("a full disk must fail")
    };
    assert_eq!(since, Timestamp(1));
    assert!(what.contains("No space left"), "{what}");
    assert_eq!((sink.ledger().queued, sink.ledger().dropped_sum()), (50_000, 0));
    assert_eq!(finished_files(&folder).len(), 1, "what does not fit leaves nothing");

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
