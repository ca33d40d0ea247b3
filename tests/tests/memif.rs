//! A real sender, DPDK's `dpdk-testpmd`, over shared memory into `vmprobe run`.
//!
//! Each packet that was sent is received or missed, received ones are accounted for, and neither
//! SIGTERM under load nor a second start changes that.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmprobe::time::sleep_ms;
use vmprobe_tests::end_to_end::{
    Folder, Ledger, NOT_BUILT, Probe, Testpmd, get, missing, missing_tools, port, query,
    run_to_end, skipped, too_long, until, vmprobe,
};
use vmprobe_tests::records::{Row, rows, sum};

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
