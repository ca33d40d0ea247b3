//! What can go wrong with DPDK, each with what to do about it.
//!
//! In: error numbers and messages of DPDK. Out: [`EalError`], [`PortError`], [`PortWarning`].
//! Invariants: every text names the cause and the next step; DPDK's own words stand at the end.

use std::path::PathBuf;

use thiserror::Error;

/// Why DPDK's environment did not start.
#[derive(Debug, Error)]
pub enum EalError {
    /// DPDK starts once in a process, and does not start again after it has ended.
    #[error("DPDK was already started in this process; it can be started only once")]
    AlreadyStarted,
    /// Another process holds the prefix.
    #[error(
        "another process already runs with eal.file_prefix \"{prefix}\": stop it, or set another \
         eal.file_prefix in this configuration"
    )]
    PrefixInUse {
        /// The prefix.
        prefix: String,
    },
    /// No huge pages, or none mounted where the plan says.
    #[error(
        "no huge pages could be used{}: reserve them as root with `echo {pages} > \
         /proc/sys/vm/nr_hugepages` and `mount -t hugetlbfs none /dev/hugepages`, or set \
         eal.huge_pages = false (slower). DPDK says: {detail}",
        folder_text(folder.as_ref())
    )]
    HugePagesMissing {
        /// Pages of 2 MiB that the configured memory needs.
        pages: u32,
        /// The configured folder.
        folder: Option<PathBuf>,
        /// DPDK's messages.
        detail: String,
    },
    /// Fewer huge pages than asked for.
    #[error(
        "not enough free huge pages for eal.memory_mib = {memory_mib}: reserve more as root with \
         `echo {pages} > /proc/sys/vm/nr_hugepages`, ask for less memory, or set eal.huge_pages = \
         false. DPDK says: {detail}"
    )]
    HugePagesTooFew {
        /// Memory asked for.
        memory_mib: u32,
        /// Pages of 2 MiB that it needs.
        pages: u32,
        /// DPDK's messages.
        detail: String,
    },
    /// Ordinary memory could not be had.
    #[error(
        "eal.memory_mib = {memory_mib} cannot be had: free memory or ask for less. DPDK says: \
         {detail}"
    )]
    MemoryTooSmall {
        /// Memory asked for.
        memory_mib: u32,
        /// DPDK's messages.
        detail: String,
    },
    /// The process may not do what it needs to.
    #[error(
        "permission denied: run as root, or give this user the run folder and the devices. DPDK \
         says: {detail}"
    )]
    NotPermitted {
        /// DPDK's messages.
        detail: String,
    },
    /// Fewer cores than workers.
    #[error(
        "{workers} workers need {workers} cores, but {} can be used (allowed cores: {}): lower \
         the ports' queues or worker.count, or give the process more cores",
        cores.len(), list(cores)
    )]
    TooFewCores {
        /// Workers planned.
        workers: usize,
        /// Cores that can be used.
        cores: Vec<u16>,
    },
    /// A configured core does not exist, or this process may not use it.
    #[error(
        "eal.cores names core {core}, which this process may not use; allowed cores: {}",
        list(allowed)
    )]
    CoreNotAllowed {
        /// The core.
        core: u16,
        /// What the process may use.
        allowed: Vec<u16>,
    },
    /// Two arguments exclude each other.
    #[error(
        "eal.extra_arguments has {argument}, which cannot be used with eal.huge_pages = false: \
         take it out, or use huge pages"
    )]
    ArgumentClash {
        /// The argument.
        argument: &'static str,
    },
    /// DPDK does not know an argument.
    #[error("DPDK rejects its arguments; look at eal.extra_arguments. DPDK says: {detail}")]
    ArgumentRejected {
        /// DPDK's messages.
        detail: String,
    },
    /// A PCI address that no device has.
    #[error("no PCI device {address} in this machine: `lspci -D` or `vmprobe doctor` lists them")]
    NoSuchPciDevice {
        /// The address.
        address: String,
    },
    /// The kernel's driver still has the PCI device.
    #[error(
        "PCI device {address} is held by {}: free it as root with `modprobe vfio-pci && \
         dpdk-devbind.py --bind=vfio-pci {address}`{}",
        driver_text(driver.as_ref()), interface_text(interfaces)
    )]
    PciDeviceBusy {
        /// The address.
        address: String,
        /// Kernel driver that holds it; `None`: no driver at all.
        driver: Option<String>,
        /// Kernel interfaces that would vanish.
        interfaces: Vec<String>,
    },
    /// Another failure of the start.
    #[error("DPDK does not start ({reason}). DPDK says: {detail}")]
    Start {
        /// The error number's text.
        reason: String,
        /// DPDK's messages.
        detail: String,
    },
    /// A thread could not be pinned.
    #[error("this thread cannot be pinned to core {core}: {reason}")]
    Pin {
        /// The core.
        core: u16,
        /// The system's answer.
        reason: String,
    },
    /// A thread could not be registered.
    #[error("DPDK does not take another worker thread: {reason}")]
    Register {
        /// The error number's text.
        reason: String,
    },
}

