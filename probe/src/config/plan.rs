//! What will run: typed, complete, checked.
//!
//! In: the schema. Out: [`Plan`]. Units stand in the names; sizes of rings and tables are powers
//! of two.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::index::TapIndex;
use crate::inventory::{AddressSpace, Segment, SourceKind};

mod cloud_api;
mod correlate;
mod learned;
mod libvirt;
mod openstack;
mod otlp;
mod ovsdb;
mod sink;

pub use cloud_api::{CloudApiPlan, CloudAuth, NotService, ServiceUrl};
pub use correlate::CorrelatePlan;
pub use learned::{LearnedPlan, Lessons};
pub use libvirt::LibvirtPlan;
pub use openstack::{BrokerUrl, NotBroker, OpenstackPlan, Secret};
pub use otlp::OtlpPlan;
pub use ovsdb::{NotRemote, OvsdbHost, OvsdbPlan, OvsdbRemote};
pub use sink::{
    ClickhousePlan, CollectorUrl, ElasticPlan, EvePlan, HttpUrl, IpfixPlan, KafkaCluster,
    KafkaCompression, KafkaFormat, KafkaPlan, NotUrl, RabbitmqPlan, SaslMechanism, SecretPlace,
    SinkAccess, SinkFilter, SinkKind, SinkPlan, SplunkPlan, StreamUrl, SyslogFormat, SyslogPlan,
    Transport, WebhookPlan,
};
pub(crate) use sink::{is_local, without_path};

/// The whole configuration of a probe.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who this probe is.
    pub probe: ProbePlan,
    /// DPDK's environment.
    pub eal: EalPlan,
    /// NIC ports, in order; [`crate::index::PortIndex`] counts them.
    pub ports: Vec<PortPlan>,
    /// Workers and the spread between them.
    pub worker: WorkerPlan,
    /// Configured taps, in order; a default tap for each port follows them.
    pub taps: Vec<TapPlan>,
    /// What operators take out.
    pub filters: Vec<FilterPlan>,
    /// Names of domains; place 0 is `default`.
    pub domains: Vec<String>,
    /// Joined address spaces.
    pub spaces: Vec<SpacePlan>,
    /// Decoder limits and tunnel ports.
    pub decode: DecodePlan,
    /// Copies of one packet.
    pub copies: CopiesPlan,
    /// Delay and loss between taps.
    pub path: PathPlan,
    /// Flow table.
    pub flow: FlowPlan,
    /// Transactions of applications.
    pub app: AppPlan,
    /// Windows.
    pub window: WindowPlan,
    /// Shedding at overload.
    pub shed: ShedPlan,
    /// Detectors.
    pub detect: DetectPlan,
    /// Inventory file, if any.
    pub inventory: InventoryPlan,
    /// Records on disk.
    pub store: StorePlan,
    /// Where records go beside the store.
    pub sinks: Vec<SinkPlan>,
    /// Joining the samples of many probes.
    pub correlate: CorrelatePlan,
    /// API and pages.
    pub serve: ServePlan,
    /// Metrics sent to OpenTelemetry.
    pub otlp: OtlpPlan,
    /// What answers questions to the records.
    pub query: QueryPlan,
}

/// Identity that stands in every record.
#[derive(Clone, Debug)]
pub struct ProbePlan {
    /// Probe id, 1–63 letters, digits, `-`, `_`, `.`.
    pub id: String,
    /// Domain in which taps, digests and secrets are shared.
    pub domain: String,
}

/// DPDK's environment abstraction layer.
#[derive(Clone, Debug)]
pub struct EalPlan {
    /// CPU cores for workers, in order; worker i runs on `cores[i]`. Empty: the cores that this
    /// process may use, but the last one where there are more than one is left to the rest.
    pub cores: Vec<u16>,
    /// Memory for packets in MiB.
    pub memory_mib: u32,
    /// Use huge pages; without them packets are received all the same, more slowly.
    pub huge_pages: bool,
    /// Folder of a mounted hugetlbfs, if not DPDK's own choice.
    pub huge_folder: Option<PathBuf>,
    /// Prefix of this process's DPDK files, so that several can run.
    pub file_prefix: String,
    /// Further EAL arguments, given as they are.
    pub extra_arguments: Vec<String>,
}

