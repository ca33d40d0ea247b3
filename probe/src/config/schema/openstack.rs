//! Keys of `[[inventory.openstack]]`.

use super::super::document::Given::{Default, Derived, Nothing, Required};
use super::super::document::{Kind, Table, key};
use super::integer;

/// Clouds at most.
pub const OPENSTACK_MAX: usize = 8;

pub(super) static OPENSTACK: Table = Table {
    path: "inventory.openstack",
    meaning: "Notifications of an OpenStack cloud, from its message bus: instances of Nova, ports, \
              networks and routers of Neutron. docs/sources/openstack.md says what the services must \
              be told. Used by `vmprobe run` only.",
    keys: &[
        key(
            "name",
            Kind::Name,
            Required("\"cloud1\""),
            "",
            "Unique name; the source is shown as openstack:NAME.",
        ),
        key(
            "urls",
            Kind::List(&Kind::Broker, 16),
            Required("[\"amqps://rabbit1.example:5671\"]"),
            "",
            "Brokers of the cloud (RabbitMQ), one or all of a cluster: where one fails, the next is \
             tried.",
        ),
        key("user", Kind::Text, Default("\"guest\""), "", "User at the broker."),
        key(
            "password",
            Kind::Text,
            Nothing("\"change me\""),
            "",
            "Password of that user; better in a file of its own, which counts where both are given. Without \
             either: guest.",
        ),
        key(
            "password_file",
            Kind::Path,
            Nothing("\"/etc/vmprobe/rabbit-password\""),
            "",
            "File whose first line is the password, read at each connection.",
        ),
        key(
            "ca_file",
            Kind::Path,
            Default("\"/etc/ssl/certs/ca-certificates.crt\""),
            "",
            "Certificates of the authorities that a broker's certificate is checked with, PEM; for \
             amqps only. Read again at each connection.",
        ),
        key(
            "exchanges",
            Kind::List(&Kind::Text, 32),
            Default("[\"nova\", \"neutron\", \"openstack\"]"),
            "",
            "Exchanges that services publish to (their control_exchange). One that is not there yet \
             is tried again; the probe makes none.",
        ),
        key(
            "topics",
            Kind::List(&Kind::Text, 32),
            Default("[\"notifications.info\", \"versioned_notifications.info\"]"),
            "",
            "Routing keys of notifications: topic and priority.",
        ),
        key(
            "queue",
            Kind::Text,
            Derived("\"vmprobe-cloud1\"", "vmprobe- and the name"),
            "",
            "The probe's own queue, which gets copies, so that nobody else misses a notification. \
             Each probe needs another one.",
        ),
        key(
            "queue_messages_max",
            integer(100, 10_000_000),
            Default("100000"),
            "notifications",
            "What the queue keeps at most while the probe is away; then the oldest are dropped.",
        ),
        key(
            "queue_expires_s",
            integer(60, 2_592_000),
            Default("86400"),
            "s",
            "How long the broker keeps the queue while the probe is away.",
        ),
        key(
            "prefetch",
            integer(1, 10_000),
            Default("256"),
            "notifications",
            "Notifications under way to the probe at most.",
        ),
        key(
            "message_bytes_max",
            integer(1_024, 16_777_216),
            Default("1048576"),
            "bytes",
            "Largest notification that is read; a larger one is counted and left out.",
        ),
        key(
            "heartbeat_s",
            integer(1, 600),
            Default("20"),
            "s",
            "Heartbeat of the connection; it counts as broken after two of them without a sign of the \
             broker.",
        ),
        key(
            "timeout_ms",
            integer(100, 600_000),
            Default("10000"),
            "ms",
            "Longest time for a connection to be made.",
        ),
        key(
            "retry_max_ms",
            integer(1_000, 60_000),
            Default("30000"),
            "ms",
            "Longest wait between two tries to connect. It begins with a second and doubles; each is \
             made shorter at random, by up to a half.",
        ),
        key(
            "stale_after_ms",
            integer(5_000, 3_600_000),
            Default("60000"),
            "ms",
            "Silence of the broker after which the source is shown as stale; it is asked every 5 s.",
        ),
        key(
            "domain",
            Kind::Name,
            Default("\"default\""),
            "",
            "Domain of the cloud's segments, one of segments.domains.",
        ),
        key(
            "physical_domains",
            Kind::List(&Kind::Text, 256),
            Nothing("[\"physnet2=default\"]"),
            "",
            "PHYSICAL_NETWORK=DOMAIN for VLAN and flat networks on a physical network of another \
             domain: the same VLAN id on two physical networks is two segments.",
        ),
        key(
            "tenant",
            Kind::Word(&["name", "id"]),
            Default("\"name\""),
            "",
            "What a tenant is called: name of the project where a notification has shown it, else its \
             id; or always its id.",
        ),
    ],
};
