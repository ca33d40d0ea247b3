//! A VM that moves to another bridge of an Open vSwitch while it talks: the probe says so, with the
//! blackout, and the flows that went on. The way between the bridges takes time, by which it is known
//! which of two taps packets passed first also where this machine is busy.
#![cfg(feature = "dpdk")]

use std::thread::scope;

use vmprobe::time::{Timestamp, sleep_ms, wall_clock};
use vmprobe_tests::end_to_end::{
    DataPath, Folder, Ledger, NOT_BUILT, Namespace, Probe, Switch, is_root, missing, missing_tools,
    port, query, skipped, start_link, too_long, until, vmprobe,
};
use vmprobe_tests::link::live::Options;
use vmprobe_tests::link::{Impairments, Mirror, Way};
use vmprobe_tests::records::{number, rows, text};

const PACKAGES: &str = "iproute2 iputils-ping iperf3 openvswitch-switch-dpdk";
const TOOLS: [&str; 5] = ["ip", "ovs-vsctl", "ovsdb-server", "ping", "iperf3"];
const WEB: &str = "10.1.0.1";
const DB: &str = "10.1.0.2";
const DB_MAC: &str = "02:00:00:00:0a:02";
/// How long the VM has no port.
const UNPLUGGED_MS: u64 = 400;
/// From one bridge to the other.
const WAY_NS: u64 = 10_000_000;
/// What a busy machine may add: commands of the switch, threads that wait for a core.
const SLACK_NS: u64 = 1_500_000_000;

fn bridge(switch: &Switch, number: u8) {
    let name = format!("br{number}");
    let (mirror, tap) = (format!("mirror{number}"), format!("tap{number}"));
    switch.namespace.wire(&mirror, &switch.namespace, &tap);
    if number > 0 {
        switch.set(&["add-br", &name, "--", "set", "bridge", &name, "datapath_type=netdev"]);
    }
    switch.set(&["add-port", &name, &format!("up{number}"), "tag=10"]);
    switch.set(&["add-port", &name, &mirror]);
    switch.set(&[
        "--",
        "--id=@p",
        "get",
        "port",
        &mirror,
        "--",
        "--id=@m",
        "create",
        "mirror",
        &format!("name=m{number}"),
        "select-all=true",
        "output-port=@p",
        "--",
        "set",
        "bridge",
        &name,
        "mirrors=@m",
    ]);
}

/// The way between the bridges; its own mirrors end nowhere.
fn join(switch: &Switch, folder: &Folder) -> Probe {
    switch.namespace.wire("shown", &switch.namespace, "nowhere");
    let way = Way { delay_ns: WAY_NS, ..Way::default() };
    start_link(
        &switch.namespace,
        &Options {
            sides: ["way0", "way1"].map(str::to_owned),
            mirrors: ["shown", "shown"].map(str::to_owned),
            seed: 1,
            impairments: Impairments::alike(way, Mirror::default()),
            folder: folder.root().to_path_buf(),
            captures: false,
            seconds_max: 120,
        },
    )
}