/// One NIC port. The default has neither name nor device.
#[derive(Clone, Debug)]
pub struct PortPlan {
    /// Name in records and taps, unique.
    pub name: String,
    /// PCI address (`0000:3b:00.0`) or vdev string (`net_memif0,role=client,…`).
    pub device: String,
    /// RX queues, one worker each, 1–64.
    pub queues: u16,
    /// RX descriptors a queue, power of two.
    pub descriptors: u16,
    /// Largest frame in octets without FCS; above 1,518 means jumbo or multi-segment receive.
    pub frame_octets_max: u32,
    /// Ask for promiscuous mode.
    pub promiscuous: bool,
    /// Strip VLAN tags in the NIC (the tag is taken from the mbuf). Off: tags stay in the frame.
    pub vlan_strip: bool,
    /// Use the NIC's own receive timestamps where it has them.
    pub hardware_timestamp: bool,
    /// mbufs of the port's pool.
    pub mbufs: u32,
}

/// When packets are passed on to the worker that owns their flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Where there is more than one worker (RSS alone never reaches all copies of a flow).
    #[default]
    Auto,
    /// Never: the operator knows that RSS brings both directions and all copies together.
    Never,
}

/// Workers.
#[derive(Clone, Debug)]
pub struct WorkerPlan {
    /// Workers; 0: one for each RX queue (`run`) or one (`replay`). More than queues: the
    /// further ones own flows only.
    pub count: u16,
    /// Packets taken in one poll, 1–256.
    pub burst_packets: u16,
    /// When packets are passed between workers.
    pub spread: Spread,
    /// Packets a spread ring holds, power of two.
    pub spread_ring_packets: u32,
    /// Longest wait of a packet for older ones from other rings, in microseconds.
    pub spread_hold_us: u32,
}

/// What of a frame names a tap. All given conditions must hold; without any the tap is the
/// port's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TapMatch {
    /// Port name (NIC port, file or interface name).
    pub port: Option<String>,
    /// Outer VLAN id of an RSPAN mirror, which is taken off.
    pub vlan: Option<u16>,
    /// ERSPAN session id.
    pub erspan_session: Option<u16>,
    /// GRE key of a GRE mirror, which is taken off as mirror, not overlay.
    pub gre_key: Option<u32>,
    /// VNI of a VXLAN mirror, which is taken off as mirror, not overlay.
    pub vxlan_vni: Option<u32>,
    /// Outer source address of a tunnelled mirror.
    pub outer_source: Option<IpAddr>,
}

/// One Observation Point.
#[derive(Clone, Debug, Default)]
pub struct TapPlan {
    /// Name, unique.
    pub name: String,
    /// How it is recognised.
    pub matches: TapMatch,
    /// Host it stands on, as the inventory names it.
    pub host: Option<String>,
    /// Switch it copies from, as the inventory names it.
    pub switch: Option<String>,
    /// Domain of the segments seen there (place in [`Plan::domains`]).
    pub domain: u8,
    /// Copies arrive twice by construction (a mirror of both directions), so equal ones are
    /// duplicates.
    pub duplicates: bool,
    /// Segment of all packets of this tap (RSPAN replaces the tenant's tag), if known.
    pub segment: Option<Segment>,
}

/// Packets to leave out; all given conditions must hold, each in either direction.
#[derive(Clone, Debug, Default)]
pub struct FilterPlan {
    /// Tap.
    pub tap: Option<TapIndex>,
    /// VLAN id of the segment.
    pub vlan: Option<u16>,
    /// Either address lies in this network.
    pub network: Option<IpNet>,
    /// Either port.
    pub port: Option<u16>,
    /// IANA protocol number.
    pub protocol: Option<u8>,
}

/// Several segments with one address space.
#[derive(Clone, Debug)]
pub struct SpacePlan {
    /// Name, unique.
    pub name: String,
    /// The number in every key.
    pub space: AddressSpace,
    /// The segments joined.
    pub segments: Vec<Segment>,
}

