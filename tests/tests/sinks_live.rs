//! Sinks of a probe that runs: one that hangs slows nothing, and SIGHUP changes them.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value as Json;
use vmprobe_tests::end_to_end::{Folder, Ledger, Probe, free_port, get, until, vmprobe};

const SOON_S: u64 = 60;

/// Counts what comes.
fn receiver() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let octets = Arc::<AtomicU64>::default();
    let count = Arc::clone(&octets);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut part = [0; 4_096];
                while let Ok(octets @ 1..) = stream.read(&mut part) {
                    let octets = u64::try_from(octets).expect("few");
                    count.fetch_add(octets, Ordering::Relaxed);
                }
            });
        }
    });
    (port, octets)
}

/// Takes connections and never reads.
fn hanging() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    (listener.local_addr().expect("its address").port(), listener)
}

fn sink(name: &str, port: u16) -> String {
    format!(
        "[[sink.syslog]]\nname = \"{name}\"\nurl = \"tcp://127.0.0.1:{port}\"\ntables = [\"ledger\"]\n\
         batch_ms = 100\nretry_max_ms = 500\n"
    )
}

#[test]
fn sinks_fail_each_by_itself_and_change_while_packets_come() {
    let folder = Folder::new("sinks-live");
    let (first, first_octets) = receiver();
    let (second, second_octets) = receiver();
    let (hangs, _listener) = hanging();
    let dead = free_port();
    let configuration = |sinks: &[String]| {
        let text = format!(
            "[eal]\nfile_prefix = \"{}\"\nhuge_pages = false\nmemory_mib = 128\n[[port]]\nname = \"p\"\n\
             device = \"net_null0\"\nmbufs = 4095\n[flow]\nslots_per_worker = 16384\n[serve]\n\
             listen = \"127.0.0.1:0\"\n[window]\nlength_ms = 100\n{}",
            folder.name(),
            sinks.concat()
        );
        folder.write("vmprobe.toml", text)
    };
    // A webhook's receiver that never answers makes its attempts hang as long as they may.
    let secret = folder.write("secret", "k\n");
    let webhook = format!(
        "[[sink.webhook]]\nname = \"hangs\"\nurl = \"http://127.0.0.1:{hangs}/\"\n\
         secret = \"file:{}\"\ntables = [\"ledger\"]\ntimeout_ms = 30000\n",
        secret.display()
    );
    let file = configuration(&[sink("works", first), sink("dead", dead), webhook]);
    let mut command = Command::new(vmprobe());
    command.args(["run", "--json", "--seconds", "120", "-c"]).arg(file);
    let mut probe = Probe::start(command);
    let page = probe.receiving().expect("the page is on");
    let live = || get(&page, "/api/v1/live").json();
    let of = |name: &str| -> Json {
        let sinks = live()["ledger"]["sinks"].as_array().cloned().unwrap_or_default();
        sinks.into_iter().find(|sink| sink["name"] == name).unwrap_or_default()
    };
    let grows = |octets: &AtomicU64| {
        let before = octets.load(Ordering::Relaxed);
        until(SOON_S, || (octets.load(Ordering::Relaxed) > before).then_some(())).is_some()
    };
    assert!(grows(&first_octets), "{}", probe.log());
    let failing = || (of("dead")["state"] == "failing").then_some(());
    assert!(until(SOON_S, failing).is_some(), "{}", live());
    assert!(of("dead")["problem"].as_str().is_some_and(|it| it.contains(&dead.to_string())));
    assert_eq!((&of("works")["state"], &of("hangs")["delivered"]), (&"ok".into(), &0.into()));
    let health = get(&page, "/healthz");
    assert!(health.status == 503 && health.body.contains("sink dead"), "{}", health.body);
    let metrics = get(&page, "/metrics").body;
    for line in ["vmprobe_sink_failing{sink=\"dead\"} 1", "vmprobe_sink_failing{sink=\"works\"} 0"]
    {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // Nobody waits for those that do not work.
    let (received, windows) =
        (live()["ledger"]["received"].as_u64(), live()["window_count"].as_u64());
    let on = || {
        let live = live();
        (live["ledger"]["received"].as_u64() > received
            && live["window_count"].as_u64() > windows.map(|windows| windows + 10))
        .then_some(())
    };
    assert!(until(SOON_S, on).is_some() && grows(&first_octets));
    // A wrong configuration changes nothing; another one does.
    configuration(&["[[sink.syslog]]\nname = \"works\"\nurl = \"udp://h:1\"\n".to_owned()]);
    probe.reload();
    probe.said("sink.syslog.url", 10);
    assert!(grows(&first_octets));
    configuration(&[sink("works", second), sink("new", first)]);
    probe.reload();
    probe.said("another configuration", 20);
    assert!(grows(&second_octets) && grows(&first_octets), "{}", probe.log());
    let two = || (of("new")["delivered"].as_u64() > Some(0)).then_some(());
    assert!(until(SOON_S, two).is_some(), "{}", live());
    assert_eq!(live()["ledger"]["unaccounted"], 0);
    // Those that were taken away do not make the probe ill.
    let well = || (get(&page, "/healthz").status == 200).then_some(());
    assert!(until(SOON_S, well).is_some(), "{}", get(&page, "/healthz").body);
    assert_eq!(of("dead")["state"], "retired");
    // One that is put back has an account of its own, beside the one that was taken away.
    configuration(&[sink("works", second)]);
    probe.reload();
    let retired = || (of("new")["state"] == "retired").then_some(());
    assert!(until(SOON_S, retired).is_some(), "{}", live());
    configuration(&[sink("works", second), sink("new", first)]);
    probe.reload();
    let both = || {
        let sinks = live()["ledger"]["sinks"].as_array().cloned().unwrap_or_default();
        let states = sinks.iter().filter(|sink| sink["name"] == "new");
        let states: Vec<_> = states.map(|sink| sink["state"].clone()).collect();
        (states == ["ok", "retired"]).then_some(())
    };
    assert!(until(SOON_S, both).is_some() && grows(&first_octets), "{}", live());
    probe.terminate();
    // What the dead and the hanging one had is lost, so it is no full success.
    let ended = probe.end(60);
    let report = ended.expect(1, &["the sink is taken away"]).json();
    assert!(Ledger::even(&report).received > 0);
    let sinks = report["sinks"].as_array().expect("sinks");
    let of = |name: &str| sinks.iter().find(|sink| sink["name"] == name).expect(name);
    for name in ["works", "new"] {
        assert!(of(name)["made"].as_u64() > Some(0), "{report}");
        assert_eq!(of(name)["made"], of(name)["delivered"], "{report}");
    }
    assert!(of("dead")["dropped"]["sink_undelivered_at_end"].as_u64() > Some(0), "{report}");
}
