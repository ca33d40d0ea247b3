//! Every real capture through the whole path: nothing is lost without a name, and what tshark
//! counts we count.
//!
//! Streams are compared with timeouts that never end a flow, as tshark's never end a stream. What
//! differs all the same stands with its reason in `data/stream-differences.tsv`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use vmprobe_tests::captures::{self, Expected, FOLDERS};
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{self, number};
use vmprobe_tests::replaying::{run, small_plan};

/// `flow_end_reason` of records after which the flow goes on.
const FLOW_ENDED_ACTIVE: u64 = 2;

/// TCP and UDP flows, ours and tshark's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Streams {
    tcp: (u64, u64),
    udp: (u64, u64),
}

impl Streams {
    const fn differ(self) -> bool {
        self.tcp.0 != self.tcp.1 || self.udp.0 != self.udp.1
    }
}

/// Replays one capture and checks its account; its flows of TCP and UDP.
fn check(capture: &Path, name: &str, expected: Option<Expected>, records: &Folder) -> (u64, u64) {
    let files = [capture.to_path_buf()];
    let mut plan = small_plan(&files);
    plan.flow.idle_tcp_ms = u32::MAX;
    plan.flow.idle_other_ms = u32::MAX;
    plan.flow.closed_ms = u32::MAX;
    plan.flow.active_ms = u32::MAX;
    let replay = match run(plan, &files, Some(records.root())) {
        Ok(replay) => replay,
        Err(error) => {
            assert!(name.starts_with("malformed/"), "{name}: {error}");
            return (0, 0);
        }
    };
    let ledger = &replay.report.ledger;
    assert_eq!(ledger.unaccounted, 0, "{name}: {ledger:?}");
    assert_eq!(ledger.received, replay.report.packets, "{name}");
    let causes: u64 = ledger.causes.values().sum();
    assert_eq!(ledger.received, ledger.accounted + causes, "{name}: {ledger:?}");
    let errors = &replay.errors;
    let file = capture.file_name().expect("a name").to_string_lossy();
    assert!(errors.len() <= usize::from(name.starts_with("malformed/")), "{name}: {errors:?}");
    assert!(errors.iter().all(|error| error.contains(&*file)), "{name}: {errors:?}");
    if let Some(expected) = expected {
        assert_eq!(replay.report.packets, expected.packets, "{name}: packets");
        assert_eq!(replay.report.octets, expected.octets, "{name}: octets");
    }
    let flows = records::rows(records.root(), "flows");
    let packets = flows.iter().map(|flow| {
        number(flow, "packet_delta_count") + number(flow, "reverse_packet_delta_count")
    });
    assert_eq!(packets.sum::<u64>(), ledger.accounted, "{name}: packets in flow records");
    let of = |protocol| {
        let is_one = |flow: &&records::Row| {
            number(flow, "protocol_identifier") == protocol
                && number(flow, "flow_end_reason") != FLOW_ENDED_ACTIVE
        };
        flows.iter().filter(is_one).count() as u64
    };
    (of(6), of(17))
}

/// Why flows and streams of a capture may differ.
const REASONS: [&str; 7] = [
    // tshark numbers the outer UDP of a tunnel that we take off, as a stream.
    "outer",
    // A tunnel or link type that we do not decode; its packets are in the ledger, or count as the
    // outer flow.
    "undecoded",
    // The same ports in different VLANs, VNIs or GRE keys are different flows, also where a
    // network uses one for each direction and no configuration joins them.
    "segments",
    // tshark numbers the packet that an ICMP error quotes.
    "icmp_quote",
    // Fragments whose first one is missing are flows without ports; tshark gives them no stream.
    "fragments",
    // Stamps jump by more than the longest timeout.
    "time_jump",
    // tshark opens a second stream for the answers of some requests.
    "snmp",
];

/// The table of known differences, for one folder.
fn known(place: &str) -> BTreeMap<String, Streams> {
    let table = include_str!("../data/stream-differences.tsv");
    let mut known = BTreeMap::new();
    for line in table.lines().skip(1) {
        let cells: Vec<_> = line.split('\t').collect();
        let [name, tcp, tshark_tcp, udp, tshark_udp, reasons] = cells[..] else {
            panic!("six columns: {line}")
        };
        for reason in reasons.split(',') {
            assert!(REASONS.contains(&reason), "{name}: no reason is called {reason}");
        }
        let number = |text: &str| text.parse().expect("a number");
        let streams = Streams {
            tcp: (number(tcp), number(tshark_tcp)),
            udp: (number(udp), number(tshark_udp)),
        };
        if name.starts_with(place) {
            known.insert(name.to_owned(), streams);
        }
    }
    known
}

/// Checks all captures of a folder.
fn check_folder(place: &str) {
    let Some(folder) = captures::folder() else { return };
    let known = known(place);
    let mut wrong = String::new();
    let found = captures::captures(&folder, place);
    assert!(!found.is_empty(), "{place} has captures");
    for capture in found {
        let name = captures::name(&folder, &capture);
        let expected = captures::expected(&capture);
        let records = Folder::new(&format!("captures-{place}"));
        let (tcp, udp) = check(&capture, &name, expected, &records);
        let Some(expected) = expected else { continue };
        let (tcp, udp) = ((tcp, expected.tcp_streams), (udp, expected.udp_streams));
        let streams = Streams { tcp, udp };
        let differs = streams.differ().then_some(&streams);
        if differs != known.get(&name) {
            let Streams { tcp, udp } = streams;
            let line = format!("{name}\t{}\t{}\t{}\t{}", tcp.0, tcp.1, udp.0, udp.1);
            writeln!(wrong, "{line}").expect("memory");
        }
    }
    assert!(wrong.is_empty(), "not as in data/stream-differences.tsv:\n{wrong}");
}

#[test]
fn encapsulation() {
    check_folder("encapsulation");
}

#[test]
fn protocols() {
    check_folder("protocols");
}

#[test]
fn tcp() {
    check_folder("tcp");
}

#[test]
fn malformed() {
    check_folder("malformed");
}

#[test]
fn attacks() {
    check_folder("attacks");
}

#[test]
fn benign() {
    check_folder("benign");
}

#[test]
fn each_known_difference_is_in_a_folder_that_is_checked() {
    let all = known("").into_keys();
    for name in all {
        assert!(FOLDERS.iter().any(|place| name.starts_with(place)), "{name}");
    }
}
