//! Plans of `[[sink.KIND]]`.

use std::path::Path;

use super::super::document::Section;
use super::super::plan::{
    ClickhousePlan, CorrelatePlan, ElasticPlan, EvePlan, IpfixPlan, KafkaCluster, KafkaCompression,
    KafkaFormat, KafkaPlan, OtlpPlan, QueryPlan, RabbitmqPlan, SaslMechanism, SecretPlace,
    SinkAccess, SinkKind, SinkPlan, SplunkPlan, SyslogFormat, SyslogPlan, WebhookPlan,
};
use super::path;

/// All sinks, kind by kind.
pub(super) fn sinks(section: &Section<'_>, base: &Path) -> Vec<SinkPlan> {
    super::super::schema::SINK_KINDS
        .iter()
        .flat_map(|kind| {
            let sinks = section.tables(kind);
            sinks.into_iter().filter_map(|found| sink(kind, &found, base)).collect::<Vec<_>>()
        })
        .collect()
}

/// One sink; `None` where it does not say who and where it is, which is a problem already.
fn sink(kind: &str, section: &Section<'_>, base: &Path) -> Option<SinkPlan> {
    let mut plan = SinkPlan::new(section.get("name")?, self::kind(kind, section, base)?);
    section.read("tables", &mut plan.tables);
    section.read("tenants", &mut plan.filter.tenants);
    section.read("traffic_classes", &mut plan.filter.traffic_classes);
    section.read("networks", &mut plan.filter.networks);
    section.read_some("severity_min", &mut plan.filter.severity_min);
    section.read("batch_records", &mut plan.batch_records);
    section.read("batch_ms", &mut plan.batch_ms);
    section.read("queue_mib", &mut plan.queue_mib);
    section.read("timeout_ms", &mut plan.timeout_ms);
    section.read("retry_max_ms", &mut plan.retry_max_ms);
    plan.spool_folder = path(section, "spool_folder", base);
    section.read("spool_mib", &mut plan.spool_mib);
    Some(plan)
}

fn kind(kind: &str, section: &Section<'_>, base: &Path) -> Option<SinkKind> {
    Some(match kind {
        "clickhouse" => SinkKind::Clickhouse(clickhouse(section, base)?),
        "webhook" => SinkKind::Webhook(WebhookPlan {
            url: section.get("url")?,
            secret: section.get::<SecretPlace>("secret")?.below(base),
            ca_file: ca_file(section, base),
        }),
        "syslog" => SinkKind::Syslog(SyslogPlan {
            url: section.get("url")?,
            ca_file: ca_file(section, base),
            format: match section.get::<String>("format").as_deref() {
                Some("cef") => SyslogFormat::Cef,
                _ => SyslogFormat::Json,
            },
        }),
        "rabbitmq" => SinkKind::Rabbitmq(RabbitmqPlan {
            url: section.get("url")?,
            access: access(section, base),
            exchange: section.get("exchange").unwrap_or_else(|| "vmprobe".to_owned()),
        }),
        "ipfix" => SinkKind::Ipfix(ipfix(section, base)?),
        "elastic" => SinkKind::Elastic(ElasticPlan {
            url: section.get("url")?,
            access: access(section, base),
            api_key: section.get::<SecretPlace>("api_key").map(|place| place.below(base)),
            index: section.get("index").unwrap_or_else(|| "vmprobe".to_owned()),
        }),
        "splunk" => SinkKind::Splunk(SplunkPlan {
            url: section.get("url")?,
            token: section.get::<SecretPlace>("token")?.below(base),
            ca_file: ca_file(section, base),
            index: section.get("index"),
            acknowledge: section.get("acknowledge").unwrap_or(false),
        }),
        "kafka" => SinkKind::Kafka(kafka(section, base)?),
        _ => SinkKind::Eve(EvePlan {
            path: path(section, "path", base)?,
            socket: section.get("socket").unwrap_or(false),
        }),
    })
}

fn clickhouse(section: &Section<'_>, base: &Path) -> Option<ClickhousePlan> {
    let mut plan = ClickhousePlan::new(section.get("url")?);
    plan.access = access(section, base);
    section.read("database", &mut plan.database);
    section.read_some("cluster", &mut plan.cluster);
    section.read("replicated", &mut plan.replicated);
    section.read("ttl_days", &mut plan.ttl_days);
    section.read("rollup_ttl_days", &mut plan.rollup_ttl_days);
    Some(plan)
}

