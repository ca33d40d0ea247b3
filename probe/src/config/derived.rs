//! What follows from a plan: queues, workers, memory.
//!
//! In: [`Plan`]. Out: numbers that `check` prints and that set-up uses.
//! Source: sizes of DPDK 22.11, `rte_mbuf_core.h`, `rte_mbuf.h` and `rte_mempool.h`.

use super::plan::{Plan, PortPlan};

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;

/// Bytes of a packet buffer besides its octets of packet: `struct rte_mbuf` (two cache lines),
/// headroom (`RTE_PKTMBUF_HEADROOM`), and the mempool's object header (one cache line).
const MBUF_HEAD_BYTES: u64 = 128 + 128 + 64;

/// Octets of packet in an ordinary buffer (`RTE_MBUF_DEFAULT_DATAROOM`).
const MBUF_ROOM_OCTETS: u64 = 2_048;

/// Buffers that the mempool's cache of one thread may hold, with the library's factor of 1.5.
pub(super) const MBUFS_CACHED: u32 = 384;

/// Rows that a worker can have open at least.
const OPEN_ROWS_MIN: u32 = 1 << 14;

/// Rows that can be on their way from a worker to the aggregator.
const ROWS_ON_THEIR_WAY: u32 = 1 << 16;

/// Bytes of one place in the tables of a worker, which the modules that own them know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// A flow, with its share of the index.
    pub flow_bytes: u64,
    /// A row of a window.
    pub row_bytes: u64,
    /// A remembered digest.
    pub copy_bytes: u64,
    /// A packet followed from tap to tap.
    pub path_bytes: u64,
    /// A remembered datagram.
    pub fragment_bytes: u64,
    /// A packet in a spread ring.
    pub spread_bytes: u64,
    /// Its share of the room for payload, where transactions are told.
    pub payload_bytes: u64,
    /// All payload of a worker that can be on its way to the aggregation thread, likewise.
    pub excerpt_bytes: u64,
}

/// Memory that a probe takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Packet buffers of all ports, in DPDK's memory, where large frames come in several.
    pub mbuf_bytes_min: u64,
    /// The same where each buffer holds the largest frame, as some drivers need it.
    pub mbuf_bytes_max: u64,
    /// Flow tables of all workers.
    pub flow_bytes: u64,
    /// Rows that the workers have open, and those on their way to the aggregator.
    pub row_bytes: u64,
    /// Digests of all workers.
    pub copy_bytes: u64,
    /// Fragment tables of all workers.
    pub fragment_bytes: u64,
    /// Spread rings of each worker to each other, and payload that tells of transactions.
    pub spread_bytes: u64,
}

impl Memory {
    /// All but the packet buffers, which lie in DPDK's memory.
    pub fn own_bytes(&self) -> u64 {
        [self.flow_bytes, self.row_bytes, self.copy_bytes, self.fragment_bytes, self.spread_bytes]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

impl Plan {
    /// RX queues of all ports.
    pub fn queues(&self) -> u32 {
        self.ports.iter().map(|port| u32::from(port.queues)).sum()
    }

    /// Workers of `vmprobe run`, or of a replay where no port is configured.
    pub fn workers(&self) -> u32 {
        u32::from(self.worker.count).max(self.queues()).max(1)
    }

    /// Rows that a worker can have open; beyond them the oldest are handed over early. A quarter of
    /// the flows can be in one window.
    pub fn open_rows(&self) -> u32 {
        (self.flow.slots_per_worker / 4).max(OPEN_ROWS_MIN)
    }

    /// Rows of a worker that there is memory for: open ones, and those on their way.
    pub fn rows_kept(&self) -> u32 {
        self.open_rows() + ROWS_ON_THEIR_WAY
    }

    /// Whether packets are followed from tap to tap: it takes two taps, or one whose sightings are matched
    /// with those of other probes.
    pub fn follows_paths(&self) -> bool {
        let taps_min = if self.path.samples { 1 } else { 2 };
        self.path.enabled && self.taps.len() >= taps_min
    }

    /// The memory that this plan takes.
    pub fn memory(&self, sizes: &Sizes) -> Memory {
        let workers = u64::from(self.workers());
        let tables = |places: u32, bytes: u64| {
            u64::from(places).saturating_mul(bytes).saturating_mul(workers)
        };
        let others = u64::from(self.workers() - 1);
        let told = self.app.transactions;
        Memory {
            mbuf_bytes_min: self.mbuf_bytes(|_| MBUF_ROOM_OCTETS),
            mbuf_bytes_max: self.mbuf_bytes(frame_room_octets),
            flow_bytes: tables(self.flow.slots_per_worker, sizes.flow_bytes),
            row_bytes: tables(self.rows_kept(), sizes.row_bytes),
            copy_bytes: tables(self.copies.slots, sizes.copy_bytes).saturating_add(
                if self.follows_paths() { tables(self.path.slots, sizes.path_bytes) } else { 0 },
            ),
            fragment_bytes: tables(self.decode.fragment_slots, sizes.fragment_bytes),
            spread_bytes: tables(
                self.worker.spread_ring_packets,
                sizes.spread_bytes + if told { sizes.payload_bytes } else { 0 },
            )
            .saturating_mul(others)
            .saturating_add(if told { tables(1, sizes.excerpt_bytes) } else { 0 }),
        }
    }

    fn mbuf_bytes(&self, room_octets: impl Fn(&PortPlan) -> u64) -> u64 {
        let port = |port: &PortPlan| u64::from(port.mbufs) * (MBUF_HEAD_BYTES + room_octets(port));
        self.ports.iter().map(port).sum()
    }
}

fn frame_room_octets(port: &PortPlan) -> u64 {
    u64::from(port.frame_octets_max).next_multiple_of(128).max(MBUF_ROOM_OCTETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_with(devices: &[&str]) -> Plan {
        let port = |device: &&str| PortPlan {
            name: (*device).to_owned(),
            device: (*device).to_owned(),
            queues: 2,
            mbufs: 1_000,
            ..PortPlan::default()
        };
        Plan { ports: devices.iter().map(port).collect(), ..Plan::default() }
    }

    #[test]
    fn memory_counts_all_workers() {
        let mut plan = plan_with(&["net_null0", "net_null1"]);
        plan.ports[1].frame_octets_max = 9_018;
        let sizes = Sizes { flow_bytes: 100, spread_bytes: 10, ..Sizes::default() };
        let memory = plan.memory(&sizes);
        assert_eq!((plan.queues(), plan.workers()), (4, 4));
        assert_eq!(memory.mbuf_bytes_min, 2_000 * 2_368);
        assert_eq!(memory.mbuf_bytes_max, 1_000 * 2_368 + 1_000 * (320 + 9_088));
        assert_eq!(memory.flow_bytes, 4 * 100 * (1 << 20));
        assert_eq!(memory.spread_bytes, 4 * 3 * 10 * 4_096);
    }
}