/// Decoder.
#[derive(Clone, Debug)]
pub struct DecodePlan {
    /// Nested tunnels taken off at most, 1–8.
    pub depth_max: u8,
    /// UDP ports of VXLAN.
    pub vxlan_ports: Vec<u16>,
    /// UDP ports of VXLAN-GPE.
    pub vxlan_gpe_ports: Vec<u16>,
    /// UDP ports of GENEVE.
    pub geneve_ports: Vec<u16>,
    /// UDP ports of GTP-U.
    pub gtp_ports: Vec<u16>,
    /// UDP ports of MPLS in UDP.
    pub mpls_ports: Vec<u16>,
    /// UDP ports of GRE in UDP.
    pub gre_ports: Vec<u16>,
    /// UDP ports of Teredo servers and relays.
    pub teredo_ports: Vec<u16>,
    /// UDP ports of CAPWAP data channels at the controller.
    pub capwap_ports: Vec<u16>,
    /// Read the GRE key of Ethernet-in-GRE as NVGRE (24-bit VSID, 8-bit flow id) instead of a
    /// 32-bit key.
    pub nvgre: bool,
    /// MPLS bottom labels name segments (they differ by direction in most networks).
    pub mpls_segments: bool,
    /// GTP-U tunnel endpoint ids name segments (each direction has its own).
    pub gtp_segments: bool,
    /// Fragment table slots a worker, power of two.
    pub fragment_slots: u32,
    /// How long fragments wait for the first one of their datagram, in milliseconds. Its ports are
    /// remembered for a second after its newest fragment, and no longer than this.
    pub fragment_timeout_ms: u32,
}

/// Copies.
#[derive(Clone, Debug)]
pub struct CopiesPlan {
    /// Remove duplicates and copies of other taps from traffic. Off: mark and count only
    /// (`replay` without taps in its configuration).
    pub remove: bool,
    /// Same tap: equal packets within this time are duplicates, in milliseconds.
    pub window_ms: u32,
    /// Other tap: the same packet within this time is a path sample, in milliseconds.
    pub path_window_ms: u32,
    /// Digests remembered a worker, power of two.
    pub slots: u32,
    /// Payload octets in the digest of what is not TCP, 0–16; equal in the whole domain.
    pub digest_payload_octets: u8,
}

/// Delay and loss between taps.
#[derive(Clone, Debug)]
pub struct PathPlan {
    /// Whether it runs, where there are taps to compare.
    pub enabled: bool,
    /// One packet in so many is followed.
    pub sample_one_in: u32,
    /// Secret of the domain; without it each run has its own.
    pub secret: Option<String>,
    /// How long a packet is waited for at another tap, and evidence where it is, in milliseconds.
    pub verdict_ms: u32,
    /// Packets followed at once by a worker, power of two.
    pub slots: u32,
    /// Whether each sighting becomes a record.
    pub samples: bool,
}

/// Transactions of applications.
#[derive(Clone, Copy, Debug)]
pub struct AppPlan {
    /// Whether their messages are read.
    pub transactions: bool,
    /// Whether what stands behind `?` in a target of HTTP is kept.
    pub url_queries: bool,
}

impl Default for AppPlan {
    fn default() -> Self {
        Self { transactions: true, url_queries: false }
    }
}

/// Flow table.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// Flows a worker at most; within [`FlowPlan::SLOTS_MIN`] and [`FlowPlan::SLOTS_MAX`].
    pub slots_per_worker: u32,
    /// Idle timeout of established TCP in milliseconds.
    pub idle_tcp_ms: u32,
    /// Idle timeout of everything else in milliseconds.
    pub idle_other_ms: u32,
    /// How long a closed TCP flow waits for stragglers, in milliseconds.
    pub closed_ms: u32,
    /// A living flow gives a record at least this often, in milliseconds.
    pub active_ms: u32,
}

/// Windows.
#[derive(Clone, Debug)]
pub struct WindowPlan {
    /// Length in milliseconds, 100–3,600,000, a divisor of an hour.
    pub length_ms: u32,
    /// How long after its end a window stays open for late packets, in milliseconds.
    pub grace_ms: u32,
    /// Conversation rows of one window and worker at most.
    pub rows_max: u32,
}

/// Shedding.
#[derive(Clone, Debug)]
pub struct ShedPlan {
    /// Shed whole flows by hash when the receive ring fills.
    pub enabled: bool,
    /// Ring fill in percent above which more is shed, 10–95.
    pub high_percent: u8,
    /// Ring fill in percent below which less is shed, below `high_percent`.
    pub low_percent: u8,
}

/// Detectors.
#[derive(Clone, Debug, Default)]
pub struct DetectPlan {
    /// Port scan by sequential test.
    pub port_scan: PortScanPlan,
    /// SYN flood by likelihood ratio.
    pub syn_flood: SynFloodPlan,
}

