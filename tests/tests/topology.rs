//! The graph of a generated cloud: its sums are the generator's, its places the inventory's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use vmprobe::config::{self, Mode};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe_tests::end_to_end::{Folder, NOT_BUILT, built, missing, run_to_end, skipped};
use vmprobe_tests::replaying::run;

/// A cloud with a migration, played back into records.
fn played() -> (Folder, Json) {
    let folder = Folder::new("topology");
    let options = Options { duration_s: Some(20), ..Options::default() };
    generate(Scenario::Cloud, 7, folder.root(), options).expect("generated");
    let loaded = config::load(&folder.path("vmprobe.toml"), Mode::Replay);
    let mut plan = loaded.expect("the generator's configuration").plan;
    plan.serve.enabled = false;
    plan.store.free_mib_min = 0;
    let files = ["tap-a.pcap", "tap-b.pcap"].map(|name| folder.path(name));
    run(plan, &files, Some(&folder.path("records"))).expect("a replay");
    let truth = std::fs::read_to_string(folder.path("truth.json")).expect("the truth");
    (folder, serde_json::from_str(&truth).expect("JSON"))
}

/// The whole output of `vmprobe-query topology` over records, with further arguments.
fn topology(records: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(built("vmprobe-query")?);
    command.args(["topology", "--limit", "100000", "--data"]).arg(records).args(arguments);
    let ended = run_to_end(command);
    ended.expect(0, &[]);
    Some(ended.output)
}

fn list<'a>(graph: &'a Json, name: &str) -> &'a Vec<Json> {
    graph[name].as_array().expect("a list")
}

fn edges<'a>(graph: &'a Json, kind: &'a str) -> impl Iterator<Item = &'a Json> {
    list(graph, "edges").iter().filter(move |edge| edge["kind"] == kind)
}

fn number(edge: &Json, name: &str) -> u64 {
    edge[name].as_u64().expect("a number")
}

/// IP octets that each VM sent, by the edges.
fn sent(graph: &Json) -> BTreeMap<&str, u64> {
    let mut sent = BTreeMap::new();
    for edge in edges(graph, "conversation") {
        for (end, octets) in
            [("source", "octet_delta_count"), ("target", "reverse_octet_delta_count")]
        {
            let end = edge[end].as_str().expect("a name");
            if let Some(uuid) = end.strip_prefix("vm:") {
                *sent.entry(uuid).or_default() += number(edge, octets);
            }
        }
    }
    sent.retain(|_, octets| *octets > 0);
    sent
}

/// Playing the cloud takes longest, so it is done once.
#[test]
fn topology_of_a_cloud() {
    let (folder, truth) = played();
    let records = folder.path("records");
    let Some(text) = topology(&records, &[]) else {
        return skipped("topology", NOT_BUILT);
    };
    let graph = serde_json::from_str(&text).expect("one JSON document");
    check_graph(&graph, &truth);
    check_span_and_tenant(&records, &graph, &truth);
    check_other_readers(&records, &graph);
}

