//! Metrics at a collector of OpenTelemetry: Rotel, as `scripts/fetch-receivers` puts it there.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vmprobe_tests::end_to_end::{Folder, Probe, free_port, get, skipped, until, vmprobe};

const SOON_S: u64 = 60;

/// A child process, killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rotel() -> Option<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/receivers/lib");
    let versions = fs::read_dir(lib).ok()?.flatten();
    let mut found = versions.map(|it| it.path().join("site-packages/rotel/rotel-agent"));
    found.find(|path| path.is_file())
}

/// The collector, which writes down what it has understood.
fn collector(program: &Path, log: &Path, port: u16) -> Server {
    let out = fs::File::options().create(true).append(true).open(log).expect("a file");
    let mut command = Command::new(program);
    command.args(["start", "--exporter", "blackhole", "--debug-log", "metrics"]);
    command.args(["--debug-log-verbosity", "detailed"]);
    command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{port}")]);
    command.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", free_port())]);
    command.stdin(Stdio::null()).stdout(out.try_clone().expect("a handle")).stderr(out);
    let server = Server(command.spawn().expect("it starts"));
    let up = until(SOON_S, || TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(up.is_some(), "{}", fs::read_to_string(log).unwrap_or_default());
    server
}

/// Values behind `key` in what the collector says.
fn said(log: &Path, key: &str) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(key));
    lines.map(|value| value.trim().to_owned()).collect()
}

#[test]
fn a_collector_of_opentelemetry_has_what_metrics_shows() {
    let Some(program) = rotel() else {
        return skipped("OpenTelemetry", "not installed: rotel (scripts/fetch-receivers)");
    };
    let (folder, port) = (Folder::new("otlp"), free_port());
    let log = folder.path("rotel.log");
    let file = folder.write(
        "vmprobe.toml",
        format!(
            "[probe]\nid = \"p-otlp\"\n[eal]\nfile_prefix = \"{}\"\nhuge_pages = false\nmemory_mib = 128\n\
             [[port]]\nname = \"p\"\ndevice = \"net_null0\"\nmbufs = 4095\n[flow]\n\
             slots_per_worker = 16384\n[serve]\nlisten = \"127.0.0.1:0\"\n[window]\nlength_ms = 100\n\
             [otlp]\nurl = \"http://127.0.0.1:{port}/\"\ninterval_ms = 200\ntimeout_ms = 2000\n",
            folder.name()
        ),
    );
    let mut command = Command::new(vmprobe());
    command.args(["run", "--seconds", "120", "-c"]).arg(file);
    let mut probe = Probe::start(command);
    let page = probe.receiving().expect("the page is on");
    // Nobody there yet: it is said once, and the probe goes on.
    probe.said("metrics are not taken", 30);
    let server = collector(&program, &log, port);
    probe.said("metrics are taken again", 30);
    let names = || -> BTreeSet<String> { said(&log, "-> Name:").into_iter().collect() };
    let some = || names().contains("vmprobe_packets_received").then_some(());
    assert!(until(SOON_S, some).is_some(), "{}", probe.log());
    let metrics = get(&page, "/metrics").body;
    let families: BTreeSet<String> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned())
        .collect();
    // A family that has just begun comes with the next export, and the collector writes as it goes.
    let all = || families.is_subset(&names()).then_some(());
    let missing = || families.difference(&names()).cloned().collect::<Vec<_>>();
    assert!(until(SOON_S, all).is_some(), "{:?}", missing());
    let has = |line: &str| fs::read_to_string(&log).unwrap_or_default().contains(line);
    for line in [
        "service.instance.id: Str(p-otlp)",
        "AGGREGATION_TEMPORALITY_CUMULATIVE",
        "IsMonotonic: true",
        "-> cause: Str(",
        "-> Unit: s",
    ] {
        assert!(until(SOON_S, || has(line).then_some(())).is_some(), "{line}");
    }
    // It goes away and comes back.
    let failed = || probe.log().matches("metrics are not taken").count();
    let again = || probe.log().matches("metrics are taken again").count();
    // Said once each time that it is so; an answer may have been late meanwhile.
    let level = || (failed() == again()).then(&again);
    let before = until(SOON_S, level).expect("they are taken");
    drop(server);
    let failures = || (failed() == before + 1).then_some(());
    assert!(until(SOON_S, failures).is_some(), "{}", probe.log());
    fs::write(&log, "").expect("a file");
    let _server = collector(&program, &log, port);
    assert!(until(SOON_S, some).is_some(), "{}", probe.log());
    assert_eq!(get(&page, "/api/v1/live").json()["ledger"]["unaccounted"], 0);
    probe.terminate();
    probe.end(60).expect(0, &[]);
}
