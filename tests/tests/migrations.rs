//! Migrations of generated clouds, against what the generator did and what stands in its captures.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use serde_json::Value as Json;
use vmprobe::config::{self, Mode, Plan};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe_tests::end_to_end::{Folder, NOT_BUILT, query, skipped};
use vmprobe_tests::records::{Row, number, rows, sorted, text};
use vmprobe_tests::replaying::run;

const SECOND: u64 = 1_000_000_000;

/// A generated cloud.
struct Cloud {
    folder: Folder,
    plan: Plan,
    truth: Vec<Json>,
    /// What stands in the captures, by tap.
    sights: BTreeMap<&'static str, Sights>,
}

/// A cloud whose migration, in the middle, has more time on either side than anything looks at.
const HALF_A_MINUTE: Options = Options { scale: 1.0, duration_s: Some(30), vms_per_tenant: None };

impl Cloud {
    fn new(name: &str, scenario: Scenario, seed: u64, options: Options) -> Self {
        let folder = Folder::new(name);
        generate(scenario, seed, folder.root(), options).expect("generated");
        let loaded = config::load(&folder.path("vmprobe.toml"), Mode::Replay);
        let mut plan = loaded.expect("the generator's configuration").plan;
        plan.serve.enabled = false;
        plan.store.free_mib_min = 0;
        let truth = std::fs::read_to_string(folder.path("truth.json")).expect("the truth");
        let truth: Json = serde_json::from_str(&truth).expect("JSON");
        let truth = truth["migrations"].as_array().expect("a list").clone();
        assert!(!truth.is_empty());
        let taps = ["tap-a", "tap-b"].into_iter();
        let sights = taps.map(|tap| (tap, sights(&folder.path(&format!("{tap}.pcap"))))).collect();
        Self { folder, plan, truth, sights }
    }

    fn captures(&self) -> [PathBuf; 2] {
        ["tap-a.pcap", "tap-b.pcap"].map(|name| self.folder.path(name))
    }

    /// The packets of a migration's card at a tap.
    fn of(&self, row: &Row, tap: &str) -> &[Sight] {
        let mac = octets_of(text(row, "mac").expect("a MAC address"));
        let address = text(row, "address").expect("an address").parse().expect("an address");
        self.sights[tap].get(&(mac, address)).map_or(&[], Vec::as_slice)
    }

    /// Plays it back; the folder of the records.
    fn played(&self, name: &str, change: impl FnOnce(&mut Plan)) -> PathBuf {
        let (records, mut plan) = (self.folder.path(name), self.plan.clone());
        change(&mut plan);
        let report = run(plan, &self.captures(), Some(&records)).expect("a replay").report;
        assert_eq!(report.ledger.unaccounted, 0);
        records
    }
}

/// The taps of the generator stand on hosts.
fn tap_of(host: &str) -> &'static str {
    if host == "host-a" { "tap-a" } else { "tap-b" }
}

fn no_inventory(plan: &mut Plan) {
    plan.inventory.file = None;
}

/// A packet between a card's address and another, as a tap shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sight {
    at_ns: u64,
    sent: bool,
    /// Protocol, the card's port, the other address and port.
    flow: (u8, u16, IpAddr, u16),
}

/// Of each card's address.
type Sights = BTreeMap<([u8; 6], IpAddr), Vec<Sight>>;

/// All packets in a capture of the generator's, by their bytes.
fn sights(file: &Path) -> Sights {
    let octets = std::fs::read(file).expect("a capture");
    let word = |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().expect("four"));
    let unit_ns = if word(0) == 0xa1b2_3c4d { 1 } else { 1_000 };
    let (mut at, mut found) = (24, Sights::new());
    while at < octets.len() {
        let at_ns = u64::from(word(at)) * SECOND + u64::from(word(at + 4)) * unit_ns;
        let length = word(at + 8) as usize;
        note(&octets[at + 16..at + 16 + length], at_ns, &mut found);
        at += 16 + length;
    }
    found
}

