//! What may be written in a configuration file: every key with its type, range, default, unit
//! and meaning.
//!
//! In: nothing. Out: [`ROOT`]. The reading, the checks, the reference file `config/vmprobe.toml`
//! and the documentation come from this one table; the defaults are those of [`super::Plan`],
//! which a test compares.

use super::document::Given::{Default, Derived, Nothing, Required};
use super::document::{Kind, Table, key, table, tables};
use super::plan::FlowPlan;
use correlate::CORRELATE;
use inventory::INVENTORY;
use otlp::OTLP;
use sink::{QUERY, SINK};

pub use libvirt::LIBVIRT_MAX;
pub use openstack::OPENSTACK_MAX;
pub use ovsdb::OVSDB_MAX;
pub use sink::{SEVERITIES, SINK_KINDS, SINKS_MAX, TABLES as SINK_TABLES};

mod correlate;
mod inventory;
mod learned;
mod libvirt;
mod openstack;
mod otlp;
mod ovsdb;
mod sink;

/// Ports at most (`RTE_MAX_ETHPORTS` of DPDK 22.11 as Debian builds it).
pub const PORTS_MAX: usize = 32;
/// Workers at most, and RX queues of all ports.
pub const WORKERS_MAX: u64 = 64;
/// Configured taps at most.
pub const TAPS_MAX: usize = 1_024;
/// Filters at most: each is asked for each packet.
pub const FILTERS_MAX: usize = 256;
/// Joined address spaces at most.
pub const SPACES_MAX: usize = 16_384;
/// Segments of one joined address space at most.
pub const SPACE_SEGMENTS_MAX: usize = 4_096;
/// Longest window, and what every length divides, in milliseconds.
pub const HOUR_MS: u64 = 3_600_000;

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn power(min: u64, max: u64) -> Kind {
    Kind::PowerOfTwo { min, max }
}

const PROBABILITY: Kind = Kind::Number { above: 0.0, below: 1.0 };
const UDP_PORTS: Kind = Kind::List(&integer(1, 65_535), 16);

/// The whole file.
pub static ROOT: Table = Table {
    path: "",
    meaning: "",
    keys: &[
        table(&PROBE),
        table(&EAL),
        tables(&PORT, PORTS_MAX),
        table(&WORKER),
        tables(&TAP, TAPS_MAX),
        tables(&FILTER, FILTERS_MAX),
        table(&SEGMENTS),
        tables(&SPACE, SPACES_MAX),
        table(&DECODE),
        table(&COPIES),
        table(&PATH),
        table(&FLOW),
        table(&APP),
        table(&WINDOW),
        table(&SHED),
        table(&DETECT),
        table(&INVENTORY),
        table(&STORE),
        table(&SINK),
        table(&QUERY),
        table(&CORRELATE),
        table(&SERVE),
        table(&OTLP),
    ],
};

static PROBE: Table = Table {
    path: "probe",
    meaning: "Who this probe is.",
    keys: &[
        key("id", Kind::Name, Default("\"probe\""), "", "Probe id, which stands in every record."),
        key(
            "domain",
            Kind::Name,
            Default("\"default\""),
            "",
            "Domain of probes that share taps, digests and secrets.",
        ),
    ],
};

static EAL: Table = Table {
    path: "eal",
    meaning: "DPDK's environment. Used by `vmprobe run` only.",
    keys: &[
        key(
            "cores",
            Kind::List(&integer(0, 4_095), 64),
            Default("[]"),
            "CPU numbers",
            "CPU cores for workers: worker i runs on the i-th. Empty: the cores that this process \
             may use, but the last one where there are more than one is left to the rest.",
        ),
        key(
            "memory_mib",
            integer(64, 1_048_576),
            Default("512"),
            "MiB",
            "Memory for packets and descriptors.",
        ),
        key(
            "huge_pages",
            Kind::Flag,
            Default("true"),
            "",
            "Use huge pages. Without them packets are received all the same, more slowly.",
        ),
        key(
            "huge_folder",
            Kind::Path,
            Nothing("\"/dev/hugepages\""),
            "",
            "Folder of a mounted hugetlbfs, if not the one that DPDK finds.",
        ),
        key(
            "file_prefix",
            Kind::Name,
            Default("\"vmprobe\""),
            "",
            "Prefix of this process's DPDK files. Several probes on one machine need different \
             ones.",
        ),
        key(
            "extra_arguments",
            Kind::List(&Kind::Text, 64),
            Default("[]"),
            "",
            "Further EAL arguments, given as they are.",
        ),
    ],
};