/// Who talked, where they stand and who saw it.
fn check_graph(graph: &Json, truth: &Json) {
    assert_eq!(graph["left_out"], serde_json::json!({"conversations":0,"packets":0,"octets":0}));
    assert_eq!(graph["warnings"], serde_json::json!([]));
    let truly = truth["octets_sent_by_vm"].as_object().expect("an object");
    let truly: BTreeMap<_, _> =
        truly.iter().map(|(uuid, octets)| (&**uuid, octets.as_u64().expect("octets"))).collect();
    assert_eq!(sent(graph), truly);

    let names: BTreeSet<_> =
        list(graph, "nodes").iter().map(|node| &node["id"]).map(text_of).collect();
    assert_eq!(names.len(), list(graph, "nodes").len(), "each stands once");
    for edge in list(graph, "edges") {
        for end in ["source", "target"] {
            assert!(names.contains(text_of(&edge[end])), "{edge}");
        }
    }
    // A VM that moves stood on both hosts, one after the other.
    let moved = &truth["migrations"][0];
    let vm = format!("vm:{}", text_of(&moved["uuid"]));
    let hosts: Vec<_> = edges(graph, "runs_on")
        .filter(|edge| edge["source"] == vm.as_str())
        .map(|edge| (text_of(&edge["target"]), number(edge, "valid_from_ns")))
        .collect();
    let host = |name: &str| format!("host:{}", text_of(&moved[name]));
    let (from, to, at) = (host("from"), host("to"), number(moved, "time_ns"));
    assert!(hosts.iter().any(|(host, since)| *host == from && *since < at), "{hosts:?}");
    assert!(hosts.contains(&(to.as_str(), at)), "{hosts:?}");
    check_switches(graph, moved);

    // What passes from host to host both taps see; what stays on one, that one's alone.
    let seen = |count| {
        let of_count = |edge: &&Json| edge["seen_by"].as_array().map(Vec::len) == Some(count);
        edges(graph, "conversation").filter(of_count).count()
    };
    assert!(seen(2) > 10 && seen(1) > 10, "{} {}", seen(2), seen(1));
    assert_eq!(seen(1) + seen(2), edges(graph, "conversation").count());
    let ways = edges(graph, "conversation").filter(|edge| edge["ways"] != serde_json::json!([]));
    assert!(ways.count() > 10);
    assert_eq!(edges(graph, "path").count(), list(truth, "path").len());
    // Both taps on host and switch, both switches on their hosts.
    assert_eq!(edges(graph, "stands_on").count(), 6);
}

/// Where a VM was, with first instant and first instant after.
fn stays<'a>(graph: &'a Json, vm: &str, kind: &'static str) -> Vec<(&'a str, [Option<u64>; 2])> {
    let of_vm = edges(graph, kind).filter(|edge| edge["source"] == vm);
    let times = |edge: &Json| ["valid_from_ns", "valid_to_ns"].map(|name| edge[name].as_u64());
    of_vm.map(|edge| (text_of(&edge["target"]), times(edge))).collect()
}

/// Each host of the cloud has one switch: a VM is plugged in at that of the host that it is on, and a
/// conversation passes the switches of both ends.
fn check_switches(graph: &Json, moved: &Json) {
    let switch = |host: &Json| format!("switch:{}/br0", text_of(host));
    let vms = list(graph, "nodes").iter().filter(|node| node["kind"] == "vm");
    for vm in vms.map(|node| text_of(&node["id"])) {
        let of_host = stays(graph, vm, "runs_on").into_iter().map(|(host, time)| {
            let host = host.strip_prefix("host:").expect("a host");
            (format!("switch:{host}/br0"), time)
        });
        let plugged = stays(graph, vm, "plugged_into").into_iter();
        let plugged = plugged.map(|(switch, time)| (switch.to_owned(), time));
        assert_eq!(plugged.collect::<BTreeSet<_>>(), of_host.collect::<BTreeSet<_>>(), "{vm}");
    }
    let vm = format!("vm:{}", text_of(&moved["uuid"]));
    let both = [&moved["from"], &moved["to"]].map(switch);
    let at: Vec<_> =
        stays(graph, &vm, "plugged_into").into_iter().map(|(switch, _)| switch).collect();
    assert!(both.iter().all(|switch| at.contains(&switch.as_str())), "{at:?}");
    let mut along = [0, 0];
    // Found once: there are as many conversations as there are edges to look through for each.
    let mut plugged: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges(graph, "plugged_into") {
        let switch = text_of(&edge["target"]).trim_start_matches("switch:");
        plugged.entry(text_of(&edge["source"])).or_default().insert(switch);
    }
    for edge in edges(graph, "conversation") {
        let ends = ["source", "target"].map(|end| text_of(&edge[end]));
        let places: BTreeSet<&str> =
            ends.iter().filter_map(|end| plugged.get(end)).flatten().copied().collect();
        let paths = edge["path"].as_array().expect("paths");
        let named: BTreeSet<_> =
            paths.iter().flat_map(|path| path.as_array().expect("places")).map(text_of).collect();
        assert!(named.iter().all(|name| places.contains(name)), "{edge}");
        assert_eq!(paths.is_empty(), places.is_empty(), "{edge}");
        for path in paths {
            let length = path.as_array().expect("places").len();
            assert!((1..=2).contains(&length), "{edge}");
            along[length - 1] += 1;
        }
        // Who talks from host to host is seen by both taps, and passes both switches.
        let of_path = paths.iter().any(|path| path.as_array().map(Vec::len) == Some(2));
        let ends = ["source", "target"].iter().all(|end| text_of(&edge[*end]).starts_with("vm:"));
        assert!(!ends || edge["seen_by"].as_array().map(Vec::len) != Some(2) || of_path, "{edge}");
    }
    assert!(along[0] > 10 && along[1] > 10, "{along:?}");
}

