//! The sink against a real folder; time is an argument, so nothing sleeps.

use std::fs;
use std::path::Path;

use super::test_folder::Folder;
use super::*;
use crate::record::{FlowRecord, WindowRecord};

/// An instant at the start of an hour.
const HOUR: u64 = 1_700_000_000_000_000_000 / (3_600 * SECOND_NS) * (3_600 * SECOND_NS);

impl Folder {
    /// All files below, as paths from here, sorted.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.0, &self.0, &mut found);
        found.sort();
        found
    }
}

fn list(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(root, &path, found);
        } else {
            let from_root = path.strip_prefix(root).expect("below the root");
            found.push(from_root.to_string_lossy().into_owned());
        }
    }
}

fn plan(folder: &Folder) -> StorePlan {
    StorePlan {
        folder: Some(folder.0.clone()),
        queue_rows_max: 100,
        file_seconds: 60,
        free_mib_min: 0,
        ..StorePlan::default()
    }
}

fn sink(plan: &StorePlan) -> ParquetSink {
    ParquetSink::new(plan, "p1", "default").expect("the plan has a folder")
}

fn flows(ends: impl IntoIterator<Item = u64>) -> Rows {
    let flow = |end| FlowRecord { flow_id: end, flow_end_ns: end, ..FlowRecord::default() };
    Rows { flows: ends.into_iter().map(flow).collect(), ..Rows::default() }
}

fn windows(starts: impl IntoIterator<Item = u64>) -> Rows {
    let window = |start| WindowRecord { window_start_ns: start, ..WindowRecord::default() };
    Rows { windows: starts.into_iter().map(window).collect(), ..Rows::default() }
}

#[test]
fn files_lie_under_the_hour_of_their_rows() {
    let folder = Folder::new("hours");
    let mut sink = sink(&plan(&folder));
    let next = HOUR + 3_600 * SECOND_NS;
    sink.write(flows([HOUR + 5, HOUR + 2, next]), Timestamp(next));
    assert!(sink.close(Timestamp(next)));
    assert_eq!(
        folder.files(),
        [
            format!("flows/2023-11-14/22/flows-p1-{}-0.parquet", HOUR + 2),
            format!("flows/2023-11-14/23/flows-p1-{next}-1.parquet"),
        ]
    );
    let ledger = sink.ledger();
    assert_eq!((ledger.made, ledger.delivered, ledger.unaccounted()), (3, 3, 0));
}

#[test]
fn a_fourth_hour_closes_the_oldest() {
    let folder = Folder::new("fourth");
    let mut sink = sink(&StorePlan { file_seconds: 36_000, ..plan(&folder) });
    for hour in 0..4 {
        let time = HOUR + hour * 3_600 * SECOND_NS;
        sink.write(flows([time]), Timestamp(time));
    }
    assert_eq!(folder.files(), [format!("flows/2023-11-14/22/flows-p1-{HOUR}-0.parquet")]);
    assert_eq!(sink.ledger().queued, 3);
}

/// A capture whose stamps lie anywhere between 1970 and 2554: the clock stands at the latest.
#[test]
fn stamps_all_over_the_centuries_make_no_file_each() {
    let folder = Folder::new("centuries");
    let mut sink = sink(&StorePlan { queue_rows_max: 1_000_000, ..plan(&folder) });
    let mut random = 1_u64;
    let mut stamp = || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        random
    };
    for second in 0..50 {
        let now = Timestamp(HOUR + second * SECOND_NS);
        sink.write(flows((0..200).map(|_| stamp())), now);
    }
    assert!(sink.close(Timestamp(HOUR)));
    assert_eq!((sink.ledger().delivered, sink.ledger().dropped_sum()), (10_000, 0));
    let files = folder.files();
    assert!(files.len() <= 3, "{}", files.len());
    let near = ["flows/2023-11-14/21/", "flows/2023-11-14/22/", "flows/2023-11-14/23/"];
    assert!(files.iter().all(|file| near.iter().any(|hour| file.starts_with(hour))), "{files:?}");
}

/// Records of a capture that is played to a NIC: they age by the wall clock, but are filed by their
/// own time.
#[test]
fn rows_are_filed_by_the_time_of_the_packets() {
    let folder = Folder::new("played");
    let mut sink = sink(&plan(&folder));
    let years_later = Timestamp(HOUR + 100_000 * 3_600 * SECOND_NS);
    sink.write_filed(windows([HOUR]), years_later, Timestamp(HOUR));
    assert!(sink.close(years_later));
    assert_eq!(folder.files(), [format!("windows/2023-11-14/22/windows-p1-{HOUR}-0.parquet")]);
}

#[test]
fn a_table_that_cannot_be_written_holds_up_no_other() {
    let folder = Folder::new("one-table");
    // A file stands where the folder of the first table should be.
    fs::write(folder.0.join("windows"), "no folder").expect("a file");
    let mut sink = sink(&plan(&folder));
    let mut rows = flows([HOUR]);
    rows.append(&mut windows([HOUR]));
    sink.write(rows, Timestamp(HOUR));
    assert!(!sink.close(Timestamp(HOUR)));
    assert_eq!((sink.ledger().delivered, sink.ledger().queued), (1, 1));
    let SinkHealth::Failing { what, .. } = sink.health() else { panic!("one table fails") };
    assert!(what.contains("windows"), "{what}");
    fs::remove_file(folder.0.join("windows")).expect("the obstacle goes");
    assert!(sink.close(Timestamp(HOUR)));
    assert_eq!(*sink.health(), SinkHealth::Ok);
}

