//! Configuration from outside: the reference file, every key, every kind of mistake.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use vmprobe::config::schema::ROOT;
use vmprobe::config::{
    Given, Key, Kind, Loaded, Mode, Plan, PortPlan, Problems, Sizes, Table, check, load, parse,
    reference, replay_without_file,
};
use vmprobe::inventory;

fn read(text: &str, mode: Mode) -> Result<Loaded, Problems> {
    parse(text, "x.toml", Path::new("/base"), mode)
}

fn plan(text: &str) -> Plan {
    match read(text, Mode::Check) {
        Ok(loaded) => loaded.plan,
        Err(problems) => panic!("{problems}"),
    }
}

fn problems(text: &str, mode: Mode) -> Vec<String> {
    match read(text, mode) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)
}

fn debug(plan: &Plan) -> String {
    format!("{plan:?}")
}

/// Visits every key that is no table, with the table it stands in.
fn each_key(table: &'static Table, visit: &mut impl FnMut(&'static Table, &'static Key)) {
    for key in table.keys {
        match key.kind {
            Kind::Table(inner) | Kind::Tables(inner, _) => each_key(inner, visit),
            _ => visit(table, key),
        }
    }
}

/// Tables of which there may be several.
const MANY: [&str; 16] = [
    "port",
    "tap",
    "filter",
    "space",
    "inventory.openstack",
    "inventory.libvirt",
    "inventory.ovsdb",
    "sink.clickhouse",
    "sink.webhook",
    "sink.syslog",
    "sink.eve",
    "sink.rabbitmq",
    "sink.ipfix",
    "sink.elastic",
    "sink.splunk",
    "sink.kafka",
];

/// A document in which `key` has the value `value`, and the line where that stands.
fn document(table: &Table, key: &Key, value: &str) -> (String, usize) {
    let mut text = String::from("segments.domains = [\"default\", \"east\"]\n");
    if table.path == "segments" {
        text.clear();
    }
    if table.path != "port" {
        text.push_str("[[port]]\nname = \"port0\"\ndevice = \"net_null0,no-rx=1\"\n");
    }
    if table.path == "filter" {
        text.push_str("[[tap]]\nname = \"rack1\"\n");
        text.push_str("[[tap]]\nname = \"rack2\"\nmatch = { vlan = 7 }\n");
    }
    if table.path == "query" {
        for name in ["lake", "other"] {
            let sink = format!("name = \"{name}\"\nurl = \"http://{name}\"\n");
            text.push_str(&format!("[[sink.clickhouse]]\n{sink}"));
        }
    }
    let many = MANY.contains(&table.path);
    let path = if table.path == "tap.match" { "[tap.match]" } else { table.path };
    match (table.path, many) {
        ("tap.match", _) => text.push_str("[[tap]]\nname = \"rack1\"\n[tap.match]\n"),
        (_, true) => writeln!(text, "[[{path}]]").expect("a string"),
        (_, false) => writeln!(text, "[{path}]").expect("a string"),
    }
    for other in table.keys {
        if matches!(other.given, Given::Required(_)) && other.name != key.name {
            writeln!(text, "{} = {}", other.name, other.given.example()).expect("a string");
        }
    }
    if table.path == "filter" {
        let other = if key.name == "network" { "port = 9" } else { "network = \"10.0.0.0/8\"" };
        writeln!(text, "{other}").expect("a string");
    }
    if table.path == "query" && key.name != "clickhouse" {
        text.push_str("clickhouse = \"lake\"\n");
    }
    writeln!(text, "{} = {value}", key.name).expect("a string");
    let line = text.lines().count();
    (text, line)
}

