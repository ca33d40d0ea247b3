//! The keeper with children that are scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::export::parquet::test_folder::Folder;

/// A keeper of a folder, whose clock is known, and whose program is this script. The round is in `$round`.
fn keeper(folder: &Folder, script: &str) -> Keeper {
    let program = folder.0.join("program");
    fs::write(&program, format!("#!/bin/sh\nround=$(cat)\n{script}\n")).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let store = StorePlan { folder: Some(folder.0.clone()), ..StorePlan::default() };
    let plan = UpkeepPlan { store, probe_id: "p1".to_owned(), program };
    let packets_ns = Arc::new(AtomicU64::new(480_000 * HOUR_NS));
    Keeper::new(plan, packets_ns, Arc::default(), Arc::default())
}

fn tidy(keeper: &mut Keeper) {
    assert!(keeper.start_tidying());
    while keeper.tidying.is_some() {
        keeper.look_at_tidying();
        sleep_ms(1);
    }
}

fn roll(keeper: &mut Keeper) {
    while keeper.rolling.is_some() {
        keeper.look_at_rolling();
        sleep_ms(1);
    }
}

/// The records are gone: that the child died afterwards brings none back.
#[test]
fn what_a_round_did_before_it_died_is_booked() {
    let folder = Folder::new("keeper-died");
    let removed = r#"{"done":{"by_age":{"files":1,"records":7,"bytes":9},"problems":["one"]}}"#;
    let leave = r#"{"done":{"merged_files":4,"leave":["flows/a"]}}"#;
    let script = format!(
        "echo '{removed}'; echo '{removed}'; echo '{{\"at\":\"flows/a\"}}'; echo '{leave}'\n\
         echo '{{\"at\":\"flows/b\"}}'; kill -KILL $$"
    );
    let mut keeper = keeper(&folder, &script);
    tidy(&mut keeper);
    let report = keeper.report.load();
    assert_eq!(report.removed_by_age, Removed { files: 2, records: 14, bytes: 18 });
    assert_eq!(report.merged_files, 4);
    assert_eq!(keeper.leave.iter().collect::<Vec<_>>(), ["flows/a", "flows/b"]);
    assert!(keeper.told.contains("one") && keeper.told.len() == 2, "{:?}", keeper.told);
    assert!(keeper.rolling.is_none());
}

/// No hour is to blame where none is worked on.
#[test]
fn a_round_that_dies_between_hours_blames_none() {
    let folder = Folder::new("keeper-between");
    let script = r#"echo '{"at":"flows/a"}'; echo '{"done":{}}'; exit 1"#;
    let mut keeper = keeper(&folder, script);
    tidy(&mut keeper);
    assert_eq!((keeper.leave.len(), keeper.told.len()), (0, 1));
}

/// Hours that cannot be added up are merged, removed and tried again all the same.
#[test]
fn failed_roll_ups_stop_no_merging() {
    let folder = Folder::new("keeper-rolls");
    let names: Vec<_> = (0..400).map(|hour| format!("windows/{hour}")).collect();
    for name in &names {
        fs::create_dir_all(folder.0.join(name)).expect("a folder");
    }
    let list = serde_json::to_string(&names).expect("texts");
    let script = format!(
        "case $round in *roll_up*) echo '{{\"done\":{{\"leave\":{list},\"problems\":[\"no\"]}}}}';; esac"
    );
    let mut keeper = keeper(&folder, &script);
    tidy(&mut keeper);
    roll(&mut keeper);
    assert_eq!(keeper.held.left(monotonic_ns()).len(), 400, "they wait");
    assert_eq!(keeper.held.left(u64::MAX), [""; 0], "but not for ever");
    let round = keeper.round().expect("the clock is known");
    assert!(round.compact && round.leave.is_empty());
    // They go with their hours.
    for name in &names[1..] {
        fs::remove_dir(folder.0.join(name)).expect("it is there");
    }
    keeper.whole_due_ns = 0;
    keeper.round();
    assert_eq!(keeper.held.left(monotonic_ns()), ["windows/0"]);
}

#[test]
fn that_merging_stops_is_told_and_ends_with_the_hours() {
    let folder = Folder::new("keeper-stops");
    let mut keeper = keeper(&folder, "");
    let names: Vec<_> = (0..=LEAVE_MAX).map(|hour| format!("flows/{hour}")).collect();
    for name in &names {
        fs::create_dir_all(folder.0.join(name)).expect("a folder");
    }
    keeper.leave.extend(names.clone());
    assert!(!keeper.round().expect("the clock is known").compact);
    assert!(keeper.told.iter().any(|told| told.contains("no small files are merged")));
    fs::remove_dir(folder.0.join(&names[7])).expect("it is there");
    keeper.whole_due_ns = 0;
    assert!(keeper.round().expect("the clock is known").compact);
}

/// What is kept is looked at while an hour is added up for a quarter of an hour.
#[test]
fn tidying_does_not_wait_for_roll_ups() {
    let folder = Folder::new("keeper-beside");
    let script = r#"case $round in *roll_up*) echo '{"at":"windows/a"}'; exec sleep 600;; esac
        echo '{"done":{"by_size":{"files":1,"records":1,"bytes":1}}}'"#;
    let mut keeper = keeper(&folder, script);
    for round in 1..=3 {
        keeper.whole_due_ns = 0;
        tidy(&mut keeper);
        keeper.look_at_rolling();
        assert_eq!(keeper.report.load().removed_by_size.records, round);
        assert!(keeper.rolling.is_some());
    }
    // It ends with the keeper.
    drop(keeper);
}

/// However many hours there are, and whatever is said.
#[test]
fn a_round_has_any_length_and_nonsense_harms_nobody() {
    let folder = Folder::new("keeper-long");
    let script = r#"echo nonsense; echo "{\"done\":{\"merged_files\":${#round}}}""#;
    let mut keeper = keeper(&folder, script);
    let leave: Vec<_> = (0..20_000).map(|hour| format!("flows/2026-01-01/{hour}")).collect();
    let round = Round { leave, ..keeper.round().expect("the clock is known") };
    let running = Running::start(&keeper.plan.program, &round, TIDY_MS_MAX).expect("it starts");
    keeper.tidying =
        Some(Tidying { running, round, unlogged: Tidied::default(), unfinished: false });
    while keeper.tidying.is_some() {
        keeper.look_at_tidying();
        sleep_ms(1);
    }
    assert!(keeper.report.load().merged_files > 400_000, "{:?}", keeper.report);
    assert!(keeper.told.iter().any(|told| told.contains("no step")), "{:?}", keeper.told);
}

/// The end of the run waits for no round, and counts what that has done.
#[test]
fn the_end_of_the_run_ends_a_round() {
    let folder = Folder::new("keeper-ends");
    let script = r#"echo '{"done":{"by_age":{"files":1,"records":3,"bytes":9}}}'
        touch "$0.said"; exec sleep 600"#;
    let keeper = keeper(&folder, script);
    let (ending, report) = (Arc::clone(&keeper.ending), Arc::clone(&keeper.report));
    let thread = std::thread::spawn(move || keeper.run());
    while !folder.0.join("program.said").exists() {
        sleep_ms(1);
    }
    ending.store(true, Ordering::Relaxed);
    thread.join().expect("it ends");
    assert_eq!(report.load().removed_by_age.records, 3);
}
