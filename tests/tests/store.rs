//! The store as a whole: small files are merged and old ones removed while it is asked, and whatever
//! happens meanwhile, each row is found exactly once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value as Json, json};
use vmprobe::config::StorePlan;
use vmprobe::export::ParquetSink;
use vmprobe::record::{FlowRecord, Rows, WindowRecord};
use vmprobe::store::{Step, Tidied};
use vmprobe::time::{Timestamp, monotonic_ns, sleep_us};
use vmprobe_tests::end_to_end::{
    Ended, Folder, NOT_BUILT, SmallDisk, built, missing, query, run_to_end, skipped, vmprobe,
};
use vmprobe_tests::records::finished_files;

const HOUR_NS: u64 = 3_600_000_000_000;
/// The hour of the records.
const HOUR: u64 = 480_000;

/// Writes `files` files of `flows` flows each, whose ids go on from `from`.
fn write(folder: &Path, from: u64, files: u64, flows: u64) {
    let plan =
        StorePlan { folder: Some(folder.to_owned()), free_mib_min: 0, ..StorePlan::default() };
    let mut sink = ParquetSink::new(&plan, "p1", "east").expect("a folder");
    for file in 0..files {
        let flow = |place: u64| {
            let flow_id = from + file * flows + place;
            // Texts that do not compress, so that merging takes a while.
            let text = format!("{:x}", flow_id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            FlowRecord {
                flow_id,
                flow_end_ns: HOUR * HOUR_NS + flow_id,
                address_space: text.into(),
                ..FlowRecord::default()
            }
        };
        let rows = Rows { flows: (0..flows).map(flow).collect(), ..Rows::default() };
        sink.write(rows, Timestamp(HOUR * HOUR_NS));
        assert!(sink.close(Timestamp(HOUR * HOUR_NS)), "{:?}", sink.health());
    }
}

/// A round as `vmprobe run` starts it.
fn tidy(folder: &Path) -> Command {
    round(folder, "tidy")
}

fn round(folder: &Path, work: &str) -> Command {
    let round = json!({
        "work": work, "folder": folder, "probe_id": "p1", "hour": HOUR + 2, "run_hour": HOUR,
        "keep_days": null, "size_mib_max": null, "free_mib_min": 0, "compact": true, "whole": true,
        "leave": [],
    });
    with_input(&round.to_string())
}

/// The command of rounds, which reads what is to be done.
fn with_input(round: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" <<ROUND\n$0\nROUND", round]);
    command.arg(vmprobe()).arg("tidy-store");
    command
}

/// What a round says it did.
fn tidied(ended: &Ended) -> Tidied {
    ended.expect(0, &[]);
    let mut sum = Tidied::default();
    for line in ended.output.lines() {
        if let Step::Done(done) = serde_json::from_str(line).expect("a step") {
            sum.add(done);
        }
    }
    sum
}

/// Ids of all flows, as any reader of Parquet finds them, sorted.
fn ids(folder: &Path) -> Vec<u64> {
    let mut ids = Vec::new();
    for file in finished_files(&folder.join("flows")) {
        let file = fs::File::open(file).expect("it is there");
        let built = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
        let only = ProjectionMask::columns(built.parquet_schema(), ["flow_id"]);
        for batch in built.with_projection(only).build().expect("a reader") {
            let batch = batch.expect("rows");
            ids.extend_from_slice(batch.column(0).as_primitive::<UInt64Type>().values());
        }
    }
    ids.sort_unstable();
    ids
}

fn merged(ended: &Ended) -> u64 {
    tidied(ended).merged_files
}

