//! Every encapsulated capture through the whole path, against what Zeek, Arkime, nDPI, tcpdump,
//! Suricata and tshark say of the packets inside.
//!
//! A difference stands with its reason in `data/encapsulation-differences.tsv`; one that is not
//! there, or one there that is none any more, fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use vmprobe_tests::captures;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::oracles::{self, Claims, Key, Packets};
use vmprobe_tests::records::{self, Row, number, text};
use vmprobe_tests::replaying::{run, small_plan};

/// Why a program may say another thing.
const REASONS: [&str; 4] = [
    // It lists the tunnel itself beside what is inside, or for ARP inside; we take it off.
    "outer",
    // It names what is inside an IPv4 tunnel, and is IPv6, by the addresses of the tunnel.
    "outer_addresses",
    // It does not look into this one, and counts the tunnel.
    "not_decoded_there",
    // It leaves fragments out, or puts none that has no first one in a stream.
    "fragments",
];

/// Capture, program and conversation; what we say and what it says.
type Differences = BTreeMap<(String, String, String), (String, String)>;

fn known() -> BTreeMap<(String, String, String), (String, String)> {
    let table = include_str!("../data/encapsulation-differences.tsv");
    let mut known = BTreeMap::new();
    for line in table.lines().skip(1) {
        let cells: Vec<_> = line.split('\t').map(str::to_owned).collect();
        let [name, program, key, ours, theirs, reason] = &cells[..] else {
            panic!("six columns: {line}")
        };
        assert!(REASONS.contains(&reason.as_str()), "{name}: no reason is called {reason}");
        let place = (name.clone(), program.clone(), key.clone());
        let before = known.insert(place, (ours.clone(), theirs.clone()));
        assert_eq!(before, None, "{line} stands twice");
    }
    known
}

/// Packets of our flow records, by conversation.
fn our_packets(flows: &[Row]) -> Packets {
    let mut packets = Packets::new();
    for flow in flows {
        let end = |address: &str, port: &str| {
            let address = text(flow, address).expect("an address").parse().expect("an address");
            (address, u16::try_from(number(flow, port)).expect("16 bits"))
        };
        let ends =
            (end("source_address", "source_port"), end("destination_address", "destination_port"));
        let protocol = u8::try_from(number(flow, "protocol_identifier")).expect("8 bits");
        let counts = ["packet_delta_count", "reverse_packet_delta_count"].map(|c| number(flow, c));
        oracles::add(&mut packets, Some(protocol), ends, counts);
    }
    packets
}

/// What we say, with no more of protocols and ports than the program says.
fn as_far_as(claims: &Claims, packets: &Packets) -> Packets {
    let no_protocol = claims.packets.keys().any(|key| key.protocol.is_none());
    let mut sum = Packets::new();
    for (key, counts) in packets {
        let no_ports = key.protocol.is_some_and(|number| claims.without_ports.contains(&number));
        let end = |(address, port)| (address, if no_ports { 0 } else { port });
        let protocol = key.protocol.filter(|_| !no_protocol);
        oracles::add(&mut sum, protocol, (end(key.low), end(key.high)), *counts);
    }
    sum
}

fn compare(name: &str, claims: &Claims, ours: &Packets, differences: &mut Differences) {
    let ours = &as_far_as(claims, ours);
    let shown = |counts: Option<&[u64; 2]>| match counts {
        None => "none".to_owned(),
        Some(_) if !claims.counts => "some".to_owned(),
        Some([low, high]) => format!("{low}/{high}"),
    };
    let is_listed = |key: &Key| {
        claims.complete.is_some_and(|protocols| {
            protocols.is_empty() || key.protocol.is_some_and(|number| protocols.contains(&number))
        })
    };
    let further = ours.keys().filter(|key| is_listed(key));
    let mut keys: Vec<_> = claims.packets.keys().chain(further).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut note = |key: String, ours: String, theirs: String| {
        if ours != theirs {
            let place = (name.to_owned(), claims.program.to_owned(), key);
            differences.insert(place, (ours, theirs));
        }
    };
    for key in keys {
        note(key.to_string(), shown(ours.get(key)), shown(claims.packets.get(key)));
    }
    if let Some(theirs) = claims.ipv4_packets {
        let ipv4 = ours.iter().filter(|(key, _)| key.low.0.is_ipv4());
        let count: u64 = ipv4.map(|(_, counts)| counts.iter().sum::<u64>()).sum();
        note("ipv4".to_owned(), count.to_string(), theirs.to_string());
    }
}

/// Replays one capture; its packets by conversation.
fn replayed(capture: &Path, name: &str) -> Packets {
    let records = Folder::new("encapsulation");
    let files = [capture.to_path_buf()];
    let replay = run(small_plan(&files), &files, Some(records.root())).expect(name);
    let ledger = &replay.report.ledger;
    assert_eq!(ledger.unaccounted, 0, "{name}: {ledger:?}");
    let causes: u64 = ledger.causes.values().sum();
    assert_eq!(ledger.received, ledger.accounted + causes, "{name}: {ledger:?}");
    our_packets(&records::rows(records.root(), "flows"))
}

#[test]
fn packets_inside_are_those_that_others_find() {
    let Some(folder) = captures::folder() else { return };
    let mut differences = Differences::new();
    let (mut compared, mut programs) = (0, std::collections::BTreeSet::new());
    for capture in captures::captures(&folder, "encapsulation") {
        let name = captures::name(&folder, &capture);
        let ours = replayed(&capture, &name);
        for claims in oracles::beside(&capture) {
            compare(&name, &claims, &ours, &mut differences);
            compared += 1;
            programs.insert(claims.program);
        }
    }
    assert!(compared > 100 && programs.len() == 6, "{compared} files of {programs:?}");
    let known = known();
    let mut wrong = String::new();
    for (place, (ours, theirs)) in &differences {
        if known.get(place).is_none_or(|row| (&row.0, &row.1) != (ours, theirs)) {
            let (name, program, key) = place;
            writeln!(wrong, "{name}\t{program}\t{key}\t{ours}\t{theirs}").expect("memory");
        }
    }
    for place in known.keys().filter(|place| !differences.contains_key(*place)) {
        writeln!(wrong, "no difference any more: {place:?}").expect("memory");
    }
    assert!(wrong.is_empty(), "not as in data/encapsulation-differences.tsv:\n{wrong}");
}