/// Why a port cannot be used.
#[derive(Debug, Error)]
pub enum PortError {
    /// No driver answers to the device's name.
    #[error(
        "port {port}: device \"{device}\" is neither a PCI address nor the name of a DPDK driver \
         with a number (net_memif0, net_af_packet0, net_tap0 …). DPDK says: {detail}"
    )]
    UnknownDevice {
        /// Port name.
        port: String,
        /// Device as configured.
        device: String,
        /// DPDK's messages.
        detail: String,
    },
    /// The driver is there but refuses the device.
    #[error(
        "port {port}: the driver cannot open \"{device}\"; look at its arguments, and whether the \
         file, interface or device exists and is free. DPDK says: {detail}"
    )]
    DeviceRefused {
        /// Port name.
        port: String,
        /// Device as configured.
        device: String,
        /// DPDK's messages.
        detail: String,
    },
    /// More queues than the port has.
    #[error("port {port}: {asked} queues are configured, but {device} has at most {limit}")]
    TooManyQueues {
        /// Port name.
        port: String,
        /// Device as configured.
        device: String,
        /// Queues asked for.
        asked: u16,
        /// Queues there.
        limit: u16,
    },
    /// The pool is smaller than what rings and caches hold.
    #[error("port {port}: mbufs = {mbufs} is too small for its queues; at least {needed}")]
    PoolTooSmall {
        /// Port name.
        port: String,
        /// As configured.
        mbufs: u32,
        /// Least number.
        needed: u32,
    },
    /// The pool's memory could not be had.
    #[error(
        "port {port}: no memory for {mbufs} packet buffers of {bytes} bytes ({reason}): raise \
         eal.memory_mib or lower the port's mbufs"
    )]
    PoolMemory {
        /// Port name.
        port: String,
        /// Number of buffers.
        mbufs: u32,
        /// Size of one.
        bytes: u32,
        /// The error number's text.
        reason: String,
    },
    /// A call that a port cannot do without failed.
    #[error("port {port}: {step} fails: {reason}. DPDK says: {detail}")]
    Setup {
        /// Port name.
        port: String,
        /// What was done.
        step: &'static str,
        /// The error number's text.
        reason: String,
        /// DPDK's messages.
        detail: String,
    },
}

/// A feature that a port lacks; packets arrive all the same.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortWarning {
    /// Longer frames may not arrive.
    #[error("frames up to {asked} octets are configured; the driver says at most {given}")]
    FrameLimited {
        /// Octets asked for.
        asked: u32,
        /// Octets given.
        given: u32,
    },
    /// The MTU stays as it is.
    #[error("the MTU cannot be set to {mtu}: {reason}")]
    MtuNotSet {
        /// Octets asked for.
        mtu: u16,
        /// The error number's text.
        reason: String,
    },
    /// Packets to other stations may not arrive.
    #[error("promiscuous mode cannot be set: {reason}")]
    PromiscuousNotSet {
        /// The error number's text.
        reason: String,
    },
    /// Several queues, but nothing that spreads packets over them.
    #[error("no receive-side scaling: the queues are filled as the driver pleases")]
    RssMissing,
    /// The hash does not bring both directions together.
    #[error("no symmetric hash key: both directions of a flow may reach different queues")]
    RssKeyMissing,
    /// The queues' shares stay as the driver sets them.
    #[error("the redirection table cannot be set: {reason}")]
    RedirectionNotSet {
        /// The error number's text.
        reason: String,
    },
    /// The ring has another size.
    #[error("receive ring of {given} descriptors instead of {asked}")]
    DescriptorsChanged {
        /// Descriptors asked for.
        asked: u16,
        /// Descriptors given.
        given: u16,
    },
    /// Tags stay in the frame.
    #[error("VLAN tags cannot be stripped: they stay in the frames")]
    VlanStripMissing,
    /// Stamps come from the time stamp counter.
    #[error("no hardware timestamps: packets carry the time of the poll")]
    TimestampMissing,
    /// Stamps cannot be related to the wall clock, so they are not used.
    #[error(
        "the clock of the hardware timestamps cannot be read ({reason}): packets carry the \
             time of the poll"
    )]
    ClockNotReadable {
        /// The error number's text.
        reason: String,
    },
    /// The driver took the port only without its features.
    #[error("the driver refuses hash and offloads ({reason}): the port runs without them")]
    FeaturesRefused {
        /// The error number's text.
        reason: String,
    },
    /// Packets cross between processors.
    #[error("no memory on the port's NUMA node {node}: its packets lie on another one")]
    PoolOnOtherNode {
        /// The port's node.
        node: i32,
    },
}

fn folder_text(folder: Option<&PathBuf>) -> String {
    folder.map(|folder| format!(" in {}", folder.display())).unwrap_or_default()
}

fn driver_text(driver: Option<&String>) -> String {
    driver.map_or_else(|| "no driver".to_owned(), |driver| format!("the kernel driver {driver}"))
}

fn interface_text(interfaces: &[String]) -> String {
    if interfaces.is_empty() {
        String::new()
    } else {
        format!(" (the kernel then loses {})", interfaces.join(", "))
    }
}

fn list(cores: &[u16]) -> String {
    cores.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_to_do() {
        let text = EalError::PrefixInUse { prefix: "a".to_owned() }.to_string();
        assert!(text.contains("eal.file_prefix \"a\"") && text.contains("stop it"), "{text}");
        let text = EalError::TooFewCores { workers: 4, cores: vec![0, 1] }.to_string();
        assert!(text.contains("allowed cores: 0, 1"), "{text}");
        let text = EalError::PciDeviceBusy {
            address: "0000:3b:00.0".to_owned(),
            driver: Some("ixgbe".to_owned()),
            interfaces: vec!["eth2".to_owned()],
        }
        .to_string();
        assert!(text.contains("--bind=vfio-pci 0000:3b:00.0") && text.contains("eth2"), "{text}");
    }
}
