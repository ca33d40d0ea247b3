//! Records in a real ClickHouse: each once, whatever happens to the server.

mod extremes;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::Value as Json;
use vmprobe::config::{SinkKind, SinkPlan};
use vmprobe::export::clickhouse::{Inserts, SchemaError, apply};
use vmprobe::export::sink::{Batch, Delivered, Driver as _};
use vmprobe::export::{SinkHealth, Sinks, SinksWanted};
use vmprobe::record::{LedgerRecord, Origin, Record, Rows, Table, TableVisitor, WindowRecord};
use vmprobe::time::{Timestamp, monotonic_ns, sleep_ms, wall_clock};
use vmprobe_tests::clickhouse::{Clickhouse, Cluster, PASSWORD};
use vmprobe_tests::end_to_end::{Folder, Ledger, run_to_end, until, vmprobe};
use vmprobe_tests::records;
use vmprobe_tests::sinks::{SOON_S, all_delivered, only, plan_of};

/// The hour before this one began then: rows of longer ago would end at once. The same each time.
fn now() -> Timestamp {
    static NOW: std::sync::OnceLock<Timestamp> = std::sync::OnceLock::new();
    let hour = |at: Timestamp| Timestamp((at.as_ns() / HOUR_NS - 1) * HOUR_NS);
    *NOW.get_or_init(|| hour(wall_clock()))
}

const HOUR_NS: u64 = 3_600_000_000_000;

fn text(url: &str, rest: &str) -> String {
    format!("[[sink.clickhouse]]\nname = \"lake\"\nurl = \"{url}\"\nretry_max_ms = 300\n{rest}")
}

fn plan(url: &str, rest: &str) -> SinkPlan {
    plan_of(&text(url, rest))
}

fn make(plan: &SinkPlan) -> Result<Vec<String>, SchemaError> {
    let SinkKind::Clickhouse(clickhouse) = &plan.kind else { panic!("{plan:?}") };
    apply(clickhouse, 60_000, false)
}

fn start(plan: &SinkPlan, waits: bool) -> Sinks {
    let origin = Origin::new("p'1\\", "east");
    Sinks::start(std::slice::from_ref(plan), origin, waits, SinksWanted::default())
        .expect("threads")
}

fn failing(sinks: &Sinks) -> String {
    let what = || match only(sinks.reports()).health {
        SinkHealth::Failing { what, .. } => Some(what),
        SinkHealth::Ok => None,
    };
    until(SOON_S, what).unwrap_or_else(|| panic!("it does not fail: {:?}", sinks.reports()))
}

/// Compares what a table holds with what was sent.
struct RoundTrip<'a> {
    server: &'a Clickhouse,
    rows: Rows,
    tables: usize,
}

impl TableVisitor for RoundTrip<'_> {
    fn table<R: Record>(&mut self) {
        let origin = Origin::new("p'1\\", "east");
        let mut rows = std::mem::take(R::of(&mut self.rows));
        assert_eq!(rows.len(), 2, "{} has no extremes", R::TABLE.name());
        rows.sort_by(R::order);
        let expected: Vec<_> = rows.iter().map(|row| row.json(&origin)).collect();
        let answer = self.server.query(&format!(
            "SELECT * EXCEPT (filed_time) FROM vmprobe.{} FORMAT JSONEachRow",
            R::TABLE.name()
        ));
        let read = |line| serde_json::from_str(line).expect("JSON");
        let mut found: Vec<Json> = answer.lines().map(read).collect();
        found.sort_by_key(|row| row.get(R::TABLE.time_column()).and_then(Json::as_u64));
        assert_eq!(found.len(), expected.len(), "{}", R::TABLE.name());
        for (found, expected) in found.iter().zip(&expected) {
            let (found, expected) = (found.as_object(), expected.as_object());
            let (found, expected) = (found.expect("an object"), expected.expect("an object"));
            assert!(found.keys().eq(expected.keys()), "{}", R::TABLE.name());
            for (name, value) in expected {
                let there = &found[name];
                assert!(same(there, value), "{}.{name}: {there}, not {value}", R::TABLE.name());
            }
        }
        self.tables += 1;
    }
}

/// Equal, but for a number without fraction, which ClickHouse writes without a point.
fn same(one: &Json, other: &Json) -> bool {
    if one == other {
        return true;
    }
    other.is_f64() && one.is_number() && one.as_f64() == other.as_f64()
}

#[test]
fn every_field_comes_back_as_it_was() {
    let Some(server) = Clickhouse::start("every field through ClickHouse") else { return };
    let plan = plan(&server.url(), "");
    let made = make(&plan).expect("made");
    assert!(made.len() > Table::ALL.len(), "{made:?}");
    assert_eq!(make(&plan).expect("it is there"), [""; 0], "nothing is done twice");
    let mut sinks = start(&plan, true);
    sinks.send(&extremes::rows(), now(), u64::MAX);
    let report = only(sinks.finish());
    let records = u64::try_from(extremes::rows().len()).expect("few");
    assert_eq!((report.ledger.made, report.ledger.delivered), (records, records), "{report:?}");
    let mut check = RoundTrip { server: &server, rows: extremes::rows(), tables: 0 };
    Table::visit(&mut check);
    assert_eq!(check.tables, Table::ALL.len());
    // Stamps of all centuries make three partitions at most: an hour around the packets' clock.
    let days = server.number("SELECT uniqExact(toDate(filed_time)) FROM vmprobe.flows");
    assert!(days <= 2, "{days}");
    many_rows_come_as_they_were(&server);
}

