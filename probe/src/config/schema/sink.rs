//! Keys of `[[sink.KIND]]`.

use super::super::document::Given::{Default, Nothing, Required};
use super::super::document::{Kind, Table, key, tables};
use super::integer;

/// Sinks of one kind at most: each has two threads and a queue.
pub const SINKS_MAX: usize = 16;

/// Tables of records; a test of the record module holds both lists equal.
pub const TABLES: &[&str] = &[
    "windows",
    "flows",
    "apps",
    "path",
    "delays",
    "path_samples",
    "migrations",
    "alerts",
    "ledger",
    "inventory",
    "vm_usage",
    "taps",
];

/// Severities of alerts, the least one first.
pub const SEVERITIES: &[&str] = &["info", "low", "medium", "high", "critical"];

static TABLE: Kind = Kind::Word(TABLES);
static EVE_TABLE: Kind = Kind::Word(&["flows", "alerts", "apps"]);
static IPFIX_TABLE: Kind = Kind::Word(&["flows", "windows", "taps"]);
static CLASS: Kind = Kind::Word(&["east-west", "inter-tenant", "north-south", "transit"]);

/// The keys of a kind: name, its own, then those that all have. `batch`: records of a batch.
macro_rules! keys {
    (name $name:literal; tables $tables:expr, $table:expr; batch $batch:literal; $($own:expr),+ $(,)?) => {
        &[
            key("name", Kind::Name, Required($name), "", "Unique name, in the ledger and the log."),
            $($own,)+
            key("tables", Kind::List($table, 16), Default($tables), "", "Tables whose records go there."),
            key(
                "tenants",
                Kind::List(&Kind::Text, 256),
                Nothing("[\"tenant-a\"]"),
                "",
                "Only records with a VM of one of these tenants at either end; tables that name no \
                 tenant pass.",
            ),
            key(
                "traffic_classes",
                Kind::List(&CLASS, 4),
                Nothing("[\"north-south\", \"inter-tenant\"]"),
                "",
                "Only records of these classes; tables without one pass.",
            ),
            key(
                "networks",
                Kind::List(&Kind::Network, 256),
                Nothing("[\"10.1.0.0/16\"]"),
                "",
                "Only records with either address in one of these networks; tables without addresses \
                 pass.",
            ),
            key(
                "severity_min",
                Kind::Word(SEVERITIES),
                Nothing("\"medium\""),
                "",
                "Only alerts of at least this severity; other tables pass.",
            ),
            key(
                "batch_records",
                integer(1, 1_000_000),
                Default($batch),
                "records",
                "A batch is sent when it has so many records, or 8 MiB (for ClickHouse: compressed).",
            ),
            key(
                "batch_ms",
                integer(1, 600_000),
                Default("1000"),
                "ms",
                "A batch is sent after this time, however few records it has.",
            ),
            key(
                "queue_mib",
                integer(1, 65_536),
                Default("64"),
                "MiB",
                "Batches that wait in memory at most. What does not fit goes to the spool, or is \
                 dropped and counted where there is none.",
            ),
            key(
                "timeout_ms",
                integer(100, 600_000),
                Default("10000"),
                "ms",
                "Longest time for one batch to be taken; at `rabbitmq` the longest silence of the \
                 broker while it takes one.",
            ),
            key(
                "retry_max_ms",
                integer(100, 600_000),
                Default("30000"),
                "ms",
                "Longest wait between two tries. It begins with 250 ms and doubles; each is made \
                 shorter at random, by up to a half.",
            ),
            key(
                "spool_folder",
                Kind::Path,
                Nothing("\"spool\""),
                "",
                "Folder for batches that find no room in memory, and for those left at the end, which \
                 the next run sends. The sink makes a folder of its name in it.",
            ),
            key(
                "spool_mib",
                integer(1, 16_777_216),
                Default("1024"),
                "MiB",
                "Size of the spool at most.",
            ),
        ]
    };
}