#[test]
fn a_merger_that_is_killed_anywhere_leaves_every_row_once() {
    let folder = Folder::new("killed-merger");
    let (mut rows, mut killed, mut done) = (0, 0, 0);
    let (mut merged_before, mut whole_us) = (0, 0);
    for round in 0..60_u64 {
        write(folder.root(), rows, 4, 100);
        rows += 400;
        if whole_us == 0 {
            let begun_ns = monotonic_ns();
            merged_before = merged(&run_to_end(tidy(folder.root())));
            whole_us = (monotonic_ns() - begun_ns) / 1_000;
            continue;
        }
        let mut merger = tidy(folder.root()).stdout(Stdio::null()).spawn().expect("the probe");
        // From before its first step to after its last one, which comes later each time: there is more
        // to merge, and the machine may do other things as well.
        sleep_us(whole_us * (round % 20) / 10);
        let ended = merger.try_wait().expect("it is our child").is_some();
        merger.kill().expect("SIGKILL");
        merger.wait().expect("its end");
        (killed, done) = if ended { (killed, done + 1) } else { (killed + 1, done) };
        assert_eq!(ids(folder.root()), (0..rows).collect::<Vec<_>>(), "round {round}");
        // The next one begins with as much to do.
        let begun_ns = monotonic_ns();
        run_to_end(tidy(folder.root())).expect(0, &[]);
        if !ended {
            whole_us = (monotonic_ns() - begun_ns) / 1_000;
        }
    }
    assert_eq!(merged_before, 4);
    assert!(killed > 5 && done > 5, "killed {killed}, done {done}: the times must be others");
    assert_eq!(ids(folder.root()), (0..rows).collect::<Vec<_>>());
    let files = finished_files(folder.root());
    assert_eq!(files.len(), 1, "{files:?}");
}

/// While files are written, merged and removed under it, a query finds what was there when it began.
#[test]
fn a_query_at_any_instant_finds_every_row_once() {
    if built("vmprobe-query").is_none() {
        skipped("queries while files are merged", NOT_BUILT);
        return;
    }
    let folder = Folder::new("asked-while-merged");
    write(folder.root(), 0, 4, 250);
    let sql = "SELECT count(*)::UBIGINT AS rows, count(DISTINCT flow_id)::UBIGINT AS flows, \
               max(flow_id)::UBIGINT AS last FROM flows";
    let asked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let merger = scope.spawn(|| {
            // However slow questions are, some fall between.
            let (mut round, mut merges) = (0, 0);
            while round < 15 || (round < 150 && asked.load(Ordering::Relaxed) <= 5) {
                round += 1;
                write(folder.root(), round * 1_000, 4, 250);
                merges += u64::from(merged(&run_to_end(tidy(folder.root()))) > 0);
            }
            (round, merges)
        });
        let mut before = 0;
        while !merger.is_finished() {
            let answer = query(folder.root(), sql).expect("it is built");
            let value = |name: &str| answer[0][name].as_u64().expect("a number");
            let rows = value("rows");
            assert!(rows >= before, "{answer}");
            assert_eq!((rows, rows), (value("flows"), value("last") + 1), "{answer}");
            before = rows;
            asked.fetch_add(1, Ordering::Relaxed);
        }
        let (rounds, merges) = merger.join().expect("it ends well");
        assert_eq!(merges, rounds);
        assert!(asked.load(Ordering::Relaxed) > 5, "{asked:?}");
    });
}

/// A disk that does not answer, in the person of a file that another program holds a lease on: opening it
/// waits until that one gives it up.
#[test]
fn a_disk_that_hangs_is_not_waited_for() {
    const HOLD: &str = "import fcntl, os, signal, sys\n\
        signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
        held = os.open(sys.argv[1], os.O_RDWR)\n\
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print('held', flush=True)\n\
        sys.stdin.read()";
    let Some(program) = built("vmprobe-query") else {
        return skipped("queries to a disk that hangs", NOT_BUILT);
    };
    let folder = Folder::new("hangs");
    write(folder.root(), 0, 1, 10);
    let file = finished_files(folder.root()).pop().expect("a file");
    let mut hold = Command::new("python3");
    hold.args(["-c", HOLD]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut holder) = hold.spawn() else {
        return missing("queries to a disk that hangs", &["python3"], "python3");
    };
    let mut said = String::new();
    let out = holder.stdout.take().expect("a pipe");
    BufReader::new(out).read_line(&mut said).expect("it says that it has it");
    assert_eq!(said.trim(), "held");
    let begun_ns = monotonic_ns();
    let mut command = Command::new(program);
    command.args(["--timeout-s=1", "FROM flows", "--data"]).arg(folder.root());
    let ended = run_to_end(command);
    let took_ns = monotonic_ns() - begun_ns;
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    ended.expect(1, &["stopped after 1 s"]);
    assert!((1_000_000_000..10_000_000_000).contains(&took_ns), "{took_ns}");
}

