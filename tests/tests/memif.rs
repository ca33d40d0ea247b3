//! A real sender, DPDK's `dpdk-testpmd`, over shared memory into `vmprobe run`.
//!
//! Each packet that was sent is received or missed, received ones are accounted for, and neither
//! SIGTERM under load nor a second start changes that. A capture that is sent gives what a replay of it
//! gives.
#![expect(clippy::disallowed_types, reason = "tests wait for one another")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use vmprobe::config::{self, Mode};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe::time::sleep_ms;
use vmprobe_tests::end_to_end::{
    Folder, Ledger, NOT_BUILT, Probe, Testpmd, get, missing, missing_tools, port, query,
    run_to_end, skipped, too_long, until, vmprobe,
};
use vmprobe_tests::records::{Row, number, rows, sum};
use vmprobe_tests::replaying::run;

/// Flows that testpmd sends with `--txonly-multi-flow`.
const FLOWS: u64 = 256;

/// Sender and probe take a core each.
static CORES: Mutex<()> = Mutex::new(());

#[test]
fn what_testpmd_sent_was_received_or_missed() {
    let Some((_cores, test)) = Setup::new("what_testpmd_sent_was_received_or_missed") else {
        return;
    };
    let mut sender = test.sender();
    let mut probe = Probe::start(test.run(&["--seconds", "60", "--idle-seconds", "2"]));
    probe.receiving();
    sleep_ms(3_000);
    sender.stop_sending();
    let sent = sender.end();
    let ended = probe.end(90);
    let report = ended.expect(0, &[]).json();

    let ledger = Ledger::even(&report);
    let of_port = |counter| port(&report, "memif", counter);
    let lost = of_port("missed") + of_port("errors") + of_port("no_mbuf");
    assert!(sent > 10_000, "{sent} packets are no load");
    assert_eq!(sent, of_port("received") + lost, "{report}");
    assert_eq!(of_port("received"), ledger.received, "{report}");
    // Its frames have 64 octets, FCS not among them.
    assert_eq!(report["octets"], 64 * ledger.received);
    assert_eq!(report["flows"], FLOWS);
    test.check_records(&ledger);
}

#[test]
fn sigterm_under_load_drains_and_a_second_start_disturbs_nothing() {
    let name = "sigterm_under_load_drains_and_a_second_start_disturbs_nothing";
    let Some((_cores, test)) = Setup::new(name) else { return };
    let sender = test.sender();
    let mut probe = Probe::start(test.run(&["--seconds", "60"]));
    let page = probe.receiving().expect("the page is on");
    let received = || get(&page, "/api/v1/ledger").json()["received"].as_u64().unwrap_or(0);
    assert!(until(20, || (received() > 0).then_some(())).is_some(), "{}", probe.log());

    let second = run_to_end(test.run(&["--seconds", "5"]));
    second.expect(1, &["eal.file_prefix", &test.prefix, "stop it"]);
    assert_eq!(second.output, "", "no report of a run that was none");
    let before = received();
    let goes_on = until(20, || (received() > before).then_some(()));
    assert!(goes_on.is_some() && probe.runs(), "the first one receives: {}", probe.log());

    probe.terminate();
    let ended = probe.end(30);
    let report = ended.expect(0, &[]).json();
    let ledger = Ledger::even(&report);
    assert!(ledger.received > before, "{report}");
    assert_eq!(port(&report, "memif", "received"), ledger.received, "{report}");
    drop(sender);
    test.check_records(&ledger);
}

#[test]
fn a_capture_over_memif_is_what_a_replay_of_it_is() {
    let name = "a_capture_over_memif_is_what_a_replay_of_it_is";
    let Some((_cores, test)) = Setup::new(name) else { return };
    let options = Options { scale: 0.5, duration_s: Some(4), ..Options::default() };
    generate(Scenario::SynFlood, 9, test.folder.root(), options).expect("generated");
    let capture = test.folder.path("tap-a.pcap");
    // Over memif the frames come as fast as they can, so that only time could tell a packet sent
    // again from a copy: nothing is taken out.
    let text = configuration(&test.folder, &test.prefix) + "[copies]\nremove = false\n";
    let config = test.folder.write("memif.toml", text);
    let mut plan = config::load(&config, Mode::Replay).expect("a good configuration").plan;
    plan.serve.enabled = false;
    let replayed = run(plan, std::slice::from_ref(&capture), Some(&test.folder.path("replayed")));
    let replayed = replayed.expect("a replay").report;

    let socket = test.folder.path("memif.sock");
    let _sender = Testpmd::start_with(&socket, &format!("{}-sender", test.prefix), &capture);
    let mut command = Command::new(vmprobe());
    command.args(["run", "--json", "--seconds", "60", "--idle-seconds", "3", "-c"]).arg(&config);
    let received = run_to_end(command).expect(0, &[]).json();

    let ledger = Ledger::even(&received);
    assert_eq!((ledger.received, &received["octets"]), (replayed.packets, &replayed.octets.into()));
    assert_eq!(ledger.accounted, replayed.ledger.accounted);
    assert_eq!(json!(ledger.causes), json!(replayed.ledger.causes));
    let [here, there] = ["replayed", "records"].map(|folder| flows(&test.folder.path(folder)));
    assert!(here.len() > 100, "there is something to compare: {}", here.len());
    let differs = here.iter().find(|(key, counts)| there.get(*key) != Some(*counts));
    assert_eq!(differs.map(|(key, counts)| (key, counts, there.get(key))), None);
    assert_eq!(here.len(), there.len(), "no further flows");
}

