//! The same packets give the same results: for any number of workers, any burst size, any order of
//! files, again and again, from a file and from DPDK.

use std::path::{Path, PathBuf};
#[cfg(feature = "dpdk")]
use std::process::Command;

use vmprobe::config::{self, Mode, Plan};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe_tests::captures;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{self, sorted};
use vmprobe_tests::replaying::{run, small_plan};

/// Tables that say what happened; the ledger's rows name workers, so its sums are compared.
const TABLES: [&str; 9] =
    ["windows", "flows", "alerts", "taps", "delays", "path", "path_samples", "migrations", "apps"];

/// What a run came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    packets: u64,
    octets: u64,
    flows: u64,
    accounted: u64,
    causes: String,
    rows: [Vec<String>; TABLES.len()],
}

impl Outcome {
    /// Says where two runs differ, in short.
    fn must_equal(&self, other: &Self, what: &str) {
        for ((table, one), two) in TABLES.iter().zip(&self.rows).zip(&other.rows) {
            let only = |rows: &[String], others: &[String]| -> Vec<String> {
                rows.iter().filter(|row| others.binary_search(row).is_err()).cloned().collect()
            };
            let (left, right) = (only(one, two), only(two, one));
            let [first, second] =
                [left.first(), right.first()].map(|row| row.map_or("", |row| row));
            let counts = (left.len(), right.len());
            assert!(counts == (0, 0), "{what}: {table} differ in {counts:?}:\n{first}\n{second}");
            assert_eq!(one.len(), two.len(), "{what}: rows of {table}");
        }
        assert!(self == other, "{what}: totals differ");
    }
}

fn outcome(plan: Plan, files: &[PathBuf], name: &str) -> Outcome {
    let records = Folder::new(name);
    let replay = run(plan, files, Some(records.root())).expect("a replay");
    let ledger = &replay.report.ledger;
    assert_eq!(ledger.unaccounted, 0, "{name}");
    Outcome {
        packets: replay.report.packets,
        octets: replay.report.octets,
        flows: replay.report.flows,
        accounted: ledger.accounted,
        causes: format!("{:?}", ledger.causes),
        rows: TABLES.map(|table| sorted(&records::rows(records.root(), table), &[])),
    }
}

fn with(plan: &Plan, workers: u16, burst: u16) -> Plan {
    let mut plan = plan.clone();
    plan.worker.count = workers;
    plan.worker.burst_packets = burst;
    plan
}

/// A short cloud with its configuration.
fn cloud(name: &str, scenario: Scenario) -> (Folder, Plan, Vec<PathBuf>) {
    let folder = Folder::new(name);
    let options = Options { scale: 1.0, duration_s: Some(8), ..Options::default() };
    generate(scenario, 5, folder.root(), options).expect("generated");
    let mut plan = config::load(&folder.path("vmprobe.toml"), Mode::Replay)
        .expect("the generator's configuration")
        .plan;
    plan.serve.enabled = false;
    plan.store.free_mib_min = 16;
    plan.path.secret = Some("the same digests in each run".to_owned());
    plan.path.samples = true;
    let files = ["tap-a.pcap", "tap-b.pcap"].map(|name| folder.path(name));
    (folder, plan, files.to_vec())
}

#[test]
fn any_workers_and_bursts_on_a_cloud() {
    let (_folder, plan, files) = cloud("same-cloud", Scenario::Cloud);
    let one = outcome(with(&plan, 1, 32), &files, "same-cloud-1");
    assert!(one.rows[0].len() > 100 && !one.rows[2].is_empty(), "there is something to compare");
    assert!(one.rows[4].len() > 8, "delays of tenants too");
    assert_eq!(one.rows[7].len(), 1, "a migration too");
    for (workers, burst) in [(3, 32), (1, 1), (2, 64)] {
        let what = format!("{workers} workers, bursts of {burst}");
        let other = outcome(with(&plan, workers, burst), &files, "same-cloud-n");
        one.must_equal(&other, &what);
    }
    let turned = [files[1].clone(), files[0].clone()];
    one.must_equal(&outcome(with(&plan, 1, 32), &turned, "same-cloud-turned"), "files turned");
}

/// Captures with fragments, mirrors, tags and tunnels, and some of each kind.
fn chosen(folder: &Path) -> Vec<PathBuf> {
    let all = |place| captures::captures(folder, place);
    let hard = ["frag", "erspan", "vlan", "qinq", "vxlan", "geneve", "gre"];
    let is_hard = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        hard.iter().any(|word| name.contains(word))
    };
    let small = |path: &PathBuf| path.metadata().is_ok_and(|about| about.len() < 1 << 20);
    let mut chosen: Vec<_> = all("encapsulation").into_iter().filter(is_hard).take(30).collect();
    chosen.extend(all("tcp").into_iter().filter(small).step_by(6));
    chosen.extend(all("protocols").into_iter().filter(small).step_by(40));
    chosen.extend(all("malformed").into_iter().step_by(30));
    chosen
}