/// More than a block holds, of more VMs than an octet counts, and some are left out.
fn many_rows_come_as_they_were(server: &Clickhouse) {
    const ROWS: u64 = 20_000;
    let tenants: Vec<_> = (0..200).map(|it| format!("\"tenant-{it}\"")).collect();
    let tenants = tenants.join(", ");
    let rest = format!(
        "tables = [\"windows\"]\nbatch_records = 13000\ntenants = [{tenants}, \"alone\"]\n"
    );
    let mut sinks = start(&plan(&server.url(), &rest), true);
    let mut rows = load(1, ROWS);
    for (number, row) in rows.windows.iter_mut().enumerate() {
        let tenant = match number {
            15_000 => "alone".to_owned(),
            _ if number.is_multiple_of(3) => "left out".to_owned(),
            _ => format!("tenant-{}", number % 397),
        };
        row.source_virtual_station_tenant = Some(tenant.into());
        row.destination_virtual_station_name =
            (number % 7 > 0).then(|| format!("vm-{}", number % 4_001).into());
    }
    let passes = |row: &WindowRecord| {
        let tenant = row.source_virtual_station_tenant.as_deref().unwrap_or_default();
        let number = tenant.strip_prefix("tenant-").map(|it| it.parse::<u32>().expect("a number"));
        number.map_or(tenant == "alone", |number| number < 200)
    };
    let line = |row: &WindowRecord| {
        let name = row.destination_virtual_station_name.as_deref().unwrap_or("\\N");
        let tenant = row.source_virtual_station_tenant.as_deref().unwrap_or("\\N");
        format!("{}\t{tenant}\t{name}\n", row.octet_delta_count)
    };
    let expected: String = rows.windows.iter().filter(|row| passes(row)).map(line).collect();
    sinks.send(&rows, now(), u64::MAX);
    let report = only(sinks.finish());
    assert_eq!(report.ledger.made, report.ledger.delivered, "{report:?}");
    let found = server.query(&format!(
        "SELECT octet_delta_count, source_virtual_station_tenant, destination_virtual_station_name \
         FROM vmprobe.windows WHERE octet_delta_count BETWEEN 1 AND {ROWS} ORDER BY 1"
    ));
    assert_eq!(found.len(), expected.len());
    assert!(found == expected);
}

/// `count` conversations of one packet each, and as many rows of the ledger, numbered from `first`.
fn load(first: u64, count: u64) -> Rows {
    let address = |number: u64| {
        let [.., a, b, c] = number.to_be_bytes();
        std::net::IpAddr::from([10, a, b, c])
    };
    let at = |number: u64| now().as_ns() + number * 1_000_000;
    let window = |number| WindowRecord {
        window_start_ns: at(number),
        source_address: address(number % 50),
        destination_address: address(number % 7),
        packet_delta_count: 1,
        octet_delta_count: number,
        ..WindowRecord::default()
    };
    let line = |number| LedgerRecord {
        window_start_ns: at(number),
        scope: "probe",
        packet_count: number,
        ..LedgerRecord::default()
    };
    let numbers = first..first + count;
    Rows {
        windows: numbers.clone().map(window).collect(),
        ledger: numbers.map(line).collect(),
        ..Rows::default()
    }
}

#[test]
fn a_server_that_is_killed_under_load_has_each_row_once() {
    const KILLS: u64 = 5;
    const PART: u64 = 50;
    let Some(mut server) = Clickhouse::start("ClickHouse killed under load") else { return };
    let rest = "tables = [\"windows\", \"ledger\"]\nbatch_records = 400\nbatch_ms = 50\n\
                timeout_ms = 5000\nqueue_mib = 512\n";
    let plan = plan(&server.url(), rest);
    make(&plan).expect("made");
    let mut sinks = start(&plan, false);
    let mut sent = 0;
    for kill in 0..=KILLS {
        let delivered = only(sinks.reports()).ledger.delivered;
        // Kill while batches are under way, at another moment each time.
        let end_ns = monotonic_ns() + 700_000_000 + kill * 37_000_000;
        while monotonic_ns() < end_ns {
            sinks.send(&load(sent, PART), Timestamp(now().as_ns() + sent * 1_000_000), 0);
            sent += PART;
            sleep_ms(10);
        }
        let more = || (only(sinks.reports()).ledger.delivered > delivered).then_some(());
        assert!(until(SOON_S, more).is_some(), "it goes on: {:?}", sinks.reports());
        if kill < KILLS {
            server.kill();
            sinks.send(&load(sent, PART), Timestamp(now().as_ns() + sent * 1_000_000), 0);
            sent += PART;
            failing(&sinks);
            server.run();
        }
    }
    all_delivered(&sinks, 2 * sent);
    let report = only(sinks.finish());
    assert_eq!((report.ledger.made, report.ledger.dropped_sum()), (2 * sent, 0), "{report:?}");
    let ledger = server.query(
        "SELECT count(), uniqExact(packet_count), max(packet_count) FROM vmprobe.ledger \
         WHERE scope = 'probe'",
    );
    assert_eq!(ledger.trim(), format!("{sent}\t{sent}\t{}", sent - 1));
    let sums = "sum(packet_delta_count), sum(octet_delta_count)";
    let octets = sent * (sent - 1) / 2;
    for table in ["windows", "windows_1m", "windows_1h"] {
        let found = server.query(&format!("SELECT {sums} FROM vmprobe.{table}"));
        assert_eq!(found.trim(), format!("{sent}\t{octets}"), "{table}");
    }
    eprintln!("{sent} rows a table, {KILLS} kills, each once");
}

