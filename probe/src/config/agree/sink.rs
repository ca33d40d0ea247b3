//! What must agree in `[[sink.KIND]]`.

use std::collections::HashMap;

use super::super::document::{Report, Section, quoted};
use super::super::plan::{Plan, SinkFilter, SinkKind, SinkPlan, StreamUrl, is_local};
use super::super::schema::SINK_KINDS;

/// Checks where metrics are sent.
pub(super) fn otlp(section: &Section<'_>, plan: &Plan, report: &mut Report) {
    let Some(url) = &plan.otlp.url else {
        if section.has("authorization") {
            let what = "has no effect without url";
            report.warning(section.at("authorization"), section.path("authorization"), what);
        }
        return;
    };
    if !url.tls && section.has("authorization") && !is_local(&url.host) {
        let what =
            "shows the authorization to whoever hears the network; an encrypted one does not";
        report.warning(section.at("url"), section.path("url"), what);
    }
}

/// Tables that the API's own questions are about.
const ASKED: [&str; 4] = ["windows", "path", "taps", "inventory"];

/// Checks what answers questions to the records.
pub(super) fn query(section: &Section<'_>, plan: &Plan, report: &mut Report) {
    let Some(name) = section.get::<String>("clickhouse") else {
        for key in ["user", "password"].into_iter().filter(|key| section.has(key)) {
            let what = "has no effect without clickhouse";
            report.warning(section.at(key), section.path(key), what);
        }
        return;
    };
    let (at, path) = (section.at("clickhouse"), section.path("clickhouse"));
    let is_it =
        |sink: &&SinkPlan| matches!(sink.kind, SinkKind::Clickhouse(_)) && sink.name == name;
    let Some(sink) = plan.sinks.iter().find(is_it) else {
        let allowed = "allowed: the name of a [[sink.clickhouse]]";
        report.problem(at, path, format!("{} is no such sink ({allowed})", quoted(&name)));
        return;
    };
    let lacking: Vec<_> =
        ASKED.into_iter().filter(|table| !sink.tables.iter().any(|own| own == table)).collect();
    if !lacking.is_empty() {
        let what = format!("answers lack what that sink does not get: {}", lacking.join(", "));
        report.warning(at, path.clone(), &what);
    }
    if sink.filter != SinkFilter::default() {
        report.warning(at, path, "answers lack what that sink filters out");
    }
}

/// Checks all sinks.
pub(super) fn check(root: &Section<'_>, plan: &Plan, report: &mut Report) {
    let mut names = HashMap::new();
    for section in SINK_KINDS.iter().flat_map(|kind| root.tables(kind)) {
        let Some(name) = section.get::<String>("name") else { continue };
        let at = section.at("name");
        if let Some(before) = super::used_before(&mut names, name.clone(), at) {
            let line = report.line(before);
            let what = format!("{} is used in line {line} (allowed: each once)", quoted(&name));
            report.problem(at, section.path("name"), what);
        }
        let sink = plan.sinks.iter().find(|sink| sink.name == name);
        one(&section, sink, report);
    }
}

/// Checks what `vmprobe correlate` reads.
pub(super) fn check_correlate(section: &Section<'_>, plan: &Plan, report: &mut Report) {
    brokers(section, report);
    let mut warn = |name: &str, what: &str| {
        report.warning(section.at(name), section.path(name), what);
    };
    if section.has("user") && !section.has("password") {
        warn("user", "has no password");
    }
    let endpoint = plan.correlate.cluster.endpoint();
    if let Some((false, host)) = endpoint
        && section.has("password")
        && !is_local(host)
    {
        warn("brokers", SHOWS_PASSWORD);
    }
}

/// Said of a way that is not encrypted.
const SHOWS_PASSWORD: &str =
    "shows the password to whoever hears the network; an encrypted one does not";

fn one(section: &Section<'_>, sink: Option<&SinkPlan>, report: &mut Report) {
    let tables = section.items::<String>("tables");
    if section.has("tables") && tables.is_empty() {
        let what = "is empty (allowed: at least one table)";
        report.problem(section.at("tables"), section.path("tables"), what);
    }
    super::unique_items(tables, &section.path("tables"), report);
    brokers(section, report);
    let mut warn = |name: &str, what: &str| {
        report.warning(section.at(name), section.path(name), what);
    };
    if section.has("spool_mib") && !section.has("spool_folder") {
        warn("spool_mib", "has no effect without spool_folder");
    }
    if section.has("api_key") && section.has("user") {
        warn("user", "has no effect beside api_key");
    } else if section.has("user") && !section.has("password") {
        warn("user", "has no password");
    }
    if section.has("mechanism") && !section.has("user") {
        warn("mechanism", "has no effect without user");
    }
    let Some((encrypted, host)) = sink.and_then(SinkPlan::endpoint) else { return };
    let place = if section.has("brokers") { "brokers" } else { "url" };
    if !encrypted && section.has("ca_file") {
        warn("ca_file", "has no effect, because the URL is not encrypted");
    }
    for secret in ["password", "api_key", "token"] {
        if !encrypted && section.has(secret) && !is_local(host) {
            let what = format!(
                "shows the {} to whoever hears the network; an encrypted one does not",
                secret.replace('_', " ")
            );
            warn(place, &what);
        }
    }
}