static PORT: Table = Table {
    path: "port",
    meaning: "A port that packets come in by; one table each. `vmprobe run` needs at least one, \
              `vmprobe replay` reads files instead.",
    keys: &[
        key(
            "name",
            Kind::Name,
            Required("\"port0\""),
            "",
            "Name in records and taps; each port has its own.",
        ),
        key(
            "device",
            Kind::Device,
            Required("\"net_null0,no-rx=1\""),
            "",
            "What DPDK opens. This example receives nothing and needs no hardware.",
        ),
        key("queues", integer(1, WORKERS_MAX), Default("1"), "", "RX queues, one worker each."),
        key(
            "descriptors",
            power(64, 32_768),
            Default("1024"),
            "",
            "RX descriptors of a queue: packets that may wait for the worker.",
        ),
        key(
            "frame_octets_max",
            integer(64, 65_535),
            Default("1518"),
            "octets without FCS",
            "Largest frame. Above 1518 the port receives jumbo frames, in several segments where \
             need be. A mirror tunnel makes frames larger by its own headers.",
        ),
        key("promiscuous", Kind::Flag, Default("true"), "", "Receive what is sent to others."),
        key(
            "vlan_strip",
            Kind::Flag,
            Default("false"),
            "",
            "Let the NIC take VLAN tags off; the tag is then read from the descriptor.",
        ),
        key(
            "hardware_timestamp",
            Kind::Flag,
            Default("true"),
            "",
            "Use the NIC's own receive time where it has one.",
        ),
        key(
            "mbufs",
            integer(256, 8_388_608),
            Default("16384"),
            "buffers",
            "Packet buffers of the port: for each queue at least its descriptors, a burst, and 384 \
             that the worker's cache may hold.",
        ),
    ],
};

static WORKER: Table = Table {
    path: "worker",
    meaning: "Workers, and how packets are spread between them.",
    keys: &[
        key(
            "count",
            integer(0, WORKERS_MAX),
            Default("0"),
            "",
            "Workers. 0: one for each RX queue (run) or one (replay). Above the number of queues, \
             the further ones own flows only.",
        ),
        key(
            "burst_packets",
            integer(1, 256),
            Default("32"),
            "packets",
            "Packets taken in one poll.",
        ),
        key(
            "spread",
            Kind::Word(&["auto", "never"]),
            Default("\"auto\""),
            "",
            "When packets are passed on to the worker that owns their flow. auto: where there is \
             more than one worker. never: the network card already brings both directions and all \
             copies of a flow to one queue.",
        ),
        key(
            "spread_ring_packets",
            power(64, 1_048_576),
            Default("4096"),
            "packets",
            "Room of a ring between two workers.",
        ),
        key(
            "spread_hold_us",
            integer(0, 1_000_000),
            Default("200"),
            "microseconds",
            "Longest wait of a packet for older ones from other workers.",
        ),
    ],
};