/// Threshold random walk (Jung et al. 2004).
#[derive(Clone, Debug)]
pub struct PortScanPlan {
    /// On.
    pub enabled: bool,
    /// Probability that a benign first contact succeeds, θ0.
    pub theta_benign: f64,
    /// Probability that a scanner's first contact succeeds, θ1 < θ0.
    pub theta_scanner: f64,
    /// False alarm probability α.
    pub alpha: f64,
    /// Detection probability β.
    pub beta: f64,
    /// Sources followed at most.
    pub sources_max: u32,
    /// First contacts of one source remembered at most.
    pub contacts_max: u32,
    /// A source silent for this long is forgotten, in seconds.
    pub forget_s: u32,
}

/// Likelihood ratio on half-open connections per window.
#[derive(Clone, Debug)]
pub struct SynFloodPlan {
    /// On.
    pub enabled: bool,
    /// Unanswered connection attempts to one service in a window before it is looked at.
    pub attempts_min: u32,
    /// False alarm probability of one test, on the χ² distribution.
    pub alpha: f64,
    /// Weight of the newest window in the baseline, 0–1.
    pub baseline_weight: f64,
    /// Services followed at most.
    pub services_max: u32,
}

/// Inventory.
#[derive(Clone, Debug)]
pub struct InventoryPlan {
    /// File with tenants and VMs.
    pub file: Option<PathBuf>,
    /// Whether requests to the HTTP API may change the inventory.
    pub api: bool,
    /// File that keeps what is known over a restart; `None` for the one in the store's folder.
    pub journal: Option<PathBuf>,
    /// Size of that file at most, in MiB; 0 for none.
    pub journal_mib_max: u32,
    /// All kinds of sources; the first one is heard first.
    pub precedence: Vec<SourceKind>,
    /// How far ahead of the probe's clock a source may date what it says.
    pub clock_skew_max_ms: u32,
    /// VMs at most, ended ones included.
    pub vms_max: u32,
    /// Facts of one VM in memory at most.
    pub facts_per_vm_max: u32,
    /// Networks that count as inside although no VM is named there.
    pub home_networks: Vec<IpNet>,
    /// Tenants that serve all others.
    pub shared_tenants: Vec<String>,
    /// Networks of services that are everybody's.
    pub shared_networks: Vec<IpNet>,
    /// Clouds whose notifications are listened to.
    pub openstack: Vec<OpenstackPlan>,
    /// Hosts whose libvirt is asked.
    pub libvirt: Vec<LibvirtPlan>,
    /// Databases of Open vSwitches.
    pub ovsdb: Vec<OvsdbPlan>,
    /// What is learned from packets.
    pub learned: LearnedPlan,
}

/// Records on disk.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// Folder of the records; `None` writes none.
    pub folder: Option<PathBuf>,
    /// Rows that wait for the disk at most, per table.
    pub queue_rows_max: u32,
    /// A file is closed after this time, in seconds.
    pub file_seconds: u32,
    /// Free space in MiB under which nothing is written.
    pub free_mib_min: u32,
    /// Whether small files of an hour are merged in a live run.
    pub compact: bool,
    /// Days that records are kept for; `None`: for ever.
    pub keep_days: Option<u32>,
    /// MiB that the files of this probe may take together; `None`: as much as there is.
    pub size_mib_max: Option<u32>,
}

/// What answers questions to the records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryPlan {
    /// The server; `None`: the files of the store.
    pub clickhouse: Option<ClickhousePlan>,
}

/// API and pages.
#[derive(Clone, Debug)]
pub struct ServePlan {
    /// On.
    pub enabled: bool,
    /// Loopback address and port.
    pub listen: SocketAddr,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            probe: ProbePlan::default(),
            eal: EalPlan::default(),
            ports: Vec::new(),
            worker: WorkerPlan::default(),
            taps: Vec::new(),
            filters: Vec::new(),
            domains: vec!["default".to_owned()],
            spaces: Vec::new(),
            decode: DecodePlan::default(),
            copies: CopiesPlan::default(),
            path: PathPlan::default(),
            flow: FlowPlan::default(),
            app: AppPlan::default(),
            window: WindowPlan::default(),
            shed: ShedPlan::default(),
            detect: DetectPlan::default(),
            inventory: InventoryPlan::default(),
            store: StorePlan::default(),
            sinks: Vec::new(),
            correlate: CorrelatePlan::default(),
            serve: ServePlan::default(),
            otlp: OtlpPlan::default(),
            query: QueryPlan::default(),
        }
    }
}