#[test]
fn files_close_by_age() {
    let folder = Folder::new("age");
    let mut sink = sink(&plan(&folder));
    sink.write(windows([HOUR]), Timestamp(HOUR));
    sink.tick(Timestamp(HOUR + 60 * SECOND_NS - 1));
    assert_eq!(folder.files(), [""; 0]);
    sink.tick(Timestamp(HOUR + 60 * SECOND_NS));
    assert_eq!(folder.files().len(), 1);
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let (one, two) = (Folder::new("same-one"), Folder::new("same-two"));
    for (folder, order) in [(&one, [3, 1, 2]), (&two, [2, 3, 1])] {
        let mut sink = sink(&plan(folder));
        sink.write(flows(order.map(|place| HOUR + place)), Timestamp(HOUR));
        assert!(sink.close(Timestamp(HOUR)));
    }
    assert_eq!(one.files(), two.files());
    for file in one.files() {
        assert_eq!(fs::read(one.0.join(&file)).ok(), fs::read(two.0.join(&file)).ok(), "{file}");
    }
}

#[test]
fn an_existing_file_stays() {
    let folder = Folder::new("existing");
    for _ in 0..2 {
        let mut sink = sink(&plan(&folder));
        sink.write(flows([HOUR]), Timestamp(HOUR));
        assert!(sink.close(Timestamp(HOUR)));
    }
    assert_eq!(folder.files().len(), 2);
}

#[test]
fn leftovers_of_a_crash_go_and_others_stay() {
    let folder = Folder::new("leftovers");
    let hour = folder.0.join("flows/2023-11-14/22");
    fs::create_dir_all(&hour).expect("a folder");
    for name in [".tmp-flows-p1-5-0", ".tmp-flows-other-5-0"] {
        fs::write(hour.join(name), "torn").expect("a file");
    }
    let _sink = sink(&plan(&folder));
    assert_eq!(folder.files(), ["flows/2023-11-14/22/.tmp-flows-other-5-0"]);
}

/// A file stands where the folder should be: nobody, root included, can write there.
#[test]
fn a_folder_that_cannot_be_written_is_waited_for() {
    let folder = Folder::new("blocked");
    let blocked = folder.0.join("records");
    fs::write(&blocked, "not a folder").expect("a file");
    let plan = StorePlan { folder: Some(blocked.clone()), ..plan(&folder) };
    let mut sink = sink(&plan);
    assert!(matches!(sink.health(), SinkHealth::Failing { .. }));

    let start = Timestamp(HOUR);
    sink.write(flows([HOUR; 60]), start);
    // A file is due at half of the queue; the disk refuses it.
    let SinkHealth::Failing { since, what, .. } = sink.health() else { panic!("it must fail") };
    assert_eq!(*since, start);
    assert!(what.contains("records"), "{what}");
    sink.write(flows([HOUR; 60]), start);
    let ledger = sink.ledger();
    assert_eq!((ledger.queued, ledger.dropped(SinkCause::QueueFull)), (100, 20));
    assert_eq!((ledger.made, ledger.unaccounted()), (120, 0));

    fs::remove_file(&blocked).expect("the obstacle goes");
    sink.tick(start);
    assert_eq!(sink.ledger().delivered, 0, "not before the back-off has passed");
    sink.tick(start + 2 * RETRY_NS.1);
    assert_eq!(*sink.health(), SinkHealth::Ok);
    assert_eq!((sink.ledger().delivered, sink.ledger().queued), (100, 0));
}

#[test]
fn too_little_free_space_is_a_failure_that_names_the_limit() {
    let folder = Folder::new("free");
    let plan = StorePlan { free_mib_min: u32::MAX, ..plan(&folder) };
    let mut sink = sink(&plan);
    sink.write(flows([HOUR]), Timestamp(HOUR));
    assert!(!sink.close(Timestamp(HOUR)));
    let SinkHealth::Failing { what, .. } = sink.health() else { panic!("it must fail") };
    assert!(what.contains("store.free_mib_min"), "{what}");
    let ledger = sink.give_up();
    assert_eq!((ledger.dropped(SinkCause::UndeliveredAtEnd), ledger.unaccounted()), (1, 0));
}

#[test]
fn a_full_queue_of_small_files_still_drains_to_a_good_disk() {
    let folder = Folder::new("drain");
    let mut sink = sink(&StorePlan { queue_rows_max: 1, ..plan(&folder) });
    sink.write(flows((0..10).map(|place| HOUR + place)), Timestamp(HOUR));
    let ledger = sink.ledger();
    assert_eq!((ledger.delivered, ledger.dropped_sum()), (10, 0));
    assert_eq!(folder.files().len(), 10);
}
