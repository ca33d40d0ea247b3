//! The query program over records that the probe's own sink wrote.
#![expect(clippy::disallowed_methods, reason = "programs and devices are waited for by the clock")]

#[path = "../../tests/tests/extremes/mod.rs"]
mod extremes;
mod folder;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use duckdb::Connection;
use folder::{Folder, files, stderr};
use serde_json::Value as Json;
use vmprobe::inventory::Mac;
use vmprobe::record::{InventoryRecord, Origin, Record, Rows, Table, TableVisitor, WindowRecord};
use vmprobe::time::Timestamp;

/// All that a table may hold, written by the probe's own sink.
fn with_records(name: &str) -> Folder {
    let folder = Folder::new(name);
    folder.write(extremes::rows(), Timestamp(1));
    folder
}

#[test]
fn every_table_reads_back_as_written() {
    struct Check(Rows, Folder);
    impl TableVisitor for Check {
        fn table<R: Record>(&mut self) {
            let origin = Origin::new("p1", "east");
            let rows = std::mem::take(R::of(&mut self.0));
            let expected: Vec<_> = rows.iter().map(|row| row.json(&origin)).collect();
            let (table, time) = (R::TABLE.name(), R::TABLE.time_column());
            assert_eq!(self.1.json(&format!("FROM {table} ORDER BY {time}")), expected);
        }
    }
    Table::visit(&mut Check(extremes::rows(), with_records("read-back")));
}