const ALL_TABLES: &str = "[\"windows\", \"flows\", \"apps\", \"path\", \"delays\", \"path_samples\", \
                          \"migrations\", \"alerts\", \"ledger\", \"inventory\", \"vm_usage\", \"taps\"]";
const ALERTS: &str = "[\"alerts\"]";
const FLOWS_ALERTS_APPS: &str = "[\"flows\", \"alerts\", \"apps\"]";
const FLOWS_ALERTS: &str = "[\"flows\", \"alerts\"]";

pub(super) const USER: super::super::document::Key =
    key("user", Kind::Text, Nothing("\"vmprobe\""), "", "User there.");
pub(super) const PASSWORD: super::super::document::Key = key(
    "password",
    Kind::Secret,
    Nothing("\"file:/etc/vmprobe/lake-password\""),
    "",
    "Where the password of that user is; it is read at each connection.",
);
pub(super) const CA_FILE: super::super::document::Key = key(
    "ca_file",
    Kind::Path,
    Default("\"/etc/ssl/certs/ca-certificates.crt\""),
    "",
    "Certificates of the authorities that the destination's certificate is checked with, PEM; for \
     encrypted URLs only.",
);

pub(super) const MECHANISM: super::super::document::Key = key(
    "mechanism",
    Kind::Word(&["scram-sha-512", "scram-sha-256", "plain"]),
    Default("\"scram-sha-512\""),
    "",
    "How the password is shown (SASL), where there is a user.",
);

/// All sinks.
pub(super) static SINK: Table = Table {
    path: "sink",
    meaning: "Where records go beside the store: one table for each destination, by its kind. Sinks can \
              be changed while the probe runs: SIGHUP reads them again.",
    keys: &[
        tables(&CLICKHOUSE, SINKS_MAX),
        tables(&WEBHOOK, SINKS_MAX),
        tables(&SYSLOG, SINKS_MAX),
        tables(&EVE, SINKS_MAX),
        tables(&RABBITMQ, SINKS_MAX),
        tables(&IPFIX, SINKS_MAX),
        tables(&ELASTIC, SINKS_MAX),
        tables(&SPLUNK, SINKS_MAX),
        tables(&KAFKA, SINKS_MAX),
    ],
};

/// Where questions to the records are answered from.
pub(super) static QUERY: Table = Table {
    path: "query",
    meaning: "What answers questions to the records: the API's, and those of `vmprobe query -c FILE` and \
              `vmprobe topology -c FILE`. Without it they are the files of store.folder. \
              docs/sinks/clickhouse.md.",
    keys: &[
        key(
            "clickhouse",
            Kind::Name,
            Nothing("\"lake\""),
            "",
            "Name of a [[sink.clickhouse]], which is asked in place of the files.",
        ),
        key(
            "user",
            Kind::Text,
            Nothing("\"vmprobe_reader\""),
            "",
            "User there who may read the records and nothing else; without it the sink's own.",
        ),
        key(
            "password",
            Kind::Secret,
            Nothing("\"file:/etc/vmprobe/reader-password\""),
            "",
            "Where the password of that user is; it is read at each question.",
        ),
    ],
};

/// Kinds of sinks, as their tables are called.
pub const SINK_KINDS: [&str; 9] =
    ["clickhouse", "webhook", "syslog", "eve", "rabbitmq", "ipfix", "elastic", "splunk", "kafka"];

static CLICKHOUSE: Table = Table {
    path: "sink.clickhouse",
    meaning: "ClickHouse. `vmprobe schema clickhouse --apply` makes its tables. \
              docs/sinks/clickhouse.md.",
    keys: keys![
        name "\"lake\"";
        tables ALL_TABLES, &TABLE;
        batch "100000";
        key(
            "url",
            Kind::Http,
            Required("\"https://clickhouse.example:8443\""),
            "",
            "Its HTTP interface.",
        ),
        USER,
        PASSWORD,
        CA_FILE,
        key("database", Kind::Name, Default("\"vmprobe\""), "", "Database."),
        key(
            "cluster",
            Kind::Name,
            Nothing("\"lake\""),
            "",
            "Cluster, as remote_servers of the server names it. Tables are then made on all of it, and \
             records go through Distributed tables.",
        ),
        key(
            "replicated",
            Kind::Flag,
            Default("false"),
            "",
            "ReplicatedMergeTree instead of MergeTree; the servers need a keeper and the macros shard \
             and replica.",
        ),
        key(
            "ttl_days",
            integer(0, 36_500),
            Default("30"),
            "days",
            "How long records are kept; 0 for ever. `vmprobe schema clickhouse --apply` tells the \
             server.",
        ),
        key(
            "rollup_ttl_days",
            integer(0, 36_500),
            Default("400"),
            "days",
            "How long sums of minutes and hours are kept; 0 for ever.",
        ),
    ],
};