#[test]
fn a_server_that_is_killed_between_a_table_and_its_roll_ups_has_each_row_once() {
    const ROWS: u64 = 100;
    const KILLS_MAX: u64 = 6;
    let Some(mut server) = Clickhouse::start("ClickHouse killed before roll-ups") else { return };
    let plan = plan(&server.url(), "tables = [\"windows\"]\n");
    make(&plan).expect("made");
    // Views take turns, in no order that is known, and this one takes its time.
    server.query("CREATE TABLE vmprobe.slow (count UInt64) ENGINE = Null");
    server.query(
        "CREATE MATERIALIZED VIEW vmprobe.a_slow_view TO vmprobe.slow AS \
         SELECT sleep(3) + packet_delta_count AS count FROM vmprobe.windows",
    );
    let sum = |server: &Clickhouse, table| {
        server.number(&format!("SELECT sum(packet_delta_count) FROM vmprobe.{table}"))
    };
    let mut sinks = start(&plan, false);
    let mut in_between = 0;
    for kill in 1..=KILLS_MAX {
        let before = ROWS * (kill - 1);
        sinks.send(&load(before, ROWS), now(), 0);
        let stored = || (sum(&server, "windows") == before + ROWS).then_some(());
        assert!(until(SOON_S, stored).is_some(), "it is stored");
        server.kill();
        server.run();
        assert_eq!(sum(&server, "windows"), before + ROWS, "what was stored is");
        let lacks = ["windows_1m", "windows_1h"].map(|table| sum(&server, table) == before);
        in_between += u32::from(lacks.contains(&true));
        all_delivered(&sinks, before + ROWS);
        for table in ["windows", "windows_1m", "windows_1h"] {
            assert_eq!(sum(&server, table), before + ROWS, "{table}");
        }
        if in_between == 2 {
            break;
        }
    }
    assert!(in_between > 0, "killed {KILLS_MAX} times, and never in between");
    sinks.finish();
}

/// Forwards connections to a server, but loses the answers to the first `cuts` inserts.
fn lossy_way(to: u16, cuts: u32) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let left = Arc::new(AtomicU32::new(cuts));
    let cuts = Arc::clone(&left);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let cuts = Arc::clone(&cuts);
            std::thread::spawn(move || forward(client, to, &cuts));
        }
    });
    (port, left)
}

fn forward(mut client: TcpStream, to: u16, cuts: &AtomicU32) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)) else { return };
    let inserts = Arc::new(AtomicBool::new(false));
    let (mut from, mut into) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let seen = Arc::clone(&inserts);
    std::thread::spawn(move || {
        let mut part = [0; 8_192];
        while let Ok(octets @ 1..) = from.read(&mut part) {
            if part[..octets].windows(6).any(|word| word == b"INSERT") {
                seen.store(true, Ordering::SeqCst);
            }
            if into.write_all(&part[..octets]).is_err() {
                return;
            }
        }
        let _ = into.shutdown(Shutdown::Write);
    });
    let mut part = [0; 8_192];
    while let Ok(octets @ 1..) = server.read(&mut part) {
        let take = |left: u32| left.checked_sub(1);
        if inserts.swap(false, Ordering::SeqCst)
            && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
        {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        if client.write_all(&part[..octets]).is_err() {
            return;
        }
    }
}

#[test]
fn a_batch_whose_answer_is_lost_is_stored_once_also_in_roll_ups() {
    let Some(server) = Clickhouse::start("lost answers of ClickHouse") else { return };
    make(&plan(&server.url(), "")).expect("made");
    let (port, cuts) = lossy_way(server.port, 6);
    let rest = "tables = [\"windows\"]\nbatch_records = 100\n";
    let plan = plan(&format!("http://127.0.0.1:{port}"), rest);
    let mut sinks = start(&plan, false);
    sinks.send(&load(0, 500), now(), 0);
    all_delivered(&sinks, 500);
    sinks.finish();
    assert_eq!(cuts.load(Ordering::SeqCst), 0, "answers were lost");
    for table in ["windows", "windows_1m", "windows_1h"] {
        let sum = format!("SELECT sum(packet_delta_count) FROM vmprobe.{table}");
        assert_eq!(server.number(&sum), 500, "{table}");
    }
}

