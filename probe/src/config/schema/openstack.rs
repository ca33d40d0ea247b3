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
        key(
            "api_auth",
            Kind::Word(&["off", "password", "application_credential", "none"]),
            Default("\"off\""),
            "",
            "Whether what is there is listed from the APIs of Neutron and Nova at each connection, and how the \
             probe says who it is: with a password or an application credential at Keystone, or not at \
             all (services with auth_strategy noauth). off: only notifications are heard.",
        ),
        key(
            "api_identity_url",
            Kind::Service,
            Nothing("\"https://keystone.example:5000/v3\""),
            "",
            "Keystone, version 3. Needed with a password or an application credential.",
        ),
        key(
            "api_network_url",
            Kind::Service,
            Derived("\"http://neutron.example:9696\"", "as the catalogue of Keystone says"),
            "",
            "Neutron. Without Keystone, it is not asked unless this is given.",
        ),
        key(
            "api_compute_url",
            Kind::Service,
            Derived("\"http://nova.example:8774/v2.1\"", "as the catalogue of Keystone says"),
            "",
            "Nova, likewise.",
        ),
        key(
            "api_region",
            Kind::Text,
            Nothing("\"RegionOne\""),
            "",
            "Region in the catalogue; without it the first one of a service.",
        ),
        key(
            "api_interface",
            Kind::Word(&["public", "internal", "admin"]),
            Default("\"public\""),
            "",
            "Which of the catalogue's endpoints is asked.",
        ),
        key(
            "api_user",
            Kind::Text,
            Nothing("\"vmprobe\""),
            "",
            "User, with a password. It must see all projects (role reader or admin, by the policies of the \
             cloud).",
        ),
        key("api_user_domain", Kind::Text, Default("\"Default\""), "", "Domain of that user."),
        key("api_project", Kind::Text, Nothing("\"admin\""), "", "Project of that user's roles."),
        key(
            "api_project_domain",
            Kind::Text,
            Default("\"Default\""),
            "",
            "Domain of that project.",
        ),
        key(
            "api_credential_id",
            Kind::Text,
            Nothing("\"423f19a4ac1e4f48bbb4180756e6eb6c\""),
            "",
            "Id of the application credential.",
        ),
        key(
            "api_secret",
            Kind::Secret,
            Nothing("\"file:/etc/vmprobe/cloud-secret\""),
            "",
            "Where the password, or the application credential's secret, is. Read at each listing.",
        ),
        key(
            "api_ca_file",
            Kind::Path,
            Default("\"/etc/ssl/certs/ca-certificates.crt\""),
            "",
            "Certificates of the authorities that the services' certificates are checked with, PEM; for \
             https only. Read at each listing.",
        ),
        key(
            "api_timeout_ms",
            integer(100, 600_000),
            Default("30000"),
            "ms",
            "Longest time for one answer, connection included.",
        ),
        key(
            "api_again_s",
            integer(0, 604_800),
            Default("3600"),
            "s",
            "Time between two lists of one connection, for what no notification tells (subports of a trunk) or \
             one was missed of; 0: only at each connection.",
        ),
        key(
            "api_page_items",
            integer(1, 100_000),
            Default("500"),
            "items",
            "Items asked for at once; the services may give less.",
        ),
        key(
            "api_answer_mib_max",
            integer(1, 1_024),
            Default("64"),
            "MiB",
            "Largest answer that is read.",
        ),
        key(
            "api_list_timeout_s",
            integer(1, 1_500),
            Default("600"),
            "s",
            "Longest time for one list, of all its answers. Notifications wait in the queue meanwhile.",
        ),
        key(
            "api_list_mib_max",
            integer(1, 16_384),
            Default("512"),
            "MiB",
            "What the answers of one list may have together; in memory they take several times as much.",
        ),
    ],
};
