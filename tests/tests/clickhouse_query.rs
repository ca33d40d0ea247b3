//! Questions to records in a real ClickHouse: the same answers as from files, within bounds, and nothing
//! beside the records.

#[path = "../../query/tests/churn/mod.rs"]
mod churn;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use churn::{BEGIN_NS, Random, facts, windows};
use serde_json::Value as Json;
use vmprobe::config::{SinkKind, StorePlan};
use vmprobe::export::clickhouse::apply;
use vmprobe::export::{ParquetSink, Sinks, SinksWanted};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe::record::{Origin, Rows};
use vmprobe::time::{Timestamp, monotonic_ns};
use vmprobe_tests::clickhouse::Clickhouse;
#[cfg(feature = "dpdk")]
use vmprobe_tests::clickhouse::PASSWORD;
use vmprobe_tests::end_to_end::{
    Ended, Folder, NOT_BUILT, built, run_to_end, skipped, until, vmprobe,
};
#[cfg(feature = "dpdk")]
use vmprobe_tests::end_to_end::{answer_within, datagram, endless, get};
use vmprobe_tests::sinks::{all_delivered, plan_of};

const SPAN: [&str; 2] = ["--from=2026-01-01T00:00:00Z", "--to=2026-01-01T00:00:10Z"];

fn seconds_since(begun_ns: u64) -> u64 {
    (monotonic_ns() - begun_ns) / 1_000_000_000
}

/// A cloud with a migration and two taps, played into files and into a server.
struct Both {
    server: Clickhouse,
    folder: Folder,
    /// Configuration that asks the server.
    on_server: PathBuf,
}

impl Both {
    fn play(test: &str) -> Option<Self> {
        if built("vmprobe-query").is_none() {
            skipped(test, NOT_BUILT);
            return None;
        }
        let server = Clickhouse::start(test)?;
        let folder = Folder::new("clickhouse-query");
        let options = Options { duration_s: Some(20), ..Options::default() };
        generate(Scenario::Cloud, 7, folder.root(), options).expect("generated");
        let text = std::fs::read_to_string(folder.path("vmprobe.toml")).expect("a configuration");
        let text = format!(
            "{text}\n[[sink.clickhouse]]\nname = \"lake\"\nurl = \"{}\"\nttl_days = 0\n\
             rollup_ttl_days = 0\n[query]\nclickhouse = \"lake\"\n",
            server.url()
        );
        let on_server = folder.write("server.toml", text);
        let mut command = Command::new(vmprobe());
        command.args(["schema", "clickhouse", "--apply", "-c"]).arg(&on_server);
        run_to_end(command).expect(0, &[]);
        let mut command = Command::new(vmprobe());
        command.args(["replay", "--json", "-c"]).arg(&on_server).arg("--out");
        command.arg(folder.path("records"));
        command.args(["tap-a.pcap", "tap-b.pcap"].map(|name| folder.path(name)));
        let report = run_to_end(command).expect(0, &[]).json();
        let [files, lake] = [0, 1].map(|place| &report["sinks"][place]["delivered"]);
        assert!(files == lake && files.as_u64() > Some(10_000), "{report}");
        Some(Self { server, folder, on_server })
    }

    fn ask_server(&self, what: &str, arguments: &[&str]) -> Ended {
        let mut command = Command::new(vmprobe());
        command.arg(what).arg("-c").arg(&self.on_server).args(arguments);
        run_to_end(command)
    }

    fn ask_files(&self, what: &str, arguments: &[&str]) -> Ended {
        let mut command = Command::new(vmprobe());
        command.arg(what).arg("--data").arg(self.folder.path("records")).args(arguments);
        run_to_end(command)
    }

    /// The answer that both give, letter by letter.
    fn same(&self, what: &str, arguments: &[&str]) -> String {
        let [server, files] = [self.ask_server(what, arguments), self.ask_files(what, arguments)];
        let (server, files) = (&server.expect(0, &[]).output, &files.expect(0, &[]).output);
        let differ = || server.lines().zip(files.lines()).find(|(one, other)| one != other);
        assert!(server == files, "{what} {arguments:?}: {:?}", differ());
        server.clone()
    }
}