/// Another allowed value than the default or example.
fn other_value(table: &Table, key: &Key) -> String {
    let default = key.given.example();
    match (table.path, key.name) {
        ("window", "length_ms") => return "500".to_owned(),
        ("tap" | "inventory.openstack" | "inventory.libvirt" | "inventory.ovsdb", "domain") => {
            return "\"east\"".to_owned();
        }
        ("tap", "segment") => return "\"default/vlan/43\"".to_owned(),
        ("segments", "domains") => return "[\"default\", \"north\"]".to_owned(),
        ("filter", "tap") => return "\"rack2\"".to_owned(),
        ("inventory.openstack", "physical_domains") => return "[\"other=default\"]".to_owned(),
        ("eal", "extra_arguments") => return "[\"--log-level=8\"]".to_owned(),
        _ => {}
    }
    match key.kind {
        Kind::Flag => (default != "true").to_string(),
        Kind::Integer { max, .. } => {
            let value: u64 = default.parse().expect(key.name);
            (if value < max { value + 1 } else { value - 1 }).to_string()
        }
        Kind::PowerOfTwo { .. } => (default.parse::<u64>().expect(key.name) * 2).to_string(),
        Kind::Number { .. } => (default.parse::<f64>().expect(key.name) * 0.99).to_string(),
        Kind::Word(words) => format!("{:?}", words.last().expect("words")),
        Kind::List(Kind::Integer { .. }, _) => "[7]".to_owned(),
        Kind::List(Kind::Network, _) => "[\"10.0.0.0/8\"]".to_owned(),
        Kind::List(Kind::Segment, _) => "[\"default/vlan/7\"]".to_owned(),
        Kind::List(Kind::Word(words), _) => format!("[{:?}]", words.last().expect("words")),
        Kind::List(Kind::Text, _) => "[\"other\"]".to_owned(),
        Kind::List(Kind::Broker, _) => "[\"amqp://other\"]".to_owned(),
        Kind::List(Kind::Stream, _) => "[\"tcp://other:1\"]".to_owned(),
        Kind::Http | Kind::Service => "\"http://other\"".to_owned(),
        Kind::Stream => "\"tcp://other:1\"".to_owned(),
        Kind::Collector => "\"sctp://other:1\"".to_owned(),
        Kind::Secret => "\"env:OTHER\"".to_owned(),
        Kind::Broker => "\"amqp://other\"".to_owned(),
        Kind::Device => "\"0000:3b:00.0\"".to_owned(),
        Kind::Ovsdb => "\"tcp:192.0.2.9:6640\"".to_owned(),
        Kind::Address => "\"192.0.2.9\"".to_owned(),
        Kind::Network => "\"10.98.0.0/16\"".to_owned(),
        Kind::Listen => "\"[::1]:8081\"".to_owned(),
        _ => "\"other\"".to_owned(),
    }
}

/// Values that the key does not allow.
fn bad_values(kind: &Kind) -> Vec<String> {
    let mut bad = match kind {
        Kind::Flag => vec!["1".to_owned(), "\"true\"".to_owned()],
        Kind::Integer { min, max } => {
            let below = i128::from(*min) - 1;
            let above = u128::from(*max) + 1;
            vec![below.to_string(), above.to_string(), "1.5".to_owned(), "\"1\"".to_owned()]
        }
        Kind::PowerOfTwo { min, max } => {
            vec![(min / 2).to_string(), (max * 2).to_string(), "100".to_owned(), "true".to_owned()]
        }
        Kind::Number { .. } => ["0.0", "1.0", "-0.5", "nan", "\"0.5\""].map(str::to_owned).to_vec(),
        Kind::Word(_)
        | Kind::Name
        | Kind::Device
        | Kind::Ovsdb
        | Kind::Http
        | Kind::Service
        | Kind::Stream
        | Kind::Collector
        | Kind::Secret
        | Kind::Broker
        | Kind::Address
        | Kind::Network => {
            vec!["\"no such thing\"".to_owned(), "7".to_owned()]
        }
        Kind::Listen => ["\"0.0.0.0:80\"", "\"127.0.0.1\"", "\"[2001:db8::1]:80\"", "80"]
            .map(str::to_owned)
            .to_vec(),
        Kind::Segment => {
            ["\"default/vlan/4096\"", "\"west/vlan/1\"", "\"vlan/1\""].map(str::to_owned).to_vec()
        }
        Kind::List(item, _) => bad_values(item).iter().map(|bad| format!("[{bad}]")).collect(),
        _ => vec!["\"\"".to_owned(), "3".to_owned()],
    };
    bad.push("{ a = 1 }".to_owned());
    bad
}