#[test]
fn a_batch_of_many_days_is_stored_once() {
    const DAYS: u64 = 150;
    let Some(server) = Clickhouse::start("many days in a batch for ClickHouse") else { return };
    let (port, cuts) = lossy_way(server.port, 1);
    let rest = "tables = [\"windows\"]\nttl_days = 0\nrollup_ttl_days = 0\nbatch_ms = 60000\n";
    let plan = plan(&format!("http://127.0.0.1:{port}"), rest);
    make(&plan).expect("made");
    let mut sinks = start(&plan, true);
    for day in 0..DAYS {
        let at = now().as_ns() - day * 24 * HOUR_NS;
        let mut rows = load(day, 1);
        rows.windows.iter_mut().for_each(|row| row.window_start_ns = at);
        sinks.send(&rows, Timestamp(at), u64::MAX);
    }
    let report = only(sinks.finish());
    assert_eq!((report.ledger.made, report.ledger.delivered), (DAYS, DAYS), "{report:?}");
    assert_eq!(cuts.load(Ordering::SeqCst), 0, "an answer was lost");
    assert_eq!(server.number("SELECT uniqExact(toDate(filed_time)) FROM vmprobe.windows"), DAYS);
    for table in ["windows", "windows_1m", "windows_1h"] {
        let sum = format!("SELECT sum(packet_delta_count) FROM vmprobe.{table}");
        assert_eq!(server.number(&sum), DAYS, "{table}");
    }
}

#[test]
fn wrong_credentials_and_authorities_are_told_and_right_ones_taken_without_a_restart() {
    let test = "credentials at ClickHouse";
    let Some(server) = Clickhouse::start_with_tls(test) else { return };
    let ca = server.path("trusted.pem");
    let authority = |name: &str| {
        std::fs::copy(server.path(name), &ca).expect("a certificate");
    };
    authority("ca.pem");
    let ca_file = format!("ca_file = \"{}\"\n", ca.display());
    make(&plan(&server.tls_url(), &ca_file)).expect("made inside TLS");
    let secret = server.path("password");
    std::fs::write(&secret, "wr0ng\n").expect("a file");
    let rest = format!("{ca_file}user = \"probe\"\npassword = \"file:{}\"\n", secret.display());
    let plan = plan(&server.tls_url(), &rest);
    // Another authority has signed it: no password is sent.
    authority("other.pem");
    let error = make(&plan).expect_err("nobody trusts it").to_string();
    assert!(error.contains("invalid peer certificate: UnknownIssuer"), "{error}");
    let mut sinks = start(&plan, false);
    sinks.send(&load(0, 10), now(), 0);
    let what = failing(&sinks);
    assert!(what.contains("invalid peer certificate: UnknownIssuer"), "{what}");
    authority("ca.pem");
    let told = || Some(failing(&sinks)).filter(|what| what.contains("516"));
    let what = until(SOON_S, told).expect("the password is wrong");
    assert!(!what.contains("wr0ng"), "{what}");
    std::fs::write(&secret, format!("{PASSWORD}\n")).expect("a file");
    all_delivered(&sinks, 20);
    assert_eq!(only(sinks.finish()).health, SinkHealth::Ok);
    assert_eq!(server.number("SELECT count() FROM vmprobe.windows"), 10);
    // A certificate of another name.
    let url = server.tls_url().replace("127.0.0.1", "localhost");
    let error = make(&plan_of(&text(&url, &ca_file))).expect_err("not its name").to_string();
    assert!(error.contains("invalid peer certificate: certificate not valid for name"), "{error}");
}

/// Makes a roll-up anew as it was before `traffic_class` kept its rows apart, with fewer sums.
fn older_roll_up(server: &Clickhouse, table: &str, start: &str) {
    let made = server.query(&format!(
        "SELECT create_table_query FROM system.tables WHERE database = 'vmprobe' AND name = '{table}' \
         FORMAT TSVRaw"
    ));
    let column = made.find("`traffic_class`").expect("a column");
    let end = made[column..].find("CODEC(ZSTD(1)), ").expect("its end") + "CODEC(ZSTD(1)), ".len();
    let older = format!("{}{}", &made[..column], &made[column + end..]);
    let older = older.replace(", traffic_class", "");
    assert!(!older.contains("traffic_class"), "{older}");
    for statement in [
        format!("DROP TABLE vmprobe.{table}_view"),
        format!("DROP TABLE vmprobe.{table} SYNC"),
        older,
        format!(
            "CREATE MATERIALIZED VIEW vmprobe.{table}_view TO vmprobe.{table} AS SELECT \
             {start}(filed_time) AS start_time, source_address, sum(windows.packet_delta_count) AS \
             packet_delta_count FROM vmprobe.windows AS windows GROUP BY start_time, source_address"
        ),
    ] {
        server.query(&statement);
    }
}

