//! The graph of a span against what SQL says of it.

mod churn;
mod folder;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Output};

use churn::{BEGIN_NS, Random, facts, windows};
use folder::{Folder, stderr};
use serde_json::Value as Json;
use vmprobe::record::Rows;
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

#[test]
fn a_file_with_wrong_pages_is_named() {
    let folder = Folder::new("wrong-windows");
    let rows = Rows { windows: windows(&mut Random(1), 2_000), ..Rows::default() };
    folder.write(rows, Timestamp(BEGIN_NS));
    let day = fs::read_dir(folder.0.join("windows")).expect("days").flatten().next();
    let hour = fs::read_dir(day.expect("a day").path()).expect("hours").flatten().next();
    let file = fs::read_dir(hour.expect("an hour").path()).expect("files").flatten().next();
    let file = file.expect("a file").path();
    let mut bytes = fs::read(&file).expect("a file");
    let footer = *bytes.last_chunk::<8>().expect("its end").first_chunk().expect("a length");
    let pages = bytes.len() - 8 - usize::try_from(u32::from_le_bytes(footer)).expect("a length");
    bytes[4..pages].fill(0xa5);
    fs::write(&file, bytes).expect("written");
    let output = topology(&folder, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (said, name) = (stderr(&output), file.file_name().expect("a name").to_string_lossy());
    assert!(said.contains(name.as_ref()) && !said.contains("/proc/"), "{said}");
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
        let [_, second, third, fourth] = u32::to_be_bytes(number);
        window.source_address = Ipv4Addr::new(198, second, third, fourth).into();
        window.source_mac = None;
    }
    folder.write(Rows { windows, inventory, ..Rows::default() }, Timestamp(BEGIN_NS));
    let small = topology(&folder, &["--memory-mib", "128"]);
    assert!(small.status.success(), "{}", stderr(&small));
    let large = topology(&folder, &["--memory-mib", "4096"]);
    assert!(large.status.success(), "{}", stderr(&large));
    assert!(small.stdout == large.stdout, "the same graph");
    let graph: Json = serde_json::from_slice(&small.stdout).expect("JSON");
    let mut kinds = BTreeMap::<_, u64>::new();
    for edge in graph["edges"].as_array().expect("edges") {
        *kinds.entry(edge["kind"].as_str().expect("a kind")).or_default() += 1;
    }
    assert_eq!(kinds.get("conversation"), Some(&2_000), "{kinds:?}");
    assert!(graph["left_out"]["conversations"].as_u64() > Some(100_000));
}
