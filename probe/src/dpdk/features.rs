//! What a port is asked for, decided from the plan and what its driver says.
//!
//! In: `PortPlan`, [`Facts`]. Out: [`Setup`] and the warnings for all that the port lacks.
//! Invariants: pure; nothing is asked for that the driver does not offer, because one refused
//! feature would refuse the whole port.
//! Source: DPDK 22.11, `rte_ethdev.h`. Symmetric key: Woo and Park, Scalable TCP Session
//! Monitoring with Symmetric Receive-side Scaling, 2012: with 0x6D5A repeated, the Toeplitz hash
//! is the same when source and destination change places.

use super::error::{PortError, PortWarning};
use crate::config::PortPlan;

/// Ethernet header and VLAN tag: what a frame without FCS has beyond its MTU.
const FRAME_BEYOND_MTU: u32 = 18;
/// Ethernet header and FCS, DPDK's own reckoning where a driver gives none.
const DEFAULT_OVERHEAD: u32 = 18;
/// Octets of one buffer for ordinary frames (`RTE_MBUF_DEFAULT_DATAROOM`).
const ROOM_OCTETS: u32 = 2048;
/// Buffers that each thread's cache of the pool may hold, times the factor 1.5 of the library.
const CACHE_MBUFS: u32 = 384;

/// What the driver says of a port (`rte_eth_dev_info`).
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) driver: String,
    pub(super) mtu_min: u16,
    pub(super) mtu_max: u16,
    pub(super) packet_octets_max: u32,
    pub(super) buffer_octets_min: u32,
    pub(super) rx_queues_max: u16,
    pub(super) tx_queues_max: u16,
    pub(super) rx_offloads: u64,
    pub(super) rss_types: u64,
    pub(super) rss_key_octets: u8,
    pub(super) redirection_entries: u16,
}

/// What a stamp in an mbuf of this port means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampKind {
    /// There is none.
    None,
    /// Microseconds since the epoch, read from a capture file (`net_pcap` with `rx_pcap`).
    File,
    /// Microseconds since the epoch, taken by the kernel (`net_pcap` on an interface).
    Kernel,
    /// Ticks of the device's clock, which [`super::Port::read_clock`] reads.
    Device,
}

/// What the port is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) mtu: u16,
    pub(super) offloads: u64,
    pub(super) rss_types: u64,
    /// Empty: the driver's own key stays.
    pub(super) rss_key: Vec<u8>,
    pub(super) redirection_entries: u16,
    pub(super) tx_queues: u16,
    /// Octets of packet in one buffer.
    pub(super) room_octets: u16,
    pub(super) stamps: StampKind,
}

/// Decides.
///
/// # Errors
/// [`PortError::TooManyQueues`], [`PortError::PoolTooSmall`].
pub(super) fn decide(
    plan: &PortPlan,
    facts: &Facts,
    burst: u16,
) -> Result<(Setup, Vec<PortWarning>), PortError> {
    check_queues(plan, facts)?;
    check_pool(plan, burst)?;
    let mut warnings = Vec::new();
    let scatter = offload(facts, dpdk_sys::VMPROBE_RX_OFFLOAD_SCATTER);
    let (rss_types, rss_key) = choose_rss(plan, facts, &mut warnings);
    let stamps = choose_stamps(plan, facts, &mut warnings);
    let mut offloads = choose_vlan(plan, facts, &mut warnings);
    if plan.frame_octets_max > ROOM_OCTETS {
        offloads |= scatter;
    }
    if stamps == StampKind::Device {
        offloads |= dpdk_sys::VMPROBE_RX_OFFLOAD_TIMESTAMP;
    }
    let setup = Setup {
        mtu: choose_mtu(plan, facts, &mut warnings),
        offloads,
        rss_types,
        rss_key,
        redirection_entries: if rss_types == 0 { 0 } else { facts.redirection_entries },
        tx_queues: plan.queues.min(facts.tx_queues_max),
        room_octets: choose_room(plan, facts, scatter != 0),
        stamps,
    };
    Ok((setup, warnings))
}

fn check_queues(plan: &PortPlan, facts: &Facts) -> Result<(), PortError> {
    if plan.queues > facts.rx_queues_max {
        return Err(PortError::TooManyQueues {
            port: plan.name.clone(),
            device: plan.device.clone(),
            asked: plan.queues,
            limit: facts.rx_queues_max,
        });
    }
    Ok(())
}

/// Each queue's ring, one burst in hand and the worker's cache must fit into the pool, or the
/// ring runs dry while buffers lie idle elsewhere.
fn check_pool(plan: &PortPlan, burst: u16) -> Result<(), PortError> {
    let each = u32::from(plan.descriptors) + u32::from(burst) + CACHE_MBUFS;
    let needed = u32::from(plan.queues) * each;
    if plan.mbufs < needed {
        return Err(PortError::PoolTooSmall { port: plan.name.clone(), mbufs: plan.mbufs, needed });
    }
    Ok(())
}

