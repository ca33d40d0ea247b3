//! `/metrics` at the real Prometheus, and how many series there may be.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use vmprobe::time::sleep_ms;
use vmprobe_tests::end_to_end::{
    Folder, Probe, free_port, get, missing, missing_tools, run_to_end, until, vmprobe,
};
use vmprobe_tests::promtool::promtool_has_nothing_to_say;

const SOON_S: u64 = 120;
/// What `docs/sinks/prometheus.md` says: series of the probe, then of each thing that has its own.
const SERIES: usize = 100;
const SERIES_OF_WORKER: usize = 16;
const SERIES_OF_PORT: usize = 4;
const SERIES_OF_TAP: usize = 9;
const SERIES_OF_WAY: usize = 11;
const SERIES_OF_SINK: usize = 6;
const SERIES_OF_SOURCE: usize = 20;

/// A child process, killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A probe on a generated scenario, with its page.
fn probe(folder: &Folder, scenario: &str) -> (Probe, String) {
    let made = folder.path(scenario);
    let mut command = Command::new(vmprobe());
    command.args(["generate", "--scenario", scenario, "--seed", "1", "--out"]).arg(&made);
    run_to_end(command).expect(0, &[]);
    let text = fs::read_to_string(made.join("vmprobe.toml")).expect("a configuration");
    let text = text
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("\"vmprobe-demo\"", &format!("\"{}-{scenario}\"", folder.name()));
    assert!(text.contains("127.0.0.1:0") && text.contains(&folder.name()), "{text}");
    fs::write(made.join("vmprobe.toml"), text).expect("a file");
    let mut command = Command::new(vmprobe());
    command.args(["run", "--seconds", "300", "-c"]).arg(made.join("vmprobe.toml"));
    let mut probe = Probe::start(command);
    let page = probe.receiving().expect("the page is on");
    (probe, page)
}

/// Has a Prometheus scrape both pages each second; its file.
fn configuration(folder: &Folder, pages: [&str; 2]) -> PathBuf {
    let file = folder.write(
        "prometheus.yml",
        format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n\
             - job_name: vmprobe\n  static_configs:\n  - targets: [\"{}\", \"{}\"]\n",
            pages[0], pages[1]
        ),
    );
    let mut command = Command::new("promtool");
    command.args(["check", "config"]).arg(&file);
    run_to_end(command).expect(0, &[]);
    file
}

/// A Prometheus, or the one before again: with what that has on its disk.
fn prometheus(folder: &Folder, file: &Path) -> (Server, String) {
    let port = free_port();
    let log = fs::File::create(folder.path("prometheus.log")).expect("a file");
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
    (Server(command.spawn().expect("it starts")), format!("127.0.0.1:{port}"))
}

/// The samples of an instant query; none as long as the server does not answer.
fn ask(server: &str, query: &str) -> Vec<Json> {
    let port = server.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let is_up = std::net::TcpStream::connect(("127.0.0.1", port.expect("a port"))).is_ok();
    if !is_up {
        return Vec::new();
    }
    let mut encoded = String::new();
    for octet in query.bytes() {
        write!(encoded, "%{octet:02x}").expect("a string");
    }
    let answer = get(server, &format!("/api/v1/query?query={encoded}"));
    if answer.status != 200 {
        return Vec::new();
    }
    answer.json()["data"]["result"].as_array().cloned().unwrap_or_default()
}

fn value(sample: &Json) -> f64 {
    sample["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number")
}

/// Series of one page as Prometheus has them.
fn series(server: &str, page: &str) -> Vec<Json> {
    ask(server, &format!("{{__name__=~\"vmprobe_.+\",instance=\"{page}\"}}"))
}

fn label_values(series: &[Json], label: &str) -> BTreeSet<String> {
    series.iter().filter_map(|it| it["metric"][label].as_str().map(str::to_owned)).collect()
}

/// How many series there may be, by what `docs/sinks/prometheus.md` says.
fn bound(series: &[Json]) -> usize {
    let count = |label: &str| label_values(series, label).len();
    SERIES
        + count("worker") * SERIES_OF_WORKER
        + count("port") * SERIES_OF_PORT
        + count("tap") * SERIES_OF_TAP
        + count("from") * count("to") * SERIES_OF_WAY
        + count("sink") * SERIES_OF_SINK
        + count("source") * SERIES_OF_SOURCE
        + count("cause")
}

