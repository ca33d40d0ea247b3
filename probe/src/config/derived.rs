//! What follows from a plan: queues, workers, DPDK's arguments, memory.
//!
//! In: [`Plan`]. Out: numbers that `check` prints and that set-up uses.
//! Source: sizes of DPDK 22.11, `rte_mbuf_core.h`, `rte_mbuf.h` and `rte_mempool.h`.

use super::device;
use super::plan::Plan;

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;

/// Bytes of a packet buffer: `struct rte_mbuf` (two cache lines), headroom and data
/// (`RTE_MBUF_DEFAULT_BUF_SIZE`, 128 + 2,048), and the mempool's object header (one cache line).
pub const MBUF_BYTES: u64 = 128 + 2_176 + 64;

/// Bytes of one place in the tables of a worker, which the modules that own them know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// A flow, with its share of the index.
    pub flow_bytes: u64,
    /// A row of a window.
    pub row_bytes: u64,
    /// A remembered digest.
    pub copy_bytes: u64,
    /// A remembered datagram.
    pub fragment_bytes: u64,
    /// A packet in a spread ring.
    pub spread_bytes: u64,
}

/// Memory that a probe takes, in bytes. Rows count once, though two windows may be open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Packet buffers of all ports, in DPDK's memory.
    pub mbuf_bytes: u64,
    /// Flow tables of all workers.
    pub flow_bytes: u64,
    /// Rows of one window of all workers, at most.
    pub row_bytes: u64,
    /// Digests of all workers.
    pub copy_bytes: u64,
    /// Fragment tables of all workers.
    pub fragment_bytes: u64,
    /// Spread rings of each worker to each other.
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

    /// Bytes of the packet buffers of all ports.
    pub fn mbuf_bytes(&self) -> u64 {
        let mbufs: u64 = self.ports.iter().map(|port| u64::from(port.mbufs)).sum();
        mbufs * MBUF_BYTES
    }

    /// The memory that this plan takes.
    pub fn memory(&self, sizes: &Sizes) -> Memory {
        let workers = u64::from(self.workers());
        let tables = |places: u32, bytes: u64| {
            u64::from(places).saturating_mul(bytes).saturating_mul(workers)
        };
        let others = u64::from(self.workers() - 1);
        Memory {
            mbuf_bytes: self.mbuf_bytes(),
            flow_bytes: tables(self.flow.slots_per_worker, sizes.flow_bytes),
            row_bytes: tables(self.window.rows_max, sizes.row_bytes),
            copy_bytes: tables(self.copies.slots, sizes.copy_bytes),
            fragment_bytes: tables(self.decode.fragment_slots, sizes.fragment_bytes),
            spread_bytes: tables(self.worker.spread_ring_packets, sizes.spread_bytes)
                .saturating_mul(others),
        }
    }

    /// DPDK's arguments that follow from this plan. The cores are not among them: workers are
    /// threads of the probe, which pins them itself.
    pub fn eal_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--file-prefix={}", self.eal.file_prefix),
            "-m".to_owned(),
            self.eal.memory_mib.to_string(),
        ];
        if !self.eal.huge_pages {
            arguments.push("--no-huge".to_owned());
        } else if let Some(folder) = &self.eal.huge_folder {
            arguments.push(format!("--huge-dir={}", folder.display()));
        }
        if self.ports.iter().all(|port| device::is_virtual(device::name(&port.device))) {
            arguments.push("--no-pci".to_owned());
        }
        for port in &self.ports {
            let is_virtual = device::is_virtual(device::name(&port.device));
            let option = if is_virtual { "--vdev" } else { "--allow" };
            arguments.push(format!("{option}={}", port.device));
        }
        arguments.extend(self.eal.extra_arguments.iter().cloned());
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::PortPlan;
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
    fn arguments_follow_from_the_devices() {
        let arguments = plan_with(&["net_null0", "3b:00.0,a=1"]).eal_arguments().join(" ");
        assert_eq!(arguments, "--file-prefix=vmprobe -m 512 --vdev=net_null0 --allow=3b:00.0,a=1");
        let mut plan = plan_with(&["net_null0"]);
        plan.eal.huge_pages = false;
        plan.eal.extra_arguments = vec!["--log-level=8".to_owned()];
        let arguments = plan.eal_arguments().join(" ");
        assert!(arguments.ends_with("--no-huge --no-pci --vdev=net_null0 --log-level=8"));
    }

    #[test]
    fn memory_counts_all_workers() {
        let plan = plan_with(&["net_null0", "net_null1"]);
        let sizes = Sizes { flow_bytes: 100, spread_bytes: 10, ..Sizes::default() };
        let memory = plan.memory(&sizes);
        assert_eq!((plan.queues(), plan.workers()), (4, 4));
        assert_eq!(memory.mbuf_bytes, 2_000 * MBUF_BYTES);
        assert_eq!(memory.flow_bytes, 4 * 100 * (1 << 20));
        assert_eq!(memory.spread_bytes, 4 * 3 * 10 * 4_096);
    }
}