fn note(frame: &[u8], at_ns: u64, found: &mut Sights) -> Option<()> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    if let Some(TransportSlice::Udp(udp)) = &packet.transport
        && udp.destination_port() == 4_789
    {
        return note(udp.payload().get(8..)?, at_ns, found);
    }
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => return None,
    };
    let (protocol, from, to) = match packet.transport? {
        TransportSlice::Tcp(tcp) => (6, tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (17, udp.source_port(), udp.destination_port()),
        TransportSlice::Icmpv4(_) => (1, 0, 0),
        TransportSlice::Icmpv6(_) => (58, 0, 0),
        TransportSlice::Igmp(_) => return None,
    };
    let card = |octets: &[u8]| <[u8; 6]>::try_from(octets).expect("six");
    let sent = Sight { at_ns, sent: true, flow: (protocol, from, destination, to) };
    found.entry((card(&frame[6..12]), source)).or_default().push(sent);
    let received = Sight { at_ns, sent: false, flow: (protocol, to, source, from) };
    found.entry((card(&frame[..6]), destination)).or_default().push(received);
    Some(())
}

fn octets_of(mac: &str) -> [u8; 6] {
    let octets: Vec<_> =
        mac.split(':').map(|part| u8::from_str_radix(part, 16).expect("hexadecimal")).collect();
    octets.try_into().expect("six")
}

/// What the captures say of a migration whose time is known: the last packet that the VM sent at its
/// first tap, the first one at the other.
fn silence(cloud: &Cloud, row: &Row, truth: &Json) -> (u64, u64) {
    let at = |host: &str| {
        let its = cloud.of(row, tap_of(host)).iter();
        its.filter(|sight| sight.sent).map(|sight| sight.at_ns)
    };
    let stopped_ns = truth["stopped_ns"].as_u64().expect("a time");
    let resumed_ns = truth["time_ns"].as_u64().expect("a time");
    let host = |name: &str| truth[name].as_str().expect("a host").to_owned();
    let last = at(&host("from")).filter(|at| *at < stopped_ns + 1_000_000).max();
    let first = at(&host("to")).filter(|at| *at >= resumed_ns).min();
    (last.expect("it sent before"), first.expect("it sent after"))
}

/// What both kinds of evidence agree on.
fn check_seen(cloud: &Cloud, row: &Row, truth: &Json) {
    assert_eq!(row["detected"], true, "{row:?}");
    for (tap, host) in [("from_tap", "from"), ("to_tap", "to")] {
        assert_eq!(text(row, tap), truth[host].as_str().map(tap_of), "{row:?}");
        assert_eq!(text(row, &format!("{host}_host")), truth[host].as_str(), "{row:?}");
    }
    let (last, first) = silence(cloud, row, truth);
    assert_eq!((number(row, "last_seen_ns"), number(row, "first_seen_ns")), (last, first));
    assert_eq!(number(row, "blackout_ns"), first - last);
    let stood_ns = number(&as_row(truth), "time_ns") - number(&as_row(truth), "stopped_ns");
    assert!(first - last >= stood_ns, "it stood still for {stood_ns}: {row:?}");
    assert!(number(row, "peer_count") > 0);
    assert_eq!(row["estimate"], false);
}

fn as_row(truth: &Json) -> Row {
    truth.as_object().expect("an object").clone().into_iter().collect()
}

#[test]
fn a_migration_is_stated_with_its_blackout_reported_or_not() {
    let cloud = Cloud::new("migration-cloud", Scenario::Cloud, 7, HALF_A_MINUTE);
    let [truth] = &cloud.truth[..] else { panic!("one migration") };
    let reported = rows(&cloud.played("reported", |_| ()), "migrations");
    let [row] = &reported[..] else { panic!("{reported:?}") };
    check_seen(&cloud, row, truth);
    assert_eq!(text(row, "virtual_station_uuid"), truth["uuid"].as_str());
    assert_eq!(text(row, "virtual_station_name"), Some("red-app-1"));
    assert_eq!(text(row, "virtual_station_tenant"), Some("red"));
    assert_eq!(row["time_ns"], truth["time_ns"]);
    assert_eq!(text(row, "reported_by"), Some("file"));
    // It stood still for 180 ms, and says something several times a second otherwise.
    assert!((180_000_000..600_000_000).contains(&number(row, "blackout_ns")), "{row:?}");

    let detected = rows(&cloud.played("detected", no_inventory), "migrations");
    let [alone] = &detected[..] else { panic!("{detected:?}") };
    check_seen(&cloud, alone, truth);
    assert_eq!(alone["virtual_station_uuid"], Json::Null);
    assert_eq!(alone["reported_by"], Json::Null);
    assert_eq!(alone["time_ns"], alone["first_seen_ns"]);
    for column in ["mac", "address", "segment", "address_space", "blackout_ns", "peer_count"] {
        assert_eq!(alone[column], row[column], "{column}");
    }

    let three = rows(&cloud.played("three", |plan| plan.worker.count = 3), "migrations");
    assert_eq!(sorted(&three, &[]), sorted(&reported, &[]));
}

