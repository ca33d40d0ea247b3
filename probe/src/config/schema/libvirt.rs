//! Keys of `[[inventory.libvirt]]`.

use super::super::document::Given::{Default, Derived, Required};
use super::super::document::{Kind, Table, key};
use super::integer;

/// Hosts at most.
pub const LIBVIRT_MAX: usize = 48;

pub(super) static LIBVIRT: Table = Table {
    path: "inventory.libvirt",
    meaning: "libvirt on a host: its domains with their interfaces, what happens to them, and what \
              they use. docs/sources/libvirt.md says more. Used by `vmprobe run` only.",
    keys: &[
        key(
            "name",
            Kind::Name,
            Required("\"host1\""),
            "",
            "Unique name; the source is shown as libvirt:NAME.",
        ),
        key(
            "uri",
            Kind::Text,
            Required("\"qemu+tls://host1.example/system\""),
            "",
            "Where libvirt is, as libvirt itself writes it. It is only read.",
        ),
        key(
            "host",
            Kind::Text,
            Derived("\"host1\"", "what libvirt says its host is called"),
            "",
            "Host that its domains run on, as other sources and the taps name it.",
        ),
        key(
            "program",
            Kind::Path,
            Default("\"virsh\""),
            "",
            "libvirt's own program for commands, which does the asking (Debian: libvirt-clients).",
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
            "Whether the VLAN tag of an interface, where a domain has one, names its segment.",
        ),
        key(
            "tenant",
            Kind::Word(&["name", "id"]),
            Default("\"name\""),
            "",
            "What a tenant is called, of domains that Nova has made: name or id of their project.",
        ),
        key(
            "read_s",
            integer(1, 86_400),
            Default("60"),
            "s",
            "All domains are read again after this time, although libvirt told of no event.",
        ),
        key(
            "usage_s",
            integer(0, 3_600),
            Default("10"),
            "s",
            "How often CPU time, memory and drops of virtual interfaces are read. 0: never.",
        ),
        key(
            "timeout_ms",
            integer(100, 600_000),
            Default("10000"),
            "ms",
            "Longest time for an answer; what takes longer is ended.",
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
            Default("90000"),
            "ms",
            "Silence after which the source is shown as stale; more than read_s.",
        ),
        key(
            "vms_max",
            integer(1, 16_384),
            Default("1024"),
            "domains",
            "Domains of the host at most; of more, none beyond these are read.",
        ),
    ],
};