/// Questions in words that both engines know, with a row at least.
fn questions() -> Vec<String> {
    let ends = "source_virtual_station_name, destination_virtual_station_name";
    let tables =
        ["windows", "flows", "path", "taps", "alerts", "ledger", "inventory", "path_samples"];
    let mut all: Vec<_> =
        tables.iter().map(|table| format!("SELECT count(*) AS row_count FROM {table}")).collect();
    all.extend([
        format!(
            "SELECT {ends}, application_name, sum(octet_delta_count) AS octets,
                    sum(reverse_packet_delta_count) AS packets, max(sequence_ack_rtt_max_ns) AS slowest
             FROM windows GROUP BY ALL ORDER BY octets DESC, 1 NULLS LAST, 2 NULLS LAST, 3 LIMIT 50"
        ),
        "SELECT window_start_ns - window_start_ns % 60000000000 AS minute, traffic_class,
                sum(octet_delta_count) AS octets, avg(packet_delta_count) AS mean
         FROM windows GROUP BY ALL ORDER BY 1, 2"
            .to_owned(),
        "SELECT flow_id, source_address, destination_port, flow_end_reason, handshake_server_rtt_ns,
                application_name, segment
         FROM flows ORDER BY flow_start_ns, flow_id, flow_end_ns LIMIT 100"
            .to_owned(),
        "SELECT tap, sum(packet_count) AS packets FROM taps GROUP BY tap ORDER BY tap".to_owned(),
        "SELECT from_tap, to_tap, delay_sample_count, delay_mean_ns, delay_excess_mean_ns FROM path
         WHERE scope = 'taps' ORDER BY window_start_ns, from_tap, to_tap LIMIT 100"
            .to_owned(),
        "SELECT measure, sum(packet_count) AS packets FROM ledger GROUP BY 1 ORDER BY 1".to_owned(),
        "SELECT uuid, name, tenant, host, mac, address, valid_from_ns, valid_to_ns, attributed
         FROM inventory ORDER BY fact_id, known_to_ns NULLS FIRST LIMIT 200"
            .to_owned(),
        "WITH a AS (SELECT tap FROM taps), b AS (SELECT 'no'' such' AS tap)
         SELECT b.tap, a.tap AS other FROM b LEFT JOIN a ON a.tap = b.tap"
            .to_owned(),
        "SELECT tap, count(*) AS none FROM windows WHERE tap = 'x' GROUP BY tap UNION ALL
         SELECT 'none', 18446744073709551615"
            .to_owned(),
    ]);
    // Sums of minutes and hours, made by the server as rows come and by the program from files.
    for view in ["windows_1m", "windows_1h"] {
        all.push(format!(
            "SELECT start_ns, {ends}, sum(octet_delta_count) AS octets, sum(flow_count) AS flows,
                    max(sequence_ack_rtt_max_ns) AS slowest
             FROM {view} GROUP BY ALL
             ORDER BY start_ns, octets DESC, 2 NULLS LAST, 3 NULLS LAST, flows, slowest NULLS LAST"
        ));
    }
    all
}

#[test]
fn files_and_server_give_the_same_answers_and_nothing_else() {
    let Some(both) = Both::play("questions to ClickHouse") else { return };
    for (sql, format) in questions().iter().zip(["json", "json", "csv", "table"].iter().cycle()) {
        let answer = both.same("query", &["--format", format, sql]);
        assert!(answer.lines().count() > 1, "{sql}: {answer}");
    }
    views(&both);
    graphs(&both);
    nothing_else_is_read(&both);
    bounds_hold(&both);
    whatever_changes(&both);
    records_that_are_too_many_are_not_fetched(&both);
    what_is_wrong_is_told(&both);
}