#[test]
fn tables_without_records_are_empty_and_typed() {
    let folder = Folder::new("empty");
    for table in Table::ALL {
        let name = table.name();
        assert_eq!(folder.json(&format!("FROM {name}")), [Json::Null; 0]);
        let described = folder.json(&format!("DESCRIBE {name}"));
        let text = |row: &Json, key: &str| row.get(key).and_then(Json::as_str).map(str::to_owned);
        let found: Vec<_> = described
            .iter()
            .map(|row| (text(row, "column_name"), text(row, "column_type")))
            .collect();
        let expected: Vec<_> = table
            .columns()
            .iter()
            .map(|column| (Some(column.name.to_owned()), Some(column.kind.sql().to_owned())))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn sums_beyond_64_bits_are_exact() {
    let folder = with_records("sums");
    let output = folder.query(&[
        "--format",
        "csv",
        "SELECT sum(packet_delta_count) + sum(packet_delta_count) AS s FROM flows",
    ]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "s\r\n36893488147419103230\r\n");
}

#[test]
fn nothing_outside_is_read_and_nothing_is_written() {
    let folder = with_records("locked");
    let before = files(&folder.0);
    let path = folder.0.to_string_lossy().replace('\'', "''");
    let outside = std::env::temp_dir().join(format!("vmprobe-outside-{}", std::process::id()));
    let outside = outside.to_string_lossy();
    let forbidden = [
        "FROM read_csv('/etc/passwd')".to_owned(),
        "FROM '/etc/passwd'".to_owned(),
        "SELECT content FROM read_text('/etc/passwd')".to_owned(),
        "FROM read_blob('/proc/self/environ')".to_owned(),
        "FROM read_json('/etc/passwd')".to_owned(),
        format!("FROM read_text('{path}/../../etc/passwd')"),
        "FROM read_parquet('/tmp/other.parquet')".to_owned(),
        "FROM read_csv('http://127.0.0.1:9/x.csv')".to_owned(),
        "FROM sniff_csv('/etc/passwd')".to_owned(),
        format!("FROM read_text('{path}/flows')"),
        "SELECT count(*) FROM glob('/etc/*')".to_owned(),
        "FROM query('COPY (SELECT 1) TO ''x.csv''')".to_owned(),
        format!("FROM enable_logging(storage = 'file', storage_path = '{outside}')"),
        format!("COPY (SELECT 1) TO '{outside}'"),
        format!("COPY (SELECT 1) TO '{path}/flows/x.parquet'"),
        format!("EXPORT DATABASE '{path}/x'"),
        format!("ATTACH '{path}/x.db'"),
        format!("ATTACH '{outside}'"),
        "INSTALL httpfs".to_owned(),
        "LOAD httpfs".to_owned(),
        "SET enable_external_access = true".to_owned(),
        "SET lock_configuration = false".to_owned(),
        "SET memory_limit = '1TB'".to_owned(),
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "DROP VIEW flows".to_owned(),
        "SELECT 1; SELECT 2".to_owned(),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{path}/x'"),
        format!("SELECT 1) ; COPY (SELECT 1) TO '{path}/x'; SELECT * FROM (SELECT 1"),
    ];
    for sql in forbidden {
        let output = folder.query(&[&sql]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(!stderr(&output).is_empty(), "{sql}");
        assert!(output.stdout.is_empty(), "{sql}");
    }
    assert_eq!(files(&folder.0), before);
    assert!(!Path::new(outside.as_ref()).exists());
}

/// Neither a name that leads elsewhere nor what the program holds open beside the records is read.
#[test]
fn links_and_open_files_lead_nowhere() {
    let (folder, other) = (with_records("links"), with_records("links-other"));
    let rows = folder.json("FROM flows").len();
    let foreign = files(&other.0.join("flows")).pop().expect("a file");
    let hour = files(&folder.0.join("flows")).pop().expect("a file");
    let link = hour.with_file_name("link.parquet");
    std::os::unix::fs::symlink(&foreign, &link).expect("a link");
    std::os::unix::fs::symlink(&other.0, folder.0.join("flows/1970-01-02")).expect("a link");
    std::os::unix::fs::symlink("1970-01-01", folder.0.join("flows/latest")).expect("a link");
    std::os::unix::fs::symlink("/no/disk", folder.0.join("flows/1970-01-03")).expect("a link");
    let notes = folder.0.join("flows/notes.txt");
    std::os::unix::fs::symlink("/etc/passwd", notes).expect("a link");
    assert_eq!(folder.json("FROM flows").len(), rows, "links are not followed");
    let said = stderr(&folder.query(&["FROM flows"]));
    assert!(said.contains("left out, links are not followed (4):"), "{said}");
    for name in ["link.parquet", "1970-01-02", "1970-01-03", "latest"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    for sql in [
        "FROM '/proc/self/fd/0'",
        "FROM \"/proc/self/fd/0.parquet\"",
        "FROM read_parquet('/proc/self/fd/0')",
        "SELECT * FROM flows WHERE EXISTS (FROM parquet_scan('/proc/self/fd/0'))",
    ] {
        let opened = fs::File::open(&foreign).expect("a file");
        let output = folder.command(&[sql]).stdin(opened).output().expect("the query program");
        assert_eq!(output.status.code(), Some(1), "{sql}: {output:?}");
    }
}

/// Files that DuckDB reads if nobody hinders it: the parser sees no function in these, so it is the lock alone
/// that does.
#[test]
fn a_file_outside_is_refused_by_the_lock() {
    let (folder, other) = (with_records("lock"), with_records("lock-other"));
    let foreign = files(&other.0.join("flows")).pop().expect("a file");
    let outside = other.0.join("x.parquet");
    let beside = folder.0.join("x.parquet");
    for copy in [&outside, &beside] {
        fs::copy(&foreign, copy).expect("copied");
    }
    // What is in this one may be read, for a record may come there while it is.
    let aside = folder.0.join(".compact-p1");
    fs::create_dir(&aside).expect("a folder");
    let [outside, beside, aside, other] =
        [&outside, &beside, &aside, &other.0].map(|path| path.display().to_string());
    for path in [
        outside.clone(),
        beside,
        format!("{other}/*.parquet"),
        format!("{aside}/../x.parquet"),
        format!("{aside}/./../x.parquet"),
        format!("{aside}/.//../x.parquet"),
        format!("{aside}/a/../../x.parquet"),
        format!("/proc/self/fd/../../..{outside}"),
        format!("/proc/PID/fd/../../..{outside}"),
        format!("/proc/PID/fd/./../../..{outside}"),
    ] {
        let sql = format!("SELECT count(*) FROM '{}'", path.replace('\'', "''"));
        // The program's number is known once a shell has become the program.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" --data \"$1\" \"$(echo \"$2\" | sed \"s/PID/$$/\")\""]);
        command.arg(env!("CARGO_BIN_EXE_vmprobe-query")).arg(&folder.0).arg(&sql);
        let output = command.output().expect("the query program");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{sql}: {output:?}");
        assert!(said.contains("Permission Error") && said.contains("disabled"), "{sql}: {said}");
        let unlocked = Connection::open_in_memory().expect("a database");
        let own = sql.replace("PID", &std::process::id().to_string());
        fs::create_dir_all(format!("{aside}/a")).expect("a folder");
        let rows = unlocked.query_row(&own, [], |row| row.get::<_, u64>(0));
        assert!(matches!(rows, Ok(1..)), "{own}: {rows:?}");
    }
}

#[test]
fn a_file_that_is_no_record_is_named() {
    let folder = with_records("foreign");
    let flows = folder.0.join("flows");
    let other =
        fs::read_dir(folder.0.join("taps/1970-01-01/00")).expect("a folder").flatten().next();
    let (torn, wrong) = (flows.join("torn.parquet"), flows.join("wrong.parquet"));

    fs::write(&torn, "PAR1 and no more").expect("a file");
    let output = folder.query(&["FROM flows"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("torn.parquet: a Parquet file without its end"), "{output:?}");
    assert!(folder.query(&["FROM taps"]).status.success(), "other tables are not harmed");
    fs::remove_file(&torn).expect("it is there");

    let footer = b"PAR1garbage!garbage!\x10\0\0\0PAR1";
    fs::write(&torn, footer).expect("a file");
    fs::copy(other.expect("a file of taps").path(), &wrong).expect("a file");
    let output = folder.query(&["FROM flows"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("torn.parquet: "), "{said}");
    assert!(said.contains("wrong.parquet: column "), "{said}");
    assert!(!said.contains("flows-p1"), "good files are not accused: {said}");

    let output =
        folder.query(&["--skip-bad-files", "--format", "csv", "SELECT count(*) FROM flows"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.ends_with(b"\r\n2\r\n"), "{output:?}");
    assert!(stderr(&output).contains("torn.parquet"), "left out, but not in silence");

    for number in 0..998 {
        fs::copy(&torn, flows.join(format!("torn-{number:03}.parquet"))).expect("a file");
    }
    for (arguments, code) in [(&["FROM flows"][..], 1), (&["--skip-bad-files", "FROM flows"], 0)] {
        let output = folder.query(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("(1000") && said.trim_end().ends_with("and 980 more"), "{said}");
        assert_eq!(said.lines().count(), 22, "{said}");
    }
}

/// Whoever puts a table on another disk may lead there.
#[test]
fn the_folder_of_a_table_may_be_a_link() {
    let (folder, other) = (with_records("table-link"), Folder::new("table-elsewhere"));
    let elsewhere = other.0.join("flows");
    fs::rename(folder.0.join("flows"), &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, folder.0.join("flows")).expect("a link");
    let output = folder.query(&["--format", "csv", "SELECT count(*) FROM flows"]);
    assert!(output.stdout.ends_with(b"\r\n2\r\n") && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn names_that_are_no_text_are_read_and_what_is_no_file_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = with_records("bytes");
    let file = files(&folder.0.join("flows")).pop().expect("a file");
    let name = |bytes: &'static [u8]| std::ffi::OsStr::from_bytes(bytes);
    let day = folder.0.join("flows").join(name(b"day-\xff"));
    fs::create_dir_all(day.join("00")).expect("a folder");
    fs::copy(&file, day.join("00").join(name(b"\xfe.parquet"))).expect("copied");
    fs::write(day.join(name(b"\xfd.txt")), "mine").expect("a file");
    assert_eq!(folder.json("FROM flows").len(), 3);
    fs::write(day.join(name(b"torn-\xff.parquet")), "PAR1").expect("a file");
    let pipe = day.join("pipe.parquet");
    assert!(Command::new("mkfifo").arg(pipe).status().is_ok_and(|made| made.success()));
    fs::create_dir(day.join("00/folder.parquet")).expect("a folder");
    let output = folder.query(&["FROM flows"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not records of vmprobe (3;"), "{said}");
    for problem in [
        "torn-\u{fffd}.parquet: 4 bytes are no Parquet file",
        "pipe.parquet: no regular file",
        "folder.parquet: no regular file",
    ] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    // Not by lines: texts of the records have some in them.
    let output = folder.query(&["--skip-bad-files", "--format", "json", "FROM flows"]);
    let rows: Vec<Json> = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!((output.status.code(), rows.len()), (Some(0), 3), "{}", stderr(&output));
}

#[test]
fn what_the_probe_still_writes_is_not_read() {
    let folder = with_records("temporary");
    fs::write(folder.0.join("flows/.tmp-flows-p1-0-0"), "half").expect("a file");
    fs::write(folder.0.join("flows/.hidden.parquet"), "half").expect("a file");
    assert_eq!(folder.json("FROM flows").len(), 2);
}

#[test]
fn a_query_that_takes_too_long_is_stopped() {
    let folder = Folder::new("slow");
    let start = Instant::now();
    let sql =
        "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7";
    let output = folder.query(&["--timeout-s", "1", sql]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("stopped after 1 s"), "{output:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// Probes that listen and say nothing.
#[test]
fn silent_probes_take_no_more_time_than_the_command_may() {
    let folder = with_records("silent");
    let socket = |number| folder.0.join(format!(".live-{number}.sock"));
    let _probes = [0, 1].map(|number| UnixListener::bind(socket(number)).expect("a socket"));
    for arguments in [&["--timeout-s=4", "SELECT 1"][..], &["topology", "--timeout-s=4"]] {
        let start = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"));
        let output = command.args(arguments).arg("--data").arg(&folder.0).output();
        let (output, took) = (output.expect("the query program"), start.elapsed());
        assert!(took < Duration::from_secs(8), "{took:?}");
        let said = stderr(&output);
        assert_eq!(said.matches("the newest records are missing").count(), 2, "{said}");
        assert!(output.status.success() || said.contains("stopped after 4 s"), "{said}");
    }
}

#[test]
fn a_query_that_is_cancelled_ends_at_once() {
    let folder = Folder::new("cancelled");
    let sql =
        "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7";
    for signal in ["-INT", "-TERM"] {
        let mut child = folder.command(&[sql]).stdout(Stdio::piped()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().expect("our child").is_none(), "it takes longer than that");
        let start = Instant::now();
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        let output = child.wait_with_output().expect("its end");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn a_folder_copied_elsewhere_gives_the_same_answers() {
    let folder = with_records("original");
    let sql = "SELECT * FROM windows ORDER BY window_start_ns";
    let expected = folder.json(sql);
    let copy = Folder::new("copy");
    for file in files(&folder.0) {
        let to = copy.0.join(file.strip_prefix(&folder.0).expect("below it"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(file, to).expect("copied");
    }
    // Of a probe that wrote there when it was copied nothing is left but a name.
    fs::write(copy.0.join(".live-p1.sock"), "").expect("a file");
    drop(folder);
    assert_eq!((expected.len(), copy.json(sql)), (2, expected));
    let output = copy.query(&[sql]);
    assert_eq!(stderr(&output), "");
}

/// A file whose end is whole and whose pages are not: the error says which it is.
#[test]
fn a_file_with_wrong_pages_is_named_when_it_is_read() {
    let folder = with_records("wrong-pages");
    let file = files(&folder.0.join("flows")).pop().expect("a file");
    let mut bytes = fs::read(&file).expect("a file");
    let pages = bytes.len() / 4;
    bytes[4..pages].fill(0xa5);
    fs::write(&file, bytes).expect("written");
    let output = folder.query(&["SELECT * FROM flows"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (said, name) = (stderr(&output), file.file_name().expect("a name").to_string_lossy());
    assert!(said.contains(name.as_ref()) && !said.contains("/proc/"), "{said}");
}

/// What a file of an earlier version lacks is null; what no version had is refused (see above).
#[test]
fn files_of_an_earlier_version_are_read_with_what_they_have() {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/records-v1");
    let expected = fs::read_to_string(stored.join("expected.json")).expect("the fixture");
    let expected: serde_json::Map<String, Json> = serde_json::from_str(&expected).expect("JSON");
    assert_eq!(expected.len(), 11, "its tables");
    let now: Vec<_> = Table::ALL.iter().map(|table| table.name()).collect();
    // A table that it did not have is there, and empty.
    let output = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"))
        .args(["--format", "csv", "--stored-only", "--data"])
        .arg(&stored)
        .arg("SELECT count(*) AS transactions, count(dns_question_name) AS names FROM apps")
        .output()
        .expect("the query program");
    let answer = String::from_utf8_lossy(&output.stdout);
    assert_eq!(answer.lines().collect::<Vec<_>>(), ["transactions,names", "0,0"]);
    for (table, rows) in expected {
        assert!(now.contains(&table.as_str()), "the table {table} is gone");
        let time = Table::ALL.iter().find(|it| it.name() == table).map(|it| it.time_column());
        let sql = format!("FROM {table} ORDER BY {}", time.expect("it is there"));
        let output = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"))
            .args(["--format", "json", "--stored-only", "--data"])
            .arg(&stored)
            .arg(&sql)
            .output()
            .expect("the query program");
        assert!(output.status.success(), "{}", stderr(&output));
        let found: Vec<serde_json::Map<String, Json>> =
            serde_json::from_slice(&output.stdout).expect("JSON");
        let rows = rows.as_array().expect("rows");
        assert_eq!(found.len(), rows.len(), "{table}");
        for (found, row) in found.iter().zip(rows) {
            let row = row.as_object().expect("a row");
            for (column, value) in found {
                assert_eq!(value, row.get(column).unwrap_or(&Json::Null), "{table}.{column}");
            }
            // Nothing that was stored has lost its name.
            assert!(row.keys().all(|column| found.contains_key(column)), "{table}");
        }
    }
}

#[test]
fn a_query_that_takes_too_much_memory_fails() {
    let folder = Folder::new("memory");
    let sql = "SELECT len(list(range)) FROM range(10000000)";
    assert!(folder.query(&["--memory-mib", "1024", sql]).status.success(), "there is enough");
    let output = folder.query(&["--memory-mib", "64", sql]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).to_lowercase().contains("memory"), "{output:?}");
}

#[test]
fn usage_is_2_and_errors_are_1() {
    let folder = Folder::new("codes");
    let code = |arguments: &[&str]| folder.query(arguments).status.code();
    assert_eq!(code(&["--format", "xml", "SELECT 1"]), Some(2));
    assert_eq!(code(&["--timeout-s", "0", "SELECT 1"]), Some(2));
    assert_eq!(code(&[]), Some(2));
    let topology = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"));
        command.args(["topology", "--data"]).arg(&folder.0).args(arguments);
        command.output().expect("the query program")
    };
    for (span, problem) in [
        (&["--from", "yesterday"][..], "--from yesterday: no time"),
        (&["--to", "1960-01-01T00:00:00Z"], "out of range"),
        (&["--from", "2", "--to", "1"], "--from must be before --to"),
    ] {
        let output = topology(span);
        assert_eq!(output.status.code(), Some(2), "{span:?}");
        assert!(stderr(&output).contains(problem), "{output:?}");
    }
    assert_eq!(topology(&["--from", "1", "--to", "2"]).status.code(), Some(0));
    assert_eq!(code(&["SELECT nothing FROM flows"]), Some(1));
    assert_eq!(code(&["SELECT 1"]), Some(0));
    let output = folder.query(&["SELEC 1"]);
    assert!(stderr(&output).contains("syntax error"), "{output:?}");
    fs::remove_dir_all(&folder.0).expect("it is there");
    let output = folder.query(&["SELECT 1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--data"), "{output:?}");
    assert_eq!(topology(&[]).status.code(), Some(1));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new("pipe");
    for format in ["table", "json", "csv"] {
        let mut child = folder
            .command(&["--format", format, "FROM range(1000000)"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the query program");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut line).expect("a line");
        drop(out);
        let output = child.wait_with_output().expect("its end");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{format}");
    }
}

#[test]
fn the_table_says_how_many_rows() {
    let folder = with_records("table");
    let output = folder.query(&["SELECT flow_id, source_mac FROM flows ORDER BY flow_id"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(lines.first().copied(), Some("flow_id               source_mac"));
    assert_eq!(lines.get(3).copied(), Some("18446744073709551615  ff:00:0a:b0:c1:de"));
    assert_eq!(lines.last().copied(), Some("(2 rows)"));
}

/// What the API said of a VM of that name on one network: it has the address.
fn fact_of(name: &str, address: [u8; 4]) -> InventoryRecord {
    InventoryRecord {
        uuid: Some(name.into()),
        name: Some(name.into()),
        address: Some(address.into()),
        segment: Some("default/vlan/7".into()),
        address_space: Some("default/vlan/7".into()),
        attributed: true,
        valid_from_ns: 10,
        known_from_ns: 50,
        source: "api".into(),
        ..InventoryRecord::default()
    }
}

/// A run that was started again knows from its journal what the one before knew, and learns late that an
/// address had been taken off before it was started.
#[test]
fn what_a_later_run_learns_of_the_past_holds_for_the_run_before_too() {
    let fact = |run_start_ns, fact_id, name: &str, address: [u8; 4]| InventoryRecord {
        fact_id,
        run_start_ns,
        ..fact_of(name, address)
    };
    let (left, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let again = fact(200, 3, "left", left);
    let inventory = vec![
        fact(100, 1, "left", left),
        fact(100, 2, "other", other),
        // The same, by what it knows it from another number.
        again.clone(),
        InventoryRecord { known_to_ns: Some(250), ..again.clone() },
        InventoryRecord { fact_id: 4, valid_to_ns: Some(150), known_from_ns: 250, ..again },
    ];
    let window = |window_start_ns| WindowRecord {
        window_start_ns,
        window_end_ns: window_start_ns + 1,
        segment: "default/vlan/7".into(),
        address_space: "default/vlan/7".into(),
        source_address: left.into(),
        destination_address: other.into(),
        ..WindowRecord::default()
    };
    let windows = vec![window(120), window(160), window(220)];
    let folder = Folder::new("runs");
    folder.write(Rows { inventory, windows, ..Rows::default() }, Timestamp(1));
    let known = folder.json(
        "SELECT run_start_ns AS run, name, valid_to_ns AS until FROM inventory_now ORDER BY run",
    );
    let expected = [
        serde_json::json!({"run": 100, "name": "other", "until": 200}),
        serde_json::json!({"run": 200, "name": "left", "until": 150}),
    ];
    assert_eq!(known, expected);
    let who = folder.json(
        "SELECT source_virtual_station_name AS source, destination_virtual_station_name AS destination \
         FROM windows_now ORDER BY window_start_ns",
    );
    let expected = [
        serde_json::json!({"source": "left", "destination": "other"}),
        serde_json::json!({"source": null, "destination": "other"}),
        serde_json::json!({"source": null, "destination": null}),
    ];
    assert_eq!(who, expected);
}

/// The MAC address beside an address that no router passes on is the endpoint's own: 169.254.0.0/16, fe80::/10
/// and the unspecified ones, and no others.
#[test]
fn who_has_an_address_of_the_link_is_known_by_its_mac() {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let known = fact_of("vm", [10, 0, 0, 1]);
    let inventory = vec![InventoryRecord { run_start_ns: 100, mac: Some(mac), ..known }];
    let of_the_link =
        ["fe80::1", "fe8f::1", "fe90::1", "fea1:2::", "febf:ffff::1", "169.254.7.1", "::"];
    let others = ["fe7f::1", "fec0::1", "fe8::1", "fd80::1", "10.0.0.9", "169.25.4.1"];
    let parsed =
        of_the_link.iter().chain(&others).map(|text| text.parse::<IpAddr>().expect("an address"));
    let windows = parsed.map(|source_address| WindowRecord {
        window_start_ns: 120,
        window_end_ns: 121,
        segment: "default/vlan/7".into(),
        address_space: "default/vlan/7".into(),
        source_address,
        source_mac: Some(mac),
        destination_address: [10, 9, 9, 9].into(),
        ..WindowRecord::default()
    });
    let folder = Folder::new("link");
    folder.write(Rows { inventory, windows: windows.collect(), ..Rows::default() }, Timestamp(1));
    let named = folder.json(
        "SELECT source_address AS address FROM windows_now \
         WHERE source_virtual_station_name = 'vm' ORDER BY 1",
    );
    let named: Vec<_> = named.iter().filter_map(|row| row["address"].as_str()).collect();
    let mut wanted = of_the_link;
    wanted.sort_unstable();
    assert_eq!(named, wanted);
}