static WEBHOOK: Table = Table {
    path: "sink.webhook",
    meaning: "Signed HTTP requests, for alerts. docs/sinks/webhook.md.",
    keys: keys![
        name "\"pager\"";
        tables ALERTS, &TABLE;
        batch "100";
        key("url", Kind::Http, Required("\"https://hooks.example/vmprobe\""), "", "Where they go."),
        key(
            "secret",
            Kind::Secret,
            Required("\"env:VMPROBE_WEBHOOK_SECRET\""),
            "",
            "Where the key is that requests are signed with (HMAC-SHA-256); it is read for each.",
        ),
        CA_FILE,
    ],
};

static SYSLOG: Table = Table {
    path: "sink.syslog",
    meaning: "Messages by RFC 5424 over TCP or TLS. docs/sinks/syslog.md.",
    keys: keys![
        name "\"siem\"";
        tables ALERTS, &TABLE;
        batch "100";
        key("url", Kind::Stream, Required("\"tls://log.example:6514\""), "", "Where they go."),
        CA_FILE,
        key(
            "format",
            Kind::Word(&["json", "cef"]),
            Default("\"json\""),
            "",
            "What a message says, as JSON or in ArcSight's Common Event Format.",
        ),
    ],
};

static EVE: Table = Table {
    path: "sink.eve",
    meaning: "Lines of JSON with the names of Suricata's EVE. docs/sinks/eve.md.",
    keys: keys![
        name "\"eve\"";
        tables FLOWS_ALERTS_APPS, &EVE_TABLE;
        batch "1000";
        key(
            "path",
            Kind::Path,
            Required("\"/var/log/vmprobe/eve.json\""),
            "",
            "File that lines are added to; a new one is begun where it was moved away. Or a socket.",
        ),
        key(
            "socket",
            Kind::Flag,
            Default("false"),
            "",
            "path is a UNIX stream socket that somebody listens on.",
        ),
    ],
};

static RABBITMQ: Table = Table {
    path: "sink.rabbitmq",
    meaning: "RabbitMQ, one message a record. docs/sinks/rabbitmq.md.",
    keys: keys![
        name "\"bus\"";
        tables FLOWS_ALERTS, &TABLE;
        batch "1000";
        key(
            "url",
            Kind::Broker,
            Required("\"amqps://rabbit.example:5671\""),
            "",
            "The broker.",
        ),
        USER,
        PASSWORD,
        CA_FILE,
        key(
            "exchange",
            Kind::Text,
            Default("\"vmprobe\""),
            "",
            "Topic exchange, which must be there. The routing key is vmprobe.TABLE.",
        ),
    ],
};