static MATCH: Table = Table {
    path: "tap.match",
    meaning: "What of a frame names the tap.",
    keys: &[
        key(
            "port",
            Kind::Text,
            Nothing("\"port0\""),
            "",
            "Name of the port; in a replay, of the file or the pcapng interface.",
        ),
        key(
            "vlan",
            integer(1, 4_094),
            Nothing("100"),
            "",
            "Outer VLAN id of an RSPAN mirror; the tag is taken off.",
        ),
        key("erspan_session", integer(0, 1_023), Nothing("7"), "", "ERSPAN session id."),
        key(
            "gre_key",
            integer(0, 4_294_967_295),
            Nothing("7"),
            "",
            "Key of a GRE mirror; the tunnel is then mirror, not overlay.",
        ),
        key(
            "vxlan_vni",
            integer(0, 16_777_215),
            Nothing("7"),
            "",
            "VNI of a VXLAN mirror; the tunnel is then mirror, not overlay.",
        ),
        key(
            "outer_source",
            Kind::Address,
            Nothing("\"192.0.2.1\""),
            "",
            "Outer source address of a mirror tunnel.",
        ),
    ],
};

static TAP: Table = Table {
    path: "tap",
    meaning: "A place where packets are copied (Observation Point); one table each. What no tap \
              claims belongs to a tap with the port's name.",
    keys: &[
        key(
            "name",
            Kind::Name,
            Required("\"rack1\""),
            "",
            "Name in records; each tap has its own.",
        ),
        key(
            "match",
            Kind::Table(&MATCH),
            Nothing("{ port = \"port0\", vlan = 100 }"),
            "",
            "What of a frame names the tap; all that is given must hold.",
        ),
        key(
            "host",
            Kind::Text,
            Nothing("\"host1\""),
            "",
            "Host that the tap stands on, as the inventory names it.",
        ),
        key(
            "switch",
            Kind::Text,
            Nothing("\"host1/br0\""),
            "",
            "Switch that it copies from, as the inventory names it; a bridge of a host is \
             HOST/BRIDGE.",
        ),
        key(
            "direction",
            Kind::Word(&["both", "ingress", "egress"]),
            Nothing("\"both\""),
            "",
            "What the tap copies, seen from what it stands on. both: a packet between two \
             mirrored ports is copied twice, so tap.duplicates is true unless it is given.",
        ),
        key(
            "domain",
            Kind::Name,
            Default("\"default\""),
            "",
            "Domain of the segments seen there, one of segments.domains.",
        ),
        key(
            "duplicates",
            Kind::Flag,
            Derived("false", "true where tap.direction is both, else false"),
            "",
            "Copies arrive twice by construction, so equal ones are duplicates.",
        ),
        key(
            "segment",
            Kind::Segment,
            Nothing("\"default/vlan/42\""),
            "",
            "Segment of all packets of this tap, where the mirror hides it (RSPAN replaces the \
             tenant's tag).",
        ),
    ],
};

static FILTER: Table = Table {
    path: "filter",
    meaning: "Packets to leave out, counted as `filtered`; one table each. All that is given must \
              hold, addresses and ports in either direction; at least one condition is needed.",
    keys: &[
        key("tap", Kind::Name, Nothing("\"rack1\""), "", "Name of a tap."),
        key("vlan", integer(1, 4_094), Nothing("42"), "", "VLAN id of the segment."),
        key(
            "network",
            Kind::Network,
            Nothing("\"10.99.0.0/16\""),
            "",
            "Network that either address lies in.",
        ),
        key("port", integer(1, 65_535), Nothing("3260"), "", "Either port."),
        key("protocol", integer(0, 255), Nothing("6"), "", "Protocol number (IANA)."),
    ],
};

static SEGMENTS: Table = Table {
    path: "segments",
    meaning: "Tenant networks, written domain/kind/id: default/none, default/vlan/42, \
              default/qinq/10.20, default/vxlan/4242, with kinds none, vlan, qinq, vxlan, geneve, \
              nvgre, gre, mpls, pbb, gtp.",
    keys: &[key(
        "domains",
        Kind::List(&Kind::Name, 256),
        Default("[\"default\"]"),
        "",
        "Names of domains: the same id in two domains is two segments. The first is always \
         default.",
    )],
};

