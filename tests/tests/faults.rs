//! What goes wrong around the probe: each fault is named, and none takes the packets' account away.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;
use vmprobe_tests::end_to_end::{Ended, Folder, Ledger, SmallDisk, run_to_end, skipped, vmprobe};
use vmprobe_tests::records::{Row, rows, sum};

/// Packets of the captures that these tests make.
const PACKETS: u32 = 500;

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for arguments in [
        &["run"][..],
        &["replay"],
        &["nonsense"],
        &["replay", "--pace", "0", "x.pcap"],
        &["replay", "--workers", "0", "x.pcap"],
        &["generate", "--scenario", "nonsense"],
        &["bench"],
        &["bench", "--plan", "--mix", "63"],
        &["bench", "--plan", "--nic-gbps", "0"],
        &["bench", "--plan", "--cores", "4,1"],
        &["bench", "--plan", "--skew", "nan"],
        &["bench", "--plan", "--load-percent", "101"],
        &["run", "-c", "/nonexistent/vmprobe.toml"],
        &["replay", "-c", "/nonexistent/vmprobe.toml", "x.pcap"],
    ] {
        let ended = start(arguments);
        assert!(!ended.log.is_empty() && ended.output.is_empty(), "{arguments:?}: {ended:?}");
        ended.expect(2, &[]);
    }
}

#[test]
fn a_wrong_configuration_is_exit_code_2_with_file_and_line() {
    let folder = Folder::new("configuration");
    let cases = [
        ("[eal]\nhuge_page = true\n", ":2: ", "huge_page"),
        ("[window]\n\nlength_ms = 7\n", ":3: window.length_ms: ", "allowed"),
        ("[[port]]\nname = \"p\"\ndevice = \"net_nope0\"\n", ":3: port.device: ", "net_memif"),
        ("[eal]\ncores = [0]\n[worker]\ncount = 3\n", ":2: eal.cores: ", "3 workers"),
        ("[eal\n", ":1", ""),
    ];
    for (text, place, word) in cases {
        let file = folder.write("vmprobe.toml", text);
        let place = format!("{}{place}", file.display());
        for command in ["check", "run"] {
            start(&[command, "-c", path(&file)]).expect(2, &[&place, word]);
        }
    }
    // All problems at once, the inventory's own among them.
    let file = folder.write("vmprobe.toml", "[inventory]\nfile = \"inventory.toml\"\n");
    folder.write("inventory.toml", "[[vm]]\nname = \"web\"\n");
    let ended = start(&["replay", "-c", path(&file), "x.pcap"]);
    ended.expect(2, &["inventory.toml:1", "uuid", "tenant"]);
}

#[test]
fn broken_captures_are_named_and_what_was_read_is_accounted() {
    let folder = Folder::new("captures");
    let whole = capture(PACKETS);
    let whole_file = folder.write("whole.pcap", &whole);
    let out = folder.path("records");
    let ended = start(&["replay", "--json", "--out", path(&out), path(&whole_file)]);
    let ledger = Ledger::even(&ended.expect(0, &[]).json());
    assert_eq!(ledger.accounted, u64::from(PACKETS));
    // The last window's account is on disk too.
    let of_probe = |row: &Row| row["scope"] == "probe" && row["measure"] == "received";
    assert_eq!(sum(&rows(&out, "ledger"), "packet_count", of_probe), ledger.received);

    let cut = folder.write("cut.pcap", &whole[..whole.len() - 10]);
    check_broken(&cut, PACKETS - 1);
    let mut torn = whole.clone();
    // The captured length in the header of the second packet.
    let second = 24 + (whole.len() - 24) / 500;
    torn[second + 8..second + 12].fill(0xFF);
    let torn = folder.write("torn.pcap", torn);
    check_broken(&torn, 1);
    let text = folder.write("text.pcap", "this is no capture\n");
    check_broken(&text, 0);
    check_broken(&folder.write("empty.pcap", ""), 0);
    check_broken(&folder.write("head.pcap", &whole[..10]), 0);

    // A broken file beside a good one: the good one is read all the same.
    let ended = start(&["replay", "--json", path(&text), path(&whole_file)]);
    let report = ended.expect(1, &["text.pcap"]).json();
    assert_eq!(Ledger::even(&report).accounted, u64::from(PACKETS));

    let missing = folder.path("missing.pcap");
    let ended = start(&["replay", "--json", path(&missing)]);
    ended.expect(1, &["missing.pcap", "no such file"]);
    start(&["replay", "--json", path(folder.root())]).expect(1, &[path(folder.root())]);
}

#[test]
fn a_replay_whose_records_cannot_be_written_says_so_and_counts_all_packets() {
    let folder = Folder::new("unwritable");
    let file = folder.write("in.pcap", capture(PACKETS));
    let blocked = folder.write("blocked", "no folder");
    check_unstored(&file, &blocked.join("records"));

    let Some(disk) = SmallDisk::mount(folder.path("disk"), 4) else {
        skipped("replay onto a full disk", "needs root to mount a small one");
        return;
    };
    check_unstored(&file, &disk.root().join("records"));
}