/// Random facts of an inventory, with joined spaces, interfaces without addresses, VMs that move.
fn whatever_changes(both: &Both) {
    let plan = plan_of(&format!(
        "[[sink.clickhouse]]\nname = \"churn\"\nurl = \"{}\"\ndatabase = \"churn\"\nttl_days = 0\n\
         rollup_ttl_days = 0\n",
        both.server.url()
    ));
    let SinkKind::Clickhouse(server) = &plan.kind else { panic!("{plan:?}") };
    apply(server, 60_000, false).expect("its tables");
    let ask = |place: &[&str], arguments: &[&str]| {
        let mut command = Command::new(vmprobe());
        command.arg("topology").args(place).args(arguments);
        run_to_end(command).expect(0, &[]).output.clone()
    };
    let url = both.server.url();
    let on_server = ["--clickhouse", &url, "--database", "churn"];
    for seed in 1..4 {
        let mut random = Random(seed);
        let inventory = facts(&mut random);
        let rows = Rows { windows: windows(&mut random, 3_000), inventory, ..Rows::default() };
        for table in ["windows", "inventory"] {
            both.server.query(&format!("TRUNCATE TABLE churn.{table}"));
        }
        // Another run's, so that the server does not take the rows for some that it has.
        let origin = Origin::new("p1", "east");
        let plans = std::slice::from_ref(&plan);
        let mut sinks = Sinks::start(plans, origin, true, SinksWanted::default()).expect("threads");
        let at = Timestamp(BEGIN_NS);
        let count = u64::try_from(rows.len()).expect("few");
        sinks.send(&rows, at, monotonic_ns() + 60_000_000_000);
        all_delivered(&sinks, count);
        sinks.finish();
        let folder = both.folder.path(&format!("churn-{seed}"));
        let store =
            StorePlan { folder: Some(folder.clone()), free_mib_min: 0, ..StorePlan::default() };
        let mut sink = ParquetSink::new(&store, "p1", "east").expect("a folder");
        sink.write(rows, at);
        assert!(sink.close(at), "{:?}", sink.health());
        let in_files = ["--data", folder.to_str().expect("text")];
        let [from, to] = [100, 160].map(|second| BEGIN_NS + second * 1_000_000_000 + 1);
        let (from, to) = (format!("--from={from}"), format!("--to={to}"));
        for arguments in
            [&["--limit", "100000"][..], &["--limit=50", &from, &to], &["--tenant=tenant-1"]]
        {
            let [one, other] = [ask(&on_server, arguments), ask(&in_files, arguments)];
            let differ = || one.lines().zip(other.lines()).find(|(one, other)| one != other);
            assert!(one == other, "seed {seed} {arguments:?}: {:?}", differ());
            assert!(one.matches("\"conversation\"").count() >= 50, "seed {seed} {arguments:?}");
        }
    }
}

/// A quarter of the memory is the most that a table may be.
fn records_that_are_too_many_are_not_fetched(both: &Both) {
    let ask = |memory_mib: &str| {
        let mut command = Command::new(vmprobe());
        command.args(["query", "--clickhouse", &both.server.url(), "--database", "churn"]);
        command.args(["--local", "--format", "csv", "--memory-mib", memory_mib]);
        command.arg("SELECT count(*) AS n FROM windows");
        run_to_end(command)
    };
    let few = ask("64").expect(0, &[]).output.clone();
    both.server
        .query("INSERT INTO churn.windows SELECT windows.* FROM churn.windows, numbers(9) AS n");
    ask("64").expect(4, &["(396)", "16.00 MiB"]);
    let many = ask("1024");
    let number = |text: &str| text.lines().nth(1).expect("a row").trim().parse::<u64>();
    assert_eq!(number(&many.expect(0, &[]).output), number(&few).map(|few| 10 * few));
}

/// Views of the embedded engine over what the server has.
fn views(both: &Both) {
    for (view, rows) in [
        ("windows_now", 1_000),
        ("flows_now", 1_000),
        ("alerts_now", 0),
        ("inventory_now", 10),
        ("vm_windows", 100),
        ("migration_lens", 1),
        ("windows_1m", 100),
        ("delays", 1),
    ] {
        let sql = format!("SELECT * FROM {view} ORDER BY ALL");
        let files = both.ask_files("query", &["--format", "csv", &sql]);
        let server = both.ask_server("query", &["--local", "--format", "csv", &sql]);
        let (server, files) = (&server.expect(0, &[]).output, &files.expect(0, &[]).output);
        assert!(files.lines().count() > rows, "{view}: {}", files.lines().count());
        assert!(server == files, "{view}");
    }
    let local = |arguments: &[&str]| {
        both.ask_server("query", &[&["--local", "--format", "csv"], arguments].concat())
    };
    let early = "--to=2000-01-01T00:00:00Z";
    let none = local(&[early, "SELECT count(*) AS n FROM windows_now"]);
    assert_eq!(none.expect(0, &[]).output.trim(), "n\r\n0");
    let some = local(&[early, "SELECT count(*) > 0 AS n FROM inventory"]);
    assert_eq!(some.expect(0, &[]).output.trim(), "n\r\ntrue");
    local(&["--from=2", "--to=1", "FROM windows"]).expect(2, &["--from must be before --to"]);
    local(&["SELECT * FROM read_text('/etc/hostname')"]).expect(1, &["not allowed"]);
}