#[test]
fn an_older_schema_is_upgraded_and_what_waited_comes() {
    let Some(server) = Clickhouse::start("an older schema in ClickHouse") else { return };
    let plan = plan(&server.url(), "tables = [\"windows\"]\n");
    make(&plan).expect("made");
    // As an earlier version had it: without some columns, of which one keeps rows of roll-ups apart, with a
    // narrower one, with another age.
    older_roll_up(&server, "windows_1m", "toStartOfMinute");
    older_roll_up(&server, "windows_1h", "toStartOfHour");
    for change in [
        "ALTER TABLE vmprobe.windows_1m DROP COLUMN late_packet_count",
        "ALTER TABLE vmprobe.windows DROP COLUMN late_packet_count",
        "ALTER TABLE vmprobe.windows DROP COLUMN traffic_class",
        "ALTER TABLE vmprobe.windows DROP COLUMN tap",
        "ALTER TABLE vmprobe.windows MODIFY COLUMN layer2_octet_delta_count UInt32",
        "ALTER TABLE vmprobe.windows MODIFY TTL filed_time + INTERVAL 3 DAY",
        "ALTER TABLE vmprobe.windows MODIFY COMMENT 'vmprobe schema=0 ttl_days=3'",
        "DROP TABLE vmprobe.apps SYNC",
    ] {
        server.query(change);
    }
    let mut sinks = start(&plan, false);
    sinks.send(&load(0, 10), now(), 0);
    let what = failing(&sinks);
    assert!(what.contains("vmprobe schema clickhouse --apply"), "{what}");
    let done = make(&plan).expect("upgraded").join("\n");
    for part in [
        "ADD COLUMN IF NOT EXISTS `tap`",
        "CREATE TABLE IF NOT EXISTS `vmprobe`.`apps`",
        "MODIFY COLUMN `layer2",
        "MODIFY TTL",
        "windows_1m_view` MODIFY QUERY",
        "windows_1h_view` MODIFY QUERY",
    ] {
        assert!(done.contains(part), "{part} in {done}");
    }
    all_delivered(&sinks, 10);
    assert_eq!(make(&plan).expect("nothing to do"), [""; 0]);
    sinks.send(&load(10, 10), now(), 0);
    all_delivered(&sinks, 20);
    let packets = ["windows", "windows_1m", "windows_1h"]
        .map(|table| format!("SELECT sum(packet_delta_count) FROM vmprobe.{table}"));
    for sum in &packets {
        assert_eq!(server.number(sum), 20, "{sum}");
    }
    // What differs in the new column alone is not added up, also once the server has merged all it can.
    let classes = |from: u64| {
        let mut rows = load(from, 10);
        for (row, class) in rows.windows.iter_mut().zip(["east-west", "transit"].iter().cycle()) {
            (row.source_address, row.destination_address) =
                ([10, 9, 9, 9].into(), [10, 9, 9, 8].into());
            row.traffic_class = class;
        }
        rows
    };
    for part in 0..3 {
        sinks.send(&classes(20 + 10 * part), now(), 0);
        all_delivered(&sinks, 30 + 10 * part);
    }
    for table in ["windows_1m", "windows_1h"] {
        server.query(&format!("OPTIMIZE TABLE vmprobe.{table} FINAL"));
        let rows = server.query(&format!(
            "SELECT traffic_class, packet_delta_count FROM vmprobe.{table} WHERE source_address = \
             '10.9.9.9' ORDER BY traffic_class"
        ));
        assert_eq!(rows, "east-west\t15\ntransit\t15\n", "{table}");
    }
    // A view that is lost is made again; what comes without it is in no roll-up.
    server.query("DROP TABLE vmprobe.windows_1h_view");
    assert_eq!(make(&plan).expect("made").len(), 1);
    sinks.send(&load(50, 10), now(), 0);
    all_delivered(&sinks, 60);
    // One that adds up what a batch has, as those of before did, is made to give rows as they are.
    let select = server.query(
        "SELECT replaceRegexpAll(as_select, '(\\\\w+_count|sampling_rate|\\\\w+_ns)\\\\b', \
         'any(windows.\\\\1) AS \\\\1') FROM system.tables WHERE name = 'windows_1h_view' FORMAT TSVRaw",
    );
    let group = "GROUP BY ALL";
    server.query(&format!("ALTER TABLE vmprobe.windows_1h_view MODIFY QUERY {select} {group}"));
    sinks.send(&load(60, 10), now(), 0);
    all_delivered(&sinks, 70);
    let done = make(&plan).expect("changed");
    assert!(done.len() == 1 && done[0].contains("windows_1h_view` MODIFY QUERY"), "{done:?}");
    assert_eq!(make(&plan).expect("nothing to do"), [""; 0]);
    sinks.send(&load(70, 10), now(), 0);
    all_delivered(&sinks, 80);
    sinks.finish();
    for sum in &packets {
        assert_eq!(server.number(sum), 80, "{sum}");
    }
    server.query("ALTER TABLE vmprobe.flows MODIFY COMMENT 'vmprobe schema=999 ttl_days=30'");
    assert!(matches!(make(&plan), Err(SchemaError::Newer { .. })));
}