#[test]
fn without_ways_between_taps_what_is_reported_is_stated_and_nothing_measured() {
    let options = Options { scale: 1.0, duration_s: Some(8), ..Options::default() };
    let cloud = Cloud::new("migration-off", Scenario::Cloud, 3, options);
    let [truth] = &cloud.truth[..] else { panic!("one migration") };
    let off = rows(&cloud.played("off", |plan| plan.path.enabled = false), "migrations");
    let [row] = &off[..] else { panic!("{off:?}") };
    assert_eq!((&row["time_ns"], &row["detected"]), (&truth["time_ns"], &Json::Bool(false)));
    assert_eq!((&row["from_host"], &row["to_host"]), (&truth["from"], &truth["to"]));
    assert_eq!(text(row, "reported_by"), Some("file"));
    for column in ["blackout_ns", "last_seen_ns", "first_seen_ns", "from_tap", "peer_count"] {
        assert_eq!(row[column], Json::Null, "{column}");
    }
    // And nothing at all where nobody reports it either.
    let nothing = cloud.played("nothing", |plan| {
        plan.path.enabled = false;
        no_inventory(plan);
    });
    assert!(rows(&nothing, "migrations").is_empty());
}

#[test]
fn a_vm_that_nothing_is_said_of_stays_where_it_is() {
    let cloud = Cloud::new("migration-moved", Scenario::Benign, 11, Options::default());
    // The only migration is the generator's own.
    let detected = rows(&cloud.played("detected", no_inventory), "migrations");
    assert_eq!(detected.len(), cloud.truth.len(), "{detected:?}");
}

#[test]
fn one_migration_a_second_among_equal_addresses_is_found_and_none_invented() {
    let options = Options { scale: 1.0, duration_s: Some(16), ..Options::default() };
    let cloud = Cloud::new("migration-overlap", Scenario::Overlap, 5, options);
    let records = cloud.played("reported", |_| ());
    let reported = rows(&records, "migrations");
    let of_row = |row: &Row| text(row, "virtual_station_uuid").map(ToOwned::to_owned);
    let truly: BTreeMap<_, _> =
        cloud.truth.iter().map(|it| (it["uuid"].as_str().map(ToOwned::to_owned), it)).collect();
    assert_eq!(reported.len(), truly.len(), "each once");
    let mut seen = 0;
    for row in &reported {
        let truth = truly[&of_row(row)];
        assert_eq!(row["time_ns"], truth["time_ns"]);
        assert_eq!((&row["from_host"], &row["to_host"]), (&truth["from"], &truth["to"]));
        if row["detected"] == true {
            check_seen(&cloud, row, truth);
            seen += 1;
        }
    }
    // The first and the last second hold too few packets of some.
    assert!(seen * 10 >= truly.len() * 7, "{seen} of {}", truly.len());

    // Without the inventory: who it was is known by card and segment.
    let who: BTreeMap<_, _> = rows(&records, "inventory")
        .iter()
        .map(|row| ((row["mac"].clone(), row["segment"].clone()), row["uuid"].clone()))
        .map(|((mac, segment), uuid)| ((mac.to_string(), segment.to_string()), uuid))
        .collect();
    let detected = rows(&cloud.played("detected", no_inventory), "migrations");
    for row in &detected {
        let uuid = &who[&(row["mac"].to_string(), row["segment"].to_string())];
        check_seen(&cloud, row, truly[&uuid.as_str().map(ToOwned::to_owned)]);
    }
    assert_eq!(detected.len(), seen, "traffic shows the same ones, whoever reports them");
}