fn graphs(both: &Both) {
    let whole = both.same("topology", &["--limit", "100000"]);
    let graph: Json = serde_json::from_str(&whole).expect("one document");
    let kinds = |kind: &str| {
        graph["edges"]
            .as_array()
            .map_or(0, |edges| edges.iter().filter(|it| it["kind"] == kind).count())
    };
    for kind in ["conversation", "path", "runs_on", "attached_to", "stands_on", "belongs_to"] {
        assert!(kinds(kind) > 0, "no {kind} in {graph}");
    }
    let first = graph["edges"][0]["first_window_start_ns"].as_u64().expect("a time");
    let [from, to] = [first, first + 10_000_000_000];
    let (from, to) = (format!("--from={from}"), format!("--to={to}"));
    for arguments in [
        &["--limit", "3"][..],
        &["--limit", "20", "--tenant", "amber"],
        &[&from, &to],
        &[&to, "--tenant", "no 'such"],
        &SPAN,
        &["--format", "dot"],
        &["--format", "graphml", &from],
        &["--memory-mib", "128", "--limit", "100000"],
    ] {
        both.same("topology", arguments);
    }
}

fn nothing_else_is_read(both: &Both) {
    let server = &both.server;
    std::fs::create_dir_all(server.path("files")).expect("a folder");
    std::fs::write(server.path("files/secret"), "hidden").expect("a file");
    let url = format!("'{}/ping', 'LineAsString'", server.url());
    for sql in [
        "SELECT file('secret')".to_owned(),
        "SELECT FILE('secret') AS a FROM windows LIMIT 1".to_owned(),
        "SELECT * FROM file('secret', 'LineAsString')".to_owned(),
        format!("SELECT * FROM url({url})"),
        format!("DESCRIBE TABLE url({url})"),
        format!("SELECT 1 IN (SELECT 1 FROM `url`({url}))"),
        format!("WITH a AS (SELECT * FROM url({url})) SELECT count(*) FROM a"),
        format!("EXPLAIN SELECT * FROM url({url})"),
        "SELECT * FROM remote('127.0.0.1', 'system.one')".to_owned(),
        "SELECT * FROM clusterAllReplicas('default', 'system.one')".to_owned(),
        "SELECT * FROM merge('system', '.*')".to_owned(),
        "SELECT * FROM s3('http://127.0.0.1:1/a/b', 'CSV', 'a String')".to_owned(),
        "SELECT * FROM executable('id', 'TSV', 'a String')".to_owned(),
        "SELECT dictGet('a', 'b', 1)".to_owned(),
        "INSERT INTO FUNCTION file('out', 'CSV', 'a String') VALUES ('x')".to_owned(),
        "INSERT INTO windows SELECT * FROM windows".to_owned(),
        "ALTER TABLE windows DELETE WHERE 1".to_owned(),
        "DROP TABLE windows".to_owned(),
        "CREATE TEMPORARY TABLE a (b UInt8)".to_owned(),
        "SET max_execution_time = 0".to_owned(),
        "SELECT 1 SETTINGS max_execution_time = 0".to_owned(),
        "KILL QUERY WHERE 1".to_owned(),
        "SYSTEM SHUTDOWN".to_owned(),
        "GRANT ALL ON *.* TO default".to_owned(),
        "SELECT 1 INTO OUTFILE 'out'".to_owned(),
        "SELECT 1 FORMAT Native".to_owned(),
        "SELECT 1; SELECT 2".to_owned(),
        "graph = 1 SELECT 1".to_owned(),
        String::new(),
    ] {
        let ended = both.ask_server("query", &[&sql]);
        assert!(matches!(ended.code, Some(1 | 4)), "{sql}: {ended:?}");
        assert!(!ended.output.contains("hidden") && !ended.log.contains("hidden"), "{ended:?}");
    }
    assert!(!server.path("files/out").exists());
    // The user that `vmprobe schema clickhouse` proposes suffices, and has no other rights.
    let printed = both.schema();
    let statements = printed.lines().filter_map(|line| line.strip_prefix("-- ")?.strip_suffix(';'));
    let statements: Vec<_> = statements.map(|it| it.replace("CHOOSE ONE", "s3cret")).collect();
    assert_eq!(statements.len(), 2, "{printed}");
    for statement in statements {
        server.query(&statement);
    }
    let grants = server.query("SHOW GRANTS FOR vmprobe_reader");
    assert_eq!(grants.trim(), "GRANT SELECT ON vmprobe.* TO vmprobe_reader");
    let secret = both.folder.write("reader", "s3cret\n");
    let reader = |what: &str, arguments: &[&str]| {
        let mut command = Command::new(vmprobe());
        command.arg(what).args(["--clickhouse", &server.url(), "--user", "vmprobe_reader"]);
        command.arg("--password").arg(format!("file:{}", secret.display())).args(arguments);
        run_to_end(command)
    };
    let graph = reader("topology", &["--limit", "9"]);
    assert_eq!(graph.expect(0, &[]).output, both.same("topology", &["--limit", "9"]));
    reader("query", &["SELECT count(*) FROM windows_1h"]).expect(0, &[]);
    reader("query", &["SELECT * FROM system.users"]).expect(4, &["Not enough privileges"]);
    reader("query", &["SELECT * FROM default.a"]).expect(4, &[]);
}

