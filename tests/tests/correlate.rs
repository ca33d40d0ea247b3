//! What three probes have seen, put together by a group of two members of which one is killed, gives what one
//! probe gives that sees everything: delay and loss between taps, and attacks; to each sink, also while
//! others are down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use etherparse::{IpHeaders, Ipv4Extensions, Ipv4Header, PacketBuilder, ip_number};
use serde_json::Value as Json;
use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::{Folder, Probe, get, until, vmprobe};
use vmprobe_tests::kafka::{Front, Kafka};
use vmprobe_tests::link::transfer::{START_NS, transfer};
use vmprobe_tests::link::{Impairments, Mirror, Way, impair_capture, relay};
use vmprobe_tests::paths::played;
use vmprobe_tests::promtool::promtool_has_nothing_to_say;
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
    member_with(folder, kafka, number, "")
}

/// One that has other sinks as well.
fn member_with(folder: &Folder, kafka: &Kafka, number: u32, others: &str) -> Probe {
    let taps = NAMES.map(|name| format!("[[tap]]\nname = \"{name}\"\n")).concat();
    let text = format!(
        "[probe]\nid = \"member-{number}\"\n{taps}{COMMON}[serve]\nenabled = false\n[correlate]\n{keys}\
         hold_ms = 10000\nsession_ms = 6000\n{out}{others}",
        keys = kafka.keys(),
        out = sink(kafka, "out", ""),
    );
    let file = folder.write(&format!("member-{number}.toml"), text);
    let mut command = Command::new(vmprobe());
    command.args(["correlate", "--json", "-c"]).arg(file);
    Probe::start(command)
}

/// A sink, which writes to the topic `path` behind its name.
fn sink(kafka: &Kafka, name: &str, rest: &str) -> String {
    format!(
        "[[sink.kafka]]\nname = \"{name}\"\n{}topic_prefix = \"{name}.\"\ntables = [\"path\"]\n\
         batch_ms = 20\n{rest}",
        kafka.keys()
    )
}

/// What is in the topic of a sink, and how often.
fn paths_in(kafka: &Kafka, sink: &str) -> BTreeMap<String, usize> {
    let messages = kafka.read(&format!("{sink}.path"));
    let row = |value: &[u8]| serde_json::from_slice(value).expect("JSON");
    compared(messages.iter().map(|message| row(&message.value)))
}

/// What a sink has once it has all that is expected, or after so long.
fn all_in(
    kafka: &Kafka,
    sink: &str,
    expected: &BTreeMap<String, usize>,
) -> BTreeMap<String, usize> {
    let found = || paths_in(kafka, sink);
    until(GROUP_S, || Some(found()).filter(|found| found.len() >= expected.len()))
        .unwrap_or_else(found)
}

/// The number of the member that adds up what is `of` a topic, once both have two partitions of it each.
fn shared(members: &[Probe], of: &str) -> usize {
    let last = |member: &Probe, what: &str| {
        let log = member.log();
        let of = format!("of=\"{of}\"");
        log.lines().rev().find(|line| line.contains(what) && line.contains(&of)).map(str::to_owned)
    };
    let two = |member: &Probe| {
        last(member, "this member joins").is_some_and(|line| line.matches(", ").count() == 1)
    };
    let adds_up = |member: &Probe| {
        last(member, "this member adds up").is_some_and(|line| line.contains("reduces=true"))
    };
    let reduces =
        until(60, || members.iter().position(adds_up).filter(|_| members.iter().all(two)));
    reduces
        .unwrap_or_else(|| panic!("two partitions each: {} {}", members[0].log(), members[1].log()))
}