/// Brokers of Kafka.
fn brokers(section: &Section<'_>, report: &mut Report) {
    if !section.has("brokers") {
        return;
    }
    let brokers = section.items::<StreamUrl>("brokers");
    let encrypted = brokers.iter().filter(|(_, broker)| broker.tls).count();
    let what = if brokers.is_empty() {
        "is empty (allowed: at least one broker)"
    } else if encrypted != 0 && encrypted != brokers.len() {
        "has brokers with TLS and without (allowed: all tls:// or all tcp://)"
    } else {
        return;
    };
    report.problem(section.at("brokers"), section.path("brokers"), what);
}

#[cfg(test)]
mod tests {
    use super::super::super::document::Problems;
    use super::super::super::load::{Loaded, Mode, parse};
    use super::super::super::plan::SecretPlace;
    use super::super::super::schema::SINK_TABLES;

    fn read(kind: &str, rest: &str) -> Result<Loaded, Problems> {
        let text = format!("[[sink.{kind}]]\nname = \"a\"\n{rest}");
        parse(&text, "x", std::path::Path::new("/b"), Mode::Replay)
    }

    #[test]
    fn what_answers_questions_is_a_clickhouse_that_has_all() {
        let lake = "[[sink.clickhouse]]\nname = \"lake\"\nurl = \"http://127.0.0.1\"\n";
        let query = "[query]\nclickhouse = \"lake\"\n";
        let said = |text: &str| match parse(text, "x", std::path::Path::new("/"), Mode::Check) {
            Ok(loaded) => loaded.warnings.to_string(),
            Err(problems) => problems.to_string(),
        };
        assert_eq!(said(&[lake, query].concat()), "");
        for (text, expected) in [
            (query.to_owned(), "x:2: query.clickhouse: \"lake\" is no such sink"),
            ("[query]\nuser = \"u\"\n".to_owned(), "user: has no effect without clickhouse"),
            (
                [lake, "tables = [\"flows\", \"windows\"]\n", query].concat(),
                "path, taps, inventory",
            ),
            ([lake, "tenants = [\"a\"]\n", query].concat(), "filters out"),
        ] {
            let said = said(&text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn each_rejected_key_says_why() {
        let found = |kind, rest| {
            read(kind, rest).err().map(|problems| problems.to_string()).unwrap_or_default()
        };
        let url = "url = \"http://h\"\n";
        for (kind, rest, wanted) in [
            ("kafkaesque", "", "x:1: sink.kafkaesque: is no key"),
            ("clickhouse", "", "x:1: sink.clickhouse.url: is missing"),
            (
                "clickhouse",
                "url = \"tcp://h:1\"\n",
                "x:3: sink.clickhouse.url: \"tcp://h:1\" is not",
            ),
            (
                "clickhouse",
                "url = \"http://u:hush@h\"\n",
                "x:3: sink.clickhouse.url: it holds a user",
            ),
            ("syslog", url, "tcp://HOST:PORT or tls://HOST:PORT"),
            ("rabbitmq", url, "amqp://HOST:PORT"),
            ("ipfix", url, "udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or sctp://HOST:PORT"),
            (
                "ipfix",
                "url = \"udp://h:1\"\ntables = [\"alerts\"]\n",
                "x:4: sink.ipfix.tables: \"alerts\" is not",
            ),
            ("splunk", url, "sink.splunk.token: is missing"),
            ("kafka", "", "x:1: sink.kafka.brokers: is missing"),
            ("kafka", "brokers = []\n", "x:3: sink.kafka.brokers: is empty"),
            ("kafka", "brokers = [\"h:9092\"]\n", "tcp://HOST:PORT or tls://HOST:PORT"),
            (
                "kafka",
                "brokers = [\"tcp://u:hush@h:1\"]\n",
                "x:3: sink.kafka.brokers: it holds a user",
            ),
            (
                "kafka",
                "brokers = [\"tls://h:1\", \"tcp://h:2\"]\n",
                "x:3: sink.kafka.brokers: has brokers with TLS and without",
            ),
            ("eve", "", "sink.eve.path: is missing"),
            (
                "eve",
                "path = \"a\"\ntables = [\"ledger\"]\n",
                "x:4: sink.eve.tables: \"ledger\" is not",
            ),
            ("eve", "path = \"a\"\ndatabase = \"d\"\n", "x:4: sink.eve.database: is no key"),
            ("webhook", url, "sink.webhook.secret: is missing"),
            (
                "webhook",
                "url = \"http://h\"\nsecret = \"hush\"\n",
                "x:4: sink.webhook.secret: it is not",
            ),
            (
                "clickhouse",
                "url = \"http://h\"\ntables = []\n",
                "x:4: sink.clickhouse.tables: is empty",
            ),
            (
                "clickhouse",
                "url = \"http://h\"\ntables = [\"flows\", \"flows\"]\n",
                "flows stands twice",
            ),
            (
                "eve",
                "path = \"a\"\n[[sink.syslog]]\nname = \"a\"\nurl = \"tcp://h:1\"\n",
                "\"a\" is used in line",
            ),
        ] {
            let found = found(kind, rest);
            assert!(found.contains(wanted), "{rest}: {found}");
            assert!(!found.contains("hush"), "{found}");
        }
    }

    #[test]
    fn what_surprises_is_warned_of() {
        for (kind, rest, wanted) in [
            ("clickhouse", "url = \"http://h\"\nuser = \"u\"\n", "user: has no password"),
            ("clickhouse", "url = \"http://h\"\npassword = \"env:A\"\n", "shows the password"),
            ("clickhouse", "url = \"http://h\"\nca_file = \"c\"\n", "ca_file: has no effect"),
            ("eve", "path = \"a\"\nspool_mib = 5\n", "spool_mib: has no effect"),
            ("splunk", "url = \"http://h\"\ntoken = \"env:A\"\n", "shows the token"),
            ("elastic", "url = \"http://h\"\napi_key = \"env:A\"\n", "shows the api key"),
            (
                "elastic",
                "url = \"https://h\"\napi_key = \"env:A\"\nuser = \"u\"\n",
                "user: has no effect",
            ),
            (
                "kafka",
                "brokers = [\"tcp://127.0.0.1:1\", \"tcp://h:1\"]\nuser = \"u\"\npassword = \"env:A\"\n",
                "sink.kafka.brokers: shows the password",
            ),
            (
                "kafka",
                "brokers = [\"tls://h:1\"]\nmechanism = \"plain\"\n",
                "mechanism: has no effect without user",
            ),
        ] {
            let warned = read(kind, rest).expect("allowed").warnings.to_string();
            assert!(warned.contains(wanted), "{rest}: {warned}");
        }
        let quiet = "url = \"http://127.0.0.1:8123\"\npassword = \"env:A\"\n";
        assert_eq!(read("clickhouse", quiet).expect("allowed").warnings.to_string(), "");
    }

    #[test]
    fn where_metrics_are_sent() {
        let read = |rest: &str| {
            let text = format!("[otlp]\n{rest}");
            let loaded = parse(&text, "x", std::path::Path::new("/b"), Mode::Replay);
            loaded.expect("allowed")
        };
        for (rest, wanted) in [
            ("authorization = \"env:A\"\n", "authorization: has no effect without url"),
            ("url = \"http://h\"\nauthorization = \"env:A\"\n", "shows the authorization"),
        ] {
            let warned = read(rest).warnings.to_string();
            assert!(warned.contains(wanted), "{rest}: {warned}");
        }
        let quiet = read("url = \"http://127.0.0.1:4318\"\nauthorization = \"file:a\"\n");
        assert_eq!(quiet.warnings.to_string(), "");
        let plan = quiet.plan.otlp;
        assert_eq!(plan.authorization, Some(SecretPlace::File("/b/a".into())));
        assert_eq!((plan.interval_ms, plan.timeout_ms), (15_000, 5_000));
    }

    #[test]
    fn taps_of_many_probes_may_look_alike() {
        let taps = "[[tap]]\nname = \"a\"\n[[tap]]\nname = \"b\"\n";
        let correlate = "[correlate]\nbrokers = [\"tcp://h:1\"]\npassword = \"env:A\"\n";
        let port = "[[port]]\nname = \"p\"\ndevice = \"net_null0\"\n";
        for (text, is_good) in [
            (taps.to_owned(), false),
            (format!("{taps}{correlate}"), true),
            (format!("{taps}{correlate}{port}"), false),
        ] {
            let read = parse(&text, "x", std::path::Path::new("/b"), Mode::Check);
            assert_eq!(read.is_ok(), is_good, "{text}");
            if let Ok(loaded) = read {
                let warned = loaded.warnings.to_string();
                assert!(warned.contains("correlate.brokers: shows the password"), "{warned}");
            }
        }
        let mixed = "[correlate]\nbrokers = [\"tcp://h:1\", \"tls://h:2\"]\n";
        let read = parse(mixed, "x", std::path::Path::new("/b"), Mode::Check);
        let problems = read.err().map(|problems| problems.to_string()).unwrap_or_default();
        assert!(problems.contains("x:2: correlate.brokers: has brokers with TLS"), "{problems}");
    }

    #[test]
    fn what_is_not_given_follows_from_the_kind() {
        let loaded = read("clickhouse", "url = \"http://127.0.0.1\"\nspool_folder = \"s\"\n");
        let sink = &loaded.expect("allowed").plan.sinks[0];
        assert_eq!((sink.batch_records, sink.tables.len()), (100_000, SINK_TABLES.len()));
        assert_eq!(sink.spool_folder.as_deref(), Some(std::path::Path::new("/b/s")));
        let loaded = read("eve", "path = \"e\"\n").expect("allowed");
        assert_eq!(loaded.plan.sinks[0].tables, ["flows", "alerts", "apps"]);
    }
}