#[test]
fn the_reference_file_is_what_the_code_says() {
    let path = file("vmprobe.toml");
    if std::env::var_os("VMPROBE_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, reference::text()).expect("writable");
    }
    let written = std::fs::read_to_string(&path).expect("config/vmprobe.toml");
    let made = reference::text();
    for (place, (left, right)) in written.lines().zip(made.lines()).enumerate() {
        assert_eq!(left, right, "line {}; VMPROBE_WRITE_REFERENCE=1 writes the file", place + 1);
    }
    assert_eq!(written, made);
}

#[test]
fn the_reference_file_gives_the_defaults_and_one_port() {
    for mode in [Mode::Check, Mode::Run] {
        let loaded = load(&file("vmprobe.toml"), mode).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings.list, []);
        let port = PortPlan {
            name: "port0".to_owned(),
            device: "net_null0,no-rx=1".to_owned(),
            ..PortPlan::default()
        };
        let expected = Plan { ports: vec![port], ..Plan::default() };
        assert_eq!(debug(&loaded.plan), debug(&expected));
    }
}

#[test]
fn the_reference_file_with_all_examples_on_is_valid_and_complete() {
    let text: String = reference::text()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# ") && *line != "#")
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    let plan = plan(&text);
    assert_eq!((plan.taps.len(), plan.filters.len(), plan.spaces.len()), (1, 1, 1));
    assert_eq!(plan.inventory.ovsdb.len(), 1);
    each_key(&ROOT, &mut |table, key| {
        if table.path != "tap.match" {
            assert!(
                text.contains(&format!("{} = {}", key.name, key.given.example())),
                "{}",
                key.name
            );
        }
        assert!(!key.meaning.is_empty() && reference::text().contains(key.name), "{}", key.name);
    });
}

#[test]
fn the_demo_file_is_valid() {
    let loaded =
        load(&file("demo.toml"), Mode::Run).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings.list, []);
    assert!(loaded.plan.ports.iter().all(|port| port.device.starts_with("net_pcap")));
}

#[test]
fn every_key_reaches_the_plan() {
    each_key(&ROOT, &mut |table, key| {
        if (table.path, key.name) == ("inventory.openstack", "password") {
            // No text that is made of a plan shows it; see the next test.
            return;
        }
        let (with_default, _) = document(table, key, key.given.example());
        let (with_other, _) = document(table, key, &other_value(table, key));
        let without =
            with_default.lines().filter(|line| !line.starts_with(&format!("{} ", key.name)));
        let without: String = without.map(|line| line.to_owned() + "\n").collect();
        // In a replay a tap's port may be any file.
        let plan = |text: &str| match read(text, Mode::Replay) {
            Ok(loaded) => loaded.plan,
            Err(problems) => panic!("{problems}"),
        };
        let base = debug(&plan(&with_default));
        assert_ne!(base, debug(&plan(&with_other)), "{}.{}", table.path, key.name);
        match key.given {
            Given::Default(_) => {
                assert_eq!(base, debug(&plan(&without)), "{}.{}", table.path, key.name);
            }
            Given::Nothing(_) => {
                assert_ne!(base, debug(&plan(&without)), "{}.{}", table.path, key.name);
            }
            Given::Derived(..) | Given::Required(_) => {}
        }
    });
}

#[test]
fn a_password_reaches_the_plan_and_no_text() {
    let cloud =
        "[[inventory.openstack]]\nname = \"a\"\nurls = [\"amqp://h\"]\npassword = \"hunter2\"\n";
    let plan = plan(cloud);
    let password = plan.inventory.openstack[0].password.as_ref();
    assert_eq!(password.map(|password| password.0.as_str()), Some("hunter2"));
    assert!(!debug(&plan).contains("hunter2"));
}

#[test]
fn a_mirror_of_both_directions_copies_packets_twice() {
    let duplicates = |keys: &str| {
        let [tap] = &plan(&format!("[[tap]]\nname = \"a\"\n{keys}")).taps[..] else {
            panic!("one tap")
        };
        tap.duplicates
    };
    assert!(duplicates("direction = \"both\"\n"));
    assert!(!duplicates("direction = \"both\"\nduplicates = false\n"));
    assert!(!duplicates("direction = \"ingress\"\n") && !duplicates(""));
    assert!(duplicates("direction = \"egress\"\nduplicates = true\n"));
}