fn bounds_hold(both: &Both) {
    let begun_ns = monotonic_ns();
    let endless = "SELECT sum(cityHash64(number)) AS n FROM numbers(1000000000000)";
    let ended = both.ask_server("query", &["--timeout-s", "1", endless]);
    ended.expect(4, &["stopped after 1 s"]);
    assert!(seconds_since(begun_ns) < 20);
    let large = "SELECT groupArray(number) AS n FROM numbers(100000000)";
    both.ask_server("query", &["--memory-mib", "64", large]).expect(4, &["241"]);
    // In blocks, each of which is small.
    let long = "SELECT number AS x FROM numbers(20000000)";
    both.ask_server("query", &["--memory-mib", "64", long]).expect(4, &["(396)", "64.00 MiB"]);
    both.ask_server("query", &["SELECT 1 SELECT 1"]).expect(4, &["Syntax error"]);
    // Who asks and goes away has it ended on the server too.
    let mut command = Command::new(built("vmprobe-query").expect("it is built"));
    command.args(["--clickhouse", &both.server.url(), endless]).stdout(Stdio::null());
    let mut asking = command.spawn().expect("it runs");
    let running = || {
        let sql = "SELECT count() FROM system.processes WHERE query LIKE '%cityHash64(number)%' \
                   AND query NOT LIKE '%processes%'";
        both.server.number(sql)
    };
    assert!(until(30, || (running() == 1).then_some(())).is_some(), "it is asked");
    asking.kill().expect("it ran");
    asking.wait().expect("it ended");
    assert!(until(30, || (running() == 0).then_some(())).is_some(), "it goes on");
}

fn what_is_wrong_is_told(both: &Both) {
    let server = &both.server;
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(vmprobe());
        command.args(["topology", "--clickhouse", &server.url()]).args(arguments);
        run_to_end(command)
    };
    let secret = both.folder.write("wrong", "wr0ng\n");
    let place = format!("--password=file:{}", secret.display());
    let wrong = ask(&["--user", "probe", &place]);
    assert!(!wrong.expect(4, &["(516)"]).log.contains("wr0ng"), "{wrong:?}");
    ask(&["--database", "no_such"]).expect(4, &["(81)", "vmprobe schema clickhouse --apply"]);
    ask(&["--user", "probe", "--password=file:/no/such/file"]).expect(1, &["/no/such/file"]);
    let comment = |version: &str| {
        server.query(&format!(
            "ALTER TABLE vmprobe.windows MODIFY COMMENT 'vmprobe schema={version} ttl_days=0'"
        ));
    };
    comment("999");
    ask(&[]).expect(4, &["schema version 999", "newer vmprobe"]);
    comment("0");
    ask(&[]).expect(4, &["schema version 0", "--apply"]);
    comment("1");
    // Who is there and says nothing is not waited for for ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("its address"));
    let mut command = Command::new(vmprobe());
    command.args(["topology", "--timeout-s", "1", "--clickhouse", &url]);
    let begun_ns = monotonic_ns();
    run_to_end(command).expect(3, &["does not answer"]);
    assert!(seconds_since(begun_ns) < 20);
    server.query("RENAME TABLE vmprobe.taps TO vmprobe.gone");
    ask(&[]).expect(4, &["no table taps", "--apply"]);
    server.query("RENAME TABLE vmprobe.gone TO vmprobe.taps");
    ask(&[]).expect(0, &[]);
}

