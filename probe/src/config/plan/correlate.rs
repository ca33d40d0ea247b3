//! What `vmprobe correlate` reads.
//!
//! In: `[correlate]`. Out: [`CorrelatePlan`].

use std::net::SocketAddr;

use super::KafkaCluster;

/// A member of the group that looks at what many probes have seen.
#[derive(Clone, Debug, PartialEq)]
pub struct CorrelatePlan {
    /// Where samples are; without brokers nowhere.
    pub cluster: KafkaCluster,
    /// What stands before a topic's name.
    pub topic_prefix: String,
    /// Consumer group.
    pub group: String,
    /// How long sightings of one packet, and records of one window, are waited for, in milliseconds.
    pub hold_ms: u32,
    /// Detectors look at the windows of all probes.
    pub detect: bool,
    /// How far back who takes over the detectors reads at most, in seconds; `detect.port_scan.forget_s` and
    /// 64 windows where that is more.
    pub history_s: u32,
    /// Memory for contacts of windows that are not over, in MiB.
    pub contacts_mib_max: u32,
    /// Loopback address and port of metrics and health; `None`: they are not served.
    pub listen: Option<SocketAddr>,
    /// When a silent member is taken for dead, in milliseconds.
    pub session_ms: u32,
}

impl Default for CorrelatePlan {
    fn default() -> Self {
        Self {
            cluster: KafkaCluster::default(),
            topic_prefix: "vmprobe.".to_owned(),
            group: "vmprobe-correlate".to_owned(),
            hold_ms: 15_000,
            detect: false,
            history_s: 3_600,
            contacts_mib_max: 1_024,
            listen: None,
            session_ms: 10_000,
        }
    }
}
