//! Keys of `[inventory.learned]`.

use super::super::document::Given::Default;
use super::super::document::{Kind, Table, key};
use super::integer;

pub(super) static LEARNED: Table = Table {
    path: "inventory.learned",
    meaning: "Who has which address, learned from ARP, neighbour discovery and DHCP in the mirrored \
              packets, for what no other source names. docs/sources/learned.md says more.",
    keys: &[
        key("enabled", Kind::Flag, Default("false"), "", "Whether anything is learned."),
        key(
            "protocols",
            Kind::List(&PROTOCOL, 3),
            Default("[\"arp\", \"nd\", \"dhcp\"]"),
            "",
            "Learned from: ARP; neighbour discovery of IPv6; DHCP of IPv4 and IPv6.",
        ),
        key(
            "networks",
            Kind::List(&Kind::Network, 1_024),
            Default("[]"),
            "",
            "Only addresses in these networks are learned; with none, all.",
        ),
        key(
            "silence_s",
            integer(60, 604_800),
            Default("14400"),
            "s",
            "An address is nobody's any more when nothing was learned of it for so long, and its lease, \
             where DHCP gave it one, is over.",
        ),
        key(
            "addresses_max",
            integer(16, 1_048_576),
            Default("32768"),
            "addresses",
            "Learned addresses at most; a new one beyond is left out.",
        ),
        key(
            "addresses_per_segment_max",
            integer(1, 1_048_576),
            Default("4096"),
            "addresses",
            "The same of one segment, so that one tenant cannot take the room of all.",
        ),
        key(
            "addresses_per_mac_max",
            integer(1, 32),
            Default("16"),
            "addresses",
            "The same of one MAC address in one segment; who answers for more is a router.",
        ),
        key(
            "stale_after_ms",
            integer(5_000, 3_600_000),
            Default("600000"),
            "ms",
            "Silence of all these protocols after which the source is shown as stale.",
        ),
    ],
};

static PROTOCOL: Kind = Kind::Word(&["arp", "nd", "dhcp"]);