#[test]
fn prometheus_scrapes_the_probe_and_a_thousand_vms_add_no_series() {
    let tools = missing_tools(&["prometheus", "promtool"]);
    if !tools.is_empty() {
        return missing("Prometheus", &tools, "prometheus");
    }
    let folder = Folder::new("prometheus");
    // 100 tenants of 10 VMs each, and a dozen VMs; both at two taps.
    let (many_probe, many) = probe(&folder, "overlap");
    let (few_probe, few) = probe(&folder, "port-scan");
    let file = configuration(&folder, [&many, &few]);
    let (running, server) = prometheus(&folder, &file);
    // Both have seen traffic, also between the taps.
    let settled = || {
        let busy = ask(&server, "vmprobe_path_packets_total{outcome=\"matched\"} > 0");
        (label_values(&busy, "instance").len() == 2).then_some(())
    };
    let found = until(SOON_S, settled);
    assert!(found.is_some(), "{}\n{}", many_probe.log(), few_probe.log());
    // A scrape of a busy machine may be late; the next is not.
    let targets = || get(&server, "/api/v1/targets").json()["data"]["activeTargets"].clone();
    let is_up = |target: &Json| target["health"] == "up" && target["lastError"] == "";
    let all_up = || targets().as_array().is_some_and(|all| all.iter().all(is_up)).then_some(());
    assert!(until(SOON_S, all_up).is_some(), "{}", targets());
    promtool_has_nothing_to_say(&many);
    let query = format!("vmprobe_packets_received_total{{instance=\"{many}\"}}");
    catches_up(&server, &many, &query);
    let unaccounted = ask(&server, "vmprobe_packets_unaccounted");
    assert!(unaccounted.len() == 2 && unaccounted.iter().all(|it| value(it) == 0.0));
    let vms = ask(&server, &format!("vmprobe_inventory_vms{{instance=\"{many}\"}}"));
    assert!(vms.first().is_some_and(|it| value(it) >= 1_000.0), "{vms:?}");
    // The same taps, ports and workers: as many series, but for causes of drops that one has not met. Some
    // figures take a while until they are known, and the size of the store as long as a process of the
    // lowest priority, which hardly gets a core here.
    let kinds = |series: &[Json]| -> BTreeSet<String> {
        let labels = |it: &Json| {
            let metric = it["metric"].as_object().expect("labels");
            let mut names: Vec<_> = metric.keys().cloned().collect();
            names.sort();
            format!("{} {names:?}", metric["__name__"])
        };
        series.iter().map(labels).collect()
    };
    let without_causes =
        |series: &[Json]| series.iter().filter(|it| it["metric"].get("cause").is_none()).count();
    let soon_known = |page: &str| {
        let mut series = series(&server, page);
        series.retain(|it| it["metric"]["__name__"] != "vmprobe_store_bytes");
        series
    };
    let mut last = [Vec::new(), Vec::new()];
    let same = || {
        last = [soon_known(&many), soon_known(&few)];
        let [many, few] = &last;
        (kinds(many) == kinds(few) && without_causes(many) == without_causes(few)).then_some(())
    };
    let same = until(SOON_S, same);
    let (page, [many, few]) = (many, last);
    let differs: Vec<_> = kinds(&many).symmetric_difference(&kinds(&few)).cloned().collect();
    assert!(same.is_some(), "{differs:?}");
    for series in [&many, &few] {
        assert!(!series.is_empty() && series.len() <= bound(series), "{} series", series.len());
    }
    // No VM and no tenant is in any label.
    let inventory =
        fs::read_to_string(folder.path("overlap/inventory.toml")).expect("an inventory");
    let names: BTreeSet<_> = inventory
        .lines()
        .filter(|line| line.starts_with("name = ") || line.starts_with("uuid = "))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(names.len() > 1_000, "{}", names.len());
    for metric in many.iter().filter_map(|it| it["metric"].as_object()) {
        let shown = metric.values().filter_map(Json::as_str).find(|text| names.contains(text));
        assert_eq!(shown, None, "{metric:?}");
    }
    a_kill_is_a_gap_in_which_counters_go_on((running, server), (&folder, &file), &page, &query);
}

/// What Prometheus holds is what the probe says.
fn catches_up(server: &str, page: &str, query: &str) {
    let received = get(page, "/api/v1/live").json()["ledger"]["received"].as_u64();
    let caught_up = || {
        let sample = ask(server, query).pop()?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        (value(&sample) >= received? as f64).then_some(())
    };
    assert!(until(SOON_S, caught_up).is_some(), "{received:?}");
}

/// Each sample of a series, with the time of its scrape in seconds.
fn samples(server: &str, query: &str) -> Vec<(f64, f64)> {
    let series = ask(server, &format!("{query}[10m]")).pop().unwrap_or_default();
    let pair = |it: &Json| {
        let number = it[1].as_str().and_then(|text| text.parse().ok());
        (it[0].as_f64().expect("a time"), number.expect("a number"))
    };
    series["values"].as_array().into_iter().flatten().map(pair).collect()
}

fn a_kill_is_a_gap_in_which_counters_go_on(
    (running, server): (Server, String),
    (folder, file): (&Folder, &Path),
    page: &str,
    query: &str,
) {
    const AWAY_S: f64 = 3.0;
    let before = samples(&server, query);
    drop(running);
    sleep_ms(3_000);
    let (_running, server) = prometheus(folder, file);
    let back = || (samples(&server, query).len() > before.len() + 2).then_some(());
    assert!(until(SOON_S, back).is_some(), "{:?}", samples(&server, query));
    catches_up(&server, page, query);
    let after = samples(&server, query);
    // What it had is still there, and nothing was begun anew or counted twice while it was away.
    assert_eq!(after[..before.len()], before);
    assert!(after.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{after:?}");
    let resets = ask(&server, &format!("resets({query}[10m])"));
    assert!(resets.len() == 1 && resets.iter().all(|it| value(it) == 0.0), "{resets:?}");
    let gaps = after.windows(2).filter(|pair| pair[1].0 - pair[0].0 >= AWAY_S).count();
    assert_eq!(gaps, 1, "{after:?}");
    let unaccounted = ask(&server, "max_over_time(abs(vmprobe_packets_unaccounted)[10m:1s])");
    assert!(!unaccounted.is_empty() && unaccounted.iter().all(|it| value(it) == 0.0));
}
