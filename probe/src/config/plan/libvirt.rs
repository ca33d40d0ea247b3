//! One host whose libvirt is asked.
//!
//! In: `[[inventory.libvirt]]`. Out: [`LibvirtPlan`].

use std::path::PathBuf;

/// One libvirt.
#[derive(Clone, Debug)]
pub struct LibvirtPlan {
    /// Name, unique among these.
    pub name: String,
    /// Where it is, as libvirt writes it.
    pub uri: String,
    /// Name of the host that its domains run on, whatever libvirt calls it.
    pub host: Option<String>,
    /// The program that speaks to it.
    pub program: PathBuf,
    /// Domain of the segments that VLAN tags name (place in [`super::Plan::domains`]).
    pub domain: u8,
    /// Whether the VLAN tag of an interface names its segment.
    pub vlan_segments: bool,
    /// Tenants are called by the id of their project.
    pub tenant_ids: bool,
    /// All is read again after this time, although no event came.
    pub read_s: u32,
    /// Usage of VMs is read so often; 0: never.
    pub usage_s: u32,
    /// Longest time for an answer.
    pub timeout_ms: u32,
    /// Longest wait between two tries to connect.
    pub retry_max_ms: u32,
    /// Shown as stale after so long a silence.
    pub stale_after_ms: u32,
    /// Virtual machines of the host at most.
    pub vms_max: u32,
}

impl LibvirtPlan {
    /// What is not given otherwise.
    pub fn new(name: String, uri: String) -> Self {
        Self {
            name,
            uri,
            host: None,
            program: "virsh".into(),
            domain: 0,
            vlan_segments: true,
            tenant_ids: false,
            read_s: 60,
            usage_s: 10,
            timeout_ms: 10_000,
            retry_max_ms: 30_000,
            stale_after_ms: 90_000,
            vms_max: 1_024,
        }
    }
}