#[test]
fn a_batch_of_before_an_upgrade_is_stored_once() {
    let Some(mut server) = Clickhouse::start("batches of before an upgrade") else { return };
    make(&plan(&server.url(), "")).expect("made");
    // Its first batch is stored, but no answer to it comes through until the columns are wider.
    let (port, cuts) = lossy_way(server.port, u32::MAX);
    let rest =
        format!("tables = [\"windows\"]\nspool_folder = \"{}\"\n", server.path("spool").display());
    let first = plan(&format!("http://127.0.0.1:{port}"), &rest);
    let mut sinks = start(&first, false);
    sinks.send(&load(0, 10), now(), 0);
    let count = "SELECT count() FROM vmprobe.windows";
    let stored = || (server.number(count) == 10).then_some(());
    assert!(until(SOON_S, stored).is_some(), "it is stored");
    // Its second one waits in the spool.
    sinks.send(&load(10, 10), now(), 0);
    let report = only(sinks.finish());
    assert_eq!((report.ledger.spooled, report.ledger.delivered), (20, 0), "{report:?}");
    // As a newer version has them.
    for change in [
        "ADD COLUMN newer UInt8 FIRST",
        "MODIFY COLUMN schema_version UInt32",
        "MODIFY COLUMN tap LowCardinality(Nullable(String))",
    ] {
        server.query(&format!("ALTER TABLE vmprobe.windows {change}"));
    }
    server.kill();
    server.run();
    cuts.store(0, Ordering::SeqCst);
    let sinks = start(&first, false);
    let settled = || sinks.is_settled() && only(sinks.reports()).ledger.spooled == 0;
    assert!(until(SOON_S, || settled().then_some(())).is_some(), "{:?}", sinks.reports());
    sinks.finish();
    for table in ["windows", "windows_1m", "windows_1h"] {
        let sums =
            format!("SELECT sum(packet_delta_count), sum(octet_delta_count) FROM vmprobe.{table}");
        assert_eq!(server.query(&sums), "20\t190\n", "{table}");
    }
    // What a probe of before has left, in the format of then.
    let mut bytes = vec![3];
    for text in ["packet_delta_count", "tap", "filed_time", "UInt64", "String", "DateTime('UTC')"] {
        bytes.extend([u8::try_from(text.len()).expect("short")]);
        bytes.extend(text.bytes());
    }
    let filed_s = u32::try_from(now().as_ns() / 1_000_000_000).expect("this century");
    bytes.extend(5_u64.to_le_bytes().iter().chain(b"\x03old").chain(&filed_s.to_le_bytes()));
    let old = Batch { table: Table::Windows, records: 1, token: "old".to_owned(), bytes };
    let SinkKind::Clickhouse(to) = &first.kind else { panic!("{first:?}") };
    for _ in 0..2 {
        let delivered = Inserts::new(to, 60_000).deliver(&old);
        assert_eq!(delivered, Ok(Delivered::default()));
    }
    let found = server.query("SELECT packet_delta_count FROM vmprobe.windows WHERE tap = 'old'");
    assert_eq!(found, "5\n");
    // A column that the table has not would be left out, so it is waited for.
    server.query("TRUNCATE TABLE vmprobe.windows");
    server.query("ALTER TABLE vmprobe.windows MODIFY COLUMN schema_version UInt16");
    server.query("ALTER TABLE vmprobe.windows RENAME COLUMN tap TO was_tap");
    let mut sinks = start(&plan(&server.url(), "tables = [\"windows\"]\n"), false);
    sinks.send(&load(20, 1), now(), 0);
    let what = failing(&sinks);
    assert!(what.contains("(117)") && what.contains("name tap"), "{what}");
    server.query("ALTER TABLE vmprobe.windows RENAME COLUMN was_tap TO tap");
    all_delivered(&sinks, 1);
    sinks.finish();
    server.query("TRUNCATE TABLE vmprobe.windows");
    // A narrower column would lose values, so it is waited for.
    server.query("ALTER TABLE vmprobe.windows MODIFY COLUMN packet_delta_count UInt8");
    let mut sinks = start(&plan(&server.url(), "tables = [\"windows\"]\n"), false);
    sinks.send(&load(20, 1), now(), 0);
    let what = failing(&sinks);
    assert!(what.contains("(53)"), "{what}");
    assert_eq!(server.number(count), 0, "nothing is cut off");
}

#[test]
fn a_server_of_an_old_version_is_refused() {
    // A double: it only says the version of Debian's own package.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\n18.16.1\n",
            );
        }
    });
    let plan = plan(&url, "");
    let error = make(&plan).expect_err("it is too old").to_string();
    assert!(error.contains("ClickHouse 18.16.1; at least 24.8 is needed"), "{error}");
    let mut sinks = start(&plan, false);
    sinks.send(&load(0, 1), now(), 0);
    assert!(failing(&sinks).contains("at least 24.8 is needed"));
}