static IPFIX: Table = Table {
    path: "sink.ipfix",
    meaning: "A collector of IPFIX (RFC 7011, RFC 5103). docs/sinks/ipfix.md.",
    keys: keys![
        name "\"collector\"";
        tables "[\"flows\", \"taps\"]", &IPFIX_TABLE;
        batch "1000";
        key(
            "url",
            Kind::Collector,
            Required("\"udp://collector.example:4739\""),
            "",
            "Where it listens. By UDP nobody knows what was lost on the way but the collector.",
        ),
        CA_FILE,
        key(
            "enterprise_number",
            integer(1, 4_294_967_295),
            Default("32473"),
            "",
            "Private enterprise number of the elements that IANA has none for. The default is the one for \
             documentation (RFC 5612); take your organisation's where another exporter may use it too.",
        ),
        key(
            "observation_domain_id",
            integer(1, 4_294_967_295),
            Nothing("1"),
            "",
            "Observation Domain. Without it a number derived from probe.id.",
        ),
        key(
            "template_refresh_s",
            integer(1, 86_400),
            Default("60"),
            "s",
            "A template is sent again before its next record after this time; by UDP only.",
        ),
        key(
            "template_refresh_messages",
            integer(1, 1_000_000),
            Default("1000"),
            "messages",
            "The same after so many messages.",
        ),
        key(
            "message_octets_max",
            integer(1_280, 65_535),
            Default("1420"),
            "octets",
            "Length of a message at most. By UDP it must fit the way's MTU with the headers of IP and UDP \
             (28 or 48 octets). A text that makes a record longer is cut.",
        ),
    ],
};

static ELASTIC: Table = Table {
    path: "sink.elastic",
    meaning: "Elasticsearch, or what speaks its _bulk, with names of ECS. docs/sinks/elastic.md.",
    keys: keys![
        name "\"elastic\"";
        tables FLOWS_ALERTS, &TABLE;
        batch "1000";
        key("url", Kind::Http, Required("\"https://elastic.example:9200\""), "", "Its HTTP interface."),
        USER,
        PASSWORD,
        key(
            "api_key",
            Kind::Secret,
            Nothing("\"file:/etc/vmprobe/elastic-key\""),
            "",
            "Where an API key is (the encoded form), instead of user and password.",
        ),
        CA_FILE,
        key(
            "index",
            Kind::Name,
            Default("\"vmprobe\""),
            "",
            "Beginning of the names of indices or data streams: NAME-TABLE.",
        ),
    ],
};

static SPLUNK: Table = Table {
    path: "sink.splunk",
    meaning: "Splunk's HTTP Event Collector. docs/sinks/splunk.md.",
    keys: keys![
        name "\"splunk\"";
        tables FLOWS_ALERTS, &TABLE;
        batch "1000";
        key(
            "url",
            Kind::Http,
            Required("\"https://splunk.example:8088\""),
            "",
            "The collector, without /services/collector.",
        ),
        key(
            "token",
            Kind::Secret,
            Required("\"file:/etc/vmprobe/hec-token\""),
            "",
            "Where its token is; it is read for each request.",
        ),
        CA_FILE,
        key("index", Kind::Name, Nothing("\"network\""), "", "Index; without it the token's own."),
        key(
            "acknowledge",
            Kind::Flag,
            Default("false"),
            "",
            "A batch counts as delivered when it is indexed. The token must have indexer acknowledgement.",
        ),
    ],
};

/// Addresses of Kafka brokers that are asked first, at most.
pub(super) const BROKERS_MAX: usize = 64;

static KAFKA: Table = Table {
    path: "sink.kafka",
    meaning: "Kafka, one topic a table, one message a record. docs/sinks/kafka.md.",
    keys: keys![
        name "\"kafka\"";
        tables ALL_TABLES, &TABLE;
        batch "5000";
        key(
            "brokers",
            Kind::List(&Kind::Stream, BROKERS_MAX),
            Required("[\"tls://kafka1.example:9093\", \"tls://kafka2.example:9093\"]"),
            "",
            "Brokers that are asked for all others; all with TLS or all without.",
        ),
        USER,
        PASSWORD,
        MECHANISM,
        CA_FILE,
        key(
            "topic_prefix",
            Kind::Name,
            Default("\"vmprobe.\""),
            "",
            "What stands before the table's name in the name of its topic.",
        ),
        key(
            "format",
            Kind::Word(&["json", "protobuf"]),
            Default("\"json\""),
            "",
            "Form of a message; `vmprobe schema protobuf` prints what protobuf needs.",
        ),
        key(
            "compression",
            Kind::Word(&["zstd", "lz4", "none"]),
            Default("\"zstd\""),
            "",
            "How the producer compresses what it sends together.",
        ),
    ],
};