/// Segments that a VM's kernel sent again, and those that it had already when they came.
fn repeated(vm: &Namespace) -> [u64; 2] {
    let read = |file: &str, kind: &str, names: &[&str]| -> u64 {
        let text = vm.run("cat", &[file]);
        let mut lines = text.lines().filter(|line| line.starts_with(kind));
        let (head, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let its = head.split(' ').zip(values.split(' '));
        let its: Vec<_> = its.filter(|(name, _)| names.contains(name)).collect();
        assert_eq!(its.len(), names.len(), "{file}");
        its.iter().map(|(_, value)| value.parse::<u64>().expect("a number")).sum()
    };
    let had = ["TCPDSACKOldSent", "TCPDSACKOfoSent"];
    [read("/proc/net/snmp", "Tcp: ", &["RetransSegs"]), read("/proc/net/netstat", "TcpExt: ", &had)]
}

fn vm(switch: &Switch, name: &str, mac: &str, address: &str) -> Namespace {
    let namespace = Namespace::new(name);
    let port = format!("to-{name}");
    switch.namespace.wire(&port, &namespace, "eth0");
    namespace.ip(&["link", "set", "eth0", "address", mac]);
    namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"]);
    switch.set(&["add-port", "br0", &port, "tag=10"]);
    namespace
}

fn configuration(folder: &Folder) -> String {
    let mut text = format!(
        "[eal]\nmemory_mib = 128\nhuge_pages = false\nfile_prefix = \"{}\"\n\
         [path]\nsample_one_in = 1\n[flow]\nslots_per_worker = 16384\n[window]\nrows_max = 16384\n\
         [inventory]\nfile = \"inventory.toml\"\n[store]\nfolder = \"records\"\n\
         [serve]\nlisten = \"127.0.0.1:0\"\n",
        folder.name()
    );
    for number in [0, 1] {
        text += &format!(
            "[[port]]\nname = \"m{number}\"\ndevice = \"net_af_packet{number},iface=tap{number}\"\n\
             mbufs = 8191\n[[tap]]\nname = \"tap{number}\"\nhost = \"host-{number}\"\n\
             match = {{ port = \"m{number}\" }}\n"
        );
    }
    text
}

#[test]
fn a_vm_that_moves_to_another_bridge_while_it_talks() {
    let name = "a_vm_that_moves_to_another_bridge_while_it_talks";
    if too_long(name) {
        return;
    }
    if !is_root() {
        return skipped(name, "needs root for network namespaces");
    }
    let mut tools = missing_tools(&TOOLS);
    tools.extend(Switch::lacks(DataPath::Plain));
    if !tools.is_empty() {
        return missing(name, &tools, PACKAGES);
    }
    let switch = Switch::start(DataPath::Plain);
    for number in [0, 1] {
        switch.namespace.wire(&format!("up{number}"), &switch.namespace, &format!("way{number}"));
    }
    bridge(&switch, 0);
    bridge(&switch, 1);
    let web = vm(&switch, "web", "02:00:00:00:0a:01", WEB);
    let db = vm(&switch, "db", DB_MAC, DB);
    let folder = Folder::new("migration-live");
    let _way = join(&switch, &folder);
    folder.write(
        "inventory.toml",
        format!(
            "[[tenant]]\nname = \"acme\"\n[[vm]]\nuuid = \"5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01\"\n\
             name = \"db\"\ntenant = \"acme\"\n[[vm.interface]]\nmac = \"{DB_MAC}\"\n\
             addresses = [\"{DB}\"]\nsegment = \"default/vlan/10\"\n"
        ),
    );
    let config = folder.write("vmprobe.toml", configuration(&folder));
    let mut command = switch.namespace.command(vmprobe());
    command.args(["run", "--json", "--seconds", "90", "-c"]).arg(config);
    let mut probe = Probe::start(command);
    probe.receiving().expect("the page is on");
    for number in [0, 1] {
        switch.sends_through(&format!("mirror{number}"));
    }
    let [before, after] = talk_and_move(&switch, &web, &db);
    sleep_ms(1_000);
    probe.terminate();
    let report = probe.end(60).expect(0, &[]).json();
    Ledger::even(&report);

    let records = folder.path("records");
    let found = rows(&records, "migrations");
    let [row] = &found[..] else { panic!("{found:?}") };
    assert_eq!((text(row, "from_tap"), text(row, "to_tap")), (Some("tap0"), Some("tap1")));
    assert_eq!((text(row, "from_host"), text(row, "to_host")), (Some("host-0"), Some("host-1")));
    assert_eq!((text(row, "address"), text(row, "mac")), (Some(DB), Some(DB_MAC)));
    assert_eq!(text(row, "virtual_station_name"), Some("db"));
    assert_eq!((&row["detected"], text(row, "reported_by")), (&true.into(), None));
    // From the command that took its port away to the one that gave it another.
    let (least_ns, most_ns) = (after[0].since_ns(before[1]), after[1].since_ns(before[0]));
    let blackout_ns = number(row, "blackout_ns");
    let span_ns = least_ns..=most_ns + SLACK_NS;
    assert!(span_ns.contains(&blackout_ns), "{span_ns:?} {row:?}");

    let Some(lens) = query(&records, "SELECT * FROM migration_lens") else {
        return skipped("the lens of a live migration", NOT_BUILT);
    };
    let count = |column: &str| lens[0][column].as_u64().unwrap_or(0);
    // The transfer, its control connection and the echo requests.
    assert!(count("survived_flow_count") >= 3 && count("ended_flow_count") == 0, "{lens}");
    // Each segment that came to somebody who had it was seen twice; of those that were sent again some
    // were lost before any tap.
    let phases = ["before", "during", "after"];
    let again: u64 =
        phases.iter().map(|phase| count(&format!("{phase}_retransmission_packet_count"))).sum();
    let [web_again, db_again] = [&web, &db].map(repeated);
    let (least, most) = (web_again[1] + db_again[1], web_again[0] + db_again[0]);
    let missed = port(&report, "m0", "missed") + port(&report, "m1", "missed");
    assert!(again + missed >= least && again <= most + missed, "{least} {most} {missed} {lens}");
    assert!(count("before_packet_count") > 100 && count("after_packet_count") > 100, "{lens}");
}

/// Around the commands that took the VM's port away, and that gave it another.
fn talk_and_move(switch: &Switch, web: &Namespace, db: &Namespace) -> [[Timestamp; 2]; 2] {
    let mut command = web.command("iperf3");
    command.args(["--server", "--one-off", "--bind", WEB]);
    let _server = Probe::start(command);
    let up = until(20, || {
        let listening = web.run("ss", &["-H", "-l", "-t", "-n", "sport = :5201"]);
        (!listening.is_empty()).then_some(())
    });
    assert!(up.is_some(), "iperf3 does not listen");
    scope(|threads| {
        threads.spawn(|| db.run("ping", &["-q", "-i", "0.02", "-c", "450", "-W", "1", WEB]));
        let client = ["--client", WEB, "--connect-timeout", "5000", "--time", "8"];
        threads.spawn(move || db.run("iperf3", &[&client[..], &["--bitrate", "4M"]].concat()));
        sleep_ms(3_500);
        let timed = |arguments: &[&str]| {
            let begun = wall_clock();
            switch.set(arguments);
            [begun, wall_clock()]
        };
        let before = timed(&["del-port", "br0", "to-db"]);
        sleep_ms(UNPLUGGED_MS);
        [before, timed(&["add-port", "br1", "to-db", "tag=10"])]
    })
}