/// The offload's bit if the driver has it, else 0.
fn offload(facts: &Facts, bit: u64) -> u64 {
    facts.rx_offloads & bit
}

fn choose_mtu(plan: &PortPlan, facts: &Facts, warnings: &mut Vec<PortWarning>) -> u16 {
    let overhead = match facts.packet_octets_max.checked_sub(u32::from(facts.mtu_max)) {
        Some(overhead) if facts.mtu_max != u16::MAX && overhead > 0 => overhead,
        _ => DEFAULT_OVERHEAD,
    };
    let most = facts.packet_octets_max.saturating_sub(overhead).min(u32::from(facts.mtu_max));
    let asked = plan.frame_octets_max.saturating_sub(FRAME_BEYOND_MTU);
    let given = asked.min(most).max(u32::from(facts.mtu_min));
    if given < asked {
        warnings.push(PortWarning::FrameLimited {
            asked: plan.frame_octets_max,
            given: given + FRAME_BEYOND_MTU,
        });
    }
    u16::try_from(given).unwrap_or(u16::MAX)
}

fn choose_rss(plan: &PortPlan, facts: &Facts, warnings: &mut Vec<PortWarning>) -> (u64, Vec<u8>) {
    if plan.queues < 2 {
        return (0, Vec::new());
    }
    let wanted = dpdk_sys::VMPROBE_RSS_IP
        | dpdk_sys::VMPROBE_RSS_TCP
        | dpdk_sys::VMPROBE_RSS_UDP
        | dpdk_sys::VMPROBE_RSS_SCTP;
    let types = facts.rss_types & wanted;
    if types == 0 {
        warnings.push(PortWarning::RssMissing);
        return (0, Vec::new());
    }
    if facts.rss_key_octets == 0 {
        warnings.push(PortWarning::RssKeyMissing);
        return (types, Vec::new());
    }
    (types, symmetric_key(usize::from(facts.rss_key_octets)))
}

/// 0x6D5A repeated.
fn symmetric_key(octets: usize) -> Vec<u8> {
    [0x6D, 0x5A].into_iter().cycle().take(octets).collect()
}

fn choose_stamps(plan: &PortPlan, facts: &Facts, warnings: &mut Vec<PortWarning>) -> StampKind {
    if facts.driver == "net_pcap" {
        return pcap_stamps(&plan.device);
    }
    if !plan.hardware_timestamp {
        return StampKind::None;
    }
    if offload(facts, dpdk_sys::VMPROBE_RX_OFFLOAD_TIMESTAMP) == 0 {
        warnings.push(PortWarning::TimestampMissing);
        return StampKind::None;
    }
    StampKind::Device
}

/// A file that is played over and over comes out of memory, without stamps.
fn pcap_stamps(device: &str) -> StampKind {
    let has = |wanted: &str| device.split(',').any(|argument| argument.starts_with(wanted));
    match (has("rx_pcap="), has("infinite_rx=") && !has("infinite_rx=0")) {
        (true, true) => StampKind::None,
        (true, false) => StampKind::File,
        (false, _) => StampKind::Kernel,
    }
}

fn choose_vlan(plan: &PortPlan, facts: &Facts, warnings: &mut Vec<PortWarning>) -> u64 {
    if !plan.vlan_strip {
        return 0;
    }
    let one = offload(facts, dpdk_sys::VMPROBE_RX_OFFLOAD_VLAN_STRIP);
    if one == 0 {
        warnings.push(PortWarning::VlanStripMissing);
        return 0;
    }
    one | offload(facts, dpdk_sys::VMPROBE_RX_OFFLOAD_QINQ_STRIP)
}