impl Default for InventoryPlan {
    fn default() -> Self {
        Self {
            file: None,
            api: false,
            journal: None,
            journal_mib_max: 256,
            precedence: SourceKind::ALL.to_vec(),
            clock_skew_max_ms: 5_000,
            vms_max: 100_000,
            facts_per_vm_max: 1_024,
            home_networks: Vec::new(),
            ovsdb: Vec::new(),
            shared_tenants: Vec::new(),
            shared_networks: Vec::new(),
            openstack: Vec::new(),
            libvirt: Vec::new(),
            learned: LearnedPlan::default(),
        }
    }
}

impl Default for ProbePlan {
    fn default() -> Self {
        Self { id: "probe".to_owned(), domain: "default".to_owned() }
    }
}

impl Default for EalPlan {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            memory_mib: 512,
            huge_pages: true,
            huge_folder: None,
            file_prefix: "vmprobe".to_owned(),
            extra_arguments: Vec::new(),
        }
    }
}

impl Default for PortPlan {
    fn default() -> Self {
        Self {
            name: String::new(),
            device: String::new(),
            queues: 1,
            descriptors: 1_024,
            frame_octets_max: 1_518,
            promiscuous: true,
            vlan_strip: false,
            hardware_timestamp: true,
            mbufs: 16_384,
        }
    }
}

impl Default for WorkerPlan {
    fn default() -> Self {
        Self {
            count: 0,
            burst_packets: 32,
            spread: Spread::Auto,
            spread_ring_packets: 4096,
            spread_hold_us: 200,
        }
    }
}

impl Default for DecodePlan {
    fn default() -> Self {
        Self {
            depth_max: 4,
            vxlan_ports: vec![4789, 8472],
            vxlan_gpe_ports: vec![4790],
            geneve_ports: vec![6081],
            gtp_ports: vec![2152],
            mpls_ports: vec![6635],
            gre_ports: vec![4754],
            teredo_ports: vec![3544],
            capwap_ports: vec![5247],
            nvgre: false,
            mpls_segments: false,
            gtp_segments: false,
            fragment_slots: 4096,
            fragment_timeout_ms: 30_000,
        }
    }
}

impl Default for CopiesPlan {
    fn default() -> Self {
        Self {
            remove: true,
            window_ms: 5,
            path_window_ms: 100,
            slots: 1 << 16,
            digest_payload_octets: 16,
        }
    }
}

impl Default for PathPlan {
    fn default() -> Self {
        Self {
            enabled: true,
            sample_one_in: 16,
            secret: None,
            verdict_ms: 5_000,
            slots: 1 << 16,
            samples: false,
        }
    }
}

impl FlowPlan {
    /// The fewest flows a worker may have room for.
    pub const SLOTS_MIN: u32 = 1_024;
    /// The most.
    pub const SLOTS_MAX: u32 = 67_108_864;
}

impl Default for FlowPlan {
    fn default() -> Self {
        Self {
            slots_per_worker: 1 << 20,
            idle_tcp_ms: 300_000,
            idle_other_ms: 60_000,
            closed_ms: 5_000,
            active_ms: 1_800_000,
        }
    }
}

impl Default for WindowPlan {
    fn default() -> Self {
        Self { length_ms: 1_000, grace_ms: 200, rows_max: 1 << 20 }
    }
}

impl Default for ShedPlan {
    fn default() -> Self {
        Self { enabled: true, high_percent: 75, low_percent: 25 }
    }
}

impl Default for PortScanPlan {
    fn default() -> Self {
        Self {
            enabled: true,
            theta_benign: 0.8,
            theta_scanner: 0.2,
            alpha: 0.01,
            beta: 0.99,
            sources_max: 65_536,
            contacts_max: 1_024,
            forget_s: 300,
        }
    }
}

impl Default for SynFloodPlan {
    fn default() -> Self {
        Self {
            enabled: true,
            attempts_min: 100,
            alpha: 1e-6,
            baseline_weight: 0.1,
            services_max: 65_536,
        }
    }
}

impl Default for StorePlan {
    fn default() -> Self {
        Self {
            folder: None,
            queue_rows_max: 1_000_000,
            file_seconds: 60,
            free_mib_min: 256,
            compact: true,
            keep_days: None,
            size_mib_max: None,
        }
    }
}

impl Default for ServePlan {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from(([127, 0, 0, 1], 8080)) }
    }
}