fn text_of(value: &Json) -> &str {
    value.as_str().expect("a text")
}

/// A span and a tenant leave out the rest.
fn check_span_and_tenant(records: &Path, all: &Json, truth: &Json) {
    let half = number(truth, "start_ns").midpoint(number(truth, "end_ns"));
    let half = half - half % 1_000_000_000;
    let before = topology(records, &["--to", &half.to_string()]).expect("it is built");
    let after = topology(records, &["--from", &half.to_string()]).expect("it is built");
    let [before, after] =
        [before, after].map(|text| serde_json::from_str::<Json>(&text).expect("JSON"));
    let octets = |graph: &Json| sent(graph).values().sum::<u64>();
    assert_eq!(octets(&before) + octets(&after), octets(all));
    assert!(octets(&before) > 0 && octets(&after) > 0);

    let red = topology(records, &["--tenant", "red"]).expect("it is built");
    let red: Json = serde_json::from_str(&red).expect("JSON");
    let tenant: BTreeMap<_, _> =
        list(&red, "nodes").iter().map(|node| (text_of(&node["id"]), &node["tenant"])).collect();
    for edge in edges(&red, "conversation") {
        let ends = ["source", "target"].map(|end| tenant[text_of(&edge[end])]);
        assert!(ends.iter().any(|tenant| **tenant == "red"), "{edge}");
    }
    let nobody = topology(records, &["--tenant", "it's"]).expect("it is built");
    assert_eq!(edges(&serde_json::from_str(&nobody).expect("JSON"), "conversation").count(), 0);
}

/// Other programs read GraphML and DOT.
fn check_other_readers(records: &Path, graph: &Json) {
    let counts = format!("{} {}", list(graph, "nodes").len(), list(graph, "edges").len());
    let graphml = topology(records, &["--format", "graphml"]).expect("it is built");
    let count = "import sys, xml.etree.ElementTree as tree\n\
        root = tree.parse(sys.stdin.buffer).getroot()\n\
        space = '{http://graphml.graphdrawing.org/xmlns}'\n\
        keys = {key.get('id') for key in root.iter(space + 'key')}\n\
        assert all(data.get('key') in keys for data in root.iter(space + 'data'))\n\
        print(*(len(list(root.iter(space + name))) for name in ('node', 'edge')))";
    match piped("python3", &["-c", count], &graphml) {
        Some(found) => assert_eq!(found.trim(), counts),
        None => missing("GraphML in another reader", &["python3"], "python3"),
    }
    let dot = topology(records, &["--format", "dot"]).expect("it is built");
    let ends = dot.lines().filter(|line| line.contains(" -> ")).count();
    assert_eq!(ends, list(graph, "edges").len());
    assert!(dot.starts_with("digraph topology {") && dot.trim_end().ends_with('}'));
    match piped("gc", &["-n", "-e"], &dot) {
        Some(found) => {
            let found: Vec<_> = found.split_whitespace().take(2).collect();
            assert_eq!(found.join(" "), counts);
        }
        None => missing("DOT in another reader", &["gc"], "graphviz"),
    }
}

/// What a program makes of a text; `None` where it is not there.
fn piped(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} does not read it");
    Some(String::from_utf8(output.stdout).expect("text"))
}