/// Lets all probes play, at once: what is further apart than the hold is not joined.
fn play_samples(folder: &Folder, kafka: &Kafka, format: &str) {
    let probes = NAMES.map(|name| Probe::start(probe(folder, kafka, name, format)));
    for probe in probes {
        let report = probe.end(120).expect(0, &[]).json();
        assert_eq!(report["sinks"][0]["made"], report["sinks"][0]["delivered"], "{report}");
        assert!(report["sinks"][0]["made"].as_u64() > Some(5_000), "{report}");
    }
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
    let reduces = shared(&members, "path_samples");
    play_samples(&folder, &kafka, format);
    // In between: before any records are out, or when some are.
    let begun = until(GROUP_S, || (!some_out || kafka.has_any("out.path")).then_some(()));
    assert!(begun.is_some(), "{}\n{}", members[0].log(), members[1].log());
    let killed = if kill == Kill::Reducing { reduces } else { 1 - reduces };
    drop(members.remove(killed));
    let found = all_in(&kafka, "out", &expected);
    let (missing, wrong): (Vec<_>, Vec<_>) = (
        expected.keys().filter(|row| !found.contains_key(*row)).take(3).collect(),
        found.keys().filter(|row| !expected.contains_key(*row)).take(3).collect(),
    );
    let log = members[0].log();
    assert!(
        missing.is_empty() && wrong.is_empty(),
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

#[test]
fn sinks_that_are_down_hold_up_no_other_and_have_what_is_promised_when_they_are_back() {
    let test = "a member with a sink that works and two that are down";
    let Some(kafka) = Kafka::start(test, Front::default()) else { return };
    let down = || Kafka::new(test, Front::default()).expect("the same is there");
    let (mut kept, mut held) = (down(), down());
    let folder = Folder::new("correlate-sinks");
    let captures = captures(&folder);
    let expected: Vec<_> = rows(&played(&folder, &captures, ""), "path");
    let expected = compared(expected.into_iter().map(|row| row.into_iter().collect()));
    kafka.make_topic("vmprobe.path_samples", 4);
    kafka.make_topic("vmprobe.trajectories", 1);
    kafka.make_topic("out.path", 1);
    let spool = format!("spool_folder = \"{}\"\n", folder.path("spool").display());
    let rest = "timeout_ms = 1000\nretry_max_ms = 500\n";
    let others = sink(&kept, "kept", &format!("{rest}{spool}")) + &sink(&held, "held", rest);
    let mut member = member_with(&folder, &kafka, 1, &others);
    member.said("reduces=true", 60);
    play_samples(&folder, &kafka, "json");
    let keys = |rows: &BTreeMap<String, usize>| rows.keys().cloned().collect::<Vec<_>>();
    // The one that works has everything, and once: nothing waits for the others.
    let found = all_in(&kafka, "out", &expected);
    assert_eq!(found.len(), expected.len(), "{}", member.log());
    assert_eq!(keys(&found), keys(&expected));
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    // One without a spool has it from memory.
    held.run();
    held.have_topic("held.path");
    assert_eq!(keys(&all_in(&held, "held", &expected)), keys(&expected), "{}", member.log());
    // One with a spool has it also where the member was killed.
    drop(member);
    kept.run();
    kept.have_topic("kept.path");
    let member = member_with(&folder, &kafka, 1, &others);
    assert_eq!(keys(&all_in(&kept, "kept", &expected)), keys(&expected), "{}", member.log());
    member.terminate();
    let ended = member.end(60);
    let report = ended.expect(0, &[]).json();
    // What was on disk is not given out again, to nobody.
    assert!(report["windows"].as_u64() <= Some(4), "{report}");
}

/// What taps show of attacks and of what is none, from so many milliseconds on.
#[derive(Default)]
struct Shown([Vec<(u64, Vec<u8>)>; 3]);

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Shown {
    /// A segment at some of the taps, a millisecond from one to the next.
    fn segment(&mut self, taps: &[usize], at_us: u64, ends: [([u8; 4], u16); 2], flags: u8) {
        let [(source, source_port), (destination, port)] = ends;
        let number = u32::from(source_port) << 16 | u32::from(port);
        let mut frame = Vec::new();
        let mut segment = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ip(IpHeaders::Ipv4(
                Ipv4Header {
                    identification: source_port ^ port ^ u16::from(source[3]),
                    ..Ipv4Header::new(20, 64, ip_number::TCP, source, destination).expect("short")
                },
                Ipv4Extensions::default(),
            ))
            .tcp(source_port, port, number, 1_024);
        segment = if flags & SYN > 0 { segment.syn() } else { segment };
        segment = if flags & RST > 0 { segment.rst() } else { segment };
        segment = if flags & ACK > 0 { segment.ack(1) } else { segment };
        segment.write(&mut frame, &[]).expect("it fits");
        for (place, tap) in (0..).zip(taps) {
            self.0[*tap].push((at_us + place * 1_000, frame.clone()));
        }
    }

    /// A connection that is refused, or that comes to be.
    fn connection(&mut self, taps: &[usize], at_us: u64, ends: [([u8; 4], u16); 2], refused: bool) {
        let back = [ends[1], ends[0]];
        self.segment(taps, at_us, ends, SYN);
        if refused {
            return self.segment(taps, at_us + 5_000, back, RST | ACK);
        }
        self.segment(taps, at_us + 5_000, back, SYN | ACK);
        self.segment(taps, at_us + 10_000, ends, ACK);
    }

    /// Captures, one a tap.
    fn written(mut self, folder: &Folder, part: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for (name, frames) in NAMES.into_iter().zip(&mut self.0) {
            frames.sort();
            files.push(folder.path(&format!("tap-{name}{part}.pcap")));
            let mut out = PcapWriter::create(&files[files.len() - 1], 1, true).expect("a file");
            for (at_us, frame) in frames {
                let at = Timestamp(START_NS + *at_us * 1_000);
                out.write(at, u32::try_from(frame.len()).expect("small"), frame).expect("written");
            }
            out.finish().expect("it is written");
        }
        files
    }
}

/// Two parts of an hour in which each tap shows too little of a scan and of a flood, and what is none.
fn attacked(folder: &Folder) -> [Vec<PathBuf>; 2] {
    const SECOND: u64 = 1_000_000;
    let host = |net, number| [10, net, 0, number];
    let scanner = |port: u16| [(host(1, 9), 40_000 + port), (host(2, 1), port)];
    let attempt = |net, source| [(host(net, source), 50_000), (host(2, net), 80)];
    // Of another connection than the one before.
    let again = |source| [(host(7, source), 50_001), (host(2, 7), 80)];
    let all = &[0, 1, 2][..];
    let (mut first, mut second) = (Shown::default(), Shown::default());
    for (shown, seconds) in [(&mut first, 0..9), (&mut second, 20..110)] {
        for at in seconds {
            for tap in 0..3 {
                let client = host(3, u8::try_from(tap).expect("small"));
                let port = 20_000 + u16::try_from(at).expect("small");
                let ends = [(client, port), (host(3, 200), 443)];
                shown.connection(&[tap], at * SECOND + 100_000, ends, false);
            }
        }
    }
    // What would be a scan and a flood if what all taps show counted thrice.
    for port in 1..=3 {
        let ends = [(host(1, 8), 30_000 + port), (host(2, 1), port)];
        first.connection(all, 2 * SECOND + u64::from(port) * 20_000, ends, true);
    }
    for source in 0..60 {
        first.segment(
            all,
            2 * SECOND + 200_000 + u64::from(source) * 1_000,
            attempt(5, source),
            SYN,
        );
    }
    // Many attempts at one service that come to be.
    for source in 0..150 {
        let at_us = 2 * SECOND + 400_000 + u64::from(source) * 1_000;
        first.connection(&[usize::from(source % 3)], at_us, attempt(6, source), false);
    }
    // The scan: one tap shows a port that another one has shown as well.
    for (port, taps) in [(1, &[0][..]), (2, &[0, 1]), (3, &[1]), (4, &[1]), (5, &[2])] {
        first.connection(taps, 4 * SECOND + u64::from(port) * 20_000, scanner(port), true);
    }
    for (port, taps) in [(6, &[0][..]), (7, &[2]), (8, &[2])] {
        second.connection(taps, 22 * SECOND + u64::from(port) * 20_000, scanner(port), true);
    }
    // The flood: of what one tap shows another one shows a third too.
    for source in 0..180 {
        let tap = usize::from(source / 60);
        let taps = if source < 20 { &[0, 1][..] } else { std::slice::from_ref(&tap) };
        first.segment(
            taps,
            4 * SECOND + 300_000 + u64::from(source) * 1_000,
            attempt(7, source),
            SYN,
        );
    }
    for source in 0..120 {
        let at_us = 22 * SECOND + 300_000 + u64::from(source) * 1_000;
        second.segment(&[usize::from(source % 3)], at_us, again(source), SYN);
    }
    [first.written(folder, ""), second.written(folder, "-later")]
}

#[test]
fn attacks_of_which_each_probe_sees_a_part_are_the_alerts_of_one_that_sees_all() {
    const FIRST: &str = "attacks in parts, the member with the detectors killed";
    let Some(kafka) = Kafka::start(FIRST, Front::default()) else { return };
    let folder = Folder::new("correlate-detect");
    let [first, second] = attacked(&folder);
    let (names, whole): (Vec<_>, Vec<_>) = [0, 1, 2]
        .map(|tap| (&first[tap], folder.path(&format!("whole/tap-{}.pcap", NAMES[tap]))))
        .into_iter()
        .unzip();
    std::fs::create_dir_all(folder.path("whole")).expect("a folder");
    for ((one, other), both) in names.into_iter().zip(&second).zip(&whole) {
        relay(&[one.clone(), other.clone()], both, |frame| Some(frame.to_vec())).expect("written");
    }
    let expected = rows(&played(&folder, &whole, ""), "alerts");
    let states = |detector: &str| -> Vec<_> {
        let of = expected.iter().filter(|row| row["detector"] == detector);
        of.map(|row| (row["state"].clone(), row["event_count"].as_u64())).collect()
    };
    assert_eq!(states("port_scan"), [("open".into(), Some(5)), ("closed".into(), Some(8))]);
    assert_eq!(states("syn_flood"), [("open".into(), Some(180)), ("closed".into(), Some(300))]);
    let expected = alerts_compared(expected);
    kafka.make_topic("vmprobe.windows", 4);
    kafka.make_topic("vmprobe.contacts", 1);
    kafka.make_topic("out.alerts", 1);
    let mut members: Vec<_> =
        (1..=2).map(|number| detecting_member(&folder, &kafka, number)).collect();
    let reduces = shared(&members, "windows");
    let play = |files: &[PathBuf], format| {
        let probes: Vec<_> = NAMES
            .into_iter()
            .zip(files)
            .map(|(name, file)| Probe::start(windows_probe(&folder, &kafka, (name, file), format)))
            .collect();
        for probe in probes {
            let report = probe.end(120).expect(0, &[]).json();
            assert_eq!(report["sinks"][0]["made"], report["sinks"][0]["delivered"], "{report}");
            assert_eq!(report["alerts"], 0, "it sees too little: {report}");
        }
    };
    play(&first, "protobuf");
    let begun = until(GROUP_S, || kafka.has_any("out.alerts").then_some(()));
    assert!(begun.is_some(), "{}\n{}", members[0].log(), members[1].log());
    drop(members.remove(reduces));
    play(&second, "json");
    let found = || -> Vec<BTreeMap<String, Json>> {
        let messages = kafka.read("out.alerts");
        messages.iter().map(|it| serde_json::from_slice(&it.value).expect("JSON")).collect()
    };
    until(GROUP_S, || (alerts_compared(found()).len() >= expected.len()).then_some(()));
    let mut survivor = members.remove(0);
    shows_itself(&mut survivor);
    survivor.terminate();
    let ended = survivor.end(60);
    let all = found();
    let seen: Vec<_> = all.iter().map(|row| row["seen_by_probes"].clone()).collect();
    assert!(seen.iter().all(|it| it == r#"["probe-a","probe-b","probe-c"]"#), "{seen:?}");
    let (found, report) = (alerts_compared(all), ended.expect(0, &[]).json());
    let of = |rows: &BTreeMap<String, usize>| rows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(of(&found), of(&expected), "{report}");
    // Those of the windows that were on their way when the member was killed may come twice.
    assert!(found.values().all(|times| *times <= 2), "{found:#?}");
    for none in [
        "malformed",
        "other_domain",
        "other_length",
        "unknown_space",
        "late",
        "clock_ahead",
        "contacts_full",
        "probes_full",
        "alerts_full",
    ] {
        assert_eq!(report["detect"][none], 0, "{none}: {report}");
    }
}

/// A member that has read all says so, and that it is well.
fn shows_itself(member: &mut Probe) {
    let line = member.said("metrics and health", 10);
    let address = line.split("address=").nth(1).expect("an address").trim();
    let shown = || {
        let text = get(address, "/metrics").body;
        let all_read = (0..4).all(|partition| {
            let of = format!("{{topic=\"vmprobe.windows\",partition=\"{partition}\"}}");
            text.contains(&format!("\nvmprobe_correlate_lag_messages{of} 0.0\n"))
        });
        all_read.then_some(text)
    };
    let text = until(30, shown).unwrap_or_else(|| panic!("{}", get(address, "/metrics").body));
    let value = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        let value = line.and_then(|line| line.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{series} in\n{text}"))
    };
    for topic in ["vmprobe.windows", "vmprobe.contacts"] {
        let of = format!("{{topic=\"{topic}\"}}");
        assert!(value(&format!("vmprobe_correlate_read_messages_total{of}")) > 100.0, "{text}");
        assert!(value(&format!("vmprobe_correlate_brokers_up{of}")) >= 1.0, "{text}");
    }
    let windows = |what: &str| value(&format!("vmprobe_correlate_{what}"));
    assert!(windows("behind_seconds{topic=\"vmprobe.windows\",partition=\"0\"}") < 30.0, "{text}");
    assert!(windows("results_total{table=\"windows\",result=\"alerts_opened\"}") >= 1.0, "{text}");
    assert!(windows("alerts_open{table=\"windows\"}") <= 2.0, "{text}");
    assert!(windows("left_out_total{table=\"windows\",cause=\"contacts_full\"}") == 0.0);
    let [taken, max] = ["room_taken", "room_max"]
        .map(|what: &str| windows(&format!("{what}{{table=\"windows\",what=\"contacts\"}}")));
    assert!(taken < max && max > 1e6, "{text}");
    assert!(value("vmprobe_sink_failing{sink=\"out\"}") == 0.0, "{text}");
    let health = get(address, "/healthz");
    assert_eq!((health.status, &health.json()["status"]), (200, &"ok".into()), "{}", health.body);
    assert_eq!(get(address, "/api/v1/live").status, 404);
    promtool_has_nothing_to_say(address);
}

/// Alerts without what says who has seen them.
fn alerts_compared(
    rows: impl IntoIterator<Item = BTreeMap<String, Json>>,
) -> BTreeMap<String, usize> {
    let without = |mut row: BTreeMap<String, Json>| {
        assert!(row.remove("seen_by_probes").is_some(), "{row:?}");
        row
    };
    compared(rows.into_iter().map(without))
}

fn windows_probe(
    folder: &Folder,
    kafka: &Kafka,
    (name, capture): (&str, &Path),
    format: &str,
) -> Command {
    let text = format!(
        "[probe]\nid = \"probe-{name}\"\n[[tap]]\nname = \"{name}\"\n[flow]\n\
         slots_per_worker = 16384\n[serve]\nenabled = false\n[[sink.kafka]]\nname = \"bus\"\n{}\
         tables = [\"windows\"]\nbatch_ms = 50\nformat = \"{format}\"\n",
        kafka.keys()
    );
    let file = folder.write(&format!("windows-{name}.toml"), text);
    let mut command = Command::new(vmprobe());
    command.args(["replay", "--json", "-c"]).arg(file).arg(capture);
    command
}

fn detecting_member(folder: &Folder, kafka: &Kafka, number: u32) -> Probe {
    let text = format!(
        "[probe]\nid = \"member-{number}\"\n[serve]\nenabled = false\n[correlate]\n{keys}\
         hold_ms = 8000\nsession_ms = 6000\ndetect = true\nlisten = \"127.0.0.1:0\"\n\
         [[sink.kafka]]\nname = \"out\"\n{keys}\
         topic_prefix = \"out.\"\ntables = [\"alerts\"]\nbatch_ms = 20\n",
        keys = kafka.keys()
    );
    let file = folder.write(&format!("detects-{number}.toml"), text);
    let mut command = Command::new(vmprobe());
    command.args(["correlate", "--json", "-c"]).arg(file);
    Probe::start(command)
}
