//! What is learned from packets.
//!
//! In: `[inventory.learned]`. Out: [`LearnedPlan`].

use ipnet::IpNet;

/// What is learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lessons {
    /// ARP.
    pub arp: bool,
    /// Neighbour discovery.
    pub nd: bool,
    /// DHCP.
    pub dhcp: bool,
}

/// Learning from ARP, neighbour discovery and DHCP.
#[derive(Clone, Debug)]
pub struct LearnedPlan {
    /// On.
    pub enabled: bool,
    /// From what.
    pub lessons: Lessons,
    /// Only addresses in these; none for all.
    pub networks: Vec<IpNet>,
    /// An address that is silent for longer is nobody's.
    pub silence_s: u32,
    /// Addresses at most.
    pub addresses_max: u32,
    /// Addresses of one segment at most.
    pub addresses_per_segment_max: u32,
    /// Addresses of one MAC address in one segment at most.
    pub addresses_per_mac_max: u32,
    /// Shown as stale after so long a silence.
    pub stale_after_ms: u32,
}

impl Default for LearnedPlan {
    fn default() -> Self {
        Self {
            enabled: false,
            lessons: Lessons { arp: true, nd: true, dhcp: true },
            networks: Vec::new(),
            silence_s: 14_400,
            addresses_max: 32_768,
            addresses_per_segment_max: 4_096,
            addresses_per_mac_max: 16,
            stale_after_ms: 600_000,
        }
    }
}

impl LearnedPlan {
    /// Endpoints that the inventory keeps: all that can be there at once, and as many that are over.
    pub fn endpoints_max(&self) -> usize {
        2 * self.addresses_max as usize
    }

    /// Whether DHCP is learned from.
    pub const fn wants_dhcp(&self) -> bool {
        self.enabled && self.lessons.dhcp
    }
}