/// Frames beyond one ordinary buffer come in several, where the driver can do that; else the
/// buffers are made as large as the frames.
fn choose_room(plan: &PortPlan, facts: &Facts, scatter: bool) -> u16 {
    let frame = if scatter { ROOM_OCTETS } else { plan.frame_octets_max.next_multiple_of(128) };
    let least = facts.buffer_octets_min.max(ROOM_OCTETS);
    let most = u32::from(u16::MAX) - dpdk_sys::RTE_PKTMBUF_HEADROOM;
    u16::try_from(frame.max(least).min(most)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> PortPlan {
        PortPlan {
            name: "p".to_owned(),
            device: "net_x0".to_owned(),
            queues: 1,
            descriptors: 1024,
            frame_octets_max: 1518,
            mbufs: 16_384,
            ..PortPlan::default()
        }
    }

    /// A port like many physical ones: MTU up to 9,702 and every feature.
    fn rich() -> Facts {
        Facts {
            driver: "net_ice".to_owned(),
            mtu_min: 68,
            mtu_max: 9702,
            packet_octets_max: 9728,
            buffer_octets_min: 1024,
            rx_queues_max: 64,
            tx_queues_max: 64,
            rx_offloads: u64::MAX,
            rss_types: u64::MAX,
            rss_key_octets: 52,
            redirection_entries: 512,
        }
    }

    /// A port like `net_pcap`.
    fn poor() -> Facts {
        Facts {
            driver: "net_pcap".to_owned(),
            mtu_min: 46,
            mtu_max: u16::MAX,
            packet_octets_max: u32::MAX,
            rx_queues_max: 16,
            tx_queues_max: 16,
            ..Facts::default()
        }
    }

    #[test]
    fn a_rich_port_gives_all_without_a_warning() {
        let mut plan = plan();
        (plan.queues, plan.frame_octets_max) = (4, 9018);
        (plan.vlan_strip, plan.hardware_timestamp) = (true, true);
        let (setup, warnings) = decide(&plan, &rich(), 32).expect("fits");
        assert_eq!(warnings, []);
        assert_eq!((setup.mtu, setup.room_octets), (9000, 2048));
        assert_eq!(setup.rss_key, symmetric_key(52));
        assert_eq!(setup.rss_key[50..], [0x6D, 0x5A]);
        assert_eq!(setup.stamps, StampKind::Device);
        let all = dpdk_sys::VMPROBE_RX_OFFLOAD_SCATTER
            | dpdk_sys::VMPROBE_RX_OFFLOAD_TIMESTAMP
            | dpdk_sys::VMPROBE_RX_OFFLOAD_VLAN_STRIP
            | dpdk_sys::VMPROBE_RX_OFFLOAD_QINQ_STRIP;
        assert_eq!(setup.offloads, all);
    }

    #[test]
    fn a_poor_port_gives_warnings_and_is_asked_for_nothing() {
        let mut plan = plan();
        (plan.queues, plan.frame_octets_max) = (2, 9018);
        (plan.vlan_strip, plan.hardware_timestamp) = (true, true);
        let facts = Facts { driver: "net_null".to_owned(), ..poor() };
        let (setup, warnings) = decide(&plan, &facts, 32).expect("fits");
        assert_eq!(
            warnings,
            [PortWarning::RssMissing, PortWarning::TimestampMissing, PortWarning::VlanStripMissing]
        );
        assert_eq!((setup.offloads, setup.rss_types), (0, 0));
        assert_eq!(setup.room_octets, 9088, "no scatter: one buffer holds a frame");
    }

    #[test]
    fn limits_of_the_driver_are_kept() {
        let facts = Facts { mtu_max: u16::MAX, packet_octets_max: 1518, ..rich() };
        let mut plan = plan();
        assert_eq!(decide(&plan, &facts, 32).expect("fits").0.mtu, 1500);
        plan.frame_octets_max = 9018;
        let (setup, warnings) = decide(&plan, &facts, 32).expect("fits");
        assert_eq!(setup.mtu, 1500);
        assert_eq!(warnings, [PortWarning::FrameLimited { asked: 9018, given: 1518 }]);
        plan.queues = 65;
        assert!(matches!(
            decide(&plan, &facts, 32),
            Err(PortError::TooManyQueues { asked: 65, limit: 64, .. })
        ));
    }

    #[test]
    fn a_pool_smaller_than_its_rings_is_refused() {
        let plan = PortPlan { queues: 2, mbufs: 2048, ..plan() };
        assert!(matches!(
            decide(&plan, &rich(), 32),
            Err(PortError::PoolTooSmall { needed: 2880, .. })
        ));
    }

    #[test]
    fn stamps_of_files_and_of_the_kernel_differ() {
        let mut plan = plan();
        for (device, stamps) in [
            ("net_pcap0,rx_pcap=a.pcap", StampKind::File),
            ("net_pcap0,rx_pcap=a.pcap,infinite_rx=0", StampKind::File),
            ("net_pcap0,rx_pcap=a.pcap,infinite_rx=1", StampKind::None),
            ("net_pcap0,rx_iface=veth0", StampKind::Kernel),
        ] {
            plan.device = device.to_owned();
            assert_eq!(decide(&plan, &poor(), 32).expect("fits").0.stamps, stamps, "{device}");
        }
    }

    /// The Toeplitz hash as RSS computes it.
    fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
        let bit = |place: usize| u32::from(key[place / 8] >> (7 - place % 8) & 1);
        let mut hash = 0;
        for place in 0..input.len() * 8 {
            if input[place / 8] >> (7 - place % 8) & 1 == 1 {
                let window = (0..32).fold(0, |word, at| word << 1 | bit(place + at));
                hash ^= window;
            }
        }
        hash
    }

    #[test]
    fn the_key_is_symmetric() {
        let forward = [10, 0, 0, 1, 10, 9, 8, 7, 0xC0, 0x01, 0x00, 0x50];
        let reverse = [10, 9, 8, 7, 10, 0, 0, 1, 0x00, 0x50, 0xC0, 0x01];
        let key = symmetric_key(40);
        assert_eq!(toeplitz(&key, &forward), toeplitz(&key, &reverse));
        let other: Vec<u8> = (0..40).collect();
        assert_ne!(toeplitz(&other, &forward), toeplitz(&other, &reverse));
    }
}