#[test]
fn every_key_out_of_range_is_named_with_its_line() {
    each_key(&ROOT, &mut |table, key| {
        for bad in bad_values(&key.kind) {
            let (text, line) = document(table, key, &bad);
            let found = problems(&text, Mode::Run);
            let expected = format!("x.toml:{line}: {}.{}: ", table.path, key.name);
            assert!(found.iter().any(|problem| problem.starts_with(&expected)
                && problem.contains("(allowed: ")), "{expected}{bad}: {found:?}");
            assert!(found.len() <= 2, "one mistake, not more: {found:?}");
        }
        if let Given::Required(_) = key.given {
            let (text, _) = document(table, key, "0");
            let text = text.lines().filter(|line| !line.starts_with(&format!("{} = 0", key.name)));
            let text: String = text.map(|line| line.to_owned() + "\n").collect();
            let found = problems(&text, Mode::Run).join("\n");
            assert!(found.contains(&format!("{}.{}: is missing", table.path, key.name)), "{found}");
        }
        let (text, line) = document(table, key, key.given.example());
        let text = format!("{text}no_such_key = 1\n");
        let expected = format!("x.toml:{}: {}.no_such_key: is no key", line + 1, table.path);
        assert!(problems(&text, Mode::Run).join("\n").contains(&expected), "{expected}");
    });
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "\
[flow]
slots_per_worker = 100
idle_tcp = 5
[worker]
burst_packets = \"many\"
[shed]
high_percent = 20
low_percent = 30
[serve]
listen = \"0.0.0.0:80\"
[flows]
[[port]]
name = \"a\"
device = \"eth0\"
[[port]]
name = \"a\"
[window]
length_ms = 700
";
    let expected = [
        "x.toml:2: flow.slots_per_worker: 100 is too small (allowed: 1024 to 67108864)",
        "x.toml:3: flow.idle_tcp: is no key; flow.idle_tcp_ms is (allowed: ",
        "x.toml:5: worker.burst_packets: the text \"many\" is of the wrong type (allowed: 1 to 256)",
        "x.toml:8: shed.low_percent: low_percent 30 is not below high_percent 20 (allowed: ",
        "x.toml:10: serve.listen: 0.0.0.0 is no loopback address (allowed: ",
        "x.toml:11: flows: is no key; flow is (allowed: probe, eal, port, ",
        "x.toml:14: port.device: \"eth0\" is not allowed (allowed: a PCI address such as ",
        "x.toml:15: port.device: is missing (allowed: a PCI address such as ",
        "x.toml:16: port.name: \"a\" is used in line 13 (allowed: each once)",
        "x.toml:18: window.length_ms: 700 does not divide an hour (allowed: ",
    ];
    let found = problems(text, Mode::Run);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn values_must_agree() {
    let port = "[[port]]\nname = \"p\"\ndevice = \"net_null0\"\n";
    let cases = [
        ("eal.cores = [1, 2, 1]\n", "1: eal.cores: 1 stands twice"),
        (
            "eal.extra_arguments = [\"--file-prefix=x\"]\n",
            "1: eal.extra_arguments: \"--file-prefix\" is what eal.file_prefix says",
        ),
        (
            "eal.huge_pages = false\neal.extra_arguments = [\"--in-memory\"]\n",
            "2: eal.extra_arguments: \"--in-memory\" needs huge pages",
        ),
        ("segments.domains = [\"east\"]\n", "1: segments.domains: the first domain is not"),
        ("segments.domains = [\"default\", \"a\", \"a\"]\n", "1: segments.domains: a stands twice"),
        (
            "decode.geneve_ports = [4789, 1]\ndecode.vxlan_ports = [4789]\n",
            "1: decode.geneve_ports: 4789 stands twice",
        ),
        (
            "[detect.port_scan]\ntheta_scanner = 0.9\n",
            "2: detect.port_scan.theta_scanner: theta_scanner 0.9 is not below theta_benign 0.8",
        ),
        (
            "[detect.port_scan]\nbeta = 0.001\n",
            "2: detect.port_scan.beta: alpha 0.01 is not below beta 0.001",
        ),
        ("shed.high_percent = 20\n", "1: shed.high_percent: low_percent 25 is not below"),
        ("[[filter]]\n", "1: filter: has no condition"),
        ("[[filter]]\ntap = \"none\"\n", "2: filter.tap: no tap is called \"none\""),
        (
            "[[filter]]\nname = \"f\"\nport = 9\n",
            "2: filter.name: is no key (allowed: tap, vlan, network, port, protocol)",
        ),
        (
            "[[tap]]\nname = \"a\"\nmatch = { port = \"q\" }\n",
            "3: tap.match.port: no port is called \"q\"",
        ),
        ("[[tap]]\nname = \"a\"\ndomain = \"west\"\n", "3: tap.domain: \"west\" is no domain"),
        (
            "[[tap]]\nname = \"a\"\nmatch = { vlan = 7 }\n[[tap]]\nname = \"b\"\nmatch = { vlan = 7 }\n",
            "6: tap.match: the tap of line 3 has the same",
        ),
        (
            "[[tap]]\nname = \"a\"\nmatch = { gre_key = 7, vxlan_vni = 7 }\n",
            "3: tap.match: no frame comes in two mirror tunnels",
        ),
        (
            "[[space]]\nname = \"a\"\nsegments = [\"default/vlan/1\", \"default/vlan/1\"]\n",
            "3: space.segments: \"default/vlan/1\" is joined in line 3 already",
        ),
        (
            "[[space]]\nname = \"a\"\nsegments = [\"default/vlan/1\"]\n[[space]]\nname = \"b\"\nsegments = [\n  \"default/vlan/2\",\n  \"default/vlan/1\",\n]\n",
            "8: space.segments: \"default/vlan/1\" is joined in line 3 already",
        ),
        ("[[space]]\nname = \"a\"\nsegments = []\n", "3: space.segments: is empty"),
        (
            "[[space]]\nname = \"a\"\nsegments = [\"default/vlan/1\", \"west/vlan/1\"]\n",
            "3: space.segments: \"west/vlan/1\" names no segment",
        ),
        (
            "[[port]]\nname = \"q\"\ndevice = \"net_null1\"\nqueues = 8\nmbufs = 4096\n",
            "5: port.mbufs: 4096 are too few for 8 queues",
        ),
        (
            "[[port]]\nname = \"q\"\ndevice = \"net_null0,size=64\"\n",
            "6: port.device: \"net_null0\" is used in line 3",
        ),
        (
            "eal.memory_mib = 64\n[[port]]\nname = \"q\"\ndevice = \"net_null1\"\nmbufs = 100000\n",
            "1: eal.memory_mib: 64 MiB hold no 263 MiB",
        ),
        (
            "eal.cores = [1]\n[[port]]\nname = \"q\"\ndevice = \"net_null1\"\nqueues = 2\n",
            "1: eal.cores: 1 cores are fewer than the 3 workers",
        ),
        (
            "worker.count = 1\n[[port]]\nname = \"q\"\ndevice = \"net_null1\"\nqueues = 2\n",
            "1: worker.count: 1 is fewer than the 3 queues",
        ),
        (
            "[[port]]\nname = \"q\"\ndevice = \"net_null1\"\nqueues = 64\nmbufs = 200000\n",
            "1: port.queues: 65 queues",
        ),
    ];
    for (text, expected) in cases {
        // A port stands at the end, so that lines count from the case's text.
        let found = problems(&format!("{text}{port}"), Mode::Run);
        let expected = format!("x.toml:{expected}");
        let found_it = found.iter().any(|problem| problem.starts_with(&expected));
        assert!(found_it, "{expected}\n{found:#?}");
        assert!(found.len() == 1, "{found:#?}");
        assert!(found.iter().all(|problem| problem.contains("(allowed: ")), "{found:#?}");
    }
}

#[test]
fn the_mode_decides_what_is_needed() {
    assert_eq!(
        problems("", Mode::Run),
        [
            "x.toml:1: port: is missing (allowed: at least one [[port]], which `vmprobe run` receives from)"
        ]
    );
    let remove = |text: &str, mode| read(text, mode).expect("valid").plan.copies.remove;
    let tap = "[[tap]]\nname = \"a\"\nmatch = { port = \"a.pcap\" }\n";
    let port = "[[port]]\nname = \"p\"\ndevice = \"net_null0\"\n";
    assert!(!remove("", Mode::Replay));
    assert!(remove(tap, Mode::Replay));
    assert!(remove("[copies]\nremove = true\n", Mode::Replay));
    assert!(!remove(
        "[copies]\nremove = false\n[[port]]\nname = \"p\"\ndevice = \"net_null0\"\n",
        Mode::Run
    ));
    assert!(remove(port, Mode::Run));
    assert!(!replay_without_file().copies.remove);
    let both = format!("{port}{tap}");
    let loaded = read(&both, Mode::Replay).expect("a file may be meant");
    assert_eq!(
        loaded.warnings.to_string(),
        "x.toml:6: tap.match.port: no port is called \"a.pcap\"; in a replay it may be a file or an interface"
    );
    assert_eq!(problems(&both, Mode::Run).len(), 1);
    assert_eq!(problems(&both, Mode::Check).len(), 1);
    assert_eq!(read(tap, Mode::Replay).expect("valid").warnings.list, []);
}

#[test]
fn mirror_tunnels_need_room_in_the_frame() {
    let text = "[[port]]\nname = \"p\"\ndevice = \"net_null0\"\n[[tap]]\nname = \"a\"\nmatch = { erspan_session = 1 }\n";
    let warnings = read(text, Mode::Run).expect("valid").warnings.to_string();
    assert!(
        warnings.starts_with("x.toml:1: port.frame_octets_max: 1518 octets leave no room"),
        "{warnings}"
    );
    let roomy = text.replace("[[tap]]", "frame_octets_max = 1600\n[[tap]]");
    assert_eq!(read(&roomy, Mode::Run).expect("valid").warnings.list, []);
}

#[test]
fn large_frames_may_need_more_memory() {
    let text = "[[port]]\nname = \"p\"\ndevice = \"net_null0\"\nframe_octets_max = 65000\n";
    let warnings = read(text, Mode::Run).expect("valid").warnings.to_string();
    assert!(
        warnings.starts_with("x.toml:1: eal.memory_mib: 512 MiB hold no 1021 MiB"),
        "{warnings}"
    );
}

#[test]
fn relative_paths_begin_at_the_folder_of_the_file() {
    let plan = plan("[inventory]\nfile = \"who.toml\"\n[store]\nfolder = \"/data\"\n");
    assert_eq!(plan.inventory.file, Some(PathBuf::from("/base/who.toml")));
    assert_eq!(plan.store.folder, Some(PathBuf::from("/data")));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = std::env::temp_dir().join(format!("vmprobe-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for tests");
    let missing = load(&folder.join("none.toml"), Mode::Run).expect_err("missing").to_string();
    assert!(missing.contains("none.toml: cannot be read: "), "{missing}");
    let path = folder.join("bytes.toml");
    std::fs::write(&path, b"a = 1\nb = \"\xff\"\n").expect("writable");
    let bytes = load(&path, Mode::Run).expect_err("no text").to_string();
    assert!(bytes.ends_with("bytes.toml:2: is not UTF-8 text (allowed: UTF-8)"), "{bytes}");
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("writable");
    let large = load(&path, Mode::Run).expect_err("too large").to_string();
    assert!(large.ends_with("bytes.toml: is too large (allowed: 1048576 bytes)"), "{large}");
    std::fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn syntax_errors_come_with_all_other_problems() {
    let text = "[flow]\nslots_per_worker = \nidle_tcp_ms = 1\n[shed\nhigh_percent = 20\n[worker]\nburst_packets = 0\n";
    let found = problems(text, Mode::Run);
    let lines: Vec<&str> = found.iter().filter_map(|problem| problem.split(':').nth(1)).collect();
    for line in ["2", "3", "4", "7"] {
        assert!(lines.contains(&line), "line {line}: {found:#?}");
    }
    assert!(!found.iter().any(|problem| problem.contains("is missing")), "{found:#?}");
}

#[test]
fn the_check_says_what_follows() {
    let text = "[[port]]\nname = \"p\"\ndevice = \"net_null0\"\nqueues = 2\n[[tap]]\nname = \"rack1\"\nmatch = { vlan = 7 }\n";
    let plan = plan(text);
    let sizes = Sizes { flow_bytes: 256, row_bytes: 128, ..Sizes::default() };
    let report = check::report(&plan, &sizes);
    for fact in [
        "EAL        512 MiB in huge pages, file prefix vmprobe",
        "workers    2, bursts of 32, packets go to the worker that owns their flow",
        "rack1: VLAN 7",
        "512 MiB for flows (2 × 1048576 × 256 bytes)",
        "37 MiB of DPDK's 512 MiB for packet buffers",
    ] {
        assert!(report.contains(fact), "{fact}\n{report}");
    }
    let json = check::json(&plan, &sizes);
    assert_eq!(json["workers"], 2);
    assert_eq!(json["memory"]["flow_bytes"], 2 * 256 * (1 << 20));
    assert_eq!(json["taps"][0], "rack1");
}

/// A small generator of numbers, so that a failure can be repeated (xorshift, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}

const INVENTORY: &str = r#"
[[tenant]]
name = "acme"
[[vm]]
uuid = "00000000-0000-0000-0000-000000000001"
name = "web-1"
tenant = "acme"
host = "h1"
valid_from = 2026-01-01T00:00:00Z
[[vm.interface]]
mac = "fa:16:3e:00:00:01"
addresses = ["10.0.0.5", "2001:db8::5"]
segment = "default/vxlan/4242"
valid_to = "2027-01-01T00:00:00Z"
[[vm.placement]]
host = "h2"
valid_from = 20
valid_to = 30
"#;

fn mutate(text: &str, numbers: &mut Numbers) -> String {
    const PIECES: [&str; 16] = [
        "[",
        "]",
        "[[",
        "\"",
        "'",
        "=",
        "{",
        "}",
        ",",
        ".",
        "\n",
        "-1",
        "99999999999999999999",
        "1e999",
        "\u{0}",
        "[[port]]\n",
    ];
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..=numbers.below(8) {
        let at = numbers.below(text.len() + 1);
        match numbers.below(16) {
            0 => text.truncate(at),
            1..=4 if at < text.len() => drop(text.remove(at)),
            5..=8 => text.extend_from_within(at..text.len().min(at + 40)),
            _ => drop(text.splice(at..at, PIECES[numbers.below(PIECES.len())].chars())),
        }
    }
    text.into_iter().collect()
}

/// `VMPROBE_MUTATIONS` sets the number of rounds, for a longer run.
#[test]
fn mutated_files_never_panic() {
    let rounds = std::env::var("VMPROBE_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let whole: String = reference::text()
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    let mut numbers = Numbers(0x5eed_0001);
    for round in 0..rounds.unwrap_or(300_u64) {
        let text = mutate(&whole, &mut numbers);
        for mode in [Mode::Run, Mode::Replay, Mode::Check] {
            if let Err(problems) = read(&text, mode) {
                assert!(!problems.list.is_empty(), "round {round}");
            }
        }
        let text = mutate(INVENTORY, &mut numbers);
        match inventory::file::parse(&text, "i.toml", &["default".to_owned()], &[]) {
            Ok(data) => drop(inventory::Inventory::new(&data, inventory::ClassRules::default())),
            Err(problems) => assert!(!problems.list.is_empty(), "round {round}"),
        }
    }
}

#[test]
fn hostile_files_are_bounded() {
    let nested = "a = ".to_owned() + &"[".repeat(100_000);
    assert!(!problems(&nested, Mode::Run).is_empty());
    let line = |number: u32| "k".to_owned() + &number.to_string() + " = 1\n";
    let keys: String = (0..60_000).map(line).collect();
    let found = read(&keys, Mode::Replay).expect_err("unknown keys");
    assert_eq!((found.list.len(), found.further), (1_000, 59_000));
    let broken = "=\n".repeat(100_000);
    let found = read(&broken, Mode::Replay).expect_err("no TOML");
    assert_eq!(found.list.len(), 1_000);
}