#[test]
fn any_workers_and_bursts_on_captures() {
    let Some(folder) = captures::folder() else { return };
    let chosen = chosen(&folder);
    assert!(chosen.len() >= 40, "{}", chosen.len());
    for capture in chosen {
        let files = [capture.clone()];
        let plan = small_plan(&files);
        let one = outcome(with(&plan, 1, 64), &files, "same-captures");
        for (workers, burst) in [(3, 64), (1, 1)] {
            let what = format!("{}: {workers} workers, bursts of {burst}", capture.display());
            let other = outcome(with(&plan, workers, burst), &files, "same-captures");
            one.must_equal(&other, &what);
        }
    }
}

#[test]
fn the_same_run_writes_the_same_bytes() {
    let (_folder, plan, files) = cloud("same-bytes", Scenario::Overlap);
    let written = |name: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let records = Folder::new(name);
        run(with(&plan, 2, 32), &files, Some(records.root())).expect("a replay");
        records::files(records.root())
            .into_iter()
            .map(|path| {
                let bytes = std::fs::read(&path).expect("a file");
                (path.strip_prefix(records.root()).expect("below").to_owned(), bytes)
            })
            .collect()
    };
    let (one, two) = (written("same-bytes-1"), written("same-bytes-2"));
    assert!(one.len() >= 4);
    let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&one), names(&two));
    for ((name, one), (_, two)) in one.iter().zip(&two) {
        assert!(one == two, "{} differs", name.display());
    }
}

/// Whether DPDK can give a capture's frames as they are: classic, stamps in microseconds, Ethernet,
/// none cut, none longer than a port takes.
#[cfg(feature = "dpdk")]
fn is_plain(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    if number(0) != Some(0xa1b2_c3d4) || number(20) != Some(1) || bytes.len() > 1 << 20 {
        return false;
    }
    let (mut at, mut packets) = (24, 0);
    while at < bytes.len() {
        let (Some(captured), Some(wire)) = (number(at + 8), number(at + 12)) else { return false };
        if captured != wire || captured > 1_514 {
            return false;
        }
        packets += 1;
        at += 16 + captured as usize;
    }
    at == bytes.len() && packets >= 20
}

/// Receives one capture over DPDK's `net_pcap` in the built program, and replays it, both with one
/// configuration.
#[cfg(feature = "dpdk")]
fn check_net_pcap(capture: &Path) {
    use vmprobe_tests::end_to_end::{run_to_end, vmprobe};

    let name = capture.display();
    let folder = Folder::new("same-net-pcap");
    let copy = folder.path("plain.pcap");
    std::fs::copy(capture, &copy).expect("a copy");
    let config = folder.path("vmprobe.toml");
    let text = format!(
        "[eal]\nhuge_pages = false\nmemory_mib = 128\nfile_prefix = \"vmprobe-same-{}\"\n\
         [[port]]\nname = \"plain\"\ndevice = \"net_pcap0,rx_pcap={}\"\nmbufs = 8192\n\
         [copies]\nremove = true\n[flow]\nslots_per_worker = 16384\n\
         [store]\nfolder = \"live\"\nfree_mib_min = 16\n[serve]\nenabled = false\n",
        std::process::id(),
        copy.display()
    );
    std::fs::write(&config, text).expect("a configuration");
    let mut plan = config::load(&config, Mode::Replay).expect("a good configuration").plan;
    plan.serve.enabled = false;
    let records = folder.path("replayed");
    let replayed = run(plan, &[copy], Some(&records)).expect("a replay").report;

    let mut command = Command::new(vmprobe());
    command.arg("run").arg("-c").arg(&config).args(["--idle-seconds", "1", "--json"]);
    let ended = run_to_end(command);
    let live = ended.expect(0, &[]).json();
    assert_eq!(live["packets"], replayed.packets, "{name}");
    assert_eq!(live["octets"], replayed.octets, "{name}");
    assert_eq!(live["flows"], replayed.flows, "{name}");
    assert_eq!(live["ledger"]["unaccounted"], 0, "{name}");
    assert_eq!(live["ledger"]["accounted"], replayed.ledger.accounted, "{name}");
    assert_eq!(live["ledger"]["causes"], serde_json::json!(replayed.ledger.causes), "{name}");
    for table in ["flows", "windows"] {
        let of = |folder: &Path| sorted(&records::rows(folder, table), &[]);
        let (here, there) = (of(&records), of(&folder.path("live")));
        assert_eq!(here.len(), there.len(), "{name}: rows of {table}");
        if let Some((here, there)) = here.iter().zip(&there).find(|(here, there)| here != there) {
            panic!("{name}: {table}, replayed and received:\n{here}\n{there}");
        }
    }
}

#[cfg(feature = "dpdk")]
#[test]
fn from_a_file_and_from_dpdk() {
    let (cloud, _, files) = cloud("same-dpdk", Scenario::SynFlood);
    check_net_pcap(&files[0]);
    drop(cloud);
    let Some(folder) = captures::folder() else { return };
    for (place, count) in [("benign", 1), ("tcp", 2), ("encapsulation", 2)] {
        let plain = captures::captures(&folder, place).into_iter().filter(|path| is_plain(path));
        let plain: Vec<_> = plain.take(count).collect();
        assert!(!plain.is_empty(), "{place} has plain captures");
        for capture in plain {
            check_net_pcap(&capture);
        }
    }
}