/// The API of a running probe, whose sink the server is.
#[cfg(feature = "dpdk")]
#[test]
fn the_api_answers_from_the_server_and_says_when_it_cannot() {
    let test = "the API and ClickHouse";
    if built("vmprobe-query").is_none() {
        return skipped(test, NOT_BUILT);
    }
    let Some(mut server) = Clickhouse::start(test) else { return };
    let folder = Folder::new("clickhouse-api");
    let right = format!("{PASSWORD}\n");
    let secret = folder.write("secret", &right);
    let rest = format!(
        "[[sink.clickhouse]]\nname = \"lake\"\nurl = \"{}\"\nuser = \"probe\"\n\
         password = \"file:secret\"\nbatch_ms = 100\nretry_max_ms = 300\n\
         [query]\nclickhouse = \"lake\"\n",
        server.url()
    );
    let mut command = Command::new(vmprobe());
    command.args(["schema", "clickhouse", "--apply", "-c"]).arg(folder.write("sink.toml", &rest));
    run_to_end(command).expect(0, &[]);
    let station = |number| ([2, 0, 0, 0, 0, number], [10, 0, 0, number]);
    let frames = [datagram(7, station(1), station(2))];
    let (probe, address) = endless(&folder, &frames, &rest);
    let graph = answer_within(60, &address, "/api/v1/topology", |graph| {
        graph["edges"].as_array().is_some_and(|edges| !edges.is_empty())
    });
    let first = graph["edges"][0]["first_window_start_ns"].as_u64().expect("a time");
    let (from, to) = (first, first + 1_000_000_000);
    // Both have all of the windows that are over for long enough.
    let question = format!("/api/v1/topology?from={from}&to={to}");
    let both = || {
        let mut command = Command::new(vmprobe());
        command.args(["topology", "--limit=500", "--data"]).arg(folder.path("records"));
        command.args([format!("--from={from}"), format!("--to={to}")]);
        let files = run_to_end(command).expect(0, &[]).output.clone();
        let api = get(&address, &question);
        assert_eq!(api.status, 200, "{api:?}");
        (files == api.body && files.contains("conversation")).then_some(())
    };
    assert!(until(30, both).is_some(), "{:?}", get(&address, &question));

    let problem = |status: u16, words: &str| {
        let begun_ns = monotonic_ns();
        let answer = get(&address, &question);
        assert_eq!(answer.status, status, "{answer:?}");
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(words), "{error}");
        assert!(seconds_since(begun_ns) < 10);
    };
    let answers = || (get(&address, &question).status == 200).then_some(());
    server.kill();
    problem(503, "ClickHouse does not answer");
    server.run();
    assert!(until(30, answers).is_some(), "it is back");
    folder.write("secret", "wr0ng\n");
    problem(502, "(516)");
    folder.write("secret", &right);
    assert!(until(30, answers).is_some(), "the password is read again");
    server.query("RENAME TABLE vmprobe.path TO vmprobe.gone");
    problem(502, "vmprobe schema clickhouse --apply");
    probe.terminate();
    let ended = probe.end(60);
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
    assert!(std::fs::read_to_string(secret).is_ok_and(|text| text == right));
}

impl Both {
    fn schema(&self) -> String {
        let mut command = Command::new(vmprobe());
        command.args(["schema", "clickhouse", "-c"]).arg(&self.on_server);
        run_to_end(command).expect(0, &[]).output.clone()
    }
}
