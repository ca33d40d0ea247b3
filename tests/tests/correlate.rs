//! Samples of three probes, joined by a group of two members of which one is killed, give what one probe
//! gives that sees everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use etherparse::PacketBuilder;
use serde_json::Value as Json;
use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::{Folder, Probe, until, vmprobe};
use vmprobe_tests::kafka::{Front, Kafka};
use vmprobe_tests::link::transfer::{START_NS, transfer};
use vmprobe_tests::link::{Impairments, Mirror, Way, impair_capture, relay};
use vmprobe_tests::paths::played;
use vmprobe_tests::records::rows;

const MS: u64 = 1_000_000;
const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long a group may take: to notice that a member is dead, to share its part anew, and to hold.
const GROUP_S: u64 = 150;
/// What all probes and members have in common.
const COMMON: &str = "[path]\nsecret = \"of the domain\"\nsample_one_in = 1\n";

fn way() -> Way {
    Way { delay_ns: 2 * MS, jitter_ns: MS, loss_ppm: 10_000, ttl_decrement: 1, ..Way::default() }
}

/// Datagrams of one direction, one a millisecond.
fn datagrams(file: &Path, [source, destination]: [[u8; 4]; 2], count: u32) {
    let mut out = PcapWriter::create(file, 1, true).expect("a file");
    for number in 0..count {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, source[3]], [2, 0, 0, 0, 0, destination[3]])
            .ipv4(source, destination, 64)
            .udp(7_000, 7_001)
            .write(&mut frame, &number.to_be_bytes().repeat(10))
            .expect("it fits");
        let at_ns = START_NS + u64::from(number) * MS;
        out.write(Timestamp(at_ns), u32::try_from(frame.len()).expect("small"), &frame)
            .expect("it is written");
    }
    out.finish().expect("it is written");
}

/// What three taps in a row show: datagrams both ways over two links, and a TCP transfer over the first,
/// with losses on all of it.
fn captures(folder: &Folder) -> Vec<PathBuf> {
    let made = |name: &str| {
        let out = folder.path(name);
        std::fs::create_dir_all(&out).expect("a folder");
        out
    };
    let impairments = || Impairments::alike(way(), Mirror::default());
    let (near, far) = ([10, 9, 0, 1], [10, 9, 0, 2]);
    let mut shown: [Vec<PathBuf>; 3] = Default::default();
    for (name, ends, places) in [("up", [near, far], [0, 1, 2]), ("down", [far, near], [2, 1, 0])] {
        let sent = folder.path(&format!("{name}.pcap"));
        datagrams(&sent, ends, 6_000);
        let one = impair_capture(&sent, 8, impairments(), &made(&format!("{name}-1")));
        let ([first, second], _) = one.expect("it runs");
        let two = impair_capture(&second, 9, impairments(), &made(&format!("{name}-2")));
        let ([_, third], _) = two.expect("it runs");
        for (place, capture) in places.into_iter().zip([first, second, third]) {
            shown[place].push(capture);
        }
    }
    let ([a, b], truth) = transfer(3_000_000, 21, impairments(), &made("tcp")).expect("it runs");
    assert!(truth.total().lost > 20, "{:?}", truth.total());
    shown[0].push(a);
    shown[1].push(b);
    let tap = |(name, parts): (&str, &Vec<PathBuf>)| {
        let file = folder.path(&format!("tap-{name}.pcap"));
        relay(parts, &file, |frame| Some(frame.to_vec())).expect("it is written");
        file
    };
    NAMES.into_iter().zip(&shown).map(tap).collect()
}

/// Rows without the columns that say who has made them, as texts, with how often each is there. JSON read
/// by `serde_json` has doubles that may be off in the last digit.
fn compared(rows: impl Iterator<Item = BTreeMap<String, Json>>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for mut row in rows {
        for column in ["probe_id", "domain"] {
            assert!(row.remove(column).is_some(), "{column}");
        }
        for value in row.values_mut().filter(|value| value.is_f64()) {
            *value = value.as_f64().map_or(Json::Null, |number| format!("{number:.13e}").into());
        }
        *all.entry(format!("{row:?}")).or_default() += 1;
    }
    all
}

fn probe(folder: &Folder, kafka: &Kafka, name: &str, format: &str) -> Command {
    let text = format!(
        "[probe]\nid = \"probe-{name}\"\n[[tap]]\nname = \"{name}\"\n{COMMON}samples = true\n[flow]\n\
         slots_per_worker = 16384\n[serve]\nenabled = false\n[[sink.kafka]]\nname = \"bus\"\n{}\
         tables = [\"path_samples\"]\nbatch_ms = 50\nformat = \"{format}\"\n",
        kafka.keys()
    );
    let file = folder.write(&format!("probe-{name}.toml"), text);
    let mut command = Command::new(vmprobe());
    command.args(["replay", "--json", "-c"]).arg(file);
    command.arg(folder.path(&format!("tap-{name}.pcap")));
    command
}

