//! The graph of a span against what SQL says of it.

mod churn;
mod folder;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use churn::{BEGIN_NS, Random, facts, windows};
use folder::{Folder, files, stderr};
use serde_json::Value as Json;
use vmprobe::record::{InventoryRecord, MigrationRecord, Rows, WindowRecord};
use vmprobe::time::Timestamp;

fn topology(folder: &Folder, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"));
    command.arg("topology").arg("--data").arg(&folder.0).args(arguments);
    command.output().expect("the query program")
}

fn graph(folder: &Folder, arguments: &[&str]) -> Json {
    let output = topology(folder, arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

/// What an edge says that sums can be compared of.
type Edge = (Vec<String>, [u64; 4]);

fn edges(graph: &Json) -> Vec<Edge> {
    let edges = graph["edges"].as_array().expect("edges").iter();
    let mut edges: Vec<_> = edges
        .filter(|edge| edge["kind"] == "conversation")
        .map(|edge| {
            let names = ["source", "target", "destination_port", "traffic_class"]
                .map(|name| edge[name].to_string());
            let sums = [
                "octet_delta_count",
                "reverse_octet_delta_count",
                "first_window_start_ns",
                "last_window_end_ns",
            ];
            (names.to_vec(), sums.map(|name| edge[name].as_u64().expect("a number")))
        })
        .collect();
    edges.sort();
    edges
}

/// Windows summed up over the time in which nothing changes say the same as each by itself, however much
/// changes.
#[test]
fn edges_are_the_sums_of_the_windows_as_known_now() {
    for seed in 0..6 {
        let folder = Folder::new(&format!("churn-{seed}"));
        let mut random = Random(seed);
        let inventory = if seed == 0 { Vec::new() } else { facts(&mut random) };
        let rows = Rows { windows: windows(&mut random, 4_000), inventory, ..Rows::default() };
        folder.write(rows, Timestamp(BEGIN_NS));
        let end = |end: &str| {
            format!(
                "CASE WHEN {end}_virtual_station_uuid IS NULL \
                 THEN 'endpoint:' || address_space || '/' || {end}_address \
                 ELSE 'vm:' || {end}_virtual_station_uuid END"
            )
        };
        let expected = folder.json(&format!(
            "SELECT {} AS source, {} AS target, destination_port, traffic_class, \
             sum(octet_delta_count)::UBIGINT AS octet_delta_count, \
             sum(reverse_octet_delta_count)::UBIGINT AS reverse_octet_delta_count, \
             min(window_start_ns) AS first_window_start_ns, \
             max(window_end_ns) AS last_window_end_ns, 'conversation' AS kind \
             FROM windows_now GROUP BY ALL",
            end("source"),
            end("destination")
        ));
        let expected = edges(&serde_json::json!({ "edges": expected }));
        let found = graph(&folder, &["--limit", "100000"]);
        assert!(expected.len() > 100 && edges(&found) == expected, "seed {seed}");
        assert_eq!(found["left_out"]["conversations"], 0);
        // The largest, and what is left out with its sums.
        let octets = |edge: &Edge| edge.1[0] + edge.1[1];
        let sum = |edges: &[Edge]| edges.iter().map(octets).sum::<u64>();
        let some = graph(&folder, &["--limit", "50"]);
        let (kept, left) = (edges(&some), &some["left_out"]);
        let mut sizes: Vec<_> = expected.iter().map(octets).collect();
        sizes.sort_unstable_by(|one, two| two.cmp(one));
        assert_eq!(sum(&kept), sizes.iter().take(50).sum::<u64>(), "seed {seed}");
        assert_eq!(left["conversations"], expected.len() - 50);
        assert_eq!(left["octets"], sum(&expected) - sum(&kept));
    }
}

const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3_600 * SECOND_NS;
/// The first hour that windows are of.
const FIRST_NS: u64 = BEGIN_NS / HOUR_NS * HOUR_NS;

/// Five minutes become three hours.
fn stretch(time_ns: u64) -> u64 {
    if time_ns < BEGIN_NS { time_ns } else { BEGIN_NS + (time_ns - BEGIN_NS) * 36 }
}

fn stretched_facts(random: &mut Random) -> Vec<InventoryRecord> {
    let mut facts = facts(random);
    for fact in &mut facts {
        fact.valid_from_ns = stretch(fact.valid_from_ns);
        fact.valid_to_ns = fact.valid_to_ns.map(stretch);
    }
    facts
}

/// Stores windows of some hours, one after the other. Where they are `odd`, some last a quarter of an hour,
/// and some come hours late and lie under another.
fn write_hours(folder: &Folder, random: &mut Random, count: u64, odd: bool) {
    let mut of_hours = BTreeMap::<u64, Vec<WindowRecord>>::new();
    for (number, mut window) in (0..).zip(windows(random, count)) {
        window.window_start_ns = stretch(window.window_start_ns);
        let length_s = if odd && number % 5 == 0 { 900 } else { 1 };
        window.window_end_ns = window.window_start_ns + length_s * SECOND_NS;
        let late = if odd && number % 97 == 0 { 3 } else { 0 };
        let hour = (window.window_start_ns - FIRST_NS) / HOUR_NS + late;
        of_hours.entry(hour).or_default().push(window);
    }
    for (hour, windows) in of_hours {
        let rows = Rows { windows, ..Rows::default() };
        folder.write(rows, Timestamp(FIRST_NS + hour * HOUR_NS));
    }
}

/// Windows of some hours, and an inventory that changes at their ends.
fn stretched(name: &str, seed: u64, count: u64, odd: bool) -> Folder {
    let folder = Folder::new(name);
    let mut random = Random(seed);
    let inventory = stretched_facts(&mut random);
    folder.write(Rows { inventory, ..Rows::default() }, Timestamp(BEGIN_NS));
    write_hours(&folder, &mut random, count, odd);
    folder
}

fn hours(folder: &Folder) -> Vec<PathBuf> {
    let days = fs::read_dir(folder.0.join("windows")).expect("days").flatten();
    let hours = days.flat_map(|day| fs::read_dir(day.path()).expect("hours").flatten());
    let mut hours: Vec<_> = hours.map(|entry| entry.path()).collect();
    hours.sort();
    hours
}

fn files_of(hour: &Path, rolled: bool) -> Vec<PathBuf> {
    let paths = fs::read_dir(hour).expect("an hour").flatten().map(|entry| entry.path());
    let is_rolled = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    paths.filter(|path| is_rolled(path) == rolled).collect()
}

fn roll_up(folder: &Folder, hour: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"));
    command.arg("roll-up").arg("--hour").arg(hour).args(["--probe", "p1", "--work"]);
    let output = command.arg(folder.0.join(".compact-p1")).output().expect("the query program");
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Graphs of all there is, of an hour, of a tenant's hours, and of what begins and ends within hours.
fn graphs(folder: &Folder) -> Vec<String> {
    let at = |half_hours: u64| (FIRST_NS + half_hours * HOUR_NS / 2).to_string();
    let [whole, end, middle, other] = [2, 4, 3, 5].map(at);
    let spans: [&[&str]; 5] = [
        &["--limit", "100000"],
        &["--limit", "100000", "--from", &whole, "--to", &end],
        &["--limit", "100000", "--from", &whole, "--tenant", "tenant-1"],
        &["--limit", "100000", "--from", &middle, "--to", &other],
        &["--limit", "50", "--from", &middle],
    ];
    let graph = |span: &[&str]| {
        let output = topology(folder, span);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    spans.map(graph).into()
}

/// Hours that stand added up give the same graph, whatever the span, also where more became known since.
#[test]
fn graphs_of_hours_that_stand_added_up_are_the_same() {
    for seed in 0..2 {
        let folder = stretched(&format!("added-up-{seed}"), seed, 1_500, true);
        let plain = graphs(&folder);
        let hours = hours(&folder);
        assert!(hours.len() >= 4, "{hours:?}");
        for hour in &hours[..hours.len() - 1] {
            roll_up(&folder, hour);
            assert_eq!(files_of(hour, true).len(), 4);
        }
        assert!(graphs(&folder) == plain, "seed {seed}");

        // What nobody knew when they were added up.
        let mut late = stretched_facts(&mut Random(seed + 100));
        for fact in &mut late {
            fact.fact_id += 1_000;
        }
        let at = Timestamp(BEGIN_NS);
        folder.write(Rows { inventory: late, ..Rows::default() }, at);
        let known_since = graphs(&folder);
        assert!(known_since != plain, "it says more");
        for rolled in hours.iter().flat_map(|hour| files_of(hour, true)) {
            fs::remove_file(rolled).expect("it is there");
        }
        assert!(graphs(&folder) == known_since, "seed {seed}, known since");
    }
}

/// An hour that stands added up is made of no windows.
#[test]
fn hours_that_stand_added_up_are_what_is_read() {
    let folder = stretched("added-up-read", 7, 3_000, false);
    let span = [FIRST_NS + HOUR_NS, FIRST_NS + 2 * HOUR_NS].map(|at| at.to_string());
    let arguments = ["--from", span[0].as_str(), "--to", span[1].as_str()];
    let plain = topology(&folder, &arguments);
    let hours = hours(&folder);
    for (place, hour) in hours.iter().enumerate() {
        if place + 1 < hours.len() {
            roll_up(&folder, hour);
        }
        for file in files_of(hour, false) {
            spoil(&file);
        }
    }
    let rolled = topology(&folder, &arguments);
    assert!(rolled.status.success(), "{}", stderr(&rolled));
    let conversations = String::from_utf8_lossy(&plain.stdout).matches("\"conversation\"").count();
    assert!(rolled.stdout == plain.stdout && conversations > 100, "{conversations}");
    assert_eq!(topology(&folder, &[]).status.code(), Some(1), "the last hour needs them");
}

/// Pages that nobody can read, in a file that is as large as before.
fn spoil(file: &Path) {
    let mut bytes = fs::read(file).expect("a file");
    let footer = *bytes.last_chunk::<8>().expect("its end").first_chunk().expect("a length");
    let pages = bytes.len() - 8 - usize::try_from(u32::from_le_bytes(footer)).expect("a length");
    bytes[4..pages].fill(0xa5);
    fs::write(file, bytes).expect("written");
}

#[test]
fn a_file_with_wrong_pages_is_named() {
    let folder = Folder::new("wrong-windows");
    let rows = Rows { windows: windows(&mut Random(1), 2_000), ..Rows::default() };
    folder.write(rows, Timestamp(BEGIN_NS));
    let day = fs::read_dir(folder.0.join("windows")).expect("days").flatten().next();
    let hour = fs::read_dir(day.expect("a day").path()).expect("hours").flatten().next();
    let file = fs::read_dir(hour.expect("an hour").path()).expect("files").flatten().next();
    let file = file.expect("a file").path();
    spoil(&file);
    let output = topology(&folder, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (said, name) = (stderr(&output), file.file_name().expect("a name").to_string_lossy());
    assert!(said.contains(name.as_ref()) && !said.contains("/proc/"), "{said}");
}

/// A graph without what cannot be read has each in its warnings, once, though several tables are made of it.
#[test]
fn what_a_graph_was_made_without_stands_in_it() {
    use std::os::unix::fs::symlink;
    let folder = stretched("warnings", 3, 500, false);
    let root = folder.0.canonicalize().expect("a folder");
    let hours = hours(&folder).into_iter().map(|hour| hour.canonicalize().expect("an hour"));
    let hours: Vec<_> = hours.collect();
    let whole = graph(&folder, &[]);
    assert_eq!(whole["warnings"], Json::Array(Vec::new()));

    let wrong = hours[0].join("windows-p2-7-1.parquet");
    let inventory = files(&folder.0.join("inventory")).pop().expect("a file of the inventory");
    fs::copy(inventory, &wrong).expect("copied");
    let torn = hours[0].join("windows-p2-8-1.parquet");
    fs::write(&torn, "PAR1").expect("a file");
    let link = hours[1].join("windows-p2-9-1.parquet");
    symlink(&torn, &link).expect("a link");
    let nowhere = root.join("path");
    symlink(root.join("not there"), &nowhere).expect("a link");
    // A socket that cannot be asked; one of another user is no obstacle to root.
    let socket = ".live-p1.sock";
    symlink(socket, folder.0.join(socket)).expect("a link");

    for rolled in [false, true] {
        if rolled {
            for hour in &hours {
                fs::rename(&wrong, folder.0.join("aside")).expect("moved");
                fs::rename(&torn, folder.0.join("torn")).expect("moved");
                roll_up(&folder, hour);
                fs::rename(folder.0.join("aside"), &wrong).expect("moved");
                fs::rename(folder.0.join("torn"), &torn).expect("moved");
            }
        }
        let graph = graph(&folder, &["--skip-bad-files"]);
        let warnings: Vec<_> =
            graph["warnings"].as_array().expect("a list").iter().filter_map(Json::as_str).collect();
        let [newest, links, ends, columns] = &warnings[..] else { panic!("{warnings:#?}") };
        let unknown = "the newest records may be missing, no probe can be asked (.live-p1.sock: ";
        assert!(newest.starts_with(unknown), "{newest}");
        let of_links = format!("left out, links are not followed (1):\n  {}", link.display());
        assert_eq!(*links, of_links);
        let (nowhere, torn) = (nowhere.display(), torn.display());
        let of_ends = format!(
            "left out, not records of vmprobe (2):\n  {nowhere}: a link that leads nowhere\n  {torn}: 4 bytes are no \
             Parquet file"
        );
        assert_eq!(*ends, of_ends);
        let of_columns =
            format!("left out, not records of vmprobe (1):\n  {}: column ", wrong.display());
        assert!(columns.starts_with(&of_columns), "{columns}");
        assert_eq!(edges(&graph), edges(&whole), "all else is there");
    }
    for file in [&wrong, &torn, &link] {
        fs::remove_file(file).expect("it is there");
    }
    for refused in [topology(&folder, &[]), folder.query(&["FROM path"])] {
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(stderr(&refused).contains("path: a link that leads nowhere"), "{refused:?}");
    }
    assert!(folder.query(&["SELECT count(*) FROM windows"]).status.success());
}

/// More conversations than fit the memory: the same graph, in several passes.
#[test]
fn a_graph_that_does_not_fit_the_memory_is_made_in_parts() {
    let folder = Folder::new("parts");
    let mut random = Random(1);
    let mut inventory = facts(&mut random);
    inventory.truncate(40);
    let mut windows = windows(&mut random, 250_000);
    for (number, window) in (0..).zip(&mut windows) {
        // Two windows of each, whose other ends may stand beside one MAC address that is known and one that
        // is not.
        let [_, second, third, fourth] = u32::to_be_bytes(number / 2);
        window.source_address = Ipv4Addr::new(198, second, third, fourth).into();
        window.source_mac = None;
    }
    folder.write(Rows { windows, inventory, ..Rows::default() }, Timestamp(BEGIN_NS));
    let small = topology(&folder, &["--memory-mib", "128"]);
    assert!(small.status.success(), "{}", stderr(&small));
    let large = topology(&folder, &["--memory-mib", "4096"]);
    assert!(large.status.success(), "{}", stderr(&large));
    assert!(small.stdout == large.stdout, "the same graph");
    // Views over all windows hold no copy of them.
    let migration = MigrationRecord {
        time_ns: BEGIN_NS + 150 * SECOND_NS,
        virtual_station_uuid: Some("uuid-1".into()),
        ..MigrationRecord::default()
    };
    folder.write(Rows { migrations: vec![migration], ..Rows::default() }, Timestamp(BEGIN_NS));
    let sql = "SELECT count(*) FROM migration_lens";
    let lens = folder.query(&["--memory-mib", "128", "--format", "csv", sql]);
    assert!(lens.stdout.ends_with(b"\r\n1\r\n"), "{}", stderr(&lens));
    // And where its hour stands added up.
    for hour in hours(&folder) {
        roll_up(&folder, &hour);
    }
    let rolled = topology(&folder, &["--memory-mib", "128"]);
    assert!(rolled.stdout == large.stdout, "{}", stderr(&rolled));
    let graph: Json = serde_json::from_slice(&small.stdout).expect("JSON");
    let mut kinds = BTreeMap::<_, u64>::new();
    for edge in graph["edges"].as_array().expect("edges") {
        *kinds.entry(edge["kind"].as_str().expect("a kind")).or_default() += 1;
    }
    assert_eq!(kinds.get("conversation"), Some(&2_000), "{kinds:?}");
    assert!(graph["left_out"]["conversations"].as_u64() > Some(100_000));
}