/// A round adds up the hours that are over, and questions find them.
#[test]
fn an_hour_that_is_over_is_added_up() {
    if built("vmprobe-query").is_none() {
        skipped("hours that stand added up", NOT_BUILT);
        return;
    }
    let folder = Folder::new("rolled-by-tidy");
    let plan = StorePlan {
        folder: Some(folder.root().to_owned()),
        free_mib_min: 0,
        ..StorePlan::default()
    };
    let hours = [HOUR - 1, HOUR, HOUR + 1];
    for hour in hours {
        let mut sink = ParquetSink::new(&plan, "p1", "east").expect("a folder");
        for file in 0..3 {
            let window = |place: u64| WindowRecord {
                window_start_ns: hour * HOUR_NS + file * 600_000_000_000 + place,
                octet_delta_count: 1,
                application_name: "tls",
                ..WindowRecord::default()
            };
            let rows = Rows { windows: (0..1_000).map(window).collect(), ..Rows::default() };
            sink.write(rows, Timestamp(hour * HOUR_NS));
            assert!(sink.close(Timestamp(hour * HOUR_NS)), "{:?}", sink.health());
        }
    }
    let merged = tidied(&run_to_end(tidy(folder.root())));
    assert_eq!((merged.merged_files, merged.rolled_hours), (6, 0), "{merged:?}");
    let roll_up = || tidied(&run_to_end(round(folder.root(), "roll_up")));
    // The last one may still get rows.
    assert_eq!(roll_up(), Tidied { rolled_hours: 2, ..Tidied::default() });
    assert_eq!(roll_up(), Tidied::default(), "they are there");
    let sql = "SELECT start_ns, application_name, sum(octet_delta_count)::UBIGINT AS octets, \
               count(*)::UBIGINT AS rows FROM windows_1h GROUP BY ALL ORDER BY 1";
    let answer = query(folder.root(), sql).expect("it is built");
    let expected = hours.map(|hour| {
        let rows = if hour == HOUR + 1 { 3_000 } else { 1 };
        json!({"start_ns": hour * HOUR_NS, "application_name": "tls", "octets": 3_000, "rows": rows})
    });
    assert_eq!(answer, json!(expected), "an hour that is over has one row");
}

#[test]
fn a_full_disk_keeps_what_there_is() {
    let folder = Folder::new("merge-full");
    let Some(disk) = SmallDisk::mount(folder.path("disk"), 4) else {
        skipped("merging onto a full disk", "needs root to mount a small one");
        return;
    };
    write(disk.root(), 0, 10, 10_000);
    let before = finished_files(disk.root());
    let ballast = disk.root().join("ballast");
    fill(&ballast);
    let problems = tidied(&run_to_end(tidy(disk.root()))).problems;
    let said = problems.first().map_or("", String::as_str);
    assert!(said.contains("free space") || said.contains("No space"), "{said}");
    assert_eq!(finished_files(disk.root()), before);
    assert_eq!(ids(disk.root()), (0..100_000).collect::<Vec<_>>());
    // Asking needs no room.
    if let Some(answer) = query(disk.root(), "SELECT count(*)::UBIGINT AS n FROM flows") {
        assert_eq!(answer, json!([{"n": 100_000}]));
    }
    fs::remove_file(ballast).expect("it is there");
    let disk_has_room = run_to_end(tidy(disk.root()));
    assert_eq!(merged(&disk_has_room), 10);
    assert_eq!(ids(disk.root()), (0..100_000).collect::<Vec<_>>());
}

/// A limit on the size of files hits in the middle of writing, whatever was looked at before.
#[test]
fn a_merger_that_may_not_write_on_keeps_what_there_is() {
    let folder = Folder::new("merge-limit");
    write(folder.root(), 0, 10, 10_000);
    let before = finished_files(folder.root());
    let tidy = tidy(folder.root());
    let mut limited = Command::new("sh");
    // SIGXFSZ ignored: writing fails with EFBIG.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"]);
    limited.arg(tidy.get_program()).args(tidy.get_args());
    let problems = tidied(&run_to_end(limited)).problems;
    assert!(problems.iter().any(|said| said.contains("File too large")), "{problems:?}");
    assert_eq!(finished_files(folder.root()), before);
    assert_eq!(ids(folder.root()), (0..100_000).collect::<Vec<_>>());
}

/// Writes until nothing fits any more.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).expect("a file");
    while file.write_all(&[1; 4_096]).is_ok() {}
}

#[test]
fn a_wrong_round_is_bad_usage() {
    run_to_end(with_input("{}")).expect(2, &["work"]);
}

#[cfg(feature = "dpdk")]
mod run {
    use vmprobe_tests::end_to_end::{Probe, get, until};

    use super::*;