/// The flows of a card, by its packets: first and last time.
fn flows(cloud: &Cloud, row: &Row) -> Vec<(u64, u64)> {
    let mut times: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for sight in cloud.sights.keys().flat_map(|tap| cloud.of(row, tap)) {
        let span = times.entry(sight.flow).or_insert((sight.at_ns, sight.at_ns));
        *span = (span.0.min(sight.at_ns), span.1.max(sight.at_ns));
    }
    times.into_values().collect()
}

/// What one packet in several tells of a migration: the silence can only seem longer than it was, and
/// both its ends are packets of the VM at these taps.
fn check_estimated(cloud: &Cloud, row: &Row, truth: &Json) {
    assert_eq!(row["estimate"], true, "{row:?}");
    let (last, first) = (number(row, "last_seen_ns"), number(row, "first_seen_ns"));
    assert_eq!(number(row, "blackout_ns"), first - last, "{row:?}");
    let (true_last, true_first) = silence(cloud, row, truth);
    assert!(last <= true_last && first >= true_first, "{last} {true_last} {true_first} {first}");
    for (at_ns, tap) in [(last, "from_tap"), (first, "to_tap")] {
        let mut sent = cloud.of(row, text(row, tap).expect("a tap")).iter();
        assert!(sent.any(|sight| sight.sent && sight.at_ns == at_ns), "{tap}: {row:?}");
    }
}

#[test]
fn of_one_packet_in_several_the_blackout_is_an_upper_bound() {
    let cloud = Cloud::new("migration-some", Scenario::Cloud, 7, Options::default());
    let [truth] = &cloud.truth[..] else { panic!("one migration") };
    for one_in in [4, 16] {
        for (name, change) in [("named", (|_| ()) as fn(&mut Plan)), ("unnamed", no_inventory)] {
            let records = cloud.played(&format!("{name}-{one_in}"), |plan| {
                plan.path.sample_one_in = one_in;
                change(plan);
            });
            let some = rows(&records, "migrations");
            let [row] = &some[..] else { panic!("one in {one_in}: {some:?}") };
            assert_eq!(row["sampling_probability"].as_f64(), Some(1.0 / f64::from(one_in)));
            assert_eq!(row["detected"], true, "{row:?}");
            check_estimated(&cloud, row, truth);
            let Some(lens) = query(&records, "SELECT * FROM migration_lens") else {
                return skipped("the migration lens of some packets", NOT_BUILT);
            };
            let lens = &lens[0];
            assert_eq!(lens["estimate"], true, "{lens}");
            // Packets and flows are those of all packets; only the ends of the silence are estimates.
            let all = flows(&cloud, row);
            let (last, first) = (number(row, "last_seen_ns"), number(row, "first_seen_ns"));
            let under_way = |(begun, end): &&(u64, u64)| *begun <= last && *end >= last;
            let survived = all.iter().filter(under_way).filter(|(_, end)| *end >= first).count();
            assert_eq!(lens["flow_count"], all.iter().filter(under_way).count(), "{lens}");
            assert_eq!(lens["survived_flow_count"], survived, "{lens}");
        }
    }
}

#[test]
fn of_one_packet_in_several_no_migration_is_invented() {
    let options = Options { scale: 1.0, duration_s: Some(16), ..Options::default() };
    let cloud = Cloud::new("migration-some-overlap", Scenario::Overlap, 5, options);
    let some = rows(&cloud.played("some", |plan| plan.path.sample_one_in = 4), "migrations");
    let truly: BTreeMap<_, _> =
        cloud.truth.iter().map(|it| (it["uuid"].as_str().map(ToOwned::to_owned), it)).collect();
    assert_eq!(some.len(), truly.len(), "each once, because the inventory reports them");
    let mut seen = 0;
    for row in &some {
        let truth = truly[&text(row, "virtual_station_uuid").map(ToOwned::to_owned)];
        assert_eq!(row["time_ns"], truth["time_ns"]);
        assert_eq!(
            row["estimate"],
            row["blackout_ns"] != Json::Null,
            "of what is measured: {row:?}"
        );
        if row["detected"] == true {
            check_estimated(&cloud, row, truth);
            seen += 1;
        }
    }
    assert!(seen > 0, "traffic shows some");
    let alone = cloud.played("alone", |plan| {
        plan.path.sample_one_in = 4;
        no_inventory(plan);
    });
    assert_eq!(rows(&alone, "migrations").len(), seen, "the same ones without an inventory");
}

