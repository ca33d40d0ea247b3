//! Keys of `[[inventory.ovsdb]]`.

use super::super::document::Given::{Default, Derived, Nothing, Required};
use super::super::document::{Kind, Table, key};
use super::integer;

/// Databases of switches at most.
pub const OVSDB_MAX: usize = 32;

pub(super) static OVSDB: Table = Table {
    path: "inventory.ovsdb",
    meaning: "The database of an Open vSwitch: which VMs are plugged into which of its ports, and \
              what is mirrored. docs/sources/ovsdb.md says more. Used by `vmprobe run` only.",
    keys: &[
        key(
            "name",
            Kind::Name,
            Required("\"host1\""),
            "",
            "Unique name; the source is shown as ovsdb:NAME.",
        ),
        key(
            "address",
            Kind::Ovsdb,
            Required("\"unix:/run/openvswitch/db.sock\""),
            "",
            "Where its ovsdb-server listens.",
        ),
        key(
            "host",
            Kind::Text,
            Derived(
                "\"host1\"",
                "external_ids:hostname of the bridge, else of the switch, else its system-id",
            ),
            "",
            "Host that its ports are on, as other sources and the taps name it.",
        ),
        key(
            "domain",
            Kind::Name,
            Default("\"default\""),
            "",
            "Domain of the segments of its VLANs.",
        ),
        key(
            "vlan_segments",
            Kind::Flag,
            Default("true"),
            "",
            "Whether the VLAN tag of a port names the segment of the VM on it. Not where tags mean \
             something else on each host and mirrored packets carry another header (OpenStack's \
             br-int seen from outside).",
        ),
        key(
            "ca_file",
            Kind::Path,
            Nothing("\"/etc/vmprobe/cacert.pem\""),
            "",
            "Certificates of the authorities that the server's certificate is checked with, PEM. \
             Needed for ssl:. Read again at each connection.",
        ),
        key(
            "certificate_file",
            Kind::Path,
            Nothing("\"/etc/vmprobe/probe-cert.pem\""),
            "",
            "This probe's certificate, PEM, for servers that ask for one (ovsdb-server does).",
        ),
        key(
            "key_file",
            Kind::Path,
            Nothing("\"/etc/vmprobe/probe-privkey.pem\""),
            "",
            "The private key of that certificate, PEM, without a password.",
        ),
        key(
            "check_name",
            Kind::Flag,
            Default("true"),
            "",
            "Whether the server's certificate must have the server's name or address in it. False: \
             any certificate of these authorities will do, as with Open vSwitch's own programs.",
        ),
        key(
            "server_name",
            Kind::Text,
            Derived("\"switch-1.example\"", "the host of address"),
            "",
            "The name that must stand in the server's certificate.",
        ),
        key(
            "timeout_ms",
            integer(100, 600_000),
            Default("10000"),
            "ms",
            "Longest time for a connection to be made, and for an answer to come.",
        ),
        key(
            "echo_ms",
            integer(100, 600_000),
            Default("5000"),
            "ms",
            "After so long a silence the server is asked whether it is there.",
        ),
        key(
            "retry_max_ms",
            integer(1_000, 60_000),
            Default("8000"),
            "ms",
            "Longest wait between two tries to connect. It begins with a second and doubles; each is \
             made longer or shorter at random, by up to a quarter.",
        ),
        key(
            "stale_after_ms",
            integer(1_000, 3_600_000),
            Default("20000"),
            "ms",
            "Silence after which the source is shown as stale; more than echo_ms.",
        ),
        key(
            "message_mib_max",
            integer(1, 256),
            Default("16"),
            "MiB",
            "Longest message that is read; the first one holds all ports of the switch.",
        ),
        key(
            "rows_max",
            integer(100, 1_000_000),
            Default("100000"),
            "rows",
            "Interfaces, ports, bridges and mirrors together at most.",
        ),
    ],
};