    /// A probe that receives frames without end; files are closed every second, or hardly ever.
    fn start(folder: &Folder, store: &str) -> (Probe, String) {
        let text = format!(
            "[eal]\nfile_prefix = \"{}\"\nhuge_pages = false\nmemory_mib = 128\n\
             [[port]]\nname = \"p\"\ndevice = \"net_null0\"\nmbufs = 4095\n\
             [flow]\nslots_per_worker = 16384\n[serve]\nlisten = \"127.0.0.1:0\"\n\
             [window]\nlength_ms = 100\n[store]\nfolder = \"records\"\nfree_mib_min = 16\n{store}",
            folder.name()
        );
        let file = folder.write("vmprobe.toml", text);
        let mut command = Command::new(vmprobe());
        command.args(["run", "--json", "--seconds", "300", "-c"]).arg(file);
        let mut probe = Probe::start(command);
        let page = probe.receiving().expect("the page is on");
        (probe, page)
    }

    fn count(records: &Path, sql: &str, arguments: &[&str]) -> u64 {
        // A store that is busy for longer than it is waited for says so: it is asked again.
        let whole = until(60, || {
            let mut command = Command::new(built("vmprobe-query").expect("it is built"));
            command.args(["--format", "json", "--data"]).arg(records).args(arguments).arg(sql);
            let ended = run_to_end(command);
            ended.expect(0, &[]);
            (!ended.log.contains("the newest records are missing")).then_some(ended)
        });
        let answer: Json = serde_json::from_str(&whole.expect("an answer").output).expect("JSON");
        answer[0]["n"].as_u64().expect("a number")
    }

    #[test]
    fn a_query_sees_the_windows_that_are_in_no_file_yet() {
        if built("vmprobe-query").is_none() {
            skipped("queries of the last windows", NOT_BUILT);
            return;
        }
        let folder = Folder::new("live-query");
        let (probe, page) = start(&folder, "file_seconds = 3600\n");
        let records = folder.path("records");
        let windows = || get(&page, "/api/v1/live").json()["window_count"].as_u64().unwrap_or(0);
        assert!(until(60, || (windows() > 20).then_some(())).is_some(), "{}", probe.log());
        let sql = "SELECT count(DISTINCT window_start_ns)::UBIGINT AS n FROM ledger";
        assert_eq!(count(&records, sql, &["--stored-only"]), 0, "no file is closed yet");
        let shown = windows();
        let seen = count(&records, sql, &[]);
        assert!(seen >= shown, "{seen} of {shown} windows");
        // Again, as soon as there is more: the files that the first question closed, and what came since.
        assert!(until(10, || (windows() > seen).then_some(())).is_some(), "{}", probe.log());
        let shown = windows();
        let more = count(&records, sql, &[]);
        assert!(more >= shown && more > seen, "{more} of {shown} windows");
        probe.terminate();
        let report = probe.end(30).expect(0, &[]).json();
        // Each row once, also those that were asked for early.
        let doubled = "SELECT count(*)::UBIGINT AS n FROM (SELECT window_start_ns FROM ledger WHERE \
                       scope = 'probe' GROUP BY window_start_ns, measure HAVING count(*) > 1)";
        assert_eq!(count(&records, doubled, &[]), 0, "{report}");
        assert!(!records.join(".live-probe.sock").exists());
    }

    #[test]
    fn a_run_merges_its_small_files_by_itself() {
        let folder = Folder::new("run-merges");
        let (mut probe, page) = start(&folder, "file_seconds = 1\n");
        // Sixteen files of a second each, and the next round.
        probe.said("small files of the store merged", 120);
        let live = || get(&page, "/api/v1/live").json();
        let merged = until(10, || live()["store"]["merged_files"].as_u64().filter(|n| *n >= 16));
        assert!(merged.is_some(), "{}", live()["store"]);
        let metrics = get(&page, "/metrics").body;
        assert!(metrics.contains("vmprobe_store_merged_files_total "), "{metrics}");
        probe.terminate();
        let report = probe.end(30).expect(0, &[]).json();
        assert_eq!(report["ledger"]["unaccounted"], 0);
        let records = folder.path("records");
        let received = |row: &vmprobe_tests::records::Row| {
            row["scope"] == "probe" && row["measure"] == "received"
        };
        let rows = vmprobe_tests::records::rows(&records, "ledger");
        let sum = vmprobe_tests::records::sum(&rows, "packet_count", received);
        assert_eq!(Json::from(sum), report["ledger"]["received"], "each row once");
    }
}