fn ipfix(section: &Section<'_>, base: &Path) -> Option<IpfixPlan> {
    let mut plan = IpfixPlan::new(section.get("url")?);
    plan.ca_file = ca_file(section, base);
    section.read("enterprise_number", &mut plan.enterprise_number);
    section.read_some("observation_domain_id", &mut plan.observation_domain_id);
    section.read("template_refresh_s", &mut plan.template_refresh_s);
    section.read("template_refresh_messages", &mut plan.template_refresh_messages);
    section.read("message_octets_max", &mut plan.message_octets_max);
    Some(plan)
}

/// What answers questions: a sink's server. A name that is no such sink's is a problem found elsewhere.
pub(super) fn query(section: &Section<'_>, sinks: &[SinkPlan], base: &Path) -> QueryPlan {
    let name: Option<String> = section.get("clickhouse");
    let sink = sinks.iter().find(|sink| Some(&sink.name) == name.as_ref());
    let Some(SinkKind::Clickhouse(plan)) = sink.map(|sink| &sink.kind) else {
        return QueryPlan::default();
    };
    let mut plan = plan.clone();
    if section.has("user") || section.has("password") {
        plan.access.password =
            section.get::<SecretPlace>("password").map(|place| place.below(base));
    }
    section.read_some("user", &mut plan.access.user);
    QueryPlan { clickhouse: Some(plan) }
}

/// Where metrics are sent.
pub(super) fn otlp(section: &Section<'_>, base: &Path) -> OtlpPlan {
    let mut plan = OtlpPlan::default();
    section.read_some("url", &mut plan.url);
    plan.authorization = section.get::<SecretPlace>("authorization").map(|place| place.below(base));
    plan.ca_file = ca_file(section, base);
    section.read("interval_ms", &mut plan.interval_ms);
    section.read("timeout_ms", &mut plan.timeout_ms);
    plan
}

fn kafka(section: &Section<'_>, base: &Path) -> Option<KafkaPlan> {
    let cluster = Some(cluster(section, base)).filter(|it| !it.brokers.is_empty())?;
    let mut plan = KafkaPlan::new(cluster);
    section.read("topic_prefix", &mut plan.topic_prefix);
    if section.get::<String>("format").as_deref() == Some("protobuf") {
        plan.format = KafkaFormat::Protobuf;
    }
    match section.get::<String>("compression").as_deref() {
        Some("none") => plan.compression = KafkaCompression::None,
        Some("lz4") => plan.compression = KafkaCompression::Lz4,
        _ => {}
    }
    Some(plan)
}

/// What `vmprobe correlate` reads.
pub(super) fn correlate(section: &Section<'_>, base: &Path) -> CorrelatePlan {
    let mut plan = CorrelatePlan { cluster: cluster(section, base), ..CorrelatePlan::default() };
    section.read("topic_prefix", &mut plan.topic_prefix);
    section.read("group", &mut plan.group);
    section.read("hold_ms", &mut plan.hold_ms);
    section.read("detect", &mut plan.detect);
    section.read("history_s", &mut plan.history_s);
    section.read("contacts_mib_max", &mut plan.contacts_mib_max);
    plan.listen = section.get("listen");
    section.read("session_ms", &mut plan.session_ms);
    plan
}

/// Brokers and how to talk to them; that a sink has none is a problem already.
fn cluster(section: &Section<'_>, base: &Path) -> KafkaCluster {
    let mut cluster = KafkaCluster { access: access(section, base), ..KafkaCluster::default() };
    section.read("brokers", &mut cluster.brokers);
    match section.get::<String>("mechanism").as_deref() {
        Some("scram-sha-256") => cluster.mechanism = SaslMechanism::ScramSha256,
        Some("plain") => cluster.mechanism = SaslMechanism::Plain,
        _ => {}
    }
    cluster
}

fn access(section: &Section<'_>, base: &Path) -> SinkAccess {
    SinkAccess {
        user: section.get("user"),
        password: section.get::<SecretPlace>("password").map(|place| place.below(base)),
        ca_file: ca_file(section, base),
    }
}

fn ca_file(section: &Section<'_>, base: &Path) -> std::path::PathBuf {
    path(section, "ca_file", base).unwrap_or_else(|| SinkAccess::default().ca_file)
}