static SPACE: Table = Table {
    path: "space",
    meaning: "Segments between which packets are routed, so that addresses are unique among them \
              (a tenant's router, a VRF); one table each. A segment that stands in none is an \
              address space of its own.",
    keys: &[
        key("name", Kind::Name, Required("\"tenant-a\""), "", "Name; each space has its own."),
        key(
            "segments",
            Kind::List(&Kind::Segment, SPACE_SEGMENTS_MAX),
            Required("[\"default/vxlan/4242\", \"default/vxlan/4711\"]"),
            "",
            "The segments joined. Each stands in one space at most.",
        ),
    ],
};

static DECODE: Table = Table {
    path: "decode",
    meaning: "The decoder.",
    keys: &[
        key("depth_max", integer(1, 8), Default("4"), "", "Nested tunnels taken off at most."),
        key("vxlan_ports", UDP_PORTS, Default("[4789, 8472]"), "", "UDP ports of VXLAN."),
        key("vxlan_gpe_ports", UDP_PORTS, Default("[4790]"), "", "UDP ports of VXLAN-GPE."),
        key("geneve_ports", UDP_PORTS, Default("[6081]"), "", "UDP ports of GENEVE."),
        key("gtp_ports", UDP_PORTS, Default("[2152]"), "", "UDP ports of GTP-U."),
        key("mpls_ports", UDP_PORTS, Default("[6635]"), "", "UDP ports of MPLS in UDP."),
        key("gre_ports", UDP_PORTS, Default("[4754]"), "", "UDP ports of GRE in UDP."),
        key(
            "teredo_ports",
            UDP_PORTS,
            Default("[3544]"),
            "",
            "UDP ports of Teredo servers; at either end of a datagram.",
        ),
        key(
            "capwap_ports",
            UDP_PORTS,
            Default("[5247]"),
            "",
            "UDP ports of CAPWAP data at the controller; at either end of a datagram.",
        ),
        key(
            "nvgre",
            Kind::Flag,
            Default("false"),
            "",
            "Read the GRE key of Ethernet in GRE as NVGRE (24 bits of VSID) instead of a 32-bit \
             key.",
        ),
        key(
            "mpls_segments",
            Kind::Flag,
            Default("false"),
            "",
            "MPLS bottom labels name segments. In most networks they differ by direction and do \
             not.",
        ),
        key(
            "gtp_segments",
            Kind::Flag,
            Default("false"),
            "",
            "GTP-U tunnel endpoint ids name segments. Each direction of a session has its own.",
        ),
        key(
            "fragment_slots",
            power(64, 1_048_576),
            Default("4096"),
            "datagrams",
            "Fragmented datagrams remembered by each worker.",
        ),
        key(
            "fragment_timeout_ms",
            integer(100, 300_000),
            Default("30000"),
            "milliseconds",
            "How long fragments wait for the first one of their datagram. Its ports are remembered \
             for a second after its newest fragment, and no longer than this.",
        ),
    ],
};

static COPIES: Table = Table {
    path: "copies",
    meaning: "Copies of one packet: from two taps, or twice from one.",
    keys: &[
        key(
            "remove",
            Kind::Flag,
            Derived("true", "true, but false in a replay without taps"),
            "",
            "Take duplicates and copies of other taps out of the traffic. false: mark and count \
             them only.",
        ),
        key(
            "window_ms",
            integer(1, 10_000),
            Default("5"),
            "milliseconds",
            "Equal packets of one tap within this time are duplicates.",
        ),
        key(
            "path_window_ms",
            integer(1, 60_000),
            Default("100"),
            "milliseconds",
            "The same packet at another tap within this time is a path sample.",
        ),
        key(
            "slots",
            power(1_024, 67_108_864),
            Default("65536"),
            "digests",
            "Packets remembered by each worker.",
        ),
        key(
            "digest_payload_octets",
            integer(0, 16),
            Default("16"),
            "octets",
            "Payload in the digest of what is not TCP. The same in the whole domain, and no more \
             than the shortest mirror leaves of a packet.",
        ),
    ],
};