#[test]
fn a_cluster_of_replicated_tables_has_each_row_once_on_one_shard() {
    let Some(mut cluster) = Cluster::start("a cluster of ClickHouse") else { return };
    let rest = "cluster = \"lake\"\nreplicated = true\ntables = [\"windows\", \"ledger\"]\n\
                batch_records = 400\nbatch_ms = 50\n";
    let plan = plan(&cluster.servers[0].url(), rest);
    make(&plan).expect("made on both");
    assert_eq!(make(&plan).expect("it is there"), [""; 0]);
    let mut sinks = start(&plan, false);
    let mut sent = 0;
    for part in 0..40 {
        if part == 20 {
            // The shard that only the other one talks to.
            cluster.servers[1].kill();
        }
        sinks.send(&load(sent, 200), Timestamp(now().as_ns() + sent * 1_000_000), 0);
        sent += 200;
        sleep_ms(20);
        if part == 20 {
            failing(&sinks);
            cluster.servers[1].run();
        }
    }
    all_delivered(&sinks, 2 * sent);
    sinks.finish();
    let [one, two] = &cluster.servers;
    let count = "SELECT count(), uniqExact(octet_delta_count) FROM vmprobe.windows";
    assert_eq!(one.query(count).trim(), format!("{sent}\t{sent}"));
    let parts = [one, two].map(|it| it.number("SELECT count() FROM vmprobe.windows_local"));
    assert!(parts.iter().all(|rows| *rows > 0) && parts.iter().sum::<u64>() == sent, "{parts:?}");
    for table in ["windows_1m", "windows_1h"] {
        let sum = format!("SELECT sum(packet_delta_count) FROM vmprobe.{table}");
        assert_eq!((one.number(&sum), two.number(&sum)), (sent, sent), "{table}");
    }
}

/// The statements that an error names, in order.
fn advised(error: &SchemaError) -> Vec<String> {
    let text = error.to_string();
    let named = text.split('(').filter_map(|part| Some(part.split_once(')')?.0));
    let is_one = |part: &&str| part.starts_with("RENAME ") || part.starts_with("DROP ");
    named.filter(is_one).map(str::to_owned).collect()
}

#[test]
fn what_is_wrong_with_the_tables_of_a_cluster_is_mended_as_it_is_told() {
    let Some(cluster) = Cluster::start("tables of a cluster of ClickHouse") else { return };
    let rest = "cluster = \"lake\"\nreplicated = true\ntables = [\"windows\"]\n";
    let [one, two] = &cluster.servers;
    let plan = plan(&one.url(), rest);
    make(&plan).expect("made on both");
    let mut sinks = start(&plan, false);
    sinks.send(&load(0, 100), now(), 0);
    all_delivered(&sinks, 100);
    a_run_that_was_cut_off_is_finished(one, &plan, &mut sinks);
    // Another type, of the table that has the rows.
    let change = "MODIFY COLUMN loss_low Nullable(String)";
    one.query(&format!("ALTER TABLE vmprobe.windows_local ON CLUSTER lake {change}"));
    let error = make(&plan).expect_err("no number");
    let advice = advised(&error);
    assert_eq!(advice.len(), 1, "{error}");
    one.query(&advice[0]);
    sinks.send(&load(200, 100), now(), 0);
    let made = make(&plan).expect("made anew").join("\n");
    assert!(made.contains("/{table}.2'"), "{made}");
    all_delivered(&sinks, 300);
    assert_eq!(make(&plan).expect("nothing to do"), [""; 0]);
    // A column that keeps rows apart is not in the order of a roll-up.
    for server in [one, two] {
        let made = server.query(
            "SELECT create_table_query FROM system.tables WHERE name = 'windows_1h_local' FORMAT TSVRaw",
        );
        let older = made.replace(", traffic_class", "");
        assert!(older != made, "{made}");
        server.query("DROP TABLE vmprobe.windows_1h_local SYNC");
        server.query(&older);
    }
    let error = make(&plan).expect_err("it adds up too much");
    let advice = advised(&error);
    assert_eq!(advice.len(), 2, "{error}");
    for statement in &advice {
        one.query(statement);
    }
    make(&plan).expect("made anew");
    assert_eq!(make(&plan).expect("nothing to do"), [""; 0]);
    sinks.send(&load(300, 100), now(), 0);
    all_delivered(&sinks, 400);
    sinks.finish();
    let counts = [("windows", 200), ("windows_1m", 400), ("windows_1h", 100)];
    for (table, rows) in counts {
        let sum = format!("SELECT sum(packet_delta_count) FROM vmprobe.{table}");
        assert_eq!((one.number(&sum), two.number(&sum)), (rows, rows), "{table}");
    }
    let count = "SELECT count() FROM vmprobe.windows_local_old";
    assert_eq!(one.number(count) + two.number(count), 200, "what was moved away is there");
    // A server that is new gets its table where the others have theirs.
    two.query("DROP TABLE vmprobe.windows_local SYNC");
    let SinkKind::Clickhouse(clickhouse) = &plan_of(&text(&two.url(), rest)).kind else {
        panic!("{plan:?}")
    };
    let made = apply(clickhouse, 60_000, false).expect("made").join("\n");
    assert!(made.contains("/{table}.2'"), "{made}");
    rows_of_before_a_cluster_are_kept(one, rest);
}