#[test]
fn the_lens_shows_what_a_migration_did_to_the_traffic() {
    let cloud = Cloud::new("migration-lens", Scenario::Cloud, 7, HALF_A_MINUTE);
    for (name, change) in [("named", (|_| ()) as fn(&mut Plan)), ("unnamed", no_inventory)] {
        let records = cloud.played(name, change);
        let Some(lens) = query(&records, "SELECT * FROM migration_lens") else {
            return skipped("the migration lens", NOT_BUILT);
        };
        let lens = lens.as_array().expect("rows").clone();
        let [lens] = &lens[..] else { panic!("{lens:?}") };
        let row = &rows(&records, "migrations")[0];
        let count =
            |column: &str| lens[column].as_u64().unwrap_or_else(|| panic!("{column}: {lens}"));
        let (last, first) = (number(row, "last_seen_ns"), number(row, "first_seen_ns"));
        assert_eq!((count("last_seen_ns"), count("first_seen_ns")), (last, first));

        // Flows, against the captures.
        let all = flows(&cloud, row);
        let under_way = |(begun, end): &&(u64, u64)| *begun <= last && *end >= last;
        let survived = all.iter().filter(under_way).filter(|(_, end)| *end >= first).count();
        let under_way = all.iter().filter(under_way).count();
        assert!(survived > 0);
        assert_eq!(count("flow_count"), under_way as u64, "{lens}");
        assert_eq!(count("survived_flow_count"), survived as u64, "{lens}");
        assert_eq!(count("ended_flow_count"), (under_way - survived) as u64, "{lens}");

        // Packets and retransmissions, against the rows of the windows.
        let address = text(row, "address").expect("an address");
        let ends = ["source_address", "destination_address"];
        let its = rows(&records, "windows");
        let its = its.iter().filter(|window| {
            window["address_space"] == row["address_space"]
                && ends.iter().any(|end| text(window, end) == Some(address))
        });
        let mut sums: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
        for window in its {
            let (start, end) = (number(window, "window_start_ns"), number(window, "window_end_ns"));
            if end + 10 * SECOND <= last || start >= first + 10 * SECOND {
                continue;
            }
            let phase = match () {
                () if end <= last => "before",
                () if start >= first => "after",
                () => "during",
            };
            let both = |column: &str| {
                number(window, column) + number(window, &format!("reverse_{column}"))
            };
            let sum = sums.entry(phase).or_default();
            sum[0] += both("packet_delta_count");
            sum[1] += both("retransmission_packet_count");
        }
        for (phase, [packets, again]) in &sums {
            assert!(*packets > 0);
            assert_eq!(count(&format!("{phase}_packet_count")), *packets);
            assert_eq!(count(&format!("{phase}_retransmission_packet_count")), *again);
        }
        assert_eq!(sums.len(), 3);
        assert!(sums.values().map(|[_, again]| again).sum::<u64>() > 0, "{sums:?}");

        // It went from one host to the other: those that it left are further off now, those that it
        // joined are nearer.
        let (least, most) = (&lens["delay_step_min_ns"], &lens["delay_step_max_ns"]);
        let (least, most) = (least.as_f64().expect("a step"), most.as_f64().expect("a step"));
        assert!(least < -50_000.0 && most > 50_000.0, "{least} {most}");
        let sql = "SELECT peer_address, direction, before_sample_count, after_sample_count, \
            before_delay_mean_ns, after_delay_mean_ns, delay_step_ns FROM migration_paths";
        let paths = query(&records, sql).expect("it is built");
        let paths = paths.as_array().expect("rows");
        let peers: BTreeSet<_> =
            paths.iter().map(|path| path["peer_address"].to_string()).collect();
        assert_eq!(count("delay_peer_count"), peers.len() as u64);
        for path in paths {
            let of = |column: &str| path[column].as_f64().expect("a number");
            assert!(
                (of("after_delay_mean_ns") - of("before_delay_mean_ns") - of("delay_step_ns"))
                    .abs()
                    < 1.0
            );
            assert_eq!(of("before_sample_count") > 0.0, of("before_delay_mean_ns") > 0.0, "{path}");
        }
    }
}