/// Replays into a folder that takes nothing.
fn check_unstored(file: &Path, out: &Path) {
    let ended = start(&["replay", "--json", "--out", path(out), path(file)]);
    let report = ended.expect(1, &["records cannot be stored"]).json();
    assert_eq!(Ledger::even(&report).accounted, u64::from(PACKETS));
    let sink = &report["sinks"][0];
    assert_eq!((&sink["name"], &sink["delivered"]), (&Json::from("parquet"), &Json::from(0)));
    assert!(sink["made"].as_u64() > Some(0), "{report}");
    assert_eq!(sink["dropped"]["sink_undelivered_at_end"], sink["made"], "{report}");
    assert!(rows(out, "windows").is_empty());
}

/// The file ends early: exit code 1, and a report of the `packets` before that.
fn check_broken(file: &Path, packets: u32) {
    let ended = start(&["replay", "--json", path(file)]);
    let report = ended.expect(1, &[path(file)]).json();
    let ledger = Ledger::even(&report);
    assert_eq!(ledger.accounted, u64::from(packets), "{report}");
}

fn start(arguments: &[&str]) -> Ended {
    let mut command = Command::new(vmprobe());
    command.args(arguments);
    run_to_end(command)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// A pcap file of UDP packets, a hundred a second, all of the same length.
fn capture(packets: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for number in 0..packets {
        let [.., high, low] = number.to_be_bytes();
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, high, low], [10, 1, 0, 1], 64)
            .udp(1000, 53);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[0; 20]).expect("memory takes it");
        let size = u32::try_from(frame.len()).expect("it is small");
        for word in [1_700_000_000 + number / 100, number % 100 * 10_000, size, size] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

#[cfg(feature = "dpdk")]
mod run {
    use std::fs;
    use std::net::TcpListener;

    use vmprobe::time::sleep_ms;
    use vmprobe_tests::end_to_end::{Answer, Probe, get, until};

    use super::*;

    #[test]
    fn what_cannot_be_opened_is_exit_code_1_with_what_to_do() {
        let folder = Folder::new("devices");
        let refused = |ports: &str, eal: &str, words: &[&str]| {
            let text = configuration(&folder, eal, ports, "[serve]\nenabled = false\n");
            let file = folder.write("vmprobe.toml", text);
            let ended = start(&["run", "--json", "--seconds", "5", "-c", path(&file)]);
            assert_eq!(ended.expect(1, words).output, "", "no report of a run that was none");
        };
        let small = "huge_pages = false\nmemory_mib = 128\n";
        let port =
            |device: &str| format!("[[port]]\nname = \"p\"\ndevice = \"{device}\"\nmbufs = 4095\n");
        // More than any machine that runs tests has reserved.
        refused(NULL, "huge_pages = true\nmemory_mib = 500000\n", &["huge pages", "nr_hugepages"]);
        refused(&port("ffff:ff:1f.7"), small, &["no PCI device ffff:ff:1f.7", "vmprobe doctor"]);
        refused(&port("net_af_packet0,iface=nope0"), small, &["port p: ", "iface=nope0"]);
        refused(&port("net_pcap0,rx_pcap=/nonexistent.pcap"), small, &["port p: ", "nonexistent"]);
        refused(&port("net_null0,nonsense=1"), small, &["port p: ", "nonsense"]);
        refused(NULL, &format!("{small}cores = [4000]\n"), &["eal.cores", "4000", "allowed cores"]);
        refused(NULL, &format!("{small}extra_arguments = [\"--nonsense\"]\n"), &["--nonsense"]);
    }

    #[test]
    fn a_busy_page_port_is_named() {
        let folder = Folder::new("page");
        let other = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let address = other.local_addr().expect("it is bound").to_string();
        let serve = format!("[serve]\nlisten = \"{address}\"\n");
        let text = configuration(&folder, SMALL, NULL, &serve);
        let file = folder.write("vmprobe.toml", text);
        let ended = start(&["run", "--seconds", "5", "-c", path(&file)]);
        ended.expect(1, &["serve.listen", &address, "in use"]);
    }