static PATH: Table = Table {
    path: "path",
    meaning: "Delay and loss between taps, by the same packets at both. Runs with two taps or more; with \
              samples with one.",
    keys: &[
        key("enabled", Kind::Flag, Default("true"), "", "Whether it runs."),
        key(
            "sample_one_in",
            integer(1, 65_536),
            Derived("16", "16, but 1 in a replay"),
            "packets",
            "One packet in so many is followed from tap to tap, chosen by its digest. The same in the \
             whole domain.",
        ),
        key(
            "secret",
            Kind::Text,
            Nothing("\"change me\""),
            "",
            "Decides which packets are followed, and keys the digests in records. The same at all \
             probes of the domain, and unknown to others. Without it: another one in each run.",
        ),
        key(
            "verdict_ms",
            integer(100, 60_000),
            Default("5000"),
            "milliseconds",
            "How long a packet that was not seen at a tap is waited for, and evidence why.",
        ),
        key(
            "slots",
            power(1_024, 16_777_216),
            Default("65536"),
            "packets",
            "Packets followed at once by each worker.",
        ),
        key(
            "samples",
            Kind::Flag,
            Default("false"),
            "",
            "Write each sighting down, so that taps of several probes can be matched.",
        ),
    ],
};

static FLOW: Table = Table {
    path: "flow",
    meaning: "The flow table of each worker.",
    keys: &[
        key(
            "slots_per_worker",
            integer(FlowPlan::SLOTS_MIN as u64, FlowPlan::SLOTS_MAX as u64),
            Default("1048576"),
            "flows",
            "Flows of a worker at most; the memory is taken at start.",
        ),
        key(
            "idle_tcp_ms",
            integer(1_000, 86_400_000),
            Default("300000"),
            "milliseconds",
            "Established TCP ends after this silence.",
        ),
        key(
            "idle_other_ms",
            integer(1_000, 86_400_000),
            Default("60000"),
            "milliseconds",
            "Everything else ends after this silence.",
        ),
        key(
            "closed_ms",
            integer(0, 600_000),
            Default("5000"),
            "milliseconds",
            "How long a closed TCP flow waits for stragglers.",
        ),
        key(
            "active_ms",
            integer(1_000, 86_400_000),
            Default("1800000"),
            "milliseconds",
            "A living flow gives a record at least this often.",
        ),
    ],
};

static APP: Table = Table {
    path: "app",
    meaning: "Transactions of applications, in the table `apps`. docs/apps.md.",
    keys: &[
        key(
            "transactions",
            Kind::Flag,
            Default("true"),
            "",
            "Whether DNS queries, hellos of TLS and requests of HTTP/1 are read.",
        ),
        key(
            "url_queries",
            Kind::Flag,
            Default("false"),
            "",
            "Keep what stands behind ? in the target of a request of HTTP. It may hold passwords and \
             tokens.",
        ),
    ],
};

static WINDOW: Table = Table {
    path: "window",
    meaning: "Time windows that conversations are counted in.",
    keys: &[
        key(
            "length_ms",
            integer(100, HOUR_MS),
            Default("1000"),
            "milliseconds",
            "Length; it divides an hour without rest.",
        ),
        key(
            "grace_ms",
            integer(0, 60_000),
            Default("200"),
            "milliseconds",
            "How long after its end a window stays open for late packets.",
        ),
        key(
            "rows_max",
            integer(1_024, 16_777_216),
            Default("1048576"),
            "conversations",
            "Rows of one window and worker at most.",
        ),
    ],
};

static SHED: Table = Table {
    path: "shed",
    meaning: "At overload whole flows are left out by hash, and every row states the rate.",
    keys: &[
        key("enabled", Kind::Flag, Default("true"), "", "Shed when a receive ring fills."),
        key(
            "high_percent",
            integer(10, 95),
            Default("75"),
            "percent",
            "Fill of the ring above which more is shed.",
        ),
        key(
            "low_percent",
            integer(1, 94),
            Default("25"),
            "percent",
            "Fill of the ring below which less is shed; below high_percent.",
        ),
    ],
};

static DETECT: Table =
    Table { path: "detect", meaning: "Detectors.", keys: &[table(&PORT_SCAN), table(&SYN_FLOOD)] };