fn member(folder: &Folder, kafka: &Kafka, number: u32) -> Probe {
    let taps = NAMES.map(|name| format!("[[tap]]\nname = \"{name}\"\n")).concat();
    let text = format!(
        "[probe]\nid = \"member-{number}\"\n{taps}{COMMON}[serve]\nenabled = false\n[correlate]\n{keys}\
         hold_ms = 10000\nsession_ms = 6000\n[[sink.kafka]]\nname = \"out\"\n{keys}\
         topic_prefix = \"out.\"\ntables = [\"path\"]\nbatch_ms = 20\n",
        keys = kafka.keys()
    );
    let file = folder.write(&format!("member-{number}.toml"), text);
    let mut command = Command::new(vmprobe());
    command.args(["correlate", "--json", "-c"]).arg(file);
    Probe::start(command)
}

/// Which of two members is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    /// The one that adds up.
    Reducing,
    /// The other.
    Joining,
}

fn run(test: &str, kill: Kill, some_out: bool, format: &str) {
    let Some(kafka) = Kafka::start(test, Front::default()) else { return };
    let folder = Folder::new("correlate");
    let captures = captures(&folder);
    let expected: Vec<_> = rows(&played(&folder, &captures, ""), "path");
    let expected = compared(expected.into_iter().map(|row| row.into_iter().collect()));
    assert!(expected.len() > 60, "{}", expected.len());
    kafka.make_topic("vmprobe.path_samples", 4);
    kafka.make_topic("vmprobe.trajectories", 1);
    kafka.make_topic("out.path", 1);
    let mut members: Vec<_> = (1..=2).map(|number| member(&folder, &kafka, number)).collect();
    let is_shared = || {
        let two = |member: &Probe| {
            let log = member.log();
            let joins = log.lines().rev().find(|line| line.contains("this member joins"));
            joins.is_some_and(|line| line.matches(", ").count() == 1)
        };
        let adds_up = |member: &Probe| {
            let log = member.log();
            let adds_up = log.lines().rev().find(|line| line.contains("this member adds up"));
            adds_up.is_some_and(|line| line.contains("reduces=true"))
        };
        let reduces = members.iter().position(adds_up);
        reduces.filter(|_| members.iter().all(two))
    };
    let reduces = until(60, is_shared);
    let reduces = reduces.unwrap_or_else(|| {
        panic!("two partitions each: {} {}", members[0].log(), members[1].log())
    });
    // All at once: what is further apart than the hold is not joined.
    let probes = NAMES.map(|name| Probe::start(probe(&folder, &kafka, name, format)));
    for probe in probes {
        let report = probe.end(120).expect(0, &[]).json();
        assert_eq!(report["sinks"][0]["made"], report["sinks"][0]["delivered"], "{report}");
        assert!(report["sinks"][0]["made"].as_u64() > Some(5_000), "{report}");
    }
    // In between: before any records are out, or when some are.
    let begun = until(GROUP_S, || (!some_out || kafka.has_any("out.path")).then_some(()));
    assert!(begun.is_some(), "{}\n{}", members[0].log(), members[1].log());
    let killed = if kill == Kill::Reducing { reduces } else { 1 - reduces };
    drop(members.remove(killed));
    let out = || -> BTreeMap<String, usize> {
        let messages = kafka.read("out.path");
        let row = |value: &[u8]| serde_json::from_slice(value).expect("JSON");
        compared(messages.iter().map(|message| row(&message.value)))
    };
    let all = until(GROUP_S, || (out().len() >= expected.len()).then_some(()));
    let found = out();
    let (missing, wrong): (Vec<_>, Vec<_>) = (
        expected.keys().filter(|row| !found.contains_key(*row)).take(3).collect(),
        found.keys().filter(|row| !expected.contains_key(*row)).take(3).collect(),
    );
    let log = members[0].log();
    assert!(
        all.is_some() && missing.is_empty() && wrong.is_empty(),
        "{} of {}\nmissing {missing:#?}\nwrong {wrong:#?}\n{log}",
        found.len(),
        expected.len()
    );
    // Records of four windows at most come twice, and are the same then.
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    let window = |row: &str| {
        let at = row.find("window_start_ns").expect("a column");
        row[at..].split(',').next().expect("a value").to_owned()
    };
    let windows: std::collections::BTreeSet<_> = twice.iter().map(|(row, _)| window(row)).collect();
    assert!(windows.len() <= 4, "{windows:?}");
    let survivor = members.remove(0);
    survivor.terminate();
    let report = survivor.end(60).expect(0, &[]).json();
    for none in [
        "malformed",
        "unknown_tap",
        "unknown_space",
        "late",
        "evicted",
        "left_out",
        "clock_ahead",
        "unremembered",
    ] {
        assert_eq!(report[none], 0, "{none}: {report}");
    }
}

#[test]
fn a_member_that_joins_is_killed_and_the_rest_gives_what_one_probe_gives() {
    run("samples of three probes, a joining member killed", Kill::Joining, false, "json");
}

#[test]
fn the_member_that_adds_up_is_killed_and_the_rest_gives_what_one_probe_gives() {
    run("samples of three probes, the adding member killed", Kill::Reducing, true, "protobuf");
}