    #[test]
    fn more_workers_than_cores_share_them_and_say_so() {
        let folder = Folder::new("cores");
        let rest = "[worker]\ncount = 40\n[serve]\nenabled = false\n[flow]\nslots_per_worker = 1024\n\
                    [copies]\nslots = 1024\n[decode]\nfragment_slots = 64\n";
        let quiet = NULL.replace("net_null0", "net_null0,no-rx=1");
        let file = folder.write("vmprobe.toml", configuration(&folder, SMALL, &quiet, rest));
        let ended = start(&["run", "--json", "--seconds", "1", "-c", path(&file)]);
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 40) {
            ended.expect(0, &["workers share cores"]);
        }
        Ledger::even(&ended.expect(0, &[]).json());
    }

    #[test]
    fn a_store_that_cannot_be_written_is_shown_and_recovers() {
        let folder = Folder::new("blocked");
        let blocked = folder.write("records", "no folder");
        let mut run = Run::start(&folder, "records", 100_000);
        run.store_becomes("not_writable");
        run.fails_for("not_writable");
        fs::remove_file(&blocked).expect("the obstacle goes");
        run.store_becomes("ok");
        let report = run.end(0);
        assert_eq!(report["sinks"][0]["dropped"], serde_json::json!({}), "{report}");
        assert_eq!(report["sinks"][0]["made"], report["sinks"][0]["delivered"], "{report}");
        check_ledger_rows(&folder.path("records"), &report);
    }

    #[test]
    fn a_full_disk_costs_records_that_are_counted_and_the_probe_recovers() {
        let folder = Folder::new("full");
        let Some(disk) = SmallDisk::mount(folder.path("disk"), 32) else {
            skipped("full disk", "needs root to mount a small one");
            return;
        };
        let mut run = Run::start(&folder, "disk/records", 1_000);
        run.store_becomes("ok");
        let ballast = disk.root().join("ballast");
        fs::write(&ballast, vec![0; 24 << 20]).expect("there is room for it");
        run.store_becomes("disk_full");
        run.fails_for("disk_full");
        let dropped = || run.sink()["dropped"].as_u64().unwrap_or(0);
        assert!(until(60, || (dropped() > 0).then_some(())).is_some(), "{}", run.live());
        fs::remove_file(&ballast).expect("space returns");
        run.store_becomes("ok");
        sleep_ms(1_500);
        // Records were lost, so it is no full success.
        let report = run.end(1);
        let sink = &report["sinks"][0];
        assert!(sink["dropped"]["sink_queue_full"].as_u64() > Some(0), "{report}");
        assert!(sink["delivered"].as_u64() > Some(0), "{report}");
        assert!(!rows(&disk.root().join("records"), "ledger").is_empty());
    }

    const SMALL: &str = "huge_pages = false\nmemory_mib = 128\n";
    const NULL: &str = "[[port]]\nname = \"p\"\ndevice = \"net_null0\"\nmbufs = 4095\n";

    /// A probe that receives frames without end and writes records of ten windows a second.
    struct Run {
        probe: Probe,
        page: String,
    }

    impl Run {
        fn start(folder: &Folder, records: &str, queue_rows: u32) -> Self {
            let rest = format!(
                "[serve]\nlisten = \"127.0.0.1:0\"\n[window]\nlength_ms = 100\n[store]\n\
                 folder = \"{records}\"\nfile_seconds = 1\nfree_mib_min = 16\n\
                 queue_rows_max = {queue_rows}\n"
            );
            let file = folder.write("vmprobe.toml", configuration(folder, SMALL, NULL, &rest));
            let mut command = Command::new(vmprobe());
            command.args(["run", "--json", "--seconds", "120", "-c"]).arg(file);
            let mut probe = Probe::start(command);
            let page = probe.receiving().expect("the page is on");
            Self { probe, page }
        }

        fn live(&self) -> Json {
            get(&self.page, "/api/v1/live").json()
        }

        fn sink(&self) -> Json {
            self.live()["ledger"]["sinks"][0].clone()
        }

        fn store_becomes(&mut self, state: &str) {
            let window = || self.live()["window_count"].as_u64() > Some(0);
            let is =
                until(60, || (window() && self.live()["store"]["state"] == state).then_some(()));
            assert!(is.is_some(), "never {state}: {}\n{}", self.live(), self.probe.log());
        }

        /// The state is shown everywhere, and packets are received all the same.
        fn fails_for(&mut self, state: &str) {
            assert_eq!(self.sink()["state"], state);
            let Answer { status, body, .. } = get(&self.page, "/healthz");
            assert!(status == 503 && body.contains(state), "{status} {body}");
            let metrics = get(&self.page, "/metrics").body;
            let queued =
                metrics.lines().find(|line| line.starts_with("vmprobe_sink_queued_records{"));
            assert!(queued.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
            self.probe.said("records cannot be stored", 5);
            let received = || self.live()["ledger"]["received"].as_u64();
            let before = received();
            assert!(until(20, || (received() > before).then_some(())).is_some(), "runs on");
            assert_eq!(self.live()["ledger"]["unaccounted"], 0);
        }

        fn end(self, code: i32) -> Json {
            assert_eq!(get(&self.page, "/healthz").status, 200);
            self.probe.terminate();
            let report = self.probe.end(30).expect(code, &["records are stored again"]).json();
            assert!(Ledger::even(&report).received > 0);
            report
        }
    }

    /// The rows on disk add up to the report.
    fn check_ledger_rows(records: &Path, report: &Json) {
        let of_probe = |row: &Row| row["scope"] == "probe" && row["measure"] == "received";
        let received = sum(&rows(records, "ledger"), "packet_count", of_probe);
        assert_eq!(Json::from(received), report["ledger"]["received"]);
    }

    fn configuration(folder: &Folder, eal: &str, ports: &str, rest: &str) -> String {
        let flow = if rest.contains("[flow]") { "" } else { "[flow]\nslots_per_worker = 16384\n" };
        format!("[eal]\nfile_prefix = \"{}\"\n{eal}{ports}{flow}{rest}", folder.name())
    }
}