/// Packets and octets of each flow, by segment and both ends, of both directions. Not by time:
/// a pause in a capture ends a flow that goes on where there is no pause.
fn flows(records: &Path) -> BTreeMap<String, [u64; 4]> {
    const COUNTS: [&str; 4] = [
        "packet_delta_count",
        "octet_delta_count",
        "reverse_packet_delta_count",
        "reverse_octet_delta_count",
    ];
    let mut flows = BTreeMap::new();
    for row in rows(records, "flows") {
        let end =
            |side| format!("{} {}", row[&format!("{side}_address")], row[&format!("{side}_port")]);
        let [source, destination] = ["source", "destination"].map(end);
        let [packets, octets, back_packets, back_octets] = COUNTS.map(|count| number(&row, count));
        let (ends, counts) = if source <= destination {
            ([source, destination], [packets, octets, back_packets, back_octets])
        } else {
            ([destination, source], [back_packets, back_octets, packets, octets])
        };
        let key = format!("{} {} {ends:?}", row["address_space"], row["protocol_identifier"]);
        let sums: &mut [u64; 4] = flows.entry(key).or_default();
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    flows
}

struct Setup {
    folder: Folder,
    prefix: String,
    config: PathBuf,
}

impl Setup {
    fn new(name: &str) -> Option<(MutexGuard<'static, ()>, Self)> {
        if too_long(name) {
            return None;
        }
        let tools = missing_tools(&["dpdk-testpmd"]);
        if !tools.is_empty() {
            missing(name, &tools, "dpdk");
            return None;
        }
        let cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Folder::new("memif");
        let prefix = folder.name();
        let config = folder.write("vmprobe.toml", configuration(&folder, &prefix));
        Some((cores, Self { folder, prefix, config }))
    }

    fn sender(&self) -> Testpmd {
        Testpmd::start(&self.folder.path("memif.sock"), &format!("{}-sender", self.prefix))
    }

    fn run(&self, options: &[&str]) -> Command {
        let mut command = Command::new(vmprobe());
        command.args(["run", "--json", "-c"]).arg(&self.config).args(options);
        command
    }

    /// What is on disk says the same as the ledger.
    fn check_records(&self, ledger: &Ledger) {
        let folder = self.folder.path("records");
        let forward_and_back = |table: &str| {
            let rows = rows(&folder, table);
            let all = |_: &Row| true;
            sum(&rows, "packet_delta_count", all) + sum(&rows, "reverse_packet_delta_count", all)
        };
        assert_eq!(forward_and_back("windows"), ledger.accounted);
        assert_eq!(forward_and_back("flows"), ledger.accounted);
        let of_ledger = rows(&folder, "ledger");
        let of_probe = |measure: &'static str| {
            move |row: &Row| row["scope"] == "probe" && row["measure"] == measure
        };
        assert_eq!(sum(&of_ledger, "packet_count", of_probe("unaccounted")), 0);
        assert_eq!(sum(&of_ledger, "packet_count", of_probe("received")), ledger.received);
        let sql = "SELECT sum(packet_delta_count + reverse_packet_delta_count)::UBIGINT AS packets \
                   FROM windows";
        match query(&folder, sql) {
            Some(answer) => assert_eq!(answer[0]["packets"], ledger.accounted),
            None => skipped("query of the records", NOT_BUILT),
        }
    }
}

fn configuration(folder: &Folder, prefix: &str) -> String {
    format!(
        r#"
[eal]
memory_mib = 128
huge_pages = false
file_prefix = "{prefix}"
[[port]]
name = "memif"
device = "net_memif0,role=client,socket={socket},socket-abstract=no,rsize=11"
mbufs = 8191
[flow]
slots_per_worker = 16384
[window]
rows_max = 16384
[store]
folder = "records"
[serve]
listen = "127.0.0.1:0"
"#,
        socket = folder.path("memif.sock").display()
    )
}
