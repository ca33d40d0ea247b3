//! Keys of `[inventory]`.

use super::super::document::Given::{Default, Derived, Nothing};
use super::super::document::{Kind, Table, key, table, tables};
use super::integer;
use super::learned::LEARNED;
use super::libvirt::{LIBVIRT, LIBVIRT_MAX};
use super::openstack::{OPENSTACK, OPENSTACK_MAX};
use super::ovsdb::{OVSDB, OVSDB_MAX};

pub(super) static INVENTORY: Table = Table {
    path: "inventory",
    meaning: "Who is who.",
    keys: &[
        key(
            "file",
            Kind::Path,
            Nothing("\"inventory.toml\""),
            "",
            "TOML file with tenants and VMs, or JSON if its name ends so; read again when it changes \
             and on SIGHUP; a wrong one changes nothing. Relative paths begin at this file's folder.",
        ),
        key(
            "api",
            Kind::Flag,
            Default("false"),
            "",
            "Whether requests to the HTTP API may change the inventory.",
        ),
        key(
            "journal",
            Kind::Path,
            Derived(
                "\"data/inventory.journal\"",
                "inventory.journal in store.folder; none without that folder",
            ),
            "",
            "File that keeps what the inventory knows over a restart of `vmprobe run`. docs/inventory.md \
             says what it holds.",
        ),
        key(
            "journal_mib_max",
            integer(0, 65_536),
            Default("256"),
            "MiB",
            "Size of that file at most; the state alone may take half of it. 0: no journal.",
        ),
        key(
            "precedence",
            Kind::List(&SOURCE, 6),
            Default("[\"api\", \"file\", \"openstack\", \"libvirt\", \"ovsdb\", \"learned\"]"),
            "",
            "Whose word counts where sources contradict each other, the first one most; those that \
             are left out follow in the order of the default.",
        ),
        key(
            "clock_skew_max_ms",
            integer(0, 86_400_000),
            Default("5000"),
            "ms",
            "How far ahead of this machine's clock a source may date what it says; what is dated \
             beyond it counts from when it became known. File and API may speak of the future.",
        ),
        key(
            "vms_max",
            integer(1, 1_000_000),
            Default("100000"),
            "VMs",
            "VMs that are known at most; beyond it those that ended longest ago are forgotten, then \
             new ones are left out.",
        ),
        key(
            "facts_per_vm_max",
            integer(64, 65_536),
            Default("1024"),
            "facts",
            "Facts of one VM that are kept in memory at most, those known to be otherwise included; \
             the oldest of these are forgotten first.",
        ),
        key(
            "home_networks",
            Kind::List(&Kind::Network, 1_024),
            Default("[]"),
            "",
            "Networks that count as inside although no VM is named there.",
        ),
        key(
            "shared_tenants",
            Kind::List(&Kind::Text, 1_024),
            Default("[]"),
            "",
            "Tenants whose VMs serve all others (DNS, NTP): traffic with them is east-west, not \
             inter-tenant.",
        ),
        key(
            "shared_networks",
            Kind::List(&Kind::Network, 1_024),
            Default("[]"),
            "",
            "The same by address, in every address space: services that are no VM, such as \
             169.254.169.254/32.",
        ),
        table(&LEARNED),
        tables(&OPENSTACK, OPENSTACK_MAX),
        tables(&LIBVIRT, LIBVIRT_MAX),
        tables(&OVSDB, OVSDB_MAX),
    ],
};

static SOURCE: Kind = Kind::Word(&["api", "file", "openstack", "libvirt", "ovsdb", "learned"]);