static PORT_SCAN: Table = Table {
    path: "detect.port_scan",
    meaning: "Port scan, by threshold random walk over first contacts (Jung et al. 2004).",
    keys: &[
        key("enabled", Kind::Flag, Default("true"), "", "Whether it runs."),
        key(
            "theta_benign",
            PROBABILITY,
            Default("0.8"),
            "probability",
            "First contacts of a benign source that succeed.",
        ),
        key(
            "theta_scanner",
            PROBABILITY,
            Default("0.2"),
            "probability",
            "First contacts of a scanner that succeed; below theta_benign.",
        ),
        key("alpha", PROBABILITY, Default("0.01"), "probability", "False alarms; below beta."),
        key("beta", PROBABILITY, Default("0.99"), "probability", "Scanners that are detected."),
        key(
            "sources_max",
            integer(1, 16_777_216),
            Default("65536"),
            "sources",
            "Sources followed at most.",
        ),
        key(
            "contacts_max",
            integer(1, 65_536),
            Default("1024"),
            "contacts",
            "First contacts of one source remembered at most.",
        ),
        key(
            "forget_s",
            integer(1, 86_400),
            Default("300"),
            "seconds",
            "A source that is silent for this long is forgotten.",
        ),
    ],
};

static SYN_FLOOD: Table = Table {
    path: "detect.syn_flood",
    meaning: "SYN flood, by likelihood ratio on unanswered connection attempts of a window.",
    keys: &[
        key("enabled", Kind::Flag, Default("true"), "", "Whether it runs."),
        key(
            "attempts_min",
            integer(1, 1_000_000_000),
            Default("100"),
            "attempts",
            "Unanswered attempts to one service in a window before it is looked at.",
        ),
        key(
            "alpha",
            PROBABILITY,
            Default("0.000001"),
            "probability",
            "False alarms of one test, on the chi-square distribution.",
        ),
        key(
            "baseline_weight",
            PROBABILITY,
            Default("0.1"),
            "",
            "Weight of the newest window in the baseline.",
        ),
        key(
            "services_max",
            integer(1, 16_777_216),
            Default("65536"),
            "services",
            "Services followed at most.",
        ),
    ],
};

static STORE: Table = Table {
    path: "store",
    meaning: "Records on disk.",
    keys: &[
        key(
            "folder",
            Kind::Path,
            Nothing("\"data\""),
            "",
            "Folder of the records; without it none are written. Relative paths begin at this \
             file's folder.",
        ),
        key(
            "queue_rows_max",
            integer(1_000, 100_000_000),
            Default("1000000"),
            "rows",
            "Rows of each table that wait for the disk at most.",
        ),
        key(
            "file_seconds",
            integer(1, 3_600),
            Default("60"),
            "seconds",
            "A file is closed after this time.",
        ),
        key(
            "free_mib_min",
            integer(16, 1_048_576),
            Default("256"),
            "MiB",
            "Free space under which nothing is written.",
        ),
        key(
            "compact",
            Kind::Flag,
            Default("true"),
            "",
            "Whether a live run merges the small files of an hour, at the lowest priority and off the \
             workers' cores.",
        ),
        key(
            "keep_days",
            integer(1, 36_500),
            Nothing("30"),
            "days",
            "Records are removed after this time, hour by hour, by the clock of the packets; facts of \
             the inventory stay as long as kept records may need them.",
        ),
        key(
            "size_mib_max",
            integer(16, 1_073_741_824),
            Nothing("100000"),
            "MiB",
            "What the files of this probe may take together; beyond it hours ahead of the clock are \
             removed, then the oldest, never the open ones. Looked at every five minutes.",
        ),
    ],
};

static SERVE: Table = Table {
    path: "serve",
    meaning: "The API and its pages.",
    keys: &[
        key("enabled", Kind::Flag, Default("true"), "", "Whether they are served."),
        key("listen", Kind::Listen, Default("\"127.0.0.1:8080\""), "", "Where they are served."),
    ],
};