/// As `--apply` leaves a cluster that ends after its first statement.
fn a_run_that_was_cut_off_is_finished(server: &Clickhouse, plan: &SinkPlan, sinks: &mut Sinks) {
    for table in ["windows_local", "windows"] {
        server.query(&format!("ALTER TABLE vmprobe.{table} ON CLUSTER lake DROP COLUMN tap"));
    }
    let SinkKind::Clickhouse(clickhouse) = &plan.kind else { panic!("{plan:?}") };
    let needed = apply(clickhouse, 60_000, true).expect("it can be done");
    assert_eq!(needed.len(), 2, "{needed:?}");
    server.query(&needed[0]);
    sinks.send(&load(100, 100), now(), 0);
    failing(sinks);
    assert_eq!(make(plan).expect("finished"), needed[1..]);
    all_delivered(sinks, 200);
    assert_eq!(make(plan).expect("nothing to do"), [""; 0]);
}

fn rows_of_before_a_cluster_are_kept(server: &Clickhouse, rest: &str) {
    let database = "database = \"before\"\n";
    make(&plan(&server.url(), database)).expect("made without a cluster");
    let row = "INSERT INTO before.windows (packet_delta_count, filed_time) VALUES (7, now())";
    server.query(row);
    let plan = plan(&server.url(), &format!("{database}{rest}"));
    let mut moved = 0;
    while let Err(error) = make(&plan) {
        assert!(matches!(error, SchemaError::Rows { .. }), "{error}");
        for statement in advised(&error) {
            server.query(&statement);
        }
        moved += 1;
        assert!(moved <= Table::ALL.len() + 2, "{error}");
    }
    assert_eq!(server.number("SELECT sum(packet_delta_count) FROM before.windows_old"), 7);
    // Who moves them is added up once.
    server.query("INSERT INTO before.windows SELECT * FROM before.windows_old");
    server.query("SYSTEM FLUSH DISTRIBUTED before.windows");
    for table in ["windows", "windows_1h", "windows_1h_old"] {
        let sum = format!("SELECT sum(packet_delta_count) FROM before.{table}");
        assert_eq!(server.number(&sum), 7, "{table}");
    }
}

#[test]
fn a_replay_gives_the_same_rows_as_the_store() {
    let Some(server) = Clickhouse::start("a replay into ClickHouse") else { return };
    let folder = Folder::new("replay-clickhouse");
    let mut command = Command::new(vmprobe());
    command.args(["generate", "--scenario", "port-scan", "--seed", "1", "--out"]);
    command.arg(folder.path("generated"));
    run_to_end(command).expect(0, &[]);
    // The generated cloud is older than records are kept otherwise.
    let text = text(&server.url(), "ttl_days = 0\nrollup_ttl_days = 0\n");
    let file = folder.write("vmprobe.toml", format!("[flow]\nslots_per_worker = 16384\n{text}"));
    let mut command = Command::new(vmprobe());
    command.args(["schema", "clickhouse", "--apply", "-c"]).arg(&file);
    let said = run_to_end(command);
    assert!(said.expect(0, &[]).output.contains("CREATE TABLE"), "{}", said.output);
    let mut command = Command::new(vmprobe());
    command.args(["replay", "--json", "-c"]).arg(&file);
    command.arg("--out").arg(folder.path("records"));
    command.arg(folder.path("generated/tap-a.pcap"));
    let ended = run_to_end(command);
    let report = ended.expect(0, &[]).json();
    assert!(Ledger::even(&report).received > 0);
    assert_eq!(report["sinks"][1]["name"], "lake", "{report}");
    assert_eq!(report["sinks"][0]["made"], report["sinks"][1]["made"], "{report}");
    assert_eq!(report["sinks"][1]["made"], report["sinks"][1]["delivered"], "{report}");
    let mut some = 0;
    for table in Table::ALL {
        let stored = records::rows(&folder.path("records"), table.name()).len();
        let there = server.number(&format!("SELECT count() FROM vmprobe.{}", table.name()));
        assert_eq!(u64::try_from(stored).expect("few"), there, "{}", table.name());
        some += usize::from(stored > 0);
    }
    assert!(some >= 4, "{some} tables have rows");
}

#[test]
fn what_is_measured_is_delivered() {
    let Some(server) = Clickhouse::start("rows a second into ClickHouse") else { return };
    let folder = Folder::new("bench-clickhouse");
    let text = text(&server.url(), "ttl_days = 0\nrollup_ttl_days = 0\n");
    make(&plan_of(&text)).expect("made");
    let bench = |file: &std::path::Path| {
        let mut command = Command::new(vmprobe());
        command.args(["bench", "--json", "--batches", "3", "--per-window", "2000", "--sinks"]);
        command.arg(file);
        run_to_end(command)
    };
    let ended = bench(&folder.write("sinks.toml", &text));
    let report = ended.expect(0, &[]).json();
    let sink = &report["sinks"][0];
    assert_eq!((&report["rows"], &sink["delivered"]), (&6_000.into(), &6_000.into()), "{report}");
    assert_eq!(server.number("SELECT count() FROM vmprobe.windows"), 6_000);
    let (rate, elapsed_s) = (sink["rows_per_second"].as_f64(), sink["elapsed_s"].as_f64());
    let rows = rate.expect("a number") * elapsed_s.expect("a number");
    assert!((rows - 6_000.0).abs() < 1.0, "{report}");
    bench(&folder.write("none.toml", "")).expect(2, &["no [[sink"]);
}
